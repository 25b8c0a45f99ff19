"""The network of arXiv 2602.01237 with the settings of the paper, for comparison."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

import numpy as np

from ..core.data import FloatArray, IntArray
from ..core.features import HIDDEN, Counts, Features, chunks
from ..core.protocols import EstimatorBase
from ..core.showing import Progress, silent
from .parts.checks import check_features, usable
from .parts.linear import LinearMap, RidgeProblem
from .parts.network import NAMES, Adam, Weights, forward, gradients
from .parts.shape import CurveShape

HIDDEN_WIDTH = 256
EPOCHS = 25
BATCH_SIZE = 32
LEARNING_RATE = 1e-3


class PaperMlpPredictor(EstimatorBase):
    """One hidden layer of 256 rectified units and a sigmoid for each budget, on the features as they are.

    After Brown, Muppidi and Shahout, "Predictive Scheduling for Efficient Inference-Time Reasoning in Large Language
    Models" (arXiv 2602.01237): mean squared error against the measured rates, Adam at 1e-3, batches of 32, 25 passes,
    the last one kept. Nothing is standardised, weighted, stopped early or averaged; `mlp` does all of these. What the
    paper does not say is as is usual: weights start uniform within one over the root of the inputs. Expected usage,
    which the paper does not have, is ridge regression's.

    Args:
        seed: of the initial weights and of the order of the rows.
        progress: called with what is being done, steps done and steps in all.
    """

    takes = ("seed", "progress")
    reads = (HIDDEN,)

    _weights: Weights
    _tokens_map: LinearMap | None
    _shape: CurveShape

    def __init__(self, *, seed: int = 0, progress: Progress = silent) -> None:
        self.seed, self._progress = seed, progress

    def fit(self, features: Features, counts: Counts) -> Self:
        """See `Estimator.fit`. Rows without a trace are left aside; hidden states must be finite."""
        _, features, counts = usable(features, counts)
        check_features(features.hidden)
        x_Q_D, width_B = features.hidden.astype(np.float32), counts.width_B.astype(np.float32)
        random = np.random.default_rng(self.seed)
        self._weights = _trained(x_Q_D, counts.rate_Q_B.astype(np.float32), width_B, random, self._progress)
        self._shape, self._tokens_map = CurveShape.fit(counts, None), None
        if counts.tokens_Q_B is not None:
            problem = RidgeProblem(features.hidden, counts.weight_Q)
            solution = problem.solve(counts.tokens_Q_B.astype(np.float64), counts.width_B)
            self._tokens_map = LinearMap.from_solutions(problem, solution)
        return self

    def predict(self, features: Features) -> tuple[FloatArray, FloatArray | None]:
        """See `Estimator.predict`; raises InvalidFeaturesError on NaN or a wrong width."""
        check_features(features.hidden, width=len(self._weights["hidden_weights"]))
        p_Q_B = np.empty((len(features), len(self._weights["output_bias"])), dtype=np.float32)
        for rows in chunks(len(features)):
            p_Q_B[rows] = forward(self._weights, features.hidden[rows].astype(np.float32, copy=False))[1]
        level_Q_B = None if self._tokens_map is None else self._tokens_map.apply(features.hidden)
        return p_Q_B, self._shape.usage(level_Q_B)

    def state(self) -> tuple[dict[str, Any], dict[str, FloatArray]]:
        """See `Estimator.state`."""
        arrays = {**self._weights, **self._shape.arrays()}
        if self._tokens_map is not None:
            arrays |= self._tokens_map.arrays("tokens_")
        return {"seed": self.seed}, arrays

    @classmethod
    def from_state(cls, settings: dict[str, Any], arrays: dict[str, FloatArray]) -> Self:
        """See `Estimator.from_state`."""
        made = cls(seed=int(settings["seed"]))
        made._weights = {name: arrays[name] for name in NAMES}
        made._shape = CurveShape.from_arrays(arrays)
        made._tokens_map = None if made._shape.lowest_B is None else LinearMap.from_arrays(arrays, "tokens_")
        return made


def _trained(
    x_Q_D: FloatArray, rate_Q_B: FloatArray, width_B: FloatArray, random: np.random.Generator, progress: Progress
) -> Weights:
    """The weights after the last pass."""
    weights = _start(x_Q_D.shape[1], rate_Q_B.shape[1], random)
    adam = Adam(weights)
    for epoch in range(EPOCHS):
        progress("train the network", epoch, EPOCHS)
        for rows in _batches(len(x_Q_D), random):
            adam.step(_gradients(weights, x_Q_D[rows], rate_Q_B[rows], width_B), LEARNING_RATE)
    progress("train the network", EPOCHS, EPOCHS)
    return weights


def _start(width: int, num_budgets: int, random: np.random.Generator) -> Weights:
    def uniform(inputs: int, *shape: int) -> FloatArray:
        return random.uniform(-(inputs**-0.5), inputs**-0.5, size=shape).astype(np.float32)

    return {
        "hidden_weights": uniform(width, width, HIDDEN_WIDTH),
        "hidden_bias": uniform(width, HIDDEN_WIDTH),
        "output_weights": uniform(HIDDEN_WIDTH, HIDDEN_WIDTH, num_budgets),
        "output_bias": uniform(HIDDEN_WIDTH, num_budgets),
    }


def _batches(num_rows: int, random: np.random.Generator) -> Iterator[IntArray]:
    """The rows of one pass, in random order."""
    order_Q = random.permutation(num_rows)
    for start in range(0, num_rows, BATCH_SIZE):
        yield order_Q[start : start + BATCH_SIZE]


def _gradients(weights: Weights, x_Q_D: FloatArray, rate_Q_B: FloatArray, width_B: FloatArray) -> Weights:
    """Of the mean squared error over rows and, by their tokens, budgets."""
    hidden_Q_H, p_Q_B = forward(weights, x_Q_D)
    by_logit_Q_B = np.float32(2.0 / p_Q_B.size) * width_B * (p_Q_B - rate_Q_B) * p_Q_B * (1 - p_Q_B)
    return gradients(weights, x_Q_D, hidden_Q_H, by_logit_Q_B)
