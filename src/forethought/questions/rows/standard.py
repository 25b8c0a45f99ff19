"""Standard input as a table: kept as far as it was read, so that it can be read again."""

from __future__ import annotations

import io
import sys
from functools import cache
from typing import IO

from .lines import CHUNK
from .reading import Source


def standard_input() -> Source:
    """JSON lines when it starts with "{", else one question a line."""
    return Source("standard input", ".txt", _kept(sys.stdin.buffer).open)


@cache
def _kept(stream: IO[bytes]) -> _Kept:
    return _Kept(stream)


class _Kept:
    """A stream that can be read again: a command reads its questions once for the bill and once to ask them."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._chunks: list[bytes] = []

    def chunk(self, index: int) -> bytes:
        """The bytes as they came, piece by piece; nothing at the end. No more is read than is asked for."""
        while len(self._chunks) <= index:
            self._chunks.append(getattr(self._stream, "read1", self._stream.read)(CHUNK))
        return self._chunks[index]

    def open(self) -> IO[bytes]:
        """The stream from its beginning."""
        return io.BufferedReader(_Again(self))


class _Again(io.RawIOBase):
    def __init__(self, kept: _Kept) -> None:
        self._kept = kept
        self._index = 0
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, target: memoryview, /) -> int:  # type: ignore[override]
        if not self._left:
            self._left = self._kept.chunk(self._index)
            self._index += bool(self._left)
        size = min(len(target), len(self._left))
        target[:size], self._left = self._left[:size], self._left[size:]
        return size
