"""The problem that an allocator solves, its solution, and `allocate`, which builds the problem and returns the plan."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ..core import registry
from ..core.allocation import Allocation
from ..core.arguments import is_number
from ..core.data import Cost, Curves, FloatArray, IntArray
from ..core.menu import Menu
from ..core.problems import excerpt
from ..core.terms import usd_words
from ..errors import InvalidInputError, InvalidMenuError, InvalidSettingsError, InvalidTotalError
from .checks import check_curves, check_tokens
from .costs import CHUNK, MOST_UNITS, Costs, Rows, entries, exact_sum

Columns = NDArray[np.int64]

# A spent total and the spend under it are sums of the same predictions, often added in another order: they are equal
# when they agree to one part in a trillion.
RELATIVE_ROUNDING = 1e-12
MOST_WEIGHT = 2.0**53  # as in files of questions: sums of larger ones could exceed any number
NOTHING = 1e-3  # of a total in USD: what is left of it and not worth a note


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """A multiple-choice knapsack: choose one column for each query, cost within `units`, value as large as can be.

    Attributes:
        curves, cost, total: as the caller gave them.
        weight_Q: what a right answer is worth, float64, or None when all are worth 1.
        value_Q_B: weighted chance of a right answer, shape (Q, B).
        costs: what each query pays at each column, in whole units.
        units: the total, in whole units.
        first_Q, last_Q: columns each query may have, inclusive.
        is_bounded: whether any query has less than the whole menu to choose from.
        is_ordered: whether no query's costs fall along the menu; where they may, `order.py` helps.
    """

    curves: Curves
    cost: Cost
    total: float
    weight_Q: NDArray[np.float64] | None
    value_Q_B: FloatArray
    costs: Costs
    units: int
    first_Q: Columns
    last_Q: Columns
    is_bounded: bool
    is_ordered: bool = True

    @property
    def num_queries(self) -> int:
        """Q."""
        return len(self.curves.query_ids)

    @property
    def menu(self) -> Menu:
        """The options to choose from; column b of the arrays is its b-th."""
        return self.curves.menu

    @property
    def cost_Q_B(self) -> NDArray[np.int64]:
        """Cost of every query at every column in units, shape (Q, B); made at each call."""
        return self.costs.rows(slice(None))

    def value_at(self, column_Q: IntArray) -> NDArray[np.float64]:
        """Weighted chance of success of each query at its column, shape (Q,)."""
        return entries(self.value_Q_B, np.arange(self.num_queries), column_Q).astype(np.float64)

    def left_after(self, column_Q: IntArray) -> int:
        """Units of the total not taken by `column_Q`; negative when it costs too much."""
        return self.units - int(self.costs.at_each(column_Q).sum())

    def outside(self, rows: Rows) -> NDArray[np.bool_]:
        """Which columns some queries may not have, shape (N, B)."""
        column_B = np.arange(self.menu.num_options)
        is_outside: NDArray[np.bool_] = column_B < self.first_Q[rows, None]
        is_outside |= column_B > self.last_Q[rows, None]
        return is_outside

    def ends(self) -> tuple[Columns, Columns]:
        """The cheapest and the most expensive column allowed for each query, shape (Q,) each."""
        if self.is_ordered:
            return self.first_Q, self.last_Q
        ends_2_Q = np.empty((2, self.num_queries), dtype=np.int64)
        for at in range(0, self.num_queries, CHUNK):
            chunk = slice(at, min(at + CHUNK, self.num_queries))
            cost_C_B, is_outside_C_B = self.costs.rows(chunk), self.outside(chunk) if self.is_bounded else False
            ends_2_Q[0, chunk] = np.where(is_outside_C_B, MOST_UNITS, cost_C_B).argmin(axis=1)
            ends_2_Q[1, chunk] = np.where(is_outside_C_B, -1, cost_C_B).argmax(axis=1)
        return ends_2_Q[0], ends_2_Q[1]

    def accuracy(self, value: float) -> float:
        """A sum of values as a weighted mean chance of success, in [0, 1]."""
        weight = float(self.num_queries) if self.weight_Q is None else exact_sum(self.weight_Q)
        return min(max(value / weight, 0.0), 1.0)

    def tie_order(self, query_N: IntArray) -> NDArray[np.int64]:
        """Positions that put the queries `query_N` in the order in which ties are settled: that of `tie_keys`."""
        ids = self.curves.query_ids
        return np.argsort(tie_keys(ids[row] for row in query_N.tolist()), kind="stable")

    def least_of(self, query_N: NDArray[np.int64], key_N: NDArray[Any], number: int) -> NDArray[np.int64]:
        """Positions of the `number` queries of the least keys, ties by `tie_order`; in no order."""
        if number >= key_N.size:
            return np.arange(key_N.size)
        margin = np.partition(key_N, number)[number]
        sure, tied = np.flatnonzero(key_N < margin), np.flatnonzero(key_N == margin)
        if sure.size < number:
            tied = tied[self.tie_order(query_N[tied])]
        return np.concatenate((sure, tied[: number - sure.size]))


def tie_keys(query_ids: Iterable[str]) -> NDArray[np.uint64]:
    """A hash of each id: among equal queries the one with the smallest hash comes first."""
    empty, digests = hashlib.blake2b(digest_size=8).copy, []  # a copy is quicker than a new one
    for query_id in query_ids:
        state = empty()
        state.update(query_id.encode())
        digests.append(state.digest())
    return np.frombuffer(b"".join(digests), dtype="<u8")


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """What an allocator answers.

    Attributes:
        column_Q: the option of each query, within its bounds and together within the total, int, shape (Q,).
        price: right answers that a token, or a USD, buys at the margin; None where the allocator has no price.
        why_left: ends the note on tokens that are left over, where no plainer reason holds.
        notes: what else the user should know, in sentences.
        expected_accuracy: what it expects, where that is not what the problem's curves say.
    """

    column_Q: IntArray
    price: float | None = None
    why_left: str = "the allocator found no use for them"
    notes: tuple[str, ...] = ()
    expected_accuracy: float | None = None


@runtime_checkable
class Allocator(Protocol):
    """Curves + a total -> one option per query. `allocate` does what is around it."""

    def solve(self, problem: Problem) -> Solution:
        """One column per query between `first_Q` and `last_Q`, of `cost_Q_B` within `units` in all.

        Deterministic; the order of the queries does not matter (ties go by `problem.tie_order`); a larger total never
        expects less. The cheapest columns, `problem.ends()[0]`, always fit: `first_Q`, unless `is_ordered` is False.
        """
        ...


def allocate(
    allocator: str | Allocator,
    curves: Curves,
    *,
    total: float,
    cost: Cost = Cost.GRANTED,
    min_budget_Q: IntArray | None = None,
    max_budget_Q: IntArray | None = None,
    weight_Q: FloatArray | None = None,
    any_order: bool | None = None,
) -> Allocation:
    """Divides `total` tokens or USD, counted by `cost`, among the queries of `curves`.

    Args:
        allocator: a registered name, or an allocator.
        curves: predicted or measured, on any menu.
        total: tokens for all queries together, or USD.
        cost: what the total is counted in.
        min_budget_Q: least tokens of each query, shape (Q,); off the menu they round up.
        max_budget_Q: most tokens of each query, shape (Q,); off the menu they round down.
        weight_Q: what a right answer to each query is worth, shape (Q,); 1 each without.
        any_order: a query's expected usage may fall along the menu: so it is for named options (a dear model with short
            thoughts beside a cheap one with long); of caps a fall is a predictor's error. None: as the menu is.

    Raises:
        InvalidInputError, InvalidMenuError, InvalidSettingsError, InvalidTotalError: see `pose`; also where the
            allocator's solution is not one column per query, breaks a bound, or costs more than the total.
    """
    bounds = {"min_budget_Q": min_budget_Q, "max_budget_Q": max_budget_Q}
    problem = pose(curves, total=total, cost=cost, **bounds, weight_Q=weight_Q, any_order=any_order)
    chosen: Allocator = registry.resolve("allocators", allocator)() if isinstance(allocator, str) else allocator
    if not isinstance(chosen, Allocator) or isinstance(chosen, type):
        raise InvalidInputError(f"the allocator must be a registered name or an Allocator, not {excerpt(allocator)}")
    name = registry.name_of("allocators", allocator)
    solution = chosen.solve(problem)
    if not isinstance(solution, Solution):
        raise InvalidInputError(f"allocator {name!r} answered {type(solution).__name__}, not a Solution")
    column_Q, accuracy = np.asarray(solution.column_Q), solution.expected_accuracy
    left = _left_by(problem, column_Q, name)
    chosen_at, spent, bill = np.arange(problem.num_queries), None, None
    if curves.tokens_Q_B is not None:
        spent = exact_sum(entries(curves.tokens_Q_B, chosen_at, column_Q))
        spent = total if problem.cost is Cost.SPENT and _is_just_above(spent, total) else spent
        if curves.is_billable and np.isfinite(bill_Q := curves.usd_at(column_Q)).all():
            bill = exact_sum(bill_Q)
            bill = total if problem.cost is Cost.USD and _is_just_above(bill, total) else bill
    budget_Q = problem.menu.at(column_Q)
    return Allocation(
        query_ids=curves.query_ids,
        menu=problem.menu,
        budget_Q=budget_Q,
        allocator=name,
        cost=problem.cost,
        total=total,
        granted=int(budget_Q.sum()),
        expected_spent=spent,
        expected_accuracy=problem.accuracy(exact_sum(problem.value_at(column_Q))) if accuracy is None else accuracy,
        price=solution.price,
        notes=(*_leftover_note(problem, column_Q, left, solution.why_left), *solution.notes),
        expected_usd=bill,
    )


def _is_just_above(sum_: float, total: float) -> bool:
    """By rounding alone: the allocator kept to the total in its own units."""
    return total < sum_ <= total * (1 + 2 * RELATIVE_ROUNDING)


def _left_by(problem: Problem, column_Q: IntArray, name: str) -> int:
    """Units of the total that an allocator left over; refuses columns that are no solution."""
    if column_Q.shape != (problem.num_queries,) or column_Q.dtype.kind not in "iu":
        raise InvalidInputError(
            f"allocator {name!r} answered columns of shape {column_Q.shape} and type {column_Q.dtype}; "
            f"{problem.num_queries} queries need one whole number each"
        )
    if (wrong := np.flatnonzero((column_Q < problem.first_Q) | (column_Q > problem.last_Q))).size:
        row = int(wrong[0])
        raise InvalidMenuError(
            f"allocator {name!r} gave query {problem.curves.query_ids[row]!r} column {column_Q[row]}; it may have "
            f"{problem.first_Q[row]} to {problem.last_Q[row]}"
        )
    left = problem.left_after(column_Q)
    if left < 0:
        unit = "USD" if problem.cost is Cost.USD else "tokens"
        raise InvalidTotalError(f"allocator {name!r} spent {-left * problem.costs.unit:,.10g} {unit} past the total")
    return left


def _leftover_note(problem: Problem, column_Q: IntArray, left: int, why_left: str) -> tuple[str, ...]:
    costs = problem.costs
    tokens, is_usd = problem.total - costs.unit * float(problem.units - left), problem.cost is Cost.USD
    if tokens < (NOTHING * problem.total if is_usd else 1):
        return ()
    if not problem.is_ordered:
        if (costs.at_each(column_Q) == costs.at_each(problem.ends()[1])).all():
            why_left = "every query has its most expensive option"
        if is_usd:
            words = why_left.replace("a longer budget", "a more expensive option")
            return (f"{usd_words(tokens)} of {usd_words(problem.total)} are left over: {words}.",)
        return (f"{tokens:,.0f} of {problem.total:,.10g} tokens are left over: {why_left}.",)
    open_N = np.flatnonzero(column_Q < problem.last_Q)
    if not open_N.size:
        why_left = "every query has its largest budget"
    elif problem.cost is Cost.GRANTED:
        step = costs.unit * int(costs.next_step(open_N, column_Q[open_N]).min())
        if tokens < step:
            why_left = f"the next larger budget of any query takes at least {step:,.10g} more"
    return (f"{tokens:,.0f} of {problem.total:,.10g} tokens are left over: {why_left}.",)


def pose(
    curves: Curves,
    *,
    total: float,
    cost: Cost = Cost.GRANTED,
    min_budget_Q: IntArray | None = None,
    max_budget_Q: IntArray | None = None,
    weight_Q: FloatArray | None = None,
    any_order: bool | None = None,
) -> Problem:
    """Checks everything an allocator is given, and puts it into one form; arguments as in `allocate`.

    Raises:
        InvalidInputError: curves, weights or bounds of a wrong shape, NaN, p outside [0, 1], falling token counts
            (without `any_order`), an id used twice; the message names the query.
        InvalidMenuError: bounds that leave a query no budget.
        InvalidSettingsError: spent cost without a usage curve.
        InvalidTotalError: a total that is not a number, or cannot pay for the minimums.
    """
    if cost not in tuple(Cost):
        raise InvalidSettingsError(f"cost must be 'granted', 'spent' or 'usd', not {excerpt(cost)}")
    if not isinstance(curves, Curves):
        raise InvalidInputError(f"the curves must be Curves, not {excerpt(curves)}; a profile's are profile.curves")
    cost = Cost(cost)
    is_ordered = check_curves(curves, curves.menu.is_named if any_order is None else any_order)
    if cost is Cost.USD and curves.input_Q_B is not None:
        check_tokens(curves, "input_Q_B", curves.input_Q_B)
    is_ordered = cost is Cost.GRANTED or (is_ordered and cost is Cost.SPENT)  # a bill may fall where tokens do not
    weights_Q = None if weight_Q is None else _per_query(curves, weight_Q, "weight_Q", least=0.0, most=MOST_WEIGHT)
    if weights_Q is not None and not weights_Q.any():
        raise InvalidInputError("every weight is 0, so no answer is worth anything; give some query a weight")
    first_Q, last_Q = _column_ranges(curves, min_budget_Q, max_budget_Q)
    if not is_number(total) or not math.isfinite(total):
        example = "an amount, such as 0.01 USD" if cost is Cost.USD else "a number of tokens, such as 48"
        raise InvalidTotalError(f"the total is {excerpt(total)}; give {example} for each query")
    costs = Costs.of(curves, cost, is_ordered=is_ordered)
    num_queries, unit = len(curves.query_ids), costs.unit
    value_Q_B = curves.p_Q_B if weights_Q is None else curves.p_Q_B * weights_Q[:, None]
    is_bounded = bool(first_Q.any() or (last_Q < curves.menu.num_options - 1).any())
    problem = Problem(
        curves, cost, total, weights_Q, value_Q_B, costs, 0, first_Q, last_Q, is_bounded, is_ordered=is_ordered
    )
    least, most = (int(costs.at_each(end_Q).sum()) for end_Q in problem.ends())
    rounding = 0.0 if cost is Cost.GRANTED else RELATIVE_ROUNDING
    units = math.floor(min(total * (1 + rounding) / unit, 2.0**62))  # past every sum of costs; compared as integers
    if units < least:
        raise refuse_total(total, cost, num_queries, least * unit)
    return replace(problem, units=min(units, most))


def refuse_total(total: float, cost: Cost, num_queries: int, least: float) -> InvalidTotalError:
    """The refusal of a total below `least`, what the minimums cost; rounded up, so that the number it names works."""
    counted, enough = f"tokens ({cost} cost)", float(math.ceil(least))
    if cost is Cost.USD:
        counted, enough = "USD", math.ceil(least * 1e6) / 1e6
    refusal = InvalidTotalError(
        f"a total of {total:,.10g} {counted} cannot pay for the minimums of {num_queries} queries, "
        f"which cost {least:,.10g}. Give at least {enough:.10g}, or fewer queries."
    )
    refusal.least = enough
    return refusal


def _column_ranges(curves: Curves, min_budget_Q: Any, max_budget_Q: Any) -> tuple[Columns, Columns]:
    """First and last column each query may have, both inclusive, shape (Q,) each."""
    menu, num_queries = curves.menu, len(curves.query_ids)
    first_Q = np.zeros(num_queries, dtype=np.int64)
    last_Q = np.full(num_queries, menu.num_options - 1, dtype=np.int64)
    if min_budget_Q is not None:
        first_Q = menu.first_at_least(_per_query(curves, min_budget_Q, "min_budget_Q"))
    if max_budget_Q is not None:
        last_Q = menu.last_at_most(_per_query(curves, max_budget_Q, "max_budget_Q"))
    if (impossible := np.flatnonzero(first_Q > last_Q)).size:
        row = int(impossible[0])
        least = menu.smallest if min_budget_Q is None else int(min_budget_Q[row])
        most = menu.largest if max_budget_Q is None else int(max_budget_Q[row])
        raise InvalidMenuError(
            f"query {curves.query_ids[row]!r} has no budget to choose from: at least {least} and at most {most} tokens "
            f"leave nothing of {menu} ({impossible.size} such in this batch). Lower --min-tokens or its own "
            "min_budget, or raise --max-tokens or its own max_budget."
        )
    return first_Q, last_Q


def _per_query(
    curves: Curves, given_Q: Any, name: str, *, least: float = -math.inf, most: float = math.inf
) -> NDArray[np.float64]:
    try:
        values_Q: NDArray[np.float64] = np.asarray(given_Q, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInputError(f"{name} must hold numbers, not {excerpt(given_Q)}") from error
    num_queries = len(curves.query_ids)
    if values_Q.shape != (num_queries,):
        raise InvalidInputError(f"{name} has shape {values_Q.shape}; {num_queries} queries need one entry each")
    if (wrong := np.flatnonzero(~(np.isfinite(values_Q) & (values_Q >= least) & (values_Q <= most)))).size:
        row = int(wrong[0])
        rule = "give a number" if math.isinf(least) else f"it must be from {least:g} to {most:g}"
        raise InvalidInputError(f"{name} of query {curves.query_ids[row]!r} is {values_Q[row]}; {rule}")
    return values_Q
