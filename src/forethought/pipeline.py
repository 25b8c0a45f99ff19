"""Profile, import, train, plan, run, evaluate and more: the table of contents. One function a stage; files hand on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter

import numpy as np

from . import layers, registry, sources
from .comparing import contender, labelled, mean_train
from .difficulty import Asking, pick_examples, with_difficulties
from .engines.context import Room
from .engines.lengths import upper_bound
from .engines.opening import choose, choose_reader, opened
from .errors import InvalidSettingsError, MismatchError, RunError
from .evaluation import Evaluation, LiveComparison, compare_live
from .evaluation import evaluate as evaluate_curves
from .evaluation.contest import Contest, hold_contest
from .evaluation.policies import BLIND, FORETHOUGHT, UNIFORM
from .folders import beside, compare_folder, import_file, profile_folder, report_folder, run_folder
from .graders import check_references
from .importing import Imported, check_target, read_profile
from .planning import (
    Forecast,
    allocate,
    features,
    forecast,
    largest_cap,
    model_of,
    needed_tokens,
    plan_queries,
    planned_engine,
    recorded_features,
    refuse_without_texts,
)
from .pool import Pool
from .predictors import selection
from .predictors.features import DIFFICULTY, reads_of
from .predictors.folds import hash_order
from .predictors.layers import Progress
from .predictors.layers import silent as quiet
from .predictors.overlap import held_out
from .predictors.seen import Seen
from .predictors.trained import TrainedPredictor
from .profiles import common_grid, curves_on_grid, from_run, joined, on_grid, with_layers, write_parquet
from .profiling import (
    Report,
    check_asked_layers,
    check_layers_kept,
    engine_info,
    identity,
    sample_traces,
    setup_of,
    silent,
)
from .prompts import load_template
from .protocols import Engine, HiddenStateEngine
from .queries import load_queries, query_to_json, save_queries
from .running import generate_planned, load_budgets, outcomes, save_plans, write_answers, write_summary
from .settings import (
    CompareSettings,
    EngineSettings,
    EvaluateSettings,
    ImportSettings,
    LayersSettings,
    PlanSettings,
    ProfileSettings,
    RunSettings,
    TrainSettings,
)
from .store import RunDirectory, fingerprint, read_json
from .types import BudgetGrid, Cost, Curves, Plan, Profile, Query

logger = logging.getLogger(__name__)


def profile(settings: ProfileSettings, *, engine: Engine | None = None, report: Report = silent) -> RunDirectory:
    """Measures every query's success at every cap; run again with the same settings, it goes on where it stopped.

    Args:
        settings: what to measure.
        engine: an engine already open, else one is made from the settings and closed at the end.
        report: called with each record once it is on disk.

    Returns:
        The run directory; `forethought.sources.open_profile` reads its counts.
    """
    queries = load_queries(settings.questions, limit=settings.limit)
    grader = registry.resolve("graders", settings.grader)()
    check_references(grader, queries)
    check_asked_layers(settings)
    room, needed = _room(settings.model, settings.engine, queries, settings.grid, settings.grid.maximum, engine)
    with opened(engine, settings.model, settings.engine, needed_tokens=needed) as running:
        if note := room.check_caps(running.info, np.full(len(queries), settings.grid.maximum), tolerates=True):
            logger.warning("note: %s", note)
        layers = settings.layer_numbers(running.info.num_layers if isinstance(running, HiddenStateEngine) else None)
        run = RunDirectory.create(
            profile_folder(settings),
            kind="profile",
            identity=identity(running.info, settings.grid, settings.engine.sampling, settings.seed, settings.grader),
            settings=asdict(settings),
        )
        with run.locked():
            check_layers_kept(run, layers)
            every_query = _merge_queries(run, queries)
            work = sample_traces(
                run,
                running,
                queries,
                grid=settings.grid,
                num_traces=settings.num_traces,
                seed=settings.seed,
                grader=grader,
                layers=layers,
                retry_failed=settings.retry_failed,
                setup=setup_of(running.info, settings.engine.options),
                report=report,
            )
            asyncio.run(work)
            write_parquet(run.path / "profile.parquet", from_run(run, every_query))
    return run


def import_profile(settings: ImportSettings) -> Imported:
    """Turns outside measurements into a profile file, for `train` and `evaluate`; a dry run writes nothing.

    The files are checked as a whole first: either the profile is written, or nothing is.
    """
    path = import_file(settings)
    check_target(path, settings.files)
    imported = read_profile(settings, path)
    if not settings.dry_run:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_parquet(path, imported.profile)
    return imported


def train(settings: TrainSettings, *, progress: Progress = quiet) -> tuple[TrainedPredictor, Path]:
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
        name, reason = selection.default_predictor(measured)
        logger.info("predictor %s: %s", name, reason)
    options = dict(settings.options)
    wanted = selection.unfitted(name, options)
    if DIFFICULTY in reads_of(wanted) and not measured.difficulties:
        order = hash_order(measured.query_ids, seed=settings.seed)
        shots = pick_examples(measured, num_each=getattr(wanted, "num_examples", 0), order=order)
        measured = ask_model(measured, Asking(shots), settings, beside(folder, "asked"), progress)
    if getattr(wanted, "is_costly", False) and "checkpoint" not in options:
        options["checkpoint"] = str(beside(folder, "training"))
    layers = None if settings.layers == "all" else [int(layer) for layer in settings.layers.split(",")]
    trained = selection.train(
        measured,
        predictor=name,
        layers=layers,
        num_folds=settings.num_folds,
        seed=settings.seed,
        options=options,
        progress=progress,
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
    model = settings.model or measured.info.get("model")
    if not model:
        raise InvalidSettingsError("the profile does not say which model was measured; give --model")
    needed = upper_bound(asking.template, [Query("", text) for text in measured.texts], 0)
    with opened(None, model, settings.engine, needed_tokens=needed) as engine:
        known = measured.info.get("model_hash")
        if known is not None and engine.info.model_hash is not None and known != engine.info.model_hash:
            raise MismatchError(f"the profile is of model {known}, but {model} is {engine.info.model_hash} here")
        return with_difficulties(measured, engine, asking, folder, progress=progress)


def study_layers(
    settings: LayersSettings, *, engine: Engine | None = None, progress: Progress = quiet
) -> layers.LayerStudy:
    """Judges every layer of the model on a profile, by itself; states that are lacking are read with the model first.

    Args:
        settings: what to study.
        engine: an engine already open, else one is made from the settings where something is to be read.
        progress: called with what is being done, steps done and steps in all.
    """
    found = layers.survey(settings)
    levels = settings.levels(found.measured.grid)
    if found.missing and settings.read:
        layers.check_readable(found, settings.run)
        asked = settings.engine
        if engine is None:
            name, reason = choose_reader(found.model, asked.engine)
            logger.info("engine %s (%s); %d questions to read", name, reason, len(found.missing))
            asked = replace(asked, engine=name, template=found.template)
        with opened(engine, found.model, asked) as running:
            layers.fill(Path(settings.states), running, found, wanted=settings.layer_numbers, progress=progress)
        found = layers.survey(settings)
    return layers.study(
        found.measured,
        found.states,
        layers=layers.choose_layers(found.states, settings),
        levels=levels,
        num_resamples=settings.num_resamples,
        seed=settings.seed,
        notes=found.notes(settings),
        progress=progress,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Planned:
    """A plan with the queries and predicted curves it was made from."""

    queries: Sequence[Query]
    expected: Forecast
    plan: Plan


def plan(settings: PlanSettings, *, engine: Engine | None = None, progress: Progress = quiet) -> Planned:
    """Predicts every query's curves and divides the total over them.

    Loads the model for one prompt pass, unless `settings.questions` is a run or profile with recorded hidden states.

    Args:
        settings: what to divide and how.
        engine: an engine already open, else one is made from the settings where the model is needed.
        progress: called with what is being done, steps done and steps in all.
    """
    predictor = sources.open_predictor(settings.run)
    queries = plan_queries(settings)
    known = recorded_features(settings.questions, queries, predictor)
    if known is not None:
        expected = forecast([query.id for query in queries], predictor, known, progress=progress)
    else:
        refuse_without_texts(queries, settings.questions)
        needed = needed_tokens(settings, predictor, queries, 0)
        asked = planned_engine(settings, predictor)
        with opened(engine, model_of(settings, predictor), asked, needed_tokens=needed) as running:
            expected = predict_with(queries, predictor, running, progress=progress)
    progress("divide the total", 0, 1)
    return Planned(queries, expected, allocate(settings, queries, expected))


def predict_with(
    queries: Sequence[Query], predictor: TrainedPredictor, engine: Engine, *, progress: Progress = quiet
) -> Forecast:
    """One prompt pass and the predictor; refuses an engine whose model or template is not the predictor's."""
    predictor.check(engine.info, None)
    started = perf_counter()
    read = features(queries, predictor, engine, progress=progress)
    seconds = perf_counter() - started
    expected = forecast([query.id for query in queries], predictor, read, progress=progress)
    return replace(expected, feature_seconds=seconds)


def run(settings: RunSettings, *, engine: Engine | None = None, report: Report = silent) -> RunDirectory:
    """Plans, reasons under the caps, answers; run again with the same settings, it goes on where it stopped.

    The plan is made once and kept with the run. Answers are in RUN/answers.jsonl, counts in RUN/summary.json.
    """
    predictor = sources.open_predictor(settings.plan.run)
    queries = plan_queries(settings.plan)
    refuse_without_texts(queries, settings.plan.questions)
    grader = registry.resolve("graders", settings.grader)()
    check_references(grader, [query for query in queries if query.reference is not None])
    names = list(dict.fromkeys((settings.plan.allocator, *settings.compare)))
    for name in names:
        registry.resolve("allocators", name)
    asked = planned_engine(settings.plan, predictor)
    folder = run_folder(settings)
    model, cap = model_of(settings.plan, predictor), largest_cap(settings.plan, queries, predictor.card.grid)
    room, _ = _room(model, asked, queries, predictor.card.grid, cap, engine)
    needed = needed_tokens(settings.plan, predictor, queries, cap)
    with opened(engine, model, asked, needed_tokens=needed) as running:
        predictor.check(running.info, None)
        is_planned = (folder / "plan.json").exists()  # a plan is made once, before the folder: a bad total leaves none
        expected = None if is_planned else predict_with(queries, predictor, running)
        plans = {name: allocate(settings.plan, queries, expected, allocator=name) for name in names} if expected else {}
        if plans:
            cap_Q = np.max([each.budget_Q for each in plans.values()], axis=0)
            room.check_caps(running.info, cap_Q, tolerates=False)
        directory = RunDirectory.create(
            folder,
            kind="run",
            identity={
                **identity(running.info, predictor.card.grid, asked.sampling, settings.seed, settings.grader),
                "allocators": names,
                "cost": settings.plan.cost.value,
                "total": settings.plan.total_for(len(queries)),
                "hard_total": settings.hard_total or None,  # None: as runs of before it say
                "queries": fingerprint([query_to_json(query) for query in queries]),
            },
            settings=asdict(settings),
        )
        with directory.locked():
            if expected is not None:
                save_queries(directory.path / "queries.jsonl", queries)
                save_plans(directory, plans, settings.plan.allocator, expected)
                for note in expected.notes:
                    logger.warning("note: %s", note)
            work = generate_planned(
                directory,
                running,
                queries,
                seed=settings.seed,
                grader=grader,
                retry_failed=settings.retry_failed,
                setup=setup_of(running.info, asked.options),
                pool=_pool(directory, settings, running, room) if settings.hard_total else None,
                report=report,
            )
            asyncio.run(work)
            write_answers(directory, queries)
            write_summary(directory, queries, running)
    return directory


def evaluate(settings: EvaluateSettings, *, progress: Progress = quiet) -> Evaluation | LiveComparison:
    """What prediction and allocation buy, with intervals.

    A finished `run --compare` is compared as it was run. A predictor is judged on the held-out profile `settings.on`
    (a shipped one: on the shipped held-out profile). A profile run alone is cross-fitted: every query is predicted by
    predictors that never saw it. Spent cost is left out where the profile or the predictor does not know of spend.
    A held-out profile of another kind of questions, or on another grid, is judged with a note that says so. Questions
    of it that the predictor was trained on are left out, with a note that says how many.

    Args:
        settings: what to judge, and on what.
        progress: called with what is being done, steps done and steps in all.

    Raises:
        InvalidSettingsError: the predictor was trained on every question of the profile.
    """
    path = Path(settings.run)
    if (path / "run.json").is_file() and RunDirectory.open(path).header["kind"] == "run":
        return live_comparison(RunDirectory.open(path), seed=settings.seed)
    if settings.on or settings.run in sources.shipped_predictors():
        predictor = sources.open_predictor(settings.run)
        measured = sources.open_profile(settings.on) if settings.on else sources.shipped_heldout(settings.run)
        measured, notes = held_out(measured, {settings.run: predictor}) if settings.on else (measured, ())
        if DIFFICULTY in predictor.card.features.reads and not measured.difficulties:
            asked = beside(report_folder(settings), "asked")
            measured = ask_model(measured, predictor.card.asking or Asking(), settings, asked, progress)
        measured, predicted, mean_train, more = held_out_curves(predictor, measured)
        notes += more
        for note in notes:
            logger.warning("note: %s", note)
    else:
        measured, notes = sources.open_profile(settings.run), ()
        predicted, mean_train = selection.cross_fit(
            measured, predictor=settings.predictor, seed=settings.seed, progress=progress
        )
    has_spend = measured.is_spend_measured and mean_train.tokens_Q_B is not None
    progress("plans and intervals", 0, 1)
    return evaluate_curves(
        measured,
        predicted,
        mean_train,
        allocator=settings.allocator,
        costs=(Cost.GRANTED, Cost.SPENT) if has_spend else (Cost.GRANTED,),
        num_resamples=settings.num_resamples,
        seed=settings.seed,
        notes=notes,
    )


def compare(settings: CompareSettings, *, progress: Progress = quiet) -> Contest:
    """Several predictors through one allocator on one held-out profile, with what each costs itself."""
    trained = [sources.open_predictor(source) for source in settings.predictors]
    names = settings.names or tuple(Path(source).name for source in settings.predictors)
    measured = sources.open_profile(settings.on) if settings.on else sources.shipped_heldout(settings.predictors[0])
    notes: tuple[str, ...] = ()
    counted = sources.open_profile(settings.train) if settings.labels else None
    if settings.on:
        fitted = dict[str, TrainedPredictor | Seen](zip(names, trained, strict=True))
        measured, notes = held_out(measured, fitted | ({"--train": Seen.of(counted)} if counted else {}))
        for note in notes:
            logger.warning("note: %s", note)
    asking = [each.card.asking for each in trained if each.card.asking is not None]
    told = {
        each: ask_model(
            measured, each, settings, beside(compare_folder(settings), f"asked-{each.template.hash}"), progress
        )
        for each in dict.fromkeys(asking)
        if not measured.difficulties
    }
    contenders = []
    for number, (name, each) in enumerate(zip(names, trained, strict=True)):
        progress(f"predict: {name}", number, len(names))
        known = told.get(each.card.asking, measured) if each.card.asking else measured
        contenders.append(contender(name, each, known))
    if counted is not None:
        pairs = [pair.partition("=")[::2] for pair in settings.labels]
        contenders += [labelled(name, Path(file), counted, measured) for name, file in pairs]
    blind = mean_train(trained, measured)
    progress("plans and intervals", len(names), len(names))
    contest = hold_contest(
        measured,
        contenders,
        blind,
        allocator=settings.allocator,
        costs=(Cost.GRANTED,) if blind.tokens_Q_B is None else (Cost.GRANTED, Cost.SPENT),
        num_resamples=settings.num_resamples,
        seed=settings.seed,
    )
    return replace(contest, notes=(*notes, *contest.notes))


def held_out_curves(predictor: TrainedPredictor, measured: Profile) -> tuple[Profile, Curves, Curves, tuple[str, ...]]:
    """Curves for the queries of a profile the predictor was not trained on, made as in a plan.

    Where the profile was measured on another grid than the predictor's, everything is on the budgets of both.

    Returns:
        The profile, the predicted curves and the mean training curve, and what must be known of them in sentences.

    Raises:
        MismatchError: another model or template, or no budget in both grids.
    """
    predictor.check(engine_info(measured.info), None)
    grid = common_grid(predictor.card.grid, measured.grid)
    layer = predictor.card.features.layer
    if layer is not None:
        measured = with_layers(measured, [layer])
    expected = forecast(measured.query_ids, predictor, selection.features_of(measured, layer))
    notes = expected.notes
    if predictor.card.grid != measured.grid:
        notes += (
            f"The predictor's budgets are {predictor.card.grid} tokens, the profile's {measured.grid}: compared at "
            f"those in both, {grid}. A trace under a smaller cap is the beginning of the longer one, so nothing is "
            f"interpolated.",
        )
    mean_train = predictor.card.mean_curves(measured.query_ids)
    curves, mean_train = curves_on_grid(expected.curves, grid), curves_on_grid(mean_train, grid)
    return on_grid(measured, grid), curves, mean_train, notes


def live_comparison(run: RunDirectory, *, seed: int = 0) -> LiveComparison:
    """The allocators of a `run --compare`, judged on the same traces; the run's own goes by the name forethought."""
    results = outcomes(run, sources.run_queries(run))
    main, _ = load_budgets(run)
    provenance = run.header["identity"]
    return compare_live(
        {main if main in (UNIFORM, BLIND) else FORETHOUGHT: results.pop(main), **results},
        seed=seed,
        simulated=bool(provenance.get("simulated")),
        provenance=provenance,
    )


def _pool(run: RunDirectory, settings: RunSettings, engine: Engine, room: Room) -> Pool:
    """The hard total of a run, as it was left."""
    main, _ = load_budgets(run)
    total = read_json(run.path / "plan.json")["plans"][main]["total"]
    is_forced = getattr(engine, "enforce", "two-call") == "two-call"  # else a server has room of its own for answers
    beside = room.most_beside if is_forced else max(room.most_beside, getattr(engine, "answer_room", 0))
    return Pool.open(run, total=total, beside=beside, grid=room.grid)


def _room(
    model: str, settings: EngineSettings, queries: Sequence[Query], grid: BudgetGrid, cap: int, engine: Engine | None
) -> tuple[Room, int]:
    """`(what the queries need of a context, tokens to reserve)`; refuses a context asked for that is too small."""
    template = load_template(settings.template)
    name = engine.info.engine if engine is not None else choose(model, settings.engine)[0]
    room = Room.of(model, template, queries, grid, engine=name)
    room.check_asked(settings.context_tokens, cap)
    return room, upper_bound(template, queries, cap)


def _merge_queries(run: RunDirectory, queries: Sequence[Query]) -> list[Query]:
    """The run's queries and the new ones, written back; one id cannot stand for two different queries."""
    path = run.path / "queries.jsonl"
    known = {query.id: query for query in load_queries(path)} if path.exists() else {}
    changed = [query.id for query in queries if query.id in known and known[query.id] != query]
    if changed:
        raise RunError(f"{run.path} already holds other questions under the ids {changed[:5]}; give another --out")
    merged = [*known.values(), *(query for query in queries if query.id not in known)]
    save_queries(path, merged)
    return merged
