"""A run whose answers use other numbers of tokens than predicted: an alarm, and new budgets for what has not begun."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from forethought.commands import pipeline
from forethought.control.adapting import Adaptation, blocks
from forethought.control.budgets import load_budgets, read_plan
from forethought.core.data import Cost, Generation, Query, Request
from forethought.core.prompts import load_template
from forethought.core.settings import EngineSettings, PlanSettings, ProfileSettings, RunSettings, TrainSettings
from forethought.core.terms import TOKEN_COSTS
from forethought.engines.fake import FakeEngine
from forethought.engines.latent import Latent
from forethought.errors import RunError

pytestmark = pytest.mark.slow

FAKE = EngineSettings(engine="fake")
NUM_QUESTIONS = 240


class LongerThoughts(FakeEngine):
    """The fake model, its thoughts `longer` times as long: what took n tokens takes that many more."""

    longer = 1.0

    def _latent(self, query: Query) -> Latent:
        latent = super()._latent(query)
        length = latent.median_length * self.longer
        return replace(latent, jump=latent.jump * self.longer, decay=latent.decay * self.longer, median_length=length)


class Backwards(LongerThoughts):
    """The same, and the longest come back first."""

    async def generate(self, requests: Sequence[Request]) -> AsyncIterator[Generation]:
        for generation in [each async for each in super().generate(requests)][::-1]:
            yield generation


def engine(longer: float = 1.0, kind: type[LongerThoughts] = LongerThoughts) -> FakeEngine:
    made = kind(template=load_template("worked-5"))
    made.longer = longer
    return made


def write(path: Path, count: int, prefix: str) -> Path:
    rows = [{"id": f"{prefix}{n}", "question": f"What is {n} and {prefix}?", "answer": str(n)} for n in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("trained")
    run = folder / "profile"
    questions = str(write(folder / "train.jsonl", 300, "t"))
    pipeline.profile(ProfileSettings(model="fake", questions=questions, out=str(run), engine=FAKE, layers="2"))
    pipeline.train(TrainSettings(run=str(run), predictor="ridge"))
    return str(run)


@pytest.fixture
def questions(tmp_path: Path) -> str:
    return str(write(tmp_path / "new.jsonl", NUM_QUESTIONS, "n"))


def settings(predictor: str, questions: str, out: Path, cost: Cost = Cost.GRANTED, **changes: Any) -> RunSettings:
    plan = PlanSettings(run=predictor, questions=questions, mean_tokens=112, engine=FAKE, cost=cost)
    return RunSettings(plan=plan, out=str(out), **changes)


def told(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "usage.json").read_text())
    return found


def budgets(folder: Path) -> dict[str, int]:
    return {row["id"]: row["budget"] for row in map(json.loads, (folder / "answers.jsonl").read_text().splitlines())}


def planned(folder: Path) -> dict[str, int]:
    plan = json.loads((folder / "plan.json").read_text())["plans"]["envelope"]
    return {row["id"]: row["budget"] for row in plan["budgets"]}


def test_questions_of_the_training_kind_keep_their_budgets(predictor: str, questions: str, tmp_path: Path) -> None:
    pipeline.run(settings(predictor, questions, tmp_path / "run"), engine=engine())
    assert budgets(tmp_path / "run") == planned(tmp_path / "run")
    usage = json.loads((tmp_path / "run" / "summary.json").read_text())["usage"]
    assert usage == told(tmp_path / "run")["usage"]
    assert (usage["alarms"], usage["stretch"], usage["answers"]) == (0, 1.0, NUM_QUESTIONS)
    assert usage["ratio"] == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("cost", list(TOKEN_COSTS))
@pytest.mark.parametrize("longer", [0.5, 2.0])
def test_other_lengths_are_found_and_the_rest_is_planned_again(
    predictor: str, questions: str, tmp_path: Path, longer: float, cost: Cost, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline.run(settings(predictor, questions, tmp_path / "run", cost), engine=engine(longer))
    found, first, last = told(tmp_path / "run"), planned(tmp_path / "run"), budgets(tmp_path / "run")
    assert found["usage"]["alarms"] >= 1
    assert found["usage"]["stretch"] == pytest.approx(longer, rel=0.25)
    (line,) = [each for each in caplog.messages if "times the predicted tokens" in each][:1]
    assert f"stretched by {found['usage']['stretch']:.1f}"[:-1] in line
    changed = {query_id for query_id in first if first[query_id] != last[query_id]}
    assert changed
    begun = {query.id for query in blocks([Query(query_id, "") for query_id in first])[0]}
    assert not begun & changed
    if cost is Cost.GRANTED:
        assert sum(last.values()) <= 112 * NUM_QUESTIONS
        assert sum(last.values()) > 112 * NUM_QUESTIONS - 16


def test_a_total_of_spent_tokens_is_kept_better_than_as_planned(predictor: str, questions: str, tmp_path: Path) -> None:
    run = pipeline.run(settings(predictor, questions, tmp_path / "run", Cost.SPENT), engine=engine(1.6))
    spent = json.loads((run.path / "summary.json").read_text())["spent_tokens"]
    assert spent == pytest.approx(112 * NUM_QUESTIONS, rel=0.06)


def test_the_order_in_which_answers_come_back_has_no_say(predictor: str, questions: str, tmp_path: Path) -> None:
    for name, kind in (("there", LongerThoughts), ("back", Backwards)):
        pipeline.run(settings(predictor, questions, tmp_path / name), engine=engine(2.0, kind))
    assert budgets(tmp_path / "there") == budgets(tmp_path / "back")
    assert told(tmp_path / "there") == told(tmp_path / "back")


@pytest.mark.parametrize("stop_after", [10, 64, 130])
def test_a_run_that_is_stopped_goes_on_under_the_same_budgets(
    predictor: str, questions: str, tmp_path: Path, stop_after: int
) -> None:
    pipeline.run(settings(predictor, questions, tmp_path / "whole"), engine=engine(2.0))
    answered = []

    def stop(row: Any) -> None:
        answered.append(row)
        if len(answered) == stop_after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline.run(settings(predictor, questions, tmp_path / "run"), engine=engine(2.0), report=stop)
    pipeline.run(settings(predictor, questions, tmp_path / "run"), engine=engine(2.0))
    assert budgets(tmp_path / "run") == budgets(tmp_path / "whole")
    assert told(tmp_path / "run") == told(tmp_path / "whole")


def test_a_decision_that_was_kept_stands(predictor: str, questions: str, tmp_path: Path) -> None:
    """Nothing is decided again when a finished run is called again, even by a model whose thoughts have changed."""
    pipeline.run(settings(predictor, questions, tmp_path / "run"), engine=engine(2.0))
    before = told(tmp_path / "run")
    pipeline.run(settings(predictor, questions, tmp_path / "run"), engine=engine(0.5))
    assert told(tmp_path / "run")["decisions"] == before["decisions"]


def test_failed_questions_and_other_allocators_on_the_same_traces_do_no_harm(
    predictor: str, questions: str, tmp_path: Path
) -> None:
    failing = engine(2.0)
    failing.failure_rate = 0.2
    run = pipeline.run(settings(predictor, questions, tmp_path / "run", compare=("uniform",)), engine=failing)
    summary = json.loads((run.path / "summary.json").read_text())
    assert 20 < summary["failed"] < 80
    assert summary["usage"]["answers"] == NUM_QUESTIONS - summary["failed"]
    assert summary["usage"]["alarms"] >= 1
    assert {row["budget"] for row in json.loads((run.path / "plan.json").read_text())["plans"]["uniform"]["budgets"]}


@pytest.mark.parametrize(
    ("num", "sizes"), [(0, [0]), (10, [10]), (64, [64]), (100, [64, 36]), (1000, [125, 125, 250, 500])]
)
def test_blocks_are_few_and_random(num: int, sizes: list[int]) -> None:
    found = blocks([Query(f"q{row}", "") for row in range(num)])
    assert [len(block) for block in found] == sizes
    assert sorted(query.id for block in found for query in block) == sorted(f"q{row}" for row in range(num))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("[]", "must be an object"),
        ('{"decisions": [], "usage": 3}', "'usage'"),
        ('{"decisions": [{"alarm": true, "usage": {"stretch": -1}, "budgets": {}}], "usage": null}', "'stretch'"),
        ('{"decisions": [{"alarm": true, "usage": {"stretch": 2}, "budgets": {"n1": 17}}], "usage": null}', "17"),
        ('{"decisions": [{"alarm": true, "usage": {"stretch": 2}, "budgets": {"x": 16}}], "usage": null}', "'x'"),
        ("{", "not readable JSON"),
    ],
)
def test_a_damaged_file_of_decisions_is_refused(
    predictor: str, questions: str, tmp_path: Path, content: str, problem: str
) -> None:
    small = write(tmp_path / "few.jsonl", 3, "n")
    run = pipeline.run(settings(predictor, str(small), tmp_path / "run"), engine=engine())
    (run.path / "usage.json").write_text(content)
    with pytest.raises(RunError, match=r"usage\.json") as caught:
        load_budgets(run)
    assert problem in str(caught.value)


def test_new_budgets_fit_the_context(predictor: str, tmp_path: Path) -> None:
    small = write(tmp_path / "few.jsonl", 3, "n")
    run = pipeline.run(settings(predictor, str(small), tmp_path / "run"), engine=engine())
    adaptation = Adaptation(run, read_plan(run), {"n1": 48})
    query = Query("n1", "What?")
    assert adaptation._bounded(query, 32).max_budget == 48
    assert adaptation._bounded(query, 96).max_budget == 96
    assert adaptation._bounded(replace(query, max_budget=32), 16).max_budget == 32
    assert adaptation._bounded(Query("n2", "What?"), 16).max_budget is None
