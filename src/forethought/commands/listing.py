"""What is in a folder of results: runs, predictors, profile files and reports, one row each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from ..control import sources
from ..control.results import summary
from ..core.data import Grade
from ..core.files import reaching
from ..core.records import Opinion
from ..core.visible import one_line
from ..errors import ForethoughtError, RunError
from ..predictors.bundle import SETTINGS_FILE
from ..predictors.predictor import read_card
from ..runs.profiles import is_profile_file, read_parquet
from ..runs.store import RunDirectory

DEFAULT = "runs"
REPORTS = ("evaluation.json", "live.json", "comparison.json", "layers.json", "paper.json")


def list_results(folder: str = DEFAULT) -> list[dict[str, Any]]:
    """One row for each result in `folder`; what cannot be read is listed with the reason, and hides nothing else.

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
    return [row for entry in entries if (row := _row(entry)) is not None]


def _row(path: Path) -> dict[str, Any] | None:
    """What `path` is and holds; None for what is none of ours."""
    try:
        if path.name.startswith("."):
            return None
        if path.is_file():
            return _profile_row(path) if is_profile_file(path) else None
        if (path / "run.json").exists():
            return _run_row(path)
        if (path / SETTINGS_FILE).exists():
            return _predictor_row(path)
        return next((_report_row(path, name) for name in REPORTS if (path / name).exists()), None)
    except ForethoughtError as error:
        return {"run": str(path), "error": str(error)}
    except OSError as error:
        return {"run": str(path), "error": error.strerror or str(error)}


def _run_row(path: Path) -> dict[str, Any]:
    run = RunDirectory.open(path)
    header = run.header
    kind, made, found = header.kind, header.provenance, Counter[str]()
    ids = set[str]()
    for record in run.opinions() if kind == "asked" else run.latest():
        ids.add(record.query_id)
        found.update(traces=1, failed=record.is_failed)
        if isinstance(record, Opinion):
            found.update({} if record.is_failed else {"counted": 1, "tokens": record.tokens})
        elif (outcome := record.at(record.budget)) is not None:
            found.update(graded=outcome.grade is not None, right=outcome.grade is Grade.RIGHT)
            found.update({} if outcome.tokens is None else {"counted": 1, "tokens": outcome.tokens})
    queries = sources.run_queries(run) if (path / "queries.jsonl").exists() else []
    right = tokens = None
    if kind == "run" and (path / "plan.json").exists():
        counts = summary(run, queries)
        right = _share(counts["right"], counts["graded"] + counts["failed_with_reference"])
        tokens = _share(counts["spent_tokens"], counts["answered"])
    elif kind in ("profile", "asked"):
        right, tokens = _share(found["right"], found["graded"]), _share(found["tokens"], found["counted"])
    return {
        "run": str(path),
        "kind": kind,
        "model": made.model,
        "engine": made.engine,
        "simulated": made.simulated,
        "questions": len(queries) or len(ids),
        "traces": found["traces"],
        "failed": found["failed"],
        "right": right,
        "tokens": tokens,
        "changed": _changed(*run.shards(), path / "run.json"),
        "trained": (path / "predictor" / SETTINGS_FILE).is_file(),
    }


def _predictor_row(path: Path) -> dict[str, Any]:
    card = read_card(path)
    return {
        "run": str(path),
        "kind": "predictor",
        "model": card.model,
        "engine": None,
        "simulated": card.data.simulated,
        "questions": card.data.num_queries,
        "traces": card.data.num_traces,
        "failed": None,
        "right": None,
        "tokens": None,
        "changed": _changed(path / SETTINGS_FILE),
        "trained": True,
    }


def _profile_row(path: Path) -> dict[str, Any]:
    measured = read_parquet(path, with_hidden=False)
    tried_Q = measured.tries_Q_B[:, -1]  # at the largest cap, or the option that takes most
    num_tried = int(tried_Q.sum())
    tokens = float(tried_Q @ measured.tokens_Q_B[:, -1]) if measured.is_spend_measured else None
    return {
        "run": str(path),
        "kind": "profile file",
        "model": measured.provenance.model,
        "engine": measured.provenance.engine,
        "simulated": measured.provenance.simulated,
        "questions": measured.num_queries,
        "traces": int(measured.num_tried_Q.sum()),
        "failed": None,
        "right": _share(int(measured.num_right_Q_B[:, -1].sum()), num_tried),
        "tokens": None if tokens is None else _share(tokens, num_tried),
        "changed": _changed(path),
        "trained": (path.with_suffix("") / SETTINGS_FILE).is_file(),
    }


def _report_row(path: Path, name: str) -> dict[str, Any]:
    keys = ("model", "engine", "questions", "traces", "failed", "right", "tokens")
    found = dict.fromkeys(keys) | {"simulated": False, "trained": False}
    return {"run": str(path), "kind": "report", **found, "changed": _changed(path / name)}


def _share(part: float, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _changed(*files: Path) -> str:
    """When the latest of the files was changed, in local time."""
    latest = max(file.stat().st_mtime for file in files if file.exists())
    return datetime.fromtimestamp(latest).astimezone().isoformat(timespec="minutes")


def results_text(rows: Sequence[Mapping[str, Any]], folder: str) -> str:
    """The list for a person."""
    if not rows:
        return f"no runs in {folder}; make one with: forethought profile MODEL QUESTIONS"
    lines = [
        f"{'run':40} {'kind':12} {'model':24} {'questions':>9} {'traces':>7} {'failed':>6} {'right':>6} {'tokens':>7}  "
        f"{'changed':16}  trained"
    ]
    for row in rows:
        name = f"{one_line(row['run']):40}"
        if "error" in row:
            lines.append(f"{name} cannot be read: {one_line(row['error'])}")
            continue
        model = one_line(row["model"] or "-") + (" (simulated)" if row["simulated"] else "")
        counts = [_cell(row[key], "{:,}") for key in ("questions", "traces", "failed")]
        right, tokens = _cell(row["right"], "{:.1%}"), _cell(row["tokens"], "{:,.1f}")
        lines.append(
            f"{name} {one_line(row['kind']):12} {model:24} {counts[0]:>9} {counts[1]:>7} {counts[2]:>6} {right:>6} "
            f"{tokens:>7}  {row['changed'][:16].replace('T', ' ')}  {'yes' if row['trained'] else '-'}"
        )
    return "\n".join(lines)


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
