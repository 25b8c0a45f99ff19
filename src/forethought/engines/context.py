"""Checks whether prompts, caps and answers fit the context, before anything is loaded or paid for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..core.data import EngineInfo, IntArray, Query
from ..core.menu import Menu
from ..core.prompts import PromptTemplate
from ..errors import InvalidSettingsError
from .lengths import Lengths, prompt_lengths

CEILING = 32768  # longest thought without a cap that is waited for where no context is known


def ceiling_of(info: EngineInfo) -> int:
    """Most tokens that a thought without a cap may take at an engine: what its context holds."""
    return info.context_tokens or CEILING


@dataclass(frozen=True, slots=True, eq=False)
class Room:
    """What some queries need of a context.

    Attributes:
        lengths: their prompts'.
        template: the text around each query.
        menu: the caps there are; of named options those that they name.
        is_named: whether the caps are those of named options.
    """

    lengths: Lengths
    template: PromptTemplate
    menu: Menu
    is_named: bool = False

    @classmethod
    def of(
        cls, model: str, template: PromptTemplate, queries: Sequence[Query], menu: Menu, *, engine: str = ""
    ) -> Room:
        """That of `queries` behind `template`."""
        lengths = prompt_lengths(model, template, queries, engine=engine)
        is_named = menu.is_named
        if is_named:  # a thought without a cap takes what there is, and needs a token at least
            menu = Menu.of({option.cap or 1 for option in menu.options})
        return cls(lengths, template, menu, is_named)

    @property
    def answer_tokens(self) -> int:
        """Most tokens of an answer."""
        return self.template.max_answer_tokens

    def needed(self, cap: int) -> int:
        """Tokens that the longest prompt, `cap`, the suffix and the answer take."""
        longest = int(self.lengths.tokens_Q.max(initial=0))
        return longest + cap + self.lengths.suffix_tokens + self.answer_tokens

    @property
    def most_beside(self) -> int:
        """Most tokens of an answer and its suffix, in addition to the thought."""
        bound = len(self.template.answer_suffix.encode())  # a suffix has no more tokens than bytes
        return (self.lengths.suffix_tokens if self.lengths.is_exact else bound) + self.answer_tokens

    @property
    def _least_Q(self) -> IntArray:
        """Tokens beside the cap; of an estimated prompt only half, so that a guess refuses nothing that would run."""
        prompt_Q = self.lengths.tokens_Q if self.lengths.is_exact else self.lengths.tokens_Q // 2
        return prompt_Q + (self.lengths.suffix_tokens if self.lengths.is_exact else 1) + self.answer_tokens

    def _lacking(self, context: int, cap_Q: IntArray) -> IntArray:
        """Rows whose cap does not fit although the smallest would: those are for the user to mend."""
        rest_Q = self._least_Q
        rows: IntArray = np.flatnonzero((rest_Q + cap_Q > context) & (rest_Q + self.menu.smallest <= context))
        return rows

    def check_asked(self, context: int | None, largest_cap: int) -> None:
        """Refuses a context that was asked for and does not hold `largest_cap`, naming what is needed.

        Raises:
            InvalidSettingsError: it is too small.
        """
        if context is None:
            return
        lacking = self._lacking(context, np.full(len(self.lengths.tokens_Q), largest_cap))
        if not len(lacking) and int(self._least_Q.min(initial=self.answer_tokens + 2)) + largest_cap <= context:
            return
        about = "" if self.lengths.is_exact else "about "
        raise InvalidSettingsError(
            f"--context-tokens {context} is too small for a cap of {largest_cap:,} tokens: with the prompt "
            f"({about}{int(self.lengths.tokens_Q.max(initial=0)):,} at most), the suffix and the answer it takes "
            f"{about}{self.needed(largest_cap):,}. Leave --context-tokens out, or give at least "
            f"{self.needed(largest_cap)}"
        )

    def fitting_Q(self, info: EngineInfo) -> IntArray | None:
        """The largest cap that fits, for each query, at least the smallest; None where no context is known."""
        if info.context_tokens is None:
            return None
        room_Q = info.context_tokens - self._least_Q
        fitting_Q = self.menu.at(np.maximum(self.menu.last_at_most(room_Q), 0))
        return fitting_Q

    def check_caps(self, info: EngineInfo, cap_Q: IntArray, *, tolerates: bool) -> str | None:
        """Refuses caps that what the model or server takes at most does not hold.

        Args:
            info: of the engine that is open.
            cap_Q: largest cap of each query.
            tolerates: whether some may fail, so long as one fits; a note says how many.

        Returns:
            A note on the queries that will fail, or None.

        Raises:
            InvalidSettingsError: naming the largest cap that fits.
        """
        context = info.context_tokens
        if context is None:
            return None
        lacking = self._lacking(context, cap_Q)
        if not len(lacking):
            return None
        prompt = int(self.lengths.tokens_Q[lacking].max())
        room = context - prompt - self.lengths.suffix_tokens - self.answer_tokens
        fitting = self.menu.floor(room) or self.menu.smallest
        what = (
            f"{len(lacking)} of {len(cap_Q)} questions do not fit {info.server or info.model}, which takes {context:,} "
            f"tokens: caps of up to {int(cap_Q[lacking].max()):,}, prompts of up to {prompt:,}, and their answers"
        )
        if tolerates and len(lacking) < len(cap_Q):
            return f"{what}; they will fail. A largest cap of {fitting} would hold all"
        smallest = self.menu.smallest
        if self.is_named:
            raise InvalidSettingsError(f"{what}. Give the menu's options smaller caps, up to {fitting}")
        flag = f"--budgets geometric:{smallest}:{fitting}" if self.menu.is_geometric else f"--max-tokens {fitting}"
        raise InvalidSettingsError(f"{what}. Give {flag}")


SEVERAL_CAPS = "several caps are to be measured: make them options of a menu (--menu FILE), with one request each"
ONE_ANSWER = ("native", "max-tokens")  # ways of a server to keep budgets that give one answer a thought


def check_probes(enforcement: str | None, *, what: str) -> None:
    """Refuses, before a token is paid, to measure several caps on one thought where each gives one answer.

    Args:
        enforcement: of the engine that is open (`EngineInfo.enforcement`), or the one asked for; None: any.
        what: what needs them, and what to do instead, as a sentence's end.

    Raises:
        InvalidSettingsError: it gives one answer a thought.
    """
    way = (enforcement or "").partition(" ")[0]
    if way in ONE_ANSWER:
        raise InvalidSettingsError(
            f"budgets are enforced by {way}, which gives one answer per thought, but {what}; --enforce two-call gives "
            "several"
        )
