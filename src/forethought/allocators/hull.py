"""Upper concave envelopes of the queries' (cost, value) points, and their segments assigned in order of price."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.data import FloatArray
from .order import by_cost
from .problem import Columns, Problem

CHUNK = 2048  # queries at once: the pairwise slopes of 16 options then stay in a core's cache
AT_ONCE = 1 << 14  # slopes of one pass
NO_COST = 1e-100  # stands in for a step that costs nothing, so that its slope is past every true one
EXCLUDED = -1e150  # value of a column outside a query's range: chords from it are steeper still, whatever they cost

SAMPLE = 16_384  # queries; below twice as many all envelopes are built at once
SEED = 0  # the sample decides how fast a plan is made, never what it is
ERRORS = 4.5  # standard errors on each side: chance misses the price a few times in a million batches
TOLERANCE = 1e-12  # of the largest net value: far more than a slope's rounding, far less than a curve tells


@dataclass(frozen=True, slots=True, eq=False)
class Envelope:
    """Envelopes of M queries, as the segments that climb them; N segments in order of query, then cost.

    Attributes:
        start_M: column where each envelope begins: the query's cheapest, or where segments that are too dear lead.
        row_N: whose segment it is: a position in `start_M`.
        column_N: column it leads to, from that of the query's previous segment, or its start.
        cost_N: units it costs; 0 where a longer budget costs nothing more, and then it is past every true price.
        price_N: value per unit; strictly decreasing along each query, also as rounded: the segments dearer than any
            price are a beginning of each envelope.
    """

    start_M: Columns
    row_N: NDArray[np.int64]
    column_N: NDArray[np.int64]
    cost_N: NDArray[np.int64]
    price_N: NDArray[np.float64]

    def columns(self, is_granted_N: NDArray[np.bool_]) -> Columns:
        """Where the granted segments, a beginning of each envelope, lead; shape (M,)."""
        column_M = self.start_M.copy()
        # Segments lie in order of cost within each query, and of repeated assignments the last one stands.
        column_M[self.row_N[is_granted_N]] = self.column_N[is_granted_N]
        return column_M


@dataclass(frozen=True, slots=True, eq=False)
class Fill:
    """The longest beginning that fits of all segments in one line, by falling price.

    Attributes:
        column_Q: where it leads, shape (Q,).
        price: value per unit of the first segment that did not fit; 0 when all of them did.
        blocked: what that segment costs, in units; 0 when all of them fit.
        left: units of the total not taken.
    """

    column_Q: Columns
    price: float
    blocked: int
    left: int


def fill(problem: Problem) -> Fill:
    """Grants the segments of all queries by falling price as far as the total goes.

    Of a large batch only those in a sampled bracket of prices are looked at, if it proves right (docs/allocation.md).
    """
    if (bracket := sampled_bracket(problem)) is not None:
        filled = fill_from(problem, bracketed_envelope(problem, *bracket))
        if filled.left >= 0 and (filled.price > 0.0 or bracket[0] == 0.0):
            return filled
    return fill_from(problem, upper_envelope(problem))


def fill_from(problem: Problem, envelope: Envelope) -> Fill:
    """The same out of the segments of `envelope`, whose rows are the queries of `problem`."""
    return grant(envelope, problem.left_after(envelope.start_M), problem.tie_order)


def grant(envelope: Envelope, left: int, tie_order: Callable[[NDArray[np.int64]], NDArray[np.int64]]) -> Fill:
    """Grants segments by falling price while they fit in `left` units.

    Args:
        envelope: of all queries.
        left: units of the total that its starts do not take.
        tie_order: see `Problem.tie_order`.
    """
    order = np.argsort(-envelope.price_N)
    num_fit = int(np.searchsorted(np.cumsum(envelope.cost_N[order]), left, side="right"))
    price = float(envelope.price_N[order[num_fit]]) if num_fit < order.size else 0.0
    is_granted_N = envelope.price_N > price
    left -= int(envelope.cost_N[is_granted_N].sum())
    blocked = 0
    if price > 0:
        # A query has one segment at a price at most, so the order among these is free: by tie.
        tied = np.flatnonzero(envelope.price_N == price)
        tied = tied[tie_order(envelope.row_N[tied])]
        num_fit = int(np.searchsorted(np.cumsum(envelope.cost_N[tied]), left, side="right"))
        is_granted_N[tied[:num_fit]] = True
        left -= int(envelope.cost_N[tied[:num_fit]].sum())
        blocked = int(envelope.cost_N[tied[num_fit]])
    return Fill(envelope.columns(is_granted_N), price, blocked, left)


def upper_envelope(
    problem: Problem, *, query_M: NDArray[np.int64] | None = None, low: float = 0.0, high: float = np.inf
) -> Envelope:
    """Envelopes over the columns each query of `query_M` (all without) may have, up to its highest value.

    Segments cheaper than `low` are left out; those dearer than `high` only move the start.
    """
    num_rows = problem.num_queries if query_M is None else query_M.size
    parts = []
    for at in range(0, max(num_rows, 1), CHUNK):
        rows = slice(at, min(at + CHUNK, num_rows))
        row_V, *corners = _corners(problem, rows if query_M is None else query_M[rows], low, high)
        parts.append((row_V + at, *corners))
    row_V, column_V, cost_V, price_V = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    del parts
    is_start_V = np.ones(row_V.size, dtype=np.bool_)
    np.not_equal(row_V[1:], row_V[:-1], out=is_start_V[1:])
    rises = np.flatnonzero(~is_start_V)
    return Envelope(
        start_M=column_V[is_start_V],
        row_N=row_V[rises],
        column_N=column_V[rises],
        cost_N=cost_V[rises] - cost_V[rises - 1],
        price_N=price_V[rises],
    )


def _corners(problem: Problem, queries: slice | NDArray[np.int64], low: float, high: float) -> tuple[NDArray[Any], ...]:
    """The corners of some queries: position, column, cost and price of each, in order of position, then cost.

    The first corner of each query is its start; the price of any other is that of the segment which leads to it. A
    column is a corner exactly when the flattest chord that reaches it from the left is steeper than the steepest that
    leaves it to the right, and it rises.
    """
    order_C_B = None
    if problem.is_ordered:
        value_B_C = np.array(problem.value_Q_B[queries].T, dtype=np.float64, order="C")
        # Under granted cost one column of costs serves every query, and the division below broadcasts it.
        cost_B_C = problem.costs.floats(queries)
    else:
        order_C_B = by_cost(problem, queries)
        value_B_C, cost_B_C = (
            np.array(np.take_along_axis(array_C_B, order_C_B, axis=1).T, dtype=np.float64, order="C")
            for array_C_B in (problem.value_Q_B[queries], problem.costs.rows(queries))
        )
    num_options, num_chunk = value_B_C.shape
    if problem.is_bounded:
        value_B_C[problem.outside(queries).T] = EXCLUDED

    # An outer column opens on the left (no chord reaches it) and ends at the highest value (chords must rise).
    # Of few queries several columns go into one pass; the chord of a column to itself, or back, is none.
    reach_B_C = np.full((num_options, num_chunk), np.inf)
    leave_B_C = np.zeros((num_options, num_chunk))
    step = min(num_options, max(1, AT_ONCE // max(1, num_options * num_chunk)))
    for at in range(0, num_options - 1, step):
        columns = slice(at, min(at + step, num_options - 1))
        slope_K_B_C = value_B_C[at + 1 :] - value_B_C[columns, None]
        slope_K_B_C /= np.maximum(cost_B_C[at + 1 :] - cost_B_C[columns, None], NO_COST)
        if step > 1:
            is_none_K_B = ~np.tri(num_options - 1 - at, len(slope_K_B_C), dtype=np.bool_).T
            slope_K_B_C[is_none_K_B] = -np.inf
        np.maximum(slope_K_B_C.max(axis=1), 0.0, out=leave_B_C[columns])
        if step > 1:
            slope_K_B_C[is_none_K_B] = np.inf
        np.minimum(reach_B_C[at + 1 :], slope_K_B_C.min(axis=0), out=reach_B_C[at + 1 :])
    is_corner_B_C = reach_B_C > leave_B_C
    if problem.is_bounded:
        is_corner_B_C &= value_B_C > EXCLUDED
    row_V, column_V = np.nonzero(is_corner_B_C.T)
    price_V = reach_B_C[column_V, row_V]
    # Prices fall along a query: what is dearer than `high` is a beginning of it, of which the end is the start.
    is_dear_V = price_V > high
    is_kept_V = is_dear_V | (price_V >= low)
    is_kept_V[:-1] &= ~(is_dear_V[1:] & (row_V[1:] == row_V[:-1]))
    if not is_kept_V.all():
        row_V, column_V, price_V = row_V[is_kept_V], column_V[is_kept_V], price_V[is_kept_V]
    cost_V = cost_B_C[column_V, row_V if cost_B_C.shape[1] == num_chunk else 0].astype(np.int64)
    return row_V, column_V if order_C_B is None else order_C_B[row_V, column_V], cost_V, price_V


def allowed_values(problem: Problem, chunk: slice, out_B_C: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values of some queries, turned, into `out_B_C`; minus infinity where a query may not have the column."""
    out_B_C[...] = problem.value_Q_B[chunk].T
    if problem.is_bounded:
        out_B_C[problem.outside(chunk).T] = -np.inf
    return out_B_C


def sampled_bracket(problem: Problem) -> tuple[float, float] | None:
    """Least and greatest price a unit that the marginal one should have, by a sample; None for a small batch."""
    num_queries = problem.num_queries
    if num_queries < 2 * SAMPLE:
        return None
    query_M = np.sort(np.random.default_rng(SEED).integers(0, num_queries, SAMPLE))
    envelope = upper_envelope(problem, query_M=query_M)
    return bracket_of(envelope, problem.costs.at(query_M, envelope.start_M), problem.units / num_queries)


def bracket_of(envelope: Envelope, start_M: NDArray[np.int64], units_each: float) -> tuple[float, float] | None:
    """The same from the sample's envelopes.

    Args:
        envelope: of M queries, drawn at random from all.
        start_M: what each pays at the start of its envelope, in units.
        units_each: the total a query, in units.
    """
    order = np.argsort(-envelope.price_N, kind="stable")
    price_N, row_N, cost_N = envelope.price_N[order], envelope.row_N[order], envelope.cost_N[order]
    if price_N.size == 0:
        return None
    left = units_each * start_M.size - float(start_M.sum())
    spent_N = np.cumsum(cost_N)

    # The spread, over queries, of what each costs at the sample's own marginal price.
    num_granted = int(np.searchsorted(spent_N, left, side="right"))
    cost_M = start_M + np.bincount(row_N[:num_granted], weights=cost_N[:num_granted], minlength=start_M.size)
    error = ERRORS * math.sqrt(start_M.size) * float(cost_M.std())
    first, last = np.searchsorted(spent_N, [left - error, left + error], side="right").tolist()
    high = float(price_N[first - 1]) if first > 0 else 2.0 * float(price_N[0])
    low = float(price_N[last]) if last < price_N.size else 0.0
    return low, high


def bracketed_envelope(problem: Problem, low: float, high: float) -> Envelope:
    """Envelopes of all queries, of which only the segments priced from `low` to `high` are kept.

    A query starts where dearer ones lead. One pass over the curves tells this of most queries, without their envelope.
    """
    num_queries = problem.num_queries
    start_Q = np.full(num_queries, -1, dtype=np.int64)
    most_value = 1.0 if problem.weight_Q is None else float(problem.weight_Q.max())
    # Written anew for every chunk: memory that stays in cache. The last chunk may be a smaller one.
    work_3_B_C = np.empty((3, problem.menu.num_options, min(CHUNK, num_queries)))
    for at in range(0, num_queries, CHUNK):
        chunk = slice(at, min(at + CHUNK, num_queries))
        work = work_3_B_C[:, :, : chunk.stop - at]
        cost_B_C = problem.costs.floats(chunk, work[2])
        margin = TOLERANCE * (most_value + high * float(cost_B_C.max()))
        _decide(allowed_values(problem, chunk, work[0]), cost_B_C, work[1], low, high, margin, start_Q[chunk])
    undecided_M = np.flatnonzero(start_Q < 0)
    envelope = upper_envelope(problem, query_M=undecided_M, low=low, high=high)
    start_Q[undecided_M] = envelope.start_M
    return replace(envelope, start_M=start_Q, row_N=undecided_M[envelope.row_N])


def _decide(
    low_B_C: FloatArray, cost_B_C: FloatArray, work: FloatArray, low: float, high: float, margin: float, out: Columns
) -> None:
    """Writes to `out` the column that is right at every price from `low` to `high`; overwrites the others.

    Net value is value less cost at a price: a straight line of the price, so a column that is best at both ends is best
    between them, in whatever order costs stand. What is too close to tell from rounding is left as it is.
    """
    high_B_C = np.subtract(low_B_C, np.multiply(high, cost_B_C, out=work), out=work)
    is_near_B_C = high_B_C >= high_B_C.max(axis=0) - margin
    is_sure_C = is_near_B_C.sum(axis=0, dtype=np.uint32) == 1
    if low > 0.0:
        cost_B_C *= low
        low_B_C -= cost_B_C
    # At a price of 0 there is nothing to round, and of equal values the one that is best at `high` is the cheapest.
    most_C = low_B_C.max(axis=0)
    if low > 0.0:
        is_sure_C &= (low_B_C >= most_C - margin).sum(axis=0, dtype=np.uint32) == 1
    is_near_B_C &= low_B_C >= most_C
    is_near_B_C &= is_sure_C
    for column, is_right_C in enumerate(is_near_B_C):
        np.copyto(out, column, where=is_right_C)
