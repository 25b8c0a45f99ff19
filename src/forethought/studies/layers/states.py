"""Hidden states of a profile's questions: recorded with it, or in a folder of all layers that the model fills.

FOLDER/run.json                 the model, its prompt template, the engine and its precision
FOLDER/hidden/N.safetensors     32 questions: every layer at the last prompt token, and the mean over own tokens
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...control import sources
from ...control.reading import batches
from ...core.data import EngineInfo, FloatArray, Query
from ...core.menu import Menu
from ...core.profile import Profile
from ...core.protocols import Engine, PooledStateEngine
from ...core.provenance import Provenance
from ...core.study_settings import LayersSettings
from ...errors import InvalidFeaturesError, InvalidInputError, InvalidSettingsError, MismatchError, RunError
from ...evaluation.levels import spread
from ...predictors.parts.making import Progress
from ...runs.store import RunDirectory
from .wording import layers_words

KIND = "states"
CHUNK = 32  # questions read and kept at a time: what a kill can cost


@dataclass(frozen=True, slots=True, eq=False)
class States:
    """Hidden states under one pooling.

    Attributes:
        layers: which layers were recorded, length L.
        of_query: query id -> its states, float16, shape (L, D); NaN where the prompt did not fit the model.
    """

    layers: tuple[int, ...] = ()
    of_query: Mapping[str, FloatArray] = field(default_factory=dict)

    def layer(self, layer: int, query_ids: Sequence[str]) -> FloatArray:
        """One layer's states of some queries, shape (Q, D)."""
        column = self.layers.index(layer)
        return np.stack([self.of_query[query_id][column] for query_id in query_ids])

    def is_usable(self, query_ids: Sequence[str], layers: Sequence[int]) -> NDArray[np.bool_]:
        """Whether each query has states, finite in every one of `layers`, shape (Q,)."""
        columns = [self.layers.index(layer) for layer in layers]
        return np.array(
            [
                query_id in self.of_query and bool(np.isfinite(self.of_query[query_id][columns]).all())
                for query_id in query_ids
            ],
            dtype=bool,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Survey:
    """What is there to study.

    Attributes:
        measured: the profile, of the questions asked for.
        states: pooling -> its states, for those poolings that were asked for and are there.
        missing: questions whose states a folder lacks, and which the model would have to read.
        model, template: what would read them; "" where nothing says.
    """

    measured: Profile
    states: Mapping[str, States]
    missing: tuple[Query, ...]
    model: str
    template: str

    def notes(self, settings: LayersSettings) -> tuple[str, ...]:
        """What the reader must know of where the states come from."""
        found = []
        if len(self.states) < len(settings.poolings):
            found.append(
                "Only the last token was recorded with the profile; --states FOLDER also reads the mean over a "
                "question's tokens."
            )
        if settings.states:
            made, measured = RunDirectory.open(Path(settings.states)).header.provenance, self.measured.provenance
            found.append(
                f"Hidden states were read by engine {made.engine} in {made.dtype}; traces were sampled "
                f"by {measured.engine or 'an engine not recorded'} in "
                f"{measured.dtype or 'a precision not recorded'}."
            )
        return tuple(found)


def bill(found: Survey, settings: LayersSettings, folder: Path) -> dict[str, Any]:
    """What the study would do."""
    return {
        "questions": found.measured.num_queries,
        "to_read": len(found.missing) if settings.read else 0,
        "left_out": 0 if settings.read else len(found.missing),
        "states": settings.states or settings.run,
        "report": str(folder),
    }


def survey(settings: LayersSettings) -> Survey:
    """Opens the profile and the available states; no model is loaded.

    Raises:
        MismatchError: the folder is of another model or template than the profile.
        RunError: the folder is not one of hidden states, or must be read from and is not there.
    """
    measured = sources.open_profile(settings.run)
    if settings.limit is not None:
        measured = measured.select(np.arange(min(settings.limit, measured.num_queries)))
    made = measured.provenance
    model, template = settings.model or made.model or "", settings.template or made.template or ""
    if not settings.states:
        return Survey(measured, _recorded(settings, measured), (), model, template)
    held = _held(Path(settings.states), settings, measured)
    texts = measured.texts or ("",) * measured.num_queries
    missing = tuple(
        Query(query_id, text)
        for query_id, text in zip(measured.query_ids, texts, strict=True)
        if any(query_id not in states.of_query for states in held.values())
    )
    return Survey(measured, held, missing, model, template)


def _recorded(settings: LayersSettings, measured: Profile) -> dict[str, States]:
    """The profile's own states: of the last token, and the mean where a run directory holds it."""
    found = {}
    if measured.hidden_Q_L_D is not None:
        found["last"] = States(measured.layers, dict(zip(measured.query_ids, measured.hidden_Q_L_D, strict=True)))
    if Path(settings.run).is_dir():
        found["mean"] = States(*RunDirectory.open(Path(settings.run)).load_hidden(pooling="mean"))
    return {pooling: found[pooling] for pooling in settings.poolings if pooling in found and found[pooling].layers}


def _held(folder: Path, settings: LayersSettings, measured: Profile) -> dict[str, States]:
    """What the folder holds; nothing where it is still to be made."""
    if not (folder / "run.json").exists():
        if not settings.read:
            raise RunError(f"--states {folder} does not exist, so there is nothing to study; leave --no-read out")
        return {pooling: States() for pooling in settings.poolings}
    run = RunDirectory.open(folder)
    if run.header.kind != KIND:
        raise RunError(f"--states {folder} is a {run.header.kind!r} run; name a folder of hidden states, or a new one")
    check_same(measured.provenance, run.header.provenance, f"the states in {folder}")
    return {pooling: States(*run.load_hidden(pooling=pooling)) for pooling in settings.poolings}


def check_same(measured: Provenance, made: Provenance, what: str) -> None:
    """Raises MismatchError where `what` was made with another model or template than the profile.

    Hashes decide where both sides have one, names otherwise; what is unknown on either side is not compared.
    """
    differences = []
    for noun in ("model", "template"):
        both_hashed = None not in (measured.value(f"{noun}_hash"), made.value(f"{noun}_hash"))
        key = f"{noun}_hash" if both_hashed else noun
        own, other = measured.value(key), made.value(key)
        if None not in (own, other) and own != other:
            differences.append(f"{key.replace('_', ' ')}: {own} in the profile, {other} there")
    if differences:
        raise MismatchError(f"{what} do not belong to this profile ({'; '.join(differences)})")


def check_readable(found: Survey, source: str) -> None:
    """Raises InvalidInputError or InvalidSettingsError where no model could be asked for what is missing."""
    if without := [query.id for query in found.missing if not query.text]:
        raise InvalidInputError(
            f"{source} does not hold the texts of {len(without)} of its questions ({', '.join(without[:3])}, …), so no "
            "model can read them; --no-read leaves them out"
        )
    for noun, value in (("model", found.model), ("template", found.template)):
        if not value:
            raise InvalidSettingsError(f"{source} does not say which {noun} was measured; give --{noun}")


def fill(folder: Path, engine: Engine, found: Survey, *, wanted: Sequence[int] | None, progress: Progress) -> None:
    """Reads missing states with the model, a chunk at a time; a kill loses at most the current chunk.

    A folder that already holds states goes on with the same layers; a new one gets all of them.

    Args:
        folder: where they go.
        engine: runs the model that was measured.
        found: names what is missing.
        wanted: layers that the study will ask for, or None for all.
        progress: called with "read", questions read and questions in all.

    Raises:
        InvalidFeaturesError: a wanted layer that the model or the folder does not have.
        MismatchError: the engine runs another model or template than was measured.
        RunError: the folder was made by another engine or in another precision, or is being written.
    """
    info = engine.info
    made = Provenance.of(info)
    check_same(found.measured.provenance, made, f"states read with {info.model} and template {info.template}")
    assert isinstance(engine, PooledStateEngine)  # `choose_reader` picked it
    if (folder / "run.json").exists():
        _check_precision(folder, info)
    run = RunDirectory(folder)
    recorded, done = run.load_hidden(pooling="mean")
    layers = recorded or tuple(range((info.num_layers or 0) + 1))
    _check_recorded(wanted or (), layers, str(folder) if recorded else info.model)
    run = RunDirectory.create(
        folder,
        kind=KIND,
        provenance=made,
        settings={"profile": found.measured.provenance.name, "num_layers": info.num_layers},
    )
    with run.locked():
        missing = [query for query in found.missing if query.id not in done]
        for start in range(0, len(missing), CHUNK):
            chunk = missing[start : start + CHUNK]
            read = batches(chunk, info, num_before=start, total=len(missing), progress=progress)
            pooled = [engine.pooled_states(batch, layers) for batch in read]
            last_Q_L_D, mean_Q_L_D = (np.concatenate(states) for states in zip(*pooled, strict=True))
            run.save_hidden([query.id for query in chunk], layers, last_Q_L_D, mean_Q_L_D)
        progress("read", len(missing), len(missing))


def _check_precision(folder: Path, info: EngineInfo) -> None:
    """States of two engines or precisions are not mixed: they differ by more than some layers do."""
    made, now = RunDirectory.open(folder).header.provenance, Provenance.of(info)
    if differing := made.differing(now, ("engine", "dtype")):
        lines = "; ".join(f"{key}: {made.value(key)} there, {now.value(key)} now" for key in differing)
        raise RunError(
            f"the states in {folder} were read in another way ({lines}). Use --engine {made.engine} "
            f"--engine-option dtype={made.dtype}, name another --states, or leave what is missing out: --no-read"
        )


def choose_layers(states: Mapping[str, States], settings: LayersSettings) -> tuple[int, ...]:
    """The layers to compare: those asked for, or all that every pooling holds.

    Raises:
        InvalidFeaturesError: no states, one layer only, or a layer that was not recorded.
    """
    hint = "Read every layer with the model that was measured: --states FOLDER"
    if not states:
        raise InvalidFeaturesError(
            f"{settings.run} holds no hidden states (pooling: {' or '.join(settings.poolings)}). {hint}"
        )
    recorded = [
        layer for layer in next(iter(states.values())).layers if all(layer in s.layers for s in states.values())
    ]
    wanted = tuple(sorted(recorded)) if settings.layer_numbers is None else settings.layer_numbers
    source = settings.states or settings.run
    _check_recorded(wanted, recorded, source)
    if len(wanted) < 2:
        if settings.layer_numbers is not None and len(recorded) > 1:
            raise InvalidFeaturesError("--layers names one layer; name at least two to compare")
        raise InvalidFeaturesError(
            f"{source} holds hidden states of {layers_words(recorded)}: nothing to compare. {hint}"
        )
    return wanted


def choose_levels(menu: Menu, settings: LayersSettings) -> tuple[float, ...]:
    """The mean budgets to judge plans at, ascending: those asked for, or near 1/5, 2/5 and 3/5 of the largest cap.

    Raises:
        InvalidSettingsError: one that lies outside the menu.
    """
    all_levels = spread(menu, menu.budgets_B.astype(np.float64))
    usual = (min(all_levels, key=lambda level: abs(level - part * menu.largest / 5)) for part in (1, 2, 3))
    levels = tuple(sorted(set(settings.mean_tokens or usual)))
    if outside := [f"{level:g}" for level in levels if not menu.smallest <= level <= menu.largest]:
        raise InvalidSettingsError(
            f"--mean-tokens must lie between {menu.smallest} and {menu.largest}, the profile's budgets; "
            f"got {', '.join(outside)}"
        )
    return levels


def _check_recorded(wanted: Sequence[int], recorded: Sequence[int], source: str) -> None:
    if missing := [layer for layer in wanted if layer not in recorded]:
        raise InvalidFeaturesError(f"--layers {','.join(map(str, missing))}: {source} holds {layers_words(recorded)}")
