"""Counts what a reply holds while it passes: whole or in events, of every route, and without keeping its texts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..servers.events import EventReader
from ..servers.reading import object_in
from ..servers.replies import texts_in
from ..servers.tokens import TOLERANCE, Shown, Usage, count_tokens, whole
from .used import DONE, REFUSED_UPSTREAM, REFUSING, Used

MOST_KEPT = 4_000_000  # bytes of a whole reply that is read to be counted
MOST_TAIL = 16_000  # bytes at the end of a longer one, where its usage stands
MOST_LINE = MOST_KEPT  # bytes of an event: one image may be 2 MB
END = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r)")  # of an event


class Tally:
    """What one reply used.

    Args:
        is_stream: it comes as server-sent events.
        drops_usage: the last event, of the usage alone, was asked for here: the client does not get it.
    """

    def __init__(self, *, is_stream: bool, drops_usage: bool = False) -> None:
        self.is_stream = is_stream
        self._drops_usage = drops_usage
        self._kept = bytearray()  # of a whole reply, or of an event that may be the usage
        self._events = EventReader()
        self._half: bytes | None = None  # what the client gets of a line feed that comes next, after a carriage return
        self._is_lost = False  # it was too long to be read
        self._usage: dict[str, Any] = {}
        self._thought, self._answer = Shown(), Shown()

    def feed(self, piece: bytes) -> bytes:
        """Takes what has come; returns what the client gets of it now.

        Only where the usage has to be taken out are bytes held back, and no more than an event that is not whole.
        """
        if self._is_lost and self.is_stream:
            return piece
        kept = self._kept
        if not self.is_stream:
            kept += piece
            self._is_lost = self._is_lost or len(kept) > MOST_KEPT
            if self._is_lost:
                del kept[:-MOST_TAIL]
            return piece
        onward = piece
        if self._drops_usage:
            onward = self._onward(piece)
        else:
            self._count(piece)
        if max(len(kept), self._events.num_kept) > MOST_LINE:
            self._is_lost = True
            onward += bytes(kept)
            kept.clear()
        return onward

    def rest(self) -> bytes:
        """What was held back, once nothing more comes."""
        kept = bytes(self._kept)
        if not self.is_stream:
            self._whole(_usage_in(kept) if self._is_lost else kept)
            return b""
        self._kept.clear()
        return b"" if self._count(kept, is_last=True) else kept

    def used(self, status: int, ending: str) -> Used:
        """What was used, of a reply that ended so."""
        if status >= REFUSING and ending == DONE:
            return Used(0, 0, 0, status, REFUSED_UPSTREAM)
        told = Usage.read(self._usage)
        pieces = (self._thought.num_pieces, self._answer.num_pieces) if self.is_stream else None
        count = count_tokens(told, thought=self._thought, answer=self._answer, pieces=pieces)
        least = self._thought.least_tokens + self._answer.least_tokens
        total = count.total
        if told.generated is not None and least <= told.generated + max(TOLERANCE, 0.05 * least):
            total = told.generated  # a tag in the text may be no token, and a thought may stand in the text
        shown = self._thought.num_bytes + self._answer.num_bytes
        return Used(told.prompt, count.reasoning, total, status, ending, max(least, told.generated or 0), shown)

    def _onward(self, piece: bytes) -> bytes:
        """Counts the events that are whole now; returns those of them that are the client's."""
        before = b""
        if piece and self._half is not None:
            if piece.startswith(b"\n"):
                before, piece = self._half, piece[1:]
            self._half = None
        kept, begin = self._kept, max(0, len(self._kept) - 3)
        kept += piece
        ends = [found.end() for found in END.finditer(kept, begin)]
        if not ends:
            return before
        content = bytes(kept[: ends[-1]])
        del kept[: ends[-1]]
        onward = [before]
        for start, end in zip([0, *ends], ends, strict=False):
            event = content[start:end]
            is_dropped = self._count(event)
            onward += [] if is_dropped else [event]
        if content.endswith(b"\r") and not kept:
            self._half = b"" if is_dropped else b"\n"
        return b"".join(onward)

    def _count(self, content: bytes, *, is_last: bool = False) -> bool:
        """Counts the events in what comes next; whether there are any, all of the usage alone."""
        events = self._events.feed(content)
        events += self._events.rest() if is_last else []
        are_of_usage = [not isinstance(event, bytes) and self._event(event) for event in events]
        return bool(events) and all(are_of_usage)

    def _event(self, event: Mapping[str, Any]) -> bool:
        """Counts one event; whether it is of the usage alone."""
        usage = event.get("usage")
        self._take(usage)
        choices = event.get("choices")
        if isinstance(choices, list):
            for choice in choices:
                if isinstance(choice, dict):
                    self._add(*texts_in(choice.get("delta") or choice.get("message") or choice.get("text")))
            return not choices and isinstance(usage, dict)
        if isinstance(inner := event.get("response"), dict):
            self._take(inner.get("usage"))
        if isinstance(inner := event.get("message"), dict) and isinstance(usage := inner.get("usage"), dict):
            self._take({**usage, "output_tokens": 0})  # a message that begins: what it generates is told at its end
        delta = event.get("delta")
        if isinstance(delta, str):
            is_thought = "reasoning" in str(event.get("type"))
            self._add(delta if is_thought else "", "" if is_thought else delta)
        elif isinstance(delta, dict):
            thought = delta.get("thinking")
            text = delta.get("text") or delta.get("partial_json")
            self._add(thought if isinstance(thought, str) else "", text if isinstance(text, str) else "")
        return False

    def _whole(self, content: bytes) -> None:
        found = object_in(content)
        if found is None:
            return
        self._take(found.get("usage"))
        choices = found.get("choices")
        for choice in choices if isinstance(choices, list) else []:
            if isinstance(choice, dict):
                self._add(*texts_in(choice.get("message") or choice.get("text")))
        for parts in (found.get("output"), found.get("content")):
            for part in parts if isinstance(parts, list) else []:
                self._add(*texts_in({"content": [part]}))

    def _add(self, thought: str, text: str) -> None:
        self._thought.add(thought)
        self._answer.add(text)

    def _take(self, usage: Any) -> None:
        """Takes what is said of tokens; the last word on each counts. 0 is said by servers that do not count."""
        if not isinstance(usage, dict):
            return
        found = {name: value for name, value in usage.items() if value}
        cached = [whole(usage.get(name)) for name in ("cache_creation_input_tokens", "cache_read_input_tokens")]
        if (prompt := whole(usage.get("input_tokens"))) is not None and any(cached):  # Anthropic counts them apart
            found["input_tokens"] = prompt + sum(number or 0 for number in cached)
        self._usage |= found


def _usage_in(tail: bytes) -> bytes:
    """The usage in the end of a reply, as a reply of that alone; in a text its quotes would be escaped."""
    _, found, told = tail.rpartition(b'"usage":')
    ends = [at + 1 for at, byte in enumerate(told) if found and byte == ord("}")]
    replies = (b'{"usage":%b}' % told[:end] for end in ends[:8])
    return next((reply for reply in replies if object_in(reply) is not None), b"")
