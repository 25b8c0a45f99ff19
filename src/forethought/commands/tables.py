"""Results as rows and as text for the terminal: plans, runs, single items."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..control import sources
from ..control.billing import bill
from ..control.forecast import Forecast
from ..control.plan import Plan
from ..core.data import Cost, Grade, StopReason
from ..core.problems import MAX_SHOWN, excerpt
from ..core.profile import Profile
from ..core.terms import percent, usd_words
from ..core.visible import one_line
from ..predictors.card import PredictorCard
from ..predictors.training import default_predictor
from ..predictors.usage import spent_within
from ..runs.importing import Imported
from ..runs.profiles import read_parquet
from ..runs.store import RunDirectory
from .grading import Regraded, Verdicts
from .overview import bill_text, changed
from .per_option import by_option, cap_lines


def plan_rows(planned: Plan) -> list[dict[str, Any]]:
    """One row per question: its budget, and of a named option its name, and what it is expected to give and to use."""
    curves, plan = planned.forecast.curves, planned.allocation
    usd_Q = curves.usd_at(plan.menu.columns(plan.budget_Q)) if curves.is_billable else None
    rows = []
    for row, (query_id, budget) in enumerate(zip(plan.query_ids, plan.budget_Q, strict=True)):
        column = plan.menu.index(int(budget))
        named = {"option": plan.menu.label(int(budget))} if plan.menu.is_named else {}
        tokens = None if curves.tokens_Q_B is None else round(float(curves.tokens_Q_B[row, column]), 1)
        p = round(float(curves.p_Q_B[row, column]), 4)
        found: dict[str, Any] = {"id": query_id, **named, "budget": int(budget)}
        if (samples := plan.menu.option(int(budget)).samples) > 1:
            found["samples"] = samples
        found |= {"expected_accuracy": p, "expected_tokens": tokens}
        if usd_Q is not None:
            found["expected_usd"] = float(f"{usd_Q[row]:.6g}")
        rows.append(found | planned.forecast.novelty_row(row))
    return rows


def plan_header(planned: Plan) -> dict[str, Any]:
    """The plan as a whole: what was asked, what it grants and expects."""
    plan = planned.allocation
    return {
        "allocator": plan.allocator,
        "cost": plan.cost.value,
        "queries": len(plan.query_ids),
        "samples": int(plan.menu.samples_B[plan.menu.columns(plan.budget_Q)].sum()),
        "total": plan.total,
        "granted": plan.granted,
        "expected_spent": plan.expected_spent,
        "expected_usd": plan.expected_usd,
        "spent_within": spent_within(planned.forecast.curves, plan.budget_Q),
        "expected_accuracy": plan.expected_accuracy,
        "price": plan.price,
        "novelty": planned.forecast.novelty,
        "notes": list(plan.notes),
    }


def plan_text(planned: Plan) -> str:
    """The plan as text: totals, then the number of questions at each budget or option."""
    plan, is_usd = planned.allocation, planned.allocation.cost is Cost.USD
    num_queries = len(plan.query_ids)
    spent = "unknown"
    if plan.expected_spent is not None:
        words = " tokens generated" * (plan.expected_usd is not None)
        spent = f"{plan.expected_spent:,.0f}{words} ({plan.expected_spent / num_queries:.1f} per question)"
    bill = "" if plan.expected_usd is None else f"{_usd_per_question(plan.expected_usd, num_queries)}, "
    each = f"({plan.total / num_queries:.1f} per question)"
    lines = [
        f"{num_queries} questions, {plan.allocator} under {plan.cost.value} cost",
        f"total      {_usd_per_question(plan.total, num_queries) if is_usd else f'{plan.total:,.0f} tokens {each}'}",
        f"granted    {plan.granted:,} ({plan.granted / num_queries:.1f} per question)",
        f"expected   {bill}{spent}{'' if bill else ' generated'}, accuracy {percent(plan.expected_accuracy)}",
    ]
    if plan.menu.is_named and plan.cost is not Cost.GRANTED:
        del lines[2]  # the usual tokens of an option are not a cap
    samples_Q = plan.menu.samples_B[plan.menu.columns(plan.budget_Q)]
    if (num_samples := int(samples_Q.sum())) > num_queries:
        several = f"{int((samples_Q > 1).sum()):,} questions are answered by a vote of several"
        most = "at most " if planned.waves else ""
        lines.append(f"samples    {most}{num_samples:,}: {several}")
    within = spent_within(planned.forecast.curves, plan.budget_Q)
    if within is not None and plan.cost is Cost.SPENT:
        lines.append(
            f"at most    {within:,.0f} generated in 95 of 100 runs, if predictions are right "
            f"({percent(within / plan.total, 0)} of the total); run --hard-total never exceeds the total"
        )
    if plan.price is not None:
        price, unit = (f"{plan.price:,.4g}", "USD") if is_usd else (f"{plan.price * 1000:.3f}", "thousand tokens")
        lines.append(f"price      {price} right answers per {unit} at the margin")
    lines.append(f"novelty    {_novelty_words(planned.forecast)}")
    if plan.menu.is_named:
        return "\n".join([*lines, *_option_lines(planned)])
    budgets, counts = np.unique(plan.budget_Q, return_counts=True)
    widest = counts.max()
    lines.append("budget  questions")
    lines += [
        f"{budget:6d}  {count:9d}  {'█' * max(1, round(40 * count / widest))}"
        for budget, count in zip(budgets, counts, strict=True)
    ]
    return "\n".join(lines)


def _usd_per_question(usd: float, num_queries: int) -> str:
    return f"{usd_words(usd)} ({usd_words(usd / num_queries)} per question)"


def _option_lines(planned: Plan) -> list[str]:
    """The number of questions at each option, with expected accuracy, tokens and price."""
    plan, curves = planned.allocation, planned.forecast.curves
    column_Q, row_Q = plan.menu.columns(plan.budget_Q), np.arange(len(planned))
    p_Q, tokens_Q = curves.p_Q_B[row_Q, column_Q], None
    if curves.tokens_Q_B is not None:
        tokens_Q = curves.tokens_Q_B[row_Q, column_Q]
    usd_Q = curves.usd_at(column_Q) if curves.is_billable else None
    labels = [one_line(label) for label in plan.menu.labels]
    width = max(map(len, ("option", *labels)))
    lines = [f"{'option':{width}}  questions  accuracy    tokens{'' if usd_Q is None else '  USD per question'}"]
    for column, label in enumerate(labels):
        is_its_Q = column_Q == column
        line = f"{label:{width}}  {is_its_Q.sum():9,d}"
        if is_its_Q.any():
            tokens = "unknown" if tokens_Q is None else f"{tokens_Q[is_its_Q].mean():,.1f}"
            line += f"  {percent(p_Q[is_its_Q].mean()):>8}  {tokens:>8}"
            line += "" if usd_Q is None else f"  {usd_words(float(usd_Q[is_its_Q].mean())):>16}"
        lines.append(line)
    return lines


def _novelty_words(expected: Forecast) -> str:
    judged = expected.judged
    if judged is None:
        return "not known: the predictor has no novelty score"
    return (
        f"{judged.num_novel} of {judged.num_queries} questions are novel to the predictor "
        f"({judged.expected:.0f} expected by chance)"
    )


PROFILE_FILES = ("profile.parquet", "records.jsonl", "hidden", "predictor", "evaluation")


def profile_summary(run: RunDirectory) -> dict[str, Any]:
    """The content of a profile run: counts, accuracy and mean tokens at every cap."""
    measured = sources.open_profile(str(run.path))
    made = run.header.provenance
    sent = generated = num_traces = 0
    failed: list[str] = []
    found, bills = Counter[str](), list[float]()
    for record in run.latest():
        if record.is_failed:
            failed.append(record.query_id)
            continue
        found.update(cut=record.stop_reason is StopReason.BUDGET, unreadable=record.grade is Grade.UNREADABLE)
        bills += [] if (usd := bill(record, made)) is None else [usd]
        own = record.billed(is_two_calls=made.sends_twice(record.option))
        num_traces, sent, generated = num_traces + 1, sent + own[0], generated + own[1]
    return {
        "run": str(run.path),
        "queries": measured.num_queries,
        "traces": num_traces,
        "failed": len(failed),
        "failed_ids": sorted(set(failed))[:20],
        "prompt_tokens": sent,
        "generated_tokens": generated,
        **({"usd_in_all": math.fsum(bills)} if bills else {}),
        "cut": found["cut"],
        "unreadable": found["unreadable"],
        "changed": changed(*run.shards(), run.path / "run.json"),
        "files": [str(file) for name in PROFILE_FILES if (file := run.path / name).exists()],
        "layers": list(measured.layers),
        **_measured_by(measured),
        **by_option(measured),
    }


def profile_file_summary(path: Path) -> dict[str, Any]:
    """The content of a profile file, with the keys of a run's."""
    measured = read_parquet(path, with_hidden=False)
    return {
        "run": str(path),
        "queries": measured.num_queries,
        "traces": int(measured.num_tried_Q.sum()),
        "changed": changed(path),
        "layers": list(measured.layers),
        **_measured_by(measured),
        **by_option(measured),
        "info": measured.provenance.to_json(),
    }


def _measured_by(measured: Profile) -> dict[str, Any]:
    """The model, engine, template and grader."""
    made = measured.provenance
    return {
        "model": made.model,
        "engine": made.engine,
        "server": made.server,
        "template": made.template,
        "grader": made.grader,
        "simulated": made.simulated,
    }


def profile_text(result: Mapping[str, Any]) -> str:
    """The same as text."""
    simulated = ", SIMULATED" if result["simulated"] else ""
    title = f"{result['queries']} questions, {result['traces']} traces{simulated}; {result['run']}"
    lines = [title, *_measured_lines(result), *cap_lines(result)]
    lines += [bill_text(result)] if "prompt_tokens" in result else []
    if "cut" in result:
        lines.append(
            f"{result['cut']:,} thoughts were cut at their largest cap, {result['unreadable']:,} answers unreadable"
        )
    if not any(result["accuracy"]):
        lines.append(
            "no answer was right at any cap, so there is nothing to learn yet: larger caps (--budgets), or another "
            "--template or --grader; see answers: forethought show RUN ID"
        )
    if result.get("failed"):
        lines.append(
            f"{result['failed']} traces failed ({', '.join(result['failed_ids'])}); see: forethought show RUN ID"
        )
    lines += ["files: " + ", ".join(map(one_line, files))] if (files := result.get("files")) else []
    lines.append(f"next: forethought train {result['run']}")
    return "\n".join(lines)


def _measured_lines(result: Mapping[str, Any]) -> list[str]:
    """The model, engine, template, grader and date, if known."""
    known = {
        "model": result["model"],
        "engine": " at ".join(each for each in (result["engine"], result["server"]) if each),
        "template": result["template"],
        "grader": result["grader"],
    }
    said = [f"{name} {one_line(value)}" for name, value in known.items() if value]
    return [", ".join([*said, result["changed"][:16].replace("T", " ")])]


def import_summary(imported: Imported, *, is_written: bool) -> dict[str, Any]:
    """What was imported: counts, accuracy and mean tokens at every budget, what was left out and why."""
    measured = imported.profile
    return {
        "profile": str(imported.path),
        "written": is_written,
        "shape": imported.shape,
        "columns": imported.columns,
        "rows": imported.num_rows,
        "queries": measured.num_queries,
        "traces": int(measured.num_tried_Q.sum()),
        **by_option(measured),
        "layers": list(measured.layers),
        "left_out": [each.to_json() for each in imported.left_out],
        "notes": list(imported.notes),
        "simulated": measured.provenance.simulated,
        "info": measured.provenance.to_json(),
    }


def import_text(imported: Imported, *, is_written: bool) -> str:
    """The same as text."""
    found = import_summary(imported, is_written=is_written)
    simulated = ", SIMULATED" if found["simulated"] else ""
    columns = ", ".join(f"{meaning} {name!r}" for meaning, name in found["columns"].items())
    lines = [
        f"{found['queries']:,} queries, {found['traces']:,} traces{simulated}, from {found['rows']:,} rows "
        f"of a {found['shape']} table",
        f"columns: {columns}",
        *cap_lines(found),
    ]
    lines += [str(each) for each in imported.left_out] or ["nothing was left out"]
    lines += [f"note: {note}" for note in found["notes"]]
    if not is_written:
        return "\n".join([*lines, f"dry run: {found['profile']} was not written"])
    return "\n".join([*lines, f"wrote {found['profile']}", *_train_lines(imported.profile, found["profile"])])


def _train_lines(measured: Profile, path: str) -> list[str]:
    """The next command: a history needs only ids, and is for questions that are asked again."""
    name, _ = default_predictor(measured)
    again = f"forethought train {path} --predictor history"
    if name == "mean":
        return [f"next: {again}"]
    if measured.layers:
        return [f"next: forethought train {path}"]
    return [f"next: {again}   (to ask these questions again; for new ones: forethought train {path})"]


def training_text(card: PredictorCard, folder: str | Path) -> str:
    """What was trained, on which data, and its cross-validated quality, as text."""
    layer = "no features" if card.features.layer is None else f"layer {card.features.layer}"
    lines = [
        f"{card.predictor} on {layer} of {one_line(card.model or 'an unknown model')}, "
        f"{card.data.num_queries:,} queries, {card.data.num_traces:,} traces"
        f"{', SIMULATED' if card.data.simulated else ''}"
    ]
    if (menu := card.menu).is_named:
        mean = card.mean_curves(("mean",))
        known = {"options": menu.labels, "budgets": menu.caps, "accuracy": card.mean_p_B, "tokens": card.mean_tokens_B}
        prices = [None if each.price is None else asdict(each.price) for each in menu.options]
        usd = mean.usd_Q_B[0].tolist() if mean.is_billable else None
        lines += cap_lines({**known, "usd": usd, "usd_per_million": prices})
    if (known_draws := card.history) is not None:
        lines.append(
            f"history: {known_draws.num_draws:,.0f} samples of {known_draws.num_queries:,} questions; the curve of "
            f"{known_draws.base} has the weight of {known_draws.strength:.2g} samples each. On questions without any:"
        )
    if (quality := card.calibration) is not None:
        lines.append(
            f"cross-validated: log loss {quality.log_loss:.4f} nats (mean curve {quality.mean_log_loss:.4f}), "
            f"Brier {quality.brier:.4f} ({quality.mean_brier:.4f}), calibration error {quality.calibration_error:.3f}"
        )
    if (shrinkage := card.shrinkage) is not None:
        usage = "" if shrinkage.usage is None else f", of usage predictions {percent(shrinkage.usage, 0)}"
        lines.append(f"weight of accuracy predictions {percent(shrinkage.accuracy, 0)}{usage} ({shrinkage.evidence})")
        if shrinkage.accuracy == 0.0:
            lines.append(
                "the features do not predict how accuracy curves differ from the mean curve: plans will be about as "
                "good as blind ones. More traces or questions may help: forethought profile"
            )
    total = "--mean-tokens N --cost spent" if card.menu.is_named else "--mean-tokens N"
    if card.menu.is_named and card.menu.is_priced:
        total = "--mean-usd USD"
    lines += [f"saved to {folder}", f"next: forethought plan {folder} QUESTIONS {total}"]
    return "\n".join(lines)


def verdicts_text(found: Verdicts) -> str:
    """The verdicts of a grader on a file, as text."""
    told = found.to_json()
    share = f" ({percent(told['right'] / told['graded'])})" if told["graded"] else ""
    lines = [
        f"{told['graded']:,} answers graded by {told['grader']}",
        f"right       {told['right']:,}{share}",
        f"wrong       {told['wrong']:,}",
        f"unreadable  {told['unreadable']:,}",
    ]
    if told["left_out"]:
        lines.append(f"left out    {told['left_out']:,} without a readable reference")
    shown = told["unreadable_rows"][:MAX_SHOWN]
    lines += [
        f"  {one_line(row['id'])}: {excerpt(row['answer'], 80)} (reference {excerpt(row['reference'], 40)})"
        for row in shown
    ]
    if len(told["unreadable_rows"]) > len(shown):
        lines.append(f"  … and {len(told['unreadable_rows']) - len(shown):,} more; --json or --out FILE has them all")
    return "\n".join(lines)


def regraded_text(found: Regraded) -> str:
    """The result of grading again, as text."""
    changes = [f"  {old} -> {new}: {count:,}" for (old, new), count in sorted(found.changes.items())]
    return "\n".join(
        [
            f"{found.run}: {found.num_changed:,} of {found.num_verdicts:,} verdicts changed"
            f"{'' if found.is_written else ' (dry run: nothing was written)'}",
            f"graded by {found.before} before, by {found.after} now; {found.num_references:,} references corrected",
            *changes,
        ]
    )
