"""The paired bootstrap: resampled means of many per-query columns at once, and intervals from them."""

from __future__ import annotations

import numpy as np

from ..core.data import FloatArray
from ..core.showing import Progress, silent
from .results import Estimate

CONFIDENCE = 0.95
BLOCK = 4_000_000  # cells of the (resamples, queries) matrix of counts held at once: 32 MB


def resampled_means(
    values_Q_N: FloatArray, *, num_resamples: int, seed: int, progress: Progress = silent
) -> FloatArray:
    """Means over the queries of every column: of the sample itself, then of each bootstrap resample.

    Queries are drawn with replacement and all columns share each draw, so that any difference or ratio of columns,
    taken row by row, is paired. Drawing whole queries keeps all of a query's traces and budgets together: they are
    not independent of one another. Source: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), ch. 13.

    Args:
        values_Q_N: one row per query, one column per quantity, shape (Q, N).
        num_resamples: R, the number of resamples.
        seed: of the draws; the same seed and Q give the same draws whatever the columns.
        progress: called with "resample", resamples done and resamples in all.

    Returns:
        Means, shape (R + 1, N). Row 0 is the sample itself, so one piece of code makes estimates and intervals.
    """
    num_queries, num_columns = values_Q_N.shape
    random = np.random.default_rng(seed)
    means_R_N = np.empty((num_resamples + 1, num_columns))
    means_R_N[0] = values_Q_N.mean(axis=0)
    rows_per_block = max(1, BLOCK // num_queries)
    for start in range(1, num_resamples + 1, rows_per_block):
        progress("resample", start - 1, num_resamples)
        num_rows = min(rows_per_block, num_resamples + 1 - start)
        drawn_R_Q = random.integers(num_queries, size=(num_rows, num_queries))
        cells = (drawn_R_Q + num_queries * np.arange(num_rows)[:, None]).ravel()
        counts_R_Q = np.bincount(cells, minlength=num_rows * num_queries).reshape(num_rows, num_queries)
        means_R_N[start : start + num_rows] = counts_R_Q.astype(np.float64) @ values_Q_N / num_queries
    return means_R_N


def estimate(values_R: FloatArray) -> Estimate:
    """Row 0 as the value, and the percentile interval of the other rows, shape (R + 1,).

    Infinite values are allowed ("never reached"): the ends are order statistics, nothing is interpolated.
    """
    tail = (1.0 - CONFIDENCE) / 2.0
    low = np.quantile(values_R[1:], tail, method="inverted_cdf")
    high = np.quantile(values_R[1:], 1.0 - tail, method="inverted_cdf")
    return Estimate(float(values_R[0]), float(low), float(high))


def ratio(numerator_R: FloatArray, denominator_R: FloatArray, *, smallest: float) -> Estimate | None:
    """Estimate of a ratio, or None where the denominator is too near 0 for a ratio to mean anything.

    Args:
        numerator_R: shape (R + 1,), row 0 the sample.
        denominator_R: the same resamples.
        smallest: the denominator must be at least this, and its whole interval above 0. Without that the ratio's
            distribution has no useful moments and its interval runs from minus to plus infinity (Fieller, 1954).
    """
    denominator = estimate(denominator_R)
    if denominator.value < smallest or denominator.low <= 0.0:
        return None
    # The tail beyond the interval can still hold a few resamples at 0 or below: they are extreme, not undefined.
    return estimate(numerator_R / np.maximum(denominator_R, np.finfo(np.float64).tiny ** 0.5))
