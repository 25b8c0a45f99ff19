"""Where a thought ends and how its answer is forced, in token ids; shared by all engines that see tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ..core.data import Query
from ..core.prompts import PromptTemplate, answer_end
from ..errors import InvalidInputError


class Forcing:
    """Turns queries into prompt ids, finds the natural end of a thought, and says what to append to it.

    All work is on token ids: re-tokenised text may split differently at the seam, and would miss the prefix cache.

    Args:
        tokenizer: a Hugging Face tokenizer (`apply_chat_template`, `encode`, `decode`).
        template: the text around a query.
    """

    def __init__(self, tokenizer: Any, template: PromptTemplate) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self.suffix_ids = self._encode(template.answer_suffix)
        # A thought that already ends its line takes the suffix without the line breaks it would open with.
        self.bare_suffix_ids = self._encode(template.answer_suffix.lstrip())
        self._tail = len(template.reasoning_end.encode())  # a token of text is at least a byte
        self._newest: tuple[Query, list[int]] | None = None
        # Tags that are special tokens are no text: looking for them, special tokens are left in.
        special = set(getattr(tokenizer, "all_special_tokens", ()))
        self.has_special_end = any(token in template.reasoning_end for token in special)

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`, special tokens left out (except that a thought's own tags stay where they are text)."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def num_covering(self, ids: Sequence[int], length: int) -> int:
        """How many leading ids it takes to write the first `length` characters of their text."""
        low, high = 0, len(ids)  # a longer beginning has a longer text, but for halves of characters at its end
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if len(self.decode(ids[:middle])) < length else (low, middle)
        return low

    def _marked(self, ids: Sequence[int]) -> str:
        """Text of `ids` in which the end of thought can be found."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=not self.has_special_end))

    def prompt_ids(self, query: Query) -> list[int]:
        """Token ids of the whole prompt, few-shot turns and generation header included.

        Raises:
            InvalidInputError: the model's chat template does not take these turns.
        """
        if self._newest is not None and self._newest[0] is query:  # another trace of the same query
            return self._newest[1]
        messages = self.template.turns(query)
        try:
            text = self.tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, tokenize=False, **dict(self.template.chat_options)
            )
        except Exception as error:  # a program by the model's maker, which may raise anything about the turns
            raise InvalidInputError(f"the model's chat template refuses these turns: {error}") from error
        self._newest = (query, self._encode(str(text) + self.template.assistant_prefix))
        return self._newest[1]

    def prompts(self, queries: Iterable[Query]) -> Iterator[list[int] | None]:
        """The prompt ids of each query, None where the model's chat template does not take its turns."""
        for query in queries:
            try:
                yield self.prompt_ids(query)
            except InvalidInputError:
                yield None

    def has_ended(self, ids: Sequence[int]) -> bool:
        """Whether the newest of `ids` hold the end of thought; looks at no more of them than that can take."""
        return self.template.reasoning_end in self._marked(ids[-self._tail - 1 :])

    def reasoning_length(self, ids: Sequence[int]) -> int | None:
        """Number of leading tokens that are thought, when `ids` hold a natural end; None when they hold none.

        The marker's own tokens are not thought: the answer suffix puts them back.
        """
        position = self._marked(ids).find(self.template.reasoning_end)
        if position < 0:
            return None
        length = len(ids)
        while length > 0 and len(self._marked(ids[:length])) > position:
            length -= 1
        return length

    def closed(self, reasoning_ids: Sequence[int]) -> list[int]:
        """`reasoning_ids` closed and ready to be answered: the thought, then its forced suffix.

        A cut may fall inside the end of thought that the model is just writing ("Final" of "Final answer:"). That
        piece is left out, for the suffix puts it back whole: so a trace that ended by itself gives the same answer
        under a cap that splits its end of thought.
        """
        length = len(reasoning_ids)
        while (shorter := self._without_partial_end(reasoning_ids[:length])) < length:
            length = shorter
        thought = list(reasoning_ids[:length])
        if not thought or self.decode(thought[-1:]).endswith("\n"):
            return thought + self.bare_suffix_ids
        return thought + self.suffix_ids

    def _without_partial_end(self, ids: Sequence[int]) -> int:
        """How many leading tokens of `ids` come before the longest beginning of an end of thought that they end in."""
        tail = list(ids[-self._tail :])
        text = self._marked(tail)
        position = len(text) - _overlap(text, self.template.reasoning_end)
        while position < len(text) and tail and len(self._marked(tail)) > position:
            tail.pop()
        return max(0, len(ids) - self._tail) + len(tail)

    def has_answered(self, ids: Sequence[int]) -> bool:
        """Whether `ids`, decoded after the suffix, hold the end of the answer."""
        return answer_end(self.decode(ids), self.template.answer_stop) is not None

    def clean_answer(self, text: str) -> str:
        """The answer itself: text up to the template's stop, stripped."""
        return text[: answer_end(text, self.template.answer_stop)].strip()


def _overlap(text: str, marker: str) -> int:
    """Length of the longest end of `text` that is a beginning of `marker`, but not all of it."""
    return next((size for size in range(len(marker) - 1, 0, -1) if text.endswith(marker[:size])), 0)
