"""Predicted curves as a folder of Parquet files, loaded a row group at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any, cast, overload

import numpy as np

from ..allocators.batch import Part
from ..core.data import Curves, FloatArray
from ..core.files import parse_json, reaching
from ..core.menu import Menu
from ..core.visible import to_json
from ..errors import InvalidInputError, InvalidMenuError

METADATA_KEY = b"forethought.predictions"
IDS = ("id", "query_id")
TABLES = {"p": "p_Q_B", "tokens": "tokens_Q_B", "input_tokens": "input_Q_B"}
MOST_ENTRIES = 1 << 26  # of one table in one row group: a part of that size is in memory for each thread
FORMAT = (
    "columns id, p (a list with the chance of a right answer at each cap) and, for --cost spent, tokens (a list with "
    "the tokens expected at each cap)"
)


@dataclass(frozen=True)
class RowGroup:
    """Some rows of a file, loaded when they are asked for."""

    path: Path
    number: int
    num_rows: int
    menu: Menu
    id_column: str
    tables: tuple[str, ...]

    def load(self, is_usage_needed: bool = True) -> Curves:
        """The curves, if need be without their usage; ids are read once one is looked at.

        Raises:
            InvalidInputError: a list of another length than the menu, or an entry that is missing.
        """
        names = [name for name in self.tables if is_usage_needed or name == "p"]
        table = self._read(names)
        arrays = {TABLES[name]: self._numbers(name, table.column(name)) for name in names}
        return Curves(cast("tuple[str, ...]", _Ids(self)), self.menu, **arrays)

    def ids(self) -> Any:
        """The column of ids, as an Arrow array of its own type."""
        return self._read([self.id_column]).column(self.id_column).combine_chunks()

    def _read(self, columns: list[str]) -> Any:
        import pyarrow.parquet as pq

        with reaching(self.path, "read"), damage(self.path):
            file = pq.ParquetFile(self.path, memory_map=True)
            return file.read_row_group(self.number, columns=columns, use_threads=False)

    def _numbers(self, name: str, column: Any) -> FloatArray:
        size, flat = self.menu.num_options, column.combine_chunks()
        flat = flat.chunk(0) if hasattr(flat, "chunk") else flat
        values = flat.flatten()
        if flat.null_count or values.null_count or len(values) != size * len(flat) or _is_ragged(flat, size):
            raise InvalidInputError(
                f"{self.path}, row group {self.number}: column {name!r} must hold {size} numbers in each row, one for "
                f"each of the budgets {self.menu}"
            )
        array: FloatArray = values.to_numpy(zero_copy_only=False).reshape(-1, size)
        return array


class _Ids(Sequence[str]):
    """The ids of a row group as texts."""

    def __init__(self, group: RowGroup) -> None:
        self._group = group

    @cached_property
    def _array(self) -> Any:
        return self._group.ids()

    def __len__(self) -> int:
        return self._group.num_rows

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        if isinstance(index, slice):
            return tuple(map(str, self._array[index].to_pylist()))
        return str(self._array[index].as_py())


@dataclass(frozen=True)
class Predictions:
    """Predicted curves in the Parquet files of a folder.

    Attributes:
        folder: where the files are.
        menu: the options that the lists are over.
        groups: the rows, in order of the files' names.
        start: position of the first of them in a batch, where these are a part of it.
    """

    folder: Path
    menu: Menu
    groups: tuple[RowGroup, ...]
    start: int = 0

    @classmethod
    def open(cls, folder: str | Path, *, menu: Menu | None = None) -> Predictions:
        """Looks at the files' schemas alone.

        Args:
            folder: of Parquet files.
            menu: the budgets, where the files do not say theirs.

        Raises:
            InvalidInputError: no file, one that is damaged or has other columns; InvalidMenuError: no menu, or two.
        """
        import pyarrow.parquet as pq

        folder, groups, said = Path(folder), [], menu
        for path in files_in(folder):
            with reaching(path, "read"), damage(path):
                file = pq.ParquetFile(path, memory_map=True)
                schema, metadata = file.schema_arrow, file.metadata
            found = (schema.metadata or {}).get(METADATA_KEY)
            if found is not None:
                its = Menu.from_json(parse_json(found).get("menu"))
                if said is not None and its != said:
                    raise InvalidMenuError(f"{path} is over the budgets {its}, and others are over {said}")
                said = its
            if said is None:
                raise InvalidMenuError(f"{path} does not say its budgets; name them: --budgets 16:256:16")
            id_column, tables = _columns(path, schema)
            for number in range(metadata.num_row_groups):
                if not (num_rows := metadata.row_group(number).num_rows):
                    continue
                if num_rows * said.num_options > MOST_ENTRIES:
                    raise InvalidInputError(
                        f"{path} has a row group of {num_rows:,} rows, which is read whole; write row groups of at "
                        f"most {MOST_ENTRIES // said.num_options:,}"
                    )
                groups.append(RowGroup(path, number, num_rows, said, id_column, tables))
        assert said is not None
        if len({each.tables for each in groups}) > 1:
            raise InvalidInputError(f"the files of {folder} have different columns; each needs {FORMAT}")
        return cls(folder, said, tuple(groups))

    @property
    def num_queries(self) -> int:
        """Of all files."""
        return sum(each.num_rows for each in self.groups)

    @property
    def parts(self) -> list[Part]:
        """For `divide_parts`: one a row group."""
        starts = np.cumsum([self.start, *(each.num_rows for each in self.groups)]).tolist()
        return [Part(at, each.num_rows, each.load) for at, each in zip(starts, self.groups, strict=False)]

    def divided(self, number: int) -> list[Predictions]:
        """These as at most `number` runs of whole files, of about as many queries each."""
        runs, before, total = dict[int, list[RowGroup]](), 0, self.num_queries
        for _, file in groupby(self.groups, key=lambda each: each.path):
            groups = list(file)
            rows = sum(each.num_rows for each in groups)
            runs.setdefault(number * (2 * before + rows) // (2 * total), []).extend(groups)
            before += rows
        starts = accumulate((sum(each.num_rows for each in run) for run in runs.values()), initial=self.start)
        return [replace(self, groups=tuple(run), start=at) for at, run in zip(starts, runs.values(), strict=False)]


def files_in(folder: Path) -> list[Path]:
    """The Parquet files of a folder, by name; raises InvalidInputError where there is none."""
    with reaching(folder, "read"):
        found = sorted(path for path in folder.iterdir() if path.suffix == ".parquet" and not path.name.startswith("."))
    if not found:
        raise InvalidInputError(f"{folder} holds no Parquet file; predictions are Parquet files with {FORMAT}")
    return found


def is_folder(path: str) -> bool:
    """Whether `path` is a folder of Parquet files, and no run."""
    folder = Path(path)
    return folder.is_dir() and not (folder / "run.json").exists() and any(folder.glob("*.parquet"))


def metadata_of(menu: Menu, origin: str = "") -> dict[bytes, Any]:
    """What the schema of a file of predictions says; `origin` is a fingerprint of what they were made of."""
    return {METADATA_KEY: to_json({"schema": 1, "menu": menu.to_json()} | ({"origin": origin} if origin else {}))}


def origin_of(path: Path) -> str:
    """What a file of predictions was made of; "" where it does not say."""
    import pyarrow.parquet as pq

    with reaching(path, "read"), damage(path):
        found = (pq.ParquetFile(path).schema_arrow.metadata or {}).get(METADATA_KEY, b"{}")
        return str(parse_json(found).get("origin", ""))


def table_of(curves: Curves, ids: Any) -> Any:
    """Curves and their ids as an Arrow table with the columns that `Predictions` reads."""
    import pyarrow as pa

    def listed(array_Q_B: FloatArray) -> Any:
        kind = array_Q_B if array_Q_B.dtype in (np.float16, np.float32) else array_Q_B.astype(np.float32)
        return pa.FixedSizeListArray.from_arrays(pa.array(kind.reshape(-1)), array_Q_B.shape[1])

    tables = {name: getattr(curves, field) for name, field in TABLES.items()}
    return pa.table({"id": ids} | {name: listed(array) for name, array in tables.items() if array is not None})


def _columns(path: Path, schema: Any) -> tuple[str, tuple[str, ...]]:
    """The column of ids, and those of tables that are there."""
    import pyarrow as pa

    id_column = next((name for name in IDS if name in schema.names), None)
    tables = tuple(name for name in TABLES if name in schema.names)
    if id_column is None or "p" not in tables:
        raise InvalidInputError(f"{path} has the columns {', '.join(schema.names[:8])}; predictions have {FORMAT}")
    for name in tables:
        kind = schema.field(name).type
        is_list = pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind) or pa.types.is_large_list(kind)
        if not (is_list and pa.types.is_floating(kind.value_type)):
            raise InvalidInputError(f"{path}: column {name!r} holds {kind}; it must hold a list of floats in each row")
    kind = schema.field(id_column).type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)):
        raise InvalidInputError(f"{path}: column {id_column!r} holds {kind}; ids are texts or whole numbers")
    return id_column, tables


def _is_ragged(lists: Any, size: int) -> bool:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_fixed_size_list(lists.type):
        return bool(lists.type.list_size != size)
    lengths = pc.list_value_length(lists)
    return bool(len(lists)) and bool(pc.min(lengths).as_py() != size or pc.max(lengths).as_py() != size)


@contextmanager
def damage(path: Path) -> Iterator[None]:
    """What Arrow says of a damaged file, as an InvalidInputError that names it."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowKeyError) as error:
        raise _unreadable(path, error) from error
    except OSError as error:
        if error.errno is not None:  # the system's own, which says what it is
            raise
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> InvalidInputError:
    return InvalidInputError(f"{path} is no readable Parquet file: {error}")
