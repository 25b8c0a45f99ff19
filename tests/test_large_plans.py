"""Folders of Parquet files: predictions in, budgets out, by the command that users type."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import forethought as ft
from evaluation_data import write_predictions
from forethought.allocators import allocate
from forethought.control.large import BUDGETS_KEY, predict_folder
from forethought.control.predictions import Predictions
from forethought.core.data import Cost, Curves
from forethought.core.features import Features
from forethought.core.menu import Menu
from forethought.core.options import Option, Price
from forethought.core.prompts import load_template
from forethought.engines.fake import FakeEngine
from forethought.errors import InvalidInputError, InvalidMenuError, InvalidSettingsError

MENU = Menu.evenly(16, 128)


def curves(number, *, first=0, menu=MENU):
    random = np.random.default_rng(first)
    p_Q_B = np.sort(random.random((number, menu.num_options)), axis=1).astype(np.float32)
    tokens_Q_B = np.minimum(menu.budgets_B, random.exponential(60, (number, 1))).astype(np.float32)
    return Curves(tuple(f"q{row}" for row in range(first, first + number)), menu, p_Q_B, tokens_Q_B)


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "predictions"
    made.mkdir()
    write_predictions(made / "a.parquet", curves(700))
    write_predictions(made / "b.parquet", curves(300, first=700))
    return made


def whole(*parts):
    return Curves(
        tuple(name for part in parts for name in part.query_ids),
        parts[0].menu,
        np.concatenate([part.p_Q_B for part in parts]),
        np.concatenate([part.tokens_Q_B for part in parts]),
    )


@pytest.mark.parametrize("cost", ["granted", "spent"])
def test_the_budgets_are_those_of_the_plan_in_memory(call, folder, tmp_path, cost):
    out = tmp_path / "budgets.parquet"
    said = call("plan", str(folder), "--mean-tokens", "50", "--cost", cost, "--out", str(out), "--json")
    assert said.code == 0
    made = allocate("envelope", whole(curves(700), curves(300, first=700)), total=50_000, cost=Cost(cost))
    table = pq.read_table(out)
    assert table["id"].to_pylist() == list(made.query_ids)
    assert table["budget"].to_pylist() == made.budget_Q.tolist()
    assert np.mean(table["expected"].to_numpy()) == pytest.approx(made.expected_accuracy, rel=1e-6)
    header = json.loads(pq.ParquetFile(out).metadata.metadata[BUDGETS_KEY])
    assert header == said.json
    assert header["granted"] == made.granted
    assert sum(header["queries"].values()) == 1000


def test_a_plan_says_how_many_got_what(call, folder, tmp_path):
    said = call("plan", str(folder), "--total-tokens", "40000", "--out", str(tmp_path / "b.parquet"))
    assert said.code == 0
    assert "1,000 questions, envelope under granted cost" in said.out
    assert "1,000 budgets written to" in said.err


def test_named_options_are_planned_in_money(call, tmp_path):
    menu = Menu.named([Option(name, price=Price(0.0, usd), tokens=100) for name, usd in (("low", 1.0), ("high", 8.0))])
    made = tmp_path / "predictions"
    made.mkdir()
    write_predictions(made / "a.parquet", curves(50, menu=menu))
    out = tmp_path / "b.parquet"
    said = call("plan", str(made), "--mean-usd", "0.0003", "--out", str(out), "--json")
    assert said.code == 0
    assert set(pq.read_table(out)["option"].to_pylist()) == {"low", "high"}
    assert said.json["expected_usd"] <= 50 * 0.0003


def test_foreign_files_need_only_the_columns_and_a_menu(call, tmp_path):
    """Lists of any length type, 64-bit floats, whole numbers as ids, no metadata."""
    made = tmp_path / "theirs"
    made.mkdir()
    table = pa.table({"query_id": [7, 8], "p": [[0.1, 0.2], [0.3, 0.9]], "more": ["x", "y"]})
    pq.write_table(table, made / "a.parquet")
    out = tmp_path / "b.parquet"
    said = call("plan", str(made), "--mean-tokens", "96", "--out", str(out))
    assert said.code == 1
    assert "--budgets" in said.err
    said = call("plan", str(made), "--budgets", "64,128", "--mean-tokens", "96", "--out", str(out))
    assert said.code == 0
    assert pq.read_table(out).select(["id", "budget"]).to_pylist() == [
        {"id": 7, "budget": 64},
        {"id": 8, "budget": 128},
    ]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"id": ["a"], "p": [[0.1, 0.2, 0.3]]}, "must hold 2 numbers"),
        ({"id": ["a", "b"], "p": [[0.1, 0.2, 0.3], [0.1]]}, "must hold 2 numbers"),
        ({"id": ["a", "b"], "p": [[0.1, 0.2], None]}, "must hold 2 numbers"),
        ({"id": ["a"], "p": [[0.1, None]]}, "must hold 2 numbers"),
        ({"id": ["a"], "p": [0.1]}, "a list of floats"),
        ({"id": ["a"], "p": [["x", "y"]]}, "a list of floats"),
        ({"id": [0.5], "p": [[0.1, 0.2]]}, "ids are texts or whole numbers"),
        ({"p": [[0.1, 0.2]]}, "predictions have columns id, p"),
        ({"id": ["a"], "p": [[0.1, 1.2]]}, "must lie in"),
        ({"id": ["a"], "p": [[0.1, float("nan")]]}, "must lie in"),
    ],
)
def test_what_is_no_prediction_is_refused_in_words(call, tmp_path, table, words):
    made = tmp_path / "theirs"
    made.mkdir()
    pq.write_table(pa.table(table), made / "a.parquet")
    typed_in = ["plan", str(made), "--budgets", "64,128", "--mean-tokens", "96", "--out", str(tmp_path / "b.parquet")]
    said = call(*typed_in)
    assert said.code == 1
    assert words in said.err
    assert not (tmp_path / "b.parquet").exists()


def test_damaged_files_are_named(call, folder, tmp_path):
    content = (folder / "b.parquet").read_bytes()
    (folder / "b.parquet").write_bytes(content[: len(content) // 2])
    said = call("plan", str(folder), "--mean-tokens", "50", "--out", str(tmp_path / "b.parquet"))
    assert said.code == 1
    assert "b.parquet" in said.err
    assert "Traceback" not in said.err


def test_files_over_other_budgets_are_refused(folder):
    write_predictions(folder / "c.parquet", curves(5, menu=Menu.of([5, 6])))
    with pytest.raises(InvalidMenuError, match=r"c\.parquet"):
        Predictions.open(folder)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--out", "b.csv"], "--out FILE.parquet"),
        ([], "--out FILE.parquet"),
        (["--out", "b.parquet", "--allocator", "greedy"], "envelope"),
        (["--out", "nowhere/b.parquet"], "no folder nowhere"),
    ],
)
def test_flags_that_do_not_fit_a_folder_are_refused(call, folder, arguments, words):
    said = call("plan", str(folder), "--mean-tokens", "50", *arguments)
    assert said.code == 1
    assert words in said.err


def test_a_predictor_without_questions_is_told_what_is_missing(call, tmp_path):
    said = call("plan", "qwen2.5-coder-0.5b", "--mean-tokens", "50", "--out", str(tmp_path / "b.parquet"))
    assert said.code == 1
    assert "QUESTIONS" in said.err


@pytest.fixture(scope="module")
def predictor():
    engine = FakeEngine(template=load_template("worked-5"), menu=Menu.evenly(16, 64))
    questions = [{"question": f"What is {a} plus {a + 3}?", "answer": str(2 * a + 3)} for a in range(40)]
    measured = ft.profile(engine, questions, menu="16:64:16", num_traces=2)
    return ft.train(measured, predictor="text")


def test_questions_are_predicted_file_by_file_and_what_was_stopped_goes_on(call, predictor, tmp_path):
    texts = tmp_path / "texts"
    texts.mkdir()
    for name, first in (("a", 0), ("b", 30)):
        rows = {"question": [f"What is {a} plus 5?" for a in range(first, first + 30)]}
        pq.write_table(pa.table(rows), texts / f"{name}.parquet")
    done: list[int] = []
    found = predict_folder(predictor, texts, tmp_path / "p", progress=lambda stage, at, number: done.append(at))
    assert found.num_queries == 60
    assert done == [0, 30]
    ids = found.groups[1].load().query_ids
    assert ids[0] == "b-0"
    expected = predictor.predict(ids[:2], ft_features([f"What is {a} plus 5?" for a in (30, 31)], ids[:2]))
    np.testing.assert_allclose(found.groups[1].load().p_Q_B[:2], expected.p_Q_B, atol=1e-6)
    (tmp_path / "p" / "b.parquet").unlink()
    done.clear()
    predict_folder(predictor, texts, tmp_path / "p", progress=lambda stage, at, number: done.append(at))
    assert done == [30]
    predictor.save(tmp_path / "predictor")
    out = tmp_path / "budgets.parquet"
    said = call("plan", str(tmp_path / "predictor"), str(texts), "--mean-tokens", "40", "--out", str(out))
    assert said.code == 0
    assert sum(pq.read_table(out)["budget"].to_pylist()) <= 60 * 40


def test_predictions_of_other_questions_or_by_another_predictor_are_not_used(predictor, tmp_path):
    texts, out = tmp_path / "texts", tmp_path / "p"
    texts.mkdir()

    def write(name: str, first: int) -> None:
        rows = {"question": [f"What is {a} plus 5?" for a in range(first, first + 30)]}
        pq.write_table(pa.table(rows), texts / f"{name}.parquet")

    def predicted(by=predictor) -> list[int]:
        done: list[int] = []
        predict_folder(by, texts, out, progress=lambda stage, at, number: done.append(at))
        return done

    write("a", 0)
    write("b", 30)
    assert predicted() == [0, 30]
    assert predicted() == []
    write("b", 60)  # as many questions, and others
    assert predicted() == [30]
    assert predicted(replace(predictor, card=replace(predictor.card, seed=predictor.card.seed + 1))) == [0, 30]
    (texts / "a.parquet").unlink()
    with pytest.raises(InvalidSettingsError, match=r"a\.parquet\); delete it"):
        predicted()


def ft_features(texts, ids):
    return Features(len(texts), None, tuple(texts), None, tuple(ids))


def test_questions_that_are_no_texts_are_named(predictor, tmp_path):
    texts = tmp_path / "texts"
    texts.mkdir()
    pq.write_table(pa.table({"question": ["fine", None]}), texts / "a.parquet")
    with pytest.raises(InvalidInputError, match="row 2"):
        predict_folder(predictor, texts, tmp_path / "p")
    pq.write_table(pa.table({"other": ["fine"]}), texts / "a.parquet")
    with pytest.raises(InvalidInputError, match="--question-column"):
        predict_folder(predictor, texts, tmp_path / "p")


def test_a_predictor_of_hidden_states_gets_an_engine(call, tmp_path):
    engine = FakeEngine(template=load_template("worked-5"))
    asked = [f"What is {a} plus {a + 3}?" for a in range(40)]
    rows = [{"id": f"q{a}", "question": text, "answer": str(2 * a + 3)} for a, text in enumerate(asked)]
    trained = ft.train(ft.profile(engine, rows, menu="16:64:16", num_traces=2, layers=[2]), predictor="ridge")
    trained.save(tmp_path / "predictor")
    texts = tmp_path / "texts"
    texts.mkdir()
    pq.write_table(pa.table({"id": [row["id"] for row in rows], "question": asked}), texts / "a.parquet")
    typed = ["plan", str(tmp_path / "predictor"), str(texts), "--model", "fake", "--engine", "fake"]
    said = call(*typed, "--mean-tokens", "40", "--out", str(tmp_path / "budgets.parquet"))
    assert said.code == 0, said.err
    found = Predictions.open(tmp_path / "budgets.parquet-predictions").groups[0].load()
    whole = ft.plan(trained, rows, mean_tokens=40, engine=engine)
    np.testing.assert_allclose(found.p_Q_B, whole.forecast.curves.p_Q_B, atol=1e-6)
