"""The accuracy of a baseline at any cost, so that policies are compared at equal realised costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from ..core.data import FloatArray, IntArray


@dataclass(frozen=True, slots=True, eq=False)
class Frontier:
    """Accuracy against realised cost, in tokens or USD, as straight lines between what single options reach.

    A line is not an approximation here: giving option a to a random share s of the queries and the next one to the
    rest costs s*cost_a + (1-s)*cost_b and is right s*accuracy_a + (1-s)*accuracy_b of the time, in expectation.
    Before the first option and after the last the frontier is flat.

    Attributes:
        cost_R_B: mean realised cost of each option, ascending; one row a resample, shape (R, B).
        accuracy_R_B: mean accuracy of each option, shape (R, B).
    """

    cost_R_B: FloatArray
    accuracy_R_B: FloatArray

    @classmethod
    def through(cls, cost_R_B: FloatArray, accuracy_R_B: FloatArray) -> Self:
        """The frontier through measured points: each resample's options in order of what they cost there.

        Also of caps, of which a later one may cost less: a thought that ends by itself needs no forced suffix.
        """
        order_R_B = np.argsort(cost_R_B, axis=1, kind="stable")
        return cls(*(np.take_along_axis(each_R_B, order_R_B, axis=1) for each_R_B in (cost_R_B, accuracy_R_B)))

    def accuracy_at(self, cost_R: FloatArray) -> FloatArray:
        """Accuracy at each resample's own cost, shape (R,)."""
        num_points = self.cost_R_B.shape[1]
        num_below_R = (self.cost_R_B <= cost_R[:, None]).sum(axis=1)
        left_R = np.clip(num_below_R - 1, 0, num_points - 1)
        right_R = np.clip(num_below_R, 0, num_points - 1)
        left_cost_R, right_cost_R = _pick(self.cost_R_B, left_R), _pick(self.cost_R_B, right_R)
        share_R = _divide(cost_R - left_cost_R, right_cost_R - left_cost_R)
        left_accuracy_R = _pick(self.accuracy_R_B, left_R)
        return left_accuracy_R + share_R * (_pick(self.accuracy_R_B, right_R) - left_accuracy_R)

    def cost_for(self, accuracy_R: FloatArray) -> FloatArray:
        """Lowest cost at which the frontier first reaches an accuracy, shape (R,); infinite where it never does."""
        reached_R_B = self.accuracy_R_B >= accuracy_R[:, None] - 1e-12
        right_R = reached_R_B.argmax(axis=1)
        left_R = np.maximum(right_R - 1, 0)
        left_accuracy_R, right_accuracy_R = _pick(self.accuracy_R_B, left_R), _pick(self.accuracy_R_B, right_R)
        share_R = _divide(accuracy_R - left_accuracy_R, right_accuracy_R - left_accuracy_R)
        left_cost_R = _pick(self.cost_R_B, left_R)
        cost_R = left_cost_R + share_R * (_pick(self.cost_R_B, right_R) - left_cost_R)
        return np.where(reached_R_B.any(axis=1), cost_R, np.inf)


def times_used(needed_R: FloatArray, used_R: FloatArray) -> FloatArray:
    """Needed as a multiple of used, shape (R,): where nothing is used, 1 if nothing is needed and else infinite."""
    free_R = np.where(needed_R > 0, np.inf, 1.0)
    return np.divide(needed_R, used_R, out=free_R, where=used_R > 0)


def shares_for(cost_B: FloatArray, columns: IntArray, target: float) -> FloatArray:
    """Share of the queries to put on each option so that the mean cost is `target`, shape (B,).

    Only the two neighbours in cost, among `columns`, that enclose the target get a share. Outside their range the
    nearest gets all.
    """
    share_B = np.zeros(len(cost_B))
    columns = columns[np.argsort(cost_B[columns], kind="stable")]
    costs = cost_B[columns]
    num_below = int((costs <= target).sum())
    left, right = max(num_below - 1, 0), min(num_below, len(columns) - 1)
    width = costs[right] - costs[left]
    share = min(1.0, max(0.0, (target - costs[left]) / width)) if width > 0 else 0.0
    share_B[columns[left]] += 1.0 - share
    share_B[columns[right]] += share
    return share_B


def _pick(values_R_B: FloatArray, column_R: IntArray) -> FloatArray:
    return np.take_along_axis(values_R_B, column_R[:, None], axis=1)[:, 0]


def _divide(part_R: FloatArray, whole_R: FloatArray) -> FloatArray:
    """Share of the way along, in [0, 1]; 0 on a segment without length."""
    return np.clip(np.divide(part_R, whole_R, out=np.zeros_like(part_R), where=whole_R > 0), 0.0, 1.0)
