"""Counts -> a profile with its provenance, and notes on what is not known."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...core.data import FloatArray
from ...core.import_settings import ImportSettings
from ...core.problems import Problems
from ...core.profile import Profile
from ...core.provenance import Provenance
from ...core.showing import Progress, silent
from ...errors import InvalidInputError, InvalidMenuError, RunError
from ...questions.rows.batch import Batch
from ..profiles import is_profile_file, read_parquet
from .columns import Columns
from .counted import Counts, LeftOut
from .counts import read_counts
from .logs import Logs
from .naming import Naming, name_columns, wanted_columns

ENGINE = "imported"


@dataclass(frozen=True, slots=True, eq=False)
class Imported:
    """An imported profile and how it came about.

    Attributes:
        profile: ready to train or to evaluate on.
        path: where it was written, or would be.
        shape: "long" or "wide".
        columns: what a column means -> its name in the files.
        num_rows: rows read.
        left_out: what was not taken over, and why.
        notes: what else the user should know, in sentences.
    """

    profile: Profile
    path: Path
    shape: str
    columns: dict[str, str]
    num_rows: int
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]


def read_profile(settings: ImportSettings, path: Path, *, progress: Progress = silent) -> Imported:
    """Reads and checks the files; writes nothing.

    Args:
        settings: what to read, and what its columns mean.
        path: where the profile is to be kept.
        progress: called with what is being done, steps done and steps in all.

    Raises:
        InvalidInputError: everything that is wrong with the files, by line.
    """
    files = settings.files
    for file in files:
        if is_profile_file(Path(file)):
            raise InvalidInputError(f"{file}: is a profile already; use it as it is: forethought train {file}")
    progress("read", 0, len(files))
    problems = Problems(files[0] if len(files) == 1 else f"{len(files)} files")
    logs = Logs(settings)
    logs.refuse_repeats(problems)
    problems.raise_any()
    wanted, takes_lists = wanted_columns(settings)

    def read(file: str, *given: Any) -> Iterator[Batch]:
        progress("read", files.index(file), len(files))
        return logs.read(file, *given)

    columns = Columns(files, problems, wanted=wanted, takes_lists=takes_lists, where=settings.conditions, reader=read)
    naming = name_columns(columns, settings, problems)
    problems.raise_any()
    assert naming is not None  # or it would have been told
    if settings.menu_file and not naming.is_named:
        raise InvalidInputError(f"--menu {settings.menu_file}: the table's options are caps; --option-column NAME")
    progress("check and count", 0, 1)
    try:
        counts = read_counts(columns, naming, settings, problems)
    except InvalidMenuError as error:
        raise InvalidInputError(f"{problems.source}: {error}") from error
    menu = counts.menu
    caps_Q_B = np.tile(menu.budgets_B.astype(np.float64), (len(counts.query_ids), 1))
    tokens_Q_B = caps_Q_B if counts.tokens_Q_B is None else counts.tokens_Q_B
    most_Q_B = tokens_Q_B if menu.is_named else np.minimum(caps_Q_B, tokens_Q_B)
    profile = Profile(
        query_ids=counts.query_ids,
        menu=menu,
        num_right_Q_B=counts.num_right_Q_B,
        num_tried_Q=counts.num_tried_Q,
        tokens_Q_B=tokens_Q_B,
        reasoning_Q_B=most_Q_B if counts.reasoning_Q_B is None else counts.reasoning_Q_B,
        hidden_Q_L_D=None if counts.hidden_Q_D is None else counts.hidden_Q_D[:, None],
        layers=() if counts.hidden_Q_D is None or settings.layer is None else (settings.layer,),
        texts=counts.texts or (),
        provenance=_provenance(settings, naming, counts, logs),
        traces=counts.traces,
        tried_Q_B=counts.tried_Q_B,
        input_Q_B=counts.input_Q_B,
    )
    left_out = counts.left_out
    if columns.num_passed_over:
        conditions = settings.conditions.items()
        why = " or ".join(f"{name!r} is not {' or '.join(map(repr, values))}" for name, values in conditions)
        left_out = (LeftOut("rows", why, columns.num_passed_over, ()), *left_out)
    notes = (*logs.notes, *counts.notes, *_notes(naming, counts, profile))
    return Imported(profile, path, naming.shape, naming.told, columns.num_rows, left_out, notes)


def _provenance(settings: ImportSettings, naming: Naming, counts: Counts, logs: Logs) -> Provenance:
    """What was said and what was read; nothing that is not known."""
    imported = {
        "files": {Path(file).name: _sha256(file) for file in settings.files},
        "shape": naming.shape,
        "columns": naming.told,
        "left_out": [str(each) for each in counts.left_out],
        **({"logs": logs.to_json()} if logs else {}),
    }
    return Provenance(
        name=settings.name or Path(settings.files[0]).stem,
        engine=ENGINE,
        model=settings.model or logs.model,
        template=settings.template or None,
        simulated=settings.simulated,
        spend_measured=counts.tokens_Q_B is not None,
        sampling=settings.sampling or logs.sampling,
        grader=settings.grader or None,
        more={"imported": imported},
    )


def _sha256(file: str) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _notes(naming: Naming, counts: Counts, profile: Profile) -> list[str]:
    notes = []
    if counts.tokens_Q_B is None:
        what = "an option has the tokens that the menu states" if naming.is_named else "a cap counts as its own cost"
        notes.append(f"Tokens were not measured: {what}, and there are no results under spent cost.")
    elif not naming.is_named and (fallen := _num_falling(counts.tokens_Q_B)) > 0:
        notes.append(f"The tokens of {fallen:,} queries fall from one budget to the next.")
    if counts.tokens_Q_B is not None and counts.reasoning_Q_B is None:
        which = "all tokens" if naming.is_named else "all tokens up to the cap"
        notes.append(f"Reasoning tokens were not counted separately: {which} count as reasoning.")
    if counts.texts is None and "question" in naming.columns:
        notes.append(f"Some cells of {naming.columns['question']!r} are blank: no texts are kept.")
    return notes


def _num_falling(tokens_Q_B: FloatArray) -> int:
    return int((np.diff(tokens_Q_B, axis=1) < 0).any(axis=1).sum())


def check_target(path: Path) -> None:
    """Refuses to write over anything but a profile that was imported before.

    Raises:
        RunError: `path` is a file of another kind.
    """
    if path.suffix.lower() != ".parquet":
        raise RunError(f"--out {path}: a profile is a Parquet file; let its name end in .parquet")
    if not path.exists():
        return
    if not is_profile_file(path) or read_parquet(path).provenance.engine != ENGINE:
        raise RunError(f"{path} exists and is not an imported profile; nothing was written. Give another --out.")
