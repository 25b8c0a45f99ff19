"""Lengths of prompts: by the model's tokenizer if it is on this machine, else by an estimate that is marked as such."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.data import IntArray, Query
from ..core.prompts import PromptTemplate
from ..errors import InvalidInputError
from ..models import look
from .forcing import Forcing

BYTES_PER_TOKEN = 3.5  # of English prose and arithmetic; code and other languages need more tokens
TOKENS_PER_TURN = 6  # marks that chat templates put around a turn
ESTIMATED = f"estimated at {BYTES_PER_TOKEN:g} bytes per token"


@dataclass(frozen=True, slots=True, eq=False)
class Lengths:
    """Lengths of prompts, and how they are known.

    Attributes:
        tokens_Q: tokens of each prompt, int, shape (Q,).
        suffix_tokens: tokens of the forced answer suffix.
        is_exact: counted; else estimated.
        how: in words.
    """

    tokens_Q: IntArray
    suffix_tokens: int
    is_exact: bool
    how: str

    @property
    def total(self) -> int:
        """Tokens of all prompts, each once."""
        return int(self.tokens_Q.sum())


def prompt_lengths(model: str, template: PromptTemplate, queries: Sequence[Query], *, engine: str = "") -> Lengths:
    """The prompts' lengths, without loading or fetching a model.

    Args:
        model: an alias, a folder or a hub id.
        template: the text around each query.
        queries: Q of them.
        engine: which engine will run; the fake one counts words.
    """
    if engine == "fake":
        return in_words(template, queries)
    tokenizer = look(model).tokenizer()
    if tokenizer is None:
        return estimated(template, queries)
    return _counted(Forcing(tokenizer, template), queries)


def in_words(template: PromptTemplate, queries: Sequence[Query]) -> Lengths:
    """The prompts' lengths for the fake model, whose tokens are words."""
    words_Q = [4 + sum(len(turn.content.split()) for turn in template.messages(query)) for query in queries]
    suffix = max(1, len(template.answer_suffix.split()))
    return Lengths(np.array(words_Q, dtype=np.int64), suffix, True, "counted as the fake model does")


def upper_bound(template: PromptTemplate, queries: Sequence[Query], largest_cap: int) -> int:
    """Tokens that the longest prompt, a cap, the answer and its suffix take at most.

    A token is at least a byte; the marks of chat templates, and system turns they add, take no more than some hundred.
    """
    prompt = max((_bytes(template, query) for query in queries), default=0)
    return prompt + 256 + largest_cap + len(template.answer_suffix.encode()) + template.max_answer_tokens


def _bytes(template: PromptTemplate, query: Query) -> int:
    return sum(len(turn.content.encode()) for turn in template.messages(query)) + len(template.assistant_prefix)


def estimated(template: PromptTemplate, queries: Sequence[Query]) -> Lengths:
    """The prompts' lengths by their bytes."""
    tokens_Q = [
        round(_bytes(template, query) / BYTES_PER_TOKEN) + TOKENS_PER_TURN * (1 + len(template.messages(query)))
        for query in queries
    ]
    suffix = max(1, round(len(template.answer_suffix.encode()) / BYTES_PER_TOKEN))
    return Lengths(np.array(tokens_Q, dtype=np.int64), suffix, False, ESTIMATED)


def _counted(forcing: Forcing, queries: Sequence[Query]) -> Lengths:
    """What a template puts around plain questions is counted once: for long examples that is nearly all of a prompt."""
    around = _length(forcing, Query("", "x")) - len(_encode(forcing.tokenizer, "x"))
    tokens_Q = [
        around + len(_encode(forcing.tokenizer, query.prompt))
        if isinstance(query.prompt, str)
        else _length(forcing, query)
        for query in queries
    ]
    return Lengths(np.array(tokens_Q, dtype=np.int64), len(forcing.suffix_ids), True, "by the model's tokenizer")


def _encode(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False))


def _length(forcing: Forcing, query: Query) -> int:
    try:
        return len(forcing.prompt_ids(query))
    except InvalidInputError:  # the chat template refuses its turns: its record will say so
        return 0
