"""One price of a token for queries that come one by one: what it buys each of them, and which price meets a mean."""

from __future__ import annotations

from ..core.data import Cost, Curves, IntArray
from .grants import grants
from .hull import upper_envelope
from .problem import Problem, pose
from .sums import exact_sum


def budgets_at(curves: Curves, *, price: float, cost: Cost = Cost.GRANTED) -> IntArray:
    """The budget of each query when a token costs `price`, shape (Q,): its envelope's segments that are worth more.

    Each query is decided by its own curve alone: a stream of single queries under one price gets the budgets that the
    envelope's grants give all of them together (`EnvelopeAllocator`, stage 1). What a batch does beside that, spending
    the rest of its total, needs a total and has no place here.

    Args:
        curves: predictions.
        price: success a token must buy, in right answers a token, as `price_for` counts it; at 0 every query
            gets the shortest budget at which its curve is highest.
        cost: what a token is counted in.
    """
    problem = _unbounded(curves, cost)
    envelope = upper_envelope(problem)
    is_granted_N = envelope.price_N / problem.costs.unit > price
    column_Q = envelope.start_M.copy()
    # Segments lie in order of column within each query, and of repeated assignments the last one stands.
    column_Q[envelope.row_N[is_granted_N]] = envelope.column_N[is_granted_N]
    return curves.menu.at(column_Q)


def price_for(curves: Curves, *, mean_tokens: float, cost: Cost = Cost.GRANTED) -> float:
    """The lowest price, in right answers a token, at which these queries use at most `mean_tokens` each, on average.

    Set it on queries like those to come, by predictions made without seeing them (out of fold): in-sample predictions
    are too sure of themselves and make it too high.

    Raises:
        InvalidTotalError: not even the smallest budgets fit.
    """
    problem = pose(curves, total=mean_tokens * len(curves.query_ids), cost=cost)
    return grants(problem).price / problem.costs.unit


def _unbounded(curves: Curves, cost: Cost) -> Problem:
    """The problem with a total that every budget fits in."""
    most = float(curves.menu.largest) * len(curves.query_ids)
    if cost is Cost.SPENT and curves.tokens_Q_B is not None:
        most = 2.0 * exact_sum(curves.tokens_Q_B[:, -1])
    return pose(curves, total=most, cost=cost)
