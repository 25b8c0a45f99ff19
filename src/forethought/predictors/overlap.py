"""What of a held-out profile was trained on after all."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..core.data import IntArray, Profile
from ..errors import InvalidSettingsError
from .predictor import Predictor
from .seen import Seen
from .selection import is_trained_on


def rows_trained_on(trained: Predictor | Seen, profile: Profile) -> IntArray | None:
    """Rows of the profile's queries that the predictor has learned from; None where that is not known.

    A predictor saved without hashes of its questions knows a profile only as a whole.
    """
    if isinstance(trained, Seen):
        return trained.rows(profile)
    if trained.seen is not None:
        return trained.seen.rows(profile)
    return np.arange(profile.num_queries) if is_trained_on(trained, profile) else None


def held_out(profile: Profile, predictors: Mapping[str, Predictor | Seen]) -> tuple[Profile, tuple[str, ...]]:
    """The profile without the queries that any of the predictors was trained on, and what is to be said of that.

    Args:
        profile: to judge on.
        predictors: name -> predictor, or the questions that something else was fitted on.

    Raises:
        InvalidSettingsError: nothing is left.
    """
    is_held_Q = np.ones(profile.num_queries, dtype=bool)
    notes = []
    for name, trained in predictors.items():
        rows = rows_trained_on(trained, profile)
        if rows is None:
            notes.append(
                f"Whether {name} was trained on some of these questions is not known: it was saved without their "
                f"hashes. Train it again to know."
            )
        elif len(rows) == profile.num_queries:
            raise InvalidSettingsError(
                f"{name} was trained on all {profile.num_queries} questions of {profile.info.get('name')!r}: what it "
                f"says of them is no prediction. Give --on other questions, or leave --on out and name the profile: "
                f"forethought evaluate PROFILE (every question is then predicted by a fit without it)"
            )
        else:
            is_held_Q[rows] = False
    num_seen = int((~is_held_Q).sum())
    if num_seen == profile.num_queries:
        raise InvalidSettingsError(
            f"each of the {num_seen} questions was trained on by one of {', '.join(predictors)}: nothing is left to "
            f"judge on. Give --on other questions"
        )
    if num_seen:
        notes.insert(
            0,
            f"{num_seen} of {profile.num_queries} questions were trained on and are left out; judged on the other "
            f"{profile.num_queries - num_seen}.",
        )
    return (profile.select(is_held_Q) if num_seen else profile), tuple(notes)
