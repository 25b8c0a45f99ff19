"""Measures, at a real server, which ways to keep a budget are kept and what each costs.

    python benchmarks/enforcement.py --base-url http://127.0.0.1:8000/v1 --served-model NAME --native-offset 2
    python benchmarks/enforcement.py --base-url http://127.0.0.1:8080/v1 --served-model NAME --native-fields TAGS.json

Every way gets the same questions at the same cap and seeds. Overhead is time per token of thought over that of plain
generation (one chat call with max_tokens), in the same round; the ways alternate within a round. With --server-session
it is the processor time of the server's processes, which a busy machine disturbs less than the clock.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

PLAIN = "max-tokens"


def main() -> None:
    """Measures, prints and writes JSON."""
    arguments = parse()
    from forethought.core.data import Request, Sampling
    from forethought.core.prompts import load_template
    from forethought.engines.server.engine import OpenAIEngine
    from forethought.questions.queries import load_queries

    queries = load_queries(arguments.data, limit=arguments.questions)
    probes = tuple(range(arguments.window, arguments.cap, arguments.window))
    ways: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
        PLAIN: ({"enforce": "max-tokens"}, ()),
        "two-call, token ids": ({"enforce": "two-call"}, ()),
        "two-call, token ids, probed": ({"enforce": "two-call"}, probes),
        "two-call, chat": ({"enforce": "two-call", "ids": False}, ()),
        "two-call, chat, probed": ({"enforce": "two-call", "ids": False}, probes),
        "native": ({"enforce": "native"}, ()),
    }
    if arguments.tokenizer:
        ways["two-call, text"] = {"enforce": "two-call", "ids": False, "tokenizer": arguments.tokenizer}, ()
    if offset := arguments.native_offset:
        ways[f"native, cap_offset={offset}"] = {"enforce": "native", "cap_offset": offset}, ()
    if arguments.native_fields:
        fields = json.loads(arguments.native_fields.read_text("utf-8"))
        ways["native, native_fields"] = {"enforce": "native", "native_fields": fields}, ()
    engines = {
        name: OpenAIEngine(
            "model",
            template=load_template(arguments.template),
            sampling=Sampling(0.6),
            base_url=arguments.base_url,
            served_model=arguments.served_model,
            concurrency=arguments.concurrency,
            **options,
        )
        for name, (options, _) in ways.items()
    }
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for number in range(-1, arguments.rounds):
        for name, (_, probed) in ways.items():
            asked = [Request(query, arguments.cap, 0, 100 * number + row, probed) for row, query in enumerate(queries)]
            started = now(arguments.server_session)
            found = asyncio.run(collect(engines[name], asked))
            seconds = now(arguments.server_session) - started
            if number < 0:
                continue  # warms up: prompts cached, tokens learnt
            healthy = [done for done in found if done.error is None]
            rows[name].append(
                {
                    "seconds": seconds,
                    "requests": len(found),
                    "kept": sum(done.reasoning_tokens <= arguments.cap for done in healthy),
                    "answered": sum(bool(done.answer) for done in healthy),
                    "thought_tokens": sum(done.reasoning_tokens for done in healthy),
                    "probes": sum(len(done.probes) for done in healthy),
                }
            )
    engine = engines[PLAIN]
    result = {
        "server": engine.info.server,
        "settings": {
            name: value
            for name, value in vars(arguments).items()
            if name not in ("out", "base_url", "server_session", "native_fields")
        },
        "seconds_are": "clock" if arguments.server_session is None else "processor time of the server",
        "load": [round(value, 2) for value in os.getloadavg()],
        "ways": {name: summary(each, rows[PLAIN], engines[name]) for name, each in rows.items()},
    }
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text + "\n", "utf-8")


def parse() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--served-model", required=True)
    parser.add_argument("--template", default="boxed")
    parser.add_argument("--data", default="gsm8k-demo", help="dataset name or file of questions")
    parser.add_argument("--questions", type=int, default=8)
    parser.add_argument("--cap", type=int, default=64)
    parser.add_argument("--window", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--native-offset", type=int, default=0)
    parser.add_argument("--native-fields", type=Path, help="JSON file of fields beside the native cap: one more way")
    parser.add_argument(
        "--tokenizer", default="", help="alias or folder whose tokenizer renders plain text: one more way"
    )
    parser.add_argument("--server-session", type=int, help="session id of the server's processes (started by setsid)")
    parser.add_argument("--hardware", default="", help="what the server runs on, in words")
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def now(session: int | None) -> float:
    """Seconds by the clock, or of processor time that all processes of a session have used."""
    if session is None:
        return time.perf_counter()
    ticks = 0
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = file.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(fields[3]) == session:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


async def collect(engine: Any, requests: list[Any]) -> list[Any]:
    """Everything that `requests` give."""
    return [done async for done in engine.generate(requests)]


def summary(rows: list[dict[str, float]], plain: list[dict[str, float]], engine: Any) -> dict[str, Any]:
    """Counts over the rounds, and the overhead over plain generation: median, lowest, highest."""
    counts = ("requests", "kept", "answered", "thought_tokens", "probes")
    found: dict[str, Any] = {name: int(sum(row[name] for row in rows)) for name in counts}
    found["seconds"] = [round(row["seconds"], 2) for row in rows]
    if all(row["thought_tokens"] for row in rows):
        ratios = [each(row) / each(base) - 1 for row, base in zip(rows, plain, strict=True)]
        found["overhead"] = {
            "median": round(statistics.median(ratios), 3),
            "lowest": round(min(ratios), 3),
            "highest": round(max(ratios), 3),
        }
    counters = engine.counters
    if counters.num_overshoots:
        found["largest_overshoot"] = counters.largest_overshoot
    if counters.prompt_tokens and counters.cached_tokens:
        found["prompt_tokens_cached"] = round(counters.cached_tokens / counters.prompt_tokens, 3)
    return found


def each(row: dict[str, float]) -> float:
    """Seconds a token of thought."""
    return row["seconds"] / row["thought_tokens"]


if __name__ == "__main__":
    main()
