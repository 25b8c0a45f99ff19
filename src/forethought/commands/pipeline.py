"""Profile, import, train, plan and run: one function per stage; stages exchange files."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..control import profiling, sources
from ..control.adapting import Adaptation
from ..control.answers import Answer
from ..control.billing import UNPRICED, Prices
from ..control.budgets import keep_plan, keep_voting, read_plan
from ..control.feeding import feed_profile, feed_run, history_folder
from ..control.keeping import KeepingEngine
from ..control.learning_votes import with_votes, with_waves
from ..control.plan import Plan
from ..control.planning import forecast, made_plan, model_of, needed_tokens, predict
from ..control.pool import Pool
from ..control.profiling import Report, setup_of, silent
from ..control.results import write_results
from ..control.running import generate_planned, kept_answers
from ..control.training import fitted, together
from ..core.data import Cost, Query
from ..core.files import make_folder
from ..core.import_settings import ImportSettings
from ..core.protocols import Engine, HiddenStateEngine, RoomEngine, check_menu
from ..core.settings import EngineSettings, PlanSettings, ProfileSettings, RunPlanSettings, RunSettings, TrainSettings
from ..core.terms import HardCap
from ..core.waiting import finish
from ..core.worker import Worker
from ..engines.context import SEVERAL_CAPS, Room, ceiling_of, check_probes
from ..engines.lengths import upper_bound
from ..engines.opening import opened, prompting, settle
from ..errors import InvalidSettingsError
from ..predictors import training
from ..predictors.bundle import check_place
from ..predictors.parts.making import Progress, make_estimator
from ..predictors.parts.making import silent as quiet
from ..predictors.predictor import Predictor
from ..runs.folders import beside, check_file, check_folder, import_file, profile_folder, run_folder
from ..runs.importing import Imported, check_target, read_profile
from ..runs.locks import check_free
from ..runs.profiles import write_parquet
from ..runs.store import RunDirectory
from .beforehand import (
    allocators_of,
    check_planned_engine,
    plan_file_inputs,
    plan_inputs,
    plan_model,
    planned_engine,
    profile_inputs,
    room_of,
    run_inputs,
    run_provenance,
    terms_of,
    typed_flags,
    voting_of,
)
from .reports import ask_model

logger = logging.getLogger(__name__)


def profile(
    settings: ProfileSettings, *, engine: Engine | None = None, report: Report = silent, progress: Progress = quiet
) -> RunDirectory:
    """Measures every query's success at every cap; run again with the same settings, it resumes.

    Args:
        settings: what to measure.
        engine: an engine already open, else one is made from the settings and closed at the end.
        report: called with each record once it is on disk.
        progress: called with what is being done, steps done and steps in all.

    Returns:
        The run directory; `forethought.control.sources.open_profile` reads its counts.
    """
    settings, _ = settle(settings, asks=engine is None)
    queries, judge, num_left_out = profile_inputs(settings, is_open=engine is not None)
    if num_left_out:
        logger.warning("note: %d questions are left out: they have no readable reference answer", num_left_out)
    menu = settings.menu
    _, room = room_of(settings.model, settings.engine, queries, menu, engine)
    room.check_asked(settings.engine.context_tokens, menu.largest_cap)
    needed = upper_bound(room.template, queries, menu.largest_cap)
    with _opened(engine, settings, settings.model, settings.engine, needed, progress) as (running, worker):
        if menu.num_options > 1 and not menu.is_named:
            check_probes(running.info.enforcement, what=SEVERAL_CAPS)
        if note := room.check_caps(running.info, np.full(len(queries), menu.largest_cap), tolerates=True):
            logger.warning("note: %s", note)
        profiling.profile(
            running,
            queries,
            menu=menu,
            num_traces=settings.num_traces,
            grader=judge,
            layers=settings.layer_numbers(running.info.num_layers if isinstance(running, HiddenStateEngine) else None),
            seed=settings.seed,
            out=profile_folder(settings),
            retry_failed=settings.retry_failed,
            worker=worker,
            report=report,
            progress=progress,
            sampling=settings.engine.sampling,
            settings=asdict(settings),
        )
    run = RunDirectory.open(profile_folder(settings))
    if settings.history:
        feed_profile(Path(settings.history), run)
    return run


def import_profile(settings: ImportSettings, *, progress: Progress = quiet) -> Imported:
    """Turns outside measurements into a profile file, for `train` and `evaluate`; a dry run writes nothing.

    The files are checked as a whole first: either the profile is written, or nothing is.
    """
    path = import_file(settings)
    check_file(path, read=settings.files)
    check_target(path)
    imported = read_profile(settings, path, progress=progress)
    if not imported.profile.layers:
        name, reason = training.default_predictor(imported.profile)
        note = f"`train` will choose the predictor {name}: {reason}."
        imported = replace(imported, notes=(*imported.notes, note))
    if not settings.dry_run:
        progress("write", 0, 1)
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
    profiles = [sources.open_profile(each) for each in (settings.run, *settings.more)]
    singles = together(profiles, settings.predictor)
    measured = with_votes(singles, settings.samples, settings.vote_weights)
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
        fed=profiles,
        options=settings.options,
        layers=None if settings.layers == "all" else [int(layer) for layer in settings.layers.split(",")],
        num_folds=settings.num_folds,
        seed=settings.seed,
        ask=lambda measured, asking: ask_model(measured, asking, settings, beside(folder, "asked"), progress),
        progress=progress,
        checkpoint=str(beside(folder, "training")),
        vote_weights=settings.vote_weights,
    )
    trained = with_waves(trained, singles, settings.samples)
    trained.save(folder)
    return trained, folder


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
            with opened(engine, model, asked, needed_tokens=needed, progress=progress) as running:
                expected = predict(queries, predictor, running, progress=progress)
        progress("divide the total", 0, 1)
        voting = voting_of(settings, predictor.card)
        return made_plan(predictor, queries, expected, terms_of(settings), voting=voting, waves=settings.waves)


def run(
    settings: RunSettings,
    *,
    engine: Engine | None = None,
    report: Report = silent,
    progress: Progress = quiet,
    prices: Prices = UNPRICED,
) -> RunDirectory:
    """Plans, reasons under the caps, answers; run again with the same settings, it resumes.

    The plan is made once and kept with the run. Where answers use other numbers of tokens than predicted, questions
    that have not begun get other budgets under what is left of the total; RUN/usage.json says so. With several workers,
    and of named options, budgets stay as planned. Answers are in RUN/answers.jsonl, counts in RUN/summary.json.
    """
    with typed_flags():
        predictor, queries, judge = run_inputs(settings, is_open=engine is not None)
    terms, others = terms_of(settings.plan), allocators_of(settings)[1:]
    voting = voting_of(settings.plan, predictor.card)
    asked = planned_engine(settings.plan, predictor)
    folder = run_folder(settings)
    model, cap = model_of(predictor.card, settings.plan.model), terms.largest_cap(queries, predictor.card.menu)
    _, room = room_of(model, asked, queries, predictor.card.menu, engine)
    room.check_asked(asked.context_tokens, cap)
    needed = needed_tokens(predictor, room.template, queries, cap)
    with _opened(engine, settings, model, asked, needed, progress) as (running, worker):
        predictor.check(running.info, None)
        if others and not predictor.card.menu.is_named:
            check_probes(running.info.enforcement, what="--compare needs several: leave it out")
        check_menu(running, predictor.card.menu)
        made = None
        if not (folder / "plan.json").exists():  # a plan is made once, before the folder: a bad total leaves none
            with typed_flags():
                expected = predict(queries, predictor, running, progress=progress)
                progress("divide the total", 0, 1)
                how: dict[str, Any] = {"seed": settings.seed, "voting": voting, "waves": settings.plan.waves}
                made = made_plan(predictor, queries, expected, terms, others=others, **how)
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
            keep_voting(directory, voting)
            kept = replace(read_plan(directory), card=predictor.card, terms=terms)  # an old plan says neither
            # Tokens beyond those predicted are no reason to think of other options: what one takes is its own.
            is_adapted = worker.is_alone and not kept.menu.is_named
            work = generate_planned(
                directory,
                running,
                queries,
                seed=settings.seed,
                grader=judge.grader,
                retry_failed=settings.retry_failed,
                setup=setup_of(running.info, _with_cap(asked.options, settings.hard_cap)),
                pool=_pool(directory, running, room, settings.hard_cap, prices)
                if settings.hard_total or settings.hard_cap
                else None,
                adaptation=Adaptation(directory, kept, _fitting(queries, room, running)) if is_adapted else None,
                worker=worker,
                progress=progress,
            )
            progress("answer", 0, 0)
            finish(_told(work, report))
            progress("write the answers", 0, 1)
            write_results(directory, queries)
    history = Path(settings.history) if settings.history else history_folder(settings.plan.run)
    _feed(history, directory, queries)
    return directory


def run_plan(
    settings: RunPlanSettings,
    *,
    report: Report = silent,
    progress: Progress = quiet,
    prices: Prices = UNPRICED,
) -> RunDirectory:
    """Runs the plan of a file, edited or not; run again, it resumes.

    Args:
        settings: `plan_file`, where to keep the run, its grader and engine.
        report: called with each answer once it is on disk.
        progress: called with what is being done, steps done and steps in all.
        prices: of tokens, for a hard cap in money.
    """
    made, judge, asked = plan_file_inputs(settings)
    for note in made.notes:
        logger.warning("note: %s", note)
    model, cap_Q = plan_model(settings, made), made.largest_Q
    _, room = room_of(model, asked, made.queries, made.menu)
    room.check_asked(asked.context_tokens, int(cap_Q.max()))
    needed = upper_bound(room.template, made.queries, int(cap_Q.max()))
    with _opened(None, settings, model, asked, needed, progress) as (running, worker):
        made.check(running.info)
        check_menu(running, made.menu)
        if made.others and not made.menu.is_named:
            check_probes(running.info.enforcement, what="the plan has several caps per question")
        room.check_caps(running.info, cap_Q, tolerates=False)
        folder = run_folder(settings)
        work = kept_answers(
            made,
            running,
            judge,
            folder,
            options=_with_cap(asked.options, settings.hard_cap),
            pool=(lambda run: _pool(run, running, room, settings.hard_cap, prices)) if settings.hard_cap else None,
            retry_failed=settings.retry_failed,
            worker=worker,
            progress=progress,
        )
        progress("answer", 0, 0)
        finish(_told(work, report))
    run = RunDirectory.open(folder)
    _feed(Path(settings.history) if settings.history else None, run, made.queries)
    return run


@contextmanager
def _opened(
    engine: Engine | None,
    settings: ProfileSettings | RunSettings | RunPlanSettings,
    model: str,
    asked: EngineSettings,
    needed_tokens: int,
    progress: Progress,
) -> Iterator[tuple[Engine, Worker]]:
    """`(engine, who writes)`: one that is open already, a new one, or those of a cluster's workers.

    A run that another process is writing is refused before anything is opened.
    """
    worker = Worker.lead() if settings.cluster.ray else Worker.parse(settings.worker)
    check_free(profile_folder(settings) if isinstance(settings, ProfileSettings) else run_folder(settings), worker)
    if engine is None and settings.cluster.ray:
        from ..cluster.opening import opened as on_cluster

        with on_cluster(settings.cluster, model, asked, needed_tokens=needed_tokens, progress=progress) as workers:
            yield workers, worker
        return
    with opened(engine, model, asked, needed_tokens=needed_tokens, progress=progress) as running:
        yield running, Worker.lead() if isinstance(running, KeepingEngine) else worker


def _feed(history: Path | None, run: RunDirectory, queries: Sequence[Query]) -> None:
    """Feeds a run to a history, by whoever of its workers ends last."""
    if history is not None and len(run.tries().num_done(1, retry_failed=False)) >= len(queries):
        feed_run(history, run)


async def _told(work: AsyncIterator[Answer], report: Report) -> None:
    async for answer in work:
        report(answer.to_json())


def _fitting(queries: Sequence[Query], room: Room, engine: Engine) -> dict[str, int]:
    """The largest cap that fits, by query; empty where no context is known."""
    fitting_Q = room.fitting_Q(engine.info)
    return {} if fitting_Q is None else {query.id: int(cap) for query, cap in zip(queries, fitting_Q, strict=True)}


def _with_cap(options: Mapping[str, Any], hard_cap: str) -> dict[str, Any]:
    """What a trace is tried under: what did not fit under one hard cap is tried again under another."""
    return {**options, **({"hard_cap": hard_cap} if hard_cap else {})}


def _pool(run: RunDirectory, engine: Engine, room: Room, hard_cap: str, prices: Prices) -> Pool:
    """The hard cap of a run, or without one its total as such, as it was left."""
    plan = read_plan(run)
    beside = max(room.most_beside, engine.answer_room if isinstance(engine, RoomEngine) else 0)
    cap = HardCap.parse(hard_cap) if hard_cap else HardCap(plan.allocation.total, Cost.SPENT)
    if hard_cap and plan.others:
        raise InvalidSettingsError("--hard-cap counts the answers of one allocator, and the plan has several")
    pool = Pool.open(
        run,
        cap=cap,
        beside=beside,
        menu=plan.menu,
        is_named=plan.menu.is_named,
        name="hard cap" if hard_cap else "total",
        template=room.template,
        prices=prices,
    )
    for request in plan.requests(ceiling_of(engine.info)) if cap.cost is Cost.USD else ():
        pool.most(request)  # refuses what has no price before anything is paid for
    return pool
