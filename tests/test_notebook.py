"""Every public function inside a running event loop, as in a notebook; and the registry's entries by their names."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from command_line import Call, write_questions
from forethought.commands.grading import grade_file, regrade
from forethought.commands.listing import list_results
from forethought.commands.pipeline import plan, profile, run, train
from forethought.commands.reports import compare, evaluate, study_layers
from forethought.commands.showing import show
from forethought.control.sources import open_profile
from forethought.core import registry
from forethought.core.settings import (
    EngineSettings,
    GradeSettings,
    PlanSettings,
    ProfileSettings,
    RegradeSettings,
    RunSettings,
    TrainSettings,
)
from forethought.core.study_settings import CompareSettings, DoctorSettings, EvaluateSettings, LayersSettings
from forethought.core.waiting import finish
from forethought.studies.doctor import examine

pytestmark = pytest.mark.slow


def in_a_loop(function: Any) -> Any:
    """What `function` returns when it is called where an event loop runs."""

    async def cell() -> Any:
        return function()

    return asyncio.run(cell())


def test_every_public_function_works_in_a_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = write_questions(tmp_path / "q.jsonl", 40).read_text("utf-8")
    other = text.replace('"id": "q', '"id": "h').replace("What is", "How much is")
    (tmp_path / "h.jsonl").write_text(other, "utf-8")
    fake = EngineSettings(engine="fake")

    def cell() -> None:
        made = profile(ProfileSettings(model="fake", questions="q.jsonl", out="p", num_traces=2))
        profile(ProfileSettings(model="fake", questions="h.jsonl", out="held", num_traces=1))
        train(TrainSettings(run="p", predictor="ridge"))
        train(
            TrainSettings(
                run="p", predictor="prompted", out="asked", engine=fake, options={"num_examples": 0}, num_folds=2
            )
        )
        planned = plan(PlanSettings(run="asked", questions="q.jsonl", mean_tokens=64, engine=fake))
        assert len(planned.allocation.budget_Q) == 40
        assert len(repr(planned)) < 200
        asked = PlanSettings(run="p", questions="q.jsonl", mean_tokens=64)
        run(RunSettings(plan=asked, out="r", compare=("uniform",)))
        evaluate(EvaluateSettings(run="r", plots=False))
        evaluate(EvaluateSettings(run="asked", on="held", plots=False, num_resamples=100, engine=fake))
        compare(CompareSettings(predictors=("p", "asked"), on="held", plots=False, num_resamples=100, engine=fake))
        study_layers(LayersSettings(run="p", plots=False, num_resamples=100))
        assert regrade(RegradeSettings(run="p")).num_changed == 0
        assert grade_file(GradeSettings(file="r/answers.jsonl")).to_json()["graded"] == 40
        assert show("r")["answered"] == show(str(made.path))["queries"] == 40
        assert {row["run"] for row in list_results(".")} >= {"p", "r", "asked"}
        assert examine(DoctorSettings()).is_kept is None

    in_a_loop(cell)


@pytest.mark.parametrize("call_it", [lambda f: f(), in_a_loop], ids=["script", "notebook"])
def test_what_goes_wrong_comes_out_where_one_waits(call_it: Any) -> None:
    async def broken() -> None:
        await asyncio.sleep(0)
        raise KeyError("no such thing")

    with pytest.raises(KeyError, match="no such thing"):
        call_it(lambda: finish(broken()))


def test_an_interrupt_in_a_notebook_ends_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    begun, ended = threading.Event(), threading.Event()
    join = threading.Thread.join

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    def interrupted(self: threading.Thread, timeout: float | None = None) -> None:
        monkeypatch.setattr(threading.Thread, "join", join)
        assert begun.wait(10)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "join", interrupted)
    with pytest.raises(KeyboardInterrupt):
        in_a_loop(lambda: finish(work()))
    assert ended.is_set()


# --- reports are written by the functions, not by the command line --------------------------------------------------


def test_evaluate_writes_what_its_settings_say(call: Call, trained: str) -> None:
    pytest.importorskip("matplotlib")
    written: list[Path] = []
    settings = EvaluateSettings(run=trained, predictor="mean", out="here", plots=True, num_resamples=100)
    evaluate(settings, wrote=written.append)
    assert {path.name for path in Path("here").iterdir()} == {path.name for path in written}
    assert {"evaluation.json", "evaluation.md", "accuracy.png"} <= {path.name for path in written}


def test_a_run_without_references_cannot_be_compared_and_says_how_it_could(call: Call, trained: str) -> None:
    write_questions(Path("new.jsonl"), 10, references=False)
    flags = ("--mean-tokens", 64, "--compare", "uniform", "--out", "r", "--quiet")
    assert call("run", trained, "new.jsonl", *flags).code == 0
    said = call("evaluate", "r")
    assert said.code == 1
    assert "no graded answer" in said.err
    write_questions(Path("answers.jsonl"), 10)
    assert call("regrade", "r", "--answers", "answers.jsonl").code == 0
    assert call("evaluate", "r", "--no-plots").code == 0


# --- every registered name, from the command line --------------------------------------------------------------------

NEEDS = {"transformers": "torch", "vllm": "vllm", "openai": "aiohttp", "math": "sympy", "lora": "peft"}


@pytest.mark.parametrize("name", registry.BUILTIN["engines"])
def test_every_engine_answers_to_its_name(call: Call, trained: str, name: str) -> None:
    """One line for what it cannot do here; what can run without a model or a server runs."""
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    flags = {"replay": ["--engine-option", f"run={trained}"]}.get(name, [])
    flags += ["--base-url", "http://127.0.0.1:9"] if name == "openai" else []
    said = call("profile", "fake", "train.jsonl", "--engine", name, "--out", "o", "--quiet", *flags)
    assert "Traceback" not in said.err
    if name in ("fake", "replay"):
        assert said.code == 0, said.err
    else:
        assert said.code == 1
        assert len([line for line in said.err.splitlines() if line.startswith("error: ")]) == 1


@pytest.mark.parametrize("name", registry.BUILTIN["graders"])
def test_every_grader_answers_to_its_name(call: Call, tmp_path: Path, name: str) -> None:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    (tmp_path / "q.jsonl").write_text(json.dumps({"id": "a", "question": "q", "answer": "B"}) + "\n")
    if name in ("number", "math"):
        write_questions(tmp_path / "q.jsonl", 2)
    assert call("profile", "fake", "q.jsonl", "--grader", name, "--traces", 1, "--quiet").code == 0


@pytest.mark.parametrize("name", registry.BUILTIN["allocators"])
def test_every_allocator_answers_to_its_name(call: Call, trained: str, name: str) -> None:
    said = call("plan", trained, "train.jsonl", "--mean-tokens", 64, "--allocator", name, "--json")
    assert said.json["allocator"] == name


def test_an_allocators_option_reaches_it(call: Call, trained: str) -> None:
    from forethought.allocators.exact import ExactAllocator

    seen = []
    make = registry.make

    def seeing(kind: str, name: str, options: Any) -> Any:
        made = make(kind, name, options)
        seen.append(made)
        return made

    flags = ("--mean-tokens", 64, "--allocator", "exact", "--allocator-option", "unit=2")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "make", seeing)
        for command in (["plan", trained, "train.jsonl"], ["run", trained, "train.jsonl", "--out", "r", "--quiet"]):
            assert call(*command, *flags).code == 0
        evaluated = call(
            "evaluate", trained, "--predictor", "mean", "--no-plots", "--resamples", 100, *flags[2:], "--json"
        )
        assert evaluated.json["allocator"] == "exact"
    assert {made.unit for made in seen if isinstance(made, ExactAllocator)} == {2}
    assert json.loads(Path("r/run.json").read_text("utf-8"))["provenance"]["allocator_options"] == {"unit": 2}


@pytest.mark.parametrize("name", registry.BUILTIN["predictors"])
def test_every_predictor_answers_to_its_name(call: Call, trained: str, name: str) -> None:
    said = call("train", trained, "--predictor", name, "--predictor-option", "nope=1")
    assert said.code == 1
    assert "Traceback" not in said.err
    assert "nope" in said.err or "not installed" in said.err


# --- replay ----------------------------------------------------------------------------------------------------------


def test_a_replayed_profile_measures_what_was_recorded(call: Call, trained: str) -> None:
    flags = ("--engine", "replay", "--engine-option", f"run={trained}", "--quiet")
    said = call("profile", "fake", "train.jsonl", "--out", "again", *flags, "--json")
    assert said.code == 0, said.err
    assert said.json["simulated"]
    first, again = open_profile(trained), open_profile("again")
    assert (first.num_right_Q_B == again.num_right_Q_B).all()
    assert first.hidden_Q_L_D is not None
    assert again.hidden_Q_L_D is not None
    assert (first.hidden_Q_L_D == again.hidden_Q_L_D).all()
    ran = call("run", trained, "train.jsonl", "--mean-tokens", 64, "--out", "r", *flags, "--json")
    assert (ran.code, ran.json["answered"]) == (0, 60)


RECORDINGS = {
    "nothing named": ([], ["--engine-option run=RUN"]),
    "no run": (["--engine-option", "run=nothing"], ["nothing is not a run directory"]),
    "another model": (["--engine-option", "run={run}"], ["the model is 'fake', not 'other'"]),
    "another template": (["--engine-option", "run={run}", "--template", "boxed"], ["--template worked-5"]),
    "another temperature": (["--engine-option", "run={run}", "--temperature", "1"], ["temperature 0.6, top-p 1"]),
    "other caps": (["--engine-option", "run={run}", "--budgets", "16,65"], ["--budgets 65", "16, 32, … 256"]),
}


@pytest.mark.parametrize(("flags", "words"), RECORDINGS.values(), ids=RECORDINGS.keys())
def test_a_recording_of_something_else_is_refused(call: Call, trained: str, flags: list[str], words: list[str]) -> None:
    model = "other" if "the model is 'fake', not 'other'" in words else "fake"
    given = [flag.format(run=trained) for flag in flags]
    said = call("profile", model, "train.jsonl", "--engine", "replay", "--out", "o", "--quiet", *given)
    assert said.code == 1
    assert "Traceback" not in said.err
    for word in words:
        assert word in said.err
    assert not Path("o").exists()
