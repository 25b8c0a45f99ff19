"""Lexical features without a model: counts of parts of the text, and its words in a few hundred directions."""

from __future__ import annotations

import math
import re
import string
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ...core.data import FloatArray
from ...errors import InvalidInputError

NUM_BUCKETS = 8192  # hashed n-grams of one to three words; a power of two
NUM_DIRECTIONS = 256
FEWEST_QUERIES = 2  # a bucket that fewer training questions fall into says nothing
MOST_EXACT = 1500  # texts up to which the directions are found exactly, from their products with one another
LARGEST = 4.0  # spreads from the mean; a count further out counts as this far
WORDS_SHARE = 0.5  # weight of the directions beside the counts
NOTHING = np.float32(1e-30)  # in place of the weight of a text without words
MAX_CHARACTERS = 20_000  # of a longer text the end is read: that is where the question is

_PARTS = re.compile(r"[a-z]+(?:'[a-z]+)?|[0-9][0-9,]*(?:\.[0-9]+)?|[^\sa-z0-9]")
_SENTENCE = re.compile(r"[.?!]\s+")
_NUMBER_WORDS = frozenset(
    ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "twelve", "twenty")
)

# Phrases that say which arithmetic a word problem asks for, and commands of LaTeX that say which mathematics.
PHRASES = (
    "how many", "how much", "how long", "how old", "how far", "each", "every", "per", "total", "altogether", "left",
    "remain", "more than", "less than", "fewer", "twice", "half", "third", "quarter", "times", "percent", "%", "$",
    "average", "if", "then", "but", "same", "after", "before", "first", "second", "day", "week", "month", "year",
    "hour", "minute", "cost", "price", "sell", "sold", "pay", "spend", "earn", "profit", "rate", "speed", "mile",
    "dozen", "double", "triple", "difference", "sum", "both", "rest", "equal", "another", "additional", "only",
    "as many", "as much", "ratio", "discount", "tax", "interest", "increase", "decrease", "divided", "split", "share",
    "fraction", "\\frac", "\\sqrt", "^", "_", "=", "prove", "integer", "function", "polynomial", "triangle", "circle",
    "angle", "probability", "matrix", "vector", "modulo", "\\begin", "[asy]", "def ", "return", "```",
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Lexical:
    """Turns texts into vectors, as learned from the training texts.

    The counts (lengths, numbers and their sizes, phrases) are standardised. The words fall into hashed buckets, one to
    three in a row, weighted by how rare a bucket is and scaled to length one; of their matrix the strongest
    directions are kept (latent semantic analysis; Deerwester and others, 1990), found for many texts by a randomised
    decomposition (Halko, Martinsson and Tropp, 2011). Hashing is CRC-32: the same on every machine; no word is stored.

    Attributes:
        centre_C, scale_C: mean and spread of the counts; a scale of infinity silences one that never varied.
        rarity_H: weight of each bucket, 0 for one that hardly any training question fell into; a float16 on disk.
        basis_H_K: the directions; float16 on disk.
        mean_K: mean of the training texts in them.
        level: what the directions are divided by, so that their mean spread is that of the counts, times the share.
    """

    centre_C: FloatArray
    scale_C: FloatArray
    rarity_H: FloatArray
    basis_H_K: FloatArray
    mean_K: FloatArray
    level: float

    @classmethod
    def fit(cls, texts: Sequence[str], *, seed: int = 0) -> Self:
        """Learns from the training texts.

        Raises:
            InvalidInputError: no texts.
        """
        if not texts:
            raise InvalidInputError("there are no texts to learn from")
        parts_Q = [parts_of(text) for text in texts]
        count_Q_C = np.array([counts(text, parts) for text, parts in zip(texts, parts_Q, strict=True)])
        spread_C = count_Q_C.std(axis=0)
        scale_C = np.where(spread_C > 1e-9, spread_C, np.inf)
        buckets = [buckets_of(parts) for parts in parts_Q]
        seen_H = np.zeros(NUM_BUCKETS)
        for each in buckets:
            seen_H[each] += 1.0
        rarity_H = np.where(seen_H >= FEWEST_QUERIES, np.log((1.0 + len(texts)) / (1.0 + seen_H)), 0.0)
        rarity_H = _rounded(rarity_H)
        telling = np.flatnonzero(rarity_H > 0)  # the other buckets weigh nothing
        rows_Q_H = _dense(buckets, rarity_H)[:, telling]
        found_H_K = _directions(rows_Q_H - rows_Q_H.mean(axis=0), NUM_DIRECTIONS, seed)
        basis_H_K = np.zeros((NUM_BUCKETS, found_H_K.shape[1]), dtype=np.float32)
        basis_H_K[telling] = _rounded(found_H_K)
        found_Q_K = rows_Q_H @ basis_H_K[telling]
        mean_K = found_Q_K.mean(axis=0)
        variance = float(((found_Q_K - mean_K) ** 2).sum(axis=1).mean())
        level = float(np.sqrt(variance / NUM_DIRECTIONS)) / WORDS_SHARE or 1.0
        return cls(
            count_Q_C.mean(axis=0).astype(np.float32), scale_C.astype(np.float32), rarity_H, basis_H_K, mean_K, level
        )

    @property
    def num_counts(self) -> int:
        """How many of a text's numbers are counts; they come first."""
        return len(self.centre_C)

    @property
    def width(self) -> int:
        """Numbers of one text."""
        return len(self.centre_C) + len(self.mean_K)

    def read(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], list[NDArray[np.int64]]]:
        """Standardised counts, float32, shape (Q, C), and the buckets of each text's words."""
        parts = [parts_of(text) for text in texts]
        count_Q_C = np.array(list(map(counts, texts, parts)), np.float32).reshape(len(texts), len(self.centre_C))
        count_Q_C -= self.centre_C
        count_Q_C /= self.scale_C
        np.maximum(count_Q_C, -LARGEST, out=count_Q_C)
        return np.minimum(count_Q_C, LARGEST, out=count_Q_C), [buckets_of(each) for each in parts]

    def apply(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The vectors of some texts, float32, shape (Q, width); each by itself, whatever the others are."""
        count_Q_C, buckets = self.read(texts)
        found_Q_K = np.empty((len(texts), len(self.mean_K)), dtype=np.float32)
        for row, bucket_N in enumerate(buckets):
            weight_N = self.rarity_H[bucket_N]
            length = math.sqrt(weight_N @ weight_N) or 1.0
            np.matmul(weight_N / np.float32(length), self.basis_H_K[bucket_N], out=found_Q_K[row])
        found_Q_K -= self.mean_K
        found_Q_K /= np.float32(self.level)
        return np.concatenate([count_Q_C, found_Q_K], axis=1)

    def words(self, product_K_N: FloatArray) -> Words:
        """What a linear map, shape (K, N), makes of the part of a vector that stands for words, without making it."""
        product_K_N = product_K_N / np.float32(self.level)
        weight_H = self.rarity_H
        return Words.of(weight_H[:, None] * (self.basis_H_K @ product_K_N), weight_H, -self.mean_K @ product_K_N)

    def arrays(self) -> dict[str, FloatArray]:
        """Everything learned, by name."""
        return {
            "wording_centre": self.centre_C,
            "wording_scale": self.scale_C,
            "wording_rarity": self.rarity_H.astype(np.float16),
            "wording_basis": self.basis_H_K.astype(np.float16),
            "wording_mean": self.mean_K,
            "wording_level": np.array([self.level], dtype=np.float64),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any]) -> Self:
        """What `arrays` described, among the arrays of a predictor.

        Raises:
            ValueError: they do not belong together, or hold NaN or infinity.
        """
        names = ("centre", "scale", "rarity", "basis", "mean", "level")
        centre_C, scale_C, rarity_H, basis_H_K, mean_K, level_1 = (arrays[f"wording_{name}"] for name in names)
        is_whole = (
            centre_C.ndim == mean_K.ndim == 1
            and scale_C.shape == centre_C.shape
            and rarity_H.shape == (NUM_BUCKETS,)
            and basis_H_K.shape == (NUM_BUCKETS, len(mean_K))
            and level_1.shape == (1,)
        )
        numbers = (centre_C, rarity_H, basis_H_K, mean_K, level_1)  # the scale of what never varies is infinite
        if not is_whole or np.isnan(scale_C).any() or not all(np.isfinite(array).all() for array in numbers):
            raise ValueError("its arrays of wording do not belong together, or hold NaN or infinity")
        rarity_H, basis_H_K = rarity_H.astype(np.float32), basis_H_K.astype(np.float32)
        return cls(centre_C, scale_C, rarity_H, basis_H_K, mean_K, float(level_1[0]))


@dataclass(frozen=True, slots=True, eq=False)
class Words:
    """A linear function of a text's words: its buckets' rows, their weights scaled to length one, and an offset.

    Attributes:
        row_H_N: of each bucket, times its weight, and the weight's square behind it.
        offset_N: for a text without words.
    """

    row_H_N: NDArray[np.float32]
    offset_N: NDArray[np.float32]

    @classmethod
    def of(cls, row_H_N: FloatArray, weight_H: FloatArray, offset_N: FloatArray) -> Self:
        """From each bucket's row and weight."""
        return cls(np.column_stack([row_H_N, weight_H**2]).astype(np.float32), offset_N.astype(np.float32))

    def apply(self, buckets: Sequence[NDArray[np.int64]]) -> FloatArray:
        """For the buckets of each of Q texts, float32, shape (Q, N); each by itself, whatever the others are."""
        sum_Q_N = np.empty((len(buckets), self.row_H_N.shape[1]), dtype=np.float32)
        for row, each in enumerate(buckets):
            np.add.reduce(self.row_H_N.take(each, axis=0), axis=0, out=sum_Q_N[row])
        found_Q_N: FloatArray = sum_Q_N[:, :-1] / np.sqrt(np.maximum(sum_Q_N[:, -1:], NOTHING))
        found_Q_N += self.offset_N
        return found_Q_N


def _rounded(array: FloatArray) -> NDArray[np.float32]:
    """As the files keep it: rounded before its first use, so that what is loaded says exactly what was fitted."""
    return array.astype(np.float16).astype(np.float32)


def parts_of(text: str) -> list[str]:
    """Words, numbers and signs of a text, in lower case."""
    return _PARTS.findall(text[-MAX_CHARACTERS:].lower())


def buckets_of(parts: Sequence[str]) -> NDArray[np.int64]:
    """Buckets of a text's runs of one to three parts, each once, ascending; numbers go by how many digits they have.

    A run's parts are joined by spaces. The sum of a longer run goes on from that of its beginning.
    """
    if not parts:
        return np.zeros(0, dtype=np.int64)
    shown = [_number_shape(part) if "0" <= part[0] <= "9" else part for part in parts]
    content = " ".join(shown).encode("utf-8", "surrogatepass")  # no part holds a space or a line break
    ones = list(map(zlib.crc32, content.split(b" ")))
    after = content.replace(b" ", b"\n ").split(b"\n")
    twos = list(map(zlib.crc32, after[1:], ones))
    threes = list(map(zlib.crc32, after[2:], twos))
    is_found_H = np.zeros(NUM_BUCKETS, dtype=np.bool_)
    is_found_H[np.array(ones + twos + threes, dtype=np.int64) & (NUM_BUCKETS - 1)] = True
    return is_found_H.nonzero()[0]


DIGITS, CAPITALS = string.digits.encode(), string.ascii_uppercase.encode()


def count_letters(text: str, is_one: Callable[[str], bool], ascii_ones: bytes) -> int:
    """How many characters of a text are of a kind; `ascii_ones` are all that ASCII has, which are counted fast."""
    if text.isascii():
        content = text.encode()
        return len(content) - len(content.translate(None, ascii_ones))
    return sum(map(is_one, text))


def _number_shape(number: str) -> str:
    whole, point, _ = number.replace(",", "").partition(".")
    return f"#{len(whole)}{point}"


def counts(text: str, parts: Sequence[str]) -> list[float]:
    """What can be counted in a text of these parts: lengths, numbers and their sizes, the last sentence, phrases."""
    text = text[-MAX_CHARACTERS:]
    lower = text.lower()
    numbers = [_value(part) for part in parts if "0" <= part[0] <= "9"]
    words = [part for part in parts if "a" <= part[0] <= "z"]
    sentences = [sentence for sentence in _SENTENCE.split(text) if sentence.strip()]
    last = sentences[-1] if sentences else ""
    sizes = [math.log1p(number) for number in numbers] or [0.0]
    mean_size = sum(sizes) / len(sizes)
    num_words, num_numbers, num_sentences, num_different = len(words), len(numbers), len(sentences), len(set(words))
    in_words = sum(map(_NUMBER_WORDS.__contains__, words))
    found = [
        len(text), num_words, num_sentences, num_numbers, len(set(numbers)), num_numbers + in_words, in_words,
        math.log1p(len(text)), math.log1p(num_numbers), math.log1p(num_sentences),
        max(sizes), min(sizes), mean_size, sum(sizes),
        math.sqrt(sum([(size - mean_size) ** 2 for size in sizes]) / len(sizes)), sizes[0], sizes[-1],
        sum([not number.is_integer() for number in numbers]),
        sum([number >= 100 for number in numbers]), sum([number >= 1000 for number in numbers]),
        sum([number < 10 for number in numbers]), sum([number % 10 == 0 for number in numbers]),
        num_numbers <= 2, num_numbers == 3, num_numbers >= 6,
        len(last), len(parts_of(last)), count_letters(last, str.isdigit, DIGITS),
        count_letters(text, str.isdigit, DIGITS), num_different, num_different / max(1, num_words),
        sum(map(len, words)) / max(1, num_words), text.count(","), text.count("?"), text.count("\n"), text.count("\\"),
        count_letters(text, str.isupper, CAPITALS), len(text) / max(1, num_sentences),
        num_numbers / max(1, num_words), num_numbers / max(1, num_sentences),
    ]  # fmt: skip
    return [*found, *map(lower.count, PHRASES)]


def _value(number: str) -> float:
    """A number's value; one beyond all measure counts as 1e300."""
    return min(float(number.replace(",", "")), 1e300)


def _dense(buckets: Sequence[NDArray[np.int64]], rarity_H: FloatArray) -> NDArray[np.float32]:
    """Rows of weights scaled to length one, shape (Q, H)."""
    rows_Q_H = np.zeros((len(buckets), NUM_BUCKETS), dtype=np.float32)
    for row, each in enumerate(buckets):
        weight_N = rarity_H[each]
        rows_Q_H[row, each] = weight_N / (float(np.sqrt(weight_N @ weight_N)) or 1.0)
    return rows_Q_H


def _directions(rows_Q_H: NDArray[np.float32], num_directions: int, seed: int) -> NDArray[np.float32]:
    """The strongest right singular vectors, shape (H, K), strongest first; the largest entry of each is positive."""
    if min(rows_Q_H.shape) == 0:
        return np.zeros((rows_Q_H.shape[1], 1), dtype=np.float32)
    if len(rows_Q_H) <= MOST_EXACT:
        value_Q, vector_Q_Q = np.linalg.eigh((rows_Q_H @ rows_Q_H.T).astype(np.float64))
        kept = np.flatnonzero(value_Q > 1e-6 * max(float(value_Q[-1]), 1e-12))[::-1][:num_directions]
        basis_H_K = (rows_Q_H.T @ (vector_Q_Q[:, kept] / np.sqrt(value_Q[kept]))).astype(np.float32)
        if not kept.size:  # texts that are all alike
            return np.zeros((rows_Q_H.shape[1], 1), dtype=np.float32)
    else:
        random = np.random.default_rng(seed)
        num_drawn = min(num_directions + 32, *rows_Q_H.shape)
        found_H_N = random.standard_normal((rows_Q_H.shape[1], num_drawn), dtype=np.float32)
        for _ in range(2):
            found_H_N = np.linalg.qr(rows_Q_H.T @ np.linalg.qr(rows_Q_H @ found_H_N)[0])[0]
        _, _, rotation_N_N = np.linalg.svd(rows_Q_H @ found_H_N, full_matrices=False)
        basis_H_K = found_H_N @ rotation_N_N[:num_directions].T
    largest_K = np.abs(basis_H_K).argmax(axis=0)
    signs_K = np.sign(basis_H_K[largest_K, np.arange(basis_H_K.shape[1])])
    basis: NDArray[np.float32] = basis_H_K * np.where(signs_K == 0, 1, signs_K)
    return basis
