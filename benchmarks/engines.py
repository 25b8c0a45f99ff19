"""Measures an engine: plain generation, what forced answers at every window add, and hidden states of prompts.

    python benchmarks/engines.py --engine transformers --model qwen2.5-coder-0.5b --questions 16 --traces 4 --threads 2

Every number is the median over repeats with its spread (lowest to highest). The repeats with and without probes
alternate, so that a machine that slows down for a while slows both.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from machine import processor


def main() -> None:
    """Opens the engine, measures, prints JSON and one Markdown row."""
    arguments = parse()
    # Before torch or vLLM is imported: both read it once.
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    from forethought.core import registry
    from forethought.core.data import Sampling
    from forethought.core.menu import Menu
    from forethought.core.prompts import load_template
    from forethought.questions.queries import load_queries

    queries = load_queries(arguments.data, limit=arguments.questions)
    menu = Menu.evenly(arguments.window, arguments.max_tokens)
    started = time.perf_counter()
    engine = registry.resolve("engines", arguments.engine)(
        arguments.model,
        template=load_template(arguments.template),
        sampling=Sampling(arguments.temperature),
        num_sequences=arguments.num_sequences,
        **({"num_threads": arguments.threads} if arguments.engine == "transformers" else {}),
    )
    start_seconds = time.perf_counter() - started
    try:
        result = {
            "engine": engine.info.engine,
            "model": engine.info.model,
            "model_hash": engine.info.model_hash,
            "template": engine.info.template,
            "dtype": engine.info.dtype,
            "device": engine.info.device,
            "versions": {"python": platform.python_version(), **engine.info.versions},
            "hardware": hardware(arguments.threads),
            "settings": {
                key: value
                for key, value in vars(arguments).items()
                if key not in ("out", "engine", "model", "template")
            },
            "start_seconds": round(start_seconds, 2),
            **measure(engine, queries, menu, arguments),
        }
    finally:
        engine.close()
    text = json.dumps(result, indent=2)
    print(text)
    print(markdown_row(result))
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text + "\n")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=["transformers", "vllm"], default="transformers")
    parser.add_argument("--model", default="qwen2.5-coder-0.5b", help="alias, folder or hub id")
    parser.add_argument("--data", default="gsm8k-demo", help="dataset name or file of questions")
    parser.add_argument("--questions", type=int, default=16)
    parser.add_argument("--traces", type=int, default=4, help="traces per question")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--template", default="worked-5")
    parser.add_argument("--temperature", type=float, default=0.6)
    parser.add_argument("--window", type=int, default=16)
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--num-sequences", type=int, default=64)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    for name in ("questions", "traces", "threads", "repeats"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name} must be at least 1")
    return arguments


def measure(engine: Any, queries: Sequence[Any], menu: Any, arguments: argparse.Namespace) -> dict[str, Any]:
    """Alternates hidden states, plain traces and the same traces with probes; the first round only warms up."""
    from forethought.core.data import Request, StopReason

    caps = tuple(int(budget) for budget in menu.budgets_B)[:-1]
    layers = [engine.info.num_layers // 2]
    samples: dict[str, list[float]] = {"hidden": [], "plain": [], "probed": []}
    tokens: dict[str, int] = {}
    num_probes = 0
    for repeat in range(-1, arguments.repeats):
        if repeat < 0:
            warm = [Request(query, menu.smallest, 0, 0, ()) for query in queries[:2]]
            asyncio.run(collect(engine, warm))
            continue
        seconds = {}
        begin = time.perf_counter()
        engine.hidden_states(queries, layers)
        seconds["hidden"] = time.perf_counter() - begin
        # Which of the two goes first alternates as well: the later one may find prompts of the earlier in a cache.
        kinds = [("plain", ()), ("probed", caps)]
        for kind, probes in kinds if repeat % 2 == 0 else kinds[::-1]:
            requests = [
                Request(query, menu.largest, sample, 1000 * row + sample, probes)
                for row, query in enumerate(queries)
                for sample in range(arguments.traces)
            ]
            begin = time.perf_counter()
            done = asyncio.run(collect(engine, requests))
            seconds[kind] = time.perf_counter() - begin
            tokens[kind] = sum(generation.reasoning_tokens + generation.answer_tokens for generation in done)
            if errors := [generation.error for generation in done if generation.stop_reason is StopReason.ERROR]:
                raise SystemExit(
                    f"{len(errors)} of {len(done)} traces failed, so there is nothing to time: {errors[0]}"
                )
            if kind == "probed":
                num_probes = sum(len(generation.probes) for generation in done)
        for kind, value in seconds.items():
            samples[kind].append(value)
    rates = [tokens["plain"] / seconds for seconds in samples["plain"]]
    multiples = [(probed - plain) / plain for plain, probed in zip(samples["plain"], samples["probed"], strict=True)]
    return {
        "num_traces": len(queries) * arguments.traces,
        "num_probes": num_probes,
        "tokens_plain": tokens["plain"],
        "plain_tokens_per_second": spread(rates),
        "probes_cost_of_plain": spread(multiples),
        "hidden_seconds_per_prompt": spread([seconds / len(queries) for seconds in samples["hidden"]]),
        "seconds": {kind: [round(value, 3) for value in values] for kind, values in samples.items()},
    }


async def collect(engine: Any, requests: Sequence[Any]) -> list[Any]:
    """Everything that `requests` give."""
    return [generation async for generation in engine.generate(requests)]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, lowest and highest."""
    return {
        "median": round(statistics.median(values), 4),
        "lowest": round(min(values), 4),
        "highest": round(max(values), 4),
    }


def hardware(threads: int) -> dict[str, Any]:
    """What it ran on: processor, cores, threads used, load at the time, and the accelerator if there is one."""
    found: dict[str, Any] = {
        "cpu": processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "load": [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
    }
    import torch

    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def markdown_row(result: dict[str, Any]) -> str:
    """One row of the table in the docs."""

    def cell(value: dict[str, float], digits: int) -> str:
        return f"{value['median']:.{digits}f} ({value['lowest']:.{digits}f}–{value['highest']:.{digits}f})"

    machine = result["hardware"].get("gpu") or f"{result['hardware']['cpu']}, {result['hardware']['threads']} threads"
    cells = [
        result["engine"],
        f"{result['model']} {result['dtype']}",
        machine,
        cell(result["plain_tokens_per_second"], 1) + " tokens/s",
        cell(result["probes_cost_of_plain"], 2) + " x plain",
        cell(result["hidden_seconds_per_prompt"], 3) + " s/prompt",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
