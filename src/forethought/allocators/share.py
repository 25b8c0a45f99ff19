"""The parts of a batch that one process works on: what it keeps of them from pass to pass, and what it answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, replace
from functools import partial, reduce
from operator import add
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..core.data import Cost, Curves, FloatArray
from .batch import Batch, Part, joined, without_ids
from .checks import check_tokens, check_values
from .costs import CHUNK, entries, exact_sum
from .envelope import MOST_QUERIES, least_loss, raises, rise_freely
from .hull import SEED, Envelope, bracketed_envelope, upper_envelope
from .margin import Histogram, Interval, Keys, Margin, Segments, price_key
from .problem import Columns, Problem, tie_keys

SAMPLE = 1 << 17  # queries of the whole batch
PARTS_AT_ONCE = 8  # between two reports of progress

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True, eq=False)
class Surveyed:
    """What is known of a part: whether costs rise, sums and extremes in tokens or USD, and its rows of the sample."""

    is_ordered: bool
    largest: float
    all_largest: float
    sample: Curves


@dataclass(frozen=True, slots=True, eq=False)
class Climbed:
    """The segments of a part in a bracket of prices: how many, and in units what they, the starts and the ends cost."""

    number: int
    cost: int
    start: int
    least: int
    most: int

    def __add__(self, other: Climbed) -> Climbed:
        return Climbed(*map(add, astuple(self), astuple(other)))


@dataclass(frozen=True, slots=True, eq=False)
class Near:
    """Queries near the margin: net value that their best other column loses, tie keys, rows, columns, and curves."""

    loss_N: NDArray[np.float64]
    tie_N: Keys
    row_N: NDArray[np.int64]
    column_N: Columns
    curves: Curves

    def least(self) -> Near:
        """Those of them that lose least, as many as a core may have, least first."""
        order = np.lexsort((self.row_N, self.tie_N, self.loss_N))[:MOST_QUERIES]
        return Near(
            self.loss_N[order], self.tie_N[order], self.row_N[order], self.column_N[order], self.curves.select(order)
        )

    @classmethod
    def of(cls, parts: Sequence[Near]) -> Near:
        """Those of several places that lose least."""
        numbers = [(each.loss_N, each.tie_N, each.row_N, each.column_N) for each in parts]
        loss_N, tie_N, row_N, column_N = map(np.concatenate, zip(*numbers, strict=True))
        return cls(loss_N, tie_N, row_N, column_N, joined([each.curves for each in parts])).least()


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Queries that can have a longer budget at the same chance: rows, columns, and curves with ids."""

    row_N: NDArray[np.int64]
    column_N: Columns
    curves: Curves


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """What a part's queries got: sums over them of chances, tokens, USD, caps and units, and queries of each option."""

    right: float
    spent: float
    usd: float
    granted: int
    units: int
    number_B: NDArray[np.int64]


@dataclass(slots=True, eq=False)
class _Kept:
    """Of a part, between passes: the column of each query, in the smallest integers; segments; rows that can rise."""

    column_Q: NDArray[Any]
    envelope: Envelope | None = None
    rise_N: NDArray[np.int64] | None = None


class Share:
    """Some of a batch's parts. Its methods are passes over them: each may use what the ones before it kept.

    What is kept follows from the parts and the passes alone: another process that makes the same passes has the same.

    Args:
        parts: in the order of their starts.
        num_queries: of the whole batch.
        threads: parts that are worked on at the same time.
        progress: called with what is being done, queries done and queries in all.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        num_queries: int,
        *,
        threads: int = 1,
        progress: Callable[[str, int, int], None] = lambda stage, done, number: None,
    ) -> None:
        self.parts, self.num_queries, self.threads = parts, num_queries, threads
        self.progress = progress
        self._kept: dict[int, _Kept] = {}
        self._ties: tuple[float, dict[int, Keys]] = 0.0, {}

    def head(self) -> Curves:
        """The first query's curves."""
        curves = self.parts[0].load(True).select(slice(0, 1))
        return replace(curves, query_ids=("query",))

    def survey(self, batch: Batch) -> list[Surveyed]:
        """Checks the curves, and draws these parts' rows of a sample of the whole batch."""
        random, size = np.random.default_rng(SEED), min(SAMPLE, self.num_queries)
        sampled_M = np.sort(random.integers(0, self.num_queries, size))

        def found(each: Part, curves: Curves) -> Surveyed:
            is_ordered = check_values(curves, batch.menu.is_named)
            if batch.cost is Cost.USD and curves.input_Q_B is not None:
                check_tokens(curves, "input_Q_B", curves.input_Q_B)
            low, high = np.searchsorted(sampled_M, (each.start, each.start + each.num_queries)).tolist()
            sample = without_ids(curves, sampled_M[low:high] - each.start)
            if batch.is_shared:
                return Surveyed(True, 0.0, 0.0, sample)
            costs = replace(batch.problem(curves).costs, unit=1.0)
            largest_Q = costs.largest(is_ordered=is_ordered and batch.cost is Cost.SPENT)
            return Surveyed(is_ordered, float(largest_Q.max()), exact_sum(largest_Q), sample)

        return list(self._over(batch, "look at the curves", found))

    def climb(self, batch: Batch, low: float, high: float) -> Climbed:
        """Keeps the segments that are priced from `low` to `high`; queries start where dearer ones lead."""
        kind = np.min_scalar_type(batch.menu.num_options)

        def found(each: Part, curves: Curves) -> Climbed:
            problem = batch.problem(curves)
            is_bracket = math.isfinite(high)
            envelope = bracketed_envelope(problem, low, high) if is_bracket else upper_envelope(problem, low=low)
            start, least, most = (
                int(problem.costs.at_each(column_Q).sum()) for column_Q in (envelope.start_M, *problem.ends())
            )
            start_Q = envelope.start_M.astype(kind)
            row_N: NDArray[Any] = envelope.row_N.astype(np.uint32 if each.num_queries < 2**32 else np.int64)
            small = replace(envelope, start_M=start_Q, row_N=row_N, column_N=envelope.column_N.astype(kind))
            self._kept[each.start] = _Kept(start_Q, small)
            return Climbed(envelope.price_N.size, int(envelope.cost_N.sum()), start, least, most)

        return reduce(add, self._over(batch, "find the price", found))

    def histogram(self, interval: Interval) -> Histogram:
        """Of the kept segments in an interval."""
        found = []
        for each in self.parts:
            key_N, at_N = self._keys(each, interval)
            found.append(Histogram.of(key_N, self._envelope(each).cost_N[at_N], interval))
        return reduce(add, found)

    def segments(self, interval: Interval) -> Segments:
        """The kept segments in an interval."""
        found = []
        for each in self.parts:
            envelope = self._envelope(each)
            _, at_N = self._keys(each, interval)
            row_N = envelope.row_N[at_N].astype(np.int64)
            tie_N = self._tie_keys(each, row_N)
            found.append((envelope.price_N[at_N], tie_N, row_N + each.start, envelope.cost_N[at_N]))
        return Segments(*map(np.concatenate, zip(*found, strict=True)))

    def settle(self, margin: Margin) -> None:
        """Grants the segments before the margin, and forgets them all."""
        for each in self.parts:
            envelope = self._envelope(each)
            ties = partial(self._ties_at, each, margin.price)
            is_granted_N = margin.grants(envelope.price_N, envelope.row_N.astype(np.int64) + each.start, ties)
            self._kept[each.start] = _Kept(envelope.columns(is_granted_N))
        self._ties = 0.0, {}

    def near(self, batch: Batch, price: float, most_loss: float) -> Near | None:
        """The queries that lose least, up to `most_loss`, by their best move away from their column; None of none."""
        margin = [most_loss]  # the greatest loss that can still be among the least; falls as the pass goes on

        def found(each: Part, curves: Curves) -> Near | None:
            problem, column_Q = batch.problem(curves), self._columns(each)
            loss_Q = least_loss(problem, column_Q, price)
            near_N = np.flatnonzero(loss_Q <= margin[0])
            if near_N.size > MOST_QUERIES:
                near_N = near_N[loss_Q[near_N] <= np.partition(loss_Q[near_N], MOST_QUERIES)[MOST_QUERIES]]
            if not near_N.size:
                return None
            tie_N = self._tie_keys(each, near_N)
            some = without_ids(curves, near_N)
            return Near(loss_Q[near_N], tie_N, near_N + each.start, column_Q[near_N], some).least()

        best: Near | None = None
        for one in self._over(batch, "look near the price", found):
            if one is None:
                continue
            best = one if best is None else Near.of([best, one])
            if best.loss_N.size == MOST_QUERIES:
                margin[0] = float(best.loss_N[-1])
        return best

    def choose(self, row_N: NDArray[np.int64], column_N: Columns) -> None:
        """Changes the columns of those of some queries that are here; `row_N` rises."""
        for each in self.parts:
            low, high = np.searchsorted(row_N, (each.start, each.start + each.num_queries)).tolist()
            self._kept[each.start].column_Q[row_N[low:high] - each.start] = column_N[low:high]

    def rise(self, batch: Batch, left: int) -> list[tuple[int, int]]:
        """Raises budgets where that costs nothing; keeps the queries that could rise further in `left`.

        Queries that could not if their part had all of `left` are not among them: they never can.

        Returns:
            Start of each part, and how many queries could.
        """

        def found(each: Part, curves: Curves) -> tuple[int, int]:
            problem, column_Q = batch.problem(curves), self._columns(each)
            if problem.is_ordered:
                row_N, level_N, cost_N = rise_freely(problem, column_Q, left)
                self._kept[each.start].column_Q[:] = column_Q
            else:
                blocks = [np.arange(at, min(at + CHUNK, column_Q.size)) for at in range(0, column_Q.size, CHUNK)]
                each_block = [raises(problem, block, column_Q[block], left) for block in blocks]
                row_N, level_N, _, cost_N = (np.concatenate(arrays) for arrays in zip(*each_block, strict=True))
            rise_N = _within(problem, row_N, level_N, cost_N, left)
            self._kept[each.start].rise_N = rise_N
            return each.start, rise_N.size

        return list(self._over(batch, "spend what is left", found))

    def candidates(self, batch: Batch, starts: frozenset[int]) -> list[Candidates]:
        """The queries that `rise` kept of the parts that start there."""

        def found(each: Part, curves: Curves) -> Candidates:
            kept = self._kept[each.start]
            assert kept.rise_N is not None
            return Candidates(
                kept.rise_N + each.start, kept.column_Q[kept.rise_N].astype(np.int64), curves.select(kept.rise_N)
            )

        some = [each for each in self.parts if each.start in starts]
        return list(self._over(batch, "spend what is left", found, some))

    def add_up(self, batch: Batch) -> list[Sums]:
        """Sums of what was chosen, a part each."""
        return [sums for _, _, _, sums in self.chosen(batch)]

    def chosen(self, batch: Batch) -> Iterator[tuple[Part, Columns, FloatArray, Sums]]:
        """The column of each query of a part, its chance there, and the part's sums; a part at a time, in order."""

        def found(each: Part, curves: Curves) -> tuple[Columns, FloatArray, Sums]:
            if curves.tokens_Q_B is not None and not batch.is_usage_needed:
                check_tokens(curves, "tokens_Q_B", curves.tokens_Q_B)
            column_Q = self._columns(each)
            rows = np.arange(column_Q.size)
            p_Q = entries(curves.p_Q_B, rows, column_Q)
            sums = Sums(
                right=exact_sum(p_Q),
                spent=0.0 if curves.tokens_Q_B is None else exact_sum(entries(curves.tokens_Q_B, rows, column_Q)),
                usd=exact_sum(curves.usd_at(column_Q)) if curves.is_billable else 0.0,
                granted=int(batch.menu.at(column_Q).sum()),
                units=int(batch.problem(curves).costs.at_each(column_Q).sum()),
                number_B=np.bincount(column_Q, minlength=batch.menu.num_options),
            )
            return column_Q, p_Q, sums

        for each, one in zip(self.parts, self._over(batch, "add up", found, whole=True), strict=True):
            yield each, *one

    def _columns(self, each: Part) -> Columns:
        return self._kept[each.start].column_Q.astype(np.int64)

    def _envelope(self, each: Part) -> Envelope:
        found = self._kept[each.start].envelope
        assert found is not None
        return found

    def _keys(self, each: Part, interval: Interval) -> tuple[Keys, NDArray[np.int64]]:
        """Keys and positions of a part's segments in an interval."""
        price_N = self._envelope(each).price_N
        if interval.price is None:
            key_N, at_N = price_key(price_N), np.arange(price_N.size)
        else:
            key_N, at_N = self._ties_at(each, interval.price), np.flatnonzero(price_N == interval.price)
        is_in_N = (key_N >= np.uint64(interval.low)) & (key_N <= np.uint64(interval.high))
        return key_N[is_in_N], at_N[is_in_N]

    def _ties_at(self, each: Part, price: float) -> Keys:
        """The tie keys of a part's segments at one price, made once."""
        if self._ties[0] != price:
            self._ties = price, {}
        found = self._ties[1]
        if each.start not in found:
            envelope = self._envelope(each)
            found[each.start] = self._tie_keys(each, envelope.row_N[envelope.price_N == price].astype(np.int64))
        return found[each.start]

    def _tie_keys(self, each: Part, row_N: NDArray[np.int64]) -> Keys:
        """See `Problem.tie_order`; ids are read where a part has such rows."""
        if not row_N.size:
            return np.zeros(0, dtype=np.uint64)
        ids = each.load(False).query_ids
        return tie_keys(ids[row] for row in row_N.tolist())

    def _over(
        self,
        batch: Batch,
        stage: str,
        work: Callable[[Part, Curves], Found],
        parts: Sequence[Part] | None = None,
        *,
        whole: bool = False,
    ) -> Iterator[Found]:
        """What `work` finds in each part, in order; not more parts are loaded than there are threads."""

        def done(each: Part) -> Found:
            return work(each, each.load(whole or batch.is_usage_needed))

        parts, before = self.parts if parts is None else parts, 0
        with ThreadPoolExecutor(self.threads) as pool:
            for at in range(0, len(parts), PARTS_AT_ONCE):
                self.progress(stage, before, self.num_queries)
                some = parts[at : at + PARTS_AT_ONCE]
                yield from pool.map(done, some)
                before += sum(each.num_queries for each in some)


def _within(
    problem: Problem, row_N: NDArray[np.int64], level_N: NDArray[Any], cost_N: NDArray[np.int64], left: int
) -> NDArray[np.int64]:
    """Of raises from each level, the cheapest ones that `left` alone can pay; rows that rise."""
    kept = [row_N[:0]]
    for level in np.unique(level_N).tolist():
        at_N = np.flatnonzero(level_N == level)
        num_fit = int(np.searchsorted(np.cumsum(np.sort(cost_N[at_N])), left, side="right"))
        kept.append(row_N[at_N[problem.least_of(row_N[at_N], cost_N[at_N], num_fit)]])
    return np.sort(np.concatenate(kept))
