"""The public verbs on values: open an engine, profile, train, evaluate. Files are optional."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, Self

from ..core import registry
from ..core.data import Cost, Curves, Query, Sampling
from ..core.features import DIFFICULTY, Features
from ..core.menu import Menu
from ..core.problems import excerpt
from ..core.profile import Profile
from ..core.protocols import Allocator, Engine, Grader, HiddenStateEngine
from ..core.provenance import Provenance
from ..core.settings import EngineSettings
from ..core.waiting import finish
from ..core.worker import ALONE, Worker
from ..engines import opening
from ..errors import InvalidFeaturesError, InvalidInputError, InvalidSettingsError, RunError
from ..evaluation import Evaluation
from ..evaluation import evaluate as evaluate_curves
from ..predictors import training
from ..predictors.difficulty import Asking, pick_examples, with_difficulties
from ..predictors.overlap import held_out
from ..predictors.parts.folds import hash_order
from ..predictors.parts.making import Progress, make_estimator
from ..predictors.parts.making import silent as quiet
from ..predictors.parts.usable import check_profile
from ..predictors.predictor import Predictor
from ..questions.queries import Question, load_queries, read_questions, save_queries
from ..runs.profiles import common_menu, curves_on_menu, from_run, joined, on_menu, with_layers, write_parquet
from ..runs.store import RunDirectory
from .judging import Judge
from .plan import Plan
from .planning import engine_for, forecast, model_of
from .profiling import Report, check_layers_kept, sample_traces, setup_of, silent

logger = logging.getLogger(__name__)


class OpenEngine(Engine, Protocol):
    """An engine that is closed at the end of a `with`."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *raised: object) -> None: ...


def open_engine(
    model: str | Predictor | Plan,
    *,
    engine: str = "auto",
    template: str = "",
    temperature: float | None = None,
    top_p: float | None = None,
    context_tokens: int | None = None,
    **options: Any,
) -> OpenEngine:
    """A running engine; `with` closes it, or its own `close`.

    Args:
        model: alias, folder or hub id; or a predictor or a plan: their model, template and sampling.
        engine: a registered name, or "auto": vLLM where it is installed, else transformers.
        template: a shipped prompt template's name or a .json file; "" for the usual one.
        temperature: of the thoughts; None for the usual one.
        top_p: nucleus of the thoughts; None for the usual one.
        context_tokens: longest prompt + thought + answer; None for what the model takes.
        options: anything else that the engine's class takes.

    Raises:
        UnknownNameError, InvalidSettingsError, MissingExtraError, ModelFileError, EngineError: it cannot be opened.
    """
    given: dict[str, Any] = {"template": template or None, "temperature": temperature, "top_p": top_p}
    given = {name: value for name, value in given.items() if value is not None}
    settings = EngineSettings(engine=engine, context_tokens=context_tokens, options=options, **given)
    if isinstance(model, Predictor | Plan):
        if model.card is None:
            raise InvalidSettingsError("the plan does not say which model it is for; give the model's name")
        if temperature is not None or top_p is not None:
            raise InvalidSettingsError("temperature and top_p are the predictor's own; leave them out")
        settings, model = engine_for(model.card, settings, template), model_of(model.card)
    if not isinstance(model, str):
        raise InvalidSettingsError(f"the model must be a name, a predictor or a plan, not {excerpt(model)}")
    running: Any = opening.open_engine(model, settings)
    own = type(running)
    if not hasattr(own, "__enter__"):
        methods = {"__enter__": lambda self: self, "__exit__": lambda self, *raised: self.close(), "__slots__": ()}
        running.__class__ = type(own.__name__, (own,), methods | {"__module__": own.__module__})
    found: OpenEngine = running
    return found


# --- profile --------------------------------------------------------------------------------------------------------


async def profile_async(
    engine: Engine,
    questions: str | Path | Iterable[Question],
    *,
    menu: Menu | str | Sequence[int] = "16:256:16",
    num_traces: int = 4,
    grader: str | Grader | Judge = "number",
    layers: str | Sequence[int] = "all",
    seed: int = 0,
    out: str | Path | None = None,
    retry_failed: bool = True,
    worker: Worker = ALONE,
    report: Report = silent,
    sampling: Sampling | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Profile:
    """Measures how often each question is answered right under every cap, and what that takes.

    Args:
        engine: runs the model.
        questions: texts with references: rows, queries, or a file's name; see `read_questions`.
        menu: the caps: a menu, "512,1024,4096", "geometric:256:32768", or whole numbers.
        num_traces: traces a question.
        grader: judges the answers: a registered name or a grader.
        layers: whose hidden states to keep: "all" that the engine shows, "none", or their numbers.
        seed: of the traces.
        out: a run directory that keeps every trace and goes on where it was stopped; None keeps nothing on disk.
        retry_failed: try failed traces again.
        worker: of several processes that fill `out` together: it takes the questions that are its own.
        report: called with each record.
        sampling: how the engine draws thoughts, where it does not say so itself.
        settings: kept in the run directory for its reader.

    Raises:
        InvalidInputError: a question without a reference that the grader can read.
        RunError: `out` holds something else.
    """
    _check_engine(engine)
    queries, judge, caps = read_questions(questions), Judge.of(grader), _menu_of(menu)
    if isinstance(num_traces, bool) or not isinstance(num_traces, int) or num_traces < 1:
        raise InvalidSettingsError(f"num_traces must be a whole number of at least 1, not {num_traces!r}")
    judge.check(queries, required=True)
    made = Provenance.of(engine.info, menu=caps, sampling=sampling or engine.info.sampling or Sampling(), seed=seed)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()) if out is None else out)
        run = RunDirectory.create(
            folder / "run" if out is None else folder,
            kind="profile",
            provenance=made.with_grader(judge.provenance),
            settings=settings or {},
        )
        wanted = _layer_numbers(layers, engine)
        stack.enter_context(run.locked(worker))
        check_layers_kept(run, wanted)
        with run.turn():
            every_query = merge_queries(run, queries)
        await sample_traces(
            run,
            engine,
            queries,
            menu=caps,
            num_traces=num_traces,
            seed=seed,
            grader=judge.grader,
            layers=wanted,
            retry_failed=retry_failed,
            worker=worker,
            setup=setup_of(engine.info, (settings or {}).get("engine", {}).get("options", {})),
            report=report,
        )
        with run.turn():  # the last of several workers to come here writes what holds of all
            measured = from_run(run, every_query)
            if out is not None:
                write_parquet(run.path / "profile.parquet", measured)
        return measured


def profile(engine: Engine, questions: str | Path | Iterable[Question], **settings: Any) -> Profile:
    """`profile_async`, with the same arguments, for code that is not a coroutine, also in a notebook."""
    return finish(profile_async(engine, questions, **settings))


def _check_engine(engine: object) -> None:
    if not isinstance(engine, Engine):
        raise InvalidInputError(
            f"the engine must be an open engine, not {excerpt(engine)}; open one: open_engine(MODEL)"
        )


def _menu_of(menu: Menu | str | Sequence[int]) -> Menu:
    if isinstance(menu, Menu):
        return menu
    return Menu.parse(menu) if isinstance(menu, str) else Menu.of(menu)


def _layer_numbers(layers: str | Sequence[int], engine: Engine) -> tuple[int, ...]:
    num_layers = engine.info.num_layers if isinstance(engine, HiddenStateEngine) else None
    if layers == "none" or not layers or (layers == "all" and num_layers is None):
        return ()
    if layers == "all":
        return tuple(range((num_layers or 0) + 1))
    if isinstance(layers, str) or num_layers is None or not all(0 <= layer <= num_layers for layer in layers):
        known = "this engine shows none" if num_layers is None else f"the model has layers 0 to {num_layers}"
        raise InvalidSettingsError(f"layers must be 'all', 'none' or numbers of layers, not {layers!r}: {known}")
    return tuple(sorted(set(layers)))


def merge_queries(run: RunDirectory, queries: Sequence[Query]) -> list[Query]:
    """The run's queries and the new ones, written back; one id cannot stand for two different queries."""
    path = run.path / "queries.jsonl"
    known = {query.id: query for query in load_queries(path)} if path.exists() else {}
    changed = [query for query in queries if query.id in known and known[query.id] != query]
    if changed and not run.holds_results():  # nothing was measured on the old ones
        run.forget()
        known, changed = {}, []
    if changed:
        ids = ", ".join(repr(query.id) for query in changed[:5]) + (", …" if len(changed) > 5 else "")
        if all(replace(known[query.id], reference=query.reference) == query for query in changed):
            raise RunError(
                f"{run.path} was graded by other reference answers to {len(changed)} of these questions ({ids}). Judge "
                f"what it holds by the new ones first: forethought regrade {run.path} --answers FILE"
            )
        raise RunError(f"{run.path} already holds other questions under the ids {ids}; give another --out")
    merged = [*known.values(), *(query for query in queries if query.id not in known)]
    if merged != list(known.values()):
        save_queries(path, merged)
    return merged


# --- train ----------------------------------------------------------------------------------------------------------


def train(
    profile: Profile | Sequence[Profile],
    predictor: str = "auto",
    *,
    layers: Sequence[int] | None = None,
    num_folds: int = 5,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    engine: Engine | None = None,
    progress: Progress = quiet,
) -> Predictor:
    """Fits a predictor on a profile; layer and regularisation are picked by cross-validation.

    Args:
        profile: what was measured, or several measured in the same way.
        predictor: registered name; "auto" for the default for what the profile holds.
        layers: layers to choose from; None for all that the profile holds.
        num_folds: folds of the cross-validation.
        seed: of the folds and of the fit.
        options: what the predictor's class takes.
        engine: of the measured model, for a predictor that asks it how hard a question is.
        progress: called with what is being done, steps done and steps in all.

    Raises:
        InvalidFeaturesError: the profile does not hold what the predictor reads.
        InvalidInputError: fewer than two queries with a finished trace.
    """
    profiles = [profile] if isinstance(profile, Profile) else list(profile)
    _check_profiles(profiles)
    measured = joined(profiles)
    name = training.named(predictor, measured)
    wanted = make_estimator(name, options)
    check_profile(measured, frozenset(wanted.reads) - {DIFFICULTY}, layers)
    if DIFFICULTY in wanted.reads and not measured.difficulties:
        order = hash_order(measured.query_ids, seed=seed)
        shots = pick_examples(measured, num_each=wanted.num_examples, order=order)
        measured = _asked(measured, Asking(shots), engine, progress)
    return training.train(
        measured, predictor=name, layers=layers, num_folds=num_folds, seed=seed, options=options, progress=progress
    )


async def train_async(profile: Profile | Sequence[Profile], predictor: str = "auto", **settings: Any) -> Predictor:
    """`train`, with the same arguments, for coroutines: it computes in a thread of its own."""
    return await asyncio.to_thread(train, profile, predictor, **settings)


def _check_profiles(profiles: Sequence[object]) -> None:
    wrong = [each for each in profiles if not isinstance(each, Profile)]
    if wrong or not profiles:
        what = excerpt(wrong[0]) if wrong else "an empty list"
        raise InvalidInputError(f"the profile must be a Profile, not {what}; read one: Profile.load(RUN or file)")


def _asked(measured: Profile, asking: Asking, engine: Engine | None, progress: Progress) -> Profile:
    """The profile with what its own model says of how hard each question is."""
    if engine is None:
        raise InvalidFeaturesError(
            "the predictor reads how hard the model says a question is, and the profile does not know; give the "
            "model's engine"
        )
    with tempfile.TemporaryDirectory() as folder:
        return with_difficulties(measured, engine, asking, Path(folder) / "asked", progress=progress)


# --- evaluate -------------------------------------------------------------------------------------------------------


def evaluate(
    predictor: Predictor | str,
    profile: Profile,
    *,
    allocator: str | Allocator = "envelope",
    num_resamples: int = 2000,
    seed: int = 0,
    engine: Engine | None = None,
    progress: Progress = quiet,
) -> Evaluation:
    """What prediction and allocation buy on measured curves, with intervals.

    Args:
        predictor: trained, and judged on the questions that it was not trained on; or a registered name ("auto" for the
            default): then every question is predicted by fits that did not see it.
        profile: what was measured.
        allocator: divides totals: a registered name or an allocator.
        num_resamples: bootstrap resamples.
        seed: of bootstrap and folds.
        engine: of the measured model, for a predictor that asks it how hard a question is.
        progress: called with what is being done, steps done and steps in all.

    Raises:
        InvalidSettingsError: the predictor was trained on every question of the profile.
        MismatchError: it was made for another model or template, or has none of the profile's caps.
    """
    _check_profiles([profile])
    made = registry.make("allocators", allocator, {}) if isinstance(allocator, str) else allocator
    if isinstance(predictor, Predictor):
        measured, notes = held_out(profile, {"the predictor": predictor})
        asking = predictor.card.asking or Asking()
        return judged(
            predictor,
            measured,
            notes,
            asked=lambda: _asked(measured, asking, engine, progress),
            allocator=made,
            num_resamples=num_resamples,
            seed=seed,
            progress=progress,
        )
    if not isinstance(predictor, str):
        raise InvalidInputError(f"the predictor must be a Predictor or a registered name, not {excerpt(predictor)}")
    return cross_fitted(profile, predictor, allocator=made, num_resamples=num_resamples, seed=seed, progress=progress)


async def evaluate_async(predictor: Predictor | str, profile: Profile, **settings: Any) -> Evaluation:
    """`evaluate`, with the same arguments, for coroutines: it computes in a thread of its own."""
    return await asyncio.to_thread(evaluate, predictor, profile, **settings)


def judged(
    predictor: Predictor,
    measured: Profile,
    notes: tuple[str, ...],
    *,
    asked: Callable[[], Profile],
    allocator: Allocator,
    num_resamples: int,
    seed: int,
    progress: Progress = quiet,
) -> Evaluation:
    """A predictor judged on a profile that it was not trained on; `asked` is called where difficulties are lacking."""
    if DIFFICULTY in predictor.card.features.reads and not measured.difficulties:
        measured = asked()
    measured, predicted, mean_train, more = held_out_curves(predictor, measured)
    notes += more
    for note in notes:
        logger.warning("note: %s", note)
    return _evaluated(measured, predicted, mean_train, notes, allocator, num_resamples, seed, progress)


def cross_fitted(
    measured: Profile,
    predictor: str,
    *,
    allocator: Allocator,
    num_resamples: int,
    seed: int,
    progress: Progress = quiet,
) -> Evaluation:
    """A kind of predictor judged on a profile, each query predicted by fits that did not see it."""
    make_estimator(training.named(predictor, measured))
    predicted, mean_train = training.cross_fit(measured, predictor=predictor, seed=seed, progress=progress)
    return _evaluated(measured, predicted, mean_train, (), allocator, num_resamples, seed, progress)


def _evaluated(
    measured: Profile,
    predicted: Curves,
    mean_train: Curves,
    notes: tuple[str, ...],
    allocator: Allocator,
    num_resamples: int,
    seed: int,
    progress: Progress,
) -> Evaluation:
    has_spend = measured.is_spend_measured and mean_train.tokens_Q_B is not None
    progress("plans and intervals", 0, 1)
    return evaluate_curves(
        measured,
        predicted,
        mean_train,
        allocator=allocator,
        costs=(Cost.GRANTED, Cost.SPENT) if has_spend else (Cost.GRANTED,),
        num_resamples=num_resamples,
        seed=seed,
        notes=notes,
    )


def held_out_curves(predictor: Predictor, measured: Profile) -> tuple[Profile, Curves, Curves, tuple[str, ...]]:
    """Curves for the queries of a profile the predictor was not trained on, made as in a plan.

    Where the profile was measured on another grid than the predictor's, everything is on the budgets of both.

    Returns:
        The profile, the predicted curves and the mean training curve, and what must be known of them in sentences.

    Raises:
        MismatchError: another model or template, or no budget in both grids.
    """
    predictor.check(measured.provenance.engine_info, None)
    menu = common_menu(predictor.card.menu, measured.menu)
    layer = predictor.card.features.layer
    if layer is not None:
        measured = with_layers(measured, [layer])
    expected = forecast(measured.query_ids, predictor, Features.of(measured, layer))
    notes = expected.notes
    if predictor.card.menu != measured.menu:
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
