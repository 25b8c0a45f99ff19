"""The math grader against itself: golds in other spellings, and golds with one sign changed.

A few dozen answers of MATH (Hendrycks et al. 2021, MIT licence) and the rewritings of `benchmarks/grader_fuzz.py`,
which asks the same of all of MATH-500.
"""

from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("sympy")

from forethought.graders.answers import stated_answer, unmarked
from forethought.graders.math_worker import judge


def load_fuzz() -> ModuleType:
    path = Path(__file__).parent.parent / "benchmarks" / "grader_fuzz.py"
    spec = importlib.util.spec_from_file_location("grader_fuzz", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


grader_fuzz = load_fuzz()

GOLDS = [
    r"\left( 3, \frac{\pi}{2} \right)",
    "p - q",
    r"\frac{14}{3}",
    r"\text{Evelyn}",
    r"90^\circ",
    r"3\sqrt{13}",
    "6 - 5i",
    r"\pi",
    "x=5",
    "1,-2",
    "52_8",
    r"11\sqrt2",
    "3, 5, 7",
    "x^5 - x^4 + x^3 - x^2 + x - 1",
    r"-\frac{\pi}{6}",
    "(6,31,-1)",
    "2516_8",
    r"\cot x",
    r"1 \pm \sqrt{19}",
    r"\begin{pmatrix} -1/3 \\ 2/3 \\ 5/3 \end{pmatrix}",
    "(a+5)(b+2)",
    "(3,4]",
    r"\frac43",
    "5x - 7y + 11z + 4 = 0",
    r"(2,\infty)",
    r"10,\!080",
    r"\text{(C)}",
    r"\frac 59",
    r"\$32,\!348",
    r"864 \mbox{ inches}^2",
    r"1\frac{4}{5}",
    r"\left(\frac{3}{5},\frac{8}{3}\right]",
    r"5.4 \text{ cents}",
    r"(-\infty, 0]",
    r"\frac{11+9a}{20}",
    r"(0,9) \cup (9,36)",
    r"x \in [-2,7]",
    r"\{1\pm\sqrt{5},-2\}",
    "3R^2",
    "y = 2x + 3",
    ".35625",
    "58,500",
]


def verdict(answer: str, reference: str) -> str:
    return judge(unmarked(stated_answer(answer)), unmarked(stated_answer(reference)))


@pytest.mark.slow
@pytest.mark.parametrize("gold", GOLDS)
def test_a_gold_is_itself_in_every_spelling(gold):
    texts = dict(grader_fuzz.rewritten(gold))
    assert len(texts) > 8
    assert {kind: verdict(text, gold) for kind, text in texts.items()} == dict.fromkeys(texts, "right")


@pytest.mark.slow
@pytest.mark.parametrize("gold", GOLDS)
def test_a_gold_with_one_sign_changed_is_another(gold):
    texts = [text for text in grader_fuzz.mutated(gold) if not grader_fuzz.judged_same(text, gold)]
    assert len(texts) > 4
    assert [text for text in texts if verdict(text, gold) == "right"] == []


@pytest.mark.slow
def test_no_two_golds_are_the_same():
    pairs = itertools.combinations(GOLDS, 2)
    assert [pair for pair in pairs if verdict(*pair) == "right"] == []


@pytest.mark.parametrize(
    ("left", "right", "is_same"),
    [
        (r"\frac43", r"\frac{4}{3}", True),
        (r"2\sqrt{2}", r"\sqrt{8}", True),
        ("1,-2", "-2,1", True),
        ("x+1", "1+x", True),
        ("x^2", "x^3", False),
        ("1,2", "1,3", False),
        (r"\foo", r"\bar", False),
    ],
)
def test_the_judge_can_say_yes_and_no(left, right, is_same):
    assert grader_fuzz.judged_same(left, right) is is_same
