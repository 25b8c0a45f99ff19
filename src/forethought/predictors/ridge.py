"""Ridge regression from hidden states to curves: closed form, one matrix product to predict, the default."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from ..core.data import FloatArray, IntArray
from ..core.features import HIDDEN
from .inputs import check_counts, check_features, check_shape
from .linear import LinearMap, RidgeProblem
from .spend import SpendShape
from .success import SuccessShape


class RidgePredictor:
    """Success and spend curves as a linear function of the features.

    Targets are success rates, weighted by the traces behind them; penalties are chosen by exact leave-one-out for each
    principal component of the curves (`RidgeProblem` says how and why). `SuccessShape` then takes out what no training
    query shows.

    Attributes:
        penalties_: the penalties chosen, for "p" and "tokens", strongest component first, in mean eigenvalues;
            None stands for infinity: that component was left at its mean.
        left_out_p_Q_B_: leave-one-out predictions for the rows fitted on that had a trace; None after loading.
    """

    reads = (HIDDEN,)

    penalties_: dict[str, list[float | None]]
    left_out_p_Q_B_: FloatArray | None

    _map: LinearMap
    _success: SuccessShape
    _spend: SpendShape | None
    _num_budgets: int

    def fit(
        self,
        features_Q_D: FloatArray,
        num_right_Q_B: IntArray,
        num_tried_Q: IntArray,
        tokens_Q_B: FloatArray | None = None,
    ) -> Self:
        """See `Estimator.fit`. Rows without a trace are left aside; features must be finite."""
        rows = check_counts(num_right_Q_B, num_tried_Q, tokens_Q_B)
        check_features(features_Q_D[rows])
        problem = RidgeProblem(features_Q_D[rows], num_tried_Q[rows].astype(np.float64))
        rate_Q_B = num_right_Q_B[rows] / num_tried_Q[rows, None]
        success = problem.solve(rate_Q_B)
        solutions = {"p": success}
        self._spend = None
        if tokens_Q_B is not None:
            self._spend = SpendShape.fit(tokens_Q_B[rows])
            solutions["tokens"] = problem.solve(tokens_Q_B[rows].astype(np.float64))
        self._num_budgets = num_right_Q_B.shape[1]
        self._map = LinearMap.from_solutions(problem, *solutions.values())
        self.penalties_ = {
            name: [float(penalty) if np.isfinite(penalty) else None for penalty in solution.penalty_N]
            for name, solution in solutions.items()
        }
        self._success = SuccessShape.fit(rate_Q_B, num_tried_Q[rows].astype(np.float64), success.left_out_Q_N)
        self.left_out_p_Q_B_ = self._success.apply(success.left_out_Q_N)
        return self

    def predict(self, features_Q_D: FloatArray) -> tuple[FloatArray, FloatArray | None]:
        """See `Estimator.predict`; raises InvalidFeaturesError on NaN or a wrong width."""
        check_shape(features_Q_D, width=self._map.width)
        with np.errstate(invalid="ignore", over="ignore"):
            output_Q_N = self._map.apply(features_Q_D)
        if not np.isfinite(output_Q_N).all():  # what is not finite survives the product: looked for only then
            check_features(features_Q_D)
        p_Q_B = self._success.apply(output_Q_N[:, : self._num_budgets])
        return p_Q_B, None if self._spend is None else self._spend.apply(output_Q_N[:, self._num_budgets :])

    def state(self) -> tuple[dict[str, Any], dict[str, FloatArray]]:
        """See `Estimator.state`."""
        arrays = self._map.arrays() | self._success.arrays()
        if self._spend is not None:
            arrays |= {"spend_lowest": self._spend.lowest_B, "spend_highest": self._spend.highest_B}
        return {"num_budgets": self._num_budgets, "penalties": self.penalties_}, arrays

    @classmethod
    def from_state(cls, settings: dict[str, Any], arrays: dict[str, FloatArray]) -> Self:
        """See `Estimator.from_state`."""
        predictor = cls()
        predictor._num_budgets = int(settings["num_budgets"])
        predictor.penalties_ = settings["penalties"]
        predictor.left_out_p_Q_B_ = None
        predictor._map = LinearMap.from_arrays(arrays)
        predictor._success = SuccessShape.from_arrays(arrays)
        has_spend = "spend_lowest" in arrays
        predictor._spend = SpendShape(arrays["spend_lowest"], arrays["spend_highest"]) if has_spend else None
        return predictor
