"""Between vLLM's HTTP server and its routes: bodies go in with a budget, responses come out with what was decided."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from ..servers.kinds import merged
from .decision import Decision
from .host import logger
from .metrics import MAX_BYTES
from .policy import Policy
from .request import PATHS, PRIORITY_HEADER, QUEUED

MAX_REQUEST_BYTES = 16_000_000  # of a body that is read; a longer one passes through as it comes, without a budget

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class Budgets:
    """Plain ASGI: knows no route of vLLM's, only the fields that its API documents.

    Args:
        app: what comes after.
        policy: gives the policy; None before the server is ready.
    """

    def __init__(self, app: App, policy: Callable[[], Policy | None]) -> None:
        self.app = app
        self.policy = policy

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request."""
        policy = self.policy()
        if policy is None or not _is_ours(scope):
            await self.app(scope, receive, send)
            return
        content, is_whole = await _read(receive)
        if content is None:  # the client went away
            return
        if not is_whole:
            await self.app(scope, _replayed(content, receive, is_whole=False), send)
            return
        body = _parsed(content)
        names = {bytes(name).decode("latin-1").lower() for name, _ in scope["headers"]}
        if _path(scope) in QUEUED:
            place = None if body is None else policy.place(body, names)
            scope = scope if place is None else _with(scope, PRIORITY_HEADER, place)
            await self.app(scope, _replayed(content, receive), send)
            return
        decision = None if body is None else await policy.decide(_path(scope), body, names)
        if decision is None or body is None:
            await self.app(scope, _replayed(content, receive), send)
            return
        if decision.changes:
            content = json.dumps(merged(body, decision.changes)).encode()
            scope = _with(scope, "content-length", len(content))
        passed, number = _Passed(policy, decision, send), policy.watch.begun()
        try:
            await self.app(scope, _replayed(content, receive), passed.send)
        finally:
            policy.watch.ended(number, decision, passed.tokens)


class _Passed:
    """A response on its way out: headers are added, the thought is counted once all of it has gone."""

    def __init__(self, policy: Policy, decision: Decision, send: Send) -> None:
        self._policy = policy
        self._decision = decision
        self._send = send
        self._kept = bytearray()
        self._is_stream = self._is_kept = False
        self.tokens: int | None = None  # of the thought, once all has gone and where it could be counted

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            kinds = [bytes(value) for name, value in headers if bytes(name).lower() == b"content-type"]
            self._is_stream = any(kind.startswith(b"text/event-stream") for kind in kinds)
            self._is_kept = message["status"] == 200 and self._decision.is_ours
            headers += [(name.encode(), value.encode()) for name, value in self._decision.headers.items()]
            message = {**message, "headers": headers}
        elif message["type"] == "http.response.body" and self._is_kept:
            self._kept += message.get("body", b"")
            self._is_kept = len(self._kept) <= MAX_BYTES
        await self._send(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False) and self._is_kept:
            self._count()

    def _count(self) -> None:
        budget = self._decision.budget
        assert budget is not None
        assert self._policy.counter is not None
        try:
            tokens = self._policy.counter.count(bytes(self._kept), is_stream=self._is_stream)
        except Exception:  # counting must never break a response that is out already
            logger.exception("a response could not be counted")
            return
        if tokens is not None:
            self.tokens = tokens
            self._policy.metrics.came_back(budget, tokens)


def _is_ours(scope: Message) -> bool:
    return scope["type"] == "http" and scope["method"] == "POST" and _path(scope) in (*PATHS, *QUEUED)


def _path(scope: Message) -> str:
    return str(scope["path"]).removeprefix(str(scope.get("root_path", "")))


async def _read(receive: Receive) -> tuple[bytes | None, bool]:
    """`(the body, whether that is all of it)`: its beginning where it is too long, None where the client went away."""
    content = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None, False
        content += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(content), True
        if len(content) > MAX_REQUEST_BYTES:
            return bytes(content), False


def _parsed(content: bytes) -> Mapping[str, Any] | None:
    """The body as an object; None where it is none, which vLLM says itself."""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def _replayed(content: bytes, receive: Receive, *, is_whole: bool = True) -> Receive:
    """Gives the body once more, then whatever the client does next: vLLM waits for it to hang up."""
    is_given = False

    async def replay() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": content, "more_body": not is_whole}

    return replay


def _with(scope: Message, header: str, value: int) -> Message:
    """The same request with one header set."""
    name = header.encode()
    others = [pair for pair in scope["headers"] if bytes(pair[0]).lower() != name]
    return {**scope, "headers": [*others, (name, str(value).encode())]}
