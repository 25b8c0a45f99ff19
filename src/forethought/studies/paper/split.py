"""One split of the paper's published measurements, read and checked."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...core.data import FloatArray, IntArray
from ...core.menu import Menu
from ...core.problems import Problems, excerpt
from ...core.profile import Profile
from ...core.provenance import Provenance
from ...errors import InvalidInputError
from ...questions.rows import find_file, read_batches
from .classes import CLASSES

MENU = Menu.evenly(16, 256)
LAYER = 16  # by the authors' notebook; the files do not say
MODEL = "DeepSeek-R1-Distill-Qwen-1.5B"
LABELS = {
    "lora": "lora_difficulty",
    "zeroshot": "zeroshot_difficulty",
    "true": "difficulty",
}
COLUMNS = ("question_id", "num_correct", "num_trials", "hidden_state", *LABELS.values())
_TAG = re.compile(r"<｜[^｜]*｜>(?:<think>)?")
WHERE_FROM = "DIR holds train.parquet and dev.parquet as `forethought bench paper --help` describes them"


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Measured curves, hidden states and given difficulty labels of some queries.

    Attributes:
        profile: counts and hidden states; spend was not measured, so a cap stands for what it costs.
        labels: what the LoRA classifier ("lora"), the prompted model ("zeroshot") and the measured accuracy at the
            largest cap ("true") say of each query: easy, medium or hard.
    """

    profile: Profile
    labels: Mapping[str, tuple[str, ...]]


def read_split(folder: Path, name: str) -> Split:
    """Reads FOLDER/NAME.parquet.

    Raises:
        InvalidInputError: the folder or the file is not there, or what is wrong with it: all of it at once.
    """
    path = folder / f"{name}.parquet"
    if not folder.is_dir():
        raise InvalidInputError(f"{folder} is not a folder. {WHERE_FROM}.")
    if not path.is_file():
        found = ", ".join(sorted(each.name for each in folder.glob("*.parquet"))) or "no Parquet file"
        raise InvalidInputError(f"{path} does not exist; {folder} holds {found}. {WHERE_FROM}; see --split.")
    problems = Problems(str(path))
    table = _table(path, problems)
    problems.raise_any()
    right_Q_B = _matrix(table, "num_correct", MENU.num_options, problems)
    hidden_Q_D = _matrix(table, "hidden_state", None, problems)
    tried_Q = _counts(table, problems)
    ids = _texts(table, "question_id", problems)
    labels = {key: _classes(table, column, problems) for key, column in LABELS.items()}
    problems.raise_any()
    _check(ids, right_Q_B, tried_Q, hidden_Q_D, problems)
    problems.raise_any()
    caps_Q_B = np.tile(MENU.budgets_B.astype(np.float64), (len(ids), 1))
    profile = Profile(
        query_ids=ids,
        menu=MENU,
        num_right_Q_B=right_Q_B.astype(np.int64),
        num_tried_Q=tried_Q,
        tokens_Q_B=caps_Q_B,
        reasoning_Q_B=caps_Q_B,
        hidden_Q_L_D=hidden_Q_D[:, None],
        layers=(LAYER,),
        texts=tuple(map(_question, _texts(table, "question", problems))) if "question" in table.column_names else (),
        provenance=Provenance(name=f"paper {name}", model=MODEL, spend_measured=False),
    )
    problems.raise_any()
    return Split(profile, labels)


def _question(prompt: str) -> str:
    """The question itself, out of the model's chat template: what stands between its tags, which are in <｜bars｜>."""
    return _TAG.sub("", prompt).strip()


def check_pair(train: Split, test: Split) -> None:
    """Raises InvalidInputError when the splits share queries or differ in the width of their hidden states."""
    shared = set(train.profile.query_ids) & set(test.profile.query_ids)
    if shared:
        raise InvalidInputError(
            f"{len(shared)} queries are in both splits, such as {min(shared)!r}: queries used for training "
            f"cannot be used for evaluation. Give another --split."
        )
    widths = [_width(split) for split in (train, test)]
    if widths[0] != widths[1]:
        raise InvalidInputError(
            f"hidden_state is {widths[0]} numbers wide in the train split and {widths[1]} in the other; both must come "
            f"from one layer of one model"
        )


def _width(split: Split) -> int:
    assert split.profile.hidden_Q_L_D is not None
    return int(split.profile.hidden_Q_L_D.shape[2])


def _table(path: Path, problems: Problems) -> pa.Table:
    """The columns, read by the one reader of tables, which bounds what a small file may unpack to."""
    wanted = {*COLUMNS, "question"}
    batches = list(read_batches(find_file(str(path)), wanted.__contains__, problems))
    names = batches[0].names if batches else ()
    if batches and (missing := [name for name in COLUMNS if name not in names]):
        problems.add("", f"lacks the columns {', '.join(missing)}; it has {', '.join(names)}")
    if problems:
        return None
    taken = batches[0].columns if batches else ()
    table = pa.table({name: pa.chunked_array([each.columns[name] for each in batches]) for name in taken})
    if table.num_rows < 2:
        problems.add("", f"holds {table.num_rows} rows; at least two are needed")
    for name in table.column_names:
        if table[name].null_count:
            problems.add(f"column {name}", f"{table[name].null_count} rows are empty")
    return table


def _matrix(table: pa.Table, name: str, width: int | None, problems: Problems) -> FloatArray:
    """A column of lists of one length as a matrix, in the type it was stored in; empty when it is none (noted)."""
    column = table[name].combine_chunks()
    place, expected = f"column {name}", f"lists of {width or 'equally many'} numbers"
    if not pa.types.is_fixed_size_list(column.type) and not pa.types.is_list(column.type):
        problems.add(place, f"must hold {expected}, not {column.type}")
        return np.empty((table.num_rows, 0))
    lengths = set(pc.list_value_length(column).unique().to_pylist())
    values = column.flatten()
    if len(lengths) != 1 or 0 in lengths or (width is not None and lengths != {width}):
        problems.add(place, f"must hold {expected}; its lists have lengths from {min(lengths)} to {max(lengths)}")
    elif values.null_count or not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type)):
        problems.add(place, f"must hold {expected}; it holds {values.type} with {values.null_count} empty")
    else:
        matrix: FloatArray = values.to_numpy(zero_copy_only=False).reshape(table.num_rows, -1)
        return matrix
    return np.empty((table.num_rows, 0))


def _counts(table: pa.Table, problems: Problems) -> IntArray:
    column = table["num_trials"]
    if not pa.types.is_integer(column.type):
        problems.add("column num_trials", f"must hold whole numbers, not {column.type}")
        return np.ones(table.num_rows, dtype=np.int64)
    counts_Q: IntArray = column.to_numpy().astype(np.int64)
    return counts_Q


def _texts(table: pa.Table, name: str, problems: Problems) -> tuple[str, ...]:
    values: list[Any] = table[name].to_pylist()
    if not all(isinstance(value, str) for value in values):
        problems.add(f"column {name}", f"must hold text, not {table[name].type}")
        return ()
    return tuple(values)


def _classes(table: pa.Table, name: str, problems: Problems) -> tuple[str, ...]:
    values = _texts(table, name, problems)
    unknown = sorted(set(values) - set(CLASSES))
    if unknown:
        problems.add(f"column {name}", f"must hold {', '.join(CLASSES)}; it also holds {excerpt(unknown)}")
    return values


def _check(
    ids: tuple[str, ...], right_Q_B: FloatArray, tried_Q: IntArray, hidden_Q_D: FloatArray, problems: Problems
) -> None:
    """What the numbers must be, once they have the right shapes; each problem names the first row."""
    if len(set(ids)) != len(ids):
        twice = Counter(ids).most_common(1)[0][0]
        problems.add("column question_id", f"{len(ids) - len(set(ids))} ids are used again, such as {twice!r}")
    wrong = {
        "num_trials": (tried_Q < 1, "must be at least 1"),
        "num_correct": (
            ~((right_Q_B >= 0) & (right_Q_B <= tried_Q[:, None]) & (right_Q_B == np.floor(right_Q_B))).all(axis=1),
            "must be whole numbers from 0 to num_trials",
        ),
        "hidden_state": (~np.isfinite(hidden_Q_D).all(axis=1), "must be finite numbers"),
    }
    for name, (is_wrong_Q, rule) in wrong.items():
        rows = np.flatnonzero(is_wrong_Q)
        if rows.size:
            problems.add(f"row {rows[0] + 1} ({ids[rows[0]]})", f"{name} {rule} ({rows.size} such rows)")
