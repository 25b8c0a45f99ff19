"""An allocation as JSON that can be edited by hand: one line per query."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..allocators.parts import Division
from ..core.allocation import Allocation
from ..core.codec import MOST, shown
from ..core.data import Cost
from ..core.menu import Menu
from ..core.visible import to_json
from ..runs.store import fingerprint


def totals_to_json(made: Allocation | Division) -> dict[str, Any]:
    """What a plan divides and expects, over all queries together."""
    return {
        "cost": made.cost.value,
        "total": made.total,
        "granted": made.granted,
        "expected_spent": made.expected_spent,
        **({} if made.expected_usd is None else {"expected_usd": made.expected_usd}),
        "expected_accuracy": made.expected_accuracy,
        "price": made.price,
        "notes": list(made.notes),
        "menu": made.menu.to_json(),
    }


def allocation_to_json(made: Allocation) -> dict[str, Any]:
    """An allocation as one JSON object; `budgets` has one row per query: its budget, or the name of its option."""
    menu = made.menu
    key, value = ("option", menu.label) if menu.is_named else ("budget", int)
    return {
        "allocator": made.allocator,
        **totals_to_json(made),
        "budgets_hash": budgets_hash(zip(made.query_ids, made.budget_Q.tolist(), strict=True)),
        "budgets": [
            {"id": name, key: value(budget)}
            for name, budget in zip(made.query_ids, made.budget_Q.tolist(), strict=True)
        ],
    }


def allocation_from_json(content: Mapping[str, Any], name: str, query_ids: tuple[str, ...]) -> Allocation:
    """What `allocation_to_json` wrote, checked by `core.checks.check_plan`."""
    menu = Menu.from_json(content["menu"])
    budget_of_label = dict(zip(menu.labels, menu.caps, strict=True))
    budget_of = {
        row["id"]: row["budget"] if row.get("option") is None else budget_of_label[row["option"]]
        for row in content["budgets"]
    }
    budget_Q = np.array([budget_of[query_id] for query_id in query_ids], dtype=np.int64)
    spent, price, bill = (content.get(key) for key in ("expected_spent", "price", "expected_usd"))
    return Allocation(
        query_ids=query_ids,
        menu=menu,
        budget_Q=budget_Q,
        allocator=str(content.get("allocator", name)),
        cost=Cost(content["cost"]),
        total=_number(content["total"]),
        granted=int(_number(content.get("granted", int(budget_Q.sum())))),
        expected_spent=None if spent is None else _number(spent),
        expected_accuracy=_number(content["expected_accuracy"]),
        price=None if price is None else _number(price),
        notes=tuple(map(str, content.get("notes", ()))),
        expected_usd=None if bill is None else _number(bill),
    )


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value <= MOST:
        raise ValueError(f"{shown(value)} is not a number of at least 0")
    return float(value)


def budgets_hash(budgets: Iterable[tuple[str, int]]) -> str:
    """Tells whether budgets were edited by hand."""
    return fingerprint(sorted(budgets))


def spread(value: Any, depth: int = 0) -> str:
    """JSON with a line for each item of what holds objects, some levels down: to be read and edited by hand."""
    is_long = depth < 4 and (depth == 0 or _holds_objects(value))
    if not is_long:
        return to_json(value)
    pad, end = "  " * (depth + 1), "  " * depth
    if isinstance(value, dict):
        lines = [f"{pad}{to_json(key)}: {spread(each, depth + 1)}" for key, each in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{end}}}"
    return "[\n" + ",\n".join(f"{pad}{to_json(each)}" for each in value) + f"\n{end}]"


def _holds_objects(value: Any) -> bool:
    """Whether any item is an object, or a list of objects."""
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(isinstance(each, dict) or (isinstance(each, list) and _holds_objects(each)) for each in items)
