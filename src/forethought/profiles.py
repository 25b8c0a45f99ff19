"""Profiles: counted from a run's records, and kept as one Parquet file."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .errors import InvalidFeaturesError, InvalidInputError, MismatchError, RunError
from .store import RunDirectory, generation_from_json
from .types import BudgetGrid, Curves, FloatArray, Grade, IntArray, Profile, Query, StopReason

METADATA_KEY = b"forethought.profile"
SCHEMA = 1


def from_run(run: RunDirectory, queries: Sequence[Query], *, layers: Sequence[int] | None = None) -> Profile:
    """Counts right, tried and tokens at every cap from the records of a profile run.

    Queries without a finished trace are left out. Hidden states are joined when every remaining query has them.

    Args:
        run: the run directory.
        queries: its queries, in the order the profile shall have.
        layers: keep only these layers' hidden states; None keeps all that were recorded.
    """
    header = run.header
    grid = BudgetGrid(header["identity"]["window"], header["identity"]["maximum"])
    budgets = [int(budget) for budget in grid.budgets_B]
    right: dict[str, FloatArray] = {}
    tokens: dict[str, FloatArray] = {}
    reasoning: dict[str, FloatArray] = {}
    tried: dict[str, int] = {}
    reasons: list[str] = []
    for (query_id, _), record in run.latest_records().items():
        if record["stop_reason"] == StopReason.ERROR.value:
            reasons.append(f"{query_id}: {record['error']}")
            continue
        generation = generation_from_json(record)
        if generation.reasoning_tokens is None or not generation.is_counted:
            reasons.append(f"{query_id}: its tokens were not counted (--engine-option tokenizer=NAME counts them)")
            continue
        tokens_B = [generation.tokens_at(budget) for budget in budgets]
        if None in tokens_B:
            missing = [budget for budget, count in zip(budgets, tokens_B, strict=True) if count is None]
            raise RunError(f"{run.path}: trace {query_id!r} sample {generation.sample} has no probe at {missing}")
        grades_B = [_grade_at(record, budget) for budget in budgets]
        zeros = np.zeros(len(budgets))
        right[query_id] = right.get(query_id, zeros) + [grade == Grade.RIGHT for grade in grades_B]
        tokens[query_id] = tokens.get(query_id, zeros) + np.asarray(tokens_B, dtype=np.float64)
        reasoning[query_id] = reasoning.get(query_id, zeros) + np.minimum(budgets, generation.reasoning_tokens)
        tried[query_id] = tried.get(query_id, 0) + 1
    kept = [query for query in queries if query.id in tried]
    if not kept:
        if reasons:
            raise RunError(
                f"{run.path} has no finished trace: {len(reasons)} failed, the first with {reasons[0]}. "
                "Mend the cause, or leave these questions out; failed traces are tried again by the same command."
            )
        raise RunError(f"{run.path} has no finished trace yet; run `forethought profile` again to go on")
    recorded_layers, hidden = run.load_hidden()
    wanted = tuple(recorded_layers if layers is None else layers)
    has_hidden = bool(hidden) and all(query.id in hidden for query in kept)
    num_tried_Q = np.array([tried[query.id] for query in kept], dtype=np.int64)
    return Profile(
        query_ids=tuple(query.id for query in kept),
        grid=grid,
        num_right_Q_B=np.stack([right[query.id] for query in kept]).astype(np.int64),
        num_tried_Q=num_tried_Q,
        tokens_Q_B=np.stack([tokens[query.id] for query in kept]) / num_tried_Q[:, None],
        reasoning_Q_B=np.stack([reasoning[query.id] for query in kept]) / num_tried_Q[:, None],
        hidden_Q_L_D=_pick_layers(kept, hidden, recorded_layers, wanted) if has_hidden else None,
        layers=wanted if has_hidden else (),
        texts=tuple(query.text for query in kept),
        info={"name": run.path.resolve().name, **header["identity"]},
    )


def _grade_at(record: Mapping[str, Any], budget: int) -> str:
    """Grade of a record's answer under `budget`: the probe's there, or the final answer's."""
    probe = next((probe for probe in record["probes"] if probe["budget"] == budget), None)
    return str((probe or record)["grade"])


def _pick_layers(
    queries: Sequence[Query], hidden: Mapping[str, FloatArray], recorded: Sequence[int], wanted: Sequence[int]
) -> FloatArray:
    missing = [layer for layer in wanted if layer not in recorded]
    if missing:
        raise RunError(f"layers {missing} were not recorded; recorded are {list(recorded)}")
    columns = [list(recorded).index(layer) for layer in wanted]
    return np.stack([hidden[query.id][columns] for query in queries])


# What two profiles must share to be counted together; the rest of a profile's info may differ.
SAME = ("model", "model_hash", "template", "template_hash", "sampling", "grader", "simulated")


def joined(profiles: Sequence[Profile]) -> Profile:
    """One profile of several measured in the same way; hidden states of the layers that all of them have.

    Raises:
        MismatchError: another grid, model, template, sampling or grader, naming both values.
        InvalidInputError: a query that is in two of them.
    """
    first = profiles[0]
    for other in profiles[1:]:
        differing = [key for key in SAME if first.info.get(key) != other.info.get(key)]
        differing += ["spend_measured"] if first.is_spend_measured != other.is_spend_measured else []
        if first.grid != other.grid or differing:
            lines = [f"{key}: {first.info.get(key)!r} and {other.info.get(key)!r}" for key in differing]
            lines += [f"grid: {first.grid} and {other.grid}"] if first.grid != other.grid else []
            raise MismatchError(f"these profiles were not measured in the same way ({'; '.join(lines)})")
    query_ids = [query_id for profile in profiles for query_id in profile.query_ids]
    if twice := [query_id for query_id, count in Counter(query_ids).items() if count > 1]:
        raise InvalidInputError(f"{len(twice)} queries are in two of these profiles ({', '.join(twice[:5])}, …)")
    layers = tuple(layer for layer in first.layers if all(layer in profile.layers for profile in profiles))
    names = dict.fromkeys(str(profile.info.get("name", "unknown")) for profile in profiles)
    return Profile(
        query_ids=tuple(query_ids),
        grid=first.grid,
        num_right_Q_B=np.concatenate([profile.num_right_Q_B for profile in profiles]),
        num_tried_Q=np.concatenate([profile.num_tried_Q for profile in profiles]),
        tokens_Q_B=np.concatenate([profile.tokens_Q_B for profile in profiles]),
        reasoning_Q_B=np.concatenate([profile.reasoning_Q_B for profile in profiles]),
        hidden_Q_L_D=np.concatenate([with_layers(profile, layers).hidden_Q_L_D for profile in profiles])
        if layers
        else None,
        layers=layers,
        texts=tuple(text for profile in profiles for text in profile.texts)
        if all(profile.texts for profile in profiles)
        else (),
        difficulties=tuple(level for profile in profiles for level in profile.difficulties)
        if all(profile.difficulties for profile in profiles)
        else (),
        info={**first.info, "name": " + ".join(names)},
    )


def with_layers(profile: Profile, layers: Sequence[int]) -> Profile:
    """The profile with the hidden states of `layers` only; raises InvalidFeaturesError when it lacks one."""
    if missing := [layer for layer in layers if layer not in profile.layers]:
        raise InvalidFeaturesError(
            f"the profile holds hidden states of layers {list(profile.layers)}, not of {missing}"
        )
    if not layers or profile.hidden_Q_L_D is None:
        return replace(profile, hidden_Q_L_D=None, layers=())
    columns = [profile.layers.index(layer) for layer in layers]
    return replace(profile, hidden_Q_L_D=profile.hidden_Q_L_D[:, columns], layers=tuple(layers))


def common_grid(first: BudgetGrid, second: BudgetGrid) -> BudgetGrid:
    """The grid of every budget that both have; raises MismatchError where they share none."""
    window = math.lcm(first.window, second.window)
    maximum = min(first.maximum, second.maximum) // window * window
    if not maximum:
        raise MismatchError(f"the budgets {first} and {second} have none in common: measure both with one --window")
    return BudgetGrid(window, maximum)


def on_grid(profile: Profile, grid: BudgetGrid) -> Profile:
    """The profile at the budgets of `grid` alone, every one of which it was measured at.

    Exact: the trace under a smaller cap is the prefix of the trace under a larger one, so columns are picked and
    nothing is interpolated. `info` still says how it was measured.

    Raises:
        MismatchError: a budget that was not measured.
    """
    columns = _columns(profile.grid, grid)
    return replace(
        profile,
        grid=grid,
        num_right_Q_B=profile.num_right_Q_B[:, columns],
        tokens_Q_B=profile.tokens_Q_B[:, columns],
        reasoning_Q_B=profile.reasoning_Q_B[:, columns],
    )


def curves_on_grid(curves: Curves, grid: BudgetGrid) -> Curves:
    """The curves at the budgets of `grid` alone; raises MismatchError where they have none for one of them."""
    columns = _columns(curves.grid, grid)
    tokens_Q_B = None if curves.tokens_Q_B is None else curves.tokens_Q_B[:, columns]
    return replace(curves, grid=grid, p_Q_B=curves.p_Q_B[:, columns], tokens_Q_B=tokens_Q_B)


def _columns(grid: BudgetGrid, wanted: BudgetGrid) -> IntArray:
    if missing := [str(budget) for budget in wanted.budgets_B if budget not in grid]:
        shown = missing[0] if len(missing) == 1 else f"{missing[0]}, … {missing[-1]}"
        raise MismatchError(f"the grid {wanted} has budgets that the grid {grid} lacks: {shown}")
    return wanted.budgets_B // grid.window - 1


def write_parquet(path: Path, profile: Profile) -> None:
    """Writes a profile as Parquet: counts, mean tokens, texts, and one float16 column for each layer."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {
        "query_id": pa.array(profile.query_ids, pa.string()),
        "num_tried": pa.array(profile.num_tried_Q, pa.int32()),
        "num_right": _lists(profile.num_right_Q_B, pa.int32()),
        "tokens": _lists(profile.tokens_Q_B, pa.float32()),
        "reasoning_tokens": _lists(profile.reasoning_Q_B, pa.float32()),
    }
    if profile.texts:
        columns["question"] = pa.array(profile.texts, pa.string())
    if profile.difficulties:
        columns["difficulty"] = pa.array(profile.difficulties, pa.string())
    if profile.hidden_Q_L_D is not None:
        for column, layer in enumerate(profile.layers):
            columns[f"hidden_{layer}"] = _lists(profile.hidden_Q_L_D[:, column].astype(np.float16), pa.float16())
    metadata = {
        "schema": SCHEMA,
        "window": profile.grid.window,
        "maximum": profile.grid.maximum,
        "layers": list(profile.layers),
        "info": dict(profile.info),
    }
    table = pa.table(columns).replace_schema_metadata({METADATA_KEY: json.dumps(metadata, ensure_ascii=False)})
    temporary = path.with_name(f".{path.name}.tmp")
    pq.write_table(table, temporary, compression="zstd")
    temporary.replace(path)


def _lists(values_Q_N: FloatArray | Any, kind: Any) -> Any:
    import pyarrow as pa

    return pa.FixedSizeListArray.from_arrays(
        pa.array(np.ascontiguousarray(values_Q_N).ravel(), kind), values_Q_N.shape[1]
    )


def is_profile_file(path: Path) -> bool:
    """Whether `path` is a file that `write_parquet` wrote."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.suffix.lower() != ".parquet" or not path.is_file():
        return False
    try:
        return METADATA_KEY in (pq.read_schema(path).metadata or {})
    except (pa.ArrowException, OSError):
        return False


def read_parquet(path: Path) -> Profile:
    """Reads what `write_parquet` wrote; raises RunError on any other file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except FileNotFoundError as error:
        raise RunError(f"{path} does not exist") from error
    except (pa.ArrowException, OSError) as error:
        raise RunError(f"{path} is not a readable Parquet file: {error}") from error
    raw = (table.schema.metadata or {}).get(METADATA_KEY)
    if raw is None:
        raise RunError(f"{path} is a Parquet file but not a profile written by forethought")
    metadata = json.loads(raw)
    if metadata.get("schema") != SCHEMA:
        raise RunError(f"{path} has profile schema {metadata.get('schema')!r}; this version reads {SCHEMA}")
    layers = tuple(metadata["layers"])
    return Profile(
        query_ids=tuple(table["query_id"].to_pylist()),
        grid=BudgetGrid(metadata["window"], metadata["maximum"]),
        num_right_Q_B=_matrix(table, "num_right").astype(np.int64),
        num_tried_Q=table["num_tried"].to_numpy().astype(np.int64),
        tokens_Q_B=_matrix(table, "tokens").astype(np.float64),
        reasoning_Q_B=_matrix(table, "reasoning_tokens").astype(np.float64),
        hidden_Q_L_D=np.stack([_matrix(table, f"hidden_{layer}") for layer in layers], axis=1) if layers else None,
        layers=layers,
        texts=tuple(table["question"].to_pylist()) if "question" in table.column_names else (),
        difficulties=tuple(table["difficulty"].to_pylist()) if "difficulty" in table.column_names else (),
        info=metadata["info"],
    )


def _matrix(table: Any, name: str) -> Any:
    column = table[name].combine_chunks()
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)
