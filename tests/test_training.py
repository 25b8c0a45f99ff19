"""From a profile to a trained predictor: the layer, honest out-of-fold numbers, the folder, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forethought.core.data import EngineInfo, Query
from forethought.core.features import Features
from forethought.core.menu import Menu
from forethought.core.profile import Profile
from forethought.core.provenance import Provenance
from forethought.errors import (
    InvalidFeaturesError,
    InvalidInputError,
    InvalidSettingsError,
    MismatchError,
    ModelFileError,
    UnknownNameError,
)
from forethought.predictors.card import PredictorCard
from forethought.predictors.parts.folds import assign_folds, hash_order
from forethought.predictors.predictor import Predictor
from forethought.predictors.training import cross_fit, train

INFO = {
    "model": "tiny",
    "model_hash": "aa11",
    "template": "worked",
    "template_hash": "bb22",
    "sampling": {"temperature": 0.6, "top_p": 1.0},
    "name": "made-up",
}
LAYERS = (0, 4, 8)
PLANTED = 4


def examples(number: int) -> settings:
    """So many examples, however slow the machine: a busy one must not fail a property."""
    return settings(max_examples=number, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def make_profile(num_queries: int = 120, *, width: int = 12, seed: int = 0, **changes: Any) -> Profile:
    """Layer 4 says how easy a query is; the others are noise."""
    random = np.random.default_rng(seed)
    hidden_Q_L_D = random.standard_normal((num_queries, len(LAYERS), width)).astype(np.float16)
    ease_Q_1 = hidden_Q_L_D[:, LAYERS.index(PLANTED), :2].sum(axis=1, keepdims=True).astype(np.float64)
    p_Q_B = 1 / (1 + np.exp(-ease_Q_1 - np.linspace(-1, 2, 4)))
    tokens_Q_B = np.minimum([16, 32, 48, 64], np.clip(40 - 10 * ease_Q_1, 3, 80)) + 9
    profile = Profile(
        query_ids=tuple(f"q{row}" for row in range(num_queries)),
        menu=Menu.evenly(16, 64),
        num_right_Q_B=random.binomial(4, p_Q_B),
        num_tried_Q=np.full(num_queries, 4),
        tokens_Q_B=tokens_Q_B,
        reasoning_Q_B=tokens_Q_B - 9,
        hidden_Q_L_D=hidden_Q_L_D,
        layers=LAYERS,
        provenance=Provenance.from_json(INFO),
    )
    return dataclasses.replace(profile, **changes)


@pytest.fixture(scope="module")
def trained() -> Predictor:
    return train(make_profile())


@pytest.fixture
def folder(trained: Predictor, tmp_path: Path) -> Path:
    return trained.save(tmp_path / "predictor")


class TestTrain:
    def test_finds_the_planted_layer_and_says_how(self) -> None:
        card = train(make_profile()).card
        assert card.features.layer == PLANTED
        assert card.cross_validation is not None
        losses = {score.layer: score.log_loss for score in card.cross_validation.layers}
        assert set(losses) == set(LAYERS)
        assert losses[PLANTED] < min(losses[0], losses[8]) - 0.02

    def test_only_the_layers_asked_for_are_considered(self) -> None:
        assert train(make_profile(), layers=[8, 0]).card.features.layer in (0, 8)

    def test_one_layer_is_no_choice(self) -> None:
        card = train(make_profile(), layers=[8]).card
        assert card.features.layer == 8
        assert card.cross_validation is None
        assert "only one choice" in card.to_markdown()

    def test_the_card_says_what_it_was_made_from(self) -> None:
        profile = make_profile()
        card = train(profile, seed=3).card
        assert (card.model, card.model_hash, card.template, card.template_hash) == ("tiny", "aa11", "worked", "bb22")
        assert card.menu == profile.menu
        assert card.seed == 3
        assert (card.features.kind, card.features.width, card.features.pooling) == ("hidden", 12, "last")
        assert (card.data.name, card.data.num_queries, card.data.num_traces) == ("made-up", 120, 480)
        np.testing.assert_allclose(card.mean_p_B, profile.num_right_Q_B.sum(axis=0) / 480, rtol=1e-6)
        np.testing.assert_allclose(card.mean_tokens_B, profile.tokens_Q_B.mean(axis=0), rtol=1e-6)
        assert card.sampling is not None
        assert card.sampling.temperature == 0.6

    def test_held_out_quality_stands_beside_the_mean_curve(self) -> None:
        quality = train(make_profile()).card.calibration
        assert quality is not None
        assert quality.log_loss < quality.mean_log_loss - 0.02
        assert quality.brier < quality.mean_brier
        assert len(quality.correlation_B) == 4
        assert min(quality.correlation_B) > 0.3
        assert sum(each.num_traces for each in quality.bins) == 120 * 4 * 4

    def test_features_without_signal_are_no_worse_than_the_mean_curve(self) -> None:
        noise = np.random.default_rng(9).standard_normal((200, 3, 400)).astype(np.float16)
        quality = train(make_profile(200, hidden_Q_L_D=noise)).card.calibration
        assert quality is not None
        assert quality.log_loss < quality.mean_log_loss + 0.01
        assert quality.calibration_error < 0.08

    def test_held_out_quality_of_the_mean_predictor_is_that_of_the_mean_curve(self) -> None:
        card = train(make_profile(), predictor="mean").card
        assert card.features.kind == "none"
        assert card.calibration is not None
        assert card.calibration.log_loss == pytest.approx(card.calibration.mean_log_loss)

    def test_too_few_queries_for_folds_leave_the_quality_unknown(self) -> None:
        card = train(make_profile(4)).card
        assert card.calibration is None
        assert "there are too few queries" in card.to_markdown()

    def test_queries_that_cannot_be_learned_from_are_left_out_and_counted(self) -> None:
        profile = make_profile()
        profile.hidden_Q_L_D[5, 1, 2] = np.nan
        profile.num_tried_Q[7] = 0
        profile.num_right_Q_B[7] = 0
        data = train(profile).card.data
        assert (data.num_queries, data.num_left_out) == (118, 2)

    def test_the_order_of_the_queries_does_not_matter(self) -> None:
        profile = make_profile()
        order = np.random.default_rng(1).permutation(profile.num_queries)
        first, second = train(profile), train(profile.select(order))
        assert first.card == second.card
        for name, array in first.estimator.state()[1].items():
            assert (array == second.estimator.state()[1][name]).all()

    def test_other_counts_give_another_data_hash(self) -> None:
        assert train(make_profile(seed=0)).card.data.data_hash != train(make_profile(seed=1)).card.data.data_hash

    def test_a_simulated_profile_says_so_in_words(self) -> None:
        card = train(make_profile(provenance=Provenance.from_json({**INFO, "simulated": True}))).card
        assert "simulated" in card.to_markdown()

    def test_progress_tells_what_is_being_done(self) -> None:
        told: list[tuple[str, int, int]] = []
        train(make_profile(), progress=lambda *step: told.append(step))
        assert {step for step, _, _ in told} == {"layer", "fit", "calibrate"}
        assert ("layer", 3, 3) in told

    @pytest.mark.parametrize(
        ("changes", "arguments", "error", "words"),
        [
            pytest.param(
                {"hidden_Q_L_D": None, "layers": ()},
                {"predictor": "ridge"},
                InvalidFeaturesError,
                "--layers all",
                id="no-hidden",
            ),
            pytest.param({}, {"layers": [4, 5]}, InvalidFeaturesError, "[5]", id="layer-not-recorded"),
            pytest.param({}, {"layers": []}, InvalidFeaturesError, "none", id="no-layer"),
            pytest.param(
                {"num_tried_Q": np.zeros(120, dtype=int)}, {}, InvalidInputError, "0 of 120", id="nothing-finished"
            ),
            pytest.param(
                {"hidden_Q_L_D": np.full((120, 3, 12), np.nan)}, {}, InvalidFeaturesError, "too long", id="all-nan"
            ),
            pytest.param({}, {"predictor": "rigde"}, UnknownNameError, "'ridge'", id="no-such-predictor"),
            pytest.param(
                {},
                {"predictor": "mlp", "options": {"step": 3}},
                InvalidSettingsError,
                "'steps'",
                id="misspelt-option",
            ),
            pytest.param({}, {"options": {"epochs": 3}}, InvalidSettingsError, "takes no options", id="no-options"),
            pytest.param(
                {},
                {"predictor": "mlp", "options": {"steps": "many"}},
                InvalidSettingsError,
                "a whole number, not 'many'",
                id="text-for-a-number",
            ),
            pytest.param({}, {"num_folds": 1}, InvalidSettingsError, "1 folds", id="one-fold"),
        ],
    )
    def test_what_cannot_be_trained_on_is_refused(
        self, changes: dict[str, Any], arguments: dict[str, Any], error: type[Exception], words: str
    ) -> None:
        with pytest.raises(error) as caught:
            train(make_profile(**changes), **arguments)
        assert words in str(caught.value)

    def test_options_and_seed_reach_the_predictor(self) -> None:
        options = {"hidden_width": 8, "num_members": 2, "steps": 20, "reads": "hidden"}
        trained = train(make_profile(40), predictor="mlp", layers=[4], num_folds=2, seed=7, options=options)
        kept = trained.estimator.state()[0]["options"]
        assert (kept["hidden_width"], kept["seed"]) == (8, 7)

    @pytest.mark.parametrize("predictor", ["mlp", "paper-mlp", "text"])
    def test_a_seed_below_0_is_refused_in_words(self, predictor: str) -> None:
        with pytest.raises(InvalidSettingsError, match=f"seed of predictor '{predictor}' must be 0 or more, not -1"):
            train(make_profile(40, texts=("How many?",) * 40), predictor=predictor, seed=-1)


@pytest.mark.parametrize("predictor", ["ridge", "mean", "mlp"])
class TestCrossFit:
    def options(self, predictor: str) -> dict[str, Any]:
        if predictor == "mlp":
            return {"hidden_width": 8, "num_members": 2, "steps": 20, "reads": "hidden"}
        return {}

    @pytest.mark.slow
    def test_the_counts_of_a_held_out_fold_do_not_alter_its_predictions(self, predictor: str) -> None:
        """The leak test: whatever a fold's own labels are, nothing that sets its queries apart may know."""
        profile = make_profile(80)
        held = assign_folds(profile.query_ids, num_folds=4, seed=0) == 2
        num_right_Q_B, tokens_Q_B = profile.num_right_Q_B.copy(), profile.tokens_Q_B.copy()
        num_right_Q_B[held] = 4 - num_right_Q_B[held]
        tokens_Q_B[held] += 50
        changed = dataclasses.replace(profile, num_right_Q_B=num_right_Q_B, tokens_Q_B=tokens_Q_B)
        arguments: dict[str, Any] = {"predictor": predictor, "num_folds": 4, "options": self.options(predictor)}
        before, mean_before = cross_fit(profile, **arguments)
        after, mean_after = cross_fit(changed, **arguments)
        apart, apart_after = (
            np.stack([curves.p_Q_B - mean.p_Q_B, curves.tokens_Q_B - mean.tokens_Q_B])
            for curves, mean in ((before, mean_before), (after, mean_after))
        )
        is_cut_Q_B = np.isin(before.p_Q_B, (0.0, 1.0)) | np.isin(after.p_Q_B, (0.0, 1.0))
        apart[0, is_cut_Q_B] = apart_after[0, is_cut_Q_B] = 0.0  # [0, 1] ends nearer to one mean than to the other
        np.testing.assert_allclose(apart[:, held], apart_after[:, held], atol=1e-9)
        assert predictor == "mean" or np.abs(apart - apart_after)[:, ~held].max() > 0.01

    @pytest.mark.slow
    def test_the_order_of_the_queries_does_not_matter(self, predictor: str) -> None:
        profile = make_profile(60)
        order = np.random.default_rng(1).permutation(60)
        arguments: dict[str, Any] = {"predictor": predictor, "num_folds": 3, "options": self.options(predictor)}
        straight, _ = cross_fit(profile, **arguments)
        shuffled, _ = cross_fit(profile.select(order), **arguments)
        assert shuffled.query_ids == tuple(profile.query_ids[row] for row in order)
        np.testing.assert_array_equal(shuffled.p_Q_B, straight.p_Q_B[order])

    def test_other_folds_come_of_another_seed(self, predictor: str) -> None:
        profile = make_profile(60)
        first, second = (
            cross_fit(profile, predictor=predictor, num_folds=3, seed=seed, options=self.options(predictor))[0]
            for seed in (0, 1)
        )
        assert (first.p_Q_B != second.p_Q_B).any()


@pytest.mark.parametrize("predictor", ["mean", "ridge"])
def test_cross_fit_predicts_around_one_mean_curve(predictor: str) -> None:
    """A fold that is easy by chance leaves the others hard: around their own means, whole folds would be ranked."""
    profile = make_profile(60, hidden_Q_L_D=np.zeros((60, 3, 12), dtype=np.float16))
    predicted, mean = cross_fit(profile, predictor=predictor, num_folds=3)
    assert (mean.p_Q_B == mean.p_Q_B[0]).all()
    np.testing.assert_array_equal(predicted.p_Q_B, mean.p_Q_B)
    np.testing.assert_array_equal(predicted.tokens_Q_B, mean.tokens_Q_B)


def test_cross_fit_beats_its_own_mean_curves() -> None:
    profile = make_profile(200)
    predicted, mean = cross_fit(profile)
    rate_Q_B = profile.num_right_Q_B / 4
    assert ((predicted.p_Q_B - rate_Q_B) ** 2).mean() < 0.8 * ((mean.p_Q_B - rate_Q_B) ** 2).mean()


def test_a_query_without_features_gets_the_mean_curve_of_the_other_folds() -> None:
    profile = make_profile()
    profile.hidden_Q_L_D[3] = np.nan
    predicted, mean = cross_fit(profile)
    assert (predicted.p_Q_B[3] == mean.p_Q_B[3]).all()
    assert (predicted.tokens_Q_B[3] == mean.tokens_Q_B[3]).all()
    assert (predicted.p_Q_B[4] != mean.p_Q_B[4]).any()


def test_more_folds_than_queries_are_refused() -> None:
    with pytest.raises(InvalidSettingsError, match="4 queries cannot be split into 5 folds"):
        cross_fit(make_profile(4))


@examples(50)
@given(num_queries=st.integers(2, 40), num_folds=st.integers(2, 10), seed=st.integers(0, 5))
def test_folds_are_even_and_follow_the_ids(num_queries: int, num_folds: int, seed: int) -> None:
    num_folds = min(num_folds, num_queries)
    ids = [f"q{row}" for row in range(num_queries)]
    fold_Q = assign_folds(ids, num_folds=num_folds, seed=seed)
    sizes = np.bincount(fold_Q, minlength=num_folds)
    assert sizes.max() - sizes.min() <= 1
    assert (assign_folds(ids[::-1], num_folds=num_folds, seed=seed) == fold_Q[::-1]).all()
    assert sorted(hash_order(ids, seed=seed)) == list(range(num_queries))


class TestFolder:
    def test_holds_settings_weights_and_a_card_in_words(self, folder: Path) -> None:
        assert sorted(path.name for path in folder.iterdir()) == ["card.md", "predictor.json", "weights.safetensors"]
        content = json.loads((folder / "predictor.json").read_text())
        assert content["card"]["features"]["layer"] == PLANTED
        words = (folder / "card.md").read_text()
        for said in ("`tiny`", "`worked`", "16, 32, … 64", "120 queries", "(chosen)", "mean curve", "seed 0"):
            assert said in words

    @pytest.mark.parametrize("predictor", ["ridge", "mean", "mlp"])
    def test_a_loaded_predictor_is_the_saved_one_to_the_bit(self, predictor: str, tmp_path: Path) -> None:
        profile = make_profile(60)
        options = {}
        if predictor == "mlp":
            options = {"hidden_width": 8, "num_members": 2, "steps": 20, "reads": "hidden"}
        saved = train(profile, predictor=predictor, layers=[4], num_folds=2, options=options)
        loaded = Predictor.load(saved.save(tmp_path / "one"))
        assert loaded.card == saved.card
        read = Features.of(profile, 4)
        first, second = (each.predict(profile.query_ids, read) for each in (saved, loaded))
        assert (first.p_Q_B == second.p_Q_B).all()
        assert (first.tokens_Q_B == second.tokens_Q_B).all()
        again = loaded.save(tmp_path / "two")
        for path in (tmp_path / "one").iterdir():
            assert path.read_bytes() == (again / path.name).read_bytes()

    def test_saving_twice_replaces_and_leaves_nothing_else(self, trained: Predictor, folder: Path) -> None:
        trained.save(folder)
        assert [path.name for path in folder.parent.iterdir()] == ["predictor"]

    def test_a_folder_of_something_else_is_not_overwritten(self, trained: Predictor, tmp_path: Path) -> None:
        (tmp_path / "thesis.txt").write_text("years of work")
        with pytest.raises(ModelFileError, match="nothing was written"):
            trained.save(tmp_path)
        assert (tmp_path / "thesis.txt").read_text() == "years of work"

    @pytest.mark.parametrize(
        ("name", "change", "words"),
        [
            pytest.param("weights.safetensors", lambda raw: raw[:-1], "cut short or was changed", id="cut-short"),
            pytest.param(
                "weights.safetensors", lambda raw: raw[:-9] + b"x" + raw[-8:], "cut short or was changed", id="one-byte"
            ),
            pytest.param("weights.safetensors", None, "is missing", id="no-weights"),
            pytest.param("predictor.json", None, "no predictor.json", id="no-settings"),
            pytest.param("predictor.json", lambda raw: raw[:200], "not readable JSON", id="broken-json"),
            pytest.param("predictor.json", lambda raw: b"\xff" + raw, "not readable JSON", id="broken-utf8"),
            pytest.param("predictor.json", lambda raw: b"[]", "schema None", id="not-an-object"),
            pytest.param(
                "predictor.json", lambda raw: raw.replace(b'"schema": 2', b'"schema": 99'), "schema 99", id="schema"
            ),
            pytest.param(
                "predictor.json",
                lambda raw: raw.replace(b"16,", b"16, 24,", 1),
                "budgets",
                id="other-grid",
            ),
            pytest.param("predictor.json", lambda raw: raw.replace(b'"seed"', b'"sede"'), "sede", id="misspelt-key"),
            pytest.param(
                "predictor.json", lambda raw: raw.replace(b'"width": 12', b'"width": "12"'), "width", id="wrong-type"
            ),
            pytest.param(
                "predictor.json",
                lambda raw: raw.replace(b'"predictor": "ridge"', b'"predictor": "mean"', 1),
                "its card 'ridge'",
                id="other-class",
            ),
        ],
    )
    def test_a_broken_folder_is_refused_with_the_reason(self, folder: Path, name: str, change: Any, words: str) -> None:
        path = folder / name
        if change is None:
            path.unlink()
        else:
            path.write_bytes(change(path.read_bytes()))
        with pytest.raises(ModelFileError) as caught:
            Predictor.load(folder)
        assert words in str(caught.value)

    def test_the_card_survives_json(self, trained: Predictor) -> None:
        assert PredictorCard.from_json(json.loads(json.dumps(trained.card.to_json()))) == trained.card


class TestCheck:
    here = EngineInfo("vllm", "tiny", "aa11", template="worked", template_hash="bb22", hidden_size=12)

    @pytest.mark.parametrize(
        "changes",
        [
            pytest.param({}, id="the-same"),
            pytest.param({"model": "another-name-for-it"}, id="same-hash-other-name"),
            pytest.param({"model_hash": None, "template_hash": None, "hidden_size": None}, id="hashes-unknown"),
        ],
    )
    def test_what_it_was_made_for_passes(self, trained: Predictor, changes: dict[str, Any]) -> None:
        trained.check(dataclasses.replace(self.here, **changes), Menu.evenly(16, 64))

    @pytest.mark.parametrize(
        ("changes", "menu", "words"),
        [
            pytest.param({"model_hash": "cc33"}, None, ["model hash", "aa11", "cc33"], id="model"),
            pytest.param(
                {"model": "big", "model_hash": None}, None, ["model: predictor 'tiny', engine 'big'"], id="model-name"
            ),
            pytest.param({"template_hash": "dd44"}, None, ["template hash", "bb22", "dd44"], id="template"),
            pytest.param({"hidden_size": 13}, None, ["predictor 12, engine 13"], id="width"),
            pytest.param({}, Menu.evenly(16, 80), ["budgets", "… 64", "… 80"], id="menu"),
            pytest.param(
                {"model_hash": "cc33", "template_hash": "dd44"}, Menu.evenly(8, 64), ["cc33", "dd44", "8, 16"], id="all"
            ),
        ],
    )
    def test_anything_else_is_refused_and_named(
        self, trained: Predictor, changes: dict[str, Any], menu: Menu | None, words: list[str]
    ) -> None:
        with pytest.raises(MismatchError) as caught:
            trained.check(dataclasses.replace(self.here, **changes), menu)
        assert all(word in str(caught.value) for word in words), str(caught.value)

    def test_bad_features_are_refused_by_the_ids_of_their_queries(self, trained: Predictor) -> None:
        features_Q_D = np.zeros((3, 12), dtype=np.float32)
        features_Q_D[1, 4] = np.nan
        with pytest.raises(InvalidFeaturesError, match=r"1 queries .*: q-b"):
            trained.predict(["q-a", "q-b", "q-c"], Features.of_hidden(features_Q_D))
        with pytest.raises(InvalidFeaturesError, match=r"13 wide, .* layer 4 of tiny, 12 wide"):
            trained.predict(["q-a"], Features.of_hidden(np.zeros((1, 13), dtype=np.float32)))
        with pytest.raises(InvalidFeaturesError, match="2 queries need as many feature rows"):
            trained.predict(["q-a", "q-b"], Features.of_hidden(np.zeros((1, 12), dtype=np.float32)))

    def test_curves_carry_ids_and_grid(self, trained: Predictor) -> None:
        profile = make_profile()
        curves = trained.predict(profile.query_ids, Features.of(profile, trained.card.features.layer))
        assert curves.query_ids == profile.query_ids
        assert curves.menu == profile.menu
        assert curves.p_Q_B.shape == (120, 4)


def test_what_reads_text_alone_predicts_from_texts_or_queries() -> None:
    profile = dataclasses.replace(make_profile(60), hidden_Q_L_D=None, layers=())
    profile = dataclasses.replace(profile, texts=tuple(f"How much is {row} times 7?" for row in range(60)))
    reads_text = train(profile, predictor="text", num_folds=2)
    texts = ["How much is 3 times 7?", "And 99 times 7?"]
    curves = reads_text.predict(texts)
    assert curves.query_ids == tuple(texts)
    queries = [Query(f"q{row}", text) for row, text in enumerate(texts)]
    named = reads_text.predict(queries)
    assert named.query_ids == ("q0", "q1")
    given = reads_text.predict(["a", "b"], Features.of_texts(texts))
    assert (curves.p_Q_B == named.p_Q_B).all()
    assert (curves.p_Q_B == given.p_Q_B).all()


def test_what_reads_hidden_states_says_where_they_come_from(trained: Predictor) -> None:
    with pytest.raises(InvalidFeaturesError, match=r"forethought\.plan"):
        trained.predict(["How much?"])
