"""When to try again, and how long to wait first."""

from __future__ import annotations

from dataclasses import dataclass

RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529})


class AttemptError(Exception):
    """One attempt that may do better next time.

    Attributes:
        cause: what kind of trouble it was, for the counters.
        reason: what happened, in words.
        wait: seconds that the server asks to wait; None where it does not say.
        most: give this kind of trouble up after so many attempts, where more were allowed; None for all of them.
        tokens: tokens known to be generated in the attempt, which are lost.
    """

    def __init__(
        self, cause: str, reason: str, wait: float | None = None, *, most: int | None = None, tokens: int = 0
    ) -> None:
        super().__init__(cause, reason, wait)
        self.cause, self.reason, self.wait, self.most, self.tokens = cause, reason, wait, most, tokens

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
