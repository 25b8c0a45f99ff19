"""What one chat call brought: thought and answer told apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..core.prompts import PromptTemplate, answer_end
from .client import RequestError
from .counting import Usage, whole
from .endings import is_cut
from .texts import generated_in, is_apart, texts_in

CLOSING = "</think>"


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer of `/chat/completions`, streamed or not.

    Attributes:
        reasoning: what came in a field of its own.
        content: the rest of the text.
        is_apart: the server tells the two apart, also where the one is empty.
        is_cut: it ran into the bound on all tokens.
        usage: what the server says of its tokens, as it came.
        streamed: tokens that had come when the thought ended, by the stream; None without one that says so.
        pieces: how many pieces of a stream the thought and the rest came in; None without one.
        ids: token ids of it all; None where the server does not give them.
    """

    reasoning: str
    content: str
    is_apart: bool
    is_cut: bool
    usage: Any = None
    streamed: int | None = None
    pieces: tuple[int, int] | None = None
    ids: tuple[int, ...] | None = None

    @classmethod
    def read(cls, answer: dict[str, Any]) -> Reply:
        """Reads the JSON of an answer; raises RequestError when it has no choice that ended well."""
        choice, usage = first_choice(answer), answer.get("usage")
        message, pieces = choice.get("message"), token_ids(answer.get("pieces"))
        reasoning, content = texts_in(message)
        return cls(
            reasoning=reasoning,
            content=content,
            is_apart=Usage.read(usage).reasoning is not None or is_apart(message),
            is_cut=is_cut(choice.get("finish_reason"), tokens=generated_in(answer)),
            usage=usage,
            streamed=whole(answer.get("streamed")),
            pieces=None if pieces is None or len(pieces) != 2 else (pieces[0], pieces[1]),
            ids=token_ids(choice.get("token_ids", choice.get("response_token_ids"))),  # vLLM, SGLang
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
    _, found, rest = text.rpartition(answer_frame(template))
    if not found:
        return text.strip()
    return rest[: answer_end(rest, template.answer_stop)].strip()


def answer_frame(template: PromptTemplate) -> str:
    """What opens the template's own frame of an answer, such as a box."""
    return template.answer_suffix.split()[-1]


def first_choice(answer: dict[str, Any]) -> dict[str, Any]:
    """The only choice of an answer; raises RequestError when it has none."""
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise RequestError.after(f"the answer has no choices: {str(answer)[:120]}", generated_in(answer))
    found: dict[str, Any] = choices[0]
    return found


def token_ids(value: Any) -> tuple[int, ...] | None:
    """`value` as token ids; None where it is not a list of them."""
    is_list = isinstance(value, list) and all(whole(each) is not None and type(each) is int for each in value)
    return tuple(value) if is_list else None
