"""Detects during a run whether answers use the predicted tokens, and corrects the curves if not.

The number of tokens of a thought is known without a reference answer. It is the only way to check predictions while
they are used.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.data import Curves, FloatArray, IntArray
from ..core.menu import Menu
from .card import PredictorCard

LEVEL = 0.01  # chance of a false alarm in one stream, however long it is and however often one looks
MOST_RATIO = 2.0  # an answer of more than twice the predicted tokens counts as twice: what is bounded can be tested
STAKES = [0.9 * 0.5**halvings for halvings in range(6)]  # of the largest stake that cannot lose everything
BIAS = 0.05  # relative error of the mean that is nothing to act on; left-out predictions reach 0.02
SPREAD = 0.5  # of used over predicted tokens from query to query: n training queries leave this / sqrt(n) open
MOST_STRETCH = 4.0
NUM_HALVINGS = 40
OFF = 0.02  # relative error of the predicted tokens of a whole batch, one standard deviation: of left-out predictions
CHANCE, Z = 0.95, 1.645  # a normal variable stays below its mean and Z deviations with this chance


def tolerance_for(num_trained: int) -> float:
    """Tolerance of the mean of used over predicted tokens around 1, by the number of training queries."""
    return min(0.5, BIAS + 2.0 * SPREAD / math.sqrt(max(1, num_trained)))


class UsageTest:
    """A sequential test of the hypothesis that used tokens are the predicted ones on average, within a tolerance.

    Two gamblers start with a wealth of 1. At every answer one bets that more is used than the tolerance allows, the
    other that less is, each with several stakes at once. While the mean of used over predicted tokens lies within the
    tolerance, whatever came before, no bet gains on average; so their mean wealth ever reaches 1 / LEVEL with a chance
    of at most LEVEL (Ville's inequality; Waudby-Smith and Ramdas, "Estimating means of bounded random variables by
    betting", 2024). Nothing is assumed of how tokens are distributed.

    Answers weigh as the tokens predicted for them, up to `scale`: the total is what a plan is about, and a thought that
    its cap cuts at once shows nothing.

    Args:
        tolerance: relative, in (0, 1).
        scale: predicted tokens from which on an answer has its full weight.
    """

    def __init__(self, tolerance: float, scale: float) -> None:
        self.tolerance = tolerance
        self.scale = max(1.0, scale)
        self.num_seen = 0
        self.evidence = 1.0
        self._weighed = self._weight = 0.0
        more, less = 1.0 + tolerance, 1.0 - tolerance
        self._bets = [(more, stake / more) for stake in STAKES]
        self._bets += [(less, -stake / (MOST_RATIO - less)) for stake in STAKES]
        self._log_wealth = [0.0] * len(self._bets)

    def see(self, *, used: float, predicted: float) -> None:
        """One answer: the tokens it used, and those predicted under its budget."""
        predicted = max(predicted, 1.0)
        ratio, weight = min(used / predicted, MOST_RATIO), min(1.0, predicted / self.scale)
        self._log_wealth = [
            wealth + math.log1p(stake * weight * (ratio - bound))
            for wealth, (bound, stake) in zip(self._log_wealth, self._bets, strict=True)
        ]
        self.num_seen += 1
        self._weighed += weight * ratio
        self._weight += weight
        wealth = sum(math.exp(min(each, 700.0)) for each in self._log_wealth) / len(self._bets)
        self.evidence = max(self.evidence, wealth)

    @property
    def ratio(self) -> float:
        """Mean of used over predicted tokens, as weighed; NaN before the first answer."""
        return self._weighed / self._weight if self._weight else math.nan

    @property
    def is_alarm(self) -> bool:
        """Whether the evidence, the largest wealth so far, speaks against the predictions."""
        return self.evidence >= 1.0 / LEVEL


class Usage:
    """What a stream of answers says of the predicted tokens: tests them, and stretches them where the test fails.

    After an alarm the stretch is what explains all tokens seen, and a new test of the stretched curves begins.

    Args:
        card: of the predictor: how many queries it was trained on, and what they use.
        window: answers after which a test that has not failed begins anew and what was seen is forgotten, so that a
            change is found in a long stream; None for never.
    """

    def __init__(self, card: PredictorCard, *, window: int | None = None) -> None:
        self.tolerance = tolerance_for(card.data.num_queries)
        self.stretch = 1.0
        self.num_alarms = self.num_seen = 0
        self._scale = 0.5 * max(card.mean_tokens_B) if card.mean_tokens_B else 1.0
        self._menu = card.menu
        self._window = window
        self._begin()

    def _begin(self) -> None:
        self.test = UsageTest(self.tolerance, self._scale)
        if self.num_alarms == 0 or self._window is not None:
            self._seen: list[tuple[FloatArray, int, float]] = []

    def see(self, tokens_B: FloatArray, column: int, used: float) -> None:
        """One answer.

        Args:
            tokens_B: its expected usage, as the predictor gave it, shape (B,).
            column: of its budget.
            used: tokens it really used.
        """
        if self._window is not None and self.test.num_seen >= self._window and not self.test.is_alarm:
            self._begin()
        predicted = float(stretched_tokens(tokens_B[None], self._menu, self.stretch)[0, column])
        self.test.see(used=used, predicted=predicted)
        self._seen.append((tokens_B, column, used))
        self.num_seen += 1

    def recentre(self) -> bool:
        """After an alarm: finds the new stretch, begins a new test and says True. Else leaves all as it is."""
        if not self.test.is_alarm:
            return False
        self.num_alarms += 1
        tokens_N_B = np.array([tokens_B for tokens_B, _, _ in self._seen])
        column_N = np.array([column for _, column, _ in self._seen])
        self.stretch = stretch_of(tokens_N_B, self._menu, column_N, sum(used for _, _, used in self._seen))
        self._begin()
        return True

    def to_json(self) -> dict[str, Any]:
        """One object of plain values; `ratio` and `evidence` are those of the test now under way."""
        return {
            "answers": self.num_seen,
            "ratio": None if math.isnan(self.test.ratio) else self.test.ratio,
            "tolerance": self.tolerance,
            "evidence": self.test.evidence,
            "alarms": self.num_alarms,
            "stretch": self.stretch,
        }


def spent_within(curves: Curves, budget_Q: IntArray) -> float | None:
    """Tokens that all queries together stay below with a chance of CHANCE, where predictions hold; None: unknown.

    The slope of a query's usage curve between two budgets is the share of its traces that are longer, and so gives the
    variance of the tokens it uses under its own budget: 2 ∫ t S(t) dt - (∫ S(t) dt)². Queries are taken as independent.
    Named options are no caps of one thought, and say nothing of it.
    """
    if curves.tokens_Q_B is None or curves.menu.is_named:
        return None
    budget_B = curves.menu.budgets_B.astype(np.float64)
    tokens_Q_B = np.maximum.accumulate(np.asarray(curves.tokens_Q_B, dtype=np.float64), axis=1)
    expected_Q = np.take_along_axis(tokens_Q_B, curves.menu.columns(budget_Q)[:, None], axis=1)[:, 0]
    share_Q_B = np.minimum.accumulate(np.clip(np.diff(tokens_Q_B, axis=1) / np.diff(budget_B), 0.0, 1.0), axis=1)
    below_Q_B = budget_B[1:] <= budget_Q[:, None]
    first = budget_B[0]  # that every trace gets there is not known, and taken so
    mean_Q = first + (share_Q_B * np.diff(budget_B) * below_Q_B).sum(axis=1)
    square_Q = first**2 + (share_Q_B * np.diff(budget_B**2) * below_Q_B).sum(axis=1)
    variance = float(np.maximum(0.0, square_Q - mean_Q**2).sum()) + (OFF * expected_Q.sum()) ** 2
    return float(expected_Q.sum() + Z * math.sqrt(variance))


def stretched(curves: Curves, factor: float) -> Curves:
    """The curves of queries whose thoughts are `factor` times as long: a budget does what budget / factor did.

    Below the first budget accuracy is that of the first, and each token less is one less used. A named option cuts no
    thought: it takes `factor` times the tokens, and is right as often.
    """
    if factor == 1.0 or curves.tokens_Q_B is None:
        return curves
    tokens_Q_B = stretched_tokens(curves.tokens_Q_B, curves.menu, factor)
    p_Q_B = curves.p_Q_B if curves.menu.is_named else curves.p_Q_B @ _moved(curves.menu.caps, factor)[0]
    return Curves(curves.query_ids, curves.menu, p_Q_B, tokens_Q_B, curves.input_Q_B)


def stretched_tokens(tokens_Q_B: FloatArray, menu: Menu, factor: float) -> NDArray[np.float64]:
    """The expected usage of queries whose thoughts are `factor` times as long, shape (Q, B).

    What a query uses with no thought at all stays as it is; where 0 is no option, that is not known and taken for 0.
    """
    if menu.is_named:
        return tokens_Q_B.astype(np.float64) * factor
    rising_Q_B: NDArray[np.float64] = np.maximum.accumulate(np.asarray(tokens_Q_B, dtype=np.float64), axis=1)
    if factor == 1.0:
        return rising_Q_B
    move_B_B, missing_B = _moved(menu.caps, factor)
    thought_Q_B = rising_Q_B @ move_B_B - missing_B
    if menu.caps[0] != 0:
        found_Q_B = factor * np.maximum(0.0, thought_Q_B)
    else:
        found_Q_B = rising_Q_B[:, :1] + factor * np.maximum(0.0, thought_Q_B - rising_Q_B[:, :1])
    return np.maximum.accumulate(found_Q_B, axis=1)  # rounding may not make a later cap look cheaper


@lru_cache(maxsize=64)
def _moved(caps: tuple[int, ...], factor: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where the caps of a menu come to lie once thoughts are longer: the same for every query of a stream.

    Returns:
        What makes a row's values at cap / factor of its values at the caps, in straight lines between these, shape
        (B, B); and the tokens by which each cap / factor is below the first cap, shape (B,).
    """
    budget_B = np.array(caps, dtype=np.float64)
    move_B_B = np.array([np.interp(budget_B / factor, budget_B, unit_B) for unit_B in np.eye(len(caps))])
    return move_B_B, np.maximum(0.0, budget_B[0] - budget_B / factor)


def stretch_of(tokens_N_B: FloatArray, menu: Menu, column_N: NDArray[np.int64], used: float) -> float:
    """The factor at which these curves, at these columns, use `used` tokens together; within [1/4, 4]."""
    low, high = -math.log(MOST_STRETCH), math.log(MOST_STRETCH)
    for _ in range(NUM_HALVINGS):
        middle = 0.5 * (low + high)
        tokens_N_B_ = stretched_tokens(tokens_N_B, menu, math.exp(middle))
        if float(np.take_along_axis(tokens_N_B_, column_N[:, None], axis=1).sum()) < used:
            low = middle
        else:
            high = middle
    return math.exp(0.5 * (low + high))
