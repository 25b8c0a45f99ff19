"""The most any plan can expect: the value of the linear relaxation, where a query may have a mixture of two budgets."""

from __future__ import annotations

from ..core.data import Cost, Curves, FloatArray, IntArray
from .grants import grants
from .problem import pose
from .sums import exact_sum


def lp_bound(
    curves: Curves,
    *,
    total: float,
    cost: Cost = Cost.GRANTED,
    min_budget_Q: IntArray | None = None,
    max_budget_Q: IntArray | None = None,
    weight_Q: FloatArray | None = None,
) -> float:
    """An upper bound on the `expected_accuracy` of every plan within `total`; arguments as in `Allocator.allocate`.

    The relaxation is solved by its envelopes: whole segments by falling price, and of the first that does not fit
    the share that does (Sinha and Zoltners 1979). Under granted cost the total counts in whole windows.
    """
    problem = pose(
        curves, total=total, cost=cost, min_budget_Q=min_budget_Q, max_budget_Q=max_budget_Q, weight_Q=weight_Q
    )
    granted = grants(problem)
    value = exact_sum(problem.value_at(granted.column_Q)) + granted.price * granted.left
    return problem.accuracy(value)
