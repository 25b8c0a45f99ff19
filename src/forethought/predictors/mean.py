"""The estimator without features: one mean curve for all queries."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from ..core.data import FloatArray
from ..core.features import Counts, Features
from ..core.protocols import EstimatorBase
from .parts.checks import usable
from .parts.shape import possible_usage


class MeanPredictor(EstimatorBase):
    """Predicts the pooled accuracy and usage of the training queries for any features.

    This is what the blind allocation knows, so it is the bar for every other estimator.
    """

    reads: tuple[str, ...] = ()

    p_B_: FloatArray
    tokens_B_: FloatArray | None

    def fit(self, features: Features, counts: Counts) -> Self:
        """See `Estimator.fit`; each trace counts the same."""
        _, _, counts = usable(features, counts)
        tries_Q_B = counts.tries_Q_B
        self.p_B_ = (counts.num_right_Q_B.sum(axis=0) / tries_Q_B.sum(axis=0)).astype(np.float32)
        self.tokens_B_ = None
        if counts.tokens_Q_B is not None:
            mean_B = (tries_Q_B * counts.tokens_Q_B).sum(axis=0) / tries_Q_B.sum(axis=0)
            self.tokens_B_ = possible_usage(counts.menu, mean_B[None])[0].astype(np.float32)
        return self

    def predict(self, features: Features) -> tuple[FloatArray, FloatArray | None]:
        """See `Estimator.predict`; only the number of queries is read."""
        shape = (len(features), 1)
        return np.tile(self.p_B_, shape), None if self.tokens_B_ is None else np.tile(self.tokens_B_, shape)

    def state(self) -> tuple[dict[str, Any], dict[str, FloatArray]]:
        """See `Estimator.state`."""
        arrays = {"p": self.p_B_}
        return {}, arrays if self.tokens_B_ is None else {**arrays, "tokens": self.tokens_B_}

    @classmethod
    def from_state(cls, settings: dict[str, Any], arrays: dict[str, FloatArray]) -> Self:
        """See `Estimator.from_state`."""
        made = cls()
        made.p_B_, made.tokens_B_ = arrays["p"], arrays.get("tokens")
        return made


def mean_curve(counts: Counts) -> tuple[FloatArray, FloatArray | None]:
    """Accuracy and tokens of the mean curve, shape (B,) each; no tokens where they were not measured."""
    mean = MeanPredictor().fit(Features(len(counts)), counts)
    return mean.p_B_, mean.tokens_B_
