"""Which queries of a profile can be learned from, and the hash by which a profile is known again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import numpy as np

from ...core.data import IntArray
from ...core.features import HIDDEN, MIN_QUERIES, TEXT, Features
from ...core.profile import Profile
from ...errors import InvalidFeaturesError, InvalidInputError
from .folds import hash_order
from .layers import candidates, has_finite_features


def check_profile(profile: Profile, reads: frozenset[str], layers: Sequence[int] | None) -> None:
    """Refuses a profile that nothing can be learned from, as far as that is known before anything is learned or asked.

    Raises:
        InvalidInputError: fewer than two queries with a finished trace.
        InvalidFeaturesError: it lacks what is read, or a layer that is asked for.
    """
    num_tried = int((profile.num_tried_Q > 0).sum())
    if num_tried < MIN_QUERIES:
        raise InvalidInputError(
            f"{num_tried} of {profile.num_queries} queries have a finished trace; a predictor needs at least "
            f"{MIN_QUERIES}. Profile more queries with `forethought profile`."
        )
    Features.of(profile, None).check(reads - {HIDDEN})
    if HIDDEN in reads:
        candidates(profile, layers)


def usable_rows(profile: Profile, reads: frozenset[str], layers: Sequence[int] | None, seed: int) -> IntArray:
    """Rows that can be learned from, in hash order: a finished trace and, where they are read, text, finite states."""
    check_profile(profile, reads, layers)
    is_usable_Q = profile.num_tried_Q > 0
    num_tried = int(is_usable_Q.sum())
    if TEXT in reads:
        is_usable_Q &= np.array([bool(text.strip()) for text in profile.texts], dtype=bool)
        if is_usable_Q.sum() < MIN_QUERIES:
            raise InvalidFeaturesError(
                f"{int(is_usable_Q.sum())} of {num_tried} queries with a finished trace have a text; a predictor that "
                f"reads it needs at least {MIN_QUERIES}"
            )
    if HIDDEN in reads:
        is_usable_Q &= has_finite_features(profile, candidates(profile, layers))
        if is_usable_Q.sum() < MIN_QUERIES:
            raise InvalidFeaturesError(
                f"{int(is_usable_Q.sum())} of {num_tried} queries with a finished trace have finite hidden states; "
                f"a predictor needs at least {MIN_QUERIES}. Were the prompts too long for the model?"
            )
    order = hash_order(profile.query_ids, seed=seed)
    return order[is_usable_Q[order]]


def training_hash(profile: Profile) -> str:
    """First 16 hex digits of the SHA-256 of ids and counts, whatever the order of the queries."""
    order = sorted(range(profile.num_queries), key=profile.query_ids.__getitem__)
    rows = [
        [profile.query_ids[row], int(profile.num_tried_Q[row]), profile.num_right_Q_B[row].tolist()] for row in order
    ]
    return hashlib.sha256(json.dumps(rows, ensure_ascii=True).encode()).hexdigest()[:16]
