"""Rows for other tools: CSV, TSV, Parquet or JSON lines, by the file name; written completely or not at all."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InvalidSettingsError
from .files import replacing
from .visible import to_json

SEPARATORS = {".csv": ",", ".tsv": "\t"}
REFUSED = (".json", ".txt", ".xls", ".xlsx", ".ods")
# What a spreadsheet would compute, or would take for a command: https://owasp.org/www-community/attacks/CSV_Injection
_FORMULA = re.compile(r"[=+\-@\t\r\n＝＋－＠]")
_NUMBER = re.compile(r"[+-]?(\d[\d,]*\.?\d*|\.\d+)([eE][+-]?\d+)?%?")
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")  # of a terminal; or of no file


def check_rows_name(file: Path, flag: str) -> None:
    """Refuses a name that promises what `write_rows` does not write; raises InvalidSettingsError."""
    if file.suffix.lower() in REFUSED:
        raise InvalidSettingsError(
            f"{flag} {file}: rows are written as .csv, .tsv, .parquet or .jsonl; name it {file.with_suffix('.csv')}"
        )


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, type] | None = None) -> None:
    """Writes rows as the ending of `path` says: .csv, .tsv, .parquet, and JSON lines under any other name.

    JSON lines keep each row as it is. A table has a column for each name; a cell is empty where a row has no such
    value. In CSV and TSV, which spreadsheets open, text that they would compute begins with an apostrophe (numbers
    such as -5 do not), control characters are written out, and a byte-order mark says that it is UTF-8.

    Args:
        path: of the file; its folder is there.
        rows: of plain values: text, numbers, None.
        columns: name -> type of its values, in order; by default what the rows hold.
    """
    ending = path.suffix.lower()
    with replacing(path) as file:
        if ending == ".parquet":
            _write_parquet(file, rows, columns or _columns(rows))
        elif ending in SEPARATORS:
            text = io.TextIOWrapper(file, "utf-8-sig", newline="", write_through=True)
            writer = csv.DictWriter(text, list(columns or _columns(rows)), delimiter=SEPARATORS[ending])
            writer.writeheader()
            writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
            text.detach()
        else:
            file.writelines(f"{to_json(row)}\n".encode() for row in rows)


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, type]:
    """Name -> type of its values, in the order in which they first come; text where there is no other."""
    found: dict[str, set[type]] = {}
    for row in rows:
        for name, value in row.items():
            found.setdefault(name, set()).update([] if value is None else [type(value)])
    order = (str, float, int, bool)  # the first that fits all values of a column
    return {name: next((kind for kind in order if kind in kinds), str) for name, kinds in found.items()}


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = _CONTROLS.sub(lambda match: ascii(match.group())[1:-1], value)
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def _write_parquet(file: Any, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, type]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    arrays = {}
    for name, kind in columns.items():
        values = [row.get(name) for row in rows]
        if kind is str:  # half a surrogate pair is no text of a file
            values = [
                None if each is None else str(each).encode("utf-8", "backslashreplace").decode() for each in values
            ]
        arrays[name] = pa.array(values, kinds[kind])
    pq.write_table(pa.table(arrays), file, compression="zstd")
