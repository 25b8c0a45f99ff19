"""Parquet, a few rows at a time: text stays compressed until its size is known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from ...core.problems import Problems
from .batch import BATCH_ROWS, MAX_COLUMNS, Batch, Wanted, too_many_columns
from .jsons import MAX_DEPTH
from .lines import MAX_LINE, too_long
from .pages import Group, PageError, Pages, read_footer, read_pages

MAX_PAGE = 1 << 28  # bytes; writers aim at 1 MiB
MAX_SHARED = 1 << 26  # bytes that the values of one batch may take before anybody has looked at them
MAX_DELTA = 1 << 32  # bytes of lists of texts, were each as long as its page
MAX_LISTED = 1 << 26  # elements of one column of lists in one row group
MAX_FIXED = 1 << 12  # bytes of a value of fixed length
BATCH_ELEMENTS = 1 << 20
BATCH_TEXT = 1 << 26
ERRORS = (pa.ArrowException, OSError, ValueError, ArithmeticError, TypeError, KeyError, IndexError, UnicodeDecodeError)


class _RefusedError(Exception):
    """Why the file is not read; in words."""


def read_parquet_batches(stream: IO[bytes], wanted: Wanted, problems: Problems, batch_rows: int) -> Iterator[Batch]:
    """The wanted columns; a column within structs is named with dots."""
    number = 0
    try:
        groups = read_footer(stream)
        file = parquet.ParquetFile(stream)
        names = _names(file.schema_arrow)
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise _RefusedError(f"names a column twice: {', '.join(map(repr, repeated))}")
        taken = [name for name in names if wanted(name)]
        if not taken and any(group.num_rows for group in groups):
            yield Batch("row", (1,), names, {})  # for its names
            return
        leaves = [
            index
            for index in range(len(file.schema))
            if any(_is_within(file.schema.column(index).path, name) for name in taken)
        ]
        for index, group in enumerate(groups):
            pages = {leaf: read_pages(stream, group.chunks[leaf]) for leaf in leaves}
            rows = min(batch_rows, _safe_rows(file.schema, group, pages))
            # Texts stay packed where they can be: Arrow does not pack what is kept as differences.
            packed = [leaf for leaf in leaves if _is_text(file.schema.column(leaf)) and not pages[leaf].is_delta]
            opened = parquet.ParquetFile(stream, read_dictionary=packed, metadata=file.metadata)
            for records in opened.iter_batches(rows, row_groups=[index], columns=taken, use_threads=False):
                records.validate(full=True)  # a damaged file's indices lead outside its dictionary
                for part in _parts(records, number):
                    columns = {name: _column(part, name) for name in taken}
                    numbers = range(number + 1, number + 1 + part.num_rows)
                    yield Batch("row", numbers, names, columns)
                    number += part.num_rows
    except _RefusedError as refusal:
        problems.add("", str(refusal))
    except PageError as error:
        problems.add("", f"not readable as Parquet: {error}")
    except ERRORS as error:
        problems.add("", f"not readable as Parquet: {str(error).strip().partition(chr(10))[0]}")


def _names(schema: pa.Schema) -> list[str]:
    names: list[str] = []

    def walk(name: str, kind: pa.DataType, depth: int) -> None:
        names.append(name)
        if pa.types.is_struct(kind) and depth < MAX_DEPTH:
            for index in range(kind.num_fields):
                walk(f"{name}.{kind.field(index).name}", kind.field(index).type, depth + 1)

    if len(schema) > MAX_COLUMNS:
        raise _RefusedError(too_many_columns(len(schema)))
    for field in schema:
        walk(field.name, field.type, 1)
    return names


def _is_within(path: str, name: str) -> bool:
    return path == name or path.startswith(f"{name}.")


def _is_text(column: Any) -> bool:
    return bool(column.physical_type == "BYTE_ARRAY")


def _safe_rows(schema: Any, group: Group, pages_of: Mapping[int, Pages]) -> int:
    """How many rows may be decoded at once; refuses what no number of rows makes safe."""
    rows = BATCH_ROWS
    for leaf, pages in pages_of.items():
        column = schema.column(leaf)
        name = column.path.partition(".")[0]
        if pages.largest > MAX_PAGE:
            raise _RefusedError(
                f"column {name!r} holds a page of {pages.largest:,} bytes; at most {MAX_PAGE >> 20} MiB can be read"
            )
        if column.physical_type == "FIXED_LEN_BYTE_ARRAY" and column.length > MAX_FIXED:
            raise _RefusedError(f"column {name!r} holds values of {column.length:,} bytes each, which are no numbers")
        if column.max_repetition_level:
            if pages.num_values > MAX_LISTED:
                raise _RefusedError(
                    f"column {name!r} holds {pages.num_values:,} list elements in one row group; at most "
                    f"{MAX_LISTED:,} can be read. Write it with a smaller row_group_size"
                )
            rows = min(rows, max(1, BATCH_ELEMENTS * max(1, group.num_rows) // max(1, pages.num_values)))
        # One text may be as long as the page, and every row may hold it.
        longest = pages.largest if pages.is_delta else pages.largest_shared
        if _is_text(column) and (pages.is_delta or longest > MAX_LINE):
            rows = min(rows, max(1, MAX_SHARED // max(1, longest)))
            if pages.is_delta and column.max_repetition_level and pages.num_values * longest > MAX_DELTA:
                raise _RefusedError(f"column {name!r} holds lists of texts in DELTA_BYTE_ARRAY; write it without")
    return rows


def _parts(records: pa.RecordBatch, number: int) -> Iterator[pa.RecordBatch]:
    """The records, in parts whose texts fit into memory; refuses a row whose texts do not."""
    size = sum(_text_size(column) for column in records.columns)
    if size <= (BATCH_TEXT if records.num_rows > 1 else MAX_LINE):
        yield records
    elif records.num_rows <= 1:
        raise _RefusedError(f"row {number + 1}: {too_long('the row')}")
    else:
        half = records.num_rows // 2
        yield from _parts(records.slice(0, half), number)
        yield from _parts(records.slice(half), number + half)


def _text_size(array: Any) -> int:
    """Bytes of all texts in the array, once each is unpacked."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        lengths = pc.take(pc.binary_length(array.dictionary), array.indices)
        return int(pc.sum(lengths, min_count=0).as_py())
    if pa.types.is_struct(kind):
        return sum(_text_size(array.field(index)) for index in range(kind.num_fields))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_map(kind):
        return _text_size(array.flatten() if not pa.types.is_map(kind) else array.items)
    return array.nbytes if pa.types.is_binary(kind) or pa.types.is_string(kind) else 0


def _column(records: pa.RecordBatch, name: str) -> Any:
    """A column by its name; one within structs as a list."""
    if name in records.schema.names:
        return records.column(name)
    top, *path = _split(name, records.schema.names)
    values = records.column(top).to_pylist()
    for key in path:
        values = [value.get(key) if isinstance(value, dict) else None for value in values]
    return values


def _split(name: str, names: list[str]) -> list[str]:
    """A name with dots as the keys that lead there; a column's own name may hold dots, too."""
    top = max((each for each in names if name.startswith(f"{each}.")), key=len)
    return [top, *name[len(top) + 1 :].split(".")]
