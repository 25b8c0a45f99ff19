"""Log-probabilities as servers show them: each token with its text, of a whole answer or of the chunks of a stream."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

LEAST_LOGPROB = -1e4  # servers show minus infinity as some number far below any other
ROUNDING = 1e-3  # above 0: float32 makes that of a certain token
APART = ("reasoning_content", "reasoning")  # DeepSeek's form shows the tokens of the thought under a name of their own


def logprobs_in(found: Any, num_tokens: int) -> tuple[float, ...]:
    """The log-probability of each of so many tokens, in a chat's form or in that of completions; empty where not shown.

    Args:
        found: the field `logprobs` of a choice.
        num_tokens: tokens that the choice is known to have, at least.
    """
    if not isinstance(found, dict):
        return ()
    shown = found.get("token_logprobs")
    if isinstance(entries := found.get("content"), list):
        shown = [entry.get("logprob") if isinstance(entry, dict) else None for entry in entries]
    if not isinstance(shown, list) or len(shown) < max(1, num_tokens):
        return ()
    values = tuple(_logprob(each) for each in shown)
    return () if any(map(math.isnan, values)) else values


def pieces_in(found: Any) -> list[bytes]:
    """The text of each token that the field `logprobs` of a choice shows, in either form; empty where it shows none."""
    if not isinstance(found, dict):
        return []
    if isinstance(entries := found.get("content"), list):
        return [_piece(entry) for entry in entries]
    tokens = found.get("tokens")
    return [str(each).encode("utf-8", "replace") for each in tokens] if isinstance(tokens, list) else []


@dataclass(slots=True)
class ShownTokens:
    """Tokens with how likely the model found each.

    Attributes:
        pieces: the text of each; one may hold a part of a character.
        logprobs: natural log-probability of each; NaN where it is not known.
    """

    pieces: list[bytes] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    def add(self, entries: Any) -> None:
        """Takes more of them, in a chat's form; what is no list holds none."""
        for entry in entries if isinstance(entries, list) else ():
            self.pieces.append(_piece(entry))
            self.logprobs.append(_logprob(entry.get("logprob") if isinstance(entry, dict) else None))

    def find(self, text: str, before: int | None = None) -> int:
        """The byte at which `text` last begins, all of it before byte `before`; -1 where it does not stand there."""
        return b"".join(self.pieces).rfind(_bytes(text), 0, before)

    def between(self, start: int, end: int) -> list[float]:
        """The log-probabilities of the tokens that write any of the bytes from `start` to `end`."""
        found, place = list[float](), 0
        for piece, logprob in zip(self.pieces, self.logprobs, strict=True):
            if place < end and place + len(piece) > start:
                found.append(logprob)
            place += len(piece)
        return found


CONTEXT = 512  # characters by which a place in an answer is found


@dataclass(slots=True)
class ShownAnswer:
    """The tokens of one answer of a chat, as far as its server shows them.

    vLLM, SGLang and llama.cpp show all that was generated: the thought, its tags, the answer, the end of turn. OpenAI
    shows the message alone, DeepSeek the thought apart.

    Attributes:
        tokens: those of the message, or of all.
        thought: those of the thought, where they come apart.
    """

    tokens: ShownTokens = field(default_factory=ShownTokens)
    thought: ShownTokens = field(default_factory=ShownTokens)

    def add(self, found: Any) -> None:
        """Takes the field `logprobs` of a choice, or of a chunk's choice."""
        if isinstance(found, dict):
            self.tokens.add(found.get("content"))
            self.thought.add(next((found[name] for name in APART if found.get(name)), None))

    def __len__(self) -> int:
        """How many tokens are shown."""
        return len(self.tokens.pieces) + len(self.thought.pieces)

    def of_answer(self, text: str, start: int, end: int) -> tuple[list[float], int] | None:
        """`(log-probabilities of the tokens that write text[start:end], the byte at which the text begins)`.

        None where the tokens do not show the text in these words.

        Args:
            text: what came after the thought.
            start: where in it the answer begins.
            end: where it ends.
        """
        context = text[max(0, start - CONTEXT) : end]
        place = self.tokens.find(context) if start < end else -1
        if place < 0:
            return None
        last = place + len(_bytes(context))
        before = len(_bytes(text[: max(0, start - CONTEXT)]))
        return self.tokens.between(last - len(_bytes(text[start:end])), last), max(0, place - before)

    def of_thought(self, text: str, before: int | None) -> list[float]:
        """Log-probabilities of the tokens that end the thought; empty where they are not shown in these words.

        Args:
            text: of the thought.
            before: it ends before this byte of the tokens shown, where they do not come apart; None for anywhere.
        """
        tail = text.strip()[-CONTEXT:]
        tokens, limit = (self.thought, None) if self.thought.pieces else (self.tokens, before)
        place = tokens.find(tail, limit) if tail else -1
        return tokens.between(place, place + len(_bytes(tail))) if place >= 0 else []


def _logprob(value: Any) -> float:
    """A log-probability of any form; NaN where it is none."""
    is_one = isinstance(value, int | float) and not isinstance(value, bool) and value <= ROUNDING
    return float(min(max(value, LEAST_LOGPROB), 0.0)) if is_one else math.nan


def _piece(entry: Any) -> bytes:
    if not isinstance(entry, dict):
        return b""
    given = entry.get("bytes")
    if isinstance(given, list) and all(type(each) is int and 0 <= each < 256 for each in given):
        return bytes(given)
    return _bytes(str(entry.get("token", "")))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")
