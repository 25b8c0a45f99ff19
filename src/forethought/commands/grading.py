"""Grading one answer, a file of answers, or the stored answers of a run again. Nothing is generated."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..control import sources
from ..control.judging import Judge
from ..control.keeping import judged
from ..control.results import write_results
from ..core.data import Grade, Query
from ..core.problems import Problems
from ..core.protocols import Grader
from ..core.records import Record
from ..core.study_settings import GradeSettings, RegradeSettings
from ..errors import InvalidInputError, RunError
from ..graders import check_references, is_gradable
from ..questions import fields
from ..questions.queries import load_columns, load_queries, save_queries
from ..runs.profiles import from_run, write_parquet
from ..runs.store import RunDirectory

STATED_COLUMNS = ("prediction", "predicted", "response", "output", "completion", "generation")
PLAIN = ("answer",)
REFERENCE_COLUMNS = tuple(
    dict.fromkeys(name for name in ("reference", "expected", *fields.ANSWER_COLUMNS) if name not in PLAIN)
)
ANSWERS = (*REFERENCE_COLUMNS, *PLAIN)


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What a grader said of a file's answers.

    Attributes:
        grader: its name, version and options in words.
        rows: id, answer, reference and grade of each row, in the file's order.
        num_left_out: rows whose reference is missing or cannot be read.
    """

    grader: str
    rows: Sequence[Mapping[str, str]]
    num_left_out: int

    def to_json(self) -> dict[str, Any]:
        """Counts, and the unreadable ones."""
        counts = Counter(row["grade"] for row in self.rows)
        return {
            "grader": self.grader,
            "graded": len(self.rows),
            **{verdict.value: counts[verdict.value] for verdict in Grade},
            "left_out": self.num_left_out,
            "unreadable_rows": [row for row in self.rows if row["grade"] == Grade.UNREADABLE.value],
        }


def grade_file(settings: GradeSettings) -> Verdicts:
    """Judges every answer of a file by the reference in its row.

    Raises:
        InvalidInputError: rows that cannot be read or graded, all of them at once.
    """
    judge = Judge.of(settings.grader, settings.grader_options)
    problems = Problems(settings.file)
    found = list(_pairs(settings, problems))
    problems.raise_any()
    queries = [Query(row_id, "", reference) for row_id, _, reference in found]
    if not settings.skip_ungraded:
        check_references(judge.grader, queries, source=settings.file, required=True)
    graded_rows = [
        {"id": row_id, "answer": answer, "reference": reference, "grade": verdict.value}
        for row_id, answer, reference in found
        if reference is not None and is_gradable(judge.grader, reference)
        for verdict in (judge.grader.grade(answer=answer, reference=reference),)
    ]
    return Verdicts(judge.provenance.judge or "", graded_rows, len(found) - len(graded_rows))


def _pairs(settings: GradeSettings, problems: Problems) -> Iterator[tuple[str, str, str | None]]:
    """`(id, answer, reference)` of each row; an answer that is missing is empty, which no grader reads.

    A column called "answer" holds the answers, unless others do: then it holds the references.
    """
    usual = {"answer": STATED_COLUMNS, "reference": REFERENCE_COLUMNS, "id": ("id", *fields.ID_COLUMNS), "plain": PLAIN}
    asked = {"answer": settings.answer_column, "reference": settings.reference_column, "id": settings.id_column}
    named = {meaning: name or None for meaning, name in asked.items()}
    rows = load_columns(settings.file, usual, {**named, "plain": None}, limit=settings.limit)
    has = {meaning: any(row[meaning] is not None for row in rows) for meaning in usual}
    stated = "answer" if has["answer"] or named["answer"] else "plain"
    expected = "reference" if has["reference"] or named["reference"] else "plain"
    for meaning, column, names in (("answer", stated, STATED_COLUMNS), ("reference", expected, REFERENCE_COLUMNS)):
        if (column == "plain" and not has["plain"]) or (meaning == "reference" and expected == stated):
            problems.add(
                "", f"no column of {meaning}s ({', '.join((*names, *PLAIN))}); name it with --{meaning}-column NAME"
            )
    problems.raise_any()
    for row in rows:
        try:
            answer = fields.reference(row[stated]) or ""
            yield fields.label(row["id"]) or row["place"], answer, fields.worked_reference(row[expected])
        except fields.FieldError as refusal:
            problems.add(row["place"], f"a value {refusal}")


@dataclass(frozen=True, slots=True)
class Regraded:
    """The result of grading a run's records again.

    Attributes:
        run: the run directory.
        before, after: the graders, in words.
        num_verdicts: answers judged: final ones, and those forced at smaller budgets.
        changes: (old verdict, new verdict) -> how many; "none" stands for no verdict.
        num_references: references that were corrected.
        notes: what the user should know, in sentences.
        is_written: False for a dry run.
    """

    run: Path
    before: str
    after: str
    num_verdicts: int
    changes: Mapping[tuple[str, str], int]
    num_references: int
    notes: Sequence[str]
    is_written: bool

    @property
    def num_changed(self) -> int:
        """Verdicts that are another now."""
        return sum(self.changes.values())

    def to_json(self) -> dict[str, Any]:
        """One object."""
        return {
            "run": str(self.run),
            "before": self.before,
            "after": self.after,
            "verdicts": self.num_verdicts,
            "changed": self.num_changed,
            "changes": [{"from": old, "to": new, "count": count} for (old, new), count in sorted(self.changes.items())],
            "references_corrected": self.num_references,
            "notes": list(self.notes),
            "written": self.is_written,
        }


def regrade(settings: RegradeSettings) -> Regraded:
    """Grades the stored records of a profile or a run again, and rewrites the files that depend on the grades.

    A kill at any moment leaves the old records or the new ones, whole. Until the same command has come to its end, the
    run is refused by every other one, so that grades of two graders are never mixed.

    Raises:
        RunError: not a profile's or a run's directory, or it is being written.
        InvalidInputError: references that the grader cannot read, naming them.
    """
    run = RunDirectory(Path(settings.run), is_regrading=True)
    if not (run.path / "run.json").is_file():
        sources.open_run(settings.run)
    header = run.header
    if header.kind not in ("profile", "run"):
        raise RunError(f"{run.path} is a {header.kind!r} run: it holds no grades")
    judge, command = _judge(run, settings)
    with run.locked():
        queries, corrected, notes = _corrected(run, settings.answers, settings.answer_column)
        is_profile = header.kind == "profile"
        if not settings.skip_ungraded:
            check_references(judge.grader, queries, source=str(run.path), required=is_profile)
        references = {query.id: query.reference for query in queries if is_gradable(judge.grader, query.reference)}
        verdicts = _Verdicts(judge.grader, references)
        for record in run.records():
            verdicts.anew(record)
        if not settings.dry_run:
            run.write_header(replace(header, regrading=command))
            save_queries(run.path / "queries.jsonl", queries)
            run.rewrite(verdicts.judged)
            fresh = replace(header, provenance=header.provenance.with_grader(judge.provenance))
            run.write_header(replace(fresh, regrading=command))
            _write_what_follows(run, queries, is_profile=is_profile)
            run.write_header(fresh)
    changes, before = verdicts.changes, header.provenance.judge or "an unknown grader, version unknown"
    notes += [f"{each} was made from the old grades; make it again" for each in _made_from(run) if changes]
    after = judge.provenance.judge or ""
    return Regraded(run.path, before, after, verdicts.count, changes, corrected, notes, not settings.dry_run)


def _judge(run: RunDirectory, settings: RegradeSettings) -> tuple[Judge, str]:
    """The grader to judge by, and the command that judges by it."""
    own = run.header.provenance
    name = settings.grader or own.grader or "number"
    kept = own.grader_options or {} if name == own.grader else {}
    options = settings.grader_options or kept
    flags = [f"--grader {name}", *(f"--grader-option {key}={json.dumps(value)}" for key, value in options.items())]
    flags += [f"--answers {settings.answers}"] if settings.answers else []
    flags += [f"--answer-column {settings.answer_column}"] if settings.answer_column else []
    flags += ["--skip-ungraded"] if settings.skip_ungraded else []
    return Judge.of(name, options), f"forethought regrade {run.path} {' '.join(flags)}"


def _corrected(run: RunDirectory, answers: str, answer_column: str) -> tuple[list[Query], int, list[str]]:
    """The run's queries with the references of the file `answers`, how many are others now, and notes."""
    queries = sources.run_queries(run)
    if not answers:
        return queries, 0, []
    references = _references(answers, answer_column)
    known = {query.id for query in queries}
    if not known & set(references):
        raise InvalidInputError(
            f"{answers}: none of its {len(references)} ids is a question of {run.path}, such as {queries[0].id!r}"
        )
    foreign = len(set(references) - known)
    notes = [f"{foreign} rows of {answers} belong to no question of the run, and are ignored"] if foreign else []
    fresh = [replace(query, reference=references.get(query.id, query.reference)) for query in queries]
    return fresh, sum(old.reference != new.reference for old, new in zip(queries, fresh, strict=True)), notes


def _references(file: str, answer_column: str) -> dict[str, str]:
    """Id -> reference of a file of questions, or of a file with ids and answers alone."""
    usual = {"id": ("id", *fields.ID_COLUMNS), "question": fields.QUESTION_COLUMNS, "answer": ANSWERS}
    rows = load_columns(file, usual, {"id": None, "question": None, "answer": answer_column or None})
    if any(row["question"] is not None for row in rows):
        queries = load_queries(file, answer_column=answer_column or None)
        return {query.id: query.reference for query in queries if query.reference is not None}
    problems = Problems(file)
    found: dict[str, str] = {}
    for row in rows:
        try:
            row_id, reference = fields.label(row["id"]), fields.worked_reference(row["answer"])
        except fields.FieldError as refusal:
            problems.add(row["place"], f"a value {refusal}")
            continue
        if row_id is None:
            problems.add(row["place"], "has no id, and the file has no questions that identify it")
        elif row_id in found:
            problems.add(row["place"], f"id {row_id!r} occurs twice")
        elif reference is not None:
            found[row_id] = reference
    if not found and not problems:
        problems.add("", f"holds no answers ({', '.join(ANSWERS)}); name their column with --answer-column NAME")
    problems.raise_any()
    return found


class _Verdicts:
    """Judges records anew, and counts how many verdicts went from what to what."""

    def __init__(self, grader: Grader, references: Mapping[str, str | None]) -> None:
        self._grader, self._references = grader, references
        self._known: dict[tuple[str, str], Grade] = {}
        self.changes: Counter[tuple[str, str]] = Counter()
        self.count = 0

    def judged(self, record: Record) -> Record:
        """The record with the new verdicts."""
        return judged(record, self._references.get(record.query_id), self._grader, self._known)

    def anew(self, old: Record) -> None:
        """Counts what becomes of one record."""
        new = self.judged(old)
        pairs = [(old.grade, new.grade)]
        pairs += [(before.grade, after.grade) for before, after in zip(old.probes, new.probes, strict=True)]
        self.count += sum(after is not None for _, after in pairs)
        self.changes.update((before or "none", after or "none") for before, after in pairs if before != after)


def _write_what_follows(run: RunDirectory, queries: Sequence[Query], *, is_profile: bool) -> None:
    """The files that are made from the grades: the profile's table, or a run's answers and summary."""
    if is_profile:
        table = run.path / "profile.parquet"
        if any(record.grade is not None for record in run.records()):
            write_parquet(table, from_run(run, queries))
        else:
            table.unlink(missing_ok=True)
    elif (run.path / "plan.json").is_file():
        write_results(run, queries)


def _made_from(run: RunDirectory) -> list[str]:
    """What stands in the run's folder that was made from its grades by other commands."""
    places = ("predictor/predictor.json", "evaluation/evaluation.json", "layers/layers.json", "live.json")
    return [
        str((run.path / place).parent if "/" in place else run.path / place)
        for place in places
        if (run.path / place).is_file()
    ]
