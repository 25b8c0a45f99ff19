"""A job of requests whose options have several samples: a request each, a vote of what came, what is asked again."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from batch_job import answered, expired, requests_in, write_lines
from command_line import Call
from forethought.control.answers import Answers
from forethought.control.batches import Round
from forethought.control.plan import Plan

PLAN = ("plan", "votes", "q.jsonl", "--cost", "spent", "--batch-out", "r.jsonl", "--server", "vllm")


@pytest.fixture
def votes(job: Call) -> Call:
    """A job whose predictor has options of 1, 2 and 4 samples."""
    assert (
        job("profile", "fake", "q.jsonl", "--traces", 4, "--layers", "none", "--budgets", "16,64", "--out", "p").code
        == 0
    )
    assert job("train", "p", "--predictor", "text", "--samples", "1,2,4", "--out", "votes").code == 0
    return job


def samples_of(plan: Plan) -> dict[str, int]:
    return {query_id: plan.menu.option(budget).samples for query_id, budget in plan}


def says(line: str, number: int, **how: Any) -> dict[str, Any]:
    """An answer to a request that is this number."""
    found = answered(line, **how)
    found["response"]["body"]["choices"][0]["message"]["content"] = f"\n\nFinal answer: \\boxed{{{number}}}"
    return found


def by_query(lines: list[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in lines:
        found.setdefault(json.loads(line)["body"]["messages"][-1]["content"], []).append(line)
    return found


def test_each_sample_is_a_request_of_its_own(votes: Call) -> None:
    said = votes(*PLAN, "--mean-tokens", 80, "--json")
    plan, made = Plan.load("r.plan.json"), Round.load(Path("r.batch.json"))
    samples, lines = samples_of(plan), requests_in("r.jsonl")
    assert len(set(samples.values())) > 1
    assert said.json["batch"]["requests"] == len(lines) == sum(samples.values())
    assert Counter(query_id for query_id, _ in made.names().values()) == samples
    assert set(made.names()) == {json.loads(line)["custom_id"] for line in lines}
    seeds = [json.loads(line)["body"]["seed"] for line in lines]
    assert len(set(seeds)) == len(seeds)

    rng = random.Random(0)
    results = [says(line, rng.choice([7, 7, 8])) for line in lines]
    rng.shuffle(results)
    write_lines("out1.jsonl", results[:20])
    first = votes("collect", "out1.jsonl", "--json").json
    assert first["collected"]["waiting"] == len(lines) - 20
    write_lines("out2.jsonl", results[20:])
    found = votes("collect", "out2.jsonl", "--json").json
    assert (found["answered"], found["samples"]) == (24, len(lines))
    assert found["spent_tokens"] == 13 * len(lines)
    for answer in Answers.load("runs/batch-r"):
        assert answer.samples == samples[answer.id]
        assert answer.tokens == 13 * answer.samples
        assert answer.samples == 1 or answer.share in (0.5, 0.75, 1.0)


def test_failed_samples_are_asked_again_and_the_others_are_kept(votes: Call) -> None:
    votes(*PLAN, "--mean-tokens", 80)
    plan, lines = Plan.load("r.plan.json"), requests_in("r.jsonl")
    samples = samples_of(plan)
    groups = by_query(lines)
    several = [group for group in groups.values() if len(group) == 4][:2]
    (half, whole), single = several, next(group for group in groups.values() if len(group) == 1)
    out = [*half[:2], *whole, *single]
    write_lines("errors.jsonl", [expired(line) for line in out])
    write_lines("out.jsonl", [answered(line) for line in lines if line not in out])
    said = votes("collect", "out.jsonl", "errors.jsonl", "--json")
    found = said.json["collected"]
    assert list(found["short"].values()) == [2]
    assert "1 questions lack 2 samples of their votes" in said.err
    assert len(found["without_answer"]["failed"]) == 2
    again = requests_in("r.round2.jsonl")
    second = Round.load(Path("r.round2.batch.json"))
    (short,) = found["short"]
    assert second.samples[short] == (0, 1)
    assert second.asked[short] == plan.budgets[short]
    assert set(second.asked) == {short, *found["without_answer"]["failed"]}
    assert len(again) == found["num_next"] == len(second.names())
    write_lines("out2.jsonl", [says(line, 5) for line in again])
    done = votes("collect", "out2.jsonl", "--json")
    assert done.code == 0
    assert done.json["answered"] == 24
    answer = Answers.load("runs/batch-r")[short]
    assert (answer.samples, answer.share, answer.tokens) == (samples[short], 0.5, 13 * 4)
    assert votes("collect", "out2.jsonl", "out.jsonl", "--json").json["spent_tokens"] == done.json["spent_tokens"]


def test_samples_that_no_longer_fit_leave_the_vote_to_the_others(votes: Call) -> None:
    """The total holds no second try: what came votes, and the sample that nobody asked for is no vote."""
    votes(*PLAN, "--mean-tokens", 80)
    plan, names = Plan.load("r.plan.json"), list(Round.load(Path("r.batch.json")).names().values())
    samples = samples_of(plan)
    most = [json.loads(line)["body"]["max_tokens"] for line in requests_in("r.jsonl")]
    query_id = next(each for each in reversed(samples) if samples[each] == 4)
    cap = sum(most[: names.index((query_id, 1)) + 1])  # two of its four samples are the last that fit
    Path("r.batch.json").unlink()
    votes(*PLAN, "--mean-tokens", 80, "--hard-cap", cap)
    made, lines = Round.load(Path("r.batch.json")), requests_in("r.jsonl")
    assert made.samples[query_id] == (0, 1)
    in_part = [each for each in made.asked if len(made.samples.get(each, (0,))) < samples[each]]
    assert in_part == [query_id]
    assert set(in_part) <= set(made.kept_back)
    write_lines("out.jsonl", [answered(line) for line in lines])
    found = votes("collect", "out.jsonl", "--hard-cap", 13 * len(lines), "--json").json  # all of it is used
    assert found["collected"]["charged"] == 13 * len(lines)
    assert found["collected"]["num_next"] == 0
    answers = Answers.load("runs/batch-r")
    for each in in_part:
        asked = len(made.samples.get(each, (0,)))
        assert answers[each].error is None
        assert answers[each].share == pytest.approx(asked / samples[each], abs=1e-3)
    again = votes("collect", "out.jsonl", "--hard-cap", 20000, "--json").json
    assert again["collected"]["num_next"] > 0
    write_lines("out2.jsonl", [answered(line) for line in requests_in(*again["collected"]["next_requests"])])
    votes("collect", "out2.jsonl", "--hard-cap", 20000)
    answers = Answers.load("runs/batch-r")
    assert {each: answers[each].share for each in in_part} == dict.fromkeys(in_part, 1.0)


def test_a_question_that_was_cut_gets_samples_that_think_longer(votes: Call) -> None:
    """However well a vote of more thoughts that are as short is expected to answer it: they would be cut too."""
    votes(*PLAN, "--mean-tokens", 45)
    plan, lines = Plan.load("r.plan.json"), requests_in("r.jsonl")
    query_id = next(query_id for query_id, budget in plan if plan.menu.label(budget) == "16")
    kept = json.loads(Path("r.plan.json").read_text())
    p = {"16": 0.1, "16 x2": 0.1, "16 x4": 0.9, "64": 0.2, "64 x2": 0.2, "64 x4": 0.5}
    kept["predicted"][query_id]["p"] = [p[label] for label in plan.menu.labels]
    Path("r.plan.json").write_text(json.dumps(kept))
    own = next(query.text for query in plan.queries if query.id == query_id)
    write_lines(
        "out.jsonl", [answered(line, cut=own in json.loads(line)["body"]["messages"][-1]["content"]) for line in lines]
    )
    found = votes("collect", "out.jsonl", "--json").json
    assert found["collected"]["without_answer"] == {"censored": [query_id]}
    again = Round.load(Path("r.round2.batch.json"))
    assert plan.menu.option(again.asked[query_id]).single.cap == 64
