"""What a RUN argument may be: a run directory, a profile file, a predictor folder, or a shipped name."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from ..core.data import Profile, Query
from ..errors import RunError
from ..predictors.bundle import shipped_predictors
from ..predictors.predictor import Predictor
from ..questions.queries import load_queries
from ..runs.profiles import from_run, read_parquet
from ..runs.store import RunDirectory

_DATA = resources.files("forethought") / "data"


def open_predictor(source: str) -> Predictor:
    """The trained predictor of a run directory, a predictor folder, or a shipped name.

    Raises:
        RunError: a run that has not been trained yet.
        UnknownNameError: neither a folder nor a shipped name.
    """
    path = Path(source)
    if (path / "run.json").is_file() and not (path / "predictor" / "predictor.json").is_file():
        raise RunError(f"{source} has no predictor yet; make one with: forethought train {source}")
    return Predictor.load(source)


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
