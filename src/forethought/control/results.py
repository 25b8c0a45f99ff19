"""The results of a run: answers, their counts, and the engine's counters, from the records of all workers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..core.codec import UnfitError, shown
from ..core.data import Grade, Query
from ..core.files import read_json, replacing, write_json
from ..core.records import Record
from ..core.visible import to_json
from ..errors import RunError
from ..runs.store import RunDirectory
from .adapting import kept
from .answers import Answer, counts_of
from .billing import bill
from .budgets import load_budgets, read_plan
from .counts import check_counts, counts_of_all
from .voting import Gathering

COUNTS = (
    *("queries", "answered", "failed", "granted_tokens", "not_counted", "reasoning_tokens", "spent_tokens"),
    *("stopped_by_themselves", "with_reference", "failed_with_reference", "graded", "right", "unreadable"),
    *("prompt_tokens", "generated_tokens"),
)


def line_of(answer: Answer) -> bytes:
    """One line of answers.jsonl."""
    return f"{to_json(answer.to_json())}\n".encode()


def answers_of(
    run: RunDirectory,
    known: Mapping[str, Query],
    budget_of: Mapping[str, int],
    seen: Callable[[Record], object] = id,
    gathering: Gathering | None = None,
) -> Iterator[Answer]:
    """The answers to known queries whose records are complete, as they lie on disk; each record is shown to `seen`.

    Of a query with traces under several named options it is the one by its budget's.
    """
    plan = read_plan(run)
    gathered = gathering or Gathering(known, budget_of, run.header.provenance, plan.voting, is_open=bool(plan.waves))
    for record in run.latest():
        seen(record)
        if (answer := gathered.add(record)) is not None:
            yield answer
    yield from gathered.rest()


def answer_rows(run: RunDirectory, queries: Sequence[Query], allocator: str | None = None) -> list[Answer]:
    """The answers to the queries, in their order, under `allocator`'s budgets (default: the run's own).

    A query without a record yet is left out.
    """
    main, budgets_of = load_budgets(run)
    known = {query.id: query for query in queries}
    found = {answer.id: answer for answer in answers_of(run, known, budgets_of[allocator or main])}
    return [found[query.id] for query in queries if query.id in found]


def summary(run: RunDirectory, queries: Sequence[Query], lines: list[bytes | None] | None = None) -> dict[str, Any]:
    """Counts of a run (see `counts_of`), and what was sent and generated in all; records are read once.

    Args:
        run: the run directory.
        queries: its queries.
        lines: takes the line of each query's answer, in their place.
    """
    main, budgets_of = load_budgets(run)
    row_of = {query.id: row for row, query in enumerate(queries)}
    made, paid, failed_rows = run.header.provenance, [0, 0], list[int]()
    bills: list[float] = []

    def pay(record: Record) -> None:
        sent, generated = record.billed(is_two_calls=made.sends_twice(record.option))
        paid[0] += sent
        paid[1] += generated
        bills.extend([] if (usd := bill(record, made)) is None else [usd])

    def each() -> Iterator[Answer]:
        for answer in answers_of(run, {query.id: query for query in queries}, budgets_of[main], pay):
            if answer.error is not None:
                failed_rows.append(row_of[answer.id])
            if lines is not None:
                lines[row_of[answer.id]] = line_of(answer)
            yield answer

    counts = counts_of(each())
    return {
        **counts,
        **({"usd_in_all": math.fsum(bills)} if len(budgets_of) > 1 and bills else {}),
        "failed_ids": [queries[row].id for row in sorted(failed_rows)[:20]],
        "queries": len(queries),
        "prompt_tokens": paid[0],
        "generated_tokens": paid[1],
        "with_reference": sum(query.reference is not None for query in queries),
    }


def write_results(run: RunDirectory, queries: Sequence[Query]) -> None:
    """Writes RUN/answers.jsonl, one line per query in order, and RUN/summary.json, from the records of all workers.

    `engine` in the summary holds what the engine counted, over all calls, killed ones included. The last worker to end
    writes what holds of all.
    """
    with run.turn():
        lines: list[bytes | None] = [None] * len(queries)
        found = summary(run, queries, lines)
        with replacing(run.path / "answers.jsonl") as file:
            file.writelines(line for line in lines if line is not None)
        counted = counts_of_all(run)
        plan = read_plan(run)
        usage = {"usage": kept(run, plan.menu, set(plan.allocation.query_ids)).usage}
        write_json(run.path / "summary.json", found | usage | ({"engine": counted} if counted else {}))


def read_summary(run: RunDirectory) -> dict[str, Any]:
    """What `write_results` wrote to RUN/summary.json; raises RunError where it is damaged."""
    path = run.path / "summary.json"
    found = read_json(path)
    try:
        if not isinstance(found, dict):
            raise UnfitError(f"must be an object, not {shown(found)}")
        usage = found.get("usage") or {"stretch": 1.0, "alarms": 0}
        check_counts({key: found.get(key) or 0.0 for key in ("usd", "usd_in_all")} | {**found.get("options", {})})
        numbers = {key: found.get(key) for key in COUNTS} | {key: usage.get(key) for key in ("stretch", "alarms")}
        if wrong := [key for key, value in numbers.items() if isinstance(value, dict)]:
            raise UnfitError("must be a number", wrong[0])
        check_counts(numbers)
        check_counts(found.get("engine", {}))
        if not all(isinstance(each, str) for each in found["failed_ids"]):
            raise UnfitError("must be ids", "failed_ids")
    except (UnfitError, KeyError, TypeError, AttributeError) as error:
        raise RunError(
            f"{path} is not the summary of a run: {error}. Give the same `forethought run` again to recreate it."
        ) from error
    return found


def outcomes(run: RunDirectory, queries: Sequence[Query]) -> dict[str, tuple[Any, Any, Any, Any]]:
    """Allocator -> `(right_Q, granted_Q, spent_Q, usd_Q)` over the queries that are answered, graded and counted.

    Of named options `granted_Q` is None; without prices `usd_Q` is.
    """
    _, budgets_of = load_budgets(run)
    made, known = run.header.provenance, {query.id: row for row, query in enumerate(queries)}
    rows: dict[int, dict[str, Answer]] = {}
    by_id, voting = {query.id: query for query in queries}, read_plan(run).voting
    gathered = {name: Gathering(by_id, budget_of, made, voting) for name, budget_of in budgets_of.items()}
    for record in run.latest():
        for name, each in gathered.items():
            if (answer := each.add(record)) is not None:
                rows.setdefault(known[answer.id], {})[name] = answer
    whole = [rows[row] for row in sorted(rows) if rows[row].keys() == budgets_of.keys()]
    usable = [row for row in whole if not any(e.grade is None or e.tokens is None for e in row.values())]
    is_named = made.menu is not None and made.menu.is_named
    is_billed = bool(usable) and all(each.usd is not None for row in usable for each in row.values())

    def column(name: str, what: Callable[[Answer], Any]) -> Any:
        return np.array([what(row[name]) for row in usable], dtype=np.float64)

    return {
        name: (
            column(name, lambda each: each.grade is Grade.RIGHT),
            None if is_named else column(name, lambda each: each.budget),
            column(name, lambda each: each.tokens),
            column(name, lambda each: each.usd) if is_billed else None,
        )
        for name in budgets_of
    }
