"""The source of a table, its reader, and its rows by the meaning of their columns."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import IO

from ...core.problems import Problems
from ...errors import InvalidInputError, InvalidSettingsError
from .batch import BATCH_ROWS, Batch, Row, Wanted, choose_column, has_columns, no_such_column, size_of
from .jsons import read_json, read_jsonl
from .lines import CHUNK
from .separated import Reader, read_plain, read_separated


@dataclass(frozen=True, slots=True)
class Source:
    """Where a table's bytes come from.

    Attributes:
        name: in the user's own words: the path they typed, "standard input".
        suffix: of the format, in lower case; a key of `FORMATS`.
        open: opens the bytes, at their beginning.
    """

    name: str
    suffix: str
    open: Callable[[], IO[bytes]]


def find_file(name: str, *, otherwise: str = "") -> Source:
    """The table in a file.

    `otherwise` is what may be named in its place, for the message about an unknown ending.

    Raises:
        InvalidInputError: no such file (with the nearest name), a folder, or an unknown ending.
    """
    path = Path(name)
    suffix = path.suffix.lower()
    known = " ".join(FORMATS)
    try:
        if not path.exists():
            raise _no_such_file(name, path)
        if path.is_dir():
            raise InvalidInputError(f"{name}: is a folder; name a file in it ({known})")
        if not path.is_file():
            raise InvalidInputError(
                f"{name}: is a pipe or a device, which cannot be read twice; name a file{otherwise}"
            )
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        if isinstance(error, InvalidInputError):
            raise
        raise _unreadable(name, error) from error
    if suffix in PACKED:
        raise InvalidInputError(f"{name}: is compressed; unpack it first: {PACKED[suffix]} {name}")
    if suffix not in FORMATS:
        ending = f"cannot read files ending in {path.suffix!r}" if suffix else "has no file ending"
        raise InvalidInputError(f"{name}: {ending}; known: {known}{otherwise}")
    return Source(name, suffix, lambda: path.open("rb"))


def _no_such_file(name: str, path: Path) -> InvalidInputError:
    if not path.parent.is_dir():
        return InvalidInputError(f"{name}: no such file; there is no folder {str(path.parent)!r}")
    if path.is_symlink():
        return InvalidInputError(f"{name}: is a link to {str(path.readlink())!r}, which cannot be reached")
    endings = {*FORMATS, path.suffix.lower()} - {""}
    files = [entry.name for entry in path.parent.iterdir() if entry.suffix.lower() in endings and entry.is_file()]
    close = get_close_matches(path.name, files, n=1)
    suggestion = f" Did you mean {str(path.with_name(close[0]))!r}?" if close else ""
    return InvalidInputError(f"{name}: no such file.{suggestion}")


def _unreadable(name: str, error: Exception) -> InvalidInputError:
    return InvalidInputError(f"{name}: cannot be read: {getattr(error, 'strerror', None) or error}")


def read_batches(source: Source, wanted: Wanted, problems: Problems, *, limit: int | None = None) -> Iterator[Batch]:
    """Reads a table from its beginning, a batch at a time.

    Args:
        source: the table; ".txt" means JSON lines when it starts with "{", else one question per line.
        wanted: whether anybody will look at the column of that name; of the others only the name is kept.
        problems: what cannot be read is noted here, and the rest still comes back.
        limit: stop after so many rows, without reading what follows them.

    Raises:
        InvalidInputError: the file cannot be opened or read.
    """
    left = limit
    try:
        with source.open() as stream:
            for batch in FORMATS[source.suffix](stream, wanted, problems, BATCH_ROWS if left is None else left):
                yield batch if left is None else batch.first(left)
                if left is not None and (left := left - len(batch.numbers)) <= 0:
                    return
    except OSError as error:
        raise _unreadable(source.name, error) from error


def _read_parquet(stream: IO[bytes], wanted: Wanted, problems: Problems, batch_rows: int) -> Iterator[Batch]:
    from .parquet import read_parquet_batches  # imports pyarrow

    return read_parquet_batches(stream, wanted, problems, batch_rows)


FORMATS: dict[str, Reader] = {
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".json": read_json,
    ".csv": read_separated(","),
    ".tsv": read_separated("\t"),
    ".parquet": _read_parquet,
    ".txt": read_plain,
}


PACKED = {".gz": "gunzip", ".bz2": "bunzip2", ".xz": "unxz", ".zst": "unzstd", ".zip": "unzip"}


def standard_input() -> Source:
    """JSON lines when it starts with "{", else one question per line."""
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


MAX_ROWS = 1_000_000
MAX_TEXT = 1 << 29  # characters kept of one table


class Table:
    """A source whose columns are found by what they mean.

    Attributes:
        source: where it comes from.
        problems: everything that is wrong with it.
        names: its columns, as far as they are known yet.
        columns: meaning -> the column's name, or None; known as soon as the first row is.
    """

    def __init__(
        self,
        source: Source,
        usual: Mapping[str, Sequence[str]],
        named: Mapping[str, str | None],
        limit: int | None,
    ) -> None:
        if limit is not None and limit < 1:
            raise InvalidSettingsError(f"--limit must be at least 1, got {limit}")
        self.source, self.problems, self._limit = source, Problems(source.name), limit
        self.names: Sequence[str] = ()
        self.columns: dict[str, str | None] = dict.fromkeys(usual)
        self._usual, self._named = usual, named
        asked = [part for name in named.values() if name for part in (name, *name.split(","))]
        self._wanted = {name.lower() for names in (*usual.values(), asked) for name in names}

    def rows(self, needed: str = "") -> Iterator[Row]:
        """Row by row; ends, with the reason noted, where the column `needed` or one asked for is not there."""
        num_rows = size = 0
        for batch in read_batches(self.source, self._is_wanted, self.problems, limit=self._limit):
            self.names = batch.names
            if not self._choose(is_first=num_rows == 0, needed=needed):
                return
            for row in batch.rows():
                num_rows += 1
                size += sum(map(size_of, row.values.values()))
                yield row
            if num_rows > MAX_ROWS or size > MAX_TEXT:
                what = f"{MAX_ROWS:,} rows" if num_rows > MAX_ROWS else f"{MAX_TEXT >> 20} MiB of text"
                self.problems.add("", f"holds more than {what}, the most that is read at once; see --limit")
                return

    def _is_wanted(self, name: str) -> bool:
        return name.lower() in self._wanted

    def _choose(self, *, is_first: bool, needed: str) -> bool:
        for meaning, usual in self._usual.items():
            asked = self._named.get(meaning)
            if self.columns[meaning] is not None or asked == "":
                continue
            taken = [name for name in self.columns.values() if name is not None]
            self.columns[meaning] = choose_column(meaning, self.names, asked, usual, taken)
            if self.columns[meaning] is None and asked and is_first:
                self.problems.add("", no_such_column(meaning, asked, self.names))
                return False
        if needed and self.columns[needed] is None:
            usual, lowered = self._usual[needed], {name.lower(): name for name in self.names}
            matches = [get_close_matches(name, lowered, n=1, cutoff=0.75) for name in usual]
            close = [lowered[match] for some in matches for match in some]
            hint = f"Did you mean --{needed}-column {close[0]!r}?" if close else f"Name it with --{needed}-column NAME."
            self.problems.add("", f"no {needed} column ({', '.join(usual)}); {has_columns(self.names)}. {hint}")
            return False
        return True
