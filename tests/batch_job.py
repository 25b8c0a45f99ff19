"""A small job of requests, and a server's answers to its lines."""

from __future__ import annotations

import contextlib
import io
import json
import os
from pathlib import Path
from typing import Any

from forethought.commands import _exit_code


def write_job(folder: Path, count: int = 24) -> Path:
    """A folder with q.jsonl and `text`, a predictor for the fake model that reads no more than texts."""
    ids = [f"q/{number} ü" if number % 5 == 0 else f"q{number}" for number in range(count)]
    rows = [{"id": each, "question": f"What is {n} plus {n}?", "answer": str(2 * n)} for n, each in enumerate(ids)]
    folder.mkdir(parents=True, exist_ok=True)
    here = Path.cwd()
    os.chdir(folder)
    try:
        Path("q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            assert _exit_code(["profile", "fake", "q.jsonl", "--traces", "2", "--quiet", "--layers", "none"]) == 0
            assert _exit_code(["train", "runs/fake-q", "--predictor", "text", "--out", "text"]) == 0
    finally:
        os.chdir(here)
    return folder


def answered(line: str, *, thought: int = 9, cut: bool = False, tokens: int | None = None) -> dict[str, Any]:
    """An answer to a request in OpenAI's form: right, after a thought of so many tokens, or cut before it."""
    request = json.loads(line)
    number = int(request["body"]["messages"][-1]["content"].split()[2])
    text = "" if cut else f"\n\nFinal answer: \\boxed{{{2 * number}}}"
    used = thought if cut else thought + 4
    usage = {"prompt_tokens": 50, "completion_tokens": used if tokens is None else tokens}
    message = {"role": "assistant", "content": text, "reasoning_content": "so " * thought}
    usage["completion_tokens_details"] = {"reasoning_tokens": thought}  # type: ignore[assignment]
    choice = {"index": 0, "message": message, "finish_reason": "length" if cut else "stop"}
    body = {"choices": [choice], "usage": usage}
    return {"id": "b", "custom_id": request["custom_id"], "response": {"status_code": 200, "body": body}, "error": None}


def expired(line: str) -> dict[str, Any]:
    """The line of an error file on a request that was never run."""
    error = {"code": "batch_expired", "message": "This request could not be executed before its window ended."}
    return {"id": "b", "custom_id": json.loads(line)["custom_id"], "response": None, "error": error}


def requests_in(*names: str | Path) -> list[str]:
    """The lines of files of requests."""
    return [line for name in names for line in Path(name).read_text().splitlines()]


def write_lines(path: str | Path, lines: list[Any]) -> Path:
    """Objects as JSON lines, bytes as they are."""
    parts = [line if isinstance(line, bytes) else f"{json.dumps(line)}\n".encode() for line in lines]
    Path(path).write_bytes(b"".join(parts))
    return Path(path)
