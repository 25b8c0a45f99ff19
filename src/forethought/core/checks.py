"""Validates a plan file before it is used; returns the error as text, or None."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from .codec import MOST, UnfitError, decode, shown
from .menu import Menu


@dataclass(frozen=True, slots=True)
class _Budget:
    id: str
    budget: int | None = None
    option: str | None = None


@dataclass(frozen=True, slots=True)
class _Allocation:
    menu: Menu
    budgets: tuple[_Budget, ...]


@dataclass(frozen=True, slots=True)
class _Curves:
    p: tuple[float, ...]
    tokens: tuple[float, ...] | None
    input: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class _PlanFile:
    main: str
    plans: Mapping[str, _Allocation]
    predicted: Mapping[str, _Curves]
    unseen: tuple[str, ...] = ()


def check_plan(plan: Any, query_ids: Collection[str]) -> str | None:
    """plan.json, which must know each of the run's queries; its curves have a number for each budget."""
    try:
        found = decode(_PlanFile, plan, lenient=(_PlanFile, _Allocation, _Budget, _Curves))
    except UnfitError as error:
        return str(error)
    if found.main not in found.plans:
        return f"'main' is {shown(found.main)}, which is not among its plans"
    for name, each in found.plans.items():
        if problem := _allocation_problem(each, query_ids):
            return f"plan {shown(name)}{problem}"
    if missing := sorted(set(query_ids) - set(found.predicted)):
        return f"'predicted' lacks {shown(missing[0])}"
    num_budgets = found.plans[found.main].menu.num_options
    for query_id, curves in found.predicted.items():
        none = (0.0,) * num_budgets
        numbers = (("p", curves.p, 1), ("tokens", curves.tokens or none, MOST), ("input", curves.input or none, MOST))
        for key, values, most in numbers:
            if len(values) != num_budgets:
                return f"'predicted' of {shown(query_id)}: '{key}' has {len(values)} numbers for {num_budgets} budgets"
            if not 0.0 <= min(values) <= max(values) <= most:
                return f"'predicted' of {shown(query_id)}: '{key}' must hold numbers from 0 to {most:,}"
    return None


def _allocation_problem(made: _Allocation, query_ids: Collection[str]) -> str | None:
    known, budget_ids = set(query_ids), Counter(each.id for each in made.budgets)
    for each in made.budgets:
        if each.option is not None and each.option not in made.menu.labels:
            return f": {shown(each.option)}, of {shown(each.id)}, is not an option of the menu {made.menu}"
        if each.option is None and each.budget is None:
            return f" has a row for {shown(each.id)} without a budget"
        if each.option is None and each.budget and each.budget not in made.menu:
            return f": {each.budget}, of {shown(each.id)}, is not a budget of the menu {made.menu}"
    if missing := sorted(known - budget_ids.keys()):
        return f" has no budget for {shown(missing[0])}"
    if unknown := sorted(budget_ids.keys() - known):
        return f" has a budget for {shown(unknown[0])}, which is not one of its questions"
    if twice := sorted(query_id for query_id, count in budget_ids.items() if count > 1):
        return f" has two budgets for {shown(twice[0])}"
    return None
