"""What Ray Data's pool of actors does when an actor is killed, and when one cannot start: why it is not used.

    pip install 'ray[data]'; python benchmarks/ray_data.py --out FILE

Two jobs of `map_batches` with two actors on a Ray of this machine. Each row is written to a file as soon as it is done,
as a worker of a run does. In the first job one actor is killed (SIGKILL) in the middle of a batch: how many rows were
done twice is counted in the file. In the second the engine of one of the actors cannot be opened.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}

import ray

NUM_ROWS, BATCH, SECONDS = 200, 20, 0.1  # of a row
LIMIT = 120  # seconds until a job is taken to hang: it has 10 to do


class Writer:
    """Does rows, a tenth of a second each, and writes each down with its process."""

    def __init__(self, folder: str, broken: bool) -> None:
        self.folder = Path(folder)
        if broken:
            try:  # the first to come here cannot open its engine, and none that takes its place can
                (self.folder / "whole").touch(exist_ok=False)
            except FileExistsError:
                raise RuntimeError("no memory left on the device") from None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Does a batch of rows."""
        for row in batch["id"].tolist():
            time.sleep(SECONDS)
            with open(self.folder / "done", "a") as file:
                file.write(f"{row} {os.getpid()}\n")
                file.flush()
                os.fsync(file.fileno())
        return batch


def rows_in(folder: Path) -> list[tuple[int, int]]:
    """`(row, process)` of everything that was done."""
    file = folder / "done"
    lines = file.read_text().splitlines() if file.exists() else []
    return [(int(row), int(pid)) for row, pid in (line.split() for line in lines)]


def kill_one(folder: Path, killed: list[int]) -> None:
    """Kills the process that did a row, half a batch later."""
    while len(rows_in(folder)) < BATCH + BATCH // 2:
        time.sleep(0.02)
    killed.append(rows_in(folder)[-1][1])
    os.kill(killed[0], signal.SIGKILL)


def give_up(number: int, frame: object) -> None:
    """Ends a job that hangs."""
    raise TimeoutError(f"it had not ended after {LIMIT} seconds")


def job(broken: bool) -> dict[str, Any]:
    """One job: how it ended, and what was done how often."""
    with TemporaryDirectory() as name:
        folder, killed = Path(name), list[int]()
        if not broken:
            threading.Thread(target=kill_one, args=(folder, killed), daemon=True).start()
        error, num_given, began = None, 0, time.monotonic()
        signal.alarm(LIMIT)
        try:
            found = ray.data.range(NUM_ROWS, override_num_blocks=NUM_ROWS // BATCH).map_batches(
                Writer,
                fn_constructor_kwargs={"folder": name, "broken": broken},
                batch_size=BATCH,
                compute=ray.data.ActorPoolStrategy(size=2),
            )
            for batch in found.iter_batches(batch_size=BATCH):
                num_given += len(batch["id"])
        except Exception as problem:
            error = f"{type(problem).__name__}: {' '.join(str(problem).split())[-200:]}"
        finally:
            signal.alarm(0)
        times = Counter(row for row, _ in rows_in(folder))
        return {
            "job": "one of two actors cannot start" if broken else "one of two actors is killed in a batch",
            "rows": NUM_ROWS,
            "given_back": num_given,
            "done": len(times),
            "done_more_than_once": sum(count > 1 for count in times.values()),
            "seconds": round(time.monotonic() - began, 1),
            "error": error,
        }


def main() -> None:
    """Runs both jobs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    signal.signal(signal.SIGALRM, give_up)
    ray.init("local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    found = {
        "command": f"python {' '.join(sys.argv)}",
        "ray": ray.__version__,
        "cpus": os.cpu_count(),
        "batch": BATCH,
        "jobs": [job(broken) for broken in (False, True)],
    }
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
