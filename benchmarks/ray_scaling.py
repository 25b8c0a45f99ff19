"""How much faster more workers on Ray are, and what Ray costs a question.

    python benchmarks/ray_scaling.py --out FILE
    python benchmarks/ray_scaling.py --vllm MODEL --limit 96 --out FILE [--engine-option dtype=float32]

The first starts a Ray on this machine and profiles questions with the fake engine, which waits as long as its tokens
would take, with 1, 2, 4 and 8 workers in turn; then without any waiting, in one process and on 1 and 4 workers: what is
left is the cost of a question. Workers are open before the clock starts. Waiting takes no CPU, so this measures how
evenly questions are handed out and what that costs, not how fast a machine is.

The second needs a Python that has vLLM and Ray, and runs a real model on two cores: one process with two threads, and
two workers on Ray with one thread each. Each runs a sixth of the questions first, and then all in another folder: the
difference of the two commands' times is the time of the other questions, and the start falls out.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from forethought.cluster.crew import Crew
from forethought.cluster.engine import engine_of
from forethought.cluster.ray_host import RayHost
from forethought.cluster.worker import Task
from forethought.commands.pipeline import profile
from forethought.core.settings import EngineSettings, ProfileSettings
from forethought.runs.store import RunDirectory
from machine import VLLM_ON_CPU

WORKERS = (1, 2, 4, 8)


class Kept(RayHost):
    """A Ray that outlives the engines on it."""

    def close(self) -> None:
        """Leaves it running."""


def write_questions(path: Path, count: int) -> Path:
    """Sums."""
    rows = [{"id": f"q{i}", "question": f"What is {i} plus {i}?", "answer": str(2 * i)} for i in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def measured(host: RayHost | None, folder: Path, num_workers: int, count: int, speed: float | None) -> dict[str, Any]:
    """One profile: seconds, and the seconds that its tokens take by themselves.

    Args:
        host: of the workers; None for this process alone.
        folder: of the questions and of the run.
        num_workers: that share them.
        count: questions.
        speed: tokens per second of an engine; None for no waiting.
    """
    questions = write_questions(folder / f"q{count}.jsonl", count)
    options = {} if speed is None else {"tokens_per_second": speed}
    engine = EngineSettings(engine="fake", template="worked-5", options=options)
    out = folder / f"run-{num_workers}-{count}-{speed}-{host is None}"
    asked = ProfileSettings(
        model="fake", questions=str(questions), out=str(out), num_traces=1, layers="none", budgets="256", engine=engine
    )
    running = None
    if host is not None:
        crew = Crew(host, Task("fake", engine, None, str(folder)), num_workers)
        while len(list(crew.ready())) < num_workers:
            time.sleep(0.1)
        running = engine_of(crew)
    cpu, load, began = time.process_time(), os.getloadavg()[0], time.monotonic()
    run = profile(asked, engine=running)
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    if running is not None:
        running.close()
    tokens = sum(
        (each.reasoning_tokens or 0) + each.suffix_tokens + (each.answer_tokens or 0) for each in run.records()
    )
    return {
        "workers": 0 if host is None else num_workers,
        "questions": count,
        "seconds": round(seconds, 2),
        "seconds_of_waiting": None if speed is None else round(tokens / speed, 2),
        "command_cpu_ms_per_question": round(1000 * cpu / count, 2),
        "load_before": round(load, 1),
    }


def scaling(questions: int, speed: float, rows: int) -> dict[str, Any]:
    """The fake engine with 1, 2, 4 and 8 workers, and without waiting."""
    host = Kept("local", num_workers=max(WORKERS))
    try:
        with TemporaryDirectory() as name:
            folder = Path(name)
            waiting = []
            for num_workers in WORKERS:
                found = measured(host, folder, num_workers, questions, speed)
                first = waiting[0] if waiting else found
                found["times_as_fast"] = round(first["seconds"] / found["seconds"], 2)
                waiting.append(found)
                print(json.dumps(found), flush=True)
            at_once = []
            for there, num_workers in ((None, 1), (host, 1), (host, 4)):
                found = measured(there, folder, num_workers, rows, None)
                found["ms_per_question"] = round(1000 * found["seconds"] / rows, 2)
                at_once.append(found)
                print(json.dumps(found), flush=True)
    finally:
        RayHost.close(host)
    return {"tokens_per_second": speed, "with_waiting": waiting, "without_waiting": at_once}


def of_vllm(model: str, questions: str, limit: int, options: list[str]) -> list[dict[str, Any]]:
    """One process with two threads, and two workers with one each, on the same questions."""
    rows = []
    with TemporaryDirectory() as name:
        for what, threads, more in (
            ("one process, two threads", 2, []),
            ("two workers on Ray, a thread each", 1, ["--ray", "--workers", "2"]),
        ):
            load, taken = os.getloadavg()[0], []
            for number in (limit // 6, limit):
                out = Path(name) / f"run-{threads}-{number}"
                command = [sys.executable, "-m", "forethought", "profile", model, questions, "--engine", "vllm"]
                command += ["--traces", "1", "--layers", "none", "--budgets", "256", "--limit", str(number)]
                command += [word for option in options for word in ("--engine-option", option)]
                command += ["--out", str(out), "--json", "--quiet", *more]
                environment, began = {**os.environ, **VLLM_ON_CPU, "OMP_NUM_THREADS": str(threads)}, time.monotonic()
                subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
                seconds, records = time.monotonic() - began, list(RunDirectory(out).records())
                tokens = sum((each.reasoning_tokens or 0) + (each.answer_tokens or 0) for each in records)
                taken.append((seconds, len(records), tokens))
            (first, few, early), (last, all_of_them, whole) = taken
            rows.append(
                {
                    "what": what,
                    "questions": all_of_them - few,
                    "tokens": whole - early,
                    "seconds": round(last - first, 1),
                    "tokens_per_second": round((whole - early) / (last - first), 1),
                    "seconds_of_commands": [round(first, 1), round(last, 1)],
                    "load_before": round(load, 1),
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    """Measures, and writes what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=160, help="questions with waiting")
    parser.add_argument("--speed", type=float, default=100.0, help="tokens per second of the fake engine")
    parser.add_argument("--rows", type=int, default=2000, help="questions without waiting")
    parser.add_argument("--vllm", default="", metavar="MODEL")
    parser.add_argument("--questions", default="gsm8k-demo")
    parser.add_argument("--limit", type=int, default=96)
    parser.add_argument("--engine-option", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    found: dict[str, Any] = {"command": f"python {' '.join(sys.argv)}", "cpus": os.cpu_count()}
    if asked.vllm:
        found["vllm"] = of_vllm(asked.vllm, asked.questions, asked.limit, asked.engine_option)
    else:
        found |= scaling(asked.count, asked.speed, asked.rows)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
