"""Counts the prompt tokens that the prefix cache saves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...core.terms import percent


@dataclass(slots=True)
class Reuse:
    """Prompt tokens since the engine was opened, and how many of them the prefix cache held.

    Attributes:
        num_traces, num_answers: requests for thoughts, and for the forced answers after them.
        trace_tokens, trace_cached: of the thoughts' prompts.
        answer_tokens, answer_cached: of the answers' prompts: the query, the thought so far, the suffix.
    """

    num_traces: int = 0
    num_answers: int = 0
    trace_tokens: int = 0
    trace_cached: int = 0
    answer_tokens: int = 0
    answer_cached: int = 0

    def add(self, output: Any, *, is_trace: bool) -> None:
        """Counts one of vLLM's outputs."""
        tokens, cached = len(output.prompt_token_ids), output.num_cached_tokens or 0
        if is_trace:
            self.num_traces += 1
            self.trace_tokens += tokens
            self.trace_cached += cached
        else:
            self.num_answers += 1
            self.answer_tokens += tokens
            self.answer_cached += cached

    def to_text(self) -> str:
        """One line for the log; "" if there is nothing to report."""
        parts = []
        if self.num_traces:
            share = self.trace_cached / max(1, self.trace_tokens)
            parts.append(
                f"{self.num_traces:,} thoughts, {percent(share, 0)} of their prompts' tokens from the prefix cache"
            )
        if self.num_answers:
            share = self.answer_cached / max(1, self.answer_tokens)
            left = (self.answer_tokens - self.answer_cached) / self.num_answers
            parts.append(
                f"{self.num_answers:,} forced answers, {percent(share, 0)} ({left:.0f} tokens computed for each)"
            )
        return "; ".join(parts)
