"""Requests in a provider's batch file, and what its result files say of them: a line each way, as JSON."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.files import open_bytes, parse_json, reaching
from ..core.visible import to_json
from ..errors import InvalidInputError
from ..questions.rows.lines import utf8
from .kinds import BatchForm
from .reading import MOST_BYTES
from .replies import Reply, generated_in
from .retrying import RequestError

URL = "/v1/chat/completions"
MOST_ID = 64  # characters of a custom_id: Anthropic's and Azure's limit
MESSAGES = ("model", "max_tokens", "messages", "temperature", "top_p", "thinking", "system")  # of Anthropic's own
NOT_MESSAGES = ("seed", "chat_template_kwargs", "priority")  # of OpenAI's form alone
_FOUND_ID = re.compile(rb'"custom_id"\s*:\s*"([A-Za-z0-9_-]{1,64})"')


@dataclass(frozen=True, slots=True)
class Result:
    """What one line of a result file says.

    Attributes:
        custom_id: of the request; "" where the line does not show one.
        reply: the answer; None where there is none.
        reason: why there is none.
        tokens: generated all the same, and billed; None where that cannot be known.
        prompt_tokens: of such a request.
    """

    custom_id: str
    reply: Reply | None = None
    reason: str = ""
    tokens: int | None = 0
    prompt_tokens: int | None = 0


def batch_line(form: BatchForm, custom_id: str, body: Mapping[str, Any]) -> bytes:
    """One line of a file of requests."""
    if form.field == "params":
        return f"{to_json({'custom_id': custom_id, 'params': _messages(body)})}\n".encode()
    return f"{to_json({'custom_id': custom_id, 'method': 'POST', 'url': URL, 'body': dict(body)})}\n".encode()


def _messages(body: Mapping[str, Any]) -> dict[str, Any]:
    """A chat in the manner of Anthropic's messages: system turns stand apart, and a thought is drawn as it likes."""
    turns = body["messages"]
    system = "\n\n".join(turn["content"] for turn in turns if turn["role"] == "system")
    fields = {name: value for name, value in body.items() if name not in NOT_MESSAGES}
    if "thinking" in fields:  # it takes no other drawing than its own beside a thought
        fields = {name: value for name, value in fields.items() if name not in ("temperature", "top_p")}
    rest = [turn for turn in turns if turn["role"] != "system"]
    return {**fields, **({"system": system} if system else {}), "messages": rest}


def result_lines(path: Path) -> Iterator[bytes]:
    """The lines of a result file in UTF-8, whatever it is in, at most `MOST_BYTES` of each.

    Raises:
        InvalidInputError: it is compressed, or a pipe: it is read more than once.
    """
    if path.is_fifo():
        raise InvalidInputError(f"{path} is a pipe, which can be read only once: write the results to a file")
    with open_bytes(path, "rb", "read") as stream, reaching(path, "read"):
        file, _ = utf8(stream)
        if file.peek(2).startswith(b"\x1f\x8b"):
            raise InvalidInputError(f"{path} is compressed (gzip); unpack it first, with gunzip")
        while line := file.readline(MOST_BYTES):
            if not line.endswith(b"\n") and len(line) == MOST_BYTES:
                while (rest := file.readline(MOST_BYTES)) and not rest.endswith(b"\n"):
                    pass
                line = line[:4096]  # enough to tell whose it is
            yield from line.splitlines()  # CR by itself ends a line, too: in JSON it stands in no text


def read_result(line: bytes) -> Result:
    """What a line of a result or error file says, in either form; never raises.

    A line that cannot be read, or says what no answer can, is a failed request with a reason.
    """
    try:
        found = parse_json(line.decode("utf-8", "surrogatepass"))  # of bytes, UTF-16 would be read here and there
    except ValueError as error:
        match = _FOUND_ID.search(line[:4096])
        name = match[1].decode() if match else ""
        return Result(name, reason=f"the line is torn or no JSON: {str(error)[:120]}", tokens=None, prompt_tokens=None)
    name = found.get("custom_id") if isinstance(found, dict) else None
    if not isinstance(name, str) or not name:
        return Result("", reason="the line names no custom_id", tokens=None, prompt_tokens=None)
    try:
        return _read(name, found)
    except RequestError as error:
        return Result(name, reason=str(error), tokens=error.tokens or None, prompt_tokens=None)
    except (TypeError, ValueError, AttributeError, KeyError, RecursionError) as error:
        reason = f"the answer could not be read: {type(error).__name__}: {str(error)[:120]}"
        return Result(name, reason=reason, tokens=None, prompt_tokens=None)


def _read(name: str, found: Mapping[str, Any]) -> Result:
    if "result" in found:
        return _read_messages(name, found["result"])
    response, error = found.get("response"), found.get("error")
    body = response.get("body") if isinstance(response, dict) else None
    status = response.get("status_code") if isinstance(response, dict) else None
    if isinstance(body, dict) and isinstance(body.get("choices"), list) and body["choices"]:
        return Result(name, Reply.read(body))
    if error is None and isinstance(body, dict):
        error = body.get("error", body)
    if error is None and status in (None, 200):
        return Result(name, reason="the line holds neither an answer nor an error", tokens=None, prompt_tokens=None)
    said = f" (status {status})" if isinstance(status, int) and status != 200 else ""
    tokens = generated_in(body) if isinstance(body, dict) else 0
    return Result(name, reason=f"{_words(error)}{said}", tokens=tokens)


def _read_messages(name: str, result: Any) -> Result:
    """Anthropic's: a message, or why there is none. Only what succeeded is billed."""
    kind = result.get("type") if isinstance(result, dict) else None
    if kind != "succeeded":
        error = result.get("error") if isinstance(result, dict) else None
        what = {"expired": "it expired before it was run", "canceled": "it was cancelled"}.get(str(kind))
        if what is None and kind != "errored":
            return Result(name, reason=f"a result of type {str(kind)[:40]!r}", tokens=None, prompt_tokens=None)
        return Result(name, reason=what or _words(error))
    message = result["message"]
    choice = {"message": {"content": message["content"]}, "finish_reason": message.get("stop_reason")}
    return Result(name, Reply.read({"choices": [choice], "usage": message.get("usage")}))


def _words(error: Any) -> str:
    """An error in words: what it says of itself, code first."""
    for _ in range(4):  # errors are wrapped in errors
        if isinstance(error, dict) and isinstance(error.get("error"), dict):
            error = error["error"]
    if isinstance(error, dict):
        parts = [str(error[key])[:300] for key in ("code", "type", "message") if error.get(key) not in (None, "")]
        return ": ".join(dict.fromkeys(parts)) or "an error without words"
    return str(error)[:300] if error else "an error without words"
