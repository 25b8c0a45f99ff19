"""What the gateway decides beyond the plug-in: prices and ceilings of one request, levels, other routes and servers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from forethought.core.data import Cost
from forethought.gateway.decision import MEAN, NONE, OWN, PREDICTED, UNTOUCHED, Decider, Priorities, high_of_cap
from forethought.gateway.metrics import Metrics, Watch
from forethought.gateway.policy import Policy
from forethought.gateway.price import Price
from forethought.gateway.request import CHAT, MESSAGES, PATHS, QUEUED, RESPONSES, TEXT
from forethought.predictors.training import train
from forethought.servers.kinds import KINDS, ServerKind, merged
from gateway_upstream import CAPS, LEVELS, chat, measured, question


@pytest.fixture(scope="module")
def by_caps() -> Any:
    return train(measured(CAPS), predictor="text")


@pytest.fixture(scope="module")
def by_levels() -> Any:
    return train(measured(LEVELS), predictor="text")


@dataclass
class Server:
    kind: ServerKind
    models: frozenset[str] = frozenset()
    has_priorities: bool = False
    context_tokens: int | None = None


def policy(predictor: Any, kind: str = "vllm", *, price: float = 0.001, **given: Any) -> Policy:
    decider = Decider(predictor, price=price, cost=Cost.GRANTED)
    how = {"answer_room": 100, "offset": 0, "paths": (*PATHS, *QUEUED), **given}
    return Policy(
        decider,
        Server(KINDS[kind]),
        start="<think>",
        counter=None,
        template=None,
        priorities=Priorities(NONE),
        metrics=Metrics(None),
        watch=Watch(decider, Price(price, None, "given")),
        **how,
    )


async def decided(ruled: Policy, body: dict[str, Any], path: str = CHAT, **how: Any) -> Any:
    request = ruled.read(path, body)
    assert request is not None
    return await ruled.decide_on(request, body, **how)


async def test_a_price_of_one_request_goes_before_the_deciders(by_caps):
    ruled = policy(by_caps)
    budgets = [(await decided(ruled, chat(question(102)), price=price)).budget for price in (0.0, 0.005, 1.0)]
    assert budgets == sorted(budgets, reverse=True)
    assert budgets[0] > budgets[-1] == 16
    assert (await decided(ruled, chat(question(102)))).budget == ruled.decider.by_curve(question(102)).budget


@pytest.mark.parametrize("ceiling", [64, 40, 32, 16])
async def test_no_option_above_the_ceiling_is_chosen(by_caps, ceiling):
    ruled = policy(by_caps, price=0.0)
    for body in (chat(question(102)), chat(question(102), tools=[{"type": "function"}])):
        decision = await decided(ruled, body, ceiling=ceiling)
        assert decision.budget <= ceiling
        assert decision.changes["thinking_token_budget"] == decision.budget
        assert decision.most_tokens == decision.budget + 100
        assert decision.high_tokens <= decision.budget
    free = await decided(ruled, chat(question(102)))
    assert free.budget == 64


async def test_a_ceiling_below_the_smallest_option_is_the_cap(by_caps):
    decision = await decided(policy(by_caps), chat(question(102)), ceiling=5)
    assert (decision.budget, decision.expected, decision.changes["thinking_token_budget"]) == (5, None, 5)


OWN_CAPS = {
    "below": ({"thinking_token_budget": 20}, 32, 20, None),
    "above": ({"thinking_token_budget": 50}, 32, 32, 32),
    "no cap": ({"thinking_token_budget": -1}, 32, 32, 32),
    "no ceiling": ({"thinking_token_budget": 50}, None, 50, None),
    "an effort": ({"reasoning_effort": "high"}, 32, 32, 32),
}


@pytest.mark.parametrize(("fields", "ceiling", "budget", "sent"), OWN_CAPS.values(), ids=OWN_CAPS.keys())
async def test_a_clients_own_cap_wins_below_the_ceiling(by_caps, fields, ceiling, budget, sent):
    decision = await decided(policy(by_caps), chat(question(102), **fields), ceiling=ceiling)
    assert (decision.kind, decision.budget) == (OWN, budget)
    assert decision.changes.get("thinking_token_budget") == sent
    assert ("lowered" in decision.reason) == (sent is not None)


CAPPED, REFUSED = "no thought goes above", None
ANY = {"prompt": ["<think>a", "b"]}
CEILINGS = {
    "a list of prompts": ("vllm", TEXT, ANY, {}, {"thinking_token_budget": 32}),
    "a list of prompts with a cap": (
        "vllm",
        TEXT,
        ANY | {"thinking_token_budget": 64},
        {},
        {"thinking_token_budget": 32},
    ),
    "with a smaller one": ("vllm", TEXT, ANY | {"thinking_token_budget": 8}, {}, {}),
    "no thought": ("vllm", TEXT, {"prompt": "2 + 2 ="}, {}, {}),
    "no thought, and a cap": (
        "vllm",
        TEXT,
        {"prompt": "2", "thinking_token_budget": 99},
        {},
        {"thinking_token_budget": 32},
    ),
    "few tokens in all": ("vllm", RESPONSES, {"input": "?", "max_output_tokens": 32}, {}, {}),
    "no field": ("vllm", RESPONSES, {"input": "?", "max_output_tokens": 33}, {}, REFUSED),
    "an effort, no field": ("vllm", RESPONSES, {"input": "?", "reasoning": {"effort": "high"}}, {}, REFUSED),
    "beams": ("vllm", CHAT, chat("?", use_beam_search=True), {}, REFUSED),
    "beams with a cap": ("vllm", CHAT, chat("?", use_beam_search=True, thinking_token_budget=8), {}, REFUSED),
    "a cap that the server does not take": ("litellm", CHAT, chat("?"), {}, REFUSED),
    "tools of two calls": ("llama.cpp", CHAT, chat("?", tools=[{"a": 1}]), {"has_caps": False}, REFUSED),
    "a plain chat of two calls": ("llama.cpp", CHAT, chat("?", reasoning_budget_tokens=9), {"has_caps": False}, {}),
    "another name for it": (
        "llama.cpp",
        CHAT,
        chat("?", reasoning_budget_tokens=9, thinking_budget_tokens=99),
        {},
        {"reasoning_budget_tokens": 32, "thinking_budget_tokens": 32},
    ),
}


@pytest.mark.parametrize(("kind", "path", "body", "how", "sent"), CEILINGS.values(), ids=CEILINGS.keys())
async def test_a_ceiling_holds_where_nothing_is_decided_on(by_caps, kind, path, body, how, sent):
    decision = await decided(policy(by_caps, kind, **how), body, path, ceiling=32)
    assert bool(decision.unkept) == (sent is REFUSED)
    if sent is not REFUSED:
        assert decision.changes == sent
        assert (decision.budget == 32) == bool(sent)
    assert not (await decided(policy(by_caps, kind, **how), body, path)).unkept


LEVEL_CEILINGS = {
    "a cap beside a level": (CHAT, chat("?", reasoning_effort="low", thinking_token_budget=9000), 450, 450),
    "a small cap beside a level": (CHAT, chat("?", reasoning_effort="low", thinking_token_budget=90), 450, 90),
    "a cap alone": (CHAT, chat("?", thinking_token_budget=9000), 450, 450),
    "a cap under a level": (CHAT, chat("?", thinking_token_budget=9000), "medium", REFUSED),
    "a text": (TEXT, {"prompt": "2 + 2 ="}, "medium", -1),
    "a level of a text": (TEXT, {"prompt": "2", "reasoning_effort": "high"}, "medium", -1),
}


@pytest.mark.parametrize(("path", "body", "ceiling", "cap"), LEVEL_CEILINGS.values(), ids=LEVEL_CEILINGS.keys())
async def test_a_ceiling_of_levels_holds_for_every_field(by_levels, path, body, ceiling, cap):
    decision = await decided(policy(by_levels, "vllm"), body, path, ceiling=ceiling)
    assert bool(decision.unkept) == (cap is REFUSED)
    if cap is not REFUSED:
        sent = merged(body, decision.changes)
        assert sent.get("thinking_token_budget", -1) == cap
        assert sent.get("reasoning_effort") in (None, "low", "medium")


async def test_what_nothing_bounds_gets_a_limit_where_quotas_need_one(by_caps):
    ruled, body = policy(by_caps), chat(question(102), thinking_token_budget=20)
    assert (await decided(ruled, body)).most_tokens is None
    bounded = await decided(ruled, body, is_bounded=True)
    assert bounded.most_tokens == bounded.changes["max_completion_tokens"] == 120
    own = await decided(ruled, body | {"max_tokens": 30}, is_bounded=True)
    assert (own.most_tokens, own.changes) == (30, {})


async def test_levels_are_set_by_their_fields_under_price_and_ceiling(by_levels):
    ruled = policy(by_levels, "openai", price=1e-5)
    hard, easy = await decided(ruled, chat(question(102))), await decided(ruled, chat(question(101)))
    assert (hard.kind, hard.option, hard.budget) == (PREDICTED, "high", None)
    assert hard.changes == {"reasoning_effort": "high"}
    assert easy.option == "low"
    assert hard.headers["x-forethought-option"] == "high"
    assert "x-forethought-budget" not in hard.headers
    assert hard.predicted_tokens < hard.high_tokens
    assert (await decided(ruled, chat(question(102)), ceiling="medium")).option in ("low", "medium")
    assert (await decided(ruled, chat(question(102)), ceiling=450)).option in ("low", "medium")
    assert (await decided(ruled, chat(question(102)), price=1.0)).option == "low"


async def test_a_clients_own_level_wins_below_the_ceiling(by_levels):
    ruled = policy(by_levels, "openai")
    body = chat(question(101), reasoning_effort="high")
    free, lowered = await decided(ruled, body), await decided(ruled, body, ceiling="medium")
    assert (free.kind, free.option, free.changes) == (OWN, "high", {})
    assert (lowered.kind, lowered.option, lowered.changes) == (OWN, "medium", {"reasoning_effort": "medium"})
    unknown = chat(question(101), reasoning_effort="extreme")
    assert (await decided(ruled, unknown)).changes == {}
    assert (await decided(ruled, unknown, ceiling="low")).changes == {"reasoning_effort": "low"}


OTHER_ROUTES = {
    "responses": (RESPONSES, {"input": question(102)}, {"reasoning": {"effort": "high"}}),
    "responses with turns": (
        RESPONSES,
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": question(102)}]}]},
        {"reasoning": {"effort": "high"}},
    ),
    "messages": (
        MESSAGES,
        {"max_tokens": 9000, "messages": [{"role": "user", "content": question(102)}]},
        {"output_config": {"effort": "high"}},
    ),
}


@pytest.mark.parametrize(("path", "body", "changes"), OTHER_ROUTES.values(), ids=OTHER_ROUTES.keys())
async def test_other_routes_have_their_own_names_for_a_level(by_levels, path, body, changes):
    decision = await decided(policy(by_levels, "openai", price=1e-5), {"model": "scripted", **body}, path)
    assert decision.option == "high"
    assert decision.changes == changes
    own = merged(body, changes) | {"model": "scripted"}
    assert (await decided(policy(by_levels, "openai"), own, path)).kind == OWN


async def test_a_cap_on_a_route_without_a_field_for_it_is_not_set(by_caps):
    decision = await decided(policy(by_caps), {"input": question(102), "max_output_tokens": 70}, RESPONSES)
    assert (decision.kind, decision.changes, decision.most_tokens) == (UNTOUCHED, {}, 70)


async def test_nested_caps_are_found_and_go_beside_what_the_client_set(by_caps):
    ruled = policy(by_caps, "sglang")
    own = chat(question(102), custom_params={"thinking_budget": 20})
    assert (await decided(ruled, own)).kind == OWN
    other = chat(question(102), custom_params={"seed": 3}, max_tokens=50)
    decision = await decided(ruled, other)
    sent = merged(other, decision.changes)
    assert sent["custom_params"] == {"seed": 3, "thinking_budget": decision.budget}
    assert sent["max_tokens"] == 50


def test_most_thoughts_are_shorter_than_the_high_number():
    tokens_B = np.array([16.0, 30.0, 37.0, 38.0])
    assert high_of_cap(CAPS, tokens_B, 3) == 64
    assert high_of_cap(CAPS, tokens_B, 0) == 16
    assert high_of_cap(CAPS, np.array([16.0, 17.0, 17.5, 17.5]), 3) == 32


@pytest.mark.parametrize(
    ("path", "fields", "num"),
    [(CHAT, {"n": 3}, 3), (TEXT, {"prompt": ["a", "b"], "n": 2, "best_of": 4}, 8), (TEXT, {"prompt": [1, 2]}, 1)],
)
async def test_every_thought_of_a_request_is_known(by_caps, path, fields, num):
    assert (await decided(policy(by_caps), chat(question(102)) | fields, path)).num_thoughts == num


@pytest.mark.parametrize("kind", ["history", "mean", "text"])
async def test_predictors_that_need_no_model_decide(kind):
    ruled = policy(train(measured(CAPS), predictor=kind))
    assert (await decided(ruled, chat(question(102)))).kind in (PREDICTED, MEAN)


LIMITS = {
    "minus one is none": ("llama.cpp", {"max_tokens": -1}, {"max_tokens": 116}),
    "another name for it": ("llama.cpp", {"max_tokens": 9, "n_predict": 100_000}, {"max_tokens": 9, "n_predict": 9}),
    "that name alone": ("llama.cpp", {"n_predict": -1}, {"n_predict": 116}),
    "both names of a chat": ("sglang", {"max_tokens": 7, "max_completion_tokens": 50}, None),
    "none": ("sglang", {}, {"max_tokens": 116}),
}


@pytest.mark.parametrize(("kind", "fields", "sent"), LIMITS.values(), ids=LIMITS.keys())
async def test_no_limit_of_a_client_lets_more_through(by_caps, kind, fields, sent):
    body = chat(question(101), **fields)
    decision = await decided(policy(by_caps, kind, price=1.0), body)
    limits = {name: value for name, value in decision.changes.items() if name.startswith(("max_", "n_"))}
    assert limits == (sent or {"max_tokens": 7, "max_completion_tokens": 7})
    assert decision.most_tokens == next(iter(limits.values()))


async def test_a_client_without_a_limit_is_not_taken_to_have_one(by_caps):
    ruled = policy(by_caps, "llama.cpp")
    for fields in ({"max_tokens": -1}, {"n_predict": -1}):
        body = chat(question(101), reasoning_budget_tokens=20, **fields)
        assert (await decided(ruled, body)).most_tokens is None
        bounded = await decided(ruled, body, is_bounded=True)
        assert set(bounded.changes.values()) == {bounded.most_tokens} == {120}
