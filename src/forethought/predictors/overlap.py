"""The training questions of a predictor, as hashes, so that none of them is used as a held-out one."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..core.data import IntArray
from ..core.profile import Profile
from ..errors import InvalidSettingsError

PREFIX = "seen."
Hashes = NDArray[np.uint64]


class Trained(Protocol):
    """What was fitted on some questions."""

    def rows_trained_on(self, profile: Profile) -> IntArray | None:
        """Rows of the profile's queries that it has learned from; None where that is not known."""
        ...


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
        return cls(np.unique(_hash_each(profile.query_ids)), np.unique(contents[contents != 0]))

    def rows_trained_on(self, profile: Profile) -> IntArray:
        """Rows of the profile's queries that were trained on: by their texts where both sides know them, else by id."""
        is_seen_Q = np.isin(_hash_each(profile.query_ids), self.ids_N)
        if profile.texts and len(self.contents_M):
            content_Q = _contents(profile.texts)
            is_seen_Q = np.where(content_Q == 0, is_seen_Q, np.isin(content_Q, self.contents_M))
        return np.flatnonzero(is_seen_Q)

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
        hashes = [np.asarray(arrays[name]) for name in names if name in arrays]
        if len(hashes) != 2 or any(array.dtype != np.uint64 or array.ndim != 1 for array in hashes):
            raise ValueError("its hashes of the training questions are not two lists of 8-byte numbers")
        return cls(*hashes)


def held_out(profile: Profile, predictors: Mapping[str, Trained]) -> tuple[Profile, tuple[str, ...]]:
    """The profile without the queries that any of the predictors was trained on, and what is to be said of that.

    Args:
        profile: to judge on.
        predictors: name -> predictor, or the questions that something else was fitted on.

    Raises:
        InvalidSettingsError: nothing is left.
    """
    is_held_Q = np.ones(profile.num_queries, dtype=bool)
    notes = []
    for name, trained in predictors.items():
        rows = trained.rows_trained_on(profile)
        if rows is None:
            notes.append(
                f"Whether {name} was trained on some of these questions is not known: it was saved without their "
                f"hashes. Train it again to know."
            )
        elif len(rows) == profile.num_queries:
            raise InvalidSettingsError(
                f"{name} was trained on all {profile.num_queries} questions of {profile.provenance.name!r}: "
                f"its output for them is not a prediction. Give --on other questions, or leave --on out and name the "
                f"profile: forethought evaluate PROFILE (every question is then predicted by a fit without it)"
            )
        else:
            is_held_Q[rows] = False
    num_seen = int((~is_held_Q).sum())
    if num_seen == profile.num_queries:
        raise InvalidSettingsError(
            f"each of the {num_seen} questions was trained on by one of {', '.join(predictors)}: nothing is "
            f"left to evaluate on. Give --on other questions"
        )
    if not num_seen:
        return profile, tuple(notes)
    said = (
        f"{num_seen} of {profile.num_queries} questions were used for training and are left out; "
        "evaluated on the other "
    )
    return profile.select(is_held_Q), (f"{said}{profile.num_queries - num_seen}.", *notes)


def _contents(texts: Sequence[str]) -> Hashes:
    """0 for an empty text: nothing is known of it."""
    plain = [" ".join(unicodedata.normalize("NFC", text).split()) for text in texts]
    hash_Q = _hash_each(plain)
    hash_Q[np.array([not text for text in plain], dtype=bool)] = 0
    return hash_Q


def _hash_each(values: Iterable[str]) -> Hashes:
    digests = [hashlib.sha256(value.encode("utf-8", "surrogatepass")).digest()[:8] for value in values]
    return np.array([int.from_bytes(digest, "little") for digest in digests], dtype=np.uint64)
