"""Every public function inside a running event loop, as in a notebook; and the registry's entries by their names."""

import asyncio
import importlib.util
import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import forethought as ft
from command_line import Call, write_questions
from forethought.commands.grading import grade_file, regrade
from forethought.commands.listing import list_results
from forethought.commands.pipeline import plan, profile, run, train
from forethought.commands.reports import compare, evaluate, study_layers
from forethought.commands.showing import show
from forethought.control.answers import Answer
from forethought.control.evaluating import by_draws
from forethought.control.sources import open_profile
from forethought.core import registry
from forethought.core.data import Grade
from forethought.core.menu import Menu
from forethought.core.options import Option, Price
from forethought.core.settings import (
    EngineSettings,
    PlanSettings,
    ProfileSettings,
    RunSettings,
    TrainSettings,
)
from forethought.core.study_settings import (
    CompareSettings,
    DoctorSettings,
    EvaluateSettings,
    GradeSettings,
    LayersSettings,
    RegradeSettings,
)
from forethought.core.waiting import finish
from forethought.errors import MissingExtraError
from forethought.evaluation import compare_live
from forethought.evaluation.comparison import Candidate, compare_predictors
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
    "no run": (["--engine-option", "run=nothing"], ["nothing does not exist"]),
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


# --- values as tables and pictures ------------------------------------------------------------------------------------

HOSTILE = "<script>alert(1)</script> & \x1b[31m \u202e" + "long " * 100


@pytest.fixture(scope="module")
def values() -> dict[str, Any]:
    """Everything that a person would print, with names and texts that could break a page."""
    rows = [{"question": f"What is {n} plus 1? {HOSTILE}", "answer": str(n + 1), "id": f"<i>{n}"} for n in range(30)]
    with ft.open_engine("fake") as engine:
        profile = ft.profile(engine, rows, num_traces=2)
        predictor = ft.train(profile, "ridge")
        plan = ft.plan(predictor, rows, mean_tokens=64, engine=engine)
        evaluation = ft.evaluate("ridge", profile, num_resamples=100)
        levels = Menu.named(
            [Option("<b>low", tokens=9, price=Price(1, 2)), Option("high", set={"x": "<i>"}, tokens=20)]
        )
        return {
            "profile": profile,
            "predictor": predictor,
            "plan": plan,
            "answers": plan.run(engine),
            "evaluation": evaluation,
            "comparison": compared(profile),
            "draws": by_draws(profile, num_draws=(1,), num_resamples=100),
            "live": compare_live({"uniform": ([1, 0], [9, 9], [9, 9]), "mine": ([1, 1], [9, 9], [9, 9])}),
            "menu": profile.menu,
            "levels": levels,
        }


def compared(profile: ft.Profile) -> Any:
    candidates = [Candidate(name, "ridge", profile.curves, None) for name in ("<b>one", "two")]
    return compare_predictors(profile, candidates, profile.curves.select([0]), num_resamples=100)


SHOWN = ("profile", "predictor", "plan", "answers", "evaluation", "comparison", "draws", "live", "menu", "levels")


def test_no_answers_are_a_table_without_rows() -> None:
    assert "Answers: 0 of 0 questions" in ft.Answers(())._repr_html_()


def test_an_answer_that_failed_is_not_right() -> None:
    right = Answer("a", 64, "4", tokens=9, reference="4", grade=Grade.RIGHT)
    failed = Answer("b", 64, None, reference="4", error="the server is gone")
    assert repr(ft.Answers((right, failed))) == "Answers(1 answers, 1 of 2 right, 1 failed, 9 tokens generated)"


@pytest.mark.parametrize("name", SHOWN)
def test_a_value_is_a_short_table_in_a_notebook_and_a_line_in_a_console(values: dict[str, Any], name: str) -> None:
    found = values[name]._repr_html_()
    read = HTML()
    read.feed(found)
    read.close()
    assert read.open == []
    assert not read.tags - {"div", "strong", "em", "table", "thead", "tbody", "tr", "th", "td"}
    assert not re.search(r"color|background|[\x00-\x08\x1b\u202e]", found)
    assert found.count("<tr>") <= 60
    assert len(found) < 15_000
    assert "\n" not in repr(values[name])
    assert len(repr(values[name])) < 250


class HTML(HTMLParser):
    """Which tags there are, and that each one is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.tags, self.open = set[str](), list[str]()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_tables_say_what_they_leave_out(values: dict[str, Any]) -> None:
    plan, answers, profile = (values[name]._repr_html_() for name in ("plan", "answers", "profile"))
    assert "and 24 more questions" in plan
    assert "and 24 more answers" in answers
    assert "and 8 more caps in between" in profile
    assert "<td" in plan
    assert all("SIMULATED" in found for found in (plan, profile, values["evaluation"]._repr_html_()))
    assert "&lt;script&gt;" in plan


def test_a_card_is_words_in_a_notebook_and_a_line_in_a_console(values: dict[str, Any]) -> None:
    card = values["predictor"].card
    assert card._repr_markdown_().startswith("# Predictor card")
    assert repr(card).startswith("PredictorCard(ridge for fake, budgets 16, 32, … 256, made 20")


def test_questions_and_answers_are_a_line_each(values: dict[str, Any]) -> None:
    query, answer = values["plan"].queries[0], values["answers"][0]
    assert max(len(repr(query)), len(repr(answer))) < 160
    assert repr(query).startswith("Query('<i>0', 'What is 0 plus 1?")
    assert repr(replace(query, prompt="hm", min_budget=16)) == "Query('<i>0', 'hm', reference='1', min_budget=16)"
    assert repr(replace(answer, error="it broke")) == f"Answer('<i>0', budget={answer.budget}, error='it broke')"


@pytest.mark.parametrize("name", ["plan", "evaluation", "comparison", "draws"])
def test_a_picture_is_a_figure_that_a_notebook_shows(values: dict[str, Any], name: str) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    figure = values[name].plot()
    assert isinstance(figure, matplotlib.figure.Figure)
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert "SIMULATED" in {text.get_text() for text in figure.texts}


def test_a_plans_picture_marks_its_place(values: dict[str, Any]) -> None:
    pytest.importorskip("matplotlib")
    plan = values["plan"]
    budgets, totals = plan.plot().axes
    assert sum(bar.get_height() for bar in budgets.patches) == len(plan)
    uniform, ours, place = (np.array(line.get_xydata()) for line in totals.lines)
    made = plan.allocation
    assert place.tolist() == [[made.granted / len(plan), made.expected_accuracy]]
    assert np.interp(place[0, 0], *ours.T) >= np.interp(place[0, 0], *uniform.T)
    assert abs(np.interp(place[0, 0], *ours.T) - made.expected_accuracy) < 0.02


def test_plans_of_named_options_in_money_have_a_picture() -> None:
    pytest.importorskip("matplotlib")
    options = [Option(name, price=Price(0, 10), tokens=tokens) for name, tokens in (("low", 100), ("high", 300))]
    measured = ft.Profile(
        query_ids=tuple("abcd"),
        menu=Menu.named(options),
        num_right_Q_B=np.array([[1, 4], [3, 4], [4, 4], [0, 1]]),
        num_tried_Q=np.full(4, 4),
        tokens_Q_B=np.tile([100.0, 300.0], (4, 1)),
        reasoning_Q_B=np.tile([90.0, 290.0], (4, 1)),
        texts=("one", "two", "three", "four"),
        input_Q_B=np.zeros((4, 2)),
    )
    plan = ft.plan(ft.train(measured, "mean"), ["five", "six"], mean_usd=0.002)
    assert plan.plot()._repr_png_()
    assert "expected USD" in plan._repr_html_()


def test_without_matplotlib_the_extra_is_named(values: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'forethought\[plots\]'"):
        values["plan"].plot()


def test_values_load_no_report_until_they_are_shown() -> None:
    code = "import sys, forethought as ft; ft.Menu, ft.Plan; print('forethought.report' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
