"""How unlike the training queries a query looks, calibrated on training queries that the score had not seen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..types import FloatArray, IntArray
from .card import FamiliarityCard
from .distance import Distance
from .features import HIDDEN, TEXT, Features
from .surprise import SIZE, Hashed, Surprise, hashed

MAX_QUERIES = 1024  # learned from at most: the work grows with the cube
MIN_QUERIES = 40  # fewer leave no tail to calibrate on
NUM_FOLDS = 5
LEVEL = 0.05  # a query with a p-value of at most this looks unlike
BATCH_LEVEL = 0.01  # a batch of the training kind is called unlike with at most this chance
REACH = 2.0  # a query is trusted with nothing at this many times the way from the median to the threshold, beyond it
LEAST = 0.05  # less trust than that is none: a straight stretch of the mean curve would follow any hint
QUANTILES = (0.5, 0.9, 0.95, 0.99)
PREFIX = "familiarity_"
NUM_MEASURED = 6  # numbers that `Surprise` turns a text into

Reading = FloatArray | list[Hashed]  # hidden states, or texts with their buckets found


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """How familiar a batch of queries looks.

    Attributes:
        p_Q: chance that a query of the training kind looks at least as unlike; NaN where a query cannot be read.
        weight_Q: how far each query's own prediction is to be trusted, in [0, 1].
        num_queries: that could be read.
        num_trained: training queries that the score was calibrated on.
        num_unlike: with a p-value of at most LEVEL.
        expected: how many of these a batch of the training kind has on average.
        chance: that it has as many or more.
    """

    p_Q: NDArray[np.float64]
    weight_Q: NDArray[np.float64]
    num_queries: int
    num_trained: int
    num_unlike: int
    expected: float
    chance: float

    @property
    def is_unlike(self) -> bool:
        """Whether the batch as a whole is of another kind."""
        return self.chance <= BATCH_LEVEL

    @property
    def num_drawn(self) -> int:
        """Queries whose prediction is not wholly trusted."""
        return int((self.weight_Q < 1.0).sum())


@dataclass(frozen=True, slots=True, eq=False)
class Familiarity:
    """A distance from the training queries, and how large it is for training queries that were left out.

    Of the hidden states where the predictor reads them, else of what the text looks like. The distance is learned
    again without each fold; the left-out queries' distances are then spread as those of new queries of the same kind,
    and the share of them that lies at least as far is a conformal p-value (Vovk, Gammerman and Shafer, "Algorithmic
    Learning in a Random World", 2005; cross-conformal: Vovk, 2015).

    What a p-value is worth is then fixed. Up to the threshold, the distance that a share LEVEL of left-out queries
    exceed, a prediction is trusted in full. Beyond it trust falls in a straight line, and is gone where the query is
    REACH times as far beyond the threshold as the threshold is beyond the median; next to no left-out query is.

    Attributes:
        distance: of the vectors read.
        surprise: turns texts into vectors; None where hidden states are the vectors.
        left_out_N: distances of the left-out queries, ascending, float32.
        false_alarms: share of the left-out queries that look unlike by the distances of the other folds.
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
        num_queries = min(len(features), MAX_QUERIES)
        if kind is None or num_queries < MIN_QUERIES:
            return None
        features = features.select(np.arange(num_queries))
        read = _read(features, kind)
        fold_Q = np.arange(num_queries) % NUM_FOLDS
        left_out_Q = np.empty(num_queries, dtype=np.float32)
        for fold in range(NUM_FOLDS):
            distance, surprise = _learn(read, np.flatnonzero(fold_Q != fold))
            held = np.flatnonzero(fold_Q == fold)
            left_out_Q[held] = distance.apply(_vectors(read, held, surprise))
        distance, surprise = _learn(read, np.arange(num_queries))
        return cls(distance, surprise, np.sort(left_out_Q), _false_alarms(left_out_Q, fold_Q))

    @property
    def kind(self) -> str:
        """What is read: "hidden" or "text"."""
        return HIDDEN if self.surprise is None else TEXT

    def card(self) -> FamiliarityCard:
        """What a card says of it."""
        return FamiliarityCard(
            kind=self.kind,
            num_queries=len(self.left_out_N),
            num_folds=NUM_FOLDS,
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
            distance_Q[rows] = self.distance.apply(_vectors(read, np.arange(len(rows)), self.surprise))
        return distance_Q

    def judge(self, features: Features) -> Judged:
        """p-values and trust for a batch; a query that cannot be read is left as it is, with weight 1."""
        distance_Q = self.distances(features)
        is_known_Q = np.isfinite(distance_Q)
        num_known, num_trained = int(is_known_Q.sum()), len(self.left_out_N)
        num_beyond_Q = num_trained - np.searchsorted(self.left_out_N, distance_Q.astype(np.float32), side="left")
        rank = num_in_tail(num_trained)
        num_unlike = int((is_known_Q & (num_beyond_Q < rank)).sum())
        chance = chance_of(num_unlike, num_known, rank=rank, num_trained=num_trained)
        share = rank / (num_trained + 1)
        # Of a mixture of the training kind and another, that looks unlike throughout: the share of the training kind.
        alike = 1.0 if chance > BATCH_LEVEL else min(1.0, (1.0 - num_unlike / num_known) / (1.0 - share))
        weight_Q = alike * self._trust(distance_Q)
        return Judged(
            p_Q=np.where(is_known_Q, (1 + num_beyond_Q) / (num_trained + 1), np.nan),
            weight_Q=np.where(is_known_Q & (weight_Q < LEAST), 0.0, np.where(is_known_Q, weight_Q, 1.0)),
            num_queries=num_known,
            num_trained=num_trained,
            num_unlike=num_unlike,
            expected=share * num_known,
            chance=chance,
        )

    def _trust(self, distance_Q: NDArray[np.float64]) -> NDArray[np.float64]:
        threshold = float(self.left_out_N[-num_in_tail(len(self.left_out_N))])
        spread = max(threshold - float(np.median(self.left_out_N)), 1e-6 * abs(threshold), 1e-12)
        trust_Q: NDArray[np.float64] = np.clip(1.0 - (distance_Q - threshold) / (REACH * spread), 0.0, 1.0)
        return trust_Q

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
    if card.num_queries < MIN_QUERIES or (np.diff(arrays["left_out"]) < 0.0).any() or arrays["left_out"][0] < 0.0:
        raise ValueError(f"{PREFIX}left_out must hold at least {MIN_QUERIES} distances in ascending order")


def kind_of(reads: frozenset[str]) -> str | None:
    """What familiarity is judged by: hidden states where they are read (they saw the text), else the text."""
    return HIDDEN if HIDDEN in reads else TEXT if TEXT in reads else None


def num_in_tail(num_trained: int) -> int:
    """A query looks unlike if fewer than this many of the left-out training queries are as far."""
    return int(LEVEL * (num_trained + 1) + 1e-9)


def chance_of(num_unlike: int, num_queries: int, *, rank: int, num_trained: int) -> float:
    """Chance that of `num_queries` new queries of the training kind at least `num_unlike` look unlike.

    Exact for exchangeable queries: the share of the kind beyond the `rank`-th largest of `num_trained` distances has a
    beta distribution, so the count is beta-binomial. The threshold's own uncertainty, which a binomial test leaves out,
    matters for batches as large as the training data.
    """
    a, b = rank, num_trained + 1 - rank
    log_chance = [
        _log_choose(num_queries, count) + _log_beta(count + a, num_queries - count + b) - _log_beta(a, b)
        for count in range(num_unlike, num_queries + 1)
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


def _learn(read: Reading, rows: IntArray) -> tuple[Distance, Surprise | None]:
    """The distance learned from some rows, and what turns texts into its vectors."""
    if not isinstance(read, list):
        return Distance.fit(read[rows]), None
    fold_R = np.arange(len(rows)) % NUM_FOLDS
    surprises = [Surprise.fit([read[row] for row in rows[fold_R != fold]]) for fold in range(NUM_FOLDS)]
    # A text surprises less who has counted it: each is measured by the tables of the other folds, as a new one will be.
    vectors_R_6 = np.concatenate([surprises[fold].apply([read[row]]) for fold, row in zip(fold_R, rows, strict=True)])
    return Distance.fit(vectors_R_6), Surprise.fit([read[row] for row in rows])


def _vectors(read: Reading, rows: IntArray, surprise: Surprise | None) -> FloatArray:
    if not isinstance(read, list):
        return read[rows]
    assert surprise is not None
    return surprise.apply([read[row] for row in rows])


def _false_alarms(left_out_Q: FloatArray, fold_Q: IntArray) -> float:
    """Share of the left-out queries that look unlike when the other folds' distances are what they are held against."""
    num_unlike = 0
    for fold in range(NUM_FOLDS):
        others = np.sort(left_out_Q[fold_Q != fold])
        num_beyond = len(others) - np.searchsorted(others, left_out_Q[fold_Q == fold], side="left")
        num_unlike += int((num_beyond < num_in_tail(len(others))).sum())
    return num_unlike / len(left_out_Q)
