"""The contract of every grader: a verdict for any text, the same each time, and groups that verdicts agree with."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from ..core.data import Grade
from ..core.protocols import Grader, completed
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

    def whole(self) -> Grader:
        """The grader with the defaults that it is used with."""
        return completed(self.grader, type(self.grader).__name__)

    def texts(self) -> list[str]:
        """The different answers and references."""
        return list(dict.fromkeys(text for pair in (*self.right, *self.wrong) for text in pair))


class GraderContract:
    """Subclass it as `TestMine(GraderContract)`, and give a fixture `judged`."""

    def test_it_satisfies_the_protocol(self, judged: Judged) -> None:
        """It has `grade` and a `version`."""
        version = judged.whole().version
        expect(isinstance(version, str) and version, "version must be a short text")
        expect(judged.whole().version == version, "version is another one each time")

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
        for usual, reference in judged.right:
            for answer, wanted in (*((odd, reference) for odd in ODD), *((usual, odd) for odd in ODD)):
                pair = f"{answer!r:.40} against {wanted!r:.40}"
                found = judged.grader.grade(answer=answer, reference=wanted)
                expect(isinstance(found, Grade), f"{pair} is judged {found!r}, which is no Grade")
                again = judged.grader.grade(answer=answer, reference=wanted)
                expect(found is again, f"{pair} is {found} and then {again}")

    def test_no_answer_is_not_right(self, judged: Judged) -> None:
        """An empty answer is never right."""
        for _, reference in judged.right:
            found = judged.grader.grade(answer="", reference=reference)
            expect(found is not Grade.RIGHT, "an empty answer is right")

    def test_an_answer_that_can_be_read_is_the_same_as_itself(self, judged: Judged) -> None:
        """`same` of an answer and itself says what `read` says, of any text; every right reference can be read."""
        grader = judged.whole()
        for text in (*judged.texts(), *ODD):
            is_read = grader.read(text) is not None
            is_same = grader.same(text, text)
            expect(is_same is is_read, f"same({text!r:.40}, itself) is {is_same!r}, read is {grader.read(text)!r:.40}")
            expect(grader.read(text) == grader.read(text), f"{text!r:.40} is read in two ways")
            expect(isinstance(grader.read(text), Hashable), f"{text!r:.40} is read as what cannot be hashed")
        for _, reference in judged.right:
            expect(grader.read(reference) is not None, f"the reference {reference!r} cannot be read")

    def test_the_same_answers_are_judged_alike(self, judged: Judged) -> None:
        """`same` has no order, holds where readings are equal, and never for a right answer and a wrong one."""
        grader, texts = judged.whole(), judged.texts()
        reading_of = {text: grader.read(text) for text in (*texts, *ODD)}
        for a, b in itertools.combinations(reading_of, 2):
            is_same = grader.same(a, b)
            expect(grader.same(b, a) is is_same, f"same({a!r:.40}, {b!r:.40}) is {is_same!r}, not the other way round")
            if reading_of[a] is not None and reading_of[a] == reading_of[b]:
                expect(
                    is_same, f"{a!r:.40} and {b!r:.40} have one reading, {reading_of[a]!r:.40}, and are not the same"
                )
            for reference in texts if is_same else ():
                verdicts = {grader.grade(answer=text, reference=reference) for text in (a, b)}
                opposite = {Grade.RIGHT, Grade.WRONG} <= verdicts
                expect(
                    not opposite, f"{a!r:.40} and {b!r:.40} are the same, and one of them is right for {reference!r}"
                )


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
