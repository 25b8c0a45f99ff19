"""The novelty of a query: its distance from the training queries, calibrated on left-out queries."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..core.data import FloatArray
from ..core.features import HIDDEN, TEXT, Features, chunks
from .card_parts import NoveltyCard
from .parts.linear import left_singular, scale_of
from .parts.surprisal import NUM_NUMBERS, SIZE, Surprisal, hash_text

MAX_QUERIES = 1024  # the distance is learned from at most: the work grows with the cube
MIN_QUERIES = 40  # fewer leave no tail to calibrate on
MIN_LEFT_OUT = 20  # queries that calibrate, at least; else a third
NUM_FOLDS = 5
LEVEL = 0.05  # a query with a p-value of at most this is novel
BATCH_LEVEL = 0.01  # a batch of the training kind is called novel with at most this chance
MOST_FALSE_ALARMS = 2.0 * LEVEL  # a score with more than these, clearly, is not used
LEAST_SPREAD = 0.02  # of a text's six numbers (nats, logarithms, shares): less than this is no difference in kind
QUANTILES = (0.5, 0.9, 0.95, 0.99)
MAX_COMPONENTS = 32  # directions whose variance is learned one by one: 100 KB of float16 at a width of 1536
ROWS_PER_COMPONENT = 10  # fewer vectors than that say next to nothing about a direction's variance
VARIANCE_FLOOR = 0.01  # of a standardised feature's: a direction that hardly varied in training says next to nothing
PREFIX = "novelty_"


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
        if len(features) < MIN_QUERIES or (kind := kind_of(reads)) is None:
            return None
        num_fitted = len(features) - max(MIN_LEFT_OUT, len(features) // 3)
        fitted = features.select(np.arange(min(num_fitted, MAX_QUERIES)))
        surprisal = None
        if kind == HIDDEN:
            distance = Distance.fit(fitted.hidden)
        else:
            hashed = [hash_text(text) for text in fitted.questions]
            surprisal = Surprisal.fit(hashed)
            distance = Distance.fit(Surprisal.left_out(hashed), least_spread=LEAST_SPREAD)
        made = cls(distance, surprisal, np.empty(0))
        left_out_N = made._distances(features.select(np.arange(num_fitted, len(features))))
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
        if num_alarms <= MOST_FALSE_ALARMS * num:
            return True
        log_odds = (math.log(LEVEL), math.log1p(-LEVEL))
        tail = _tail(num_alarms, num, lambda count: count * log_odds[0] + (num - count) * log_odds[1])
        return tail > BATCH_LEVEL

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
        rows = features.usable_rows(frozenset({self.kind}))
        if len(rows) == len(features):
            return self._distances(features)
        distance_Q = np.full(len(features), np.nan)
        if len(rows):
            distance_Q[rows] = self._distances(features.select(rows))
        return distance_Q

    def _distances(self, features: Features) -> NDArray[np.float64]:
        if self.surprisal is None:
            return self.distance.apply(features.hidden)
        return self.distance.apply(self.surprisal.apply([hash_text(text) for text in features.questions]))

    def judge(self, features: Features) -> Novelty:
        """p-values for a batch; a query that cannot be read has none and is not novel."""
        distance_Q = self.distances(features)
        is_known_Q = np.isfinite(distance_Q)
        num_known, num_calibrated = int(np.count_nonzero(is_known_Q)), len(self.left_out_N)
        num_beyond_Q = num_calibrated - np.searchsorted(self.left_out_N, distance_Q, side="left")
        rank = num_in_tail(num_calibrated)
        is_novel_Q = is_known_Q & (num_beyond_Q < rank)
        return Novelty(
            p_Q=np.where(is_known_Q, (1 + num_beyond_Q) / (num_calibrated + 1), np.nan),
            is_novel_Q=is_novel_Q,
            num_queries=num_known,
            num_calibrated=num_calibrated,
            expected=num_known * rank / (num_calibrated + 1),
            chance=chance_of(int(np.count_nonzero(is_novel_Q)), num_known, rank=rank, num_trained=num_calibrated),
        )

    def arrays(self) -> dict[str, FloatArray]:
        """Everything learned, by names that begin with PREFIX."""
        named = {
            "centre": self.distance.centre_D,
            "scale": self.distance.scale_D,
            "basis": self.distance.basis_D_K,
            "variance": self.distance.variance_K,
            "rest": np.array([self.distance.rest], dtype=np.float32),
            "left_out": self.left_out_N,
        }
        if self.surprisal is not None:
            named |= {"grams": self.surprisal.grams_S, "words": self.surprisal.words_S}
        return {PREFIX + name: array for name, array in named.items()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, FloatArray], card: NoveltyCard) -> Self:
        """What `arrays` described, among the arrays of a predictor; raises ValueError where they cannot be right."""
        own = {name.removeprefix(PREFIX): array for name, array in arrays.items() if name.startswith(PREFIX)}
        _check(own, card)
        surprisal = Surprisal(own["grams"], own["words"]) if card.kind == TEXT else None
        distance = Distance(own["centre"], own["scale"], own["basis"], own["variance"], float(own["rest"][0]))
        return cls(distance, surprisal, own["left_out"], card.false_alarms)


def _check(arrays: dict[str, FloatArray], card: NoveltyCard) -> None:
    """Raises ValueError where arrays do not fit together, or would judge every query wrongly in silence."""
    width, num_components = len(arrays["centre"]) if card.kind == HIDDEN else NUM_NUMBERS, card.num_components
    shapes: dict[str, tuple[int, ...]] = {
        **{"centre": (width,), "scale": (width,), "basis": (width, num_components), "variance": (num_components,)},
        **{"rest": (1,), "left_out": (card.num_queries,)},
        **({"grams": (SIZE,), "words": (SIZE,)} if card.kind == TEXT else {}),
    }
    for name, shape in shapes.items():
        array = arrays[name]
        if array.shape != shape or array.dtype.kind != "f":
            raise ValueError(f"{PREFIX}{name} has shape {array.shape} of {array.dtype}, not {shape} of floats")
        if np.isnan(array).any() or (name != "scale" and np.isinf(array).any()):
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


@lru_cache(maxsize=1024)
def chance_of(num_novel: int, num_queries: int, *, rank: int, num_trained: int) -> float:
    """Chance that of `num_queries` new queries of the training kind at least `num_novel` are novel.

    Exact for exchangeable queries: the share of the kind beyond the `rank`-th largest of `num_trained` distances has a
    beta distribution, so the count is beta-binomial.
    """
    a, b = rank, num_trained + 1 - rank
    whole = _log_beta(a, b)
    return _tail(num_novel, num_queries, lambda count: _log_beta(count + a, num_queries - count + b) - whole)


def _tail(least: int, total: int, log_chance: Callable[[int], float]) -> float:
    """Chance of `least` or more of `total`, where each choice of `count` of them has the chance exp(log_chance)."""
    logs = [-math.log(total + 1) - _log_beta(count + 1, total - count + 1) for count in range(least, total + 1)]
    chances = (math.exp(log + log_chance(count)) for count, log in enumerate(logs, start=least))
    return min(1.0, math.fsum(chances))


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


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
    Analysis" (1999), on standardised features.

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
        """Learns from finite vectors, shape (Q, D); closed form.

        Args:
            vectors_Q_D: to learn from.
            least_spread: in the features' own units; one that varies less, or not at all, is taken to vary so much. At
                0 a constant feature is left out.
        """
        vectors_Q_D = vectors_Q_D.astype(np.float64)
        centre_D = vectors_Q_D.mean(axis=0)
        scale_D = scale_of(centre_D, np.maximum(vectors_Q_D.std(axis=0), least_spread))
        x_Q_D = (vectors_Q_D - centre_D) / scale_D
        u_Q_R, eigenvalue_R = left_singular(x_Q_D)
        u_Q_R, variance_R = u_Q_R[:, ::-1], eigenvalue_R[::-1] / len(x_Q_D)  # strongest first
        num_kept = min(MAX_COMPONENTS, max(1, len(x_Q_D) // ROWS_PER_COMPONENT), len(variance_R))
        num_other = int(np.isfinite(scale_D).sum()) - num_kept
        rest = max(VARIANCE_FLOOR, float(variance_R[num_kept:].sum()) / num_other) if num_other > 0 else 0.0
        variance_K = variance_R[:num_kept]
        return cls(
            centre_D.astype(np.float32),
            scale_D.astype(np.float32),
            (x_Q_D.T @ u_Q_R[:, :num_kept] / np.sqrt(variance_K * len(x_Q_D))).astype(np.float32),
            np.maximum(variance_K, VARIANCE_FLOOR).astype(np.float32),
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
        squared_Q /= num_dimensions
        return np.sqrt(squared_Q, out=squared_Q)
