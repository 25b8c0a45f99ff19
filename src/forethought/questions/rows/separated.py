"""CSV and TSV with a header line, one question per line, and JSON lines under the name .txt."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable, Iterator
from typing import IO

from ...core.problems import Problems
from .batch import BATCH_BYTES, BATCH_ROWS, MAX_COLUMNS, Batch, Wanted, too_many_columns
from .jsons import read_json_lines
from .lines import MAX_LINE, CsvLines, read_lines, too_long

Reader = Callable[[IO[bytes], Wanted, Problems, int], Iterator[Batch]]


def read_plain(stream: IO[bytes], wanted: Wanted, problems: Problems, batch_rows: int) -> Iterator[Batch]:
    """JSON lines when the first one starts with "{", else one question per line."""
    lines = ((number, line) for number, line in read_lines(stream, problems) if line.strip())
    first = next(lines, None)
    if first is None:
        return
    lines = itertools.chain([first], lines)  # type: ignore[assignment]
    if first[1].lstrip().startswith("{"):
        yield from read_json_lines(lines, wanted, problems, batch_rows)
        return
    while some := _some(lines, min(batch_rows, BATCH_ROWS)):
        numbers, texts = zip(*some, strict=True)
        yield Batch("line", numbers, ("question",), {"question": [text.strip() for text in texts]})


def _some(lines: Iterator[tuple[int, str]], most: int) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    size = 0
    for number, line in lines:
        found.append((number, line))
        size += len(line)
        if len(found) >= most or size >= BATCH_BYTES:
            break
    return found


def read_separated(delimiter: str) -> Reader:
    """The reader of cells between `delimiter`s; what Excel writes between semicolons under the name .csv is read, too.

    A cell of nothing but space is None.
    """

    def read(stream: IO[bytes], wanted: Wanted, problems: Problems, batch_rows: int) -> Iterator[Batch]:
        csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE))  # Python's own is 131,072 characters
        lines = CsvLines(stream, problems)
        skipped, first = _first_line(lines)
        own = delimiter
        if first.startswith("sep=") and len(first.strip()) == 5:  # Excel's own first line
            own, first = first[4], ""
        elif delimiter == "," and "," not in first:
            own = next((other for other in ";\t" if other in first), ",")
        reader = csv.reader(itertools.chain([first] if first.strip() else [], lines), delimiter=own, strict=True)
        start = skipped if first.strip() else skipped + 1
        yield from _batches(reader, lines, start, wanted, problems, min(batch_rows, BATCH_ROWS), own)

    return read


def _first_line(lines: CsvLines) -> tuple[int, str]:
    """`(its number, the first line that is not blank)`."""
    for line in lines:
        if line.strip():
            return lines.number, line
    return lines.number, ""


def _batches(
    reader: Iterator[list[str]],
    lines: CsvLines,
    line: int,
    wanted: Wanted,
    problems: Problems,
    batch_rows: int,
    delimiter: str,
) -> Iterator[Batch]:
    """The rows after the header; `line` is the one the first row starts on (a quoted cell may span lines)."""
    header: list[str] = []
    rows: list[list[str]] = []
    numbers: list[int] = []
    size = 0
    has_rows = False
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            kind = "TSV" if delimiter == "\t" else "CSV"
            is_over = lines.is_over or "field limit" in str(error)
            reason = f"{too_long('the row')}; is a quote left open?" if is_over else f"not readable as {kind}: {error}"
            problems.add(f"line {line}", reason)
            break
        if cells is None:
            if lines.is_over:
                problems.add(f"line {line}", f"{too_long('the row')}; is a quote left open?")
            break
        number, line = line, lines.number + 1
        size += lines.size
        lines.size = 0
        if not any(map(str.strip, cells)):
            continue
        if not header:
            header = [cell.strip() for cell in cells]
            if not _is_header(header, number, problems):
                return
        elif len(cells) != len(header):
            problems.add(f"line {number}", f"{len(cells)} cells, but the header has {len(header)}")
        else:
            rows.append(cells)
            numbers.append(number)
            if len(rows) >= batch_rows or size >= BATCH_BYTES:
                yield _batch(header, rows, numbers, wanted)
                rows, numbers, size, has_rows = [], [], 0, True
    if header and (rows or not has_rows):  # without rows, for its names
        yield _batch(header, rows, numbers, wanted)


def _is_header(header: list[str], number: int, problems: Problems) -> bool:
    """Whether the columns can be read; notes what is wrong with their names. Those without one are no columns."""
    if len(header) > MAX_COLUMNS:
        problems.add(f"line {number}", too_many_columns(len(header)))
        return False
    if repeated := sorted({name for name in header if name and header.count(name) > 1}):
        problems.add(f"line {number}", f"the header names a column twice: {', '.join(map(repr, repeated))}")
    return True


def _batch(header: list[str], rows: list[list[str]], numbers: list[int], wanted: Wanted) -> Batch:
    columns = {
        name: [cell if cell and not cell.isspace() else None for cell in cells]
        for name, cells in zip(header, zip(*rows, strict=True) if rows else [()] * len(header), strict=True)
        if wanted(name)
    }
    return Batch("line", numbers, tuple(dict.fromkeys(header)), columns)
