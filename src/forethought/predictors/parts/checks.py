"""Validates the inputs of every estimator."""

from __future__ import annotations

from ...core.data import FloatArray, IntArray
from ...core.features import Counts, Features, nonfinite_rows, shorten
from ...errors import InvalidFeaturesError, InvalidInputError


def usable(features: Features, counts: Counts) -> tuple[IntArray, Features, Counts]:
    """The rows that can be learned from, and their features and counts.

    Raises:
        InvalidInputError: features of other queries, too few rows with a trace, or tokens that are not numbers.
    """
    if len(features) != len(counts):
        raise InvalidInputError(f"features are of {len(features)} queries, counts of {len(counts)}")
    rows = counts.usable_rows()
    return rows, features.select(rows), counts.select(rows)


def check_shape(features_Q_D: FloatArray, *, width: int | None = None) -> None:
    """Raises InvalidFeaturesError unless the features are a matrix, `width` columns wide when given."""
    if features_Q_D.ndim != 2 or features_Q_D.shape[1] == 0:
        raise InvalidFeaturesError(
            f"features must be a matrix, one row per query and at least one column; got shape {features_Q_D.shape}"
        )
    if width is not None and features_Q_D.shape[1] != width:
        raise InvalidFeaturesError(
            f"features have {features_Q_D.shape[1]} columns, but this predictor was fitted on {width}; "
            f"take them from the model and layer its card names"
        )


def check_features(features_Q_D: FloatArray, *, width: int | None = None) -> None:
    """Raises InvalidFeaturesError unless the features are a finite matrix, `width` columns wide when given."""
    check_shape(features_Q_D, width=width)
    bad = nonfinite_rows(features_Q_D)
    if len(bad):
        raise InvalidFeaturesError(f"features hold NaN or infinity in {len(bad)} rows: {shorten(bad.tolist())}")
