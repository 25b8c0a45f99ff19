"""How good predicted curves are, judged against counts of sampled traces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..core.data import FloatArray, IntArray

# Predictions are moved this far from 0 and 1 before their logarithm is taken: one trace that comes right where a
# predictor said "never" then costs 4.6, not infinity. The same for every predictor that is compared.
PROBABILITY_FLOOR = 0.01


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Predictions between `lower` and `upper`: what was said on average, and how often it was so.

    Attributes:
        predicted: mean prediction in the bin.
        observed: share of traces right in the bin.
        num_traces: traces behind `observed` (one trace counts once at each budget).
    """

    lower: float
    upper: float
    predicted: float
    observed: float
    num_traces: int


def binomial_log_loss(p_Q_B: FloatArray, num_right_Q_B: IntArray, num_tried_Q: IntArray) -> float:
    """Mean negative log likelihood of one trace at one budget, in nats; `PROBABILITY_FLOOR` bounds it."""
    return float((log_loss_Q(p_Q_B, num_right_Q_B, num_tried_Q) @ num_tried_Q) / num_tried_Q.sum())


def log_loss_Q(p_Q_B: FloatArray, num_right_Q_B: IntArray, num_tried_Q: IntArray) -> FloatArray:
    """The same for each query, shape (Q,); 0 without a trace."""
    p_Q_B = np.clip(p_Q_B.astype(np.float64), PROBABILITY_FLOOR, 1.0 - PROBABILITY_FLOOR)
    num_wrong_Q_B = num_tried_Q[:, None] - num_right_Q_B
    loss_Q_B = -(num_right_Q_B * np.log(p_Q_B) + num_wrong_Q_B * np.log1p(-p_Q_B))
    loss_Q: FloatArray = loss_Q_B.mean(axis=1) / np.maximum(num_tried_Q, 1)
    return loss_Q


def brier_score(p_Q_B: FloatArray, num_right_Q_B: IntArray, num_tried_Q: IntArray) -> float:
    """Mean squared error against single traces: `p^2 - 2 p r/n + r/n`, unbiased for any number of traces."""
    p_Q_B = p_Q_B.astype(np.float64)
    loss_Q_B = num_tried_Q[:, None] * p_Q_B**2 - 2.0 * p_Q_B * num_right_Q_B + num_right_Q_B
    return float(loss_Q_B.sum() / _num_outcomes(num_right_Q_B, num_tried_Q))


def curve_error(p_Q_B: FloatArray, num_right_Q_B: IntArray, num_tried_Q: IntArray) -> float:
    """Mean squared error against the true curves, which are not seen: the sampling noise is subtracted.

    Unbiased: `E[(p - r/n)^2] = (p - true)^2 + variance of r/n`, and `r (n - r) / (n^2 (n - 1))` estimates that
    variance. It may come out a little below zero for near-perfect predictions. Queries with fewer than two traces
    say nothing about their own noise and are left aside; NaN when there are no others.
    """
    rows = np.flatnonzero(num_tried_Q >= 2)
    if not len(rows):
        return float("nan")
    num_right_Q_B, num_tried_Q_1 = num_right_Q_B[rows], num_tried_Q[rows, None].astype(np.float64)
    noise_Q_B = num_right_Q_B * (num_tried_Q_1 - num_right_Q_B) / (num_tried_Q_1**2 * (num_tried_Q_1 - 1.0))
    return float(((p_Q_B[rows] - num_right_Q_B / num_tried_Q_1) ** 2 - noise_Q_B).mean())


def reliability_bins(
    p_Q_B: FloatArray, num_right_Q_B: IntArray, num_tried_Q: IntArray, *, num_bins: int = 10
) -> tuple[ReliabilityBin, ...]:
    """Predictions in bins of equal width over [0, 1], empty bins left out."""
    bin_Q_B = np.minimum((p_Q_B * num_bins).astype(np.int64), num_bins - 1).ravel()
    tried_Q_B = np.broadcast_to(num_tried_Q[:, None], p_Q_B.shape).ravel().astype(np.float64)
    tried_N = np.bincount(bin_Q_B, tried_Q_B, num_bins)
    predicted_N = np.bincount(bin_Q_B, tried_Q_B * p_Q_B.ravel(), num_bins)
    right_N = np.bincount(bin_Q_B, num_right_Q_B.ravel(), num_bins)
    return tuple(
        ReliabilityBin(
            lower=n / num_bins,
            upper=(n + 1) / num_bins,
            predicted=float(predicted_N[n] / tried_N[n]),
            observed=float(right_N[n] / tried_N[n]),
            num_traces=int(tried_N[n]),
        )
        for n in range(num_bins)
        if tried_N[n] > 0
    )


def calibration_error(bins: tuple[ReliabilityBin, ...]) -> float:
    """Mean distance of predicted and observed over the bins, weighted by traces (expected calibration error)."""
    num_traces = sum(each.num_traces for each in bins)
    return sum(each.num_traces * abs(each.predicted - each.observed) for each in bins) / num_traces


def correlation_B(p_Q_B: FloatArray, num_right_Q_B: IntArray, num_tried_Q: IntArray) -> NDArray[np.float64]:
    """Pearson correlation of predicted and measured success at each budget; 0 where either does not vary."""
    rows = np.flatnonzero(num_tried_Q > 0)
    predicted_Q_B = p_Q_B[rows].astype(np.float64)
    rate_Q_B = num_right_Q_B[rows] / num_tried_Q[rows, None]
    predicted_Q_B = predicted_Q_B - predicted_Q_B.mean(axis=0)
    rate_Q_B = rate_Q_B - rate_Q_B.mean(axis=0)
    norm_B = np.sqrt((predicted_Q_B**2).sum(axis=0) * (rate_Q_B**2).sum(axis=0))
    # Rows of one mean curve differ from their mean by rounding only: that is no variation.
    varies_B = norm_B > 1e-9 * len(rows)
    return np.where(varies_B, (predicted_Q_B * rate_Q_B).sum(axis=0) / np.where(varies_B, norm_B, 1.0), 0.0)


def _num_outcomes(num_right_Q_B: IntArray, num_tried_Q: IntArray) -> int:
    return int(num_tried_Q.sum()) * int(num_right_Q_B.shape[1])
