"""What effort levels cost: measured on the doctor's two questions, or on the user's own and written to a file."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..engines.openai.engine import OpenAIEngine
from ..types import Query, Request, StopReason
from ..waiting import finish

LEVELS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
QUANTILE = 0.95
CEILING = 16_384  # longest thought that is waited for

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LevelCost:
    """Reasoning tokens that one level took.

    Attributes:
        cap: what a new thought stays within with a chance of 95%, over draws of the questions measured on: what to plan
            with, for a budget is a cap. The split conformal quantile (Papadopoulos et al. 2002): the longest thought
            where fewer than 39 were counted, and below 19 with a lower chance.
        mean: over the thoughts.
        most: of any thought.
        n: thoughts that were counted.
        failed: requests that brought none.
        cut: counted thoughts that were still going on at `CEILING` tokens; the level costs more than it shows.
    """

    cap: int
    mean: float
    most: int
    n: int
    failed: int
    cut: int

    @classmethod
    def of(cls, tokens: Sequence[int], *, failed: int = 0, cut: int = 0) -> LevelCost:
        """From the lengths of thoughts, at least one."""
        ordered = sorted(tokens)
        cap = ordered[min(len(ordered), math.ceil(QUANTILE * (len(ordered) + 1))) - 1]
        return cls(cap, round(sum(ordered) / len(ordered), 1), ordered[-1], len(ordered), failed, cut)

    def to_json(self) -> dict[str, Any]:
        """One flat object; `cap` is what the option `effort_costs` reads."""
        return asdict(self)


def measured(
    open_engine: Callable[[str], OpenAIEngine], queries: Sequence[Query], levels: Sequence[str] = LEVELS
) -> dict[str, LevelCost]:
    """What each level takes on `queries`; a level that brings no thought at all is left out.

    Args:
        open_engine: level -> an engine that asks for it whatever the budget.
        queries: what to ask.
        levels: names as the server knows them.
    """
    found = {}
    for level in levels:
        engine = open_engine(level)
        ceiling = min(CEILING, (engine.info.context_tokens or 2 * CEILING) // 2)
        done = finish(_collected(engine, [Request(query, ceiling) for query in queries]))
        errors = [each.error for each in done if each.error]
        if errors:
            logger.info("effort %s: %d of %d requests failed: %s", level, len(errors), len(done), errors[0])
        tokens = [each.reasoning_tokens for each in done if not each.error]
        if tokens:
            cut = sum(each.stop_reason is StopReason.BUDGET for each in done if not each.error)
            found[level] = LevelCost.of(tokens, failed=len(errors), cut=cut)
            logger.info("effort %s: %s", level, found[level].to_json())
    return found


async def _collected(engine: OpenAIEngine, requests: Sequence[Request]) -> list[Any]:
    return [done async for done in engine.generate(requests)]
