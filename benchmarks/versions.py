"""How long `envelope` takes in two versions of the package, measured in turns so that other load falls on both alike.

    git worktree add --detach OLD 156364a
    OMP_NUM_THREADS=1 python benchmarks/versions.py OLD/src src [--queries 1000000] [--turns 15] [--traces 4]

One process a version holds the same made-up curves on 16 options. Each turn asks both for one plan a cost, in an order
that changes from turn to turn; CPU seconds count. Prints one JSON object: [median, min, max] of seconds a version and
of the ratios (second version / first) of the same turn, and whether both made the same plans.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from functools import partial
from hashlib import blake2b
from time import process_time
from typing import Any

import numpy as np

CHUNK = 4096


def serve(num_queries: int, num_traces: int | None) -> None:
    """Makes the curves, then one plan for each cost read from standard input, by the package that is imported."""
    from forethought.core import data

    random, budgets_B = np.random.default_rng(0), np.arange(16, 257, 16)
    p_Q_B, tokens_Q_B = (np.empty((num_queries, 16)) for _ in range(2))
    for at in range(0, num_queries, CHUNK):
        num = min(CHUNK, num_queries - at)
        jump_C_1, stop_C_1 = random.uniform(0, 400, (num, 1)), random.uniform(30, 400, (num, 1))
        height_C_1 = random.uniform(0.1, 1.0, (num, 1))
        p_C_B = height_C_1 / (1 + np.exp((jump_C_1 - budgets_B) / 12))
        p_Q_B[at : at + num] = np.clip(p_C_B + random.normal(0, 0.01, (num, 16)), 0, 1)
        tokens_Q_B[at : at + num] = 14 + stop_C_1 * (1 - np.exp(-budgets_B / stop_C_1))
    if num_traces is not None:
        np.rint(num_traces * p_Q_B, out=p_Q_B)
        p_Q_B /= num_traces
    if hasattr(data, "BudgetGrid"):  # before menus of any caps
        from forethought.core.registry import resolve

        menu, plan = data.BudgetGrid(16, 256), resolve("allocators", "envelope")().allocate
    else:
        from forethought.allocators import allocate
        from forethought.core.menu import Menu

        menu, plan = Menu.evenly(16, 256), partial(allocate, "envelope")
    curves = data.Curves(tuple(f"q{row}" for row in range(num_queries)), menu, p_Q_B, tokens_Q_B)
    print("ready", flush=True)
    for line in sys.stdin:
        started = process_time()
        found = plan(curves, total=64 * num_queries, cost=data.Cost(line.strip()))
        seconds = process_time() - started
        digest = blake2b(found.budget_Q.astype(np.int64).tobytes(), digest_size=8).hexdigest()
        print(json.dumps([seconds, digest]), flush=True)


def summary(numbers: list[float]) -> list[float]:
    """[median, min, max]."""
    return [round(number, 4) for number in (statistics.median(numbers), min(numbers), max(numbers))]


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="*", help="two folders that hold the package")
    parser.add_argument("--queries", type=int, default=1_000_000)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--traces", type=int, help="round chances to rates of so many traces: many ties")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        serve(asked.queries, asked.traces)
        return
    command = [sys.executable, __file__, "--serve", "--queries", str(asked.queries)]
    command += ["--traces", str(asked.traces)] if asked.traces else []
    versions = [
        subprocess.Popen(
            command,
            env=os.environ | {"PYTHONPATH": os.path.abspath(source)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for source in asked.sources
    ]

    def ask(version: subprocess.Popen[str], text: str) -> Any:
        assert version.stdin is not None
        assert version.stdout is not None
        if text:
            print(text, file=version.stdin, flush=True)
        return version.stdout.readline()

    for version in versions:
        ask(version, "")
    result: dict[str, Any] = {
        "queries": asked.queries,
        "turns": asked.turns,
        "traces": asked.traces,
        "sources": asked.sources,
    }
    for cost in ("granted", "spent"):
        seconds_V_N: list[list[float]] = [[], []]
        digests = set()
        for turn in range(-1, asked.turns):
            for which in ((0, 1), (1, 0))[turn % 2]:
                seconds, digest = json.loads(ask(versions[which], cost))
                digests.add(digest)
                if turn >= 0:  # the first plan warms up
                    seconds_V_N[which].append(seconds)
        ratios = [second / first for first, second in zip(*seconds_V_N, strict=True)]
        result[cost] = {
            "cpu_seconds": [summary(seconds) for seconds in seconds_V_N],
            "ratio": summary(ratios),
            "same_plans": len(digests) == 1,
        }
    for version in versions:
        version.communicate()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
