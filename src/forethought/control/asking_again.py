"""The next round of a job of requests: what has no answer yet, planned again under what is left."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..core.codec import encode
from ..core.data import Cost, Query, Request
from ..core.files import write_json
from ..core.menu import Menu
from ..core.terms import HardCap
from ..runs.store import RunDirectory
from ..servers.retrying import Fitting
from .adapting import FILE, Decided, Decision
from .batches import Round, fitting, make_round, requests_of, samples_of, write_round
from .collecting import Job, State
from .forecast import Forecast
from .plan import Plan
from .planning import allocate


@dataclass(frozen=True, slots=True)
class Rest:
    """What of a job may still be asked.

    Attributes:
        budgets: query id -> the budget that it is asked with next; empty where nothing is.
        samples: query id -> the samples that are asked for.
        censored: ids of those that no larger budget can help.
        unpaid: ids of those that nothing of the plan's total is left for.
        kept_back: ids of those that the hard cap might not hold.
    """

    budgets: Mapping[str, int]
    samples: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    censored: tuple[str, ...] = ()
    unpaid: tuple[str, ...] = ()
    kept_back: tuple[str, ...] = ()


def taken(job: Job) -> float:
    """What the job's requests take of the plan's total, in its units; what is under way takes what was planned.

    What failed before it was run takes nothing, and neither does what was lost: the total is of what came back. A hard
    cap counts both at their most, see `Job.charged`.
    """
    plan, total, row_of = job.plan, 0.0, _rows(job)
    cost = plan.allocation.cost
    for each in job.rounds:
        bounds = job.bounds(each)
        for name, (query_id, sample) in each.names().items():
            settled = job.settled.get(name)
            planned = _planned(plan, row_of[query_id], each.asked[query_id])
            if settled is not None and (
                settled.state is State.LOST or (settled.state is State.FAILED and settled.tokens == 0)
            ):
                continue
            if settled is None or settled.tokens is None or cost is Cost.GRANTED:
                total += planned
            elif cost is Cost.SPENT:
                total += settled.tokens
            elif settled.prompt_tokens is None:
                total += planned
            else:
                total += bounds.usd(job.request(each, query_id, sample), settled.prompt_tokens, settled.tokens)
    return total


def _planned(plan: Plan, row: int, budget: int) -> float:
    """What one sample of the query in `row` is planned to take of the total under a budget."""
    costs_Q_B = plan.forecast.curves.costs_Q_B(plan.allocation.cost)
    whole = float(budget) if costs_Q_B is None else float(costs_Q_B[row, plan.menu.index(budget)])
    return whole / plan.menu.option(budget).samples


def rest_of(job: Job, hard_cap: HardCap | None) -> Rest:
    """Budgets for what has no answer and is not under way, under what is left of the total and of the hard cap.

    A question whose answer was cut with nothing to show gets a larger budget than it had, or none. One with some of the
    samples of its vote keeps its budget, and comes first: the others are asked again as far as there is room for them.
    """
    plan, states, row_of = job.plan, job.left(), _rows(job)
    menu, cost = plan.menu, plan.allocation.cost
    query_of, budget_of = {query.id: query for query in plan.queries}, job.budgets()
    first = job.rounds[-1]
    context, charged = first.server.context_tokens, sum(job.charged())
    left = plan.allocation.total - taken(job)
    requests, unpaid = list[Request](), list[str]()
    for query_id, samples in job.short().items():
        budget = budget_of[query_id]
        each = _planned(plan, row_of[query_id], budget)
        num_paid = min(len(samples), int(max(0.0, left) / (each * (1 + 1e-9)))) if each else len(samples)
        left -= each * num_paid
        requests += [plan.request(query_of[query_id], budget, sample, context) for sample in samples[:num_paid]]
        if num_paid < len(samples):
            unpaid.append(query_id)
    queries, censored, larger_of = list[Query](), list[str](), dict[str, list[int]]()
    last = {query_id: each.asked[query_id] for each in job.rounds for query_id in each.asked}
    for query_id, state in states.items():
        query = query_of[query_id]
        if state is State.CENSORED:
            larger = [cap for cap in menu.caps if _thinks_longer(menu, last[query_id], cap)]
            most = int(plan.terms.bounds([query], menu)[1][0])
            if not larger or larger[0] > most:
                censored.append(query_id)
                continue
            query, larger_of[query_id] = replace(query, min_budget=larger[0]), larger
        queries.append(query)
    rows = np.array([row_of[query.id] for query in queries], dtype=np.int64)
    unseen = np.isin(rows, plan.forecast.unseen_Q)
    curves = plan.forecast.curves.select(rows)
    for row, query in enumerate(queries):
        if query.id in larger_of:  # more samples that think no longer would be cut too
            curves.p_Q_B[row, ~np.isin(menu.budgets_B, larger_of[query.id])] = 0.0
    costs_Q_B = curves.costs_Q_B(cost)
    assert costs_Q_B is not None  # the plan was made by them
    least_Q, most_Q = plan.terms.bounds(queries, menu)
    least_Q[unseen] = most_Q[unseen] = menu.smallest
    is_allowed_Q_B = (menu.budgets_B >= least_Q[:, None]) & (menu.budgets_B <= most_Q[:, None])
    cheapest_Q = np.where(is_allowed_Q_B, costs_Q_B, np.inf).min(axis=1, initial=np.inf)
    asked, needed = list[int](), 0.0
    for row, query in enumerate(queries):
        if needed + cheapest_Q[row] * (1 + 1e-9) <= left:
            needed += cheapest_Q[row] * (1 + 1e-9)
            asked.append(row)
        else:
            unpaid.append(query.id)
    if asked:
        expected = Forecast(curves.select(np.array(asked)), np.flatnonzero(unseen[asked]))
        made = allocate(plan.terms, [queries[row] for row in asked], expected, left=left)
        budget_of |= dict(zip(made.query_ids, made.budget_Q.tolist(), strict=True))
        requests += requests_of(plan, [queries[row] for row in asked], budget_of, context)
    bounds = replace(job.bounds(first), cap=hard_cap)
    chosen, kept_back, _ = fitting(bounds, requests, (hard_cap.amount if hard_cap else 0.0) - charged)
    samples_of_asked = samples_of(chosen)
    return Rest(
        {query_id: budget_of[query_id] for query_id in samples_of_asked},
        samples_of_asked,
        tuple(censored),
        tuple(unpaid),
        tuple(kept_back),
    )


def _thinks_longer(menu: Menu, before: int, budget: int) -> bool:
    """Whether each sample under `budget` may think longer than one under `before`."""
    if not menu.is_named:
        return budget > before
    old, new = menu.option(before).single, menu.option(budget).single
    if None not in (old.cap, new.cap):
        return (new.cap or 0) > (old.cap or 0)
    return budget / menu.option(budget).samples > before / menu.option(before).samples


def write_again(job: Job, run: RunDirectory, rest: Rest, place: Path, hard_cap: HardCap | None) -> Round | None:
    """Writes the requests of the next round beside those of the first; None where there is nothing to ask."""
    if not rest.budgets:
        return None
    first, number = job.rounds[0], job.rounds[-1].number + 1
    asked = first.server
    stem = re.sub(r"(\.round\d+)?\.batch\.json$", "", place.name)
    while place.with_name(f"{stem}.round{number}.batch.json").exists():  # of another run directory, or of a killed call
        number += 1
    requests = place.with_name(f"{stem}.round{number}.jsonl")
    made = make_round(
        job.plan,
        replace(asked, logprobs=asked.logprobs and not _refuses_logprobs(job)),
        rest.budgets,
        requests=requests,
        out=str(run.path),
        first=first,
        number=number,
        most_lines=first.most_lines,
        hard_cap=hard_cap,
        prices=first.prices,
        kept_back=(*rest.kept_back, *rest.unpaid),
        samples=rest.samples,
    )
    made = write_round(made, job.plan, requests)
    job.add(run, [made])
    return made


def _refuses_logprobs(job: Job) -> bool:
    """Whether the server refused a request for the log-probabilities it asks for, which is said then."""
    reasons = [each.reason for each in job.settled.values() if each.state is State.FAILED]
    return any("logprobs" in each.lower() and Fitting().learn({"logprobs": True}, each) for each in reasons)


def keep_budgets(job: Job, run: RunDirectory) -> None:
    """Writes the budgets that answers were given under, and the tokens that were counted, for the run's results."""
    planned, changed = job.plan.budgets, job.budgets()
    changed = {query_id: budget for query_id, budget in changed.items() if budget != planned[query_id]}
    decisions = (Decision(False, {"stretch": 1.0, "alarms": 0}, changed),) if changed else ()
    write_json(run.path / FILE, encode(Decided(decisions, {"stretch": 1.0, "alarms": 0})))
    kept = [each for each in job.settled.values() if each.state is State.DONE]
    lost = [each for each in job.settled.values() if each.state is not State.DONE]
    counts = {
        "num_calls": len(job.settled),
        "trace_tokens": sum(each.tokens or 0 for each in kept),
        "discarded_tokens": sum(each.tokens or 0 for each in lost),
        "num_uncounted": sum(each.tokens is None for each in kept),
        "prompt_tokens": sum(each.prompt_tokens or 0 for each in job.settled.values()),
    }
    write_json(run.path / "counts.json", counts)


def _rows(job: Job) -> dict[str, int]:
    return {query_id: row for row, query_id in enumerate(job.plan.allocation.query_ids)}
