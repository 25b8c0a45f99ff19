"""What one chat call brought: thought and answer told apart, and the tokens of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from ...prompts import PromptTemplate
from ..forcing import answer_end
from .client import RequestError

CLOSING = "</think>"


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer of `/chat/completions`, streamed or not.

    Attributes:
        reasoning: what came in a field of its own.
        content: the rest of the text.
        is_apart: the server tells the two apart, also where the one is empty.
        is_cut: it ran into the bound on all tokens.
        total_tokens: tokens generated.
        reported: reasoning tokens by the server's word; None where it does not say.
        streamed: tokens that had come when the thought ended, by the stream; None without one.
        ids: token ids of it all; None where the server does not give them.
        prompt_tokens: of the call.
    """

    reasoning: str
    content: str
    is_apart: bool
    is_cut: bool
    total_tokens: int | None
    reported: int | None = None
    streamed: int | None = None
    ids: tuple[int, ...] | None = None
    prompt_tokens: int = 0

    @classmethod
    def read(cls, answer: dict[str, Any], *, streamed: int | None = None) -> Reply:
        """Reads the JSON of an answer; raises RequestError when it has no choice that ended well."""
        choices = answer.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise RequestError(f"the answer has no choices: {str(answer)[:120]}")
        choice, usage = choices[0], answer.get("usage") or {}
        if choice.get("finish_reason") not in ("stop", "length"):
            raise RequestError(f"the server ended the request with {choice.get('finish_reason')!r}")
        message = choice.get("message") or {}
        details = usage.get("completion_tokens_details") or {}
        ids = choice.get("token_ids", choice.get("response_token_ids"))  # vLLM, SGLang
        # 0 tells nothing apart: proxies say it of every server that does not count (LiteLLM 1.108).
        reported = _count(details.get("reasoning_tokens", usage.get("reasoning_tokens"))) or None
        reasoning = message.get("reasoning_content") or message.get("reasoning")
        return cls(
            reasoning=str(reasoning or ""),
            content=str(message.get("content") or ""),
            is_apart=reported is not None or isinstance(message.get("reasoning_content", reasoning), str),
            is_cut=choice["finish_reason"] == "length",
            total_tokens=_count(usage.get("completion_tokens")),
            reported=reported,
            streamed=streamed,
            ids=tuple(ids) if isinstance(ids, list) else None,
            prompt_tokens=_count(usage.get("prompt_tokens")) or 0,
        )

    def split(self, template: PromptTemplate) -> tuple[str, str, bool]:
        """`(thought, rest, closed)`; a thought that leaks into the content is thought all the same."""
        if CLOSING in self.content:
            leaked, _, rest = self.content.rpartition(CLOSING)
            return self.reasoning + leaked, rest, True
        if self.reasoning or (self.is_apart and self.content):
            return self.reasoning, self.content, bool(self.content.strip())
        start = untagged_end(self.content, template)
        if start is None:
            return self.content, "", not self.is_cut
        return self.content[:start], self.content[start:], True


def untagged_end(content: str, template: PromptTemplate) -> int | None:
    """Where a thought that nobody has told apart ends in `content`; None where it does not."""
    position = content.find(template.reasoning_end)
    if position < 0:
        return None
    # A server that closes the thought itself writes the whole suffix, the line breaks before it included.
    whole = content.find(template.answer_suffix)
    return whole if 0 <= whole < position else position


def answer_in(text: str, template: PromptTemplate) -> str:
    """The answer in free text: what stands in the template's own frame, such as a box, else the text itself."""
    opening = template.answer_suffix.split()[-1]
    _, found, rest = text.rpartition(opening)
    if not found:
        return text.strip()
    return rest[: answer_end(rest, template.answer_stop)].strip()


class Chunks:
    """Puts the chunks of a streamed chat together; in order, or not at all.

    Args:
        most: give up listening after so many tokens of thought: the server does not keep the cap.
        template: says where a thought ends that the server does not tell apart.
    """

    def __init__(self, most: int, template: PromptTemplate) -> None:
        self._most = most
        self._template = template
        self._reasoning: list[str] = []
        self._content: list[str] = []
        self._num_reasoning = 0
        self._id: Any = None
        self._finish: str | None = None
        self._usage: dict[str, Any] = {}
        self._has_given_up = False

    def add(self, event: dict[str, Any]) -> bool:
        """See `Events.add`."""
        self._id = event.get("id") if self._id is None else self._id
        if event.get("id") != self._id:
            raise ValueError("it mixes two answers")
        if isinstance(event.get("usage"), dict):
            self._usage = event["usage"]
        for choice in event.get("choices") or []:
            if not isinstance(choice, dict) or choice.get("index", 0) != 0:
                raise ValueError("it holds another choice than the one asked for")
            delta = choice.get("delta") or {}
            reasoning = delta.get("reasoning_content") or delta.get("reasoning")
            content = delta.get("content")
            if self._finish is not None and (reasoning or content):
                raise ValueError("text comes after its end")
            if reasoning:
                if self._content:
                    raise ValueError("thought comes after its answer")
                self._reasoning.append(str(reasoning))
                self._num_reasoning = _count(self._usage.get("completion_tokens")) or self._num_reasoning + 1
            if content:
                self._content.append(str(content))
            self._finish = choice.get("finish_reason") or self._finish
        self._has_given_up = self._num_reasoning > self._most
        return not self._has_given_up

    def finish(self) -> dict[str, Any]:
        """See `Events.finish`: the same JSON as an answer that is not streamed, and `streamed`."""
        if self._finish is None and not self._has_given_up:
            raise ValueError("it ends in the middle")
        content = "".join(self._content)
        num_leaked = self._num_leaked(content)
        usage = {"completion_tokens": self._num_reasoning + len(self._content), **self._usage}
        choice = {
            "message": {"reasoning_content": "".join(self._reasoning) or None, "content": content},
            "finish_reason": self._finish or "length",
        }
        streamed = self._num_reasoning + num_leaked if self._reasoning or num_leaked else None
        return {"choices": [choice], "usage": usage, "streamed": streamed}

    def _num_leaked(self, content: str) -> int:
        """Chunks of the content that hold thought: up to a closing tag and with it, or up to the answer's frame."""
        ends = list(accumulate(map(len, self._content)))
        leaked, closing, _ = content.rpartition(CLOSING)
        if closing:
            return 1 + sum(end <= len(leaked) for end in ends)
        length = None if self._reasoning else untagged_end(content, self._template)
        if not length:
            return 0
        return sum(end <= length for end in ends) + (length not in ends)


def num_reasoning(reply: Reply, thought: str, counted: int | None, disagree: Callable[[int, int, str], None]) -> int:
    """Tokens of the thought: the server's word and our count side by side; where they differ, the larger.

    Args:
        reply: gives what the server and its stream say.
        thought: text of the thought.
        counted: its tokens by a tokenizer; None where none is at hand.
        disagree: told of a difference: reported, counted, by what.
    """
    reported, ours, what = reply.reported, counted, "the tokenizer"
    if not thought:
        return reported or 0
    if ours is None:
        ours, what = reply.streamed, "the stream"
    if ours is None and reported is None:
        return reply.total_tokens or len(thought)  # nobody told them apart: the thought is at most all of it
    if ours is None or reported is None:
        return ours or reported or 0
    if abs(reported - ours) > max(2, 0.02 * ours):  # a text may split anew where the thought ends
        disagree(reported, ours, what)
    return max(reported, ours)


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and value >= 0 and not isinstance(value, bool) else None
