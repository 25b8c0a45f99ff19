"""Calibration of predicted curves, compared with the mean train curve."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..core.data import Curves, FloatArray
from ..core.features import Counts
from ..core.profile import Profile
from .bootstrap import estimate, resampled_means
from .metrics import (
    binomial_log_loss,
    brier_score,
    calibration_error,
    correlation_B,
    curve_error,
    log_loss_Q,
    trials_Q,
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
    mean_Q_B, counts = np.broadcast_to(mean_B, predicted.p_Q_B.shape), Counts.of(measured)
    return Calibration(
        overall=_errors(measured, predicted, mean_Q_B, mean_tokens_B, None),
        by_budget=tuple(
            _errors(measured, predicted, mean_Q_B, mean_tokens_B, column) for column in range(measured.menu.num_options)
        ),
        bins=reliability(predicted.p_Q_B, counts, num_resamples=num_resamples, seed=seed),
        calibration_error=calibration_error(predicted.p_Q_B, counts),
        mean_calibration_error=calibration_error(mean_Q_B, counts),
        log_loss_gain=_log_loss_gain(counts, predicted.p_Q_B, mean_Q_B, num_resamples=num_resamples, seed=seed),
    )


def _errors(
    measured: Profile, predicted: Curves, mean_Q_B: FloatArray, mean_tokens_B: FloatArray | None, column: int | None
) -> CurveErrors:
    """Scores at one of the budgets, by column, or at all, which weigh by the tokens they stand for."""
    counts = Counts.of(measured) if column is None else Counts.of(measured).at(column)
    columns = slice(None) if column is None else [column]
    p_Q_B, mean_Q_B = predicted.p_Q_B[:, columns], mean_Q_B[:, columns]
    tokens_Q_B = None if predicted.tokens_Q_B is None else (predicted.tokens_Q_B - measured.tokens_Q_B)[:, columns]
    mean_tokens_Q_B = None if mean_tokens_B is None else (mean_tokens_B - measured.tokens_Q_B)[:, columns]

    def mean(value_Q_B: FloatArray | None) -> float | None:
        return None if value_Q_B is None else float((value_Q_B * counts.width_B).mean())

    # Averaged over the budgets, so that `overall` asks: are the queries that look easier easier?
    width_B_1 = counts.menu.width_B[:, None]
    pearson = correlation_B(p_Q_B @ width_B_1, counts.rate_Q_B @ width_B_1)
    return CurveErrors(
        budget=None if column is None else measured.menu.caps[column],
        log_loss=binomial_log_loss(p_Q_B, counts),
        mean_log_loss=binomial_log_loss(mean_Q_B, counts),
        brier=brier_score(p_Q_B, counts),
        mean_brier=brier_score(mean_Q_B, counts),
        curve_error=curve_error(p_Q_B, counts),
        mean_curve_error=curve_error(mean_Q_B, counts),
        pearson=float(pearson[0]),
        tokens_error=mean(None if tokens_Q_B is None else np.abs(tokens_Q_B)),
        mean_tokens_error=mean(None if mean_tokens_Q_B is None else np.abs(mean_tokens_Q_B)),
        tokens_bias=mean(tokens_Q_B),
        mean_tokens_bias=mean(mean_tokens_Q_B),
    )


def _log_loss_gain(
    counts: Counts, p_Q_B: FloatArray, mean_Q_B: FloatArray, *, num_resamples: int, seed: int
) -> Estimate:
    """The mean curve's log loss per trace less forethought's, paired over queries."""
    losses_R_2 = resampled_losses(counts, [mean_Q_B, p_Q_B], num_resamples=num_resamples, seed=seed)
    return estimate(losses_R_2[:, 0] - losses_R_2[:, 1])


def resampled_losses(counts: Counts, p_N_Q_B: Sequence[FloatArray], *, num_resamples: int, seed: int) -> FloatArray:
    """Log loss per trace of several predictions, on the sample and on each resample, shape (R + 1, N)."""
    columns = [trials_Q(counts), *(log_loss_Q(p_Q_B, counts) for p_Q_B in p_N_Q_B)]
    sums_R_N = resampled_means(np.stack(columns, axis=1), num_resamples=num_resamples, seed=seed)
    return sums_R_N[:, 1:] / sums_R_N[:, :1]


def reliability(p_Q_B: FloatArray, counts: Counts, *, num_resamples: int, seed: int) -> tuple[Bin, ...]:
    """`metrics.reliability_bins` with intervals; empty bins are left out.

    Intervals resample whole queries: a query's budgets are judged on the same traces and often share a bin, so
    its traces are far from independent.
    """
    bin_Q_B = np.minimum((p_Q_B * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    used = np.unique(bin_Q_B)
    held_N_Q_B = bin_Q_B == used[:, None, None]
    weight_Q_B, right_Q_B = counts.tries_Q_B * counts.width_B, counts.num_right_Q_B * counts.width_B
    columns = [(held_N_Q_B * values_Q_B).sum(axis=2).T for values_Q_B in (right_Q_B, weight_Q_B, weight_Q_B * p_Q_B)]
    sums_R_N = resampled_means(np.concatenate(columns, axis=1), num_resamples=num_resamples, seed=seed)
    right_R_N, tried_R_N, predicted_R_N = np.split(sums_R_N, 3, axis=1)
    # A resample may miss a rare bin altogether; it then repeats the sample's own value.
    observed_R_N = np.broadcast_to(right_R_N[0] / tried_R_N[0], right_R_N.shape).copy()
    np.divide(right_R_N, tried_R_N, out=observed_R_N, where=tried_R_N > 0)
    return tuple(
        Bin(
            lower=int(index) / NUM_BINS,
            upper=(int(index) + 1) / NUM_BINS,
            num_traces=int(counts.tries_Q_B[held_N_Q_B[column]].sum()),
            num_queries=int(held_N_Q_B[column].any(axis=1).sum()),
            predicted=float(predicted_R_N[0, column] / tried_R_N[0, column]),
            observed=estimate(observed_R_N[:, column]),
        )
        for column, index in enumerate(used)
    )
