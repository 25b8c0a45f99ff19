"""From single samples to votes: the profile of votes, and a predictor that knows how votes stand and move."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..core.features import MIN_QUERIES
from ..core.menu import Menu
from ..core.profile import Profile
from ..errors import InvalidInputError, InvalidSettingsError
from ..evaluation.splits import drawn, even
from ..evaluation.votes import frozen_draws, most_samples, voted
from ..predictors.parts.wave_table import learn_waves
from ..predictors.predictor import Predictor
from .judging import Judge

Halves = tuple[Profile, Profile]


def with_votes(profile: Profile, samples: Sequence[int], weigh_by: str = "") -> Profile:
    """The profile of votes, see `evaluation.votes.voted`, by its own grader; itself without numbers of samples."""
    if weigh_by and not samples:
        raise InvalidSettingsError("vote weights (--vote-weights) weigh several samples: add samples (--samples 1,2,4)")
    return voted(profile, samples, Judge.of_provenance(profile.provenance).grader, weigh_by) if samples else profile


def with_votes_of(menu: Menu, profile: Profile, weigh_by: str = "") -> Profile:
    """The same with the numbers of samples on `menu` that the profile has; itself where it has them already."""
    if (profile.menu.samples_B > 1).any() or (menu.samples_B == 1).all():
        return profile
    numbers = {number for number in menu.samples_B.tolist() if number <= most_samples(profile)}
    if not numbers:
        raise InvalidInputError(
            f"{profile.provenance.name or 'the profile'} has {most_samples(profile)} traces of a question, too few for "
            f"the votes of {menu}: measure more, forethought profile --traces N"
        )
    return with_votes(profile, sorted(numbers), weigh_by)


def halves(profile: Profile, samples: Sequence[int] = (), weigh_by: str = "") -> Halves | None:
    """The even and the odd samples of a profile, with the votes that either has enough of; None without two of each."""
    if profile.traces is None or not profile.num_queries or (profile.num_tried_Q < 2).any():
        return None
    is_even_N_B = even(profile)
    one, other = drawn(profile, is_even_N_B), drawn(profile, ~is_even_N_B)
    if not samples:
        return one, other
    most = int(min(one.tries_Q_B.min(), other.tries_Q_B.min()))
    numbers = [number for number in samples if number <= most]
    return (with_votes(one, numbers, weigh_by), with_votes(other, numbers, weigh_by)) if numbers else None


def halves_of(menu: Menu, profile: Profile, weigh_by: str = "") -> Halves | None:
    """The same with the numbers of samples on `menu`."""
    numbers = sorted(set(menu.samples_B.tolist()))
    return halves(profile, numbers if numbers[-1] > 1 else (), weigh_by)


def with_waves(predictor: Predictor, profile: Profile, samples: Sequence[int]) -> Predictor:
    """A predictor of votes that also knows how they stand and move, learned on the single samples of its questions.

    Args:
        predictor: just trained on the votes of `profile`, weighed as its card says.
        profile: single samples, with traces.
        samples: numbers of samples that it predicts; options that it does not predict a single sample of have none.
    """
    if len(samples) < 2:
        return predictor
    grader, said, tables = Judge.of_provenance(profile.provenance).grader, predictor.left_out, {}
    for label in predictor.card.menu.singles:
        if label not in predictor.card.menu.labels:
            continue
        rows, draws = frozen_draws(profile, label, max(samples), grader, predictor.card.vote_weights)
        predicted_Q = None
        if said is not None:
            column, place_of = said.menu.column_of(label), {name: row for row, name in enumerate(said.query_ids)}
            known = [place for place, row in enumerate(rows.tolist()) if profile.query_ids[row] in place_of]
            draws = draws.select(np.array(known, dtype=np.int64))
            predicted_Q = said.p_Q_B[[place_of[profile.query_ids[rows[place]]] for place in known], column]
        if len(draws.group_Q_T) >= MIN_QUERIES:
            tables[label] = replace(learn_waves(draws, predicted_Q), weights=predictor.card.vote_weights)
    return replace(predictor, waves=tables)
