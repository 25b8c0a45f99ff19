"""What every engine keeps to. A third-party engine runs the same tests: subclass, and give a `subject` fixture."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import pytest

from forethought.core.data import Generation, Query, Request, StopReason
from forethought.core.prompts import PromptTemplate
from forethought.core.protocols import Engine, HiddenStateEngine, PooledStateEngine
from forethought.errors import InvalidFeaturesError

BUDGET = 32
PROBES = (0, 8, 16, 24)
NUM_SAMPLES = 2
MOST_AHEAD = 512  # requests that an engine may read before it has answered those before them
QUERIES = tuple(Query(id=f"sum-{n}", prompt=f"{n}+{2 * n}={n}+a?", reference=str(3 * n)) for n in (1, 12, 7))
TOO_LONG = Query(id="too-long", prompt="1+1 " * 400, reference="2")
TEMPLATE = PromptTemplate(
    name="contract",
    reasoning_end="##",
    answer_suffix="\n##{",
    answer_stop="}",
    max_answer_tokens=6,
    shots=(("1+1?", "1+1=2\n##{2}"),),
)


@dataclass(frozen=True)
class Subject:
    """An engine under test, opened with TEMPLATE and a context that TOO_LONG does not fit in.

    Attributes:
        engine: the engine.
        name: its registered name.
        layers: layers whose hidden states it can give; empty for none.
        draws: whether another seed can give another trace.
    """

    engine: Engine
    name: str
    layers: tuple[int, ...] = ()
    draws: bool = True


def requests(
    queries: Sequence[Query] = QUERIES,
    *,
    budget: int = BUDGET,
    probes: tuple[int, ...] = PROBES,
    seed: int = 0,
    samples: Iterable[int] = range(NUM_SAMPLES),
) -> list[Request]:
    return [
        Request(query, budget, sample, seed + 1000 * number + sample, probes)
        for number, query in enumerate(queries)
        for sample in samples
    ]


async def collect(engine: Engine, asked: Iterable[Request]) -> dict[tuple[str, int], Generation]:
    """Every generation by query and sample; an engine that gives one twice fails here."""
    found: dict[tuple[str, int], Generation] = {}
    async for generation in engine.generate(asked):
        key = (generation.query_id, generation.sample)
        assert key not in found
        found[key] = generation
    return found


def run(engine: Engine, asked: Iterable[Request]) -> dict[tuple[str, int], Generation]:
    return asyncio.run(collect(engine, asked))


class EngineContract:
    """Subclass it as `TestMyEngine(EngineContract)`; `subject` and `traces` are best module-scoped."""

    @pytest.fixture(scope="module")
    @classmethod
    def traces(cls, subject: Subject) -> dict[tuple[str, int], Generation]:
        """One plain run that most tests look at."""
        return run(subject.engine, requests())

    def test_satisfies_the_protocol(self, subject):
        assert isinstance(subject.engine, Engine)
        assert isinstance(subject.engine, HiddenStateEngine) or not subject.layers

    def test_info_needs_no_generation_and_goes_into_json(self, subject):
        info = subject.engine.info
        assert info.engine == subject.name
        assert info.model
        assert (info.template, info.template_hash) == (TEMPLATE.name, TEMPLATE.hash)
        assert json.loads(json.dumps(asdict(info))) == asdict(info)
        if subject.layers:
            assert max(subject.layers) == info.num_layers

    def test_no_requests_give_nothing(self, subject):
        assert run(subject.engine, []) == {}

    def test_every_request_comes_back_once(self, traces):
        assert sorted(traces) == sorted((query.id, sample) for query in QUERIES for sample in range(NUM_SAMPLES))
        assert {done.budget for done in traces.values()} == {BUDGET}

    def test_reasoning_stays_within_the_budget_and_says_how_it_ended(self, traces):
        for done in traces.values():
            assert done.error is None
            if done.stop_reason is StopReason.BUDGET:
                assert done.reasoning_tokens == BUDGET
            else:
                assert done.stop_reason is StopReason.NATURAL
                assert 0 <= done.reasoning_tokens < BUDGET

    def test_tokens_are_counted(self, traces):
        for done in traces.values():
            assert 1 <= done.answer_tokens <= TEMPLATE.max_answer_tokens
            assert all(1 <= probe.answer_tokens <= TEMPLATE.max_answer_tokens for probe in done.probes)
            assert done.at(BUDGET).tokens == done.reasoning_tokens + done.suffix_tokens + done.answer_tokens
        assert len({done.suffix_tokens for done in traces.values()}) == 1
        assert min(done.suffix_tokens for done in traces.values()) >= 1
        for query in QUERIES:
            assert len({traces[query.id, sample].prompt_tokens for sample in range(NUM_SAMPLES)}) == 1
            assert traces[query.id, 0].prompt_tokens >= 1

    def test_probes_are_those_below_the_end_ascending(self, traces):
        for done in traces.values():
            assert [probe.budget for probe in done.probes] == [cut for cut in PROBES if cut < done.reasoning_tokens]

    def test_answers_hold_no_stop_text(self, traces):
        for done in traces.values():
            for answer in (done.answer, *(probe.answer for probe in done.probes)):
                assert TEMPLATE.answer_stop not in answer
                assert answer == answer.strip()

    @pytest.mark.parametrize("cap", [0, 8, 24])
    def test_a_smaller_cap_cuts_the_same_trace(self, subject, traces, cap):
        for key, small in run(subject.engine, requests(budget=cap, probes=PROBES)).items():
            large = traces[key]
            assert small.answer == large.at(cap).answer
            assert small.reasoning_tokens <= cap
            if large.reasoning_tokens >= cap:  # else the cap may fall inside the end of thought, which is then text
                assert small.reasoning_tokens == cap
                assert large.reasoning.startswith(small.reasoning)

    def test_a_budget_of_nothing_is_answered_at_once(self, subject, traces):
        for key, done in run(subject.engine, requests(budget=0, probes=(0, 8))).items():
            assert (done.reasoning, done.reasoning_tokens, done.probes) == ("", 0, ())
            assert done.stop_reason is StopReason.BUDGET
            assert 1 <= done.answer_tokens <= TEMPLATE.max_answer_tokens
            assert done.suffix_tokens >= 1
            assert done.answer == traces[key].at(0).answer

    def test_the_order_of_requests_does_not_matter(self, subject, traces):
        assert run(subject.engine, requests()[::-1]) == traces

    def test_requests_are_taken_as_there_is_room_for_them(self, subject, traces):
        """An endless stream is read only so far ahead of what came back, and what comes back is what a list gives."""
        taken = 0

        def endless() -> Iterator[Request]:
            nonlocal taken
            for request in itertools.cycle(requests()):
                taken += 1
                yield request

        async def several(number: int) -> list[tuple[int, Generation]]:
            found = []
            stream = subject.engine.generate(endless())
            async for generation in stream:
                found.append((taken, generation))
                if len(found) == number:
                    break
            await stream.aclose()
            return found

        for number, (read, generation) in enumerate(asyncio.run(several(40)), 1):
            assert read <= number + MOST_AHEAD
            assert generation == traces[generation.query_id, generation.sample]

    def test_a_stream_that_breaks_is_an_error(self, subject):
        def broken() -> Iterator[Request]:
            yield requests()[0]
            raise ValueError("no more")

        with pytest.raises(ValueError, match="no more"):
            run(subject.engine, broken())

    def test_priorities_change_the_order_alone(self, subject, traces):
        asked = [replace(request, priority=-number) for number, request in enumerate(requests())]
        assert run(subject.engine, asked) == traces

    def test_a_request_alone_gives_what_it_gives_in_a_batch(self, subject, traces):
        alone = requests()[-1]
        assert run(subject.engine, [alone]) == {(alone.query.id, alone.sample): traces[alone.query.id, alone.sample]}

    def test_another_seed_gives_another_trace(self, subject, traces):
        if not subject.draws:
            pytest.skip("this engine does not draw traces")
        other = run(subject.engine, requests(seed=77, probes=()))
        assert {key: done.reasoning for key, done in other.items()} != {
            key: done.reasoning for key, done in traces.items()
        }

    def test_probes_in_any_order_and_beyond_the_budget_are_sorted_out(self, subject, traces):
        asked = [replace(request, probe_budgets=(16, 8, 8, BUDGET, 2 * BUDGET)) for request in requests()]
        for key, done in run(subject.engine, asked).items():
            assert done.probes == tuple(probe for probe in traces[key].probes if probe.budget in (8, 16))

    @pytest.mark.parametrize(
        "bad",
        [
            pytest.param(Request(TOO_LONG, BUDGET), id="prompt-too-long"),
            pytest.param(Request(Query("bad-budget", "1?"), -1), id="negative-budget"),
            pytest.param(Request(Query("huge", "1?"), 1 << 30), id="budget-beyond-the-context"),
        ],
    )
    def test_what_goes_wrong_with_one_is_data(self, subject, traces, bad):
        good = requests()[0]
        found = run(subject.engine, [bad, good])
        error = found.pop((bad.query.id, bad.sample))
        assert error.stop_reason is StopReason.ERROR
        assert error.error
        assert (error.reasoning, error.answer, error.probes, error.budget) == ("", "", (), bad.budget)
        assert (error.reasoning_tokens, error.answer_tokens, error.suffix_tokens) == (0, 0, 0)
        assert found == {(good.query.id, good.sample): traces[good.query.id, good.sample]}

    def test_a_caller_that_leaves_early_does_no_harm(self, subject, traces):
        async def first() -> Generation:
            async for generation in subject.engine.generate(requests()):
                return generation
            raise AssertionError("nothing came")

        done = asyncio.run(first())
        assert done == traces[done.query_id, done.sample]
        good = requests()[0]
        assert run(subject.engine, [good]) == {(good.query.id, good.sample): traces[good.query.id, good.sample]}

    def test_two_batches_at_once_do_not_mix(self, subject, traces):
        async def both() -> list[dict[tuple[str, int], Generation]]:
            halves = requests()[::2], requests()[1::2]
            return await asyncio.gather(*(collect(subject.engine, half) for half in halves))

        first, second = asyncio.run(both())
        assert {**first, **second} == traces
        assert len(first) + len(second) == len(traces)

    def test_hidden_states_have_a_row_a_query_and_a_column_a_layer(self, subject):
        hidden_Q_L_D = self.hidden(subject, QUERIES)
        assert hidden_Q_L_D.shape == (len(QUERIES), len(subject.layers), subject.engine.info.hidden_size)
        assert hidden_Q_L_D.dtype == np.float32
        assert np.isfinite(hidden_Q_L_D).all()
        assert len(np.unique(hidden_Q_L_D.reshape(len(QUERIES), -1), axis=0)) == len(QUERIES)

    def test_hidden_states_do_not_depend_on_the_batch_or_on_the_other_layers(self, subject):
        together = self.hidden(subject, QUERIES)
        for row, query in enumerate(QUERIES):
            for column, layer in enumerate(subject.layers):
                alone_D = subject.engine.hidden_states([query], [layer])[0, 0]
                np.testing.assert_allclose(alone_D, together[row, column], rtol=1e-4, atol=1e-4)

    def test_hidden_states_of_a_prompt_too_long_are_nan_and_the_others_finite(self, subject):
        hidden_Q_L_D = self.hidden(subject, [TOO_LONG, *QUERIES])
        assert np.isnan(hidden_Q_L_D[0]).all()
        assert np.isfinite(hidden_Q_L_D[1:]).all()

    def test_pooled_states_are_the_hidden_states_and_means_of_their_shape(self, subject):
        if not isinstance(subject.engine, PooledStateEngine):
            pytest.skip("this engine gives no means")
        last_Q_L_D, mean_Q_L_D = subject.engine.pooled_states([TOO_LONG, *QUERIES], subject.layers)
        np.testing.assert_allclose(last_Q_L_D[1:], self.hidden(subject, QUERIES), rtol=1e-4, atol=1e-4)
        assert mean_Q_L_D.shape == last_Q_L_D.shape
        assert mean_Q_L_D.dtype == np.float32
        assert np.isnan(mean_Q_L_D[0]).all()
        assert np.isfinite(mean_Q_L_D[1:]).all()
        assert not np.array_equal(mean_Q_L_D[1:], last_Q_L_D[1:])
        alone_D = subject.engine.pooled_states(QUERIES[1:2], subject.layers[-1:])[1][0, 0]
        np.testing.assert_allclose(alone_D, mean_Q_L_D[2, -1], rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("layer", [-1, 1000])
    def test_a_layer_that_does_not_exist_is_refused(self, subject, layer):
        if not subject.layers:
            pytest.skip("this engine gives no hidden states")
        with pytest.raises(InvalidFeaturesError, match=str(layer)):
            subject.engine.hidden_states(QUERIES, [layer])

    @staticmethod
    def hidden(subject: Subject, queries: Sequence[Query]) -> np.ndarray:
        if not subject.layers:
            pytest.skip("this engine gives no hidden states")
        return subject.engine.hidden_states(queries, subject.layers)
