"""Answers: the result for each query of a plan, graded if there is a reference."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ..core.arguments import path_of
from ..core.codec import decode, fields_to_json
from ..core.data import Grade, Query, StopReason
from ..core.records import Record
from ..core.rows import check_rows_name, write_rows
from ..core.showing import Shown, brief
from ..core.terms import percent
from ..errors import RunError
from ..runs.lines import read_lines

ABSTAINED = ("abstained", "abstained_graded", "abstained_right")
COLUMNS = {
    **{"id": str, "budget": int, "option": str, "answer": str, "reference": str, "grade": str, "stop_reason": str},
    **{"reasoning_tokens": int, "tokens": int, "usd": float, "error": str},
    **{"samples": int, "share": float, "is_abstained": bool},
}


@dataclass(frozen=True, slots=True, repr=False)
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
        option: name of the option that it was asked by, which goes by `budget`; "" for a plain cap.
        usd: what prompt, thought and answer cost by the option's price; None where that is not known.
        samples: that voted; tokens and money are those of all.
        share: of the votes that the answer has; None of a single sample.
        is_abstained: whether that is less than the least agreement (`Voting.min_agreement`).
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
    option: str = ""
    usd: float | None = None
    samples: int = 1
    share: float | None = None
    is_abstained: bool = False

    def __repr__(self) -> str:
        under = f"option={brief(self.option)}" if self.option else f"budget={self.budget}"
        if self.error is not None:
            return f"Answer({brief(self.id)}, {under}, error={brief(self.error)})"
        verdict = "" if self.grade is None else f", {self.grade}"
        tokens = "" if self.tokens is None else f", {self.tokens:,} tokens"
        return f"Answer({brief(self.id)}, {under}, {brief(self.answer)}{verdict}{tokens})"

    @classmethod
    def of(cls, query: Query, budget: int, record: Record, usd: float | None = None) -> Self:
        """What the trace of `record` answers under `budget`, or under its own where that was lower.

        The answer by a named option is that of its whole trace: `budget` is what the option goes by, and no cap.
        """
        label = record.option
        outcome = record.at(record.budget if label else budget)
        if outcome is None:
            error = record.error or f"it was not probed at {budget} tokens"
            least = budget if label else min(budget, record.budget)
            return cls(query.id, least, None, reference=query.reference, error=error, option=label)
        grade = None if query.reference is None else outcome.grade
        used = (outcome.answer, outcome.reasoning_tokens, outcome.tokens, outcome.stop_reason)
        granted = budget if label else outcome.budget
        return cls(query.id, granted, *used, query.reference, grade, option=label, usd=usd)

    def to_json(self) -> dict[str, Any]:
        """One line of answers.jsonl as an object; what failed has `error` in place of what it would have used."""
        if self.error is not None:
            known = {} if self.reference is None else {"reference": self.reference}
            known |= {"option": self.option} if self.option else {}
            return {"id": self.id, "budget": self.budget, "answer": None, "error": self.error, **known}
        without = ["error", *(("reference", "grade") if self.reference is None else ())]
        without += [name for name, value in (("option", self.option or None), ("usd", self.usd)) if value is None]
        without += ["samples", "share"] if self.share is None else []
        without += [] if self.is_abstained else ["is_abstained"]
        return fields_to_json(self, without=without)

    @classmethod
    def from_json(cls, row: Any) -> Self:
        """What `to_json` wrote; raises UnfitError."""
        return decode(cls, row, lenient=(cls,))


def counts_of(answers: Iterable[Answer]) -> dict[str, Any]:
    """How many answers there are of what, and their tokens; they are read once.

    Tokens are those of the answers that were counted; `not_counted` is how many were not. What failed is not right:
    `right` is to be held against `with_reference`, not against what came back. Of named options there is how many
    answers came by each, and what all of them cost, where they have prices. Answers that abstained count as the others
    do, and apart: see `abstained_words`.
    """
    found: Counter[str] = Counter()
    failed: list[str] = []
    options, usd = Counter[str](), list[float]()
    for each in answers:
        has_reference = each.reference is not None
        found.update(queries=1, with_reference=has_reference)
        if each.error is not None:
            failed.append(each.id)
            found.update(failed=1, failed_with_reference=has_reference)
            continue
        options.update([each.option] if each.option else [])
        usd += [] if each.usd is None else [each.usd]
        found.update(answered=1, granted_tokens=each.budget, stopped=each.stop_reason is StopReason.NATURAL)
        found.update({f"grade {each.grade}": 1, "graded": each.grade is not None, "not_counted": each.tokens is None})
        found.update(samples=each.samples)
        if each.is_abstained:
            found.update(
                abstained=1, abstained_graded=each.grade is not None, abstained_right=each.grade is Grade.RIGHT
            )
        if each.tokens is not None:
            found.update(reasoning_tokens=each.reasoning_tokens or 0, spent_tokens=each.tokens)
    return {
        "queries": found["queries"],
        "answered": found["answered"],
        "failed": found["failed"],
        "failed_ids": failed[:20],
        "granted_tokens": found["granted_tokens"],
        "not_counted": found["not_counted"],
        "reasoning_tokens": found["reasoning_tokens"],
        "spent_tokens": found["spent_tokens"],
        "stopped_by_themselves": found["stopped"],
        "with_reference": found["with_reference"],
        "failed_with_reference": found["failed_with_reference"],
        "graded": found["graded"],
        "right": found[f"grade {Grade.RIGHT}"],
        "unreadable": found[f"grade {Grade.UNREADABLE}"],
        **({"samples": found["samples"]} if found["samples"] > found["answered"] else {}),
        **({key: found[key] for key in ABSTAINED} if found["abstained"] else {}),
        **({"options": dict(sorted(options.items()))} if options else {}),
        **({"usd": math.fsum(usd)} if usd else {}),
    }


def abstained_words(counts: Mapping[str, Any]) -> str:
    """How many answers had too few votes, the share of the others (coverage) and what is right of these; "" of none."""
    if not (num := counts.get("abstained", 0)):
        return ""
    kept, graded = counts["answered"] - num, counts["graded"] - counts["abstained_graded"]
    right = counts["right"] - counts["abstained_right"]
    accuracy = f", {right:,} of {graded:,} right ({percent(right / graded)})" if graded else ""
    return (
        f"{num:,} answers abstained: fewer votes agreed than asked for; the {kept:,} others "
        f"({percent(kept / counts['answered'])} coverage){accuracy}"
    )


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Answers(Shown):
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
        graded = f", {counts['right']:,} of {counts['with_reference']:,} right" if counts["graded"] else ""
        failed = f", {counts['failed']:,} failed" if counts["failed"] else ""
        return f"Answers({counts['answered']:,} answers{graded}{failed}, {counts['spent_tokens']:,} tokens generated)"

    @property
    def counts(self) -> dict[str, Any]:
        """How many there are of what, and their tokens; see `counts_of`."""
        return counts_of(self.rows)

    def save(self, path: str | Path) -> Path:
        """Writes a row per answer, at once or not at all: CSV, TSV or Parquet by the file's name, else JSON lines."""
        path = path_of(path)
        check_rows_name(path, "the file")
        write_rows(path, [row.to_json() for row in self.rows], COLUMNS)
        return path

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """What `save` wrote as JSON lines, or a run directory's answers; raises RunError on anything else."""
        path = path_of(path)
        path = path / "answers.jsonl" if path.is_dir() else path
        if not path.is_file():
            raise RunError(f"{path} does not exist")
        if path.suffix.lower() != ".jsonl":
            raise RunError(f"{path}: answers are read from JSON lines, a file that ends in .jsonl")
        return cls(tuple(read_lines(path, Answer.from_json)))
