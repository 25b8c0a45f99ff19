"""The gateway's own pages: what goes on, outcomes that are told, health, and counts for Prometheus. Plain ASGI."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from urllib.parse import parse_qs

from ..core.visible import one_line, to_json
from ..errors import FileError
from ..report.colours import COLOURS
from ..report.style import base_style
from .asgi import Message, Receive, Send, headers_of, path_of
from .events import Events
from .failing import RefusedError
from .guard import Guard
from .openapi import document
from .seen import Seen
from .totals import Exposition

HERE = "/forethought"
MAX_FORM, MAX_FEEDBACK = 4_096, 2_000_000  # bytes of a body
MOST_OUTCOMES = 10_000  # of one request
WRONG_KEY_SECONDS = 0.5  # that a wrong key waits for its answer
READ_SECONDS = 20.0  # in which a body must have come
SHOWN = 5  # ids that a message names

Headers = Mapping[str, str]

JSON, HTML = "application/json", "text/html; charset=utf-8"
SAFE = {
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


@dataclass(frozen=True, slots=True)
class Reply:
    """What is answered."""

    status: int
    kind: str
    content: bytes
    more: tuple[tuple[str, str], ...] = ()


class Pages:
    """`/forethought/…`, `/metrics` and `/health` of a gateway.

    Args:
        seen: what goes on.
        guard: who may look.
        is_tenant: whether a request's headers are a tenant's, who may tell outcomes too; None: only the operator may.
        health: why the gateway takes no requests; "" where it takes them.
    """

    def __init__(
        self,
        seen: Seen,
        guard: Guard,
        *,
        is_tenant: Callable[[Headers], bool] | None = None,
        health: Callable[[], str] = lambda: "",
    ) -> None:
        self.seen, self.guard = seen, guard
        seen.about |= {"has_key": guard.has_key}
        self.events = Events(seen.snapshot)
        self._is_tenant, self._health = is_tenant, health
        self._exposition = Exposition(seen.totals)

    @staticmethod
    def takes(path: str) -> bool:
        """Whether a path is one of these."""
        return path in ("/metrics", "/health", HERE) or path.startswith(f"{HERE}/")

    async def run(self) -> None:
        """Takes samples for the page until it is cancelled."""
        await self.seen.run(lambda: self.events.num_watching > 0)

    def close(self) -> None:
        """Ends open streams, so that a server can stop."""
        self.events.close()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request."""
        headers, path = headers_of(scope), path_of(scope)
        root, method = str(scope.get("root_path", "")), scope["method"]
        try:
            if path == f"{HERE}/events" and method == "GET":
                await self._stream(scope, headers, receive, send)
                return
            reply = await self._reply(method, path, root, scope, headers, receive)
        except RefusedError as error:
            reply = _problem(error.status, str(error))
        await _answer(reply, send, is_head=method == "HEAD")

    async def _reply(
        self, method: str, path: str, root: str, scope: Message, headers: Headers, receive: Receive
    ) -> Reply:
        if path == HERE:
            return Reply(308, HTML, b"", (("location", f"{root}{HERE}/"),))
        allowed = ROUTES.get(path)
        if allowed is None:
            raise RefusedError(404, "there is no such page; the gateway's own is /forethought/")
        if method not in allowed:
            return _problem(405, f"this page takes {' and '.join(allowed)}", ("allow", ", ".join(allowed)))
        if path == "/health":
            return self._healthy()
        if path == f"{HERE}/openapi.json":
            return _document()
        is_secure = scope.get("scheme") == "https" or headers.get("x-forwarded-proto") == "https"
        place = f"{root}{HERE}/"
        if path == f"{HERE}/login":
            return await self._login(receive, place, is_secure=is_secure)
        if path == f"{HERE}/feedback":
            return await self._feedback(scope, headers, receive)
        is_in = self.guard.lets_in(scope, headers)
        if path == f"{HERE}/" and self.guard.has_key and not is_in:
            return _login_page(is_wrong=False)
        self._check(is_in=is_in)
        if path == f"{HERE}/":
            return _static_page("page")
        if path == f"{HERE}/state":
            await self.seen.refresh()
            return Reply(200, JSON, to_json(self.seen.snapshot(with_series=True)).encode())
        if path == f"{HERE}/logout":
            cookie = self.guard.no_cookie(path=place, is_secure=is_secure)
            return Reply(303, HTML, b"", (("location", "./"), ("set-cookie", cookie)))
        await self.seen.refresh()
        kind, content = self._exposition.page(headers.get("accept", ""))
        return Reply(200, kind, content)

    def _check(self, *, is_in: bool) -> None:
        if is_in:
            return
        if self.guard.has_key:
            raise RefusedError(401, "this page asks for the admin key: Authorization: Bearer KEY")
        raise RefusedError(403, "without an admin key this page is for the gateway's own machine, at http://127.0.0.1")

    def _healthy(self) -> Reply:
        problem = self._health()
        said = {"status": "unavailable" if problem else "ok", **({"reason": problem} if problem else {})}
        return Reply(503 if problem else 200, JSON, to_json(said).encode())

    async def _login(self, receive: Receive, place: str, *, is_secure: bool) -> Reply:
        content = await _body(receive, MAX_FORM)
        try:
            given = parse_qs(content.decode("utf-8"), max_num_fields=4).get("key", [""])[0]
        except ValueError:
            given = ""
        if self.guard.is_key(given.strip()):
            cookie = self.guard.cookie(path=place, is_secure=is_secure)
            return Reply(303, HTML, b"", (("location", "./"), ("set-cookie", cookie)))
        await asyncio.sleep(WRONG_KEY_SECONDS)
        return _login_page(is_wrong=True)

    async def _feedback(self, scope: Message, headers: Headers, receive: Receive) -> Reply:
        may = self.guard.lets_in(scope, headers) or (self._is_tenant is not None and self._is_tenant(headers))
        self._check(is_in=may)
        if headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
            raise RefusedError(415, "feedback is JSON: content-type: application/json")
        if self.seen.journal is None:
            raise RefusedError(
                409, "this gateway keeps no journal, and so no outcomes: start it with a journal's folder"
            )
        outcomes = _outcomes(await _body(receive, MAX_FEEDBACK))
        if unknown := self.seen.unknown([name for name, _ in outcomes]):
            shown = ", ".join(one_line(name[:40]) for name in unknown[:SHOWN]) + (", …" if len(unknown) > SHOWN else "")
            raise RefusedError(404, f"nothing was kept: {len(unknown)} ids are of no request of this gateway ({shown})")
        try:
            await self.seen.feed(outcomes)
        except (FileError, OSError):
            raise RefusedError(503, "the journal cannot be written now: try again later") from None
        return Reply(200, JSON, to_json({"kept": len(outcomes)}).encode())

    async def _stream(self, scope: Message, headers: Headers, receive: Receive, send: Send) -> None:
        self._check(is_in=self.guard.lets_in(scope, headers))
        if self.events.is_full:
            raise RefusedError(503, "too many are looking at this page: try again later")
        more = [*SAFE.items(), ("content-type", "text/event-stream"), ("x-accel-buffering", "no")]
        await send({"type": "http.response.start", "status": 200, "headers": _encoded(more)})
        await self.events.stream(receive, send)


GET, POST = ("GET", "HEAD"), ("POST",)
ROUTES = {
    "/health": GET,
    "/metrics": GET,
    f"{HERE}/": GET,
    f"{HERE}/state": GET,
    f"{HERE}/events": ("GET",),
    f"{HERE}/openapi.json": GET,
    f"{HERE}/login": POST,
    f"{HERE}/logout": POST,
    f"{HERE}/feedback": POST,
}


def _outcomes(content: bytes) -> Sequence[tuple[str, bool]]:
    """`(id, right)` of a body: an object, or a list of them."""
    form = 'feedback is {"id": "…", "right": true}, or a list of these'
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        raise RefusedError(400, f"this is no JSON; {form}") from None
    rows = found if isinstance(found, list) else [found]
    if len(rows) > MOST_OUTCOMES:
        raise RefusedError(413, f"{len(rows):,} outcomes at once are more than {MOST_OUTCOMES:,}")
    for number, row in enumerate(rows, 1):
        is_known = isinstance(row, dict) and set(row) == {"id", "right"}
        if not (is_known and isinstance(row["id"], str) and isinstance(row["right"], bool)):
            raise RefusedError(400, f"{form}; number {number} is something else")
    return [(row["id"], row["right"]) for row in rows]


async def _body(receive: Receive, most: int) -> bytes:
    """The body of a request of at most so many bytes, that comes soon enough."""

    async def read() -> bytes:
        content = bytearray()
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise RefusedError(400, "the request broke off")
            content += message.get("body", b"")
            if len(content) > most:
                raise RefusedError(413, f"a body of more than {most:,} bytes is not taken here")
            if not message.get("more_body", False):
                return bytes(content)

    try:
        return await asyncio.wait_for(read(), READ_SECONDS)
    except TimeoutError:
        raise RefusedError(408, "the request did not come to its end") from None


def _problem(status: int, problem: str, *more: tuple[str, str]) -> Reply:
    kind = (
        "authentication_error" if status in (401, 403) else "invalid_request_error" if status < 500 else "server_error"
    )
    content = to_json({"error": {"message": problem, "type": kind, "code": status}})
    asking = (("www-authenticate", "Bearer"),) if status == 401 else ()
    return Reply(status, JSON, content.encode(), (*more, *asking))


def _login_page(*, is_wrong: bool) -> Reply:
    page = _static_page("login")
    content = page.content.replace(b'role="alert" hidden', b'role="alert"') if is_wrong else page.content
    return Reply(401, page.kind, content, page.more)


@cache
def _document() -> Reply:
    return Reply(200, JSON, to_json(document()).encode())


@cache
def _static_page(name: str) -> Reply:
    """A page of ours: style and script are in it, and nothing else may be loaded or run."""
    style = base_style({"#5f5f5f", *COLOURS.values()}) + _read("page.css")
    script = _read(f"{name}.js") if name == "page" else ""
    policy = [
        "default-src 'none'",
        f"style-src '{_hash(style)}'",
        *([f"script-src '{_hash(script)}'"] if script else []),
        "connect-src 'self'",
        "form-action 'self'",
        "img-src data:",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ]
    content = _read(f"{name}.html").replace("/*style*/", style).replace("/*script*/", script)
    return Reply(200, HTML, content.encode(), (("content-security-policy", "; ".join(policy)),))


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _read(name: str) -> str:
    return (resources.files(__package__ or "") / "html_page" / name).read_text("utf-8")


async def _answer(reply: Reply, send: Send, *, is_head: bool) -> None:
    headers = [*SAFE.items(), ("content-type", reply.kind), ("content-length", str(len(reply.content))), *reply.more]
    await send({"type": "http.response.start", "status": reply.status, "headers": _encoded(headers)})
    await send({"type": "http.response.body", "body": b"" if is_head else reply.content, "more_body": False})


def _encoded(headers: Sequence[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
