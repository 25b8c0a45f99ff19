"""Plans a folder of predictions of any size, and says what it took: time, memory, tokens.

    python benchmarks/large_plans.py --queries 1000000 10000000 100000000 --kind float16 --cost granted --out FILE.json

Predictions are made by a seed (curves that rise to a plateau; usage that ends below the caps), a million queries a
file, 16 caps, in a folder that is removed at the end unless it is named. Each plan is made by the command line in a
process of its own; its peak memory is the kernel's figure for it (`ru_maxrss`). With `--same N` the first N queries are
also planned in memory by `allocate`, and budgets compared. With `--ray-workers 1 2 4` the plan is also made by so many
workers of a Ray on this machine, and the budgets' hash compared with that of the plan by one process.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from forethought.allocators import allocate
from forethought.control.predictions import Predictions, metadata_of
from forethought.core.data import Cost, Curves
from forethought.core.menu import Menu

MENU = Menu.evenly(16, 256)
A_FILE = 1_000_000


def make(folder: Path, number: int, kind: str) -> None:
    """Writes predictions of `number` queries that are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(-(-number // A_FILE)):
        path, rows = folder / f"part-{index:05d}.parquet", min(A_FILE, number - index * A_FILE)
        if path.exists():
            continue
        random = np.random.default_rng(index)
        steps_B = np.arange(1, MENU.num_options + 1, dtype=np.float32)
        ease_Q_1 = random.random((rows, 1), dtype=np.float32)
        speed_Q_1 = random.uniform(0.1, 1.0, (rows, 1)).astype(np.float32)
        p_Q_B = ease_Q_1 * (1 - np.exp(-steps_B * speed_Q_1))
        mean_Q_1 = random.uniform(30, 200, (rows, 1)).astype(np.float32)
        tokens_Q_B = mean_Q_1 * (1 - np.exp(-MENU.budgets_B.astype(np.float32) / mean_Q_1))
        columns = {"id": pa.array(np.arange(index * A_FILE, index * A_FILE + rows))}
        for name, array in (("p", p_Q_B), ("tokens", tokens_Q_B)):
            flat = pa.array(np.maximum.accumulate(array.astype(kind), axis=1).reshape(-1))
            columns[name] = pa.FixedSizeListArray.from_arrays(flat, MENU.num_options)
        pq.write_table(
            pa.table(columns).replace_schema_metadata(metadata_of(MENU)), path, compression="none", use_dictionary=False
        )


def compare(folder: Path, budgets: Path, number: int, cost: Cost, mean: float) -> bool:
    """Whether the plan of a folder is the one that `allocate` makes in memory."""
    loaded = [group.load() for group in Predictions.open(folder).groups]
    curves = Curves(
        tuple(str(row) for row in range(number)),
        MENU,
        np.concatenate([each.p_Q_B for each in loaded]),
        np.concatenate([each.tokens_Q_B for each in loaded if each.tokens_Q_B is not None]),
    )
    made = allocate("envelope", curves, total=mean * number, cost=cost)
    return bool((pq.read_table(budgets)["budget"].to_numpy() == made.budget_Q).all())


def fingerprint(budgets: Path) -> str:
    """A hash of the ids and budgets of a plan, a file or a folder of files."""
    state = hashlib.sha256()
    for path in sorted(budgets.glob("*.parquet")) if budgets.is_dir() else [budgets]:
        for batch in pq.ParquetFile(path).iter_batches(columns=["id", "budget"]):
            state.update(np.stack([column.to_numpy() for column in batch.columns], axis=1).tobytes())
    return state.hexdigest()[:16]


def planned(folder: Path, out: Path, mean: float, cost: str, *more: str) -> dict[str, Any]:
    """Makes a plan by the command line; what it says, and what it took."""
    command = [sys.executable, "-m", "forethought", "plan", str(folder), "--mean-tokens", str(mean), "--cost", cost]
    started = time.perf_counter()
    child = subprocess.Popen(
        [*command, "--out", str(out), "--json", "--quiet", *more], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    text = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"the plan of {folder} ended with {status}")
    return json.loads(text) | {
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_mb": round(usage.ru_maxrss / 1024),
        "hash": fingerprint(out),
    }


KEPT = ("seconds", "cpu_seconds", "peak_mb", "total", "granted", "expected_spent", "expected_accuracy", "hash")


def main() -> None:
    """Makes, plans, compares and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--kind", choices=["float16", "float32"], default="float16")
    parser.add_argument("--cost", choices=["granted", "spent"], default="granted")
    parser.add_argument("--mean-tokens", type=float, default=64.0)
    parser.add_argument("--same", type=int, default=1_000_000, help="compare with memory up to so many queries")
    parser.add_argument("--ray-workers", type=int, nargs="*", default=[], help="also plan with so many workers on Ray")
    parser.add_argument("--folder", default="", help="where predictions are kept")
    parser.add_argument("--out", default="")
    asked = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for number in asked.queries:
            folder = Path(asked.folder or scratch) / f"{asked.kind}-{number}"
            make(folder, number, asked.kind)
            told = {"queries": number, "kind": asked.kind, "cost": asked.cost}
            budgets = Path(scratch) / "budgets.parquet"
            one = planned(folder, budgets, asked.mean_tokens, asked.cost)
            row = told | {name: one[name] for name in KEPT}
            row["as_in_memory"] = (
                compare(folder, budgets, number, Cost(asked.cost), asked.mean_tokens) if number <= asked.same else None
            )
            print(json.dumps(row), flush=True)
            rows.append(row)
            for num_workers in asked.ray_workers:
                out = Path(scratch) / f"budgets-{num_workers}"
                how = ("--ray", "--workers", str(num_workers))
                found = planned(folder, out, asked.mean_tokens, asked.cost, *how)
                row = told | {"workers": num_workers} | {name: found[name] for name in KEPT}
                row["worker_cpu_seconds"] = [round(each["cpu_seconds"], 1) for each in found["workers"]]
                row["as_by_one_process"] = found["hash"] == one["hash"]
                row["sent_mb"] = [round(each["sent_bytes"] / 1e6, 2) for each in found["workers"]]
                row["worker_peak_mb"] = [round(each["peak_bytes"] / 1e6) for each in found["workers"]]
                print(json.dumps(row), flush=True)
                rows.append(row)
    if asked.out:
        command = f"--queries {' '.join(map(str, asked.queries))} --kind {asked.kind} --cost {asked.cost}"
        if asked.ray_workers:
            command += f" --ray-workers {' '.join(map(str, asked.ray_workers))}"
        about = {"command": command, "cores": os.cpu_count(), "load": os.getloadavg()}
        Path(asked.out).write_text(json.dumps({**about, "plans": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
