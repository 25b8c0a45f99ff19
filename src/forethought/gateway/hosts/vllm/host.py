"""vLLM's server as a `Host`: everything that leans on vLLM's own names stands here. Seen with 0.32."""

from __future__ import annotations

import importlib
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ....core.data import FloatArray
from ....errors import EngineError
from ....servers.kinds import KINDS
from ...host import Tags
from .extension import PREFIX, HiddenStates

EXTENSION = "forethought.gateway.HiddenStates"
# Errors of a server that takes no more requests: --max-num-queued-reqs, --max-num-queued-tokens.
BUSY = ("QueueOverflowError", "MaxQueuedTokensError")


class VllmHost:
    """See `Host`.

    Args:
        engine_client: vLLM's; None on a server that only renders.
        state: of its app, initialised.
    """

    def __init__(self, engine_client: Any, state: Any) -> None:
        if engine_client is None or getattr(state, "openai_serving_chat", None) is None:
            raise EngineError(
                "forethought sets budgets where text is generated, and this server generates none; take forethought "
                "out of VLLM_PLUGINS"
            )
        self.kind = KINDS["vllm"]
        self._engine = engine_client
        self._chat = state.openai_serving_chat
        config = engine_client.vllm_config
        self.models = frozenset(str(path.name) for path in state.openai_serving_models.base_model_paths)
        self.has_priorities = str(config.scheduler_config.policy) == "priority"
        self.context_tokens: int | None = int(config.model_config.max_model_len)
        text_config = config.model_config.hf_text_config
        self.num_layers = int(text_config.num_hidden_layers)
        self.hidden_size = int(config.model_config.get_hidden_size())
        self.why_no_states = _why_no_states(config)
        self.tokenizer: Any = engine_client.renderer.get_tokenizer()
        self.tags = _tags(config.reasoning_config, self.tokenizer)

    async def render(self, body: Mapping[str, Any]) -> list[int] | None:
        """See `Host.render`."""
        from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
        from vllm.entrypoints.serve.engine.protocol import ErrorResponse

        try:
            rendered = await self._chat.render_chat_request(ChatCompletionRequest(**body))
        except Exception:  # vLLM raises many kinds; it will raise it again when the request itself arrives
            return None
        if isinstance(rendered, ErrorResponse):
            return None
        _, inputs = rendered
        ids = inputs[0].get("prompt_token_ids") if len(inputs) == 1 else None
        return None if ids is None else list(ids)

    async def generate(self, ids: Sequence[int], *, max_tokens: int, cap: int | None = None) -> list[int]:
        """See `Host.generate`."""
        return await self._generate(f"{PREFIX}cap-{uuid.uuid4().hex}", ids, max_tokens, cap)

    async def watch(self, layer: int) -> None:
        """See `Host.watch`."""
        answers = await self._engine.collective_rpc("forethought_watch", args=(layer,))
        if problems := sorted({str(answer) for answer in answers if answer}):
            raise EngineError(f"hidden states of layer {layer} cannot be read: {'; '.join(problems)}")

    async def hidden_state(self, ids: Sequence[int], layer: int) -> FloatArray | None:
        """See `Host.hidden_state`: a prefill of one token, whose prompt then lies in the prefix cache."""
        name = f"{PREFIX}{uuid.uuid4().hex}"
        try:
            await self._generate(name, ids, 1, None)
        except Exception as error:
            if type(error).__name__ in BUSY:
                raise EngineError(str(error)) from None
            raise
        finally:
            answers = await self._engine.collective_rpc("forethought_take", args=(name, layer))
        caught = next((answer for answer in answers if answer is not None), None)
        return None if caught is None else np.frombuffer(caught, dtype=np.float32)

    async def _generate(self, name: str, ids: Sequence[int], max_tokens: int, cap: int | None) -> list[int]:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        params = SamplingParams(
            temperature=0.0,
            max_tokens=max_tokens,
            ignore_eos=True,
            thinking_token_budget=cap,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        found: list[int] = []
        async for output in self._engine.generate({"prompt_token_ids": list(ids)}, params, name):
            found = list(output.outputs[0].token_ids)
        return found


def _tags(config: Any, tokenizer: Any) -> Tags | None:
    if config is None or not getattr(config, "enabled", False):
        return None
    start_ids, end_ids = config.reasoning_start_token_ids or (), config.reasoning_end_token_ids or ()
    return Tags(  # decoded, since the texts are empty where a parser gave the tags
        start=str(tokenizer.decode(list(start_ids))),
        end=str(tokenizer.decode(list(end_ids))),
        start_ids=tuple(start_ids),
        end_ids=tuple(end_ids),
        is_parsed=bool(config.reasoning_parser),
    )


def _why_no_states(config: Any) -> str:
    name = config.parallel_config.worker_extension_cls
    if not name:
        return f"vLLM's workers were not taught to give them; add --worker-extension-cls {EXTENSION} --enforce-eager"
    if not _is_ours(name):
        return f"the worker extension is {name}; make it a subclass of {EXTENSION}"
    if not config.model_config.enforce_eager:
        return "compiled graphs pass their hooks by; add --enforce-eager"
    if config.parallel_config.data_parallel_size > 1:
        return "with several data-parallel engines a prompt may be read by another one than answers it"
    return ""


def _is_ours(name: str) -> bool:
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError):
        return False
    return isinstance(found, type) and issubclass(found, HiddenStates)
