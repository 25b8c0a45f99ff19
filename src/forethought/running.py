"""Running a plan: budgeted generation, forced answers, and what other allocators would have got on the same traces."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .errors import RunError
from .planning import Forecast
from .profiling import Report, graded_record, trace_seed
from .protocols import CountingEngine, Engine, Grader
from .store import RunDirectory, generation_from_json, read_json, write_atomically, write_json
from .types import Grade, Plan, Query, Request, StopReason


def save_plans(run: RunDirectory, plans: Mapping[str, Plan], main: str, expected: Forecast) -> None:
    """Keeps the plans and the predicted curves with the run: a resumed run goes on under the same budgets."""
    curves = expected.curves
    familiarity = familiarity_rows(expected)
    predicted = {
        query_id: {
            "p": [round(float(p), 4) for p in curves.p_Q_B[row]],
            "tokens": None if curves.tokens_Q_B is None else [round(float(t), 1) for t in curves.tokens_Q_B[row]],
            **(familiarity[row] if familiarity else {}),
        }
        for row, query_id in enumerate(curves.query_ids)
    }
    content = {
        "main": main,
        "plans": {name: plan_to_json(plan) for name, plan in plans.items()},
        "feature_seconds": expected.feature_seconds,
        "predict_seconds": expected.predict_seconds,
        "familiarity": familiarity_summary(expected),
        "predicted": predicted,
    }
    write_json(run.path / "plan.json", content)


def familiarity_summary(expected: Forecast) -> dict[str, Any] | None:
    """How familiar the queries look, as one JSON object; None where that is not known."""
    judged = expected.judged
    if judged is None:
        return None
    return {
        "unlike": judged.num_unlike,
        "queries": judged.num_queries,
        "trained_on": judged.num_trained,
        "expected": judged.expected,
        "chance": judged.chance,
        "is_unlike": judged.is_unlike,
        "drawn": judged.num_drawn if expected.is_drawn else 0,
    }


def familiarity_rows(expected: Forecast) -> list[dict[str, float | None]]:
    """Each query's p-value, and how far its own prediction is trusted; empty where that is not known."""
    judged = expected.judged
    if judged is None:
        return []
    trust_Q = judged.weight_Q if expected.is_drawn else np.ones(len(judged.weight_Q))
    return [
        {"familiarity": round(float(p), 4) if np.isfinite(p) else None, "trust": round(float(trust), 4)}
        for p, trust in zip(judged.p_Q, trust_Q, strict=True)
    ]


def load_budgets(run: RunDirectory) -> tuple[str, dict[str, dict[str, int]]]:
    """`(main allocator, allocator -> query id -> budget)`; the answers are given under the main one's budgets.

    Raises:
        RunError: the run was stopped before it was planned.
    """
    if not (run.path / "plan.json").exists():
        raise RunError(f"{run.path} has no plan yet; start the same `forethought run` again to go on")
    content = read_json(run.path / "plan.json")
    return content["main"], {
        name: {row["id"]: row["budget"] for row in plan["budgets"]} for name, plan in content["plans"].items()
    }


def load_priorities(run: RunDirectory) -> dict[str, int]:
    """Query id -> tokens that its answer is expected to take under the largest of its budgets: short ones go first.

    Where the predictor knows nothing of spend, the budget itself.
    """
    content = read_json(run.path / "plan.json")
    main = content["plans"][content["main"]]
    budgets = [{row["id"]: row["budget"] for row in plan["budgets"]} for plan in content["plans"].values()]
    priorities = {}
    for query_id, predicted in content["predicted"].items():
        budget = max(budget_of[query_id] for budget_of in budgets)
        tokens = predicted["tokens"]
        priorities[query_id] = budget if tokens is None or budget == 0 else round(tokens[budget // main["window"] - 1])
    return priorities


def plan_to_json(plan: Plan) -> dict[str, Any]:
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
        "window": plan.grid.window,
        "maximum": plan.grid.maximum,
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
    report: Report,
) -> None:
    """Answers every query that has no record yet, once, under the largest of its budgets.

    The trace under a small cap is the prefix of the trace under a large one, so an answer forced at each allocator's
    budget judges all of them on the same trace. An engine that schedules by priority starts with the shortest answers.
    """
    main, budgets_of = load_budgets(run)
    budgets = budgets_of.values()
    priority_of = load_priorities(run)
    done = run.latest_records()
    requests = []
    for query in queries:
        record = done.get((query.id, 0))
        if record is None or (retry_failed and record["stop_reason"] == StopReason.ERROR.value):
            caps = sorted({budget_of[query.id] for budget_of in budgets})
            trace = trace_seed(seed, query.id, 0)
            requests.append(Request(query, caps[-1], 0, trace, tuple(caps[:-1]), priority_of[query.id]))
    known = {query.id: query for query in queries}
    with run.appender() as records:
        async for generation in engine.generate(requests):
            query = known[generation.query_id]
            record = graded_record(generation, query.reference, grader)
            records.append([record])
            report(_answer_row(query, budgets_of[main][query.id], record))


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
    row: dict[str, Any] = {"id": query.id, "budget": budget}
    if generation.stop_reason is StopReason.ERROR:
        return {**row, "answer": None, "error": generation.error}
    probe = next((probe for probe in record["probes"] if probe["budget"] == budget), None)
    used = probe if probe is not None else record
    reasoning_tokens = min(budget, generation.reasoning_tokens)
    ended = generation.stop_reason is StopReason.NATURAL and generation.reasoning_tokens <= budget
    row |= {
        "answer": used["answer"],
        "reasoning_tokens": reasoning_tokens,
        "tokens": generation.tokens_at(budget),
        "stop_reason": (StopReason.NATURAL if ended else StopReason.BUDGET).value,
    }
    return row if query.reference is None else {**row, "reference": query.reference, "grade": used["grade"]}


def write_answers(run: RunDirectory, queries: Sequence[Query]) -> Path:
    """Writes RUN/answers.jsonl, one line a query."""
    path = run.path / "answers.jsonl"
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in answer_rows(run, queries)]
    write_atomically(path, "".join(lines).encode())
    return path


def summary(run: RunDirectory, queries: Sequence[Query]) -> dict[str, Any]:
    """Counts of a run: queries, failed, tokens by kind, and the share right where references are known."""
    rows = answer_rows(run, queries)
    failed = [row["id"] for row in rows if row.get("error")]
    finished = [row for row in rows if not row.get("error")]
    graded = [row for row in finished if row.get("grade") is not None]
    return {
        "queries": len(queries),
        "answered": len(finished),
        "failed": len(failed),
        "failed_ids": failed[:20],
        "granted_tokens": sum(row["budget"] for row in finished),
        "reasoning_tokens": sum(row["reasoning_tokens"] for row in finished),
        "spent_tokens": sum(row["tokens"] for row in finished),
        "stopped_by_themselves": sum(row["stop_reason"] == StopReason.NATURAL.value for row in finished),
        "graded": len(graded),
        "right": sum(row["grade"] == Grade.RIGHT.value for row in graded),
        "unreadable": sum(row["grade"] == Grade.UNREADABLE.value for row in graded),
    }


def write_summary(run: RunDirectory, queries: Sequence[Query], engine: Engine | None = None, num_made: int = 0) -> None:
    """Writes RUN/summary.json.

    `generated` in it is counted from the records, so that no kill makes it too small. `engine` holds what only the
    engine can count, over the starts that came to their end, and `engine_records` how many records those starts made.

    Args:
        run: the run directory.
        queries: its queries.
        engine: what has just run; None where nothing did.
        num_made: records that it has made.
    """
    path = run.path / "summary.json"
    before = read_json(path) if path.exists() else {}
    counted, num_counted = before.get("engine", {}), before.get("engine_records", 0)
    if isinstance(engine, CountingEngine):
        counted, num_counted = added(counted, engine.counted()), num_counted + num_made
    told = {"engine": counted, "engine_records": num_counted} if counted else {}
    write_json(path, summary(run, queries) | {"generated": _generated(run)} | told)


def _generated(run: RunDirectory) -> dict[str, int]:
    """Records, and all tokens that they hold: whole thoughts, and the answers forced at every budget."""
    records = list(run.records())
    answers = [
        (record["suffix_tokens"] + each["answer_tokens"])
        for record in records
        for each in (record, *record["probes"])
        if record.get("error") is None
    ]
    return {
        "records": len(records),
        "thought_tokens": sum(record["reasoning_tokens"] for record in records),
        "answer_tokens": sum(answers),
    }


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
    """Allocator -> `(right_Q, granted_Q, spent_Q)` over the queries that are answered and graded."""
    _, budgets_of = load_budgets(run)
    result = {}
    for allocator in budgets_of:
        rows = [row for row in answer_rows(run, queries, allocator) if row.get("grade") is not None]
        result[allocator] = (
            np.array([row["grade"] == Grade.RIGHT.value for row in rows], dtype=np.float64),
            np.array([row["budget"] for row in rows], dtype=np.float64),
            np.array([row["tokens"] for row in rows], dtype=np.float64),
        )
    return result
