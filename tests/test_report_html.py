"""The HTML report: decision first, nothing loaded from elsewhere, what others wrote is text, readable everywhere."""

from __future__ import annotations

import importlib.util
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command_line import Call, write_questions
from evaluation_data import named, synthetic
from forethought import report
from forethought.core.data import Cost
from forethought.core.flags import typed
from forethought.core.settings import EngineSettings
from forethought.core.study_settings import EvaluateSettings
from forethought.evaluation import Estimate, Evaluation, compare_live, evaluate
from forethought.report.colours import COLOURS, DARK, LIGHT, on_dark
from forethought.report.findings import compared, evaluation_decision
from forethought.report.html import render
from forethought.report.questions import MOST, evaluated_questions

HOSTILE = (
    "<script>document.title='owned'</script>",
    '"><img src=x onerror="document.title=\'owned\'">',
    "</pre></td></table><b>bold</b>",
    "{{ 7 * 191 }}{% for x in y %}",
    "</style><style>body{display:none}",
    "\x1b[2J\u202egnorw",
    "https://example.com/x.js",
)


@pytest.fixture(scope="module")
def result() -> Evaluation:
    measured, predicted, mean = synthetic(160, noise=1.0, simulated=False)
    texts = tuple(f"{HOSTILE[row % len(HOSTILE)]} question {row}?" for row in range(160))
    return evaluate(
        replace(measured, texts=texts), predicted, mean, num_resamples=100, provenance={"model": HOSTILE[0]}
    )


@pytest.fixture(scope="module")
def page(result: Evaluation) -> str:
    return render(report.page(result, facts={"command": f"forethought evaluate {HOSTILE[1]}"}), {})


class Tags(HTMLParser):
    """Every tag with its attributes; fails on what is not closed in order."""

    VOID = ("meta", "img", "br", "link", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag


def test_what_others_wrote_is_text_and_nothing_else(page: str) -> None:
    tags = Tags(page).found
    assert [tag for tag, _ in tags].count("script") == [tag for tag, _ in tags].count("style") == 1
    assert not {"img", "b", "link", "iframe", "object", "base", "form"} & {tag for tag, _ in tags}
    assert not [name for _, attributes in tags for name in attributes if name.startswith("on")]
    assert "&lt;script&gt;" in page
    assert "{{ 7 * 191 }}" in page
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert r"\x1b[2J\u202egnorw" in page


def test_nothing_is_loaded_from_elsewhere(page: str) -> None:
    for _, attributes in Tags(page).found:
        assert not {"src", "href", "srcset", "action", "data"} & set(attributes)
    own = page.replace("https://example.com", "")
    assert "://" not in own
    assert "@import" not in own
    assert "url(" not in own
    assert "default-src 'none'" in page


def test_ids_are_told_apart_and_what_a_button_opens_is_there(page: str) -> None:
    tags = Tags(page).found
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    assert {attributes["aria-controls"] for _, attributes in tags if "aria-controls" in attributes} <= set(ids)


def test_the_decision_comes_first_with_what_is_paid_before_what_is_granted(result: Evaluation, page: str) -> None:
    first, second, third, *_ = evaluation_decision(result)
    row = next(each for each in result.select(Cost.SPENT, "forethought") if each.budget == result.headline[Cost.SPENT])
    assert first.startswith(f"At {row.spent:,.0f} tokens per question ")
    assert f"answers {100 * row.accuracy.value:.1f}% right, uniform " in first
    assert "n = 160 questions, 4 traces each" in second
    assert f"{100 * row.gain_over_blind.value:+.1f} points" in third
    body = page[page.index("<main>") :]
    assert body.index(first) < body.index("equal spent tokens") < body.index("equal granted tokens")


GAINS = {
    "ahead": (Estimate(0.05, 0.01, 0.09), "ours answers 40.0% right, other 35.0%"),
    "not proven": (Estimate(0.05, -0.01, 0.09), "no gain is proven: ours answers 40.0% right, other 35.0%"),
    "behind": (Estimate(-0.05, -0.09, -0.01), "ours is less accurate: it answers 40.0% right, other 35.0%"),
    "the same": (Estimate(0.0, 0.0, 0.0), "ours and other both answer 40.0% right"),
}


@pytest.mark.parametrize(("gain", "words"), GAINS.values(), ids=GAINS.keys())
def test_a_decision_says_when_there_is_no_gain(gain: Estimate, words: str) -> None:
    assert compared("ours", 0.4, "other", 0.35, gain).startswith(words)


def test_what_is_not_reached_is_said_in_words_and_never_as_a_number(result: Evaluation) -> None:
    never, in_part = Estimate(math.inf, math.inf, math.inf), Estimate(1.4, 1.2, math.inf)
    for ratio in (never, in_part):
        savings = tuple(replace(each, needed=ratio, ratio=ratio, reached=0.5) for each in result.savings)
        text = render(report.page(replace(result, savings=savings)), {})
        assert "not reached" in text
        assert "inf" not in re.sub(r"[a-z-]*inf[a-z]+", "", text.lower().split("<body>")[1])
        assert "∞" not in text


def test_the_gain_is_the_mean_over_the_questions_shown_and_left_out(result: Evaluation) -> None:
    few = evaluate(*synthetic(60, noise=1.0), num_resamples=100)
    found = evaluated_questions(few, Cost.SPENT)
    row = next(each for each in few.select(Cost.SPENT, "forethought") if each.budget == few.headline[Cost.SPENT])
    assert row.gain is not None
    assert np.mean([each.cells[3][1] for each in found.rows]) == pytest.approx(row.gain.value)
    many = evaluated_questions(result, Cost.SPENT)
    assert len(many.rows) == MOST
    assert "40 are left out" in many.words


def test_named_options_are_decided_in_tokens_and_in_usd() -> None:
    found = evaluate(*named(60), num_resamples=100)
    sentences = list(evaluation_decision(found))
    assert any(re.match(r"At [\d,.]+ tokens per question", each) for each in sentences)
    assert any(re.match(r"At 0\.\d+ USD per question", each) for each in sentences)
    page = render(report.page(found), {})
    assert "granted" not in page.split("<body>")[1].replace("under granted cost", "")


def test_the_same_result_is_the_same_page(result: Evaluation) -> None:
    assert render(report.page(result), {}) == render(report.page(result), {})


def test_policies_can_be_read_on_light_and_on_dark_ground() -> None:
    def luminance(colour: str) -> float:
        shares = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(one: str, other: str) -> float:
        low, high = sorted((luminance(one), luminance(other)))
        return (high + 0.05) / (low + 0.05)

    for colour in COLOURS.values():
        assert contrast(colour, LIGHT) >= 4.5
        assert contrast(on_dark(colour), DARK) >= 4.5
    assert on_dark(LIGHT) == DARK
    assert contrast(on_dark("#444444"), DARK) >= 4.5


def test_the_command_is_said_without_what_may_be_secret() -> None:
    options = {"api_key": "sk-1", "base_url": "https://me:pass@host/v1"}
    settings = EvaluateSettings(
        run="a b", on="y", plots=False, mean_tokens=(32.0, 64.0), engine=EngineSettings(options=options)
    )
    said = typed("forethought evaluate", settings)
    assert said.startswith("forethought evaluate 'a b' ")
    assert "--no-plots" in said
    assert "--mean-tokens 32 --mean-tokens 64" in said
    assert "sk-1" not in said
    assert "pass" not in said


def test_a_run_ends_in_a_report_with_every_thought_in_its_place(call: Call, in_tmp: Path) -> None:
    questions = write_questions(in_tmp / "new.jsonl", 12)
    lines = [json.loads(line) for line in questions.read_text("utf-8").splitlines()]
    lines[0]["question"] += HOSTILE[0]
    questions.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    call("profile", "fake", write_questions(in_tmp / "train.jsonl", 20), "--engine", "fake", "--traces", 2, "--quiet")
    call("train", "runs/fake-train", "--predictor", "mean")
    flags = ("--mean-tokens", 48, "--compare", "uniform", "--engine", "fake", "--out", "r", "--quiet", "--json")
    said = call("run", "runs/fake-train", questions, *flags)
    text = Path(said.json["report"]).read_text("utf-8")
    assert "SIMULATED" in text
    assert text.index("questions are answered right") < text.index("Where the tokens went")
    assert text.count('class="detail"') == 12
    assert text.count("thought of trace 0") == 12
    assert "&lt;script&gt;" in text
    assert [tag for tag, _ in Tags(text).found].count("script") == 1
    assert "forethought run runs/fake-train" in text
    evaluated = call("evaluate", "runs/fake-train", "--predictor", "mean", "--no-plots", "--resamples", 100, "--json")
    whole = next(Path(file) for file in evaluated.json["files"] if file.endswith(".html")).read_text("utf-8")
    assert whole.count("thought of trace") == 40  # of the profile's records


@pytest.fixture
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_a_browser_shows_it_on_a_phone_in_the_dark_sorts_and_opens(
    browser: Any, result: Evaluation, tmp_path: Path
) -> None:
    pictures = importlib.util.find_spec("matplotlib") is not None
    file = report.page(result).write_html(tmp_path, plots=pictures)
    said: list[str] = []
    shown = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme="dark")
    shown.on("console", lambda message: said.append(message.text))
    shown.on("pageerror", lambda error: said.append(str(error)))
    shown.on("request", lambda request: said.append(request.url) if not request.url.startswith("file:") else None)
    shown.goto(file.as_uri())
    assert said == []
    assert shown.title().startswith("Evaluation: <script>")
    assert shown.evaluate("document.documentElement.scrollWidth") <= 390
    assert shown.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(21, 24, 29)"
    if pictures:
        assert shown.locator("figure svg").count() == 7
        box = shown.locator("figure svg").first.bounding_box()
        assert 300 < box["width"] <= 390
    details = shown.locator("tr.detail")
    assert not details.first.is_visible()
    shown.locator("button.open").first.focus()
    shown.keyboard.press("Enter")
    assert details.first.is_visible()

    def column() -> list[float]:
        return [
            float(key)
            for key in shown.locator("table.questions > tbody > tr:first-child > :nth-child(4)").evaluate_all(
                "cells => cells.map(cell => cell.dataset.key)"
            )
        ]

    points = shown.locator("button.sort", has_text="points")
    points.click()
    points.click()
    assert column() == sorted(column())
    assert shown.locator("th[aria-sort=ascending]").inner_text().startswith("points")
    assert details.locator("visible=true").count() == 1  # what was open moved with its row
    shown.emulate_media(media="print", color_scheme="dark")
    assert shown.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"


def test_a_live_comparison_of_few_questions_decides_nothing() -> None:
    random = np.random.default_rng(0)
    columns = {
        name: (random.integers(0, 2, 12), np.full(12, 64), np.full(12, 50.0)) for name in ("uniform", "forethought")
    }
    page = render(report.page(compare_live(columns, num_resamples=100)), {})
    assert "On 12 questions no gain is proven" in page
