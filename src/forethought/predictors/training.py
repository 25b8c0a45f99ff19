"""From a profile to a predictor: chooses the layer, fits, and estimates the quality by cross-validation."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..core.codec import UnfitError, decode
from ..core.data import Curves, FloatArray, IntArray
from ..core.features import DIFFICULTY, MIN_QUERIES, Counts, Features, HeldOut, hidden_of, reads_to_kind
from ..core.profile import Profile
from ..core.protocols import Estimator
from ..core.provenance import Provenance
from ..core.registry import EXTRAS
from ..core.showing import part
from ..core.versions import versions
from ..errors import InvalidFeaturesError, MissingExtraError
from ..evaluation.metrics import (
    binomial_log_loss,
    brier_score,
    calibration_error,
    correlation_B,
    reliability_bins,
)
from .card import PredictorCard
from .card_parts import FeatureSchema, OutOfFold, TrainingData
from .difficulty import Asking
from .feeding import begun
from .history import HistoryPredictor
from .mean import mean_curve
from .novelty import NoveltyScore
from .overlap import Seen
from .parts.folds import assign_folds, hash_order
from .parts.making import Progress, make_estimator, silent
from .parts.rows import choose_layer, training_hash, usable_rows
from .parts.shape import possible_usage
from .predictor import Predictor
from .shrinkage import NOTHING_KNOWN, LeftOut, Shrinkage

Builder = Callable[..., Estimator]


def train(
    profile: Profile,
    *,
    predictor: str = "auto",
    layers: Sequence[int] | None = None,
    num_folds: int = 5,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    with_novelty: bool = True,
    with_shrinkage: bool = True,
    progress: Progress = silent,
    checkpoint: str = "",
) -> Predictor:
    """Picks the layer, fits on every usable query, and fills the card with out-of-fold quality.

    Predictions of queries that a fit had not seen say how far those to come are shrunk to the mean curve.

    Args:
        profile: measured counts, with hidden states unless the estimator reads none.
        predictor: registered name of the estimator; "auto" for `default_predictor`.
        layers: layers to choose from; None takes all that the profile holds.
        num_folds: folds for the card's calibration; fewer queries than folds leave it out.
        seed: of the folds, and of the estimator where it takes one.
        options: keywords of the estimator's class.
        with_novelty: learn a novelty score; False where nobody will ask.
        with_shrinkage: False to have the curves as they were fitted.
        progress: called with what is being done, steps done and steps in all.
        checkpoint: folder for the state of a training that can go on where it stopped; "" for none.

    Raises:
        InvalidFeaturesError: no hidden states, a layer that was not recorded, or too few queries with finite ones.
        InvalidInputError: fewer than two queries with a finished trace.
        InvalidSettingsError: an option the estimator does not take.
    """
    name = named(predictor, profile)

    def build(progress: Progress = progress) -> Estimator:
        return make_estimator(name, options, seed=seed, progress=progress, checkpoint=checkpoint)

    reads = frozenset(build().reads)
    usable = profile.select(usable_rows(profile, reads, layers, seed))
    layer, choice = choose_layer(usable, reads, layers, progress)
    progress("fit", 0, 1)
    fitted = _fit(usable, build, layer)
    progress("fit", 1, 1)
    left = _left_out(usable, fitted, build, layer, num_folds=num_folds, seed=seed, progress=progress)
    shrinkage = _shrinkage(fitted, left) if with_shrinkage else None
    novelty = NoveltyScore.fit(Features.of(usable, layer), reads) if with_novelty else None
    calibration = None if left is None else calibrate(left, is_shrunk=shrinkage is not None)
    card = dataclasses.replace(
        _card(profile, usable, name, reads, layer, seed),
        cross_validation=choice,
        calibration=calibration,
        shrinkage=shrinkage,
        novelty=novelty.card() if novelty else None,
    )
    made = Predictor(card, fitted, novelty, Seen.of(usable), left_out=_said_unseen(usable, left))
    return begun(made, [profile]) if isinstance(fitted, HistoryPredictor) else made


def _said_unseen(usable: Profile, left: LeftOut | None) -> Curves | None:
    """What was said of the queries that fits had not seen, shrunk as plans see it."""
    if left is None:
        return None
    return Curves(tuple(usable.query_ids[row] for row in left.rows.tolist()), usable.menu, left.shrunk())


def default_predictor(profile: Profile) -> tuple[str, str]:
    """`(name, reason)` of the estimator that `train` takes for a profile when none is named."""
    if profile.layers and profile.texts:
        return "mlp", "the profile holds hidden states and the questions' texts"
    if profile.layers:
        return "ridge", "the profile holds hidden states; no texts"
    if profile.texts:
        return "text", "the profile holds no hidden states, but the questions' texts"
    return "mean", "the profile holds neither hidden states nor texts"


def named(predictor: str, profile: Profile) -> str:
    """The estimator's name; the default for "auto"."""
    return default_predictor(profile)[0] if predictor == "auto" else predictor


def cross_fit(
    profile: Profile,
    *,
    predictor: str = "auto",
    layers: Sequence[int] | None = None,
    num_folds: int = 5,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    progress: Progress = silent,
) -> tuple[Curves, Curves]:
    """Out-of-fold predictions for every query, to evaluate honestly on one single run; arguments as for `train`.

    Everything that is chosen or learned (layer, penalty, standardisation, weights, shrinkage) comes from the other
    folds alone. The mean curve does not: each fold's queries are predicted around the one mean curve that blind has
    too. A fold that happens to be easy leaves the others hard; predictions around their mean would rank whole folds the
    wrong way round, which no plan for new queries does. A query without usable features gets the mean curve.

    Returns:
        The predicted curves, and the mean curve for every query (what the blind allocation knows), both in the
        profile's order.

    Raises:
        InvalidFeaturesError, InvalidInputError, InvalidSettingsError: as `train`; the last also when there are fewer
            queries than folds.
    """
    name = named(predictor, profile)

    def build(progress: Progress = silent) -> Estimator:
        return make_estimator(name, options, seed=seed, progress=progress)

    reads = frozenset(build().reads)
    # In hash order, so that what depends on the order of the rows (batches, splits) depends on ids alone.
    rows = usable_rows(profile, reads, layers, seed)
    fold_Q = assign_folds(profile.query_ids, num_folds=num_folds, seed=seed)
    p_Q_B, tokens_Q_B = (np.zeros((profile.num_queries, profile.menu.num_options)) for _ in range(2))
    means = []
    for fold in range(num_folds):
        within = part(progress, "fold", fold, num_folds)
        training = profile.select(rows[fold_Q[rows] != fold])
        held = rows[fold_Q[rows] == fold]
        mean_p_B, mean_tokens_B = mean_curve(Counts.of(training))
        means.append((mean_p_B, mean_tokens_B))
        layer, _ = choose_layer(training, reads, layers, within)
        fitted = _fit(training, partial(build, within), layer)
        left = _left_out(training, fitted, build, layer, num_folds=num_folds, seed=seed, progress=within)
        shrinkage = _shrinkage(fitted, left)
        if len(held):
            p_H_B, tokens_H_B = fitted.predict(Features.of(profile.select(held), layer))
            if shrinkage is not None:
                any_order = profile.menu.is_named
                p_H_B, tokens_H_B = shrinkage.apply(p_H_B, tokens_H_B, mean_p_B, mean_tokens_B, any_order=any_order)
            p_Q_B[held] = p_H_B - mean_p_B
            if tokens_H_B is not None and mean_tokens_B is not None:
                tokens_Q_B[held] = tokens_H_B - mean_tokens_B
    progress("fold", num_folds, num_folds)
    return _around_mean(profile, p_Q_B, tokens_Q_B, np.bincount(fold_Q, minlength=num_folds), means)


def _around_mean(
    profile: Profile,
    deviation_Q_B: FloatArray,
    tokens_deviation_Q_B: FloatArray,
    size_F: IntArray,
    means: Sequence[tuple[FloatArray, FloatArray | None]],
) -> tuple[Curves, Curves]:
    """Curves around the mean of the folds' mean curves, each weighted by the fold's queries; and that mean curve."""
    mean_p_B, input_Q_B = np.average([p_B for p_B, _ in means], axis=0, weights=size_F), None
    if (input_B := mean_input(profile)) is not None:
        input_Q_B = np.broadcast_to(input_B, (profile.num_queries, profile.menu.num_options))
    tokens_Q_B = mean_tokens_Q_B = None
    if profile.is_spend_measured:
        mean_tokens_B = np.average([tokens_B for _, tokens_B in means], axis=0, weights=size_F)
        mean_tokens_Q_B = np.tile(possible_usage(profile.menu, mean_tokens_B[None]), (profile.num_queries, 1))
        tokens_Q_B = np.maximum(mean_tokens_Q_B + tokens_deviation_Q_B, 0.0)
        if not profile.menu.is_named:
            tokens_Q_B = np.maximum.accumulate(tokens_Q_B, axis=1)
    p_Q_B = np.clip(mean_p_B + deviation_Q_B, 0.0, 1.0)
    mean_p_Q_B = np.tile(mean_p_B, (profile.num_queries, 1))
    predicted = Curves(profile.query_ids, profile.menu, p_Q_B, tokens_Q_B, input_Q_B)
    return predicted, Curves(profile.query_ids, profile.menu, mean_p_Q_B, mean_tokens_Q_B, input_Q_B)


def mean_input(profile: Profile) -> FloatArray | None:
    """Mean tokens of the prompts that were sent under each option, shape (B,); None where that is not known of any."""
    if profile.input_Q_B is None:
        return None
    is_known_Q_B = np.isfinite(profile.input_Q_B) & (profile.tries_Q_B > 0)
    if not is_known_Q_B.any(axis=0).all():
        return None
    mean_B: FloatArray = np.where(is_known_Q_B, profile.input_Q_B, 0.0).sum(axis=0) / is_known_Q_B.sum(axis=0)
    return mean_B


def _fit(profile: Profile, build: Builder, layer: int | None) -> Estimator:
    try:
        return build().fit(Features.of(profile, layer), Counts.of(profile))
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in EXTRAS:
            raise
        raise MissingExtraError(
            f"this predictor needs the package {missing!r}, which is not installed. Install it with: "
            f"pip install 'forethought[{EXTRAS[missing]}]'"
        ) from error


def _left_out(
    usable: Profile,
    fitted: Estimator,
    build: Builder,
    layer: int | None,
    *,
    num_folds: int,
    seed: int,
    progress: Progress,
) -> LeftOut | None:
    """Predictions of queries by fits that had not seen them, with the layer held fixed; None of too few queries.

    An estimator that holds queries out by itself has kept them; any other is fitted again on all folds but one.
    """
    if (held_out := fitted.held_out_) is not None:
        return LeftOut.of(Counts.of(usable), held_out) if len(held_out.rows) >= MIN_QUERIES else None
    if usable.num_queries < max(num_folds, 2 * MIN_QUERIES):
        return None
    fold_Q = assign_folds(usable.query_ids, num_folds=num_folds, seed=seed)
    p_Q_B, tokens_Q_B = (np.empty(usable.num_right_Q_B.shape) for _ in range(2))
    has_tokens = usable.is_spend_measured
    for fold in range(num_folds):
        within = part(progress, "calibrate", fold, num_folds)
        training, held = usable.select(np.flatnonzero(fold_Q != fold)), np.flatnonzero(fold_Q == fold)
        p_H_B, tokens_H_B = _fit(training, partial(build, within), layer).predict(
            Features.of(usable.select(held), layer)
        )
        if np.shape(p_H_B) != (shape := (len(held), usable.menu.num_options)):
            raise InvalidFeaturesError(f"this predictor gives curves of shape {np.shape(p_H_B)}, not {shape}")
        p_Q_B[held] = p_H_B
        has_tokens = has_tokens and tokens_H_B is not None
        if tokens_H_B is not None:
            tokens_Q_B[held] = tokens_H_B
    progress("calibrate", num_folds, num_folds)
    held_out = HeldOut(np.arange(usable.num_queries), fold_Q, p_Q_B, tokens_Q_B if has_tokens else None)
    return LeftOut.of(Counts.of(usable), held_out)


def _shrinkage(fitted: Estimator, left: LeftOut | None) -> Shrinkage | None:
    """How far predictions are to be trusted; None where they are the mean curve anyway, or shrunk already."""
    if not fitted.reads or fitted.is_shrunk:
        return None
    return NOTHING_KNOWN if left is None else Shrinkage.fit(left)


def calibrate(left: LeftOut, *, is_shrunk: bool) -> OutOfFold:
    """Quality on left-out queries of the shrunk or fitted curves, compared with the mean curve of the same folds."""
    p_Q_B, mean_p_Q_B, counts = left.shrunk() if is_shrunk else left.p_N_B, left.mean_p_N_B, left.counts
    return OutOfFold(
        num_folds=left.num_folds,
        log_loss=binomial_log_loss(p_Q_B, counts),
        brier=brier_score(p_Q_B, counts),
        mean_log_loss=binomial_log_loss(mean_p_Q_B, counts),
        mean_brier=brier_score(mean_p_Q_B, counts),
        calibration_error=calibration_error(p_Q_B, counts),
        correlation_B=tuple(correlation_B(p_Q_B, counts.rate_Q_B).tolist()),
        bins=reliability_bins(p_Q_B, counts),
    )


def _card(
    profile: Profile, usable: Profile, predictor: str, reads: frozenset[str], layer: int | None, seed: int
) -> PredictorCard:
    """The card of an estimator fitted on `usable`, the queries of `profile` that can be learned from."""
    made = profile.provenance
    (mean_p_B, mean_tokens_B), mean_input_B = mean_curve(Counts.of(usable)), mean_input(usable)
    return PredictorCard(
        predictor=predictor,
        model=made.model,
        model_hash=made.model_hash,
        template=made.template,
        template_hash=made.template_hash,
        menu=profile.menu,
        sampling=made.sampling,
        features=FeatureSchema(
            kind=reads_to_kind(reads),
            layer=layer,
            width=0 if layer is None else hidden_of(usable, layer).shape[1],
            pooling="none" if layer is None else "last",
        ),
        data=TrainingData(
            name=made.name or "unknown",
            num_queries=usable.num_queries,
            num_left_out=profile.num_queries - usable.num_queries,
            num_traces=int(usable.num_tried_Q.sum()),
            data_hash=training_hash(usable),
            simulated=made.simulated,
        ),
        seed=seed,
        cross_validation=None,
        calibration=None,
        mean_p_B=tuple(mean_p_B.tolist()),
        mean_tokens_B=None if mean_tokens_B is None else tuple(mean_tokens_B.tolist()),
        versions=versions(),
        created=datetime.datetime.now(datetime.UTC).date().isoformat(),
        asking=_asking(made) if DIFFICULTY in reads else None,
        grader=made.judge,
        mean_input_B=None if mean_input_B is None else tuple(mean_input_B.tolist()),
    )


def _asking(made: Provenance) -> Asking:
    """How the difficulties of a profile were asked for; without a word, plainly."""
    try:
        return decode(Asking, dict(made.asking or {}), place="asking", lenient=(Asking,))
    except UnfitError as error:
        raise InvalidFeaturesError(f"the profile does not say how its model was asked: {error}") from error


def left_out_curves(profile: Profile, trained: Predictor) -> Curves | None:
    """What a predictor just trained said of each query of its profile when it had not seen it, without tokens.

    None where it keeps none, or not of every query: `cross_fit` finds them for any estimator.
    """
    held_out = trained.estimator.held_out_
    if held_out is None or len(held_out.rows) != profile.num_queries:
        return None
    p_Q_B = held_out.p_N_B
    if trained.card.shrinkage is not None:
        p_Q_B, _ = trained.card.shrinkage.apply(p_Q_B, None, np.asarray(trained.card.mean_p_B), None)
    ordered_Q_B = np.empty_like(p_Q_B)
    ordered_Q_B[hash_order(profile.query_ids, seed=trained.card.seed)[held_out.rows]] = p_Q_B
    return Curves(profile.query_ids, profile.menu, ordered_Q_B)
