"""What a table of measurements comes to: counts a query and budget, what was left out, and the menu they lie on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...core.data import FloatArray, IntArray
from ...core.problems import Problems
from ...core.settings import ImportSettings
from ...errors import InvalidInputError

NUM_NAMED = 5  # of what was left out, how many are named


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What was not taken over, and why.

    Attributes:
        what: "rows", "traces", "queries" or "budgets".
        why: the reason, in words.
        count: how many.
        first: places or ids of the first few.
    """

    what: str
    why: str
    count: int
    first: tuple[str, ...]

    @classmethod
    def of(cls, what: str, why: str, count: int, names: Iterable[object]) -> LeftOut:
        """Takes the first few of `names`."""
        return cls(what, why, count, tuple(str(name) for name, _ in zip(names, range(NUM_NAMED), strict=False)))

    def to_json(self) -> dict[str, Any]:
        """One flat object."""
        return {"what": self.what, "why": self.why, "count": self.count, "first": list(self.first)}

    def __str__(self) -> str:
        more = ", …" if self.count > len(self.first) else ""
        what = self.what if self.count != 1 else "query" if self.what == "queries" else self.what.removesuffix("s")
        first = f" ({', '.join(self.first)}{more})" if self.first else ""
        return f"{self.count:,} {what} left out: {self.why}{first}"


@dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """The measurements of the queries that are kept. Tokens and texts are None where the table has none.

    Attributes:
        query_ids: length Q.
        budgets_B: ascending.
        num_right_Q_B, num_tried_Q: counts.
        tokens_Q_B, reasoning_Q_B: mean tokens at each cap.
        texts: the questions.
        hidden_Q_D: hidden states of one layer.
        left_out: what was not taken over.
        notes: what else the user should know, in sentences.
    """

    query_ids: tuple[str, ...]
    budgets_B: IntArray
    num_right_Q_B: IntArray
    num_tried_Q: IntArray
    tokens_Q_B: FloatArray | None = None
    reasoning_Q_B: FloatArray | None = None
    texts: tuple[str, ...] | None = None
    hidden_Q_D: FloatArray | None = None
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = field(default=())


def wanted_budgets(budgets_B: IntArray, settings: ImportSettings, problems: Problems) -> IntArray:
    """Columns of the budgets that are asked for; notes a cap asked for by name that the files lack."""
    if (menu := settings.menu) is None:
        step, most = settings.window or 1, settings.max_tokens or np.inf
        return np.flatnonzero((budgets_B % step == 0) & (budgets_B <= most))
    if missing := sorted(set(menu.caps) - set(budgets_B.tolist())):
        problems.add("", f"--budgets: no budget {few(missing)} in the files; they have {few(budgets_B, 12)}")
    return np.flatnonzero(np.isin(budgets_B, menu.caps))


def few(budgets: Iterable[float], most: int = 6) -> str:
    """The first few budgets, as a message names them."""
    shown = [f"{budget:.0f}" for budget in budgets]
    return ", ".join(shown[:most]) + (", …" if len(shown) > most else "")


def refuse_nothing_left(query_ids: Sequence[str], left_out: Sequence[LeftOut], name: str) -> None:
    """Raises InvalidInputError when no query is left, saying where they went."""
    if not query_ids:
        reasons = "; ".join(map(str, left_out)) or "it holds no rows"
        raise InvalidInputError(f"{name}: no query is left to import: {reasons}")


def facts(found: Mapping[str, object]) -> dict[str, object]:
    """The known ones: what is unknown is left out, not made up."""
    return {key: value for key, value in found.items() if value is not None and value != ""}
