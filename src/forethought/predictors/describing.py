"""What a card says of a predictor just trained: its quality, what it was made from and what it belongs to."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ..core.data import Profile, Sampling
from ..core.features import DIFFICULTY, reads_to_kind
from ..core.versions import versions
from ..evaluation.metrics import binomial_log_loss, brier_score, calibration_error, correlation_B, reliability_bins
from ..runs.store import grader_words
from .card import Calibration, CrossValidation, FeatureSchema, PredictorCard, TrainingData
from .difficulty import Asking
from .layers import hidden_of
from .mean import mean_curve
from .shrinkage import LeftOut


def calibration_of(usable: Profile, left: LeftOut, *, is_shrunk: bool) -> Calibration:
    """Quality on queries left out, of the curves as shrunk or as fitted, beside the mean curve of the same folds."""
    p_Q_B, mean_p_Q_B = left.shrunk(usable) if is_shrunk else left.p_N_B, left.mean_p_N_B
    num_folds, usable = left.num_folds, usable.select(left.rows)
    counts = (usable.num_right_Q_B, usable.num_tried_Q)
    bins = reliability_bins(p_Q_B, *counts)
    return Calibration(
        num_folds=num_folds,
        log_loss=binomial_log_loss(p_Q_B, *counts),
        brier=brier_score(p_Q_B, *counts),
        mean_log_loss=binomial_log_loss(mean_p_Q_B, *counts),
        mean_brier=brier_score(mean_p_Q_B, *counts),
        calibration_error=calibration_error(bins),
        correlation_B=tuple(correlation_B(p_Q_B, *counts).tolist()),
        bins=bins,
    )


def make_card(
    profile: Profile,
    usable: Profile,
    predictor: str,
    reads: frozenset[str],
    layer: int | None,
    choice: CrossValidation | None,
    calibration: Calibration | None,
    seed: int,
) -> PredictorCard:
    """The card of a predictor fitted on `usable`, the queries of `profile` that can be learned from."""
    info = profile.info
    mean_p_B, mean_tokens_B = mean_curve(usable)
    sampling = info.get("sampling")
    return PredictorCard(
        predictor=predictor,
        model=info.get("model"),
        model_hash=info.get("model_hash"),
        template=info.get("template"),
        template_hash=info.get("template_hash"),
        menu=profile.menu,
        sampling=None if sampling is None else Sampling(**sampling),
        features=FeatureSchema(
            kind=reads_to_kind(reads),
            layer=layer,
            width=0 if layer is None else hidden_of(usable, layer).shape[1],
            pooling="none" if layer is None else "last",
        ),
        data=TrainingData(
            name=str(info.get("name", "unknown")),
            num_queries=usable.num_queries,
            num_left_out=profile.num_queries - usable.num_queries,
            num_traces=int(usable.num_tried_Q.sum()),
            data_hash=data_hash(usable),
            simulated=bool(info.get("simulated", False)),
        ),
        seed=seed,
        cross_validation=choice,
        calibration=calibration,
        mean_p_B=tuple(mean_p_B.tolist()),
        mean_tokens_B=None if mean_tokens_B is None else tuple(mean_tokens_B.tolist()),
        versions=versions(),
        created=datetime.datetime.now(datetime.UTC).date().isoformat(),
        asking=_asking(info) if DIFFICULTY in reads else None,
        grader=grader_words(info) if info.get("grader") else None,
    )


def _asking(info: Mapping[str, Any]) -> Asking:
    """How the difficulties of a profile were asked for; without a word, plainly."""
    found = info.get("asking") or {}
    shots = tuple((str(question), str(level)) for question, level in found.get("shots", ()))
    return Asking(shots, found.get("tokens"))


def data_hash(profile: Profile) -> str:
    """First 16 hex digits of the SHA-256 of ids and counts, whatever the order of the queries."""
    order = sorted(range(profile.num_queries), key=profile.query_ids.__getitem__)
    rows = [
        [profile.query_ids[row], int(profile.num_tried_Q[row]), profile.num_right_Q_B[row].tolist()] for row in order
    ]
    return hashlib.sha256(json.dumps(rows, ensure_ascii=True).encode()).hexdigest()[:16]
