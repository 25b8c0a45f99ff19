"""Used against predicted tokens: rare false alarms, alarms where thoughts are longer, and curves that fit again."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forethought.core.data import Curves
from forethought.core.menu import Menu
from forethought.predictors.card import PredictorCard
from forethought.predictors.training import train
from forethought.predictors.usage import (
    LEVEL,
    Usage,
    UsageTest,
    spent_within,
    stretch_of,
    stretched,
    stretched_tokens,
    tolerance_for,
)
from test_training import make_profile

MENU = Menu.evenly(16, 256)
BUDGET_B = MENU.budgets_B.astype(np.float64)
NUM_STREAMS = 1000


def spend(median: float | np.ndarray, *, spread: float = 0.25, answer: float = 20.0) -> np.ndarray:
    """E[min(N, b)] + answer at each budget, N log-logistic as the fake engine's lengths; shape (Q, B)."""
    steps = np.arange(1, MENU.largest + 1)
    over_Q_N = 1.0 - 1.0 / (1.0 + (np.maximum(steps - 1, 1e-9) / np.atleast_1d(median)[:, None]) ** (-1.0 / spread))
    return np.cumsum(over_Q_N, axis=1)[:, MENU.budgets_B - 1] + answer


def stream(random: np.random.Generator, num: int, *, longer: float = 1.0, noise: float = 0.3) -> np.ndarray:
    """`(used, predicted)` of `num` answers: predictions miss each query by `noise`, and are right on average."""
    true_Q = random.uniform(30, 120, num)
    cap_Q = random.integers(2, 16, num) * 16.0
    u_Q = random.uniform(0.001, 0.999, num)
    used_Q = np.minimum(longer * true_Q * (u_Q / (1 - u_Q)) ** 0.25, cap_Q) + 20.0
    mean_Q = spend(true_Q)[np.arange(num), (cap_Q / 16 - 1).astype(int)]
    return np.stack([used_Q, mean_Q * np.exp(noise * random.standard_normal(num) - noise**2 / 2)], axis=1)


def alarms_at(pairs: np.ndarray, tolerance: float) -> int | None:
    """How many answers it takes to an alarm; None for none."""
    test = UsageTest(tolerance, 100.0)
    for number, (used, predicted) in enumerate(pairs, start=1):
        test.see(used=used, predicted=predicted)
        if test.is_alarm:
            return number
    return None


class TestSequentialTest:
    @pytest.mark.slow
    @pytest.mark.parametrize("edge", [-1, 0, 1], ids=["at the lower edge", "exact", "at the upper edge"])
    def test_false_alarms_are_as_rare_as_promised_though_one_looks_at_every_answer(self, edge: int) -> None:
        """Ratios of 0 or 2 alone, the widest that there are, with the mean on the edge of what is tolerated."""
        tolerance, num_alarms = 0.1, 0
        for seed in range(NUM_STREAMS):
            used_N = 200.0 * (np.random.default_rng(seed).random(120) < 0.5 * (1.0 + edge * tolerance))
            test = UsageTest(tolerance, 100.0)
            for used in used_N:
                test.see(used=used, predicted=100.0)
            num_alarms += test.is_alarm
        assert num_alarms <= LEVEL * NUM_STREAMS + 3.0 * math.sqrt(LEVEL * NUM_STREAMS)

    @pytest.mark.slow
    def test_predictions_that_are_right_on_average_raise_no_alarm(self) -> None:
        found = [alarms_at(stream(np.random.default_rng(seed), 200), tolerance_for(400)) for seed in range(200)]
        assert sum(each is not None for each in found) <= 2 + 3.0 * math.sqrt(2)

    @pytest.mark.slow
    @pytest.mark.parametrize(("longer", "most"), [(1.5, 150), (2.0, 60), (0.5, 100)])
    def test_longer_and_shorter_thoughts_are_found(self, longer: float, most: int) -> None:
        found = [
            alarms_at(stream(np.random.default_rng(seed), 400, longer=longer), tolerance_for(400))
            for seed in range(100)
        ]
        assert all(each is not None for each in found)
        assert np.median([each for each in found if each is not None]) <= most

    def test_what_caps_cut_says_nothing(self) -> None:
        """All thoughts are cut, by caps that the predictor knew would cut them."""
        test = UsageTest(0.1, 100.0)
        for _ in range(1000):
            test.see(used=36.0, predicted=36.0)
        assert not test.is_alarm
        assert test.ratio == pytest.approx(1.0)

    @given(
        pairs=st.lists(st.tuples(st.floats(0, 1e6), st.floats(-10, 1e6)), max_size=60),
        tolerance=st.floats(0.01, 0.5),
        scale=st.floats(0, 1e4),
    )
    def test_any_numbers_leave_a_wealth(self, pairs: list[tuple[float, float]], tolerance: float, scale: float) -> None:
        test, before = UsageTest(tolerance, scale), 1.0
        for used, predicted in pairs:
            test.see(used=used, predicted=predicted)
            assert math.isfinite(test.evidence)
            assert test.evidence >= before
            before = test.evidence

    def test_few_training_queries_leave_more_open(self) -> None:
        assert tolerance_for(64) > tolerance_for(600) > tolerance_for(10**6) >= 0.05
        assert tolerance_for(0) == tolerance_for(1) == 0.5


def curves(num: int = 40, seed: int = 0) -> Curves:
    random = np.random.default_rng(seed)
    p_Q_B = np.sort(random.random((num, MENU.num_options)), axis=1)
    return Curves(tuple(f"q{row}" for row in range(num)), MENU, p_Q_B, spend(random.uniform(20, 150, num)))


class TestStretched:
    def test_thoughts_twice_as_long_do_with_twice_the_budget_what_they_did(self) -> None:
        first, twice = curves(), stretched(curves(), 2.0)
        assert first.tokens_Q_B is not None
        assert twice.tokens_Q_B is not None
        np.testing.assert_allclose(twice.p_Q_B[:, 1::2], first.p_Q_B[:, :8])
        np.testing.assert_allclose(twice.tokens_Q_B[:, 1::2], 2.0 * first.tokens_Q_B[:, :8])

    def test_no_stretch_changes_nothing(self) -> None:
        first = curves()
        assert stretched(first, 1.0) is first
        bare = dataclasses.replace(first, tokens_Q_B=None)
        assert stretched(bare, 2.0) is bare

    @given(factor=st.floats(0.25, 4.0), seed=st.integers(0, 99))
    def test_curves_stay_curves(self, factor: float, seed: int) -> None:
        found = stretched(curves(5, seed), factor)
        assert found.tokens_Q_B is not None
        assert (np.diff(found.tokens_Q_B, axis=1) >= 0.0).all()
        assert (np.diff(found.p_Q_B, axis=1) >= -1e-12).all()
        assert ((found.p_Q_B >= 0.0) & (found.p_Q_B <= 1.0)).all()

    @settings(max_examples=50)
    @given(factor=st.floats(0.4, 2.5), seed=st.integers(0, 99))
    def test_the_stretch_is_found_again(self, factor: float, seed: int) -> None:
        first = curves(30, seed)
        assert first.tokens_Q_B is not None
        column_Q = np.random.default_rng(seed).integers(6, 16, 30)
        used = stretched_tokens(first.tokens_Q_B, MENU, factor)[np.arange(30), column_Q].sum()
        assert stretch_of(first.tokens_Q_B, MENU, column_Q, float(used)) == pytest.approx(factor, rel=0.01)

    def test_it_is_bounded(self) -> None:
        tokens_Q_B, column_Q = spend(np.full(5, 50.0)), np.full(5, 15)
        assert stretch_of(tokens_Q_B, MENU, column_Q, 1e9) == pytest.approx(4.0)
        assert stretch_of(tokens_Q_B, MENU, column_Q, 0.0) == pytest.approx(0.25)


@pytest.fixture(scope="module")
def card() -> PredictorCard:
    made = train(make_profile(), predictor="mean").card
    data = dataclasses.replace(made.data, num_queries=400)
    mean_tokens_B = tuple(spend(70.0)[0].tolist())
    return dataclasses.replace(made, menu=Menu.evenly(16, 256), mean_tokens_B=mean_tokens_B, data=data)


class TestUsage:
    def fed(self, usage: Usage, num: int, *, longer: float = 1.0, seed: int = 0, decide: int = 64) -> None:
        random = np.random.default_rng(seed)
        for number in range(1, num + 1):
            true, u, column = random.uniform(40, 100), random.uniform(0.01, 0.99), int(random.integers(6, 16))
            used = min(longer * true * (u / (1 - u)) ** 0.25, BUDGET_B[column]) + 20.0
            usage.see(spend(true)[0], column, used)
            if number % decide == 0:
                usage.recentre()

    def test_what_was_predicted_is_left_alone(self, card: PredictorCard) -> None:
        usage = Usage(card)
        self.fed(usage, 600)
        assert (usage.num_alarms, usage.stretch) == (0, 1.0)
        assert usage.to_json()["ratio"] == pytest.approx(1.0, abs=0.05)

    @pytest.mark.parametrize("longer", [0.6, 1.6])
    def test_longer_thoughts_stretch_the_curves_and_then_all_is_quiet(self, card: PredictorCard, longer: float) -> None:
        usage = Usage(card)
        self.fed(usage, 600, longer=longer)
        assert usage.num_alarms == 1
        assert usage.stretch == pytest.approx(longer, rel=0.15)
        assert usage.to_json()["ratio"] == pytest.approx(1.0, abs=0.12)

    def test_a_late_change_is_found_where_there_is_a_window(self, card: PredictorCard) -> None:
        usage = Usage(card, window=256)
        self.fed(usage, 3000)
        assert usage.num_alarms == 0
        self.fed(usage, 600, longer=1.6, seed=1)
        assert usage.stretch == pytest.approx(1.6, rel=0.2)

    def test_it_decides_when_it_is_asked_and_only_then(self, card: PredictorCard) -> None:
        usage = Usage(card)
        self.fed(usage, 300, longer=2.0, decide=301)
        assert usage.stretch == 1.0
        assert usage.recentre()
        assert usage.stretch > 1.4
        assert not usage.recentre()

    def test_a_predictor_that_knows_nothing_of_tokens_can_still_be_asked(self, card: PredictorCard) -> None:
        usage = Usage(dataclasses.replace(card, mean_tokens_B=None))
        assert not usage.recentre()
        assert usage.to_json()["ratio"] is None


@pytest.mark.parametrize("cap", [32, 96, 256])
def test_nineteen_of_twenty_runs_stay_below_what_was_told(cap: int) -> None:
    random = np.random.default_rng(3)
    median_Q = random.uniform(40.0, 160.0, 200)
    curves = Curves(tuple(map(str, range(200))), MENU, np.full((200, 16), 0.5), spend(median_Q))
    within = spent_within(curves, np.full(200, cap))
    uniform_N_Q = random.uniform(size=(400, 200))
    length_N_Q = np.ceil(median_Q * (uniform_N_Q / (1.0 - uniform_N_Q)) ** 0.25)
    used_N = (np.minimum(length_N_Q, cap) + 20.0).sum(axis=1)
    assert within is not None
    assert (used_N <= within).mean() >= 0.95
    expected = curves.tokens_Q_B[:, MENU.index(cap)].sum()
    assert expected < within <= 1.08 * expected


def test_nothing_is_told_where_no_usage_is_known() -> None:
    assert spent_within(Curves(("q",), MENU, np.full((1, 16), 0.5), None), np.array([16])) is None
