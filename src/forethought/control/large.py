"""Plans of more queries than fit in memory: folders of Parquet files in, one Parquet file of budgets out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..allocators.parts import Division, divide_parts
from ..allocators.share import Part
from ..core.data import Cost, FloatArray, IntArray
from ..core.features import GIVEN, Features
from ..core.files import make_folder, reaching, replacing
from ..core.visible import to_json
from ..errors import InvalidInputError, InvalidSettingsError
from ..predictors.predictor import Predictor
from ..questions import fields
from .planfile import totals_to_json
from .predictions import IDS, Predictions, damage, files_in, metadata_of, table_of

BUDGETS_KEY = b"forethought.budgets"
ROWS_AT_ONCE = 1 << 16  # questions that are predicted at a time

Progress = Callable[[str, int, int], None]


def plan_folder(
    predictions: Predictions,
    out: Path,
    *,
    total: float,
    cost: Cost,
    min_tokens: int | None = None,
    max_tokens: int | None = None,
    threads: int = 2,
    progress: Progress = lambda stage, done, number: None,
) -> Division:
    """Divides a total over all queries of a folder, and writes a row a query to `out`; see `divide_parts`.

    `out` has the queries' order, and columns id, budget (or option) and expected: the chance of a right answer. Its
    metadata has what was planned, as JSON under `forethought.budgets`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    menu, groups = predictions.menu, predictions.groups
    options = pa.array(menu.labels if menu.is_named else menu.budgets_B)
    name, kind = "option" if menu.is_named else "budget", groups[0].ids().type
    schema = pa.schema([("id", kind), (name, options.type), ("expected", pa.float32())])
    with replacing(out) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        left = iter(groups)

        def write(part: Part, column_Q: IntArray, p_Q: FloatArray) -> None:
            columns = [next(left).ids().cast(kind), options.take(pa.array(column_Q)), pa.array(p_Q.astype(np.float32))]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))

        made = divide_parts(
            predictions.parts,
            total=total,
            cost=cost,
            min_tokens=min_tokens,
            max_tokens=max_tokens,
            threads=threads,
            progress=progress,
            write=write,
        )
        writer.add_key_value_metadata({BUDGETS_KEY: to_json(header(made))})
    return made


def header(made: Division) -> dict[str, Any]:
    """What was planned, as one JSON object; `queries` counts those of each option."""
    return {
        "questions": made.num_queries,
        "allocator": "envelope",
        **totals_to_json(made),
        "queries": dict(zip(made.menu.labels, made.number_B.tolist(), strict=True)),
    }


def predict_folder(
    predictor: Predictor,
    folder: Path,
    out: Path,
    *,
    question_column: str | None = None,
    id_column: str | None = None,
    progress: Progress = lambda stage, done, number: None,
) -> Predictions:
    """Predicts the curves of the questions in a folder of Parquet files, into a folder of as many files.

    A file that is there already is kept: what was stopped goes on.

    Args:
        predictor: reads texts and ids alone.
        folder: of files with a column of texts, and one of ids; without ids a query's is its file's name and row.
        out: the folder of predictions.
        question_column: name of the column of texts; None for the usual names.
        id_column: name of the column of ids; None for the usual names.
        progress: called with what is being done, questions done and questions in all.

    Raises:
        InvalidInputError: a file without such columns, or with a question that is no text.
        InvalidSettingsError: a predictor that reads more.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not predictor.card.features.reads <= GIVEN:
        raise InvalidSettingsError(
            f"predictor {predictor.card.predictor} reads more than texts; train one that does not: forethought train "
            "RUN --predictor text"
        )
    files, done = files_in(folder), 0
    number = sum(pq.ParquetFile(path).metadata.num_rows for path in files)
    make_folder(out)
    metadata = metadata_of(predictor.card.menu)
    for path in files:
        target = out / path.name
        with reaching(path, "read"), damage(path):
            file = pq.ParquetFile(path)
        if target.exists() and pq.ParquetFile(target).metadata.num_rows == file.metadata.num_rows:
            done += file.metadata.num_rows
            continue
        names = file.schema_arrow.names
        text = _named(path, names, question_column, fields.QUESTION_COLUMNS, "--question-column")
        own = _named(path, names, id_column, IDS, "--id-column", is_needed=False)
        columns = [text, *([own] if own else [])]
        rows, writer = 0, None
        with replacing(target) as opened:
            for batch in file.iter_batches(batch_size=ROWS_AT_ONCE, columns=columns):
                progress("predict", done + rows, number)
                texts = batch.column(0).to_pylist()
                if wrong := [row for row, each in enumerate(texts) if not isinstance(each, str)]:
                    raise InvalidInputError(f"{path}, row {rows + wrong[0] + 1}: {text!r} holds no text")
                ids = [str(each) for each in batch.column(1).to_pylist()] if own else []
                ids = ids or [f"{path.stem}-{row}" for row in range(rows, rows + len(texts))]
                curves = predictor.predict(ids, Features(len(texts), None, tuple(texts), None, tuple(ids)))
                table = table_of(curves, batch.column(1) if own else pa.array(ids))
                if writer is None:
                    writer = pq.ParquetWriter(
                        opened, table.schema.with_metadata(metadata), compression="zstd", use_dictionary=False
                    )
                writer.write_table(table)
                rows += len(texts)
            if writer is None:
                raise InvalidInputError(f"{path} has no rows")
            writer.close()
        done += rows
    return Predictions.open(out)


def _named(
    path: Path, names: Sequence[str], wanted: str | None, usual: Sequence[str], flag: str, *, is_needed: bool = True
) -> str | None:
    if wanted:
        if wanted not in names:
            raise InvalidInputError(f"{path} has no column {wanted!r}; it has {', '.join(names[:8])}")
        return wanted
    lower = {name.lower(): name for name in names}
    found = next((lower[name] for name in usual if name in lower), None)
    if found is None and is_needed:
        raise InvalidInputError(f"{path} has no column of questions ({', '.join(names[:8])}); name it: {flag} NAME")
    return found
