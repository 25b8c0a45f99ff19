"""Reports say everything an honest reader needs: both costs, both baselines, intervals, losses, and "simulated"."""

from __future__ import annotations

import importlib.util
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation_data import named, profile, synthetic
from forethought import report
from forethought.control.answers import Answer, counts_of
from forethought.control.forecast import Forecast
from forethought.control.plan import Plan
from forethought.control.planning import allocate
from forethought.control.terms import Terms
from forethought.core.data import Cost, Curves, Grade, Query, StopReason
from forethought.core.menu import Menu
from forethought.core.options import Option
from forethought.core.terms import TOKEN_COSTS, percent
from forethought.errors import InvalidInputError
from forethought.evaluation import Estimate, Evaluation, LiveComparison, compare_live, evaluate
from forethought.report.findings import groups_title, shares_title
from forethought.report.html import render
from forethought.report.questions import evaluated_questions
from forethought.report.run import RunResult, run_page
from forethought.report.wording import amount, gain_words, interval, level_words, points

FACTS = {"command": "forethought evaluate x --on y", "device": "2 CPU cores", "odd": math.nan, "grader": "number"}


@pytest.fixture(scope="module")
def result() -> Evaluation:
    return evaluate(*synthetic(40, noise=2.0), num_resamples=200, provenance=FACTS)


def live(num_questions: int = 12, **options: Any) -> LiveComparison:
    random = np.random.default_rng(0)
    columns = {
        name: (random.integers(0, 2, num_questions), np.full(num_questions, 64), random.uniform(30, 70, num_questions))
        for name in ("uniform", "blind", "forethought")
    }
    return compare_live(columns, num_resamples=200, **options)


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["evaluation", "live"])
def test_files_are_finite_json_and_whole_markdown(kind: str, result: Evaluation, tmp_path: Path) -> None:
    found = result if kind == "evaluation" else live()
    files = report.page(found).write(tmp_path / "new" / "folder", plots=False)
    assert set(files) == {"html", "json", "markdown"}
    content = json.loads(files["json"].read_text("utf-8"), parse_constant=refuse)
    assert content == report.page(found).to_json()
    assert (content["kind"], content["schema"]) == (kind, 2)
    assert {"forethought", "numpy", "python"} <= set(content["versions"])
    page = files["markdown"].read_text("utf-8")
    assert "nan" not in page.replace("`nan`", "").lower().split()
    for row in re.findall(r"(?:^\|.*\n)+", page, flags=re.MULTILINE):  # every table has as many cells in every row
        assert len({line.count("|") for line in row.splitlines()}) == 1


def test_json_holds_every_policy_at_every_level_of_both_costs(result: Evaluation) -> None:
    rows = report.page(result).to_json()["rows"]
    for cost in TOKEN_COSTS:
        for policy in ("uniform", "blind", "forethought", "greedy", "greedy-oracle", "oracle"):
            found = [row for row in rows if (row["cost"], row["policy"]) == (cost.value, policy)]
            assert [row["budget"] for row in found] == list(result.levels[cost])
            assert all(row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"] for row in found)
    ours = [row for row in rows if row["policy"] == "forethought"]
    assert all(row["gain"] is not None and row["gain_over_blind"] is not None for row in ours)


def test_odd_provenance_becomes_plain(result: Evaluation) -> None:
    odd = replace(result, provenance={"nan": math.nan, "path": Path("a"), "array": np.arange(2), "deep": {1: {np.inf}}})
    assert report.page(odd).to_json()["provenance"] == {
        "nan": None,
        "path": "a",
        "array": [0, 1],
        "deep": {"1": [None]},
    }


def test_markdown_says_what_was_measured_how_and_where_it_did_not_pay(result: Evaluation, tmp_path: Path) -> None:
    page = report.page(result).write(tmp_path, plots=False)["markdown"].read_text("utf-8")
    for words in (
        "40 questions, 4 traces each",
        "equal granted tokens",
        "equal spent tokens",
        "gap closed over uniform",
        "gap closed over blind",
        "exact oracle",
        "Tokens saved at equal accuracy",
        "Where forethought is not ahead",
        "too optimistic",
        "calibration error",
        FACTS["command"],
        FACTS["device"],
        result.data_hash,
        "`abababab",
        "bootstrap seed",
        "200 resamples",
        "<details><summary>Every level, spent cost",
    ):
        assert str(words) in page, words
    assert page.count("<details>") == page.count("</details>") == 2
    assert "No pictures" not in page  # none were asked for


def test_text_shows_the_policies_under_both_costs_with_intervals_and_losses(result: Evaluation) -> None:
    text = report.page(result).text()
    assert text.index(" spent tokens per question\n") < text.index(
        " granted tokens per question\n"
    )  # what is paid first
    assert re.search(r"\d+ spent tokens per question", text)
    for policy in ("uniform", "blind", "forethought", "exact oracle"):
        lines = re.findall(rf"^{policy} +\d+\.\d% \[\d+\.\d, \d+\.\d\]", text, flags=re.MULTILINE)
        assert len(lines) == 2, policy
    for cost in ("granted", "spent"):
        for baseline in ("uniform", "blind"):
            assert re.search(rf"significantly better than {baseline} at \d+ of \d+ {cost} levels", text)
    assert max(map(len, text.splitlines())) < 260


@pytest.mark.parametrize(("asked", "shown"), [(16, "16"), (50, "48"), (1000, "256")])
def test_comparison_at_the_nearest_level(asked: float, shown: str, result: Evaluation) -> None:
    text = report.evaluation_page(result, mean_tokens=asked).text()
    assert f"{shown} granted tokens" in text
    granted, spent = (float(match) for match in re.findall(r"^uniform .*?\] +([\d.]+) +([\d.]+)", text, re.M)[1])
    level = float(re.findall(r"([\d.]+) spent tokens per question", text)[0])
    assert granted == float(shown)
    nearest = min(result.levels[Cost.SPENT], key=lambda each: abs(each - spent))
    assert level == nearest


MARKS = {
    "ahead": (Estimate(0.05, 0.01, 0.09), "+5.0 [+1.0, +9.0]"),
    "includes 0": (Estimate(0.05, -0.01, 0.09), "+5.0 [−1.0, +9.0] ~"),
    "touches 0": (Estimate(0.05, 0.0, 0.09), "+5.0 [0.0, +9.0] ~"),
    "below 0": (Estimate(-0.05, -0.09, -0.01), "−5.0 [−9.0, −1.0] ▼"),
    "no difference": (Estimate(0.0, 0.0, 0.0), "0.0 [0.0, 0.0] ="),
    "nothing": (None, "–"),
}


@pytest.mark.parametrize(("gain", "words"), MARKS.values(), ids=MARKS.keys())
def test_gains_are_marked_where_they_are_not_clearly_above_zero(gain: Estimate | None, words: str) -> None:
    assert gain_words(gain) == words


def test_what_rounds_to_nothing_has_no_sign() -> None:
    assert [points(value) for value in (-0.0001, 0.0001, -0.01)] == ["0.0", "0.0", "−1.0"]


def test_a_saving_that_is_never_reached_is_said_in_words(result: Evaluation) -> None:
    never = Estimate(math.inf, 100.0, math.inf)
    savings = tuple(replace(each, needed=never, ratio=never) for each in result.savings)
    lost = replace(result, savings=savings)
    assert "no cap on the menu reaches" in report.evaluation_page(lost, mean_tokens=64).text()
    assert all(each["needed"] is None for each in report.page(lost).to_json()["savings"])


@pytest.mark.parametrize("simulated", [True, False])
@pytest.mark.parametrize("kind", ["evaluation", "live"])
def test_a_simulation_says_so_everywhere(kind: str, simulated: bool, result: Evaluation, tmp_path: Path) -> None:
    found: Any = replace(result, simulated=simulated) if kind == "evaluation" else live(simulated=simulated)
    page = report.page(found).write(tmp_path, plots=False)["markdown"].read_text("utf-8")
    assert report.page(found).to_json()["simulated"] is simulated
    assert ("SIMULATED" in page) is simulated
    assert ("SIMULATED" in report.page(found).text()) is simulated


def test_few_live_questions_prove_nothing_and_that_is_said(tmp_path: Path) -> None:
    few, many = live(12, provenance={"model": "m", "command": "forethought evaluate r"}), live(400)
    sentence = re.compile(r"n = 12 questions are too few to prove a difference; interval −[\d.]+ to \+[\d.]+ points")
    page = report.page(few).write(tmp_path)["markdown"].read_text("utf-8")
    assert sentence.search(report.page(few).text())
    assert sentence.search(page)
    assert "forethought evaluate r" in page
    assert "too few to prove" not in report.page(many).text()


def test_without_matplotlib_there_are_no_pictures_and_a_note(
    result: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    files = report.page(result).write(tmp_path, plots=True)
    assert set(files) == {"html", "json", "markdown"}
    assert "matplotlib is not installed" in files["html"].read_text("utf-8")
    assert "matplotlib is not installed" in files["markdown"].read_text("utf-8")


def test_the_same_evaluation_writes_the_same_bytes(result: Evaluation, tmp_path: Path) -> None:
    first, again = (report.page(result).write(tmp_path / name, plots=False) for name in ("a", "b"))
    for name in first:
        assert first[name].read_bytes() == again[name].read_bytes()


@pytest.fixture(scope="module")
def in_usd() -> Evaluation:
    return evaluate(*named(40), num_resamples=100)


def test_named_options_are_reported_by_name_in_tokens_and_in_usd(in_usd: Evaluation) -> None:
    page = report.page(in_usd)
    text, markdown = page.text(), page.markdown({})
    for label in in_usd.menu.labels:
        assert label in text
        assert label in markdown
    for told in (text, markdown):
        assert "granted" not in told.replace("under granted cost", "")
        assert "weighted by USD" in told
        assert "weighted by tokens" in told
    level = next(part.title for part in page.parts if part.title.endswith("USD per question"))
    table = markdown.split(f"### {level}\n")[1].split("\n### ")[0]
    assert "| policy | right | USD | spent |" in table  # the unit that was planned, the other beside it
    assert "| questions at | large-low | large-high | small |" in table
    assert "| policy | right | spent | USD |" in markdown
    assert "| level | forethought | with USD | with tokens | baseline | needs USD | times as much |" in markdown
    assert "| level | forethought | with tokens | with USD | baseline | needs tokens | times as many |" in markdown
    assert "## One option for all questions" in markdown
    assert "| option | Brier |" in markdown
    assert "e-0" not in text + markdown


def test_shares_at_each_option_are_those_of_the_rows(in_usd: Evaluation) -> None:
    told = report.page(in_usd).markdown({})
    for row in in_usd.select(Cost.USD, "oracle"):
        cells = " | ".join(f"{100 * share:.1f}%" for share in row.shares)
        if f"### {level_words(row.budget, Cost.USD)} USD per question" in told:
            assert f"| exact oracle | {cells} |" in told


def test_json_of_named_options_holds_both_units(in_usd: Evaluation) -> None:
    found = json.loads(json.dumps(report.page(in_usd).to_json()), parse_constant=refuse)
    assert set(found["levels"]) == {"spent", "usd"}
    assert [each["label"] for each in found["options"]] == list(in_usd.menu.labels)
    assert [each["label"] for each in found["menu"]] == list(in_usd.menu.labels)
    assert all(row["usd"] > 0 and row["spent"] > 0 for row in found["rows"])
    assert {saving["cost"] for saving in found["savings"]} == {"spent", "usd"}


def test_labels_cannot_break_a_table() -> None:
    odd = [Option("a|b *c*", tokens=100), Option("<b>x</b>", tokens=300)]
    told = report.page(evaluate(*named(20, options=odd), num_resamples=100)).markdown({})
    for rows in re.findall(r"(?:^\|.*\n)+", told, flags=re.MULTILINE):
        assert len({line.replace("\\|", "").count("|") for line in rows.splitlines()}) == 1
    assert "<b>x" not in told


@pytest.mark.parametrize(
    ("amount_", "words"),
    [(0.00123456, "0.001235"), (12.5, "12.50"), (0.0, "0.00"), (1234.5, "1,234.50"), (None, "not known")],
)
def test_amounts_in_usd_have_four_digits_and_no_powers_of_ten(amount_: float | None, words: str) -> None:
    assert amount(amount_, Cost.USD) == words


@pytest.mark.parametrize(
    ("share", "digits", "words"),
    [
        *((0.0, 1, "0.0%"), (1.0, 1, "100.0%"), (0.0004, 1, "<0.1%"), (0.9996, 1, ">99.9%"), (0.0005001, 1, "0.1%")),
        *((0.996, 0, ">99%"), (0.004, 0, "<1%"), (1.0 - 1e-12, 1, "100.0%"), (-0.12, 1, "−12.0%"), (-1e-5, 1, "0.0%")),
    ],
)
def test_a_share_is_not_rounded_to_none_or_all(share: float, digits: int, words: str) -> None:
    assert percent(share, digits) == words


def test_numbers_have_no_sign_before_0_and_levels_all_their_digits() -> None:
    assert interval(Estimate(-0.04, -0.3, 0.04), "+.1f") == "0.0 [−0.3, 0.0]"
    assert level_words(2_097_152.0, Cost.SPENT) == "2097152"


def test_both_pages_say_the_same_of_how_it_was_made(result: Evaluation) -> None:
    page = report.page(result, facts={"asked": {"shots": 3, "tokens": None}, "layers": (8, 12), "none": ""})
    assert "| asked | `shots 3` |" in page.markdown({})
    assert "| layers | `8, 12` |" in page.markdown({})
    assert "| none |" not in page.markdown({})
    assert "<dt>asked</dt><dd>shots 3</dd>" in render(page, {})


def test_titles_name_what_was_proven_and_who_got_what(result: Evaluation) -> None:
    cost, level = Cost.GRANTED, result.levels[Cost.GRANTED][0]
    row = result.select(cost, "forethought")[0]

    def title(*shares: float) -> str:
        rows = (replace(row, shares=(*shares, *[0.0] * (len(row.shares) - len(shares)))),)
        return shares_title(replace(result, rows=rows), cost, level).partition(", ")[2]

    assert title(1.0) == "every question gets 16"
    assert title(0.995, 0.005) == "99.5% of the questions get 16"
    assert title(*[1 / 160] * 16) == "forethought gives caps from 16 to 256"  # each of very many is rare
    assert groups_title([0.0] * 5, Cost.USD) == "Mean budget by difficulty"


def test_questions_of_equal_success_are_counted_as_equal() -> None:
    # A fifth of the traces at every cap: a mix of two caps differs from it in the last digit.
    measured = profile([[1, 1, 1]] * 25, 5, [[10.0, 20.0, 30.0]] * 25)
    mean_train = Curves(("mean",), measured.menu, measured.curves.p_Q_B[:1], measured.tokens_Q_B[:1])
    found = evaluate(measured, measured.curves, mean_train, mean_tokens=[12.3], num_resamples=100)
    questions = evaluated_questions(found, Cost.GRANTED)
    assert "on 0 questions, less often on 0, and equally often on 25" in questions.words


def test_failed_questions_count_as_not_right_in_every_table_of_a_run() -> None:
    menu = Menu.of([16, 64])
    queries, terms = tuple(Query(each, "?", reference="1") for each in "abc"), Terms(mean_tokens=16)
    forecast = Forecast(Curves(("a", "b", "c"), menu, np.full((3, 2), 0.5)), np.array([], dtype=np.int64))
    planned = Plan(queries, allocate(terms, queries, forecast), forecast, terms, None)
    answers = [
        Answer("a", 16, "1", 9, 9, StopReason.NATURAL, "1", Grade.RIGHT),
        Answer("b", 16, "2", 9, 9, StopReason.NATURAL, "1", Grade.WRONG),
        Answer("c", 16, None, reference="1", error="out of memory"),
    ]
    found = RunResult(counts_of(answers), None, simulated=False)
    said = run_page(found, planned, {"envelope": answers}, records=lambda ids: {}).markdown({})
    assert "1 of 3 questions are answered right" in said
    assert "| 16 | 3 | 1 of 3 |" in said


def test_live_policies_on_named_options_have_no_caps_and_a_bill() -> None:
    random = np.random.default_rng(0)
    columns = {
        name: (random.integers(0, 2, 40), None, random.uniform(300, 700, 40), np.full(40, bill))
        for name, bill in (("uniform", 0.0031), ("forethought", 0.0018))
    }
    found = compare_live(columns, num_resamples=100)
    (difference,) = found.differences
    assert difference.usd is not None
    assert difference.usd.value == pytest.approx(-0.0013)
    assert difference.granted is None
    text, markdown = report.page(found).text(), report.page(found).markdown()
    assert "granted" not in text + markdown
    assert "prices per question are not equal (0.0018 USD against 0.0031 USD)" in text
    assert "−0.001300 [−0.001300, −0.001300]" in markdown
    json.dumps(report.page(found).to_json(), allow_nan=False)


def test_live_columns_that_do_not_fit_are_refused_in_words() -> None:
    with pytest.raises(InvalidInputError, match=r"needs one verdict, cap .*; it has 2, 2, 1"):
        compare_live({"uniform": ([0, 1], [1, 1], [3.0])})
    with pytest.raises(InvalidInputError, match="prices must be finite"):
        compare_live({"uniform": ([0, 1], None, [3.0, 4.0], [math.nan, 1.0])})
