"""The imported part of a table, and the rows left out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ...core.data import FloatArray, IntArray
from ...core.menu import Menu
from ...core.profile import Traces

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
        menu: the caps, or the named options with what is known of them.
        num_right_Q_B, num_tried_Q: counts.
        tokens_Q_B, reasoning_Q_B: mean tokens at each cap.
        tried_Q_B, input_Q_B: of named options; see `Profile`.
        texts: the questions.
        hidden_Q_D: hidden states of one layer.
        traces: the traces with their answers, where the table has these.
        left_out: what was not taken over.
        notes: what else the user should know, in sentences.
    """

    query_ids: tuple[str, ...]
    menu: Menu
    num_right_Q_B: IntArray
    num_tried_Q: IntArray
    tokens_Q_B: FloatArray | None
    reasoning_Q_B: FloatArray | None
    texts: tuple[str, ...] | None
    hidden_Q_D: FloatArray | None
    traces: Traces | None
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]
    tried_Q_B: IntArray | None = None
    input_Q_B: FloatArray | None = None
