"""The optimal plan, by dynamic programming; for small batches."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ..core.data import Cost
from ..core.terms import usd_words
from ..errors import InvalidSettingsError
from .costs import MOST_UNITS, exact_sum
from .envelope import WHY_LEFT, EnvelopeAllocator, spend_without_loss
from .knapsack import best_choices
from .order import solve_by_cost
from .problem import Columns, Problem, Solution

MOST_STEPS = 6_000_000_000  # useful columns x units: up to some 20 seconds
MOST_BYTES = 1_000_000_000  # one remembered choice for each query and unit
QUICK_STEPS = 250_000_000  # an automatic unit is made as fine as this many steps allow: about a second
FINEST_UNIT = 1 / 64  # tokens
LEAST_UNITS = 256  # an automatic unit is at most one token, or such a part of the largest budget


class ExactAllocator:
    """Expects as much as any plan within the total can: the optimum other allocators are measured against.

    Where every cost is a whole number of its units the plan is optimal. Else costs above the query's smallest are
    rounded up, and where the envelope finds a better plan that one counts; a note tells a unit of more than a token.

    Args:
        unit: tokens in a unit, of a total in money USD; a smaller one is slower and wastes less to rounding. By default
            the menu's step under granted cost on evenly spaced options; else one token, or what about a second allows,
            from 1/64 token to a 256th of the largest budget, whatever the total. Money counts in tokens of the dearest
            price on the menu.
    """

    def __init__(self, *, unit: float | None = None) -> None:
        if unit is not None and not 0 < unit < math.inf:
            raise InvalidSettingsError(f"the unit of the exact allocator must be above 0, got {unit}; try unit=1")
        self.unit = unit

    def solve(self, problem: Problem) -> Solution:
        """Divides the total for the greatest expected success.

        Raises:
            InvalidSettingsError: the batch is past what this allocator takes on; the message says its limit.
        """
        if not problem.is_ordered:
            return solve_by_cost(self, problem)
        column_Q, step = self._best_columns(problem)
        column_Q = spend_without_loss(problem, column_Q, problem.left_after(column_Q))
        if problem.cost is Cost.GRANTED and step == 1:
            return Solution(column_Q, why_left=WHY_LEFT)
        others_Q = EnvelopeAllocator().solve(problem).column_Q
        best_Q = max((column_Q, others_Q), key=lambda each_Q: exact_sum(problem.value_at(each_Q)))
        unit = step * problem.costs.unit
        words = usd_words(unit) if problem.cost is Cost.USD else f"{unit:,.6g} tokens"
        note = f"The exact allocator counted in units of {words}, to which it rounded costs up."
        return Solution(best_Q, why_left=WHY_LEFT, notes=(note,) if unit > _token(problem) else ())

    def _best_columns(self, problem: Problem) -> tuple[Columns, int]:
        """The best columns by rounded costs, and the problem's units in one of this allocator's."""
        # In tie order, so that among equally good plans the same one is found whatever the order of the file.
        query_N = problem.tie_order(np.arange(problem.num_queries))
        is_useful_N_B = _useful_choices(problem)[query_N]
        cost_N_B = problem.costs.rows(query_N)
        extra_N_B = cost_N_B - np.take_along_axis(cost_N_B, problem.first_Q[query_N, None], axis=1)
        extra_N_B = np.where(is_useful_N_B, extra_N_B, 0)
        num_useful = int(is_useful_N_B.sum())
        step = self._step(problem, int(extra_N_B.max(axis=1).sum()) * num_useful)
        extra_N_B = -(-extra_N_B // step)
        units = min(problem.left_after(problem.first_Q) // step, int(extra_N_B.max(axis=1).sum()))
        steps, num_bytes = num_useful * (units + 1), problem.num_queries * (units + 1)
        if steps > MOST_STEPS or num_bytes > MOST_BYTES:
            raise InvalidSettingsError(
                f"this batch is too large for the exact allocator: {steps:,} steps and {num_bytes:,} bytes, where its "
                f"limit is {MOST_STEPS:,} and {MOST_BYTES:,}. Use --allocator envelope: within one segment of the "
                "optimum."
            )
        column_Q = np.empty(problem.num_queries, dtype=np.int64)
        value_N_B = problem.value_Q_B[query_N].astype(np.float64)
        column_Q[query_N] = best_choices(extra_N_B, value_N_B, is_useful_N_B, units)
        return column_Q, step

    def _step(self, problem: Problem, most_steps: int) -> int:
        """The problem's units in one of this allocator's; never by the total, so that a larger one expects no less.

        `most_steps` is what the problem's own units would take at most.
        """
        unit, menu = self.unit, problem.menu
        if unit is None:
            if problem.cost is Cost.GRANTED and (np.diff(menu.units_B) == 1).all():
                return 1
            token = _token(problem)
            affordable = max(most_steps * problem.costs.unit / QUICK_STEPS / token, FINEST_UNIT)
            unit = token * min(max(1.0, menu.largest / LEAST_UNITS), 2.0 ** math.ceil(math.log2(affordable)))
        return max(1, min(round(unit / problem.costs.unit), MOST_UNITS))


def _token(problem: Problem) -> float:
    """What a token costs: itself, or of a total in USD the dearest one of the menu."""
    if problem.cost is not Cost.USD:
        return 1.0
    return float(problem.menu.price_2_B.max()) / 1e6 or 1.0


def _useful_choices(problem: Problem) -> NDArray[np.bool_]:
    """Columns within each query's bounds that are worth more than every cheaper one, shape (Q, B)."""
    column_B = np.arange(problem.menu.num_options)
    is_useful_Q_B = (column_B >= problem.first_Q[:, None]) & (column_B <= problem.last_Q[:, None])
    value_Q_B = np.where(is_useful_Q_B, problem.value_Q_B, -np.inf)
    is_useful_Q_B[:, 1:] &= value_Q_B[:, 1:] > np.maximum.accumulate(value_Q_B, axis=1)[:, :-1]
    return is_useful_Q_B
