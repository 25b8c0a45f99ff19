"""Curves from the question's text alone, with no model at all: the default where there are no hidden states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from ..core.data import FloatArray, IntArray
from ..core.features import TEXT, Features
from .inputs import check_counts
from .linear import LinearMap, RidgeProblem
from .spend import SpendShape
from .success import SuccessShape
from .wording import Wording

NUM_WAVES = 512


class TextPredictor:
    """Success and spend curves as a linear function of a question's wording (`Wording`) and of waves of its counts.

    Ridge regression as in `RidgePredictor`: penalties by exact leave-one-out for each principal component of the
    curves. The waves are random Fourier features (Rahimi and Recht, 2007) of a Gaussian kernel, under which questions
    of about the same counts are alike. Under a millisecond a query on a CPU, under 5 MB on disk, nothing but NumPy.

    Args:
        seed: of the randomised decomposition of the words, and of the waves.

    Attributes:
        left_out_p_Q_B_: leave-one-out predictions for the rows fitted on that had a trace; the words' directions saw
            all rows' texts, never their counts. None after loading.
    """

    reads = (TEXT,)

    left_out_p_Q_B_: FloatArray | None

    _wording: Wording
    _wave_C_R: FloatArray
    _phase_R: FloatArray
    _map: LinearMap
    _success: SuccessShape
    _spend: SpendShape | None
    _num_budgets: int

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed

    def fit(
        self,
        features: Features,
        num_right_Q_B: IntArray,
        num_tried_Q: IntArray,
        tokens_Q_B: FloatArray | None = None,
    ) -> Self:
        """See `Estimator.fit`; reads the texts of `features`."""
        features.check(frozenset({TEXT}))
        assert features.texts is not None
        rows = check_counts(num_right_Q_B, num_tried_Q, tokens_Q_B)
        texts = [features.texts[row] for row in rows]
        self._wording = Wording.fit(texts, seed=self.seed)
        weight_Q = num_tried_Q[rows].astype(np.float64)
        rate_Q_B = num_right_Q_B[rows] / weight_Q[:, None]
        random, num_counts = np.random.default_rng(self.seed), self._wording.num_counts
        # A distance of the counts' own spread, in the mean, is where the kernel has fallen to exp(-1/2).
        wave_C_R = random.standard_normal((num_counts, NUM_WAVES)) / np.sqrt(2 * num_counts)
        self._wave_C_R = wave_C_R.astype(np.float16)
        self._phase_R = random.uniform(0, 2 * np.pi, NUM_WAVES).astype(np.float32)
        problem = RidgeProblem(self._vectors(texts), weight_Q, is_scaled=True)
        success = problem.solve(rate_Q_B)
        solutions = [success]
        self._spend = None
        if tokens_Q_B is not None:
            self._spend = SpendShape.fit(tokens_Q_B[rows])
            solutions.append(problem.solve(tokens_Q_B[rows].astype(np.float64)))
        self._num_budgets = num_right_Q_B.shape[1]
        self._map = LinearMap.from_solutions(problem, *solutions)
        self._success = SuccessShape.fit(rate_Q_B, weight_Q, success.left_out_Q_N)
        self.left_out_p_Q_B_ = self._success.apply(success.left_out_Q_N)
        return self

    def _vectors(self, texts: Sequence[str]) -> FloatArray:
        """Counts, words and waves of each text; the waves weigh as much as the counts, shape (Q, N)."""
        vector_Q_N = self._wording.apply(texts)
        count_Q_C = vector_Q_N[:, : self._wording.num_counts]
        wave_Q_R = np.cos(count_Q_C @ self._wave_C_R.astype(np.float32) + self._phase_R)
        scale = np.float32(np.sqrt(2 * self._wording.num_counts / NUM_WAVES))
        return np.concatenate([vector_Q_N, scale * wave_Q_R], axis=1)

    def predict(self, features: Features) -> tuple[FloatArray, FloatArray | None]:
        """See `Estimator.predict`."""
        features.check(frozenset({TEXT}))
        output_Q_N = self._map.apply(self._vectors(features.texts or ()))
        p_Q_B = self._success.apply(output_Q_N[:, : self._num_budgets])
        return p_Q_B, None if self._spend is None else self._spend.apply(output_Q_N[:, self._num_budgets :])

    def state(self) -> tuple[dict[str, Any], dict[str, FloatArray]]:
        """See `Estimator.state`."""
        arrays = self._wording.arrays() | self._map.arrays() | self._success.arrays()
        arrays |= {"wave": self._wave_C_R, "wave_phase": self._phase_R}
        if self._spend is not None:
            arrays |= {"spend_lowest": self._spend.lowest_B, "spend_highest": self._spend.highest_B}
        return {"num_budgets": self._num_budgets, "seed": self.seed}, arrays

    @classmethod
    def from_state(cls, settings: dict[str, Any], arrays: dict[str, FloatArray]) -> Self:
        """See `Estimator.from_state`."""
        predictor = cls(seed=int(settings["seed"]))
        predictor._num_budgets = int(settings["num_budgets"])
        predictor.left_out_p_Q_B_ = None
        predictor._wording = Wording.from_arrays(arrays)
        predictor._wave_C_R, predictor._phase_R = arrays["wave"], arrays["wave_phase"]
        predictor._map = LinearMap.from_arrays(arrays)
        predictor._success = SuccessShape.from_arrays(arrays)
        has_spend = "spend_lowest" in arrays
        predictor._spend = SpendShape(arrays["spend_lowest"], arrays["spend_highest"]) if has_spend else None
        return predictor
