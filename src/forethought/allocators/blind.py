"""What an uneven split is worth with no prediction at all: the envelope on one mean curve for everyone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..core.data import Allocation, Cost, Curves, FloatArray, IntArray
from .bounds import Columns
from .envelope import WHY_LEFT, solve
from .grants import grant
from .hull import upper_envelope
from .leftover import spend_without_loss
from .problem import Problem, pose
from .sums import exact_sum


class BlindAllocator:
    """Knows how queries fare on average and nothing about any one of them.

    Curves are not concave, so giving some queries much and the rest little beats an even split even when the draw
    decides who gets what; here a hash of the query's id is the draw. The gain of an allocator over this one is what
    its predictions are worth. Bounds and weights come from the user, not from a prediction, and are respected.

    `expected_accuracy` is what the mean curve promises: nothing better is known here. Under spent cost the order of
    grants comes from the mean curves too, but the bill (the total, `expected_spent`) is that of the queries' own spend
    curves, so that a plan never costs more than the total.
    """

    name = "blind"

    def allocate(
        self,
        curves: Curves,
        *,
        total: float,
        cost: Cost = Cost.GRANTED,
        min_budget_Q: IntArray | None = None,
        max_budget_Q: IntArray | None = None,
        weight_Q: FloatArray | None = None,
    ) -> Allocation:
        """Divides `total` by the mean curve."""
        problem = pose(
            curves, total=total, cost=cost, min_budget_Q=min_budget_Q, max_budget_Q=max_budget_Q, weight_Q=weight_Q
        )
        mean = _on_the_mean_curve(problem)
        known = replace(mean, costs=problem.costs)
        column_Q, price = solve(known) if _cost_the_same(problem) else _billed(problem, mean)
        return known.plan(column_Q, allocator=self.name, price=price, why_left=f"on the mean curve, {WHY_LEFT}")


def _on_the_mean_curve(problem: Problem) -> Problem:
    """The same problem, with every query's success and spend replaced by the batch's mean."""
    shape = problem.value_Q_B.shape
    p_Q_B = np.broadcast_to(_mean(problem.curves.p_Q_B), shape)
    weight_Q = problem.weight_Q
    return replace(
        problem,
        curves=replace(problem.curves, p_Q_B=p_Q_B),
        value_Q_B=p_Q_B if weight_Q is None else p_Q_B * weight_Q[:, None],
        costs=problem.costs.mean(),
    )


def _cost_the_same(problem: Problem) -> bool:
    """Whether every query is billed alike: then it is the envelope's own problem, on one curve for all."""
    tokens_Q_B = problem.curves.tokens_Q_B
    return problem.cost is Cost.GRANTED or tokens_Q_B is None or bool((tokens_Q_B == tokens_Q_B[0]).all())


def _mean(array_Q_B: FloatArray | IntArray) -> NDArray[np.float64]:
    """Mean over queries, exact sums: the order of the queries does not show in the last digit."""
    return np.array([exact_sum(column) / len(column) for column in array_Q_B.T])


def _billed(problem: Problem, mean: Problem) -> tuple[Columns, float]:
    """Grants in the order of the mean curve's prices, each segment billed at what it costs that very query.

    Which query is next does not depend on its own curves; only how far the order goes is checked against the bill.
    """
    envelope = upper_envelope(mean)
    # An envelope starts past the first column where that costs nothing on average; here it has to cost nothing at all.
    costs = problem.costs
    is_dearer_Q = costs.at_each(envelope.start_M) > costs.at_each(problem.first_Q)
    start_Q = np.where(is_dearer_Q, problem.first_Q, envelope.start_M)
    # A segment comes from the same query's previous one, or from its start.
    from_N = start_Q[envelope.row_N]
    follows_N = envelope.row_N[1:] == envelope.row_N[:-1]
    from_N[1:][follows_N] = envelope.column_N[:-1][follows_N]
    cost_N = costs.at(envelope.row_N, envelope.column_N) - costs.at(envelope.row_N, from_N)
    known = replace(mean, costs=costs)
    granted = grant(known, replace(envelope, start_M=start_Q, cost_N=cost_N))
    column_Q = spend_without_loss(known, granted.column_Q, granted.left)
    return column_Q, granted.price / problem.costs.unit
