"""The published baseline: one window at a time to whoever gains most from it."""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

from ..core.data import Allocation, Cost, Curves, FloatArray, IntArray
from .bounds import Columns
from .problem import Problem, pose

ROUNDING = 1e-12  # sums this near are equal: a window that gives back what another took
WHY_LEFT = "they are too few for the next window, or the next windows are expected to hurt"


class GreedyAllocator:
    """The batch allocator of "Predictive Scheduling for Efficient Inference-Time Reasoning in Large Language Models".

    After Brown, Muppidi and Shahout (arXiv 2602.01237): every query starts at one window (here: at its minimum), then
    each further window goes to the query whose success rises most by it, or falls least. It looks one window ahead, so
    it stalls in front of a jump that takes several; that is what the other allocators are there to mend.

    Windows that hurt are given too, since a jump may lie behind them, and a total may end in the middle of one. So that
    a larger total never expects less, the plan is the beginning of that order that expects most, the longest of
    equals. Ties go by a hash of the query's id. Under spent cost, which the paper does not treat, gains count per
    expected token, and the order ends at the first window that does not fit.
    """

    name = "greedy"

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
        """Divides `total` window by window, as described above."""
        problem = pose(
            curves, total=total, cost=cost, min_budget_Q=min_budget_Q, max_budget_Q=max_budget_Q, weight_Q=weight_Q
        )
        return problem.plan(_best_beginning(problem, _windows(problem)), allocator=self.name, why_left=WHY_LEFT)


def _windows(problem: Problem) -> NDArray[np.int64]:
    """Whose each window is, in order, as far as the total goes, shape (N,).

    A query's claim depends on its own column alone, so one heap entry for each query is enough.
    """
    cost_Q_B = problem.costs.rows(slice(None))
    gain_Q_N = _gains(problem, cost_Q_B)
    column_Q, last_Q = problem.first_Q.tolist(), problem.last_Q.tolist()
    left = problem.left_after(problem.first_Q)
    by_rank = problem.tie_order(np.arange(problem.num_queries)).tolist()

    def claim(rank: int, query: int) -> tuple[float, int, int]:
        return -gain_Q_N.item(query, column_Q[query]), rank, query

    heap = [claim(rank, query) for rank, query in enumerate(by_rank) if column_Q[query] < last_Q[query]]
    heapq.heapify(heap)
    taken: list[int] = []
    while heap:
        _, rank, query = heap[0]
        column = column_Q[query]
        left -= cost_Q_B.item(query, column + 1) - cost_Q_B.item(query, column)
        if left < 0:
            break
        taken.append(query)
        column_Q[query] += 1
        if column_Q[query] < last_Q[query]:
            heapq.heapreplace(heap, claim(rank, query))
        else:
            heapq.heappop(heap)
    return np.array(taken, dtype=np.int64)


def _best_beginning(problem: Problem, query_N: NDArray[np.int64]) -> Columns:
    """Columns after the beginning of the windows that expects most; the longest of equals, shape (Q,)."""
    column_Q, gains = problem.first_Q.copy(), [0.0]
    for query in query_N.tolist():
        column = column_Q.item(query)
        gains.append(problem.value_Q_B.item(query, column + 1) - problem.value_Q_B.item(query, column))
        column_Q[query] += 1
    value_N = np.cumsum(gains)
    length = int(np.flatnonzero(value_N >= value_N.max() - ROUNDING)[-1])
    return problem.first_Q + np.bincount(query_N[:length], minlength=problem.num_queries)


def _gains(problem: Problem, cost_Q_B: NDArray[np.int64]) -> NDArray[np.float64]:
    """What the next window gives, per unit of cost, at each column but the last, shape (Q, B - 1)."""
    gain_Q_N = np.diff(problem.value_Q_B.astype(np.float64), axis=1)
    extra_Q_N = np.diff(cost_Q_B, axis=1)
    gains: NDArray[np.float64] = gain_Q_N / np.maximum(extra_Q_N, 1e-9)  # a window that costs nothing comes first
    return gains
