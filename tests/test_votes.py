"""Votes over samples: tallies, unbiased chances over subsets, and profiles, predictors and evaluations of votes."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import forethought as ft
from command_line import json_caller, write_sums
from forethought import report
from forethought.control.answers import abstained_words
from forethought.control.learning_votes import with_votes
from forethought.control.voting import Gathering
from forethought.core.data import Cost, Generation, Logprobs, Query, Request, StopReason
from forethought.core.menu import Menu
from forethought.core.options import Option
from forethought.core.profile import UNTRIED, Profile
from forethought.core.protocols import Engine
from forethought.core.provenance import Provenance
from forethought.core.records import Record
from forethought.core.votes import ABSTAINS, MOST_SUBSETS, Voting, chance_right, tally, weighted_chance_right
from forethought.errors import InvalidInputError, InvalidMenuError, InvalidSettingsError, InvalidTotalError, RunError
from forethought.runs.store import RunDirectory

GROUPS = st.lists(st.sampled_from([ABSTAINS, 0, 1, 2, 3]), min_size=1, max_size=8)


def share_right(groups: tuple[int, ...]) -> float:
    winners = tally(groups).winners
    return 1 / len(winners) if 0 in winners else 0.0


@given(GROUPS, st.randoms(use_true_random=False))
def test_a_vote_does_not_depend_on_the_order_of_its_samples(groups: list[int], random: object) -> None:
    turned = list(groups)
    random.shuffle(turned)  # type: ignore[attr-defined]
    first, second = tally(groups), tally(turned)
    assert set(first.winners) == set(second.winners)
    assert (first.share, first.num_abstained) == (second.share, second.num_abstained)


@given(st.lists(st.tuples(st.sampled_from([ABSTAINS, 0, 1, 2]), st.floats(0, 1)), min_size=1, max_size=6))
def test_a_weighted_vote_goes_to_the_heaviest_group(votes: list[tuple[int, float]]) -> None:
    groups, weights = zip(*votes, strict=True)
    vote = tally(groups, weights)
    whole = {group: math.fsum(w for g, w in votes if g == group) for group in set(groups) - {ABSTAINS}}
    assert all(whole[winner] >= max(whole.values()) - 1e-6 for winner in vote.winners)
    assert 0.0 <= vote.share <= 1.0


@given(GROUPS, st.data())
def test_the_chance_is_the_mean_over_all_subsets(groups: list[int], data: st.DataObject) -> None:
    samples = data.draw(st.integers(1, len(groups)))
    subsets = list(itertools.combinations(groups, samples))
    expected = math.fsum(map(share_right, subsets)) / len(subsets)
    wrong = [groups.count(group) for group in (1, 2, 3)]
    assert chance_right(groups.count(0), wrong, groups.count(ABSTAINS), samples) == pytest.approx(expected, abs=1e-12)


@given(GROUPS)
def test_the_vote_of_one_sample_is_the_share_right(groups: list[int]) -> None:
    wrong = [groups.count(group) for group in (1, 2, 3)]
    assert chance_right(groups.count(0), wrong, groups.count(ABSTAINS), 1) == groups.count(0) / len(groups)


@given(
    st.lists(
        st.tuples(st.sampled_from([ABSTAINS, 0, 1, 2]), st.sampled_from([0.1, 0.2, 0.5, 1.0, math.nan])),
        min_size=1,
        max_size=7,
    ),
    st.data(),
)
def test_the_weighted_chance_is_the_mean_over_all_subsets_as_a_run_votes(
    votes: list[tuple[int, float]], data: st.DataObject
) -> None:
    samples = data.draw(st.integers(1, len(votes)))
    voting = Voting(weights="answer")

    def right(subset: tuple[tuple[int, float], ...]) -> float:
        shown = [None if math.isnan(weight) else Logprobs(math.log(weight)) for _, weight in subset]
        winners = tally([group for group, _ in subset], voting.weights_of(shown)).winners
        return (0 in winners) / max(1, len(winners))

    subsets = list(itertools.combinations(votes, samples))
    groups, weights = zip(*votes, strict=True)
    expected = math.fsum(map(right, subsets)) / len(subsets)
    assert weighted_chance_right(groups, weights, samples) == pytest.approx(expected, abs=1e-9)


@given(GROUPS, st.floats(0.01, 1.0), st.data())
def test_equal_weights_are_one_vote_each(groups: list[int], weight: float, data: st.DataObject) -> None:
    samples = data.draw(st.integers(1, len(groups)))
    wrong = [groups.count(group) for group in (1, 2, 3)]
    equal = chance_right(groups.count(0), wrong, groups.count(ABSTAINS), samples)
    assert weighted_chance_right(groups, [weight] * len(groups), samples) == pytest.approx(equal, abs=1e-9)
    nearly = [weight, *(weight * (1 - 1e-12) for _ in groups[1:])]  # so near that the subsets are gone through
    assert weighted_chance_right(groups, nearly, samples) == pytest.approx(equal, abs=1e-9)


def test_groups_whose_votes_all_weigh_nothing_are_tied_as_in_a_run() -> None:
    """The weight of a log-probability below about -745 is 0 (vLLM writes -9999 for minus infinity)."""
    groups, weights = [0, 0, 0, 1], [math.exp(-9999.0)] * 4
    assert tally(groups, weights).winners == (0, 1)
    assert weighted_chance_right(groups, weights, 4) == 0.5
    assert weighted_chance_right(groups, weights, 2) == pytest.approx(0.75)  # half of the pairs hold the wrong one


def test_of_many_subsets_a_fixed_sample_is_unbiased() -> None:
    """Over the orders of the traces, the mean of the sample is that of all subsets."""
    rng = np.random.default_rng(0)
    groups, weights = rng.choice([ABSTAINS, 0, 0, 1, 2], 16), rng.random(16)
    assert math.comb(16, 7) > 2 * MOST_SUBSETS
    whole = [
        weighted_chance_right(groups[order], weights[order], 7) for order in (rng.permutation(16) for _ in range(40))
    ]
    assert weighted_chance_right(groups, weights, 7) == weighted_chance_right(groups, weights, 7)
    again = np.array(whole)
    exact = math.fsum(
        (0 in (winners := tally(groups[list(each)].tolist(), weights[list(each)].tolist()).winners))
        / max(1, len(winners))
        for each in itertools.combinations(range(16), 7)
    ) / math.comb(16, 7)
    assert abs(again.mean() - exact) < 4 * again.std() / math.sqrt(len(again)) + 1e-9
    assert again.std() < 0.02


def test_a_vote_needs_as_many_traces() -> None:
    with pytest.raises(ValueError, match="a vote of 4 samples needs as many traces; there are 3"):
        chance_right(1, [2], 0, 4)


@pytest.fixture(scope="module")
def profile() -> Profile:
    with ft.open_engine("fake") as engine:
        rows = [{"question": f"What is {n} times 7?", "answer": str(7 * n)} for n in range(60)]
        return ft.profile(engine, rows, menu="32,64,128", num_traces=8, progress=False)


def test_votes_of_one_sample_are_the_profile_itself(profile: Profile) -> None:
    one = with_votes(profile, [1])
    assert one.menu.labels == ("32", "64", "128")
    np.testing.assert_allclose(one.curves.p_Q_B, profile.curves.p_Q_B)
    np.testing.assert_array_equal(one.tries_Q_B, profile.tries_Q_B)
    np.testing.assert_allclose(one.tokens_Q_B, profile.tokens_Q_B)


def test_votes_cost_all_their_samples(profile: Profile) -> None:
    voted = with_votes(profile, [1, 2, 8])
    for place, option in enumerate(voted.menu.options):
        column = profile.menu.labels.index(option.single.label)
        np.testing.assert_allclose(voted.tokens_Q_B[:, place], option.samples * profile.tokens_Q_B[:, column])
        assert (voted.tries_Q_B[:, place] == 8 // option.samples).all()
    assert set(voted.menu.labels) == {f"{cap}{votes}" for cap in (32, 64, 128) for votes in ("", " x2", " x8")}


def test_a_predictor_of_votes_is_trained_planned_and_evaluated(profile: Profile, tmp_path: Path) -> None:
    predictor = ft.train(profile, "text", samples=[1, 2, 4])
    predictor.save(tmp_path / "predictor")
    again = ft.Predictor.load(tmp_path / "predictor")
    assert again.card.menu == predictor.card.menu
    assert again.card.menu.option(again.card.menu.caps[-1]).samples == 4
    plan = ft.plan(again, ["What is 61 times 7?", "What is 62 times 7?"], mean_tokens=200, cost="spent")
    assert all(budget in again.card.menu for _, budget in plan)
    judged = ft.evaluate("text", profile, samples=[1, 2, 4], num_resamples=100)
    assert judged.menu.samples_B.max() == 4


@pytest.mark.parametrize("samples", [[0, 1], [1, 9]])
def test_numbers_of_samples_that_no_question_has_are_refused(profile: Profile, samples: list[int]) -> None:
    with pytest.raises(InvalidSettingsError, match=r"of at least 1, not 0|from 1 to 8, the most traces of a question"):
        with_votes(profile, samples)


def test_an_option_with_fewer_traces_bounds_the_numbers_of_samples(
    profile: Profile, caplog: pytest.LogCaptureFixture
) -> None:
    assert profile.traces is not None
    grade_N_B = profile.traces.grade_N_B.copy()
    grade_N_B[:, 1] = np.where(profile.traces.sample_N < 2, grade_N_B[:, 1], UNTRIED)
    options = Menu(profile.menu.caps, tuple(map(profile.menu.option, profile.menu.caps)))
    tried_Q_B = np.array([[8, 2, 8]] * profile.num_queries)
    uneven = replace(
        profile,
        menu=options,
        tried_Q_B=tried_Q_B,
        traces=replace(profile.traces, grade_N_B=grade_N_B),
        num_right_Q_B=np.minimum(profile.num_right_Q_B, tried_Q_B),
    )
    with pytest.raises(InvalidSettingsError, match="from 1 to 2, the most traces of a question by option '64'"):
        with_votes(uneven, [1, 4])
    assert with_votes(uneven, [1, 2]).menu.num_options == 6
    few = replace(profile, tried_Q_B=np.where(np.arange(60) < 20, 8, 2)[:, None].repeat(3, axis=1))
    assert few.traces is not None
    is_kept_N = np.repeat(np.arange(60) < 20, 8) | (few.traces.sample_N < 2)
    grade_N_B = np.where(is_kept_N[:, None], few.traces.grade_N_B, UNTRIED)
    few = replace(few, traces=replace(few.traces, grade_N_B=grade_N_B))
    assert ft.train(few, "text", samples=[1, 8]).card.data.num_queries == 20
    assert "40 of 60 questions have no trace under some option" in caplog.text


def test_counts_alone_do_not_vote(profile: Profile) -> None:
    with pytest.raises(InvalidInputError, match="holds counts and no answers, which votes need"):
        with_votes(replace(profile, traces=None), [1, 2])


def with_logprobs(profile: Profile) -> Profile:
    """The same, as if the model had found its right answers, and only these, likely."""
    assert profile.traces is not None
    logprob_N_B = np.where(profile.traces.grade_N_B == 1, np.log(0.9), np.log(0.2)).astype(np.float32)
    return replace(profile, traces=replace(profile.traces, answer_logprob_N_B=logprob_N_B))


def test_weighted_votes_are_learned_and_their_weights_are_the_default_of_plans(
    profile: Profile, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    likely = with_logprobs(profile)
    plain, weighed = with_votes(likely, [1, 4]), with_votes(likely, [1, 4], "answer")
    several = weighed.menu.samples_B > 1
    np.testing.assert_allclose(weighed.curves.p_Q_B[:, ~several], plain.curves.p_Q_B[:, ~several])
    assert weighed.curves.p_Q_B[:, several].mean() > plain.curves.p_Q_B[:, several].mean() + 0.02
    predictor = ft.train(likely, "text", samples=[1, 4], vote_weights="answer")
    predictor.save(tmp_path / "predictor")
    again = ft.Predictor.load(tmp_path / "predictor")
    assert again.card.vote_weights == "answer"
    assert "weighed by the log-probability of the answer" in again.card.to_markdown()
    plan = ft.plan(again, QUESTIONS, mean_tokens=300, cost="spent")
    assert plan.voting.weights == "answer"
    assert not caplog.records
    assert ft.plan(again, QUESTIONS, mean_tokens=300, cost="spent", vote_weights="equal").voting.weights == ""
    assert "learned from votes that were weighed by the log-probability of the answer" in caplog.text
    judged = ft.evaluate("text", likely, samples=[1, 4], vote_weights="answer", num_resamples=100)
    assert judged.menu.samples_B.max() == 4
    with ft.open_engine("fake") as engine:
        plan.run(engine, progress=False)
    assert "which the engine did not show" in caplog.text


def test_a_predictor_of_weighted_votes_is_judged_on_such_votes(profile: Profile) -> None:
    predictor = ft.train(with_logprobs(profile), "mean", samples=[1, 4], vote_weights="answer")
    with ft.open_engine("fake") as engine:
        other = with_logprobs(ft.profile(engine, QUESTIONS, menu="32,64,128", num_traces=4, progress=False))
    by_itself, asked = (ft.evaluate(predictor, other, samples=samples, num_resamples=100) for samples in ((), (1, 4)))
    assert asked.rows == by_itself.rows


def test_waves_of_weighted_votes_end_as_they_were_learned(profile: Profile, tmp_path: Path) -> None:
    """Tables are of the votes' weights: such votes are right more often, and only such are drawn in waves."""
    likely = with_logprobs(profile)
    plain, weighed = (ft.train(likely, "text", samples=[1, 4], vote_weights=by) for by in ("", "answer"))
    for label, table in weighed.waves.items():
        assert table.ends[0].odds > plain.waves[label].ends[0].odds
    plan = ft.plan(weighed, QUESTIONS, mean_tokens=220, cost="spent", waves=True)
    assert plan.voting.weights == "answer"
    for predictor, weights in ((weighed, "equal"), (weighed, "thought"), (plain, "answer")):
        with pytest.raises(InvalidSettingsError, match="weighed as the predictor's were"):
            ft.plan(predictor, QUESTIONS, mean_tokens=220, cost="spent", waves=True, vote_weights=weights)
    with ft.open_engine("fake", logprobs=True) as engine:
        answers = plan.run(engine, out=tmp_path / "run", progress=False)
    assert len({answer.samples for answer in answers}) > 1
    records: dict[str, list[Record]] = {}
    for record in RunDirectory.open(tmp_path / "run").latest():
        records.setdefault(record.query_id, []).append(record)
    for answer in answers:
        votes: dict[str, float] = {}
        for record in records[answer.id]:
            assert record.logprobs is not None
            votes[record.answer] = votes.get(record.answer, 0.0) + math.exp(record.logprobs.answer)
        assert votes[str(answer.answer)] == pytest.approx(max(votes.values()))


def test_a_history_counts_one_vote_each(profile: Profile) -> None:
    with pytest.raises(InvalidSettingsError, match="leave vote weights out"):
        ft.train(with_logprobs(profile), "history", samples=[1, 4], vote_weights="answer")


def test_weights_need_log_probabilities(profile: Profile) -> None:
    with pytest.raises(InvalidInputError, match="does not say how likely the model found its thoughts"):
        with_votes(profile, [1, 2], "thought")


def test_options_of_several_samples_are_read_and_written() -> None:
    option = Option("low", set={"reasoning_effort": "low"}, tokens=100.0).times(4)
    assert (option.label, option.samples, option.of, option.tokens) == ("low x4", 4, "low", 400.0)
    assert Option.from_json(option.to_json()) == option
    assert option.single == Option("low", set={"reasoning_effort": "low"}, tokens=100.0)
    menu = Menu.named([option, option.single])
    assert menu.asked(menu.caps[1], 1000) == (1000, option.single)
    assert Menu.from_json(menu.to_json()) == menu


def test_samples_by_an_option_that_asks_otherwise_are_refused() -> None:
    high = Option("low x2", samples=2, of="low", set={"reasoning_effort": "high"}, tokens=9.0)
    with pytest.raises(InvalidMenuError, match="are by 'low', which asks otherwise"):
        Menu.named([Option("low", set={"reasoning_effort": "low"}, tokens=1.0), high])


@pytest.mark.parametrize("samples", [0, 1025])
def test_numbers_of_samples_have_bounds(samples: int) -> None:
    with pytest.raises(InvalidMenuError, match="samples must be a whole number from 1 to 1,024"):
        Option("low", samples=samples)


@pytest.fixture(scope="module")
def predictor(profile: Profile) -> ft.Predictor:
    return ft.train(profile, "text", samples=[1, 2, 4])


def test_the_fair_oracle_chooses_by_one_half_of_the_samples_and_is_judged_on_the_other(profile: Profile) -> None:
    for judged in (
        ft.evaluate("mean", profile, num_resamples=100),
        ft.evaluate("mean", profile, samples=[1, 2, 8], num_resamples=100),
    ):
        fair, oracle = (judged.select(Cost.SPENT, each) for each in ("fair-oracle", "oracle"))
        assert len(fair) == len(oracle) == len(judged.levels[Cost.SPENT])
        assert all(one.accuracy.value < other.accuracy.value for one, other in zip(fair[1:], oracle[1:], strict=True))
        too_many = [
            share for row in fair for share, num in zip(row.shares, judged.menu.samples_B, strict=True) if num > 4
        ]
        assert not any(too_many)  # a half of 8 samples
        assert "fair oracle" in report.page(judged).markdown()
        assert "The fair oracle chooses by one half" in "".join(judged.notes)
        assert judged.num_traces == (8, 8)  # of votes, the samples that vote
        told = report.page(judged).text()
        assert "8 traces each" in told
        lines = [line for line in told.splitlines() if line.startswith("fair oracle ") and "[" in line]
        assert len(lines) == len(judged.costs)
    counts = replace(profile, traces=None)
    assert not ft.evaluate("mean", counts, num_resamples=100).select(Cost.SPENT, "fair-oracle")


def test_where_samples_are_luck_alone_only_the_oracle_gains(profile: Profile) -> None:
    """Each question is as hard under each cap: what differs between questions and caps is chance."""
    assert profile.traces is not None
    grade_N_B = np.random.default_rng(0).integers(0, 2, profile.traces.grade_N_B.shape).astype(np.int8)
    starts_Q = np.arange(0, len(grade_N_B), 8)
    right_Q_B = np.add.reduceat(grade_N_B == 1, starts_Q, dtype=np.int64)
    lucky = replace(profile, traces=replace(profile.traces, grade_N_B=grade_N_B), num_right_Q_B=right_Q_B)
    judged = ft.evaluate("mean", lucky, num_resamples=400)
    gains = {each.policy: each.gain for each in judged.summaries if each.cost is Cost.SPENT}
    fair, oracle = gains["fair-oracle"], gains["oracle"]
    assert fair is not None
    assert oracle is not None
    assert fair.low < 0.0 < fair.high
    assert oracle.low > 0.03


QUESTIONS = [{"id": f"n{n}", "question": f"What is {n} times 7?", "answer": str(7 * n)} for n in range(60, 90)]


def test_a_run_draws_the_samples_of_each_option_and_answers_by_their_vote(
    predictor: ft.Predictor, tmp_path: Path
) -> None:
    plan = ft.plan(predictor, QUESTIONS, mean_tokens=220, cost="spent")
    samples = {query_id: plan.menu.option(budget).samples for query_id, budget in plan}
    assert len(set(samples.values())) > 1
    with ft.open_engine("fake") as engine:
        answers = plan.run(engine, out=tmp_path / "run", progress=False)
        again = plan.run(engine, out=tmp_path / "run", progress=False)
    assert list(answers) == list(again)
    records = list(RunDirectory.open(tmp_path / "run").latest())
    assert len(records) == sum(samples.values())
    by_id = {query_id: [each for each in records if each.query_id == query_id] for query_id in samples}
    for answer in answers:
        own = by_id[answer.id]
        assert (answer.samples, answer.tokens) == (len(own), sum(each.at(each.budget).tokens or 0 for each in own))
        assert answer.answer in {each.answer for each in own}
        assert answer.share is None if len(own) == 1 else 1 / len(own) <= answer.share <= 1.0


def test_a_plan_without_a_folder_answers_alike(predictor: ft.Predictor, tmp_path: Path) -> None:
    plan = ft.plan(predictor, QUESTIONS, mean_tokens=220, cost="spent")
    with ft.open_engine("fake") as engine:
        kept = plan.run(engine, out=tmp_path / "run", progress=False)
        assert list(plan.run(engine, progress=False)) == list(kept)


def test_answers_with_few_votes_abstain_and_are_counted_apart(predictor: ft.Predictor, tmp_path: Path) -> None:
    plan = ft.plan(predictor, QUESTIONS, mean_tokens=300, cost="spent", min_agreement=0.9)
    assert ft.Plan.load(plan.save(tmp_path / "plan.json")).voting == plan.voting
    with ft.open_engine("fake") as engine:
        answers = plan.run(engine, progress=False)
    abstained = [each for each in answers if each.is_abstained]
    assert 0 < len(abstained) < len(answers)
    assert all(each.share is not None and each.share < 0.9 for each in abstained)
    counts = answers.counts
    assert (counts["abstained"], counts["graded"]) == (len(abstained), len(answers))
    assert f"{len(abstained)} answers abstained" in abstained_words(counts)
    assert f"({(len(answers) - len(abstained)) / len(answers):.1%} coverage)" in abstained_words(counts)


def test_waves_draw_another_sample_only_where_it_is_worth_it(predictor: ft.Predictor, tmp_path: Path) -> None:
    predictor = ft.Predictor.load(predictor.save(tmp_path / "predictor"))
    plan = ft.plan(predictor, QUESTIONS, mean_tokens=220, cost="spent", waves=True)
    plan = ft.Plan.load(plan.save(tmp_path / "plan.json"))
    assert plan.allocation.allocator == "waves"
    told: list[tuple[str, int, int]] = []
    with ft.open_engine("fake") as engine:
        answers = plan.run(engine, out=tmp_path / "run", progress=lambda *each: told.append(each))
        assert list(plan.run(engine, progress=False)) == list(answers)
        assert list(plan.run(engine, out=tmp_path / "run", progress=False)) == list(answers)
    assert len(answers) == len(QUESTIONS)
    assert len({answer.samples for answer in answers}) > 1
    records = list(RunDirectory.open(tmp_path / "run").latest())
    assert len(records) == sum(answer.samples for answer in answers)
    tokens = [done for what, done, total in told if what == "spend tokens on samples" and total == 220 * len(QUESTIONS)]
    assert tokens == sorted(tokens)
    assert [done for what, done, _ in told if what == "answer"] == list(range(1, len(QUESTIONS) + 1))
    assert answers.counts["spent_tokens"] <= 220 * len(QUESTIONS) * 1.1
    assert list(ft.Answers.load(tmp_path / "run")) == list(answers)


class Stumbling:
    """Fails each third sample, and counts what that took: a share of what it would have taken."""

    def __init__(self, inner: Engine, share: float) -> None:
        self.inner, self.share, self.info, self.num, self.lost = inner, share, inner.info, 0, 0

    async def generate(self, requests: Iterable[Request]) -> AsyncIterator[Generation]:
        async for done in self.inner.generate(requests):
            self.num += 1
            if self.num % 3:
                yield done
                continue
            outcome = done.at(done.budget)
            assert outcome is not None
            self.lost += round(self.share * (outcome.tokens or 0))
            nothing = {"reasoning": "", "answer": "", "reasoning_tokens": 0, "answer_tokens": 0, "probes": ()}
            yield replace(done, stop_reason=StopReason.ERROR, error="the server stumbled", **nothing)

    def counted(self) -> dict[str, int]:
        return {"discarded_tokens": self.lost}

    def close(self) -> None:
        self.inner.close()


def test_samples_that_failed_take_of_the_total_of_waves_what_they_used(predictor: ft.Predictor, tmp_path: Path) -> None:
    plan = ft.plan(predictor, QUESTIONS, mean_tokens=180, cost="spent", waves=True)
    total, spent = 180 * len(QUESTIONS), {}
    for share in (0.0, 1.0):
        with ft.open_engine("fake") as inner:
            engine = Stumbling(inner, share)
            spent[share] = plan.run(engine, progress=False).counts["spent_tokens"]
            assert plan.run(engine, out=tmp_path / f"run-{share}", progress=False)  # counts since this began
            assert spent[share] + engine.lost / 2 <= total * 1.1
    assert spent[0.0] > total * 0.85 > spent[1.0] * 1.1


def test_an_answer_of_waves_is_written_once_its_question_gets_no_further_sample(
    predictor: ft.Predictor, tmp_path: Path
) -> None:
    plan = ft.plan(predictor, QUESTIONS, mean_tokens=220, cost="spent", waves=True)
    with ft.open_engine("fake") as engine:
        whole = {answer.id: answer for answer in plan.run(engine, out=tmp_path / "whole", progress=False)}
        num_records = len(list(RunDirectory.open(tmp_path / "whole").latest()))
        later: list[tuple[str, int]] = []

        async def followed() -> None:
            async for answer in plan.stream(engine, out=tmp_path / "run", progress=False):
                assert answer == whole[answer.id]
                assert list(ft.Answers.load(tmp_path / "run"))[-1] == answer
                later.append((answer.id, num_records - len(list(RunDirectory.open(tmp_path / "run").latest()))))

        asyncio.run(followed())
    assert sorted(query_id for query_id, _ in later) == sorted(whole)
    assert [left for _, left in later] == sorted((left for _, left in later), reverse=True)
    assert later[0][1] > 0
    assert later[-1][1] == 0


def test_waves_that_were_stopped_go_on_to_the_same_answers(predictor: ft.Predictor, tmp_path: Path) -> None:
    plan = ft.plan(predictor, QUESTIONS, mean_tokens=220, cost="spent", waves=True)
    with ft.open_engine("fake") as engine:
        whole = plan.run(engine, out=tmp_path / "whole", progress=False)
        plan.run(engine, out=tmp_path / "cut", progress=False)
        records = tmp_path / "cut" / "records.jsonl"
        lines = records.read_text().splitlines(keepends=True)
        records.write_text("".join(lines[: len(lines) // 2]))
        assert list(plan.run(engine, out=tmp_path / "cut", progress=False)) == list(whole)
    assert len(records.read_text().splitlines()) == len(lines)


def test_samples_that_failed_come_later_and_each_question_is_answered_once(
    predictor: ft.Predictor, tmp_path: Path
) -> None:
    plan = ft.plan(predictor, QUESTIONS, mean_tokens=300, cost="spent")
    waves = ft.plan(predictor, QUESTIONS, mean_tokens=220, cost="spent", waves=True)
    for name, each in (("fixed", plan), ("waves", waves)):
        with ft.open_engine("fake", failure_rate=0.4) as engine:
            each.run(engine, out=tmp_path / name, progress=False)
        with ft.open_engine("fake") as engine:

            async def answered(engine: Any = engine, each: ft.Plan = each, name: str = name) -> list[ft.Answer]:
                return [answer async for answer in each.stream(engine, out=tmp_path / name, progress=False)]

            found = asyncio.run(answered())
            answers = {answer.id: answer for answer in found}
            assert len(found) == len(answers) == len(QUESTIONS)
            assert answers == {answer.id: answer for answer in ft.Answers.load(tmp_path / name)}
            if each is plan:
                assert list(ft.Answers.load(tmp_path / name)) == list(plan.run(engine, progress=False))
        finished = [record for record in RunDirectory.open(tmp_path / name).latest() if not record.is_failed]
        assert sum(answer.samples for answer in found) == len(finished)


def test_a_plan_whose_least_agreement_has_changed_counts_its_votes_anew(
    predictor: ft.Predictor, tmp_path: Path
) -> None:
    with ft.open_engine("fake") as engine:
        for agreement in (0.0, 0.9):
            plan = ft.plan(predictor, QUESTIONS, mean_tokens=300, cost="spent", min_agreement=agreement)
            answers = plan.run(engine, out=tmp_path / "run", progress=False)
            assert any(answer.is_abstained for answer in answers) == bool(agreement)
            assert list(ft.Answers.load(tmp_path / "run")) == list(answers)


@given(st.lists(st.sampled_from("127"), min_size=2, max_size=12), st.booleans())
def test_an_answer_with_just_the_least_agreement_does_not_abstain(answers: list[str], is_rounded: bool) -> None:
    option = Option("64", cap=64, tokens=60.0).times(len(answers))
    menu, query = Menu.named([option]), Query("q", "?")
    least = max(answers.count(text) for text in answers) / len(answers)
    voting = Voting(round(least, 4) if is_rounded else least, "answer")
    made = Provenance(menu=menu, grader="number")
    gathered = Gathering({"q": query}, {"q": menu.caps[0]}, made, voting)
    found = None
    for sample, text in enumerate(answers):
        trace = Generation(
            "q", sample, 64, "", 5, text, 1, 0, 1, StopReason.NATURAL, option="64", logprobs=Logprobs(-0.3)
        )
        found = gathered.add(Record.of(trace)) or found
    assert found is not None
    assert not found.is_abstained
    assert found.share == round(least, 4)


def test_options_of_a_plan_in_waves_are_not_edited(predictor: ft.Predictor, tmp_path: Path) -> None:
    plan = ft.plan(predictor, QUESTIONS, mean_tokens=220, cost="spent", waves=True)
    with pytest.raises(InvalidInputError, match="drawn in waves"):
        plan.with_budgets({"n60": plan.menu.caps[0]})
    kept = json.loads(plan.save(tmp_path / "plan.json").read_text())
    kept["plans"]["waves"]["budgets"][0]["option"] = "32"
    (tmp_path / "edited.json").write_text(json.dumps(kept))
    with pytest.raises(RunError, match="leave its options as planned, or plan without waves"):
        ft.Plan.load(tmp_path / "edited.json")
    kept = json.loads((tmp_path / "plan.json").read_text())
    del kept["waves"][plan.menu.option(plan.budgets["n60"]).single.label]
    (tmp_path / "lacking.json").write_text(json.dumps(kept))
    with pytest.raises(RunError, match="'waves' lacks a table of the option"):
        ft.Plan.load(tmp_path / "lacking.json")


def test_a_larger_total_never_expects_less_of_waves(predictor: ft.Predictor) -> None:
    expected = [
        ft.plan(predictor, QUESTIONS, mean_tokens=mean, cost="spent", waves=True).allocation.expected_accuracy
        for mean in (60, 100, 150, 220, 300, 600)
    ]
    assert expected == sorted(expected)


def test_waves_that_cannot_be_are_refused(profile: Profile, predictor: ft.Predictor) -> None:
    with pytest.raises(InvalidSettingsError, match="give a total under cost spent, not granted"):
        ft.plan(predictor, QUESTIONS, mean_tokens=220, waves=True)
    with pytest.raises(InvalidTotalError, match="cannot pay for a first sample of 30 questions"):
        ft.plan(predictor, QUESTIONS, mean_tokens=5, cost="spent", waves=True)
    with pytest.raises(InvalidSettingsError, match="waves need a predictor of votes"):
        ft.plan(ft.train(profile, "text"), QUESTIONS, mean_tokens=60, cost="spent", waves=True)


def test_waves_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_sums(Path("q.jsonl"), 40)
    call = json_caller(capsys)
    call("profile", "fake", "q.jsonl", "--traces", 4, "--budgets", "32,64", "--out", "p")
    call("train", "p", "--samples", "1,2,4", "--predictor", "text", "--out", "predictor")
    args = ["run", "predictor", "q.jsonl", "--mean-tokens", 150, "--waves", "--out", "r"]
    assert "--waves spends tokens: add --cost spent" in call(*args)[2]
    code, found, _ = call(*args, "--cost", "spent", "--min-agreement", 0.7)
    assert (code, found["answered"]) == (0, 40)
    assert found["samples"] >= 40
    assert ft.Plan.load("r").allocation.allocator == "waves"
    bill = call(*args, "--cost", "spent", "--min-agreement", 0.7, "--dry-run")[1]
    assert (bill["num_left"], bill["num_done"], bill["num_total"]) == (0, found["samples"], found["samples"])
