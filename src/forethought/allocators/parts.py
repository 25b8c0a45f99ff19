"""The `envelope` plan of more queries than fit in memory: the same plan, in passes over parts of their curves."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Concatenate, ParamSpec, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..core.data import Cost, Curves
from ..core.menu import Menu
from ..errors import InvalidInputError, InvalidTotalError
from .batch import Batch, Part, joined
from .costs import finest_unit
from .envelope import choose_again, most_loss, spend_without_loss
from .hull import bracket_of, upper_envelope
from .margin import Margin, find_margin
from .order import part
from .problem import RELATIVE_ROUNDING, pose, refuse_total
from .share import Climbed, Near, Share, Sums

MOST_CANDIDATES = 1 << 21  # queries to which what is left may go where their curves see no difference

Last = Callable[[Share, Batch], list[Sums]]
Found = TypeVar("Found")
Given = ParamSpec("Given")


class Passes(Protocol):
    """Makes a pass over all shares of a batch, wherever they are."""

    def __call__(
        self, work: Callable[Concatenate[Share, Given], Found], *args: Given.args, **how: Given.kwargs
    ) -> list[Found]:
        """What `work`, a method of `Share`, answers of each share, in the order of their parts."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Division:
    """What `divide_parts` answers; see `Allocation` for what the fields mean.

    Attributes:
        number_B: queries that got each option, shape (B,).
        num_segments: of envelopes that were looked at, out of all queries'.
    """

    menu: Menu
    cost: Cost
    total: float
    number_B: NDArray[np.int64]
    price: float
    granted: int
    expected_accuracy: float
    expected_spent: float | None
    expected_usd: float | None
    num_segments: int
    notes: tuple[str, ...]

    @property
    def num_queries(self) -> int:
        """Q."""
        return int(self.number_B.sum())


def divide_parts(
    parts: Sequence[Part],
    *,
    total: float,
    cost: Cost = Cost.GRANTED,
    min_tokens: int | None = None,
    max_tokens: int | None = None,
    threads: int = 1,
    progress: Callable[[str, int, int], None] = lambda stage, done, number: None,
    last: Last = Share.add_up,
) -> Division:
    """Divides `total` among the queries of all parts as the allocator `envelope` does, part by part.

    In memory are a column a query, the segments in a bracket of prices (few), and a part for each thread. Where many
    queries have the very same curve, all their segments at the marginal price are in the bracket. Ids are not compared
    with each other.

    Args:
        parts: all of the same menu.
        total: tokens for all queries together, or USD.
        cost: what the total is counted in.
        min_tokens: least tokens of every query; off the menu they round up.
        max_tokens: most tokens of every query; off the menu they round down.
        threads: parts that are worked on at the same time.
        progress: called with what is being done, queries done and queries in all.
        last: the last pass: adds up, and may do something with what `Share.chosen` yields.

    Raises:
        InvalidInputError, InvalidMenuError, InvalidSettingsError, InvalidTotalError: see `allocate`.
    """
    parts = [each for each in parts if each.num_queries]
    if not parts:
        raise InvalidInputError("there are no queries to plan for; give at least one")
    num_queries = sum(each.num_queries for each in parts)
    share = Share(parts, num_queries, threads=max(1, threads), progress=progress)

    def passes(work: Callable[Concatenate[Share, Given], Found], *args: Given.args, **how: Given.kwargs) -> list[Found]:
        return [work(share, *args, **how)]

    bounds = {"min_tokens": min_tokens, "max_tokens": max_tokens}
    return divide_shares(passes, num_queries, total=total, cost=cost, **bounds, last=last)


def divide_shares(
    passes: Passes,
    num_queries: int,
    *,
    total: float,
    cost: Cost = Cost.GRANTED,
    min_tokens: int | None = None,
    max_tokens: int | None = None,
    last: Last = Share.add_up,
) -> Division:
    """The same, where parts lie in shares that may be in other processes: they send histograms, not curves.

    One pass checks the curves and takes a sample, which gives a bracket of prices. One keeps the segments of all
    envelopes in the bracket, where they are; histograms of them give the price. One pass looks for the queries nearest
    the margin, and one for those that can have a longer cap at the same chance; the last adds up. The plan does not
    depend on how parts are shared out.

    Args:
        passes: makes a pass over all shares.
        num_queries: of all of them.
        total: tokens for all queries together, or USD.
        cost: what the total is counted in.
        min_tokens: least tokens of every query; off the menu they round up.
        max_tokens: most tokens of every query; off the menu they round down.
        last: the last pass: adds up, and may do something with what `Share.chosen` yields.

    Raises:
        InvalidInputError, InvalidMenuError, InvalidSettingsError, InvalidTotalError: see `allocate`.
    """
    if not math.isfinite(total):
        raise InvalidTotalError(f"the total is {total}; give a number of tokens, such as 48 for each query")
    head = passes(Share.head)[0]
    batch, sample = _surveyed(passes, _posed(head, total, Cost(cost), min_tokens, max_tokens))
    margin, num_segments = _filled(passes, num_queries, batch, sample)
    left, notes = margin.left, tuple[str, ...]()
    if margin.blocked and left > 0:
        left = _completed(passes, batch, margin)
    if left > 0 or not batch.is_shared:
        notes = _spent(passes, batch, left)
    sums = [one for each in passes(last, batch) for one in each]
    return _added_up(sums, batch, head, margin.price / batch.unit, num_segments, notes)


def _posed(head: Curves, total: float, cost: Cost, min_tokens: int | None, max_tokens: int | None) -> Batch:
    """The batch by its first query, posed as `allocate` poses it, which refuses bounds that leave nothing."""
    least, most = (None if tokens is None else np.array([tokens]) for tokens in (min_tokens, max_tokens))
    posed = pose(head, total=float(2**62), cost=cost, min_budget_Q=least, max_budget_Q=most)
    return Batch(
        menu=posed.menu,
        first=int(posed.first_Q[0]),
        last=int(posed.last_Q[0]),
        is_bounded=posed.is_bounded,
        cost=cost,
        total=total,
        unit=posed.costs.unit,
        is_shared=posed.costs.shared_B is not None,
        is_ordered=posed.is_ordered,
    )


def _surveyed(passes: Passes, batch: Batch) -> tuple[Batch, Curves]:
    """The batch with its unit, and a sample of its queries; refuses curves that cannot be true."""
    found = [one for each in passes(Share.survey, batch) for one in each]
    is_rising = batch.cost is Cost.SPENT and all(each.is_ordered for each in found)
    batch = replace(batch, is_ordered=batch.cost is Cost.GRANTED or is_rising)
    if not batch.is_shared:
        largest, all_largest = max(each.largest for each in found), math.fsum(each.all_largest for each in found)
        batch = replace(batch, unit=finest_unit(np.array([largest]), all_largest))
    return batch, joined([each.sample for each in found if len(each.sample.query_ids)])


def _filled(passes: Passes, num_queries: int, batch: Batch, sample: Curves) -> tuple[Margin, int]:
    """Grants segments by falling price as far as the total goes; refuses one that cannot pay for the minimums."""
    rounding = 0.0 if batch.cost is Cost.GRANTED else RELATIVE_ROUNDING
    units = math.floor(min(batch.total * (1 + rounding) / batch.unit, 2.0**62))
    low, high = _bracket(batch, sample, units / num_queries, is_whole=len(sample.query_ids) >= num_queries)
    while True:
        climbed = reduce(add, passes(Share.climb, batch, low, high))
        if units < climbed.least:
            raise refuse_total(batch.total, batch.cost, num_queries, climbed.least * batch.unit)
        left = min(units, climbed.most) - climbed.start
        if left < 0:  # the sample missed the price: some times in a million batches
            low, high = low, np.inf
            continue
        margin = _margin(passes, climbed, low, high, left)
        if margin.price == 0.0 and low > 0.0:
            low, high = 0.0, high
            continue
        passes(Share.settle, margin)
        return margin, climbed.number


def _bracket(batch: Batch, sample: Curves, units_each: float, *, is_whole: bool) -> tuple[float, float]:
    """Prices between which the marginal one should be."""
    problem = batch.problem(sample)
    envelope = upper_envelope(problem)
    most_each = float(problem.costs.at_each(problem.ends()[1]).mean())
    bracket = bracket_of(envelope, problem.costs.at_each(envelope.start_M), min(units_each, 2 * most_each))
    return (0.0, np.inf) if bracket is None or is_whole else bracket


def _margin(passes: Passes, climbed: Climbed, low: float, high: float, left: int) -> Margin:
    return find_margin(
        low,
        high,
        number=climbed.number,
        cost=climbed.cost,
        left=left,
        histogram=lambda interval: reduce(add, passes(Share.histogram, interval)),
        segments=lambda interval: reduce(add, passes(Share.segments, interval)),
    )


def _completed(passes: Passes, batch: Batch, margin: Margin) -> int:
    """Divides the tokens before the margin among the queries nearest it, see `envelope.complete`; what is left then."""
    found = [each for each in passes(Share.near, batch, margin.price, most_loss(margin)) if each is not None]
    if not found:
        return margin.left
    near = Near.of(found)
    some, order_N_B = part(batch.problem(near.curves), np.arange(near.row_N.size))
    column_N, left = choose_again(some, order_N_B, near.column_N, margin)
    order = np.argsort(near.row_N)
    passes(Share.choose, near.row_N[order], column_N[order])
    return left


def _spent(passes: Passes, batch: Batch, left: int) -> tuple[str, ...]:
    """Longer caps where the curves see no difference, while they fit, see `envelope.spend_without_loss`; notes."""
    starts, num_kept, num_passed = set[int](), 0, 0
    for start, number in (one for each in passes(Share.rise, batch, left) for one in each):
        fits = num_kept + number <= MOST_CANDIDATES
        num_kept, num_passed = num_kept + fits * number, num_passed + (not fits) * number
        if number and fits:
            starts.add(start)
    if starts and left > 0:
        found = [one for each in passes(Share.candidates, batch, frozenset(starts)) for one in each]
        row_N, column_N = (np.concatenate([getattr(each, name) for each in found]) for name in ("row_N", "column_N"))
        problem = batch.problem(joined([each.curves for each in found]))
        passes(Share.choose, row_N, spend_without_loss(problem, column_N, left))
    if not num_passed or left <= 0:
        return ()
    return (
        f"{num_passed:,} queries could have a longer cap at the same chance of a right answer and were not looked "
        f"at: more than {MOST_CANDIDATES:,} can.",
    )


def _added_up(
    sums: Sequence[Sums], batch: Batch, head: Curves, price: float, num_segments: int, notes: tuple[str, ...]
) -> Division:
    """What was chosen, and what it expects."""
    number_B = np.sum([each.number_B for each in sums], axis=0)
    left = batch.total - batch.unit * sum(each.units for each in sums)
    if left >= 1 and batch.cost is not Cost.USD:
        notes = (f"{left:,.0f} of {batch.total:,.10g} tokens are left over.", *notes)
    accuracy = math.fsum(each.right for each in sums) / int(number_B.sum())
    return Division(
        menu=batch.menu,
        cost=batch.cost,
        total=batch.total,
        number_B=number_B,
        price=price,
        granted=sum(each.granted for each in sums),
        expected_accuracy=min(max(accuracy, 0.0), 1.0),
        expected_spent=None if head.tokens_Q_B is None else math.fsum(each.spent for each in sums),
        expected_usd=math.fsum(each.usd for each in sums) if head.is_billable else None,
        num_segments=num_segments,
        notes=notes,
    )
