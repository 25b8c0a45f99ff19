"""Predictions are shrunk to the mean curve by what left-out queries show: never below blind, nothing good lost."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forethought.allocators import allocate
from forethought.commands.tables import training_text
from forethought.core.data import Cost, Curves
from forethought.core.features import Counts, Features, HeldOut
from forethought.core.menu import Menu
from forethought.core.profile import Profile
from forethought.core.provenance import Provenance
from forethought.core.terms import TOKEN_COSTS
from forethought.errors import ModelFileError
from forethought.predictors.predictor import Predictor
from forethought.predictors.shrinkage import LeftOut, Shrinkage
from forethought.predictors.training import cross_fit, train

MENU = Menu.evenly(16, 64)
MEAN_B = np.array([0.2, 0.35, 0.5, 0.55])


def measured(num_queries: int, *, seed: int = 0, num_traces: int = 1, signal: float = 0.0, width: int = 12) -> Profile:
    """Curves that differ a lot from query to query; hidden states tell of them by `signal`, 0 for not at all."""
    random = np.random.default_rng(seed)
    ease_Q_1 = 1.5 * random.standard_normal((num_queries, 1))
    p_Q_B = 1 / (1 + np.exp(-ease_Q_1 - np.array([-2.5, -0.3, 0.3, 0.5])))  # concave: an even split is best
    hidden_Q_L_D = random.standard_normal((num_queries, 1, width))
    hidden_Q_L_D[:, 0, :2] += signal * ease_Q_1
    tokens_Q_B = np.minimum([16, 32, 48, 64], np.clip(40 - 10 * ease_Q_1, 3, 80)) + 9
    return Profile(
        query_ids=tuple(f"s{seed}q{row}" for row in range(num_queries)),
        menu=MENU,
        num_right_Q_B=(random.random((num_queries, num_traces, 1)) < p_Q_B[:, None]).sum(axis=1),
        num_tried_Q=np.full(num_queries, num_traces),
        tokens_Q_B=tokens_Q_B,
        reasoning_Q_B=tokens_Q_B - 9,
        hidden_Q_L_D=hidden_Q_L_D.astype(np.float16),
        layers=(0,),
        provenance=Provenance.from_json({"model": "tiny"}),
    )


def predict(trained: Predictor, profile: Profile) -> Curves:
    return trained.predict(profile.query_ids, Features.of(profile, 0))


def lead_over_blind(curves: Curves, mean: Curves, truth: Profile) -> float:
    """Points of accuracy over the same allocator on the mean curve, mean over a few granted totals."""
    rows, gains = np.arange(truth.num_queries), []
    for level in (24, 32, 40, 48):
        ours, blind = (
            allocate("envelope", each, total=level * truth.num_queries, cost=Cost.GRANTED) for each in (curves, mean)
        )
        assert ours.granted <= level * truth.num_queries
        right = [truth.curves.p_Q_B[rows, plan.budget_Q // 16 - 1].mean() for plan in (ours, blind)]
        gains.append(100 * (right[0] - right[1]))
    return float(np.mean(gains))


@pytest.mark.parametrize(
    ("share", "noise", "low", "high"),
    [
        pytest.param(1.0, 0.0, 0.95, 1.0, id="true"),
        pytest.param(2.0, 0.0, 0.45, 0.55, id="twice-too-bold"),
        pytest.param(0.5, 0.0, 1.0, 1.0, id="too-timid-is-not-blown-up"),
        pytest.param(1.0, 0.25, 0.2, 0.8, id="half-noise"),
        pytest.param(0.0, 0.25, 0.0, 0.1, id="noise"),
        pytest.param(-1.0, 0.0, 0.0, 0.0, id="the-wrong-way-round"),
        pytest.param(0.0, 0.0, 0.0, 0.0, id="the-mean-curve"),
    ],
)
def test_left_out_deviations_are_kept_as_far_as_they_are_borne_out(
    share: float, noise: float, low: float, high: float
) -> None:
    random = np.random.default_rng(1)
    profile = measured(400, num_traces=4)
    rate_Q_B = profile.curves.p_Q_B
    deviation_Q_B = share * (rate_Q_B - rate_Q_B.mean(axis=0)) + noise * random.standard_normal((400, 1))
    tokens_Q_B = profile.tokens_Q_B.mean(axis=0) + share * (profile.tokens_Q_B - profile.tokens_Q_B.mean(axis=0))
    p_Q_B = rate_Q_B.mean(axis=0) + deviation_Q_B
    held_out = HeldOut(np.arange(400), np.arange(400) % 5, p_Q_B, tokens_Q_B + 40 * noise)
    left = LeftOut.of(Counts.of(profile), held_out)
    if share == noise == 0.0:
        left = dataclasses.replace(left, p_N_B=left.mean_p_N_B, tokens_N_B=left.mean_tokens_N_B)
    found = Shrinkage.fit(left)
    assert low <= found.accuracy <= high
    assert found.usage is not None
    assert 0.0 <= found.usage <= 1.0


def test_mean_curves_beside_left_out_predictions_know_nothing_of_the_fold() -> None:
    profile = measured(10)
    fold_Q = np.arange(10) % 2
    left = LeftOut.of(Counts.of(profile), HeldOut(np.arange(10), fold_Q, profile.curves.p_Q_B, None))
    np.testing.assert_allclose(left.mean_p_N_B[0], profile.num_right_Q_B[fold_Q == 1].mean(axis=0))
    np.testing.assert_allclose(left.mean_p_N_B[1], profile.num_right_Q_B[fold_Q == 0].mean(axis=0))


@settings(deadline=None, max_examples=50)
@given(success=st.floats(0, 1), spend=st.floats(0, 1), seed=st.integers(0, 1000), is_single=st.booleans())
def test_shrunk_curves_lie_between_the_predicted_and_the_mean_curve(
    success: float, spend: float, seed: int, is_single: bool
) -> None:
    random = np.random.default_rng(seed)
    kind = np.float32 if is_single else np.float64
    p_Q_B, mean_B = random.random((9, 4)).astype(kind), MEAN_B.astype(np.float32).astype(np.float64)
    tokens_Q_B = np.sort(80 * random.random((9, 4)), axis=1).astype(kind)
    mean_tokens_B = np.array([20.0, 30.0, 30.0, 40.0])
    shrunk_Q_B, fewer_Q_B = Shrinkage(success, 3.0, spend, 3.0).apply(p_Q_B, tokens_Q_B, mean_B, mean_tokens_B)
    for found, own, mean in ((shrunk_Q_B, p_Q_B, mean_B), (fewer_Q_B, tokens_Q_B, mean_tokens_B)):
        assert (found >= np.minimum(own, mean) - 1e-5).all()
        assert (found <= np.maximum(own, mean) + 1e-5).all()
    assert (np.diff(fewer_Q_B, axis=1) >= 0).all()
    nothing_Q_B, same_Q_B = Shrinkage(0.0, 0.0, 0.0, 0.0).apply(p_Q_B, tokens_Q_B, mean_B, mean_tokens_B)
    assert (nothing_Q_B == mean_B).all()
    assert (same_Q_B == mean_tokens_B).all()
    own_Q_B, own_tokens_Q_B = Shrinkage(1.0, 9.0, 1.0, 9.0).apply(p_Q_B, tokens_Q_B, mean_B, mean_tokens_B)
    assert (own_Q_B == p_Q_B).all()
    assert (own_tokens_Q_B == tokens_Q_B).all()


@pytest.mark.parametrize("cost", list(TOKEN_COSTS))
@pytest.mark.parametrize("mean_B", [MEAN_B, np.array([0.1, 0.1, 0.4, 0.4]), np.array([0.1, 0.2, 0.3, 0.4])])
def test_where_nothing_is_kept_the_plan_is_the_blind_one_ties_and_all(cost: Cost, mean_B: np.ndarray) -> None:
    random, num_queries = np.random.default_rng(1), 37
    mean_tokens_B = np.array([20.0, 31.7, 40.1, 44.4])
    ids = tuple(f"q{row}" for row in range(num_queries))
    predicted = Curves(
        ids, MENU, random.random((num_queries, 4)), np.sort(60 * random.random((num_queries, 4)), axis=1)
    )
    assert predicted.tokens_Q_B is not None
    nothing = Shrinkage(0.0, 0.0, 0.0, 0.0)
    shrunk = Curves(ids, MENU, *nothing.apply(predicted.p_Q_B, predicted.tokens_Q_B, mean_B, mean_tokens_B))
    for level in (20.5, 25, 32, 36.9, 40, 44, 55, 64):
        ours = allocate("envelope", shrunk, total=level * num_queries, cost=cost)
        blind = allocate("blind", shrunk, total=level * num_queries, cost=cost)
        assert (ours.budget_Q == blind.budget_Q).all()


@pytest.mark.slow
def test_on_random_labels_no_draw_in_the_mean_loses_against_blind() -> None:
    """The network of the paper is as bold as any: without shrinkage it loses points on every draw."""
    truth, as_fitted, shrunk = measured(200, seed=999, num_traces=4, width=40), [], []
    for draw in range(12):
        profile = measured(60, seed=draw, width=40)
        trained = train(profile, predictor="paper-mlp", num_folds=3, with_novelty=False)
        unshrunk = dataclasses.replace(trained, card=dataclasses.replace(trained.card, shrinkage=None))
        mean = trained.card.mean_curves(truth.query_ids)
        shrunk.append(lead_over_blind(predict(trained, truth), mean, truth))
        as_fitted.append(lead_over_blind(predict(unshrunk, truth), mean, truth))
    assert np.mean(as_fitted) + 3 * np.std(as_fitted, ddof=1) / np.sqrt(12) < -1.0
    assert np.mean(shrunk) + 2 * np.std(shrunk, ddof=1) / np.sqrt(12) >= 0.0
    assert np.mean(shrunk) > -0.2


def test_what_can_be_learned_is_kept() -> None:
    truth, profile = measured(300, seed=999, num_traces=4, signal=2.0), measured(300, num_traces=4, signal=2.0)
    trained = train(profile, predictor="ridge", with_novelty=False)
    assert trained.card.shrinkage is not None
    assert trained.card.shrinkage.accuracy > 0.95
    assert trained.card.shrinkage.usage is not None
    assert trained.card.shrinkage.usage > 0.95
    unshrunk = dataclasses.replace(trained, card=dataclasses.replace(trained.card, shrinkage=None))
    mean = trained.card.mean_curves(truth.query_ids)
    gain, unshrunk_gain = (lead_over_blind(predict(each, truth), mean, truth) for each in (trained, unshrunk))
    assert gain > 1.0
    assert gain > unshrunk_gain - 0.1


def test_cross_fitted_plans_on_random_labels_do_not_rank_whole_folds() -> None:
    """Folds easy by chance made others look hard: 198 questions of one trace came to 2 points below blind."""
    leads: dict[str, list[float]] = {"mean": [], "ridge": []}
    for draw in range(6):
        profile = measured(60, seed=draw)
        for predictor, found in leads.items():
            predicted, mean = cross_fit(profile, predictor=predictor, num_folds=3)
            found.append(lead_over_blind(predicted, mean, profile))
    assert leads["mean"] == [0.0] * 6
    assert np.mean(leads["ridge"]) > -0.5


@pytest.mark.slow
def test_mlp_learns_shrinkage_from_the_rows_that_its_networks_left_out() -> None:
    options = {"reads": "hidden", "steps": 60, "num_members": 4, "hidden_width": 16}
    known, noise = (
        train(measured(160, num_traces=4, signal=signal), predictor="mlp", options=options, with_novelty=False)
        for signal in (2.0, 0.0)
    )
    assert known.card.shrinkage is not None
    assert noise.card.shrinkage is not None
    assert known.card.shrinkage.accuracy > 0.7
    assert noise.card.shrinkage.accuracy < 0.3
    assert known.card.shrinkage.usage is not None
    assert known.card.shrinkage.usage > 0.9


def test_too_few_queries_to_hold_some_out_get_the_mean_curve() -> None:
    profile = measured(4, num_traces=4, signal=2.0)
    trained = train(profile, predictor="ridge", with_novelty=False)
    assert (predict(trained, profile).p_Q_B == np.asarray(trained.card.mean_p_B)).all()
    assert "there are too few queries" in trained.card.to_markdown()


def test_a_predictor_that_reads_nothing_has_nothing_to_shrink() -> None:
    assert train(measured(40), predictor="mean").card.shrinkage is None


class TestCard:
    def test_says_how_much_is_kept_in_json_in_words_and_on_the_terminal(self, tmp_path: Path) -> None:
        trained = train(measured(60, seed=3), predictor="ridge", with_novelty=False)
        card = dataclasses.replace(trained.card, shrinkage=Shrinkage(0.25, 1.5, 0.0, -0.4))
        trained = dataclasses.replace(trained, card=card)
        folder = trained.save(tmp_path / "predictor")
        kept = json.loads((folder / "predictor.json").read_text())["card"]["shrinkage"]
        assert kept == {"accuracy": 0.25, "accuracy_z": 1.5, "usage": 0.0, "usage_z": -0.4}
        assert Predictor.load(folder).card == card
        words = (folder / "card.md").read_text()
        assert "## Shrinkage" in words
        assert "25%" in words
        assert "1.5 standard errors for accuracy, -0.4 for usage" in words
        assert "weight of accuracy predictions 25%, of usage predictions 0%" in training_text(trained.card, folder)

    def test_a_predictor_no_better_than_the_mean_curve_is_called_so(self, tmp_path: Path) -> None:
        trained = train(measured(60, seed=0), predictor="ridge", with_novelty=False)
        trained = dataclasses.replace(
            trained, card=dataclasses.replace(trained.card, shrinkage=Shrinkage(0.0, -1.0, 1.0, 9.0))
        )
        assert "about as good as blind ones" in training_text(trained.card, tmp_path)

    def test_quality_on_the_card_is_that_of_the_shrunk_curves(self) -> None:
        profile = measured(60)
        quality = train(profile, predictor="paper-mlp", num_folds=3, with_novelty=False).card.calibration
        as_fitted = train(
            profile, predictor="paper-mlp", num_folds=3, with_novelty=False, with_shrinkage=False
        ).card.calibration
        assert quality is not None
        assert as_fitted is not None
        assert as_fitted.log_loss > quality.log_loss + 0.005
        assert quality.log_loss < quality.mean_log_loss + 0.005

    def test_a_predictor_saved_before_predicts_as_it_did(self, tmp_path: Path) -> None:
        profile = measured(60, signal=1.0)
        trained = train(profile, predictor="ridge", with_novelty=False, with_shrinkage=False)
        folder = trained.save(tmp_path / "predictor")
        content = json.loads((folder / "predictor.json").read_text())
        assert content["card"].pop("shrinkage") is None
        (folder / "predictor.json").write_text(json.dumps(content))
        old = Predictor.load(folder)
        assert old.card.shrinkage is None
        assert (predict(old, profile).p_Q_B == predict(trained, profile).p_Q_B).all()
        assert "Shrinkage" not in old.card.to_markdown()

    @pytest.mark.parametrize("share", [-0.1, 1.1, 7])
    def test_a_share_that_is_none_is_refused_with_its_place(self, share: float, tmp_path: Path) -> None:
        trained = train(measured(40), predictor="ridge", num_folds=2, with_novelty=False)
        folder = trained.save(tmp_path / "predictor")
        content = json.loads((folder / "predictor.json").read_text())
        content["card"]["shrinkage"]["accuracy"] = share
        (folder / "predictor.json").write_text(json.dumps(content))
        with pytest.raises(ModelFileError, match=r"shrinkage\.accuracy must be a share between 0 and 1"):
            Predictor.load(folder)
