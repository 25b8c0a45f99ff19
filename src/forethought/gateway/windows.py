"""The windows of a quota: fixed calendar windows in UTC, and how long counts of past ones are kept."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

MINUTE, HOUR, DAY, MONTH, ALL = "minute", "hour", "day", "month", "all"
WINDOWS = (MINUTE, HOUR, DAY, MONTH, ALL)
SECONDS = {MINUTE: 60, HOUR: 3_600, DAY: 86_400}
KEPT = {MINUTE: 2 * 3_600, HOUR: 3 * 86_400, DAY: 93 * 86_400}  # seconds after which counts of a past window may go

Quotas = Mapping[str, int]  # window -> tokens; a window that is missing has no quota


@dataclass(frozen=True, slots=True)
class Window:
    """One stretch of the calendar.

    Attributes:
        name: one of WINDOWS.
        start: seconds since the epoch; 0 for ALL.
        end: the second at which the next one begins; infinite for ALL.
    """

    name: str
    start: int
    end: float


def window_at(name: str, now: float) -> Window:
    """The window called `name` in which the second `now` lies.

    Args:
        name: one of WINDOWS.
        now: seconds since the epoch.
    """
    if name == ALL:
        return Window(ALL, 0, math.inf)
    if name == MONTH:
        day = datetime.fromtimestamp(now, UTC)
        start = datetime(day.year, day.month, 1, tzinfo=UTC)
        following = datetime(day.year + day.month // 12, day.month % 12 + 1, 1, tzinfo=UTC)
        return Window(MONTH, int(start.timestamp()), following.timestamp())
    length = SECONDS[name]
    first = int(now // length) * length
    return Window(name, first, float(first + length))


def windows_at(now: float) -> tuple[Window, ...]:
    """All five, in the order of WINDOWS."""
    return tuple(window_at(name, now) for name in WINDOWS)


def per(name: str) -> str:
    """`tokens per minute`, `tokens in all`: how a quota is named in a sentence."""
    return "tokens in all" if name == ALL else f"tokens per {name}"
