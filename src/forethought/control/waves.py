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
from numpy.typing import NDArray

from ..core.data import FloatArray, IntArray
from ..core.stopping import Standing
from ..predictors.parts.wave_table import DEAREST, PRICES, WaveTable, log_odds

BoolArray = NDArray[np.bool_]

LOWER = 1.0 - 1e-6  # times a price: just below it
STEPS = 60  # of bisection
NUM_STEPS = 128  # by which the price of a plan falls, each by about a tenth
LEAST = 1e-12  # right answers per token


@dataclass(frozen=True, eq=False)
class WavePolicy:
    """A table, as it decides: which samples are worth a price, and what is expected to be drawn from there on.

    A price is given in right answers per sample here: a token's price times the tokens of a sample of that query.

    Attributes:
        table: what votes do.
        worth_N_G_A_B: the highest price at which the wave after a state is drawn, by samples, bin, top and second.
        right_X: log-odds of a right answer in the end and their slope, at each of the table's prices; shape (X, 2).
        samples_X_G: samples in the end, of a question in each bin.
        further_X_N_G_A_B: expected further samples from a state on.
    """

    table: WaveTable
    worth_N_G_A_B: FloatArray
    right_X: FloatArray
    samples_X_G: FloatArray
    further_X_N_G_A_B: FloatArray

    @classmethod
    def of(cls, table: WaveTable) -> Self:
        """Works out what follows from a table."""
        leads, follows, worth = (table.dense(name) for name in ("leads", "follows", "worth"))
        price_X = np.array(PRICES)
        further_X = np.zeros((len(price_X), *worth.shape))
        for drawn in range(table.most - 1, -1, -1):
            after = next(point for point in table.points if point > drawn)
            ahead = further_X[:, after] + (after - drawn)
            for number in range(after - 1, drawn - 1, -1):
                ahead = _stepped(ahead, leads[number], follows[number])
            further_X[:, drawn] = np.where(price_X[:, None, None, None] <= worth[drawn], ahead, 0.0)
        right_X = np.array([[end.odds, end.slope] for end in table.ends])
        return cls(table, worth, right_X, np.array([end.samples for end in table.ends]), further_X)

    def draw(self, standing: Standing, *, price: FloatArray | float, predicted: FloatArray | float) -> IntArray:
        """Samples in the next wave, 0 to stop; a pure function of what is shown.

        Args:
            standing: of each query, at most the table's most samples.
            price: of a sample of it, in right answers; broadcast to the shape of `standing`.
            predicted: chance of a right answer, as it was for the table; broadcast likewise.
        """
        column, place = self._column(price, predicted), self._place(standing, predicted)
        after = np.searchsorted(np.array(self.table.points), standing.num_drawn, side="right")
        wave = np.array([*self.table.points, self.table.most])[after] - standing.num_drawn
        return np.where(np.array(PRICES)[column] <= self.worth_N_G_A_B[place], np.maximum(wave, 0), 0)

    def expected(self, *, price: FloatArray | float, predicted: FloatArray | float) -> tuple[FloatArray, FloatArray]:
        """Expected right answers in the end, and expected samples, before anything is drawn; arguments as of `draw`."""
        right_X, samples_X = self._ends(predicted)
        column = self._column(price, predicted)[None]
        return np.take_along_axis(right_X, column, axis=0)[0], np.take_along_axis(samples_X, column, axis=0)[0]

    def further(self, standing: Standing, *, price: FloatArray | float, predicted: FloatArray | float) -> FloatArray:
        """Expected further samples; arguments as of `draw`."""
        return self.further_X_N_G_A_B[self._column(price, predicted), *self._place(standing, predicted)]

    def _column(self, price: FloatArray | float, predicted: FloatArray | float) -> IntArray:
        """The one of the table's prices whose samples are worth most at a price, less what they cost.

        It is that price or one near it. Whatever the price, a query is then given the best of the same few policies, so
        that a lower price draws as much or more, and expects as many right answers or more.
        """
        right_X, samples_X = self._ends(predicted)
        price = np.minimum(price, DEAREST)
        column: IntArray = np.argmax(right_X - price * samples_X, axis=0)
        return column

    def _ends(self, predicted: FloatArray | float) -> tuple[FloatArray, FloatArray]:
        """Right answers and samples in the end at each of the table's prices, shape (X, …)."""
        predicted = np.asarray(predicted, dtype=np.float64)
        odds = log_odds(predicted) - self.table.centre
        along = (slice(None), *(None,) * predicted.ndim)
        right_X = 1.0 / (1.0 + np.exp(-(self.right_X[:, 0][along] + self.right_X[:, 1][along] * odds)))
        right_X = np.maximum.accumulate(right_X[::-1], axis=0)[::-1]  # a lower price expects no less
        return right_X, self.samples_X_G[:, self.table.bins(predicted)]

    def _place(
        self, standing: Standing, predicted: FloatArray | float
    ) -> tuple[IntArray, IntArray, IntArray, IntArray]:
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
    return Standing(nothing, nothing, nothing)


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

    def further(self, price: float) -> FloatArray:
        """Expected further tokens of each query at the price of a token."""
        samples_Q = self.policy.further(self.standing, price=price * self.tokens_Q, predicted=self.predicted_Q)
        return samples_Q * self.tokens_Q


def choose(right_Q_O_K: FloatArray, tokens_Q_O: FloatArray, price: float) -> IntArray:
    """The option by which each query's samples are drawn at the price of a token, shape (Q,).

    It is that of the plan: the option of the vote, of whatever fixed number of samples, that is worth most at the
    price. Waves then decide how many there are. Tables of several options are not compared with each other: they
    differ by chance by more than options do.

    Args:
        right_Q_O_K: predicted chance that the vote of 1, … K samples by each option is right.
        tokens_Q_O: expected tokens of one sample.
        price: in right answers per token.
    """
    number_K = np.arange(1, right_Q_O_K.shape[2] + 1)
    value_Q_O_K = right_Q_O_K - price * tokens_Q_O[:, :, None] * number_K
    column_Q: IntArray = np.argmax(value_Q_O_K.max(axis=2), axis=1)
    return column_Q


def price_for(left: float, drawings: Sequence[Drawing]) -> float:
    """The lowest price of a token at which what is expected to be drawn from here on fits into what is left, in tokens.

    It is called before the first wave and after each: what a query did not draw is left for the others. Infinite where
    not even the first waves fit.
    """

    def spent(price: float) -> float:
        return float(sum(each.further(price).sum() for each in drawings))

    return _lowest(spent, left)


def plan_options(
    left: float,
    policies: Sequence[WavePolicy],
    right_Q_O_K: FloatArray,
    tokens_Q_O: FloatArray,
    order_Q: IntArray,
) -> tuple[IntArray, FloatArray, FloatArray, float]:
    """The option of each query, its expected right answers and tokens, shape (Q,) each, and the price of a token.

    The price falls in steps, the same ones whatever the total, until what is expected to be drawn no longer fits. A
    query takes what `choose` gives it at a step only where more right answers are expected of that than of what it has,
    and the last step is taken by the first queries in an order that says nothing about them, as far as the tokens
    reach: a larger total never expects less. The price is infinite where not even first samples fit.

    Args:
        left: tokens for all samples of all queries.
        policies: one for each option.
        right_Q_O_K: as of `choose`; the chance of one sample is what the tables take for predicted.
        tokens_Q_O: as of `choose`.
        order_Q: indices of the queries.
    """
    steps = np.geomspace(PRICES[-1] / tokens_Q_O.min(), PRICES[0] / tokens_Q_O.max(), NUM_STEPS).tolist()
    option_Q, right_Q, spent_Q = _expected_of(policies, right_Q_O_K, tokens_Q_O, DEAREST)
    if spent_Q.sum() > left:
        return option_Q, right_Q, spent_Q, math.inf
    for price in (*steps, 0.0):
        option_next_Q, right_next_Q, spent_next_Q = _expected_of(policies, right_Q_O_K, tokens_Q_O, price)
        rows = order_Q[right_next_Q[order_Q] > right_Q[order_Q]]
        total_N = spent_Q.sum() + np.cumsum(spent_next_Q[rows] - spent_Q[rows])
        is_last = bool((total_N > left).any())
        if is_last:
            rows = rows[: np.argmax(total_N > left)]
        option_Q[rows], right_Q[rows], spent_Q[rows] = option_next_Q[rows], right_next_Q[rows], spent_next_Q[rows]
        if is_last:
            break
    return option_Q, right_Q, spent_Q, price


def _expected_of(
    policies: Sequence[WavePolicy], right_Q_O_K: FloatArray, tokens_Q_O: FloatArray, price: float
) -> tuple[IntArray, FloatArray, FloatArray]:
    """The option of each query at a price, and the right answers and tokens that are expected by it; (Q,) each."""
    option_Q, (right_Q, spent_Q) = choose(right_Q_O_K, tokens_Q_O, price), np.zeros((2, len(tokens_Q_O)))
    for number, policy in enumerate(policies):
        rows = np.flatnonzero(option_Q == number)
        tokens_Q, predicted_Q = tokens_Q_O[rows, number], right_Q_O_K[rows, number, 0]
        right_Q[rows], samples_Q = policy.expected(price=price * tokens_Q, predicted=predicted_Q)
        spent_Q[rows] = samples_Q * tokens_Q
    return option_Q, right_Q, spent_Q


def marginal(left: float, spent_Q: FloatArray, lower_Q: FloatArray, order_Q: IntArray) -> BoolArray:
    """The queries that are decided at a price just below the one that fits, by what that leaves of the tokens.

    At one price queries that are alike are decided alike, and a little below it too many may be worth another sample.
    So the first of them in an order that says nothing about them, as far as the tokens reach, have the lower price.

    Args:
        left: tokens.
        spent_Q: expected to be spent at the price that fits.
        lower_Q: at the lower one.
        order_Q: indices of the queries.
    """
    more_Q, spare = lower_Q - spent_Q, left - float(spent_Q.sum())
    is_lower_Q = np.zeros(len(spent_Q), dtype=bool)
    for row in order_Q[more_Q[order_Q] > 0.0].tolist():
        if more_Q[row] <= spare:
            is_lower_Q[row] = True
            spare -= float(more_Q[row])
    return is_lower_Q


def _lowest(spent: Callable[[float], float], left: float) -> float:
    """The lowest price, as far as halving finds it, at which no more than `left` is spent; infinite where none is."""
    if spent(0.0) <= left:
        return 0.0
    if spent(DEAREST) > left:
        return math.inf
    low, high = math.log(LEAST), math.log(DEAREST)
    for _ in range(STEPS):
        middle = (low + high) / 2.0
        low, high = (low, middle) if spent(math.exp(middle)) <= left else (middle, high)
    return math.exp(high)
