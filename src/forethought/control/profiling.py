"""Profiling: every trace sampled once and judged at every cap, hidden states from the same prompt pass."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ..core.data import EngineInfo, Generation, Query, Request, Sampling, StopReason
from ..core.menu import Menu
from ..core.protocols import Engine, Grader, HiddenStateEngine
from ..core.settings import ProfileSettings
from ..errors import RunError
from ..runs.folders import profile_folder
from ..runs.store import RunDirectory, fingerprint, generation_to_json

QUERIES_PER_CHUNK = 128

Report = Callable[[Mapping[str, Any]], None]
"""What is told of each finished generation once it is safely on disk: reasoning_tokens, grade and error, if any."""


def silent(record: Mapping[str, Any]) -> None:
    """Reports nothing."""


def trace_seed(seed: int, query_id: str, sample: int) -> int:
    """Seed of one trace, from the run's seed, the query and which of its traces it is: the same whatever the order."""
    digest = hashlib.blake2b(f"{seed}:{query_id}:{sample}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1


def grader_identity(name: str, options: Mapping[str, Any], grader: Grader) -> dict[str, Any]:
    """What determines a grade given an answer and its reference: the grader's registered name, options and version."""
    return {"grader": name, "grader_options": dict(options) or None, "grader_version": getattr(grader, "version", None)}


def identity(info: EngineInfo, menu: Menu, sampling: Sampling, seed: int, grader: Mapping[str, Any]) -> dict[str, Any]:
    """What determines a record given its query and sample; two runs that differ here do not mix.

    Args:
        info: what the engine says of itself.
        menu: the budgets.
        sampling: how thoughts are drawn.
        seed: seed of the run.
        grader: `grader_identity`.
    """
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
        "menu": menu.to_json(),
        "sampling": asdict(sampling),
        "seed": seed,
        **grader,
    }


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
    report: Report = silent,
) -> None:
    """Fills `run` with what it still lacks: traces with a forced answer at every window, and hidden states.

    Args:
        run: where records go; its lock must be held.
        engine: samples the traces; gives hidden states when `layers` are asked for.
        queries: what to profile.
        menu: the windows to probe.
        num_traces: traces a query.
        seed: seed of the run.
        grader: judges every answer.
        layers: which layers' hidden states to keep; empty for none.
        retry_failed: try traces again that ended in an error.
        setup: what they are tried under, see `setup_of`.
        report: called with each record once it is safely on disk.
    """
    tries = run.tries()
    _, hidden = run.load_hidden()
    caps = tuple(int(budget) for budget in menu.budgets_B)
    with run.appender() as records:
        for start in range(0, len(queries), QUERIES_PER_CHUNK):
            chunk = queries[start : start + QUERIES_PER_CHUNK]
            unseen = [query for query in chunk if query.id not in hidden]
            if layers and unseen and isinstance(engine, HiddenStateEngine):
                run.save_hidden([query.id for query in unseen], layers, engine.hidden_states(unseen, layers))
            references = {query.id: query.reference for query in chunk}
            requests = [
                Request(query, menu.largest, sample, trace_seed(seed, query.id, sample), caps[:-1])
                for query in chunk
                for sample in range(num_traces)
                if tries.is_left(query.id, sample, retry_failed=retry_failed, setup=setup)
            ]
            async for generation in engine.generate(requests):
                record = graded_record(generation, references[generation.query_id], grader, setup=setup)
                records.append([record])
                report(record)


def check_layers_kept(run: RunDirectory, layers: Sequence[int]) -> None:
    """Refuses layers other than the run holds already: a predictor needs the same ones of every query.

    Raises:
        RunError: naming the layers that it holds.
    """
    held, hidden = run.load_hidden()
    if hidden and tuple(layers) != held:
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


def graded_record(generation: Generation, reference: str | None, grader: Grader, *, setup: str = "") -> dict[str, Any]:
    """The record of one generation with a grade for its answer and for each probe; no reference, no grade.

    A failed one says in which `setup` it failed.
    """
    record = graded(generation_to_json(generation), reference, grader, {})
    return {**record, "setup": setup} if generation.stop_reason is StopReason.ERROR else record


def graded(
    record: Mapping[str, Any], reference: str | None, grader: Grader, verdicts: dict[tuple[str, str], str]
) -> dict[str, Any]:
    """A record with a grade for its answer and for each probe; None without a reference, and for a failed trace.

    Args:
        record: one trace, with or without grades of another grader.
        reference: the right answer, if it is known.
        grader: judges.
        verdicts: (answer, reference) -> what was said of them before; filled as it goes.
    """
    is_gradable = record["stop_reason"] != StopReason.ERROR.value and reference is not None

    def grade(answer: str) -> str | None:
        if not is_gradable or reference is None:
            return None
        if (answer, reference) not in verdicts:
            verdicts[answer, reference] = grader.grade(answer=answer, reference=reference).value
        return verdicts[answer, reference]

    probes = [{**probe, "grade": grade(probe["answer"])} for probe in record["probes"]]
    return {**record, "probes": probes, "grade": grade(record["answer"])}
