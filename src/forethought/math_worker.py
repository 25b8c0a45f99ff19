"""Runs math-verify in a process of its own: computer algebra can take forever, and only a process can be stopped.

Started as a script (`python -P math_worker.py SECONDS`), so it imports nothing of this package. Reads one JSON object a
line, `{"answer": …, "reference": …}`; writes one JSON string a line: "right", "wrong" or "unreadable"; first of all
"ready". A comparison that takes more than SECONDS of processor time ends the process; by the clock, verdicts would
depend on what else the machine does.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import time
from typing import Any, TextIO

MAX_MEMORY_BYTES = 4 << 30
# Their first comparison loads further modules: it must not count as slow.
WARM_UP = (("x^2-1", "(x-1)(x+1)"), ("(1,2)", "\\{1,2\\}"))


def judge(math_verify: Any, answer: str, reference: str) -> str:
    """Verdict on one answer; both texts are taken as LaTeX."""
    try:
        stated = math_verify.parse(f"${answer}$", parsing_timeout=None)
        expected = math_verify.parse(f"${reference}$", parsing_timeout=None)
        if not stated or not expected:
            return "unreadable"
        if math_verify.verify(expected, stated, timeout_seconds=None):
            return "right"
        # A text that it cannot parse comes back as nothing but itself.
        is_parsed = all(any(not isinstance(reading, str) for reading in side) for side in (stated, expected))
        return "wrong" if is_parsed else "unreadable"
    except (Exception, MemoryError):  # whatever a computer algebra system may throw at odd input
        return "unreadable"


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
    import math_verify

    logging.disable()  # math-verify logs a traceback for each text it cannot parse
    for answer, reference in WARM_UP:
        judge(math_verify, answer, reference)
    print(json.dumps("ready"), file=verdicts, flush=True)
    for line in requests:
        request = json.loads(line)
        limit_time(seconds)
        print(json.dumps(judge(math_verify, **request)), file=verdicts, flush=True)


if __name__ == "__main__":
    # Whatever a library prints must not be taken for a verdict.
    own_stdout = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    main(sys.stdin, own_stdout, float(sys.argv[1]))
