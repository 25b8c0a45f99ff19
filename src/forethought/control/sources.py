"""The possible values of a RUN argument: run directory, profile file, journal, predictor folder, or shipped name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

import numpy as np

from ..core.data import Query
from ..core.features import DIFFICULTY, GIVEN, HIDDEN, TEXT, Features
from ..core.profile import Profile
from ..errors import InvalidInputError, RunError
from ..predictors.bundle import is_predictor, shipped_predictors
from ..predictors.predictor import Predictor
from ..questions.queries import load_queries
from ..runs.journal import from_journal, is_journal
from ..runs.profiles import from_run, is_profile_file, read_parquet
from ..runs.store import RunDirectory

_DATA = resources.files("forethought") / "data"


def open_predictor(source: str) -> Predictor:
    """The trained predictor of a run directory, a predictor folder, or a shipped name.

    Raises:
        RunError: a run that has not been trained yet.
        UnknownNameError: neither a folder nor a shipped name.
    """
    path = Path(source)
    if (path / "run.json").is_file() and not (path / "predictor" / "predictor.json").is_file():
        raise RunError(f"{source} has no predictor yet; make one with: forethought train {source}")
    return Predictor.load(source)


def open_profile(source: str) -> Profile:
    """The profile of a run directory, a Parquet file, or a gateway's journal."""
    path = Path(source)
    if is_journal(path):
        return from_journal(path)
    if path.is_dir():
        if is_predictor(source) and not (path / "run.json").is_file():
            raise RunError(f"{source} is a predictor, not a profile; `forethought evaluate` takes one: --on PROFILE")
        run = RunDirectory.open(path)
        if run.header.kind != "profile":
            raise RunError(f"{source} is a {run.header.kind!r} run, not a profile; make one with: forethought profile")
        return from_run(run, run_queries(run))
    if not path.exists():
        raise RunError(
            f"{source} does not exist. Give a profile run (`forethought ls` lists those here), a Parquet profile, or, "
            f"to evaluate, a shipped predictor: {', '.join(shipped_predictors()) or 'none'}."
        )
    if path.suffix.lower() in (".jsonl", ".json", ".csv", ".tsv", ".txt", ".eval"):
        raise RunError(
            f"{source} is not a profile. To measure questions: forethought profile MODEL {source}; "
            f"to import measurements made elsewhere: forethought import {source}"
        )
    return read_parquet(path)


def open_run(source: str) -> RunDirectory:
    """The run directory `source`, to look at or judge what it holds; says what else it is, where it is none.

    Raises:
        RunError: a predictor, a file, or nothing.
    """
    path = Path(source)
    if (path / "run.json").is_file():
        return RunDirectory.open(path)
    if is_journal(path):
        raise RunError(f"{source} is a gateway's journal: it holds counts of requests and no answers")
    if is_predictor(source):
        of = path.parent if (path.parent / "run.json").is_file() else "RUN"
        raise RunError(f"{source} is a predictor: questions and answers are in a run; name that: {of}")
    if is_profile_file(path, is_refused=True):
        raise RunError(f"{source} is a profile's file: it holds counts; answers are in the run that it was made from")
    if path.is_file():
        raise RunError(
            f"{source} is a file, not a run directory (`forethought ls` lists those here). To grade the "
            f"answers in a file: forethought grade {source}"
        )
    return RunDirectory.open(path)


def shipped_heldout(name: str) -> Profile:
    """The held-out profile shipped with the predictor `name`; raises RunError for any that is not shipped."""
    if name not in shipped_predictors():
        raise RunError(
            f"{name} has no held-out profile of its own; give --on PROFILE, measured on questions that it was not "
            "trained on: forethought profile MODEL QUESTIONS"
        )
    with resources.as_file(_DATA / "profiles" / f"{name}-gsm8k-test.parquet") as path:
        return read_parquet(path)


def shipped_efforts() -> tuple[Profile, ...]:
    """Outcomes of two models at several effort levels, by Epoch AI: the example of a history; see the data's README."""
    names = ("claude-opus-4.5", "gpt-5.2")
    found = []
    for name in names:
        with resources.as_file(_DATA / "epoch-effort" / f"{name}.parquet") as path:
            found.append(read_parquet(path))
    return tuple(found)


def run_queries(run: RunDirectory) -> list[Query]:
    """The queries of a run, as they were when it was made; raises RunError where it has lost them."""
    if not (file := run.path / "queries.jsonl").exists():
        raise RunError(f"{file} does not exist: copy the whole run again")
    return load_queries(file)


def plan_queries(questions: str, limit: int | None, columns: Mapping[str, str | None]) -> list[Query]:
    """The queries of a plan: a file's, a run directory's or a profile's (there a text may be unknown: "")."""
    path = Path(questions)
    if is_profile_file(path):
        profile = read_parquet(path)
        texts = profile.texts or ("",) * profile.num_queries
        queries = [Query(query_id, text) for query_id, text in zip(profile.query_ids, texts, strict=True)]
        return queries[:limit]
    if (path / "run.json").is_file():
        return run_queries(RunDirectory.open(path))[:limit]
    return load_queries(questions, limit=limit, **columns)


def recorded_features(questions: str, queries: Sequence[Query], predictor: Predictor) -> Features | None:
    """The same when no model is needed for it, else None.

    None is needed where texts and ids alone are read, or where `questions` is a run directory or a profile file that
    holds the rest for every query.
    """
    reads = predictor.card.features.reads
    texts, ids = tuple(query.text for query in queries), tuple(query.id for query in queries)
    if is_profile_file(Path(questions)):
        profile = read_parquet(Path(questions))
        predictor.check(profile.provenance.engine_info, None)
        return _profiled_features(profile, queries, predictor)
    if not (Path(questions) / "run.json").is_file():
        return Features(len(queries), texts=texts, ids=ids) if reads <= GIVEN else None
    run = RunDirectory.open(Path(questions))
    predictor.check(run.header.provenance.engine_info, None)
    if reads <= GIVEN:
        return Features(len(queries), texts=texts, ids=ids)
    layers, hidden = run.load_hidden()
    layer = predictor.card.features.layer
    if DIFFICULTY in reads or layer not in layers or not all(query.id in hidden for query in queries):
        return None
    column = layers.index(layer)
    hidden_Q_D = np.stack([hidden[query.id][column] for query in queries]).astype(np.float32)
    return Features(len(queries), hidden_Q_D, texts, ids=ids)


def _profiled_features(profile: Profile, queries: Sequence[Query], predictor: Predictor) -> Features | None:
    schema = predictor.card.features
    if HIDDEN in schema.reads and schema.layer not in profile.layers:
        return None
    if (DIFFICULTY in schema.reads and not profile.difficulties) or (TEXT in schema.reads and not profile.texts):
        return None
    row_of = {query_id: row for row, query_id in enumerate(profile.query_ids)}
    return Features.of(profile, schema.layer).select(np.array([row_of[query.id] for query in queries]))


def refuse_without_texts(queries: Sequence[Query], source: str) -> None:
    """Raises InvalidInputError when there are questions that no model can be asked."""
    without = [query.id for query in queries if not query.text]
    if without:
        raise InvalidInputError(
            f"{source} does not hold the texts of {len(without)} of its questions ({', '.join(without[:3])}, …), and a "
            "model would have to read them; name the file of the questions instead"
        )
