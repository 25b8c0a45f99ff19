"""Votes under a hard cap: every sample is charged, in flight included, and those that fit vote."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import forethought as ft
from forethought.control.answers import Answers
from forethought.control.judging import Judge
from forethought.control.plan import Plan
from forethought.control.pool import Pool
from forethought.control.running import kept_answers
from forethought.core.data import Cost, Generation, Request
from forethought.core.terms import HardCap
from forethought.engines.fake import FakeEngine
from forethought.runs.store import RunDirectory

QUESTIONS = [{"id": f"n{n}", "question": f"What is {n} times 7?", "answer": str(7 * n)} for n in range(12)]


@pytest.fixture(scope="module")
def plan() -> Plan:
    with ft.open_engine("fake") as engine:
        profile = ft.profile(engine, QUESTIONS, menu="16,64", num_traces=4, progress=False)
    return ft.plan(ft.train(profile, "text", samples=[1, 2, 4]), QUESTIONS, mean_tokens=150, cost="spent")


class Counting(FakeEngine):
    """Counts the tokens of all that it generates, and of what is under way at most."""

    tokens = 0

    async def generate(self, requests: Iterable[Request]) -> AsyncIterator[Generation]:
        async for done in super().generate(requests):
            outcome = done.at(done.budget)
            self.tokens += outcome.tokens or 0 if outcome else 0
            yield done


def opened(plan: Plan, **how: Any) -> Counting:
    with ft.open_engine(plan) as engine:
        return Counting(template=engine.template, **how)


def collected(plan: Plan, engine: FakeEngine, folder: Path, cap: float) -> Answers:
    def pool(run: RunDirectory) -> Pool:
        hard = HardCap(cap, Cost.SPENT)
        return Pool.open(run, cap=hard, beside=40, menu=plan.menu, is_named=True, template=engine.template)

    async def run() -> None:
        answers = kept_answers(plan, engine, Judge.of("number", None), folder, pool=pool, options={"cap": cap})
        async for _ in answers:
            pass

    asyncio.run(run())
    return Answers.load(folder)


@settings(max_examples=12, deadline=None)
@given(cap=st.integers(40, 3500), more=st.integers(0, 2500), seed=st.integers(0, 3))
def test_all_samples_together_keep_to_the_cap_and_what_came_votes(
    plan: Plan, tmp_path_factory: pytest.TempPathFactory, cap: int, more: int, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("capped") / "run"
    engine = opened(plan, failure_rate=0.1 * seed)
    answers = collected(plan, engine, folder, cap)
    assert engine.tokens <= cap
    _check_votes(plan, answers, folder)
    answers = collected(plan, engine, folder, cap + more)  # goes on where there is more
    assert engine.tokens <= cap + more
    _check_votes(plan, answers, folder)


def _check_votes(plan: Plan, answers: Answers, folder: Path) -> None:
    came = Counter(each.query_id for each in RunDirectory.open(folder).latest() if not each.is_failed)
    for query_id, budget in plan:
        if not came[query_id]:
            assert answers[query_id].error is not None
            continue
        answer, option = answers[query_id], plan.menu.option(budget)
        assert answer.error is None
        assert answer.samples == came[query_id] <= option.samples
        assert option.samples == 1 or (answer.share or 0) <= came[query_id] / option.samples


DRIVER = """
import sys
from forethought.commands.pipeline import run_plan
from forethought.core.settings import RunPlanSettings
run_plan(RunPlanSettings(plan_file="plan.json", out="run", hard_cap="900"), report=lambda _: print("one", flush=True))
print("done", flush=True)
"""


@pytest.mark.slow
def test_killed_runs_of_votes_keep_to_their_cap(plan: Plan, tmp_path: Path) -> None:
    """kill -9 at random moments: samples that were under way are charged, and the whole never passes the cap."""
    plan.save(tmp_path / "plan.json")
    rng = random.Random(1)
    for _ in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", DRIVER], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for _ in range(rng.randrange(1, 4)):
            process.stdout.readline()
        time.sleep(rng.random() * 0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    last = subprocess.run([sys.executable, "-c", DRIVER], cwd=tmp_path, capture_output=True, text=True)
    assert last.returncode == 0, last.stderr
    assert last.stdout.endswith("done\n")
    records = list(RunDirectory.open(tmp_path / "run").records())
    keys = Counter((each.query_id, each.sample, each.option) for each in records if not each.is_failed)
    assert set(keys.values()) == {1}
    lines = [json.loads(line) for line in (tmp_path / "run" / "pool.jsonl").read_text().splitlines()]
    assert sum(line.get("end", 0) for line in lines) <= 900
    generated = sum((outcome.tokens or 0) for each in records if (outcome := each.at(each.budget)))
    assert generated <= 900
    _check_votes(plan, Answers.load(tmp_path / "run"), tmp_path / "run")
