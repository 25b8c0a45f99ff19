"""The spend curve: expected tokens really generated at each cap, shared by every built-in predictor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from ..core.data import FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class SpendShape:
    """Turns raw regressed levels into curves that can be true: in the range that was seen, and never falling.

    Tokens at a cap are `sum of survival over windows + answer`, where survival is the share of traces still running.
    Survival cannot be negative, so a larger cap never costs less. A linear map of the features commutes with taking
    increments, so levels are regressed and the constraint is put on afterwards, which keeps the error of one window
    out of all later ones.

    Attributes:
        lowest_B, highest_B: least and most mean tokens any query was seen to use at each cap, non-decreasing,
            float32, shape (B,).
    """

    lowest_B: FloatArray
    highest_B: FloatArray

    @classmethod
    def fit(cls, tokens_Q_B: FloatArray) -> Self:
        """Learns the range from measured mean tokens, shape (Q, B)."""
        return cls(
            np.maximum.accumulate(tokens_Q_B.min(axis=0)).astype(np.float32),
            np.maximum.accumulate(tokens_Q_B.max(axis=0)).astype(np.float32),
        )

    def apply(self, level_Q_B: FloatArray) -> FloatArray:
        """Curves within the range and non-decreasing in the cap, shape (Q, B)."""
        return np.clip(non_decreasing(level_Q_B), self.lowest_B, self.highest_B)


def non_decreasing(level_Q_B: FloatArray) -> FloatArray:
    """A non-decreasing curve near each row: the middle of its running maximum and its reversed running minimum.

    Both bounds are non-decreasing, so their mean is; a row that already never falls comes back as it was. Unlike
    clipping negative increments to zero it has no upward drift, and unlike pooling it is two passes over an array.
    """
    upper_Q_B = np.maximum.accumulate(level_Q_B, axis=1)
    lower_Q_B = np.minimum.accumulate(level_Q_B[:, ::-1], axis=1)[:, ::-1]
    middle_Q_B: FloatArray = (upper_Q_B + lower_Q_B) / 2
    return middle_Q_B
