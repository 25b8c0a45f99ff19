"""The `envelope` plan of more queries than fit in memory: the same plan, in five passes over parts of their curves."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..core.data import Cost, Curves, FloatArray
from ..core.menu import Menu
from ..errors import InvalidInputError, InvalidTotalError
from .checks import check_tokens, check_values
from .costs import CHUNK, Costs, entries, exact_sum, finest_unit
from .envelope import MOST_QUERIES, choose_again, least_loss, most_loss, raises, rise_freely, spend_without_loss
from .hull import SEED, Envelope, Fill, bracket_of, bracketed_envelope, grant, upper_envelope
from .order import part
from .problem import RELATIVE_ROUNDING, Problem, pose, refuse_total, tie_keys

SAMPLE = 1 << 17  # queries: the bracket of prices is then some 1% wide, and few segments lie in it
MOST_CANDIDATES = 1 << 21  # queries to which what is left may go where their curves see no difference
PARTS_AT_ONCE = 8  # between two reports of progress

Found = TypeVar("Found")
Write = Callable[["Part", NDArray[np.int64], FloatArray], None]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Consecutive queries of a batch.

    Attributes:
        start: position of the first of them in the batch.
        num_queries: of them.
        load: their curves; called in each pass, from any thread, with whether usage is needed beside the chances of a
            right answer. Ids need only be there when they are asked for.
    """

    start: int
    num_queries: int
    load: Callable[[bool], Curves]

    @property
    def rows(self) -> slice:
        """Indices of its queries in the batch."""
        return slice(self.start, self.start + self.num_queries)


@dataclass(frozen=True, slots=True, eq=False)
class Division:
    """What `divide_parts` answers; see `Allocation` for what the fields mean.

    Attributes:
        column_Q: the option of each query, in the smallest unsigned integers that hold it, shape (Q,).
        num_segments: of envelopes that were looked at, out of all queries'.
    """

    menu: Menu
    cost: Cost
    total: float
    column_Q: NDArray[Any]
    price: float
    granted: int
    expected_accuracy: float
    expected_spent: float | None
    expected_usd: float | None
    num_segments: int
    notes: tuple[str, ...]


def divide_parts(
    parts: Sequence[Part],
    *,
    total: float,
    cost: Cost = Cost.GRANTED,
    min_tokens: int | None = None,
    max_tokens: int | None = None,
    threads: int = 1,
    progress: Callable[[str, int, int], None] = lambda stage, done, number: None,
    write: Write = lambda part, column_Q, p_Q: None,
) -> Division:
    """Divides `total` among the queries of all parts as the allocator `envelope` does, part by part.

    One pass checks the curves and takes a sample, from which a bracket follows that holds the marginal price; one keeps
    the segments of all envelopes that are priced in it; one looks for the queries nearest the margin, and one for those
    that can have a longer cap at the same chance; the last adds up. In memory are a column a query, the few segments
    in the bracket, and a part for each thread. Where many queries have the very same curve, all their segments at the
    marginal price are in it. Ids are not compared with each other.

    Args:
        parts: all of the same menu.
        total: tokens for all queries together, or USD.
        cost: what the total is counted in.
        min_tokens: least tokens of every query; off the menu they round up.
        max_tokens: most tokens of every query; off the menu they round down.
        threads: parts that are worked on at the same time.
        progress: called with what is being done, queries done and queries in all.
        write: called in the last pass, in the order of the parts, with the column of each query and its chance there.

    Raises:
        InvalidInputError, InvalidMenuError, InvalidSettingsError, InvalidTotalError: see `allocate`.
    """
    if not math.isfinite(total):
        raise InvalidTotalError(f"the total is {total}; give a number of tokens, such as 48 for each query")
    batch = _Batch(parts, total, Cost(cost), min_tokens, max_tokens, max(1, threads), progress)
    batch.survey()
    filled, num_segments = batch.fill()
    notes: tuple[str, ...] = ()
    if filled.blocked and filled.left > 0:
        filled = batch.complete(filled)
    if filled.left > 0 or not batch.is_shared:
        notes = batch.spend(filled.left)
    return batch.added_up(filled, num_segments, notes, write)


@dataclass(slots=True, eq=False)
class _Surveyed:
    """What one pass tells of a part: sums and extremes in tokens or USD before rounding, and its sampled rows."""

    is_ordered: bool
    largest: float
    all_largest: float
    sample: Curves


class _Batch:
    def __init__(
        self,
        parts: Sequence[Part],
        total: float,
        cost: Cost,
        min_tokens: int | None,
        max_tokens: int | None,
        threads: int,
        progress: Callable[[str, int, int], None],
    ) -> None:
        self.parts = [each for each in parts if each.num_queries]
        if not self.parts:
            raise InvalidInputError("there are no queries to plan for; give at least one")
        self.total, self.cost, self.threads, self.progress = total, cost, threads, progress
        self.num_queries = sum(each.num_queries for each in self.parts)
        # One query of the same menu, posed as `allocate` poses it: refuses the bounds, and says which columns they are.
        self.is_usage_needed = cost is not Cost.GRANTED
        first = self.parts[0].load(True).select(slice(0, 1))
        least, most = (None if tokens is None else np.array([tokens]) for tokens in (min_tokens, max_tokens))
        one = replace(first, query_ids=("query",))
        posed = pose(one, total=float(2**62), cost=cost, min_budget_Q=least, max_budget_Q=most)
        self.menu, self.is_bounded = posed.menu, posed.is_bounded
        self.first, self.last = int(posed.first_Q[0]), int(posed.last_Q[0])
        self.unit, self.is_ordered = posed.costs.unit, posed.is_ordered
        self.is_shared = posed.costs.shared_B is not None
        kind = np.min_scalar_type(self.menu.num_options)
        self.column_Q: NDArray[Any] = np.zeros(self.num_queries, dtype=kind)
        self.sample: Curves | None = None

    def survey(self) -> None:
        """Checks all curves, fixes the unit and draws the sample."""
        random, size = np.random.default_rng(SEED), min(SAMPLE, self.num_queries)
        self.sampled_M = np.sort(random.integers(0, self.num_queries, size))
        found = list(self._over("look at the curves", self._survey))
        self.is_ordered = self.cost is Cost.GRANTED or (
            self.cost is Cost.SPENT and all(each.is_ordered for each in found)
        )
        if not self.is_shared:
            largest, all_largest = (
                max(each.largest for each in found),
                math.fsum(each.all_largest for each in found),
            )
            self.unit = finest_unit(np.array([largest]), all_largest)
        samples = [each.sample for each in found if len(each.sample.query_ids)]
        self.sample = Curves(
            ("",) * size,
            self.menu,
            *(_joined([getattr(each, name) for each in samples]) for name in ("p_Q_B", "tokens_Q_B", "input_Q_B")),
        )

    def _survey(self, each: Part, curves: Curves) -> _Surveyed:
        is_ordered = check_values(curves, self.menu.is_named)
        if self.cost is Cost.USD and curves.input_Q_B is not None:
            check_tokens(curves, "input_Q_B", curves.input_Q_B)
        low, high = np.searchsorted(self.sampled_M, (each.start, each.start + each.num_queries)).tolist()
        rows_M = self.sampled_M[low:high] - each.start
        sample = Curves(
            ("",) * rows_M.size,
            self.menu,
            curves.p_Q_B[rows_M],
            None if curves.tokens_Q_B is None else curves.tokens_Q_B[rows_M],
            None if curves.input_Q_B is None else curves.input_Q_B[rows_M],
        )
        if self.is_shared:
            return _Surveyed(True, 0.0, 0.0, sample)
        costs = replace(self._problem(curves).costs, unit=1.0)
        largest_Q = costs.largest(is_ordered=is_ordered and self.cost is Cost.SPENT)
        return _Surveyed(is_ordered, float(largest_Q.max()), exact_sum(largest_Q), sample)

    def fill(self) -> tuple[Fill, int]:
        """Segments by falling price as far as the total goes; refuses one that cannot pay for the minimums."""
        rounding = 0.0 if self.cost is Cost.GRANTED else RELATIVE_ROUNDING
        units = math.floor(min(self.total * (1 + rounding) / self.unit, 2.0**62))
        assert self.sample is not None
        sample = self._problem(self.sample)
        envelope = upper_envelope(sample)
        most_each = float(sample.costs.at_each(sample.ends()[1]).mean())
        start_M = sample.costs.at_each(envelope.start_M)
        bracket = bracket_of(envelope, start_M, min(units / self.num_queries, 2 * most_each))
        low, high = (0.0, np.inf) if bracket is None or self.num_queries <= SAMPLE else bracket
        self.sample = None
        while True:
            envelope, start, least, most = self._segments(low, high)
            if units < least:
                raise refuse_total(self.total, self.cost, self.num_queries, least * self.unit)
            filled = grant(envelope, min(units, most) - start, lambda row_N: self._tie_order(row_N))
            if filled.left >= 0 and (filled.price > 0.0 or low == 0.0):
                self.column_Q = filled.column_Q
                return filled, envelope.price_N.size
            # The sample missed the price: some times in a million batches.
            low, high = (low, np.inf) if filled.left < 0 else (0.0, high)

    def _segments(self, low: float, high: float) -> tuple[Envelope, int, int, int]:
        """The segments in a bracket, what the starts cost, and the least and most that all options cost, in units."""

        def found(each: Part, curves: Curves) -> tuple[Any, ...]:
            problem = self._problem(curves)
            is_bracket = math.isfinite(high)
            envelope = bracketed_envelope(problem, low, high) if is_bracket else upper_envelope(problem, low=low)
            self.column_Q[each.rows] = envelope.start_M
            sums = [int(problem.costs.at_each(column_Q).sum()) for column_Q in (envelope.start_M, *problem.ends())]
            row_N = (envelope.row_N + each.start).astype(np.uint32 if self.num_queries < 2**32 else np.int64)
            return sums, row_N, envelope.column_N.astype(self.column_Q.dtype), envelope.cost_N, envelope.price_N

        sums, *arrays = zip(*self._over("find the price", found), strict=True)
        row_N, column_N, cost_N, price_N = (np.concatenate(array) for array in arrays)
        start, least, most = (sum(each) for each in zip(*sums, strict=True))
        return Envelope(self.column_Q, row_N, column_N, cost_N, price_N), start, least, most

    def complete(self, filled: Fill) -> Fill:
        """Divides the tokens left by a blocked fill among the queries nearest the margin; see `envelope.complete`."""
        most = most_loss(filled)
        margin = [most]  # the greatest loss that can still be among the least; falls as the pass goes on
        best: tuple[NDArray[Any], ...] | None = None

        def found(each: Part, curves: Curves) -> tuple[NDArray[Any], ...] | None:
            problem = self._problem(curves)
            loss_Q = least_loss(problem, self.column_Q[each.rows].astype(np.int64), filled.price)
            near_N = np.flatnonzero(loss_Q <= margin[0])
            if near_N.size > MOST_QUERIES:
                near_N = near_N[loss_Q[near_N] <= np.partition(loss_Q[near_N], MOST_QUERIES)[MOST_QUERIES]]
            if not near_N.size:
                return None
            key_N = tie_keys(curves.query_ids[row] for row in near_N.tolist())
            order = np.lexsort((key_N, loss_Q[near_N]))[:MOST_QUERIES]
            near_N = near_N[order]
            arrays = [array[near_N] for array in _tables(curves)]
            return loss_Q[near_N], key_N[order], near_N + each.start, *arrays

        for one in self._over("look near the price", found):
            if one is None:
                continue
            joined = one if best is None else tuple(np.concatenate(pair) for pair in zip(best, one, strict=True))
            order = np.lexsort((joined[1], joined[0]))[:MOST_QUERIES]
            best = tuple(array[order] for array in joined)
            if best[0].size == MOST_QUERIES:
                margin[0] = float(best[0][-1])
        if best is None:
            return filled
        _, _, row_N, *arrays = best
        core = self._problem(self._curves(arrays, row_N.size))
        column_N = self.column_Q[row_N].astype(np.int64)
        column_N, left = choose_again(*part(core, np.arange(row_N.size)), column_N, filled)
        self.column_Q[row_N] = column_N
        return replace(filled, left=left)

    def spend(self, left: int) -> tuple[str, ...]:
        """Longer caps where the curves see no difference, while they fit; see `envelope.spend_without_loss`."""

        def found(each: Part, curves: Curves) -> tuple[NDArray[Any], ...]:
            problem = self._problem(curves)
            column_Q = self.column_Q[each.rows].astype(np.int64)
            if problem.is_ordered:
                row_N = rise_freely(problem, column_Q, left)
                self.column_Q[each.rows] = column_Q
            else:
                blocks = [np.arange(at, min(at + CHUNK, column_Q.size)) for at in range(0, column_Q.size, CHUNK)]
                row_N = np.concatenate([raises(problem, block, column_Q[block], left)[0] for block in blocks])
            # The ids settle ties.
            ids_N = np.array([curves.query_ids[row] for row in row_N.tolist()], dtype=object)
            return row_N + each.start, ids_N, *(array[row_N] for array in _tables(curves))

        kept: list[tuple[NDArray[Any], ...]] = []
        num_kept = num_passed = 0
        for one in self._over("spend what is left", found):
            fits = num_kept + one[0].size <= MOST_CANDIDATES
            num_kept, num_passed = num_kept + fits * one[0].size, num_passed + (not fits) * one[0].size
            kept += [one] if fits and one[0].size else []
        if kept and left > 0:
            row_N, ids_N, *arrays = (np.concatenate(array) for array in zip(*kept, strict=True))
            some = self._problem(self._curves(arrays, row_N.size, tuple(ids_N.tolist())))
            self.column_Q[row_N] = spend_without_loss(some, self.column_Q[row_N].astype(np.int64), left)
        if not num_passed or left <= 0:
            return ()
        return (
            f"{num_passed:,} queries could have a longer cap at the same chance of a right answer and were not looked "
            f"at: more than {MOST_CANDIDATES:,} can.",
        )

    def added_up(self, filled: Fill, num_segments: int, notes: tuple[str, ...], write: Write) -> Division:
        """Sums of what was chosen, which is written."""
        is_known = is_billable = False

        def found(each: Part, curves: Curves) -> tuple[FloatArray, tuple[float, float, float, int, int]]:
            nonlocal is_known, is_billable
            if curves.tokens_Q_B is not None and not self.is_usage_needed:
                check_tokens(curves, "tokens_Q_B", curves.tokens_Q_B)
            is_known, is_billable = curves.tokens_Q_B is not None, curves.is_billable
            column_Q = self.column_Q[each.rows].astype(np.int64)
            rows = np.arange(column_Q.size)
            spent = 0.0 if curves.tokens_Q_B is None else exact_sum(entries(curves.tokens_Q_B, rows, column_Q))
            bill = exact_sum(curves.usd_at(column_Q)) if curves.is_billable else 0.0
            units = int(self._problem(curves).costs.at_each(column_Q).sum())
            p_Q = entries(curves.p_Q_B, rows, column_Q)
            return p_Q, (exact_sum(p_Q), spent, bill, int(self.menu.at(column_Q).sum()), units)

        sums = []
        for each, (p_Q, one) in zip(self.parts, self._over("add up", found, whole=True), strict=True):
            write(each, self.column_Q[each.rows].astype(np.int64), p_Q)
            sums.append(one)
        right, spent, bill, granted, units = zip(*sums, strict=True)
        left = self.total - self.unit * sum(units)
        if left >= 1 and self.cost is not Cost.USD:
            notes = (f"{left:,.0f} of {self.total:,.10g} tokens are left over.", *notes)
        return Division(
            menu=self.menu,
            cost=self.cost,
            total=self.total,
            column_Q=self.column_Q,
            price=filled.price / self.unit,
            granted=sum(granted),
            expected_accuracy=min(max(math.fsum(right) / self.num_queries, 0.0), 1.0),
            expected_spent=math.fsum(spent) if is_known else None,
            expected_usd=math.fsum(bill) if is_billable else None,
            num_segments=num_segments,
            notes=notes,
        )

    def _problem(self, curves: Curves) -> Problem:
        """Some queries in the units of all."""
        num_queries = len(curves.query_ids)
        if self.is_shared:
            costs = Costs(num_queries, self.unit, self.menu.budgets_B // int(self.unit))
        else:
            prices = self.menu.price_2_B if self.cost is Cost.USD else None
            prompts = curves.input_Q_B if self.cost is Cost.USD else None
            costs = Costs(num_queries, self.unit, None, curves.tokens_Q_B, prompts, prices)
        first_Q, last_Q = (np.broadcast_to(np.int64(column), num_queries) for column in (self.first, self.last))
        return Problem(
            curves,
            self.cost,
            self.total,
            None,
            curves.p_Q_B,
            costs,
            0,
            first_Q,
            last_Q,
            self.is_bounded,
            is_ordered=self.is_ordered,
        )

    def _curves(self, arrays: Sequence[FloatArray], number: int, ids: tuple[str, ...] = ()) -> Curves:
        """Rows taken out of several parts by `_tables`."""
        return Curves(ids or ("",) * number, self.menu, *arrays)

    def _tie_order(self, row_N: NDArray[Any]) -> NDArray[np.int64]:
        """See `Problem.tie_order`: the ids are read where these queries stand."""
        key_N = np.empty(row_N.size, dtype=np.uint64)
        order = np.argsort(row_N, kind="stable")
        sorted_N = row_N[order]
        for each in self.parts:
            low, high = np.searchsorted(sorted_N, (each.start, each.start + each.num_queries)).tolist()
            if high > low:
                ids = each.load(False).query_ids
                key_N[order[low:high]] = tie_keys(ids[row] for row in (sorted_N[low:high] - each.start).tolist())
        return np.argsort(key_N, kind="stable")

    def _over(self, stage: str, work: Callable[[Part, Curves], Found], *, whole: bool = False) -> Iterator[Found]:
        """What `work` finds in each part, in order; not more parts are loaded than there are threads."""

        def done(each: Part) -> Found:
            return work(each, each.load(whole or self.is_usage_needed))

        with ThreadPoolExecutor(self.threads) as pool:
            for at in range(0, len(self.parts), PARTS_AT_ONCE):
                self.progress(stage, self.parts[at].start, self.num_queries)
                yield from pool.map(done, self.parts[at : at + PARTS_AT_ONCE])


def _tables(curves: Curves) -> list[FloatArray]:
    """The tables of some curves that are there, in the order of `Curves`."""
    return [array for array in (curves.p_Q_B, curves.tokens_Q_B, curves.input_Q_B) if array is not None]


def _joined(arrays: Sequence[Any]) -> Any:
    return None if arrays[0] is None else np.concatenate(arrays)
