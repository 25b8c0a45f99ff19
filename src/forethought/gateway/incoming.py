"""A request as it comes in, before anything is decided: its body, and whether its tenant may ask that model."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .admission import UNLIMITED
from .asgi import Message, Receive, read_body
from .beyond import SERVERS, STORED
from .decision import Decision
from .failing import RefusedError
from .request import BudgetRequest
from .tenants import Tenant

MOST_REQUEST_BYTES = 32_000_000  # of a body that is decided on
BODY_SECONDS = 60.0  # in which it has to come; of one that is passed on as it comes, each piece
MOST_BODY_SECONDS = 600.0  # in which all of one that is passed on has to come
LATE = "the body did not come in time"
# Fields by which some servers take another model than the one that is named, or an adapter to it; batches name theirs
# in a file or in each of their requests.
ROUTING = ("models", "fallbacks", "route", "preset", "lora_path", "lora", "input_file_id", "requests")
# Fields that say what a request may cost. Servers in Go take "Model" for "model" too, and the last of them counts.
NAMES = frozenset(
    (
        *("model", "messages", "prompt", "input", "system", "instructions", "stream", "stream_options", "background"),
        *("n", "best_of", "max_tokens", "max_completion_tokens", "max_output_tokens", "tools", "web_search_options"),
        *("reasoning_effort", "reasoning", "thinking", "output_config", *ROUTING, *SERVERS, *STORED),
    )
)


def timely(receive: Receive) -> Receive:
    """The same, with bounds on the time in which a body comes; raises RefusedError."""
    until = time.monotonic() + MOST_BODY_SECONDS
    is_over = False

    async def receive_in_time() -> Message:
        nonlocal is_over
        if is_over:
            return await receive()
        try:
            async with asyncio.timeout(min(BODY_SECONDS, until - time.monotonic())):
                message = await receive()
        except TimeoutError:
            raise RefusedError(408, LATE, "timeout") from None
        is_over = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    return receive_in_time


async def whole_body(receive: Receive) -> bytes | None:
    """The whole body; None where the client left; raises RefusedError."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            content, is_whole = await read_body(receive, MOST_REQUEST_BYTES)
    except TimeoutError:
        raise RefusedError(408, LATE, "timeout") from None
    if content is not None and (not is_whole or len(content) > MOST_REQUEST_BYTES):
        raise RefusedError(413, f"the body is longer than {MOST_REQUEST_BYTES // 1_000_000} MB", "too_large")
    return content


def check_names(body: Mapping[str, Any]) -> None:
    """Refuses a field that means something else to some servers than to others; raises RefusedError."""
    for name in body:
        if (plain := name.casefold()) != name and plain in NAMES:
            raise RefusedError(400, f"the field {name[:100]!r} has to be {plain!r}")


def check_model(tenant: Tenant, body: Mapping[str, Any]) -> None:
    """Refuses a model that the tenant may not ask; raises RefusedError."""
    if not tenant.models:
        return
    check_names(body)
    model = body.get("model")
    if not isinstance(model, str) or not tenant.may_ask(model) or any(body.get(name) for name in ROUTING):
        shown = repr(model[:100]) if isinstance(model, str) else "one that is not named"
        raise RefusedError(403, f"this tenant may not ask the model {shown}", "model_not_allowed")


def check_bounds(decision: Decision, *, has_quota: bool) -> None:
    """Refuses what would go above the tenant's ceiling, or what nothing limits under a quota; raises RefusedError."""
    if decision.unkept:
        raise RefusedError(403, decision.unkept, "ceiling_not_kept")
    if has_quota and decision.most_tokens is None:
        raise RefusedError(400, UNLIMITED, "limit_missing")


def limited(request: BudgetRequest, decision: Decision, most: int) -> Decision:
    """The decision with a limit on all that is generated, which nothing else gave it."""
    changes = {**decision.changes, **dict.fromkeys(request.room_fields, most)}
    return replace(decision, most_tokens=most, changes=changes)
