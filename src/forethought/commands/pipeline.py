"""Profile, import, train, plan, run, evaluate and more: the table of contents. One function a stage; files hand on."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from ..control import evaluating, profiling, sources
from ..control.adapting import Adaptation
from ..control.answers import Answer
from ..control.budgets import keep_plan, load_budgets, read_plan
from ..control.plan import Plan
from ..control.planning import forecast, largest_cap, made_plan, model_of, needed_tokens, predict
from ..control.pool import Pool
from ..control.profiling import Report, setup_of, silent
from ..control.results import outcomes, write_results
from ..control.running import generate_planned, kept_answers
from ..control.training import fitted
from ..core import registry
from ..core.data import Cost, Query
from ..core.files import make_folder
from ..core.menu import Menu
from ..core.profile import Profile
from ..core.protocols import Engine, HiddenStateEngine
from ..core.settings import (
    CompareSettings,
    EngineSettings,
    EvaluateSettings,
    ImportSettings,
    LayersSettings,
    PlanSettings,
    ProfileSettings,
    RunPlanSettings,
    RunSettings,
    TrainSettings,
)
from ..core.waiting import finish
from ..core.worker import Worker
from ..engines.context import Room
from ..engines.lengths import upper_bound
from ..engines.opening import (
    check,
    check_can_ask,
    choose,
    choose_reader,
    num_layers,
    opened,
    prompting,
    settle,
)
from ..errors import InvalidFeaturesError, InvalidSettingsError, MismatchError, RunError
from ..evaluation import Evaluation, LiveComparison, compare_live
from ..evaluation.comparison import Comparison, compare_predictors
from ..evaluation.policies import BLIND, FORETHOUGHT, UNIFORM
from ..predictors import training
from ..predictors.bundle import check_place, shipped_predictors
from ..predictors.difficulty import Asking, with_difficulties
from ..predictors.overlap import Seen, held_out
from ..predictors.parts.making import Progress, make_estimator
from ..predictors.parts.making import silent as quiet
from ..predictors.predictor import Predictor
from ..report import page
from ..runs.folders import (
    beside,
    check_file,
    check_folder,
    compare_folder,
    import_file,
    layers_folder,
    profile_folder,
    report_folder,
    run_folder,
)
from ..runs.importing import Imported, check_target, read_profile
from ..runs.profiles import joined, write_parquet
from ..runs.store import RunDirectory
from ..studies import layers
from ..studies.comparison import candidate, labelled, mean_train
from .beforehand import (
    allocators_of,
    check_planned_engine,
    plan_file_inputs,
    plan_inputs,
    plan_model,
    planned_engine,
    profile_inputs,
    run_inputs,
    run_provenance,
    terms_of,
    typed_flags,
)

logger = logging.getLogger(__name__)

Wrote = Callable[[Path], None]
"""What is told of each file of a report once it is written."""


def ignore(file: Path) -> None:
    """Does nothing with it."""


def profile(settings: ProfileSettings, *, engine: Engine | None = None, report: Report = silent) -> RunDirectory:
    """Measures every query's success at every cap; run again with the same settings, it goes on where it stopped.

    Args:
        settings: what to measure.
        engine: an engine already open, else one is made from the settings and closed at the end.
        report: called with each record once it is on disk.

    Returns:
        The run directory; `forethought.control.sources.open_profile` reads its counts.
    """
    settings, _ = settle(settings, asks=engine is None)
    queries, judge, num_left_out = profile_inputs(settings, is_open=engine is not None)
    if num_left_out:
        logger.warning("note: %d questions are left out: no reference that can be read grades them", num_left_out)
    room, needed = _room(settings.model, settings.engine, queries, settings.menu, settings.menu.largest, engine)
    with opened(engine, settings.model, settings.engine, needed_tokens=needed) as running:
        if note := room.check_caps(running.info, np.full(len(queries), settings.menu.largest), tolerates=True):
            logger.warning("note: %s", note)
        profiling.profile(
            running,
            queries,
            menu=settings.menu,
            num_traces=settings.num_traces,
            grader=judge,
            layers=settings.layer_numbers(running.info.num_layers if isinstance(running, HiddenStateEngine) else None),
            seed=settings.seed,
            out=profile_folder(settings),
            retry_failed=settings.retry_failed,
            worker=Worker.parse(settings.worker),
            report=report,
            sampling=settings.engine.sampling,
            settings=asdict(settings),
        )
    return RunDirectory.open(profile_folder(settings))


def import_profile(settings: ImportSettings) -> Imported:
    """Turns outside measurements into a profile file, for `train` and `evaluate`; a dry run writes nothing.

    The files are checked as a whole first: either the profile is written, or nothing is.
    """
    path = import_file(settings)
    check_target(path, settings.files)
    check_file(path)
    imported = read_profile(settings, path)
    if not imported.profile.layers:
        name, reason = training.default_predictor(imported.profile)
        note = f"`train` will take the predictor {name}: {reason}."
        imported = replace(imported, notes=(*imported.notes, note))
    if not settings.dry_run:
        make_folder(path.parent)
        write_parquet(path, imported.profile)
    return imported


def train(settings: TrainSettings, *, progress: Progress = quiet) -> tuple[Predictor, Path]:
    """Fits a predictor of success and spend on a profile; layer and regularisation are picked by cross-validation.

    Args:
        settings: what to train on, and what.
        progress: called with what is being done, steps done and steps in all.

    Returns:
        The predictor and the folder it was saved to.
    """
    measured = joined([sources.open_profile(source) for source in (settings.run, *settings.more)])
    source = Path(settings.run)
    folder = Path(settings.out) if settings.out else source / "predictor" if source.is_dir() else source.with_suffix("")
    name = settings.predictor
    if name == "auto":
        name, reason = training.default_predictor(measured)
        logger.info("predictor %s: %s", name, reason)
    make_estimator(name, settings.options)
    check_place(folder)
    check_folder(folder)
    trained = fitted(
        measured,
        name,
        options=settings.options,
        layers=None if settings.layers == "all" else [int(layer) for layer in settings.layers.split(",")],
        num_folds=settings.num_folds,
        seed=settings.seed,
        ask=lambda measured, asking: ask_model(measured, asking, settings, beside(folder, "asked"), progress),
        progress=progress,
        checkpoint=str(beside(folder, "training")),
    )
    trained.save(folder)
    return trained, folder


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
    with opened(None, model, settings.engine, needed_tokens=needed) as engine:
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
        with opened(engine, found.model, asked) as running:
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
    for file in layers.page(result).write(layers_folder(settings), plots=settings.plots).values():
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
    check_folder(Path(settings.states))
    if not is_open:
        name, reason = choose_reader(found.model, asked.engine)
        logger.info("engine %s (%s); %d questions to read", name, reason, len(found.missing))
        asked = replace(asked, engine=name, template=found.template)
        check(found.model, asked)
        known = num_layers(found.model, asked)
        if known and settings.layer_numbers and settings.layer_numbers[-1] > known:
            raise InvalidFeaturesError(f"--layers {settings.layer_numbers[-1]}: {found.model} holds layers 0-{known}")
    return found, asked


def plan(settings: PlanSettings, *, engine: Engine | None = None, progress: Progress = quiet) -> Plan:
    """Predicts every query's curves and divides the total over them.

    Loads the model for one prompt pass, unless `settings.questions` is a run or profile with recorded hidden states.

    Args:
        settings: what to divide and how.
        engine: an engine already open, else one is made from the settings where the model is needed.
        progress: called with what is being done, steps done and steps in all.
    """
    with typed_flags():
        predictor, queries = plan_inputs(settings)
        known = sources.recorded_features(settings.questions, queries, predictor)
        if known is not None:
            expected = forecast([query.id for query in queries], predictor, known, progress=progress)
        else:
            sources.refuse_without_texts(queries, settings.questions)
            if engine is None:
                check_planned_engine(settings, predictor)
            asked, model = planned_engine(settings, predictor), model_of(predictor.card, settings.model)
            needed = needed_tokens(predictor, prompting(model, asked).template, queries, 0)
            with opened(engine, model, asked, needed_tokens=needed) as running:
                expected = predict(queries, predictor, running, progress=progress)
        progress("divide the total", 0, 1)
        return made_plan(predictor, queries, expected, terms_of(settings))


def run(settings: RunSettings, *, engine: Engine | None = None, report: Report = silent) -> RunDirectory:
    """Plans, reasons under the caps, answers; run again with the same settings, it goes on where it stopped.

    The plan is made once and kept with the run. Where answers use other numbers of tokens than predicted, questions
    that have not begun get other budgets under what is left of the total; RUN/usage.json says so. With several workers
    budgets stay as planned. Answers are in RUN/answers.jsonl, counts in RUN/summary.json.
    """
    with typed_flags():
        predictor, queries, judge = run_inputs(settings, is_open=engine is not None)
    terms, others, worker = terms_of(settings.plan), allocators_of(settings)[1:], Worker.parse(settings.worker)
    asked = planned_engine(settings.plan, predictor)
    folder = run_folder(settings)
    model, cap = model_of(predictor.card, settings.plan.model), largest_cap(terms, queries, predictor.card.menu)
    room, _ = _room(model, asked, queries, predictor.card.menu, cap, engine)
    needed = needed_tokens(predictor, prompting(model, asked).template, queries, cap)
    with opened(engine, model, asked, needed_tokens=needed) as running:
        predictor.check(running.info, None)
        made = None
        if not (folder / "plan.json").exists():  # a plan is made once, before the folder: a bad total leaves none
            with typed_flags():
                expected = predict(queries, predictor, running)
                made = made_plan(predictor, queries, expected, terms, others=others, seed=settings.seed)
            room.check_caps(running.info, made.largest_Q, tolerates=False)
        directory = RunDirectory.create(
            folder,
            kind="run",
            provenance=run_provenance(settings, predictor, queries, judge, running.info),
            settings=asdict(settings),
        )
        with directory.locked(worker):
            if made is not None and keep_plan(directory, made):
                for note in made.forecast.notes:
                    logger.warning("note: %s", note)
            kept = replace(read_plan(directory), card=predictor.card, terms=terms)  # an old plan says neither
            work = generate_planned(
                directory,
                running,
                queries,
                seed=settings.seed,
                grader=judge.grader,
                retry_failed=settings.retry_failed,
                setup=setup_of(running.info, asked.options),
                pool=_pool(directory, running, room) if settings.hard_total else None,
                adaptation=Adaptation(directory, kept, _fitting(queries, room, running)) if worker.is_alone else None,
                worker=worker,
            )
            finish(_told(work, report))
            write_results(directory, queries)
    return directory


def run_plan(settings: RunPlanSettings, *, engine: Engine | None = None, report: Report = silent) -> RunDirectory:
    """Carries out the plan of a file, as it is or was edited; run again, it goes on where it stopped.

    Args:
        settings: `plan_file`, where to keep the run, its grader and engine.
        engine: an engine already open, else the plan's model is opened.
        report: called with each answer once it is on disk.
    """
    made, judge, asked = plan_file_inputs(settings, is_open=engine is not None)
    for note in made.notes:
        logger.warning("note: %s", note)
    model, cap_Q = plan_model(settings, made), made.largest_Q
    room, needed = _room(model, asked, made.queries, made.menu, int(cap_Q.max()), engine)
    with opened(engine, model, asked, needed_tokens=needed) as running:
        made.check(running.info)
        room.check_caps(running.info, cap_Q, tolerates=False)
        folder = run_folder(settings)
        work = kept_answers(
            made,
            running,
            judge,
            folder,
            options=asked.options,
            retry_failed=settings.retry_failed,
            worker=Worker.parse(settings.worker),
        )
        finish(_told(work, report))
    return RunDirectory.open(folder)


async def _told(work: AsyncIterator[Answer], report: Report) -> None:
    async for answer in work:
        report(answer.to_json())


def _fitting(queries: Sequence[Query], room: Room, engine: Engine) -> dict[str, int]:
    """The largest cap that fits, by query; empty where no context is known."""
    fitting_Q = room.fitting_Q(engine.info)
    return {} if fitting_Q is None else {query.id: int(cap) for query, cap in zip(queries, fitting_Q, strict=True)}


def evaluate(
    settings: EvaluateSettings, *, wrote: Wrote = ignore, progress: Progress = quiet
) -> Evaluation | LiveComparison:
    """What prediction and allocation buy, with intervals; the report is written to `settings.out`, or where that says.

    Args:
        settings: what to judge, and how; see `evaluation`.
        wrote: called with each file of the report.
        progress: called with what is being done, steps done and steps in all.
    """
    check_folder(report_folder(settings))
    result = evaluation(settings, progress=progress)
    for file in page(result).write(report_folder(settings), plots=settings.plots).values():
        wrote(file)
    return result


def evaluation(settings: EvaluateSettings, *, progress: Progress = quiet) -> Evaluation | LiveComparison:
    """What prediction and allocation buy, with intervals; nothing is written.

    A finished `run --compare` is compared as it was run. A predictor is judged on the held-out profile `settings.on`
    (a shipped one: on the shipped held-out profile). A profile run alone is cross-fitted: every query is predicted by
    predictors that never saw it. Spent cost is left out where the profile or the predictor does not know of spend.
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
    if (path / "run.json").is_file() and RunDirectory.open(path).header.kind == "run":
        return live_comparison(RunDirectory.open(path), seed=settings.seed)
    if settings.on or settings.run in shipped_predictors():
        predictor = sources.open_predictor(settings.run)
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
            num_resamples=settings.num_resamples,
            seed=settings.seed,
            progress=progress,
        )
    return evaluating.cross_fitted(
        sources.open_profile(settings.run),
        settings.predictor,
        allocator=allocator,
        num_resamples=settings.num_resamples,
        seed=settings.seed,
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
    names = settings.names or tuple(Path(source).name for source in settings.predictors)
    measured = sources.open_profile(settings.on) if settings.on else sources.shipped_heldout(settings.predictors[0])
    for each in trained:
        each.check(measured.provenance.engine_info, measured.menu)
    notes: tuple[str, ...] = ()
    counted = sources.open_profile(settings.train) if settings.labels else None
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
    progress("plans and intervals", len(names), len(names))
    result = compare_predictors(
        measured,
        [*candidates, *others],
        blind,
        allocator=allocator,
        costs=(Cost.GRANTED,) if blind.tokens_Q_B is None else (Cost.GRANTED, Cost.SPENT),
        num_resamples=settings.num_resamples,
        seed=settings.seed,
        notes=notes,
    )
    for file in page(result).write(folder, plots=settings.plots).values():
        wrote(file)
    return result


def live_comparison(run: RunDirectory, *, seed: int = 0) -> LiveComparison:
    """The allocators of a `run --compare`, judged on the same traces; the run's own goes by the name forethought."""
    results = outcomes(run, sources.run_queries(run))
    if not any(len(right_Q) for right_Q, _, _ in results.values()):
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


def _pool(run: RunDirectory, engine: Engine, room: Room) -> Pool:
    """The hard total of a run, as it was left."""
    total = read_plan(run).allocation.total
    is_forced = getattr(engine, "enforce", "two-call") == "two-call"  # else a server has room of its own for answers
    beside = room.most_beside if is_forced else max(room.most_beside, getattr(engine, "answer_room", 0))
    return Pool.open(run, total=total, beside=beside, menu=room.menu)


def _room(
    model: str, settings: EngineSettings, queries: Sequence[Query], menu: Menu, cap: int, engine: Engine | None
) -> tuple[Room, int]:
    """`(what the queries need of a context, tokens to reserve)`; refuses a context asked for that is too small."""
    template = prompting(model, settings).template
    name = engine.info.engine if engine is not None else choose(model, settings.engine)[0]
    room = Room.of(model, template, queries, menu, engine=name)
    room.check_asked(settings.context_tokens, cap)
    return room, upper_bound(template, queries, cap)
