"""What the gateway offers, as an OpenAPI 3.1 document: the routes on which it decides, and its own."""

from __future__ import annotations

from functools import cache
from typing import Any

from .._version import __version__
from .request import MOST_THOUGHTS

JSON = "application/json"
QUESTION = "What is 17 times 23?"
MODEL = "qwen3-8b"
TURNS = {
    "type": "array",
    "minItems": 1,
    "items": {"type": "object", "required": ["role"], "properties": {"role": {"type": "string"}, "content": {}}},
}
NUMBER = {
    "type": ["integer", "null"],
    "minimum": 1,
    "maximum": MOST_THOUGHTS,
    "description": "Answers; each is reserved and counted.",
}
LIMIT = {
    "type": ["integer", "null"],
    "minimum": 1,
    "description": "Limit on all that is generated; lowered where the option needs less.",
}
EFFORT = {"type": ["string", "null"], "description": "The client's own level; it wins, up to the tenant's ceiling."}
STREAM = {
    "stream": {"type": ["boolean", "null"]},
    "stream_options": {"type": ["object", "null"], "properties": {"include_usage": {"type": "boolean"}}},
}
OUTCOME = {
    "type": "object",
    "required": ["id", "right"],
    "additionalProperties": False,
    "properties": {
        "id": {"type": "string", "description": "`x-forethought-id` of the reply."},
        "right": {"type": "boolean"},
    },
}
HEADERS = {
    "x-forethought-id": ("Id of the request, for feedback and the journal.", "string"),
    "x-forethought-budget": ("Cap on the reasoning tokens of a thought.", "integer"),
    "x-forethought-option": ("Name of the option.", "string"),
    "x-forethought-expected": ("Predicted chance of a right answer.", "number"),
    "x-forethought-predicted": ("Tokens that it is expected to generate.", "integer"),
    "x-forethought-used": ("Tokens that were counted; not on streams.", "integer"),
    "x-forethought-reason": ("Why this option.", "string"),
}
ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "code": {"type": ["string", "integer", "null"]},
            },
        }
    },
}
WAIT = {
    "description": "Seconds until the same request fits if nobody else comes.",
    "schema": {"type": "integer"},
}
RETRY = {"description": "`false` where no wait helps.", "schema": {"type": "string"}}
SENT = ("400", "401", "403", "404", "405", "408", "413", "429", "502", "503", "504", "4XX", "5XX")
OTHER = {"429": "Full", "503": "Later", "4XX": "Theirs", "5XX": "Theirs"}
FIELDS: dict[str, tuple[str, str, tuple[str, ...], dict[str, Any], dict[str, Any]]] = {
    "/v1/chat/completions": (
        "chat",
        "A chat completion: its option is chosen, reserved, set and counted.",
        ("messages",),
        {"messages": TURNS, "n": NUMBER, "max_tokens": LIMIT, "max_completion_tokens": LIMIT, **STREAM}
        | {"reasoning_effort": EFFORT, "tools": {"type": ["array", "null"], "items": {"type": "object"}}},
        {"messages": [{"role": "user", "content": QUESTION}]},
    ),
    "/v1/completions": (
        "complete",
        "A text completion.",
        ("prompt",),
        {"prompt": {"type": ["string", "array"]}, "n": NUMBER, "best_of": NUMBER, "max_tokens": LIMIT, **STREAM},
        {"prompt": QUESTION, "max_tokens": 64},
    ),
    "/v1/responses": (
        "respond",
        "A response. Only levels have a field there.",
        ("input",),
        {"input": {"anyOf": [{"type": "string"}, TURNS]}, "max_output_tokens": LIMIT, **STREAM}
        | {"reasoning": {"type": ["object", "null"], "properties": {"effort": EFFORT}}},
        {"input": QUESTION, "max_output_tokens": 512},
    ),
    "/v1/messages": (
        "message",
        "A message, in the form of Anthropic's API.",
        ("messages", "max_tokens"),
        {"messages": TURNS, "max_tokens": {"type": "integer", "minimum": 1}, "stream": STREAM["stream"]}
        | {"thinking": {"type": "object", "properties": {"budget_tokens": {"type": "integer"}}}},
        {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 2048},
    ),
}


@cache
def document() -> dict[str, Any]:
    """The document, JSON-able. Fields and routes that it does not name go to the server as they are."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Forethought gateway",
            "version": __version__,
            "description": "Routes on which the gateway decides, and its own. All other routes of the server pass "
            "through, and fields that are not listed go to it as they are.",
        },
        "paths": {path: {"post": _generating(*found)} for path, found in FIELDS.items()} | _passed() | _own(),
        "components": {
            "securitySchemes": {
                "tenant": {"type": "http", "scheme": "bearer", "description": "Key of a tenant; also as x-api-key."},
                "admin": {"type": "http", "scheme": "bearer", "description": "Key of --admin-key-env."},
            },
            "headers": {
                name: {"description": words, "schema": {"type": kind}} for name, (words, kind) in HEADERS.items()
            },
            "schemas": {"Error": ERROR},
            "responses": {
                "Refused": _reply("Refused, or failed, by the gateway.", _ref("schemas", "Error")),
                "Later": _reply("Nothing was sent to the server.", _ref("schemas", "Error"))
                | {"headers": {"retry-after": WAIT}},
                "Full": _reply("A quota does not hold the request, or the server takes no more for now.", {})
                | {"headers": {"retry-after": WAIT, "x-should-retry": RETRY}},
                "Theirs": _reply("An error of the server, as it is.", {}),
            },
        },
    }


def _generating(
    name: str, words: str, required: tuple[str, ...], properties: dict[str, Any], example: dict[str, Any]
) -> dict[str, Any]:
    schema = {"type": "object", "required": list(required), "properties": {"model": {"type": "string"}, **properties}}
    done = {
        "description": "The server's reply, whole or as events.",
        "headers": {header: _ref("headers", header) for header in HEADERS},
        "content": {JSON: {"schema": {"type": "object"}}, "text/event-stream": {}},
    }
    return _operation(name, "generation", words, {"200": done, **_refused(*SENT)}, security=("tenant",)) | {
        "requestBody": _body(schema, {"model": MODEL, **example})
    }


def _passed() -> dict[str, Any]:
    """Two of the routes that pass through."""
    replies = {"200": _reply("As the server has it.", {}), **_refused(*SENT)}
    models = _operation("models", "passed through", "The server's own list.", replies, security=("tenant",))
    embed = _operation("embed", "passed through", "Is not counted.", replies, security=("tenant",))
    body = _body({"type": "object"}, {"model": MODEL, "input": QUESTION})
    return {"/v1/models": {"get": models}, "/v1/embeddings": {"post": embed | {"requestBody": body}}}


def _own() -> dict[str, Any]:
    health = {
        "type": "object",
        "required": ["status"],
        "properties": {"status": {"enum": ["ok", "unavailable"]}, "reason": {"type": "string"}},
    }
    form = {"type": "object", "required": ["key"], "properties": {"key": {"type": "string"}}}
    kept = {"type": "object", "required": ["kept"], "properties": {"kept": {"type": "integer"}}}
    told = {"anyOf": [OUTCOME, {"type": "array", "items": OUTCOME}]}
    example = {"id": "0123456789abcdef0123456789abcdef", "right": True}
    away = {"303": {"description": "To the page."}}

    def shown(name: str, words: str, *kinds: str) -> dict[str, Any]:
        replies = {"200": {"description": words, "content": {kind: {} for kind in kinds}}, **_refused("401", "403")}
        return _operation(name, "gateway", words, replies, security=("admin",))

    page = shown("page", "The page; without the key the form that asks for it.", "text/html")
    page["responses"]["401"] = {"description": "The form.", "content": {"text/html": {}}}
    events = shown("events", "What the page shows, as it changes.", "text/event-stream")
    events["responses"]["503"] = _ref("responses", "Refused")
    replies = {"200": _reply("Requests are taken.", health), "503": _reply("They are not, and why.", health)}
    wrong = {"401": {"description": "The form once more.", "content": {"text/html": {}}}}
    login = _operation("login", "gateway", "Takes the key, and sets a cookie.", away | _refused("400", "408", "413"))
    login["responses"] |= wrong
    login["requestBody"] = {"required": True, "content": {"application/x-www-form-urlencoded": {"schema": form}}}
    told_replies = {"200": _reply("On disk.", kept)}
    told_replies |= _refused("400", "401", "403", "404", "408", "409", "413", "415", "503")
    feedback = _operation(
        "feedback", "gateway", "Whether requests were answered right.", told_replies, security=("tenant", "admin")
    )
    this = {"200": _reply("OpenAPI 3.1.", {"type": "object"})}
    logout = _operation("logout", "gateway", "Removes the cookie.", away | _refused("401", "403"), security=("admin",))
    return {
        "/health": {"get": _operation("health", "gateway", "Whether requests are taken.", replies)},
        "/metrics": {"get": shown("metrics", "Counts for Prometheus.", "text/plain", "application/openmetrics-text")},
        "/forethought/": {"get": page},
        "/forethought/state": {"get": shown("state", "What the page shows.", JSON)},
        "/forethought/events": {"get": events},
        "/forethought/openapi.json": {"get": _operation("openapi", "gateway", "This document.", this)},
        "/forethought/login": {"post": login},
        "/forethought/logout": {"post": logout},
        "/forethought/feedback": {"post": feedback | {"requestBody": _body(told, example)}},
    }


def _operation(
    name: str, tag: str, words: str, replies: dict[str, Any], *, security: tuple[str, ...] = ()
) -> dict[str, Any]:
    asked: list[dict[str, Any]] = [
        *({each: []} for each in security),
        {},
    ]  # without a file of tenants, or a key, none is asked for
    return {"operationId": name, "tags": [tag], "summary": words, "security": asked, "responses": replies}


def _refused(*statuses: str) -> dict[str, Any]:
    return {status: _ref("responses", OTHER.get(status, "Refused")) for status in statuses}


def _body(schema: dict[str, Any], example: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {JSON: {"schema": schema, "example": example}}}


def _reply(words: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": words, "content": {JSON: {"schema": schema} if schema else {}}}


def _ref(kind: str, name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/{kind}/{name}"}
