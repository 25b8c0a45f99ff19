"""The engines of a cluster's workers as one engine: streams go through all of them, and lost workers are replaced."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .._version import __version__
from ..control.counts import added
from ..control.keeping import Keeping
from ..core.data import EngineInfo, FloatArray, Generation, Query, Request
from ..core.options import Option
from ..core.provenance import Provenance
from ..core.records import Record
from ..core.showing import Progress, silent
from ..engines.flight import failed
from ..errors import EngineError, ForethoughtError
from ..runs import locks
from ..runs.lines import read_lines
from .hosts import Host, Remote, WorkerLostError
from .rows import Hands, Rows, key_of
from .worker import News, Opened, Task

FRUITLESS = 4  # times in a row that a worker may die, or fail to start, without finishing anything
FENCE = 90.0  # seconds until a lost worker has surely let go of its shard: locks on shared storage outlive a machine
HELD = "it still holds its shard, and may be writing"
SAID_AFTER = 30.0  # seconds of waiting for a first worker until it is said what is waited for
PER_CHUNK = 128  # queries whose hidden states a worker keeps at once

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Slot:
    """The place of one worker, and who has it at present.

    Attributes:
        number: of the worker in the crew, from 1.
        remote: the worker; None while there is none.
        opening: its answer to `open`.
        opened: what it said of itself.
        joined: what it keeps by.
        hands: the requests that it holds.
        position: bytes of its shard that hold what it has told of.
        counted, earlier: what its engine has counted, and those of the workers before it.
        num_fruitless: deaths in a row without anything finished.
        given_up: why nobody is to have this place any more; "" while somebody is.
    """

    number: int
    remote: Remote | None = None
    opening: Future[Opened] | None = None
    opened: Opened | None = None
    joined: Keeping | None = None
    hands: Hands = field(default_factory=Hands)
    position: int = 0
    counted: Mapping[str, Any] = field(default_factory=dict)
    earlier: Mapping[str, Any] = field(default_factory=dict)
    num_fruitless: int = 0
    given_up: str = ""

    @property
    def name(self) -> str:
        """Who it is, in words."""
        place = f" ({self.opened.place})" if self.opened else ""
        return f"worker {self.number}{place}"


class ClusterEngine:
    """An `Engine` made of the engines of workers; it opens as soon as the first of them runs, and others join later.

    A worker that dies is replaced, and what it had under way is given to another. After `FRUITLESS` deaths in a row
    without a result, or where its engine cannot be opened as it was asked for, its place stays empty. Without any
    worker left the remaining requests fail, each with the reason.

    Args:
        host: begins workers.
        task: what they open.
        num_workers: how many.
        progress: called while the first is waited for.

    Raises:
        EngineError: no worker's engine can be opened: the reason of each.
    """

    def __init__(self, host: Host, task: Task, num_workers: int, *, progress: Progress = silent) -> None:
        self._host, self._task = host, task
        self._keeping: Keeping | None = None
        self._slots = [Slot(number) for number in range(1, num_workers + 1)]
        for slot in self._slots:
            self._begin(slot)
        first = self._first(progress)
        assert first.opened is not None
        self.info: EngineInfo = first.opened.info
        self.answer_room = first.opened.answer_room
        self.__class__ = _StateClusterEngine if first.opened.has_states else ClusterEngine

    # --- as an engine ------------------------------------------------------------------------------------------------

    async def generate(self, requests: Iterable[Request]) -> AsyncIterator[Generation]:
        """See `Engine.generate`; after `keep` see `KeepingEngine`."""
        stream = _Stream(Rows(requests, len(self._live)))
        tasks = [asyncio.create_task(self._serve(slot, stream)) for slot in self._live]
        for task in tasks:
            task.add_done_callback(lambda _: stream.tell())
        try:
            while True:
                changed, is_last = stream.changed, all(task.done() for task in tasks)
                while stream.found:
                    yield stream.found.popleft()
                if is_last:
                    break
                await changed.wait()
            await asyncio.gather(*tasks)
            reasons = "; ".join(f"{slot.name}: {slot.given_up}" for slot in self._slots if slot.given_up)
            for request in stream.rows.rest():
                yield failed(request, f"no worker is left to run it ({reasons})")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._drop_abandoned()

    def check_option(self, option: Option) -> None:
        """See `OptionEngine.check_option`."""
        self._ask("check_option", option)

    def counted(self) -> dict[str, Any]:
        """See `CountingEngine.counted`: of all workers, those that died too; empty where they do not count."""
        total: dict[str, Any] = {}
        for slot in self._slots:
            total = added(added(total, slot.earlier), slot.counted)
        return total

    def close(self) -> None:
        """See `Engine.close`: every worker lets go of its shard before this returns."""
        remotes = [slot.remote for slot in self._slots if slot.remote is not None]
        closing = [remote.call("close") for remote in remotes]
        wait(closing, timeout=10)
        for remote in remotes:
            remote.end()
        for slot in self._slots:
            slot.remote = None
        self._host.close()

    # --- as a keeping engine -----------------------------------------------------------------------------------------

    def keep(self, keeping: Keeping) -> None:
        """See `KeepingEngine.keep`."""
        self._keeping = keeping

    def keep_states(self, queries: Sequence[Query], layers: Sequence[int]) -> Iterator[int]:
        """See `KeepingEngine.keep_states`; a chunk of a lost worker is read by another."""
        chunks = deque(queries[start : start + PER_CHUNK] for start in range(0, len(queries), PER_CHUNK))
        running: dict[Future[int], tuple[Slot, Sequence[Query]]] = {}
        while chunks or running:
            busy = {slot.number for slot, _ in running.values()}
            for slot in self._ready_slots():
                if chunks and slot.number not in busy:
                    assert slot.remote is not None
                    chunk = chunks.popleft()
                    running[slot.remote.call("keep_states", chunk, layers)] = (slot, chunk)
            for done in wait(running, timeout=1.0, return_when=FIRST_COMPLETED).done:
                slot, chunk = running.pop(done)
                try:
                    yield done.result()
                except WorkerLostError as error:
                    chunks.append(chunk)
                    if self._fence(slot):
                        self._bury(slot, str(error))
                    else:
                        self._give_up(slot, f"{error}; {HELD}")
            self._check_any()

    # --- workers -----------------------------------------------------------------------------------------------------

    @property
    def _live(self) -> list[Slot]:
        return [slot for slot in self._slots if not slot.given_up]

    def _begin(self, slot: Slot) -> None:
        slot.remote = self._host.begin(slot.number)
        slot.opening, slot.opened, slot.joined, slot.position = slot.remote.call("open", self._task), None, None, 0

    def _drop_abandoned(self) -> None:
        """Replaces workers that hold requests of a stream that nobody listens to any more."""
        for slot in self._live:
            if slot.hands.held and slot.remote is not None:
                slot.hands = Hands()
                slot.remote.end()
                self._fence(slot)
                self._begin(slot)

    def _first(self, progress: Progress) -> Slot:
        """Waits for the first worker that runs; raises EngineError where there will be none."""
        waited = 0.0
        while True:
            self._check_any()
            progress("wait for a worker", 0, 0)
            wait([slot.opening for slot in self._live if slot.opening], timeout=1.0, return_when=FIRST_COMPLETED)
            for slot in self._live:
                if slot.opening is not None and slot.opening.done() and self._open(slot):
                    return slot
            waited += 1.0
            if waited == SAID_AFTER:
                logger.warning("note: no worker has started yet; %s", self._host.waiting_words())

    def _open(self, slot: Slot) -> bool:
        """Takes in what a worker says of itself; False where its place stays empty, or another takes it."""
        assert slot.opening is not None
        try:
            opened = slot.opening.result()
        except EngineError as error:
            self._bury(slot, str(error))
            return False
        except ForethoughtError as error:  # as it was asked for, it will not open
            self._give_up(slot, str(error))
            return False
        except Exception as error:  # of an engine's own making
            self._bury(slot, f"{type(error).__name__}: {error}")
            return False
        if opened.version != __version__:
            self._give_up(slot, f"it has version {opened.version} of forethought, and this is {__version__}")
            return False
        if differing := self._differing(opened.info):
            self._give_up(slot, f"its engine is another one: {differing}")
            return False
        slot.opened = opened
        return True

    def _differing(self, info: EngineInfo) -> str:
        """How an engine differs from the first, in what determines a record; "" where it does not."""
        known = next((slot.opened.info for slot in self._slots if slot.opened), None)
        if known is None:
            return ""
        here, there = Provenance.of(known), Provenance.of(info)
        return here.listing(there, here.differing(there))

    def _bury(self, slot: Slot, reason: str) -> None:
        """Replaces a worker that has died."""
        slot.num_fruitless += 1
        slot.earlier, slot.counted = added(slot.earlier, slot.counted), {}
        name = slot.name
        if slot.remote is not None:
            slot.remote.end()
        if slot.num_fruitless >= FRUITLESS:
            self._give_up(slot, f"{reason} ({slot.num_fruitless} times in a row)")
            return
        logger.warning("note: %s is lost: %s; another takes its place", name, reason)
        self._begin(slot)

    def _give_up(self, slot: Slot, reason: str) -> None:
        logger.warning("note: %s takes no part: %s", slot.name, reason)
        slot.given_up = reason
        if slot.remote is not None:
            slot.remote.end()
        slot.remote = slot.opening = None

    def _check_any(self) -> None:
        if not self._live:
            reasons = dict.fromkeys(slot.given_up for slot in self._slots)
            raise EngineError(f"no worker could open its engine: {'; '.join(reasons)}")

    def _ready_slots(self) -> Iterator[Slot]:
        """The workers that run, and keep what they do where that is wanted."""
        for slot in self._live:
            if slot.opened is None and not (slot.opening is not None and slot.opening.done() and self._open(slot)):
                continue
            try:
                if self._join(slot):
                    yield slot
            except WorkerLostError as error:
                self._bury(slot, str(error))

    def _join(self, slot: Slot) -> bool:
        """Lets a worker keep what it generates, where that is wanted; False where it cannot, and its place stays empty.

        Raises:
            WorkerLostError: it has died.
        """
        keeping = self._keeping
        if keeping is not None and slot.joined is not keeping:
            assert slot.remote is not None
            own = replace(keeping, worker=keeping.worker.member(slot.number))
            try:
                slot.remote.call("join", own).result()
            except WorkerLostError:
                raise
            except ForethoughtError as error:
                self._give_up(slot, str(error))
                return False
            slot.joined = keeping
        return True

    def _fence(self, slot: Slot) -> bool:
        """Waits until a lost worker has let go of its shard, and so writes no more; False where it does not."""
        if self._keeping is None or slot.joined is not self._keeping:
            return True
        member, deadline = self._keeping.worker.member(slot.number), time.monotonic() + FENCE
        while not locks.is_free(self._keeping.folder, member):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def _ask(self, method: str, *arguments: Any) -> Any:
        """What any worker answers."""
        while True:
            self._check_any()
            slot = next((each for each in self._live if each.opened is not None), None) or self._first(silent)
            assert slot.remote is not None
            try:
                return slot.remote.call(method, *arguments).result()
            except WorkerLostError as error:
                self._bury(slot, str(error))

    # --- one stream --------------------------------------------------------------------------------------------------

    async def _serve(self, slot: Slot, stream: _Stream) -> None:
        """Hands requests to one worker, and to those that take its place, until the stream is done."""
        while not slot.given_up:
            try:
                if await self._is_ready(slot, stream):
                    await self._work(slot, stream)
                break
            except WorkerLostError as error:
                await self._recover(slot, stream, str(error))
        stream.rows.num_workers = len(self._live)

    async def _is_ready(self, slot: Slot, stream: _Stream) -> bool:
        """Waits until the worker runs; False when the stream is done before, or its place stays empty."""
        loop = asyncio.get_running_loop()
        while slot.opened is None:
            changed, opening = stream.changed, slot.opening
            if opening is None or stream.rows.is_done:
                return False
            if opening.done():
                self._open(slot)
                continue
            opening.add_done_callback(lambda _: loop.call_soon_threadsafe(stream.tell))
            await changed.wait()
        return await asyncio.to_thread(self._join, slot)

    async def _work(self, slot: Slot, stream: _Stream) -> None:
        hands, rows = slot.hands, stream.rows
        while True:
            changed = stream.changed
            given, more = rows.take(hands)
            if not given and not hands.held:
                if rows.is_done:
                    return
                await changed.wait()
                continue
            assert slot.remote is not None
            news: News = await asyncio.wrap_future(slot.remote.call("work", given, more))
            self._take_in(slot, stream, news)
            if news.death is not None:
                raise WorkerLostError(news.death)

    def _take_in(self, slot: Slot, stream: _Stream, news: News) -> None:
        slot.hands.num_waiting, slot.position, slot.counted = news.num_waiting, news.position, news.counted
        if news.done:
            slot.num_fruitless = 0
            self._tell(slot, stream, news.done)

    def _tell(self, slot: Slot, stream: _Stream, done: Sequence[Generation]) -> None:
        stream.rows.done(slot.hands, done)
        stream.found.extend(done)
        stream.tell()

    async def _recover(self, slot: Slot, stream: _Stream, reason: str) -> None:
        """After a worker's death: takes what it had on disk already, gives the rest to others, and replaces it."""
        name, retries = slot.name, True
        if slot.remote is not None:
            slot.remote.end()
        if self._keeping is not None and slot.joined is self._keeping:
            retries = self._keeping.retries_lost
            if await asyncio.to_thread(self._fence, slot):
                self._tell(slot, stream, self._unreported(slot))
            else:
                retries = False
                self._give_up(slot, f"{reason}; {HELD}")
        lost = len(slot.hands.held)
        for request in stream.rows.lost(slot.hands, retries=retries):
            stream.found.append(_lost(request, f"{name} was lost while it ran: {reason}"))
        stream.tell()
        if not slot.given_up:
            self._bury(slot, f"{reason}; {lost} questions that it had are open" if lost else reason)
            await asyncio.sleep(min(30.0, 2.0**slot.num_fruitless - 2.0))

    def _unreported(self, slot: Slot) -> list[Generation]:
        """Records that a lost worker had on disk, and had not told of yet."""
        assert self._keeping is not None
        shard = self._keeping.folder / self._keeping.worker.member(slot.number).named("records.jsonl")
        found = read_lines(shard, Record.from_json, start=slot.position)
        return [replace(each, reasoning="") for each in found if key_of(each) in slot.hands.held]


class _StateClusterEngine(ClusterEngine):
    """A `ClusterEngine` whose engines show hidden states."""

    def hidden_states(self, queries: Sequence[Query], layers: Sequence[int]) -> FloatArray:
        """See `HiddenStateEngine.hidden_states`: the queries are divided over the workers that run."""
        num_parts = max(1, min(len(queries), sum(slot.opened is not None for slot in self._live)))
        size = -(-len(queries) // num_parts)
        parts = [queries[start : start + size] for start in range(0, len(queries), size)]
        running = [slot.remote for slot in self._live if slot.opened is not None and slot.remote is not None]
        futures = [remote.call("hidden_states", part, layers) for remote, part in zip(running, parts, strict=False)]
        found = []
        for number, part in enumerate(parts):
            try:
                found.append(futures[number].result())
            except (WorkerLostError, IndexError):
                found.append(self._ask("hidden_states", part, layers))
        return np.concatenate(found)


@dataclass(slots=True)
class _Stream:
    """One call of `generate`.

    Attributes:
        rows: its requests.
        found: what has come back, and was not passed on yet.
        changed: set at the next change to either: take it before you look, then wait for it.
    """

    rows: Rows
    found: deque[Generation] = field(default_factory=deque)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self) -> None:
        """Wakes whoever waits for a change."""
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


def _lost(request: Request, reason: str) -> Generation:
    """A request that was lost with its worker: what it took is not known."""
    return replace(failed(request, reason), reasoning_tokens=None, answer_tokens=None)
