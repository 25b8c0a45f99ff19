"""Bytes -> numbered lines of text; invalid text is noted, and no line is longer than 16 MiB."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator
from typing import IO

from ...core.problems import Problems

MAX_LINE = 1 << 24  # bytes of a line, and of a row that spans lines: no question is longer
CHUNK = 1 << 16
MAGIC = {  # what packed files begin with
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
}


class _Recoded(io.RawIOBase):
    """A stream as UTF-8 without a byte-order mark; UTF-16 is told by its mark."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        head = stream.read(3)
        is_utf16 = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        self._utf16 = codecs.getincrementaldecoder("utf-16")("surrogatepass") if is_utf16 else None
        self.num_skipped = 3 if head == codecs.BOM_UTF8 else 0
        self._left = self._recode(head[self.num_skipped :])

    def readable(self) -> bool:
        return True

    def readinto(self, target: memoryview, /) -> int:  # type: ignore[override]
        while not self._left:
            chunk = _some_of(self._stream)
            self._left = self._recode(chunk, is_end=not chunk)
            if not chunk:
                break
        size = min(len(target), len(self._left))
        target[:size], self._left = self._left[:size], self._left[size:]
        return size

    def _recode(self, chunk: bytes, *, is_end: bool = False) -> bytes:
        if self._utf16 is None:
            return chunk
        try:
            text = self._utf16.decode(chunk, is_end)
        except UnicodeDecodeError:  # half a character at the end; 0xff is no UTF-8, and is told as such
            self._utf16.reset()
            return b"" if not is_end else b"\xff"
        return text.encode("utf-8", "surrogatepass")


def _some_of(stream: IO[bytes]) -> bytes:
    """What there is by now: a pipe's first lines do not wait for its last."""
    read = getattr(stream, "read1", stream.read)
    chunk: bytes = read(CHUNK)
    return chunk


def utf8(stream: IO[bytes]) -> tuple[io.BufferedReader, int]:
    """`(the stream in UTF-8, bytes of its byte-order mark)`."""
    recoded = _Recoded(stream)
    return io.BufferedReader(recoded, CHUNK), recoded.num_skipped


def too_long(what: str) -> str:
    """What is said of a line, cell or item beyond the bound."""
    return f"{what} holds more than {MAX_LINE >> 20} MiB, the most that is read as one"


def not_utf8(raw: bytes, start: int, offset: int) -> str:
    """What is said of bytes that are no text: the one at `start` is not UTF-8, and the first is at `offset`."""
    if not offset and (packed := next((kind for begin, kind in MAGIC.items() if raw.startswith(begin)), None)):
        return f"is compressed ({packed}); unpack it first"
    where = f"byte 0x{raw[start]:02x} at offset {offset + start:,} of the file"
    return f"not UTF-8: {where}. Convert it with: iconv -f WINDOWS-1252 -t UTF-8 FILE"


def _raw_lines(stream: IO[bytes], problems: Problems) -> Iterator[tuple[int, int, bytes]]:
    """`(number, offset in the file, bytes with the line break)`; ends at a line that is too long (noted)."""
    buffered, offset = utf8(stream)
    number = 0
    while raw := buffered.readline(MAX_LINE + 1):
        number += 1
        if len(raw) > MAX_LINE:
            problems.add(f"line {number}", f"{too_long('the line')}; is a line break missing?")
            return
        yield number, offset, raw
        offset += len(raw)


def _text_of(raw: bytes, offset: int, place: str, problems: Problems) -> str | None:
    """The bytes of a line as text; None, with the reason noted, where they are none."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        problems.add(place, not_utf8(raw, error.start, offset))
        return None
    if "\0" in text:
        at = offset + raw.index(b"\0")
        problems.add(
            place, f"holds a NUL byte at offset {at:,} of the file; is it a text file (UTF-16 begins with a mark)?"
        )
        return None
    return text


def read_lines(stream: IO[bytes], problems: Problems) -> Iterator[tuple[int, str]]:
    """Numbered lines that are text, without their line breaks; the others are noted.

    A line ends in LF or CR LF, nothing else.
    """
    for number, offset, raw in _raw_lines(stream, problems):
        line = _text_of(raw, offset, f"line {number}", problems)
        if line is not None:
            # One "\r" goes with the line break; any other one is the line's own.
            yield number, line.removesuffix("\n").removesuffix("\r")


class CsvLines:
    """The lines of a CSV file with their breaks, as `csv.reader` wants them. CR by itself ends a line, too.

    Attributes:
        number: lines given so far.
        size: characters given since it was last set to 0.
        is_over: it ended because `size` was more than a row may hold.
    """

    def __init__(self, stream: IO[bytes], problems: Problems) -> None:
        self.number = self.size = 0
        self.is_over = False
        self._pieces = self._split(stream, problems)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self.size > MAX_LINE:
            self.is_over = True
            raise StopIteration
        line = next(self._pieces)
        self.number += 1
        self.size += len(line)
        return line

    @staticmethod
    def _split(stream: IO[bytes], problems: Problems) -> Iterator[str]:
        for number, offset, raw in _raw_lines(stream, problems):
            line = _text_of(raw, offset, f"line {number}", problems)
            if line is None:  # keeps the cells in their places
                line = raw.replace(b"\0", b"?").decode("utf-8", "replace")
            if "\r" in line[:-2]:
                yield from re.split(r"(?<=\r)(?!\n)", line)
            else:
                yield line
