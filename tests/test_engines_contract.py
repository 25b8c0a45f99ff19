"""The contract of engines, held against every registered one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine_contract import BUDGET, QUERIES, TEMPLATE, EngineContract, Subject, requests, run
from forethought.core import registry
from forethought.core.data import Message, Query, Request, Sampling, StopReason
from forethought.core.menu import Menu
from forethought.engines.fake import FakeEngine
from forethought.engines.replay import ReplayEngine
from loopback import serving
from toy_server import ToyServer

SAMPLING = Sampling(temperature=1.0)
CONTEXT_TOKENS = 256


def fake_subject(_: Path | None = None) -> Subject:
    engine = FakeEngine(template=TEMPLATE, menu=Menu.evenly(8, BUDGET), context_tokens=CONTEXT_TOKENS)
    return Subject(engine, "fake", layers=(0, 2, 4))


def replay_subject(_: Path | None = None) -> Subject:
    recorded = fake_subject()
    layers = recorded.layers
    hidden_Q_L_D = recorded.engine.hidden_states(QUERIES, layers)
    hidden = {query.id: states_L_D for query, states_L_D in zip(QUERIES, hidden_Q_L_D, strict=True)}
    generations = list(run(recorded.engine, requests()).values())
    return Subject(
        ReplayEngine(generations, info=recorded.engine.info, hidden=(layers, hidden)), "replay", layers, False
    )


def transformers_subject(model: Path) -> Subject:
    pytest.importorskip("transformers", reason="needs torch and transformers")
    from forethought.engines.transformers import TransformersEngine

    engine = TransformersEngine(
        str(model), template=TEMPLATE, sampling=SAMPLING, context_tokens=CONTEXT_TOKENS, dtype="float32"
    )
    return Subject(engine, "transformers", layers=(0, 1, 2))


def vllm_subject(model: Path) -> Subject:
    pytest.importorskip("vllm", reason="needs vLLM")
    from forethought.engines.vllm import VllmEngine

    engine = VllmEngine(
        str(model),
        template=TEMPLATE,
        sampling=SAMPLING,
        context_tokens=CONTEXT_TOKENS,
        num_sequences=16,
        kv_cache_gib=1,
        dtype="float32",  # in bfloat16 a token can depend on how many others are computed beside it
        schedule="priority",
    )
    return Subject(engine, "vllm", layers=(0, 1, 2))


def openai_subject(url: str) -> Subject:
    from forethought.engines.server.engine import OpenAIEngine

    engine = OpenAIEngine(
        "toy", template=TEMPLATE, sampling=SAMPLING, context_tokens=CONTEXT_TOKENS, base_url=url, enforce="two-call"
    )
    return Subject(engine, "openai")


SUBJECTS: dict[str, Callable[..., Subject]] = {
    "fake": fake_subject,
    "openai": openai_subject,
    "replay": replay_subject,
    "transformers": transformers_subject,
    "vllm": vllm_subject,
}
NEEDS = {"transformers": "tiny_model", "vllm": "tiny_model", "openai": "toy_url"}
MARKS = {"vllm": [pytest.mark.vllm, pytest.mark.slow, pytest.mark.filterwarnings("ignore")]}


@pytest.fixture(scope="module")
def toy_url() -> Iterator[str]:
    pytest.importorskip("aiohttp", reason="needs aiohttp")
    with serving(ToyServer()) as url:
        yield url


def test_every_registered_engine_is_held_to_the_contract():
    assert sorted(SUBJECTS) == sorted(registry.BUILTIN["engines"])


@pytest.mark.parametrize(
    "subject",
    [pytest.param(name, marks=MARKS.get(name, []), id=name) for name in SUBJECTS],
    indirect=True,
    scope="module",
)
class TestEngines(EngineContract):
    @pytest.fixture(scope="module")
    @classmethod
    def subject(cls, request: pytest.FixtureRequest) -> Iterator[Subject]:
        needed = NEEDS.get(request.param)
        model = request.getfixturevalue(needed) if needed else None
        with warnings.catch_warnings():
            if request.param == "vllm":
                warnings.simplefilter("ignore")  # its imports are full of them
            subject = SUBJECTS[request.param](model)
        yield subject
        subject.engine.close()
        subject.engine.close()  # the contract: safe to call twice

    def test_traces_end_both_ways(self, subject, traces):
        """Guards the other tests: with one kind of end only, some of them would look at nothing."""
        assert {done.stop_reason for done in traces.values()} == {StopReason.NATURAL, StopReason.BUDGET}


def test_a_chat_the_template_refuses_is_data(tiny_model):
    engine = transformers_subject(tiny_model).engine
    odd = Query("odd", (Message("tool", "1"),))
    found = run(engine, [Request(odd, BUDGET), requests()[0]])
    assert found["odd", 0].stop_reason is StopReason.ERROR
    assert "no such role" in found["odd", 0].error
    assert found[QUERIES[0].id, 0].error is None
    hidden_Q_L_D = engine.hidden_states([odd, QUERIES[0]], [1])
    assert [bool(row.all()) for row in hidden_Q_L_D == hidden_Q_L_D] == [False, True]
