"""Running a plan: budgeted generation, forced answers, and what other allocators would have got on the same traces."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ..core.checks import check_counts, check_plan
from ..core.data import Allocation, Grade, Query, Request, StopReason
from ..core.files import open_bytes, reaching, read_json, write_atomically, write_json
from ..core.menu import Menu, with_menu
from ..core.protocols import CountingEngine, Engine, Grader
from ..core.visible import to_json
from ..errors import InvalidMenuError, RunError
from ..questions.queries import load_queries
from ..runs.store import RunDirectory, generation_from_json
from .adapting import Adaptation, blocks, kept
from .billing import sends_twice, settle
from .planning import Forecast
from .pool import Pool
from .profiling import Report, graded_record, trace_seed

logger = logging.getLogger(__name__)


def save_plans(run: RunDirectory, plans: Mapping[str, Allocation], main: str, expected: Forecast) -> None:
    """Keeps the plans and the predicted curves with the run: a resumed run goes on under the same budgets."""
    curves = expected.curves
    novelty = novelty_rows(expected)
    predicted = {
        query_id: {
            "p": [round(float(p), 4) for p in curves.p_Q_B[row]],
            "tokens": None if curves.tokens_Q_B is None else [round(float(t), 1) for t in curves.tokens_Q_B[row]],
            **(novelty[row] if novelty else {}),
        }
        for row, query_id in enumerate(curves.query_ids)
    }
    content = {
        "main": main,
        "plans": {name: plan_to_json(plan) for name, plan in plans.items()},
        "feature_seconds": expected.feature_seconds,
        "predict_seconds": expected.predict_seconds,
        "novelty": novelty_summary(expected),
        "unseen": [curves.query_ids[row] for row in expected.unseen_Q],
        "predicted": predicted,
    }
    write_json(run.path / "plan.json", content)


def novelty_summary(expected: Forecast) -> dict[str, Any] | None:
    """How many of the queries are novel to the predictor, as one JSON object; None where that is not known."""
    judged = expected.judged
    if judged is None:
        return None
    return {
        "novel": judged.num_novel,
        "queries": judged.num_queries,
        "expected": judged.expected,
        "chance": judged.chance,
        "is_novel": judged.is_novel,
    }


def novelty_rows(expected: Forecast) -> list[dict[str, float | None]]:
    """The p-value of each query's novelty, small for a novel one; empty where that is not known."""
    judged = expected.judged
    if judged is None:
        return []
    return [{"novelty_p": round(float(p), 4) if np.isfinite(p) else None} for p in judged.p_Q]


def read_plan(run: RunDirectory) -> dict[str, Any]:
    """RUN/plan.json, as `save_plans` wrote it.

    Raises:
        RunError: the run was stopped before it was planned, or the file is damaged.
    """
    path = run.path / "plan.json"
    if not path.exists():
        raise RunError(f"{run.path} has no plan yet; start the same `forethought run` again to go on")
    found: dict[str, Any] = _with_menus(read_json(path))
    if problem := check_plan(found, [query.id for query in load_queries(run.path / "queries.jsonl")]):
        raise RunError(
            f"{path} is not the plan of this run: {problem}. Copy the folder again; or delete the file, and the same "
            "`forethought run` plans anew and keeps the answers that are there."
        )
    return found


def _with_menus(found: Any) -> Any:
    """A plan file with each plan's menu where schema 2 has it; anything else is left to be refused."""
    if not isinstance(found, dict) or not isinstance(plans := found.get("plans"), dict):
        return found
    with suppress(InvalidMenuError):
        found["plans"] = {name: with_menu(plan) if isinstance(plan, dict) else plan for name, plan in plans.items()}
    return found


def load_budgets(run: RunDirectory) -> tuple[str, dict[str, dict[str, int]]]:
    """`(main allocator, allocator -> query id -> budget)`; the answers are given under the main one's budgets.

    Those are as planned, and then as what was decided while the run went on changed them.

    Raises:
        RunError: the run was stopped before it was planned, or its plan is damaged.
    """
    content = read_plan(run)
    budgets = {name: {row["id"]: row["budget"] for row in plan["budgets"]} for name, plan in content["plans"].items()}
    for decision in _kept(run, content)["decisions"]:
        budgets[content["main"]].update(decision["budgets"])
    return content["main"], budgets


def _kept(run: RunDirectory, content: Mapping[str, Any]) -> dict[str, Any]:
    """What was decided while the run went on; `content` is its plan."""
    main = content["plans"][content["main"]]
    return kept(run, Menu.from_json(main["menu"]), content["predicted"].keys())


def load_priorities(run: RunDirectory) -> dict[str, int]:
    """Query id -> tokens that its answer is expected to take under the largest of its budgets: short ones go first.

    Where the predictor knows nothing of spend, the budget itself.
    """
    content = read_plan(run)
    menu = Menu.from_json(content["plans"][content["main"]]["menu"])
    budgets = load_budgets(run)[1].values()
    priorities = {}
    for query_id, predicted in content["predicted"].items():
        budget = max(budget_of[query_id] for budget_of in budgets)
        tokens = predicted["tokens"]
        priorities[query_id] = budget if tokens is None or budget not in menu else round(tokens[menu.index(budget)])
    return priorities


def plan_to_json(plan: Allocation) -> dict[str, Any]:
    """A plan as one JSON object; `budgets` has one row a query."""
    return {
        "allocator": plan.allocator,
        "cost": plan.cost.value,
        "total": plan.total,
        "granted": plan.granted,
        "expected_spent": plan.expected_spent,
        "expected_accuracy": plan.expected_accuracy,
        "price": plan.price,
        "notes": list(plan.notes),
        "menu": plan.menu.to_json(),
        "budgets": [{"id": name, "budget": int(b)} for name, b in zip(plan.query_ids, plan.budget_Q, strict=True)],
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
    report: Report,
    adaptation: Adaptation,
) -> None:
    """Answers every query that has no record yet, once, under the largest of its budgets.

    The trace under a small cap is the prefix of the trace under a large one, so an answer forced at each allocator's
    budget judges all of them on the same trace. An engine that schedules by priority starts with the shortest answers.
    Between two blocks of queries the budgets of those that have not begun may change. A pool lowers caps, or refuses
    questions, once little is left of its total.
    """
    parts, counted = blocks(queries), _earlier_counts(run)
    _write_rows(run.path / "answers.jsonl", [row for row in answer_rows(run, queries) if not row.get("error")])
    for number, block in enumerate(parts):
        await _generate(
            run,
            engine,
            block,
            counted,
            seed=seed,
            grader=grader,
            retry_failed=retry_failed,
            setup=setup,
            pool=pool,
            report=report,
        )
        main, budgets_of = load_budgets(run)
        done = run.latest_records()
        rest = [query for part in parts[number + 1 :] for query in part if (query.id, 0) not in done]
        rows = answer_rows(run, queries)
        whole = [row for row in rows if row["budget"] == budgets_of[main][row["id"]]]  # others had what a pool had left
        used_of = {row["id"]: float(row["tokens"]) for row in whole if row.get("tokens") is not None}
        adaptation.decide(number, block, rest, budgets_of[main], used_of)
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
    report: Report,
) -> None:
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
            row = _answer_row(query, budgets_of[main][query.id], record)
            with reaching(answers, "written"):
                rows.write(f"{to_json(row)}\n".encode())  # to be looked at; what lasts is the record
            report(row)
    _save_counts(run, counted, engine)


def answer_rows(run: RunDirectory, queries: Sequence[Query], allocator: str | None = None) -> list[dict[str, Any]]:
    """One row a query, in their order: the answer under `allocator`'s budget (default: the run's own), and its grade.

    A query without a record yet is left out; one that failed has `error` and no answer.
    """
    main, budgets_of = load_budgets(run)
    budget_of = budgets_of[allocator or main]
    records = run.latest_records()
    return [
        _answer_row(query, budget_of[query.id], records[query.id, 0]) for query in queries if (query.id, 0) in records
    ]


def _answer_row(query: Query, budget: int, record: Mapping[str, Any]) -> dict[str, Any]:
    generation = generation_from_json(record)
    budget = min(budget, generation.budget)  # lower than planned where little was left of a hard total
    row: dict[str, Any] = {"id": query.id, "budget": budget}
    if (outcome := generation.at(budget)) is None:
        return {**row, "answer": None, "error": generation.error}
    probe = next((probe for probe in record["probes"] if probe["budget"] == budget), None)
    used = probe if probe is not None else record
    length = generation.reasoning_tokens  # None: not counted, and what the answer used is not known
    ended = generation.stop_reason is StopReason.NATURAL and (length is None or length <= budget)
    row |= {
        "answer": used["answer"],
        "reasoning_tokens": None if length is None else min(budget, length),
        "tokens": outcome.tokens,
        "stop_reason": (StopReason.NATURAL if ended else StopReason.BUDGET).value,
    }
    return row if query.reference is None else {**row, "reference": query.reference, "grade": used.get("grade")}


def write_answers(run: RunDirectory, queries: Sequence[Query]) -> Path:
    """Writes RUN/answers.jsonl, one line a query in their order; while they come, they stand there as they came."""
    path = run.path / "answers.jsonl"
    _write_rows(path, answer_rows(run, queries))
    return path


def _write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    write_atomically(path, "".join(f"{to_json(row)}\n" for row in rows).encode())


def summary(run: RunDirectory, queries: Sequence[Query]) -> dict[str, Any]:
    """Counts of a run: queries, failed, tokens by kind, and how many are right of those with a reference.

    Tokens are those of the answers that were counted; `not_counted` is how many were not. What failed is not right:
    `right` is to be held against `with_reference`, not against what came back.
    """
    rows = answer_rows(run, queries)
    known = {query.id for query in queries if query.reference is not None}
    sent, generated = settle(run.latest_records().values(), is_two_calls=sends_twice(run.header["identity"]))
    failed = [row["id"] for row in rows if row.get("error")]
    finished = [row for row in rows if not row.get("error")]
    graded = [row for row in finished if row.get("grade") is not None]
    counted = [row for row in finished if row["tokens"] is not None]
    return {
        "queries": len(queries),
        "answered": len(finished),
        "failed": len(failed),
        "failed_ids": failed[:20],
        "granted_tokens": sum(row["budget"] for row in finished),
        "not_counted": len(finished) - len(counted),
        "reasoning_tokens": sum(row["reasoning_tokens"] for row in counted),
        "spent_tokens": sum(row["tokens"] for row in counted),
        "stopped_by_themselves": sum(row["stop_reason"] == StopReason.NATURAL.value for row in finished),
        "prompt_tokens": sent,
        "generated_tokens": generated,
        "with_reference": len(known),
        "failed_with_reference": sum(row["id"] in known for row in rows if row.get("error")),
        "graded": len(graded),
        "right": sum(row["grade"] == Grade.RIGHT.value for row in graded),
        "unreadable": sum(row["grade"] == Grade.UNREADABLE.value for row in graded),
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
    not_counted = {row["id"] for rows in rows_of.values() for row in rows if row.get("tokens") is None}
    result = {}
    for allocator in budgets_of:
        rows = [row for row in rows_of[allocator] if row.get("grade") is not None and row["id"] not in not_counted]
        result[allocator] = (
            np.array([row["grade"] == Grade.RIGHT.value for row in rows], dtype=np.float64),
            np.array([row["budget"] for row in rows], dtype=np.float64),
            np.array([row["tokens"] for row in rows], dtype=np.float64),
        )
    return result
