"""A fitted predictor with its card: predicts for queries, refuses what it was not made for, lives in a folder.

FOLDER/predictor.json        schema version, settings, card, SHA-256 of the weights
FOLDER/weights.safetensors   arrays
FOLDER/card.md               the card in words
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from ..core.data import Curves, EngineInfo, FloatArray
from ..core.features import HIDDEN, Features, nonfinite_rows
from ..core.files import make_folder, parse_json, reaching, write_atomically
from ..core.menu import Menu
from ..core.protocols import Estimator
from ..core.registry import resolve
from ..core.visible import to_json, visible
from ..errors import (
    FileError,
    ForethoughtError,
    InvalidFeaturesError,
    MismatchError,
    MissingExtraError,
    ModelFileError,
    UnknownNameError,
)
from .card import PredictorCard
from .familiarity import PREFIX, Familiarity, Judged
from .inputs import shorten
from .seen import PREFIX as SEEN
from .seen import Seen

_SHIPPED = resources.files("forethought") / "data" / "predictors"
SCHEMA = 2
READABLE = (1, 2)  # 1 named its budgets by their step and the largest of them
SETTINGS_FILE = "predictor.json"
WEIGHTS_FILE = "weights.safetensors"
CARD_FILE = "card.md"
NEXT_WEIGHTS_FILE = ".weights.safetensors.next"  # on the way to WEIGHTS_FILE


@dataclass(frozen=True, slots=True, eq=False)
class Predictor:
    """A predictor and what it belongs to.

    Attributes:
        card: what it was made from and for.
        estimator: fitted.
        familiarity: scores how novel a query is; None where that is not known.
        seen: which questions it was trained on; None for one that was saved without them.
    """

    card: PredictorCard
    estimator: Estimator
    familiarity: Familiarity | None = None
    seen: Seen | None = None

    def judge(self, features: Features) -> Judged | None:
        """How novel the queries are; None where no score is known, or none that passed its own calibration."""
        if self.familiarity is None or not self.familiarity.is_calibrated:
            return None
        features.check(frozenset({self.familiarity.kind}))
        return self.familiarity.judge(features)

    def predict(self, query_ids: Sequence[str], features: Features | FloatArray) -> Curves:
        """Curves for the queries, drawn towards the mean curve as the card says (`shrinkage`).

        Args:
            query_ids: length Q.
            features: what the card says is read (`features.reads`); a bare matrix stands for hidden states of the layer
                the card names, shape (Q, D). A predictor that reads nothing takes any matrix with Q rows.

        Raises:
            InvalidFeaturesError: a part that is read is missing, NaN or infinity (naming the queries), a wrong width,
                or a wrong number of rows.
        """
        if not isinstance(features, Features):
            if features.ndim != 2 or len(features) != len(query_ids):
                raise InvalidFeaturesError(f"{len(query_ids)} queries need as many feature rows; got {features.shape}")
            features = Features.of(features)
        if len(features) != len(query_ids):
            raise InvalidFeaturesError(f"{len(query_ids)} queries need as many feature rows; got {len(features)}")
        if HIDDEN in self.card.features.reads and features.hidden_Q_D is not None:
            self._check_features(query_ids, features.hidden_Q_D)
        p_Q_B, tokens_Q_B = self.estimator.predict(features.given_to(self.estimator))  # type: ignore[arg-type]
        if (shrinkage := self.card.shrinkage) is not None:
            mean = self.card.mean_curves(("",))
            mean_tokens_B = None if mean.tokens_Q_B is None else mean.tokens_Q_B[0]
            p_Q_B, tokens_Q_B = shrinkage.apply(p_Q_B, tokens_Q_B, mean.p_Q_B[0], mean_tokens_B)
        return Curves(query_ids=tuple(query_ids), menu=self.card.menu, p_Q_B=p_Q_B, tokens_Q_B=tokens_Q_B)

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
        """Refuses an engine or a grid the predictor was not made for.

        Hashes decide where both sides have one (a model may go by several names); names decide otherwise. What is
        unknown on either side is not compared.

        Raises:
            MismatchError: every difference, both values, and what to do.
        """
        refuse_other(self.card, info, menu)

    def save(self, folder: Path | str) -> Path:
        """Writes the predictor in one step: a reader or a kill sees the old one or the new one, never half nor none.

        In a folder that holds a predictor only that is replaced; what else stands there stays.

        Raises:
            ModelFileError: `folder` exists and holds something other than a predictor.
        """
        folder = Path(folder)
        check_place(folder)
        files = self._files()
        if folder.exists():
            _replace(folder, files)
            return folder
        make_folder(folder.parent)
        with (
            reaching(folder, "written"),
            tempfile.TemporaryDirectory(prefix=f".{folder.name[:40]}.", dir=folder.parent) as scratch,
        ):
            fresh = Path(scratch) / "new"
            fresh.mkdir()
            for name, content in files.items():
                write_atomically(fresh / name, content)
            try:
                fresh.rename(folder)
            except OSError:  # another process was quicker
                if not _is_replaceable(folder):
                    raise
                _replace(folder, files)
        return folder

    def _files(self) -> dict[str, bytes]:
        settings, arrays = self.estimator.state()
        arrays = {
            **arrays,
            **(self.familiarity.arrays() if self.familiarity else {}),
            **(self.seen.arrays() if self.seen else {}),
        }
        weights = save_arrays({name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)})
        content = {
            "schema": SCHEMA,
            "predictor": self.card.predictor,
            "settings": settings,
            "weights": {"bytes": len(weights), "sha256": hashlib.sha256(weights).hexdigest()},
            "card": self.card.to_json(),
        }
        return {
            SETTINGS_FILE: f"{to_json(content, indent=2)}\n".encode(),
            WEIGHTS_FILE: weights,
            CARD_FILE: visible(self.card.to_markdown()).encode(),
        }

    @classmethod
    def load(cls, source: Path | str) -> Predictor:
        """Reads what `save` wrote: a folder, one that holds it under `predictor` (a run), or a shipped name.

        Only JSON and safetensors are read; nothing in the folder is run.

        Raises:
            ModelFileError: a file missing or broken, another schema version, or weights with another hash.
            UnknownNameError: neither a folder nor a shipped name, or its estimator's class is not registered here.
        """
        with _locate(source) as folder:
            return cls._read(folder)

    @classmethod
    def _read(cls, folder: Path) -> Predictor:
        content = _read_settings(folder)
        weights = _read_weights(folder, content)
        try:
            card = PredictorCard.from_json(content["card"])
            if content["predictor"] != card.predictor:
                raise ValueError(f"it names the predictor {content['predictor']!r}, its card {card.predictor!r}")
            own = {name: array for name, array in weights.items() if not name.startswith((PREFIX, SEEN))}
            predictor = resolve("predictors", card.predictor).from_state(content["settings"], own)
            _check_shapes(predictor, card)
            familiarity = None if card.familiarity is None else Familiarity.from_arrays(weights, card.familiarity)
            seen = Seen.from_arrays(weights)
            if familiarity is not None and familiarity.kind == HIDDEN:
                _check_width(familiarity, card)
        except (UnknownNameError, MissingExtraError):
            raise
        except Exception as error:  # what a stranger wrote may break any predictor's class in any way
            reason = f"{error} is missing" if isinstance(error, KeyError) else str(error) or type(error).__name__
            raise ModelFileError(f"{folder} is not a usable predictor: {reason}. Train it again.") from error
        return cls(card, predictor, familiarity, seen)


def shipped_predictors() -> list[str]:
    """Names of the predictors inside the package."""
    folder = _SHIPPED
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []


@contextlib.contextmanager
def _locate(source: Path | str) -> Iterator[Path]:
    """The folder that a name or a path stands for: the path, its folder `predictor`, or a shipped predictor's."""
    path = Path(source)
    for folder in (path, path / "predictor"):
        if (folder / SETTINGS_FILE).is_file():
            yield folder
            return
    shipped = shipped_predictors()
    if str(source) in shipped:
        with resources.as_file(_SHIPPED / str(source)) as folder:
            yield folder
        return
    if path.exists():
        yield path  # what is wrong with it is said by its reader
        return
    close = difflib.get_close_matches(str(source), shipped, n=1)
    suggestion = f" Did you mean {close[0]!r}?" if close else ""
    raise UnknownNameError(
        f"{str(source)!r} is neither a run directory, nor a predictor folder, nor a shipped predictor.{suggestion} "
        f"Shipped: {', '.join(shipped) or 'none'}."
    )


def refuse_other(card: PredictorCard, info: EngineInfo, menu: Menu | None = None) -> None:
    """See `Predictor.check`; for what was made by a predictor that is not at hand."""
    differences = _difference("model", card.model, card.model_hash, info.model, info.model_hash)
    differences += _difference("template", card.template, card.template_hash, info.template, info.template_hash)
    width = card.features.width
    if HIDDEN in card.features.reads and info.hidden_size is not None and info.hidden_size != width:
        differences.append(f"feature width: predictor {width}, engine {info.hidden_size}")
    if menu is not None and menu != card.menu:
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
        return PredictorCard.from_json(_read_settings(folder).get("card"))
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


def check_place(folder: Path) -> None:
    """Raises ModelFileError where a predictor may not be saved, because something else stands there."""
    with reaching(folder, "written"):
        is_taken = folder.exists() and not _is_replaceable(folder)
    if is_taken:
        raise ModelFileError(f"{folder} exists and is not a predictor; nothing was written. Give another folder.")


def _replace(folder: Path, files: dict[str, bytes]) -> None:
    """Puts the predictor's files into a folder that is there: the settings file decides which one it holds.

    The weights lie ready under another name before it is replaced, and take theirs after it: until then they are read
    from there. One process at a time.
    """
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _finish(folder)
        write_atomically(folder / NEXT_WEIGHTS_FILE, files[WEIGHTS_FILE])
        write_atomically(folder / SETTINGS_FILE, files[SETTINGS_FILE])
        (folder / NEXT_WEIGHTS_FILE).replace(folder / WEIGHTS_FILE)
        write_atomically(folder / CARD_FILE, files[CARD_FILE])
    finally:
        os.close(lock)


def _finish(folder: Path) -> None:
    """Gives the weights their name where a kill came before that: they would be overwritten else."""
    waiting = folder / NEXT_WEIGHTS_FILE
    with contextlib.suppress(ModelFileError, FileNotFoundError):
        stated = _read_settings(folder).get("weights")
        if isinstance(stated, dict) and stated.get("sha256") == hashlib.sha256(waiting.read_bytes()).hexdigest():
            waiting.replace(folder / WEIGHTS_FILE)


def _is_replaceable(folder: Path) -> bool:
    return folder.is_dir() and ((folder / SETTINGS_FILE).is_file() or not any(folder.iterdir()))


def _read_settings(folder: Path) -> dict[str, Any]:
    path = folder / SETTINGS_FILE
    try:
        with reaching(path, "read"):
            content = parse_json(path.read_bytes())
    except FileError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            raise
        raise ModelFileError(
            f"{folder} is not a predictor: it has no {SETTINGS_FILE}. Make one with `forethought train`."
        ) from error
    except ValueError as error:  # broken UTF-8 or JSON
        raise ModelFileError(f"{path} is not readable JSON: {error}. Train the predictor again.") from error
    if not isinstance(content, dict) or content.get("schema") not in READABLE:
        schema = content.get("schema") if isinstance(content, dict) else None
        raise ModelFileError(
            f"{path} has schema {schema!r}; this version reads schema {SCHEMA}. Train the predictor again, "
            f"or use the version of forethought that wrote it."
        )
    return content


def _read_weights(folder: Path, content: dict[str, Any]) -> dict[str, FloatArray]:
    path = folder / WEIGHTS_FILE
    stated = content.get("weights")
    expected = stated.get("sha256") if isinstance(stated, dict) else None
    raw, found = b"", ""
    # The second where saving was stopped before they took their name, the third where it goes on meanwhile.
    for candidate in (path, folder / NEXT_WEIGHTS_FILE, path):
        if candidate.is_file():
            with reaching(candidate, "read"):
                raw = candidate.read_bytes()
            found = hashlib.sha256(raw).hexdigest()
        if found == expected:
            break
    if not found:
        raise ModelFileError(f"{path} is missing. Copy the whole predictor folder, or train it again.")
    if found != expected:
        raise ModelFileError(
            f"{path} has SHA-256 {found} ({len(raw):,} bytes), but {SETTINGS_FILE} states {expected}: "
            f"the file is cut short or was changed. Copy the folder again, or train again."
        )
    try:
        arrays: dict[str, FloatArray] = load_arrays(raw)
    except SafetensorError as error:
        raise ModelFileError(f"{path} is not a safetensors file: {error}") from error
    return arrays


def _check_shapes(predictor: Estimator, card: PredictorCard) -> None:
    """One prediction for zeros: arrays, settings and card must belong together before any query relies on them.

    A costly predictor, which would have to load a model for it, is taken at its word.
    """
    if getattr(predictor, "is_costly", False):
        return
    try:
        nothing_1_D = np.zeros((1, max(1, card.features.width)), dtype=np.float32)
        probe = Features(1, hidden_Q_D=nothing_1_D, texts=("",), difficulties=(None,))
        p_Q_B, tokens_Q_B = predictor.predict(probe.given_to(predictor))  # type: ignore[arg-type]
    except ForethoughtError as error:
        raise ValueError(str(error)) from error
    expected = (1, card.menu.num_options)
    if p_Q_B.shape != expected or (tokens_Q_B is not None and tokens_Q_B.shape != expected):
        raise ValueError(f"it predicts {p_Q_B.shape[1]} budgets, its card has {card.menu.num_options}")
    if (tokens_Q_B is None) is not (card.mean_tokens_B is None):
        raise ValueError("it predicts tokens and its card knows none, or the other way round")
    if not np.isfinite(p_Q_B).all() or (tokens_Q_B is not None and not np.isfinite(tokens_Q_B).all()):
        raise ValueError("its weights hold NaN or infinity")


def _check_width(familiarity: Familiarity, card: PredictorCard) -> None:
    if familiarity.distance.width != card.features.width:
        raise ValueError(f"it judges {familiarity.distance.width} features, its card has {card.features.width}")
