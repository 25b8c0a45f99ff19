"""When to try again, and how long to wait first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529})


class AttemptError(Exception):
    """One attempt that may do better next time.

    Attributes:
        cause: what kind of trouble it was, for the counters.
        reason: what happened, in words.
        wait: seconds that the server asks to wait; None where it does not say.
    """

    def __init__(self, cause: str, reason: str, wait: float | None = None) -> None:
        super().__init__(cause, reason, wait)
        self.cause, self.reason, self.wait = cause, reason, wait


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with full jitter: attempt n waits a uniform part of `base_seconds * 2**(n-1)`.

    Full jitter, because clients that failed together must not come back together (Brooker, "Exponential Backoff And
    Jitter", AWS Architecture Blog, 2015).

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

    def wait(self, attempt: int, asked: float | None, uniform: float) -> float | None:
        """Seconds to wait after attempt number `attempt`, from 1; None to give up.

        Args:
            attempt: how many attempts there have been.
            asked: what the server asked for, which is waited out in full.
            uniform: a random number in [0, 1).
        """
        if attempt >= self.max_attempts or (asked is not None and asked > self.patience_seconds):
            return None
        jitter = uniform * min(self.max_seconds, self.base_seconds * 2 ** (attempt - 1))
        return jitter if asked is None else asked + uniform * self.base_seconds


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds that `Retry-After` asks for, which is a number or a date (RFC 9110, 10.2.3); None where it is neither."""
    text = headers.get("Retry-After", "").strip()
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            date = parsedate_to_datetime(text)
        except ValueError:
            return None
        date = date if date.tzinfo else date.replace(tzinfo=UTC)
        seconds = (date - (now or datetime.now(UTC))).total_seconds()
    return max(0.0, seconds) if seconds < float("inf") else None  # NaN and infinity are no waits
