"""Does priority = predicted length pay? Latency at a live vLLM server under Poisson arrivals.

    python benchmarks/priority.py --vllm PYTHON --predictor FOLDER --profile PROFILE.parquet --out FILE

Starts vLLM's own server with `--scheduling-policy priority` and few slots, so that requests queue. A round is a draw of
questions and of arrival times; it is run once under every policy, with the same questions, times, caps and seeds, in an
order that turns from round to round; every prompt has been read before, so that no policy pays for that. Budgets come
from a plan of the envelope. The policies say as priority (the lower goes first, ties by arrival):

- `fcfs`: the same for all.
- `predicted`: tokens that the predictor expects under the granted budget.
- `aged`: the second of arrival plus, for every predicted token, `--patience` times the seconds that a slot takes for a
  token: nobody is overtaken by what arrives more than that later.
- `true`: tokens that the same request took under `fcfs` in this round: what a perfect prediction would give.

The load is set by the server's own speed: all questions of a round of warming up at once, tokens over seconds. Latency
runs from a request's arrival to its whole answer. Ratios to `fcfs` are of rounds; intervals are bootstraps of rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import numpy as np

from forethought import models
from forethought.allocators import allocate
from forethought.core.data import Query
from forethought.core.features import Features
from forethought.core.prompts import PromptTemplate, load_template
from forethought.predictors.predictor import Predictor
from forethought.runs.profiles import read_parquet
from machine import VLLM_ON_CPU

POLICIES = ("fcfs", "predicted", "aged", "true")
ROOM = 40  # tokens after a thought: the forced suffix and the answer


@dataclass(frozen=True)
class Job:
    """One question under its granted budget, and the tokens it is predicted to take."""

    query: Query
    budget: int
    predicted: int


@dataclass(frozen=True)
class Served:
    """What came of a job: seconds from its arrival to its answer, and tokens generated."""

    seconds: float
    tokens: int


def jobs_of(predictor: str, profile: str, *, mean_tokens: float) -> list[Job]:
    """Every question of the profile with its budget out of one plan, and its predicted tokens; from the text alone."""
    measured = read_parquet(Path(profile))
    features = Features(measured.num_queries, texts=measured.texts)
    curves = Predictor.load(Path(predictor)).predict(list(measured.query_ids), features)
    plan = allocate("envelope", curves, total=mean_tokens * measured.num_queries)
    assert curves.tokens_Q_B is not None, "the predictor knows nothing of spend"
    tokens_Q = curves.tokens_Q_B[np.arange(measured.num_queries), curves.menu.columns(plan.budget_Q)]
    rows = zip(measured.query_ids, measured.texts, plan.budget_Q.tolist(), tokens_Q.tolist(), strict=True)
    return [Job(Query(query_id, text), budget, round(tokens)) for query_id, text, budget, tokens in rows]


class Client:
    """Sends jobs to the server, each as one chat call with vLLM's own cap on its thought."""

    def __init__(self, url: str, session: aiohttp.ClientSession, template: PromptTemplate) -> None:
        self.url, self.session, self.template = url, session, template

    async def serve(self, job: Job, *, seed: int, priority: int, started: float, room: int = ROOM) -> Served:
        """One job's answer, of at most `room` tokens after its thought; `started` is when it arrived."""
        body = {
            "model": "m",
            "messages": [{"role": each.role, "content": each.content} for each in self.template.messages(job.query)],
            "temperature": 0.6,
            "top_k": 0,
            "repetition_penalty": 1.0,
            "seed": seed,
            "priority": priority,
            # The start tag has three tokens: vLLM 0.32 is two tokens late (docs/engines.md).
            "thinking_token_budget": max(0, job.budget - 2),
            "max_tokens": job.budget + room,
            "stop": [self.template.answer_stop],
        }
        async with self.session.post(f"{self.url}/v1/chat/completions", json=body) as answer:
            content = await answer.json()
            if answer.status != 200:
                raise SystemExit(f"the server answers {answer.status}: {content}")
        return Served(time.perf_counter() - started, int(content["usage"]["completion_tokens"]))

    async def read(self, jobs: Sequence[Job]) -> None:
        """Has every prompt read once, so that the first policy of a round finds it in the cache as later ones do."""
        for job in jobs:
            await self.serve(job, seed=0, priority=0, started=time.perf_counter(), room=1 - job.budget)

    async def round(
        self, jobs: Sequence[Job], arrivals: Sequence[float], priority_of: Callable[[int], int]
    ) -> tuple[list[Served], float]:
        """All jobs, each sent when its time has come; what came of each, and seconds in all."""
        began = time.perf_counter()

        async def arrive(number: int) -> Served:
            await asyncio.sleep(max(0.0, began + arrivals[number] - time.perf_counter()))
            return await self.serve(
                jobs[number], seed=number, priority=priority_of(number), started=began + arrivals[number]
            )

        served = await asyncio.gather(*map(arrive, range(len(jobs))))
        return list(served), time.perf_counter() - began


async def measure(url: str, jobs: list[Job], arguments: argparse.Namespace) -> AsyncIterator[dict[str, Any]]:
    """Warms the server up, then runs the rounds; what is known after each."""
    random = np.random.default_rng(arguments.seed)
    timeout = aiohttp.ClientTimeout(total=1800)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
        client = Client(url, session, load_template(arguments.template))

        def draw() -> list[Job]:
            return [jobs[row] for row in random.choice(len(jobs), arguments.requests, replace=False)]

        warm = draw()
        await client.read(warm)
        served, seconds = await client.round(warm, [0.0] * len(warm), lambda _: 0)
        speed = sum(each.tokens for each in served) / seconds
        mean_tokens = float(np.mean([each.tokens for each in served]))
        aged = arguments.patience * arguments.slots / speed
        print(f"{speed:.1f} tokens per second, {mean_tokens:.0f} per request, {aged:.3f} s a token", file=sys.stderr)
        rounds: list[dict[str, Any]] = []
        for number in range(arguments.rounds * len(arguments.load)):
            load = arguments.load[number % len(arguments.load)]
            gap = mean_tokens / speed / load
            drawn, arrivals = draw(), np.cumsum(random.exponential(gap, arguments.requests)).tolist()
            await client.read(drawn)
            found: dict[str, tuple[list[Served], float]] = {}
            turned = number // len(arguments.load) % 2  # `true` needs what `fcfs` took, so it goes after it
            order = ("fcfs", "true", "aged", "predicted") if turned else ("predicted", "aged", "fcfs", "true")
            for policy in order:
                priority_of: dict[str, Callable[[int], int]] = {
                    "fcfs": lambda _: 0,
                    "predicted": lambda row, drawn=drawn: drawn[row].predicted,
                    "aged": lambda row, drawn=drawn, arrivals=arrivals: round(
                        1000 * (arrivals[row] + aged * drawn[row].predicted)
                    ),
                    "true": lambda row, found=found: found["fcfs"][0][row].tokens,
                }
                found[policy] = await client.round(drawn, arrivals, priority_of[policy])
                print(load, policy, summary(*found[policy]), file=sys.stderr)
            tokens = np.array([each.tokens for each in found["fcfs"][0]])
            rounds.append(
                {
                    "load": load,
                    "order": order,
                    "correlation": float(np.corrcoef([job.predicted for job in drawn], tokens)[0, 1]),
                    "arrivals": [round(each, 3) for each in arrivals],
                    "budgets": [job.budget for job in drawn],
                    "predicted": [job.predicted for job in drawn],
                    "policies": {
                        policy: {**summary(*each), "served": [list(asdict(one).values()) for one in each[0]]}
                        for policy, each in found.items()
                    },
                }
            )
            by_load = {str(load): ratios([each for each in rounds if each["load"] == load]) for load in arguments.load}
            yield {
                "tokens_per_second": speed,
                "tokens_per_request": mean_tokens,
                "aged_seconds_per_token": aged,
                "rounds": rounds,
                "ratios": by_load,
            }


def summary(served: Sequence[Served], seconds: float) -> dict[str, float]:
    """Seconds: mean, 95th percentile, longest, of the shortest and longest fifth, and in all."""
    latency = np.array([each.seconds for each in served])
    by_length = latency[np.argsort([each.tokens for each in served], kind="stable")]
    fifth = max(1, len(latency) // 5)
    found = {
        "mean": latency.mean(),
        "median": np.median(latency),
        "p95": np.quantile(latency, 0.95),
        "longest": latency.max(),
        "mean_of_shortest_fifth": by_length[:fifth].mean(),
        "mean_of_longest_fifth": by_length[-fifth:].mean(),
        "makespan": seconds,
    }
    return {name: round(float(value), 3) for name, value in found.items()}


def ratios(rounds: Sequence[dict[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """Each policy's figures over those of `fcfs` in the same round: geometric mean, 95% bootstrap, extremes."""
    random = np.random.default_rng(0)
    table: dict[str, dict[str, list[float]]] = {}
    for policy in POLICIES[1:] if rounds else ():
        table[policy] = {}
        for name in ("mean", "median", "p95", "longest", "mean_of_shortest_fifth", "mean_of_longest_fifth", "makespan"):
            log_R = np.log([each["policies"][policy][name] / each["policies"]["fcfs"][name] for each in rounds])
            drawn = log_R[random.integers(0, len(log_R), (10_000, len(log_R)))].mean(axis=1)
            low, high = np.quantile(drawn, [0.025, 0.975])
            values = (log_R.mean(), low, high, log_R.min(), log_R.max())
            table[policy][name] = [round(float(np.exp(each)), 3) for each in values]
    return table


def main() -> None:
    """Starts the server, measures, prints and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vllm", default=sys.executable, help="a Python that has vLLM")
    parser.add_argument("--model", default="qwen2.5-coder-0.5b")
    parser.add_argument("--predictor", required=True, help="folder of a predictor that reads texts")
    parser.add_argument("--profile", required=True, help="questions it was not trained on")
    parser.add_argument("--template", default="worked-5", help="the predictor's")
    parser.add_argument("--mean-tokens", type=float, default=64)
    parser.add_argument("--requests", type=int, default=40, help="in a round")
    parser.add_argument("--rounds", type=int, default=6, help="of every load")
    parser.add_argument("--slots", type=int, default=4, help="sequences decoded together")
    parser.add_argument(
        "--load", type=float, nargs="+", default=[0.9, 2.0], help="tokens that arrive over tokens that can be served"
    )
    parser.add_argument("--patience", type=float, default=8, help="of `aged`")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    jobs = jobs_of(arguments.predictor, arguments.profile, mean_tokens=arguments.mean_tokens)
    template = load_template(arguments.template)
    reasoning = {"reasoning_start_str": "<|im_start|>assistant\n", "reasoning_end_str": template.answer_suffix}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [
        *(arguments.vllm, "-m", "vllm.entrypoints.openai.api_server", "--host=127.0.0.1", f"--port={port}"),
        *(f"--model={models.locate(arguments.model).path}", "--served-model-name=m", "--dtype=bfloat16"),
        *("--max-model-len=2048", "--max-num-batched-tokens=2048", f"--max-num-seqs={arguments.slots}"),
        *("--block-size=32", "--enforce-eager", "--no-enable-chunked-prefill", "--scheduling-policy=priority"),
        f"--reasoning-config={json.dumps(reasoning)}",
    ]
    with TemporaryDirectory() as scratch, (Path(scratch) / "log").open("w") as log:
        server = subprocess.Popen(
            command,
            env={**os.environ, **VLLM_ON_CPU, "OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            wait(server, port, Path(scratch) / "log")
            asyncio.run(record(f"http://127.0.0.1:{port}", jobs, arguments))
        finally:
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)
            server.wait(60)


async def record(url: str, jobs: list[Job], arguments: argparse.Namespace) -> None:
    """Measures; writes what is known after every round, and prints the ratios at the end."""
    settings = {key: value for key, value in vars(arguments).items() if key not in ("vllm", "out")}
    settings["predictor"], settings["profile"] = Path(arguments.predictor).name, Path(arguments.profile).name
    found: dict[str, Any] = {}
    async for found in measure(url, jobs, arguments):
        if arguments.out:
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            arguments.out.write_text(json.dumps({"settings": settings, **found}) + "\n")
    print(json.dumps({"settings": settings, "ratios": found["ratios"]}, indent=2))


def wait(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Until the server takes requests."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.5)
    raise SystemExit(f"vLLM did not start:\n{log.read_text()[-3000:]}")


if __name__ == "__main__":
    main()
