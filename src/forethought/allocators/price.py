"""Prices of a token or a USD: the choice of each query at a price, the price for a mean, and its bound on plans."""

from __future__ import annotations

import sys

from ..core.data import Cost, Curves, FloatArray, IntArray
from ..errors import InvalidSettingsError
from .costs import exact_sum
from .hull import TOLERANCE, fill, upper_envelope
from .problem import Problem, pose


def budgets_at(curves: Curves, *, price: float, cost: Cost = Cost.GRANTED, any_order: bool | None = None) -> IntArray:
    """The budget of each query when a token costs `price`, shape (Q,): its envelope's segments that are worth more.

    Each query is decided by its own curve alone. The price is in right answers per token (a USD, under that cost), as
    `price_for` and `Solution.price` count it; at 0 every query gets the cheapest option at which its curve is highest.
    `any_order` is as in `allocate`.
    """
    problem = pose(curves, total=sys.float_info.max, cost=cost, any_order=any_order)
    envelope = upper_envelope(problem)
    return curves.menu.at(envelope.columns(envelope.price_N / problem.costs.unit > price))


def column_at(p_B: FloatArray, cost_B: FloatArray, price: float) -> int:
    """The column of one query by a curve that needs no check: what `budgets_at` chooses, but for rounding.

    Segments of the envelope that are worth more than the price lead to the option of the highest net value, and of
    those that tie to the cheapest: a segment worth exactly the price is not taken. It takes a tenth of the time.

    Args:
        p_B: chance of a right answer by each option, shape (B,).
        cost_B: what each costs, in the unit of the price, shape (B,), in any order.
        price: right answers that a unit must buy.
    """
    net_B = p_B - price * cost_B
    most = float(net_B.max())
    (near,) = (net_B >= most - TOLERANCE * (1.0 + abs(most))).nonzero()
    return int(near[cost_B[near].argmin()]) if near.size else 0


def price_for(
    curves: Curves,
    *,
    mean_tokens: float | None = None,
    mean_usd: float | None = None,
    cost: Cost = Cost.GRANTED,
    any_order: bool | None = None,
) -> float:
    """The lowest price, in right answers per token, at which these queries use at most `mean_tokens` each, on average.

    With `mean_usd` instead, in right answers a USD. Set it by predictions made without seeing these queries (out of
    fold): in-sample ones make it too high.

    Raises:
        InvalidTotalError: not even the smallest budgets fit.
        InvalidSettingsError: neither mean is given, or both.
    """
    if (mean_tokens is None) == (mean_usd is None):
        raise InvalidSettingsError("give either mean_tokens or mean_usd")
    cost, mean = (cost, mean_tokens) if mean_usd is None else (Cost.USD, mean_usd)
    assert mean is not None
    problem = pose(curves, total=mean * len(curves.query_ids), cost=cost, any_order=any_order)
    return fill(problem).price / problem.costs.unit


def lp_bound(problem: Problem) -> float:
    """An upper bound on the `expected_accuracy` of every plan of `problem`: that of its linear relaxation.

    The relaxation lets a query mix two options: whole segments by falling price, and of the first that does not fit
    the share that does (Sinha and Zoltners 1979). Under granted cost the total counts in whole units of the menu.
    """
    filled = fill(problem)
    return problem.accuracy(exact_sum(problem.value_at(filled.column_Q)) + filled.price * filled.left)
