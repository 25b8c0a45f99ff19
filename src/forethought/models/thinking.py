"""How a model thinks, by its tokenizer and chat template; and the prompt template that follows from it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..core.prompts import CHAT, PromptTemplate


@dataclass(frozen=True, slots=True)
class Tags:
    """What a model writes around its thought.

    Attributes:
        start, end: the tags.
        answer: what opens the answer after the end, where that takes more than a line.
    """

    start: str
    end: str
    answer: str = ""


KNOWN = (
    Tags("<think>", "</think>"),
    Tags("[THINK]", "[/THINK]"),
    Tags("<|channel|>analysis<|message|>", "<|end|>", "<|start|>assistant<|channel|>final<|message|>"),
    Tags("<|START_THINKING|>", "<|END_THINKING|>", "<|START_RESPONSE|>"),
    Tags("<|begin_of_thought|>", "<|end_of_thought|>"),
    Tags("◁think▷", "◁/think▷"),
)
OTHER = re.compile(r"<([\w:|-]*(?:think|thought|reason)[\w:|-]*)>")  # <reasoning>, <thought>, <seed:think>
SWITCHES = ("enable_thinking", "thinking")  # what chat templates call the switch
ANSWER = "Final answer: \\boxed{"
STEPS = PromptTemplate(
    name=CHAT,
    instruction=f"Think step by step, then end with one line: {ANSWER}...}}",
    reasoning_end="Final answer:",
    answer_suffix=f"\n\n{ANSWER}",
    answer_stop="}",
    max_answer_tokens=32,
)


def own_template(tokenizer: Any) -> tuple[PromptTemplate, str]:
    """`(template, how it was found)`: the model's own chat template, and its own tags where it was taught to think.

    Tags that stand in the vocabulary alone are not taken: models that answer at once share it with those that think.

    Args:
        tokenizer: the model's Hugging Face tokenizer.
    """
    text = _chat_template(tokenizer)
    special = set(getattr(tokenizer, "all_special_tokens", ()))
    for tags in (*KNOWN, *_others(text)):
        if tags.start in text and (tags.end in text or _rendered(tokenizer).endswith(tags.start)):
            return _thinking(tokenizer, tags, "as its own chat template says")
    for tags in KNOWN:
        if {tags.start, tags.end} <= special:
            return _thinking(tokenizer, tags, "as its special tokens say")
    return STEPS, "asks to think step by step: its own chat template has no thinking tags"


def _chat_template(tokenizer: Any) -> str:
    """All that its chat templates say; a model may have several by name."""
    found = getattr(tokenizer, "chat_template", None) or ""
    return "\n".join(map(str, found.values())) if isinstance(found, dict) else str(found)


def _others(text: str) -> Iterator[Tags]:
    for name in dict.fromkeys(OTHER.findall(text)):
        if not name.startswith("/"):
            yield Tags(f"<{name}>", f"</{name}>")


def _thinking(tokenizer: Any, tags: Tags, how: str) -> tuple[PromptTemplate, str]:
    """The template that has the model think between `tags`, with what its chat template leaves to be opened."""
    opening = tags.start if tags.answer else f"{tags.start}\n"
    options: tuple[tuple[str, Any], ...] = ()
    begun = _rendered(tokenizer)
    for switch in SWITCHES if begun.endswith(tags.end) else ():  # thought is off unless it is asked for
        if not _rendered(tokenizer, **{switch: True}).endswith(tags.end):
            options, begun = ((switch, True),), _rendered(tokenizer, **{switch: True})
            how += f" with {switch}"
            break
    template = PromptTemplate(
        name=CHAT,
        instruction="Put your final answer within \\boxed{}.",
        assistant_prefix="" if begun.endswith(tags.start) else opening,
        reasoning_end=tags.end,
        answer_suffix=f"{tags.end}{tags.answer}{ANSWER}" if tags.answer else f"\n{tags.end}\n\n{ANSWER}",
        answer_stop="}",
        max_answer_tokens=32,
        chat_options=options,
    )
    return template, f"thinks between {tags.start} and {tags.end}, {how}"


def _rendered(tokenizer: Any, **options: Any) -> str:
    """What a prompt ends in; "" where the chat template does not take a plain question."""
    try:
        turns = [{"role": "user", "content": "1 + 1?"}]
        return str(tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False, **options)).rstrip()
    except Exception:  # a program by the model's maker, which may raise anything
        return ""
