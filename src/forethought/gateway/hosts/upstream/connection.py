"""One connection to the server behind the gateway, and the reply that comes over it, with bounds on all that comes."""

from __future__ import annotations

import asyncio
import select
from typing import TYPE_CHECKING, Any

import httptools

from ...failing import UpstreamError

if TYPE_CHECKING:
    from .client import Upstream

BARE_BYTES = 64 << 10  # of a reply without any of its body: of its head, or of trailers
HIGH_WATER = 256 << 10  # bytes of a reply that wait to be passed on
LATE = 504  # the status for the client where something does not come in time


class Connection(asyncio.Protocol):
    """One connection, and the reply that comes over it.

    Attributes:
        status: of the reply.
        headers: of it, names in lower case.
        num_bytes: that came of it.
        num_bare: those since the last of its body.
        idle_since: when its last reply was complete.
    """

    def __init__(self, pool: Upstream) -> None:
        self._pool = pool
        self._transport: Any = None
        self._parser: Any = None
        self._waiter: asyncio.Future[None] | None = None
        self._can_write: asyncio.Future[None] | None = None
        self._is_write_paused = False
        self.is_open = False
        self.idle_since = 0.0
        self._reset(is_head=False)
        self._is_complete = True

    def _reset(self, *, is_head: bool) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.num_bytes = self.num_bare = 0
        self._pieces: list[bytes] = []
        self._num_waiting = 0
        self._is_head = is_head
        self._has_head = self._is_complete = self._is_paused = False
        self._is_until_close = self._is_chunked = self._can_keep = False
        self._is_sent = True
        self._error: UpstreamError | None = None

    # ------------------------------------------------------------------ what the forwarder calls

    @property
    def has_news(self) -> bool:
        """Whether something came that nobody asked for, its end too, and the loop has not seen yet."""
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def begin(self, content: bytes, *, is_head: bool, has_rest: bool = False, is_chunked: bool = False) -> None:
        """Sends a request's head, and its body where it is at hand."""
        self._reset(is_head=is_head)
        self._is_sent, self._is_chunked = not has_rest, is_chunked
        self._parser = httptools.HttpResponseParser(self)
        self._transport.write(content)

    async def write(self, piece: bytes) -> None:
        """Sends a piece of a body that follows; b"" ends it."""
        if self.is_open and not self._is_complete:
            self._is_sent = not piece
            self._transport.write(b"%x\r\n%b\r\n" % (len(piece), piece) if self._is_chunked else piece)
            if self._is_write_paused:
                self._can_write = asyncio.get_running_loop().create_future()
                await self._can_write

    async def head(self, seconds: float) -> None:
        """Waits until status and headers are there; raises UpstreamError."""
        while not self._has_head:
            await self._wait(seconds, "sent no reply")

    async def read(self, seconds: float) -> bytes:
        """The bytes of the body that have come since; waits for some, and is b"" at its end; raises UpstreamError."""
        while not self._pieces:
            if self._is_complete:
                return b""
            await self._wait(seconds, "stopped in the middle of its reply")
        found = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._num_waiting = 0
        if self._is_paused and self.is_open:
            self._is_paused = False
            self._transport.resume_reading()
        return found

    def done(self) -> None:
        """The forwarder needs it no more: it is kept where its reply is complete, else closed."""
        # A reply may come before all of a body was sent. The next request would be taken for the rest of it.
        is_kept = self._is_sent and self._is_complete and not self._pieces and self._error is None
        if is_kept and self.is_open and self._can_keep and not self._is_until_close:
            self._pool.give_back(self)
        else:
            self.close()

    def close(self) -> None:
        """Closes it at once: the server sees its client go away."""
        self.is_open = False
        self._pool.forget(self)
        if self._transport is not None:
            self._transport.abort()
        self._fail("was closed")

    async def _wait(self, seconds: float, what: str) -> None:
        self._raise()
        loop = asyncio.get_running_loop()
        waiter = self._waiter = loop.create_future()
        timer = loop.call_later(seconds, self._late, waiter, what)
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiter = None
        if not self._pieces:
            self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _late(self, waiter: asyncio.Future[None], what: str) -> None:
        self._error = self._error or UpstreamError(f"the server behind the gateway {what} in time", status=LATE)
        if not waiter.done():
            waiter.set_result(None)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, what: str) -> None:
        if not self._is_complete and self._error is None:
            self._error = UpstreamError(f"the server behind the gateway {what}")
        if self._can_write is not None and not self._can_write.done():
            self._can_write.set_result(None)
        self._wake()

    # ------------------------------------------------------------------ what the transport calls

    def connection_made(self, transport: Any) -> None:
        """See asyncio.Protocol."""
        self._transport = transport
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self._is_complete:  # a byte too many: nothing that comes now can be trusted
            self.is_open = False
            self._transport.abort()
            return
        self.num_bytes += len(data)
        self.num_bare += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail("switched to another protocol")
        except httptools.HttpParserError:
            self.is_open = False  # also where the reply itself was whole
            self._fail("sent what is no HTTP")
        if self.num_bare > BARE_BYTES:
            self._fail("sent headers without an end")
        if self._error is not None or not self.is_open:
            self.is_open = False
            self._transport.abort()
        elif self._num_waiting > HIGH_WATER and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self.is_open = False
        self._pool.forget(self)
        if self._has_head and self._is_until_close and exc is None and self._error is None:
            self._is_complete = True
            self._wake()
        self._fail("closed the connection in the middle of its reply" if self.num_bytes else "closed the connection")

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        self._is_write_paused = True

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        self._is_write_paused = False
        if self._can_write is not None and not self._can_write.done():
            self._can_write.set_result(None)

    # ------------------------------------------------------------------ what the parser calls

    @property
    def _is_early(self) -> bool:
        return 100 <= self.status < 200

    def on_header(self, name: bytes, value: bytes) -> None:
        """See httptools."""
        if not self._has_head:  # else it is a trailer, which nobody waits for
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """See httptools."""
        if self._is_complete:  # another reply, that nobody asked for
            self.is_open = False
            return
        self.status = int(self._parser.get_status_code())
        if self._is_early:  # 100 Continue, 103 Early Hints: the reply itself is still to come
            return
        self._has_head = True
        names = {name for name, _ in self.headers}
        is_bare = self.status in (204, 304) or self._is_head
        self._is_until_close = not is_bare and not names & {b"content-length", b"transfer-encoding"}
        if self._is_head:
            self._is_complete = True
        self._wake()

    def on_body(self, body: bytes) -> None:
        """See httptools."""
        if not self._is_complete:
            self._pieces.append(body)
            self._num_waiting += len(body)
            self.num_bare = 0
            self._wake()

    def on_message_complete(self) -> None:
        """See httptools."""
        if self._is_early:
            self.headers = []
            return
        self._can_keep = not self._is_head and bool(self._parser.should_keep_alive())
        self._is_complete = True
        self._wake()
