"""Histories of votes: single samples are counted, of whatever night, and votes follow from the answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import forethought as ft
from command_line import Call
from forethought.control.feeding import feed_run
from forethought.core.profile import Profile
from forethought.errors import InvalidSettingsError
from forethought.predictors.feeding import feed, history_of
from forethought.predictors.predictor import Predictor
from forethought.runs.store import RunDirectory

ROWS = [{"id": f"n{n}", "question": f"What is {n} times 7?", "answer": str(7 * n)} for n in range(30)]


def night(seed: int, num_traces: int, rows: list[dict[str, str]] = ROWS) -> Profile:
    with ft.open_engine("fake") as engine:
        return ft.profile(engine, rows, menu="32,64", num_traces=num_traces, seed=seed, progress=False)


def known(predictor: Predictor, *, row: int) -> dict[str, float]:
    """Votes that a history knows of a question, by option."""
    history = history_of(predictor)
    place = history.draws_.row_of[f"n{row}"]
    tried_B = history._known([place])[1][0]
    return dict(zip(predictor.card.menu.labels, tried_B.tolist(), strict=True))


def test_votes_follow_from_the_answers_of_all_nights() -> None:
    predictor = ft.train([night(0, 1), night(1, 2)], "history", samples=[1, 2])
    assert known(predictor, row=3) == {"32": 3, "64": 3, "32 x2": 1, "64 x2": 1}
    more, notes = feed(predictor, night(2, 1))
    assert not notes
    assert known(more, row=3) == {"32": 4, "64": 4, "32 x2": 2, "64 x2": 2}
    together = ft.train([night(0, 1), night(1, 2), night(2, 1)], "history", samples=[1, 2])
    rows = ["n3", "n7"]
    ours, whole = (history_of(each) for each in (more, together))
    places = [ours.draws_.row_of[each] for each in rows]
    for mine, theirs in zip(ours._known(places), whole._known(places), strict=True):
        np.testing.assert_allclose(mine, theirs)


def test_questions_that_were_answered_right_are_expected_to_vote_right(tmp_path: Path) -> None:
    """Saved and loaded, and a vote costs what its samples cost."""
    predictor = ft.train(night(0, 8), "history", samples=[1, 2, 4])
    predictor.save(tmp_path / "history")
    again = ft.Predictor.load(tmp_path / "history")
    curves, menu = again.predict([each["id"] for each in ROWS]), again.card.menu
    np.testing.assert_allclose(curves.p_Q_B, predictor.predict([each["id"] for each in ROWS]).p_Q_B)
    single, vote = menu.column_of("64"), menu.column_of("64 x4")
    history = history_of(again)
    right_Q = history.draws_.right_N_B[:, single]
    assert curves.p_Q_B[right_Q.argmax(), vote] > curves.p_Q_B[right_Q.argmin(), vote]
    np.testing.assert_allclose(curves.tokens_Q_B[:, vote], 4 * curves.tokens_Q_B[:, single])  # type: ignore[index]


def test_a_run_of_votes_feeds_its_single_samples(tmp_path: Path) -> None:
    predictor = ft.train(night(0, 4), "history", samples=[1, 2, 4])
    predictor.save(tmp_path / "history")
    plan = ft.plan(predictor, ROWS, mean_tokens=200, cost="spent", seed=5)
    samples = {query_id: plan.menu.option(budget) for query_id, budget in plan}
    assert max(option.samples for option in samples.values()) > 1
    with ft.open_engine("fake") as engine:
        plan.run(engine, out=tmp_path / "run", progress=False)
    before = history_of(predictor).draws_.num_draws
    feed_run(tmp_path / "history", RunDirectory.open(tmp_path / "run"))
    fed = ft.Predictor.load(tmp_path / "history")
    assert history_of(fed).draws_.num_draws == before + sum(option.samples for option in samples.values())
    for row in range(5):
        option = samples[f"n{row}"]
        assert known(fed, row=row)[option.single.label] == 4 + option.samples
        assert known(fed, row=row)[f"{option.single.label} x2"] == (4 + option.samples) // 2
    feed_run(tmp_path / "history", RunDirectory.open(tmp_path / "run"))  # the same again counts once
    assert history_of(ft.Predictor.load(tmp_path / "history")).draws_.num_draws == history_of(fed).draws_.num_draws


def test_samples_that_failed_and_came_later_are_fed_too(tmp_path: Path) -> None:
    predictor = ft.train(night(0, 4), "history", samples=[1, 2, 4])
    predictor.save(tmp_path / "history")
    plan = ft.plan(predictor, ROWS, mean_tokens=200, cost="spent", seed=5)
    num_samples = sum(plan.menu.option(budget).samples for _, budget in plan)
    counts = [history_of(predictor).draws_.num_draws]
    for failure_rate in (0.4, 0.0, 0.0):
        with ft.open_engine("fake", failure_rate=failure_rate) as engine:
            plan.run(engine, out=tmp_path / "run", progress=False)
        feed_run(tmp_path / "history", RunDirectory.open(tmp_path / "run"))
        counts.append(history_of(ft.Predictor.load(tmp_path / "history")).draws_.num_draws)
    assert counts[0] < counts[1] < counts[2] == counts[3] == counts[0] + num_samples


def test_a_history_without_single_samples_is_refused() -> None:
    with pytest.raises(InvalidSettingsError, match="add 1 to samples"):
        ft.train(night(0, 4), "history", samples=[2, 4])


def test_nights_of_votes_on_the_command_line(job: Call) -> None:
    for seed in (1, 2):
        profile = ("profile", "fake", "q.jsonl", "--traces", 2, "--layers", "none", "--budgets", "32,64")
        assert job(*profile, "--seed", seed, "--out", f"p{seed}").code == 0
    assert job("train", "p1", "p2", "--predictor", "history", "--samples", "1,2,4", "--out", "h").code == 0
    run = ("run", "h", "q.jsonl", "--mean-tokens", 150, "--cost", "spent", "--history", "h", "--quiet", "--json")
    first = job(*run, "--seed", 3, "--out", "r3")
    assert (first.code, first.json["answered"]) == (0, 24)
    assert first.json["samples"] > 24
    second = job(*run, "--seed", 4, "--out", "r4")
    assert second.code == 0
    assert "samples of 24 questions" in job("show", "h").out
    said = job("evaluate", "p1", "--predictor", "history", "--samples", "1,2", "--out", "e", "--resamples", 100)
    assert said.code == 0, said.err
