"""From questions to a plan: features, predicted curves, one budget per query."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..allocators import Allocator
from ..allocators import allocate as divide
from ..core.allocation import Allocation
from ..core.arguments import is_number
from ..core.data import Cost, Curves, IntArray, Query
from ..core.features import DIFFICULTY, GIVEN, HIDDEN, Features
from ..core.problems import excerpt
from ..core.prompts import CHAT, PromptTemplate, shipped_templates
from ..core.protocols import Engine, HiddenStateEngine, check_engine
from ..core.settings import EngineSettings
from ..core.showing import watched
from ..core.versions import versions
from ..core.votes import EQUAL, ONE_VOTE_EACH, Voting
from ..engines.lengths import upper_bound
from ..engines.opening import opened, prompting
from ..errors import InvalidFeaturesError, InvalidInputError, InvalidSettingsError, InvalidTotalError
from ..predictors.card import PredictorCard
from ..predictors.difficulty import Asking, ask
from ..predictors.parts.making import Progress, silent
from ..predictors.predictor import Predictor
from ..questions.queries import Question, read_questions
from .forecast import Forecast
from .plan import Plan
from .reading import batches
from .terms import Terms
from .waving import plan_waves

PREDICTED_AT_ONCE = 4096  # queries

logger = logging.getLogger(__name__)


def plan(
    predictor: Predictor,
    questions: str | Path | Iterable[Question],
    *,
    mean_tokens: float | None = None,
    total: float | None = None,
    mean_usd: float | None = None,
    total_usd: float | None = None,
    cost: str | None = None,
    allocator: str | Allocator = "envelope",
    allocator_options: Mapping[str, Any] | None = None,
    min_tokens: int | None = None,
    max_tokens: int | None = None,
    seed: int = 0,
    engine: Engine | None = None,
    progress: Progress | bool | None = None,
    min_agreement: float = 0.0,
    vote_weights: str = "",
    waves: bool = False,
) -> Plan:
    """A plan that divides a total, of tokens or money, over questions.

    Args:
        predictor: says what a question is expected to give and to use under each cap.
        questions: texts, chats, rows or queries, or a file's name; see `read_questions`.
        mean_tokens: the total as tokens per question; or
        total: the total in tokens; or, on a menu with prices,
        mean_usd: the total as USD per question; or
        total_usd: the total in USD.
        cost: what tokens are counted as: "granted" (caps, the default) or "spent" (expected to be generated).
        allocator: a registered name, or an object that allocates.
        allocator_options: what the named one's class takes.
        min_tokens: least cap of any question.
        max_tokens: largest cap of any question.
        seed: of the traces when the plan is run.
        engine: of the predictor's model and template. None opens one where the predictor needs it, and closes it.
        progress: called with what is being done, steps done and steps in all; True for a bar, False for none, None for
            one in a notebook.
        min_agreement: share of the votes, from 0 to 1, below which the answer of several samples is marked abstained.
        waves: draw the samples of each question in waves: another one only where it is worth its tokens. The predictor
            must be one of votes (`train` with `samples`), the total in spent tokens.
        vote_weights: "answer" or "thought" to weigh votes by log-probability, see `Voting`; "equal" for one vote a
            sample; "" for what the predictor's votes were weighed by.

    Raises:
        InvalidInputError, InvalidSettingsError, InvalidTotalError, InvalidMenuError: what cannot be planned.
        MismatchError: an engine of another model or template.
    """
    if not isinstance(predictor, Predictor):
        raise InvalidInputError(
            f"the predictor must be a Predictor, not {excerpt(predictor)}; load one: Predictor.load(NAME or folder)"
        )
    terms = Terms(
        mean_tokens=mean_tokens,
        total=total,
        mean_usd=mean_usd,
        total_usd=total_usd,
        cost=Cost(cost) if cost in tuple(Cost) else cost,  # type: ignore[arg-type]
        allocator=allocator,
        allocator_options=allocator_options or {},
        min_tokens=min_tokens,
        max_tokens=max_tokens,
    )
    queries, voting = read_questions(questions), voting_for(predictor.card, min_agreement, vote_weights)
    terms.check_total(queries, predictor.card)
    if waves:
        check_waves(predictor, queries, terms, voting.weights)
    with watched(progress) as said:
        if engine is not None or predictor.card.features.reads <= GIVEN:
            expected = predict(queries, predictor, engine, progress=said)
        else:
            asked, model = engine_for(predictor.card, EngineSettings()), model_of(predictor.card)
            needed = needed_tokens(predictor, prompting(model, asked).template, queries, 0)
            with opened(None, model, asked, needed_tokens=needed, progress=said) as running:
                expected = predict(queries, predictor, running, progress=said)
        said("divide the total", 0, 1)
        return made_plan(predictor, queries, expected, terms, seed=seed, voting=voting, waves=waves)


async def plan_async(predictor: Predictor, questions: str | Path | Iterable[Question], **settings: Any) -> Plan:
    """The same for coroutines: it computes in a thread of its own."""
    return await asyncio.to_thread(plan, predictor, questions, **settings)


def made_plan(
    predictor: Predictor,
    queries: Sequence[Query],
    expected: Forecast,
    terms: Terms,
    *,
    others: Sequence[str] = (),
    seed: int = 0,
    voting: Voting = ONE_VOTE_EACH,
    waves: bool = False,
) -> Plan:
    """The plan from predicted curves; `others` are allocators whose budgets a run judges on the same traces."""
    return Plan(
        queries=tuple(queries),
        allocation=plan_waves(queries, expected, predictor.waves, total=terms.total_for(len(queries)))
        if waves
        else allocate(terms, queries, expected),
        waves=predictor.waves if waves else {},
        forecast=expected,
        terms=terms,
        card=predictor.card,
        seed=seed,
        others={name: allocate(terms, queries, expected, allocator=name) for name in others},
        versions=versions(),
        voting=voting,
    )


def check_waves(predictor: Predictor, queries: Sequence[Query], terms: Terms, weights: str) -> None:
    """Refuses what samples cannot be drawn in waves by, before any model is loaded; raises InvalidSettingsError."""
    if not predictor.waves or predictor.card.mean_tokens_B is None:
        raise InvalidSettingsError(
            "waves need a predictor of votes that knows usage, and how votes move: forethought train PROFILE "
            "--samples 1,2,4,8, on a profile with answers"
        )
    if any(table.weights != predictor.card.vote_weights for table in predictor.waves.values()):
        raise InvalidSettingsError(
            "the predictor's waves have learned from votes that did not weigh as its own do, since an earlier version "
            "made it: train it again, forethought train PROFILE --samples N,… --vote-weights "
            f"{predictor.card.vote_weights}"
        )
    if terms.cost is not Cost.SPENT:
        raise InvalidSettingsError(f"waves spend tokens: give a total under cost spent, not {terms.cost}")
    if weights != predictor.card.vote_weights:
        raise InvalidSettingsError(
            "waves have learned how votes end that are weighed as the predictor's were: leave vote weights out "
            "(--vote-weights), or train with others"
        )
    bounds = {terms.min_tokens, terms.max_tokens}
    if bounds.union(*((query.min_budget, query.max_budget) for query in queries)) != {None}:
        raise InvalidSettingsError("waves know no bounds of a question: leave min_tokens and max_tokens out")
    if terms.allocator != "envelope":
        raise InvalidSettingsError("waves divide a total by themselves: leave the allocator out (--allocator)")


def predict(
    queries: Sequence[Query], predictor: Predictor, engine: Engine | None, *, progress: Progress = silent
) -> Forecast:
    """One prompt pass and the predictor; refuses an engine whose model or template is not the predictor's."""
    if engine is not None:
        check_engine(engine)
        predictor.check(engine.info)
    started = time.perf_counter()
    read = features(queries, predictor, engine, progress=progress)
    seconds = time.perf_counter() - started
    expected = forecast([query.id for query in queries], predictor, read, progress=progress)
    return replace(expected, feature_seconds=seconds)


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
    curves, unseen_Q = predicted(query_ids, predictor, features, progress=progress)
    num_seen = len(query_ids) - unseen_Q.size
    progress("compare with the training questions", num_seen, num_seen)
    judged = predictor.judge(features)
    seconds = time.perf_counter() - started
    return Forecast(curves, unseen_Q, judged, predict_seconds=seconds)


def predicted(
    query_ids: Sequence[str], predictor: Predictor, features: Features, *, progress: Progress = silent
) -> tuple[Curves, IntArray]:
    """The curves of queries, and the rows of those that cannot be read, which have the mean curve; as `forecast`."""
    seen = features.usable_rows(predictor.card.features.reads)
    query_ids, is_whole = tuple(query_ids), len(seen) == len(query_ids)
    parts, step = [], len(seen) if predictor.estimator.is_costly else PREDICTED_AT_ONCE
    for start in range(0, len(seen), step):
        progress("predict", start, len(seen))
        rows = seen[start : start + step]
        read = features if is_whole and len(rows) == len(seen) else features.select(rows)
        parts.append((rows, predictor.predict([query_ids[row] for row in rows.tolist()], read)))
    if is_whole and len(parts) == 1:
        _, found = parts[0]
        tokens_Q_B = None if found.tokens_Q_B is None else found.tokens_Q_B.astype(np.float64, copy=False)
        p_Q_B = found.p_Q_B.astype(np.float64, copy=False)
        return Curves(query_ids, found.menu, p_Q_B, tokens_Q_B, found.input_Q_B), np.zeros(0, dtype=np.int64)
    curves = predictor.card.mean_curves(query_ids)
    for rows, predicted in parts:
        curves.p_Q_B[rows] = predicted.p_Q_B
        if curves.tokens_Q_B is not None and predicted.tokens_Q_B is not None:
            curves.tokens_Q_B[rows] = predicted.tokens_Q_B
    return curves, np.setdiff1d(np.arange(len(query_ids)), seen)


def features(
    queries: Sequence[Query], predictor: Predictor, engine: Engine | None, *, progress: Progress = silent
) -> Features:
    """What the predictor reads of the queries, by one prompt pass and by asking, where it needs either.

    Args:
        queries: Q of them.
        predictor: says what it reads.
        engine: None where the questions' text and ids are all that is read.
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
        read = batches(queries, engine.info, num_before=0, total=len(queries), progress=progress)
        hidden_Q_D = np.concatenate([engine.hidden_states(batch, [schema.layer])[:, 0] for batch in read])
    if DIFFICULTY in schema.reads:
        assert predictor.card.asking is not None
        assert engine is not None
        levels = tuple(asked.level for asked in ask(engine, queries, predictor.card.asking, progress))
    texts, ids = tuple(query.text for query in queries), tuple(query.id for query in queries)
    return Features(len(queries), hidden_Q_D, texts, levels, ids)


def allocate(
    terms: Terms,
    queries: Sequence[Query],
    expected: Forecast,
    *,
    allocator: str | None = None,
    left: float | None = None,
) -> Allocation:
    """Divides the total of `terms` over `queries`.

    Args:
        terms: total, cost, bounds.
        queries: give their own bounds and weights, which come before those of `terms`.
        expected: the predicted curves.
        allocator: another allocator than that of `terms`.
        left: what is left for these queries, instead of the total; if not even their cheapest options fit, they get
            those.
    """
    menu = expected.curves.menu
    min_budget_Q, max_budget_Q = terms.bounds(queries, menu)
    min_budget_Q[expected.unseen_Q] = max_budget_Q[expected.unseen_Q] = menu.smallest
    total = terms.total_for(len(queries))
    if left is not None:
        total = max(left, _least(expected.curves, min_budget_Q, max_budget_Q, terms.cost))
    try:
        made = divide(
            terms.open(allocator),
            expected.curves,
            total=total,
            cost=terms.cost,
            min_budget_Q=min_budget_Q,
            max_budget_Q=max_budget_Q,
            weight_Q=np.array([query.weight for query in queries]),
        )
    except InvalidTotalError as error:
        raise terms.in_own_units(error, len(queries)) from error
    return replace(made, notes=(*made.notes, *expected.notes))


def weights_for(card: PredictorCard, vote_weights: str) -> str:
    """By what votes are weighed, as `Voting.weights`: as the predictor's, where nothing else is said."""
    return {"": card.vote_weights, EQUAL: ""}.get(vote_weights, vote_weights)


def check_votes(card: PredictorCard, min_agreement: float, vote_weights: str) -> None:
    """Raises InvalidSettingsError where something is said of votes, and no option of the predictor is one."""
    if not is_number(min_agreement):
        raise InvalidSettingsError(f"min_agreement must be a number from 0 to 1, not {excerpt(min_agreement)}")
    if (min_agreement > 0.0 or vote_weights) and not (card.menu.samples_B > 1).any():
        without = "leave min_agreement and vote_weights out, or train for votes: forethought train RUN --samples 1,2,4"
        raise InvalidSettingsError(f"the predictor's options are single answers, and no votes: {without}")


def voting_for(card: PredictorCard, min_agreement: float = 0.0, vote_weights: str = "") -> Voting:
    """How samples vote: weighed as the votes that the predictor learned from, where nothing else is said."""
    check_votes(card, min_agreement, vote_weights)
    weights = weights_for(card, vote_weights)
    if weights != card.vote_weights and (card.menu.samples_B > 1).any():
        how = (card.vote_weights, weights)
        by = [f"weighed by the log-probability of the {each}" if each else "not weighed" for each in how]
        logger.warning(
            "note: the predictor learned from votes that were %s, and these are %s: what it expects is of other votes",
            *by,
        )
    return Voting(min_agreement, weights)


def _least(curves: Curves, min_budget_Q: IntArray, max_budget_Q: IntArray, cost: Cost) -> float:
    """What the cheapest options within bounds take from a total."""
    costs_Q_B, budgets_B = curves.costs_Q_B(cost), curves.menu.budgets_B
    if costs_Q_B is None:
        costs_Q_B = np.broadcast_to(budgets_B, curves.p_Q_B.shape)
    is_allowed_Q_B = (budgets_B >= min_budget_Q[:, None]) & (budgets_B <= max_budget_Q[:, None])
    least = float(np.where(is_allowed_Q_B, costs_Q_B, np.inf).min(axis=1).sum())
    return least if cost is Cost.GRANTED else least * (1.0 + 1e-9)


def needed_tokens(predictor: Predictor, template: PromptTemplate, queries: Sequence[Query], cap: int) -> int:
    """Longest prompt + thought + answer that planning, and reasoning under `cap`, ask of the engine, at most."""
    needed = upper_bound(template, queries, cap)
    if DIFFICULTY not in predictor.card.features.reads:
        return needed
    asking = predictor.card.asking or Asking()
    return max(needed, upper_bound(asking.template, [replace(query, prompt=query.text) for query in queries], 0))


def model_of(card: PredictorCard, model: str = "") -> str:
    """Which model to load: the one asked for, or the one on the predictor's card."""
    name = model or card.model
    if name is None:
        raise InvalidSettingsError("the predictor does not say which model it is for; name it: --model NAME")
    return name


def template_of(card: PredictorCard, template: str = "") -> str:
    """Which prompt template to use: the one asked for, or the one on the predictor's card."""
    name = template or card.template
    if name is None:
        raise InvalidSettingsError(
            f"the predictor does not say which prompt template it is for; name it: --template NAME "
            f"(shipped: {', '.join(shipped_templates())}) or a .json file"
        )
    if not template and name not in (CHAT, *shipped_templates()):
        raise InvalidSettingsError(
            f"the predictor was made with the prompt template {name!r}, which does not come with forethought; name its "
            f"file: --template {name}.json"
        )
    return name


def engine_for(card: PredictorCard, engine: EngineSettings, template: str = "") -> EngineSettings:
    """The engine asked for, with the template and sampling the predictor was trained under."""
    sampling = card.sampling or engine.sampling
    if card.sampling is None:
        logger.warning(
            "the predictor does not state how its traces were sampled: thoughts use temperature %g, top-p %g",
            sampling.temperature,
            sampling.top_p,
        )
    return replace(engine, template=template_of(card, template), temperature=sampling.temperature, top_p=sampling.top_p)
