"""Measures the HTTP client against a server that answers at once: requests per second on one core, and memory.

    pip install openai    # for the comparison alone; nothing of forethought uses it
    python benchmarks/client.py --out docs/results/client/client.json

The server is the tests' scripted one, in a process of its own on another core; it is not a model, and says nothing of
one. The ways to ask alternate within each round, so that a machine that slows down slows all of them.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from machine import processor

TESTS = Path(__file__).resolve().parent.parent / "tests"
THOUGHT, ANSWER = [5, 6, 7] * 8, [8, 9]
PROMPT = "Tom has 3 apples and buys 4 more. How many apples does he have now? " * 4
BUDGET = 64
Call = Callable[[], Awaitable[Any]]


def main() -> None:
    """Starts the server, measures, prints and writes JSON."""
    arguments = parse()
    if arguments.serve:
        asyncio.run(serve())
        return
    cores = sorted(os.sched_getaffinity(0))
    server = subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        os.sched_setaffinity(server.pid, {cores[-1]})
        os.sched_setaffinity(0, {cores[0]})
        result = {
            "python": platform.python_version(),
            "versions": {name: installed(name) for name in ("aiohttp", "openai")},
            "hardware": {"processor": processor(), "cores": len(cores), "client_cores": 1},
            "settings": {name: value for name, value in vars(arguments).items() if name not in ("out", "serve")},
            "requests_per_second": speeds(url, arguments),
            "memory": memory(url, arguments),
        }
    finally:
        server.kill()
        server.wait()
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text + "\n", "utf-8")


def parse() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--requests", type=int, default=6000, help="in each measurement")
    parser.add_argument("--openai-requests", type=int, default=1500, help="the same, for the official client")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory-requests", type=int, default=100_000)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


async def serve() -> None:
    """The server: canned answers, encoded beforehand."""
    sys.path.insert(0, str(TESTS))
    from loopback import Asked, Reply, listen

    class Canned(Reply):
        """An answer that is encoded once."""

        def __init__(self, body: Any) -> None:
            super().__init__(body)
            self.content = super().encoded()

        def encoded(self) -> bytes:
            return self.content

    usage = {"prompt_tokens": 80, "completion_tokens": 26, "completion_tokens_details": {"reasoning_tokens": 24}}
    message = {"role": "assistant", "content": "##{7}", "reasoning_content": "so " * 24}
    chat = {"index": 0, "message": message, "finish_reason": "stop"}
    models = {"object": "list", "data": [{"id": "toy", "object": "model", "owned_by": "vllm", "created": 1}]}
    common = {"id": "c", "object": "chat.completion", "created": 1, "model": "toy", "usage": usage}

    def completion(ids: list[int], text: str, stop: str | None) -> Reply:
        ended = {"finish_reason": "stop" if stop else "length", "stop_reason": stop}
        return Canned({"choices": [{"index": 0, "text": text, "token_ids": ids, **ended}], "usage": usage})

    replies = {
        "/v1/models": Canned(models),
        "/version": Canned({"version": "0"}),
        "/tokenize": Canned({"tokens": THOUGHT}),
        "/v1/chat/completions": Canned({**common, "choices": [chat]}),
    }
    prompt = Canned({"tokens": list(range(80))})
    thought, answer = completion(THOUGHT, "so " * 24, None), completion(ANSWER, "7}", "}")

    def handle(asked: Asked) -> Reply:
        if asked.path == "/v1/completions":
            return answer if b'"temperature":0.0' in asked.content else thought
        if asked.path == "/tokenize" and b'"messages"' in asked.content:
            return prompt
        if asked.path == "/detokenize":
            return Reply({"prompt": {8: "7", 9: "}"}.get(asked.json["tokens"][0], "so ")})
        return replies[asked.path]

    server = await listen(handle)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


def speeds(url: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Requests a second of each way to ask: median, lowest and highest over the rounds."""
    ways = {
        "forethought client": (arguments.requests, by_client),
        "forethought engine, one call": (arguments.requests, by_engine("max-tokens")),
        "forethought engine, two calls": (arguments.requests, by_engine("two-call")),
    }
    if installed("openai"):
        ways["official openai client"] = (arguments.openai_requests, by_openai)
    found: dict[str, list[float]] = {name: [] for name in ways}
    for round_number in range(arguments.rounds + 1):
        for name, (num_requests, way) in ways.items():
            speed = way(url, num_requests, arguments.concurrency)
            if round_number:  # the first warms up
                found[name].append(speed)
    return {
        name: {"median": round(statistics.median(each)), "lowest": round(min(each)), "highest": round(max(each))}
        for name, each in found.items()
    }


def body() -> dict[str, Any]:
    """One chat request."""
    return {"model": "toy", "messages": [{"role": "user", "content": PROMPT}], "max_tokens": BUDGET, "temperature": 0.6}


async def driven(call: Call, num_requests: int, concurrency: int) -> float:
    """Requests a second of `call`, `concurrency` at a time."""
    waiting = iter(range(num_requests))

    async def work() -> None:
        for _ in waiting:
            await call()

    started = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(concurrency)))
    return num_requests / (time.perf_counter() - started)


def by_client(url: str, num_requests: int, concurrency: int) -> float:
    """The engine's own HTTP client."""
    from forethought.servers.address import Address
    from forethought.servers.client import Client
    from forethought.servers.retrying import Backoff
    from forethought.servers.tokens import Counters

    async def measured() -> float:
        async with Client(
            Address.parse(url),
            None,
            backoff=Backoff(),
            timeout_seconds=60.0,
            concurrency=concurrency,
            counters=Counters(),
        ) as client:
            target = client.address.api("chat/completions")
            return await driven(lambda: client.post(target, body()), num_requests, concurrency)

    return asyncio.run(measured())


def by_engine(enforce: str) -> Callable[[str, int, int], float]:
    """The whole engine: HTTP requests per second, generations made and counted."""

    def measured(url: str, num_requests: int, concurrency: int) -> float:
        engine = opened(url, enforce, concurrency)
        before = engine.counters.num_calls
        started = time.perf_counter()
        asyncio.run(generated(engine, num_requests // (3 if enforce == "two-call" else 1)))
        return float((engine.counters.num_calls - before) / (time.perf_counter() - started))

    return measured


def opened(url: str, enforce: str, concurrency: int) -> Any:
    """An engine at the scripted server."""
    from forethought.core.prompts import PromptTemplate
    from forethought.engines.server.engine import OpenAIEngine

    template = PromptTemplate(name="bench", reasoning_end="##", answer_suffix="\n##{", answer_stop="}")
    return OpenAIEngine("toy", template=template, base_url=url, enforce=enforce, concurrency=concurrency)


async def generated(engine: Any, num_requests: int) -> None:
    """Runs so many requests; every one must come to an answer."""
    from forethought.core.data import Query, Request

    requests = [Request(Query(str(number), PROMPT), BUDGET, 0, number) for number in range(num_requests)]
    async for done in engine.generate(requests):
        assert done.error is None, done.error
        assert done.answer == "7"


def by_openai(url: str, num_requests: int, concurrency: int) -> float:
    """The official client."""
    import openai

    async def measured() -> float:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as client:
            return await driven(lambda: client.chat.completions.create(**body()), num_requests, concurrency)

    return asyncio.run(measured())


def memory(url: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Resident memory over many requests in one engine, read after each tenth of them."""
    engine = opened(url, "max-tokens", arguments.concurrency)
    part = arguments.memory_requests // 10
    asyncio.run(generated(engine, part))  # whatever is allocated once
    mib = []
    for _ in range(10):
        asyncio.run(generated(engine, part))
        gc.collect()
        mib.append(round(resident_mib(), 1))
    return {"requests": 10 * part, "resident_mib": mib, "growth_mib": round(mib[-1] - mib[0], 1)}


def resident_mib() -> float:
    """Memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def installed(name: str) -> str | None:
    """Version of a package, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
