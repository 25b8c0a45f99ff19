"""What a gateway does with a request: whose it is, what it gets, whether that fits the quotas, what came of it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ..errors import LedgerError
from ..runs.journal import REFUSED, Entry
from ..servers.kinds import merged
from .admission import Admission, Grant
from .asgi import App, Message, Receive, Send, headers_of, parsed, path_of, replayed, send_error, with_header
from .beyond import beyond, runs_tools
from .call import NOTHING, Call
from .cors import Cors
from .decision import UNTOUCHED
from .failing import GatewayError, RefusedError
from .guard import is_foreign, is_preflight
from .host import logger
from .incoming import check_bounds, check_model, check_names, limited, timely, whole_body
from .lowering import admitted
from .policy import Policy
from .reply import Reply
from .request import CHAT, FORMED, PATHS, TEXT
from .seen import Seen
from .tenants import Tenant, Tenants
from .used import CLIENT_LEFT, DONE, Used

# Routes that generate no text, and so may be asked under a quota without being counted.
UNCOUNTED = (
    *("embeddings", "rerank", "score", "tokenize", "detokenize", "moderations", "classify", "pooling"),
    *("messages/count_tokens", "responses/input_tokens"),
)
# Routes under /v1 by which a server is changed for everybody.
CHANGING = ("load_lora_adapter", "unload_lora_adapter")
READING = ("GET", "HEAD", "OPTIONS")
KEYLESS = "forethought.keyless"  # key of a scope: the operator's key does not go on with it
TWO_CALLS = "forethought.cap"  # key of a scope: the tokens of thought that the host is to keep by two calls


class Pipeline:
    """Runs requests through tenants, decision, quotas, the app, counting and records.

    Args:
        tenants: whose requests there are.
        seen: hears of every request that was decided on or refused.
        admission: keeps their quotas; None for no counting.
        is_shadow: decides, counts and records, and changes nothing.
        most_tokens: limit on an answer that nothing else limits, where there is a quota; None to refuse those.
        has_key: requests go on with the operator's key.

    Attributes:
        cors: which pages may read errors.
    """

    def __init__(
        self,
        tenants: Tenants,
        seen: Seen,
        *,
        admission: Admission | None = None,
        is_shadow: bool = False,
        most_tokens: int | None = None,
        has_key: bool = False,
    ) -> None:
        self.tenants = tenants
        self.admission = admission
        self.seen = seen
        self.is_shadow = is_shadow
        self.most_tokens = most_tokens
        self.has_key = has_key
        self.cors = Cors()

    async def __call__(self, app: App, policy: Policy, scope: Message, receive: Receive, send: Send) -> None:
        """One request."""
        started, came = time.perf_counter(), time.time()
        headers, has_begun = headers_of(scope), False
        origin = headers.get("origin")

        async def watched(message: Message) -> None:
            nonlocal has_begun
            if origin is not None and not has_begun:
                self.cors.see(origin, message["status"], message.get("headers", ()))
            has_begun = True
            await send(message)

        try:
            tenant, path = self.tenants.of(headers), path_of(scope)
            if is_preflight(scope["method"], headers):
                _check_offered("OPTIONS", path, is_open=self.tenants.is_open)
                await app({**scope, KEYLESS: True}, replayed(b"", receive), watched)
                return
            if tenant is None:
                self._refused("", came, 401)
                raise RefusedError(401, "no tenant has this key", "invalid_api_key", {"www-authenticate": "Bearer"})
            is_asking = scope["method"] not in READING or self.has_key  # hosted APIs let pages of any site read
            if self.tenants.is_open and is_asking and is_foreign(headers, has_key=self.has_key):
                self._refused("", came, 403)
                raise RefusedError(403, "web pages of other sites may not ask here: give them a key", "cross_site")
            if scope["method"] == "POST" and path in policy.paths:
                call = Call(self.seen.begin(), tenant, path, came, started, headers)
                await self._decided(app, policy, scope, receive, watched, call)
            else:
                try:
                    await self._passed(app, scope, receive, watched, tenant, path)
                except RefusedError as error:
                    self._refused(tenant.name, came, error.status)
                    raise
        except GatewayError as error:
            if not has_begun:
                own = {**error.headers, **self.cors.headers(origin)}
                await send_error(send, error.status, str(error), error.code, own)
        except Exception:  # a mistake of ours: the client gets no traceback, and the log gets no body
            logger.exception("a request failed in the gateway")
            if not has_begun:
                await send_error(send, 500, "the gateway failed", "internal_error", self.cors.headers(origin))

    # ------------------------------------------------------------------ what is not decided on

    async def _passed(self, app: App, scope: Message, receive: Receive, send: Send, tenant: Tenant, path: str) -> None:
        """Passes on as it comes what generates nothing, or where nothing is counted."""
        receive = timely(receive)
        _check_offered(scope["method"], path, is_open=self.tenants.is_open)
        if scope["method"] not in READING:
            is_plain = path.removeprefix("/v1").lstrip("/") in UNCOUNTED
            if not is_plain:
                self.check_uncounted(tenant)
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

    def check_uncounted(self, tenant: Tenant) -> None:
        """Refuses a route that generates text and is not counted to a tenant with limits; raises RefusedError."""
        if self._is_limited(tenant) and not self.is_shadow:
            what = "a quota" if self._has_quota(tenant) else "a ceiling"
            raise RefusedError(403, f"this route is not counted, and there is {what}", "route_not_counted")

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
            self.refuse(call, error)
            raise
        except Exception:  # a mistake of ours, which must not look like a request that goes on
            self._note(call, Used(0, 0, 0, 500, REFUSED), None)
            raise
        if read is None:
            self._note(call, Used(0, 0, 0, 0, CLIENT_LEFT), None)
            return
        decision, grant = call.decision or NOTHING, call.grant
        own = {"x-forethought-id": call.id} | ({} if self.is_shadow or decision is NOTHING else decision.headers)
        safe = self._safely(grant) if grant is not None else None
        reply, was_sent = Reply(send, own, drops_usage=call.drops_usage, safe=safe), False
        try:
            content, body, last_byte = read
            if not self.is_shadow:
                scope, content = self._onward(policy, scope, body, content, call)
            call.added = time.perf_counter() - last_byte
            replay = replayed(content, receive)

            async def watched() -> Message:
                message = await replay()
                if message["type"] == "http.disconnect" and not reply.is_done:
                    call.has_left = True
                return message

            was_sent = True
            await app(scope, watched, reply.send)
        except GatewayError as error:
            was_sent = error.was_sent
            error.headers.update(own)
            if call.has_left:
                return
            reply.status = reply.status if reply.has_begun else error.status
            raise
        finally:
            await self.settle(policy, call, reply.used(reply.ending(has_left=call.has_left, was_sent=was_sent)))

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
        await self.decide(policy, call, body, len(content))
        return content, body, last_byte

    async def decide(self, policy: Policy, call: Call, body: Mapping[str, Any], num_bytes: int) -> None:
        """Finds what a request gets, and reserves it; from then on `settle` is to be called once, however it ends.

        Args:
            policy: decides.
            call: the request; `call.request` stays None where nothing can be decided, and the server is to refuse it.
            body: of it.
            num_bytes: of that.

        Raises:
            RefusedError: it may not be sent; nothing is reserved.
        """
        check_model(call.tenant, body)
        if self._is_limited(call.tenant) and not self.is_shadow:
            check_names(body)
        call.request = policy.read(call.path, body, call.headers.keys())
        is_read = call.request is not None and isinstance(body.get("stream"), bool | None)  # else some servers stream
        if call.request is not None and call.request.own_room == 0:  # to some servers (Ollama) that is no limit
            is_read = False
        if not is_read and self._is_limited(call.tenant) and not self.is_shadow:
            reason = "the body is no request that this route takes: see its messages, n, stream and limits"
            raise RefusedError(400, reason)
        if call.request is None:
            return
        await self._decide(policy, call, body, num_bytes)
        call.number = policy.watch.begun()
        if call.request.is_stream and not self.is_shadow and call.path in PATHS and policy.host.kind.streams_usage:
            told = body.get("stream_options")
            call.drops_usage = not (isinstance(told, Mapping) and told.get("include_usage") is True)

    async def _decide(self, policy: Policy, call: Call, body: Mapping[str, Any], num_bytes: int) -> None:
        tenant, request, admission = call.tenant, call.request, self.admission
        assert request is not None
        how = {"num_bytes": num_bytes, "beyond": 0}
        if admission is not None:
            call.price = admission.price(tenant)
            how = self._sized(admission, call, body, num_bytes)
        is_bounded = self._has_quota(tenant)
        decision = await policy.decide_on(
            request, body, price=call.price, ceiling=tenant.ceiling, is_bounded=is_bounded
        )
        if is_bounded and decision.most_tokens is None and self.most_tokens is not None:
            decision = limited(request, decision, self.most_tokens)
        if body.get("background"):  # what it uses is said later, by another route: it counts as the most that it can be
            decision = replace(decision, high_tokens=decision.most_tokens)
        call.decision = decision
        if not self.is_shadow:
            check_bounds(decision, has_quota=is_bounded)
        if admission is None:
            return
        try:
            found = await admitted(admission, policy, call, body, **how, may_lower=not self.is_shadow)
        except LedgerError as error:
            logger.warning("a request is not counted: %s", error)
            if self.is_shadow:
                return
            reason = "the quotas cannot be looked up now; nothing was sent"
            raise RefusedError(503, reason, "ledger_away", {"retry-after": "1"}) from None
        if isinstance(found, Grant):
            call.grant = found
        elif self.is_shadow:
            call.decision = replace(call.decision, reason=f"{call.decision.reason}; would be refused: {found.reason}")
        else:
            wait = {"retry-after": str(math.ceil(found.retry_after))} if found.may_wait else {"x-should-retry": "false"}
            raise RefusedError(429, found.reason, "quota_exceeded", wait)

    def _sized(self, admission: Admission, call: Call, body: Mapping[str, Any], num_bytes: int) -> dict[str, int]:
        """The prompt's bytes, and the most tokens beyond them; raises RefusedError where a quota could not be kept."""
        if call.path == TEXT:
            return {"num_bytes": num_bytes, "beyond": 0}
        images, image_bytes, stored = beyond(body)
        if stored and self._has_quota(call.tenant) and not self.is_shadow:
            reason = f"there is a quota, and nobody knows how many tokens {stored!r} stands for: send the text itself"
            raise RefusedError(403, reason, "prompt_not_counted")
        return {
            "num_bytes": max(0, num_bytes - image_bytes),
            "beyond": admission.beyond(images, has_tools=runs_tools(body)),
        }

    def changes(self, call: Call) -> dict[str, Any]:
        """Fields to set in the body of a request that was decided on."""
        assert call.decision is not None
        usage = {"stream_options": {"include_usage": True}} if call.drops_usage else {}
        return {**call.decision.changes, **usage}

    def _onward(
        self, policy: Policy, scope: Message, body: Mapping[str, Any], content: bytes, call: Call
    ) -> tuple[Message, bytes]:
        """`(scope, body)`: what goes to the server."""
        decision, request = call.decision, call.request
        changes = {} if decision is None else self.changes(call)
        if changes or call.tenant.models or self._is_limited(call.tenant):  # names that are there twice mean the same
            content = json.dumps(merged(body, changes)).encode()
        own = (b"content-length", b"accept-encoding", b"transfer-encoding")
        headers = [pair for pair in scope["headers"] if bytes(pair[0]).lower() not in own]
        headers += [(b"content-length", str(len(content)).encode()), (b"accept-encoding", b"identity")]
        scope = {**scope, "headers": headers}
        if decision is None or request is None:
            return scope, content
        is_kept = policy.has_caps or decision.kind == UNTOUCHED or request.no_curve in FORMED or call.path != CHAT
        if not is_kept and decision.budget is not None and decision.budget >= 0:
            scope[TWO_CALLS] = decision.budget
        return scope, content

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

    # ------------------------------------------------------------------ how it ends

    async def settle(self, policy: Policy, call: Call, used: Used) -> None:
        """Counts what a request used, and says what came of it."""
        decision, settled = call.decision or NOTHING, None
        is_counted = used.ending == DONE and decision.num_thoughts == 1 and decision.is_ours and not self.is_shadow
        thought = used.reasoning_tokens if is_counted else None
        policy.watch.ended(call.number, decision, thought)
        if thought is not None and decision.budget is not None:
            policy.metrics.came_back(decision.budget, thought)
        if call.grant is not None and self.admission is not None:
            try:
                settled = await self.admission.settle(call.grant, used)
            except LedgerError:  # its lease settles it
                logger.exception("a request could not be settled")
        self._note(call, used, settled)

    def refuse(self, call: Call, error: RefusedError) -> None:
        """Notes a request that was refused, and says its id to the client."""
        self._note(call, Used(0, 0, 0, error.status, REFUSED), None)
        error.headers["x-forethought-id"] = call.id

    def _refused(self, tenant: str, came: float, status: int) -> None:
        """Notes a request that was refused before anything was read of it."""
        self.seen.end(Entry(self.seen.begin(), came, tenant, status=status, ending=REFUSED))

    def _note(self, call: Call, used: Used, settled: int | None) -> None:
        """Says what came of a request."""
        try:
            entry = call.entry(used, settled, is_shadow=self.is_shadow, keeps_text=self.seen.keeps_texts)
            self.seen.end(entry, call.headers)
        except Exception:  # a record that cannot be kept must never break a reply
            logger.exception("a request could not be recorded")

    def _has_quota(self, tenant: Tenant) -> bool:
        return self.admission is not None and bool(tenant.quotas or self.tenants.quotas)

    def _is_limited(self, tenant: Tenant) -> bool:
        """Whether there is anything that a request could be made to pass by."""
        return self._has_quota(tenant) or tenant.ceiling is not None


def _check_offered(method: str, path: str, *, is_open: bool) -> None:
    """Refuses what tenants may not ask; raises RefusedError."""
    if not is_open and not _is_offered(method, path):
        raise RefusedError(404, "tenants read and ask under /v1, and change nothing there", "route_not_offered")


def _is_offered(method: str, path: str) -> bool:
    """Whether a route is a tenant's to ask: what a server shows or does for its operator (`/slots`) is not."""
    *folders, name = path.strip("/").split("/")
    if method not in (*READING, "POST") or ".." in folders or name in CHANGING:  # `DELETE /v1/models/ours` is not
        return False
    return folders[:1] == ["v1"] or (not folders and name in UNCOUNTED)
