"""Named options from end to end on the fake model, whose levels have known curves: profile, plan, run, bill."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import numpy as np
import pytest

from command_line import json_caller, write_questions
from forethought.commands import _exit_code
from forethought.control.plan import Plan
from forethought.control.profiling import profile
from forethought.control.sources import open_profile
from forethought.core.data import Generation, Grade, Query, Request
from forethought.core.menu import Menu
from forethought.core.options import Option, Price, to_toml
from forethought.core.profile import UNTRIED, Profile
from forethought.core.prompts import load_template
from forethought.core.worker import Worker
from forethought.engines.fake import FakeEngine
from forethought.engines.replay import replay
from forethought.errors import InvalidMenuError, InvalidSettingsError
from forethought.runs.store import RunDirectory

PRICE = Price(1.0, 4.0)
OPTIONS = (
    Option("high", set={"reasoning_effort": "high"}, price=PRICE),
    Option("low", set={"reasoning_effort": "low"}, price=PRICE),
    Option("cut", cap=24, price=PRICE),
)
QUERIES = [Query(f"q{n}", f"What is {n} plus {n}?", str(2 * n)) for n in range(30)]
TEMPLATE = load_template("worked-5")


class Counting(FakeEngine):
    """A fake engine that keeps what it was asked."""

    def __init__(self, **settings: object) -> None:
        super().__init__(template=TEMPLATE, **settings)  # type: ignore[arg-type]
        self.asked: list[Request] = []

    async def generate(self, requests: Iterable[Request]) -> AsyncIterator[Generation]:
        def noted() -> Iterable[Request]:
            for request in requests:
                self.asked.append(request)
                yield request

        async for generation in super().generate(noted()):
            yield generation


def keys(requests: Iterable[Request]) -> Counter[tuple[str, int, str]]:
    return Counter((each.query.id, each.sample, each.label) for each in requests)


@pytest.fixture
def menu_file(tmp_path: Path) -> Path:
    path = tmp_path / "menu.toml"
    path.write_text(to_toml(OPTIONS), "utf-8")
    return path


@pytest.mark.parametrize("value", ["2026-12-02", "nan", "[1, inf]", "{ at = 12:00:00 }"])
def test_a_field_that_no_request_can_hold_is_refused(tmp_path, value):
    path = tmp_path / "menu.toml"
    path.write_text(f'[[option]]\nlabel = "dated"\nset = {{ until = {value} }}\n')
    with pytest.raises(InvalidMenuError, match=r"menu\.toml, option 1: option 'dated': set holds .*no request can"):
        Menu.read(path)


def test_a_menu_file_may_begin_with_the_mark_of_windows_editors(menu_file):
    menu = Menu.read(menu_file)
    menu_file.write_bytes(b"\xef\xbb\xbf" + menu_file.read_bytes().replace(b"\n", b"\r\n"))
    assert Menu.read(menu_file) == menu


def test_every_option_is_asked_once_a_sample_without_probes(menu_file):
    engine = Counting()
    measured = profile(engine, QUERIES, menu=menu_file, num_traces=2, layers="none")
    assert keys(engine.asked) == Counter(
        {(query.id, sample, option.label): 1 for query in QUERIES for sample in range(2) for option in OPTIONS}
    )
    assert not any(request.probe_budgets for request in engine.asked)
    assert len({request.seed for request in engine.asked}) == len(engine.asked)  # draws of their own
    assert {request.label: request.budget for request in engine.asked}["cut"] == 24
    assert measured.menu.labels == ("cut", "low", "high")  # ascending by what they took
    assert [option.tokens for option in measured.menu.options] == measured.tokens_Q_B.mean(axis=0).round(1).tolist()
    assert measured.menu.option(measured.menu.caps[0]).cap == 24
    assert measured.tried_Q_B is None  # all were tried alike
    assert measured.provenance.menu == Menu.read(menu_file)  # as it was given


def test_a_profile_measures_the_levels_true_curves(menu_file):
    engine = FakeEngine(template=TEMPLATE)
    measured = profile(engine, QUERIES, menu=str(menu_file), num_traces=60, layers="none")
    true = engine.true_curves(QUERIES, measured.menu)
    assert np.all(np.diff(true.p_Q_B.mean(axis=0)[1:]) > 0.05)  # high is right more often than low
    error_B = np.sqrt((true.p_Q_B * (1 - true.p_Q_B)).sum(axis=0) / 60) / len(QUERIES)
    assert np.all(abs(measured.curves.p_Q_B.mean(axis=0) - true.p_Q_B.mean(axis=0)) < 4 * error_B)
    np.testing.assert_allclose(measured.tokens_Q_B.mean(axis=0), true.tokens_Q_B.mean(axis=0), rtol=0.03)
    np.testing.assert_array_equal(measured.input_Q_B, true.input_Q_B)
    np.testing.assert_allclose(measured.curves.usd_Q_B, (measured.input_Q_B + 4.0 * measured.tokens_Q_B) / 1e6)


def test_a_failed_draw_leaves_a_hole_that_the_next_call_fills(menu_file, tmp_path):
    out = tmp_path / "run"
    engine = Counting(failure_rate=0.3)
    holed = profile(engine, QUERIES, menu=menu_file, num_traces=2, layers="none", out=out)
    assert holed.tried_Q_B is not None
    assert holed.tried_Q_B.sum() == 180 - sum(record.is_failed for record in RunDirectory(out).latest())
    assert 0 in holed.tried_Q_B  # and its query is kept
    assert holed.num_queries == len(QUERIES)
    traces = holed.traces
    assert (traces.grade_N_B == UNTRIED).sum() == 3 * len(traces.sample_N) - holed.tried_Q_B.sum()
    assert Profile.load(out).tried_Q_B.tolist() == holed.tried_Q_B.tolist()
    assert np.isnan(holed.curves.p_Q_B[holed.tried_Q_B == 0]).all()
    failed = {(each.query_id, each.sample, each.option) for each in RunDirectory(out).latest() if each.is_failed}
    again = Counting()
    whole = profile(again, QUERIES, menu=menu_file, num_traces=2, layers="none", out=out)
    assert set(keys(again.asked)) == failed
    assert whole.tried_Q_B is None
    plain = profile(FakeEngine(template=TEMPLATE), QUERIES, menu=menu_file, num_traces=2, layers="none")
    np.testing.assert_array_equal(whole.num_right_Q_B, plain.num_right_Q_B)
    np.testing.assert_array_equal(whole.tokens_Q_B, plain.tokens_Q_B)
    assert [set(each) for each in whole.traces.answers_Q] == [set(each) for each in plain.traces.answers_Q]


def test_workers_share_the_questions_and_more_samples_are_added(menu_file, tmp_path):
    engines = [Counting(), Counting(), Counting()]
    settings = {"menu": menu_file, "layers": "none", "out": tmp_path / "run"}
    for number, engine in enumerate(engines[:2], 1):
        shared = profile(engine, QUERIES, num_traces=1, worker=Worker(number, 2), **settings)
    assert keys(engines[0].asked) + keys(engines[1].asked) == Counter(
        {(query.id, 0, option.label): 1 for query in QUERIES for option in OPTIONS}
    )
    alone = profile(FakeEngine(template=TEMPLATE), QUERIES, menu=menu_file, num_traces=1, layers="none")
    np.testing.assert_array_equal(shared.num_right_Q_B, alone.num_right_Q_B)
    more = profile(engines[2], QUERIES, num_traces=2, **settings)
    assert {sample for _, sample, _ in keys(engines[2].asked)} == {1}
    assert more.tries_Q_B.tolist() == [[2, 2, 2]] * len(QUERIES)


def test_a_recording_answers_by_the_names_of_its_options(menu_file, tmp_path):
    settings = {"menu": menu_file, "num_traces": 2, "layers": "none"}
    first = profile(FakeEngine(template=TEMPLATE), QUERIES, out=tmp_path / "a", **settings)
    recorded = replay("fake", template=TEMPLATE, run=str(tmp_path / "a"))
    again = profile(recorded, QUERIES, **settings)
    np.testing.assert_array_equal(again.num_right_Q_B, first.num_right_Q_B)
    np.testing.assert_array_equal(again.tokens_Q_B, first.tokens_Q_B)
    with pytest.raises(InvalidSettingsError, match="Options of the recording: cut, high, low"):
        profile(recorded, QUERIES, menu=Menu.named([Option("xhigh", set={"reasoning_effort": "xhigh"})]))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        pytest.param(Option("big", set={"model": "big"}), "the fake model supports only levels", id="another-model"),
        pytest.param(Option("odd", set={"reasoning_effort": "hihg"}), "Did you mean 'high'", id="another-level"),
    ],
)
def test_an_option_that_nobody_can_ask_by_is_refused_before_anything_is_asked(option, message):
    engine = Counting()
    with pytest.raises(InvalidSettingsError, match=message):
        profile(engine, QUERIES, menu=Menu.named([OPTIONS[0], option]))
    assert not engine.asked


def test_options_that_ask_for_the_same_are_refused():
    """As those of a log that was imported are, which names its options and does not say what they set."""
    engine = Counting()
    with pytest.raises(InvalidSettingsError, match="'low' and 'high' set nothing: define each by set"):
        profile(engine, QUERIES, menu=Menu.named([Option("low"), Option("high")]))
    assert not engine.asked


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, menu_file: Path) -> Path:
    """A folder with questions, a menu, and a profile by it with its predictor."""
    monkeypatch.chdir(tmp_path)
    write_questions(tmp_path / "train.jsonl", 40, start=100)
    write_questions(tmp_path / "q.jsonl", 50)
    arguments = ["profile", "fake", "train.jsonl", "--menu", "menu.toml", "--traces", "3", "--out", "p", "--quiet"]
    assert _exit_code([*arguments, "--layers", "none"]) == 0
    assert _exit_code(["train", "p", "--predictor", "mean"]) == 0
    return tmp_path


def test_a_run_says_what_was_sent_and_what_it_cost(folder, capsys):
    call = json_caller(capsys)
    code, result, _ = call("run", "p", "q.jsonl", "--mean-tokens", "130", "--cost", "spent", "--out", "r")
    assert code == 0
    plan, run = Plan.load("r"), RunDirectory(Path("r"))
    labels = {query_id: plan.menu.label(budget) for query_id, budget in plan}
    assert len(set(labels.values())) > 1
    assert {record.query_id: record.option for record in run.records()} == labels
    rows = [json.loads(line) for line in Path("r/answers.jsonl").read_text("utf-8").splitlines()]
    assert {row["id"]: row["option"] for row in rows} == labels
    prompts = {record.query_id: record.prompt_tokens for record in run.records()}
    for row in rows:
        assert row["usd"] == pytest.approx((prompts[row["id"]] + 4.0 * row["tokens"]) / 1e6)
    assert result["options"] == dict(Counter(labels.values()))
    assert result["usd"] == pytest.approx(sum(row["usd"] for row in rows))
    assert result["usd"] == pytest.approx((result["prompt_tokens"] + 4.0 * result["generated_tokens"]) / 1e6)
    asked = run.header.provenance.menu.options
    assert {each.label: each.set for each in asked} == {each.label: each.set for each in OPTIONS}
    before = Path("r/answers.jsonl").read_bytes()
    code, again, _ = call("run", "p", "q.jsonl", "--mean-tokens", "130", "--cost", "spent", "--out", "r")
    assert (code, again["answered"], Path("r/answers.jsonl").read_bytes()) == (0, 50, before)
    assert len(list(run.records())) == 50  # nothing was asked again
    assert _exit_code(["show", "r", "--json"]) == _exit_code(["show", "r", rows[0]["id"], "--json"]) == 0
    shown, item = map(json.loads, capsys.readouterr().out.splitlines())
    assert (shown["options"], shown["usd"]) == (result["options"], pytest.approx(result["usd"]))
    assert item["result"]["option"] == rows[0]["option"]
    assert _exit_code(["show", "r"]) == _exit_code(["show", "p", "q101"]) == 0
    out = capsys.readouterr().out
    assert re.search(rf"^ +high +{result['options']['high']} ", out, re.MULTILINE), out
    assert " of 3" in out  # right under each option
    assert "trace 0 by low" in out


def test_a_plan_file_is_carried_out_by_its_options(folder, capsys):
    call = json_caller(capsys)
    assert call("plan", "p", "q.jsonl", "--mean-tokens", "130", "--cost", "spent", "--out", "plan.json")[0] == 0
    code, result, _ = call("run", "--plan", "plan.json", "--out", "r")
    assert code == 0
    plan = Plan.load("plan.json")
    assert result["options"] == dict(Counter(plan.menu.label(budget) for _, budget in plan))
    answers = plan.run(FakeEngine(template=TEMPLATE))
    rows = [json.loads(line) for line in Path("r/answers.jsonl").read_text("utf-8").splitlines()]
    assert [(each.id, each.option, each.answer, each.usd) for each in answers] == [
        (row["id"], row["option"], row["answer"], row["usd"]) for row in rows
    ]


def test_allocators_are_compared_on_the_answers_of_their_options(folder, capsys):
    call = json_caller(capsys)
    rows = [json.loads(line) for line in Path("q.jsonl").read_text("utf-8").splitlines()]  # weights part them
    Path("q.jsonl").write_text("".join(json.dumps({**row, "weight": 1 + n % 3}) + "\n" for n, row in enumerate(rows)))
    asked = ["run", "p", "q.jsonl", "--mean-tokens", "130", "--cost", "spent", "--compare", "uniform", "--out", "r"]
    code, bill, _ = call(*asked, "--dry-run")
    assert (code, bill["num_total"]) == (0, 100)  # two a question, at most
    code, result, _ = call(*asked)
    plan, run = Plan.load("r"), RunDirectory(Path("r"))
    chosen = {
        name: dict(zip(made.query_ids, map(plan.menu.label, made.budget_Q.tolist()), strict=True))
        for name, made in plan.allocations.items()
    }
    records = {(record.query_id, record.option): record for record in run.records()}
    assert set(records) == {(query_id, label) for of in chosen.values() for query_id, label in of.items()}
    assert 50 < len(records) < 100  # where both chose the same there is one
    rows = [json.loads(line) for line in Path("r/answers.jsonl").read_text("utf-8").splitlines()]
    assert {row["id"]: row["option"] for row in rows} == chosen["envelope"]
    policies = {each["policy"]: each for each in result["comparison"]["policies"]}
    for name, policy in (("envelope", "forethought"), ("uniform", "uniform")):
        own = [records[pair] for pair in chosen[name].items()]
        assert policies[policy]["num_right"] == sum(each.grade is Grade.RIGHT for each in own)
        assert policies[policy]["spent"] == pytest.approx(sum(each.at(each.budget).tokens for each in own) / 50)
        assert policies[policy]["granted"] is None
        assert policies[policy]["usd"] > 0
    assert result["usd_in_all"] > result["usd"]
    assert call(*asked, "--dry-run")[1]["num_left"] == 0
    Path("r/records.jsonl").write_text("".join(Path("r/records.jsonl").read_text().splitlines(keepends=True)[:30]))
    assert call(*asked, "--dry-run")[1]["num_left"] == len(records) - 30
    assert call(*asked)[1]["comparison"]["policies"] == result["comparison"]["policies"]
    assert _exit_code(asked) == _exit_code(["show", "p"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^policy +right +share +spent \(planned\) +USD$", out, re.MULTILINE), out
    assert re.search(r"^forethought less uniform +[+−]?\d", out, re.MULTILINE), out
    assert out[: out.index("40 questions, 360 traces")].splitlines()[-1].startswith("forethought against uniform: ")
    assert re.search(r"generated, 0\.\d+ USD$", out[out.index("40 questions, 360 traces") :], re.MULTILINE), out


def test_what_needs_caps_is_refused_in_words(folder, capsys):
    flags = ["--mean-tokens", "130", "--cost", "spent", "--out", "r", "--hard-total"]
    assert _exit_code(["run", "p", "q.jsonl", *flags]) == 1
    assert "--hard-total needs the largest number of tokens of an answer" in capsys.readouterr().err
    assert not Path("r").exists()


def test_the_bill_comes_first_and_a_menu_and_caps_are_not_mixed(folder, capsys):
    call = json_caller(capsys)
    asked = ["profile", "fake", "train.jsonl", "--menu", "menu.toml"]
    code, bill, _ = call(*asked, "--traces", "4", "--out", "p", "--dry-run")
    assert (code, bill["num_total"], bill["num_done"], bill["num_left"]) == (0, 480, 360, 120)
    assert bill["reasoning_tokens"] == 40 * (24 + 2 * 32768)
    assert bill["usd"] > 0
    assert _exit_code([*asked, "--budgets", "16", "--out", "x"]) == 1
    assert "give --menu FILE, or caps" in capsys.readouterr().err
    assert _exit_code(["profile", "fake", "train.jsonl", "--out", "p"]) == 1  # the same folder by caps
    assert "other settings" in capsys.readouterr().err
    assert open_profile("p").menu.is_named
