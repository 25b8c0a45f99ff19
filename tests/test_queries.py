"""Question files -> queries: what is taken, what is refused and in which words."""

from __future__ import annotations

import gzip
import io
import json
import logging
import os
import random
import sys
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from forethought.core.data import Message, Query
from forethought.errors import ForethoughtError, InvalidInputError, InvalidSettingsError, UnknownNameError
from forethought.questions import queries as module
from forethought.questions.queries import (
    DATASETS,
    content_id,
    load_columns,
    load_queries,
    query_from_json,
    query_to_json,
    save_queries,
)
from forethought.questions.rows import FORMATS, Source


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def load(folder: Path, name: str, content: str | bytes, **options) -> list[Query]:
    return load_queries(written(folder, name, content), **options)


def parquet_bytes(columns: dict) -> bytes:
    sink = io.BytesIO()
    parquet.write_table(pa.table(columns), sink)
    return sink.getvalue()


# --- what is taken -----------------------------------------------------------------------------------------------

PART = {"type": "text", "text": "q"}
SAME = {
    "jsonl": (
        "q.jsonl",
        '{"id": "a", "question": "1+1?", "answer": 2}\n\n{"id": "b", "question": "é?", "answer": "x"}\n',
    ),
    "jsonl without last break": (
        "q.jsonl",
        '{"id":"a","question":"1+1?","answer":2}\n{"id":"b","question":"é?","answer":"x"}',
    ),
    "jsonl with CR LF and BOM": (
        "q.jsonl",
        '\ufeff{"id": "a", "question": "1+1?", "answer": 2}\r\n{"id": "b", "question": "é?", "answer": "x"}\r\n',
    ),
    "ndjson": (
        "q.ndjson",
        '{"id": "a", "problem": "1+1?", "target": 2.0}\n{"id": "b", "problem": "é?", "target": "x"}',
    ),
    "json": (
        "q.json",
        '[{"id": "a", "prompt": "1+1?", "label": "2"}, {"id": "b", "prompt": "\\u00e9?", "label": "x"}]',
    ),
    "csv": ("q.csv", "id,question,answer\na,1+1?,2\n\nb,é?,x\n"),
    "csv with quotes": ("q.csv", 'answer,id,question\r\n2,a,"1+1?"\r\n"x","b","é?"\r\n'),
    "tsv": ("q.TSV", "id\tquestion\tanswer\na\t1+1?\t2\nb\té?\tx\n"),
    "parquet": (
        "q.parquet",
        parquet_bytes({"id": ["a", "b"], "query": ["1+1?", "é?"], "answer": ["2", "x"], "z": [1, 2]}),
    ),
    "csv with semicolons, as Excel writes it": ("q.csv", "\ufeffid;question;answer\r\na;1+1?;2\r\nb;é?;x\r\n"),
    "csv that names its separator": ("q.csv", "sep=;\nid;question;answer\na;1+1?;2\nb;é?;x\n"),
    "UTF-16": ("q.csv", "id,question,answer\na,1+1?,2\nb,é?,x\n".encode("utf-16")),
    "UTF-16, big end first": ("q.tsv", b"\xfe\xff" + "id\tquestion\tanswer\na\t1+1?\t2\nb\té?\tx".encode("utf-16-be")),
    "old Mac line breaks": ("q.csv", "id,question,answer\ra,1+1?,2\rb,é?,x\r"),
    "columns in capitals": ("q.csv", "ID,Problem,Solution,Answer\na,1+1?,long,2\nb,é?,long,x\n"),
    "verl": (
        "q.json",
        json.dumps(
            [
                {"prompt": text, "reward_model": {"style": "rule", "ground_truth": own}, "extra_info": {"index": key}}
                for key, text, own in (("a", "1+1?", "2"), ("b", "é?", "x"))
            ]
        ),
    ),
    "verl in parquet": (
        "q.parquet",
        parquet_bytes(
            {
                "prompt": ["1+1?", "é?"],
                "reward_model": [{"style": "rule", "ground_truth": own} for own in ("2", "x")],
                "extra_info": [{"index": key, "split": "train"} for key in "ab"],
            }
        ),
    ),
    "lm-eval": (
        "q.jsonl",
        '{"doc_id":"a","doc":{"question":"1+1?"},"target":"2"}\n{"doc_id":"b","doc":{"question":"é?"},"target":"x"}',
    ),
    "NaN and null where nobody reads": (
        "q.jsonl",
        '{"id":"a","question":"1+1?","answer":2,"x":NaN}\n{"id":"b","question":"é?","answer":"x","x":null}',
    ),
    "null column in parquet": (
        "q.parquet",
        parquet_bytes({"id": ["a", "b"], "question": ["1+1?", "é?"], "answer": ["2", "x"], "weight": pa.nulls(2)}),
    ),
    "texts as bytes in parquet": (
        "q.parquet",
        parquet_bytes({"id": [b"a", b"b"], "question": [b"1+1?", "é?".encode()], "answer": [b"2", b"x"]}),
    ),
    "json lines in a text file": (
        "q.txt",
        '{"id": "a", "text": "1+1?", "answer": 2}\n{"id": "b", "text": "é?", "answer": "x"}',
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_every_format_gives_the_same_queries(tmp_path, name):
    file, content = SAME[name]
    assert load(tmp_path, file, content) == [Query("a", "1+1?", "2"), Query("b", "é?", "x")]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"question": "q", "answer": "so 4+4=8\n#### 1,234 "}, Query("", "q", "1234")),
        ({"question": "q", "answer": "#### a\nb"}, Query("", "q", "#### a\nb")),
        ({"prompt": "q", "reference": "#### 1,234"}, Query("", "q", "#### 1,234")),
        ({"question": "q", "answer": ""}, Query("", "q")),
        ({"question": "q", "answer": None}, Query("", "q")),
        ({"question": "q", "answer": 1e22}, Query("", "q", "1e+22")),
        ({"question": "q", "answer": 0.5}, Query("", "q", "0.5")),
        ({"question": "q", "weight": "2.5"}, Query("", "q", weight=2.5)),
        ({"question": "q", "min_budget": 16, "max_budget": 32.0}, Query("", "q", None, 1.0, 16, 32)),
        ({"question": "q", "id": 7}, Query("7", "q")),
        ({"question": " q\r\n"}, Query("", " q\r\n")),
        ({"messages": [{"role": "user", "content": "q"}], "extra": {}}, Query("", (Message("user", "q"),))),
        (
            {"question": [{"role": "system", "content": ""}, {"role": "user", "content": "q"}]},
            Query("", (Message("system", ""), Message("user", "q"))),
        ),
        ({"answer": "a", "question": "q", "input": "other"}, Query("", "q", "a")),
        ({"question": "q", "answer": ["72"]}, Query("", "q", "72")),
        ({"question": "q", "answer": '["72"]'}, Query("", "q", "72")),
        ({"question": "q", "answer": []}, Query("", "q")),
        (
            {"messages": [{"role": "developer", "content": "d"}, {"role": "user", "content": [PART, PART]}]},
            Query("", (Message("system", "d"), Message("user", "qq"))),
        ),
        ({"question": "q", "id": 12345678901234567890}, Query("12345678901234567890", "q")),
        ({"question": "q", "id": 123456789012345678901}, Query("123456789012345678901", "q")),
        ({"question": "q", "id": 7.0}, Query("7", "q")),
        ({"question": "q", "id": "007"}, Query("007", "q")),
    ],
    ids=[
        "GSM8K answer",
        "marks within an answer",
        "stored reference stays",
        "blank answer",
        "null answer",
        "large number",
        "fraction",
        "weight as text",
        "bounds",
        "number as id",
        "space is kept",
        "chat",
        "chat under question",
        "first question column",
        "list of one",
        "list of one as text",
        "list of none",
        "developer and parts",
        "id of 20 digits",
        "id of 21 digits",
        "id of a column with gaps",
        "id with zeros before",
    ],
)
def test_a_row_gives_a_query(tmp_path, row, expected):
    (query,) = load(tmp_path, "q.jsonl", json.dumps(row))
    assert query == Query(
        expected.id or content_id(expected.prompt),
        expected.prompt,
        expected.reference,
        expected.weight,
        expected.min_budget,
        expected.max_budget,
    )


def test_a_csv_cell_may_hold_chat_messages_and_line_breaks(tmp_path):
    cell = json.dumps([{"role": "user", "content": "one,\ntwo"}]).replace('"', '""')
    (query,) = load(tmp_path, "q.csv", f'messages,weight\n"{cell}",2\n')
    assert query.prompt == (Message("user", "one,\ntwo"),)
    assert query.weight == 2.0


def test_a_text_file_has_one_question_a_line(tmp_path):
    assert [query.prompt for query in load(tmp_path, "q.txt", " one \n\ntwo\u2028still two\r\n")] == [
        "one",
        "two\u2028still two",
    ]


@pytest.mark.parametrize(
    ("content", "prompts"),
    [(b'{"question": "a"}\n{"question": "b"}', ["a", "b"]), (b"a\nb\n", ["a", "b"])],
    ids=["json lines", "plain lines"],
)
def test_standard_input(monkeypatch, content, prompts):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert [query.prompt for query in load_queries("-")] == prompts


def test_standard_input_is_named_in_messages(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    with pytest.raises(InvalidInputError, match=r"^standard input: holds no questions"):
        load_queries("-")


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_shipped_dataset_can_be_graded(dataset):
    queries = load_queries(dataset)
    assert len(queries) == 128
    assert all(query.reference and query.reference.lstrip("-").replace(".", "").isdigit() for query in queries)
    assert load_queries(dataset, limit=3) == queries[:3]


def test_named_columns_go_first(tmp_path):
    content = "question,answer,other question,solution\nno,no,yes,right\n"
    named = {"question_column": "other question", "answer_column": "solution"}
    (query,) = load(tmp_path, "q.csv", content, **named)
    assert (query.prompt, query.reference) == ("yes", "right")
    (query,) = load(
        tmp_path, "q.parquet", parquet_bytes({"a": ["yes"], "b": ["right"]}), question_column="a", answer_column="b"
    )
    assert (query.prompt, query.reference) == ("yes", "right")


@pytest.mark.parametrize("kind", [pa.uint64(), pa.decimal128(20, 0), pa.decimal128(24, 2)], ids=str)
def test_ids_of_parquet_keep_every_digit(tmp_path, kind):
    numbers = [12345678901234567890, 12345678901234567891]
    ids = pa.array(numbers if kind == pa.uint64() else [Decimal(number) for number in numbers], kind)
    queries = load(tmp_path, "q.parquet", parquet_bytes({"question": ["a", "b"], "id": ids}))
    assert [query.id for query in queries] == ["12345678901234567890", "12345678901234567891"]


def test_several_columns_make_one_id(tmp_path):
    content = "task,n,question\nadd,1,a\nadd,2,b\nmul,1,c\n"
    assert [query.id for query in load(tmp_path, "q.csv", content, id_column="task,n")] == ["add/1", "add/2", "mul/1"]


def test_an_empty_name_stands_for_no_column(tmp_path):
    content = "id,question,answer\n1,a,2\n1,b,3\n"
    (first, second) = load(tmp_path, "q.csv", content, id_column="", answer_column="")
    assert (first.id, first.reference) == (content_id("a"), None)
    assert second.id == content_id("b")


def test_a_part_of_the_question_in_another_column_is_told(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        (query,) = load(tmp_path, "q.jsonl", '{"Body": "Tom has 3.", "Question": "How many?", "Answer": 3.0}')
    assert (query.prompt, query.reference) == ("How many?", "3")
    assert "'Body' is not read" in caplog.text


def test_a_long_cell_is_read(tmp_path):
    (query,) = load(tmp_path, "q.csv", f'question,answer\n"{"x" * 200_000}",1\n')
    assert len(query.prompt) == 200_000


def test_any_table_by_meaning(tmp_path):
    path = written(tmp_path, "a.jsonl", '{"Response": "4", "doc": {"gold": 4}}\n{"Response": "5"}\n')
    usual = {"answer": ("answer", "response"), "reference": ("reference",), "id": ("id",)}
    rows = load_columns(path, usual, {"reference": "doc.gold"})
    assert rows == [
        {"place": "line 1", "answer": "4", "reference": 4, "id": None},
        {"place": "line 2", "answer": "5", "reference": None, "id": None},
    ]
    with pytest.raises(InvalidInputError, match=r"--reference-column 'doc.gald': no such column; .*Did you mean"):
        load_columns(path, usual, {"reference": "doc.gald"})


def test_limit_leaves_later_rows_alone(tmp_path):
    assert len(load(tmp_path, "q.jsonl", '{"question": "a"}\n{"question": ""}\n', limit=1)) == 1


# --- what is refused ---------------------------------------------------------------------------------------------

GOOD = '{"question": "q"}\n'
REFUSED = {
    "empty file": ("q.jsonl", "", "q.jsonl: holds no questions"),
    "blank lines only": ("q.jsonl", "\n \n", r"holds no questions"),
    "empty csv": ("q.csv", "", "holds no questions"),
    "header only": ("q.csv", "question,answer\n", "holds no questions"),
    "empty list": ("q.json", "[]", "holds no questions"),
    "empty json": ("q.json", "", "holds no questions"),
    "empty parquet": ("q.parquet", parquet_bytes({"question": pa.array([], pa.string())}), "holds no questions"),
    "no question column": (
        "q.jsonl",
        '{"a": 1, "b": 2}',
        r"no question column .*has: 'a', 'b'.*--question-column NAME",
    ),
    "misspelt column": ("q.csv", "Questions,a\nq,1\n", r"Did you mean --question-column 'Questions'\?"),
    "column missing in a row": ("q.jsonl", GOOD + '{"answer": 1}', "line 2: 'question' is missing"),
    "empty question": ("q.jsonl", GOOD + '{"question": " "}', "line 2: 'question' is empty"),
    "question is a number": ("q.jsonl", '{"question": 3}', "line 1: 'question' must be text or chat messages, got 3"),
    "empty cell": ("q.csv", "id,question\n1,\n", "line 2: 'question' is missing"),
    "duplicate id": ("q.jsonl", '{"id": "x", "question": "q"}\n' * 2, "line 2: id 'x' is already taken by line 1"),
    "id as number and text": (
        "q.jsonl",
        '{"id": 1, "question": "q"}\n{"id": "1", "question": "r"}',
        "id '1' is already taken by line 1",
    ),
    "id is a list": ("q.jsonl", '{"id": [1], "question": "q"}', "'id' must be text or a whole number"),
    "id with a line break": ("q.jsonl", '{"id": "a\\nb", "question": "q"}', "'id' holds a control character"),
    "not UTF-8": (
        "q.jsonl",
        GOOD.encode() + b'{"question": "\xe9"}',
        r"line 2: not UTF-8: byte 0xe9 at offset 32 .*iconv",
    ),
    "csv not UTF-8": ("q.csv", b"question\n\xe9?\n", "line 2: not UTF-8: byte 0xe9 at offset 9"),
    "UTF-16 without its mark": ("q.csv", "question\nq\n".encode("utf-16-le"), "line 1: holds a NUL byte .*UTF-16"),
    "UTF-16 cut within a character": ("q.csv", "question\nq\n".encode("utf-16")[:-1], "line 2: not UTF-8"),
    "NUL byte": ("q.txt", b"a\nb\0c\n", "line 2: holds a NUL byte at offset 3"),
    "NUL character": ("q.jsonl", '{"question": "a\\u0000"}', "NUL character, at position 1"),
    "half a surrogate": ("q.jsonl", '{"question": "\\ud800"}', "half a surrogate pair"),
    "half a surrogate as id": ("q.jsonl", '{"question": "q", "id": "\\ud800"}', "'id' holds a control character"),
    "NaN weight": (
        "q.jsonl",
        '{"question": "q", "weight": NaN}',
        "line 1: 'weight' must be a positive number, got nan",
    ),
    "NaN weight as text": (
        "q.csv",
        "question,weight\nq,nan\n",
        "line 2: 'weight' must be a positive number, got 'nan'",
    ),
    "infinite weight": ("q.jsonl", '{"question": "q", "weight": 1e999}', "'weight' must be a positive number, got inf"),
    "huge weight": ("q.jsonl", '{"question": "q", "weight": 1e16}', "'weight' must be at most 9,007,199,254,740,992"),
    "zero weight": ("q.jsonl", '{"question": "q", "weight": 0}', "'weight' must be a positive number, got 0"),
    "true weight": ("q.jsonl", '{"question": "q", "weight": true}', "'weight' must be a number, got True"),
    "NaN in parquet": (
        "q.parquet",
        parquet_bytes({"question": ["q"], "weight": [float("nan")]}),
        "row 1: 'weight' must be",
    ),
    "NaN answer in parquet": (
        "q.parquet",
        parquet_bytes({"question": ["q"], "answer": [float("nan")]}),
        "must be a finite",
    ),
    "budget of a half": ("q.jsonl", '{"question": "q", "min_budget": 1.5}', "'min_budget' must be a whole number"),
    "negative budget": ("q.jsonl", '{"question": "q", "max_budget": -16}', "'max_budget' must be a whole number"),
    "huge budget": ("q.jsonl", '{"question": "q", "max_budget": 1e300}', "'max_budget' must be a whole number"),
    "bounds swapped": (
        "q.jsonl",
        '{"question":"q","min_budget":32,"max_budget":16}',
        "'min_budget' 32 is above 'max_budget' 16",
    ),
    "two answers": (
        "q.jsonl",
        '{"question": "q", "answer": [1, 2]}',
        r"'answer' must be one answer, got 2: \[1, 2\]",
    ),
    "answer is true": ("q.jsonl", '{"question": "q", "answer": true}', "'answer' must be text or a number, got True"),
    "answer of 6,000 digits": ("q.jsonl", f'{{"question": "q", "answer": {"9" * 6000}}}', "line 1: not usable JSON"),
    "broken JSON": ("q.jsonl", GOOD + "\n{oops\n" + GOOD, "line 3: not JSON: .* at column 2: '{oops'"),
    "JSON line is a list": ("q.jsonl", "[1]", r"line 1: expected an object such as .*, got \[1\]"),
    "JSON is an object": ("q.json", "{}", "expected a list"),
    "JSON is lines": ("q.json", GOOD * 2, r"Extra data.*rename it to end in .jsonl"),
    "JSON item is a number": ("q.json", '["q", 3]', "item 2: expected an object"),
    "key twice": ("q.jsonl", GOOD + '{"question": "a", "question": "b"}', "line 2: the key 'question' occurs twice"),
    "key twice within": ("q.jsonl", '{"question": "a", "x": {"k": 1, "k": 2}}', "line 1: the key 'k' occurs twice"),
    "key twice in an item": (
        "q.json",
        '[{"question": "a", "question": "b"}]',
        "item 1: the key 'question' occurs twice",
    ),
    "JSON cut short": ("q.json", '[{"question": "a"}, {"que', "item 2: not JSON: Unterminated string .*line 1"),
    "JSON without a comma": ("q.json", '[{"question": "a"} {}]', "line 1: not JSON: Expecting ',' or"),
    "JSON goes on": ("q.json", '[{"question": "a"}] x', "not JSON: Extra data after the list"),
    "JSON not UTF-8": ("q.json", b'[{"question": "a"},\n"\xe9"]', "line 2: not UTF-8: byte 0xe9"),
    "id with a fraction": ("q.jsonl", '{"id": 1.5, "question": "q"}', "'id' must be text or a whole number"),
    "id as a large float": ("q.jsonl", '{"id": 1e22, "question": "q"}', "'id' is a number whose last digits are lost"),
    "other id column twice": (
        "q.jsonl",
        '{"doc_id": 1, "question": "q"}\n{"doc_id": 1, "question": "r"}',
        "line 2: id '1' is already taken by line 1 .*'doc_id'.*--id-column ''",
    ),
    "part that is no text": (
        "q.jsonl",
        '{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]}',
        "'messages' message 1 must have text as its content; it has a part of the type 'image_url'",
    ),
    "JSON nested deeply": ("q.json", "[" * 100_000, "nested too deeply"),
    "cells missing": ("q.csv", "question,answer\nq\n", "line 2: 1 cells, but the header has 2"),
    "row after a cell of two lines": ("q.csv", 'question,answer\n"a\nb",1\nq\n', "line 4: 1 cells"),
    "quote left open": ("q.csv", 'question\n"q\n', "not readable as CSV: unexpected end of data"),
    "column twice": ("q.csv", "question,question\na,b\n", "names a column twice: 'question'"),
    "not parquet": ("q.parquet", b"PAR1 or so", "not readable as Parquet"),
    "no messages": ("q.jsonl", '{"messages": []}', "'messages' has no messages"),
    "message is text": ("q.jsonl", '{"messages": ["q"]}', "message 1 must look like"),
    "unknown role": (
        "q.jsonl",
        '{"messages": [{"role": "bot", "content": "q"}]}',
        "role 'bot'; known: system, developer, user, assistant",
    ),
    "role is a list": ("q.jsonl", '{"messages": [{"role": ["user"], "content": "q"}]}', r"role \['user'\]; known"),
    "content is missing": ("q.jsonl", '{"messages": [{"role": "user"}]}', "must have text as its content, got nothing"),
    "assistant has the last word": (
        "q.jsonl",
        '{"messages": [{"role": "assistant", "content": "q"}]}',
        "must end in a user turn",
    ),
    "empty user turn": ("q.jsonl", '{"messages": [{"role": "user", "content": " "}]}', "ends in an empty user turn"),
    "broken messages cell": ("q.csv", "messages\n[oops\n", "line 2: 'messages' not JSON"),
    "unknown ending": ("q.xlsx", "", "cannot read files ending in '.xlsx'; known: .jsonl"),
    "no ending": ("questions", "", "has no file ending; known: .jsonl"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_refused_in_the_users_words(tmp_path, name):
    file, content, message = REFUSED[name]
    with pytest.raises(InvalidInputError, match=message) as refusal:
        load(tmp_path, file, content)
    assert str(refusal.value).startswith(f"{tmp_path / file}: ")


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"question_column": "qestion"}, r"--question-column 'qestion': no such column; the file has: 'question'"),
        ({"question_column": "qestion"}, r"Did you mean --question-column 'question'\?"),
        ({"answer_column": "x"}, r"--answer-column 'x': no such column"),
    ],
)
def test_a_named_column_that_is_not_there(tmp_path, named, message):
    with pytest.raises(InvalidInputError, match=message):
        load(tmp_path, "q.jsonl", GOOD, **named)


def test_everything_wrong_is_told_at_once_up_to_twenty(tmp_path):
    with pytest.raises(InvalidInputError) as refusal:
        load(tmp_path, "q.jsonl", GOOD + '{"question": ""}\n' * 25 + '{"question": "q", "weight": -1, "id": true}')
    lines = str(refusal.value).splitlines()
    assert lines[0].endswith("q.jsonl: 27 problems")
    assert lines[1] == "  line 2: 'question' is empty"
    assert len(lines) == 22
    assert lines[-1] == "  … and 7 more"


@pytest.mark.parametrize(
    ("source", "kind", "message"),
    [
        ("gsm8k-dem", UnknownNameError, r"Did you mean 'gsm8k-demo'\?"),
        ("no-such/q.jsonl", InvalidInputError, "there is no folder 'no-such'"),
        ("quests.jsonl", InvalidInputError, r"no such file. Did you mean 'quest.jsonl'\?"),
        (".", InvalidInputError, "is a folder"),
        ("a\0b.jsonl", InvalidInputError, "no such file|cannot be read"),
        ("", InvalidInputError, "^the name of the question file is empty"),
        ("x" * 5000 + ".jsonl", InvalidInputError, "cannot be read"),
    ],
    ids=["dataset", "folder missing", "misspelt file", "folder", "NUL", "nothing", "too long"],
)
def test_a_source_that_is_not_there(tmp_path, monkeypatch, source, kind, message):
    monkeypatch.chdir(tmp_path)
    written(tmp_path, "quest.jsonl", GOOD)
    with pytest.raises(kind, match=message):
        load_queries(source)


def test_only_what_could_be_read_is_suggested(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "profiles").mkdir()
    (tmp_path / "nofile.jsonl.d").mkdir()
    (tmp_path / "nofile.jsonl.bak").write_text(GOOD)
    for source in ("nofile.jsonl", "profile.csv"):
        with pytest.raises(InvalidInputError, match=r"no such file\.$"):
            load_queries(source)


@pytest.mark.parametrize(
    "begin", [b"BZh9", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"PK\x03\x04"], ids=["bzip2", "xz", "zstd", "zip"]
)
def test_what_is_packed_in_another_way_is_told_as_such_too(tmp_path, begin):
    with pytest.raises(InvalidInputError, match=r"line 1: is compressed \(\w+\); unpack it first"):
        load(tmp_path, "q.csv", begin + b"\xff\xfe\n")


def test_columns_without_a_name_are_no_columns(tmp_path):
    written(tmp_path, "q.csv", "question,answer,,\n1+1?,2,,\n")
    (query,) = load_queries(tmp_path / "q.csv")
    assert (query.text, query.reference) == ("1+1?", "2")


@pytest.mark.parametrize("name", ["q.jsonl", "q.json", "q.csv", "q.txt"])
def test_a_compressed_file_is_told_as_such(tmp_path, name):
    with pytest.raises(InvalidInputError, match=r"line 1: .*is compressed \(gzip\); unpack it first"):
        load(tmp_path, name, gzip.compress(GOOD.encode()))
    with pytest.raises(InvalidInputError, match=r"is compressed; unpack it first: gunzip .*q.jsonl.gz$"):
        load(tmp_path, "q.jsonl.gz", gzip.compress(GOOD.encode()))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_and_a_link_to_nothing_are_refused(tmp_path):
    os.mkfifo(tmp_path / "q.jsonl")
    with pytest.raises(InvalidInputError, match=r"is a pipe or a device, which cannot be read twice.*standard input"):
        load_queries(tmp_path / "q.jsonl")
    (tmp_path / "link.csv").symlink_to("gone.csv")
    with pytest.raises(InvalidInputError, match=r"is a link to 'gone\.csv', which cannot be reached"):
        load_queries(tmp_path / "link.csv")


def test_a_table_without_a_header_says_what_it_lacks(tmp_path):
    with pytest.raises(InvalidInputError, match="no question column"):
        load(tmp_path, "q.csv", "q1,How many?,4\n")
    with pytest.raises(InvalidInputError, match="holds no questions"):
        load(tmp_path, "q.csv", "id,question,answer\n")


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(limit):
    with pytest.raises(InvalidSettingsError, match=f"got {limit}"):
        load_queries("gsm8k-demo", limit=limit)


# --- ids ---------------------------------------------------------------------------------------------------------


def test_content_ids_do_not_depend_on_order_or_format(tmp_path):
    texts = [f"question {number}" for number in range(50)]
    shuffled = random.Random(0).sample(texts, len(texts))
    one = load(tmp_path, "q.txt", "\n".join(texts))
    other = load(tmp_path, "q.json", json.dumps([{"question": text, "answer": 1} for text in shuffled]))
    assert {query.id: query.prompt for query in one} == {query.id: query.prompt for query in other}
    assert len({query.id for query in one}) == 50


def test_the_content_id_is_pinned():
    """Runs are resumed by these ids: another value would orphan every run made before."""
    assert content_id("What is 1+1?") == content_id(" What is 1+1?\n") == "q-94958ced3882"
    assert content_id((Message("user", "What is 1+1?"),)) == "q-3c770447ac61"


def test_repeated_questions_get_numbers_that_avoid_given_ids(tmp_path, caplog):
    base = content_id("q")
    rows = [{"question": "q"}, {"question": "q", "id": f"{base}-2"}, {"question": "q"}, {"question": "q\n"}]
    with caplog.at_level(logging.WARNING):
        ids = [query.id for query in load(tmp_path, "q.jsonl", "\n".join(map(json.dumps, rows)))]
    assert ids == [base, f"{base}-2", f"{base}-3", f"{base}-4"]
    assert "2 questions are repeated" in caplog.text


# --- round trip --------------------------------------------------------------------------------------------------

characters = st.characters(exclude_categories=("Cs",), exclude_characters="\0")
texts = st.text(characters, min_size=1, max_size=30).filter(lambda text: text.strip())
turns = st.builds(Message, st.sampled_from(["system", "user", "assistant"]), st.text(characters, max_size=10))
chats = st.builds(lambda before, last: (*before, Message("user", last)), st.lists(turns, max_size=3), texts)
ids = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=10).filter(lambda text: text.strip())
budgets = st.none() | st.integers(1, 10**9)
bounds = st.tuples(budgets, budgets).filter(lambda pair: None in pair or pair[0] <= pair[1])
any_queries = st.lists(
    st.builds(
        lambda own_id, prompt, reference, weight, pair: Query(own_id, prompt, reference, weight, *pair),
        ids,
        texts | chats,
        st.none() | texts,
        st.floats(min_value=1e-300, max_value=2.0**53),
        bounds,
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda query: query.id,
)
with_folder = settings(max_examples=60)


@pytest.mark.slow
@with_folder
@given(any_queries)
def test_saved_queries_are_loaded_as_they_were(tmp_path, queries):
    path = tmp_path / "saved.jsonl"
    save_queries(path, queries)
    assert load_queries(path) == queries
    assert [query_from_json(query_to_json(query)) for query in queries] == queries
    assert [entry.name for entry in tmp_path.iterdir()] == ["saved.jsonl"]


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "3", "{", '{"id": "a"}', '{"id": "a", "prompt": [{"x": 1}]}', '{"id": "a", "prompt": 3}'),
        *(
            '{"id": {}, "prompt": "a"}',
            '{"id": "a", "prompt": "a", "weight": []}',
            '{"id": "a", "prompt": [{"role": 1}]}',
        ),
    ],
)
def test_a_line_that_is_no_stored_query_is_refused(text):
    with pytest.raises(InvalidInputError, match="not a stored query"):
        query_from_json(text)


def test_a_stopped_save_keeps_the_old_file(tmp_path):
    path = written(tmp_path, "q.jsonl", "old")

    def some():
        yield Query("a", "q")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_queries(path, some())
    assert path.read_text() == "old"


# --- anything at all ---------------------------------------------------------------------------------------------

FRAGMENTS = """{"question": "q"}|question,answer|\n|\r\n|"|,|\t|[|]|{|}|\0|"messages": |NaN|1e999|PAR1|\\ud800"""
fragments = st.sampled_from([*FRAGMENTS.encode().split(b"|"), b"\xff\xfe", b"\xef\xbb\xbf", b"\xe9"])
garbage = st.binary(max_size=60) | st.lists(fragments | st.binary(max_size=3), max_size=8).map(b"".join)
mutations = st.tuples(st.integers(0, 10**6), st.binary(max_size=3))


def only_our_errors(content: bytes, suffix: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_find_source", lambda source: Source(source, suffix, lambda: io.BytesIO(content)))
        try:
            queries = load_queries(f"fuzz{suffix}")
        except ForethoughtError:
            return
    assert queries
    assert len({query.id for query in queries}) == len(queries)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(garbage, st.sampled_from(sorted(FORMATS)))
def test_random_bytes_raise_nothing_but_our_errors(content, suffix):
    only_our_errors(content, suffix)


@settings(max_examples=150, deadline=None)
@given(st.lists(mutations, max_size=3))
def test_a_damaged_parquet_file_raises_nothing_but_our_errors(changes):
    content = bytearray(PARQUET)
    for position, replacement in changes:
        at = position % len(content)
        content[at : at + len(replacement)] = replacement
    only_our_errors(bytes(content), ".parquet")


PARQUET = parquet_bytes({"question": ["one", "two"], "answer": [1.5, None], "weight": [1, 2], "messages": [["a"], []]})
