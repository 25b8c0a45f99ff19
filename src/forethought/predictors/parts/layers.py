"""Which layer of the model to read: the candidates, their features, and the choice by exact leave-one-out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...core.features import Counts, hidden_of, nonfinite_rows
from ...core.profile import Profile
from ...errors import InvalidFeaturesError
from ...evaluation.metrics import binomial_log_loss, brier_score
from ..card import CrossValidation, LayerScore
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


def has_finite_features(profile: Profile, layers: Sequence[int]) -> NDArray[np.bool_]:
    """Whether each query's features are finite in every one of `layers`, shape (Q,)."""
    is_finite_Q = np.ones(profile.num_queries, dtype=bool)
    for layer in layers:
        is_finite_Q[nonfinite_rows(hidden_of(profile, layer))] = False
    return is_finite_Q


def choose_layer(profile: Profile, layers: Sequence[int] | None, report: Progress = silent) -> CrossValidation | None:
    """Scores every candidate; None where there is one only, since nothing is chosen then.

    Ridge regression stands in for slower estimators: it answers in closed form, left-out rows included.

    Args:
        profile: usable queries only, in an order that has nothing to do with them: the first `MAX_QUERIES` are scored.
        layers: candidates; None for all that the profile holds.
        report: called with "layer", layers done and layers in all.
    """
    wanted = candidates(profile, layers)
    if len(wanted) == 1:
        return None
    sample = profile.select(np.arange(min(profile.num_queries, MAX_QUERIES)))
    counts = Counts(sample.menu, sample.num_right_Q_B, sample.num_tried_Q)
    scores = []
    for done, layer in enumerate(wanted):
        report("layer", done, len(wanted))
        p_Q_B = LinearCurves.fit(RidgeProblem(hidden_of(sample, layer), counts.weight_Q), counts).left_out_p_Q_B
        assert p_Q_B is not None
        scores.append(LayerScore(layer, binomial_log_loss(p_Q_B, counts), brier_score(p_Q_B, counts)))
    report("layer", len(wanted), len(wanted))
    return CrossValidation(METHOD, sample.num_queries, tuple(scores))


def best_layer(profile: Profile, layers: Sequence[int] | None, choice: CrossValidation | None) -> int:
    """The candidate of the lowest log loss, the lower layer of equals; the only one when nothing was chosen."""
    if choice is None:
        return candidates(profile, layers)[0]
    return min(choice.layers, key=lambda score: (score.log_loss, score.layer)).layer
