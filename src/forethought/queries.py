"""Questions from a file, standard input or a shipped dataset -> `list[Query]`, or every complaint at once."""

from __future__ import annotations

import difflib
import hashlib
import importlib.resources
import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import IO, Any

from . import fields
from .errors import InvalidInputError, InvalidSettingsError, UnknownNameError
from .files import replacing
from .problems import Problems, excerpt
from .registry import unknown_name_message
from .rows import Row, Table, read_file, read_table
from .types import Message, Query

DATASETS = {"gsm8k-demo": "gsm8k-demo.jsonl"}

QUESTION_COLUMNS = ("prompt", "question", "problem", "query", "input", "text", "messages")
ANSWER_COLUMNS = ("reference", "answer", "solution_value", "target", "label")
OTHER_COLUMNS = ("id", "weight", "min_budget", "max_budget")

logger = logging.getLogger(__name__)


def load_queries(
    source: str | Path,
    *,
    limit: int | None = None,
    question_column: str | None = None,
    answer_column: str | None = None,
) -> list[Query]:
    """Reads queries from a file, standard input or a shipped dataset.

    A row's question is text, or chat messages (`[{"role": …, "content": …}]`). A row without an id gets one made from
    its question, the same in any order and file format; when such a question occurs again, the later ones end in
    `-2`, `-3`, …. A worked GSM8K answer (`… #### 1,234`) gives the reference `1234`.

    Args:
        source: a path ending in .jsonl, .ndjson, .json, .csv, .tsv, .parquet or .txt (one question a line); "-" for
            standard input (JSON lines when it starts with "{", else one question a line); or a name in `DATASETS`.
        limit: only read the first so many rows.
        question_column: where the question stands; else the first of `QUESTION_COLUMNS` that the file has.
        answer_column: where the reference answer stands; else the first of `ANSWER_COLUMNS`, if any.

    Raises:
        InvalidInputError: with everything that is wrong with the source, by line.
        InvalidSettingsError: `limit` is less than 1.
        UnknownNameError: `source` is neither a file nor a dataset.
    """
    if limit is not None and limit < 1:
        raise InvalidSettingsError(f"--limit must be at least 1, got {limit}")
    name, suffix, data = _read_source(source)
    problems = Problems(name)
    named = {column for column in (question_column, answer_column) if column is not None}
    table = read_table(data, suffix, {*QUESTION_COLUMNS, *ANSWER_COLUMNS, *OTHER_COLUMNS, *named}, problems)
    if not table.rows and not problems:
        problems.add("", f"holds no questions ({len(data):,} bytes)")
    columns = _choose_columns(table, question_column, answer_column, problems) if table.rows else None
    rows = table.rows[:limit]
    queries = [_query_of(row, columns, problems) for row in rows] if columns else []
    _refuse_repeated_ids(rows, queries, problems)
    problems.raise_any()
    return _with_ids(name, queries)


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
        value = json.loads(text)
        prompt = value["prompt"]
        return Query(
            id=value["id"],
            prompt=prompt if isinstance(prompt, str) else tuple(Message(**message) for message in prompt),
            reference=value.get("reference"),
            weight=value.get("weight", 1.0),
            min_budget=value.get("min_budget"),
            max_budget=value.get("max_budget"),
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
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


def _read_source(source: str | Path) -> tuple[str, str, bytes]:
    """`(what to call it, format suffix, bytes)`."""
    name = os.fspath(source)
    if not name:
        raise InvalidInputError(
            "the name of the question file is empty; name a file, a dataset, or - for standard input"
        )
    if name == "-":
        return "standard input", ".txt", _all_of(sys.stdin.buffer)
    if name in DATASETS:
        resource = importlib.resources.files(__package__) / "data" / DATASETS[name]
        return name, Path(DATASETS[name]).suffix, resource.read_bytes()
    path = Path(name)
    if not path.suffix and os.sep not in name and not _exists(path):
        raise UnknownNameError(f"no file of that name, and {unknown_name_message('dataset', name, DATASETS)}")
    suffix, data = read_file(name, otherwise=", or - for standard input")
    return name, suffix, data


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name too long, or a NUL in it: reading it says which
        return True


@cache
def _all_of(stream: IO[bytes]) -> bytes:
    """Everything on `stream`, kept: a command reads its questions once for the bill and once to ask them."""
    return stream.read()


# --- which columns mean what -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Columns:
    question: str
    answer: str | None


def _choose_columns(table: Table, question: str | None, answer: str | None, problems: Problems) -> _Columns | None:
    has = f"the file has: {', '.join(map(repr, table.columns)) or 'no columns'}"
    for flag, wanted in (("--question-column", question), ("--answer-column", answer)):
        if wanted is not None and wanted not in table.columns:
            close = difflib.get_close_matches(wanted, table.columns, n=1)
            suggestion = f" Did you mean {flag} {close[0]!r}?" if close else ""
            problems.add("", f"{flag} {wanted!r}: no such column; {has}.{suggestion}")
            return None
    chosen = question or next((name for name in QUESTION_COLUMNS if name in table.columns), None)
    if chosen is None:
        lowered = {name.lower(): name for name in table.columns}
        close = [
            lowered[match]
            for name in QUESTION_COLUMNS
            for match in difflib.get_close_matches(name, lowered, n=1, cutoff=0.75)
        ]
        suggestion = (
            f"Did you mean --question-column {close[0]!r}?" if close else "Name it with --question-column NAME."
        )
        if len(table.columns) == 1 and ";" in table.columns[0]:
            suggestion = "Its cells seem to be separated by semicolons: save it with commas."
        problems.add("", f"no question column ({', '.join(QUESTION_COLUMNS)}); {has}. {suggestion}")
        return None
    found = answer or next((name for name in ANSWER_COLUMNS if name in table.columns and name != chosen), None)
    return _Columns(chosen, found)


# --- one row -> one query ----------------------------------------------------------------------------------------


def _query_of(row: Row, columns: _Columns, problems: Problems) -> Query | None:
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
    prompt = take(columns.question, fields.chat if columns.question == "messages" else fields.prompt)
    reference = take(columns.answer, fields.reference if columns.answer == "reference" else fields.worked_reference)
    own_id = take("id", fields.query_id)
    weight = take("weight", fields.weight)
    least, most = take("min_budget", fields.budget), take("max_budget", fields.budget)
    if least is not None and most is not None and least > most:
        problems.add(row.place, f"'min_budget' {least} is above 'max_budget' {most}")
    if len(problems) > before:
        return None
    return Query(own_id or "", prompt, reference, weight, least, most)


# --- ids ---------------------------------------------------------------------------------------------------------


def _refuse_repeated_ids(rows: tuple[Row, ...], queries: list[Query | None], problems: Problems) -> None:
    first_place: dict[str, str] = {}
    for row, query in zip(rows, queries, strict=False):
        if query is None or not query.id:
            continue
        if query.id in first_place:
            problems.add(row.place, f"id {query.id!r} is already taken by {first_place[query.id]}")
        first_place.setdefault(query.id, row.place)


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
        logger.warning("%s: %d of the questions occur before; their ids end in -2, -3, …", name, num_repeated)
    return identified


def _canonical_text(text: str) -> str:
    return text.replace("\r\n", "\n").strip()


def _prompt_value(prompt: str | tuple[Message, ...]) -> Any:
    if isinstance(prompt, str):
        return prompt
    return [{"role": message.role, "content": message.content} for message in prompt]
