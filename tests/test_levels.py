"""The levels of a report on any menu: spread over the costs, weighted by tokens, and a choice in every headline."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation_data import made_up
from forethought import report
from forethought.core.data import Cost
from forethought.core.menu import Menu
from forethought.core.terms import TOKEN_COSTS
from forethought.evaluation import Evaluation, evaluate
from forethought.evaluation.levels import HEADLINES, at_share, half_way, spread, token_weights
from forethought.report.evaluation import levels_near

MENUS = {
    "two": "256,1024",
    "three": "512,2048,8192",
    "three near the end": "16,1000,1024",
    "geometric": "geometric:256:32768",
    "with 0": "0,16,32,64,128,256,512",
    "even": "16:256:16",
}


def granted(text: str) -> tuple[float, ...]:
    menu = Menu.parse(text)
    return spread(menu, menu.budgets_B.astype(float))


@pytest.fixture(scope="module", params=MENUS.values(), ids=MENUS.keys())
def result(request: pytest.FixtureRequest) -> Evaluation:
    return evaluate(*made_up(request.param), num_resamples=200)


def test_evenly_spaced_options_are_the_levels() -> None:
    menu = Menu.evenly(16, 256)
    assert granted("16:256:16") == tuple(menu.caps)
    spent_B = np.minimum(menu.budgets_B, 100.0) + 5.4
    assert spread(menu, spent_B) == (21.0, 37.0, 53.0, 69.0, 85.0, 101.0, 105.0)  # late caps cost the same


@pytest.mark.parametrize("text", MENUS.values(), ids=MENUS.keys())
def test_few_options_have_levels_between_them(text: str) -> None:
    menu, levels = Menu.parse(text), granted(text)
    assert 8 <= len(levels) <= 16
    assert set(menu.caps) <= set(levels)
    assert (levels[0], levels[-1]) == (menu.smallest, menu.largest)
    for share in HEADLINES:
        assert menu.smallest < at_share(levels, share) < menu.largest


STEEP = {
    "rises early": ([16, 32, 64, 128], [0.1, 0.5, 0.85, 0.9], 32),
    "rises late": ([16, 32, 64, 128], [0.0, 0.0, 0.1, 0.8], 64),
    "in any order": ([128, 16, 64, 32], [0.9, 0.1, 0.85, 0.5], 32),
    "a dear option is worse": ([16, 32, 64, 128], [0.2, 0.8, 0.8, 0.3], 32),
    "nothing to buy": ([16, 32, 64, 128], [0.5, 0.5, 0.5, 0.5], 32),
    "only ends": ([16, 128], [0.1, 0.9], 16),
}


@pytest.mark.parametrize(("costs", "p", "level"), STEEP.values(), ids=STEEP.keys())
def test_the_headline_is_where_the_train_curve_has_come_half_the_way(
    costs: list[float], p: list[float], level: float
) -> None:
    assert half_way(sorted(costs), np.array(costs, dtype=float), np.array(p)) == level


def test_levels_are_geometric_where_the_menu_is() -> None:
    steps = np.diff(np.log(granted("geometric:256:32768")))
    assert steps.max() < 2.1 * steps.min()
    lengths = np.diff(granted("256,1024"))
    assert lengths.max() - lengths.min() <= 1.0


def test_menus_of_very_many_or_of_one_option() -> None:
    assert len(granted("1:1000:1")) <= 16
    assert granted("64") == (64.0,)
    assert token_weights([64.0]).tolist() == [1.0]


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(0, 100_000), min_size=2, max_size=70))
def test_levels_ascend_within_any_menu(caps: set[int]) -> None:
    menu = Menu.of(caps)
    levels = spread(menu, menu.budgets_B.astype(float))
    assert (levels[0], levels[-1]) == (menu.smallest, menu.largest)
    assert (np.diff(levels) > 0).all()
    weights = token_weights(levels)
    assert weights.sum() == pytest.approx(1.0)
    assert (weights > 0).all()


def test_a_mean_weighs_by_tokens() -> None:
    assert token_weights([16, 32, 48, 64]) == pytest.approx([0.25] * 4)
    # 10 stands for 5 to 15, 20 for 15 to 30, 40 for 30 to 50.
    assert token_weights([10, 20, 40]) == pytest.approx(np.array([10, 15, 20]) / 45)


@pytest.mark.slow
def test_any_menu_is_compared_fairly_at_every_level(result: Evaluation) -> None:
    """Uniform mixes neighbours: it meets every level, is on the measured line there, and has no gain over itself."""
    measured = result.measured.curves
    for cost in TOKEN_COSTS:
        for row in result.select(cost, "uniform"):
            caps = [column for column, share in enumerate(row.shares) if share > 1e-12]
            assert len(caps) <= 2
            assert caps[-1] - caps[0] <= 1
            assert row.granted == pytest.approx(np.dot(row.shares, result.menu.caps))
            assert row.accuracy.value == pytest.approx(measured.p_Q_B.mean(axis=0) @ row.shares)
            if cost is Cost.GRANTED:
                assert row.granted == pytest.approx(row.budget)
                assert row.uniform_at_same_tokens.value == pytest.approx(row.accuracy.value)
        for row in result.select(cost, "oracle"):
            assert row.gain is not None
            assert row.gain.value >= -1e-9
    best = next(each for each in result.summaries if each.cost is Cost.GRANTED and each.policy == "oracle")
    assert best.gain is not None
    rows = result.select(Cost.GRANTED, "oracle")
    weights = token_weights([row.budget for row in rows])
    assert best.gain.value == pytest.approx(weights @ [row.gain.value for row in rows if row.gain is not None])
    assert best.gain.low > 0.0


@pytest.mark.slow
def test_the_report_headlines_levels_with_a_choice(result: Evaluation) -> None:
    page = report.page(result)
    at = [part.title for part in page.parts if part.title.endswith("tokens per question")]
    ends = {f"{level:g}" for levels in result.levels.values() for level in (levels[0], levels[-1])}
    assert at
    assert not {title.split()[0] for title in at} & ends
    for text in (page.text(), page.markdown()):
        assert "weighted by tokens" in text
        assert "nan" not in text


def test_one_cap_has_one_level_and_no_mean() -> None:
    text = report.page(evaluate(*made_up("64", num_queries=20), num_resamples=100)).markdown()
    assert "At the only level, 64 tokens: forethought 0.0" in text
    assert "1 levels" not in text


@pytest.mark.slow
def test_caps_far_beyond_the_thoughts_leave_a_choice_in_the_headline() -> None:
    """Where thoughts end after 1/20 of the largest cap, 1/5 of it costs under spent cost what the largest does."""
    measured, predicted, mean = made_up("16:3200:16", num_queries=20)
    tokens_Q_B = np.minimum(measured.menu.budgets_B, 160.0) + np.zeros((20, 1))
    found = evaluate(
        replace(measured, tokens_Q_B=tokens_Q_B, reasoning_Q_B=tokens_Q_B),
        replace(predicted, tokens_Q_B=tokens_Q_B),
        replace(mean, tokens_Q_B=tokens_Q_B[:1]),
        num_resamples=100,
    )
    spent = found.levels[Cost.SPENT]
    assert spent[0] < found.headline[Cost.SPENT] < 0.95 * spent[-1]
    dearest = found.levels[Cost.GRANTED][-1]
    assert levels_near(found, dearest)[Cost.SPENT] == found.levels[Cost.SPENT][-1]
