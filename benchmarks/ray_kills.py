"""Kills workers and commands of runs on a local Ray at random moments, and counts what was lost or done twice.

    python benchmarks/ray_kills.py --kills 20 --out FILE

A Ray is started on this machine. With the fake engine, which waits as long as its tokens would take:

- workers: one command profiles all questions, and a random one of its worker processes gets SIGKILL at random moments,
  `--kills` times; it has questions for as long as kills are left.
- commands: the same command is started and gets SIGKILL at a random moment, `--kills` times.

Then the same command is given until it ends with exit code 0. Before and after each kill of a command the records on
disk are compared. At the end the records, and all totals, are held against those of one process without Ray.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from forethought.cluster.ray_host import RayHost
from forethought.runs.store import RunDirectory

NUM_WORKERS = 3
GAP = 8.0  # mean seconds between kills of workers
TOKENS_PER_SECOND = 60  # about 2 s a trace
TOTALS = ("queries", "traces", "failed", "prompt_tokens", "generated_tokens", "cut", "accuracy", "tokens")


def write_questions(path: Path, count: int) -> None:
    """Sums."""
    rows = [{"id": f"q{i}", "question": f"What is {i} plus {i}?", "answer": str(2 * i)} for i in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def command(out: str, *more: str) -> list[str]:
    """The command that is killed and given again."""
    asked = [sys.executable, "-m", "forethought", "profile", "fake", "q.jsonl", "--out", out, "--traces", "1"]
    return [*asked, "--layers", "none", "--json", "--quiet", *more]


def traces(folder: Path) -> Counter[str]:
    """How often each question has a finished record."""
    if not (folder / "run.json").exists():
        return Counter()
    return Counter(each.query_id for each in RunDirectory(folder).records() if not each.is_failed)


def workers_now() -> list[int]:
    """Processes of workers on the Ray that this process started, and of no other."""
    parent_of, workers = dict[int, int](), list[int]()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words, parent = (
                (folder / "cmdline").read_bytes(),
                (folder / "stat").read_text().rpartition(")")[2].split()[1],
            )
        except OSError:
            continue
        parent_of[int(folder.name)] = int(parent)
        workers += [int(folder.name)] if words.startswith(b"ray::EngineWorker") else []
    own = {os.getpid()}
    while more := {pid for pid, parent in parent_of.items() if parent in own} - own:
        own |= more
    return [pid for pid in workers if pid in own]


def kill_workers(folder: Path, on_ray: list[str], num_kills: int, rng: random.Random) -> dict[str, Any]:
    """One command whose workers are killed; how it ended."""
    kills, missed, began = 0, 0, time.monotonic()
    process = subprocess.Popen(
        [*command("workers"), *on_ray], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    while kills < num_kills and process.poll() is None:
        time.sleep(rng.uniform(0.0, 2 * GAP))
        running = workers_now()
        if not traces(folder / "workers") or not running:
            missed += 1
            continue
        os.kill(rng.choice(running), signal.SIGKILL)
        kills += 1
    errors = process.communicate()[1].decode()
    records = list(RunDirectory(folder / "workers").records())
    return {
        "kills": kills,
        "exit_code": process.returncode,
        "seconds": round(time.monotonic() - began, 1),
        "workers_replaced": errors.count("another takes its place"),
        "records": len(records),
        "records_with_a_reason": sum(each.is_failed for each in records),
        "finished_twice": sum(count > 1 for count in traces(folder / "workers").values()),
    }


def kill_commands(folder: Path, on_ray: list[str], num_kills: int, rng: random.Random) -> dict[str, Any]:
    """The same command, killed again and again; what was lost."""
    lost, twice, at = 0, 0, []
    for _ in range(num_kills):
        before = traces(folder / "commands")
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen([*command("commands"), *on_ray], cwd=folder, **silent)
        time.sleep(rng.uniform(1.0, 30.0))
        process.send_signal(signal.SIGKILL)
        process.wait()
        after = traces(folder / "commands")
        lost += len(before - after)
        twice = max(twice, sum(count > 1 for count in after.values()))
        at.append(sum(after.values()))
    return {"kills": num_kills, "lost": lost, "finished_twice": twice, "records_after_each": at}


def finish(folder: Path, out: str, on_ray: list[str]) -> dict[str, Any]:
    """Gives the command until it has nothing left to do; its totals."""
    codes = []
    while not codes or codes[-1] == 3:
        said = subprocess.run([*command(out), *on_ray], cwd=folder, capture_output=True, text=True, check=False)
        codes.append(said.returncode)
        if said.returncode not in (0, 3):
            raise SystemExit(said.stderr)
    return {"exit_codes": codes, "totals": json.loads(said.stdout)}


def finished(folder: Path) -> list[str]:
    """Every finished record, without the order."""
    records = RunDirectory(folder).records()
    return sorted(json.dumps(each.to_json(), sort_keys=True) for each in records if not each.is_failed)


def same_totals(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether two commands say the same, but for times and names."""
    return all(found["totals"][key] == wanted["totals"][key] for key in TOTALS)


def main() -> None:
    """Kills, resumes and compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--questions", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    rng, load = random.Random(asked.seed), os.getloadavg()[0]
    host = RayHost("local", num_workers=NUM_WORKERS)
    import ray  # once the host has set how it is started

    slow = ["--engine-option", f"tokens_per_second={TOKENS_PER_SECOND}"]
    on_ray = ["--ray", ray.get_runtime_context().gcs_address, "--workers", str(NUM_WORKERS)]
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_questions(folder / "q.jsonl", asked.questions)
        alone = finish(folder, "alone", [])
        found: dict[str, Any] = {
            "command": f"python {' '.join(sys.argv)}",
            "cpus": os.cpu_count(),
            "load": [round(load, 1)],
            "questions": asked.questions,
            "workers": NUM_WORKERS,
        }
        for what, kill in (("workers", kill_workers), ("commands", kill_commands)):
            found[what] = kill(folder, [*on_ray, *slow], asked.kills, rng)
            end = finish(folder, what, on_ray)
            found[what] |= {
                "then_exit_codes": end["exit_codes"],
                "same_records_as_one_process": finished(folder / what) == finished(folder / "alone"),
                "same_totals_as_one_process": same_totals(end, alone),
            }
            print(json.dumps(found[what]), flush=True)
        found["load"].append(round(os.getloadavg()[0], 1))
    host.close()
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
