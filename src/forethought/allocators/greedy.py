"""The published baseline: one option more at a time to whoever gains most from it."""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

from .problem import Columns, Problem, Solution

ROUNDING = 1e-12  # sums this near are equal: a step that gives back what another took
FREE = 1e-9  # units that a step which costs nothing counts as: it comes first
Keys = NDArray[np.float64]


class GreedyAllocator:
    """The batch allocator of "Predictive Scheduling for Efficient Inference-Time Reasoning in Large Language Models".

    After Brown, Muppidi and Shahout (arXiv 2602.01237): every query starts at its smallest option, then the next larger
    one goes to the query whose success rises most by it, or falls least, for each token it costs (the paper's steps all
    cost the same). It looks one option ahead, so it stalls in front of a jump that takes several.

    Steps that hurt are given too, since a jump may lie behind them, and a total may end in the middle of one. So that a
    larger total never expects less, the plan is the beginning of that order that expects most, the longest of equals;
    the order ends at the first step that does not fit. Ties go by a hash of the query's id.

    Args:
        lookahead: as the paper's text reads. A query whose next option gains nothing claims what the first larger one
            that does gain would give; when nobody claims anything, what is left goes round, one option each, also where
            the curves say that it hurts. A larger total may then expect less: for studies of the paper, not for use.
    """

    def __init__(self, *, lookahead: bool = False) -> None:
        self.lookahead = lookahead

    def solve(self, problem: Problem) -> Solution:
        """Divides the total step by step, as described above."""
        if self.lookahead:
            claim_Q_N = _claims(problem)
            column_Q, _ = _give(problem, problem.first_Q, np.where(claim_Q_N > 0.0, -claim_Q_N, np.inf), skips=True)
            rounds_Q_N = np.arange(problem.menu.num_options - 1) - column_Q[:, None]
            column_Q, _ = _give(problem, column_Q, rounds_Q_N.astype(np.float64), skips=True)
            return Solution(column_Q, why_left="no query's next budget fits in them")
        gain_Q_N = np.diff(problem.value_Q_B.astype(np.float64), axis=1)
        _, query_S = _give(problem, problem.first_Q, -gain_Q_N / _step_costs(problem), skips=False)
        why_left = "they are too few for the next step, or the next steps are expected to hurt"
        return Solution(_best_beginning(problem, query_S), why_left=why_left)


def _step_costs(problem: Problem) -> Keys:
    """Units from each column to the next, above 0, shape (Q, B - 1)."""
    costs: Keys = np.maximum(np.diff(problem.cost_Q_B, axis=1), FREE)
    return costs


def _give(problem: Problem, column_Q: Columns, key_Q_N: Keys, *, skips: bool) -> tuple[Columns, NDArray[np.int64]]:
    """Gives one column at a time to the query of the least key, from `column_Q` on, as far as the total goes.

    A query's key depends on its own column alone, so one heap entry for each query is enough.

    Args:
        problem: what is being solved.
        column_Q: where the queries stand, shape (Q,).
        key_Q_N: key of the step from each column to the next, shape (Q, B - 1); at infinity it is not taken.
        skips: whether a step that does not fit only leaves its query out, and does not end it all.

    Returns:
        The columns then, and whose each step was, in order.
    """
    cost_Q_B, left = problem.cost_Q_B, problem.left_after(column_Q)
    columns, last_Q = column_Q.tolist(), problem.last_Q.tolist()

    def entry(rank: int, query: int) -> tuple[float, int, int] | None:
        column = columns[query]
        key = key_Q_N.item(query, column) if column < last_Q[query] else np.inf
        return (key, rank, query) if key < np.inf else None

    by_rank = problem.tie_order(np.arange(problem.num_queries)).tolist()
    heap = [found for rank, query in enumerate(by_rank) if (found := entry(rank, query)) is not None]
    heapq.heapify(heap)
    taken: list[int] = []
    while heap:
        _, rank, query = heap[0]
        column = columns[query]
        cost = cost_Q_B.item(query, column + 1) - cost_Q_B.item(query, column)
        if cost > left and not skips:
            break
        following = None
        if cost <= left:
            left -= cost
            taken.append(query)
            columns[query] += 1
            following = entry(rank, query)
        if following is None:
            heapq.heappop(heap)
        else:
            heapq.heapreplace(heap, following)
    return np.array(columns, dtype=np.int64), np.array(taken, dtype=np.int64)


def _best_beginning(problem: Problem, query_S: NDArray[np.int64]) -> Columns:
    """Columns after the beginning of the steps that expects most; the longest of equals, shape (Q,)."""
    column_Q, gains = problem.first_Q.copy(), [0.0]
    for query in query_S.tolist():
        column = column_Q.item(query)
        gains.append(problem.value_Q_B.item(query, column + 1) - problem.value_Q_B.item(query, column))
        column_Q[query] += 1
    value_S = np.cumsum(gains)
    length = int(np.flatnonzero(value_S >= value_S.max() - ROUNDING)[-1])
    return problem.first_Q + np.bincount(query_S[:length], minlength=problem.num_queries)


def _claims(problem: Problem) -> Keys:
    """What each query claims at each column but the last, for each unit of the next step; 0 without a gain.

    The gain of the next larger option that gains, not past the query's own maximum. Shape (Q, B - 1).
    """
    is_past_Q_B = np.arange(problem.menu.num_options) > problem.last_Q[:, None]
    value_Q_B = np.where(is_past_Q_B, -np.inf, problem.value_Q_B.astype(np.float64))
    claim_Q_N = np.zeros((problem.num_queries, problem.menu.num_options - 1))
    for column in range(problem.menu.num_options - 1):
        gain_Q_A = value_Q_B[:, column + 1 :] - np.maximum(value_Q_B[:, column : column + 1], 0.0)
        first_Q_1 = (gain_Q_A > 0.0).argmax(axis=1)[:, None]
        claim_Q_N[:, column] = np.maximum(np.take_along_axis(gain_Q_A, first_Q_1, axis=1)[:, 0], 0.0)
    return claim_Q_N / _step_costs(problem)
