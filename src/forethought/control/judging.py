"""A grader that is ready for use, and single graded answers."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from ..core import registry
from ..core.data import Grade, Query
from ..core.features import MIN_QUERIES
from ..core.menu import Menu
from ..core.profile import Profile
from ..core.protocols import Grader, completed
from ..core.provenance import Provenance
from ..errors import InvalidInputError
from ..evaluation.votes import frozen_draws, voted
from ..graders import check_references, grader_of
from ..predictors.parts.wave_table import learn_waves
from ..predictors.predictor import Predictor


@dataclass(frozen=True, slots=True)
class Judge:
    """A grader that is ready, and what determines its verdicts, as a provenance that holds nothing else."""

    grader: Grader
    provenance: Provenance

    @classmethod
    def of(cls, grader: str | Grader | Judge, options: Mapping[str, Any] | None = None) -> Self:
        """The grader of that name, made with these options; or a grader itself, by the name of its class.

        Raises:
            UnknownNameError, InvalidSettingsError, MissingExtraError: as `registry.make`.
        """
        if isinstance(grader, Judge):
            return cls(grader.grader, grader.provenance)
        if isinstance(grader, str):
            made = completed(registry.make("graders", grader, options or {}), grader)
            return cls(made, _provenance(grader, options or {}, made))
        made = completed(grader, type(grader).__name__)
        return cls(made, _provenance(type(grader).__name__, {}, made))

    @classmethod
    def of_provenance(cls, made: Provenance) -> Self:
        """The grader that answers were graded by; "exact" where that is not known by name."""
        return cls(grader_of(made), Provenance().with_grader(made))

    def check(self, queries: Sequence[Query], *, required: bool = False) -> None:
        """Refuses references that the grader cannot read; raises InvalidInputError."""
        check_references(self.grader, queries, source="the questions", required=required)


def _provenance(name: str, options: Mapping[str, Any], grader: Grader) -> Provenance:
    return Provenance(grader=name, grader_options=dict(options) or None, grader_version=grader.version)


def with_votes(profile: Profile, samples: Sequence[int], weigh_by: str = "") -> Profile:
    """The profile of votes, see `evaluation.votes.voted`, by its own grader; itself without numbers of samples."""
    return voted(profile, samples, Judge.of_provenance(profile.provenance).grader, weigh_by) if samples else profile


def with_votes_of(menu: Menu, profile: Profile, weigh_by: str = "") -> Profile:
    """The same with the numbers of samples on `menu` that the profile has; itself where it has them already."""
    if (profile.menu.samples_B > 1).any() or (menu.samples_B == 1).all():
        return profile
    most = int(profile.num_tried_Q.max(initial=0))
    return with_votes(profile, [number for number in set(menu.samples_B.tolist()) if number <= most], weigh_by)


def with_waves(predictor: Predictor, profile: Profile, samples: Sequence[int]) -> Predictor:
    """A predictor of votes that also knows how they stand and move, learned on the single samples of its questions.

    Args:
        predictor: just trained on the votes of `profile`.
        profile: single samples, with traces.
        samples: numbers of samples that it predicts; options that it does not predict a single sample of have none.
    """
    if len(samples) < 2:
        return predictor
    grader, said, tables = Judge.of_provenance(profile.provenance).grader, predictor.left_out, {}
    for label in predictor.card.menu.singles:
        if label not in predictor.card.menu.labels:
            continue
        rows, draws = frozen_draws(profile, label, max(samples), grader)
        predicted_Q = None
        if said is not None:
            column, place_of = said.menu.column_of(label), {name: row for row, name in enumerate(said.query_ids)}
            known = [place for place, row in enumerate(rows.tolist()) if profile.query_ids[row] in place_of]
            draws = draws.select(np.array(known, dtype=np.int64))
            predicted_Q = said.p_Q_B[[place_of[profile.query_ids[rows[place]]] for place in known], column]
        if len(draws.group_Q_T) >= MIN_QUERIES:
            tables[label] = learn_waves(draws, predicted_Q)
    return replace(predictor, waves=tables)


def grade(answer: str, reference: str, grader: str = "number", **options: Any) -> Grade:
    """Judges one answer.

    Args:
        answer: what was answered.
        reference: the right answer.
        grader: registered name.
        options: what the grader's class takes.

    Returns:
        `Grade.RIGHT`, `Grade.WRONG` or `Grade.UNREADABLE`.
    """
    for name, value in (("answer", answer), ("reference", reference)):
        if not isinstance(value, str):
            raise InvalidInputError(f"the {name} must be text, not {value!r}")
    return _kept_grader(grader, json.dumps(options, sort_keys=True)).grade(answer=answer, reference=reference)


@functools.lru_cache(maxsize=8)
def _kept_grader(name: str, options: str) -> Grader:
    """A grader that is kept: the one of mathematics takes seconds to start."""
    made: Grader = registry.make("graders", name, json.loads(options))
    return made
