"""What a server's answers hold: token ids, continuation, log-probabilities, usage, prefix caching, heed of seeds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from ...core.data import Query
from ...engines.server.dialects import Drawing, TokenDialect
from ...engines.server.engine import OpenAIEngine
from ...servers.client import Client
from ...servers.retrying import RequestError
from ...servers.tokens import Usage
from .findings import Finding

TOPIC = "server"
BEGUN = "1, 2, 3, 4, 5,"
COUNTING = "Count from 1 to 20. Write only the numbers, with a comma and a space between them."
DRAWN = "Write four words at random, with a space between them."
LATE, UNTRIED = "no answer within", "not tried: the server did not answer in time before"
LONG = "Here are some numbers: " + ", ".join(map(str, range(1, 160))) + ". Which is the largest?"


NUM_REQUESTS, TOKENS_EACH = 10, 12
SENSELESS = (AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError)


class Talks:
    """A few single requests to the server of `engine`: at most NUM_REQUESTS, of TOKENS_EACH generated tokens."""

    def __init__(self, engine: OpenAIEngine) -> None:
        self._engine = engine
        self._kind = engine.server.kind
        self._model = engine.served_model

    async def findings(self) -> AsyncIterator[Finding]:
        """One after the other; what fails is a finding as well. After one without an answer in time, none is tried."""
        is_late = False
        async with self._engine.client() as client:
            for name, look in (
                ("token ids", self._token_ids),
                ("continuation", self._continuation),
                ("logprobs", self._logprobs),
                ("usage details", self._usage),
                ("prefix caching", self._caching),
                ("seeds", self._seeds),
            ):
                is_fine: bool | None
                if is_late:
                    is_fine, detail = None, UNTRIED
                else:
                    try:
                        is_fine, detail = await look(client)
                    except RequestError as error:
                        is_fine, detail = False, str(error)
                        is_late = LATE in detail
                    except SENSELESS as error:  # the server's fields are of any type that it likes
                        is_fine, detail = False, f"its answer makes no sense ({type(error).__name__}: {error})"
                yield Finding(TOPIC, name, is_fine, detail)

    async def _chat(self, client: Client, text: str, begun: str = "", **fields: Any) -> dict[str, Any]:
        turns = [{"role": "user", "content": text}]
        if begun:
            turns.append({"role": "assistant", "content": begun})
            fields |= self._kind.continues or {}
        drawing = {"temperature": 0.0, **fields} if "temperature" not in self._kind.implied else fields
        body = {"model": self._model, "messages": turns, self._kind.length: TOKENS_EACH, **drawing}
        return await client.post(client.address.api("chat/completions"), body)

    async def _token_ids(self, client: Client) -> tuple[bool, str]:
        if not self._kind.ids or not self._engine.server.tokenizes:
            return False, "it does not turn text into token ids"
        dialect = TokenDialect(self._engine.server, self._model, self._engine.template, None, self._engine.counters)
        await dialect.start(client)
        prompt = await dialect.prompt(client, Query("ids", COUNTING))
        done = await dialect.complete(client, prompt, [], Drawing(max_tokens=8, stop="\n\n\n"))
        return 0 < len(done.ids) <= 8, f"{len(prompt)} in, {len(done.ids)} out: {dialect.forcing.decode(done.ids)!r}"

    async def _continuation(self, client: Client) -> tuple[bool, str]:
        if self._kind.continues is None:
            return False, "a server of this kind is not known to go on with a begun answer"
        text = _content(await self._chat(client, COUNTING, BEGUN)).removeprefix(BEGUN)  # llama.cpp repeats it
        return text.strip().startswith("6"), f"after {BEGUN!r} it writes {text[:24]!r}"

    async def _logprobs(self, client: Client) -> tuple[bool, str]:
        answer = await self._chat(client, COUNTING, logprobs=True)
        tokens = _at(answer, "choices", 0, "logprobs", "content")
        shown = len(tokens) if isinstance(tokens, list) else 0
        return bool(shown), f"{shown} tokens shown of {_at(answer, 'usage', 'completion_tokens')}"

    async def _usage(self, client: Client) -> tuple[bool, str]:
        usage = Usage.read(_at(await self._chat(client, COUNTING), "usage"))
        counts = f"prompt {usage.prompt}, completion {usage.generated}"
        ours = "" if usage.reasoning is not None else "; reasoning tokens are not told apart"
        return usage.generated is not None, counts + ours

    async def _caching(self, client: Client) -> tuple[bool | None, str]:
        await self._chat(client, LONG)
        answer = await self._chat(client, LONG)
        usage = _at(answer, "usage")
        cached = _at(answer, "timings", "cache_n")
        cached = _at(usage, "prompt_tokens_details", "cached_tokens") if cached is None else cached
        if not isinstance(cached, int):
            return None, "it does not say what it has cached"
        return cached > 0, f"{cached} of {_at(usage, 'prompt_tokens')} prompt tokens the second time"

    async def _seeds(self, client: Client) -> tuple[bool | None, str]:
        drawing: dict[str, Any] = {} if "temperature" in self._kind.implied else {"temperature": 1.0}
        one, again, other = [_content(await self._chat(client, DRAWN, seed=seed, **drawing)) for seed in (1, 1, 2)]
        if one != again:
            needs = f"; start it with {self._kind.seeding}" if self._kind.seeding else ""
            return False, f"one seed gave two texts: a trace cannot be drawn again{needs}"
        if one == other:
            return None, "two seeds gave one text: nothing is shown"
        return True, "one seed gives one text, another seed another"


def _content(answer: dict[str, Any]) -> str:
    message = _at(answer, "choices", 0, "message")
    found = (_at(message, name) for name in ("content", "reasoning_content", "reasoning"))
    return str(next((text for text in found if text), ""))


def _at(value: Any, *path: str | int) -> Any:
    """What stands at `path` within a server's answer; None where it is not built that way."""
    for step in path:
        fits = isinstance(value, list) if isinstance(step, int) else isinstance(value, dict)
        if not fits or (isinstance(step, int) and step >= len(value)):
            return None
        value = value[step] if isinstance(step, int) else value.get(step)
    return value
