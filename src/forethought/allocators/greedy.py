"""The published baseline: repeatedly the next option for the query that gains most from it."""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

from .order import solve_by_cost
from .problem import Columns, Problem, Solution

ROUNDING = 1e-12  # sums this near are equal: a step that gives back what another took
FREE = 1e-9  # units that a step which costs nothing counts as: it comes first


class GreedyAllocator:
    """The greedy of "Predictive Scheduling for Efficient Inference-Time Reasoning" (Brown et al., arXiv 2602.01237).

    Every query starts at its cheapest option, then the next dearer one goes to the query whose success rises most by
    it, or falls least, for each token it costs. It stalls in front of a jump that takes several steps. The order ends
    at the first step that does not fit; the plan is the beginning of it that expects most, the longest of equals.

    Args:
        lookahead: as the paper's text reads. A query whose next option gains nothing claims what the first larger one
            that does gain would give; when nobody claims anything, what is left goes round, one option each, also where
            the curves say that it hurts. A larger total may then expect less: for studies of the paper, not for use.
    """

    def __init__(self, *, lookahead: bool = False) -> None:
        self.lookahead = lookahead

    def solve(self, problem: Problem) -> Solution:
        """Divides the total step by step."""
        if not problem.is_ordered:
            return solve_by_cost(self, problem)
        cost_Q_N = np.maximum(np.diff(problem.cost_Q_B, axis=1), FREE)
        if self.lookahead:
            claim_Q_N = _claims(problem) / cost_Q_N
            query_S, _ = _steps(problem, problem.first_Q, np.where(claim_Q_N > 0.0, -claim_Q_N, np.inf), skips=True)
            column_Q = _after(problem.first_Q, query_S)
            rounds_Q_N = (np.arange(problem.menu.num_options - 1) - column_Q[:, None]).astype(np.float64)
            query_S, _ = _steps(problem, column_Q, rounds_Q_N, skips=True)
            return Solution(_after(column_Q, query_S), why_left="no query's next budget fits in them")
        gain_Q_N = np.diff(problem.value_Q_B.astype(np.float64), axis=1)
        query_S, column_S = _steps(problem, problem.first_Q, -gain_Q_N / cost_Q_N, skips=False)
        value_S = np.cumsum(np.append(0.0, gain_Q_N[query_S, column_S]))
        length = int(np.flatnonzero(value_S >= value_S.max() - ROUNDING)[-1])
        why_left = "they are too few for the next step, or the next steps are expected to hurt"
        return Solution(_after(problem.first_Q, query_S[:length]), why_left=why_left)


def _after(column_Q: Columns, query_S: NDArray[np.int64]) -> Columns:
    """Columns after one step for each of some queries, as often as they are named."""
    return column_Q + np.bincount(query_S, minlength=len(column_Q))


def _steps(
    problem: Problem, start_Q: Columns, key_Q_N: NDArray[np.float64], *, skips: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Gives one column at a time to the query of the least key, as far as the total goes.

    A query's key depends on its own column alone, so one heap entry for each query is enough.

    `key_Q_N` is the key of the step from each column to the next, shape (Q, B - 1); at infinity it is not taken. With
    `skips` a step that does not fit only leaves its query out, and does not end it all. Returns whose each step was and
    from which column, in order, shape (S,) each.
    """
    cost_Q_B, left = problem.cost_Q_B, problem.left_after(start_Q)
    column_Q, last_Q = start_Q.tolist(), problem.last_Q.tolist()

    def key_of(query: int) -> float:
        return key_Q_N.item(query, column_Q[query]) if column_Q[query] < last_Q[query] else np.inf

    by_rank = problem.tie_order(np.arange(problem.num_queries)).tolist()
    heap = [(key, rank, query) for rank, query in enumerate(by_rank) if (key := key_of(query)) < np.inf]
    heapq.heapify(heap)
    steps: list[tuple[int, int]] = []
    while heap:
        _, rank, query = heap[0]
        column, key = column_Q[query], np.inf
        cost = cost_Q_B.item(query, column + 1) - cost_Q_B.item(query, column)
        if cost <= left:
            left -= cost
            steps.append((query, column))
            column_Q[query] += 1
            key = key_of(query)
        elif not skips:
            break
        if key < np.inf:
            heapq.heapreplace(heap, (key, rank, query))
        else:
            heapq.heappop(heap)
    query_S, column_S = np.array(steps, dtype=np.int64).reshape(-1, 2).T
    return query_S, column_S


def _claims(problem: Problem) -> NDArray[np.float64]:
    """Gain of the next larger option that gains, from each column but the last; 0 without one, shape (Q, B - 1)."""
    is_past_Q_B = np.arange(problem.menu.num_options) > problem.last_Q[:, None]
    value_Q_B = np.where(is_past_Q_B, -np.inf, problem.value_Q_B.astype(np.float64))
    rows_Q, claim_Q_N = np.arange(problem.num_queries), np.zeros((problem.num_queries, value_Q_B.shape[1] - 1))
    for column in range(claim_Q_N.shape[1]):
        gain_Q_A = value_Q_B[:, column + 1 :] - np.maximum(value_Q_B[:, column, None], 0.0)
        claim_Q_N[:, column] = np.maximum(gain_Q_A[rows_Q, (gain_Q_A > 0.0).argmax(axis=1)], 0.0)
    return claim_Q_N
