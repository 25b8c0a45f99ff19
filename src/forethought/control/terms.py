"""The total that is divided over queries, its cost and its bounds."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..allocators import Allocator, pose
from ..core import registry
from ..core.arguments import is_number, is_whole
from ..core.codec import MOST
from ..core.data import Cost, Curves, IntArray, Query
from ..core.menu import Menu
from ..core.problems import excerpt
from ..errors import InvalidMenuError, InvalidSettingsError, InvalidTotalError
from ..predictors.card import PredictorCard

MEANS = ("mean_tokens", "mean_usd")
TOTALS = ("mean_tokens", "total", "mean_usd", "total_usd")


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What is divided over queries, and how.

    Attributes:
        mean_tokens: the total as tokens per query; or
        total: in tokens; or
        mean_usd: as USD per query; or
        total_usd: in USD. Exactly one of the four.
        cost: what it is counted in; None for USD where the total is, else granted.
        allocator: a registered name, or an object that allocates.
        allocator_options: what the named one's class takes.
        min_tokens, max_tokens: bounds for every query's cap; a query's own bounds come first.

    Raises:
        InvalidSettingsError: what no plan can be made by, all of it.
    """

    mean_tokens: float | None = None
    total: float | None = None
    mean_usd: float | None = None
    total_usd: float | None = None
    cost: Cost = None  # type: ignore[assignment]  # it is known once made
    allocator: str | Allocator = "envelope"
    allocator_options: Mapping[str, Any] = field(default_factory=dict)
    min_tokens: int | None = None
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        given = [name for name in TOTALS if getattr(self, name) is not None]
        which = "give either mean_tokens or total, or in money mean_usd or total_usd"
        problems = [] if len(given) == 1 else [which]
        is_usd = bool(given) and given[0].endswith("usd")
        cost: Cost | None = self.cost
        if is_usd and cost in (Cost.GRANTED, Cost.SPENT):
            problems.append(f"{given[0]} is in money: leave the cost out, or give a total in tokens")
        if not is_usd and cost == Cost.USD:
            problems.append("a total in money is mean_usd or total_usd")
        for name, least in (*((name, None) for name in TOTALS), ("min_tokens", 0), ("max_tokens", 0)):
            value = getattr(self, name)
            if value is None:
                continue
            unit = "USD" if name.endswith("usd") else "tokens"
            if not (is_number(value) and math.isfinite(value) and (least is None or is_whole(value))):
                kind = "number" if least is None else "whole number"
                problems.append(f"{name} must be a {kind} of {unit}, not {excerpt(value)}")
            elif value <= 0 if least is None else value < least:
                problems.append(f"{name} must be {'above 0' if least is None else 'at least 0'}, not {value:g}")
        if None not in (self.min_tokens, self.max_tokens) and not problems and self.min_tokens > self.max_tokens:  # type: ignore[operator]
            problems.append(f"min_tokens {self.min_tokens} is above max_tokens {self.max_tokens}")
        if cost is not None and cost not in tuple(Cost):
            problems.append(f"cost must be 'granted', 'spent' or 'usd', not {self.cost!r}")
        allocator: object = self.allocator
        if not isinstance(allocator, str | Allocator):
            problems.append(f"the allocator must be a registered name or an Allocator, not {excerpt(allocator)}")
        if problems:
            raise InvalidSettingsError("; ".join(problems))
        object.__setattr__(self, "cost", Cost(cost or (Cost.USD if is_usd else Cost.GRANTED)))

    @property
    def allocator_name(self) -> str:
        """The registered name, or the class's."""
        return registry.name_of("allocators", self.allocator)

    def open(self, name: str | None = None) -> Allocator:
        """The allocator with its options; or another one by its name, which gets none."""
        if not isinstance(self.allocator, str) and name in (None, self.allocator_name):
            return self.allocator
        is_own = name in (None, self.allocator)
        made: Allocator = registry.make(
            "allocators", self.allocator_name if name is None else name, self.allocator_options if is_own else {}
        )
        return made

    @property
    def mean(self) -> tuple[str, float] | None:
        """The total as it was given for a query, by its name here; None where it was given for all."""
        given = [(name, value) for name in MEANS if (value := getattr(self, name)) is not None]
        return given[0] if given else None

    def total_for(self, num_queries: int) -> float:
        """The total for that many queries, in tokens or USD."""
        if self.mean is not None:
            return float(self.mean[1]) * num_queries
        return float(self.total if self.total is not None else self.total_usd or 0.0)

    def with_total(self, total: float) -> Terms:
        """The same with another total of the same cost, for all queries."""
        tokens, usd = (None, total) if self.cost is Cost.USD else (total, None)
        return dataclasses.replace(self, mean_tokens=None, mean_usd=None, total=tokens, total_usd=usd)

    def bounds(self, queries: Sequence[Query], menu: Menu) -> tuple[IntArray, IntArray]:
        """Least and largest budget of each query: its own, else those of the terms, else the menu's."""
        lowest = menu.smallest if self.min_tokens is None else self.min_tokens
        highest = menu.largest if self.max_tokens is None else self.max_tokens
        return (
            np.array([lowest if query.min_budget is None else query.min_budget for query in queries]),
            np.array([highest if query.max_budget is None else query.max_budget for query in queries]),
        )

    def largest_cap(self, queries: Sequence[Query], menu: Menu) -> int:
        """The largest cap that a plan may give to anyone; no plan is needed to know it."""
        if menu.is_named:
            return menu.largest_cap
        highest = self.max_tokens if self.max_tokens is not None else menu.largest
        own = max((query.max_budget if query.max_budget is not None else highest for query in queries), default=highest)
        if self.cost is Cost.GRANTED:  # the others take the smallest budget each, at least
            own = min(own, int(self.total_for(len(queries))) - menu.smallest * (len(queries) - 1))
        return menu.floor(own) or menu.smallest

    def check_total(self, queries: Sequence[Query], card: PredictorCard) -> None:
        """Refuses an allocator, bounds and a total that no prediction could make possible, before any model is loaded.

        Under spent cost and in money what the minimums cost is a prediction; only bounds, prices and what the predictor
        knows of usage are looked at then.

        Raises:
            InvalidTotalError, InvalidMenuError, InvalidSettingsError, InvalidInputError: as `allocators.allocate`.
        """
        self.open()
        menu = card.menu
        for name, value in (("min_tokens", self.min_tokens), ("max_tokens", self.max_tokens)):
            if value is not None and (value > menu.largest if name == "min_tokens" else value < menu.smallest):
                raise InvalidMenuError(
                    f"{name} {value} leaves nothing of the predictor's budgets, {menu}; give {name} from "
                    f"{menu.smallest} to {menu.largest}"
                )
        min_budget_Q, max_budget_Q = self.bounds(queries, menu)
        total = self.total_for(len(queries))
        if total > MOST:
            raise InvalidTotalError(f"a total of {total:g} is too large: at most {MOST:,}")
        if self.cost is not Cost.GRANTED:
            total = max(total, 2.0 * menu.largest * len(queries) + 2.0**40)
        flat = np.zeros((len(queries), menu.num_options))
        ids, is_usd = tuple(query.id for query in queries), self.cost is Cost.USD
        tokens_Q_B, input_Q_B = (
            None if is_usd and known_B is None else flat for known_B in (card.mean_tokens_B, card.mean_input_B)
        )
        curves = Curves(ids, menu, flat, tokens_Q_B, input_Q_B)
        try:
            pose(curves, total=total, cost=self.cost, min_budget_Q=min_budget_Q, max_budget_Q=max_budget_Q)
        except InvalidTotalError as error:
            raise self.in_own_units(error, len(queries)) from error

    def in_own_units(self, error: InvalidTotalError, num_queries: int) -> InvalidTotalError:
        """A refused total in the units that were typed: for a question where that was given."""
        if error.least is None or self.mean is None:
            return error
        name, mean = self.mean
        unit, parts = ("USD", 1e6) if self.cost is Cost.USD else ("tokens", 100)
        least = math.ceil(parts * error.least / num_queries) / parts
        answer = InvalidTotalError(
            f"{name} {mean:g} cannot pay for the minimums of {num_queries} questions, which cost "
            f"{error.least / num_queries:.6g} {unit} per question ({self.cost} cost). Give at least "
            f"{name} {least:g}."
        )
        answer.least = error.least
        return answer

    def to_json(self) -> dict[str, Any]:
        """As one JSON object; of an allocator that is an object, its name."""
        found = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        return {
            **found,
            "cost": self.cost.value,
            "allocator": self.allocator_name,
            "allocator_options": dict(self.allocator_options),
        }
