"""The default: segments of the queries' upper concave envelopes by falling price, then the remaining tokens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..core.data import IntArray
from .costs import MOST_UNITS
from .hull import CHUNK, Fill, allowed_values, fill
from .knapsack import best_choices
from .margin import Margin
from .order import part
from .problem import Columns, Problem, Solution

WHY_LEFT = "they are too few for the next gain, or a longer budget is expected to hurt"

MOST_QUERIES = 256  # of the core
# Columns times units over which the core is solved: some ten milliseconds, about 128 queries of 16 options.
MOST_WORK = 4_000_000
MOST_STEPS = 512  # to the blocked segment, where counting in them is exact
FINEST_GRAIN = 256  # steps to the blocked segment where nothing coarse divides all costs: those are rounded up
ROUNDING = 1e-9


class EnvelopeAllocator:
    """Within one segment of the best possible plan, in time linear in the batch; docs/allocation.md has the proofs.

    Segments of the curves' upper concave envelopes are granted by falling price, success per token (Dantzig 1957; Sinha
    and Zoltners 1979). What that leaves goes to the queries nearest the margin, chosen for anew and exactly (Pisinger
    1995), and then where the curves see no difference. The price is that of the first segment that did not fit.
    """

    def solve(self, problem: Problem) -> Solution:
        """See the class."""
        filled = fill(problem)
        if filled.blocked:
            filled = complete(problem, filled)
        column_Q = spend_without_loss(problem, filled.column_Q, filled.left)
        return Solution(column_Q, price=filled.price / problem.costs.unit, why_left=WHY_LEFT)


def complete(problem: Problem, filled: Fill) -> Fill:
    """Re-optimises the queries nearest the margin (the core), to use the tokens that a blocked fill left.

    Exact over these queries, so never of a lower value. Core, columns and grain may depend on the fill and its price
    alone, not on what is left: docs/allocation.md builds on it.
    """
    query_N = _core_queries(problem, filled.column_Q, filled.price, most_loss(filled))
    if filled.left <= 0 or query_N.size == 0:
        return filled
    column_N, left = choose_again(*part(problem, query_N), filled.column_Q[query_N], filled)
    column_Q = filled.column_Q.copy()
    column_Q[query_N] = column_N
    return replace(filled, column_Q=column_Q, left=left)


def most_loss(filled: Fill | Margin) -> float:
    """Net value that a column may lose and still be worth a look, once `filled` is blocked."""
    return filled.price * filled.blocked * (1 + ROUNDING)


def choose_again(some: Problem, order_N_B: Columns, column_N: Columns, filled: Fill | Margin) -> tuple[Columns, int]:
    """Columns of the core, chosen together, and the units that they leave.

    Args:
        some: the core, least loss first, and
        order_N_B: which column each of its columns was: see `part`.
        column_N: what the fill gave each.
        filled: its price, blocked segment and units left.
    """
    price, left = filled.price, filled.left
    # Offsets from each query's column, rounded up to the grain: what fits as counted here fits in truth.
    rows_N, own_N = np.arange(column_N.size), (order_N_B == column_N[:, None]).argmax(axis=1)
    cost_N_B, value_N_B = some.costs.rows(slice(None)), some.value_Q_B.astype(np.float64)
    extra_N_B = cost_N_B - cost_N_B[rows_N, own_N, None]
    gain_N_B = value_N_B - value_N_B[rows_N, own_N, None]
    is_allowed_N_B = ~some.outside(slice(None))
    is_allowed_N_B &= price * extra_N_B - gain_N_B <= most_loss(filled)
    is_allowed_N_B[rows_N, own_N] = True
    grain = _grain(extra_N_B[is_allowed_N_B], filled.blocked)
    steps_N_B = -(-extra_N_B // grain)

    cheapest_N = np.where(is_allowed_N_B, steps_N_B, 0).min(axis=1)
    range_N = np.where(is_allowed_N_B, steps_N_B, 0).max(axis=1) - cheapest_N
    work_N = np.cumsum(is_allowed_N_B.sum(axis=1)) * np.cumsum(range_N)
    core = slice(0, max(1, int(np.searchsorted(work_N, MOST_WORK, side="right"))))
    if int(range_N[0]) > MOST_WORK:
        return column_N, left

    units = left // grain - int(cheapest_N[core].sum())
    steps_N_B = steps_N_B - cheapest_N[:, None]
    chosen_N = best_choices(steps_N_B[core], gain_N_B[core], is_allowed_N_B[core], units)
    column_N = column_N.copy()
    column_N[core] = order_N_B[rows_N[core], chosen_N]
    return column_N, left - int(extra_N_B[rows_N[core], chosen_N].sum())


def _grain(extra_M: NDArray[np.int64], blocked: int) -> int:
    """Units to a step: what divides every cost where that is coarse enough to count in (whole tokens, even steps)."""
    divisor = max(1, int(np.gcd.reduce(extra_M)))
    return divisor if blocked <= MOST_STEPS * divisor else -(-blocked // FINEST_GRAIN)


def _core_queries(problem: Problem, column_Q: Columns, price: float, most_loss: float) -> NDArray[np.int64]:
    """The queries that lose least, up to `most_loss`, by their best move away from their column; least loss first."""
    loss_Q = least_loss(problem, column_Q, price)
    query_N = np.flatnonzero(loss_Q <= most_loss)
    query_N = query_N[problem.least_of(query_N, loss_Q[query_N], MOST_QUERIES)]
    query_N = query_N[problem.tie_order(query_N)]
    return query_N[np.argsort(loss_Q[query_N], kind="stable")]


def least_loss(problem: Problem, column_Q: Columns, price: float) -> NDArray[np.float64]:
    """Net value that each query's best other column loses against its own, shape (Q,); infinite without one."""
    loss_Q = np.empty(problem.num_queries)
    work_B_C = np.empty((problem.menu.num_options, min(CHUNK, problem.num_queries)))
    for at in range(0, problem.num_queries, CHUNK):
        chunk = slice(at, min(at + CHUNK, problem.num_queries))
        net_B_C = allowed_values(problem, chunk, work_B_C[:, : chunk.stop - at])
        net_B_C -= price * problem.costs.floats(chunk)
        own_2_C = column_Q[chunk], np.arange(net_B_C.shape[1])
        own_C = net_B_C[own_2_C]
        net_B_C[own_2_C] = -np.inf
        loss_Q[chunk] = own_C - net_B_C.max(axis=0)
    return loss_Q


def spend_without_loss(problem: Problem, column_Q: Columns, left: int) -> Columns:
    """Raises budgets whose value stays exactly the same, the smallest budgets first, while they fit in `left` units.

    It goes in rounds, each raising only the smallest budgets that can still rise: they come up together. What costs
    nothing always fits.
    """
    if not problem.is_ordered:
        return _spend_by_cost(problem, column_Q, left)
    column_Q = column_Q.copy()
    open_N = np.flatnonzero(column_Q < problem.last_Q)
    while open_N.size:
        # A raise costs at least what one column more does: most queries have none that fits, and are not asked.
        open_N = open_N[problem.costs.next_step(open_N, column_Q[open_N]) <= left]
        if not open_N.size:
            break
        is_least_N = column_Q[open_N] == column_Q[open_N].min()
        least_N, others_N = open_N[is_least_N], open_N[~is_least_N]
        next_N = next_equal(problem, least_N, column_Q[least_N])
        least_N, next_N = least_N[next_N >= 0], next_N[next_N >= 0]
        cost_N = problem.costs.at(least_N, next_N) - problem.costs.at(least_N, column_Q[least_N])
        num_fit = int(np.searchsorted(np.cumsum(np.sort(cost_N)), left, side="right"))
        taken = problem.least_of(least_N, cost_N, num_fit)  # the cheapest
        column_Q[least_N[taken]] = next_N[taken]
        left -= int(cost_N[taken].sum())
        # A raise that did not fit now never will: the rest only shrinks.
        raised_N = least_N[taken]
        open_N = np.concatenate((others_N, raised_N[column_Q[raised_N] < problem.last_Q[raised_N]]))
    return column_Q


def rise_freely(problem: Problem, column_Q: Columns, left: int) -> tuple[NDArray[np.int64], Columns, NDArray[np.int64]]:
    """Raises `column_Q` in place where that costs nothing.

    Returns:
        The queries that can rise further within `left`: which, column and extra cost.
    """
    found = [(np.zeros(0, dtype=np.int64),) * 3]
    open_N = np.flatnonzero(column_Q < problem.last_Q)
    open_N = open_N[problem.costs.next_step(open_N, column_Q[open_N]) <= left]
    while open_N.size:
        next_N = next_equal(problem, open_N, column_Q[open_N])
        open_N, next_N = open_N[next_N >= 0], next_N[next_N >= 0]
        cost_N = problem.costs.at(open_N, next_N) - problem.costs.at(open_N, column_Q[open_N])
        is_more_N = (cost_N > 0) & (cost_N <= left)
        found.append((open_N[is_more_N], column_Q[open_N[is_more_N]], cost_N[is_more_N]))
        open_N, next_N = open_N[cost_N == 0], next_N[cost_N == 0]
        column_Q[open_N] = next_N
        open_N = open_N[next_N < problem.last_Q[open_N]]
    row_N, column_N, cost_N = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    return row_N, column_N, cost_N


def _spend_by_cost(problem: Problem, column_Q: Columns, left: int) -> Columns:
    """The same where costs may fall along the menu: a budget's place is the number of options that cost less."""
    if left <= 0:
        return column_Q
    column_Q, found = column_Q.copy(), []
    for at in range(0, problem.num_queries, CHUNK):
        query_C = np.arange(at, min(at + CHUNK, problem.num_queries))
        found.append(raises(problem, query_C, column_Q[query_C], left))
    query_N, place_N, next_N, cost_N = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    while query_N.size:
        is_least_N = place_N == place_N.min()
        least_N = query_N[is_least_N]
        num_fit = int(np.searchsorted(np.cumsum(np.sort(cost_N[is_least_N])), left, side="right"))
        taken = problem.least_of(least_N, cost_N[is_least_N], num_fit)
        column_Q[least_N[taken]] = next_N[is_least_N][taken]
        left -= int(cost_N[is_least_N][taken].sum())
        found = [tuple(array_N[~is_least_N & (cost_N <= left)] for array_N in (query_N, place_N, next_N, cost_N))]
        for at in range(0, taken.size, CHUNK):
            raised_N = least_N[taken[at : at + CHUNK]]
            found.append(raises(problem, raised_N, column_Q[raised_N], left))
        query_N, place_N, next_N, cost_N = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    return column_Q


def raises(
    problem: Problem, query_N: NDArray[np.int64], column_N: Columns, left: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], Columns, NDArray[np.int64]]:
    """Queries with a more expensive option of the same value within `left`: which, place, option and extra cost."""
    column_B = np.arange(problem.menu.num_options)
    is_equal_N_B = _is_equal(problem, query_N[:, None], column_N[:, None], column_B)
    some = np.flatnonzero(is_equal_N_B.sum(axis=1, dtype=np.uint32) > 1)
    query_N, is_equal_N_B = query_N[some], is_equal_N_B[some]
    extra_N_B = problem.costs.rows(query_N) - problem.costs.at(query_N, column_N[some])[:, None]
    if problem.is_bounded:
        is_equal_N_B &= ~problem.outside(query_N)
    is_equal_N_B &= extra_N_B > 0
    raise_N_B = np.where(is_equal_N_B, extra_N_B, MOST_UNITS)
    next_N = raise_N_B.argmin(axis=1)
    cost_N = raise_N_B[np.arange(some.size), next_N]
    some = np.flatnonzero(cost_N <= left)
    is_cheaper_N_B = extra_N_B[some] < 0
    if problem.is_bounded:
        is_cheaper_N_B &= ~problem.outside(query_N[some])
    place_N = problem.first_Q[query_N[some]] + is_cheaper_N_B.sum(axis=1, dtype=np.int64)
    return query_N[some], place_N, next_N[some], cost_N[some]


def next_equal(problem: Problem, query_N: NDArray[np.int64], column_N: Columns) -> Columns:
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
