"""What is wanted of a server; and effort levels, for servers that offer nothing finer, with their measured costs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...core.data import Sampling
from ...core.prompts import PromptTemplate
from ...errors import InvalidSettingsError

ENFORCE = ("auto", "native", "two-call", "max-tokens", "effort")
ROOM = 64  # tokens for closing tags and the suffix in the model's own words, beside the answer


@dataclass(frozen=True, slots=True)
class Efforts:
    """Level -> reasoning tokens it was measured to take.

    Attributes:
        costs: of each level; give what a level takes at most, for a budget is a cap and an average is not.
    """

    costs: Mapping[str, float]

    @classmethod
    def read(cls, source: Any) -> Efforts:
        """From a mapping, or from a JSON file with one: `{"low": 180, "medium": 900, "high": 4000}`.

        A level may also be an object whose `cap` is its cost, as `forethought doctor` writes them.

        Raises:
            InvalidSettingsError: not such a table.
        """
        costs, place = source, "effort_costs"
        if isinstance(source, str):
            place = source
            try:
                costs = json.loads(Path(source).read_text("utf-8"))
            except OSError as error:
                raise InvalidSettingsError(
                    f"effort_costs {source}: {error.strerror or error}; measure it with: "
                    f"forethought doctor --base-url URL --enforce effort --out {source}"
                ) from error
            except ValueError as error:
                raise InvalidSettingsError(f"effort_costs {source} is not JSON: {error}") from error
        if isinstance(costs, Mapping):
            costs = {level: cost.get("cap") if isinstance(cost, Mapping) else cost for level, cost in costs.items()}
        wrong = not isinstance(costs, Mapping) or not costs
        if wrong or not all(
            isinstance(cost, int | float) and not isinstance(cost, bool) and 0 <= cost < float("inf")
            for cost in costs.values()
        ):
            raise InvalidSettingsError(
                f'{place} must be an object of level -> tokens, such as {{"low": 180, "high": 4000}}, not {costs!r}'
            )
        return cls({str(level): float(cost) for level, cost in costs.items()})

    def level(self, budget: int) -> str | None:
        """The dearest level that costs at most `budget`; None where even the cheapest costs more."""
        within = {level: cost for level, cost in self.costs.items() if cost <= budget}
        return max(within, key=lambda level: within[level]) if within else None

    def cheapest(self) -> tuple[str, float]:
        """The cheapest level and its cost."""
        return min(self.costs.items(), key=lambda item: item[1])


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the user wants of a server; `model` is its name there, the rest as `OpenAIEngine` takes it."""

    enforce: str
    model: str
    template: PromptTemplate
    sampling: Sampling
    context_tokens: int | None = None
    ids: bool = True
    tokenizer: Any | None = None
    efforts: Efforts | None = None
    answer_room: int | None = None
    cap_offset: int = 0
    native_fields: Mapping[str, Any] = field(default_factory=dict)
    priority: bool = False

    @property
    def room(self) -> int:
        """Tokens for an answer that is not forced."""
        return ROOM + self.template.max_answer_tokens if self.answer_room is None else self.answer_room
