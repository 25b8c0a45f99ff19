"""The in-process vllm engine: its native cap, its queue, its two ways to hidden states."""

from __future__ import annotations

import gc
import os
import sys
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

from engine_contract import PROBES, QUERIES, TEMPLATE, requests, run
from forethought.core.data import Request, Sampling, StopReason
from forethought.engines.vllm import states as hooks
from forethought.engines.vllm.native import TRIAL_CAPS, Fate, NativeCap
from forethought.engines.vllm.reuse import Reuse
from forethought.engines.vllm.starting import Choices
from forethought.errors import EngineError, InvalidFeaturesError, InvalidSettingsError

CAP = NativeCap("<turn>a:", (1, 2, 3), "##{", (7, 8, 9))


class Letters:
    """Stands for `Forcing`: token n is the n-th letter, a thought ends in "##" (two of token 7)."""

    template = replace(TEMPLATE, max_answer_tokens=3)

    def reasoning_length(self, ids: list[int]) -> int | None:
        return next((at for at in range(len(ids) - 1) if ids[at] == ids[at + 1] == 7), None)

    def has_ended(self, ids: list[int]) -> bool:
        return self.reasoning_length(ids) is not None

    def has_answered(self, ids: list[int]) -> bool:
        return 0 in ids


class TestNativeCap:
    @pytest.mark.parametrize("late", [0, 2])
    def test_the_offset_is_what_short_generations_show(self, late):
        measured = CAP.measured(lambda caps: [[5] * (cap + late) + [7, 8, 9, 4, 0] for cap in caps])
        assert measured.offset == late
        assert measured.cap(16) == 16 - late
        assert measured.cap(late) is None  # so small a cap is kept by two calls

    @pytest.mark.parametrize(
        ("generations", "told"),
        [
            ([[5] * 40] * 3, "never at a cap of 3"),
            ([[5] * (cap - 1) + [7, 8, 9] for cap in TRIAL_CAPS], "never at a cap of 3"),
            ([[5] * (cap + cap % 2) + [7, 8, 9] for cap in TRIAL_CAPS], "after 4"),
        ],
        ids=["no-effect", "too-early", "uneven"],
    )
    def test_a_cap_that_is_not_kept_is_refused_with_what_was_seen(self, generations, told):
        with pytest.raises(EngineError, match=told) as caught:
            CAP.measured(lambda caps: generations)
        assert "--enforce two-call" in str(caught.value)

    def test_a_prompt_with_another_end_would_not_be_capped(self):
        assert CAP.refusal([5, 1, 2, 3]) is None
        assert "does not end in" in CAP.refusal([1, 2, 3, 5])

    @pytest.mark.parametrize(
        ("ids", "ended", "fate", "length"),
        [
            ([5, 5], None, Fate.OPEN, 0),
            ([5, 5, 5, 5, 7, 8], None, Fate.OPEN, 0),
            ([5, 5, 5, 5, 7, 8, 9, 4], None, Fate.OPEN, 0),
            ([5, 5, 5, 5, 7, 8, 9, 4, 0], None, Fate.ANSWERED, 4),
            ([5, 5, 5, 5, 7, 8, 9, 4, 4, 4], None, Fate.ANSWERED, 4),
            ([5, 5, 5, 5, 7, 8, 9, 4], "stop", Fate.ANSWERED, 4),
            ([5, 7, 7], None, Fate.NATURAL, 1),
            ([5, 5, 0], "stop", Fate.NATURAL, 2),
            ([5, 5, 5, 5, 5, 5, 7, 8, 9], None, Fate.TOO_LONG, 6),
            ([5] * 12, "length", Fate.TOO_LONG, 12),
            ([5, 7, 7, 5, 7, 8, 9, 4, 0], None, Fate.NATURAL, 1),  # several tokens since the last look
            ([5, 7, 7, 4, 0, 4, 7, 8, 9], None, Fate.NATURAL, 1),
        ],
        ids=lambda value: str(value),
    )
    def test_what_came_back_is_judged(self, ids, ended, fate, length):
        assert CAP.judge(Letters(), ids, 4, ended=ended) == (fate, length)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"enforce": "nativ"}, "Did you mean 'native'"),
        ({"schedule": "sjf"}, "schedule"),
        ({"hidden": "connector"}, "feature_layers"),
    ],
    ids=str,
)
def test_choices_that_cannot_be(wrong, told):
    with pytest.raises(InvalidSettingsError, match=told):
        Choices(**wrong)


def test_hidden_states_are_read_where_hooks_are_called():
    assert Choices().reader(is_cpu=True)[0] == "hooks"
    assert Choices().reader(is_cpu=False)[0] == "hooks"
    assert Choices(feature_layers=(12,)).reader(is_cpu=False)[0] == "connector"
    assert Choices(hidden="hooks", feature_layers=(12,)).reader(is_cpu=False) == ("hooks", "asked for")


def test_hooks_that_were_not_called_are_told():
    with pytest.raises(EngineError, match="compiled graph"):
        hooks.states({}, "1", [4])


def test_hooks_in_other_processes_are_told():
    config = SimpleNamespace(parallel_config=SimpleNamespace(world_size=2))
    with pytest.raises(EngineError, match=r"runs in 2 processes.*feature_layers"):
        hooks.by_hooks(SimpleNamespace(llm_engine=SimpleNamespace(vllm_config=config)), lambda *_: [], [], [4])


@pytest.mark.parametrize(
    ("runner", "told"),
    [
        (SimpleNamespace(), "whose batch hooks cannot read"),
        (SimpleNamespace(query_start_loc=0, input_batch=0, get_model=lambda: SimpleNamespace()), "no decoder layers"),
    ],
    ids=["another-runner", "another-model"],
)
def test_a_model_that_hooks_cannot_read_is_told(runner, told):
    with pytest.raises(EngineError, match=told) as caught:
        hooks.install(SimpleNamespace(model_runner=runner), (1,), {})
    assert "feature_layers" in str(caught.value)


def test_reuse_is_counted_apart():
    reuse = Reuse()
    assert reuse.to_text() == ""
    reuse.add(SimpleNamespace(prompt_token_ids=[1] * 10, num_cached_tokens=8), is_trace=True)
    reuse.add(SimpleNamespace(prompt_token_ids=[1] * 20, num_cached_tokens=15), is_trace=False)
    assert reuse.to_text() == (
        "1 thoughts, 80% of their prompts' tokens from the prefix cache; "
        "1 forced answers, 75% (5 tokens computed for each)"
    )


class RefusedError(Exception):
    """What vLLM 0.32 raises for a request that it does not take: no ValueError."""


class FakeLLM:
    """Stands for `vllm.LLM`: a token a step for each request, drawn by its seed; seed 13 is refused, 666 kills it."""

    made: ClassVar[list[FakeLLM]] = []

    def __init__(self, path: str, **options: Any) -> None:
        from transformers import AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(path)
        self.kv_cache = os.environ.get("VLLM_CPU_KVCACHE_SPACE")
        self.model_config = SimpleNamespace(
            max_model_len=options["max_model_len"],
            hf_config=SimpleNamespace(num_hidden_layers=2),
            get_hidden_size=lambda: 64,
            dtype="float32",
        )
        self.vllm_config = SimpleNamespace(
            device_config=SimpleNamespace(device_type="cpu"), scheduler_config=SimpleNamespace(policy="fcfs")
        )
        self.reasoning = options.get("reasoning_config")
        self.running: dict[str, Any] = {}
        FakeLLM.made.append(weakref.proxy(self))

    @property
    def llm_engine(self) -> FakeLLM:
        return self

    def get_tokenizer(self) -> Any:
        return self.tokenizer

    def add_request(self, request_id: str, prompt: Any, params: Any, *, priority: int = 0) -> None:
        if params.seed == 13:
            raise RefusedError("this vLLM takes no 13")
        ids = prompt["prompt_token_ids"]
        self.running[request_id] = SimpleNamespace(prompt=ids, params=params, ids=[], random=Random(params.seed))

    def abort_request(self, request_ids: list[str]) -> None:
        for request_id in request_ids:
            self.running.pop(request_id, None)

    def step(self) -> list[Any]:
        if any(each.params.seed == 666 for each in self.running.values()):
            raise RuntimeError("out of memory")
        return [self._one(request_id) for request_id in list(self.running)]

    def _one(self, request_id: str) -> Any:
        each = self.running[request_id]
        forced = {}
        if (cap := each.params.thinking_token_budget) is not None:
            start, end = (
                self.tokenizer.encode(text, add_special_tokens=False)
                for text in (self.reasoning.reasoning_start_str, self.reasoning.reasoning_end_str)
            )
            forced = dict(enumerate(end, cap + len(start) - 1))
        letter = each.random.choice(self.tokenizer.encode("0123456789", add_special_tokens=False))
        each.ids.append(forced.get(len(each.ids), letter))
        reason = "length" if len(each.ids) == each.params.max_tokens else None
        if reason:
            del self.running[request_id]
        logprobs = None
        if each.params.logprobs is not None:
            logprobs = [{token: SimpleNamespace(logprob=-float(at))} for at, token in enumerate(each.ids)]
        done = SimpleNamespace(
            token_ids=list(each.ids), finish_reason=reason, stop_reason=None, logprobs=logprobs, text=""
        )
        return SimpleNamespace(
            request_id=request_id,
            finished=reason is not None,
            outputs=[done],
            prompt_token_ids=each.prompt,
            num_cached_tokens=0,
        )


def params_of(**given: Any) -> Any:
    return SimpleNamespace(**{"seed": 0, "thinking_token_budget": None, "logprobs": None, **given})


@pytest.fixture
def fake_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package `vllm` of what the engine uses."""
    pytest.importorskip("transformers")

    def tokenizer_of(path: str) -> Any:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(path)

    names = {
        "vllm": {"LLM": FakeLLM, "SamplingParams": params_of},
        "vllm.platforms": {"current_platform": SimpleNamespace(is_cpu=lambda: True)},
        "vllm.exceptions": {"VLLMValidationError": RefusedError},
        "vllm.config": {"ReasoningConfig": SimpleNamespace},
        "vllm.tokenizers": {"get_tokenizer": tokenizer_of},
    }
    for name, held in names.items():
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(**held))
    monkeypatch.setattr(FakeLLM, "made", [])
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)


def opened_fake(model: Path, **options: Any) -> Any:
    from forethought.engines.vllm import VllmEngine

    return VllmEngine(str(model), template=TEMPLATE, sampling=Sampling(1.0), **{"context_tokens": 256, **options})


def test_a_request_that_vllm_refuses_is_data(fake_vllm, tiny_model):
    good, bad = Request(QUERIES[0], 8), Request(QUERIES[1], 8, seed=13)
    found = run(opened_fake(tiny_model), [bad, good])
    assert found[QUERIES[1].id, 0].error == "this vLLM takes no 13"
    assert found[QUERIES[0].id, 0].reasoning_tokens == 8


def test_what_ends_vllm_is_an_error_of_the_engine(fake_vllm, tiny_model):
    with pytest.raises(EngineError, match="RuntimeError: out of memory"):
        run(opened_fake(tiny_model), [Request(QUERIES[0], 8, seed=666)])


@pytest.mark.parametrize("closes_other", [False, True])
def test_a_closed_engine_holds_no_model(fake_vllm, tiny_model, closes_other):
    engine = opened_fake(tiny_model)
    other = engine.with_template(replace(TEMPLATE, name="other"))
    run(other, [Request(QUERIES[0], 8)])
    (other if closes_other else engine).close()
    gc.collect()
    with pytest.raises(ReferenceError):
        FakeLLM.made[0].running  # noqa: B018
    for each in (engine, other):
        with pytest.raises(EngineError, match="closed"):
            run(each, [Request(QUERIES[0], 8)])


def test_each_engine_of_a_process_gets_the_cache_that_it_asks_for(fake_vllm, tiny_model, monkeypatch):
    engines = [opened_fake(tiny_model, kv_cache_gib=gib) for gib in (1, 2)]
    assert [llm.kv_cache for llm in FakeLLM.made] == ["1", "2"]
    assert "VLLM_CPU_KVCACHE_SPACE" not in os.environ
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "5")
    engines.append(opened_fake(tiny_model, kv_cache_gib=2))
    assert [llm.kv_cache for llm in FakeLLM.made] == ["1", "2", "5"]
    assert os.environ["VLLM_CPU_KVCACHE_SPACE"] == "5"


def test_a_native_cap_shows_log_probabilities_of_the_answer_and_the_end_of_the_thought(fake_vllm, tiny_model):
    engine = opened_fake(tiny_model, enforce="native", logprobs=True)
    done = run(engine, [Request(QUERIES[0], 20, probe_budgets=(4,))])[QUERIES[0].id, 0]
    assert (done.error, done.reasoning_tokens, done.stop_reason) == (None, 20, StopReason.BUDGET)
    begin = 20 + len(engine._native.end_ids)
    assert done.logprobs.thought == -np.mean(range(4, 20))
    assert done.logprobs.answer == -np.mean(range(begin, begin + done.answer_tokens))
    assert done.probes[0].logprobs.thought == -np.mean(range(4))


def opened(model: Path, **options: Any) -> Any:
    pytest.importorskip("vllm", reason="needs vLLM")
    from forethought.engines.vllm import VllmEngine

    common = {"num_sequences": 8, "kv_cache_gib": 1, "dtype": "float32", "context_tokens": 256}
    return VllmEngine(str(model), template=TEMPLATE, sampling=Sampling(1.0), **{**common, **options})


@pytest.mark.vllm
@pytest.mark.filterwarnings("ignore")
def test_the_connector_prepares_files_for_those_alone_that_asked(tmp_path):
    pytest.importorskip("vllm", reason="needs vLLM")
    from forethought.engines.vllm.connector import PromptStates

    connector = PromptStates.__new__(PromptStates)
    connector._pending_saves, connector._request_filenames = {}, {}
    connector._storage_path, connector.allow_custom_save_path = str(tmp_path), False
    asked = SimpleNamespace(extra_args=hooks.WRITTEN["extra_args"])
    other = SimpleNamespace(extra_args=None)
    new = [SimpleNamespace(req_id=name, sampling_params=each) for name, each in (("a", asked), ("b", other))]
    meta = connector.build_connector_meta(SimpleNamespace(scheduled_new_reqs=new))
    assert meta.new_req_filenames == {"a": str(tmp_path / "a.safetensors")}
    finished = SimpleNamespace(request_id="b", kv_transfer_params=None)
    assert connector.request_finished(finished, []) == (False, None)


VLLM = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


class TestOnVllm:
    """On vLLM itself, with a tiny random model."""

    pytestmark = VLLM

    @pytest.fixture(scope="class")
    @classmethod
    def two_call(cls, tiny_model: Path) -> Iterator[Any]:
        engine = opened(tiny_model)
        yield engine
        engine.close()

    @pytest.fixture(scope="class")
    @classmethod
    def native(cls, tiny_model: Path) -> Iterator[Any]:
        engine = opened(tiny_model, enforce="native", schedule="priority")
        yield engine
        engine.close()

    def test_the_native_cap_is_kept_at_every_budget(self, native):
        assert native.info.enforcement == "native"
        assert native._native.offset == len(native._native.start_ids) - 1
        for budget in (0, 1, 2, 5, 16, 31):
            for done in run(native, requests(budget=budget, probes=())).values():
                assert done.error is None, budget
                assert done.reasoning_tokens <= budget
                assert done.stop_reason is StopReason.NATURAL or done.reasoning_tokens == budget
                assert done.answer_tokens <= TEMPLATE.max_answer_tokens

    def test_its_thoughts_and_probes_are_those_of_two_calls(self, native, two_call):
        assert two_call.info.enforcement is None
        capped, cut = (run(engine, requests(probes=PROBES)) for engine in (native, two_call))
        for key, done in capped.items():
            assert done.error is None
            assert done.reasoning == cut[key].reasoning
            assert [(each.budget, each.answer) for each in done.probes] == [
                (each.budget, each.answer) for each in cut[key].probes
            ]

    def test_a_template_with_another_suffix_goes_by_two_calls(self, native):
        other = native.with_template(replace(TEMPLATE, name="other", answer_suffix="\n##:"))
        assert other.info.enforcement is None
        assert all(done.error is None for done in run(other, requests(probes=())).values())

    def test_the_shortest_goes_first_and_answers_stay_the_same(self, tiny_model, two_call):
        engine = opened(tiny_model, num_sequences=1, schedule="priority")
        asked = [
            replace(each, priority=priority)
            for each, priority in zip(requests(probes=(), samples=[0]), (30, 10, 20), strict=True)
        ]
        found = run(engine, asked)
        assert [query_id for query_id, _ in found] == [QUERIES[1].id, QUERIES[2].id, QUERIES[0].id]
        plain = run(two_call, [replace(each, priority=0) for each in asked])
        assert {key: done.reasoning for key, done in found.items()} == {
            key: done.reasoning for key, done in plain.items()
        }
        engine.close()

    def test_both_ways_to_hidden_states_agree(self, tiny_model):
        engine = opened(tiny_model, hidden="connector", feature_layers=[1, 2])
        prompts = [engine._forcing.prompt_ids(query) for query in QUERIES]
        by_connector = engine.hidden_states(QUERIES, [2, 1])
        np.testing.assert_allclose(
            by_connector, np.stack(hooks.by_hooks(engine._started.llm, engine._whole, prompts, [2, 1])), atol=1e-4
        )
        with pytest.raises(InvalidFeaturesError, match="feature_layers=\\[0\\]"):
            engine.hidden_states(QUERIES, [0])
        assert all(done.error is None for done in run(engine, [Request(QUERIES[0], 8)]).values())
        engine.close()
