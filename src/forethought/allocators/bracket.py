"""A bracket of prices about the marginal one, found on a sample; most queries are decided by it alone.

The marginal price of a batch is, but for chance, that of a sample of it. Most queries have no segment priced within the
error of that guess: one pass over their curves says where they stand, and no envelope of theirs is ever built.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .bounds import Columns
from .hull import Envelope, upper_envelope
from .problem import Problem

SAMPLE = 16_384  # queries; below twice as many all envelopes are built at once
SEED = 0  # the sample decides how fast a plan is made, never what it is
ERRORS = 4.5  # standard errors on each side: chance misses the price a few times in a million batches
CHUNK = 2048  # queries at once, as in `hull`
TOLERANCE = 1e-12  # of the largest net value: far more than a slope's rounding, far less than a curve tells


@dataclass(frozen=True, slots=True)
class Bracket:
    """Prices between which the marginal one should lie, in value per unit.

    Attributes:
        low: at least 0; at 0 it holds every segment.
        high: at least `low`; equal where many segments have the very same price.
    """

    low: float
    high: float


def sampled_bracket(problem: Problem) -> Bracket | None:
    """Where the marginal price should lie by a sample of the queries; None for a batch too small to be worth it."""
    num_queries = problem.num_queries
    if num_queries < 2 * SAMPLE:
        return None
    query_M = np.sort(np.random.default_rng(SEED).integers(0, num_queries, SAMPLE))
    envelope = upper_envelope(problem, query_M=query_M)
    order = np.argsort(-envelope.price_N, kind="stable")
    price_N, row_N, cost_N = envelope.price_N[order], envelope.row_N[order], envelope.cost_N[order]
    if price_N.size == 0:
        return None
    start_M = problem.costs.at(query_M, envelope.start_M)
    left = problem.units / num_queries * SAMPLE - float(start_M.sum())
    spent_N = np.cumsum(cost_N)

    # The spread, over queries, of what each costs at the sample's own marginal price.
    num_granted = int(np.searchsorted(spent_N, left, side="right"))
    cost_M = start_M + np.bincount(row_N[:num_granted], weights=cost_N[:num_granted], minlength=SAMPLE)
    error = ERRORS * math.sqrt(SAMPLE) * float(cost_M.std())
    first, last = np.searchsorted(spent_N, [left - error, left + error], side="right").tolist()
    high = float(price_N[first - 1]) if first > 0 else 2.0 * float(price_N[0])
    low = float(price_N[last]) if last < price_N.size else 0.0
    return Bracket(low, high)


def bracketed_envelope(problem: Problem, bracket: Bracket) -> Envelope:
    """Envelopes of all queries, of which only the segments priced within `bracket` are kept.

    Dearer segments are taken as granted: a query starts where they lead. Cheaper ones are left out.
    """
    start_Q = _decided_columns(problem, bracket)
    undecided_M = np.flatnonzero(start_Q < 0)
    envelope = upper_envelope(problem, query_M=undecided_M, low=bracket.low, high=bracket.high)
    start_Q[undecided_M] = envelope.start_M
    return Envelope(
        start_M=start_Q,
        row_N=undecided_M[envelope.row_N],
        column_N=envelope.column_N,
        cost_N=envelope.cost_N,
        gain_N=envelope.gain_N,
        price_N=envelope.price_N,
    )


def _decided_columns(problem: Problem, bracket: Bracket) -> Columns:
    """The column that is right at every price within `bracket`, shape (Q,); -1 where there is none, or it is close.

    Write net value for value less cost at a price. Chords that reach a column from the left are steeper than `high`
    where its net value at `high` passes that of all columns before it; chords that leave it to the right are flatter
    than `low` where its net value at `low` passes that of all columns after it. A column with both is the corner of
    the envelope at which every price in between ends. The tolerance covers rounding, here and in the envelope's slopes:
    what is that close is left to the envelope.
    """
    num_queries, num_budgets = problem.num_queries, problem.menu.num_options
    column_Q = np.full(num_queries, -1, dtype=np.int64)
    most_value = 1.0 if problem.weight_Q is None else float(problem.weight_Q.max())
    # Written anew for every chunk: memory that stays in cache. The last chunk may be a smaller one.
    work_4_B_C = np.empty((4, num_budgets, min(CHUNK, num_queries)))
    for at in range(0, num_queries, CHUNK):
        chunk = slice(at, min(at + CHUNK, num_queries))
        _decide(problem, bracket, chunk, most_value, work_4_B_C[:, :, : chunk.stop - at], column_Q[chunk])
    return column_Q


def _decide(
    problem: Problem,
    bracket: Bracket,
    chunk: slice,
    most_value: float,
    work_4_B_C: NDArray[np.float64],
    column_C: Columns,
) -> None:
    """Writes the columns of some queries to `column_C`, where they are decided; overwrites `work_4_B_C`."""
    low_B_C, high_B_C, later_B_C, cost_B_C = work_4_B_C
    cost_B_C = problem.costs.floats(chunk, cost_B_C)
    margin = TOLERANCE * (most_value + bracket.high * float(cost_B_C[-1].max()))
    low_B_C[...] = problem.value_Q_B[chunk].T
    num_budgets = len(low_B_C)
    if problem.is_bounded:
        column_B_1 = np.arange(num_budgets)[:, None]
        low_B_C[(column_B_1 < problem.first_Q[chunk]) | (column_B_1 > problem.last_Q[chunk])] = -np.inf
    np.subtract(low_B_C, np.multiply(bracket.high, cost_B_C, out=high_B_C), out=high_B_C)
    if bracket.low > 0.0:
        cost_B_C *= bracket.low
        low_B_C -= cost_B_C

    later_B_C[-1] = -np.inf
    for column in range(num_budgets - 1, 0, -1):
        np.maximum(later_B_C[column], low_B_C[column], out=later_B_C[column - 1])
    # At a price of 0 there is nothing to round, and an equal value later is no reason to go there.
    later_B_C += margin if bracket.low > 0.0 else 0.0
    is_right_B_C = low_B_C >= later_B_C
    before_C = np.full(low_B_C.shape[1], -np.inf)
    for column in range(num_budgets):
        is_right_C = is_right_B_C[column]
        is_right_C &= high_B_C[column] > before_C
        np.copyto(column_C, column, where=is_right_C)
        high_B_C[column] += margin
        np.maximum(before_C, high_B_C[column], out=before_C)
