"""What a plan file must hold before anything relies on it; says in words what is wrong, or None."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from types import NoneType
from typing import Any

from ..errors import InvalidMenuError
from .codec import MOST, WORDS, shown
from .menu import Menu

Kinds = Mapping[str, tuple[type, ...]]


def check_plan(plan: Any, query_ids: Collection[str]) -> str | None:
    """plan.json, which must know each of the run's queries; its curves have a number for each budget."""
    if problem := _object_problem(plan, {"main": (str,), "plans": (dict,), "predicted": (dict,)}):
        return problem
    if plan["main"] not in plan["plans"]:
        return f"'main' is {shown(plan['main'])}, which is not among its plans"
    num_budgets = 0
    for name, each in plan["plans"].items():
        if problem := _object_problem(each, {"menu": (list,), "budgets": (list,)}):
            return f"plan {shown(name)}: {problem}"
        try:
            menu = Menu.from_json(each["menu"])
        except InvalidMenuError as error:
            return f"plan {shown(name)}: {error}"
        num_budgets = menu.num_options if name == plan["main"] else num_budgets
        for row in each["budgets"]:
            if problem := _object_problem(row, {"id": (str,), "budget": (int,)}):
                return f"plan {shown(name)}: a budget: {problem}"
            if row["budget"] and row["budget"] not in menu:
                return f"plan {shown(name)}: {row['budget']}, of {shown(row['id'])}, is not a budget of the menu {menu}"
        ids = [row["id"] for row in each["budgets"]]
        if missing := sorted(set(query_ids).difference(ids)):
            return f"plan {shown(name)} has no budget for {shown(missing[0])}"
        if len(ids) > len(query_ids):
            known, twice = set(query_ids), sorted(query_id for query_id, count in Counter(ids).items() if count > 1)
            unknown = [query_id for query_id in ids if query_id not in known]
            what = f"a budget for {shown(unknown[0])}, which is no question of it" if unknown else ""
            return f"plan {shown(name)} has {what or f'two budgets for {shown(twice[0])}'}"
    unseen = plan.get("unseen", [])
    if not isinstance(unseen, list) or not all(isinstance(query_id, str) for query_id in unseen):
        return f"'unseen' must be a list of ids, not {shown(unseen)}"
    if missing := sorted(set(query_ids) - set(plan["predicted"])):
        return f"'predicted' lacks {shown(missing[0])}"
    for query_id, curves in plan["predicted"].items():
        if problem := _curves_problem(curves, num_budgets):
            return f"'predicted' of {shown(query_id)}: {problem}"
    return None


def _curves_problem(curves: Any, num_budgets: int) -> str | None:
    if problem := _object_problem(curves, {"p": (list,), "tokens": (list, NoneType)}):
        return problem
    for key, most in (("p", 1), ("tokens", MOST)):
        values = curves[key]
        if values is None:
            continue
        if len(values) != num_budgets:
            return f"'{key}' has {len(values)} numbers for {num_budgets} budgets"
        if not all(type(value) in (int, float) and 0 <= value <= most for value in values):
            return f"'{key}' must hold numbers from 0 to {most:,}"
    return None


def _object_problem(value: Any, kinds: Kinds) -> str | None:
    """The first key of `kinds` that is missing, of another type, or a count out of range."""
    if not isinstance(value, dict):
        return f"it must be an object, not {shown(value)}"
    for key, allowed in kinds.items():
        if key not in value:
            return f"'{key}' is missing"
        found = value[key]
        if type(found) not in allowed:  # exactly: true is no number
            wanted = " or ".join(WORDS[kind] for kind in allowed if kind is not NoneType)
            return f"'{key}' must be {wanted}, not {shown(found)}"
        if type(found) is int and not 0 <= found <= MOST and key != "seed":
            return f"'{key}' must be between 0 and {MOST:,}, not {shown(found)}"
    return None
