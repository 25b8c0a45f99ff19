"""vLLM's own cap on thinking: one request gives the thought and the answer forced after it.

vLLM counts from the last start tag in the prompt and, when the cap is reached, forces an end text token by token. Start
is here the tail that every prompt ends in (`<|im_start|>assistant` and a line break), end is the template's answer
suffix: so it needs no model that was trained to write think tags.

Two faults of vLLM 0.32 are measured at start, not assumed (`measured`): with a start tag of n tokens it forces n - 1
tokens too late, and with a tag whose token ids are not in the prompt it silently does nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from ...core.data import Query
from ...errors import EngineError, InvalidInputError, InvalidSettingsError
from ..forcing import Forcing

logger = logging.getLogger(__name__)

TRIAL_CAPS = (3, 8, 13)  # of the generations that measure the offset
TRIAL_QUERIES = (Query("first", "Count from 1 to 100."), Query("second", "Why is the sky blue?"))
LONGEST_TAIL = 16
HINT = "use --enforce two-call"


class Fate(Enum):
    """What became of a thought that vLLM is to cap."""

    OPEN = "open"  # still going on, or its answer is
    NATURAL = "natural"  # the model ended it by itself
    ANSWERED = "answered"  # it was cut at its cap, and the answer is there
    TOO_LONG = "too long"  # the cap was not kept


@dataclass(frozen=True, slots=True)
class NativeCap:
    """How one template's thoughts are capped by vLLM.

    Attributes:
        start, start_ids: what every prompt ends in, and vLLM takes for the start of a thought.
        end, end_ids: what vLLM forces at the cap: the template's answer suffix.
        offset: tokens by which vLLM is late, as measured.
    """

    start: str
    start_ids: tuple[int, ...]
    end: str
    end_ids: tuple[int, ...]
    offset: int = 0

    @classmethod
    def of(cls, forcing: Forcing) -> NativeCap:
        """The start and the end of thoughts under `forcing`.

        Raises:
            InvalidSettingsError: no text stands for the tail of a prompt token by token, so vLLM would not find it.
        """
        tail = common_tail([forcing.prompt_ids(query) for query in TRIAL_QUERIES])
        special = {*forcing.tokenizer.all_special_ids, *forcing.tokenizer.get_added_vocab().values()}
        first = max((index for index, token in enumerate(tail) if token in special), default=0)
        for begin in range(first, len(tail)):
            text = str(forcing.tokenizer.decode(tail[begin:], skip_special_tokens=False))
            if list(forcing.tokenizer.encode(text, add_special_tokens=False)) == tail[begin:]:
                suffix = forcing.template.answer_suffix
                return cls(text, tuple(tail[begin:]), suffix, tuple(forcing.suffix_ids))
        raise InvalidSettingsError(
            f"--enforce native: the prompts of template {forcing.template.name!r} end in token ids that no "
            f"text produces, so vLLM would silently miss the start of a thought; {HINT}"
        )

    def fits(self, forcing: Forcing) -> bool:
        """Whether another template's thoughts start and end in the same token ids."""
        try:
            other = NativeCap.of(forcing)
        except (InvalidInputError, InvalidSettingsError):
            return False
        return (other.start_ids, other.end_ids) == (self.start_ids, self.end_ids)

    def refusal(self, prompt_ids: Sequence[int]) -> str | None:
        """Why this prompt's thought would not be capped, or None."""
        if tuple(prompt_ids[-len(self.start_ids) :]) == self.start_ids:
            return None
        return f"the prompt does not end in {self.start!r}, so vLLM would not cap its thought; {HINT}"

    def cap(self, budget: int) -> int | None:
        """What to ask vLLM for so that it cuts after `budget` tokens; None where it cannot cut so early."""
        asked = budget - self.offset
        return asked if asked >= 1 else None

    def measured(self, generate: Callable[[Sequence[int]], Sequence[Sequence[int]]]) -> NativeCap:
        """The same with its offset, measured by the position of the end text in short generations.

        `generate` gives a generation for each cap, without end of turn and long enough for an end `LONGEST_TAIL` late.

        Raises:
            EngineError: vLLM does not keep its cap, or not always in the same way.
        """
        found = [self.end_at(ids, cap) for cap, ids in zip(TRIAL_CAPS, generate(TRIAL_CAPS), strict=True)]
        offsets = {at - cap for cap, at in zip(TRIAL_CAPS, found, strict=True) if at is not None}
        if None in found or len(offsets) != 1:
            cuts = ("never" if at is None else f"after {at}" for at in found)
            told = ", ".join(f"{cut} at a cap of {cap}" for cap, cut in zip(TRIAL_CAPS, cuts, strict=True))
            raise EngineError(
                f"vLLM does not keep its cap on thinking between {self.start!r} and {self.end!r}: it cut {told}; {HINT}"
            )
        offset = offsets.pop()
        logger.info("vLLM cuts thoughts %+d tokens from the given cap; caps are corrected by this number", offset)
        return replace(self, offset=offset)

    def end_at(self, ids: Sequence[int], least: int = 0) -> int | None:
        """Where the end text begins in `ids`, at `least` or after (one before the cap is the model's own)."""
        size = len(self.end_ids)
        places = range(max(0, least), len(ids) - size + 1)
        return next((at for at in places if tuple(ids[at : at + size]) == self.end_ids), None)

    def judge(self, forcing: Forcing, ids: Sequence[int], budget: int, *, ended: str | None) -> tuple[Fate, int]:
        """What became of a thought, and its length, by the `ids` generated so far under a cap of `budget`.

        A thought that the model ends by itself is told here, by its text: vLLM looks for the token ids that it would
        force, misses other spellings, and would go on to force them into the answer. `ended` is why vLLM ended the
        request ("stop", "length"), None while it runs.
        """
        thought = ids[:budget]
        fate, length = self._judge_cut(forcing, ids, budget, ended)
        if fate is Fate.OPEN and (len(ids) > budget + 1 or not forcing.has_ended(thought)):
            return (fate, length)
        # Once more as a whole: while others of the same engine are waited for, several tokens come between two looks.
        natural = forcing.reasoning_length(thought)
        return (fate, length) if natural is None else (Fate.NATURAL, natural)

    def _judge_cut(self, forcing: Forcing, ids: Sequence[int], budget: int, ended: str | None) -> tuple[Fate, int]:
        """The same of a thought whose text does not end by itself."""
        if ended == "stop" and len(ids) <= budget:
            return (Fate.NATURAL, len(ids) - 1)  # the end of turn is no thought
        forced = tuple(ids[budget : budget + len(self.end_ids)])
        if forced != self.end_ids[: len(forced)]:
            at = self.end_at(ids, budget)
            known = at is not None or ended is not None
            return (Fate.TOO_LONG, len(ids) if at is None else at) if known else (Fate.OPEN, 0)
        answer = ids[budget + len(self.end_ids) :]
        if ended or (answer and (len(answer) >= forcing.template.max_answer_tokens or forcing.has_answered(answer))):
            return (Fate.ANSWERED, budget)
        return (Fate.OPEN, 0)


def common_tail(prompts: Sequence[Sequence[int]]) -> list[int]:
    """The longest end, up to `LONGEST_TAIL` tokens, that all prompts share."""
    length = 0
    while length < min(LONGEST_TAIL, *map(len, prompts)) and len({ids[-length - 1] for ids in prompts}) == 1:
        length += 1
    return list(prompts[0][len(prompts[0]) - length :])
