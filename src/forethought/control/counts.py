"""What engines counted, kept beside the records of a run: the calls of a killed process were paid for too."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..core.codec import MOST, UnfitError, shown
from ..core.files import reaching, read_json
from ..core.protocols import CountingEngine, Engine
from ..core.visible import to_json
from ..core.worker import Worker
from ..errors import RunError
from ..runs.store import RunDirectory

DISCARDED = "discarded_tokens"  # what engines call the tokens of what failed

logger = logging.getLogger(__name__)


def counts_of_all(run: RunDirectory) -> dict[str, Any]:
    """What the engines of all workers counted, over all calls."""
    counted: dict[str, Any] = {}
    for each in _counts_files(run):
        counted = added(counted, _read_counts(each))
    return counted


def _counts_files(run: RunDirectory) -> list[Path]:
    """Where workers keep what engines counted; a run that an older version began has it in its summary alone."""
    found = sorted(run.path.glob("counts*.json"))
    return found or [file for file in [run.path / "summary.json"] if file.exists()]


def _read_counts(path: Path) -> dict[str, Any]:
    """What engines had counted; nothing where the file cannot be read, which is said."""
    try:
        found = read_json(path)
        counted = found.get("engine", {}) if path.name == "summary.json" else found
        return check_counts(counted)
    except (RunError, UnfitError, AttributeError) as error:
        logger.warning("%s was damaged (%s): the engine counters of earlier starts are lost", path, error)
        return {}


def check_counts(counts: Any) -> dict[str, Any]:
    """What an engine counted: numbers, and objects of numbers; raises UnfitError on anything else."""
    if not isinstance(counts, dict):
        raise UnfitError(f"it must be an object, not {shown(counts)}")
    for key, value in counts.items():
        if isinstance(value, dict):
            check_counts(value)
        elif type(value) not in (int, float) or not 0 <= value <= MOST:
            raise UnfitError(f"{shown(key)} must be a number of at least 0, not {shown(value)}")
    return counts


def earlier_counts(run: RunDirectory, worker: Worker) -> dict[str, Any]:
    """What engines have counted in this worker's calls so far."""
    own = run.path / worker.named("counts.json")
    if own.exists():
        return _read_counts(own)
    old = _counts_files(run)
    return _read_counts(old[0]) if worker.is_alone and old and old[0].name == "summary.json" else {}


def save_counts(run: RunDirectory, earlier: Mapping[str, Any], engine: Engine, worker: Worker) -> None:
    """Stores the counters next to the records, because the calls of a killed run were paid for.

    Not forced onto the disk, as records are: a kill loses nothing, and a power cut some counts, but no half file.
    """
    if isinstance(engine, CountingEngine):
        path = run.path / worker.named("counts.json")
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with reaching(path, "written"):
            temporary.write_text(to_json(added(earlier, engine.counted())), "utf-8")
            temporary.replace(path)


def losses(engine: Engine, earlier: Mapping[str, Any] | None = None) -> Callable[[], int] | None:
    """Tells how many tokens were generated for what failed, since now and before; None where the engine does not count.

    Args:
        engine: that generates.
        earlier: counts of earlier calls.
    """
    if not isinstance(engine, CountingEngine) or (before := engine.counted().get(DISCARDED)) is None:
        return None
    before -= (earlier or {}).get(DISCARDED, 0)
    return lambda: int(engine.counted()[DISCARDED] - before)


def added(earlier: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """Two objects of counts put together: sums, but of what is named `largest_` the larger."""
    found = dict(earlier)
    for name, value in later.items():
        if isinstance(value, Mapping):
            found[name] = added(found.get(name, {}), value)
        else:
            before = found.get(name, 0)
            found[name] = max(before, value) if name.startswith("largest_") else before + value
    return found
