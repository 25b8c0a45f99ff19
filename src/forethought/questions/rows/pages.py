"""The real content of a Parquet file: its footer and page headers, read without decoding anything.

A footer may be wrong. The size that a reader will allocate is stated before each page, in Thrift's compact protocol.
pyarrow is not used for this: its `metadata.row_group(i).column(j)` ends the process on some damaged footers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import IO, Any

WINDOW = 1 << 14
MAX_HEADER = 1 << 20  # a header's statistics may hold a whole value
MAX_PAGES = 200_000  # of one column of one row group
MAX_FOOTER = 1 << 26
MAX_NESTING = 24
DICTIONARY_PAGE = 2
DELTA_BYTE_ARRAY = 7  # an encoding in which a short page can stand for long values


class PageError(ValueError):
    """Bytes that are no footer or page header."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """The position of one column of one row group."""

    start: int
    size: int
    num_values: int


@dataclass(frozen=True, slots=True)
class Group:
    """A row group: its rows, and its columns in the order of the schema's leaves."""

    num_rows: int
    chunks: tuple[Chunk, ...]


def read_footer(stream: IO[bytes]) -> list[Group]:
    """The row groups; raises PageError where there is no footer or it is not as it should be."""
    size = stream.seek(0, 2)
    stream.seek(max(0, size - 8))
    tail = stream.read(8)
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != b"PAR1" or length > size - 8:
        raise PageError("it does not end as a Parquet file does")
    if length > MAX_FOOTER:
        raise PageError(f"its footer holds {length:,} bytes; at most {MAX_FOOTER >> 20} MiB can be read")
    stream.seek(size - 8 - length)
    try:
        footer = _Thrift(stream.read(length)).struct()
        return [
            Group(_number(group, 3), tuple(_chunk(column[3]) for column in group[1])) for group in footer.get(4) or ()
        ]
    except (IndexError, KeyError, TypeError, AttributeError) as error:
        raise PageError("its footer is damaged") from error


def _chunk(column: dict[int, Any]) -> Chunk:
    start, dictionary = _number(column, 9), _number(column, 11)
    return Chunk(dictionary if 0 < dictionary < start else start, _number(column, 7), _number(column, 5))


@dataclass(frozen=True, slots=True)
class Pages:
    """One column of one row group.

    Attributes:
        largest: bytes of the largest page, decompressed.
        largest_shared: the same of dictionaries, whose bytes may stand for many values each.
        num_values: values in all.
        is_delta: texts are kept as what differs from the text before (DELTA_BYTE_ARRAY).
    """

    largest: int
    largest_shared: int
    num_values: int
    is_delta: bool


def read_pages(stream: IO[bytes], chunk: Chunk) -> Pages:
    """Walks over the page headers of a column, as far as a reader would.

    Raises:
        PageError: something there is no page header, or there are more pages than any writer makes.
    """
    at, end = chunk.start, chunk.start + chunk.size
    largest = shared = found = 0
    is_delta = False
    for _ in range(MAX_PAGES):
        if at >= end or found >= chunk.num_values:
            return Pages(largest, shared, found, is_delta)
        header, length = _header_at(stream, at)
        kind, inflated, packed = (_number(header, key) for key in (1, 2, 3))
        if inflated < 0 or packed < 0:
            raise PageError("a page of negative size")
        largest = max(largest, inflated)
        details: dict[int, Any] = next((header[key] for key in (5, 7, 8) if isinstance(header.get(key), dict)), {})
        encoding = _number(details, 4 if 8 in header else 2)
        if kind == DICTIONARY_PAGE:
            shared = max(shared, inflated)
        else:
            found += max(0, _number(details, 1))
            is_delta = is_delta or encoding == DELTA_BYTE_ARRAY
        at += length + packed
    raise PageError(f"a column of more than {MAX_PAGES:,} pages")


def _number(fields: dict[int, Any], key: int) -> int:
    value = fields.get(key, 0)
    return value if isinstance(value, int) else 0


def _header_at(stream: IO[bytes], at: int) -> tuple[dict[int, Any], int]:
    """`(the header's fields, its length)`."""
    window = WINDOW
    while True:
        stream.seek(max(0, at))
        data = stream.read(window)
        reader = _Thrift(data)
        try:
            return reader.struct(), reader.at
        except IndexError as error:
            if len(data) < window or window >= MAX_HEADER:
                raise PageError("a page header that does not end") from error
            window *= 8


class _Thrift:
    """Values of Thrift's compact protocol; IndexError where the data ends too early."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """The fields of a struct by their numbers."""
        if depth > MAX_NESTING:
            raise PageError("it is nested too deeply")
        fields: dict[int, Any] = {}
        key = 0
        while byte := self._byte():
            key = key + (byte >> 4) if byte >> 4 else self._zigzag()
            if key in fields:
                raise PageError("a field occurs twice")
            fields[key] = self._value(byte & 15, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (1, 2):
            return kind == 1
        if kind == 3:
            return self._byte()
        if kind in (4, 5, 6):
            return self._zigzag()
        if kind == 7:
            return self._skip(8)
        if kind == 8:
            return self._skip(self._varint())
        if kind in (9, 10):
            byte = self._byte()
            size = byte >> 4 if byte >> 4 < 15 else self._varint()
            item = 3 if byte & 15 in (1, 2) else byte & 15
            return [self._value(item, depth + 1) for _ in range(size)]
        if kind == 12:
            return self.struct(depth + 1)
        raise PageError("bytes that mean nothing")

    def _skip(self, size: int) -> None:
        self.at += size
        if self.at > len(self._data):
            raise IndexError

    def _byte(self) -> int:
        byte = self._data[self.at]
        self.at += 1
        return byte

    def _varint(self) -> int:
        value = shift = 0
        while shift < 64:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
        raise PageError("a number without end")

    def _zigzag(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
