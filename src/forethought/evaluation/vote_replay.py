"""Votes of samples that were drawn before, in many random orders: samples of a query have no order of their own.

A vote is right by the share of the tied winners that are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np

from ..core.data import FloatArray, IntArray
from ..core.stopping import Standing
from ..core.votes import NEAR, RIGHT_GROUP
from ..errors import InvalidInputError


@dataclass(frozen=True, eq=False)
class FrozenDraws:
    """Samples of each query under one option, T of each, of which N are shown in each of R orders.

    Attributes:
        group_Q_T: the group of each answer; 0 is the right one, others are wrong, -1 is unreadable and abstains.
        tokens_Q_T: tokens generated for each.
        order_Q_R_N: which are shown, in which order, as indices into T.
        weight_Q_T: of each vote, at least 0, NaN where it is not known; None for one vote each.
    """

    group_Q_T: IntArray
    tokens_Q_T: FloatArray
    order_Q_R_N: IntArray
    weight_Q_T: FloatArray | None = None

    def __post_init__(self) -> None:
        shape, shown = self.group_Q_T.shape, self.order_Q_R_N.shape
        is_fit = self.tokens_Q_T.shape == shape and (self.weight_Q_T is None or self.weight_Q_T.shape == shape)
        if not is_fit or shown[0] != shape[0] or not 1 <= shown[2] <= shape[1]:
            raise InvalidInputError(
                f"groups {shape}, tokens {self.tokens_Q_T.shape} and orders {shown} must be of the same queries, with "
                "at least one sample of each, and no more shown than there are"
            )

    @classmethod
    def shuffled(
        cls,
        group_Q_T: IntArray,
        tokens_Q_T: FloatArray,
        *,
        num_orders: int,
        seed: int,
        most: int | None = None,
        weight_Q_T: FloatArray | None = None,
    ) -> Self:
        """In random orders, which depend on the shape of what was drawn and on the seed alone.

        Args:
            group_Q_T: as the attribute.
            tokens_Q_T: as the attribute.
            num_orders: R.
            seed: of the orders.
            most: N; None for all samples.
            weight_Q_T: as the attribute.
        """
        keys = np.random.default_rng(seed).random((group_Q_T.shape[0], num_orders, group_Q_T.shape[1]))
        return cls(group_Q_T, tokens_Q_T, keys.argsort(axis=2)[:, :, :most], weight_Q_T)

    @property
    def num_samples(self) -> int:
        """N."""
        return int(self.order_Q_R_N.shape[2])

    def select(self, rows: IntArray) -> FrozenDraws:
        """The queries `rows`."""
        weight_Q_T = None if self.weight_Q_T is None else self.weight_Q_T[rows]
        return FrozenDraws(self.group_Q_T[rows], self.tokens_Q_T[rows], self.order_Q_R_N[rows], weight_Q_T)

    @cached_property
    def standing_Q_R_N(self) -> Standing:
        """How the vote stands after 0, 1, … N samples, in samples, whatever they weigh; shape (Q, R, N + 1)."""
        top, second, _ = self._counted
        num_drawn = np.broadcast_to(np.arange(self.num_samples + 1), top.shape)
        return Standing(num_drawn, top, second)

    @cached_property
    def right_Q_R_N(self) -> FloatArray:
        """Whether the vote is right after 0, 1, … N samples, ties shared, shape (Q, R, N + 1); 0 where all abstain."""
        return self._counted[2] if self.weight_Q_T is None else self._weighed(self.weight_Q_T)

    @cached_property
    def spent_Q_R_N(self) -> FloatArray:
        """Tokens generated after 0, 1, … N samples, shape (Q, R, N + 1)."""
        shown = np.take_along_axis(self.tokens_Q_T[:, None], self.order_Q_R_N, axis=2)
        return np.concatenate([np.zeros((*shown.shape[:2], 1)), shown.cumsum(axis=2)], axis=2)

    @cached_property
    def _counted(self) -> tuple[IntArray, IntArray, FloatArray]:
        shown = np.take_along_axis(self.group_Q_T[:, None], self.order_Q_R_N, axis=2)
        num_queries, num_orders, num_samples = shown.shape
        num_groups = int(shown.max(initial=0)) + 1
        # One column beyond the groups takes abstentions, and is looked at by nobody.
        votes = np.zeros((num_queries * num_orders, num_groups + 1), dtype=np.int16)
        shape = (num_queries, num_orders, num_samples + 1)
        top, second = (np.zeros(shape, dtype=np.int16) for _ in range(2))
        right = np.zeros(shape)
        every = np.arange(len(votes))
        for number in range(1, num_samples + 1):
            now = shown[:, :, number - 1]
            votes[every, np.where(now < 0, num_groups, now).ravel()] += 1
            counted = votes[:, :num_groups]
            most = counted.max(axis=1)
            num_tied = (counted == most[:, None]).sum(axis=1)
            below = np.where(counted < most[:, None], counted, 0).max(axis=1)
            wins = (counted[:, RIGHT_GROUP] == most) & (most > 0)
            top[:, :, number] = most.reshape(shape[:2])
            second[:, :, number] = np.where(num_tied > 1, most, below).reshape(shape[:2])
            right[:, :, number] = (wins / num_tied).reshape(shape[:2])
        return top, second, right

    def _weighed(self, weight_Q_T: FloatArray) -> FloatArray:
        """The same where votes have weights; one vote each among samples of which one has none, see `Voting`."""
        group_Q_R_N, weight_Q_R_N = (
            np.take_along_axis(each[:, None], self.order_Q_R_N, axis=2) for each in (self.group_Q_T, weight_Q_T)
        )
        shape, num_groups = group_Q_R_N.shape[:2], int(group_Q_R_N.max(initial=0)) + 1
        every = np.arange(shape[0] * shape[1])
        count, votes = (np.zeros((len(every), num_groups + 1)) for _ in range(2))  # the last column abstains
        is_known = np.ones(len(every), dtype=bool)
        right = np.zeros((*shape, self.num_samples + 1))
        for number in range(self.num_samples):
            now, weight = group_Q_R_N[:, :, number].ravel(), weight_Q_R_N[:, :, number].ravel()
            column = np.where(now < 0, num_groups, now)
            count[every, column] += 1
            votes[every, column] += np.nan_to_num(weight)
            is_known &= ~np.isnan(weight)
            held = np.where(is_known[:, None], votes, count)
            has_votes = count[:, :num_groups] > 0  # a vote of weight 0 is one
            most = np.where(has_votes, held[:, :num_groups], -1.0).max(axis=1)
            wins = has_votes & (held[:, :num_groups] >= (most - NEAR * held.sum(axis=1))[:, None])
            shared = wins[:, RIGHT_GROUP] / np.maximum(wins.sum(axis=1), 1)
            right[:, :, number + 1] = shared.reshape(shape)
        return right
