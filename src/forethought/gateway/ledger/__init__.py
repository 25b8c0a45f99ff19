"""What a gateway has promised and used: claims, each settled once, and counts of tokens by account and window.

A claim is reserved before its request is sent, renewed while the request goes on, and settled to what was used. Every
account of a claim is counted in all windows in which the claim was admitted; where a window has a quota, settled tokens
and the bounds of open claims together never exceed it by a reservation. A claim that nobody settles is settled to its
reservation once its lease has run out. `sqlite` holds a ledger in a file beside one gateway, `redis` for several.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ..windows import Quotas

LEASE = 60.0  # seconds after which a claim that was neither renewed nor settled counts as its reservation


@dataclass(frozen=True, slots=True)
class Claim:
    """What one request may use.

    Attributes:
        id: never used before.
        accounts: account -> its quotas; it is counted in all of them.
        reserved: tokens that it is expected to stay within.
        bound: the most tokens that it can use; at least `reserved`.
        lease: seconds until it must be renewed or settled.
    """

    id: str
    accounts: Mapping[str, Quotas]
    reserved: int
    bound: int
    lease: float = LEASE


@dataclass(frozen=True, slots=True)
class Full:
    """Why a claim was not taken.

    Attributes:
        account, window, quota: where it does not fit; of several places the one that is full for longest.
        left: tokens that would fit everywhere now.
        retry_after: seconds after which the same claim fits if nobody else comes and every open claim has ended within
            its lease; infinite where no wait helps.
    """

    account: str
    window: str
    quota: int
    left: int
    retry_after: float


@dataclass(frozen=True, slots=True)
class Count:
    """Tokens of one account in the present window.

    Attributes:
        settled: of claims that are settled.
        reserved, bound: of open claims.
    """

    account: str
    window: str
    start: int
    settled: int
    reserved: int
    bound: int


@dataclass(frozen=True, slots=True)
class State:
    """A small value that gateways share; `version` grows with every change and is 0 where nothing was ever kept."""

    value: Mapping[str, Any]
    version: int


class Ledger(Protocol):
    """Where claims and counts lie; tests/test_gateway_ledger.py holds every kind to the same rules.

    Each method raises LedgerError where the ledger cannot be reached or written. A method belongs to one event loop.
    """

    async def reserve(self, claim: Claim) -> Full | None:
        """Takes a claim, and returns once a kill of this process cannot lose it; or says why it does not fit."""
        ...

    async def durable(self, claim_id: str) -> None:
        """Returns once a loss of power cannot lose the claim."""
        ...

    async def renew(self, claim_id: str, lease: float) -> bool:
        """Gives a claim `lease` more seconds from now; False where it is not open any more."""
        ...

    async def settle(self, claim_id: str, tokens: int) -> int | None:
        """Counts what a claim used and closes it; returns what it was counted as.

        A claim that is settled already stays as it is. None: no such claim is open, and none was lately.
        """
        ...

    async def sweep(self) -> int:
        """Settles claims whose lease has run out to their reservation; returns how many."""
        ...

    async def counts(self, accounts: Collection[str]) -> list[Count]:
        """Counts of these accounts in all present windows, in the order given and of WINDOWS."""
        ...

    async def num_open(self) -> int:
        """Claims that are neither settled nor swept."""
        ...

    async def now(self) -> float:
        """Seconds since the epoch by the clock that windows and leases go by."""
        ...

    async def state(self, name: str) -> State:
        """A shared value."""
        ...

    async def swap(self, name: str, value: Mapping[str, Any], version: int) -> bool:
        """Keeps `value` where the version is still the given one; False where another gateway was faster."""
        ...

    async def close(self) -> None:
        """Writes what waits and lets go; a second call does nothing."""
        ...
