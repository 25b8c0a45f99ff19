"""Answers: what came back for each query of a plan, judged where there is a reference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from ..core.checks import check_answer
from ..core.data import Grade, Query, StopReason
from ..core.files import write_atomically
from ..core.visible import to_json
from ..errors import RunError
from ..runs.store import generation_from_json, read_lines


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for one query.

    Attributes:
        id: the query's.
        budget: cap on its reasoning tokens.
        answer: the text; None where it failed.
        reasoning_tokens, tokens: of the thought, and of thought, suffix and answer; None where not counted, or failed.
        stop_reason: why the thought ended.
        reference: the right answer; None where it is not known.
        grade: the verdict; None without a reference, or where it failed.
        error: what went wrong; None where nothing did.
    """

    id: str
    budget: int
    answer: str | None
    reasoning_tokens: int | None = None
    tokens: int | None = None
    stop_reason: StopReason = StopReason.ERROR
    reference: str | None = None
    grade: Grade | None = None
    error: str | None = None

    @classmethod
    def of(cls, query: Query, budget: int, record: Mapping[str, Any]) -> Self:
        """What the trace of `record` answers under `budget`, or under its own where that was lower."""
        generation = generation_from_json(record)
        outcome = generation.at(budget)
        if outcome is None:
            error = generation.error or f"it was not probed at {budget} tokens"
            return cls(query.id, min(budget, generation.budget), None, reference=query.reference, error=error)
        used = next((probe for probe in record["probes"] if probe["budget"] == outcome.budget), record)
        grade = None if query.reference is None else used.get("grade")
        return cls(
            query.id,
            outcome.budget,
            outcome.answer,
            outcome.reasoning_tokens,
            outcome.tokens,
            outcome.stop_reason,
            query.reference,
            None if grade is None else Grade(grade),
        )

    def to_json(self) -> dict[str, Any]:
        """One line of answers.jsonl as an object; what failed has `error` in place of what it would have used."""
        if self.error is not None:
            known = {} if self.reference is None else {"reference": self.reference}
            return {"id": self.id, "budget": self.budget, "answer": None, "error": self.error, **known}
        row = asdict(self)
        del row["error"]
        row["stop_reason"] = self.stop_reason.value
        if self.reference is None:
            del row["reference"], row["grade"]
        return row

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """What `to_json` wrote."""
        grade = row.get("grade")
        return cls(
            row["id"],
            row["budget"],
            row["answer"],
            row.get("reasoning_tokens"),
            row.get("tokens"),
            StopReason(row.get("stop_reason", StopReason.ERROR)),
            row.get("reference"),
            None if grade is None else Grade(grade),
            row.get("error"),
        )


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Answers:
    """Answers to the queries of a plan, in their order; by position or by id."""

    rows: tuple[Answer, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Answer]:
        return iter(self.rows)

    def __getitem__(self, key: int | str) -> Answer:
        """The answer at a position, or to the query with that id."""
        if isinstance(key, str):
            found = next((row for row in self.rows if row.id == key), None)
            if found is None:
                raise KeyError(key)
            return found
        return self.rows[key]

    def __repr__(self) -> str:
        counts = self.counts
        graded = f", {counts['right']:,} of {counts['graded']:,} right" if counts["graded"] else ""
        failed = f", {counts['failed']:,} failed" if counts["failed"] else ""
        return f"Answers({counts['answered']:,} answers{graded}{failed}, {counts['spent_tokens']:,} tokens generated)"

    @property
    def counts(self) -> dict[str, Any]:
        """How many there are of what, and their tokens.

        Tokens are those of the answers that were counted; `not_counted` is how many were not. What failed is not right:
        `right` is to be held against `with_reference`, not against what came back.
        """
        failed = [row for row in self.rows if row.error is not None]
        finished = [row for row in self.rows if row.error is None]
        counted = [row for row in finished if row.tokens is not None]
        grades = Counter(row.grade for row in finished if row.grade is not None)
        return {
            "queries": len(self.rows),
            "answered": len(finished),
            "failed": len(failed),
            "failed_ids": [row.id for row in failed[:20]],
            "granted_tokens": sum(row.budget for row in finished),
            "not_counted": len(finished) - len(counted),
            "reasoning_tokens": sum(row.reasoning_tokens or 0 for row in counted),
            "spent_tokens": sum(row.tokens or 0 for row in counted),
            "stopped_by_themselves": sum(row.stop_reason is StopReason.NATURAL for row in finished),
            "with_reference": sum(row.reference is not None for row in self.rows),
            "failed_with_reference": sum(row.reference is not None for row in failed),
            "graded": sum(grades.values()),
            "right": grades[Grade.RIGHT],
            "unreadable": grades[Grade.UNREADABLE],
        }

    def save(self, path: str | Path) -> Path:
        """Writes JSON lines, one an answer, at once or not at all."""
        path = Path(path)
        write_atomically(path, "".join(f"{to_json(row.to_json())}\n" for row in self.rows).encode())
        return path

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """What `save` wrote, or a run directory's answers; raises RunError on anything else."""
        path = Path(path)
        path = path / "answers.jsonl" if path.is_dir() else path
        if not path.is_file():
            raise RunError(f"{path} does not exist")
        return cls(tuple(Answer.from_json(row) for row in read_lines(path, check_answer)))
