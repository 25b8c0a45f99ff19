"""What the system refuses is one line with the path and the reason; what was there stays, and nothing half is left."""

from __future__ import annotations

import codecs
import csv
import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from forethought.commands import _exit_code
from forethought.core.files import make_folder, open_bytes, read_json, replacing, write_atomically, write_json
from forethought.core.parquet import METADATA_KEY
from forethought.core.provenance import Provenance
from forethought.core.rows import check_rows_name, write_rows
from forethought.errors import FileError, InvalidSettingsError
from forethought.runs.store import RunDirectory


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in, with a file of questions and one that is in the way."""
    monkeypatch.chdir(tmp_path)
    rows = [{"id": f"q{i}", "question": f"What is {i} + {i}?", "answer": str(2 * i)} for i in range(20)]
    Path("q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    Path("file").write_text("mine")
    return tmp_path


def full(*args: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


REFUSED = {
    "a file in the way": ("file/x", "Not a directory"),
    "no folder": ("nowhere/x", "No such file or directory"),
    "a folder": (".", "Is a directory"),
    "a long name": ("a" * 300, "File name too long"),
}


@pytest.mark.parametrize(("name", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_a_writer_names_the_path_and_the_reason(folder: Path, name: str, reason: str) -> None:
    with pytest.raises(FileError, match=f"^{name}: cannot be written: {reason}") as caught:
        write_atomically(Path(name), b"x")
    assert isinstance(caught.value, OSError)
    assert caught.value.errno
    assert sorted(path.name for path in folder.iterdir()) == ["file", "q.jsonl"]


def test_a_folder_that_cannot_be_made_is_named(folder: Path) -> None:
    with pytest.raises(FileError, match=r"^file/x: cannot be created: Not a directory"):
        make_folder(Path("file/x"))
    with pytest.raises(FileError, match=r"^file: cannot be created: File exists"):
        make_folder(Path("file"))


def test_a_full_disk_leaves_the_old_file_and_nothing_half(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(FileError, match=r"^file: cannot be written: No space left on device.*free some disk space"):
        write_atomically(Path("file"), b"new")
    assert Path("file").read_text() == "mine"
    assert sorted(path.name for path in folder.iterdir()) == ["file", "q.jsonl"]


def test_what_fails_while_it_is_written_leaves_the_old_file(folder: Path) -> None:
    with pytest.raises(TypeError), replacing(Path("file")) as file:
        file.write("half")  # type: ignore[arg-type]
    assert Path("file").read_text() == "mine"
    assert sorted(path.name for path in folder.iterdir()) == ["file", "q.jsonl"]


def test_a_link_and_the_rights_of_a_file_stay(folder: Path) -> None:
    Path("file").chmod(0o640)
    Path("link").symlink_to("file")
    write_atomically(Path("link"), b"new")
    assert Path("link").is_symlink()
    assert Path("file").read_text() == "new"
    assert Path("file").stat().st_mode & 0o777 == 0o640


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_what_is_no_file_is_written_and_not_replaced() -> None:
    write_atomically(Path(os.devnull), b"x")
    assert not Path(os.devnull).is_file()
    with pytest.raises(FileError, match="/dev/full: cannot be written: No space left on device"):
        write_json(Path("/dev/full"), {})
    assert not Path("/dev/full").is_file()


def test_a_file_that_cannot_be_read_is_named(folder: Path) -> None:
    with pytest.raises(FileError, match=r"^\.: cannot be read: Is a directory"):
        read_json(Path("."))
    with pytest.raises(FileError, match=r"^file/x: cannot be read: Not a directory"):
        open_bytes(Path("file/x"), "rb", "read")


def test_records_are_whole_or_not_there_when_the_disk_is_full(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDirectory.create(Path("run"), kind="asked", provenance=Provenance(model="m"), settings={})
    record = {"query_id": "a", "sample": 0, "level": None, "text": "x" * 100, "tokens": 1, "error": None}
    with run.appender() as records:
        records.append([record])
        with monkeypatch.context() as patched:
            patched.setattr("os.fsync", full)
            with pytest.raises(FileError, match=r"^run/records\.jsonl: cannot be written: No space"):
                records.append([{**record, "query_id": "b"}])
        records.append([{**record, "query_id": "c"}])
    assert [each.query_id for each in run.opinions()] == ["a", "c"]


def test_what_a_kill_left_half_is_removed_by_the_next_writer(folder: Path) -> None:
    run = RunDirectory.create(Path("run"), kind="asked", provenance=Provenance(), settings={})
    (run.path / ".plan.json.1.tmp").write_text("{")
    (run.path / "hidden/.00000.safetensors.1.tmp").write_text("x")
    with run.locked():
        pass
    assert not [*run.path.rglob("*.tmp")]


PROFILE = ["profile", "fake", "q.jsonl", "--quiet", "--traces", "2", "--layers", "none"]
IN_THE_WAY = {
    "profile": [*PROFILE, "--out", "file/x"],
    "train": ["train", "p", "--predictor", "mean", "--out", "file/x"],
    "plan": ["plan", "m", "q.jsonl", "--mean-tokens", "64", "--out", "file/x"],
    "plan to no folder": ["plan", "m", "q.jsonl", "--mean-tokens", "64", "--out", "nowhere/x"],
    "plan to a folder": ["plan", "m", "q.jsonl", "--mean-tokens", "64", "--out", "p"],
    "run": ["run", "m", "q.jsonl", "--mean-tokens", "64", "--quiet", "--out", "file/x"],
    "evaluate": ["evaluate", "p", "--predictor", "mean", "--resamples", "100", "--no-plots", "--out", "file/x"],
    "compare": ["compare", "m", "--on", "p", "--resamples", "100", "--no-plots", "--out", "file/x"],
    "ls": ["ls", "file/x"],
    "show": ["show", "file/x", "q1"],
}


@pytest.fixture
def made(folder: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A profile `p` and a predictor `m` in it."""
    assert _exit_code([*PROFILE, "--out", "p"]) == 0
    assert _exit_code(["train", "p", "--predictor", "mean", "--out", "m"]) == 0
    capsys.readouterr()
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("args", IN_THE_WAY.values(), ids=IN_THE_WAY.keys())
def test_every_command_says_what_is_in_the_way_in_one_line(
    made: Path, args: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(made.rglob("*"))
    assert _exit_code(args) == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, said
    assert any(name in errors[0] for name in ("file", "nowhere", "p")), errors
    assert sorted(path for path in made.rglob("*") if path.name != ".lock") == [
        path for path in before if path.name != ".lock"
    ]


def forethought(*args: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "forethought", *args]
    return subprocess.run(command, text=True, stderr=subprocess.PIPE, check=False, **options)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("args", [["ls", "--json"], ["--help"]], ids=["a verb", "help"])
def test_a_standard_output_that_is_full_is_said_and_nothing_else(folder: Path, args: list[str]) -> None:
    with open("/dev/full", "w") as output:
        done = forethought(*args, stdout=output)
    assert done.returncode == 1
    assert done.stderr.startswith("error: standard output: cannot be written: No space left on device")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("args", [["ls", "--json"], ["--help"]], ids=["a verb", "help"])
def test_who_stops_reading_ends_the_command_in_silence(folder: Path, args: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as output:
        done = forethought(*args, stdout=output)
    assert (done.returncode, done.stderr) == (141, "")


LIMITED = """
import resource, sys
from forethought.commands import _exit_code
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.exit(_exit_code(sys.argv[2:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("limit", [0, 300, 2_000, 10_000, 30_000])
def test_after_room_is_made_the_same_command_goes_on(folder: Path, limit: int) -> None:
    args = [*PROFILE, "--out", "p"]
    command = [sys.executable, "-c", LIMITED, str(limit), *args]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: p/")
    assert ": cannot be written: File too large. Earlier output is kept" in done.stderr
    assert not [*folder.rglob("*.tmp")]
    kept = sum(1 for _ in RunDirectory(Path("p")).records()) if Path("p/run.json").exists() else 0
    assert _exit_code(args) == 0
    assert len(list(RunDirectory(Path("p")).records())) == 40 > kept


def bomb(path: Path, *, rows: int, times: int, text: str) -> Path:
    """A profile file of a stranger, the same rows again and again: next to nothing on disk."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    ones = pa.array(np.ones(rows, dtype=np.int32))
    floats = pa.FixedSizeListArray.from_arrays(pa.array(np.ones(rows, dtype=np.float32)), 1)
    columns = {
        "query_id": pa.array(["a"] * rows),
        "num_tried": ones,
        "num_right": pa.FixedSizeListArray.from_arrays(ones, 1),
        "tokens": floats,
        "reasoning_tokens": floats,
        "question": pa.array([text] * rows),
    }
    metadata = {"schema": 1, "window": 1, "maximum": 1, "layers": [], "info": {}}
    table = pa.table(columns).replace_schema_metadata({METADATA_KEY: json.dumps(metadata)})
    with pq.ParquetWriter(path, table.schema, compression="zstd") as writer:
        for _ in range(times):
            writer.write_table(table)
    return path


BOMBS = {"rows": {"rows": 1_000_000, "times": 30, "text": ""}, "texts": {"rows": 1, "times": 30, "text": "a" * 10**7}}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from /proc")
@pytest.mark.parametrize("options", BOMBS.values(), ids=BOMBS.keys())
def test_a_small_file_that_decodes_to_much_more_is_refused_before_it_does(tmp_path: Path, options: Any) -> None:
    path = bomb(tmp_path / "bomb.parquet", **options)
    assert path.stat().st_size < 4 << 20
    script = (
        "import re, sys; from pathlib import Path; from forethought.core.parquet import read_parquet\n"
        "from forethought.errors import RunError\n"
        "try: read_parquet(Path(sys.argv[1]))\n"
        "except RunError as error: print(error)\n"
        # Not ru_maxrss, which a child takes over from the process that starts it.
        "print(int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]) >> 10)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], text=True, capture_output=True, check=True)
    message, megabytes = done.stdout.splitlines()
    assert "more than a file of its size may" in message
    assert int(megabytes) < 300


def test_rows_are_written_as_the_name_of_the_file_says(tmp_path: Path) -> None:
    """Spreadsheets compute nothing of it, numbers stay numbers, and no letter is lost."""
    rows: list[dict[str, Any]] = [
        {"id": 'ä, "b"\n数', "answer": '=HYPERLINK("http://x")', "tokens": 3, "usd": 0.25},
        {"id": "-5", "answer": "-5", "tokens": None, "usd": 1},
        {"id": "@x", "answer": "\x1b[2J\u200f\ud800", "error": "no"},
    ]
    for name in ("r.csv", "r.tsv", "r.parquet", "r.jsonl"):
        write_rows(tmp_path / name, rows)
    for name, delimiter in (("r.csv", ","), ("r.tsv", "\t")):
        content = (tmp_path / name).read_bytes()
        assert content.startswith(codecs.BOM_UTF8)
        assert b"\x1b" not in content
        first, second, third = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), delimiter=delimiter)
        assert first == {
            "id": rows[0]["id"],
            "answer": "'" + rows[0]["answer"],
            "tokens": "3",
            "usd": "0.25",
            "error": "",
        }
        assert (second["id"], second["answer"], second["tokens"]) == ("-5", "-5", "")
        assert (third["id"], third["answer"]) == ("'@x", "\\x1b[2J\u200f\\ud800")
    table = pq.read_table(tmp_path / "r.parquet").to_pylist()
    assert table[0] == {**rows[0], "error": None}
    assert (table[1]["usd"], table[2]["answer"]) == (1.0, "\x1b[2J\u200f\\ud800")
    assert [json.loads(line) for line in (tmp_path / "r.jsonl").read_text("utf-8").splitlines()][:2] == rows[:2]
    with pytest.raises(InvalidSettingsError, match=r"--answers r.xlsx: .* name it r.csv"):
        check_rows_name(Path("r.xlsx"), "--answers")
