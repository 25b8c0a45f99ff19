"""The bytes of a question file -> numbered rows of named values; says nothing yet about what the values mean."""

from __future__ import annotations

import csv
import difflib
import io
import json
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import InvalidInputError
from .problems import Problems, excerpt


@dataclass(frozen=True, slots=True)
class Row:
    """One row and where it stands: `place` is "line 3" of a text file, "row 3" of a table, "item 3" of a list."""

    place: str
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows and every column name that occurs, in order of first appearance."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def read_file(name: str, *, otherwise: str = "") -> tuple[str, bytes]:
    """`(format suffix, bytes)` of a file.

    Args:
        name: its path, as the user typed it.
        otherwise: what may be named in place of a file with a known ending, for the message about an unknown one.

    Raises:
        InvalidInputError: no such file (with the nearest name), a folder, an unknown ending, or not to be read.
    """
    path = Path(name)
    suffix = path.suffix.lower()
    known = " ".join(FORMATS)
    try:
        if not path.exists():
            raise _no_such_file(name, path)
        if path.is_dir():
            raise InvalidInputError(f"{name}: is a folder; name a file in it ({known})")
        if suffix not in FORMATS:
            ending = f"cannot read files ending in {path.suffix!r}" if suffix else "has no file ending"
            raise InvalidInputError(f"{name}: {ending}; known: {known}{otherwise}")
        return suffix, path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError(f"{name}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _no_such_file(name: str, path: Path) -> InvalidInputError:
    if not path.parent.is_dir():
        return InvalidInputError(f"{name}: no such file; there is no folder {str(path.parent)!r}")
    close = difflib.get_close_matches(path.name, [entry.name for entry in path.parent.iterdir()], n=1)
    suggestion = f" Did you mean {str(path.with_name(close[0]))!r}?" if close else ""
    return InvalidInputError(f"{name}: no such file.{suggestion}")


def read_table(data: bytes, suffix: str, wanted: Collection[str], problems: Problems) -> Table:
    """Reads `data` as the format that `suffix` names (one of `FORMATS`).

    Args:
        data: the whole file.
        suffix: ".jsonl", ".csv", … in lower case; ".txt" means JSON lines when it starts with "{", else plain lines.
        wanted: columns anybody will look at; a Parquet file's other columns are not decoded.
        problems: what cannot be read is noted here, and the rest still comes back.
    """
    return FORMATS[suffix](data, wanted, problems)


def parse_json(text: str) -> Any:
    """The value of a JSON text; ValueError with a reason on anything else, hostile input included."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from error
    except RecursionError as error:
        raise ValueError("not usable JSON: nested too deeply") from error
    except ValueError as error:  # an integer of thousands of digits, or a constant refused below
        raise ValueError(f"not usable JSON: {str(error).partition(';')[0]}") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _text_lines(data: bytes, problems: Problems) -> list[tuple[int, str]]:
    """Numbered lines that are text; the others are noted. A line ends in LF or CR LF, nothing else."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        problems.add("", "is UTF-16, not UTF-8. Convert it with: iconv -f UTF-16 -t UTF-8 FILE")
        return []
    lines: list[tuple[int, str]] = []
    offset = 0
    for number, raw in enumerate(data.split(b"\n"), start=1):
        try:
            # One "\r" goes with the line break; any other one is the line's own.
            line = raw.removesuffix(b"\r").decode("utf-8")
        except UnicodeDecodeError as error:
            byte = raw[error.start]
            problems.add(
                f"line {number}",
                f"not UTF-8: byte 0x{byte:02x} at offset {offset + error.start:,} of the file. "
                "Convert it with: iconv -f WINDOWS-1252 -t UTF-8 FILE",
            )
        else:
            if number == 1:
                line = line.removeprefix("\ufeff")
            if "\0" in line:
                at = offset + raw.index(b"\0")
                problems.add(f"line {number}", f"holds a NUL byte at offset {at:,} of the file; is it a text file?")
            else:
                lines.append((number, line))
        offset += len(raw) + 1
    return lines


def _whole_text(data: bytes, problems: Problems) -> str | None:
    """The file as one text, or None (noted) when any of its lines is not text."""
    before = len(problems)
    lines = _text_lines(data, problems)
    if len(problems) > before:
        return None
    return data.decode("utf-8-sig") if lines else ""


def _table(rows: Iterator[Row] | list[Row]) -> Table:
    kept = tuple(rows)
    columns = dict.fromkeys(name for row in kept for name in row.values)
    return Table(tuple(columns), kept)


def _read_jsonl(data: bytes, wanted: Collection[str], problems: Problems) -> Table:
    return _json_lines(_text_lines(data, problems), problems)


def _json_lines(lines: list[tuple[int, str]], problems: Problems) -> Table:
    def rows() -> Iterator[Row]:
        for number, line in lines:
            if not line.strip():
                continue
            place = f"line {number}"
            try:
                value = parse_json(line)
            except ValueError as error:
                problems.add(place, f"{error}: {excerpt(line)}")
                continue
            if isinstance(value, dict):
                yield Row(place, value)
            else:
                problems.add(place, f'expected an object such as {{"question": "…"}}, got {excerpt(value)}')

    return _table(rows())


def _read_json(data: bytes, wanted: Collection[str], problems: Problems) -> Table:
    text = _whole_text(data, problems)
    if text is None or not text.strip():
        return _table([])
    try:
        items = parse_json(text)
    except ValueError as error:
        looks_like_lines = text.lstrip().startswith("{") and "Extra data" in str(error)
        hint = ". It looks like JSON lines: rename it to end in .jsonl" if looks_like_lines else ""
        problems.add("", f"{error}{hint}")
        return _table([])
    if not isinstance(items, list):
        problems.add("", f'expected a list such as [{{"question": "…"}}], got {excerpt(items)}')
        return _table([])
    rows = []
    for number, item in enumerate(items, start=1):
        if isinstance(item, dict):
            rows.append(Row(f"item {number}", item))
        elif isinstance(item, str):
            rows.append(Row(f"item {number}", {"question": item}))
        else:
            problems.add(f"item {number}", f'expected an object such as {{"question": "…"}}, got {excerpt(item)}')
    return _table(rows)


def _read_plain(data: bytes, wanted: Collection[str], problems: Problems) -> Table:
    lines = _text_lines(data, problems)
    first = next((line for _, line in lines if line.strip()), "")
    if first.lstrip().startswith("{"):
        return _json_lines(lines, problems)
    return _table([Row(f"line {number}", {"question": line.strip()}) for number, line in lines if line.strip()])


def _read_separated(delimiter: str) -> Callable[[bytes, Collection[str], Problems], Table]:
    def read(data: bytes, wanted: Collection[str], problems: Problems) -> Table:
        text = _whole_text(data, problems)
        return _separated(text, delimiter, problems) if text else _table([])

    return read


def _separated(text: str, delimiter: str, problems: Problems) -> Table:
    """Rows of a CSV text with a header line; empty cells are left out, as if the column were absent there."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    rows: list[Row] = []
    line = 1  # a quoted cell may span lines: a row is named by the line it starts on
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            problems.add(f"line {line}", f"not readable as {'TSV' if delimiter == chr(9) else 'CSV'}: {error}")
            break
        if cells is None:
            break
        place, line = f"line {line}", reader.line_num + 1
        if not any(cell.strip() for cell in cells):
            continue
        if not header:
            header = [cell.strip() for cell in cells]
            repeated = sorted({name for name in header if header.count(name) > 1})
            if repeated:
                problems.add(place, f"the header names a column twice: {', '.join(map(repr, repeated))}")
        elif len(cells) != len(header):
            problems.add(place, f"{len(cells)} cells, but the header has {len(header)}")
        else:
            rows.append(Row(place, {name: cell for name, cell in zip(header, cells, strict=True) if cell.strip()}))
    return Table(tuple(dict.fromkeys(header)), tuple(rows))


def _read_parquet(data: bytes, wanted: Collection[str], problems: Problems) -> Table:
    import pyarrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(pyarrow.BufferReader(data))
        columns = tuple(file.schema_arrow.names)
        table = file.read(columns=[name for name in dict.fromkeys(columns) if name in wanted])
        values = table.to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError, ArithmeticError, TypeError, KeyError) as error:
        reason = str(error).strip().partition("\n")[0]
        problems.add("", f"not readable as Parquet: {reason}")
        return _table([])
    return Table(columns, tuple(Row(f"row {number}", row) for number, row in enumerate(values, start=1)))


FORMATS: dict[str, Callable[[bytes, Collection[str], Problems], Table]] = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_separated(","),
    ".tsv": _read_separated("\t"),
    ".parquet": _read_parquet,
    ".txt": _read_plain,
}
