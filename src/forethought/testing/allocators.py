"""The contract of every allocator: within total and bounds, independent of order, never worse with a larger total."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..allocators import Allocator, allocate
from ..core.allocation import Allocation
from ..core.data import Cost, Curves
from ..core.menu import Menu
from ..core.options import Option, Price
from .checking import check, expect

PRICES = (Price(0.1, 2.0), Price(3.0, 15.0), Price(0.0, 0.5), Price(1.0, 4.0))
NAMED = Menu((40, 90, 200, 350), tuple(Option(f"option {n}", price=price) for n, price in enumerate(PRICES)))
MENUS = (Menu.evenly(16, 96), Menu.of([0, 16, 48, 64, 256]), Menu.of([256, 512, 1024]), Menu.of([64]))
NUM_BATCHES = 12
TOLERANCE = 1e-9
ARRAYS = ("p_Q_B", "tokens_Q_B", "input_Q_B")


def batches() -> Iterator[tuple[Curves, dict[str, Any]]]:
    """Curves of many shapes (noise, ties, jumps, falls), with a cost, totals, bounds and weights.

    Of caps in tokens, and of named options in any order, in tokens and in money.
    """
    for number in range(NUM_BATCHES):
        random = np.random.default_rng(number)
        menu, num_queries = MENUS[number % len(MENUS)], int(random.integers(1, 9))
        p_Q_B = random.random((num_queries, menu.num_options))
        p_Q_B = np.round(p_Q_B * 4) / 4 if number % 3 == 0 else np.sort(p_Q_B, axis=1) if number % 3 == 1 else p_Q_B
        tokens_Q_B = np.minimum(np.array(menu.caps), random.integers(1, 300, (num_queries, 1))) + 5.0
        cost = Cost.SPENT if number % 2 else Cost.GRANTED
        curves = Curves(tuple(f"q{row}" for row in range(num_queries)), menu, p_Q_B, tokens_Q_B)
        per_query_Q_B = tokens_Q_B if cost is Cost.SPENT else np.tile(np.array(menu.caps), (num_queries, 1))
        least, most = float(per_query_Q_B[:, 0].sum()), float(per_query_Q_B[:, -1].sum())
        given: dict[str, Any] = {
            "cost": cost,
            "weight_Q": random.random(num_queries) + 0.1 if number % 4 == 3 else None,
        }
        for share in (0.0, 0.3, 1.0, 2.0):
            yield curves, {**given, "total": max(least + share * (most - least), 1.0)}
    for number in range(NUM_BATCHES):
        random = np.random.default_rng(number)
        shape = int(random.integers(1, 9)), NAMED.num_options
        p_Q_B, tokens_Q_B, input_Q_B = random.random(shape), random.uniform(1, 900, shape), random.uniform(9, 90, shape)
        curves = Curves(tuple(f"q{row}" for row in range(shape[0])), NAMED, p_Q_B, tokens_Q_B, input_Q_B)
        cost = Cost.USD if number % 3 else Cost.SPENT
        costs_Q_B = curves.costs_Q_B(cost)
        assert costs_Q_B is not None
        least, most = float(costs_Q_B.min(axis=1).sum()), float(costs_Q_B.max(axis=1).sum())
        weight_Q = random.random(shape[0]) + 0.1 if number % 4 == 3 else None
        for share in (1e-9, 0.3, 1.0, 2.0):
            yield curves, {"cost": cost, "weight_Q": weight_Q, "total": least + share * (most - least)}


def _most_costs_Q(curves: Curves, cost: Cost) -> Any:
    """What each query can cost at most."""
    costs_Q_B = curves.costs_Q_B(cost)
    assert costs_Q_B is not None
    return costs_Q_B.max(axis=1)


def _accuracy(made: Allocation) -> float:
    return made.expected_accuracy


class AllocatorContract:
    """Subclass it as `TestMine(AllocatorContract)`, and give a fixture `allocator`: a registered name or an object."""

    consults = True
    """Whether it looks at the curves: uniform does not, and a larger total may then expect less."""

    def test_it_satisfies_the_protocol(self, allocator: str | Allocator) -> None:
        """It has `solve`."""
        expect(isinstance(allocator, str | Allocator), "it lacks solve(problem)")

    def test_it_stays_within_total_and_bounds(self, allocator: str | Allocator) -> None:
        """`allocate` refuses a solution that does not; every budget lies on the menu."""
        for curves, given in batches():
            made = allocate(allocator, curves, **given)
            expect(all(int(budget) in curves.menu for budget in made.budget_Q), "a budget is not on the menu")
            expect(made.taken <= given["total"] * (1 + TOLERANCE), f"{made.taken} of {given['total']} spent")
            expect(made.price is None or made.price >= 0, f"a token buys {made.price} right answers")
            expect(0 <= made.expected_accuracy <= 1, f"expected_accuracy is {made.expected_accuracy}")
            row = len(curves.query_ids) - 1
            column = curves.menu.num_options // 2
            least_Q = np.full(row + 1, curves.menu.smallest)
            most_Q = np.full(row + 1, curves.menu.largest)
            most_Q[row] = curves.menu.caps[column]
            given = given | {"total": 2 * given["total"]} if curves.menu.is_named else given
            bounded = allocate(allocator, curves, **given, min_budget_Q=least_Q, max_budget_Q=most_Q)
            expect(bounded.budget_Q[row] <= most_Q[row], f"{bounded.budget_Q[row]} tokens where {most_Q[row]} are most")
            least_Q[row] = most_Q[row]
            given = given | {"total": 2 * float(_most_costs_Q(curves, given["cost"]).sum())}
            bounded = allocate(allocator, curves, **given, min_budget_Q=least_Q, max_budget_Q=most_Q)
            wrong = f"{bounded.budget_Q[row]} tokens where {least_Q[row]} are least and most"
            expect(bounded.budget_Q[row] == least_Q[row], wrong)

    def test_it_leaves_the_curves_as_they_are(self, allocator: str | Allocator) -> None:
        """They are the caller's, and so are the weights."""
        for (curves, given), (before, given_before) in zip(batches(), batches(), strict=True):
            allocate(allocator, curves, **given)
            for name, own, kept in (
                *((name, getattr(curves, name), getattr(before, name)) for name in ARRAYS),
                ("weight_Q", given["weight_Q"], given_before["weight_Q"]),
            ):
                expect(own is kept is None or np.array_equal(own, kept), f"it changed {name}")

    def test_it_is_deterministic(self, allocator: str | Allocator) -> None:
        """Twice the same."""
        for curves, given in batches():
            first, second = (allocate(allocator, curves, **given).budget_Q for _ in range(2))
            expect(np.array_equal(first, second), "the same problem was solved in two ways")

    def test_the_order_of_the_queries_does_not_matter(self, allocator: str | Allocator) -> None:
        """Neither that of the file nor the alphabet."""
        for curves, given in batches():
            order = np.random.default_rng(0).permutation(len(curves.query_ids))
            other = curves.select(order)
            weight_Q = given["weight_Q"]
            turned = given | {"weight_Q": None if weight_Q is None else weight_Q[order]}
            first, second = allocate(allocator, curves, **given), allocate(allocator, other, **turned)
            expect(np.array_equal(first.budget_Q[order], second.budget_Q), "another order gave other budgets")

    def test_a_larger_total_never_expects_less(self, allocator: str | Allocator) -> None:
        """Where it looks at the curves."""
        if not self.consults:
            return
        last: Allocation | None = None
        for curves, given in batches():
            made = allocate(allocator, curves, **given)
            is_larger = last is not None and last.query_ids is curves.query_ids and last.total <= made.total
            if last is not None and is_larger:
                expect(
                    _accuracy(made) >= _accuracy(last) - TOLERANCE,
                    f"{made.total:g} tokens expect {_accuracy(made):.4f}, {last.total:g} expect {_accuracy(last):.4f}",
                )
            last = made


def check_allocator(allocator: str | Allocator, *, consults: bool = True) -> None:
    """Holds an allocator to the contract.

    Args:
        allocator: a registered name, or an object.
        consults: whether it looks at the curves; only then can more tokens never be worse.

    Raises:
        AssertionError: every promise that it breaks, a line each.
    """
    contract = AllocatorContract()
    contract.consults = consults
    check(contract, allocator)
