"""`run --hard-cap`, tokens or money: never passed, warned of, and what it kept back goes on under a larger one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from command_line import Call
from forethought.control.billing import Prices
from forethought.control.pool import Pool
from forethought.core.data import Generation, Query, Request
from forethought.core.menu import Menu
from forethought.core.options import Option, Price
from forethought.core.prompts import load_template
from forethought.core.provenance import Provenance
from forethought.core.terms import Cost, HardCap
from forethought.engines.fake import FakeEngine
from forethought.errors import InvalidSettingsError
from forethought.runs.store import RunDirectory

RUN = ("run", "text", "q.jsonl", "--mean-tokens", 64, "--out", "r", "--json", "--quiet")


def tokens_in(run: str) -> int:
    records = RunDirectory.open(Path(run)).records()
    return sum((each.reasoning_tokens or 0) + each.suffix_tokens + (each.answer_tokens or 0) for each in records)


def test_a_run_keeps_to_its_hard_cap_and_goes_on_under_a_larger_one(job: Call) -> None:
    said = job(*RUN, "--hard-cap", 700)
    assert said.code == 3
    assert 0.8 * 700 < said.json["spent_tokens"] == tokens_in("r") <= 700
    kept_back = said.json["kept_back"]
    assert 0 < len(kept_back) == said.json["failed"] < 24
    assert "of the hard cap of 700 tokens are spent" in said.err
    assert f"{len(kept_back)} questions were not run under the hard cap" in said.err
    assert "forethought run text q.jsonl --mean-tokens 64 --cost granted --out r --hard-cap N" in said.err
    again = job(*RUN, "--hard-cap", 700)
    assert again.json["kept_back"] == kept_back
    assert tokens_in("r") <= 700
    more = job(*RUN, "--hard-cap", 900)
    assert len(more.json["kept_back"]) < len(kept_back)
    assert tokens_in("r") <= 900
    rest = job(*RUN)  # without one, all of them
    assert rest.code == 0
    assert rest.json["answered"] == 24
    assert job(*RUN, "--hard-cap", 900).json["answered"] == 24


def test_a_run_that_began_without_a_cap_is_charged_with_what_it_has_taken(job: Call) -> None:
    first = (*RUN[:3], "--total-tokens", 1536, "--limit", 24, "--out", "r", "--json", "--quiet")
    whole = job(*first).json["spent_tokens"]
    records = Path("r/records.jsonl").read_bytes().splitlines(keepends=True)
    Path("r/records.jsonl").write_bytes(b"".join(records[:20]))
    said = job(*first, "--hard-cap", whole // 4)
    assert len(said.json["kept_back"]) == 4


def test_a_plan_of_a_file_keeps_to_a_hard_cap_in_money(job: Call) -> None:
    job("plan", "text", "q.jsonl", "--mean-tokens", 64, "--out", "plan.json")
    run = ("run", "--plan", "plan.json", "--out", "r", "--json", "--quiet")
    assert "needs prices: --price-in and --price-out" in job(*run, "--hard-cap", "1usd").err
    prices = ("--price-in", 1, "--price-out", 10)
    said = job(*run, "--hard-cap", "0.02usd", *prices)
    assert said.code == 3
    assert 0 < said.json["usd"] <= 0.02
    assert said.json["kept_back"]
    assert f"{said.json['usd']:.6f}" == f"{(said.json['prompt_tokens'] + 10 * tokens_in('r')) / 1e6:.6f}"
    assert job(*run, *prices, "--hard-cap", "5usd").json["answered"] == 24


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--hard-cap", "9", "--compare", "uniform"), "--hard-cap counts the answers of one allocator"),
        (("--hard-cap", "9", "--worker", "1/2"), "--hard-cap is kept by one process"),
        (("--hard-cap", "much"), "--hard-cap much: give tokens"),
        (("--hard-cap", "9", "--cost", "spent", "--hard-total"), "give one of them"),
    ],
)
def test_what_a_hard_cap_does_not_go_with(job: Call, flags: tuple[str, ...], words: str) -> None:
    said = job(*RUN, *flags)
    assert said.code == 1
    assert words in said.err
    assert not Path("r").exists()


class Spending(FakeEngine):
    """Counts what it generates, some of it for nothing, as a server may."""

    def __init__(self, failing: Sequence[bool], **how: object) -> None:
        super().__init__(**how)  # type: ignore[arg-type]
        self.failing, self.trace_tokens, self.discarded_tokens = list(failing), 0, 0

    async def generate(self, requests: Sequence[Request]) -> AsyncIterator[Generation]:  # type: ignore[override]
        from forethought.engines.flight import failed

        most = {request.query.id: request for request in requests}
        async for done in super().generate(requests):
            outcome = done.at(done.budget)
            assert outcome is not None
            assert outcome.tokens is not None
            if self.failing and self.failing.pop():
                self.discarded_tokens += outcome.tokens
                yield failed(most[done.query_id], "the server stumbled")
            else:
                self.trace_tokens += outcome.tokens
                yield done

    def counted(self) -> dict[str, int]:
        return {"trace_tokens": self.trace_tokens, "discarded_tokens": self.discarded_tokens}


@settings(max_examples=40, deadline=None)
@given(
    budgets=st.lists(st.integers(1, 16), min_size=1, max_size=25),
    failing=st.lists(st.booleans(), max_size=25),
    cap=st.floats(0.001, 0.05) | st.integers(50, 4000).map(float),
)
def test_neither_tokens_nor_money_pass_the_cap(
    tmp_path_factory: pytest.TempPathFactory, budgets: list[int], failing: list[bool], cap: float
) -> None:
    menu, template = Menu.evenly(16, 256), load_template("boxed")
    hard = HardCap(cap, Cost.USD if cap < 1 else Cost.SPENT)
    folder = tmp_path_factory.mktemp("capped") / "run"
    run = RunDirectory.create(folder, kind="run", provenance=Provenance(), settings={})
    prices = Prices(1.0, 10.0)
    pool = Pool.open(run, cap=hard, beside=20, menu=menu, template=template, prices=prices)
    asked = [Request(Query(f"q{row}", f"What is {row}?"), 16 * budget, seed=row) for row, budget in enumerate(budgets)]
    engine = Spending(failing, template=template, menu=menu)

    async def collected() -> list[Generation]:
        return [each async for each in pool.generate(engine, asked)]

    found = asyncio.run(collected())
    assert len(found) == len(asked)
    generated = engine.trace_tokens + engine.discarded_tokens
    prompts = sum(each.prompt_tokens for each in found)
    taken = (prompts + 10 * generated) / 1e6 if hard.cost is Cost.USD else generated
    assert taken <= pool.spent * (1 + 1e-9) <= cap * (1 + 1e-9)
    again = Pool.open(run, cap=hard, beside=20, menu=menu, template=template, prices=prices)
    assert again.spent == pytest.approx(pool.spent)


def test_named_options_are_counted_at_what_they_name(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", kind="run", provenance=Provenance(), settings={})
    how = {"beside": 20, "menu": Menu.of([64]), "is_named": True, "template": load_template("boxed")}
    pool = Pool.open(run, cap=HardCap(1000, Cost.SPENT), **how)
    query = Query("q", "1 + 1?")
    assert pool.most(Request(query, 64, option=Option("capped", cap=64))) == 84
    assert pool.most(Request(query, 32768, option=Option("low", set={"max_completion_tokens": 900}))) == 900
    assert pool.most(Request(query, 32768, option=Option("free", set={"model": "m"}))) == 32788
    money = Pool.open(run, cap=HardCap(1, Cost.USD), **how)
    priced = Option("low", set={"max_tokens": 900}, price=Price(0.0, 5.0))
    assert money.most(Request(query, 32768, option=priced)) == pytest.approx(900 * 5 / 1e6)
    with pytest.raises(InvalidSettingsError, match="needs prices"):
        money.most(Request(query, 64, option=Option("capped", cap=64)))
    assert json.loads((tmp_path / "run" / "run.json").read_text())["kind"] == "run"
