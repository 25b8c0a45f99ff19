"""Answer + reference -> right, wrong or unreadable: one file a grader."""

from __future__ import annotations

from collections.abc import Iterable

from ..problems import Problems, excerpt
from ..protocols import Grader
from ..types import Grade, Query
from .choice import ChoiceGrader
from .exact import ExactGrader
from .math import MathGrader
from .number import NumberGrader

__all__ = ["ChoiceGrader", "ExactGrader", "MathGrader", "NumberGrader", "check_references"]


def check_references(grader: Grader, queries: Iterable[Query], *, source: str = "the queries") -> None:
    """Refuses references that `grader` cannot read, before anything is generated.

    Works with any grader: a reference that is not right when it is itself the answer can never be graded. Queries
    without a reference pass.

    Raises:
        InvalidInputError: naming every such query.
    """
    problems = Problems(source)
    for query in queries:
        reference = query.reference
        if reference is not None and grader.grade(answer=reference, reference=reference) is not Grade.RIGHT:
            problems.add(
                f"query {query.id!r}",
                f"the reference {excerpt(reference)} cannot be read by {type(grader).__name__}; "
                "correct it, or choose another --grader",
            )
    problems.raise_any()
