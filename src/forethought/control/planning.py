"""From queries to a plan: features, predicted curves, one budget a query."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..allocators import allocate as divide
from ..allocators import pose
from ..core import registry
from ..core.data import Allocation, Cost, Curves, IntArray, Profile, Query
from ..core.features import DIFFICULTY, HIDDEN, TEXT, Features
from ..core.menu import Menu
from ..core.prompts import CHAT, shipped_templates
from ..core.protocols import Allocator, Engine, HiddenStateEngine
from ..core.settings import EngineSettings, PlanSettings
from ..engines.lengths import upper_bound
from ..engines.opening import prompting
from ..errors import InvalidFeaturesError, InvalidInputError, InvalidMenuError, InvalidSettingsError, InvalidTotalError
from ..predictors.difficulty import Asking, ask
from ..predictors.familiarity import Judged
from ..predictors.layers import Progress, silent
from ..predictors.predictor import Predictor
from ..predictors.selection import features_of
from ..questions.queries import load_queries
from ..runs.profiles import is_profile_file, read_parquet
from ..runs.store import RunDirectory, engine_info
from . import sources

READ_AT_ONCE = 128  # prompts, between two reports of progress
PREDICTED_AT_ONCE = 4096  # queries

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Forecast:
    """Predicted curves of a batch, and what they cost.

    Attributes:
        curves: one row a query.
        unseen_Q: rows of the queries whose prompt could not be read by the model; they carry the mean training curve.
        judged: the queries' novelty; None where the predictor has no score of it.
        feature_seconds: the prompt pass that gave the features (generation needs the same pass).
        predict_seconds: the predictor's own time.
    """

    curves: Curves
    unseen_Q: IntArray
    judged: Judged | None = None
    feature_seconds: float = 0.0
    predict_seconds: float = 0.0

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of the queries, in sentences: that they are not of the training kind."""
        judged = self.judged
        if judged is None or not judged.is_novel:
            return ()
        return (
            f"{judged.num_novel} of {judged.num_queries} questions are novel to the predictor ({judged.expected:.0f} "
            f"expected by chance): nobody has checked its curves on such questions, and they are used as predicted. "
            f"To check, profile some of them: forethought profile, then forethought evaluate --on.",
        )


def forecast(
    query_ids: Sequence[str], predictor: Predictor, features: Features, *, progress: Progress = silent
) -> Forecast:
    """Predicts every query's curves; those that cannot be read (a prompt that does not fit) get the mean curve.

    Args:
        query_ids: length Q.
        predictor: says what it reads.
        features: of the queries.
        progress: called with what is being done, steps done and steps in all.
    """
    started = time.perf_counter()
    seen = features.usable_rows(predictor.card.features.reads)
    is_seen_Q = np.zeros(len(query_ids), dtype=bool)
    is_seen_Q[seen] = True
    query_ids = tuple(query_ids)
    curves = predictor.card.mean_curves(query_ids)
    if seen.size:
        p_Q_B = np.array(curves.p_Q_B, dtype=np.float64)
        tokens_Q_B = None if curves.tokens_Q_B is None else np.array(curves.tokens_Q_B, dtype=np.float64)
        step = seen.size if getattr(predictor.estimator, "is_costly", False) else PREDICTED_AT_ONCE
        for start in range(0, seen.size, step):
            progress("predict", start, seen.size)
            rows = seen[start : start + step]
            predicted = predictor.predict([query_ids[row] for row in rows.tolist()], features.select(rows))
            p_Q_B[rows] = predicted.p_Q_B
            if tokens_Q_B is not None and predicted.tokens_Q_B is not None:
                tokens_Q_B[rows] = predicted.tokens_Q_B
        curves = replace(curves, p_Q_B=p_Q_B, tokens_Q_B=tokens_Q_B)
    progress("compare with the training questions", seen.size, seen.size)
    judged = predictor.judge(features)
    seconds = time.perf_counter() - started
    return Forecast(curves, np.flatnonzero(~is_seen_Q), judged, predict_seconds=seconds)


def features(
    queries: Sequence[Query], predictor: Predictor, engine: Engine | None, *, progress: Progress = silent
) -> Features:
    """What the predictor reads of the queries, by one prompt pass and by asking, where it needs either.

    Args:
        queries: Q of them.
        predictor: says what it reads.
        engine: None where the questions' text is all that is read.
        progress: called with what is being done, steps done and steps in all.
    """
    schema = predictor.card.features
    hidden_Q_D, levels = None, None
    if HIDDEN in schema.reads:
        assert schema.layer is not None
        if not isinstance(engine, HiddenStateEngine):
            raise InvalidFeaturesError(
                f"the predictor reads hidden states of layer {schema.layer}, which engine "
                f"{engine.info.engine if engine else 'none'!r} does not give; use --engine transformers or --engine "
                f"vllm, or a predictor that reads the text alone: forethought train RUN --predictor text"
            )
        parts = []
        for start in range(0, len(queries), READ_AT_ONCE):
            progress("read", start, len(queries))
            parts.append(engine.hidden_states(queries[start : start + READ_AT_ONCE], [schema.layer])[:, 0])
        hidden_Q_D = np.concatenate(parts)
    if DIFFICULTY in schema.reads:
        assert predictor.card.asking is not None
        assert engine is not None
        levels = tuple(asked.level for asked in ask(engine, queries, predictor.card.asking))
    return Features(len(queries), hidden_Q_D, tuple(query.text for query in queries), levels)


def recorded_features(questions: str, queries: Sequence[Query], predictor: Predictor) -> Features | None:
    """The same when no model is needed for it, else None.

    None is needed where text alone is read, or where `questions` is a run directory or a profile file that holds the
    rest for every query.
    """
    reads = predictor.card.features.reads
    texts = tuple(query.text for query in queries)
    if is_profile_file(Path(questions)):
        profile = read_parquet(Path(questions))
        predictor.check(engine_info(profile.info), None)
        return _profiled_features(profile, queries, predictor)
    if not (Path(questions) / "run.json").is_file():
        return Features(len(queries), texts=texts) if reads <= {TEXT} else None
    run = RunDirectory.open(Path(questions))
    predictor.check(engine_info(run.header["identity"]), None)
    if reads <= {TEXT}:
        return Features(len(queries), texts=texts)
    layers, hidden = run.load_hidden()
    layer = predictor.card.features.layer
    if DIFFICULTY in reads or layer not in layers or not all(query.id in hidden for query in queries):
        return None
    column = layers.index(layer)
    hidden_Q_D = np.stack([hidden[query.id][column] for query in queries]).astype(np.float32)
    return Features(len(queries), hidden_Q_D, texts)


def _profiled_features(profile: Profile, queries: Sequence[Query], predictor: Predictor) -> Features | None:
    schema = predictor.card.features
    if HIDDEN in schema.reads and schema.layer not in profile.layers:
        return None
    if (DIFFICULTY in schema.reads and not profile.difficulties) or (TEXT in schema.reads and not profile.texts):
        return None
    row_of = {query_id: row for row, query_id in enumerate(profile.query_ids)}
    return features_of(profile, schema.layer).select(np.array([row_of[query.id] for query in queries]))


def refuse_without_texts(queries: Sequence[Query], source: str) -> None:
    """Raises InvalidInputError when there are questions that no model can be asked."""
    without = [query.id for query in queries if not query.text]
    if without:
        raise InvalidInputError(
            f"{source} does not hold the texts of {len(without)} of its questions ({', '.join(without[:3])}, …), and a "
            "model would have to read them; name the file of the questions instead"
        )


def allocate(
    settings: PlanSettings,
    queries: Sequence[Query],
    expected: Forecast,
    *,
    allocator: str | None = None,
    left: float | None = None,
) -> Allocation:
    """Divides the total of `settings` over `queries`.

    Args:
        settings: total, cost, bounds.
        queries: give their own bounds and weights, which come before those of `settings`.
        expected: the predicted curves.
        allocator: another allocator than that of `settings`.
        left: tokens that are left for these queries, instead of the total; if not even the smallest budgets fit, they
            get those.
    """
    menu = expected.curves.menu
    chosen = open_allocator(settings, allocator)
    min_budget_Q, max_budget_Q = _bounds(settings, queries, menu)
    min_budget_Q[expected.unseen_Q] = max_budget_Q[expected.unseen_Q] = menu.smallest
    total = settings.total_for(len(queries))
    if left is not None:
        total = max(left, _least(expected.curves, min_budget_Q, settings.cost))
    try:
        plan = divide(
            chosen,
            expected.curves,
            total=total,
            cost=settings.cost,
            min_budget_Q=min_budget_Q,
            max_budget_Q=max_budget_Q,
            weight_Q=np.array([query.weight for query in queries]),
        )
    except InvalidTotalError as error:
        raise _in_own_units(error, settings, len(queries)) from error
    notes = (*plan.notes, *expected.notes)
    if len(expected.unseen_Q):
        ids = ", ".join(queries[row].id for row in expected.unseen_Q[:5])
        notes += (
            f"{len(expected.unseen_Q)} queries do not fit the model's context and get the smallest budget ({ids})",
        )
    return replace(plan, notes=notes)


def open_allocator(settings: PlanSettings, name: str | None = None) -> Allocator:
    """The allocator of `settings` with its options; or another one, which gets none."""
    is_own = name in (None, settings.allocator)
    options = settings.allocator_options if is_own else {}
    made: Allocator = registry.make("allocators", settings.allocator if name is None else name, options)
    return made


def check_total(settings: PlanSettings, queries: Sequence[Query], predictor: Predictor) -> None:
    """Refuses bounds and a total that no prediction could make possible, before any model is loaded.

    Under spent cost what the minimums cost is a prediction; only the bounds are looked at then.

    Raises:
        InvalidTotalError, InvalidMenuError, InvalidSettingsError, InvalidInputError: as `allocators.allocate`.
    """
    menu = predictor.card.menu
    for flag, value in (("--min-tokens", settings.min_tokens), ("--max-tokens", settings.max_tokens)):
        if value is not None and (value > menu.largest if flag == "--min-tokens" else value < menu.smallest):
            raise InvalidMenuError(
                f"{flag} {value} leaves nothing of the predictor's budgets, {menu}; give {flag} from {menu.smallest} "
                f"to "
                f"{menu.largest}"
            )
    min_budget_Q, max_budget_Q = _bounds(settings, queries, menu)
    total = settings.total_for(len(queries))
    if settings.cost is Cost.SPENT:
        total = max(total, 2.0 * menu.largest * len(queries) + 2.0**40)
    curves = predictor.card.mean_curves(tuple(query.id for query in queries))
    try:
        pose(curves, total=total, cost=settings.cost, min_budget_Q=min_budget_Q, max_budget_Q=max_budget_Q)
    except InvalidTotalError as error:
        raise _in_own_units(error, settings, len(queries)) from error


def _bounds(settings: PlanSettings, queries: Sequence[Query], menu: Menu) -> tuple[IntArray, IntArray]:
    """Least and largest budget of each query: its own, else that of `settings`, else the menu's."""
    lowest = settings.min_tokens if settings.min_tokens is not None else menu.smallest
    highest = settings.max_tokens if settings.max_tokens is not None else menu.largest
    return (
        np.array([query.min_budget if query.min_budget is not None else lowest for query in queries]),
        np.array([query.max_budget if query.max_budget is not None else highest for query in queries]),
    )


def _in_own_units(error: InvalidTotalError, settings: PlanSettings, num_queries: int) -> InvalidTotalError:
    """A refused total in the units that were typed: mean tokens a question where those were given."""
    if error.least is None or settings.mean_tokens is None:
        return error
    least = math.ceil(100 * error.least / num_queries) / 100
    answer = InvalidTotalError(
        f"--mean-tokens {settings.mean_tokens:g} cannot pay for the minimums of {num_queries} questions, which cost "
        f"{error.least / num_queries:.6g} tokens a question ({settings.cost} cost). Give at least "
        f"--mean-tokens {least:g}."
    )
    answer.least = error.least
    return answer


def _least(curves: Curves, min_budget_Q: IntArray, cost: Cost) -> float:
    """What the smallest budgets take from a total."""
    if cost is Cost.GRANTED or curves.tokens_Q_B is None:
        return float(curves.menu.at(curves.menu.first_at_least(min_budget_Q)).sum())
    column_Q = curves.menu.first_at_least(min_budget_Q)
    least_Q = np.take_along_axis(np.asarray(curves.tokens_Q_B, dtype=np.float64), column_Q[:, None], axis=1)
    return float(least_Q.sum()) * (1.0 + 1e-9)


def largest_cap(settings: PlanSettings, queries: Sequence[Query], menu: Menu) -> int:
    """The largest cap that a plan may give to anyone; no plan is needed to know it."""
    highest = settings.max_tokens if settings.max_tokens is not None else menu.largest
    own = max((query.max_budget if query.max_budget is not None else highest for query in queries), default=highest)
    if settings.cost is Cost.GRANTED:  # the others take the smallest budget each, at least
        own = min(own, int(settings.total_for(len(queries))) - menu.smallest * (len(queries) - 1))
    return menu.floor(own) or menu.smallest


def needed_tokens(settings: PlanSettings, predictor: Predictor, queries: Sequence[Query], cap: int) -> int:
    """Longest prompt + thought + answer that planning, and reasoning under `cap`, ask of the engine, at most."""
    asked = replace(settings.engine, template=template_of(settings, predictor))
    template = prompting(model_of(settings, predictor), asked).template
    needed = upper_bound(template, queries, cap)
    if DIFFICULTY not in predictor.card.features.reads:
        return needed
    asking = predictor.card.asking or Asking()
    return max(needed, upper_bound(asking.template, [replace(query, prompt=query.text) for query in queries], 0))


def plan_queries(settings: PlanSettings) -> list[Query]:
    """The queries of a plan: a file's, a run directory's or a profile's (there a text may be unknown: "")."""
    path = Path(settings.questions)
    if is_profile_file(path):
        profile = read_parquet(path)
        texts = profile.texts or ("",) * profile.num_queries
        queries = [Query(query_id, text) for query_id, text in zip(profile.query_ids, texts, strict=True)]
        return queries[: settings.limit]
    if (path / "run.json").is_file():
        return sources.run_queries(RunDirectory.open(path))[: settings.limit]
    return load_queries(settings.questions, limit=settings.limit, **settings.columns)


def model_of(settings: PlanSettings, predictor: Predictor) -> str:
    """Which model to load: the one asked for, or the one on the predictor's card."""
    name = settings.model or predictor.card.model
    if name is None:
        raise InvalidSettingsError(f"the predictor {settings.run} does not say which model it is for; give --model")
    return name


def template_of(settings: PlanSettings, predictor: Predictor) -> str:
    """Which prompt template to use: the one asked for, or the one on the predictor's card."""
    name = settings.template or predictor.card.template
    if name is None:
        raise InvalidSettingsError(
            f"the predictor {settings.run} does not say which prompt template it is for; give --template NAME "
            f"(shipped: {', '.join(shipped_templates())}) or a .json file"
        )
    if not settings.template and name not in (CHAT, *shipped_templates()):
        raise InvalidSettingsError(
            f"the predictor {settings.run} was made with the prompt template {name!r}, which does not come with "
            f"forethought; name its file: --template {name}.json"
        )
    return name


def planned_engine(settings: PlanSettings, predictor: Predictor) -> EngineSettings:
    """The engine asked for, with the template and sampling the predictor was trained under."""
    sampling = predictor.card.sampling or settings.engine.sampling
    if predictor.card.sampling is None:
        logger.warning(
            "%s does not say how its traces were drawn: thoughts are drawn at temperature %g, top-p %g",
            settings.run,
            sampling.temperature,
            sampling.top_p,
        )
    return replace(
        settings.engine,
        template=template_of(settings, predictor),
        temperature=sampling.temperature,
        top_p=sampling.top_p,
    )
