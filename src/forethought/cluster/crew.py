"""The workers of a cluster: who has which place, who has died, and who takes the place of those."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace
from typing import Any

from .._version import __version__
from ..control.counts import added
from ..control.keeping import Keeping
from ..core.provenance import Provenance
from ..core.showing import Progress, silent
from ..errors import EngineError, ForethoughtError
from ..runs import locks
from .hosts import Host, Remote, WorkerLostError
from .rows import Hands
from .worker import Opened, Task

FRUITLESS = 4  # times in a row that a worker may die, or fail to start, without finishing anything
FENCE = 90.0  # seconds until a lost worker has surely let go of its shard: locks on shared storage outlive a machine
CLOSED_WITHIN = 10.0  # seconds for workers to close their engines, until they are killed
SAID_AFTER = 30.0  # seconds of waiting for a first worker until it is said what is waited for

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


class Crew:
    """Workers that open the same engine. It is made as soon as the first of them runs; others come when they are ready.

    A worker that dies is replaced. After `FRUITLESS` deaths in a row without a result, or where its engine cannot be
    opened as it was asked for, its place stays empty.

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
        self._first: Opened | None = None
        self.keeping: Keeping | None = None
        self.slots = [Slot(number) for number in range(1, num_workers + 1)]
        for slot in self.slots:
            self._begin(slot)
        self._wait_for_one(progress)

    @property
    def first(self) -> Opened:
        """What the first worker that ran said of itself: the others must have the same engine."""
        assert self._first is not None
        return self._first

    @property
    def live(self) -> list[Slot]:
        """The places that somebody has, or is about to have."""
        return [slot for slot in self.slots if not slot.given_up]

    @property
    def reasons(self) -> str:
        """Why places are empty, in words."""
        return "; ".join(dict.fromkeys(slot.given_up for slot in self.slots if slot.given_up))

    def ready(self) -> Iterator[Slot]:
        """The workers that run, and keep what they do where that is wanted."""
        for slot in self.live:
            if slot.opened is None and not (slot.opening is not None and slot.opening.done() and self.open(slot)):
                continue
            try:
                if self.join(slot):
                    yield slot
            except WorkerLostError as error:
                self.bury(slot, str(error))

    def open(self, slot: Slot) -> bool:
        """Takes in what a worker says of itself; False where its place stays empty, or another takes it."""
        assert slot.opening is not None
        try:
            opened = slot.opening.result()
        except EngineError as error:
            self.bury(slot, str(error))
        except ForethoughtError as error:  # as it was asked for, it will not open
            self.give_up(slot, str(error))
        except Exception as error:  # of an engine's own making
            self.bury(slot, f"{type(error).__name__}: {error}")
        else:
            if problem := self._problem(opened):
                self.give_up(slot, problem)
                return False
            slot.opened = opened
            self._first = self._first or opened
            return True
        return False

    def _problem(self, opened: Opened) -> str:
        """How a worker differs from this process or from the first worker, in what determines a record; "" if not."""
        if opened.version != __version__:
            return f"it has version {opened.version} of forethought, and this is {__version__}"
        if self._first is None:
            return ""
        here, there = Provenance.of(self._first.info), Provenance.of(opened.info)
        differing = here.listing(there, here.differing(there))
        return f"its engine is another one: {differing}" if differing else ""

    def join(self, slot: Slot) -> bool:
        """Lets a worker keep what it generates, where that is wanted; False where it cannot, and its place stays empty.

        Raises:
            WorkerLostError: it has died.
        """
        keeping = self.keeping
        if keeping is not None and slot.joined is not keeping:
            assert slot.remote is not None
            own = replace(keeping, worker=keeping.worker.member(slot.number))
            try:
                slot.position = slot.remote.call("join", own).result()
            except WorkerLostError:
                raise
            except ForethoughtError as error:
                self.give_up(slot, str(error))
                return False
            slot.joined = keeping
        return True

    def leave(self) -> None:
        """Every worker lets go of its shard."""
        remotes = [slot.remote for slot in self.live if slot.joined is not None and slot.remote is not None]
        wait([remote.call("leave") for remote in remotes], timeout=CLOSED_WITHIN)
        self.keeping = None
        for slot in self.slots:
            slot.joined = None

    def fence(self, slot: Slot) -> bool:
        """Waits until a lost worker has let go of its shard, and so writes no more; False where it does not."""
        if self.keeping is None or slot.joined is not self.keeping:
            return True
        member, deadline = self.keeping.worker.member(slot.number), time.monotonic() + FENCE
        while not locks.is_free(self.keeping.folder, member):
            if time.monotonic() > deadline:
                self.give_up(slot, "it was lost and still holds its shard, so it may be writing")
                return False
            time.sleep(0.05)
        return True

    def bury(self, slot: Slot, reason: str) -> None:
        """Replaces a worker that has died, if its place is not empty."""
        if slot.given_up:
            return
        slot.num_fruitless += 1
        slot.earlier, slot.counted = added(slot.earlier, slot.counted), {}
        if slot.num_fruitless >= FRUITLESS:
            self.give_up(slot, f"{reason} ({slot.num_fruitless} times in a row)")
            return
        logger.warning("note: %s is lost: %s; another takes its place", slot.name, reason)
        self._begin(slot)

    def give_up(self, slot: Slot, reason: str) -> None:
        """Leaves a place empty from now on."""
        logger.warning("note: %s takes no part: %s", slot.name, reason)
        slot.given_up = reason
        if slot.remote is not None:
            slot.remote.end()
        slot.remote = slot.opening = None

    def check_any(self) -> None:
        """Raises EngineError where every place is empty."""
        if not self.live:
            raise EngineError(f"no worker is left: {self.reasons}")

    def ask(self, method: str, *arguments: Any) -> Any:
        """What any worker answers."""
        while True:
            slot = next((each for each in self.live if each.opened is not None), None) or self._wait_for_one(silent)
            assert slot.remote is not None
            try:
                return slot.remote.call(method, *arguments).result()
            except WorkerLostError as error:
                if self.fence(slot):
                    self.bury(slot, str(error))

    def divided(self, method: str, items: Sequence[Any], size: int, *arguments: Any) -> Iterator[Any]:
        """What a method of the workers gives for each chunk of items, in any order; a lost worker's goes to another.

        Raises:
            EngineError: no worker is left; else what the method raises.
        """
        chunks = deque(items[start : start + size] for start in range(0, len(items), size))
        running: dict[Future[Any], tuple[Slot, Sequence[Any]]] = {}
        while chunks or running:
            busy = {slot.number for slot, _ in running.values()}
            for slot in self.ready():
                if chunks and slot.number not in busy:
                    assert slot.remote is not None
                    chunk = chunks.popleft()
                    running[slot.remote.call(method, chunk, *arguments)] = (slot, chunk)
            starting = [slot.opening for slot in self.live if slot.opened is None and slot.opening is not None]
            for done in wait([*running, *starting], timeout=1.0, return_when=FIRST_COMPLETED).done & running.keys():
                slot, chunk = running.pop(done)
                try:
                    yield done.result()
                except WorkerLostError as error:
                    chunks.append(chunk)
                    if self.fence(slot):
                        self.bury(slot, str(error))
            self.check_any()

    def drop(self, slot: Slot) -> None:
        """Replaces a worker that holds requests of a stream that nobody listens to any more."""
        slot.hands = Hands()
        if slot.remote is not None:
            slot.remote.end()
        if self.fence(slot):
            self._begin(slot)

    def close(self) -> None:
        """Ends every worker; each lets go of its shard before this returns."""
        if late := [slot for slot in self.live if slot.opened is None and slot.num_fruitless == 0]:
            logger.warning(
                "note: %d of %d workers had not started when all was done: %s",
                len(late),
                len(self.slots),
                self._host.waiting_words(),
            )
        remotes = [slot.remote for slot in self.slots if slot.remote is not None]
        wait([remote.call("close") for remote in remotes], timeout=CLOSED_WITHIN)
        for remote in remotes:
            remote.end()
        for slot in self.slots:
            slot.remote = None
        self._host.close()

    def _begin(self, slot: Slot) -> None:
        if slot.remote is not None:
            slot.remote.end()
        slot.remote = self._host.begin(slot.number)
        slot.opening, slot.opened, slot.joined, slot.position = slot.remote.call("open", self._task), None, None, 0

    def _wait_for_one(self, progress: Progress) -> Slot:
        """Waits for a worker that runs; raises EngineError where there will be none."""
        waited = 0.0
        while True:
            self.check_any()
            progress("wait for a worker", 0, 0)
            wait([slot.opening for slot in self.live if slot.opening], timeout=1.0, return_when=FIRST_COMPLETED)
            for slot in self.live:
                if slot.opening is not None and slot.opening.done() and self.open(slot):
                    return slot
            waited += 1.0
            if waited == SAID_AFTER:
                words = "note: after %.0f s no engine runs yet: it is still loaded, or there is no room for it; %s"
                logger.warning(words, waited, self._host.waiting_words())
