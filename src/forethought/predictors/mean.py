"""The predictor that knows nothing about any query: one mean curve for all."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from ..core.data import FloatArray, IntArray, Profile
from .inputs import check_counts
from .spend import non_decreasing


class MeanPredictor:
    """Predicts the pooled success and spend of the training queries, whatever the features are.

    This is what the blind allocation knows, so it is the bar for every other predictor.
    """

    reads: tuple[str, ...] = ()

    p_B_: FloatArray
    tokens_B_: FloatArray | None

    def fit(
        self,
        features_Q_D: FloatArray,
        num_right_Q_B: IntArray,
        num_tried_Q: IntArray,
        tokens_Q_B: FloatArray | None = None,
    ) -> Self:
        """See `Estimator.fit`; each trace counts the same."""
        rows = check_counts(num_right_Q_B, num_tried_Q, tokens_Q_B)
        num_tried_Q = num_tried_Q[rows]
        self.p_B_ = (num_right_Q_B[rows].sum(axis=0) / num_tried_Q.sum()).astype(np.float32)
        self.tokens_B_ = None
        if tokens_Q_B is not None:
            mean_B = num_tried_Q @ tokens_Q_B[rows] / num_tried_Q.sum()
            self.tokens_B_ = non_decreasing(mean_B[None])[0].astype(np.float32)
        return self

    def predict(self, features_Q_D: FloatArray) -> tuple[FloatArray, FloatArray | None]:
        """See `Estimator.predict`; only the number of rows is read."""
        num_rows = len(features_Q_D)
        tokens_Q_B = None if self.tokens_B_ is None else np.tile(self.tokens_B_, (num_rows, 1))
        return np.tile(self.p_B_, (num_rows, 1)), tokens_Q_B

    def state(self) -> tuple[dict[str, Any], dict[str, FloatArray]]:
        """See `Estimator.state`."""
        arrays = {"p": self.p_B_}
        return {}, arrays if self.tokens_B_ is None else {**arrays, "tokens": self.tokens_B_}

    @classmethod
    def from_state(cls, settings: dict[str, Any], arrays: dict[str, FloatArray]) -> Self:
        """See `Estimator.from_state`."""
        predictor = cls()
        predictor.p_B_ = arrays["p"]
        predictor.tokens_B_ = arrays.get("tokens")
        return predictor


def mean_curve(profile: Profile) -> tuple[FloatArray, FloatArray | None]:
    """Success and tokens of a profile's mean curve, shape (B,) each; no tokens where they were not measured."""
    counts = (profile.num_right_Q_B, profile.num_tried_Q)
    mean = MeanPredictor().fit(np.empty((profile.num_queries, 0)), *counts, measured_tokens(profile))
    return mean.p_B_, mean.tokens_B_


def measured_tokens(profile: Profile) -> FloatArray | None:
    """Tokens to learn from; None where they were not measured: there is no spend curve to learn then."""
    return profile.tokens_Q_B if profile.is_spend_measured else None
