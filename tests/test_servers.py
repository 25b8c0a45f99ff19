"""What every real server must do: budgets kept and counted, cuts that are prefixes, probes from its cache.

`make test-servers`; `real_servers.py` says how servers are found. What one kind alone does is in test_servers_KIND.py.
"""

from __future__ import annotations

import pytest

pytest.importorskip("aiohttp", reason="needs aiohttp")

from engine_contract import run
from forethought import doctor
from forethought.settings import DoctorSettings
from forethought.types import Request, StopReason
from real_servers import MODEL, QUERIES, SERVED, asked, engine_at

KINDS = ("vllm", "llama.cpp")
SEEN = ("reachable", "kind", "models", "token ids", "continuation", "logprobs", "usage details", "prefix caching")

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.model]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def url(kind: str, request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue({"vllm": "vllm_url", "llama.cpp": "llama_url"}[kind])


@pytest.mark.parametrize("options", [{}, {"ids": False}], ids=["token-ids", "chat"])
def test_two_calls_keep_the_cap_and_force_an_answer(kind, url, options):
    engine = engine_at(url, enforce="two-call", **options)
    found = run(engine, asked())
    for done in found.values():
        assert done.error is None
        assert done.reasoning_tokens <= done.budget
        assert done.answer
    assert any(done.stop_reason is StopReason.BUDGET for done in found.values())
    assert engine.info.model == MODEL
    assert engine.info.server.startswith(f"{kind} ")


def test_two_calls_as_plain_text_keep_the_cap_and_force_an_answer(url):
    pytest.importorskip("transformers", reason="needs transformers")
    engine = engine_at(url, enforce="two-call", ids=False, tokenizer=MODEL)
    for done in run(engine, asked()).values():
        assert done.error is None
        assert done.reasoning_tokens <= done.budget
        assert done.answer


def test_a_cut_is_the_prefix_of_the_trace_and_probes_are_served_by_the_cache(url):
    engine = engine_at(url, enforce="two-call", concurrency=1)
    whole = run(engine, [Request(QUERIES[1], 48, 0, 5, (16, 32))])[QUERIES[1].id, 0]
    small = run(engine, [Request(QUERIES[1], 16, 0, 5)])[QUERIES[1].id, 0]
    assert whole.reasoning.startswith(small.reasoning)
    assert [probe.budget for probe in whole.probes] == [16, 32]
    assert all(probe.answer for probe in whole.probes)
    assert engine.counters.cached_tokens >= 0.5 * engine.counters.prompt_tokens


def test_max_tokens_alone_leaves_thoughts_unanswered(url):
    for done in run(engine_at(url, enforce="max-tokens"), asked()).values():
        assert done.error is None
        assert done.reasoning_tokens + done.answer_tokens <= done.budget


def test_the_doctor_tells_what_the_server_can_do(kind, url):
    found = doctor.examine(DoctorSettings(base_url=url, enforce="two-call"))
    seen = {finding.name: finding for finding in found.findings}
    for name in SEEN:
        assert seen[name].is_fine, seen[name]
    assert kind in seen["kind"].detail
    assert found.is_kept
    assert f"--served-model {SERVED} --enforce two-call" in found.flags
