"""How fast allocators are, how much memory they take, and how much of the best possible plan they reach.

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/allocators.py [--ten-million] [--any-order] [--out FILE]

Prints one JSON object:

- `scale`: the envelope by size of the batch, each size in a process of its own. `peak_mb` is the process's largest
  resident memory, `inputs_mb` what it held once curves and ids existed, `growth_mb` the difference: what planning
  takes.
- `any_order`: the same for 1,000,000 queries on 48 options, the options of each query in a random order: under spent
  cost; and in money, under a price of its own for each option, with tokens of each prompt under each.
- `quality`: every allocator at 1,000 queries. `gap_to_bound` and `gap_to_exact` are relative, of expected accuracy; the
  bound is the linear relaxation, which no plan passes.
- `plain_greedy`: the paper's greedy as its text reads against the envelope. `times_as_long` is
  the ratio of median CPU seconds.

Seconds are [median, min, max] over repeats; `cpu_seconds`, of one thread, do not count what other programs took from
the core. Megabytes: 10^6 bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np

from forethought.allocators import allocate, pose
from forethought.allocators.greedy import GreedyAllocator
from forethought.allocators.price import lp_bound
from forethought.core.data import Cost, Curves
from forethought.core.menu import Menu
from forethought.core.options import Option, Price
from forethought.core.registry import available
from forethought.core.terms import TOKEN_COSTS

MENU = Menu.evenly(16, 256)
MENU_48 = Menu.evenly(16, 768)
CHUNK = 4096
SIZES = (1_000, 10_000, 100_000, 1_000_000)
TEN_MILLION = 10_000_000
QUALITY_QUERIES = 1_000
PAPER_QUERIES = 8_744


def made_up(
    num_queries: int, *, dtype: str = "float64", seed: int = 0, menu: Menu = MENU, any_order: bool = False
) -> Curves:
    """Curves with a jump somewhere and a little noise, as predicted ones have; spend flattens as traces stop.

    With `any_order` each query's columns are shuffled.
    """
    p_Q_B, tokens_Q_B = (np.empty((num_queries, menu.num_options), dtype) for _ in range(2))
    random = np.random.default_rng(seed)
    # Chunk by chunk: temporaries of the size of the batch would hide what planning takes.
    for at in range(0, num_queries, CHUNK):
        num_chunk = min(CHUNK, num_queries - at)
        jump_C_1 = random.uniform(0, 400, size=(num_chunk, 1))
        height_C_1 = random.uniform(0.1, 1.0, size=(num_chunk, 1))
        p_C_B = height_C_1 / (1 + np.exp((jump_C_1 - menu.budgets_B) / 12))
        p_Q_B[at : at + CHUNK] = np.clip(p_C_B + random.normal(0, 0.01, size=p_C_B.shape), 0, 1)
        stop_C_1 = random.uniform(30, 400, size=(num_chunk, 1))
        tokens_Q_B[at : at + CHUNK] = 14 + stop_C_1 * (1 - np.exp(-menu.budgets_B / stop_C_1))
        if any_order:
            order_C_B = random.permuted(np.tile(np.arange(menu.num_options), (num_chunk, 1)), axis=1)
            for array_Q_B in (p_Q_B, tokens_Q_B):
                array_Q_B[at : at + CHUNK] = np.take_along_axis(array_Q_B[at : at + CHUNK], order_C_B, axis=1)
    return Curves(tuple(f"q{row}" for row in range(num_queries)), menu, p_Q_B, tokens_Q_B)


def priced(curves: Curves, *, seed: int = 1) -> Curves:
    """The same under named options with prices in no order, and prompts of 40 to 400 tokens."""
    random, (num_queries, num_options) = np.random.default_rng(seed), curves.p_Q_B.shape
    prices = [Price(float(random.uniform(0.1, 3.0)), float(random.uniform(0.5, 15.0))) for _ in range(num_options)]
    menu = Menu(curves.menu.caps, tuple(Option(f"option {n}", price=price) for n, price in enumerate(prices)))
    input_Q_B = np.empty_like(curves.p_Q_B)
    for at in range(0, num_queries, CHUNK):
        shape = min(CHUNK, num_queries - at), num_options
        input_Q_B[at : at + CHUNK] = random.integers(40, 400, shape)
    return Curves(curves.query_ids, menu, curves.p_Q_B, curves.tokens_Q_B, input_Q_B)


def timed(action: Callable[[], Any], *, repeats: int) -> tuple[dict[str, list[float]], Any]:
    """Wall and CPU seconds of `repeats` runs as [median, min, max], and what the last one returned."""
    seconds, cpu_seconds, found = [], [], None
    for _ in range(repeats):
        found = None  # not two results at once in memory
        wall, cpu = perf_counter(), process_time()
        found = action()
        seconds.append(perf_counter() - wall)
        cpu_seconds.append(process_time() - cpu)
    return {"seconds": summary(seconds), "cpu_seconds": summary(cpu_seconds)}, found


def summary(numbers: list[float]) -> list[float]:
    """[median, min, max]."""
    return [round(number, 5) for number in (statistics.median(numbers), min(numbers), max(numbers))]


def peak_mb() -> float:
    """Largest resident memory this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def resident_mb() -> float:
    """Resident memory of this process now, by Linux's count."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def measure_scale(
    num_queries: int, *, cost: Cost, dtype: str, mean: float, repeats: int, any_order: bool
) -> dict[str, Any]:
    """One size, in this process: nothing else may have run in it."""
    curves = made_up(num_queries, dtype=dtype, menu=MENU_48 if any_order else MENU, any_order=any_order)
    curves = priced(curves) if cost is Cost.USD else curves
    inputs = resident_mb()
    action = partial(allocate, "envelope", curves, total=mean * num_queries, cost=cost, any_order=any_order)
    times, plan = timed(action, repeats=repeats)
    growth = max(0.0, peak_mb() - inputs)
    return {
        **{"queries": num_queries, "cost": cost.value, "dtype": dtype, "repeats": repeats, **times},
        **{"inputs_mb": round(inputs), "growth_mb": round(growth), "peak_mb": round(peak_mb())},
        "expected_accuracy": round(plan.expected_accuracy, 6),
    }


def in_own_process(
    num_queries: int, *, cost: Cost, dtype: str, mean: float, repeats: int, any_order: bool = False
) -> dict[str, Any]:
    """`measure_scale` in a fresh interpreter."""
    setting = {"cost": cost, "dtype": dtype, "mean": mean, "any_order": any_order}
    asked = json.dumps({"num_queries": num_queries, **setting})
    command = [sys.executable, __file__, "--repeats", str(repeats), "--one", asked]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


def measure_quality(*, mean_tokens: float, mean_usd: float, repeats: int) -> list[dict[str, Any]]:
    """Every allocator on the same curves, under every cost."""
    rows = []
    for cost in Cost:
        curves, total = made_up(QUALITY_QUERIES), mean_tokens * QUALITY_QUERIES
        if cost is Cost.USD:
            curves, total = priced(curves), mean_usd * QUALITY_QUERIES
        bound = lp_bound(pose(curves, total=total, cost=cost))
        exact = allocate("exact", curves, total=total, cost=cost).expected_accuracy
        for name in available("allocators"):
            times, plan = timed(partial(allocate, name, curves, total=total, cost=cost), repeats=repeats)
            reached = plan.expected_accuracy
            rows.append(
                {"queries": QUALITY_QUERIES, "cost": cost.value, "allocator": name}
                | {**times, "expected_accuracy": round(reached, 6), "bound": round(bound, 6)}
                | {"gap_to_bound": relative_gap(reached, bound), "gap_to_exact": relative_gap(reached, exact)}
            )
    return rows


def relative_gap(reached: float, best: float) -> float:
    """How far `reached` is below `best`, as a part of it, to three digits."""
    return float(f"{1 - reached / best:.3g}")


def plain_greedy(curves: Curves, *, total: float, most_steps: int | None = None) -> float:
    """The greedy of arXiv 2602.01237 in plain Python, as its text reads, on an even menu: mean expected success.

    Every query starts at its smallest budget. Until the total is spent, all queries are looked at, each claims what its
    next step gains (where that gains nothing, what the first larger budget that does gain would give), and the largest
    claim gets one step. When nobody claims anything, what is left goes round. Ties go to the first query. It is not
    slow on purpose; a heap does the same, as `greedy` with `lookahead` has it. Stops after `most_steps`, if given.
    """
    p_Q_B: list[list[float]] = curves.p_Q_B.tolist()
    column_Q = [0] * len(p_Q_B)
    left = steps_left(curves, total) if most_steps is None else min(steps_left(curves, total), most_steps)

    def claim_of(p_B: list[float], column: int) -> float:
        here = p_B[column]
        for longer in p_B[column + 1 :]:
            if longer > here:
                return longer - here
        return 0.0

    while left > 0:
        best_query, best_claim = -1, 0.0
        for query, p_B in enumerate(p_Q_B):
            claim = claim_of(p_B, column_Q[query])
            if claim > best_claim:
                best_query, best_claim = query, claim
        if best_query < 0:
            break
        column_Q[best_query] += 1
        left -= 1
    while left > 0:
        for query, p_B in enumerate(p_Q_B):
            if left > 0 and column_Q[query] < len(p_B) - 1:
                column_Q[query] += 1
                left -= 1
    return statistics.mean(p_B[column] for p_B, column in zip(p_Q_B, column_Q, strict=True))


def steps_left(curves: Curves, total: float) -> int:
    """Steps to give once every query has its smallest budget."""
    num_queries, menu = len(curves.query_ids), curves.menu
    return min(int(total // menu.unit), num_queries * menu.num_options) - num_queries


def measure_plain_greedy(*, mean_tokens: float, repeats: int, most_steps: int | None) -> dict[str, Any]:
    """The paper's greedy, as its text reads and as registered, against the envelope.

    With `most_steps`, plain Python stops after so many steps and its time is scaled up to all of them.
    """
    curves, total = made_up(PAPER_QUERIES), mean_tokens * PAPER_QUERIES
    num_steps = steps_left(curves, total)
    num_done = min(most_steps or num_steps, num_steps)
    ways: dict[str, tuple[Callable[[], Any], int, int]] = {
        "envelope": (partial(allocate, "envelope", curves, total=total), 21, num_steps),
        "plain Python": (partial(plain_greedy, curves, total=total, most_steps=most_steps), repeats, num_done),
        "greedy, lookahead": (partial(allocate, GreedyAllocator(lookahead=True), curves, total=total), 7, num_steps),
        "greedy": (partial(allocate, "greedy", curves, total=total), 7, num_steps),
    }
    rows: list[dict[str, Any]] = []
    for way, (action, count, num_measured) in ways.items():
        times, found = timed(action, repeats=count)
        row: dict[str, Any] = {"way": way, "repeats": count, **times}
        if num_measured < num_steps:
            row |= {"steps_measured": num_measured, "note": "seconds are of these steps; the ratio is extrapolated"}
        else:
            row["expected_accuracy"] = round(getattr(found, "expected_accuracy", found), 6)
        first = (rows or [row])[0]["cpu_seconds"][0]
        row["times_as_long"] = round(times["cpu_seconds"][0] * num_steps / num_measured / first, 1)
        rows.append(row)
    return {"queries": PAPER_QUERIES, "mean_tokens": mean_tokens, "cost": "granted", "steps": num_steps, "rows": rows}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, nargs="*", default=list(SIZES), help="sizes of `scale`")
    parser.add_argument("--ten-million", action="store_true", help="one size more; takes some 6 GB")
    parser.add_argument("--any-order", action="store_true", help="measure `any_order` and nothing else")
    parser.add_argument("--mean-tokens", type=float, default=64)
    parser.add_argument("--mean-usd", type=float, default=0.0006)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--plain-repeats", type=int, default=3, help="of the plain greedy; 0 leaves it out")
    parser.add_argument("--plain-steps", type=int, help="stop plain Python after so many steps and extrapolate")
    parser.add_argument("--out", type=Path, help="write the JSON there too")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        one = json.loads(asked.one)
        print(json.dumps(measure_scale(**one | {"cost": Cost(one["cost"])}, repeats=asked.repeats)))
        return

    if asked.any_order:
        means = {Cost.SPENT: asked.mean_tokens, Cost.USD: asked.mean_usd}
        rows = [
            in_own_process(1_000_000, dtype=dtype, cost=cost, mean=mean, repeats=asked.repeats, any_order=True)
            for cost, mean in means.items()
            for dtype in ("float64", "float32")
        ]
        text = json.dumps({"command": "benchmarks/allocators.py --any-order", "any_order": rows}, indent=2)
        if asked.out:
            asked.out.write_text(text + "\n")
        print(text)
        return

    scale = []
    for num_queries in [*asked.queries, *([TEN_MILLION] if asked.ten_million else [])]:
        for dtype in ("float64", "float32") if num_queries < TEN_MILLION else ("float64",):
            for cost in TOKEN_COSTS:
                repeats = min(asked.repeats, 3) if num_queries >= TEN_MILLION else asked.repeats
                setting = {"cost": cost, "dtype": dtype, "mean": asked.mean_tokens, "repeats": repeats}
                scale.append(in_own_process(num_queries, **setting))
                print(json.dumps(scale[-1]), file=sys.stderr)
    measured: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {len(os.sched_getaffinity(0))} used",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scale": scale,
        "quality": measure_quality(mean_tokens=asked.mean_tokens, mean_usd=asked.mean_usd, repeats=3),
    }
    if asked.plain_repeats:
        measured["plain_greedy"] = measure_plain_greedy(
            mean_tokens=asked.mean_tokens, repeats=asked.plain_repeats, most_steps=asked.plain_steps
        )
    text = json.dumps(measured, indent=2)
    if asked.out:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
