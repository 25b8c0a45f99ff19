"""One value of a row -> one field of a query, or the reason why it is invalid."""

from __future__ import annotations

import contextlib
import math
import unicodedata
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from ..core.data import Message
from ..core.problems import excerpt
from .rows import parse_json

# Usual names of columns, the first that is there counts; a dot leads into an object (verl, lm-eval).
ID_COLUMNS = ("query_id", "question_id", "id", "qid", "problem_id", "task_id", "doc_id", "extra_info.index")
QUESTION_COLUMNS = (
    *("prompt", "question", "problem", "query", "input", "text", "messages"),
    *("doc.question", "doc.problem", "doc.query"),
)
ANSWER_COLUMNS = (
    *("reference", "answer", "solution_value", "target", "label", "ground_truth", "expected_answer", "final_answer"),
    *("reward_model.ground_truth", "doc.answer"),
)
BESIDE_QUESTIONS = ("body", "context", "passage", "story", "choices", "options")  # parts of a question in other columns

PARTLY = ("p", "partial")
VERDICTS = {
    **dict.fromkeys(("right", "correct", "true", "yes", "pass", "passed", "c", "t", "y"), 1),
    **dict.fromkeys(("wrong", "incorrect", "false", "no", "fail", "failed", "unreadable", "i", "f", "n", *PARTLY), 0),
}
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
MAX_WHOLE_FLOAT = 2**53  # above, a float does not hold every whole number
MAX_WEIGHT = 2**53  # about 9e15: sums of many stay finite
MAX_COUNT = 1_000_000_000
MAX_BUDGET = 1_000_000_000  # far above any model's context; keeps sums of budgets within 64 bits


class FieldError(ValueError):
    """Why a value cannot be taken; reads on from the column's name ("'weight' must be …")."""


def prompt(value: Any) -> str | tuple[Message, ...]:
    """A question: text, or chat messages that end in a user turn."""
    return _messages_of(value) if isinstance(value, list | tuple) else _text_of(value)


def chat(value: Any) -> str | tuple[Message, ...]:
    """The same, from a column of chat messages: a CSV cell holds them as JSON."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return prompt(parse_json(value))
        except ValueError as error:
            raise FieldError(str(error)) from error
    return prompt(value)


def _text_of(value: Any) -> str:
    if value is None:
        raise FieldError("is missing")
    if not isinstance(value, str):
        raise FieldError(f"must be text or chat messages, {_got(value)}")
    if not value.strip():
        raise FieldError("is empty")
    return _clean(value)


def _clean(text: str) -> str:
    if "\0" in text:
        raise FieldError(f"holds a NUL character, at position {text.index(chr(0))}")
    if not is_encodable(text):
        raise FieldError(f"holds half a surrogate pair, which is not a character: {excerpt(text)}")
    return text


def _messages_of(value: Any) -> tuple[Message, ...]:
    if not value:
        raise FieldError("has no messages")
    messages = []
    for number, message in enumerate(value, start=1):
        if not isinstance(message, Mapping):
            raise FieldError(
                f'message {number} must look like {{"role": "user", "content": "…"}}, got {excerpt(message)}'
            )
        role, content = message.get("role"), message.get("content")
        if not isinstance(role, str) or role not in ROLES:
            raise FieldError(f"message {number} has the role {excerpt(role)}; known: {', '.join(ROLES)}")
        messages.append(Message(ROLES[role], _clean(_content(content, number))))
    if messages[-1].role != "user":
        raise FieldError(f"must end in a user turn, but ends in one of the role {messages[-1].role!r}")
    if not messages[-1].content.strip():
        raise FieldError("ends in an empty user turn")
    return tuple(messages)


def _content(content: Any, number: int) -> str:
    """A message's text: as it stands, or in parts of the type "text"."""
    if isinstance(content, list | tuple):
        for part in content:
            kind = part.get("type", "text") if isinstance(part, Mapping) else None
            if kind not in ("text", "input_text") or not isinstance(part.get("text"), str):
                raise FieldError(
                    f"message {number} must have text as its content; it has a part of the type {excerpt(kind)}"
                    if isinstance(kind, str) and kind not in ("text", "input_text")
                    else f"message {number} must have text as its content, {_got(part)}"
                )
        return "".join(part["text"] for part in content)
    if not isinstance(content, str):
        raise FieldError(f"message {number} must have text as its content, {_got(content)}")
    return content


def reference(value: Any) -> str | None:
    """The right answer as text; numbers in their shortest form (5.0 -> "5"), nothing for a blank.

    A list of one answer is that answer; of several, nobody knows which to grade by.
    """
    if isinstance(value, list | tuple) and len(value) <= 1:
        value = value[0] if value else None
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, list | tuple) and len(value) > 1:
        raise FieldError(f"must be one answer, got {len(value)}: {excerpt(value)}")
    if isinstance(value, Decimal):
        value = int(value) if value.is_finite() and value == value.to_integral_value() else str(value)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise FieldError(f"must be text or a number, {_got(value)}")
    if isinstance(value, str):
        return _clean(value)
    if isinstance(value, int):
        return _digits(value)
    if not math.isfinite(value):
        raise FieldError(f"must be a finite number, got {value}")
    return str(int(value)) if value.is_integer() and abs(value) < 1e16 else repr(value)


def worked_reference(value: Any) -> str | None:
    """The same, also from a worked solution: GSM8K's ends in "#### 1,234", and the reference is "1234"."""
    if isinstance(value, str):
        value = _only_item(value)
        _, marker, result = value.rstrip().rpartition("####")
        if marker and result.strip() and "\n" not in result:
            return reference(result.strip().replace(",", ""))
    return reference(value)


def _only_item(text: str) -> str:
    """The one answer in a cell that holds a JSON list of one text."""
    if text.lstrip().startswith('["'):
        with contextlib.suppress(ValueError):
            match parse_json(text):
                case [str(only)]:
                    return only
    return text


def _digits(value: int) -> str:
    if value.bit_length() > 10_000:  # Python itself refuses to write such a number as text
        raise FieldError(f"is a number of {value.bit_length():,} bits; write it as text")
    return str(value)


def label(value: Any) -> str | None:
    """A row's own id, every digit kept, or None when it has none.

    A column with gaps may have turned whole numbers into 3.0, which stands for 3.
    """
    if isinstance(value, float | Decimal) and math.isfinite(value) and value == int(value):
        if isinstance(value, float) and abs(value) >= MAX_WHOLE_FLOAT:
            raise FieldError(f"is a number whose last digits are lost, {value!r}; write it as text")
        value = int(value)
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise FieldError(f"must be text or a whole number, {_got(value)}")
    if isinstance(value, int):
        return _digits(value)
    if not value.strip():
        return None
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in value):
        raise FieldError(f"holds a control character: {excerpt(value)}")
    return value


def weight(value: Any) -> float:
    """What a right answer is worth, 1 when the row does not say."""
    number = 1.0 if value is None else _number_of(value)
    if not 0 < number < math.inf:
        raise FieldError(f"must be a positive number, got {excerpt(value)}")
    if number > MAX_WEIGHT:
        raise FieldError(f"must be at most {MAX_WEIGHT:,}, got {excerpt(value)}")
    return number


def budget(value: Any) -> int | None:
    """A cap on reasoning tokens, or a bound on it; None where there is none. 0 is "no thinking"."""
    return None if value is None else _whole(value, MAX_BUDGET, "tokens")


def count(value: Any) -> int:
    """How many traces: a whole number from 0."""
    return _whole(value, MAX_COUNT, "traces")


def verdict(value: Any) -> int:
    """How many traces were right: a count, or one trace's verdict (true, "right", "wrong", …) as 1 or 0."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, str) and value.strip().lower() in VERDICTS:
        return VERDICTS[value.strip().lower()]
    return count(value)


def tokens(value: Any) -> float:
    """Tokens used, a mean or one trace's own."""
    number = _number_of(value)
    if not (math.isfinite(number) and 0 <= number <= MAX_BUDGET):
        raise FieldError(f"must be a number of tokens from 0 to {MAX_BUDGET:,}, got {excerpt(value)}")
    return number


def numbers(value: Any) -> list[Any]:
    """A list of numbers, or the text of one: a CSV cell holds it as JSON."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = parse_json(value)
        except ValueError as error:
            raise FieldError(f"must be a list of numbers: {error}: {excerpt(value)}") from error
    if not isinstance(value, list | tuple):
        raise FieldError(f"must be a list of numbers such as [0, 1, 3], got {excerpt(value)}")
    return list(value)


def is_blank(value: Any) -> bool:
    """Whether a cell says nothing: nothing at all, only space, or not a number."""
    return (
        value is None
        or (isinstance(value, str) and not value.strip())
        or (isinstance(value, float) and math.isnan(value))
    )


def _whole(value: Any, most: int, what: str) -> int:
    number = _number_of(value)
    if not (math.isfinite(number) and number.is_integer() and 0 <= number <= most):
        raise FieldError(f"must be a whole number of {what} from 0 to {most:,}, got {excerpt(value)}")
    return int(number)


def _number_of(value: Any) -> float:
    """A number, or the text of one (CSV has nothing else)."""
    # Python takes the text 1_000 for a number; nobody else does.
    is_odd = isinstance(value, bool) or (isinstance(value, str) and "_" in value)
    if isinstance(value, int | float | str | Decimal) and not is_odd:
        with contextlib.suppress(ValueError, OverflowError):
            return float(value)
    raise FieldError(f"must be a number, got {excerpt(value)}")


def _got(value: Any) -> str:
    return "got nothing" if value is None else f"got {excerpt(value)}"


def is_encodable(text: str) -> bool:
    """Whether `text` is free of half surrogate pairs, which no file can hold."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
