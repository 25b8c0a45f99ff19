"""Plans of more queries than fit in memory: folders of Parquet files in, Parquet files of budgets out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from ..allocators.batch import Batch
from ..allocators.parts import Division, divide_parts
from ..allocators.share import Share, Sums
from ..core.data import Cost, Query
from ..core.features import GIVEN
from ..core.files import make_folder, reaching, replacing
from ..core.protocols import Engine
from ..core.settings import EngineSettings
from ..core.visible import to_json
from ..engines.opening import opened
from ..errors import InvalidInputError, InvalidSettingsError
from ..predictors.predictor import Predictor
from ..questions import fields
from ..runs.store import fingerprint
from .planfile import totals_to_json
from .planning import engine_for, features, model_of, predicted
from .predictions import IDS, Predictions, RowGroup, damage, files_in, metadata_of, origin_of, table_of

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
    import pyarrow.parquet as pq

    with (
        replacing(out) as file,
        pq.ParquetWriter(file, budget_schema(predictions), compression="zstd") as writer,
    ):

        def last(share: Share, batch: Batch) -> list[Sums]:
            sums = []
            for _, table, one in budget_tables(share, batch, predictions):
                writer.write_table(table)
                sums.append(one)
            return sums

        made = divide_parts(
            predictions.parts,
            total=total,
            cost=cost,
            min_tokens=min_tokens,
            max_tokens=max_tokens,
            threads=threads,
            progress=progress,
            last=last,
        )
        writer.add_key_value_metadata({BUDGETS_KEY: to_json(header(made))})
    return made


def write_budgets(share: Share, batch: Batch, *, predictions: Predictions, out: Path) -> list[Sums]:
    """The last pass over a share of whole files: writes budgets for each, by its name, in the folder `out`."""
    import pyarrow.parquet as pq

    sums, schema = list[Sums](), budget_schema(predictions)
    for path, rows in groupby(budget_tables(share, batch, predictions), key=lambda row: row[0].path):
        with replacing(out / path.name) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
            for _, table, one in rows:
                writer.write_table(table)
                sums.append(one)
    return sums


def budget_schema(predictions: Predictions) -> Any:
    """The columns of a file of budgets."""
    import pyarrow as pa

    name, kind = ("option", pa.string()) if predictions.menu.is_named else ("budget", pa.int64())
    return pa.schema([("id", predictions.groups[0].ids().type), (name, kind), ("expected", pa.float32())])


def budget_tables(share: Share, batch: Batch, predictions: Predictions) -> Iterator[tuple[RowGroup, Any, Sums]]:
    """What the queries of each row group got, as rows of a file of budgets."""
    import pyarrow as pa

    group_of = {part.start: group for part, group in zip(predictions.parts, predictions.groups, strict=True)}
    schema, menu = budget_schema(predictions), predictions.menu
    options = pa.array(menu.labels if menu.is_named else menu.budgets_B)
    for part, column_Q, p_Q, sums in share.chosen(batch):
        group = group_of[part.start]
        ids = group.ids().cast(schema.field("id").type)
        columns = [ids, options.take(pa.array(column_Q)), pa.array(p_Q.astype(np.float32))]
        yield group, pa.Table.from_arrays(columns, schema=schema), sums


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
    engine: Engine | None = None,
    progress: Progress = lambda stage, done, number: None,
) -> Predictions:
    """Predicts the curves of the questions in a folder of Parquet files, into a folder of as many files.

    A file that is there already is kept, if it was made of the same questions by the same predictor: what was stopped
    goes on.

    Args:
        predictor: what it reads beside texts and ids needs an engine.
        folder: of files with a column of texts, and one of ids; without ids a query's is its file's name and row.
        out: the folder of predictions.
        question_column: name of the column of texts; None for the usual names.
        id_column: name of the column of ids; None for the usual names.
        engine: of the predictor's model and template; None for a predictor that reads texts and ids alone.
        progress: called with what is being done, questions done and questions in all.

    Raises:
        InvalidInputError: a file without such columns, or with a question that is no text.
        InvalidSettingsError: `out` holds predictions of other files.
    """
    files = asked_files(folder, out)
    number_of = {path: num_rows(path) for path in files}
    number, done = sum(number_of.values()), 0
    for path in files:

        def said(rows: int, before: int = done) -> None:
            progress("predict", before + rows, number)

        columns = {"question_column": question_column, "id_column": id_column}
        predict_file(predictor, engine, path, out, **columns, progress=said)
        done += number_of[path]
    return Predictions.open(out)


def asked_files(folder: Path, out: Path) -> list[Path]:
    """The files of questions in `folder`; makes `out`, where no other files may be, since all of it is planned.

    Raises:
        InvalidSettingsError: files of other names are there.
    """
    files = files_in(folder)
    make_folder(out)
    if other := sorted({path.name for path in out.glob("*.parquet")} - {path.name for path in files}):
        raise InvalidSettingsError(
            f"{out} holds predictions of files that {folder} does not have ({', '.join(other[:3])}); delete it, or "
            "give another --out"
        )
    return files


def predict_file(
    predictor: Predictor,
    engine: Engine | None,
    path: Path,
    out: Path,
    *,
    question_column: str | None = None,
    id_column: str | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> None:
    """The same for one file, into one of its name; `progress` is called with questions done."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    target = out / path.name
    with reaching(path, "read"), damage(path):
        file, status = pq.ParquetFile(path), path.stat()
    names = file.schema_arrow.names
    text = _named(path, names, question_column, fields.QUESTION_COLUMNS, "--question-column")
    own = _named(path, names, id_column, IDS, "--id-column", is_needed=False)
    origin = fingerprint([predictor.card.to_json(), text, own, status.st_size, status.st_mtime_ns])
    if target.exists() and origin_of(target) == origin:
        return
    rows, writer, metadata = 0, None, metadata_of(predictor.card.menu, origin)
    with replacing(target) as opened_file:
        for batch in file.iter_batches(batch_size=ROWS_AT_ONCE, columns=[text, *([own] if own else [])]):
            progress(rows)
            texts = batch.column(0).to_pylist()
            if wrong := [row for row, each in enumerate(texts) if not isinstance(each, str)]:
                raise InvalidInputError(f"{path}, row {rows + wrong[0] + 1}: {texts[wrong[0]]!r} holds no text")
            ids = [str(each) for each in batch.column(1).to_pylist()] if own else []
            ids = ids or [f"{path.stem}-{row}" for row in range(rows, rows + len(texts))]
            read = features([Query(*pair) for pair in zip(ids, texts, strict=True)], predictor, engine)
            curves, _ = predicted(ids, predictor, read)
            table = table_of(curves, batch.column(1) if own else pa.array(ids))
            if writer is None:
                schema = table.schema.with_metadata(metadata)
                writer = pq.ParquetWriter(opened_file, schema, compression="zstd", use_dictionary=False)
            writer.write_table(table)
            rows += len(texts)
        if writer is None:
            raise InvalidInputError(f"{path} has no rows")
        writer.close()


@contextmanager
def reading(predictor: Predictor, engine: EngineSettings, model: str, template: str) -> Iterator[Engine | None]:
    """The engine that a predictor needs to read questions; None for one that reads texts and ids alone.

    Args:
        predictor: says what it reads.
        engine: which one to open.
        model: its name or folder; "" for the one on the predictor's card.
        template: the prompt template; "" for the one on the card.
    """
    if predictor.card.features.reads <= GIVEN:
        yield None
        return
    with opened(None, model_of(predictor.card, model), engine_for(predictor.card, engine, template)) as running:
        predictor.check(running.info)
        yield running


def num_rows(path: Path) -> int:
    """Rows of a Parquet file."""
    import pyarrow.parquet as pq

    with reaching(path, "read"), damage(path):
        return int(pq.ParquetFile(path).metadata.num_rows)


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
