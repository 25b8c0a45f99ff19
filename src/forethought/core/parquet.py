"""A profile as one Parquet file: written completely, and validated when read, within bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FileError, RunError
from .codec import UnfitError
from .data import FloatArray, IntArray
from .files import parse_json, reaching, replacing
from .menu import Menu, with_menu
from .profile import RIGHT, UNTRIED, Profile, Traces
from .provenance import Provenance
from .visible import to_json

METADATA_KEY = b"forethought.profile"
SCHEMA = 2
READABLE = (1, 2)  # 1 named its budgets by their step and the largest of them
TEXTS = ("query_id", "question", "difficulty")
OF_TRACES = ("sample", "length", "trace_tokens", "grade", "answer", "answers")
LOGPROBS = ("answer_logprob", "thought_logprob")  # of traces, where they were shown
LEVELS = (None, "easy", "medium", "hard")
LEAST_BOUND = 1 << 28  # bytes: a profile of a few thousand queries with hidden states of one layer
MOST_TIMES = 64  # the file, beyond that: what counts, texts and hidden states shrink to is much less
ROWS_AT_ONCE = 256
ROWS_A_GROUP = 1 << 12


def write_parquet(path: Path, profile: Profile) -> None:
    """Writes a profile as Parquet: counts, mean tokens, traces, texts, and one float16 column for each layer."""
    import pyarrow.parquet as pq

    metadata = {
        "schema": SCHEMA,
        "menu": profile.menu.to_json(),
        "layers": list(profile.layers),
        "provenance": profile.provenance.to_json(),
    }
    starts = range(0, max(1, profile.num_queries), ROWS_A_GROUP)
    schema = _table(profile, 0, 0).schema.with_metadata({METADATA_KEY: to_json(metadata)})
    with replacing(path) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for start in starts:
            part = _table(profile, start, start + ROWS_A_GROUP)
            writer.write_table(part.replace_schema_metadata(schema.metadata))


def _table(profile: Profile, start: int, stop: int) -> Any:
    """Some rows of a profile as a table."""
    import pyarrow as pa

    rows, num_options = slice(start, stop), profile.menu.num_options
    columns: dict[str, Any] = {
        "query_id": pa.array(profile.query_ids[rows], pa.string()),
        "num_tried": pa.array(profile.num_tried_Q[rows], pa.int32()),
        "num_right": _fixed_lists(profile.num_right_Q_B[rows], pa.int32()),
        "tokens": _fixed_lists(profile.tokens_Q_B[rows], pa.float32()),
        "reasoning_tokens": _fixed_lists(profile.reasoning_Q_B[rows], pa.float32()),
    }
    if profile.tried_Q_B is not None:
        columns["tried"] = _fixed_lists(profile.tried_Q_B[rows], pa.int32())
    if profile.input_Q_B is not None:
        columns["input_tokens"] = _fixed_lists(profile.input_Q_B[rows], pa.float32())
    if profile.texts:
        columns["question"] = pa.array(profile.texts[rows], pa.string())
    if profile.difficulties:
        columns["difficulty"] = pa.array(profile.difficulties[rows], pa.string())
    if profile.traces is not None:
        found, end_Q = profile.traces, np.concatenate([[0], np.cumsum(profile.num_tried_Q)])
        end_Q = end_Q[start : min(stop, profile.num_queries) + 1]
        own = slice(int(end_Q[0]), int(end_Q[-1]))
        values = {
            "sample": (found.sample_N, pa.int32()),
            "length": (found.length_N, pa.int32()),
            "trace_tokens": (found.tokens_N_B, pa.int32()),
            "grade": (found.grade_N_B, pa.int8()),
            "answer": (found.answer_N_B, pa.int32()),
            "answer_logprob": (found.answer_logprob_N_B, pa.float32()),
            "thought_logprob": (found.thought_logprob_N_B, pa.float32()),
        }
        for name, (array, kind) in values.items():
            if array is None:
                continue
            ends = (end_Q - end_Q[0]) * (num_options if array.ndim > 1 else 1)
            columns[name] = pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.array(array[own].ravel(), kind))
        columns["answers"] = pa.array(found.answers_Q[rows], pa.list_(pa.string()))
    if profile.hidden_Q_L_D is not None:
        for column, layer in enumerate(profile.layers):
            states_Q_D = profile.hidden_Q_L_D[rows, column].astype(np.float16)
            columns[f"hidden_{layer}"] = _fixed_lists(states_Q_D, pa.float16())
    return pa.table(columns)


def _fixed_lists(values_Q_N: FloatArray | IntArray, kind: Any) -> Any:
    import pyarrow as pa

    return pa.FixedSizeListArray.from_arrays(
        pa.array(np.ascontiguousarray(values_Q_N).ravel(), kind), values_Q_N.shape[1]
    )


def is_profile_file(path: Path, *, is_refused: bool = False) -> bool:
    """Whether `path` is a file that `write_parquet` wrote.

    With `is_refused` a .parquet file that cannot be read raises RunError or FileError; else it is none.
    """
    import pyarrow.parquet as pq

    if path.suffix.lower() != ".parquet" or not path.is_file():
        return False
    try:
        with _readable(path):
            return METADATA_KEY in (pq.read_schema(path).metadata or {})
    except (RunError, FileError):
        if is_refused:
            raise
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
    import pyarrow.parquet as pq

    with reaching(path, "read"):
        if not path.exists():
            raise RunError(f"{path} does not exist")
        bound = max(LEAST_BOUND, MOST_TIMES * path.stat().st_size)
    with _readable(path):
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
        return _profile(columns, menu, layers, metadata["provenance"])


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Whatever is wrong with a Parquet file that is read in this block is a RunError that says what."""
    import pyarrow as pa

    with reaching(path, "read"):
        path.open("rb").close()  # what the system refuses is told in its own words, and what is no Parquet in pyarrow's
    try:
        yield
    except (RunError, MemoryError):
        raise
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        reason = " ".join(str(error).split())[:300].rstrip(".")
        raise RunError(
            f"{path} is not a readable Parquet file with a profile: {reason}. Copy it, or make it, again."
        ) from error


def _metadata(raw: bytes) -> dict[str, Any]:
    """What stands beside the columns; raises ValueError where it is not what `write_parquet` put there."""
    found = parse_json(raw)
    if not isinstance(found, dict):
        raise ValueError("its metadata is no object")
    found = with_menu({"provenance": found.get("info"), **found})  # as schema 1 called it
    for key, kind in (("schema", int), ("menu", list), ("layers", list), ("provenance", dict)):
        if type(found.get(key)) is not kind:
            raise ValueError(f"its metadata has no usable {key!r}")
    layers = found["layers"]
    if not all(type(layer) is int and layer >= 0 for layer in layers) or len(set(layers)) < len(layers):
        raise ValueError("its metadata has no usable 'layers'")
    try:
        return {**found, "provenance": Provenance.from_json(found["provenance"])}
    except UnfitError as error:
        raise ValueError(f"'provenance' in its metadata: {error}") from None


def _columns(file: Any, menu: Menu, layers: Sequence[int], bound: int) -> dict[str, Any]:
    """Name -> array of each known column, decoded a few rows at a time so that a small file cannot fill the memory."""
    import pyarrow as pa

    schema, num_rows = file.schema_arrow, file.metadata.num_rows
    wanted: dict[str, int | None] = {"query_id": None, "num_tried": None}
    wanted |= dict.fromkeys(("num_right", "tokens", "reasoning_tokens"), menu.num_options)
    wanted |= {name: menu.num_options for name in ("tried", "input_tokens") if name in schema.names}
    wanted |= {name: None for name in ("question", "difficulty") if name in schema.names}
    wanted |= dict.fromkeys(OF_TRACES) if "answers" in schema.names else {}
    wanted |= {name: None for name in LOGPROBS if name in schema.names and "answers" in schema.names}
    wanted |= {f"hidden_{layer}": 0 for layer in layers}
    widths: dict[str, int | None] = {}
    for name, width in wanted.items():
        if schema.names.count(name) != 1:
            raise ValueError(f"it has {schema.names.count(name)} columns {name!r}")
        widths[name] = _checked_width(name, schema.field(name).type, width)
    least = num_rows * sum(2 * (width or 1) for width in widths.values())
    # Not by column: the process ends where `row_group(i).column(j)` meets some damaged footers.
    stated = sum(file.metadata.row_group(group).total_byte_size for group in range(file.metadata.num_row_groups))
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

    if name in OF_TRACES or name in LOGPROBS:
        is_fit = _is_text if name == "answers" else pa.types.is_floating if name in LOGPROBS else pa.types.is_integer
        if not pa.types.is_list(kind) or not is_fit(kind.value_type):
            raise ValueError(f"column {name!r} is of type {kind}")
        return None
    if width is None:
        if not (_is_text if name in TEXTS else pa.types.is_integer)(kind):
            raise ValueError(f"column {name!r} is of type {kind}")
        return None
    if not pa.types.is_fixed_size_list(kind) or (width and kind.list_size != width) or kind.list_size < 1:
        raise ValueError(f"column {name!r} is of type {kind}, for {width or 'some'} numbers in a row")
    if not (
        pa.types.is_integer(kind.value_type)
        if name in ("num_right", "tried")
        else pa.types.is_floating(kind.value_type)
    ):
        raise ValueError(f"column {name!r} is of type {kind}")
    return int(kind.list_size)


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _array(name: str, column: Any, width: int | None) -> Any:
    if column.null_count and name != "difficulty":
        raise ValueError(f"column {name!r} has rows without a value")
    if name in TEXTS:
        return tuple(column.to_pylist())
    if name == "answers":
        return tuple(map(tuple, column.to_pylist()))
    if name in OF_TRACES or name in LOGPROBS:
        import pyarrow.compute as pc

        values = pc.list_flatten(column)
        if values.null_count:
            raise ValueError(f"column {name!r} has lists without a value")
        return pc.list_value_length(column).to_numpy(), values.to_numpy()
    if width is None:
        return column.to_numpy().astype(np.int64)
    values = column.combine_chunks()
    values = values.flatten() if hasattr(values, "flatten") else values
    if values.null_count:
        raise ValueError(f"column {name!r} has lists without a value")
    return values.to_numpy(zero_copy_only=False).reshape(-1, width)


def _profile(columns: Mapping[str, Any], menu: Menu, layers: Sequence[int], provenance: Provenance) -> Profile:
    """The profile of these columns; raises ValueError on counts that cannot be true."""
    query_ids, num_tried_Q = columns["query_id"], columns["num_tried"]
    num_right_Q_B = columns["num_right"].astype(np.int64)
    tokens_Q_B, reasoning_Q_B = (columns[name].astype(np.float64) for name in ("tokens", "reasoning_tokens"))
    if not query_ids:
        raise ValueError("it holds no queries")
    if len(set(query_ids)) < len(query_ids):
        raise ValueError("it holds a query twice")
    tried_Q_B = columns["tried"].astype(np.int64) if "tried" in columns else None
    input_Q_B = columns["input_tokens"].astype(np.float64) if "input_tokens" in columns else None
    tries_Q_B = num_tried_Q[:, None] if tried_Q_B is None else tried_Q_B
    if (num_tried_Q < 1).any() or (num_right_Q_B < 0).any() or (num_right_Q_B > tries_Q_B).any():
        raise ValueError("a query has no trace, or more right than it has traces")
    if (tries_Q_B < 0).any() or (tries_Q_B > num_tried_Q[:, None]).any():
        raise ValueError("column 'tried' holds what is no count of a query's traces")
    counted = {"tokens": tokens_Q_B, "reasoning_tokens": reasoning_Q_B, "input_tokens": input_Q_B}
    for name, values_Q_B in counted.items():
        if values_Q_B is not None and not (np.isfinite(values_Q_B).all() and (values_Q_B >= 0.0).all()):
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
        provenance=provenance,
        traces=None if "answers" not in columns else _traces(columns, num_tried_Q, num_right_Q_B),
        tried_Q_B=tried_Q_B,
        input_Q_B=input_Q_B,
    )


def _traces(columns: Mapping[str, Any], num_tried_Q: IntArray, num_right_Q_B: IntArray) -> Traces:
    """The traces of these columns; raises ValueError where they do not fit each other and the counts."""
    num_options, arrays = num_right_Q_B.shape[1], {}
    for name in OF_TRACES[:-1]:
        length_Q, values = columns[name]
        is_wide = name not in ("sample", "length")
        num_each = num_options if is_wide else 1
        if not np.array_equal(length_Q, num_tried_Q * num_each) or (values < 0).any():
            raise ValueError(f"column {name!r} does not hold a number of at least 0 for each trace")
        arrays[name] = values.reshape(-1, num_options) if is_wide else values
    for name in LOGPROBS:
        length_Q, values = columns.get(name, (num_tried_Q * num_options, np.array([])))
        if not np.array_equal(length_Q, num_tried_Q * num_options) or (values > 0).any():
            raise ValueError(f"column {name!r} does not hold a log-probability for each trace")
        arrays[name] = values.reshape(-1, num_options) if name in columns else None
    answers_Q = columns["answers"]
    num_answers_N = np.repeat([len(answers) for answers in answers_Q], num_tried_Q)
    if (arrays["answer"] >= num_answers_N[:, None]).any() or any(None in answers for answers in answers_Q):
        raise ValueError("column 'answer' names an answer that column 'answers' does not hold")
    right_N_B = arrays["grade"] == RIGHT
    starts_Q = np.cumsum(num_tried_Q) - num_tried_Q
    if (arrays["grade"] > UNTRIED).any() or (np.add.reduceat(right_N_B, starts_Q, dtype=int) != num_right_Q_B).any():
        raise ValueError("column 'grade' does not sum to what was counted")
    if "tried" in columns:
        is_tried_N_B = arrays["grade"] != UNTRIED
        if (np.add.reduceat(is_tried_N_B, starts_Q, dtype=int) != columns["tried"]).any():
            raise ValueError("column 'grade' does not sum to what was tried")
    sample_N, length_N, tokens_N_B, grade_N_B, answer_N_B = (arrays[name] for name in OF_TRACES[:-1])
    answer_logprob_N_B, thought_logprob_N_B = (arrays[name] for name in LOGPROBS)
    return Traces(
        sample_N, length_N, tokens_N_B, grade_N_B, answer_N_B, answers_Q, answer_logprob_N_B, thought_logprob_N_B
    )
