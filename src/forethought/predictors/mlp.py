"""A small ensemble of one-hidden-layer networks: torch to fit, NumPy to predict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ..errors import InvalidSettingsError
from ..types import FloatArray, IntArray
from .features import HIDDEN
from .inputs import check_counts, check_features, chunks
from .linear import LinearMap, RidgeProblem, Standardizer
from .spend import SpendShape
from .success import SuccessShape

if TYPE_CHECKING:
    from torch import Tensor

VALIDATION_SHARE = 0.15
RATE_FLOOR = 1e-3  # keeps the starting bias, a logit of the mean rate, finite


@dataclass(frozen=True, slots=True)
class MlpOptions:
    """Settings of the network and its training; the defaults are those of `MlpPredictor`.

    Attributes:
        hidden_width: units of the hidden layer.
        num_members: networks in the ensemble; each has its own start and its own validation split.
        epochs: most passes over the training rows.
        patience: passes without a better validation loss before a member stops.
        batch_size: rows a step.
        learning_rate, weight_decay: of AdamW.
        dropout: share of hidden units silenced at each step.
        seed: the same seed and data give the same ensemble.
    """

    hidden_width: int
    num_members: int
    epochs: int
    patience: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    dropout: float
    seed: int

    def __post_init__(self) -> None:
        for name in ("hidden_width", "num_members", "epochs", "patience", "batch_size"):
            if getattr(self, name) < 1:
                raise InvalidSettingsError(f"mlp option {name} must be at least 1; got {getattr(self, name)}")
        if not 0.0 <= self.dropout < 1.0 or self.learning_rate <= 0.0 or self.weight_decay < 0.0:
            raise InvalidSettingsError(
                "mlp needs dropout in [0, 1), a positive learning_rate and a weight_decay of at least 0; "
                f"got {self.dropout}, {self.learning_rate}, {self.weight_decay}"
            )


class MlpPredictor:
    """Success curves from an ensemble of small networks; the spend curve is ridge regression's.

    Each member minimises the binomial likelihood of the counts and stops early on its own validation split; their
    probabilities are averaged; `SuccessShape`, judged on what the validation splits say, takes out what no training
    query shows. Weights are rounded to float16 at fit, so that a saved ensemble says what the fitted
    one said. Torch's global random state and its threads are left as they are.

    Args:
        hidden_width, num_members, epochs, patience, batch_size, learning_rate, weight_decay, dropout, seed: see
            `MlpOptions`. The defaults are strong regularisation: a few hundred queries with a few traces are the rule.

    Attributes:
        validation_losses_: best validation loss of each member, nats a trace and budget.
    """

    reads = (HIDDEN,)

    validation_losses_: list[float]

    _standardizer: Standardizer
    _members: dict[str, FloatArray]
    _success: SuccessShape
    _tokens_map: LinearMap | None
    _spend: SpendShape | None

    def __init__(
        self,
        *,
        hidden_width: int = 256,
        num_members: int = 5,
        epochs: int = 60,
        patience: int = 6,
        batch_size: int = 64,
        learning_rate: float = 3e-4,
        weight_decay: float = 1.0,
        dropout: float = 0.5,
        seed: int = 0,
    ) -> None:
        self.options = MlpOptions(
            hidden_width=hidden_width,
            num_members=num_members,
            epochs=epochs,
            patience=patience,
            batch_size=batch_size,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            dropout=dropout,
            seed=seed,
        )

    def fit(
        self,
        features_Q_D: FloatArray,
        num_right_Q_B: IntArray,
        num_tried_Q: IntArray,
        tokens_Q_B: FloatArray | None = None,
    ) -> Self:
        """See `Predictor.fit`. Rows without a trace are left aside; features must be finite."""
        rows = check_counts(num_right_Q_B, num_tried_Q, tokens_Q_B)
        check_features(features_Q_D[rows])
        weight_Q = num_tried_Q[rows].astype(np.float64)
        self._standardizer = Standardizer.fit(features_Q_D[rows], weight_Q)
        x_Q_D = self._standardizer.apply(features_Q_D[rows]).astype(np.float32)
        rate_Q_B = (num_right_Q_B[rows] / weight_Q[:, None]).astype(np.float32)
        share_Q = (weight_Q / weight_Q.mean()).astype(np.float32)
        trained = [
            _train_member(x_Q_D, rate_Q_B, share_Q, self.options, seed=self.options.seed * 1000 + member)
            for member in range(self.options.num_members)
        ]
        self.validation_losses_ = [member.loss for member in trained]
        held = np.concatenate([member.held for member in trained])
        left_out_N_B = np.concatenate([_probabilities(member.weights, x_Q_D[member.held]) for member in trained])
        self._success = SuccessShape.fit(rate_Q_B[held], weight_Q[held], left_out_N_B)
        self._members = {
            name: np.stack([member.weights[name] for member in trained]).astype(
                np.float32 if name.endswith("bias") else np.float16
            )
            for name in ("hidden_weights", "hidden_bias", "output_weights", "output_bias")
        }
        self._tokens_map = self._spend = None
        if tokens_Q_B is not None:
            problem = RidgeProblem(features_Q_D[rows], weight_Q)
            self._tokens_map = LinearMap.from_solutions(problem, problem.solve(tokens_Q_B[rows].astype(np.float64)))
            self._spend = SpendShape.fit(tokens_Q_B[rows])
        return self

    def predict(self, features_Q_D: FloatArray) -> tuple[FloatArray, FloatArray | None]:
        """See `Predictor.predict`; raises InvalidFeaturesError on NaN or a wrong width."""
        check_features(features_Q_D, width=len(self._standardizer.centre_D))
        members = {name: array.astype(np.float32) for name, array in self._members.items()}
        num_members, num_budgets = members["output_bias"].shape
        p_Q_B = np.zeros((len(features_Q_D), num_budgets), dtype=np.float32)
        for rows in chunks(len(features_Q_D)):
            x_Q_D = self._standardizer.apply(features_Q_D[rows]).astype(np.float32)
            for m in range(num_members):
                p_Q_B[rows] += _probabilities({name: array[m] for name, array in members.items()}, x_Q_D)
        p_Q_B = self._success.apply(p_Q_B / num_members)
        if self._tokens_map is None or self._spend is None:
            return p_Q_B, None
        return p_Q_B, self._spend.apply(self._tokens_map.apply(features_Q_D))

    def state(self) -> tuple[dict[str, Any], dict[str, FloatArray]]:
        """See `Predictor.state`."""
        arrays = {
            **self._members,
            **self._success.arrays(),
            "feature_centre": self._standardizer.centre_D,
            "feature_scale": self._standardizer.scale_D,
        }
        if self._tokens_map is not None and self._spend is not None:
            arrays |= {f"tokens_{name}": array for name, array in self._tokens_map.arrays().items()}
            arrays |= {"spend_lowest": self._spend.lowest_B, "spend_highest": self._spend.highest_B}
        return {"options": asdict(self.options), "validation_losses": self.validation_losses_}, arrays

    @classmethod
    def from_state(cls, settings: dict[str, Any], arrays: dict[str, FloatArray]) -> Self:
        """See `Predictor.from_state`."""
        predictor = cls(**settings["options"])
        predictor.validation_losses_ = list(settings["validation_losses"])
        predictor._standardizer = Standardizer(arrays["feature_centre"], arrays["feature_scale"])
        predictor._members = {
            name: arrays[name] for name in ("hidden_weights", "hidden_bias", "output_weights", "output_bias")
        }
        predictor._success = SuccessShape.from_arrays(arrays)
        predictor._tokens_map = predictor._spend = None
        if "spend_lowest" in arrays:
            own = {name.removeprefix("tokens_"): arrays[name] for name in arrays if name.startswith("tokens_")}
            predictor._tokens_map = LinearMap.from_arrays(own)
            predictor._spend = SpendShape(arrays["spend_lowest"], arrays["spend_highest"])
        return predictor


@dataclass(frozen=True, slots=True, eq=False)
class _Member:
    """One trained network: its weights at the epoch of its best validation loss, that loss, and the rows held out."""

    weights: dict[str, FloatArray]
    loss: float
    held: IntArray


def _probabilities(weights: Mapping[str, FloatArray], x_Q_D: FloatArray) -> FloatArray:
    """What one network says; the logistic function as a tanh, which cannot overflow."""
    hidden_Q_H = np.maximum(x_Q_D @ weights["hidden_weights"] + weights["hidden_bias"], 0.0)
    logit_Q_B = hidden_Q_H @ weights["output_weights"] + weights["output_bias"]
    value_Q_B: FloatArray = 0.5 * (1.0 + np.tanh(0.5 * logit_Q_B))
    return value_Q_B


def _train_member(
    x_Q_D: FloatArray, rate_Q_B: FloatArray, share_Q: FloatArray, options: MlpOptions, *, seed: int
) -> _Member:
    """One network, stopped early on rows of its own."""
    import torch

    random = np.random.default_rng(seed)
    order_Q = random.permutation(len(x_Q_D))
    num_validation = max(1, round(VALIDATION_SHARE * len(x_Q_D)))
    held, kept = order_Q[:num_validation], order_Q[num_validation:]
    data = [torch.from_numpy(array) for array in (x_Q_D, rate_Q_B, share_Q)]
    held_data, kept_data = ([part[torch.from_numpy(rows)] for part in data] for rows in (held, kept))
    weights = {
        name: torch.from_numpy(array.astype(np.float32)).requires_grad_()
        for name, array in _initial_weights(rate_Q_B[kept], share_Q[kept], x_Q_D.shape[1], options, random).items()
    }
    # Biases are not decayed: the mean curve is no complexity.
    optimizer = torch.optim.AdamW(
        [
            {"params": [weights["hidden_weights"], weights["output_weights"]], "weight_decay": options.weight_decay},
            {"params": [weights["hidden_bias"], weights["output_bias"]], "weight_decay": 0.0},
        ],
        lr=options.learning_rate,
    )

    best, best_loss, best_epoch = _copy(weights), _loss(weights, held_data), 0
    for epoch in range(1, options.epochs + 1):
        for batch in np.array_split(random.permutation(len(kept)), max(1, len(kept) // options.batch_size)):
            keep_H = (random.random((len(batch), options.hidden_width)) >= options.dropout) / (1.0 - options.dropout)
            with torch.enable_grad():
                rows = [part[torch.from_numpy(batch)] for part in kept_data]
                loss = _negative_log_likelihood(weights, rows, torch.from_numpy(keep_H.astype(np.float32)))
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        epoch_loss = _loss(weights, held_data)
        if epoch_loss < best_loss:
            best, best_loss, best_epoch = _copy(weights), epoch_loss, epoch
        elif epoch - best_epoch >= options.patience:
            break
    return _Member(best, best_loss, held)


def _initial_weights(
    rate_Q_B: FloatArray, share_Q: FloatArray, width: int, options: MlpOptions, random: np.random.Generator
) -> dict[str, FloatArray]:
    """He initialisation, and output weights near zero around the mean curve: an untrained network is the blind one."""
    mean_B = np.clip(np.average(rate_Q_B, axis=0, weights=share_Q), RATE_FLOOR, 1.0 - RATE_FLOOR)
    hidden = random.standard_normal((width, options.hidden_width)) * np.sqrt(2.0 / width)
    output = random.standard_normal((options.hidden_width, len(mean_B))) * 0.1 / np.sqrt(options.hidden_width)
    return {
        "hidden_weights": hidden,
        "hidden_bias": np.zeros(options.hidden_width),
        "output_weights": output,
        "output_bias": np.log(mean_B / (1.0 - mean_B)),
    }


def _negative_log_likelihood(
    weights: Mapping[str, Tensor], data: list[Tensor], keep_Q_H: Tensor | None = None
) -> Tensor:
    """Binomial negative log likelihood of the counts, a trace and budget, up to a constant."""
    from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

    x_Q_D, rate_Q_B, share_Q = data
    hidden_Q_H = (x_Q_D @ weights["hidden_weights"] + weights["hidden_bias"]).relu()
    if keep_Q_H is not None:
        hidden_Q_H = hidden_Q_H * keep_Q_H
    logit_Q_B = hidden_Q_H @ weights["output_weights"] + weights["output_bias"]
    return cross_entropy(logit_Q_B, rate_Q_B, weight=share_Q[:, None])


def _loss(weights: Mapping[str, Tensor], data: list[Tensor]) -> float:
    import torch

    with torch.no_grad():
        return float(_negative_log_likelihood(weights, data))


def _copy(weights: Mapping[str, Tensor]) -> dict[str, FloatArray]:
    return {name: tensor.detach().numpy().copy() for name, tensor in weights.items()}
