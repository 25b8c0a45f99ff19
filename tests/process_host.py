"""A host of workers without Ray: a process each, which tests kill as they like."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from forethought.cluster.hosts import WorkerLostError
from forethought.cluster.worker import EngineWorker

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["forethought.cluster.worker", "forethought.engines.fake", "forethought.graders"])

Prepare = Callable[[int], object]


def serve(number: int, line: Connection, prepare: Prepare | None) -> None:
    """The process: calls methods of its worker one at a time, as it is told."""
    if prepare is not None:
        prepare(number)
    worker = EngineWorker()
    while True:
        try:
            method, arguments = line.recv()
        except EOFError:
            return
        try:
            answer = getattr(worker, method)(*arguments)
        except Exception as error:
            answer = error
        line.send(answer)


class ProcessWorker:
    def __init__(self, number: int, prepare: Prepare | None) -> None:
        self._line, theirs = CONTEXT.Pipe()
        self.process = CONTEXT.Process(target=serve, args=(number, theirs, prepare), daemon=True)
        self.process.start()
        theirs.close()
        self._turn = ThreadPoolExecutor(1)
        self._lock = threading.Lock()

    def call(self, method: str, *arguments: Any) -> Future[Any]:
        return self._turn.submit(self._asked, method, arguments)

    def _asked(self, method: str, arguments: tuple[Any, ...]) -> Any:
        try:
            self._line.send((method, arguments))
            answer = self._line.recv()
        except (EOFError, OSError) as error:
            raise WorkerLostError("the process ended") from error
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def end(self) -> None:
        with self._lock, suppress(ProcessLookupError):
            if self.process.is_alive():
                os.kill(self.process.pid or 0, signal.SIGKILL)
                self.process.join()
        self._turn.shutdown(wait=False)


class ProcessHost:
    """`prepare` is called in each process before its worker is made, with its number."""

    def __init__(self, prepare: Prepare | None = None) -> None:
        self.workers: list[ProcessWorker] = []
        self._prepare = prepare

    def begin(self, number: int) -> ProcessWorker:
        self.workers.append(ProcessWorker(number, self._prepare))
        return self.workers[-1]

    @property
    def running(self) -> list[ProcessWorker]:
        return [worker for worker in self.workers if worker.process.is_alive()]

    def pids(self) -> list[int]:
        return [worker.process.pid for worker in self.running if worker.process.pid]

    def waiting_words(self) -> str:
        return "there is room"

    def close(self) -> None:
        for worker in self.workers:
            worker.end()


class Killer:
    """Kills a random process every now and then, so many times.

    Args:
        pids: those that run now.
        num_kills: times.
        every: mean seconds between kills.
    """

    def __init__(self, pids: Callable[[], Sequence[int]], num_kills: int, *, every: float) -> None:
        self.num_kills = 0
        self._thread = threading.Thread(target=self._kill, args=(pids, num_kills, every, random.Random(0)))
        self._ended = threading.Event()

    def __enter__(self) -> Killer:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._ended.set()
        self._thread.join()

    def _kill(self, pids: Callable[[], Sequence[int]], num_kills: int, every: float, rng: random.Random) -> None:
        while self.num_kills < num_kills and not self._ended.wait(rng.uniform(0.2 * every, 1.8 * every)):
            if running := pids():
                with suppress(ProcessLookupError):  # it has ended by itself meanwhile
                    os.kill(rng.choice(running), signal.SIGKILL)
                    self.num_kills += 1
