"""A ledger by its address: a file beside the gateway, or a Redis that several share."""

from __future__ import annotations

from . import Ledger
from .sqlite import SqliteLedger

REDIS = ("redis://", "rediss://", "unix://")


async def open_ledger(address: str) -> Ledger:
    """Opens the ledger at `address`.

    Args:
        address: of a file, or a URL that begins with one of REDIS.

    Raises:
        LedgerError: it cannot be opened, or is no ledger.
        MissingExtraError: Redis's client is not installed.
    """
    if address.startswith(REDIS):
        from .redis import RedisLedger

        return await RedisLedger.open(address)
    return SqliteLedger(address)
