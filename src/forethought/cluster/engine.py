"""The engines of a cluster's workers as one engine: a stream of requests goes through all of them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np

from ..control.counts import added
from ..control.keeping import Keeping
from ..core.data import EngineInfo, FloatArray, Generation, Query, Request
from ..core.options import Option
from ..core.prompts import PromptTemplate
from ..core.records import Record
from ..engines.flight import failed
from ..runs.lines import read_lines
from .crew import Crew, Slot
from .hosts import WorkerLostError
from .rows import Rows, key_of
from .worker import News

PER_CHUNK = 128  # queries whose hidden states a worker keeps, or that it asks about, at once


class ClusterEngine:
    """An `Engine` made of the engines of a crew's workers.

    What a lost worker had under way is given to another; without any worker left the remaining requests fail, each with
    the reason.
    """

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self.info: EngineInfo = crew.first.info
        self.answer_room = crew.first.answer_room
        self._turn, self._loop = asyncio.Lock(), cast("asyncio.AbstractEventLoop | None", None)
        self._streams: list[_Stream] = []  # the one whose turn it is, and those that wait for theirs

    async def generate(self, requests: Iterable[Request]) -> AsyncIterator[Generation]:
        """See `Engine.generate`, and within `kept_in` `KeepingEngine`.

        Of several streams one is worked on after another. A caller that does not take the answers is waited for with a
        bounded number of them, and meanwhile the next stream has its turn.
        """
        if self._loop is not (loop := asyncio.get_running_loop()):
            self._loop, self._turn, self._streams = loop, asyncio.Lock(), []
        stream = _Stream(Rows(requests, len(self._crew.live)))
        answering = asyncio.create_task(self._answer(stream))
        answering.add_done_callback(lambda _: stream.tell())
        try:
            while True:
                changed, is_last = stream.changed, answering.done()
                while stream.found:
                    was_full, each = stream.is_full, stream.found.popleft()
                    if was_full:
                        stream.tell()
                    yield each
                if is_last:
                    break
                await changed.wait()
            await answering
            for request in stream.rows.rest():
                yield failed(request, f"no worker is left to run it: {self._crew.reasons}")
        finally:
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)

    async def _answer(self, stream: _Stream) -> None:
        """Has the workers answer every request of a stream, in its turns."""
        while True:
            self._streams.append(stream)
            for each in self._streams:  # one of which nobody takes the answers gives way
                each.tell()
            try:
                await self._take_turn(stream)
            finally:
                self._streams.remove(stream)
            if not stream.gives_way:
                return
            while stream.is_full:
                await stream.changed.wait()

    async def _take_turn(self, stream: _Stream) -> None:
        """Has the workers answer the requests of a stream: all of them, unless it gives way to another stream."""
        async with self._turn:
            crew, stream.gives_way = self._crew, False
            stream.rows.num_workers = len(crew.live)
            tasks = [asyncio.create_task(self._serve(slot, stream)) for slot in crew.live]
            for task in tasks:
                task.add_done_callback(lambda _: stream.tell())
            try:
                await asyncio.gather(*tasks, return_exceptions=True)
                await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
                for slot in crew.live:
                    if slot.hands.held:
                        crew.drop(slot)

    def check_option(self, option: Option) -> None:
        """See `OptionEngine.check_option`."""
        self._crew.ask("check_option", option)

    def counted(self) -> dict[str, Any]:
        """See `CountingEngine.counted`: of all workers, those that died too; empty where they do not count."""
        total: dict[str, Any] = {}
        for slot in self._crew.slots:
            total = added(added(total, slot.earlier), slot.counted)
        return total

    def close(self) -> None:
        """See `Engine.close`."""
        self._crew.close()

    @contextmanager
    def kept_in(self, keeping: Keeping) -> Iterator[None]:
        """See `KeepingEngine.kept_in`."""
        self._crew.keeping = keeping
        try:
            yield
        finally:
            self._crew.leave()

    def keep_states(self, queries: Sequence[Query], layers: Sequence[int]) -> Iterator[int]:
        """See `KeepingEngine.keep_states`; a chunk of a lost worker is read by another."""
        yield from self._crew.divided("keep_states", queries, PER_CHUNK, layers)

    async def _serve(self, slot: Slot, stream: _Stream) -> None:
        """Hands requests to one worker, and to those that take its place, until the stream is done."""
        while not slot.given_up:
            try:
                if await self._is_ready(slot, stream):
                    await self._work(slot, stream)
                break
            except WorkerLostError as error:
                await self._recover(slot, stream, str(error))
        stream.rows.num_workers = len(self._crew.live)

    async def _is_ready(self, slot: Slot, stream: _Stream) -> bool:
        """Waits until the worker runs; False when the stream is done before, or its place stays empty."""
        loop, awaited = asyncio.get_running_loop(), None

        def tell(_: object) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(stream.tell)

        while slot.opened is None:
            changed, opening = stream.changed, slot.opening
            if opening is None or stream.rows.is_done or stream.gives_way:
                return False
            if opening.done():
                self._crew.open(slot)
                continue
            if opening is not awaited:
                awaited = opening
                opening.add_done_callback(tell)
            await changed.wait()
        return await asyncio.to_thread(self._crew.join, slot)

    async def _work(self, slot: Slot, stream: _Stream) -> None:
        hands, rows = slot.hands, stream.rows
        while True:
            changed = stream.changed
            if stream.is_full and len(self._streams) > 1 and not stream.gives_way:
                stream.gives_way = True
                stream.tell()
            given, more = ([], False) if stream.gives_way or stream.is_full else rows.take(hands)
            if not given and not hands.held:
                if stream.gives_way or rows.is_done:
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
        crew, name, retries = self._crew, slot.name, True
        if slot.remote is not None:
            slot.remote.end()
        if crew.keeping is not None and slot.joined is crew.keeping:
            retries = await asyncio.to_thread(crew.fence, slot)
            if retries:
                self._tell(slot, stream, self._unreported(slot, crew.keeping))
                retries = crew.keeping.retries_lost
        num_open = slot.hands.num_held
        for request in stream.rows.lost(slot.hands, retries=retries):
            stream.found.append(_lost(request, f"{name} was lost while it ran: {reason}"))
        crew.bury(slot, f"{reason}; {num_open} questions that it had are open" if num_open else reason)
        stream.tell()

    def _unreported(self, slot: Slot, keeping: Keeping) -> list[Generation]:
        """Records that a lost worker had on disk, and had not told of yet."""
        shard = keeping.folder / keeping.worker.member(slot.number).named("records.jsonl")
        found = read_lines(shard, Record.from_json, start=slot.position)
        return [replace(each, reasoning="") for each in found if key_of(each) in slot.hands.held]


class StateClusterEngine(ClusterEngine):
    """A `ClusterEngine` whose engines show hidden states."""

    def hidden_states(self, queries: Sequence[Query], layers: Sequence[int]) -> FloatArray:
        """See `HiddenStateEngine.hidden_states`: the queries are divided over the workers that run."""
        num_parts = max(1, min(len(queries), sum(slot.opened is not None for slot in self._crew.live)))
        size = -(-len(queries) // num_parts)
        parts = [queries[start : start + size] for start in range(0, len(queries), size)]
        running = [slot.remote for slot in self._crew.live if slot.opened is not None and slot.remote is not None]
        futures = [remote.call("hidden_states", part, layers) for remote, part in zip(running, parts, strict=False)]
        found = []
        for number, part in enumerate(parts):
            try:
                found.append(futures[number].result())
            except (WorkerLostError, IndexError):
                found.append(self._crew.ask("hidden_states", part, layers))
        return np.concatenate(found)


class TemplateClusterEngine(ClusterEngine):
    """A `ClusterEngine` whose engines can ask their model with another template."""

    def with_template(self, template: PromptTemplate) -> _OtherTemplate:
        """See `TemplateEngine.with_template`; meant for short answers, of which nothing is kept."""
        return _OtherTemplate(self._crew, template)


class AbleClusterEngine(StateClusterEngine, TemplateClusterEngine):
    """A `ClusterEngine` whose engines do both."""


class _OtherTemplate:
    """The engines of a cluster behind another template: each answers a chunk of requests at a time."""

    def __init__(self, crew: Crew, template: PromptTemplate) -> None:
        self._crew, self._template = crew, template
        self.info: EngineInfo = crew.ask("info_with", template)

    async def generate(self, requests: Iterable[Request]) -> AsyncIterator[Generation]:
        """See `Engine.generate`; reads all requests first."""
        asked = list(requests)
        size = min(PER_CHUNK, -(-len(asked) // max(1, len(self._crew.live)))) or 1
        chunks = self._crew.divided("generate_with", asked, size, self._template)
        while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
            for generation in chunk:
                yield generation

    def close(self) -> None:
        """See `Engine.close`."""
        self._crew.close()


def engine_of(crew: Crew) -> ClusterEngine:
    """The engines of a crew as one, which can do what they can."""
    first = crew.first
    if first.has_states:
        return AbleClusterEngine(crew) if first.has_templates else StateClusterEngine(crew)
    return TemplateClusterEngine(crew) if first.has_templates else ClusterEngine(crew)


@dataclass(slots=True)
class _Stream:
    """One call of `generate`.

    Attributes:
        rows: its requests.
        found: what has come back, and was not passed on yet.
        gives_way: it takes no more requests in this turn, since nobody takes its answers and another stream waits.
        changed: set at the next change to either: take it before you look, then wait for it.
    """

    rows: Rows
    found: deque[Generation] = field(default_factory=deque)
    gives_way: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_full(self) -> bool:
        """Whether no more is to be done before somebody takes what has come back."""
        return len(self.found) >= self.rows.ahead

    def tell(self) -> None:
        """Wakes whoever waits for a change."""
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


def _lost(request: Request, reason: str) -> Generation:
    """A request that was lost with its worker: what it took is not known."""
    return replace(failed(request, reason), reasoning_tokens=None, answer_tokens=None)
