"""How far a query lies from the training queries, calibrated on training queries that the score had not seen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..core.data import FloatArray
from ..core.features import HIDDEN, TEXT, Features
from .card import FamiliarityCard
from .distance import Distance
from .surprise import SIZE, Hashed, Surprise, hashed

MAX_QUERIES = 1024  # the distance is learned from at most: the work grows with the cube
MIN_QUERIES = 40  # fewer leave no tail to calibrate on
MIN_LEFT_OUT = 20  # queries that calibrate, at least; else a third
NUM_FOLDS = 5
LEVEL = 0.05  # a query with a p-value of at most this is novel
BATCH_LEVEL = 0.01  # a batch of the training kind is called novel with at most this chance
MOST_FALSE_ALARMS = 2.0 * LEVEL  # a score with more than these, clearly, is not used
LEAST_SPREAD = 0.02  # of a text's six numbers (nats, logarithms, shares): less than this is no difference in kind
QUANTILES = (0.5, 0.9, 0.95, 0.99)
PREFIX = "familiarity_"
NUM_MEASURED = 6  # numbers that `Surprise` turns a text into

Reading = FloatArray | list[Hashed]  # hidden states, or texts with their buckets found


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
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
class Familiarity:
    """The novelty score: a distance from some training queries, and how large it is for training queries left out.

    Of the hidden states where the predictor reads them, else of what the text looks like. The distance is learned from
    two thirds of the training queries. The others are then to it what new queries of the same kind are, so that the
    share of them that lies at least as far is a conformal p-value, valid whatever the distance is (split conformal:
    Papadopoulos et al., 2002; Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", 2005).

    Attributes:
        distance: of the vectors read.
        surprise: turns texts into vectors; None where hidden states are the vectors.
        left_out_N: distances of the left-out queries, ascending.
        false_alarms: share of the left-out queries that are novel by the distances of four fifths of them.
    """

    distance: Distance
    surprise: Surprise | None
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
        distance, surprise = _learn(_read(features.select(np.arange(min(num_fitted, MAX_QUERIES))), kind))
        held = _read(features.select(np.arange(num_fitted, len(features))), kind)
        left_out_N = distance.apply(_vectors(held, surprise))
        return cls(distance, surprise, np.sort(left_out_N), _false_alarms(left_out_N))

    @property
    def kind(self) -> str:
        """What is read: "hidden" or "text"."""
        return HIDDEN if self.surprise is None else TEXT

    @property
    def is_calibrated(self) -> bool:
        """Whether left-out training queries are novel no more often than they should be; else the score says nothing.

        So by construction where `fit` learned it; saved predictors may hold one that was learned otherwise.
        """
        num = len(self.left_out_N)
        num_alarms = round(num * self.false_alarms) if math.isfinite(self.false_alarms) else 0
        return num_alarms <= MOST_FALSE_ALARMS * num or _binomial_tail(num_alarms, num, LEVEL) > BATCH_LEVEL

    def card(self) -> FamiliarityCard:
        """What a card says of it."""
        return FamiliarityCard(
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
            distance_Q[rows] = self.distance.apply(_vectors(read, self.surprise))
        return distance_Q

    def judge(self, features: Features) -> Judged:
        """p-values for a batch; a query that cannot be read has none and is not novel."""
        distance_Q = self.distances(features)
        is_known_Q = np.isfinite(distance_Q)
        num_known, num_calibrated = int(is_known_Q.sum()), len(self.left_out_N)
        num_beyond_Q = num_calibrated - np.searchsorted(self.left_out_N, distance_Q, side="left")
        rank = num_in_tail(num_calibrated)
        is_novel_Q = is_known_Q & (num_beyond_Q < rank)
        return Judged(
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
        if self.surprise is not None:
            arrays |= {"grams": self.surprise.grams_S, "words": self.surprise.words_S}
        return {PREFIX + name: array for name, array in arrays.items()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, FloatArray], card: FamiliarityCard) -> Self:
        """What `arrays` described, among the arrays of a predictor; raises ValueError where they cannot be right."""
        own = {name.removeprefix(PREFIX): array for name, array in arrays.items() if name.startswith(PREFIX)}
        _check(own, card)
        surprise = Surprise(own["grams"], own["words"]) if card.kind == TEXT else None
        return cls(Distance.from_arrays(own), surprise, own["left_out"], card.false_alarms)


def _check(arrays: dict[str, FloatArray], card: FamiliarityCard) -> None:
    """Raises ValueError where arrays do not fit together, or would judge every query wrongly in silence."""
    num_features = len(arrays["centre"]) if card.kind == HIDDEN else NUM_MEASURED
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
    """What familiarity is judged by: hidden states where they are read (they saw the text), else the text."""
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
    return [hashed(text) for text in features.texts]


def _binomial_tail(least: int, num: int, share: float) -> float:
    """Chance of `least` or more of `num`, each with chance `share`."""
    log_chance = [
        _log_choose(num, count) + count * math.log(share) + (num - count) * math.log1p(-share)
        for count in range(least, num + 1)
    ]
    return min(1.0, math.fsum(math.exp(value) for value in log_chance))


def _learn(read: Reading) -> tuple[Distance, Surprise | None]:
    """The distance, and what turns texts into its vectors."""
    if not isinstance(read, list):
        return Distance.fit(read), None
    return Distance.fit(Surprise.left_out(read), least_spread=LEAST_SPREAD), Surprise.fit(read)


def _vectors(read: Reading, surprise: Surprise | None) -> FloatArray:
    if not isinstance(read, list):
        return read
    assert surprise is not None
    return surprise.apply(read)


def _false_alarms(left_out_Q: FloatArray) -> float:
    """Share of the left-out queries that are novel when the other folds' distances are what they are held against."""
    fold_Q = np.arange(len(left_out_Q)) % NUM_FOLDS
    num_novel = 0
    for fold in range(NUM_FOLDS):
        others = np.sort(left_out_Q[fold_Q != fold])
        num_beyond = len(others) - np.searchsorted(others, left_out_Q[fold_Q == fold], side="left")
        num_novel += int((num_beyond < num_in_tail(len(others))).sum())
    return num_novel / len(left_out_Q)
