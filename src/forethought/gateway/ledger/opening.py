"""A ledger by its address: a file beside the gateway, or a Redis that several share."""

from __future__ import annotations

from pathlib import Path

from ...errors import LedgerError
from ...servers.address import without_secrets
from . import Ledger
from .file import check_file
from .sqlite import SqliteLedger

REDIS = ("redis://", "rediss://", "unix://")


async def check_ledger(address: str) -> None:
    """Makes sure that there is a ledger at `address`, or that one could be made there; writes nothing, locks nothing.

    Raises:
        LedgerError: it is no ledger, or cannot be reached.
        MissingExtraError: Redis's client is not installed.
    """
    if address.startswith(REDIS):
        await (await open_ledger(address)).close()
    else:
        check_file(_path(address))


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
    return SqliteLedger(_path(address))


def _path(address: str) -> Path:
    if "://" in address:
        raise LedgerError(f"the ledger is a file or a Redis (redis://HOST:6379/0), not {without_secrets(address)}")
    if not address or Path(address).is_dir():
        raise LedgerError(f"the ledger needs a file, and {address or 'nothing'!r} is none: --ledger sqlite:ledger.db")
    return Path(address)
