"""HTTP/1.1 to one origin: connections that are kept, replies that are passed on as they come. Sizes and times bounded.

A general client parses, decodes and wraps more than a forwarder needs; docs/gateway.md, "Speed", has what that costs.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Sequence
from urllib.parse import urlsplit

from ...failing import UpstreamError
from .connection import LATE, Connection

Headers = Sequence[tuple[bytes, bytes]]

IDLE_SECONDS = 4.0  # an unused connection is closed then: servers close them after 5 s and more
# Methods that may be sent twice (RFC 9110, 9.2.2): whether a server had begun on what is lost with a kept connection
# cannot be known, and an answer would be generated, and paid, twice.
IDEMPOTENT = (b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE")
CONNECT_SECONDS = 10.0
MOST_IDLE = 256


class Upstream:
    """Sends requests to one origin.

    Args:
        origin: scheme, host and port.
        reply_seconds: longest wait for the head of a reply.
        idle_seconds: longest wait for the next piece of one.
        context: of TLS; None for the system's certificates.
    """

    def __init__(
        self,
        origin: str,
        *,
        reply_seconds: float = 600.0,
        idle_seconds: float = 600.0,
        context: ssl.SSLContext | None = None,
    ) -> None:
        parts = urlsplit(origin)
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._context = (context or ssl.create_default_context()) if parts.scheme == "https" else None
        self.authority = parts.netloc.encode("idna")
        self.reply_seconds = reply_seconds
        self.idle_seconds = idle_seconds
        self._idle: deque[Connection] = deque()
        self._busy: set[Connection] = set()

    async def open(
        self,
        exchange: Exchange,
        method: bytes,
        target: bytes,
        headers: Headers,
        body: bytes | None,
        length: int | None = None,
    ) -> Connection:
        """Sends a request and, where its body is at hand, waits for the head of the reply.

        Args:
            exchange: ends it when the client leaves.
            method: of the request line.
            target: of the request line, query included.
            headers: without Host, Content-Length and Transfer-Encoding.
            body: all of it; b"" for none; None where it follows, by `Connection.write`.
            length: of a body that follows, in bytes; None where it is not known.

        Raises:
            UpstreamError: nothing can be connected to, or no reply came.
        """
        lines = [method + b" " + target + b" HTTP/1.1", b"host: " + self.authority]
        lines += [name + b": " + value for name, value in headers]
        if body is None:
            lines.append(b"transfer-encoding: chunked" if length is None else b"content-length: %d" % length)
        elif body or method in (b"POST", b"PUT", b"PATCH"):
            lines.append(b"content-length: %d" % len(body))
        head = b"\r\n".join([*lines, b"", b""])
        if head.count(b"\n") != len(lines) + 1 or head.count(b"\r") != len(lines) + 1 or b"\0" in head:
            raise UpstreamError("a header holds the end of a line", status=400, was_sent=False)
        is_head = method == b"HEAD"
        if body is None:
            connection = await self._connect(exchange)
            connection.begin(head, is_head=is_head, has_rest=True, is_chunked=length is None)
            return connection
        if (kept := self._kept()) is not None:
            exchange.connection = kept
            kept.begin(head + body, is_head=is_head)
            try:
                await kept.head(self.reply_seconds)
                return kept
            except UpstreamError as error:
                if method not in IDEMPOTENT or exchange.is_gone or error.status == LATE:
                    raise
        connection = await self._connect(exchange)
        connection.begin(head + body, is_head=is_head)
        await connection.head(self.reply_seconds)
        return connection

    def _kept(self) -> Connection | None:
        now = time.monotonic()
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open and now - connection.idle_since < IDLE_SECONDS and not connection.has_news:
                self._busy.add(connection)
                return connection
            connection.close()
        return None

    async def _connect(self, exchange: Exchange) -> Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, connection = await loop.create_connection(
                    lambda: Connection(self), self._host, self._port, ssl=self._context
                )
        except TimeoutError:
            raise UpstreamError("the server behind the gateway takes no connection", was_sent=False) from None
        except OSError as error:
            reason = f"the server behind the gateway cannot be reached ({type(error).__name__})"
            raise UpstreamError(reason, was_sent=False) from None
        self._busy.add(connection)
        exchange.connection = connection
        if exchange.is_gone:
            connection.close()
            raise UpstreamError("the client has left", was_sent=False)
        return connection

    def give_back(self, connection: Connection) -> None:
        """Keeps a connection whose reply is complete."""
        self._busy.discard(connection)
        while self._idle and time.monotonic() - self._idle[0].idle_since >= IDLE_SECONDS:
            self._idle.popleft().close()
        if len(self._idle) < MOST_IDLE and connection.is_open:
            connection.idle_since = time.monotonic()
            self._idle.append(connection)
        else:
            connection.close()

    def forget(self, connection: Connection) -> None:
        """Drops a connection that is closed."""
        self._busy.discard(connection)

    def close(self) -> None:
        """Closes all connections."""
        for connection in (*self._idle, *self._busy):
            connection.close()
        self._idle.clear()


class Exchange:
    """One request on its way: whoever sees its client leave ends it.

    Attributes:
        connection: that it goes over.
        is_gone: the client has left.
    """

    __slots__ = ("connection", "is_gone")

    def __init__(self) -> None:
        self.connection: Connection | None = None
        self.is_gone = False

    def leave(self) -> None:
        """The client has left: the server sees it at once."""
        self.is_gone = True
        if self.connection is not None:
            self.connection.close()
