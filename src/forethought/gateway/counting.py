"""How many tokens of thought came back, read from a response after it has been passed on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ..servers.replies import texts_in
from ..servers.tokens import Usage, count_tokens, whole
from .host import Tags

MAX_BYTES = 4_000_000  # of a response that is kept to be counted


class Counter:
    """Counts tokens of thought in responses.

    Where the server has a reasoning parser the thought has a field of its own; else it is the text before the end of
    thought. It is tokenized again, which can come out a token or two short of what was generated. The server's own
    count holds where it is larger: vLLM counts 0 where the chat template opened the thought. `engines.counting`
    decides.

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
        usage: Any = None
        texts, thoughts, num_choices = [], [], 1
        for part in _parts(content, is_stream=is_stream):
            usage = part.get("usage") or usage
            found = part.get("choices")
            choices = [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
            num_choices = max([num_choices, len(choices), *((whole(each.get("index")) or 0) + 1 for each in choices)])
            for choice in choices:
                thought, text = texts_in(choice.get("message") or choice.get("delta") or choice.get("text"))
                thoughts.append(thought)
                texts.append(text)
        if num_choices > 1:
            return None
        shown, rest = ("".join(thoughts), "".join(texts)) if any(thoughts) else self._split("".join(texts))
        if shown is None:
            return Usage.read(usage).reasoning
        own = len(self._tokenizer.encode(shown, add_special_tokens=False))
        return count_tokens(usage, thought=shown, answer=rest, thought_tokens=own).reasoning

    def _split(self, text: str) -> tuple[str | None, str]:
        """`(thought, rest)` of a text that holds the end of its thought; (None, text) where it holds none."""
        thought, end, rest = text.partition(self._tags.end)
        return (thought.rpartition(self._tags.start)[2], rest) if end else (None, text)


def _parts(content: bytes, *, is_stream: bool) -> Iterator[dict[str, Any]]:
    events = [line[5:].strip() for line in content.split(b"\n") if line.startswith(b"data:")]
    for line in events if is_stream else [content]:
        if line == b"[DONE]":
            continue
        try:
            part = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(part, dict):
            yield part
