"""Evaluates a predictor on a profile in memory: held out, or cross-fitted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..allocators import Allocator
from ..core import registry
from ..core.arguments import whole, wholes
from ..core.data import Curves
from ..core.features import DIFFICULTY, Counts, Features
from ..core.problems import excerpt
from ..core.profile import Profile
from ..core.protocols import Engine
from ..core.showing import watched
from ..errors import InvalidInputError
from ..evaluation import Evaluation
from ..evaluation import evaluate as evaluate_curves
from ..evaluation.checks import known_costs
from ..evaluation.draws import DrawsEvaluation, evaluate_draws
from ..predictors import training
from ..predictors.difficulty import Asking
from ..predictors.history import HistoryPredictor
from ..predictors.overlap import held_out
from ..predictors.parts.making import Progress, make_estimator
from ..predictors.parts.making import silent as quiet
from ..predictors.predictor import Predictor
from ..runs.profiles import common_menu, curves_on_menu, on_menu, with_layers
from .learning_votes import Halves, halves, halves_of, with_votes, with_votes_of
from .planning import forecast
from .training import asked_now, check_profiles

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Judging:
    """How an evaluation is made.

    Attributes:
        mean_tokens, mean_usd: levels per question; None or empty: spread over what the options cost.
        num_resamples: bootstrap resamples.
        seed: of bootstrap and folds.
    """

    mean_tokens: Sequence[float] | None
    mean_usd: Sequence[float] | None
    num_resamples: int
    seed: int


def evaluate(
    predictor: Predictor | str,
    profile: Profile,
    *,
    allocator: str | Allocator = "envelope",
    mean_tokens: Sequence[float] | None = None,
    mean_usd: Sequence[float] | None = None,
    num_resamples: int = 2000,
    seed: int = 0,
    engine: Engine | None = None,
    progress: Progress | bool | None = None,
    samples: Sequence[int] = (),
    vote_weights: str = "",
) -> Evaluation:
    """The gain from prediction and allocation on measured curves, with intervals.

    Args:
        predictor: trained, and judged on the questions that it was not trained on; or a registered name ("auto" for the
            default): then every question is predicted by fits that did not see it.
        profile: what was measured.
        allocator: divides totals: a registered name or an allocator.
        mean_tokens: levels in mean tokens per question; by default they are spread over what the options cost.
        mean_usd: levels in mean USD per question, of named options with prices.
        num_resamples: bootstrap resamples.
        seed: of bootstrap and folds.
        engine: of the measured model, for a predictor that asks it how hard a question is.
        progress: called with what is being done, steps done and steps in all; True for a bar, False for none, None for
            one in a notebook.
        samples: numbers of samples that vote, as in `train`; a trained predictor's own otherwise.
        vote_weights: by what votes are weighed, as in `train`; a trained predictor's own otherwise.

    Raises:
        InvalidSettingsError: the predictor was trained on every question of the profile.
        MismatchError: it was made for another model or template, or has none of the profile's options.
    """
    check_profiles([profile])
    how = Judging(mean_tokens, mean_usd, whole("num_resamples", num_resamples, least=100), whole("seed", seed))
    samples = wholes("samples", samples)
    if isinstance(predictor, Predictor) and samples:
        vote_weights = vote_weights or predictor.card.vote_weights
    parts = halves(profile, samples, vote_weights) if samples else None
    profile = with_votes(profile, samples, vote_weights)
    made = registry.make("allocators", allocator, {}) if isinstance(allocator, str) else allocator
    if not isinstance(predictor, Predictor | str):
        raise InvalidInputError(f"the predictor must be a Predictor or a registered name, not {excerpt(predictor)}")
    with watched(progress) as said:
        if isinstance(predictor, str):
            return cross_fitted(profile, predictor, allocator=made, how=how, parts=parts, progress=said)
        measured, notes = held_out(profile, {"the predictor": predictor})
        asking = predictor.card.asking or Asking()
        return evaluate_on(
            predictor,
            measured,
            notes,
            asked=lambda: asked_now(measured, asking, engine, said),
            allocator=made,
            how=how,
            parts=parts,
            progress=said,
        )


async def evaluate_async(predictor: Predictor | str, profile: Profile, **settings: Any) -> Evaluation:
    """`evaluate`, with the same arguments, for coroutines: it computes in a thread of its own."""
    return await asyncio.to_thread(evaluate, predictor, profile, **settings)


def evaluate_on(
    predictor: Predictor,
    measured: Profile,
    notes: tuple[str, ...],
    *,
    asked: Callable[[], Profile],
    allocator: Allocator,
    how: Judging,
    parts: Halves | None = None,
    progress: Progress = quiet,
) -> Evaluation:
    """A predictor judged on a profile that it was not trained on.

    Args:
        predictor: trained.
        measured: of other questions; of single samples, or of votes.
        notes: what must be known of them.
        asked: gives the profile with the model's stated difficulties, where these are lacking.
        allocator: divides totals.
        how: levels, resamples, seed.
        parts: halves of the samples behind votes, see `learning_votes.halves`.
        progress: called with what is being done, steps done and steps in all.
    """
    if DIFFICULTY in predictor.card.features.reads and not measured.difficulties:
        measured = asked()
    card = predictor.card
    parts = parts or halves_of(card.menu, measured, card.vote_weights)
    measured, predicted, mean_train, more = held_out_curves(predictor, measured, progress=progress)
    notes += more
    for note in notes:
        logger.warning("note: %s", note)
    return _evaluated(measured, predicted, mean_train, notes, allocator, how, parts, progress)


def cross_fitted(
    measured: Profile,
    predictor: str,
    *,
    allocator: Allocator,
    how: Judging,
    parts: Halves | None = None,
    progress: Progress = quiet,
) -> Evaluation:
    """A kind of predictor judged on a profile, each query predicted by fits that did not see it; `parts` as above."""
    make_estimator(training.named(predictor, measured))
    predicted, mean_train = training.cross_fit(measured, predictor=predictor, seed=how.seed, progress=progress)
    return _evaluated(measured, predicted, mean_train, (), allocator, how, parts or halves(measured), progress)


def _evaluated(
    measured: Profile,
    predicted: Curves,
    mean_train: Curves,
    notes: tuple[str, ...],
    allocator: Allocator,
    how: Judging,
    parts: Halves | None,
    progress: Progress,
) -> Evaluation:
    return evaluate_curves(
        measured,
        predicted,
        mean_train,
        allocator=allocator,
        costs=known_costs(measured, mean_train),
        mean_tokens=how.mean_tokens or None,
        mean_usd=how.mean_usd or None,
        halves=parts,
        num_resamples=how.num_resamples,
        seed=how.seed,
        notes=notes,
        progress=progress,
    )


def by_draws(profile: Profile, **how: Any) -> DrawsEvaluation:
    """The gain from a history of the same questions.

    The history is learnt anew from the draws that choose, around their mean curve: no other model has a say.

    Args:
        profile: with traces.
        how: what `evaluation.draws.evaluate_draws` takes besides: draws that choose, levels, resamples, a seed.
    """
    check_profiles([profile])

    def remembered(choosing: Profile) -> Curves:
        features = Features.of(choosing, None)
        p_Q_B, tokens_Q_B = HistoryPredictor().fit(features, Counts.of(choosing)).predict(features)
        return Curves(choosing.query_ids, choosing.menu, p_Q_B, tokens_Q_B)

    return evaluate_draws(profile, remembered, **how)


def held_out_curves(
    predictor: Predictor, measured: Profile, *, progress: Progress = quiet
) -> tuple[Profile, Curves, Curves, tuple[str, ...]]:
    """Curves for the queries of a profile the predictor was not trained on, made as in a plan.

    Where the profile was measured at other options than the predictor's, everything is on the options of both; named
    ones are the same by name.

    Returns:
        The profile, the predicted curves and the mean training curve, and what must be known of them in sentences.

    Raises:
        MismatchError: another model or template, or no option on both menus.
    """
    predictor.check(measured.provenance.engine_info, None)
    measured = with_votes_of(predictor.card.menu, measured, predictor.card.vote_weights)
    menu = common_menu(measured.menu, predictor.card.menu)
    layer = predictor.card.features.layer
    if layer is not None:
        measured = with_layers(measured, [layer])
    expected = forecast(measured.query_ids, predictor, Features.of(measured, layer), progress=progress)
    notes = expected.notes
    if menu.is_named and not predictor.card.menu.is_same(measured.menu):
        notes += (
            f"The predictor's options are {predictor.card.menu}, the profile's {measured.menu}: compared at those in "
            f"both, {menu}.",
        )
    elif not menu.is_named and predictor.card.menu != measured.menu:
        notes += (
            f"The predictor's budgets are {predictor.card.menu} tokens, the profile's {measured.menu}: compared at "
            f"those in both, {menu}. A trace under a smaller cap is the beginning of the longer one, so nothing is "
            f"interpolated.",
        )
    judged_by = measured.provenance.judge
    if None not in (predictor.card.grader, judged_by) and predictor.card.grader != judged_by:
        notes += (
            f"The predictor learned from grades of {predictor.card.grader}, the profile was graded by {judged_by}.",
        )
    mean_train = predictor.card.mean_curves(measured.query_ids)
    curves, mean_train = curves_on_menu(expected.curves, menu), curves_on_menu(mean_train, menu)
    return on_menu(measured, menu), curves, mean_train, notes
