"""Fuzzes a reader under Atheris, and reports whatever is neither read nor refused in words.

    pip install atheris
    python benchmarks/fuzz_readers.py questions --seconds 3600

for `questions`, `grade`, `import`, `profile`, `plan`, `predictor`, `run` and `show`.

Valid files of every kind are made with the fake engine first; one of them at a time is changed, by libFuzzer in its
bytes or here in a value of its JSON or a column of its Parquet, and the changed ones that reach new branches of
`forethought` are kept to be changed further. What ends the process, takes longer than 60 seconds or more than
4 GB is a finding as well: the search goes on in a new process, with what it has kept. Prints each finding once, and
at the end how many files were tried, how many of them were read and how many branches of `forethought` were reached.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["forethought"]):
    import forethought as ft
    from forethought.commands.grading import grade_file
    from forethought.commands.showing import show, shown_text
    from forethought.core.import_settings import ImportSettings
    from forethought.core.study_settings import GradeSettings
    from forethought.questions.queries import load_queries
    from forethought.runs.importing import read_profile
    from forethought.runs.profiles import from_run
    from forethought.runs.store import RunDirectory

import pyarrow as pa
import pyarrow.parquet as pq

PIECES = ["null", "NaN", "-1", "1e999", "true", "[]", "{}", "[", "]", "{", "}", ",", ":", "\\\\u0000"]
PIECES += ["\\x22", "\\x00", "\\xff", "\\x0a", "\\x0d\\x0a", "\\x1b[31m"]
VALUES: list[Any] = [None, True, -1, 0, 1.5, 1e308, float("nan"), 2**63, "", "x", "16", "é\x00", [], [[]], {}, {"a": 1}]


def change_value(value: Any, rng: random.Random) -> Any:
    """`value` with one value at a random depth replaced, left out or doubled."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.1:
        return rng.choice(VALUES)
    keys = list(value) if isinstance(value, dict) else range(len(value))
    key: Any = rng.choice(keys)
    way = rng.random()
    if way < 0.1:
        value.pop(key)
    elif way < 0.15 and isinstance(value, list):
        value.insert(key, value[key])
    elif way < 0.2 and isinstance(value, dict):
        value[rng.choice([*VALUES[8:12], rng.choice(keys)])] = value[key]
    else:
        value[key] = change_value(value[key], rng)
    return value


def change_column(table: pa.Table, rng: random.Random) -> pa.Table:
    """`table` with one column's values changed, left out, renamed or made another type."""
    at, way = rng.randrange(table.num_columns), rng.random()
    name, values = table.column_names[at], table.column(at).to_pylist()
    if way < 0.1:
        return table.remove_column(at)
    if way < 0.2:
        return table.append_column(name, table.column(at))
    if way < 0.3:
        return table.set_column(at, "other", table.column(at))
    if way < 0.5:
        return table.set_column(at, name, pa.array([rng.choice(VALUES[:1] + VALUES[2:5])] * len(values)))
    changed = [change_value(each, rng) if rng.random() < 0.3 else each for each in values]
    return table.set_column(at, name, pa.array(changed))


def change(content: bytes, max_size: int, seed: int, valid: list[bytes]) -> bytes:
    """An input, or one time in three a valid one, with its file changed: in its bytes or in one of its values."""
    rng = random.Random(seed)
    if rng.random() < 0.3:
        content = rng.choice(valid)
    file = content[1:]
    if rng.random() < 0.5:
        return bytes(atheris.Mutate(content, max_size))
    try:
        if file[:4] == b"PAR1":
            sink = pa.BufferOutputStream()
            pq.write_table(change_column(pq.read_table(pa.BufferReader(file)), rng), sink)
            return content[:1] + sink.getvalue().to_pybytes()
        lines = file.split(b"\n")
        whole = rng.random() < 0.5
        at = rng.randrange(len(lines))
        value = json.dumps(change_value(json.loads(file if whole else lines[at]), rng)).encode()
        return content[:1] + (value if whole else b"\n".join([*lines[:at], value, *lines[at + 1 :]]))
    except Exception:  # it holds neither
        return bytes(atheris.Mutate(content, max_size))


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
FOLDERS = ("predictor", "run", "show")  # one of their files is changed; of the others, one file is all


def search(kind: str, folder: Path, seconds: int, seed: int) -> None:
    """Searches in this process until the time is over; never returns. An input is a file's number and its content."""
    logging.disable(logging.CRITICAL)
    valid, corpus, work = folder / "valid" / kind, folder / "corpus", folder / "work" / kind
    files = sorted(each.relative_to(valid) for each in valid.rglob("*") if each.is_file() and each.suffix != ".md")
    starts = [bytes([number]) + (valid / file).read_bytes() for number, file in enumerate(files)]
    if not corpus.exists():
        corpus.mkdir()
        for number, start in enumerate(starts):
            (corpus / f"valid-{number}").write_bytes(start)
        (folder / "pieces").write_text("".join(f'"{piece}"\n' for piece in PIECES))
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(valid, work)
    counts, told = folder / "counts", time.monotonic()
    num_files, num_read = map(int, counts.read_text().split()) if counts.exists() else (0, 0)

    def read_one(content: bytes) -> None:
        nonlocal num_files, num_read, told
        file = files[content[0] % len(files) if content else 0]
        path = work / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content[1:])
        num_files += 1
        try:
            READERS[kind](work if kind in FOLDERS else path)
            num_read += 1
        except (ft.ForethoughtError, MemoryError):
            pass  # refused in words
        except Exception as error:
            place = "".join(re.findall(r'File ".*?src/(.*?)", line (\d+)', traceback.format_exc())[-1])
            name = re.sub(r"\W+", "-", f"{type(error).__name__}-{place}")
            if not (folder / "found" / name).exists():
                (folder / "found" / name).write_bytes(content)
                print(f"FOUND {name} in {file}:\n{traceback.format_exc()[-900:]}", flush=True)
        if kind in FOLDERS:
            shutil.copy(valid / file, path)
        if time.monotonic() - told > 1:
            told = time.monotonic()
            counts.write_text(f"{num_files} {num_read}")

    limits = [f"-max_total_time={seconds}", "-timeout=60", "-rss_limit_mb=4096", "-max_len=65536"]
    limits += ["-report_slow_units=60", "-len_control=0", "-mutate_depth=2", f"-seed={seed + 1}"]
    folders = [f"-dict={folder / 'pieces'}", f"-artifact_prefix={folder / 'found'}/", str(corpus)]
    atheris.Setup([sys.argv[0], *limits, *folders], read_one, custom_mutator=lambda *given: change(*given, starts))
    atheris.Fuzz()


def main() -> None:
    """Fuzzes one reader for so many seconds, in as many processes as that takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=READERS)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="for the processes that this one starts")
    args = parser.parse_args()
    if args.folder:
        search(args.kind, args.folder, args.seconds, args.seed)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "found").mkdir()
        make_valid(folder / "valid")
        end, edges = time.monotonic() + args.seconds, "0"
        while (left := int(end - time.monotonic())) > 0:
            command = [sys.executable, __file__, args.kind, "--seconds", str(left), "--folder", made]
            done = subprocess.run(
                [*command, "--seed", str(args.seed + left)], capture_output=True, text=True, check=False
            )
            edges = (re.findall(r"cov: (\d+)", done.stderr) or [edges])[-1]
            print(done.stdout, end="", flush=True)
            if done.returncode:
                print(f"the process ended (exit code {done.returncode}): {done.stderr[-900:]}", flush=True)
        num_files, num_read = map(int, (folder / "counts").read_text().split())
        findings = len(list((folder / "found").iterdir()))
    print(
        f"{args.kind}: {num_files:,} files, {num_read:,} read, {int(edges):,} branches reached, "
        f"{findings} findings, {args.seconds} s"
    )


if __name__ == "__main__":
    main()
