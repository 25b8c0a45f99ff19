"""Answer + reference -> right, wrong or unreadable, and groups of the same answer: one file per grader."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from ..core import registry
from ..core.data import Grade, Query
from ..core.problems import Problems, excerpt
from ..core.protocols import Grader, completed
from ..core.provenance import Provenance
from .choice import ChoiceGrader
from .exact import ExactGrader
from .grouping import group_answers
from .math import MathGrader
from .number import NumberGrader

logger = logging.getLogger(__name__)

__all__ = [
    "ChoiceGrader",
    "ExactGrader",
    "MathGrader",
    "NumberGrader",
    "check_references",
    "grader_of",
    "group_answers",
    "is_gradable",
]


def is_gradable(grader: Grader, reference: str | None) -> bool:
    """Whether `grader` can read the reference: one that is not right when it is itself the answer is never matched."""
    return reference is not None and grader.grade(answer=reference, reference=reference) is Grade.RIGHT


def grader_of(made: Provenance) -> Grader:
    """The grader that answers were graded by; "exact" where that is not known by name, which is logged."""
    name = made.grader
    if name is None or name not in registry.available("graders"):
        logger.warning(
            "note: %s: answers count as the same where their texts are equal",
            "nothing says how answers were graded" if name is None else f"the grader {name!r} is not registered here",
        )
        return completed(registry.make("graders", "exact", {}), "exact")
    return completed(registry.make("graders", name, made.grader_options or {}), name)


def check_references(
    grader: Grader, queries: Iterable[Query], *, source: str = "the queries", required: bool = False
) -> None:
    """Refuses references that `grader` cannot read, before anything is generated. Works with any grader.

    Args:
        grader: judges.
        queries: in the order of their rows.
        source: what they are called in the message.
        required: refuse queries without a reference too; else they pass.

    Raises:
        InvalidInputError: naming every such query.
    """
    problems = Problems(source)
    queries = list(queries)
    missing = [(row, query) for row, query in enumerate(queries, 1) if query.reference is None]
    if required and missing:
        shown = ", ".join(f"row {row} ({query.id!r})" for row, query in missing[:5])
        more = f", … and {len(missing) - 5:,} more" if len(missing) > 5 else ""
        problems.add(
            "",
            f"{len(missing):,} of {len(queries):,} have no reference answer to grade by: {shown}{more}. Add them, name "
            "the column they stand in with --answer-column, or leave these rows out: --skip-ungraded",
        )
    for row, query in enumerate(queries, 1):
        reference = query.reference
        if reference is not None and not is_gradable(grader, reference):
            problems.add(
                f"row {row} ({query.id!r})",
                f"the reference {excerpt(reference)} cannot be read by {type(grader).__name__}; "
                "correct it, or choose another --grader",
            )
    problems.raise_any()
