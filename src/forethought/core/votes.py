"""Votes over several samples of one query: groups of the same answer are counted, and the largest answers.

A vote is over groups, whole numbers: samples with the same answer have the same one, `ABSTAINS` stands for an answer
that nobody can read, which counts for no group. Groups with as many votes share the win, so that a vote depends on no
order. Plurality votes over samples are self-consistency (Wang et al., 2022, arXiv 2203.11171).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidSettingsError
from .data import Logprobs

WEIGHTS = ("", "answer", "thought")
EQUAL = "equal"  # said of one vote each, where nothing said means another default
ABSTAINS = -1  # the group of an unreadable answer
RIGHT_GROUP = 0  # of the answers to a query whose right one is known
MOST_SUBSETS = 2048  # of traces that a weighted vote is measured on: more are sampled
NEAR = 1e-9  # votes this near are tied: sums of weights in another order differ by rounding


@dataclass(frozen=True, slots=True)
class Voting:
    """How samples vote.

    Attributes:
        min_agreement: share of the votes below which an answer is marked as abstained; 0 for none.
        weights: "" for one vote each; "answer" or "thought": each weighs exp of the mean log-probability of its answer,
            or of the end of its thought (`Logprobs`), where every sample of a query has it.
    """

    min_agreement: float = 0.0
    weights: str = ""

    def __post_init__(self) -> None:
        if not 0.0 <= self.min_agreement <= 1.0:
            raise InvalidSettingsError(f"the least agreement must be from 0 to 1, not {self.min_agreement}")
        if self.weights not in WEIGHTS:
            raise InvalidSettingsError(f"votes are weighed by answer or thought, not {self.weights!r}")

    def weights_of(self, logprobs: Sequence[Logprobs | None]) -> list[float] | None:
        """The weight of each sample; None for one vote each, also where a log-probability is not known."""
        if not self.weights:
            return None
        found = [None if each is None else getattr(each, self.weights) for each in logprobs]
        return None if None in found else [math.exp(value) for value in found if value is not None]


ONE_VOTE_EACH = Voting()


@dataclass(frozen=True, slots=True)
class Vote:
    """What several samples of one query say together.

    Attributes:
        winners: the groups with the most votes, in the order in which they first came; empty where all abstain.
        share: of the votes that the winners have each, abstentions counted in the whole; 0 where all abstain.
        num_samples: samples that were drawn.
        num_abstained: of these, unreadable ones.
    """

    winners: tuple[int, ...]
    share: float
    num_samples: int
    num_abstained: int


def tally(groups: Sequence[int], weights: Sequence[float] | None = None) -> Vote:
    """The vote of some samples.

    Args:
        groups: of each sample's answer; `ABSTAINS` for an unreadable one.
        weights: of each sample, at least 0; None for one vote each.
    """
    each = [1.0] * len(groups) if weights is None else [float(weight) for weight in weights]
    votes_of: dict[int, list[float]] = {}
    for group, weight in zip(groups, each, strict=True):
        if group != ABSTAINS:
            votes_of.setdefault(group, []).append(weight)
    summed = {group: math.fsum(sorted(found)) for group, found in votes_of.items()}  # in no order of samples
    most, whole = max(summed.values(), default=0.0), math.fsum(sorted(each))
    winners = tuple(group for group, votes in summed.items() if votes >= most - NEAR * whole)
    return Vote(winners, most / whole if whole else 0.0, len(groups), sum(group == ABSTAINS for group in groups))


def chance_right(num_right: int, num_wrong: Iterable[int], num_abstained: int, samples: int) -> float:
    """Chance that the vote of `samples` of a query's traces is right, over all ways to draw them without replacement.

    It is the mean over all subsets of that size, ties shared: an unbiased estimate of the chance that the vote of so
    many fresh samples is right (a U-statistic; Hoeffding, 1948). Of one sample it is the share of traces right.

    Args:
        num_right: traces with the right answer.
        num_wrong: traces of each group of wrong answers.
        num_abstained: traces with an unreadable answer.
        samples: from 1 to the number of traces.
    """
    wrong = tuple(sorted(filter(None, num_wrong)))
    num_traces = num_right + sum(wrong) + num_abstained
    if not 1 <= samples <= num_traces:
        raise ValueError(f"a vote of {samples} samples needs as many traces; there are {num_traces}")
    return _chance_right(num_right, wrong, num_abstained, samples)


@lru_cache(maxsize=1 << 16)  # many queries and caps have the same counts
def _chance_right(num_right: int, wrong: tuple[int, ...], num_abstained: int, samples: int) -> float:
    ways = 0.0
    for votes in range(1, min(num_right, samples) + 1):
        # ways_T_S[tied][drawn]: ways to draw so many others, so many groups with as many votes as the right one.
        ways_T_S = [[math.comb(num_abstained, drawn) for drawn in range(samples - votes + 1)]]
        for size in wrong:
            ways_T_S = _with_group(ways_T_S, size, votes)
        shared = math.fsum(row[samples - votes] / (tied + 1) for tied, row in enumerate(ways_T_S))
        ways += math.comb(num_right, votes) * shared
    return ways / math.comb(num_right + sum(wrong) + num_abstained, samples)


def _with_group(ways_T_S: list[list[int]], size: int, votes: int) -> list[list[int]]:
    """The ways with one more group of `size` traces, of which at most `votes` are drawn."""
    num_drawn = len(ways_T_S[0])
    found = [[0] * num_drawn for _ in range(len(ways_T_S) + (size >= votes))]
    for tied, row in enumerate(ways_T_S):
        for own in range(min(size, votes, num_drawn - 1) + 1):
            ways, into = math.comb(size, own), found[tied + (own == votes)]
            for drawn in range(num_drawn - own):
                into[drawn + own] += row[drawn] * ways
    return found


def weighted_chance_right(groups: Sequence[int], weights: Sequence[float], samples: int) -> float:
    """The same where votes have weights, `RIGHT_GROUP` being the right answer.

    Over all subsets where there are at most `MOST_SUBSETS`, else over as many drawn at random, always the same ones for
    as many traces: unbiased either way. A subset in which a weight is not known votes with one vote each, as
    `Voting.weights_of` has it.

    Args:
        groups: of the answer of each trace; `ABSTAINS` for an unreadable one.
        weights: of each trace, at least 0; NaN where it is not known.
        samples: from 1 to the number of traces.
    """
    group_T, weight_T = np.asarray(groups, dtype=np.int64), np.asarray(weights, dtype=np.float64)
    if not 1 <= samples <= len(group_T):
        raise ValueError(f"a vote of {samples} samples needs as many traces; there are {len(group_T)}")
    counts = Counter(groups)
    num_right, num_abstained = counts.pop(RIGHT_GROUP, 0), counts.pop(ABSTAINS, 0)
    if not num_right or not counts or (len(set(weights)) == 1 and weights[0]):  # weights change nothing
        return chance_right(num_right, counts.values(), num_abstained, samples)
    is_in_S_T = _subsets(len(group_T), samples)
    is_equal_S_1 = (is_in_S_T & np.isnan(weight_T)).any(axis=1, keepdims=True)
    weight_S_T = np.where(is_in_S_T, np.where(is_equal_S_1, 1.0, np.nan_to_num(weight_T)), 0.0)
    is_of_T_G = np.stack([group_T == group for group in (RIGHT_GROUP, *counts)], axis=1)
    votes_S_G = weight_S_T @ is_of_T_G
    has_votes_S_G = is_in_S_T @ is_of_T_G  # a vote of weight 0 is one
    most_S = np.where(has_votes_S_G, votes_S_G, -1.0).max(axis=1)
    is_winner_S_G = has_votes_S_G & (votes_S_G >= (most_S - NEAR * weight_S_T.sum(axis=1))[:, None])
    return float((is_winner_S_G[:, 0] / np.maximum(is_winner_S_G.sum(axis=1), 1)).mean())


@lru_cache(maxsize=64)
def _subsets(num_traces: int, samples: int) -> NDArray[np.bool_]:
    """Which traces are in each of some subsets, shape (S, T): all subsets, or a sample without regard to what is in."""
    if math.comb(num_traces, samples) <= MOST_SUBSETS:
        chosen_S = np.array(list(combinations(range(num_traces), samples)))
    else:
        noise_S_T = np.random.default_rng([num_traces, samples]).random((MOST_SUBSETS, num_traces))
        chosen_S = np.argsort(noise_S_T, axis=1)[:, :samples]
    is_in_S_T = np.zeros((len(chosen_S), num_traces), dtype=bool)
    np.put_along_axis(is_in_S_T, chosen_S, values=True, axis=1)
    is_in_S_T.setflags(write=False)
    return is_in_S_T
