"""What the plug-in has done so far, for `GET /forethought/status` and, where vLLM has it, for its `/metrics`."""

from __future__ import annotations

import logging
from typing import Any

from .decision import KINDS, MEAN, Decision

logger = logging.getLogger("vllm.forethought")  # vLLM's own handlers show it


class Tally:
    """Counts of one server process.

    Args:
        mean_budget: tokens a query that the price was set for; None where it was given.
    """

    def __init__(self, mean_budget: float | None) -> None:
        self.mean_budget = mean_budget
        self.num_kind = dict.fromkeys(KINDS, 0)
        self.reasons: dict[str, int] = {}
        self.budget_tokens = self.num_set = 0
        self.num_counted = self.reasoning_tokens = self.num_over = self.largest_overshoot = 0
        self.seconds = 0.0
        self._metrics = _metrics()

    def decided(self, decision: Decision, seconds: float, *, num_thoughts: int = 1) -> None:
        """Notes a decision for so many thoughts, and how long it took."""
        self.num_kind[decision.kind] += 1
        self.seconds += seconds
        if decision.kind == MEAN:
            self.reasons[decision.reason] = self.reasons.get(decision.reason, 0) + 1
        if decision.is_ours and decision.budget is not None:
            self.num_set += num_thoughts
            self.budget_tokens += num_thoughts * decision.budget
            self._count("budget_tokens", num_thoughts * decision.budget)
        self._count("requests", 1, decision.kind)

    def came_back(self, budget: int, tokens: int) -> None:
        """Notes the tokens of a thought; says so in the log where they are more than its budget."""
        self.num_counted += 1
        self.reasoning_tokens += tokens
        self._count("reasoning_tokens", tokens)
        if tokens <= budget:
            return
        self.num_over += 1
        self.largest_overshoot = max(self.largest_overshoot, tokens - budget)
        self._count("overshoots", 1)
        if self.num_over & (self.num_over - 1) == 0:  # the 1st, 2nd, 4th, 8th, …
            logger.warning("a thought of %d tokens under a budget of %d: %d so far", tokens, budget, self.num_over)

    def to_json(self) -> dict[str, Any]:
        """One object, JSON-able."""
        num = sum(self.num_kind.values())
        mean = self.budget_tokens / self.num_set if self.num_set else None
        target = self.mean_budget
        return {
            "requests": num,
            "by_kind": dict(self.num_kind),
            "reasons": dict(self.reasons),
            "mean_budget": mean,
            "target_mean_budget": target,
            "drift": None if mean is None or not target else mean / target - 1.0,
            "counted": self.num_counted,
            "mean_reasoning_tokens": self.reasoning_tokens / self.num_counted if self.num_counted else None,
            "overshoots": self.num_over,
            "largest_overshoot": self.largest_overshoot,
            "mean_decision_seconds": self.seconds / num if num else None,
        }

    def _count(self, name: str, amount: int, kind: str | None = None) -> None:
        if (counter := self._metrics.get(name)) is not None:
            (counter.labels(kind) if kind is not None else counter).inc(amount)


_made: dict[str, Any] = {}  # counters belong to the process: prometheus_client takes each name once


def _metrics() -> dict[str, Any]:
    """Counters in the registry that vLLM's /metrics shows; none where prometheus_client is not installed."""
    try:
        from prometheus_client import Counter
    except ImportError:
        return {}
    if not _made:
        _made["requests"] = Counter("forethought_requests", "Requests by how their budget was found", ["kind"])
        _made["budget_tokens"] = Counter("forethought_budget_tokens", "Reasoning tokens granted by the plug-in")
        _made["reasoning_tokens"] = Counter("forethought_reasoning_tokens", "Reasoning tokens that came back")
        _made["overshoots"] = Counter("forethought_overshoots", "Thoughts longer than their budget")
    return _made
