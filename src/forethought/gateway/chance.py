"""Random bytes for ids: asked of the system for many at a time, since each asking takes longer than a decision may."""

from __future__ import annotations

import os

AT_ONCE = 4096

_left = bytearray()
_owner = 0


def random_bytes(number: int) -> bytes:
    """So many random bytes of the system's; each is handed out once, also after a fork. Of one thread at a time."""
    global _owner
    if len(_left) < number or _owner != os.getpid():
        _left[:] = os.urandom(max(AT_ONCE, number))
        _owner = os.getpid()
    found = bytes(_left[:number])
    del _left[:number]
    return found
