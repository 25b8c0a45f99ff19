"""What the success curve of a query may look like, learned from all of them: how far a longer cap may lower it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..core.data import FloatArray
from ..core.features import chunks

SURE = 1.96  # standard errors from zero; what is nearer may be noise


@dataclass(frozen=True, slots=True, eq=False)
class SuccessShape:
    """Takes falls out of regressed curves that the training queries do not show.

    A regressed curve wiggles, and an allocator reads every fall as a reason to stop there: it then leaves tokens
    unspent that uniform spends well. So each curve is projected, by least squares, onto those that fall from one cap to
    the next by no more than the mean training curve surely does, and lie in [0, 1]. Where thinking longer does hurt the
    mean (accuracy that dips before it rises, overthinking) the fall stays. `fit` drops the constraint if it surely
    raises the squared error of left-out predictions: then thinking longer hurts some queries, and it is known which.

    Attributes:
        fall_B: least change from the cap before, at most 0, float32, shape (B,), the first one 0; None: any change.
    """

    fall_B: FloatArray | None

    @classmethod
    def fit(cls, rate_Q_B: FloatArray, weight_Q: FloatArray, left_out_Q_B: FloatArray) -> Self:
        """Learns the falls from measured rates, and whether they help from predictions made without each row.

        Args:
            rate_Q_B: share of traces right, shape (Q, B).
            weight_Q: positive weights, shape (Q,): traces tried.
            left_out_Q_B: predictions for the same rows by a fit that did not see them, not clipped, shape (Q, B).
        """
        share_Q = weight_Q / weight_Q.sum()
        change_B, error_B = _mean_and_error(np.diff(rate_Q_B, axis=1, prepend=rate_Q_B[:, :1]), share_Q)
        shape = cls(np.minimum(change_B + SURE * error_B, 0.0).astype(np.float32))
        free_Q_B = np.clip(left_out_Q_B, 0.0, 1.0)
        raised_Q_B = (shape.apply(left_out_Q_B) - rate_Q_B) ** 2 - (free_Q_B - rate_Q_B) ** 2
        raised, error = _mean_and_error(raised_Q_B.mean(axis=1), share_Q)
        return cls(None) if raised - SURE * error > 0.0 else shape

    def apply(self, level_Q_B: FloatArray) -> FloatArray:
        """The nearest curves of that shape, in [0, 1], shape (Q, B), in the type of `level_Q_B`."""
        if self.fall_B is None:
            return np.clip(level_Q_B, 0.0, 1.0)
        lowest_B = np.cumsum(self.fall_B).astype(level_Q_B.dtype)
        shaped_Q_B = np.empty_like(level_Q_B)
        for rows in chunks(len(level_Q_B)):
            shaped_Q_B[rows] = isotonic(level_Q_B[rows] - lowest_B) + lowest_B
        return np.clip(shaped_Q_B, 0.0, 1.0, out=shaped_Q_B)

    def arrays(self) -> dict[str, FloatArray]:
        """What was learned, by name; empty when curves are left as they are."""
        return {} if self.fall_B is None else {"success_fall": self.fall_B}

    @classmethod
    def from_arrays(cls, arrays: dict[str, FloatArray]) -> Self:
        """The shape that `arrays` described, among the arrays of a predictor."""
        return cls(arrays.get("success_fall"))


def isotonic(level_Q_B: FloatArray) -> FloatArray:
    """Isotonic regression of every row: the nearest non-decreasing curve in least squares, shape (Q, B).

    By the min-max formula (Barlow, Bartholomew, Bremner and Brunk, "Statistical Inference under Order Restrictions",
    1972): at b, the largest over i <= b of the smallest over j >= b of the mean of i..j. For short rows that is a few
    passes over the whole matrix, where pooling adjacent violators would be a loop over queries.
    """
    num_budgets = level_Q_B.shape[1]
    highest_Q_B = np.full_like(level_Q_B, -np.inf)
    for first in range(num_budgets):
        length_J: NDArray[np.int64] = np.arange(1, num_budgets - first + 1)
        mean_Q_J = np.cumsum(level_Q_B[:, first:], axis=1) / length_J.astype(level_Q_B.dtype)
        smallest_Q_J = np.minimum.accumulate(mean_Q_J[:, ::-1], axis=1)[:, ::-1]
        np.maximum(highest_Q_B[:, first:], smallest_Q_J, out=highest_Q_B[:, first:])
    return highest_Q_B


def _mean_and_error(value_Q_N: FloatArray, share_Q: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Weighted mean over the rows, and its standard error."""
    mean_N: FloatArray = share_Q @ value_Q_N
    error_N: FloatArray = np.sqrt((share_Q**2) @ (value_Q_N - mean_N) ** 2)
    return mean_N, error_N
