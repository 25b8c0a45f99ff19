"""Outside measurements -> profiles: what is taken, what is left out, what is refused and in which words."""

import csv
import io
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from forethought.commands import _exit_code
from forethought.commands.pipeline import import_profile, plan, train
from forethought.commands.reports import evaluate
from forethought.control.sources import open_profile
from forethought.core.data import Cost, Sampling
from forethought.core.import_settings import ImportSettings
from forethought.core.menu import Menu
from forethought.core.parquet import read_parquet, write_parquet
from forethought.core.profile import Profile
from forethought.core.settings import PlanSettings, TrainSettings
from forethought.core.study_settings import EvaluateSettings
from forethought.errors import InvalidInputError, InvalidSettingsError, MismatchError, RunError
from forethought.runs.importing import Imported
from forethought.runs.profiles import joined

Rows = list[dict[str, Any]]
FORMATS = ("csv", "tsv", "jsonl", "json", "parquet")


def write(path: Path, rows: Rows) -> Path:
    """The rows in the format that the path's ending names; lists are JSON in a text cell."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    if path.suffix == ".parquet":
        pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in names}), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), "utf-8")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    else:
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, names, delimiter="\t" if path.suffix == ".tsv" else ",", lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({key: json.dumps(cell) if isinstance(cell, list) else cell for key, cell in row.items()})
        path.write_text(buffer.getvalue(), "utf-8")
    return path


def taken(path: Path, **options: Any) -> Imported:
    return import_profile(ImportSettings(files=(str(path),), out=str(path.parent / "out.parquet"), **options))


def traces(num_queries: int = 3, num_samples: int = 2, budgets: tuple[int, ...] = (16, 32, 48)) -> Rows:
    """A long table; a trace is right from a budget of its own on."""
    return [
        {
            "query_id": f"q{q}",
            "sample": s,
            "budget": b,
            "correct": int(b >= 16 * (1 + (q + s) % 4)),
            "tokens": min(b, 20 + 5 * s) + 7,
            "question": f"What is {q}, {q}?",
        }
        for q in range(num_queries)
        for s in range(num_samples)
        for b in budgets
    ]


def counted(num_queries: int = 40, num_budgets: int = 4, width: int = 6, seed: int = 0, start: int = 0) -> Rows:
    """A wide table of the shape in which such data is published: lists of counts and one layer's hidden state."""
    rng = np.random.default_rng(seed)
    rows = []
    for q in range(start, start + num_queries):
        state = rng.normal(size=width)
        p = 1.0 / (1.0 + np.exp(-(np.linspace(-1.0, 1.5, num_budgets) + state[0])))
        num_correct = rng.binomial(20, p).tolist()
        rows.append(
            {
                "question_id": f"train_{q}",
                "question": f"How much is {q}?",
                "num_correct": num_correct,
                "num_trials": 20,
                "hidden_state": state.round(3).tolist(),
            }
        )
    return rows


# --- what is taken -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", FORMATS)
def test_a_long_table_of_traces(tmp_path: Path, ending: str) -> None:
    imported = taken(write(tmp_path / f"t.{ending}", traces()))
    profile = open_profile(str(imported.path))
    assert imported.shape == "long"
    assert profile.query_ids == ("q0", "q1", "q2")
    assert profile.menu == Menu.evenly(16, 48)
    assert profile.num_right_Q_B.tolist() == [[1, 2, 2], [0, 1, 2], [0, 0, 1]]
    assert profile.num_tried_Q.tolist() == [2, 2, 2]
    assert profile.tokens_Q_B[0].tolist() == [23.0, 29.5, 29.5]
    assert profile.texts == ("What is 0, 0?", "What is 1, 1?", "What is 2, 2?")
    assert profile.is_spend_measured
    assert profile.provenance.model is None
    assert profile.provenance.sampling is None
    assert imported.left_out == ()


@pytest.mark.parametrize("ending", FORMATS)
def test_a_wide_table_of_lists(tmp_path: Path, ending: str) -> None:
    rows = counted()
    options: dict[str, Any] = {"window": 16, "layer": 16, "model": "m", "temperature": 0.6, "top_p": 0.95}
    profile = taken(write(tmp_path / f"t.{ending}", rows), **options).profile
    assert profile.num_right_Q_B.tolist() == [row["num_correct"] for row in rows]
    assert profile.hidden_Q_L_D is not None
    np.testing.assert_allclose(profile.hidden_Q_L_D[:, 0], [row["hidden_state"] for row in rows], rtol=1e-6)
    assert profile.layers == (16,)
    assert profile.provenance.sampling == Sampling(0.6, 0.95)
    assert not profile.is_spend_measured
    assert profile.tokens_Q_B[0].tolist() == [16.0, 32.0, 48.0, 64.0]


COUNTS = {"q0": ([0, 1, 2], [10.0, 20.0, 25.0]), "q1": ([3, 3, 4], [11.0, 12.0, 13.0])}


def shaped(shape: str) -> tuple[Rows, dict[str, Any]]:
    """The same counts in each shape and with unusual names."""
    wide: list[tuple[dict[str, Any], list[int], list[float]]] = [
        ({"query_id": q, "tried": 4}, right, tokens) for q, (right, tokens) in COUNTS.items()
    ]
    if shape == "columns":
        return [
            {**row, **{f"correct_{16 * (b + 1)}": right[b] for b in (2, 0, 1)}}
            | {f"tokens_{16 * (b + 1)}": tokens[b] for b in range(3)}
            for row, right, tokens in wide
        ], {}
    if shape == "lists":
        return [{**row, "correct": r, "tokens": t} for row, r, t in wide], {"window": 16}
    if shape == "lists with budgets":
        return [{**row, "budgets": [16, 32, 48], "correct": r, "tokens": t} for row, r, t in wide], {}
    if shape == "counts":
        rows = [
            {**row, "budget": 16 * (b + 1), "correct": r[b], "tokens": t[b]} for row, r, t in wide for b in range(3)
        ]
        return rows, {}
    if shape == "other names":
        rows = [{"Frage": row["query_id"], "Kappe": 16 * (b + 1), "ok": r[b]} for row, r, _ in wide for b in range(3)]
        for row, (_, _, tokens), b in zip(rows, [each for each in wide for _ in range(3)], [0, 1, 2] * 2, strict=True):
            row["tokens"] = tokens[b]
        return rows, {"columns": {"id": "Frage", "budget": "Kappe", "correct": "ok"}, "tried": 4}
    # one row per trace, nothing says which trace; the first `right` of four are right
    return [
        {**row, "budget": 16 * (b + 1), "correct": "true" if s < r[b] else "False", "tokens": t[b]}
        for row, r, t in [({"query_id": row["query_id"]}, r, t) for row, r, t in wide]
        for b in range(3)
        for s in range(4)
    ], {}


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize(
    "shape", ["columns", "lists", "lists with budgets", "counts", "other names", "traces without numbers"]
)
def test_every_shape_gives_the_same_counts(tmp_path: Path, shape: str, ending: str) -> None:
    rows, options = shaped(shape)
    profile = taken(write(tmp_path / f"t.{ending}", rows), **options).profile
    assert profile.query_ids == ("q0", "q1")
    assert profile.num_right_Q_B.tolist() == [right for right, _ in COUNTS.values()]
    assert profile.num_tried_Q.tolist() == [4, 4]
    assert profile.tokens_Q_B.tolist() == [tokens for _, tokens in COUNTS.values()]


def test_ids_stay_as_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,budget,correct\n007,16,1\n7,16,0\n1.0,16,1\n")
    assert taken(tmp_path / "t.csv").profile.query_ids == ("007", "7", "1.0")
    (tmp_path / "t.jsonl").write_text('{"id": "2024-01-01", "budget": 16, "correct": true}\n')
    assert taken(tmp_path / "t.jsonl").profile.query_ids == ("2024-01-01",)
    pq.write_table(pa.table({"id": [1.0, None], "budget": [16, 16], "correct": [1, 1]}), tmp_path / "t.parquet")
    assert taken(tmp_path / "t.parquet").profile.query_ids == ("1",)


LARGE = '{{"id":{},"budget":64,"correct":1}}\n{{"id":{},"budget":64,"correct":0}}\n'


@pytest.mark.parametrize(
    "ids", [("12345678901234567890", "12345678901234567891"), ("123456789012345678901", "123456789012345678902")]
)
def test_large_ids_keep_every_digit(tmp_path: Path, ids: tuple[str, str]) -> None:
    (tmp_path / "t.jsonl").write_text(LARGE.format(*ids))
    assert taken(tmp_path / "t.jsonl").profile.query_ids == ids
    values = pa.array([Decimal(each) for each in ids], pa.decimal128(38, 0))
    pq.write_table(pa.table({"id": values, "budget": [64, 64], "correct": [1, 0]}), tmp_path / "t.parquet")
    assert taken(tmp_path / "t.parquet").profile.query_ids == ids


@pytest.mark.parametrize("pair", [("1", "1.0"), ("1", '"1"'), ("1.0", '"1"')], ids=str)
def test_two_values_that_come_to_one_id_are_refused(tmp_path: Path, pair: tuple[str, str]) -> None:
    (tmp_path / "t.jsonl").write_text(LARGE.format(*pair))
    with pytest.raises(InvalidInputError, match=r"line 2: 'id' .* would be the same: write them in the same way"):
        taken(tmp_path / "t.jsonl")


@pytest.mark.parametrize(
    ("marks", "num_right"),
    [
        (("C", "I", "N"), 1),
        (("C", "I", "P"), 1),
        (("true", "yes", "1.0"), 3),
        (("correct", "false", "0.0"), 1),
        ((True, False, 1), 2),
        (("passed", "fail", "no"), 1),
    ],
    ids=str,
)
@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_marks_of_a_right_answer(tmp_path: Path, marks: tuple[Any, ...], num_right: int, ending: str) -> None:
    rows = [{"id": f"q{n}", "budget": 16, "score": mark} for n, mark in enumerate(marks)]
    imported = taken(write(tmp_path / f"t.{ending}", rows))
    assert imported.profile.num_right_Q_B.sum() == num_right
    assert any("P (partly right) in 1 rows" in note for note in imported.notes) == ("P" in marks)


def grouped(name: str, values: tuple[str, ...]) -> Rows:
    return [
        {"doc_id": q, name: value, "exact_match": float(n), "budget": budget}
        for q in range(2)
        for budget in (64, 128)
        for n, value in enumerate(values)
    ]


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("name", ["filter", "task", "Model", "variant"])
def test_rows_that_a_column_tells_apart_are_no_traces(tmp_path: Path, name: str, ending: str) -> None:
    path = write(tmp_path / f"t.{ending}", grouped(name, ("strict", "loose")))
    with pytest.raises(InvalidInputError) as refusal:
        taken(path)
    told = str(refusal.value)
    for word in (f"2 queries have rows that {name!r} tells apart ('strict', 'loose')", f"--where {name}=strict"):
        assert word in told
    assert f"--id-column doc_id,{name}" in told
    one = taken(path, where=(f"{name}=loose",))
    assert one.profile.num_tried_Q.tolist() == [1, 1]
    assert one.profile.num_right_Q_B.tolist() == [[1, 1], [1, 1]]
    assert str(one.left_out[0]) == f"4 rows left out: {name!r} is not 'loose'"
    apart = taken(path, columns={"id": f"doc_id,{name}"}).profile
    assert apart.query_ids == ("0/strict", "0/loose", "1/strict", "1/loose")
    assert apart.num_right_Q_B[:, 0].tolist() == [0, 1, 0, 1]
    traces_of_it = taken(path, columns={"sample": name}).profile
    assert traces_of_it.num_tried_Q.tolist() == [2, 2]


def test_a_task_that_only_other_budgets_have_is_no_trace_either(tmp_path: Path) -> None:
    rows = [{"doc_id": 0, "task": task, "correct": 1, "budget": b} for task, b in (("algebra", 64), ("geometry", 128))]
    with pytest.raises(InvalidInputError, match="'task' tells apart"):
        taken(write(tmp_path / "t.csv", rows))


def test_rows_that_nothing_tells_apart_are_noted(tmp_path: Path) -> None:
    rows = [{"id": q, "budget": 16, "correct": 1, "reply": f"{q} {n}"} for q in "ab" for n in range(3)]
    imported = taken(write(tmp_path / "t.csv", rows))
    assert imported.profile.num_tried_Q.tolist() == [3, 3]
    assert any("3 rows per query and budget were counted as separate traces" in note for note in imported.notes)


@pytest.mark.parametrize("name", ["epoch", "seed", "repeat", "sample_idx", "Trace"])
def test_a_column_of_samples_makes_rows_samples(tmp_path: Path, name: str) -> None:
    rows = [{"id": q, "budget": 16, "correct": 1, name: n} for q in "ab" for n in range(3)]
    imported = taken(write(tmp_path / "t.csv", rows))
    assert imported.profile.num_tried_Q.tolist() == [3, 3]
    assert not any("separate traces" in note for note in imported.notes)


def test_models_whose_samples_are_numbered_on_are_noted(tmp_path: Path) -> None:
    rows = [{"id": "a", "budget": 16, "correct": 1, "sample": n, "model": "ab"[n // 2]} for n in range(4)]
    imported = taken(write(tmp_path / "t.csv", rows))
    assert any("'model' differs between the traces of 1 query" in note for note in imported.notes)


def test_what_train_takes_is_told(tmp_path: Path) -> None:
    assert any("will choose the predictor text" in note for note in taken(write(tmp_path / "a.csv", traces())).notes)
    rows = without(traces(), "question")
    assert any("will choose the predictor mean" in note for note in taken(write(tmp_path / "b.csv", rows)).notes)


def test_columns_in_capitals_and_within_objects(tmp_path: Path) -> None:
    rows = [{"ID": "a", "Budget": 16, "scores": {"match": {"value": "C"}}}, {"ID": "b", "Budget": 16, "scores": None}]
    imported = taken(write(tmp_path / "t.jsonl", rows), columns={"correct": "scores.match.value"})
    assert imported.profile.num_right_Q_B.tolist() == [[1]]
    assert imported.profile.query_ids == ("a",)


def test_several_files_are_one_table(tmp_path: Path) -> None:
    rows = traces()
    files = tuple(str(write(tmp_path / name, part)) for name, part in (("a.csv", rows[:6]), ("b.jsonl", rows[6:])))
    profile = import_profile(ImportSettings(files=files, out=str(tmp_path / "o.parquet"))).profile
    assert profile.num_right_Q_B.tolist() == [[1, 2, 2], [0, 1, 2], [0, 0, 1]]
    assert list(profile.provenance.more["imported"]["files"]) == ["a.csv", "b.jsonl"]
    write(tmp_path / "b.jsonl", rows)
    with pytest.raises(InvalidInputError, match=r"b\.jsonl line 1: query 'q0' sample '0' at budget 16 .*a\.csv line 2"):
        import_profile(ImportSettings(files=files, out=str(tmp_path / "o.parquet")))


def test_rows_in_any_order(tmp_path: Path) -> None:
    rows = traces()
    path = write(tmp_path / "t.csv", rows[::-1])
    with pytest.raises(
        InvalidInputError, match=r"line 3: budget 32 comes after 48 \(line 2\) of query 'q2'.*--any-ord"
    ):
        taken(path)
    profile = taken(path, any_order=True).profile
    assert dict(zip(profile.query_ids, profile.num_right_Q_B.tolist(), strict=True))["q0"] == [1, 2, 2]


def test_only_the_grid_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", traces(budgets=(16, 32, 64, 128)))
    assert taken(path).profile.menu == Menu.of((16, 32, 64, 128))
    imported = taken(path, window=64)
    assert imported.profile.menu == Menu.evenly(64, 128)
    assert str(imported.left_out[0]) == "2 budgets left out: not on the menu asked for (16, 32)"
    wide = taken(write(tmp_path / "w.jsonl", counted()), window=16, max_tokens=32, layer=1)
    assert wide.profile.menu == Menu.evenly(16, 32)
    assert wide.profile.num_right_Q_B.shape == (40, 2)


UNEVEN = (0, 512, 1024, 4096, 32768)


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("shape", ["columns", "lists with budgets", "lists that a flag names", "counts", "traces"])
def test_budgets_without_a_common_step(tmp_path: Path, shape: str, ending: str) -> None:
    right = {"a": [0, 0, 1, 2, 2], "b": [1, 2, 2, 2, 1]}
    used = {name: [min(cap, 3000.0) for cap in UNEVEN] for name in right}
    options: dict[str, Any] = {"budgets": ",".join(map(str, UNEVEN))} if shape == "lists that a flag names" else {}
    rows: Rows
    if shape == "columns":
        rows = [
            {"id": name, "tried": 2, **{f"correct_{cap}": n for cap, n in zip(UNEVEN, right[name], strict=True)}}
            | {f"tokens_{cap}": n for cap, n in zip(UNEVEN, used[name], strict=True)}
            for name in right
        ]
    elif shape.startswith("lists"):
        rows = [{"id": name, "tried": 2, "correct": right[name], "tokens": used[name]} for name in right]
        rows = rows if options else [{**row, "budgets": list(UNEVEN)} for row in rows]
    else:
        cells = [(name, cap, n, x) for name in right for cap, n, x in zip(UNEVEN, right[name], used[name], strict=True)]
        rows = [{"id": name, "budget": cap, "correct": n, "tried": 2, "tokens": x} for name, cap, n, x in cells]
        if shape == "traces":
            rows = [
                {"id": name, "budget": cap, "sample": s, "correct": s < n, "tokens": x}
                for s in range(2)
                for name, cap, n, x in cells
            ]
    path = write(tmp_path / f"t.{ending}", rows)
    profile = taken(path, **options).profile
    assert profile.menu == Menu.of(UNEVEN)
    assert profile.num_right_Q_B.tolist() == list(right.values())
    np.testing.assert_allclose(profile.tokens_Q_B, list(used.values()))
    if not options:
        some = taken(path, budgets="512,geometric:4096:32768:8")
        assert some.profile.menu == Menu.of((512, 4096, 32768))
        assert some.profile.num_right_Q_B.tolist() == [[n[1], n[3], n[4]] for n in right.values()]
        assert str(some.left_out[0]) == "2 budgets left out: not on the menu asked for (0, 1024)"


@pytest.mark.parametrize("ending", FORMATS)
def test_traces_cut_anywhere_are_put_on_common_caps(tmp_path: Path, ending: str) -> None:
    path = write(
        tmp_path / f"t.{ending}", [*cut_anywhere(), {"id": None, "cut": 7, "correct": True, "trace_tokens": 9}]
    )
    imported = taken(path, budgets="512,1024,2048,4096", **CUTS)
    assert imported.profile.num_right_Q_B.tolist() == [
        [0, 0, 1, 1],
        [1, 1, 1, 0],
    ]  # the last cuts of b: 300, 566 … 2,694
    assert imported.profile.tokens_Q_B.tolist() == [[512, 1024, 2048, 4000], [512, 1024, 2048, 2700]]
    assert str(imported.left_out[0]).startswith("1 row left out: no 'id'")
    assert "no answer is counted" in imported.notes[0]


@pytest.mark.parametrize("ending", FORMATS)
def test_answers_are_kept_for_each_trace_and_cap(tmp_path: Path, ending: str) -> None:
    said = {"q1": ["7", "7", "8"], "q0": ["B", "", "B"]}
    rows = [
        {"id": q, "budget": b, "sample": s, "correct": q == "q0" and bool(a) and s == "x", "said": a or None, "used": u}
        for s in ("x", "y")
        for q, answers in said.items()
        for b, u, a in zip((0, 512, 4096), (5, 512, 900), answers, strict=True)
    ]
    columns = {"answer": "said", "tokens": "used"}
    imported = taken(write(tmp_path / f"t.{ending}", rows), columns=columns)
    write_parquet(imported.path, imported.profile)
    for profile in (imported.profile, read_parquet(imported.path)):
        traces = profile.traces
        assert traces is not None
        told = [traces.answers_Q[profile.query_ids.index(q)] for q in said for _ in "xy"]
        codes = [traces.answer_N_B[n] for q in said for n in range(4)[profile.traces_of_Q[profile.query_ids.index(q)]]]
        assert [[some[code] for code in row] for some, row in zip(told, codes, strict=True)] == [
            answers for answers in said.values() for _ in "xy"
        ]
        q0 = profile.traces_of_Q[profile.query_ids.index("q0")]
        assert traces.grade_N_B[q0].tolist() == [[1, 2, 1], [0, 2, 0]]
        assert traces.sample_N.tolist() == [0, 1, 0, 1]
        assert traces.tokens_N_B.tolist() == [[5, 512, 900]] * 4
        assert traces.length_N.tolist() == [900] * 4


def test_answers_of_rows_that_are_no_traces_are_not_kept(tmp_path: Path) -> None:
    rows = [{"id": "a", "budget": 16, "correct": n, "prediction": str(n), "reply": f"{n}"} for n in (0, 1)]
    imported = taken(write(tmp_path / "t.csv", rows))
    assert imported.profile.traces is None
    assert any(note.startswith("Answers are not stored") for note in imported.notes)


# --- what is left out --------------------------------------------------------------------------------------------


def changed(rows: Rows, index: int, **cells: Any) -> Rows:
    return [{**row, **cells} if number == index else row for number, row in enumerate(rows)]


def without(rows: Rows, *names: str) -> Rows:
    return [{name: cell for name, cell in row.items() if name not in names} for row in rows]


LEFT_OUT: dict[str, tuple[Rows, dict[str, Any], list[str], int]] = {
    "no id": (
        [*traces(), {"query_id": None, "budget": 16, "correct": 1}],
        {},
        ["1 row left out: no 'query_id' (line 20)"],
        6,
    ),
    "blank grade of a numbered trace": (
        changed(traces(), 4, correct=None),
        {},
        ["1 trace left out: 'correct' is blank (line 6)"],
        5,
    ),
    "blank grade of a trace without number": (
        changed(without(traces(), "sample"), 4, correct=None),
        {},
        ["1 query left out: 'correct' is blank (line 6)"],
        4,
    ),
    "nothing tried": (
        [*counted(3), {**counted(4)[3], "num_trials": 0, "num_correct": [0, 0, 0, 0]}],
        {"window": 16, "layer": 1},
        ["1 query left out: nothing was tried (line 5)"],
        60,
    ),
    "no hidden state, blank counts": (
        changed(changed(counted(5), 1, hidden_state=None), 2, num_correct=[1, None, 2, 3]),
        {"window": 16, "layer": 1},
        ["1 query left out: 'num_correct' is blank (line 4)", "1 query left out: no hidden state (line 3)"],
        60,
    ),
}


@pytest.mark.parametrize(("rows", "options", "told", "num_traces"), LEFT_OUT.values(), ids=LEFT_OUT.keys())
def test_what_is_left_out_is_told(
    tmp_path: Path, rows: Rows, options: dict[str, Any], told: list[str], num_traces: int
) -> None:
    imported = taken(write(tmp_path / "t.csv", rows), **options)
    assert [str(each) for each in imported.left_out] == told
    assert imported.profile.num_tried_Q.sum() == num_traces
    assert imported.profile.provenance.more["imported"]["left_out"] == told


def test_nothing_left(tmp_path: Path) -> None:
    rows = [{**row, "correct": None} for row in traces()]
    with pytest.raises(InvalidInputError, match=r"no query is left to import: 6 traces left out: 'correct' is blank"):
        taken(write(tmp_path / "t.csv", rows))


# --- what is refused ---------------------------------------------------------------------------------------------

WIDE = {"window": 16, "layer": 1}
CUTS: dict[str, Any] = {"last_cut": True, "columns": {"budget": "cut"}}


def cut_anywhere() -> Rows:
    """Two traces, each cut at ten points of its own; the first is right from 1,000 tokens on, the other up to 2,000."""
    ends = {"a": (0, 4000, lambda cut: cut >= 1000), "b": (300, 2700, lambda cut: cut <= 2000)}
    return [
        {"id": name, "cut": cut, "correct": is_right(cut), "trace_tokens": last}
        for name, (first, last, is_right) in ends.items()
        for cut in range(first, last + 1, (last - first) // 9)[:10]
    ]


LISTED = [{"id": "a", "tried": 4, "budgets": [16, 32], "correct": [1, 2]}]
REFUSED: dict[str, tuple[Rows, dict[str, Any], list[str]]] = {
    "repeated row": ([*traces(), traces()[2]], {}, ["line 20", "query 'q0' sample '0' at budget 48", "line 4"]),
    "repeated row without samples": (
        [{"query": "a", "budget": 16, "correct": 1}, *[{"query": "a", "budget": b, "correct": 1} for b in (16, 32)]],
        {},
        ["line 3", "query 'a'", "1 at budget 32 and 2 at budget 16", "repeated"],
    ),
    "falling budgets": (
        [{"query": "a", "budget": b, "correct": 1} for b in (32, 16)],
        {},
        ["line 3", "budget 16 comes after 32 (line 2)"],
    ),
    "count above tried": (
        [{"query": "a", "budget": 16, "correct": 5, "tried": 4}],
        {},
        ["line 2", "counts 5 right of 4 tried"],
    ),
    "count without tried": (
        [{"query": "a", "budget": 16, "correct": 5}],
        {},
        ["line 2", "5 right of 1 tried", "--tried-column"],
    ),
    "negative count": (changed(traces(), 3, correct=-1), {}, ["line 5", "'correct'", "'-1'"]),
    "fraction of a count": (changed(traces(), 3, correct=0.5), {}, ["line 5", "'0.5'"]),
    "unreadable grade": (changed(traces(), 3, correct="maybe"), {}, ["line 5", "'maybe'"]),
    "unequal grids": ([*traces(), *traces(4, budgets=(16, 32))[-4:]], {}, ["query 'q3' has no row at budget 48"]),
    "another budget": (
        [*traces(), *traces(4, budgets=(16, 32, 48, 64))[-8:]],
        {},
        ["query 'q3' has budget 64, which other queries lack", "line 27"],
    ),
    "a trace that lacks a budget": (
        [row for number, row in enumerate(traces()) if number != 4],
        {},
        ["query 'q0' has unequal numbers of traces, 1 at budget 32 and 2 at budget 16"],
    ),
    "unequal tried": (
        [{"query": "a", "budget": b, "correct": 1, "tried": b // 8} for b in (16, 32)],
        {},
        ["line 3", "2 at budget 16 and 4 at budget 32"],
    ),
    "budget below zero": (changed(traces(), 3, budget=-1), {}, ["line 5", "'budget'", "'-1'"]),
    "budget of half a token": (changed(traces(), 3, budget=0.5), {}, ["line 5", "'budget'", "'0.5'"]),
    "a trace that lacks budget zero": (
        [{**row, "budget": 0} if row["budget"] == 16 and row["query_id"] != "q1" else row for row in traces()],
        {},
        ["query 'q1' has no row at budget 0 and has budget 16, which other queries lack"],
    ),
    "caps that are not there": (traces(), {"budgets": "16,64"}, ["no budget 64 in the files; they have 16, 32, 48"]),
    "wide: caps that are not there": (LISTED, {"budgets": "16,64"}, ["no budget 64 in the files; they have 16, 32"]),
    "wide: more counts than caps": (counted(), {"budgets": "16,64", "layer": 1}, ["holds 4 counts", "names 2 caps"]),
    "a trace cut too late": (
        cut_anywhere(),
        {"budgets": "256,512", **CUTS},
        ["line 12: query 'b' has no cut at or below 256, its first is at 300"],
    ),
    "what a cut used is not what a cap uses": (
        [{**row, "tokens": row["cut"]} for row in cut_anywhere()],
        {"budgets": "512", "last_cut": True, "columns": {**CUTS["columns"], "length": ""}},
        ["'tokens' is the usage at a cut", "--length-column"],
    ),
    "two traces that nothing tells apart, cut anywhere": (
        [*cut_anywhere(), cut_anywhere()[0]],
        {"budgets": "512", **CUTS},
        ["query 'a' at budget 0 is already in line 2"],
    ),
    "blank budget": (changed(traces(), 3, budget=None), {}, ["line 5", "'budget' is missing"]),
    "blank sample": (changed(traces(), 3, sample=None), {}, ["line 5", "'sample' is missing"]),
    "blank tokens": (changed(traces(), 3, tokens=None), {}, ["line 5", "'tokens' is missing", "--tokens-column ''"]),
    "negative tokens": (changed(traces(), 3, tokens=-2), {}, ["line 5", "'-2'"]),
    "reasoning above the budget": (
        [{**row, "reasoning_tokens": row["budget"] + (row["query_id"] == "q2")} for row in traces()],
        {},
        ["line 14", "'reasoning_tokens' is more than the budget"],
    ),
    "another question under one id": (changed(traces(), 5, question="?"), {}, ["line 7", "another"]),
    "no id column": (without(traces(), "query_id"), {}, ["--id-column", "'sample'"]),
    "no budgets": (without(traces(), "budget"), {}, ["--budget-column"]),
    "no grades": (without(traces(), "correct"), {}, ["--correct-column"]),
    "unknown column": (traces(), {"columns": {"tokens": "tokns"}}, ["--tokens-column 'tokns'", "'tokens'"]),
    "hidden column of a long table": (traces(), {"columns": {"hidden": "tokens"}}, ["a long table has none"]),
    "no budget on the menu": (traces(), {"window": 100}, ["not on the menu asked for (16, 32, 48)"]),
    "wide: repeated query": ([*counted(3), counted(2)[1]], WIDE, ["line 5", "'train_1' is already in line 3"]),
    "wide: count above tried": (changed(counted(3), 1, num_trials=2), WIDE, ["line 3", "right of 2 tried"]),
    "wide: unequal lists": (changed(counted(3), 1, num_correct=[1, 2]), WIDE, ["line 3", "2 numbers, but 4 in line 2"]),
    "wide: negative count": (changed(counted(3), 1, num_correct=[1, -2, 3, 4]), WIDE, ["line 3", "-2"]),
    "wide: fraction": (changed(counted(3), 1, num_correct=[1, 2.5, 3, 4]), WIDE, ["line 3", "2.5"]),
    "wide: no list": (changed(counted(3), 1, num_correct="many"), WIDE, ["line 3", "'many'"]),
    "wide: not numbers": (changed(counted(3), 1, num_correct=["a", 1, 2, 3]), WIDE, ["line 3", "'a'"]),
    "wide: broken list": (changed(counted(3), 1, num_correct="[1, 2"), WIDE, ["line 3", "not JSON"]),
    "wide: no window": (counted(3), {"layer": 1}, ["--budgets"]),
    "wide: no layer": (counted(3), {"window": 16}, ["--layer", "--hidden-column ''"]),
    "wide: no tried": (without(counted(3), "num_trials"), WIDE, ["--tried"]),
    "wide: budgets fall": (changed(LISTED, 0, budgets=[32, 16]), {}, ["line 2", "'budgets' must ascend"]),
    "wide: budgets differ": (
        [*({**LISTED[0], "id": name} for name in "ab"), {**LISTED[0], "id": "c", "budgets": [16, 48]}],
        {},
        ["line 4", "differs from that of other queries (16, 32)"],
    ),
    "wide: more budgets than counts": (changed(LISTED, 0, budgets=[16, 32, 48]), {}, ["3 budgets", "2 counts"]),
    "wide: tokens of fewer budgets": (
        [{"id": "a", "tried": 4, "correct_16": 1, "correct_32": 2, "tokens_16": 9}],
        {},
        ["tokens_16", "unequal budgets"],
    ),
    "wide: tokens with a gap": (
        [{"id": name, "tried": 4, "correct_16": 1, "tokens_16": 9 if name == "a" else None} for name in "ab"],
        {},
        ["line 3", "has a gap", "--tokens-column ''"],
    ),
}


@pytest.mark.parametrize(("rows", "options", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_wrong_is_refused_with_its_line(
    tmp_path: Path, rows: Rows, options: dict[str, Any], words: list[str]
) -> None:
    path = write(tmp_path / "t.csv", rows)
    with pytest.raises(InvalidInputError) as refusal:
        taken(path, **options)
    for word in ["t.csv", *words]:
        assert word in str(refusal.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["t.csv"]


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_hidden_states_that_are_not_finite(tmp_path: Path, number: float) -> None:
    rows = changed(counted(3), 1, hidden_state=[number] + [0.0] * 5)
    with pytest.raises(InvalidInputError, match=r"row 2: 'hidden_state' holds NaN, infinity"):
        taken(write(tmp_path / "t.parquet", rows), **WIDE)


def test_everything_wrong_is_told_at_once(tmp_path: Path) -> None:
    rows = [{**row, "correct": -1, "tokens": -1} for row in traces(40)]
    with pytest.raises(InvalidInputError) as refusal:
        taken(write(tmp_path / "t.csv", changed(rows, 1, budget="x")))
    lines = str(refusal.value).splitlines()
    assert "problems" in lines[0]
    assert "line 3: 'budget'" in lines[1]
    assert "more" in lines[-1]
    assert len(lines) == 22


BROKEN: dict[str, tuple[str, bytes, str]] = {
    "empty": ("t.csv", b"", "holds no rows"),
    "header only": ("t.csv", b"id,budget,correct\n", "holds no rows"),
    "ragged": ("t.csv", b"id,budget,correct\na,16,1\na,32\n", "line 3: 2 cells"),
    "column twice": ("t.csv", b"id,id,correct\na,16,1\n", "'id'"),
    "not UTF-8": ("t.csv", b"id,budget,correct\n\xe4,16,1\n", "line 2: not UTF-8"),
    "not JSON": ("t.jsonl", b'{"id": 1}\n{"id": \n', "line 2: not JSON"),
    "not Parquet": ("t.parquet", b"PAR1 no", "not readable as Parquet"),
    "no such ending": ("t.xlsx", b"", "cannot read files ending in '.xlsx'"),
}


@pytest.mark.parametrize(("name", "content", "words"), BROKEN.values(), ids=BROKEN.keys())
def test_broken_files(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidInputError, match=words):
        taken(tmp_path / name)


def test_places_count_blank_lines_and_lines_within_a_cell(tmp_path: Path) -> None:
    content = 'id,budget,question,correct\n\na,16,"two\nlines",1\n\nb,16,,x\n'
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(InvalidInputError, match="line 6: 'correct'"):
        taken(tmp_path / "t.csv")


def test_settings_that_cannot_be_taken() -> None:
    with pytest.raises(InvalidSettingsError, match="--temperature and --top-p"):
        ImportSettings(files=("a.csv",), temperature=0.6)
    with pytest.raises(InvalidSettingsError, match="'tokns'"):
        ImportSettings(files=("a.csv",), columns={"tokns": "a"})
    with pytest.raises(InvalidSettingsError, match="--window"):
        ImportSettings(files=("a.csv",), window=0)
    with pytest.raises(InvalidSettingsError, match="--budgets, or --window and --max-tokens, not both"):
        ImportSettings(files=("a.csv",), window=16, budgets="16,32")
    with pytest.raises(InvalidSettingsError, match="--last-cut needs the caps"):
        ImportSettings(files=("a.csv",), last_cut=True)


def test_only_an_imported_profile_is_written_over(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", traces())
    before = path.read_bytes()
    with pytest.raises(RunError, match="is a file that is read"):
        import_profile(ImportSettings(files=(str(path),), out=str(path)))
    first = taken(path)
    content = first.path.read_bytes()
    assert taken(path).path.read_bytes() == content
    with pytest.raises(InvalidInputError, match=r"is a profile already.*forethought train"):
        import_profile(ImportSettings(files=(str(first.path),), out=str(tmp_path / "o.parquet")))
    measured = Profile(
        ("a",), Menu.evenly(16, 16), *(np.ones(shape, int) for shape in ((1, 1), 1)), *[np.ones((1, 1))] * 2
    )
    write_parquet(first.path, measured)
    with pytest.raises(RunError, match="not an imported profile"):
        taken(path)
    with pytest.raises(RunError, match=r"\.parquet"):
        import_profile(ImportSettings(files=(str(path),), out=str(tmp_path / "o.csv")))
    assert path.read_bytes() == before


# --- round trips -------------------------------------------------------------------------------------------------


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    num_queries, num_budgets = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    window = draw(st.sampled_from([1, 16, 50]))
    tried = draw(st.lists(st.integers(1, 4), min_size=num_queries, max_size=num_queries))
    right = [[draw(st.integers(0, n)) for _ in range(num_budgets)] for n in tried]
    # whole numbers of tokens for all traces together: their mean is then the same to the last digit
    tokens = [[draw(st.integers(0, 400)) / 4 for _ in range(num_budgets)] for _ in tried]
    names = draw(
        st.lists(
            st.text("aé1 ,\"'", min_size=1, max_size=4).filter(str.strip),
            min_size=num_queries,
            max_size=num_queries,
            unique=True,
        )
    )
    menu = Menu.evenly(window, window * num_budgets)
    tokens_Q_B = np.array(tokens)
    return Profile(
        tuple(names), menu, np.array(right), np.array(tried), tokens_Q_B, np.minimum(tokens_Q_B, menu.budgets_B)
    )


def long_rows(profile: Profile) -> Rows:
    return [
        {
            "query_id": name,
            "sample": s,
            "budget": int(budget),
            "correct": bool(s < profile.num_right_Q_B[q, b]),
            "tokens": float(profile.tokens_Q_B[q, b]),
        }
        for q, name in enumerate(profile.query_ids)
        for s in range(int(profile.num_tried_Q[q]))
        for b, budget in enumerate(profile.menu.budgets_B)
    ]


def wide_rows(profile: Profile) -> Rows:
    return [
        {
            "query_id": name,
            "tried": int(profile.num_tried_Q[q]),
            **{f"correct_{b}": int(n) for b, n in zip(profile.menu.budgets_B, profile.num_right_Q_B[q], strict=True)},
            "tokens": profile.tokens_Q_B[q].tolist(),
        }
        for q, name in enumerate(profile.query_ids)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("rows_of", [long_rows, wide_rows], ids=["long", "wide"])
@given(profile=profiles(), ending=st.sampled_from(["csv", "jsonl", "parquet"]))
@hypothesis_settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_a_profile_written_as_a_table_comes_back(tmp_path: Path, rows_of: Any, profile: Profile, ending: str) -> None:
    again = taken(write(tmp_path / f"t.{ending}", rows_of(profile))).profile
    assert again.query_ids == profile.query_ids
    assert again.menu == profile.menu
    np.testing.assert_array_equal(again.num_right_Q_B, profile.num_right_Q_B)
    np.testing.assert_array_equal(again.num_tried_Q, profile.num_tried_Q)
    np.testing.assert_allclose(again.tokens_Q_B, profile.tokens_Q_B, rtol=1e-9)


# --- what can be done with it ------------------------------------------------------------------------------------


@pytest.fixture
def imported(tmp_path: Path) -> str:
    path = write(tmp_path / "curves.parquet", counted(80))
    return str(taken(path, window=16, layer=16, model="some-model").path)


@pytest.mark.slow
def test_train_evaluate_and_plan_without_spend(imported: str, tmp_path: Path) -> None:
    trained, folder = train(TrainSettings(run=imported, predictor="ridge", num_folds=2))
    assert trained.card.mean_tokens_B is None
    assert (trained.card.model, trained.card.template, trained.card.sampling) == ("some-model", None, None)
    held_out = taken(
        write(tmp_path / "held.parquet", counted(50, seed=1, start=100)), **WIDE | {"layer": 16, "name": "held"}
    )
    result = evaluate(EvaluateSettings(run=str(folder), on=str(held_out.path), num_resamples=100, plots=False))
    assert result.costs == (Cost.GRANTED,)
    assert {row.spent for row in result.rows} == {None}
    assert any("not recorded" in note for note in result.notes)
    crossed = evaluate(EvaluateSettings(run=imported, predictor="ridge", num_resamples=100, plots=False))
    assert crossed.costs == (Cost.GRANTED,)
    planned = plan(PlanSettings(run=str(folder), questions=str(held_out.path), mean_tokens=40))
    assert planned.allocation.granted <= 40 * 50
    assert planned.allocation.expected_spent is None
    assert len(planned.allocation.query_ids) == 50
    with pytest.raises(InvalidSettingsError, match="--cost granted"):
        plan(PlanSettings(run=str(folder), questions=str(held_out.path), mean_tokens=40, cost=Cost.SPENT))


@pytest.mark.slow
def test_what_cannot_be_done_is_refused(imported: str, tmp_path: Path) -> None:
    _, folder = train(TrainSettings(run=imported, predictor="ridge", num_folds=2))
    questions = tmp_path / "q.jsonl"
    questions.write_text('{"question": "1 + 1?"}\n')
    with pytest.raises(InvalidSettingsError, match="--template"):
        plan(PlanSettings(run=str(folder), questions=str(questions), mean_tokens=40, model="fake"))
    other = taken(
        write(tmp_path / "other.parquet", counted(9, start=100)), window=16, layer=16, model="another", name="other"
    )
    with pytest.raises(MismatchError, match="another"):
        evaluate(EvaluateSettings(run=str(folder), on=str(other.path)))
    no_text = taken(write(tmp_path / "n.parquet", without(counted(9), "question", "hidden_state")), window=16)
    with pytest.raises(InvalidInputError, match="does not hold the texts"):
        plan(PlanSettings(run=str(folder), questions=str(no_text.path), mean_tokens=40, template="think"))


def test_measured_and_unmeasured_spend_do_not_join(tmp_path: Path) -> None:
    rows = traces()
    with_tokens = taken(write(tmp_path / "a.csv", rows)).profile
    for row in rows:
        row["query_id"] = f"other {row['query_id']}"
    without_tokens = taken(write(tmp_path / "b.csv", rows), columns={"tokens": ""}).profile
    with pytest.raises(MismatchError, match="spend_measured"):
        joined([with_tokens, without_tokens])


# --- the command -------------------------------------------------------------------------------------------------


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "t.csv", [*traces(), {"query_id": "", "budget": 16, "correct": 1}])
    assert _exit_code(["import", "t.csv", "--dry-run", "--json"]) == 0
    assert not Path("runs").exists()
    assert json.loads(capsys.readouterr().out)["written"] is False
    assert _exit_code(["import", "t.csv", "--json", "--name", "mine", "--model", "m"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["profile"], found["queries"], found["traces"]) == ("runs/mine.parquet", 3, 6)
    assert found["left_out"] == [{"what": "rows", "why": "no 'query_id'", "count": 1, "first": ["line 20"]}]
    assert found["accuracy"] == [0.1667, 0.5, 0.8333]
    assert _exit_code(["import", "t.csv", "--tokens-column", ""]) == 0
    out = capsys.readouterr().out
    assert "not measured" in out
    assert "1 row left out: no 'query_id' (line 20)" in out
    assert "`train` will choose the predictor text" in out
    assert "next: forethought train runs/t.parquet --predictor history   (to ask these questions again; for" in out
    assert _exit_code(["train", "runs/t.parquet", "--predictor", "mean"]) == 0
    write(
        tmp_path / "held.csv",
        [{**row, "query_id": f"held-{row['query_id']}", "question": f"Held: {row['question']}"} for row in traces()],
    )
    assert _exit_code(["import", "held.csv", "--tokens-column", ""]) == 0
    assert _exit_code(["evaluate", "runs/t", "--on", "runs/held.parquet", "--no-plots", "--resamples", "100"]) == 0
    assert "not measured" in capsys.readouterr().out
    write(tmp_path / "bad.csv", changed(traces(), 3, correct=-1))
    before = sorted(tmp_path.rglob("*"))
    assert _exit_code(["import", "bad.csv"]) == 1
    assert capsys.readouterr().err.startswith("error: bad.csv: line 5: 'correct'")
    assert _exit_code(["import", "tt.csv"]) == 1
    assert "Did you mean 't.csv'" in capsys.readouterr().err
    assert _exit_code(["import"]) == 2
    assert sorted(tmp_path.rglob("*")) == before
