"""One of several processes that write a run: its questions, and its files."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Self

from ..errors import InvalidSettingsError
from .data import Query


@dataclass(frozen=True, slots=True)
class Worker:
    """Worker `number` of `count`, from 1; number 0 for who works alone.

    Of a crew, number 0 is its lead, who hands out the questions; the others take what they are given.

    Attributes:
        number, count: of the worker.
        crew: a token that the lead and its workers share; "" for workers that divide the questions by themselves.
    """

    number: int = 0
    count: int = 1
    crew: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """The worker that "2/4" names; "" for who works alone. Raises InvalidSettingsError for anything else."""
        if not text:
            return cls()
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        number, count = (int(part) for part in found.groups()) if found else (0, 0)
        if not 1 <= number <= count:
            raise InvalidSettingsError(f"--worker {text}: give K/N, from 1/N to N/N for N workers, as in --worker 1/4")
        return cls(number, count)

    @classmethod
    def lead(cls) -> Self:
        """The lead of a new crew."""
        return cls(crew=secrets.token_hex(8))

    def member(self, number: int) -> Self:
        """Worker `number` of the crew."""
        return replace(self, number=number)

    @property
    def is_alone(self) -> bool:
        """Whether every question is its own: it works alone, or leads a crew."""
        return self.number == 0

    @property
    def division(self) -> str:
        """By what it is known who may write beside whom: the crew, or how many workers divide the questions."""
        return self.crew or str(self.count)

    def owns(self, query_id: str) -> bool:
        """Whether a question belongs to this worker: by a hash of the id, independent of the rest of the file."""
        if self.is_alone:
            return True
        digest = hashlib.blake2b(query_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        return int.from_bytes(digest, "big") % self.count == self.number - 1

    def share(self, queries: Iterable[Query]) -> list[Query]:
        """Those questions that are its own."""
        return [query for query in queries if self.owns(query.id)]

    def named(self, name: str) -> str:
        """Its own file of that name: "records.jsonl" becomes "records-2.jsonl" for worker 2."""
        path = PurePath(name)
        return name if self.is_alone else f"{path.stem}-{self.number}{path.suffix}"

    def __str__(self) -> str:
        return f"{self.number} of a crew" if self.crew else f"{self.number}/{self.count}"


ALONE = Worker()
