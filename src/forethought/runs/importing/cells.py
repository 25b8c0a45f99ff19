"""The columns of one file, in little memory: distinct values and one number per row; lists as flat arrays."""

from __future__ import annotations

import contextlib
import itertools
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...core.data import IntArray
from ...core.problems import Problems
from ...questions import fields
from ...questions.rows import MAX_TEXT, Batch, Wanted, size_of, text_of

BLANK, REFUSED, LISTED = -1, -2, -3  # in place of a value's index
SCALARS = (str, int, float, bool)
Reader = Callable[[str, Wanted, Problems], Iterator[Batch]]
MAX_ROWS = 20_000_000
MAX_ELEMENTS = 1 << 27  # of lists, in all columns of a file


class _Index(dict[Any, int]):
    """Values of one type -> their indexes; a new one is appended to `distinct`."""

    def __init__(self, values: list[Any]) -> None:
        super().__init__({None: BLANK})
        self.distinct = values
        self.size = 0

    def __missing__(self, value: Any) -> int:
        code = self[value] = len(self.distinct)
        self.distinct.append(value)
        self.size += len(value) if isinstance(value, str) else 8
        return code


@dataclass(frozen=True, slots=True, eq=False)
class Lists:
    """Some rows' lists, one after the other.

    Attributes:
        row_M: the rows of the file.
        length_M: how long each list is.
        flat: all their elements: an array of numbers, or a list where they are anything else.
    """

    row_M: IntArray
    length_M: IntArray
    flat: Any


class Cells:
    """A column's cells, in the order of the rows.

    Attributes:
        values: the distinct ones, as they stand in the file.
        lists: those that are lists.
        num_elements: elements of all lists.
    """

    def __init__(self, *, takes_lists: bool) -> None:
        self.values: list[Any] = []
        self.lists: list[Lists] = []
        self.num_elements = 0
        self._takes_lists = takes_lists
        self._codes = array("i")
        self._indexes: dict[type, _Index] = {}
        self._is_listed: bool | None = None
        self._odd_size = 0

    @property
    def size(self) -> int:
        """Characters kept."""
        return self._odd_size + sum(index.size for index in self._indexes.values())

    @property
    def is_listed(self) -> bool:
        """Whether the first cell that is not blank is a list."""
        return bool(self._is_listed)

    def each_list(self) -> Iterator[tuple[int, list[Any]]]:
        """`(row, its list)`."""
        for some in self.lists:
            ends = np.cumsum(some.length_M)
            for row, length, end in zip(some.row_M.tolist(), some.length_M.tolist(), ends.tolist(), strict=True):
                yield row, list(some.flat[end - length : end])

    def codes(self, num_rows: int) -> IntArray:
        """Which of `values` each row holds, or BLANK or LISTED; shape (N,)."""
        codes = np.full(num_rows, BLANK, dtype=np.int64)
        codes[: len(self._codes)] = np.frombuffer(self._codes, dtype=np.int32)
        return codes

    def fill(self, num_rows: int) -> None:
        """Makes the rows up to `num_rows` blank, where the file did not have the column yet."""
        self._codes.extend([BLANK] * (num_rows - len(self._codes)))

    def add(self, column: Any) -> None:
        """Takes a batch's cells: a list, or an Arrow array."""
        before = len(self._codes)
        if not isinstance(column, list):
            column = self._add_arrow(column)
        if column is not None:
            self._add_values(column)
        if self._is_listed is None:
            first = next((code for code in self._codes[before:] if code != BLANK), None)
            if first is not None:
                self._is_listed = first == LISTED

    def _add_arrow(self, column: Any) -> list[Any] | None:
        """Takes an Arrow array; gives it back as values where it is neither lists nor has distinct values."""
        import pyarrow as pa

        kind = column.type
        is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
        if is_list and self._takes_lists:
            self._add_arrow_lists(column)
            return None
        try:
            packed = column if pa.types.is_dictionary(kind) else column.dictionary_encode()
        except (pa.ArrowException, AttributeError):
            values: list[Any] = column.to_pylist()
            return values
        codes = packed.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        used = np.unique(codes[codes >= 0])
        taken = np.full(len(packed.dictionary) + 1, BLANK, dtype=np.int32)
        values = packed.dictionary.take(pa.array(used)).to_pylist()
        before = len(self._codes)
        self._add_values([text_of(value) for value in values])
        taken[used] = self._codes[before:]
        if (taken == LISTED).any():  # texts of lists: each row's own
            del self._codes[before:]
            self._drop_lists(before)
            return [None if value is None else text_of(value) for value in column.to_pylist()]
        del self._codes[before:]
        self._codes.frombytes(taken[codes].tobytes())
        return None

    def _drop_lists(self, before: int) -> None:
        while self.lists and self.lists[-1].row_M[0] >= before:
            self.num_elements -= int(self.lists.pop().length_M.sum())

    def _add_arrow_lists(self, column: Any) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        length_N = pc.fill_null(pc.list_value_length(column), -1).to_numpy(zero_copy_only=False).astype(np.int64)
        flat = pc.list_flatten(column)
        if pa.types.is_integer(flat.type) or pa.types.is_floating(flat.type):
            flat = flat.to_numpy(zero_copy_only=False)
        else:
            flat = flat.to_pylist()
        self._add_lists(np.flatnonzero(length_N >= 0), length_N[length_N >= 0], flat)
        self._codes.frombytes(np.where(length_N >= 0, LISTED, BLANK).astype(np.int32).tobytes())

    def _add_lists(self, index_M: IntArray, length_M: IntArray, flat: Any) -> None:
        if len(index_M):
            self.lists.append(Lists(len(self._codes) + index_M, length_M, flat))
            self.num_elements += len(flat)

    def _add_values(self, cells: Sequence[Any]) -> None:
        if self._takes_lists:
            cells = self._take_lists(cells)
        kinds = set(map(type, cells)) - {type(None)}
        if len(kinds) <= 1 and kinds <= set(SCALARS):
            index = self._index(kinds.pop() if kinds else str)
            self._codes.extend(map(index.__getitem__, cells))
        else:
            self._codes.extend(map(self._code, cells))

    def _index(self, kind: type) -> _Index:
        return self._indexes.setdefault(kind, _Index(self.values))

    def _code(self, cell: Any) -> int:
        """The index of one cell of any type: 1, 1.0, True and "1" are four."""
        if cell is _A_LIST:
            return LISTED
        try:
            return self._index(type(cell))[cell]
        except TypeError:  # a list or an object: each its own
            self.values.append(cell)
            self._odd_size += size_of(cell)
            return len(self.values) - 1

    def _take_lists(self, cells: Sequence[Any]) -> Sequence[Any]:
        """Puts lists, and texts of lists, aside; the cells with a mark in their places."""
        found: list[tuple[int, list[Any]]] = []
        for index, cell in enumerate(cells):
            if isinstance(cell, str):
                if cell[:1] not in "[ \t":
                    continue
                try:
                    found.append((index, fields.numbers(cell)))
                except fields.FieldError:
                    continue  # told when it is looked at
            elif isinstance(cell, list | tuple):
                found.append((index, list(cell)))
        if not found:
            return cells
        flat: Any = [element for _, values in found for element in values]
        if set(map(type, flat)) <= {int, float}:
            with contextlib.suppress(OverflowError):
                flat = np.array(flat, dtype=np.float64)
        index_M = np.array([index for index, _ in found], dtype=np.int64)
        self._add_lists(index_M, np.array([len(values) for _, values in found], dtype=np.int64), flat)
        marked = list(cells)
        for index, _ in found:
            marked[index] = _A_LIST
        return marked


_A_LIST = object()


class Table:
    """One file's columns, as far as anybody may ask for them; arguments as in `Columns`."""

    def __init__(
        self,
        path: str,
        takes_lists: Callable[[str], bool],
        where: Mapping[str, Sequence[str]],
        most: int | None,
        reader: Reader,
    ) -> None:
        self.path = path
        self.names: tuple[str, ...] = ()
        self.num_rows = self.num_passed_over = 0
        self._takes_lists, self._where, self._most, self._reader = takes_lists, where, most, reader
        self._kind = "row"
        self._numbers = array("q")
        self._cells: dict[str, Cells] = {}

    def read(self, wanted: Callable[[str], bool]) -> None:
        """Reads the file; raises InvalidInputError with everything that is wrong with it."""
        problems = Problems(self.path)
        given_up: set[str] = set()
        for batch in self._reader(
            self.path, lambda name: name in self._where or (name not in given_up and wanted(name)), problems
        ):
            self.names, self._kind = tuple(batch.names), batch.kind
            batch = self._filtered(batch, problems)
            for name, column in batch.columns.items():
                if name in given_up or not wanted(name):
                    continue
                cells = self._cells.setdefault(name, Cells(takes_lists=self._takes_lists(name)))
                cells.fill(self.num_rows)
                cells.add(column)
                if self._most is not None and (len(cells.values) > self._most or cells.lists):
                    given_up.add(name)
                    del self._cells[name]
            self._numbers.extend(batch.numbers)
            self.num_rows += len(batch.numbers)
            if (reason := self._excess()) is not None:
                problems.add("", f"holds more than {reason}, the most that is read at once; import it in parts")
                break
        if not self.num_rows and not self.num_passed_over and not problems:
            problems.add("", "holds no rows")
        problems.raise_any()

    def _filtered(self, batch: Batch, problems: Problems) -> Batch:
        """The rows that are as `where` asks."""
        if not self._where:
            return batch
        keep = [True] * len(batch.numbers)
        for name, texts in self._where.items():
            if name not in batch.columns:
                cells: Sequence[Any] = [None] * len(keep)
                if name not in batch.names and not self.num_rows:
                    problems.add(
                        "", f"--where {name}={texts[0]}: no such column; the file has: {', '.join(batch.names)}"
                    )
            else:
                cells = batch.cells(name)
            keep = [
                kept and any(_is_text(cell, text) for text in texts) for kept, cell in zip(keep, cells, strict=True)
            ]
        self.num_passed_over += keep.count(False)
        if all(keep):
            return batch
        columns = {name: list(itertools.compress(batch.cells(name), keep)) for name in batch.columns}
        return Batch(batch.kind, list(itertools.compress(batch.numbers, keep)), batch.names, columns)

    def _excess(self) -> str | None:
        if self.num_rows > MAX_ROWS:
            return f"{MAX_ROWS:,} rows"
        if sum(cells.size for cells in self._cells.values()) > MAX_TEXT:
            return f"{MAX_TEXT >> 20} MiB of text"
        if sum(cells.num_elements for cells in self._cells.values()) > MAX_ELEMENTS:
            return f"{MAX_ELEMENTS:,} numbers in lists"
        return None

    def take(self, name: str, other: Table) -> None:
        """Takes over a column of the same file."""
        self._cells[name] = other.cells(name)

    def has(self, name: str) -> bool:
        """Whether the column was read."""
        return name in self._cells

    def cells(self, name: str) -> Cells:
        """One column; nothing but blanks where the file does not have it."""
        return self._cells.get(name) or Cells(takes_lists=False)

    def place(self, row: int) -> str:
        """The position of a row of this file."""
        return f"{self._kind} {self._numbers[row]}"


def _is_text(cell: Any, text: str) -> bool:
    return not fields.is_blank(cell) and (cell if isinstance(cell, str) else str(cell)).strip() == text
