"""How long a call takes, where a promise is about time."""

from __future__ import annotations

import time
from collections.abc import Callable


def least_seconds(
    call: Callable[[], object], *, times: int = 1, rounds: int = 5, clock: Callable[[], float] = time.thread_time
) -> float:
    """Seconds of this thread's core for one call, in the best of several rounds.

    Neither other programs nor a single collection of garbage (a second, beside a whole suite's objects) are counted.
    Where another process does the work, `clock` is `time.perf_counter`.
    """

    def seconds() -> float:
        started = clock()
        for _ in range(times):
            call()
        return (clock() - started) / times

    return min(seconds() for _ in range(rounds))
