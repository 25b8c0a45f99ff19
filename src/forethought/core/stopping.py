"""How a vote stands while its samples are drawn: of one query an array without axes, or of all queries of a batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from .data import IntArray


@dataclass(frozen=True, slots=True, eq=False)
class Standing:
    """The votes after some samples; all arrays have one shape.

    Attributes:
        num_drawn: samples so far, abstentions included.
        top: votes of the group with the most.
        second: votes of the group with the most after that; as many as `top` where the two are tied.
    """

    num_drawn: IntArray
    top: IntArray
    second: IntArray

    @classmethod
    def of(cls, groups: Sequence[int]) -> Self:
        """Of one query, whose samples came in this order.

        Args:
            groups: of each sample's answer, from 0; below 0 for an unreadable one, which abstains.
        """
        votes = [count for _, count in Counter(group for group in groups if group >= 0).most_common(2)]
        top, second = [*votes, 0, 0][:2]
        return cls(*(np.array(each) for each in (len(groups), top, second)))
