"""Replays of rules that decide how many samples vote, on samples that were drawn before: the same ones for all rules.

Each rule sees them in many random orders, the same for all rules, and what is reported of a query is the mean over
them. A rule is a pure function of what it is shown, and decides all queries in one call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, Self, TypeVar

import numpy as np

from forethought.core.data import FloatArray, IntArray
from forethought.errors import InvalidInputError
from forethought.evaluation.vote_replay import FrozenDraws
from votes_stopping import Shown

Values = TypeVar("Values", FloatArray, IntArray)


class StoppingRule(Protocol):
    """Says how many more samples to draw."""

    @property
    def most(self) -> int:
        """Samples of a query, at most."""
        ...

    def draw(self, standing: Shown) -> IntArray:
        """Samples to draw before the rule is asked again, in the shape of `standing`; 0 to stop."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Replayed:
    """What a rule did, as means over the orders of each query; shape (Q,) each.

    Attributes:
        right_Q: share of the votes that were right.
        tokens_Q: tokens spent.
        samples_Q: samples drawn.
    """

    right_Q: FloatArray
    tokens_Q: FloatArray
    samples_Q: FloatArray

    @classmethod
    def joined(cls, parts: Sequence[tuple[IntArray, Replayed]]) -> Self:
        """Of all queries, from disjoint parts: their rows and what was done there."""
        num_queries = sum(len(rows) for rows, _ in parts)
        found = [np.empty(num_queries) for _ in range(3)]
        for rows, part in parts:
            for whole, each in zip(found, (part.right_Q, part.tokens_Q, part.samples_Q), strict=True):
                whole[rows] = each
        return cls(*found)


def replay(draws: FrozenDraws, rule: StoppingRule) -> Replayed:
    """What the rule does on these samples; asked again after each number of samples that it wanted.

    Raises:
        InvalidInputError: the rule wants more samples of a query than there are.
    """
    num_Q_R = np.zeros(draws.order_Q_R_N.shape[:2], dtype=np.int64)
    while True:
        more_Q_R = rule.draw(standing_at(draws, num_Q_R))
        if not more_Q_R.any():
            return replayed(draws, num_Q_R)
        num_Q_R = num_Q_R + more_Q_R
        if num_Q_R.max() > draws.num_samples:
            raise InvalidInputError(f"the rule wants {num_Q_R.max()} samples, of {draws.num_samples} that were drawn")


def standing_at(draws: FrozenDraws, num_Q_R: IntArray) -> Shown:
    """How votes stand after a number of samples of each query in each order, shape (Q, R)."""
    every = draws.standing_Q_R_N
    return Shown(*(_at(values, num_Q_R) for values in (every.num_drawn, every.top, every.second, streaks(draws))))


@lru_cache(maxsize=4)
def streaks(draws: FrozenDraws) -> IntArray:
    """`Shown.streak` after 0, 1, … N samples, shape (Q, R, N + 1)."""
    shown = np.take_along_axis(draws.group_Q_T[:, None], draws.order_Q_R_N, axis=2)
    found = np.zeros((*shown.shape[:2], draws.num_samples + 1), dtype=np.int64)
    for number in range(draws.num_samples):
        now, before = shown[:, :, number], shown[:, :, max(number - 1, 0)]
        found[:, :, number + 1] = np.where(now < 0, 0, np.where(now == before, found[:, :, number] + 1, 1))
    return found


def replayed(draws: FrozenDraws, num_Q_R: IntArray) -> Replayed:
    """The means of votes over a number of samples of each query in each order, shape (Q, R)."""
    right_Q_R, spent_Q_R = (_at(values, num_Q_R) for values in (draws.right_Q_R_N, draws.spent_Q_R_N))
    return Replayed(right_Q_R.mean(axis=1), spent_Q_R.mean(axis=1), num_Q_R.mean(axis=1))


def _at(values_Q_R_N: Values, num_Q_R: IntArray) -> Values:
    return np.take_along_axis(values_Q_R_N, num_Q_R[:, :, None], axis=2)[:, :, 0]
