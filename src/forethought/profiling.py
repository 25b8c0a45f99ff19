"""Profiling: every trace sampled once and judged at every cap, hidden states from the same prompt pass."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from .protocols import Engine, Grader, HiddenStateEngine
from .store import RunDirectory, generation_to_json
from .types import BudgetGrid, EngineInfo, Generation, Grade, Query, Request, Sampling, StopReason

QUERIES_PER_CHUNK = 128

Report = Callable[[Mapping[str, Any]], None]
"""What is told of each finished generation once it is safely on disk: reasoning_tokens, grade and error, if any."""


def silent(record: Mapping[str, Any]) -> None:
    """Reports nothing."""


def trace_seed(seed: int, query_id: str, sample: int) -> int:
    """Seed of one trace, from the run's seed, the query and which of its traces it is: the same whatever the order."""
    digest = hashlib.blake2b(f"{seed}:{query_id}:{sample}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1


def identity(info: EngineInfo, grid: BudgetGrid, sampling: Sampling, seed: int, grader: str) -> dict[str, Any]:
    """What determines a record given its query and sample; two runs that differ here do not mix."""
    return {
        "model": info.model,
        "model_hash": info.model_hash,
        "template": info.template,
        "template_hash": info.template_hash,
        "engine": info.engine,
        "server": info.server,
        "enforcement": info.enforcement,
        "dtype": info.dtype,
        "simulated": info.simulated,
        "window": grid.window,
        "maximum": grid.maximum,
        "sampling": asdict(sampling),
        "seed": seed,
        "grader": grader,
    }


def engine_info(identity: Mapping[str, Any]) -> EngineInfo:
    """What `identity` says of the engine, to hold against a predictor's card."""
    names = (
        "engine",
        "model",
        "model_hash",
        "template",
        "template_hash",
        "dtype",
        "simulated",
        "server",
        "enforcement",
    )
    known = {name: identity[name] for name in names if name in identity}
    return EngineInfo(**{"engine": "unknown", "model": None, **known})


async def sample_traces(
    run: RunDirectory,
    engine: Engine,
    queries: Sequence[Query],
    *,
    grid: BudgetGrid,
    num_traces: int,
    seed: int,
    grader: Grader,
    layers: Sequence[int] = (),
    retry_failed: bool = False,
    report: Report = silent,
) -> None:
    """Fills `run` with what it still lacks: traces with a forced answer at every window, and hidden states.

    Args:
        run: where records go; its lock must be held.
        engine: samples the traces; gives hidden states when `layers` are asked for.
        queries: what to profile.
        grid: the windows to probe.
        num_traces: traces a query.
        seed: seed of the run.
        grader: judges every answer.
        layers: which layers' hidden states to keep; empty for none.
        retry_failed: try traces again that ended in an error.
        report: called with each record once it is safely on disk.
    """
    done = run.latest_records()
    _, hidden = run.load_hidden()
    caps = tuple(int(budget) for budget in grid.budgets_B)
    with run.appender() as records:
        for start in range(0, len(queries), QUERIES_PER_CHUNK):
            chunk = queries[start : start + QUERIES_PER_CHUNK]
            unseen = [query for query in chunk if query.id not in hidden]
            if layers and unseen and isinstance(engine, HiddenStateEngine):
                run.save_hidden([query.id for query in unseen], layers, engine.hidden_states(unseen, layers))
            references = {query.id: query.reference for query in chunk}
            requests = [
                Request(query, grid.maximum, sample, trace_seed(seed, query.id, sample), caps[:-1])
                for query in chunk
                for sample in range(num_traces)
                if _is_missing(done.get((query.id, sample)), retry_failed)
            ]
            async for generation in engine.generate(requests):
                record = graded_record(generation, references[generation.query_id], grader)
                records.append([record])
                report(record)


def _is_missing(record: Mapping[str, Any] | None, retry_failed: bool) -> bool:
    return record is None or (retry_failed and record["stop_reason"] == StopReason.ERROR.value)


def graded_record(generation: Generation, reference: str | None, grader: Grader) -> dict[str, Any]:
    """The record of one generation with a grade for its answer and for each probe; no reference, no grade."""
    record = generation_to_json(generation)
    if generation.stop_reason is StopReason.ERROR or reference is None:
        return {**record, "grade": None}
    verdicts: dict[str, Grade] = {}

    def grade(answer: str) -> str:
        if answer not in verdicts:
            verdicts[answer] = grader.grade(answer=answer, reference=reference)
        return verdicts[answer].value

    for probe in record["probes"]:
        probe["grade"] = grade(probe["answer"])
    return {**record, "grade": grade(generation.answer)}
