"""What plain ASGI needs around a request: its body read and given once more, its headers, an error as the reply."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
}


def headers_of(scope: Message) -> dict[str, str]:
    """A request's headers by name in lower case; of several of one name the last."""
    return {bytes(name).decode("latin-1").lower(): bytes(text).decode("latin-1") for name, text in scope["headers"]}


def path_of(scope: Message) -> str:
    """The path without the prefix under which the app is mounted."""
    return str(scope["path"]).removeprefix(str(scope.get("root_path", "")))


async def read_body(receive: Receive, most: int) -> tuple[bytes | None, bool]:
    """`(the body, whether that is all of it)`: its beginning where it is too long, None where the client went away."""
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        return bytes(message.get("body", b"")), True
    content = bytearray()
    while message["type"] == "http.request":
        content += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(content), True
        if len(content) > most:
            return bytes(content), False
        message = await receive()
    return None, False


async def left(receive: Receive) -> None:
    """Returns when the client has gone away."""
    while (await receive())["type"] != "http.disconnect":
        pass


def parsed(content: bytes) -> Mapping[str, Any] | None:
    """The body as an object; None where it is none, which the server says itself.

    Text in another encoding than UTF-8 is none (RFC 8259): it could have more tokens than bytes.
    """
    try:
        body = json.loads(content.decode().removeprefix("\ufeff"))
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def replayed(content: bytes, receive: Receive, *, is_whole: bool = True) -> Receive:
    """Gives the body once more, then whatever the client does next: the server waits for it to hang up."""
    is_given = False

    async def replay() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": content, "more_body": not is_whole}

    return replay


def with_header(scope: Message, header: str, value: int | str) -> Message:
    """The same request with one header set."""
    name = header.encode()
    others = [pair for pair in scope["headers"] if bytes(pair[0]).lower() != name]
    return {**scope, "headers": [*others, (name, str(value).encode())]}


async def send_error(
    send: Send, status: int, message: str, code: str, headers: Mapping[str, str] | None = None
) -> None:
    """An error in the form of OpenAI's API, which is that of Anthropic's too."""
    error = {"message": message, "type": TYPES.get(status, "api_error"), "param": None, "code": code}
    body = json.dumps({"type": "error", "error": error}).encode()
    found = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
    pairs = [(name.encode(), text.encode("latin-1", "replace")) for name, text in found.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body, "more_body": False})
