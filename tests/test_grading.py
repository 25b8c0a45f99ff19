"""Judging answers: one, a file of them, and the kept records of a run anew; kills leave the old grades or the new."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import forethought
from command_line import Call, write_questions
from forethought.commands.grading import grade_file, regrade
from forethought.control.sources import open_profile
from forethought.core.data import Grade
from forethought.core.profile import Profile
from forethought.core.study_settings import GradeSettings, RegradeSettings
from forethought.errors import InvalidInputError, InvalidSettingsError, RunError, UnknownNameError
from forethought.runs.store import RunDirectory


def lines(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def test_one_answer() -> None:
    assert forethought.grade("72", "72.0") is Grade.RIGHT
    assert forethought.grade("(b)", "B", "choice") is Grade.RIGHT
    assert forethought.grade("1", "B", grader="choice", first_index=0) is Grade.RIGHT
    assert forethought.grade("many", "72") is Grade.UNREADABLE


def test_wrong_use_of_grade_is_told() -> None:
    with pytest.raises(InvalidInputError, match="the answer must be text, not 72"):
        forethought.grade(72, "72")  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="'number'"):
        forethought.grade("72", "72", "numbr")
    with pytest.raises(InvalidSettingsError, match="'first_index'"):
        forethought.grade("72", "72", "choice", first_indx=0)


FILES = {
    "usual names": ({"answer": "5", "reference": "5"}, []),
    "a run's answers": ({"id": "a", "answer": "5", "reference": "5.0", "grade": "wrong"}, []),
    "predictions and answers": ({"prediction": "5", "answer": "5"}, ["--answer-column", "prediction"]),
    "named": ({"said": 5, "gold": 5.0}, ["--answer-column", "said", "--reference-column", "gold"]),
    "any case": ({"Response": "5", "Target": "5"}, []),
    "worked": ({"answer": "5", "reference": "2 + 3 = 5\n#### 5"}, []),
}


@pytest.mark.parametrize(("row", "flags"), FILES.values(), ids=FILES.keys())
def test_columns_are_found_or_named(call: Call, tmp_path: Path, row: dict[str, Any], flags: list[str]) -> None:
    said = call("grade", lines(tmp_path / "a.jsonl", row), *flags, "--json")
    assert said.code == 0, said.err
    assert said.json["right"] == 1


def test_a_file_is_counted_and_the_unreadable_are_shown(call: Call, tmp_path: Path) -> None:
    rows = [
        {"id": "a", "answer": "5", "reference": "5"},
        {"id": "b", "answer": "6", "reference": "5"},
        {"id": "c", "answer": "many", "reference": "5"},
        {"id": "d", "answer": None, "reference": "5"},
    ]
    path = lines(tmp_path / "a.jsonl", *rows)
    said = call("grade", path, "--json", "--out", "verdicts.jsonl")
    assert {key: said.json[key] for key in ("graded", "right", "wrong", "unreadable", "left_out")} == {
        "graded": 4,
        "right": 1,
        "wrong": 1,
        "unreadable": 2,
        "left_out": 0,
    }
    verdicts = [json.loads(line) for line in Path("verdicts.jsonl").read_text("utf-8").splitlines()]
    assert [row["grade"] for row in verdicts] == ["right", "wrong", "unreadable", "unreadable"]
    text = call("grade", path).out
    assert "c: 'many' (reference '5')" in text
    assert "graded by number" in text


def test_csv_and_parquet_are_read_alike(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "a.csv").write_text("answer,reference\n5,5\n6,5\n", "utf-8")
    pq.write_table(pa.table({"answer": ["5", "6"], "reference": ["5", "5"]}), tmp_path / "a.parquet")
    for name in ("a.csv", "a.parquet"):
        grades = [row["grade"] for row in grade_file(GradeSettings(file=str(tmp_path / name))).rows]
        assert grades == ["right", "wrong"]


UNGRADABLE = {
    "no reference": ([{"answer": "5", "reference": "5"}, {"answer": "5", "reference": ""}], ["row 2", "--skip"]),
    "unreadable reference": ([{"answer": "5", "reference": "x+1"}], ["row 1", "'x+1'"]),
    "no column": ([{"said": "5", "reference": "5"}], ["no column of answers", "--answer-column"]),
    "answers alone": ([{"answer": "5"}], ["no column of references", "--reference-column"]),
    "several answers": ([{"answer": "5", "reference": ["5", "6"]}], ["line 1", "one answer"]),
}


@pytest.mark.parametrize(("rows", "words"), UNGRADABLE.values(), ids=UNGRADABLE.keys())
def test_what_cannot_be_graded_is_named(call: Call, tmp_path: Path, rows: list[Any], words: list[str]) -> None:
    said = call("grade", lines(tmp_path / "a.jsonl", *rows))
    assert said.code == 1
    for word in words:
        assert word in said.err
    if "--skip" in words:
        skipped = call("grade", tmp_path / "a.jsonl", "--skip-ungraded", "--json").json
        assert (skipped["graded"], skipped["left_out"]) == (1, 1)


# --- regrade -----------------------------------------------------------------------------------------------------


@pytest.fixture
def profiled(call: Call, tmp_path: Path) -> RunDirectory:
    questions = write_questions(tmp_path / "q.jsonl", 12)
    assert call("profile", "fake", questions, "--traces", 2, "--out", "p", "--quiet").code == 0
    return RunDirectory(Path("p"))


def wrong_answers(path: Path, count: int = 12) -> Path:
    return lines(path, *({"id": f"q{i}", "answer": "-1"} for i in range(count)))


def test_a_corrected_reference_changes_every_file_that_follows(
    call: Call, profiled: RunDirectory, tmp_path: Path
) -> None:
    before = open_profile("p")
    found = call("regrade", "p", "--answers", wrong_answers(tmp_path / "fix.jsonl", 3), "--json")
    assert found.json["references_corrected"] == 3
    after = open_profile("p")
    rows = [after.query_ids.index(f"q{i}") for i in range(3)]
    assert after.num_right_Q_B[rows].sum() == 0
    assert before.num_right_Q_B[rows].sum() > 0
    assert after.num_right_Q_B.sum() + before.num_right_Q_B[rows].sum() == before.num_right_Q_B.sum()
    table = Profile.load("p")
    assert (table.num_right_Q_B == after.num_right_Q_B).all()
    assert found.json["changed"] == sum(change["count"] for change in found.json["changes"]) > 0
    assert call("regrade", "p", "--json").json["changed"] == 0
    back = call("regrade", "p", "--answers", "q.jsonl", "--json").json
    assert back["changed"] == found.json["changed"]
    assert (open_profile("p").num_right_Q_B == before.num_right_Q_B).all()


def test_a_dry_run_counts_and_writes_nothing(call: Call, profiled: RunDirectory, tmp_path: Path) -> None:
    def content() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in profiled.path.iterdir() if path.is_file()}

    before = content()
    fix = wrong_answers(tmp_path / "fix.jsonl")
    counted = call("regrade", "p", "--answers", fix, "--dry-run", "--json").json
    assert content() == before
    done = call("regrade", "p", "--answers", fix, "--json").json
    assert (counted["changed"], counted["changes"]) == (done["changed"], done["changes"])
    assert done["changed"] > 0


def test_another_grader_stands_in_the_header_and_is_not_mixed(call: Call, profiled: RunDirectory) -> None:
    found = call("regrade", "p", "--grader", "choice", "--grader-option", 'letters="AB"', "--skip-ungraded", "--json")
    assert found.code == 0, found.err
    made = profiled.header.provenance
    assert (made.grader, made.grader_options) == ("choice", {"letters": "AB"})
    resumed = call("profile", "fake", "q.jsonl", "--traces", 2, "--out", "p", "--quiet")
    assert resumed.code == 1
    assert "forethought regrade p --grader number" in resumed.err
    assert len(resumed.err.strip().splitlines()) == 1
    assert call("profile", "fake", "q.jsonl", "--traces", 2, "--out", "p", "--quiet", "--dry-run").code == 1
    assert call("regrade", "p", "--grader", "number", "--json").code == 0
    assert call("profile", "fake", "q.jsonl", "--traces", 2, "--out", "p", "--quiet").code == 0


def test_another_version_of_the_grader_is_not_mixed(
    call: Call, profiled: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    from forethought.graders import NumberGrader

    monkeypatch.setattr(NumberGrader, "version", "later", raising=False)
    resumed = call("profile", "fake", "q.jsonl", "--traces", 2, "--out", "p", "--quiet")
    assert resumed.code == 1
    assert "number later" in resumed.err
    assert "forethought regrade p" in resumed.err
    assert call("regrade", "p").code == 0
    assert profiled.header.provenance.grader_version == "later"
    assert call("profile", "fake", "q.jsonl", "--traces", 2, "--out", "p", "--quiet").code == 0
    assert call("train", "p", "--predictor", "mean").code == 0
    assert "graded by `number later`" in Path("p/predictor/card.md").read_text("utf-8")


@pytest.mark.slow
def test_a_run_is_graded_anew(call: Call, trained: str, tmp_path: Path) -> None:
    questions = tmp_path / "train.jsonl"
    call("run", trained, questions, "--mean-tokens", 64, "--compare", "uniform", "--out", "r", "--quiet")
    before = json.loads(Path("r/summary.json").read_text("utf-8"))
    done = call("regrade", "r", "--answers", wrong_answers(tmp_path / "fix.jsonl", 60), "--json")
    assert done.code == 0, done.err
    after = json.loads(Path("r/summary.json").read_text("utf-8"))
    assert (after["right"], after["graded"]) == (0, 60)
    assert before["right"] > 0
    assert after["spent_tokens"] == before["spent_tokens"]
    rows = [json.loads(line) for line in Path("r/answers.jsonl").read_text("utf-8").splitlines()]
    assert {row["reference"] for row in rows} == {"-1"}
    compared = call("evaluate", "r", "--no-plots", "--json")
    assert compared.code == 0, compared.err


def test_what_was_made_from_the_old_grades_is_named(call: Call, trained: str, tmp_path: Path) -> None:
    said = call("regrade", trained, "--answers", wrong_answers(tmp_path / "fix.jsonl"))
    assert f"{trained}/predictor was made from the old grades" in said.err


REFUSED = {
    "no run": (["regrade", "nothing"], ["nothing"]),
    "unknown grader": (["regrade", "p", "--grader", "numbr"], ["'number'"]),
    "unknown option": (["regrade", "p", "--grader-option", "unit=1"], ["takes no options", "'unit'"]),
    "unreadable references": (["regrade", "p", "--grader", "choice"], ["row 1", "ChoiceGrader"]),
    "answers of other questions": (["regrade", "p", "--answers", "other.jsonl"], ["other.jsonl", "'q0'"]),
    "answers twice": (["regrade", "p", "--answers", "twice.csv"], ["twice.csv", "line 3", "'q1'"]),
    "no answers file": (["regrade", "p", "--answers", "none.csv"], ["none.csv"]),
}


@pytest.mark.parametrize(("args", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_regraded_changes_nothing(
    call: Call, profiled: RunDirectory, tmp_path: Path, args: list[str], words: list[str]
) -> None:
    lines(tmp_path / "other.jsonl", {"id": "x", "answer": "1"})
    (tmp_path / "twice.csv").write_text("id,answer\nq1,1\nq1,2\n", "utf-8")
    before = (profiled.path / "records.jsonl").read_bytes(), (profiled.path / "run.json").read_bytes()
    said = call(*args)
    assert said.code == 1
    assert "Traceback" not in said.err
    for word in words:
        assert word in said.err
    assert ((profiled.path / "records.jsonl").read_bytes(), (profiled.path / "run.json").read_bytes()) == before


KILLER = """
import os, signal, sys
left, replace = int(sys.argv[1]), os.replace
def killed_before(source, target, **kwargs):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target, **kwargs)
os.replace = killed_before
from forethought.commands.grading import regrade
from forethought.core.study_settings import RegradeSettings
regrade(RegradeSettings(run="p", answers="fix.jsonl"))
"""


@pytest.mark.slow
def test_a_kill_at_any_file_leaves_old_or_new_and_is_finished_by_the_same_command(
    call: Call, profiled: RunDirectory, tmp_path: Path
) -> None:
    fix = wrong_answers(tmp_path / "fix.jsonl")
    whole = sum(record.grade == "right" for record in profiled.records())
    assert whole > 0
    killed = 0
    for moment in range(1, 20):
        process = subprocess.run(
            [sys.executable, "-c", KILLER, str(moment)], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, process.stderr
        killed += 1
        header = json.loads((profiled.path / "run.json").read_text("utf-8"))
        grades = [r["grade"] for r in map(json.loads, (profiled.path / "records.jsonl").read_text().splitlines())]
        assert grades.count("right") in (0, whole)
        if "regrading" in header:
            refused = call("train", "p", "--predictor", "mean", "--out", "t")
            assert refused.code == 1
            assert "forethought regrade p" in refused.err
            assert "finish it: forethought regrade p" in call("ls", ".").out
            assert call("profile", "fake", "q.jsonl", "--traces", 2, "--out", "p", "--quiet").code == 1
        assert call("regrade", "p", "--answers", fix).code == 0
        assert sum(record.grade == "right" for record in profiled.records()) == 0
        assert Profile.load("p").num_right_Q_B.sum() == 0
        assert call("regrade", "p", "--answers", "q.jsonl").code == 0
    assert killed >= 5, "every file that is replaced is a moment to be killed at"


def test_a_run_that_is_being_written_is_left_alone(profiled: RunDirectory) -> None:
    with profiled.locked(), pytest.raises(RunError, match="another process"):
        regrade(RegradeSettings(run="p"))
