"""Passes requests on to the one server, and its replies back: as they are, as they come."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection
from contextlib import suppress
from typing import Any
from urllib.parse import unquote_to_bytes

from ....servers import reading
from ....servers.address import LEAST_KEY, Address, Key
from ...asgi import Message, Receive, Send, left
from ...failing import RefusedError, UpstreamError
from ...pipeline import KEYLESS
from .client import Exchange, Upstream
from .connection import Connection
from .headers import CREDENTIALS, back, key_headers, onward

MOST_REQUEST_BYTES = 64 << 20
TOO_LARGE = f"the request's body is longer than {MOST_REQUEST_BYTES >> 20} MiB"
ERROR_BYTES = 1 << 20  # of an error's body, which is read whole, to be sure that it shows no key
BROKEN = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")  # in a header's value
METHOD = re.compile(r"[A-Z]{1,32}")


class Forward:
    """Plain ASGI: every path and method goes to the same server.

    What goes wrong is raised, before the reply has begun or in the middle of it; `Pipeline` says it to the client.

    Args:
        upstream: the connections.
        address: of the server; its path is what `/v1` of a request becomes.
        key: the operator's, for the server; None to pass the client's on.
        kind: of the server.
        private: names of headers, in lower case, that hold a tenant's credentials and stay here.
    """

    def __init__(
        self,
        upstream: Upstream,
        address: Address,
        *,
        key: Key | None = None,
        kind: str = "other",
        private: Collection[bytes] = (),
    ) -> None:
        self.upstream = upstream
        self._api = address.path.encode()
        self._root = self._api.removesuffix(b"/v1") if self._api.endswith(b"/v1") else b""
        self._key = key
        self._added = [] if key is None else key_headers(key, kind)
        secret = b"" if key is None else self._added[0][1].removeprefix(b"Bearer ")
        self._secret = secret if len(secret) >= LEAST_KEY else None  # "none" is no secret, and stands in many an answer
        self._dropped = frozenset(private) | (CREDENTIALS if key is not None else frozenset())

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request; raises UpstreamError and RefusedError."""
        method, target = self._line(scope)
        headers = onward(scope["headers"], self._dropped) + ([] if scope.get(KEYLESS) else self._added)
        first = await receive()
        if first["type"] != "http.request":
            return
        is_whole = not first.get("more_body", False)
        length = _length(scope)
        if (length or 0) > MOST_REQUEST_BYTES:
            raise RefusedError(413, TOO_LARGE, "too_large")
        exchange = Exchange()
        feed: asyncio.Task[None] | None = None
        try:
            if is_whole:  # whoever waits for the reply is told by this when the client leaves
                feed = asyncio.create_task(_watch(receive, exchange))
                body = first.get("body", b"")
                connection = await self.upstream.open(exchange, method, target, headers, body)
            else:
                connection = await self.upstream.open(exchange, method, target, headers, None, length)
                feed = asyncio.create_task(_feed(first, receive, exchange))
                await connection.head(self.upstream.reply_seconds)
            await self._reply(connection, send)
        except UpstreamError:
            if feed is not None and feed.done() and not feed.cancelled() and (error := feed.exception()) is not None:
                raise error from None
            if not exchange.is_gone:
                raise
        finally:
            if feed is not None:
                feed.cancel()
                with suppress(asyncio.CancelledError, RefusedError, UpstreamError):
                    if feed.done():
                        feed.result()
            if exchange.connection is not None:
                exchange.connection.done()

    def _line(self, scope: Message) -> tuple[bytes, bytes]:
        """`(method, target)` for the server."""
        method = str(scope["method"])
        path = bytes(scope.get("raw_path") or str(scope["path"]).encode())
        path = path.partition(b"?")[0]
        plain = unquote_to_bytes(path)
        if not METHOD.fullmatch(method) or method == "CONNECT":
            raise RefusedError(405, "this method is not passed on")
        if not path.startswith(b"/") or b".." in re.split(rb"[/\\;]", plain) or any(byte <= 32 for byte in path):
            raise RefusedError(400, "this path is not passed on")
        is_api = path == b"/v1" or path.startswith(b"/v1/")
        target = self._api + path[3:] if is_api else self._root + path
        query = bytes(scope.get("query_string", b""))
        return method.encode(), (target or b"/") + (b"?" + query if query else b"")

    async def _reply(self, connection: Connection, send: Send) -> None:
        status, headers = connection.status, back(connection.headers)
        codings = {value.strip().lower() for name, value in connection.headers if name == b"transfer-encoding"}
        if not 200 <= status <= 599 or codings - {b"chunked"} or any(BROKEN.search(value) for _, value in headers):
            raise UpstreamError("the server behind the gateway sent a reply that no HTTP has")
        if status in (204, 304):  # some say the length of what they leave out
            headers = [pair for pair in headers if pair[0] != b"content-length"]
        seconds = self.upstream.idle_seconds
        if self._key is not None and status >= 400:
            await self._error(connection, send, headers)
            return
        if self._secret is not None and any(self._secret in value for _, value in headers):
            raise UpstreamError("the server behind the gateway repeats a key")
        await send({"type": "http.response.start", "status": status, "headers": headers})
        tail = b""
        while piece := await connection.read(seconds):
            if self._secret is not None:
                if self._secret in (seen := tail + piece):
                    raise UpstreamError("the server behind the gateway repeats a key")
                tail = seen[1 - len(self._secret) :]
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _error(self, connection: Connection, send: Send, headers: list[tuple[bytes, bytes]]) -> None:
        """An error of the server, as it is where it shows no key; with the key hidden where it does."""
        assert self._key is not None
        content = bytearray()
        while piece := await connection.read(self.upstream.idle_seconds):
            content += piece
            if len(content) > ERROR_BYTES:
                raise UpstreamError("the server behind the gateway answers with an error of more than 1 MiB")
        found = bytes(content)
        encoding = b"".join(value for name, value in headers if name == b"content-encoding").decode("latin-1")
        shown = await _inflated(found, encoding)
        if shown is None:
            raise UpstreamError("the server behind the gateway answers with an error that cannot be read")
        text = shown.decode("latin-1")
        hidden = self._key.hide(text)
        if hidden != text:
            found = hidden.encode("latin-1")
            own = (b"content-length", b"content-encoding")
            headers = [(name, value) for name, value in headers if name not in own]
            headers.append((b"content-length", str(len(found)).encode()))
        headers = [(name, self._key.hide(value.decode("latin-1")).encode("latin-1")) for name, value in headers]
        await send({"type": "http.response.start", "status": connection.status, "headers": headers})
        await send({"type": "http.response.body", "body": found, "more_body": False})


async def _inflated(content: bytes, encoding: str) -> bytes | None:
    """The plain bytes; None where they are packed in a way that is not known."""
    if not encoding or not content:
        return content

    class Whole:
        async def iter_chunked(self, n: int) -> Any:
            yield content

    try:
        return await reading.body(Whole(), encoding, most=8 * ERROR_BYTES)
    except ValueError:
        return None


async def _watch(receive: Receive, exchange: Exchange) -> None:
    """Ends the exchange when the client leaves."""
    await left(receive)
    exchange.leave()


async def _feed(message: Message, receive: Receive, exchange: Exchange) -> None:
    """Sends the rest of a body as it comes, then watches."""
    num_bytes = 0
    connection = exchange.connection
    assert connection is not None
    while True:
        if message["type"] == "http.disconnect":
            exchange.leave()
            return
        if piece := message.get("body", b""):
            num_bytes += len(piece)
            if num_bytes > MOST_REQUEST_BYTES:
                connection.close()
                raise RefusedError(413, TOO_LARGE, "too_large")
            await connection.write(piece)
        if not message.get("more_body", False):
            await connection.write(b"")
            break
        try:
            message = await receive()
        except RefusedError:  # the rest does not come in time
            connection.close()
            raise
    await _watch(receive, exchange)


def _length(scope: Message) -> int | None:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value[:12])
    return None
