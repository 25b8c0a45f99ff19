"""What becomes of a generation: it is judged, and on disk as a record before anybody is told of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, aclosing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

from ..core.data import Generation, Grade, Query, Request
from ..core.menu import Menu
from ..core.protocols import CountingEngine, Engine, Grader
from ..core.records import Record
from ..core.worker import ALONE, Worker
from ..engines.flight import failed
from ..errors import EngineError
from ..runs.store import RunDirectory
from .counts import earlier_counts, save_counts


@dataclass(frozen=True, slots=True)
class Keeping:
    """How the records of a run are made and kept.

    Attributes:
        folder: the run directory; held for writing.
        menu: the caps or options that there are.
        grader: judges the answers.
        setup: what failed traces were tried under, see `profiling.setup_of`.
        worker: who writes.
        is_counted: whether what the engine counts is kept too.
        retries_lost: whether a trace that is lost with its process is tried again without asking; a hard cap asks.
    """

    folder: Path
    menu: Menu
    grader: Grader
    setup: str = ""
    worker: Worker = ALONE
    is_counted: bool = False
    retries_lost: bool = True


@runtime_checkable
class KeepingEngine(Engine, Protocol):
    """An engine of several processes, each of which keeps its own records in a shard of the run.

    Within `kept_in`, `generate` gives records that are on disk, without the text of their thoughts. What it gives that
    is no `Record` is left to the caller: a trace that no process could run.
    """

    def kept_in(self, keeping: Keeping) -> AbstractContextManager[None]:
        """Until the `with` ends, each process keeps what it generates; `keeping.worker` is the lead of its crew."""
        ...

    def keep_states(self, queries: Sequence[Query], layers: Sequence[int]) -> Iterator[int]:
        """Reads hidden states, each process into chunks of its own; gives how many queries each batch had."""
        ...


@contextmanager
def keeper(engine: Engine, keeping: Keeping) -> Iterator[Callable[[Generation, str | None], Record]]:
    """Opens the shard of `keeping.worker`; gives what makes a record of a generation and its query's reference.

    A record is judged and wholly on disk when it is given back.
    """
    run, is_kept = RunDirectory(keeping.folder), isinstance(engine, KeepingEngine)
    earlier = earlier_counts(run, keeping.worker) if keeping.is_counted and not is_kept else None
    processes = engine.kept_in(keeping) if isinstance(engine, KeepingEngine) else nullcontext()
    with processes, run.appender(keeping.worker) as records:

        def keep(generation: Generation, reference: str | None) -> Record:
            if isinstance(generation, Record):  # by the process that generated it
                return generation
            check_label(engine, keeping.menu, generation)
            record = judged(Record.of(generation, setup=keeping.setup), reference, keeping.grader)
            records.append([record.to_json()])
            if earlier is not None:
                save_counts(run, earlier, engine, keeping.worker)
            return record

        yield keep
    if earlier is not None and isinstance(engine, CountingEngine):
        save_counts(run, earlier, engine, keeping.worker)


async def generated(engine: Engine, requests: Iterable[Request]) -> AsyncIterator[Generation]:
    """As `Engine.generate`, each request once: one that the engine leaves out has failed.

    Raises:
        EngineError: the engine gives what it was not asked for.
    """
    held: dict[tuple[str, int], list[Request]] = {}

    def asked() -> Iterator[Request]:
        for request in requests:
            held.setdefault((request.query.id, request.sample), []).append(request)
            yield request

    async with aclosing(cast("AsyncGenerator[Generation, None]", engine.generate(asked()))) as found:
        async for generation in found:
            alike = held.get(key := (generation.query_id, generation.sample), [])
            own = next((each for each in alike if each.label == generation.option), alike[0] if alike else None)
            if own is None:
                raise EngineError(f"engine {engine.info.engine!r} gave sample {key[1]} of {key[0]!r} unasked")
            alike.remove(own)
            if not alike:
                del held[key]
            yield generation
    for request in [each for alike in held.values() for each in alike]:
        yield failed(request, f"engine {engine.info.engine!r} gave no answer to it")


def check_label(engine: Engine, menu: Menu, generation: Generation) -> None:
    """Refuses what came back by no option of a menu that has names; raises EngineError."""
    if menu.is_named and generation.option not in menu.singles:
        raise EngineError(
            f"engine {engine.info.engine!r} does not report the option of an answer "
            "(`Generation.option`): it supports only caps"
        )


def judged(
    record: Record,
    reference: str | None,
    grader: Grader,
    verdicts: dict[tuple[str, str], Grade] | None = None,
) -> Record:
    """A record with a verdict on its answer and on each probe; None without a reference, and for a failed trace.

    Args:
        record: one trace, with or without verdicts of another grader.
        reference: the right answer, if it is known.
        grader: judges.
        verdicts: (answer, reference) -> what was said of them before; filled as it goes.
    """
    known = {} if verdicts is None else verdicts
    if reference is None or record.is_failed:
        return replace(record, grade=None, probes=tuple(replace(probe, grade=None) for probe in record.probes))

    def verdict(answer: str) -> Grade:
        if (answer, reference) not in known:
            known[answer, reference] = grader.grade(answer=answer, reference=reference)
        return known[answer, reference]

    probes = tuple(replace(probe, grade=verdict(probe.answer)) for probe in record.probes)
    return replace(record, grade=verdict(record.answer), probes=probes)
