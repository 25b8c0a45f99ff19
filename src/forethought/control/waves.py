"""Votes in waves: after each wave of samples, whether another one is worth its tokens at the price of a token.

A table (`wave_table`) says how a vote stands and moves. From the last sample backwards this gives the value of each
further wave, so one number, the price of a token, decides for every query when to stop: the same price for all. It is
the price at which what is expected to be drawn fits into what is left, and may be set again after each wave.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from ..core.data import FloatArray, IntArray
from ..core.stopping import Standing
from ..errors import InvalidInputError
from .wave_table import WaveTable

LEAST_PRICE, NUM_PRICES = 2e-5, 110  # a sample for 2 right answers in 100,000 is always worth it
DEAREST = 1e6  # right answers per token: nothing is worth it
STEPS = 60  # of bisection
ROUNDING = 1e-12


@dataclass(frozen=True, eq=False)
class WavePolicy:
    """A table, solved from the last sample backwards: what each further wave is worth, and what follows from a price.

    A price is given in right answers per sample here: a token's price times the tokens of a sample of that query.

    Attributes:
        table: what votes do.
        points: numbers of samples at which it is decided, ascending; the last is the table's most. Waves lie between.
        price_X: prices for which all else is worked out, ascending.
        critical_N_G_A_B: the highest price at which the wave after a state is worth it; 0 where none is.
        right_X_N_G_A_B: expected right answers from a state on, at each price.
        samples_X_N_G_A_B: expected further samples.
    """

    table: WaveTable
    points: tuple[int, ...]
    price_X: FloatArray
    critical_N_G_A_B: FloatArray
    right_X_N_G_A_B: FloatArray
    samples_X_N_G_A_B: FloatArray

    @classmethod
    def of(cls, table: WaveTable, points: Sequence[int] | None = None) -> Self:
        """Solves a table.

        The first wave is always drawn. A further one is drawn where the chance that the vote is right, when it ends by
        this very policy, rises by more than the samples cost until then. Values fall as the price rises while the
        chance of ending at once stays, so a higher price never draws more.

        Args:
            table: of one option.
            points: numbers of samples at which it is decided; None for after each.

        Raises:
            InvalidInputError: points that do not ascend from 1 or more to the table's most.
        """
        points = tuple(range(1, table.most + 1)) if points is None else tuple(points)
        if list(points) != sorted(set(points)) or not points or points[0] < 1 or points[-1] != table.most:
            raise InvalidInputError(f"waves must end after ascending numbers of samples up to {table.most}: {points}")
        price_X = np.geomspace(LEAST_PRICE, 1.0, NUM_PRICES)
        right, leads, follows = table.dense()
        shape = (len(price_X), *right.shape)
        critical, value_X = np.zeros(right.shape), np.empty(shape)
        right_X, samples_X = np.empty(shape), np.zeros(shape)
        for drawn in range(table.most, -1, -1):
            value_X[:, drawn] = right_X[:, drawn] = right[drawn]
            after = next((point for point in points if point > drawn), drawn)
            if after == drawn:
                continue
            ahead = [value_X[:, after], right_X[:, after], samples_X[:, after] + (after - drawn)]
            for number in range(after - 1, drawn - 1, -1):
                ahead = [_stepped(each, leads[number], follows[number]) for each in ahead]
            ahead_value = ahead[0] - price_X[:, None, None, None] * (after - drawn)
            # Values are exact to rounding; a wave that is worth a rounding error is not worth anything.
            is_worth = np.logical_and.accumulate(ahead_value > right[drawn] + ROUNDING, axis=0)
            critical[drawn] = np.where(is_worth[0], price_X[np.maximum(is_worth.sum(axis=0) - 1, 0)], 0.0)
            if drawn == 0:
                is_worth[:], critical[drawn] = True, np.inf
            value_X[:, drawn] = np.where(is_worth, ahead_value, value_X[:, drawn])
            right_X[:, drawn] = np.where(is_worth, ahead[1], right_X[:, drawn])
            samples_X[:, drawn] = np.where(is_worth, ahead[2], 0.0)
        return cls(table, points, price_X, critical, right_X, samples_X)

    def draw(self, standing: Standing, *, price: FloatArray | float, predicted: FloatArray | float) -> IntArray:
        """Samples in the next wave, 0 to stop; a pure function of what is shown.

        Args:
            standing: of each query, at most the table's most samples.
            price: of a sample of it, in right answers; broadcast to the shape of `standing`.
            predicted: chance of a right answer, as it was for the table; broadcast likewise.
        """
        critical = self.critical_N_G_A_B[self._place(standing, predicted)]
        after = np.searchsorted(np.array(self.points), standing.num_drawn, side="right")
        wave = np.array([*self.points, self.table.most])[after] - standing.num_drawn
        return np.where(price <= critical, np.maximum(wave, 0), 0)

    def expected(
        self, standing: Standing, *, price: FloatArray | float, predicted: FloatArray | float
    ) -> tuple[FloatArray, FloatArray]:
        """Expected right answers in the end, and expected further samples; arguments as of `draw`."""
        drawn, bins, top, second = self._place(standing, predicted)
        right_X = self.right_X_N_G_A_B[:, drawn, bins, top, second]
        samples_X = self.samples_X_N_G_A_B[:, drawn, bins, top, second]
        best = (right_X - price * samples_X).argmax(axis=0)[None]
        return np.take_along_axis(right_X, best, axis=0)[0], np.take_along_axis(samples_X, best, axis=0)[0]

    def _place(self, standing: Standing, predicted: FloatArray | float) -> tuple[IntArray, ...]:
        bins = self.table.bins(np.asarray(predicted, dtype=np.float64))
        return standing.num_drawn, bins, standing.top, standing.second


def _stepped(after_X: FloatArray, leads: FloatArray, follows: FloatArray) -> FloatArray:
    """What is expected one sample earlier of values after it, shape (X, G, A, B)."""
    top_X, second_X = np.zeros_like(after_X), np.zeros_like(after_X)
    top_X[:, :, :-1], second_X[..., :-1] = after_X[:, :, 1:], after_X[..., 1:]
    found: FloatArray = leads * top_X + follows * second_X + (1.0 - leads - follows) * after_X
    return found


def start(shape: tuple[int, ...]) -> Standing:
    """Before the first sample."""
    nothing = np.zeros(shape, dtype=np.int64)
    return Standing(nothing, nothing, nothing, nothing)


@dataclass(frozen=True, slots=True, eq=False)
class Drawing:
    """Queries whose samples are being drawn by one option.

    Attributes:
        policy: of that option.
        standing: how their votes stand, shape (Q,).
        tokens_Q: expected tokens of one more sample of each.
        predicted_Q: predicted chance of a right answer.
    """

    policy: WavePolicy
    standing: Standing
    tokens_Q: FloatArray
    predicted_Q: FloatArray

    def decide(self, price: float) -> IntArray:
        """Samples in each query's next wave at the price of a token; 0 to stop."""
        return self.policy.draw(self.standing, price=price * self.tokens_Q, predicted=self.predicted_Q)

    def expected(self, price: float) -> tuple[FloatArray, FloatArray]:
        """Expected right answers and further tokens of each query at the price of a token."""
        right_Q, samples_Q = self.policy.expected(
            self.standing, price=price * self.tokens_Q, predicted=self.predicted_Q
        )
        return right_Q, samples_Q * self.tokens_Q


def choose(policies: Sequence[WavePolicy], tokens_Q_O: FloatArray, predicted_Q_O: FloatArray, price: float) -> IntArray:
    """The option by which each query's samples are drawn at the price of a token: of the highest value; shape (Q,).

    Args:
        policies: one for each option.
        tokens_Q_O: expected tokens of one sample.
        predicted_Q_O: predicted chance that one is right.
        price: in right answers per token.
    """
    value_Q_O, _ = _from_start(policies, tokens_Q_O, predicted_Q_O, price)
    column_Q: IntArray = np.argmax(value_Q_O, axis=1)
    return column_Q


def price_for(left: float, drawings: Sequence[Drawing]) -> float:
    """The lowest price of a token at which what is expected to be drawn from here on fits into what is left, in tokens.

    It is called before the first wave and after each: what a query did not draw is left for the others. Infinite where
    not even the first waves fit.
    """

    def spent(price: float) -> float:
        return float(sum(each.expected(price)[1].sum() for each in drawings))

    return _lowest(spent, left)


def price_of_options(
    left: float, policies: Sequence[WavePolicy], tokens_Q_O: FloatArray, predicted_Q_O: FloatArray
) -> float:
    """As `price_for`, before anything is drawn, where each query also takes the option that is best at the price."""

    def spent(price: float) -> float:
        value_Q_O, tokens = _from_start(policies, tokens_Q_O, predicted_Q_O, price)
        return float(np.take_along_axis(tokens, value_Q_O.argmax(axis=1)[:, None], axis=1).sum())

    return _lowest(spent, left)


def _from_start(
    policies: Sequence[WavePolicy], tokens_Q_O: FloatArray, predicted_Q_O: FloatArray, price: float
) -> tuple[FloatArray, FloatArray]:
    """Value of each option before anything is drawn, net of its tokens, and these tokens; shape (Q, O) each."""
    value_Q_O, spent_Q_O = np.empty(tokens_Q_O.shape), np.empty(tokens_Q_O.shape)
    for column, policy in enumerate(policies):
        tokens_Q = tokens_Q_O[:, column]
        drawing = Drawing(policy, start(tokens_Q.shape), tokens_Q, predicted_Q_O[:, column])
        right_Q, spent_Q_O[:, column] = drawing.expected(price)
        value_Q_O[:, column] = right_Q - price * spent_Q_O[:, column]
    return value_Q_O, spent_Q_O


def _lowest(spent: Callable[[float], float], left: float) -> float:
    """The lowest price at which no more than `left` is spent; `spent` falls as the price rises."""
    if spent(0.0) <= left:
        return 0.0
    if spent(DEAREST) > left:
        return math.inf
    low, high = math.log(ROUNDING), math.log(DEAREST)
    for _ in range(STEPS):
        middle = (low + high) / 2.0
        low, high = (low, middle) if spent(math.exp(middle)) <= left else (middle, high)
    return math.exp(high)
