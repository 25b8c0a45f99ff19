"""The inputs of an estimator: features of queries, and measured counts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidFeaturesError, InvalidInputError
from .data import FloatArray, IntArray
from .menu import Menu
from .profile import Profile, tries

HIDDEN, TEXT, DIFFICULTY, ID = "hidden", "text", "difficulty", "id"
KINDS = (HIDDEN, TEXT, DIFFICULTY, ID)
GIVEN = frozenset({TEXT, ID})  # what a query says of itself: no model is needed for it
CHUNK_ROWS = 8192  # rows cast to float32 at a time: bounds memory when features are float16
MIN_QUERIES = 2  # one query has no other to be left out against

Float64Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """Everything that is known of Q queries before any generation; a missing part is None.

    Attributes:
        num_queries: Q.
        hidden_Q_D: hidden states of one layer, floating, shape (Q, D); a row of NaN where the model could not read the
            prompt.
        texts: the questions as text, length Q.
        difficulties: what the model itself said when asked how hard each is: "easy", "medium", "hard", or None where
            it said something else; length Q.
        ids: the queries' ids, by which earlier draws of them are known; length Q.
    """

    num_queries: int
    hidden_Q_D: FloatArray | None = None
    texts: tuple[str, ...] | None = None
    difficulties: tuple[str | None, ...] | None = None
    ids: tuple[str, ...] | None = None

    @classmethod
    def of(cls, profile: Profile, layer: int | None) -> Features:
        """All that a profile knows of its queries, with the hidden states of one layer; None for no hidden states."""
        return cls(
            num_queries=profile.num_queries,
            hidden_Q_D=None if layer is None else hidden_of(profile, layer),
            texts=profile.texts or None,
            difficulties=profile.difficulties or None,
            ids=profile.query_ids,
        )

    @classmethod
    def of_hidden(cls, hidden_Q_D: FloatArray) -> Features:
        """Hidden states alone, shape (Q, D)."""
        return cls(len(hidden_Q_D), hidden_Q_D=hidden_Q_D)

    @classmethod
    def of_texts(cls, texts: Sequence[str]) -> Features:
        """Texts alone."""
        return cls(len(texts), texts=tuple(texts))

    def __len__(self) -> int:
        return self.num_queries

    @property
    def hidden(self) -> FloatArray:
        """The hidden states, shape (Q, D); raises InvalidFeaturesError where there are none."""
        self.check({HIDDEN})
        assert self.hidden_Q_D is not None
        return self.hidden_Q_D

    @property
    def questions(self) -> tuple[str, ...]:
        """The texts, length Q; raises InvalidFeaturesError where they are not known."""
        self.check({TEXT})
        assert self.texts is not None
        return self.texts

    @property
    def stated(self) -> tuple[str | None, ...]:
        """The stated difficulties, length Q; raises InvalidFeaturesError where the model was not asked."""
        self.check({DIFFICULTY})
        assert self.difficulties is not None
        return self.difficulties

    @property
    def known_ids(self) -> tuple[str, ...]:
        """The ids, length Q; raises InvalidFeaturesError where they are not known."""
        self.check({ID})
        assert self.ids is not None
        return self.ids

    def select(self, rows: IntArray) -> Features:
        """The features of some queries, by index, in that order."""
        return Features(
            num_queries=len(rows),
            hidden_Q_D=None if self.hidden_Q_D is None else self.hidden_Q_D[rows],
            texts=None if self.texts is None else tuple(self.texts[row] for row in rows),
            difficulties=None if self.difficulties is None else tuple(self.difficulties[row] for row in rows),
            ids=None if self.ids is None else tuple(self.ids[row] for row in rows),
        )

    def check(self, reads: Sequence[str] | set[str] | frozenset[str]) -> None:
        """Raises InvalidFeaturesError when a part named in `reads` is not there."""
        if HIDDEN in reads and self.hidden_Q_D is None:
            raise InvalidFeaturesError(
                "this predictor reads hidden states, and there are none; forethought.plan reads them from the model"
            )
        if TEXT in reads and self.texts is None:
            raise InvalidFeaturesError("this predictor reads the questions' text, which is not known here")
        if DIFFICULTY in reads and self.difficulties is None:
            raise InvalidFeaturesError(
                "this predictor reads the difficulty that the model states, and it was not asked"
            )
        if ID in reads and self.ids is None:
            raise InvalidFeaturesError("this predictor knows queries by their ids, and they have none here")

    def usable_rows(self, reads: frozenset[str]) -> IntArray:
        """Indices of the queries of which everything in `reads` is known: finite hidden states, a text."""
        rows = np.arange(self.num_queries)
        if TEXT in reads and self.texts is not None:
            blank = [row for row, text in enumerate(self.texts) if not text or text.isspace()]
            rows = np.delete(rows, blank) if blank else rows
        if HIDDEN in reads and self.hidden_Q_D is not None:
            rows = np.setdiff1d(rows, nonfinite_rows(self.hidden_Q_D), assume_unique=True)
        return rows


@dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """What was measured of Q queries under the B options of a menu.

    Attributes:
        menu: the options.
        num_right_Q_B: traces answered right under each, shape (Q, B): int; of votes expected
            numbers, float.
        num_tried_Q: traces sampled, int, shape (Q,).
        tokens_Q_B: mean tokens generated, float, shape (Q, B); None where they were not measured.
        tried_Q_B: traces under each option where they differ, int, shape (Q, B); None: `num_tried_Q` under each.
        token_variance_Q_B: variance of the tokens over a query's traces, shape (Q, B), NaN of fewer than two; None
            where traces are not known one by one.
    """

    menu: Menu
    num_right_Q_B: IntArray | FloatArray
    num_tried_Q: IntArray
    tokens_Q_B: FloatArray | None = None
    tried_Q_B: IntArray | None = None
    token_variance_Q_B: FloatArray | None = None

    def __post_init__(self) -> None:
        right_Q_B, tried_Q, tokens_Q_B = self.num_right_Q_B, self.num_tried_Q, self.tokens_Q_B
        shape = (len(tried_Q), self.menu.num_options)
        if tried_Q.ndim != 1 or right_Q_B.shape != shape:
            raise InvalidInputError(
                f"counts must have shapes (Q, B) and (Q,), with B = {shape[1]} budgets; got right {right_Q_B.shape}, "
                f"tried {tried_Q.shape}"
            )
        if tokens_Q_B is not None and tokens_Q_B.shape != shape:
            raise InvalidInputError(f"tokens have shape {tokens_Q_B.shape}, counts {shape}")
        wrong = np.flatnonzero((right_Q_B < 0).any(axis=1) | (right_Q_B > self.tries_Q_B).any(axis=1))
        if len(wrong):
            raise InvalidInputError(
                f"more right than tried (or less than none) in {len(wrong)} rows: {shorten(wrong.tolist())}"
            )

    @classmethod
    def of(cls, profile: Profile) -> Counts:
        """The counts of a profile; without tokens where they were not measured."""
        tokens_Q_B = profile.tokens_Q_B if profile.is_spend_measured else None
        variance_Q_B = None if tokens_Q_B is None else profile.token_variance_Q_B
        counts = (profile.num_right_Q_B, profile.num_tried_Q, tokens_Q_B, profile.tried_Q_B, variance_Q_B)
        return cls(profile.menu, *counts)

    def __len__(self) -> int:
        return len(self.num_tried_Q)

    @property
    def rate_Q_B(self) -> Float64Array:
        """Share of traces right, shape (Q, B); NaN where an option was not tried."""
        with np.errstate(invalid="ignore"):
            rate_Q_B: Float64Array = self.num_right_Q_B / self.tries_Q_B
        return rate_Q_B

    @property
    def tries_Q_B(self) -> IntArray:
        """Traces of each query under each option, shape (Q, B)."""
        return tries(self.num_tried_Q, self.tried_Q_B, self.num_right_Q_B.shape)

    @property
    def weight_Q(self) -> Float64Array:
        """Traces tried, as weights, shape (Q,)."""
        return self.num_tried_Q.astype(np.float64)

    @property
    def width_B(self) -> Float64Array:
        """Weight of each option in a sum over options, by its range of tokens, shape (B,); the mean is 1."""
        return self.menu.width_B * self.menu.num_options

    def select(self, rows: IntArray) -> Counts:
        """The counts of some queries, by index, in that order."""
        tokens_Q_B = None if self.tokens_Q_B is None else self.tokens_Q_B[rows]
        tried_Q_B = None if self.tried_Q_B is None else self.tried_Q_B[rows]
        variance_Q_B = None if self.token_variance_Q_B is None else self.token_variance_Q_B[rows]
        counts = (self.num_right_Q_B[rows], self.num_tried_Q[rows], tokens_Q_B, tried_Q_B, variance_Q_B)
        return Counts(self.menu, *counts)

    def at(self, column: int) -> Counts:
        """The counts under one option, by column; its weight is 1, whichever it is."""
        tokens_Q_1 = None if self.tokens_Q_B is None else self.tokens_Q_B[:, [column]]
        return Counts(Menu((1,)), self.num_right_Q_B[:, [column]], self.tries_Q_B[:, column], tokens_Q_1)

    def usable_rows(self) -> IntArray:
        """Rows that can be learned from: those with at least one trace under every option.

        Raises:
            InvalidInputError: fewer than two of them, or tokens of theirs that are not numbers.
        """
        rows = np.flatnonzero((self.tries_Q_B > 0).all(axis=1))
        if len(rows) < MIN_QUERIES:
            raise InvalidInputError(
                f"{len(rows)} of {len(self)} queries have a finished trace; a predictor needs at least "
                f"{MIN_QUERIES}. Profile more queries with `forethought profile`."
            )
        if self.tokens_Q_B is not None and not np.isfinite(self.tokens_Q_B[rows]).all():
            raise InvalidInputError("tokens hold NaN or infinity for queries that have finished traces")
        return rows


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """What fits said of N queries that they had not seen.

    Attributes:
        rows: of what was learned from, shape (N,).
        fold_N: which fit predicted each.
        p_N_B, tokens_N_B: predicted; tokens None where there are none.
    """

    rows: IntArray
    fold_N: IntArray
    p_N_B: FloatArray
    tokens_N_B: FloatArray | None


def hidden_of(profile: Profile, layer: int) -> FloatArray:
    """Hidden states of one layer of a profile that holds it, shape (Q, D)."""
    if profile.hidden_Q_L_D is None:
        raise InvalidFeaturesError("the profile holds no hidden states")
    return profile.hidden_Q_L_D[:, profile.layers.index(layer)]


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


def shorten(items: Sequence[object], *, most: int = 5) -> str:
    """The first few items and how many more there are: `a, b, c, d, e and 12 more`."""
    shown = ", ".join(str(item) for item in items[:most])
    return shown if len(items) <= most else f"{shown} and {len(items) - most} more"
