"""Files: written completely or not at all, and messages for errors of the system."""

from __future__ import annotations

import errno
import json
import math
import os
import stat
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from ..errors import FileError, ForethoughtError, RunError
from .problems import excerpt
from .visible import to_json

_FULL = "Earlier output is kept: free some disk space, and run the same command again."
_FORBIDDEN = "Choose a path with write permission."
HINTS = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: "Earlier output is kept: raise the limit on the size of a file (ulimit -f), and run "
    "the same command again.",
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.EROFS: _FORBIDDEN,
    errno.ENOTDIR: "A part of this path is a file.",
    errno.EEXIST: "A file has this name.",
    errno.ENAMETOOLONG: "Give it a shorter name.",
}


@contextmanager
def reaching(path: Path | str, deed: str) -> Iterator[None]:
    """Whatever the system refuses in this block is a FileError that names `path` and what could not be done.

    Args:
        path: what the user knows the file by.
        deed: "read", "written" or "created".
    """
    try:
        yield
    except (ForethoughtError, BrokenPipeError):
        raise
    except OSError as error:
        raise refused(error, path, deed) from error
    except ValueError as error:  # a name with a NUL in it
        if "null byte" not in str(error):
            raise
        raise FileError(f"{path}: cannot be {deed}: {error}") from error


def refused(error: OSError, path: Path | str, deed: str) -> FileError:
    """`PATH: cannot be DEED: REASON`, with what remains and what to do."""
    hint = HINTS.get(error.errno or 0, "")
    if error.errno == errno.ENOENT and deed == "written":
        hint = "Make its folder first."
    found = FileError(f"{path}: cannot be {deed}: {error.strerror or error}{'. ' * bool(hint)}{hint}")
    found.errno = error.errno
    return found


def open_bytes(path: Path, mode: str, deed: str) -> BinaryIO:
    """Opens a file for bytes, unbuffered where it is written: what a full disk refuses is refused at once."""
    with reaching(path, deed):
        file = open(path, mode, buffering=-1 if mode == "rb" else 0)  # noqa: SIM115  (the caller closes it)
        return cast("BinaryIO", file)


def make_folder(path: Path) -> Path:
    """Makes the folder and those above it, where they are not there."""
    with reaching(path, "created"):
        path.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Yields a file that takes the place of `path` at the end: a reader or a kill sees the old one or the new, whole.

    Where it cannot be written, the old one stays and nothing else is left. What is no file (`/dev/stdout`, a pipe) is
    written as it is.
    """
    with reaching(path, "written"):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if path.exists() and not path.is_file():
            with open(path, "wb") as file:
                yield file
            return
        target = path.resolve() if path.is_symlink() else path
        temporary = target.with_name(f".{target.name[:40]}.{os.getpid()}.tmp")
        try:
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if target.exists():
                temporary.chmod(stat.S_IMODE(target.stat().st_mode))
            temporary.replace(target)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Replaces `path` by `content`; see `replacing`."""
    with replacing(path) as file:
        file.write(content)


def write_json(path: Path, value: object) -> None:
    """Writes `value` as indented JSON, atomically."""
    write_atomically(path, f"{to_json(value, indent=2)}\n".encode())


def read_json(path: Path) -> Any:
    """Reads a JSON file of a run; raises RunError when it is missing or broken."""
    with reaching(path, "read"):
        try:
            return parse_json(path.read_bytes())
        except FileNotFoundError as error:
            raise RunError(f"{path} does not exist") from error
        except ValueError as error:
            raise RunError(f"{path} is not readable JSON: {error}") from error


def parse_json(content: bytes | str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is none, or holds NaN, a key twice in one object, or a nesting that is too deep.
    """
    try:
        return json.loads(content, parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=one_of_each)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def parse_toml(content: bytes) -> dict[str, Any]:
    """The tables of a TOML file, with a byte-order mark or without; raises ValueError where it is none."""
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


class RepeatedKeyError(ValueError):
    """A key that occurs twice in one object."""


def one_of_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON by its keys and values; raises RepeatedKeyError, because nobody knows which value was meant."""
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise RepeatedKeyError(f"the key {excerpt(name)} occurs twice in one object; leave one of them")
            seen.add(name)
    return found


def _finite(text: str) -> float:
    if not math.isfinite(found := float(text)):
        raise ValueError(f"{text[:20]} is out of range")
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number of JSON")
