"""Large batches: memory by query, and the short cuts that make them fast against what they stand for."""

from __future__ import annotations

import math
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from forethought.allocators import Problem, allocate, hull, pose
from forethought.allocators.costs import exact_sum
from forethought.allocators.greedy import GreedyAllocator
from forethought.allocators.hull import Envelope, bracketed_envelope, fill, fill_from, upper_envelope
from forethought.core.data import Cost, Curves
from forethought.core.menu import Menu
from forethought.core.terms import TOKEN_COSTS
from forethought.errors import InvalidInputError

pytestmark = pytest.mark.slow

TOLERANCE = 1e-9
every_cost = pytest.mark.parametrize("cost", list(TOKEN_COSTS))


def examples(number: int) -> settings:
    """So many examples, however slow the machine: a busy one must not fail a property."""
    return settings(max_examples=number, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def made_up(num_queries: int, *, num_budgets: int = 16, dtype: Any = np.float64, seed: int = 0) -> Curves:
    """Curves with dips and a jump somewhere; spend that flattens."""
    random = np.random.default_rng(seed)
    budgets_B = 16 * np.arange(1, num_budgets + 1)
    jump_Q_1, stop_Q_1 = random.uniform(0, 20 * num_budgets, (2, num_queries, 1))
    p_Q_B = 1 / (1 + np.exp((jump_Q_1 - budgets_B) / 12)) + random.normal(0, 0.02, (num_queries, num_budgets))
    return Curves(
        tuple(f"q{row}" for row in range(num_queries)),
        Menu.evenly(16, 16 * num_budgets),
        np.clip(p_Q_B, 0, 1).astype(dtype),
        (14 + np.minimum(budgets_B, stop_Q_1)).astype(dtype),
    )


@every_cost
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_memory_is_a_few_hundred_bytes_a_query(cost: Cost, dtype: Any) -> None:
    """A million queries then take well under 1 GB, ten million ten times that; temporaries count, curves do not."""
    num_bytes = {}
    for num_queries in (100_000, 200_000):
        curves = made_up(num_queries, dtype=dtype)
        tracemalloc.start()
        allocate("envelope", curves, total=64 * num_queries, cost=cost)
        num_bytes[num_queries] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert num_bytes[200_000] < 400 * 200_000
    assert num_bytes[200_000] < 2.2 * num_bytes[100_000]


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Problems with ties, jumps, falls, bounds and weights, and a total anywhere between least and most."""
    shape = num_queries, num_budgets = draw(st.integers(1, 12)), draw(st.integers(1, 7))
    chances = draw(st.sampled_from([st.integers(0, 8).map(lambda part: part / 8), st.floats(0, 1, width=32)]))
    p_Q_B = draw(arrays(draw(st.sampled_from([np.float64, np.float32])), shape, elements=chances))
    steps = draw(st.sampled_from([st.sampled_from([0.0, 1.0, 16.0]), st.floats(0, 20, width=32)]))
    tokens_Q_B = np.cumsum(draw(arrays(np.float64, shape, elements=steps)), axis=1)
    menu = Menu.evenly(16, 16 * num_budgets)
    curves = Curves(tuple(f"q{row}" for row in range(num_queries)), menu, p_Q_B, tokens_Q_B)
    arguments: dict[str, Any] = {"cost": draw(st.sampled_from(list(TOKEN_COSTS)))}
    if draw(st.booleans()):
        low_Q = draw(arrays(np.int64, num_queries, elements=st.integers(0, num_budgets)))
        span_Q = draw(arrays(np.int64, num_queries, elements=st.integers(0, num_budgets)))
        arguments |= {"min_budget_Q": 16 * low_Q, "max_budget_Q": 16 * np.maximum(low_Q + span_Q, 1)}
    if draw(st.booleans()):
        weight_Q = draw(arrays(np.float64, num_queries, elements=st.sampled_from([0.0, 1.0, 2.5, 1000.0])))
        if weight_Q.any():
            arguments["weight_Q"] = weight_Q
    most = pose(curves, total=1e9, **arguments)
    least = int(most.costs.at_each(most.first_Q).sum())
    units = least + int(draw(st.floats(0, 1)) * (most.units - least))
    # Rounded up by less than a unit, so that the least is enough whatever the product rounds to.
    return pose(curves, total=(units + 0.25) * most.costs.unit, **arguments)


def columns_at(envelope: Envelope, price: float) -> list[int]:
    """Where the segments dearer than `price` lead."""
    column_M = envelope.start_M.copy()
    for row, column, of_segment in zip(envelope.row_N, envelope.column_N, envelope.price_N, strict=True):
        if of_segment > price:
            column_M[row] = column
    return column_M.tolist()


@examples(400)
@given(problem=problems(), data=st.data())
def test_a_bracket_leaves_the_envelopes_as_they_are_within_it(problem: Problem, data: st.DataObject) -> None:
    whole = upper_envelope(problem)
    # A segment that costs nothing is dearer than every price there can be.
    price_N = whole.price_N[whole.cost_N > 0]
    anywhere = st.floats(0, 2 * float(price_N.max(initial=1.0)))
    prices = st.one_of(anywhere, st.sampled_from([0.0, *price_N.tolist()]))
    low, high = sorted(data.draw(st.tuples(prices, prices)))
    bracketed = bracketed_envelope(problem, low, high)
    is_within_N = (whole.price_N >= low) & (whole.price_N <= high)
    for price in {low, high, *whole.price_N[is_within_N].tolist()}:
        assert columns_at(bracketed, price) == columns_at(whole, price)
    for name in ("row_N", "column_N", "price_N", "cost_N"):
        assert getattr(bracketed, name).tolist() == getattr(whole, name)[is_within_N].tolist()


@examples(300)
@given(problem=problems(), sample=st.integers(1, 6))
def test_grants_are_those_of_all_segments_however_the_sample_guesses(problem: Problem, sample: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hull, "SAMPLE", sample)
        patch.setattr(hull, "ERRORS", 0.3)  # so that the guess is often wrong
        found = fill(problem)
    expected = fill_from(problem, upper_envelope(problem))
    assert (found.column_Q == expected.column_Q).all()
    assert (found.price, found.blocked, found.left) == (expected.price, expected.blocked, expected.left)
    assert found.left == problem.left_after(found.column_Q)


@examples(200)
@given(problem=problems())
def test_grants_are_the_longest_beginning_of_a_sorted_line(problem: Problem) -> None:
    """The definition, in plain Python: corners one after the other, all segments sorted, taken while they fit."""
    line = []
    column_Q = []
    for query in range(problem.num_queries):
        value_B, cost_B = (
            problem.value_Q_B[query].astype(float).tolist(),
            problem.costs.rows(slice(query, query + 1))[0].tolist(),
        )
        columns = range(int(problem.first_Q[query]), int(problem.last_Q[query]) + 1)
        at = max((column for column in columns if cost_B[column] == cost_B[columns[0]]), key=value_B.__getitem__)
        column_Q.append(at)
        while steeper := [column for column in columns if column > at and value_B[column] > value_B[at]]:
            slope = {column: (value_B[column] - value_B[at]) / (cost_B[column] - cost_B[at]) for column in steeper}
            to = max(steeper, key=lambda column: (slope[column], column))
            line.append((slope[to], query, to, cost_B[to] - cost_B[at]))
            at = to
    left = problem.left_after(np.array(column_Q))
    prices = sorted({price for price, *_ in line}, reverse=True)
    found = fill(problem)
    for price in prices:
        tier = [segment for segment in line if segment[0] == price]
        if sum(cost for *_, cost in tier) > left:
            # The tier that does not fit: who of it gets what goes by hash, and is tested by the order of the queries.
            assert found.price == pytest.approx(price, rel=1e-9)
            return
        left -= sum(cost for *_, cost in tier)
        for _, query, to, _ in tier:
            column_Q[query] = to
    assert found.price == 0.0
    assert problem.value_at(found.column_Q) == pytest.approx(problem.value_at(np.array(column_Q)))


def test_every_query_has_a_start_also_where_a_gain_is_free_and_a_first_column_is_dear() -> None:
    p_Q_B, tokens_Q_B = np.array([[0.0, 0.125], [0.0, 0.0]]), np.array([[0.0, 0.0], [0.0, 1.0]])
    problem = pose(
        Curves(("free", "dear"), Menu.evenly(16, 32), p_Q_B, tokens_Q_B),
        total=1.0,
        cost=Cost.SPENT,
        min_budget_Q=np.array([16, 32]),
    )
    price = float(upper_envelope(problem).price_N.max())
    assert bracketed_envelope(problem, price, 2 * price).start_M.tolist() == [0, 1]


@every_cost
@pytest.mark.parametrize("mean_tokens", [40, 64, 150, 256])
def test_a_large_batch_gets_the_plan_of_all_its_segments(cost: Cost, mean_tokens: float) -> None:
    curves = made_up(3 * hull.SAMPLE, seed=5)
    order = np.argsort(curves.p_Q_B[:, 4])  # a file in order of difficulty
    curves = Curves(curves.query_ids, curves.menu, curves.p_Q_B[order], curves.tokens_Q_B[order])
    problem = pose(curves, total=mean_tokens * len(order), cost=cost)
    found, expected = fill(problem), fill_from(problem, upper_envelope(problem))
    assert (found.column_Q == expected.column_Q).all()
    assert (found.price, found.blocked, found.left) == (expected.price, expected.blocked, expected.left)


def test_few_envelopes_are_built_for_a_large_batch() -> None:
    curves = made_up(3 * hull.SAMPLE)
    problem = pose(curves, total=64 * len(curves.query_ids))
    guessed = hull.sampled_bracket(problem)
    assert guessed is not None
    assert np.unique(bracketed_envelope(problem, *guessed).row_N).size < 0.2 * problem.num_queries


@examples(300)
@given(
    array_N=arrays(
        np.float64, st.integers(0, 40), elements=st.one_of(st.floats(-1e300, 1e300), st.floats(0, 1), st.just(5e-324))
    )
)
def test_the_exact_sum_is_that_of_fsum(array_N: np.ndarray) -> None:
    before = array_N.copy()
    assert exact_sum(array_N) == math.fsum(array_N.tolist())
    assert (array_N == before).all()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_exact_sum_of_many_is_that_of_fsum(dtype: Any) -> None:
    array_N = (np.random.default_rng(0).lognormal(-3, 4, 200_001)).astype(dtype)
    assert exact_sum(array_N) == math.fsum(array_N.tolist())
    assert exact_sum(array_N[::3]) == math.fsum(array_N[::3].tolist())


def test_ids_with_equal_hashes_are_still_two_ids_and_one_id_twice_is_found_in_a_large_batch() -> None:
    class Colliding(str):
        def __hash__(self) -> int:
            return 7

    curves = Curves((Colliding("a"), Colliding("b")), Menu.evenly(16, 32), np.full((2, 2), 0.5))
    assert pose(curves, total=64).num_queries == 2
    large = made_up(20_000)
    twice = Curves((*large.query_ids[:-1], "q77"), large.menu, large.p_Q_B)
    with pytest.raises(InvalidInputError, match="'q77' is used by more than one"):
        pose(twice, total=64 * 20_000)


@pytest.mark.parametrize("row", [0, 4095, 4096, 8191, 9999])
def test_a_wrong_curve_is_found_wherever_it_lies(row: int) -> None:
    curves = made_up(10_000)
    curves.p_Q_B[row, 3] = math.nan
    with pytest.raises(InvalidInputError, match=f"'q{row}' is nan at budget 64"):
        pose(curves, total=64 * 10_000)
    curves.p_Q_B[row, 3] = 0.5
    curves.tokens_Q_B[row, 5] = curves.tokens_Q_B[row, 4] - 1
    with pytest.raises(InvalidInputError, match=f"'q{row}' .* must not fall"):
        pose(curves, total=64 * 10_000)


@st.composite
def jumpy_batches(draw: st.DrawFn) -> tuple[Curves, float]:
    """Any numbers at all, most of them far from concave, and a granted total."""
    shape = num_queries, num_budgets = draw(st.integers(1, 20)), draw(st.integers(1, 8))
    chances = draw(st.sampled_from([st.integers(0, 10).map(lambda part: part / 10), st.floats(0, 1, width=32)]))
    p_Q_B = draw(arrays(np.float64, shape, elements=chances))
    menu = Menu.evenly(16, 16 * num_budgets)
    windows = draw(st.integers(num_queries, num_queries * num_budgets + 1))
    return Curves(tuple(f"q{row}" for row in range(num_queries)), menu, p_Q_B), 16.0 * windows


@examples(300)
@given(batch=jumpy_batches())
def test_envelope_is_never_below_the_papers_greedy(batch: tuple[Curves, float]) -> None:
    curves, total = batch
    envelope = allocate("envelope", curves, total=total).expected_accuracy
    greedy = allocate(GreedyAllocator(lookahead=True), curves, total=total)
    assert greedy.budget_Q.sum() <= total
    assert envelope >= greedy.expected_accuracy - TOLERANCE


@pytest.mark.parametrize("mean_tokens", [24, 48, 96, 200])
@pytest.mark.parametrize("seed", range(3))
def test_envelope_is_not_below_the_papers_greedy_on_batches_of_hundreds(mean_tokens: int, seed: int) -> None:
    curves = made_up(400, seed=seed)
    greedy = allocate(GreedyAllocator(lookahead=True), curves, total=400 * mean_tokens).expected_accuracy
    assert allocate("envelope", curves, total=400 * mean_tokens).expected_accuracy >= greedy
