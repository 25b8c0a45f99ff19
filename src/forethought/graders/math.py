r"""Grader `math`: the same mathematics."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import os
import re
import subprocess
import sys
import threading
import weakref
from typing import Any

from ..core.data import Grade
from ..core.protocols import GraderBase
from ..core.registry import EXTRAS
from ..errors import EngineError, InvalidSettingsError, MissingExtraError
from .answers import KEPT_READINGS, shortened, stated_answer, unmarked
from .number import bare_number, is_same_number
from .words import after_statement

MAX_MATH_CHARACTERS = 400
PATIENCE = 20.0  # seconds on the clock for one of processor time: a busy machine must not change a verdict
DAY = 86_400.0
START_SECONDS = 600.0  # computer algebra takes seconds to import, more on a busy machine


_TEXT = r"(?:\\(?:text|textbf|mathrm)\s*\{)?"
_LABEL = re.compile(_TEXT + r"\(([A-Z])\)\}?")  # of a multiple choice
_LABELLED = re.compile(
    _TEXT + r"\(?([A-Z])\)(?:\s*\}|(?=[\\\s~:.]))(?:\\[ ,;]|[\s~:.])*"
    r"(?=[\w$\\])(?!.*(?:\([A-Z]\)|\b(?:or|and|not)\b|\\c[au]p))"
)


class MathGrader(GraderBase):
    r"""Compares mathematics: "\sqrt{8}" is right for "2\sqrt{2}", "x+1" for "1+x", "x^2-4=0" for "x^2=4".

    Plain numbers are compared as NumberGrader does, equal texts are right; the rest goes to a process of its own with
    sympy, which is stopped when it takes too long. There a text is read to its last sign or not at all: what is not in
    the grammar (integrals, sums to n, words among formulas) is unreadable. Units, degrees and percent need not be
    stated ("90" for "90^\circ"), but must not differ. Works in any thread.

    Args:
        time_limit: seconds of processor time one comparison may take, at most a day.

    Raises:
        InvalidSettingsError: a limit that is none.
        MissingExtraError: sympy is not installed.
    """

    version = "4"

    def __init__(self, *, time_limit: float = 10.0) -> None:
        if importlib.util.find_spec("sympy") is None:
            raise MissingExtraError(
                "grader 'math' needs the package 'sympy', which is not installed. "
                f"Install it with: pip install 'forethought[{EXTRAS['sympy']}]'"
            )
        if not 0 < time_limit <= DAY:
            raise InvalidSettingsError(
                f"time_limit must be a number of seconds above 0, at most a day, not {time_limit}"
            )
        self.time_limit = time_limit
        self._lock = threading.Lock()
        self._worker: subprocess.Popen[str] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """It is made anew in another process, which starts a worker of its own."""
        return functools.partial(type(self), time_limit=self.time_limit), ()

    def grade(self, *, answer: str, reference: str) -> Grade:
        """Right when both mean the same; unreadable when either cannot be read, or is too costly to compare."""
        stated, expected = _bare(answer), _bare(reference)
        if not stated or not expected or max(len(stated), len(expected)) > MAX_MATH_CHARACTERS:
            return Grade.UNREADABLE
        number, expected_number = bare_number(stated), bare_number(expected)
        if number is not None and expected_number is not None:
            if _currency(stated) and _currency(expected) and _currency(stated) != _currency(expected):
                return Grade.UNREADABLE
            return Grade.RIGHT if is_same_number(number, expected_number) else Grade.WRONG
        if _inside(stated) == _inside(expected) and _is_closed(stated):
            return Grade.RIGHT
        if (label := _LABEL.fullmatch(expected)) and (chosen := _LABELLED.match(stated)):
            return Grade.RIGHT if chosen[1] == label[1] else Grade.WRONG
        return self._compare(stated, expected)

    def same(self, a: str, b: str) -> bool:
        """Whether both mean the same. Equal texts without a known meaning do not: answers are often cut off alike."""
        return super().same(a, b) and None not in (self.read(a), self.read(b))

    def read(self, answer: str) -> str | None:
        """The answer without the marks and words around it; None where it has no known meaning."""
        bare = _bare(answer)
        if not bare or len(bare) > MAX_MATH_CHARACTERS:
            return None
        is_read = bare_number(bare) is not None or self._compare(bare, bare) is Grade.RIGHT
        return bare if is_read else None

    def close(self) -> None:
        """Stops the process; it starts again when needed."""
        if self._worker is not None:
            _stop(self._worker)
            self._worker = None

    def _compare(self, stated: str, expected: str) -> Grade:
        with self._lock:
            return Grade(self._ask({"answer": stated, "reference": expected}))

    def _ask(self, request: dict[str, str]) -> str:
        if self._worker is not None and self._worker.poll() is not None:
            self.close()  # it died between two requests
        if self._worker is None:
            self._worker = _start_worker(self.time_limit)
            weakref.finalize(self, _stop, self._worker)
            if _exchange(self._worker, None, START_SECONDS) != "ready":
                self.close()
                raise EngineError("grader 'math' cannot start: try it with: python -c 'import sympy'")
        verdict = _exchange(self._worker, request, PATIENCE * self.time_limit)
        if verdict is None:
            self.close()
        return verdict or "unreadable"


def _start_worker(seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "forethought.graders.math_worker", str(seconds)],
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


@functools.lru_cache(maxsize=KEPT_READINGS)
def _bare(text: str) -> str:
    """The answer in the end of a text, without marks and words around it."""
    return unmarked(after_statement(unmarked(stated_answer(shortened(text) or ""))))


def _inside(text: str) -> str:
    r"""`text` without `\text{}` around the whole of it, and in single blanks."""
    match = re.fullmatch(r"\\(?:text|mathrm|textbf)\s*\{([^{}]*)\}", text)
    return " ".join((match[1] if match else text).split())


def _currency(text: str) -> str:
    """The sign of the money that a bare number is; "" where it is none. A dollar sign around it is TeX's."""
    found = re.search(r"[€£¥₹]|\\\$|^-?\$(?!.*\$)", text)
    return found.group().strip("\\-") if found else ""


def _is_closed(text: str) -> bool:
    """Whether every brace is closed: what was cut off is no answer, even where both sides were."""
    depth = 0
    for sign in text:
        depth += {"{": 1, "}": -1}.get(sign, 0)
        if depth < 0:
            return False
    return depth == 0
