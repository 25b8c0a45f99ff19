"""The baseline: the same budget for everyone."""

from __future__ import annotations

import numpy as np

from ..core.data import Allocation, Cost, Curves, FloatArray, IntArray
from .bounds import Columns
from .problem import Problem, pose


class UniformAllocator:
    """The largest common budget that fits; what is left gives some queries one window more.

    A mean of 50 tokens on windows of 16 means 48 for everyone, and what is left of the total gives one query in eight
    64: (7 x 48 + 64) / 8 = 50. Under granted cost less than one window is left in the end, unless all have their most.
    Who gets the extra window goes by a hash of the query's id, so that the first in the file are not favoured. The
    curves are not consulted, except for what a budget costs under spent cost. A larger total never gives any query
    less; it may still expect less, because success curves are not monotone.
    """

    name = "uniform"

    def allocate(
        self,
        curves: Curves,
        *,
        total: float,
        cost: Cost = Cost.GRANTED,
        min_budget_Q: IntArray | None = None,
        max_budget_Q: IntArray | None = None,
        weight_Q: FloatArray | None = None,
    ) -> Allocation:
        """Divides `total` evenly; bounds hold, and weights only enter the accuracy that the plan expects."""
        problem = pose(
            curves, total=total, cost=cost, min_budget_Q=min_budget_Q, max_budget_Q=max_budget_Q, weight_Q=weight_Q
        )
        column_Q = _one_more_for_some(problem, _largest_common(problem))
        return problem.plan(column_Q, allocator=self.name, why_left="the next query's window does not fit in them")


def _largest_common(problem: Problem) -> int:
    """The largest column that fits when every query has it, or what of its own range is nearest."""
    low, high = 0, problem.menu.num_options - 1
    while low < high:
        middle = (low + high + 1) // 2
        if problem.left_after(np.clip(middle, problem.first_Q, problem.last_Q)) >= 0:
            low = middle
        else:
            high = middle - 1
    return low


def _one_more_for_some(problem: Problem, common: int) -> Columns:
    """The common column for everyone, and one more in tie order as far as the rest of the total goes, shape (Q,)."""
    column_Q: Columns = np.clip(common, problem.first_Q, problem.last_Q)
    left = problem.left_after(column_Q)
    # A query whose minimum is above the common budget has more than its share already.
    raisable_N = np.flatnonzero((column_Q == common) & (column_Q < problem.last_Q))
    if left <= 0 or raisable_N.size == 0:
        return column_Q
    raisable_N = raisable_N[problem.tie_order(raisable_N)]
    cost_N = problem.costs.at(raisable_N, column_Q[raisable_N] + 1) - problem.costs.at(raisable_N, column_Q[raisable_N])
    num_fit = int(np.searchsorted(np.cumsum(cost_N), left, side="right"))
    column_Q[raisable_N[:num_fit]] += 1
    return column_Q
