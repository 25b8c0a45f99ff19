"""Questions in memory, from a file, standard input or a shipped dataset -> `list[Query]`, or all problems at once."""

from __future__ import annotations

import hashlib
import importlib.resources
import io
import itertools
import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..core.arguments import whole
from ..core.codec import decode
from ..core.data import Message, Query
from ..core.files import replacing
from ..core.problems import Problems, excerpt
from ..core.registry import unknown_name_message
from ..errors import InvalidInputError, UnknownNameError
from . import fields
from .rows import Row, Source, Table, find_column, find_file, standard_input

DATASETS = {"gsm8k-demo": "gsm8k-demo.jsonl"}

OTHER_COLUMNS = ("weight", "min_budget", "max_budget")

IN_MEMORY = "the questions"  # what a list of them is called in messages
Question = str | Sequence[Mapping[str, Any] | Message] | Mapping[str, Any] | Query

logger = logging.getLogger(__name__)


def read_questions(questions: str | Path | Iterable[Question], *, limit: int | None = None) -> list[Query]:
    """Queries from values in memory, a file or a shipped dataset.

    Args:
        questions: a path, "-" or a dataset's name, as `load_queries` takes it; or any iterable of texts, chats
            (`[{"role": …, "content": …}]`), `Query` objects and rows (`{"question": …, "answer": …}`, with the names
            that columns of a file have). Where there is no id, one is made from the question; of the same question
            again, the later ones end in `-2`, `-3`, …. An id that is given twice is refused.
        limit: only the first so many.

    Raises:
        InvalidInputError: with everything that is wrong, by item; no questions at all.
        UnknownNameError: neither a file nor a dataset.
    """
    limit = None if limit is None else whole("limit", limit, least=1)
    if isinstance(questions, str) and len(questions.split()) > 1 and not _exists(Path(questions)):
        raise InvalidInputError(f"no file is called {excerpt(questions)}; to ask it as a question, put it into a list")
    if isinstance(questions, str | os.PathLike):
        return load_queries(questions, limit=limit)
    if isinstance(questions, Mapping | bytes | Query | Message) or not isinstance(questions, Iterable):
        raise InvalidInputError(
            f"{IN_MEMORY} must be a list of texts, chats or queries, or a file's name, not {excerpt(questions)}"
        )
    items: list[Any] = list(questions if limit is None else itertools.islice(questions, limit))
    if items and all(isinstance(item, Mapping) for item in items):
        if "role" in items[0] and "content" in items[0]:
            raise InvalidInputError(f"{IN_MEMORY} are the messages of one chat; put it into a list: [chat]")
        return _queries_of(_rows_source(items), None, {})
    problems, places, queries = Problems(IN_MEMORY), list[str](), list[Query | None]()
    for number, item in enumerate(items, start=1):
        places.append(f"item {number}")
        try:
            queries.append(_query_in_memory(item))
        except fields.FieldError as refusal:
            problems.add(places[-1], f"the question {refusal}")
    if not items:
        problems.add("", "there are none; the list is empty")
    if not problems:
        _refuse_repeated_ids(places, queries, "id", problems)
    problems.raise_any()
    return _with_ids(IN_MEMORY, queries)


def _query_in_memory(item: Any) -> Query:
    """One item as a query, id "" when it has none."""
    if isinstance(item, Query):
        if not isinstance(item.id, str):
            raise fields.FieldError(f"has the id {excerpt(item.id)}, which must be text")
        _query_in_memory(item.prompt)
        return item
    if isinstance(item, list | tuple):
        item = [{"role": part.role, "content": part.content} if isinstance(part, Message) else part for part in item]
    elif isinstance(item, Mapping):
        raise fields.FieldError("is a row among texts; give rows alone, or texts, chats and queries")
    return Query("", fields.prompt(item))


def _rows_source(rows: Sequence[Mapping[str, Any]]) -> Source:
    """Rows in memory as a table."""
    try:
        content = json.dumps([dict(row) for row in rows]).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInputError(f"{IN_MEMORY}: a row has a value that JSON cannot represent: {error}") from error
    return Source(IN_MEMORY, ".json", lambda: io.BytesIO(content))


def load_queries(
    source: str | Path,
    *,
    limit: int | None = None,
    question_column: str | None = None,
    answer_column: str | None = None,
    id_column: str | None = None,
) -> list[Query]:
    """Reads queries from a file, standard input or a shipped dataset.

    A row's question is text, or chat messages (`[{"role": …, "content": …}]`). A row without an id gets one made from
    its question, the same in any order and file format; when such a question occurs again, the later ones end in
    `-2`, `-3`, …. A worked GSM8K answer (`… #### 1,234`) gives the reference `1234`. Columns are found by their usual
    names in any capitals; a name with dots leads into an object (`reward_model.ground_truth`).

    Args:
        source: a file (an ending in `FORMATS`), "-" for standard input (JSON lines where it starts with "{", else one
            question per line, as in .txt), or a name in `DATASETS`.
        limit: only read the first so many rows; what follows them is not looked at.
        question_column: where the question stands; else the first of `fields.QUESTION_COLUMNS` that is there.
        answer_column: where the reference stands; else the first of `fields.ANSWER_COLUMNS`; "" for none.
        id_column: where the ids stand; else "id" or the first of `fields.ID_COLUMNS`; "" for none. Several names with
            commas between them make one id together.

    Raises:
        InvalidInputError: with everything that is wrong with the source, by line.
        InvalidSettingsError: `limit` is less than 1.
        UnknownNameError: `source` is neither a file nor a dataset.
    """
    named = {"question": question_column, "answer": answer_column, "id": id_column}
    return _queries_of(_find_source(source), limit, named)


def _queries_of(source: Source, limit: int | None, named: Mapping[str, str | None]) -> list[Query]:
    usual = {"question": fields.QUESTION_COLUMNS, "answer": fields.ANSWER_COLUMNS, "id": ("id", *fields.ID_COLUMNS)}
    table = Table(source, {**usual, **{name: (name,) for name in OTHER_COLUMNS}}, named, limit)
    columns, problems = table.columns, table.problems
    places: list[str] = []
    queries: list[Query | None] = []
    for row in table.rows("question"):
        places.append(row.place)
        queries.append(_query_of(row, columns, problems))
    if not queries and not problems:
        problems.add("", "holds no questions")
    _refuse_repeated_ids(places, queries, columns["id"], problems)
    problems.raise_any()
    if beside := find_column(table.names, fields.BESIDE_QUESTIONS):
        logger.warning("%s: %r is not read; the question is in %r", table.source.name, beside, columns["question"])
    return _with_ids(table.source.name, queries)


def load_columns(
    source: str | Path, usual: Mapping[str, Sequence[str]], named: Mapping[str, str | None], *, limit: int | None = None
) -> list[dict[str, Any]]:
    """The rows of any table by the meaning of their cells, unchanged.

    Args:
        source: as `load_queries` takes it.
        usual: what a column means -> its usual names; the first that is there counts.
        named: what a column means -> the name asked for with `--MEANING-column`; None for a usual one, "" for none.
        limit: only the first so many rows.

    Returns:
        For each row its "place" ("line 3") and a value for every meaning; None where there is none.

    Raises:
        InvalidInputError: everything that is wrong with the table, by line; a column asked for that is not there.
    """
    table = Table(_find_source(source), usual, named, limit)
    found = []
    for row in table.rows():
        values = {meaning: None if name is None else row.values.get(name) for meaning, name in table.columns.items()}
        found.append({"place": row.place, **values})
    if not found and not table.problems:
        table.problems.add("", "holds no rows")
    table.problems.raise_any()
    return found


def save_queries(path: str | Path, queries: Iterable[Query]) -> None:
    """Writes canonical JSON lines, one query a line; `load_queries` gives the same queries back."""
    with replacing(Path(path)) as file:
        for query in queries:
            file.write(f"{query_to_json(query)}\n".encode())


def query_to_json(query: Query) -> str:
    """One line of JSON without its line break; fields at their default are left out."""
    value: dict[str, Any] = {"id": query.id, "prompt": _prompt_value(query.prompt)}
    if query.reference is not None:
        value["reference"] = query.reference
    if query.weight != 1.0:
        value["weight"] = query.weight
    if query.min_budget is not None:
        value["min_budget"] = query.min_budget
    if query.max_budget is not None:
        value["max_budget"] = query.max_budget
    text = json.dumps(value, ensure_ascii=False)
    # Half a surrogate pair has no UTF-8; escaped it can still be kept.
    return text if fields.is_encodable(text) else json.dumps(value, ensure_ascii=True)


def query_from_json(text: str) -> Query:
    """The query that `query_to_json` wrote; InvalidInputError when `text` is anything else."""
    try:
        return decode(Query, json.loads(text), lenient=(Query,))
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidInputError(f"not a stored query: {excerpt(text)} ({error})") from error


def content_id(prompt: str | tuple[Message, ...]) -> str:
    """`q-` and 12 hex digits of the question's BLAKE2b; line-break style and surrounding space do not count."""
    if isinstance(prompt, str):
        canonical: Any = _canonical_text(prompt)
    else:
        canonical = [[message.role, _canonical_text(message.content)] for message in prompt]
    digest = hashlib.blake2b(json.dumps(canonical).encode("ascii"), digest_size=6)
    return f"q-{digest.hexdigest()}"


# --- where the bytes come from -----------------------------------------------------------------------------------


def _find_source(source: str | Path) -> Source:
    name = os.fspath(source)
    if not name:
        raise InvalidInputError(
            "the name of the question file is empty; name a file, a dataset, or - for standard input"
        )
    if name == "-":
        return standard_input()
    if name in DATASETS:
        resource = importlib.resources.files("forethought") / "data" / DATASETS[name]
        return Source(name, Path(DATASETS[name]).suffix, lambda: resource.open("rb"))
    path = Path(name)
    if not path.suffix and os.sep not in name and not _exists(path):
        raise UnknownNameError(f"no file of that name, and {unknown_name_message('dataset', name, DATASETS)}")
    return find_file(name, otherwise=", or - for standard input")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name too long, or a NUL in it: reading it says which
        return True


# --- one row -> one query ----------------------------------------------------------------------------------------


def _query_of(row: Row, columns: Mapping[str, str | None], problems: Problems) -> Query | None:
    """The row's query, id "" when it has none of its own; None when something about it was noted."""
    before = len(problems)

    def take(column: str | None, convert: Callable[[Any], Any]) -> Any:
        value = row.values.get(column) if column is not None else None
        try:
            return convert(value)
        except fields.FieldError as refusal:
            problems.add(row.place, f"{column!r} {refusal}")
            return None

    # What `save_queries` wrote is taken as it stands: "prompt" and "reference" are never read as anything else.
    question, answer = columns["question"], columns["answer"]
    prompt = take(question, fields.chat if question == "messages" else fields.prompt)
    reference = take(answer, fields.reference if answer == "reference" else fields.worked_reference)
    own_id = _own_id(row, columns["id"], take)
    weight = take(columns["weight"], fields.weight)
    least, most = take(columns["min_budget"], fields.budget), take(columns["max_budget"], fields.budget)
    if least is not None and most is not None and least > most:
        problems.add(row.place, f"'min_budget' {least} is above 'max_budget' {most}")
    if len(problems) > before:
        return None
    return Query(own_id or "", prompt, reference, weight, least, most)


def _own_id(row: Row, column: str | None, take: Callable[[str | None, Callable[[Any], Any]], Any]) -> str | None:
    """The row's id; of several columns joined, such as "algebra/7"."""
    if column is None or column in row.values:
        own: str | None = take(column, fields.label)
        return own
    parts = [take(name, fields.label) for name in column.split(",")]
    return "/".join(parts) if all(parts) else None


# --- ids ---------------------------------------------------------------------------------------------------------


def _refuse_repeated_ids(
    places: Sequence[str], queries: Sequence[Query | None], column: str | None, problems: Problems
) -> None:
    first_place: dict[str, str] = {}
    leave = (
        "" if column == "id" else f" (ids are read from {column!r}; to make them from the questions: --id-column '')"
    )
    for place, query in zip(places, queries, strict=True):
        if query is None or not query.id:
            continue
        if query.id in first_place:
            problems.add(place, f"id {query.id!r} is already taken by {first_place[query.id]}{leave}")
        first_place.setdefault(query.id, place)


def _with_ids(name: str, queries: list[Query | None]) -> list[Query]:
    kept = [query for query in queries if query is not None]
    taken = {query.id for query in kept if query.id}
    occurrences: Counter[str] = Counter()
    identified: list[Query] = []
    num_repeated = 0
    for query in kept:
        if not query.id:
            base = content_id(query.prompt)
            own_id = base
            while own_id in taken or occurrences[base] == 0:
                occurrences[base] += 1
                own_id = base if occurrences[base] == 1 else f"{base}-{occurrences[base]}"
            num_repeated += own_id != base
            taken.add(own_id)
            query = replace(query, id=own_id)
        identified.append(query)
    if num_repeated:
        logger.warning("%s: %d questions are repeated; their ids end in -2, -3, …", name, num_repeated)
    return identified


def _canonical_text(text: str) -> str:
    return text.replace("\r\n", "\n").strip()


def _prompt_value(prompt: str | tuple[Message, ...]) -> Any:
    if isinstance(prompt, str):
        return prompt
    return [{"role": message.role, "content": message.content} for message in prompt]
