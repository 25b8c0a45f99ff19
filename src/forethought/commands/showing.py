"""The output of `show`: a run as a whole, or one question of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..control import sources
from ..control.budgets import load_budgets, read_plan
from ..control.judging import Judge
from ..control.plan import Plan
from ..control.results import answer_rows
from ..core.data import Query
from ..core.registry import unknown_name_message
from ..core.terms import percent
from ..core.visible import one_line
from ..core.votes import ABSTAINS
from ..errors import RunError, UnknownNameError
from ..graders import group_answers
from ..predictors.bundle import is_predictor
from ..predictors.card import PredictorCard
from ..report.pages import aligned
from ..runs.journal import JournalHeader, is_journal, journal_counts
from ..runs.lines import read_lines
from ..runs.profiles import is_profile_file
from ..runs.store import RunDirectory
from .listing import REPORTS
from .overview import overview_text, run_overview
from .tables import profile_file_summary, profile_summary, profile_text, training_text

WIDEST = 32  # caps that have a bar and a count each


def show(source: str, query_id: str = "") -> dict[str, Any]:
    """A profile, a run or a predictor as a whole, or everything a run knows of one question.

    Raises:
        UnknownNameError: no such question; suggests the nearest id.
    """
    if query_id:
        return item(source, query_id)
    if is_profile_file(path := Path(source), is_refused=True):
        return profile_file_summary(path)
    if is_journal(path):
        JournalHeader.read(path)  # which is refused where it is damaged
        return {"run": source, "kind": "journal", **journal_counts(path)}
    if not (path / "run.json").is_file():
        if is_predictor(source):
            return {"kind": "predictor", "folder": source, "card": sources.open_predictor(source).card.to_json()}
        if report := next((path / name for name in ("report.html", *REPORTS) if (path / name).is_file()), None):
            raise RunError(f"{source} holds a report, not a run: read {report}")
    run = sources.open_run(source)
    kind = run.header.kind
    if kind == "profile":
        return profile_summary(run)
    if kind == "run":
        return run_overview(run)
    return {
        "run": str(run.path),
        "kind": kind,
        "records": sum(1 for shard in run.shards() for _ in read_lines(shard, id)),
    }


def shown_text(found: Mapping[str, Any]) -> str:
    """The output of `show` as text."""
    if "traces" in found and isinstance(found["traces"], list):
        return item_text(found)
    if "budgets" in found:
        return profile_text(found)
    if found["kind"] == "predictor":
        return training_text(PredictorCard.from_json(found["card"]), found["folder"])
    return overview_text(found) if "plan" in found else "\n".join(f"{key:12} {value}" for key, value in found.items())


def item(source: str, query_id: str) -> dict[str, Any]:
    """Everything a run knows of one question.

    Raises:
        UnknownNameError: no such question; suggests the nearest id.
    """
    run = sources.open_run(source)
    queries = {query.id: query for query in sources.run_queries(run)}
    if query_id not in queries:
        raise UnknownNameError(unknown_name_message("question", query_id, queries))
    query = queries[query_id]
    records = [record for record in run.latest() if record.query_id == query_id]
    found = {
        "id": query_id,
        "question": query.text,
        "reference": query.reference,
        "simulated": run.header.provenance.simulated,
    }
    return {
        **found,
        **(_planned_item(run, query) if run.header.kind == "run" else _profiled_item(run, query)),
        "traces": [record.to_json() for record in sorted(records, key=lambda each: each.sample)],
    }


def _planned_item(run: RunDirectory, query: Query) -> dict[str, Any]:
    main, budgets = load_budgets(run)
    plan = read_plan(run)
    menu, named = plan.allocation.menu, plan.allocation.menu.is_named
    predicted = plan.forecast.row(plan.allocation.query_ids.index(query.id))
    answers = answer_rows(run, [query])
    return {
        "budgets": {name: budget_of[query.id] for name, budget_of in budgets.items()},
        **({"options": {n: menu.label(budget_of[query.id]) for n, budget_of in budgets.items()}} if named else {}),
        **({"labels": list(menu.labels)} if named else {}),
        "allocator": main,
        "predicted": predicted,
        **_votes(run, plan, query, budgets[main][query.id]),
        "result": answers[0].to_json() if answers else None,
    }


def _votes(run: RunDirectory, plan: Plan, query: Query, budget: int) -> dict[str, Any]:
    """The answers of the samples that vote, as many at a time as are the same; nothing of a single sample."""
    option, made = plan.menu.option(budget), run.header.provenance
    if option.samples == 1:
        return {}
    records = [each for each in run.latest() if (each.query_id, each.option) == (query.id, option.single.label)]
    came = {each.sample: it for each in records if (it := each.at(each.budget)) and each.sample < option.samples}
    outcomes = [came[sample] for sample in sorted(came)]
    groups = group_answers([each.answer for each in outcomes], Judge.of_provenance(made).grader)
    weights = plan.voting.weights_of([each.logprobs for each in outcomes]) or [1.0] * len(outcomes)
    found: dict[int, dict[str, Any]] = {}
    for sample, outcome, group, weight in zip(sorted(came), outcomes, groups, weights, strict=True):
        grade = None if outcome.grade is None else outcome.grade.value
        own = found.setdefault(group, {"answer": outcome.answer, "samples": [], "votes": 0.0, "grade": grade})
        own["samples"].append(sample)
        own["votes"] = round(own["votes"] + (weight if group != ABSTAINS else 0.0), 4)
    votes = sorted(found.values(), key=lambda each: -each["votes"])
    asked = {each.sample for each in records} if plan.waves else set(range(option.samples))
    return {"votes": votes, "without_vote": sorted(asked - set(came))}


def _profiled_item(run: RunDirectory, query: Query) -> dict[str, Any]:
    try:
        measured = sources.open_profile(str(run.path))
    except RunError:
        return {"measured": None}
    if query.id not in measured.query_ids:
        return {"measured": None}
    row, menu = measured.query_ids.index(query.id), measured.menu
    named = {"options": list(menu.labels), "tries": measured.tries_Q_B[row].tolist()} if menu.is_named else {}
    return {
        "measured": {
            **named,
            "budgets": menu.budgets_B.tolist(),
            "num_right": measured.num_right_Q_B[row].tolist(),
            "num_tried": int(measured.num_tried_Q[row]),
            "tokens": [round(float(tokens), 1) for tokens in measured.tokens_Q_B[row]],
        }
    }


def item_text(found: Mapping[str, Any]) -> str:
    """One question as text."""
    lines = [f"{found['id']}{'  (simulated)' if found['simulated'] else ''}", found["question"], ""]
    if found["reference"] is not None:
        lines.append(f"reference   {one_line(found['reference'])}")
    if result := found.get("result"):
        lines += [
            f"{key.replace('_', ' '):11} {one_line(value)}"
            for key, value in result.items()
            if key not in ("id", "reference")
        ]
    lines += _vote_lines(found)
    if given := found.get("options") or found.get("budgets"):
        word = "options" if "options" in found else "budgets"
        lines.append(f"{word}     " + ", ".join(f"{name} {one_line(budget)}" for name, budget in given.items()))
    if predicted := found.get("predicted"):
        if labels := found.get("labels"):
            shares = zip(labels, predicted["p"], strict=True)
            lines += ["predicted accuracy  " + ", ".join(f"{one_line(label)} {percent(p, 0)}" for label, p in shares)]
        else:
            lines += ["predicted accuracy by cap", _sparkline(predicted["p"])]
    if (measured := found.get("measured")) and "options" in measured:
        each = zip(measured["options"], measured["num_right"], measured["tries"], measured["tokens"], strict=True)
        rows = [["option", "right", "mean tokens"]]
        rows += [[label, f"{right} of {tries}", f"{tokens:,.1f}"] for label, right, tries, tokens in each]
        lines += aligned(rows)
    elif measured:
        share = [right / measured["num_tried"] for right in measured["num_right"]]
        lines += [f"measured success by cap ({measured['num_tried']} traces)", _sparkline(share)]
        counts = list(zip(measured["budgets"], measured["num_right"], strict=True))
        if is_wide := len(counts) > WIDEST:
            counts = [each for at, each in enumerate(counts) if at == 0 or each[1] != counts[at - 1][1]]
        lines.append("  ".join(f"{budget}:{right}" for budget, right in counts) + is_wide * "  (where it changes)")
    for trace in found["traces"]:
        tokens = "not counted" if trace["reasoning_tokens"] is None else f"{trace['reasoning_tokens']} reasoning tokens"
        by = f" by {one_line(trace['option'])}" if trace.get("option") else ""
        head = f"— trace {trace['sample']}{by}: {tokens}, {trace['stop_reason']}"
        if trace["error"]:
            lines += ["", f"{head}: {one_line(trace['error'])}"]
            continue
        lines += ["", f"{head}, answer {trace['answer']!r} ({trace['grade'] or 'not graded'})", trace["reasoning"]]
    return "\n".join(lines)


def _vote_lines(found: Mapping[str, Any]) -> list[str]:
    """Which samples voted for what."""
    if "votes" not in found:
        return []
    rows = [["votes", "samples", "answer", ""]]
    for each in found["votes"]:
        numbers = ", ".join(map(str, each["samples"]))
        rows.append([f"{each['votes']:g}", numbers, one_line(repr(each["answer"])), each["grade"] or "not graded"])
    if missing := found["without_vote"]:
        rows.append(["0", ", ".join(map(str, missing)), "failed, or not there yet", ""])
    return aligned(rows)


def _sparkline(values: Sequence[float]) -> str:
    blocks = "▁▂▃▄▅▆▇█"
    some = values if len(values) <= WIDEST else [values[len(values) * at // WIDEST] for at in range(WIDEST)]
    return "".join(blocks[min(len(blocks) - 1, int(value * len(blocks)))] for value in some) + (
        f"   {percent(min(values), 0)} to {percent(max(values), 0)}"
    )
