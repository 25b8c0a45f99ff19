"""kill -9 at random moments: the same command goes on, nothing reported is lost or there twice, totals are right."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from forethought.core.options import Option, to_toml
from forethought.runs.store import RunDirectory

pytestmark = pytest.mark.slow

NUM_QUERIES = 60
NUM_KILLS = 8 if os.environ.get("FORETHOUGHT_TEST_ALL") else 4  # for each command; each fourth as it starts

# Prints each record's query once the pipeline reports it, as a user's progress bar would.
DRIVER = """
import sys
from pathlib import Path
from forethought.commands.pipeline import profile, run
from forethought.core.settings import PlanSettings, ProfileSettings, RunSettings

def report(record):
    print(record.get("id") or f"{record['query_id']}/{record['sample']}/{record.get('option', '')}", flush=True)

asked = {"model": "fake", "questions": "q.jsonl", "out": sys.argv[2]}
if sys.argv[1] == "profile":
    profile(ProfileSettings(num_traces=4, **asked), report=report)
elif sys.argv[1] == "options":
    profile(ProfileSettings(num_traces=2, menu_file="menu.toml", **asked), report=report)
else:
    plan = PlanSettings(run="trained", questions="q.jsonl", mean_tokens=64)
    run(RunSettings(plan=plan, out=sys.argv[2], compare=("uniform",)), report=report)
print("done", flush=True)
"""


def _start(folder: Path, *args: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", DRIVER, *args]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _reported(process: subprocess.Popen[str], *, most: int | None) -> list[str]:
    """Lines the process says, up to `most` of them."""
    assert process.stdout is not None
    lines = []
    while (most is None or len(lines) < most) and (line := process.stdout.readline()):
        lines.append(line.strip())
    return lines


def _keys(run: RunDirectory, command: str) -> list[str]:
    records = run.records()
    if command == "run":
        return [record.query_id for record in records]
    return [f"{record.query_id}/{record.sample}/{record.option}" for record in records]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with questions and a trained run."""
    from forethought.commands.pipeline import profile, train
    from forethought.core.settings import ProfileSettings, TrainSettings

    path = tmp_path_factory.mktemp("kill")
    rows = [{"id": f"q{i}", "question": f"What is {i} + {i}?", "answer": str(2 * i)} for i in range(NUM_QUERIES)]
    (path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    levels = [Option(level, set={"reasoning_effort": level}) for level in ("low", "high")]
    (path / "menu.toml").write_text(to_toml(levels), "utf-8")
    profile(ProfileSettings(model="fake", questions=str(path / "q.jsonl"), out=str(path / "trained"), num_traces=2))
    train(TrainSettings(run=str(path / "trained"), predictor="ridge"))
    return path


@pytest.mark.parametrize("command", ["profile", "options", "run"])
def test_kills_at_random_moments(folder: Path, command: str) -> None:
    rng = random.Random(7)
    total = NUM_QUERIES * (1 if command == "run" else 4)
    whole = RunDirectory(folder / f"whole-{command}")
    with _start(folder, command, whole.path.name) as undisturbed:
        assert len(_reported(undisturbed, most=None)) == total + 1
    assert undisturbed.returncode == 0

    run = RunDirectory(folder / f"killed-{command}")
    reported: Counter[str] = Counter()
    for kill in range(NUM_KILLS):
        with _start(folder, command, run.path.name) as process:
            if kill % 4 == 3:
                time.sleep(rng.uniform(0.0, 1.0))  # while starting, planning or writing the header
                seen = []
            else:
                seen = _reported(process, most=rng.randint(1, max(1, total // NUM_KILLS)))
                time.sleep(rng.uniform(0.0, 0.003))
            process.send_signal(signal.SIGKILL)
            seen += _reported(process, most=None)  # said before the kill, not yet read
        reported.update(line for line in seen if line != "done")
        kept = Counter(_keys(run, command)) if (run.path / "run.json").exists() else Counter()
        assert not reported - kept, "a reported record was lost"
        assert max(kept.values(), default=0) <= 1, "a record occurs twice"

    with _start(folder, command, run.path.name) as last:
        assert _reported(last, most=None)[-1] == "done"
    assert last.returncode == 0
    assert len(_keys(run, command)) == total
    if command == "run":
        for name in ("summary.json", "answers.jsonl"):
            assert (run.path / name).read_text("utf-8") == (whole.path / name).read_text("utf-8")
    else:
        assert _sorted(run) == _sorted(whole)


@pytest.mark.parametrize(("order", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"])
def test_who_is_asked_to_end_says_so_in_one_line_and_goes_on(folder: Path, order: int, code: int) -> None:
    run = RunDirectory(folder / f"asked-{code}")
    command = [sys.executable, "-m", "forethought", "run", "trained", "q.jsonl", "--mean-tokens", "64", "--quiet"]
    command += ["--out", run.path.name]
    slow = [*command, "--engine-option", "tokens_per_second=500"]
    how: dict[str, Any] = {"cwd": folder, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    how["preexec_fn"] = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's background job ignores it
    with subprocess.Popen(slow, **how) as process:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not ((run.path / "run.json").exists() and any(run.records())):
            time.sleep(0.02)
        process.send_signal(order)
        _, errors = process.communicate()
    assert process.returncode == code
    said = [line for line in errors.splitlines()[1:] if line]
    assert said == ["stopped; finished work is saved, and the same command resumes"]
    assert 0 < len(_keys(run, "run")) < NUM_QUERIES
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(_keys(run, "run")) == sorted(f"q{number}" for number in range(NUM_QUERIES))


INTERRUPTED_IMPORT = """
import os, signal, sys

class Interrupt:
    def find_spec(self, name, *rest):
        if name == "click":
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Interrupt())
import forethought.__main__
"""


def test_an_interrupt_while_the_command_line_is_imported_shows_no_traceback() -> None:
    ended = subprocess.run([sys.executable, "-c", INTERRUPTED_IMPORT], capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGINT
    assert ended.stderr == ""


def _sorted(run: RunDirectory) -> list[str]:
    return sorted(json.dumps(record.to_json(), sort_keys=True) for record in run.records())


def test_two_writers_do_not_share_a_run(folder: Path) -> None:
    run = RunDirectory(folder / "trained")
    with run.locked(), _start(folder, "profile", "trained") as process:
        _, errors = process.communicate()
    assert process.returncode != 0
    assert "another process" in errors
