"""Named options and money on the command line: show, ls, train, evaluate and compare on a profile's file."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command_line import Call
from evaluation_data import OPTIONS, named, profile, synthetic
from forethought.commands.listing import list_results
from forethought.commands.showing import item_text, show, shown_text
from forethought.control.evaluating import evaluate
from forethought.core.menu import Menu
from forethought.core.profile import Profile
from forethought.predictors.training import train
from forethought.runs.profiles import on_menu

LABELS = ("large-low", "large-high", "small")


def lacking(num_queries: int, *, seed: int = 0) -> Profile:
    """Some queries were not tried under `small`, others less often."""
    measured = named(num_queries, seed=seed)[0]
    tried_Q_B = np.full((num_queries, 3), 4)
    tried_Q_B[:3, 2], tried_Q_B[3:6, 0] = 0, 2
    return dataclasses.replace(
        measured,
        query_ids=tuple(f"{seed}-{row}" for row in range(num_queries)),
        num_right_Q_B=np.minimum(measured.num_right_Q_B, tried_Q_B),
        tried_Q_B=tried_Q_B,
    )


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    pair = (tmp_path / "train.parquet", tmp_path / "test.parquet")
    lacking(60).save(pair[0])
    lacking(40, seed=1).save(pair[1])
    return pair


def test_show_of_a_profile_names_options_tries_costs_and_prices(files: tuple[Path, Path]) -> None:
    measured = Profile.load(files[0])
    found = show(str(files[0]))
    assert found["options"] == list(LABELS)
    assert found["tries"] == [[2, 4], [4, 4], [0, 4]]
    assert found["lacking"] == 3
    assert found["usd_per_million"] == [{"input": 2.0, "output": 8.0}] * 2 + [{"input": 0.1, "output": 0.4}]
    tries_Q_B, bill_Q_B = measured.tries_Q_B, measured.curves.usd_Q_B
    for column, usd in enumerate(found["usd"]):
        weights = tries_Q_B[:, column] / tries_Q_B[:, column].sum()
        assert usd == pytest.approx(float(weights @ bill_Q_B[:, column]), rel=1e-5)
        right = measured.num_right_Q_B[:, column].sum() / tries_Q_B[:, column].sum()
        assert found["accuracy"][column] == pytest.approx(right, abs=1e-4)
    text = shown_text(json.loads(json.dumps(found)))
    assert "option" in text.splitlines()[2]
    assert "cap" not in text
    assert "3 questions were not tried under every option" in text
    assert "2–4" in text


def test_show_of_caps_is_as_it_was(tmp_path: Path) -> None:
    profile([[0, 1], [1, 1]], 2, [[5, 9], [5, 9]]).save(tmp_path / "caps.parquet")
    found = show(str(tmp_path / "caps.parquet"))
    assert "options" not in found
    assert "   cap  right  mean tokens generated" in shown_text(found)
    assert "    10  25.0%       5.0" in shown_text(found)


def test_ls_counts_the_traces_of_the_option_that_takes_most(files: tuple[Path, Path]) -> None:
    measured = Profile.load(files[0])
    (row,) = [each for each in list_results(str(files[0].parent)) if each["run"] == str(files[0])]
    tries_Q = measured.tries_Q_B[:, 2]
    assert row["traces"] == 240
    assert row["right"] == pytest.approx(measured.num_right_Q_B[:, 2].sum() / tries_Q.sum(), abs=1e-4)
    assert row["tokens"] == pytest.approx(float(tries_Q @ measured.tokens_Q_B[:, 2] / tries_Q.sum()), abs=1e-3)


def test_a_question_is_shown_by_option() -> None:
    found = {
        "id": "q1",
        "simulated": False,
        "question": "?",
        "reference": None,
        "budgets": {"envelope": 300},
        "options": {"envelope": "large-low"},
        "labels": list(LABELS),
        "predicted": {"p": [0.25, 0.5, 0.75]},
        "measured": {"options": list(LABELS), "tries": [4, 4, 0], "num_right": [1, 4, 0], "tokens": [3.0, 5.0, 7.0]},
        "traces": [],
    }
    text = item_text(found)
    assert "options     envelope large-low" in text
    assert "large-low 25%, large-high 50%, small 75%" in text
    assert "4 of 4" in text
    assert "0 of 0" in text


def test_train_prints_the_mean_curve_by_option(call: Call, files: tuple[Path, Path], tmp_path: Path) -> None:
    said = call("train", files[0], "--predictor", "mean", "--out", tmp_path / "predictor")
    assert said.code == 0
    assert all(label in said.out for label in LABELS)
    assert "mean USD" in said.out
    assert "--mean-usd USD" in said.out


def test_evaluate_writes_both_units_and_takes_levels_of_both(
    call: Call, files: tuple[Path, Path], tmp_path: Path
) -> None:
    call("train", files[0], "--predictor", "mean", "--out", tmp_path / "predictor")
    how: tuple[Any, ...] = ("--resamples", 100, "--no-plots", "--quiet", "--out", tmp_path / "report")
    said = call("evaluate", tmp_path / "predictor", "--on", files[1], "--mean-usd", "0.002,0.004", *how, "--json")
    assert said.code == 0, said.err
    assert said.json["levels"]["usd"] == [0.002, 0.004]
    assert len(said.json["levels"]["spent"]) > 2
    assert "granted" not in said.json["levels"]
    assert said.json["num_queries"] == 37
    assert any("3 of 40 queries were not tried under every option" in note for note in said.json["notes"])
    text = call("evaluate", tmp_path / "predictor", "--on", files[1], *how).out
    assert "USD per question" in text
    assert "spent tokens per question" in text
    assert "accuracy at equal USD" in (tmp_path / "report" / "evaluation.md").read_text("utf-8").lower().replace(
        "usd", "USD"
    )


def test_compare_has_a_table_for_each_unit(call: Call, files: tuple[Path, Path], tmp_path: Path) -> None:
    for name in ("one", "two"):
        call("train", files[0], "--predictor", "mean", "--out", tmp_path / name)
    how = ("--resamples", 100, "--no-plots", "--quiet", "--out", tmp_path / "report")
    said = call("compare", tmp_path / "one", tmp_path / "two", "--on", files[1], *how)
    assert said.code == 0, said.err
    assert "levels of spent tokens" in said.out
    assert "levels of USD" in said.out


WRONG: dict[str, tuple[tuple[Any, ...], str]] = {
    "no money in caps": (("--mean-usd", "0.01"), "money needs a price for every option"),
    "a level of nothing": (("--mean-usd", "0"), "--mean-usd must be a positive number of USD, not 0"),
    "not a number": (("--mean-tokens", "many"), "'many' is not a number"),
}


@pytest.mark.parametrize(("flags", "words"), WRONG.values(), ids=WRONG.keys())
def test_wrong_levels_are_refused_in_words(flags: tuple[Any, ...], words: str, call: Call, tmp_path: Path) -> None:
    synthetic(12)[0].save(tmp_path / "caps.parquet")
    said = call("evaluate", tmp_path / "caps.parquet", "--predictor", "mean", "--no-plots", "--quiet", *flags)
    assert said.code in (1, 2)
    assert words in said.err


def test_a_predictor_of_other_budgets_or_fewer_options_is_judged_by_name() -> None:
    measured = lacking(40, seed=1)
    trained = train(lacking(60), predictor="mean")
    found = evaluate(trained, measured, num_resamples=100)
    assert not any("compared at those in both" in note for note in found.notes)

    moved = [dataclasses.replace(each, tokens=700 - (each.tokens or 0) / 4) for each in OPTIONS]
    elsewhere = on_menu(measured, Menu.named(moved))
    assert elsewhere.menu.labels != measured.menu.labels
    again = evaluate(trained, elsewhere, num_resamples=100)
    assert again.menu == elsewhere.menu
    by_label = [{each.label: each.accuracy.value for each in one.options} for one in (found, again)]
    assert by_label[0] == pytest.approx(by_label[1])
    blind = [[row.accuracy.value for row in one.rows if row.policy == "blind"] for one in (found, again)]
    assert blind[0] == pytest.approx(blind[1])

    fewer = on_menu(measured, measured.menu.select([0, 1]))
    narrowed = evaluate(trained, fewer, num_resamples=100)
    assert narrowed.menu.labels == LABELS[:2]
    assert narrowed.num_queries == 40
    assert any("compared at those in both, large-low, large-high" in note for note in narrowed.notes)
