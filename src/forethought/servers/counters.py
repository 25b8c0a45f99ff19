"""What a run over HTTP has met, counted."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Counters:
    """Counts since the engine was opened.

    Attributes:
        num_calls: HTTP requests that were wanted, each counted once however often it was tried.
        num_attempts: times that something was sent.
        retries: cause -> attempts that had to be repeated for it.
        num_overshoots: thoughts that came back longer than their cap.
        largest_overshoot: by how many tokens, at most.
        num_disagreements: thoughts whose reported and counted lengths differ.
        trace_tokens: tokens generated for thoughts, or for whole answers where one call does both.
        answer_tokens: tokens generated for forced answers.
        discarded_tokens: tokens known to be generated for attempts that were repeated and for requests that failed;
            in none of the other sums.
        num_uncounted: answers whose tokens nothing reliable told.
        prompt_tokens, cached_tokens: prompt tokens in all, and those that the server says it had cached.
    """

    num_calls: int = 0
    num_attempts: int = 0
    retries: Counter[str] = field(default_factory=Counter)
    num_overshoots: int = 0
    largest_overshoot: int = 0
    num_disagreements: int = 0
    trace_tokens: int = 0
    answer_tokens: int = 0
    discarded_tokens: int = 0
    num_uncounted: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0

    def overshoot(self, num_tokens: int, budget: int, *, is_exact: bool = True) -> str:
        """Notes a thought that is longer than its cap; what its record says of it."""
        self.num_overshoots += 1
        self.largest_overshoot = max(self.largest_overshoot, num_tokens - budget)
        about = "" if is_exact else "about "
        return f"the server ignored the cap: {about}{num_tokens} reasoning tokens > {budget}"

    def uncounted(self) -> None:
        """Notes an answer whose tokens nothing told; said aloud the first time."""
        if self.num_uncounted == 0:
            logger.warning(
                "nothing reliable tells how many tokens a thought has here: it is recorded as not counted, and whether "
                "it kept its budget is not known; --engine-option tokenizer=NAME counts it (said once a run)"
            )
        self.num_uncounted += 1

    def disagree(self, reported: int, counted: int, what: str) -> None:
        """Notes that the server's count is not ours; said aloud the first time."""
        if self.num_disagreements == 0:
            logger.warning(
                "the server reports %d reasoning tokens where %s gives %d; the larger is recorded (said once a run)",
                reported,
                what,
                counted,
            )
        self.num_disagreements += 1

    def to_json(self) -> dict[str, Any]:
        """One flat object; retries by cause."""
        return {name: getattr(self, name) for name in self.__slots__ if name != "retries"} | {
            "retries": dict(sorted(self.retries.items()))
        }

    def to_text(self) -> str:
        """One line for the log; "" where there is nothing to tell."""
        parts = []
        if self.trace_tokens:
            share = self.cached_tokens / max(1, self.prompt_tokens)
            cached = f", {share:.0%} of them cached there" if self.cached_tokens else ""
            parts.append(
                f"{self.trace_tokens:,} tokens of thought, {self.answer_tokens:,} of forced answers, "
                f"{self.prompt_tokens:,} of prompts{cached}"
            )
        if self.retries:
            causes = ", ".join(f"{cause} {count}" for cause, count in self.retries.most_common())
            parts.append(f"{self.retries.total()} of {self.num_attempts} attempts were repeated ({causes})")
        if self.discarded_tokens:
            parts.append(
                f"{self.discarded_tokens:,} tokens at least were generated for attempts and requests that failed"
            )
        if self.num_uncounted:
            parts.append(f"{self.num_uncounted} answers could not be counted")
        if self.num_overshoots:
            parts.append(f"{self.num_overshoots} thoughts came back longer than their cap and count as failed")
        if self.num_disagreements:
            parts.append(f"{self.num_disagreements} thoughts were reported with another length than counted")
        return "; ".join(parts)
