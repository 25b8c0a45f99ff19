"""What a RUN argument may be: a run directory, a profile file, a predictor folder, or a shipped name."""

from __future__ import annotations

import difflib
from importlib import resources
from pathlib import Path

from ..core.data import Profile, Query
from ..errors import RunError, UnknownNameError
from ..predictors.trained import TrainedPredictor
from ..questions.queries import load_queries
from ..runs.profiles import from_run, read_parquet
from ..runs.store import RunDirectory

_DATA = resources.files("forethought") / "data"


def shipped_predictors() -> list[str]:
    """Names of the predictors inside the package."""
    folder = _DATA / "predictors"
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []


def open_predictor(source: str) -> TrainedPredictor:
    """The trained predictor of a run directory, a predictor folder, or a shipped name.

    Raises:
        RunError: a run that has not been trained yet.
        UnknownNameError: neither a folder nor a shipped name.
    """
    path = Path(source)
    for folder in (path, path / "predictor"):
        if (folder / "predictor.json").is_file():
            return TrainedPredictor.load(folder)
    if (path / "run.json").is_file():
        raise RunError(f"{source} has no predictor yet; make one with: forethought train {source}")
    shipped = shipped_predictors()
    if source in shipped:
        with resources.as_file(_DATA / "predictors" / source) as folder:
            return TrainedPredictor.load(folder)
    close = difflib.get_close_matches(source, shipped, n=1)
    suggestion = f" Did you mean {close[0]!r}?" if close else ""
    raise UnknownNameError(
        f"{source!r} is neither a run directory, nor a predictor folder, nor a shipped predictor.{suggestion} "
        f"Shipped: {', '.join(shipped) or 'none'}."
    )


def open_profile(source: str) -> Profile:
    """The profile of a run directory or a Parquet file."""
    path = Path(source)
    if path.is_dir():
        run = RunDirectory.open(path)
        if run.header["kind"] != "profile":
            raise RunError(
                f"{source} is a {run.header['kind']!r} run, not a profile; make one with: forethought profile"
            )
        return from_run(run, run_queries(run))
    if not path.exists():
        raise RunError(
            f"{source} does not exist. Give a profile run (`forethought ls` lists those here), a Parquet profile, or, "
            f"to evaluate, a shipped predictor: {', '.join(shipped_predictors()) or 'none'}."
        )
    return read_parquet(path)


def shipped_heldout(name: str) -> Profile:
    """The held-out profile shipped with the predictor `name`."""
    with resources.as_file(_DATA / "profiles" / f"{name}-gsm8k-test.parquet") as path:
        return read_parquet(path)


def run_queries(run: RunDirectory) -> list[Query]:
    """The queries of a run, as they were when it was made."""
    return load_queries(run.path / "queries.jsonl")
