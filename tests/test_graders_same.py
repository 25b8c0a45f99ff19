"""Which answers count as one in a vote: `same` and `read` of every grader, and the groups that they make."""

from __future__ import annotations

import importlib.util
import io
import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import strangers
from forethought.control.judging import Judge
from forethought.core import registry
from forethought.core.data import Grade
from forethought.core.protocols import Grader, completed
from forethought.errors import InvalidSettingsError
from forethought.graders import ChoiceGrader, ExactGrader, NumberGrader, group_answers
from forethought.graders.grouping import MAX_COMPARISONS

CASES = Path(__file__).parent.parent / "docs" / "results" / "graders" / "cases.jsonl"
NUMBER = NumberGrader()


@pytest.fixture(scope="module")
def made() -> Iterator[dict[str, Grader]]:
    """A grader of each name; that of mathematics takes seconds to start."""
    graders = {
        name: registry.make("graders", name, {})
        for name in registry.BUILTIN["graders"]
        if name != "math" or importlib.util.find_spec("sympy")
    }
    yield graders
    if "math" in graders:
        graders["math"].close()


GROUPS = {
    "number: by value": (
        "number",
        ["1,000", "18", "1000.0", "$18", "1/2", "18 dollars", "0.5", "50%", "many", "12 or 13", "18.0000001", ""],
        [0, 1, 0, 1, 2, 1, 2, 3, -1, -1, 1, -1],
    ),
    "number: decimals up to a millionth": ("number", ["0.333333", "1/3", "0.3333", "2/6"], [0, 0, 1, 0]),
    "choice: by letter": (
        "choice",
        ["(b)", "B. Paris", "the answer is A", "b", "neither", "A or B", "A"],
        [0, 0, 1, 0, -1, -1, 1],
    ),
    "exact: by text": ("exact", ["Paris", "**paris**", "paris.", " ", "Rome", "5!", "5"], [0, 0, 0, -1, 1, 2, 3]),
    "math: by meaning": (
        "math",
        ["x+1", r"\frac12", "1+x", "0.5", r"\boxed{1+x}", "x + 1.", "2x^3 -", "2x^3 -", r"\sqrt{8}", r"2\sqrt2", ""],
        [0, 1, 0, 1, 0, 0, -1, -1, 2, 2, -1],
    ),
    "math: a unit need not be stated": ("math", ["90", r"90^\circ", "91", r"90\text{ degrees}"], [0, 0, 1, 0]),
    "math: a false equation, a text cut off": ("math", [r"2 \times 3 = 5", r"(-\infty, 2.6", "6"], [-1, -1, 0]),
}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "answers", "groups"), GROUPS.values(), ids=GROUPS.keys())
def test_answers_are_grouped(made: dict[str, Grader], name: str, answers: list[str], groups: list[int]) -> None:
    if name not in made:
        pytest.skip("needs sympy")
    assert group_answers(answers, made[name]) == groups


def test_no_answers_have_no_groups() -> None:
    assert group_answers([], NUMBER) == []


# --- numbers ------------------------------------------------------------------------------------------------------


@st.composite
def spellings(draw: st.DrawFn) -> tuple[Fraction, str]:
    """A number, and one of the ways to write it."""
    whole = draw(st.integers(-3_000_000, 3_000_000))
    value = Fraction(whole, draw(st.sampled_from([1, 1, 1, 2, 4, 5, 8])))
    forms = [str(value), f"the answer is {value}", rf"\boxed{{{value}}}", f" {value}.", f"**{value}**"]
    forms += [f"{float(value)}", f"{float(value):,}", f"{float(value)} eggs"]
    if value.denominator == 1:
        forms += [f"{whole:,}", f"{whole} dollars", f"x = {value}", f"{value}%"] if value == whole else []
    return value, draw(st.sampled_from(forms))


@settings(max_examples=200, deadline=None)
@given(spellings(), spellings())
def test_numbers_are_the_same_where_their_values_are(one: tuple[Fraction, str], other: tuple[Fraction, str]) -> None:
    (value, text), (other_value, other_text) = one, other
    assert NUMBER.read(text) == value
    assert NUMBER.same(text, text)
    is_near = abs(value - other_value) <= Fraction(1, 10**6) * max(abs(value), abs(other_value))
    is_whole = value.denominator == other_value.denominator == 1
    assert (
        NUMBER.same(text, other_text)
        is NUMBER.same(other_text, text)
        is (value == other_value if is_whole else is_near)
    )


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["{}", "{}.", "${}", "{} or so", "?"]))), st.randoms())
def test_groups_do_not_depend_on_the_order(drawn: list[tuple[int, str]], random: Any) -> None:
    answers = [form.format(number) for number, form in drawn]
    groups = dict(zip(answers, group_answers(answers, NUMBER), strict=True))
    assert [code for code in dict.fromkeys(groups.values()) if code >= 0] == list(
        range(max(groups.values(), default=-1) + 1)
    )
    shuffled = random.sample(answers, len(answers))
    again = dict(zip(shuffled, group_answers(shuffled, NUMBER), strict=True))
    for a, b in itertools.product(groups, repeat=2):
        assert (groups[a] == groups[b]) is (again[a] == again[b])
        assert (groups[a] >= 0) is (NUMBER.grade(answer=a, reference="1") is not Grade.UNREADABLE)


# --- what verdicts say --------------------------------------------------------------------------------------------


def cases(name: str, every: int) -> list[tuple[str, str]]:
    if not CASES.exists():
        pytest.skip("needs docs/results/graders/cases.jsonl of the source tree")
    read = map(json.loads, CASES.read_text("utf-8").splitlines())
    found = [(case["answer"], case["reference"]) for case in read if case["grader"] == name and "options" not in case]
    return found[::every]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["number", "choice", "exact"])
def test_answers_of_one_group_get_one_verdict(made: dict[str, Grader], name: str) -> None:
    grader, pairs = made[name], cases(name, 1)
    texts = list(dict.fromkeys(itertools.chain.from_iterable(pairs)))
    members = defaultdict(list)
    for text in texts:
        if (reading := grader.read(text)) is not None:
            members[reading].append(text)
    assert len(texts) - len(members) > 100, "many share a reading"
    for reference in texts[::10]:
        for each in members.values():
            assert len({grader.grade(answer=text, reference=reference) for text in each}) == 1
    for answer, reference in pairs:
        is_right = grader.grade(answer=answer, reference=reference) is Grade.RIGHT
        assert grader.same(answer, reference) is grader.same(reference, answer) is is_right


@pytest.mark.slow
def test_the_same_mathematics_is_not_right_and_wrong(made: dict[str, Grader]) -> None:
    if "math" not in made:
        pytest.skip("needs sympy")
    grader, pairs = made["math"], cases("math", 14)
    references = [reference for _, reference in pairs[::4]]
    counts: Counter[bool] = Counter()
    for answer, reference in pairs:
        is_same = grader.same(answer, reference)
        counts[is_same] += 1
        assert grader.same(reference, answer) is is_same
        assert not is_same or grader.grade(answer=answer, reference=reference) is Grade.RIGHT
        for other in references if is_same else ():
            verdicts = {grader.grade(answer=text, reference=other) for text in (answer, reference)}
            assert not {Grade.RIGHT, Grade.WRONG} <= verdicts, (answer, reference, other)
    assert min(counts[True], counts[False]) > 10


@pytest.mark.slow
def test_the_worker_does_not_compare_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sympy")
    from forethought.graders import math_worker

    asked: Counter[tuple[str, str]] = Counter()

    def judge(answer: str, reference: str) -> str:
        asked[answer, reference] += 1
        return "wrong"

    monkeypatch.setattr(math_worker, "judge", judge)
    monkeypatch.setattr(math_worker, "limit_memory", lambda: None)
    monkeypatch.setattr(math_worker, "limit_time", lambda seconds: None)
    requests = io.StringIO((json.dumps({"answer": "a", "reference": "b"}) + "\n") * 3)
    math_worker.main(requests, verdicts := io.StringIO(), 1.0)
    assert verdicts.getvalue().count("wrong") == 3
    assert asked["a", "b"] == 1


# --- graders of others, and the bound -------------------------------------------------------------------------------


class Initials:
    """A grader that looks at the first letter and counts its comparisons; "-" has none."""

    __slots__ = ("num_graded",)
    version = "1"

    def __init__(self) -> None:
        self.num_graded = 0

    def grade(self, *, answer: str, reference: str) -> Grade:
        self.num_graded += answer != reference
        if "-" in (answer[:1], reference[:1]):
            return Grade.UNREADABLE
        return Grade.RIGHT if answer[:1] == reference[:1] else Grade.WRONG


class Opinionated(Initials):
    """One that has its own rule."""

    __slots__ = ()

    def same(self, a: str, b: str) -> bool:
        return a[-1:] == b[-1:]


@dataclass(frozen=True, slots=True)
class Frozen:
    """One whose fields cannot be set."""

    version: str = "1"

    def grade(self, *, answer: str, reference: str) -> Grade:
        return Grade.RIGHT if answer == reference else Grade.WRONG


def test_a_grader_without_same_compares_by_its_verdicts() -> None:
    grader = Judge.of(Initials()).grader
    assert isinstance(grader, Initials)
    assert isinstance(grader, Grader)
    assert group_answers(["ab", "ba", "ac", "-", "bc"], grader) == [0, 1, 0, -1, 1]
    assert group_answers(["x", "y", "x"], Judge.of(Frozen()).grader) == [0, 1, 0]
    ends = Judge.of(strangers.Ends()).grader
    assert group_answers(["it is 4", "4", "5", " "], ends) == [0, 0, 1, -1]
    assert Judge.of(strangers.Ends()).provenance.grader == "Ends"


def test_a_graders_own_rule_is_kept() -> None:
    grader = Judge.of(Opinionated()).grader
    assert group_answers(["ab", "bb", "ac"], grader) == [0, 0, 1]


def test_a_grader_of_nothing_is_refused() -> None:
    with pytest.raises(InvalidSettingsError, match="grader 'int' lacks `grade`, or `version`"):
        Judge.of(5)  # type: ignore[arg-type]


def test_comparisons_are_bounded_and_the_most_frequent_answers_come_first() -> None:
    grader = Initials()
    letters = [chr(ord("A") + number) for number in range(200)]
    answers = [*letters, "Zebra", "zoo", "zoo", "zoo", "zebra", "zebra", "aa"]
    groups = group_answers(answers, completed(grader, "initials"))
    assert grader.num_graded <= 2 * MAX_COMPARISONS
    assert len({groups[place] for place in range(201, 206)}) == 1, "the frequent ones are compared"
    assert len(set(groups)) > 150, "the others are not"
    assert groups == group_answers(answers, completed(grader, "initials"))


def test_equal_readings_need_no_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    grader = ExactGrader()
    monkeypatch.setattr(ExactGrader, "same", lambda *pair: pytest.fail("nothing needs comparing"))
    assert group_answers(["Yes", "yes.", "**YES**"], grader) == [0, 0, 0]
    letters = ChoiceGrader(first_index=0)
    assert group_answers(["1", "B", "(b)", "0"], letters) == [0, 0, 0, 1]
