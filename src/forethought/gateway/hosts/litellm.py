"""LiteLLM's proxy as a host: the gateway's decision, quotas and records as one hook of its own kind.

LiteLLM keeps the keys, the routes and the providers; this sets the option on each request, reserves what it may use,
and settles what came back.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import fields
from typing import Any

from fastapi import HTTPException
from litellm.integrations.custom_logger import CustomLogger

from ...core.serve_settings import ServeSettings
from ...core.terms import Cost
from ...errors import InvalidSettingsError, LedgerError
from ...servers.kinds import KINDS, merged
from ..call import NOTHING, Call
from ..counting import Tally
from ..decision import Decision
from ..failing import RefusedError
from ..incoming import check_model
from ..pipeline import Pipeline
from ..request import CHAT, TEXT
from ..used import CLIENT_LEFT, DONE, REFUSED_UPSTREAM, UPSTREAM_FAILED, Used
from .upstream.opening import Opened, open_gateway

PREFIX = "FORETHOUGHT_"
# Settings of `forethought serve` that hold here, each as a variable: FORETHOUGHT_PREDICTOR, FORETHOUGHT_PRICE, …
READ = (
    *(
        "predictor",
        "price",
        "mean_tokens",
        "profile",
        "cost",
        "tenants",
        "ledger",
        "log",
        "keep_texts",
        "journal_days",
        "server",
    ),
    *("served_model", "menu", "answer_room", "cap_offset", "most_tokens", "image_tokens", "tool_tokens", "shadow"),
)
ROUTES = {"completion": CHAT, "acompletion": CHAT, "text_completion": TEXT, "atext_completion": TEXT}
# What else generates text in LiteLLM 1.108: not decided on, and refused to a tenant with limits.
UNCOUNTED = frozenset(
    each
    for name in (
        *("responses", "compact_responses", "anthropic_messages", "generate_content", "generate_content_stream"),
        *("create_batch", "create_interaction", "run_thread", "run_thread_stream", "send_message"),
        *("llm_passthrough_route", "_arealtime", "_aresponses_websocket", "pass_through_endpoint", "realtime_calls"),
        "create_realtime_client_secret",
    )
    for each in (name, f"a{name}")
)
PROMPT = (
    "messages",
    "prompt",
    "tools",
    "functions",
    "response_format",
    "system",
)  # fields that a server may make it of
TEAM, KEY = "x-litellm-team", "x-litellm-key"  # what LiteLLM knows of a client, as headers for the file of tenants
UPSTREAM = "http://litellm.invalid/v1"  # the address is LiteLLM's own affair
LEFT = 499  # LiteLLM's status of a request whose client went away while the server answered
LOST_SECONDS = (
    6_000.0  # LiteLLM's longest wait for a server: of a request that is older no hook was called, nor will be
)


def settings_from(environment: Mapping[str, str]) -> ServeSettings:
    """What the variables ask for.

    Raises:
        InvalidSettingsError: one that cannot be read, or settings that do not fit together.
    """
    kinds = {field.name: str(field.type) for field in fields(ServeSettings)}
    given: dict[str, Any] = {}
    for name in READ:
        text = environment.get(PREFIX + name.upper(), "").strip()
        if not text:
            continue
        try:
            given[name] = _value(text, kinds[name])
        except ValueError:
            raise InvalidSettingsError(f"{PREFIX}{name.upper()} cannot be {text!r}") from None
    if given.get("server", "auto") == "auto":
        raise InvalidSettingsError(
            f"say what kind of server answers behind LiteLLM: {PREFIX}SERVER, one of {', '.join(KINDS)}"
        )
    return ServeSettings(upstream=UPSTREAM, **given)


def _value(text: str, kind: str) -> Any:
    if kind == "bool":
        if text.lower() not in ("1", "true", "yes", "0", "false", "no"):
            raise ValueError(text)
        return text.lower() in ("1", "true", "yes")
    if kind.startswith("int"):
        return int(text)
    return float(text) if kind.startswith("float") else Cost(text) if kind == "Cost" else text


class Hook(CustomLogger):  # type: ignore[misc]
    """The hook: `litellm_settings: {callbacks: forethought.integrations.litellm.hook}`.

    A tenant is found by what LiteLLM knows of the client: the file's `[gateway] header = "x-litellm-team"` goes by the
    team's name, `"x-litellm-key"` by the key's. Clients cannot set these two.

    Args:
        settings: of the gateway; None to read them from the environment.

    Raises:
        InvalidSettingsError: they do not fit together.
    """

    def __init__(self, settings: ServeSettings | None = None) -> None:
        super().__init__()
        self.settings = settings_from(os.environ) if settings is None else settings
        self._opening: asyncio.Task[tuple[Opened, Pipeline]] | None = None
        self._open: dict[str, Call] = {}

    async def opened(self) -> tuple[Opened, Pipeline]:
        """What it stands on, and what requests go through; opened at the first request."""
        if self._opening is None or (self._opening.done() and self._opening.exception() is not None):
            self._opening = asyncio.ensure_future(self._opened())
        return await asyncio.shield(self._opening)

    async def _opened(self) -> tuple[Opened, Pipeline]:
        opened = await open_gateway(self.settings)
        if opened.admission is not None:
            opened.admission.start()
        return opened, opened.pipeline()

    async def close(self) -> None:
        """Lets go of ledger and journal."""
        if self._opening is not None:
            opened, _ = await self._opening
            await opened.close()

    # ------------------------------------------------------------------ LiteLLM's hooks

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: str
    ) -> dict[str, Any] | None:
        """Decides, reserves, and sets the fields; raises HTTPException where the request is refused."""
        path = ROUTES.get(call_type)
        if path is None and call_type not in UNCOUNTED:
            return None
        started, came = time.perf_counter(), time.time()
        opened, pipeline = await self.opened()
        tenant = opened.tenants.of(_headers(user_api_key_dict, data))
        if tenant is None:
            raise HTTPException(401, {"error": "no tenant has this key"}, {"www-authenticate": "Bearer"})
        if path is None:
            try:
                pipeline.check_uncounted(tenant)
                check_model(tenant, data)
            except RefusedError as error:
                raise _refused(error) from None
            return None
        call = Call(opened.seen.begin(), tenant, path, came, started, {})
        try:
            await pipeline.decide(opened.policy, call, data, _num_bytes(data))
        except RefusedError as error:
            pipeline.refuse(call, error)
            raise _refused(error) from None
        if not opened.settings.shadow and call.request is not None:
            data = merged(data, pipeline.changes(call))
        metadata = dict(data.get("metadata") or {})
        metadata["forethought"] = {"id": call.id, **_told(call.decision or NOTHING)}
        data["metadata"] = metadata
        call.added = time.perf_counter() - started
        await self._take_up(_name(data), call)
        return data

    async def async_post_call_success_hook(self, data: dict[str, Any], user_api_key_dict: Any, response: Any) -> Any:
        """Settles a whole reply."""
        call = self._open.pop(_name(data), None)
        if call is not None:
            tally = Tally(is_stream=False)
            tally.feed(_json(response))
            tally.rest()
            await self._durable(call)
            await self._settle(call, tally.used(200, DONE))
        return response

    async def async_post_call_streaming_iterator_hook(
        self, user_api_key_dict: Any, response: Any, request_data: dict[str, Any]
    ) -> AsyncIterator[Any]:
        """Passes a stream on, counts it, and settles it however it ends."""
        call = self._open.pop(_name(request_data), None)
        if call is None:
            async for chunk in response:
                yield chunk
            return
        tally, ending = Tally(is_stream=True), UPSTREAM_FAILED
        await self._durable(call)
        try:
            async for chunk in response:
                content = _json(chunk)
                tally.feed(b"data: " + content + b"\n\n")
                if not (call.drops_usage and _is_usage_alone(chunk)):
                    yield chunk
            ending = DONE
        except (GeneratorExit, asyncio.CancelledError):
            ending = CLIENT_LEFT
            raise
        finally:
            tally.rest()
            await asyncio.shield(self._settle(call, tally.used(200, ending)))

    async def async_post_call_failure_hook(
        self,
        request_data: dict[str, Any],
        original_exception: Exception,
        user_api_key_dict: Any,
        traceback_str: str | None = None,
    ) -> None:
        """Settles what failed: to nothing where the server said so, else to the reservation."""
        call = self._open.pop(_name(request_data), None)
        if call is None:
            return
        status = getattr(original_exception, "status_code", 0)
        was_told = isinstance(status, int) and 400 <= status < 600 and status != LEFT
        was_refused = was_told and not _is_broken(original_exception)
        nothing = 0 if was_refused else None
        ending = REFUSED_UPSTREAM if was_refused else CLIENT_LEFT if status == LEFT else UPSTREAM_FAILED
        await self._settle(call, Used(nothing, nothing, nothing, status if was_refused else 0, ending))

    async def async_post_call_response_headers_hook(
        self,
        data: dict[str, Any],
        user_api_key_dict: Any,
        response: Any,
        request_headers: dict[str, str] | None = None,
        litellm_call_info: dict[str, object] | None = None,
    ) -> dict[str, str] | None:
        """What was decided, as headers of the reply."""
        told = (data.get("metadata") or {}).get("forethought")
        return None if told is None else {f"x-forethought-{name}": str(value) for name, value in told.items()}

    # ------------------------------------------------------------------ quotas and records

    async def _take_up(self, name: str, call: Call) -> None:
        """Notes a request that goes on; settles those that no hook will find any more to what they reserved.

        Clients may name their requests (`x-litellm-call-id`), and two alike.
        """
        lost = [self._open.pop(name)] if name in self._open else []
        while self._open and (oldest := next(iter(self._open.items())))[1].started < call.started - LOST_SECONDS:
            lost.append(self._open.pop(oldest[0]))
        self._open[name] = call
        for each in lost:
            await self._settle(each, Used(ending=CLIENT_LEFT))

    async def _durable(self, call: Call) -> None:
        opened, _ = await self.opened()
        if call.grant is not None and opened.admission is not None:
            with suppress(LedgerError):
                await opened.admission.durable(call.grant)

    async def _settle(self, call: Call, used: Used) -> None:
        opened, pipeline = await self.opened()
        await pipeline.settle(opened.policy, call, used)


def _refused(error: RefusedError) -> HTTPException:
    return HTTPException(error.status, {"error": str(error), "code": error.code}, error.headers)


def _num_bytes(data: Mapping[str, Any]) -> int:
    """Bytes of a request's prompt: LiteLLM does not keep the body as it came."""
    asked = {name: data[name] for name in PROMPT if name in data}
    return len(json.dumps(asked, default=str).encode())


def _headers(user: Any, data: Mapping[str, Any]) -> dict[str, str]:
    """What tenants are found by: LiteLLM's own headers of the request, and the names that it knows of the client."""
    came = (data.get("proxy_server_request") or {}).get("headers") or {}
    found = {str(name).lower(): str(value) for name, value in came.items()}
    names = {
        TEAM: getattr(user, "team_alias", None) or getattr(user, "team_id", None),
        KEY: getattr(user, "key_alias", None) or getattr(user, "user_id", None),
    }
    for name, value in names.items():
        found.pop(name, None)
        if value:
            found[name] = str(value)
    return found


def _told(decision: Decision) -> dict[str, str]:
    return {name.removeprefix("x-forethought-"): value for name, value in decision.headers.items()}


def _name(data: Mapping[str, Any]) -> str:
    """What one request goes by in all hooks."""
    told = (data.get("metadata") or {}).get("forethought") or {}
    return str(data.get("litellm_call_id") or told.get("id") or "")


def _json(response: Any) -> bytes:
    found = response.model_dump_json() if hasattr(response, "model_dump_json") else json.dumps(response, default=str)
    return found.encode("utf-8", "replace")


def _is_usage_alone(chunk: Any) -> bool:
    return not getattr(chunk, "choices", None) and getattr(chunk, "usage", None) is not None


def _is_broken(error: Exception) -> bool:
    """Whether the connection failed after the request may have been sent."""
    return type(error).__name__ in ("APIConnectionError", "Timeout", "InternalServerError", "MidStreamFallbackError")
