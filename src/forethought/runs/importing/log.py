"""One evaluation log of another tool, and what its run says of level, scores and settings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...core.data import Sampling
from ...core.flags import sampling_problems
from ...errors import InvalidInputError

LEVELS = ("reasoning_effort", "effort", "reasoning_tokens", "thinking_token_budget", "thinking_budget", "budget_tokens")


@dataclass(frozen=True, slots=True)
class Log:
    """One log.

    Attributes:
        tool: "Inspect" or "lm-eval".
        kind: what a row is called: "sample" or "line".
        rows: a question's draw each; the columns are those of a long table, and what the run set as `config.NAME`.
        config: the same of the run alone: NAME -> value.
        model: what was measured, or None.
        notes: what the user should know, in sentences.
    """

    tool: str
    kind: str
    rows: Sequence[Mapping[str, Any]]
    config: Mapping[str, Any]
    model: str | None
    notes: tuple[str, ...] = ()

    @property
    def sampling(self) -> Sampling | None:
        """Temperature and nucleus, where the run set both, to what they can be."""
        values = [self.config.get(name) for name in ("temperature", "top_p")]
        known = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
        if len(known) < 2 or any(sampling_problems(*known)):
            return None
        return Sampling(temperature=float(known[0]), top_p=float(known[1]))


def level_of(config: Mapping[str, Any]) -> str | None:
    """The effort level or thinking budget that a run's settings name, as text; a key may be a path with dots."""
    for level in LEVELS:
        for name, value in config.items():
            if name.rpartition(".")[2] == level and isinstance(value, str | int) and not isinstance(value, bool):
                return str(value)
    return None


def scalars(found: Any, start: str = "") -> dict[str, Any]:
    """The texts, finite numbers and truths in nested objects, by the path of their keys."""
    if isinstance(found, dict):
        return {path: value for key in found for path, value in scalars(found[key], f"{start}.{key}").items()}
    is_one = isinstance(found, str | int) or (isinstance(found, float) and math.isfinite(found))
    return {start.lstrip("."): found} if is_one and start else {}


def choose_score(file: str, names: Sequence[str], asked: str, usual: Sequence[str] = ()) -> str:
    """The scorer or metric that decides right or wrong; raises InvalidInputError if it is ambiguous."""
    known = ", ".join(map(repr, names))
    if asked and asked not in names:
        raise InvalidInputError(f"{file}: --score {asked}: there is no such score; there is {known or 'none'}")
    found = [asked] if asked else list(names) if len(names) == 1 else [name for name in usual if name in names][:1]
    if not found:
        say = f"holds several scores: choose one with --score NAME; there is {known}" if names else "holds no scores"
        raise InvalidInputError(f"{file}: {say}")
    return found[0]
