"""An estimator with its card: predicts for queries, rejects other models and templates, is saved in a folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..core.arguments import path_of
from ..core.codec import encode
from ..core.data import Curves, EngineInfo, FloatArray, IntArray, Query
from ..core.features import HIDDEN, Features, nonfinite_rows, shorten
from ..core.menu import Menu
from ..core.profile import Profile
from ..core.protocols import Estimator
from ..core.showing import Shown
from ..errors import (
    ForethoughtError,
    InvalidFeaturesError,
    InvalidInputError,
    MismatchError,
    MissingExtraError,
    ModelFileError,
    UnknownNameError,
)
from .bundle import locate, read_settings, read_weights, write_folder
from .card import PredictorCard
from .novelty import PREFIX, Novelty, NoveltyScore
from .overlap import PREFIX as SEEN
from .overlap import Seen
from .parts.making import estimator_class
from .parts.rows import training_hash, usable_rows
from .parts.wave_table import WaveTable

logger = logging.getLogger(__name__)

OLD_PREFIX = "familiarity_"  # of the arrays of the novelty score, in schema 1


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Predictor(Shown):
    """An estimator and what it belongs to.

    Attributes:
        card: what it was made from and for.
        estimator: fitted.
        novelty: scores how novel a query is; None where that is not known.
        seen: which questions it was trained on; None for one that was saved without them.
        waves: how votes stand and move under each single option, by its name; empty where it predicts no votes.
        left_out: what fits that had not seen a training query said of it; not saved, None where it is not known.
    """

    card: PredictorCard
    estimator: Estimator
    novelty: NoveltyScore | None = None
    seen: Seen | None = None
    waves: Mapping[str, WaveTable] = field(default_factory=dict)
    left_out: Curves | None = None

    def __repr__(self) -> str:
        card = self.card
        return (
            f"Predictor({card.predictor} for {card.model}, budgets {card.menu}, trained on {card.data.num_queries:,} "
            f"queries)"
        )

    def judge(self, features: Features) -> Novelty | None:
        """How novel the queries are; None where no score is known, or none that passed its own calibration."""
        if self.novelty is None or not self.novelty.is_calibrated:
            return None
        features.check({self.novelty.kind})
        return self.novelty.judge(features)

    def predict(self, queries: Sequence[Query] | Sequence[str], features: Features | None = None) -> Curves:
        """Curves for the queries, shrunk to the mean curve as the card says (`shrinkage`).

        Args:
            queries: length Q: queries; or with features their ids; or, without, the questions' texts, which are then
                their ids too.
            features: what the card says is read (`features.reads`), of these queries. May be left out where only the
                text is read, or nothing; ids that it lacks are those of the queries.

        Raises:
            InvalidFeaturesError: a part that is read is missing, NaN or infinity (naming the queries), a wrong width,
                or a wrong number of rows.
        """
        query_ids = tuple(query if isinstance(query, str) else query.id for query in queries)
        if features is None:
            features = Features.of_texts([query if isinstance(query, str) else query.text for query in queries])
        if features.ids is None:
            features = replace(features, ids=query_ids)
        if len(features) != len(query_ids):
            raise InvalidFeaturesError(f"{len(query_ids)} queries need as many feature rows; got {len(features)}")
        if HIDDEN in self.card.features.reads:
            self._check_features(query_ids, features.hidden)
        p_Q_B, tokens_Q_B = self.estimator.predict(features)
        card = self.card
        mean_tokens_B = None if card.mean_tokens_B is None else np.array(card.mean_tokens_B)
        if tokens_Q_B is None and mean_tokens_B is not None:  # without usage: the mean stands for everyone's
            tokens_Q_B = np.tile(mean_tokens_B, (len(query_ids), 1))
        if (shrinkage := card.shrinkage) is not None:
            mean_p_B, any_order = np.array(card.mean_p_B), card.menu.is_named
            p_Q_B, tokens_Q_B = shrinkage.apply(p_Q_B, tokens_Q_B, mean_p_B, mean_tokens_B, any_order=any_order)
        return Curves(query_ids, card.menu, p_Q_B, tokens_Q_B, card.input_Q_B(len(query_ids)))

    def _check_features(self, query_ids: Sequence[str], features_Q_D: FloatArray) -> None:
        schema = self.card.features
        if features_Q_D.shape[1] != schema.width:
            raise InvalidFeaturesError(
                f"features of {shorten(list(query_ids), most=3)} are {features_Q_D.shape[1]} wide, but this predictor "
                f"reads layer {schema.layer} of {self.card.model or 'its model'}, {schema.width} wide"
            )
        bad = nonfinite_rows(features_Q_D)
        if len(bad):
            raise InvalidFeaturesError(
                f"features of {len(bad)} queries hold NaN or infinity (prompt too long for the model?): "
                f"{shorten([query_ids[row] for row in bad])}. Leave these queries out, or shorten them."
            )

    def check(self, info: EngineInfo, menu: Menu | None = None) -> None:
        """Refuses an engine or budgets that the predictor was not made for.

        Hashes decide where both sides have one (a model may go by several names); names decide otherwise. What is
        unknown on either side is not compared.

        Raises:
            MismatchError: every difference, both values, and what to do.
        """
        refuse_other(self.card, info, menu)

    def rows_trained_on(self, profile: Profile) -> IntArray | None:
        """Rows of the profile's queries that it has learned from; None where that is not known.

        One that was saved without hashes of its questions knows a profile only as a whole.
        """
        if self.seen is not None:
            return self.seen.rows_trained_on(profile)
        return np.arange(profile.num_queries) if self.is_trained_on(profile) else None

    def is_trained_on(self, profile: Profile) -> bool:
        """Whether it has learned from this very profile: what it says of its queries is then too good."""
        schema = self.card.features
        if schema.layer is not None and schema.layer not in profile.layers:
            return False
        layers = None if schema.layer is None else [schema.layer]
        try:
            rows = usable_rows(profile, frozenset(self.estimator.reads), layers, self.card.seed)
        except (InvalidFeaturesError, InvalidInputError):  # nothing of it can be learned from
            return False
        return training_hash(profile.select(rows)) == self.card.data.data_hash

    def feed(self, profile: Profile) -> Predictor:
        """The same with the samples of a profile added, for a predictor of the kind `history`; see `feeding.feed`.

        What is left out (another model's draws, what was fed before) is logged.
        """
        from .feeding import feed

        fed, notes = feed(self, profile)
        for note in notes:
            logger.warning("note: %s", note)
        return fed

    def save(self, folder: Path | str) -> Path:
        """Writes the predictor in one step; other files in the folder stay.

        Raises:
            ModelFileError: `folder` exists and holds something other than a predictor.
        """
        folder = path_of(folder)
        settings, arrays = self.estimator.state()
        for part in (self.novelty, self.seen):
            arrays = {**arrays, **(part.arrays() if part is not None else {})}
        content = {"predictor": self.card.predictor, "settings": settings, "card": self.card.to_json()}
        content |= {"waves": encode(self.waves)} if self.waves else {}
        write_folder(folder, content, arrays, self.card.to_markdown())
        return folder

    @classmethod
    def load(cls, source: Path | str) -> Predictor:
        """Reads what `save` wrote: a folder, one that holds it under `predictor` (a run), or a shipped name.

        Only JSON and safetensors are read; nothing in the folder is run.

        Raises:
            ModelFileError: a file missing or broken, another schema version, or weights with another hash.
            UnknownNameError: neither a folder nor a shipped name, or its estimator's class is not registered here.
        """
        with locate(source) as folder:
            return cls._read(folder)

    @classmethod
    def _read(cls, folder: Path) -> Predictor:
        content = read_settings(folder)
        weights = {
            name.replace(OLD_PREFIX, PREFIX, 1) if name.startswith(OLD_PREFIX) else name: array
            for name, array in read_weights(folder, content).items()
        }
        try:
            card = PredictorCard.from_json(content["card"])
            if content["predictor"] != card.predictor:
                raise ValueError(f"it names the predictor {content['predictor']!r}, its card {card.predictor!r}")
            own = {name: array for name, array in weights.items() if not name.startswith((PREFIX, SEEN))}
            estimator = estimator_class(card.predictor).from_state(content["settings"], own)
            _check_shapes(estimator, card)
            novelty = None if card.novelty is None else NoveltyScore.from_arrays(weights, card.novelty)
            if novelty is not None and novelty.kind == HIDDEN and novelty.distance.width != card.features.width:
                raise ValueError(f"it judges {novelty.distance.width} features, its card has {card.features.width}")
            seen = Seen.from_arrays(weights)
            waves = {str(name): WaveTable.from_json(table) for name, table in (content.get("waves") or {}).items()}
        except (UnknownNameError, MissingExtraError):
            raise
        except Exception as error:  # what a stranger wrote may break any predictor's class in any way
            reason = f"{error} is missing" if isinstance(error, KeyError) else str(error) or type(error).__name__
            raise ModelFileError(f"{folder} is not a usable predictor: {reason}. Train it again.") from error
        return cls(card, estimator, novelty, seen, waves)


def refuse_other(card: PredictorCard, info: EngineInfo, menu: Menu | None = None) -> None:
    """See `Predictor.check`; for a plan whose predictor is not available."""
    differences = _difference("model", card.model, card.model_hash, info.model, info.model_hash)
    differences += _difference("template", card.template, card.template_hash, info.template, info.template_hash)
    width = card.features.width
    if HIDDEN in card.features.reads and info.hidden_size is not None and info.hidden_size != width:
        differences.append(f"feature width: predictor {width}, engine {info.hidden_size}")
    if menu is not None and not menu.is_same(card.menu):
        differences.append(f"budgets: predictor {card.menu}, run {menu}")
    if differences:
        raise MismatchError(
            f"this {card.predictor} predictor was made for something else. {'; '.join(differences)}. "
            f"Use the settings it was made for, or make one for yours: forethought profile, then forethought train."
        )


def read_card(folder: Path) -> PredictorCard:
    """The card of a saved predictor, without its weights.

    Raises:
        ModelFileError: a file missing or broken, or another schema version.
    """
    try:
        return PredictorCard.from_json(read_settings(folder).get("card"))
    except ValueError as error:
        raise ModelFileError(f"{folder} is not a usable predictor: {error}. Train it again.") from error


def _difference(noun: str, made: str | None, made_hash: str | None, now: str | None, now_hash: str | None) -> list[str]:
    """What differs between the predictor's and the engine's model or template, in words; empty when nothing does."""
    if made_hash is not None and now_hash is not None:
        if made_hash == now_hash:
            return []
        names = f" ({made!r} and {now!r})" if made != now else f" (both called {made!r})"
        return [f"{noun} hash: predictor {made_hash}, engine {now_hash}{names}"]
    if made is not None and now is not None and made != now:
        return [f"{noun}: predictor {made!r}, engine {now!r}"]
    return []


def _check_shapes(estimator: Estimator, card: PredictorCard) -> None:
    """One prediction for zeros: arrays, settings and card must belong together before any query relies on them.

    A costly one, which would have to load a model for it, is taken at its word.
    """
    if estimator.is_costly:
        return
    try:
        nothing_1_D = np.zeros((1, max(1, card.features.width)), dtype=np.float32)
        probe = Features(1, hidden_Q_D=nothing_1_D, texts=("",), difficulties=(None,), ids=("",))
        p_Q_B, tokens_Q_B = estimator.predict(probe)
    except ForethoughtError as error:
        raise ValueError(str(error)) from error
    expected = (1, card.menu.num_options)
    if p_Q_B.shape != expected or (tokens_Q_B is not None and tokens_Q_B.shape != expected):
        raise ValueError(f"it predicts {p_Q_B.shape[1]} budgets, its card has {card.menu.num_options}")
    if tokens_Q_B is not None and card.mean_tokens_B is None:
        raise ValueError("it predicts tokens and its card knows none")
    if not np.isfinite(p_Q_B).all() or (tokens_Q_B is not None and not np.isfinite(tokens_Q_B).all()):
        raise ValueError("its weights hold NaN or infinity")
    if not ((p_Q_B >= 0) & (p_Q_B <= 1)).all() or (tokens_Q_B is not None and (tokens_Q_B < 0).any()):
        raise ValueError("its weights give chances outside of 0 to 1, or less than no tokens")
