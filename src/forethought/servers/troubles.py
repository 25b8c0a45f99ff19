"""Errors that servers answer with, also under status 200: what may pass, and what would fail and cost again."""

from __future__ import annotations

import re
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
    """The error that an answer or an event of a stream holds, beside its choices or in one; None where there is none.

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
    """Whether trying again may help; None where nothing tells.

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
