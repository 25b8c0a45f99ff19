"""A profile as one Parquet file: written whole, and read with everything in it checked and within bounded memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..core.checks import check_info
from ..core.data import FloatArray, Profile
from ..core.files import parse_json, reaching, replacing
from ..core.menu import Menu, with_menu
from ..core.visible import to_json
from ..errors import InvalidMenuError, RunError

METADATA_KEY = b"forethought.profile"
SCHEMA = 2
READABLE = (1, 2)  # 1 named its budgets by their step and the largest of them
LEVELS = (None, "easy", "medium", "hard")
LEAST_BOUND = 1 << 28  # bytes: a profile of a few thousand queries with hidden states of one layer
MOST_TIMES = 64  # the file, beyond that: what counts, texts and hidden states shrink to is much less
ROWS_AT_ONCE = 256


def write_parquet(path: Path, profile: Profile) -> None:
    """Writes a profile as Parquet: counts, mean tokens, texts, and one float16 column for each layer."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {
        "query_id": pa.array(profile.query_ids, pa.string()),
        "num_tried": pa.array(profile.num_tried_Q, pa.int32()),
        "num_right": _lists(profile.num_right_Q_B, pa.int32()),
        "tokens": _lists(profile.tokens_Q_B, pa.float32()),
        "reasoning_tokens": _lists(profile.reasoning_Q_B, pa.float32()),
    }
    if profile.texts:
        columns["question"] = pa.array(profile.texts, pa.string())
    if profile.difficulties:
        columns["difficulty"] = pa.array(profile.difficulties, pa.string())
    if profile.hidden_Q_L_D is not None:
        for column, layer in enumerate(profile.layers):
            columns[f"hidden_{layer}"] = _lists(profile.hidden_Q_L_D[:, column].astype(np.float16), pa.float16())
    metadata = {
        "schema": SCHEMA,
        "menu": profile.menu.to_json(),
        "layers": list(profile.layers),
        "info": dict(profile.info),
    }
    table = pa.table(columns).replace_schema_metadata({METADATA_KEY: to_json(metadata)})
    with replacing(path) as file:
        pq.write_table(table, file, compression="zstd")


def _lists(values_Q_N: FloatArray | Any, kind: Any) -> Any:
    import pyarrow as pa

    return pa.FixedSizeListArray.from_arrays(
        pa.array(np.ascontiguousarray(values_Q_N).ravel(), kind), values_Q_N.shape[1]
    )


def is_profile_file(path: Path) -> bool:
    """Whether `path` is a file that `write_parquet` wrote."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if path.suffix.lower() != ".parquet" or not path.is_file():
            return False
        return METADATA_KEY in (pq.read_schema(path).metadata or {})
    except (pa.ArrowException, OSError, ValueError):
        return False


def read_parquet(path: Path, *, with_hidden: bool = True) -> Profile:
    """Reads what `write_parquet` wrote.

    Args:
        path: the file.
        with_hidden: also read the hidden states.

    Raises:
        RunError: any other file, or one that is damaged, by what is wrong in it; one that would take far more memory
            than its size on disk lets expect.
        FileError: the system does not let it be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with reaching(path, "read"):
        if not path.exists():
            raise RunError(f"{path} does not exist")
        path.open("rb").close()  # what the system refuses is told in its own words, and what is no Parquet in pyarrow's
        bound = max(LEAST_BOUND, MOST_TIMES * path.stat().st_size)
    try:
        with pq.ParquetFile(path) as file:
            raw = (file.schema_arrow.metadata or {}).get(METADATA_KEY)
            if raw is None:
                raise RunError(f"{path} is a Parquet file but not a profile written by forethought")
            metadata = _metadata(raw)
            if metadata["schema"] not in READABLE:
                raise RunError(f"{path} has profile schema {metadata['schema']!r}; this version reads {SCHEMA}")
            menu = Menu.from_json(metadata["menu"])
            layers = tuple(metadata["layers"]) if with_hidden else ()
            columns = _columns(file, menu, layers, bound)
        return _profile(columns, menu, layers, metadata["info"])
    except (RunError, MemoryError):
        raise
    except InvalidMenuError as error:
        raise _damaged(path, error) from error
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> RunError:
    reason = " ".join(str(error).split())[:300]
    return RunError(f"{path} is not a readable Parquet file with a profile: {reason}. Copy it, or make it, again.")


def _metadata(raw: bytes) -> dict[str, Any]:
    """What stands beside the columns; raises ValueError where it is not what `write_parquet` put there."""
    found = parse_json(raw)
    if not isinstance(found, dict):
        raise ValueError("its metadata is no object")
    found = with_menu(found)
    for key, kind in (("schema", int), ("menu", list), ("layers", list), ("info", dict)):
        if type(found.get(key)) is not kind:
            raise ValueError(f"its metadata has no usable {key!r}")
    layers = found["layers"]
    if not all(type(layer) is int and layer >= 0 for layer in layers) or len(set(layers)) < len(layers):
        raise ValueError("its metadata has no usable 'layers'")
    if problem := check_info(found["info"]):
        raise ValueError(f"'info' in its metadata: {problem}")
    found["info"] = with_menu(found["info"])
    return found


def _columns(file: Any, menu: Menu, layers: Sequence[int], bound: int) -> dict[str, Any]:
    """Name -> array of each known column, decoded a few rows at a time so that a small file cannot fill the memory."""
    import pyarrow as pa

    schema, num_rows = file.schema_arrow, file.metadata.num_rows
    wanted: dict[str, int | None] = {"query_id": None, "num_tried": None}
    wanted |= dict.fromkeys(("num_right", "tokens", "reasoning_tokens"), menu.num_options)
    wanted |= {name: None for name in ("question", "difficulty") if name in schema.names}
    wanted |= {f"hidden_{layer}": 0 for layer in layers}
    widths: dict[str, int | None] = {}
    for name, width in wanted.items():
        if schema.names.count(name) != 1:
            raise ValueError(f"it has {schema.names.count(name)} columns {name!r}")
        widths[name] = _checked_width(name, schema.field(name).type, width)
    least = num_rows * sum(2 * (width or 1) for width in widths.values())
    stated = sum(
        file.metadata.row_group(group).column(column).total_uncompressed_size
        for group in range(file.metadata.num_row_groups)
        for column in range(file.metadata.num_columns)
        if file.metadata.row_group(group).column(column).path_in_schema.split(".")[0] in wanted
    )
    if max(least, stated) > bound:
        raise ValueError(f"it says that it holds {max(least, stated):,} bytes, more than a file of its size may")
    batches, size = [], 0
    for batch in file.iter_batches(ROWS_AT_ONCE, columns=list(wanted)):
        size += batch.nbytes
        if size > bound:
            raise ValueError(f"it holds more than {bound:,} bytes, more than a file of its size may")
        batches.append(batch)
    table = pa.Table.from_batches(batches, schema=pa.schema([schema.field(name) for name in wanted]))
    table.validate(full=True)
    return {name: _array(name, table[name], widths[name]) for name in wanted}


def _checked_width(name: str, kind: Any, width: int | None) -> int | None:
    """Numbers in a row of a column, None where it is no list; raises ValueError on a type it cannot have."""
    import pyarrow as pa

    is_text = name in ("query_id", "question", "difficulty")
    if width is None:
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) if is_text else pa.types.is_integer(kind)):
            raise ValueError(f"column {name!r} is of type {kind}")
        return None
    if not pa.types.is_fixed_size_list(kind) or (width and kind.list_size != width) or kind.list_size < 1:
        raise ValueError(f"column {name!r} is of type {kind}, for {width or 'some'} numbers in a row")
    if not (pa.types.is_integer(kind.value_type) if name == "num_right" else pa.types.is_floating(kind.value_type)):
        raise ValueError(f"column {name!r} is of type {kind}")
    return int(kind.list_size)


def _array(name: str, column: Any, width: int | None) -> Any:
    if column.null_count and name != "difficulty":
        raise ValueError(f"column {name!r} has rows without a value")
    if name in ("query_id", "question", "difficulty"):
        return tuple(column.to_pylist())
    if width is None:
        return column.to_numpy().astype(np.int64)
    values = column.combine_chunks()
    values = values.flatten() if hasattr(values, "flatten") else values
    if values.null_count:
        raise ValueError(f"column {name!r} has lists without a value")
    return values.to_numpy(zero_copy_only=False).reshape(-1, width)


def _profile(columns: Mapping[str, Any], menu: Menu, layers: Sequence[int], info: Mapping[str, Any]) -> Profile:
    """The profile of these columns; raises ValueError on counts that cannot be true."""
    query_ids, num_tried_Q = columns["query_id"], columns["num_tried"]
    num_right_Q_B = columns["num_right"].astype(np.int64)
    tokens_Q_B, reasoning_Q_B = (columns[name].astype(np.float64) for name in ("tokens", "reasoning_tokens"))
    if not query_ids:
        raise ValueError("it holds no queries")
    if len(set(query_ids)) < len(query_ids):
        raise ValueError("it holds a query twice")
    if (num_tried_Q < 1).any() or (num_right_Q_B < 0).any() or (num_right_Q_B > num_tried_Q[:, None]).any():
        raise ValueError("a query has no trace, or more right than it has traces")
    for name, values_Q_B in (("tokens", tokens_Q_B), ("reasoning_tokens", reasoning_Q_B)):
        if not (np.isfinite(values_Q_B).all() and (values_Q_B >= 0.0).all()):
            raise ValueError(f"column {name!r} holds what is no count of tokens")
    difficulties = columns.get("difficulty", ())
    if unknown := set(difficulties) - set(LEVELS):
        raise ValueError(f"column 'difficulty' holds {min(map(str, unknown))!r}")
    hidden = [columns[f"hidden_{layer}"] for layer in layers]
    if len({states.shape for states in hidden}) > 1:
        raise ValueError("its layers are not of one width")
    return Profile(
        query_ids=query_ids,
        menu=menu,
        num_right_Q_B=num_right_Q_B,
        num_tried_Q=num_tried_Q,
        tokens_Q_B=tokens_Q_B,
        reasoning_Q_B=reasoning_Q_B,
        hidden_Q_L_D=np.stack(hidden, axis=1) if hidden else None,
        layers=tuple(layers),
        texts=columns.get("question", ()),
        difficulties=difficulties,
        info=info,
    )
