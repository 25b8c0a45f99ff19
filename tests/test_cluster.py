"""Workers that fill a run together: who gets which request, real processes that are killed, and what is refused."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import wait
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine_contract import BUDGET, TEMPLATE, EngineContract, Subject
from forethought.cluster import crew as crews
from forethought.cluster.crew import Crew
from forethought.cluster.engine import ClusterEngine, engine_of
from forethought.cluster.rows import AHEAD, MOST_LOST, Hands, Rows, key_of
from forethought.cluster.worker import EngineWorker, Task
from forethought.commands.pipeline import profile, run
from forethought.core.data import Generation, Query, Request
from forethought.core.menu import Menu
from forethought.core.prompts import load_template
from forethought.core.protocols import HiddenStateEngine
from forethought.core.settings import EngineSettings, ProfileSettings
from forethought.core.waiting import collect, finish
from forethought.core.worker import Worker
from forethought.engines.fake import FakeEngine
from forethought.errors import EngineError, RunError
from forethought.predictors.difficulty import Asking, ask
from forethought.runs.store import RunDirectory
from measured_alone import measured_alone, profiling, running
from process_host import Killer, Prepare, ProcessHost

NUM_QUERIES = 60


# --- who gets which request ---------------------------------------------------------------------------------------


def asked(count: int) -> list[Request]:
    return [Request(Query(f"q{row}", "?"), 16, seed=row) for row in range(count)]


def came(request: Request) -> Generation:
    from forethought.engines.flight import failed

    return failed(request, "it does not matter")


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 400), st.integers(1, 5), st.randoms(use_true_random=False))
def test_every_request_comes_back_once_or_is_given_up_whoever_dies(
    count: int, num_workers: int, rng: random.Random
) -> None:
    rows, workers = Rows(iter(asked(count)), num_workers), [Hands() for _ in range(num_workers)]
    seen: Counter[Any] = Counter()
    deaths: Counter[Any] = Counter()
    while not rows.is_done:
        hands = rng.choice(workers)
        given, _ = rows.take(hands)
        assert hands.num_held <= AHEAD * 2 + len(given)
        if hands.held and rng.random() < 0.1:
            alone = hands.is_alone
            for key in hands.held:
                deaths[key] += 1
            given_up = rows.lost(hands, retries=True)
            assert not given_up or alone, "none is given up that did not die alone"
            seen.update(key_of(each) for each in given_up)
            assert all(deaths[key_of(each)] == MOST_LOST for each in given_up)
        elif hands.held:
            finished = rng.sample(sorted(hands.held, key=str), rng.randint(1, len(hands.held)))
            rows.done(hands, [came(hands.held[key][0]) for key in finished])
            seen.update(finished)
            hands.num_waiting = min(hands.num_waiting, hands.num_held)
    assert len(seen) == count
    assert set(seen.values()) <= {1}


def test_the_last_requests_are_shared_evenly() -> None:
    rows, first, second = Rows(iter(asked(100)), 2), Hands(), Hands()
    for _ in range(10):
        rows.take(first)
        first.num_waiting = 0
    rows.take(second)
    assert first.num_held == 50
    assert second.num_held == 50


def test_the_same_request_asked_for_twice_comes_back_twice() -> None:
    rows, hands = Rows(iter([*asked(3), *asked(3)]), 1), Hands()
    given, _ = rows.take(hands)
    assert hands.num_held == len(given) == 6
    rows.done(hands, [came(each) for each in asked(3)])
    assert hands.num_held == 3, "the others are still under way"
    assert not rows.is_done
    rows.lost(hands, retries=True)
    assert hands.num_held == 0
    assert [each.query.id for each in rows.take(hands)[0]] == ["q2", "q1", "q0"]
    rows.done(hands, [came(each) for each in asked(3)])
    assert rows.is_done


def test_a_request_that_kills_its_worker_takes_no_other_with_it() -> None:
    rows, workers = Rows(iter(asked(40)), 2), [Hands(), Hands()]
    given_up, num_done = [], 0
    while not rows.is_done:
        for hands in workers:
            rows.take(hands)
            if ("q7", 0, "") in hands.held:
                given_up += rows.lost(hands, retries=True)
            else:
                num_done += hands.num_held
                rows.done(hands, [came(each) for [each] in hands.held.values()])
    assert [each.query.id for each in given_up] == ["q7"]
    assert num_done == 39


# --- real processes -----------------------------------------------------------------------------------------------


def task(folder: Path, model: str = "fake", **options: Any) -> Task:
    return Task(model, EngineSettings(engine="fake", template="worked-5", options=options), None, str(folder))


Open = Callable[..., tuple[ClusterEngine, ProcessHost]]


@pytest.fixture
def on_workers(folder: Path) -> Iterator[Open]:
    opened: list[ClusterEngine] = []

    def make(num_workers: int = 3, prepare: Prepare | None = None, **options: Any) -> tuple[ClusterEngine, ProcessHost]:
        """Waits until every worker has started or has failed to: none is late because the machine is busy."""
        host = ProcessHost(prepare)
        crew = Crew(host, task(folder, **options), num_workers)
        wait([slot.opening for slot in crew.live if slot.opening is not None])
        opened.append(engine_of(crew))
        return opened[-1], host

    yield make
    for engine in opened:
        engine.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with questions, a profile of them by one process, a predictor, and a run by one process."""
    return measured_alone(tmp_path_factory.mktemp("cluster"), NUM_QUERIES)


def lines(run: RunDirectory) -> list[str]:
    return sorted(json.dumps(record.to_json(), sort_keys=True) for record in run.records())


def test_workers_do_what_one_process_does_and_it_goes_on_alone_and_back(folder: Path, on_workers: Open) -> None:
    alone = RunDirectory(folder / "alone")
    engine, _ = on_workers()
    assert isinstance(engine, HiddenStateEngine)
    shared = profile(profiling(folder, "shared", limit=40), engine=engine)
    assert len(shared.shards()) == 4
    assert len(lines(shared)) == 80
    profile(profiling(folder, "shared", limit=50))
    engine, _ = on_workers(2)
    seen: list[Any] = []
    profile(profiling(folder, "shared"), engine=engine, report=seen.append)
    assert len(seen) == 20
    assert lines(shared) == lines(alone)
    assert shared.header.provenance == alone.header.provenance
    held = [query_id for chunk in shared.hidden_chunks()[1] for query_id in chunk.query_ids]
    assert sorted(held) == sorted(f"q{number}" for number in range(NUM_QUERIES))
    for name in ("profile.parquet",):
        assert (shared.path / name).stat().st_size > 0


@pytest.mark.parametrize("grader", ["choice", "math"])
def test_workers_judge_by_every_grader(folder: Path, on_workers: Open, grader: str) -> None:
    if grader == "math":
        pytest.importorskip("sympy")
    rows = [{"id": f"q{row}", "question": f"Which is {row}?", "answer": "ABC"[row % 3]} for row in range(4)]
    (folder / "letters.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    settings = ProfileSettings(
        model="fake",
        questions=str(folder / "letters.jsonl"),
        out=str(folder / f"by-{grader}"),
        grader=grader,
        num_traces=1,
    )
    engine, _ = on_workers(1)
    shared = profile(settings, engine=engine)
    alone = profile(replace(settings, out=f"{settings.out}-alone"))
    assert lines(shared) == lines(alone)


def dies_asking(number: int) -> None:
    """The first process whose model is asked how hard q3 is ends."""
    original = FakeEngine.run

    def run_or_die(self: FakeEngine, request: Request) -> Generation:
        if request.query.id == "q3" and not request.budget and not Path("died").exists():
            Path("died").touch()
            os._exit(1)
        return original(self, request)

    FakeEngine.run = run_or_die  # type: ignore[method-assign]


def test_workers_are_asked_how_hard_questions_are(folder: Path, on_workers: Open) -> None:
    queries = [Query(f"q{row}", f"What is {row} plus {row}?") for row in range(NUM_QUERIES)]
    alone = ask(FakeEngine(template=load_template("worked-5")), queries, Asking())
    engine, host = on_workers(2, dies_asking)
    assert ask(engine, queries, Asking()) == alone
    assert len({each.level for each in alone}) > 1
    assert len(host.workers) == 3, "one died, and another took its place"


@pytest.mark.slow
@pytest.mark.parametrize("command", ["profile", "run"])
def test_workers_that_are_killed_lose_nothing_and_do_nothing_twice(
    folder: Path, on_workers: Open, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crews, "FRUITLESS", 100)
    alone = RunDirectory(folder / ("alone" if command == "profile" else "run-alone"))
    out = f"killed-{command}"
    # However fast the machine, three workers need 0.9 s, in which eight are killed.
    engine, host = on_workers(tokens_per_second=5000 if command == "profile" else 1300)
    with Killer(host.pids, 12, every=0.1) as killer:
        if command == "profile":
            run_there = profile(profiling(folder, out), engine=engine)
        else:
            run_there = run(running(folder, out), engine=engine)
    assert killer.num_kills >= 2
    records = list(run_there.records())
    assert max(Counter((each.query_id, each.sample) for each in records).values()) == 1
    assert len(records) == NUM_QUERIES * (2 if command == "profile" else 1)
    # A trace that was lost three times is a record with a reason; the same command does it.
    assert all("was lost while it ran" in (each.error or "") for each in records if each.is_failed)
    if command == "profile":
        profile(profiling(folder, out))
    else:
        run(running(folder, out))
        assert (run_there.path / "answers.jsonl").read_bytes() == (alone.path / "answers.jsonl").read_bytes()
        found, wanted = (json.loads((each.path / "summary.json").read_bytes()) for each in (run_there, alone))
        assert {**found, "usage": None} == {**wanted, "usage": None}
    finished = sorted(json.dumps(each.to_json(), sort_keys=True) for each in run_there.records() if not each.is_failed)
    assert finished == lines(alone)


def test_a_hard_cap_counts_what_is_lost_with_a_worker(
    folder: Path, on_workers: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crews, "FRUITLESS", 100)
    engine, host = on_workers(tokens_per_second=1000)
    pool_file = folder / "capped" / "pool.jsonl"  # made once traces begin: who is killed then has some under way
    with Killer(lambda: host.pids() if pool_file.exists() else [], 5, every=0.1) as killer:
        done = run(running(folder, "capped", hard_cap="2500"), engine=engine)
    assert killer.num_kills
    pool = [json.loads(line) for line in pool_file.read_text().splitlines()]
    charged = sum(line.get("end", 0) for line in pool)
    kept = sum((each.reasoning_tokens or 0) + each.suffix_tokens + (each.answer_tokens or 0) for each in done.records())
    assert kept < charged <= 2500, "what a killed worker may have generated is charged in full"
    for begun in (line["begin"] for line in pool if "begin" in line):
        assert sum(begun.values()) <= 2500
    more = run(running(folder, "capped"))
    assert not [each for each in more.latest() if each.is_failed]


def die_in(number: int) -> None:
    """The engine of worker 2 ends its process as soon as it is opened; that of worker 3 cannot be opened."""
    import forethought.cluster.worker as module

    def open_engine(*args: Any, **how: Any) -> Any:
        if number == 2:
            os._exit(1)
        raise EngineError("no memory left on the device")

    if number > 1:
        module.open_engine = open_engine


def test_an_engine_that_never_starts_leaves_its_questions_to_others(
    folder: Path, on_workers: Open, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crews, "FRUITLESS", 1)
    engine, _ = on_workers(3, die_in)
    found = profile(profiling(folder, "one-starts", layers="none"), engine=engine)
    assert lines(found) == lines(RunDirectory(folder / "alone"))
    assert "worker 2 takes no part: the process ended" in caplog.text
    assert "worker 3 takes no part: no memory left on the device" in caplog.text


def die_everywhere(number: int) -> None:
    die_in(3)


def test_where_no_engine_starts_the_reason_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crews, "FRUITLESS", 1)
    with pytest.raises(EngineError, match="no worker is left: no memory left on the device"):
        engine_of(Crew(ProcessHost(die_everywhere), task(folder), 2))


def one_dies_of_q7(number: int) -> None:
    original = FakeEngine.run

    def run_or_die(self: FakeEngine, request: Request) -> Generation:
        if request.query.id == "q7":
            os._exit(1)
        return original(self, request)

    FakeEngine.run = run_or_die  # type: ignore[method-assign]


@pytest.mark.slow
def test_a_prompt_that_kills_workers_is_a_record_with_the_reason(folder: Path, on_workers: Open) -> None:
    engine, _ = on_workers(2, one_dies_of_q7)
    found = profile(profiling(folder, "poisoned", layers="none"), engine=engine)
    failed = [each for each in found.records() if each.is_failed]
    assert {each.query_id for each in failed} == {"q7"}
    assert all("was lost while it ran: the process ended" in (each.error or "") for each in failed)
    assert len(list(found.records())) == 2 * NUM_QUERIES


def leaves_q7_out(number: int) -> None:
    """An engine that takes a request and never says what became of it."""
    generate = FakeEngine.generate

    async def generate_others(self: FakeEngine, requests: Iterable[Request]) -> AsyncIterator[Generation]:
        async for generation in generate(self, requests):
            if generation.query_id != "q7":
                yield generation

    FakeEngine.generate = generate_others  # type: ignore[method-assign]


@pytest.mark.timeout(120)
def test_a_request_that_an_engine_leaves_out_is_a_record_and_nobody_waits_for_it(
    folder: Path, on_workers: Open
) -> None:
    engine, _ = on_workers(2, leaves_q7_out)
    found = finish(collect(engine.generate(asked(12))))
    assert len(found) == 12
    assert [(each.query_id, each.error) for each in found if each.is_failed] == [
        ("q7", "engine 'fake' gave no answer to it")
    ]


def all_die_of_work(number: int) -> None:
    FakeEngine.run = lambda self, request: os._exit(1)  # type: ignore[method-assign, assignment]


def test_without_any_worker_left_the_rest_are_records_with_the_reason(
    folder: Path, on_workers: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crews, "FRUITLESS", 2)
    engine, _ = on_workers(1, all_die_of_work)
    with pytest.raises(RunError, match="no finished trace: 120 failed"):
        profile(profiling(folder, "hopeless", layers="none"), engine=engine)
    found = RunDirectory(folder / "hopeless")
    errors = Counter((each.error or "").split(":")[0] for each in found.records())
    assert sum(errors.values()) == 2 * NUM_QUERIES
    assert errors["no worker is left to run it"] > NUM_QUERIES


def other_model(number: int) -> None:
    original = FakeEngine.__init__

    def init(self: FakeEngine, model: str = "fake", **how: Any) -> None:
        original(self, model, **how, seed=number)

    FakeEngine.__init__ = init  # type: ignore[method-assign]


def test_a_worker_with_another_model_takes_no_part(
    folder: Path, on_workers: Open, caplog: pytest.LogCaptureFixture
) -> None:
    engine, _ = on_workers(2, other_model)
    profile(profiling(folder, "two-models", layers="none"), engine=engine)
    assert "takes no part: its engine is another one: model_hash" in caplog.text


def test_a_worker_needs_the_folder_and_a_lead(folder: Path, tmp_path: Path) -> None:
    worker, here = EngineWorker(), os.getcwd()
    with pytest.raises(RunError, match="workers need it on shared storage"):
        worker.open(task(tmp_path / "elsewhere"))
    from forethought.control.keeping import Keeping
    from forethought.graders import NumberGrader

    made = profile(profiling(folder, "unled", limit=2, layers="none"))
    try:
        worker.open(task(folder))
        keeping = Keeping(made.path, Menu.evenly(16, 256), NumberGrader(), worker=Worker.lead().member(1))
        with pytest.raises(RunError, match="is not held by the process that started this worker"):
            worker.join(keeping)
        with made.locked(lead := Worker.lead()):
            assert worker.join(replace(keeping, worker=lead.member(1))) == 0
            other = EngineWorker()
            other.open(task(folder))
            with pytest.raises(RunError, match="already running"):
                other.join(replace(keeping, worker=lead.member(1)))
        worker.close()
    finally:
        os.chdir(here)


def test_a_lead_waits_for_the_workers_of_an_earlier_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, left = profile(profiling(folder, "led", limit=2, layers="none")), Worker.lead()
    with made.locked(left):
        member = made.locked(left.member(1))
        member.__enter__()
    is_over = threading.Event()

    def end() -> None:
        is_over.set()
        member.__exit__(None, None, None)

    threading.Timer(0.3, end).start()
    with made.locked(Worker.lead()):
        assert is_over.is_set()
    with made.locked(left):
        member = made.locked(left.member(1))
        member.__enter__()
    monkeypatch.setattr("forethought.runs.locks.PATIENCE", 0.2)
    with pytest.raises(RunError, match="another process"), made.locked(Worker.lead()):
        pass
    with pytest.raises(RunError, match="workers on Ray"), made.locked(Worker(1, 2)):
        pass
    member.__exit__(None, None, None)


def test_a_stream_that_nobody_listens_to_any_more_leaves_no_trace_behind(folder: Path, on_workers: Open) -> None:
    engine, host = on_workers(2, tokens_per_second=100)

    async def leave() -> list[str]:
        async for _ in engine.generate(asked(20)):
            break
        return [each.query_id async for each in engine.generate(asked(5))]

    assert sorted(asyncio.run(leave())) == [f"q{row}" for row in range(5)]
    assert len(host.workers) > 2


def test_a_stream_whose_answers_nobody_takes_holds_no_other_up(on_workers: Open) -> None:
    engine, host = on_workers(2)

    async def within_another() -> tuple[list[str], list[str]]:
        outer, inner = [], []
        async for each in engine.generate(asked(20)):
            outer.append(each.query_id)
            if len(outer) in (1, 20):
                inner += [other.query_id async for other in engine.generate(asked(5))]
        return outer, inner

    async def within_patience() -> tuple[list[str], list[str]]:
        return await asyncio.wait_for(within_another(), 30.0)

    outer, inner = asyncio.run(within_patience())
    assert sorted(outer) == sorted(f"q{row}" for row in range(20))
    assert sorted(inner) == sorted([f"q{row}" for row in range(5)] * 2)
    assert len(host.workers) == 2, "none was dropped"


def test_requests_are_read_no_further_than_their_answers_are_taken(on_workers: Open) -> None:
    engine, _ = on_workers(2)
    num_read = 0

    def endless() -> Iterator[Request]:
        nonlocal num_read
        for request in itertools.cycle(asked(100)):
            num_read += 1
            yield request

    async def settled() -> int:
        """How many are read when no more are for a while."""
        before = -1
        while before != num_read < 20_000:
            before = num_read
            await asyncio.sleep(0.5)
        return num_read

    async def taken() -> None:
        stream = engine.generate(endless())
        await anext(stream)
        first = await settled()
        assert first < 20_000
        inner = [each.query_id async for each in engine.generate(asked(5))]  # its turn comes meanwhile
        assert len(inner) == 5
        for _ in range(2 * first):  # and then it goes on
            await anext(stream)
        assert num_read > 2 * first
        await stream.aclose()

    asyncio.run(asyncio.wait_for(taken(), 60.0))


@pytest.mark.slow
class TestContract(EngineContract):
    @pytest.fixture(scope="class")
    @classmethod
    def subject(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
        folder = tmp_path_factory.mktemp("contract")
        given = {name: value for name, value in asdict(TEMPLATE).items() if name not in ("choices", "chat_options")}
        (folder / "contract.json").write_text(json.dumps(given))
        options = {"menu": f"8:{BUDGET}:8"}
        settings = EngineSettings(
            engine="fake",
            template=str(folder / "contract.json"),
            temperature=1.0,
            context_tokens=256,
            options=options,
        )
        engine = engine_of(Crew(ProcessHost(), Task("fake", settings, None, str(folder)), 2))
        yield Subject(engine, "fake", layers=(0, 2, 4), num_engines=2)
        engine.close()
