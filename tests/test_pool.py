"""A hard total is never passed, whatever runs at once, and whatever is killed."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from command_line import JsonCall, json_caller, write_sums
from forethought.control.pool import Pool
from forethought.core.data import Cost, Generation, Query, Request
from forethought.core.menu import Menu
from forethought.core.prompts import load_template
from forethought.core.provenance import Provenance
from forethought.core.records import Record
from forethought.core.settings import PlanSettings, RunSettings
from forethought.core.terms import HardCap
from forethought.engines.fake import FakeEngine
from forethought.errors import InvalidSettingsError
from forethought.runs.store import RunDirectory
from loopback import serving
from toy_server import ToyServer

pytestmark = pytest.mark.slow

MENU = Menu.evenly(16, 256)
BESIDE = 20


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> JsonCall:
    monkeypatch.chdir(tmp_path)
    write_sums(Path("q.jsonl"), 40)
    return json_caller(capsys)


def generated(run: str) -> int:
    records = RunDirectory.open(Path(run)).records()
    return sum(each.reasoning_tokens + each.suffix_tokens + each.answer_tokens for each in records)


def engine() -> FakeEngine:
    return FakeEngine(template=load_template("boxed"), menu=MENU)


def used(generation: Generation) -> int:
    if (outcome := generation.at(generation.budget)) is None:
        return 0
    assert outcome.tokens is not None
    return outcome.tokens


async def collected(stream: AsyncIterator[Generation], most: int | None = None) -> list[Generation]:
    found: list[Generation] = []
    async for generation in stream:
        found.append(generation)
        if most is not None and len(found) == most:
            break
    return found


def requests(budgets: Sequence[int]) -> list[Request]:
    return [Request(Query(f"q{row}", f"What is {row}?"), budget, seed=row) for row, budget in enumerate(budgets)]


def opened(folder: Path, total: int) -> Pool:
    run = RunDirectory.create(folder, kind="run", provenance=Provenance(), settings={})
    return Pool.open(run, cap=HardCap(total, Cost.SPENT), beside=BESIDE, menu=MENU)


@settings(max_examples=60, deadline=None)
@given(budgets=st.lists(st.integers(1, 16), min_size=1, max_size=25), total=st.integers(0, 4000))
def test_never_more_than_the_total(tmp_path_factory: pytest.TempPathFactory, budgets: list[int], total: int) -> None:
    pool = opened(tmp_path_factory.mktemp("pool") / "run", total)
    asked = requests([16 * budget for budget in budgets])
    found = asyncio.run(collected(pool.generate(engine(), asked)))
    spent = sum(map(used, found))
    assert spent <= total
    assert pool.spent == spent
    assert sorted(each.query_id for each in found) == sorted(each.query.id for each in asked)
    refused = [each for each in found if each.error]
    assert all("is used up" in (each.error or "") and each.is_final for each in refused)
    if refused:  # not while a smallest cap would have fitted
        assert pool.left < MENU.smallest + BESIDE
    budget_of = {each.query.id: each.budget for each in asked}
    assert all(each.budget in MENU and each.budget <= budget_of[each.query_id] for each in found if not each.error)


@settings(max_examples=40, deadline=None)
@given(total=st.integers(100, 3000), most=st.integers(1, 12))
def test_a_kill_loses_no_count(tmp_path_factory: pytest.TempPathFactory, total: int, most: int) -> None:
    """Records that were written count as they are, and what was under way in full."""
    folder = tmp_path_factory.mktemp("pool") / "run"
    pool, asked = opened(folder, total), requests([64, 128, 256, 48] * 5)
    run = RunDirectory.open(folder)
    stream = pool.generate(engine(), asked)
    found = asyncio.run(collected(stream, most))
    with run.appender() as records:
        records.append(Record.of(each).to_json() for each in found)
    again = Pool.open(run, cap=HardCap(total, Cost.SPENT), beside=BESIDE, menu=MENU)
    done = sum(map(used, found))
    assert done <= again.spent <= total
    left = [each for each in asked if each.query.id not in {each.query_id for each in found}]
    rest = asyncio.run(collected(again.generate(engine(), left)))
    assert done + sum(map(used, rest)) <= again.spent <= total


def test_what_comes_back_does_not_depend_on_how_many_run_at_once(tmp_path: Path) -> None:
    class OneByOne(FakeEngine):
        async def generate(self, requests: Sequence[Request]) -> AsyncIterator[Generation]:
            for request in requests:
                async for generation in super().generate([request]):
                    yield generation

    asked, found = requests([256] * 30), []
    for name, kind in (("at-once", FakeEngine), ("one-by-one", OneByOne)):
        pool = opened(tmp_path / name, 4000)
        made = kind(template=load_template("boxed"), menu=MENU)
        result = asyncio.run(collected(pool.generate(made, asked)))
        found.append({each.query_id: (each.budget, each.reasoning_tokens, each.error) for each in result})
    assert found[0] == found[1]


@pytest.mark.parametrize("total", [1500, 2500, 3500])
def test_a_run_under_a_hard_total(call: JsonCall, total: int) -> None:
    call("profile", "fake", "q.jsonl", "--traces", 2)
    call("train", "runs/fake-q", "--predictor", "ridge")
    run = ("run", "runs/fake-q", "q.jsonl", "--cost", "spent", "--total-tokens", total, "--hard-total", "--out", "r")
    code, bill, _ = call(*run, "--dry-run")
    assert bill["reasoning_tokens"] <= total
    assert bill["spent_within"] is None
    told = call(*(each for each in run if each != "--hard-total"), "--dry-run")[1]["spent_within"]
    assert total < told < 1.5 * total
    code, found, _ = call(*run)
    assert code in (0, 3)
    assert generated("r") == found["spent_tokens"] <= total
    assert found["answered"] + found["failed"] == 40
    assert call(*run)[1]["spent_tokens"] == found["spent_tokens"]
    refused = [record for record in RunDirectory.open(Path("r")).records() if record.error]
    assert all("the total of" in record.error for record in refused)


def test_a_run_that_was_made_under_a_hard_total_does_not_go_on_without(call: JsonCall) -> None:
    call("profile", "fake", "q.jsonl", "--traces", 1)
    call("train", "runs/fake-q", "--predictor", "ridge")
    run = ("run", "runs/fake-q", "q.jsonl", "--cost", "spent", "--total-tokens", 3000, "--out", "r")
    assert call(*run, "--hard-total")[0] in (0, 3)
    code, _, err = call(*run)
    assert code == 1
    assert "hard_total: True there, None now" in err


@pytest.mark.slow
def test_a_run_that_is_killed_stays_under_its_total(call: JsonCall, tmp_path: Path) -> None:
    call("profile", "fake", "q.jsonl", "--traces", 2)
    call("train", "runs/fake-q", "--predictor", "ridge")
    args = ["run", "runs/fake-q", "q.jsonl", "--cost", "spent", "--total-tokens", "2500", "--hard-total", "--out", "r"]
    slow = ["--engine-option", "tokens_per_second=4000"]
    records = Path("r/records.jsonl")
    for _ in range(3):
        before = records.stat().st_size if records.exists() else 0
        process = subprocess.Popen([sys.executable, "-m", "forethought", *args, *slow], stderr=subprocess.DEVNULL)
        while not records.exists() or records.stat().st_size == before:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.02)
                break
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    code, found, _ = call(*args)
    assert code in (0, 3)
    assert generated("r") <= 2500
    pool = [json.loads(line) for line in Path("r/pool.jsonl").read_text().splitlines()]
    assert sum(line.get("end", 0) for line in pool) <= 2500
    assert found["spent_tokens"] <= 2500


@pytest.mark.parametrize(
    ("concurrency", "enforce"),
    [(1, "two-call"), (16, "two-call"), (16, "native")],
    ids=["one by one", "many at once", "answers that the server writes itself"],
)
def test_a_servers_tokens_stay_under_it(call: JsonCall, concurrency: int, enforce: str) -> None:
    """Counted at the server: every token that it generated. Beside a cap, an answer may take its room."""
    Path("t.json").write_text(
        json.dumps({"name": "t", "reasoning_end": "##", "answer_suffix": "##{", "answer_stop": "}"})
    )
    toy, made = ToyServer("vllm", context_tokens=4096), [0]
    usage = toy._usage

    def counting(prompt: list[int], new: list[int]) -> dict[str, Any]:
        made[0] += len(new)
        return usage(prompt, new)

    toy._usage = counting  # type: ignore[method-assign]
    menu = ("--window", 16, "--max-tokens", 64, "--template", "t.json")
    with serving(toy) as url:
        common = ("--base-url", url, "--concurrency", concurrency)
        assert call("profile", "toy", "q.jsonl", *common, *menu, "--traces", 1)[0] == 0
        call("train", "runs/toy-q", "--predictor", "text")
        made[0] = 0
        run = ("run", "runs/toy-q", "q.jsonl", "--cost", "spent", "--total-tokens", 1100, "--hard-total", "--out", "r")
        room = ("--enforce", enforce, *(("--engine-option", "answer_room=30") if enforce == "native" else ()))
        code, found, _ = call(*run, "--template", "t.json", *common, *room)
    assert code in (0, 3)
    assert 0 < made[0] <= 1100
    assert found["spent_tokens"] <= 1100
    if enforce == "native":
        begun = [
            line["begin"] for line in map(json.loads, Path("r/pool.jsonl").read_text().splitlines()) if "begin" in line
        ]
        assert all((most - 30) % 16 == 0 for wave in begun for most in wave.values())


@pytest.mark.parametrize(
    ("plan", "more", "words"),
    [
        ({"cost": Cost.GRANTED}, {}, "add --cost spent"),
        ({"cost": Cost.SPENT}, {"compare": ("uniform",)}, "leave --compare out"),
    ],
    ids=["granted", "compare"],
)
def test_what_a_hard_total_does_not_go_with(plan: dict[str, Any], more: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidSettingsError, match=words):
        RunSettings(plan=PlanSettings(run="r", questions="q", mean_tokens=9, **plan), hard_total=True, **more)
