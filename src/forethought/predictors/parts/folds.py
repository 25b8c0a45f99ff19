"""Folds for cross-validation, from ids only, so that the order of the queries does not matter."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...errors import InvalidSettingsError


def hash_order(query_ids: Sequence[str], *, seed: int) -> NDArray[np.int64]:
    """Indices of the queries in the order of a stable hash of seed and id: a shuffle any machine repeats."""
    keys = [(hashlib.sha256(f"{seed}\0{query_id}".encode()).digest(), query_id) for query_id in query_ids]
    return np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)


def assign_folds(query_ids: Sequence[str], *, num_folds: int, seed: int) -> NDArray[np.int64]:
    """The fold of each query, 0 to `num_folds - 1`, shape (Q,); sizes differ by one at most.

    Raises:
        InvalidSettingsError: fewer than two folds, or more folds than queries.
    """
    if not 2 <= num_folds <= len(query_ids):
        raise InvalidSettingsError(
            f"{len(query_ids)} queries cannot be split into {num_folds} folds; "
            f"give between 2 and {max(2, len(query_ids))} folds, or profile more queries"
        )
    fold_Q = np.empty(len(query_ids), dtype=np.int64)
    fold_Q[hash_order(query_ids, seed=seed)] = np.arange(len(query_ids)) % num_folds
    return fold_Q
