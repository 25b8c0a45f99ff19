"""Ridge regression from hidden states to curves: closed form, one matrix product to predict."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from ..core.data import FloatArray
from ..core.features import HIDDEN, Counts, Features
from ..core.protocols import EstimatorBase
from .parts.checks import check_features, check_shape, usable
from .parts.linear import LinearCurves, RidgeProblem


class RidgePredictor(EstimatorBase):
    """Accuracy curves and expected usage as a linear function of the hidden states (`LinearCurves`).

    Attributes:
        left_out_p_Q_B_: leave-one-out predictions for the rows fitted on that had a trace; None after loading.
    """

    reads = (HIDDEN,)

    _curves: LinearCurves

    def fit(self, features: Features, counts: Counts) -> Self:
        """See `Estimator.fit`. Rows without a trace are left aside; hidden states must be finite."""
        _, features, counts = usable(features, counts)
        check_features(features.hidden)
        self._curves = LinearCurves.fit(RidgeProblem(features.hidden, counts.weight_Q), counts)
        return self

    @property
    def left_out_p_Q_B_(self) -> FloatArray | None:
        """See the class."""
        return self._curves.left_out_p_Q_B

    @property
    def penalties_(self) -> dict[str, list[float | None]]:
        """See `LinearCurves.penalties`."""
        return self._curves.penalties

    def predict(self, features: Features) -> tuple[FloatArray, FloatArray | None]:
        """See `Estimator.predict`; raises InvalidFeaturesError on NaN or a wrong width."""
        check_shape(features.hidden, width=self._curves.map.width)
        with np.errstate(invalid="ignore", over="ignore"):
            level_Q_N = self._curves.map.apply(features.hidden)
        if not np.isfinite(level_Q_N).all():  # what is not finite survives the product: looked for only then
            check_features(features.hidden)
        return self._curves.curves(level_Q_N)

    def state(self) -> tuple[dict[str, Any], dict[str, FloatArray]]:
        """See `Estimator.state`."""
        return {"num_budgets": self._curves.num_options, "penalties": self.penalties_}, self._curves.arrays()

    @classmethod
    def from_state(cls, settings: dict[str, Any], arrays: dict[str, FloatArray]) -> Self:
        """See `Estimator.from_state`."""
        made = cls()
        made._curves = LinearCurves.from_state(settings, arrays)
        return made
