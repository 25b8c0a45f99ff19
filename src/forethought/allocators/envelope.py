"""The default: grants segments of the queries' upper concave envelopes in order of price."""

from __future__ import annotations

from ..core.data import Allocation, Cost, Curves, FloatArray, IntArray
from .bounds import Columns
from .core import complete
from .grants import grants
from .leftover import spend_without_loss
from .problem import Problem, pose

WHY_LEFT = "they are too few for the next gain, or a longer budget is expected to hurt"


class EnvelopeAllocator:
    """Within one segment of the best possible plan, in time linear in the batch.

    Success curves are not concave: a query may gain nothing from its next window and much from the fifth. So each
    curve is replaced by its upper concave envelope, whose segments are jumps worth making; a segment's slope, success
    per token, is its price. Granting segments from the dearest down solves the linear relaxation of the problem
    (Dantzig 1957; Sinha and Zoltners, "The multiple-choice knapsack problem", 1979), and the last one that does not
    fit is all that is lost. What it leaves of the total goes through three stages, each of which keeps the promises:

    1. *Grants.* All segments in one line, by falling price, ties by a hash of the query's id; the longest beginning of
       the line that fits. Along each query prices fall strictly, so a beginning of the line is a beginning of each
       envelope.
    2. *Core* (`core.complete`). The few queries nearest the margin are chosen for anew, exactly, over all their
       budgets, with what is left.
    3. *Rest.* Budgets are raised where the curves see no difference, and never where they see a loss.

    A larger total never expects less. Let the first k segments of the line cost C(k) and be worth V(k). Totals between
    C(k) and C(k+1) have the same grants and the same core, and an exact solution of the same core with more to spend
    is worth no less. Across C(k+1): a plan that costs T < C(k+1) is worth at most the relaxation's V(k) + price x
    (T - C(k)), which is less than V(k+1), and stages 2 and 3 never lose value. (All up to rounding of the last digit.)

    `Allocation.price` is the price of the first segment that did not fit, in right answers per token; 0 when all did.
    """

    name = "envelope"

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
        """Divides `total` so that expected success is within one segment of the most there can be; see the class."""
        problem = pose(
            curves, total=total, cost=cost, min_budget_Q=min_budget_Q, max_budget_Q=max_budget_Q, weight_Q=weight_Q
        )
        column_Q, price = solve(problem)
        return problem.plan(column_Q, allocator=self.name, price=price, why_left=WHY_LEFT)


def solve(problem: Problem) -> tuple[Columns, float]:
    """Columns, shape (Q,), and the marginal price per token."""
    granted = grants(problem)
    if granted.blocked:
        granted = complete(problem, granted)
    return spend_without_loss(problem, granted.column_Q, granted.left), granted.price / problem.costs.unit
