"""JSON over HTTP with bounded concurrency, retries and a key that stays hidden. aiohttp lives here alone."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Protocol, Self

import aiohttp

from ...errors import EngineError
from .address import Address, Key
from .counters import Counters
from .retrying import RETRIED, AttemptError, Backoff, retry_after

CONNECT_SECONDS = 10.0
SHOWN_CHARACTERS = 300  # of a server's message, in a reason
LINE_BYTES = 1 << 20  # longest server-sent event


class RequestError(EngineError):
    """One request came to nothing; what asked for it puts the reason on its record."""


class Events(Protocol):
    """Takes the events of one stream."""

    def add(self, event: dict[str, Any]) -> bool:
        """Takes one; False when enough has come. Raises ValueError when the stream makes no sense."""
        ...

    def finish(self) -> dict[str, Any]:
        """The whole answer. Raises ValueError when the stream stopped too early."""
        ...


class Client:
    """Talks to one server from within one event loop; use it as an async context manager.

    Args:
        address: where the server is.
        key: its key, if it wants one.
        backoff: when to try again.
        timeout_seconds: longest wait for one whole answer.
        concurrency: most requests under way at once.
        counters: counts what happens.
    """

    def __init__(
        self,
        address: Address,
        key: Key | None,
        *,
        backoff: Backoff,
        timeout_seconds: float,
        concurrency: int,
        counters: Counters,
    ) -> None:
        self.address, self.backoff, self.counters = address, backoff, counters
        self._key = key
        self._timeout = timeout_seconds
        self._slots = asyncio.Semaphore(concurrency)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),  # the semaphore bounds them
            timeout=aiohttp.ClientTimeout(total=self._timeout, sock_connect=CONNECT_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Content-Type": "application/json", **(self._key.headers() if self._key else {})},
            read_bufsize=LINE_BYTES,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def post(self, url: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON object that the server answers; raises RequestError when all attempts came to nothing."""
        return await self._persist("POST", url, _encoded(body), self._read_object)

    async def get(self, url: str) -> dict[str, Any]:
        """The JSON object at `url`; tried like any other request."""
        return await self._persist("GET", url, None, self._read_object)

    async def ask(self, method: str, url: str, body: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
        """The JSON object at `url`; None where the server has none there. For finding out what a server can do."""
        content = None if body is None else _encoded(body)
        return await self._persist(method, url, content, self._read_if_any) or None

    async def stream(self, url: str, body: Mapping[str, Any], events: Callable[[], Events]) -> dict[str, Any]:
        """What `events` makes of the server-sent events; a stream that breaks off is asked for again."""

        async def read(response: aiohttp.ClientResponse) -> dict[str, Any]:
            if response.content_type == "application/json":  # this server does not stream
                return await self._read_object(response)
            await self._check(response)
            taken = events()
            try:
                async for line in response.content:
                    event = self._event(line)
                    if event is not None and not taken.add(event):
                        response.close()  # frees the server's slot as well
                        break
                return taken.finish()
            except ValueError as error:
                raise AttemptError("stream", f"the stream broke: {error}") from None

        return await self._persist("POST", url, _encoded(body), read)

    async def _persist(
        self,
        method: str,
        url: str,
        content: bytes | None,
        read: Callable[[aiohttp.ClientResponse], Awaitable[dict[str, Any]]],
    ) -> dict[str, Any]:
        """Tries until it works, or the attempts are used up."""
        self.counters.num_calls += 1
        attempt = 0
        while True:
            attempt += 1
            try:
                async with self._slots:
                    return await self._attempt(method, url, content, read)
            except AttemptError as trouble:
                wait = self.backoff.wait(attempt, trouble.wait, random.random())
                if wait is None:
                    asked = f"; the server asks to wait {trouble.wait:.0f} s" if trouble.wait else ""
                    times = "once" if attempt == 1 else f"{attempt} times"
                    raise RequestError(f"{trouble.reason} (tried {times}{asked})") from None
                self.counters.retries[trouble.cause] += 1
            await asyncio.sleep(wait)

    async def _attempt(
        self,
        method: str,
        url: str,
        content: bytes | None,
        read: Callable[[aiohttp.ClientResponse], Awaitable[dict[str, Any]]],
    ) -> dict[str, Any]:
        if self._session is None:
            raise EngineError("the client is used outside its context")
        self.counters.num_attempts += 1
        try:
            # A redirect is never followed: the key would go along.
            async with self._session.request(method, url, data=content, allow_redirects=False) as response:
                return await read(response)
        except TimeoutError:
            raise AttemptError("timeout", f"no answer within {self._timeout:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            text = self._shown(str(error).encode()) or type(error).__name__
            raise AttemptError("connection", f"the connection broke: {text}") from None

    async def _read_object(self, response: aiohttp.ClientResponse) -> dict[str, Any]:
        await self._check(response)
        content = self._hidden(await response.read())
        try:
            found = json.loads(content)
        except ValueError:
            raise AttemptError("malformed", f"the answer is not JSON: {self._shown(content)}") from None
        if not isinstance(found, dict):
            raise AttemptError("malformed", f"the answer is not an object: {self._shown(content)}")
        if found.get("error") and "choices" not in found:
            raise _trouble("error", self._shown(content), found["error"])
        return found

    async def _read_if_any(self, response: aiohttp.ClientResponse) -> dict[str, Any]:
        """What `_read_object` reads; empty where that is no answer and will not become one."""
        try:
            return await self._read_object(response)
        except RequestError:
            return {}
        except AttemptError as trouble:
            if trouble.cause in ("malformed", "error"):
                return {}
            raise

    async def _check(self, response: aiohttp.ClientResponse) -> None:
        """Raises when the status is not that of an answer."""
        if response.status == 200:
            return
        if 300 <= response.status < 400:
            target = response.headers.get("Location", "").partition("?")[0]
            raise RequestError(
                f"the server redirects to {self._shown(target.encode())}, which is not followed; "
                f"if that is the right address, give it as --base-url"
            )
        content = self._hidden(await response.read())
        reason = f"HTTP {response.status}: {self._shown(content)}"
        if response.status in RETRIED and b"insufficient_quota" not in content:
            raise AttemptError(str(response.status), reason, retry_after(response.headers))
        raise RequestError(reason)

    def _event(self, line: bytes) -> dict[str, Any] | None:
        """The object in a line of a stream; None for a line without one."""
        field, _, content = self._hidden(line).strip().partition(b":")
        content = content.strip()
        if field != b"data" or not content or content == b"[DONE]":
            return None
        found = json.loads(content)
        if not isinstance(found, dict):
            raise ValueError("an event is not an object")
        if found.get("error"):
            raise _trouble("error", self._shown(content), found["error"])
        return found

    def _hidden(self, content: bytes) -> bytes:
        return content if self._key is None else self._key.hide(content)

    def _shown(self, content: bytes) -> str:
        """What a server says, fit for a reason: its message, on one line, cut short, without the key."""
        content = self._hidden(content)
        try:
            found = json.loads(content)
        except ValueError:
            found = content.decode("utf-8", "replace")
        text = " ".join(str(_message(found)).split())
        return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"


def _encoded(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def _message(found: Any) -> Any:
    """The human part of an error object, whichever of the usual shapes it has."""
    if isinstance(found, dict):
        for key in ("error", "message", "detail"):
            if found.get(key):
                return _message(found[key])
    return found


def _trouble(cause: str, shown: str, error: Any) -> AttemptError | RequestError:
    """An error that came with status 200: tried again unless it says that the request itself is at fault."""
    details = error if isinstance(error, dict) else {}
    code = details.get("code", details.get("status"))
    is_ours = isinstance(code, int) and 400 <= code < 500 and code not in RETRIED
    if is_ours or details.get("type") in ("invalid_request_error", "BadRequestError", "authentication_error"):
        return RequestError(f"the server answers with an error: {shown}")
    return AttemptError(cause, f"the server answers with an error: {shown}")
