"""Profiling: every trace is sampled once and graded at every cap; hidden states of every prompt are stored."""

from __future__ import annotations

import hashlib
import itertools
import logging
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..core.arguments import path_of
from ..core.data import EngineInfo, Query, Request, Sampling
from ..core.menu import Menu
from ..core.options import Option
from ..core.parquet import write_parquet
from ..core.profile import Profile
from ..core.protocols import Engine, Grader, HiddenStateEngine, check_engine, check_menu
from ..core.provenance import Provenance
from ..core.settings import EngineSettings, ProfileSettings
from ..core.showing import Progress, watched
from ..core.showing import silent as unseen
from ..core.waiting import finish
from ..core.worker import ALONE, Worker
from ..engines import opening
from ..engines.context import ceiling_of
from ..errors import ForethoughtError, InvalidSettingsError, RunError
from ..questions.queries import Question, load_queries, read_questions, save_queries
from ..runs.folders import profile_folder
from ..runs.profiles import from_run
from ..runs.store import RunDirectory, fingerprint
from .judging import Judge
from .keeping import Keeping, KeepingEngine, generated, keeper
from .reading import batches

logger = logging.getLogger(__name__)

QUERIES_PER_CHUNK = 128

Report = Callable[[Mapping[str, Any]], None]
"""What is told of each finished generation once it is safely on disk: reasoning_tokens, grade and error, if any."""


def silent(record: Mapping[str, Any]) -> None:
    """Reports nothing."""


def trace_seed(seed: int, query_id: str, sample: int, option: str = "") -> int:
    """Seed of one trace, from the run's seed, query, sample and option; independent of the order."""
    named = f":{option}" if option else ""
    digest = hashlib.blake2b(f"{seed}:{query_id}:{sample}{named}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1


def planned_seed(seed: int, query_id: str, sample: int, option: Option | None) -> int:
    """Seed of a sample of a run: options that set nothing but a cap share it, so that their thoughts begin alike."""
    return trace_seed(seed, query_id, sample, option.label if option is not None and option.set else "")


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
    progress: Progress = unseen,
) -> None:
    """Fills `run` with what it still lacks: hidden states, and traces with a forced answer at every cap.

    Of a menu of named options each trace is sampled once under every option, without probes.

    Hidden states are read first, some queries at a time; the traces of all queries are one stream, which the engine
    takes as it has room.

    Args:
        run: where records go; its lock must be held.
        engine: samples the traces; gives hidden states when `layers` are asked for.
        queries: what to profile; of several workers, each takes those that are its own.
        menu: the caps to probe.
        num_traces: traces per query.
        seed: seed of the run.
        grader: judges every answer.
        layers: which layers' hidden states to keep; empty for none.
        retry_failed: try traces again that ended in an error.
        setup: what they are tried under, see `setup_of`.
        worker: who writes.
        report: called with each record once it is safely on disk.
        progress: called with what is being done, traces that came and traces in all.
    """
    own = {query.id: query for query in queries if worker.owns(query.id)}
    tries, ceiling = run.tries(), ceiling_of(engine.info)
    budgets, probes = (menu.caps, ()) if menu.is_named else (menu.caps[-1:], menu.caps[:-1])

    def requests() -> Iterator[Request]:
        for query, sample, budget in itertools.product(own.values(), range(num_traces), budgets):
            cap, option = menu.asked(budget, ceiling)
            label = menu.label(budget) if menu.is_named else ""
            if tries.is_left(query.id, sample, label, retry_failed=retry_failed, setup=setup):
                yield Request(query, cap, sample, trace_seed(seed, query.id, sample, label), probes, option=option)

    with keeper(engine, Keeping(run.path, menu, grader, setup, worker)) as keep:
        if layers and isinstance(engine, HiddenStateEngine):
            _read_states(run, engine, list(own.values()), layers, worker, progress)
        num_come, num_left = 0, sum(1 for _ in requests())
        progress("profile", 0, num_left)
        async for generation in generated(engine, requests()):
            report(keep(generation, own[generation.query_id].reference).to_json())
            num_come += 1
            progress("profile", num_come, num_left)


def _read_states(
    run: RunDirectory,
    engine: HiddenStateEngine,
    queries: Sequence[Query],
    layers: Sequence[int],
    worker: Worker,
    progress: Progress,
) -> None:
    """Stores the missing hidden states; a kill loses at most the current chunk."""
    held = {query_id for chunk in run.hidden_chunks()[1] for query_id in chunk.query_ids}
    unseen = [query for query in queries if query.id not in held]
    if isinstance(engine, KeepingEngine):
        progress("read", 0, len(unseen))
        for num_read in itertools.accumulate(engine.keep_states(unseen, layers)):
            progress("read", num_read, len(unseen))
        return
    for start in range(0, len(unseen), QUERIES_PER_CHUNK):
        chunk = unseen[start : start + QUERIES_PER_CHUNK]
        read = batches(chunk, engine.info, num_before=start, total=len(unseen), progress=progress)
        hidden_Q_L_D = np.concatenate([engine.hidden_states(batch, layers) for batch in read])
        run.save_hidden([query.id for query in chunk], layers, hidden_Q_L_D, worker=worker)


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


async def profile_async(
    engine: Engine,
    questions: str | Path | Iterable[Question],
    *,
    menu: Menu | Path | str | int | Sequence[int] | None = None,
    num_traces: int = 4,
    grader: str | Grader | Judge = "number",
    layers: str | Sequence[int] = "all",
    seed: int = 0,
    out: str | Path | None = None,
    retry_failed: bool = True,
    worker: Worker = ALONE,
    report: Report = silent,
    progress: Progress | bool | None = None,
    sampling: Sampling | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Profile:
    """Measures how often each question is answered right under every cap, and what that takes.

    Args:
        engine: runs the model.
        questions: texts with references: rows, queries, or a file's name; see `read_questions`.
        menu: the caps: a menu, "512,1024,4096", "geometric:256:32768", or whole numbers; None for those that suit the
            model. Or named options: such a menu, or its file ("menu.toml").
        num_traces: traces per question; of named options under each.
        grader: judges the answers: a registered name or a grader.
        layers: whose hidden states to keep: "all" that the engine shows, "none", or their numbers.
        seed: of the traces.
        out: a run directory that keeps every trace and goes on where it was stopped; None keeps nothing on disk.
        retry_failed: try failed traces again.
        worker: of several processes that fill `out` together: it takes the questions that are its own.
        report: called with each record.
        progress: called with what is being done, traces that came and traces in all; True for a bar, False for none,
            None for one in a notebook.
        sampling: how the engine draws thoughts, where it does not say so itself.
        settings: kept in the run directory for its reader.

    Raises:
        InvalidInputError: a question without a reference that the grader can read.
        RunError: `out` holds something else.
    """
    check_engine(engine)
    queries, judge, caps = read_questions(questions), Judge.of(grader), _menu_of(menu, engine)
    if isinstance(num_traces, bool) or not isinstance(num_traces, int) or num_traces < 1:
        raise InvalidSettingsError(f"num_traces must be a whole number of at least 1, not {num_traces!r}")
    judge.check(queries, required=True)
    caps.check_singles()
    check_menu(engine, caps)
    made = Provenance.of(engine.info, menu=caps, sampling=sampling or engine.info.sampling or Sampling(), seed=seed)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) if out is None else path_of(out)
        run = RunDirectory.create(
            folder / "in-memory" if out is None else folder,
            kind="profile",
            provenance=made.with_grader(judge.provenance),
            settings=settings or {},
        )
        wanted = _layer_numbers(layers, engine)
        stack.enter_context(run.locked(worker))
        check_layers_kept(run, wanted)
        with run.turn():
            every_query = merge_queries(run, queries)
        said = stack.enter_context(watched(progress))
        await sample_traces(
            run,
            engine,
            queries,
            menu=caps,
            num_traces=num_traces,
            seed=seed,
            grader=judge.grader,
            layers=wanted,
            retry_failed=retry_failed,
            worker=worker,
            setup=setup_of(engine.info, (settings or {}).get("engine", {}).get("options", {})),
            report=report,
            progress=said,
        )
        with run.turn():  # the last of several workers to come here writes what holds of all
            measured = from_run(run, every_query)
            if out is not None:
                write_parquet(run.path / "profile.parquet", measured)
        return measured


def profile(engine: Engine, questions: str | Path | Iterable[Question], **settings: Any) -> Profile:
    """`profile_async`, with the same arguments, for code that is not a coroutine, also in a notebook."""
    return finish(profile_async(engine, questions, **settings))


def _menu_of(menu: Menu | Path | str | int | Sequence[int] | None, engine: Engine) -> Menu:
    if isinstance(menu, Menu):
        return menu
    if isinstance(menu, Path) or (isinstance(menu, str) and menu.endswith(".toml")):
        return Menu.read(menu)
    if menu is not None:
        return Menu.parse(menu) if isinstance(menu, str) else Menu.of([menu] if isinstance(menu, int) else menu)
    info = engine.info
    settings = EngineSettings(engine=info.engine, context_tokens=info.context_tokens, template=info.template or "")
    try:
        found, reason = opening.caps(info.model, settings, opening.prompting(info.model, settings))
    except ForethoughtError:  # a template of the user's own
        found, reason = opening.USUAL, "nothing else is known of the model"
    logger.info("caps %s: %s", found, reason)
    return found


def _layer_numbers(layers: str | Sequence[int], engine: Engine) -> tuple[int, ...]:
    num_layers = engine.info.num_layers if isinstance(engine, HiddenStateEngine) else None
    if layers == "none" or not layers or (layers == "all" and num_layers is None):
        return ()
    if layers == "all":
        return tuple(range((num_layers or 0) + 1))
    if isinstance(layers, str) or num_layers is None or not all(0 <= layer <= num_layers for layer in layers):
        known = "this engine shows none" if num_layers is None else f"the model has layers 0 to {num_layers}"
        raise InvalidSettingsError(f"layers must be 'all', 'none' or numbers of layers, not {layers!r}: {known}")
    return tuple(sorted(set(layers)))


def merge_queries(run: RunDirectory, queries: Sequence[Query]) -> list[Query]:
    """The run's queries and the new ones, written back; one id cannot belong to two different queries."""
    path = run.path / "queries.jsonl"
    known = {query.id: query for query in load_queries(path)} if path.exists() else {}
    changed = [query for query in queries if query.id in known and known[query.id] != query]
    if changed and not run.holds_results():  # nothing was measured on the old ones
        run.forget()
        known, changed = {}, []
    if changed:
        ids = ", ".join(repr(query.id) for query in changed[:5]) + (", …" if len(changed) > 5 else "")
        if all(replace(known[query.id], reference=query.reference) == query for query in changed):
            raise RunError(
                f"{run.path} was graded by other reference answers to {len(changed)} of these questions ({ids}). Grade "
                f"the stored answers with the new ones first: forethought regrade {run.path} --answers FILE"
            )
        raise RunError(f"{run.path} already holds other questions under the ids {ids}; give another --out")
    merged = [*known.values(), *(query for query in queries if query.id not in known)]
    if merged != list(known.values()):
        save_queries(path, merged)
    return merged
