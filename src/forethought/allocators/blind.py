"""What an uneven split is worth with no prediction at all: the envelope on one mean curve for everyone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..core.data import Cost
from .costs import exact_sum
from .envelope import WHY_LEFT, EnvelopeAllocator, spend_without_loss
from .hull import fill_from, upper_envelope
from .problem import Problem, Solution


class BlindAllocator:
    """Knows how queries fare on average and nothing about any one of them.

    A hash of the query's id decides who gets much and who little. The gain of an allocator over this one is what its
    predictions are worth. Bounds and weights come from the user, and are respected. What it expects is what the mean
    curve promises; under spent cost each segment is billed at what it costs that very query.
    """

    def solve(self, problem: Problem) -> Solution:
        """Divides the total by the mean curve."""
        mean = _on_the_mean_curve(problem)
        known, tokens_Q_B = replace(mean, costs=problem.costs), problem.curves.tokens_Q_B
        # Where every query is billed alike it is the envelope's own problem, on one curve for all.
        is_alike = problem.cost is Cost.GRANTED or tokens_Q_B is None or bool((tokens_Q_B == tokens_Q_B[0]).all())
        found = EnvelopeAllocator().solve(known) if is_alike else _billed(known, mean)
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
    # An envelope starts past the first column where that costs nothing on average; here it has to cost nothing at all.
    is_dearer_Q = costs.at_each(envelope.start_M) > costs.at_each(known.first_Q)
    start_Q = np.where(is_dearer_Q, known.first_Q, envelope.start_M)
    # A segment comes from the same query's previous one, or from its start.
    from_N = start_Q[envelope.row_N]
    follows_N = envelope.row_N[1:] == envelope.row_N[:-1]
    from_N[1:][follows_N] = envelope.column_N[:-1][follows_N]
    cost_N = costs.at(envelope.row_N, envelope.column_N) - costs.at(envelope.row_N, from_N)
    filled = fill_from(known, replace(envelope, start_M=start_Q, cost_N=cost_N))
    column_Q = spend_without_loss(known, filled.column_Q, filled.left)
    return Solution(column_Q, price=filled.price / costs.unit)
