"""What every registered predictor promises, and what ridge, mlp and mean each are."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import isotonic_regression

from forethought.core import registry
from forethought.core.features import Counts, Features
from forethought.core.menu import Menu
from forethought.core.profile import Profile
from forethought.core.protocols import Estimator
from forethought.errors import InvalidFeaturesError, InvalidInputError, InvalidSettingsError
from forethought.evaluation.metrics import (
    binomial_log_loss,
    brier_score,
    calibration_error,
    correlation_B,
    curve_error,
    reliability_bins,
)
from forethought.predictors import paper_mlp
from forethought.predictors.mean import MeanPredictor, mean_curve
from forethought.predictors.mlp import MlpPredictor
from forethought.predictors.parts.linear import LinearMap, RidgeProblem, Standardizer
from forethought.predictors.parts.making import make_estimator
from forethought.predictors.parts.network import forward, gradients
from forethought.predictors.parts.shape import CurveShape, isotonic, make_concave, non_decreasing
from forethought.predictors.predictor import Predictor
from forethought.predictors.ridge import RidgePredictor
from forethought.predictors.training import train
from forethought.predictors.usage import stretched_tokens
from tiny_model import save_tiny_model

QUICK = {
    "mlp": {"hidden_width": 16, "num_members": 2, "steps": 120, "learning_rate": 3e-3, "weight_decay": 0.1},
    "stack": {"options": {}, "num_folds": 2},
    "lora": {"epochs": 1, "batch_size": 64, "micro_batch": 64, "learning_rate": 1e-2},
}


@cache
def tiny_base() -> str:
    """A random language model for the adapter, made once."""
    pytest.importorskip("peft")
    return str(save_tiny_model(Path(tempfile.mkdtemp(prefix="forethought-tiny-"))))


def examples(number: int) -> settings:
    """So many examples, however slow the machine: a busy one must not fail a property."""
    return settings(max_examples=number, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def make(name: str, **options: Any) -> Estimator:
    if name == "lora":
        options = {"base": tiny_base(), **options}
    return make_estimator(name, {**QUICK.get(name, {}), **options})


def features_of(features_Q_D: np.ndarray) -> Features:
    """Queries with these hidden states, and words that say the same."""
    ease_Q = np.nan_to_num(features_Q_D[:, :3]).sum(axis=1)
    words = [" ".join("abcdefgh"[int(np.clip(x + 4, 0, 7))] for x in row[:3]) for row in np.nan_to_num(features_Q_D)]
    levels = tuple("easy" if ease > 1 else "hard" if ease < -1 else "medium" for ease in ease_Q)
    texts = tuple(f"{word} {row % 10}" for row, word in enumerate(words))
    ids = tuple(f"q{row}" for row in range(len(features_Q_D)))
    return Features(len(features_Q_D), features_Q_D, texts, levels, ids)


def predict(predictor: Estimator, features_Q_D: np.ndarray) -> Any:
    return predictor.predict(features_of(features_Q_D))


def task(
    num_queries: int = 300, width: int = 24, *, num_tried: int = 4, signal: float = 1.5, seed: int = 0
) -> dict[str, np.ndarray]:
    """Features whose first three say how easy a query is and how soon its traces stop; the rest say nothing."""
    random = np.random.default_rng(seed)
    features_Q_D = random.standard_normal((num_queries, width))
    ease_Q_1 = signal * features_Q_D[:, :3].sum(axis=1, keepdims=True) / np.sqrt(3)
    true_Q_B = 1 / (1 + np.exp(-ease_Q_1 - np.linspace(-2, 2, 6)))
    stop_Q_1 = np.clip(60 - 20 * ease_Q_1 + random.normal(0, 5, (num_queries, 1)), 5, 200)
    num_tried_Q = np.full(num_queries, num_tried)
    return {
        "features": features_Q_D.astype(np.float32),
        "right": random.binomial(num_tried, true_Q_B),
        "tried": num_tried_Q,
        "tokens": np.minimum(16 * np.arange(1, 7), stop_Q_1) + 10,
        "true": true_Q_B,
    }


def counts_of(data: Mapping[str, Any]) -> Counts:
    return Counts(Menu.evenly(16, 96), data["right"], data["tried"], data["tokens"])


def fitted(name: str, data: dict[str, np.ndarray], **options: Any) -> Estimator:
    predictor = make(name, **options)
    return predictor.fit(features_of(data["features"]), counts_of(data))


def on_states(name: str, data: dict[str, np.ndarray], **options: Any) -> Estimator:
    """Fitted to read hidden states alone, whatever it reads by default."""
    return fitted(name, data, **({"reads": "hidden"} if name == "mlp" else {}), **options)


every_predictor = pytest.mark.parametrize("name", list(registry.available("predictors")))
reads_features = pytest.mark.parametrize("name", ["mlp", "ridge"])


@every_predictor
class TestContract:
    @pytest.mark.slow
    def test_fit_returns_itself_and_curves_can_be_true(self, name: str) -> None:
        data = task()
        predictor = make(name)
        assert predictor.fit(features_of(data["features"]), counts_of(data)) is predictor
        p_Q_B, tokens_Q_B = predict(predictor, 10 * data["features"])  # far from what was seen
        assert p_Q_B.shape == tokens_Q_B.shape == data["true"].shape
        assert ((p_Q_B >= 0) & (p_Q_B <= 1)).all()
        assert (np.diff(tokens_Q_B, axis=1) >= 0).all()
        assert (tokens_Q_B >= 0).all()

    @pytest.mark.slow
    def test_without_tokens_there_is_no_spend_curve(self, name: str) -> None:
        data = task()
        predictor = make(name)
        read = features_of(data["features"])
        p_Q_B, tokens_Q_B = predictor.fit(read, counts_of({**data, "tokens": None})).predict(read)
        assert p_Q_B.shape == data["true"].shape
        assert tokens_Q_B is None

    @pytest.mark.slow
    def test_state_survives_json_and_predicts_the_same_bits(self, name: str) -> None:
        data = task()
        predictor = fitted(name, data)
        settings_, arrays_ = predictor.state()
        again = type(predictor).from_state(json.loads(json.dumps(settings_, allow_nan=False)), arrays_)
        read = features_of(data["features"])
        for first, second in zip(predictor.predict(read), again.predict(read), strict=True):
            assert (first == second).all()

    @pytest.mark.slow
    def test_the_same_data_gives_the_same_bits(self, name: str) -> None:
        data = task()
        first, second = (predict(fitted(name, data), data["features"])[0] for _ in range(2))
        assert (first == second).all()

    @pytest.mark.slow
    def test_rows_without_a_trace_teach_nothing(self, name: str) -> None:
        data = task()
        padded = {key: np.concatenate([value, value[:50]]) for key, value in data.items()}
        padded["tried"][-50:] = 0
        padded["right"][-50:] = 0
        padded["tokens"][-50:] = np.nan
        padded["features"][-50:] = np.nan
        expected, _ = predict(fitted(name, data), data["features"])
        found, _ = predict(fitted(name, padded), data["features"])
        assert (found == expected).all()

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            pytest.param({"right": np.full((300, 6), 5)}, "more right than tried", id="right-above-tried"),
            pytest.param({"right": np.full((300, 6), -1)}, "less than none", id="negative"),
            pytest.param(
                {"tried": np.zeros(300, dtype=int), "right": np.zeros((300, 6), dtype=int)}, "0 of 300", id="0"
            ),
            pytest.param({"tokens": np.full((300, 6), np.nan)}, "NaN", id="tokens-nan"),
            pytest.param({"tokens": np.ones((300, 5))}, "(300, 5)", id="tokens-shape"),
            pytest.param({"tried": np.full(299, 4)}, "(299,)", id="tried-shape"),
        ],
    )
    def test_counts_that_cannot_be_true_are_refused(self, name: str, change: dict[str, Any], words: str) -> None:
        with pytest.raises(InvalidInputError) as caught:
            fitted(name, {**task(), **change})
        assert words in str(caught.value)


@reads_features
class TestFeatures:
    @pytest.mark.slow
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_what_is_not_finite_is_refused_with_its_row(self, name: str, value: float) -> None:
        data = task()
        predictor = on_states(name, data)
        features_Q_D = data["features"].copy()
        features_Q_D[[7, 11], 3] = value
        for attempt in (
            lambda features: predict(predictor, features),
            lambda features: on_states(name, {**data, "features": features}),
        ):
            with pytest.raises(InvalidFeaturesError, match="2 rows: 7, 11"):
                attempt(features_Q_D)

    @pytest.mark.slow
    @pytest.mark.parametrize("shape", [(5, 23), (5, 25), (24,), (5, 0), (5, 24, 1)])
    def test_a_wrong_shape_is_refused(self, name: str, shape: tuple[int, ...]) -> None:
        with pytest.raises(InvalidFeaturesError, match=r"columns|shape"):
            on_states(name, task()).predict(Features.of_hidden(np.zeros(shape, dtype=np.float32)))

    @pytest.mark.slow
    def test_half_precision_features_will_do(self, name: str) -> None:
        data = task()
        whole, _ = predict(on_states(name, data), data["features"])
        half = {**data, "features": data["features"].astype(np.float16)}
        found, _ = predict(on_states(name, half), half["features"])
        assert np.abs(found - whole).max() < 0.05

    def test_large_finite_features_are_not_taken_for_infinite(self, name: str) -> None:
        data = task()
        data["features"] = data["features"] * np.float32(1e37)  # a row's sum overflows float32
        p_Q_B, _ = predict(on_states(name, {**data, "features": data["features"]}), data["features"])
        assert np.isfinite(p_Q_B).all()

    def test_a_constant_feature_is_silent(self, name: str) -> None:
        data = task()
        data["features"][:, 5] = 3.0
        predictor = on_states(name, data)
        changed = data["features"].copy()
        changed[:, 5] = -100.0
        assert (predict(predictor, changed)[0] == predict(predictor, data["features"])[0]).all()

    def test_states_that_are_all_alike_teach_the_mean_curve(self, name: str) -> None:
        """As those behind the embedding are, where every prompt ends in the same token."""
        data = task()
        data["features"] = np.full_like(data["features"], 3.0)
        p_Q_B, _ = predict(on_states(name, data), data["features"])
        assert (p_Q_B == p_Q_B[0]).all()
        assert np.abs(p_Q_B[0] - data["true"].mean(axis=0)).max() < 0.1

    def test_learns_more_than_the_mean_curve(self, name: str) -> None:
        data, fresh = task(num_queries=600), task(seed=1)
        mean_p_B = predict(fitted("mean", data), fresh["features"])[0]
        p_Q_B, tokens_Q_B = predict(on_states(name, data), fresh["features"])
        assert ((p_Q_B - fresh["true"]) ** 2).mean() < 0.35 * ((mean_p_B - fresh["true"]) ** 2).mean()
        assert np.corrcoef(tokens_Q_B[:, 3], fresh["tokens"][:, 3])[0, 1] > 0.8


class TestPaperMlp:
    def test_gradients_are_those_of_the_mean_squared_error(self) -> None:
        random = np.random.default_rng(0)
        weights = {name: array.astype(np.float64) for name, array in paper_mlp._start(5, 3, random).items()}
        x_Q_D, rate_Q_B = random.standard_normal((7, 5)), random.uniform(size=(7, 3))
        found = paper_mlp._gradients(weights, x_Q_D, rate_Q_B, np.ones(3))
        for name, at in (("hidden_weights", (2, 30)), ("hidden_bias", (3,)), ("output_weights", (9, 1))):
            losses = []
            for step in (1e-5, -1e-5):
                moved = {**weights, name: weights[name].copy()}
                moved[name][at] += step
                losses.append(((forward(moved, x_Q_D)[1] - rate_Q_B) ** 2).mean())
            assert found[name][at] == pytest.approx((losses[0] - losses[1]) / 2e-5, rel=1e-4, abs=1e-9)

    def test_has_the_papers_shape_and_learns_more_than_the_mean_curve(self) -> None:
        data, fresh = task(num_queries=600), task(seed=1)
        predictor = fitted("paper-mlp", data)
        assert predictor.state()[1]["hidden_weights"].shape == (24, 256)
        errors = [
            ((predict(each, fresh["features"])[0] - fresh["true"]) ** 2).mean()
            for each in (predictor, fitted("mean", data))
        ]
        assert errors[0] < 0.35 * errors[1]

    def test_another_seed_is_another_network(self) -> None:
        data = task()
        first, second = (predict(fitted("paper-mlp", data, seed=seed), data["features"])[0] for seed in (0, 1))
        assert (first != second).any()


class TestRidge:
    def test_is_the_textbook_solution(self) -> None:
        """`(X'WX + penalty I)^-1 X'Wy` on standardised features, at whatever penalty was chosen."""
        data = task(num_queries=80, width=10)
        weight_Q = np.random.default_rng(0).integers(1, 9, size=80).astype(np.float64)
        target_Q_N = data["true"][:, :1]
        problem = RidgeProblem(data["features"], weight_Q)
        solution = problem.solve(target_Q_N, np.ones(1))
        share_Q = weight_Q / weight_Q.mean()
        centre_D = np.average(data["features"].astype(np.float64), axis=0, weights=weight_Q)
        spread_D = np.sqrt(np.average((data["features"] - centre_D) ** 2, axis=0, weights=weight_Q))
        x_Q_D = (data["features"] - centre_D) / spread_D
        gram_D_D = x_Q_D.T @ (share_Q[:, None] * x_Q_D)
        penalty = solution.penalty_N[0] * np.trace(gram_D_D) / 10
        intercept = np.average(target_Q_N[:, 0], weights=weight_Q)
        expected_D = np.linalg.solve(
            gram_D_D + penalty * np.eye(10), x_Q_D.T @ (share_Q * (target_Q_N[:, 0] - intercept))
        )
        np.testing.assert_allclose(solution.weights_D_N[:, 0], expected_D, rtol=1e-4, atol=1e-6)
        assert solution.intercept_N[0] == pytest.approx(intercept)

    @pytest.mark.parametrize(("num_queries", "width"), [(40, 6), (30, 60)], ids=["tall", "wide"])
    def test_left_out_predictions_are_those_of_fits_without_the_row(self, num_queries: int, width: int) -> None:
        """Exact for ridge on fixed standardised features: refit without a row, at the same penalty, and compare."""
        data = task(num_queries=num_queries, width=width)
        weight_Q = np.random.default_rng(1).integers(1, 5, size=num_queries).astype(np.float64)
        target_Q = data["true"][:, 2]
        problem = RidgeProblem(data["features"], weight_Q)
        solution = problem.solve(target_Q[:, None], np.ones(1))
        share_Q = weight_Q / weight_Q.mean()
        x_Q_D = problem.standardizer.apply(data["features"])
        x_Q_D -= np.average(x_Q_D, axis=0, weights=share_Q)
        eigenvalue_R = np.linalg.eigvalsh(x_Q_D.T @ (share_Q[:, None] * x_Q_D))
        mean_eigenvalue = eigenvalue_R[eigenvalue_R > 1e-9 * eigenvalue_R[-1]].mean()
        penalty = solution.penalty_N[0] * mean_eigenvalue
        for row in (0, 7, num_queries - 1):
            kept = np.arange(num_queries) != row
            design = np.column_stack([np.ones(kept.sum()), x_Q_D[kept]])
            gram = design.T @ (share_Q[kept, None] * design)
            gram[1:, 1:] += penalty * np.eye(width)
            weights = np.linalg.solve(gram, design.T @ (share_Q[kept] * target_Q[kept]))
            assert solution.left_out_Q_N[row, 0] == pytest.approx(weights[0] + x_Q_D[row] @ weights[1:], abs=1e-6)

    def test_a_query_with_more_traces_counts_as_that_many_queries(self) -> None:
        data = task(num_queries=60, num_tried=2)
        doubled = {key: np.concatenate([value, value[:30]]) for key, value in data.items()}
        weighted = {key: value.copy() for key, value in data.items()}
        weighted["tried"][:30] *= 2
        weighted["right"][:30] *= 2
        # The penalty is chosen by left-out error, which a twin row flatters: compare at one penalty, not the chosen.
        outputs = []
        for each in (doubled, weighted):
            problem = RidgeProblem(each["features"], each["tried"].astype(np.float64))
            outputs.append(problem.standardizer)
        np.testing.assert_allclose(outputs[0].centre_D, outputs[1].centre_D, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(outputs[0].scale_D, outputs[1].scale_D, rtol=1e-5)
        mean = [predict(fitted("mean", each), each["features"][:1])[0] for each in (doubled, weighted)]
        np.testing.assert_allclose(mean[0], mean[1], rtol=1e-6)

    def test_features_without_signal_leave_the_mean_curve(self) -> None:
        """Few traces, more features than queries: the held-out penalty has to shrink what it cannot confirm."""
        for seed in range(3):
            data = task(num_queries=400, width=800, signal=0.0, seed=seed)
            random = np.random.default_rng(seed + 100)
            data["right"] = random.binomial(4, np.clip(data["true"] + random.normal(0, 0.2, (400, 1)), 0, 1))
            fresh_Q_D = random.standard_normal((500, 800)).astype(np.float32)
            p_Q_B, _ = predict(fitted("ridge", data), fresh_Q_D)
            mean_1_B, _ = predict(fitted("mean", data), fresh_Q_D[:1])
            assert np.abs(p_Q_B.mean(axis=0) - mean_1_B[0]).max() < 0.02
            assert p_Q_B.std(axis=0).max() < 0.06

    def test_left_out_predictions_are_kept_for_the_choice_of_a_layer_and_not_saved(self) -> None:
        predictor = fitted("ridge", task())
        assert isinstance(predictor, RidgePredictor)
        assert predictor.left_out_p_Q_B_ is not None
        assert predictor.left_out_p_Q_B_.shape == (300, 6)
        assert RidgePredictor.from_state(*predictor.state()).left_out_p_Q_B_ is None

    def test_the_strongest_component_is_penalised_least(self) -> None:
        predictor = fitted("ridge", task(num_queries=500))
        assert isinstance(predictor, RidgePredictor)
        penalties = [np.inf if each is None else each for each in predictor.penalties_["p"]]
        assert penalties[0] == min(penalties)

    def test_a_map_says_the_same_after_its_weights_were_rounded_and_saved(self) -> None:
        random = np.random.default_rng(0)
        linear = LinearMap(
            Standardizer(np.zeros(4, np.float32), np.ones(4, np.float32)), random.normal(size=(4, 2)), np.ones(2)
        )
        features_Q_D = random.normal(size=(9, 4))
        assert (LinearMap.from_arrays(linear.arrays()).apply(features_Q_D) == linear.apply(features_Q_D)).all()
        assert linear.width == 4


class TestMlp:
    @pytest.mark.slow
    def test_learns_a_curve_that_is_not_linear(self) -> None:
        """Success by |x|: a linear map sees nothing of it."""
        random = np.random.default_rng(0)
        features_Q_D = random.standard_normal((1500, 4)).astype(np.float32)
        true_Q_B = np.where(np.abs(features_Q_D[:, :1]) > 0.7, 0.9, 0.1) * np.ones(3)
        right_Q_B = random.binomial(4, true_Q_B)
        counts = Counts(Menu.evenly(16, 48), right_Q_B[:1000], np.full(1000, 4))
        seen, fresh = Features.of_hidden(features_Q_D[:1000]), Features.of_hidden(features_Q_D[1000:])
        options = {"hidden_width": 64, "num_members": 2, "learning_rate": 1e-2, "weight_decay": 1e-2, "noise": 0.1}
        options["reads"] = "hidden"
        predicted = MlpPredictor(**options).fit(seen, counts).predict(fresh)[0]
        linear = RidgePredictor().fit(seen, counts).predict(fresh)[0]
        assert ((predicted - true_Q_B[1000:]) ** 2).mean() < 0.4 * ((linear - true_Q_B[1000:]) ** 2).mean()

    @pytest.mark.slow
    def test_other_seeds_give_other_ensembles(self) -> None:
        data = task()
        first, second = (predict(fitted("mlp", data, seed=seed), data["features"])[0] for seed in (0, 1))
        assert (first != second).any()

    def test_the_default_is_an_ensemble_that_reads_states_and_text(self) -> None:
        options = MlpPredictor().options
        assert (options.hidden_width, options.num_members, options.reads) == (128, 8, "hidden+text")

    def test_few_noisy_traces_ask_for_more_noise_than_many(self) -> None:
        few = on_states("mlp", task(120, num_tried=1, signal=0.5), steps=1)
        many = on_states("mlp", task(1500, num_tried=60), steps=1)
        assert few.noise_ > 2 * many.noise_

    @given(st.integers(0, 2**32), st.booleans())
    @examples(20)
    def test_its_gradients_are_those_of_the_likelihood(self, seed: int, drops: bool) -> None:
        """Against finite differences; the weights are doubles here."""
        random = np.random.default_rng(seed)
        shapes = {"hidden_weights": (5, 4), "hidden_bias": (4,), "output_weights": (4, 3), "output_bias": (3,)}
        weights = {name: 0.4 * random.normal(size=shape) for name, shape in shapes.items()}
        x_Q_N, rate_Q_B = random.normal(size=(7, 5)), random.random((7, 3))
        keep_Q_H = (random.random((7, 4)) > 0.3) / 0.7 if drops else None

        def loss(weights: dict[str, np.ndarray]) -> float:
            p_Q_B = forward(weights, x_Q_N, keep_Q_H)[1]
            return float(-(rate_Q_B * np.log(p_Q_B) + (1 - rate_Q_B) * np.log1p(-p_Q_B)).sum())

        hidden_Q_H, p_Q_B = forward(weights, x_Q_N, keep_Q_H)
        found = gradients(weights, x_Q_N, hidden_Q_H, p_Q_B - rate_Q_B, keep_Q_H)
        for name, array in weights.items():
            at = tuple(random.integers(0, array.shape).tolist())
            moved = []
            for step in (1e-6, -1e-6):
                other = {each: array.copy() for each, array in weights.items()}
                other[name][at] += step
                moved.append(loss(other))
            assert (moved[0] - moved[1]) / 2e-6 == pytest.approx(found[name][at], rel=1e-4, abs=1e-5)

    @pytest.mark.parametrize(
        ("option", "value"),
        [
            ("hidden_width", 0),
            ("num_members", 0),
            ("steps", 0),
            ("noise", -1.0),
            ("noise", float("nan")),
            ("weight_decay", float("inf")),
            ("dropout", 1.0),
            ("learning_rate", 0.0),
            ("learning_rate", float("nan")),
        ],
    )
    def test_an_option_out_of_range_is_refused(self, option: str, value: float) -> None:
        with pytest.raises(InvalidSettingsError, match=option):
            MlpPredictor(**{option: value})


def test_the_mean_predictor_pools_traces() -> None:
    counts = Counts(Menu((16, 99)), np.array([[1, 1], [3, 9]]), np.array([1, 9]))
    p_Q_B, _ = MeanPredictor().fit(Features(2), counts).predict(Features(3))
    np.testing.assert_allclose(p_Q_B, [[0.4, 1.0]] * 3, rtol=1e-6)


curves = arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 8)), elements=st.floats(-50, 300, width=32))


@examples(100)
@given(level_Q_B=curves)
def test_a_levelled_curve_never_falls_and_stays_between_its_extremes(level_Q_B: np.ndarray) -> None:
    levelled_Q_B = non_decreasing(level_Q_B)
    assert (np.diff(levelled_Q_B, axis=1) >= 0).all()
    assert (levelled_Q_B >= level_Q_B.min(axis=1, keepdims=True) - 1e-9).all()
    assert (levelled_Q_B <= level_Q_B.max(axis=1, keepdims=True) + 1e-9).all()
    rising_Q_B = np.sort(level_Q_B, axis=1)
    np.testing.assert_array_equal(non_decreasing(rising_Q_B), rising_Q_B)


@examples(100)
@given(level_Q_B=curves)
def test_usage_stays_in_the_range_that_was_seen(level_Q_B: np.ndarray) -> None:
    seen_Q_B = np.cumsum(np.ones((3, level_Q_B.shape[1])) * [[1], [2], [7]], axis=1)
    menu, tried_Q = Menu.evenly(16, 16 * level_Q_B.shape[1]), np.full(3, 1)
    shape = CurveShape.fit(Counts(menu, np.zeros(seen_Q_B.shape, dtype=int), tried_Q, seen_Q_B), None)
    spend_Q_B = shape.usage(level_Q_B)
    assert spend_Q_B is not None
    assert (np.diff(spend_Q_B, axis=1) >= 0).all()
    assert (spend_Q_B >= seen_Q_B.min(axis=0)).all()
    assert (spend_Q_B <= seen_Q_B.max(axis=0)).all()


@examples(100)
@given(level_Q_B=curves)
def test_isotonic_is_the_nearest_curve_that_never_falls(level_Q_B: np.ndarray) -> None:
    found_Q_B = isotonic(level_Q_B)
    assert (np.diff(found_Q_B, axis=1) >= -1e-9).all()
    expected_Q_B = [isotonic_regression(level_B).x for level_B in level_Q_B]
    np.testing.assert_allclose(found_Q_B, expected_Q_B, atol=1e-9)


class TestAccuracyShape:
    rng = np.random.default_rng(3)
    num = 2000
    hurt_B = np.array([0.3, 0.1, 0.5, 0.5, 0.5, 0.5])  # a sure dip after the first cap, then no change at all

    def fitted(self, left_out_Q_B: np.ndarray) -> CurveShape:
        return self.shape(np.tile(self.hurt_B, (self.num, 1)), left_out_Q_B)

    def shape(self, true_Q_B: np.ndarray, left_out_Q_B: np.ndarray) -> CurveShape:
        right_Q_B = self.rng.binomial(10, true_Q_B)
        return CurveShape.fit(Counts(Menu.evenly(16, 96), right_Q_B, np.full(self.num, 10)), left_out_Q_B)

    def test_a_sure_fall_stays_and_a_wiggle_goes(self) -> None:
        left_out_Q_B = self.hurt_B + self.rng.normal(0.0, 0.05, (self.num, 6))
        shape = self.fitted(left_out_Q_B)
        assert shape.fall_B is not None
        assert shape.fall_B[1] == pytest.approx(-0.2, abs=0.02)
        assert (np.delete(shape.fall_B, 1) == 0.0).all()
        shaped_Q_B = shape.accuracy(left_out_Q_B)
        assert (np.diff(shaped_Q_B[:, 2:], axis=1) >= 0.0).all()
        assert np.abs(shaped_Q_B - self.hurt_B).mean() < np.abs(left_out_Q_B - self.hurt_B).mean()
        np.testing.assert_allclose(shape.accuracy(shaped_Q_B), shaped_Q_B, atol=1e-12)

    def test_falls_that_are_real_for_some_are_left_alone(self) -> None:
        """Half of the queries are hurt by what helps the other half, and the predictor knows which."""
        falls_Q_B = np.where(np.arange(self.num)[:, None] % 2, self.hurt_B[::-1], self.hurt_B)
        shape = self.shape(falls_Q_B, falls_Q_B)
        assert shape.fall_B is None
        assert shape.arrays() == {}
        np.testing.assert_array_equal(shape.accuracy(falls_Q_B), falls_Q_B)

    def test_probabilities_stay_in_range(self) -> None:
        shape = self.fitted(np.tile(self.hurt_B, (self.num, 1)))
        shaped_Q_B = shape.accuracy(np.array([[-0.5, -0.2, 0.4, 1.2, 1.1, 1.0]], dtype=np.float32))
        assert shaped_Q_B.dtype == np.float32
        assert 0.0 <= shaped_Q_B.min() <= shaped_Q_B.max() <= 1.0

    def test_it_is_saved_with_the_predictor(self) -> None:
        shape = CurveShape(np.array([0.0, -0.1], dtype=np.float32), None, None)
        again = CurveShape.from_arrays(shape.arrays())
        assert again.fall_B is not None
        np.testing.assert_array_equal(again.fall_B, shape.fall_B)
        assert CurveShape.from_arrays({}).fall_B is None


class TestMetrics:
    """Against values worked out by hand: two queries, one budget, 1 of 4 and 4 of 4 right."""

    counts = Counts(Menu((64,)), np.array([[1], [4]]), np.array([4, 4]))

    def test_log_loss(self) -> None:
        p_Q_B = np.array([[0.25], [0.5]])
        expected = -(np.log(0.25) + 3 * np.log(0.75) + 4 * np.log(0.5)) / 8
        assert binomial_log_loss(p_Q_B, self.counts) == pytest.approx(expected)

    def test_log_loss_of_a_certain_mistake_is_bounded(self) -> None:
        assert binomial_log_loss(np.zeros((2, 1)), self.counts) < 5

    def test_brier(self) -> None:
        p_Q_B = np.array([[0.25], [0.5]])
        expected = (1 * 0.75**2 + 3 * 0.25**2 + 4 * 0.5**2) / 8
        assert brier_score(p_Q_B, self.counts) == pytest.approx(expected)

    def test_curve_error_is_free_of_sampling_noise(self) -> None:
        random = np.random.default_rng(0)
        true_Q_B = random.uniform(0.2, 0.8, size=(20_000, 2))
        menu, right_Q_B = Menu.evenly(16, 32), random.binomial(3, true_Q_B)
        counts = Counts(menu, right_Q_B, np.full(20_000, 3))
        single = Counts(menu, right_Q_B.clip(max=1), np.ones(20_000, dtype=int))
        assert curve_error(true_Q_B, counts) == pytest.approx(0, abs=2e-3)
        assert curve_error(true_Q_B + 0.1, counts) == pytest.approx(0.01, abs=2e-3)
        assert np.isnan(curve_error(true_Q_B, single))

    def test_reliability(self) -> None:
        bins = reliability_bins(np.array([[0.2], [1.0]]), self.counts, num_bins=5)
        assert [(each.lower, each.predicted, each.observed, each.num_traces) for each in bins] == [
            (0.2, 0.2, 0.25, 4),
            (0.8, 1.0, 1.0, 4),
        ]
        assert calibration_error(np.array([[0.2], [1.0]]), self.counts, num_bins=5) == pytest.approx(0.025)

    def test_correlation_of_one_mean_curve_is_0(self) -> None:
        assert correlation_B(np.full((2, 1), 0.3), self.counts.rate_Q_B).tolist() == [0.0]
        assert correlation_B(np.array([[0.1], [0.3]]), self.counts.rate_Q_B)[0] == pytest.approx(1.0)


caps = st.one_of(
    st.builds(
        lambda last, factor: Menu.parse(f"geometric:256:{last}:{factor}"), st.integers(300, 40_000), st.integers(2, 8)
    ),
    st.builds(Menu.of, st.sets(st.integers(0, 40_000), min_size=1, max_size=9).filter(lambda found: max(found) > 0)),
    st.sampled_from([Menu((256,)), Menu((0, 512)), Menu.parse("0,16:64:16"), Menu.parse("geometric:256:32768")]),
)


@pytest.mark.slow
@every_predictor
@examples(8)
@given(menu=caps, seed=st.integers(0, 99), has_tokens=st.booleans())
def test_on_any_menu_curves_can_be_true(name: str, menu: Menu, seed: int, has_tokens: bool) -> None:
    random, data = np.random.default_rng(seed), task(40, 6, seed=seed)
    budget_B = menu.budgets_B.astype(np.float64)
    ease_Q_1 = data["features"][:, :1].astype(np.float64)
    p_Q_B = 1 / (1 + np.exp(-ease_Q_1 - np.log1p(budget_B) / 3 + 2))
    tokens_Q_B = np.minimum(budget_B, 4000 * np.exp(-ease_Q_1)) + 9 if has_tokens else None
    counts = Counts(menu, random.binomial(2, p_Q_B), np.full(40, 2), tokens_Q_B)
    estimator = make(name, **({"epochs": 1} if name == "lora" else {}))
    read = features_of(data["features"])
    p_Q_B, tokens_Q_B = estimator.fit(read, counts).predict(features_of(3 * data["features"]))
    assert p_Q_B.shape == (40, menu.num_options)
    assert ((p_Q_B >= 0) & (p_Q_B <= 1)).all()
    assert (tokens_Q_B is None) is (not has_tokens)
    if tokens_Q_B is not None:
        assert np.isfinite(tokens_Q_B).all()
        assert (np.diff(tokens_Q_B, axis=1) >= 0).all()
    if estimator.held_out_ is not None:
        assert estimator.held_out_.p_N_B.shape[1] == menu.num_options
    mean_p_B, mean_tokens_B = mean_curve(counts)
    p_B, tokens_B = make_concave(menu, mean_p_B, mean_tokens_B)
    cost_B = budget_B if tokens_B is None else tokens_B + 1e-3 * budget_B
    slope_B = np.diff(p_B) / np.diff(cost_B)
    assert (np.diff(slope_B) < 1e-12).all()
    assert (np.diff(p_B) > 0).all()


def test_an_error_weighs_by_the_tokens_of_its_option() -> None:
    """What 32 tokens say is noise to a plan of thousands: an option that stands for little decides little."""
    menu, tried_Q = Menu((16, 32, 10_000)), np.full(2, 10)
    counts = Counts(menu, np.array([[5, 5, 5], [5, 5, 5]]), tried_Q)
    small, large = (np.where(np.array(where), 0.9, 0.5) * np.ones((2, 1)) for where in ([1, 0, 0], [0, 0, 1]))
    losses = [binomial_log_loss(p_Q_B, counts) for p_Q_B in (np.full((2, 3), 0.5), small, large)]
    assert losses[1] - losses[0] < 0.01 * (losses[2] - losses[0])
    assert brier_score(small, counts) < brier_score(large, counts)
    assert calibration_error(small, counts) < 0.01 < calibration_error(large, counts)


def test_a_stretch_leaves_what_no_thought_uses() -> None:
    """With 0 on the menu it is known what a query uses without a thought: longer thoughts do not change that."""
    menu = Menu.of([0, 64, 1024, 8192])
    tokens_Q_B = 20.0 + np.minimum(menu.budgets_B.astype(np.float64), 500.0)[None]
    longer_Q_B = stretched_tokens(tokens_Q_B, menu, 2.0)
    assert longer_Q_B[0].tolist() == [20.0, 84.0, pytest.approx(20.0 + 2 * (64 + 436 * 448 / 960)), 1020.0]
    assert stretched_tokens(tokens_Q_B, menu, 0.5)[0, 0] == 20.0
    for factor in (0.25, 0.7, 1.0, 3.0):
        assert (np.diff(stretched_tokens(tokens_Q_B, menu, factor)) >= 0).all()


class Stranger:
    """Another package's estimator with the required methods and nothing more: everyone gets the last curve."""

    def fit(self, features: Features, counts: Counts) -> Stranger:
        self.p_B_ = counts.rate_Q_B[-1]
        return self

    def predict(self, features: Features) -> tuple[np.ndarray, None]:
        return np.tile(self.p_B_, (len(features), 1)), None

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        return {}, {"p": self.p_B_}

    @classmethod
    def from_state(cls, settings: dict[str, Any], arrays: dict[str, np.ndarray]) -> Stranger:
        made = cls()
        made.p_B_ = arrays["p"]
        return made


def test_a_strangers_estimator_needs_the_required_part_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    known = {**registry.available("predictors"), "stranger": f"{__name__}:Stranger"}
    monkeypatch.setattr(registry, "available", lambda kind: known)
    monkeypatch.setattr("forethought.predictors.stack.available", lambda kind: known)
    made = make_estimator("stranger", seed=3, checkpoint="unused")
    assert isinstance(made, Estimator)
    assert isinstance(made, Stranger)
    assert (made.reads, made.is_costly, made.num_examples, made.held_out_) == (("hidden",), False, 0, None)
    data = task(60)
    states = data["features"][:, None].astype(np.float16)
    profile = Profile(
        tuple(f"q{row}" for row in range(60)), Menu.evenly(16, 96), data["right"], data["tried"], data["tokens"],
        data["tokens"], states, (7,),
    )  # fmt: skip
    trained = train(profile, predictor="stranger")
    assert trained.card.features.layer == 7
    assert trained.card.shrinkage is not None
    loaded = Predictor.load(trained.save(tmp_path / "one"))
    read = Features.of(profile, 7)
    first, second = (each.predict(profile.query_ids, read).p_Q_B for each in (trained, loaded))
    assert (first == second).all()
    stack = make_estimator("stack", {"members": "stranger,mean"}).fit(read, Counts.of(profile))
    assert stack.predict(read)[0].shape == (60, 6)
