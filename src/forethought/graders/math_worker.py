"""Compares mathematics in a separate process: computer algebra may not terminate, and only a process can be stopped.

Started as `python -P -m forethought.graders.math_worker SECONDS`. Reads one JSON object per line, `{"answer": …,
"reference": …}`; writes one JSON string per line: "right", "wrong" or "unreadable"; first of all "ready". A comparison
that takes more than SECONDS of processor time ends the process; by the clock, verdicts would depend on what else the
machine does.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import sys
import time
import warnings
from typing import TextIO

from .latex import Unread
from .meanings import Quantity, Reading
from .reading import read
from .sameness import is_same
from .words import UNIT_LETTERS, unit_letters

MAX_MEMORY_BYTES = 4 << 30
KEPT_VERDICTS = 4_096
# The first comparison loads further modules: it must not count as slow.
WARM_UP = (("x^2-1", "(x-1)(x+1)"), (r"\sqrt{8}", r"2\sqrt{2}"), (r"(1,2)\cup(3,\infty)", "x>3"))

_read = functools.lru_cache(maxsize=256)(read)


def judge(answer: str, reference: str) -> str:
    """The verdict on one answer; both are texts without the marks around them."""
    try:
        stated, expected = _read(answer), _read(reference)
        units = [_letters(side) for side in (stated, expected)]
        if units[0] and not units[1]:
            expected = _read(reference, units[0])
        elif units[1] and not units[0]:
            stated = _read(answer, units[1])
        if is_same(stated, expected):
            return "right"
        return "unreadable" if not any(units) and _may_be_units(answer, reference) else "wrong"
    except Unread:
        return "unreadable"
    except (Exception, MemoryError):  # whatever a computer algebra system may throw at odd input
        return "unreadable"


def _letters(side: Reading) -> tuple[str, ...]:
    """The letters that stand for units of a side, which the other side may have written as variables."""
    return unit_letters(side.meaning.unit) if isinstance(side.meaning, Quantity) else ()


def _may_be_units(*texts: str) -> bool:
    """Whether two texts are the same if the letters of one are units: "5 m" and "5"."""
    sides, is_other = [], 0
    for text in texts:
        with contextlib.suppress(Unread):
            sides.append(_read(text, UNIT_LETTERS))
            is_other += sides[-1] != _read(text)
    return len(sides) == 2 and is_other == 1 and is_same(*sides)


def limit_memory() -> None:
    """Keeps a huge power from filling the machine; does nothing where the system has no such limit."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    except (ImportError, ValueError, OSError):
        pass


def limit_time(seconds: float) -> None:
    """Ends the process after so many more seconds of processor time, where the system can."""
    try:
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time() + seconds), hard))
    except (ImportError, ValueError, OSError):
        pass


def main(requests: TextIO, verdicts: TextIO, seconds: float) -> None:
    """Answers requests until their stream ends; each may take so many seconds of processor time."""
    limit_memory()
    warnings.simplefilter("ignore")
    kept = functools.lru_cache(maxsize=KEPT_VERDICTS)(judge)  # votes over more and more samples ask again
    for answer, reference in WARM_UP:
        judge(answer, reference)
    print(json.dumps("ready"), file=verdicts, flush=True)
    for line in requests:
        request = json.loads(line)
        limit_time(seconds)
        print(json.dumps(kept(**request)), file=verdicts, flush=True)


if __name__ == "__main__":
    # Whatever a library prints must not be taken for a verdict.
    own_stdout = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    main(sys.stdin, own_stdout, float(sys.argv[1]))
