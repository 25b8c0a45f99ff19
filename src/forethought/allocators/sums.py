"""Sums of floats without rounding error, for a batch of any size."""

from __future__ import annotations

import math

import numpy as np

from ..core.data import FloatArray

CHUNK = 65_536
LARGEST = 1e280  # past it the splitting constant could overflow


def exact_sum(array_N: FloatArray) -> float:
    """The float nearest to the true sum, as `math.fsum` gives, without a Python float for every number.

    Neither the order of the queries nor the size of the batch shows in its last digit. Numbers are cut at a common
    binary place, high enough that the parts above it add up without rounding, and again below it until nothing is
    left (Rump, Ogita and Oishi, "Accurate floating-point summation", 2008); the few part sums go through `fsum`.
    """
    parts: list[float] = []
    for at in range(0, array_N.size, CHUNK):
        rest_N = array_N[at : at + CHUNK].astype(np.float64)
        while (largest := float(np.abs(rest_N).max())) > 0.0:
            if not largest < LARGEST:
                parts += rest_N.tolist()
                break
            # 2**(exponent) is above twice the sum of all magnitudes: adding it rounds every number at one place.
            place = math.ldexp(1.0, math.frexp(largest)[1] + rest_N.size.bit_length() + 1)
            high_N = (rest_N + place) - place
            parts.append(float(high_N.sum()))
            rest_N -= high_N
    return math.fsum(parts)
