"""Plans of folders on a cluster: each worker keeps the curves of its own files, and sends histograms of prices."""

from __future__ import annotations

import logging
import os
import resource
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..allocators.parts import Division, divide_shares
from ..allocators.share import Share
from ..control.large import asked_files, header, num_rows, predict_file, reading, write_budgets
from ..control.predictions import Predictions
from ..control.sources import open_predictor
from ..core.data import Cost
from ..core.files import make_folder, write_json
from ..core.settings import ClusterSettings, PlanSettings
from ..core.showing import Progress, silent
from ..errors import EngineError, InvalidSettingsError
from .hosts import Host, Remote, WorkerLostError, enter
from .ray_host import RayHost

MOST_LOST = 4  # times in a row that a worker may be lost without an answer
CLOSED_WITHIN = 10.0  # seconds for workers to free their engines, until they are killed
PLANNED = "_budgets.json"  # what was planned; readers of Parquet folders leave such names out

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reading:
    """How a worker predicts: settings of `plan`, the folder of predictions, and that of relative paths."""

    settings: PlanSettings
    out: Path
    folder: str


@dataclass(frozen=True, slots=True)
class Holding:
    """What a worker plans: its files, the number of queries in all, and the folder that relative paths start from."""

    predictions: Predictions
    num_queries: int
    folder: str


@dataclass(frozen=True, slots=True)
class Pass:
    """A pass over a share; see `allocators.parts.Passes`."""

    work: Callable[..., Any]
    args: tuple[Any, ...] = ()
    how: Mapping[str, Any] | None = None

    def __call__(self, share: Share) -> Any:
        """What it answers."""
        return self.work(share, *self.args, **(self.how or {}))


@dataclass(slots=True)
class Effort:
    """What a worker did.

    Attributes:
        num_queries: of its share.
        sent_bytes: of its answers.
        peak_bytes: most memory of its process.
        cpu_seconds: of its process.
        num_lost: times that it was lost.
    """

    num_queries: int
    sent_bytes: int = 0
    peak_bytes: int = 0
    cpu_seconds: float = 0.0
    num_lost: int = 0


class FolderWorker:
    """A worker's process: predicts files, or keeps a share of a plan. Its methods are called one at a time."""

    def __init__(self) -> None:
        self._kept = ExitStack()
        self._predict: Callable[[Path], None] | None = None
        self._share: Share | None = None

    def read(self, how: Reading) -> None:
        """Opens what predicts."""
        enter(how.folder)
        asked, predictor = how.settings, open_predictor(how.settings.run)
        engine = self._kept.enter_context(reading(predictor, asked.engine, asked.model, asked.template))
        self._predict = lambda path: predict_file(
            predictor, engine, path, how.out, question_column=asked.question_column, id_column=asked.id_column
        )

    def predict(self, path: Path) -> None:
        """Predicts a file."""
        assert self._predict is not None
        self._predict(path)

    def hold(self, holding: Holding) -> None:
        """Takes its share of a plan."""
        enter(holding.folder)
        self._share = Share(holding.predictions.parts, holding.num_queries)

    def make(self, passes: Sequence[Pass]) -> tuple[Any, int, float]:
        """Makes passes over its share: what the last answers, and peak bytes and CPU seconds of the process."""
        assert self._share is not None
        for each in passes:
            answer = each(self._share)
        used = resource.getrusage(resource.RUSAGE_SELF)
        return answer, used.ru_maxrss * 1024, used.ru_utime + used.ru_stime

    def close(self) -> None:
        """Frees an engine."""
        self._kept.close()


class Workers:
    """Workers that each begin with one call; one that is lost is replaced, and begins again.

    Args:
        host: begins workers.
        begun: method and argument of each worker's first call.
    """

    def __init__(self, host: Host, begun: Sequence[tuple[str, Any]]) -> None:
        self._host, self._begun = host, begun
        self._remotes: list[Remote] = []
        self._first: list[Future[Any]] = []
        self.num_lost = [0] * len(begun)
        self._fruitless = [0] * len(begun)
        for index in range(len(begun)):
            remote = host.begin(index + 1)
            self._remotes.append(remote)
            self._first.append(remote.call(*begun[index]))

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *raised: object) -> None:
        closing = [] if any(raised) else [remote.call("close") for remote in self._remotes]
        wait(closing, timeout=CLOSED_WITHIN)
        for remote in self._remotes:
            remote.end()

    def call(self, index: int, method: str, *arguments: Any) -> Future[Any]:
        """Calls a method of one of them."""
        return self._remotes[index].call(method, *arguments)

    def answer(self, index: int, future: Future[Any]) -> Any:
        """What a call came to.

        Raises:
            WorkerLostError: the worker was lost, and another has begun in its place.
            EngineError: a worker that is lost again and again; also what the call itself raises.
        """
        try:
            self._first[index].result()
            found = future.result()
        except WorkerLostError as error:
            self.num_lost[index] += 1
            self._fruitless[index] += 1
            self._remotes[index].end()
            if self._fruitless[index] >= MOST_LOST:
                raise EngineError(f"worker {index + 1} was lost {MOST_LOST} times in a row: {error}") from error
            logger.warning("note: worker %d is lost: %s; another does its part again", index + 1, error)
            self._remotes[index] = self._host.begin(index + 1)
            self._first[index] = self._remotes[index].call(*self._begun[index])
            raise
        self._fruitless[index] = 0
        return found


def plan_on(
    host: Host,
    predictions: Predictions,
    out: Path,
    *,
    num_workers: int,
    total: float,
    cost: Cost,
    min_tokens: int | None = None,
    max_tokens: int | None = None,
    progress: Progress = silent,
) -> tuple[Division, list[Effort]]:
    """The plan of `control.large.plan_folder`, made by workers that each keep the curves of some files.

    A lost worker's passes are made again by another. Each writes the budgets of its own files into the folder `out`,
    under their names; `_budgets.json` in it, written last, says what was planned.

    Args:
        host: begins workers.
        predictions: on storage that all workers reach.
        out: a folder; made where it is not there.
        num_workers: at most; each has at least one file.
        total: tokens for all queries together, or USD.
        cost: what the total is counted in.
        min_tokens: least tokens of every query; off the menu they round up.
        max_tokens: most tokens of every query; off the menu they round down.
        progress: called with what is being done, queries done and queries in all.

    Raises:
        EngineError: workers are lost again and again.
        InvalidSettingsError: `out` holds budgets of other files.
        InvalidInputError, InvalidTotalError, …: as `divide_parts`.
    """
    names = {group.path.name for group in predictions.groups}
    make_folder(out)
    if other := sorted(path.name for path in out.glob("*.parquet") if path.name not in names):
        raise InvalidSettingsError(f"{out} holds files of another plan ({', '.join(other[:3])}); give a new folder")
    (out / PLANNED).unlink(missing_ok=True)
    shares = predictions.divided(num_workers)
    number, folder = predictions.num_queries, os.getcwd()
    with Workers(host, [("hold", Holding(each, number, folder)) for each in shares]) as workers:
        passes = _Passes(workers, [each.num_queries for each in shares], progress)
        made = divide_shares(
            passes,
            number,
            total=total,
            cost=cost,
            min_tokens=min_tokens,
            max_tokens=max_tokens,
            last=partial(write_budgets, predictions=predictions, out=out),
        )
    write_json(out / PLANNED, header(made))
    return made, passes.efforts


class _Passes:
    """Makes passes over the shares that workers hold; see `allocators.parts.Passes`."""

    def __init__(self, workers: Workers, sizes: Sequence[int], progress: Progress) -> None:
        self._workers, self._progress = workers, progress
        self._made: list[Pass] = []
        self.efforts = [Effort(size) for size in sizes]

    def __call__(self, work: Callable[..., Any], *args: Any, **how: Any) -> list[Any]:
        self._made.append(Pass(work, args, how))
        open_calls = {self._workers.call(index, "make", self._made[-1:]): index for index in range(len(self.efforts))}
        found: list[Any] = [None] * len(self.efforts)
        num_done, number = 0, sum(each.num_queries for each in self.efforts)
        while open_calls:
            self._progress("plan", num_done, number)
            for future in wait(open_calls, return_when=FIRST_COMPLETED).done:
                index = open_calls.pop(future)
                try:
                    found[index], peak_bytes, cpu_seconds = self._workers.answer(index, future)
                except WorkerLostError:
                    open_calls[self._workers.call(index, "make", self._made)] = index
                    continue
                effort = self.efforts[index]
                effort.sent_bytes += num_bytes(found[index])
                effort.peak_bytes, effort.cpu_seconds = max(effort.peak_bytes, peak_bytes), cpu_seconds
                effort.num_lost = self._workers.num_lost[index]
                num_done += effort.num_queries
        return found


def predict_on(
    host: Host, settings: PlanSettings, out: Path, *, num_workers: int, progress: Progress = silent
) -> Predictions:
    """The predictions of `control.large.predict_folder`, by workers that take a file at a time.

    Args:
        host: begins workers.
        settings: the predictor, the folder of questions, their columns, and the engine.
        out: the folder of predictions, on storage that all workers reach, as are questions and predictor.
        num_workers: at most; no more than there are files.
        progress: called with what is being done, questions done and questions in all.

    Raises:
        EngineError: workers are lost again and again; otherwise as `predict_folder`.
    """
    files = deque(asked_files(Path(settings.questions), out))
    rows_of = {path: num_rows(path) for path in files}
    num_workers, done, number = min(num_workers, len(files)), 0, sum(rows_of.values())
    with Workers(host, [("read", Reading(settings, out, os.getcwd()))] * num_workers) as workers:
        at_work: dict[Future[Any], tuple[int, Path]] = {}

        def give(index: int, path: Path) -> None:
            at_work[workers.call(index, "predict", path)] = index, path

        for index in range(num_workers):
            give(index, files.popleft())
        while at_work:
            progress("predict", done, number)
            for future in wait(at_work, return_when=FIRST_COMPLETED).done:
                index, path = at_work.pop(future)
                try:
                    workers.answer(index, future)
                    done += rows_of[path]
                except WorkerLostError:
                    files.appendleft(path)
                if files:
                    give(index, files.popleft())
    return Predictions.open(out)


@contextmanager
def host_for(settings: ClusterSettings) -> Iterator[Host]:
    """Ray as the host of these workers."""
    assert settings.workers is not None
    host = RayHost(
        settings.ray, num_workers=settings.workers, gpus_per_worker=settings.gpus_per_worker, worker=FolderWorker
    )
    try:
        yield host
    finally:
        host.close()


def num_bytes(message: Any) -> int:
    """Bytes of the numbers and texts in a message."""
    if isinstance(message, np.ndarray):
        return message.nbytes
    if is_dataclass(message):
        return sum(num_bytes(getattr(message, each.name)) for each in fields(message))
    if isinstance(message, list | tuple):
        return sum(map(num_bytes, message))
    return len(message) if isinstance(message, str) else 8
