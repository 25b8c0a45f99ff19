"""A plan made part by part is the plan that `allocate` makes of the whole batch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forethought.allocators import allocate
from forethought.allocators import parts as streamed
from forethought.allocators.parts import Part, divide_parts
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


def assert_same(curves, size, total, threads=1, **terms):
    whole = allocate("envelope", curves, total=total, **bounds(terms, len(curves.query_ids)))
    found = divide_parts(in_parts(curves, size), total=total, threads=threads, **terms)
    np.testing.assert_array_equal(found.menu.at(found.column_Q), whole.budget_Q)
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
    monkeypatch.setattr(streamed, "SAMPLE", 400)
    curves = batch(3, 20_000, MENUS[0], digits=digits)
    assert_same(curves, 3_000, 20_000 * 70.0, threads=threads, cost=cost)
    found = divide_parts(in_parts(curves, 3_000), total=20_000 * 70.0, cost=cost)
    if digits is None:
        assert found.num_segments < 40_000  # of some 100,000


def test_a_sample_that_misses_the_price_is_no_error(monkeypatch):
    monkeypatch.setattr(streamed, "SAMPLE", 50)
    curves = batch(4, 4_000, MENUS[0])
    for wrong in ((0.2, 0.3), (1e-9, 1e-8)):
        monkeypatch.setattr(streamed, "bracket_of", lambda *_, wrong=wrong: wrong)
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
