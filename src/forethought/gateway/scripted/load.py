"""Clients that load a server: at a fixed rate of arrivals, or so many that each ask again once they were answered."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakSet

import httptools
import numpy as np

from ...core.data import FloatArray

MOST_CONNECTIONS = 1000


@dataclass(frozen=True, slots=True)
class Asked:
    """One request to send.

    Attributes:
        body: as it goes out.
        path: of its route, after the server's address.
        headers: beside the ones that every request has.
        leave_after: seconds after which the client goes away; None: it waits for all.
    """

    body: bytes
    path: str = "/chat/completions"
    headers: Mapping[str, str] = field(default_factory=dict)
    leave_after: float | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """What came back.

    Attributes:
        status: 0 where the connection broke or the client left.
        headers: names in lower case.
        content: of the body; b"" where nobody reads it.
        first_byte, last_byte: seconds from when it was due to the first and the last byte of the body.
    """

    status: int
    headers: Mapping[str, str]
    content: bytes
    first_byte: float
    last_byte: float


@dataclass(slots=True)
class LoadResult:
    """What a load met.

    Attributes:
        seconds: from the first request to the last answer.
        status: status -> answers; 0 for those that broke off.
        first_byte_N, last_byte_N: seconds from when each request was due, of the answers with status 200, in order of
            their ends. A request that had to wait for its turn counts from when it was due.
    """

    seconds: float = 0.0
    status: Counter[int] = field(default_factory=Counter)
    first_bytes: list[float] = field(default_factory=list)
    last_bytes: list[float] = field(default_factory=list)

    @property
    def first_byte_N(self) -> FloatArray:
        """See the class."""
        return np.array(self.first_bytes)

    @property
    def last_byte_N(self) -> FloatArray:
        """See the class."""
        return np.array(self.last_bytes)

    def add(self, answered: Answered) -> None:
        """Counts one answer."""
        self.status[answered.status] += 1
        if answered.status == 200:
            self.first_bytes.append(answered.first_byte)
            self.last_bytes.append(answered.last_byte)

    def to_json(self) -> dict[str, Any]:
        """One object: counts, requests a second, and milliseconds at percentiles."""
        shown: dict[str, Any] = {"seconds": self.seconds, "status": {str(key): n for key, n in self.status.items()}}
        shown["requests_per_second"] = self.status.total() / self.seconds if self.seconds else None
        for name, values_N in (("first_byte_ms", self.first_byte_N), ("last_byte_ms", self.last_byte_N)):
            points = np.percentile(values_N, [50, 90, 99]).tolist() if len(values_N) else [None] * 3
            shown[name] = dict(zip(("median", "p90", "p99"), (p and 1e3 * p for p in points), strict=True))
        return shown


def ask_chat(question: str, *, key: str = "", stream: bool = False, **fields: Any) -> Asked:
    """A chat request for one question; `fields` go into its body."""
    body: dict[str, Any] = {"model": "scripted", "messages": [{"role": "user", "content": question}], **fields}
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return Asked(json.dumps(body).encode(), headers={"authorization": f"Bearer {key}"} if key else {})


class Clients:
    """Connections to one server; each carries one request at a time and is used again.

    Args:
        url: its address, `/v1` included.
        is_read: bodies are kept for whoever asks; else only their bytes are waited for.
    """

    def __init__(self, url: str, *, is_read: bool = False) -> None:
        parts = urlsplit(url)
        self._host, self._port, self._base = parts.hostname or "127.0.0.1", parts.port or 80, parts.path.rstrip("/")
        self._is_read = is_read
        self._free: deque[_Client] = deque()
        self._all: WeakSet[_Client] = WeakSet()

    async def ask(self, asked: Asked, due: float | None = None) -> Answered:
        """Sends a request and waits for the end of its answer.

        Args:
            asked: the request.
            due: when it was to be sent, by `time.perf_counter()`; None: now.
        """
        due = time.perf_counter() if due is None else due
        head = f"POST {self._base}{asked.path} HTTP/1.1\r\nhost: {self._host}:{self._port}\r\n"
        head += "content-type: application/json\r\n" + f"content-length: {len(asked.body)}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in asked.headers.items()) + "\r\n"
        try:
            while self._free and not self._free[0].is_open:  # the server closed it meanwhile
                self._free.popleft()
            client = self._free.popleft() if self._free else await self._connect()
        except OSError:
            now = time.perf_counter() - due
            return Answered(0, {}, b"", now, now)
        waiting = client.send(head.encode("latin-1") + asked.body, due)
        try:
            answered = await (waiting if asked.leave_after is None else asyncio.wait_for(waiting, asked.leave_after))
        except TimeoutError:
            client.transport.abort()
            now = time.perf_counter() - due
            return Answered(0, {}, b"", now, now)
        if client.is_open:
            self._free.append(client)
        return answered

    async def _connect(self) -> _Client:
        loop = asyncio.get_running_loop()
        _, client = await loop.create_connection(lambda: _Client(self._is_read), self._host, self._port)
        self._all.add(client)
        return client

    def close(self) -> None:
        """Closes all connections."""
        for client in self._all:
            client.transport.abort()
        self._all.clear()
        self._free.clear()


class _Client(asyncio.Protocol):
    transport: Any  # asyncio's, or uvloop's

    def __init__(self, is_read: bool) -> None:
        self._is_read = is_read
        self._waiting: asyncio.Future[Answered] | None = None
        self.is_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.is_open = True

    def connection_lost(self, error: Exception | None) -> None:
        self.is_open = False
        self._end(0)

    def send(self, content: bytes, due: float) -> asyncio.Future[Answered]:
        self._parser = httptools.HttpResponseParser(self)
        self._due, self._first = due, 0.0
        self._headers: dict[str, str] = {}
        self._content = bytearray()
        self._waiting = asyncio.get_running_loop().create_future()
        self.transport.write(content)
        return self._waiting

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_read:
            self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        if not self._first:
            self._first = time.perf_counter() - self._due
        if self._is_read:
            self._content += body

    def on_message_complete(self) -> None:
        self.is_open = self.is_open and self._parser.should_keep_alive()
        self._end(self._parser.get_status_code())
        if not self.is_open:
            self.transport.close()

    def _end(self, status: int) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            now = time.perf_counter() - self._due
            waiting.set_result(Answered(status, self._headers, bytes(self._content), self._first or now, now))


async def run_load(
    url: str,
    ask: Callable[[int], Asked],
    *,
    num_requests: int | None = None,
    seconds: float | None = None,
    rate: float | None = None,
    num_clients: int = 16,
    each: Callable[[int, Answered], None] | None = None,
) -> LoadResult:
    """Loads a server until so many requests were sent, or so many seconds have gone by; waits for all answers.

    Args:
        url: the server's address, `/v1` included.
        ask: the request of a number, from 0.
        num_requests: to stop after; None: no bound.
        seconds: to stop after, whichever is reached first; None: no bound.
        rate: requests a second, at random moments (a Poisson process with a fixed seed), whether or not earlier ones
            were answered; None: `num_clients` that each ask again as soon as they were answered.
        num_clients: of a closed loop.
        each: is given each answer, with its body.

    Raises:
        ExceptionGroup: of what `ask` or `each` raised; no more is asked then.
    """
    clients, result, numbers = Clients(url, is_read=each is not None), LoadResult(), count()
    started = time.perf_counter()
    end = None if seconds is None else started + seconds

    def is_over(number: int) -> bool:
        return (num_requests is not None and number >= num_requests) or (end is not None and time.perf_counter() >= end)

    async def one(number: int, due: float | None = None) -> None:
        answered = await clients.ask(ask(number), due)
        result.add(answered)
        if each is not None:
            each(number, answered)

    async def closed() -> None:
        while not is_over(number := next(numbers)):
            await one(number)

    try:
        async with asyncio.TaskGroup() as group:
            if rate is not None:
                await _arrive(group, one, is_over, rate, started)
            for _ in range(num_clients if rate is None else 0):
                group.create_task(closed())
    finally:
        clients.close()
    result.seconds = time.perf_counter() - started
    return result


async def _arrive(
    group: asyncio.TaskGroup, one: Callable[..., Any], is_over: Callable[[int], bool], rate: float, started: float
) -> None:
    gaps, places, due, number = np.random.default_rng(0), asyncio.Semaphore(MOST_CONNECTIONS), started, 0
    while not is_over(number):
        due += float(gaps.exponential(1.0 / rate))
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        await places.acquire()
        group.create_task(one(number, due)).add_done_callback(lambda _: places.release())
        number += 1
