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
from collections import namedtuple
from pathlib import Path

import pytest

from forethought import models
from forethought.errors import MissingExtraError, ModelFileError, UnknownNameError
from forethought.models import gguf as model_gguf
from forethought.models import locate
from forethought.models import weights as model_hash
from forethought.models.aliases import ALIASES, MARKER, mark, prepare
from forethought.models.gguf import GgufSource, fetch_gguf

ALIAS = "tiny"
WHOLE = b"GGUF" + bytes(range(200)) + b"b" * 3000 + b"tail\0\xff"
SOURCE = GgufSource(
    file="tiny-q4.gguf",
    num_bytes=len(WHOLE),
    sha256=hashlib.sha256(WHOLE).hexdigest(),
    hub_repo="somebody/tiny-gguf",
)


class Fetcher:
    """Stands in for the hub: writes the published file, and counts."""

    def __init__(self, before=lambda: None):
        self.before, self.asked = before, 0

    def __call__(self, source, folder, *, label, tell):
        if not (folder / source.file).exists():
            self.asked += 1
            self.before()
            tell(f"fetching {label}")
            (folder / source.file).write_bytes(WHOLE)
        return folder / source.file


# --- the hub -----------------------------------------------------------------------------------------------------


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
    monkeypatch.setattr(model_gguf, "HUB_PATIENCE", 0.1 if "no answer" in refusal else 60.0)
    assert model_gguf.from_hub(SOURCE, tmp_path) == refusal
    assert (tmp_path / SOURCE.file).exists() == (not refusal)


def test_the_hub_is_not_asked_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub())
    assert model_gguf.from_hub(SOURCE, tmp_path) == "HF_HUB_OFFLINE is set"


def test_a_hub_that_does_not_give_it_names_the_ways_that_are_left(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelFileError, match=r"HF_HUB_OFFLINE is set.*put that file into.*make model MODEL=tiny"):
        fetch_gguf(SOURCE, tmp_path, label=ALIAS, tell=lambda line: None)
    (tmp_path / SOURCE.file).write_bytes(WHOLE)
    assert fetch_gguf(SOURCE, tmp_path, label=ALIAS, tell=lambda line: None) == tmp_path / SOURCE.file


@pytest.mark.parametrize("content", [b"something else", WHOLE[:-1], b""])
def test_a_file_with_another_hash_is_removed(tmp_path, content):
    (tmp_path / SOURCE.file).write_bytes(content)
    with pytest.raises(ModelFileError, match=SOURCE.sha256):
        fetch_gguf(SOURCE, tmp_path, label=ALIAS, tell=lambda line: None)
    assert not (tmp_path / SOURCE.file).exists()


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
    tell = (told if told is not None else []).append
    fetch = index or Fetcher()
    return prepare(ALIAS, home, tell=tell, fetch=fetch, convert=convert, require_packages=lambda alias: None)


def test_an_alias_is_made_once_and_leaves_no_downloads(tmp_path):
    folder = ready(tmp_path, index := Fetcher())
    assert folder == tmp_path / "models" / ALIAS
    assert sorted(entry.name for entry in folder.iterdir()) == ["config.json", MARKER, "model.safetensors"]
    made = json.loads((folder / MARKER).read_text())
    assert made["alias"] == ALIAS
    assert made["sha256"] == SOURCE.sha256
    assert made["weights"] == {"model.safetensors": 2 * len(WHOLE)}
    assert [entry.name for entry in (tmp_path / "downloads").iterdir()] == [f"{ALIAS}.lock"]
    assert ready(tmp_path, index) == folder
    assert index.asked == 1


def test_a_stopped_conversion_leaves_no_folder_and_keeps_the_download(tmp_path):
    def stopped(gguf, folder):
        fake_convert(gguf, folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ready(tmp_path, index := Fetcher(), convert=stopped)
    assert not (tmp_path / "models" / ALIAS).exists()
    assert ready(tmp_path, index).is_dir()
    assert index.asked == 1
    assert [entry.name for entry in (tmp_path / "models").iterdir()] == [ALIAS]


def test_two_processes_do_not_make_it_at_once(tmp_path):
    """flock holds between two opened files, so threads stand in for processes."""
    told, folders = [], []

    def wait_for_the_others() -> None:
        while sum("another process" in line for line in told) < 2:
            time.sleep(0.01)

    index = Fetcher(before=wait_for_the_others)
    threads = [threading.Thread(target=lambda: folders.append(ready(tmp_path, index, told=told))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert folders == [tmp_path / "models" / ALIAS] * 3
    assert index.asked == 1, "one of them fetched, the others found it ready"


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
    assert ready(tmp_path, index := Fetcher()).resolve() == elsewhere
    assert index.asked == 0


def test_a_full_disk_is_told_before_anything_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: namedtuple("Usage", "free")(10**8))
    with pytest.raises(ModelFileError, match=r"needs 0.2 GB .* has 0.1 GB free.*FORETHOUGHT_HOME"):
        ready(tmp_path, index := Fetcher())
    assert index.asked == 0


def test_a_home_that_cannot_be_written_is_a_clear_error(tmp_path):
    (tmp_path / "home").write_text("a file in its place")
    with pytest.raises(ModelFileError, match=f"{ALIAS}: cannot be prepared under"):
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


def test_locate_makes_the_alias_and_reports(monkeypatch, caplog):
    monkeypatch.setitem(prepare.__kwdefaults__, "fetch", Fetcher())
    monkeypatch.setitem(prepare.__kwdefaults__, "convert", fake_convert)
    monkeypatch.setitem(prepare.__kwdefaults__, "require_packages", lambda alias: None)
    told: list[str] = []
    with caplog.at_level(logging.INFO, "forethought"):
        found = locate(ALIAS, report=told.append)
    assert found == models.LocalModel(ALIAS, models.home() / "models" / ALIAS, SOURCE.sha256)
    assert "fetching tiny" in told
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
        (lambda folder: (folder / "model.safetensors.index.json").write_text("[" * 99_999), "not a readable index"),
    ],
    ids=["config", "weights", "folder", "file", "shard", "escape", "empty index", "list", "broken index", "deep index"],
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
