"""Errors returned by servers, also under status 200: which are temporary, which will repeat, how long to wait."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from .retrying import RETRIED

UNKNOWN_ATTEMPTS = 3  # at an error of which it is not known whether it passes
PERMANENT = re.compile(
    r"invalidrequest|invalidrequesterror|badrequest|badrequesterror|authentication|authenticationerror|"
    r"unauthorized|unauthenticated|permission|permissionerror|permissiondenied|permissiondeniederror|notfound|"
    r"notfounderror|modelnotfound|requesttoolarge|billing|billingerror|insufficientquota|insufficientcredits|"
    r"invalidargument|failedprecondition|outofrange|invalidapikey|contextlengthexceeded|"
    r"contextwindowexceedederror|exceedcontextsizeerror|contentfilter|contentpolicyviolation|"
    r"contentpolicyviolationerror|unprocessableentityerror|unsupportedparameter|unsupportedvalue|"
    r"unknownparameter|stringabovemaxlength"
)
PASSING = re.compile(
    r"ratelimit|ratelimiterror|ratelimitexceeded|toomanyrequests|resourceexhausted|overloaded|overloadederror|"
    r"unavailable|serviceunavailable|internal|internalerror|internalservererror|servererror|apierror|timeout|"
    r"timeouterror|deadlineexceeded|badgateway|engineoverloaded"
)
LIMIT = re.compile("ratelimit|ratelimiterror|ratelimitexceeded|toomanyrequests|resourceexhausted")
TOO_LONG = re.compile(
    r"context[ _](?:length|window|size)|maximum context|exceeds? the (?:available |model'?s? )?context|"
    r"(?:prompt|input) is too long|content[ _](?:filter|policy|management)|usage policies",
    re.IGNORECASE,
)
USED_UP = re.compile(
    r"insufficient[ _](?:quota|credits?|balance|funds)|credit balance|billing|payment required|out of credits|"
    r"exceeded your current quota",
    re.IGNORECASE,
)


def error_in(found: dict[str, Any]) -> Any:
    """The error in an answer or an event of a stream, next to its choices or in one; None if there is none.

    An error in a choice, such as {"code": 502, "message": …}, says that the provider behind the server failed.
    """
    if found.get("error"):
        return found["error"]
    if found.get("object") == "error" or found.get("type") == "error":  # older vLLM, in a stream
        return found
    choices = found.get("choices")
    for choice in choices if isinstance(choices, list) else []:
        if isinstance(choice, dict) and choice.get("error"):
            return choice["error"]
        if isinstance(choice, dict) and str(choice.get("finish_reason")).lower() in BROKEN:
            return {"message": f"the server ended the request with {choice['finish_reason']!r}", "type": "server_error"}
    return None


BROKEN = frozenset({"error", "abort", "aborted", "cancelled", "canceled", "insufficient_system_resource", "overloaded"})


def may_pass(error: Any, *, status: int = 200, wait: float | None = None) -> bool | None:
    """Whether a retry may help; None if that is not known.

    Args:
        error: the error object, or a text.
        status: of the answer that it came with.
        wait: seconds that it asks to wait; who names a time expects to be asked again.
    """
    details = error if isinstance(error, dict) else {}
    text = str(error)[:4000]
    code = _number(details.get("code"), details.get("status"), details.get("status_code"))
    code = status if status != 200 else code
    names = {_plain(details.get(key)) for key in ("type", "code", "status", "reason")} - {""}
    if wait is None and USED_UP.search(text):
        return False
    if code != 429 and TOO_LONG.search(text):
        return False
    if code is not None:
        return code in RETRIED or code >= 500 if status == 200 else code in RETRIED
    if any(map(PERMANENT.fullmatch, names)):
        return False
    return True if any(map(PASSING.fullmatch, names)) or wait is not None else None


def cause(error: Any, status: int) -> str:
    """What an error is counted as: its status, or "error" for one that came under status 200."""
    if status != 200:
        return str(status)
    details = error if isinstance(error, dict) else {}
    is_limit = _number(details.get("code"), details.get("status"), details.get("status_code")) == 429
    names = {_plain(details.get(key)) for key in ("type", "code", "status")}
    return (
        "429"
        if is_limit or names & {"ratelimit", "ratelimiterror", "ratelimitexceeded", "resourceexhausted"}
        else "error"
    )


def message(found: Any) -> Any:
    """The human part of an error object, whichever of the usual shapes it has."""
    for _ in range(8):
        if not isinstance(found, dict):
            break
        inner = next((found[key] for key in ("error", "message", "detail") if found.get(key)), None)
        if inner is None:
            break
        found = inner
    return found


def _number(*values: Any) -> int | None:
    for value in values:
        text = "" if isinstance(value, bool) else str(value)
        if re.fullmatch(r"[1-5]\d\d", text):
            return int(text)
    return None


def _plain(value: Any) -> str:
    return re.sub(r"[^a-z]", "", value.lower()) if isinstance(value, str) else ""


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
    milliseconds = _seconds(headers.get("retry-after-ms", ""), now)
    found = (
        _seconds(headers.get("Retry-After", ""), now),  # a number or a date (RFC 9110, 10.2.3)
        None if milliseconds is None else milliseconds / 1000,
        *_in_body(body, now, 0),
    )
    return max((wait for wait in found if wait is not None), default=None)


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
