"""Spends what is left of a total where it is not expected to hurt."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..core.data import IntArray
from .bounds import Columns
from .problem import Problem

CHUNK = 4096


def spend_without_loss(problem: Problem, column_Q: Columns, left: int) -> Columns:
    """Raises budgets whose value stays exactly the same, the smallest budgets first, while they fit in `left` units.

    The curves are predictions: where they see no difference, the longer thought is the safer one, and a short one is
    the likeliest to be wrongly thought enough. It goes in rounds, each raising only the smallest budgets that can still
    rise, by one step: they come up to the next larger ones together, and no query takes all. The expected value does
    not change, which is why this cannot break what was promised about it.
    """
    column_Q = column_Q.copy()
    open_N = np.flatnonzero(column_Q < problem.last_Q)
    while left > 0 and open_N.size:
        # A raise costs at least what one column more does: most queries have none that fits, and are not asked.
        open_N = open_N[_least_raise(problem, open_N, column_Q[open_N]) <= left]
        if not open_N.size:
            break
        is_least_N = column_Q[open_N] == column_Q[open_N].min()
        least_N, others_N = open_N[is_least_N], open_N[~is_least_N]
        next_N = _next_equal(problem, least_N, column_Q[least_N])
        least_N, next_N = least_N[next_N >= 0], next_N[next_N >= 0]
        cost_N = problem.costs.at(least_N, next_N) - problem.costs.at(least_N, column_Q[least_N])
        taken = _cheapest_that_fit(problem, least_N, cost_N, left)
        column_Q[least_N[taken]] = next_N[taken]
        left -= int(cost_N[taken].sum())
        # A raise that did not fit now never will: the rest only shrinks.
        raised_N = least_N[taken]
        raised_N = raised_N[column_Q[raised_N] < problem.last_Q[raised_N]]
        open_N = np.concatenate((others_N, raised_N))
    return column_Q


def _least_raise(problem: Problem, query_N: NDArray[np.int64], column_N: Columns) -> NDArray[np.int64]:
    """What one column more costs each query, shape (N,)."""
    return problem.costs.at(query_N, column_N + 1) - problem.costs.at(query_N, column_N)


def _next_equal(problem: Problem, query_N: NDArray[np.int64], column_N: Columns) -> Columns:
    """The nearest longer column of the same value and no lower chance, -1 where there is none, shape (N,)."""
    next_N = column_N + 1  # of most queries that have one, it is the very next
    far = np.flatnonzero(~_is_equal(problem, query_N, column_N, next_N))
    next_N[far] = -1
    column_B = np.arange(problem.menu.num_options)
    for at in range(0, far.size, CHUNK):
        far_C = far[at : at + CHUNK]
        query_C_1, column_C_1 = query_N[far_C, None], column_N[far_C, None]
        is_equal_C_B = _is_equal(problem, query_C_1, column_C_1, column_B)
        is_equal_C_B &= (column_B > column_C_1) & (column_B <= problem.last_Q[query_C_1])
        next_N[far_C] = np.where(is_equal_C_B.any(axis=1), is_equal_C_B.argmax(axis=1), -1)
    return next_N


def _is_equal(problem: Problem, query: IntArray, column: IntArray, other: IntArray) -> NDArray[np.bool_]:
    """Whether the `other` column is worth as much as `column`, and gives no lower chance."""
    value_Q_B, p_Q_B = problem.value_Q_B, problem.curves.p_Q_B
    is_equal: NDArray[np.bool_] = value_Q_B[query, other] == value_Q_B[query, column]
    if problem.weight_Q is not None:  # a query of weight 0 has the same value everywhere
        is_equal &= p_Q_B[query, other] >= p_Q_B[query, column]
    return is_equal


def _cheapest_that_fit(
    problem: Problem, query_N: NDArray[np.int64], cost_N: NDArray[np.int64], left: int
) -> NDArray[np.int64]:
    """Positions of the cheapest raises that fit in `left` together; equal costs by tie order."""
    if int(cost_N.sum()) <= left:
        return np.arange(cost_N.size)
    order = np.argsort(cost_N, kind="stable")
    num_fit = int(np.searchsorted(np.cumsum(cost_N[order]), left, side="right"))
    margin = cost_N[order[num_fit]]
    sure = np.flatnonzero(cost_N < margin)
    tied = np.flatnonzero(cost_N == margin)
    num_tied = num_fit - sure.size
    if num_tied:
        tied = tied[problem.tie_order(query_N[tied])]
    return np.concatenate((sure, tied[:num_tied]))
