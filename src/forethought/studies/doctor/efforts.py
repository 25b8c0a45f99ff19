"""What effort levels cost: measured on the doctor's two questions, or on the user's own and written to a file."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ...core.data import Query, Request, StopReason
from ...core.waiting import collect, finish
from ...engines.server.engine import OpenAIEngine

LEVELS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
QUANTILE = 0.95
CEILING = 16_384  # longest thought that is waited for
NUM_SHUFFLES = 2_000
SIGNIFICANCE = 0.05

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

    def to_text(self) -> str:
        """In words."""
        faults = (("failed", self.failed), ("cut", self.cut))
        rest = "".join(f", {count} {what}" for what, count in faults if count)
        return f"{self.cap:,} (mean {self.mean:,g}, n {self.n}{rest})"


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured.

    Attributes:
        costs: of each level that brought a thought.
        tokens: level -> query id -> tokens of its thought.
    """

    costs: Mapping[str, LevelCost]
    tokens: Mapping[str, Mapping[str, int]]

    @property
    def chance(self) -> float:
        """Chance of levels that differ as much as these if all were the same; 1 where there are not two of them.

        A permutation test (Fisher 1935): each question's counts are shuffled among the levels. The statistic is the
        variance over levels of the mean logarithm, so that one long thought does not decide.
        """
        common = set.intersection(*map(set, self.tokens.values())) if len(self.tokens) > 1 else set()
        if not common:
            return 1.0
        logs_L_Q = np.log1p([[tokens[query_id] for query_id in sorted(common)] for tokens in self.tokens.values()])
        seen = logs_L_Q.mean(axis=1).var()
        random = np.random.default_rng(0)
        shuffled = (random.permuted(logs_L_Q, axis=0).mean(axis=1).var() for _ in range(NUM_SHUFFLES))
        num_as_large = sum(bool(variance >= seen - 1e-12) for variance in shuffled)
        return (1 + num_as_large) / (1 + NUM_SHUFFLES)

    @property
    def can_tell(self) -> bool:
        """Whether so few counts can show any difference at all: two levels and five questions cannot."""
        num_common = len(set.intersection(*map(set, self.tokens.values()))) if self.tokens else 0
        return num_common * math.lgamma(len(self.tokens) + 1) >= math.log(2 / SIGNIFICANCE)


def ceiling_of(context_tokens: int | None) -> int:
    """Most tokens that one thought may take while levels are measured: half of the context, and at most CEILING."""
    return min(CEILING, (context_tokens or 2 * CEILING) // 2)


def measure(
    open_engine: Callable[[str], OpenAIEngine], queries: Sequence[Query], levels: Sequence[str] = LEVELS
) -> Measured:
    """What each level takes on `queries`; a level that brings no thought at all is left out.

    Args:
        open_engine: level -> an engine that asks for it whatever the budget.
        queries: what to ask.
        levels: names as the server knows them.
    """
    costs, tokens = {}, {}
    for level in levels:
        engine = open_engine(level)
        ceiling = ceiling_of(engine.info.context_tokens)
        done = finish(collect(engine.generate([Request(query, ceiling) for query in queries])))
        errors = [each.error for each in done if each.error]
        if errors:
            logger.info("effort %s: %d of %d requests failed: %s", level, len(errors), len(done), errors[0])
        counted = {
            each.query_id: each.reasoning_tokens
            for each in done
            if each.reasoning_tokens is not None and not each.error
        }
        if counted:
            cut = sum(each.stop_reason is StopReason.BUDGET for each in done if each.query_id in counted)
            costs[level] = LevelCost.of(list(counted.values()), failed=len(errors), cut=cut)
            tokens[level] = counted
            logger.info("effort %s: 95%% within %s tokens", level, costs[level].to_text())
    return Measured(costs, tokens)
