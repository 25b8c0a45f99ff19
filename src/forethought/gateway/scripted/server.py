"""A server of OpenAI's routes (and Anthropic's `/v1/messages`) with a scripted model: quick, and wrong on request.

It writes bytes to sockets by itself, so that one core serves more than ten thousand requests a second: what stands in
front of it is measured, and not this.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import httptools

from ...servers.kinds import KINDS, ServerKind
from .model import DrawnModel, ThoughtModel
from .troubles import HEADER, Trouble, trouble_in
from .wire import PATHS, Parsed, Writer, answer, usage_of

TICK = 0.02  # seconds between writes of a stream that is paced
ECHO = "/echo"  # gives a request's body back as it came
PACE = "/scripted/pace"  # sets `latency` and `tokens_per_second` of a server in another process
_REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 429: "Too Many Requests"}
_KINDS = {"json": b"application/json", "event-stream": b"text/event-stream"}
_LOGIN = b"<!doctype html><title>Sign in</title><form method=post><input name=password></form>"


@dataclass(slots=True)
class Seen:
    """One request as it came in, and what it came to.

    Attributes:
        method, path: of its first line.
        headers: names in lower case.
        content: of its body.
        tokens: generated for it so far, thought and text of all choices.
        prompt_tokens: of its prompt.
        is_done: it was answered to the end; False also where the client left, or the reply broke.
    """

    method: str
    path: str
    headers: dict[str, str]
    content: bytes
    tokens: int = 0
    prompt_tokens: int = 0
    is_done: bool = False

    @property
    def body(self) -> Any:
        """The body as JSON; {} for none."""
        return json.loads(self.content) if self.content else {}


@dataclass
class ScriptedServer:
    """The server; `async with` it, or `with in_thread(server)`.

    Attributes:
        model: what thinks.
        kind: of server, which says what a cap is called here; `other` heeds none.
        name: of the model, on `/v1/models`.
        thought_field: of a message, for the thought; "" leaves it in the text, between tags.
        tokens_per_second: of each stream or reply; None: at once.
        latency: seconds before the first token.
        key: that requests must carry; "" for none.
        script: what goes wrong with a request, beside what it says itself.
        keep: requests that are kept in `seen`.
        host, port: to listen on; a port of 0 takes a free one.
    """

    model: ThoughtModel = field(default_factory=DrawnModel)
    kind: ServerKind = KINDS["vllm"]
    name: str = "scripted"
    thought_field: str = "reasoning_content"
    tokens_per_second: float | None = None
    latency: float = 0.0
    key: str = ""
    script: Callable[[Seen], Trouble | None] | None = None
    keep: int = 1000
    host: str = "127.0.0.1"
    port: int = 0
    num_requests: int = field(default=0, init=False)
    tokens_generated: int = field(default=0, init=False)
    seen: deque[Seen] = field(init=False)

    def __post_init__(self) -> None:
        self.seen = deque(maxlen=self.keep)
        self._connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """Its address, `/v1` included."""
        return f"http://{self.host}:{self.port}/v1"

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self, loop), self.host, self.port, backlog=2048)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for connection in list(self._connections):
            connection.transport.abort()
        await self._server.wait_closed()

    def trouble(self, seen: Seen, question: str) -> Trouble:
        """What goes wrong with a request."""
        told = self.script(seen) if self.script is not None else None
        return told if told is not None else trouble_in(seen.headers.get(HEADER), question)


@contextmanager
def in_thread(server: ScriptedServer) -> Iterator[str]:
    """The address of a server that runs in a thread of its own meanwhile."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result()
    try:
        yield server.url
    finally:
        asyncio.run_coroutine_threadsafe(server.__aexit__(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class _Connection(asyncio.Protocol):
    """One client; its requests are answered one after the other."""

    transport: Any  # asyncio's, or uvloop's

    def __init__(self, server: ScriptedServer, loop: asyncio.AbstractEventLoop) -> None:
        self._server, self._loop = server, loop
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[Seen] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._stream: _Stream | None = None
        self._is_busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._server._connections.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._server._connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        if self._stream is not None:
            self._stream.due(self._loop.time())
            self._stream = None

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError:  # ours, and not the client's
            raise
        except httptools.HttpParserUpgrade:
            self.transport.close()
        except httptools.HttpParserError:
            self._reply(400, b'{"error": {"message": "not HTTP"}}')
            self.transport.close()

    def on_message_begin(self) -> None:
        self._url, self._headers, self._body = b"", {}, []  # type: tuple[bytes, dict[str, str], list[bytes]]

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        method, path = self._parser.get_method().decode(), self._url.decode("latin-1").partition("?")[0]
        self._waiting.append(Seen(method, path, self._headers, b"".join(self._body)))
        self._next()

    def _next(self) -> None:
        while self._waiting and not self._is_busy and not self.transport.is_closing():
            seen = self._waiting.popleft()
            self._server.num_requests += 1
            self._server.seen.append(seen)
            self._is_busy = True
            try:
                self._answer(seen)
            except (ValueError, RecursionError) as error:
                self._fail(seen, 400, str(error))

    def _ended(self, seen: Seen) -> None:
        seen.is_done, self._is_busy = True, False

    def _answer(self, seen: Seen) -> None:
        server = self._server
        if server.key and seen.headers.get("authorization") != f"Bearer {server.key}":
            return self._fail(seen, 401, "the key is wrong")
        if seen.path not in PATHS or seen.method != "POST":
            return self._other(seen)
        body = json.loads(seen.content)
        if not isinstance(body, dict):
            raise ValueError("the body is no object")
        parsed = Parsed.read(seen.path, body, server.kind)
        trouble = server.trouble(seen, parsed.question)
        if delay := server.latency + trouble.delay:
            self._later(delay, lambda: self._tell(seen, parsed, trouble))
        else:
            self._tell(seen, parsed, trouble)
        return None

    def _tell(self, seen: Seen, parsed: Parsed, trouble: Trouble) -> None:
        server = self._server
        if trouble.is_login:
            self._reply(200, _LOGIN, "text/html; charset=utf-8")
            return self._ended(seen)
        if trouble.status != 200:
            return self._fail(seen, trouble.status, "it broke as it was asked to", trouble.retry_after)
        choices, seen.prompt_tokens = answer(parsed, server.model, trouble)
        is_told = parsed.is_counted and not trouble.is_uncounted
        usage = usage_of(parsed, choices, seen.prompt_tokens) if is_told else None
        writer = Writer(parsed, choices, usage, number=server.num_requests, field=server.thought_field)
        num_tokens, kind = sum(each.num_tokens for each in choices), "event-stream" if parsed.is_stream else "json"
        content = b"" if parsed.is_stream else writer.whole()
        length = b"transfer-encoding: chunked" if parsed.is_stream else b"content-length: %d" % len(content)
        head = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\n%s\r\n\r\n" % (_KINDS[kind], length)
        if trouble.hangs:
            self.transport.write(head)
            return None
        pieces: list[bytes] | None
        if parsed.is_stream:
            before, pieces, after = writer.events()
            self.transport.write(head + _chunk(before))
            self._stream = _Stream(server, seen, num_tokens, self._loop.time(), trouble.dies_after, pieces, after)
        else:
            self._stream = _Stream(
                server, seen, num_tokens, self._loop.time(), trouble.dies_after, None, head + content
            )
        self._go_on()
        return None

    def _go_on(self) -> None:
        """Sends what is due, and comes back for the rest."""
        stream = self._stream
        assert stream is not None
        content = stream.due(self._loop.time())
        if content:
            self.transport.write(content)
        if stream.is_broken:
            self._stream = None
            self.transport.close()
        elif stream.is_over:
            self._stream = None
            self._ended(stream.seen)
        else:
            self._later(stream.wait, self._go_on)

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        def run() -> None:
            self._timer = None
            act()
            self._next()

        self._timer = self._loop.call_later(seconds, run)

    def _other(self, seen: Seen) -> None:
        server = self._server
        if seen.path == ECHO:
            self._reply(200, seen.content, seen.headers.get("content-type", "application/octet-stream"))
        elif seen.path == PACE:
            found = json.loads(seen.content)
            server.latency = float(found.get("latency", server.latency))
            server.tokens_per_second = found.get("tokens_per_second", server.tokens_per_second)
            self._reply(200, b"{}")
        elif seen.path == "/v1/models":
            owner = {"llama.cpp": "llamacpp"}.get(server.kind.name, server.kind.name)
            model = {"id": server.name, "object": "model", "owned_by": owner, "max_model_len": 1 << 17}
            self._reply(200, json.dumps({"object": "list", "data": [model]}).encode())
        elif seen.path == "/health":
            self._reply(200, b"")
        elif seen.path == "/version" and server.kind.name == "vllm":
            self._reply(200, b'{"version": "0.scripted"}')
        else:
            return self._fail(seen, 404, "no such route")
        return self._ended(seen)

    def _fail(self, seen: Seen, status: int, message: str, retry_after: str = "") -> None:
        more = {"retry-after": retry_after} if retry_after else {}
        error = {"message": message, "type": "scripted", "code": status}
        self._reply(status, json.dumps({"error": error}).encode(), more=more)
        self._ended(seen)

    def _reply(self, status: int, content: bytes, kind: str = "application/json", more: Mapping[str, str] = {}) -> None:
        lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Scripted')}", f"content-type: {kind}"]
        lines += [f"content-length: {len(content)}", *(f"{name}: {value}" for name, value in more.items())]
        self.transport.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + content)


class _Stream:
    """A reply on its way. A stream sends its tokens as they are due; a whole reply is due when its last token is.

    Attributes:
        seen: the request.
        is_over: all was sent.
        is_broken: the connection is to break now.
        wait: seconds until more is due.
    """

    def __init__(
        self,
        server: ScriptedServer,
        seen: Seen,
        num_tokens: int,
        started: float,
        dies_after: int | None,
        pieces: list[bytes] | None,
        after: bytes,
    ) -> None:
        self._server, self.seen, self._num_tokens, self._started = server, seen, num_tokens, started
        self._dies_after, self._pieces, self._after = dies_after, pieces, after
        self.wait = 0.0
        self.is_over = self.is_broken = False

    def due(self, now: float) -> bytes:
        """What is to be sent at this time; counts its tokens."""
        rate, begun = self._server.tokens_per_second, self.seen.tokens
        num = self._num_tokens if rate is None else min(self._num_tokens, int((now - self._started) * rate + 1e-6))
        self.is_over = num == self._num_tokens
        if rate is not None:
            self.wait = max(TICK, (self._num_tokens - num if self._pieces is None else 1) / rate)
        if self._dies_after is not None and (self._dies_after <= num if self._pieces is not None else self.is_over):
            self.is_broken = True
            num = num if self._pieces is None else self._dies_after
        self._server.tokens_generated += num - begun
        self.seen.tokens = num
        if self._pieces is None:
            if self.is_broken:
                return self._after[: len(self._after) // 2]
            return self._after if self.is_over else b""
        content = _chunk(b"".join(self._pieces[begun:num]))
        return content if self.is_broken or not self.is_over else content + _chunk(self._after) + b"0\r\n\r\n"


def _chunk(content: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(content), content) if content else b""
