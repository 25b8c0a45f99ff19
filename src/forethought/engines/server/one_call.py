"""One call for thought and answer, bounded by the server: by a native cap, only max_tokens, or the fields of an option.

The answer is not forced: if the cap leaves no room for one, there is none. Returned tokens are counted in any case.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...core.data import LAST_TOKENS, Generation, Logprobs, Query, Request, StopReason
from ...servers.detecting import Server
from ...servers.kinds import merged
from ...servers.replies import CLOSING, Chunks, Reply, answer_in, answer_place
from ...servers.retrying import RequestError
from ...servers.tokens import Counters, Usage, count_tokens
from ..flight import failed, mean_logprob
from ..lengths import estimated
from .dialects import TokenDialect
from .wanted import Wanted

if TYPE_CHECKING:
    from ...servers.client import Client  # whose library may be missing where nothing is asked

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class OneCall:
    """Enforces budgets by one call.

    Attributes:
        enforce: "native" or "max-tokens": how a cap is kept.
        server: its kind says what its fields are called.
        wanted: of it.
        counters: counts tokens and overshoots.
        tokens: counts the tokens of a text; None where no tokenizer is at hand, and only the server's word counts.
        closing_tokens: tokens of the tag that closes a thought: one of a model that was taught to think.
        is_unshown: it has been said that the server shows no log-probabilities, which are wanted.
    """

    enforce: str
    server: Server
    wanted: Wanted
    counters: Counters
    tokens: TokenDialect | None
    closing_tokens: int = 1
    is_unshown: bool = False

    async def run(self, client: Client, request: Request) -> Generation:
        """The generation of one request; raises RequestError."""
        body, reason = self.body(request)
        if reason is not None:
            return failed(request, reason, is_final=True)
        # Another model may have another tokenizer: there only the server's word counts.
        tokens = self.tokens if body["model"] == self.wanted.model else None
        try:
            return await self._judged(client, request, await self._ask(client, body, request.budget, tokens), tokens)
        except RequestError as error:
            self.counters.discarded_tokens += error.tokens
            raise

    def body(self, request: Request) -> tuple[dict[str, Any], str | None]:
        """What is sent for a request, and why it cannot run; None where it can."""
        option = request.option
        fields, reason = self._open(request) if option and option.cap is None else self._fields(request.budget)
        if reason is None and any(0 <= cut < request.budget for cut in request.probe_budgets):
            reason = (
                f"--enforce {self.enforce} gives one answer per thought: measure several caps with "
                "--enforce two-call, or as options of a menu (--menu FILE)"
            )
        if reason is not None:
            return {}, reason
        body = {
            "model": self.wanted.model,
            "messages": self.wanted.template.turns(request.query),
            **self._drawing(),
            "seed": request.seed,
            **self.server.kind.sampling,
            **({"priority": request.priority} if self.wanted.priority else {}),
            **({"logprobs": True} if self.wanted.logprobs else {}),
            **({"chat_template_kwargs": dict(options)} if (options := self.wanted.template.chat_options) else {}),
            **fields,
        }
        return merged(body, option.set if option else {}), None

    def _open(self, request: Request) -> tuple[dict[str, Any], str | None]:
        """The same of a thought without a cap, which may be as long as its context leaves room.

        A server that knows its context ends there by itself; else `max_tokens` is what the request allows at most.
        """
        context, own = self.wanted.context_tokens, self.server.context_tokens
        if request.budget < 1:
            return {}, f"a thought without a cap needs room; got {request.budget} tokens"
        if context is None or own is None or context < own:
            prompt = 0 if context is None else int(estimated(self.wanted.template, [request.query]).tokens_Q[0])
            room = request.budget if context is None else min(request.budget, context - prompt)
            if room < 1:
                return {}, f"the prompt has about {prompt} tokens, and the context {context}"
            return {self.server.kind.length: room}, None
        return {}, None

    def _fields(self, budget: int) -> tuple[dict[str, Any], str | None]:
        """What bounds this request in the body, and why it cannot run."""
        kind = self.server.kind
        room = self.wanted.room if self.enforce == "native" else 0  # `max_tokens` alone bounds the answer as well
        if budget < 0:
            return {}, f"a budget cannot be negative; got {budget}"
        if self.wanted.context_tokens is not None and budget + room > self.wanted.context_tokens:
            return {}, (
                f"a budget of {budget} and {room} tokens for its answer do not fit the context of "
                f"{self.wanted.context_tokens}"
            )
        if self.enforce == "native":
            if budget < kind.least:
                return {}, f"{kind.name} takes no thinking cap below {kind.least} tokens; got {budget}"
            cap = kind.native(max(0, budget - self.wanted.cap_offset))
            return {**cap, **self.wanted.native_fields, kind.length: budget + room}, None
        if budget == 0:
            return {}, "no thinking at all (a budget of 0) needs --enforce two-call: max_tokens cannot be 0"
        return {kind.length: budget}, None

    def _drawing(self) -> dict[str, float]:
        """How the thought is drawn, but for what the server implies."""
        drawing = {"temperature": self.wanted.sampling.temperature, "top_p": self.wanted.sampling.top_p}
        return {name: value for name, value in drawing.items() if self.server.kind.implied.get(name) != value}

    async def _ask(self, client: Client, body: dict[str, Any], budget: int, tokens: TokenDialect | None) -> Reply:
        url = client.address.api("chat/completions")
        if tokens is not None:
            extra = {"return_token_ids": True} if self.server.kind.ids == "vllm" else {}
            return Reply.read(await client.post(url, {**body, **extra}))
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        if self.server.kind.ids == "vllm":
            body["stream_options"]["continuous_usage_stats"] = True
        return Reply.read(await client.stream(url, body, lambda: Chunks(budget, self.wanted.template)))

    async def _judged(self, client: Client, request: Request, reply: Reply, tokens: TokenDialect | None) -> Generation:
        """What came back, counted by the tokenizer too where one is at hand; see `judged`."""
        thought, rest, _ = reply.split(self.wanted.template)
        thought_tokens, is_told = await _counted(client, reply, thought, tokens), Usage.read(reply.usage).generated
        answer_tokens = await tokens.count(client, rest) if tokens and is_told is None else None
        return self.judged(request, reply, thought_tokens=thought_tokens, answer_tokens=answer_tokens)

    def judged(
        self, request: Request, reply: Reply, *, thought_tokens: int | None = None, answer_tokens: int | None = None
    ) -> Generation:
        """What came back, counted: an error where it is more than the cap.

        Args:
            request: what was asked for.
            reply: the answer to it.
            thought_tokens: of the thought by a tokenizer; None where none is at hand.
            answer_tokens: of the answer by it.
        """
        thought, rest, is_closed = reply.split(self.wanted.template)
        has_ended = bool(reply.content) or not reply.is_cut  # also where no answer follows
        told = Usage.read(reply.usage)
        prompt_tokens = told.prompt or 0
        self.counters.prompted(prompt_tokens, told.cached)
        count = count_tokens(
            reply.usage,
            thought=thought,
            answer=rest,
            thought_tokens=thought_tokens,
            answer_tokens=answer_tokens,
            seen=reply.streamed,
            pieces=reply.pieces,
            closing_tokens=self.closing_tokens if has_ended and self.server.kind.counts_closing else 0,
            disagree=self.counters.disagree,
        )
        is_kept = count.within(request.budget)
        total = count.total if count.total is not None else count.least
        if is_kept is False:
            self.counters.discarded_tokens += total
            is_exact = count.reasoning is not None
            reason = self.counters.overshoot(count.least, request.budget, is_exact=is_exact)
            return failed(request, reason, prompt_tokens=prompt_tokens, is_final=True)
        self.counters.trace_tokens += total
        num_tokens = count.most if is_kept else None
        answer_tokens = count.answer
        if num_tokens is not None and count.total is not None:
            answer_tokens = count.total - num_tokens
        if num_tokens is None or answer_tokens is None:
            self.counters.uncounted()
        natural = is_closed and (num_tokens is None or num_tokens < request.budget)
        answer = answer_in(rest or thought, self.wanted.template) if is_closed else ""
        return Generation(
            query_id=request.query.id,
            sample=request.sample,
            budget=request.budget,
            reasoning=thought,
            reasoning_tokens=num_tokens,
            answer=answer,
            answer_tokens=answer_tokens,
            suffix_tokens=0,  # the server closes the thought itself: that is among the answer's tokens
            prompt_tokens=prompt_tokens,
            stop_reason=StopReason.NATURAL if natural else StopReason.BUDGET,
            option=request.label,
            logprobs=self._logprobs(request, reply, thought, rest) if self.wanted.logprobs and answer else None,
        )

    def _logprobs(self, request: Request, reply: Reply, thought: str, rest: str) -> Logprobs | None:
        """How likely the model found its answer and the end of its thought; None where the server does not show it."""
        text = rest or thought
        answer, before = reply.shown.of_answer(text, *answer_place(text, self.wanted.template)) or ([], 0)
        if not _is_known(answer):
            self._say_unshown(request.query.id)
            return None
        last = reply.shown.of_thought(thought, before if rest else None)[-LAST_TOKENS:]
        return Logprobs(mean_logprob(answer), mean_logprob(last) if _is_known(last) else None)

    async def look_for_logprobs(self, client: Client) -> None:
        """Asks for one token, so that it is said before a run is paid for where log-probabilities are not shown."""
        body = {
            "model": self.wanted.model,
            "messages": self.wanted.template.turns(Query("", "1 + 1?")),
            self.server.kind.length: 1,
            "logprobs": True,
        }
        try:
            reply = Reply.read(await client.post(client.address.api("chat/completions"), body))
        except RequestError:
            return  # an answer of one token may be too short for it: that says nothing
        if client.leaves_out("logprobs"):
            self.is_unshown = True  # said when it was refused
        elif not len(reply.shown) and (reply.reasoning or reply.content):
            self._say_unshown("a first token")

    def _say_unshown(self, what: str) -> None:
        """Says, once, that log-probabilities are not shown although they are wanted."""
        if not self.is_unshown:
            self.is_unshown = True
            logger.warning(
                "note: logprobs=true, and the server did not show how likely the model found %s: where it shows "
                "nothing, votes cannot be weighed (shown once; `forethought doctor` looks at this)",
                what,
            )


def _is_known(logprobs: list[float]) -> bool:
    """Whether there are some, and all of them are known."""
    return bool(logprobs) and not any(map(math.isnan, logprobs))


async def _counted(client: Client, reply: Reply, thought: str, tokens: TokenDialect | None) -> int | None:
    """Tokens of the thought by the tokenizer: as they were generated, where their ids came back."""
    if tokens is None:
        return None
    if not thought:
        return 0
    if reply.ids is None or reply.reasoning or CLOSING in reply.content:
        return await tokens.count(client, thought)
    return await tokens.num_covering(client, reply.ids, len(thought))
