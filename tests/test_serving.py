"""The plug-in of vLLM's server, without vLLM: settings, what becomes of a request, measured caps, counted responses."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forethought.control.sources import shipped_heldout
from forethought.core.data import Cost
from forethought.core.features import Features
from forethought.core.menu import Menu
from forethought.core.options import Option
from forethought.core.profile import Profile
from forethought.core.prompts import load_template
from forethought.core.provenance import Provenance
from forethought.errors import EngineError, ForethoughtError, InvalidSettingsError
from forethought.gateway.decision import (
    AGED,
    LENGTH,
    MEAN,
    NONE,
    NOVEL,
    OWN,
    PATIENCE,
    PREDICTED,
    UNTOUCHED,
    Decider,
    Decision,
    Priorities,
)
from forethought.gateway.host import Tags
from forethought.gateway.hosts.vllm.extension import MAX_KEPT, PREFIX, HiddenStates
from forethought.gateway.hosts.vllm.host import VllmHost
from forethought.gateway.hosts.vllm.plugin import Plugin
from forethought.gateway.metrics import Counter, Metrics, Watch
from forethought.gateway.middleware import MAX_REQUEST_BYTES, Budgets
from forethought.gateway.opening import (
    CAPS,
    Prepared,
    measure_offset,
    open_policy,
    prepare,
    refuse_unfit,
    thought_length,
    with_own_template,
)
from forethought.gateway.options import VARIABLES, ServingOptions
from forethought.gateway.policy import Policy
from forethought.gateway.price import Price
from forethought.gateway.request import CHAT, MAX_CHARACTERS, QUEUED, QUEUED_BY_FIELD, TEXT, read
from forethought.gateway.states import PromptStates
from forethought.models.thinking import own_template
from forethought.predictors.training import train
from forethought.runs.profiles import write_parquet
from forethought.servers.kinds import KINDS
from serving_host import END, START, Characters, FakeApp, FakeHost, post, state_of, tags

VLLM = KINDS["vllm"]
MENU = Menu.evenly(16, 64)
TEMPLATE = load_template("boxed")
NAMES = ("Ann", "Bob", "Cem", "Dee", "Eve")
EASY = "{} has {} apples and eats {}. How many?"
HARD = "{} has {} apples, twice as many pears, and sells {}% of each every day for a week. How many are left?"


def question(row: int) -> str:
    return (EASY if row % 2 else HARD).format(NAMES[row % 5], 20 + row % 60, 2 + row % 8)


def asked_with(question: str) -> str:
    return f"{question}\n{TEMPLATE.instruction}"


@pytest.fixture(scope="module")
def profile() -> Profile:
    """Easy questions that 16 tokens answer, hard ones that need 64; a state that knows how long the prompt is."""
    rows = range(80)
    texts = tuple(map(question, rows))
    right_Q_B = np.array([[10, 10, 10, 10] if row % 2 else [0, 1, 2, 9] for row in rows])
    states = [state_of(f"<user>{asked_with(text)}\n{START}", 8) for text in texts]
    noise_Q_D = 0.01 * np.random.default_rng(0).standard_normal((len(rows), 8))
    tokens_Q_B = np.array([[16.0, 20.0, 21.0, 21.0] if row % 2 else [16.0, 32.0, 48.0, 64.0] for row in rows])
    return Profile(
        query_ids=tuple(map(str, rows)),
        menu=MENU,
        num_right_Q_B=right_Q_B,
        num_tried_Q=np.full(len(rows), 10),
        tokens_Q_B=tokens_Q_B,
        reasoning_Q_B=tokens_Q_B,
        hidden_Q_L_D=(np.stack(states) + noise_Q_D)[:, None].astype(np.float32),
        layers=(2,),
        texts=texts,
        provenance=Provenance.from_json({"model": "coder", "template": TEMPLATE.name, "template_hash": TEMPLATE.hash}),
    )


@pytest.fixture(scope="module")
def text_predictor(profile: Profile) -> Any:
    return train(profile, predictor="text")


@pytest.fixture(scope="module")
def state_predictor(profile: Profile) -> Any:
    return train(profile, predictor="ridge")


def policy(predictor: Any, host: FakeHost | None = None, *, price: float = 0.005, **changes: Any) -> Policy:
    given: dict[str, Any] = {
        "template": TEMPLATE,
        "answer_room": 100,
        "offset": 2,
        "priorities": Priorities(LENGTH),
        **changes,
    }
    decider = Decider(predictor, price=price, cost=Cost.GRANTED)
    host = host or FakeHost()
    watch = Watch(decider, Price(price, None, "given"))
    told = host.tags or tags()
    states = PromptStates(host, given["template"], predictor.card.features.layer) if decider.reads_hidden else None
    counter = Counter(host.tokenizer, told)
    return Policy(
        decider,
        host,
        start=told.start,
        counter=counter,
        states=states,
        metrics=Metrics(None),
        watch=watch,
        **given,
    )


def chat(question: str, **fields: Any) -> dict[str, Any]:
    return {"model": "coder", "messages": [{"role": "user", "content": question}], **fields}


EASY_ONE, HARD_ONE = question(101), question(102)


# ------------------------------------------------------------------------------------------- settings


def test_all_that_is_wrong_with_the_variables_is_told_at_once():
    with pytest.raises(InvalidSettingsError) as caught:
        ServingOptions.from_environment(
            {
                "FORETHOUGHT_ANSWER_ROOM": "many",
                "FORETHOUGHT_CAP_OFFSET": "1.5",
                "FORETHOUGHT_COST": "grantd",
                "FORETHOUGHT_MEAN_TOKEN": "64",
                "FORETHOUGHT_PROFILE": "/not/there.parquet",
            }
        )
    message = str(caught.value)
    for part in (
        "FORETHOUGHT_PREDICTOR is not set",
        "FORETHOUGHT_ANSWER_ROOM must be a whole number of at least 1, not 'many'",
        "FORETHOUGHT_CAP_OFFSET must be a whole number",
        "Did you mean 'granted'",
        "there is no variable FORETHOUGHT_MEAN_TOKEN. Did you mean FORETHOUGHT_MEAN_TOKENS?",
        "FORETHOUGHT_PROFILE: there is no /not/there.parquet",
        "neither is set",
    ):
        assert part in message


def test_one_of_price_and_mean_and_not_both():
    both = {"FORETHOUGHT_PREDICTOR": "x", "FORETHOUGHT_PRICE": "0.1", "FORETHOUGHT_MEAN_TOKENS": "64"}
    with pytest.raises(InvalidSettingsError, match="both are set"):
        ServingOptions.from_environment(both)


def test_defaults_and_every_variable_is_read():
    least = ServingOptions.from_environment({"FORETHOUGHT_PREDICTOR": "x", "FORETHOUGHT_PRICE": "0"})
    assert (least.price, least.cap_offset, least.cost) == (0.0, None, Cost.GRANTED)
    assert (least.priority, least.patience) == (AGED, PATIENCE)
    every = {
        "FORETHOUGHT_PREDICTOR": "x",
        "FORETHOUGHT_MEAN_TOKENS": "64",
        "FORETHOUGHT_PROFILE": __file__,
        "FORETHOUGHT_COST": "spent",
        "FORETHOUGHT_ANSWER_ROOM": "9",
        "FORETHOUGHT_CAP_OFFSET": "-1",
        "FORETHOUGHT_PRIORITY": "none",
        "FORETHOUGHT_PATIENCE": "0.5",
    }
    found = ServingOptions.from_environment(every)
    assert found == ServingOptions(
        predictor="x",
        mean_tokens=64.0,
        profile=__file__,
        cost=Cost.SPENT,
        answer_room=9,
        cap_offset=-1,
        priority="none",
        patience=0.5,
    )
    assert every.keys() | {"FORETHOUGHT_PRICE"} == VARIABLES.keys()


def test_variables_of_the_command_line_are_left_alone():
    environment = {"FORETHOUGHT_PREDICTOR": "x", "FORETHOUGHT_PRICE": "1", "FORETHOUGHT_RUN_MEAN_TOKENS": "3"}
    ServingOptions.from_environment({**environment, "FORETHOUGHT_HOME": "/x", "FORETHOUGHT_API_KEY": "k"})


# ------------------------------------------------------------------------------------------- the price


@pytest.mark.slow
def test_the_price_is_set_on_left_out_predictions_of_the_training_questions(profile, text_predictor, tmp_path):
    folder, file = tmp_path / "predictor", tmp_path / "profile.parquet"
    text_predictor.save(folder)
    write_parquet(file, profile)
    assert text_predictor.is_trained_on(profile)
    assert not text_predictor.is_trained_on(profile.select(np.arange(60)))
    variables = {"FORETHOUGHT_PREDICTOR": str(folder), "FORETHOUGHT_MEAN_TOKENS": "32"}
    with pytest.raises(InvalidSettingsError, match=r"FORETHOUGHT_PROFILE=profile\.parquet"):
        prepare(variables)
    prepared = prepare({**variables, "FORETHOUGHT_PROFILE": str(file)})
    assert prepared.price.source == f"left-out predictions of {file}"
    assert prepared.price.mean_budget <= 32
    assert prepared.price.value > 0
    assert prepared.template == TEMPLATE


def test_a_price_on_fewer_questions_than_folds(profile, tmp_path):
    few = profile.select(np.arange(4))
    folder, file = tmp_path / "predictor", tmp_path / "profile.parquet"
    train(few, predictor="text").save(folder)
    write_parquet(file, few)
    named = {"FORETHOUGHT_PREDICTOR": str(folder), "FORETHOUGHT_PROFILE": str(file)}
    prepared = prepare({**named, "FORETHOUGHT_MEAN_TOKENS": "32"})
    assert prepared.price.source == f"left-out predictions of {file}"


@pytest.mark.slow
def test_a_mean_that_no_budget_fits_is_refused(profile, text_predictor, tmp_path):
    text_predictor.save(tmp_path / "predictor")
    write_parquet(tmp_path / "profile.parquet", profile)
    with pytest.raises(ForethoughtError):
        prepare(
            {
                "FORETHOUGHT_PREDICTOR": str(tmp_path / "predictor"),
                "FORETHOUGHT_MEAN_TOKENS": "8",
                "FORETHOUGHT_PROFILE": str(tmp_path / "profile.parquet"),
            }
        )


def test_a_predictor_that_has_to_ask_its_model_is_refused(text_predictor):
    features = replace(text_predictor.card.features, kind="difficulty")
    asking = replace(text_predictor, card=replace(text_predictor.card, features=features))
    with pytest.raises(InvalidSettingsError, match="--predictor text"):
        refuse_unfit(asking)


def test_a_predictor_of_named_options_is_refused(text_predictor):
    card, caps = text_predictor.card, text_predictor.card.menu.caps
    named = Menu(caps, tuple(Option(f"level {cap}", set={"reasoning_effort": f"{cap}"}) for cap in caps))
    with pytest.raises(InvalidSettingsError, match="options with names"):
        refuse_unfit(replace(text_predictor, card=replace(card, menu=named)))


# ------------------------------------------------------------------------------------------- what becomes of a request


async def test_a_hard_question_gets_more_and_an_easy_one_goes_first(text_predictor):
    ruled = policy(text_predictor)
    easy, hard = await ruled.decide(CHAT, chat(EASY_ONE)), await ruled.decide(CHAT, chat(HARD_ONE))
    assert easy.kind == hard.kind == PREDICTED
    assert easy.budget < hard.budget
    for one in (easy, hard):
        assert one.changes["thinking_token_budget"] == one.budget - 2
        assert one.changes["max_completion_tokens"] == one.budget + 100
        assert "not the prompt of template boxed" in one.reason
    assert easy.changes["priority"] < hard.changes["priority"]
    assert 0 < float(easy.headers["x-forethought-expected"]) <= 1
    as_asked = await ruled.decide(CHAT, chat(asked_with(EASY_ONE)))
    assert as_asked.reason == "predicted"
    assert as_asked.budget == easy.budget


OWN_FIELDS = {
    "cap": ({"thinking_token_budget": 3}, {}),
    "no cap": ({"thinking_token_budget": -1, "max_tokens": 9}, {}),
    "room": ({"max_completion_tokens": 7}, {"max_completion_tokens": 7}),
    "room by its old name": ({"max_tokens": 7}, {"max_completion_tokens": 7}),
    "more room than we give": ({"max_tokens": 7000}, {"max_completion_tokens": 116}),
}


@pytest.mark.parametrize(("fields", "expected"), OWN_FIELDS.values(), ids=OWN_FIELDS.keys())
async def test_what_the_client_set_is_kept(text_predictor, fields, expected):
    ruled = policy(text_predictor, FakeHost(has_priorities=False))
    decision = await ruled.decide(CHAT, chat(EASY_ONE, **fields))
    if "thinking_token_budget" in fields:
        assert decision.kind == OWN
        assert decision.changes == {}
        assert decision.headers["x-forethought-budget"] == str(fields["thinking_token_budget"])
    else:
        assert decision.budget == 16
        assert decision.changes == {"thinking_token_budget": 14, **expected}


async def test_priorities_only_where_they_count_and_never_over_the_clients_own(text_predictor):
    ruled = policy(text_predictor)
    assert "priority" in (await ruled.decide(CHAT, chat(EASY_ONE))).changes
    assert "priority" not in (await ruled.decide(CHAT, chat(EASY_ONE, priority=4))).changes
    assert "priority" not in (await ruled.decide(CHAT, chat(EASY_ONE), {"x-vllm-priority"})).changes
    for other in (
        policy(text_predictor, FakeHost(has_priorities=False)),
        policy(text_predictor, priorities=Priorities(NONE)),
    ):
        assert "priority" not in (await other.decide(CHAT, chat(EASY_ONE))).changes


@pytest.mark.parametrize(("context", "most"), [(None, 164), (1000, 164), (130, 130)], ids=str)
async def test_no_request_gets_a_limit_above_the_servers_context_which_vllm_refuses(text_predictor, context, most):
    decision = await policy(text_predictor, FakeHost(context_tokens=context)).decide(CHAT, chat(HARD_ONE))
    assert decision.budget == 64
    assert decision.most_tokens == decision.changes["max_completion_tokens"] == most
    assert (decision.tokens_B is None) == (most < 164)


async def test_who_gets_no_budget_waits_like_a_mean_request_and_not_before_all_others(text_predictor):
    ruled = policy(text_predictor)
    mean = ruled.decider.by_mean("").predicted_tokens
    for fields in ({"thinking_token_budget": 40}, {"use_beam_search": True}):
        assert (await ruled.decide(CHAT, chat(EASY_ONE, **fields))).changes == {"priority": mean}
        assert (await ruled.decide(CHAT, chat(EASY_ONE, priority=4, **fields))).changes == {}


def test_waiting_outweighs_length_after_as_many_seconds_as_were_said():
    now = 100.0
    aged = Priorities(AGED, patience=0.5, clock=lambda: now)
    long = aged.of(60)
    now = 119.9  # a request of 20 tokens is 40 shorter: it may overtake for 20 seconds
    assert aged.of(20) < long < aged.of(21)
    now = 120.1
    assert aged.of(20) > long
    assert Priorities(LENGTH, clock=lambda: now).of(60) == 60
    assert Priorities(NONE).of(60) is None


IMAGE = {"type": "image_url", "image_url": {"url": "data:,"}}
NOT_ITS_KIND = {
    "tools": ({"tools": [{"type": "function"}]}, "tools"),
    "an image": ({"messages": [{"role": "user", "content": [{"type": "text", "text": "?"}, IMAGE]}]}, "not text alone"),
    "an adapter": ({"model": "coder-sql"}, "another model than the predictor's"),
    "a schema": ({"response_format": {"type": "json_object"}}, "structured output"),
    "earlier turns": (
        {"messages": [{"role": r, "content": "Why?"} for r in ("user", "assistant", "user")]},
        "earlier turns",
    ),
    "an answer begun": ({"messages": [{"role": "assistant", "content": "So"}]}, "no question at the end"),
    "nothing to read": ({"messages": [{"role": "user", "content": "  "}]}, "the question cannot be read"),
}


@pytest.mark.parametrize(("fields", "reason"), NOT_ITS_KIND.values(), ids=NOT_ITS_KIND.keys())
async def test_what_is_not_the_predictors_kind_gets_the_mean_curves_budget(text_predictor, fields, reason):
    ruled = policy(text_predictor)
    decision = await ruled.decide(CHAT, {**chat(EASY_ONE), **fields})
    assert decision.kind == MEAN
    assert decision.headers["x-forethought-reason"] == f"mean curve: {reason}"
    assert decision.budget == ruled.decider.by_mean("").budget
    assert ruled.metrics.to_json()["by_kind"][MEAN] == 1


async def test_a_novel_question_has_its_own_curve_and_the_response_says_so():
    real = shipped_heldout("qwen2.5-coder-0.5b").select(np.arange(100))
    ruled = policy(train(real, predictor="text"), price=0.001)
    decision = await ruled.decide(
        CHAT, chat("Übersetze: 'Der Herbst, so spät er kommt, kennt keinen Zorn.' §§ ¿¿ " * 3)
    )
    assert decision.kind == NOVEL
    assert decision.headers["x-forethought-reason"].startswith("predicted; novel to the predictor (p=0.0")
    assert decision.budget == ruled.decider.by_mean("").budget
    kinds = [(await ruled.decide(CHAT, chat(text))).kind for text in real.texts[:40]]
    assert kinds.count(PREDICTED) > 30


UNTOUCHABLE = {
    "beam search": (CHAT, {"use_beam_search": True}),
    "token ids": (TEXT, {"prompt": [1, 2]}),
    "a prompt without a thought": (TEXT, {"prompt": "Once upon a time"}),
}


@pytest.mark.parametrize(("path", "fields"), UNTOUCHABLE.values(), ids=UNTOUCHABLE.keys())
async def test_what_can_have_no_budget_is_left_alone(text_predictor, path, fields):
    decision = await policy(text_predictor).decide(path, {**chat(EASY_ONE), **fields})
    assert decision.kind == UNTOUCHED
    assert set(decision.changes) == {"priority"}  # its turn, and nothing of what it asks
    assert set(decision.headers) == {"x-forethought-reason"}


async def test_a_text_prompt_that_opens_a_thought_gets_a_budget(text_predictor):
    decision = await policy(text_predictor).decide(TEXT, {"prompt": f"{EASY_ONE}\n{START}", "max_tokens": 5})
    assert decision.changes["max_tokens"] == 5
    assert decision.changes["thinking_token_budget"] >= 0


@pytest.mark.parametrize("body", [{}, {"messages": "x"}, {"messages": [1]}, chat("x", max_tokens="9")])
def test_what_vllm_will_refuse_is_passed_on(body):
    assert read(CHAT, body, kind=VLLM, template=None, models=(), start=START) is None


def test_turns_of_text_parts_are_joined_and_the_templates_instruction_is_no_part_of_the_question():
    content = [{"type": "text", "text": "How"}, {"type": "text", "text": f"many?\n{TEMPLATE.instruction}"}]
    asked = read(CHAT, chat(content), kind=VLLM, template=TEMPLATE, models=(), start=START)
    assert asked.question == "How\nmany?"
    assert asked.is_templates
    worked = load_template("worked-5")
    shots = [{"role": "x", "content": ""}]
    shots = [
        turn for q, s in worked.shots for turn in ({"role": "user", "content": q}, {"role": "assistant", "content": s})
    ]
    body = {"messages": [*shots, {"role": "user", "content": EASY_ONE}]}
    assert read(CHAT, body, kind=VLLM, template=worked, models=(), start=START).is_templates
    assert read(CHAT, body, kind=VLLM, template=TEMPLATE, models=(), start=START).no_curve == "earlier turns"


def test_a_reason_is_one_line_of_ascii():
    headers = Decision(MEAN, "mean curve: né\nx").headers
    assert headers == {"x-forethought-reason": "mean curve: n? x"}


# ------------------------------------------------------------------------------------------- hidden states


async def test_concurrent_hidden_state_requests_do_not_mix(state_predictor):
    host = FakeHost()
    ruled = policy(state_predictor, host)
    questions = [asked_with(question(row)) for row in range(100, 120)]
    together = await asyncio.gather(*(ruled.decide(CHAT, chat(text)) for text in questions))
    alone = [await ruled.decide(CHAT, chat(text)) for text in questions]
    assert list(together) == alone
    assert {one.kind for one in together} == {PREDICTED}
    assert len({one.budget for one in together}) > 1


async def test_a_prompt_that_is_not_the_templates_is_not_read(state_predictor):
    host = FakeHost()
    ruled = policy(state_predictor, host)
    decision = await ruled.decide(CHAT, chat(EASY_ONE))
    assert decision.reason == "mean curve: not the prompt of template boxed"
    system = {"messages": [{"role": "system", "content": "Be brief."}, *chat(asked_with(EASY_ONE))["messages"]]}
    assert (await ruled.decide(CHAT, system)).kind == MEAN
    assert (await ruled.decide(CHAT, chat(asked_with(EASY_ONE), refused=True))).kind == MEAN
    assert host.prefills == []


async def test_a_state_that_was_not_caught_is_told(state_predictor):
    decision = await policy(state_predictor, FakeHost(is_hooked=False)).decide(CHAT, chat(asked_with(EASY_ONE)))
    assert decision.reason == "mean curve: no hidden state was caught"


@pytest.mark.parametrize("name", ["QueueOverflowError", "MaxQueuedTokensError"])
async def test_a_full_queue_leaves_the_mean_curve_and_the_request_its_own_reply(state_predictor, monkeypatch, name):
    class Engine:
        renderer = Object(get_tokenizer=Characters)
        vllm_config = Object(
            scheduler_config=Object(policy="fcfs"),
            model_config=Object(
                max_model_len=9,
                hf_text_config=Object(num_hidden_layers=4),
                get_hidden_size=lambda: 8,
                enforce_eager=True,
            ),
            parallel_config=Object(worker_extension_cls="forethought.gateway.HiddenStates", data_parallel_size=1),
            reasoning_config=None,
        )

        async def generate(self, *_: Any) -> Any:
            raise type(name, (Exception,), {})("the engine is busy")
            yield

        async def collective_rpc(self, *_: Any, **__: Any) -> list[None]:
            return [None]

    monkeypatch.setitem(sys.modules, "vllm", Object(SamplingParams=Object))
    monkeypatch.setitem(sys.modules, "vllm.sampling_params", Object(RequestOutputKind=Object(FINAL_ONLY=0)))
    paths = Object(base_model_paths=[Object(name="coder")])
    busy, host = VllmHost(Engine(), Object(openai_serving_chat=object(), openai_serving_models=paths)), FakeHost()
    host.hidden_state = busy.hidden_state  # type: ignore[method-assign]
    decision = await policy(state_predictor, host).decide(CHAT, chat(asked_with(EASY_ONE)))
    assert decision.reason == "mean curve: no hidden state: the engine is busy"
    name = "RuntimeError"
    with pytest.raises(Exception, match="the engine is busy"):  # anything else is a fault, and is not hidden
        await busy.hidden_state([1], 2)


class Layer:
    """A decoder layer that takes hooks."""

    def __init__(self) -> None:
        self.hooks: list[Any] = []

    def register_forward_hook(self, hook: Any) -> Any:
        self.hooks.append(hook)


class Tensor(np.ndarray):
    """What a hook is given, as far as it uses it."""

    def float(self) -> Any:
        return self.astype(np.float32)

    def cpu(self) -> Any:
        return self

    def numpy(self) -> Any:
        return np.asarray(self)


class Object:
    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)


def worker_with(layers: list[Layer], request_ids: list[str], ends: list[int]) -> HiddenStates:
    worker = HiddenStates()
    worker.model_runner = Object(
        query_start_loc=Object(np=np.array([0, *ends])),
        input_batch=Object(req_ids=request_ids),
        get_model=lambda: Object(model=Object(layers=layers, embed_tokens=Layer())),
    )
    return worker


def test_the_worker_keeps_the_last_token_of_our_prefills_alone():
    layers = [Layer(), Layer()]
    worker = worker_with(layers, ["chatcmpl-1-00000000", f"{PREFIX}a-00000000", f"{PREFIX}b-00000000"], [2, 5, 6])
    assert worker.forethought_watch(2) == ""
    stream = np.arange(12, dtype=np.float64).reshape(6, 2).view(Tensor)
    layers[1].hooks[0](None, None, (stream, stream))
    assert np.frombuffer(worker.forethought_take(f"{PREFIX}a", 2), dtype=np.float32).tolist() == [16.0, 18.0]
    assert np.frombuffer(worker.forethought_take(f"{PREFIX}b", 2), dtype=np.float32).tolist() == [20.0, 22.0]
    assert worker.forethought_take(f"{PREFIX}a", 2) is None
    assert worker._forethought_caught == {}


def test_a_second_api_server_of_the_same_engine_hooks_nothing_again_and_forgets_nothing():
    layers = [Layer()]
    worker = worker_with(layers, [f"{PREFIX}a-00000000"], [1])
    assert worker.forethought_watch(1) == ""
    layers[0].hooks[0](None, None, np.ones((1, 2)).view(Tensor))
    assert worker.forethought_watch(1) == ""
    assert len(layers[0].hooks) == 1
    assert worker.forethought_take(f"{PREFIX}a", 1) is not None


def test_the_worker_forgets_the_oldest_states_that_nobody_takes():
    worker = worker_with([Layer()], [], [])
    worker.forethought_watch(1)
    for row in range(MAX_KEPT + 5):
        worker._forethought_place(f"{PREFIX}{row}")
    assert len(worker._forethought_caught) == MAX_KEPT


def test_a_worker_that_cannot_be_hooked_says_why():
    worker = HiddenStates()
    worker.model_runner = Object()
    assert "model runner" in worker.forethought_watch(1)


# ------------------------------------------------------------------------------------------- caps measured at start


@pytest.mark.parametrize("offset", [-1, 0, 2])
async def test_the_offset_of_the_servers_caps_is_measured(offset):
    assert await measure_offset(FakeHost(offset=offset), tags(), TEMPLATE) == offset


async def test_caps_without_effect_are_refused():
    with pytest.raises(EngineError, match=r"no effect on this server .*8: no end.*the end .* never came"):
        await measure_offset(FakeHost(offset=None), tags(), TEMPLATE)
    elsewhere = Tags("<think>", END, (1, 2, 3), tags().end_ids, False)
    with pytest.raises(EngineError, match="the prompt does not hold them"):
        await measure_offset(FakeHost(offset=None), elsewhere, None)


async def test_caps_that_are_kept_unevenly_are_refused():
    class Uneven(FakeHost):
        async def generate(self, ids: Any, *, max_tokens: int, cap: int | None = None) -> list[int]:
            return await FakeHost(offset=cap % 3).generate(ids, max_tokens=max_tokens, cap=cap)

    assert len({cap % 3 for cap in CAPS}) > 1
    with pytest.raises(EngineError, match="not kept evenly"):
        await measure_offset(Uneven(), tags(), TEMPLATE)


def test_a_thought_is_parsed_from_the_start_that_the_model_wrote():
    encode = Characters().encode
    assert thought_length(encode(f"abc{END}7"), tags()) == 3
    assert thought_length(encode(f"Well. {START}abcd{END}7"), tags()) == 4
    assert thought_length(encode("abc"), tags()) is None


# ------------------------------------------------------------------------------------------- start


def prepared(predictor: Any, **options: Any) -> Prepared:
    given = ServingOptions(predictor="x", price=0.005, **options)
    return Prepared(given, predictor, Price(0.005, None, "given"), TEMPLATE)


async def test_a_desk_is_opened_with_the_measured_offset(text_predictor, state_predictor):
    assert (await open_policy(prepared(text_predictor), FakeHost(offset=3))).offset == 3
    assert (await open_policy(prepared(text_predictor, cap_offset=1), FakeHost(offset=None))).offset == 1
    assert (await open_policy(prepared(state_predictor), FakeHost())).offset == 2


def test_a_models_own_chat_template_is_taken_where_it_is_the_predictors(text_predictor):
    host = FakeHost()
    own, _ = own_template(host.tokenizer)
    for template_hash, found in ((own.hash, own), ("another", None)):
        card = replace(text_predictor.card, template="chat", template_hash=template_hash)
        given = replace(prepared(replace(text_predictor, card=card)), template=None)
        assert with_own_template(given, host).template == found
    assert with_own_template(prepared(text_predictor), host).template == TEMPLATE


REFUSALS = {
    "no reasoning": ({"tags": None}, "--reasoning-parser NAME"),
    "no extension": ({"why_no_states": "add --worker-extension-cls"}, "hidden states of layer 2, and add --worker-ext"),
    "another width": ({"width": 9}, "of width 8 .* this model has width 9"),
    "too few layers": ({"num_layers": 1}, "1 layers"),
    "graphs": ({"is_hooked": False}, "--enforce-eager"),
}


@pytest.mark.parametrize(("fields", "message"), REFUSALS.values(), ids=REFUSALS.keys())
async def test_a_server_that_does_not_fit_is_refused(state_predictor, fields, message):
    with pytest.raises(EngineError, match=message):
        await open_policy(prepared(state_predictor), FakeHost(**fields))


async def test_all_that_does_not_fit_is_told_at_once(state_predictor):
    with pytest.raises(EngineError) as caught:
        await open_policy(prepared(state_predictor), FakeHost(tags=None, why_no_states="add a flag", width=9))
    assert str(caught.value).count("\n  ") == 3


# ------------------------------------------------------------------------------------------- responses


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
async def test_budgets_go_in_and_headers_come_out(text_predictor, is_stream):
    app, ruled = FakeApp(is_stream=is_stream), policy(text_predictor)
    headers, body = await post(Budgets(app, lambda: ruled), chat(EASY_ONE, stream=is_stream, seed=3))
    assert app.bodies[0]["thinking_token_budget"] == 14
    assert app.bodies[0]["seed"] == 3
    assert app.lengths == [len(json.dumps(app.bodies[0]))]
    assert headers["x-forethought-budget"] == "16"
    assert float(headers["x-forethought-expected"]) > 0.5
    assert headers["x-forethought-reason"].startswith("predicted")
    assert END.encode("unicode_escape")[-6:] in body
    status = ruled.metrics.to_json()
    assert (status["counted"], status["mean_reasoning_tokens"], status["overshoots"]) == (1, 10, 0)


def hard_decision(ruled: Policy) -> Decision:
    found = ruled.decider.by_curve(HARD_ONE)
    assert found.tokens_B is not None
    assert found.budget == 64
    return found


async def test_thoughts_of_the_predicted_length_change_nothing(text_predictor, caplog):
    ruled = policy(text_predictor)
    predicted = round(hard_decision(ruled).tokens_B[-1])
    app = Budgets(FakeApp(thought=predicted), lambda: ruled)
    for _ in range(100):
        await post(app, chat(HARD_ONE))
    status = ruled.watch.to_json()
    assert (status["answers"], status["alarms"], status["stretch"], status["price"]) == (100, 0, 1.0, 0.005)
    assert status["ratio"] == pytest.approx(1.0, abs=0.15)
    assert not caplog.records


async def test_shorter_thoughts_raise_an_alarm_and_the_curves_and_the_price_follow(text_predictor, profile, caplog):
    curves = text_predictor.predict(profile.query_ids, Features(len(profile.texts), texts=profile.texts))
    ruled = policy(text_predictor)
    rate = Price(0.005, 40.0, "set", curves, 40.0, Cost.GRANTED)
    ruled.watch = Watch(ruled.decider, rate)
    before = hard_decision(ruled)
    app = Budgets(FakeApp(thought=20), lambda: ruled)
    for _ in range(200):
        await post(app, chat(HARD_ONE))
        if ruled.watch.usage.num_alarms:
            break
    status = ruled.watch.to_json()
    assert status["alarms"] == 1
    assert status["stretch"] == pytest.approx(20 / before.tokens_B[-1], abs=0.1)
    assert status["price"] == ruled.decider.price == rate.at(status["stretch"])
    assert "times the predicted tokens" in caplog.text
    assert ruled.decider.by_curve(HARD_ONE).budget < before.budget


def test_a_price_that_was_given_holds():
    assert Price(0.005, None, "FORETHOUGHT_PRICE").at(2.0) == 0.005


async def test_what_came_back_first_is_looked_at_in_the_order_of_asking(text_predictor):
    """Forty short thoughts that come back before forty long ones are no alarm; taken as they come they would be."""
    ruled = policy(text_predictor)
    decision, watch = hard_decision(ruled), ruled.watch
    predicted = decision.tokens_B[-1]
    lengths = [round(0.4 * predicted), 64] * 150
    numbers = [watch.begun() for _ in lengths]
    for number, length in sorted(zip(numbers, lengths, strict=True), key=lambda pair: pair[1]):
        watch.ended(number, decision, length)
    assert watch.to_json()["answers"] == 300
    as_they_come = Watch(ruled.decider, Price(0.005, None, "given"))
    for length in sorted(lengths):
        as_they_come.ended(as_they_come.begun(), decision, length)
    assert as_they_come.to_json()["alarms"] > watch.to_json()["alarms"]


async def test_replies_without_a_thought_say_nothing_of_how_long_thoughts_are(text_predictor):
    ruled = policy(text_predictor)
    app = Budgets(FakeApp(thought=0), lambda: ruled)
    before = hard_decision(ruled)
    for _ in range(200):
        await post(app, chat(HARD_ONE))
    status = ruled.watch.to_json()
    assert (status["answers"], status["alarms"], status["stretch"]) == (0, 0, 1.0)
    assert hard_decision(ruled).budget == before.budget


async def test_requests_that_never_end_hold_up_nothing_for_ever(text_predictor, monkeypatch):
    monkeypatch.setattr("forethought.gateway.metrics.MOST_HELD", 5)
    ruled = policy(text_predictor)
    decision, watch = hard_decision(ruled), ruled.watch
    lost = watch.begun()
    for _ in range(10):
        watch.ended(watch.begun(), decision, 60)
    assert watch.to_json()["answers"] == 10
    watch.ended(lost, decision, 60)
    assert watch.to_json()["answers"] == 10


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        pytest.param({"max_completion_tokens": 5}, 200, id="the client's own limit"),
        pytest.param({"thinking_token_budget": 3}, 200, id="the client's own cap"),
        pytest.param({"tools": [{"type": "function"}]}, 200, id="by the mean curve"),
        pytest.param({}, 500, id="an error"),
    ],
)
async def test_what_was_not_predicted_or_not_counted_is_not_compared(text_predictor, fields, status):
    ruled = policy(text_predictor)
    await post(Budgets(FakeApp(status=status), lambda: ruled), chat(HARD_ONE, **fields))
    assert ruled.watch.to_json()["answers"] == 0
    await post(Budgets(FakeApp(), lambda: ruled), chat(HARD_ONE))
    assert ruled.watch.to_json()["answers"] == 1


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
async def test_a_thought_longer_than_its_budget_is_parsed_and_logged(text_predictor, is_stream, caplog):
    ruled = policy(text_predictor)
    app = Budgets(FakeApp(thought=19, is_stream=is_stream), lambda: ruled)
    for _ in range(3):
        await post(app, chat(EASY_ONE))
    status = ruled.metrics.to_json()
    assert (status["overshoots"], status["largest_overshoot"]) == (3, 3)
    assert [record.message for record in caplog.records] == [
        "a thought of 19 tokens under a budget of 16: 1 so far",
        "a thought of 19 tokens under a budget of 16: 2 so far",
    ]


async def test_the_clients_own_caps_and_errors_are_not_counted(text_predictor):
    ruled = policy(text_predictor)
    await post(Budgets(FakeApp(), lambda: ruled), chat(EASY_ONE, thinking_token_budget=3))
    await post(Budgets(FakeApp(status=500), lambda: ruled), chat(EASY_ONE))
    assert ruled.metrics.to_json()["counted"] == 0


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b"{broken", CHAT),
        (b"[1]", CHAT),
        ({"input": "x"}, "/v1/embeddings"),
        ({"messages": 3}, CHAT),
        (chat(EASY_ONE) | {"model": []}, CHAT),
        (chat(EASY_ONE) | {"model": {}}, CHAT),
        (chat(EASY_ONE, n="2"), CHAT),
        (chat(EASY_ONE, n=0), CHAT),
    ],
)
async def test_what_is_not_ours_passes_as_it_is(text_predictor, body, path):
    app, ruled = FakeApp(), policy(text_predictor)
    if path == CHAT:
        headers, _ = await post(Budgets(app, lambda: ruled), body)
        assert app.lengths == [len(body if isinstance(body, bytes) else json.dumps(body))]
    else:
        with pytest.raises(AssertionError):  # the body was not even put together: the app reads it in two parts
            await post(Budgets(app, lambda: ruled), body, path=path)
        return
    assert not any(name.startswith("x-forethought") for name in headers)
    assert ruled.metrics.to_json()["requests"] == 0


async def test_a_body_nested_too_deeply_passes_as_it_is(text_predictor):
    seen: list[bytes] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((await receive())["body"])
        await send({"type": "http.response.start", "status": 400, "headers": []})

    body = b"[" * 100_000
    await post(Budgets(app, lambda: policy(text_predictor)), body)
    assert seen == [body]


async def test_every_thought_of_a_request_counts_in_the_mean(text_predictor):
    ruled = policy(text_predictor)
    await post(Budgets(FakeApp(), lambda: ruled), chat(EASY_ONE, n=99))
    await post(Budgets(FakeApp(), lambda: ruled), chat(HARD_ONE))
    easy, hard = (ruled.decider.by_curve(question).budget for question in (EASY_ONE, HARD_ONE))
    assert easy != hard
    assert ruled.metrics.to_json()["mean_budget"] == pytest.approx((99 * easy + hard) / 100)


async def test_a_question_of_any_length_takes_no_time_of_the_servers_loop(text_predictor, monkeypatch):
    ruled = policy(text_predictor)
    longest = "a" * MAX_CHARACTERS
    assert (await ruled.decide(CHAT, chat(longest))).kind == NOVEL

    def refuse(*args: Any, **options: Any) -> None:
        raise AssertionError("read")

    monkeypatch.setattr(ruled.decider, "by_curves", refuse)
    decision = await ruled.decide(CHAT, chat(longest + "a"))
    assert decision.kind == MEAN
    assert decision.headers["x-forethought-reason"] == "mean curve: a question of more than 32,768 characters"


async def test_a_body_without_an_end_passes_as_it_comes(text_predictor):
    """What has come is passed on, and what comes then: nothing is kept until the end."""
    piece, num_given, num_taken = b"x" * 1_000_000, 0, 0

    async def receive() -> Any:
        nonlocal num_given
        num_given += 1
        return {"type": "http.request", "body": piece, "more_body": num_given < 40}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal num_taken
        first = await receive()
        assert first["more_body"]
        assert num_given * len(piece) <= MAX_REQUEST_BYTES + len(piece)
        num_taken += len(first["body"])
        while (message := await receive())["more_body"]:
            num_taken += len(message["body"])
        num_taken += len(message["body"])

    async def send(message: Any) -> None:
        raise AssertionError("nothing is sent")

    scope = {"type": "http", "method": "POST", "path": CHAT, "root_path": "", "headers": []}
    await Budgets(app, lambda: policy(text_predictor))(scope, receive, send)
    assert num_taken == 40 * len(piece)


@pytest.mark.parametrize("name", ["a\rb", "a\nSet-Cookie: x", "a\0b", "a\x1b[2Jb", "é\u202e"])
async def test_a_templates_name_cannot_break_a_header(text_predictor, name):
    ruled = policy(text_predictor, template=replace(TEMPLATE, name=name))
    decision = await ruled.decide(CHAT, chat(EASY_ONE))
    reason = decision.headers["x-forethought-reason"]
    assert reason.startswith("predicted; not the prompt of template")
    assert all(" " <= letter <= "~" for letter in reason)


@pytest.mark.parametrize("path", QUEUED)
async def test_what_takes_its_priority_by_header_waits_like_a_mean_request(text_predictor, path):
    app, ruled = FakeApp(), policy(text_predictor)
    body = {"input": "x", "messages": []}
    headers, _ = await post(Budgets(app, lambda: ruled), body, path=path)
    mean = ruled.decider.by_mean("").predicted_tokens
    assert app.priorities == [str(mean).encode()]
    assert app.bodies == [body]
    assert not any(name.startswith("x-forethought") for name in headers)
    await post(Budgets(app, lambda: ruled), {**body, "priority": 4}, path=path)
    await post(Budgets(app, lambda: ruled), body, path=path, headers=[(b"X-Vllm-Priority", b"9")])
    without = policy(text_predictor, FakeHost(has_priorities=False))
    await post(Budgets(app, lambda: without), body, path=path)
    await post(Budgets(app, lambda: ruled), b"{broken", path=path)
    assert app.priorities[1:] == [None, None, None, None]


@pytest.mark.parametrize("path", QUEUED_BY_FIELD)
async def test_what_takes_its_priority_by_field_waits_like_a_mean_request(text_predictor, path):
    app, ruled, body = FakeApp(), policy(text_predictor), {"input": [], "x": 1}
    for given in (body, {**body, "priority": 4}):
        headers, _ = await post(Budgets(app, lambda: ruled), given, path=path)
        assert not any(name.startswith("x-forethought") for name in headers)
    await post(Budgets(app, lambda: policy(text_predictor, FakeHost(has_priorities=False))), body, path=path)
    mean = ruled.decider.by_mean("").predicted_tokens
    assert app.bodies == [{**body, "priority": mean}, {**body, "priority": 4}, body]
    assert app.lengths[0] == len(json.dumps(app.bodies[0]))


async def test_sagemakers_route_gets_the_budget_of_what_it_is_asked(text_predictor):
    app, ruled = FakeApp(), policy(text_predictor)
    text = {"prompt": f"<user>{EASY_ONE}\n{START}"}
    for path, body in ((CHAT, chat(EASY_ONE)), (TEXT, text)):
        headers, _ = await post(Budgets(app, lambda: ruled), body, path=path)
        assert "x-forethought-budget" in headers
        assert await post(Budgets(app, lambda: ruled), body, path="/invocations") == (headers, _)
        assert app.bodies[-1] == app.bodies[-2]
    adapter = [(b"X-Amzn-SageMaker-Adapter-Identifier", b"another")]
    headers, _ = await post(Budgets(app, lambda: ruled), chat(EASY_ONE), path="/invocations", headers=adapter)
    assert not any(name.startswith("x-forethought") for name in headers)
    assert app.bodies[-1]["priority"] == ruled.decider.by_mean("").predicted_tokens
    await post(Budgets(app, lambda: ruled), {**text, "messages": None}, path="/invocations")
    assert "thinking_token_budget" in app.bodies[-1]  # vLLM takes it for a completion
    session = {"requestType": "NEW_SESSION"}  # in which no other field may be
    await post(Budgets(app, lambda: ruled), session, path="/invocations")
    assert app.bodies[-1] == session


async def test_a_path_behind_a_prefix_is_known(text_predictor):
    app, ruled = FakeApp(), policy(text_predictor)

    async def prefixed(scope: Any, receive: Any, send: Any) -> None:
        await Budgets(app, lambda: ruled)({**scope, "root_path": "/llm"}, receive, send)

    headers, _ = await post(prefixed, chat(EASY_ONE), path=f"/llm{CHAT}")
    assert headers["x-forethought-budget"] == "16"


def usage(tokens: int) -> dict[str, Any]:
    return {"completion_tokens_details": {"reasoning_tokens": tokens}}


def test_a_thought_in_a_field_of_its_own_is_counted_and_the_larger_count_holds():
    counter = Counter(Characters(), tags(is_parsed=True))
    for said, theirs, expected in (("abc", 0, 3), ("abc", 12, 12), ("", 7, 7), ("", 0, None)):
        message = {"reasoning": said, "content": "7"}
        whole = json.dumps({"choices": [{"message": message}], "usage": usage(theirs)}).encode()
        assert counter.count(whole, is_stream=False) == expected
    pieces = [
        {"choices": [{"delta": {"reasoning": "ab"}}]},
        {"choices": [{"delta": {"reasoning": "c"}}], "usage": None},
    ]
    stream = b"".join(f"data: {json.dumps(piece)}\n\n".encode() for piece in pieces) + b": ping\n\ndata: [DONE]\n\n"
    assert counter.count(stream, is_stream=True) == 3


UNCOUNTED = {
    "no end": [{"text": "abc"}],
    "two choices": [{"index": 0, "text": f"a{END}"}, {"index": 1, "text": f"b{END}"}],
    "none": [],
}


@pytest.mark.parametrize("choices", UNCOUNTED.values(), ids=UNCOUNTED.keys())
def test_what_cannot_be_counted_is_not(choices):
    assert Counter(Characters(), tags()).count(json.dumps({"choices": choices}).encode(), is_stream=False) is None


def test_an_end_that_the_text_does_not_show_is_not_counted():
    class Hiding(Characters):
        def decode(self, ids: Any, *, skip_special_tokens: bool = False) -> str:
            return "" if skip_special_tokens else super().decode(ids)

    counter = Counter(Hiding(), tags())
    assert counter.way == "none"
    assert counter.count(b"{}", is_stream=False) is None


# ------------------------------------------------------------------------------------------- the entry point


def test_the_entry_point_is_the_plugin_and_loads_nothing_heavy():
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["entry-points"]["vllm.endpoint_plugins"] == {
        "forethought": "forethought.gateway.hosts.vllm.plugin:Plugin"
    }
    module = "forethought.gateway.hosts.vllm.plugin"
    script = f"import json, sys, {module} as p; p.Plugin(); print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = {name.split(".")[0] for name in json.loads(done.stdout)}
    assert not loaded & {"numpy", "torch", "vllm", "fastapi", "prometheus_client", "pyarrow"}


class App:
    """What the plug-in asks of vLLM's app."""

    def __init__(self) -> None:
        self.middleware: list[Any] = []
        self.routes: dict[str, Any] = {}

    def add_middleware(self, kind: Any, **given: Any) -> None:
        self.middleware.append((kind, given))

    def add_api_route(self, path: str, endpoint: Any, *, methods: list[str]) -> None:
        self.routes[path] = endpoint


async def test_a_bad_start_stops_the_server_where_vllm_does_not_swallow_it(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    plugin = Plugin()  # vLLM leaves a plug-in out that fails here, and serves without it
    with pytest.raises(InvalidSettingsError, match="FORETHOUGHT_PREDICTOR is not set"):
        plugin.attach_router(App())
    monkeypatch.setenv("FORETHOUGHT_PREDICTOR", "qwen2.5-coder-0.5b")
    monkeypatch.setenv("FORETHOUGHT_PRICE", "0.001")
    app = App()
    plugin.attach_router(app)
    assert "/forethought/status" in app.routes
    assert app.middleware[0][0] is Budgets
    with pytest.raises(EngineError, match="this server generates none"):
        await plugin.init_state(None, Object(), None)
