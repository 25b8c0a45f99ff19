"""The in-process vllm engine: budgets enforced by two calls and natively, what each costs, and what probes reuse.

    python benchmarks/in_process.py --model qwen2.5-coder-0.5b --out FILE

Both engines run in one process, by turns, on the same questions, cap and seeds; seconds are processor time of that
process. Probes: of their prompts' tokens (query, thought so far, suffix), how many the prefix cache held.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from pathlib import Path
from typing import Any

from forethought.core.data import Generation, Request, Sampling
from forethought.core.prompts import load_template
from forethought.engines.vllm import VllmEngine
from forethought.engines.vllm.reuse import Reuse
from forethought.questions.queries import load_queries


async def collect(engine: VllmEngine, requests: list[Request]) -> list[Generation]:
    """All generations."""
    return [done async for done in engine.generate(requests)]


def main() -> None:
    """Measures, prints and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="qwen2.5-coder-0.5b")
    parser.add_argument("--template", default="worked-5")
    parser.add_argument("--questions", type=int, default=12)
    parser.add_argument("--cap", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    queries = load_queries("gsm8k-demo", limit=arguments.questions)
    common: dict[str, Any] = {"num_sequences": 16, "kv_cache_gib": 1, "context_tokens": 2048}
    template = load_template(arguments.template)
    engines = {
        way: VllmEngine(arguments.model, template=template, sampling=Sampling(0.6), enforce=way, **common)
        for way in ("two-call", "native")
    }
    windows = {
        "": (),
        ", probed every 32": range(32, arguments.cap, 32),
        ", probed every 16": range(16, arguments.cap, 16),
    }
    rows: dict[str, list[dict[str, Any]]] = {}
    thoughts: dict[tuple[str, int, str], str] = {}
    for number in range(-1, arguments.rounds):
        for suffix, probes in windows.items():
            for way, engine in engines.items():
                asked = [Request(query, arguments.cap, 0, 100 * number + 1, tuple(probes)) for query in queries]
                engine.reuse = Reuse()
                started = time.process_time()
                found = asyncio.run(collect(engine, asked))
                seconds = time.process_time() - started
                if number < 0:
                    continue
                for done in found:
                    thoughts[f"{way}{suffix}", number, done.query_id] = done.reasoning
                rows.setdefault(f"{way}{suffix}", []).append(
                    {
                        "requests": len(found),
                        "kept": sum(done.error is None and done.reasoning_tokens <= arguments.cap for done in found),
                        "answered": sum(bool(done.answer) for done in found),
                        "thought_tokens": sum(done.reasoning_tokens for done in found),
                        "answers": engine.reuse.num_answers,
                        "answers_prompt_tokens": engine.reuse.answer_tokens,
                        "answers_cached_tokens": engine.reuse.answer_cached,
                        "seconds": round(seconds, 3),
                    }
                )
    plain = rows["two-call"]
    same = [
        thoughts["native", number, query.id] == thoughts["two-call", number, query.id]
        for number in range(arguments.rounds)
        for query in queries
    ]
    table = {}
    for name, each in rows.items():
        ratio = [
            (row["seconds"] / row["thought_tokens"]) / (base["seconds"] / base["thought_tokens"])
            for row, base in zip(each, plain, strict=True)
        ]
        total = {key: sum(row[key] for row in each) for key in each[0] if key != "seconds"}
        table[name] = total | {
            "seconds": [row["seconds"] for row in each],
            "over_two_call": [round(value - 1, 3) for value in (statistics.median(ratio), min(ratio), max(ratio))],
            "cached_share": round(total["answers_cached_tokens"] / max(1, total["answers_prompt_tokens"]), 3),
            "computed_an_answer": round(
                (total["answers_prompt_tokens"] - total["answers_cached_tokens"]) / max(1, total["answers"]), 1
            ),
        }
    native = engines["native"]._native
    text = json.dumps(
        {
            "settings": {key: value for key, value in vars(arguments).items() if key != "out"},
            "versions": engines["native"].info.versions,
            "native_offset": None if native is None else native.offset,
            "same_thoughts": [sum(same), len(same)],
            "ways": table,
        },
        indent=2,
    )
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
