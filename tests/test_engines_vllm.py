"""The in-process vllm engine: its native cap, its queue, its two ways to hidden states."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

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


def opened(model: Path, **options: Any) -> Any:
    pytest.importorskip("vllm", reason="needs vLLM")
    from forethought.engines.vllm import VllmEngine

    common = {"num_sequences": 8, "kv_cache_gib": 1, "dtype": "float32", "context_tokens": 256}
    return VllmEngine(str(model), template=TEMPLATE, sampling=Sampling(1.0), **{**common, **options})


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
            by_connector, np.stack(hooks.by_hooks(engine._llm, engine._whole, prompts, [2, 1])), atol=1e-4
        )
        with pytest.raises(InvalidFeaturesError, match="feature_layers=\\[0\\]"):
            engine.hidden_states(QUERIES, [0])
        assert all(done.error is None for done in run(engine, [Request(QUERIES[0], 8)]).values())
        engine.close()
