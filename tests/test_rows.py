"""The reader of tables: bounded memory whatever a file claims, and hints that name only what exists."""

import io
import json
import re
import resource
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import forethought
from forethought.commands import COMMANDS, verbs
from forethought.core.problems import Problems
from forethought.errors import ForethoughtError
from forethought.questions.rows import FORMATS, Source, read_batches
from forethought.questions.rows.pages import PageError, read_footer, read_pages
from forethought.runs.importing.cells import Cells

PACKAGE = Path(forethought.__file__).parent
BOUND = 2 << 30  # bytes of address space for Python, Arrow and all that is read
LONG = "x" * 20_000_000


def parquet_file(path: Path, columns: dict, **options) -> None:
    pq.write_table(pa.table(columns), path, compression="zstd", **options)


def many_rows(path: Path) -> None:
    packed = pa.DictionaryArray.from_arrays(pa.array(np.zeros(1_500_000, dtype=np.int32)), ["q"])
    parquet_file(path, {"question": packed})


BOMBS = {
    "rows.parquet": (many_rows, "more than 1,000,000 rows"),
    "cells.parquet": (lambda path: parquet_file(path, {"question": [LONG] * 60}), "MiB"),
    "plain.parquet": (
        lambda path: parquet_file(path, {"question": [LONG] * 14}, use_dictionary=False),
        "holds a page of",
    ),
    "texts.parquet": (lambda path: parquet_file(path, {"question": ["x" * 10_000] * 100_000}), "512 MiB of text"),
    "line.jsonl": (lambda path: path.write_text(f'{{"question": "{LONG}"}}\n'), "line 1: the line holds more than"),
    "deep.jsonl": (lambda path: path.write_text('{"question":' + "[" * 10_000 + "]" * 10_000 + "}"), "too deeply"),
    "item.json": (lambda path: path.write_text(f'["{LONG}"]'), "item 1: the item holds more than 16 MiB"),
    "keys.jsonl": (
        lambda path: path.write_text(json.dumps({f"k{n}": 0 for n in range(100_000)})),
        "100,000 columns; at most 10,000",
    ),
    "wide.csv": (lambda path: path.write_text(",".join(f"c{n}" for n in range(10**6)) + "\n"), "1,000,000 columns"),
    "quote.csv": (lambda path: path.write_text('question\n"' + ("x" * 99 + "\n") * 200_000), "is a quote left open"),
}
LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, ({bound}, {bound}))
from forethought.errors import ForethoughtError
from forethought.questions.queries import load_queries
try:
    print(len(load_queries(sys.argv[1], limit={limit})))
except ForethoughtError as error:
    print(error)
"""


def read_within(path: Path, limit: int | None) -> str:
    script = LIMITED.format(bound=BOUND, limit=limit)
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(resource, "RLIMIT_AS") or sys.platform == "darwin", reason="no limit on memory here")
@pytest.mark.parametrize("name", BOMBS)
def test_a_file_that_unpacks_to_more_than_memory_is_refused(tmp_path: Path, name: str) -> None:
    write, told = BOMBS[name]
    write(tmp_path / name)
    assert told in read_within(tmp_path / name, None)


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_AS") or sys.platform == "darwin", reason="no limit on memory here")
def test_a_limit_reads_no_further(tmp_path: Path) -> None:
    many_rows(tmp_path / "q.parquet")
    assert read_within(tmp_path / "q.parquet", 5) == "5\n"
    (tmp_path / "q.jsonl").write_text('{"question": "q"}\n' * 5 + "{oops\n")
    assert read_within(tmp_path / "q.jsonl", 5) == "5\n"


def test_standard_input_is_read_as_far_as_the_limit() -> None:
    """Five lines of a stream that goes on; whoever writes it is not waited for."""
    code = "from forethought import read_questions as read; print(len(read('-', limit=5)), len(read('-', limit=5)))"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b'{"question": "q"}\n' * 6)
        process.stdin.flush()
        assert process.stdout.readline() == b"5 5\n"
        process.stdin.close()


def test_long_lists_in_parquet_are_refused_before_they_are_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forethought.questions.rows.parquet.MAX_LISTED", 1000)
    sink = io.BytesIO()
    pq.write_table(pa.table({"correct": [np.zeros(2000, dtype=np.int64)]}), sink)
    problems = Problems("t.parquet")
    source = Source("t.parquet", ".parquet", lambda: io.BytesIO(sink.getvalue()))
    assert not list(read_batches(source, lambda _: True, problems))
    with pytest.raises(ForethoughtError, match="2,000 list elements in one row group"):
        problems.raise_any()


@pytest.mark.parametrize("options", [{}, {"use_dictionary": False}, {"data_page_version": "2.0"}], ids=str)
def test_page_headers_say_what_pyarrow_says(options: dict) -> None:
    sink = io.BytesIO()
    table = pa.table({"a": ["one", "two", None] * 1000, "b": [[1.0, 2.0], [], None] * 1000})
    pq.write_table(table, sink, row_group_size=1000, **options)
    metadata = pq.ParquetFile(sink).metadata
    groups = read_footer(sink)
    assert [group.num_rows for group in groups] == [1000, 1000, 1000]
    for index, group in enumerate(groups):
        for column, chunk in enumerate(group.chunks):
            known = metadata.row_group(index).column(column)
            pages = read_pages(sink, chunk)
            assert pages.num_values == known.num_values == chunk.num_values
            assert 0 < pages.largest <= known.total_uncompressed_size
            assert bool(pages.largest_shared) == known.has_dictionary_page


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_as_a_footer(content: bytes) -> None:
    stream = io.BytesIO(content + len(content).to_bytes(4, "little") + b"PAR1")
    try:
        groups = read_footer(stream)
    except PageError:
        return
    assert all(group.num_rows >= 0 or group.num_rows < 0 for group in groups)


cells = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5) | st.just([1, 2])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(cells, max_size=6), max_size=4), st.booleans())
def test_cells_come_back_as_they_were(batches: list[list], takes_lists: bool) -> None:
    column = Cells(takes_lists=takes_lists)
    for batch in batches:
        column.add(batch)
    given_cells = [cell for batch in batches for cell in batch]
    codes = column.codes(len(given_cells)).tolist()
    lists = dict(column.each_list())
    back = [lists[row] if code == -3 else None if code == -1 else column.values[code] for row, code in enumerate(codes)]
    assert [(type(cell), cell) for cell in back] == [(type(cell), cell) for cell in given_cells]


FRAGMENTS = '{"question": "q"}|{"id": 1, |question,answer|a;b|\n|\r\n|\r|"|,|;|\t|[|]|{|}|\0|"a":1,"a":2|NaN|1e999|PAR1'
fragments = st.sampled_from([*FRAGMENTS.encode().split(b"|"), b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf", b"\xe9"])
content = st.lists(fragments | st.binary(max_size=3), max_size=10).map(b"".join)


@settings(max_examples=200, deadline=None)
@given(content, st.sampled_from(sorted(FORMATS)), st.none() | st.integers(1, 3))
def test_a_reader_raises_nothing_and_keeps_to_the_limit(data: bytes, suffix: str, limit: int | None) -> None:
    problems = Problems("f")
    batches = list(read_batches(Source("f", suffix, lambda: io.BytesIO(data)), lambda _: True, problems, limit=limit))
    rows = [row for batch in batches for row in batch.rows()]
    assert limit is None or len(rows) <= limit
    assert all(set(batch.columns) <= set(batch.names) for batch in batches)


# --- hints name only what exists -------------------------------------------------------------------------------

FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
QUESTION_READERS = ("profile", "plan", "run", "doctor")
READERS = {
    **dict.fromkeys(("questions/queries.py", "questions/rows/reading.py"), QUESTION_READERS),
    **dict.fromkeys(
        ("runs/importing/rows.py", "runs/importing/counts.py", "runs/importing/naming.py", "runs/importing/repeats.py"),
        ("import",),
    ),
}


def flags_of(command: click.Command) -> set[str]:
    own = {flag for each in command.params for flag in (*each.opts, *each.secondary_opts)}
    inner = [flags_of(each) for each in command.commands.values()] if isinstance(command, click.Group) else []
    return own.union(*inner)


@pytest.mark.parametrize("name", READERS)
def test_a_hint_names_only_flags_of_its_commands(name: str) -> None:
    text = (PACKAGE / name).read_text("utf-8")
    # A meaning's flag is put together from its name; --where's columns are the user's own.
    named = set(FLAG.findall(re.sub(r"--\{\w+\}-column|`--MEANING-column`", "", text)))
    for command in READERS[name]:
        found = verbs.get_command(click.Context(verbs), command)
        assert found is not None
        assert named <= flags_of(found), command


@pytest.mark.parametrize("command", QUESTION_READERS)
def test_every_command_that_reads_questions_lets_their_columns_be_named(command: str) -> None:
    found = verbs.get_command(click.Context(verbs), command)
    assert found is not None
    assert {"--question-column", "--answer-column", "--id-column", "--limit"} <= flags_of(found)


def test_the_package_names_no_flag_that_no_command_has() -> None:
    known = {"--help", "--version", "--no-log-samples", "--log"}  # the last two belong to tools that write logs
    for command in COMMANDS:
        found = verbs.get_command(click.Context(verbs), command)
        assert found is not None
        known |= flags_of(found)
    known |= flags_of(verbs)
    for path in (
        "questions/queries.py",
        "questions/fields.py",
        "core/problems.py",
        *(f"runs/importing/{each.name}" for each in (PACKAGE / "runs/importing").glob("*.py")),
    ):
        text = re.sub(r"--\{\w+\}-column|`--MEANING-column`", "", (PACKAGE / path).read_text("utf-8"))
        assert set(FLAG.findall(text)) <= known, path
