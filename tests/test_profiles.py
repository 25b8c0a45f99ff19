"""Profiles: counted from records, joined, kept as Parquet."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from forethought.commands.pipeline import profile
from forethought.control.sources import open_profile, run_queries
from forethought.core.data import Profile
from forethought.core.menu import Menu
from forethought.core.settings import ProfileSettings
from forethought.errors import ForethoughtError, InvalidInputError, MismatchError, RunError
from forethought.runs.profiles import (
    common_menu,
    curves_on_menu,
    from_run,
    joined,
    on_menu,
    read_parquet,
    with_layers,
    write_parquet,
)
from forethought.runs.store import RunDirectory


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    folder = tmp_path_factory.mktemp("profiles")
    rows = [{"id": f"q{i}", "question": f"What is {i} + {i}?", "answer": str(2 * i)} for i in range(12)]
    (folder / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    settings = ProfileSettings(model="fake", questions=str(folder / "q.jsonl"), out=str(folder / "run"), num_traces=3)
    return profile(settings)


@pytest.fixture
def measured(run: RunDirectory) -> Profile:
    return from_run(run, run_queries(run))


def same(first: Profile, second: Profile) -> bool:
    for field in dataclasses.fields(Profile):
        a, b = getattr(first, field.name), getattr(second, field.name)
        if isinstance(a, np.ndarray):
            np.testing.assert_allclose(a, b, rtol=1e-6)
        elif a != b:
            return False
    return True


def test_counts_follow_from_the_records(run: RunDirectory, measured: Profile) -> None:
    records = [record for record in run.records() if record["query_id"] == "q4"]
    row = measured.query_ids.index("q4")
    assert measured.num_tried_Q[row] == len(records) == 3
    for column, budget in enumerate(measured.menu.budgets_B):
        grades = [
            next((probe["grade"] for probe in record["probes"] if probe["budget"] == budget), record["grade"])
            for record in records
        ]
        assert measured.num_right_Q_B[row, column] == grades.count("right")
        reasoning = [min(record["reasoning_tokens"], int(budget)) for record in records]
        assert measured.reasoning_Q_B[row, column] == pytest.approx(np.mean(reasoning))
        assert measured.tokens_Q_B[row, column] > measured.reasoning_Q_B[row, column]


def test_a_parquet_file_gives_the_same_profile(run: RunDirectory, measured: Profile, tmp_path: Path) -> None:
    write_parquet(tmp_path / "p.parquet", measured)
    assert same(read_parquet(tmp_path / "p.parquet"), measured)
    assert same(open_profile(str(run.path / "profile.parquet")), measured)


def test_parts_join_to_the_whole(measured: Profile) -> None:
    parts = [measured.select(np.arange(0, 5)), measured.select(np.arange(5, 12))]
    assert same(joined(parts), measured)


def test_joining_keeps_the_layers_that_all_have(measured: Profile) -> None:
    parts = [measured.select(np.arange(0, 5)), with_layers(measured.select(np.arange(5, 12)), [2])]
    assert joined(parts).layers == (2,)
    assert same(joined(parts), with_layers(measured, [2]))


def test_joining_what_was_measured_otherwise_is_refused(measured: Profile) -> None:
    first, second = measured.select(np.arange(0, 5)), measured.select(np.arange(5, 12))
    other = dataclasses.replace(second, info={**second.info, "template_hash": "another"})
    with pytest.raises(MismatchError, match="another"):
        joined([first, other])
    with pytest.raises(MismatchError, match="grid"):
        joined([first, dataclasses.replace(second, menu=Menu.evenly(8, 128))])
    with pytest.raises(InvalidInputError, match="q4"):
        joined([first, measured])


GRIDS = {
    "the same": ((16, 256), (16, 256), (16, 256)),
    "a multiple of the window": ((16, 256), (32, 512), (32, 256)),
    "neither divides the other": ((16, 256), (24, 240), (48, 240)),
    "the smaller maximum lies between two": ((16, 80), (32, 512), (32, 64)),
    "one budget": ((16, 48), (48, 96), (48, 48)),
}


@pytest.mark.parametrize(("first", "second", "both"), GRIDS.values(), ids=GRIDS.keys())
def test_the_common_grid_has_every_budget_of_both(
    first: tuple[int, int], second: tuple[int, int], both: tuple[int, int]
) -> None:
    menu = common_menu(Menu.evenly(*first), Menu.evenly(*second))
    assert menu == common_menu(Menu.evenly(*second), Menu.evenly(*first)) == Menu.evenly(*both)
    budgets = (set(Menu.evenly(*each).budgets_B.tolist()) for each in (first, second))
    assert set(menu.budgets_B.tolist()) == set.intersection(*budgets)


def test_grids_without_a_budget_in_common_are_refused_and_named() -> None:
    with pytest.raises(MismatchError, match=r"16, 32, … 64 and 100, 200 have none in common"):
        common_menu(Menu.evenly(16, 64), Menu.evenly(100, 200))


def test_a_finer_profile_holds_what_a_coarser_one_would_have_measured(run: RunDirectory, measured: Profile) -> None:
    """The trace under a small cap is the prefix of the trace under a large one: the same counts, measured anew."""
    questions = str(run.path.parent / "q.jsonl")
    out = str(run.path.parent / "coarse")
    settings = ProfileSettings(model="fake", questions=questions, out=out, num_traces=3, window=32, max_tokens=128)
    coarse, picked = open_profile(str(profile(settings).path)), on_menu(measured, Menu.evenly(32, 128))
    assert picked.menu == coarse.menu
    np.testing.assert_array_equal(picked.num_right_Q_B, coarse.num_right_Q_B)
    np.testing.assert_array_equal(picked.tokens_Q_B, coarse.tokens_Q_B)
    np.testing.assert_array_equal(picked.reasoning_Q_B, coarse.reasoning_Q_B)
    curves = curves_on_menu(measured.curves, Menu.evenly(32, 128))
    np.testing.assert_array_equal(curves.p_Q_B, coarse.curves.p_Q_B)
    assert curves.tokens_Q_B is not None


def test_a_budget_that_was_not_measured_is_refused(measured: Profile) -> None:
    with pytest.raises(MismatchError, match="512"):
        on_menu(measured, Menu.evenly(16, 512))
    with pytest.raises(MismatchError, match="8, 16, … 256 has budgets"):
        curves_on_menu(measured.curves, Menu.evenly(8, 256))


BROKEN = {
    "missing": (None, "does not exist"),
    "text": (b"not parquet", "not a readable Parquet file"),
    "cut short": (b"PAR1", "not a readable Parquet file"),
}


@pytest.mark.parametrize(("content", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_broken_files_are_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "p.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RunError, match=message):
        read_parquet(path)


def test_a_strangers_parquet_file_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"question": ["1 + 1?"]}), tmp_path / "p.parquet")
    with pytest.raises(RunError, match="not a profile"):
        read_parquet(tmp_path / "p.parquet")


def test_a_run_without_records_says_so(run: RunDirectory, tmp_path: Path) -> None:
    empty = RunDirectory.create(tmp_path / "e", kind="profile", identity=run.header["identity"], settings={})
    with pytest.raises(ForethoughtError, match="no finished trace"):
        from_run(empty, run_queries(run))
