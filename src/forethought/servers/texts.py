"""The text in a message or in a piece of one: plain, or a list of parts as Mistral and others send it."""

from __future__ import annotations

from typing import Any

from .counting import Usage, least_tokens

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
