"""Shrinkage of a predictor to the mean curve, estimated on left-out queries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..core.data import FloatArray, IntArray
from ..core.features import Counts, HeldOut
from ..errors import InvalidSettingsError
from .parts.shape import possible_usage

MOST_Z = 999.0  # surer than sure: a number for a card where predictions are the truth itself


@dataclass(frozen=True, slots=True)
class Shrinkage:
    """The share that is kept of what sets a query's predicted curves apart from the mean curve.

    Least squares says how large left-out deviations from the mean curve should have been (one slope), and how sure that
    is: z standard errors from zero. On noise z squared is 1 on average, so a part 1 / z^2 of the slope is what noise
    alone gives, and it is taken off: the positive-part rule of James and Stein ("Estimation with quadratic loss",
    1961). Strong evidence keeps nearly all, none keeps nothing. Errors weigh by the tokens an option stands for.

    Attributes:
        accuracy: share kept of the accuracy curves' deviations, in [0, 1].
        accuracy_z: standard errors between no use at all and what was found; negative: worse than the mean curve.
        usage, usage_z: the same for expected usage; None where there is none.
    """

    accuracy: float
    accuracy_z: float
    usage: float | None
    usage_z: float | None

    def __post_init__(self) -> None:
        for name, share in (("accuracy", self.accuracy), ("usage", self.usage)):
            if share is not None and not 0.0 <= share <= 1.0:
                raise InvalidSettingsError(f"card.shrinkage.{name} must be a share between 0 and 1; got {share!r}")

    @property
    def evidence(self) -> str:
        """As text, the evidence that predictions distinguish queries."""
        usage = "" if self.usage_z is None else f" for accuracy, {self.usage_z:.1f} for usage"
        return f"evidence: {self.accuracy_z:.1f} standard errors{usage}"

    @classmethod
    def fit(cls, left: LeftOut, rows: NDArray[np.bool_] | None = None) -> Self:
        """Learns the shares from some of the left-out queries, a mask of them; None for all."""
        rows = np.ones(len(left.counts), dtype=bool) if rows is None else rows
        counts, weight_N = left.counts.select(np.flatnonzero(rows)), left.counts.weight_Q[rows]
        accuracy = _kept(left.p_N_B[rows], left.mean_p_N_B[rows], counts.rate_Q_B, weight_N, counts.width_B)
        if left.tokens_N_B is None or left.mean_tokens_N_B is None or counts.tokens_Q_B is None:
            return cls(*accuracy, None, None)
        levels = (left.tokens_N_B[rows], left.mean_tokens_N_B[rows], counts.tokens_Q_B)
        return cls(*accuracy, *_kept(*levels, weight_N, counts.width_B))

    def apply(
        self,
        p_Q_B: FloatArray,
        tokens_Q_B: FloatArray | None,
        mean_p_B: FloatArray,
        mean_tokens_B: FloatArray | None,
        *,
        any_order: bool = False,
    ) -> tuple[FloatArray, FloatArray | None]:
        """Predicted curves shrunk to the mean curve, shape (B,) or (Q, B); where nothing is kept, exactly it.

        Usage is made to not fall by rounding, but for `any_order`: of named options it may.
        """
        p_Q_B = np.minimum(np.maximum(_mixed(p_Q_B, mean_p_B, self.accuracy), 0.0), 1.0)
        if tokens_Q_B is not None and mean_tokens_B is not None and self.usage is not None:
            tokens_Q_B = _mixed(tokens_Q_B, mean_tokens_B, self.usage)
            tokens_Q_B = tokens_Q_B if any_order else np.maximum.accumulate(tokens_Q_B, axis=1)
        return p_Q_B, tokens_Q_B


NOTHING_KNOWN = Shrinkage(0.0, 0.0, 0.0, 0.0)  # of too few queries to hold some out


@dataclass(frozen=True, slots=True, eq=False)
class LeftOut:
    """Predictions for N left-out queries, with their measurements and the mean curves of the other queries.

    Attributes:
        counts: measured of these queries.
        rows: which they are of what was learned from.
        fold_N: which fit predicted each.
        p_N_B, tokens_N_B: predicted; tokens None where they were not measured or not kept.
        mean_p_N_B, mean_tokens_N_B: mean curve of the queries outside the fold.
    """

    counts: Counts
    rows: IntArray
    fold_N: IntArray
    p_N_B: FloatArray
    tokens_N_B: FloatArray | None
    mean_p_N_B: FloatArray
    mean_tokens_N_B: FloatArray | None

    @classmethod
    def of(cls, counts: Counts, held: HeldOut) -> Self:
        """Adds the mean curves to predictions of rows of `counts`: those of all queries outside the fold."""
        weight_Q, tokens_N_B = counts.weight_Q, held.tokens_N_B
        mean_p_N_B = _mean_outside(counts.rate_Q_B, weight_Q, held)
        mean_tokens_N_B = None
        if tokens_N_B is not None and counts.tokens_Q_B is not None:
            mean_tokens_N_B = possible_usage(counts.menu, _mean_outside(counts.tokens_Q_B, weight_Q, held))
        return cls(
            counts.select(held.rows), held.rows, held.fold_N, held.p_N_B, tokens_N_B, mean_p_N_B, mean_tokens_N_B
        )

    @property
    def num_folds(self) -> int:
        """How many fits."""
        return len(np.unique(self.fold_N))

    def shrunk(self) -> FloatArray:
        """Accuracy curves as a plan would see them: each fold's shares are learned on the others, shape (N, B)."""
        p_N_B = np.array(self.p_N_B, dtype=np.float64)
        for fold in np.unique(self.fold_N):
            is_held_N = self.fold_N == fold
            shares = Shrinkage.fit(self, ~is_held_N if self.num_folds > 1 else is_held_N)
            p_N_B[is_held_N], _ = shares.apply(p_N_B[is_held_N], None, self.mean_p_N_B[is_held_N], None)
        return p_N_B


def _kept(
    level_N_B: FloatArray, mean_N_B: FloatArray, seen_N_B: FloatArray, weight_N: FloatArray, width_B: FloatArray
) -> tuple[float, float]:
    """The share of the deviations to keep, and the standard errors behind it."""
    deviation_N_B, target_N_B = level_N_B.astype(np.float64) - mean_N_B, seen_N_B - mean_N_B
    share_N = weight_N / weight_N.sum()
    product_N, square_N = (deviation_N_B * target_N_B) @ width_B, deviation_N_B**2 @ width_B
    spread = float(share_N @ square_N)
    if spread <= 1e-9 * float(share_N @ (mean_N_B**2 @ width_B)):  # the mean curve, but for rounding
        return 0.0, 0.0
    slope = float(share_N @ product_N) / spread
    # A query's caps share its traces: queries are what is independent.
    error = float(np.sqrt(share_N**2 @ (product_N - slope * square_N) ** 2)) / spread
    z = min(slope / max(error, 1e-12), MOST_Z)
    return (float(np.clip(slope * (1.0 - 1.0 / z**2), 0.0, 1.0)) if z > 1.0 else 0.0), z


def _mean_outside(level_Q_B: FloatArray, weight_Q: FloatArray, held: HeldOut) -> FloatArray:
    """Weighted mean over all rows but those of each one's own fold, shape (N, B)."""
    weighted_Q_B = level_Q_B * weight_Q[:, None]
    mean_N_B = np.empty((len(held.rows), level_Q_B.shape[1]))
    for fold in np.unique(held.fold_N):
        is_held_N = held.fold_N == fold
        is_seen_Q = np.ones(len(level_Q_B), dtype=bool)
        is_seen_Q[held.rows[is_held_N]] = False
        if not is_seen_Q.any():
            is_seen_Q[:] = True
        mean_N_B[is_held_N] = weighted_Q_B[is_seen_Q].sum(axis=0) / weight_Q[is_seen_Q].sum()
    return mean_N_B


def _mixed(level_Q_B: FloatArray, mean_B: FloatArray, share: float) -> FloatArray:
    if share >= 1.0:
        return level_Q_B
    mean_B = np.asarray(mean_B, dtype=level_Q_B.dtype)
    mixed_Q_B: FloatArray = mean_B + level_Q_B.dtype.type(share) * (level_Q_B - mean_B)
    return mixed_Q_B
