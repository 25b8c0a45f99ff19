"""Adds the samples of a run or a profile to a history in a folder: once per run, by one process at a time."""

from __future__ import annotations

import fcntl
import logging
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..core.codec import UnfitError, decode, encode
from ..core.data import Grade, StopReason
from ..core.files import make_folder, open_bytes, read_json, write_json
from ..core.menu import Menu
from ..core.profile import Profile
from ..core.provenance import Provenance
from ..core.records import Record
from ..errors import InvalidInputError, InvalidSettingsError, RunError
from ..predictors.bundle import SETTINGS_FILE, check_place, locate
from ..predictors.feeding import feed, history_card, history_of
from ..predictors.history import HistoryPredictor
from ..predictors.predictor import Predictor
from ..runs.draws import Draws, counted_answers
from ..runs.folders import check_folder
from ..runs.store import RunDirectory, fingerprint
from .answers import Answer, Answers
from .budgets import read_plan
from .sources import open_profile
from .training import HISTORY, train

FED = "fed.json"  # in a run: what it goes by in the histories that it was fed to
SAMPLE = "\t"  # between a query's id, which holds none, and the number of its sample

NOTHING_KNOWN = "none of the answers was graded and counted, so there is nothing to learn from them"

logger = logging.getLogger(__name__)


def is_known(answer: Answer) -> bool:
    """Whether a history can learn from an answer: it was graded, and its tokens were counted."""
    return answer.grade is not None and answer.error is None and answer.tokens is not None


def answered(answers: Iterable[Answer], menu: Menu, made: Provenance) -> Profile:
    """The graded answers of a run as a profile: one draw of a question, under the option that it was given.

    A thought that ended by itself under a cap is the same under every larger one, and counts there too.

    Raises:
        InvalidInputError: none of them was graded, with its tokens counted.
    """
    known = [each for each in answers if is_known(each)]
    if not known:
        raise InvalidInputError(NOTHING_KNOWN)
    place_of = {query_id: place for place, query_id in enumerate(dict.fromkeys(each.id for each in known))}
    column_N = menu.first_at_least([each.budget for each in known])
    is_option_N = np.array([each.budget in menu for each in known])  # not where a hard total gave what it had left
    is_natural_N = np.array([each.stop_reason is StopReason.NATURAL for each in known]) & (not menu.is_named)
    return Profile(
        query_ids=tuple(place_of),
        menu=menu,
        **counted_answers(
            len(place_of),
            menu,
            place=np.array([place_of[each.id] for each in known]),
            column=column_N,
            end=np.where(is_natural_N, menu.num_options, column_N + is_option_N),
            right=np.array([int(each.grade is Grade.RIGHT) for each in known]),
            tokens=np.array([each.tokens or 0 for each in known]),
            thought=np.array([each.reasoning_tokens or 0 for each in known]),
        ),
        provenance=replace(made, menu=menu),
    )


def _samples(run: RunDirectory, answer_of: Mapping[str, Answer], menu: Menu) -> dict[str, Record]:
    """What a history can learn of the samples of these answers, by query and number, without their thoughts."""
    return {
        f"{record.query_id}{SAMPLE}{record.sample}": replace(record, reasoning="")
        for record in run.latest()
        if record.query_id in answer_of and record.option in menu.singles and record.is_counted
        if (outcome := record.at(record.budget)) is not None and outcome.grade is not None
    }


def sampled(records: Sequence[Record], menu: Menu, made: Provenance) -> Profile:
    """These samples as a profile of single samples, by the options that votes draw them by."""
    row_of = {query_id: row for row, query_id in enumerate(dict.fromkeys(each.query_id for each in records))}
    draws = Draws(Menu.named(menu.singles.values()), made, len(row_of))
    for record in records:
        outcome = record.at(record.budget)
        assert outcome is not None  # see `_samples`
        draws.add(row_of[record.query_id], record, [outcome])
    rows, counted = draws.counted()
    ids = tuple(row_of)
    return Profile(query_ids=tuple(ids[row] for row in rows), provenance=replace(made, menu=counted["menu"]), **counted)


def history_folder(source: str) -> Path | None:
    """The folder of the history that `source` names; None where it is a predictor of another kind, or a shipped one."""
    if not Path(source).exists():
        return None
    with locate(source) as folder:
        predictor = Predictor.load(folder)
        return folder if isinstance(predictor.estimator, HistoryPredictor) else None


def check_history(source: str | Path | None, *, is_made: bool = False) -> None:
    """Refuses a folder that samples could not be added to, before any is drawn; nothing where there is none.

    Args:
        source: the folder.
        is_made: one that is not there yet is made of the samples; else it must be a history already.

    Raises:
        ModelFileError, RunError: something else is there, or it cannot be written.
        InvalidSettingsError: there is no history in it.
    """
    if not source:
        return
    folder = Path(source)
    check_folder(folder, "--history")
    check_place(folder)
    if (folder / SETTINGS_FILE).is_file():
        history_of(Predictor.load(folder))
    elif not is_made:
        raise InvalidSettingsError(
            f"--history {source}: there is no history yet, and a run samples too few options to begin one; make it of "
            f"a profile: forethought train PROFILE --predictor history --out {source}"
        )


def feed_run(folder: Path, run: RunDirectory) -> None:
    """Feeds the graded answers of a finished run to a history; nothing, with a note, where none were graded.

    Answers and samples that came after it was fed (what had failed, tried again) are fed by themselves.
    """
    made, menu = replace(run.header.provenance, name=run.path.resolve().name), read_plan(run).menu
    answer_of = {each.id: each for each in Answers.load(run.path) if is_known(each)}
    parts = []
    if (menu.samples_B > 1).any():
        record_of = _samples(run, answer_of, menu)
        for name, keys in _parts(run, tuple(record_of)):
            if records := [each for key, each in record_of.items() if key in keys or _query(key) in keys]:
                parts.append((name, sampled(records, menu, made)))
    else:
        for name, ids in _parts(run, tuple(answer_of)):
            if found := [each for query_id, each in answer_of.items() if query_id in ids]:
                parts.append((name, answered(found, menu, made)))
    if parts:
        _feed(folder, parts)
    else:
        logger.warning("note: %s was not added to the history: %s", folder, NOTHING_KNOWN)


def feed_profile(folder: Path, run: RunDirectory) -> None:
    """Feeds a profile run to the history in a folder; where there is none yet, one is made of it."""
    name, _ = next(_parts(run, ()))
    _feed(folder, [(name, open_profile(str(run.path)))])


def _feed(folder: Path, parts: Sequence[tuple[str, Profile]]) -> None:
    """Feeds what goes by these names but for what the history knows already: a note says so where that is all."""
    shown, folder = folder, folder.resolve()
    make_folder(folder.parent)
    with open_bytes(folder.with_name(f".{folder.name}.feeding"), "ab+", "written") as lock:  # freed by a kill, too
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / SETTINGS_FILE).is_file():
            (name, first), *parts = parts
            predictor = before = train(first, HISTORY, fed_as=name)
            predictor.save(folder)
            logger.info("history %s: created with %d questions", shown, first.num_queries)
        else:
            predictor = before = Predictor.load(folder)
            earlier = {each.id for each in history_card(predictor).fed}
            parts = [each for each in parts if each[0] not in earlier] or parts[:1]
        for name, profile in parts:
            predictor, notes = feed(predictor, profile, fed_as=name)
            for note in notes:
                logger.warning("note: %s", note)
        if predictor is not before:
            predictor.save(folder)
            known = predictor.card.history
            logger.info("history %s: %s samples", shown, f"{known.num_draws:,.0f}" if known else "no")


@dataclass(frozen=True, slots=True)
class _Fed:
    """RUN/fed.json: what the run goes by, and its parts; None of an earlier version, which fed all that it had."""

    id: str
    parts: tuple[tuple[str, ...], ...] | None = None


def _query(key: str) -> str:
    """The query of a sample; of a query its own id."""
    return key.partition(SAMPLE)[0]


def _parts(run: RunDirectory, keys: Sequence[str]) -> Iterator[tuple[str, Collection[str]]]:
    """What a run goes by in a history, so that it is fed once; and what was there when that name was made.

    `keys`, of answers or of samples, that stand in no earlier part make one more. An earlier version named the queries
    of samples: all of them were fed.
    """
    path = run.path / FED
    with run.turn():
        if path.is_file():
            try:
                known = decode(_Fed, read_json(path), lenient=(_Fed,))
            except UnfitError as error:
                raise RunError(
                    f"{path} does not say what of this run a history was fed: {error}. Copy it again; or delete it, "
                    "and the run is fed anew"
                ) from error
        else:
            known = _Fed(fingerprint([run.header.provenance.to_json(), time.time_ns()]))
        parts = (tuple(keys),) if known.parts is None else known.parts
        earlier = {key for part in parts for key in part}
        if later := tuple(key for key in keys if key not in earlier and _query(key) not in earlier):
            parts = (*parts, later)
        if parts != known.parts:
            write_json(path, encode(_Fed(known.id, parts)))
    for number, part in enumerate(parts):
        yield f"{known.id}{f'-{number + 1}' if number else ''}", frozenset(part)
