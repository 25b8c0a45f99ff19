"""A small HTTP server on loopback whose every answer a test decides: also half answers, none, and broken ones."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Asked:
    """One request as it came in."""

    method: str
    path: str
    headers: Mapping[str, str]
    content: bytes

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.content) if self.content else {}


@dataclass(slots=True)
class Reply:
    """What to send back.

    Attributes:
        body: an object (sent as JSON) or raw bytes.
        status, headers: of the answer.
        events: a stream of server-sent events instead of a body; strings are sent as they are, the rest as JSON.
        delay: seconds before anything is sent.
        cut: close the connection after so many bytes of the whole answer.
    """

    body: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    events: list[Any] | None = None
    delay: float = 0.0
    cut: int | None = None

    def encoded(self) -> bytes:
        if self.events is not None:
            content = b"".join(
                b"data: " + (event.encode() if isinstance(event, str) else json.dumps(event).encode()) + b"\n\n"
                for event in self.events
            )
            kind = "text/event-stream"
        else:
            content = self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
            kind = "application/json"
        head = [f"HTTP/1.1 {self.status} .", f"Content-Type: {kind}", f"Content-Length: {len(content)}"]
        head += [f"{name}: {value}" for name, value in self.headers.items()]
        return "\r\n".join(head).encode() + b"\r\n\r\n" + content


Handler = Callable[[Asked], Reply | Awaitable[Reply]]


class _Connection(asyncio.Protocol):
    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.received = bytearray()
        self.tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def connection_lost(self, error: Exception | None) -> None:
        for task in self.tasks:
            task.cancel()

    def data_received(self, data: bytes) -> None:
        self.received += data
        while (asked := self._next()) is not None:
            reply = self.handler(asked)
            if isinstance(reply, Reply) and not reply.delay:
                self._send(reply)
            else:
                task = asyncio.get_running_loop().create_task(self._later(reply))
                self.tasks.add(task)
                task.add_done_callback(self.tasks.discard)

    def _next(self) -> Asked | None:
        end = self.received.find(b"\r\n\r\n")
        if end < 0:
            return None
        first, *lines = bytes(self.received[:end]).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        size = int(headers.get("content-length", 0))
        if len(self.received) < end + 4 + size:
            return None
        content = bytes(self.received[end + 4 : end + 4 + size])
        del self.received[: end + 4 + size]
        method, path, _ = first.split(" ", 2)
        return Asked(method, path, headers, content)

    async def _later(self, reply: Reply | Awaitable[Reply]) -> None:
        reply = reply if isinstance(reply, Reply) else await reply
        await asyncio.sleep(reply.delay)
        self._send(reply)

    def _send(self, reply: Reply) -> None:
        if self.transport.is_closing():
            return
        content = reply.encoded()
        self.transport.write(content if reply.cut is None else content[: reply.cut])
        if reply.cut is not None:
            self.transport.close()


async def listen(handler: Handler, port: int = 0) -> asyncio.Server:
    """A server on a free port of loopback, in the running loop."""
    return await asyncio.get_running_loop().create_server(lambda: _Connection(handler), "127.0.0.1", port)


@contextmanager
def serving(handler: Handler) -> Iterator[str]:
    """The address of a server that runs in a thread of its own meanwhile."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(listen(handler), loop).result()
    host, port = server.sockets[0].getsockname()
    try:
        yield f"http://{host}:{port}"
    finally:
        asyncio.run_coroutine_threadsafe(_stop(server), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _stop(server: asyncio.Server) -> None:
    server.close()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
