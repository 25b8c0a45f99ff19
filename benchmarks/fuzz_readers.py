"""Mutates valid files, hands them to readers, and reports whatever is neither read nor refused in words.

    python benchmarks/fuzz_readers.py questions --seconds 60    # or grade, import, profile, plan, predictor, run, show

Each 300 files run in a process of their own, so that one which ends its process is found too. Valid files are made with
the fake engine first. Prints files, how many were read, and each finding with the seed of its process.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import random
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import forethought as ft
from forethought.commands.grading import grade_file
from forethought.commands.showing import show, shown_text
from forethought.core.settings import GradeSettings, ImportSettings
from forethought.questions.queries import load_queries
from forethought.runs.importing import read_profile
from forethought.runs.profiles import from_run
from forethought.runs.store import RunDirectory

A_PROCESS = 300
PATIENCE = 180  # seconds for one of them
PIECES = [
    b"null",
    b"NaN",
    b"-1",
    b"1e999",
    b'"',
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\\u0000",
    b"\xff",
    b"\x00",
    b"\n",
]
PIECES += [b"\r\n", b"9" * 40, b"true", b"[]", b"{}", b"\x1b[31m", b"A" * 300]


def mutated(content: bytes, rng: random.Random) -> bytes:
    """`content` with one to eight bytes or pieces changed, doubled, put in or left out."""
    made = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 3, 8])):
        if not made:
            break
        at, other = rng.randrange(len(made)), rng.randrange(len(made))
        ways: list[Callable[[], tuple[int, bytes]]] = [
            lambda: (1, bytes([rng.randrange(256)])),
            lambda: (rng.choice([1, 2, 8, 64, 1000]), b""),
            lambda: (0, rng.choice(PIECES)),
            lambda other=other: (0, bytes(made[other : other + rng.choice([1, 8, 64, 500])])),
            lambda: (rng.choice([1, 4, 8]), rng.choice(PIECES)),
            lambda: (len(made), b""),
        ]
        taken, put = rng.choice(ways)()
        made[at : at + taken] = put
    return bytes(made)


def write_tables(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    """The rows as JSONL, JSON, CSV and Parquet."""
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows)
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / f"{name}.json").write_text(json.dumps(rows))
    lines = [",".join(table.column_names), *(",".join(f'"{row[key]}"' for key in row) for row in rows)]
    (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
    pq.write_table(table, folder / f"{name}.parquet")


def make_valid(base: Path) -> None:
    """One valid file or folder of every kind."""
    questions = [{"id": f"q{i}", "question": f"What is {i} plus {i}? √² ×", "answer": str(2 * i)} for i in range(12)]
    write_tables(base / "questions", "q", questions)
    write_tables(base / "grade", "g", [{"id": i, "answer": f"{i}/2", "reference": str(i / 2)} for i in range(8)])
    caps = [(query, sample, cap) for query in range(4) for sample in range(2) for cap in (16, 64, 512)]
    long = [{"id": q, "sample": s, "budget": b, "correct": (q + b) % 2, "tokens": b + 4} for q, s, b in caps]
    write_tables(base / "import", "long", long)
    write_tables(base / "import", "wide", [{"id": i, "correct_16": 1, "correct_512": 3, "tried": 4} for i in range(5)])
    engine = ft.open_engine("fake", engine="fake")
    profile = ft.profile(engine, questions, menu="0,16,64,256", num_traces=2, out=str(base / "run"))
    (base / "profile").mkdir()
    profile.save(str(base / "profile" / "p.parquet"))
    predictor = ft.train(profile, "ridge")
    predictor.save(str(base / "predictor"))
    plan = ft.plan(predictor, questions, mean_tokens=64, engine=engine)
    (base / "plan").mkdir()
    plan.save(base / "plan" / "plan.json")
    plan.run(engine, out=str(base / "show"))


def open_run(path: Path) -> None:
    """Reads all that a profile's run directory holds."""
    run = RunDirectory.open(path)
    run.load_hidden()
    from_run(run, load_queries(path / "queries.jsonl"))


READERS: dict[str, Callable[[Path], object]] = {
    "questions": lambda path: ft.read_questions(str(path)),
    "grade": lambda path: grade_file(GradeSettings(file=str(path))),
    "import": lambda path: read_profile(ImportSettings(files=(str(path),)), path.with_name("out.parquet")),
    "profile": lambda path: ft.Profile.load(str(path)),
    "plan": ft.Plan.load,
    "predictor": lambda path: ft.Predictor.load(str(path)),
    "run": open_run,
    "show": lambda path: (shown_text(show(str(path))), shown_text(show(str(path), "q1"))),
}
FOLDERS = ("predictor", "run", "show")  # one of their files is mutated; of the others, one file is all


def try_some(kind: str, base: Path, work: Path, seed: int, found: Any) -> None:
    """Mutates and reads `A_PROCESS` files; puts findings and, at the end, how many were read."""
    logging.disable(logging.CRITICAL)
    rng, num_read = random.Random(seed), 0
    for _ in range(A_PROCESS):
        files: Iterable[Path] = (each for each in (base / kind).rglob("*") if each.is_file() and each.suffix != ".md")
        file = rng.choice(sorted(files))
        path = work / kind if kind in FOLDERS else work / file.name
        if kind in FOLDERS:
            shutil.rmtree(path, ignore_errors=True)
            shutil.copytree(base / kind, path)
            (path / file.relative_to(base / kind)).write_bytes(mutated(file.read_bytes(), rng))
        else:
            path.write_bytes(mutated(file.read_bytes(), rng))
        try:
            READERS[kind](path)
            num_read += 1
        except (ft.ForethoughtError, MemoryError):
            pass  # refused in words
        except Exception:
            found.put(traceback.format_exc()[-700:])
    found.put(num_read)


def main() -> None:
    """Fuzzes one reader for so many seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=READERS)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    seeds, num_files, num_read, findings = random.Random(args.seed), 0, 0, 0
    fork = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        base, work = Path(folder) / "valid", Path(folder) / "work"
        base.mkdir()
        work.mkdir()
        make_valid(base)
        end = time.monotonic() + args.seconds
        while time.monotonic() < end:
            seed, found = seeds.randrange(1 << 30), fork.Queue()
            process = fork.Process(target=try_some, args=(args.kind, base, work, seed, found))
            process.start()
            while True:
                try:
                    said = found.get(timeout=PATIENCE if process.is_alive() else 1)
                except Exception:  # queue.Empty: it hangs, or it ended without a word
                    process.kill()
                    said = f"the process ended or hung (exit code {process.exitcode})"
                if isinstance(said, int):
                    num_files, num_read = num_files + A_PROCESS, num_read + said
                    break
                findings += 1
                print(f"seed {seed}: {said}")
                if said.startswith("the process"):
                    break
            process.join()
    print(f"{args.kind}: {num_files:,} files, {num_read:,} read, {findings} findings, {args.seconds:.0f} s")


if __name__ == "__main__":
    main()
