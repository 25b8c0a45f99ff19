"""Profiles: counted from a run's records, and kept as one Parquet file."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..core.data import Curves, FloatArray, Grade, IntArray, Profile, Query, StopReason
from ..core.menu import Menu
from ..errors import InvalidFeaturesError, InvalidInputError, MismatchError, RunError
from .parquet import is_profile_file, read_parquet, write_parquet
from .store import GRADER_KEYS, RunDirectory, generation_from_json

__all__ = [
    "common_menu",
    "curves_on_menu",
    "from_run",
    "is_profile_file",
    "joined",
    "on_menu",
    "read_parquet",
    "with_layers",
    "write_parquet",
]

logger = logging.getLogger(__name__)


def from_run(run: RunDirectory, queries: Sequence[Query], *, layers: Sequence[int] | None = None) -> Profile:
    """Counts right, tried and tokens at every cap from the records of a profile run.

    Queries without a finished trace are left out, and so are traces without a grade (how many is logged). Hidden
    states are joined when every remaining query has them.

    Args:
        run: the run directory.
        queries: its queries, in the order the profile shall have.
        layers: keep only these layers' hidden states; None keeps all that were recorded.
    """
    header, menu = run.header, run.menu
    budgets = [int(budget) for budget in menu.budgets_B]
    right: dict[str, FloatArray] = {}
    tokens: dict[str, FloatArray] = {}
    reasoning: dict[str, FloatArray] = {}
    tried: dict[str, int] = {}
    reasons: list[str] = []
    ungraded: list[str] = []
    for (query_id, _), record in run.latest_records().items():
        if record["stop_reason"] == StopReason.ERROR.value:
            reasons.append(f"{query_id}: {record['error']}")
            continue
        generation = generation_from_json(record)
        if generation.reasoning_tokens is None or not generation.is_counted:
            reasons.append(f"{query_id}: its tokens were not counted (--engine-option tokenizer=NAME counts them)")
            continue
        outcomes = [generation.at(budget) for budget in budgets]
        tokens_B = [outcome.tokens if outcome else None for outcome in outcomes]
        if None in tokens_B:
            missing = [budget for budget, count in zip(budgets, tokens_B, strict=True) if count is None]
            raise RunError(f"{run.path}: trace {query_id!r} sample {generation.sample} has no probe at {missing}")
        grades_B = [_grade_at(record, budget) for budget in budgets]
        if None in grades_B:
            ungraded.append(query_id)
            continue
        zeros = np.zeros(len(budgets))
        right[query_id] = right.get(query_id, zeros) + [grade == Grade.RIGHT for grade in grades_B]
        tokens[query_id] = tokens.get(query_id, zeros) + np.asarray(tokens_B, dtype=np.float64)
        reasoning[query_id] = reasoning.get(query_id, zeros) + np.minimum(budgets, generation.reasoning_tokens)
        tried[query_id] = tried.get(query_id, 0) + 1
    kept = [query for query in queries if query.id in tried]
    remedy = f"give them references: forethought regrade {run.path} --answers FILE"
    if not kept:
        if ungraded:
            raise RunError(f"{run.path} has no graded trace: {len(ungraded)} have no reference answer; {remedy}")
        if reasons:
            raise RunError(
                f"{run.path} has no finished trace: {len(reasons)} failed, the first with {reasons[0]}. "
                "Mend the cause, or leave these questions out; failed traces are tried again by the same command."
            )
        raise RunError(f"{run.path} has no finished trace yet; run `forethought profile` again to go on")
    if ungraded:
        ids = [query.id for query in queries if query.id in set(ungraded)]
        logger.warning(
            "note: %s: %d traces of %d questions (%s) have no grade and are left out; %s",
            run.path,
            len(ungraded),
            len(ids),
            ", ".join(ids[:3]) + (", …" if len(ids) > 3 else ""),
            remedy,
        )
    recorded_layers, hidden = run.load_hidden()
    wanted = tuple(recorded_layers if layers is None else layers)
    has_hidden = bool(hidden) and all(query.id in hidden for query in kept)
    num_tried_Q = np.array([tried[query.id] for query in kept], dtype=np.int64)
    return Profile(
        query_ids=tuple(query.id for query in kept),
        menu=menu,
        num_right_Q_B=np.stack([right[query.id] for query in kept]).astype(np.int64),
        num_tried_Q=num_tried_Q,
        tokens_Q_B=np.stack([tokens[query.id] for query in kept]) / num_tried_Q[:, None],
        reasoning_Q_B=np.stack([reasoning[query.id] for query in kept]) / num_tried_Q[:, None],
        hidden_Q_L_D=_pick_layers(kept, hidden, recorded_layers, wanted) if has_hidden else None,
        layers=wanted if has_hidden else (),
        texts=tuple(query.text for query in kept),
        info={"name": run.path.resolve().name, **header["identity"]},
    )


def _grade_at(record: Mapping[str, Any], budget: int) -> str | None:
    """Grade of a record's answer under `budget`: the probe's there, or the final answer's; None where it has none."""
    probe = next((probe for probe in record["probes"] if probe["budget"] == budget), None)
    grade: str | None = (probe or record).get("grade")
    return grade


def _pick_layers(
    queries: Sequence[Query], hidden: Mapping[str, FloatArray], recorded: Sequence[int], wanted: Sequence[int]
) -> FloatArray:
    missing = [layer for layer in wanted if layer not in recorded]
    if missing:
        raise RunError(f"layers {missing} were not recorded; recorded are {list(recorded)}")
    columns = [list(recorded).index(layer) for layer in wanted]
    return np.stack([hidden[query.id][columns] for query in queries])


# What two profiles must share to be counted together; the rest of a profile's info may differ.
SAME = ("model", "model_hash", "template", "template_hash", "sampling", *GRADER_KEYS, "simulated")


def joined(profiles: Sequence[Profile]) -> Profile:
    """One profile of several measured in the same way; hidden states of the layers that all of them have.

    Raises:
        MismatchError: another menu, model, template, sampling or grader, naming both values.
        InvalidInputError: a query that is in two of them.
    """
    first = profiles[0]
    for other in profiles[1:]:
        differing = [key for key in SAME if first.info.get(key) != other.info.get(key)]
        differing += ["spend_measured"] if first.is_spend_measured != other.is_spend_measured else []
        if first.menu != other.menu or differing:
            lines = [f"{key}: {first.info.get(key)!r} and {other.info.get(key)!r}" for key in differing]
            lines += [f"grid: {first.menu} and {other.menu}"] if first.menu != other.menu else []
            raise MismatchError(f"these profiles were not measured in the same way ({'; '.join(lines)})")
    query_ids = [query_id for profile in profiles for query_id in profile.query_ids]
    if twice := [query_id for query_id, count in Counter(query_ids).items() if count > 1]:
        raise InvalidInputError(f"{len(twice)} queries are in two of these profiles ({', '.join(twice[:5])}, …)")
    layers = tuple(layer for layer in first.layers if all(layer in profile.layers for profile in profiles))
    names = dict.fromkeys(str(profile.info.get("name", "unknown")) for profile in profiles)
    return Profile(
        query_ids=tuple(query_ids),
        menu=first.menu,
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


def common_menu(first: Menu, second: Menu) -> Menu:
    """The menu of every budget that both have; raises MismatchError where they share none."""
    shared = first.common(second)
    if shared is None:
        raise MismatchError(f"the budgets {first} and {second} have none in common: measure both with one --budgets")
    return shared


def on_menu(profile: Profile, menu: Menu) -> Profile:
    """The profile at the budgets of `grid` alone, every one of which it was measured at.

    Exact: the trace under a smaller cap is the prefix of the trace under a larger one, so columns are picked and
    nothing is interpolated. `info` still says how it was measured.

    Raises:
        MismatchError: a budget that was not measured.
    """
    columns = _columns(profile.menu, menu)
    return replace(
        profile,
        menu=menu,
        num_right_Q_B=profile.num_right_Q_B[:, columns],
        tokens_Q_B=profile.tokens_Q_B[:, columns],
        reasoning_Q_B=profile.reasoning_Q_B[:, columns],
    )


def curves_on_menu(curves: Curves, menu: Menu) -> Curves:
    """The curves at the budgets of `grid` alone; raises MismatchError where they have none for one of them."""
    columns = _columns(curves.menu, menu)
    tokens_Q_B = None if curves.tokens_Q_B is None else curves.tokens_Q_B[:, columns]
    return replace(curves, menu=menu, p_Q_B=curves.p_Q_B[:, columns], tokens_Q_B=tokens_Q_B)


def _columns(menu: Menu, wanted: Menu) -> IntArray:
    if missing := [str(budget) for budget in wanted.caps if budget not in menu]:
        shown = missing[0] if len(missing) == 1 else f"{missing[0]}, … {missing[-1]}"
        raise MismatchError(f"the menu {wanted} has budgets that the menu {menu} lacks: {shown}")
    return menu.columns(wanted.caps)
