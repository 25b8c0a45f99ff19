"""The public API on values: no files, in a script and in a notebook, any number of questions, and what is refused."""

import asyncio
import json
import re
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import forethought as ft
from command_line import Call, write_questions
from forethought.control import sources
from forethought.core.data import Cost, Generation, Message, Request, StopReason
from forethought.core.prompts import load_template
from forethought.core.settings import EngineSettings
from forethought.engines import opening
from forethought.engines.fake import FakeEngine
from forethought.errors import (
    EngineError,
    InvalidInputError,
    InvalidMenuError,
    InvalidSettingsError,
    InvalidTotalError,
    MismatchError,
    RunError,
)

ROOT = Path(__file__).parents[1]
NAMES = [
    *("Answers", "ForethoughtError", "Menu", "Plan", "Predictor", "Profile", "Query", "evaluate", "evaluate_async"),
    *("grade", "open_engine", "plan", "plan_async", "profile", "profile_async", "read_questions", "train"),
    "train_async",
]
ROWS = [{"question": f"What is {n} plus {n % 7}?", "answer": str(n + n % 7)} for n in range(60)]
TEXTS = [f"How much is {n} plus 1?" for n in range(8)]


def in_a_loop(function: Callable[[], Any]) -> Any:
    async def cell() -> Any:
        return function()

    return asyncio.run(cell())


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    with ft.open_engine("fake") as running:
        yield running


@pytest.fixture(scope="module")
def measured(engine: Any) -> ft.Profile:
    return ft.profile(engine, ROWS, num_traces=2)


@pytest.fixture(scope="module")
def predictor(measured: ft.Profile) -> ft.Predictor:
    return ft.train(measured, "text")


# --- the surface ------------------------------------------------------------------------------------------------------


def test_the_public_names() -> None:
    assert ft.__all__ == NAMES == sorted(NAMES)


def test_importing_takes_no_time_and_no_numpy() -> None:
    code = "import sys, time; t = time.thread_time(); import forethought; print(time.thread_time() - t)"
    code += "; print('numpy' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert float(said[0]) < 0.15
    assert said[1] == "False"


@pytest.mark.parametrize("call_it", [lambda f: f(), in_a_loop], ids=["script", "notebook"])
def test_from_a_list_of_texts_to_answers(call_it: Any, engine: Any) -> None:
    def cell() -> None:
        profile = ft.profile(engine, ROWS, menu=[0, 16, 64, 256], num_traces=2, layers="none")
        predictor = ft.train(profile, "text")
        plan = ft.plan(predictor, TEXTS, mean_tokens=64)
        answers = plan.run(engine)
        assert [answer.id for answer in answers] == [query.id for query in plan.queries]
        assert {answer.budget for answer in answers} <= {0, 16, 64, 256}
        assert all(answer.reasoning_tokens <= answer.budget for answer in answers)
        assert sum(plan.budgets.values()) <= 64 * len(TEXTS)
        fresh = [*ROWS, {"question": "How much is 1 plus 1?", "answer": "2"}]
        held_out = ft.profile(engine, fresh, menu=profile.menu, num_traces=1)
        assert ft.evaluate(predictor, held_out, num_resamples=100).rows
        assert ft.grade("1/2", "0.5", grader="exact").value == "wrong"
        assert max(map(len, map(repr, (plan, answers)))) < 200

    call_it(cell)


def test_async_twins_and_a_stream(engine: Any) -> None:
    async def cell() -> None:
        profile = await ft.profile_async(engine, ROWS, num_traces=1)
        predictor = await ft.train_async(profile, "text")
        plan = await ft.plan_async(predictor, TEXTS, mean_tokens=64)
        came = [answer async for answer in plan.stream(engine)]
        answers = await plan.run_async(engine)
        assert sorted(came, key=lambda each: each.id) == sorted(answers, key=lambda each: each.id)
        assert (await ft.evaluate_async("text", profile, num_resamples=100)).rows

    asyncio.run(cell())


def test_a_stream_can_be_left(predictor: ft.Predictor, engine: Any) -> None:
    plan = ft.plan(predictor, TEXTS, mean_tokens=64)

    async def first() -> str:
        async for answer in plan.stream(engine):
            return answer.id
        raise AssertionError("nothing came")

    assert asyncio.run(first()) in plan.budgets
    assert len(plan.run(engine)) == len(TEXTS)


def test_a_plan_of_hidden_states_takes_the_engine_that_is_open(measured: ft.Profile, engine: Any) -> None:
    predictor = ft.train(measured, "ridge")
    plan = ft.plan(predictor, TEXTS, mean_tokens=64, engine=engine)
    assert plan.run(engine).counts["answered"] == len(TEXTS)


def stand_in(model: str) -> FakeEngine:
    """An engine that says it runs `model`: its shape, and answers made up."""
    made = FakeEngine(model, template=load_template("worked-5"), num_layers=28, hidden_size=1536)
    made.info = replace(made.info, model_hash=None)
    return made


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Models that are opened, as a stand-in."""
    opened: list[str] = []

    def open_it(model: str, settings: EngineSettings, **_: Any) -> FakeEngine:
        opened.append(model)
        return stand_in(model)

    monkeypatch.setattr(opening, "open_engine", open_it)
    return opened


def test_the_lines_of_the_design(no_model: list[str]) -> None:
    predictor = ft.Predictor.load("qwen2.5-coder-1.5b")
    plan = ft.plan(predictor, ["How many apples are 2 apples and 3?", "How many legs have 4 cats?"], mean_tokens=64)
    assert no_model == ["qwen2.5-coder-1.5b"]  # it reads hidden states
    with ft.open_engine(plan) as engine:
        answers = plan.run(engine)
    assert len(answers) == 2
    pytest.importorskip("sympy")
    assert ft.grade("1/2", "0.5", grader="math").value == "right"


def test_a_predictor_of_texts_opens_no_engine(predictor: ft.Predictor, no_model: list[str]) -> None:
    ft.plan(predictor, TEXTS, total=400)
    assert no_model == []


def blocks_of(page: str) -> list[tuple[str, str]]:
    """Language and text of every block of code on a page."""
    return re.findall(r"^```(\w+)\n(.*?)^```", (ROOT / page).read_text("utf-8"), flags=re.M | re.S)


def test_the_python_of_the_readme_runs(no_model: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sympy")
    monkeypatch.chdir(tmp_path)
    (block,) = [text for language, text in blocks_of("README.md") if language == "python"]
    exec(compile(block, "README.md", "exec"), {"__name__": "page"})
    assert set(no_model) == {"qwen2.5-coder-1.5b"}


@pytest.mark.slow
def test_every_block_of_the_page_on_python_runs(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a newcomer types them, one after the other; the one model that needs fetching has a stand-in."""
    pytest.importorskip("matplotlib")
    open_it = opening.open_engine

    def open_small(model: str, settings: EngineSettings, **more: Any) -> Any:
        return stand_in(model) if model == "qwen2.5-coder-1.5b" else open_it(model, settings, **more)

    monkeypatch.setattr(opening, "open_engine", open_small)
    blocks = blocks_of("docs/python.md")
    assert [language for language, _ in blocks] == ["python"] * 6 + ["bash"]
    names: dict[str, Any] = {"__name__": "page"}
    for language, text in blocks:
        if language == "python":
            exec(compile(text, "docs/python.md", "exec"), names)
            continue
        for line in text.splitlines():
            command, *words = shlex.split(line, comments=True)
            assert command == "forethought"
            faster = ("--resamples", 100, "--no-plots") if words[0] == "evaluate" else ()
            assert call(*words, *faster).code == 0, line
    assert len(names["answers"]) == 40
    assert names["evaluation"].simulated
    assert Path("plan.png").is_file()
    assert len(ft.Answers.load("runs/by-plan")) == 2
    assert Cost.USD in names["judged"].costs


# --- how many, and what -----------------------------------------------------------------------------------------------


def test_one_question(predictor: ft.Predictor, engine: Any) -> None:
    assert len(ft.plan(predictor, TEXTS[:1], mean_tokens=64).run(engine)) == 1


@pytest.mark.slow
def test_ten_thousand_questions(predictor: ft.Predictor, engine: Any) -> None:
    plan = ft.plan(predictor, (f"How much is {n} plus 2?" for n in range(10_000)), mean_tokens=64)
    assert len(plan.run(engine)) == 10_000
    assert len(repr(plan)) < 200


def test_chats_queries_and_rows(predictor: ft.Predictor) -> None:
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How much is 1 plus 1?"}]
    mixed = [
        chat,
        (Message("user", "How much is 1 plus 2?"),),
        ft.Query("own", "How much is 1 plus 3?"),
        "What?",
        "What?",
    ]
    plan = ft.plan(predictor, mixed, mean_tokens=64)
    assert list(plan.budgets)[2] == "own"
    assert list(plan.budgets)[4] == f"{list(plan.budgets)[3]}-2"
    assert ft.read_questions([{"prompt": "1+1?", "answer": 2, "id": "k", "weight": 3}]) == [
        ft.Query("k", "1+1?", "2", 3.0)
    ]


WRONG_QUESTIONS = {
    "none": (None, "not None"),
    "a number": (7, "not 7"),
    "nothing": ([], "there are none"),
    "a question as a name": ("How much is it?", "put it into a list"),
    "one chat": ([{"role": "user", "content": "x"}], "put it into a list"),
    "a number among texts": (["a", 3], "item 2: .*text or chat messages"),
    "an empty text": (["a", " "], "item 2: .*empty"),
    "an id twice": ([ft.Query("a", "x"), ft.Query("a", "y")], "item 2: id 'a' is already taken by item 1"),
    "an id that is a number": ([ft.Query(3, "x")], "must be text"),  # type: ignore[arg-type]
    "no prompt": ([ft.Query("a", None)], "missing"),  # type: ignore[arg-type]
    "rows among texts": (["a", {"question": "b"}], "item 2"),
    "a row that JSON cannot hold": ([{"question": "b", "x": {1}}], "JSON"),
}


@pytest.mark.parametrize(("questions", "words"), WRONG_QUESTIONS.values(), ids=WRONG_QUESTIONS.keys())
def test_questions_that_are_none(predictor: ft.Predictor, questions: Any, words: str) -> None:
    with pytest.raises(InvalidInputError, match=words) as caught:
        ft.plan(predictor, questions, mean_tokens=64)
    assert "\n" not in str(caught.value)


WRONG_TERMS = {
    "no total": ({}, InvalidSettingsError, "either mean_tokens or total"),
    "two totals": ({"mean_tokens": 64, "total": 64}, InvalidSettingsError, "either mean_tokens or total"),
    "a total that is text": ({"mean_tokens": "64"}, InvalidSettingsError, "not '64'"),
    "a total that is endless": ({"total": float("inf")}, InvalidSettingsError, "number of tokens"),
    "no tokens": ({"total": 0}, InvalidSettingsError, "above 0"),
    "half a cap": ({"mean_tokens": 64, "max_tokens": 16.5}, InvalidSettingsError, "whole number"),
    "another cost": ({"mean_tokens": 64, "cost": "money"}, InvalidSettingsError, "'money'"),
    "another allocator": ({"mean_tokens": 64, "allocator": "envelop"}, ft.ForethoughtError, "Did you mean 'envelope'"),
    "too little": ({"mean_tokens": 3}, InvalidTotalError, "mean_tokens 3 cannot pay .* Give at least mean_tokens 16"),
    "bounds beyond the menu": ({"mean_tokens": 64, "max_tokens": 3}, InvalidMenuError, "max_tokens 3"),
    "bounds crossed": (
        {"mean_tokens": 64, "min_tokens": 64, "max_tokens": 32},
        InvalidSettingsError,
        "above max_tokens",
    ),
}


@pytest.mark.parametrize(("terms", "kind", "words"), WRONG_TERMS.values(), ids=WRONG_TERMS.keys())
def test_terms_that_are_none(predictor: ft.Predictor, terms: dict[str, Any], kind: type, words: str) -> None:
    with pytest.raises(kind, match=words):
        ft.plan(predictor, TEXTS, **terms)


def test_values_of_a_wrong_type_are_named(predictor: ft.Predictor, measured: ft.Profile, engine: Any) -> None:
    plan = ft.plan(predictor, TEXTS, mean_tokens=64)
    calls: list[tuple[Callable[[], Any], str]] = [
        (lambda: ft.plan("text", TEXTS, mean_tokens=64), r"Predictor\.load"),  # type: ignore[arg-type]
        (lambda: ft.profile("fake", ROWS), r"open_engine"),  # type: ignore[arg-type]
        (lambda: plan.run("fake"), r"open_engine"),  # type: ignore[arg-type]
        (lambda: ft.train("p.parquet"), r"Profile\.load"),  # type: ignore[arg-type]
        (lambda: ft.train([]), r"Profile\.load"),
        (lambda: ft.train(measured, 3), r"name the predictor"),  # type: ignore[arg-type]
        (lambda: ft.evaluate(predictor, None), r"Profile\.load"),  # type: ignore[arg-type]
        (lambda: ft.evaluate(None, measured), r"Predictor"),  # type: ignore[arg-type]
        (lambda: ft.profile(engine, TEXTS), r"no reference answer"),
        (lambda: ft.profile(engine, ROWS, num_traces=0), r"num_traces"),
        (lambda: ft.profile(engine, ROWS, layers=[99]), r"layers 0 to 4"),
        (lambda: ft.profile(engine, ROWS, menu=[64, "many"]), r"not 'many'"),  # type: ignore[list-item]
        (lambda: ft.open_engine(3), r"name, a predictor or a plan"),  # type: ignore[arg-type]
        (lambda: ft.open_engine(predictor, temperature=0.0), r"predictor's own"),
        (lambda: ft.grade(1, "1"), r"must be text"),  # type: ignore[arg-type]
    ]
    for call, words in calls:
        with pytest.raises(ft.ForethoughtError, match=words):
            call()


def test_another_model_is_refused(predictor: ft.Predictor) -> None:
    plan = ft.plan(predictor, TEXTS, mean_tokens=64)
    with ft.open_engine("fake", seed=5) as other:
        with pytest.raises(MismatchError, match="made for something else"):
            plan.run(other)
        with pytest.raises(MismatchError, match="made for something else"):
            ft.plan(predictor, TEXTS, mean_tokens=64, engine=other)


def test_another_sampling_is_noted(predictor: ft.Predictor, caplog: pytest.LogCaptureFixture) -> None:
    plan = ft.plan(predictor, TEXTS[:2], mean_tokens=64)
    with ft.open_engine("fake", temperature=0.0) as engine:
        plan.run(engine)
    assert "samples thoughts with Sampling(temperature=0.0" in caplog.text


def test_failures_are_data(predictor: ft.Predictor) -> None:
    plan = ft.plan(predictor, ROWS, mean_tokens=64)
    with ft.open_engine("fake", failure_rate=0.3) as engine:
        answers = plan.run(engine)
    failed = [answer for answer in answers if answer.error]
    assert 0 < len(failed) == answers.counts["failed"] == answers.counts["failed_with_reference"] < len(ROWS)
    assert all(answer.answer is None and answer.stop_reason is StopReason.ERROR for answer in failed)
    assert answers.counts["with_reference"] == len(ROWS)


class Wrong(FakeEngine):
    """An engine that leaves a request out, or gives an answer twice."""

    def __init__(self, *, is_twice: bool) -> None:
        super().__init__(template=load_template("worked-5"))
        self.is_twice = is_twice

    async def generate(self, requests: Iterable[Request]) -> AsyncIterator[Generation]:
        number = 0
        async for generation in super().generate(requests):
            number += 1
            if number != 3 or self.is_twice:
                yield generation
            if number == 3 and self.is_twice:
                yield generation


@pytest.mark.parametrize("is_kept", [False, True])
def test_what_an_engine_leaves_out_has_failed(predictor: ft.Predictor, tmp_path: Path, is_kept: bool) -> None:
    plan = ft.plan(predictor, ROWS, mean_tokens=64)
    answers = plan.run(Wrong(is_twice=False), out=tmp_path / "r" if is_kept else None)
    assert len(answers) == len(ROWS)
    assert [each.error for each in answers if each.error] == ["engine 'fake' gave no answer to it"]


def test_what_an_engine_gives_unasked_is_refused(predictor: ft.Predictor) -> None:
    with pytest.raises(EngineError, match="unasked"):
        ft.plan(predictor, ROWS, mean_tokens=64).run(Wrong(is_twice=True))


# --- a plan as a value ------------------------------------------------------------------------------------------------


@pytest.fixture
def plan(predictor: ft.Predictor) -> ft.Plan:
    return ft.plan(predictor, ROWS[:12], mean_tokens=64, seed=3)


def test_a_plan_is_edited(plan: ft.Plan, engine: Any) -> None:
    first, second = list(plan.budgets)[:2]
    edited = plan.with_budgets({first: 256, second: 16})
    assert edited.budgets == plan.budgets | {first: 256, second: 16}
    assert edited.allocation.granted == sum(edited.budgets.values())
    assert edited.allocation.total >= edited.allocation.granted
    assert "set by hand" in edited.notes[-1] + edited.notes[-2]
    p_Q_B, menu = edited.forecast.curves.p_Q_B, edited.menu
    expected = np.mean([p_Q_B[row, menu.index(budget)] for row, (_, budget) in enumerate(edited)])
    assert edited.allocation.expected_accuracy == pytest.approx(expected)
    assert plan.with_budgets({}).budgets == plan.budgets
    assert edited.run(engine)[first].budget == 256
    for wrong, kind, words in (
        ({"nobody": 16}, InvalidInputError, "no query 'nobody'"),
        ({first: 17}, InvalidMenuError, "not on the menu"),
        ({first: "16"}, InvalidMenuError, "not on the menu"),
    ):
        with pytest.raises(kind, match=words):
            plan.with_budgets(wrong)  # type: ignore[arg-type]


def test_bounds_hold_for_edits(predictor: ft.Predictor) -> None:
    queries = [ft.Query("a", "How much is it?", max_budget=32), ft.Query("b", "And now?")]
    plan = ft.plan(predictor, queries, mean_tokens=64, max_tokens=128)
    for query_id, budget in (("a", 48), ("b", 144)):
        with pytest.raises(InvalidMenuError, match=f"'{query_id}', {budget}, is outside its bounds"):
            plan.with_budgets({query_id: budget})


def test_a_plan_is_saved_and_read(plan: ft.Plan, tmp_path: Path, engine: Any) -> None:
    again = ft.Plan.load(plan.save(tmp_path / "p.json"))
    assert again.queries == plan.queries
    assert (again.budgets, again.seed, again.terms) == (plan.budgets, 3, plan.terms)
    assert again.card is not None
    assert again.card.model == "fake"
    assert again.notes == plan.notes
    assert again.forecast.novelty == plan.forecast.novelty
    np.testing.assert_allclose(again.forecast.curves.p_Q_B, plan.forecast.curves.p_Q_B, atol=1e-4)
    assert list(again.run(engine)) == list(plan.run(engine))
    assert json.loads((tmp_path / "p.json").read_text()) == json.loads(json.dumps(again.to_json()))
    lines = (tmp_path / "p.json").read_text().splitlines()
    assert len(lines) < 150  # a line per query in each of its lists, not one a number
    query_id, budget = next(iter(plan))
    assert f'{{"id": "{query_id}", "budget": {budget}}},' in [line.strip() for line in lines]


def test_answers_are_saved_and_read(plan: ft.Plan, engine: Any, tmp_path: Path) -> None:
    answers = plan.run(engine)
    again = ft.Answers.load(answers.save(tmp_path / "a.jsonl"))
    assert list(again) == list(answers)
    assert again.counts == answers.counts
    assert again[0] == again[answers[0].id]
    with pytest.raises(KeyError):
        again["nobody"]
    with pytest.raises(RunError):
        ft.Answers.load(tmp_path / "b.jsonl")


def test_a_run_directory_is_resumed(plan: ft.Plan, engine: Any, tmp_path: Path) -> None:
    in_memory = plan.run(engine)

    async def some() -> None:
        number = 0
        async for _ in plan.stream(engine, out=tmp_path / "r"):
            number += 1
            if number == 3:
                return

    asyncio.run(some())
    kept = plan.run(engine, out=tmp_path / "r")
    assert list(kept) == list(in_memory)
    assert list(ft.Answers.load(tmp_path / "r")) == list(in_memory)
    assert ft.Plan.load(tmp_path / "r").budgets == plan.budgets
    with pytest.raises(RunError, match="plan"):
        plan.with_budgets({plan.queries[0].id: 256}).run(engine, out=tmp_path / "r")


def test_an_allocator_and_a_grader_of_ones_own(predictor: ft.Predictor, engine: Any, tmp_path: Path) -> None:
    from forethought.allocators.uniform import UniformAllocator
    from forethought.graders import ExactGrader

    plan = ft.plan(predictor, ROWS[:5], mean_tokens=64, allocator=UniformAllocator(), cost=Cost.GRANTED)
    assert set(plan.budgets.values()) == {64}
    answers = plan.run(engine, grader=ExactGrader())
    assert answers.counts["graded"] == 5
    assert ft.Plan.load(plan.save(tmp_path / "p.json")).budgets == plan.budgets


# --- plans of files, on the command line ------------------------------------------------------------------------------


@pytest.fixture
def planned(call: Call, trained: str) -> Path:
    write_questions(Path("new.jsonl"), 8)
    assert call("plan", trained, "new.jsonl", "--mean-tokens", 64, "--out", "p.json", "--quiet").code == 0
    return Path("p.json")


def test_a_plan_is_carried_out_and_resumed(call: Call, planned: Path) -> None:
    budgets = ft.Plan.load(planned).budgets
    said = call("run", "--plan", planned, "--out", "r", "--quiet")
    assert said.code == 0, said.err
    rows = [json.loads(line) for line in Path("r/answers.jsonl").read_text().splitlines()]
    assert {row["id"]: row["budget"] for row in rows} == budgets
    assert call("run", "--plan", planned, "--out", "r", "--quiet").code == 0
    assert "8 of 8 already done" in call("run", "--plan", planned, "--out", "r", "--dry-run").out
    assert call("show", "r").code == 0
    assert call("run", "--plan", "r/plan.json", "--out", "again", "--quiet").code == 0


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    change(content["plans"][content["main"]])
    path.write_text(json.dumps(content))


def test_an_edited_plan_is_carried_out_with_a_note(call: Call, planned: Path) -> None:
    edit(planned, lambda plan: plan["budgets"][0].update(budget=16))
    said = call("run", "--plan", planned, "--out", "r", "--quiet")
    assert said.code == 0, said.err
    assert "budgets were edited" in said.err
    assert json.loads(Path("r/answers.jsonl").read_text().splitlines()[0])["budget"] == 16


EDITS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "off the menu": (lambda plan: plan["budgets"][0].update(budget=17), "17, of 'q0', is not a budget of the menu"),
    "an unknown id": (
        lambda plan: plan["budgets"].append({"id": "zz", "budget": 16}),
        "'zz', which is not one of its questions",
    ),
    "an id twice": (lambda plan: plan["budgets"].append(plan["budgets"][0]), "two budgets for 'q0'"),
    "a missing id": (lambda plan: plan["budgets"].pop(0), "no budget for 'q0'"),
    "more than the total": (lambda plan: [row.update(budget=256) for row in plan["budgets"]], "its total is 512"),
    "a lower total": (lambda plan: plan.update(total=100), "its total is 100"),
}


@pytest.mark.parametrize(("change", "words"), EDITS.values(), ids=EDITS.keys())
def test_an_edit_that_cannot_be_is_refused_in_a_line(call: Call, planned: Path, change: Any, words: str) -> None:
    edit(planned, change)
    said = call("run", "--plan", planned, "--out", "r", "--quiet")
    assert said.code == 1
    (line,) = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert words in line
    assert "p.json" in line
    assert not Path("r").exists()


def test_a_higher_total_is_noted(call: Call, planned: Path) -> None:
    edit(planned, lambda plan: plan.update(total=9999))
    said = call("run", "--plan", planned, "--out", "r", "--quiet")
    assert said.code == 0
    assert "its total was edited: 9,999 tokens (512 tokens as planned)" in said.err


def test_what_a_plan_says_itself_is_not_given_again(call: Call, planned: Path) -> None:
    said = call("run", "--plan", planned, "--mean-tokens", 64)
    assert said.code == 2
    assert "--mean-tokens: the plan p.json already states it" in said.err
    said = call("run", "--plan", planned, "--hard-total", "--compare", "uniform")
    assert said.code == 2
    assert "--compare, --hard-total: not with --plan; leave it out" in said.err
    said = call("run", "--plan", planned, "--min-agreement", 0.5, "--vote-weights", "answer", "--waves")
    assert said.code == 2
    assert "--waves, --min-agreement, --vote-weights: the plan p.json already states it" in said.err
    assert call("run").code == 2
    assert call("run", "p").code == 2


def test_another_model_or_template_is_refused(call: Call, planned: Path) -> None:
    said = call("run", "--plan", planned, "--engine-option", "seed=4", "--out", "r")
    assert said.code == 1
    assert "made for something else" in said.err
    said = call("run", "--plan", planned, "--template", "boxed", "--out", "r")
    assert said.code == 1
    assert "template" in said.err


def test_values_are_shown_in_one_line() -> None:
    predictor = ft.Predictor.load("qwen2.5-coder-1.5b")
    profile = sources.shipped_heldout("qwen2.5-coder-1.5b")
    curves = profile.curves
    for value in (predictor, profile, curves):
        assert len(repr(value)) < 200
        assert "16, 32, … 256" in repr(value)


def test_a_plan_says_what_it_takes_in_the_units_of_its_total(predictor: ft.Predictor) -> None:
    granted, spent = (ft.plan(predictor, TEXTS, mean_tokens=64, cost=cost) for cost in ("granted", "spent"))
    total = f"{granted.allocation.total:,.0f}"
    assert f"{granted.allocation.granted:,} of {total} tokens granted" in repr(granted)
    assert f"{spent.allocation.expected_spent:,.0f} of {total} tokens expected to be spent" in repr(spent)
    assert f"of {total} tokens expected" in repr(spent.allocation)


def test_an_evaluation_is_shown_in_one_line(predictor: ft.Predictor, engine: Any) -> None:
    rows = [{"question": f"How much is {n} times 3?", "answer": str(3 * n)} for n in range(20)]
    found = repr(ft.evaluate(predictor, ft.profile(engine, rows, num_traces=2), num_resamples=100))
    assert found.startswith("Evaluation(20 queries, budgets ")
    assert "points over uniform at equal spent tokens" in found
    assert len(found) < 250


def test_the_plan_of_an_older_run_is_read(call: Call, trained: str) -> None:
    write_questions(Path("new.jsonl"), 8)
    flags = ("--mean-tokens", 64, "--compare", "uniform", "--out", "r", "--quiet")
    assert call("run", trained, "new.jsonl", *flags).code == 0
    path = Path("r/plan.json")
    content = json.loads(path.read_text())
    budgets = ft.Plan.load("r").budgets
    for key in ("schema", "kind", "versions", "seed", "terms", "predictor", "queries"):
        del content[key]
    for plan in content["plans"].values():
        del plan["budgets_hash"], plan["menu"]
        plan |= {"window": 16, "maximum": 256}
    path.write_text(json.dumps(content, indent=2))
    old = ft.Plan.load("r")
    assert (old.budgets, list(old.others), old.card) == (budgets, ["uniform"], None)
    for command in (("show", "r"), ("evaluate", "r", "--no-plots"), ("run", trained, "new.jsonl", *flags)):
        assert call(*command).code == 0
    said = call("run", "--plan", "r", "--out", "again")
    assert said.code == 1
    assert "does not say for which model it was made" in said.err
    assert "forethought plan PREDICTOR QUESTIONS" in said.err


def test_budgets_alone_are_no_plan(call: Call, trained: str) -> None:
    write_questions(Path("new.jsonl"), 4, start=100)
    assert call("plan", trained, "new.jsonl", "--mean-tokens", 64, "--out", "p.jsonl").code == 0
    said = call("run", "--plan", "p.jsonl", "--out", "r")
    assert said.code == 1
    assert said.err.startswith("error: p.jsonl lists budgets, one line per question")
    assert "--out FILE.json" in said.err


def test_two_processes_carry_out_one_plan(call: Call, planned: Path) -> None:
    for worker in ("1/2", "2/2"):
        assert call("run", "--plan", planned, "--out", "r", "--worker", worker, "--quiet").code == 0
    assert len(ft.Answers.load("r")) == 8
