"""Running a plan: budgeted generation, forced answers, and what other allocators would have got on the same traces."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..core.checks import check_counts
from ..core.data import EngineInfo, Grade, Query, Request, Sampling
from ..core.files import open_bytes, reaching, read_json, write_json
from ..core.protocols import CountingEngine, Engine, Grader
from ..core.visible import to_json
from ..errors import InvalidInputError, InvalidMenuError, InvalidSettingsError, InvalidTotalError, RunError
from ..questions.queries import load_queries, query_to_json, save_queries
from ..runs.store import RunDirectory, fingerprint
from .adapting import Adaptation, blocks, kept
from .answers import Answer, Answers
from .billing import sends_twice, settle
from .judging import Judge
from .plan import FILE, Plan
from .pool import Pool
from .profiling import graded_record, identity, setup_of, trace_seed

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


def load_priorities(run: RunDirectory) -> dict[str, int]:
    """Query id -> tokens that its answer is expected to take under the largest of its budgets: short ones go first.

    Where the predictor knows nothing of spend, the budget itself.
    """
    plan = read_plan(run)
    budgets, tokens_Q_B = load_budgets(run, plan)[1].values(), plan.forecast.curves.tokens_Q_B
    priorities = {}
    for row, query_id in enumerate(plan.allocation.query_ids):
        budget = max(budget_of[query_id] for budget_of in budgets)
        is_known = tokens_Q_B is not None and budget in plan.menu
        priorities[query_id] = round(float(tokens_Q_B[row, plan.menu.index(budget)])) if is_known else budget  # type: ignore[index]
    return priorities


async def answering(plan: Plan, engine: Engine, judge: Judge) -> AsyncIterator[Answer]:
    """Answers to a plan's queries, as they come; nothing is kept."""
    known = {query.id: (query, budget) for query, (_, budget) in zip(plan.queries, plan, strict=True)}
    async for generation in engine.generate(plan.requests()):
        query, budget = known[generation.query_id]
        yield Answer.of(query, budget, graded_record(generation, query.reference, judge.grader))


async def kept_answers(
    plan: Plan,
    engine: Engine,
    judge: Judge,
    folder: Path,
    *,
    options: Mapping[str, Any] | None = None,
    retry_failed: bool = True,
) -> AsyncIterator[Answer]:
    """The same in a run directory, which goes on where it stopped; answers that it has come first.

    Args:
        plan: is kept with them.
        engine: of its model and template.
        judge: of answers to queries with a reference.
        folder: of the run.
        options: of the engine, which may be changed to mend what failed.
        retry_failed: try again what failed before.
    """
    run = RunDirectory.create(folder, kind="run", identity=plan_identity(plan, engine.info, judge), settings={})
    with run.locked():
        if not (folder / FILE).exists():
            save_queries(folder / "queries.jsonl", plan.queries)
            plan.save(folder / FILE)
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
        )
        fresh = set()
        async for answer in work:
            fresh.add(answer.id)
            yield answer
        for answer in found:
            if answer.error is not None and retry_failed and answer.id not in fresh:
                yield answer
        write_answers(run, plan.queries)
        write_summary(run, plan.queries)


def plan_identity(plan: Plan, info: EngineInfo | None, judge: Judge) -> dict[str, Any]:
    """What determines the records of a run by this plan; without an engine, what is known before there is one."""
    sampling = (plan.card.sampling if plan.card else None) or Sampling()
    known = {} if info is None else identity(info, plan.menu, sampling, plan.seed, judge.identity)
    return {
        **known,
        "menu": plan.menu.to_json(),
        "seed": plan.seed,
        **judge.identity,
        "allocators": list(plan.allocations),
        "cost": plan.allocation.cost.value,
        "total": plan.allocation.total,
        "queries": fingerprint([query_to_json(query) for query in plan.queries]),
        "plan": fingerprint({name: made.budget_Q.tolist() for name, made in plan.allocations.items()}),
    }


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
) -> AsyncIterator[Answer]:
    """Answers every query that has no record yet, once, under the largest of its budgets; as they are on disk.

    The trace under a small cap is the prefix of the trace under a large one, so an answer forced at each allocator's
    budget judges all of them on the same trace. An engine that schedules by priority starts with the shortest answers.
    With an adaptation, between two blocks of queries the budgets of those that have not begun may change. A pool lowers
    caps, or refuses questions, once little is left of its total.
    """
    parts, counted = blocks(queries) if adaptation else [list(queries)], _earlier_counts(run)
    _write_rows(run.path / "answers.jsonl", [row for row in answer_rows(run, queries) if row.error is None])
    for number, block in enumerate(parts):
        work = _generate(
            run,
            engine,
            block,
            counted,
            seed=seed,
            grader=grader,
            retry_failed=retry_failed,
            setup=setup,
            pool=pool,
        )
        async for answer in work:
            yield answer
        if adaptation is None:
            continue
        main, budgets_of = load_budgets(run)
        done = run.latest_records()
        rest = [query for part in parts[number + 1 :] for query in part if (query.id, 0) not in done]
        rows = answer_rows(run, queries)
        whole = [row for row in rows if row.budget == budgets_of[main][row.id]]  # others had what a pool had left
        used_of = {row.id: float(row.tokens) for row in whole if row.tokens is not None}
        adaptation.decide(number, block, rest, budgets_of[main], used_of)
    if adaptation is not None:
        adaptation.keep()


async def _generate(
    run: RunDirectory,
    engine: Engine,
    queries: Sequence[Query],
    counted: Mapping[str, Any],
    *,
    seed: int,
    grader: Grader,
    retry_failed: bool,
    setup: str,
    pool: Pool | None,
) -> AsyncIterator[Answer]:
    """Answers some of the queries; `counted` is what engines had counted before this one."""
    main, budgets_of = load_budgets(run)
    budgets = budgets_of.values()
    priority_of = load_priorities(run)
    tries = run.tries()
    requests = []
    for query in queries:
        if tries.is_left(query.id, 0, retry_failed=retry_failed, setup=setup):
            caps = sorted({budget_of[query.id] for budget_of in budgets})
            trace = trace_seed(seed, query.id, 0)
            requests.append(Request(query, caps[-1], 0, trace, tuple(caps[:-1]), priority_of[query.id]))
    known = {query.id: query for query in queries}
    answers = run.path / "answers.jsonl"
    with run.appender() as records, open_bytes(answers, "ab", "written") as rows:
        async for generation in pool.generate(engine, requests) if pool else engine.generate(requests):
            query = known[generation.query_id]
            record = graded_record(generation, query.reference, grader, setup=setup)
            records.append([record])
            _save_counts(run, counted, engine)
            answer = Answer.of(query, budgets_of[main][query.id], record)
            with reaching(answers, "written"):
                rows.write(f"{to_json(answer.to_json())}\n".encode())  # to be looked at; what lasts is the record
            yield answer
    _save_counts(run, counted, engine)


def answer_rows(run: RunDirectory, queries: Sequence[Query], allocator: str | None = None) -> list[Answer]:
    """The answers to the queries, in their order, under `allocator`'s budgets (default: the run's own).

    A query without a record yet is left out.
    """
    main, budgets_of = load_budgets(run)
    budget_of = budgets_of[allocator or main]
    records = run.latest_records()
    return [
        Answer.of(query, budget_of[query.id], records[query.id, 0]) for query in queries if (query.id, 0) in records
    ]


def write_answers(run: RunDirectory, queries: Sequence[Query]) -> Path:
    """Writes RUN/answers.jsonl, one line a query in their order; while they come, they stand there as they came."""
    path = run.path / "answers.jsonl"
    _write_rows(path, answer_rows(run, queries))
    return path


def _write_rows(path: Path, rows: Sequence[Answer]) -> None:
    Answers(tuple(rows)).save(path)


def summary(run: RunDirectory, queries: Sequence[Query]) -> dict[str, Any]:
    """Counts of a run (see `Answers.counts`), and what was sent and generated in all."""
    sent, generated = settle(run.latest_records().values(), is_two_calls=sends_twice(run.header["identity"]))
    return {
        **Answers(tuple(answer_rows(run, queries))).counts,
        "queries": len(queries),
        "prompt_tokens": sent,
        "generated_tokens": generated,
        "with_reference": sum(query.reference is not None for query in queries),
    }


def write_summary(run: RunDirectory, queries: Sequence[Query]) -> None:
    """Writes RUN/summary.json; `engine` in it holds what the engine counted, over all calls, killed ones included."""
    counted = _earlier_counts(run)
    usage = {"usage": _kept(run, read_plan(run))["usage"]}
    write_json(run.path / "summary.json", summary(run, queries) | usage | ({"engine": counted} if counted else {}))


def _earlier_counts(run: RunDirectory) -> dict[str, Any]:
    """What engines have counted in this run so far; nothing where no file of it can be read."""
    path = run.path / "counts.json"
    is_summary = not path.exists()  # a run that an older version began
    path = run.path / "summary.json" if is_summary else path
    if not path.exists():
        return {}
    try:
        found = read_json(path)
        counted = found.get("engine", {}) if is_summary else found
        problem = check_counts(counted)
    except (RunError, AttributeError):
        problem = "it is not an object"
    if problem:
        logger.warning("%s was damaged (%s): what the engine counted before is not in it any more", path, problem)
        return {}
    return dict(counted)


def _save_counts(run: RunDirectory, earlier: Mapping[str, Any], engine: Engine) -> None:
    """Keeps what has been counted, next to the records: a call that is killed has been paid for all the same.

    Not forced onto the disk, as records are: a kill loses nothing, and a power cut some counts, but no half file.
    """
    if isinstance(engine, CountingEngine):
        path = run.path / "counts.json"
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
    rows_of = {allocator: answer_rows(run, queries, allocator) for allocator in budgets_of}
    not_counted = {row.id for rows in rows_of.values() for row in rows if row.tokens is None}
    result = {}
    for allocator in budgets_of:
        rows = [row for row in rows_of[allocator] if row.grade is not None and row.id not in not_counted]
        result[allocator] = (
            np.array([row.grade is Grade.RIGHT for row in rows], dtype=np.float64),
            np.array([row.budget for row in rows], dtype=np.float64),
            np.array([row.tokens for row in rows], dtype=np.float64),
        )
    return result
