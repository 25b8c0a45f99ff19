"""Sorts problems whose costs fall along the menu by cost: a few queries at a time, or all of a small batch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..core.data import Curves
from .costs import MOST_UNITS, Costs, Rows
from .problem import Allocator, Columns, Problem, Solution


def by_cost(problem: Problem, rows: Rows) -> Columns:
    """The columns of some queries by rising cost, ties as on the menu, shape (N, B).

    Those that a query may not have stay in front and at the end, so that its bounds hold for positions as well.
    """
    cost_N_B = problem.costs.rows(rows)
    if problem.is_bounded:
        column_B = np.arange(problem.menu.num_options)
        cost_N_B = np.where(column_B < problem.first_Q[rows, None], -1, cost_N_B)
        cost_N_B[column_B > problem.last_Q[rows, None]] = MOST_UNITS
    return np.argsort(cost_N_B, axis=1, kind="stable")


def part(problem: Problem, query_N: NDArray[np.int64]) -> tuple[Problem, Columns]:
    """Some queries as a problem of their own, whose costs do not fall, and which column each of its columns was.

    The second has shape (N, B). The units stay those of all queries.
    """
    curves, costs, shape = problem.curves, problem.costs, (query_N.size, problem.menu.num_options)
    p_N_B, value_N_B = curves.p_Q_B[query_N], problem.value_Q_B[query_N]
    order_N_B: Columns = np.broadcast_to(np.arange(shape[1]), shape)
    if problem.is_ordered and costs.shared_B is not None:
        costs = replace(costs, num_queries=query_N.size)
    else:
        tokens_N_B = costs.rows(query_N) * costs.unit  # exact: the unit is a power of two
        if not problem.is_ordered:
            order_N_B = by_cost(problem, query_N)
            p_N_B, value_N_B, tokens_N_B = (
                np.take_along_axis(array_N_B, order_N_B, axis=1) for array_N_B in (p_N_B, value_N_B, tokens_N_B)
            )
        costs = Costs(query_N.size, costs.unit, None, tokens_N_B)
    ids = tuple(map(curves.query_ids.__getitem__, query_N.tolist()))
    found = replace(
        problem,
        curves=Curves(ids, problem.menu, p_N_B),
        weight_Q=None if problem.weight_Q is None else problem.weight_Q[query_N],
        value_Q_B=value_N_B,
        costs=costs,
        first_Q=problem.first_Q[query_N],
        last_Q=problem.last_Q[query_N],
        is_ordered=True,
    )
    return found, order_N_B


def solve_by_cost(allocator: Allocator, problem: Problem) -> Solution:
    """What `allocator`, which needs costs that do not fall, answers on a copy of `problem` in which they do not."""
    query_Q = np.arange(problem.num_queries)
    ordered, order_Q_B = part(problem, query_Q)
    solution = allocator.solve(ordered)
    return replace(solution, column_Q=order_Q_B[query_Q, solution.column_Q])
