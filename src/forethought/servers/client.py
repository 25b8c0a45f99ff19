"""JSON over HTTP with bounded concurrency, retries and a key that stays hidden. Only this file uses aiohttp."""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Self

import aiohttp

from ..errors import EngineError
from . import reading, troubles
from .address import Address, Key, without_secrets
from .events import BOM, DONE, EventReader
from .replies import Chunks, generated_in
from .retrying import RETRIED, AttemptError, AwayError, Backoff, Fitting, RequestError
from .tokens import Counters
from .troubles import asked_wait, reset_wait

CONNECT_SECONDS = 10.0
ASK_SECONDS = 30.0  # longest wait for what a server says of itself, which takes no model
SHOWN_CHARACTERS = 300  # of a server's message, in a reason
AWAY_SECONDS = 120.0  # that a server which has answered is waited for, where it cannot be connected to any more
PAID_ATTEMPTS = 4  # at answers that came and cannot be used: a server that always answers so is paid each time


class Client:
    """Talks to one server from within one event loop; use it as an async context manager.

    Args:
        address: where the server is.
        key: its key, if it wants one.
        backoff: when to try again.
        timeout_seconds: longest wait for one whole answer.
        concurrency: most requests under way at once.
        counters: counts what happens.
        fitting: what bodies leave out for this server; None to learn it anew.
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
        fitting: Fitting | None = None,
    ) -> None:
        self.address, self.backoff, self.counters = address, backoff, counters
        self._fitting = fitting or Fitting()
        self._key = key
        self._timeout = timeout_seconds
        self._slots = asyncio.Semaphore(concurrency)
        self._session: aiohttp.ClientSession | None = None
        self._heard: float | None = None  # when the server answered last

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),  # the semaphore bounds them
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={
                "Content-Type": "application/json",
                "Accept-Encoding": "identity",
                **(self._key.headers() if self._key else {}),
            },
            auto_decompress=False,  # aiohttp inflates whatever comes, without a bound
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    def leaves_out(self, name: str) -> bool:
        """Whether this field of bodies is left out, since the server refused it."""
        return name in self._fitting.left_out

    async def post(self, url: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON object that the server returns; raises RequestError if all attempts failed."""
        return await self._persist("POST", url, body, self._read_object)

    async def get(self, url: str) -> dict[str, Any]:
        """The JSON object at `url`; tried like any other request."""
        return await self._persist("GET", url, None, self._read_object, ASK_SECONDS)

    async def ask(self, method: str, url: str, body: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
        """The JSON object at `url`; None where the server has none there. For finding out what a server can do."""
        return await self._persist(method, url, body, self._read_if_any, ASK_SECONDS) or None

    async def stream(self, url: str, body: Mapping[str, Any], events: Callable[[], Chunks]) -> dict[str, Any]:
        """What `events` makes of the server-sent events; a stream that breaks off is asked for again."""

        async def read(response: aiohttp.ClientResponse) -> dict[str, Any]:
            await self._check(response)
            if response.content_type == "application/json":  # this server does not stream
                content = await reading.body(response.content, _encoding(response))
                if not content.removeprefix(BOM).lstrip()[:6].startswith((b"data:", b"event:", b"id:", b":")):
                    return self._object(content, response)
                return await self._put_together(events(), _all(content), response)
            return await self._put_together(events(), reading.pieces(response.content, _encoding(response)), response)

        return await self._persist("POST", url, body, read)

    async def _put_together(
        self, taken: Chunks, pieces: AsyncIterator[bytes], response: aiohttp.ClientResponse
    ) -> dict[str, Any]:
        """The answer in the events of a stream, which may turn out to be a web page or one object."""
        try:
            reader, is_first = EventReader(), True
            async for piece in pieces:
                if is_first and (start := piece.removeprefix(BOM).lstrip()):
                    is_first = False
                    if start.startswith((b"{", b"[", b"<")):
                        rest = [piece, *[each async for each in pieces]]
                        return self._object(b"".join(rest), response)
                if (found := self._take(taken, reader.feed(piece), response)) is not None:
                    return found
                if reader.num_kept > reading.LINE_BYTES:
                    raise reading.UnreadableError(f"an event is longer than {reading.LINE_BYTES >> 20} MiB")
            found = self._take(taken, reader.rest(), response)
            return taken.finish(is_done=False) if found is None else found
        except reading.UnreadableError:
            self.counters.discarded_tokens += taken.num_seen
            raise
        except ValueError as error:
            reason = f"the stream broke: {error}"
            raise AttemptError("stream", reason, most=PAID_ATTEMPTS, tokens=taken.num_seen) from None
        except (AttemptError, RequestError) as error:
            error.tokens = max(error.tokens, taken.num_seen)
            raise
        except (TimeoutError, aiohttp.ClientError, OSError):
            self.counters.discarded_tokens += taken.num_seen
            raise

    async def _persist(
        self,
        method: str,
        url: str,
        body: Mapping[str, Any] | None,
        read: Callable[[aiohttp.ClientResponse], Awaitable[dict[str, Any]]],
        within: float = math.inf,
    ) -> dict[str, Any]:
        """Tries until it works, or the attempts are used up; waits for an answer for at most `within` seconds each."""
        self.counters.num_calls += 1
        attempt, away = 0, math.inf
        while True:
            sent = None if body is None else self._fitting.fit(body)
            content = None if sent is None else _encoded(sent)
            attempt += 1
            try:
                async with self._slots:
                    return await self._attempt(method, url, content, read, min(within, self._timeout))
            except RequestError as error:
                if sent is None or not error.refusal or not self._fitting.learn(sent, error.refusal):
                    raise
                if self._fitting.fit(sent) == sent:  # it was left out already
                    raise
                self.counters.discarded_tokens += error.tokens
                continue
            except AttemptError as trouble:
                self.counters.discarded_tokens += trouble.tokens
                wait = self.backoff.wait(attempt, trouble.wait, random.random(), is_limit=trouble.is_limit)
                away = min(away, time.monotonic()) if trouble.is_away else math.inf  # since when
                if wait is None and trouble.is_away and (self._heard is None or self._heard < away):
                    wait = self._wait_for_it(away, f"{trouble.reason} (tried {attempt} times)")
                if wait is None or (trouble.most is not None and attempt >= trouble.most):
                    asked = f"; the server asks to wait {trouble.wait:.0f} s" if trouble.wait else ""
                    times = "once" if attempt == 1 else f"{attempt} times"
                    reason = f"{trouble.reason} (tried {times}{asked})"
                    raise RequestError(reason, status=trouble.status) from None
                self.counters.retries[trouble.cause] += 1
            await asyncio.sleep(wait)

    def _wait_for_it(self, away: float, reason: str) -> float:
        """Seconds to wait for a server that answers nobody since `away`; raises AwayError where that was too long."""
        if self._heard is None or time.monotonic() > away + AWAY_SECONDS:
            raise AwayError(f"the server at {self.address} is away: {reason}")
        return random.random() * min(self.backoff.max_seconds, 16 * self.backoff.base_seconds)

    async def _attempt(
        self,
        method: str,
        url: str,
        content: bytes | None,
        read: Callable[[aiohttp.ClientResponse], Awaitable[dict[str, Any]]],
        within: float,
    ) -> dict[str, Any]:
        if self._session is None:
            raise EngineError("the client is used outside its context")
        self.counters.num_attempts += 1
        timeout = aiohttp.ClientTimeout(total=within, sock_connect=CONNECT_SECONDS)
        try:
            # A redirect is never followed: the key would go along.
            async with self._session.request(
                method, url, data=content, allow_redirects=False, timeout=timeout
            ) as response:
                self._heard = time.monotonic()
                try:
                    return reading.cleaned(await read(response), self._hide)  # type: ignore[no-any-return]
                except reading.UnreadableError as error:
                    response.close()
                    raise RequestError(str(error)) from None
                except ValueError as error:
                    raise AttemptError("malformed", f"the answer cannot be read: {error}", most=PAID_ATTEMPTS) from None
        except aiohttp.ConnectionTimeoutError:
            reason = f"the connection broke: no connection within {CONNECT_SECONDS:g} s"
            raise AttemptError("connection", reason, is_away=True) from None
        except TimeoutError:
            raise AttemptError("timeout", f"no answer within {within:g} s", most=PAID_ATTEMPTS) from None
        except (aiohttp.ClientError, OSError) as error:
            text = self._shown(str(error)) or type(error).__name__
            is_away = isinstance(error, aiohttp.ClientConnectorError)
            raise AttemptError("connection", f"the connection broke: {text}", is_away=is_away) from None

    async def _read_object(self, response: aiohttp.ClientResponse) -> dict[str, Any]:
        await self._check(response)
        return self._object(await reading.body(response.content, _encoding(response)), response)

    def _object(self, content: bytes, response: aiohttp.ClientResponse) -> dict[str, Any]:
        """The object in a body; raises what the error in it, or that it is none, comes to."""
        try:
            found = reading.parsed(content)
        except ValueError as error:
            if (page := reading.page_in(content, response.content_type)) is not None:
                raise RequestError(
                    f"{page}, not an answer: is {self.address} the address of the API, and is no login "
                    f"page or proxy in front of it?"
                ) from None
            why = str(error) if "nested" in str(error) else self._shown(content)
            raise AttemptError("malformed", f"the answer is not JSON: {why}", most=PAID_ATTEMPTS) from None
        if not isinstance(found, dict):
            raise AttemptError("malformed", f"the answer is not an object: {self._shown(content)}", most=PAID_ATTEMPTS)
        self._refuse_error(found, response)
        return found

    def _refuse_error(self, found: dict[str, Any], response: aiohttp.ClientResponse) -> None:
        """Raises where an answer or an event with status 200 holds an error."""
        error = troubles.error_in(found)
        if error is None:
            return
        tokens = generated_in(found)
        reason = f"the server answers with an error: {self._shown(error)}"
        wait = asked_wait(response.headers, error)
        passes = troubles.may_pass(error, wait=wait)
        if passes is False:
            raise RequestError(reason, tokens, refusal=str(error))
        most = None if passes else troubles.UNKNOWN_ATTEMPTS
        raise AttemptError(troubles.cause(error, 200), reason, wait, most=most, tokens=tokens)

    async def _read_if_any(self, response: aiohttp.ClientResponse) -> dict[str, Any]:
        """What `_read_object` reads; empty where that is no answer and will not become one."""
        try:
            return await self._read_object(response)
        except (RequestError, ValueError):
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
            target = without_secrets(response.headers.get("Location", "")).partition("?")[0]
            raise RequestError(
                f"the server redirects to {self._shown(target)}, which is not followed; "
                f"if that is the right address, give it as --base-url"
            )
        try:
            content = await reading.body(response.content, _encoding(response), most=reading.ERROR_BYTES, is_cut=True)
        except ValueError as trouble:
            content = str(trouble).encode()
        if len(content) == reading.ERROR_BYTES:
            response.close()  # there may be gigabytes more
        try:
            found = reading.parsed(content)
        except ValueError:
            found = content.decode("utf-8", "replace")
        page = reading.page_in(content, response.content_type)
        reason = f"HTTP {response.status}: {self._shown(page or found)}"
        wait = asked_wait(response.headers, found)
        error = found.get("error", found) if isinstance(found, dict) else found
        if response.status in RETRIED and troubles.may_pass(error, status=response.status, wait=wait) is not False:
            if wait is None and (soft := reset_wait(response.headers)) is not None:
                wait = min(soft, self.backoff.patience_seconds)
            raise AttemptError(str(response.status), reason, wait)
        refusal = str(found) if response.status in (400, 403, 422) else ""
        raise RequestError(reason, refusal=refusal, status=response.status)

    def _take(
        self, taken: Chunks, events: list[dict[str, Any] | bytes], response: aiohttp.ClientResponse
    ) -> dict[str, Any] | None:
        """Takes events; returns the whole answer once no more are needed."""
        for event in events:
            if event == DONE:
                return taken.finish(is_done=True)
            if isinstance(event, bytes):
                reading.parsed(event)
                raise ValueError("an event is not an object")
            self._refuse_error(event, response)
            if not taken.add(event):
                response.close()  # frees the server's slot as well
                return taken.finish(is_done=False)
        return None

    def _hide(self, text: str) -> str:
        return text if self._key is None else self._key.hide(text)

    def _shown(self, found: Any) -> str:
        """What a server says, fit for a reason: its message, on one line, cut short, without the key."""
        if isinstance(found, bytes):
            try:
                found = reading.parsed(found)
            except ValueError:
                found = found[: reading.ERROR_BYTES].decode("utf-8", "replace")
        text = str(troubles.message(found))[: reading.ERROR_BYTES]
        text = " ".join(without_secrets(reading.fit_text(text, self._hide)).split())
        return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"


def _encoded(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def _encoding(response: aiohttp.ClientResponse) -> str:
    return response.headers.get("Content-Encoding", "")


async def _all(content: bytes) -> AsyncIterator[bytes]:
    yield content
