"""How long a server asks to wait before the next try: in which header or words ever it says so."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

SOFT = ("x-ratelimit-reset", "ratelimit-reset", "x-rate-limit-reset", "x-ratelimit-reset-after")
PARTS = ("requests", "tokens", "input-tokens", "output-tokens")
UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
WORDS = {
    **UNITS,
    **dict.fromkeys(("millisecond", "milliseconds", "msec"), 1e-3),
    **dict.fromkeys(("sec", "secs", "second", "seconds"), 1.0),
    **dict.fromkeys(("min", "mins", "minute", "minutes"), 60.0),
    **dict.fromkeys(("hr", "hrs", "hour", "hours"), 3600.0),
    **dict.fromkeys(("day", "days"), 86400.0),
}
_unit = "|".join(sorted(map(re.escape, WORDS), key=len, reverse=True))
_amount = rf"\d{{1,12}}(?:\.\d{{1,12}})?\s?(?:{_unit})(?![a-zµ])"
AMOUNT = re.compile(rf"(\d{{1,12}}(?:\.\d{{1,12}})?)\s?({_unit})(?![a-zµ])", re.IGNORECASE)
DURATION = re.compile(rf"(?:{_amount}[\s,]{{0,3}})+", re.IGNORECASE)
TOLD = re.compile(rf"\b(?:again|retry|wait|resets?)\b\D{{0,30}}?((?:{_amount}(?:,?\s(?:and\s)?)?)+)", re.IGNORECASE)
FIELDS = frozenset(
    ("retryafter", "retrydelay", "retryafterseconds", "retryafterms", "retryin", "resetafter", "xratelimitreset")
)
MOST_DEPTH, MOST_CHARACTERS = 8, 4000


def asked_wait(headers: Mapping[str, str], body: Any = None, now: datetime | None = None) -> float | None:
    """Seconds that an answer asks to wait; None where it says nothing of it.

    Args:
        headers: of the answer.
        body: its JSON, or its text.
        now: the time that dates are held against; None for the clock's.
    """
    now = now or datetime.now(UTC)
    found = [retry_after(headers, now)]
    milliseconds = _seconds(headers.get("retry-after-ms", ""), now)
    found.append(None if milliseconds is None else milliseconds / 1000)
    told = [wait for wait in (*found, *_in_body(body, now, 0)) if wait is not None]
    return max(told) if told else None


def reset_wait(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds until a limit that is used up is whole again, by the headers that tell of limits; None without one.

    It is more than one need wait, so it is only believed where nothing else is said, and never waited out in full.
    """
    now = now or datetime.now(UTC)
    waits: list[float | None] = [_seconds(headers.get(name, ""), now) for name in SOFT]
    policy = re.search(r"(?:\breset\s*=|;\s*t=)\s*(\d{1,9})", headers.get("ratelimit", ""))
    waits.append(float(policy[1]) if policy else None)
    used_up: list[float] = []
    others = [wait for wait in waits if wait is not None]
    for part in PARTS:
        for reset, remaining in (
            (f"x-ratelimit-reset-{part}", f"x-ratelimit-remaining-{part}"),
            (f"anthropic-ratelimit-{part}-reset", f"anthropic-ratelimit-{part}-remaining"),
        ):
            if (wait := _seconds(headers.get(reset, ""), now)) is not None:
                (used_up if headers.get(remaining, "").strip() == "0" else others).append(wait)
    return max(used_up) if used_up else min(others, default=None)


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds that `Retry-After` asks for, which is a number or a date (RFC 9110, 10.2.3); None where it is neither."""
    return _seconds(headers.get("Retry-After", ""), now or datetime.now(UTC))


def _seconds(text: str, now: datetime) -> float | None:
    """A number of seconds, a time since 1970 in seconds or milliseconds, a duration such as 1m30s, or a date."""
    text = text.strip()[:100]
    try:
        number = float(text)
    except ValueError:
        if DURATION.fullmatch(text):
            return _duration(text)
        return _until(text, now)
    if number > 1e9:
        number = (number / 1000 if number > 1e12 else number) - now.timestamp()
    return max(0.0, number) if number < 1e9 else None  # NaN and infinity are no waits


def _until(text: str, now: datetime) -> float | None:
    for read in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            date = read(text)
            return max(0.0, ((date if date.tzinfo else date.replace(tzinfo=UTC)) - now).total_seconds())
        except (ValueError, TypeError, OverflowError, IndexError):
            continue
    return None


def _duration(text: str) -> float:
    return sum(float(number) * WORDS[unit.lower()] for number, unit in AMOUNT.findall(text))


def _in_body(found: Any, now: datetime, depth: int) -> Iterator[float | None]:
    """Waits told anywhere in a body: fields such as Gemini's `retryDelay`, and words such as "try again in 20s"."""
    if depth > MOST_DEPTH:
        return
    if isinstance(found, str):
        yield from (_duration(match[1]) for match in TOLD.finditer(found[:MOST_CHARACTERS]))
    elif isinstance(found, list):
        for each in found[:50]:
            yield from _in_body(each, now, depth + 1)
    elif isinstance(found, dict):
        for name, value in list(found.items())[:50]:
            plain = str(name).lower().replace("_", "").replace("-", "")
            if plain in FIELDS:
                if isinstance(value, dict):
                    value = value.get("seconds", "")
                seconds = _seconds("" if isinstance(value, bool) else str(value), now)
                yield seconds / 1000 if seconds is not None and plain.endswith("ms") else seconds
            else:
                yield from _in_body(value, now, depth + 1)
