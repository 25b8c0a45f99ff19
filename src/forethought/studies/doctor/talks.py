"""The content of a server's answers: token ids, continuation, log-probabilities, usage, prefix caching, seeds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from ...servers.client import Client
from ...servers.detecting import Server
from ...servers.logprobs import ShownAnswer
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
NUM_LOOKS = 6
Seen = Awaitable[tuple[bool, str]]
SENSELESS = (AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError)


class Talks:
    """A few single requests to a server: at most NUM_REQUESTS, of TOKENS_EACH generated tokens.

    Args:
        open_client: makes a client for one event loop.
        server: what it was found to be.
        model: the model's name there.
        continues_ids: has the server go on with the token ids of a chat, and says how that went.
    """

    def __init__(
        self, open_client: Callable[[], Client], server: Server, model: str, continues_ids: Callable[[Client], Seen]
    ) -> None:
        self._open_client, self._server, self._model, self._continues_ids = open_client, server, model, continues_ids
        self._kind = server.kind

    async def findings(self) -> AsyncIterator[Finding]:
        """One after the other; what fails is a finding as well. After one without an answer in time, none is tried."""
        is_late = False
        async with self._open_client() as client:
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
                        is_fine, detail = False, f"its answer is not valid ({type(error).__name__}: {error})"
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
        if not self._kind.ids or not self._server.tokenizes:
            return False, "it does not turn text into token ids"
        return await self._continues_ids(client)

    async def _continuation(self, client: Client) -> tuple[bool, str]:
        if self._kind.continues is None:
            what = "a server of this kind is not known to continue a started answer"
            return False, f"{what}; its plain completions are used with --engine-option tokenizer=NAME"
        text = _content(await self._chat(client, COUNTING, BEGUN)).removeprefix(BEGUN)  # llama.cpp repeats it
        return text.strip().startswith("6"), f"after {BEGUN!r} it writes {text[:24]!r}"

    async def _logprobs(self, client: Client) -> tuple[bool, str]:
        answer = await self._chat(client, COUNTING, logprobs=True)
        shown = ShownAnswer()
        shown.add(_at(answer, "choices", 0, "logprobs"))
        return len(shown) > 0, f"{len(shown)} tokens shown of {_at(answer, 'usage', 'completion_tokens')}"

    async def _usage(self, client: Client) -> tuple[bool, str]:
        usage = Usage.read(_at(await self._chat(client, COUNTING), "usage"))
        counts = f"prompt {usage.prompt}, completion {usage.generated}"
        ours = "" if usage.reasoning is not None else "; reasoning tokens are not counted separately"
        return usage.generated is not None, counts + ours

    async def _caching(self, client: Client) -> tuple[bool | None, str]:
        await self._chat(client, LONG)
        answer = await self._chat(client, LONG)
        usage = _at(answer, "usage")
        cached = _at(answer, "timings", "cache_n")
        cached = _at(usage, "prompt_tokens_details", "cached_tokens") if cached is None else cached
        if not isinstance(cached, int):
            return None, "it does not report cached tokens"
        return cached > 0, f"{cached} of {_at(usage, 'prompt_tokens')} prompt tokens the second time"

    async def _seeds(self, client: Client) -> tuple[bool | None, str]:
        drawing: dict[str, Any] = {} if "temperature" in self._kind.implied else {"temperature": 1.0}
        one, again, other = [_content(await self._chat(client, DRAWN, seed=seed, **drawing)) for seed in (1, 1, 2)]
        if one != again:
            needs = f"; start it with {self._kind.seeding}" if self._kind.seeding else ""
            return False, f"one seed gave two texts: a trace cannot be reproduced{needs}"
        if one == other:
            return None, "two seeds gave the same text: this shows nothing"
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
