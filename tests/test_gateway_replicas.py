"""Four gateways on one Redis, two hundred clients, kill -9 of a gateway and of Redis: the quota holds all the same."""

import asyncio
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from forethought.gateway.admission import GATEWAY
from forethought.gateway.ledger import LEASE
from forethought.gateway.ledger.redis import RedisLedger
from forethought.gateway.scripted import ScriptedServer, ask_chat
from forethought.gateway.scripted.load import Clients
from forethought.gateway.scripted.server import in_thread
from forethought.gateway.windows import ALL
from gateway_upstream import KEY, question, saved_predictor, tenants_file
from redis_server import RedisServer

pytest.importorskip("uvloop")

QUOTA = 60_000
NUM_CLIENTS = 200


class Replica:
    """One `forethought serve`, always on the same port."""

    def __init__(self, *arguments: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._arguments = ["--port", str(self.port), *arguments]
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        command = [sys.executable, "-m", "forethought", "serve", *self._arguments]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})

    def wait(self) -> None:
        ends = time.monotonic() + 120.0
        while True:
            assert self.process.poll() is None
            assert time.monotonic() < ends
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=1.0):
                    return
            except (OSError, urllib.error.URLError):
                time.sleep(0.1)

    def end(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        self.process.wait(30)


async def client(number: int, urls: list[str], is_over: asyncio.Event, met: Counter[int]) -> None:
    """Asks one replica after the other; every second answer is streamed, and some clients leave early."""
    clients = [Clients(url) for url in urls]
    for count in itertools.count(number):
        if is_over.is_set():
            break
        asked = ask_chat(question(count % 60), key=KEY, stream=count % 2 == 0)
        asked = replace(asked, leave_after=0.03 if count % 11 == 0 else 15.0)
        answered = await clients[count % len(urls)].ask(asked)
        met[answered.status] += 1
        if answered.status != 200:
            await asyncio.sleep(0.1)
    for each in clients:
        each.close()


async def load(replicas: list[Replica], server: RedisServer) -> Counter[int]:
    """Statuses that the clients met: each kill is met by somebody, and the quota is full at the end."""
    met, urls, is_over = Counter[int](), [each.url for each in replicas], asyncio.Event()
    tasks = [asyncio.ensure_future(client(number, urls, is_over, met)) for number in range(NUM_CLIENTS)]
    await until(lambda: met[200] > 100)
    replicas[0].end(signal.SIGKILL)
    await until(lambda: met[0] > 0)
    server.kill()
    await until(lambda: met[503] > 0)
    server.start()
    replicas[0].start()
    await asyncio.to_thread(replicas[0].wait)
    await until(lambda: met[429] > NUM_CLIENTS)
    is_over.set()
    await asyncio.gather(*tasks)
    return met


async def until(is_so: Callable[[], bool]) -> None:
    """Waits until something has come about."""
    async with asyncio.timeout(120):
        while not is_so():
            await asyncio.sleep(0.01)


async def judge(server: RedisServer, spent: int, num_done: int) -> None:
    ledger = await RedisLedger.open(server.url)
    ledger.ahead = LEASE + 1.0  # after the leases of what was killed
    await ledger.sweep()
    assert await ledger.num_open() == 0
    counts = {each.account: each for each in await ledger.counts([GATEWAY, "tenant:a"]) if each.window == ALL}
    assert counts[GATEWAY].settled == counts["tenant:a"].settled
    assert spent <= counts[GATEWAY].settled <= QUOTA
    assert num_done > 100
    await ledger.close()


@pytest.mark.slow
@pytest.mark.server
def test_a_quota_holds_whatever_is_killed(tmp_path: Path) -> None:
    predictor = saved_predictor(tmp_path / "predictor")
    tenants = tenants_file(tmp_path / "tenants.toml", f'[gateway]\ntokens = {QUOTA}\n[tenants.a]\nkey_sha256 = "KEY"\n')
    scripted = ScriptedServer(keep=100_000, latency=0.02, tokens_per_second=2_000.0)
    with RedisServer() as server, in_thread(scripted) as upstream:
        settings = ["--upstream", upstream, "--predictor", predictor, "--price", "0.001", "--tenants", tenants]
        settings += ["--ledger", server.url, "--answer-room", "40", "--drain-seconds", "5"]
        replicas = [Replica(*settings) for _ in range(4)]
        try:
            for replica in replicas:
                replica.wait()
            met = asyncio.run(load(replicas, server))
            for replica in replicas:
                replica.end()
        finally:
            for replica in replicas:
                replica.process.kill()
                replica.process.wait(10)
        assert set(met) <= {0, 200, 429, 502, 503}, met
        asked = [each for each in scripted.seen if each.method == "POST"]
        spent = sum(each.prompt_tokens + each.tokens for each in asked if each.is_done)
        everything = sum(each.prompt_tokens + each.tokens for each in asked)
        assert everything <= QUOTA
        asyncio.run(judge(server, spent, met[200]))
