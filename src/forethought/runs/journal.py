"""A gateway's journal: a folder with a JSON line for each request and each outcome told later; opens as a profile."""

from __future__ import annotations

import fcntl
import logging
import os
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from ..core.codec import UnfitError, decode, fields_to_json
from ..core.data import IntArray
from ..core.files import make_folder, reaching, read_json, write_json
from ..core.menu import Menu
from ..core.profile import Profile
from ..core.provenance import FEEDBACK, Provenance
from ..errors import RunError
from .draws import counted_answers, measured_menu
from .lines import read_lines

HEADER, REQUESTS, OUTCOMES = "journal.json", "requests-*.jsonl", "outcomes-*.jsonl"
SCHEMA = 1
DONE, CLIENT_LEFT, UPSTREAM_FAILED, REFUSED_UPSTREAM, REFUSED = (
    *("done", "client left", "upstream failed", "refused upstream", "refused"),
)
ENDINGS = (DONE, CLIENT_LEFT, UPSTREAM_FAILED, REFUSED_UPSTREAM, REFUSED)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Entry:
    """One request, as it ended. None: not known, or nothing was set.

    Attributes:
        id: as the response's header says it.
        time: when it came, seconds since 1970.
        tenant, model: whose it was, and the model that it asked for.
        path: that was asked, such as /v1/chat/completions.
        kind, reason: how its budget was found, and in words; see `gateway.decision.KINDS`.
        question: `content_id` of the question, a hash by which who knows a question finds it; "" where none was read.
        option: label of what it got; of a plain cap the cap.
        budget: cap on reasoning tokens of each thought.
        num_thoughts: that it asked for.
        price: of a token, as its tenant faced it: right answers.
        expected: predicted chance of a right answer.
        predicted, reserved: tokens expected of it, and set aside for it, prompt included in the latter.
        bound: the most tokens that it was taken to use, which its quotas had to hold.
        settled: tokens that were counted against its quotas.
        prompt_tokens, reasoning_tokens, output_tokens: as counted; the last is all that was generated.
        status: of the response.
        ending: one of ENDINGS.
        added_ms: milliseconds between the request's last byte and its going on, which the gateway took.
        seconds: from its coming to the response's end.
        is_shadow: decided and noted, but nothing was changed.
        text: the question, where texts are kept.
    """

    id: str
    time: float
    tenant: str = ""
    model: str = ""
    path: str = ""
    kind: str = ""
    reason: str = ""
    question: str = ""
    option: str | None = None
    budget: int | None = None
    num_thoughts: int = 1
    price: float | None = None
    expected: float | None = None
    predicted: int | None = None
    reserved: int | None = None
    bound: int | None = None
    settled: int | None = None
    prompt_tokens: int | None = None
    reasoning_tokens: int | None = None
    output_tokens: int | None = None
    status: int = 200
    ending: str = DONE
    added_ms: float = 0.0
    seconds: float = 0.0
    is_shadow: bool = False
    text: str | None = None

    def to_json(self) -> dict[str, Any]:
        """One line of the journal as an object; what is not known is not in it."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in values.items() if value is not None and value != ""}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """What `to_json` wrote; raises UnfitError."""
        return decode(cls, value, lenient=(cls,))


@dataclass(frozen=True, slots=True)
class Feedback:
    """What became of a request, as somebody said later.

    Attributes:
        id: of the request.
        right: whether it was answered right.
        time: when that was said, seconds since 1970: the last word holds.
    """

    id: str
    right: bool
    time: float = 0.0

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """One line; raises UnfitError."""
        return decode(cls, value, lenient=(cls,))


@dataclass(frozen=True, slots=True)
class JournalHeader:
    """What all lines of a journal have in common.

    Attributes:
        menu: the options that requests get.
        provenance: what is known of the upstream: model, server, simulated.
        schema: of the files.
    """

    menu: Menu
    provenance: Provenance = field(default_factory=Provenance)
    schema: int = SCHEMA

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Of a folder; raises RunError where it cannot be read."""
        file = folder / HEADER
        try:
            found = decode(cls, read_json(file), lenient=(cls,))
        except UnfitError as error:
            raise RunError(f"{file} is not the header of a journal: {error}") from error
        if found.schema != SCHEMA:
            raise RunError(f"{file} has schema {found.schema}; this version reads schema {SCHEMA}")
        return found

    def keep(self, folder: Path) -> None:
        """Writes it, or makes sure that the journal in the folder is of the same options and the same model.

        Raises:
            RunError: it is of others, or the folder holds something else.
        """
        with _alone(make_folder(folder)):
            self.check(folder)
            if not is_journal(folder):
                write_json(folder / HEADER, fields_to_json(self))

    def check(self, folder: Path) -> None:
        """Makes sure that it could be kept there, and writes nothing; raises RunError as `keep` does."""
        if not is_journal(folder):
            if folder.is_dir() and any(folder.iterdir()):
                raise RunError(f"{folder} holds something else than a journal: name another folder for the journal")
            return
        there = type(self).read(folder)
        differing = there.provenance.differing(self.provenance, ("model", "template", "simulated"))
        if not there.menu.is_same(self.menu) or differing:
            said = there.provenance.listing(self.provenance, differing) or f"options {there.menu} and {self.menu}"
            raise RunError(f"{folder} is the journal of another gateway ({said}): name another folder for this one")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Holds the folder against other gateways that begin at the same time; a kill frees it."""
    with reaching(folder, "read"):
        held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def is_journal(path: Path) -> bool:
    """Whether a folder holds a journal."""
    return (path / HEADER).is_file()


def read_entries(folder: Path) -> Iterator[Entry]:
    """Every request, file by file; a line that was cut short at the end of a file is none.

    Raises:
        RunError: a line that is no entry, by its number.
    """
    for file in sorted(folder.glob(REQUESTS)):
        yield from read_lines(file, Entry.from_json)


def read_outcomes(folder: Path) -> dict[str, bool]:
    """Request id -> whether it was right, by the last word on it."""
    last: dict[str, Feedback] = {}
    for file in sorted(folder.glob(OUTCOMES)):
        for each in read_lines(file, Feedback.from_json):
            if (known := last.get(each.id)) is None or each.time >= known.time:
                last[each.id] = each
    return {name: each.right for name, each in last.items()}


def journal_counts(folder: Path) -> dict[str, int]:
    """How many requests a journal holds, of how many questions, what they used, and what is known of them."""
    outcomes, found, questions = read_outcomes(folder), Counter[str](), set[str]()
    for entry in read_entries(folder):
        questions.add(entry.question)
        found.update(requests=1, failed=entry.ending not in (DONE, CLIENT_LEFT))
        found.update(outcomes=entry.id in outcomes, right=outcomes.get(entry.id, False))
        found.update(counted=entry.output_tokens is not None, tokens=entry.output_tokens or 0)
    names = ("requests", "failed", "outcomes", "right", "counted", "tokens")
    return {"questions": len(questions - {""}), **{name: found[name] for name in names}}


@dataclass(slots=True)
class _Found:
    """Requests whose outcome is known, a few numbers each."""

    place_of: dict[str, int] = field(default_factory=dict)
    texts: dict[int, str] = field(default_factory=dict)
    columns: Mapping[str, Any] = field(
        default_factory=lambda: {name: array("q") for name in ("place", "column", "end", "right", "tokens", "thought")}
    )

    def __len__(self) -> int:
        return len(self.columns["place"])

    def add(self, entry: Entry, column: int, end: int, *, right: bool) -> None:
        place = self.place_of.setdefault(entry.question, len(self.place_of))
        if entry.text:
            self.texts.setdefault(place, entry.text)
        values = (place, column, end, int(right), entry.output_tokens or 0, entry.reasoning_tokens or 0)
        for name, value in zip(self.columns, values, strict=True):
            self.columns[name].append(value)

    @property
    def arrays(self) -> dict[str, IntArray]:
        """The numbers as arrays, length N each."""
        return {name: np.array(values, dtype=np.int64) for name, values in self.columns.items()}


def from_journal(folder: Path) -> Profile:
    """The requests of a journal whose outcome is known, as a profile: one draw under the option that each got.

    Queries go by the hash of their question, and have a text where the journal kept it. A thought that ended by itself
    below its cap is the same under every larger one, and counts there too. What was only shadowed, asked for several
    thoughts, failed, was not counted, or asked another model than most is left out.

    Raises:
        RunError: no request has an outcome, or a line cannot be read.
    """
    header, outcomes = JournalHeader.read(folder), read_outcomes(folder)
    menu, left_out, by_model = header.menu, Counter[str](), dict[str, _Found]()
    column_of = {label: column for column, label in enumerate(menu.labels)}
    for entry in read_entries(folder):
        right = outcomes.get(entry.id)
        column = column_of.get(entry.option or "")
        if right is None:
            left_out["have no outcome"] += 1
        elif why := _why_not(entry, column):
            left_out[why] += 1
        else:
            assert column is not None
            by_model.setdefault(entry.model, _Found()).add(entry, column, _end(entry, menu, column), right=right)
    if not by_model:
        raise RunError(_nothing(folder, left_out))
    model, found = max(by_model.items(), key=lambda each: (len(each[1]), each[0]))
    left_out[f"asked for another model than {model}"] = sum(map(len, by_model.values())) - len(found)
    for why, count in left_out.most_common():
        if count:
            logger.warning("note: %s: %d requests %s and are left out", folder, count, why)
    numbers, num_queries = found.arrays, len(found.place_of)
    if menu.is_named:
        menu, place_B = measured_menu(menu, numbers["column"], numbers["tokens"])
        numbers["column"] = place_B[numbers["column"]]
        numbers["end"] = numbers["column"] + 1
    has_texts = bool(found.texts)
    return Profile(
        query_ids=tuple(found.place_of),
        menu=menu,
        **counted_answers(num_queries, menu, **numbers),
        texts=tuple(found.texts.get(place, "") for place in range(num_queries)) if has_texts else (),
        provenance=replace(
            header.provenance, name=folder.resolve().name, model=model or None, menu=menu, grader=FEEDBACK
        ),
    )


def _why_not(entry: Entry, column: int | None) -> str:
    """Why a request says nothing of an option, "" where it does."""
    if entry.is_shadow:
        return "were only shadowed"
    if entry.ending != DONE or entry.status != 200:
        return "failed"
    if column is None or not entry.question:
        return "got no option of the menu"
    if entry.num_thoughts != 1:
        return "asked for several thoughts"
    return "were not counted" if entry.output_tokens is None else ""


def _end(entry: Entry, menu: Menu, column: int) -> int:
    """The column behind the last under which the answer would have been the same."""
    is_natural = (
        not menu.is_named
        and entry.budget is not None
        and entry.reasoning_tokens is not None
        and entry.reasoning_tokens < entry.budget
    )
    return menu.num_options if is_natural else column + 1


def _nothing(folder: Path, left_out: Mapping[str, int]) -> str:
    """That there is nothing to learn from, and why."""
    reasons = ", ".join(f"{count} {why}" for why, count in left_out.items()) or "there is none yet"
    return (
        f"{folder} has no request whose outcome is known ({reasons}). Tell the gateway which answers were right: "
        'POST /forethought/feedback {"id": "…", "right": true}, with the id of the header x-forethought-id'
    )
