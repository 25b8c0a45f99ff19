"""The queries and the layer of a profile used for training, and a hash that identifies the data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ...core.data import IntArray
from ...core.features import HIDDEN, MIN_QUERIES, TEXT, Counts, Features, hidden_of, nonfinite_rows
from ...core.profile import Profile
from ...errors import InvalidFeaturesError, InvalidInputError
from ...evaluation.metrics import binomial_log_loss, brier_score
from ..card_parts import CrossValidation, LayerScore
from .folds import hash_order
from .linear import LinearCurves, RidgeProblem
from .making import Progress, silent

# Layers are compared on at most this many queries: enough to tell them apart, and the work grows with its cube.
MAX_QUERIES = 1024

METHOD = "binomial log loss of ridge regression, leave-one-out (exact; the penalty chosen by left-out squared error)"


def candidates(profile: Profile, layers: Sequence[int] | None) -> tuple[int, ...]:
    """The layers to choose from, each once, ascending; all that the profile holds when None.

    Raises:
        InvalidFeaturesError: no hidden states, no layer, or one that was not recorded.
    """
    if profile.hidden_Q_L_D is None or not profile.layers:
        raise InvalidFeaturesError(
            "the profile holds no hidden states to predict from; profile with `--layers all`, or train with "
            "`--predictor mean`"
        )
    wanted = sorted(set(profile.layers if layers is None else layers))
    missing = [layer for layer in wanted if layer not in profile.layers]
    if missing or not wanted:
        raise InvalidFeaturesError(
            f"layers {missing or 'to choose from: none'} are not in the profile; it holds {list(profile.layers)}"
        )
    return tuple(wanted)


def choose_layer(
    profile: Profile, reads: frozenset[str], layers: Sequence[int] | None, progress: Progress = silent
) -> tuple[int | None, CrossValidation | None]:
    """The layer to read, None for an estimator that reads none; and the scores, None where there was no choice.

    The lowest log loss of ridge regression wins, the lower layer of equals: it stands in for slower estimators, since
    it answers in closed form, left-out rows included.

    Args:
        profile: usable queries only, in an order that has nothing to do with them: the first `MAX_QUERIES` are scored.
        reads: what the estimator reads.
        layers: candidates; None for all that the profile holds.
        progress: called with "layer", layers done and layers in all.
    """
    if HIDDEN not in reads:
        return None, None
    wanted = candidates(profile, layers)
    if len(wanted) == 1:
        return wanted[0], None
    sample = profile.select(np.arange(min(profile.num_queries, MAX_QUERIES)))
    counts = replace(Counts.of(sample), tokens_Q_B=None)
    scores = []
    for done, layer in enumerate(wanted):
        progress("layer", done, len(wanted))
        p_Q_B = LinearCurves.fit(RidgeProblem(hidden_of(sample, layer), counts.weight_Q), counts).left_out_p_Q_B
        assert p_Q_B is not None
        scores.append(LayerScore(layer, binomial_log_loss(p_Q_B, counts), brier_score(p_Q_B, counts)))
    progress("layer", len(wanted), len(wanted))
    best = min(scores, key=lambda score: (score.log_loss, score.layer)).layer
    return best, CrossValidation(METHOD, sample.num_queries, tuple(scores))


def check_profile(profile: Profile, reads: frozenset[str], layers: Sequence[int] | None) -> None:
    """Refuses a profile that nothing can be learned from, as far as that is known before anything is learned or asked.

    Raises:
        InvalidInputError: fewer than two queries with a finished trace.
        InvalidFeaturesError: it lacks what is read, or a layer that is asked for.
    """
    num_tried = int(profile.is_complete_Q.sum())
    if num_tried < MIN_QUERIES:
        raise InvalidInputError(
            f"{num_tried} of {profile.num_queries} queries have a finished trace"
            f"{' under every option' if profile.menu.is_named else ''}; a predictor needs at least "
            f"{MIN_QUERIES}. Profile more queries with `forethought profile`."
        )
    Features.of(profile, None).check(reads - {HIDDEN})
    if HIDDEN in reads:
        candidates(profile, layers)


def usable_rows(profile: Profile, reads: frozenset[str], layers: Sequence[int] | None, seed: int) -> IntArray:
    """Rows that can be learned from, in hash order: a trace at every option and, where read, text, finite states."""
    check_profile(profile, reads, layers)
    is_usable_Q = profile.is_complete_Q
    num_tried = int(is_usable_Q.sum())

    def keep(is_read_Q: NDArray[np.bool_], what: str, hint: str) -> None:
        nonlocal is_usable_Q
        is_usable_Q = is_usable_Q & is_read_Q
        if is_usable_Q.sum() < MIN_QUERIES:
            raise InvalidFeaturesError(
                f"{int(is_usable_Q.sum())} of {num_tried} queries with a finished trace have {what}; a predictor that "
                f"reads it needs at least {MIN_QUERIES}{hint}"
            )

    if TEXT in reads:
        keep(np.array([bool(text.strip()) for text in profile.texts], dtype=bool), "a text", "")
    if HIDDEN in reads:
        is_finite_Q = np.ones(profile.num_queries, dtype=bool)
        for layer in candidates(profile, layers):
            is_finite_Q[nonfinite_rows(hidden_of(profile, layer))] = False
        keep(is_finite_Q, "finite hidden states", ". Were the prompts too long for the model?")
    order = hash_order(profile.query_ids, seed=seed)
    return order[is_usable_Q[order]]


def training_hash(profile: Profile) -> str:
    """First 16 hex digits of the SHA-256 of ids and counts, whatever the order of the queries."""
    order = sorted(range(profile.num_queries), key=profile.query_ids.__getitem__)
    tried_Q = profile.num_tried_Q if profile.tried_Q_B is None else profile.tried_Q_B
    rows = [[profile.query_ids[row], tried_Q[row].tolist(), profile.num_right_Q_B[row].tolist()] for row in order]
    return hashlib.sha256(json.dumps(rows, ensure_ascii=True).encode()).hexdigest()[:16]
