"""Answer + reference -> right, wrong or unreadable."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import string
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

from .errors import EngineError, InvalidSettingsError, MissingExtraError
from .numerals import MAX_CHARACTERS, boxed, read_number
from .problems import Problems, excerpt
from .protocols import Grader
from .registry import EXTRAS
from .types import Grade, Query

RELATIVE_TOLERANCE = Fraction(1, 10**6)
MAX_MATH_CHARACTERS = 400
PATIENCE = 20.0  # seconds on the clock for one of processor time: a busy machine must not change a verdict
START_SECONDS = 600.0  # computer algebra takes seconds to import, more on a busy machine

_SURROUNDINGS = " .,;:!?*`$\"'“”‘’«»"
_LATEX_DELIMITERS = re.compile(r"^\\[(\[]|\\[)\]]$")
_LATEX_TEXT = re.compile(r"\\(?:text|mathrm|textbf|mathbf)\s*\{([^{}]*)\}")


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


class ExactGrader:
    """Compares texts; case, spacing, surrounding punctuation, quotes, Markdown stars and LaTeX `$` do not count."""

    version = "2"

    def grade(self, *, answer: str, reference: str) -> Grade:
        """Right when both are the same text; unreadable when the answer is blank."""
        stated = _bare_text(answer)
        if not stated:
            return Grade.UNREADABLE
        return _verdict(stated == _bare_text(reference))


class NumberGrader:
    """Compares numbers as `numerals` reads them.

    Whole numbers must be equal; others may differ by a millionth of the reference, so that 0.333333 is right for 1/3.
    "50%" is right for 50, never for 0.5.
    """

    version = "2"

    def grade(self, *, answer: str, reference: str) -> Grade:
        """Right when both state the same number; unreadable when either states none, or several."""
        stated, expected = read_number(answer), read_number(reference)
        if stated is None or expected is None:
            return Grade.UNREADABLE
        return _verdict(_is_same_number(stated, expected))


class ChoiceGrader:
    """Compares the letter of a multiple choice: "B", "(b)", "B. Paris", "option B", "the answer is B".

    A letter on its own is the choice. In a longer text the first kind of marking that occurs decides (announced as
    answer or option; labelled "(B)", "B." or "B:"; a lone capital), and must name one choice only. "A" before a word
    in small letters may be the article, and is no choice.

    Args:
        letters: the choices' letters, "ABCDE" unless told.
        first_index: also read a bare whole number as a choice, counting from this one (MMLU labels count from 0).
    """

    version = "2"

    def __init__(self, *, letters: str = "ABCDE", first_index: int | None = None) -> None:
        if not letters or len(set(letters)) < len(letters) or not set(letters) <= set(string.ascii_uppercase):
            raise InvalidSettingsError(f"letters must be different capital letters such as 'ABCD', got {letters!r}")
        self.letters = letters
        self.first_index = first_index
        capital, either = f"[{letters}]", f"[{letters}{letters.lower()}]"
        self._alone = re.compile(rf"[(\[]?({either})[)\].:,;]*")
        self._markings = [
            re.compile(pattern)
            for pattern in (
                rf"\b(?i:answer|choice|option)\s*(?i:is\b|:)?\s*(?i:option|choice)?\s*"
                rf"(?:\(({either})\)|({capital})\b|({either})\W*$)(?!\s*(?:or|and|,|/)\s*\(?{capital}\b)",
                rf"(?<!\w)(?:\(({either})\)|({capital})[).:](?=\s|$))",
                rf"(?<![\w'’-])({capital})(?![\w'’-])",
            )
        ]

    def grade(self, *, answer: str, reference: str) -> Grade:
        """Right when both name the same choice; unreadable when either names none, or several."""
        stated, expected = self.read(answer), self.read(reference)
        if stated is None or expected is None:
            return Grade.UNREADABLE
        return _verdict(stated == expected)

    def read(self, text: str) -> str | None:
        """The letter `text` chooses; None when it chooses none, or leaves a doubt."""
        plain = _LATEX_TEXT.sub(r"\1", boxed(text[:MAX_CHARACTERS]))
        plain = re.sub(r"[*$`\"{}]|\\[()\[\]]", " ", plain).strip()
        if match := self._alone.fullmatch(plain):
            return match.group(1).upper()
        if self.first_index is not None and re.fullmatch(r"[0-9]{1,2}\.?", plain):
            position = int(plain.rstrip(".")) - self.first_index
            return self.letters[position] if 0 <= position < len(self.letters) else None
        for marking in self._markings:
            chosen = {letter.upper() for match in marking.finditer(plain) for letter in match.groups() if letter}
            if chosen == {"A"} and marking is self._markings[-1] and re.search(r"\bA\s+[a-z]", plain):
                return None
            if chosen:
                return chosen.pop() if len(chosen) == 1 else None
        return None


class MathGrader:
    r"""Compares mathematics with math-verify: "\sqrt{8}" is right for "2\sqrt{2}", "x+1" for "1+x".

    Plain numbers are compared as NumberGrader does, equal texts are right; the rest goes to a process of its own, which
    is stopped when it takes too long. Works in any thread.

    Args:
        time_limit: seconds of processor time one comparison may take.

    Raises:
        MissingExtraError: math-verify is not installed.
    """

    version = "2"

    def __init__(self, *, time_limit: float = 10.0) -> None:
        if importlib.util.find_spec("math_verify") is None:
            raise MissingExtraError(
                "grader 'math' needs the package 'math_verify', which is not installed. "
                f"Install it with: pip install 'forethought[{EXTRAS['math_verify']}]'"
            )
        self.time_limit = time_limit
        self._lock = threading.Lock()
        self._worker: subprocess.Popen[str] | None = None

    def grade(self, *, answer: str, reference: str) -> Grade:
        """Right when both mean the same; unreadable when either cannot be read, or is too costly to compare."""
        stated_number, expected_number = read_number(answer), read_number(reference)
        if stated_number is not None and expected_number is not None:
            return _verdict(_is_same_number(stated_number, expected_number))
        stated, expected = _bare_latex(answer), _bare_latex(reference)
        if not stated or not expected:
            return Grade.UNREADABLE
        if stated == expected:
            return Grade.RIGHT
        if max(len(stated), len(expected)) > MAX_MATH_CHARACTERS:
            return Grade.UNREADABLE
        with self._lock:
            return Grade(self._ask({"answer": stated, "reference": expected}))

    def close(self) -> None:
        """Stops the process; it starts again when needed."""
        if self._worker is not None:
            _stop(self._worker)
            self._worker = None

    def _ask(self, request: dict[str, str]) -> str:
        if self._worker is None:
            self._worker = _start_worker(self.time_limit)
            weakref.finalize(self, _stop, self._worker)
            if _exchange(self._worker, None, START_SECONDS) != "ready":
                self.close()
                raise EngineError("grader 'math' cannot start: try it with: python -c 'import math_verify'")
        verdict = _exchange(self._worker, request, PATIENCE * self.time_limit)
        if verdict is None:
            self.close()
        return verdict or "unreadable"


def _start_worker(seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        # -P: the folder of the script would hide modules of the standard library (`types`).
        [sys.executable, "-P", str(Path(__file__).with_name("math_worker.py")), str(seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        encoding="utf-8",
    )


def _exchange(worker: subprocess.Popen[str], request: dict[str, str] | None, seconds: float) -> str | None:
    """The worker's next word, after `request` when there is one; None when it died or had to be stopped."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    timer = threading.Timer(seconds, worker.kill)
    timer.start()
    try:
        if request is not None:
            worker.stdin.write(json.dumps(request) + "\n")
            worker.stdin.flush()
        line = worker.stdout.readline()
        return str(json.loads(line)) if line else None
    except (OSError, ValueError):
        return None
    finally:
        timer.cancel()


def _stop(worker: subprocess.Popen[str]) -> None:
    worker.kill()
    for stream in (worker.stdin, worker.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):  # a request that was never read
                stream.close()
    worker.wait()


def _bare_latex(text: str) -> str:
    return " ".join(boxed(text).split()).strip("$ ")


def _bare_text(text: str) -> str:
    bare = " ".join(boxed(text).casefold().split())
    for _ in range(3):  # quotes within stars within dollars
        bare = _LATEX_DELIMITERS.sub("", bare).strip(_SURROUNDINGS)
    # An answer may be nothing but punctuation.
    return bare or " ".join(text.casefold().split())


def _is_same_number(stated: Fraction, expected: Fraction) -> bool:
    if stated.denominator == expected.denominator == 1:
        return stated == expected
    return abs(stated - expected) <= RELATIVE_TOLERANCE * abs(expected)


def _verdict(is_right: bool) -> Grade:
    return Grade.RIGHT if is_right else Grade.WRONG
