"""Default folders of runs, and whether they can be written."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ..core.import_settings import ImportSettings
from ..core.rows import check_rows_name
from ..core.settings import ProfileSettings, RunPlanSettings, RunSettings
from ..core.study_settings import CompareSettings, EvaluateSettings, LayersSettings, PaperSettings
from ..errors import InvalidSettingsError, RunError


def profile_folder(settings: ProfileSettings) -> Path:
    """The folder asked for, or runs/MODEL-QUESTIONS."""
    return Path(settings.out) if settings.out else Path("runs") / f"{_stem(settings.model)}-{_stem(settings.questions)}"


def import_file(settings: ImportSettings) -> Path:
    """The file asked for, or runs/NAME.parquet."""
    name = settings.name or Path(settings.files[0]).stem or "profile"
    return Path(settings.out) if settings.out else Path("runs") / f"{name.replace('/', '-')}.parquet"


def run_folder(settings: RunSettings | RunPlanSettings) -> Path:
    """The folder asked for, or runs/run-QUESTIONS-TOTAL-COST, runs/run-PLAN."""
    if settings.out:
        return Path(settings.out)
    if isinstance(settings, RunPlanSettings):
        return Path("runs") / f"run-{_stem(settings.plan_file)}"
    asked = settings.plan
    mean = asked.mean_usd if asked.mean_tokens is None else asked.mean_tokens
    total = f"mean{mean:g}" if mean is not None else f"total{asked.total_for(0):g}"
    return Path("runs") / f"run-{_stem(asked.questions)}-{total}-{asked.cost.value}"


def report_folder(settings: EvaluateSettings) -> Path:
    """The folder asked for, or RUN/evaluation; runs/evaluation-NAME for what is not a folder of the user's."""
    return Path(settings.out) if settings.out else _for_source(settings.run, "evaluation")


def layers_folder(settings: LayersSettings) -> Path:
    """The folder asked for, or RUN/layers, runs/layers-NAME; raises InvalidSettingsError where a file has that name."""
    return _not_a_file(Path(settings.out) if settings.out else _for_source(settings.run, "layers"))


def compare_folder(settings: CompareSettings) -> Path:
    """The folder asked for, or runs/compare-PROFILE."""
    return (
        Path(settings.out) if settings.out else Path("runs") / f"compare-{_stem(settings.on or settings.predictors[0])}"
    )


def bench_folder(settings: PaperSettings) -> Path:
    """The folder asked for, or runs/bench-paper-SPLIT; raises InvalidSettingsError where a file has that name."""
    return _not_a_file(Path(settings.out) if settings.out else Path("runs") / f"bench-paper-{settings.split}")


def beside(folder: Path, what: str) -> Path:
    """A folder next to `folder` for what is kept on the way to it: runs/x/predictor -> runs/x/predictor-asked."""
    return folder.with_name(f"{folder.name}-{what}")


def _for_source(run: str, what: str) -> Path:
    source = Path(run)
    return source / what if source.is_dir() else Path("runs") / f"{what}-{_stem(run)}"


def _not_a_file(folder: Path) -> Path:
    if folder.exists() and not folder.is_dir():
        raise InvalidSettingsError(f"{folder} is a file; give --out a folder")
    return folder


def _stem(name: str) -> str:
    """A short name for a folder; only a file's ending is dropped (an alias such as "coder-0.5b" has none)."""
    path = Path(name)
    return "stdin" if name == "-" else path.stem if path.is_file() else path.name


def check_folder(folder: Path, flag: str = "--out") -> None:
    """Refuses a place where no folder can be made or written; nothing is made."""
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file; give {flag} a folder")
    _check_parents(folder, flag)


def check_file(file: Path, flag: str = "--out", *, read: Iterable[str] = ()) -> None:
    """Refuses a place where no file can be written, and one of the files that are `read`; nothing is made."""
    if file.is_dir():
        raise RunError(f"{file} is a folder; give {flag} a file")
    if file.is_file() and any(Path(each).is_file() and file.samefile(each) for each in read):
        raise RunError(f"{flag} {file} is a file that is read, and would be replaced; give another {flag}")
    _check_parents(file, flag)


def check_plan_file(file: Path, *, read: Iterable[str] = ()) -> None:
    """The same for a plan: a .json file holds the plan itself, any other its budgets as rows."""
    check_rows_file(file, is_checked_name=file.suffix.lower() != ".json", read=read)


def check_rows_file(file: Path, flag: str = "--out", *, is_checked_name: bool = True, read: Iterable[str] = ()) -> None:
    """The same for a file of rows (`core.rows`), whose ending says how they are written."""
    if is_checked_name:
        check_rows_name(file, flag)
    if file.parent != Path() and not file.parent.is_dir():
        raise RunError(f"{flag} {file}: there is no folder {file.parent}")
    check_file(file, flag, read=read)


def _check_parents(path: Path, flag: str = "--out") -> None:
    nearest = next(each for each in (path, *path.absolute().parents) if each.exists())
    if nearest != path and not nearest.is_dir():
        raise RunError(f"{path}: cannot be created: {nearest} is a file; give another {flag}")
    if not os.access(nearest, os.W_OK):
        raise RunError(f"{path}: cannot be written: {nearest} is not yours to write; give another {flag}")
