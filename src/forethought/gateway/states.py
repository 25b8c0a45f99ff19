"""The hidden state of a request's prompt, where that is the prompt that the predictor's questions were asked with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.data import FloatArray, Query
from ..core.prompts import PromptTemplate
from ..engines.forcing import Forcing
from ..errors import EngineError, InvalidInputError
from .host import StateHost, logger
from .request import CHAT, BudgetRequest


class PromptStates:
    """Reads hidden states by prefill.

    Args:
        host: the server.
        template: the predictor's; None where it is not known.
        layer: whose states the predictor reads.
    """

    def __init__(self, host: StateHost, template: PromptTemplate | None, layer: int | None) -> None:
        self._host = host
        self._layer = layer
        self._forcing = None if template is None else Forcing(host.tokenizer, template)

    async def read(self, request: BudgetRequest, body: Mapping[str, Any]) -> FloatArray | str:
        """The state of the prompt's last token, shape (D,); or why there is none, in words."""
        assert self._layer is not None
        if self._forcing is None or request.path != CHAT:
            return "the prompt cannot be compared with the predictor's template"
        ids = await self._host.render(body)
        if ids is None:
            return "the prompt was refused"
        try:
            wanted = self._forcing.prompt_ids(Query("asked", request.question))
        except InvalidInputError:
            return "the chat template refuses the predictor's turns"
        if ids != wanted:
            return f"not the prompt of template {self._forcing.template.name}"
        try:
            hidden_D = await self._host.hidden_state(ids, self._layer)
        except EngineError as error:  # its queue is full, say: what it says of the request itself is the client's reply
            return f"no hidden state: {error}"
        if hidden_D is None:
            logger.warning("no hidden state was caught of a prompt of %d tokens", len(ids))
            return "no hidden state was caught"
        return hidden_D
