"""Files of JSON lines: appended so that a kill does not lose reported results, read line by line."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from ..core.files import open_bytes, parse_json, reaching
from ..core.visible import to_json
from ..errors import RunError

Line = TypeVar("Line")


@contextmanager
def appending(path: Path) -> Iterator[Appender]:
    """Opens a file of JSON lines for appending, after dropping a line that a kill or a full disk cut short."""
    with open_bytes(path, "ab+", "written") as file:
        with reaching(path, "written"):
            _drop_partial_line(file)
        yield Appender(path, file)


def read_lines(path: Path, read: Callable[[Any], Line], *, start: int = 0) -> Iterator[Line]:
    """Every whole line of a JSONL file, in order; a last one without its line end is not one yet. Nothing: no file.

    Args:
        path: the file.
        read: makes something of a line's value; raises ValueError where it cannot.
        start: bytes of the file that are left out, whole lines.

    Raises:
        RunError: a line that is no record, by its number.
    """
    if not path.exists():
        return
    with open_bytes(path, "rb", "read") as file:
        file.seek(start)
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                found = read(parse_json(line))
            except ValueError as error:
                raise RunError(
                    f"{path} line {number} is not a record: {error}. Delete this line, and give "
                    "the same command again to recreate it."
                ) from error
            yield found


class Appender:
    """Writes records so that each one is wholly on disk when `append` returns."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Appends `records` and waits until the disk has them; where it cannot have all of them, it has none."""
        lines = memoryview(b"".join(f"{to_json(record)}\n".encode() for record in records))
        start = self._file.seek(0, os.SEEK_END)
        try:
            with reaching(self._path, "written"):
                while lines:
                    lines = lines[self._file.write(lines) :]
                os.fsync(self._file.fileno())
        except OSError:
            with suppress(OSError):
                self._file.truncate(start)
            raise


def _drop_partial_line(file: BinaryIO) -> None:
    size = file.seek(0, os.SEEK_END)
    step = 1 << 16
    position = size
    while position > 0:
        start = max(0, position - step)
        file.seek(start)
        newline = file.read(position - start).rfind(b"\n")
        if newline >= 0:
            file.truncate(start + newline + 1)
            return
        position = start
    file.truncate(0)
