"""Evaluation logs of other tools -> rows as in a long table of named options: a row per question and draw."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

from ...core.data import Sampling
from ...core.import_settings import ImportSettings
from ...core.problems import Problems
from ...errors import InvalidInputError
from ...questions.rows import Batch, Wanted, find_file, read_batches
from . import inspect_logs, lm_eval_logs
from .log import Log

HEAD = 1 << 16  # characters of a file that are looked at to tell what it is
INSPECT_JSON = re.compile(r'\s*\{\s*"version":\s*\d+,\s*"status":\s*"')
LM_EVAL_SUMMARY = re.compile(r'\s*\{\s*"results":\s*\{')
LM_EVAL_KEYS = {"doc_id", "doc", "target", "arguments", "resps", "filtered_resps"}
BATCH_ROWS = 4096


class Logs:
    """Those of the files that are logs, read at once; raises InvalidInputError on one that cannot be taken."""

    def __init__(self, settings: ImportSettings) -> None:
        found = {file: _open(file, settings) for file in settings.files}
        self._logs = {file: log for file, log in found.items() if log is not None}
        self._settings = settings

    def __bool__(self) -> bool:
        return bool(self._logs)

    def read(self, file: str, wanted: Wanted, problems: Problems) -> Iterator[Batch]:
        """Batches of any file: of a log its rows, of anything else those of its table."""
        log = self._logs.get(file)
        if log is None:
            yield from read_batches(find_file(file), wanted, problems)
            return
        names = tuple(dict.fromkeys(name for row in log.rows for name in row))
        for start in range(0, len(log.rows), BATCH_ROWS):
            rows = log.rows[start : start + BATCH_ROWS]
            columns = {name: [row.get(name) for row in rows] for name in names if wanted(name)}
            yield Batch(log.kind, range(start + 1, start + len(rows) + 1), names, columns)

    def refuse_repeats(self, problems: Problems) -> None:
        """Rejects two logs under one option with the same sample numbers: different settings, or further samples?"""
        columns = self._settings.columns
        if columns.get("option") or columns.get("sample") or columns.get("budget") or self._settings.where:
            return
        draws = {file: {(row["id"], row["option"], row["sample"]) for row in log.rows} for file, log in self._each()}
        for file, other in combinations(draws, 2):
            if not (same := draws[file] & draws[other]):
                continue
            label = min(option for _, option, _ in same)
            one, two = self._logs[file].config, self._logs[other].config
            differ = [name for name in {**one, **two} if one.get(name) != two.get(name)]
            names = [f"config.{name}" for name in differ if name in one and name in two] or ["file"]
            problems.add(
                "",
                f"{file} and {other} hold the same questions under {label!r}. If they are two options, "
                f"name them by what differs: --option-column {names[0]}; if they are further samples of one: "
                "--sample-column file,sample",
            )
            return

    @property
    def notes(self) -> list[str]:
        """What there is to say of all of them; of several files, once."""
        return list(dict.fromkeys(note for log in self._logs.values() for note in log.notes))

    @property
    def model(self) -> str | None:
        """The model that all of them measured, or None."""
        models = {log.model for log in self._logs.values()}
        return models.pop() if len(models) == 1 else None

    @property
    def sampling(self) -> Sampling | None:
        """How all of them sampled, or None."""
        ways = {log.sampling for log in self._logs.values()}
        return ways.pop() if len(ways) == 1 else None

    def to_json(self) -> dict[str, Any]:
        """File -> its tool and what its run set."""
        return {Path(file).name: {"tool": log.tool, "config": dict(log.config)} for file, log in self._each()}

    def _each(self) -> list[tuple[str, Log]]:
        return list(self._logs.items())


def _open(file: str, settings: ImportSettings) -> Log | None:
    """The log in `file`; None where it is a table."""
    path = Path(file)
    if not path.is_file():
        return None
    suffix = path.suffix.lower()
    if suffix == ".eval":
        return inspect_logs.read(path, settings)
    if suffix not in (".json", ".jsonl"):
        return None
    with path.open(encoding="utf-8-sig", errors="replace") as opened:
        head = opened.read(HEAD)
    if suffix == ".json" and INSPECT_JSON.match(head):
        return inspect_logs.read(path, settings)
    if suffix == ".json" and LM_EVAL_SUMMARY.match(head):
        raise InvalidInputError(
            f"{file}: is lm-eval's summary; name the samples_*.jsonl beside it (lm-eval --log_samples)"
        )
    if suffix == ".jsonl" and _is_lm_eval(path, head):
        return lm_eval_logs.read(path, settings)
    return None


def _is_lm_eval(path: Path, head: str) -> bool:
    if '"filtered_resps"' not in head and len(head) < HEAD:
        return False
    with path.open(encoding="utf-8-sig", errors="replace") as opened:
        line = opened.readline(1 << 24)
    try:
        first = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(first, dict) and set(first) >= LM_EVAL_KEYS
