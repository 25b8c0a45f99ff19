"""How many tokens of thought came back, read from a response after it has been passed on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from .host import Tags

MAX_BYTES = 4_000_000  # of a response that is kept to be counted


class Counter:
    """Counts tokens of thought in responses.

    The server's own count is taken where it has a reasoning parser; else the text before the end of thought is
    tokenized again, which can come out a token or two short of what was generated, never long by more than that.

    Args:
        tokenizer: of Hugging Face's kind.
        tags: how a thought is told.
    """

    def __init__(self, tokenizer: Any, tags: Tags) -> None:
        self._tokenizer = tokenizer
        self._tags = tags
        shown = str(tokenizer.decode(list(tags.end_ids), skip_special_tokens=True))
        self.way = "usage" if tags.is_counted else "text" if tags.end.strip() in shown else "none"

    def count(self, content: bytes, *, is_stream: bool) -> int | None:
        """Tokens of the thought; None where that cannot be told: several choices, an error, no end that shows."""
        if self.way == "none" or not content:
            return None
        usage, text, num_choices = None, [], 1
        for part in _parts(content, is_stream=is_stream):
            usage = part.get("usage") or usage
            choices = part.get("choices") or []
            num_choices = max([num_choices, len(choices), *(int(choice.get("index", 0)) + 1 for choice in choices)])
            text += [_said(choice) for choice in choices]
        if num_choices > 1:
            return None
        if self.way == "usage":
            details = (usage or {}).get("completion_tokens_details") or {}
            tokens = details.get("reasoning_tokens")
            return tokens if isinstance(tokens, int) else None
        thought, end, _ = "".join(text).partition(self._tags.end)
        if not end:
            return None
        thought = thought.rpartition(self._tags.start)[2]
        return len(self._tokenizer.encode(thought, add_special_tokens=False))


def _parts(content: bytes, *, is_stream: bool) -> Iterator[dict[str, Any]]:
    events = [line[5:].strip() for line in content.split(b"\n") if line.startswith(b"data:")]
    for line in events if is_stream else [content]:
        if line == b"[DONE]":
            continue
        try:
            part = json.loads(line)
        except ValueError:
            continue
        if isinstance(part, dict):
            yield part


def _said(choice: dict[str, Any]) -> str:
    """All text of a choice, or of a piece of one: of a message, of a delta or of a completion."""
    said = choice.get("message") or choice.get("delta") or {}
    return f"{said.get('reasoning') or ''}{said.get('content') or ''}{choice.get('text') or ''}"
