"""Scores of predicted curves against counts of sampled traces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..core.data import FloatArray, IntArray
from ..core.features import Counts

# Predictions are moved this far from 0 and 1 before their logarithm is taken: one trace that comes right where a
# predictor said "never" then costs 4.6, not infinity. The same for every predictor that is compared.
PROBABILITY_FLOOR = 0.01


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Predictions between `lower` and `upper`: what was said on average, and how often it was so.

    Attributes:
        predicted: mean prediction in the bin.
        observed: share of traces right in the bin; both weigh an option by the tokens it stands for.
        num_traces: traces behind `observed` (one trace counts once at each option).
    """

    lower: float
    upper: float
    predicted: float
    observed: float
    num_traces: int


def log_loss_Q(p_Q_B: FloatArray, counts: Counts) -> NDArray[np.float64]:
    """Negative log likelihood of each query's traces, in nats, summed over traces, shape (Q,).

    The mean over options, which weigh by the tokens they stand for; `PROBABILITY_FLOOR` bounds it.
    """
    p_Q_B = np.clip(p_Q_B.astype(np.float64), PROBABILITY_FLOOR, 1.0 - PROBABILITY_FLOOR)
    num_wrong_Q_B = counts.tries_Q_B - counts.num_right_Q_B
    loss_Q_B = -(counts.num_right_Q_B * np.log(p_Q_B) + num_wrong_Q_B * np.log1p(-p_Q_B))
    loss_Q: NDArray[np.float64] = (loss_Q_B * counts.width_B).mean(axis=1)
    return loss_Q


def brier_Q(p_Q_B: FloatArray, counts: Counts) -> NDArray[np.float64]:
    """Squared error against single traces, `p^2 - 2 p r/n + r/n`, summed over traces, mean over options, shape (Q,)."""
    p_Q_B = p_Q_B.astype(np.float64)
    loss_Q_B = counts.tries_Q_B * p_Q_B**2 - 2.0 * p_Q_B * counts.num_right_Q_B + counts.num_right_Q_B
    loss_Q: NDArray[np.float64] = (loss_Q_B * counts.width_B).mean(axis=1)
    return loss_Q


def binomial_log_loss(p_Q_B: FloatArray, counts: Counts) -> float:
    """Mean negative log likelihood of one trace, in nats: `log_loss_Q` over all traces."""
    return float(log_loss_Q(p_Q_B, counts).sum() / trials_Q(counts).sum())


def brier_score(p_Q_B: FloatArray, counts: Counts) -> float:
    """Mean squared error against single traces, unbiased for any number of traces."""
    return float(brier_Q(p_Q_B, counts).sum() / trials_Q(counts).sum())


def trials_Q(counts: Counts) -> NDArray[np.float64]:
    """Traces of each query, shape (Q,): the mean over options where they differ, which weigh by their tokens."""
    if counts.tried_Q_B is None:
        return counts.weight_Q
    trials_Q: NDArray[np.float64] = (counts.tried_Q_B * counts.width_B).mean(axis=1)
    return trials_Q


def curve_error(p_Q_B: FloatArray, counts: Counts) -> float:
    """Mean squared error against the true curves, which are not seen: the sampling noise is subtracted.

    Unbiased: `E[(p - r/n)^2] = (p - true)^2 + variance of r/n`, and `r (n - r) / (n^2 (n - 1))` estimates that
    variance. It may come out a little below zero for near-perfect predictions. Queries with fewer than two traces
    say nothing about their own noise and are left aside; NaN when there are no others.
    """
    rows = np.flatnonzero((counts.tries_Q_B >= 2).all(axis=1))
    if not len(rows):
        return float("nan")
    p_Q_B, counts = p_Q_B[rows], counts.select(rows)
    num_right_Q_B, tried_Q_B = counts.num_right_Q_B, counts.tries_Q_B.astype(np.float64)
    noise_Q_B = num_right_Q_B * (tried_Q_B - num_right_Q_B) / (tried_Q_B**2 * (tried_Q_B - 1.0))
    return float((((p_Q_B - counts.rate_Q_B) ** 2 - noise_Q_B) * counts.width_B).mean())


def reliability_bins(p_Q_B: FloatArray, counts: Counts, *, num_bins: int = 10) -> tuple[ReliabilityBin, ...]:
    """Predictions in bins of equal width over [0, 1], empty bins left out; options weigh by their tokens."""
    bin_N, predicted_N, observed_N, _ = _binned(p_Q_B, counts, num_bins)
    tried_N = np.bincount(_bin_Q_B(p_Q_B, num_bins).ravel(), counts.tries_Q_B.ravel(), num_bins)[bin_N]
    return tuple(
        ReliabilityBin(n / num_bins, (n + 1) / num_bins, predicted, observed, int(tried))
        for n, predicted, observed, tried in zip(
            bin_N.tolist(), predicted_N.tolist(), observed_N.tolist(), tried_N, strict=True
        )
    )


def calibration_error(p_Q_B: FloatArray, counts: Counts, *, num_bins: int = 10) -> float:
    """Mean distance of predicted and observed over the bins, weighted by traces (expected calibration error)."""
    _, predicted_N, observed_N, weight_N = _binned(p_Q_B, counts, num_bins)
    return float(weight_N @ np.abs(predicted_N - observed_N) / weight_N.sum())


def correlation_B(p_Q_B: FloatArray, rate_Q_B: FloatArray) -> NDArray[np.float64]:
    """Pearson correlation of predictions and measured rates in each column; 0 where either does not vary.

    Queries without a trace, whose rates are NaN, are left aside.
    """
    rows = np.isfinite(rate_Q_B).all(axis=1)
    predicted_Q_B, rate_Q_B = p_Q_B[rows].astype(np.float64), rate_Q_B[rows]
    predicted_Q_B = predicted_Q_B - predicted_Q_B.mean(axis=0)
    rate_Q_B = rate_Q_B - rate_Q_B.mean(axis=0)
    norm_B = np.sqrt((predicted_Q_B**2).sum(axis=0) * (rate_Q_B**2).sum(axis=0))
    # Rows of one mean curve differ from their mean by rounding only: that is no variation.
    varies_B = norm_B > 1e-9 * len(predicted_Q_B)
    return np.where(varies_B, (predicted_Q_B * rate_Q_B).sum(axis=0) / np.where(varies_B, norm_B, 1.0), 0.0)


def _bin_Q_B(p_Q_B: FloatArray, num_bins: int) -> IntArray:
    bin_Q_B: IntArray = np.minimum((p_Q_B * num_bins).astype(np.int64), num_bins - 1)
    return bin_Q_B


def _binned(p_Q_B: FloatArray, counts: Counts, num_bins: int) -> tuple[IntArray, FloatArray, FloatArray, FloatArray]:
    """The bins that hold anything, with mean prediction, share of traces right, and weight of each."""
    bin_N = _bin_Q_B(p_Q_B, num_bins).ravel()
    weight_Q_B = counts.tries_Q_B * counts.width_B
    weight_K, predicted_K, right_K = (
        np.bincount(bin_N, value_Q_B.ravel(), num_bins).astype(np.float64)
        for value_Q_B in (weight_Q_B, weight_Q_B * p_Q_B, counts.num_right_Q_B * counts.width_B)
    )
    kept = np.flatnonzero(weight_K > 0)
    return kept, predicted_K[kept] / weight_K[kept], right_K[kept] / weight_K[kept], weight_K[kept]
