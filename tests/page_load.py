"""A gateway's traffic without a gateway: requests, quotas and a price that a test knows to the last token."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from forethought.gateway.page import Pages
from forethought.gateway.seen import GATEWAY, Balance, Seen
from forethought.runs.journal import CLIENT_LEFT, REFUSED, REFUSED_UPSTREAM, Entry

BUDGETS = (64, 128, 256, 512)
NOON = 1_764_590_400.0  # 1 December 2025, 12:00 UTC
REASONS = {
    "predicted": "predicted",
    "novel": "predicted; novel to the predictor (p=0.013)",
    "mean": "mean curve: earlier turns",
    "own": "the client's own cap",
}


@dataclass
class Traffic:
    """What happened so far; balances and price are what the page asks for."""

    tenants: Sequence[str] = ("search", "batch", "support")
    models: Sequence[str] = ("qwen3-8b",)
    quota: int = 110_000
    now: float = NOON
    price: float = 0.0004
    settled: dict[str, int] = field(default_factory=dict)
    open: dict[str, int] = field(default_factory=dict)
    random: Any = field(default_factory=lambda: np.random.default_rng(5))

    def clock(self) -> float:
        return self.now

    async def balances(self) -> list[Balance]:
        hour, day = self.now // 3600 * 3600, self.now // 86400 * 86400
        used, reserved = sum(self.settled.values()), sum(self.open.values())
        found = [
            Balance(GATEWAY, "hour", hour, hour + 3600, self.quota, used, reserved, 3 * reserved),
            Balance(GATEWAY, "all", 0.0, math.inf, 50 * self.quota, used, reserved, 3 * reserved),
        ]
        for number, name in enumerate(self.tenants):
            share = (self.settled.get(name, 0), self.open.get(name, 0), 3 * self.open.get(name, 0))
            limit = (self.quota // 3, self.quota // 2, None)[number % 3]
            found.append(Balance(name, "hour", hour, hour + 3600, limit, *share))
            found.append(Balance(name, "day", day, day + 86400, None, *share))
        return found

    def request(self, seen: Seen, number: int) -> Entry:
        """One more request; the seventh of ten is the client's own, every 25th fails, every 40th is refused."""
        random, name = self.random, self.tenants[int(self.random.choice(len(self.tenants), p=self._shares()))]
        kind = "own" if number % 10 == 7 else str(random.choice(["predicted", "novel", "mean"], p=[0.8, 0.06, 0.14]))
        budget = int(random.choice(BUDGETS, p=(0.4, 0.3, 0.2, 0.1)))
        thought = int(min(budget, 1 + random.gamma(2.0, budget / 3.4)))
        predicted = round(0.55 * budget * float(random.lognormal(0.0, 0.3))) + 12
        entry = Entry(
            seen.begin(),
            self.now,
            tenant=name,
            model=str(random.choice(list(self.models))),
            kind=kind,
            reason=REASONS[kind],
            question="q-0",
            option=str(budget),
            budget=budget,
            price=self.price,
            expected=None if kind == "own" else float(random.uniform(0.3, 0.95)),
            predicted=predicted,
            reserved=budget + 60,
            settled=thought + 52,
            prompt_tokens=40,
            reasoning_tokens=thought if number % 50 != 3 else budget + 2,
            output_tokens=thought + 12,
            added_ms=float(random.gamma(4.0, 0.18)),
            seconds=0.02 * thought,
            text="a text that no page may show",
        )
        change = {
            8: {"ending": CLIENT_LEFT},
            13: {"ending": REFUSED_UPSTREAM, "status": 503, "settled": 0, "output_tokens": None},
        }.get(number % 25, {})
        if number % 40 == 39:
            change = {"ending": REFUSED, "status": 429, "kind": "", "reason": "", "option": None, "settled": 0}
        entry = _with(entry, **change)
        self.settled[name] = self.settled.get(name, 0) + (entry.settled or 0)
        seen.end(entry)
        return entry

    def _shares(self) -> Any:
        weight = 1.0 / np.arange(1, len(self.tenants) + 1)
        return weight / weight.sum()


def finish(work: Any) -> None:
    """Runs a coroutine to its end, where a loop may be running already."""
    with ThreadPoolExecutor(1) as other:
        other.submit(asyncio.run, work).result()


def _with(entry: Entry, **changes: Any) -> Entry:
    from dataclasses import replace

    return replace(entry, **changes)


def play(traffic: Traffic, seen: Seen, *, requests: int = 600, seconds: float = 2400.0) -> list[Entry]:
    """So many requests over so many seconds, faster in the middle; a sample every five seconds."""
    entries = []
    start, rate = traffic.now, np.sin(np.linspace(0.15, 3.0, requests)) + 0.5
    arrivals = start + seconds * (1 - np.cumsum(rate)[::-1] / rate.sum() + rate[0] / rate.sum())
    sampled = start
    for number, arrival in enumerate(arrivals.tolist()):
        traffic.now = max(traffic.now, arrival)
        traffic.price = 0.0004 * math.exp(0.8 * math.sin(3.5 * (traffic.now - start) / seconds))
        traffic.open = {name: 400 * (1 + place) for place, name in enumerate(traffic.tenants)}
        entries.append(traffic.request(seen, number))
        if traffic.now >= sampled + 5:
            finish(seen.sample())
            sampled = traffic.now
    finish(seen.sample())
    return entries


@contextlib.contextmanager
def served(pages: Pages) -> Iterator[str]:
    """The pages on a free port of this machine; yields their address."""
    import uvicorn

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
        elif pages.takes(scope["path"]):
            await pages(scope, receive, send)
        else:
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=5))
    running = threading.Thread(target=lambda: asyncio.run(server.serve([listening])), daemon=True)
    running.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        pages.close()
        server.should_exit = True
        running.join(10)
        listening.close()
