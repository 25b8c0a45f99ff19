"""Constraints on curves, learned from all training queries: how far a larger cap may lower accuracy, and usage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ...core.data import FloatArray
from ...core.features import Counts, Float64Array, chunks
from ...core.menu import Menu

BEND = 0.01  # accuracy that `make_concave` adds at most: enough to break every straight line, too little to matter
FEW_ROWS = 16  # up to which isotonic regression takes them one by one
SURE = 1.96  # standard errors from zero; what is nearer may be noise


@dataclass(frozen=True, slots=True, eq=False)
class CurveShape:
    """Turns raw regressed levels into curves that can be true.

    Accuracy: a regressed curve wiggles, and an allocator reads every fall as a reason to stop there. So each curve is
    projected, by least squares, onto those that fall from one option to the next by no more than the mean training
    curve surely does, and lie in [0, 1]. All options weigh alike in it: the same traces are behind each. Where
    thinking longer does hurt the mean, the fall stays. `fit` drops the constraint if it surely raises the squared error
    of left-out predictions: then thinking longer hurts some queries, and it is known which.

    Usage: tokens never fall from one cap to the next, and lie in the range seen. A linear map commutes with taking
    increments, so levels are regressed and the constraint is put on afterwards.

    Named options have no order: of two models the cheaper may be the better one. Their curves only lie in their ranges.

    Attributes:
        fall_B: least change of accuracy from the option before, at most 0, float32, shape (B,); None: any change.
        lowest_B, highest_B: least and most mean tokens any query was seen to use, float32, shape (B,), of caps
            non-decreasing; None where tokens were not measured.
        any_order: the options are named ones.
    """

    fall_B: FloatArray | None
    lowest_B: FloatArray | None
    highest_B: FloatArray | None
    any_order: bool = False

    @classmethod
    def fit(cls, counts: Counts, left_out_p_Q_B: FloatArray | None) -> Self:
        """Learns from what was measured of queries, and from predictions of the same rows by fits without them.

        Args:
            counts: of queries with at least one trace.
            left_out_p_Q_B: not clipped, shape (Q, B); None leaves accuracy curves as they are.
        """
        tokens_Q_B, any_order = counts.tokens_Q_B, counts.menu.is_named
        lowest_B, highest_B = (None, None) if tokens_Q_B is None else usage_range(tokens_Q_B, any_order=any_order)
        if left_out_p_Q_B is None or any_order:
            return cls(None, lowest_B, highest_B, any_order)
        rate_Q_B, share_Q = counts.rate_Q_B, counts.weight_Q / counts.weight_Q.sum()
        change_B, error_B = _mean_and_error(np.diff(rate_Q_B, axis=1, prepend=rate_Q_B[:, :1]), share_Q)
        shape = cls(np.minimum(change_B + SURE * error_B, 0.0).astype(np.float32), lowest_B, highest_B)
        free_Q_B = np.clip(left_out_p_Q_B, 0.0, 1.0)
        raised_Q_B = (shape.accuracy(left_out_p_Q_B) - rate_Q_B) ** 2 - (free_Q_B - rate_Q_B) ** 2
        raised, error = _mean_and_error((raised_Q_B * counts.width_B).mean(axis=1), share_Q)
        return cls(None, lowest_B, highest_B) if raised - SURE * error > 0.0 else shape

    def accuracy(self, level_Q_B: FloatArray) -> FloatArray:
        """The nearest accuracy curves of that shape, in [0, 1], shape (Q, B), in the type of `level_Q_B`."""
        if self.fall_B is None:
            return np.clip(level_Q_B, 0.0, 1.0)
        lowest_B = np.add.accumulate(self.fall_B).astype(level_Q_B.dtype, copy=False)
        shaped_Q_B = np.empty_like(level_Q_B)
        for rows in chunks(len(level_Q_B)):
            shaped_Q_B[rows] = isotonic(level_Q_B[rows] - lowest_B) + lowest_B
        np.maximum(shaped_Q_B, 0.0, out=shaped_Q_B)  # of one row, two of these take less time than one np.clip
        return np.minimum(shaped_Q_B, 1.0, out=shaped_Q_B)

    def usage(self, level_Q_B: FloatArray | None) -> FloatArray | None:
        """Expected usage within the range seen and non-decreasing, shape (Q, B); None without levels or a range."""
        if level_Q_B is None or self.lowest_B is None or self.highest_B is None:
            return None
        possible_Q_B = level_Q_B if self.any_order else non_decreasing(level_Q_B)
        usage_Q_B: FloatArray = np.minimum(np.maximum(possible_Q_B, self.lowest_B), self.highest_B)
        return usage_Q_B

    def arrays(self) -> dict[str, FloatArray]:
        """What was learned, by name."""
        named = {"success_fall": self.fall_B, "spend_lowest": self.lowest_B, "spend_highest": self.highest_B}
        named["any_order"] = np.ones(1, dtype=np.float32) if self.any_order else None
        return {name: array for name, array in named.items() if array is not None}

    @classmethod
    def from_arrays(cls, arrays: dict[str, FloatArray]) -> Self:
        """The shape that `arrays` described, among the arrays of an estimator."""
        any_order = "any_order" in arrays
        if "spend_lowest" not in arrays and "spend_highest" not in arrays:
            return cls(arrays.get("success_fall"), None, None, any_order)
        return cls(arrays.get("success_fall"), arrays["spend_lowest"], arrays["spend_highest"], any_order)


def usage_range(tokens_Q_B: FloatArray, *, any_order: bool = False) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Least and most tokens at each option, of caps made non-decreasing, float32, shape (B,) each."""
    lowest_B, highest_B = tokens_Q_B.min(axis=0), tokens_Q_B.max(axis=0)
    if not any_order:
        lowest_B, highest_B = np.maximum.accumulate(lowest_B), np.maximum.accumulate(highest_B)
    return lowest_B.astype(np.float32), highest_B.astype(np.float32)


def possible_usage(menu: Menu, level_Q_B: FloatArray) -> FloatArray:
    """Usage curves that can be true: of caps non-decreasing, of named options as they are."""
    return level_Q_B if menu.is_named else non_decreasing(level_Q_B)


def non_decreasing(level_Q_B: FloatArray) -> FloatArray:
    """A non-decreasing curve near each row: the middle of its running maximum and its reversed running minimum.

    A row that already never falls comes back as it was. Unlike clipping negative increments to zero it has no upward
    drift, and unlike pooling it is two passes over an array.
    """
    upper_Q_B = np.maximum.accumulate(level_Q_B, axis=1)
    lower_Q_B = np.minimum.accumulate(level_Q_B[:, ::-1], axis=1)[:, ::-1]
    middle_Q_B: FloatArray = (upper_Q_B + lower_Q_B) / 2
    return middle_Q_B


def isotonic(level_Q_B: FloatArray) -> FloatArray:
    """Isotonic regression of every row: the nearest non-decreasing curve in least squares, shape (Q, B).

    A few rows one by one, by pooling. Of many the same by the min-max formula (Barlow, Bartholomew, Bremner and Brunk,
    "Statistical Inference under Order Restrictions", 1972): at b, the largest over i <= b of the smallest over j >= b
    of the mean of i..j. For short rows that is a few passes over the whole matrix, and no loop over queries.
    """
    num_rows, num_options = level_Q_B.shape
    if num_rows <= FEW_ROWS:
        return np.array([_pooled(level_B) for level_B in level_Q_B.tolist()], dtype=level_Q_B.dtype)
    sum_Q_S = np.zeros((num_rows, num_options + 1))  # of all before each
    np.cumsum(level_Q_B, axis=1, dtype=np.float64, out=sum_Q_S[:, 1:])
    highest_Q_B = np.full((num_rows, num_options), -np.inf)
    for at in range(num_options):
        with np.errstate(invalid="ignore"):  # damaged weights give infinities: NaN then, which is refused
            mean_Q_J = sum_Q_S[:, at + 1 :] - sum_Q_S[:, at : at + 1]
        mean_Q_J /= np.arange(1, num_options - at + 1)
        smallest_Q_J = np.minimum.accumulate(mean_Q_J[:, ::-1], axis=1)[:, ::-1]
        np.maximum(highest_Q_B[:, at:], smallest_Q_J, out=highest_Q_B[:, at:])
    return highest_Q_B.astype(level_Q_B.dtype, copy=False)


def _pooled(levels: list[float]) -> list[float]:
    """Isotonic regression of one row: neighbours that fall become their mean, as often as that takes."""
    means: list[float] = []
    sizes: list[int] = []
    for mean in levels:
        size = 1
        while means and means[-1] >= mean:
            before = sizes.pop()
            mean = (means.pop() * before + mean * size) / (before + size)
            size += before
        means.append(mean)
        sizes.append(size)
    return [mean for mean, size in zip(means, sizes, strict=True) for _ in range(size)]


def make_concave(menu: Menu, p_B: FloatArray, tokens_B: FloatArray | None) -> tuple[Float64Array, Float64Array | None]:
    """Accuracy and usage, shape (B,) each, under which every option pays less a token than the one before it.

    The upper concave envelopes: usage over the cap, accuracy over usage, so that accuracy is concave over both costs.
    An allocator that is given one strictly concave curve for all divides evenly. A straight stretch would not do, since
    any split along it is worth the same: a root of the usage, of weight BEND, bends it.
    """
    budget_B = cost_B = menu.budgets_B.astype(np.float64)
    if tokens_B is not None:
        tokens_B = _envelope(budget_B, np.maximum.accumulate(np.asarray(tokens_B, dtype=np.float64)))
        cost_B = tokens_B + 1e-3 * budget_B  # late caps that no thought reaches cost nothing more: keep them apart
    p_B = _envelope(cost_B, np.maximum.accumulate(np.asarray(p_B, dtype=np.float64)))
    return (1.0 - BEND) * p_B + BEND * np.sqrt(cost_B / cost_B[-1]), tokens_B


def _envelope(x_B: Float64Array, y_B: Float64Array) -> Float64Array:
    """The upper concave envelope of points of ascending `x_B`, at each of them (Andrew's monotone chain, 1979)."""
    corners: list[int] = []
    for point in range(len(x_B)):
        while len(corners) > 1:
            left, middle = corners[-2:]
            rise, run = y_B[point] - y_B[left], x_B[point] - x_B[left]
            if (y_B[middle] - y_B[left]) * run > rise * (x_B[middle] - x_B[left]):
                break
            corners.pop()
        corners.append(point)
    return np.interp(x_B, x_B[corners], y_B[corners])


def _mean_and_error(value_Q_N: FloatArray, share_Q: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Weighted mean over the rows, and its standard error."""
    mean_N: FloatArray = share_Q @ value_Q_N
    error_N: FloatArray = np.sqrt((share_Q**2) @ (value_Q_N - mean_N) ** 2)
    return mean_N, error_N
