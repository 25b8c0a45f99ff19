"""The reference engine: any causal model that transformers can load, batched, with reuse of all keys and values."""

from __future__ import annotations

import asyncio
import copy
import logging
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import transformers
from safetensors import SafetensorError

from ..core.data import EngineInfo, FloatArray, Generation, Query, Request, Sampling
from ..core.flags import at_least, check_all
from ..core.prompts import PromptTemplate
from ..errors import EngineError
from ..models import locate
from ..models.config import config_of
from ..models.gguf import no_progress_bars
from . import memory
from .attention import ATTENTION
from .batch import Batch
from .decoding import Decoder, common_length
from .flight import check_layers
from .forcing import Forcing

logger = logging.getLogger(__name__)

# Rows decoded together when the caller does not say. A CPU's bf16 products gain little beyond 64 rows.
NUM_SEQUENCES = {"cpu": 64, "cuda": 128}
ROW_CACHE_BYTES = 1 << 30  # for choosing num_sequences: what the rows' own keys and values may take on a CPU
OWN_TOKENS = 512  # for the same choice: own tokens of a usual row


class TransformersEngine:
    """Traces, forced answers and prompt hidden states from a model run by transformers in this process.

    Works on a CPU and a GPU, shows every layer, and gives the same trace for the same request whatever else is in the
    batch (up to rounding: exactly so in float32 but for ties). Prompts share the keys and values of what they all begin
    with; forced answers continue from those of their trace; `hidden_states` leaves its prompts where `generate` finds
    them. For speed on a GPU use the vllm engine.

    Args:
        model: an alias, a folder or a hub id (see `forethought.models`).
        template: the text around a query.
        sampling: how traces are drawn.
        context_tokens: longest prompt + thought + answer; None for what the model was made for, which is the most.
        num_sequences: rows decoded together, traces and forced answers alike; None for a number that suits the device.
        dtype: "auto", "float32", "bfloat16" or "float16". Auto is bfloat16 where the hardware computes in it.
        device: "auto", "cpu", "cuda", …
        num_threads: CPU threads of torch; None leaves them as they are.
        prompt_cache_mib: memory for the keys and values of prompts between calls.
        logprobs: show how likely the model found what it wrote (`Generation.logprobs`), to weigh votes by.
        needed_tokens: longest prompt + thought + answer that will be asked for, where known: for the choice of
            `num_sequences`, and what is said of memory.
    """

    def __init__(
        self,
        model: str,
        *,
        template: PromptTemplate,
        sampling: Sampling = Sampling(),
        context_tokens: int | None = None,
        num_sequences: int | None = None,
        dtype: str = "auto",
        device: str = "auto",
        num_threads: int | None = None,
        prompt_cache_mib: int = 1024,
        logprobs: bool = False,
        needed_tokens: int | None = None,
    ) -> None:
        check_all(
            (
                at_least("num_sequences", num_sequences, 1),
                at_least("prompt_cache_mib", prompt_cache_mib, 0),
                at_least("num_threads", num_threads, 1),
            )
        )
        local = locate(model)
        if num_threads is not None:
            torch.set_num_threads(num_threads)
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype, self.dtype_reason = _choose_dtype(dtype, device)
        logger.info("%s on %s in %s: %s", local.name, device, dtype, self.dtype_reason)
        self.template, self.shows_logprobs = template, logprobs
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(local.path, trust_remote_code=False)
            self._forcing = Forcing(tokenizer, template)
            each = memory.token_bytes(config_of(local.path), dtype)
            own = max(OWN_TOKENS, (needed_tokens or 0) - len(self._forcing.decode(self._template_prefix()).encode()))
            # Few thoughts run to their cap: a quarter of it is taken for usual.
            self.num_sequences = num_sequences or _rows_that_suit(max(OWN_TOKENS, own // 4) * (each or 1), device)
            if device == "cpu":
                memory.announce(
                    local.name,
                    memory.loaded_bytes(local.path, dtype),
                    None if each is None else (prompt_cache_mib << 20) + self.num_sequences * own * each,
                    how="fewer: --engine-option num_sequences=N, prompt_cache_mib=N",
                    free=memory.free_bytes(),
                )
            with no_progress_bars():
                loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
                    local.path,
                    dtype=getattr(torch, dtype),
                    attn_implementation=ATTENTION,
                    trust_remote_code=False,
                    use_safetensors=True,
                )
            loaded.to(device).eval()
        # AssertionError: of a torch that was not made for the device
        except (OSError, RuntimeError, ValueError, KeyError, ImportError, AssertionError, SafetensorError) as error:
            raise EngineError(f"transformers did not load {local.path}: {error}") from error
        config = loaded.config.get_text_config()
        self.sampling = sampling
        self._context_tokens = min(context_tokens or sys.maxsize, int(config.max_position_embeddings))
        self._stop_ids = _stop_ids(loaded.generation_config.eos_token_id, tokenizer.eos_token_id)
        self._decoder: Decoder | None = Decoder(
            loaded, prefix_ids=self._template_prefix(), prompt_cache_bytes=prompt_cache_mib << 20
        )
        self.info = EngineInfo(
            engine="transformers",
            model=local.name,
            model_hash=local.hash,
            template=template.name,
            template_hash=template.hash,
            sampling=sampling,
            num_layers=int(config.num_hidden_layers),
            hidden_size=int(config.hidden_size),
            context_tokens=self._context_tokens,
            dtype=dtype,
            device=device,
            versions={"torch": torch.__version__, "transformers": transformers.__version__},
        )

    def _template_prefix(self) -> list[int]:
        """What the prompts of two unlike queries share: the template's turns and examples, up to the question."""
        first, second = (self._forcing.prompt_ids(Query(id="", prompt=text)) for text in ("0", "What is?"))
        return first[: common_length(first, second)]

    async def generate(self, requests: Iterable[Request]) -> AsyncIterator[Generation]:
        """See `Engine.generate`."""
        batch = Batch(
            self._running(),
            self._forcing,
            requests,
            sampling=self.sampling,
            stop_ids=self._stop_ids,
            num_sequences=self.num_sequences,
            context_tokens=self._context_tokens,
            logprobs=self.shows_logprobs,
        )
        while batch.is_busy:
            for generation in batch.step():
                yield generation
            await asyncio.sleep(0)

    def with_template(self, template: PromptTemplate) -> TransformersEngine:
        """See `TemplateEngine.with_template`; its examples are kept computed like the first template's."""
        decoder, other = self._running(), copy.copy(self)
        other.template = template
        other._forcing = Forcing(self._forcing.tokenizer, template)
        other._decoder = decoder.with_prefix(other._template_prefix())
        other.info = replace(self.info, template=template.name, template_hash=template.hash)
        return other

    def hidden_states(self, queries: Sequence[Query], layers: Sequence[int]) -> FloatArray:
        """See `HiddenStateEngine.hidden_states`: one prompt pass, whose keys and values `generate` then finds.

        Raises:
            InvalidFeaturesError: a layer the model does not have.
        """
        return self.pooled_states(queries, layers)[0]

    def pooled_states(self, queries: Sequence[Query], layers: Sequence[int]) -> tuple[FloatArray, FloatArray]:
        """See `PooledStateEngine.pooled_states`."""
        decoder = self._running()
        _, width = check_layers(layers, self.info)
        last_Q_L_D = np.full((len(queries), len(layers), width), np.nan, dtype=np.float32)
        mean_Q_L_D = last_Q_L_D.copy()
        prompts = {
            row: ids
            for row, ids in enumerate(self._forcing.prompts(queries))
            if ids is not None and len(ids) < self._context_tokens
        }
        if prompts and layers:
            last, mean = decoder.hidden_states(list(prompts.values()), layers)
            last_Q_L_D[list(prompts)], mean_Q_L_D[list(prompts)] = last.numpy(), mean.numpy()
        return last_Q_L_D, mean_Q_L_D

    def close(self) -> None:
        """Frees the model and the caches."""
        self._decoder = None

    def _running(self) -> Decoder:
        if self._decoder is None:
            raise EngineError(f"the engine of {self.info.model} is closed; make a new one")
        return self._decoder


def _choose_dtype(dtype: str, device: str) -> tuple[str, str]:
    """`(dtype, reason)`: bfloat16 only where the hardware computes in it; elsewhere it is slower than float32."""
    if dtype != "auto":
        if dtype not in ("float32", "bfloat16", "float16"):
            raise EngineError(f"no dtype is called {dtype!r}; use auto, float32, bfloat16 or float16")
        return dtype, "asked for"
    if device != "cpu":
        return "bfloat16", "usual on an accelerator"
    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    native = [name for name in ("amx_bf16", "avx512_bf16", "sve_bf16", "bf16") if capabilities.get(name)]
    if native:
        return "bfloat16", f"this CPU has {native[0]}"
    return "float32", "this CPU has no bfloat16 instructions"


def _rows_that_suit(row_bytes: int, device: str) -> int:
    most = NUM_SEQUENCES.get(device.partition(":")[0], NUM_SEQUENCES["cpu"])
    return most if device != "cpu" else max(8, min(most, ROW_CACHE_BYTES // row_bytes))


def _stop_ids(*found: int | Iterable[int] | None) -> frozenset[int]:
    """The tokens that end a turn, from the places where a model may say so."""
    ids: set[int] = set()
    for value in found:
        ids.update(() if value is None else (value,) if isinstance(value, int) else value)
    return frozenset(ids)
