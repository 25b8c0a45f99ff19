"""Checks before a model is loaded or a token is paid for, shared by commands and their dry runs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ..control import sources
from ..control.feeding import check_history, history_folder
from ..control.judging import Judge
from ..control.plan import MAKE, Plan
from ..control.planning import check_votes, check_waves, engine_for, model_of, voting_for, weights_for
from ..control.profiling import check_asked_layers
from ..control.running import plan_provenance
from ..control.sources import refuse_without_texts
from ..control.terms import Terms
from ..core import registry
from ..core.data import EngineInfo, Query
from ..core.features import HIDDEN
from ..core.flags import check_all
from ..core.menu import Menu
from ..core.protocols import Engine
from ..core.provenance import Provenance
from ..core.settings import EngineSettings, PlanSettings, ProfileSettings, RunPlanSettings, RunSettings
from ..core.votes import Voting
from ..engines.context import SEVERAL_CAPS, Room, check_probes
from ..engines.opening import LOCAL, check, choose, num_layers, prompting
from ..errors import InvalidFeaturesError, InvalidMenuError, InvalidSettingsError, InvalidTotalError
from ..graders import check_references, is_gradable
from ..models import ALIASES
from ..predictors.card import PredictorCard
from ..predictors.predictor import Predictor
from ..questions.queries import load_queries, query_to_json
from ..questions.rows.reading import FORMATS
from ..runs.folders import check_folder, profile_folder, run_folder
from ..runs.store import RunDirectory, fingerprint


@contextmanager
def typed_flags() -> Iterator[None]:
    """What is refused of a plan's terms is named as it was typed: `mean_tokens` is --mean-tokens here."""
    try:
        yield
    except (InvalidTotalError, InvalidMenuError, InvalidSettingsError) as error:
        flags = re.sub(r"(?<![-\w'])(mean|min|max|total|vote)_(tokens|usd|agreement|weights)\b", r"--\1-\2", str(error))
        error.args = (flags,)
        raise


def terms_of(settings: PlanSettings) -> Terms:
    """What is divided, and how."""
    return Terms(
        mean_tokens=settings.mean_tokens,
        total=settings.total_tokens,
        mean_usd=settings.mean_usd,
        total_usd=settings.total_usd,
        cost=settings.cost,
        allocator=settings.allocator,
        allocator_options=settings.allocator_options,
        min_tokens=settings.min_tokens,
        max_tokens=settings.max_tokens,
    )


def voting_of(settings: PlanSettings, card: PredictorCard) -> Voting:
    """How samples vote: weighed as the votes that the predictor learned from, where nothing else is said."""
    return voting_for(card, settings.min_agreement, settings.vote_weights)


def planned_engine(settings: PlanSettings, predictor: Predictor) -> EngineSettings:
    """The engine asked for, with the template and sampling the predictor was trained under."""
    return engine_for(predictor.card, settings.engine, settings.template)


def profile_inputs(
    settings: ProfileSettings, *, is_open: bool = False, asks: bool = False
) -> tuple[list[Query], Judge, int]:
    """The questions of a profile, its grader, and how many questions were left out because nothing grades them.

    Args:
        settings: what to measure.
        is_open: an engine is open already, so the one of `settings` is not looked at.
        asks: as of `opening.check`.

    Raises:
        ForethoughtError: whatever would be refused once the model runs.
    """
    if not is_open and Path(settings.model).suffix.lower() in FORMATS and Path(settings.model).is_file():
        raise InvalidSettingsError(
            f"{settings.model} is a file of questions; MODEL comes first: forethought profile {settings.questions} "
            f"{settings.model}"
        )
    judge = Judge.of(settings.grader, settings.grader_options)
    queries = load_queries(settings.questions, limit=settings.limit, **settings.columns)
    kept = [query for query in queries if is_gradable(judge.grader, query.reference)]
    if not settings.skip_ungraded:
        if len(kept) < len(queries):
            check_references(judge.grader, queries, source=settings.questions, required=True)
    elif not kept:
        raise InvalidSettingsError(f"{settings.questions}: none of {len(queries):,} questions can be graded")
    folder = profile_folder(settings)
    check_folder(folder)
    check_history(settings.history, is_made=True)
    check_asked_layers(settings)
    if not is_open and settings.names_caps and settings.menu.num_options > 1 and not settings.menu.is_named:
        check_probes(settings.engine.options.get("enforce"), what=SEVERAL_CAPS)
    prompts = prompting(settings.model, settings.engine)
    template = prompts.template if prompts.is_settled and not is_open else None
    known = Provenance(
        template=None if template is None else template.name,
        template_hash=None if template is None else template.hash,
        menu=settings.menu if prompts.is_settled or settings.names_caps else None,
        sampling=settings.engine.sampling,
        seed=settings.seed,
    ).with_grader(judge.provenance)
    if not is_open:
        check(settings.model, settings.engine, asks=asks)
        layers = num_layers(settings.model, settings.engine)
        if layers is not None:
            settings.layer_numbers(layers or None)
        name, _ = choose(settings.model, settings.engine.engine)
        known = replace(known, engine=name) if name in registry.BUILTIN["engines"] else known
    RunDirectory.check(folder, kind="profile", provenance=known)
    return kept, judge, len(queries) - len(kept)


def plan_inputs(settings: PlanSettings) -> tuple[Predictor, list[Query]]:
    """The predictor and the questions of a plan; raises every error that can be detected in advance."""
    if Path(settings.run).is_file():
        beside = Path(settings.run).with_suffix("")
        what = f"the folder of its predictor: {beside}" if beside.is_dir() else "a trained run, a predictor or its name"
        raise InvalidSettingsError(f"{settings.run} is a file; RUN comes first, then QUESTIONS, and it is {what}")
    predictor = sources.open_predictor(settings.run)
    check_votes(predictor.card, settings.min_agreement, settings.vote_weights)
    terms = terms_of(settings)
    terms.open()
    queries = sources.plan_queries(settings.questions, settings.limit, settings.columns)
    terms.check_total(queries, predictor.card)
    if settings.waves:
        check_waves(predictor, queries, terms, weights_for(predictor.card, settings.vote_weights))
    return predictor, queries


def run_inputs(settings: RunSettings, *, is_open: bool = False) -> tuple[Predictor, list[Query], Judge]:
    """The predictor, the questions and the grader of a run; raises every error that can be detected in advance."""
    predictor, queries = plan_inputs(settings.plan)
    if predictor.card.menu.is_named:
        check_all(
            [
                "--hard-total needs the largest number of tokens of an answer, and named options state "
                "only the mean: leave it out"
                if settings.hard_total
                else None,
            ]
        )
    if (own := settings.plan.allocator) in settings.compare:
        raise InvalidSettingsError(f"--compare {own}: it is the run's own allocator; leave it out")
    for name in settings.compare:
        terms_of(settings.plan).open(name)
    refuse_without_texts(queries, settings.plan.questions)
    judge = Judge.of(settings.grader, settings.grader_options)
    check_references(judge.grader, queries, source=settings.plan.questions)
    folder = run_folder(settings)
    check_folder(folder)
    check_history(settings.history or history_folder(settings.plan.run))
    if not is_open:
        check_planned_engine(settings.plan, predictor)
    RunDirectory.check(folder, kind="run", provenance=run_provenance(settings, predictor, queries, judge))
    return predictor, queries, judge


def plan_file_inputs(settings: RunPlanSettings) -> tuple[Plan, Judge, EngineSettings]:
    """The plan of a file, its grader and its engine; raises every error that can be detected in advance."""
    made = Plan.load(settings.plan_file)
    if made.waves and settings.worker:
        raise InvalidSettingsError(f"{settings.plan_file} draws in waves, all questions together: leave --worker out")
    refuse_without_texts(made.queries, settings.plan_file)
    judge = Judge.of(settings.grader, settings.grader_options)
    check_references(judge.grader, made.queries, source=settings.plan_file)
    folder = run_folder(settings)
    check_folder(folder)
    check_history(settings.history)
    if made.card is None:
        raise InvalidSettingsError(
            f"{settings.plan_file} does not say for which model it was made (a run of an earlier version?); "
            f"make the plan again: {MAKE}"
        )
    asked = engine_for(made.card, settings.engine, settings.template)
    check(plan_model(settings, made), asked)
    found = prompting(plan_model(settings, made), asked)
    info = EngineInfo("", made.card.model or "", template=found.template.name)
    made.check(replace(info, template_hash=found.template.hash) if found.is_settled else info)
    RunDirectory.check(folder, kind="run", provenance=plan_provenance(made, judge))
    return made, judge, asked


def plan_model(settings: RunPlanSettings, made: Plan) -> str:
    """Which model carries out the plan of a file."""
    assert made.card is not None
    return model_of(made.card, settings.model)


def run_provenance(
    settings: RunSettings, predictor: Predictor, queries: Sequence[Query], judge: Judge, info: EngineInfo | None = None
) -> Provenance:
    """What determines the records of a run; without an engine, what is known before there is one."""
    more = {
        "allocators": allocators_of(settings),
        "allocator_options": settings.plan.allocator_options or None,
        "cost": settings.plan.cost.value,
        "total": settings.plan.total_for(len(queries)),
        "hard_total": settings.hard_total or None,  # None: as runs of before it say
        "waves": settings.plan.waves or None,
        "queries": fingerprint([query_to_json(query) for query in queries]),
    }
    sampling = planned_engine(settings.plan, predictor).sampling
    made = Provenance() if info is None else Provenance.of(info, sampling=sampling)
    return replace(made, menu=predictor.card.menu, seed=settings.seed, more=more).with_grader(judge.provenance)


def allocators_of(settings: RunSettings) -> list[str]:
    """The allocators of a run, its own first."""
    return list(dict.fromkeys((settings.plan.allocator, *settings.compare)))


def room_of(
    model: str, asked: EngineSettings, queries: Sequence[Query], menu: Menu, engine: Engine | None = None
) -> tuple[str, Room]:
    """The name of the engine that is open, or else would be, and what the queries need of its context."""
    name = engine.info.engine if engine is not None else choose(model, asked.engine)[0]
    return name, Room.of(model, prompting(model, asked).template, queries, menu, engine=name)


def check_planned_engine(settings: PlanSettings, predictor: Predictor) -> None:
    """Refuses an engine that cannot run the predictor's model, or cannot give it what it reads."""
    asked, model = planned_engine(settings, predictor), model_of(predictor.card, settings.model)
    check(model, asked)
    found = prompting(model, asked)
    template = found.template
    published = ALIASES[model].sha256 if model in ALIASES and choose(model, asked.engine)[0] in LOCAL else None
    info = EngineInfo("", predictor.card.model or model, published, template=template.name)
    if found.is_settled:
        info = replace(info, template_hash=template.hash)
    predictor.check(info)
    if HIDDEN in predictor.card.features.reads and num_layers(model, asked) == 0:
        name, _ = choose(model, asked.engine)
        raise InvalidFeaturesError(
            f"the predictor reads hidden states of layer {predictor.card.features.layer}, which engine {name!r} does "
            "not give; use --engine transformers or --engine vllm, or a predictor that reads the text alone: "
            "forethought train RUN --predictor text"
        )
