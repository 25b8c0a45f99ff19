"""Profiles: counted from a run's records, and stored as one Parquet file."""

from __future__ import annotations

import logging
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..core.data import Curves, FloatArray, IntArray, Outcome, Query
from ..core.menu import Menu
from ..core.parquet import is_profile_file, read_parquet, write_parquet
from ..core.profile import RIGHT, Profile, Traces
from ..core.provenance import GRADER
from ..core.records import Record
from ..errors import InvalidFeaturesError, InvalidInputError, MismatchError, RunError
from .draws import GRADES, LOGPROBS, Draws, logprobs_of, shown_logprobs
from .store import RunDirectory

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


def from_run(run: RunDirectory, queries: Sequence[Query]) -> Profile:
    """Counts right, tried and tokens at every cap from the records of a profile run, which are read once.

    Queries without a finished trace are left out, and so are traces without a grade (how many is logged). Hidden
    states are joined when every remaining query has them.

    Args:
        run: the run directory.
        queries: its queries, in the order the profile shall have.
    """
    menu, made, row_of = run.menu, run.header.provenance, {query.id: row for row, query in enumerate(queries)}
    found = Draws(menu, made, len(queries)) if menu.is_named else _Found(menu, len(queries))
    reasons, ungraded = Reasons(), list[str]()
    for record in run.latest():
        if record.is_failed:
            reasons.add(f"{record.query_id}: {record.error}")
        elif not record.is_counted:
            reasons.add(f"{record.query_id}: its tokens were not counted (--engine-option tokenizer=NAME counts them)")
        elif record.query_id in row_of and (not menu.is_named or record.option in menu.labels):
            budgets = (record.budget,) if menu.is_named else menu.caps
            outcomes = [_outcome(run, record, budget) for budget in budgets]
            if any(outcome.grade is None for outcome in outcomes):
                ungraded.append(record.query_id)
            else:
                found.add(row_of[record.query_id], record, outcomes)
    _report(run, found.num_traces, reasons, sorted(ungraded, key=row_of.__getitem__))
    rows, measured = found.counted()
    kept = [queries[row] for row in rows]
    wanted, hidden_Q_L_D = _hidden(run, [query.id for query in kept])
    return Profile(
        query_ids=tuple(query.id for query in kept),
        **measured,
        hidden_Q_L_D=hidden_Q_L_D,
        layers=wanted,
        texts=tuple(query.text for query in kept),
        provenance=replace(made, name=run.path.resolve().name),
    )


class Reasons:
    """How many traces are of no use, and why the first of them is not."""

    def __init__(self) -> None:
        self.count, self.first = 0, ""

    def add(self, reason: str) -> None:
        """One more."""
        self.count, self.first = self.count + 1, self.first or reason


class _Found:
    """Traces as they are read, a few numbers each."""

    def __init__(self, menu: Menu, num_queries: int) -> None:
        self._menu = menu
        self._columns: dict[str, array[Any]] = {}
        self._columns |= {name: array(kind) for name, kind in zip(("row", "sample", "length"), "iii", strict=True)}
        self._columns |= {name: array(kind) for name, kind in zip(("tokens", "grade", "answer"), "ibi", strict=True)}
        self._columns |= {name: array("f") for name in LOGPROBS}
        self._answers_Q: list[dict[str, int]] = [{} for _ in range(num_queries)]

    @property
    def num_traces(self) -> int:
        return len(self._columns["row"])

    def add(self, row: int, record: Record, outcomes: Sequence[Outcome]) -> None:
        """One more trace, of query `row`."""
        codes = self._answers_Q[row]
        for name, value in (("row", row), ("sample", record.sample), ("length", record.reasoning_tokens or 0)):
            self._columns[name].append(value)
        self._columns["tokens"].extend(outcome.tokens or 0 for outcome in outcomes)
        self._columns["grade"].extend(GRADES[outcome.grade] for outcome in outcomes if outcome.grade)
        self._columns["answer"].extend(codes.setdefault(outcome.answer, len(codes)) for outcome in outcomes)
        for name, values in zip(LOGPROBS, zip(*map(logprobs_of, outcomes), strict=True), strict=True):
            self._columns[name].extend(values)

    def counted(self) -> tuple[list[int], dict[str, Any]]:
        """The queries that have traces, by their rows, and what a profile says of them, by its fields."""
        rows, num_tried_Q, traces = self._sorted()
        starts_Q = np.cumsum(num_tried_Q) - num_tried_Q
        reasoning_N_B = np.minimum(traces.length_N[:, None], self._menu.budgets_B)
        return rows, {
            "menu": self._menu,
            "num_right_Q_B": np.add.reduceat(traces.grade_N_B == RIGHT, starts_Q, dtype=np.int64),
            "num_tried_Q": num_tried_Q,
            "tokens_Q_B": np.add.reduceat(traces.tokens_N_B, starts_Q, dtype=np.float64) / num_tried_Q[:, None],
            "reasoning_Q_B": np.add.reduceat(reasoning_N_B, starts_Q, dtype=np.float64) / num_tried_Q[:, None],
            "traces": traces,
        }

    def _sorted(self) -> tuple[list[int], IntArray, Traces]:
        """The queries that have traces, by their rows, how many each, and the traces in that order."""
        columns = {name: np.array(values) for name, values in self._columns.items()}
        order_N = np.lexsort((columns["sample"], columns["row"]))
        rows, num_tried_Q = np.unique(columns["row"], return_counts=True)
        flat = [columns[name][order_N] for name in ("sample", "length")]
        wide = [columns[name].reshape(-1, self._menu.num_options)[order_N] for name in ("tokens", "grade", "answer")]
        answers_Q = tuple(tuple(self._answers_Q[row]) for row in rows)
        shown = [shown_logprobs(columns[name].reshape(-1, self._menu.num_options)[order_N]) for name in LOGPROBS]
        return rows.tolist(), num_tried_Q, Traces(flat[0], flat[1], wide[0], wide[1], wide[2], answers_Q, *shown)


def _outcome(run: RunDirectory, record: Record, budget: int) -> Outcome:
    if (outcome := record.at(budget)) is None or outcome.tokens is None:
        raise RunError(f"{run.path}: trace {record.query_id!r} sample {record.sample} has no probe at {budget}")
    return outcome


def _report(run: RunDirectory, num_traces: int, reasons: Reasons, ungraded: Sequence[str]) -> None:
    """Says which traces have no grade; raises RunError where there is no other."""
    remedy = f"give them references: forethought regrade {run.path} --answers FILE"
    if not num_traces:
        if ungraded:
            raise RunError(f"{run.path} has no graded trace: {len(ungraded)} have no reference answer; {remedy}")
        if reasons.count:
            raise RunError(
                f"{run.path} has no finished trace: {reasons.count} failed, the first with {reasons.first}. "
                "Fix the cause, or leave these questions out; the same command retries failed traces."
            )
        raise RunError(f"{run.path} has no finished trace yet; run `forethought profile` again to resume")
    if ungraded:
        ids = list(dict.fromkeys(ungraded))
        logger.warning(
            "note: %s: %d traces of %d questions (%s) have no grade and are left out; %s",
            run.path,
            len(ungraded),
            len(ids),
            ", ".join(ids[:3]) + (", …" if len(ids) > 3 else ""),
            remedy,
        )


def _hidden(run: RunDirectory, query_ids: Sequence[str]) -> tuple[tuple[int, ...], FloatArray | None]:
    """Hidden states of every query in their order, read chunk by chunk; nothing where one has none."""
    recorded, held = run.hidden_chunks()
    layers = tuple(recorded)
    row_of = {query_id: row for row, query_id in enumerate(query_ids)}
    if not set(row_of) <= {query_id for chunk in held for query_id in chunk.query_ids} or not held:
        return (), None
    hidden_Q_L_D = np.empty((len(query_ids), len(layers), held[0].width), dtype=np.float16)
    for chunk in held:
        known = [(place, row_of[query_id]) for place, query_id in enumerate(chunk.query_ids) if query_id in row_of]
        if known:
            columns = [chunk.layers.index(layer) for layer in layers]
            places, rows = (list(each) for each in zip(*known, strict=True))
            hidden_Q_L_D[rows] = chunk.read()[places][:, columns]
    return layers, hidden_Q_L_D


# What two profiles must share to be counted together; the rest of a provenance may differ.
SAME = ("model", "model_hash", "template", "template_hash", "sampling", *GRADER, "simulated", "spend_measured")


def joined(profiles: Sequence[Profile]) -> Profile:
    """One profile of several measured in the same way; hidden states of the layers that all of them have.

    Raises:
        MismatchError: other options, another model, template, sampling or grader, naming both values. Named options
            are the same by name and by what they set; budgets and prices are the first profile's.
        InvalidInputError: a query that is in two of them.
    """
    first = profiles[0]
    for other in profiles[1:]:
        differing = first.provenance.differing(other.provenance, SAME)
        is_other = not first.menu.is_same(other.menu)
        if is_other or differing:
            lines = [first.provenance.listing(other.provenance, differing)] if differing else []
            lines += [f"menu: {first.menu} and {other.menu}{_unlike(first.menu, other.menu)}"] if is_other else []
            is_judged_otherwise = set(differing) <= set(GRADER) and not is_other
            hint = ". Grade them with one grader first: forethought regrade RUN" if is_judged_otherwise else ""
            raise MismatchError(f"these profiles were not measured in the same way ({'; '.join(lines)}){hint}")
    profiles = [first, *(other if other.menu == first.menu else on_menu(other, first.menu) for other in profiles[1:])]
    query_ids = [query_id for profile in profiles for query_id in profile.query_ids]
    if twice := [query_id for query_id, count in Counter(query_ids).items() if count > 1]:
        raise InvalidInputError(f"{len(twice)} queries are in two of these profiles ({', '.join(twice[:5])}, …)")
    layers = tuple(layer for layer in first.layers if all(layer in profile.layers for profile in profiles))
    names = dict.fromkeys(profile.provenance.name or "unknown" for profile in profiles)

    def together(name: str) -> Any:
        return np.concatenate([getattr(profile, name) for profile in profiles])

    def each(name: str) -> tuple[Any, ...]:
        parts = [getattr(profile, name) for profile in profiles]
        return tuple(value for part in parts for value in part) if all(parts) else ()

    hidden = [with_layers(profile, layers).hidden_Q_L_D for profile in profiles] if layers else []
    return Profile(
        query_ids=tuple(query_ids),
        menu=first.menu,
        num_right_Q_B=together("num_right_Q_B"),
        num_tried_Q=together("num_tried_Q"),
        tokens_Q_B=together("tokens_Q_B"),
        reasoning_Q_B=together("reasoning_Q_B"),
        hidden_Q_L_D=np.concatenate([states for states in hidden if states is not None]) if layers else None,
        layers=layers,
        texts=each("texts"),
        difficulties=each("difficulties"),
        provenance=replace(first.provenance, name=" + ".join(names)),
        traces=_joined_traces([profile.traces for profile in profiles]),
        tried_Q_B=None if all(profile.tried_Q_B is None for profile in profiles) else together("tries_Q_B"),
        input_Q_B=None if any(profile.input_Q_B is None for profile in profiles) else together("input_Q_B"),
    )


def _unlike(first: Menu, second: Menu) -> str:
    """Which of two menus' options set other things under one name, in words; "" where none does."""
    unlike = first.unlike(second)
    return f" ({', '.join(map(repr, unlike))} set other things in each)" if unlike else ""


def _joined_traces(parts: Sequence[Traces | None]) -> Traces | None:
    found = [part for part in parts if part is not None]
    if len(found) < len(parts):
        return None
    return Traces.joined(found)


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
    """The menu of every option that both have; raises MismatchError where they share none, or one only by name."""
    shared = first.common(second)
    if shared is None:
        how = "--menu" if first.is_named or second.is_named else "--budgets"
        raise MismatchError(f"the budgets {first} and {second} have none in common: measure both with one {how}")
    if unlike := _unlike(first, second):
        raise MismatchError(f"the options {first} and {second} have the same names and differ{unlike}")
    return shared


def on_menu(profile: Profile, menu: Menu) -> Profile:
    """The profile at the options of `menu` alone, every one of which it was measured at.

    Exact: the trace under a smaller cap is the prefix of the trace under a larger one, so columns are picked and
    nothing is interpolated. Named options are the same by name, wherever they stand; rows of traces that were not
    tried under one of them stay. `provenance` still says how it was measured.

    Raises:
        MismatchError: an option that was not measured.
    """
    return profile.on_columns(menu, _columns(profile.menu, menu))


def curves_on_menu(curves: Curves, menu: Menu) -> Curves:
    """The curves at the options of `menu` alone; raises MismatchError where they have none for one of them."""
    columns = _columns(curves.menu, menu)
    tokens_Q_B = None if curves.tokens_Q_B is None else curves.tokens_Q_B[:, columns]
    input_Q_B = None if curves.input_Q_B is None else curves.input_Q_B[:, columns]
    return replace(curves, menu=menu, p_Q_B=curves.p_Q_B[:, columns], tokens_Q_B=tokens_Q_B, input_Q_B=input_Q_B)


def _columns(menu: Menu, wanted: Menu) -> IntArray:
    if menu.is_named and wanted.is_named:
        if missing := [label for label in wanted.labels if label not in menu.labels]:
            raise MismatchError(f"the options {menu} do not hold {', '.join(map(repr, missing))}")
        return np.array([menu.column_of(label) for label in wanted.labels])
    if missing := [str(budget) for budget in wanted.caps if budget not in menu]:
        shown = missing[0] if len(missing) == 1 else f"{missing[0]}, … {missing[-1]}"
        raise MismatchError(f"the menu {wanted} has budgets that the menu {menu} lacks: {shown}")
    return menu.columns(wanted.caps)
