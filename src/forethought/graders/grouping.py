"""Answers -> groups of the same answer, for votes over samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

from ..core.protocols import Grader
from ..core.votes import ABSTAINS

# In one call: 45 different answers, each compared with all the others, take 990. The bound is for graders whose
# comparisons are slow (`math`: milliseconds each, seconds at worst); a vote that is split further says little.
MAX_COMPARISONS = 1_000


def group_answers(answers: Sequence[str], grader: Grader) -> list[int]:
    """The group of each answer, numbered by first appearance; `ABSTAINS` (-1) for an answer that cannot be read.

    Answers with equal readings are in one group. Others are compared with one answer of each group so far, the most
    frequent first; after `MAX_COMPARISONS` comparisons, only equal readings are in one group. Which answers are
    together does not depend on their order.

    Args:
        answers: to one question, from any number of samples and options.
        grader: reads and compares them.
    """
    text_of: dict[Hashable, str] = {}  # by reading; the first in the alphabet stands for all
    reading_of = {text: grader.read(text) for text in sorted(set(answers))}
    stands_for = {
        text: text_of.setdefault(reading, text) for text, reading in reading_of.items() if reading is not None
    }
    num_of = Counter(stands_for[answer] for answer in answers if answer in stands_for)
    firsts: list[str] = []  # of each group
    first_of: dict[str, str] = {}
    comparisons = iter(range(MAX_COMPARISONS))
    for text in sorted(num_of, key=lambda text: (-num_of[text], text)):
        allowed = zip(firsts, comparisons, strict=False)
        first_of[text] = next((first for first, _ in allowed if grader.same(text, first)), text)
        if first_of[text] == text:
            firsts.append(text)
    number_of: dict[str, int] = {}
    return [
        number_of.setdefault(first_of[stands_for[answer]], len(number_of)) if answer in stands_for else ABSTAINS
        for answer in answers
    ]
