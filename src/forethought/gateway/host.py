"""What the gateway needs of the server behind it: little, and more where the predictor reads hidden states."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..core.data import FloatArray
from ..servers.kinds import ServerKind

logger = logging.getLogger("vllm.forethought")  # vLLM's own handlers show it


@dataclass(frozen=True, slots=True)
class Tags:
    """How the server tells a thought.

    Attributes:
        start, end: the texts that open and close it.
        start_ids, end_ids: their tokens, as the server looks for them.
        is_parsed: the server has a reasoning parser, and shows a thought in a field of its own.
    """

    start: str
    end: str
    start_ids: tuple[int, ...]
    end_ids: tuple[int, ...]
    is_parsed: bool


class Host(Protocol):
    """The server, as far as deciding on requests goes.

    Attributes:
        kind: what it calls the cap on thinking.
        models: names of the model that the predictor is for, adapters left out; empty for any.
        has_priorities: whether it schedules by priority.
        context_tokens: most tokens of a prompt and its answer, None where it is not known: vLLM refuses a limit above.
    """

    kind: ServerKind
    models: frozenset[str]
    has_priorities: bool
    context_tokens: int | None


class StateHost(Host, Protocol):
    """A server that the gateway runs inside of; `hosts/vllm` is vLLM's, the tests have one of their own.

    Attributes:
        tags: None where it has no reasoning configuration, and refuses every thinking budget.
        num_layers, hidden_size: of the model.
        why_no_states: why hidden states cannot be read, with the flag to add; "" where they can.
        tokenizer: of Hugging Face's kind.
    """

    tags: Tags | None
    num_layers: int
    hidden_size: int
    why_no_states: str
    tokenizer: Any

    async def render(self, body: Mapping[str, Any]) -> list[int] | None:
        """Prompt ids of a chat request, exactly as it would be run; None where it would be refused."""
        ...

    async def generate(self, ids: Sequence[int], *, max_tokens: int, cap: int | None = None) -> list[int]:
        """The likeliest `max_tokens` tokens after `ids`, whether the turn has ended or not, under a thinking budget."""
        ...

    async def watch(self, layer: int) -> None:
        """Gets ready to read hidden states of `layer`; raises EngineError where it cannot."""
        ...

    async def hidden_state(self, ids: Sequence[int], layer: int) -> FloatArray | None:
        """The residual stream of the last of `ids` after `layer` decoder layers; None where nothing was caught.

        Raises:
            EngineError: the server takes no more requests now; says so.
        """
        ...
