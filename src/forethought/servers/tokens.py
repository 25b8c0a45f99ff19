"""Tokens of thought and of answer, counted from what a server sent, and what a run has met, counted.

Chunks of a stream are not tokens, a server's `usage` can leave out the thought or be wrong, and a text gives only a
lower bound on its tokens. So a count is the server's or a tokenizer's, the larger if both exist, and only if the text
is not too long for it. Without a reliable count the value is None: not counted, which is not 0.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

from ..core.terms import percent

MOST_TOKENS = 10**8  # of one request; a server that says more is wrong
WORD_CHARACTERS = 16  # longer words are of several tokens, whatever the tokenizer
UNSEEN_TOKENS = 16  # of an answer that its text does not show: tags, line breaks, the end of turn
TOLERANCE = 2  # tokens; a text may split anew where a thought ends


@dataclass(frozen=True, slots=True)
class Usage:
    """The token counts of one answer as reported by a server; None if there is no reliable count.

    Attributes:
        prompt: tokens of the prompt.
        generated: tokens of thought and answer together.
        reasoning: tokens of thought alone. A reported 0 is None: proxies say it of every server that does not count.
        cached: tokens of the prompt that it had cached.
    """

    prompt: int | None = None
    generated: int | None = None
    reasoning: int | None = None
    cached: int | None = None

    @classmethod
    def read(cls, usage: Any) -> Usage:
        """Reads the object `usage` of an answer, with any content.

        `completion_tokens` holds the thought (OpenAI), or stands beside `reasoning_tokens` (xAI), or leaves the thought
        to `total_tokens` alone (Gemini).
        """
        if not isinstance(usage, dict):
            return cls()
        prompt = _first(usage, "prompt_tokens", "input_tokens")
        completion = _first(usage, "completion_tokens", "output_tokens")
        details = _object(usage, "completion_tokens_details", "output_tokens_details")
        reported = _first(details, "reasoning_tokens") or _first(usage, "reasoning_tokens") or None
        total = _first(usage, "total_tokens")
        generated = completion
        if total is not None and prompt is not None:
            rest = total - prompt
            if completion is None:
                generated = rest if rest >= 0 else None
            elif rest > completion:
                generated, reported = rest, max(reported or 0, rest - completion)
        if reported is not None and completion is not None and reported > completion:
            generated = max(generated or 0, completion + reported)
        cached = _first(_object(usage, "prompt_tokens_details", "input_tokens_details"), "cached_tokens")
        return cls(prompt, generated, reported, cached)


@dataclass(frozen=True, slots=True)
class Count:
    """Tokens of one answer, as far as they are known.

    Attributes:
        reasoning: tokens of the thought; None where they are not counted.
        answer: tokens of all after it, closing tags and ends of turn included; None where they are not counted.
        total: thought and answer together; None where nobody told.
        least: the thought has at least about so many tokens, by its text and by what the rest of the text leaves over.
        most: it has at most so many; None where nobody told. `reasoning` itself, where that is known.
    """

    reasoning: int | None
    answer: int | None
    total: int | None
    least: int
    most: int | None

    def within(self, cap: int) -> bool | None:
        """Whether the thought has at most `cap` tokens; None if that is not known."""
        if self.least > cap:
            return False
        return True if self.most is not None and self.most <= cap else None


@dataclass(slots=True)
class Shown:
    """How long a text is that comes in pieces and is not kept.

    Attributes:
        num_bytes: in UTF-8.
        num_pieces: that held any of it.
    """

    num_bytes: int = 0
    num_pieces: int = 0
    _num_closed: int = 0  # tokens of all words but the last, at the least
    _open: int = 0  # characters of the last word, which may go on

    @classmethod
    def of(cls, text: str) -> Self:
        """Of a text that is there as a whole."""
        found = cls()
        found.add(text)
        return found

    def add(self, piece: str) -> None:
        """Takes one more piece."""
        if not piece:
            return
        self.num_pieces += 1
        self.num_bytes += len(piece) if piece.isascii() else len(piece.encode("utf-8", "replace"))
        words = piece.split()
        if not words or piece[0].isspace():
            self._close()
        if not words:
            return
        if len(words) > 1:  # the first goes on with what was open, those between stand whole
            self._open += len(words[0])
            self._close()
            between = words[1:-1]
            long = sum([len(word) // -WORD_CHARACTERS + 1 for word in between if len(word) > WORD_CHARACTERS])
            self._num_closed += len(between) - long
        self._open += len(words[-1])
        if piece[-1].isspace():
            self._close()

    def _close(self) -> None:
        self._num_closed += -(-self._open // WORD_CHARACTERS)
        self._open = 0

    @property
    def least_tokens(self) -> int:
        """See `least_tokens`."""
        return self._num_closed + -(-self._open // WORD_CHARACTERS)


def count_tokens(
    usage: Any,
    *,
    thought: str | Shown,
    answer: str | Shown = "",
    thought_tokens: int | None = None,
    answer_tokens: int | None = None,
    seen: int | None = None,
    pieces: tuple[int, int] | None = None,
    closing_tokens: int = 0,
    disagree: Callable[[int, int, str], None] | None = None,
) -> Count:
    """Counts one answer.

    Args:
        usage: the object of that name that came with it, as it is or as it was read; None for none.
        thought: text of the thought, all of its pieces, or how long that is.
        answer: the text after it, or how long that is.
        thought_tokens: tokens of `thought` by a tokenizer; None where none is at hand.
        answer_tokens: tokens of `answer` by a tokenizer; None where none is at hand.
        seen: tokens generated when the thought ended, by a stream that says so as it goes (vLLM's
            `continuous_usage_stats`); None without one.
        pieces: how many pieces of a stream thought and answer came in. Pieces are no tokens, but where usage tells as
            many tokens as there were pieces, each was one.
        closing_tokens: tokens of the tag that closes a thought, where the reported ones hold it.
        disagree: told where the server's word and ours differ: reported, counted, by what.
    """
    told = usage if isinstance(usage, Usage) else Usage.read(usage)
    thought = Shown.of(thought) if isinstance(thought, str) else thought
    answer = Shown.of(answer) if isinstance(answer, str) else answer
    shown, least_answer = thought.least_tokens, answer.least_tokens
    total = told.generated
    has_text = bool(thought.num_bytes or answer.num_bytes)
    if total is not None and (total < shown + least_answer or (total == 0 and has_text)):
        total = None  # there is more text than that
    if seen is None and pieces is not None and total is not None and 0 <= total - sum(pieces) <= TOLERANCE:
        seen = pieces[0] if pieces[0] >= shown and pieces[1] >= least_answer else None
    reported = None if told.reasoning is None else max(0, told.reasoning - closing_tokens)
    for ours, what in ((thought_tokens, "the tokenizer"), (seen, "the stream")):
        if disagree and reported is not None and ours is not None:
            if abs(reported - ours) > max(TOLERANCE, 0.02 * ours):
                disagree(reported, ours, what)
            break
    known = [n for n in (reported, seen) if n is not None and n >= shown - TOLERANCE]
    known += [thought_tokens] if thought_tokens is not None else []
    # What neither the answer's text nor anything that goes with it can account for was thought, shown or not.
    unseen = 0 if total is None else total - answer.num_bytes - UNSEEN_TOKENS
    least = max(shown, unseen, *known, 0) if known else max(shown, unseen, 0)
    if not known and not thought.num_bytes and total is not None and unseen <= 0:
        known = [0]  # no thought shows, and nothing is left over for one
    if known and least <= max(known):
        reasoning = max(known)
        if total is None:
            rest = answer_tokens if answer_tokens is not None else None if answer.num_bytes else 0
        else:
            rest = max(total - reasoning, least_answer)
        return Count(reasoning, rest, None if rest is None else reasoning + rest, reasoning, reasoning)
    most = None if total is None else total - least_answer
    return Count(None, None, total, least, most)


def least_tokens(text: str) -> int:
    """Lower bound on the tokens of `text` with any tokenizer: one per word, more for very long words."""
    return sum(-(-len(word) // WORD_CHARACTERS) for word in text.split())


def whole(value: Any) -> int | None:
    """`value` as a number of tokens; None where it is none: negative, not whole, or more than any answer has."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MOST_TOKENS:
        return None
    return int(value) if value == int(value) else None


def _first(found: dict[str, Any], *names: str) -> int | None:
    for name in names:
        if (number := whole(found.get(name))) is not None:
            return number
    return None


def _object(found: dict[str, Any], *names: str) -> dict[str, Any]:
    for name in names:
        if isinstance(value := found.get(name), dict):
            return value
    return {}


logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Counters:
    """Counts since the engine was opened.

    Attributes:
        num_calls: HTTP requests that were wanted, each counted once however often it was tried.
        num_attempts: times that something was sent.
        retries: cause -> attempts that had to be repeated for it.
        num_overshoots: thoughts that came back longer than their cap.
        largest_overshoot: by how many tokens, at most.
        num_disagreements: thoughts whose reported and counted lengths differ.
        trace_tokens: tokens generated for thoughts, or for whole answers where one call does both.
        answer_tokens: tokens generated for forced answers.
        discarded_tokens: tokens known to be generated for attempts that were repeated and for requests that failed;
            in none of the other sums.
        num_uncounted: answers whose tokens nothing reliable told.
        prompt_tokens, cached_tokens: prompt tokens in all, and those that the server says it had cached.
    """

    num_calls: int = 0
    num_attempts: int = 0
    retries: Counter[str] = field(default_factory=Counter)
    num_overshoots: int = 0
    largest_overshoot: int = 0
    num_disagreements: int = 0
    trace_tokens: int = 0
    answer_tokens: int = 0
    discarded_tokens: int = 0
    num_uncounted: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0

    def prompted(self, num_tokens: int | None, cached: int | None) -> None:
        """Adds the tokens of a prompt, and those of them that the server had cached, as far as it says so."""
        self.prompt_tokens += num_tokens or 0
        self.cached_tokens += cached or 0

    def overshoot(self, num_tokens: int, budget: int, *, is_exact: bool = True) -> str:
        """Notes a thought that is longer than its cap; what its record says of it."""
        self.num_overshoots += 1
        self.largest_overshoot = max(self.largest_overshoot, num_tokens - budget)
        about = "" if is_exact else "about "
        return f"the server ignored the cap: {about}{num_tokens} reasoning tokens > {budget}"

    def uncounted(self) -> None:
        """Notes an answer whose tokens could not be counted; logged the first time."""
        if self.num_uncounted == 0:
            logger.warning(
                "the tokens of a thought cannot be counted reliably here: they are recorded as not counted, and "
                "it is not known whether the budget was kept; --engine-option tokenizer=NAME counts them (shown once "
                "per run)"
            )
        self.num_uncounted += 1

    def disagree(self, reported: int, counted: int, what: str) -> None:
        """Notes that the server's count is not ours; said aloud the first time."""
        if self.num_disagreements == 0:
            logger.warning(
                "the server reports %d reasoning tokens where %s gives %d; the larger is recorded (shown once per run)",
                reported,
                what,
                counted,
            )
        self.num_disagreements += 1

    def to_json(self) -> dict[str, Any]:
        """One flat object; retries by cause."""
        return {name: getattr(self, name) for name in self.__slots__ if name != "retries"} | {
            "retries": dict(sorted(self.retries.items()))
        }

    def to_text(self) -> str:
        """One line for the log; "" if there is nothing to report."""
        parts = []
        if self.trace_tokens:
            share = self.cached_tokens / max(1, self.prompt_tokens)
            cached = f", {percent(share, 0)} of them cached there" if self.cached_tokens else ""
            parts.append(
                f"{self.trace_tokens:,} tokens of thought, {self.answer_tokens:,} of forced answers, "
                f"{self.prompt_tokens:,} of prompts{cached}"
            )
        if self.retries:
            causes = ", ".join(f"{cause} {count}" for cause, count in self.retries.most_common())
            parts.append(f"{self.retries.total()} of {self.num_attempts} attempts were repeated ({causes})")
        if self.discarded_tokens:
            parts.append(
                f"{self.discarded_tokens:,} tokens at least were generated for attempts and requests that failed"
            )
        if self.num_uncounted:
            parts.append(f"{self.num_uncounted} answers could not be counted")
        if self.num_overshoots:
            parts.append(f"{self.num_overshoots} thoughts came back longer than their cap and count as failed")
        if self.num_disagreements:
            parts.append(f"{self.num_disagreements} thoughts were reported with another length than counted")
        return "; ".join(parts)
