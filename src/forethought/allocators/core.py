"""Completes an envelope's grants: an exact solution over the few queries that matter at the margin."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from .bounds import Columns
from .grants import Grants
from .knapsack import best_choices
from .problem import Problem

CHUNK = 2048
MOST_QUERIES = 256
# Columns times units over which the core is solved: some ten milliseconds, about 128 queries of 16 budgets.
MOST_WORK = 4_000_000
MOST_STEPS = 512  # to the blocked segment, where counting in them is exact
FINEST_GRAIN = 256  # steps to the blocked segment where nothing coarse divides all costs: those are rounded up
ROUNDING = 1e-9


def complete(problem: Problem, granted: Grants) -> Grants:
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
        granted: the grants, of which the next segment in line was blocked.

    Returns:
        The same with improved columns, never of a lower value, never over the total.
    """
    column_Q, price, blocked, left = granted.column_Q, granted.price, granted.blocked, granted.left
    query_N = _core_queries(problem, column_Q, price, price * blocked * (1 + ROUNDING))
    if left <= 0 or query_N.size == 0:
        return granted

    # Offsets from each query's grant, rounded up to the grain: what fits as counted here fits in truth.
    rows_N, grant_N = np.arange(query_N.size), column_Q[query_N]
    cost_N_B, value_N_B = problem.costs.rows(query_N), problem.value_Q_B[query_N].astype(np.float64)
    extra_N_B = cost_N_B - cost_N_B[rows_N, grant_N, None]
    gain_N_B = value_N_B - value_N_B[rows_N, grant_N, None]
    column_B = np.arange(problem.menu.num_options)
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
    return replace(granted, column_Q=column_Q, left=left - int(extra_N_B[rows_N[core], chosen_N].sum()))


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
    column_B_1 = np.arange(problem.menu.num_options)[:, None]
    for at in range(0, problem.num_queries, CHUNK):
        chunk = slice(at, at + CHUNK)
        net_B_C = np.array(problem.value_Q_B[chunk].T, dtype=np.float64, order="C")  # a copy: it is written to
        net_B_C -= price * problem.costs.floats(chunk)
        if problem.is_bounded:
            net_B_C[(column_B_1 < problem.first_Q[chunk]) | (column_B_1 > problem.last_Q[chunk])] = -np.inf
        num_chunk, net_A = net_B_C.shape[1], net_B_C.reshape(-1)
        grant_C = column_Q[chunk] * num_chunk + np.arange(num_chunk)
        granted_C = net_A[grant_C]
        net_A[grant_C] = -np.inf
        loss_Q[chunk] = granted_C - net_B_C.max(axis=0)
    return loss_Q
