"""A run as a page: the answers, where the tokens went, and the thought of every question."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..control.answers import Answer, abstained_words
from ..control.plan import Plan
from ..core.data import Cost, Grade
from ..core.records import Record
from ..core.terms import percent
from ..evaluation.live import LiveComparison
from ..evaluation.policies import BLIND, FORETHOUGHT, UNIFORM
from ..evaluation.results import Result
from ..runs.store import RunDirectory
from .findings import so_many
from .live import live_page
from .pages import Page, Part, Question, Questions, Said, Table, Thought
from .questions import LONGEST_TEXT, LONGEST_TITLE, MOST, MOST_THOUGHTS, ReadRecords, cut, first_letters, thought
from .wording import amount


@dataclass(frozen=True, slots=True)
class RunResult(Result):
    """The result of a run.

    Attributes:
        counts: as in RUN/summary.json.
        expected_accuracy: of the plan; None where nothing was predicted.
        simulated: whether no model answered.
    """

    counts: Mapping[str, Any]
    expected_accuracy: float | None
    simulated: bool


def read_records(run: RunDirectory) -> ReadRecords:
    """Reads the traces of some questions of a run, or of a profile run."""

    def read(query_ids: Collection[str]) -> dict[str, list[Record]]:
        wanted, found = set(query_ids), dict[str, list[Record]]()
        for record in run.latest():
            if record.query_id in wanted:
                found.setdefault(record.query_id, []).append(record)
        return found

    return read


def run_page(
    result: RunResult,
    plan: Plan,
    answers: Mapping[str, Sequence[Answer]],
    *,
    records: ReadRecords,
    compared: LiveComparison | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Page:
    """The page of a run; where several allocators were compared on its traces, the comparison comes first.

    Args:
        result: the run's counts.
        plan: that was carried out.
        answers: allocator -> its answers, in the order of the plan's queries; the run's own first.
        records: reads the traces of some questions.
        compared: the allocators on the same traces.
        facts: how it was made.
    """
    own = next(iter(answers.values()))
    table = run_questions(plan, answers, records)
    division = Part("where the tokens went", [_division(plan, own)])
    if compared is not None:
        page = live_page(compared, questions=table, facts=facts)
        return Page(
            **{name: getattr(page, name) for name in ("name", "result", "num_resamples", "simulated", "facts")},
            title="Run",
            sample=page.sample,
            decision=[*page.decision, *_decision(result)],
            parts=[*page.parts[:-1], division, page.parts[-1]],
        )
    return Page(
        name="run",
        title="Run",
        result=result,
        sample=f"{len(plan):,} questions, {plan.allocation.allocator} under {plan.allocation.cost.value} cost",
        decision=tuple(_decision(result)),
        parts=[division, Part("the questions", [table], on="html")],
        num_resamples=0,
        simulated=result.simulated,
        facts=facts or {},
    )


def _decision(result: RunResult) -> Iterator[str]:
    """The number right or answered, the tokens and the price; and what the plan expected."""
    counts, num_answered = result.counts, result.counts["answered"]
    num_counted = num_answered - counts["not_counted"]
    tokens = "tokens not counted"
    if num_counted:
        tokens = f"{so_many(counts['spent_tokens'] / num_counted, Cost.SPENT)} per question"
    bill = f", {so_many(counts['usd'], Cost.USD)} in all" if counts.get("usd") is not None else ""
    if counts["with_reference"]:
        share = percent(counts["right"] / counts["with_reference"])
        said = f"{counts['right']:,} of {counts['with_reference']:,} questions are answered right ({share})"
    else:
        said = f"{num_answered:,} of {counts['queries']:,} questions are answered"
    yield f"{said}, with {tokens}{bill}."
    more = []
    if result.expected_accuracy is not None:
        more.append(f"The plan expected {percent(result.expected_accuracy)}")
    if counts["failed"]:
        more.append(f"{counts['failed']:,} failed")
    if counts["unreadable"]:
        more.append(f"{counts['unreadable']:,} answers were unreadable, which counts as not right")
    if more:
        yield f"{'; '.join(more)}."
    if words := abstained_words(counts):
        yield f"{words}."


def _division(plan: Plan, answers: Sequence[Answer]) -> Table:
    """The number of questions at each option, and their results."""
    is_named, has_usd = plan.menu.is_named, any(each.usd is not None for each in answers)
    has_votes = any(each.samples > 1 for each in answers)
    by_budget: dict[int, list[Answer]] = {}
    for each in answers:
        by_budget.setdefault(each.budget, []).append(each)
    rows = []
    for budget, group in sorted(by_budget.items()):
        num_known = sum(each.reference is not None for each in group)  # what failed is not right
        right = sum(each.grade is Grade.RIGHT for each in group)
        tokens = [each.tokens for each in group if each.tokens is not None]
        usd = [each.usd for each in group if each.usd is not None]
        cells = [Said(group[0].option or f"{budget:,}"), f"{len(group):,}"]
        cells.append(f"{right} of {num_known}" if num_known else "–")
        cells += [f"{np.mean([each.samples for each in group]):.2f}"] if has_votes else []
        cells.append(f"{np.mean(tokens):,.1f}" if tokens else "not counted")
        rows.append(cells + ([amount(float(np.mean(usd)), Cost.USD) if usd else "not known"] if has_usd else []))
    head = ["option" if is_named else "cap", "questions", "right", *(["mean samples"] if has_votes else [])]
    return Table([*head, "mean tokens", *(["mean USD"] if has_usd else [])], rows)


def run_questions(plan: Plan, answers: Mapping[str, Sequence[Answer]], records: ReadRecords) -> Questions:
    """Every question with the result under each allocator; of very many, the most informative ones."""
    queries = {query.id: query for query in plan.queries}
    found = {name: {each.id: each for each in rows} for name, rows in answers.items()}
    names = list(found)
    main, others = names[0], names[1:]
    called = {name: FORETHOUGHT if name == main and main not in (UNIFORM, BLIND) else name for name in names}
    p_Q, row_of = plan.forecast.curves.p_Q_B, {query.id: row for row, query in enumerate(plan.queries)}

    def moved(query_id: str) -> tuple[int, int, int]:
        """Questions on which allocators differ first, then failed and wrong ones, then those with the most tokens."""
        own = found[main][query_id]
        grades = {rows[query_id].grade is Grade.RIGHT for rows in found.values() if query_id in rows}
        return (-len(grades), -(own.grade is not Grade.RIGHT), -(own.tokens or 0))

    known = [query.id for query in plan.queries if query.id in found[main]]
    chosen = sorted(known, key=moved)[:MOST]
    traces = records(chosen)
    rows = []
    for query_id in chosen:
        query, own = queries[query_id], found[main][query_id]
        place = plan.menu.columns([own.budget])[0] if own.budget in plan.menu.caps else None
        expected = None if place is None else float(p_Q[row_of[query_id], place])
        cells: list[tuple[str, float | str]] = [(first_letters(query.text or query_id, LONGEST_TITLE), query.text)]
        for name in names:
            each = found[name].get(query_id)
            cells += [_verdict(each), _tokens(each)]
        cells.append(("–", -1.0) if expected is None else (percent(expected), expected))
        cells.append((own.option or f"{own.budget:,}", float(own.budget)))
        drawn = _drawn(plan, own, traces.get(query_id, ()))
        rows.append(Question(query_id, cells, list(_detail(query.text, query.reference, own, drawn))))
    head = ["question", *(f"{each}{what}" for each in called.values() for what in ("", " tokens")), "expected right"]
    if not others:
        head = ["question", "verdict", "tokens", "expected right"]
    head.append("option" if plan.menu.is_named else "cap")
    left = len(known) - len(chosen)
    first = "Questions on which allocators differ come first, then those" if others else "Questions"
    words = f"{first} not right{'' if others else ' come first'}, then those with the most tokens. "
    words += f"{left:,} others are left out to keep the page small; forethought show RUN ID shows any of them. " * (
        left > 0
    )
    return Questions(head, rows, words + "Click a column's name to sort by it; click a question to open it.")


def _verdict(answer: Answer | None) -> tuple[str, float]:
    if answer is None:
        return "–", -2.0
    if answer.error is not None:
        return "failed", -1.0
    if answer.grade is None:
        return "answered", 0.5
    return answer.grade.value, {Grade.RIGHT: 1.0, Grade.WRONG: 0.0, Grade.UNREADABLE: -0.5}[answer.grade]


def _tokens(answer: Answer | None) -> tuple[str, float]:
    if answer is None or answer.tokens is None:
        return "–", -1.0
    return f"{answer.tokens:,}", float(answer.tokens)


def _drawn(plan: Plan, own: Answer, records: Sequence[Record]) -> list[Record]:
    """The traces behind an answer: of caps one, in which every allocator cuts; of an option its samples."""
    if not plan.menu.is_named or own.budget not in plan.menu.caps:
        return list(records[:1])
    option = plan.menu.option(own.budget)
    own_ones = (each for each in records if each.option == option.single.label and each.sample < option.samples)
    return sorted(own_ones, key=lambda each: each.sample)


def _detail(text: str, reference: str | None, own: Answer, drawn: Sequence[Record]) -> Iterator[str | Table | Thought]:
    yield cut("question", text, LONGEST_TEXT)
    if own.error is not None:
        yield Thought("failed", own.error)
    else:
        votes = own.samples > 1 and own.share is not None
        share = f", {percent(own.share or 0.0)} of the votes of {own.samples:,} samples" if votes else ""
        yield cut(f"answer{share}{', abstained' if own.is_abstained else ''}", own.answer or "", LONGEST_TEXT)
    if reference is not None:
        yield cut("reference", reference, LONGEST_TEXT)
    if len(drawn) > 1:
        yield Table(["sample", "answer", "verdict", "tokens"], [_sample(record) for record in drawn])
    for record in drawn[:MOST_THOUGHTS]:
        yield thought(record)


def _sample(record: Record) -> list[str]:
    """A row of the samples that vote."""
    outcome = record.at(record.budget)
    if outcome is None:
        return [f"{record.sample}", "", "failed", ""]
    verdict = "" if outcome.grade is None else outcome.grade.value
    tokens = "not counted" if outcome.tokens is None else f"{outcome.tokens:,}"
    return [f"{record.sample}", first_letters(outcome.answer, LONGEST_TITLE) or "(empty)", verdict, tokens]
