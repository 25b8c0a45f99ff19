"""One worker of a cluster: an engine in a process of its own, which keeps what it generates in a shard of the run.

Nothing here knows Ray: a worker is an object whose methods are called one at a time, from wherever its process is told.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .._version import __version__
from ..control.keeping import Keeping, generated, keeper
from ..control.reading import batches
from ..core.data import EngineInfo, FloatArray, Generation, Query, Request
from ..core.options import Option
from ..core.prompts import PromptTemplate
from ..core.protocols import (
    CountingEngine,
    Engine,
    HiddenStateEngine,
    RoomEngine,
    TemplateEngine,
    check_option,
)
from ..core.settings import EngineSettings
from ..core.showing import silent
from ..core.waiting import collect, finish
from ..engines.opening import open_engine
from ..errors import EngineError
from ..runs.store import RunDirectory
from .hosts import enter

FED_AGAIN = 32  # requests that are left for the engine when more are asked for
HEARTBEAT = 5.0  # seconds after which a worker says that it is still at work

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker opens: arguments of `opening.open_engine`, and the folder that relative paths start from."""

    model: str
    settings: EngineSettings
    needed_tokens: int | None
    folder: str


@dataclass(frozen=True, slots=True)
class Opened:
    """What a worker says of itself once its engine runs.

    Attributes:
        info: of the engine.
        has_states: whether it shows hidden states.
        has_templates: whether it can ask its model with another template.
        answer_room: see `RoomEngine`; 0 without it.
        host, pid: where it is.
        version: of this package, there.
    """

    info: EngineInfo
    has_states: bool
    has_templates: bool
    answer_room: int
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    version: str = __version__

    @property
    def place(self) -> str:
        """Host and process, in words."""
        return f"{self.host}, process {self.pid}"


@dataclass(frozen=True, slots=True)
class News:
    """What a worker says after some requests.

    Attributes:
        done: what came of requests since it was asked last: records that are on disk, or generations.
        num_waiting: requests that its engine has not taken yet.
        position: bytes of its shard that hold what it has told of so far.
        counted: what its engine has counted, if it counts.
        death: why its engine has died; None while it has not.
    """

    done: tuple[Generation, ...]
    num_waiting: int
    position: int = 0
    counted: Mapping[str, Any] = field(default_factory=dict)
    death: str | None = None


class EngineWorker:
    """An engine with a queue of requests. Its methods are called one at a time; the engine runs in a thread.

    The engine takes requests as it has room. While it was said that more are to come, it waits for them when its queue
    is empty, so that what it has under way is never held up for longer than an answer takes; else its stream ends, and
    a new one begins with the next requests.
    """

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._other: tuple[PromptTemplate, Engine] | None = None
        self._queue: deque[Request] = deque()
        self._done: list[Generation] = []
        self._more = self._is_closing = False
        self._death: str | None = None
        self._position = 0
        self._changed = threading.Condition()
        self._kept = ExitStack()
        self._keeping: Keeping | None = None
        self._keep: Any = None
        self._thread: threading.Thread | None = None

    def open(self, task: Task) -> Opened:
        """Opens the engine.

        Raises:
            EngineError, InvalidSettingsError, …: as `open_engine`.
        """
        enter(task.folder)
        engine = self._engine = open_engine(task.model, task.settings, needed_tokens=task.needed_tokens)
        return Opened(
            engine.info,
            isinstance(engine, HiddenStateEngine),
            isinstance(engine, TemplateEngine),
            engine.answer_room if isinstance(engine, RoomEngine) else 0,
        )

    def join(self, keeping: Keeping) -> int:
        """From now on keeps what it generates; `keeping.worker` is its own number in the crew.

        Returns:
            Bytes that its shard holds.

        Raises:
            RunError: the run is not held by the lead of the crew, or another process has this number.
        """
        self._kept.close()
        run = RunDirectory(keeping.folder)
        self._kept.enter_context(run.locked(keeping.worker))
        self._keep = self._kept.enter_context(keeper(self._running, keeping))
        self._keeping = keeping
        self._position = self._shard_size()
        return self._position

    def leave(self) -> None:
        """Lets go of the shard; what is generated from now on is not kept."""
        self._kept.close()
        self._keeping = self._keep = None

    def check_option(self, option: Option) -> None:
        """See `protocols.check_option`."""
        check_option(self._running, option)

    def hidden_states(self, queries: Sequence[Query], layers: Sequence[int]) -> FloatArray:
        """See `HiddenStateEngine.hidden_states`."""
        engine = self._running
        assert isinstance(engine, HiddenStateEngine)
        read = batches(queries, engine.info, num_before=0, total=len(queries), progress=silent)
        return np.concatenate([engine.hidden_states(batch, layers) for batch in read])

    def keep_states(self, queries: Sequence[Query], layers: Sequence[int]) -> int:
        """Reads hidden states into a chunk of its own; how many queries it holds."""
        assert self._keeping is not None
        states_Q_L_D = self.hidden_states(queries, layers)
        ids = [query.id for query in queries]
        RunDirectory(self._keeping.folder).save_hidden(ids, layers, states_Q_L_D, worker=self._keeping.worker)
        return len(queries)

    def info_with(self, template: PromptTemplate) -> EngineInfo:
        """What its engine is behind another template."""
        return self._with(template).info

    def generate_with(self, requests: Sequence[Request], template: PromptTemplate) -> list[Generation]:
        """What its engine gives behind another template, all at once; nothing of it is kept."""
        return finish(collect(self._with(template).generate(requests)))

    def _with(self, template: PromptTemplate) -> Engine:
        if self._other is None or self._other[0] != template:
            engine = self._running
            assert isinstance(engine, TemplateEngine)
            self._other = template, engine.with_template(template)
        return self._other[1]

    def work(self, requests: Sequence[Request], more: bool) -> News:
        """Takes requests, and waits for something to tell: what came of some, or that the engine needs more.

        Args:
            requests: to run, after those it was given before.
            more: whether it will be given others as soon as it needs them.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="engine", daemon=True)
            self._thread.start()
        with self._changed:
            self._queue.extend(requests)
            self._more = more
            self._changed.notify_all()
            self._changed.wait_for(self._has_news, HEARTBEAT)
            done, self._done = tuple(self._done), []
            return News(done, len(self._queue), self._position, self._counted(), self._death)

    def close(self) -> None:
        """Ends the stream, frees the engine and lets go of the shard."""
        with self._changed:
            self._is_closing = True
            self._queue.clear()
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(HEARTBEAT)
        self._kept.close()
        if self._engine is not None:
            self._engine.close()

    def _has_news(self) -> bool:
        return bool(self._done or self._death or (self._more and len(self._queue) <= FED_AGAIN))

    def _serve(self) -> None:
        """The engine's thread: one stream of requests after another, until the worker closes or the engine dies."""
        try:
            asyncio.run(self._streams())
        except BaseException as error:
            logger.exception("the engine died")
            with self._changed:
                self._death = f"{type(error).__name__}: {error}"
                self._changed.notify_all()

    async def _streams(self) -> None:
        engine = self._running
        while self._is_fed():
            references: dict[str, str | None] = {}
            async for generation in generated(engine, self._stream(references)):
                if self._keep is not None:
                    kept = self._keep(generation, references[generation.query_id])
                    generation = replace(kept, reasoning="")  # the text is on disk, and nobody asks for it
                with self._changed:
                    self._done.append(generation)
                    self._position = self._shard_size()
                    self._changed.notify_all()

    def _is_fed(self) -> bool:
        """Waits for requests; False when the worker closes."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._is_closing)
            return not self._is_closing

    def _stream(self, references: dict[str, str | None]) -> Iterator[Request]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or not self._more or self._is_closing)
                if not self._queue:
                    return
                request = self._queue.popleft()
                if len(self._queue) <= FED_AGAIN:
                    self._changed.notify_all()
            references[request.query.id] = request.query.reference
            yield request

    def _counted(self) -> Mapping[str, Any]:
        return self._engine.counted() if isinstance(self._engine, CountingEngine) else {}

    def _shard_size(self) -> int:
        if self._keeping is None:
            return 0
        with suppress(FileNotFoundError):
            return (self._keeping.folder / self._keeping.worker.named("records.jsonl")).stat().st_size
        return 0

    @property
    def _running(self) -> Engine:
        if self._engine is None:
            raise EngineError("the worker's engine is not open")
        return self._engine
