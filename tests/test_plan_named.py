"""Plans on menus of named options, in tokens and in money: training, predicting, dividing, keeping, editing."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import forethought as ft
from forethought.control.plan import Plan
from forethought.control.terms import Terms
from forethought.core.data import Cost
from forethought.core.menu import Menu
from forethought.core.options import Option, Price
from forethought.core.profile import Profile
from forethought.core.provenance import Provenance
from forethought.core.settings import PlanSettings, RunSettings
from forethought.errors import (
    InvalidInputError,
    InvalidMenuError,
    InvalidSettingsError,
    InvalidTotalError,
    RunError,
)
from forethought.predictors.predictor import Predictor
from forethought.predictors.training import cross_fit, train
from forethought.predictors.usage import spent_within, stretched

# The small model thinks longest and is the cheapest; on short questions it is as good as the large one.
OPTIONS = (
    Option("large, low", set={"model": "large", "reasoning_effort": "low"}, price=Price(2.0, 10.0), tokens=100),
    Option("large, high", set={"model": "large", "reasoning_effort": "high"}, price=Price(2.0, 10.0), tokens=600),
    Option("small", set={"model": "small"}, price=Price(0.1, 0.5), tokens=900),
)
MENU = Menu.named(OPTIONS)
TEXTS = [
    f"How much is {row} plus {row % 7}?" + " Show that it is so, with every step." * (row % 2) for row in range(60)
]


def profile(*, lacking: int = 0, priced: bool = True, with_input: bool = True) -> Profile:
    """60 questions, 20 draws per option; every second question is long and hard. The last `lacking` lack an option."""
    random = np.random.default_rng(0)
    is_hard_Q_1 = (np.arange(60) % 2 == 1)[:, None]
    p_Q_B = np.where(is_hard_Q_1, [0.1, 0.9, 0.2], [0.8, 0.85, 0.9])
    tokens_Q_B = np.where(is_hard_Q_1, [120.0, 800.0, 1500.0], [80.0, 400.0, 300.0]) * random.uniform(0.9, 1.1, (60, 3))
    tried_Q_B = np.full((60, 3), 20)
    tried_Q_B[60 - lacking :, 1] = 0
    right_Q_B = random.binomial(tried_Q_B, p_Q_B)
    menu = MENU if priced else Menu.named(replace(option, price=None) for option in OPTIONS)
    return Profile(
        query_ids=tuple(f"q{row}" for row in range(60)),
        menu=menu,
        num_right_Q_B=right_Q_B,
        num_tried_Q=tried_Q_B.max(axis=1),
        tokens_Q_B=np.where(tried_Q_B > 0, tokens_Q_B, np.nan),
        reasoning_Q_B=np.where(tried_Q_B > 0, tokens_Q_B - 10.0, np.nan),
        texts=tuple(TEXTS),
        provenance=Provenance(engine="import", model="two models", spend_measured=True),
        tried_Q_B=tried_Q_B,
        input_Q_B=np.where(tried_Q_B > 0, [50.0, 50.0, 70.0], np.nan) if with_input else None,
    )


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return train(profile(lacking=4), predictor="text")


def test_a_cheaper_option_may_be_the_better_one_after_training(predictor: Predictor) -> None:
    """Neither accuracy nor usage is made to ascend along the menu, and each kind of question keeps its own best."""
    curves = predictor.predict(TEXTS[:2])
    assert curves.tokens_Q_B is not None
    easy_p_B, hard_p_B = curves.p_Q_B
    assert easy_p_B[2] > easy_p_B[1] - 0.1
    assert hard_p_B[1] > hard_p_B[2] + 0.4
    assert curves.tokens_Q_B[0, 2] < curves.tokens_Q_B[0, 1] < curves.tokens_Q_B[1, 1] < curves.tokens_Q_B[1, 2]
    assert curves.input_Q_B is not None
    assert curves.input_Q_B.tolist() == [[50.0, 50.0, 70.0]] * 2


def test_questions_that_lack_an_option_are_left_out_of_training(predictor: Predictor, tmp_path: Path) -> None:
    assert (predictor.card.data.num_queries, predictor.card.data.num_left_out) == (56, 4)
    again = Predictor.load(predictor.save(tmp_path / "p"))
    assert again.card == predictor.card
    assert again.card.mean_input_B == (50.0, 50.0, 70.0)
    assert again.predict(TEXTS).tokens_Q_B == pytest.approx(predictor.predict(TEXTS).tokens_Q_B)


@pytest.mark.parametrize("name", ["mean", "text", "ridge"])
def test_out_of_fold_predictions_know_no_order_of_options(name: str) -> None:
    measured = profile()
    if name == "ridge":
        is_hard_Q = np.arange(60) % 2
        hidden_Q_L_D = np.random.default_rng(1).normal(0, 0.1, (60, 1, 4)) + is_hard_Q[:, None, None]
        measured = replace(measured, hidden_Q_L_D=hidden_Q_L_D.astype(np.float32), layers=(3,))
    predicted, mean = cross_fit(measured, predictor=name)
    assert mean.tokens_Q_B is not None
    assert predicted.tokens_Q_B is not None
    assert mean.tokens_Q_B[0] == pytest.approx(measured.tokens_Q_B.mean(axis=0), rel=1e-3)
    assert mean.p_Q_B[0, 1] > mean.p_Q_B[0, 2] + 0.2
    if name != "mean":
        assert (predicted.tokens_Q_B[::2, 2] < predicted.tokens_Q_B[::2, 1]).mean() > 0.9
    assert predicted.input_Q_B is not None


@pytest.mark.parametrize("terms", [{"mean_usd": 0.002}, {"total_usd": 0.12}], ids=["mean", "total"])
def test_a_plan_in_money(predictor: Predictor, terms: dict[str, float], tmp_path: Path) -> None:
    plan = ft.plan(predictor, TEXTS, **terms)  # type: ignore[arg-type]
    made = plan.allocation
    assert made.cost is Cost.USD
    assert made.total == pytest.approx(0.12)
    curves, column_Q = plan.forecast.curves, MENU.columns(made.budget_Q)
    by_hand = (
        np.array([50.0, 50.0, 70.0])[column_Q] * np.array([2.0, 2.0, 0.1])[column_Q]
        + curves.tokens_Q_B[np.arange(60), column_Q] * np.array([10.0, 10.0, 0.5])[column_Q]  # type: ignore[index]
    ).sum() / 1e6
    assert made.expected_usd == pytest.approx(by_hand)
    assert made.expected_usd <= 0.12
    assert made.expected_spent == pytest.approx(curves.tokens_Q_B[np.arange(60), column_Q].sum())  # type: ignore[index]
    assert set(plan.options.values()) == {"small", "large, high"}
    assert "of 0.12 USD expected to be spent" in repr(plan)
    assert min(row for row, name in enumerate(plan.options.values()) if name == "large, high") % 2 == 1

    again = Plan.load(plan.save(tmp_path / "p.json"))
    assert again.budgets == plan.budgets
    assert again.allocation.expected_usd == made.expected_usd
    assert again.terms == plan.terms
    assert again.notes == plan.notes
    assert again.forecast.curves.input_Q_B is not None
    assert again.menu.options == MENU.options


def test_a_plan_in_tokens_says_the_money_beside_them(predictor: Predictor) -> None:
    made = ft.plan(predictor, TEXTS, mean_tokens=300, cost="spent").allocation
    assert made.cost is Cost.SPENT
    assert made.expected_spent is not None
    assert made.expected_spent <= 300 * 60
    assert made.expected_usd is not None
    assert made.expected_usd > 0


def test_a_plan_is_edited_by_the_names_of_options(predictor: Predictor, tmp_path: Path) -> None:
    plan = ft.plan(predictor, TEXTS, mean_usd=0.002)
    ids = list(plan.budgets)
    cheaper = plan.with_budgets(dict.fromkeys(ids, "small"))
    assert set(cheaper.options.values()) == {"small"}
    assert cheaper.allocation.total == plan.allocation.total
    assert cheaper.allocation.expected_usd < plan.allocation.expected_usd  # type: ignore[operator]
    dearer = plan.with_budgets(dict.fromkeys(ids, "large, high"))
    assert dearer.terms.total_usd == dearer.allocation.total == dearer.allocation.expected_usd
    assert dearer.terms.mean_usd is None
    assert any("USD (0.12 USD before)" in note for note in dearer.notes)
    with pytest.raises(InvalidMenuError, match="there is no option 'larger'"):
        plan.with_budgets({ids[0]: "larger"})

    content = json.loads(plan.save(tmp_path / "p.json").read_text())
    rows = content["plans"]["envelope"]["budgets"]
    assert rows[0] == {"id": ids[0], "option": plan.options[ids[0]]}
    for row in rows:
        row["option"] = "small"
    (tmp_path / "p.json").write_text(json.dumps(content))
    edited = Plan.load(tmp_path / "p.json")
    assert set(edited.options.values()) == {"small"}
    assert any("were edited" in note and "USD" in note for note in edited.notes)
    for row in rows:
        row["option"] = "large, high"
    (tmp_path / "p.json").write_text(json.dumps(content))
    with pytest.raises(InvalidTotalError, match=r"its budgets take [\d.]+ USD .* its total is 0\.12 USD"):
        Plan.load(tmp_path / "p.json")
    rows[3]["option"] = "medium"
    (tmp_path / "p.json").write_text(json.dumps(content))
    with pytest.raises(RunError, match=r"'medium', of 'q?.*', is not an option of the menu"):
        Plan.load(tmp_path / "p.json")


WRONG_TERMS = {
    "none": ({}, "give either mean_tokens or total, or in money mean_usd or total_usd"),
    "two": ({"mean_usd": 1.0, "mean_tokens": 64}, "give either"),
    "money in tokens": ({"mean_tokens": 64, "cost": Cost.USD}, "a total in money is mean_usd or total_usd"),
    "tokens in money": ({"mean_usd": 1.0, "cost": Cost.SPENT}, "mean_usd is in money"),
    "caps in money": ({"mean_usd": 1.0, "cost": Cost.GRANTED}, "mean_usd is in money"),
    "nothing": ({"total_usd": 0.0}, "total_usd must be above 0"),
    "text": ({"total_usd": "1"}, "total_usd must be a number of USD, not '1'"),
}


@pytest.mark.parametrize(("given", "words"), WRONG_TERMS.values(), ids=WRONG_TERMS.keys())
def test_totals_that_are_none(given: dict[str, float], words: str) -> None:
    with pytest.raises(InvalidSettingsError, match=words):
        Terms(**given)  # type: ignore[arg-type]


def test_flags_of_a_total_in_money() -> None:
    asked = PlanSettings(run="r", questions="q", mean_usd=0.01)
    assert (asked.cost, asked.total_for(50)) == (Cost.USD, 0.5)
    assert PlanSettings(run="r", questions="q", total_usd=3.0).total_for(50) == 3.0
    for given, words in (
        ({"mean_usd": 1.0, "mean_tokens": 64.0}, "give either --mean-tokens N or --total-tokens N, or in money"),
        ({"mean_tokens": 64.0, "cost": Cost.USD}, "--cost usd needs a total in money: --mean-usd N or --total-usd N"),
        ({"mean_usd": 1.0, "cost": Cost.SPENT}, "--cost spent counts tokens"),
        ({"mean_usd": 1.0, "cost": Cost.GRANTED}, "--cost granted counts tokens"),
        ({"total_usd": -1.0}, "--total-usd must be a positive number of USD"),
    ):
        with pytest.raises(InvalidSettingsError, match=words):
            PlanSettings(run="r", questions="q", **given)  # type: ignore[arg-type]
    with pytest.raises(InvalidSettingsError, match="--hard-total counts tokens"):
        RunSettings(plan=asked, hard_total=True)


def test_what_no_plan_in_money_can_be_made_of() -> None:
    """Said before anything is predicted."""
    unpriced = train(profile(priced=False), predictor="mean")
    with pytest.raises(InvalidMenuError, match="money needs a price for every option; 'large, low' has none"):
        ft.plan(unpriced, TEXTS, mean_usd=0.01)
    unknown = train(profile(with_input=False), predictor="mean")
    with pytest.raises(InvalidInputError, match="the prompts' tokens have a price and are not known"):
        ft.plan(unknown, TEXTS, mean_usd=0.01)
    known = train(profile(), predictor="mean")
    with pytest.raises(InvalidTotalError, match=r"mean_usd 1e-05 cannot pay .* Give at least mean_usd 0\.000\d+\."):
        ft.plan(known, TEXTS, mean_usd=0.00001)


def test_longer_thoughts_of_named_options_take_more_and_are_right_as_often(predictor: Predictor) -> None:
    curves = predictor.predict(TEXTS[:5])
    longer = stretched(curves, 2.0)
    assert longer.p_Q_B is curves.p_Q_B
    assert longer.tokens_Q_B == pytest.approx(2.0 * curves.tokens_Q_B)  # type: ignore[operator]
    assert spent_within(curves, np.full(5, MENU.smallest)) is None


def test_what_plan_prints_of_named_options(predictor: Predictor, tmp_path: Path, call: Any) -> None:
    predictor.save(tmp_path / "p")
    profile().save(tmp_path / "q.parquet")
    asked = ("plan", "p", "q.parquet", "--mean-usd", "0.002", "--quiet")
    said = call(*asked, "--out", "b.jsonl", "--json")
    assert said.code == 0, said
    told = json.loads(said.out)
    assert (told["cost"], told["total"]) == ("usd", pytest.approx(0.12))
    assert told["expected_usd"] <= 0.12
    assert told["expected_spent"] > 0
    rows = [json.loads(line) for line in (tmp_path / "b.jsonl").read_text().splitlines()]
    assert rows == told["budgets"]
    assert {row["option"] for row in rows} == {"small", "large, high"}
    assert sum(row["expected_usd"] for row in rows) == pytest.approx(told["expected_usd"], rel=1e-4)

    text = call(*asked, "--out", "p.json").out
    for line in (
        r"total +0\.12 USD \(0\.002 USD per question\)",
        r"expected +0\.1\d* USD \(0\.00\d+ USD per question\), [\d,]+ tokens generated \(.* per question\), accuracy.*",
        r"price +[\d.]+ right answers per USD at the margin",
        r"large, low +0",
        r"small +\d+ +\d+\.\d% +[\d,.]+ +0\.000\d+ USD",
    ):
        assert re.search(f"^{line}$", text, re.MULTILINE), (line, text)
    assert "granted" not in text
    assert Plan.load("p.json").allocation.expected_usd == pytest.approx(told["expected_usd"])
    in_tokens = call("plan", "p", "q.parquet", "--mean-tokens", "300", "--cost", "spent", "--quiet").out
    assert re.search(r"^total +18,000 tokens \(300\.0 per question\)$", in_tokens, re.MULTILINE), in_tokens
    assert re.search(r"^expected +0\.\d+ USD \(", in_tokens, re.MULTILINE), in_tokens
    refused = call("plan", "p", "q.parquet", "--mean-usd", "0.00001", "--quiet")
    assert refused.code == 1
    assert "Give at least --mean-usd 0.0" in refused.err
    refused = call("plan", "p", "q.parquet", "--mean-tokens", "300", "--cost", "usd", "--quiet")
    assert "--cost usd needs a total in money" in refused.err
