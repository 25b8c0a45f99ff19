"""Grader `number`: the same number."""

from __future__ import annotations

from fractions import Fraction

from ..core.data import Grade
from .numerals import read_number

RELATIVE_TOLERANCE = Fraction(1, 10**6)


class NumberGrader:
    """Compares numbers as `numerals` reads them.

    Whole numbers must be equal; others may differ by a millionth, so that 0.333333 is right for 1/3.
    "50%" is right for 50, never for 0.5.
    """

    version = "3"

    def grade(self, *, answer: str, reference: str) -> Grade:
        """Right when both state the same number; unreadable when either states none, or several."""
        stated, expected = read_number(answer), read_number(reference)
        if stated is None or expected is None:
            return Grade.UNREADABLE
        return Grade.RIGHT if is_same_number(stated, expected) else Grade.WRONG


def is_same_number(stated: Fraction, expected: Fraction) -> bool:
    """Whether two numbers are the same, up to a millionth where they are not both whole."""
    if stated.denominator == expected.denominator == 1:
        return stated == expected
    return abs(stated - expected) <= RELATIVE_TOLERANCE * max(abs(stated), abs(expected))
