"""Cost estimates: the most that a command may generate and cost, and the part already done. No model is loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..control.billing import UNPRICED, CostEstimate, Expected, Prices, Traffic
from ..control.budgets import read_plan
from ..control.plan import Plan
from ..control.planning import model_of, template_of
from ..control.results import read_summary
from ..control.sources import recorded_features, refuse_without_texts
from ..core.data import Cost, Query
from ..core.features import DIFFICULTY, HIDDEN
from ..core.menu import Menu
from ..core.options import Option
from ..core.settings import EngineSettings, PlanSettings, ProfileSettings, RunPlanSettings, RunSettings
from ..core.terms import HardCap
from ..core.worker import Worker
from ..engines.context import CEILING, Room
from ..engines.opening import settle
from ..models import look
from ..predictors.card import PredictorCard
from ..predictors.usage import spent_within
from ..runs.folders import profile_folder, run_folder
from ..runs.store import RunDirectory
from .beforehand import (
    allocators_of,
    check_planned_engine,
    plan_file_inputs,
    plan_inputs,
    plan_model,
    profile_inputs,
    room_of,
    run_inputs,
    terms_of,
    typed_flags,
)


def profile_estimate(settings: ProfileSettings, *, prices: Prices = UNPRICED, asks: bool = False) -> CostEstimate:
    """The bill of `forethought profile`: every trace may run to the largest cap; `asks` as of `opening.check`."""
    settings, _ = settle(settings)
    queries, _, _ = profile_inputs(settings, asks=asks)
    queries = Worker.parse(settings.worker).share(queries)
    folder, menu = profile_folder(settings), settings.menu
    engine, room = _room(settings.model, settings.engine, queries, menu, menu.largest_cap)
    done = _done(folder, settings.num_traces, retry_failed=settings.retry_failed)
    if menu.is_named:
        return _options_estimate(settings, queries, menu, room, engine, done, prices)
    left_Q = [settings.num_traces - done[query.id] for query in queries]
    traffic = Traffic.of(
        room.lengths,
        left_Q,
        answers=menu.num_options,
        reread=int(menu.budgets_B.sum()) * sum(left_Q),
        is_two_calls=engine == "openai",
    )
    num_left, num_total = sum(left_Q), len(queries) * settings.num_traces
    return _priced(
        CostEstimate(
            model=settings.model,
            folder=str(folder),
            num_queries=len(queries),
            num_total=num_total,
            num_done=num_total - num_left,
            num_answers=num_left * menu.num_options,
            reasoning_tokens=num_left * menu.largest,
            answer_tokens=num_left * menu.num_options * _answer_tokens(room),
            engine=engine,
            loads=_loads(settings.model, engine),
        ),
        traffic,
        prices,
    )


def _options_estimate(
    settings: ProfileSettings,
    queries: Sequence[Query],
    menu: Menu,
    room: Room,
    engine: str,
    done: Mapping[str, int],
    prices: Prices,
) -> CostEstimate:
    """The bill of `forethought profile --menu`: every draw of an option may be as long as its cap or the context."""
    num_total = len(queries) * settings.num_traces * menu.num_options
    num_left = num_total - sum(done[query.id] for query in queries)
    ceiling = settings.engine.context_tokens or CEILING
    share = num_left / max(1, num_total)  # which options of a question are left is not looked at
    cap_B = [menu.asked(budget, ceiling)[0] for budget in menu.caps]
    num_each = len(queries) * settings.num_traces
    tokens_in = round(share * room.lengths.total * settings.num_traces)
    answer = _answer_tokens(room)
    usd = [
        None if option.price is None else option.price.usd(tokens_in, share * num_each * (cap + answer))
        for option, cap in zip(menu.options, cap_B, strict=True)
    ]
    made = CostEstimate(
        model=settings.model,
        folder=str(profile_folder(settings)),
        num_queries=len(queries),
        num_total=num_total,
        num_done=num_total - num_left,
        num_answers=num_left,
        reasoning_tokens=round(share * num_each * sum(cap_B)),
        answer_tokens=num_left * answer,
        engine=engine,
        loads=_loads(settings.model, engine),
    )
    traffic = Traffic(tokens_in * menu.num_options, 0, f"each prompt once per draw of an option; {room.lengths.how}")
    made = _priced(made, traffic, prices)
    return made if made.usd is not None or None in usd else replace(made, usd=sum(map(float, filter(None, usd))))


def plan_estimate(settings: PlanSettings, *, prices: Prices = UNPRICED) -> CostEstimate:
    """The bill of `forethought plan`: one prompt pass per question, and no thought."""
    with typed_flags():
        predictor, queries = plan_inputs(settings)
    model = model_of(predictor.card, settings.model)
    empty = CostEstimate(model, "", len(queries), 0, 0, 0, 0, 0)
    if recorded_features(settings.questions, queries, predictor) is not None:
        return _priced(empty, Traffic(0, 0, "no model is needed"), prices)
    refuse_without_texts(queries, settings.questions)
    check_planned_engine(settings, predictor)
    engine, room = room_of(model, _engine_of(settings, predictor.card), queries, predictor.card.menu)
    reads = predictor.card.features.reads
    times = (HIDDEN in reads) + (DIFFICULTY in reads)
    traffic = Traffic.of(room.lengths, [times] * len(queries), answers=1, reread=0, is_two_calls=False)
    asked = len(queries) * room.answer_tokens if DIFFICULTY in reads else 0
    known = CostEstimate(
        model, "", len(queries), 0, 0, 0, 0, answer_tokens=asked, engine=engine, loads=_loads(model, engine)
    )
    return _priced(known, traffic, prices)


def run_estimate(settings: RunSettings, *, prices: Prices = UNPRICED) -> CostEstimate:
    """The bill of `forethought run`: under granted cost at most each plan's total, under spent cost every cap."""
    with typed_flags():
        predictor, every_query, _ = run_inputs(settings)
    queries = Worker.parse(settings.worker).share(every_query)
    folder, menu = run_folder(settings), predictor.card.menu
    card, asked = predictor.card, settings.plan
    model = model_of(card, asked.model)
    cap = terms_of(asked).largest_cap(queries, menu)
    engine, room = _room(model, _engine_of(asked, card), queries, menu, cap)
    most_samples = int(menu.samples_B.max())
    done = _done(folder, most_samples, retry_failed=settings.retry_failed)
    num_plans = len(allocators_of(settings))
    has_plan = menu.is_named and (folder / "plan.json").is_file()
    made = read_plan(RunDirectory.open(folder)) if has_plan else None
    each_Q, left_Q = _left(folder, queries, _traces_of(queries, menu, num_plans, made), done, made)
    num_left = sum(left_Q)
    total = settings.plan.total_for(len(every_query))
    if menu.is_named:
        ceiling = asked.engine.context_tokens or CEILING
        cap = max(menu.asked(budget, ceiling)[0] for budget in menu.caps)
    most = num_left * cap
    is_bound = settings.plan.cost.value == "granted" or settings.hard_total
    if settings.plan.cost.value == "granted" and not menu.is_named:  # a trace runs to the largest of its caps
        most = min(most, int(total) * num_plans)
    if settings.hard_total:
        most = min(most, int(total))
    if settings.hard_cap and (hard := HardCap.parse(settings.hard_cap)).cost is Cost.SPENT:
        most, is_bound = min(most, int(hard.amount)), is_bound or hard.amount <= total
    within = None if is_bound or menu.is_named else _spent_within(predictor.card, total, len(queries))
    known = CostEstimate(model, str(folder), len(queries), 0, 0, 0, most, 0, engine=engine, spent_within=within)
    is_usd = asked.cost is Cost.USD
    known = replace(known, total=0.0 if is_usd else total, planned_usd=total if is_usd else None)
    known = replace(
        known,
        num_total=sum(each_Q),
        most_samples=most_samples,
        is_planned=made is not None and not (made.waves and num_left),
    )
    return _answering(known, left_Q, 1 if menu.is_named else num_plans, room, prices)


def run_plan_estimate(settings: RunPlanSettings, *, prices: Prices = UNPRICED) -> CostEstimate:
    """The bill of `forethought run --plan`: every cap of the plan."""
    made, _, asked = plan_file_inputs(settings)
    folder, model = run_folder(settings), plan_model(settings, made)
    ceiling = asked.context_tokens or CEILING
    cap_Q = [cap or ceiling if made.menu.is_named else cap for cap in made.largest_Q.tolist()]
    engine, room = _room(model, asked, made.queries, made.menu, int(made.largest_Q.max()))
    most_samples = int(made.menu.samples_B.max())
    done = _done(folder, most_samples, retry_failed=settings.retry_failed)
    worker = Worker.parse(settings.worker)
    num_plans = len(made.allocations)
    each_Q = _traces_of(made.queries, made.menu, num_plans, made)
    each_Q = [each * worker.owns(query.id) for each, query in zip(each_Q, made.queries, strict=True)]
    each_Q, left_Q = _left(folder, made.queries, each_Q, done, made)
    most = sum(left * cap for left, cap in zip(left_Q, cap_Q, strict=True))
    plan = made.allocation
    known = CostEstimate(model, str(folder), len(made), 0, 0, 0, most, 0, engine=engine, planned_usd=plan.expected_usd)
    known = replace(known, total=(plan.expected_spent or 0.0) if plan.cost is Cost.USD else plan.total)
    known = replace(
        known, num_total=sum(each_Q), most_samples=most_samples, is_planned=not (made.waves and sum(left_Q))
    )
    return _answering(known, left_Q, 1 if made.menu.is_named else num_plans, room, prices)


def _traces_of(queries: Sequence[Query], menu: Menu, num_plans: int, plan: Plan | None) -> list[int]:
    """Traces of each query: one, in which every plan cuts; of named options the samples of those that a plan chose.

    Plans that chose the same option share its samples. Before there is a plan it is as many as could be chosen.
    """
    if not menu.is_named:
        return [1] * len(queries)

    def num_samples(options: Iterable[Option]) -> list[int]:
        most: dict[str, int] = {}
        for option in options:
            most[option.single.label] = max(option.samples, most.get(option.single.label, 0))
        return sorted(most.values(), reverse=True)

    most = sum(num_samples(menu.options)[:num_plans])
    if plan is None:
        return [most] * len(queries)
    chosen = zip(*(each.budget_Q.tolist() for each in plan.allocations.values()), strict=True)
    pairs = zip(plan.allocation.query_ids, chosen, strict=True)
    traces_of = {query_id: sum(num_samples(map(menu.option, budgets))) for query_id, budgets in pairs}
    return [traces_of.get(query.id, most) for query in queries]


def _left(
    folder: Path, queries: Sequence[Query], each_Q: list[int], done: Counter[str], plan: Plan | None
) -> tuple[list[int], list[int]]:
    """Traces of each query in all, and how many of them are left; a run in waves that has ended draws no more."""
    if plan is not None and plan.waves and (folder / "summary.json").is_file():
        run = RunDirectory.open(folder)
        answered, num_kept = read_summary(run)["answered"], sum(1 for _ in run.latest())
        if answered == len(queries) and num_kept == done.total():  # nothing failed that would be tried again
            return [done[query.id] for query in queries], [0] * len(queries)
    return each_Q, [max(0, each - done[query.id]) for each, query in zip(each_Q, queries, strict=True)]


def _answering(
    known: CostEstimate,
    left_Q: Sequence[int],
    num_plans: int,
    room: Room,
    prices: Prices,
) -> CostEstimate:
    """The bill of the traces that are left of each query, with `num_plans` answers each."""
    num_left, is_two_calls = sum(left_Q), known.engine == "openai"
    made = replace(
        known,
        num_done=known.num_total - num_left,
        num_answers=num_left * num_plans,
        answer_tokens=num_left * num_plans * _answer_tokens(room),
        loads=_loads(known.model, known.engine),
    )
    reread = known.reasoning_tokens * num_plans
    traffic = Traffic.of(room.lengths, left_Q, answers=num_plans, reread=reread, is_two_calls=is_two_calls)
    if known.most_samples > 1:  # the samples of a question share its prompt
        further_Q = [max(0, left - 1) for left in left_Q]
        traffic = replace(traffic, cached=traffic.cached + int(np.dot(room.lengths.tokens_Q, further_Q)))
    return _priced(made, traffic, prices)


def _spent_within(card: PredictorCard, total: float, num_queries: int) -> float | None:
    """What `total` spent tokens may come to, if every query had the mean usage curve and the same budget."""
    if card.mean_tokens_B is None:
        return None
    curves, menu = card.mean_curves(tuple(map(str, range(num_queries)))), card.menu
    pairs = zip(menu.caps, card.mean_tokens_B, strict=True)
    cap = max((cap for cap, tokens in pairs if tokens * num_queries <= total), default=menu.smallest)
    within = spent_within(curves, np.full(num_queries, cap))
    expected = num_queries * card.mean_tokens_B[menu.index(cap)]
    return None if within is None else max(total, expected) * within / expected


def _engine_of(settings: PlanSettings, card: PredictorCard) -> EngineSettings:
    """The engine asked for, with the template that the predictor was trained under."""
    return replace(settings.engine, template=template_of(card, settings.template))


def _room(model: str, asked: EngineSettings, queries: Sequence[Query], menu: Menu, cap: int) -> tuple[str, Room]:
    """As `room_of`; refuses a context asked for that does not hold `cap`."""
    engine, room = room_of(model, asked, queries, menu)
    if cap:
        room.check_asked(asked.context_tokens, cap)
    return engine, room


def _answer_tokens(room: Room) -> int:
    return room.answer_tokens + room.lengths.suffix_tokens


def _loads(model: str, engine: str) -> str:
    return "" if engine in ("openai", "fake", "replay") else f"weights {look(model).to_text()}"


def _priced(estimate: CostEstimate, traffic: Traffic, prices: Prices) -> CostEstimate:
    return replace(
        estimate,
        prompt_tokens=traffic.sent,
        cached_tokens=traffic.cached,
        prompts=traffic.words,
        usd=prices.usd(traffic.sent, estimate.reasoning_tokens + estimate.answer_tokens),
        hours=prices.hours(estimate.reasoning_tokens + estimate.answer_tokens),
        expected=_expected(Path(estimate.folder), estimate.num_left, prices),
    )


def _expected(folder: Path, num_left: int, prices: Prices) -> Expected | None:
    """What the traces of a run that are left come to, by those that it holds; None where it holds none."""
    if not num_left or not (folder / "run.json").is_file():
        return None
    run = RunDirectory.open(folder)
    return Expected.of(run.latest(), run.header.provenance, num_left, prices)


def _done(folder: Path, num_traces: int, *, retry_failed: bool) -> Counter[str]:
    """Query id -> how many of its traces need not be generated again."""
    if not (folder / "run.json").is_file():
        return Counter()
    return RunDirectory.open(folder).tries().num_done(num_traces, retry_failed=retry_failed)
