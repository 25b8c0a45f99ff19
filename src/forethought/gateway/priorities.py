"""Priorities for vLLM's queue: short requests first, and no request overtaken for ever.

vLLM serves the lowest number first and never changes it while a request waits. By length alone, a long request waits
for as long as short ones keep coming. With its second of arrival in the number, only those overtake it that arrive soon
enough after it: at most `patience` seconds for every token that they are expected to be shorter by.
"""

from __future__ import annotations

import time
from collections.abc import Callable

AGED, LENGTH, NONE = "aged", "length", "none"
WAYS = (AGED, LENGTH, NONE)
PATIENCE = 0.25  # seconds a token: 8 times what a token takes at 30 ms each (docs/serving.md, "Priorities")


class Priorities:
    """Numbers for requests as they come.

    Args:
        way: one of WAYS; `none` gives no numbers.
        patience: seconds of waiting that outweigh one expected token, for `aged`.
        clock: seconds, the same for every process of the server.
    """

    def __init__(
        self, way: str = AGED, patience: float = PATIENCE, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.way = way
        self.patience = patience
        self._clock = clock

    def __str__(self) -> str:
        return {
            AGED: f"short requests go first, overtaking by at most {self.patience:g} s a token",
            LENGTH: "short requests go first, however long the others wait",
            NONE: "no priorities",
        }[self.way]

    def of(self, tokens: int) -> int | None:
        """The number of a request that arrives now and is expected to generate `tokens`; None for none."""
        if self.way == NONE:
            return None
        if self.way == LENGTH:
            return tokens
        return round(1000 * (self._clock() + self.patience * tokens))
