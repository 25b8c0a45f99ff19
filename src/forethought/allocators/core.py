"""Completes an envelope's grants: an exact solution over the few queries that matter at the margin."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .bounds import Columns
from .knapsack import best_choices
from .problem import Problem

CHUNK = 2048
MOST_QUERIES = 256
# Columns times units over which the core is solved: some ten milliseconds, about 128 queries of 16 budgets.
MOST_WORK = 4_000_000
MOST_STEPS = 512  # to the blocked segment, where counting in them is exact
FINEST_GRAIN = 256  # steps to the blocked segment where nothing coarse divides all costs: those are rounded up
ROUNDING = 1e-9


def complete(problem: Problem, column_Q: Columns, *, price: float, blocked: int) -> Columns:
    """Re-chooses for the queries nearest the margin, so that the leftover buys what it can.

    Write the value of a choice net of its cost at the marginal price: `value - price x cost`. The grants maximise it
    for every query alone. A plan that beats them by moving some queries must win back, out of `price x leftover`,
    all that these moves lose in net value; so a move that loses more than `price x blocked` is in no better plan, and
    queries with a smaller loss are the likelier part of one. These are the core (Pisinger, "A minimal algorithm for
    the multiple-choice knapsack problem", 1995); it is solved exactly. When it holds every query with a move left,
    so is the whole problem: always so for a few dozen queries.

    The core, its columns and its grain depend on the grants and the price alone, not on the size of the leftover: that
    a larger leftover never expects less follows, and `EnvelopeAllocator` builds on it.

    Args:
        problem: what is being solved.
        column_Q: the grants, each an envelope's corner at `price`.
        price: the marginal price, in value per unit, above 0.
        blocked: units that the next segment in line would have cost; more than what is left.

    Returns:
        The improved columns, never of a lower value, never over the total.
    """
    left = problem.left_after(column_Q)
    query_N = _core_queries(problem, column_Q, price, price * blocked * (1 + ROUNDING))
    if left <= 0 or query_N.size == 0:
        return column_Q

    # Offsets from each query's grant, rounded up to the grain: what fits as counted here fits in truth.
    rows_N, grant_N = np.arange(query_N.size), column_Q[query_N]
    cost_N_B, value_N_B = problem.cost_Q_B[query_N], problem.value_Q_B[query_N].astype(np.float64)
    extra_N_B = cost_N_B - cost_N_B[rows_N, grant_N, None]
    gain_N_B = value_N_B - value_N_B[rows_N, grant_N, None]
    column_B = np.arange(problem.grid.num_budgets)
    is_allowed_N_B = (column_B >= problem.first_Q[query_N, None]) & (column_B <= problem.last_Q[query_N, None])
    is_allowed_N_B &= price * extra_N_B - gain_N_B <= price * blocked * (1 + ROUNDING)
    is_allowed_N_B[rows_N, grant_N] = True
    grain = _grain(extra_N_B[is_allowed_N_B], blocked)
    steps_N_B = -(-extra_N_B // grain)

    cheapest_N = np.where(is_allowed_N_B, steps_N_B, 0).min(axis=1)
    range_N = np.where(is_allowed_N_B, steps_N_B, 0).max(axis=1) - cheapest_N
    work_N = np.cumsum(is_allowed_N_B.sum(axis=1)) * np.cumsum(range_N)
    core = slice(0, max(1, int(np.searchsorted(work_N, MOST_WORK, side="right"))))

    units = left // grain - int(cheapest_N[core].sum())
    steps_N_B = steps_N_B - cheapest_N[:, None]
    chosen_N = best_choices(steps_N_B[core], gain_N_B[core], is_allowed_N_B[core], units)
    column_Q = column_Q.copy()
    column_Q[query_N[core]] = chosen_N
    return column_Q


def _grain(extra_M: NDArray[np.int64], blocked: int) -> int:
    """Units to a step: what divides every cost where that is coarse enough to count in (whole tokens, windows)."""
    divisor = max(1, int(np.gcd.reduce(extra_M)))
    return divisor if blocked <= MOST_STEPS * divisor else -(-blocked // FINEST_GRAIN)


def _core_queries(problem: Problem, column_Q: Columns, price: float, most_loss: float) -> NDArray[np.int64]:
    """The queries that lose least, up to `most_loss`, by their best move away from the grant; least loss first."""
    loss_Q = _least_loss(problem, column_Q, price)
    query_N = np.flatnonzero(loss_Q <= most_loss)
    if query_N.size > MOST_QUERIES:
        loss_N = loss_Q[query_N]
        margin = np.partition(loss_N, MOST_QUERIES - 1)[MOST_QUERIES - 1]
        sure, tied = query_N[loss_N < margin], query_N[loss_N == margin]
        if sure.size + tied.size > MOST_QUERIES:
            tied = tied[problem.tie_order(tied)]
        query_N = np.concatenate((sure, tied[: MOST_QUERIES - sure.size]))
    query_N = query_N[problem.tie_order(query_N)]
    return query_N[np.argsort(loss_Q[query_N], kind="stable")]


def _least_loss(problem: Problem, column_Q: Columns, price: float) -> NDArray[np.float64]:
    """Net value that each query's best other column loses against its grant, shape (Q,); infinite without one."""
    loss_Q = np.empty(problem.num_queries)
    is_bounded = problem.is_bounded
    column_B = np.arange(problem.grid.num_budgets)[:, None]
    is_shared = problem.cost_Q_B.strides[0] == 0
    for at in range(0, problem.num_queries, CHUNK):
        chunk = slice(at, at + CHUNK)
        cost_Q_B = problem.cost_Q_B[chunk][:1] if is_shared else problem.cost_Q_B[chunk]
        net_B_C = np.array(problem.value_Q_B[chunk].T, dtype=np.float64, order="C")  # a copy: it is written to
        net_B_C -= price * cost_Q_B.T
        if is_bounded:
            net_B_C[(column_B < problem.first_Q[chunk]) | (column_B > problem.last_Q[chunk])] = -np.inf
        grant_1_C = column_Q[None, chunk]
        granted_C = np.take_along_axis(net_B_C, grant_1_C, axis=0)[0]
        np.put_along_axis(net_B_C, grant_1_C, -np.inf, axis=0)
        loss_Q[chunk] = granted_C - net_B_C.max(axis=0)
    return loss_Q
