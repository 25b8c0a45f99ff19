"""Profiles: counted from records, joined, kept as Parquet."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from forethought.commands.listing import list_results
from forethought.commands.pipeline import profile
from forethought.commands.showing import show
from forethought.control.sources import open_profile, run_queries
from forethought.core.menu import Menu
from forethought.core.parquet import METADATA_KEY
from forethought.core.profile import RIGHT, Profile, Traces
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
        elif isinstance(a, Traces):
            assert b is not None
            for part in dataclasses.fields(Traces):
                np.testing.assert_equal(getattr(a, part.name), getattr(b, part.name))
        elif a != b:
            return False
    return True


def test_counts_follow_from_the_records(run: RunDirectory, measured: Profile) -> None:
    records = [record for record in run.records() if record.query_id == "q4"]
    row = measured.query_ids.index("q4")
    assert measured.num_tried_Q[row] == len(records) == 3
    for column, budget in enumerate(measured.menu.budgets_B):
        grades = [
            next((probe.grade for probe in record.probes if probe.budget == budget), record.grade) for record in records
        ]
        assert measured.num_right_Q_B[row, column] == grades.count("right")
        reasoning = [min(record.reasoning_tokens, int(budget)) for record in records]
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
    other = dataclasses.replace(second, provenance=dataclasses.replace(second.provenance, template_hash="another"))
    with pytest.raises(MismatchError, match="another"):
        joined([first, other])
    with pytest.raises(MismatchError, match="menu"):
        joined([first, dataclasses.replace(second, menu=Menu.evenly(8, 128))])
    regraded = dataclasses.replace(second.provenance, grader_version="next")
    with pytest.raises(MismatchError, match=r"grader_version.*forethought regrade RUN"):
        joined([first, dataclasses.replace(second, provenance=regraded)])
    with pytest.raises(InvalidInputError, match="q4"):
        joined([first, measured])


def unequal(measured: Profile, keep: int) -> Profile:
    """The profile with the first trace of one query left out."""
    assert measured.traces is not None
    index_N = np.delete(np.arange(int(measured.num_tried_Q.sum())), measured.traces_of_Q[keep].start)
    num_tried_Q = measured.num_tried_Q.copy()
    num_tried_Q[keep] -= 1
    traces = measured.traces.select(range(measured.num_queries), index_N)
    starts_Q = np.cumsum(num_tried_Q) - num_tried_Q
    num_right_Q_B = np.add.reduceat(traces.grade_N_B == RIGHT, starts_Q, dtype=int)
    return dataclasses.replace(measured, num_tried_Q=num_tried_Q, num_right_Q_B=num_right_Q_B, traces=traces)


def answers_at(profile: Profile, query_id: str, budget: int) -> list[str]:
    """What votes are made of: the answers of a query's traces at one cap."""
    assert profile.traces is not None
    row = profile.query_ids.index(query_id)
    code_T = profile.traces.answer_N_B[profile.traces_of_Q[row], profile.menu.index(budget)]
    return [profile.traces.answers_Q[row][code] for code in code_T]


@pytest.mark.parametrize("budget", [16, 128, 256])
def test_answers_grades_and_tokens_of_every_trace_are_kept(run: RunDirectory, measured: Profile, budget: int) -> None:
    records = sorted(run.records(), key=lambda record: record.sample)
    assert measured.traces is not None
    column = measured.menu.index(budget)
    for row, query_id in enumerate(measured.query_ids):
        outcomes = [record.at(budget) for record in records if record.query_id == query_id]
        own = measured.traces_of_Q[row]
        assert answers_at(measured, query_id, budget) == [outcome.answer for outcome in outcomes if outcome]
        assert measured.traces.tokens_N_B[own, column].tolist() == [each.tokens for each in outcomes if each]
        assert (measured.traces.grade_N_B[own, column] == RIGHT).sum() == measured.num_right_Q_B[row, column]
        assert measured.traces.sample_N[own].tolist() == [0, 1, 2]


def test_traces_may_be_unequal_in_number_and_go_with_their_queries(measured: Profile, tmp_path: Path) -> None:
    odd = unequal(measured, 4)
    assert odd.num_tried_Q.tolist() == [3, 3, 3, 3, 2, *[3] * 7]
    again = Profile.load(odd.save(tmp_path / "odd.parquet"))
    assert same(again, odd)
    turned = odd.select(np.array([7, 4, 0]))
    parts = joined([turned, measured.select(np.array([1]))])
    narrow = on_menu(parts, Menu((32, 256)))
    for query_id in parts.query_ids:
        expected = answers_at(odd if query_id != "q1" else measured, query_id, 256)
        assert answers_at(parts, query_id, 256) == answers_at(narrow, query_id, 256) == expected
    assert narrow.num_tried_Q.tolist() == [3, 2, 3, 3]


def test_large_profiles_are_written_in_parts(
    measured: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forethought.core.parquet.ROWS_A_GROUP", 5)
    path = unequal(measured, 9).save(tmp_path / "p.parquet")
    assert pq.ParquetFile(path).num_row_groups == 3
    assert same(Profile.load(path), unequal(measured, 9))


def test_a_profile_of_schema_1_has_counts_and_no_traces(measured: Profile, tmp_path: Path) -> None:
    path = dataclasses.replace(measured, traces=None).save(tmp_path / "p.parquet")
    table = pq.read_table(path)
    said = json.loads(table.schema.metadata[METADATA_KEY])
    info = {**said["provenance"], "window": 16, "maximum": 256}
    old = {"schema": 1, "window": 16, "maximum": 256, "layers": said["layers"], "info": info}
    del info["menu"]
    pq.write_table(table.replace_schema_metadata({METADATA_KEY: json.dumps(old)}), path)
    assert same(Profile.load(path), dataclasses.replace(measured, traces=None))


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


def test_a_damaged_parquet_file_is_shown_and_listed_with_the_reason(measured: Profile, tmp_path: Path) -> None:
    measured.save(tmp_path / "whole.parquet")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "whole.parquet").read_bytes()[:-20])
    pq.write_table(pa.table({"question": ["1 + 1?"]}), tmp_path / "questions.parquet")
    for query_id in ("", "q1"):
        with pytest.raises(RunError, match=r"cut\.parquet is not a readable Parquet file"):
            show(str(tmp_path / "cut.parquet"), query_id)
    whole, cut = list_results(str(tmp_path))
    assert whole["run"] == str(tmp_path / "whole.parquet")
    assert "is not a readable Parquet file" in cut["error"]


def test_show_says_what_a_folder_is_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"gone does not exist\. `forethought ls`"):
        show(str(tmp_path / "gone"))
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "evaluation.json").write_text("{}")
    with pytest.raises(RunError, match=r"holds a report, not a run: read .*evaluation\.json"):
        show(str(tmp_path / "report"))
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / "journal.json").write_text("{}")
    with pytest.raises(RunError, match="is not the header of a journal"):
        show(str(tmp_path / "journal"))


def test_a_run_without_its_questions_says_so(run: RunDirectory, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "copy")
    (tmp_path / "copy" / "queries.jsonl").unlink()
    with pytest.raises(RunError, match=r"queries\.jsonl does not exist: copy the whole run again$"):
        open_profile(str(tmp_path / "copy"))


def test_a_strangers_parquet_file_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"question": ["1 + 1?"]}), tmp_path / "p.parquet")
    with pytest.raises(RunError, match="not a profile"):
        read_parquet(tmp_path / "p.parquet")


def test_a_run_without_records_says_so(run: RunDirectory, tmp_path: Path) -> None:
    empty = RunDirectory.create(tmp_path / "e", kind="profile", provenance=run.header.provenance, settings={})
    with pytest.raises(ForethoughtError, match="no finished trace"):
        from_run(empty, run_queries(run))
