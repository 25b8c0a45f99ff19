"""A predictor's folder: settings and card as JSON, weights as safetensors, replaced in one step; and shipped ones.

FOLDER/predictor.json        schema version, settings, card, SHA-256 of the weights
FOLDER/weights.safetensors   arrays
FOLDER/card.md               the card in words
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from ..core.arguments import path_of
from ..core.data import FloatArray
from ..core.files import make_folder, parse_json, reaching, write_atomically
from ..core.visible import to_json, visible
from ..errors import FileError, ModelFileError, UnknownNameError

_SHIPPED = resources.files("forethought") / "data" / "predictors"
SCHEMA = 2
READABLE = (1, 2)  # 1 named its budgets by their step and the largest of them
SETTINGS_FILE = "predictor.json"
WEIGHTS_FILE = "weights.safetensors"
CARD_FILE = "card.md"
NEXT = {name: f".{name}.next" for name in (SETTINGS_FILE, WEIGHTS_FILE, CARD_FILE)}  # on the way to its name


def shipped_predictors() -> list[str]:
    """Names of the predictors inside the package."""
    return sorted(entry.name for entry in _SHIPPED.iterdir() if entry.is_dir())


def is_predictor(source: Path | str) -> bool:
    """Whether a name or a path refers to a predictor."""
    is_folder = any((folder / SETTINGS_FILE).is_file() for folder in (Path(source), Path(source) / "predictor"))
    return is_folder or str(source) in shipped_predictors()


@contextlib.contextmanager
def locate(source: Path | str) -> Iterator[Path]:
    """The folder of a name or a path: the path, its folder `predictor`, or a shipped predictor's."""
    path = path_of(source)
    for folder in (path, path / "predictor"):
        if (folder / SETTINGS_FILE).is_file():
            yield folder
            return
    shipped = shipped_predictors()
    if str(source) in shipped:
        with resources.as_file(_SHIPPED / str(source)) as folder:
            yield folder
        return
    if path.exists():
        yield path  # what is wrong with it is said by its reader
        return
    close = difflib.get_close_matches(str(source), shipped, n=1)
    suggestion = f" Did you mean {close[0]!r}?" if close else ""
    raise UnknownNameError(
        f"{str(source)!r} is neither a run directory, nor a predictor folder, nor a shipped predictor.{suggestion} "
        f"Shipped: {', '.join(shipped) or 'none'}."
    )


def write_folder(folder: Path, content: dict[str, Any], arrays: dict[str, FloatArray], words: str) -> None:
    """Writes a predictor in one step: a reader or a kill sees the old one or the new one, never half nor none.

    In a folder that holds a predictor only that is replaced; what else stands there stays.

    Raises:
        ModelFileError: `folder` exists and holds something other than a predictor.
    """
    check_place(folder)
    weights = save_arrays({name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)})
    stated = {"bytes": len(weights), "sha256": hashlib.sha256(weights).hexdigest()}
    files = {
        SETTINGS_FILE: f"{to_json({'schema': SCHEMA, **content, 'weights': stated}, indent=2)}\n".encode(),
        WEIGHTS_FILE: weights,
        CARD_FILE: visible(words).encode(),
    }
    if folder.exists():
        _replace(folder, files)
        return
    make_folder(folder.parent)
    with (
        reaching(folder, "written"),
        tempfile.TemporaryDirectory(prefix=f".{folder.name[:40]}.", dir=folder.parent) as scratch,
    ):
        fresh = Path(scratch) / "new"
        fresh.mkdir()
        for name, file in files.items():
            write_atomically(fresh / name, file)
        try:
            fresh.rename(folder)
        except OSError:  # another process was quicker
            if not _is_replaceable(folder):
                raise
            _replace(folder, files)


def check_place(folder: Path) -> None:
    """Raises ModelFileError if a predictor may not be saved, because something else is there."""
    with reaching(folder, "written"):
        is_taken = folder.exists() and not _is_replaceable(folder)
    if is_taken:
        raise ModelFileError(f"{folder} exists and is not a predictor; nothing was written. Give another folder.")


def _replace(folder: Path, files: dict[str, bytes]) -> None:
    """Puts the predictor's files into a folder that is there: the settings file decides which one it holds.

    All lie ready under other names before it is replaced; the weights take theirs after it, and until then they are
    read from there. One process at a time.
    """
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _finish(folder)
        for name in (WEIGHTS_FILE, SETTINGS_FILE, CARD_FILE):
            write_atomically(folder / NEXT[name], files[name])
        for name in (SETTINGS_FILE, WEIGHTS_FILE, CARD_FILE):  # a link is replaced, and not what it leads to
            (folder / NEXT[name]).replace(folder / name)
    finally:
        os.close(lock)


def _finish(folder: Path) -> None:
    """Gives the weights their name where a kill came before that: they would be overwritten else."""
    waiting = folder / NEXT[WEIGHTS_FILE]
    with contextlib.suppress(ModelFileError, FileNotFoundError):
        stated = read_settings(folder).get("weights")
        if isinstance(stated, dict) and stated.get("sha256") == hashlib.sha256(waiting.read_bytes()).hexdigest():
            waiting.replace(folder / WEIGHTS_FILE)


def _is_replaceable(folder: Path) -> bool:
    return folder.is_dir() and ((folder / SETTINGS_FILE).is_file() or not any(folder.iterdir()))


def read_settings(folder: Path) -> dict[str, Any]:
    """What a predictor's folder says; raises ModelFileError where it holds none."""
    path = folder / SETTINGS_FILE
    try:
        with reaching(path, "read"):
            content = parse_json(path.read_bytes())
    except FileError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            raise
        raise ModelFileError(
            f"{folder} is not a predictor: it has no {SETTINGS_FILE}. Make one with `forethought train`."
        ) from error
    except ValueError as error:  # broken UTF-8 or JSON
        raise ModelFileError(f"{path} is not readable JSON: {error}. Train the predictor again.") from error
    if not isinstance(content, dict) or content.get("schema") not in READABLE:
        schema = content.get("schema") if isinstance(content, dict) else None
        raise ModelFileError(
            f"{path} has schema {schema!r}; this version reads schema {SCHEMA}. Train the predictor again, "
            f"or use the version of forethought that wrote it."
        )
    return content


def read_weights(folder: Path, content: dict[str, Any]) -> dict[str, FloatArray]:
    """The arrays of the hash that `content` states; raises ModelFileError where they are not there."""
    path = folder / WEIGHTS_FILE
    stated = content.get("weights")
    expected = stated.get("sha256") if isinstance(stated, dict) else None
    raw, found = b"", ""
    # The second where saving was stopped before they took their name, the third where it goes on meanwhile.
    for candidate in (path, folder / NEXT[WEIGHTS_FILE], path):
        if candidate.is_file():
            with reaching(candidate, "read"):
                raw = candidate.read_bytes()
            found = hashlib.sha256(raw).hexdigest()
        if found == expected:
            break
    if not found:
        raise ModelFileError(f"{path} is missing. Copy the whole predictor folder, or train it again.")
    if found != expected:
        raise ModelFileError(
            f"{path} has SHA-256 {found} ({len(raw):,} bytes), but {SETTINGS_FILE} states {expected}: "
            f"the file is cut short or was changed. Copy the folder again, or train again."
        )
    try:
        arrays: dict[str, FloatArray] = load_arrays(raw)
    except SafetensorError as error:
        raise ModelFileError(f"{path} is not a safetensors file: {error}") from error
    return arrays
