"""The replay engine: what was recorded comes back, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from engine_contract import TEMPLATE, run
from forethought.core.data import EngineInfo, Grade, Query, Request, StopReason
from forethought.core.menu import Menu
from forethought.core.records import Record
from forethought.engines.fake import FakeEngine
from forethought.engines.replay import ReplayEngine
from forethought.errors import InvalidFeaturesError

MENU = Menu.evenly(16, 96)
CAPS = tuple(int(budget) for budget in MENU.budgets_B)
QUERIES = tuple(Query(f"q{n}", f"what is {n} + {n}?", str(2 * n)) for n in range(12))
REQUESTS = [Request(query, MENU.largest, sample, sample, CAPS[:-1]) for query in QUERIES for sample in range(4)]


@pytest.fixture(scope="module")
def recorded():
    return run(FakeEngine(template=TEMPLATE, menu=MENU), REQUESTS)


@pytest.fixture(scope="module")
def replay(recorded):
    return ReplayEngine(list(recorded.values()), info=EngineInfo("fake", "fake"))


def test_counts_at_every_cap_are_those_of_the_recording(recorded, replay):
    for cap in CAPS:
        found = run(replay, [replace(request, budget=cap, probe_budgets=()) for request in REQUESTS])
        for query in QUERIES:
            right = [found[query.id, sample].answer == query.reference for sample in range(4)]
            assert right == [recorded[query.id, sample].at(cap).answer == query.reference for sample in range(4)]
            for sample in range(4):
                done = found[query.id, sample]
                tokens = done.reasoning_tokens + done.suffix_tokens + done.answer_tokens
                assert tokens == recorded[query.id, sample].at(cap).tokens


def test_a_whole_trace_comes_back_as_it_was(recorded, replay):
    assert run(replay, REQUESTS) == recorded


def test_a_thought_that_was_not_counted_is_a_reason_and_not_the_end_of_the_stream(recorded, replay):
    uncounted = [replace(done, reasoning_tokens=None, probes=()) for done in recorded.values()]
    found = run(ReplayEngine(uncounted, info=replay.info), REQUESTS)
    assert len(found) == len(REQUESTS)
    assert all("were not counted" in done.error for done in found.values())


def test_records_replay_like_the_generations_they_are_of(recorded, replay):
    records = [replace(Record.of(done), grade=Grade.RIGHT) for done in recorded.values()]
    assert run(ReplayEngine(records, info=replay.info), REQUESTS) == recorded


def test_a_larger_budget_serves_what_ended_by_itself_and_nothing_else(recorded, replay):
    for key, done in run(replay, [replace(request, budget=500) for request in REQUESTS]).items():
        if recorded[key].stop_reason is StopReason.NATURAL:
            assert done == replace(recorded[key], budget=500)
        else:
            assert done.stop_reason is StopReason.ERROR


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        pytest.param(Request(Query("new", "?"), 16), "not recorded", id="unknown-query"),
        pytest.param(Request(QUERIES[0], 16, sample=9), "recorded samples: 0, 1, 2, 3", id="unknown-sample"),
        pytest.param(Request(QUERIES[0], -1), "-1", id="negative-budget"),
        pytest.param(Request(QUERIES[0], 96, probe_budgets=(3,)), "budget 3", id="budget-between-the-windows"),
    ],
)
def test_what_was_not_recorded_is_refused_with_what_was(replay, request_, message):
    (done,) = run(replay, [request_]).values()
    assert done.stop_reason is StopReason.ERROR
    assert message in done.error


def test_a_recorded_failure_stays_one_unless_it_was_tried_again(recorded):
    done = next(iter(recorded.values()))
    failure = replace(done, stop_reason=StopReason.ERROR, error="out of luck", probes=())
    key = (done.query_id, done.sample)
    asked = [request for request in REQUESTS if (request.query.id, request.sample) == key]
    info = EngineInfo("fake", "fake")
    assert "out of luck" in run(ReplayEngine([failure], info=info), asked)[key].error
    assert run(ReplayEngine([failure, done], info=info), asked)[key] == done


def test_hidden_states_are_the_recorded_ones_and_nan_elsewhere(recorded):
    states_L_D = np.arange(6, dtype=np.float32).reshape(2, 3)
    engine = ReplayEngine([], info=EngineInfo("fake", "fake"), hidden=((4, 12), {"q1": states_L_D}))
    hidden_Q_L_D = engine.hidden_states([QUERIES[0], QUERIES[1]], [12, 4])
    np.testing.assert_array_equal(hidden_Q_L_D[1], states_L_D[::-1])
    assert np.isnan(hidden_Q_L_D[0]).all()
    with pytest.raises(InvalidFeaturesError, match="layer 5"):
        engine.hidden_states(QUERIES, [5])


def test_info_says_what_is_replayed(replay):
    assert (replay.info.engine, replay.info.simulated, replay.info.versions["recorded"]) == ("replay", True, "fake")
