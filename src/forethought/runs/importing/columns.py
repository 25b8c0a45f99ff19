"""Files of measurements -> columns, converted by their distinct values."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core.data import FloatArray, IntArray
from ...core.problems import Problems, excerpt
from ...errors import InvalidInputError
from ...questions import fields
from ...questions.rows import Batch, Wanted, find_file, read_batches
from .cells import BLANK, REFUSED, SCALARS, Cells, Reader, Table

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """A column as its distinct values, and which of them each row holds.

    Attributes:
        values: distinct, in order of first appearance.
        code_N: index into `values`; -1 where the cell is blank or was refused.
    """

    values: tuple[Any, ...]
    code_N: IntArray


def read_table(file: str, wanted: Wanted, problems: Problems) -> Iterator[Batch]:
    """Batches of a table file."""
    return read_batches(find_file(file), wanted, problems)


class Columns:
    """The rows of one or more files, one after the other.

    Args:
        names: the files' paths.
        problems: what cannot be read or taken is noted here, by file and line.
        wanted: whether a column of that name may be asked for; the others are only named.
        takes_lists: whether that column's cells may be lists.
        where: column -> the texts one of which its cell must hold for a row to be read.
        most: distinct values after which a column is given up; None for none.
        reader: what reads a file.
    """

    def __init__(
        self,
        names: Sequence[str],
        problems: Problems,
        *,
        wanted: Callable[[str], bool],
        takes_lists: Callable[[str], bool],
        where: Mapping[str, Sequence[str]] | None = None,
        most: int | None = None,
        reader: Reader = read_table,
    ) -> None:
        self._problems, self._reader = problems, reader
        self._where = where or {}
        self._files = [Table(name, takes_lists, self._where, most, reader) for name in names]
        for file in self._files:
            file.read(wanted)
        self._starts = list(itertools.accumulate((file.num_rows for file in self._files), initial=0))
        self.num_rows = self._starts[-1]
        self._blank: dict[str, Mask] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of the first file."""
        return self._files[0].names

    @property
    def num_passed_over(self) -> int:
        """Rows that are not as `where` asks."""
        return sum(file.num_passed_over for file in self._files)

    def lacking(self, names: Iterable[str]) -> Iterable[tuple[str, list[str]]]:
        """`(file, names)` of every file that lacks some of the columns `names`."""
        for file in self._files:
            if missing := [name for name in names if name not in file.names]:
                yield file.path, missing

    def place(self, row: int) -> str:
        """The position of a row: "line 7", or "b.csv line 7" when there are several files."""
        index = bisect.bisect_right(self._starts, row) - 1
        file = self._files[index]
        place = file.place(row - self._starts[index])
        return place if len(self._files) == 1 else f"{file.path} {place}"

    def refuse(self, rows: IntArray, message: str) -> None:
        """Notes one problem at each of the rows."""
        self._problems.add_all((self.place(int(row)) for row in rows), len(rows), message)

    def holds_lists(self, name: str) -> bool:
        """Whether the column's cells are lists (JSON lists in a text file)."""
        return any(file.cells(name).is_listed for file in self._files)

    def blank(self, name: str) -> Mask:
        """Which cells of an encoded column say nothing, shape (N,); one that was refused says something."""
        return self._blank[name]

    def encode(self, name: str, convert: Callable[[Any], Any], *, is_label: bool = False) -> Encoded:
        """The column's values, each converted once; a cell that `convert` refuses is noted.

        Args:
            name: the column.
            convert: takes one cell that is not blank; raises FieldError.
            is_label: also refuse that two values of a file come to the same, such as 1 and "1": nobody knows whether
                they are one query.
        """
        index: dict[Any, int] = {}
        codes = []
        for start, file in zip(self._starts, self._files, strict=False):
            cells = file.cells(name)
            raw_code_N = cells.codes(file.num_rows)
            taken = np.full(len(cells.values) + 3, BLANK, dtype=np.int64)  # the last three: what is no value
            owner: dict[Any, Any] = {}
            for position, value in enumerate(cells.values):
                if fields.is_blank(value):
                    continue
                taken[position] = REFUSED
                try:
                    converted = convert(value)
                    if is_label and owner.setdefault(converted, value) is not value:
                        other = owner[converted]
                        raise fields.FieldError(
                            f"{value!r} and {other!r} would be the same: write them in the same way"
                        )
                    taken[position] = index.setdefault(converted, len(index))
                except fields.FieldError as refusal:
                    self.refuse(start + np.flatnonzero(raw_code_N == position), f"{name!r} {refusal}")
            code_N = taken[raw_code_N]
            for row, values in cells.each_list():
                code_N[row] = REFUSED
                try:
                    code_N[row] = index.setdefault(convert(values), len(index))
                except (fields.FieldError, TypeError) as refusal:
                    self.refuse(np.array([start + row]), f"{name!r} {refusal}")
            codes.append(code_N)
        code_N = np.concatenate(codes)
        self._blank[name] = code_N == BLANK
        return Encoded(tuple(index), np.maximum(code_N, -1))

    def labels(self, name: str, meaning: str = "id") -> Encoded:
        """Ids or options; several columns with commas between their names make one id together, such as "algebra/7"."""
        if name in self.names or "," not in name:
            return self.encode(name, fields.label, is_label=True)
        parts = [self.encode(part, fields.label, is_label=True) for part in name.split(",")]
        code_N_P = np.stack([part.code_N for part in parts], axis=1)
        rows = np.flatnonzero((code_N_P >= 0).all(axis=1))
        sets, first, code_M = np.unique(code_N_P[rows], axis=0, return_index=True, return_inverse=True)
        order = np.argsort(first)
        texts = ["/".join(part.values[code] for part, code in zip(parts, sets[each], strict=True)) for each in order]
        if len(set(texts)) < len(texts):
            self._problems.add(
                "", f"--{meaning}-column {name}: two different values give the same text; choose other columns"
            )
        code_N = np.full(self.num_rows, -1, dtype=np.int64)
        code_N[rows] = np.argsort(order)[code_M.reshape(-1)]
        self._blank[name] = code_N < 0
        return Encoded(tuple(texts), code_N)

    def texts(self, name: str) -> Encoded:
        """A column whose cells may be anything, as texts."""
        return self.encode(name, lambda value: value if isinstance(value, str) else excerpt(value))

    def tally(self, name: str, texts: Collection[str]) -> int:
        """Rows whose cell is one of the texts, in any capitals."""
        num = 0
        for file in self._files:
            cells = file.cells(name)
            codes = [code for code, value in enumerate(cells.values) if str(value).strip().lower() in texts]
            num += int(np.isin(cells.codes(file.num_rows), codes).sum()) if codes else 0
        return num

    def others(self, most: int) -> list[str]:
        """Other columns with few distinct values; the files are read again for them."""
        unread = {name for name in self.names if not any(file.has(name) for file in self._files)}
        paths = [file.path for file in self._files]
        try:
            again = Columns(
                paths,
                Problems(""),
                wanted=unread.__contains__,
                takes_lists=lambda _: False,
                where=self._where,
                most=most,
                reader=self._reader,
            )
        except InvalidInputError:  # of a column that nobody needs
            return []
        found = [name for name in self.names if name in unread and all(file.has(name) for file in again._files)]
        if again.num_rows == self.num_rows:
            for name in found:
                for own, file in zip(self._files, again._files, strict=True):
                    own.take(name, file)
            return found
        return []

    def numbers(self, name: str, convert: Callable[[Any], float | None]) -> FloatArray:
        """The column as numbers, shape (N,); NaN where the cell is blank or was refused."""
        encoded = self.encode(name, convert)
        found: FloatArray = np.array([*encoded.values, np.nan], dtype=np.float64)[encoded.code_N]
        return found

    def lists(self, name: str, convert: Callable[[Any], float | None] | None) -> FloatArray:
        """A column of lists as a matrix, shape (N, W); NaN for a blank element, a blank cell or one refused.

        Args:
            name: the column.
            convert: takes each distinct element; None takes finite numbers as they are, as float32 (features), and
                refuses any other.
        """
        width: int | None = None
        parts = []
        for start, file in zip(self._starts, self._files, strict=False):
            cells = file.cells(name)
            self._refuse_scalars(name, start, cells, file.num_rows)
            length_N = np.full(file.num_rows, -1, dtype=np.int64)
            for some in cells.lists:
                length_N[some.row_M] = some.length_M
            filled = np.flatnonzero(length_N >= 0)
            if width is None and len(filled):
                width, first = int(length_N[filled[0]]), start + int(filled[0])
            uneven = filled[length_N[filled] != width]
            for length in np.unique(length_N[uneven]):
                rows = start + np.flatnonzero(length_N == length)
                self.refuse(rows, f"{name!r} holds {length} numbers, but {width} in {self.place(first)}")
            values_N_W = np.full((file.num_rows, width or 0), np.nan, dtype=np.float64 if convert else np.float32)
            for some in cells.lists if width else ():
                even_M = some.length_M == width
                row_M = some.row_M[even_M]
                flat = some.flat
                if not even_M.all():
                    kept = np.repeat(even_M, some.length_M)
                    flat = flat[kept] if isinstance(flat, np.ndarray) else list(itertools.compress(flat, kept))
                if width and len(row_M):
                    elements = self._elements(name, flat, start + np.repeat(row_M, width), convert)
                    values_N_W[row_M] = elements.reshape(len(row_M), width)
            parts.append(values_N_W)
        width = width or 0
        return np.concatenate(
            [part if part.shape[1] == width else np.full((len(part), width), np.nan) for part in parts]
        )

    def _refuse_scalars(self, name: str, start: int, cells: Cells, num_rows: int) -> None:
        """Notes the cells of a column of lists that are none."""
        code_N = cells.codes(num_rows)
        for position, value in enumerate(cells.values):
            if fields.is_blank(value):
                continue
            try:
                fields.numbers(value)
            except fields.FieldError as refusal:
                self.refuse(start + np.flatnonzero(code_N == position), f"{name!r} {refusal}")

    def _elements(
        self, name: str, flat: Any, owner_M: IntArray, convert: Callable[[Any], float | None] | None
    ) -> FloatArray:
        """The elements as numbers, shape (M,); `owner_M` is each one's row."""
        if convert is None:
            try:
                with np.errstate(over="ignore"):
                    values_M = np.asarray(flat, dtype=np.float32)
            except (ValueError, TypeError, OverflowError):
                values_M = np.array([_number(value) for value in flat], dtype=np.float32)
            is_bad_M = ~np.isfinite(values_M)
            self.refuse(np.unique(owner_M[is_bad_M]), f"{name!r} holds NaN, infinity or something other than numbers")
            return np.where(is_bad_M, np.float32(0.0), values_M)
        if isinstance(flat, np.ndarray):
            distinct, code_M = np.unique(flat, return_inverse=True)
            raw: list[Any] = distinct.tolist()
        else:
            keys = [(type(value), value if isinstance(value, SCALARS) else id(value)) for value in flat]
            first = {key: index for index, key in reversed(list(enumerate(keys)))}
            place = {key: number for number, key in enumerate(first)}
            raw, code_M = [flat[index] for index in first.values()], np.array([place[key] for key in keys])
        taken = np.full(len(raw), np.nan)
        for position, value in enumerate(raw):
            if fields.is_blank(value):
                continue
            try:
                taken[position] = convert(value)
            except fields.FieldError as refusal:
                self.refuse(np.unique(owner_M[code_M == position]), f"an element of {name!r} {refusal}")
        found: FloatArray = taken[code_M]
        return found


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else float("nan")
