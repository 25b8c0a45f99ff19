"""Choosing by earlier draws: what chooses never judges, and what is said of it holds."""

import json
from dataclasses import replace

import numpy as np
import pytest

from forethought.control.evaluating import by_draws
from forethought.core.data import Cost
from forethought.core.menu import Menu
from forethought.core.options import Option, Price
from forethought.core.profile import RIGHT, UNTRIED, WRONG
from forethought.errors import InvalidInputError, InvalidSettingsError, MismatchError
from forethought.evaluation import Estimate
from forethought.evaluation.draws import FAIR_ORACLE, HISTORY
from forethought.evaluation.policies import UNIFORM
from forethought.evaluation.splits import drawn, firsts, half
from forethought.report import page
from forethought.report.findings import draws_decision, draws_title, num_draws_title
from test_history import LEVELS, measured

CAPS = Menu.of([64, 256, 1024])


def row(result, level, policy):
    return next(each for each in result.rows if each.level == level and each.policy == policy)


@pytest.mark.parametrize("menu", [LEVELS, CAPS], ids=["levels", "caps"])
def test_a_halving_parts_the_draws(menu):
    profile = measured(num_queries=20, num_draws=7, menu=menu)
    mask = half(profile, 3)
    one, other = drawn(profile, mask), drawn(profile, ~mask)
    assert (one.num_right_Q_B + other.num_right_Q_B == profile.num_right_Q_B).all()
    assert (one.tried_Q_B == 4).all()
    assert (other.tried_Q_B == 3).all()
    together = (4 * one.tokens_Q_B + 3 * other.tokens_Q_B) / 7
    assert np.allclose(together, profile.tokens_Q_B)
    same_for_all_options = (mask == mask[:, :1]).all()
    assert same_for_all_options == (not menu.is_named)  # a trace is one draw under caps


def test_so_many_draws_choose_and_the_others_judge():
    profile = measured(num_queries=30, num_draws=5)
    for split in firsts(profile, 2, 3, seed=0):
        assert (split.choosing.tried_Q_B == 2).all()
        assert (split.judged.tried_Q_B == 3).all()
    assert firsts(profile, 5, 3, seed=0) == []


def test_uniform_at_an_options_cost_is_that_option():
    profile = measured(num_queries=80, num_draws=8)
    cost_B, right_B = profile.tokens_Q_B.mean(axis=0), profile.curves.p_Q_B.mean(axis=0)
    result = by_draws(profile, mean_tokens=cost_B.tolist(), num_draws=(), num_resamples=200)
    for level, right in zip(cost_B.tolist(), right_B, strict=True):
        assert row(result, level, UNIFORM).accuracy.value == pytest.approx(right)
    assert [each.accuracy.value for each in result.options] == pytest.approx(right_B.tolist())


def test_a_history_knows_questions_apart_and_more_draws_know_more():
    chances = np.where(np.arange(300)[:, None] % 2 == 0, [0.2, 0.9], [0.5, 0.5])
    profile = measured(num_queries=300, num_draws=12, chances=chances)
    result = by_draws(profile, mean_tokens=[600], num_draws=(1, 5), num_halvings=2)
    assert row(result, 600, HISTORY).gain.low > 0.0
    one, five = result.by_num_draws
    assert five.gain.value > one.gain.value
    assert one.num_queries == 300
    rows = [replace(one, num_draws=n, gain=replace(one.gain, low=low)) for n, low in ((1, 0.1), (2, -0.1), (3, 0.1))]
    titles = [num_draws_title(replace(result, by_num_draws=tuple(rows[:n])), Cost.SPENT) for n in (1, 2, 3)]
    assert [title.split(",")[0] for title in titles] == [
        "A gain is proven from 1 sample on",
        "A gain is not proven with 2 samples",
        "A gain is proven from 3 samples on",
    ]


def test_its_page_says_what_its_tables_say():
    result = by_draws(measured(num_queries=20, num_draws=4, menu=CAPS), mean_tokens=[200, 600], num_resamples=100)
    first, second = (replace(row(result, level, HISTORY)) for level in (200, 600))
    # The larger gain is not proven, and the smaller one is.
    rows = (
        replace(first, gain=replace(first.gain, value=0.03, low=-0.01)),
        replace(second, gain=replace(second.gain, value=0.02, low=0.01)),
    )
    assert draws_title(replace(result, rows=rows), Cost.SPENT).startswith("Earlier samples gain up to +2.0 points")
    dearer = tuple(replace(each, saved={HISTORY: Estimate(-0.12, -0.3, 0.05)}) for each in result.options)
    last = list(draws_decision(replace(result, options=dearer)))[-1]
    assert last.endswith("the history reaches this accuracy at 12.0% more cost (saved: [−30.0%, 5.0%]).")
    odd = tuple(replace(each, label="*a*|<b>") for each in result.options)
    assert r"| \*a\*&#124;\<b\> |" in page(replace(result, options=odd)).markdown({})


def test_luck_that_chooses_is_not_judged():
    """Where no question differs from another, choosing by draws gains nothing: not even the oracle."""
    profile = measured(num_queries=400, num_draws=8)
    grades = np.where(np.random.default_rng(0).random(profile.traces.grade_N_B.shape) < 0.5, RIGHT, WRONG)
    starts = np.cumsum(profile.num_tried_Q) - profile.num_tried_Q
    profile = replace(
        profile,
        num_right_Q_B=np.add.reduceat(grades == RIGHT, starts, dtype=np.int64),
        traces=replace(profile.traces, grade_N_B=grades.astype(np.int8)),
    )
    result = by_draws(profile, mean_tokens=[400, 700], num_draws=(), num_resamples=200)
    for each in result.rows:
        assert each.accuracy.value == pytest.approx(0.5, abs=0.03), each


def test_questions_that_lack_an_option_are_left_out_with_a_note():
    profile = measured(num_queries=40, num_draws=4)
    grades = profile.traces.grade_N_B.copy()
    grades[: 4 * 5, 1] = UNTRIED
    tried = np.full((40, 2), 4)
    tried[:5, 1] = 0
    right = np.where(tried > 0, profile.num_right_Q_B, 0)
    tokens = np.where(tried > 0, profile.tokens_Q_B, np.nan)
    traces = replace(profile.traces, grade_N_B=grades)
    profile = replace(profile, tried_Q_B=tried, num_right_Q_B=right, tokens_Q_B=tokens, traces=traces)
    result = by_draws(profile, mean_tokens=[500], num_draws=(9,), num_resamples=200)
    assert result.num_queries == 35
    assert "5 of 40 questions" in result.notes[0]
    assert result.by_num_draws == ()
    with pytest.raises(InvalidInputError, match="import it with them"):
        by_draws(replace(profile, traces=None))


def test_money_counts_where_options_have_prices(tmp_path):
    menu = Menu.named([Option("low", price=Price(1, 10), tokens=100), Option("high", price=Price(1, 20), tokens=900)])
    profile = replace(measured(num_queries=60, num_draws=4, menu=menu), input_Q_B=np.full((60, 2), 50.0))
    result = by_draws(profile, num_draws=(1,), num_resamples=200)
    assert set(result.levels) == {Cost.SPENT, Cost.USD}
    mean_usd = profile.curves.usd_Q_B.mean(axis=0)
    assert max(result.levels[Cost.USD]) == pytest.approx(mean_usd.max(), rel=0.01)
    files = page(result).write(tmp_path)
    found = json.loads(next(file for file in files.values() if file.suffix == ".json").read_text())
    assert {each["policy"] for each in found["rows"]} == {"uniform", "blind", HISTORY, FAIR_ORACLE}
    assert "how many earlier samples are needed" in page(result).text()


def test_an_option_that_costs_nothing_saves_nothing():
    menu = Menu.named([Option("free", price=Price(0, 0), tokens=100), Option("paid", price=Price(1, 20), tokens=900)])
    profile = replace(measured(num_queries=20, num_draws=4, menu=menu), input_Q_B=np.full((20, 2), 50.0))
    free = next(each for each in by_draws(profile, num_resamples=100).options if each.cost is Cost.USD)
    assert (free.label, free.realised.value, free.saved[HISTORY].value) == ("free", 0.0, 0.0)


@pytest.mark.parametrize(
    ("levels", "error", "words"),
    [
        pytest.param({"mean_usd": [0.01]}, MismatchError, "nothing can be compared in USD", id="no prices"),
        pytest.param({"mean_tokens": [-1.0]}, InvalidSettingsError, "mean tokens must be", id="below 0"),
        pytest.param({"mean_tokens": [float("nan")]}, InvalidSettingsError, "mean tokens must be", id="no number"),
    ],
)
def test_levels_that_cannot_be_taken_are_refused(levels, error, words):
    with pytest.raises(error, match=words):
        by_draws(measured(num_queries=10, num_draws=4), **levels, num_resamples=100)


def test_what_cannot_be_asked_is_refused():
    from forethought.core.study_settings import EvaluateSettings

    with pytest.raises(InvalidSettingsError, match="--draws must be at least 1"):
        EvaluateSettings(run="x", by_draws=True, num_draws=(0,))
    with pytest.raises(InvalidSettingsError, match="leave --on out"):
        EvaluateSettings(run="x", by_draws=True, on="y")
    for given in ({"num_draws": (3,)}, {"num_halvings": 2}):
        with pytest.raises(InvalidSettingsError, match="--draws and --halvings need --by-draws"):
            EvaluateSettings(run="x", **given)


def test_the_demo_of_a_history_needs_no_model_and_credits_its_data(call):
    said = call("demo", "history", "--mean-tokens", 4234, "--json")
    assert said.code == 0
    assert "Epoch AI" in said.err
    opus, gpt = said.json["results"]
    assert (opus["num_queries"], gpt["num_queries"]) == (125, 125)
    own = next(each for each in opus["rows"] if each["policy"] == "history")
    assert own["gain_low"] > 0.0
