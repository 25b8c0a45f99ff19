"""How long allocators take, and how much of the best possible plan they reach, by the size of the batch.

    OMP_NUM_THREADS=1 python benchmarks/allocators.py [--queries 1000 10000] [--mean-tokens 64]

Prints one JSON object. `share_of_bound` is expected accuracy over that of the linear relaxation, which no plan passes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from time import perf_counter
from typing import Any

import numpy as np

from forethought.allocators.lp import lp_bound
from forethought.errors import InvalidSettingsError
from forethought.registry import available, resolve
from forethought.types import BudgetGrid, Cost, Curves

GRID = BudgetGrid(16, 256)


def made_up(num_queries: int, *, seed: int = 0) -> Curves:
    """Curves with a jump somewhere and a little noise, as predicted ones have; spend flattens as traces stop."""
    random = np.random.default_rng(seed)
    jump_Q_1 = random.uniform(0, 400, size=(num_queries, 1))
    height_Q_1 = random.uniform(0.1, 1.0, size=(num_queries, 1))
    p_Q_B = height_Q_1 / (1 + np.exp((jump_Q_1 - GRID.budgets_B) / 12))
    p_Q_B = np.clip(p_Q_B + random.normal(0, 0.01, size=p_Q_B.shape), 0, 1)
    stop_Q_1 = random.uniform(30, 400, size=(num_queries, 1))
    tokens_Q_B = 14 + stop_Q_1 * (1 - np.exp(-GRID.budgets_B / stop_Q_1))
    return Curves(tuple(f"q{row}" for row in range(num_queries)), GRID, p_Q_B, tokens_Q_B)


def measure(name: str, curves: Curves, *, total: float, cost: Cost, bound: float) -> dict[str, Any]:
    """Seconds for one plan, and what it expects; a refusal where the batch is too large."""
    allocator = resolve("allocators", name)()
    started = perf_counter()
    try:
        plan = allocator.allocate(curves, total=total, cost=cost)
    except InvalidSettingsError as error:
        return {"refused": str(error)}
    return {
        "seconds": round(perf_counter() - started, 3),
        "expected_accuracy": round(plan.expected_accuracy, 5),
        "share_of_bound": round(plan.expected_accuracy / bound, 5),
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--mean-tokens", type=float, default=64)
    asked = parser.parse_args()
    rows = []
    for num_queries in asked.queries:
        curves, total = made_up(num_queries), asked.mean_tokens * num_queries
        for cost in Cost:
            bound = lp_bound(curves, total=total, cost=cost)
            for name in available("allocators"):
                found = measure(name, curves, total=total, cost=cost, bound=bound)
                rows.append({"queries": num_queries, "cost": cost.value, "allocator": name, **found})
    machine = f"{platform.machine()}, {os.cpu_count()} cores, threads {os.environ.get('OMP_NUM_THREADS', 'all')}"
    print(json.dumps({"machine": machine, "numpy": np.__version__, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
