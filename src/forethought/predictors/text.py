"""Curves from the question's text only, without a model: the default if there are no hidden states."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Self

import numpy as np

from ..core.data import FloatArray
from ..core.features import TEXT, Counts, Features
from ..core.protocols import EstimatorBase
from .parts.checks import usable
from .parts.lexical import Lexical, Words
from .parts.linear import LinearCurves, RidgeProblem

NUM_WAVES = 512


class TextPredictor(EstimatorBase):
    """Accuracy curves and expected usage as a linear function of lexical features, and of waves of their counts.

    The waves are random Fourier features (Rahimi and Recht, 2007) of a Gaussian kernel, under which questions of about
    the same counts are alike. Under a millisecond a query on a CPU, under 5 MB on disk, nothing but NumPy.

    Args:
        seed: of the randomised decomposition of the words, and of the waves.
    """

    takes = ("seed",)
    reads = (TEXT,)

    _lexical: Lexical
    _wave_C_R: FloatArray
    _phase_R: FloatArray
    _curves: LinearCurves

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed

    def fit(self, features: Features, counts: Counts) -> Self:
        """See `Estimator.fit`; reads the texts."""
        _, features, counts = usable(features, counts)
        self._lexical = Lexical.fit(features.questions, seed=self.seed)
        random, num_counts = np.random.default_rng(self.seed), self._lexical.num_counts
        # A distance of the counts' own spread, in the mean, is where the kernel has fallen to exp(-1/2).
        wave_C_R = random.standard_normal((num_counts, NUM_WAVES)) / np.sqrt(2 * num_counts)
        self._wave_C_R = wave_C_R.astype(np.float16).astype(np.float32)  # as the files keep it
        self._phase_R = random.uniform(0, 2 * np.pi, NUM_WAVES).astype(np.float32)
        problem = RidgeProblem(self._vectors(features.questions), counts.weight_Q, is_scaled=True)
        self._curves = LinearCurves.fit(problem, counts)
        return self

    def _vectors(self, texts: Sequence[str]) -> FloatArray:
        """Counts, words and waves of each text, shape (Q, N)."""
        vector_Q_N = self._lexical.apply(texts)
        wave_Q_R = self._level * self._waves(vector_Q_N[:, : self._lexical.num_counts])
        return np.concatenate([vector_Q_N, wave_Q_R], axis=1)

    def _waves(self, count_Q_C: FloatArray) -> FloatArray:
        """Waves of the counts, shape (Q, R), in [-1, 1]."""
        wave_Q_R: FloatArray = np.cos(count_Q_C @ self._wave_C_R + self._phase_R)
        return wave_Q_R

    @property
    def _level(self) -> np.float32:
        """What waves are multiplied by, so that they weigh as much as the counts."""
        return np.float32(np.sqrt(2 * self._lexical.num_counts / NUM_WAVES))

    @cached_property
    def _parts(self) -> tuple[FloatArray, Words, FloatArray]:
        """The curves' map, of counts, words and waves each by themselves."""
        first, last = self._lexical.num_counts, self._lexical.width
        product_D_N = self._curves.map.product_D_N
        return product_D_N[:first], self._lexical.words(product_D_N[first:last]), self._level * product_D_N[last:]

    def predict(self, features: Features) -> tuple[FloatArray, FloatArray | None]:
        """See `Estimator.predict`; of the words, most of a vector, it makes only what the map makes of them."""
        count_C_N, words, wave_R_N = self._parts
        count_Q_C, buckets = self._lexical.read(features.questions)
        level_Q_N = words.apply(buckets) + self._curves.map.offset_N
        level_Q_N += count_Q_C @ count_C_N
        level_Q_N += self._waves(count_Q_C) @ wave_R_N
        return self._curves.curves(level_Q_N)

    def state(self) -> tuple[dict[str, Any], dict[str, FloatArray]]:
        """See `Estimator.state`."""
        arrays = self._lexical.arrays() | self._curves.arrays()
        arrays |= {"wave": self._wave_C_R.astype(np.float16), "wave_phase": self._phase_R}
        return {"num_budgets": self._curves.num_options, "seed": self.seed}, arrays

    @classmethod
    def from_state(cls, settings: dict[str, Any], arrays: dict[str, FloatArray]) -> Self:
        """See `Estimator.from_state`."""
        made = cls(seed=int(settings["seed"]))
        made._lexical = Lexical.from_arrays(arrays)
        made._wave_C_R, made._phase_R = arrays["wave"].astype(np.float32), arrays["wave_phase"]
        made._curves = LinearCurves.from_state(settings, arrays)
        return made
