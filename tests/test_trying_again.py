"""Failed traces are tried again by the same command; layers that a run does not hold are refused before it pays."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command_line import JsonCall, json_caller, write_sums
from forethought.control.profiling import setup_of
from forethought.core.data import EngineInfo
from forethought.core.provenance import Provenance
from forethought.runs.store import Failure, RunDirectory, Tries


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> JsonCall:
    monkeypatch.chdir(tmp_path)
    write_sums(Path("q.jsonl"), 30)
    return json_caller(capsys)


def records(run: str) -> list[dict[str, Any]]:
    return [record.to_json() for record in RunDirectory.open(Path(run)).records()]


def fail_once(run: str, *, is_final: bool) -> int:
    """Makes failures of the first records, as a server gives them; how many."""
    path = Path(run) / "records.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines[:5]:
        line |= {"stop_reason": "error", "error": "HTTP 503", "setup": "", "answer": "", "probes": []}
        if is_final:
            line["is_final"] = True
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return 5


def test_the_same_command_tries_what_failed_again(call: JsonCall) -> None:
    profile = ("profile", "fake", "q.jsonl", "--traces", 2)
    code, good, _ = call(*profile)
    assert (code, good["failed"]) == (0, 0)
    num_failed = fail_once("runs/fake-q", is_final=False)
    code, found, _ = call(*profile, "--no-retry-failed")
    assert (code, found["failed"]) == (3, num_failed)
    code, bill, _ = call(*profile, "--dry-run")
    assert (bill["num_left"], bill["num_done"]) == (num_failed, 60 - num_failed)
    code, found, _ = call(*profile)
    assert code == 0
    moved = ("changed", "tokens_per_second")
    assert {**found, **{name: good[name] for name in moved}} == good  # failures do not count beside the new records
    assert len(records("runs/fake-q")) == 60 + num_failed


@pytest.mark.slow
def test_a_run_does_so_too_and_its_answers_hold_no_old_failure(call: JsonCall) -> None:
    call("profile", "fake", "q.jsonl", "--traces", 2)
    call("train", "runs/fake-q", "--predictor", "mean")
    run = ("run", "runs/fake-q", "q.jsonl", "--mean-tokens", 64, "--out", "r")
    _, good, _ = call(*run)
    fail_once("r", is_final=False)
    code, found, _ = call(*run)
    assert code == 0
    assert {key: found[key] for key in good if key != "engine"} == {key: good[key] for key in good if key != "engine"}
    rows = [json.loads(line) for line in Path("r/answers.jsonl").read_text().splitlines()]
    assert len(rows) == 30
    assert not any("error" in row for row in rows)


def test_what_can_only_fail_again_waits_for_another_setup(call: JsonCall) -> None:
    rows = [{"id": "long", "question": "What? " * 9000, "answer": "1"}]
    with Path("q.jsonl").open("a") as file:
        file.write(json.dumps(rows[0]) + "\n")
    profile = ("profile", "fake", "q.jsonl", "--traces", 1)
    code, found, _ = call(*profile)
    assert (code, found["failed_ids"]) == (3, ["long"])
    assert [record["is_final"] for record in records("runs/fake-q") if record["error"]] == [True]
    before = len(records("runs/fake-q"))
    assert call(*profile)[0] == 3
    assert len(records("runs/fake-q")) == before  # not sent again
    code, found, _ = call(*profile, "--context-tokens", 12_000)
    assert (code, found["failed"]) == (0, 0)


@pytest.mark.parametrize(
    ("failure", "retry_failed", "setup", "is_left"),
    [
        (None, True, "a", False),
        (Failure(False, "a"), True, "a", True),
        (Failure(False, "a"), False, "b", False),
        (Failure(True, "a"), True, "a", False),
        (Failure(True, "a"), True, "b", True),
        (Failure(True, "a"), True, None, True),
        (Failure(True, "a"), False, "b", False),
    ],
    ids=["finished", "failed", "told not to", "final", "final, mended", "final, before it is known", "final, told not"],
)
def test_which_traces_are_left(failure: Failure | None, retry_failed: bool, setup: str | None, is_left: bool) -> None:
    tries = Tries({"": {"q": 1}}) if failure is None else Tries(failures={("q", 0, ""): failure})
    assert tries.is_left("q", 0, retry_failed=retry_failed, setup=setup) is is_left
    assert tries.is_left("q", 1, retry_failed=retry_failed, setup=setup)
    done = tries.num_done(1, retry_failed=retry_failed)["q"]
    assert done == (0 if tries.is_left("q", 0, retry_failed=retry_failed) else 1)


def test_what_a_setup_is() -> None:
    info = EngineInfo("openai", "m", context_tokens=4096, server="vllm 1")
    assert setup_of(info, {"a": 1, "b": 2}) == setup_of(info, {"b": 2, "a": 1})
    for other in (EngineInfo("openai", "m", context_tokens=8192, server="vllm 1"), EngineInfo("openai", "m")):
        assert setup_of(other, {"a": 1, "b": 2}) != setup_of(info, {"a": 1, "b": 2})
    assert setup_of(info, {"a": 1}) != setup_of(info, {"a": 2})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "then", "named"),
    [("all", "2", "0,1,2,3,4"), ("2", "all", "2"), ("2", "none", "2"), ("1,2", "2,3", "1,2")],
    ids=["fewer", "more", "none", "others"],
)
def test_other_layers_are_refused_before_anything_is_sampled(call: JsonCall, first: str, then: str, named: str) -> None:
    profile = ("profile", "fake", "q.jsonl", "--traces", 1)
    assert call(*profile, "--limit", 10, "--layers", first)[0] == 0
    before = sorted(path.read_bytes() for path in Path("runs").rglob("*.*") if path.is_file())
    for more in ((), ("--dry-run",)):
        code, _, err = call(*profile, "--limit", 20, "--layers", then, *more)
        if more and then == "all":
            continue  # how many there are, only the model knows
        assert code == 1
        assert f"holds hidden states of the layers {named}" in err
        assert f"Give --layers {named}" in err
    assert sorted(path.read_bytes() for path in Path("runs").rglob("*.*") if path.is_file()) == before
    assert call(*profile, "--limit", 20, "--layers", named)[0] == 0
    assert call("train", "runs/fake-q", "--predictor", "ridge")[0] == 0


@pytest.mark.parametrize(
    ("chunks", "layers", "ids"),
    [
        ([((0, 1, 2), "ab"), ((2,), "cd")], (2,), "abcd"),
        ([((0, 1), "abc"), ((2,), "d")], (0, 1), "abc"),
        ([((2,), "a"), ((0, 1), "bcd")], (0, 1), "bcd"),
    ],
    ids=["what is shared", "the larger, first", "the larger, last"],
)
def test_a_run_with_chunks_of_several_layers_is_read(
    tmp_path: Path, chunks: list[tuple[tuple[int, ...], str]], layers: tuple[int, ...], ids: str
) -> None:
    run = RunDirectory.create(tmp_path / "run", kind="profile", provenance=Provenance(), settings={})
    for held, names in chunks:
        states_Q_L_D = np.array([[[ord(name) + layer] for layer in held] for name in names], dtype=np.float32)
        run.save_hidden(list(names), held, states_Q_L_D)
    found, hidden = run.load_hidden()
    assert found == layers
    assert {name: states_L_D[:, 0].tolist() for name, states_L_D in hidden.items()} == {
        name: [ord(name) + layer for layer in layers] for name in ids
    }


def test_a_damaged_run_goes_on_with_the_layers_that_all_chunks_hold(call: JsonCall) -> None:
    profile = ("profile", "fake", "q.jsonl", "--traces", 1)
    assert call(*profile, "--limit", 10)[0] == 0
    RunDirectory.open(Path("runs/fake-q")).save_hidden(["q10"], [2], np.zeros((1, 1, 32), dtype=np.float32))
    code, found, _ = call(*profile, "--layers", 2)
    assert (code, found["layers"]) == (0, [2])
    assert call("train", "runs/fake-q", "--predictor", "ridge")[0] == 0


def test_answers_are_in_their_file_as_they_come(call: JsonCall) -> None:
    from forethought.commands.pipeline import run
    from forethought.core.settings import PlanSettings, RunSettings

    call("profile", "fake", "q.jsonl", "--traces", 1)
    call("train", "runs/fake-q", "--predictor", "ridge")
    seen: list[int] = []

    def report(_: Any) -> None:
        rows = Path("r/answers.jsonl").read_text().splitlines()
        assert all(json.loads(row)["answer"] for row in rows)
        seen.append(len(rows))

    plan = PlanSettings(run="runs/fake-q", questions="q.jsonl", mean_tokens=64)
    run(RunSettings(plan=plan, out="r"), report=report)
    assert seen == list(range(1, 31))
    rows = [json.loads(row)["id"] for row in Path("r/answers.jsonl").read_text().splitlines()]
    assert rows == [f"q{number}" for number in range(30)]
