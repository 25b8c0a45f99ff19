"""The upper concave envelope of every query's (cost, value) points, and the price at which a total runs out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bounds import Columns
from .problem import Problem

CHUNK = 2048  # queries at once: the pairwise slopes of 16 budgets then stay in a core's cache
NO_COST = 1e-200  # stands in for a step that costs nothing, so that its slope is past every true one
EXCLUDED = -1e100  # value of a column outside a query's range: no chord to it ever bounds another


@dataclass(frozen=True, slots=True, eq=False)
class Envelope:
    """Envelopes of M queries, as the segments that climb them; N segments in order of query, then column.

    Attributes:
        start_M: column where each query's envelope begins: its first one, or where the segments too dear to be asked
            about lead.
        row_N: whose segment it is: a position in `start_M`.
        column_N: column the segment leads to; it comes from the query's previous segment, or its start.
        cost_N: units the segment costs; 0 where a longer budget costs nothing more, and then past every true price.
        gain_N: value it adds, above 0.
        price_N: value per unit. Strictly decreasing along each query, also as rounded, so that taking every segment
            dearer than some price takes a whole beginning of each envelope.
    """

    start_M: Columns
    row_N: NDArray[np.int64]
    column_N: NDArray[np.int64]
    cost_N: NDArray[np.int64]
    gain_N: NDArray[np.float64]
    price_N: NDArray[np.float64]


def upper_envelope(
    problem: Problem, *, query_M: NDArray[np.int64] | None = None, low: float = 0.0, high: float = np.inf
) -> Envelope:
    """Envelopes over the columns each query may have, up to its highest value.

    A column is a corner exactly when the flattest chord that reaches it from the left is steeper than the steepest
    that leaves it to the right, and it rises. That needs B²/2 chords a query, each a few vector operations over many
    queries at once: for the tens of budgets of a menu, faster than a stack for each query.

    Args:
        problem: whose curves.
        query_M: the queries to take, or None for all of them.
        low: segments cheaper than this are left out.
        high: segments dearer than this only move the start.
    """
    num_rows = problem.num_queries if query_M is None else query_M.size
    parts = []
    for at in range(0, max(num_rows, 1), CHUNK):
        rows = slice(at, min(at + CHUNK, num_rows))
        row_V, *corners = _corners(problem, rows if query_M is None else query_M[rows], low, high)
        parts.append((row_V + at, *corners))
    row_V, column_V, cost_V, value_V, price_V = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    del parts
    is_start_V = np.ones(row_V.size, dtype=np.bool_)
    np.not_equal(row_V[1:], row_V[:-1], out=is_start_V[1:])
    rises = np.flatnonzero(~is_start_V)
    return Envelope(
        start_M=column_V[is_start_V],
        row_N=row_V[rises],
        column_N=column_V[rises],
        cost_N=cost_V[rises] - cost_V[rises - 1],
        gain_N=value_V[rises] - value_V[rises - 1],
        price_N=price_V[rises],
    )


def _corners(problem: Problem, queries: slice | NDArray[np.int64], low: float, high: float) -> tuple[NDArray[Any], ...]:
    """The corners of some queries: position, column, cost, value and price of each, in order of position, then column.

    The first corner of each query is its start; the price of any other is that of the segment which leads to it.
    """
    value_B_C = np.ascontiguousarray(problem.value_Q_B[queries].T, dtype=np.float64)
    # Under granted cost one column of costs serves every query, and the division below broadcasts it.
    cost_B_C = problem.costs.floats(queries)
    num_budgets, num_chunk = value_B_C.shape
    chords_B_C = value_B_C
    if problem.is_bounded:
        column_B = np.arange(num_budgets)[:, None]
        is_allowed_B_C = (column_B >= problem.first_Q[queries]) & (column_B <= problem.last_Q[queries])
        chords_B_C = np.where(is_allowed_B_C, value_B_C, EXCLUDED)

    # An outer column opens on the left (no chord reaches it) and ends at the highest value (chords must rise).
    reach_B_C = np.full((num_budgets, num_chunk), np.inf)
    leave_B_C = np.zeros((num_budgets, num_chunk))
    for column in range(num_budgets - 1):
        slope_B_C = chords_B_C[column + 1 :] - chords_B_C[column]
        slope_B_C /= np.maximum(cost_B_C[column + 1 :] - cost_B_C[column], NO_COST)
        np.maximum(slope_B_C.max(axis=0), 0.0, out=leave_B_C[column])
        np.minimum(reach_B_C[column + 1 :], slope_B_C, out=reach_B_C[column + 1 :])
    is_corner_B_C = reach_B_C > leave_B_C
    if problem.is_bounded:
        is_corner_B_C &= is_allowed_B_C

    row_V, column_V = np.nonzero(is_corner_B_C.T)
    price_V = reach_B_C[column_V, row_V]
    # Prices fall along a query: what is dearer than `high` is a beginning of it, of which the end is the start.
    is_dear_V = price_V > high
    is_kept_V = is_dear_V | (price_V >= low)
    is_kept_V[:-1] &= ~(is_dear_V[1:] & (row_V[1:] == row_V[:-1]))
    if not is_kept_V.all():
        row_V, column_V, price_V = row_V[is_kept_V], column_V[is_kept_V], price_V[is_kept_V]
    cost_V = cost_B_C[column_V, 0 if problem.costs.is_shared else row_V].astype(np.int64)
    return row_V, column_V, cost_V, value_B_C[column_V, row_V], price_V


def marginal_price(price_N: NDArray[np.float64], cost_N: NDArray[np.int64], units: int) -> float:
    """The highest price at which the segments that cost at least that much no longer fit in `units`; 0 when all fit.

    A selection in the manner of quickselect, by weight: linear in the number of segments, where a sort is not.
    """
    while price_N.size:
        sample = price_N[:: max(1, price_N.size // 1001)]
        pivot = np.partition(sample, sample.size // 2)[sample.size // 2]
        is_dearer = price_N > pivot
        cost_dearer = int(cost_N[is_dearer].sum())
        if cost_dearer > units:
            price_N, cost_N = price_N[is_dearer], cost_N[is_dearer]
            continue
        is_cheaper = price_N < pivot
        cost_cheaper = int(cost_N[is_cheaper].sum())
        units -= int(cost_N.sum()) - cost_cheaper
        if units < 0:
            return float(pivot)
        price_N, cost_N = price_N[is_cheaper], cost_N[is_cheaper]
    return 0.0
