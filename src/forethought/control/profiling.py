"""Profiling: every trace sampled once and judged at every cap, and the hidden states of every prompt."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..core.data import EngineInfo, Grade, Query, Request
from ..core.menu import Menu
from ..core.protocols import Engine, Grader, HiddenStateEngine
from ..core.records import Record
from ..core.settings import ProfileSettings
from ..core.worker import ALONE, Worker
from ..errors import RunError
from ..runs.folders import profile_folder
from ..runs.store import RunDirectory, fingerprint

QUERIES_PER_CHUNK = 128

Report = Callable[[Mapping[str, Any]], None]
"""What is told of each finished generation once it is safely on disk: reasoning_tokens, grade and error, if any."""


def silent(record: Mapping[str, Any]) -> None:
    """Reports nothing."""


def trace_seed(seed: int, query_id: str, sample: int) -> int:
    """Seed of one trace, from the run's seed, the query and which of its traces it is: the same whatever the order."""
    digest = hashlib.blake2b(f"{seed}:{query_id}:{sample}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1


async def sample_traces(
    run: RunDirectory,
    engine: Engine,
    queries: Sequence[Query],
    *,
    menu: Menu,
    num_traces: int,
    seed: int,
    grader: Grader,
    layers: Sequence[int] = (),
    retry_failed: bool = True,
    setup: str = "",
    worker: Worker = ALONE,
    report: Report = silent,
) -> None:
    """Fills `run` with what it still lacks: hidden states, and traces with a forced answer at every cap.

    Hidden states are read first, some queries at a time; the traces of all queries are one stream, which the engine
    takes as it has room.

    Args:
        run: where records go; its lock must be held.
        engine: samples the traces; gives hidden states when `layers` are asked for.
        queries: what to profile; of several workers, each takes those that are its own.
        menu: the caps to probe.
        num_traces: traces a query.
        seed: seed of the run.
        grader: judges every answer.
        layers: which layers' hidden states to keep; empty for none.
        retry_failed: try traces again that ended in an error.
        setup: what they are tried under, see `setup_of`.
        worker: who writes.
        report: called with each record once it is safely on disk.
    """
    own = {query.id: query for query in queries if worker.owns(query.id)}
    if layers and isinstance(engine, HiddenStateEngine):
        _read_states(run, engine, list(own.values()), layers, worker)
    tries, probes = run.tries(), menu.caps[:-1]
    requests = (
        Request(query, menu.largest, sample, trace_seed(seed, query.id, sample), probes)
        for query in own.values()
        for sample in range(num_traces)
        if tries.is_left(query.id, sample, retry_failed=retry_failed, setup=setup)
    )
    with run.appender(worker) as records:
        async for generation in engine.generate(requests):
            reference = own[generation.query_id].reference
            line = judged(Record.of(generation, setup=setup), reference, grader).to_json()
            records.append([line])
            report(line)


def _read_states(
    run: RunDirectory, engine: HiddenStateEngine, queries: Sequence[Query], layers: Sequence[int], worker: Worker
) -> None:
    """Keeps the hidden states that are not there yet; a kill costs the chunk that was under way."""
    held = {query_id for chunk in run.hidden_chunks()[1] for query_id in chunk.query_ids}
    unseen = [query for query in queries if query.id not in held]
    for start in range(0, len(unseen), QUERIES_PER_CHUNK):
        chunk = unseen[start : start + QUERIES_PER_CHUNK]
        ids = [query.id for query in chunk]
        run.save_hidden(ids, layers, engine.hidden_states(chunk, layers), worker=worker)


def check_layers_kept(run: RunDirectory, layers: Sequence[int]) -> None:
    """Refuses layers other than the run holds already: a predictor needs the same ones of every query.

    Raises:
        RunError: naming the layers that it holds.
    """
    held, _ = run.hidden_chunks()
    if held and tuple(layers) != held:
        numbers = ",".join(map(str, held))
        asked = f"--layers {','.join(map(str, layers))}" if layers else "--layers none"
        raise RunError(
            f"{run.path} holds hidden states of the layers {numbers}, and {asked} asks for others. "
            f"Give --layers {numbers}, or another --out."
        )


def check_asked_layers(settings: ProfileSettings) -> None:
    """The same before a model is loaded, for layers that are asked for by number."""
    folder = profile_folder(settings)
    if settings.layers != "all" and (folder / "run.json").is_file():
        check_layers_kept(RunDirectory.open(folder), settings.layer_numbers(sys.maxsize))


def setup_of(info: EngineInfo, options: Mapping[str, Any]) -> str:
    """What may be mended about a failed trace without another identity: the context, the server, engine options."""
    return fingerprint([info.context_tokens, info.server, sorted((key, repr(options[key])) for key in options)])


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
