"""The fast engine for profiles and batches, on a GPU or a CPU."""

from __future__ import annotations

import asyncio
import copy
import itertools
import logging
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ...core.data import EngineInfo, FloatArray, Generation, Query, Request, Sampling
from ...core.prompts import PromptTemplate
from ...core.versions import version_of
from ...errors import EngineError
from ...models import locate
from ..flight import Flight, begin, check_layers, ordered
from ..forcing import Forcing
from .native import LONGEST_TAIL, TRIAL_QUERIES, Fate, NativeCap
from .reuse import Reuse
from .starting import Choices, fitting_length, start
from .states import by_connector, by_hooks

logger = logging.getLogger(__name__)

PACKAGES = ("vllm", "torch", "transformers")
UNKNOWN_LENGTH = 32768  # of a batch's prompts, where neither the model nor anyone else says how long they may be
Flights = dict[str, tuple[Flight, int | None]]  # vLLM request id -> flight, cut (None: the trace)


class VllmEngine:
    """Traces, forced answers and prompt hidden states from an in-process vLLM.

    Probes are submitted as token ids the moment a trace ends: the prefix cache still holds its KV blocks.

    Args:
        model: an alias, a folder or a hub id (see `forethought.models`).
        template: the text around a query.
        sampling: how traces are drawn.
        context_tokens: longest prompt + thought + answer; None for `needed_tokens`, or what the model was made for.
        needed_tokens: the same, as far as it will be asked for; more than the model was made for is not taken.
        num_sequences: sequences decoded together.
        block_size: tokens a KV block (the prefix cache reuses whole ones); None for 32 on a CPU, elsewhere vLLM's own.
        kv_cache_gib: memory for the KV cache on a CPU.
        enforce: "two-call": the thought up to its cap, then its answer, decoded greedily; or "native": vLLM's own cap
            and one request for both, the answer drawn as the thought is. "auto" is "two-call".
        schedule: "fcfs", or "priority": requests with a lower `Request.priority` go first.
        hidden: how hidden states are read: "hooks", "connector" or "auto".
        feature_layers: layers that `hidden_states` will be asked for; the connector fixes them at the start.
        logprobs: show how likely the model found what it wrote (`Generation.logprobs`), to weigh votes by.
        options: anything else `vllm.LLM` takes.
    """

    def __init__(
        self,
        model: str,
        *,
        template: PromptTemplate,
        sampling: Sampling = Sampling(),
        context_tokens: int | None = None,
        needed_tokens: int | None = None,
        num_sequences: int = 64,
        block_size: int | None = None,
        kv_cache_gib: int = 3,
        enforce: str = "two-call",
        schedule: str = "fcfs",
        hidden: str = "auto",
        feature_layers: Sequence[int] = (),
        logprobs: bool = False,
        **options: Any,
    ) -> None:
        choices = Choices(enforce, schedule, hidden, tuple(feature_layers))
        local = locate(model)
        length = context_tokens or fitting_length(local.path, needed_tokens)
        self._started = start(
            local.path,
            template,
            choices,
            kv_cache_gib=kv_cache_gib,
            options={
                "max_model_len": length,
                "max_num_seqs": num_sequences,
                "max_num_batched_tokens": max(length or UNKNOWN_LENGTH, 2048),
                "block_size": block_size,
                **options,
            },
        )
        self.template = template
        self.sampling = sampling
        self.num_sequences = num_sequences
        self._shown: dict[str, Any] = {"logprobs": 0} if logprobs else {}  # of vLLM: of the tokens written, no others
        self.reuse = Reuse()
        self._forcing = Forcing(self._started.llm.get_tokenizer(), template)
        self._counter = itertools.count(1)  # shared with every template's engine: vLLM knows requests by these numbers
        self._outputs: dict[str, Any] = {}  # vLLM request id -> its newest output, until it is taken
        self._watched: set[str] = set()  # requests that are looked at before they finish
        self._has_told_of_priorities = False
        self._native = None if self._started.native is None else self._started.native.measured(self._trial)
        config = (engine := self._running()).model_config
        self._context_tokens = int(config.max_model_len)
        self.info = EngineInfo(
            engine="vllm",
            model=local.name,
            model_hash=local.hash,
            template=template.name,
            template_hash=template.hash,
            sampling=sampling,
            num_layers=int(config.hf_config.num_hidden_layers),
            hidden_size=int(config.get_hidden_size()),
            context_tokens=self._context_tokens,
            dtype=str(config.dtype).removeprefix("torch."),
            device=str(engine.vllm_config.device_config.device_type),
            versions={name: found for name in PACKAGES if (found := version_of(name, f"{name}-cpu"))},
            enforcement=_enforcement(self._native),
        )

    async def generate(self, requests: Iterable[Request]) -> AsyncIterator[Generation]:
        """See `Engine.generate`."""
        engine, waiting = self._running(), self._in_order(requests)
        flights: Flights = {}
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

    def _in_order(self, requests: Iterable[Request]) -> Iterator[Request]:
        """By priority where that is scheduled; vLLM ignores priorities otherwise, and says nothing."""
        if self._started.has_priorities:
            yield from ordered(requests, lambda request: request.priority)
            return
        for request in requests:
            if request.priority and not self._has_told_of_priorities:
                self._has_told_of_priorities = True
                logger.info("requests run first come, first served; by priority with --engine-option schedule=priority")
            yield request

    def _step(self, engine: Any) -> None:
        """One step of vLLM; what finishes is kept for whoever asked for it, for several may be asking at once."""
        try:
            outputs = engine.step()
        except Exception as error:  # vLLM raises many kinds here; each ends the engine, not one request
            raise EngineError(f"vLLM failed while it generated: {type(error).__name__}: {error}") from error
        for output in outputs:
            if output.finished or output.request_id in self._watched:
                self._outputs[output.request_id] = output

    def _withdraw(self, request_ids: Sequence[str]) -> None:
        """Takes requests back, finished or not."""
        if request_ids and self._started.llm is not None:
            self._running().abort_request(list(request_ids))
        for request_id in request_ids:
            self._outputs.pop(request_id, None)
            self._watched.discard(request_id)

    def _start(self, request: Request, flights: Flights) -> Generation | None:
        """Submits the trace of `request`; a failed generation when it cannot run."""
        from vllm.exceptions import VLLMValidationError

        flight = begin(Flight, request, self._forcing, self._context_tokens)
        if isinstance(flight, Generation):
            return flight
        if self._native is not None and (reason := self._native.refusal(flight.prompt_ids)) is not None:
            return flight.failed(reason, is_final=True)
        try:
            if request.budget == 0:
                self._end_thought(flight, [], flights, natural=False)
            else:
                self._think(flight, flights)
        except (ValueError, VLLMValidationError) as error:  # the second was one of the first in older ones
            return flight.failed(str(error))
        return None

    def _think(self, flight: Flight, flights: Flights) -> None:
        """Submits the trace: with its answer where vLLM caps it, alone where it is cut by `max_tokens`."""
        budget = flight.request.budget
        cap = None if self._native is None else self._native.cap(budget)
        drawing: dict[str, Any] = {
            "temperature": self.sampling.temperature,
            "top_p": self.sampling.top_p,
            "seed": flight.request.seed,
        }
        if cap is None:
            drawing |= {
                "max_tokens": budget,
                "stop": [self.template.reasoning_end],
                "include_stop_str_in_output": True,
                "skip_special_tokens": not self._forcing.has_special_end,
            }
        else:
            assert self._native is not None
            room = len(self._native.end_ids) + self.template.max_answer_tokens
            drawing |= {"max_tokens": budget + room, "thinking_token_budget": cap}
            flight.is_capped = True
        self._submit(flight, None, flight.prompt_ids, flights, **drawing)

    def _submit(self, flight: Flight, cut: int | None, ids: list[int], flights: Flights, **params: Any) -> None:
        from vllm import SamplingParams

        request_id = str(next(self._counter))
        priority = flight.request.priority if self._started.has_priorities else 0
        prompt = {"prompt_token_ids": ids}
        self._running().add_request(request_id, prompt, SamplingParams(**params, **self._shown), priority=priority)
        flights[request_id] = (flight, cut)
        if cut is None and flight.is_capped:
            self._watched.add(request_id)

    def _advance(self, request_id: str, flights: Flights) -> Iterator[Generation]:
        """Takes a trace to its forced answers, or a finished answer into its flight."""
        flight, cut = flights[request_id]
        output = self._outputs.pop(request_id)
        completion = output.outputs[0]
        ids = list(completion.token_ids)
        if output.finished:
            self._end(request_id, output, flights)
        if output.finished and completion.finish_reason not in ("stop", "length"):
            yield self._given_up(flight, flights, f"vLLM ended the request with {completion.finish_reason!r}")
        elif cut is not None:
            flight.answer_logprobs.setdefault(cut, []).extend(_logprobs(completion))
            yield from self._answered(flight, cut, ids, completion.stop_reason, flights)
        elif flight.is_capped:
            yield from self._judge(request_id, output, flight, flights)
        else:
            length = self._forcing.reasoning_length(ids)
            natural = length is not None or completion.finish_reason == "stop"
            if length is None:  # ended by the end-of-turn token, which is no thought, or by the cap
                length = len(ids) - 1 if natural else len(ids)
            flight.thought_logprobs = _logprobs(completion)
            self._end_thought(flight, ids[:length], flights, natural=natural)

    def _end(self, request_id: str, output: Any, flights: Flights) -> None:
        """A request is over, or what it has given is enough: it leaves vLLM and the flights, and is counted."""
        _, cut = flights.pop(request_id)
        self.reuse.add(output, is_trace=cut is None)
        if output.finished:
            self._watched.discard(request_id)
        else:
            self._withdraw([request_id])

    def _judge(self, request_id: str, output: Any, flight: Flight, flights: Flights) -> Iterator[Generation]:
        """Looks at a trace that vLLM caps, and ends it as soon as there is nothing more to come.

        A thought that ended by itself is answered by a second request: vLLM could force its end text into this one.
        """
        assert self._native is not None
        completion = output.outputs[0]
        ids, budget = list(completion.token_ids), flight.request.budget
        fate, length = self._native.judge(self._forcing, ids, budget, ended=completion.finish_reason)
        if fate is Fate.OPEN:
            return
        flight.thought_logprobs = shown = _logprobs(completion)
        if not output.finished:
            self._end(request_id, output, flights)
        if fate is Fate.TOO_LONG:
            yield self._given_up(flight, flights, f"vLLM ignored the cap: {length} reasoning tokens > {budget}")
        elif fate is Fate.NATURAL:
            self._end_thought(flight, ids[:length], flights, natural=True)
        else:
            flight.end_thought(ids[:budget], natural=False)
            begin = budget + len(self._native.end_ids)
            flight.answer_logprobs[budget] = shown[begin:]
            yield from self._answered(flight, budget, ids[begin:], None, flights)
            for probe in flight.cuts[:-1]:
                self._ask(flight, probe, flights)

    def _answered(
        self, flight: Flight, cut: int, ids: list[int], stop_reason: Any, flights: Flights
    ) -> Iterator[Generation]:
        """Takes in the answer at one cut; the flight's generation when it was the last."""
        ids = [*flight.begun.pop(cut, ()), *ids]
        is_inside = stop_reason == self.template.answer_stop and not self._forcing.has_answered(ids)
        if is_inside and len(ids) < self.template.max_answer_tokens:
            flight.begun[cut] = ids  # vLLM stopped at a brace that the answer itself had opened
            self._ask(flight, cut, flights)
            return
        flight.answers[cut] = (self._forcing.clean_answer(self._forcing.decode(ids)), len(ids))
        if flight.is_answered:
            yield flight.finished(self._forcing)

    def _given_up(self, flight: Flight, flights: Flights, error: str) -> Generation:
        """The flight has failed: what is left of it is taken back."""
        siblings = [other for other, (owner, _) in flights.items() if owner is flight]
        self._withdraw(siblings)
        for sibling in siblings:
            del flights[sibling]
        return flight.failed(error)

    def _end_thought(self, flight: Flight, thought_ids: list[int], flights: Flights, *, natural: bool) -> None:
        """Submits the forced answers of a thought that has ended."""
        flight.end_thought(thought_ids, natural=natural)
        for cut in flight.cuts:
            self._ask(flight, cut, flights)

    def _ask(self, flight: Flight, cut: int, flights: Flights) -> None:
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

    def _trial(self, caps: Sequence[int]) -> list[list[int]]:
        """Short generations under vLLM's own caps, to measure where it really cuts."""
        assert self._started.native is not None
        room = len(self._started.native.end_ids) + LONGEST_TAIL
        whole = {"temperature": 0.0, "ignore_eos": True}
        params = [whole | {"max_tokens": cap + room, "thinking_token_budget": cap} for cap in caps]
        outputs = self._whole([self._forcing.prompt_ids(TRIAL_QUERIES[0])] * len(caps), params)
        return [list(output.outputs[0].token_ids) for output in outputs]

    def _whole(self, prompts: Sequence[list[int]], params: Sequence[dict[str, Any]]) -> list[Any]:
        """Outputs of some prompts, all finished, in their order."""
        from vllm import SamplingParams

        engine, request_ids = self._running(), []
        try:
            for ids, each in zip(prompts, params, strict=True):
                request_ids.append(str(next(self._counter)))
                engine.add_request(request_ids[-1], {"prompt_token_ids": ids}, SamplingParams(**each))
            while not self._outputs.keys() >= set(request_ids):
                self._step(engine)
            return [self._outputs[request_id] for request_id in request_ids]
        finally:
            self._withdraw(request_ids)

    def with_template(self, template: PromptTemplate) -> VllmEngine:
        """See `TemplateEngine.with_template`; a template whose thoughts start or end otherwise is kept by two calls."""
        other = copy.copy(self)
        other.template = template
        other._forcing = Forcing(self._forcing.tokenizer, template)
        if self._native is not None and not self._native.fits(other._forcing):
            other._native = None
        other.info = replace(
            self.info, template=template.name, template_hash=template.hash, enforcement=_enforcement(other._native)
        )
        return other

    def hidden_states(self, queries: Sequence[Query], layers: Sequence[int]) -> FloatArray:
        """See `HiddenStateEngine.hidden_states`: one prompt pass, which leaves the prompts in the prefix cache."""
        _, width = check_layers(layers, self.info)
        self._running()
        hidden_Q_L_D = np.full((len(queries), len(layers), width), np.nan, dtype=np.float32)
        prompts = {
            row: ids
            for row, ids in enumerate(self._forcing.prompts(queries))
            if layers and ids is not None and len(ids) < self._context_tokens
        }
        if self._started.reads_by == "connector":
            columns = self._started.columns(layers)
            found = by_connector(lambda: self._step(self._running()), self._whole, list(prompts.values()), columns)
        else:
            found = by_hooks(self._started.llm, self._whole, list(prompts.values()), layers)
        for row, states_L_D in zip(prompts, found, strict=True):
            hidden_Q_L_D[row] = states_L_D
        return hidden_Q_L_D

    def close(self) -> None:
        """Frees the model, and says what the prefix cache has saved."""
        if self._started.llm is not None and (text := self.reuse.to_text()):
            logger.info("%s", text)
        self._outputs.clear()
        self._started.close()

    def _running(self) -> Any:
        if self._started.llm is None:
            raise EngineError(f"the engine of {self.info.model} is closed; make a new one")
        return self._started.llm.llm_engine


def _logprobs(completion: Any) -> list[float]:
    """The log-probability of each token of a completion; empty where they were not asked for."""
    pairs = zip(completion.token_ids, completion.logprobs or (), strict=False)
    return [float(shown[token].logprob) for token, shown in pairs]


def _enforcement(native: NativeCap | None) -> str | None:
    """For a run's identity; None, as ever, for two calls, so that older runs resume."""
    return None if native is None else "native"
