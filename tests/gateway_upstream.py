"""A gateway on a real socket in front of a real one, for its tests: predictor, tenants, clients."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from forethought.core.menu import Menu
from forethought.core.options import Option
from forethought.core.profile import Profile
from forethought.core.provenance import Provenance
from forethought.core.serve_settings import ServeSettings
from forethought.gateway.hosts.upstream.serving import Running, running
from forethought.gateway.scripted import ScriptedServer
from forethought.predictors.training import train

EFFORTS = ("low", "medium", "high")
LEVELS = Menu.named(
    Option(name, set={"reasoning_effort": name}, tokens=tokens)
    for name, tokens in zip(EFFORTS, (100, 400, 1600), strict=True)
)
CAPS = Menu.evenly(16, 64)
HARD = "A shop has {} pears, sells {}% of them each day for a week and then buys as many again. How many are left?"
EASY = "Ann has {} apples and eats {}. How many?"
KEY, OTHER_KEY = "ft-one-secret-key", "ft-two-secret-key"


def question(row: int) -> str:
    """Odd ones are easy, even ones hard."""
    return (EASY if row % 2 else HARD).format(20 + row % 60, 2 + row % 8)


def measured(menu: Menu) -> Profile:
    """Easy questions that little thought answers, hard ones that need the most."""
    rows = range(60)
    easy, hard = ([9, 10, 10, 10], [12, 14, 14, 14]), ([0, 2, 6, 10], [16, 31, 45, 58])
    if menu.is_named:
        easy, hard = ([10, 10, 10], [80, 90, 95]), ([0, 4, 10], [150, 500, 1900])
    tokens_Q_B = np.array([easy[1] if row % 2 else hard[1] for row in rows], dtype=np.float64)
    return Profile(
        query_ids=tuple(map(str, rows)),
        menu=menu,
        num_right_Q_B=np.array([easy[0] if row % 2 else hard[0] for row in rows]),
        num_tried_Q=np.full(len(rows), 10),
        tokens_Q_B=tokens_Q_B,
        reasoning_Q_B=tokens_Q_B,
        texts=tuple(map(question, rows)),
        provenance=Provenance.from_json({"model": "scripted"}),
    )


def saved_predictor(folder: Path, menu: Menu = CAPS) -> str:
    """A text predictor on disk."""
    return str(train(measured(menu), predictor="text").save(folder))


def tenants_file(path: Path, text: str) -> str:
    """A tenants' file, in which KEY and OTHER_KEY stand for the hashes of these."""
    for name, key in (("KEY2", OTHER_KEY), ("KEY", KEY)):
        text = text.replace(f'"{name}"', f'"{hashlib.sha256(key.encode()).hexdigest()}"')
    path.write_text(text)
    return str(path)


def chat(text: str, **fields: Any) -> dict[str, Any]:
    """A chat request."""
    return {"model": "scripted", "messages": [{"role": "user", "content": text}], **fields}


@contextlib.asynccontextmanager
async def served(upstream: str, predictor: str, **settings: Any) -> AsyncIterator[Running]:
    """A gateway in front of `upstream`."""
    given = {"price": 0.001, "port": 0, "drain_seconds": 2.0, **settings}
    async with running(ServeSettings(upstream=upstream, predictor=predictor, **given)) as found:
        yield found


@contextlib.contextmanager
def served_in_thread(scripted: ScriptedServer, predictor: str, /, **settings: Any) -> Iterator[Running]:
    """A gateway in front of a server, both in a thread of their own."""
    loop, told = asyncio.new_event_loop(), []
    is_up, is_over = threading.Event(), asyncio.Event()

    async def run() -> None:
        try:
            async with scripted, served(scripted.url, predictor, **settings) as found:
                told.append(found)
                is_up.set()
                await is_over.wait()
        finally:
            is_up.set()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    is_up.wait()
    try:
        yield told[0]
    finally:
        loop.call_soon_threadsafe(is_over.set)
        thread.join()
        loop.close()


class Client:
    """Asks a gateway."""

    def __init__(self, url: str, key: str = "") -> None:
        self.url = url.removesuffix("/v1")
        self.headers = {"authorization": f"Bearer {key}"} if key else {}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Client:
        self._session = aiohttp.ClientSession(auto_decompress=False, connector=aiohttp.TCPConnector(limit=0))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._session is not None
        await self._session.close()

    async def ask(
        self, path: str, body: Any = None, *, method: str = "", headers: Any = None, key: str = ""
    ) -> tuple[int, dict[str, str], bytes]:
        """`(status, headers, body)`."""
        assert self._session is not None
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        own = {"authorization": f"Bearer {key}"} if key else self.headers
        own = own if body is None else {"content-type": "application/json", **own}
        method = method or ("GET" if body is None else "POST")
        async with self._session.request(
            method, self.url + path, data=data, headers={**own, **(headers or {})}, allow_redirects=False
        ) as response:
            found = {name.lower(): value for name, value in response.headers.items()}
            return response.status, found, await response.read()

    async def chat(self, text: str, *, key: str = "", **fields: Any) -> tuple[int, dict[str, str], Any]:
        """The same for a chat; the body read as JSON, or as the events of a stream."""
        status, headers, content = await self.ask("/v1/chat/completions", chat(text, **fields), key=key)
        if headers.get("content-type", "").startswith("text/event-stream"):
            return status, headers, events(content)
        return status, headers, json.loads(content)


def events(content: bytes) -> list[Any]:
    """The events of a stream; "[DONE]" as text."""
    lines = [line[6:] for line in content.decode().split("\n") if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]
