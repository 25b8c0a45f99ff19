"""Counts of earlier samples by query, which can be added, decayed and stored in files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from ...core.data import FloatArray, IntArray
from ...core.features import Counts, Float64Array
from ...core.profile import UNTRIED, Profile

PREFIX = "draws."
NAMES = ("tried", "right", "counted", "tokens", "answered")  # of the arrays on disk


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """Counts of N queries under B options, summed over all added samples; not whole numbers if earlier ones decay.

    Attributes:
        ids: of the queries, each once, length N.
        tried_N_B, right_N_B: draws, and how many of them were right.
        counted_N_B: draws whose tokens are known.
        tokens_N_B: their tokens, summed.
        answers: (row of `ids`, answer), each once: what was answered, where that was kept; length M.
        answered_M_B: how often each of them was, under each option.
        grade_M: what each of them was judged, as in `core.profile`; `UNTRIED` where that was not kept.
    """

    ids: tuple[str, ...]
    tried_N_B: Float64Array
    right_N_B: Float64Array
    counted_N_B: Float64Array
    tokens_N_B: Float64Array
    answers: tuple[tuple[int, str], ...]
    answered_M_B: Float64Array
    grade_M: IntArray

    @classmethod
    def none(cls, num_options: int) -> Self:
        """Of no query."""
        none = np.zeros((0, num_options))
        return cls((), none, none, none, none, (), none, np.zeros(0, dtype=np.int64))

    @classmethod
    def of_counts(cls, ids: Sequence[str], counts: Counts) -> Self:
        """What was counted of queries of these ids, in their order; answers are not known."""
        tried_N_B = counts.tries_Q_B.astype(np.float64)
        counted_N_B, tokens_N_B = np.zeros_like(tried_N_B), np.zeros_like(tried_N_B)
        if counts.tokens_Q_B is not None:
            counted_N_B = np.where(np.isfinite(counts.tokens_Q_B), tried_N_B, 0.0)
            tokens_N_B = np.where(counted_N_B > 0, counts.tokens_Q_B, 0.0) * counted_N_B
        right_N_B, none_M_B = counts.num_right_Q_B.astype(np.float64), np.zeros((0, counts.menu.num_options))
        grade_M = np.zeros(0, dtype=np.int64)
        return cls(tuple(ids), tried_N_B, right_N_B, counted_N_B, tokens_N_B, (), none_M_B, grade_M)

    @classmethod
    def of(cls, profile: Profile) -> Self:
        """What a profile counted, with its answers where it keeps traces."""
        made = cls.of_counts(profile.query_ids, Counts.of(profile))
        if profile.traces is None:
            return made
        answers, answered, grades = zip(*_answers(profile), strict=True) if profile.num_queries else ((), (), ())
        pairs = tuple((row, text) for row, texts in enumerate(answers) for text in texts)
        return replace(
            made,
            answers=pairs,
            answered_M_B=np.concatenate([made.answered_M_B, *answered]),
            grade_M=np.concatenate([made.grade_M, *grades]),
        )

    @property
    def _counts(self) -> tuple[Float64Array, Float64Array, Float64Array, Float64Array]:
        return self.tried_N_B, self.right_N_B, self.counted_N_B, self.tokens_N_B

    @property
    def num_queries(self) -> int:
        """Queries with a draw."""
        return int((self.tried_N_B > 0).any(axis=1).sum())

    @property
    def num_draws(self) -> float:
        """Draws of all queries under all options."""
        return float(self.tried_N_B.sum())

    @property
    def row_of(self) -> dict[str, int]:
        """Id -> row."""
        return {query_id: row for row, query_id in enumerate(self.ids)}

    def on(self, columns: Sequence[int | None]) -> Self:
        """The same under other options: `columns` says which column each of them is here, None for none of them."""
        known = [place for place, column in enumerate(columns) if column is not None]
        picked = [column for column in columns if column is not None]

        def moved(value_N_B: Float64Array) -> Float64Array:
            found = np.zeros((len(value_N_B), len(columns)))
            found[:, known] = value_N_B[:, picked]
            return found

        tried, right, counted, tokens = (moved(each) for each in self._counts)
        return type(self)(self.ids, tried, right, counted, tokens, self.answers, moved(self.answered_M_B), self.grade_M)

    def named_as(self, earlier: Draws, group: Callable[[Sequence[str]], Sequence[int]]) -> Self:
        """The same with each answer under the text that it first had, here or in `earlier`.

        Args:
            earlier: of some of the same queries.
            group: texts -> the group of each: the same for the same answer, below 0 for one that has none.
        """
        texts_of: dict[str, list[str]] = {}
        for row, text in earlier.answers:
            texts_of.setdefault(earlier.ids[row], []).append(text)
        own: dict[int, list[int]] = {}
        for number, (row, _) in enumerate(self.answers):
            own.setdefault(row, []).append(number)
        found: list[tuple[int, str]] = []
        for row, numbers in own.items():
            known = [*texts_of.get(self.ids[row], ()), *(self.answers[number][1] for number in numbers)]
            groups, first = group(known), dict[int, str]()
            for number, text in zip(groups, known, strict=True):
                first.setdefault(number, text)
            named = [text if number < 0 else first[number] for number, text in zip(groups, known, strict=True)]
            found += [(row, text) for text in named[-len(numbers) :]]
        pairs = dict.fromkeys(found)
        place_of = {pair: place for place, pair in enumerate(pairs)}
        places = np.array([place_of[pair] for pair in found], dtype=np.int64)
        ordered = [number for numbers in own.values() for number in numbers]
        answered_M_B = _summed(self.answered_M_B[:0], self.answered_M_B[ordered], places, len(pairs), 1.0)
        grade_M = np.full(len(pairs), UNTRIED, dtype=np.int64)
        grade_M[places] = self.grade_M[ordered]
        return replace(self, answers=tuple(pairs), answered_M_B=answered_M_B, grade_M=grade_M)

    def added(self, more: Draws, *, keep: float = 1.0) -> Self:
        """These, counted `keep` times each, and more under the same options."""
        row_of = self.row_of
        ids = [*self.ids, *(query_id for query_id in more.ids if query_id not in row_of)]
        row_of = {query_id: row for row, query_id in enumerate(ids)}
        rows = np.array([row_of[query_id] for query_id in more.ids], dtype=np.int64)
        texts = [*self.answers, *((int(rows[row]), text) for row, text in more.answers)]
        answers = dict.fromkeys(texts)
        place_of = {pair: place for place, pair in enumerate(answers)}
        places = np.array([place_of[pair] for pair in texts[len(self.answers) :]], dtype=np.int64)
        pairs = zip(self._counts, more._counts, strict=True)
        tried, right, counted, tokens = (_summed(held, new, rows, len(ids), keep) for held, new in pairs)
        answered_M_B = _summed(self.answered_M_B, more.answered_M_B, places, len(answers), keep)
        grade_M = np.full(len(answers), UNTRIED, dtype=np.int64)
        grade_M[places] = more.grade_M
        grade_M[: len(self.answers)] = np.where(self.grade_M != UNTRIED, self.grade_M, grade_M[: len(self.answers)])
        return type(self)(tuple(ids), tried, right, counted, tokens, tuple(answers), answered_M_B, grade_M)

    def state(self) -> tuple[dict[str, Any], dict[str, FloatArray]]:
        """JSON-able settings and arrays, as an estimator keeps them."""
        arrays = dict(zip(NAMES, (*self._counts, self.answered_M_B), strict=True))
        arrays["grade"] = self.grade_M.astype(np.float64)
        settings = {"ids": list(self.ids), "answers": [list(pair) for pair in self.answers]}
        return settings, {f"{PREFIX}{name}": array for name, array in arrays.items()}

    @classmethod
    def from_state(cls, settings: Mapping[str, Any], arrays: Mapping[str, FloatArray]) -> Self:
        """What `state` gave; raises ValueError where parts do not belong together."""
        tried, right, counted, tokens, answered = (
            np.asarray(arrays[f"{PREFIX}{name}"], dtype=np.float64) for name in NAMES
        )
        ids = tuple(str(each) for each in settings["ids"])
        answers = tuple((int(row), str(text)) for row, text in settings["answers"])
        num_options = tried.shape[1]
        if any(each.shape != (len(ids), num_options) for each in (tried, right, counted, tokens)):
            raise ValueError(f"its counts are not of its {len(ids)} questions")
        is_whole = answered.shape == (len(answers), num_options) and all(0 <= row < len(ids) for row, _ in answers)
        if not is_whole or len(set(ids)) != len(ids):
            raise ValueError("its answers are not of its questions, or a question occurs twice")
        counts = (tried, right, counted, tokens, answered)
        if not all(np.isfinite(each).all() and (each >= 0).all() for each in counts) or (right > tried + 1e-6).any():
            raise ValueError("its counts hold what is no number of at least 0, or more right than tried")
        kept = arrays.get(f"{PREFIX}grade")  # not of an older version
        grade_M = np.full(len(answers), UNTRIED) if kept is None else np.asarray(kept).astype(np.int64)
        if grade_M.shape != (len(answers),):
            raise ValueError("its grades are not of its answers")
        return cls(ids, tried, right, counted, tokens, answers, answered, grade_M)


def _answers(profile: Profile) -> Iterator[tuple[tuple[str, ...], Float64Array, IntArray]]:
    """For each query its answers, how often each was given under each option, and what it was judged."""
    assert profile.traces is not None
    num_options = profile.menu.num_options
    for texts, span in zip(profile.traces.answers_Q, profile.traces_of_Q, strict=True):
        code_N_B = profile.traces.answer_N_B[span]
        is_tried_N_B = profile.traces.grade_N_B[span] != UNTRIED
        cells = (code_N_B * num_options + np.arange(num_options))[is_tried_N_B]
        count = np.bincount(cells, minlength=len(texts) * num_options)[: len(texts) * num_options]
        grade_A = np.full(len(texts), UNTRIED, dtype=np.int64)
        grade_A[code_N_B[is_tried_N_B]] = profile.traces.grade_N_B[span][is_tried_N_B]
        yield texts, count.reshape(len(texts), num_options).astype(np.float64), grade_A


def _summed(held: Float64Array, more: Float64Array, rows: IntArray, size: int, keep: float) -> Float64Array:
    summed = np.zeros((size, more.shape[1]))
    summed[: len(held)] = keep * held
    np.add.at(summed, rows, more)
    return summed
