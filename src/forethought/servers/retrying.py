"""When to retry, after how long, and without which fields of the body: budgets are never left out."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import EngineError

RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529})


class RequestError(EngineError):
    """One request failed; the caller puts the reason on its record.

    Attributes:
        tokens: tokens known to be generated for it, which are lost.
        refusal: the body of an answer that says that a field of the request is at fault; "" for none.
        status: of the last answer, where that was no 200; None where none came, or for another reason.
    """

    def __init__(self, reason: str, tokens: int = 0, *, refusal: str = "", status: int | None = None) -> None:
        super().__init__(reason)
        self.tokens, self.refusal, self.status = tokens, refusal, status


class AwayError(RequestError):
    """Nothing can be connected to: no request can be answered, and none is at fault."""


class AttemptError(Exception):
    """One attempt that may do better next time.

    Attributes:
        cause: what kind of trouble it was, for the counters.
        reason: what happened, in words.
        wait: seconds that the server asks to wait; None where it does not say.
        most: give this kind of trouble up after so many attempts, where more were allowed; None for all of them.
        tokens: tokens known to be generated in the attempt, which are lost.
        is_away: nothing could be connected to.
    """

    def __init__(
        self,
        cause: str,
        reason: str,
        wait: float | None = None,
        *,
        most: int | None = None,
        tokens: int = 0,
        is_away: bool = False,
    ) -> None:
        super().__init__(cause, reason, wait)
        self.cause, self.reason, self.wait, self.most, self.tokens = cause, reason, wait, most, tokens
        self.is_away = is_away

    @property
    def status(self) -> int | None:
        """The status of the answer, where that is the trouble."""
        return int(self.cause) if self.cause.isdigit() else None

    @property
    def is_limit(self) -> bool:
        """Whether the server has too much to do for us: it costs nothing to come back, and takes a while."""
        return self.cause == "429"


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with full jitter: attempt n waits a uniform part of `base_seconds * 2**(n-1)`.

    Full jitter, because clients that failed together must not come back together (Brooker, "Exponential Backoff And
    Jitter", AWS Architecture Blog, 2015). Limits are by the minute: under one, waits are eight times as long and at
    least three quarters of their length, so that six attempts take more than a minute.

    Attributes:
        max_attempts: attempts in all.
        base_seconds: longest first wait.
        max_seconds: longest wait of our own choosing.
        patience_seconds: longest wait that a server may ask for; where it asks for more, the request fails.
    """

    max_attempts: int = 6
    base_seconds: float = 0.5
    max_seconds: float = 30.0
    patience_seconds: float = 120.0

    def wait(self, attempt: int, asked: float | None, uniform: float, *, is_limit: bool = False) -> float | None:
        """Seconds to wait after attempt number `attempt`, from 1; None to give up.

        Args:
            attempt: how many attempts there have been.
            asked: what the server asked for, which is waited out in full.
            uniform: a random number in [0, 1).
            is_limit: it was a limit on requests or tokens that stood in the way.
        """
        if attempt >= self.max_attempts or (asked is not None and asked > self.patience_seconds):
            return None
        if asked is None and not is_limit:
            return uniform * min(self.max_seconds, self.base_seconds * 2.0 ** min(60, attempt - 1))
        # A wait that is told once may be too short for all who were told the same; from then on ours grows as well.
        steps = attempt if asked is None else attempt - 1
        own = min(self.max_seconds, 8 * self.base_seconds * 2.0 ** min(60, steps - 1)) if is_limit and steps else 0.0
        own *= 0.75 + 0.25 * uniform
        return own if asked is None else max(own, asked + uniform * self.base_seconds)


logger = logging.getLogger(__name__)

# Nothing here bounds an answer. What switches a server's own sampling off is of no use where it knows no such thing.
OPTIONAL = re.compile(
    r"seed|stream_options|continuous_usage_stats|priority|top_k|min_p|repetition_penalty|samplers|mirostat|"
    r"dynatemp_range|logprobs|return_token_ids|cache_prompt"
)
LOST = {
    "seed": "without a seed no trace can be reproduced",
    "logprobs": "without log-probabilities votes cannot be weighed",
}
HARMLESS = {"temperature": 1.0, "top_p": 1.0}  # left out only where they say what holds anyway
RENAMED = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
TALK = frozenset(("model", "messages", "prompt", "stream"))  # words that any refusal may use
REFUSING = re.compile(
    r"extra|unknown|unrecogni[sz]ed|unsupported|not supported|not permitted|unexpected|not allowed|additional|"
    r"does not support|not enabled|no such|not a valid|invalid (?:field|param|argument|key)",
    re.IGNORECASE,
)
UNNAMED = re.compile(r"(?:extra|unknown|unrecogni[sz]ed|unexpected|additional)\W+(?:\w+\W+){0,3}?", re.IGNORECASE)


class Fitting:
    """What one server's bodies leave out, learnt from what it refuses; shared by all that talk to it."""

    def __init__(self) -> None:
        self.left_out: set[str] = set()
        self.renamed: set[str] = set()

    def fit(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """`body` as this server takes it."""
        found = {}
        for name, value in body.items():
            if name in self.left_out and (name not in HARMLESS or value == HARMLESS[name]):
                continue
            if isinstance(value, dict) and name == "stream_options":
                value = {inner: each for inner, each in value.items() if inner not in self.left_out}
                if not value:
                    continue
            found[RENAMED[name] if name in self.renamed else name] = value
        return found

    def learn(self, sent: Mapping[str, Any], refusal: str) -> bool:
        """Notes what `refusal`, the body of an error 400, 403 or 422, says of the body that was `sent`.

        Returns:
            Whether there is something to leave out or to call otherwise, so that trying again makes sense.
        """
        if not REFUSING.search(refusal):
            return False
        within = sent.get("stream_options")
        droppable = {name for name in sent if OPTIONAL.fullmatch(name) or sent[name] == HARMLESS.get(name)}
        nested = {name for name in within if OPTIONAL.fullmatch(name)} if isinstance(within, Mapping) else set()
        named = {
            name for name in {*sent, *nested} if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", refusal, re.IGNORECASE)
        }
        renamed = {name for name in named if name in RENAMED and RENAMED[name] not in self.renamed}
        drop = named & nested or named & droppable
        if not drop and not renamed and not named - TALK and UNNAMED.search(refusal):
            drop = droppable  # it does not say which: all that can be missed
        if not drop and not renamed:
            return False
        new = (drop - self.left_out) | (renamed - self.renamed)
        self.left_out |= drop
        self.renamed |= renamed
        if new:
            lost = "".join(f"; {what}" for name, what in LOST.items() if name in new)
            logger.warning("the server rejects %s: it is left out from now on%s", ", ".join(sorted(new)), lost)
        return True
