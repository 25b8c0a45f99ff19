"""Several writers of one run: real processes, killed and started again in any combination, and who is refused."""

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from forethought.core.profile import Profile
from forethought.core.provenance import Provenance
from forethought.core.worker import ALONE, Worker
from forethought.errors import InvalidSettingsError, RunError
from forethought.runs.store import RunDirectory

NUM_QUERIES = 60

DRIVER = """
import sys
from forethought.commands.pipeline import profile, run
from forethought.core.settings import PlanSettings, ProfileSettings, RunSettings

def report(record):
    print(record.get("id") or f"{record['query_id']}/{record['sample']}", flush=True)

command, out, worker = sys.argv[1:]
if command == "profile":
    profile(ProfileSettings(model="fake", questions="q.jsonl", out=out, num_traces=4, worker=worker), report=report)
else:
    plan = PlanSettings(run="trained", questions="q.jsonl", mean_tokens=64)
    run(RunSettings(plan=plan, out=out, compare=("uniform",), worker=worker), report=report)
print("done", flush=True)
"""


def start(folder: Path, command: str, out: str, worker: str) -> subprocess.Popen[str]:
    args = [sys.executable, "-c", DRIVER, command, out, worker]
    return subprocess.Popen(args, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def keys(run: RunDirectory, command: str) -> Counter[str]:
    return Counter(
        f"{each.query_id}/{each.sample}" if command == "profile" else each.query_id for each in run.records()
    )


def lines(run: RunDirectory) -> list[str]:
    return sorted(json.dumps(record.to_json(), sort_keys=True) for record in run.records())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with questions, a trained run, and what one process makes of the questions by itself."""
    from forethought.commands.pipeline import profile, train
    from forethought.core.settings import ProfileSettings, TrainSettings

    path = tmp_path_factory.mktemp("workers")
    rows = [{"id": f"q{i}", "question": f"What is {i} + {i}?", "answer": str(2 * i)} for i in range(NUM_QUERIES)]
    (path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    profile(ProfileSettings(model="fake", questions=str(path / "q.jsonl"), out=str(path / "trained"), num_traces=2))
    train(TrainSettings(run=str(path / "trained"), predictor="ridge"))
    return path


def finish(processes: list[subprocess.Popen[str]]) -> None:
    for process in processes:
        said, errors = process.communicate()
        assert process.returncode == 0, errors
        assert said.endswith("done\n")


@pytest.mark.slow
@pytest.mark.parametrize("command", ["profile", "run"])
def test_workers_that_are_killed_and_started_again_do_what_one_process_does(folder: Path, command: str) -> None:
    finish([start(folder, command, f"alone-{command}", "")])
    rng, run = random.Random(3), RunDirectory(folder / f"shared-{command}")
    reported: Counter[str] = Counter()
    for count in (3, 2, 4):  # workers that divide the questions otherwise each time
        at_once = [start(folder, command, run.path.name, f"{number}/{count}") for number in range(1, count + 1)]
        time.sleep(rng.uniform(1.0, 3.0))
        for process in at_once:
            time.sleep(rng.uniform(0.0, 0.3))
            process.send_signal(signal.SIGKILL)
        reported.update(line for process in at_once for line in process.communicate()[0].split() if line != "done")
        if (run.path / "run.json").exists():
            kept = keys(run, command)
            assert not reported - kept, "a reported record was lost"
            assert max(kept.values(), default=0) <= 1, "a record occurs twice"
    finish([start(folder, command, run.path.name, f"{number}/3") for number in (1, 2, 3)])
    alone = RunDirectory(folder / f"alone-{command}")
    assert lines(run) == lines(alone)
    assert len(run.shards()) >= 3
    if command == "profile":
        shared, own = Profile.load(run.path), Profile.load(alone.path)
        np.testing.assert_array_equal(shared.num_right_Q_B, own.num_right_Q_B)
        np.testing.assert_array_equal(shared.hidden_Q_L_D, own.hidden_Q_L_D)
        assert shared.query_ids == own.query_ids
        finish([start(folder, command, run.path.name, "")])  # alone again: nothing is left to do
        assert lines(run) == lines(alone)
    else:
        assert (run.path / "answers.jsonl").read_bytes() == (alone.path / "answers.jsonl").read_bytes()
        shared, own = (json.loads((each.path / "summary.json").read_bytes()) for each in (run, alone))
        assert {**shared, "usage": None} == {**own, "usage": None}


@pytest.mark.slow
def test_workers_at_once_each_do_their_share(folder: Path) -> None:
    run = RunDirectory(folder / "at-once")
    finish([start(folder, "profile", run.path.name, f"{number}/4") for number in range(1, 5)])
    assert max(keys(run, "profile").values()) == 1
    assert len(keys(run, "profile")) == 4 * NUM_QUERIES
    held = [query_id for chunk in run.hidden_chunks()[1] for query_id in chunk.query_ids]
    assert sorted(held) == sorted(f"q{number}" for number in range(NUM_QUERIES)), "each is read once"
    assert Profile.load(run.path).num_tried_Q.tolist() == [4] * NUM_QUERIES


HOLDER = """
import sys
from pathlib import Path
from forethought.core.worker import Worker
from forethought.runs.store import RunDirectory
with RunDirectory(Path(sys.argv[1])).locked(Worker.parse(sys.argv[2])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "run", kind="profile", provenance=Provenance(model="m"), settings={})


WRITERS = {
    "alone, alone": ("", "", "another process"),
    "alone, a worker": ("", "1/2", "another process"),
    "a worker, alone": ("1/2", "", "another process"),
    "a worker, the other": ("1/2", "2/2", None),
    "a worker, itself": ("1/2", "1/2", "worker 1/2 is already running"),
    "a worker, of another division": ("1/2", "2/3", "by workers of 2"),
}


@pytest.mark.parametrize(("first", "second", "refusal"), WRITERS.values(), ids=WRITERS.keys())
def test_who_may_write_beside_whom(run: RunDirectory, first: str, second: str, refusal: str | None) -> None:
    args = [sys.executable, "-c", HOLDER, str(run.path), first]
    with subprocess.Popen(args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        if refusal:
            with pytest.raises(RunError, match=refusal), run.locked(Worker.parse(second)):
                pass
        else:
            with run.locked(Worker.parse(second)):
                pass
        holder.kill()
    with run.locked(Worker.parse(second)):  # a kill frees it
        pass


def test_a_run_is_not_graded_anew_while_a_worker_writes(run: RunDirectory) -> None:
    from forethought.commands.grading import regrade
    from forethought.core.study_settings import RegradeSettings

    (run.path / "queries.jsonl").write_text('{"id": "q", "prompt": "1?", "reference": "1"}\n')
    with run.locked(Worker(2, 3)), pytest.raises(RunError, match="another process"):
        regrade(RegradeSettings(run=str(run.path)))


def test_shards_are_read_in_order_and_old_runs_have_one(run: RunDirectory) -> None:
    assert run.shards() == []
    for worker in (Worker(10, 10), ALONE, Worker(2, 10)):
        with run.appender(worker):
            pass
    (run.path / "records-x.jsonl").write_text("a stranger's")
    assert [file.name for file in run.shards()] == ["records.jsonl", "records-2.jsonl", "records-10.jsonl"]


def test_hidden_states_of_two_workers_do_not_collide(run: RunDirectory) -> None:
    for number in (1, 2, 1):
        run.save_hidden([f"q{number}-{len(run.hidden_chunks()[1])}"], [0], np.ones((1, 1, 2)), worker=Worker(number, 2))
    names = sorted(file.name for file in (run.path / "hidden").glob("*.safetensors"))
    assert names == ["1-00000.safetensors", "1-00001.safetensors", "2-00000.safetensors"]
    assert len(run.load_hidden()[1]) == 3


def test_shares_are_disjoint_and_whole() -> None:
    ids = [f"q{number}" for number in range(1000)]
    for count in (1, 3, 7):
        owners = [[number for number in range(1, count + 1) if Worker(number, count).owns(each)] for each in ids]
        assert all(len(each) == 1 for each in owners)
        assert min(Counter(each[0] for each in owners).values()) > 1000 / count / 1.5


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2", "1/2/3"])
def test_no_worker(text: str) -> None:
    with pytest.raises(InvalidSettingsError, match="--worker"):
        Worker.parse(text)
