"""A plan made part by part is the plan that `allocate` makes of the whole batch."""

from __future__ import annotations

import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forethought.allocators import allocate
from forethought.allocators import margin as searching
from forethought.allocators import parts as dividing
from forethought.allocators import share as sharing
from forethought.allocators.batch import Part
from forethought.allocators.margin import Histogram, Interval, Segments, find_margin, price_key, price_of
from forethought.allocators.parts import divide_parts, divide_shares
from forethought.allocators.share import Share
from forethought.core.data import Cost, Curves
from forethought.core.menu import Menu
from forethought.core.options import Option, Price
from forethought.errors import InvalidInputError, InvalidSettingsError, InvalidTotalError

MENUS = [Menu.evenly(16, 256), Menu.of([0, 100, 333, 1024]), Menu.of([7])]


def batch(seed, number, menu, *, kind=np.float32, digits=None, is_falling=False):
    """Curves of queries; with few `digits` many are alike and flat."""
    random = np.random.default_rng(seed)
    p_Q_B = np.sort(random.random((number, menu.num_options)), axis=1)
    if is_falling:
        p_Q_B = random.random((number, menu.num_options))
    tokens_Q_B = np.minimum(menu.budgets_B, random.exponential(120, (number, 1)))
    if menu.is_named:
        tokens_Q_B = tokens_Q_B * random.uniform(0.5, 2, tokens_Q_B.shape)
    if digits is not None:
        p_Q_B, tokens_Q_B = np.round(p_Q_B, digits), np.round(tokens_Q_B / 16) * 16
    ids = tuple(f"q{seed}-{row}" for row in range(number))
    return Curves(ids, menu, p_Q_B.astype(kind), tokens_Q_B.astype(kind))


def in_parts(curves, size):
    number = len(curves.query_ids)
    starts = range(0, number, size)
    return [
        Part(
            at, min(size, number - at), lambda is_usage_needed, at=at: curves.select(slice(at, min(at + size, number)))
        )
        for at in starts
    ]


def keeping(columns):
    """The last pass: adds up, and keeps the columns of each part by its start."""

    def last(share, batch):
        found = list(share.chosen(batch))
        columns.update({part.start: column_Q for part, column_Q, _, _ in found})
        return [sums for *_, sums in found]

    return last


def in_order(columns):
    return np.concatenate([columns[start] for start in sorted(columns)])


def assert_same(curves, size, total, threads=1, **terms):
    whole = allocate("envelope", curves, total=total, **bounds(terms, len(curves.query_ids)))
    columns = {}
    found = divide_parts(
        in_parts(curves, size),
        total=total,
        threads=threads,
        last=keeping(columns),
        **terms,
    )
    np.testing.assert_array_equal(found.menu.at(in_order(columns)), whole.budget_Q)
    assert found.number_B.tolist() == [int((whole.budget_Q == budget).sum()) for budget in found.menu.budgets_B]
    assert found.price == pytest.approx(whole.price, rel=1e-12)
    assert found.granted == whole.granted
    assert found.expected_accuracy == pytest.approx(whole.expected_accuracy, rel=1e-12)
    assert found.expected_spent == pytest.approx(whole.expected_spent, rel=1e-12)
    assert found.expected_usd == (None if whole.expected_usd is None else pytest.approx(whole.expected_usd))


def bounds(terms, number):
    names = {"min_tokens": "min_budget_Q", "max_tokens": "max_budget_Q"}
    return {names.get(key, key): np.full(number, value) if key in names else value for key, value in terms.items()}


@pytest.mark.parametrize("cost", [Cost.GRANTED, Cost.SPENT])
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    number=st.integers(1, 90),
    size=st.integers(1, 90),
    share=st.floats(0.0, 1.1),
    menu=st.sampled_from(MENUS),
    digits=st.sampled_from([None, 1, 0]),
    kind=st.sampled_from([np.float16, np.float32, np.float64]),
    is_falling=st.booleans(),
)
def test_the_plan_is_that_of_the_whole_batch(cost, seed, number, size, share, menu, digits, kind, is_falling):
    curves = batch(seed, number, menu, kind=kind, digits=digits, is_falling=is_falling)
    costs_Q_B = curves.costs_Q_B(cost).astype(np.float64)
    least, most = costs_Q_B[:, 0].sum(), costs_Q_B[:, -1].sum()
    assert_same(curves, size, float(np.ceil(least + share * (most - least))), cost=cost)


@pytest.mark.parametrize("cost", [Cost.GRANTED, Cost.SPENT])
@pytest.mark.parametrize("digits", [None, 1])
@pytest.mark.parametrize("threads", [1, 2])
def test_the_price_is_found_in_a_bracket_of_a_sample(cost, digits, threads, monkeypatch):
    monkeypatch.setattr(sharing, "SAMPLE", 400)
    curves = batch(3, 20_000, MENUS[0], digits=digits)
    assert_same(curves, 3_000, 20_000 * 70.0, threads=threads, cost=cost)
    found = divide_parts(in_parts(curves, 3_000), total=20_000 * 70.0, cost=cost)
    if digits is None:
        assert found.num_segments < 40_000  # of some 100,000


def test_a_sample_that_misses_the_price_is_no_error(monkeypatch):
    monkeypatch.setattr(sharing, "SAMPLE", 50)
    curves = batch(4, 4_000, MENUS[0])
    for wrong in ((0.2, 0.3), (1e-9, 1e-8)):
        monkeypatch.setattr(dividing, "bracket_of", lambda *_, wrong=wrong: wrong)
        assert_same(curves, 900, 4_000 * 70.0)


@pytest.mark.parametrize("cost", [Cost.SPENT, Cost.USD])
def test_named_options_in_any_order_of_cost(cost):
    options = [
        Option(name, price=Price(1.0, dollars), tokens=tokens)
        for name, dollars, tokens in (("small", 2.0, 300), ("large", 20.0, 100), ("larger", 30.0, 500))
    ]
    menu = Menu.named(options)
    known = batch(5, 500, menu)
    curves = Curves(known.query_ids, menu, known.p_Q_B, known.tokens_Q_B, np.full((500, 3), 40.0))
    total = 500 * 90.0 if cost is Cost.SPENT else 500 * 9e-4
    assert_same(curves, 77, total, cost=cost)


def test_bounds_of_every_query():
    curves = batch(6, 300, MENUS[0])
    assert_same(curves, 64, 300 * 90.0, min_tokens=40, max_tokens=130)


def test_what_cannot_be_planned_is_refused_in_words():
    curves = batch(7, 30, MENUS[0])
    with pytest.raises(InvalidTotalError, match="minimums of 30 queries, which cost 480"):
        divide_parts(in_parts(curves, 8), total=100)
    with pytest.raises(InvalidInputError, match="no queries"):
        divide_parts([], total=100)
    with pytest.raises(InvalidTotalError, match="nan"):
        divide_parts(in_parts(curves, 8), total=float("nan"))
    bare = Curves(curves.query_ids, curves.menu, curves.p_Q_B)
    with pytest.raises(InvalidSettingsError, match="usage curve"):
        divide_parts(in_parts(bare, 8), total=3_000, cost=Cost.SPENT)
    curves.p_Q_B[20, 3] = np.nan
    with pytest.raises(InvalidInputError, match="q7-20"):
        divide_parts(in_parts(curves, 8), total=3_000)


def test_tokens_that_are_left_over_are_said():
    found = divide_parts(in_parts(batch(8, 10, MENUS[1]), 4), total=10 * 5000.0)
    assert "tokens are left over" in found.notes[0]


def shared(curves, size, cuts, total, **terms):
    """The plan of parts in several shares, which exchange bytes; columns, and the division."""
    parts, number = in_parts(curves, size), len(curves.query_ids)
    edges = sorted({0, len(parts), *(cut % len(parts) for cut in cuts)})
    columns = {}
    shares = [Share(parts[low:high], number) for low, high in itertools.pairwise(edges)]

    def passes(work, *args):
        return [sent(work(share, *map(sent, args))) for share in shares]

    made = divide_shares(passes, number, total=total, last=keeping(columns), **terms)
    return in_order(columns), made


def sent(message):
    return pickle.loads(pickle.dumps(message))


@settings(max_examples=60, deadline=None)
@given(
    cost=st.sampled_from([Cost.GRANTED, Cost.SPENT]),
    seed=st.integers(0, 10_000),
    number=st.integers(1, 90),
    size=st.integers(1, 40),
    cuts=st.lists(st.integers(0, 90), max_size=4),
    share=st.floats(0.0, 1.1),
    digits=st.sampled_from([None, 1, 0]),
)
def test_shares_in_other_processes_make_the_same_plan(cost, seed, number, size, cuts, share, digits):
    """With few segments sent, and few bins, the search goes through prices, ties and rows."""
    curves = batch(seed, number, MENUS[0], kind=np.float16, digits=digits)
    costs_Q_B = curves.costs_Q_B(cost).astype(np.float64)
    total = float(np.ceil(costs_Q_B[:, 0].sum() + share * (costs_Q_B[:, -1] - costs_Q_B[:, 0]).sum()))
    whole = allocate("envelope", curves, total=total, cost=cost)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(searching, "FEW", 1)
        patched.setattr(searching, "BITS", 3)
        column_Q, made = shared(curves, size, cuts, total, cost=cost)
    np.testing.assert_array_equal(made.menu.at(column_Q), whole.budget_Q)
    assert made.price == pytest.approx(whole.price, rel=1e-12)
    one = divide_parts(in_parts(curves, size), total=total, cost=cost)
    assert (made.expected_accuracy, made.expected_spent, made.price, made.notes) == (
        one.expected_accuracy,
        one.expected_spent,
        one.price,
        one.notes,
    )


def test_alike_queries_at_the_margin_are_told_apart_by_their_ids_where_they_are(monkeypatch):
    """All curves are the same, so every segment at the margin has one price."""
    monkeypatch.setattr(searching, "FEW", 8)
    one = batch(9, 1, MENUS[0])
    curves = Curves(tuple(f"q{row}" for row in range(3000)), MENUS[0], np.repeat(one.p_Q_B, 3000, axis=0))
    column_Q, _ = shared(curves, 500, [1, 3], 3000 * 70.0)
    whole = allocate("envelope", curves, total=3000 * 70.0)
    np.testing.assert_array_equal(MENUS[0].at(column_Q), whole.budget_Q)
    backwards = Curves(curves.query_ids[::-1], MENUS[0], curves.p_Q_B)
    np.testing.assert_array_equal(shared(backwards, 700, [2], 3000 * 70.0)[0][::-1], column_Q)


@settings(max_examples=80, deadline=None)
@given(
    costs=st.lists(st.integers(0, 2**40), min_size=1, max_size=60),
    seed=st.integers(0, 1000),
    levels=st.sampled_from([1, 3, 1000]),
    left=st.floats(0, 1),
    few=st.integers(1, 5),
    bits=st.integers(1, 12),
)
def test_the_margin_is_the_first_segment_that_does_not_fit(costs, seed, levels, left, few, bits):
    random = np.random.default_rng(seed)
    number = len(costs)
    cost_N = np.array(costs, dtype=np.int64)
    price_N = (1 + random.integers(0, levels, number)) * 1e-7
    tie_N = random.integers(0, 3, number, dtype=np.uint64) * np.uint64(2**62)
    some = Segments(price_N, tie_N, np.arange(number), cost_N)
    units = int(left * int(cost_N.sum()))

    def inside(interval):
        key_N = price_key(price_N) if interval.price is None else tie_N
        is_in_N = (key_N >= np.uint64(interval.low)) & (key_N <= np.uint64(interval.high))
        is_in_N &= interval.price is None or price_N == interval.price
        return key_N, np.flatnonzero(is_in_N)

    def histogram(interval):
        key_N, at_N = inside(interval)
        return Histogram.of(key_N[at_N], cost_N[at_N], interval)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(searching, "FEW", few)
        patched.setattr(searching, "BITS", bits)
        found = find_margin(
            0.0,
            np.inf,
            number=number,
            cost=int(cost_N.sum()),
            left=units,
            histogram=histogram,
            segments=lambda interval: Segments(*(array_N[inside(interval)[1]] for array_N in some.arrays)),
        )
    is_granted_N = found.grants(price_N, some.row_N, lambda: tie_N[price_N == found.price])
    order = np.lexsort((some.row_N, tie_N, -price_N))
    num_fit = int(np.searchsorted(np.cumsum(cost_N[order]), units, side="right"))
    assert sorted(order[:num_fit].tolist()) == np.flatnonzero(is_granted_N).tolist()
    assert found.left == units - int(cost_N[is_granted_N].sum())
    assert found.blocked == (int(cost_N[order[num_fit]]) if num_fit < number else 0)


@given(st.floats(0, 1e300), st.floats(0, 1e300))
def test_prices_and_their_keys_have_opposite_orders(one, other):
    keys = price_key(np.array([one, other])).tolist()
    assert (one < other) == (keys[0] > keys[1])
    assert price_of(keys[0]) == one
    assert Interval(keys[0], keys[0]).bin(0).price == one


def test_a_fraction_of_a_token_needs_no_look_at_queries_that_cannot_use_it(monkeypatch):
    """Many have a longer cap at the same chance; what is left pays for a few of them."""
    monkeypatch.setattr(dividing, "MOST_CANDIDATES", 40)
    curves = batch(10, 2_000, MENUS[0], digits=1)
    assert_same(curves, 400, 2_000 * 70.0 + 3, cost=Cost.SPENT)
