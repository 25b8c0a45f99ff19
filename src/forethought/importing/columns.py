"""Files of measurements -> columns, converted by their distinct values; where a row stands is found when it is asked.

Reading goes through Arrow. A file that Arrow cannot read is read again by `rows.read_table`, which says why, by line.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import fields
from ..errors import InvalidInputError
from ..problems import Problems
from ..rows import read_file, read_table
from ..types import FloatArray, IntArray

Mask = NDArray[np.bool_]
BLANK, REFUSED = -1, -2  # in place of a value's index, while reading
JSON_BLOCK = 1 << 24  # bytes; the longest line that Arrow takes
ARROW_FORMATS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """A column as its distinct values, and which of them each row holds.

    Attributes:
        values: distinct, in order of first appearance.
        code_N: index into `values`; -1 where the cell is blank or was refused.
    """

    values: tuple[Any, ...]
    code_N: IntArray


class Columns:
    """The rows of one or more files, one after the other.

    Args:
        names: the files' paths.
        problems: what cannot be read or taken is noted here, by file and line.
    """

    def __init__(self, names: Sequence[str], problems: Problems) -> None:
        self._problems = problems
        self._files = [_File(name) for name in names]
        self._starts = list(itertools.accumulate((file.num_rows for file in self._files), initial=0))
        self.num_rows = self._starts[-1]
        self._blank: dict[str, Mask] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of the first file."""
        return self._files[0].names

    def lacking(self, names: Iterable[str]) -> Iterable[tuple[str, list[str]]]:
        """`(file, names)` of every file that lacks some of the columns `names`."""
        for file in self._files:
            if missing := [name for name in names if name not in file.names]:
                yield file.path, missing

    def place(self, row: int) -> str:
        """Where a row stands: "line 7", or "b.csv line 7" when there are several files."""
        index = bisect.bisect_right(self._starts, row) - 1
        file = self._files[index]
        place = file.place(row - self._starts[index])
        return place if len(self._files) == 1 else f"{file.path} {place}"

    def refuse(self, rows: IntArray, message: str) -> None:
        """Notes one problem at each of the rows."""
        self._problems.add_all((self.place(int(row)) for row in rows), len(rows), message)

    def holds_lists(self, name: str) -> bool:
        """Whether the column's cells are lists (JSON lists in a text file)."""
        return any(_is_list(file.column(name)) for file in self._files)

    def blank(self, name: str) -> Mask:
        """Which cells of an encoded column say nothing, shape (N,); one that was refused says something."""
        return self._blank[name]

    def encode(self, name: str, convert: Callable[[Any], Any]) -> Encoded:
        """The column's values, each converted once; a cell that `convert` refuses is noted."""
        index: dict[Any, int] = {}
        codes = []
        for start, file in zip(self._starts, self._files, strict=False):
            raw, raw_code_N = _distinct(file.column(name))
            taken = np.full(len(raw) + 1, BLANK, dtype=np.int64)  # the last one stands for code -1
            for position, value in enumerate(raw):
                if fields.is_blank(value):
                    continue
                taken[position] = REFUSED
                try:
                    taken[position] = index.setdefault(convert(value), len(index))
                except fields.FieldError as refusal:
                    self.refuse(start + np.flatnonzero(raw_code_N == position), f"{name!r} {refusal}")
            codes.append(taken[raw_code_N])
        code_N = np.concatenate(codes)
        self._blank[name] = code_N == BLANK
        return Encoded(tuple(index), np.maximum(code_N, -1))

    def numbers(self, name: str, convert: Callable[[Any], float]) -> FloatArray:
        """The column as numbers, shape (N,); NaN where the cell is blank or was refused."""
        return _gathered(self.encode(name, convert))

    def lists(self, name: str, convert: Callable[[Any], float] | None) -> FloatArray:
        """A column of lists as a matrix, shape (N, W); NaN for a blank element, a blank cell or one refused.

        Args:
            name: the column.
            convert: takes each distinct element; None takes finite numbers as they are, as float32 (features), and
                refuses any other.
        """
        width: int | None = None
        parts = []
        for start, file in zip(self._starts, self._files, strict=False):
            flat, length_N = self._flattened(name, start, file)
            filled = np.flatnonzero(length_N >= 0)
            if width is None and len(filled):
                width, first = int(length_N[filled[0]]), start + int(filled[0])
            uneven = filled[length_N[filled] != width]
            for length in np.unique(length_N[uneven]):
                rows = start + np.flatnonzero(length_N == length)
                self.refuse(rows, f"{name!r} holds {length} numbers, but {width} in {self.place(first)}")
            even = filled[length_N[filled] == width]
            values_N_W = np.full((file.num_rows, width or 0), np.nan, dtype=np.float64 if convert else np.float32)
            if width and len(even):
                if len(uneven):
                    flat = flat.filter(np.repeat(length_N == width, np.maximum(length_N, 0)))
                owner_M = start + np.repeat(even, width)
                values_N_W[even] = self._elements(name, flat, owner_M, convert).reshape(len(even), width)
            parts.append(values_N_W)
        width = width or 0
        return np.concatenate(
            [part if part.shape[1] == width else np.full((len(part), width), np.nan) for part in parts]
        )

    def _flattened(self, name: str, start: int, file: _File) -> tuple[Any, IntArray]:
        """`(all elements as one Arrow array, length of each row's list)`; length -1 where blank or refused."""
        import pyarrow as pa
        import pyarrow.compute as pc

        column = file.column(name)
        if isinstance(column, pa.ChunkedArray) and _is_list(column) and not pa.types.is_string(column.type):
            lengths = pc.fill_null(pc.list_value_length(column), -1).to_numpy().astype(np.int64)
            return pc.list_flatten(column), lengths
        cells = column.to_pylist() if isinstance(column, pa.ChunkedArray) else column
        length_N = np.full(len(cells), -1, dtype=np.int64)
        elements: list[Any] = []
        for row, cell in enumerate(cells):
            if fields.is_blank(cell):
                continue
            try:
                values = fields.numbers(cell)
                array = pa.array(values, pa.float64())
            except fields.FieldError as refusal:
                self.refuse(np.array([start + row]), f"{name!r} {refusal}")
            except (pa.ArrowException, OverflowError, TypeError):
                self.refuse(np.array([start + row]), f"{name!r} holds something other than numbers: {values[:3]!r}, …")
            else:
                length_N[row] = len(array)
                elements.append(array)
        return pa.concat_arrays(elements) if elements else pa.array([], pa.float64()), length_N

    def _elements(self, name: str, flat: Any, owner_M: IntArray, convert: Callable[[Any], float] | None) -> FloatArray:
        """The elements as numbers, shape (M,); `owner_M` is each one's row."""
        import pyarrow as pa

        if convert is None:
            try:
                values_M = flat.cast(pa.float32(), safe=False).to_numpy(zero_copy_only=False)
            except (pa.ArrowException, TypeError):
                values_M = np.full(len(owner_M), np.nan, dtype=np.float32)
            is_bad_M = ~np.isfinite(values_M)
            self.refuse(np.unique(owner_M[is_bad_M]), f"{name!r} holds NaN, infinity or something other than numbers")
            return np.where(is_bad_M, np.float32(0.0), values_M)
        raw, code_M = _distinct(flat)
        taken = np.full(len(raw) + 1, np.nan)
        for position, value in enumerate(raw):
            if fields.is_blank(value):
                continue
            try:
                taken[position] = convert(value)
            except fields.FieldError as refusal:
                self.refuse(np.unique(owner_M[code_M == position]), f"an element of {name!r} {refusal}")
        found: FloatArray = taken[code_M]
        return found


def _gathered(encoded: Encoded) -> FloatArray:
    found: FloatArray = np.array([*encoded.values, np.nan], dtype=np.float64)[encoded.code_N]
    return found


def _distinct(column: Any) -> tuple[list[Any], IntArray]:
    """`(distinct values, index of each row's value)`; index -1 for nothing. What cannot be compared stays as it is."""
    import pyarrow as pa

    if not isinstance(column, list):
        array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        try:
            encoded = array.dictionary_encode()
        except (pa.ArrowException, AttributeError):
            column = array.to_pylist()
        else:
            return encoded.dictionary.to_pylist(), encoded.indices.fill_null(-1).to_numpy().astype(np.int64)
    return column, np.arange(len(column))


def _is_list(column: Any) -> bool:
    import pyarrow as pa

    if isinstance(column, pa.ChunkedArray):
        kind = column.type
        if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
            return True
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            return False
        column = column.slice(0, 100).to_pylist()
    first = next((cell for cell in column if not fields.is_blank(cell)), None)
    return isinstance(first, list | tuple) or (isinstance(first, str) and first.lstrip().startswith("["))


class _File:
    """One file's columns: Arrow's, or lists of Python values where Arrow could not read it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._suffix, self._data = read_file(path)
        self._places: Sequence[str] | None = None
        self._columns: dict[str, Any] = {}
        self._parquet: Any = None
        if self._suffix not in ARROW_FORMATS or not self._read_arrow():
            self._read_rows()

    def _read_arrow(self) -> bool:
        """Reads the file in one go; False when it is not as it should be."""
        import pyarrow as pa

        try:
            if self._suffix == ".parquet":
                import pyarrow.parquet as pq

                self._parquet = pq.ParquetFile(pa.BufferReader(self._data))
                self.names = tuple(self._parquet.schema_arrow.names)
                self.num_rows = self._parquet.metadata.num_rows
                return bool(self.num_rows)
            table = self._read_json() if self._suffix in (".jsonl", ".ndjson") else self._read_separated()
        except (pa.ArrowException, OSError, ValueError, TypeError, KeyError):
            return False
        self.names = tuple(name.strip() for name in table.column_names)
        self.num_rows = table.num_rows
        self._columns = dict(zip(self.names, table.columns, strict=True))
        return len(set(self.names)) == len(self.names) and bool(self.num_rows)

    def _read_separated(self) -> Any:
        """Every cell as the text it is: an id such as 007 is no number."""
        import pyarrow as pa
        from pyarrow import csv

        parsing = csv.ParseOptions(delimiter="\t" if self._suffix == ".tsv" else ",", newlines_in_values=True)
        with csv.open_csv(pa.BufferReader(self._data), parse_options=parsing) as reader:
            names = reader.schema.names
        converting = csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()))
        return csv.read_csv(pa.BufferReader(self._data), parse_options=parsing, convert_options=converting)

    def _read_json(self) -> Any:
        import pyarrow as pa
        from pyarrow import json

        reading = json.ReadOptions(block_size=JSON_BLOCK)
        table = json.read_json(pa.BufferReader(self._data), read_options=reading)
        dates = [field.name for field in table.schema if pa.types.is_temporal(field.type)]
        if not dates:
            return table
        as_text = json.ParseOptions(explicit_schema=pa.schema([(name, pa.string()) for name in dates]))
        return json.read_json(pa.BufferReader(self._data), read_options=reading, parse_options=as_text)

    def _read_rows(self) -> None:
        problems = Problems(self.path)
        table = read_table(self._data, self._suffix, (), problems)
        if not table.rows and not problems:
            problems.add("", f"holds no rows ({len(self._data):,} bytes)")
        problems.raise_any()
        self.names = table.columns
        self.num_rows = len(table.rows)
        self._places = [row.place for row in table.rows]
        self._columns = {name: [row.values.get(name) for row in table.rows] for name in table.columns}

    def column(self, name: str) -> Any:
        """One column: a ChunkedArray, or a list of values."""
        if name not in self._columns:
            import pyarrow as pa

            try:
                self._columns[name] = self._parquet.read(columns=[name]).column(0)
            except (pa.ArrowException, OSError, IndexError) as error:
                reason = str(error).strip().partition("\n")[0]
                raise InvalidInputError(f"{self.path}: column {name!r} cannot be read: {reason}") from error
        return self._columns[name]

    def place(self, row: int) -> str:
        """Where a row of this file stands."""
        if self._places is not None:
            return self._places[row]
        if self._suffix == ".parquet" or len(self._lines) != self.num_rows:
            return f"row {row + 1}"
        return f"line {self._lines[row]}"

    @cached_property
    def _lines(self) -> list[int]:
        """The line each row starts on; a quoted cell may span lines."""
        is_separated = self._suffix in (".csv", ".tsv")
        found, is_open = [], False
        for number, line in enumerate(self._data.split(b"\n"), start=1):
            if line.strip() and not is_open:
                found.append(number)
            if is_separated and line.count(b'"') % 2:
                is_open = not is_open
        return found[1:] if is_separated else found
