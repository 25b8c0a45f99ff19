"""The bootstrap covers what it should; ratios, frontiers and calibration by hand; live comparisons."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation_data import profile
from forethought.core.data import Curves
from forethought.core.menu import Menu
from forethought.errors import InvalidInputError
from forethought.evaluation import compare_live
from forethought.evaluation.bootstrap import estimate, ratio, resampled_means
from forethought.evaluation.calibration import calibrate
from forethought.evaluation.frontier import Frontier, shares_for
from forethought.evaluation.policies import envelope_columns


def test_intervals_cover_the_truth_about_as_often_as_they_claim() -> None:
    random = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        sample_Q_1 = random.exponential(size=(120, 1))
        found = estimate(resampled_means(sample_Q_1, num_resamples=300, seed=trial)[:, 0])
        hits += found.low <= 1.0 <= found.high
    assert 0.88 <= hits / 200 <= 0.99


def test_a_paired_difference_is_far_narrower_than_its_parts() -> None:
    random = np.random.default_rng(1)
    base_Q = random.normal(size=200)
    means_R_2 = resampled_means(np.stack([base_Q + 0.1, base_Q], axis=1), num_resamples=500, seed=0)
    alone, paired = estimate(means_R_2[:, 0]), estimate(means_R_2[:, 0] - means_R_2[:, 1])
    assert alone.high - alone.low > 0.2
    assert paired.value == pytest.approx(0.1)
    assert paired.high - paired.low < 1e-9


def test_resamples_draw_whole_queries_and_blocks_do_not_change_them(monkeypatch: pytest.MonkeyPatch) -> None:
    values_Q_N = np.arange(12.0).reshape(6, 2)
    whole = resampled_means(values_Q_N, num_resamples=50, seed=5)
    assert whole[0] == pytest.approx(values_Q_N.mean(axis=0))
    assert np.allclose(whole[:, 1] - whole[:, 0], 1.0)  # the two columns of a query stay together
    monkeypatch.setattr("forethought.evaluation.bootstrap.BLOCK", 6 * 7)
    assert np.array_equal(resampled_means(values_Q_N, num_resamples=50, seed=5), whole)
    assert not np.array_equal(resampled_means(values_Q_N, num_resamples=50, seed=6), whole)


def test_interval_of_order_statistics_takes_infinity() -> None:
    values_R = np.array([1.0, *range(1, 100), math.inf])
    assert (estimate(values_R).low, estimate(values_R).high) == (3.0, 98.0)
    assert estimate(np.array([1.0, 1.0, math.inf, math.inf])).high == math.inf


@pytest.mark.parametrize(
    ("denominator", "expected"),
    [
        pytest.param([0.2, 0.2, 0.2, 0.2], 0.5, id="clear"),
        pytest.param([0.001, 0.2, 0.2, 0.2], None, id="too small"),
        pytest.param([0.2, -0.1, 0.2, 0.2], None, id="may be negative"),
    ],
)
def test_a_ratio_to_nearly_nothing_is_not_given(denominator: list[float], expected: float | None) -> None:
    found = ratio(np.full(4, 0.1), np.array(denominator), smallest=0.005)
    assert (None if found is None else found.value) == expected


def test_frontier_mixes_neighbours_and_is_flat_outside() -> None:
    frontier = Frontier.through(np.array([[10.0, 20.0, 40.0]]), np.array([[0.2, 0.6, 0.5]]))
    at = {tokens: float(frontier.accuracy_at(np.array([tokens]))[0]) for tokens in (5.0, 10.0, 15.0, 30.0, 50.0)}
    assert at == pytest.approx({5.0: 0.2, 10.0: 0.2, 15.0: 0.4, 30.0: 0.55, 50.0: 0.5})
    needs = {right: float(frontier.cost_for(np.array([right]))[0]) for right in (0.1, 0.4, 0.6, 0.7)}
    assert needs == pytest.approx({0.1: 10.0, 0.4: 15.0, 0.6: 20.0, 0.7: math.inf})


@settings(max_examples=60, deadline=None)
@given(
    # Shares of traces: none is smaller than one in a billion, below which a slope is no number.
    st.lists(st.tuples(st.floats(0.5, 9), st.floats(0, 1).map(lambda p: round(p, 9))), min_size=1, max_size=8),
    st.floats(0, 80),
)
def test_shares_lie_on_the_line_and_the_envelope_is_concave(steps: list[tuple[float, float]], target: float) -> None:
    cost_B = np.cumsum([step for step, _ in steps])
    value_B = np.array([value for _, value in steps])
    columns = envelope_columns(Menu.evenly(10, 10 * len(steps)), cost_B, value_B)
    slopes = np.diff(value_B[columns]) / np.diff(cost_B[columns])
    assert (slopes > 0).all()
    assert (np.diff(slopes) <= 1e-9).all()
    assert value_B[columns[-1]] == value_B.max()
    for chosen in (columns, np.arange(len(cost_B))):
        share_B = shares_for(cost_B, chosen, target)
        assert share_B.min() >= 0.0
        assert share_B.sum() == pytest.approx(1.0)
        assert cost_B @ share_B == pytest.approx(min(max(target, cost_B[chosen[0]]), cost_B[chosen[-1]]))


def calibration(right_Q_B: Any, tried: Any, p_Q_B: Any, mean_B: Any) -> Any:
    tokens_Q_B = np.broadcast_to([10.0, 20.0], np.shape(right_Q_B))
    measured = profile(right_Q_B, tried, tokens_Q_B)
    predicted = Curves(measured.query_ids, measured.menu, np.asarray(p_Q_B, dtype=np.float64), tokens_Q_B + 2.0)
    return calibrate(measured, predicted, np.asarray(mean_B), np.array([10.0, 21.0]), num_resamples=200, seed=0)


def test_perfect_predictions_have_no_calibration_error() -> None:
    right_Q_B = [[1, 2], [3, 4], [0, 4], [2, 2]]
    found = calibration(right_Q_B, 4, np.array(right_Q_B) / 4, [0.375, 0.75])
    assert found.calibration_error == pytest.approx(0.0)
    assert found.overall.pearson == pytest.approx(1.0)
    assert found.log_loss_gain.value > 0.0
    for each in found.bins:
        assert each.predicted == pytest.approx(each.observed.value)


def test_calibration_by_hand() -> None:
    # One query, two of four right at both caps, predicted 0.8 and 0.8; the mean curve says 0.5.
    found = calibration([[2, 2]], 4, [[0.8, 0.8]], [0.5, 0.5])
    assert found.overall.log_loss == pytest.approx(-0.5 * math.log(0.8) - 0.5 * math.log(0.2))
    assert found.overall.mean_log_loss == pytest.approx(math.log(2.0))
    assert found.log_loss_gain.value == pytest.approx(math.log(2.0) + 0.5 * math.log(0.16))
    assert found.overall.brier == pytest.approx((0.2**2 + 0.8**2) / 2)
    assert found.overall.mean_brier == pytest.approx(0.25)
    assert found.calibration_error == pytest.approx(0.3)
    assert found.mean_calibration_error == pytest.approx(0.0)
    (only,) = found.bins
    assert (only.lower, only.upper, only.num_traces, only.num_queries) == (0.8, 0.9, 8, 1)
    assert only.predicted == pytest.approx(0.8)
    assert only.observed.value == pytest.approx(0.5)
    assert found.overall.tokens_bias == pytest.approx(2.0)
    assert found.overall.mean_tokens_error == pytest.approx(0.5)
    assert [each.budget for each in found.by_budget] == [10, 20]


def live(right: dict[str, Any], **options: Any) -> Any:
    return compare_live({name: (r, [64] * len(r), [50.0] * len(r)) for name, r in right.items()}, **options)


def test_twelve_right_answers_are_not_certainty() -> None:
    found = live({"uniform": [1] * 12, "forethought": [1] * 12})
    assert found.policies[0].accuracy.value == 1.0
    assert found.policies[0].accuracy.low < 0.95
    (difference,) = found.differences
    assert difference.accuracy.value == 0.0
    assert difference.accuracy.low < 0.0 < difference.accuracy.high
    assert "too few" in difference.sentence or "show no difference" in difference.sentence


def test_live_differences_are_paired_counted_and_each_pair_told_once() -> None:
    found = live({"uniform": [1, 0, 0, 1], "blind": [0, 0, 1, 1], "forethought": [1, 1, 1, 1]}, simulated=True)
    assert [(each.policy, each.baseline) for each in found.differences] == [
        ("blind", "uniform"),
        ("forethought", "uniform"),
        ("forethought", "blind"),
    ]
    assert [(each.num_better, each.num_worse) for each in found.differences] == [(1, 1), (2, 0), (2, 0)]
    assert found.differences[1].accuracy.value == 0.5
    assert found.to_json()["simulated"] is True


def test_a_large_difference_on_many_questions_is_told_and_so_are_unequal_tokens() -> None:
    right, wrong = np.ones(200), np.zeros(200)
    found = compare_live({"uniform": (wrong, wrong + 64, wrong + 50), "forethought": (right, right * 64, right * 70)})
    sentence = found.differences[0].sentence
    assert "ahead of uniform by 100.0 points" in sentence
    assert "spent 70.0 against 50.0" in sentence


LIVE_REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], type[Exception]]] = {
    "nothing": ({}, {}, InvalidInputError),
    "other questions": ({"a": ([1], [1], [1]), "b": ([1, 0], [1, 1], [1, 1])}, {}, InvalidInputError),
    "ragged": ({"a": ([1, 0], [1], [1])}, {}, InvalidInputError),
    "no questions": ({"a": ([], [], [])}, {}, InvalidInputError),
    "not a verdict": ({"a": ([2], [1], [1])}, {}, InvalidInputError),
    "NaN": ({"a": ([math.nan], [1], [1])}, {}, InvalidInputError),
    "endless tokens": ({"a": ([1], [1], [math.inf])}, {}, InvalidInputError),
}


@pytest.mark.parametrize(("outcomes", "options", "error"), LIVE_REFUSED.values(), ids=LIVE_REFUSED.keys())
def test_live_refuses(outcomes: Any, options: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        compare_live(outcomes, **options)
