"""How good the plans are: exact against brute force and an integer-programming solver, envelope against its bounds."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import LinearConstraint, linprog, milp
from scipy.sparse import coo_array

from forethought.allocators import allocate, pose
from forethought.allocators.exact import ExactAllocator
from forethought.allocators.hull import upper_envelope
from forethought.allocators.price import lp_bound
from forethought.core.data import Cost, Curves
from forethought.core.menu import Menu
from forethought.core.terms import TOKEN_COSTS
from forethought.errors import InvalidSettingsError

TOLERANCE = 1e-9


def examples(number: int) -> settings:
    """So many examples, however slow the machine: a busy one must not fail a property."""
    return settings(max_examples=number, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def make_curves(p_Q_B: Any, tokens_Q_B: Any = None, *, menu: Menu | None = None) -> Curves:
    p_Q_B = np.asarray(p_Q_B, dtype=np.float64)
    num_queries, num_budgets = p_Q_B.shape
    tokens_Q_B = None if tokens_Q_B is None else np.asarray(tokens_Q_B, dtype=np.float64)
    return Curves(
        tuple(f"q{row}" for row in range(num_queries)), menu or Menu.evenly(16, 16 * num_budgets), p_Q_B, tokens_Q_B
    )


def jumpy_curves(num_queries: int, *, num_budgets: int = 16, seed: int = 0) -> Curves:
    """Measured-looking curves: dips, a jump somewhere, whole tokens that flatten out."""
    random = np.random.default_rng(seed)
    budgets_B = 16 * np.arange(1, num_budgets + 1)
    jump_Q_1 = random.uniform(0, 1.2 * budgets_B[-1], size=(num_queries, 1))
    p_Q_B = random.binomial(20, random.uniform(0.2, 1, (num_queries, 1)) / (1 + np.exp((jump_Q_1 - budgets_B) / 8)))
    stop_Q_1 = random.integers(20, 17 * num_budgets, size=(num_queries, 1))
    return make_curves(p_Q_B / 20, 12 + np.minimum(budgets_B, stop_Q_1))


def brute_force(curves: Curves, total: float, cost: Cost) -> float:
    """Mean success of the best of all plans."""
    costs_Q_B = (
        np.broadcast_to(curves.menu.budgets_B, curves.p_Q_B.shape) if cost is Cost.GRANTED else curves.tokens_Q_B
    )
    rows = np.arange(len(curves.query_ids))
    best = -math.inf
    for choice_Q in itertools.product(range(curves.p_Q_B.shape[1]), repeat=len(rows)):
        if costs_Q_B[rows, list(choice_Q)].sum() <= total:
            best = max(best, float(curves.p_Q_B[rows, list(choice_Q)].mean()))
    return best


def integer_program(curves: Curves, total: float, cost: Cost) -> float:
    """Mean success of the best plan, by HiGHS."""
    num_queries, num_budgets = curves.p_Q_B.shape
    costs_Q_B = (
        np.broadcast_to(curves.menu.budgets_B, curves.p_Q_B.shape) if cost is Cost.GRANTED else curves.tokens_Q_B
    )
    cells = np.arange(num_queries * num_budgets)
    one_each = coo_array((np.ones(len(cells)), (cells // num_budgets, cells)))
    found = milp(
        -curves.p_Q_B.ravel(),
        integrality=np.ones(len(cells)),
        bounds=(0, 1),
        constraints=[LinearConstraint(one_each, 1, 1), LinearConstraint(costs_Q_B.ravel()[None], -np.inf, total)],
        options={"mip_rel_gap": 0.0},
    )
    assert found.status == 0
    return -found.fun / num_queries


def linear_relaxation(curves: Curves, total: float, cost: Cost) -> float:
    """Mean success of the best mixture of plans, by HiGHS; granted totals count in whole units."""
    num_queries, num_budgets = curves.p_Q_B.shape
    costs_Q_B = (
        np.broadcast_to(curves.menu.budgets_B, curves.p_Q_B.shape) if cost is Cost.GRANTED else curves.tokens_Q_B
    )
    cells = np.arange(num_queries * num_budgets)
    found = linprog(
        -curves.p_Q_B.ravel(),
        A_eq=coo_array((np.ones(len(cells)), (cells // num_budgets, cells))),
        b_eq=np.ones(num_queries),
        A_ub=costs_Q_B.ravel()[None],
        b_ub=total // curves.menu.unit * curves.menu.unit if cost is Cost.GRANTED else total,
        bounds=(0, 1),
        method="highs",
    )
    assert found.status == 0
    return -found.fun / num_queries


@st.composite
def small_batches(draw: st.DrawFn) -> tuple[Curves, float, Cost]:
    even, geometric = Menu.evenly(16, 64), Menu.parse("geometric:256:2048")
    some = st.lists(st.integers(0, 300), min_size=1, max_size=3).map(lambda caps: Menu.of([*caps, 301]))
    menu = draw(st.one_of(st.sampled_from([even, geometric, Menu.of([0, 512]), Menu.of([16])]), some))
    shape = draw(st.integers(1, 5)), menu.num_options
    chances = draw(st.sampled_from([st.integers(0, 8).map(lambda part: part / 8), st.floats(0, 1, width=32)]))
    p_Q_B = draw(arrays(np.float64, shape, elements=chances))
    tokens_Q_B = 1 + np.cumsum(draw(arrays(np.int64, shape, elements=st.integers(0, 20))), axis=1)
    cost = draw(st.sampled_from(list(TOKEN_COSTS)))
    ends = shape[0] * menu.smallest, shape[0] * menu.largest
    least, most = ends if cost is Cost.GRANTED else tokens_Q_B[:, [0, -1]].sum(axis=0)
    return make_curves(p_Q_B, tokens_Q_B, menu=menu), float(draw(st.integers(int(least), int(most) + 5))), cost


@pytest.mark.slow
@examples(150)
@given(batch=small_batches())
def test_exact_is_the_best_of_all_plans(batch: tuple[Curves, float, Cost]) -> None:
    curves, total, cost = batch
    plan = allocate("exact", curves, total=total, cost=cost)
    assert plan.expected_accuracy == pytest.approx(brute_force(curves, total, cost), abs=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("cost", list(TOKEN_COSTS))
@pytest.mark.parametrize("mean_tokens", [30, 48, 90, 160])
def test_exact_agrees_with_an_integer_program(cost: Cost, mean_tokens: int) -> None:
    curves, total = jumpy_curves(60, seed=mean_tokens), 60.0 * mean_tokens
    plan = allocate("exact", curves, total=total, cost=cost)
    assert plan.expected_accuracy == pytest.approx(integer_program(curves, total, cost), abs=1e-8)


def predicted_curves(num_queries: int, *, seed: int = 0) -> Curves:
    """Predicted-looking curves: no two numbers equal, small dips everywhere, spend of any fraction of a token."""
    random = np.random.default_rng(seed)
    budgets_B = 16 * np.arange(1, 17)
    jump_Q_1, height_Q_1 = random.uniform(0, 400, (num_queries, 1)), random.uniform(0.1, 1, (num_queries, 1))
    p_Q_B = height_Q_1 / (1 + np.exp((jump_Q_1 - budgets_B) / 12)) + random.normal(0, 0.01, (num_queries, 16))
    stop_Q_1 = random.uniform(30, 400, (num_queries, 1))
    return make_curves(np.clip(p_Q_B, 0, 1), 14 + stop_Q_1 * (1 - np.exp(-budgets_B / stop_Q_1)))


@pytest.mark.slow
@pytest.mark.parametrize("cost", list(TOKEN_COSTS))
@pytest.mark.parametrize("mean_tokens", [48.3, 64, 128])
@pytest.mark.parametrize("make", [jumpy_curves, predicted_curves])
def test_at_a_thousand_queries_envelope_is_near_exact_and_neither_passes_the_relaxation(
    make: Any, mean_tokens: float, cost: Cost
) -> None:
    curves, total = make(1000, seed=3), 1000 * mean_tokens
    envelope = allocate("envelope", curves, total=total, cost=cost).expected_accuracy
    exact = allocate("exact", curves, total=total, cost=cost).expected_accuracy
    bound = linear_relaxation(curves, total, cost)
    assert 1 - envelope / exact <= 1e-4
    assert envelope <= exact + TOLERANCE
    assert exact <= bound + TOLERANCE
    assert lp_bound(pose(curves, total=total, cost=cost)) == pytest.approx(bound, abs=1e-9)


EXACT_FIT = make_curves(
    [[0.0, 0.0, 0.0, 0.0], [0.0, 0.125, 0.0, 0.0], [0.0, 0.0, 0.25, 0.0]],
    [[10, 27, 44, 61], [18, 35, 52, 69], [18, 19, 36, 53]],
)


@pytest.mark.slow
@examples(200)
@given(batch=small_batches())
@example(batch=(EXACT_FIT, 63.0, Cost.SPENT))  # what is left pays for one raise to the token
def test_envelope_lies_between_greedy_and_exact_and_within_one_segment_of_the_relaxation(
    batch: tuple[Curves, float, Cost],
) -> None:
    curves, total, cost = batch
    accuracy = allocate("envelope", curves, total=total, cost=cost).expected_accuracy
    exact = allocate("exact", curves, total=total, cost=cost).expected_accuracy
    greedy = allocate("greedy", curves, total=total, cost=cost).expected_accuracy
    bound = lp_bound(pose(curves, total=total, cost=cost))
    envelope = upper_envelope(pose(curves, total=total, cost=cost))
    one_segment = float((envelope.price_N * envelope.cost_N).max(initial=0.0)) / len(curves.query_ids)
    assert greedy - TOLERANCE <= accuracy <= exact + TOLERANCE
    assert bound - one_segment - TOLERANCE <= accuracy
    assert exact <= bound + TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("cost", list(TOKEN_COSTS))
@pytest.mark.parametrize("mean_tokens", [30, 48, 90, 160])
def test_the_same_order_holds_for_batches_of_hundreds(cost: Cost, mean_tokens: int) -> None:
    curves, total = jumpy_curves(300, seed=mean_tokens), 300.0 * mean_tokens
    accuracy = {
        name: allocate(name, curves, total=total, cost=cost).expected_accuracy
        for name in ("uniform", "blind", "greedy", "envelope", "exact")
    }
    assert accuracy["greedy"] < accuracy["envelope"] + TOLERANCE
    assert accuracy["envelope"] <= accuracy["exact"] + TOLERANCE
    assert accuracy["exact"] <= lp_bound(pose(curves, total=total, cost=cost)) + TOLERANCE
    assert accuracy["exact"] - accuracy["envelope"] < 1 / 300
    assert accuracy["exact"] > accuracy["uniform"] + 0.05


def test_greedy_stalls_before_a_jump_that_the_envelope_makes() -> None:
    """The published greedy takes small sure gains, window by window; the envelope sees the price of a jump."""
    jump = [0.1, 0.0, 0.0, 1.0]
    creep = [0.1, 0.15, 0.2, 0.25]
    curves = make_curves([jump] * 4 + [creep] * 4)
    total = 8 * 16 + 6 * 16
    greedy = allocate("greedy", curves, total=total)
    envelope = allocate("envelope", curves, total=total)
    assert envelope.budget_Q.tolist().count(64) == 2
    assert envelope.expected_accuracy > greedy.expected_accuracy + 0.1


class TestUniform:
    @pytest.mark.parametrize(
        ("mean_tokens", "budgets"),
        [
            pytest.param(48, {48: 80}, id="a-whole-window"),
            pytest.param(50, {48: 70, 64: 10}, id="two-tokens-over-give-one-in-eight-a-window-more"),
            pytest.param(63.9, {48: 1, 64: 79}, id="nearly-the-next"),
            pytest.param(1000, {96: 80}, id="never-above-the-grid"),
        ],
    )
    def test_the_same_cap_for_all_and_the_rest_by_window(self, mean_tokens: float, budgets: dict[int, int]) -> None:
        plan = allocate("uniform", make_curves(np.full((80, 6), 0.5)), total=80 * mean_tokens)
        assert dict(zip(*(array.tolist() for array in np.unique(plan.budget_Q, return_counts=True)), strict=True)) == (
            budgets
        )

    def test_who_gets_the_extra_window_is_not_the_first_in_the_file(self) -> None:
        plan = allocate("uniform", make_curves(np.full((80, 6), 0.5)), total=80 * 50)
        assert np.flatnonzero(plan.budget_Q == 64).tolist() != list(range(10))

    def test_bounds_clip_the_common_cap_and_others_get_what_they_leave(self) -> None:
        plan = allocate("uniform", make_curves(np.full((3, 6), 0.5)), total=144, max_budget_Q=np.array([16, 96, 96]))
        assert plan.budget_Q.tolist() == [16, 64, 64]

    def test_under_spent_cost_the_cap_is_larger_where_traces_stop_by_themselves(self) -> None:
        curves = make_curves(np.full((4, 4), 0.5), [[16, 20, 21, 22]] * 4)
        assert (allocate("uniform", curves, total=84, cost=Cost.SPENT).budget_Q == 48).all()


class TestBlind:
    def test_every_query_is_planned_by_the_mean_curve(self) -> None:
        """Two queries that only one jump helps: blind buys whole jumps of the mean curve, for whom the hash says."""
        never, jump = [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]
        curves = make_curves([never, jump] * 20)
        plan = allocate("blind", curves, total=40 * 16 + 10 * 48)
        assert sorted(plan.budget_Q.tolist()) == [16] * 30 + [64] * 10
        assert 0 < (plan.budget_Q[1::2] == 64).sum() < 10
        assert plan.expected_accuracy == pytest.approx(10 * 0.5 / 40)

    def test_is_the_envelope_when_all_curves_are_the_same(self) -> None:
        curves = make_curves([[0.1, 0.05, 0.4, 0.45]] * 30, [[10, 20, 30, 35]] * 30)
        for cost in TOKEN_COSTS:
            blind, envelope = (
                allocate(name, curves, total=700, cost=cost).expected_accuracy for name in ("blind", "envelope")
            )
            assert blind == pytest.approx(envelope, abs=1 / 30)

    @pytest.mark.slow
    @examples(100)
    @given(batch=small_batches(), seed=st.integers(0, 9))
    def test_its_order_does_not_depend_on_who_has_which_curve(
        self, batch: tuple[Curves, float, Cost], seed: int
    ) -> None:
        """Swapping the accuracy curves among the queries changes nothing: only their mean was seen."""
        curves, total, cost = batch
        p_Q_B = np.random.default_rng(seed).permutation(curves.p_Q_B)
        swapped = Curves(curves.query_ids, curves.menu, p_Q_B, curves.tokens_Q_B)
        first, second = (allocate("blind", each, total=total, cost=cost) for each in (curves, swapped))
        assert (first.budget_Q == second.budget_Q).all()


UNEVEN = Menu.of([0, 100, 333, 1024, 5001, 12000, 32768])


class TestExactLimits:
    def test_caps_without_a_common_step_are_counted_in_coarser_units_which_a_note_says(self) -> None:
        random = np.random.default_rng(0)
        curves = make_curves(np.sort(random.random((150, UNEVEN.num_options)), axis=1), menu=UNEVEN)
        totals = np.linspace(150 * 900, 150 * 12_000, 12)
        plans = [allocate("exact", curves, total=total) for total in totals]
        assert all(plan.granted <= total for plan, total in zip(plans, totals, strict=True))
        assert np.diff([plan.expected_accuracy for plan in plans]).min() >= 0.0
        for plan in plans:
            envelope = allocate("envelope", curves, total=plan.total)
            bound = lp_bound(pose(curves, total=plan.total))
            assert envelope.expected_accuracy <= plan.expected_accuracy <= bound + TOLERANCE
            assert any("counted in units of 32 tokens" in note for note in plan.notes)

    def test_a_few_queries_are_solved_to_the_token(self) -> None:
        curves = make_curves(np.sort(np.random.default_rng(1).random((6, 7)), axis=1), menu=UNEVEN)
        plan = allocate("exact", curves, total=31_337)
        assert plan.expected_accuracy == pytest.approx(brute_force(curves, 31_337, Cost.GRANTED), abs=TOLERANCE)
        assert not any("units" in note for note in plan.notes)

    def test_a_batch_past_its_limit_is_refused_with_the_limit_and_what_to_use(self) -> None:
        curves = jumpy_curves(20_000)
        with pytest.raises(InvalidSettingsError, match=r"too large .* limit is 6,000,000,000 .*--allocator envelope"):
            allocate("exact", curves, total=20_000 * 128)

    @pytest.mark.parametrize("unit", [0.0, -1.0, math.inf, math.nan])
    def test_a_unit_that_is_no_length_is_refused(self, unit: float) -> None:
        with pytest.raises(InvalidSettingsError, match="must be above 0"):
            ExactAllocator(unit=unit)

    def test_a_coarser_unit_never_passes_the_total(self) -> None:
        curves = jumpy_curves(30)
        plan = allocate(ExactAllocator(unit=7.0), curves, total=2000, cost=Cost.SPENT)
        assert plan.expected_spent <= 2000


@pytest.mark.parametrize("shape", [(1, 4), (5, 1), (3, 4)])
def test_planning_leaves_the_curves_as_they_were(shape: tuple[int, int]) -> None:
    p_Q_B = np.linspace(0.9, 0.1, math.prod(shape)).reshape(shape) ** 2
    curves = make_curves(p_Q_B[:, ::-1].copy(), np.cumsum(np.ones(shape), axis=1))
    before, tokens = curves.p_Q_B.copy(), curves.tokens_Q_B.copy()
    for name in ("uniform", "blind", "greedy", "envelope", "exact"):
        for cost in TOKEN_COSTS:
            allocate(name, curves, total=shape[0] * 16 + 1, cost=cost)
            assert (curves.p_Q_B == before).all()
            assert (curves.tokens_Q_B == tokens).all()
