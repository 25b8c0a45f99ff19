"""The uniform baseline: the same budget for every query."""

from __future__ import annotations

from bisect import bisect_left

import numpy as np

from .problem import Columns, Problem, Solution


class UniformAllocator:
    """The largest common option that fits; what is left gives some queries the next larger one.

    On 16, 32, 48, ... a mean of 50 tokens means 48 for everyone, and 64 for one query in eight: (7 x 48 + 64) / 8 = 50.
    Who gets more goes by a hash of the query's id, so that the first in the file are not favoured. Accuracy curves are
    not consulted. A larger total never gives any query less; it may still expect less, as curves are not monotone.
    """

    def solve(self, problem: Problem) -> Solution:
        """Divides the total evenly; bounds hold, and weights do not matter."""
        if not problem.is_ordered:
            return _by_mean_cost(problem)

        def nearest(column: int) -> Columns:
            """`column` for every query, or what of its own range is nearest."""
            nearest_Q: Columns = np.clip(column, problem.first_Q, problem.last_Q)
            return nearest_Q

        larger = range(1, problem.menu.num_options)
        common = bisect_left(larger, True, key=lambda column: problem.left_after(nearest(column)) < 0)
        column_Q = nearest(common)
        # A query whose minimum is above the common option has more than its share already.
        raisable_N = np.flatnonzero((column_Q == common) & (column_Q < problem.last_Q))
        raisable_N = raisable_N[problem.tie_order(raisable_N)]
        cost_N = np.cumsum(problem.costs.next_step(raisable_N, column_Q[raisable_N]))
        num_fit = int(np.searchsorted(cost_N, problem.left_after(column_Q), side="right"))
        column_Q[raisable_N[:num_fit]] += 1
        return Solution(column_Q, why_left="the next query's larger budget does not fit in them")


def _by_mean_cost(problem: Problem) -> Solution:
    """The same where costs may fall along the menu, by the options' order of mean cost.

    One line of steps, as far as it fits: everyone's own cheapest option, then the common ones, dearer and dearer, each
    query by query in the order of the hash. A query that may not have one stays at what it has of the ones before.
    """
    mean_B = problem.costs.mean().shared_B
    assert mean_B is not None
    by_mean = np.argsort(mean_B, kind="stable").tolist()
    column_Q, target_Q = problem.ends()[0].copy(), np.empty(problem.num_queries, dtype=np.int64)
    left, query_Q = problem.left_after(column_Q), problem.tie_order(np.arange(problem.num_queries))

    def go_to(column: int) -> None:
        target_Q[(column >= problem.first_Q) & (column <= problem.last_Q)] = column

    for column in reversed(by_mean):
        go_to(column)
    for column in by_mean:
        go_to(column)
        moved_N = query_Q[target_Q[query_Q] != column_Q[query_Q]]
        extra_N = problem.costs.at(moved_N, target_Q[moved_N]) - problem.costs.at(moved_N, column_Q[moved_N])
        # An option that is dearer on average is cheaper for some: the line ends at the first step that does not fit.
        num_fit = int(np.searchsorted(np.maximum.accumulate(np.cumsum(extra_N)), left, side="right"))
        column_Q[moved_N[:num_fit]] = target_Q[moved_N[:num_fit]]
        left -= int(extra_N[:num_fit].sum())
        if num_fit < moved_N.size:
            break
    return Solution(column_Q, why_left="the next query's more expensive option does not fit in them")
