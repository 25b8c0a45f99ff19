"""Splits of the samples of the same queries: some choose the options, the others evaluate them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..core.data import IntArray
from ..core.profile import RIGHT, UNTRIED, Profile
from ..errors import InvalidSettingsError

STREAM = 20_261  # of the halvings: numbers of their own, whatever else was drawn by the same seed

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """One split of the samples of the same queries."""

    choosing: Profile
    judged: Profile

    @property
    def turned(self) -> Split:
        """The other way round."""
        return Split(self.judged, self.choosing)


def drawn(profile: Profile, is_in_N_B: BoolArray) -> Profile:
    """The profile of some of its samples: a mask of traces and options, shape (N, B)."""
    assert profile.traces is not None
    starts_Q = np.cumsum(profile.num_tried_Q) - profile.num_tried_Q
    is_in_N_B = is_in_N_B & (profile.traces.grade_N_B != UNTRIED)
    grade_N_B = np.where(is_in_N_B, profile.traces.grade_N_B, UNTRIED).astype(np.int8)
    tried_Q_B = np.add.reduceat(is_in_N_B, starts_Q, dtype=np.int64)
    tokens_N_B = np.where(is_in_N_B, profile.traces.tokens_N_B.astype(np.float64), 0.0)
    with np.errstate(invalid="ignore"):
        tokens_Q_B = np.add.reduceat(tokens_N_B, starts_Q) / tried_Q_B
    return replace(
        profile,
        num_right_Q_B=np.add.reduceat(grade_N_B == RIGHT, starts_Q, dtype=np.int64),
        tried_Q_B=tried_Q_B,
        tokens_Q_B=tokens_Q_B,
        reasoning_Q_B=tokens_Q_B,
        traces=replace(profile.traces, grade_N_B=grade_N_B),
    )


def even(profile: Profile) -> BoolArray:
    """The samples with an even number: a mask of traces and options, shape (N, B)."""
    assert profile.traces is not None
    is_even_N = profile.traces.sample_N % 2 == 0
    return np.broadcast_to(is_even_N[:, None], profile.traces.grade_N_B.shape)


def _ranks(profile: Profile, seed: int) -> IntArray:
    """Place of each draw among those of its query in an order drawn at random, shape (N, B).

    Under caps a trace is one draw; of named options those of each are put in an order of their own. What was not drawn
    comes last.
    """
    assert profile.traces is not None
    grade_N_B, starts_Q = profile.traces.grade_N_B, np.cumsum(profile.num_tried_Q) - profile.num_tried_Q
    random = np.random.default_rng([seed, STREAM])
    query_N = np.repeat(np.arange(profile.num_queries), profile.num_tried_Q)
    keys = random.random((len(grade_N_B), profile.menu.num_options if profile.menu.is_named else 1))
    keys = np.where(grade_N_B == UNTRIED, 2.0, keys)
    rank_N_B = np.empty(grade_N_B.shape, dtype=np.int64)
    for column in range(profile.menu.num_options):
        order_N = np.lexsort((keys[:, column], query_N))
        rank_N_B[order_N, column] = np.arange(len(order_N)) - starts_Q[query_N[order_N]]
    return rank_N_B


def half(profile: Profile, seed: int) -> BoolArray:
    """A random half of the samples of every query under every option: a mask of them, shape (N, B)."""
    tries_N_B = np.repeat(profile.tries_Q_B, profile.num_tried_Q, axis=0)
    is_in_N_B: BoolArray = 2 * _ranks(profile, seed) < tries_N_B
    return is_in_N_B


def firsts(profile: Profile, number: int, times: int, seed: int) -> list[Split]:
    """Splits in which `number` samples choose, for the questions that have more under every option."""
    if number < 1:
        raise InvalidSettingsError(f"--draws: at least one sample must choose, not {number}")
    rows = np.flatnonzero((profile.tries_Q_B > number).all(axis=1))
    if not len(rows):
        return []
    kept = profile.select(rows)
    masks = [_ranks(kept, seed + each) < number for each in range(times)]
    return [Split(drawn(kept, mask), drawn(kept, ~mask)) for mask in masks]
