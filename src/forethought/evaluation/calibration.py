"""How far predicted curves can be believed, beside the mean train curve that knows nothing of the query."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..core.data import Curves, FloatArray, Profile
from .bootstrap import estimate, resampled_means
from .metrics import (
    binomial_log_loss,
    brier_score,
    calibration_error,
    correlation_B,
    curve_error,
    log_loss_Q,
    reliability_bins,
)
from .results import Bin, Calibration, CurveErrors, Estimate

NUM_BINS = 10


def calibrate(
    measured: Profile,
    predicted: Curves,
    mean_B: FloatArray,
    mean_tokens_B: FloatArray | None,
    *,
    num_resamples: int,
    seed: int,
) -> Calibration:
    """Scores predicted curves against measured counts.

    Args:
        measured: the profile judged against.
        predicted: curves of the same queries.
        mean_B: success of the mean train curve, shape (B,): the constant baseline.
        mean_tokens_B: its tokens, shape (B,), or None.
        num_resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    mean_Q_B = np.broadcast_to(mean_B, predicted.p_Q_B.shape)
    return Calibration(
        overall=_errors(measured, predicted, mean_Q_B, mean_tokens_B, slice(None)),
        by_budget=tuple(
            _errors(measured, predicted, mean_Q_B, mean_tokens_B, slice(column, column + 1))
            for column in range(measured.menu.num_options)
        ),
        bins=reliability(predicted.p_Q_B, measured, num_resamples=num_resamples, seed=seed),
        calibration_error=_calibration_error(predicted.p_Q_B, measured),
        mean_calibration_error=_calibration_error(mean_Q_B, measured),
        log_loss_gain=_log_loss_gain(measured, predicted.p_Q_B, mean_Q_B, num_resamples=num_resamples, seed=seed),
    )


def _errors(
    measured: Profile, predicted: Curves, mean_Q_B: FloatArray, mean_tokens_B: FloatArray | None, columns: slice
) -> CurveErrors:
    """Scores at some of the budgets: one of them, or all."""
    right_Q_B, tried_Q = measured.num_right_Q_B[:, columns], measured.num_tried_Q
    p_Q_B, mean_Q_B = predicted.p_Q_B[:, columns], mean_Q_B[:, columns]
    tokens_Q_B = None if predicted.tokens_Q_B is None else (predicted.tokens_Q_B - measured.tokens_Q_B)[:, columns]
    mean_tokens_Q_B = None if mean_tokens_B is None else (mean_tokens_B - measured.tokens_Q_B)[:, columns]
    # Averaged over the budgets, so that `overall` asks: are the queries that look easier easier?
    pearson = correlation_B(p_Q_B.mean(axis=1, keepdims=True), right_Q_B.mean(axis=1, keepdims=True), tried_Q)
    budgets_B = measured.menu.budgets_B[columns]
    return CurveErrors(
        budget=int(budgets_B[0]) if len(budgets_B) == 1 else None,
        log_loss=binomial_log_loss(p_Q_B, right_Q_B, tried_Q),
        mean_log_loss=binomial_log_loss(mean_Q_B, right_Q_B, tried_Q),
        brier=brier_score(p_Q_B, right_Q_B, tried_Q),
        mean_brier=brier_score(mean_Q_B, right_Q_B, tried_Q),
        curve_error=curve_error(p_Q_B, right_Q_B, tried_Q),
        mean_curve_error=curve_error(mean_Q_B, right_Q_B, tried_Q),
        pearson=float(pearson[0]),
        tokens_error=None if tokens_Q_B is None else float(np.abs(tokens_Q_B).mean()),
        mean_tokens_error=None if mean_tokens_Q_B is None else float(np.abs(mean_tokens_Q_B).mean()),
        tokens_bias=None if tokens_Q_B is None else float(tokens_Q_B.mean()),
        mean_tokens_bias=None if mean_tokens_Q_B is None else float(mean_tokens_Q_B.mean()),
    )


def _calibration_error(p_Q_B: FloatArray, measured: Profile) -> float:
    bins = reliability_bins(p_Q_B, measured.num_right_Q_B, measured.num_tried_Q, num_bins=NUM_BINS)
    return calibration_error(bins)


def _log_loss_gain(
    measured: Profile, p_Q_B: FloatArray, mean_Q_B: FloatArray, *, num_resamples: int, seed: int
) -> Estimate:
    """The mean curve's log loss a trace less forethought's, paired over queries."""
    losses_R_2 = resampled_losses(measured, [mean_Q_B, p_Q_B], num_resamples=num_resamples, seed=seed)
    return estimate(losses_R_2[:, 0] - losses_R_2[:, 1])


def resampled_losses(measured: Profile, p_N_Q_B: Sequence[FloatArray], *, num_resamples: int, seed: int) -> FloatArray:
    """Log loss a trace and budget of several predictions, on the sample and on each resample, shape (R + 1, N)."""
    tried_Q = measured.num_tried_Q.astype(np.float64)
    losses_Q_N = [log_loss_Q(p_Q_B, measured.num_right_Q_B, measured.num_tried_Q) * tried_Q for p_Q_B in p_N_Q_B]
    sums_R_N = resampled_means(np.stack([tried_Q, *losses_Q_N], axis=1), num_resamples=num_resamples, seed=seed)
    return sums_R_N[:, 1:] / sums_R_N[:, :1]


def reliability(p_Q_B: FloatArray, measured: Profile, *, num_resamples: int, seed: int) -> tuple[Bin, ...]:
    """`metrics.reliability_bins` with intervals; empty bins are left out.

    Intervals resample whole queries: a query's budgets are judged on the same traces and often share a bin, so
    its traces are far from independent.
    """
    bin_Q_B = np.minimum((p_Q_B * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    used = np.unique(bin_Q_B)
    held_N_Q_B = bin_Q_B == used[:, None, None]
    tried_Q_1 = measured.num_tried_Q[:, None].astype(np.float64)
    columns = [
        (held_N_Q_B * values_Q_B).sum(axis=2).T for values_Q_B in (measured.num_right_Q_B, tried_Q_1, tried_Q_1 * p_Q_B)
    ]
    sums_R_N = resampled_means(np.concatenate(columns, axis=1), num_resamples=num_resamples, seed=seed)
    right_R_N, tried_R_N, predicted_R_N = np.split(sums_R_N, 3, axis=1)
    # A resample may miss a rare bin altogether; it then repeats the sample's own value.
    observed_R_N = np.broadcast_to(right_R_N[0] / tried_R_N[0], right_R_N.shape).copy()
    np.divide(right_R_N, tried_R_N, out=observed_R_N, where=tried_R_N > 0)
    return tuple(
        Bin(
            lower=int(index) / NUM_BINS,
            upper=(int(index) + 1) / NUM_BINS,
            num_traces=int(columns[1][:, column].sum()),
            num_queries=int(held_N_Q_B[column].any(axis=1).sum()),
            predicted=float(predicted_R_N[0, column] / tried_R_N[0, column]),
            observed=estimate(observed_R_N[:, column]),
        )
        for column, index in enumerate(used)
    )
