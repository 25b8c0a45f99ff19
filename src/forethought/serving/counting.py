"""How many tokens of thought came back, read from a response after it has been passed on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from .host import Tags

MAX_BYTES = 4_000_000  # of a response that is kept to be counted


class Counter:
    """Counts tokens of thought in responses.

    Where the server has a reasoning parser the thought has a field of its own; else it is the text before the end of
    thought. It is tokenized again, which can come out a token or two short of what was generated. The server's own
    count holds where it is larger: vLLM counts 0 where the chat template opened the thought.

    Args:
        tokenizer: of Hugging Face's kind.
        tags: how a thought is told.
    """

    def __init__(self, tokenizer: Any, tags: Tags) -> None:
        self._tokenizer = tokenizer
        self._tags = tags
        shown = str(tokenizer.decode(list(tags.end_ids), skip_special_tokens=True))
        self.way = "field" if tags.is_parsed else "text" if tags.end.strip() in shown else "none"

    def count(self, content: bytes, *, is_stream: bool) -> int | None:
        """Tokens of the thought; None where that cannot be told: several choices, an error, no thought that shows."""
        if self.way == "none" or not content:
            return None
        usage: dict[str, Any] = {}
        texts, thoughts, num_choices = [], [], 1
        for part in _parts(content, is_stream=is_stream):
            usage = part.get("usage") or usage
            choices = part.get("choices") or []
            num_choices = max([num_choices, len(choices), *(int(choice.get("index", 0)) + 1 for choice in choices)])
            for choice in choices:
                said = choice.get("message") or choice.get("delta") or {}
                thoughts.append(said.get("reasoning") or "")
                texts.append(f"{said.get('content') or ''}{choice.get('text') or ''}")
        if num_choices > 1:
            return None
        thought = "".join(thoughts) or self._before_end("".join(texts))
        own = None if thought is None else len(self._tokenizer.encode(thought, add_special_tokens=False))
        theirs = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or None
        return max((count for count in (own, theirs) if isinstance(count, int)), default=None)

    def _before_end(self, text: str) -> str | None:
        """The thought in a text that holds its end; None where it holds none."""
        thought, end, _ = text.partition(self._tags.end)
        return thought.rpartition(self._tags.start)[2] if end else None


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
