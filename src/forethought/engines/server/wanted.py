"""The requirements of the user on a server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...core.data import Sampling
from ...core.prompts import PromptTemplate

ENFORCE = ("auto", "native", "two-call", "max-tokens")
ROOM = 64  # tokens for closing tags and the suffix in the model's own words, beside the answer


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
    answer_room: int | None = None
    cap_offset: int = 0
    native_fields: Mapping[str, Any] = field(default_factory=dict)
    priority: bool = False
    logprobs: bool = False

    @property
    def room(self) -> int:
        """Tokens for an answer that is not forced."""
        return ROOM + self.template.max_answer_tokens if self.answer_room is None else self.answer_room
