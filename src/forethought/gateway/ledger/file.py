"""The SQLite file of a ledger: who may open it, its tables, and what is read from and written to them."""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

from ...core.files import open_bytes
from ...errors import FileError, LedgerError
from . import State
from .book import Book

APPLICATION = 0x46544C47  # "FTLG", in the header of the file
VERSION = 1  # of the tables

TABLES = """
CREATE TABLE claims (id TEXT PRIMARY KEY, accounts TEXT NOT NULL, admitted REAL NOT NULL, reserved INTEGER NOT NULL,
                     bound INTEGER NOT NULL, expires REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE counts (account TEXT NOT NULL, window TEXT NOT NULL, start INTEGER NOT NULL, settled INTEGER NOT NULL,
                     PRIMARY KEY (account, window, start)) WITHOUT ROWID;
CREATE TABLE states (name TEXT PRIMARY KEY, value TEXT NOT NULL, version INTEGER NOT NULL) WITHOUT ROWID;
"""


OPENED = "INSERT INTO claims VALUES (?, ?, ?, ?, ?, ?)"
CLOSED = "DELETE FROM claims WHERE id = ?"
COUNTED = "INSERT INTO counts VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET settled = excluded.settled"
STATES = """INSERT INTO states VALUES (?, ?, ?)
            ON CONFLICT DO UPDATE SET value = excluded.value, version = excluded.version"""
PRUNED = "DELETE FROM counts WHERE window = ? AND start < ?"

Statement = tuple[str, Sequence[tuple[Any, ...]]]  # SQL, and the rows of its parameters

# The log is written over from its beginning after each checkpoint. Where it does not grow, this leaves out the file's
# times, and takes less than half as long. macOS has none in Python.
_sync = os.fdatasync if hasattr(os, "fdatasync") else os.fsync


class LedgerFile:
    """An open file; one thread may commit while another syncs, but none while another shortens the log.

    Args:
        path: made where there is none.

    Raises:
        LedgerError: it is in use, is no ledger, is damaged, or cannot be opened.

    Attributes:
        book: claims and counts that were in it.
        states: shared values that were in it.
    """

    def __init__(self, path: Path) -> None:
        self._lock = _hold(path)
        try:
            self._database = _opened(path)
        except BaseException:
            self._lock.close()
            raise
        try:
            self.book, self.states = _loaded(path, self._database)
            self._log = os.open(f"{path}-wal", os.O_RDONLY)
        except BaseException:
            self._database.close()
            self._lock.close()
            raise

    def commit(self, statements: Sequence[Statement]) -> None:
        """Runs SQL for all rows of each statement as one transaction; raises sqlite3.Error where that fails."""
        self._database.execute("BEGIN IMMEDIATE")
        try:
            for sql, rows in statements:
                self._database.executemany(sql, rows)
            self._database.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")
            raise

    def sync(self) -> None:
        """Has the system write to disk what was committed; raises OSError where it cannot."""
        _sync(self._log)

    def checkpoint(self) -> None:
        """Moves what the log holds to the file, so that the log begins anew; raises sqlite3.Error where it cannot."""
        self._database.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def close(self) -> None:
        """Lets go of the file."""
        os.close(self._log)
        self._database.close()
        self._lock.close()


def check_file(path: Path) -> None:
    """Makes sure that a file is a ledger, or that one can be made there, without a lock; raises LedgerError."""
    if not path.exists():
        if not path.parent.is_dir():
            raise LedgerError(f"{path}: there is no folder {path.parent}")
        return
    try:
        database = sqlite3.connect(f"file:{quote(str(path))}?mode=ro&immutable=1", uri=True)
    except sqlite3.Error as error:
        raise LedgerError(f"{path}: the ledger cannot be opened: {error}") from error
    try:
        _is_new(path, database)
    except sqlite3.DatabaseError as error:
        raise LedgerError(_damaged(path, str(error))) from error
    finally:
        database.close()


def _hold(path: Path) -> BinaryIO:
    try:
        file = open_bytes(path.with_name(f"{path.name}.lock"), "ab", "written")
    except FileError as error:
        raise LedgerError(str(error)) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise LedgerError(
            f"{path} is in use by another gateway: a ledger in a file is for one. Stop that one, name another file, or "
            "let both keep theirs in Redis: --ledger redis://localhost:6379/0"
        ) from None
    return file


def _opened(path: Path) -> sqlite3.Connection:
    try:
        database = sqlite3.connect(path, timeout=1.0, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise LedgerError(f"{path}: the ledger cannot be opened: {error}") from error
    try:
        _prepare(path, database)
    except BaseException as error:
        database.close()
        if isinstance(error, sqlite3.OperationalError):
            raise LedgerError(f"{path}: the ledger cannot be opened: {error}") from error
        if isinstance(error, sqlite3.DatabaseError):
            raise LedgerError(_damaged(path, str(error))) from error
        raise
    return database


def _is_new(path: Path, database: sqlite3.Connection) -> bool:
    """Whether a database is empty; raises LedgerError where it is another program's, or of another version."""
    names = ("application_id", "user_version")
    application, version = (database.execute(f"PRAGMA {name}").fetchone()[0] for name in names)
    (num_tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    is_new = bool(application == 0 and num_tables == 0)
    if not is_new and application != APPLICATION:
        raise LedgerError(f"{path} is a database of another program, not a ledger; name another file")
    if not is_new and version != VERSION:
        raise LedgerError(
            f"{path} is a ledger of format {version}, and this version of Forethought reads format {VERSION}; name "
            "another file, or use the version that wrote it"
        )
    return is_new


def _prepare(path: Path, database: sqlite3.Connection) -> None:
    is_new = _is_new(path, database)
    (mode,) = database.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise LedgerError(f"{path}: a ledger cannot lie here (no write-ahead log, but {mode}); name a local folder")
    database.execute("PRAGMA synchronous = NORMAL")
    database.execute("PRAGMA wal_autocheckpoint = 0")  # it would happen within a commit, which must not wait for disks
    if not is_new:
        (verdict,) = database.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise LedgerError(_damaged(path, verdict))
    marks = f"PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION};"  # written: so there is a log
    database.executescript(f"BEGIN IMMEDIATE; {TABLES if is_new else ''} {marks} COMMIT;")
    database.execute("PRAGMA busy_timeout = 0")  # nor for another program that writes to the file
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _loaded(path: Path, database: sqlite3.Connection) -> tuple[Book, dict[str, State]]:
    book = Book()
    try:
        for account, window, start, settled in database.execute("SELECT account, window, start, settled FROM counts"):
            book.load((str(account), str(window), int(start)), _count(settled))
        for row in database.execute("SELECT id, accounts, admitted, reserved, bound, expires FROM claims"):
            claim_id, accounts, admitted, reserved, bound, expires = row
            names = tuple(str(name) for name in json.loads(accounts))
            book.restore(str(claim_id), names, float(admitted), _count(reserved), _count(bound), float(expires))
        states = {
            str(name): State(dict(json.loads(value)), _count(version))
            for name, value, version in database.execute("SELECT name, value, version FROM states")
        }
    except (sqlite3.DatabaseError, ValueError, TypeError, OverflowError, OSError) as error:
        raise LedgerError(_damaged(path, str(error))) from error
    return book, states


def _count(value: Any) -> int:
    """A number of tokens, or of changes; raises ValueError where it could make room in a quota."""
    if (number := int(value)) < 0:
        raise ValueError(f"a count of {number:,}")
    return number


def _damaged(path: Path, what: str) -> str:
    return (
        f"{path} is no ledger, or is damaged ({what}). Nothing can be counted on from it: put back a copy, or move the "
        "file away to begin a new ledger, in which every quota is whole again"
    )
