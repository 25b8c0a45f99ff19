"""Blend-ASC: a number of samples for all questions together, each next one where the vote is least certain."""

from __future__ import annotations

from functools import lru_cache
from math import comb

import numpy as np

from forethought.core.data import FloatArray, IntArray
from forethought.evaluation.vote_replay import FrozenDraws
from votes_replay import Replayed, replayed, standing_at
from votes_stopping import lead_certainty

PARTS = 100  # batches in which the samples are handed out


def blend_asc(draws: FrozenDraws, mean_samples: float, *, most: int) -> Replayed:
    """Blend-ASC on frozen samples (Feng et al., 2025, "Optimal Self-Consistency …", arXiv 2511.12309).

    All questions share a total of samples. Each sample goes to the question with the least certain vote, by a blend of
    two rankings: Adaptive-Consistency's posterior chance that the leader stays behind (`lead_certainty`), which is
    better early, and the one-against-one test PPR-1v1, which is optimal in the limit (Jain et al., 2022, arXiv
    2109.05047): its p-value is the density of Beta(top + 1, second + 1) at 1/2.

    Ours to choose, since we know the method by its description and not by its code: the blend is the sum of a
    question's two ranks, of which PPR-1v1's weighs by the share of the total that is spent, and the other one by the
    rest; every question has one sample first; samples are handed out in batches of 1% of the total, one each to the
    questions of the highest blend; of equal ones the earlier has it; a question has at most `most` samples.

    Args:
        draws: samples of all questions.
        mean_samples: the total, as a mean number per question, at least 1.
        most: samples of one question, at most.
    """
    num_queries, num_orders, _ = draws.order_Q_R_N.shape
    total = min(round(mean_samples * num_queries), most * num_queries)
    batch = max(1, total // PARTS)
    doubt, density = 1.0 - lead_certainty(most), _density_at_half(most)
    num_Q_R = np.ones((num_queries, num_orders), dtype=np.int64)
    spent = num_queries
    while spent < total:
        standing = standing_at(draws, num_Q_R)
        share, is_full_Q_R = spent / total, num_Q_R >= most
        blend_Q_R = (1.0 - share) * _ranks(doubt[standing.top, standing.second])
        blend_Q_R += share * _ranks(density[standing.top, standing.second])
        order_Q_R = np.argsort(np.where(is_full_Q_R, np.inf, -blend_Q_R), axis=0, kind="stable")
        # As many samples are spent in each order: none is full before the total is reached.
        number = min(batch, total - spent, int((~is_full_Q_R).sum(axis=0).min()))
        chosen_Q_R = order_Q_R[:number]
        np.put_along_axis(num_Q_R, chosen_Q_R, np.take_along_axis(num_Q_R, chosen_Q_R, axis=0) + 1, axis=0)
        spent += number
    return replayed(draws, num_Q_R)


def _ranks(values_Q_R: FloatArray) -> IntArray:
    """Rank of each question among all, from 0, equal values alike, shape (Q, R)."""
    ordered_Q_R = np.sort(values_Q_R, axis=0)
    return np.stack(
        [np.searchsorted(ordered_Q_R[:, order], values_Q_R[:, order]) for order in range(values_Q_R.shape[1])], axis=1
    )


@lru_cache(maxsize=4)
def _density_at_half(most: int) -> FloatArray:
    """Density of Beta(top + 1, second + 1) at 1/2, shape (most + 1, most + 1): by top, then second."""
    found = np.empty((most + 1, most + 1))
    for top in range(most + 1):
        for second in range(most + 1):
            votes = top + second
            found[top, second] = (votes + 1) * comb(votes, top) / 2**votes
    return found
