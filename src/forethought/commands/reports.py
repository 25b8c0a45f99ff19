"""Layers, evaluate, compare: the commands that write a report, one function each."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..control import evaluating, sources
from ..control.budgets import load_budgets, read_plan
from ..control.learning_votes import halves, halves_of, with_votes, with_votes_of
from ..control.results import answer_rows, outcomes, read_summary
from ..core import registry
from ..core.data import Query
from ..core.flags import said_settings, typed
from ..core.profile import Profile
from ..core.protocols import Engine
from ..core.settings import EngineSettings, RunPlanSettings, RunSettings, TrainSettings
from ..core.study_settings import CompareSettings, EvaluateSettings, LayersSettings
from ..engines.lengths import upper_bound
from ..engines.opening import (
    check,
    check_can_ask,
    choose_reader,
    num_layers,
    opened,
)
from ..errors import InvalidFeaturesError, InvalidSettingsError, MismatchError, RunError
from ..evaluation import Evaluation, LiveComparison, compare_live
from ..evaluation.checks import known_costs
from ..evaluation.comparison import Comparison, compare_predictors
from ..evaluation.draws import DrawsEvaluation
from ..evaluation.policies import BLIND, FORETHOUGHT, UNIFORM
from ..predictors.bundle import shipped_predictors
from ..predictors.difficulty import Asking, with_difficulties
from ..predictors.overlap import Seen, held_out
from ..predictors.parts.making import Progress
from ..predictors.parts.making import silent as quiet
from ..predictors.predictor import Predictor
from ..report import Page, page
from ..report.run import RunResult, read_records, run_page
from ..runs.folders import (
    beside,
    check_folder,
    compare_folder,
    layers_folder,
    report_folder,
)
from ..runs.store import RunDirectory
from ..studies import layers
from ..studies.comparison import candidate, labelled, mean_train

logger = logging.getLogger(__name__)

Wrote = Callable[[Path], None]


def ignore(file: Path) -> None:
    """Does nothing with it."""


def ask_model(
    measured: Profile,
    asking: Asking,
    settings: TrainSettings | EvaluateSettings | CompareSettings,
    folder: Path,
    progress: Progress,
) -> Profile:
    """The profile with what its own model says of how hard each question is; see `difficulty.with_difficulties`."""
    model = settings.model or measured.provenance.model
    if not model:
        raise InvalidSettingsError("the profile does not say which model was measured; give --model")
    if not measured.texts:
        raise InvalidFeaturesError("the profile does not hold its questions' texts, so the model cannot be asked")
    check_can_ask(model, settings.engine)
    needed = upper_bound(asking.template, [Query("", text) for text in measured.texts], 0)
    with opened(None, model, settings.engine, needed_tokens=needed, progress=progress) as engine:
        known = measured.provenance.model_hash
        if known is not None and engine.info.model_hash is not None and known != engine.info.model_hash:
            raise MismatchError(f"the profile is of model {known}, but {model} is {engine.info.model_hash} here")
        return with_difficulties(measured, engine, asking, folder, progress=progress)


def study_layers(
    settings: LayersSettings, *, engine: Engine | None = None, progress: Progress = quiet, wrote: Wrote = ignore
) -> layers.LayerStudy:
    """Judges every layer of the model on a profile, by itself; states that are lacking are read with the model first.

    The report is written to `settings.out`, or where that says.

    Args:
        settings: what to study.
        engine: an engine already open, else one is made from the settings where something is to be read.
        progress: called with what is being done, steps done and steps in all.
        wrote: called with each file of the report.
    """
    found, asked = survey_layers(settings, is_open=engine is not None)
    levels = layers.choose_levels(found.measured.menu, settings)
    if found.missing and settings.read:
        with opened(engine, found.model, asked, progress=progress) as running:
            layers.fill(Path(settings.states), running, found, wanted=settings.layer_numbers, progress=progress)
        found = layers.survey(settings)
    result = layers.study(
        found.measured,
        found.states,
        layers=layers.choose_layers(found.states, settings),
        levels=levels,
        num_resamples=settings.num_resamples,
        seed=settings.seed,
        notes=found.notes(settings),
        progress=progress,
    )
    facts = made_by("forethought layers", settings)
    made = layers.page(result, facts=facts)
    for file in made.write(layers_folder(settings), plots=settings.plots, progress=progress).values():
        wrote(file)
    return result


def survey_layers(settings: LayersSettings, *, is_open: bool = False) -> tuple[layers.Survey, EngineSettings]:
    """What is there to study, and with which engine the rest would be read; refuses what is known not to work."""
    check_folder(layers_folder(settings))
    found = layers.survey(settings)
    layers.choose_levels(found.measured.menu, settings)
    asked = settings.engine
    if not found.missing or not settings.read:
        layers.choose_layers(found.states, settings)
        return found, asked
    layers.check_readable(found, settings.run)
    check_folder(Path(settings.states), "--states")
    if not is_open:
        name, reason = choose_reader(found.model, asked.engine)
        logger.info("engine %s (%s); %d questions to read", name, reason, len(found.missing))
        asked = replace(asked, engine=name, template=found.template)
        check(found.model, asked)
        known = num_layers(found.model, asked)
        if known and settings.layer_numbers and settings.layer_numbers[-1] > known:
            raise InvalidFeaturesError(f"--layers {settings.layer_numbers[-1]}: {found.model} holds layers 0-{known}")
    return found, asked


def evaluate(
    settings: EvaluateSettings, *, wrote: Wrote = ignore, progress: Progress = quiet
) -> Evaluation | LiveComparison | DrawsEvaluation:
    """The gain from prediction and allocation, with intervals; the report is written to `settings.out` or its default.

    Args:
        settings: what to judge, and how; see `evaluation`.
        wrote: called with each file of the report.
        progress: called with what is being done, steps done and steps in all.
    """
    check_folder(report_folder(settings))
    result = evaluation(settings, progress=progress)
    made = evaluated_page(settings, result)
    for file in made.write(report_folder(settings), plots=settings.plots, progress=progress).values():
        wrote(file)
    return result


def made_by(verb: str, settings: Any) -> dict[str, Any]:
    """What a page says of how it was made: the command, and everything that it was asked."""
    return {"command": typed(verb, settings), "settings": ", ".join(said_settings(settings))}


def evaluated_page(settings: EvaluateSettings, result: Evaluation | LiveComparison | DrawsEvaluation) -> Page:
    """The page of an evaluation, with the traces behind its questions where they lie on disk."""
    facts, run = made_by("forethought evaluate", settings), Path(settings.run)
    if isinstance(result, LiveComparison):
        return run_report(RunDirectory.open(run), compared=result, facts=facts)
    measured = Path(settings.on or settings.run)
    has_records = (measured / "run.json").is_file() and RunDirectory.open(measured).header.kind == "profile"
    records = read_records(RunDirectory.open(measured)) if has_records else None
    return page(result, records=records, facts=facts)


def run_report(
    run: RunDirectory, *, compared: LiveComparison | None = None, facts: Mapping[str, Any] | None = None
) -> Page:
    """The page of a finished run."""
    made, queries = run.header.provenance, sources.run_queries(run)
    plan = read_plan(run)
    answers = {name: answer_rows(run, queries, name) for name in load_budgets(run)[1]}
    result = RunResult(read_summary(run), plan.allocation.expected_accuracy, made.simulated)
    facts = {**made.to_json(), **(facts or {})}
    return run_page(result, plan, answers, records=read_records(run), compared=compared, facts=facts)


def write_run(run: RunDirectory, settings: RunSettings | RunPlanSettings) -> tuple[Path, LiveComparison | None]:
    """Writes RUN/report.html; where allocators were compared on its graded answers, the comparison comes first.

    Returns:
        The report, and the comparison; None where there was none.
    """
    compared = None
    if len(load_budgets(run)[1]) > 1 and read_summary(run)["graded"]:
        compared = live_comparison(run, seed=settings.seed if isinstance(settings, RunSettings) else 0)
    page = run_report(run, compared=compared, facts=made_by("forethought run", settings))
    return page.write_html(run.path), compared


def evaluation(
    settings: EvaluateSettings, *, progress: Progress = quiet
) -> Evaluation | LiveComparison | DrawsEvaluation:
    """The gain from prediction and allocation, with intervals; nothing is written.

    A finished `run --compare` is compared as it was run. A predictor is judged on the held-out profile `settings.on`
    (a shipped one: on the shipped held-out profile). A profile run alone is cross-fitted: every query is predicted by
    predictors that never saw it. Spent cost is left out where the profile or the predictor does not know of spend.
    With `settings.by_draws` a profile's own draws are parted: some choose, the others are judged.
    A held-out profile of another kind of questions, or on another menu, is judged with a note that says so. Questions
    of it that the predictor was trained on are left out, with a note that says how many.

    Args:
        settings: what to judge, and on what.
        progress: called with what is being done, steps done and steps in all.

    Raises:
        InvalidSettingsError: the predictor was trained on every question of the profile.
    """
    path = Path(settings.run)
    allocator = registry.make("allocators", settings.allocator, settings.allocator_options)
    if settings.by_draws:
        return evaluating.by_draws(
            sources.open_profile(settings.run),
            num_draws=settings.num_draws,
            num_halvings=settings.num_halvings,
            mean_tokens=settings.mean_tokens or None,
            mean_usd=settings.mean_usd or None,
            num_resamples=settings.num_resamples,
            seed=settings.seed,
            progress=progress,
        )
    if (path / "run.json").is_file() and RunDirectory.open(path).header.kind == "run":
        if settings.on or settings.samples:
            raise InvalidSettingsError(
                f"{path} is a run by a plan, which is compared on its own answers: leave --on and --samples out, or "
                "evaluate its predictor"
            )
        return live_comparison(RunDirectory.open(path), seed=settings.seed)
    how = evaluating.Judging(settings.mean_tokens, settings.mean_usd, settings.num_resamples, settings.seed)
    if settings.on or settings.run in shipped_predictors():
        predictor = sources.open_predictor(settings.run)
        if settings.samples or settings.vote_weights:
            raise InvalidSettingsError(
                f"{settings.run} is judged by its own numbers of samples and vote weights: leave --samples and "
                "--vote-weights out, or evaluate the profile alone"
            )
        measured = sources.open_profile(settings.on) if settings.on else sources.shipped_heldout(settings.run)
        measured, notes = held_out(measured, {settings.run: predictor}) if settings.on else (measured, ())
        return evaluating.evaluate_on(
            predictor,
            measured,
            notes,
            asked=lambda: ask_model(
                measured,
                predictor.card.asking or Asking(),
                settings,
                beside(report_folder(settings), "asked"),
                progress,
            ),
            allocator=allocator,
            how=how,
            progress=progress,
        )
    profile, voting = sources.open_profile(settings.run), (settings.samples, settings.vote_weights)
    return evaluating.cross_fitted(
        with_votes(profile, *voting),
        settings.predictor,
        allocator=allocator,
        how=how,
        parts=halves(profile, *voting),
        progress=progress,
    )


def compare(settings: CompareSettings, *, wrote: Wrote = ignore, progress: Progress = quiet) -> Comparison:
    """Several predictors through one allocator on one held-out profile, with what each costs itself.

    The report is written to `settings.out`, or where that says.

    Args:
        settings: what to compare.
        wrote: called with each file of the report.
        progress: called with what is being done, steps done and steps in all.
    """
    folder = compare_folder(settings)
    check_folder(folder)
    allocator = registry.make("allocators", settings.allocator, settings.allocator_options)
    trained = [sources.open_predictor(source) for source in settings.predictors]
    names = settings.names or names_of(settings.predictors)
    measured = sources.open_profile(settings.on) if settings.on else sources.shipped_heldout(settings.predictors[0])
    counted = sources.open_profile(settings.train) if settings.labels else None
    parts = halves_of(trained[0].card.menu, measured, trained[0].card.vote_weights)
    measured, counted = as_voted(trained, measured), None if counted is None else as_voted(trained, counted)
    for each in trained:
        each.check(measured.provenance.engine_info, measured.menu)
    notes: tuple[str, ...] = ()
    if settings.on:
        fitted = dict[str, Predictor | Seen](zip(names, trained, strict=True))
        measured, notes = held_out(measured, fitted | ({"--train": Seen.of(counted)} if counted else {}))
        for note in notes:
            logger.warning("note: %s", note)
    others = []
    if counted is not None:
        pairs = [pair.partition("=")[::2] for pair in settings.labels]
        others = [labelled(name, Path(file), counted, measured) for name, file in pairs]
    asking = [each.card.asking for each in trained if each.card.asking is not None]
    told = {
        each: ask_model(measured, each, settings, beside(folder, f"asked-{each.template.hash}"), progress)
        for each in dict.fromkeys(asking)
        if not measured.difficulties
    }
    candidates = []
    for number, (name, each) in enumerate(zip(names, trained, strict=True)):
        progress(f"predict: {name}", number, len(names))
        known = told.get(each.card.asking, measured) if each.card.asking else measured
        candidates.append(candidate(name, each, known))
    blind = mean_train(trained, measured)
    result = compare_predictors(
        measured,
        [*candidates, *others],
        blind,
        allocator=allocator,
        costs=known_costs(measured, blind),
        halves=parts,
        num_resamples=settings.num_resamples,
        seed=settings.seed,
        notes=notes,
        progress=progress,
    )
    facts = made_by("forethought compare", settings)
    for file in page(result, facts=facts).write(folder, plots=settings.plots, progress=progress).values():
        wrote(file)
    return result


def as_voted(trained: Sequence[Predictor], measured: Profile) -> Profile:
    """The profile of the votes that predictors have learned from; itself where these are single samples."""
    weights = sorted({each.card.vote_weights for each in trained})
    if len(weights) > 1:
        raise MismatchError(
            f"the predictors' votes weigh differently ({', '.join(each or 'equal' for each in weights)}), so they are "
            "of other votes: compare predictors that were trained with the same --vote-weights"
        )
    return with_votes_of(trained[0].card.menu, measured, weights[0])


def names_of(predictors: Sequence[str]) -> tuple[str, ...]:
    """What to call each predictor: the shortest end of its path that is its own; RUN for RUN/predictor."""
    parts = [Path(source).parts for source in predictors]
    parts = [each[:-1] if len(each) > 1 and each[-1] == "predictor" else each for each in parts]
    for length in range(1, max(map(len, parts)) + 1):
        names = tuple("/".join(each[-length:]) for each in parts)
        if len(set(names)) == len(names):
            break
    return names


def live_comparison(run: RunDirectory, *, seed: int = 0) -> LiveComparison:
    """The allocators of a `run --compare` on the same traces; the run's own is called forethought."""
    results = outcomes(run, sources.run_queries(run))
    if not any(len(right_Q) for right_Q, *_ in results.values()):
        raise RunError(
            f"{run.path} has no graded answer, so its allocators cannot be compared; give its questions references: "
            f"forethought regrade {run.path} --answers FILE"
        )
    main, _ = load_budgets(run)
    made = run.header.provenance
    return compare_live(
        {main if main in (UNIFORM, BLIND) else FORETHOUGHT: results.pop(main), **results},
        seed=seed,
        simulated=made.simulated,
        provenance=made.to_json(),
    )
