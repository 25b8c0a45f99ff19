"""The result of a run: a few lines at its end, and one page for `show`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from ..control import sources
from ..control.answers import Answers, abstained_words
from ..control.budgets import load_budgets, read_plan
from ..control.plan import Plan
from ..control.results import answer_rows, read_summary, summary
from ..control.voting import is_short
from ..core.codec import UnfitError, decode
from ..core.data import Cost, Grade, StopReason
from ..core.flags import typed
from ..core.settings import ClusterSettings, EngineSettings, PlanSettings, RunSettings
from ..core.terms import percent, usd_words
from ..core.visible import one_line
from ..errors import InvalidSettingsError, RunError
from ..evaluation.live import accuracy_of
from ..evaluation.results import Estimate
from ..predictors.card import PredictorCard
from ..report.pages import aligned
from ..report.wording import amount, share_right
from ..runs.store import RunDirectory

MOST_LISTED = 24  # budgets given, one per line
WIDTH = 12  # of the names at the left


def run_result(run: RunDirectory) -> dict[str, Any]:
    """A finished run's summary, where its answers are, and the allocators that it was planned by."""
    return {
        **read_summary(run),
        "run": str(run.path),
        "answers": str(run.path / "answers.jsonl"),
        "allocators": list(load_budgets(run)[1]),
    }


def not_run(run: RunDirectory) -> list[str]:
    """Ids of the questions that a hard cap kept back."""
    return [each.id for each in Answers.load(run.path) if (each.error or "").startswith("the hard cap of ")]


def by_fewer_samples(run: RunDirectory) -> list[str]:
    """Ids of the questions whose answer is the vote of fewer samples than their option has: the others failed."""
    plan = read_plan(run)
    if plan.waves:
        return []
    return [each.id for each in Answers.load(run.path) if is_short(each, plan.menu)]


def run_overview(run: RunDirectory) -> dict[str, Any]:
    """A run as a whole, finished or not: model, questions, plan, results and files."""
    plan, queries, made = read_plan(run), sources.run_queries(run), run.header.provenance
    is_finished = (run.path / "summary.json").is_file()
    counts = read_summary(run) if is_finished else summary(run, queries)
    answers = answer_rows(run, queries)
    main, budgets_of = load_budgets(run, plan)
    judged = [each.grade is Grade.RIGHT for each in answers if each.reference is not None]
    own, menu = plan.allocation, plan.menu
    files = ["report.html", "answers.jsonl", "plan.json", "summary.json", "records.jsonl", "usage.json"]
    return {
        **counts,
        "run": str(run.path),
        "kind": "run",
        "is_finished": is_finished,
        "changed": changed(*run.shards(), run.path / "run.json"),
        "model": made.model,
        "engine_name": made.engine,
        "server": made.server,
        "template": made.template,
        "simulated": made.simulated,
        "predictor": None if plan.card is None else predictor_words(plan.card),
        "predictor_source": (run.header.settings.get("plan") or {}).get("run"),
        "menu": str(menu),
        "grader": made.grader,
        "plan": {
            "allocator": main,
            "cost": own.cost.value,
            "total": own.total,
            "granted": None if menu.is_named else own.granted,
            "expected_spent": own.expected_spent,
            "expected_usd": own.expected_usd,
            "expected_accuracy": own.expected_accuracy,
        },
        "given": {menu.label(budget): n for budget, n in sorted(Counter(budgets_of[main].values()).items())},
        "accuracy": asdict(accuracy_of(np.array(judged, dtype=np.float64))) if judged else None,
        "cut": sum(each.stop_reason is StopReason.BUDGET for each in answers if each.error is None),
        "allocators": list(budgets_of),
        "answers": str(run.path / "answers.jsonl"),
        "files": [str(run.path / name) for name in files if (run.path / name).is_file()],
        "next": _next(run, plan, is_finished=is_finished, has_grades=bool(counts["graded"]), counts=counts),
    }


def _next(run: RunDirectory, plan: Plan, *, is_finished: bool, has_grades: bool, counts: Mapping[str, Any]) -> str:
    """The next command."""
    if not is_finished or counts["failed"]:
        return again(run)
    if plan.others and has_grades:
        return f"forethought evaluate {run.path}"
    return f"forethought show {run.path} {plan.queries[0].id}"


def again(run: RunDirectory, **changed: Any) -> str:
    """The command that made a run, which resumes it; with the settings of `run` that are changed."""
    settings = run.header.settings
    if batch := settings.get("batch"):
        return f"forethought collect RESULTS.jsonl --batch {batch} --out {run.path}"
    if not settings.get("plan"):  # by a plan file, which is not kept
        return f"forethought run --plan {run.path / 'plan.json'} --out {run.path}"
    classes = (RunSettings, PlanSettings, EngineSettings, ClusterSettings)
    try:
        asked = decode(RunSettings, {**settings, "out": str(run.path), **changed}, lenient=classes)
    except (UnfitError, InvalidSettingsError) as error:
        raise RunError(f"{run.path / 'run.json'} does not say by which settings it was run: {error}") from error
    return typed("forethought run", asked)


def predictor_words(card: PredictorCard) -> str:
    """What a predictor is and learned from."""
    layer = "" if card.features.layer is None else f" on layer {card.features.layer}"
    learned = f"{card.data.num_queries:,} questions of {card.data.name}"
    return f"{card.predictor}{layer}, trained on {learned}, {card.created[:10]}"


def changed(*files: Path) -> str:
    """The latest modification time of the files, in local time."""
    latest = max(file.stat().st_mtime for file in files if file.exists())
    return datetime.fromtimestamp(latest).astimezone().isoformat(timespec="milliseconds")


def overview_text(found: Mapping[str, Any]) -> str:
    """The page of `run_overview`, as text."""
    plan, cost = found["plan"], Cost(found["plan"]["cost"])
    total = found["queries"]
    at = found["changed"][:16].replace("T", " ")
    done = "finished" if found["is_finished"] else f"stopped at {found['answered'] + found['failed']:,} of {total:,}"
    by = " at ".join(each for each in (found["engine_name"], found["server"]) if each)
    rows = {
        "run": f"{found['run']}, {at}, {done}{', SIMULATED' if found['simulated'] else ''}",
        "model": f"{found['model'] or 'unknown'} (engine {by}, template {found['template'] or 'unknown'})",
        "predictor": found["predictor"] or "unknown (a run of an earlier version)",
        "menu": found["menu"],
        "questions": _questions_words(found),
        "right": _right_words(found),
    }
    lines = [f"{name:{WIDTH}}{one_line(words)}" for name, words in rows.items()]
    word = "option" if plan["granted"] is None else "budget"
    lines += ["", *_cost_lines(found, plan, cost), "", *_given_lines(found["given"], word), ""]
    lines.append(bill_text(found))
    if (usage := found.get("usage")) and usage["alarms"]:
        lines.append(_usage_words(usage))
    if words := abstained_words(found):
        lines.append(words)
    if counts := counts_text(found.get("engine", {})):
        lines.append(f"the engine counted {counts}")
    if found["failed"]:
        lines.append(f"failed: {', '.join(map(one_line, found['failed_ids']))}; forethought show {found['run']} ID")
    lines += ["files: " + ", ".join(one_line(file) for file in found["files"]), f"next: {one_line(found['next'])}"]
    return "\n".join(lines)


def _questions_words(found: Mapping[str, Any]) -> str:
    """How many questions there are, and what came of their thoughts."""
    ended, cut = found["stopped_by_themselves"], found["cut"]
    words = (
        f"{found['queries']:,}: {found['answered']:,} answered ({ended:,} thoughts ended by themselves, {cut:,} were"
    )
    words += f" cut), {found['failed']:,} failed, {found['unreadable']:,} unreadable"
    return words + (f", {found['not_counted']:,} not counted" if found["not_counted"] else "")


def _right_words(found: Mapping[str, Any]) -> str:
    """The accuracy where references are known, beside what was expected."""
    expected = f"{percent(found['plan']['expected_accuracy'])} expected"
    if (accuracy := found["accuracy"]) is None:
        return f"not known: no reference answers ({expected})"
    share = share_right(Estimate(**accuracy))
    return f"{share} of {found['with_reference']:,} with a reference, by grader {found['grader']} ({expected})"


def _cost_lines(found: Mapping[str, Any], plan: Mapping[str, Any], cost: Cost) -> list[str]:
    """What was planned against what was used, in both costs and, where there are prices, in USD."""
    num = max(1, found["queries"])
    answered = max(1, found["answered"])
    rows = [["", "planned", "used", "planned per question", "used per question"]]
    if plan["granted"] is not None:
        used = found["granted_tokens"]
        rows.append(["tokens granted", f"{plan['granted']:,}", f"{used:,}", f"{plan['granted'] / num:,.1f}"])
        rows[-1].append(f"{used / answered:,.1f}")
    spent, used = plan["expected_spent"], found["spent_tokens"]
    rows.append(["tokens generated", "unknown" if spent is None else f"{spent:,.0f}", f"{used:,}"])
    rows[-1] += ["unknown" if spent is None else f"{spent / num:,.1f}", f"{used / answered:,.1f}"]
    if (usd := found.get("usd")) is not None or plan["expected_usd"] is not None:
        cells = [None if each is None else float(each) for each in (plan["expected_usd"], usd)]
        each = [None if cell is None else cell / by for cell, by in zip(cells, (num, answered), strict=True)]
        rows.append(["USD", *("unknown" if cell is None else amount(cell, Cost.USD) for cell in [*cells, *each])])
    asked = f"{plan['allocator']}, {cost.value} cost, a total of "
    asked += usd_words(plan["total"]) if cost is Cost.USD else f"{plan['total']:,.0f} tokens"
    return [f"{'plan':{WIDTH}}{asked}", *aligned(rows)]


def _given_lines(given: Mapping[str, int], word: str) -> list[str]:
    """How many questions got which budget or option."""
    shown = list(given.items())[:MOST_LISTED]
    most, width = max(given.values(), default=1), max(map(len, (word, *map(one_line, given))))
    lines = [f"{word:>{width}}  questions"]
    lines += [f"{one_line(name):>{width}}  {num:9,d}  {'█' * max(1, round(40 * num / most))}" for name, num in shown]
    return lines + ([f"and {len(given) - len(shown)} more; --json has them all"] if len(given) > len(shown) else [])


def _usage_words(usage: Mapping[str, Any]) -> str:
    return (
        f"answers used other numbers of tokens than predicted: curves stretched by {usage['stretch']:.2f} while it ran "
        "(usage.json in the run)"
    )


def run_text(result: Mapping[str, Any]) -> str:
    """A finished run as a few lines of text."""
    right = ""
    if total := result["with_reference"]:
        failed = f", {result['failed_with_reference']} of them failed" if result["failed_with_reference"] else ""
        right = f", {result['right']} of {total} right ({percent(result['right'] / total)}{failed})"
    granted = f"granted {result['granted_tokens']:,} reasoning tokens, used"
    if options := result.get("options"):
        granted = f"{', '.join(f'{count:,} by {one_line(label)}' for label, count in options.items())}; "
        granted += f"{result['samples']:,} samples in all; thoughts took" if "samples" in result else "thoughts took"
    lines = [
        f"{result['answered']} of {result['queries']} questions answered{right}",
        f"{granted} {result['reasoning_tokens']:,}; "
        f"generated {result['spent_tokens']:,} with the answers{_not_counted(result)}",
        bill_text(result),
        f"{result['stopped_by_themselves']} thoughts ended by themselves, {result['unreadable']} answers unreadable",
        f"answers: {result['answers']}",
    ]
    if words := abstained_words(result):
        lines.insert(1, words)
    if (usage := result.get("usage")) and usage["alarms"]:
        lines.insert(-1, _usage_words(usage))
    if counts := counts_text(result.get("engine", {})):
        lines.insert(-1, f"the engine counted {counts}")
    if result["failed"]:
        lines.append(
            f"{result['failed']} failed ({', '.join(result['failed_ids'])}); see: forethought show {result['run']} ID"
        )
    return "\n".join(lines)


def bill_text(result: Mapping[str, Any]) -> str:
    """Tokens sent and generated, in the units of the estimate before the run."""
    usd = result["usd_in_all"] if "usd_in_all" in result else result.get("usd")
    price = "" if usd is None else f", {usd:,.2f} USD" if usd >= 1.0 or not usd else f", {usd:,.4g} USD"
    sent, generated = result["prompt_tokens"], result["generated_tokens"]
    rate = result.get("tokens_per_second")
    shown = "" if rate is None else f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
    speed = f"; now {shown} generated per second (for --tokens-per-second)" if shown else ""
    return f"in all, {sent:,} tokens of prompts sent and {generated:,} generated{price}{speed}"


def _not_counted(result: Mapping[str, Any]) -> str:
    """The answers whose tokens are not in a run's summary."""
    number = result.get("not_counted", 0)
    if not number:
        return ""
    return (
        f", without {number} of the {result['answered']} answers: their tokens could not be counted reliably, so it is "
        f"not known whether they kept their budgets"
    )


def counts_text(counts: Mapping[str, Any]) -> str:
    """The counters of an engine that are not 0, in one line."""
    parts = []
    for name, value in counts.items():
        words = name.removeprefix("num_").replace("_", " ")
        if isinstance(value, Mapping):
            parts += [f"{words} ({counts_text(value)})"] if value else []
        elif value:
            parts.append(f"{words} {value:,}")
    return ", ".join(parts)
