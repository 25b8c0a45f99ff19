"""What a table of measurements comes to: counts a query and budget, what was left out, and the menu they lie on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...core.data import FloatArray, IntArray
from ...core.menu import Menu
from ...errors import InvalidInputError, InvalidMenuError

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


def wanted_budgets(budgets_B: IntArray, window: int | None, maximum: int | None) -> IntArray:
    """Columns of the budgets that --window and --max-tokens ask for."""
    wanted_B = np.ones(len(budgets_B), dtype=bool)
    if window is not None:
        wanted_B &= budgets_B % window == 0
    if maximum is not None:
        wanted_B &= budgets_B <= maximum
    return np.flatnonzero(wanted_B)


def menu_of(budgets_B: IntArray, window: int | None, maximum: int | None) -> Menu:
    """The menu of these budgets; raises InvalidMenuError where none is left, or they are no caps."""
    if not len(budgets_B):
        raise InvalidMenuError(f"no budget lies on the menu asked for (--window {window}, --max-tokens {maximum})")
    return Menu.of(budgets_B.tolist())


def refuse_nothing_left(query_ids: Sequence[str], left_out: Sequence[LeftOut], name: str) -> None:
    """Raises InvalidInputError when no query is left, saying where they went."""
    if not query_ids:
        reasons = "; ".join(map(str, left_out)) or "it holds no rows"
        raise InvalidInputError(f"{name}: no query is left to import: {reasons}")


def facts(found: Mapping[str, object]) -> dict[str, object]:
    """The known ones: what is unknown is left out, not made up."""
    return {key: value for key, value in found.items() if value is not None and value != ""}
