"""What every registered allocator promises, built-in or not; hypothesis looks for the batch that breaks a promise."""

from __future__ import annotations

import dataclasses
import math
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from forethought.allocators import Allocator, Problem, Solution, allocate, pose
from forethought.allocators.price import budgets_at, price_for
from forethought.core import registry
from forethought.core.allocation import Allocation
from forethought.core.data import Cost, Curves
from forethought.core.menu import Menu
from forethought.core.terms import TOKEN_COSTS
from forethought.errors import InvalidInputError, InvalidMenuError, InvalidSettingsError, InvalidTotalError


class AllOrNothing:
    """A stranger's allocator: what is best for each query if that fits, else the least. It has `solve` and no more."""

    def solve(self, problem: Problem) -> Solution:
        column_B = np.arange(problem.menu.num_options)
        is_allowed_Q_B = (column_B >= problem.first_Q[:, None]) & (column_B <= problem.last_Q[:, None])
        best_Q = np.where(is_allowed_Q_B, problem.value_Q_B, -1.0).argmax(axis=1)
        is_enough = problem.cost_Q_B[np.arange(problem.num_queries), best_Q].sum() <= problem.units
        return Solution(best_Q if is_enough else problem.first_Q)


NAMES = tuple(registry.available("allocators"))
EVERYONE = (*NAMES, AllOrNothing())
TOLERANCE = 1e-9
# Uniform does not consult the curves: it gives nobody less of a larger total, which may still expect less.
NAMES_THAT_CONSULT = tuple(name for name in NAMES if name != "uniform")

every_allocator = pytest.mark.parametrize("name", NAMES)
everyone = pytest.mark.parametrize("allocator", EVERYONE, ids=[*NAMES, "a stranger's"])
every_cost = pytest.mark.parametrize("cost", list(TOKEN_COSTS))


def examples(number: int) -> settings:
    """So many examples, however slow the machine: a busy one must not fail a property."""
    return settings(max_examples=number, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def make_curves(p_Q_B: Any, tokens_Q_B: Any = None, *, menu: Menu | None = None) -> Curves:
    p_Q_B = np.asarray(p_Q_B, dtype=np.float64)
    num_queries, num_options = p_Q_B.shape
    return Curves(
        query_ids=tuple(f"q{row}" for row in range(num_queries)),
        menu=menu or Menu.evenly(16, 16 * num_options),
        p_Q_B=p_Q_B,
        tokens_Q_B=None if tokens_Q_B is None else np.asarray(tokens_Q_B, dtype=np.float64),
    )


def columns(plan: Allocation) -> np.ndarray:
    return plan.menu.columns(plan.budget_Q)


def cost_of(plan: Allocation, curves: Curves) -> float:
    if plan.cost is Cost.GRANTED:
        return float(plan.budget_Q.sum())
    assert curves.tokens_Q_B is not None
    return math.fsum(curves.tokens_Q_B[np.arange(len(plan.budget_Q)), columns(plan)])


def least_total(curves: Curves, cost: Cost, min_budget_Q: Any = None) -> float:
    caps = curves.menu.caps
    least_Q = np.zeros(len(curves.query_ids)) if min_budget_Q is None else min_budget_Q
    first_Q = np.array([next(column for column, cap in enumerate(caps) if cap >= least) for least in least_Q])
    if cost is Cost.GRANTED:
        return float(sum(caps[column] for column in first_Q))
    assert curves.tokens_Q_B is not None
    return math.fsum(curves.tokens_Q_B[np.arange(len(first_Q)), first_Q])


@st.composite
def menus(draw: st.DrawFn) -> Menu:
    """Even and geometric menus, caps without a common step, zero as a cap, one option."""
    kind = draw(st.sampled_from(["even", "geometric", "any", "zero"]))
    num_options = draw(st.integers(1, 6))
    if kind == "even":
        return Menu.evenly(16, 16 * num_options)
    if kind == "geometric":
        return Menu.of(256 * 2**power for power in range(num_options))
    some = draw(st.lists(st.integers(1, 200), min_size=num_options, max_size=num_options))
    return Menu.of(some if kind == "any" else [0, *some])


@st.composite
def batches(draw: st.DrawFn) -> dict[str, Any]:
    """Curves of all shapes (noise, ties, jumps, falls) on any menu, a cost, bounds, weights, two totals in order."""
    menu = draw(menus())
    shape = num_queries, num_options = draw(st.integers(1, 7)), menu.num_options
    # In sixteenths, so that ties are common; or any number.
    chances = draw(st.sampled_from([st.integers(0, 16).map(lambda part: part / 16), st.floats(0, 1, width=32)]))
    p_Q_B = draw(arrays(np.float64, shape, elements=chances))
    steps = draw(
        st.sampled_from(
            [st.sampled_from([0.0, 1.0, 16.0]), st.floats(0, 20, width=32).map(lambda tokens: round(tokens, 3))]
        )
    )
    tokens_Q_B = np.cumsum(draw(arrays(np.float64, shape, elements=steps)), axis=1) + draw(st.sampled_from([0.0, 12.5]))
    curves = make_curves(p_Q_B, tokens_Q_B, menu=menu)
    cost = draw(st.sampled_from(list(TOKEN_COSTS)))
    arguments: dict[str, Any] = {"cost": cost}
    if draw(st.booleans()):
        columns = arrays(np.int64, (2, num_queries), elements=st.integers(0, num_options - 1))
        low_Q, high_Q = np.sort(draw(columns), axis=0)
        off_Q = draw(arrays(np.int64, num_queries, elements=st.integers(0, 3)))  # off the menu: rounded into it
        arguments["min_budget_Q"] = menu.at(low_Q) - np.minimum(off_Q, np.diff([0, *menu.caps])[low_Q] // 2)
        arguments["max_budget_Q"] = menu.at(high_Q) + off_Q
    if draw(st.booleans()):
        weight = st.sampled_from([0.0, 1.0, 2.5])
        weights = draw(st.lists(weight, min_size=num_queries, max_size=num_queries))
        if any(weights):
            arguments["weight_Q"] = np.array(weights)
    least = least_total(curves, cost, arguments.get("min_budget_Q"))
    most = float(menu.largest * num_queries) if cost is Cost.GRANTED else float(tokens_Q_B[:, -1].sum())
    shares = sorted(draw(st.tuples(st.floats(0, 1.1), st.floats(0, 1.1))))
    totals = [least + share * (most - least) for share in shares]
    return {"curves": curves, "arguments": arguments, "totals": totals}


@pytest.mark.slow
@everyone
@examples(120)
@given(batch=batches())
def test_a_plan_stays_within_total_menu_and_bounds(allocator: str | Allocator, batch: dict[str, Any]) -> None:
    curves, arguments, total = batch["curves"], batch["arguments"], batch["totals"][0]
    plan = allocate(allocator, curves, total=total, **arguments)

    assert cost_of(plan, curves) <= total * (1 + 1e-11)
    assert all(budget in curves.menu for budget in plan.budget_Q)
    assert (plan.budget_Q >= arguments.get("min_budget_Q", 0)).all()
    assert (plan.budget_Q <= arguments.get("max_budget_Q", curves.menu.largest)).all()
    assert plan.granted == plan.budget_Q.sum()
    assert plan.expected_spent == pytest.approx(cost_of(_as(plan, Cost.SPENT), curves))
    assert 0.0 <= plan.expected_accuracy <= 1.0
    assert plan.allocator == (allocator if isinstance(allocator, str) else "AllOrNothing")
    assert plan.query_ids == curves.query_ids


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name != "blind"])
@examples(60)
@given(batch=batches())
def test_expected_accuracy_is_the_weighted_mean_of_the_curves(name: str, batch: dict[str, Any]) -> None:
    curves, arguments = batch["curves"], batch["arguments"]
    plan = allocate(name, curves, total=batch["totals"][1], **arguments)
    success_Q = curves.p_Q_B[np.arange(len(plan.budget_Q)), columns(plan)]
    assert plan.expected_accuracy == pytest.approx(np.average(success_Q, weights=arguments.get("weight_Q")))


@pytest.mark.slow
@pytest.mark.parametrize("allocator", [*NAMES_THAT_CONSULT, AllOrNothing()])
@examples(250)
@given(batch=batches())
def test_a_larger_total_never_expects_less(allocator: str | Allocator, batch: dict[str, Any]) -> None:
    smaller, larger = (
        allocate(allocator, batch["curves"], total=total, **batch["arguments"]) for total in batch["totals"]
    )
    assert larger.expected_accuracy >= smaller.expected_accuracy - TOLERANCE


@pytest.mark.slow
@examples(150)
@given(batch=batches())
def test_uniform_gives_nobody_less_of_a_larger_total(batch: dict[str, Any]) -> None:
    smaller, larger = (
        allocate("uniform", batch["curves"], total=total, **batch["arguments"]) for total in batch["totals"]
    )
    assert (larger.budget_Q >= smaller.budget_Q).all()


@pytest.mark.slow
@everyone
@examples(60)
@given(batch=batches(), random=st.randoms(use_true_random=False))
def test_the_order_of_the_queries_does_not_matter(
    allocator: str | Allocator, batch: dict[str, Any], random: Any
) -> None:
    curves, arguments, total = batch["curves"], batch["arguments"], batch["totals"][0]
    order = list(range(len(curves.query_ids)))
    random.shuffle(order)
    shuffled = Curves(
        query_ids=tuple(curves.query_ids[row] for row in order),
        menu=curves.menu,
        p_Q_B=curves.p_Q_B[order],
        tokens_Q_B=curves.tokens_Q_B[order],
    )
    shuffled_arguments = {key: value[order] if key.endswith("_Q") else value for key, value in arguments.items()}
    plan = allocate(allocator, curves, total=total, **arguments)
    again = allocate(allocator, shuffled, total=total, **shuffled_arguments)
    assert dict(zip(plan.query_ids, plan.budget_Q.tolist(), strict=True)) == dict(
        zip(again.query_ids, again.budget_Q.tolist(), strict=True)
    )
    assert plan.expected_accuracy == again.expected_accuracy
    assert plan.price == again.price


@pytest.mark.slow
@everyone
@every_cost
def test_the_same_batch_gives_the_same_plan(allocator: str | Allocator, cost: Cost) -> None:
    curves = noisy_curves(num_queries=200)
    first, second = (allocate(allocator, curves, total=9_000, cost=cost) for _ in range(2))
    assert (first.budget_Q == second.budget_Q).all()
    assert first.notes == second.notes


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES_THAT_CONSULT)
@every_cost
def test_totals_in_small_steps_never_expect_less(name: str, cost: Cost) -> None:
    """Curves with dips and jumps, as measured ones have; batches past what the property above draws."""
    curves = noisy_curves(num_queries=40)
    least, most = (640.0, 40 * 256.0) if cost is Cost.GRANTED else (float(curves.tokens_Q_B[:, 0].sum()), 8000.0)
    accuracies = [
        allocate(name, curves, total=total, cost=cost).expected_accuracy for total in np.linspace(least, most, 40)
    ]
    assert np.diff(accuracies).min() >= -TOLERANCE
    assert accuracies[-1] > accuracies[0]


@pytest.mark.slow
@everyone
@examples(40)
@given(batch=batches())
def test_a_solution_has_its_schema(allocator: str | Allocator, batch: dict[str, Any]) -> None:
    problem = pose(batch["curves"], total=batch["totals"][1], **batch["arguments"])
    chosen: Allocator = registry.resolve("allocators", allocator)() if isinstance(allocator, str) else allocator
    solution = chosen.solve(problem)
    assert isinstance(solution, Solution)
    assert solution.column_Q.shape == (problem.num_queries,)
    assert solution.column_Q.dtype == np.int64
    assert ((problem.first_Q <= solution.column_Q) & (solution.column_Q <= problem.last_Q)).all()
    assert problem.left_after(solution.column_Q) >= 0
    assert solution.price is None or 0.0 <= solution.price < math.inf
    assert solution.expected_accuracy is None or 0.0 <= solution.expected_accuracy <= 1.0
    assert solution.why_left
    assert all(note.endswith(".") for note in solution.notes)


class Fixed:
    """Answers these columns, whatever is asked."""

    def __init__(self, *columns: Any) -> None:
        self.columns = columns

    def solve(self, problem: Problem) -> Solution:
        return Solution(np.array(self.columns))


@pytest.mark.parametrize(
    ("columns", "error", "words"),
    [
        pytest.param((0, 1), InvalidInputError, "shape (2,)", id="too-few"),
        pytest.param((0.0, 1.0, 0.0), InvalidInputError, "float64", id="no-whole-numbers"),
        pytest.param((0, 4, 0), InvalidMenuError, "'q1' column 4; it may have 0 to 3", id="past-the-menu"),
        pytest.param((0, 0, 2), InvalidMenuError, "'q2' column 2; it may have 0 to 1", id="past-a-bound"),
        pytest.param((3, 3, 0), InvalidTotalError, "spent 32 tokens past the total", id="past-the-total"),
    ],
)
def test_a_strangers_answer_that_is_no_solution_is_refused(columns: Any, error: type[Exception], words: str) -> None:
    curves = make_curves([[0.1, 0.2, 0.3, 0.4]] * 3)
    with pytest.raises(error) as caught:
        allocate(Fixed(*columns), curves, total=120, max_budget_Q=np.array([64, 64, 32]))
    assert words in str(caught.value)
    assert "'Fixed'" in str(caught.value)


@pytest.mark.slow
@examples(200)
@given(batch=batches())
def test_a_price_decides_each_query_alone_and_meets_the_mean(batch: dict[str, Any]) -> None:
    curves, cost, num_queries = batch["curves"], batch["arguments"]["cost"], len(batch["curves"].query_ids)
    mean_tokens = max(batch["totals"][0], least_total(curves, cost)) / num_queries * (1 + 1e-9)
    price = price_for(curves, mean_tokens=mean_tokens, cost=cost)
    budget_Q = budgets_at(curves, price=price, cost=cost)
    rows = np.arange(num_queries)
    for row, budget in enumerate(budget_Q.tolist()):
        one = Curves(("q",), curves.menu, curves.p_Q_B[row : row + 1], curves.tokens_Q_B[row : row + 1])
        assert price == 0.0 or budgets_at(one, price=price * (1 + 1e-12), cost=cost).tolist() == [budget]
    tokens_Q_B = curves.tokens_Q_B if cost is Cost.SPENT else np.tile(curves.menu.budgets_B, (num_queries, 1))
    spent, spent_below = (
        tokens_Q_B[rows, curves.menu.columns(budgets_at(curves, price=each, cost=cost))].sum()
        for each in (price, price * (1 - 1e-12))
    )
    assert spent <= mean_tokens * num_queries * (1 + 1e-9)
    assert price == 0.0 or spent_below > mean_tokens * num_queries * (1 - 1e-9)


def test_a_note_on_a_menu_that_doubles_says_what_the_next_budget_takes() -> None:
    menu = Menu.parse("geometric:256:32768")
    plan = allocate("uniform", make_curves([np.linspace(0.1, 0.8, 8)] * 3, menu=menu), total=3 * 4096 + 3000)
    assert plan.budget_Q.tolist() == [4096] * 3
    assert plan.notes == (
        "3,000 of 15,288 tokens are left over: the next larger budget of any query takes at least 4,096 more.",
    )


def noisy_curves(*, num_queries: int, seed: int = 0) -> Curves:
    """Few traces of jumps at random places: dips, ties, steps; spend that flattens as traces stop by themselves."""
    random = np.random.default_rng(seed)
    budgets_B = np.arange(16, 257, 16)
    jump_Q = random.uniform(0, 300, size=num_queries)
    p_Q_B = random.uniform(0.3, 1, size=(num_queries, 1)) / (1 + np.exp((jump_Q[:, None] - budgets_B) / 10))
    p_Q_B = random.binomial(8, p_Q_B) / 8
    stop_Q = random.uniform(40, 300, size=num_queries)
    return make_curves(p_Q_B, 14 + np.minimum(budgets_B, stop_Q[:, None]))


@everyone
@pytest.mark.parametrize(
    ("p_Q_B", "total"),
    [
        pytest.param([[0.1, 0.5, 0.2, 0.9]], 64, id="one-query"),
        pytest.param([[0.1, 0.5, 0.2, 0.9]], 16, id="one-query-one-window"),
        pytest.param([[0.4]] * 5, 80, id="one-budget"),
        pytest.param([[0.5] * 4] * 6, 200, id="all-equal"),
        pytest.param([[0.0] * 4] * 6, 200, id="all-zero"),
        pytest.param([[0.9, 0.6, 0.3, 0.0]] * 6, 200, id="decreasing"),
        pytest.param([[0.0, 0.0, 0.0, 1.0]] * 6, 200, id="one-jump-at-the-end"),
        pytest.param([[0.1, 0.2, 0.3, 0.4]] * 6, 1e15, id="huge-total"),
    ],
)
def test_odd_batches(allocator: str | Allocator, p_Q_B: list[list[float]], total: float) -> None:
    curves = make_curves(p_Q_B)
    plan = allocate(allocator, curves, total=total)
    assert cost_of(plan, curves) <= total
    assert all(budget in curves.menu for budget in plan.budget_Q)


@pytest.mark.parametrize("name", NAMES_THAT_CONSULT)
def test_decreasing_curves_get_the_least_and_a_note_says_what_is_left(name: str) -> None:
    plan = allocate(name, make_curves([[0.9, 0.6, 0.3, 0.0]] * 6), total=200)
    assert (plan.budget_Q == 16).all()
    assert "104 of 200 tokens are left over" in plan.notes[0]


@pytest.mark.parametrize("name", NAMES_THAT_CONSULT)
@every_cost
def test_leftover_goes_where_the_curves_see_no_loss(name: str, cost: Cost) -> None:
    flat_then_falling, flat = [0.5, 0.5, 0.4, 0.3], [0.5, 0.5, 0.5, 0.5]
    curves = make_curves([flat_then_falling, flat], [[16, 32, 48, 64]] * 2)
    plan = allocate(name, curves, total=128, cost=cost)
    if name == "blind":  # it sees one mean curve: 0.5, 0.5, 0.45, 0.4
        assert plan.budget_Q.tolist() == [32, 32]
    else:
        assert plan.budget_Q.tolist() == [32, 64]


@every_allocator
def test_a_huge_total_gives_rising_curves_their_most(name: str) -> None:
    plan = allocate(name, make_curves([[0.1, 0.2, 0.3, 0.4]] * 6), total=1e15)
    assert (plan.budget_Q == 64).all()
    assert "every query has its largest budget" in plan.notes[0]


@pytest.mark.parametrize("name", ["envelope", "exact", "greedy"])
def test_weights_decide_between_equal_queries(name: str) -> None:
    curves = make_curves([[0.2, 0.6]] * 3)
    plan = allocate(name, curves, total=64, weight_Q=np.array([1.0, 1.0, 3.0]))
    assert plan.budget_Q.tolist() == [16, 16, 32]
    assert plan.expected_accuracy == pytest.approx((0.2 + 0.2 + 3 * 0.6) / 5)


@every_allocator
@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        pytest.param({"total": 15}, InvalidTotalError, ["15", "48"], id="under-one-window-each"),
        pytest.param({"total": 0}, InvalidTotalError, ["at least 48"], id="zero"),
        pytest.param({"total": -1}, InvalidTotalError, ["at least 48"], id="negative"),
        pytest.param({"total": math.nan}, InvalidTotalError, ["nan"], id="nan-total"),
        pytest.param({"total": math.inf}, InvalidTotalError, ["inf"], id="infinite-total"),
        pytest.param(
            {"total": 100, "min_budget_Q": np.array([48, 48, 17])}, InvalidTotalError, ["at least 128"], id="minimums"
        ),
        pytest.param(
            {"total": 10, "cost": Cost.SPENT, "tokens": True}, InvalidTotalError, ["at least 31"], id="minimums-spent"
        ),
        pytest.param(
            {"total": 100, "cost": Cost.SPENT}, InvalidSettingsError, ["usage curve", "--cost granted"], id="no-tokens"
        ),
        pytest.param(
            {"total": 500, "min_budget_Q": np.array([16, 64, 16]), "max_budget_Q": np.array([64, 32, 64])},
            InvalidMenuError,
            ["'q1'", "64", "32"],
            id="minimum-above-maximum",
        ),
        pytest.param(
            {"total": 500, "max_budget_Q": np.array([64, 15, 64])}, InvalidMenuError, ["'q1'"], id="maximum-too-small"
        ),
        pytest.param({"total": 500, "weight_Q": np.array([1.0, -1.0, 1.0])}, InvalidInputError, ["'q1'"], id="weight"),
        pytest.param({"total": 500, "weight_Q": np.full(3, 1e308)}, InvalidInputError, ["'q0'"], id="weight-sum"),
        pytest.param({"total": 500, "weight_Q": np.zeros(3)}, InvalidInputError, ["every weight is 0"], id="weights-0"),
        pytest.param({"total": 500, "weight_Q": np.ones(2)}, InvalidInputError, ["(2,)", "3"], id="weights-too-few"),
        pytest.param({"total": 500, "min_budget_Q": np.ones(2)}, InvalidInputError, ["(2,)"], id="bounds-too-few"),
    ],
)
def test_what_cannot_be_taken_is_refused(
    name: str, arguments: dict[str, Any], error: type[Exception], words: list[str]
) -> None:
    arguments = dict(arguments)
    tokens = [[10.2, 20, 30, 40]] * 3 if arguments.pop("tokens", False) else None
    with pytest.raises(error) as caught:
        allocate(name, make_curves([[0.1, 0.2, 0.3, 0.4]] * 3, tokens), **arguments)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@every_allocator
@pytest.mark.parametrize(
    ("p_Q_B", "tokens_Q_B", "words"),
    [
        pytest.param([[0.1, 0.2], [0.3, math.nan]], None, ["'q1'", "budget 32"], id="nan-success"),
        pytest.param([[0.1, 0.2], [1.01, 0.5]], None, ["'q1'", "budget 16", "[0, 1]"], id="above-one"),
        pytest.param([[0.1, 0.2], [-0.1, 0.5]], None, ["'q1'", "budget 16"], id="below-zero"),
        pytest.param([[0.1, 0.2]] * 2, [[1, 2], [1, math.nan]], ["'q1'", "budget 32"], id="nan-tokens"),
        pytest.param([[0.1, 0.2]] * 2, [[1, 2], [1, math.inf]], ["'q1'", "budget 32"], id="infinite-tokens"),
        pytest.param([[0.1, 0.2]] * 2, [[1, 2], [2, 1]], ["'q1'", "must not fall"], id="falling-tokens"),
        pytest.param([[0.1, 0.2]] * 2, [[1, 2, 3]] * 2, ["(2, 3)", "(2, 2)"], id="shape"),
        pytest.param(np.empty((0, 2)), None, ["no queries"], id="empty"),
    ],
)
def test_curves_that_cannot_be_true_are_refused(name: str, p_Q_B: Any, tokens_Q_B: Any, words: list[str]) -> None:
    with pytest.raises(InvalidInputError) as caught:
        allocate(name, make_curves(p_Q_B, tokens_Q_B), total=500)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@every_allocator
def test_an_id_used_twice_is_refused(name: str) -> None:
    curves = Curves(query_ids=("a", "b", "a"), menu=Menu.evenly(16, 32), p_Q_B=np.full((3, 2), 0.5))
    with pytest.raises(InvalidInputError, match="'a' is used by more than one"):
        allocate(name, curves, total=500)


@every_allocator
@every_cost
def test_the_total_a_refusal_asks_for_is_enough(name: str, cost: Cost) -> None:
    curves = noisy_curves(num_queries=30)
    with pytest.raises(InvalidTotalError) as caught:
        allocate(name, curves, total=3, cost=cost)
    needed = int(str(caught.value).split("Give at least ")[1].split(",")[0])
    plan = allocate(name, curves, total=needed, cost=cost)
    assert cost_of(plan, curves) <= needed


def _as(plan: Allocation, cost: Cost) -> Allocation:
    return dataclasses.replace(plan, cost=cost)


@pytest.mark.parametrize("allocator", ["envelope", "exact", "blind"])
@pytest.mark.parametrize("total", [4, 9, 13, 17, 40], ids=str)
def test_spare_tokens_raise_the_smallest_caps_first(allocator: str, total: int) -> None:
    """Where nothing more is to be won the caps come up together: none stays low beside one that takes all."""
    menu = Menu.evenly(512, 32 * 512)
    p_Q_B = np.full((4, 32), 0.5)
    p_Q_B[3, :8] = np.linspace(0.1, 0.49, 8)  # this one needs more
    curves = Curves(("a", "b", "c", "d"), menu, np.tile(p_Q_B[:1], (4, 1)) if allocator == "blind" else p_Q_B)
    plan = allocate(allocator, curves, total=512 * total)
    columns = sorted((plan.budget_Q // 512).tolist())
    assert sum(columns) <= total
    if allocator == "blind" or total >= 40:
        assert columns[-1] - columns[0] <= 1
    elif total >= 12:  # it has its 9, the others share the rest
        assert columns[-1] == 9
        assert columns[2] - columns[0] <= 1
        assert sum(columns) == total
