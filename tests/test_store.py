"""Run directories: atomic files, append-only records, provenance, hidden states."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forethought import errors
from forethought.core.data import Generation, Grade, Probe, Sampling, StopReason
from forethought.core.files import write_atomically
from forethought.core.provenance import Provenance
from forethought.core.records import Record
from forethought.errors import ForethoughtError, RunError
from forethought.runs.store import RunDirectory

MADE = Provenance(model="m", sampling=Sampling(0.6))


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "run", kind="profile", provenance=MADE, settings={})


def record(number: int) -> Record:
    made = Generation(f"q{number}", 0, 16, "ä\u2028\n" * number, 3, "7", 1, 2, 9, StopReason.NATURAL)
    return replace(Record.of(made), grade=Grade.RIGHT)


def failed(number: int) -> Record:
    return replace(record(number), stop_reason=StopReason.ERROR, error="broke", grade=None)


@pytest.mark.slow
@given(cut=st.integers(min_value=0, max_value=400))
@settings(deadline=None, max_examples=60)
def test_a_file_cut_anywhere_keeps_its_whole_lines_and_goes_on(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    run = RunDirectory.create(tmp_path_factory.mktemp("c") / "r", kind="profile", provenance=MADE, settings={})
    with run.appender() as records:
        records.append(record(number).to_json() for number in range(5))
    path = run.path / "records.jsonl"
    content = path.read_bytes()[:cut]
    path.write_bytes(content)
    whole = content.count(b"\n")
    assert [each.query_id for each in run.records()] == [f"q{number}" for number in range(whole)]
    with run.appender() as records:
        records.append([record(9).to_json()])
    assert [each.query_id for each in run.records()] == [*(f"q{number}" for number in range(whole)), "q9"]


def test_a_broken_line_in_the_middle_is_named(run: RunDirectory) -> None:
    (run.path / "records.jsonl").write_bytes(json.dumps(record(0).to_json()).encode() + b'\n{"query\n{}\n')
    with pytest.raises(RunError, match="line 2"):
        list(run.records())


def test_the_last_try_of_a_trace_counts(run: RunDirectory) -> None:
    with run.appender() as records:
        records.append(each.to_json() for each in (failed(1), failed(2), failed(2), record(1)))
    assert list(run.latest()) == [record(1), failed(2)]
    tries = run.tries()
    assert not tries.is_left("q1", 0, retry_failed=True)
    assert tries.is_left("q1", 1, retry_failed=True)
    assert tries.is_left("q2", 0, retry_failed=True)
    assert not tries.is_left("q2", 0, retry_failed=False)
    assert tries.num_done(1, retry_failed=False) == {"q1": 1, "q2": 1}
    assert tries.num_done(1, retry_failed=True) == {"q1": 1}


OTHERS = {
    "kind": ({"kind": "run", "provenance": MADE}, "'run' run"),
    "model": ({"kind": "profile", "provenance": replace(MADE, model="n")}, "model: 'm' there, 'n' now"),
    "sampling": ({"kind": "profile", "provenance": replace(MADE, sampling=Sampling(1.0))}, "sampling"),
}


@pytest.mark.parametrize(("asked", "message"), OTHERS.values(), ids=OTHERS.keys())
def test_a_folder_of_another_provenance_is_refused(run: RunDirectory, asked: dict[str, object], message: str) -> None:
    with run.locked(), run.appender() as records:
        records.append([record(1).to_json()])
    with pytest.raises(RunError, match=message):
        RunDirectory.create(run.path, settings={}, **asked)  # type: ignore[arg-type]


def test_a_strangers_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match="not a run"):
        RunDirectory.create(tmp_path, kind="profile", provenance=MADE, settings={})
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("content", ["", "[]", "{}", "not json", '{"provenance": 3}'])
def test_a_broken_header_is_named(run: RunDirectory, content: str) -> None:
    (run.path / "run.json").write_text(content)
    with pytest.raises(RunError, match=r"run\.json"):
        RunDirectory.open(run.path)


def test_a_newer_schema_is_refused(run: RunDirectory) -> None:
    header = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps({**header, "schema": 99}))
    with pytest.raises(RunError, match="99"):
        RunDirectory.open(run.path)
    with pytest.raises(RunError, match="Use the version of forethought that wrote it"):
        RunDirectory.create(run.path, kind="profile", provenance=MADE, settings={})
    with pytest.raises(RunError, match="99"):  # as who grades it again would
        assert RunDirectory(run.path, is_regrading=True).header


def test_hidden_states_come_back_by_query(run: RunDirectory) -> None:
    first, second = np.full((2, 3, 4), 1.5), np.full((1, 3, 4), 1e9)
    run.save_hidden(["a", "b"], [0, 2, 5], first)
    run.save_hidden(["c"], [0, 2, 5], second)
    layers, hidden = run.load_hidden()
    assert layers == (0, 2, 5)
    assert list(hidden) == ["a", "b", "c"]
    assert hidden["b"].shape == (3, 4)
    assert np.isfinite(hidden["c"]).all(), "values beyond float16 are clipped"


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f.json"
    write_atomically(path, b"old")

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("budget", [16, 32, 48, 64], ids=str)
def test_what_a_generation_costs_at_a_cap(budget: int) -> None:
    generation = Generation(
        "q", 0, 64, "", 40, "42", 2, 7, 90, StopReason.NATURAL, (Probe(16, "7", 1), Probe(32, "", 0))
    )
    outcome = generation.at(budget)
    assert outcome is not None
    assert outcome.answer == {16: "7", 32: ""}.get(budget, "42")
    assert outcome.tokens == {16: 16 + 7 + 1, 32: 32 + 7}.get(budget, 40 + 7 + 2)
    assert outcome.reasoning_tokens == min(budget, 40)
    assert outcome.stop_reason is (StopReason.NATURAL if budget >= 40 else StopReason.BUDGET)
    assert generation.at(24) is None, "not probed there"
    assert generation.at(1000) == generation.at(64), "nothing more was generated"


@pytest.mark.parametrize(
    "kind",
    [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, ForethoughtError)],
)
def test_errors_pickle_and_are_also_standard_ones(kind: type[ForethoughtError]) -> None:
    error = pickle.loads(pickle.dumps(kind("what happened")))
    assert (type(error), str(error)) == (kind, "what happened")
    assert kind is ForethoughtError or len(kind.__mro__) > len(ForethoughtError.__mro__) + 1
