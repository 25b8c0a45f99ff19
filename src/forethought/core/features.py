"""What predictors may read of queries before any generation, and what each of them is given of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidFeaturesError
from .data import FloatArray, IntArray

HIDDEN, TEXT, DIFFICULTY = "hidden", "text", "difficulty"
KINDS = (HIDDEN, TEXT, DIFFICULTY)
CHUNK_ROWS = 8192  # rows cast to float32 at a time: bounds memory when features are float16


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """Everything that is known of Q queries; a part that is not at hand is None.

    Attributes:
        num_queries: Q.
        hidden_Q_D: hidden states of one layer, floating, shape (Q, D); a row of NaN where the model could not read the
            prompt.
        texts: the questions as text, length Q.
        difficulties: what the model itself said when asked how hard each is: "easy", "medium", "hard", or None where
            it said something else; length Q.
    """

    num_queries: int
    hidden_Q_D: FloatArray | None = None
    texts: tuple[str, ...] | None = None
    difficulties: tuple[str | None, ...] | None = None

    @classmethod
    def of(cls, features: Features | FloatArray) -> Features:
        """`features`, where a bare matrix stands for hidden states alone."""
        return features if isinstance(features, Features) else cls(len(features), hidden_Q_D=features)

    def __len__(self) -> int:
        return self.num_queries

    def select(self, rows: IntArray) -> Features:
        """The features of some queries, by index, in that order."""
        return Features(
            num_queries=len(rows),
            hidden_Q_D=None if self.hidden_Q_D is None else self.hidden_Q_D[rows],
            texts=None if self.texts is None else tuple(self.texts[row] for row in rows),
            difficulties=None if self.difficulties is None else tuple(self.difficulties[row] for row in rows),
        )

    def given_to(self, predictor: Any) -> FloatArray | Features:
        """What `predictor.fit` and `.predict` are called with: the matrix of hidden states, or all of this.

        A predictor that reads hidden states alone is given their matrix, one that reads nothing a matrix of width 0;
        one whose `reads` names anything else is given the features themselves.

        Raises:
            InvalidFeaturesError: a part that it reads is not there.
        """
        reads = reads_of(predictor)
        self.check(reads)
        if not reads:
            return np.empty((self.num_queries, 0), dtype=np.float32)
        if reads == {HIDDEN}:
            assert self.hidden_Q_D is not None
            return self.hidden_Q_D
        return self

    def check(self, reads: frozenset[str]) -> None:
        """Raises InvalidFeaturesError when a part named in `reads` is not there, and says how to have it."""
        if HIDDEN in reads and self.hidden_Q_D is None:
            raise InvalidFeaturesError("this predictor reads hidden states, and there are none")
        if TEXT in reads and self.texts is None:
            raise InvalidFeaturesError("this predictor reads the questions' text, which is not known here")
        if DIFFICULTY in reads and self.difficulties is None:
            raise InvalidFeaturesError(
                "this predictor reads the difficulty that the model states, and it was not asked"
            )

    def usable_rows(self, reads: frozenset[str]) -> IntArray:
        """Indices of the queries of which everything in `reads` is known: finite hidden states, a text."""
        is_usable_Q = np.ones(self.num_queries, dtype=bool)
        if HIDDEN in reads and self.hidden_Q_D is not None:
            is_usable_Q[nonfinite_rows(self.hidden_Q_D)] = False
        if TEXT in reads and self.texts is not None:
            is_usable_Q &= np.array([bool(text.strip()) for text in self.texts], dtype=bool)
        return np.flatnonzero(is_usable_Q)


def reads_of(predictor: Any) -> frozenset[str]:
    """What a predictor, or its class, says it reads; hidden states where it says nothing.

    Raises:
        InvalidFeaturesError: it names a kind of features that there is not.
    """
    reads = frozenset(getattr(predictor, "reads", (HIDDEN,)))
    if unknown := reads - set(KINDS):
        raise InvalidFeaturesError(f"{predictor!r} reads {sorted(unknown)}; there is {', '.join(KINDS)}")
    return reads


def reads_to_kind(reads: frozenset[str] | Sequence[str]) -> str:
    """One word for a card: "hidden+text"; "none" for a predictor that reads nothing."""
    return "+".join(kind for kind in KINDS if kind in reads) or "none"


def kind_to_reads(kind: str) -> frozenset[str]:
    """What `reads_to_kind` wrote; raises InvalidFeaturesError on anything else."""
    reads = frozenset() if kind == "none" else frozenset(kind.split("+"))
    if reads - set(KINDS):
        raise InvalidFeaturesError(f"{kind!r} is no kind of features; there is {', '.join(KINDS)}, or none")
    return reads


def chunks(num_rows: int) -> Iterator[slice]:
    """Slices that cover `num_rows` rows, `CHUNK_ROWS` at a time."""
    for start in range(0, num_rows, CHUNK_ROWS):
        yield slice(start, min(start + CHUNK_ROWS, num_rows))


def nonfinite_rows(features_Q_D: FloatArray) -> NDArray[np.int64]:
    """Indices of rows that hold NaN or infinity.

    One product with ones instead of a mask of the whole matrix: NaN and infinity survive a sum, and it runs at the
    speed of memory.
    """
    ones_D = np.ones(features_Q_D.shape[1], dtype=np.float32)
    sum_Q = np.empty(len(features_Q_D), dtype=np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        for rows in chunks(len(features_Q_D)):
            sum_Q[rows] = features_Q_D[rows].astype(np.float32, copy=False) @ ones_D
    suspects = np.flatnonzero(~np.isfinite(sum_Q))  # a finite row may still overflow its sum: look again
    return suspects[~np.isfinite(features_Q_D[suspects]).all(axis=1)]
