"""N-gram surprisal: six numbers for a text: the rarity of its letters and words, and its length."""

from __future__ import annotations

import math
import re
import string
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ...core.data import FloatArray
from .lexical import count_letters

SIZE = 1 << 13  # buckets: 64 KB for each table
SHIFT = np.uint32(32 - SIZE.bit_length() + 1)
BEFORE = 0.5  # counts that every bucket has before any text is seen
DIGIT, ZEROS = re.compile(r"\d"), str.maketrans(string.digits, "0" * 10)
FIBONACCI = np.uint32(2654435769)  # 2^32 over the golden ratio: multiplicative hashing spreads neighbours
NUM_NUMBERS = 6  # of a text
LETTERS = (string.ascii_letters + string.digits).encode()

Hashed = tuple[NDArray[np.integer[Any]], NDArray[np.integer[Any]], list[float]]


@dataclass(frozen=True, slots=True, eq=False)
class Surprisal:
    """How rare a text's letters and words are among the training texts.

    Three bytes in a row, and words, are hashed into buckets; each bucket has the surprise, -log of its share in the
    training texts. Upper case and the values of digits are left out: new numbers are no other kind of question.

    Attributes:
        grams_S, words_S: surprise of each bucket in nats, shape (S,).
    """

    grams_S: FloatArray
    words_S: FloatArray

    @classmethod
    def fit(cls, texts: Sequence[Hashed]) -> Self:
        """Counts the buckets of hashed training texts."""
        return cls(_surprisals([grams for grams, _, _ in texts]), _surprisals([words for _, words, _ in texts]))

    @staticmethod
    def left_out(texts: Sequence[Hashed]) -> NDArray[np.float64]:
        """What `apply` finds for each of these texts by tables of all the others, shape (Q, 6).

        Its own counts are taken out exactly, so that these numbers lie where
        those of a new text will: tables of fewer texts, as of folds, would make every text look rarer.
        """
        grams_Q = _left_out_means([grams for grams, _, _ in texts])
        words_Q = _left_out_means([words for _, words, _ in texts])
        return np.column_stack([grams_Q, words_Q, np.array([measured for _, _, measured in texts])])

    def apply(self, texts: Sequence[Hashed]) -> NDArray[np.float64]:
        """Six numbers a text, shape (Q, 6): mean surprise of its grams and words, and what `hash_text` measured."""
        rows = [[_mean(self.grams_S[grams]), _mean(self.words_S[words]), *measured] for grams, words, measured in texts]
        return np.array(rows, dtype=np.float64).reshape(len(texts), 6)


def hash_text(text: str) -> Hashed:
    """Buckets of a text's grams and words, and log characters, log words, shares of digits and of other signs."""
    plain = " ".join(text.lower().split())
    plain = plain.translate(ZEROS) if plain.isascii() else DIGIT.sub("0", plain)
    content = plain.encode(errors="replace")
    code = np.frombuffer(b" %b " % (content or b" "), dtype=np.uint8) * FIBONACCI
    grams = ((code[:-2] << 16) + (code[1:-1] << 8) + code[2:]) >> SHIFT
    parts = content.split()
    words = np.array(list(map(zlib.crc32, parts)), dtype=np.int64) & (SIZE - 1)
    length = max(1, len(plain))
    signs = len(plain) - plain.count(" ") - count_letters(plain, str.isalnum, LETTERS)
    measured = [math.log(length), math.log1p(len(parts)), plain.count("0") / length, signs / length]
    return grams, words, measured


def _counts(buckets: Sequence[NDArray[np.integer[Any]]]) -> NDArray[np.float64]:
    count_S = np.bincount(np.concatenate(buckets), minlength=SIZE).astype(np.float64) + BEFORE
    return count_S


def _surprisals(buckets: Sequence[NDArray[np.integer[Any]]]) -> FloatArray:
    count_S = _counts(buckets)
    return np.asarray(-np.log(count_S / count_S.sum()))


def _left_out_means(buckets: Sequence[NDArray[np.integer[Any]]]) -> list[float]:
    """Mean surprise of each text's buckets by the counts of all other texts."""
    count_S = _counts(buckets)
    total, means = float(count_S.sum()), []
    for own in buckets:
        bucket_U, own_U = np.unique(own, return_counts=True)
        share_U = (count_S[bucket_U] - own_U) / (total - len(own))
        means.append(float(own_U @ -np.log(share_U)) / max(1, len(own)))
    return means


def _mean(values: FloatArray) -> float:
    return float(np.add.reduce(values, dtype=np.float64)) / len(values) if len(values) else 0.0
