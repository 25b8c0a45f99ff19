"""What a gateway adds to a request: a bare pass-through, `forethought serve` and LiteLLM's proxy, by turns.

One scripted upstream and one client share a core; each server has the other to itself. Every figure is of one round of
a server; rounds go by turns, so that what else the machine does falls on all of them.

    python benchmarks/gateway_speed.py --litellm /path/to/venv/bin/litellm
    python benchmarks/gateway_speed.py --only parts
    python benchmarks/gateway_speed.py --only pauses
    python benchmarks/gateway_speed.py --only memory --seconds 600

On a machine that is not idle, waits say more of the others than of the servers: look at CPU a request and at ratios,
and give it a niceness below theirs.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import uvloop

import forethought as ft
from forethought.control import sources
from forethought.core.data import Cost
from forethought.gateway.decision import Decider
from forethought.gateway.scripted import Asked, LoadResult, ask_chat, run_load

KEY = "ft-benchmark"
BARE, GATEWAY, LITELLM = "bare pass-through", "forethought serve", "LiteLLM proxy"
# The gateway without some of what it does: (predictor, whether there are quotas, whether there is a journal).
PARTS = {
    "mean curve alone": ("mean", False, False),
    "prediction by text": ("predictor", False, False),
    "prediction and ledger": ("predictor", True, False),
    GATEWAY: ("predictor", True, True),
}
CLIENT_CORE, SERVER_CORE = 0, 1
PAUSES = (0.0, 0.003, 0.007)  # seconds between two predictions: none, as at 300 requests a second, as at 140
LATENCY = 0.02  # seconds that the upstream takes to its first token, where waits are measured
LITELLM_CONFIG = """
model_list:
  - model_name: scripted
    litellm_params: {{model: openai/scripted, api_base: {url}, api_key: none}}
litellm_settings: {{telemetry: false, request_timeout: 600}}
"""
TENANTS = """
[gateway]
tokens_per_day = 100_000_000_000
[tenants.bench]
key_sha256 = "{hash}"
tokens_per_hour = 10_000_000_000
"""


async def serve_bare(url: str, port: int) -> None:
    """The gateway's own server and client with nothing between them."""
    from forethought.gateway.hosts.upstream.client import Upstream
    from forethought.gateway.hosts.upstream.forward import Forward
    from forethought.gateway.hosts.upstream.server import Server
    from forethought.servers.address import Address

    address = Address.parse(url, "upstream")
    listening = socket.create_server(("127.0.0.1", port))
    server = Server(
        Forward(Upstream(address.origin), address, kind="vllm"),
        drain_seconds=1.0,
        num_running=lambda: 0,
        drain=lambda: None,
    )
    await server.run_until_stopped(listening)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def running(
    command: Sequence[str], *, core: int, folder: Path, wait: str = "", **env: str
) -> Iterator[subprocess.Popen]:
    """A process on one core, until it answers at `wait`; its output goes to a file."""
    pinned = ["taskset", "-c", str(core)] if os.cpu_count() != 1 else []
    with (folder / f"{Path(command[0]).name}-{time.monotonic_ns()}.log").open("wb") as log:
        process = subprocess.Popen(
            [*pinned, *command], stdout=subprocess.PIPE if not wait else log, stderr=log, env={**os.environ, **env}
        )
        try:
            until = time.monotonic() + 180
            while wait:
                if process.poll() is not None or time.monotonic() > until:
                    raise SystemExit(f"{' '.join(command)} did not start; see {log.name}")
                with contextlib.suppress(OSError), urlopen(wait, timeout=1):
                    break
                time.sleep(0.1)
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


@contextlib.contextmanager
def upstream(folder: Path, *arguments: str) -> Iterator[str]:
    """The scripted server's address."""
    command = [sys.executable, "-m", "forethought.gateway.scripted", *arguments]
    with running(command, core=CLIENT_CORE, folder=folder) as process:
        assert process.stdout is not None
        yield process.stdout.readline().decode().strip()


@contextlib.contextmanager
def served(name: str, url: str, folder: Path, litellm: str) -> Iterator[tuple[str, int]]:
    """`(address, process id)` of one of the servers."""
    port = free_port()
    here = f"http://127.0.0.1:{port}"
    if name == BARE:
        command, wait = [sys.executable, __file__, "--serve-bare", url, "--port", str(port)], f"{here}/health"
    elif name in PARTS:
        predictor, has_quotas, has_journal = PARTS[name]
        command = [sys.executable, "-m", "forethought", "serve", "--upstream", url, "--port", str(port)]
        command += ["--predictor", str(folder / predictor), "--price", "0.001"]
        command += ["--enforce", "native"]  # its thoughts end by themselves
        if has_quotas:
            tenants = folder / "tenants.toml"
            tenants.write_text(TENANTS.format(hash=hashlib.sha256(KEY.encode()).hexdigest()))
            command += ["--tenants", str(tenants), "--ledger", f"sqlite:{folder / f'ledger-{port}.db'}"]
        command += ["--log", str(folder / f"journal-{port}")] if has_journal else []
        wait = f"{here}/health"
    else:
        config = folder / "litellm.yaml"
        config.write_text(LITELLM_CONFIG.format(url=url))
        command = [litellm, "--config", str(config), "--port", str(port), "--host", "127.0.0.1", "--num_workers", "1"]
        wait = f"{here}/health/liveliness"
    clean = {"LITELLM_TELEMETRY": "False", "LITELLM_LOG": "ERROR", "OMP_NUM_THREADS": "1"}
    clean["LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY"] = "true"  # on loopback, and one check less for it
    with running(command, core=SERVER_CORE, folder=folder, wait=wait, **clean) as process:
        yield f"{here}/v1", process.pid


def load(url: str, ask: Callable[[int], Asked], **how: Any) -> LoadResult:
    """One load; refuses answers other than 200, which cost next to nothing."""
    result = uvloop.run(run_load(url, ask, **how))
    if set(result.status) != {200}:
        raise SystemExit(f"{url} answered {dict(result.status)}")
    return result


def round_of(
    url: str, pid: int, asks: Callable[[int], Asked], pace: Callable[[float], None], *, seconds: float, rate: float
) -> dict[str, float]:
    """One round of one server: throughput of an upstream that answers at once, waits of one that takes LATENCY."""
    pace(0.0)
    at_once = load(url, asks, num_requests=100, num_clients=1)
    cpu = cpu_seconds(pid)
    closed = load(url, asks, seconds=seconds, num_clients=32)
    cpu = cpu_seconds(pid) - cpu
    pace(LATENCY)
    single = load(url, asks, num_requests=50, num_clients=1)
    steady = load(url, asks, seconds=seconds, rate=rate)
    return {
        "requests_per_second": closed.status.total() / closed.seconds,
        "cpu_ms": 1e3 * cpu / closed.status.total(),
        "at_once_ms": 1e3 * percentile(at_once, 50),
        "single_ms": 1e3 * (percentile(single, 50) - LATENCY),
        "steady_ms": 1e3 * (percentile(steady, 50) - LATENCY),
        "steady_p99_ms": 1e3 * (percentile(steady, 99) - LATENCY),
        "rate": rate,
    }


def cpu_seconds(pid: int) -> float:
    """Seconds of a core that a process has taken so far; other processes on the core do not count."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def percentile(result: LoadResult, share: float) -> float:
    """Seconds to the last byte that `share` percent of the answers took at most."""
    values = sorted(result.last_bytes)
    return values[min(len(values) - 1, int(len(values) * share / 100))]


def questions() -> tuple[str, ...]:
    """The shipped test questions."""
    return sources.shipped_heldout("qwen2.5-coder-1.5b").texts


def speed(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Rounds of each server by turns."""
    texts = questions()

    def asks(number: int) -> Asked:
        return ask_chat(texts[number % len(texts)], key=KEY, seed=number)

    names = [BARE, *PARTS] if options.only == "parts" else [BARE, GATEWAY, *([LITELLM] if options.litellm else [])]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(upstream(folder, "--thought", "64"))
        servers = {name: stack.enter_context(served(name, url, folder, options.litellm)) for name in names}

        def pace(latency: float) -> None:
            body = json.dumps({"latency": latency}).encode()
            load(url.removesuffix("/v1"), lambda _: Asked(body, path="/scripted/pace"), num_requests=1)

        for name in names:
            load(servers[name][0], asks, num_requests=100 if name == LITELLM else 1000, num_clients=8)
        os.sched_setaffinity(0, {CLIENT_CORE} if os.cpu_count() != 1 else {0})
        for number in range(options.rounds):
            for name in names[number % len(names) :] + names[: number % len(names)]:
                rate = options.litellm_rate if name == LITELLM else options.rate
                found[name].append(round_of(*servers[name], asks, pace, seconds=options.seconds, rate=rate))
                print(number + 1, name, {key: round(value, 2) for key, value in found[name][-1].items()}, flush=True)
    return {name: {key: spread([each[key] for each in rounds]) for key in rounds[0]} for name, rounds in found.items()}


def spread(values: Sequence[float]) -> dict[str, float]:
    """The median round, the lowest and the highest."""
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def memory(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """200 clients that stream one answer after another: the gateway's memory over time."""
    texts = questions()

    def asks(number: int) -> Asked:
        return ask_chat(texts[number % len(texts)], key=KEY, seed=number, stream=True)

    seen: list[tuple[float, float]] = []

    async def watched(url: str, pid: int) -> LoadResult:
        async def watch() -> None:
            begun = time.monotonic()
            while True:
                await asyncio.sleep(options.seconds / 60)
                seen.append((time.monotonic() - begun, rss(pid)))

        watching = asyncio.create_task(watch())
        try:
            return await run_load(url, asks, seconds=options.seconds, num_clients=200)
        finally:
            watching.cancel()

    slow = ("--thought", "200", "--tokens-per-second", "20")
    with upstream(folder, *slow) as url, served(GATEWAY, url, folder, "") as (here, pid):
        load(here, asks, num_requests=200, num_clients=200)
        result = uvloop.run(watched(here, pid))
    early, late = (statistics.median(part) for part in halves([mib for _, mib in seen]))
    return {
        "clients": 200,
        "seconds": options.seconds,
        "streams": result.status.total(),
        "status": {str(status): count for status, count in result.status.items()},
        "rss_mib": {"second_quarter": early, "last_quarter": late, "most": max(mib for _, mib in seen)},
        "first_byte_ms": result.to_json()["first_byte_ms"],
    }


def pauses(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """CPU of one prediction by text, and of a plain loop, one after the other and after pauses: caches get cold."""
    decider = Decider(ft.Predictor.load(folder / "predictor"), price=0.001, cost=Cost.SPENT)
    texts = questions()

    def predict(number: int) -> None:
        decider.by_curve(texts[number % len(texts)])

    def count(_: int) -> None:
        sum(range(20_000))

    os.sched_setaffinity(0, {SERVER_CORE % (os.cpu_count() or 1)})
    found: dict[str, dict[str, list[float]]] = {"prediction": {}, "loop": {}}
    for _ in range(options.rounds):
        for pause in PAUSES:
            for name, work in (("prediction", predict), ("loop", count)):
                taken = []
                for number in range(200):
                    time.sleep(pause)
                    started = time.thread_time()
                    work(number)
                    taken.append(1e3 * (time.thread_time() - started))
                found[name].setdefault(f"{1e3 * pause:.0f} ms", []).append(statistics.median(taken))
    return {name: {pause: spread(values) for pause, values in row.items()} for name, row in found.items()}


def halves(values: Sequence[float]) -> tuple[Sequence[float], Sequence[float]]:
    """The second and the last quarter: what it is once it is warm, and at the end."""
    quarter = max(1, len(values) // 4)
    return values[quarter : 2 * quarter] or values, values[-quarter:]


def fsync_ms() -> float:
    """The median time of an fsync where the ledger lies."""
    with tempfile.NamedTemporaryFile() as file:
        taken = []
        for _ in range(50):
            file.write(b"x" * 4096)
            file.flush()
            started = time.perf_counter()
            os.fsync(file.fileno())
            taken.append(1e3 * (time.perf_counter() - started))
    return statistics.median(taken)


def rss(pid: int) -> float:
    """MiB that a process holds in memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


COLUMNS = {
    "requests_per_second": ("requests/s", 0),
    "cpu_ms": ("CPU a request, ms", 2),
    "at_once_ms": ("one client, ms", 2),
    "single_ms": ("one client, upstream of 20 ms: added, ms", 2),
    "steady_ms": ("steady rate, the same: median added, ms", 2),
    "steady_p99_ms": ("99th percentile added, ms", 2),
}


def table(found: dict[str, dict[str, dict[str, float]]]) -> str:
    """The speeds, as Markdown: the median round, and the lowest and the highest."""
    heads = ["server", *(head for head, _ in COLUMNS.values())]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for name, row in found.items():
        cells = []
        for key, (_, digits) in COLUMNS.items():
            median, least, most = (f"{row[key][which]:,.{digits}f}" for which in ("median", "least", "most"))
            cells.append(f"{median} ({least} to {most})")
        lines.append(f"| {name}, steady {row['rate']['median']:.0f}/s | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Runs what is asked for, and writes it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--litellm", default="", help="LiteLLM's command; without it the proxy is left out")
    parser.add_argument("--only", choices=("speed", "parts", "memory", "pauses"), default="speed")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load; of the memory test in all")
    parser.add_argument("--rate", type=float, default=300.0, help="requests a second of the steady load")
    parser.add_argument("--litellm-rate", type=float, default=40.0, help="of LiteLLM's, which does not take more")
    parser.add_argument("--out", type=Path, default=Path("docs/results/gateway/speed.json"))
    parser.add_argument("--serve-bare", default="", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve_bare:
        uvloop.run(serve_bare(options.serve_bare, options.port))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measured = sources.shipped_heldout("qwen2.5-coder-1.5b")
        ft.train(measured, predictor="text").save(folder / "predictor")
        ft.train(measured, predictor="mean").save(folder / "mean")
        found = {"memory": memory, "pauses": pauses}.get(options.only, speed)(options, folder)
    kept = json.loads(options.out.read_text()) if options.out.exists() else {}
    kept[options.only] = {
        "command": f"python benchmarks/gateway_speed.py {' '.join(sys.argv[1:])}".replace(
            options.litellm or "\n", "litellm"
        ),
        "niceness": os.nice(0),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "load_average": os.getloadavg()[0],
        "fsync_ms": fsync_ms(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("uvicorn", "uvloop", "httptools")},
        "found": found,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(kept, indent=1) + "\n")
    if options.only == "speed":
        options.out.with_suffix(".md").write_text(table(found))
        print(table(found))
    else:
        print(table(found) if options.only == "parts" else json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
