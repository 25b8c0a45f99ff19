"""Running a plan: generation under budgets, forced answers, and the results of other allocators on the same traces."""

from __future__ import annotations

import itertools
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..core.data import EngineInfo, Query, Request, Sampling
from ..core.files import open_bytes, reaching, replacing
from ..core.protocols import Engine, Grader
from ..core.provenance import Provenance
from ..core.records import Record
from ..core.showing import Progress, silent
from ..core.worker import ALONE, Worker
from ..engines.context import ceiling_of
from ..questions.queries import query_to_json
from ..runs.store import RunDirectory, fingerprint, trace_of
from .adapting import Adaptation, blocks
from .answers import Answer
from .budgets import keep_plan, keep_voting, load_budgets, priorities, read_plan
from .counts import earlier_counts, losses
from .judging import Judge
from .keeping import Keeping, check_label, generated, judged, keeper
from .plan import Plan
from .pool import Pool
from .profiling import planned_seed, setup_of
from .results import answer_rows, answers_of, line_of, write_results
from .voting import Gathering, is_short
from .waving import answers_in_waves

AHEAD = 4  # the first quarter of a block is served while the last answers of the block before come in

logger = logging.getLogger(__name__)


async def answering(plan: Plan, engine: Engine, judge: Judge, progress: Progress = silent) -> AsyncIterator[Answer]:
    """Answers to a plan's queries, as they come; nothing is kept. `progress` is told what waves have spent."""
    made = plan_provenance(plan, judge, engine.info)
    known = {query.id: query for query in plan.queries}
    gathered = Gathering(known, plan.budgets, made, plan.voting, judge.grader, is_open=bool(plan.waves))

    async def draw(requests: Iterable[Request]) -> AsyncIterator[Record]:
        async for generation in generated(engine, requests):
            check_label(engine, plan.menu, generation)
            record = judged(Record.of(generation), known[generation.query_id].reference, judge.grader)
            gathered.warn_of(record)
            yield record

    ceiling = ceiling_of(engine.info)
    if plan.waves:
        how: dict[str, Any] = {"known": {}, "losses": losses(engine), "ceiling": ceiling, "progress": progress}
        async for answer in answers_in_waves(plan, gathered, judge.grader, draw, **how):
            yield answer
        return
    async for record in draw(plan.requests(ceiling)):
        if (complete := gathered.add(record)) is not None:
            yield complete


async def kept_answers(
    plan: Plan,
    engine: Engine,
    judge: Judge,
    folder: Path,
    *,
    options: Mapping[str, Any] | None = None,
    retry_failed: bool = True,
    worker: Worker = ALONE,
    pool: Callable[[RunDirectory], Pool] | None = None,
    progress: Progress = silent,
) -> AsyncIterator[Answer]:
    """The same in a run directory, which is resumed; stored answers come first.

    Args:
        plan: is kept with them.
        engine: of its model and template.
        judge: of answers to queries with a reference.
        folder: of the run.
        options: of the engine, which may be changed to mend what failed.
        retry_failed: try again what failed before.
        worker: of several processes that fill the folder together: it takes the questions that are its own.
        pool: opens the hard cap of the run, once it is held for writing; None for no cap.
        progress: of waves: called with the tokens that they have spent, and all that they may.
    """
    run = RunDirectory.create(folder, kind="run", provenance=plan_provenance(plan, judge, engine.info), settings={})
    with run.locked(worker):
        keep_plan(run, plan)
        keep_voting(run, plan.voting)
        found = [] if plan.waves else answer_rows(run, plan.queries)  # waves go through what is there by themselves
        again = {each.id for each in found if retry_failed and (each.error is not None or is_short(each, plan.menu))}
        for answer in found:
            if answer.id not in again:
                yield answer
        work = generate_planned(
            run,
            engine,
            plan.queries,
            seed=plan.seed,
            grader=judge.grader,
            retry_failed=retry_failed,
            setup=setup_of(engine.info, options or {}),
            pool=None if pool is None else pool(run),
            worker=worker,
            progress=progress,
        )
        fresh = set()
        async for answer in work:
            fresh.add(answer.id)
            yield answer
        for answer in found:
            if answer.id in again - fresh:
                yield answer
        write_results(run, plan.queries)


def plan_provenance(plan: Plan, judge: Judge, info: EngineInfo | None = None) -> Provenance:
    """What determines the records of a run by this plan; without an engine, what is known before there is one."""
    sampling = (plan.card.sampling if plan.card else None) or Sampling()
    more = {
        "allocators": list(plan.allocations),
        "cost": plan.allocation.cost.value,
        "total": plan.allocation.total,
        "queries": fingerprint([query_to_json(query) for query in plan.queries]),
        "plan": fingerprint({name: made.budget_Q.tolist() for name, made in plan.allocations.items()}),
    }
    made = Provenance() if info is None else Provenance.of(info, sampling=sampling)
    return replace(made, menu=plan.menu, seed=plan.seed, more=more).with_grader(judge.provenance)


async def generate_planned(
    run: RunDirectory,
    engine: Engine,
    queries: Sequence[Query],
    *,
    seed: int,
    grader: Grader,
    retry_failed: bool,
    setup: str,
    pool: Pool | None = None,
    adaptation: Adaptation | None = None,
    worker: Worker = ALONE,
    progress: Progress = silent,
) -> AsyncIterator[Answer]:
    """Answers every query that has no record yet, once, under the largest of its budgets; as they are on disk.

    The trace under a small cap is the prefix of the trace under a large one, so an answer forced at each allocator's
    budget judges all of them on the same trace. A named option has a trace of its own: a query has one for each option
    that an allocator chose for it, and where two chose the same one they are judged on the same. The answers are those
    under the main allocator's budgets. An engine that schedules by priority starts with the shortest answers.

    Requests are one stream, which the engine takes as it has room. With an adaptation, a decision looks at all answers
    of its blocks, and holds from a quarter of the next block on, so that an engine goes on while the last of them are
    thought through; only one that comes there first waits. Who gets which budget so depends on no clock. A pool's total
    is divided by what came back: there a decision holds, and is waited for, at the end of its block.
    """
    plan, tries = read_plan(run), run.tries()
    if plan.waves:
        work = _generate_waves(
            run,
            engine,
            plan,
            queries,
            grader=grader,
            retry_failed=retry_failed,
            setup=setup,
            pool=pool,
            worker=worker,
            progress=progress,
        )
        async for answer in work:
            yield answer
        return
    main, budgets_of = load_budgets(run, plan)
    priority_of, budget_of = priorities(plan, budgets_of), budgets_of[main]
    own = {query.id: query for query in queries if worker.owns(query.id)}
    parts = blocks(list(own.values())) if adaptation else [list(own.values())]
    menu, ceiling, made = plan.menu, ceiling_of(engine.info), run.header.provenance

    def is_left(query_id: str, sample: int, option: str = "") -> bool:
        return tries.is_left(query_id, sample, option, retry_failed=retry_failed, setup=setup)

    def asked(query_id: str) -> list[tuple[int, int, tuple[int, ...]]]:
        """The traces of a query that are left: the largest budget, the sample, and smaller caps to probe at.

        Votes of several allocators share the samples of an option.
        """
        budgets = sorted({budget_of[query_id] for budget_of in budgets_of.values()})
        if not menu.is_named:
            return [(budgets[-1], 0, tuple(budgets[:-1]))] if is_left(query_id, 0) else []
        options = [(each, menu.option(each)) for each in budgets]
        drawn = {(option.single.label, sample): each for each, option in options for sample in range(option.samples)}
        return [(each, sample, ()) for (name, sample), each in drawn.items() if is_left(query_id, sample, name)]

    gathered = Gathering(own, budget_of, made, plan.voting, grader)
    left = {name for name in own if asked(name)}
    used_of, begun = dict[str, float](), own.keys() - left
    order, position = [query for part in parts for query in part], 0

    def see(answer: Answer) -> None:
        if answer.tokens is not None and answer.budget == budget_of[answer.id]:  # others had what a pool had left
            used_of[answer.id] = float(answer.tokens)

    def requests() -> Iterator[Request]:
        nonlocal position
        while position < len(order) and (decided() >= len(gates) or position < gates[decided()]):
            query = order[position]
            position += 1
            if query.id not in begun:
                begun.add(query.id)
                gathered.forget(query.id, lambda each: is_left(each.query_id, each.sample, each.option))
                for budget, sample, caps in asked(query.id):
                    cap, option = menu.asked(budget, ceiling)
                    trace = planned_seed(seed, query.id, sample, option)
                    yield Request(query, cap, sample, trace, caps, priority_of[query.id], option)

    def decided() -> int:
        return len(parts) - len(waiting)

    def decide() -> None:
        while adaptation is not None and waiting and not waiting[0]:
            number = decided()
            rest = [query for query in order[gates[number] :] if query.id not in begun] if number < len(gates) else []
            seen = {query.id for part in parts[: number + 1] for query in part}  # later ones may be in, or not
            used = {query_id: tokens for query_id, tokens in used_of.items() if query_id in seen}
            budget_of.update(adaptation.decide(number, parts[number], rest, budget_of, used))
            waiting.pop(0)

    waiting = [{query.id for query in part} & left for part in parts]
    ends = list(itertools.accumulate(map(len, parts)))
    gates = ends[:-1] if pool else [end + (following - end) // AHEAD for end, following in itertools.pairwise(ends)]
    with replacing(run.path / "answers.jsonl") as file:
        for answer in answers_of(run, own, budget_of, gathering=gathered):
            see(answer)
            if answer.error is None:
                file.write(line_of(answer))
    answers = run.path / "answers.jsonl"
    keeping = Keeping(run.path, menu, grader, setup, worker, is_counted=True, retries_lost=pool is None)
    with keeper(engine, keeping) as keep, open_bytes(answers, "ab", "written") as rows:
        decide()
        while position < len(order):
            wanted = requests()
            async for generation in pool.generate(engine, list(wanted)) if pool else generated(engine, wanted):
                query = own[generation.query_id]
                record = keep(generation, query.reference)
                gathered.warn_of(record)
                complete = gathered.add(record)
                if complete is None:
                    continue  # another allocator's, or other samples of its query are to come
                answer = complete
                with reaching(answers, "written"):
                    rows.write(line_of(answer))  # to be looked at; what lasts is the record
                yield answer
                see(answer)
                for names in waiting:
                    names.discard(query.id)
                decide()
            for names in waiting:
                names -= begun  # all that was asked for has come back
            decide()
    decide()
    if adaptation is not None:
        adaptation.keep()


async def _generate_waves(
    run: RunDirectory,
    engine: Engine,
    plan: Plan,
    queries: Sequence[Query],
    *,
    grader: Grader,
    retry_failed: bool,
    setup: str,
    pool: Pool | None,
    worker: Worker,
    progress: Progress,
) -> AsyncIterator[Answer]:
    """The same where samples are drawn in waves; all queries are decided together, by one worker."""
    assert worker.is_alone  # commands refuse others
    own, made, tries = {query.id: query for query in queries}, run.header.provenance, run.tries()
    plan = replace(plan, queries=tuple(queries))
    gathered = Gathering(own, plan.budgets, made, plan.voting, grader, is_open=True)
    label_of = {query_id: plan.menu.option(budget).single.label for query_id, budget in plan}
    earlier = [record for record in run.latest() if label_of.get(record.query_id) == record.option]
    for record in earlier:  # all of them vote, also one that an earlier start asked for and this one does not
        gathered.add(record)
    known = {
        (record.query_id, record.sample): record
        for record in earlier
        if not tries.is_left(*trace_of(record), retry_failed=retry_failed, setup=setup)
    }
    keeping = Keeping(run.path, plan.menu, grader, setup, worker, is_counted=True, retries_lost=pool is None)
    answers = run.path / "answers.jsonl"
    with keeper(engine, keeping) as keep, open_bytes(answers, "wb", "written") as rows:

        async def draw(requests: Iterable[Request]) -> AsyncIterator[Record]:
            async for generation in pool.generate(engine, list(requests)) if pool else generated(engine, requests):
                record = keep(generation, own[generation.query_id].reference)
                gathered.warn_of(record)
                yield record

        lost = losses(engine, earlier_counts(run, worker))
        how: dict[str, Any] = {"known": known, "losses": lost, "ceiling": ceiling_of(engine.info), "progress": progress}
        async for answer in answers_in_waves(plan, gathered, grader, draw, **how):
            with reaching(answers, "written"):
                rows.write(line_of(answer))
            yield answer
