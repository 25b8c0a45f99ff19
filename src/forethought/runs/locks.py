"""Locks of a run: one writer, or any number of workers with a shard each. A kill releases every lock."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ..core.files import open_bytes, reaching
from ..core.worker import Worker
from ..errors import RunError

WHOLE = ".lock"  # held alone, or shared by workers; says how they divide the questions (`Worker.division`)
TURN = ".turn"  # held for a moment: while somebody begins, or writes what is made from all shards
PATIENCE = 60.0  # seconds that a lead waits for the workers of an earlier one to end
STEP = 0.1


@contextmanager
def writing(folder: Path, worker: Worker) -> Iterator[None]:
    """Holds the run for writing, alone or as one of its workers.

    The lead of a crew waits until no worker of an earlier crew is left: what they were given is then on disk or undone.
    A worker of a crew writes only while its lead holds the run, so none that outlives its lead begins anew.

    Raises:
        RunError: another process holds it, that worker runs already, or workers divide the questions otherwise.
    """
    is_lead, deadline = bool(worker.crew) and worker.is_alone, time.monotonic() + PATIENCE
    with (
        open_bytes(folder / WHOLE, "ab+", "written") as whole,
        open_bytes(_shard(folder, worker), "ab+", "written") as own,
    ):
        while not _enter(folder, worker, whole, own, is_last=not is_lead or time.monotonic() > deadline):
            time.sleep(STEP)
        yield


def check_free(folder: Path, worker: Worker) -> None:
    """Refuses what `writing` would refuse now, and holds nothing afterwards; makes nothing where no run is yet."""
    if (folder / WHOLE).is_file():
        with writing(folder, worker):
            pass


def _enter(folder: Path, worker: Worker, whole: BinaryIO, own: BinaryIO, *, is_last: bool) -> bool:
    """Takes the locks, or refuses; where this is not the last attempt, False while others hold the run."""
    is_member = bool(worker.crew) and not worker.is_alone
    is_shared = bool(worker.crew) or not worker.is_alone
    with turn(folder):
        if not is_member and _take(whole, fcntl.LOCK_EX):
            _note(folder / WHOLE, whole, worker)
            _clean(folder)
        elif not is_last:
            return False
        elif worker.is_alone or not _take(whole, fcntl.LOCK_SH):
            raise RunError(f"{folder} is being written by another process; wait for it, or give another --out")
        elif (found := _noted(whole)) != worker.division:
            raise RunError(_other_division(folder, worker, found))
        if is_shared:
            fcntl.flock(whole, fcntl.LOCK_SH)
            if not _take(own, fcntl.LOCK_EX):
                raise RunError(f"{folder}: worker {worker} is already running; each worker needs its own number")
    return True


def _other_division(folder: Path, worker: Worker, found: str) -> str:
    if worker.crew:
        return (
            f"{folder} is not held by the process that started this worker: either that has ended, or the folder is "
            "not on storage that all machines share"
        )
    if not found.isdigit():
        return f"{folder} is being written by workers on Ray; wait for them, or give another --out"
    return (
        f"{folder} is being written by workers of {found}, and --worker {worker} divides the questions differently; "
        f"give --worker K/{found}, or wait for them"
    )


def is_free(folder: Path, worker: Worker) -> bool:
    """Whether a worker has let go of its shard: it has ended, or was killed, and will write no more."""
    with open_bytes(_shard(folder, worker), "ab+", "written") as own:
        return _take(own, fcntl.LOCK_EX)


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
    is_whole = worker.is_alone and not worker.crew
    return folder / (WHOLE if is_whole else f"{WHOLE}-{worker.number}")


def _take(file: BinaryIO, how: int) -> bool:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _note(path: Path, file: BinaryIO, worker: Worker) -> None:
    with reaching(path, "written"):
        file.truncate(0)
        file.write(f"{worker.division}\n".encode())


def _noted(file: BinaryIO) -> str:
    file.seek(0)
    return file.read(40).strip().decode("ascii", "replace")


def _clean(folder: Path) -> None:
    """Removes half files that a kill left; nobody else is writing."""
    for half in (*folder.glob(".*.tmp"), *folder.glob("hidden/.*.tmp")):
        with suppress(OSError):
            half.unlink()
