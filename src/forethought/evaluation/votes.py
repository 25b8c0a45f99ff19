"""Votes measured on a profile: what several of its traces would have answered together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..core.arguments import wholes
from ..core.data import FloatArray, IntArray
from ..core.menu import Menu
from ..core.profile import RIGHT, UNTRIED, WRONG, Profile
from ..core.protocols import Grader
from ..core.votes import ABSTAINS, RIGHT_GROUP, chance_right, weighted_chance_right
from ..errors import InvalidInputError, InvalidSettingsError
from ..graders import group_answers
from .vote_replay import FrozenDraws

NUM_ORDERS = 64  # in which each query's samples are seen while it is learned how votes move


def groups(profile: Profile, grader: Grader) -> IntArray:
    """The group of each answer among those of its query, shape (N, B).

    `RIGHT_GROUP` is the right answer, the other groups are wrong ones; `ABSTAINS` where the answer is unreadable, or
    the option was not tried.

    Raises:
        InvalidInputError: a profile that keeps no answers.
    """
    traces = profile.traces
    if traces is None:
        raise InvalidInputError(
            f"the profile {profile.provenance.name or ''} holds counts and no answers, which votes need: measure it "
            "again with `forethought profile`, which keeps them"
        )
    group_N_B = np.where(traces.grade_N_B == RIGHT, RIGHT_GROUP, ABSTAINS)
    for where, texts in zip(profile.traces_of_Q, traces.answers_Q, strict=True):
        group_A = np.array(group_answers(texts, grader), dtype=np.int64)
        is_wrong = traces.grade_N_B[where] == WRONG
        found = group_A[traces.answer_N_B[where][is_wrong]]
        group_N_B[where][is_wrong] = np.where(found == ABSTAINS, ABSTAINS, found + RIGHT_GROUP + 1)
    return group_N_B


def weights(profile: Profile, by: str) -> FloatArray:
    """The weight of each trace's vote, see `core.votes.Voting`, shape (N, B); NaN where it is not known.

    Raises:
        InvalidInputError: a profile without these log-probabilities.
    """
    logprob_N_B = None if profile.traces is None else getattr(profile.traces, f"{by}_logprob_N_B")
    if logprob_N_B is None:
        raise InvalidInputError(
            f"the profile {profile.provenance.name or ''} does not say how likely the model found its "
            f"{'answers' if by == 'answer' else 'thoughts'}, which weighs votes: measure it again by an engine that "
            "shows log-probabilities (--engine vllm --engine-option logprobs=true)"
        )
    weight_N_B: FloatArray = np.exp(logprob_N_B.astype(np.float64))
    return weight_N_B


def most_samples(profile: Profile) -> int:
    """The most samples whose vote is measured under every option, on one question at least."""
    return int(profile.tries_Q_B.max(axis=0, initial=0).min())


def frozen_draws(
    profile: Profile, label: str, num_samples: int, grader: Grader, weigh_by: str = ""
) -> tuple[IntArray, FrozenDraws]:
    """`(rows, draws)`: the samples by one option of the queries that have so many, in random orders.

    Args:
        profile: single samples, with traces.
        label: of the option.
        num_samples: of each query; it needs as many.
        grader: says which answers are the same.
        weigh_by: as of `voted`.
    """
    column, group_N_B = profile.menu.labels.index(label), groups(profile, grader)
    assert profile.traces is not None
    is_drawn_N = profile.traces.grade_N_B[:, column] != UNTRIED
    kept = [np.arange(where.start, where.stop)[is_drawn_N[where]] for where in profile.traces_of_Q]
    rows = np.array([row for row, traces in enumerate(kept) if len(traces) >= num_samples], dtype=np.int64)
    index_Q_T = np.array([kept[row][:num_samples] for row in rows], dtype=np.int64).reshape(len(rows), num_samples)
    tokens_Q_T = profile.traces.tokens_N_B[:, column][index_Q_T].astype(np.float64)
    weight_Q_T = weights(profile, weigh_by)[:, column][index_Q_T] if weigh_by else None
    group_Q_T = group_N_B[:, column][index_Q_T]
    return rows, FrozenDraws.shuffled(group_Q_T, tokens_Q_T, num_orders=NUM_ORDERS, seed=0, weight_Q_T=weight_Q_T)


def voted(profile: Profile, samples: Sequence[int], grader: Grader, weigh_by: str = "") -> Profile:
    """The profile of votes: each of its options with each number of samples.

    The chance that a vote is right is the mean over all subsets of a query's traces of that size (`chance_right`). A
    query with T traces has T // k votes of k samples that share no trace: as many count as tried, since that is about
    what the mean knows. A number of samples that it has not got is not tried.

    Args:
        profile: single samples, with traces.
        samples: numbers of samples, each at least 1.
        grader: says which answers are the same.
        weigh_by: "" for one vote each; "answer" or "thought" as in `Voting.weights`.

    Raises:
        InvalidInputError: a profile that keeps no answers, or no log-probabilities to weigh them by.
        InvalidSettingsError: numbers of samples that no query has under some option.
    """
    numbers = sorted(set(wholes("samples", samples)))
    most_B = profile.tries_Q_B.max(axis=0, initial=0)
    most = most_samples(profile)
    if not numbers or numbers[-1] > most:
        by = f" by option {profile.menu.labels[most_B.argmin()]!r}" if most < most_B.max() else ""
        raise InvalidSettingsError(
            f"samples must be whole numbers from 1 to {most}, the most traces of a question{by}; got {list(samples)}"
        )
    tries_Q_B, group_N_B = profile.tries_Q_B, groups(profile, grader)
    weight_N_B = weights(profile, weigh_by) if weigh_by else None
    is_tried_Q_B = tries_Q_B > 0
    mean_B = np.where(is_tried_Q_B, profile.tokens_Q_B, 0.0).sum(axis=0) / np.maximum(is_tried_Q_B.sum(axis=0), 1)
    menu = profile.menu.times(numbers, mean_B)
    tried_Q_V = np.zeros((profile.num_queries, menu.num_options), dtype=np.int64)
    right_Q_V = np.zeros(tried_Q_V.shape)
    base_V, samples_V = _places(profile, menu), menu.samples_B
    is_drawn_N_B = np.ones(group_N_B.shape, bool) if profile.traces is None else profile.traces.grade_N_B != UNTRIED
    for row, where in enumerate(profile.traces_of_Q):
        for column in range(profile.menu.num_options):
            is_drawn_T = is_drawn_N_B[where, column]
            found = group_N_B[where, column][is_drawn_T]
            weight_T = None if weight_N_B is None else weight_N_B[where, column][is_drawn_T].tolist()
            num_right, *num_wrong = np.bincount(found[found != ABSTAINS], minlength=RIGHT_GROUP + 1).tolist()
            num_abstained = int((found == ABSTAINS).sum())
            for place in np.flatnonzero((base_V == column) & (samples_V <= len(found))):
                number = int(samples_V[place])
                if weight_T is None:
                    chance = chance_right(num_right, num_wrong, num_abstained, number)
                else:
                    chance = weighted_chance_right(found.tolist(), weight_T, number)
                tried_Q_V[row, place] = len(found) // number
                right_Q_V[row, place] = chance * tried_Q_V[row, place]
    input_Q_B = profile.input_Q_B
    return replace(
        profile,
        menu=menu,
        num_right_Q_B=right_Q_V,
        tried_Q_B=tried_Q_V,
        tokens_Q_B=profile.tokens_Q_B[:, base_V] * samples_V,
        reasoning_Q_B=profile.reasoning_Q_B[:, base_V] * samples_V,
        input_Q_B=None if input_Q_B is None else input_Q_B[:, base_V] * samples_V,
        traces=None,
        provenance=replace(profile.provenance, menu=menu),
    )


def _places(profile: Profile, menu: Menu) -> IntArray:
    """Column of the profile by which the samples of each vote are drawn, shape (V,)."""
    labels = profile.menu.labels
    return np.array([labels.index(option.single.label) for option in menu.options], dtype=np.int64)
