"""Keeps a cap where the server keeps none: the thought up to its cap, then the same text closed, and its answer.

Both calls are one reply to the client, as a server with a reasoning parser would send it: the thought in a field of its
own, the answer in the text, usage added up. Prompt tokens count once: the second call finds them in the prefix cache.
What closes a thought is the predictor's template's, as in `engines.server.two_call`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any

from ....core.prompts import PromptTemplate
from ....models.thinking import ANSWER
from ....servers.kinds import ServerKind
from ....servers.replies import texts_in
from ....servers.tokens import Usage
from ...asgi import App, Message, Receive, Send, parsed, read_body, replayed, with_header
from ...failing import RefusedError, UpstreamError
from ...incoming import MOST_REQUEST_BYTES
from ...pipeline import TWO_CALLS
from ...request import OTHER_LIMITS, OTHER_NUMBERS

THOUGHT = "reasoning_content"
MOST_REPLY = 16 << 20
NO_CHAT = "the server behind the gateway sent what is no chat completion"
LIMITS = ("max_tokens", "max_completion_tokens", *chain.from_iterable(OTHER_LIMITS.values()))
NUMBERS = ("n", *chain.from_iterable(OTHER_NUMBERS.values()))


class TwoCalls:
    """Plain ASGI, before `Forward`; requests without a cap in their scope pass through.

    Args:
        app: what comes after.
        kind: of server, which goes on with a begun answer.
        template: says what opens and closes a thought.
        answer_room: most tokens of an answer.
    """

    def __init__(self, app: App, kind: ServerKind, template: PromptTemplate, *, answer_room: int) -> None:
        self._app = app
        self._kind = kind
        self._template = template
        self._room = answer_room

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request; raises GatewayError as the app does."""
        cap = scope.get(TWO_CALLS)
        if cap is None:
            await self._app(scope, receive, send)
            return
        content, is_whole = await read_body(receive, MOST_REQUEST_BYTES)
        body = parsed(content) if content is not None and is_whole else None
        if body is None:
            return
        turn = _Turn(self._app, scope, receive, send, is_stream=body.get("stream") is True)
        for number in range(int(body.get("n") or 1)):
            if not await self._answer(turn, body, int(cap), number):
                return
        await turn.end()

    async def _answer(self, turn: _Turn, body: Mapping[str, Any], cap: int, number: int) -> bool:
        """One choice: its thought, then its answer; False where the reply has ended without it."""
        template, goes_on = self._template, self._kind.continues or {}
        limits = [body[name] for name in LIMITS if isinstance(body.get(name), int)]
        most = min(limits, default=cap + self._room)
        if most < 1:
            raise RefusedError(400, "max_tokens must be at least 1")
        cap = min(cap, max(0, most - 1))
        dropped = (*LIMITS, *NUMBERS, "stop", self._kind.cap.partition(".")[0], *self._kind.aliases)
        own = {name: value for name, value in body.items() if name not in dropped} | {"stream": turn.is_stream}
        if number and isinstance(body.get("seed"), int):
            own["seed"] = body["seed"] + number
        turn.begin(number)
        prefix = template.assistant_prefix
        if cap > 0:
            thinking = {**own, **self._kind.whole, self._kind.length: cap, "stop": [template.reasoning_end]}
            if prefix:
                thinking |= {**goes_on, "messages": [*body["messages"], {"role": "assistant", "content": prefix}]}
            if not await turn.call(thinking, is_thought=True, skipped=prefix.strip()):
                return False
        thought = turn.thought
        closing, shown = _closing(template, thought)
        begun = prefix + thought + closing
        answering = {
            **own,
            **self._kind.whole,
            **goes_on,
            "messages": [*body["messages"], {"role": "assistant", "content": begun}],
            self._kind.length: max(1, min(self._room, most - cap)),
            **({"stop": body["stop"]} if body.get("stop") else {}),
        }
        return await turn.call(answering, is_thought=False, skipped=begun, before=shown)


def _closing(template: PromptTemplate, thought: str) -> tuple[str, str]:
    """`(what closes a thought, as much of it as is part of the answer)`."""
    if template.has_tags:
        closing = template.answer_suffix.removesuffix(ANSWER)
        shown = ""
    else:
        closing = shown = template.answer_suffix
    if not thought or thought.endswith("\n"):
        closing = closing.lstrip("\n")
    return closing, shown.lstrip("\n")


class _Turn:
    """The one reply that all calls of a request make.

    Attributes:
        thought: of the present choice.
        is_stream: the client wants a stream.
    """

    def __init__(self, app: App, scope: Message, receive: Receive, send: Send, *, is_stream: bool) -> None:
        self._app, self._scope, self._receive, self._send = app, scope, receive, send
        self.is_stream = is_stream
        self._has_begun = False
        self._first: dict[str, Any] = {}  # the fields that all events, or the whole reply, have
        self._choices: list[dict[str, Any]] = []
        self._usage: list[tuple[Usage, bool]] = []
        self._is_first_of_choice = True
        self.thought = ""
        self._number = 0

    def begin(self, number: int) -> None:
        """One more choice."""
        self._number, self.thought = number, ""
        self._choices.append({"index": number, "message": {"role": "assistant", THOUGHT: "", "content": ""}})
        self._is_first_of_choice = True

    async def call(self, body: Mapping[str, Any], *, is_thought: bool, skipped: str, before: str = "") -> bool:
        """One call to the server; False where it failed, and what it said is out, or where the client left.

        Args:
            body: of it.
            is_thought: the text that comes is thought.
            skipped: what some servers repeat of the turn, which is left out.
            before: text of the answer that stood in the request already.
        """
        content = json.dumps(body).encode()
        scope = with_header(self._scope, "content-length", len(content))
        reader = _Reader(self, is_thought=is_thought, skipped=skipped, is_stream=self.is_stream)
        if before:
            await self._text(before, is_thought=False)
        await self._app(scope, replayed(content, self._receive), reader.send)
        if not reader.is_done:
            return False
        self._usage.append((Usage.read(reader.usage), is_thought))
        if not is_thought:
            self._choices[-1]["finish_reason"] = reader.finish or "stop"
            if self.is_stream:
                await self._event({}, finish=reader.finish or "stop")
        return True

    async def start(self, message: Message) -> None:
        """The head of a call's reply: that of the first is the client's."""
        if self._has_begun:
            return
        self._has_begun = True
        own = (b"content-length", b"transfer-encoding")
        headers = [pair for pair in message.get("headers", ()) if bytes(pair[0]).lower() not in own]
        self._head = {**message, "headers": headers}
        if self.is_stream:
            await self._send(self._head)

    async def fail(self, message: Message) -> None:
        """Passes on what an error says; once something was generated, it would be taken for a request that was not."""
        if self._usage:
            raise UpstreamError("the server behind the gateway refused to go on with the answer")
        await self._send(message)

    async def take(self, found: Mapping[str, Any], text: str, *, is_thought: bool) -> None:
        """Text of a call, with the fields that came around it."""
        if not self._first:
            self._first = {name: value for name, value in found.items() if name not in ("choices", "usage")}
        if text:
            await self._text(text, is_thought=is_thought)

    async def _text(self, text: str, *, is_thought: bool) -> None:
        message = self._choices[-1]["message"]
        message[THOUGHT if is_thought else "content"] += text
        if is_thought:
            self.thought += text
        if self.is_stream:
            await self._event({THOUGHT if is_thought else "content": text})

    async def _event(self, delta: dict[str, Any], *, finish: str | None = None) -> None:
        if self._is_first_of_choice:
            delta, self._is_first_of_choice = {"role": "assistant", **delta}, False
        choice = {"index": self._number, "delta": delta, "finish_reason": finish}
        await self._write({**self._first, "choices": [choice]})

    async def _write(self, event: Mapping[str, Any]) -> None:
        data = f"data: {json.dumps(event, ensure_ascii=False)}\n\n".encode("utf-8", "replace")
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        """The end of the whole reply, with the usage of it all."""
        usage = self._summed()
        if self.is_stream:
            if usage is not None:
                await self._write({**self._first, "choices": [], "usage": usage})
            await self._send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": False})
            return
        content = json.dumps({**self._first, "choices": self._choices, "usage": usage}).encode()
        headers = [*self._head["headers"], (b"content-length", str(len(content)).encode())]
        await self._send({**self._head, "headers": headers})
        await self._send({"type": "http.response.body", "body": content, "more_body": False})

    def _summed(self) -> dict[str, Any] | None:
        """The usage of all calls; None where one of them told none."""
        if any(usage.generated is None for usage, _ in self._usage):
            return None
        generated = sum(usage.generated or 0 for usage, _ in self._usage)
        thought = sum(usage.generated or 0 for usage, is_thought in self._usage if is_thought)
        prompt = self._usage[0][0].prompt or 0
        return {
            "prompt_tokens": prompt,
            "completion_tokens": generated,
            "total_tokens": prompt + generated,
            "completion_tokens_details": {"reasoning_tokens": thought},
        }


class _Reader:
    """Reads the reply of one call as it comes."""

    def __init__(self, turn: _Turn, *, is_thought: bool, skipped: str, is_stream: bool) -> None:
        self._turn = turn
        self._is_thought, self._is_stream = is_thought, is_stream
        self._skip = _Skipping(skipped)
        self._kept = bytearray()
        self._has_failed = self._is_chat = False
        self.usage: Any = None
        self.finish: str | None = None
        self.is_done = False

    async def send(self, message: Message) -> None:
        """Takes what the app sends."""
        if message["type"] == "http.response.start":
            self._has_failed = int(message["status"]) != 200
            kind = b"".join(value for name, value in message.get("headers", ()) if name == b"content-type").lower()
            if kind and not self._has_failed and (b"event-stream" if self._is_stream else b"json") not in kind:
                raise UpstreamError(NO_CHAT)
            await (self._turn.fail(message) if self._has_failed else self._turn.start(message))
            return
        if self._has_failed:
            await self._turn.fail(message)
            return
        self._kept += message.get("body", b"")
        if len(self._kept) > MOST_REPLY:
            raise UpstreamError("the server behind the gateway sent an event without an end")
        is_last = not message.get("more_body", False)
        if self._is_stream:
            end = len(self._kept) if is_last else self._kept.rfind(b"\n") + 1
            for line in bytes(self._kept[:end]).splitlines():
                if line.startswith(b"data:"):
                    await self._read(line[5:], lambda choice: choice.get("delta"))
            del self._kept[:end]
        elif is_last:
            await self._read(bytes(self._kept), lambda choice: choice.get("message"))
        if is_last:
            if not self._is_chat:  # a page that wants a login, say: no answer may be made of it
                raise UpstreamError(NO_CHAT)
            await self._turn.take({}, self._skip.rest(), is_thought=self._is_thought)
            self.is_done = True

    async def _read(self, data: bytes, message: Callable[[Mapping[str, Any]], Any]) -> None:
        found = parsed(data.strip())
        if found is None:
            return
        if isinstance(usage := found.get("usage"), dict):
            self.usage = usage
        choices = found.get("choices")
        self._is_chat = self._is_chat or isinstance(choices, list)
        text = ""
        for choice in choices if isinstance(choices, list) else []:
            if isinstance(choice, dict):
                text += "".join(texts_in(message(choice)))
                self.finish = choice.get("finish_reason") or self.finish
        await self._turn.take(found, self._skip.feed(text), is_thought=self._is_thought)


class _Skipping:
    """Leaves a text out where the reply begins with it; holds back no more than may still be it."""

    def __init__(self, skipped: str) -> None:
        self._skipped = skipped
        self._held = ""

    def feed(self, text: str) -> str:
        """What is sure not to be it."""
        if not self._skipped:
            return text
        self._held += text
        if self._held.startswith(self._skipped):
            found = self._held[len(self._skipped) :]
        elif self._skipped.startswith(self._held):
            return ""
        else:
            found = self._held
        self._skipped = self._held = ""
        return found

    def rest(self) -> str:
        """What was held back when nothing more comes."""
        held, self._held, self._skipped = self._held, "", ""
        return held
