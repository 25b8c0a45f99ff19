"""What every predictor asks of its inputs, checked once and refused in the user's words."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..core.data import FloatArray, IntArray
from ..core.features import nonfinite_rows
from ..errors import InvalidFeaturesError, InvalidInputError

MIN_QUERIES = 2  # one query has no other to be left out against


def check_shape(features_Q_D: FloatArray, *, width: int | None = None) -> None:
    """Raises InvalidFeaturesError unless the features are a matrix, `width` columns wide when given."""
    if features_Q_D.ndim != 2 or features_Q_D.shape[1] == 0:
        raise InvalidFeaturesError(
            f"features must be a matrix, one row a query and at least one column; got shape {features_Q_D.shape}"
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


def check_counts(
    num_right_Q_B: IntArray, num_tried_Q: IntArray, tokens_Q_B: FloatArray | None = None
) -> NDArray[np.int64]:
    """The rows that can be learned from: those with at least one trace.

    Raises:
        InvalidInputError: shapes that do not belong together, more right than tried, tokens that are not
            numbers, or fewer than two rows left.
    """
    if num_right_Q_B.ndim != 2 or num_tried_Q.shape != num_right_Q_B.shape[:1] or num_right_Q_B.shape[1] == 0:
        raise InvalidInputError(
            f"counts must have shapes (Q, B) and (Q,); got right {num_right_Q_B.shape}, tried {num_tried_Q.shape}"
        )
    if tokens_Q_B is not None and tokens_Q_B.shape != num_right_Q_B.shape:
        raise InvalidInputError(f"tokens have shape {tokens_Q_B.shape}, counts {num_right_Q_B.shape}")
    wrong = np.flatnonzero((num_right_Q_B < 0).any(axis=1) | (num_right_Q_B > num_tried_Q[:, None]).any(axis=1))
    if len(wrong):
        raise InvalidInputError(
            f"more right than tried (or less than none) in {len(wrong)} rows: {shorten(wrong.tolist())}"
        )
    rows = np.flatnonzero(num_tried_Q > 0)
    if len(rows) < MIN_QUERIES:
        raise InvalidInputError(
            f"{len(rows)} of {len(num_tried_Q)} queries have a finished trace; a predictor needs at least "
            f"{MIN_QUERIES}. Profile more queries with `forethought profile`."
        )
    if tokens_Q_B is not None and not np.isfinite(tokens_Q_B[rows]).all():
        raise InvalidInputError("tokens hold NaN or infinity for queries that have finished traces")
    return rows


def shorten(items: list[object] | list[int] | list[str], *, most: int = 5) -> str:
    """The first few items and how many more there are: `a, b, c, d, e and 12 more`."""
    shown = ", ".join(str(item) for item in items[:most])
    return shown if len(items) <= most else f"{shown} and {len(items) - most} more"
