"""Keeps a cap where the server keeps none: the thought up to its cap, then the same text closed, and its answer.

Both calls are one reply to the client, as a server with a reasoning parser would send it: the thought in a field of its
own, the answer in the text, usage added up. Several answers are asked for together, and their events come as they are
generated, each with its index. Prompt tokens count once: the second call finds them in the prefix cache.
What closes a thought is the predictor's template's, as in `engines.server.two_call`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from itertools import chain
from typing import Any

from ....core.prompts import PromptTemplate
from ....models.thinking import ANSWER
from ....servers.events import EventReader
from ....servers.kinds import ServerKind
from ....servers.reading import object_in
from ....servers.replies import Skipping, texts_in
from ....servers.tokens import Usage
from ...asgi import App, Message, Receive, Send, left, parsed, read_body, replayed, with_header
from ...failing import GatewayError, RefusedError, UpstreamError
from ...incoming import MOST_REQUEST_BYTES
from ...pipeline import TWO_CALLS
from ...request import OTHER_LIMITS, OTHER_NUMBERS

THOUGHT = "reasoning_content"
MOST_REPLY = 16 << 20
MOST_AT_ONCE = 16  # answers of one request that are asked for together
REFUSED = "the server behind the gateway refused to go on with the answer"
ENDED = "the server behind the gateway ended its reply with an error"
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
        limits = [body[name] for name in LIMITS if isinstance(body.get(name), int)]
        most = min(limits, default=int(cap) + self._room)
        if most < 1:
            raise RefusedError(400, "max_tokens must be at least 1")
        reply = _Reply(self._app, scope, send, is_stream=body.get("stream") is True)
        watching = asyncio.ensure_future(reply.watch(receive))
        try:
            await self._answers(reply, body, min(int(cap), most - 1), most)
        finally:
            watching.cancel()
        await reply.end()

    async def _answers(self, reply: _Reply, body: Mapping[str, Any], cap: int, most: int) -> None:
        """All choices, MOST_AT_ONCE at a time; raises GatewayError."""
        waiting = iter([reply.begin(number) for number in range(int(body.get("n") or 1))])

        async def work() -> None:
            for choice in waiting:
                if not await self._answer(choice, body, cap, most):
                    return

        try:
            async with asyncio.TaskGroup() as group:
                for _ in reply.choices[:MOST_AT_ONCE]:
                    group.create_task(work())
        except* GatewayError as errors:
            raise errors.exceptions[0] from None

    async def _answer(self, choice: _Choice, body: Mapping[str, Any], cap: int, most: int) -> bool:
        """One choice: its thought, then its answer; False where the reply has ended without it."""
        template, goes_on = self._template, self._kind.continues or {}
        dropped = (*LIMITS, *NUMBERS, "stop", self._kind.cap.partition(".")[0], *self._kind.aliases)
        own = {name: value for name, value in body.items() if name not in dropped} | {"stream": choice.is_stream}
        if choice.number and isinstance(body.get("seed"), int):
            own["seed"] = body["seed"] + choice.number
        prefix = template.assistant_prefix
        if cap > 0:
            thinking = {**own, **self._kind.whole, self._kind.length: cap, "stop": [template.reasoning_end]}
            if prefix:
                thinking |= {**goes_on, "messages": [*body["messages"], {"role": "assistant", "content": prefix}]}
            if not await choice.call(thinking, is_thought=True, skipped=prefix.strip()):
                return False
        closing, shown = _closing(template, choice.thought)
        begun = prefix + choice.thought + closing
        answering = {
            **own,
            **self._kind.whole,
            **goes_on,
            "messages": [*body["messages"], {"role": "assistant", "content": begun}],
            self._kind.length: max(1, min(self._room, most - cap)),
            **({"stop": body["stop"]} if body.get("stop") else {}),
        }
        return await choice.call(answering, is_thought=False, skipped=begun, before=shown)


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


class _Reply:
    """The one reply that all calls of a request make.

    An error of the server is the reply only where every call met one: else something was generated, and an error would
    be taken for a request that was not.

    Attributes:
        choices: in the order of their numbers.
        is_stream: the client wants a stream.
        usage: of the calls that are done, and whether it was of a thought.
    """

    def __init__(self, app: App, scope: Message, send: Send, *, is_stream: bool) -> None:
        self.app, self.scope = app, scope
        self.is_stream = is_stream
        self.choices: list[_Choice] = []
        self.usage: list[tuple[Usage, bool]] = []
        self._send = send
        self._sending = asyncio.Lock()  # what one choice sends stays together
        self._has_left = asyncio.Event()
        self._head: Message | None = None
        self._first: dict[str, Any] = {}  # the fields that all events, or the whole reply, have
        self._refusal: GatewayError | list[Message] | None = None

    def begin(self, number: int) -> _Choice:
        """One more choice."""
        self.choices.append(_Choice(self, number))
        return self.choices[-1]

    async def watch(self, receive: Receive) -> None:
        """Waits until the client leaves."""
        await left(receive)
        self._has_left.set()

    async def left(self) -> Message:
        """What every call receives after its body: that the client has left."""
        await self._has_left.wait()
        return {"type": "http.disconnect"}

    async def start(self, message: Message) -> None:
        """The head of a call's reply: that of the first is the client's."""
        if self._refusal is not None:
            raise UpstreamError(REFUSED)
        async with self._sending:
            if self._head is not None:
                return
            own = (b"content-length", b"transfer-encoding")
            headers = [pair for pair in message.get("headers", ()) if bytes(pair[0]).lower() not in own]
            self._head = {**message, "headers": headers}
            if self.is_stream:
                await self._send(self._head)

    def refuse(self, refusal: GatewayError | list[Message]) -> None:
        """A call was refused, by an error's reply or before it was sent; raises UpstreamError where others were not."""
        if self._head is not None:
            raise UpstreamError(REFUSED)
        self._refusal = self._refusal or refusal

    def take(self, found: Mapping[str, Any]) -> None:
        """The fields that came around a text."""
        if not self._first:
            self._first = {name: value for name, value in found.items() if name not in ("choices", "usage")}

    async def event(self, choices: list[dict[str, Any]], **more: Any) -> None:
        """One event of a stream."""
        data = f"data: {json.dumps({**self._first, 'choices': choices, **more}, ensure_ascii=False)}\n\n"
        async with self._sending:
            await self._send({"type": "http.response.body", "body": data.encode("utf-8", "replace"), "more_body": True})

    async def end(self) -> None:
        """The end of the whole reply, with the usage of it all; raises GatewayError where there is none."""
        if isinstance(self._refusal, GatewayError):
            raise self._refusal
        if self._refusal is not None:
            for message in self._refusal:
                await self._send(message)
        if self._head is None or not all(choice.is_done for choice in self.choices):  # the client has left
            return
        usage = self._summed()
        if self.is_stream:
            if usage is not None:
                await self.event([], usage=usage)
            await self._send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": False})
            return
        choices = [choice.whole for choice in self.choices]
        content = json.dumps({**self._first, "choices": choices, "usage": usage}).encode()
        headers = [*self._head["headers"], (b"content-length", str(len(content)).encode())]
        await self._send({**self._head, "headers": headers})
        await self._send({"type": "http.response.body", "body": content, "more_body": False})

    def _summed(self) -> dict[str, Any] | None:
        """The usage of all calls; None where one of them told none."""
        if any(usage.generated is None for usage, _ in self.usage):
            return None
        generated = sum(usage.generated or 0 for usage, _ in self.usage)
        thought = sum(usage.generated or 0 for usage, is_thought in self.usage if is_thought)
        prompt = self.usage[0][0].prompt or 0
        return {
            "prompt_tokens": prompt,
            "completion_tokens": generated,
            "total_tokens": prompt + generated,
            "completion_tokens_details": {"reasoning_tokens": thought},
        }


class _Choice:
    """One of the answers.

    Attributes:
        reply: of which it is one.
        number: its index in the reply.
        thought: so far.
        whole: as a reply in one piece has it.
        is_done: its last call is.
    """

    def __init__(self, reply: _Reply, number: int) -> None:
        self.reply = reply
        self.number = number
        self.is_stream = reply.is_stream
        self.thought = ""
        message = {"role": "assistant", THOUGHT: "", "content": ""}
        self.whole: dict[str, Any] = {"index": number, "message": message}
        self.is_done = False
        self._has_role = False

    async def call(self, body: Mapping[str, Any], *, is_thought: bool, skipped: str, before: str = "") -> bool:
        """One call to the server; False where it was refused, or where the client left; raises GatewayError.

        Args:
            body: of it.
            is_thought: the text that comes is thought.
            skipped: what some servers repeat of the turn, which is left out.
            before: text of the answer that stood in the request already.
        """
        reply = self.reply
        content = json.dumps(body).encode()
        scope = with_header(reply.scope, "content-length", len(content))
        reader = _Reader(self, is_thought=is_thought, skipped=skipped, is_stream=self.is_stream)
        if before:
            await self._text(before, is_thought=False)
        try:
            await reply.app(scope, replayed(content, reply.left), reader.send)
        except GatewayError as error:
            if error.was_sent:
                raise
            reply.refuse(error)
        if reader.refusal:
            reply.refuse(reader.refusal)
        if not reader.is_done:
            return False
        reply.usage.append((Usage.read(reader.usage), is_thought))
        if not is_thought:
            self.is_done = True
            self.whole["finish_reason"] = reader.finish or "stop"
            if self.is_stream:
                await self._event({}, finish=reader.finish or "stop")
        return True

    async def take(self, found: Mapping[str, Any], text: str, *, is_thought: bool) -> None:
        """Text of a call, with the fields that came around it."""
        self.reply.take(found)
        if text:
            await self._text(text, is_thought=is_thought)

    async def _text(self, text: str, *, is_thought: bool) -> None:
        self.whole["message"][THOUGHT if is_thought else "content"] += text
        if is_thought:
            self.thought += text
        if self.is_stream:
            await self._event({THOUGHT if is_thought else "content": text})

    async def _event(self, delta: dict[str, Any], *, finish: str | None = None) -> None:
        if not self._has_role:
            delta, self._has_role = {"role": "assistant", **delta}, True
        await self.reply.event([{"index": self.number, "delta": delta, "finish_reason": finish}])


class _Reader:
    """Reads the reply of one call as it comes."""

    def __init__(self, choice: _Choice, *, is_thought: bool, skipped: str, is_stream: bool) -> None:
        self._choice = choice
        self._is_thought, self._is_stream = is_thought, is_stream
        self._skip = Skipping(skipped)
        self._kept, self._events = bytearray(), EventReader()
        self._has_failed = self._is_chat = False
        self._num_bytes = 0
        self.refusal: list[Message] = []  # what an error says
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
        if self._has_failed:
            self._take_refusal(message)
            return
        if message["type"] == "http.response.start":
            await self._choice.reply.start(message)
            return
        piece = message.get("body", b"")
        if not self._is_stream:
            self._kept += piece
        if max(len(self._kept), self._events.num_kept) > MOST_REPLY:
            raise UpstreamError("the server behind the gateway sent an event without an end")
        is_last = not message.get("more_body", False)
        if self._is_stream:
            events = self._events.feed(piece)
            events += self._events.rest() if is_last else []
            for event in events:
                await self._read(event, "delta")
        elif is_last:
            await self._read(object_in(bytes(self._kept)), "message")
        if is_last:
            if not self._is_chat:  # a page that wants a login, say: no answer may be made of it
                raise UpstreamError(NO_CHAT)
            await self._choice.take({}, self._skip.rest(), is_thought=self._is_thought)
            self.is_done = True

    def _take_refusal(self, message: Message) -> None:
        self._num_bytes += len(message.get("body", b""))
        if self._num_bytes > MOST_REPLY:
            raise UpstreamError("the server behind the gateway sent an error without an end")
        self.refusal.append(message)

    async def _read(self, found: dict[str, Any] | bytes | None, name: str) -> None:
        """Takes an event or a whole reply, with its texts under `name`."""
        if not isinstance(found, dict):
            return
        if found.get("error"):  # after the head: what came so far is no answer
            raise UpstreamError(ENDED)
        if isinstance(usage := found.get("usage"), dict):
            self.usage = usage
        choices = found.get("choices")
        self._is_chat = self._is_chat or isinstance(choices, list)
        text = ""
        for choice in choices if isinstance(choices, list) else []:
            if isinstance(choice, dict):
                text += "".join(texts_in(choice.get(name)))
                self.finish = choice.get("finish_reason") or self.finish
        await self._choice.take(found, self._skip.feed(text), is_thought=self._is_thought)
