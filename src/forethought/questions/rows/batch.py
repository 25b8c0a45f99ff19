"""The output of a reader: some rows of a table, column by column."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

MAX_COLUMNS = 10_000
BATCH_ROWS = 4096
BATCH_BYTES = 1 << 22

Wanted = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Row:
    """One row and its position: `place` is "line 3" of a text file, "row 3" of a table, "item 3" of a list."""

    place: str
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows, one after the other.

    Attributes:
        kind: what a row is called: "line", "row" or "item".
        numbers: each row's number in the file, from 1.
        names: the columns met so far, wanted or not; a dot leads into an object.
        columns: the wanted ones' cells: a list, or an Arrow array.
    """

    kind: str
    numbers: Sequence[int]
    names: Sequence[str]
    columns: dict[str, Any]

    def place(self, index: int) -> str:
        """The position of a row."""
        return f"{self.kind} {self.numbers[index]}"

    def cells(self, name: str) -> list[Any]:
        """A column as Python values; bytes that are text become text."""
        column = self.columns[name]
        if isinstance(column, list):
            return column
        return [text_of(value) for value in column.to_pylist()]

    def first(self, number: int) -> Batch:
        """The first rows."""
        if number >= len(self.numbers):
            return self
        columns = {name: column[:number] for name, column in self.columns.items()}
        return Batch(self.kind, self.numbers[:number], self.names, columns)

    def rows(self) -> Iterator[Row]:
        """Row by row."""
        columns = {name: self.cells(name) for name in self.columns}
        for index in range(len(self.numbers)):
            yield Row(self.place(index), {name: cells[index] for name, cells in columns.items()})


def text_of(value: Any) -> Any:
    """The text in bytes that are text; anything else as it is."""
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value


def find_column(names: Iterable[str], usual: Sequence[str]) -> str | None:
    """The first of the usual names that is there: as it is written, or in other capitals."""
    known = dict.fromkeys(names)
    lowered: dict[str, str] = {}
    for name in known:
        lowered.setdefault(name.lower(), name)
    return next((name if name in known else lowered[name.lower()] for name in usual if name.lower() in lowered), None)


def choose_column(
    meaning: str, names: Sequence[str], asked: str | None, usual: Sequence[str], taken: Iterable[str] = ()
) -> str | None:
    """The column that means something: the one asked for, else the first with a usual name that is not taken.

    An empty name asks for none. Several ids, options or samples joined, "subject,number", stand for all of these.
    """
    if asked is None:
        return find_column([name for name in names if name not in set(taken)], usual)
    found = find_column(names, (asked,))
    if found is None and meaning in ("id", "option", "sample") and "," in asked:
        parts = [find_column(names, (part,)) for part in asked.split(",")]
        found = None if None in parts else ",".join(map(str, parts))
    return found


def has_columns(names: Sequence[str], most: int = 40) -> str:
    """Which columns there are, as many as a message can hold."""
    shown = [*map(repr, names[:most]), *(["…"] if len(names) > most else [])]
    return f"the file has: {', '.join(shown) or 'no columns'}"


def no_such_column(meaning: str, asked: str, names: Sequence[str]) -> str:
    """What is said of a column that was asked for and is not there."""
    close = difflib.get_close_matches(asked, names, n=1)
    suggestion = f" Did you mean --{meaning}-column {close[0]!r}?" if close else ""
    return f"--{meaning}-column {asked!r}: no such column; {has_columns(names)}.{suggestion}"


def too_many_columns(number: int) -> str:
    """What is said of a table that is wider than any table is."""
    return f"has {number:,} columns; at most {MAX_COLUMNS:,} can be read"


def size_of(cell: Any) -> int:
    """About how many characters a cell holds, texts within lists and objects included."""
    if isinstance(cell, str):
        return len(cell)
    if isinstance(cell, list | tuple):
        return 8 * len(cell) + sum(map(size_of, cell))
    return sum(map(size_of, cell.values())) if isinstance(cell, dict) else 8
