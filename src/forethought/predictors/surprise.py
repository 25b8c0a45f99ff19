"""What a question looks like as text, in six numbers: how rare its letters and words are, how long it is, its signs."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..types import FloatArray

SIZE = 1 << 13  # buckets: 16 KB of float16 for each table
BEFORE = 0.5  # counts that every bucket has before any text is seen
DIGIT, SPACE = re.compile(r"\d"), re.compile(r"\s+")
FIBONACCI = np.uint32(2654435769)  # 2^32 over the golden ratio: multiplicative hashing spreads neighbours

Hashed = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]


@dataclass(frozen=True, slots=True, eq=False)
class Surprise:
    """How surprising a text is to who has read the training texts.

    Three bytes in a row, and words, are hashed into buckets; each bucket has the surprise, -log of its share in the
    training texts. Upper case and the values of digits are left out: new numbers are no other kind of question.

    Attributes:
        grams_S, words_S: surprise of each bucket in nats, float16, shape (S,).
    """

    grams_S: FloatArray
    words_S: FloatArray

    @classmethod
    def fit(cls, texts: Sequence[Hashed]) -> Self:
        """Counts the buckets of hashed training texts."""
        return cls(_surprise([grams for grams, _, _ in texts]), _surprise([words for _, words, _ in texts]))

    def apply(self, texts: Sequence[Hashed]) -> NDArray[np.float64]:
        """Six numbers a text, shape (Q, 6): mean surprise of its grams and words, and what `hashed` measured."""
        rows = [[_mean(self.grams_S[grams]), _mean(self.words_S[words]), *measured] for grams, words, measured in texts]
        return np.array(rows, dtype=np.float64).reshape(len(texts), 6)


def hashed(text: str) -> Hashed:
    """Buckets of a text's grams and words, and log characters, log words, shares of digits and of other signs."""
    plain = DIGIT.sub("0", SPACE.sub(" ", text.lower().strip()))
    code = np.frombuffer(f" {plain} ".encode(errors="replace"), dtype=np.uint8).astype(np.uint32)
    code = np.concatenate([code, np.full(max(0, 3 - len(code)), 32, dtype=np.uint32)])
    grams = ((code[:-2] << 16 | code[1:-1] << 8 | code[2:]) * FIBONACCI) >> np.uint32(32 - SIZE.bit_length() + 1)
    parts = plain.split()
    words = np.array([zlib.crc32(part.encode(errors="replace")) % SIZE for part in parts], dtype=np.int64)
    length = max(1, len(plain))
    signs = sum(not (letter.isalnum() or letter == " ") for letter in plain)
    measured = [np.log(length), np.log1p(len(parts)), plain.count("0") / length, signs / length]
    return grams.astype(np.int64), words, np.array(measured)


def _surprise(buckets: Sequence[NDArray[np.int64]]) -> FloatArray:
    count_S = np.bincount(np.concatenate(buckets), minlength=SIZE) + BEFORE
    surprise_S: FloatArray = (-np.log(count_S / count_S.sum())).astype(np.float16)
    return surprise_S


def _mean(values: FloatArray) -> float:
    return float(values.mean(dtype=np.float64)) if len(values) else 0.0
