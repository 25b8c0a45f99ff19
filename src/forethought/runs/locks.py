"""Locks of a run: one writer, or any number of workers with a shard each. A kill releases every lock."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ..core.files import open_bytes, reaching
from ..core.worker import Worker
from ..errors import RunError

WHOLE = ".lock"  # held alone, or shared by workers; says how many workers divide the questions
TURN = ".turn"  # held for a moment: while somebody begins, or writes what is made from all shards


@contextmanager
def writing(folder: Path, worker: Worker) -> Iterator[None]:
    """Holds the run for writing, alone or as one of its workers.

    Raises:
        RunError: another process holds it, that worker runs already, or workers divide the questions otherwise.
    """
    with (
        open_bytes(folder / WHOLE, "ab+", "written") as whole,
        open_bytes(_shard(folder, worker), "ab+", "written") as own,
    ):
        with turn(folder):
            if _take(whole, fcntl.LOCK_EX):
                _note(whole, worker)
                _clean(folder)
            elif worker.is_alone or not _take(whole, fcntl.LOCK_SH):
                raise RunError(f"{folder} is being written by another process; wait for it, or give another --out")
            elif (count := _noted(whole)) != worker.count:
                raise RunError(
                    f"{folder} is being written by workers of {count}, and --worker {worker} divides the "
                    f"questions differently; give --worker K/{count}, or wait for them"
                )
            if not worker.is_alone:
                fcntl.flock(whole, fcntl.LOCK_SH)
                if not _take(own, fcntl.LOCK_EX):
                    raise RunError(f"{folder}: worker {worker} is already running; each worker needs its own number")
        yield


@contextmanager
def turn(folder: Path) -> Iterator[None]:
    """Waits for an exclusive turn, in which no other process starts or writes files made from all shards."""
    with open_bytes(folder / TURN, "ab+", "written") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def is_lock(name: str) -> bool:
    """Whether a file of this name is one of the locks."""
    return name == TURN or name.startswith(WHOLE)


def _shard(folder: Path, worker: Worker) -> Path:
    return folder / (WHOLE if worker.is_alone else f"{WHOLE}-{worker.number}")


def _take(file: BinaryIO, how: int) -> bool:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _note(file: BinaryIO, worker: Worker) -> None:
    with reaching(WHOLE, "written"):
        file.truncate(0)
        file.write(f"{worker.count}\n".encode())


def _noted(file: BinaryIO) -> int:
    file.seek(0)
    text = file.read(20).strip()
    return int(text) if text.isdigit() else 0


def _clean(folder: Path) -> None:
    """Removes half files that a kill left; nobody else is writing."""
    for half in (*folder.glob(".*.tmp"), *folder.glob("hidden/.*.tmp")):
        with suppress(OSError):
            half.unlink()
