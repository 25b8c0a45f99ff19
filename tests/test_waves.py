"""When to stop drawing samples for a vote: published rules, waves at the price of a token, and their replays."""

import json
import math
from dataclasses import astuple, replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

pytest.importorskip("votes_replay", reason="the published rules are in benchmarks/, which is not here")

from forethought.control.waves import Drawing, WavePolicy, choose, plan_options, price_for, start
from forethought.core.codec import UnfitError, encode
from forethought.core.stopping import Standing
from forethought.core.votes import tally
from forethought.errors import InvalidInputError
from forethought.evaluation.vote_replay import FrozenDraws
from forethought.predictors.parts.wave_table import DEAREST, PRICES, WaveTable, learn_waves
from votes_blending import blend_asc
from votes_frontiers import PricedRule, choose_settings, compare_rules
from votes_replay import replay, replayed, standing_at
from votes_stopping import AdaptiveConsistency, EarlyStopping, FixedSamples, Shown, lead_certainty

MOST = 6
GROUPS = st.lists(st.integers(-1, 3), min_size=1, max_size=10)


def simulated(num_queries, num_samples, seed, *, num_orders=12):
    """Draws of questions whose chances of a right answer differ, and noisy predictions of these chances."""
    random = np.random.default_rng(seed)
    odds_Q = random.normal(scale=1.5, size=num_queries)
    right_Q = 1.0 / (1.0 + np.exp(-odds_Q))
    wrong_Q_W = random.dirichlet([0.6] * 5, size=num_queries) * (1.0 - right_Q)[:, None]
    chance_Q_G = np.concatenate([right_Q[:, None], wrong_Q_W], axis=1)
    drawn_Q_T = random.random((num_queries, num_samples))
    group_Q_T = (drawn_Q_T[:, :, None] > chance_Q_G.cumsum(axis=1)[:, None, :-1]).sum(axis=2)
    group_Q_T[random.random(group_Q_T.shape) < 0.05] = -1
    tokens_Q_T = random.integers(40, 160, group_Q_T.shape).astype(float)
    predicted_Q = 1.0 / (1.0 + np.exp(-odds_Q - random.normal(scale=0.8, size=num_queries)))
    return FrozenDraws.shuffled(group_Q_T, tokens_Q_T, num_orders=num_orders, seed=seed), predicted_Q


@pytest.fixture(scope="module")
def trained():
    draws, predicted_Q = simulated(300, MOST, 1)
    return learn_waves(draws, predicted_Q)


@pytest.fixture(scope="module")
def policy(trained):
    return WavePolicy.of(trained)


class TestStanding:
    @pytest.mark.parametrize(
        ("groups", "expected"),
        [
            pytest.param([], (0, 0, 0, 0), id="nothing yet"),
            pytest.param([2], (1, 1, 0, 1), id="one"),
            pytest.param([-1, -1], (2, 0, 0, 0), id="all abstain"),
            pytest.param([0, 1], (2, 1, 1, 1), id="a tie"),
            pytest.param([0, 1, 1, 1, 0, 0], (6, 3, 3, 2), id="a tie of three"),
            pytest.param([1, 1, -1, 1], (4, 3, 0, 1), id="an abstention ends a streak"),
            pytest.param([0, 1, 2, 2], (4, 2, 1, 2), id="two share the second place"),
        ],
    )
    def test_of(self, groups, expected):
        found = Shown.of(groups)
        assert (found.num_drawn, found.top, found.second, found.streak) == expected

    @given(st.lists(GROUPS, min_size=1, max_size=4))
    def test_replay_counts_alike(self, queries):
        shortest = min(map(len, queries))
        group_Q_T = np.array([groups[:shortest] for groups in queries])
        draws = FrozenDraws.shuffled(group_Q_T, np.ones(group_Q_T.shape), num_orders=3, seed=0)
        for number in range(shortest + 1):
            every = standing_at(draws, np.full(draws.order_Q_R_N.shape[:2], number))
            for (query, order), _ in np.ndenumerate(every.top):
                found = Shown.of(group_Q_T[query, draws.order_Q_R_N[query, order]].tolist()[:number])
                assert [values[query, order] for values in astuple(every)] == list(astuple(found))


class TestVotes:
    @pytest.mark.parametrize(
        ("groups", "right"),
        [
            pytest.param([0], 1.0, id="right"),
            pytest.param([-1, 3], 0.0, id="an unreadable answer abstains"),
            pytest.param([-1, -1, 0], 1.0, id="two abstentions outvote nobody"),
            pytest.param([-1, -1], 0.0, id="no vote is not right"),
            pytest.param([0, 1], 0.5, id="a tie is shared"),
            pytest.param([0, 1, 2], 1 / 3, id="by three"),
            pytest.param([1, 2, 0, 1], 0.0, id="outvoted"),
        ],
    )
    def test_ties_are_shared_and_the_unreadable_abstain(self, groups, right):
        draws = FrozenDraws.shuffled(np.array([groups]), np.ones((1, len(groups))), num_orders=4, seed=0)
        assert replay(draws, FixedSamples(len(groups))).right_Q == pytest.approx([right])

    @given(GROUPS)
    def test_the_vote_does_not_depend_on_the_order_of_samples(self, groups):
        draws = FrozenDraws.shuffled(np.array([groups]), np.ones((1, len(groups))), num_orders=5, seed=0)
        assert np.ptp(draws.right_Q_R_N[0, :, -1]) == 0.0
        for name in ("top", "second"):
            assert np.ptp(getattr(draws.standing_Q_R_N, name)[0, :, -1]) == 0

    @given(st.lists(st.tuples(st.integers(-1, 3), st.sampled_from([0.0, 0.2, 0.5, 0.9, None])), min_size=1, max_size=8))
    def test_weighed_votes_are_those_of_a_tally(self, votes):
        groups, weights = map(list, zip(*votes, strict=True))
        weight_Q_T = np.array([[math.nan if weight is None else weight for weight in weights]])
        draws = FrozenDraws.shuffled(
            np.array([groups]), np.ones((1, len(groups))), num_orders=3, seed=0, weight_Q_T=weight_Q_T
        )
        found = draws.select(np.array([0, 0])).right_Q_R_N
        for order, shown in enumerate(draws.order_Q_R_N[0].tolist()):
            for number in range(len(groups) + 1):
                so_far = [weights[place] for place in shown[:number]]
                vote = tally([groups[place] for place in shown[:number]], None if None in so_far else so_far)
                assert found[1, order, number] == pytest.approx((0 in vote.winners) / max(1, len(vote.winners)))

    @given(GROUPS, st.floats(0.01, 1.0))
    def test_votes_that_weigh_the_same_are_votes_of_one_weight(self, groups, weight):
        group_Q_T = np.array([groups])
        each = [
            FrozenDraws.shuffled(group_Q_T, np.ones(group_Q_T.shape), num_orders=3, seed=0, weight_Q_T=weight_Q_T)
            for weight_Q_T in (None, np.full(group_Q_T.shape, weight))
        ]
        assert np.array_equal(each[0].right_Q_R_N, each[1].right_Q_R_N)

    def test_one_sample_is_right_as_often_as_a_sample(self):
        group_Q_T = np.array([[0, 0, 1, -1]])
        orders = np.array([list(permutations(range(4)))])
        draws = FrozenDraws(group_Q_T, np.array([[10.0, 20.0, 30.0, 40.0]]), orders)
        found = replay(draws, FixedSamples(1))
        assert found.right_Q == pytest.approx([0.5])
        assert found.tokens_Q == pytest.approx([25.0])

    def test_refuses_what_does_not_belong_together(self):
        with pytest.raises(InvalidInputError, match="same queries"):
            FrozenDraws(np.zeros((2, 3), int), np.ones((2, 4)), np.zeros((2, 1, 3), int))
        with pytest.raises(InvalidInputError, match="same queries"):
            FrozenDraws(np.zeros((2, 3), int), np.ones((2, 3)), np.zeros((2, 1, 3), int), np.ones((2, 4)))


class TestPublishedRules:
    def test_certainty_is_the_tail_of_a_beta(self):
        certain = lead_certainty(9)
        for top in range(10):
            for second in range(10):
                assert certain[top, second] == pytest.approx(stats.beta.sf(0.5, top + 1, second + 1))

    @pytest.mark.parametrize(
        ("groups", "more"),
        [
            pytest.param([], 1, id="one is always drawn"),
            pytest.param([0, 0, 0], 1, id="three alike: 0.9375"),
            pytest.param([0, 0, 0, 0], 0, id="four alike: 0.96875"),
            pytest.param([0, 0, 0, 0, 1], 1, id="four to one"),
            pytest.param([-1, -1], 1, id="abstentions say nothing"),
            pytest.param([0, 1] * 4, 0, id="the most"),
        ],
    )
    def test_adaptive_consistency(self, groups, more):
        assert AdaptiveConsistency(8).draw(Standing.of(groups)) == more

    @pytest.mark.parametrize(
        ("groups", "more"),
        [
            pytest.param([], 3, id="the first window"),
            pytest.param([1, 1, 1], 0, id="it agrees"),
            pytest.param([1, 1, 0], 3, id="it does not"),
            pytest.param([1, 1, -1], 3, id="it holds an unreadable answer"),
            pytest.param([1, 1, 0, 0, 0, 0], 0, id="the second agrees"),
            pytest.param([1, 0, 0, 0, 0, 1], 2, id="windows do not overlap, and the last one is shorter"),
        ],
    )
    def test_early_stopping(self, groups, more):
        assert EarlyStopping(8, 3).draw(Shown.of(groups)) == more

    @pytest.mark.parametrize("mean", [1.0, 1.5, 3.0, 5.99, 6.0])
    def test_blend_spends_its_total_and_no_more(self, mean):
        draws, _ = simulated(40, MOST, 3)
        found = blend_asc(draws, mean, most=MOST)
        assert found.samples_Q.sum() == pytest.approx(round(mean * 40))
        assert found.samples_Q.min() >= 1
        assert found.samples_Q.max() <= MOST

    def test_blend_draws_where_answers_differ(self):
        alike, apart = [0] * MOST, [0, 1, 0, 1, 0, 1]
        group_Q_T = np.array([alike, apart] * 10)
        draws = FrozenDraws.shuffled(group_Q_T, np.ones(group_Q_T.shape), num_orders=8, seed=0)
        samples_Q = blend_asc(draws, 3.0, most=MOST).samples_Q
        assert samples_Q[1::2].mean() > samples_Q[::2].mean() + 1.0


class Priced:
    """A policy at one price of a sample."""

    def __init__(self, policy, price, predicted=0.5):
        self.policy, self.price, self.predicted, self.most = policy, price, predicted, policy.table.most

    def draw(self, standing):
        return self.policy.draw(standing, price=self.price, predicted=self.predicted)


A_PRICE = st.floats(1e-6, 1.0)


class TestWaves:
    @given(GROUPS.map(lambda groups: groups[:MOST]), A_PRICE, A_PRICE, st.floats(0.0, 1.0))
    def test_a_higher_price_never_draws_more(self, policy, groups, one, other, predicted):
        standing, (low, high) = Standing.of(groups), sorted((one, other))
        cheap = policy.draw(standing, price=low, predicted=predicted)
        dear = policy.draw(standing, price=high, predicted=predicted)
        assert dear <= cheap
        draws = FrozenDraws.shuffled(np.array([groups]), np.ones((1, len(groups))), num_orders=1, seed=0)
        if len(groups) == MOST:
            samples = [replay(draws, Priced(policy, price, predicted)).samples_Q[0] for price in (low, high)]
            assert samples[1] <= samples[0]

    @given(st.integers(0, 1000), st.sampled_from(["fixed", "adaptive", "windows", "waves"]), A_PRICE)
    @settings(max_examples=30)
    def test_no_rule_passes_its_most(self, policy, seed, name, price):
        draws, _ = simulated(5, MOST, seed, num_orders=2)
        rule = {
            "fixed": FixedSamples(MOST),
            "adaptive": AdaptiveConsistency(MOST, 1.0 - price / 2),
            "windows": EarlyStopping(MOST, 4),
            "waves": Priced(policy, price),
        }[name]
        samples_Q = replay(draws, rule).samples_Q
        assert samples_Q.min() >= 1
        assert samples_Q.max() <= rule.most

    @given(st.floats(1.0, 8.0), st.floats(1.0, 8.0), st.integers(0, 100))
    @settings(max_examples=25, deadline=None)
    def test_a_larger_total_never_expects_less_and_no_total_is_passed(self, policy, one, other, seed):
        random = np.random.default_rng(seed)
        tokens_Q_O = np.sort(random.uniform(20.0, 200.0, (12, 2)), axis=1)
        right_Q_O_K = np.sort(random.random((12, 2, MOST)), axis=2)
        order_Q, expected = random.permutation(12), []
        for mean in sorted((one, other)):
            total = mean * tokens_Q_O[:, 0].sum() * 1.01
            option_Q, right_Q, spent_Q, price = plan_options(total, [policy] * 2, right_Q_O_K, tokens_Q_O, order_Q)
            assert price < math.inf
            assert spent_Q.sum() <= total * (1 + 1e-9)
            assert (spent_Q >= tokens_Q_O[np.arange(12), option_Q] * (1 - 1e-9)).all()
            expected.append(right_Q)
        assert (expected[1] >= expected[0]).all()

    def test_each_query_has_the_option_of_the_plan(self, policy):
        right_Q_O_K = np.array([[[0.2, 0.3], [0.6, 0.7]], [[0.5, 0.6], [0.5, 0.61]]])
        tokens_Q_O = np.array([[50.0, 100.0]] * 2)
        assert choose(right_Q_O_K, tokens_Q_O, 1e-3).tolist() == [1, 0]
        assert choose(right_Q_O_K, tokens_Q_O, 1e-6).tolist() == [1, 1]
        option_Q, *_, price = plan_options(500.0, [policy, policy], right_Q_O_K, tokens_Q_O, np.arange(2))
        assert 0.0 < price < math.inf
        assert option_Q.tolist() == [1, 0]
        assert math.isinf(plan_options(99.0, [policy, policy], right_Q_O_K, tokens_Q_O, np.arange(2))[-1])

    def test_what_is_not_drawn_lowers_the_price_for_the_rest(self, policy):
        tokens_Q, predicted_Q = np.full(8, 100.0), np.full(8, 0.5)
        total = 2.5 * tokens_Q.sum()
        first = price_for(total, [Drawing(policy, start((8,)), tokens_Q, predicted_Q)])
        agreed = Standing(*(np.full(8, each) for each in (2, 2, 0)))
        again = price_for(total - 2 * tokens_Q.sum(), [Drawing(policy, agreed, tokens_Q, predicted_Q)])
        assert again <= first

    @pytest.mark.parametrize("mean", [1.5, 2.0, 3.0])
    def test_a_batch_that_is_planned_again_after_each_wave_ends_near_its_total(self, policy, mean):
        draws, predicted_Q = simulated(400, MOST, 9, num_orders=1)
        tokens_Q, num_Q = draws.tokens_Q_T.mean(axis=1), np.zeros((400, 1), int)
        total = mean * tokens_Q.sum()
        for _ in range(MOST):
            standing = Standing(*(values[:, 0] for values in astuple(standing_at(draws, num_Q))[:3]))
            spent = np.take_along_axis(draws.spent_Q_R_N, num_Q[:, :, None], axis=2).sum()
            drawing = Drawing(policy, standing, tokens_Q, predicted_Q)
            num_Q = num_Q + drawing.decide(price_for(total - spent, [drawing]))[:, None]
        found = replayed(draws, num_Q)
        assert found.tokens_Q.sum() == pytest.approx(total, rel=0.05)
        fixed = [replay(draws, FixedSamples(number)) for number in range(1, MOST)]
        spent, right = [each.tokens_Q.mean() for each in fixed], [each.right_Q.mean() for each in fixed]
        assert found.right_Q.mean() > np.interp(found.tokens_Q.mean(), spent, right)

    def test_a_total_that_is_too_small_stops_after_the_first_wave(self, policy):
        tokens_Q, predicted_Q = np.full(3, 100.0), np.full(3, 0.5)
        drawing = Drawing(policy, start((3,)), tokens_Q, predicted_Q)
        price = price_for(299.0, [drawing])
        assert math.isinf(price)
        assert drawing.decide(price).tolist() == [1, 1, 1]
        split = Standing(*(np.full(3, each) for each in (2, 1, 1)))
        assert not Drawing(policy, split, tokens_Q, predicted_Q).decide(price).any()

    def test_waves_end_where_the_table_says(self, trained):
        pairs = WavePolicy.of(replace(trained, points=(2, 4, 6)))
        assert pairs.draw(Standing.of([]), price=1e-5, predicted=0.5) == 2
        assert pairs.draw(Standing.of([0, 1]), price=1e-5, predicted=0.5) == 2
        assert pairs.draw(Standing.of([0, 1, 2]), price=1e-5, predicted=0.5) == 1  # one of the wave has failed
        assert pairs.draw(Standing.of([0, 1] * 3), price=1e-5, predicted=0.5) == 0

    def test_predicted_values_come_true_on_new_questions(self, policy):
        draws, predicted_Q = simulated(400, MOST, 2)
        for price in (0.005, 0.02, 0.05):
            right_Q, samples_Q = policy.expected(price=price, predicted=predicted_Q)
            found = replay(draws, Priced(policy, price, predicted_Q[:, None]))
            assert found.right_Q.mean() == pytest.approx(right_Q.mean(), abs=0.06)  # three standard errors
            assert found.samples_Q.mean() == pytest.approx(samples_Q.mean(), abs=0.35)

    def test_they_save_samples_against_a_fixed_number(self, policy):
        draws, predicted_Q = simulated(400, MOST, 2)
        fixed = replay(draws, FixedSamples(MOST))
        found = replay(draws, Priced(policy, 0.003, predicted_Q[:, None]))
        assert found.right_Q.mean() > fixed.right_Q.mean() - 0.005
        assert found.tokens_Q.mean() < 0.85 * fixed.tokens_Q.mean()

    def test_a_table_is_readable_and_comes_back(self, trained):
        kept = json.loads(json.dumps(encode(trained)))
        assert [kept["states"][2][name] for name in ("drawn", "top", "second")] == [1, 1, 0]
        assert WaveTable.from_json(kept) == trained
        assert {price for state in trained.states for price in state.worth} <= {0.0, DEAREST, *PRICES}

    @pytest.mark.parametrize(
        ("change", "problem"),
        [
            pytest.param(lambda kept: kept["states"].pop(), "every state", id="a state is missing"),
            pytest.param(lambda kept: kept.update(edges=[0.5, 0.4]), "ascend", id="edges"),
            pytest.param(lambda kept: kept["states"][2].update(right=[0.5]), "numbers each", id="a bin is missing"),
            pytest.param(lambda kept: kept["ends"].pop(), "same prices", id="a price is missing"),
            pytest.param(lambda kept: kept["states"][2]["leads"].__setitem__(0, 1.5), "chances", id="no chance"),
        ],
    )
    def test_a_damaged_table_is_refused(self, trained, change, problem):
        kept = json.loads(json.dumps(encode(trained)))
        change(kept)
        with pytest.raises(UnfitError, match=problem):
            WaveTable.from_json(kept)

    def test_predictions_that_say_nothing_get_no_bins(self):
        draws, _ = simulated(300, MOST, 5)
        assert learn_waves(draws, np.random.default_rng(0).random(300)).num_bins <= 2
        assert learn_waves(draws).num_bins == 1

    def test_too_few_questions_or_samples_are_refused(self):
        draws, _ = simulated(1, 3, 0)
        with pytest.raises(InvalidInputError, match="two questions"):
            learn_waves(draws)


class TestComparison:
    def test_a_rule_gains_nothing_over_itself(self):
        draws, _ = simulated(30, MOST, 7)
        settings_N = [replay(draws, FixedSamples(number)) for number in range(1, MOST + 1)]
        choice = choose_settings(
            np.array([[each.right_Q.mean() for each in settings_N]]),
            np.array([[each.tokens_Q.mean() for each in settings_N]]),
            np.geomspace(1e-6, 1e-2, 9),
        )
        rules = [PricedRule.of(name, settings_N, choice) for name in ("uniform", "waves")]
        found = compare_rules(rules, [120.0, 300.0], ours="waves", num_resamples=50)
        assert all(row.gain.value == row.gain.high == 0.0 for row in found.rows if row.rule == "waves")
        assert found.means[0].gain.value == 0.0
        assert json.loads(json.dumps(found.to_json()))["rows"][0]["rule"] == "uniform"

    def test_parts_are_joined_in_the_order_of_their_queries(self):
        draws, _ = simulated(6, MOST, 8)
        whole = PricedRule.of("uniform", [replay(draws, FixedSamples(2))], np.zeros((1, 2), int))
        parts = []
        for rows in (np.array([4, 1]), np.array([0, 2, 3, 5])):
            part = draws.select(rows)
            parts.append((rows, PricedRule.of("uniform", [replay(part, FixedSamples(2))], np.zeros((1, 2), int))))
        assert np.array_equal(PricedRule.joined(parts).right_Q_P, whole.right_Q_P)

    def test_a_dearer_token_buys_fewer_samples(self):
        right, tokens = np.array([[0.4, 0.5, 0.55]]), np.array([[100.0, 200.0, 300.0]])
        assert choose_settings(right, tokens, np.array([0.0, 6e-4, 2e-3])).tolist() == [[2, 1, 0]]
