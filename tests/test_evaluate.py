"""What evaluation claims, held against small profiles worked out by hand."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from evaluation_data import profile, synthetic
from forethought import report
from forethought.core.data import Cost, Curves
from forethought.core.menu import Menu
from forethought.core.profile import Profile
from forethought.core.terms import TOKEN_COSTS
from forethought.errors import InvalidInputError, InvalidSettingsError, MismatchError
from forethought.evaluation import Estimate, Evaluation, PolicyRow, evaluate
from timing import least_seconds

MENU = Menu.evenly(10, 40)
# Two queries solved by 20 tokens, two only by 40; four traces each. Uniform: 0, 1/2, 1/2, 1.
RIGHT = [[0, 4, 4, 4], [0, 4, 4, 4], [0, 0, 0, 4], [0, 0, 0, 4]]
# The first two stop by themselves after 20 tokens, the others never do.
TOKENS = [[10, 20, 20, 20], [10, 20, 20, 20], [10, 20, 30, 40], [10, 20, 30, 40]]
CAPS = [10.0, 20.0, 30.0, 40.0]
MEAN_P = [0.0, 0.5, 0.5, 1.0]
MEAN_TOKENS = [10.0, 20.0, 25.0, 30.0]


def curves(measured: Profile, p_Q_B: Any, tokens_Q_B: Any = None) -> Curves:
    tokens = None if tokens_Q_B is None else np.asarray(tokens_Q_B, dtype=np.float64)
    return Curves(measured.query_ids, measured.menu, np.asarray(p_Q_B, dtype=np.float64), tokens)


def by_hand(*, predicted_p: Any = None, predicted_tokens: Any = TOKENS, copies: int = 1, **options: Any) -> Evaluation:
    """The four queries, `copies` times over: the same means, and narrower intervals."""

    def repeated(values: Any) -> Any:
        return None if values is None else np.repeat(np.asarray(values), copies, axis=0)

    measured = profile(repeated(RIGHT), 4, repeated(TOKENS))
    p_Q_B = repeated(np.asarray(RIGHT) / 4 if predicted_p is None else predicted_p)
    predicted = curves(measured, p_Q_B, repeated(predicted_tokens))
    mean_train = Curves(("mean",), MENU, np.array([MEAN_P]), np.array([MEAN_TOKENS]))
    return evaluate(measured, predicted, mean_train, **{"num_resamples": 200, **options})


def only(result: Evaluation, cost: Cost, policy: str, level: float) -> PolicyRow:
    (row,) = [row for row in result.select(cost, policy) if row.budget == level]
    return row


# policy -> (accuracy, granted, spent) at 25 tokens per query.
AT_25: dict[tuple[Cost, str], tuple[float, float | None, float | None]] = {
    # Caps 20 and 30 in equal shares.
    (Cost.GRANTED, "uniform"): (0.5, 25.0, (20 + 25) / 2),
    # The mean curve's envelope has corners at 10, 20 and 40: three quarters get cap 20, one quarter 40.
    (Cost.GRANTED, "blind"): (0.625, 25.0, (3 * 20 + 30) / 4),
    # 100 tokens: 20 + 20 + 40 solve three of four; who gets the rest is of no account.
    (Cost.GRANTED, "forethought"): (0.75, 25.0, None),
    (Cost.GRANTED, "oracle"): (0.75, 25.0, None),
    # Cap 30 for all is what 25 generated tokens pay for.
    (Cost.SPENT, "uniform"): (0.5, 30.0, 25.0),
    # 10 to 40 costs 10 to 30 tokens: three quarters of the way.
    (Cost.SPENT, "blind"): (0.75, 32.5, 25.0),
    (Cost.SPENT, "oracle"): (0.75, None, None),
    (Cost.SPENT, "forethought"): (0.75, None, None),
}


@pytest.mark.slow
@pytest.mark.parametrize(("cost", "policy"), AT_25, ids=lambda value: str(value))
def test_every_policy_on_a_profile_worked_out_by_hand(cost: Cost, policy: str) -> None:
    row = only(by_hand(mean_tokens=[25]), cost, policy, 25.0)
    accuracy, granted, spent = AT_25[cost, policy]
    assert row.accuracy.value == pytest.approx(accuracy)
    assert granted is None or row.granted == pytest.approx(granted)
    assert spent is None or row.spent == pytest.approx(spent)
    assert row.realised <= 25.0 + 1e-9
    assert sum(row.shares) == pytest.approx(1.0)
    assert np.dot(row.shares, CAPS) == pytest.approx(row.granted)


def test_greedy_with_perfect_predictions_is_the_greedy_oracle() -> None:
    result = by_hand(mean_tokens=[25])
    for cost in TOKEN_COSTS:
        mine, known = only(result, cost, "greedy", 25.0), only(result, cost, "greedy-oracle", 25.0)
        assert dataclasses.replace(mine, policy="greedy-oracle") == known


def test_gains_and_gap_are_over_uniform_and_over_blind() -> None:
    result = by_hand(mean_tokens=[25], copies=20, costs=[Cost.GRANTED])
    rows = {row.policy: row.to_json() for row in result.rows}
    # At 25 tokens uniform is right for 1/2 (halfway from cap 20 to 30), blind for 5/8. Of 80 x 25 tokens the oracle and
    # we give 40 queries 20, the others 10 at least, and with the 800 that are left 26 of these 30 more: 66 of 80.
    assert rows["forethought"]["accuracy"] == pytest.approx(66 / 80)
    assert rows["forethought"]["gain"] == pytest.approx(66 / 80 - 0.5)
    assert rows["forethought"]["gain_over_blind"] == pytest.approx(66 / 80 - 0.625)
    assert rows["forethought"]["uniform_at_same_tokens"] == pytest.approx(0.5)
    assert rows["forethought"]["blind_at_same_tokens"] == pytest.approx(0.625)
    assert rows["forethought"]["gap_closed"] == pytest.approx(1.0)
    assert rows["forethought"]["gap_closed_over_blind"] == pytest.approx(1.0)
    assert rows["blind"]["gap_closed"] == pytest.approx(0.125 / 0.325)
    assert rows["uniform"]["gain_over_blind"] == pytest.approx(-0.125)
    assert rows["uniform"]["gap_closed_over_blind"] == pytest.approx(-0.125 / 0.2)
    assert rows["uniform"]["gain"] is rows["blind"]["gain_over_blind"] is rows["oracle"]["gap_closed"] is None


def test_four_queries_say_nothing_about_the_gap() -> None:
    row = only(by_hand(mean_tokens=[25]), Cost.GRANTED, "forethought", 25.0)
    assert row.gain is not None
    assert row.gain.value == pytest.approx(0.25)
    assert row.gap_closed is None  # the oracle's own gain may be nothing


def test_an_overspent_plan_is_compared_at_the_tokens_it_really_used() -> None:
    # It believes that everyone stops after 15 tokens; the plan for 15 in truth spends 30 and solves all.
    result = by_hand(predicted_tokens=[[10, 12, 14, 15]] * 4, mean_tokens=[15], costs=[Cost.SPENT])
    row = only(result, Cost.SPENT, "forethought", 15.0)
    assert row.spent == pytest.approx(30.0)
    assert row.accuracy.value == pytest.approx(1.0)
    assert row.gain is not None
    assert row.gain.value == pytest.approx(0.0)  # uniform at 30 spent tokens is cap 40, and as good


def test_one_cap_for_all_gains_nothing_also_where_it_costs_less_than_a_shorter_one() -> None:
    # A thought that ended by itself needs no forced suffix, so the later cap is the cheaper one.
    measured = profile([[1, 3], [1, 3], [2, 3]], 4, [[12.0, 11.0]] * 3)
    predicted = curves(measured, [[0.2, 0.9]] * 3, [[12.0, 12.0]] * 3)
    mean_train = Curves(("mean",), measured.menu, np.array([[0.3, 0.7]]), np.array([[12.0, 12.0]]))
    result = evaluate(measured, predicted, mean_train, costs=[Cost.SPENT], num_resamples=100)
    for row in result.select(Cost.SPENT, "forethought"):
        assert row.shares == (0.0, 1.0)
        assert (row.gain, row.gain_over_blind) == (Estimate(0.0, 0.0, 0.0),) * 2


def test_tokens_saved_at_equal_accuracy_by_hand() -> None:
    result = by_hand(mean_tokens=[25])
    saved = {(each.cost, each.baseline): each for each in result.savings}
    # Uniform reaches 3/4 halfway from cap 30 (1/2) to cap 40 (1); blind halfway from cap 20 to 40.
    assert saved[Cost.GRANTED, "uniform"].needed.value == pytest.approx(35.0)
    assert saved[Cost.GRANTED, "uniform"].ratio.value == pytest.approx(35.0 / 25.0)
    assert saved[Cost.GRANTED, "blind"].needed.value == pytest.approx(30.0)
    assert saved[Cost.SPENT, "uniform"].needed.value == pytest.approx(27.5)
    assert saved[Cost.SPENT, "blind"].needed.value == pytest.approx(25.0)


def test_an_accuracy_that_the_baseline_never_reaches() -> None:
    # Cap 10 is right for one query and cap 20 for the other, and wrong the other way round: no one cap gets both.
    measured = profile([[1, 0], [0, 1]], 1, [[10, 20], [10, 20]])
    mean_train = Curves(("mean",), measured.menu, np.array([[0.5, 0.5]]), None)
    result = evaluate(
        measured,
        curves(measured, [[1, 0], [0, 1]]),
        mean_train,
        costs=[Cost.GRANTED],
        mean_tokens=[15],
        num_resamples=200,
    )
    saving = result.savings[0]
    assert saving.accuracy == 1.0
    assert math.isinf(saving.needed.value)
    assert saving.to_json()["needed"] is None
    assert saving.reached < 1.0


@pytest.mark.parametrize(
    ("predicted", "verdict"),
    [
        pytest.param(
            [[1, 0.5, 0.2, 0], [1, 0.5, 0.2, 0], [0, 1, 0.5, 0.2], [0, 1, 0.5, 0.2]], "worse", id="upside down"
        ),
        pytest.param(None, None, id="perfect"),
    ],
)
def test_losses_are_told(predicted: Any, verdict: str | None) -> None:
    result = by_hand(predicted_p=predicted, copies=20, costs=[Cost.GRANTED], mean_tokens=[25])
    assert {loss.verdict for loss in result.losses} == ({verdict} if verdict else set())


def test_a_level_without_a_choice_is_equal_and_no_loss_to_worry_about() -> None:
    result = by_hand(mean_tokens=[10], costs=[Cost.GRANTED])
    assert [(loss.baseline, loss.verdict) for loss in result.losses] == [("blind", "equal"), ("uniform", "equal")]


def test_uniform_under_spent_cost_gets_the_largest_cap_that_the_mean_spend_allows() -> None:
    result = by_hand(costs=[Cost.SPENT])
    assert set(MEAN_TOKENS) <= set(result.levels[Cost.SPENT])
    for level, cap, accuracy in zip(MEAN_TOKENS, CAPS, MEAN_P, strict=True):
        row = only(result, Cost.SPENT, "uniform", level)
        assert (row.granted, row.spent, row.accuracy.value) == (cap, level, accuracy)


def test_without_predicted_tokens_the_mean_spend_curve_plans() -> None:
    result = by_hand(predicted_tokens=None, mean_tokens=[25])
    assert any("has no usage curve" in note for note in result.notes)
    assert only(result, Cost.SPENT, "forethought", 25.0).granted <= 40.0


def test_it_says_that_the_oracle_is_optimistic_and_what_each_cost_counts() -> None:
    notes = " ".join(by_hand(mean_tokens=[25]).notes)
    for words in (
        "too optimistic",
        "as few as 4 traces",
        "Granted cost counts the caps",
        "the prompt pass",
        "measured ones",
    ):
        assert words in notes


def test_oracle_is_at_least_every_other_plan_and_granted_totals_hold() -> None:
    result = evaluate(*synthetic(30, noise=1.0), num_resamples=100, costs=[Cost.GRANTED])
    for level in result.levels[Cost.GRANTED]:
        best = only(result, Cost.GRANTED, "oracle", level).accuracy.value
        for policy in ("uniform", "blind", "forethought", "greedy", "greedy-oracle"):
            row = only(result, Cost.GRANTED, policy, level)
            assert row.accuracy.value <= best + 1e-9
            assert row.granted <= level + 1e-9


@pytest.mark.slow
def test_better_predictions_win_and_useless_ones_gain_nothing_over_blind() -> None:
    def gain(noise: float) -> Any:
        result = evaluate(*synthetic(80, noise=noise), num_resamples=100)
        return {each.cost: each for each in result.summaries if each.policy == "forethought"}

    sharp, useless = gain(0.3), gain(30.0)
    for cost in TOKEN_COSTS:
        assert sharp[cost].gain_over_blind.low > 0.0
        assert useless[cost].gain_over_blind.value < 0.3 * sharp[cost].gain_over_blind.value


@pytest.mark.slow
def test_the_same_seed_gives_the_same_evaluation_and_another_seed_other_intervals() -> None:
    first, again = by_hand(seed=3).to_json(), by_hand(seed=3).to_json()
    assert first == again
    data = synthetic(20)
    low = {evaluate(*data, num_resamples=100, mean_tokens=[48], seed=seed).rows[2].accuracy.low for seed in range(4)}
    assert len(low) > 1


@pytest.mark.slow
def test_provenance_of_the_caller_is_kept_beside_the_profiles_own() -> None:
    measured, predicted, mean_train = synthetic(20, engine="fake")
    result = evaluate(measured, predicted, mean_train, num_resamples=100, provenance={"command": "evaluate x"})
    assert result.provenance["command"] == "evaluate x"
    assert result.provenance["engine"] == "fake"
    assert result.simulated is True


def test_the_data_hash_follows_the_counts() -> None:
    changed = [list(row) for row in RIGHT]
    changed[0][1] = 3
    measured, other = profile(RIGHT, 4, TOKENS), profile(changed, 4, TOKENS)
    mean_train = Curves(("mean",), MENU, np.array([MEAN_P]), np.array([MEAN_TOKENS]))
    hashes = {
        evaluate(each, curves(each, np.asarray(RIGHT) / 4), mean_train, num_resamples=100, mean_tokens=[20]).data_hash
        for each in (measured, measured, other)
    }
    assert len(hashes) == 2


@pytest.mark.slow
def test_two_hundred_queries_take_seconds() -> None:
    data = synthetic(200)
    assert least_seconds(lambda: evaluate(*data, num_resamples=2000), rounds=1) < 15.0


def _nan(array: Any) -> Any:
    array = np.array(array, dtype=np.float64)
    array[1, 2] = np.nan
    return array


P = np.asarray(RIGHT) / 4
REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "other ids": ({"ids": ("q0", "q1", "x", "q3")}, MismatchError, "row 2 is 'q2' in the profile, 'x' predicted"),
    "fewer queries": ({"ids": ("q0", "q1"), "p": P[:2], "tokens": TOKENS[:2]}, MismatchError, "of 2 queries"),
    "other grid": ({"grid": Menu.evenly(20, 80)}, MismatchError, "predicted curves are on the menu 20, 40"),
    "other grid of the mean": ({"mean_grid": Menu.evenly(5, 20)}, MismatchError, "mean train curve are on the menu 5"),
    "NaN success": ({"p": _nan(P)}, InvalidInputError, "predicted success: row 1"),
    "NaN tokens": ({"tokens": _nan(TOKENS)}, InvalidInputError, "predicted tokens: row 1"),
    "NaN measured": ({"measured_tokens": _nan(TOKENS)}, InvalidInputError, "measured tokens: row 1"),
    "success above 1": ({"p": P * 1.5}, InvalidInputError, "between 0 and 1"),
    "untried": ({"tried": [4, 0, 4, 4]}, InvalidInputError, "'q1'"),
    "more right than tried": ({"tried": [4, 4, 4, 3]}, InvalidInputError, "more traces right"),
    "no usage curve at all": ({"mean_tokens_B": None}, MismatchError, "--cost granted"),
    "level below a window": ({"mean_tokens": [5]}, InvalidSettingsError, r"got \[5\]"),
    "level of NaN": ({"mean_tokens": [math.nan]}, InvalidSettingsError, "nan"),
    "endless level": ({"mean_tokens": [math.inf]}, InvalidSettingsError, "inf"),
    "no level": ({"mean_tokens": []}, InvalidSettingsError, "one or more"),
    "few resamples": ({"num_resamples": 99}, InvalidSettingsError, "whole number from 100"),
    "cost twice": ({"costs": [Cost.SPENT, Cost.SPENT]}, InvalidSettingsError, "each once"),
}


@pytest.mark.parametrize(("changes", "error", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_refuses(changes: dict[str, Any], error: type[Exception], words: str) -> None:
    changes = dict(changes)
    tried, measured_tokens = changes.pop("tried", 4), changes.pop("measured_tokens", TOKENS)
    measured = profile(RIGHT, tried, measured_tokens)
    tokens = changes.pop("tokens", TOKENS)
    predicted = Curves(
        changes.pop("ids", measured.query_ids),
        changes.pop("grid", MENU),
        changes.pop("p", P),
        np.asarray(tokens, float),
    )
    mean_tokens_B = changes.pop("mean_tokens_B", MEAN_TOKENS)
    mean_train = Curves(
        ("mean",),
        changes.pop("mean_grid", MENU),
        np.array([MEAN_P]),
        None if mean_tokens_B is None else np.array([mean_tokens_B]),
    )
    with pytest.raises(error, match=words):
        evaluate(measured, predicted, mean_train, **{"num_resamples": 100, **changes})


def test_queries_without_a_trace_at_some_cap_are_left_out_with_a_note() -> None:
    """A gateway's journal knows each question under the caps that its requests got."""
    whole, predicted, mean_train = synthetic(40)
    tried_Q_B = np.full(whole.num_right_Q_B.shape, 4)
    tried_Q_B[3, 2:] = 0
    right_Q_B = np.where(tried_Q_B > 0, whole.num_right_Q_B, 0)
    lacking = dataclasses.replace(whole, tried_Q_B=tried_Q_B, num_right_Q_B=right_Q_B)
    found = evaluate(lacking, predicted, mean_train, num_resamples=100)
    assert found.num_queries == 39
    assert "1 of 40 queries was not tried under every option, and is left out." in found.notes


@pytest.mark.parametrize(("num_queries", "words"), [(1, "n = 1 question, too few"), (8, "n = 8 questions, too few")])
def test_intervals_of_few_questions_are_said_to_prove_nothing(num_queries: int, words: str) -> None:
    """Resampling one question gives an interval without width."""
    measured, predicted, mean_train = synthetic(num_queries)
    text = report.page(evaluate(measured, predicted, mean_train, num_resamples=100)).text()
    assert f"{words} for a proof" in text
    many = report.page(evaluate(*synthetic(30), num_resamples=100)).text()
    assert "n = 30 questions, 4 traces each." in many


@pytest.mark.slow
def test_minimums_are_paid_for_predictions_in_single_precision() -> None:
    """A float32 sum of many tokens may fall short of what they really add up to; the lowest level still has a plan."""
    measured, predicted, mean_train = synthetic(400)
    assert predicted.tokens_Q_B is not None
    shifted = ((predicted.tokens_Q_B + offset).astype(np.float32) for offset in np.linspace(0.0, 1.0, 100))
    tokens_Q_B = next(t for t in shifted if float(t[:, 0].sum()) * (1 + 2e-9) < t[:, 0].sum(dtype=np.float64))
    predicted = dataclasses.replace(predicted, tokens_Q_B=tokens_Q_B)
    level = float(tokens_Q_B[:, 0].mean()) * 0.9
    result = evaluate(measured, predicted, mean_train, costs=[Cost.SPENT], mean_tokens=[level])
    assert only(result, Cost.SPENT, "forethought", level).granted == pytest.approx(16.0)
