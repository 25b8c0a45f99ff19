"""Opens the engines of a cluster as one engine, by the settings of a command."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from ..core.settings import ClusterSettings, EngineSettings
from ..core.showing import Progress, silent
from ..engines.opening import choose
from .crew import Crew
from .engine import ClusterEngine, engine_of
from .ray_host import RayHost
from .worker import Task


@contextmanager
def opened(
    settings: ClusterSettings,
    model: str,
    engine: EngineSettings,
    *,
    needed_tokens: int | None = None,
    progress: Progress = silent,
) -> Iterator[ClusterEngine]:
    """Workers with an engine each, as one engine; they end with the `with`.

    Args:
        settings: where they run, and how many.
        model: what each of them opens.
        engine: with what.
        needed_tokens: as for `engines.opening.opened`.
        progress: called with what is being done.

    Raises:
        MissingExtraError: Ray is not installed.
        EngineError: there is no such cluster, or no worker can open its engine.
    """
    assert settings.workers is not None
    progress(f"start Ray ({settings.ray})", 0, 0)
    host = RayHost(settings.ray, num_workers=settings.workers, gpus_per_worker=settings.gpus_per_worker)
    try:
        name, _ = choose(model, engine.engine)
        task = Task(model, replace(engine, engine=name), needed_tokens, os.getcwd())
        running = engine_of(Crew(host, task, settings.workers, progress=progress))
    except BaseException:
        host.close()
        raise
    try:
        yield running
    finally:
        running.close()
