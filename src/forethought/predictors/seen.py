"""Which questions a predictor was trained on, as hashes: so that no question of those is taken for a held-out one."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.data import IntArray, Profile

PREFIX = "seen."
Hashes = NDArray[np.uint64]


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """The first 8 bytes of the SHA-256 of every training query's id and text, sorted.

    Attributes:
        ids_N: of the ids.
        contents_M: of the questions, their spaces aside; empty where the profile held no texts.
    """

    ids_N: Hashes
    contents_M: Hashes

    @classmethod
    def of(cls, profile: Profile) -> Seen:
        """The queries of `profile`."""
        contents = _contents(profile.texts)
        return cls(_hashes(profile.query_ids), np.unique(contents[contents != 0]))

    def rows(self, profile: Profile) -> IntArray:
        """Rows of the profile's queries that were trained on: by their texts where both sides know them, else by id."""
        is_seen_Q = np.isin(_hash_each(profile.query_ids), self.ids_N)
        if profile.texts and len(self.contents_M):
            content_Q = _contents(profile.texts)
            is_seen_Q = np.where(content_Q == 0, is_seen_Q, np.isin(content_Q, self.contents_M))
        rows: IntArray = np.flatnonzero(is_seen_Q)
        return rows

    def arrays(self) -> dict[str, Any]:
        """Arrays by name, for a safetensors file."""
        return {f"{PREFIX}ids": self.ids_N, f"{PREFIX}contents": self.contents_M}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> Seen | None:
        """What `arrays` gave; None where a predictor of before this has none.

        Raises:
            ValueError: arrays of another kind.
        """
        names = (f"{PREFIX}ids", f"{PREFIX}contents")
        if not any(name in arrays for name in names):
            return None
        found = [np.asarray(arrays[name]) for name in names if name in arrays]
        if len(found) != 2 or any(array.dtype != np.uint64 or array.ndim != 1 for array in found):
            raise ValueError("its hashes of the training questions are not two lists of 8-byte numbers")
        return cls(*found)


def _contents(texts: Sequence[str]) -> Hashes:
    """0 for an empty text: nothing is known of it."""
    plain = [" ".join(unicodedata.normalize("NFC", text).split()) for text in texts]
    hash_Q = _hash_each(plain)
    hash_Q[np.array([not text for text in plain], dtype=bool)] = 0
    return hash_Q


def _hashes(values: Iterable[str]) -> Hashes:
    return np.unique(_hash_each(values))


def _hash_each(values: Iterable[str]) -> Hashes:
    digests = [hashlib.sha256(value.encode("utf-8", "surrogatepass")).digest()[:8] for value in values]
    return np.array([int.from_bytes(digest, "little") for digest in digests], dtype=np.uint64)
