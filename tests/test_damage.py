"""Files of strangers and damaged ones: whatever stands in them, what escapes is an error of ours, with the file's name.

Every field of every JSON file, every array and every column is changed in turn, and every command that opens the file
is tried on what comes of it. Each field of JSON is changed in an eighth of the ways, the next one in the next eighth;
`FORETHOUGHT_TEST_ALL=1` changes each in all ways, and draws what it evaluates.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save, save_file

from forethought.commands import pipeline, reports
from forethought.commands.listing import list_results
from forethought.commands.showing import item, show, shown_text
from forethought.control import sources
from forethought.core.parquet import METADATA_KEY, read_parquet
from forethought.core.settings import PlanSettings, ProfileSettings, RunSettings, TrainSettings
from forethought.core.study_settings import CompareSettings, EvaluateSettings, LayersSettings
from forethought.errors import ForethoughtError, ModelFileError, RunError
from forethought.runs.store import RunDirectory

NUM_QUERIES, NUM_PLANNED = 45, 4
ALL = bool(os.environ.get("FORETHOUGHT_TEST_ALL"))
pytestmark = [pytest.mark.slow, *([pytest.mark.timeout(7200)] if ALL else [])]
FEW: dict[str, Any] = {"num_resamples": 100, "plots": False}
DEEP = "[" * 10_000 + "]" * 10_000
HUGE = 10**400
VALUES: dict[str, Any] = {
    "nothing": None,
    "text": "x",
    "escape": "\x1b]52;c;ZWNobw==\x07\u202e",
    "below 0": -1,
    "huge": HUGE,
    "a little": 0.5,
    "true": True,
    "list": [],
    "object": {},
    "list of null": [None],
}
RAW = {"NaN": "NaN", "infinity": "-Infinity", "beyond floats": "1e999", "deep": DEEP, "half a pair": '"\\ud800"'}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A profile with states and two predictors, a run that was compared, and the questions."""
    folder = tmp_path_factory.mktemp("made")
    rows = [{"id": f"q{i}", "question": f"What is {i} plus {i * 7 % 11}?", "answer": "1"} for i in range(NUM_QUERIES)]
    (folder / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    pipeline.profile(_settings(folder))
    pipeline.train(TrainSettings(run=str(folder / "profile"), predictor="ridge", out=str(folder / "ridge")))
    pipeline.train(TrainSettings(run=str(folder / "profile"), predictor="text", out=str(folder / "text")))
    plan = PlanSettings(
        run=str(folder / "ridge"), questions=str(folder / "q.jsonl"), mean_tokens=128, limit=NUM_PLANNED
    )
    pipeline.run(RunSettings(plan=plan, out=str(folder / "run"), compare=("uniform",)))
    return folder


def _settings(folder: Path) -> ProfileSettings:
    return ProfileSettings(
        model="fake",
        questions=str(folder / "q.jsonl"),
        out=str(folder / "profile"),
        layers="1,2",
        window=64,
        max_tokens=256,
        num_traces=2,
    )


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may damage."""
    return shutil.copytree(made, tmp_path / "made")


def commands(folder: Path) -> dict[str, Callable[[], object]]:
    """Whatever opens a profile, a run or a predictor, at its cheapest."""
    profile, questions = str(folder / "profile"), str(folder / "q.jsonl")
    plan = PlanSettings(run=str(folder / "ridge"), questions=questions, mean_tokens=128, limit=NUM_PLANNED)
    return {
        "ls": lambda: list_results(str(folder)),
        "show": lambda: item(profile, "q0"),
        "show run": lambda: item(str(folder / "run"), "q0"),
        "show all": lambda: shown_text(show(str(folder / "run"))),
        "plan": lambda: pipeline.plan(plan),
        "plan a profile": lambda: pipeline.plan(
            PlanSettings(run=str(folder / "ridge"), questions=profile, mean_tokens=128)
        ),
        "train": lambda: pipeline.train(TrainSettings(run=profile, predictor="mean", out=str(folder / "new"))),
        "evaluate": lambda: reports.evaluate(EvaluateSettings(run=str(folder / "ridge"), on=profile, **FEW)),
        "evaluate run": lambda: reports.evaluate(EvaluateSettings(run=str(folder / "run"), **FEW)),
        "compare": lambda: reports.compare(
            CompareSettings(predictors=(str(folder / "ridge"), str(folder / "text")), on=profile, **FEW)
        ),
        "layers": lambda: reports.study_layers(LayersSettings(run=profile, **FEW)),
        "profile": lambda: pipeline.profile(_settings(folder)),
        "run": lambda: pipeline.run(RunSettings(plan=plan, out=str(folder / "run"), compare=("uniform",))),
    }


def refused_by(folder: Path, *names: str) -> dict[str, str]:
    """Command -> the message it refused with; whatever else it raises fails the test."""
    refused = {}
    for name in names:
        try:
            commands(folder)[name]()
        except ForethoughtError as error:
            refused[name] = str(error)
    assert all(len(message) < 2500 for message in refused.values()), "a message is no dump of the file"
    return refused


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place within `value`; of a list, the first and the last."""
    if path:
        yield path
    if isinstance(value, dict):
        for key in list(value)[:40]:
            yield from places(value[key], (*path, key))
    elif isinstance(value, list):
        for index in sorted({0, len(value) - 1}) if value else ():
            yield from places(value[index], (*path, index))


def mutants(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[str, str]]:
    """`(what was done, JSON text)` for a value with one place changed."""
    for name, raw in {**{name: json.dumps(each) for name, each in VALUES.items()}, **RAW}.items():
        changed = copy.deepcopy(value)
        target = changed
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = "@@@"
        yield name, json.dumps(changed).replace('"@@@"', raw)
    changed = copy.deepcopy(value)
    target = changed
    for key in path[:-1]:
        target = target[key]
    del target[path[-1]]
    yield "deleted", json.dumps(changed)


def mutants_of(value: Any) -> Iterator[str]:
    """JSON texts of a value, each with one place changed: every place in its share of the ways."""
    step = 1 if ALL else 8
    for number, place in enumerate(places(value)):
        for _, text in islice(mutants(value, place), number % step, None, step):
            yield text


def first_line(path: Path) -> Any:
    return json.loads(path.read_text("utf-8").splitlines()[0])


def write_first_line(path: Path, text: str) -> None:
    lines = path.read_text("utf-8").splitlines()
    path.write_text("\n".join([text, *lines[1:]]) + "\n", "utf-8")


def rewrite_weights(folder: Path, arrays: dict[str, Any]) -> None:
    """Writes a predictor's arrays with the right hash, as a stranger would who means harm."""
    weights = save(arrays)
    (folder / "weights.safetensors").write_bytes(weights)
    content = json.loads((folder / "predictor.json").read_text())
    content["weights"] = {"bytes": len(weights), "sha256": hashlib.sha256(weights).hexdigest()}
    (folder / "predictor.json").write_text(json.dumps(content))


FILES = {
    "header of a profile": ("profile/run.json", ("ls", "show", "plan a profile", "train")),
    "header of a run": ("run/run.json", ("ls", "show run", "evaluate run")),
    "plan of a run": ("run/plan.json", ("ls", "show run", "evaluate run")),
    "summary of a run": ("run/summary.json", ("ls", "show all")),
    "predictor": ("ridge/predictor.json", ("ls", "plan", "evaluate")),
    "predictor of texts": ("text/predictor.json", ("ls",)),
    "record of a profile": ("profile/records.jsonl", ("ls", "show", "train", "evaluate")),
    "record of a run": ("run/records.jsonl", ("ls", "show run", "evaluate run")),
    "question of a run": ("run/queries.jsonl", ("ls", "show run", "evaluate run")),
}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "opened_by"), FILES.values(), ids=FILES.keys())
def test_every_field_changed_in_every_way_is_refused_or_harmless(
    folder: Path, name: str, opened_by: tuple[str, ...]
) -> None:
    path, is_lines = folder / name, name.endswith("l")
    whole = path.read_bytes()
    value = first_line(path) if is_lines else json.loads(whole)
    for text in mutants_of(value):
        path.write_bytes(whole)
        if is_lines:
            write_first_line(path, text)
        else:
            path.write_text(text, "utf-8")
        refused_by(folder, *opened_by)


ONE_OF_EACH = {
    "a count as text": ("profile/records.jsonl", ("reasoning_tokens",), '"7"', r"records\.jsonl line 1 .*whole number"),
    "a count of 400 digits": ("profile/records.jsonl", ("answer_tokens",), str(HUGE), r"records\.jsonl line 1 "),
    "no query": ("profile/records.jsonl", ("query_id",), "null", r"records\.jsonl line 1 .*'query_id'"),
    "a probe that is a number": ("profile/records.jsonl", ("probes",), "[3]", r"records\.jsonl line 1 .*probe"),
    "nested too deeply": ("profile/records.jsonl", ("grade",), DEEP, r"records\.jsonl line 1 .*deeply"),
    "no reason": ("profile/records.jsonl", ("stop_reason",), '"bored"', r"records\.jsonl line 1 .*natural, budget"),
    "no budgets": ("profile/run.json", ("provenance", "menu"), "[0]", r"run\.json .*budget"),
    "endless budgets": (
        "profile/run.json",
        ("provenance", "menu"),
        str(list(range(1, 70_000))),
        r"run\.json .*at most 65,536",
    ),
    "sampling": ("profile/run.json", ("provenance", "sampling"), '{"warmth": 1}', r"run\.json .*warmth"),
    "a provenance that is text": ("profile/run.json", ("provenance",), '"x"', r"run\.json .*provenance"),
    "NaN in the card": ("ridge/predictor.json", ("card", "mean_p_B"), "[NaN]", r"predictor\.json .*NaN"),
    "a short curve": ("ridge/predictor.json", ("card", "mean_p_B"), "[0.5]", r"mean_p_B has 1 numbers for 4"),
    "a budget that is none": ("run/plan.json", ("main",), '"exact"', r"plan\.json .*exact"),
}


@pytest.mark.parametrize(("name", "place", "raw", "message"), ONE_OF_EACH.values(), ids=ONE_OF_EACH.keys())
def test_one_damage_of_each_kind_is_refused_with_the_file_and_hidden_from_nothing_else(
    folder: Path, name: str, place: tuple[str, ...], raw: str, message: str
) -> None:
    path = folder / name
    value = first_line(path) if name.endswith("l") else json.loads(path.read_text())
    target = value
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = "@@@"
    text = json.dumps(value).replace('"@@@"', raw)
    if name.endswith("l"):
        write_first_line(path, text)
    else:
        path.write_text(text, "utf-8")
    rows = {Path(row["run"]).name: row for row in list_results(str(folder))}
    assert set(rows) == {"profile", "ridge", "run", "text"}
    broken = path.parent.name
    assert [row for row in rows if "error" in rows[row]] == [broken]
    opened = {"profile": "train", "run": "evaluate run", "ridge": "plan"}[broken]
    with pytest.raises(ForethoughtError, match=message):
        commands(folder)[opened]()


TWICE = {
    "run/run.json": ("show run", "evaluate run"),
    "run/plan.json": ("show run", "evaluate run"),
    "run/records.jsonl": ("show run", "evaluate run"),
    "ridge/predictor.json": ("plan", "evaluate"),
}


@pytest.mark.parametrize("name", TWICE)
def test_a_key_that_stands_twice_is_refused_since_nobody_knows_which_is_meant(folder: Path, name: str) -> None:
    path = folder / name
    path.write_text(path.read_text("utf-8").replace("{", '{"schema": 2, "schema": 1, ', 1), "utf-8")
    refused = refused_by(folder, *TWICE[name])
    assert set(refused) == set(TWICE[name])
    assert all(path.name in message and "'schema' occurs twice" in message for message in refused.values())


def test_after_the_named_line_is_deleted_the_same_command_makes_it_again(folder: Path) -> None:
    path = folder / "profile/records.jsonl"
    before = sorted(path.read_text().splitlines())
    write_first_line(path, "{}")
    assert "line 1" in refused_by(folder, "profile")["profile"]
    path.write_text("".join(f"{line}\n" for line in path.read_text().splitlines()[1:]))
    assert not refused_by(folder, "profile")
    assert sorted(path.read_text().splitlines()) == before


def other_chunk(folder: Path, arrays: dict[str, Any], metadata: dict[str, str] | None) -> None:
    save_file(arrays, folder / "profile/hidden/00000.safetensors", metadata=metadata)


CHUNKS: dict[str, Callable[[dict[str, Any], dict[str, str]], tuple[dict[str, Any], dict[str, str] | None]]] = {
    "no metadata": lambda arrays, said: (arrays, None),
    "layers as text": lambda arrays, said: (arrays, {**said, "layers": "x"}),
    "layers nested": lambda arrays, said: (arrays, {**said, "layers": DEEP}),
    "a layer twice": lambda arrays, said: (arrays, {**said, "layers": "[1, 1]"}),
    "too few queries": lambda arrays, said: (arrays, {**said, "query_ids": '["q0"]'}),
    "queries that are numbers": lambda arrays, said: (arrays, {**said, "query_ids": "[1, 2]"}),
    "another shape": lambda arrays, said: ({name: each[:, 0] for name, each in arrays.items()}, said),
    "whole numbers": lambda arrays, said: ({name: each.astype(np.int32) for name, each in arrays.items()}, said),
}


@pytest.mark.parametrize("change", CHUNKS.values(), ids=CHUNKS.keys())
def test_a_damaged_chunk_of_hidden_states_is_named_and_can_be_read_again(folder: Path, change: Any) -> None:
    from safetensors import safe_open

    path = folder / "profile/hidden/00000.safetensors"
    with safe_open(path, framework="numpy") as chunk:
        metadata = chunk.metadata()
    other_chunk(folder, *change(load_file(path), metadata))
    _check_chunk(folder, path)


@pytest.mark.parametrize("part", [0.0, 0.001, 0.5, 0.999])
def test_a_chunk_that_was_cut_short_is_named_and_can_be_read_again(folder: Path, part: float) -> None:
    path = folder / "profile/hidden/00000.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    _check_chunk(folder, path)


def _check_chunk(folder: Path, path: Path) -> None:
    refused = refused_by(folder, "train", "profile", "layers", "plan a profile")
    assert set(refused) == {"train", "profile", "layers", "plan a profile"}
    assert all(str(path) in message and "Delete it" in message for message in refused.values())
    path.unlink()
    assert not refused_by(folder, "profile", "train", "layers", "plan a profile")


ARRAYS: dict[str, Callable[[Any], Any]] = {
    "cut": lambda array: array[:-1] if len(array) > 1 else np.zeros(0, array.dtype),
    "another shape": lambda array: array[None],
    "empty": lambda array: np.zeros(0, array.dtype),
    "whole numbers": lambda array: np.ones(array.shape, np.int64),
    "NaN": lambda array: np.full_like(array, np.nan) if array.dtype.kind == "f" else array,
    "infinite": lambda array: np.full_like(array, np.inf) if array.dtype.kind == "f" else array,
    "huge": lambda array: np.full_like(array, 6e4) if array.dtype.kind == "f" else array,
    "negative": lambda array: -np.abs(array) - 1 if array.dtype.kind == "f" else array,
    "backwards": lambda array: np.ascontiguousarray(array[::-1]),
}


@pytest.mark.slow
@pytest.mark.parametrize("change", ARRAYS.values(), ids=ARRAYS.keys())
@pytest.mark.parametrize("predictor", ["ridge", "text"])
def test_every_array_of_a_predictor_changed_is_refused_or_harmless(folder: Path, predictor: str, change: Any) -> None:
    path = folder / predictor
    whole = load_file(path / "weights.safetensors")
    for name in whole:
        rewrite_weights(path, {**whole, name: change(whole[name])})
        plan = PlanSettings(run=str(path), questions=str(folder / "q.jsonl"), mean_tokens=128)
        with suppress(ForethoughtError):
            pipeline.plan(plan)
        if name == "success_fall":  # not every predictor has it
            continue
        rewrite_weights(path, {each: array for each, array in whole.items() if each != name})
        with pytest.raises(ModelFileError, match=predictor):
            sources.open_predictor(str(path))


IMPOSSIBLE: dict[str, tuple[str, Callable[[dict[str, Any], dict[str, Any]], None]]] = {
    "chances below 0": ("mean", lambda settings, arrays: arrays.update(p=-1 - arrays["p"])),
    "chances above 1": ("mean", lambda settings, arrays: arrays.update(p=2 + arrays["p"])),
    "tokens below 0": ("mean", lambda settings, arrays: arrays.update(tokens=-1 - arrays["tokens"])),
    "a strength below 0": ("history", lambda settings, arrays: settings.update(strength=-1)),
    "a strength of words": ("history", lambda settings, arrays: settings.update(token_strength=["much"])),
    "a vote of a column that is not there": ("history", lambda settings, arrays: settings.update(votes=[[9, 0, 2]])),
    "a vote of no sample": ("history", lambda settings, arrays: settings.update(votes=[[1, 0, 0]])),
    "a base beyond 1": ("history", lambda settings, arrays: arrays.update({"base.p": 2 + arrays["base.p"]})),
}


@pytest.mark.parametrize(("predictor", "change"), IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())
def test_a_predictor_that_says_what_cannot_be_is_refused_when_it_is_loaded(
    folder: Path, predictor: str, change: Callable[[dict[str, Any], dict[str, Any]], None]
) -> None:
    path = folder / predictor
    pipeline.train(TrainSettings(run=str(folder / "profile"), predictor=predictor, out=str(path)))
    arrays, content = load_file(path / "weights.safetensors"), json.loads((path / "predictor.json").read_text())
    change(content["settings"], arrays)
    (path / "predictor.json").write_text(json.dumps(content))
    rewrite_weights(path, arrays)
    with pytest.raises(ModelFileError, match="Train it again"):
        sources.open_predictor(str(path))


@pytest.mark.parametrize("change", ["backwards", "NaN", "cut", "whole numbers", "negative"])
@pytest.mark.parametrize("predictor", ["ridge", "text"])
def test_novelty_that_would_judge_wrongly_in_silence_is_refused(folder: Path, predictor: str, change: str) -> None:
    path = folder / predictor
    whole = load_file(path / "weights.safetensors")
    rewrite_weights(path, {**whole, "novelty_left_out": ARRAYS[change](whole["novelty_left_out"])})
    with pytest.raises(ModelFileError, match="novelty_left_out"):
        sources.open_predictor(str(path))


def changed_parquet(folder: Path, change: Callable[[Any, dict[str, Any]], tuple[Any, str]]) -> Path:
    """The profile's Parquet file with its table or metadata changed."""
    import pyarrow.parquet as pq

    path = folder / "profile/profile.parquet"
    table = pq.read_table(path)
    metadata = json.loads(table.schema.metadata[METADATA_KEY])
    table, text = change(table, metadata)
    target = folder / "changed.parquet"
    pq.write_table(table.replace_schema_metadata({METADATA_KEY: text}), target)
    return target


def with_column(table: Any, name: str, values: Any) -> Any:
    return table.set_column(table.column_names.index(name), name, values)


def columns(pa: Any) -> dict[str, Any]:
    """A column of each kind that no profile has."""
    count = NUM_QUERIES
    numbers = pa.array(np.zeros(4 * count, dtype=np.int32))
    return {
        "null": pa.nulls(count),
        "text": pa.array(["x"] * count),
        "numbers": pa.array([1] * count),
        "below 0": pa.array([-1] * count),
        "floats": pa.array([np.nan] * count),
        "bytes": pa.array([b"\xff"] * count),
        "text with nulls": pa.array([None] * count, pa.string()),
        "objects": pa.array([{"a": 1}] * count),
        "ragged": pa.array([[1] * (1 + row % 3) for row in range(count)]),
        "lists": pa.array([[1, 2, 3, 4]] * count),
        "zeros": pa.FixedSizeListArray.from_arrays(numbers, 4),
        "NaN": pa.FixedSizeListArray.from_arrays(pa.array(np.full(4 * count, np.nan, np.float32)), 4),
        "below 0s": pa.FixedSizeListArray.from_arrays(pa.array(np.full(4 * count, -1, np.int32)), 4),
        "nulls in lists": pa.FixedSizeListArray.from_arrays(pa.array([None] * 4 * count, pa.float32()), 4),
        "dictionary": pa.array(["x"] * count).dictionary_encode(),
        "dates": pa.array([0] * count, pa.timestamp("s")),
    }


COLUMNS = (
    *("query_id", "num_tried", "num_right", "tokens", "reasoning_tokens", "question", "hidden_1"),
    *("sample", "length", "trace_tokens", "grade", "answer", "answers"),
)


@pytest.mark.parametrize("name", COLUMNS)
def test_every_column_of_a_profile_file_changed_is_refused_or_harmless(folder: Path, name: str) -> None:
    import pyarrow as pa

    for values in columns(pa).values():
        path = changed_parquet(
            folder, lambda table, said, values=values: (with_column(table, name, values), json.dumps(said))
        )
        _try_file(folder, path)
    _try_file(folder, changed_parquet(folder, lambda table, said: (table.drop_columns([name]), json.dumps(said))))
    _try_file(
        folder, changed_parquet(folder, lambda table, said: (table.append_column(name, table[name]), json.dumps(said)))
    )


@pytest.mark.slow
def test_every_field_of_a_profile_files_metadata_changed_is_refused_or_harmless(folder: Path) -> None:
    said = json.loads(_metadata(folder / "profile/profile.parquet"))
    for text in mutants_of(said):
        _try_file(folder, changed_parquet(folder, lambda table, said, text=text: (table, text)), most=1)


def _metadata(path: Path) -> bytes:
    import pyarrow.parquet as pq

    found: bytes = pq.read_schema(path).metadata[METADATA_KEY]
    return found


def _try_file(folder: Path, path: Path, *, most: int = 3) -> None:
    """Opens the file as commands do; a refusal names it, and what was read can be used."""
    refusal = ""
    try:
        read_parquet(path)
    except RunError as error:
        refusal = str(error)
    if refusal:
        assert str(path) in refusal
        assert len(refusal) < 1000
    opened: list[Callable[[], object]] = [
        lambda: pipeline.train(TrainSettings(run=str(path), predictor="mean", out=str(folder / "new"))),
        lambda: pipeline.plan(PlanSettings(run=str(folder / "ridge"), questions=str(path), mean_tokens=128)),
        lambda: reports.evaluate(EvaluateSettings(run=str(folder / "text"), on=str(path), **(FEW | {"plots": ALL}))),
    ]
    for command in opened[:most]:
        with suppress(ForethoughtError):
            command()


def test_a_run_that_is_read_only_in_part_is_still_listed(folder: Path) -> None:
    (folder / "text" / "predictor.json").unlink()
    (folder / "text" / "predictor.json").mkdir()
    (folder / "odd").symlink_to(folder / "nowhere")
    rows = {Path(row["run"]).name: row for row in list_results(str(folder))}
    assert set(rows) == {"profile", "ridge", "run", "text"}
    assert "cannot be read" in rows["text"]["error"]


def test_hidden_files_of_any_name_do_not_stop_the_next_chunk(folder: Path) -> None:
    run = RunDirectory.open(folder / "profile")
    shutil.copy(run.path / "hidden/00000.safetensors", run.path / "hidden/copy of 0.safetensors")
    run.save_hidden(["new"], [1, 2], next(iter(run.load_hidden()[1].values()))[None])
    assert "new" in run.load_hidden()[1]


def test_a_footer_that_would_end_the_process_is_refused() -> None:
    """Statistics of another size than their column: asking pyarrow for that column's metadata ends the process."""
    path = Path(__file__).parent / "damaged" / "size-statistics.parquet"
    code = "import sys, pathlib, forethought.core.parquet as p; p.read_parquet(pathlib.Path(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr  # read, or refused in words: not ended by a signal
    assert done.returncode == 0 or "RunError" in done.stderr
