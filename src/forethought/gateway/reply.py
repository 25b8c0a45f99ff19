"""A reply on its way to the client: counted, given its headers, and begun only when its reservation is safe."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping

from ..servers.reading import UnreadableError, inflater
from .asgi import Message, Send
from .counting import MOST_KEPT, Tally
from .used import CLIENT_LEFT, DONE, REFUSED_UPSTREAM, REFUSING, UPSTREAM_FAILED, Used

PREFIX = b"x-forethought-"
MOST_INFLATED = 2 * MOST_KEPT  # bytes of a packed reply that are read: a few packed ones can be gigabytes


class Reply:
    """One reply.

    Args:
        send: to the client.
        headers: to add.
        drops_usage: the usage of a stream was asked for here, and is taken out.
        safe: awaited before the first byte goes out; None for nothing.

    Attributes:
        has_begun: its head is out.
        is_done: all of it is.
        status: of it; 0 before it is known.
    """

    def __init__(
        self,
        send: Send,
        headers: Mapping[str, str],
        *,
        drops_usage: bool = False,
        safe: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._send = send
        self._headers = [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
        self._drops_usage = drops_usage
        self._safe = safe
        self._tally: Tally | None = None
        self._inflate: Callable[[bytes], Iterator[bytes]] | None = None  # of a packed reply
        self._num_inflated = 0
        self._used: Used | None = None  # of a whole reply, once it is complete
        self._start: Message | None = None
        self._held = bytearray()
        self._is_holding = False
        self.has_begun = self.is_done = False
        self.status = 0

    async def send(self, message: Message) -> None:
        """Takes what the server sends."""
        if message["type"] == "http.response.start":
            await self._begin(message)
        elif message["type"] == "http.response.body":
            await self._pass(bytes(message.get("body", b"")), is_last=not message.get("more_body", False))
        else:
            await self._send(message)

    def used(self, ending: str) -> Used:
        """What was used, of a reply that ended so."""
        if self._tally is None:
            nothing = 0 if ending == REFUSED_UPSTREAM or (ending == DONE and self.status >= REFUSING) else None
            ending = REFUSED_UPSTREAM if nothing == 0 else ending
            return Used(nothing, nothing, nothing, self.status, ending)
        return self._used if self._used is not None and ending == DONE else self._tally.used(self.status, ending)

    def ending(self, *, has_left: bool, was_sent: bool) -> str:
        """How it ended: as `Used.ending`."""
        if self.is_done:
            return DONE
        if has_left:
            return CLIENT_LEFT
        return UPSTREAM_FAILED if was_sent else REFUSED_UPSTREAM

    async def _begin(self, message: Message) -> None:
        self.status = int(message["status"])
        own = {name for name, _ in self._headers}
        headers = [(bytes(name).lower(), bytes(value)) for name, value in message.get("headers", ())]
        headers = [pair for pair in headers if pair[0] not in own]
        found = dict(headers)
        encoding = found.get(b"content-encoding", b"").decode("latin-1").lower()
        kind = found.get(b"content-type", b"").lower()
        is_stream = kind.startswith(b"text/event-stream")
        if self.status < REFUSING and (is_stream or b"json" in kind) and self._can_read(encoding):
            drops = self._drops_usage and is_stream and self._inflate is None
            self._tally = Tally(is_stream=is_stream, drops_usage=drops)
            if drops:
                headers = [pair for pair in headers if pair[0] != b"content-length"]
        self._start = {**message, "headers": [*headers, *self._headers]}
        # The number of tokens that a whole reply used goes into its headers, which therefore wait for its end.
        self._is_holding = self._tally is not None and not is_stream
        if self._safe is not None:
            await self._safe()
        if not self._is_holding:
            await self._open()

    def _can_read(self, encoding: str) -> bool:
        """Gets ready to read a reply that is packed so, which was not asked for; False where it is not known how."""
        if encoding not in ("", "identity"):
            try:
                self._inflate = inflater(encoding)
            except UnreadableError:
                return False
        return True

    def _read_packed(self, piece: bytes, *, is_last: bool) -> None:
        """Counts what is in a piece; the client gets it as it is."""
        assert self._tally is not None
        assert self._inflate is not None
        try:
            for part in self._inflate(piece):
                self._num_inflated += len(part)
                if self._num_inflated > MOST_INFLATED:
                    raise ValueError("it is too long")
                self._tally.feed(part)
        except ValueError:
            self._inflate = lambda _: iter(())
        if is_last:
            self._tally.rest()

    async def _open(self) -> None:
        assert self._start is not None
        self.has_begun = True
        await self._send(self._start)

    async def _pass(self, piece: bytes, *, is_last: bool) -> None:
        if self._inflate is not None:
            self._read_packed(piece, is_last=is_last)
        elif self._tally is not None:
            piece = self._tally.feed(piece)
            if is_last:
                piece += self._tally.rest()
        if self._is_holding:
            self._held += piece
            if not is_last and len(self._held) <= MOST_KEPT:
                return
            self._is_holding = False
            piece = bytes(self._held)
            self._held.clear()
            assert self._tally is not None
            assert self._start is not None
            used = self._tally.used(self.status, DONE)
            self._used = used if is_last else None
            if is_last and used.output_tokens is not None and self._headers:
                self._start["headers"].append((PREFIX + b"used", str(used.output_tokens).encode()))
            await self._open()
        if piece or is_last:
            self.is_done = is_last
            await self._send({"type": "http.response.body", "body": piece, "more_body": not is_last})
