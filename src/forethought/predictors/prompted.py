"""Curves from a label, such as the difficulty that the model states: the mean curve of each label."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from ..core.data import FloatArray, IntArray
from ..core.features import DIFFICULTY, Counts, Features
from ..core.protocols import EstimatorBase
from ..errors import InvalidSettingsError
from .parts.checks import usable
from .parts.shape import possible_usage

PRIOR_QUERIES = 5.0  # a level's mean is drawn to the mean of all as if so many queries more had it


class PromptedPredictor(EstimatorBase):
    """Accuracy curves and expected usage by the stated level: easy, medium, hard, or none of them.

    The prompted baseline of arXiv 2602.01237, with curves in place of one budget per class. Every level gets the mean
    curve of the training queries of which the model said so; a level that few have is drawn to the mean of all, and one
    that none has gets it. Any other set of labels will do: the tiers of another tool, say.

    Args:
        num_examples: worked examples a level in the prompt, picked from the training queries; 0 for zero-shot. The
            pipeline asks; this class reads what was said.

    Attributes:
        levels_: the labels seen, sorted.
        num_said_: training queries of each of them, and of none, one longer.
    """

    reads = (DIFFICULTY,)

    levels_: list[str]
    num_said_: list[int]

    _p_C_B: FloatArray
    _tokens_C_B: FloatArray | None

    def __init__(self, *, num_examples: int = 0) -> None:
        if not 0 <= num_examples <= 8:
            raise InvalidSettingsError(f"prompted option num_examples must lie between 0 and 8; got {num_examples}")
        self.num_examples = num_examples

    def fit(self, features: Features, counts: Counts) -> Self:
        """See `Estimator.fit`; reads the stated difficulties."""
        self.levels_ = sorted({level for level in features.stated if level is not None})
        _, features, counts = usable(features, counts)
        class_Q, tried_Q = self._classes(features), counts.weight_Q
        num_classes = len(self.levels_) + 2
        self.num_said_ = np.bincount(class_Q, minlength=num_classes)[:-1].tolist()
        self._p_C_B = _class_means(counts.rate_Q_B, tried_Q, class_Q, num_classes)
        self._tokens_C_B = None
        if counts.tokens_Q_B is not None:
            means_C_B = _class_means(counts.tokens_Q_B, tried_Q, class_Q, num_classes)
            self._tokens_C_B = possible_usage(counts.menu, means_C_B)
        return self

    def predict(self, features: Features) -> tuple[FloatArray, FloatArray | None]:
        """See `Estimator.predict`."""
        class_Q = self._classes(features)
        return self._p_C_B[class_Q], None if self._tokens_C_B is None else self._tokens_C_B[class_Q]

    def _classes(self, features: Features) -> IntArray:
        """Row of each query's level; then one for no level, and one for a level that was not seen in training."""
        index: dict[str | None, int] = {level: row for row, level in enumerate(self.levels_)}
        index[None] = len(self.levels_)
        return np.array([index.get(level, len(self.levels_) + 1) for level in features.stated], dtype=np.int64)

    def state(self) -> tuple[dict[str, Any], dict[str, FloatArray]]:
        """See `Estimator.state`."""
        arrays = {"p": self._p_C_B} | ({} if self._tokens_C_B is None else {"tokens": self._tokens_C_B})
        return {"num_examples": self.num_examples, "levels": self.levels_, "num_said": self.num_said_}, arrays

    @classmethod
    def from_state(cls, settings: dict[str, Any], arrays: dict[str, FloatArray]) -> Self:
        """See `Estimator.from_state`."""
        made = cls(num_examples=int(settings["num_examples"]))
        made.levels_ = [str(level) for level in settings["levels"]]
        made.num_said_ = [int(count) for count in settings["num_said"]]
        made._p_C_B, made._tokens_C_B = arrays["p"], arrays.get("tokens")
        return made


def _class_means(value_Q_B: FloatArray, tried_Q: FloatArray, class_Q: IntArray, num_classes: int) -> FloatArray:
    """Mean of each class, every trace counting the same, drawn to the mean of all; float32, shape (C, B)."""
    mean_B = tried_Q @ value_Q_B / tried_Q.sum()
    prior = PRIOR_QUERIES * tried_Q.mean()
    mean_C_B = np.tile(mean_B, (num_classes, 1))
    for row in range(num_classes):
        is_member_Q = class_Q == row
        weight = tried_Q[is_member_Q].sum()
        mean_C_B[row] = (tried_Q[is_member_Q] @ value_Q_B[is_member_Q] + prior * mean_B) / (weight + prior)
    return mean_C_B.astype(np.float32)
