"""Claims and counts in memory, by the rules of a ledger: no clock, no file."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ..windows import KEPT, Window, windows_at
from . import Claim, Count, Full

Cell = tuple[str, str, int]  # account, window, start of the window
MOST_TOKENS = 2**53  # of any count: what JSON and Lua hold exactly


@dataclass(slots=True)
class Open:
    """An open claim and the cells in which it is counted."""

    accounts: tuple[str, ...]
    admitted: float
    reserved: int
    bound: int
    expires: float
    cells: tuple[Cell, ...] = field(repr=False)


@dataclass(slots=True)
class _Sum:
    settled: int = 0
    reserved: int = 0
    bound: int = 0


class Book:
    """The claims and counts of one ledger.

    Attributes:
        open: claims by id.
        touched: cells whose settled tokens have changed since they were last taken by `take_touched`.
    """

    def __init__(self) -> None:
        self.open: dict[str, Open] = {}
        self.touched: set[Cell] = set()
        self._sums: dict[Cell, _Sum] = {}
        self._leases: list[tuple[float, str]] = []
        self._windows: tuple[Window, ...] = ()

    def windows(self, now: float) -> tuple[Window, ...]:
        """The present windows; worked out anew only where a minute has passed."""
        if not self._windows or not self._windows[0].start <= now < self._windows[0].end:
            self._windows = windows_at(now)
        return self._windows

    def take(self, claim: Claim, now: float) -> Full | None:
        """Opens a claim where it fits everywhere; otherwise says where it does not."""
        if full := self._full(claim, now):
            return full
        self.restore(claim.id, tuple(claim.accounts), now, claim.reserved, claim.bound, now + claim.lease)
        return None

    def restore(
        self, claim_id: str, accounts: tuple[str, ...], admitted: float, reserved: int, bound: int, expires: float
    ) -> None:
        """Opens a claim without looking at quotas, as one that is read from a file."""
        cells = tuple((account, each.name, each.start) for account in accounts for each in self.windows(admitted))
        for cell in cells:
            held = self._sum(cell)
            held.reserved += reserved
            held.bound += bound
        self.open[claim_id] = Open(accounts, admitted, reserved, bound, expires, cells)
        heapq.heappush(self._leases, (expires, claim_id))

    def renew(self, claim_id: str, expires: float) -> bool:
        """Moves the end of a lease, never to an earlier time; False where the claim is not open."""
        held = self.open.get(claim_id)
        if held is not None:
            held.expires = max(held.expires, expires)
        return held is not None

    def settle(self, claim_id: str, tokens: int) -> bool:
        """Closes a claim and counts `tokens`; False where it is not open."""
        held = self.open.get(claim_id)
        if held is None:
            return False
        for cell in held.cells:
            self._sum(cell).settled += tokens
            self.touched.add(cell)
        self.forget(claim_id)
        return True

    def forget(self, claim_id: str) -> None:
        """Closes a claim as if it had never been taken."""
        held = self.open.pop(claim_id, None)
        for cell in () if held is None else held.cells:
            assert held is not None
            found = self._sum(cell)
            found.reserved -= held.reserved
            found.bound -= held.bound

    def expired(self, now: float) -> Iterator[tuple[str, int]]:
        """Takes out of line `(id, reserved)` of each claim whose lease has run out."""
        while self._leases and self._leases[0][0] <= now:
            _, claim_id = heapq.heappop(self._leases)
            held = self.open.get(claim_id)
            if held is None:
                continue
            if held.expires > now:  # renewed meanwhile
                heapq.heappush(self._leases, (held.expires, claim_id))
                continue
            yield claim_id, held.reserved

    def counts(self, accounts: Iterable[str], now: float) -> list[Count]:
        """Of these accounts in all present windows."""
        found = []
        for account in accounts:
            for window in self.windows(now):
                held = self._sums.get((account, window.name, window.start), _Sum())
                found.append(Count(account, window.name, window.start, held.settled, held.reserved, held.bound))
        return found

    def load(self, cell: Cell, settled: int) -> None:
        """Sets what is settled in one cell, as read from a file."""
        self._sum(cell).settled = settled

    def take_touched(self) -> list[tuple[Cell, int]]:
        """`(cell, settled tokens)` of all that changed since the last call."""
        found = [(cell, self._sum(cell).settled) for cell in self.touched]
        self.touched.clear()
        return found

    def prune(self, now: float) -> None:
        """Drops counts of windows that are long past and hold no open claim."""
        for cell in [cell for cell in self._sums if is_past(cell[1], cell[2], now)]:
            held = self._sums[cell]
            if not held.bound and not held.reserved and cell not in self.touched:
                del self._sums[cell]

    def _sum(self, cell: Cell) -> _Sum:
        found = self._sums.get(cell)
        if found is None:
            found = self._sums[cell] = _Sum()
        return found

    def _full(self, claim: Claim, now: float) -> Full | None:
        left, worst = MOST_TOKENS, None
        for account, quotas in claim.accounts.items():
            for window in self.windows(now):
                quota = quotas.get(window.name)
                if quota is None:
                    continue
                held = self._sums.get((account, window.name, window.start), _Sum())
                room = quota - held.settled - held.bound
                left = min(left, room)
                if claim.bound > room:
                    wait = self._wait(claim, quota, held, window, now)
                    if worst is None or wait > worst[0]:
                        worst = wait, account, window.name, quota
        if worst is None:
            return None
        wait, account, name, quota = worst
        return Full(account, name, quota, max(0, left), wait)

    def _wait(self, claim: Claim, quota: int, held: _Sum, window: Window, now: float) -> float:
        """Seconds until the claim fits here: at the next window, or when the leases of open claims have run out."""
        if claim.bound > quota:
            return math.inf
        wait = window.end - now
        if held.settled + held.reserved + claim.bound <= quota:
            wait = min(wait, max((each.expires for each in self.open.values()), default=now) - now)
        return wait


def is_past(window: str, start: int, now: float) -> bool:
    """Whether the counts of a window may be dropped: nobody looks at it, and no clock is set back so far."""
    kept = KEPT.get(window)
    return kept is not None and start + kept < now
