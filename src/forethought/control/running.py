"""Running a plan: budgeted generation, forced answers, and what other allocators would have got on the same traces."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..core.checks import check_counts
from ..core.data import EngineInfo, Grade, Query, Request, Sampling
from ..core.files import open_bytes, reaching, read_json, replacing, write_json
from ..core.protocols import CountingEngine, Engine, Grader
from ..core.provenance import Provenance
from ..core.records import Record
from ..core.visible import to_json
from ..core.worker import ALONE, Worker
from ..errors import InvalidInputError, InvalidMenuError, InvalidSettingsError, InvalidTotalError, RunError
from ..questions.queries import load_queries, query_to_json, save_queries
from ..runs.store import RunDirectory, fingerprint
from .adapting import Adaptation, blocks, kept
from .answers import Answer, counts_of
from .billing import sends_twice, settle
from .judging import Judge
from .plan import FILE, Plan
from .pool import Pool
from .profiling import judged, setup_of, trace_seed

logger = logging.getLogger(__name__)


def read_plan(run: RunDirectory) -> Plan:
    """RUN/plan.json, with the run's questions as they are now.

    Raises:
        RunError: the run was stopped before it was planned, or the file is damaged.
    """
    path = run.path / FILE
    if not path.exists():
        raise RunError(f"{run.path} has no plan yet; start the same `forethought run` again to go on")
    try:
        return Plan.from_json(read_json(path), load_queries(run.path / "queries.jsonl"))
    except (InvalidInputError, InvalidMenuError, InvalidSettingsError, InvalidTotalError) as error:
        raise RunError(
            f"{path} is not the plan of this run: {error}. Copy the folder again; or delete the file, and the same "
            "`forethought run` plans anew and keeps the answers that are there."
        ) from error


def load_budgets(run: RunDirectory, plan: Plan | None = None) -> tuple[str, dict[str, dict[str, int]]]:
    """`(main allocator, allocator -> query id -> budget)`; the answers are given under the main one's budgets.

    Those are as planned, and then as what was decided while the run went on changed them.

    Raises:
        RunError: the run was stopped before it was planned, or its plan is damaged.
    """
    plan = plan or read_plan(run)
    budgets = {
        name: dict(zip(made.query_ids, made.budget_Q.tolist(), strict=True)) for name, made in plan.allocations.items()
    }
    for decision in _kept(run, plan)["decisions"]:
        budgets[plan.allocation.allocator].update(decision["budgets"])
    return plan.allocation.allocator, budgets


def _kept(run: RunDirectory, plan: Plan) -> dict[str, Any]:
    """What was decided while the run went on."""
    return kept(run, plan.menu, plan.allocation.query_ids)


def _priorities(plan: Plan, budgets_of: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """Query id -> tokens that its answer is expected to take under the largest of its budgets: short ones go first.

    Where the predictor knows nothing of spend, the budget itself.
    """
    tokens_Q_B, priorities = plan.forecast.curves.tokens_Q_B, {}
    for row, query_id in enumerate(plan.allocation.query_ids):
        budget = max(budget_of[query_id] for budget_of in budgets_of.values())
        is_known = tokens_Q_B is not None and budget in plan.menu
        priorities[query_id] = round(float(tokens_Q_B[row, plan.menu.index(budget)])) if is_known else budget  # type: ignore[index]
    return priorities


async def answering(plan: Plan, engine: Engine, judge: Judge) -> AsyncIterator[Answer]:
    """Answers to a plan's queries, as they come; nothing is kept."""
    known = {query.id: (query, budget) for query, (_, budget) in zip(plan.queries, plan, strict=True)}
    async for generation in engine.generate(plan.requests()):
        query, budget = known[generation.query_id]
        yield Answer.of(query, budget, judged(Record.of(generation), query.reference, judge.grader))


async def kept_answers(
    plan: Plan,
    engine: Engine,
    judge: Judge,
    folder: Path,
    *,
    options: Mapping[str, Any] | None = None,
    retry_failed: bool = True,
    worker: Worker = ALONE,
) -> AsyncIterator[Answer]:
    """The same in a run directory, which goes on where it stopped; answers that it has come first.

    Args:
        plan: is kept with them.
        engine: of its model and template.
        judge: of answers to queries with a reference.
        folder: of the run.
        options: of the engine, which may be changed to mend what failed.
        retry_failed: try again what failed before.
        worker: of several processes that fill the folder together: it takes the questions that are its own.
    """
    run = RunDirectory.create(folder, kind="run", provenance=plan_provenance(plan, judge, engine.info), settings={})
    with run.locked(worker):
        keep_plan(run, plan)
        found = answer_rows(run, plan.queries)
        for answer in found:
            if answer.error is None or not retry_failed:
                yield answer
        work = generate_planned(
            run,
            engine,
            plan.queries,
            seed=plan.seed,
            grader=judge.grader,
            retry_failed=retry_failed,
            setup=setup_of(engine.info, options or {}),
            worker=worker,
        )
        fresh = set()
        async for answer in work:
            fresh.add(answer.id)
            yield answer
        for answer in found:
            if answer.error is not None and retry_failed and answer.id not in fresh:
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


def keep_plan(run: RunDirectory, plan: Plan) -> bool:
    """Keeps a plan and its questions with the run, where it has none yet; whether it had none."""
    with run.turn():
        if (run.path / FILE).exists():
            return False
        save_queries(run.path / "queries.jsonl", plan.queries)
        plan.save(run.path / FILE)
        return True


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
) -> AsyncIterator[Answer]:
    """Answers every query that has no record yet, once, under the largest of its budgets; as they are on disk.

    The trace under a small cap is the prefix of the trace under a large one, so an answer forced at each allocator's
    budget judges all of them on the same trace. An engine that schedules by priority starts with the shortest answers.

    Requests are one stream, which the engine takes as it has room. With an adaptation, budgets are looked at when all
    answers of a block are there, and those that the engine has not taken yet may change: nothing waits for a decision.
    Only under a pool the blocks come one after the other, since what is left of a hard total, and so who gets what,
    must not depend on how many run at once.
    """
    plan, tries = read_plan(run), run.tries()
    main, budgets_of = load_budgets(run, plan)
    priority_of, budget_of = _priorities(plan, budgets_of), budgets_of[main]
    own = {query.id: query for query in queries if worker.owns(query.id)}
    parts = blocks(list(own.values())) if adaptation else [list(own.values())]
    left = {name for name in own if tries.is_left(name, 0, retry_failed=retry_failed, setup=setup)}
    used_of, begun = dict[str, float](), own.keys() - left

    def see(answer: Answer) -> None:
        if answer.tokens is not None and answer.budget == budget_of[answer.id]:  # others had what a pool had left
            used_of[answer.id] = float(answer.tokens)

    def requests(wanted: Iterable[Query]) -> Iterator[Request]:
        for query in wanted:
            if query.id not in begun:
                begun.add(query.id)
                caps = sorted({budgets[query.id] for budgets in budgets_of.values()})
                trace = trace_seed(seed, query.id, 0)
                yield Request(query, caps[-1], 0, trace, tuple(caps[:-1]), priority_of[query.id])

    def decide() -> None:
        while adaptation is not None and waiting and not waiting[0]:
            number = len(parts) - len(waiting)
            rest = [query for part in parts[number + 1 :] for query in part if query.id not in begun]
            budget_of.update(adaptation.decide(number, parts[number], rest, budget_of, used_of))
            waiting.pop(0)

    waiting = [{query.id for query in part} & left for part in parts]
    with replacing(run.path / "answers.jsonl") as file:
        for answer in _answers(run, own, budget_of):
            see(answer)
            if answer.error is None:
                file.write(_line(answer))
    counted, answers = _earlier_counts(run, worker), run.path / "answers.jsonl"
    with run.appender(worker) as records, open_bytes(answers, "ab", "written") as rows:
        for part in parts if pool else [[query for each in parts for query in each]]:
            decide()
            wanted = requests(part)
            async for generation in pool.generate(engine, list(wanted)) if pool else engine.generate(wanted):
                query = own[generation.query_id]
                record = judged(Record.of(generation, setup=setup), query.reference, grader)
                records.append([record.to_json()])
                _save_counts(run, counted, engine, worker)
                answer = Answer.of(query, budget_of[query.id], record)
                with reaching(answers, "written"):
                    rows.write(_line(answer))  # to be looked at; what lasts is the record
                yield answer
                see(answer)
                for names in waiting:
                    names.discard(query.id)
                decide()
    decide()
    _save_counts(run, counted, engine, worker)
    if adaptation is not None:
        adaptation.keep()


def _line(answer: Answer) -> bytes:
    return f"{to_json(answer.to_json())}\n".encode()


def _answers(
    run: RunDirectory, known: Mapping[str, Query], budget_of: Mapping[str, int], seen: Callable[[Record], object] = id
) -> Iterator[Answer]:
    """The answers to known queries that have a record, as they lie on disk; each record is shown to `seen`."""
    for record in run.latest():
        seen(record)
        if record.sample == 0 and record.query_id in known:
            yield Answer.of(known[record.query_id], budget_of[record.query_id], record)


def answer_rows(run: RunDirectory, queries: Sequence[Query], allocator: str | None = None) -> list[Answer]:
    """The answers to the queries, in their order, under `allocator`'s budgets (default: the run's own).

    A query without a record yet is left out.
    """
    main, budgets_of = load_budgets(run)
    known = {query.id: query for query in queries}
    found = {answer.id: answer for answer in _answers(run, known, budgets_of[allocator or main])}
    return [found[query.id] for query in queries if query.id in found]


def summary(run: RunDirectory, queries: Sequence[Query], kept: list[bytes | None] | None = None) -> dict[str, Any]:
    """Counts of a run (see `counts_of`), and what was sent and generated in all; records are read once.

    Args:
        run: the run directory.
        queries: its queries.
        kept: takes the line of each query's answer, in their place.
    """
    main, budgets_of = load_budgets(run)
    row_of = {query.id: row for row, query in enumerate(queries)}
    is_two_calls, bill, failed_rows = sends_twice(run.header.provenance), [0, 0], list[int]()

    def pay(record: Record) -> None:
        sent, generated = settle(record, is_two_calls=is_two_calls)
        bill[0] += sent
        bill[1] += generated

    def each() -> Iterator[Answer]:
        for answer in _answers(run, {query.id: query for query in queries}, budgets_of[main], pay):
            if answer.error is not None:
                failed_rows.append(row_of[answer.id])
            if kept is not None:
                kept[row_of[answer.id]] = _line(answer)
            yield answer

    return {
        **counts_of(each()),
        "failed_ids": [queries[row].id for row in sorted(failed_rows)[:20]],
        "queries": len(queries),
        "prompt_tokens": bill[0],
        "generated_tokens": bill[1],
        "with_reference": sum(query.reference is not None for query in queries),
    }


def write_results(run: RunDirectory, queries: Sequence[Query]) -> None:
    """Writes RUN/answers.jsonl, one line a query in their order, and RUN/summary.json, from the records of all workers.

    `engine` in the summary holds what the engine counted, over all calls, killed ones included. The last worker to end
    writes what holds of all.
    """
    with run.turn():
        kept: list[bytes | None] = [None] * len(queries)
        found = summary(run, queries, kept)
        with replacing(run.path / "answers.jsonl") as file:
            file.writelines(line for line in kept if line is not None)
        counted: dict[str, Any] = {}
        for each in _counts_files(run):
            counted = added(counted, _read_counts(each))
        usage = {"usage": _kept(run, read_plan(run))["usage"]}
        write_json(run.path / "summary.json", found | usage | ({"engine": counted} if counted else {}))


def _counts_files(run: RunDirectory) -> list[Path]:
    """Where workers keep what engines counted; a run that an older version began has it in its summary alone."""
    found = sorted(run.path.glob("counts*.json"))
    return found or [file for file in [run.path / "summary.json"] if file.exists()]


def _read_counts(path: Path) -> dict[str, Any]:
    """What engines had counted; nothing where the file cannot be read, which is said."""
    try:
        found = read_json(path)
        counted = found.get("engine", {}) if path.name == "summary.json" else found
        problem = check_counts(counted)
    except (RunError, AttributeError):
        problem = "it is not an object"
    if problem:
        logger.warning("%s was damaged (%s): what the engine counted before is not in it any more", path, problem)
        return {}
    return dict(counted)


def _earlier_counts(run: RunDirectory, worker: Worker) -> dict[str, Any]:
    """What engines have counted in this worker's calls so far."""
    own = run.path / worker.named("counts.json")
    if own.exists():
        return _read_counts(own)
    old = _counts_files(run)
    return _read_counts(old[0]) if worker.is_alone and old and old[0].name == "summary.json" else {}


def _save_counts(run: RunDirectory, earlier: Mapping[str, Any], engine: Engine, worker: Worker) -> None:
    """Keeps what has been counted, next to the records: a call that is killed has been paid for all the same.

    Not forced onto the disk, as records are: a kill loses nothing, and a power cut some counts, but no half file.
    """
    if isinstance(engine, CountingEngine):
        path = run.path / worker.named("counts.json")
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with reaching(path, "written"):
            temporary.write_text(to_json(added(earlier, engine.counted())), "utf-8")
            temporary.replace(path)


def added(earlier: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """Two objects of counts put together: sums, but of what is named `largest_` the larger."""
    found = dict(earlier)
    for name, value in later.items():
        if isinstance(value, Mapping):
            found[name] = added(found.get(name, {}), value)
        else:
            before = found.get(name, 0)
            found[name] = max(before, value) if name.startswith("largest_") else before + value
    return found


def outcomes(run: RunDirectory, queries: Sequence[Query]) -> dict[str, tuple[Any, Any, Any]]:
    """Allocator -> `(right_Q, granted_Q, spent_Q)` over the queries that are answered, graded and counted."""
    _, budgets_of = load_budgets(run)
    known, rows = {query.id: row for row, query in enumerate(queries)}, dict[int, list[Answer]]()
    for record in run.latest():
        row = known.get(record.query_id)
        if row is not None and record.sample == 0:
            rows[row] = [
                Answer.of(queries[row], budget_of[record.query_id], record) for budget_of in budgets_of.values()
            ]
    usable = [rows[row] for row in sorted(rows) if not any(e.grade is None or e.tokens is None for e in rows[row])]
    return {
        name: (
            np.array([each[column].grade is Grade.RIGHT for each in usable], dtype=np.float64),
            np.array([each[column].budget for each in usable], dtype=np.float64),
            np.array([each[column].tokens for each in usable], dtype=np.float64),
        )
        for column, name in enumerate(budgets_of)
    }
