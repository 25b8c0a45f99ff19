"""From a profile to a trained predictor: picks the layer, fits, and says honestly how good it is."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from ..core.data import Curves, FloatArray, IntArray, Profile
from ..core.features import HIDDEN, TEXT, Features, reads_of
from ..core.protocols import Estimator
from ..core.registry import EXTRAS, check_options, resolve
from ..errors import InvalidFeaturesError, InvalidInputError, InvalidSettingsError, MissingExtraError
from .card import CrossValidation
from .describing import calibration_of, data_hash, make_card
from .familiarity import Familiarity
from .folds import assign_folds, hash_order
from .inputs import MIN_QUERIES
from .layers import Progress, best_layer, candidates, choose_layer, has_finite_features, hidden_of, silent
from .mean import mean_curve, measured_tokens
from .predictor import Predictor
from .seen import Seen
from .shrinkage import NOTHING_KNOWN, LeftOut, Shrinkage
from .spend import non_decreasing

Builder = Callable[[], Estimator]


def train(
    profile: Profile,
    *,
    predictor: str = "auto",
    layers: Sequence[int] | None = None,
    num_folds: int = 5,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    with_familiarity: bool = True,
    with_shrinkage: bool = True,
    progress: Progress = silent,
) -> Predictor:
    """Picks the layer, fits on every usable query, and fills the card with out-of-fold quality.

    Predictions of queries that a fit had not seen say how far those to come are drawn towards the mean curve.

    Args:
        profile: measured counts, with hidden states unless the predictor reads none.
        predictor: registered name; "auto" for `default_predictor`.
        layers: layers to choose from; None takes all that the profile holds.
        num_folds: folds for the card's calibration; fewer queries than folds leave it out.
        seed: of the folds, and of the predictor where it takes one.
        options: keywords of the predictor's class.
        with_familiarity: learn a novelty score; False where nobody will ask.
        with_shrinkage: False to have the predictor as it was fitted, to measure what it is by itself.
        progress: called with what is being done, steps done and steps in all.

    Raises:
        InvalidFeaturesError: no hidden states, a layer that was not recorded, or too few queries with finite ones.
        InvalidInputError: fewer than two queries with a finished trace.
        InvalidSettingsError: an option the predictor does not take.
    """
    predictor = named(predictor, profile)
    build = _builder(predictor, options, seed, progress)
    usable = profile.select(_usable_rows(profile, build, layers, seed))
    layer, choice = _choose(usable, build, layers, progress)
    progress("fit", 0, 1)
    fitted = _fit(usable, build, layer)
    progress("fit", 1, 1)
    left = _left_out(usable, fitted, build, layer, num_folds=num_folds, seed=seed, progress=progress)
    shrinkage = _shrinkage(usable, fitted, left) if with_shrinkage else None
    familiarity = Familiarity.fit(features_of(usable, layer), reads_of(fitted)) if with_familiarity else None
    calibration = None if left is None else calibration_of(usable, left, is_shrunk=shrinkage is not None)
    card = make_card(profile, usable, predictor, reads_of(fitted), layer, choice, calibration, seed)
    card = dataclasses.replace(card, shrinkage=shrinkage, familiarity=familiarity.card() if familiarity else None)
    return Predictor(card, fitted, familiarity, Seen.of(usable))


def default_predictor(profile: Profile) -> tuple[str, str]:
    """`(name, reason)` of the predictor that `train` takes for a profile when none is named."""
    if profile.layers and profile.texts and find_spec("torch") is not None:
        return "mlp", "the profile holds hidden states and the questions' texts"
    if profile.layers:
        missing = "torch, with which to train networks, is not installed" if profile.texts else "no texts"
        return "ridge", f"the profile holds hidden states; {missing}"
    if profile.texts:
        return "text", "the profile holds no hidden states, but the questions' texts"
    return "mean", "the profile holds neither hidden states nor texts"


def unfitted(predictor: str, options: Mapping[str, Any] | None = None) -> Estimator:
    """A predictor of that name and those options, to see what it reads and needs."""
    return _builder(predictor, options, 0)()


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
    """Out-of-fold predictions for every query, to evaluate honestly on one single run.

    Everything that is chosen or learned (layer, penalty, standardisation, weights, shrinkage) comes from the other
    folds alone: all that sets a query apart. The mean curve does not: each fold's queries are predicted around the one
    mean curve that blind has too. A fold that happens to be easy leaves the others hard; predictions around their mean
    would rank whole folds the wrong way round, which no plan for new queries does. A query without usable features
    gets the mean curve, as it would in a plan.

    Args:
        profile: as for `train`.
        predictor: as for `train`.
        layers: as for `train`.
        num_folds: as for `train`.
        seed: as for `train`.
        options: as for `train`.
        progress: as for `train`.

    Returns:
        The predicted curves, and the mean curve for every query (what the blind allocation knows), both in the
        profile's order.

    Raises:
        InvalidFeaturesError, InvalidInputError, InvalidSettingsError: as `train`; the last also when there are fewer
            queries than folds.
    """
    build = _builder(named(predictor, profile), options, seed, progress)
    # In hash order, so that what depends on the order of the rows (batches, splits) depends on ids alone.
    usable_rows = _usable_rows(profile, build, layers, seed)
    fold_Q = assign_folds(profile.query_ids, num_folds=num_folds, seed=seed)
    p_Q_B, tokens_Q_B = (np.zeros((profile.num_queries, profile.menu.num_options)) for _ in range(2))
    means = []
    for fold in range(num_folds):
        progress("fold", fold, num_folds)
        training = profile.select(usable_rows[fold_Q[usable_rows] != fold])
        held = usable_rows[fold_Q[usable_rows] == fold]
        mean_p_B, mean_tokens_B = mean_curve(training)
        means.append((mean_p_B, mean_tokens_B))
        layer, _ = _choose(training, build, layers, silent)
        fitted = _fit(training, build, layer)
        left = _left_out(training, fitted, build, layer, num_folds=num_folds, seed=seed, progress=silent)
        shrinkage = _shrinkage(training, fitted, left)
        if len(held):
            found = fitted.predict(features_of(profile.select(held), layer).given_to(fitted))  # type: ignore[arg-type]
            found_p_H_B, found_tokens_H_B = found if shrinkage is None else shrinkage.apply(*found, *means[-1])
            p_Q_B[held] = found_p_H_B - mean_p_B
            if found_tokens_H_B is not None and mean_tokens_B is not None:
                tokens_Q_B[held] = found_tokens_H_B - mean_tokens_B
    progress("fold", num_folds, num_folds)
    return _around_mean(profile, p_Q_B, tokens_Q_B, [int((fold_Q == fold).sum()) for fold in range(num_folds)], means)


def _around_mean(
    profile: Profile,
    deviation_Q_B: FloatArray,
    tokens_deviation_Q_B: FloatArray,
    sizes: Sequence[int],
    means: Sequence[tuple[FloatArray, FloatArray | None]],
) -> tuple[Curves, Curves]:
    """Curves around the mean of the folds' mean curves, each weighted by the fold's queries; and that mean curve."""
    mean_p_B = np.average([p_B for p_B, _ in means], axis=0, weights=sizes)
    p_Q_B = np.clip(mean_p_B + deviation_Q_B, 0.0, 1.0)
    mean = Curves(profile.query_ids, profile.menu, np.tile(mean_p_B, (profile.num_queries, 1)))
    predicted = Curves(profile.query_ids, profile.menu, p_Q_B)
    if not profile.is_spend_measured:
        return predicted, mean
    mean_tokens_B = non_decreasing(np.average([tokens_B for _, tokens_B in means], axis=0, weights=sizes)[None])[0]
    tokens_Q_B = np.maximum.accumulate(np.maximum(mean_tokens_B + tokens_deviation_Q_B, 0.0), axis=1)
    mean_tokens_Q_B = np.tile(mean_tokens_B, (profile.num_queries, 1))
    return (
        dataclasses.replace(predicted, tokens_Q_B=tokens_Q_B),
        dataclasses.replace(mean, tokens_Q_B=mean_tokens_Q_B),
    )


def named(predictor: str, profile: Profile) -> str:
    """The predictor's name, where "auto" stands for the default."""
    return default_predictor(profile)[0] if predictor == "auto" else predictor


def _builder(name: str, options: Mapping[str, Any] | None, seed: int, progress: Progress = silent) -> Builder:
    """Makes an unfitted predictor of that name; `seed` and `progress` are ours unless the options have them."""
    kind = resolve("predictors", name)
    check_options("predictors", name, options or {}, reserved=("progress",))
    known = [] if kind.__init__ is object.__init__ else list(inspect.signature(kind).parameters)
    settings = dict(options or {})
    if "seed" in known:
        settings.setdefault("seed", seed)
    if "progress" in known:
        settings.setdefault("progress", progress)

    def build() -> Estimator:
        try:
            made: Estimator = kind(**settings)
        except TypeError as error:  # a text where a number is wanted
            given = ", ".join(f"{key}={value!r}" for key, value in (options or {}).items())
            raise InvalidSettingsError(f"predictor {name!r} cannot take the options {given}: {error}") from error
        return made

    return build


def features_of(profile: Profile, layer: int | None) -> Features:
    """Everything that a predictor may read of the profile's queries; no hidden states where `layer` is None."""
    return Features(
        num_queries=profile.num_queries,
        hidden_Q_D=None if layer is None else hidden_of(profile, layer),
        texts=profile.texts or None,
        difficulties=profile.difficulties or None,
    )


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
    features_of(profile, None).check(reads - {HIDDEN})
    if HIDDEN in reads:
        candidates(profile, layers)


def _usable_rows(profile: Profile, build: Builder, layers: Sequence[int] | None, seed: int) -> IntArray:
    """Rows that can be learned from, in hash order: a finished trace and, where they are read, finite features."""
    reads = reads_of(build())
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


def _choose(
    profile: Profile, build: Builder, layers: Sequence[int] | None, progress: Progress
) -> tuple[int | None, CrossValidation | None]:
    """The layer to read, None for a predictor that reads none; and how it was chosen."""
    if HIDDEN not in reads_of(build()):
        return None, None
    choice = choose_layer(profile, layers, progress)
    return best_layer(profile, layers, choice), choice


def _fit(profile: Profile, build: Builder, layer: int | None) -> Estimator:
    counts = (profile.num_right_Q_B, profile.num_tried_Q)
    predictor = build()
    given = features_of(profile, layer).given_to(predictor)
    try:
        return predictor.fit(given, *counts, measured_tokens(profile))  # type: ignore[arg-type]
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

    A predictor that holds queries out by itself has kept them; any other is fitted again on all folds but one.
    """
    if hasattr(fitted, "held_p_Q_B_"):
        left = LeftOut.kept_by(fitted, usable)
        return left if left is not None and len(left.rows) >= MIN_QUERIES else None
    if usable.num_queries < max(num_folds, 2 * MIN_QUERIES):
        return None
    fold_Q = assign_folds(usable.query_ids, num_folds=num_folds, seed=seed)
    p_Q_B, tokens_Q_B = (np.empty(usable.num_right_Q_B.shape) for _ in range(2))
    has_tokens = usable.is_spend_measured
    for fold in range(num_folds):
        progress("calibrate", fold, num_folds)
        training, held = usable.select(np.flatnonzero(fold_Q != fold)), np.flatnonzero(fold_Q == fold)
        fold_fit = _fit(training, build, layer)
        given = features_of(usable.select(held), layer).given_to(fold_fit)
        p_Q_B[held], tokens = fold_fit.predict(given)  # type: ignore[arg-type]
        has_tokens = has_tokens and tokens is not None
        if tokens is not None:
            tokens_Q_B[held] = tokens
    progress("calibrate", num_folds, num_folds)
    return LeftOut.of(usable, np.arange(usable.num_queries), fold_Q, p_Q_B, tokens_Q_B if has_tokens else None)


def _shrinkage(usable: Profile, fitted: Estimator, left: LeftOut | None) -> Shrinkage | None:
    """How far its predictions are to be trusted; None where it says the mean curve anyway."""
    if not reads_of(fitted):
        return None
    return NOTHING_KNOWN if left is None else Shrinkage.fit(left, usable)


def left_out_curves(profile: Profile, trained: Predictor) -> Curves | None:
    """What a predictor just trained said of each query of its profile when it had not seen it, without tokens.

    None where it keeps none, or not of every query: `cross_fit` finds them for any predictor.
    """
    rows = getattr(trained.estimator, "held_rows_", None)
    p_Q_B = getattr(trained.estimator, "held_p_Q_B_", None)
    if rows is None or p_Q_B is None or len(rows) != profile.num_queries:
        return None
    if trained.card.shrinkage is not None:
        p_Q_B, _ = trained.card.shrinkage.apply(p_Q_B, None, np.asarray(trained.card.mean_p_B), None)
    ordered_Q_B = np.empty_like(p_Q_B)
    ordered_Q_B[hash_order(profile.query_ids, seed=trained.card.seed)[rows]] = p_Q_B
    return Curves(profile.query_ids, profile.menu, ordered_Q_B)


def is_trained_on(trained: Predictor, profile: Profile) -> bool:
    """Whether a predictor has learned from this very profile: what it says of its queries is then too good."""
    schema = trained.card.features
    layers = None if schema.layer is None else [schema.layer]
    if schema.layer is not None and schema.layer not in profile.layers:
        return False
    try:
        rows = _usable_rows(profile, lambda: trained.estimator, layers, trained.card.seed)
    except (InvalidFeaturesError, InvalidInputError):  # nothing of it can be learned from
        return False
    return data_hash(profile.select(rows)) == trained.card.data.data_hash
