"""What a gateway does with a request: whose it is, what it gets, whether that fits the quotas, what came of it."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from ..errors import LedgerError
from ..runs.journal import REFUSED, Entry
from ..servers.kinds import merged
from .admission import Admission, Grant
from .asgi import App, Message, Receive, Send, parsed, path_of, replayed, send_error, with_header
from .beyond import beyond, runs_tools
from .call import NOTHING, Call
from .chance import random_bytes
from .decision import UNTOUCHED
from .failing import GatewayError, RefusedError
from .host import logger
from .incoming import check_bounds, check_model, limited, timely, whole_body
from .lowering import admitted
from .policy import Policy
from .reply import Reply
from .request import CHAT, FORMED, PATHS, TEXT
from .seen import Seen
from .tenants import Tenant, Tenants
from .used import CLIENT_LEFT, DONE, Used

# Routes that generate no text, and so may be asked under a quota without being counted.
UNCOUNTED = ("embeddings", "rerank", "score", "tokenize", "detokenize", "moderations", "classify", "pooling")
# Routes under /v1 by which a server is changed for everybody.
CHANGING = ("load_lora_adapter", "unload_lora_adapter")
READING = ("GET", "HEAD", "OPTIONS", "DELETE")
TWO_CALLS = "forethought.cap"  # key of a scope: the tokens of thought that the host is to keep by two calls


class Pipeline:
    """Runs requests through tenants, decision, quotas, the app, counting and records.

    Args:
        tenants: whose requests there are.
        admission: keeps their quotas; None for no counting.
        seen: hears of every request that was decided on or refused; None: nobody does.
        is_shadow: decides, counts and records, and changes nothing.
        most_tokens: limit on an answer that nothing else limits, where there is a quota; None to refuse those.
    """

    def __init__(
        self,
        tenants: Tenants,
        *,
        admission: Admission | None = None,
        seen: Seen | None = None,
        is_shadow: bool = False,
        most_tokens: int | None = None,
    ) -> None:
        self.tenants = tenants
        self.admission = admission
        self.seen = seen
        self.is_shadow = is_shadow
        self.most_tokens = most_tokens
        self._grants: dict[str, Grant] = {}
        self._renewing: asyncio.Task[None] | None = None

    async def __call__(self, app: App, policy: Policy, scope: Message, receive: Receive, send: Send) -> None:
        """One request."""
        started, came = time.perf_counter(), time.time()
        headers = {
            bytes(name).decode("latin-1").lower(): bytes(text).decode("latin-1") for name, text in scope["headers"]
        }
        has_begun = False

        async def watched(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            tenant = self.tenants.of(headers)
            if tenant is None:
                self._refused("", came, 401)
                raise RefusedError(401, "no tenant has this key", "invalid_api_key", {"www-authenticate": "Bearer"})
            path = path_of(scope)
            if scope["method"] == "POST" and path in policy.paths:
                call = Call(self._begin(), tenant, path, came, started, headers)
                await self._decided(app, policy, scope, receive, watched, call)
            else:
                try:
                    await self._passed(app, scope, receive, watched, tenant, path)
                except RefusedError as error:
                    self._refused(tenant.name, came, error.status)
                    raise
        except GatewayError as error:
            if not has_begun:
                await send_error(send, error.status, str(error), error.code, error.headers)

    # ------------------------------------------------------------------ what is not decided on

    async def _passed(self, app: App, scope: Message, receive: Receive, send: Send, tenant: Tenant, path: str) -> None:
        """Passes on as it comes what generates nothing, or where nothing is counted."""
        receive = timely(receive)
        if not self.tenants.is_open and not _is_offered(path):
            raise RefusedError(404, "tenants reach the routes under /v1 alone", "route_not_offered")
        if scope["method"] not in READING:
            is_plain = path.removeprefix("/v1").lstrip("/") in UNCOUNTED
            if self._is_limited(tenant) and not self.is_shadow and not is_plain:
                what = "a quota" if self._has_quota(tenant) else "a ceiling"
                raise RefusedError(403, f"this route is not counted, and there is {what}", "route_not_counted")
            if tenant.models:
                content = await whole_body(receive)
                if content is None:
                    return
                body = parsed(content)
                if body is None:
                    raise RefusedError(403, "only models by name may be asked here, in JSON", "model_not_allowed")
                check_model(tenant, body)
                content = json.dumps(body).encode()  # a name that is there twice must mean the same to the server
                scope = with_header(scope, "content-length", len(content))
                receive = replayed(content, receive)
        await app(scope, receive, send)

    # ------------------------------------------------------------------ what is

    async def _decided(
        self,
        app: App,
        policy: Policy,
        scope: Message,
        receive: Receive,
        send: Send,
        call: Call,
    ) -> None:
        try:
            read = await self._read(policy, receive, call)
        except RefusedError as error:
            self._note(call, Used(0, 0, 0, error.status, REFUSED), None)
            error.headers["x-forethought-id"] = call.id
            raise
        if read is None:
            self._note(call, Used(0, 0, 0, 0, CLIENT_LEFT), None)
            return
        content, body, last_byte = read
        if call.request is None:  # the server refuses it itself
            await self._answer(app, policy, scope, content, receive, send, call, drops_usage=False)
            return
        scope, content, drops_usage = self._onward(policy, scope, body, content, call)
        call.added = time.perf_counter() - last_byte
        await self._answer(app, policy, scope, content, receive, send, call, drops_usage=drops_usage)

    async def _read(
        self, policy: Policy, receive: Receive, call: Call
    ) -> tuple[bytes, Mapping[str, Any], float] | None:
        """`(body, the same as an object, when it had come)`, decided on; None: the client left; raises RefusedError."""
        content = await whole_body(receive)
        if content is None:
            return None
        last_byte = time.perf_counter()
        body = parsed(content)
        if body is None:
            raise RefusedError(400, "the body is not a JSON object")
        check_model(call.tenant, body)
        call.request = policy.read(call.path, body, call.headers.keys())
        if call.request is not None:
            await self._decide(policy, call, body, *self._sized(call, body, len(content)))
        elif self._is_limited(call.tenant) and not self.is_shadow:
            raise RefusedError(400, "the body is no request that this route takes: see its messages, n and limits")
        return content, body, last_byte

    def _sized(self, call: Call, body: Mapping[str, Any], num_bytes: int) -> tuple[int, int]:
        """`(bytes of the prompt, the most tokens beyond them)`; raises RefusedError where a quota could not be kept."""
        images, image_bytes, stored = beyond(body) if call.path != TEXT else (0, 0, "")
        if stored and self._has_quota(call.tenant) and not self.is_shadow:
            reason = f"there is a quota, and nobody knows how many tokens {stored!r} stands for: send the text itself"
            raise RefusedError(403, reason, "prompt_not_counted")
        if self.admission is None:
            return num_bytes, 0
        return num_bytes - image_bytes, self.admission.beyond(images, has_tools=runs_tools(body))

    async def _decide(
        self, policy: Policy, call: Call, body: Mapping[str, Any], num_bytes: int, most_beyond: int
    ) -> None:
        """Settles what the request gets, and reserves it; raises RefusedError."""
        tenant, request, admission = call.tenant, call.request, self.admission
        assert request is not None
        call.price = None if admission is None else admission.price(tenant)
        is_bounded = self._has_quota(tenant)
        decision = await policy.decide_on(
            request, body, price=call.price, ceiling=tenant.ceiling, is_bounded=is_bounded
        )
        if is_bounded and decision.most_tokens is None and self.most_tokens is not None:
            decision = limited(request, decision, self.most_tokens)
        call.decision = decision
        if not self.is_shadow:
            check_bounds(decision, has_quota=is_bounded)
        if admission is None:
            return
        try:
            how = {"num_bytes": num_bytes, "beyond": most_beyond}
            found = await admitted(admission, policy, call, body, **how, may_lower=not self.is_shadow)
        except LedgerError as error:
            logger.warning("a request is not counted: %s", error)
            if self.is_shadow:
                return
            reason = "the quotas cannot be looked up now; nothing was sent"
            raise RefusedError(503, reason, "ledger_away", {"retry-after": "1"}) from None
        if isinstance(found, Grant):
            call.grant = found
            self._keep(found)
        elif self.is_shadow:
            call.decision = replace(call.decision, reason=f"{call.decision.reason}; would be refused: {found.reason}")
        else:
            wait = {"retry-after": str(math.ceil(found.retry_after))} if found.may_wait else {"x-should-retry": "false"}
            raise RefusedError(429, found.reason, "quota_exceeded", wait)

    def _onward(
        self, policy: Policy, scope: Message, body: Mapping[str, Any], content: bytes, call: Call
    ) -> tuple[Message, bytes, bool]:
        """`(scope, body, whether the usage was asked for here)`: what goes to the server."""
        decision, request = call.decision, call.request
        assert decision is not None
        assert request is not None
        if self.is_shadow:
            return scope, content, False
        changes: dict[str, Any] = dict(decision.changes)
        told = body.get("stream_options")
        asks = request.is_stream and call.path in PATHS and policy.host.kind.streams_usage
        drops_usage = asks and not (isinstance(told, Mapping) and told.get("include_usage"))
        if drops_usage:
            changes["stream_options"] = {"include_usage": True}
        if changes or call.tenant.models or self._is_limited(call.tenant):  # names that are there twice mean the same
            content = json.dumps(merged(body, changes)).encode()
        own = (b"content-length", b"accept-encoding", b"transfer-encoding")
        headers = [pair for pair in scope["headers"] if bytes(pair[0]).lower() not in own]
        headers += [(b"content-length", str(len(content)).encode()), (b"accept-encoding", b"identity")]
        scope = {**scope, "headers": headers}
        is_kept = policy.has_caps or decision.kind == UNTOUCHED or request.no_curve in FORMED or call.path != CHAT
        if not is_kept and decision.budget is not None and decision.budget >= 0:
            scope[TWO_CALLS] = decision.budget
        return scope, content, drops_usage

    async def _answer(
        self,
        app: App,
        policy: Policy,
        scope: Message,
        content: bytes,
        receive: Receive,
        send: Send,
        call: Call,
        *,
        drops_usage: bool,
    ) -> None:
        """Has the app answer; what came of it is settled once, however that ends."""
        decision, grant = call.decision or NOTHING, call.grant
        own = {"x-forethought-id": call.id} | ({} if self.is_shadow or decision is NOTHING else decision.headers)
        safe = self._safely(grant) if grant is not None else None
        reply = Reply(send, own, drops_usage=drops_usage, safe=safe)
        replay = replayed(content, receive)

        async def watched() -> Message:
            message = await replay()
            if message["type"] == "http.disconnect" and not reply.is_done:
                call.has_left = True
            return message

        number, was_sent = policy.watch.begun(), True
        try:
            await app(scope, watched, reply.send)
        except GatewayError as error:
            was_sent = error.was_sent
            error.headers.update(own)
            if call.has_left:
                return
            reply.status = reply.status if reply.has_begun else error.status
            raise
        finally:
            used = reply.used(reply.ending(has_left=call.has_left, was_sent=was_sent))
            is_counted = used.ending == DONE and decision.num_thoughts == 1 and decision.is_ours and not self.is_shadow
            thought = used.reasoning_tokens if is_counted else None
            policy.watch.ended(number, decision, thought)
            if thought is not None and decision.budget is not None:
                policy.metrics.came_back(decision.budget, thought)
            await self._settle(call, used)

    def _safely(self, grant: Grant) -> Callable[[], Any]:
        async def safe() -> None:
            assert self.admission is not None
            try:
                await self.admission.durable(grant)
            except LedgerError:
                if not self.is_shadow:
                    reason = "the quotas cannot be kept now"
                    raise GatewayError(reason, status=503, code="ledger_away", headers={"retry-after": "1"}) from None

        return safe

    async def _settle(self, call: Call, used: Used) -> None:
        settled = None
        if call.grant is not None and self.admission is not None:
            self._grants.pop(call.grant.id, None)
            try:
                settled = await self.admission.settle(call.grant, used)
            except LedgerError:  # its lease settles it
                logger.exception("a request could not be settled")
        self._note(call, used, settled)

    def _begin(self) -> str:
        return random_bytes(16).hex() if self.seen is None else self.seen.begin()

    def _refused(self, tenant: str, came: float, status: int) -> None:
        """Notes a request that was refused before anything was read of it."""
        if self.seen is not None:
            self.seen.end(Entry(self._begin(), came, tenant, status=status, ending=REFUSED), {})

    def _note(self, call: Call, used: Used, settled: int | None) -> None:
        """Says what came of a request."""
        if self.seen is None:
            return
        try:
            entry = call.entry(used, settled, is_shadow=self.is_shadow, keeps_text=self.seen.keeps_texts)
            self.seen.end(entry, call.headers)
        except Exception:  # a record that cannot be kept must never break a reply
            logger.exception("a request could not be recorded")

    # ------------------------------------------------------------------ open requests

    def _has_quota(self, tenant: Tenant) -> bool:
        return self.admission is not None and bool(tenant.quotas or self.tenants.quotas)

    def _is_limited(self, tenant: Tenant) -> bool:
        """Whether there is anything that a request could be made to pass by."""
        return self._has_quota(tenant) or tenant.ceiling is not None

    def _keep(self, grant: Grant) -> None:
        """Renews the grant's lease until it is settled."""
        self._grants[grant.id] = grant
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.ensure_future(self._renew())

    async def _renew(self) -> None:
        assert self.admission is not None
        while True:
            await asyncio.sleep(self.admission.lease / 3.0)
            for grant in tuple(self._grants.values()):
                await self.admission.renew(grant)

    async def close(self) -> None:
        """Ends what runs beside requests."""
        if self._renewing is not None:
            self._renewing.cancel()
            with suppress(asyncio.CancelledError):
                await self._renewing


def _is_offered(path: str) -> bool:
    """Whether a route is a tenant's to ask: what a server shows or does for its operator (`/slots`) is not."""
    *folders, name = path.strip("/").split("/")
    if ".." in folders or name in CHANGING:
        return False
    return folders[:1] == ["v1"] or (not folders and name in UNCOUNTED)
