"""Training on a profile in memory; if the predictor reads the stated difficulty, the model is queried first."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..core.arguments import whole
from ..core.features import DIFFICULTY
from ..core.problems import excerpt
from ..core.profile import Profile
from ..core.protocols import Engine
from ..core.provenance import FEEDBACK
from ..core.showing import watched
from ..errors import InvalidFeaturesError, InvalidInputError, InvalidSettingsError
from ..predictors import training
from ..predictors.difficulty import Asking, pick_examples, with_difficulties
from ..predictors.feeding import begun
from ..predictors.parts.folds import hash_order
from ..predictors.parts.making import Progress, make_estimator
from ..predictors.parts.rows import check_profile
from ..predictors.predictor import Predictor
from ..runs.pooling import pooled
from ..runs.profiles import joined
from .learning_votes import with_votes, with_waves

HISTORY = "history"

logger = logging.getLogger(__name__)


def train(
    profile: Profile | Sequence[Profile],
    predictor: str = "auto",
    *,
    layers: Sequence[int] | None = None,
    num_folds: int = 5,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    engine: Engine | None = None,
    progress: Progress | bool | None = None,
    fed_as: str = "",
    samples: Sequence[int] = (),
    vote_weights: str = "",
) -> Predictor:
    """Fits a predictor on a profile; layer and regularisation are picked by cross-validation.

    Args:
        profile: what was measured, or several measured in the same way; for a history, from the earliest on.
        predictor: registered name; "auto" for the default for what the profile holds.
        layers: layers to choose from; None for all that the profile holds.
        num_folds: folds of the cross-validation.
        seed: of the folds and of the fit.
        options: what the predictor's class takes.
        engine: of the measured model, for a predictor that asks it how hard a question is.
        progress: called with what is being done, steps done and steps in all; True for a bar, False for none, None for
            one in a notebook.
        fed_as: what the last profile goes by in a history; "" for a hash of its counts.
        samples: numbers of samples: the predictor's options are each option with each of them, and several samples
            vote. Empty: single samples.
        vote_weights: "answer" or "thought" to weigh votes by log-probability, see `Voting`; "" for one vote each.

    Raises:
        InvalidFeaturesError: the profile does not hold what the predictor reads.
        InvalidInputError: fewer than two queries with a finished trace.
    """
    profiles = [profile] if isinstance(profile, Profile) or not isinstance(profile, Iterable) else list(profile)
    check_profiles(profiles)
    seed, num_folds = whole("seed", seed), whole("num_folds", num_folds, least=2)
    singles = together(profiles, predictor)
    measured = with_votes(singles, samples, vote_weights)
    with watched(progress) as said:
        made = fitted(
            measured,
            predictor,
            fed=profiles,
            fed_as=fed_as,
            options=options,
            layers=layers,
            num_folds=num_folds,
            seed=seed,
            vote_weights=vote_weights,
            ask=lambda measured, asking: asked_now(measured, asking, engine, said),
            progress=said,
        )
        return with_waves(made, singles, samples)


async def train_async(profile: Profile | Sequence[Profile], predictor: str = "auto", **settings: Any) -> Predictor:
    """`train`, with the same arguments, for coroutines: it computes in a thread of its own."""
    return await asyncio.to_thread(train, profile, predictor, **settings)


def together(profiles: Sequence[Profile], predictor: str) -> Profile:
    """Several profiles as the one that is learned from: of a history they may be of the same questions.

    Journals of gateways beside measured profiles are fed to a history, and its base learns from the measured ones.
    """
    if predictor != HISTORY:
        return joined(profiles)
    return pooled([each for each in profiles if each.provenance.grader != FEEDBACK] or profiles)


def fitted(
    measured: Profile,
    predictor: str,
    *,
    fed: Sequence[Profile] = (),
    fed_as: str = "",
    options: Mapping[str, Any] | None,
    layers: Sequence[int] | None,
    num_folds: int,
    seed: int,
    ask: Callable[[Profile, Asking], Profile],
    progress: Progress,
    checkpoint: str = "",
    vote_weights: str = "",
) -> Predictor:
    """A predictor fitted on a profile; `ask` adds what the model says of its questions, where that is read.

    `fed` are the profiles that it was put together from, from the earliest on: a history counts them one by one. Votes
    on the profile are weighed by `vote_weights`.
    """
    name = training.named(predictor, measured)
    wanted = make_estimator(name, options)
    if name == HISTORY and not set(measured.menu.singles) <= set(measured.menu.labels):
        raise InvalidSettingsError("a history counts single samples, and votes follow from them: add 1 to samples")
    if name == HISTORY and vote_weights:
        raise InvalidSettingsError("a history counts answers, one vote each: leave vote weights out (--vote-weights)")
    check_profile(measured, frozenset(wanted.reads) - {DIFFICULTY}, layers)
    if num_lacking := int((~measured.is_complete_Q).sum()):
        logger.warning(
            "note: %d of %d questions have no trace under some option, or fewer than a vote needs: curves are learned "
            "from the others",
            num_lacking,
            measured.num_queries,
        )
    if DIFFICULTY in wanted.reads and not measured.difficulties:
        order = hash_order(measured.query_ids, seed=seed)
        measured = ask(measured, Asking(pick_examples(measured, num_each=wanted.num_examples, order=order)))
    trained = training.train(
        measured,
        predictor=name,
        layers=layers,
        num_folds=num_folds,
        seed=seed,
        options=options,
        progress=progress,
        checkpoint=checkpoint,
    )
    trained = replace(trained, card=replace(trained.card, vote_weights=vote_weights))
    return begun(trained, fed, fed_as=fed_as) if name == HISTORY and fed else trained


def check_profiles(profiles: Sequence[object]) -> None:
    """Refuses what is no profile, and no profiles at all."""
    wrong = [each for each in profiles if not isinstance(each, Profile)]
    if wrong or not profiles:
        what = excerpt(wrong[0]) if wrong else "an empty list"
        raise InvalidInputError(f"the profile must be a Profile, not {what}; read one: Profile.load(RUN or file)")


def asked_now(measured: Profile, asking: Asking, engine: Engine | None, progress: Progress) -> Profile:
    """The profile with what its own model says of how hard each question is."""
    if engine is None:
        raise InvalidFeaturesError(
            "the predictor reads the difficulty that the model states, which the profile does not hold; give the "
            "model's engine"
        )
    with tempfile.TemporaryDirectory() as folder:
        return with_difficulties(measured, engine, asking, Path(folder) / "asked", progress=progress)
