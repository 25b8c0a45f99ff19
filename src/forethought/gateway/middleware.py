"""Between an HTTP server and what answers: bodies go in with a budget, responses come out with what was decided."""

from __future__ import annotations

import json
from collections.abc import Callable

from ..servers.kinds import merged
from .asgi import App, Message, Receive, Send, headers_of, parsed, path_of, read_body, replayed, with_header
from .decision import Decision
from .host import logger
from .metrics import MAX_BYTES
from .policy import Policy
from .request import PATHS, PRIORITY_HEADER, QUEUED, QUEUED_BY_FIELD, SAGEMAKER, SESSION, asked_as

MAX_REQUEST_BYTES = 16_000_000  # of a body that is read; a longer one passes through as it comes, without a budget


class Budgets:
    """Plain ASGI: knows no route of the server's own, only the fields that its API documents.

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
        else:
            await self._decide(policy, scope, receive, send)

    async def _decide(self, policy: Policy, scope: Message, receive: Receive, send: Send) -> None:
        content, is_whole = await read_body(receive, MAX_REQUEST_BYTES)
        if content is None:  # the client went away
            return
        if not is_whole:
            await self.app(scope, replayed(content, receive, is_whole=False), send)
            return
        body = parsed(content)
        names = headers_of(scope).keys()
        path = asked_as(path_of(scope), body, names)
        if path not in policy.paths:
            is_session = path == SAGEMAKER and body is not None and SESSION in body
            place = None if body is None or is_session else policy.place(body, names)
            if place is not None and body is not None and path in QUEUED_BY_FIELD:
                content = json.dumps({**body, "priority": place}).encode()
                scope = with_header(scope, "content-length", len(content))
            elif place is not None:
                scope = with_header(scope, PRIORITY_HEADER, place)
            await self.app(scope, replayed(content, receive), send)
            return
        decision = None if body is None else await policy.decide(path, body, names)
        if decision is None or body is None:
            await self.app(scope, replayed(content, receive), send)
            return
        if decision.changes:
            content = json.dumps(merged(body, decision.changes)).encode()
            scope = with_header(scope, "content-length", len(content))
        passed, number = _Passed(policy, decision, send), policy.watch.begun()
        try:
            await self.app(scope, replayed(content, receive), passed.send)
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
    return (
        scope["type"] == "http" and scope["method"] == "POST" and path_of(scope) in (*PATHS, *QUEUED, *QUEUED_BY_FIELD)
    )
