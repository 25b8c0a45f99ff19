"""Where a table's bytes come from, and which reader takes them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ...core.problems import Problems
from ...errors import InvalidInputError
from .batch import BATCH_ROWS, Batch, Wanted
from .jsons import read_json, read_jsonl
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

    Args:
        name: its path, as the user typed it.
        otherwise: what may be named in place of a file with a known ending, for the message about an unknown one.

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
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        if isinstance(error, InvalidInputError):
            raise
        raise _unreadable(name, error) from error
    if suffix not in FORMATS:
        ending = f"cannot read files ending in {path.suffix!r}" if suffix else "has no file ending"
        raise InvalidInputError(f"{name}: {ending}; known: {known}{otherwise}")
    return Source(name, suffix, lambda: path.open("rb"))


def _no_such_file(name: str, path: Path) -> InvalidInputError:
    if not path.parent.is_dir():
        return InvalidInputError(f"{name}: no such file; there is no folder {str(path.parent)!r}")
    close = difflib.get_close_matches(path.name, [entry.name for entry in path.parent.iterdir()], n=1)
    suggestion = f" Did you mean {str(path.with_name(close[0]))!r}?" if close else ""
    return InvalidInputError(f"{name}: no such file.{suggestion}")


def _unreadable(name: str, error: Exception) -> InvalidInputError:
    return InvalidInputError(f"{name}: cannot be read: {getattr(error, 'strerror', None) or error}")


def read_batches(source: Source, wanted: Wanted, problems: Problems, *, limit: int | None = None) -> Iterator[Batch]:
    """Reads a table from its beginning, a batch at a time.

    Args:
        source: the table; ".txt" means JSON lines when it starts with "{", else one question a line.
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
