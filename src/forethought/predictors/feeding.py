"""Adds samples to a history, if they are of the same model, template and options."""

from __future__ import annotations

import datetime
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..core.menu import Menu
from ..core.profile import Profile
from ..errors import InvalidSettingsError
from ..graders import grader_of, group_answers
from .card import PredictorCard
from .card_parts import Fed, HistoryCard
from .history import HistoryPredictor
from .parts.draws import Draws
from .predictor import Predictor

logger = logging.getLogger(__name__)

SHOWN = 3  # options named in a note


def feed(predictor: Predictor, profile: Profile, *, fed_as: str = "") -> tuple[Predictor, tuple[str, ...]]:
    """The predictor with the samples of a profile added, and notes on what was left out.

    Draws of another model or template are not taken over, nor those of options that the history does not have or that
    are defined otherwise there. What was fed before is not counted again.

    Args:
        predictor: of the kind `history`.
        profile: more draws, of questions that it knows or of new ones.
        fed_as: what it goes by, so that it is known again; "" for a hash of its counts.

    Raises:
        InvalidSettingsError: the predictor is of another kind.
    """
    own = history_of(predictor)
    known, name = history_card(predictor), fed_as or draws_hash(profile)
    if any(each.id == name for each in known.fed):
        return predictor, (
            f"{profile.provenance.name or 'this profile'} was added before: its samples are not counted again",
        )
    differing = _differing(predictor.card, profile)
    if differing:
        return predictor, (
            f"nothing of {profile.provenance.name or 'the profile'} was fed: the history is of another "
            f"{' and '.join(differing)}, and different ones are not mixed. To start a new one: forethought train "
            "PROFILE --predictor history",
        )
    columns, notes = _columns(predictor.card.menu, _as_options(profile.menu, predictor.card.menu))
    if all(column is None for column in columns):
        return predictor, notes
    draws = Draws.of(profile).on(columns)
    if (predictor.card.menu.samples_B > 1).any():
        draws = draws.named_as(own.draws_, lambda texts: group_answers(texts, grader_of(profile.provenance)))
    notes += tuple(_doubts(predictor, profile, name))
    entry = Fed(
        id=name,
        name=profile.provenance.name or "unknown",
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        num_queries=draws.num_queries,
        num_draws=int(draws.num_draws),
        seed=profile.provenance.seed,
    )
    grown = own.with_draws(own.draws_.added(draws, keep=own.keep))
    card = replace(predictor.card, history=history_words(grown, (*known.fed, entry)))
    return replace(predictor, card=card, estimator=grown), notes


def begun(predictor: Predictor, profiles: Sequence[Profile], *, fed_as: str = "") -> Predictor:
    """A history just trained on `profiles` together, its counts added one by one, so that earlier ones decay.

    `fed_as` names the last of them; see `feed`.
    """
    own = history_of(predictor)
    empty = own.with_draws(Draws.none(predictor.card.menu.num_options))
    made = replace(predictor, estimator=empty, card=replace(predictor.card, history=history_words(empty, ())))
    for number, profile in enumerate(profiles, 1):
        made, notes = feed(made, profile, fed_as=fed_as if number == len(profiles) else "")
        for note in notes:
            logger.warning("note: %s", note)
    held_out = own.held_out_
    history_of(made).held_out_ = held_out
    return made


def history_of(predictor: Predictor) -> HistoryPredictor:
    """Its estimator; raises InvalidSettingsError if it is not a history."""
    if not isinstance(predictor.estimator, HistoryPredictor):
        raise InvalidSettingsError(
            f"samples can be added only to a history, and this predictor is {predictor.card.predictor}; make one: "
            "forethought train PROFILE --predictor history"
        )
    return predictor.estimator


def history_card(predictor: Predictor) -> HistoryCard:
    """The history section of its card."""
    return predictor.card.history or history_words(history_of(predictor), ())


def history_words(history: HistoryPredictor, fed: tuple[Fed, ...]) -> HistoryCard:
    """What a card says of a history."""
    return HistoryCard(
        base=history.base,
        num_queries=history.draws_.num_queries,
        num_draws=round(history.draws_.num_draws, 1),
        strength=history.strength_,
        token_strength=history.token_strength_,
        half_life=history.half_life,
        fed=fed,
    )


def draws_hash(profile: Profile) -> str:
    """First 16 hex digits of the SHA-256 of ids, counts and tokens, whatever the order of the queries."""
    order = np.array(sorted(range(profile.num_queries), key=profile.query_ids.__getitem__), dtype=np.int64)
    digest = hashlib.sha256("\n".join(profile.query_ids[row] for row in order.tolist()).encode())
    for counts in (profile.num_right_Q_B, profile.tries_Q_B):
        digest.update(np.ascontiguousarray(counts[order], dtype="<i8").tobytes())
    digest.update(np.ascontiguousarray(profile.tokens_Q_B[order], dtype="<f4").tobytes())
    return digest.hexdigest()[:16]


def _differing(card: PredictorCard, profile: Profile) -> list[str]:
    """What is another in the profile: model, template; where both sides have a hash it decides."""
    made, found = profile.provenance, []
    for noun, own, own_hash, new, new_hash in (
        ("model", card.model, card.model_hash, made.model, made.model_hash),
        ("template", card.template, card.template_hash, made.template, made.template_hash),
    ):
        if own_hash is not None and new_hash is not None:
            is_other = own_hash != new_hash
        else:
            is_other = own is not None and new is not None and own != new
        if is_other:
            found.append(f"{noun} ({own}{f', {own_hash}' if own_hash else ''}; fed {new})")
    return found


def _columns(own: Menu, fed: Menu) -> tuple[list[int | None], tuple[str, ...]]:
    """For each option of the history its column in what is fed, and notes on those that have none."""
    if own.is_named != fed.is_named:
        kind = "named options" if own.is_named else "caps"
        why = f"nothing was added: the history is of {kind}, {own}, the new samples of {fed}"
        return [None] * own.num_options, (why,)
    column_of = {label: column for column, label in enumerate(fed.labels)}
    columns = [column_of.get(label) for label in own.labels]
    changed = []
    for place, column in enumerate(columns):
        if column is not None and own.is_named and _definition(own, place) != _definition(fed, column):
            changed.append(own.labels[place])
            columns[place] = None
    notes = []
    if changed:
        notes.append(f"options differ from those in the history, and their samples are not added: {_few(changed)}")
    if unknown := [label for label in fed.labels if label not in own.labels]:
        notes.append(f"the history has no options {_few(unknown)}: their samples are not added")
    if all(column is None for column in columns):
        notes.append(
            "nothing was added: no option is the same. To start a new history: forethought train PROFILE "
            "--predictor history"
        )
    return columns, tuple(notes)


def _as_options(menu: Menu, own: Menu) -> Menu:
    """Caps as the options that votes by them are drawn by."""
    if menu.is_named or not (own.samples_B > 1).any():
        return menu
    return Menu(menu.caps, tuple(map(menu.option, menu.caps)))


def _definition(menu: Menu, column: int) -> dict[str, Any]:
    """What makes an option what it is; prices and measured tokens may change."""
    said = menu.options[column].to_json()
    return {key: said.get(key) for key in ("label", "cap", "samples", "set")}


def _doubts(predictor: Predictor, profile: Profile, name: str) -> list[str]:
    """What the user should look at although it is fed."""
    card, made, found = predictor.card, profile.provenance, []
    if made.grader is not None and card.grader is not None and made.judge != card.grader:
        found.append(f"the history was graded by {card.grader}, the new samples by {made.judge}")
    others = [each for each in history_card(predictor).fed if each.id.partition("-")[0] != name.partition("-")[0]]
    if made.seed is not None and any(each.seed == made.seed for each in others):
        found.append(
            f"an earlier update had the same seed, {made.seed}: an engine that uses the seed returns the "
            "same samples, which add no information; use another --seed for each night"
        )
    return found


def _few(labels: Sequence[str]) -> str:
    return ", ".join(labels[:SHOWN]) + (f" and {len(labels) - SHOWN} more" if len(labels) > SHOWN else "")
