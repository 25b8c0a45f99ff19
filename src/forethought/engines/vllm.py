"""vLLM inside this process: the fast engine for making profiles and running batches, on a GPU or a CPU."""

from __future__ import annotations

import asyncio
import copy
import itertools
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from ..errors import EngineError, InvalidInputError
from ..models import locate
from ..prompts import PromptTemplate
from ..types import EngineInfo, FloatArray, Generation, Query, Request, Sampling
from .flight import Flight
from .forcing import Forcing
from .hooks import install_hooks
from .refusing import check_layers, failed, refusal

# One process: hooks are ordinary closures and no second process polls. Read when vLLM is imported.
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
}


class VllmEngine:
    """Traces, forced answers and prompt hidden states from an in-process vLLM.

    Probes are submitted as token ids the moment a trace ends, so that the prefix cache still holds its KV blocks;
    they go ahead of traces that have not started.

    Args:
        model: an alias, a folder or a hub id (see `forethought.models`).
        template: the text around a query.
        sampling: how traces are drawn.
        context_tokens: longest prompt + thought + answer.
        num_sequences: sequences decoded together.
        block_size: tokens a KV block; prefix caching only reuses whole blocks, so a small one saves probes.
        kv_cache_gib: memory for the KV cache on a CPU.
        options: anything else `vllm.LLM` takes.
    """

    def __init__(
        self,
        model: str,
        *,
        template: PromptTemplate,
        sampling: Sampling = Sampling(),
        context_tokens: int = 2048,
        num_sequences: int = 64,
        block_size: int = 32,
        kv_cache_gib: int = 3,
        **options: Any,
    ) -> None:
        local = locate(model)
        for key, value in {**ENVIRONMENT, "VLLM_CPU_KVCACHE_SPACE": str(kv_cache_gib)}.items():
            os.environ.setdefault(key, value)
        from vllm import LLM

        self.template = template
        self.sampling = sampling
        self.num_sequences = num_sequences
        try:
            self._llm: Any = LLM(
                str(local.path),
                max_model_len=context_tokens,
                max_num_seqs=num_sequences,
                block_size=block_size,
                **{
                    "dtype": "bfloat16",
                    "enforce_eager": True,  # hooks for hidden states are skipped by compiled graphs
                    # Seeded requests crash the CPU runner on a partial prefill, so prompts are never split.
                    "enable_chunked_prefill": False,
                    "max_num_batched_tokens": max(context_tokens, 2048),
                    "trust_remote_code": False,
                    **options,
                },
            )
        except Exception as error:  # vLLM raises many kinds here; each means that no engine came up
            raise EngineError(f"vLLM did not start with {local.path}: {error}") from error
        self._engine = self._llm.llm_engine
        self._forcing = Forcing(self._llm.get_tokenizer(), template)
        config = self._engine.model_config
        self._counter = itertools.count(1)  # shared with every template's engine: vLLM knows requests by these numbers
        self._outputs: dict[str, Any] = {}  # vLLM request id -> its output, from when it finishes until it is taken
        self._context_tokens = context_tokens
        self.info = EngineInfo(
            engine="vllm",
            model=local.name,
            model_hash=local.hash,
            template=template.name,
            template_hash=template.hash,
            num_layers=int(config.hf_config.num_hidden_layers),
            hidden_size=int(config.get_hidden_size()),
            context_tokens=context_tokens,
            dtype=str(config.dtype).removeprefix("torch."),
            device=str(self._engine.vllm_config.device_config.device_type),
            versions={name: _version(name) for name in ("vllm", "torch", "transformers") if _version(name)},
        )

    async def generate(self, requests: Sequence[Request]) -> AsyncIterator[Generation]:
        """See `Engine.generate`."""
        engine, waiting = self._running(), iter(requests)
        flights: dict[str, tuple[Flight, int | None]] = {}  # vLLM request id -> flight, cut (None: the trace)
        exhausted = False
        try:
            while not exhausted or flights:
                while not exhausted and len(flights) < self.num_sequences:
                    request = next(waiting, None)
                    if request is None:
                        exhausted = True
                    elif (refused := self._start(request, flights)) is not None:
                        yield refused
                if not any(request_id in self._outputs for request_id in flights):
                    self._step(engine)
                for request_id in [request_id for request_id in flights if request_id in self._outputs]:
                    if request_id in flights:  # not taken back meanwhile
                        for generation in self._advance(request_id, flights):
                            yield generation
                await asyncio.sleep(0)
        finally:
            self._withdraw(list(flights))  # the caller stopped listening: free the slots

    def _step(self, engine: Any) -> None:
        """One step of vLLM; what finishes is kept for whoever asked for it, for several may be asking at once."""
        for output in engine.step():
            if output.finished:
                self._outputs[output.request_id] = output

    def _withdraw(self, request_ids: Sequence[str]) -> None:
        """Takes requests back, finished or not."""
        if request_ids and self._engine is not None:
            self._engine.abort_request(list(request_ids))
        for request_id in request_ids:
            self._outputs.pop(request_id, None)

    def _start(self, request: Request, flights: dict[str, tuple[Flight, int | None]]) -> Generation | None:
        """Submits the trace of `request`; returns a failed generation when it cannot run."""
        try:
            flight = Flight(request, self._forcing.prompt_ids(request.query))
        except InvalidInputError as error:
            return failed(request, str(error))
        reason = refusal(
            request,
            prompt_tokens=len(flight.prompt_ids),
            suffix_tokens=len(self._forcing.suffix_ids),
            answer_tokens=self.template.max_answer_tokens,
            context_tokens=self._context_tokens,
        )
        if reason is not None:
            return flight.failed(reason)
        try:
            if request.budget == 0:
                self._end_thought(flight, [], flights, natural=False)
            else:
                self._submit(
                    flight,
                    None,
                    flight.prompt_ids,
                    flights,
                    temperature=self.sampling.temperature,
                    top_p=self.sampling.top_p,
                    seed=request.seed,
                    max_tokens=request.budget,
                    stop=[self.template.reasoning_end],
                    include_stop_str_in_output=True,
                )
        except ValueError as error:
            return flight.failed(str(error))
        return None

    def _submit(
        self,
        flight: Flight,
        cut: int | None,
        ids: list[int],
        flights: dict[str, tuple[Flight, int | None]],
        **params: Any,
    ) -> None:
        from vllm import SamplingParams

        request_id = self._new_id()
        self._running().add_request(request_id, {"prompt_token_ids": ids}, SamplingParams(**params))
        flights[request_id] = (flight, cut)

    def _new_id(self) -> str:
        return str(next(self._counter))

    def _advance(self, request_id: str, flights: dict[str, tuple[Flight, int | None]]) -> Iterator[Generation]:
        """Takes a finished trace to its forced answers, or a finished answer into its flight."""
        flight, cut = flights.pop(request_id)
        completion = self._outputs.pop(request_id).outputs[0]
        if completion.finish_reason not in ("stop", "length"):
            siblings = [other for other, (owner, _) in flights.items() if owner is flight]
            self._withdraw(siblings)
            for sibling in siblings:
                del flights[sibling]
            yield flight.failed(f"vLLM ended the request with {completion.finish_reason!r}")
        elif cut is None:
            ids = list(completion.token_ids)
            length = self._forcing.reasoning_length(ids)
            natural = length is not None or completion.finish_reason == "stop"
            if length is None:  # ended by the end-of-turn token, which is no thought, or by the cap
                length = len(ids) - 1 if natural else len(ids)
            self._end_thought(flight, ids[:length], flights, natural=natural)
        else:
            ids = [*flight.begun.pop(cut, ()), *completion.token_ids]
            is_inside = completion.stop_reason == self.template.answer_stop and not self._forcing.has_answered(ids)
            if is_inside and len(ids) < self.template.max_answer_tokens:
                flight.begun[cut] = ids  # vLLM stopped at a brace that the answer itself had opened
                self._ask(flight, cut, flights)
                return
            flight.answers[cut] = (self._forcing.clean_answer(self._forcing.decode(ids)), len(ids))
            if flight.is_answered:
                yield flight.finished(self._forcing)

    def _end_thought(
        self,
        flight: Flight,
        thought_ids: list[int],
        flights: dict[str, tuple[Flight, int | None]],
        *,
        natural: bool,
    ) -> None:
        """Submits the forced answers of a thought that has ended."""
        flight.end_thought(thought_ids, natural=natural)
        for cut in flight.cuts:
            self._ask(flight, cut, flights)

    def _ask(self, flight: Flight, cut: int, flights: dict[str, tuple[Flight, int | None]]) -> None:
        """Submits the forced answer after `cut` tokens of the thought, or the rest of it."""
        begun = flight.begun.get(cut, [])
        self._submit(
            flight,
            cut,
            flight.prompt_ids + self._forcing.closed(flight.thought_ids[:cut]) + begun,
            flights,
            temperature=0.0,
            max_tokens=self.template.max_answer_tokens - len(begun),
            stop=[self.template.answer_stop],
        )

    def with_template(self, template: PromptTemplate) -> VllmEngine:
        """See `TemplateEngine.with_template`."""
        other = copy.copy(self)
        other.template = template
        other._forcing = Forcing(self._forcing.tokenizer, template)
        other.info = replace(self.info, template=template.name, template_hash=template.hash)
        return other

    def hidden_states(self, queries: Sequence[Query], layers: Sequence[int]) -> FloatArray:
        """See `HiddenStateEngine.hidden_states`: one prompt pass, by forward hooks on the decoder layers.

        The pass leaves the prompts in the prefix cache, where generation finds them.
        """
        from vllm import SamplingParams

        _, width = check_layers(layers, self.info)
        engine = self._running()
        hidden_Q_L_D = np.full((len(queries), len(layers), width), np.nan, dtype=np.float32)
        if not layers:
            return hidden_Q_L_D
        caught: dict[str, dict[int, Any]] = {}
        rows: dict[str, int] = {}
        removers = self._llm.collective_rpc(_install_hooks, args=(tuple(layers), caught))
        try:
            for row, ids in enumerate(self._forcing.prompts(queries)):
                if ids is not None and len(ids) < self._context_tokens:
                    request_id = self._new_id()
                    params = SamplingParams(max_tokens=1, temperature=0.0)
                    engine.add_request(request_id, {"prompt_token_ids": ids}, params)
                    rows[request_id] = row
            while not rows.keys() <= self._outputs.keys():
                self._step(engine)
        finally:
            for remove in removers:
                remove()
            self._withdraw(list(rows))
        for request_id, row in rows.items():
            hidden_Q_L_D[row] = np.stack([caught[request_id][layer] for layer in layers])
        return hidden_Q_L_D

    def close(self) -> None:
        """Frees the model."""
        self._llm = self._engine = None
        self._outputs.clear()

    def _running(self) -> Any:
        if self._engine is None:
            raise EngineError(f"the engine of {self.info.model} is closed; make a new one")
        return self._engine


def _install_hooks(worker: Any, layers: tuple[int, ...], caught: dict[str, dict[int, Any]]) -> Callable[[], None]:
    """Runs in vLLM's worker: catches each request's last prompt token at `layers`; returns what takes the hooks off."""
    return install_hooks(worker, layers, lambda name: caught.setdefault(name, {}))


def _version(package: str) -> str:
    for name in (package, f"{package}-cpu"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return ""
