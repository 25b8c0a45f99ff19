"""Text of others never reaches a terminal, a report or a picture as anything but text."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation_data import synthetic
from forethought import report
from forethought.commands import _exit_code
from forethought.core.provenance import Provenance
from forethought.core.visible import code, markdown, one_line, to_json, visible
from forethought.evaluation import compare_live, evaluate

CONTROLS = {
    "clear screen": "\x1b[2J",
    "clipboard": "\x1b]52;c;ZWNobw==\x07",
    "title": "\x1b]0;owned\x07",
    "carriage return": "right\rwrong",
    "bell": "\x07",
    "backspace": "a\x08b",
    "delete": "\x7f",
    "C1 escape": "\x9b2J",
    "C1 command": "\x9d52;c;x\x9c",
    "overridden order": "\u202egnorw\u202c",
    "isolated order": "\u2066a\u2069",
    "mark of order": "\u200f",
    "line separator": "a\u2028b",
    "half a pair": "\ud800",
    "NUL": "a\x00b",
}
HARMFUL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


@pytest.mark.parametrize("text", CONTROLS.values(), ids=CONTROLS.keys())
def test_control_characters_are_written_out(text: str) -> None:
    for shown in (visible(text), one_line(text), to_json({text: [text]}), markdown(text), code(text)):
        assert not HARMFUL.search(shown)
        shown.encode()
    assert json.loads(to_json({text: text})) == {text: text}


@pytest.mark.slow
@given(st.text())
def test_what_is_shown_never_controls_and_json_stays_the_same_value(text: str) -> None:
    assert not HARMFUL.search(visible(text))
    assert not HARMFUL.search(one_line(text))
    assert "\n" not in one_line(text)
    assert json.loads(to_json([text])) == [text]


@pytest.mark.parametrize("text", ["Wie groß ist ½·√2?", "多少钱?", "שלום", "a\tb\nc", "👩‍🚀", r"\frac{1}{2}"])
def test_other_text_is_left_as_it_is(text: str) -> None:
    assert visible(text) == text


HOSTILE = {
    "heading": ("x\n# Owned", r"x\\n\# Owned"),
    "tag": ("<b onclick=alert(1)>", r"\<b onclick=alert(1)\>"),
    "link": ("[here](http://x)", r"\[here\](http://x)"),
    "picture": ("![x](http://x/a.png)", r"!\[x\](http://x/a.png)"),
    "cells": ("a | b", "a &#124; b"),
    "formula": ("$a$", r"\$a\$"),
    "entity": ("&lt;", r"\&lt;"),
    "list": ("- a", r"\- a"),
    "numbers": ("1. a", r"1\. a"),
    "code block": ("    a", "a"),
    "backquotes": ("`a`", r"\`a\`"),
    "backslash": ("a\\", r"a\\"),
    "plain": ("qwen2.5-coder-1.5b (q4)", "qwen2.5-coder-1.5b (q4)"),
}


@pytest.mark.parametrize(("text", "shown"), HOSTILE.values(), ids=HOSTILE.keys())
def test_markdown_shows_what_a_name_says(text: str, shown: str) -> None:
    assert markdown(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a b", "`a b`"), ("a`b", r"a\`b"), ("a|b", "a&#124;b"), ("a\nb", r"`a\nb`"), ("", "(empty)"), ("<b>", "`<b>`")],
)
def test_code_does_not_end_early(text: str, shown: str) -> None:
    assert code(text) == shown


NAME = "m\n# Owned <b onclick=x> | `a` $x$ $y$ \x1b[31m\u202e"


def checked_page(page: str, num_headings: int) -> None:
    assert not HARMFUL.search(page)
    page = re.sub(r"^```\n.*\n```$", "", page, flags=re.MULTILINE)
    assert len(re.findall(r"^#+ ", page, flags=re.MULTILINE)) == num_headings
    assert not re.search(r"(?<!\\)<b", page)
    for table in re.findall(r"(?:^\|.*\n)+", page, flags=re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


@pytest.mark.slow
def test_names_in_an_evaluation_make_no_markdown(tmp_path: Path) -> None:
    plain = evaluate(*synthetic(20), num_resamples=100)
    result = replace(plain, provenance={**plain.provenance, "model": NAME, NAME: NAME, "command": f"x\n```\n# {NAME}"})
    pages = [
        report.page(each).write(tmp_path / str(each is plain), plots=False)["markdown"].read_text("utf-8")
        for each in (plain, result)
    ]
    checked_page(pages[1], len(re.findall(r"^#+ ", pages[0], flags=re.MULTILINE)))
    assert r"\# Owned \<b onclick=x\>" in pages[1]
    assert not HARMFUL.search(report.page(result).text())
    assert "\n# Owned" not in report.page(result).text()


def test_names_of_policies_in_a_live_comparison_make_no_markdown(tmp_path: Path) -> None:
    columns = {name: ([1, 0, 1], [64, 64, 64], [50.0, 60.0, 70.0]) for name in ("uniform", NAME)}
    result = compare_live(columns, num_resamples=100, provenance={"model": NAME})  # type: ignore[arg-type]
    page = report.page(result).write(tmp_path, plots=False)["markdown"].read_text("utf-8")
    checked_page(page, 2)


TEXT = "What is 2 + 2? \x1b]52;c;ZWNobw==\x07\u202e[red]a[/red]"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A profile, a predictor and a run whose questions, answers, thoughts and model's name are out for the terminal."""
    folder = tmp_path_factory.mktemp("hostile")
    rows = [{"id": f"q{i}", "question": f"{TEXT} {i}", "answer": f"4\x1b[2J{i % 3}"} for i in range(45)]
    (folder / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    out = str(folder / "p")
    args = ["profile", "fake", str(folder / "q.jsonl"), "--traces", "2", "--grader", "exact", "--out", out, "--quiet"]
    assert _exit_code(args) == 0
    for path in (folder / "p/run.json", folder / "p/records.jsonl"):
        content = path.read_text("utf-8").replace('"model": "fake"', f'"model": {json.dumps("fake" + NAME)}')
        path.write_text(content.replace('"reasoning": "', '"reasoning": "\\u001b[2J\\u009b2J[bold]'), "utf-8")
    return folder


VERBS = {
    "ls": ["ls", "."],
    "ls as JSON": ["ls", ".", "--json"],
    "show": ["show", "p", "q3"],
    "show as JSON": ["show", "p", "q3", "--json"],
    "train": ["train", "p", "--predictor", "mean", "--out", "new"],
    "evaluate": ["evaluate", "p", "--predictor", "mean", "--resamples", "100", "--no-plots", "--out", "e"],
    "evaluate as JSON": ["evaluate", "p", "--predictor", "mean", "--resamples", "100", "--no-plots", "--json"],
    "an unknown id": ["show", "p", "\x1b[2J"],
    "an unknown verb": ["\x1b[2J"],
    "an unknown flag": ["ls", "--\x1b[2J"],
    "a debugged error": ["--debug", "train", "\x1b[2J"],
}


@pytest.mark.slow
@pytest.mark.parametrize("args", VERBS.values(), ids=VERBS.keys())
def test_no_verb_lets_text_control_the_terminal(
    hostile: Path, args: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(hostile)
    capsys.readouterr()
    _exit_code(args)
    said = capsys.readouterr()
    assert said.out or said.err
    for line in (said.out + said.err).splitlines():
        assert not HARMFUL.search(line.rstrip("\r")), repr(line)
    assert "\n# Owned" not in said.out
    if "--json" in args:
        json.loads(said.out)
    if args[0] == "show" and args[-1] == "q3":
        assert "[red]a[/red]" in said.out, "markup of others is text"
        assert r"\x1b]52;c;" in said.out


def test_what_is_logged_is_written_out(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    _exit_code(["ls", str(tmp_path)])
    capsys.readouterr()
    logging.getLogger("forethought.some").warning("the server said %s", "\x1b[2J\x9b")
    assert capsys.readouterr().err == "the server said \\x1b[2J\\x9b\n"


def test_a_card_shows_names_and_makes_no_markdown(hostile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(hostile)
    assert _exit_code(["train", "p", "--predictor", "mean", "--out", "card"]) == 0
    checked_page(Path("card/card.md").read_text("utf-8"), 6)


@pytest.mark.slow
def test_pictures_can_be_drawn_of_any_names(hostile: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib")
    from forethought.commands.reports import study_layers
    from forethought.core.study_settings import LayersSettings
    from forethought.evaluation.comparison import Candidate, compare_predictors
    from forethought.report import plots
    from forethought.report.comparison_plots import draw_comparison
    from forethought.studies.layers.plots import draw as draw_layers

    name = f"{NAME} 多 👩‍🚀 $\\frac{{$ " + "very " * 50
    measured, predicted, mean = synthetic(12)
    result = evaluate(measured, predicted, mean, num_resamples=100, provenance={"model": name})
    drawn = plots.draw(result, tmp_path)
    candidates = [Candidate(f"{name}{number}", name, predicted, None) for number in range(12)]
    comparison = compare_predictors(
        replace(measured, provenance=Provenance.from_json({"model": name})), candidates, mean, num_resamples=100
    )
    drawn |= draw_comparison(comparison, tmp_path)
    study: Any = study_layers(LayersSettings(run=str(hostile / "p"), num_resamples=100, plots=False))
    drawn |= draw_layers(replace(study, provenance={"model": name}), tmp_path)
    assert len(drawn) == 6
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in drawn.values())


def test_a_comparison_is_stamped_and_does_not_show_unknown_costs_as_measured() -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib")
    from forethought.report import comparison_plots

    places, ticks = comparison_plots._cost_places({"a": 0.001, "b": 300.0, "c": None, "d": 0.0})
    assert places["d"] < -3.0 <= places["a"] < places["b"] < places["c"]
    assert (ticks[places["d"]], ticks[places["c"]]) == ("0", "unknown")
    assert [comparison_plots._power_words(power) for power in (-4, -2, 0, 3)] == ["10⁻⁴", "0.01", "1", "1,000"]
    assert all(len(set(comparison_plots._colours(count))) == count for count in (1, 8, 9, 20))
