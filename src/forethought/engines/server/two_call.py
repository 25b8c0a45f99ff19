"""Two calls: at most `budget` tokens of thought, then the same text closed and answered, as the in-process engines do.

Prompts, ends of thought, cuts and answer suffixes are those of `Forcing`; only the generation is done by the server.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ...core.data import Generation, Request
from ...servers.retrying import RequestError
from ...servers.tokens import Counters
from ..flight import Flight, failed, refusal
from .dialects import Completion, Dialect, Drawing
from .wanted import Wanted

if TYPE_CHECKING:
    from ...servers.client import Client  # whose library may be missing where nothing is asked


@dataclass(slots=True)
class TwoCalls:
    """Enforces budgets by two calls.

    Attributes:
        dialect: how a text is continued.
        wanted: of the server.
        counters: counts tokens and overshoots.
        one_by_one: a thought's answers are asked for one after the other, for servers that cache by slot.
        suffix_tokens: tokens of the answer suffix; None while only the server knows and has not answered yet.
    """

    dialect: Dialect
    wanted: Wanted
    counters: Counters
    one_by_one: bool = False
    suffix_tokens: int | None = None

    async def run(self, client: Client, request: Request) -> Generation:
        """The generation of one request; raises RequestError and InvalidInputError."""
        tally = _Tally()
        try:
            found = await self._run(client, request, tally)
        except Exception:
            self.counters.discarded_tokens += tally.thought + tally.answers
            raise
        if found.error is not None:
            self.counters.discarded_tokens += tally.thought + tally.answers
        else:
            self.counters.trace_tokens += tally.thought
            self.counters.answer_tokens += tally.answers
        return found

    async def _run(self, client: Client, request: Request, tally: _Tally) -> Generation:
        reason = self._refusal(request, 0)
        if reason is None:
            prompt = await self.dialect.prompt(client, request.query)
            counted = self.dialect.prompt_tokens(prompt)
            reason = self._refusal(request, counted or 0)
        if reason is not None:
            return failed(request, reason, is_final=True)
        flight = Flight(request, prompt)
        thought = await self._think(client, flight, tally)
        if thought.least > request.budget:
            is_exact = thought.num_tokens is not None
            reason = self.counters.overshoot(thought.least, request.budget, is_exact=is_exact)
            return failed(request, reason, is_final=True)
        length = request.budget if thought.num_tokens is None else thought.num_tokens
        if not thought.is_exact and any(cut < length for cut in request.probe_budgets):
            why = (
                "this server shows no token boundaries (logprobs), and no tokenizer (--engine-option tokenizer=NAME) "
                "makes as many tokens of this thought as it counts: it cannot be probed"
            )
            return failed(request, why, is_final=True)
        if self.one_by_one:
            # The longest first: each leaves in its slot the beginning of the next, and no more has to be read again.
            for cut in sorted(flight.cuts, reverse=True):
                await self._answer(client, flight, cut, thought, tally)
        else:
            answers = [self._answer(client, flight, cut, thought, tally) for cut in flight.cuts]
            # What is under way is paid for: it is waited for, and counted, also where another one fails.
            errors = await asyncio.gather(*answers, return_exceptions=True)
            if (first := next((error for error in errors if error is not None), None)) is not None:
                raise first
        found = flight.finished(self.dialect.forcing)
        if thought.num_tokens is None or any(tokens is None for _, tokens in flight.answers.values()):
            self.counters.uncounted()
        if counted is not None:
            return found
        suffix_tokens = self.suffix_tokens or len(self.wanted.template.answer_suffix)  # a token is a character at least
        return replace(
            found,
            reasoning_tokens=len(flight.thought_ids) if thought.is_exact else thought.num_tokens,
            suffix_tokens=suffix_tokens,
            prompt_tokens=thought.prompt_tokens or max(0, tally.prompt - suffix_tokens),
        )

    def _refusal(self, request: Request, prompt_tokens: int) -> str | None:
        return refusal(
            request,
            prompt_tokens=prompt_tokens,
            suffix_tokens=len(self.dialect.forcing.suffix_ids),
            answer_tokens=self.wanted.template.max_answer_tokens,
            context_tokens=self.wanted.context_tokens,
        )

    async def _complete(
        self, client: Client, flight: Flight, so_far: list[int], tally: _Tally, **drawing: Any
    ) -> Completion:
        """One call, with what the request and its option say of each; what a call generated and lost is counted."""
        request = flight.request
        drawn = Drawing(
            priority=request.priority if self.wanted.priority else None,
            set={} if request.option is None else request.option.set,
            logprobs=self.wanted.logprobs,
            **drawing,
        )
        try:
            return await self.dialect.complete(client, flight.prompt_ids, so_far, drawn)
        except RequestError as error:
            tally.answers += error.tokens
            raise

    async def _think(self, client: Client, flight: Flight, tally: _Tally) -> Completion:
        """Draws the thought."""
        budget = flight.request.budget
        if budget == 0:
            flight.end_thought([], natural=False)
            return Completion([], 0, 0, is_cut=True, is_stopped=False, prompt_tokens=0)
        done = await self._complete(
            client,
            flight,
            [],
            tally,
            max_tokens=budget,
            stop=self.wanted.template.reasoning_end,
            temperature=self.wanted.sampling.temperature,
            top_p=self.wanted.sampling.top_p,
            seed=flight.request.seed,
        )
        tally.thought += done.least
        length = self.dialect.forcing.reasoning_length(done.ids)
        natural = length is not None or not done.is_cut
        flight.end_thought(done.ids if length is None else done.ids[:length], natural=natural)
        flight.thought_logprobs = list(done.logprobs)
        return done

    async def _answer(self, client: Client, flight: Flight, cut: int, thought: Completion, tally: _Tally) -> None:
        """Has the thought answered after `cut` tokens of it."""
        forcing, most = self.dialect.forcing, self.wanted.template.max_answer_tokens
        closed = forcing.closed(flight.thought_ids[:cut])
        ids: list[int] = []
        num_tokens, is_counted, goes_on = 0, True, True
        logprobs, is_shown = list[float](), True
        while goes_on:
            room = most - num_tokens
            done = await self._complete(
                client, flight, [*closed, *ids], tally, max_tokens=room, stop=self.wanted.template.answer_stop
            )
            if num_tokens == 0 and cut == 0:
                tally.prompt = done.prompt_tokens
            is_told = done.prompt_tokens > thought.prompt_tokens > 0  # by the usage of both calls
            # Behind a thought that ended by itself a stop text or an end of turn was counted, which is not sent again.
            length = cut if thought.is_exact else thought.num_tokens if thought.is_cut else None
            if self.suffix_tokens is None and num_tokens == 0 and is_told and length is not None:
                self.suffix_tokens = max(1, done.prompt_tokens - thought.prompt_tokens - length)
            ids += done.ids
            logprobs += done.logprobs
            is_shown = is_shown and bool(done.logprobs)
            is_counted = is_counted and done.num_tokens is not None
            num_tokens += max(1, done.least) if done.num_tokens is None else done.num_tokens
            tally.answers += done.least
            if num_tokens > most:
                raise RequestError(f"the server ignored max_tokens: {num_tokens} answer tokens > {most}")
            # vLLM and the others stop at any brace, also at one that the answer itself has opened. Who stops without a
            # token would do so again.
            goes_on = done.is_stopped and bool(done.ids) and num_tokens < most and not forcing.has_answered(ids)
        if is_shown:
            flight.answer_logprobs[cut] = logprobs
        flight.answers[cut] = (forcing.clean_answer(forcing.decode(ids)), num_tokens if is_counted else None)


@dataclass(slots=True)
class _Tally:
    """Tokens generated for one request so far, wherever they end up; `prompt`: of an answer without any thought."""

    thought: int = 0
    answers: int = 0
    prompt: int = 0
