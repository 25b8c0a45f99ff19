"""Keeps a JSON line for each request and each outcome: noted on the event loop, written by a thread of its own."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import re
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..core.codec import fields_to_json
from ..core.files import reaching
from ..errors import FileError
from ..runs.journal import OUTCOMES, REQUESTS, Entry, Feedback, JournalHeader
from ..runs.lines import Appender, appending
from .chance import random_bytes
from .host import logger

MAX_BYTES = 64_000_000  # of a file; then the next one begins
MAX_HELD = 100_000  # lines that wait for a disk that does not take them; later ones are lost, and counted
MAX_HELD_TEXTS = 5_000  # the same where questions are kept
MAX_TEXT = 65_536  # letters of a question that is kept; of a longer one there is the hash alone
PAUSE = 0.1  # seconds in which lines are gathered before they are written
LONGEST_PAUSE = 5.0  # between two tries of a disk that takes nothing
KEY_FILE = "id.key"
DATED = re.compile(r"(?:requests|outcomes)-(\d{8})-.+\.jsonl")


class Ids:
    """Ids of requests that cannot be guessed, and that are known again without a list of them.

    An id is 10 random bytes and the first 6 bytes of their keyed BLAKE2b, as 32 hex digits.

    Args:
        key: of all processes that shall know each other's ids; None: of this one alone.
    """

    def __init__(self, key: bytes | None = None) -> None:
        self._key = key or secrets.token_bytes(32)

    @classmethod
    def of(cls, folder: Path) -> Ids:
        """With the key that lies in a folder; made where there is none, for its owner's eyes."""
        file = folder / KEY_FILE
        with reaching(file, "written"):
            try:
                made = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            except FileExistsError:
                pass
            else:
                with os.fdopen(made, "wb") as opened:
                    opened.write(secrets.token_bytes(32))
            for _ in range(50):  # another process may be about to write it
                if len(key := file.read_bytes()) == 32:
                    return cls(key)
                time.sleep(0.02)
        raise FileError(f"{file}: holds no key; remove it: ids that were given out are not known any more then")

    def new(self) -> str:
        """One more id."""
        random = random_bytes(10)
        return (random + self._tag(random)).hex()

    def knows(self, name: str) -> bool:
        """Whether it was given out here, or by a process with the same key."""
        try:
            content = bytes.fromhex(name) if len(name) == 32 else b""
        except ValueError:
            return False
        return content.hex() == name and hmac.compare_digest(self._tag(content[:10]), content[10:])

    def _tag(self, random: bytes) -> bytes:
        return hashlib.blake2b(random, key=self._key, digest_size=6).digest()


def _day(seconds: float) -> str:
    return time.strftime("%Y%m%d", time.gmtime(seconds))


class _Shard:
    """The files of one kind that one process writes, one after another: by day, and by size.

    Args:
        folder: of the journal.
        stem: what their names begin with.
        writer: tells this process's files from those of others.
        clock: seconds since 1970.
    """

    def __init__(self, folder: Path, stem: str, writer: str, clock: Callable[[], float]) -> None:
        self._folder, self._stem, self._writer, self._clock = folder, stem, writer, clock
        self._day, self._number = "", 0
        self._appender: Appender | None = None
        self._path = folder
        self._open = ExitStack()

    def append(self, lines: Sequence[dict[str, Any]]) -> None:
        """Writes lines and waits until the disk has them; where it cannot have all of them, it has none."""
        if not lines:
            return
        day = _day(self._clock())
        if self._appender is None or day != self._day or self._path.stat().st_size >= MAX_BYTES:
            self.close()
            self._number = self._number + 1 if day == self._day else 1
            self._day = day
            self._path = self._folder / f"{self._stem}-{day}-{self._writer}-{self._number:04}.jsonl"
            self._appender = self._open.enter_context(appending(self._path))
        self._appender.append(lines)

    def close(self) -> None:
        """Closes the file that is open."""
        self._open.close()
        self._appender = None


class Journal:
    """A folder to which requests and outcomes are appended in batches; see `runs.journal` for what reads it.

    Args:
        folder: made where it is not there.
        header: what is known of options and upstream.
        keep_texts: keep the questions; else a hash of each alone.
        keep_days: files are deleted when they are older than this; None to keep all.
        clock: seconds since 1970.

    Attributes:
        num_lost: requests that could not be kept because the disk took none.

    Raises:
        RunError: the folder holds another journal, or something else.
        FileError: the system does not let it be written.
    """

    def __init__(
        self,
        folder: Path,
        header: JournalHeader,
        *,
        keep_texts: bool = False,
        keep_days: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        header.keep(folder)
        self.folder, self.keep_texts, self.num_lost = folder, keep_texts, 0
        self.ids = Ids.of(folder)
        self._clock, self._keep_days, self._swept = clock, keep_days, ""
        self._entries: deque[Entry] = deque()
        self._outcomes: deque[tuple[list[Feedback], Future[None]]] = deque()
        self._is_told, self._is_closing = threading.Event(), threading.Event()
        writer = f"{os.getpid()}{secrets.token_hex(3)}"
        self._shards = tuple(_Shard(folder, stem, writer, clock) for stem in ("requests", "outcomes"))
        self._num_failures = 0
        self._thread = threading.Thread(target=self._write_on, name="forethought-journal", daemon=True)
        self._thread.start()

    def note(self, entry: Entry) -> None:
        """One request that has ended; does not wait for the disk."""
        if len(self._entries) >= (MAX_HELD_TEXTS if self.keep_texts else MAX_HELD):
            self.num_lost += 1
            return
        if entry.text is not None and not (self.keep_texts and len(entry.text) <= MAX_TEXT):
            entry = replace(entry, text=None)
        self._entries.append(entry)
        if not self._is_told.is_set():
            self._is_told.set()

    async def feed(self, outcomes: Sequence[tuple[str, bool]]) -> None:
        """Whether requests were answered right, by id; returns when the disk has it.

        Raises:
            FileError: the disk does not take it.
        """
        now, done = self._clock(), Future[None]()
        self._outcomes.append(([Feedback(name, right, now) for name, right in outcomes], done))
        self._is_told.set()
        await asyncio.wrap_future(done)

    async def flush(self) -> None:
        """Returns when the disk has all that was noted."""
        await self.feed(())

    def close(self) -> None:
        """Writes what waits, and ends the thread; nothing may be noted after it."""
        self._is_closing.set()
        self._is_told.set()
        self._thread.join()
        self._write()  # what came while the thread wrote for the last time
        for shard in self._shards:
            shard.close()

    def _write_on(self) -> None:
        while not self._is_closing.is_set():
            self._is_told.wait()
            if not self._outcomes:  # somebody waits for those
                self._is_closing.wait(min(PAUSE * 2**self._num_failures, LONGEST_PAUSE))
            self._is_told.clear()
            self._sweep()
            self._write()

    def _sweep(self) -> None:
        """Deletes what is too old, once a day; nobody writes to a file of an earlier day."""
        day = _day(self._clock())
        if self._keep_days is None or day == self._swept:
            return
        self._swept, oldest = day, _day(self._clock() - 86_400 * self._keep_days)
        for file in (*self.folder.glob(REQUESTS), *self.folder.glob(OUTCOMES)):
            if (named := DATED.fullmatch(file.name)) and named[1] < oldest:
                try:
                    file.unlink(missing_ok=True)
                except OSError as error:
                    logger.warning("an old file of the journal cannot be deleted: %s", error)

    def _write(self) -> None:
        entries = [self._entries.popleft() for _ in range(len(self._entries))]
        told = [self._outcomes.popleft() for _ in range(len(self._outcomes))]
        requests, outcomes = self._shards
        failure: Exception | None = None
        try:
            requests.append([entry.to_json() for entry in entries])
            entries = []
            outcomes.append([fields_to_json(each) for feedback, _ in told for each in feedback])
            self._num_failures = 0
        except OSError as error:  # requests wait for the next time; outcomes are refused, so that they are told again
            failure = error
            self._failed(entries, error)
        except Exception as error:  # a thread that ended would lose all that comes
            failure = error
            self.num_lost += len(entries)
            logger.exception("the journal lost %d requests", len(entries))
        for _, done in told:
            if not done.set_running_or_notify_cancel():  # who told it went away; it is kept all the same
                continue
            if failure is None:
                done.set_result(None)
            else:
                done.set_exception(failure)

    def _failed(self, entries: Sequence[Entry], error: OSError) -> None:
        self._num_failures += 1
        if self._num_failures & (self._num_failures - 1) == 0:  # the 1st, 2nd, 4th, 8th, …
            logger.error("the journal cannot be written, %d requests wait: %s", len(entries), error)
        for shard in self._shards:
            shard.close()
        self._entries.extendleft(reversed(entries))
        if self._is_closing.is_set():
            self.num_lost += len(entries)
        elif entries:
            self._is_told.set()
