"""How novel a query is: its distance from the training queries, calibrated on queries that the score had not seen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..core.data import FloatArray
from ..core.features import HIDDEN, TEXT, Features, chunks
from .card import NoveltyCard
from .parts.surprisal import NUM_NUMBERS, SIZE, Hashed, Surprisal, hash_text

MAX_QUERIES = 1024  # the distance is learned from at most: the work grows with the cube
MIN_QUERIES = 40  # fewer leave no tail to calibrate on
MIN_LEFT_OUT = 20  # queries that calibrate, at least; else a third
NUM_FOLDS = 5
LEVEL = 0.05  # a query with a p-value of at most this is novel
BATCH_LEVEL = 0.01  # a batch of the training kind is called novel with at most this chance
MOST_FALSE_ALARMS = 2.0 * LEVEL  # a score with more than these, clearly, is not used
LEAST_SPREAD = 0.02  # of a text's six numbers (nats, logarithms, shares): less than this is no difference in kind
QUANTILES = (0.5, 0.9, 0.95, 0.99)
PREFIX = "novelty_"

MAX_COMPONENTS = 32  # directions whose variance is learned one by one: 100 KB of float16 at a width of 1536
ROWS_PER_COMPONENT = 10  # fewer vectors than that say next to nothing about a direction's variance
SPREAD_FLOOR = 1e-3  # of the median spread: rounding is no spread
VARIANCE_FLOOR = 0.01  # of a standardised feature's: a direction that hardly varied in training says next to nothing

Reading = FloatArray | list[Hashed]  # hidden states, or texts with their buckets found


@dataclass(frozen=True, slots=True, eq=False)
class Novelty:
    """The novelty of a batch of queries.

    Attributes:
        p_Q: chance that a query of the training kind lies at least as far out; NaN where a query cannot be read.
        is_novel_Q: whether that is at most LEVEL.
        num_queries: that could be read.
        num_calibrated: training queries that the score was calibrated on.
        expected: how many of these queries would be novel by chance, were they of the training kind.
        chance: that as many or more are.
    """

    p_Q: NDArray[np.float64]
    is_novel_Q: NDArray[np.bool_]
    num_queries: int
    num_calibrated: int
    expected: float
    chance: float

    @property
    def num_novel(self) -> int:
        """Queries with a p-value of at most LEVEL."""
        return int(self.is_novel_Q.sum())

    @property
    def is_novel(self) -> bool:
        """Whether the batch as a whole is of another kind."""
        return self.chance <= BATCH_LEVEL


@dataclass(frozen=True, slots=True, eq=False)
class NoveltyScore:
    """The novelty score: a distance from some training queries, and how large it is for training queries left out.

    Of the hidden states where the predictor reads them, else of what the text looks like. The distance is learned from
    two thirds of the training queries; the share of the others that lies at least as far is a conformal p-value, valid
    whatever the distance is (Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", 2005).

    Attributes:
        distance: of the vectors read.
        surprisal: turns texts into vectors; None where hidden states are the vectors.
        left_out_N: distances of the left-out queries, ascending.
        false_alarms: share of the left-out queries that are novel by the distances of four fifths of them.
    """

    distance: Distance
    surprisal: Surprisal | None
    left_out_N: FloatArray
    false_alarms: float = math.nan

    @classmethod
    def fit(cls, features: Features, reads: frozenset[str]) -> Self | None:
        """Learns from training queries, in an order that has nothing to do with them; None where it cannot.

        It cannot of fewer than MIN_QUERIES, nor for a predictor that reads neither hidden states nor text.
        """
        kind = kind_of(reads)
        if kind is None or len(features) < MIN_QUERIES:
            return None
        num_fitted = len(features) - max(MIN_LEFT_OUT, len(features) // 3)
        distance, surprisal = _learn(_read(features.select(np.arange(min(num_fitted, MAX_QUERIES))), kind))
        held = _read(features.select(np.arange(num_fitted, len(features))), kind)
        left_out_N = distance.apply(_vectors(held, surprisal))
        return cls(distance, surprisal, np.sort(left_out_N), _false_alarms(left_out_N))

    @property
    def kind(self) -> str:
        """What is read: "hidden" or "text"."""
        return HIDDEN if self.surprisal is None else TEXT

    @property
    def is_calibrated(self) -> bool:
        """Whether left-out training queries are novel no more often than they should be; else the score says nothing.

        So by construction where `fit` learned it; saved predictors may hold one that was learned otherwise.
        """
        num = len(self.left_out_N)
        num_alarms = round(num * self.false_alarms) if math.isfinite(self.false_alarms) else 0
        return num_alarms <= MOST_FALSE_ALARMS * num or _binomial_tail(num_alarms, num, LEVEL) > BATCH_LEVEL

    def card(self) -> NoveltyCard:
        """What a card says of it."""
        return NoveltyCard(
            kind=self.kind,
            num_queries=len(self.left_out_N),
            num_folds=1,
            num_components=len(self.distance.variance_K),
            level=LEVEL,
            quantiles=tuple((share, float(np.quantile(self.left_out_N, share))) for share in QUANTILES),
            false_alarms=self.false_alarms,
        )

    def distances(self, features: Features) -> NDArray[np.float64]:
        """Distance of each query, shape (Q,); NaN where it cannot be read."""
        distance_Q = np.full(len(features), np.nan)
        rows = features.usable_rows(frozenset({self.kind}))
        if len(rows):
            read = _read(features.select(rows), self.kind)
            distance_Q[rows] = self.distance.apply(_vectors(read, self.surprisal))
        return distance_Q

    def judge(self, features: Features) -> Novelty:
        """p-values for a batch; a query that cannot be read has none and is not novel."""
        distance_Q = self.distances(features)
        is_known_Q = np.isfinite(distance_Q)
        num_known, num_calibrated = int(is_known_Q.sum()), len(self.left_out_N)
        num_beyond_Q = num_calibrated - np.searchsorted(self.left_out_N, distance_Q, side="left")
        rank = num_in_tail(num_calibrated)
        is_novel_Q = is_known_Q & (num_beyond_Q < rank)
        return Novelty(
            p_Q=np.where(is_known_Q, (1 + num_beyond_Q) / (num_calibrated + 1), np.nan),
            is_novel_Q=is_novel_Q,
            num_queries=num_known,
            num_calibrated=num_calibrated,
            expected=num_known * rank / (num_calibrated + 1),
            chance=chance_of(int(is_novel_Q.sum()), num_known, rank=rank, num_trained=num_calibrated),
        )

    def arrays(self) -> dict[str, FloatArray]:
        """Everything learned, by names that begin with PREFIX."""
        arrays = {**self.distance.arrays(), "left_out": self.left_out_N}
        if self.surprisal is not None:
            arrays |= {"grams": self.surprisal.grams_S, "words": self.surprisal.words_S}
        return {PREFIX + name: array for name, array in arrays.items()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, FloatArray], card: NoveltyCard) -> Self:
        """What `arrays` described, among the arrays of a predictor; raises ValueError where they cannot be right."""
        own = {name.removeprefix(PREFIX): array for name, array in arrays.items() if name.startswith(PREFIX)}
        _check(own, card)
        surprisal = Surprisal(own["grams"], own["words"]) if card.kind == TEXT else None
        return cls(Distance.from_arrays(own), surprisal, own["left_out"], card.false_alarms)


def _check(arrays: dict[str, FloatArray], card: NoveltyCard) -> None:
    """Raises ValueError where arrays do not fit together, or would judge every query wrongly in silence."""
    num_features = len(arrays["centre"]) if card.kind == HIDDEN else NUM_NUMBERS
    shapes: dict[str, tuple[int, ...]] = {
        "centre": (num_features,),
        "scale": (num_features,),
        "basis": (num_features, card.num_components),
        "variance": (card.num_components,),
        "rest": (1,),
        "left_out": (card.num_queries,),
        **({"grams": (SIZE,), "words": (SIZE,)} if card.kind == TEXT else {}),
    }
    for name, shape in shapes.items():
        found = arrays[name]
        if found.shape != shape or found.dtype.kind != "f":
            raise ValueError(f"{PREFIX}{name} has shape {found.shape} of {found.dtype}, not {shape} of floats")
        is_finite = not np.isnan(found).any() if name == "scale" else np.isfinite(found).all()
        if not is_finite:
            raise ValueError(f"{PREFIX}{name} holds NaN or infinity")
    if (arrays["scale"] <= 0.0).any() or (arrays["variance"] <= 0.0).any() or arrays["rest"][0] < 0.0:
        raise ValueError(f"{PREFIX}scale, {PREFIX}variance or {PREFIX}rest holds what is no spread")
    if card.num_queries < MIN_LEFT_OUT or (np.diff(arrays["left_out"]) < 0.0).any() or arrays["left_out"][0] < 0.0:
        raise ValueError(f"{PREFIX}left_out must hold at least {MIN_LEFT_OUT} distances in ascending order")


def kind_of(reads: frozenset[str]) -> str | None:
    """What novelty is judged by: hidden states where they are read (they saw the text), else the text."""
    return HIDDEN if HIDDEN in reads else TEXT if TEXT in reads else None


def num_in_tail(num_trained: int) -> int:
    """A query is novel if fewer than this many of the left-out training queries are as far."""
    return int(LEVEL * (num_trained + 1) + 1e-9)


def chance_of(num_novel: int, num_queries: int, *, rank: int, num_trained: int) -> float:
    """Chance that of `num_queries` new queries of the training kind at least `num_novel` are novel.

    Exact for exchangeable queries: the share of the kind beyond the `rank`-th largest of `num_trained` distances has a
    beta distribution, so the count is beta-binomial. The threshold's own uncertainty, which a binomial test leaves out,
    matters for batches as large as the training data.
    """
    a, b = rank, num_trained + 1 - rank
    log_chance = [
        _log_choose(num_queries, count) + _log_beta(count + a, num_queries - count + b) - _log_beta(a, b)
        for count in range(num_novel, num_queries + 1)
    ]
    return min(1.0, math.fsum(math.exp(value) for value in log_chance))


def _log_choose(total: int, count: int) -> float:
    return math.lgamma(total + 1) - math.lgamma(count + 1) - math.lgamma(total - count + 1)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _read(features: Features, kind: str) -> Reading:
    if kind == HIDDEN:
        assert features.hidden_Q_D is not None
        return features.hidden_Q_D
    assert features.texts is not None
    return [hash_text(text) for text in features.texts]


def _binomial_tail(least: int, num: int, share: float) -> float:
    """Chance of `least` or more of `num`, each with chance `share`."""
    log_chance = [
        _log_choose(num, count) + count * math.log(share) + (num - count) * math.log1p(-share)
        for count in range(least, num + 1)
    ]
    return min(1.0, math.fsum(math.exp(value) for value in log_chance))


def _learn(read: Reading) -> tuple[Distance, Surprisal | None]:
    """The distance, and what turns texts into its vectors."""
    if not isinstance(read, list):
        return Distance.fit(read), None
    return Distance.fit(Surprisal.left_out(read), least_spread=LEAST_SPREAD), Surprisal.fit(read)


def _vectors(read: Reading, surprisal: Surprisal | None) -> FloatArray:
    if not isinstance(read, list):
        return read
    assert surprisal is not None
    return surprisal.apply(read)


def _false_alarms(left_out_Q: FloatArray) -> float:
    """Share of the left-out queries that are novel when the other folds' distances are what they are held against."""
    fold_Q = np.arange(len(left_out_Q)) % NUM_FOLDS
    num_novel = 0
    for fold in range(NUM_FOLDS):
        others = np.sort(left_out_Q[fold_Q != fold])
        num_beyond = len(others) - np.searchsorted(others, left_out_Q[fold_Q == fold], side="left")
        num_novel += int((num_beyond < num_in_tail(len(others))).sum())
    return num_novel / len(left_out_Q)


@dataclass(frozen=True, slots=True, eq=False)
class Distance:
    """Distance under probabilistic principal components: the strongest directions, and one variance for all others.

    `sqrt(sum_k z_k² / variance_k + |rest|² / variance_rest)`, over the root of the number of dimensions, so that a
    training vector lies at about 1: the Mahalanobis distance of Tipping and Bishop, "Probabilistic Principal Component
    Analysis" (1999), on standardised features. A vector can be far by an unusual amount of what varies in training, and
    by a direction in which nothing did.

    Attributes:
        centre_D, scale_D: mean and spread of each feature, float32; a constant feature has scale infinity.
        basis_D_K: orthonormal directions, float32.
        variance_K: along each of them, float32.
        rest: variance along every other direction; 0 where there is none.
    """

    centre_D: FloatArray
    scale_D: FloatArray
    basis_D_K: FloatArray
    variance_K: FloatArray
    rest: float

    @classmethod
    def fit(cls, vectors_Q_D: FloatArray, *, least_spread: float = 0.0) -> Self:
        """Learns centre, spread and directions from finite vectors, shape (Q, D); closed form.

        Args:
            vectors_Q_D: to learn from.
            least_spread: in the features' own units; one that varies less, or not at all, is taken to vary so much. At
                0 a constant feature is left out.
        """
        vectors_Q_D = vectors_Q_D.astype(np.float64)
        centre_D, spread_D = vectors_Q_D.mean(axis=0), vectors_Q_D.std(axis=0)
        spread_D = np.maximum(spread_D, least_spread)
        varying_D = spread_D > 1e-12 * (np.abs(centre_D) + 1e-12)
        floor = SPREAD_FLOOR * float(np.median(spread_D[varying_D])) if varying_D.any() else 0.0
        scale_D = np.where(varying_D, np.maximum(spread_D, floor), np.inf)
        x_Q_D = (vectors_Q_D - centre_D) / scale_D
        variance_R, basis_D_R = _principal(x_Q_D)
        num_kept = min(MAX_COMPONENTS, max(1, len(x_Q_D) // ROWS_PER_COMPONENT), len(variance_R))
        num_other = int(varying_D.sum()) - num_kept
        rest = max(VARIANCE_FLOOR, float(variance_R[num_kept:].sum()) / num_other) if num_other > 0 else 0.0
        return cls(
            centre_D.astype(np.float32),
            scale_D.astype(np.float32),
            basis_D_R[:, :num_kept].astype(np.float32),
            np.maximum(variance_R[:num_kept], VARIANCE_FLOOR).astype(np.float32),
            float(np.float32(rest)),
        )

    @property
    def width(self) -> int:
        """D, the number of features."""
        return len(self.centre_D)

    def apply(self, vectors_Q_D: FloatArray) -> NDArray[np.float64]:
        """The distance of each vector, shape (Q,)."""
        squared_Q = np.empty(len(vectors_Q_D))
        basis_D_K = self.basis_D_K.astype(np.float64)
        for rows in chunks(len(vectors_Q_D)):
            x_C_D = (vectors_Q_D[rows].astype(np.float64) - self.centre_D) / self.scale_D.astype(np.float64)
            z_C_K = x_C_D @ basis_D_K
            squared_Q[rows] = (z_C_K**2 / self.variance_K).sum(axis=1)
            if self.rest > 0.0:
                squared_Q[rows] += ((x_C_D - z_C_K @ basis_D_K.T) ** 2).sum(axis=1) / self.rest
        num_dimensions = max(1, int(np.isfinite(self.scale_D).sum()) if self.rest > 0.0 else len(self.variance_K))
        distance_Q: NDArray[np.float64] = np.sqrt(squared_Q / num_dimensions)
        return distance_Q

    def arrays(self) -> dict[str, FloatArray]:
        """Everything learned, by name."""
        return {
            "centre": self.centre_D,
            "scale": self.scale_D,
            "basis": self.basis_D_K,
            "variance": self.variance_K,
            "rest": np.array([self.rest], dtype=np.float32),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, FloatArray]) -> Self:
        """The distance that `arrays` described."""
        rest = float(arrays["rest"][0])
        return cls(arrays["centre"], arrays["scale"], arrays["basis"], arrays["variance"], rest)


def _principal(x_Q_D: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Variances, strongest first, and directions of centred vectors, from whichever Gram matrix is the smaller."""
    num_rows, width = x_Q_D.shape
    if num_rows <= width:
        eigenvalue_R, u_Q_R = np.linalg.eigh(x_Q_D @ x_Q_D.T)
    else:
        eigenvalue_R, v_D_R = np.linalg.eigh(x_Q_D.T @ x_Q_D)
    keep_R = np.flatnonzero(eigenvalue_R > 1e-10 * max(float(eigenvalue_R[-1]), 1e-300))[::-1]
    if num_rows <= width:
        v_D_R = (x_Q_D.T @ u_Q_R[:, keep_R]) / np.sqrt(eigenvalue_R[keep_R])
        return eigenvalue_R[keep_R] / num_rows, v_D_R
    return eigenvalue_R[keep_R] / num_rows, v_D_R[:, keep_R]
