"""What is said of votes: bills before a run, plans, single questions, and what is refused in words."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import forethought as ft
from command_line import Call, write_questions
from forethought.commands.reports import run_report
from forethought.control.plan import Plan
from forethought.core.data import Cost
from forethought.core.menu import Menu
from forethought.core.options import Option
from forethought.core.terms import percent
from forethought.errors import InvalidMenuError, InvalidSettingsError
from forethought.gateway.decision import Decider
from forethought.report.pages import Questions, Table
from forethought.runs.store import RunDirectory

RUN = ("run", "votes", "q.jsonl", "--mean-tokens", 150, "--cost", "spent", "--out", "r", "--quiet")


@pytest.fixture
def votes(job: Call) -> Call:
    """A job whose predictor has options of 1, 2 and 4 samples."""
    profile = ("profile", "fake", "q.jsonl", "--traces", 4, "--layers", "none", "--budgets", "16,64", "--out", "p")
    assert job(*profile).code == 0
    assert job("train", "p", "--predictor", "text", "--samples", "1,2,4", "--out", "votes").code == 0
    return job


def test_a_bill_before_the_run_counts_every_sample(votes: Call) -> None:
    assert votes("plan", "votes", "q.jsonl", "--mean-tokens", 150, "--cost", "spent", "--out", "plan.json").code == 0
    plan = Plan.load("plan.json")
    options = [plan.menu.option(budget) for _, budget in plan]
    num_samples = sum(option.samples for option in options)
    assert num_samples > len(options)
    by_file = ("run", "--plan", "plan.json", "--out", "r", "--quiet")
    bill = votes(*by_file, "--dry-run", "--json").json
    assert (bill["num_total"], bill["num_left"], bill["num_answers"]) == (num_samples, num_samples, num_samples)
    assert bill["reasoning_tokens"] == sum(option.samples * (option.single.cap or 0) for option in options)
    assert bill["cached_tokens"] > 0  # the samples of a question share its prompt
    assert "up to 4 samples of a question vote" in votes(*by_file, "--dry-run").out
    before = votes(*RUN, "--dry-run", "--json").json  # no plan yet: at most
    assert before["num_total"] == 4 * 24
    assert "how many is decided later, and this is the most" in votes(*RUN, "--dry-run").out
    done = votes(*by_file, "--json").json
    assert done["samples"] == num_samples
    assert done["prompt_tokens"] == bill["prompt_tokens"]
    assert votes(*by_file, "--dry-run", "--json").json["num_left"] == 0
    page = (Path("r") / "report.html").read_text()
    for answer in ft.Answers.load("r"):
        if answer.samples > 1 and answer.share is not None:
            assert f"answer, {percent(answer.share)} of the votes of {answer.samples} samples" in page
    assert '<th scope="col">sample</th>' in page


def test_a_report_shows_the_samples_that_voted_and_no_others(votes: Call) -> None:
    assert votes(*RUN, "--compare", "uniform").code == 0
    answers, records = ft.Answers.load("r"), list(RunDirectory.open(Path("r")).latest())
    assert len(records) > sum(answer.samples for answer in answers), "others chose more samples of some"
    blocks = [block for part in run_report(RunDirectory.open(Path("r"))).parts for block in part.blocks]
    [questions] = [block for block in blocks if isinstance(block, Questions)]
    for row in questions.rows:
        tables = [each for each in row.detail if isinstance(each, Table) and each.head[0] == "sample"]
        assert [len(table.rows) for table in tables] == [answers[row.id].samples] * (answers[row.id].samples > 1)


def test_plans_and_questions_show_their_samples(votes: Call) -> None:
    said = votes("plan", "votes", "q.jsonl", "--mean-tokens", 150, "--cost", "spent")
    assert "questions are answered by a vote of several" in said.out
    assert "64 x4" in said.out or "16 x4" in said.out
    found = votes("plan", "votes", "q.jsonl", "--mean-tokens", 150, "--cost", "spent", "--json").json
    assert found["samples"] == sum(row.get("samples", 1) for row in found["budgets"])
    assert votes(*RUN).code == 0
    answers = [json.loads(line) for line in Path("r/answers.jsonl").read_text().splitlines()]
    one = next(each for each in answers if each.get("samples", 1) > 1)
    shown = votes("show", "r", one["id"], "--json").json
    assert len(shown["traces"]) == one["samples"]
    assert sorted(number for each in shown["votes"] for number in each["samples"]) == list(range(one["samples"]))
    most = max(each["votes"] for each in shown["votes"])
    assert one["answer"] in [each["answer"] for each in shown["votes"] if each["votes"] == most]
    assert most / one["samples"] == one["share"]
    text = votes("show", "r", one["id"]).out
    assert "votes" in text
    assert f"share       {one['share']}" in text
    assert "mean samples" in Path("r/report.html").read_text()
    assert votes("show", "r").code == 0


def test_log_probabilities_are_kept_and_weigh(votes: Call) -> None:
    profile = ("profile", "fake", "q.jsonl", "--traces", 4, "--layers", "none", "--budgets", "16,64", "--out", "w")
    assert votes(*profile, "--engine-option", "logprobs=true").code == 0
    train = ("train", "w", "--predictor", "text", "--samples", "1,4", "--vote-weights", "answer", "--out", "weighed")
    assert votes(*train).code == 0
    run = ("run", "weighed", "q.jsonl", "--mean-tokens", 200, "--cost", "spent", "--quiet")
    said = votes(*run, "--out", "r1", "--engine-option", "logprobs=true")
    assert said.code == 0
    assert "did not show" not in said.err
    assert json.loads(Path("r1/plan.json").read_text())["voting"]["weights"] == "answer"
    records = list(RunDirectory.open(Path("r1")).latest())
    assert all(each.logprobs is not None for each in records)
    again = votes(*run, "--out", "r2", "--vote-weights", "equal")
    assert "learned from votes that were weighed by the log-probability of the answer" in again.err
    refused = votes("train", "p", "--predictor", "text", "--samples", "1,4", "--vote-weights", "answer", "--out", "x")
    assert refused.code == 1
    assert "--engine-option logprobs=true" in refused.err
    assert "--vote-weights must be answer or thought" in votes(*train[:-1], "y", "--vote-weights", "both").err


def test_waves_of_weighted_votes_are_run_and_other_weights_are_refused(votes: Call) -> None:
    profile = ("profile", "fake", "q.jsonl", "--traces", 4, "--layers", "none", "--budgets", "16,64", "--out", "w")
    assert votes(*profile, "--engine-option", "logprobs=true").code == 0
    train = ("train", "w", "--predictor", "text", "--samples", "1,4", "--vote-weights", "answer", "--out", "weighed")
    assert votes(*train).code == 0
    waves = ("--mean-tokens", 150, "--cost", "spent", "--waves", "--engine-option", "logprobs=true", "--quiet")
    said = votes("run", "weighed", "q.jsonl", *waves, "--out", "r1")
    assert (said.code, "did not show" in said.err) == (0, False)
    assert Plan.load("r1").voting.weights == "answer"
    bare = (*waves[:5], "--quiet")
    assert "which the engine did not show" in votes("run", "weighed", "q.jsonl", *bare, "--out", "r3").err
    for predictor, weights, out in (("votes", "answer", "r2"), ("weighed", "equal", "r2"), ("weighed", "equal", "r1")):
        for verb in (("run", predictor, "q.jsonl", "--out", out), ("plan", predictor, "q.jsonl")):
            said = votes(*verb, *waves, "--vote-weights", weights)
            assert said.code == 1
            assert "leave vote weights out (--vote-weights), or train with others" in said.err
    assert not Path("r2").exists()
    said = votes("compare", "votes", "weighed", "--on", "p", "--no-plots", "--out", "c")
    assert said.code == 1
    assert "votes weigh differently (equal, answer)" in said.err
    file = Path("weighed/predictor.json")
    kept = json.loads(file.read_text())
    for table in kept["waves"].values():
        del table["weights"]  # as before tables said it
    file.write_text(json.dumps(kept))
    assert "train it again" in votes("plan", "weighed", "q.jsonl", *waves).err


def test_the_next_command_of_a_run_of_votes_resumes_it(votes: Call) -> None:
    said = votes(*RUN, "--waves", "--min-agreement", 0.6, "--seed", 3, "--engine-option", "failure_rate=0.3")
    assert said.code == 3
    following = votes("show", "r", "--json").json["next"]
    flags = shlex.split(following.replace("failure_rate=0.3", "failure_rate=0"))
    again = votes(*flags[1:], "--quiet", "--json")
    assert (again.code, again.json["answered"]) == (0, 24)
    assert Plan.load("r").voting.min_agreement == 0.6


def test_predictors_of_votes_are_compared(votes: Call) -> None:
    write_questions(Path("other.jsonl"), 12, start=500)
    profile = ("profile", "fake", "other.jsonl", "--traces", 4, "--layers", "none", "--budgets", "16,64", "--out", "o")
    assert votes(*profile).code == 0
    assert votes("train", "p", "--predictor", "mean", "--samples", "1,2,4", "--out", "mean").code == 0
    said = votes("compare", "votes", "mean", "--on", "o", "--no-plots", "--resamples", 100, "--out", "c", "--json")
    assert said.code == 0, said.err
    assert "64 x4" in Path("c/comparison.json").read_text()


def test_flags_that_would_do_nothing_are_refused(votes: Call) -> None:
    Path("f").mkdir()
    pq.write_table(pa.table({"id": ["a"], "question": ["1 + 1?"]}), "f/q.parquet")
    plan = ("--mean-tokens", 150, "--cost", "spent", "--waves", "--out")
    assert votes("plan", "votes", "q.jsonl", *plan, "w.json").code == 0
    for command, reason in (
        (("train", "p", "--vote-weights", "answer"), "add samples (--samples 1,2,4)"),
        (("evaluate", "p", "--vote-weights", "answer"), "add samples (--samples 1,2,4)"),
        (("evaluate", "votes", "--on", "p", "--samples", "1,2"), "leave --samples and --vote-weights out"),
        ((*RUN, "--waves", "--allocator", "uniform"), "leave the allocator out (--allocator)"),
        ((*RUN, "--waves", "--max-tokens", 64), "leave --min-tokens and --max-tokens out"),
        (("run", "--plan", "w.json", "--worker", "1/2"), "draws in waves, all questions together: leave --worker out"),
        (("plan", "votes", "f", *plan, "b.parquet"), "leave --waves, --min-agreement and --vote-weights out"),
    ):
        said = votes(*command)
        assert (said.code, reason in said.err) == (1, True), said.err


def test_flags_of_votes_are_refused_where_there_are_none(votes: Call) -> None:
    assert votes("train", "p", "--predictor", "text", "--out", "single").code == 0
    for flags in (("--min-agreement", 0.5), ("--vote-weights", "equal")):
        for command in (("plan", "single", "q.jsonl"), ("run", "single", "q.jsonl", "--out", "r")):
            found = votes(*command, "--mean-tokens", 40, *flags)
            assert found.code == 1
            assert "leave --min-agreement and --vote-weights out" in found.err
    with pytest.raises(InvalidSettingsError, match="leave min_agreement and vote_weights out"):
        ft.plan(ft.Predictor.load("single"), ["How many?"], mean_tokens=40, min_agreement=0.5)


def test_a_profile_of_votes_is_refused_before_anything_is_paid(votes: Call) -> None:
    Path("menu.toml").write_text('[[option]]\nlabel = "high"\ncap = 64\nsamples = 4\n')
    said = votes("profile", "fake", "q.jsonl", "--menu", "menu.toml", "--out", "z")
    assert said.code == 1
    assert "a profile measures single ones" in said.err
    assert "forethought train RUN --samples 1,2,4" in said.err
    assert not Path("z").exists()
    with ft.open_engine("fake") as engine, pytest.raises(InvalidMenuError, match="measures single ones"):
        ft.profile(
            engine,
            [{"question": "1 + 1?", "answer": "2"}],
            menu=Menu.named([Option("high", cap=64, samples=4)]),
            progress=False,
        )


def test_a_file_of_requests_has_no_waves(votes: Call) -> None:
    waves = ("plan", "votes", "q.jsonl", "--mean-tokens", 150, "--cost", "spent", "--waves")
    assert "samples    at most" in votes(*waves).out
    said = votes(*waves, "--batch-out", "r.jsonl", "--server", "vllm")
    assert said.code == 1
    assert "--waves decides on a further sample when answers are there" in said.err


def test_the_gateway_refuses_votes(votes: Call) -> None:
    with pytest.raises(InvalidMenuError, match="a request is answered by one"):
        Decider(ft.Predictor.load("votes"), price=1e-3, cost=Cost.SPENT)
