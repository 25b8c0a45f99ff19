"""A ledger in one SQLite file, for one gateway.

Claims and counts are decided on in memory and written by the event loop itself, once for all that comes in one of its
turns (group commit). A commit goes to the write-ahead log without a sync, which takes about 0.1 ms, and another thread
would take longer to be woken: a kill of the process loses nothing that was returned. `durable` waits for an fsync of
the log, which a thread runs meanwhile: a loss of power loses no claim whose reply has begun. A settlement that was not
synced is lost with the power; its claim is then still open in the file, and settles to its reservation.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import LedgerError
from ..host import logger
from ..windows import KEPT
from . import Claim, Count, Full, State
from .book import Cell
from .file import CLOSED, COUNTED, OPENED, PRUNED, STATES, LedgerFile, Statement
from .thread import Beside

REMEMBERED = 4096  # settled claims whose count is still known
PRUNE_SECONDS = 3_600.0
RETRY_SECONDS = 1.0
SETTLE_SECONDS = 0.005  # for which a settlement waits for others
SYNC_SECONDS = 0.005  # after a commit, in which its requests go out: the work of a sync would come before them
CHECKPOINT_COMMITS = 2000  # that the log holds, about 30 MB of few distinct pages: one checkpoint is short


@dataclass(slots=True)
class _Batch:
    """What goes to the file in one commit."""

    number: int
    opened: list[tuple[Any, ...]] = field(default_factory=list)
    closed: list[tuple[str]] = field(default_factory=list)
    states: dict[str, State] = field(default_factory=dict)
    pruned: list[tuple[str, float]] = field(default_factory=list)
    cells: list[tuple[Cell, int]] = field(default_factory=list)
    done: asyncio.Event = field(default_factory=asyncio.Event)
    error: str = ""
    is_wanted: bool = False

    def statements(self) -> list[Statement]:
        """What to run."""
        found: list[Statement] = [
            (OPENED, self.opened),
            (CLOSED, self.closed),
            (COUNTED, [(*cell, settled) for cell, settled in self.cells]),
            (STATES, [(name, json.dumps(each.value), each.version) for name, each in self.states.items()]),
            (PRUNED, self.pruned),
        ]
        return [(sql, rows) for sql, rows in found if rows]


class SqliteLedger:
    """A ledger in the file `path`, made where there is none.

    Args:
        path: of the file; `path.lock`, `path-wal` and `path-shm` lie beside it.
        clock: seconds since the epoch. Where it is set forward leases run out early, and claims count as their
            reservations; where it is set back requests count in the windows that it says, whose counts are kept.

    Raises:
        LedgerError: another gateway has it open, or the file is no ledger, is damaged, or cannot be opened.
    """

    def __init__(self, path: Path | str, *, clock: Callable[[], float] = time.time) -> None:
        self.path = Path(path)
        self._clock = clock
        self._file = LedgerFile(self.path)
        self._book, self._states = self._file.book, self._file.states
        self._syncer = Beside("ledger-sync")
        self._batch = _Batch(1)
        self._is_due = self._is_checkpointing = self._is_closed = False
        self._next_checkpoint = CHECKPOINT_COMMITS
        self._num_committed = self._num_synced = 0  # batches, by their numbers
        self._num_opened = 0  # the last that holds a new claim
        self._sync: asyncio.Event | None = None
        self._late: asyncio.TimerHandle | None = None
        self._batch_of: dict[str, int] = {}
        self._settled: dict[str, int] = {}
        self._next_prune = 0.0
        self._broken = ""

    async def reserve(self, claim: Claim) -> Full | None:
        """Takes a claim; see `Ledger`."""
        self._check()
        now = self._clock()
        self._close_expired(now)
        if claim.id in self._book.open:
            raise ValueError(f"the claim {claim.id} is open already")
        if full := self._book.take(claim, now):
            return full
        held = self._book.open[claim.id]
        batch = self._due()
        accounts = json.dumps(held.accounts)
        batch.opened.append((claim.id, accounts, held.admitted, held.reserved, held.bound, held.expires))
        self._batch_of[claim.id] = batch.number
        await self._committed(batch)
        return None

    async def durable(self, claim_id: str) -> None:
        """Waits for an fsync that began after the claim was committed."""
        number = self._batch_of.get(claim_id, 0)
        while self._num_synced < number:
            self._check()
            self._begin_sync()
            assert self._sync is not None
            await self._sync.wait()
            if self._broken:
                raise LedgerError(self._broken)

    async def renew(self, claim_id: str, lease: float) -> bool:
        """Moves the end of the lease, in memory: no request outlives this process."""
        return self._book.renew(claim_id, self._clock() + lease)

    async def settle(self, claim_id: str, tokens: int) -> int | None:
        """Counts what a claim used; see `Ledger`."""
        if claim_id not in self._book.open:
            return self._settled.get(claim_id)
        self._check(even_broken=True)
        batch = self._close_claim(claim_id, tokens)
        await self._committed(batch)
        return tokens

    async def sweep(self) -> int:
        """Settles claims whose lease has run out, and drops counts of windows long past."""
        self._check(even_broken=True)
        now = self._clock()
        num_closed = self._close_expired(now)
        if now >= self._next_prune:
            self._next_prune = now + PRUNE_SECONDS
            self._book.prune(now)
            self._due().pruned = [(name, now - kept) for name, kept in KEPT.items()]
        if num_closed:
            await self._committed(self._due())
        return num_closed

    async def counts(self, accounts: Collection[str]) -> list[Count]:
        """Counts of these accounts in all present windows."""
        return self._book.counts(accounts, self._clock())

    async def num_open(self) -> int:
        """Claims that are neither settled nor swept."""
        return len(self._book.open)

    async def now(self) -> float:
        """By the clock of this machine."""
        return self._clock()

    async def state(self, name: str) -> State:
        """A kept value."""
        return self._states.get(name, State({}, 0))

    async def swap(self, name: str, value: Mapping[str, Any], version: int) -> bool:
        """Keeps `value` where the version is still the given one."""
        self._check()
        if self._states.get(name, State({}, 0)).version != version:
            return False
        batch = self._due()
        self._states[name] = batch.states[name] = State(dict(value), version + 1)
        await self._committed(batch)
        return True

    async def close(self) -> None:
        """Writes what waits and lets go of the file."""
        if self._is_closed:
            return
        with suppress(LedgerError):
            await self._committed(self._due())
        self._is_closed = True
        if self._sync is not None:
            await self._sync.wait()
        self._syncer.close()
        self._file.close()

    def _check(self, *, even_broken: bool = False) -> None:
        if self._is_closed:
            raise LedgerError(f"{self.path}: the ledger is closed")
        if self._broken and not even_broken:
            raise LedgerError(self._broken)

    def _close_expired(self, now: float) -> int:
        expired = list(self._book.expired(now))
        for claim_id, reserved in expired:
            self._close_claim(claim_id, reserved)
        return len(expired)

    def _close_claim(self, claim_id: str, tokens: int) -> _Batch:
        self._book.settle(claim_id, tokens)
        self._batch_of.pop(claim_id, None)
        self._settled[claim_id] = tokens
        if len(self._settled) > REMEMBERED:
            del self._settled[next(iter(self._settled))]
        batch = self._due(SETTLE_SECONDS)  # nobody waits for it, and the next reservation takes it along
        batch.closed.append((claim_id,))
        return batch

    def _due(self, seconds: float = 0.0) -> _Batch:
        """The batch that is written next: after this turn of the loop, or `seconds` later."""
        self._batch.is_wanted = True
        if self._is_due or self._is_checkpointing:
            return self._batch
        loop = asyncio.get_running_loop()
        if seconds == 0.0:
            self._is_due = True
            loop.call_soon(self._write)
        elif self._late is None:
            self._late = loop.call_later(seconds, self._write)
        return self._batch

    async def _committed(self, batch: _Batch) -> None:
        await batch.done.wait()
        if batch.error:
            raise LedgerError(batch.error)

    def _write(self) -> None:
        self._is_due = False
        if self._late is not None:
            self._late.cancel()
            self._late = None
        if self._is_checkpointing or self._is_closed:
            return
        batch, self._batch = self._batch, _Batch(self._batch.number + 1)
        batch.cells = self._book.take_touched()
        try:
            self._file.commit(batch.statements())
        except Exception as error:  # whatever it is: nobody may wait for ever
            self._keep(batch, error)
        else:
            self._num_committed = batch.number
            if batch.opened:  # the sync runs while the requests are answered
                self._num_opened = batch.number
                asyncio.get_running_loop().call_later(SYNC_SECONDS, self._begin_sync)
            if batch.number >= self._next_checkpoint:
                self._begin_checkpoint()
        batch.done.set()

    def _keep(self, failed: _Batch, error: Exception) -> None:
        """Takes claims back that could not be written, and tries the rest again with the next batch."""
        failed.error = f"{self.path}: the ledger cannot be written: {error}"
        for claim_id, *_ in failed.opened:
            self._book.forget(claim_id)
            self._batch_of.pop(claim_id, None)
        self._book.touched.update(cell for cell, _ in failed.cells)
        self._batch.closed[:0] = failed.closed
        self._batch.states = {**failed.states, **self._batch.states}
        asyncio.get_running_loop().call_later(RETRY_SECONDS, self._try_again)

    def _begin_checkpoint(self) -> None:
        """Has the thread shorten the log, after the sync that is due; what comes meanwhile waits for the end of it."""
        self._is_checkpointing = True
        self._next_checkpoint = self._num_committed + CHECKPOINT_COMMITS

        def done(error: BaseException | None) -> None:
            self._is_checkpointing = False
            if error is not None:  # nothing is lost: all of it is in the log
                logger.warning("%s: the ledger's log could not be shortened: %s", self.path, error)
            if self._batch.is_wanted:
                self._due()

        self._syncer.run(self._file.checkpoint, done)

    def _try_again(self) -> None:
        if not self._is_closed:
            self._due()

    def _begin_sync(self) -> None:
        """Syncs the log, with all that is committed by now, and again while there are claims that no sync has seen."""
        if self._num_synced >= self._num_opened or self._sync is not None or self._broken or self._is_closed:
            return
        number, done = self._num_committed, asyncio.Event()

        def synced(error: BaseException | None) -> None:
            self._sync = None
            if error is None:
                self._num_synced = number
                self._begin_sync()
            else:  # what the system did not write once, a second fsync does not report again
                self._broken = f"{self.path}: the ledger cannot be synced to disk, start the gateway again: {error}"
            done.set()

        self._sync = done
        self._syncer.run(self._file.sync, synced)
