"""What every real server must do: budgets kept and counted, cuts that are prefixes, probes from its cache.

`make test-servers`; `real_servers.py` says how servers are found. What one kind alone does is in test_servers_KIND.py.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="needs aiohttp")

from engine_contract import run
from forethought.control.profiling import profile
from forethought.core.data import Request, Sampling, StopReason
from forethought.core.menu import Menu
from forethought.core.options import Option
from forethought.core.prompts import load_template
from forethought.core.study_settings import DoctorSettings
from forethought.engines.forcing import Forcing
from forethought.questions.queries import load_queries
from forethought.studies import doctor
from real_servers import EFFORTS, MODEL, QUERIES, SERVED, asked, engine_at, folder

KINDS = ("vllm", "sglang", "llama.cpp")
SEEN = ("reachable", "kind", "models", "token ids", "continuation", "logprobs", "usage details", "prefix caching")

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.model]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def url(kind: str, request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue({"vllm": "vllm_url", "sglang": "sglang_url", "llama.cpp": "llama_url"}[kind])


def test_prompts_and_suffixes_are_the_tokens_of_the_in_process_engines(url):
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder())

    async def ids(template: Any) -> tuple[list[list[int]], Forcing]:
        engine = engine_at(url, enforce="two-call", template=template)
        dialect = engine._chosen.calls.dialect
        async with engine.client() as client:
            return [await dialect.prompt(client, query) for query in QUERIES], dialect.forcing

    for name in ("boxed", "think", "worked-5"):
        template = load_template(name)
        expected = Forcing(tokenizer, template)
        prompts, forcing = asyncio.run(ids(template))
        assert prompts == [expected.prompt_ids(query) for query in QUERIES]
        assert forcing.suffix_ids == expected.suffix_ids
        assert forcing.bare_suffix_ids == expected.bare_suffix_ids


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


def test_a_cut_is_the_prefix_of_the_trace_and_probes_are_served_by_the_cache(kind, url):
    sampling = Sampling(0.0 if kind == "sglang" else 0.6)  # it heeds no seeds in its usual mode
    engine = engine_at(url, enforce="two-call", concurrency=1, sampling=sampling)
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


def test_levels_are_measured_profiled_and_cost_what_they_take(kind, url, tmp_path, monkeypatch):
    """The chat template is told how much to think; the doctor writes a menu of it, and a profile measures by it."""
    monkeypatch.chdir(tmp_path)
    settings = {"base_url": url, "questions": "gsm8k-demo", "limit": 4, "levels": tuple(EFFORTS), "temperature": 0.0}
    found = doctor.examine(DoctorSettings(**settings, out="menu.toml"))
    assert found.is_kept, found.findings
    menu = Menu.read("menu.toml")
    assert menu.labels == tuple(EFFORTS)  # low takes less than high
    engine = engine_at(url, sampling=Sampling(0.0))
    measured = profile(engine, load_queries("gsm8k-demo", limit=4), menu=menu, num_traces=1)
    assert measured.menu.labels == menu.labels
    assert (measured.tries_Q_B == 1).all()
    assert measured.input_Q_B is not None


def test_one_call_shows_how_likely_the_model_found_its_answers(url):
    """Asked for one line: its answer's tokens are found in what the server shows, whatever else it shows."""
    engine = engine_at(url, enforce="max-tokens", logprobs=True, sampling=Sampling(0.0))
    brief = Option("low", set={"reasoning_effort": "low"})
    found = run(engine, [Request(query, 512, option=brief) for query in QUERIES])
    for done in found.values():
        assert done.error is None
        assert done.answer
        assert done.logprobs is not None
        assert -10 < done.logprobs.answer <= 0


def test_the_doctor_tells_what_the_server_can_do(kind, url):
    found = doctor.examine(DoctorSettings(base_url=url, enforce="two-call"))
    seen = {finding.name: finding for finding in found.findings}
    for name in SEEN:
        assert seen[name].is_fine, seen[name]
    assert seen["seeds"].is_fine is (kind != "sglang"), seen["seeds"]  # in its usual mode
    assert kind in seen["kind"].detail
    assert found.is_kept
    assert f"--served-model {SERVED} --enforce two-call" in found.flags
