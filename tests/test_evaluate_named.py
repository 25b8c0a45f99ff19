"""Named options and money in `evaluate`: held against sums and frontiers worked out here, option by option."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest

from evaluation_data import OPTIONS, named, profile
from forethought.control.evaluating import evaluate as evaluate_by_name
from forethought.core.data import Cost, Curves
from forethought.core.menu import Menu
from forethought.core.options import Option, Price
from forethought.core.profile import Profile
from forethought.errors import InvalidInputError, InvalidSettingsError, MismatchError
from forethought.evaluation import Evaluation, compare_predictors, evaluate
from forethought.evaluation.comparison import Candidate
from forethought.evaluation.levels import spread
from forethought.runs.profiles import common_menu, curves_on_menu, joined, on_menu


def bills(measured: Profile) -> np.ndarray:
    """USD of every query under every option, added up one by one."""
    assert measured.input_Q_B is not None
    found = np.empty(measured.tokens_Q_B.shape)
    for row, column in np.ndindex(*found.shape):
        price = measured.menu.options[column].price
        assert price is not None
        output, read = measured.tokens_Q_B[row, column], measured.input_Q_B[row, column]
        found[row, column] = (price.input * read + price.output * output) / 1e6
    return found


def costs(measured: Profile, cost: Cost) -> np.ndarray:
    return bills(measured) if cost is Cost.USD else measured.tokens_Q_B


def on_the_line(points: list[tuple[float, float]], at: float) -> float:
    """Accuracy of the random mixture of two neighbours in cost that costs `at`."""
    points = sorted(points)
    if at <= points[0][0]:
        return points[0][1]
    for (low, first), (high, second) in itertools.pairwise(points):
        if low <= at <= high:
            return first + (second - first) * (at - low) / (high - low)
    return points[-1][1]


def hull(points: list[tuple[float, float]]) -> list[int]:
    """Places of the upper concave envelope's corners, up to the best: those under no line between two others."""
    kept = []
    for place, (x, y) in enumerate(points):
        better = [other for other in points if other[0] <= x and other[1] >= y and other != (x, y)]
        between = [
            (x0, y0, x1, y1)
            for (x0, y0), (x1, y1) in itertools.permutations(points, 2)
            if x0 < x < x1 and y0 + (y1 - y0) * (x - x0) / (x1 - x0) >= y
        ]
        if not better and not between:
            kept.append(place)
    return kept


@pytest.fixture(scope="module")
def result() -> Evaluation:
    return evaluate(*named(), num_resamples=200)


def test_named_options_are_compared_in_spent_tokens_and_in_usd(result: Evaluation) -> None:
    assert result.costs == (Cost.SPENT, Cost.USD)
    assert result.menu.labels == ("large-low", "large-high", "small")
    assert any("not a cap" in note for note in result.notes)
    assert any("USD counts prompt, thought and answer" in note for note in result.notes)
    lowest, highest = result.levels[Cost.USD][0], result.levels[Cost.USD][-1]
    mean_B = bills(result.measured).mean(axis=0)
    assert (lowest, highest) == pytest.approx((mean_B.min(), mean_B.max()), rel=0.02)


@pytest.mark.parametrize("cost", [Cost.SPENT, Cost.USD])
def test_the_frontiers_are_those_of_single_options_and_mixtures(result: Evaluation, cost: Cost) -> None:
    measured = result.measured
    mean_B, p_B = costs(measured, cost).mean(axis=0), measured.curves.p_Q_B.mean(axis=0)
    points = list(zip(mean_B.tolist(), p_B.tolist(), strict=True))
    _, _, mean_train = named()
    assert mean_train.tokens_Q_B is not None
    known_B = mean_train.tokens_Q_B[0]
    if cost is Cost.USD:
        assert measured.input_Q_B is not None
        known_B = np.array(
            [
                o.price.usd(measured.input_Q_B[:, 0].mean(), t)
                for o, t in zip(measured.menu.options, known_B, strict=True)
            ]
        )  # type: ignore[union-attr]
    corners = hull(list(zip(known_B.tolist(), mean_train.p_Q_B[0].tolist(), strict=True)))
    for row in (row for row in result.rows if row.cost is cost):
        at = row.realised
        assert row.uniform_at_same_tokens.value == pytest.approx(on_the_line(points, at))
        assert row.blind_at_same_tokens.value == pytest.approx(on_the_line([points[each] for each in corners], at))
        if row.policy in ("uniform", "blind"):
            used = np.flatnonzero(row.shares)
            allowed = corners if row.policy == "blind" else range(3)
            order = sorted(allowed, key=lambda each: known_B[each])
            assert sorted(order.index(each) for each in used.tolist()) in ([0], [1], [2], [0, 1], [1, 2])
            assert row.accuracy.value == pytest.approx(np.dot(row.shares, p_B))


def test_rows_carry_tokens_and_usd_of_the_options_given(result: Evaluation) -> None:
    bill_Q_B, measured = bills(result.measured), result.measured
    for row in result.rows:
        plans = result.plans.get((row.cost, row.policy, row.budget))
        share_Q_B = np.tile(row.shares, (measured.num_queries, 1))
        if plans is not None:
            share_Q_B = np.eye(3)[measured.menu.columns(plans[0].budget_Q)]
        assert row.usd == pytest.approx((share_Q_B * bill_Q_B).sum(axis=1).mean())
        assert row.spent == pytest.approx((share_Q_B * measured.tokens_Q_B).sum(axis=1).mean())
        assert row.realised == (row.usd if row.cost is Cost.USD else row.spent)
    for saving in result.savings:
        used = saving.usd if saving.cost is Cost.USD else saving.tokens
        assert saving.ratio.value == pytest.approx(saving.needed.value / used)
        assert saving.to_json()["usd"] == saving.usd


@pytest.mark.parametrize("cost", [Cost.SPENT, Cost.USD])
def test_the_oracle_is_within_one_segment_of_the_best_of_all_plans(cost: Cost) -> None:
    measured, predicted, mean_train = named(6, seed=3)
    p_Q_B, cost_Q_B, rows = measured.curves.p_Q_B, costs(measured, cost), np.arange(6)
    level = float(cost_Q_B.mean())
    levels = {"mean_usd" if cost is Cost.USD else "mean_tokens": [level]}
    found = evaluate(measured, predicted, mean_train, costs=[cost], num_resamples=100, **levels)
    best = max(
        p_Q_B[rows, list(choice)].mean()
        for choice in itertools.product(range(3), repeat=6)
        if cost_Q_B[rows, list(choice)].mean() <= level
    )
    (row,) = found.select(cost, "oracle")
    assert row.realised <= level * (1 + 1e-12)
    assert best - 1 / 6 <= row.accuracy.value <= best + 1e-12
    for policy in ("uniform", "blind", "greedy-oracle"):
        (other,) = found.select(cost, policy)
        assert other.policy in ("uniform", "blind") or other.accuracy.value <= best + 1e-12


def test_options_that_cost_nothing_are_compared_in_usd() -> None:
    free, paid = Price(0.0, 0.0), Price(1.0, 2.0)
    options = [Option(name, set={"model": name}, price=free if name < "c" else paid, tokens=10) for name in "abc"]
    result = evaluate(*named(20, options=options), costs=[Cost.USD], num_resamples=100)
    at_nothing = [each for each in result.savings if each.usd == 0.0]
    assert at_nothing
    assert all(each.ratio.value in (1.0, np.inf) for each in at_nothing)


def test_levels_in_usd_are_distinct_and_hold_every_option() -> None:
    menu = Menu.named(OPTIONS)
    cost_B = np.array([0.0024312, 0.0072312, 0.00080123])
    levels = spread(menu, cost_B, in_usd=True)
    assert {0.00243, 0.00723, 0.000801} <= set(levels)
    assert len(levels) >= 8
    assert (np.diff(levels) > 0).all()
    close = spread(menu, np.array([1.00001, 1.00002, 1.00003]), in_usd=True)
    assert len(close) >= 8
    assert (close[0], close[-1]) == (1.00001, 1.00003)
    assert spread(menu, np.zeros(3), in_usd=True) == (0.0,)


def test_levels_that_are_asked_for_are_those_of_their_cost() -> None:
    found = evaluate(*named(), mean_usd=[0.004, 0.002], num_resamples=100)
    assert found.levels[Cost.USD] == (0.002, 0.004)
    assert len(found.levels[Cost.SPENT]) > 2
    found = evaluate(*named(), mean_tokens=[500], costs=[Cost.SPENT], num_resamples=100)
    assert found.levels == {Cost.SPENT: (500.0,)}


def with_tries(measured: Profile, tried_Q_B: np.ndarray) -> Profile:
    right_Q_B = np.minimum(measured.num_right_Q_B, tried_Q_B)
    tokens_Q_B = np.where(tried_Q_B > 0, measured.tokens_Q_B, 0.0)
    return dataclasses.replace(measured, num_right_Q_B=right_Q_B, tried_Q_B=tried_Q_B, tokens_Q_B=tokens_Q_B)


def test_queries_that_lack_an_option_are_left_out_and_counted() -> None:
    measured, predicted, mean_train = named()
    tried_Q_B = np.full((60, 3), 4)
    tried_Q_B[5, 0], tried_Q_B[9:12, 2], tried_Q_B[20, 1] = 0, 0, 2
    lacking = with_tries(measured, tried_Q_B)
    found = evaluate(lacking, predicted, mean_train, num_resamples=100)
    assert found.num_queries == 56
    assert "4 of 60 queries were not tried under every option, and are left out." in found.notes
    assert found.num_traces == (2, 4)
    kept = np.flatnonzero((tried_Q_B > 0).all(axis=1))
    again = evaluate(lacking.select(kept), predicted.select(kept), mean_train, num_resamples=100)
    assert again.rows == found.rows
    assert again.data_hash == found.data_hash
    row = found.select(Cost.SPENT, "oracle")[0]
    assert 0.0 <= row.accuracy.value <= 1.0


def test_scores_count_every_trace_once_where_counts_are_unequal() -> None:
    measured, predicted, mean_train = named(8)
    tried_Q_B = np.tile([1, 2, 4], (8, 1))
    found = evaluate(with_tries(measured, tried_Q_B), predicted, mean_train, num_resamples=100).calibration
    right_Q_B = np.minimum(measured.num_right_Q_B, tried_Q_B)
    p_Q_B = np.clip(predicted.p_Q_B, 0.01, 0.99)
    loss_Q_B = -(right_Q_B * np.log(p_Q_B) + (tried_Q_B - right_Q_B) * np.log(1 - p_Q_B))
    width_B = measured.menu.width_B
    expected = (loss_Q_B @ width_B).sum() / (tried_Q_B @ width_B).sum()
    assert found.overall.log_loss == pytest.approx(expected)
    for column, each in enumerate(found.by_budget):
        assert each.log_loss == pytest.approx(loss_Q_B[:, column].sum() / tried_Q_B[:, column].sum())
    assert sum(each.num_traces for each in found.bins) == tried_Q_B.sum()


def elsewhere() -> Menu:
    """The same options at other budgets, in another order."""
    tokens = {"small": 100, "large-low": 700, "large-high": 400}
    return Menu.named([dataclasses.replace(option, tokens=tokens[option.label]) for option in OPTIONS])


def test_options_are_the_same_by_name_wherever_they_stand() -> None:
    measured, predicted, mean_train = named()
    menu = elsewhere()
    assert menu.labels != measured.menu.labels
    moved = [curves_on_menu(each, menu) for each in (predicted, mean_train)]
    found, again = (
        evaluate(measured, *each, num_resamples=100) for each in ((predicted, mean_train), (moved[0], moved[1]))
    )
    assert again.rows == found.rows
    back = on_menu(on_menu(measured, menu), measured.menu)
    assert back.menu == measured.menu
    assert np.array_equal(back.num_right_Q_B, measured.num_right_Q_B)
    assert back.input_Q_B is not None
    assert common_menu(measured.menu, menu) == measured.menu


def test_candidates_on_another_order_are_compared() -> None:
    measured, predicted, mean_train = named(20)
    moved = curves_on_menu(predicted, elsewhere())
    pair = [Candidate(name, name, curves, None) for name, curves in (("one", predicted), ("two", moved))]
    found = compare_predictors(measured, pair, mean_train, num_resamples=100)
    assert tuple(found.levels) == (Cost.SPENT, Cost.USD)
    assert any("A more expensive option may be less accurate" in note for note in found.notes)
    for cost in found.levels:
        assert found.score("one", cost).gain == found.score("two", cost).gain
        assert found.score("two", cost).net_gain is None


def test_profiles_are_joined_by_name() -> None:
    measured = named(10)[0]
    tried_Q_B = np.full((4, 3), 4)
    tried_Q_B[1, 2] = 0
    other = on_menu(with_tries(named(4, seed=1)[0], tried_Q_B), elsewhere())
    other = dataclasses.replace(other, query_ids=("a", "b", "c", "d"))
    both = joined([measured, other])
    assert both.menu == measured.menu
    assert both.tries_Q_B[10:].tolist() == tried_Q_B.tolist()
    assert (both.tries_Q_B[:10] == 4).all()
    assert both.input_Q_B is not None
    assert both.is_complete_Q.tolist() == [True] * 11 + [False, True, True]


def test_one_name_that_sets_other_things_is_refused() -> None:
    measured = named(10)[0]
    options = [dataclasses.replace(OPTIONS[0], set={"model": "other"}), *OPTIONS[1:]]
    other = dataclasses.replace(named(4, options=options)[0], query_ids=("a", "b", "c", "d"))
    with pytest.raises(MismatchError, match="'small' set other things"):
        joined([measured, other])
    with pytest.raises(MismatchError, match="'small' set other things"):
        common_menu(measured.menu, other.menu)


def unpriced() -> tuple[Profile, Curves, Curves]:
    return named(options=[Option("low", tokens=100), Option("high", tokens=400)])


def test_without_prices_or_prompts_there_is_no_money() -> None:
    assert evaluate(*unpriced(), num_resamples=100).costs == (Cost.SPENT,)
    measured, predicted, mean_train = named()
    without = dataclasses.replace(measured, input_Q_B=None)
    found = evaluate(without, predicted, mean_train, num_resamples=100)
    assert found.costs == (Cost.SPENT,)
    assert found.rows[0].usd is None
    free = [dataclasses.replace(each, price=Price(0.0, 1.0)) for each in OPTIONS]
    measured, predicted, mean_train = named(options=free)
    found = evaluate(dataclasses.replace(measured, input_Q_B=None), predicted, mean_train, num_resamples=100)
    assert found.costs == (Cost.SPENT, Cost.USD)


REFUSED: dict[str, tuple[Any, dict[str, Any], type[Exception], str]] = {
    "no price": (unpriced, {"costs": [Cost.USD]}, MismatchError, "in USD: money needs a price for every option; 'low'"),
    "usd of caps": (
        lambda: (profile([[0, 1], [1, 1]], 1, [[5, 9], [5, 9]]), None, None),
        {"costs": [Cost.USD]},
        MismatchError,
        "in USD: money needs a price for every option",
    ),
    "levels without prices": (unpriced, {"mean_usd": [1.0]}, MismatchError, "in USD: money needs a price"),
    "levels of another cost": (named, {"mean_usd": [1.0], "costs": [Cost.SPENT]}, InvalidSettingsError, "--mean-usd"),
    "a level of nothing": (named, {"mean_usd": [0.0]}, InvalidSettingsError, r"above 0; got \[0.0\]"),
    "no levels": (named, {"mean_usd": []}, InvalidSettingsError, "one or more numbers above 0"),
    "negative tokens": (named, {"mean_tokens": [-1.0]}, InvalidSettingsError, r"at least 0; got \[-1.0\]"),
}


@pytest.mark.parametrize(("make", "how", "error", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_refuses(make: Any, how: dict[str, Any], error: type[Exception], words: str) -> None:
    measured, predicted, mean_train = make()
    predicted = predicted or measured.curves
    with pytest.raises(error, match=words):
        evaluate(measured, predicted, mean_train or predicted, num_resamples=100, **how)


def test_an_option_that_nobody_tried_is_named() -> None:
    measured, predicted, mean_train = named()
    tried_Q_B = np.full((60, 3), 4)
    tried_Q_B[:, 1] = 0
    with pytest.raises(InvalidInputError, match="'large-high' was tried for 0: measure it, or leave it out"):
        evaluate(with_tries(measured, tried_Q_B), predicted, mean_train, num_resamples=100)


def test_without_measured_tokens_budgets_stand_for_what_options_take() -> None:
    measured = named()[0]
    unmeasured = dataclasses.replace(
        measured, provenance=dataclasses.replace(measured.provenance, spend_measured=False), input_Q_B=None
    )
    found = evaluate_by_name("mean", unmeasured, num_resamples=100)
    assert found.costs == (Cost.GRANTED,)
    assert any("counts the budgets of the options" in note for note in found.notes)
    assert not any("Nothing is compared under granted cost" in note for note in found.notes)
    assert all(row.spent is None and row.usd is None for row in found.rows)


def test_cross_fitted_queries_that_lack_an_option_are_left_out() -> None:
    tried_Q_B = np.full((60, 3), 4)
    tried_Q_B[:5, 1] = 0
    found = evaluate_by_name("mean", with_tries(named()[0], tried_Q_B), num_resamples=100)
    assert (found.num_queries, found.costs) == (55, (Cost.SPENT, Cost.USD))
    assert found.notes[0].startswith("5 of 60 queries")
