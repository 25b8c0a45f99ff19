"""Feeding a history that lies in a folder: what a run or a profile drew, once a run, by one process at a time."""

from __future__ import annotations

import fcntl
import logging
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..core.data import Grade, StopReason
from ..core.files import make_folder, open_bytes, read_json, write_json
from ..core.menu import Menu
from ..core.profile import Profile
from ..core.provenance import Provenance
from ..errors import InvalidInputError
from ..predictors.bundle import SETTINGS_FILE, locate
from ..predictors.feeding import feed
from ..predictors.history import HistoryPredictor
from ..predictors.predictor import Predictor
from ..runs.store import RunDirectory, fingerprint
from .answers import Answer, Answers
from .budgets import read_plan
from .sources import open_profile
from .training import HISTORY, train

FED = "fed.json"  # in a run: what it goes by in the histories that it was fed to

logger = logging.getLogger(__name__)


def answered(answers: Iterable[Answer], menu: Menu, made: Provenance) -> Profile:
    """The graded answers of a run as a profile: one draw of a question, under the option that it was given.

    A thought that ended by itself under a cap is the same under every larger one, and counts there too.

    Raises:
        InvalidInputError: none of them was graded, with its tokens counted.
    """
    known = [each for each in answers if each.grade is not None and each.error is None and each.tokens is not None]
    if not known:
        raise InvalidInputError("none of the answers was graded and counted, so there is nothing to learn from them")
    place_of = {query_id: place for place, query_id in enumerate(dict.fromkeys(each.id for each in known))}
    shape = (len(place_of), menu.num_options)
    tried_Q_B, right_Q_B = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    tokens_Q_B, reasoning_Q_B = np.zeros(shape), np.zeros(shape)
    for each in known:
        place, column = place_of[each.id], int(menu.first_at_least(each.budget))
        is_same_later = not menu.is_named and each.stop_reason is StopReason.NATURAL
        is_option = each.budget in menu  # not where a hard total gave what it had left
        columns = slice(column, None if is_same_later else column + is_option)
        tried_Q_B[place, columns] += 1
        right_Q_B[place, columns] += each.grade is Grade.RIGHT
        tokens_Q_B[place, columns] += each.tokens or 0
        reasoning_Q_B[place, columns] += each.reasoning_tokens or 0
    least_Q_B = np.maximum(tried_Q_B, 1)
    return Profile(
        query_ids=tuple(place_of),
        menu=menu,
        num_right_Q_B=right_Q_B,
        num_tried_Q=tried_Q_B.max(axis=1),
        tokens_Q_B=tokens_Q_B / least_Q_B,
        reasoning_Q_B=reasoning_Q_B / least_Q_B,
        provenance=replace(made, menu=menu),
        tried_Q_B=tried_Q_B,
    )


def history_folder(source: str) -> Path | None:
    """The folder of the history that `source` names; None where it is a predictor of another kind, or a shipped one."""
    if not Path(source).exists():
        return None
    with locate(source) as folder:
        predictor = Predictor.load(folder)
        return folder if isinstance(predictor.estimator, HistoryPredictor) else None


def feed_run(folder: Path, run: RunDirectory) -> None:
    """Feeds the graded answers of a finished run to a history; nothing, with a note, where none were graded."""
    made = replace(run.header.provenance, name=run.path.resolve().name)
    try:
        profile = answered(Answers.load(run.path), read_plan(run).menu, made)
    except InvalidInputError as error:
        logger.warning("note: %s was not fed: %s", folder, error)
        return
    _feed(folder, profile, _known_as(run))


def feed_profile(folder: Path, run: RunDirectory) -> None:
    """Feeds a profile run to the history in a folder; where there is none yet, one is made of it."""
    _feed(folder, open_profile(str(run.path)), _known_as(run))


def _feed(folder: Path, profile: Profile, name: str) -> None:
    make_folder(folder.parent)
    with open_bytes(folder.with_name(f".{folder.name}.feeding"), "ab+", "written") as lock:  # freed by a kill, too
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / SETTINGS_FILE).is_file():
            train(profile, HISTORY, fed_as=name).save(folder)
            logger.info("history %s: made of %d questions", folder, profile.num_queries)
            return
        predictor = Predictor.load(folder)
        fed, notes = feed(predictor, profile, fed_as=name)
        for note in notes:
            logger.warning("note: %s", note)
        if fed is not predictor:
            fed.save(folder)
            known = fed.card.history
            logger.info("history %s: %s draws", folder, f"{known.num_draws:,.0f}" if known else "no")


def _known_as(run: RunDirectory) -> str:
    """What a run goes by in a history: made when it is first fed, so that it is fed once."""
    path = run.path / FED
    with run.turn():
        if not path.is_file():
            made = fingerprint([run.header.provenance.to_json(), time.time_ns()])
            write_json(path, {"id": made})
        return str(read_json(path)["id"])
