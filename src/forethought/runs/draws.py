"""Samples under named options: the counts of a profile whose options have separate answers."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..core.data import FloatArray, Grade, IntArray, Outcome
from ..core.menu import Menu
from ..core.profile import RIGHT, UNREADABLE, UNTRIED, WRONG, Traces
from ..core.provenance import Provenance
from ..core.records import Record

GRADES = {Grade.WRONG: WRONG, Grade.RIGHT: RIGHT, Grade.UNREADABLE: UNREADABLE}
NUMBERS = ("row", "sample", "column", "length", "tokens", "grade", "answer", "input")
LOGPROBS = ("answer_logprob", "thought_logprob")


def logprobs_of(outcome: Outcome) -> tuple[float, float]:
    """Log-probability of its answer and of the end of its thought; NaN where that was not shown."""
    shown = outcome.logprobs
    if shown is None:
        return math.nan, math.nan
    return shown.answer, math.nan if shown.thought is None else shown.thought


def shown_logprobs(values_N_B: FloatArray) -> FloatArray | None:
    """The log-probabilities of traces, or None where none was shown."""
    return None if np.isnan(values_N_B).all() else values_N_B.astype(np.float32)


class Draws:
    """Draws as they are read, a few numbers each.

    Args:
        menu: the options as they were asked.
        made: how they were measured: says what was sent for them.
        num_queries: that may have some.
    """

    def __init__(self, menu: Menu, made: Provenance, num_queries: int) -> None:
        self._menu, self._made = menu, made
        self._numbers = {name: array("q") for name in NUMBERS}
        self._logprobs = {name: array("f") for name in LOGPROBS}
        self._answers_Q: list[dict[str, int]] = [{} for _ in range(num_queries)]

    @property
    def num_traces(self) -> int:
        """How many there are."""
        return len(self._numbers["row"])

    def add(self, row: int, record: Record, outcomes: Sequence[Outcome]) -> None:
        """One more draw, of query `row`; its one outcome has a grade."""
        (outcome,), codes = outcomes, self._answers_Q[row]
        column = self._menu.column_of(record.option)
        sent, _ = record.billed(is_two_calls=self._made.sends_twice(record.option))
        assert outcome.grade is not None
        answer = codes.setdefault(outcome.answer, len(codes))
        length, tokens = record.reasoning_tokens or 0, outcome.tokens or 0
        values = (row, record.sample, column, length, tokens, GRADES[outcome.grade], answer, sent)
        for name, value in zip(NUMBERS, values, strict=True):
            self._numbers[name].append(value)
        for name, logprob in zip(LOGPROBS, logprobs_of(outcome), strict=True):
            self._logprobs[name].append(logprob)

    def counted(self) -> tuple[list[int], dict[str, Any]]:
        """The queries with samples, by their rows, and the fields of their profile.

        Options stand in the order of the mean tokens that they took. A row of the traces is a sample number that was
        drawn under at least one option; what was not drawn is UNTRIED, and counts in no mean.
        """
        found = {name: np.array(values, dtype=np.int64) for name, values in self._numbers.items()}
        menu, place_B = measured_menu(self._menu, found["column"], found["tokens"])
        column_D = place_B[found["column"]]
        pair_D = found["row"] << 32 | found["sample"]
        pair_N, trace_D = np.unique(pair_D, return_inverse=True)
        rows, num_tried_Q = np.unique(pair_N >> 32, return_counts=True)
        query_D = np.searchsorted(rows, found["row"])
        shape = (len(rows), menu.num_options)

        def summed(values: Any) -> Any:
            total_Q_B = np.zeros(shape)
            np.add.at(total_Q_B, (query_D, column_D), values)
            return total_Q_B

        def spread(values: Any, rest: float, kind: Any = np.int64) -> Any:
            found_N_B = np.full((len(pair_N), menu.num_options), rest, dtype=kind)
            found_N_B[trace_D, column_D] = values
            return found_N_B

        tried_Q_B = summed(1).astype(np.int64)
        least_Q_B = np.maximum(tried_Q_B, 1)
        traces = Traces(
            sample_N=pair_N & 0xFFFFFFFF,
            length_N=spread(found["length"], 0).max(axis=1),
            tokens_N_B=spread(found["tokens"], 0),
            grade_N_B=spread(found["grade"], UNTRIED, np.int8),
            answer_N_B=spread(found["answer"], 0),
            answers_Q=tuple(tuple(self._answers_Q[row]) for row in rows),
            **{
                f"{name}_N_B": shown_logprobs(spread(np.array(values), math.nan, np.float32))
                for name, values in self._logprobs.items()
            },
        )
        is_even = bool((tried_Q_B == num_tried_Q[:, None]).all())
        return rows.tolist(), {
            "menu": menu,
            "num_right_Q_B": summed(found["grade"] == RIGHT).astype(np.int64),
            "num_tried_Q": num_tried_Q,
            "tokens_Q_B": summed(found["tokens"]) / least_Q_B,
            "reasoning_Q_B": summed(found["length"]) / least_Q_B,
            "traces": traces,
            "tried_Q_B": None if is_even else tried_Q_B,
            "input_Q_B": summed(found["input"]) / least_Q_B if (found["input"] > 0).all() else None,
        }


def measured_menu(menu: Menu, column_D: Any, tokens_D: Any) -> tuple[Menu, Any]:
    """The menu in the order of the mean tokens of its samples, and the position of each option of `menu` in it.

    Args:
        menu: options; one without a draw keeps what it was known to take.
        column_D: of each draw.
        tokens_D: that each took.
    """
    num_B = np.bincount(column_D, minlength=menu.num_options)
    mean_B = np.bincount(column_D, tokens_D, menu.num_options) / np.maximum(num_B, 1)
    options = [
        replace(option, tokens=round(float(mean), 1)) if num else option
        for option, num, mean in zip(menu.options, num_B, mean_B, strict=True)
    ]
    found = Menu.named(options)
    return found, np.array([found.column_of(label) for label in menu.labels])


def counted_answers(
    num_queries: int,
    menu: Menu,
    *,
    place: IntArray,
    column: IntArray,
    end: IntArray,
    right: IntArray,
    tokens: IntArray,
    thought: IntArray,
) -> dict[str, Any]:
    """What a profile says of single answers, by its fields: each counts under the options from `column` up to `end`.

    Args:
        num_queries: Q.
        menu: the options, B of them.
        place: of each answer's query, int, shape (N,), as all that follow.
        column: the first option that it counts under.
        end: the one behind the last.
        right: 1 where it was right, else 0.
        tokens: that were generated.
        thought: how many of them were reasoning.
    """

    def summed(value_N: IntArray) -> IntArray:
        steps_Q_B = np.zeros((num_queries, menu.num_options + 1), dtype=np.int64)
        np.add.at(steps_Q_B, (place, column), value_N)
        np.add.at(steps_Q_B, (place, end), -value_N)
        return np.cumsum(steps_Q_B, axis=1)[:, :-1]

    tried_Q_B = summed(np.ones_like(place))
    least_Q_B = np.maximum(tried_Q_B, 1)
    return {
        "num_right_Q_B": summed(right),
        "num_tried_Q": tried_Q_B.max(axis=1),
        "tokens_Q_B": summed(tokens) / least_Q_B,
        "reasoning_Q_B": summed(thought) / least_Q_B,
        "tried_Q_B": tried_Q_B,
    }
