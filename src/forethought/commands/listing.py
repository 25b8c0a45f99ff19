"""The content of a folder of results: runs, predictors, profile files and reports, one row each, newest first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..control import sources
from ..control.results import read_summary, summary
from ..core.data import Cost, Grade
from ..core.files import reaching
from ..core.options import MOST_TOKENS
from ..core.profile import Profile
from ..core.records import Opinion
from ..core.terms import percent
from ..core.visible import one_line
from ..errors import ForethoughtError, RunError
from ..predictors.bundle import SETTINGS_FILE
from ..predictors.parts.making import Progress, silent
from ..predictors.predictor import read_card
from ..report.pages import aligned
from ..report.wording import level_words
from ..runs.journal import JournalHeader, is_journal, journal_counts
from ..runs.profiles import is_profile_file, read_parquet
from ..runs.store import RunDirectory
from .overview import changed

DEFAULT = "runs"
REPORTS = ("evaluation.json", "live.json", "comparison.json", "layers.json", "paper.json")


def list_results(folder: str = DEFAULT, *, progress: Progress = silent) -> list[dict[str, Any]]:
    """One row for each result in `folder`, the newest first; what cannot be read is a row with the reason.

    Args:
        folder: of the results.
        progress: called with what is being done, steps done and steps in all.

    Raises:
        RunError: `folder` is not there, or no folder; the default one need not be there yet.
        FileError: the system does not let it be read.
    """
    path = Path(folder)
    with reaching(path, "read"):
        if folder == DEFAULT and not path.exists():
            return []
        if not path.is_dir():
            raise RunError(f"{folder} is not a folder; name the folder that holds the runs: forethought ls FOLDER")
        entries = sorted(path.iterdir())
    rows: list[dict[str, Any]] = []
    for number, entry in enumerate(entries):
        progress("read", number, len(entries))
        rows += _rows(entry)
    return sorted(rows, key=lambda row: row.get("changed", ""), reverse=True)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """What `path` is and holds, and the predictor that was trained in it; nothing for what is none of ours."""
    if path.name.startswith("."):
        return
    for place, read in ((path, _row), (path / "predictor", _predictor_row)):
        try:
            if place == path or (place / SETTINGS_FILE).is_file():
                row = read(place)
                if row is not None:
                    yield row
        except ForethoughtError as error:
            yield {"run": str(place), "error": str(error)}
        except OSError as error:
            yield {"run": str(place), "error": error.strerror or str(error)}


def _row(path: Path) -> dict[str, Any] | None:
    if path.is_file():
        return _profile_row(path) if is_profile_file(path, is_refused=True) else None
    if (path / "run.json").exists():
        return _run_row(RunDirectory.open(path))
    if is_journal(path):
        return _journal_row(path)
    if (path / SETTINGS_FILE).exists():
        return _predictor_row(path)
    return next((_filled(path, "report", path / name) for name in REPORTS if (path / name).exists()), None)


def _filled(path: Path, kind: str, *files: Path, **found: Any) -> dict[str, Any]:
    """A row, None for what it does not know; `files` say when it was changed."""
    keys = ("model", "engine", "questions", "traces", "failed", "at", "right", "tokens")
    rest = {"simulated": False, "trained": False}
    return {"run": str(path), "kind": kind, **dict.fromkeys(keys), **rest, **found, "changed": changed(*files)}


def _run_row(run: RunDirectory) -> dict[str, Any]:
    path, header = run.path, run.header
    kind, made = header.kind, header.provenance
    is_planned = kind == "run" and (path / "plan.json").exists()
    found = _counted(run) if kind in ("asked", "states") else _planned(run) if is_planned else _measured(run)
    return _filled(
        path,
        kind,
        *run.shards(),
        path / "run.json",
        model=made.model,
        engine=made.engine,
        simulated=made.simulated,
        trained=(path / "predictor" / SETTINGS_FILE).is_file(),
        **found,
    )


def _is_newest(file: Path, run: RunDirectory, *others: Path) -> bool:
    """Whether a file that sums up a run was written after all that it sums up: then records need not be read."""
    summed_up = (*run.shards(), *others)
    return file.is_file() and all(file.stat().st_mtime_ns >= each.stat().st_mtime_ns for each in summed_up)


def _planned(run: RunDirectory) -> dict[str, Any]:
    """A run by a plan."""
    is_summed = _is_newest(run.path / "summary.json", run, run.path / "plan.json")
    counts = read_summary(run) if is_summed else summary(run, sources.run_queries(run))
    more = run.header.provenance.more
    at, cost = None, more.get("cost")
    is_known = isinstance(total := more.get("total"), int | float) and abs(total) < MOST_TOKENS
    if is_known and cost in list(Cost) and counts["queries"]:
        at = f"{level_words(round(total / counts['queries'], 6), Cost(cost))} {cost}"
    return {
        "questions": counts["queries"],
        "traces": counts["answered"] + counts["failed"],
        "failed": counts["failed"],
        "at": at,
        "right": _share(counts["right"], counts["graded"] + counts["failed_with_reference"]),
        "tokens": _share(counts["spent_tokens"], counts["answered"] - counts["not_counted"]),
    }


def _measured(run: RunDirectory) -> dict[str, Any]:
    """A profile run: by its table where that holds everything, else by its records."""
    if _is_newest(run.path / "profile.parquet", run):
        found = _profiled(read_parquet(run.path / "profile.parquet", with_hidden=False))
        return {**found, "failed": None}
    return _counted(run)


def _counted(run: RunDirectory) -> dict[str, Any]:
    """What the records of a run say."""
    found, ids = Counter[str](), set[str]()
    for record in run.opinions() if run.header.kind == "asked" else run.latest():
        ids.add(record.query_id)
        found.update(traces=1, failed=record.is_failed)
        if isinstance(record, Opinion):
            found.update({} if record.is_failed else {"counted": 1, "tokens": record.tokens})
        elif (outcome := record.at(record.budget)) is not None:
            found.update(graded=outcome.grade is not None, right=outcome.grade is Grade.RIGHT)
            found.update({} if outcome.tokens is None else {"counted": 1, "tokens": outcome.tokens})
    menu, is_listed = run.header.provenance.menu, (run.path / "queries.jsonl").exists()
    return {
        "questions": len(sources.run_queries(run)) if is_listed else len(ids),
        "traces": found["traces"],
        "failed": found["failed"],
        "at": None if menu is None else menu.labels[-1],
        "right": _share(found["right"], found["graded"]),
        "tokens": _share(found["tokens"], found["counted"]),
    }


def _predictor_row(path: Path) -> dict[str, Any]:
    card = read_card(path)
    return _filled(
        path,
        "predictor",
        path / SETTINGS_FILE,
        model=card.model,
        simulated=card.data.simulated,
        questions=card.data.num_queries,
        traces=card.data.num_traces,
        at=card.menu.labels[-1],
        right=round(card.mean_p_B[-1], 4),
        tokens=None if card.mean_tokens_B is None else round(card.mean_tokens_B[-1], 4),
        trained=True,
    )


def _profile_row(path: Path) -> dict[str, Any]:
    measured = read_parquet(path, with_hidden=False)
    made = measured.provenance
    return _filled(
        path,
        "import" if made.engine in (None, "import") else "profile file",
        path,
        model=made.model,
        engine=made.engine,
        simulated=made.simulated,
        trained=(path.with_suffix("") / SETTINGS_FILE).is_file(),
        **_profiled(measured),
    )


def _journal_row(path: Path) -> dict[str, Any]:
    """A gateway's journal: every request of it, and what is right of those whose outcome is known."""
    found = journal_counts(path)
    made = JournalHeader.read(path).provenance
    return _filled(
        path,
        "journal",
        *path.glob("*.json*"),
        model=made.model,
        engine=made.engine,
        simulated=made.simulated,
        questions=found["questions"],
        traces=found["requests"],
        failed=found["failed"],
        right=_share(found["right"], found["outcomes"]),
        tokens=_share(found["tokens"], found["counted"]),
        trained=(path / "predictor" / SETTINGS_FILE).is_file(),
    )


def _profiled(measured: Profile) -> dict[str, Any]:
    """A profile at its largest cap, or the option that takes most."""
    tried_Q = measured.tries_Q_B[:, -1]
    num_tried = int(tried_Q.sum())
    is_known_Q = tried_Q > 0
    tokens = float(tried_Q[is_known_Q] @ measured.tokens_Q_B[is_known_Q, -1]) if measured.is_spend_measured else None
    return {
        "questions": measured.num_queries,
        "traces": int(measured.num_tried_Q.sum()),
        "at": measured.menu.labels[-1],
        "right": _share(int(measured.num_right_Q_B[:, -1].sum()), num_tried),
        "tokens": None if tokens is None else _share(tokens, num_tried),
    }


def _share(part: float, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def results_text(rows: Sequence[Mapping[str, Any]], folder: str) -> str:
    """The list as text, newest first; unreadable entries at the end."""
    if not rows:
        return f"no runs in {folder}; make one with: forethought profile MODEL QUESTIONS"
    table = [["changed", "run", "kind", "model", "questions", "at", "right", "tokens", "failed"]]
    for row in rows:
        if "error" not in row:
            model = (row["model"] or "-") + (" (simulated)" if row["simulated"] else "")
            cells = [
                _cell(row["questions"], "{:,}"),
                row["at"] or "-",
                "-" if row["right"] is None else percent(row["right"]),
            ]
            cells += [_cell(row["tokens"], "{:,.1f}"), _cell(row["failed"], "{:,}")]
            table.append([row["changed"][:16].replace("T", " "), row["run"], row["kind"], model, *cells])
    lines = aligned(table, num_left=4) if len(table) > 1 else []
    return "\n".join(
        [
            *lines,
            *(f"{one_line(row['run'])} cannot be read: {one_line(row['error'])}" for row in rows if "error" in row),
        ]
    )


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
