"""The content of a server's answer: thought, text, finish reason; whole, or assembled from the chunks of a stream."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from ..core.prompts import PromptTemplate, answer_end
from .logprobs import ShownAnswer
from .retrying import RequestError
from .tokens import Usage, least_tokens, whole

THOUGHT_FIELDS = ("reasoning_content", "reasoning", "thinking")
THOUGHT_PARTS = frozenset({"thinking", "thought", "reasoning", "reasoning_content", "reasoning_text", "summary_text"})
MOST_DEPTH = 8


def texts_in(message: Any) -> tuple[str, str]:
    """`(thought, text)` of a message or a delta; what is no text is left aside."""
    if isinstance(message, str):
        return "", message
    if not isinstance(message, dict):
        return "", ""
    thought, text = _parted(message.get("content"), is_thought=False)
    own = next((found for name in THOUGHT_FIELDS if (found := _joined(message.get(name)))), "")
    return (own or _joined(message.get("reasoning_details"))) + thought, text


def generated_in(answer: dict[str, Any]) -> int:
    """Tokens that an answer, or an event of a stream, shows to be generated, at the least."""
    choices = answer.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    shown = "".join(texts_in(choice.get("message") or choice.get("delta"))) + _joined(choice.get("text"))
    return max(Usage.read(answer.get("usage")).generated or 0, least_tokens(shown))


def is_apart(message: Any) -> bool:
    """Whether a message has a field of its own for the thought, also where that is empty."""
    if not isinstance(message, dict):
        return False
    return any(isinstance(message.get(name), str | list) for name in THOUGHT_FIELDS) or bool(texts_in(message)[0])


def _joined(value: Any) -> str:
    return "".join(_parted(value, is_thought=True))


def _parted(value: Any, *, is_thought: bool, depth: int = 0) -> tuple[str, str]:
    """`(thought, text)` of a text, a part, or a list of parts."""
    if isinstance(value, str):
        return (value, "") if is_thought else ("", value)
    if depth > MOST_DEPTH:
        return "", ""
    if isinstance(value, list):
        found = [_parted(each, is_thought=is_thought, depth=depth + 1) for each in value]
        return "".join(thought for thought, _ in found), "".join(text for _, text in found)
    if isinstance(value, dict):
        is_thought = is_thought or str(value.get("type")) in THOUGHT_PARTS
        names = (*THOUGHT_FIELDS, "summary", "text", "value") if is_thought else ("text", "value", "content")
        inner = next((value[name] for name in names if value.get(name)), None)
        return _parted(inner, is_thought=is_thought, depth=depth + 1)
    return "", ""


STOPPED = re.compile(
    r"stop|eos|eos_token|eos_found|end_turn|end_of_turn|end_of_text|stop_sequence|stop_token|stop_str|stop_word|"
    r"complete|completed|done|end|finish|finished|word"
)
CUT = re.compile(
    r"length|max_tokens|max_length|max_new_tokens|max_output_tokens|max_completion_tokens|model_length|"
    r"model_context_window_exceeded|token_limit|limit|truncated|incomplete"
)
FILTERED = re.compile(
    r"content_filter|content_filtered|safety|recitation|blocklist|prohibited_content|spii|refusal|sensitive|"
    r"guardrail"
)


def is_cut(reason: Any, *, tokens: int = 0) -> bool:
    """Whether an answer that ended for `reason` ran into its bound on tokens. No reason given is no such bound.

    Args:
        reason: the `finish_reason` as it came.
        tokens: generated so far, which are lost with the answer.

    Raises:
        RequestError: it ended for another reason than that it was complete or too long.
    """
    if reason in (None, "", "stop", "length"):
        return bool(reason == "length")
    name = re.sub(r"[\s-]+", "_", str(reason)[:100].strip().lower().rpartition(".")[2]).removeprefix("finish_reason_")
    if STOPPED.fullmatch(name):
        return False
    if CUT.fullmatch(name):
        return True
    by = " (a filter of its own)" if FILTERED.fullmatch(name) else ""
    raise RequestError(f"the server ended the request with {str(reason)[:60]!r}{by}", tokens)


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
        shown: its tokens with their log-probabilities, as far as the server shows them.
    """

    reasoning: str
    content: str
    is_apart: bool
    is_cut: bool
    usage: Any = None
    streamed: int | None = None
    pieces: tuple[int, int] | None = None
    ids: tuple[int, ...] | None = None
    shown: ShownAnswer = field(default_factory=ShownAnswer)

    @classmethod
    def read(cls, answer: dict[str, Any]) -> Reply:
        """Reads the JSON of an answer; raises RequestError when it has no choice that ended well."""
        choice, usage = first_choice(answer), answer.get("usage")
        message, pieces = choice.get("message"), token_ids(answer.get("pieces"))
        reasoning, content = texts_in(message)
        if not isinstance(shown := answer.get("shown"), ShownAnswer):
            shown = ShownAnswer()
            shown.add(choice.get("logprobs"))
        return cls(
            reasoning=reasoning,
            content=content,
            is_apart=Usage.read(usage).reasoning is not None or is_apart(message),
            is_cut=is_cut(choice.get("finish_reason"), tokens=generated_in(answer)),
            usage=usage,
            streamed=whole(answer.get("streamed")),
            pieces=None if pieces is None or len(pieces) != 2 else (pieces[0], pieces[1]),
            ids=token_ids(choice.get("token_ids", choice.get("response_token_ids"))),  # vLLM, SGLang
            shown=shown,
        )

    def split(self, template: PromptTemplate) -> tuple[str, str, bool]:
        """`(thought, rest, closed)`; a thought that leaks into the content counts as thought."""
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
    """The end of a thought that was not separated in `content`; None if there is none."""
    position = content.find(template.reasoning_end)
    if position < 0:
        return None
    # A server that closes the thought itself writes the whole suffix, the line breaks before it included.
    whole = content.find(template.answer_suffix)
    return whole if 0 <= whole < position else position


def answer_in(text: str, template: PromptTemplate) -> str:
    """The answer in free text: the content of the template's frame, such as a box, else the text itself."""
    start, end = answer_place(text, template)
    return text[start:end]


def answer_place(text: str, template: PromptTemplate) -> tuple[int, int]:
    """Where that answer begins and ends in the text."""
    before, found, rest = text.rpartition(answer_frame(template))
    answer = rest[: answer_end(rest, template.answer_stop)] if found else rest
    start = len(before) + len(found) + len(answer) - len(answer.lstrip())
    return start, start + len(answer.strip())


def answer_frame(template: PromptTemplate) -> str:
    """What opens the template's own frame of an answer, such as a box."""
    return template.answer_suffix.split()[-1]


def first_choice(answer: dict[str, Any]) -> dict[str, Any]:
    """The only choice of an answer; raises RequestError when it has none."""
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise RequestError(f"the answer has no choices: {str(answer)[:120]}", generated_in(answer))
    found: dict[str, Any] = choices[0]
    return found


def token_ids(value: Any) -> tuple[int, ...] | None:
    """`value` as token ids; None where it is not a list of them."""
    is_list = isinstance(value, list) and all(whole(each) is not None and type(each) is int for each in value)
    return tuple(value) if is_list else None


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
        self._shown = ShownAnswer()
        self._ids = _Names("it mixes two answers", first_differs=True)
        self._indexes = _Names("it holds another choice than the one asked for")
        self._finish: Any = None
        self._usage: dict[str, Any] = {}
        self._has_given_up = self._has_ended = self._is_mixed = False

    def add(self, event: dict[str, Any]) -> bool:
        """Takes one; False when enough has come. Raises ValueError when the stream makes no sense."""
        usage = event.get("usage")
        if isinstance(usage, dict):
            self._usage |= {name: value for name, value in usage.items() if value is not None}
        choices = event.get("choices")
        choices = [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []
        if not choices and isinstance(usage, dict) and (self._reasoning or self._content):
            self._has_ended = True  # the usage of it all comes last, alone
        for choice in choices:  # also those without text: the tags of a thought
            self._shown.add(choice.get("logprobs"))
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
        """Tokens generated so far, at the least."""
        shown = least_tokens("".join(self._reasoning)) + least_tokens("".join(self._content))
        return max(Usage.read(self._usage).generated or 0, shown)

    def finish(self, *, is_done: bool = False) -> dict[str, Any]:
        """The same JSON as an answer that is not streamed, and more; raises ValueError where it is not whole.

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
        return {"choices": [choice], "usage": self._usage, "streamed": told, "pieces": pieces, "shown": self._shown}

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


class Skipping:
    """Leaves a text out where the reply begins with it; holds back no more than may still be it."""

    def __init__(self, skipped: str) -> None:
        self._skipped = skipped
        self._held = ""

    def feed(self, text: str) -> str:
        """What is sure not to be it."""
        if not self._skipped:
            return text
        self._held += text
        if self._held.startswith(self._skipped):
            found = self._held[len(self._skipped) :]
        elif self._skipped.startswith(self._held):
            return ""
        else:
            found = self._held
        self._skipped = self._held = ""
        return found

    def rest(self) -> str:
        """What was held back when nothing more comes."""
        held, self._held, self._skipped = self._held, "", ""
        return held
