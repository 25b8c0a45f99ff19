"""Options whose costs fall along the menu, in tokens and in money: every allocator's promises; order does not count."""

from __future__ import annotations

import itertools
import math
import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from forethought.allocators import allocate, hull, pose
from forethought.allocators.exact import ExactAllocator
from forethought.allocators.greedy import GreedyAllocator
from forethought.allocators.hull import bracketed_envelope, fill, fill_from, upper_envelope
from forethought.allocators.price import budgets_at, lp_bound, price_for
from forethought.core import registry
from forethought.core.allocation import Allocation
from forethought.core.data import Cost, Curves
from forethought.core.menu import Menu
from forethought.core.options import Option, Price
from forethought.errors import InvalidInputError, InvalidSettingsError, InvalidTotalError

NAMES = tuple(registry.available("allocators"))
EVERYONE = (*NAMES, GreedyAllocator(lookahead=True))
TOLERANCE = 1e-9
SPENT: dict[str, Any] = {"cost": Cost.SPENT, "any_order": True}
USD: dict[str, Any] = {"cost": Cost.USD}

every_allocator = pytest.mark.parametrize("name", NAMES)
everyone = pytest.mark.parametrize("allocator", EVERYONE, ids=[*NAMES, "lookahead"])


def examples(number: int) -> settings:
    """So many examples, however slow the machine: a busy one must not fail a property."""
    return settings(max_examples=number, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def make_curves(p_Q_B: Any, tokens_Q_B: Any) -> Curves:
    p_Q_B, tokens_Q_B = np.asarray(p_Q_B, dtype=np.float64), np.asarray(tokens_Q_B, dtype=np.float64)
    num_queries, num_options = p_Q_B.shape
    menu = Menu.evenly(16, 16 * num_options)
    return Curves(tuple(f"q{row}" for row in range(num_queries)), menu, p_Q_B, tokens_Q_B)


def made_up(num_queries: int, *, num_options: int = 8, seed: int = 0) -> Curves:
    """Curves with dips and a jump somewhere, spend that flattens, and each query's options in an order of its own."""
    random = np.random.default_rng(seed)
    budgets_B = 16 * np.arange(1, num_options + 1)
    jump_Q_1, stop_Q_1 = random.uniform(10, 20 * num_options, (2, num_queries, 1))
    p_Q_B = 1 / (1 + np.exp((jump_Q_1 - budgets_B) / 12)) + random.normal(0, 0.02, (num_queries, num_options))
    curves = make_curves(np.clip(p_Q_B, 0, 1), 14 + stop_Q_1 * (1 - np.exp(-budgets_B / stop_Q_1)))
    return reordered(curves, random.permuted(np.tile(np.arange(num_options), (num_queries, 1)), axis=1))


def priced(curves: Curves, *, seed: int = 0) -> Curves:
    """The same under named options of prices that have nothing to do with their order, and prompts of any length."""
    random, shape = np.random.default_rng(seed), curves.p_Q_B.shape
    prices = random.uniform(0.1, 10.0, (shape[1], 2))
    options = tuple(Option(f"o{column}", price=Price(*map(float, each))) for column, each in enumerate(prices))
    input_Q_B = random.integers(1, 200, shape).astype(curves.p_Q_B.dtype)
    return replace(curves, menu=Menu(curves.menu.caps, options), input_Q_B=input_Q_B)


def bills(curves: Curves, arguments: dict[str, Any]) -> np.ndarray:
    costs_Q_B = curves.costs_Q_B(arguments["cost"])
    assert costs_Q_B is not None
    return costs_Q_B


def reordered(curves: Curves, order_Q_B: np.ndarray) -> Curves:
    assert curves.tokens_Q_B is not None
    p_Q_B, tokens_Q_B = (np.take_along_axis(each, order_Q_B, axis=1) for each in (curves.p_Q_B, curves.tokens_Q_B))
    return Curves(curves.query_ids, curves.menu, p_Q_B, tokens_Q_B)


def columns(plan: Allocation) -> np.ndarray:
    return plan.menu.columns(plan.budget_Q)


def allowed(curves: Curves, arguments: dict[str, Any]) -> np.ndarray:
    budgets_B, num_queries = curves.menu.budgets_B, len(curves.query_ids)
    low_Q = arguments.get("min_budget_Q", np.full(num_queries, 0))
    high_Q = arguments.get("max_budget_Q", np.full(num_queries, curves.menu.largest))
    is_allowed_Q_B: np.ndarray = (budgets_B >= low_Q[:, None]) & (budgets_B <= high_Q[:, None])
    return is_allowed_Q_B


@st.composite
def batches(draw: st.DrawFn, *, is_bounded: bool = True, costs: tuple[Cost, ...] = tuple(Cost)[1:]) -> dict[str, Any]:
    """Curves and costs of any shape at all, in tokens or money, bounds, weights, two totals in order."""
    shape = num_queries, num_options = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    chances = draw(st.sampled_from([st.integers(0, 8).map(lambda part: part / 8), st.floats(0, 1, width=32)]))
    p_Q_B = draw(arrays(draw(st.sampled_from([np.float64, np.float32])), shape, elements=chances))
    spends = draw(st.sampled_from([st.integers(0, 6).map(float), st.floats(0, 40, width=32)]))
    tokens_Q_B = draw(arrays(np.float64, shape, elements=spends))
    curves = Curves(
        tuple(f"q{row}" for row in range(num_queries)), Menu.evenly(16, 16 * num_options), p_Q_B, tokens_Q_B
    )
    arguments = dict(SPENT)
    if draw(st.sampled_from(costs)) is Cost.USD:
        price = st.sampled_from([0.0, 0.5, 1.0, 15.0])
        options = tuple(Option(f"o{column}", price=Price(draw(price), draw(price))) for column in range(num_options))
        prompts = draw(st.sampled_from([st.integers(0, 6).map(float), st.floats(0, 40, width=32)]))
        input_Q_B = draw(st.one_of(st.none(), arrays(np.float32, shape, elements=prompts)))
        if input_Q_B is None:
            options = tuple(replace(option, price=Price(0.0, option.price.output)) for option in options)  # type: ignore[union-attr]
        curves = replace(curves, menu=Menu(curves.menu.caps, options), input_Q_B=input_Q_B)
        arguments = dict(USD)
    if is_bounded and draw(st.booleans()):
        low_Q, high_Q = np.sort(draw(arrays(np.int64, (2, num_queries), elements=st.integers(1, num_options))), axis=0)
        arguments |= {"min_budget_Q": 16 * low_Q, "max_budget_Q": 16 * high_Q}
    if draw(st.booleans()):
        weights = draw(st.lists(st.sampled_from([0.0, 1.0, 2.5]), min_size=num_queries, max_size=num_queries))
        if any(weights):
            arguments["weight_Q"] = np.array(weights)
    is_allowed_Q_B, costs_Q_B = allowed(curves, arguments), bills(curves, arguments)
    least = math.fsum(np.where(is_allowed_Q_B, costs_Q_B, math.inf).min(axis=1))
    most = math.fsum(np.where(is_allowed_Q_B, costs_Q_B, -math.inf).max(axis=1))
    shares = sorted(draw(st.tuples(st.floats(0, 1.1), st.floats(0, 1.1))))
    # A little more than the least, whatever the sums round to.
    one = 1e-6 if arguments["cost"] is Cost.USD else 1.0
    totals = [least + share * (most - least) + 1e-9 * (least + 1e-3 * one) for share in shares]
    return {"curves": curves, "arguments": arguments, "totals": totals}


def best_value(curves: Curves, total: float, arguments: dict[str, Any]) -> float:
    """Weighted mean success of the best of all plans."""
    num_queries = len(curves.query_ids)
    rows, is_allowed_Q_B = np.arange(num_queries), allowed(curves, arguments)
    weight_Q = arguments.get("weight_Q", np.ones(num_queries))
    best, costs_Q_B = -math.inf, bills(curves, arguments)
    for choice in itertools.product(*(np.flatnonzero(is_allowed_B).tolist() for is_allowed_B in is_allowed_Q_B)):
        if costs_Q_B[rows, list(choice)].sum() <= total * (1 + 1e-12):
            best = max(best, float(curves.p_Q_B[rows, list(choice)].astype(float) @ weight_Q / weight_Q.sum()))
    return best


@pytest.mark.slow
@everyone
@examples(150)
@given(batch=batches())
def test_a_plan_stays_within_total_and_bounds_and_does_not_depend_on_the_order_of_queries(
    allocator: Any, batch: dict[str, Any]
) -> None:
    curves, arguments, total = batch["curves"], batch["arguments"], batch["totals"][0]
    plan = allocate(allocator, curves, total=total, **arguments)
    column_Q, rows = columns(plan), np.arange(len(curves.query_ids))
    assert math.fsum(bills(curves, arguments)[rows, column_Q]) <= total * (1 + 1e-11)
    assert plan.taken == pytest.approx(math.fsum(bills(curves, arguments)[rows, column_Q]), rel=1e-9, abs=1e-15)
    assert allowed(curves, arguments)[rows, column_Q].all()

    turned = curves.select(slice(None, None, -1))
    per_query = {name: value[::-1] if isinstance(value, np.ndarray) else value for name, value in arguments.items()}
    again = allocate(allocator, turned, total=total, **per_query)
    assert again.budget_Q[::-1].tolist() == plan.budget_Q.tolist()
    assert again.expected_accuracy == plan.expected_accuracy


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name != "uniform"])
@examples(250)
@given(batch=batches())
def test_a_larger_total_never_expects_less(name: str, batch: dict[str, Any]) -> None:
    less, more = (
        allocate(name, batch["curves"], total=total, **batch["arguments"]).expected_accuracy
        for total in batch["totals"]
    )
    assert less <= more + TOLERANCE


@pytest.mark.slow
@examples(300)
@given(batch=batches())
def test_envelope_is_within_one_segment_of_the_best_plan_and_exact_is_the_best(batch: dict[str, Any]) -> None:
    curves, arguments, total = batch["curves"], batch["arguments"], batch["totals"][0]
    problem = pose(curves, total=total, **arguments)
    bound, envelope = lp_bound(problem), upper_envelope(problem)
    one_segment = problem.accuracy(float((envelope.price_N * envelope.cost_N).max(initial=0.0)))
    best = best_value(curves, total, arguments)
    found = {name: allocate(name, curves, total=total, **arguments).expected_accuracy for name in NAMES}
    assert best <= bound + TOLERANCE
    assert bound - one_segment - TOLERANCE <= found["envelope"] <= best + TOLERANCE
    assert found["greedy"] <= found["envelope"] + TOLERANCE
    assert found["envelope"] <= found["exact"] + TOLERANCE <= best + 2 * TOLERANCE
    is_whole = arguments["cost"] is Cost.SPENT and (curves.tokens_Q_B == np.rint(curves.tokens_Q_B)).all()
    if is_whole:  # whole units: nothing is rounded
        assert found["exact"] == pytest.approx(best, abs=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("allocator", ["envelope", "exact", "greedy"])
@examples(250)
@given(data=st.data(), batch=batches(is_bounded=False, costs=(Cost.SPENT,)))
def test_the_order_of_a_querys_options_changes_neither_value_nor_cost(
    allocator: str, data: st.DataObject, batch: dict[str, Any]
) -> None:
    curves, arguments, total = batch["curves"], batch["arguments"], batch["totals"][0]
    num_queries, num_options = curves.p_Q_B.shape
    # A cost of its own for each option: where two cost the same, which one is tried first is the menu's order.
    tokens_Q_B = curves.tokens_Q_B + np.argsort(np.argsort(curves.tokens_Q_B, axis=1), axis=1) / 64
    curves, total = (
        Curves(curves.query_ids, curves.menu, curves.p_Q_B, tokens_Q_B),
        total + num_queries * num_options / 64,
    )
    orders = [data.draw(st.permutations(range(num_options))) for _ in range(num_queries)]
    by_cost = reordered(curves, np.argsort(tokens_Q_B, axis=1))
    plans = [
        allocate(allocator, each, total=total, **arguments)
        for each in (curves, reordered(curves, np.array(orders)), by_cost)
    ]
    plans.append(allocate(allocator, by_cost, total=total, **arguments | {"any_order": False}))
    assert len({plan.expected_accuracy for plan in plans}) == 1
    assert len({plan.expected_spent for plan in plans}) == 1
    assert len({plan.price for plan in plans}) == 1


@pytest.mark.slow
@examples(300)
@given(batch=batches(), data=st.data())
def test_the_short_cut_of_large_batches_is_right_in_any_order(batch: dict[str, Any], data: st.DataObject) -> None:
    problem = pose(batch["curves"], total=batch["totals"][0], **batch["arguments"])
    whole = upper_envelope(problem)
    price_N = whole.price_N[whole.cost_N > 0]
    prices = st.one_of(st.floats(0, 2 * float(price_N.max(initial=1.0))), st.sampled_from([0.0, *price_N.tolist()]))
    low, high = sorted(data.draw(st.tuples(prices, prices)))
    bracketed, is_within_N = bracketed_envelope(problem, low, high), (whole.price_N >= low) & (whole.price_N <= high)
    for name in ("row_N", "column_N", "price_N", "cost_N"):
        assert getattr(bracketed, name).tolist() == getattr(whole, name)[is_within_N].tolist()
    assert bracketed.start_M.tolist() == whole.columns(whole.price_N > high).tolist()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mean", "arguments"), [(30, SPENT), (45, SPENT), (90, SPENT), (0.0001, USD), (0.0003, USD), (0.0008, USD)]
)
def test_a_large_batch_gets_the_plan_of_all_its_segments(mean: float, arguments: dict[str, Any]) -> None:
    curves = made_up(3 * hull.SAMPLE, seed=5)
    curves = priced(curves) if arguments is USD else curves
    problem = pose(curves, total=mean * len(curves.query_ids), **arguments)
    found, expected = fill(problem), fill_from(problem, upper_envelope(problem))
    assert (found.column_Q == expected.column_Q).all()
    assert (found.price, found.blocked, found.left) == (expected.price, expected.blocked, expected.left)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mean", "arguments"), [(30, SPENT), (40, SPENT), (70, SPENT), (0.0002, USD), (0.0004, USD), (0.0007, USD)]
)
def test_batches_of_hundreds_are_near_the_bound(mean: float, arguments: dict[str, Any]) -> None:
    curves, total = made_up(300, seed=3), 300.0 * mean
    curves = priced(curves) if arguments is USD else curves
    found = {name: allocate(name, curves, total=total, **arguments).expected_accuracy for name in NAMES}
    assert found["envelope"] <= found["exact"] + TOLERANCE <= lp_bound(pose(curves, total=total, **arguments)) + 1e-8
    assert found["envelope"] > found["exact"] - 1 / 300
    assert found["envelope"] > max(found["uniform"], found["greedy"])


def test_a_dear_model_with_a_short_thought_is_not_passed_over() -> None:
    """Each query has its own cheapest option; all of it fits in the sum of these."""
    curves = make_curves([[0.2, 0.9], [0.8, 0.1]], [[50, 20], [10, 30]])
    for name in NAMES:
        plan = allocate(name, curves, total=30, **SPENT)
        assert plan.budget_Q.tolist() == [32, 16]
        assert plan.expected_spent == 30
    with pytest.raises(InvalidTotalError, match="cost 30"):
        pose(curves, total=29, **SPENT)


def test_uniform_is_one_option_for_all_by_mean_cost() -> None:
    curves = make_curves([[0.5, 0.5, 0.5]] * 4, [[30, 10, 20], [30, 10, 20], [30, 10, 20], [30, 10, 24]])
    budgets = {total: allocate("uniform", curves, total=total, **SPENT).budget_Q.tolist() for total in (40, 84, 124)}
    assert budgets == {40: [32] * 4, 84: [48] * 4, 124: [16] * 4}
    assert set(allocate("uniform", curves, total=70, **SPENT).budget_Q.tolist()) == {32, 48}


@pytest.mark.slow
@examples(150)
@given(batch=batches(), seed=st.integers(0, 9))
def test_blind_does_not_see_who_has_which_accuracy_curve(batch: dict[str, Any], seed: int) -> None:
    curves, arguments, total = batch["curves"], batch["arguments"], batch["totals"][0]
    p_Q_B = np.random.default_rng(seed).permutation(curves.p_Q_B)
    swapped = replace(curves, p_Q_B=p_Q_B)
    first, second = (allocate("blind", each, total=total, **arguments) for each in (curves, swapped))
    assert first.budget_Q.tolist() == second.budget_Q.tolist()


def test_blind_is_one_curve_for_all_where_the_total_pays_for_its_start() -> None:
    """On average the first option is cheapest; the last query alone has a cheaper one, which scarcity makes it take."""
    curves = make_curves([[0.3, 0.2, 0.9]] * 4, [[10, 20, 40]] * 3 + [[10, 4, 40]])
    budgets = {total: allocate("blind", curves, total=total, **SPENT).budget_Q.tolist() for total in (34, 40, 70)}
    assert budgets[34] == [16, 16, 16, 32]
    assert budgets[40] == [16] * 4
    assert sorted(budgets[70]) == [16, 16, 16, 48]


@every_allocator
def test_falling_usage_is_refused_unless_the_caller_says_so(name: str) -> None:
    curves = make_curves([[0.2, 0.9]], [[50, 20]])
    with pytest.raises(InvalidInputError, match=r"'q0' .* must not fall"):
        allocate(name, curves, total=100, cost=Cost.SPENT)
    assert allocate(name, curves, total=100, **SPENT).notes
    assert allocate(name, curves, total=32, any_order=True).cost is Cost.GRANTED


@pytest.mark.parametrize("given", [{"mean_tokens": 40, **SPENT}, {"mean_usd": 0.0003}], ids=["spent", "usd"])
def test_a_price_decides_each_query_alone_in_any_order(given: dict[str, Any]) -> None:
    curves = made_up(200, seed=1)
    curves = priced(curves) if "mean_usd" in given else curves
    price, arguments = price_for(curves, **given), USD if "mean_usd" in given else SPENT
    column_Q, costs_Q_B = curves.menu.columns(budgets_at(curves, price=price, **arguments)), bills(curves, arguments)
    net_Q_B = curves.p_Q_B - price * costs_Q_B
    assert net_Q_B[np.arange(200), column_Q] == pytest.approx(net_Q_B.max(axis=1), abs=1e-9)
    assert costs_Q_B[np.arange(200), column_Q].mean() <= given.get("mean_usd", 40)
    whole = allocate("envelope", curves, total=200 * given.get("mean_usd", 40), **arguments)
    assert whole.price == pytest.approx(price)
    with pytest.raises(InvalidSettingsError, match="either mean_tokens or mean_usd"):
        price_for(curves)


def test_bills_of_single_precision_are_not_made_for_the_whole_batch() -> None:
    """A million queries on 48 options would take 384 MB more."""
    random, shape = np.random.default_rng(0), (50_000, 48)
    menu = Menu(tuple(range(1, 49)), tuple(Option(f"o{n}", price=Price(n / 7, 1.0 + n % 5)) for n in range(48)))
    p_Q_B, tokens_Q_B, input_Q_B = (random.random(shape, dtype=np.float32) for _ in range(3))
    curves = Curves(tuple(map(str, range(shape[0]))), menu, p_Q_B, 900 * tokens_Q_B, 90 * input_Q_B)
    tracemalloc.start()
    plan = allocate("envelope", curves, total=40.0, cost=Cost.USD)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 39.0 < plan.taken <= 40.0
    assert peak < 15e6 < 8 * shape[0] * shape[1]


def test_what_is_said_of_money() -> None:
    curves = priced(made_up(40, num_options=3, seed=2))
    most = float(curves.usd_Q_B.max(axis=1).sum())
    for name in NAMES:
        made = allocate(name, curves, total=2 * most, **USD)
        assert any("USD are left over" in note and "token" not in note for note in made.notes)
        assert made.expected_usd == pytest.approx(made.taken)
        assert made.cost_words.endswith("USD expected to be spent")
    worth = replace(curves, p_Q_B=curves.usd_Q_B / most)
    assert "every query has its most expensive option" in allocate("envelope", worth, total=2 * most, **USD).notes[0]
    with pytest.raises(InvalidTotalError, match=r"a total of 1e-06 USD cannot pay .* Give at least 0\.\d+, or"):
        allocate("envelope", curves, total=1e-6, **USD)
    assert curves.input_Q_B is not None
    unknown_Q_B = np.where(np.arange(40)[:, None] == 3, math.nan, curves.input_Q_B)
    with pytest.raises(InvalidInputError, match=r"'q3' .* tokens must be 0 or more"):
        allocate("envelope", replace(curves, input_Q_B=unknown_Q_B), total=1.0, **USD)
    coarse = allocate(ExactAllocator(unit=1e-4), curves, total=most / 2, **USD)
    assert any("units of 0.0001 USD" in note for note in coarse.notes)
    fine, greedy = (allocate(name, curves, total=most / 2, **USD) for name in ("exact", "greedy"))
    assert fine.expected_accuracy >= max(coarse.expected_accuracy, greedy.expected_accuracy) - TOLERANCE
