"""A grader that is ready for use, and single graded answers."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from ..core import registry
from ..core.data import Grade, Query
from ..core.protocols import Grader, completed
from ..core.provenance import Provenance
from ..errors import InvalidInputError
from ..graders import check_references, grader_of


@dataclass(frozen=True, slots=True)
class Judge:
    """A grader that is ready, and what determines its verdicts, as a provenance that holds nothing else."""

    grader: Grader
    provenance: Provenance

    @classmethod
    def of(cls, grader: str | Grader | Judge, options: Mapping[str, Any] | None = None) -> Self:
        """The grader of that name, made with these options; or a grader itself, by the name of its class.

        Raises:
            UnknownNameError, InvalidSettingsError, MissingExtraError: as `registry.make`.
        """
        if isinstance(grader, Judge):
            return cls(grader.grader, grader.provenance)
        if isinstance(grader, str):
            made = completed(registry.make("graders", grader, options or {}), grader)
            return cls(made, _provenance(grader, options or {}, made))
        made = completed(grader, type(grader).__name__)
        return cls(made, _provenance(type(grader).__name__, {}, made))

    @classmethod
    def of_provenance(cls, made: Provenance) -> Self:
        """The grader that answers were graded by; "exact" where that is not known by name."""
        return cls(grader_of(made), Provenance().with_grader(made))

    def check(self, queries: Sequence[Query], *, required: bool = False) -> None:
        """Refuses references that the grader cannot read; raises InvalidInputError."""
        check_references(self.grader, queries, source="the questions", required=required)


def _provenance(name: str, options: Mapping[str, Any], grader: Grader) -> Provenance:
    return Provenance(grader=name, grader_options=dict(options) or None, grader_version=grader.version)


def grade(answer: str, reference: str, grader: str = "number", **options: Any) -> Grade:
    """Judges one answer.

    Args:
        answer: what was answered.
        reference: the right answer.
        grader: registered name.
        options: what the grader's class takes.

    Returns:
        `Grade.RIGHT`, `Grade.WRONG` or `Grade.UNREADABLE`.
    """
    for name, value in (("answer", answer), ("reference", reference)):
        if not isinstance(value, str):
            raise InvalidInputError(f"the {name} must be text, not {value!r}")
    return _kept_grader(grader, json.dumps(options, sort_keys=True)).grade(answer=answer, reference=reference)


@functools.lru_cache(maxsize=8)
def _kept_grader(name: str, options: str) -> Grader:
    """A grader that is kept: the one of mathematics takes seconds to start."""
    made: Grader = registry.make("graders", name, json.loads(options))
    return made
