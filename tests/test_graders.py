"""Answers against references: tables of verdicts, and what must hold for any text."""

from __future__ import annotations

import importlib.util
import io
import json
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forethought import graders, math_worker
from forethought.errors import EngineError, InvalidInputError, InvalidSettingsError, MissingExtraError
from forethought.graders import ChoiceGrader, ExactGrader, MathGrader, NumberGrader, check_references
from forethought.numerals import read_number
from forethought.types import Grade, Query

RIGHT, WRONG, UNREADABLE = Grade.RIGHT, Grade.WRONG, Grade.UNREADABLE

# --- numbers -----------------------------------------------------------------------------------------------------

READINGS = {
    "18": 18,
    " 18\n": 18,
    "18.": 18,
    "007": 7,
    "+5": 5,
    "3.0": 3,
    ".5": Fraction(1, 2),
    "1,234": 1234,
    "$1,234.50": Fraction(2469, 2),
    "1,000,000 people": 10**6,
    "1\u202f000\u202f000": 10**6,
    "9999999999999999999999": 9999999999999999999999,
    "50%": 50,
    "18\\%": 18,
    "33 1/3%": Fraction(100, 3),
    "1/2": Fraction(1, 2),
    "2 1/2": Fraction(5, 2),
    "1½": Fraction(3, 2),
    "½": Fraction(1, 2),
    "\\frac{1}{2}": Fraction(1, 2),
    "-\\dfrac12": Fraction(-1, 2),
    "-3": -3,
    "−3": -3,
    "-$5": -5,
    "$-5": -5,
    "negative 5": -5,
    "1e5": 10**5,
    "1.5 x 10^3": 1500,
    "2·10⁻²": Fraction(1, 50),
    "5 thousand": 5000,
    "3.5 million dollars": 3_500_000,
    "٣": 3,
    "(5)": 5,
    "**18**": 18,
    "\\text{18 meters}": 18,
    "10 apples": 10,
    "100 cm^2": 100,
    "20 °C": 20,
    "1st": 1,
    "#18": 18,
    "18 (18 dollars)": 18,
    "3 + 4 = 7": 7,
    "x = 5": 5,
    "5 =": 5,
    "≈18": 18,
    "\\boxed{42}": 42,
    "\\boxed{1}, or rather \\boxed{\\frac{1}{2}}": Fraction(1, 2),
    "\\boxed{42": 42,
    "12 is wrong; the answer is 7.": 7,
    "Answer: 3. No, the answer is: **4**": 4,
    "answer: 5\n#### 5": 5,
}
NO_READINGS = {
    "blank": ["", " ", "-", ".", "%", "\\boxed{}"],
    "words": ["seven", "no number", "H2O", "18 dollars and 5 cents", "5k", "$5K"],
    "several": ["12 or 13", "3, 4", "3 and 4", "{1, 2}", "12-13"],
    "separators": ["1,23", "12,34", "1.234.567", "0.1.2", "1_000", "1 000 000"],
    "not worked out": [
        "2^5",
        "2π",
        "3x",
        "5/x",
        "√2",
        "\\sqrt{2}",
        "5!",
        "5 - 3",
        "2 x 3 x",
        "<5",
        "~18",
        "5 ± 1",
        "x_1",
        "x+1",
        "1+x",
        "n - 2",
        "y/2",
    ],
    "sign or dash": ["- 5", "--5"],
    "date or time": ["10:30", "2024-01-02", "1/2/2024"],
    "beyond size": ["1/0", "1e400", "1e999999999", "9" * 101],
}


@pytest.mark.parametrize("text", READINGS)
def test_a_number_is_read(text):
    assert read_number(text) == READINGS[text]


@pytest.mark.parametrize("kind", NO_READINGS)
def test_what_states_no_one_number_has_no_reading(kind):
    assert {text: read_number(text) for text in NO_READINGS[kind]} == dict.fromkeys(NO_READINGS[kind])


@pytest.mark.parametrize(
    ("answer", "reference", "verdict"),
    [
        ("18", "18", RIGHT),
        ("$18.00", "18", RIGHT),
        ("17", "18", WRONG),
        ("-18", "18", WRONG),
        ("18 or 19", "18", UNREADABLE),
        ("", "18", UNREADABLE),
        ("18", "eighteen", UNREADABLE),
        ("50%", "50", RIGHT),
        ("50%", "0.5", WRONG),
        ("0.333333", "1/3", RIGHT),
        ("0.333", "1/3", WRONG),
        ("1000001", "1000000", WRONG),
        ("1000000.5", "1000000", RIGHT),
        ("0.0000001", "0", WRONG),
        ("1,234,567", "1234567", RIGHT),
    ],
)
def test_number_verdicts(answer, reference, verdict):
    assert NumberGrader().grade(answer=answer, reference=reference) is verdict


@settings(deadline=None)
@given(st.integers(-(10**12), 10**12))
def test_any_whole_number_is_read_in_any_dress(number):
    dresses = [f"{number}", f"{number:,}", f"**{number}**", f"\\boxed{{{number}}}", f"The answer is ${number:,}.00."]
    assert [read_number(dress) for dress in dresses] == [number] * 5


@settings(deadline=None)
@given(st.integers(-(10**6), 10**6), st.integers(1, 10**6))
def test_any_fraction_is_read_exactly(numerator, denominator):
    assert read_number(f"{numerator}/{denominator}") == Fraction(numerator, denominator)


# --- exact -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "reference", "verdict"),
    [
        ("Paris", "paris.", RIGHT),
        ("  New \n York ", "new york", RIGHT),
        ("**Paris**", "Paris", RIGHT),
        ("“Paris”", "'Paris'", RIGHT),
        ("\\boxed{Yes}", "yes", RIGHT),
        ("$x$", "\\(x\\)", RIGHT),
        ("ß", "ss", RIGHT),
        ("a b", "ab", WRONG),
        ("Paris, France", "Paris", WRONG),
        ("x", "", WRONG),
        ("!", "!", RIGHT),
        ("?", "!", WRONG),
        ("", "x", UNREADABLE),
        (" \n", "x", UNREADABLE),
    ],
)
def test_exact_verdicts(answer, reference, verdict):
    assert ExactGrader().grade(answer=answer, reference=reference) is verdict


# --- choice ------------------------------------------------------------------------------------------------------

CHOICES = {
    "B": "B",
    "b": "B",
    " (b) ": "B",
    "B.": "B",
    "B) Paris": "B",
    "B: Paris": "B",
    "**B**": "B",
    "$B$": "B",
    "\\boxed{D}": "D",
    "\\boxed{\\text{D}}": "D",
    "option B": "B",
    "choice c": "C",
    "Answer is b.": "B",
    "The answer is (C).": "C",
    "the correct answer is option D) 12": "D",
    "I first thought (A), but the answer is B": "B",
    "A: yes": "A",
    "D 12": "D",
    "Plan B is good": "B",
    "": None,
    "F": None,
    "BE": None,
    "a dog": None,
    "A dog": None,
    "The answer is a dog": None,
    "A or B": None,
    "(A) or (B)": None,
    "A, B": None,
    "Both A and B": None,
    "the answer is A or B": None,
    "O'B": None,
    "3": None,
}


@pytest.mark.parametrize("text", CHOICES)
def test_a_choice_is_read(text):
    assert ChoiceGrader().read(text) == CHOICES[text]


@pytest.mark.parametrize(
    ("answer", "reference", "verdict"),
    [("(b)", "B", RIGHT), ("C", "B", WRONG), ("B or C", "B", UNREADABLE), ("B", "none", UNREADABLE)],
)
def test_choice_verdicts(answer, reference, verdict):
    assert ChoiceGrader().grade(answer=answer, reference=reference) is verdict


@pytest.mark.parametrize(
    ("text", "letter"), [("0", "A"), ("3.", "D"), ("4", None), ("-1", None), ("C", "C"), ("03", "D")]
)
def test_a_whole_number_may_be_a_choice(text, letter):
    assert ChoiceGrader(letters="ABCD", first_index=0).read(text) == letter


@pytest.mark.parametrize("letters", ["", "AA", "ab", "A1", "AÄ"])
def test_letters_must_be_different_capitals(letters):
    with pytest.raises(InvalidSettingsError, match="different capital letters"):
        ChoiceGrader(letters=letters)


# --- any text ----------------------------------------------------------------------------------------------------

scraps = st.sampled_from(
    [
        "\\boxed{",
        "}",
        "\\frac{",
        "1",
        ",",
        ".",
        "/",
        "-",
        " ",
        "$",
        "%",
        "=",
        "answer is ",
        "A",
        "(",
        ")",
        "e9",
        "½",
        "²",
        "\n",
        "\0",
    ]
)
any_text = st.text(max_size=40) | st.lists(scraps, max_size=12).map("".join)
CHEAP = [ExactGrader(), NumberGrader(), ChoiceGrader(), ChoiceGrader(first_index=0)]


@settings(max_examples=300, deadline=None)
@given(any_text, any_text)
def test_odd_text_is_graded_never_raised(answer, reference):
    for grader in CHEAP:
        assert grader.grade(answer=answer, reference=reference) in Grade
        assert grader.grade(answer=answer, reference=answer) is not WRONG, "a text is never wrong for itself"


@pytest.mark.parametrize(
    "unit",
    [
        "1 ",
        "1,",
        ",",
        "1/",
        "-",
        "{",
        "\\frac{",
        "\\boxed{",
        "$",
        "(",
        "1e",
        "answer is ",
        "A ",
        "(A",
        " ",
        "٣",
        "1 1/",
    ],
)
def test_a_long_text_takes_no_long_time(unit):
    start = time.process_time()
    for grader in CHEAP:
        grader.grade(answer=unit * 20_000, reference="1")
    assert time.process_time() - start < 2.0


# --- references --------------------------------------------------------------------------------------------------


def test_references_that_a_grader_cannot_read_are_all_named():
    queries = [Query("a", "q", "18"), Query("b", "q", "about 12-13"), Query("c", "q"), Query("d", "q", "x^2")]
    with pytest.raises(InvalidInputError) as refusal:
        check_references(NumberGrader(), queries, source="q.jsonl")
    unread = "cannot be read by NumberGrader; correct it, or choose another --grader"
    assert str(refusal.value).splitlines() == [
        "q.jsonl: 2 problems",
        f"  row 2 ('b'): the reference 'about 12-13' {unread}",
        f"  row 4 ('d'): the reference 'x^2' {unread}",
    ]
    check_references(ExactGrader(), queries)


# --- math --------------------------------------------------------------------------------------------------------


def skip_without_math() -> None:
    if importlib.util.find_spec("math_verify") is None:  # importing it here as well would take seconds
        pytest.skip("needs math-verify")


@pytest.fixture(scope="module")
def math_grader():
    """One worker process for all: it takes seconds to start."""
    skip_without_math()
    grader = MathGrader()
    yield grader
    grader.close()


@pytest.mark.parametrize(
    ("answer", "reference", "verdict"),
    [
        ("\\sqrt{8}", "2\\sqrt{2}", RIGHT),
        ("x+1", "1+x", RIGHT),
        ("x^2-1", "(x-1)(x+1)", RIGHT),
        ("\\frac{1}{2}", "0.5", RIGHT),
        ("(1,2)", "(1, 2)", RIGHT),
        ("\\{1,2\\}", "\\{2,1\\}", RIGHT),
        ("x=5", "5", RIGHT),
        ("$\\boxed{x+1}$", "x+1", RIGHT),
        ("5!", "120", RIGHT),
        ("x+2", "1+x", WRONG),
        ("x+1", "y+1", WRONG),
        ("(2,1)", "(1,2)", WRONG),
        ("[1,2]", "[1,2)", WRONG),
        ("\\pi", "3.14", WRONG),
        ("7", "8", WRONG),
        ("", "x", UNREADABLE),
        ("$$", "x", UNREADABLE),
        ("x", " ", UNREADABLE),
        ("a+" * 300, "b", UNREADABLE),
        ("\\begin{oops", "x", UNREADABLE),
        ("x +", "x", UNREADABLE),
        ("even", "\\text{odd}", WRONG),
        ("\\text{even}", "even", RIGHT),
    ],
)
def test_math_verdicts(math_grader, answer, reference, verdict):
    assert math_grader.grade(answer=answer, reference=reference) is verdict


def test_math_numbers_and_equal_texts_need_no_process(monkeypatch):
    skip_without_math()
    monkeypatch.setattr(graders, "_start_worker", lambda seconds: pytest.fail("no process is needed"))
    grader = MathGrader()
    assert grader.grade(answer="$1,000", reference="1000.0") is RIGHT
    assert grader.grade(answer="17", reference="18") is WRONG
    assert grader.grade(answer="x  + 1", reference="\\boxed{x + 1}") is RIGHT


def test_math_works_in_threads(math_grader):
    verdicts = {}

    def grade(number: int) -> None:
        verdicts[number] = math_grader.grade(answer=f"x+{number}", reference="2+x")

    threads = [threading.Thread(target=grade, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert verdicts == {0: WRONG, 1: WRONG, 2: RIGHT, 3: WRONG}


def test_math_goes_on_after_its_process_was_stopped(math_grader, monkeypatch):
    assert math_grader.grade(answer="y+1", reference="1+y") is RIGHT
    stopped = math_grader._worker
    monkeypatch.setattr(math_grader, "time_limit", 1e-5)
    assert math_grader.grade(answer="x^2+3x", reference="x(x+3)") is UNREADABLE, "too slow on the clock"
    assert stopped.poll() is not None
    monkeypatch.undo()
    assert math_grader.grade(answer="x^2+3x", reference="x(x+3)") is RIGHT


def test_a_comparison_is_limited_in_processor_time():
    """In a process of its own, which the system must end."""
    pytest.importorskip("resource")
    code = "import math_worker\nmath_worker.limit_time(0.2)\nwhile True: pass"
    folder = str(Path(math_worker.__file__).parent)
    ended = subprocess.run(
        [sys.executable, "-P", "-c", f"import sys; sys.path.append({folder!r})\n{code}"], check=False
    )
    assert ended.returncode == -signal.SIGXCPU


def test_math_that_cannot_start_says_what_to_try(monkeypatch):
    skip_without_math()

    def start(seconds):
        command = [sys.executable, "-c", "raise SystemExit(1)"]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8")

    monkeypatch.setattr(graders, "_start_worker", start)
    with pytest.raises(EngineError, match="import math_verify"):
        MathGrader().grade(answer="x", reference="y")


def test_math_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'forethought\[math\]'"):
        MathGrader()


@pytest.mark.parametrize(
    ("parsed", "is_same", "verdict"),
    [
        ([1, "1"], True, "right"),
        ([1, "1"], False, "wrong"),
        (["text"], True, "right"),
        (["text"], False, "unreadable"),
        ([], True, "unreadable"),
        (MemoryError, True, "unreadable"),
    ],
)
def test_the_workers_verdicts(monkeypatch, parsed, is_same, verdict):
    def parse(text, parsing_timeout):
        if isinstance(parsed, type):
            raise parsed
        return parsed

    library = SimpleNamespace(parse=parse, verify=lambda expected, stated, timeout_seconds: is_same)
    assert math_worker.judge(library, "a", "b") == verdict


def test_the_worker_answers_line_by_line(monkeypatch):
    library = SimpleNamespace(
        parse=lambda text, parsing_timeout: [text.encode()],
        verify=lambda expected, stated, timeout_seconds: expected == stated,
    )
    monkeypatch.setitem(sys.modules, "math_verify", library)
    monkeypatch.setattr(math_worker, "limit_memory", lambda: None)
    monkeypatch.setattr(math_worker, "limit_time", lambda seconds: None)
    monkeypatch.setattr(math_worker.logging, "disable", lambda: None)
    requests = io.StringIO("".join(json.dumps({"answer": a, "reference": "x"}) + "\n" for a in ("x", "y")))
    math_worker.main(requests, verdicts := io.StringIO(), 1.0)
    assert [json.loads(line) for line in verdicts.getvalue().splitlines()] == ["ready", "right", "wrong"]
