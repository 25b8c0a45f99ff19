"""The contract of every grader: a verdict for any text, the same each time, with a version that names its rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..core.data import Grade
from ..core.protocols import Grader
from .checking import check, expect

ODD = (
    "",
    " ",
    "\n",
    "\0",
    "}{",
    "\\frac{1}{",
    "1" * 400,
    "ƒ¶ 你好 🤷",
    "[[[[",
    "-",
    "NaN",
    "1e999999",
    "(" * 300,
    "None",
    "%s",
)


@dataclass(frozen=True)
class Judged:
    """A grader, and answers that it must judge in one way.

    Attributes:
        grader: the grader.
        right: (answer, reference) pairs that are right.
        wrong: those that are wrong.
    """

    grader: Grader
    right: Sequence[tuple[str, str]]
    wrong: Sequence[tuple[str, str]] = ()


class GraderContract:
    """Subclass it as `TestMine(GraderContract)`, and give a fixture `judged`."""

    def test_it_satisfies_the_protocol(self, judged: Judged) -> None:
        """It has `grade` and a `version`."""
        expect(isinstance(judged.grader, Grader), "it lacks grade(answer, reference) or version")
        expect(isinstance(judged.grader.version, str) and judged.grader.version, "version must be a short text")

    def test_it_judges_as_it_should(self, judged: Judged) -> None:
        """Right is right, wrong is wrong, and a right reference is right when it is itself the answer."""
        expect(judged.right, "give at least one right pair")
        for answer, reference in (*judged.right, *((reference, reference) for _, reference in judged.right)):
            found = judged.grader.grade(answer=answer, reference=reference)
            expect(found is Grade.RIGHT, f"{answer!r} is {found!r} against {reference!r}, not right")
        for answer, reference in judged.wrong:
            found = judged.grader.grade(answer=answer, reference=reference)
            expect(found is Grade.WRONG, f"{answer!r} is {found!r} against {reference!r}, not wrong")

    def test_odd_texts_get_a_verdict(self, judged: Judged) -> None:
        """It never raises, and says the same each time."""
        for _, reference in judged.right:
            for answer in ODD:
                found = judged.grader.grade(answer=answer, reference=reference)
                expect(isinstance(found, Grade), f"{answer!r:.40} is judged {found!r}, which is no Grade")
                again = judged.grader.grade(answer=answer, reference=reference)
                expect(found is again, f"{answer!r:.40} is {found} and then {again}")

    def test_no_answer_is_not_right(self, judged: Judged) -> None:
        """An empty answer is never right."""
        for _, reference in judged.right:
            found = judged.grader.grade(answer="", reference=reference)
            expect(found is not Grade.RIGHT, "an empty answer is right")


def check_grader(grader: Grader, *, right: Sequence[tuple[str, str]], wrong: Sequence[tuple[str, str]] = ()) -> None:
    """Holds a grader to the contract.

    Args:
        grader: the grader.
        right: (answer, reference) pairs that are right.
        wrong: those that are wrong.

    Raises:
        AssertionError: every promise that it breaks, a line each.
    """
    check(GraderContract(), Judged(grader, right, wrong))
