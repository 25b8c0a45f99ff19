"""The chunks of a streamed chat, put together: as servers send them, but never two answers in one."""

from __future__ import annotations

from typing import Any

from ..core.prompts import PromptTemplate
from .counting import Usage, least_tokens
from .replies import CLOSING, answer_frame, untagged_end
from .texts import texts_in

LEAST_BEYOND = 64  # tokens of thought beyond a small cap that are listened to


class Chunks:
    """Takes the chunks of one answer.

    Args:
        most: the cap. A thought that is longer is heard to its end, so that by how much can be told, but not beyond
            twice its cap.
        template: says where a thought ends that the server does not tell apart.
    """

    def __init__(self, most: int, template: PromptTemplate) -> None:
        self._most = most + max(most, LEAST_BEYOND)
        self._template = template
        self._reasoning: list[str] = []
        self._content: list[str] = []
        self._num_words = 0  # of the thought
        self._told_at: int | None = None  # tokens when the thought's last piece came, where that piece says so
        self._told_after: list[tuple[int, int | None]] = []  # length of the content, tokens so far
        self._ids = _Names("it mixes two answers", first_differs=True)
        self._indexes = _Names("it holds another choice than the one asked for")
        self._finish: Any = None
        self._usage: dict[str, Any] = {}
        self._has_given_up = self._has_ended = self._is_mixed = False

    def add(self, event: dict[str, Any]) -> bool:
        """See `Events.add`."""
        usage = event.get("usage")
        if isinstance(usage, dict):
            self._usage |= {name: value for name, value in usage.items() if value is not None}
        choices = event.get("choices")
        choices = [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []
        if not choices and isinstance(usage, dict) and (self._reasoning or self._content):
            self._has_ended = True  # the usage of it all comes last, alone
        told = Usage.read(usage).generated
        pieces = [(choice, *texts_in(choice.get("delta") or choice.get("message"))) for choice in choices]
        pieces = [piece for piece in pieces if piece[1] or piece[2] or piece[0].get("finish_reason")]
        if sum(bool(thought or text) for _, thought, text in pieces) > 1:
            raise ValueError("it holds another choice than the one asked for")
        for choice, thought, text in pieces:
            if thought or text:
                self._ids.add(event.get("id"))
                self._indexes.add(choice.get("index"))
            if self._finish is not None and (thought.strip() or text.strip()):
                raise ValueError("text comes after its end")
            if thought:
                self._take_thought(thought, told)
            if text:
                self._content.append(text)
                self._told_after.append((len(text), told))
            self._finish = choice.get("finish_reason") or self._finish
        exact = self._told_at is not None and self._told_at >= self._num_words
        self._has_given_up = ((self._told_at or 0) if exact else self._num_words) > self._most
        return not self._has_given_up

    def _take_thought(self, thought: str, told: int | None) -> None:
        if answer_frame(self._template) in "".join(self._content):
            raise ValueError("thought comes after its answer")
        self._is_mixed = self._is_mixed or any(text.strip() for text in self._content)
        last = self._reasoning[-1] if self._reasoning else " "
        self._num_words += len(thought.split()) - (not last[-1].isspace() and not thought[0].isspace())
        self._reasoning.append(thought)
        self._told_at = told

    @property
    def num_seen(self) -> int:
        """See `Events.num_seen`."""
        shown = least_tokens("".join(self._reasoning)) + least_tokens("".join(self._content))
        return max(Usage.read(self._usage).generated or 0, shown)

    def finish(self, *, is_done: bool = False) -> dict[str, Any]:
        """See `Events.finish`: the same JSON as an answer that is not streamed, and `streamed`.

        A server that gives no reason for the end has ended all the same where it says so, or has told the usage of it
        all; else the stream was cut.
        """
        has_text = bool(self._reasoning or self._content)
        if self._finish is None and not self._has_given_up and not ((is_done or self._has_ended) and has_text):
            raise ValueError("it ends in the middle" + self._doubts() if has_text or not is_done else "nothing came")
        content, reasoning = "".join(self._content), "".join(self._reasoning)
        choice = {
            "message": {"reasoning_content": reasoning or None, "content": content},
            "finish_reason": "length" if self._has_given_up else self._finish,
        }
        told, pieces = self._thought_in(content)
        return {"choices": [choice], "usage": self._usage, "streamed": told, "pieces": pieces}

    def _doubts(self) -> str:
        """What else is odd about a stream that was cut: what may pass in a whole one."""
        mixed = ", or it mixes two answers: each chunk has an id of its own" if self._ids.num_names > 1 else ""
        return mixed + (", and thought comes after its answer" if self._is_mixed else "")

    def _thought_in(self, content: str) -> tuple[int | None, list[int]]:
        """`(tokens when the thought had ended, pieces of [thought, answer])`; None where the stream does not say."""
        leaked, closing, _ = content.rpartition(CLOSING)
        end = len(leaked) + len(closing) if closing else 0 if self._reasoning else untagged_end(content, self._template)
        told, length, num_leaked = self._told_at, 0, 0
        if end is None:
            return None, [len(self._content), 0]  # all of it is thought
        for size, so_far in self._told_after:
            if length >= end:
                break
            length += size
            told, num_leaked = so_far, num_leaked + 1
        return told, [len(self._reasoning) + num_leaked, len(self._content) - num_leaked]


class _Names:
    """Names that chunks carry: one for all of an answer, or another for each chunk; anything between is two answers.

    Args:
        complaint: what to say of two answers.
        first_differs: whether the first chunk may have a name of its own (older LiteLLM's ids).
    """

    def __init__(self, complaint: str, *, first_differs: bool = False) -> None:
        self._complaint = complaint
        self._first_differs = first_differs
        self._names: list[Any] = []
        self._seen: set[Any] = set()
        self._num = 0

    @property
    def num_names(self) -> int:
        """Different names so far."""
        return len(self._seen)

    def add(self, name: Any) -> None:
        """Takes the next one; raises ValueError."""
        if name is None or name == "" or not isinstance(name, str | int | float):
            return
        self._num += 1
        self._seen.add(name)
        self._names = [*self._names, name][:2]
        if not 1 < len(self._seen) < self._num:
            return
        is_second = self._first_differs and len(self._seen) == 2 and name == self._names[1] != self._names[0]
        if not is_second:
            raise ValueError(self._complaint)
