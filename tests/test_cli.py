"""The command line as a user meets it: what each verb prints, its exit codes, and what it says to wrong input."""

import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command_line import Call, write_questions
from forethought.control.sources import open_profile
from forethought.core import registry
from forethought.errors import ModelFileError
from forethought.models import locating
from forethought.runs.profiles import write_parquet


@pytest.mark.slow
def test_from_questions_to_report(call: Call, tmp_path: Path) -> None:
    questions = write_questions(tmp_path / "train.jsonl", 60)
    profiled = call("profile", "fake", questions, "--traces", 3, "--json", "--quiet")
    assert profiled.code == 0
    assert profiled.json["queries"] == 60
    assert profiled.json["traces"] == 180
    assert profiled.json["simulated"] is True

    card = call("train", "runs/fake-train", "--predictor", "ridge", "--json").json["card"]
    assert card["data"]["num_queries"] == 60
    assert card["data"]["simulated"] is True

    test = write_questions(tmp_path / "test.jsonl", 40)
    planned = call("plan", "runs/fake-train", test, "--mean-tokens", 64, "--json").json
    assert planned["granted"] <= 64 * 40
    assert [row["id"] for row in planned["budgets"]] == [f"q{i}" for i in range(40)]
    assert sum(row["budget"] for row in planned["budgets"]) == planned["granted"]

    ran = call("run", "runs/fake-train", test, "--mean-tokens", 64, "--compare", "uniform", "--json", "--quiet").json
    answers = [json.loads(line) for line in Path(ran["answers"]).read_text("utf-8").splitlines()]
    assert [row["budget"] for row in answers] == [row["budget"] for row in planned["budgets"]]
    assert all(row["reasoning_tokens"] <= row["budget"] for row in answers)
    assert ran["reasoning_tokens"] == sum(row["reasoning_tokens"] for row in answers)
    assert ran["right"] == sum(row["grade"] == "right" for row in answers)

    evaluated = call("evaluate", "runs/fake-train", "--predictor", "ridge", "--no-plots", "--resamples", 200, "--json")
    assert evaluated.code == 0
    assert evaluated.json["simulated"] is True
    assert all(Path(file).is_file() for file in evaluated.json["files"])
    live = call("evaluate", ran["run"], "--no-plots", "--json").json
    assert {policy["policy"] for policy in live["policies"]} == {"uniform", "forethought"}

    shown = call("show", ran["run"], "q3", "--json").json
    assert shown["result"]["budget"] == planned["budgets"][3]["budget"]
    assert "What is 3 plus" in call("show", ran["run"], "q3").out
    assert "fake (simulated)" in call("ls").out
    assert {row["kind"] for row in call("ls", "--json").json} == {"profile", "run", "predictor"}


@pytest.mark.parametrize(("caps", "is_told"), [("1,2", True), ("1,256", False)])
def test_a_profile_in_which_nothing_was_right_says_so(call: Call, tmp_path: Path, caps: str, is_told: bool) -> None:
    questions = write_questions(tmp_path / "train.jsonl", 8)
    told = call("profile", "fake", questions, "--budgets", caps, "--traces", 2, "--quiet").out
    assert ("no answer was right at any cap" in told) is is_told


@pytest.mark.slow
def test_layers_of_a_run_and_of_a_file_with_a_folder_of_states(call: Call, trained: str) -> None:
    said = call("layers", trained, "--resamples", 100, "--no-plots", "--quiet")
    assert said.code == 0
    assert "the best is layer 2 of 4 (50%)" in said.out
    assert f"wrote {trained}/layers/layers.md" in said.err
    args = ("layers", f"{trained}/profile.parquet", "--states", "states", "--resamples", 100, "--no-plots", "--json")
    bill = call(*args, "--dry-run").json
    assert (bill["questions"], bill["to_read"], bill["left_out"]) == (60, 60, 0)
    assert not Path("states").exists()
    said = call(*args, "--limit", 40, "--mean-tokens", "64,128", "--quiet")
    assert "60 questions" not in said.err
    assert (said.json["num_queries"], said.json["levels"]) == (40, [64.0, 128.0])
    assert [(row["pooling"], row["layer"]) for row in said.json["rows"]][3:7] == [
        ("last", 3),
        ("last", 4),
        ("mean", 0),
        ("mean", 1),
    ]
    assert all(2 in verdict["may_be_best"] for verdict in said.json["verdicts"])
    assert all(Path(file).is_file() for file in said.json["files"])
    part = call(*args, "--no-read", "--layers", "0,2,4", "--pooling", "mean", "--quiet").json
    assert (part["num_queries"], len(part["rows"]), part["depth"]) == (40, 3, 4)


@pytest.mark.slow
def test_run_works_without_references(call: Call, trained: str, tmp_path: Path) -> None:
    questions = write_questions(tmp_path / "new.jsonl", 10, references=False)
    ran = call("run", trained, questions, "--total-tokens", 640, "--json", "--quiet").json
    assert (ran["answered"], ran["graded"]) == (10, 0)
    rows = [json.loads(line) for line in Path(ran["answers"]).read_text("utf-8").splitlines()]
    assert all("grade" not in row and row["answer"] for row in rows)


def test_the_same_command_goes_on_and_does_nothing_twice(call: Call, tmp_path: Path) -> None:
    questions = write_questions(tmp_path / "train.jsonl", 20)
    first = call("profile", "fake", questions, "--limit", 8, "--json", "--quiet").json
    second = call("profile", "fake", questions, "--json", "--quiet").json
    again = call("profile", "fake", questions, "--json", "--quiet").json
    assert (first["traces"], second["traces"], again["traces"]) == (32, 80, 80)
    assert second.pop("tokens_per_second") > 0
    assert again.pop("tokens_per_second") is None
    assert {**again, "changed": ""} == {**second, "changed": ""}
    assert len((Path("runs/fake-train") / "records.jsonl").read_text("utf-8").splitlines()) == 80


@pytest.mark.slow
def test_dry_run_does_nothing_and_names_the_bill(call: Call, trained: str, tmp_path: Path) -> None:
    questions = write_questions(tmp_path / "new.jsonl", 10)
    bill = call("profile", "fake", questions, "--traces", 2, "--dry-run", "--json").json
    assert (bill["num_total"], bill["num_done"], bill["reasoning_tokens"]) == (20, 0, 20 * 256)
    assert not Path("runs/fake-new").exists()
    done = call("profile", "fake", tmp_path / "train.jsonl", "--dry-run", "--json").json
    assert (done["num_total"], done["num_left"], done["reasoning_tokens"]) == (240, 0, 0)
    assert call("plan", trained, questions, "--mean-tokens", 64, "--dry-run", "--json").json["num_queries"] == 10
    bill = call("run", trained, questions, "--mean-tokens", 64, "--dry-run", "--json").json
    assert (bill["num_left"], bill["reasoning_tokens"]) == (10, 640)
    assert sorted(path.name for path in Path("runs").iterdir()) == ["fake-train"]


@pytest.mark.slow
def test_plan_from_recorded_hidden_states_equals_plan_by_a_prompt_pass(
    call: Call, trained: str, tmp_path: Path
) -> None:
    by_model = call("plan", trained, tmp_path / "train.jsonl", "--mean-tokens", 64, "--json").json
    recorded = call("plan", trained, trained, "--mean-tokens", 64, "--json").json
    assert [row["budget"] for row in recorded["budgets"]] == [row["budget"] for row in by_model["budgets"]]


def moved_profile(run: str, path: Path) -> Path:
    """The run's profile with hidden states from elsewhere, of other questions."""
    measured = open_profile(run)
    assert measured.hidden_Q_L_D is not None
    hidden_Q_L_D = (measured.hidden_Q_L_D.astype(np.float64) * 3.0 + 5.0).astype(np.float16)
    others = {
        "query_ids": tuple(f"moved-{query_id}" for query_id in measured.query_ids),
        "texts": tuple(f"Elsewhere: {text}" for text in measured.texts),
    }
    write_parquet(path, replace(measured, hidden_Q_L_D=hidden_Q_L_D, **others))
    return path


@pytest.mark.slow
def test_novel_questions_raise_a_warning_and_are_planned_as_predicted(call: Call, trained: str, tmp_path: Path) -> None:
    moved = moved_profile(trained, tmp_path / "moved.parquet")
    said = call("plan", trained, moved, "--mean-tokens", 64, "--json")
    assert "60 of 60 questions are novel to the predictor" in said.err
    assert "used as predicted" in said.json["notes"][0]
    assert said.json["novelty"]["is_novel"] is True
    assert len({row["budget"] for row in said.json["budgets"]}) > 1
    assert all(row["novelty_p"] < 0.05 for row in said.json["budgets"])
    assert "novelty    60 of 60 questions" in call("plan", trained, moved, "--mean-tokens", 64).out

    evaluated = call("evaluate", trained, "--on", moved, "--no-plots", "--resamples", 100, "--json")
    assert "are novel" in evaluated.err
    assert "are novel" in evaluated.json["notes"][0]


@pytest.mark.slow
def test_a_run_says_that_its_questions_are_novel_and_keeps_the_note(call: Call, trained: str, tmp_path: Path) -> None:
    moved = moved_profile(trained, tmp_path / "moved.parquet")
    assert call("train", moved, "--predictor", "ridge", "--out", tmp_path / "elsewhere").code == 0
    ran = call("run", tmp_path / "elsewhere", tmp_path / "train.jsonl", "--mean-tokens", 64, "--json", "--quiet")
    assert ran.code == 0
    assert "60 of 60 questions are novel" in ran.err
    plan = json.loads((Path(ran.json["run"]) / "plan.json").read_text("utf-8"))
    assert "are novel" in plan["plans"]["envelope"]["notes"][0]


@pytest.mark.slow
def test_questions_of_the_same_kind_raise_no_alarm(call: Call, trained: str, tmp_path: Path) -> None:
    said = call("plan", trained, write_questions(tmp_path / "new.jsonl", 80), "--mean-tokens", 64, "--json")
    assert "novel" not in said.err
    assert said.json["novelty"]["is_novel"] is False
    ran = call("run", trained, tmp_path / "new.jsonl", "--mean-tokens", 64, "--json", "--quiet").json
    kept = json.loads((Path(ran["run"]) / "plan.json").read_text("utf-8"))
    assert kept["novelty"] == said.json["novelty"]
    assert all("novelty_p" in row for row in kept["predicted"].values())


@pytest.mark.slow
def test_a_predictor_that_cannot_tell_says_so(call: Call, trained: str, tmp_path: Path) -> None:
    assert call("train", trained, "--predictor", "mean", "--out", tmp_path / "mean").code == 0
    said = call("plan", tmp_path / "mean", trained, "--mean-tokens", 64)
    assert "novelty    not known" in said.out
    assert call("plan", tmp_path / "mean", trained, "--mean-tokens", 64, "--json").json["novelty"] is None


@pytest.mark.slow
def test_another_grid_is_compared_on_the_budgets_of_both(call: Call, trained: str, tmp_path: Path) -> None:
    questions = write_questions(tmp_path / "new.jsonl", 40, start=60)
    assert call("profile", "fake", questions, "--window", 32, "--max-tokens", 512, "--quiet").code == 0
    said = call("evaluate", trained, "--on", "runs/fake-new", "--no-plots", "--resamples", 100, "--json")
    assert said.code == 0
    assert said.json["menu"] == list(range(32, 257, 32))
    assert "compared at those in both, 32, 64, … 256" in said.err
    assert any("compared at those in both" in note for note in said.json["notes"])
    assert call("profile", "fake", questions, "--window", 320, "--max-tokens", 640, "--quiet", "--out", "far").code == 0
    refused = call("evaluate", trained, "--on", "far", "--no-plots")
    assert refused.code == 1
    assert "16, 32, … 256" in refused.err
    assert "320, 640" in refused.err


@pytest.mark.slow
def test_bounds_and_weights_of_the_questions_are_kept(call: Call, trained: str, tmp_path: Path) -> None:
    rows = [{"id": f"q{i}", "question": f"What is {i}?", "min_budget": 48, "max_budget": 80} for i in range(6)]
    rows += [{"id": "free", "question": "What is 100?"}]
    path = tmp_path / "bounded.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    planned = call("plan", trained, path, "--total-tokens", 900, "--max-tokens", 128, "--json").json
    budgets = {row["id"]: row["budget"] for row in planned["budgets"]}
    assert all(48 <= budgets[f"q{i}"] <= 80 for i in range(6))
    assert budgets["free"] <= 128


def test_settings_come_from_flag_then_environment_then_file(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = write_questions(tmp_path / "train.jsonl", 4)
    config = tmp_path / "forethought.toml"
    config.write_text("\ufeff[profile]\ntraces = 5\nwindow = 32\n", "utf-8")

    def bill(*flags: object) -> Any:
        return call("--config", config, "profile", "fake", questions, "--dry-run", "--json", *flags).json

    assert bill()["num_total"] == 20
    monkeypatch.setenv("FORETHOUGHT_PROFILE_TRACES", "3")
    assert bill()["num_total"] == 12
    assert bill("--traces", 2)["num_total"] == 8
    assert bill("--traces", 2)["num_answers"] == 8 * 8


def test_the_settings_file_of_the_page_is_read(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parent.parent / "docs" / "cli.md").read_text("utf-8")
    (tmp_path / "forethought.toml").write_text(page.partition("```toml\n")[2].partition("```")[0], "utf-8")
    monkeypatch.setenv("FORETHOUGHT_CONFIG", str(tmp_path / "forethought.toml"))
    questions = write_questions(tmp_path / "train.jsonl", 4)
    bill = call("profile", "fake", questions, "--dry-run", "--json").json
    assert (bill["num_total"], bill["num_answers"]) == (32, 32 * 3)
    planned = call("run", "qwen2.5-coder-1.5b", questions, "--mean-tokens", 64, "--dry-run", "--json").json
    assert (planned["folder"], planned["num_answers"]) == ("runs/run-train-mean64-spent", 12)


def test_standard_input(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(b'{"question": "What is 2 + 2?", "answer": "4"}\n'))
    monkeypatch.setattr("sys.stdin", stdin)
    said = call("profile", "fake", "-", "--json", "--quiet", "--traces", 2)
    assert (said.code, said.json["traces"]) == (0, 2)


@pytest.mark.slow
def test_a_question_that_fails_is_a_record_and_exit_code_3(call: Call, trained: str, tmp_path: Path) -> None:
    path = write_questions(tmp_path / "long.jsonl", 5)
    long = {"id": "long", "question": "What is 1? " * 5000, "answer": "1"}
    with path.open("a") as file:
        file.write(json.dumps(long) + "\n")
    said = call("profile", "fake", path, "--quiet", "--json")
    assert said.code == 3
    assert said.json["failed_ids"] == ["long"]
    assert said.json["traces"] == 20
    ran = call("run", trained, path, "--mean-tokens", 64, "--quiet", "--json")
    assert ran.code == 3
    assert (ran.json["answered"], ran.json["failed"]) == (5, 1)
    shown = call("show", ran.json["run"], "long").out
    assert "context" in shown
    listed = next(row for row in call("ls", "--json").json if row["run"] == ran.json["run"])
    assert listed["right"] == pytest.approx(
        ran.json["right"] / 6, abs=1e-4
    )  # as `show` counts it: what failed is not right


def test_when_every_question_fails_the_reason_is_told(call: Call, tmp_path: Path) -> None:
    (tmp_path / "long.jsonl").write_text(json.dumps({"id": "a", "question": "What is 1? " * 5000, "answer": "1"}))
    said = call("profile", "fake", tmp_path / "long.jsonl", "--quiet")
    assert said.code == 1
    assert "a: the prompt has" in said.err
    assert "context" in said.err


def _setup(kind: str, tmp_path: Path) -> Path:
    path = tmp_path / f"{kind}.jsonl"
    contents: dict[str, bytes] = {
        "empty": b"",
        "column": b'{"frage": "2 + 2?"}\n',
        "duplicate": b'{"id": "a", "question": "1?"}\n{"id": "a", "question": "2?"}\n',
        "latin1": '{"question": "Wie viel ist ein Zehntel von 20 €?"}\n'.encode("cp1252"),
        "json": b'{"question": "1?"}\n{"question": \n',
        "reference": b'{"id": "a", "question": "1?", "answer": "many"}\n',
        "good": b'{"id": "a", "question": "1?", "answer": "1"}\n{"id": "b", "question": "2?", "answer": "2"}\n',
    }
    path.write_bytes(contents[kind])
    return path


BAD_INPUT = {
    "empty file": ("empty", ["profile", "fake", "{q}"], ["empty.jsonl", "no questions"]),
    "missing column": ("column", ["profile", "fake", "{q}"], ["'frage'", "--question-column"]),
    "duplicate id": ("duplicate", ["profile", "fake", "{q}"], ["line 2", "'a'", "line 1"]),
    "not UTF-8": ("latin1", ["profile", "fake", "{q}"], ["UTF-8"]),
    "broken JSON": ("json", ["profile", "fake", "{q}"], ["line 2"]),
    "unreadable reference": ("reference", ["profile", "fake", "{q}"], ["'many'", "--grader"]),
    "no such file": ("good", ["profile", "fake", "goood.jsonl"], ["goood.jsonl", "good.jsonl"]),
    "no such dataset": ("good", ["profile", "fake", "gsm8k-dem"], ["gsm8k-demo"]),
    "no such engine": ("good", ["profile", "fake", "{q}", "--engine", "vlm"], ["'vlm'", "'vllm'"]),
    "no such grader": ("good", ["profile", "fake", "{q}", "--grader", "numbers"], ["'number'"]),
    "no such template": ("good", ["profile", "fake", "{q}", "--template", "worked"], ["'worked-5'"]),
    "no such engine option": ("good", ["profile", "fake", "{q}", "--engine-option", "speed=1"], ["'speed'"]),
    "window does not divide": ("good", ["profile", "fake", "{q}", "--window", "24"], ["24", "256"]),
    "several problems at once": (
        "good",
        ["profile", "fake", "{q}", "--traces", "0", "--temperature", "-1"],
        ["--temperature"],
    ),
    "layer that is not there": ("good", ["profile", "fake", "{q}", "--layers", "99"], ["99"]),
    "no such model": ("good", ["profile", "qwen2.5-coder-1.b", "{q}"], ["qwen2.5-coder-1.5b"]),
    "train on nothing": ("good", ["train", "runs/none"], ["runs/none"]),
    "train unknown predictor": ("good", ["train", "{run}", "--predictor", "rigde"], ["'ridge'"]),
    "plan without a predictor": ("good", ["plan", "nothing", "{q}", "--mean-tokens", "64"], ["'nothing'"]),
    "both totals": ("good", ["plan", "{run}", "{q}", "--mean-tokens", "64", "--total-tokens", "9"], ["either"]),
    "no total": ("good", ["plan", "{run}", "{q}"], ["--mean-tokens"]),
    "budget below one window": (
        "good",
        ["plan", "{run}", "{q}", "--mean-tokens", "9"],
        ["--mean-tokens 9 ", "--mean-tokens 16"],
    ),
    "total below the minimums": (
        "good",
        ["plan", "{run}", "{q}", "--mean-tokens", "64", "--min-tokens", "128"],
        ["--mean-tokens 64 ", "--mean-tokens 128"],
    ),
    "unknown allocator": ("good", ["plan", "{run}", "{q}", "--mean-tokens", "64", "--allocator", "env"], ["envelope"]),
    "negative total": ("good", ["run", "{run}", "{q}", "--mean-tokens", "-5"], ["positive"]),
    "unknown allocator to compare": (
        "good",
        ["run", "{run}", "{q}", "--mean-tokens", "64", "--compare", "unifrm"],
        ["uniform"],
    ),
    "predictor and questions swapped": (
        "good",
        ["plan", "{q}", "{run}", "--mean-tokens", "64"],
        ["RUN comes first, then QUESTIONS"],
    ),
    "questions in place of a profile": ("good", ["train", "{q}"], ["forethought profile MODEL", "forethought import"]),
    "an ending that rows do not have": (
        "good",
        ["run", "{run}", "{q}", "--mean-tokens", "64", "--answers", "a.xlsx"],
        ["--answers a.xlsx", "name it a.csv"],
    ),
    "show an unknown run": ("good", ["show", "runs/none", "a"], ["runs/none"]),
    "show an unknown question": ("good", ["show", "{run}", "q1000"], ["q1000"]),
    "ls of nothing": ("good", ["ls", "nowhere"], ["nowhere"]),
    "evaluate nothing": ("good", ["evaluate", "nowhere"], ["nowhere", "forethought ls", "shipped"]),
    "layers of nothing": ("good", ["layers", "nowhere"], ["nowhere", "forethought ls"]),
    "layers that were not recorded": ("good", ["layers", "{run}", "--layers", "1,9"], ["--layers 9", "layers 0-4"]),
    "states that are not there": (
        "good",
        ["layers", "{run}", "--states", "none", "--no-read"],
        ["--states none", "--no-read"],
    ),
    "states that are a profile": ("good", ["layers", "{run}", "--states", "{run}"], ["'profile'", "--states"]),
    "demo of an unknown model": ("good", ["demo", "gpt"], ["'gpt'"]),
    "model and questions swapped": ("good", ["profile", "{q}", "fake"], ["forethought profile fake {q}"]),
    "a plan that is not there": ("good", ["run", "--plan", "x.json"], ["forethought plan PREDICTOR", "--out x.json"]),
    "a question of a predictor": ("good", ["show", "{run}/predictor", "q1"], ["is a predictor", "name that: {run}"]),
    "a question of a profile's file": ("good", ["show", "{run}/profile.parquet", "q1"], ["it holds counts"]),
    "show a file": ("good", ["show", "{q}"], ["forethought ls", "forethought grade {q}"]),
    "regrade a predictor": ("good", ["regrade", "{run}/predictor"], ["is a predictor", "name that: {run}"]),
    "evaluate a predictor's folder": ("good", ["evaluate", "{run}/predictor"], ["--on PROFILE"]),
    "compare on nothing": ("good", ["compare", "{run}"], ["give --on PROFILE"]),
}


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "args", "words"), BAD_INPUT.values(), ids=BAD_INPUT.keys())
def test_bad_input_is_told_and_exits_1(
    call: Call, trained: str, tmp_path: Path, kind: str, args: list[str], words: list[str]
) -> None:
    if args[:2] == ["profile", "qwen2.5-coder-1.b"]:
        pytest.importorskip("torch", reason="without it, the engine that is not installed is told first")
    path = _setup(kind, tmp_path)
    before = sorted(Path().rglob("*"))
    said = call(*[arg.format(q=path, run=trained) for arg in args])
    assert said.code == 1
    assert said.err.startswith("error: ") or "\nerror: " in said.err
    assert "Traceback" not in said.err
    assert said.out == ""
    for word in words:
        assert word.format(q=path, run=trained) in said.err
    assert sorted(Path().rglob("*")) == before, "something was left behind"


USAGE = {
    "no such command": (["profil", "x", "y"], "Did you mean 'profile'?"),
    "help as a command": (["help"], "Did you mean '--help'?"),
    "no such flag": (["profile", "fake", "q.jsonl", "--trace", "2"], "'--traces'"),
    "missing argument": (["profile", "fake"], "Missing argument 'QUESTIONS'. It is a file of questions"),
    "not a number": (["profile", "fake", "q.jsonl", "--traces", "four"], "'four' is not a whole number"),
    "not a number, though a float": (["run", "a", "b", "--mean-tokens", "nan"], "'nan' is not a number"),
    "budgets that are no numbers": (["layers", "runs/x", "--mean-tokens", "48,many"], "'many' is not a number"),
    "a list without one of its values": (["evaluate", "x", "--samples", "1,,2"], "--samples: '1,,2' lacks a value"),
    "no such cost": (["plan", "a", "b", "--mean-tokens", "64", "--cost", "spend"], "'granted'"),
    "a total without its flag": (["plan", "a", "b", "64"], "A total is given as --mean-tokens 64"),
    "an address without its flag": (["doctor", "localhost:8000"], "--base-url http://localhost:8000/v1"),
    "an id by a flag": (
        ["show", "runs/x", "--id", "q1"],
        "It is a positional argument: forethought show [OPTIONS] RUN [ID]",
    ),
}


@pytest.mark.parametrize(("args", "words"), USAGE.values(), ids=USAGE.keys())
def test_usage_errors_exit_2(call: Call, args: list[str], words: str) -> None:
    said = call(*args)
    assert said.code == 2
    assert said.out == ""
    assert "Error" in said.err
    assert words in said.err


@pytest.mark.parametrize(
    "table",
    [
        *("[profil]\ntraces = 2", "[profile]\ntrace = 2", "not toml", "[profile]\nquestions", f"deep = {'[' * 5000}"),
        *("[profile]\ntraces = true", "profile = 3"),
    ],
    ids=["table", "key", "text", "value", "deep", "truth", "no table"],
)
def test_bad_config_file(call: Call, tmp_path: Path, table: str) -> None:
    config = tmp_path / "c.toml"
    config.write_text(table)
    said = call("--config", config, "ls")
    assert said.code == 1
    assert "c.toml" in said.err
    assert "did you mean 'profile'" not in said.err or "[profil]" in said.err


MISMATCHES = {
    "model": {"model_hash": "0" * 64},
    "template": {"template_hash": "0" * 12},
}


@pytest.mark.slow
@pytest.mark.parametrize("changes", MISMATCHES.values(), ids=MISMATCHES.keys())
def test_a_predictor_made_for_something_else_is_refused(call: Call, trained: str, tmp_path: Path, changes: Any) -> None:
    settings = Path(trained) / "predictor" / "predictor.json"
    content = json.loads(settings.read_text("utf-8"))
    content["card"] |= changes
    settings.write_text(json.dumps(content), "utf-8")
    said = call("run", trained, tmp_path / "train.jsonl", "--mean-tokens", 64, "--quiet")
    assert said.code == 1
    assert next(iter(changes)).removesuffix("_hash") in said.err
    assert "made for" in said.err


@pytest.mark.slow
def test_a_run_folder_of_other_settings_is_refused(call: Call, trained: str, tmp_path: Path) -> None:
    said = call("profile", "fake", tmp_path / "train.jsonl", "--temperature", 1, "--quiet")
    assert said.code == 1
    assert "sampling" in said.err
    assert "--out" in said.err


def test_interrupt_exits_130_and_resumes(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from forethought.runs.lines import Appender

    questions = write_questions(tmp_path / "train.jsonl", 20)
    append, written = Appender.append, []

    def append_then_interrupt(self: Appender, records: Any) -> None:
        append(self, records)
        written.extend(records)
        if len(written) == 10:
            raise KeyboardInterrupt

    monkeypatch.setattr(Appender, "append", append_then_interrupt)
    stopped = call("profile", "fake", questions, "--quiet")
    assert stopped.code == 130
    assert "the same command resumes" in stopped.err
    monkeypatch.setattr(Appender, "append", append)
    assert call("profile", "fake", questions, "--quiet", "--json").json["traces"] == 80


def test_debug_shows_the_traceback(call: Call) -> None:
    said = call("--debug", "plan", "nothing", "q.jsonl", "--mean-tokens", 64)
    assert said.code == 1
    assert said.err.startswith("Traceback")
    assert said.err.splitlines()[-1].startswith("error: 'nothing' is neither")


def test_many_caps_and_many_questions_are_told_in_short(call: Call, tmp_path: Path) -> None:
    questions = write_questions(tmp_path / "train.jsonl", 30)
    many = ("profile", "fake", questions, "--budgets", "16:3200:16", "--traces", 1, "--quiet")
    said = call(*many)
    assert said.code == 0
    rows = [line for line in said.out.splitlines() if line.strip().endswith(tuple("0123456789")) and "%" in line]
    assert [int(rows[at].split()[0]) for at in (0, -1)] == [16, 3200]
    assert len(rows) == 20
    assert "20 of 200 caps are shown; --json has them all" in said.out
    assert len(call(*many, "--json").json["budgets"]) == 200
    shown = call("show", "runs/fake-train", "q3").out
    assert "(where it changes)" in shown
    assert "3200:" not in shown
    lost = call("show", "runs/fake-train", "q2x")
    assert lost.code == 1
    assert "Did you mean 'q2" in lost.err
    assert "q7, … (30 in all)" in lost.err
    other = call("profile", "fake", questions, "--budgets", "0,512")
    assert other.code == 1
    assert "menu: 16, 32, … 3200 there, 0, 512 now" in other.err


def test_help_shows_the_flags_that_matter_and_help_all_every_one(call: Call) -> None:
    few, every = call("run", "--help").out, call("run", "--help-all").out
    shown = [line.split()[0] for line in few.splitlines() if line.startswith("  --")]
    assert shown == ["--mean-tokens", "--mean-usd", "--cost", "--base-url", "--out", "--compare", *shown[6:]]
    assert shown[6:] == ["--answers", "--dry-run", "--json"]
    assert "forethought run --help-all" in few
    assert all(flag in every for flag in (*shown, "--seed", "--worker", "--hard-total"))
    assert every.index("--mean-tokens N") < every.index("Other options:") < every.index("--seed")
    assert "--seed" in call("demo", "--help").out  # few enough to show all
    for args, words in (
        (("doctor", "http://x"), "--base-url http://x"),
        (("run", "p", "q", "64"), "--mean-tokens 64"),
        (("plan", "p", "q", "--mean-tokens", "64k"), "'64k' is not a number"),
        (("run", "p", "--mean-tokens", "64"), "give QUESTIONS, a file"),
        (("train", "a", "--folds", "x"), "'x' is not a whole number"),
        (("ls", "a", "b"), "It takes [OPTIONS] [FOLDER]"),
    ):
        said = call(*args)
        assert (said.code, words in said.err) == (2, True), said.err
    unknown = call("plan", "r", "q", "--mean-tokes", 3)
    assert (unknown.code, "'--mean-tokens'" in unknown.err) == (2, True)


@pytest.mark.parametrize(
    "args", [("show", "a\nb"), ("evaluate", "a\nb"), ("grade", "a\nb"), ("layers", "a\nb"), ("import", "a\nb")]
)
def test_an_error_is_one_line_also_where_a_name_has_two(call: Call, args: tuple[str, ...]) -> None:
    said = call(*args)
    assert said.code == 1
    assert len(said.err.splitlines()) == 1, said.err
    assert r"a\nb" in said.err


def test_a_model_that_the_hub_does_not_give_is_refused_before_an_engine_is_imported(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str, *_: object) -> Path:
        raise ModelFileError(f"{name}: the hub does not have it")

    monkeypatch.setattr(locating, "_download", refuse)
    monkeypatch.setitem(registry.BUILTIN["engines"], "transformers", "no.such.module:Engine")
    said = call("profile", "no/such", "gsm8k-demo", "--engine", "transformers")
    assert said.code == 1
    assert said.err.splitlines()[-1] == "error: no/such: the hub does not have it"


def test_show_tells_a_run_on_one_page_and_ls_lists_the_newest_first(call: Call, trained: str, tmp_path: Path) -> None:
    questions = write_questions(tmp_path / "new.jsonl", 12)
    args = ("run", trained, questions, "--mean-tokens", 64, "--compare", "uniform", "--out", "runs/new", "--quiet")
    said = call(*args, "--answers", "answers.csv")
    assert said.code == 0
    assert re.search(r"^policy +right +share +granted \(planned\) +spent$", said.out, re.MULTILINE), said.out
    assert said.out.splitlines()[-2].startswith("forethought against uniform: "), said.out
    assert len(Path("answers.csv").read_text("utf-8-sig").splitlines()) == 13
    page, found = call("show", "runs/new").out, call("show", "runs/new", "--json").json
    for words in ("model       fake (engine fake", "ridge on layer", "menu        16, 32, … 256", "tokens granted"):
        assert words in page
    assert "SIMULATED" in page
    assert re.search(rf"right +{found['right'] / 12:.1%} \[[\d.]+, [\d.]+\] of 12 with a reference", page), page
    assert found["answered"] == found["cut"] + found["stopped_by_themselves"] == 12
    assert sum(found["given"].values()) == 12
    assert found["next"] == "forethought evaluate runs/new"
    Path("runs/new/summary.json").unlink()  # as a stop leaves it
    stopped = call("show", "runs/new", "--json").json
    assert (stopped["is_finished"], stopped["right"]) == (False, found["right"])
    asked = "--mean-tokens 64 --cost granted --out runs/new --compare uniform"
    assert stopped["next"] == f"forethought run {trained} {questions} {asked}"

    Path("runs/broken").mkdir()
    Path("runs/broken/run.json").write_text("{")
    rows = call("ls", "--json").json
    assert [row["run"] for row in rows if "error" in row] == ["runs/broken"]
    assert rows[0]["run"] == "runs/new"
    assert (rows[0]["at"], rows[0]["right"]) == ("64 granted", pytest.approx(found["right"] / 12, abs=1e-4))
    listed = call("ls").out
    assert listed.splitlines()[0].split() == [
        *("changed", "run", "kind", "model", "questions", "at", "right", "tokens", "failed")
    ]
    assert "runs/broken cannot be read: " in listed
    assert "saved to" in call("show", f"{trained}/predictor").out


@pytest.mark.parametrize(
    ("flag", "number", "words"),
    [
        ("--seed", "99999999999999999999", "at most 9,007,199,254,740,992"),
        ("--temperature", "1e300", "too large"),
        ("--temperature", "nan", "is not a number"),
        ("--price-in", "nan", "is not a number"),
        ("--price-out", "inf", "too large"),
        ("--tokens-per-second", "nan", "is not a number"),
    ],
)
def test_a_number_that_no_file_could_keep_is_a_usage_error(
    call: Call, tmp_path: Path, flag: str, number: str, words: str
) -> None:
    questions = write_questions(tmp_path / "q.jsonl", 2)
    said = call("profile", "fake", questions, flag, number, "--out", "r")
    assert said.code == 2
    assert flag in said.err
    assert words in said.err
    assert not Path("r").exists(), "a run that nothing could read again"


def test_numbers_that_no_memory_or_generator_could_take_are_refused(call: Call, trained: str, tmp_path: Path) -> None:
    questions = write_questions(tmp_path / "q.jsonl", 2)
    for command, words in (
        (("evaluate", trained, "--resamples", 10**12), "--resamples must be at most 100,000"),
        (("evaluate", trained, "--seed", -1), "--seed must be at least 0"),
        (("layers", trained, "--seed", -1), "--seed must be at least 0"),
        (("train", trained, "--seed", -1), "--seed must be at least 0"),
        (("profile", "fake", questions, "--traces", 10**12), "--traces must be at most 1,000,000,000"),
    ):
        said = call(*command)
        assert said.code == 1
        assert words in said.err


def test_a_lack_of_memory_is_told_in_a_line(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **how: Any) -> None:
        raise MemoryError("Unable to allocate 1.59 PiB")

    monkeypatch.setattr("forethought.commands.listing.list_results", fail)
    said = call("ls", ".")
    assert said.code == 1
    assert said.err.strip() == "error: the memory is too small for this: Unable to allocate 1.59 PiB"


def test_a_total_that_no_plan_could_keep_is_refused(call: Call, trained: str, tmp_path: Path) -> None:
    questions = write_questions(tmp_path / "q.jsonl", 20)
    said = call("run", trained, questions, "--mean-tokens", "1e15", "--out", "r")
    assert said.code == 1
    assert "a total of 2e+16 is too large" in said.err
    assert not Path("r").exists()


@pytest.mark.parametrize("command", ["plan", "batch", "answers", "grade"])
def test_no_output_takes_the_place_of_what_is_read(call: Call, trained: str, tmp_path: Path, command: str) -> None:
    file = write_questions(tmp_path / "q.jsonl", 3)
    before = file.read_bytes()
    args = {
        "plan": ["plan", trained, file, "--mean-tokens", 64, "--out", file],
        "batch": ["plan", trained, file, "--mean-tokens", 64, "--batch-out", file, "--server", "vllm"],
        "answers": ["run", trained, file, "--mean-tokens", 64, "--answers", file],
        "grade": ["grade", file, "--answer-column", "question", "--out", file],
    }[command]
    said = call(*args)
    assert said.code == 1
    assert "is a file that is read, and would be replaced" in said.err
    assert file.read_bytes() == before
