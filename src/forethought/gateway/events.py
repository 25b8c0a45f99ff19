"""Server-sent events: what goes on, once a second, to everybody who looks, as long as they take it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from ..core.visible import to_json
from .asgi import Receive, Send, left

SECOND = 1.0
BEAT_SECONDS = 10.0  # of silence, after which a line says that the connection lives
SLOW_SECONDS = 20.0  # in which a client must take what was sent
MOST_WATCHING = 32
LONGEST_SECONDS = 3600.0  # of one stream: the browser comes again by itself, and shows its key again


class Events:
    """One snapshot for all who look.

    Args:
        snapshot: what goes on, JSON-able, with the second under "now".

    Attributes:
        num_watching: streams that are open.
    """

    def __init__(self, snapshot: Callable[[], Mapping[str, Any]]) -> None:
        self._snapshot = snapshot
        self.num_watching = 0
        self._made = -SECOND
        self._number, self._rest, self._content = 0, "", b""
        self._is_closing = asyncio.Event()

    @property
    def is_full(self) -> bool:
        """Whether nobody else can look."""
        return self.num_watching >= MOST_WATCHING or self._is_closing.is_set()

    def close(self) -> None:
        """Ends all streams: a server that stops waits for them."""
        self._is_closing.set()

    async def stream(self, receive: Receive, send: Send) -> None:
        """Sends until the client goes away, does not take it, or the server stops. The head has been sent before."""
        self.num_watching += 1
        gone = asyncio.ensure_future(left(receive))
        closing = asyncio.ensure_future(self._is_closing.wait())
        try:
            with suppress(TimeoutError, OSError):
                await self._send_on(send, gone, closing)
        finally:
            self.num_watching -= 1
            for task in (gone, closing):
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    async def _send_on(self, send: Send, gone: asyncio.Future[None], closing: asyncio.Future[Any]) -> None:
        begun = said = time.monotonic()
        await _sent(send, b"retry: 2000\n\n")
        known = 0
        while time.monotonic() < begun + LONGEST_SECONDS:
            number, content = self._latest()
            if number != known:
                await _sent(send, content)
                known, said = number, time.monotonic()
            elif time.monotonic() >= said + BEAT_SECONDS:
                await _sent(send, b"event: beat\ndata: {}\n\n")
                said = time.monotonic()
            await asyncio.wait((gone, closing), timeout=SECOND, return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                return
            if closing.done():
                break
        await asyncio.wait_for(send({"type": "http.response.body", "body": b"", "more_body": False}), SLOW_SECONDS)

    def _latest(self) -> tuple[int, bytes]:
        """`(its number, the newest event)`: made anew at most once a second, with a new number where it differs."""
        now = time.monotonic()
        if now >= self._made + 0.9 * SECOND:
            found = dict(self._snapshot())
            rest = to_json({name: value for name, value in found.items() if name != "now"})
            if rest != self._rest:
                self._number, self._rest = self._number + 1, rest
                self._content = f"data: {to_json(found)}\n\n".encode()
            self._made = now
        return self._number, self._content


async def _sent(send: Send, content: bytes) -> None:
    message = {"type": "http.response.body", "body": content, "more_body": True}
    await asyncio.wait_for(send(message), SLOW_SECONDS)
