"""Built-in model names -> a converted folder under home, made on first use.

HOME/models/ALIAS/                        Hugging Face folder; its forethought-model.json is written last
HOME/downloads/ALIAS/                     the published file until it is converted
HOME/downloads/ALIAS.lock                 held by the process that makes it
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import shlex
import shutil
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

from ..core.files import write_json
from ..errors import ModelFileError
from .gguf import GgufSource, Tell, convert, fetch_gguf, require_packages
from .weights import weight_files

ALIASES = {
    "qwen2.5-coder-0.5b": GgufSource(
        file="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        num_bytes=491_400_064,
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        hub_repo="Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
    ),
    "qwen2.5-coder-1.5b": GgufSource(
        file="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        num_bytes=1_117_320_768,
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        hub_repo="Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
    ),
}

MARKER = "forethought-model.json"
FOLDER_PER_GGUF = 3.3  # size of the bfloat16 folder over that of the 4-bit file: 2.6 and 3.2 measured
SPARE_BYTES = 200_000_000


def prepare(
    alias: str,
    home: Path,
    *,
    tell: Tell,
    fetch: Callable[..., Path] = fetch_gguf,
    convert: Callable[[Path, Path], None] = convert,
    require_packages: Callable[[str], None] = require_packages,
) -> Path:
    """The folder of `alias`, fetched and converted when it is not there; two processes never do so at once.

    A stopped call loses the part it was at; the next one goes on. The downloads are removed once the folder stands.

    Raises:
        ModelFileError: the disk is too full, a download or the conversion failed, or the folder is not ours.
        MissingExtraError: it has to be converted, and a package for that is not installed.
    """
    source = ALIASES[alias]
    folder = home / "models" / alias
    downloads = home / "downloads" / alias
    if _is_ready(folder, alias, source):
        return folder
    require_packages(alias)  # before a gigabyte is fetched in vain
    try:
        downloads.mkdir(parents=True, exist_ok=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(downloads.with_name(f"{alias}.lock"), alias, tell):
            if _is_ready(folder, alias, source):
                return folder
            _require_disk(source, downloads, alias)
            gguf = fetch(source, downloads, label=alias, tell=tell)
            tell(f"converting {alias}: about a minute, only this once")
            unfinished = folder.with_name(f".{alias}.partial")
            shutil.rmtree(unfinished, ignore_errors=True)
            convert(gguf, unfinished)
            mark(unfinished, alias)
            unfinished.rename(folder)
            shutil.rmtree(downloads, ignore_errors=True)
            tell(f"{alias} is ready in {folder}; its downloads were removed")
            return folder
    except ModelFileError:
        raise
    except OSError as error:
        raise ModelFileError(f"{alias}: cannot be prepared under {home}: {error}") from error


def mark(folder: Path, alias: str) -> None:
    """Writes the marker that says what `folder` was made from, and that it is whole."""
    versions = {}
    for name in ("forethought", "gguf", "torch", "transformers"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    source = ALIASES[alias]
    weights = {file.name: file.stat().st_size for file in weight_files(folder)}
    made = {"alias": alias, "file": source.file, "sha256": source.sha256, "weights": weights, "versions": versions}
    write_json(folder / MARKER, made)


def _is_ready(folder: Path, alias: str, source: GgufSource) -> bool:
    """Whether the folder stands and is whole; ModelFileError when something else is in its place."""
    if not folder.exists() and not folder.is_symlink():
        return False
    delete = f"Move it away or delete it, then try again: rm -r {shlex.quote(str(folder))}"
    try:
        made = json.loads((folder / MARKER).read_text("utf-8"))
        if (made["alias"], made["sha256"]) != (alias, source.sha256):
            raise ModelFileError(f"{folder} was made from {made['alias']} ({made['sha256']}), not {alias}. {delete}")
        sizes = {name: (folder / name).stat().st_size for name in made["weights"]}
        if sizes != made["weights"]:
            raise ModelFileError(f"{folder} was changed since it was made: {sizes}, not {made['weights']}. {delete}")
    except ModelFileError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelFileError(f"{folder} is in the place of {alias} but not whole ({error}). {delete}") from error
    return True


def _require_disk(source: GgufSource, downloads: Path, alias: str) -> None:
    there = sum(file.stat().st_size for file in downloads.rglob("*") if file.is_file())
    final = source.num_bytes * FOLDER_PER_GGUF
    # At its largest while the folder is written beside the joined file; the parts are gone by then.
    needed = max(0.0, final + source.num_bytes - there) + SPARE_BYTES
    free = shutil.disk_usage(downloads).free
    if free < needed:
        raise ModelFileError(
            f"{alias} needs {needed / 1e9:.1f} GB of disk temporarily and {final / 1e9:.1f} GB in the end; {downloads} "
            f"has {free / 1e9:.1f} GB free. Free some space, or point FORETHOUGHT_HOME at another disk."
        )


@contextlib.contextmanager
def _locked(path: Path, alias: str, tell: Tell) -> Iterator[None]:
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell(f"another process is preparing {alias}; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
