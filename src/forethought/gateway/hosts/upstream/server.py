"""The HTTP server in front: uvicorn, with bounds on what clients send and on how long they take, and a slow end."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import socket
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

HEADER_BYTES = 64 << 10  # of a request, its first line and all; of trailers too
HEADER_SECONDS = 20.0  # in which they have to come
LINGER_SECONDS = 1.0  # in which a client that was refused can read why
WRITE_SECONDS = 120.0  # in which a client has to take what is sent
KEPT_SECONDS = 75  # that a connection without a request stays open
MOST_CONNECTIONS = 8192
CUT_SECONDS = 5.0  # that replies which were cut short have to be settled
# Clients that would like HTTP/2 ask for it in this header (Java's does by default). A server may ignore it (RFC 9110,
# 7.8); the parser would take it to end HTTP there, and the body to be of another protocol.
UPGRADE = re.compile(rb"\r?\nupgrade[ \t]*:[^\r\n]*", re.IGNORECASE)


class HttpProtocol(HttpToolsProtocol):
    """One connection of a client, with its bounds."""

    def __init__(self, *args: Any, **how: Any) -> None:
        super().__init__(*args, **how)
        self._num_bytes = 0
        self._torn = b""  # the last line of a head of which more is to come: it may be cut within `Upgrade:`
        self._is_in_head = self._is_in_body = self._is_refused = False
        self._length: int | None = None  # bytes of the body that are still to come; None where it comes in chunks
        self._timer: asyncio.TimerHandle | None = None
        self._slow: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """See asyncio.Protocol."""
        super().connection_made(transport)
        self._wait(HEADER_SECONDS, self._late)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._stop()
        if self._slow is not None:
            self._slow.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        while data and not self._is_refused:  # what then still comes is dropped, so that the client gets to read why
            if self._is_in_body:
                at = self._end_of_body(data)
                piece, data = data[:at], data[at:]
                self._num_bytes += len(piece)  # since the last of the body itself: of trailers
            else:
                piece, data = self._head_in(data)
            super().data_received(piece)
            if self._is_in_head:
                self._num_bytes += len(piece)
            if self._is_in_head or self._is_in_body or self._torn:
                self._bound(self._num_bytes + len(self._torn))
        if self._timer is None and self._is_answered:  # of a request that was not waited for, and ends some time
            self._wait(HEADER_SECONDS, self.timeout_keep_alive_handler)

    def _head_in(self, data: bytes) -> tuple[bytes, bytes]:
        """`(a head without `Upgrade:`, or as many whole lines of it as have come; what comes behind it)`."""
        head, end, rest = (self._torn + data).partition(b"\r\n\r\n")
        at = len(head) if end or b"\r\n" not in head else head.rindex(b"\r\n")
        head, self._torn = head[:at], head[at:]
        if b"\nupgrade" in head.lower():
            head = UPGRADE.sub(b"", head)
        return head + end, rest

    def _end_of_body(self, data: bytes) -> int:
        """How many bytes may go to the parser before a body can have ended, and another head can begin."""
        if self._length is not None:
            return self._length
        if torn := len(data) - len(data.lstrip(b"\r\n")):  # of an empty line whose beginning has come before
            return torn
        at = data.find(b"\r\n\r\n")
        return len(data) if at < 0 else at + 4

    def on_message_begin(self) -> None:
        """See httptools."""
        super().on_message_begin()
        self._is_in_head = True
        self._num_bytes = 0
        self._wait(HEADER_SECONDS, self._late)

    def on_headers_complete(self) -> None:
        """See httptools."""
        self._is_in_head, self._is_in_body = False, True
        self._num_bytes = 0
        self._length = next((int(value) for name, value in self.headers if name == b"content-length"), None)
        self._stop()
        if not self._bound(len(self.url) + sum([len(name) + len(value) + 4 for name, value in self.headers])):
            raise ValueError("a head that is too long")  # ends the parser; uvicorn calls `send_400_response`
        if any(name == b"transfer-encoding" and value.lower() != b"chunked" for name, value in self.headers):
            raise ValueError("a body whose end nobody knows")  # the parser says so later, when the request has begun
        super().on_headers_complete()
        if self.parser.get_http_version() == "1.0" and self.cycle is not None:
            self.cycle.send = _until_closed(self.cycle)  # type: ignore[assignment, method-assign]

    def on_header(self, name: bytes, value: bytes) -> None:
        """See httptools."""
        if self._is_in_head:  # else it is a trailer, which may say nothing that a header says: whose request it is
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        """See httptools."""
        self._num_bytes = 0
        if self._length is not None:
            self._length -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """See httptools."""
        self._is_in_body = False
        super().on_message_complete()
        if self._is_answered:
            self._wait(KEPT_SECONDS, self.timeout_keep_alive_handler)

    def send_400_response(self, msg: str) -> None:
        """See uvicorn: what came is no HTTP."""
        self._refuse(b"400 Bad Request", b"this is no HTTP request", b"invalid_request")

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        super().pause_writing()
        self._slow = self._slow or self.loop.call_later(WRITE_SECONDS, self._abort)

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        super().resume_writing()
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None

    @property
    def _is_answered(self) -> bool:
        """Whether the last request got all of its reply."""
        return self.cycle is not None and self.cycle.response_complete

    def _bound(self, num_bytes: int) -> bool:
        """Whether a head is short enough; refuses it otherwise."""
        if num_bytes > HEADER_BYTES:
            self._refuse(b"431 Request Header Fields Too Large", b"the headers are too long", b"too_large")
        return num_bytes <= HEADER_BYTES

    def _wait(self, seconds: float, late: Callable[[], None]) -> None:
        self._stop()
        self._timer = self.loop.call_later(seconds, late)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        self._refuse(b"408 Request Timeout", b"the request did not come in time", b"timeout")

    def _refuse(self, status: bytes, reason: bytes, code: bytes) -> None:
        if self._is_refused or self.transport.is_closing():
            return
        self._is_refused = True
        busy = self.cycle is not None and not self.cycle.response_complete
        if not busy:  # else the words would stand in the middle of another reply
            body = b'{"error": {"message": "%b", "type": "invalid_request_error", "code": "%b"}}' % (reason, code)
            head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
            self.transport.write(head % (status, len(body)) + body)
            if self.transport.can_write_eof():
                self.transport.write_eof()
        self.loop.call_later(LINGER_SECONDS, self.transport.close)

    def _abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()


def _until_closed(cycle: RequestResponseCycle) -> Callable[[Any], Coroutine[Any, Any, None]]:
    """Sends a reply to a client of HTTP/1.0, which knows no chunks: its end is that of the connection."""
    send, has_length = cycle.send, False

    async def sent(message: Any) -> None:
        nonlocal has_length
        if message["type"] == "http.response.start":
            has_length = any(bytes(name).lower() == b"content-length" for name, _ in message.get("headers", ()))
            if not has_length:
                cycle.chunked_encoding = False
        elif not has_length:
            cycle.expected_content_length = len(message.get("body", b""))
        await send(message)

    return sent


class Server(uvicorn.Server):
    """Ends on SIGTERM: takes no new requests, lets those that run finish for a while.

    Args:
        app: plain ASGI.
        drain_seconds: longest wait for what runs.
        num_running: of requests.
        drain: told when the end begins; from then on the app refuses.

    Attributes:
        stopping: set when the end begins.
    """

    def __init__(
        self,
        app: Any,
        *,
        drain_seconds: float,
        num_running: Callable[[], int],
        drain: Callable[[], None],
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=HttpProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="critical",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                date_header=False,
                timeout_keep_alive=KEPT_SECONDS,
                timeout_graceful_shutdown=1,
                limit_concurrency=MOST_CONNECTIONS,
                backlog=2048,
            )
        )
        self._drain_seconds = drain_seconds
        self._num_running = num_running
        self._drain = drain
        self._draining: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.stopping = asyncio.Event()
        self._is_up = asyncio.Event()
        self._is_stopped = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn.Server."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self._is_up.set()

    async def up(self, serving: asyncio.Future[None]) -> None:
        """Returns when it listens, or when `serving` has failed."""
        up = asyncio.ensure_future(self._is_up.wait())
        await asyncio.wait((up, serving), return_when=asyncio.FIRST_COMPLETED)
        up.cancel()

    async def stopped(self) -> None:
        """Returns when it has ended."""
        await self._is_stopped.wait()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal begins the end; a second one does not wait."""
        self._drain()
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self.stopping.set)
        if self._draining is not None or self._loop is None or sig == signal.SIGINT:
            self.should_exit = True
        else:
            self._loop.call_soon_threadsafe(self._begin_drain)

    def _begin_drain(self) -> None:
        self._draining = asyncio.ensure_future(self._end())

    async def _end(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._drain_seconds):
                while self._num_running():
                    await asyncio.sleep(0.05)
        self.should_exit = True

    async def run_until_stopped(self, listening: socket.socket) -> None:
        """Serves on a socket; returns when all has ended, and what was cut short has had time to be settled."""
        try:
            await self.serve([listening])
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CUT_SECONDS):
                    while self._num_running():
                        await asyncio.sleep(0.02)
        finally:
            self._is_stopped.set()
