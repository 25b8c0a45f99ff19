"""An uneven split without predictions: the envelope on one mean curve for all queries."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .costs import entries, exact_sum
from .envelope import WHY_LEFT, EnvelopeAllocator, spend_without_loss
from .greedy import ROUNDING
from .hull import Envelope, fill_from, upper_envelope
from .problem import Columns, Problem, Solution


class BlindAllocator:
    """Knows how queries fare on average and nothing about any one of them.

    A hash of the query's id decides who gets much and who little. The gain of an allocator over this one is what its
    predictions are worth. Bounds and weights come from the user, and are respected. What it expects is what the mean
    curve promises; under spent cost each segment is billed at what it costs that very query.
    """

    def solve(self, problem: Problem) -> Solution:
        """Divides the total by the mean curve."""
        mean = _on_the_mean_curve(problem)
        known = replace(mean, costs=problem.costs)
        # Where every query is billed alike it is the envelope's own problem, on one curve for all.
        found = EnvelopeAllocator().solve(known) if known.costs.is_alike else _billed(known, mean)
        accuracy = known.accuracy(exact_sum(known.value_at(found.column_Q)))
        return replace(found, why_left=f"on the mean curve, {WHY_LEFT}", expected_accuracy=accuracy)


def _on_the_mean_curve(problem: Problem) -> Problem:
    """The same problem, with every query's success and spend replaced by the batch's mean."""
    # Exact sums: the order of the queries does not show in the last digit.
    mean_B = np.array([exact_sum(column_Q) / len(column_Q) for column_Q in problem.curves.p_Q_B.T])
    p_Q_B, weight_Q = np.broadcast_to(mean_B, problem.value_Q_B.shape), problem.weight_Q
    return replace(
        problem,
        curves=replace(problem.curves, p_Q_B=p_Q_B),
        value_Q_B=p_Q_B if weight_Q is None else p_Q_B * weight_Q[:, None],
        costs=problem.costs.mean(),
    )


def _billed(known: Problem, mean: Problem) -> Solution:
    """Segments in the order of the mean curve's prices, each billed at what it costs that very query.

    Which query is next does not depend on its own curves; only how far the order goes is checked against the bill.
    """
    envelope, costs = upper_envelope(mean), known.costs
    # An envelope starts where it is cheapest on average; here a query starts where it is cheapest for that very one.
    cheapest_Q, _ = known.ends()
    is_dearer_Q = costs.at_each(envelope.start_M) > costs.at_each(cheapest_Q)
    start_Q = np.where(is_dearer_Q, cheapest_Q, envelope.start_M)
    # A segment comes from the same query's previous one, or from its start.
    from_N = (start_Q if known.is_ordered else envelope.start_M)[envelope.row_N]
    follows_N = envelope.row_N[1:] == envelope.row_N[:-1]
    from_N[1:][follows_N] = envelope.column_N[:-1][follows_N]
    if known.is_ordered:
        cost_N = costs.at(envelope.row_N, envelope.column_N) - costs.at(envelope.row_N, from_N)
        filled = fill_from(known, replace(envelope, start_M=start_Q, cost_N=cost_N))
        column_Q, left, price = filled.column_Q, filled.left, filled.price
    else:
        column_Q, left, price = _fill_in_line(known, envelope, start_Q, from_N)
    column_Q = spend_without_loss(known, column_Q, left)
    return Solution(column_Q, price=price / costs.unit)


def _fill_in_line(known: Problem, envelope: Envelope, start_Q: Columns, from_N: Columns) -> tuple[Columns, int, float]:
    """Columns, units left and price where a segment may cost less than nothing, or lead to a lower value.

    The line begins with the steps from each query's own cheapest option to where the envelopes start, and ends at the
    first segment that does not fit. The plan is the beginning of it that expects most, the longest of equals.
    """
    first_M = np.flatnonzero(start_Q != envelope.start_M)
    row_S = np.concatenate((first_M, envelope.row_N))
    from_S = np.concatenate((start_Q[first_M], from_N))
    to_S = np.concatenate((envelope.start_M[first_M], envelope.column_N))
    price_S = np.concatenate((np.full(first_M.size, np.inf), envelope.price_N))
    rank_Q = np.empty(known.num_queries, dtype=np.int64)
    rank_Q[known.tie_order(np.arange(known.num_queries))] = np.arange(known.num_queries)
    line_S = np.lexsort((rank_Q[row_S], -price_S))
    row_S, from_S, to_S, price_S = row_S[line_S], from_S[line_S], to_S[line_S], price_S[line_S]

    cost_S, left = known.costs.at(row_S, to_S) - known.costs.at(row_S, from_S), known.left_after(start_Q)
    num_fit = int(np.searchsorted(np.maximum.accumulate(np.cumsum(cost_S)), left, side="right"))
    price = float(price_S[num_fit:][np.isfinite(price_S[num_fit:])].max(initial=0.0))
    gain_S = entries(known.value_Q_B, row_S, to_S) - entries(known.value_Q_B, row_S, from_S)
    value_S = np.cumsum(np.append(0.0, gain_S[:num_fit]))
    length = int(np.flatnonzero(value_S >= value_S.max() - ROUNDING)[-1])
    column_Q = start_Q.copy()
    column_Q[row_S[:length]] = to_S[:length]  # of a query's segments the last one stands
    return column_Q, left - int(cost_S[:length].sum()), price
