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
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forethought.core import registry
from forethought.core.data import Grade, Query
from forethought.errors import EngineError, InvalidInputError, InvalidSettingsError, MissingExtraError
from forethought.graders import ChoiceGrader, ExactGrader, MathGrader, NumberGrader, check_references
from forethought.graders import math as math_module
from timing import least_seconds

RIGHT, WRONG, UNREADABLE = Grade.RIGHT, Grade.WRONG, Grade.UNREADABLE

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


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(any_text, any_text)
def test_odd_text_is_graded_never_raised(answer, reference):
    for grader in CHEAP:
        assert grader.grade(answer=answer, reference=reference) in Grade
        assert grader.grade(answer=answer, reference=answer) is not WRONG, "a text is never wrong for itself"


@pytest.mark.slow
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
    for grader in CHEAP:
        assert least_seconds(partial(grader.grade, answer=unit * 20_000, reference="1"), rounds=2) < 1.0


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
    if importlib.util.find_spec("sympy") is None:  # importing it here as well would take seconds
        pytest.skip("needs sympy")


@pytest.fixture(scope="module")
def math_grader():
    """One worker process for all: it takes seconds to start."""
    skip_without_math()
    grader = MathGrader()
    yield grader
    grader.close()


def test_math_numbers_and_equal_texts_need_no_process(monkeypatch):
    skip_without_math()
    monkeypatch.setattr(math_module, "_start_worker", lambda seconds: pytest.fail("no process is needed"))
    grader = MathGrader()
    assert grader.grade(answer="$1,000", reference="1000.0") is RIGHT
    assert grader.grade(answer="17", reference="18") is WRONG
    assert grader.grade(answer="x  + 1", reference="\\boxed{x + 1}") is RIGHT


@pytest.mark.slow
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


@pytest.mark.slow
def test_math_goes_on_after_its_process_was_stopped(math_grader, monkeypatch):
    assert math_grader.grade(answer="y+1", reference="1+y") is RIGHT
    stopped = math_grader._worker
    monkeypatch.setattr(math_grader, "time_limit", 1e-5)
    assert math_grader.grade(answer="x^2+3x", reference="x(x+3)") is UNREADABLE, "too slow on the clock"
    assert stopped.poll() is not None
    monkeypatch.undo()
    assert math_grader.grade(answer="x^2+3x", reference="x(x+3)") is RIGHT


@pytest.mark.slow
def test_a_process_that_ended_between_two_answers_changes_no_verdict(math_grader):
    assert math_grader.grade(answer="y+1", reference="1+y") is RIGHT
    math_grader._worker.kill()
    math_grader._worker.wait()
    assert math_grader.grade(answer="x^2+5x", reference="x(x+5)") is RIGHT


@pytest.mark.parametrize("seconds", [0, -1, 1e300, float("nan")])
def test_a_time_limit_is_a_number_of_seconds(seconds):
    skip_without_math()
    with pytest.raises(InvalidSettingsError, match="time_limit must be a number of seconds above 0"):
        MathGrader(time_limit=seconds)


LONG = "Let us think about it. " * 200


@pytest.mark.parametrize(
    ("grader", "answer", "reference", "verdict"),
    [
        (NumberGrader(), LONG + "The answer is 18.", "18", RIGHT),
        (NumberGrader(), LONG + r"\boxed{18}", "18", RIGHT),
        (NumberGrader(), f"<think>{LONG}</think>18", "18", RIGHT),
        (NumberGrader(), "18\n\nExplanation: " + LONG, "18", RIGHT),
        (NumberGrader(), "18 " + LONG, "18", UNREADABLE),
        (NumberGrader(), LONG + "18", "18", UNREADABLE),
        (ChoiceGrader(), LONG + "The answer is (C).", "C", RIGHT),
        (ChoiceGrader(), f"D\n\nQuestion: {LONG}\nAnswer: A", "D", RIGHT),
        (ExactGrader(), LONG + r"\boxed{Paris}", "Paris", RIGHT),
        (ExactGrader(), "x" + LONG, LONG, WRONG),
    ],
)
def test_a_long_answer_is_read_where_it_is_stated(grader, answer, reference, verdict):
    assert grader.grade(answer=answer, reference=reference) is verdict


@pytest.mark.slow
def test_a_comparison_is_limited_in_processor_time():
    """In a process of its own, which the system must end."""
    pytest.importorskip("resource")
    skip_without_math()
    code = "from forethought.graders import math_worker\nmath_worker.limit_time(0.2)\nwhile True: pass"
    ended = subprocess.run([sys.executable, "-c", code], check=False)
    assert ended.returncode == -signal.SIGXCPU


def test_math_that_cannot_start_says_what_to_try(monkeypatch):
    skip_without_math()

    def start(seconds):
        command = [sys.executable, "-c", "raise SystemExit(1)"]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8")

    monkeypatch.setattr(math_module, "_start_worker", start)
    with pytest.raises(EngineError, match="import sympy"):
        MathGrader().grade(answer="x", reference="y")


def test_math_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'forethought\[math\]'"):
        MathGrader()


@pytest.mark.parametrize(
    ("answer", "reference", "verdict"),
    [
        ("x+1", "1+x", "right"),
        ("x", "y", "wrong"),
        ("5\\foo", "5", "unreadable"),
        ("10 m", "10\\text{ m}", "right"),
        ("5 m", "5 meters", "right"),
        ("5 L", "5 liters", "right"),
        ("3m^2", "3 square meters", "right"),
        ("5 m/s", "5 meters per second", "right"),
        ("5 km/h", "5", "right"),
        ("3 min", "3 minutes", "right"),
        ("5 m", "5", "unreadable"),
        ("5 x", "5", "wrong"),
        ("5 m", "5 n", "wrong"),
        ("2^{10^9}", "2^{1000000000}", "right"),  # what follows had taken all of the time limit
        ("2^{10^9}", "3", "unreadable"),
        ("2\\cdot 2^{10^9}", "3", "unreadable"),
        ("9^{9^{9^9}}", "1", "unreadable"),
    ],
)
def test_the_workers_verdicts(answer, reference, verdict):
    pytest.importorskip("sympy")
    from forethought.graders import math_worker

    assert math_worker.judge(answer, reference) == verdict
    assert math_worker.judge(reference, answer) == verdict


@pytest.mark.parametrize("error", [MemoryError, RecursionError, TypeError])
def test_whatever_goes_wrong_in_the_worker_is_unreadable(monkeypatch, error):
    pytest.importorskip("sympy")
    from forethought.graders import math_worker

    def fall(*meanings):
        raise error

    monkeypatch.setattr(math_worker, "is_same", fall)
    assert math_worker.judge("x", "y") == "unreadable"


def test_the_worker_answers_line_by_line(monkeypatch):
    pytest.importorskip("sympy")
    from forethought.graders import math_worker

    monkeypatch.setattr(math_worker, "limit_memory", lambda: None)
    monkeypatch.setattr(math_worker, "limit_time", lambda seconds: None)
    requests = io.StringIO("".join(json.dumps({"answer": a, "reference": "x"}) + "\n" for a in ("x", "y")))
    math_worker.main(requests, verdicts := io.StringIO(), 1.0)
    assert [json.loads(line) for line in verdicts.getvalue().splitlines()] == ["ready", "right", "wrong"]


def test_every_grader_has_a_version():
    for name, entry in registry.BUILTIN["graders"].items():
        if name != "math" or importlib.util.find_spec("sympy"):
            assert isinstance(registry.resolve("graders", name).version, str), entry


@pytest.mark.slow
@pytest.mark.parametrize(
    "unit", ["**", "{", "answer is ", "\\boxed{", "$", "x+", "\\frac{", "<answer>", "<s>", "#### "]
)
def test_a_long_text_takes_the_math_grader_no_long_time(math_grader, unit):
    answer = unit * 20_000
    assert math_grader.grade(answer=answer, reference="x") is not RIGHT
    grade = partial(math_grader.grade, answer=answer, reference="x")
    assert least_seconds(grade, rounds=3, clock=time.perf_counter) < 2.0
