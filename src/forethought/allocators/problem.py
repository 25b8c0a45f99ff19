"""What an allocator solves: checked curves, costs in whole units, column ranges; and the plan made from a solution.

Costs are whole numbers of a unit, so that sums of a million of them are exact and do not depend on the order of the
queries (under spent cost, far under a billionth of a token for batches of ordinary size).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..core.data import Allocation, Cost, Curves, FloatArray, IntArray
from ..core.menu import Menu
from ..errors import InvalidInputError, InvalidTotalError
from .bounds import Columns, column_ranges
from .costs import Costs, entries
from .sums import exact_sum

# A spent total and the spend under it are sums of the same predictions, often added in another order: they are equal
# when they agree to one part in a trillion.
RELATIVE_ROUNDING = 1e-12
CHUNK = 4096  # queries at once, so that what is read is still in a core's cache when it is read again


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """A multiple-choice knapsack: choose one column for each query, cost within the total, value as large as can be.

    Attributes:
        curves, cost, total: as the caller gave them.
        weight_Q: what a right answer is worth, float64, or None when all are worth 1.
        value_Q_B: weighted chance of a right answer, shape (Q, B).
        costs: what each query pays at each column, in whole units.
        units: the total, in whole units.
        first_Q, last_Q: columns each query may have, inclusive.
        is_bounded: whether any query has less than the whole grid to choose from.
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

    @property
    def num_queries(self) -> int:
        """How many budgets there are to choose."""
        return len(self.curves.query_ids)

    @property
    def menu(self) -> Menu:
        """The budgets to choose from; column b of the arrays is its b-th."""
        return self.curves.menu

    def value_at(self, column_Q: IntArray) -> NDArray[np.float64]:
        """Weighted chance of success of each query at its column, shape (Q,)."""
        return entries(self.value_Q_B, np.arange(self.num_queries), column_Q).astype(np.float64)

    def left_after(self, column_Q: IntArray) -> int:
        """Units of the total not taken by `column_Q`; negative when it costs too much."""
        return self.units - int(self.costs.at_each(column_Q).sum())

    def tie_order(self, query_N: IntArray) -> NDArray[np.int64]:
        """Positions that put the queries `query_N` in the order in which ties are settled: by a hash of their ids.

        The order of the file must not matter, and neither should the alphabet: where two queries gain the same, the
        hash favours nobody in particular and is the same on every machine.
        """
        ids, empty = self.curves.query_ids, hashlib.blake2b(digest_size=8).copy  # a copy is quicker than a new one
        digests = []
        for row in query_N.tolist():
            state = empty()
            state.update(ids[row].encode())
            digests.append(state.digest())
        return np.argsort(np.frombuffer(b"".join(digests), dtype="<u8"), kind="stable")

    def plan(self, column_Q: IntArray, *, allocator: str, why_left: str, price: float | None = None) -> Allocation:
        """The plan that gives each query the budget in its column, with what it expects on the curves.

        `why_left` ends the note on tokens left over, where no plainer reason holds.
        """
        budget_Q = self.menu.at(column_Q)
        spent = None
        if self.curves.tokens_Q_B is not None:
            spent = exact_sum(entries(self.curves.tokens_Q_B, np.arange(self.num_queries), column_Q))
            if self.cost is Cost.SPENT and self.total < spent <= self.total * (1 + 2 * RELATIVE_ROUNDING):
                spent = self.total
        return Allocation(
            query_ids=self.curves.query_ids,
            menu=self.menu,
            budget_Q=budget_Q,
            allocator=allocator,
            cost=self.cost,
            total=self.total,
            granted=int(budget_Q.sum()),
            expected_spent=spent,
            expected_accuracy=self.accuracy(exact_sum(self.value_at(column_Q))),
            price=price,
            notes=self._leftover_note(column_Q, why_left),
        )

    def accuracy(self, value: float) -> float:
        """A sum of weighted successes as a weighted mean, in [0, 1]."""
        weight = float(self.num_queries) if self.weight_Q is None else exact_sum(self.weight_Q)
        return min(max(value / weight, 0.0), 1.0)

    def _leftover_note(self, column_Q: IntArray, why_left: str) -> tuple[str, ...]:
        left = self.total - self.costs.unit * float(int(self.costs.at_each(column_Q).sum()))
        if left < 1:
            return ()
        if bool((column_Q == self.last_Q).all()):
            why_left = "every query has its largest budget"
        elif self.cost is Cost.GRANTED and left < self.menu.smallest:
            why_left = f"they are less than one window of {self.menu.smallest}"
        return (f"{left:,.0f} of {self.total:,.10g} tokens are left over: {why_left}.",)


def pose(
    curves: Curves,
    *,
    total: float,
    cost: Cost = Cost.GRANTED,
    min_budget_Q: IntArray | None = None,
    max_budget_Q: IntArray | None = None,
    weight_Q: FloatArray | None = None,
) -> Problem:
    """Checks everything an allocator is given, and puts it into one form.

    Raises:
        InvalidInputError: curves, weights or bounds of a wrong shape, NaN, p outside [0, 1], falling token counts,
            an id used twice; the message names the query.
        InvalidMenuError: bounds that leave a query no budget.
        InvalidSettingsError: spent cost without a spend curve.
        InvalidTotalError: a total that is not a number, or cannot pay for the minimums.
    """
    cost = Cost(cost)
    _check_curves(curves)
    weights_Q = _checked_weights(curves.query_ids, weight_Q)
    first_Q, last_Q = column_ranges(curves.query_ids, curves.menu, min_budget_Q, max_budget_Q)
    if math.isnan(total) or math.isinf(total):
        raise InvalidTotalError(f"the total is {total}; give a number of tokens, such as 48 for each query")
    costs = Costs.of(curves, cost)
    num_queries, unit = len(curves.query_ids), costs.unit
    least, most = int(costs.at_each(first_Q).sum()), int(costs.at_each(last_Q).sum())
    rounding = RELATIVE_ROUNDING if cost is Cost.SPENT else 0.0
    units = math.floor(min(total * (1 + rounding) / unit, 2.0**62))  # past every sum of costs; compared as integers
    if units < least:
        # Rounded up to a whole token, so that the number in the message is one that works.
        refusal = InvalidTotalError(
            f"a total of {total:,.10g} tokens ({cost} cost) cannot pay for the minimums of {num_queries} queries, "
            f"which cost {least * unit:,.10g}. Give at least {math.ceil(least * unit)}, or fewer queries."
        )
        refusal.least = math.ceil(least * unit)
        raise refusal
    value_Q_B = curves.p_Q_B if weights_Q is None else curves.p_Q_B * weights_Q[:, None]
    is_bounded = bool(first_Q.any() or (last_Q < curves.menu.num_options - 1).any())
    return Problem(curves, cost, total, weights_Q, value_Q_B, costs, min(units, most), first_Q, last_Q, is_bounded)


def _are_unique(ids: tuple[str, ...]) -> bool:
    """Whether no id occurs twice. Different hashes prove it for nearly all batches, without a set of all ids."""
    hash_Q = np.fromiter(map(hash, ids), dtype=np.int64, count=len(ids))
    hash_Q.sort()
    return not (hash_Q[1:] == hash_Q[:-1]).any() or len(set(ids)) == len(ids)


def _check_curves(curves: Curves) -> None:
    ids, shape = curves.query_ids, (len(curves.query_ids), curves.menu.num_options)
    if not ids:
        raise InvalidInputError("there are no queries to plan for; give at least one")
    if not _are_unique(ids):
        seen: set[str] = set()
        twice = next(query_id for query_id in ids if query_id in seen or seen.add(query_id))  # type: ignore[func-returns-value]
        raise InvalidInputError(f"the id {twice!r} is used by more than one query; ids must be unique within a batch")
    for name, array in (("p_Q_B", curves.p_Q_B), ("tokens_Q_B", curves.tokens_Q_B)):
        if array is not None and array.shape != shape:
            raise InvalidInputError(
                f"{name} has shape {array.shape}; {shape[0]} queries on the menu {curves.menu} need {shape}"
            )
    p_Q_B, tokens_Q_B = curves.p_Q_B, curves.tokens_Q_B
    if not all(_lies_within(p_C_B, 0.0, 1.0) for p_C_B in _chunks(p_Q_B)):
        _refuse(curves, p_Q_B, ~((p_Q_B >= 0) & (p_Q_B <= 1)), "a chance of success must lie in [0, 1]")
    if tokens_Q_B is None:
        return
    most = float(np.finfo(np.float64).max)
    if not all(_lies_within(tokens_C_B, 0.0, most) for tokens_C_B in _chunks(tokens_Q_B)):
        _refuse(curves, tokens_Q_B, ~((tokens_Q_B >= 0) & (tokens_Q_B < math.inf)), "tokens must be 0 or more")
    if any(_falls(tokens_C_B) for tokens_C_B in _chunks(tokens_Q_B)):
        wrong_Q_B = np.pad(tokens_Q_B[:, 1:] < tokens_Q_B[:, :-1], ((0, 0), (1, 0)))
        advice = "expected tokens must not fall as the cap grows; take np.maximum.accumulate(tokens_Q_B, axis=1)"
        _refuse(curves, tokens_Q_B, wrong_Q_B, advice)


def _chunks(array_Q_B: FloatArray) -> Iterator[FloatArray]:
    return (array_Q_B[at : at + CHUNK] for at in range(0, len(array_Q_B), CHUNK))


def _falls(array_C_B: FloatArray) -> bool:
    """Whether any row falls anywhere."""
    array_A = np.ascontiguousarray(array_C_B).reshape(-1)
    falls_A = np.zeros(array_A.size, dtype=np.bool_)
    np.less(array_A[1:], array_A[:-1], out=falls_A[:-1])
    falls_A[array_C_B.shape[1] - 1 :: array_C_B.shape[1]] = False  # from one row to the next
    return bool(falls_A.any())


def _lies_within(array_C_B: FloatArray, least: float, most: float) -> bool:
    """Whether every entry does, by the extremes: no temporaries, and NaN fails both comparisons."""
    return least <= float(array_C_B.min()) and float(array_C_B.max()) <= most


def _refuse(curves: Curves, array_Q_B: FloatArray, wrong_Q_B: NDArray[np.bool_], rule: str) -> None:
    row, column = (int(index) for index in np.argwhere(wrong_Q_B)[0])
    raise InvalidInputError(
        f"the curve of query {curves.query_ids[row]!r} is {array_Q_B[row, column]} at budget "
        f"{curves.menu.budgets_B[column]}: {rule} ({int(wrong_Q_B.any(axis=1).sum())} such queries)"
    )


def _checked_weights(query_ids: tuple[str, ...], weight_Q: FloatArray | None) -> NDArray[np.float64] | None:
    if weight_Q is None:
        return None
    weights_Q: NDArray[np.float64] = np.asarray(weight_Q, dtype=np.float64)
    if weights_Q.shape != (len(query_ids),):
        raise InvalidInputError(f"weight_Q has shape {weights_Q.shape}; {len(query_ids)} queries need one entry each")
    wrong = np.flatnonzero(~((weights_Q >= 0) & (weights_Q < math.inf)))
    if wrong.size:
        row = int(wrong[0])
        raise InvalidInputError(f"the weight of query {query_ids[row]!r} is {weights_Q[row]}; it must be 0 or more")
    if not weights_Q.any():
        raise InvalidInputError("every weight is 0, so no answer is worth anything; give at least one query a weight")
    return weights_Q
