"""The transformers engine against transformers itself, on a tiny random model in float32."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers", reason="needs torch and transformers")

import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from engine_contract import TEMPLATE, collect, run
from forethought.core.data import Message, Query, Request, Sampling, StopReason
from forethought.engines.attention import ATTENTION, Span
from forethought.engines.decoding import Decoder
from forethought.engines.drawing import draw, noise
from forethought.engines.flight import Flight
from forethought.engines.forcing import answer_end
from forethought.engines.transformers import TransformersEngine
from forethought.errors import EngineError, InvalidSettingsError

BUDGET = 40
GREEDY, WARM = Sampling(temperature=0.0), Sampling(temperature=1.0)
QUERIES = (
    *(Query(f"q{n}", f"{n}+{n * n}?" + " a" * n) for n in range(6)),
    Query("chat", (Message("system", "bad"), Message("user", "1+2?"))),  # shares less of the prefix than the others
)


def engine_of(folder: Path, **options) -> TransformersEngine:
    defaults = {"template": TEMPLATE, "sampling": WARM, "context_tokens": 256, "dtype": "float32", "num_sequences": 8}
    return TransformersEngine(str(folder), **{**defaults, **options})


@pytest.fixture(scope="module")
def engine(tiny_model):
    return engine_of(tiny_model)


@pytest.fixture(scope="module")
def reference(tiny_model):
    """The same model as transformers runs it by itself."""
    return transformers.AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()


def continued(reference, ids: list[int], num_tokens: int) -> list[int]:
    """What transformers' own greedy `generate` puts after `ids`."""
    given_ids = torch.tensor([ids])
    output = reference.generate(
        given_ids, attention_mask=torch.ones_like(given_ids), do_sample=False, max_new_tokens=num_tokens
    )
    return output[0, len(ids) :].tolist()


def requests(budget: int = BUDGET, samples: int = 2, probes: tuple[int, ...] = (5, 16, 17, 32)) -> list[Request]:
    return [Request(query, budget, sample, 9 + sample, probes) for query in QUERIES for sample in range(samples)]


class TestAgainstGenerate:
    @pytest.mark.slow
    def test_greedy_traces_are_those_of_generate(self, tiny_model, reference):
        engine = engine_of(tiny_model, sampling=GREEDY)
        forcing, stop = engine._forcing, reference.generation_config.eos_token_id
        for (query_id, _), done in run(engine, requests(samples=1)).items():
            query = next(query for query in QUERIES if query.id == query_id)
            expected = continued(reference, forcing.prompt_ids(query), BUDGET)
            thought = expected[:-1] if expected[-1] == stop else expected
            length = forcing.reasoning_length(thought)
            assert done.reasoning == forcing.decode(thought[:length])
            assert done.reasoning_tokens == len(thought if length is None else thought[:length])

    @pytest.mark.slow
    def test_forced_answers_are_those_of_a_fresh_run(self, engine, reference, monkeypatch):
        """Probes continue from shared, copied and moved keys and values; recomputing from nothing gives the same."""
        thoughts = {}
        end_thought = Flight.end_thought

        def watched(flight, thought_ids, *, natural):
            thoughts[flight.request.query.id, flight.request.sample] = list(thought_ids)
            end_thought(flight, thought_ids, natural=natural)

        monkeypatch.setattr(Flight, "end_thought", watched)
        forcing = engine._forcing
        for (query_id, sample), done in run(engine, requests()).items():
            query, thought = next(query for query in QUERIES if query.id == query_id), thoughts[query_id, sample]
            assert done.reasoning == forcing.decode(thought)
            probes = [(probe.budget, probe.answer, probe.answer_tokens) for probe in done.probes]
            for cut, answer, answer_tokens in [*probes, (len(thought), done.answer, done.answer_tokens)]:
                ids = forcing.prompt_ids(query) + forcing.closed(thought[:cut])
                expected = continued(reference, ids, TEMPLATE.max_answer_tokens)
                text = forcing.decode(expected)
                assert answer == forcing.clean_answer(text)
                if answer_end(text, TEMPLATE.answer_stop) is None:
                    assert answer_tokens == len(expected)

    def test_hidden_states_are_the_residual_stream_at_every_layer(self, engine, reference):
        blocks = {}
        last = reference.model.layers[-1].register_forward_hook(
            lambda _module, _arguments, output: blocks.update(last=output[0] if isinstance(output, tuple) else output)
        )
        hidden_Q_L_D = engine.hidden_states(QUERIES, [0, 1, 2])
        for row, query in enumerate(QUERIES):
            ids = torch.tensor([engine._forcing.prompt_ids(query)])
            with torch.no_grad():
                states = reference(ids, output_hidden_states=True).hidden_states
            for layer in (0, 1):
                np.testing.assert_allclose(hidden_Q_L_D[row, layer], states[layer][0, -1], rtol=1e-4, atol=1e-4)
            unnormed = blocks["last"].view(1, -1, states[2].shape[-1])[0, -1]
            np.testing.assert_allclose(hidden_Q_L_D[row, 2], unnormed.detach(), rtol=1e-4, atol=1e-4)
            normed = reference.model.norm(torch.from_numpy(hidden_Q_L_D[row, 2])).detach()
            np.testing.assert_allclose(normed, states[2][0, -1], rtol=1e-4, atol=1e-4)
        last.remove()

    def test_layers_come_in_the_order_asked(self, engine):
        np.testing.assert_array_equal(
            engine.hidden_states(QUERIES, [2, 0]), engine.hidden_states(QUERIES, [0, 1, 2])[:, [2, 0]]
        )


class TestBatching:
    @pytest.fixture(scope="class")
    @classmethod
    def alone(cls, tiny_model):
        """Each request by itself, one row at a time."""
        engine = engine_of(tiny_model, num_sequences=1)
        found = {}
        for request in requests():
            found |= run(engine, [request])
        return found

    @pytest.mark.slow
    @pytest.mark.parametrize("num_sequences", [1, 2, 3, 8, 64])
    def test_the_number_of_rows_changes_nothing(self, tiny_model, alone, num_sequences):
        assert run(engine_of(tiny_model, num_sequences=num_sequences), requests()) == alone

    @pytest.mark.slow
    @pytest.mark.parametrize("order", [3, 4, 5])
    def test_the_order_changes_nothing(self, engine, alone, order):
        shuffled = [requests()[index] for index in np.random.default_rng(order).permutation(len(requests()))]
        assert run(engine, shuffled) == alone

    def test_other_budgets_beside_it_change_nothing(self, engine, alone):
        mixed = [
            replace(request, budget=budget, probe_budgets=()) if index % 2 else request
            for index, (request, budget) in enumerate(zip(requests(), [0, 1, 2, 3, 100, 90, 7] * 2, strict=True))
        ]
        found = run(engine, mixed)
        for request in mixed[::2]:
            assert found[request.query.id, request.sample] == alone[request.query.id, request.sample]

    @pytest.mark.slow
    @pytest.mark.parametrize("prefill", [7, 64])
    def test_prompts_read_in_pieces_change_nothing(self, tiny_model, alone, prefill, monkeypatch):
        monkeypatch.setattr("forethought.engines.decoding.PREFILL_TOKENS", prefill)
        monkeypatch.setattr("forethought.engines.decoding.PREFILL_ROWS", 2)
        engine = engine_of(tiny_model)
        whole = engine_of(tiny_model).hidden_states(QUERIES, [1, 2])
        np.testing.assert_allclose(engine.hidden_states(QUERIES, [1, 2]), whole, rtol=1e-4, atol=1e-4)
        assert run(engine, requests()) == alone

    @pytest.mark.slow
    def test_without_a_prompt_cache_nothing_changes(self, tiny_model, alone):
        assert run(engine_of(tiny_model, prompt_cache_mib=0), requests()) == alone


class TestCost:
    @pytest.mark.slow
    def test_probes_feed_only_their_suffix_and_answer(self, tiny_model):
        engine = engine_of(tiny_model, sampling=GREEDY)
        engine.hidden_states(QUERIES[:6], [1])
        plain = self.tokens_run(engine, ())
        probes = (8, 16, 24, 32)
        extra = self.tokens_run(engine, probes) - plain
        suffix = len(engine._forcing.suffix_ids)
        # A cut's row feeds at most its last thought token again, its suffix, and its answer but the last token.
        assert 0 < extra <= 6 * len(probes) * (1 + suffix + TEMPLATE.max_answer_tokens - 1)

    def test_generate_finds_the_prompts_that_hidden_states_read(self, tiny_model):
        engine = engine_of(tiny_model)
        engine.hidden_states(QUERIES[:6], [1])
        before = engine._decoder.num_tokens_run
        run(engine, [Request(query, 0) for query in QUERIES[:6]])
        bare = len(engine._forcing.bare_suffix_ids)
        assert engine._decoder.num_tokens_run - before <= 6 * (1 + bare + TEMPLATE.max_answer_tokens - 1)

    def test_another_template_begins_with_its_own_prefix(self, tiny_model):
        engine = engine_of(tiny_model)
        longer = replace(TEMPLATE, name="longer", system="judge " * 8)
        other = engine.with_template(longer)
        found = run(other, [Request(query, 0) for query in QUERIES[:6]])
        shared, prompts = len(other._template_prefix()), [other._forcing.prompt_ids(query) for query in QUERIES[:6]]
        assert shared > len(engine._template_prefix())
        assert other._decoder.num_tokens_run < sum(map(len, prompts)) - 4 * shared
        alone = run(engine_of(tiny_model, template=longer), [Request(query, 0) for query in QUERIES[:6]])
        assert {key: done.answer for key, done in found.items()} == {key: done.answer for key, done in alone.items()}

    @staticmethod
    def tokens_run(engine: TransformersEngine, probes: tuple[int, ...]) -> int:
        before = engine._decoder.num_tokens_run
        run(engine, [Request(query, BUDGET, 0, 0, probes) for query in QUERIES[:6]])
        return engine._decoder.num_tokens_run - before


class TestNaturalEnd:
    @pytest.mark.slow
    def test_an_end_of_thought_spread_over_tokens_is_found(self, tiny_model, engine):
        """Takes three letters that a trace really holds as the marker: the same trace must now end before them."""
        num_found = 0
        for (query_id, sample), whole in run(engine, requests(probes=())).items():
            marker = whole.reasoning[9:12]
            if whole.reasoning_tokens != len(whole.reasoning) or len(marker) < 3 or marker != marker.strip():
                continue
            template = replace(TEMPLATE, reasoning_end=marker, answer_suffix=f"\n{marker}{{")
            ending = engine_of(tiny_model, template=template)
            query = next(query for query in QUERIES if query.id == query_id)
            asked = Request(query, BUDGET, sample, 9 + sample, (4, 8))
            # The examples of TEMPLATE do not hold the marker, so the prompt and with it the trace stay the same.
            done = run(ending, [asked])[query_id, sample]
            length = whole.reasoning.index(marker)
            assert done.stop_reason is StopReason.NATURAL
            assert done.reasoning == whole.reasoning[:length]
            assert done.reasoning_tokens == length
            for inside in (length + 1, length + 2):  # a cap that splits the marker gives the same answer
                cut = run(ending, [replace(asked, budget=inside)])[query_id, sample]
                assert (cut.answer, cut.stop_reason) == (done.answer, StopReason.BUDGET)
                assert cut.reasoning_tokens == inside
            num_found += 1
        assert num_found >= 3

    @pytest.mark.slow
    def test_the_end_of_turn_is_no_thought(self, engine):
        ended = [done for done in run(engine, requests()).values() if done.stop_reason is StopReason.NATURAL]
        assert ended
        for done in ended:
            assert "<end>" not in done.reasoning
            assert done.reasoning_tokens < BUDGET


class TestFailures:
    @pytest.fixture
    def broken(self, tiny_model):
        """An engine whose model turns to NaN at a "Z"."""
        engine = engine_of(tiny_model)
        tokenizer, model = engine._forcing.tokenizer, engine._decoder.model
        with torch.no_grad():
            model.get_input_embeddings().weight[tokenizer.convert_tokens_to_ids("Z")] = float("nan")
        return engine

    @pytest.mark.slow
    def test_scores_that_are_no_numbers_are_an_error_and_reach_no_other_row(self, broken, engine):
        queries = [Query("bad-1", "1Z?"), *QUERIES, Query("bad-2", "ZZ?")]
        asked = [Request(query, BUDGET, sample, 9 + sample, (8, 16)) for query in queries for sample in range(2)]
        sound = run(engine, asked)
        for _ in range(2):  # the second time, prompts come from the cache
            found = run(broken, asked)
            assert len(found) == len(asked)
            for (query_id, sample), done in found.items():
                if query_id.startswith("bad"):
                    assert done.stop_reason is StopReason.ERROR
                    assert "not finite" in done.error
                elif done.error is None:  # else the trace drew that token itself
                    assert done == sound[query_id, sample]
            assert sum(done.error is None for done in found.values()) >= len(found) // 2

    @pytest.mark.slow
    def test_a_failed_row_leaves_nothing_to_the_next_row_in_its_slot(self, tiny_model, broken):
        """The short row comes into the failed one's slot, and is computed as far as the long row beside it reaches."""
        asked = [
            Request(Query("long", "a" * 100), BUDGET + 2),
            Request(Query("bad", "a" * 50 + "Z?"), BUDGET + 1),
            Request(Query("short", "1?"), BUDGET),
        ]
        broken.num_sequences = 2
        found = run(broken, asked)
        assert found["bad", 0].error
        clean = run(engine_of(tiny_model), asked)
        for key in (("long", 0), ("short", 0)):
            assert found[key] == clean[key]

    def test_running_out_of_memory_says_what_to_do(self, engine, monkeypatch):
        def fail(*_, **__):
            raise RuntimeError("out of memory")

        monkeypatch.setattr(engine._decoder.model, "forward", fail)
        with pytest.raises(EngineError, match=r"out of memory.*num_sequences"):
            run(engine, [Request(QUERIES[0], 4)])

    def test_a_closed_engine_says_so(self, tiny_model):
        engine = engine_of(tiny_model)
        engine.close()
        engine.close()
        with pytest.raises(EngineError, match="closed"):
            run(engine, [Request(QUERIES[0], 4)])
        with pytest.raises(EngineError, match="closed"):
            engine.hidden_states(QUERIES, [0])

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            pytest.param({"dtype": "int8"}, "int8", id="dtype"),
            pytest.param({"device": "nowhere"}, "nowhere", id="device"),
        ],
    )
    def test_what_cannot_be_is_refused(self, tiny_model, options, message):
        with pytest.raises(EngineError, match=message):
            engine_of(tiny_model, **options)

    @pytest.mark.slow
    def test_a_folder_without_weights_is_refused(self, tiny_model, tmp_path):
        for file in tiny_model.iterdir():
            content = b"cut short" if file.suffix == ".safetensors" else file.read_bytes()
            (tmp_path / file.name).write_bytes(content)
        with pytest.raises(EngineError, match="did not load"):
            engine_of(tmp_path)


class TestAttention:
    @pytest.mark.slow
    @settings(max_examples=25, deadline=None)
    @given(data=st.data())
    def test_any_way_to_feed_rows_gives_the_same_scores(self, tiny_model, reference, data):
        """Rows of any length, fed in pieces of any size in any order, with any share of the common prefix."""
        model = transformers.AutoModelForCausalLM.from_pretrained(
            tiny_model, dtype=torch.float32, attn_implementation=ATTENTION
        ).eval()
        token = st.integers(3, 30)
        prefix = data.draw(st.lists(token, max_size=6))
        decoder = Decoder(model, prefix_ids=prefix, prompt_cache_bytes=0)
        rows = [
            prefix[: data.draw(st.integers(0, len(prefix)))] + data.draw(st.lists(token, min_size=1, max_size=9))
            for _ in range(data.draw(st.integers(1, 5)))
        ]
        slots = decoder.new_slots(len(rows), 1)
        fed = [0] * len(rows)
        shared = [decoder.num_shared(row) for row in rows]
        while unfinished := [slot for slot, row in enumerate(rows) if shared[slot] + fed[slot] < len(row)]:
            chosen = data.draw(st.permutations(unfinished))[: data.draw(st.integers(1, len(unfinished)))]
            spans = []
            for slot in chosen:
                own = rows[slot][shared[slot] :]
                end = data.draw(st.integers(fed[slot] + 1, len(own)))
                spans.append(Span(slot, shared[slot], fed[slot], own[fed[slot] : end]))
                fed[slot] = end
            logits_R_V = decoder.run(slots, spans)
            for span, logits_V in zip(spans, logits_R_V, strict=True):
                seen = torch.tensor([rows[span.slot][: shared[span.slot] + fed[span.slot]]])
                with torch.no_grad():
                    expected_V = reference(seen).logits[0, -1]
                np.testing.assert_allclose(logits_V, expected_V, rtol=1e-3, atol=1e-3)

    def test_a_sliding_window_shorter_than_the_text_is_refused(self, tiny_model):
        engine = engine_of(tiny_model)
        for layer in engine._decoder.model.model.layers:
            layer.self_attn.sliding_window = 4
        with pytest.raises(EngineError, match=r"^the transformers engine .*sliding window 4"):
            run(engine, [Request(QUERIES[0], 4)])


class TestDrawing:
    def test_frequencies_follow_the_temperature(self):
        logits_V = torch.tensor([2.0, 1.0, 0.0, -1.0])
        request = Request(Query("a", "?"), 1)
        uniform_R = torch.tensor([noise(request, step) for step in range(20_000)])
        drawn = draw(logits_V.expand(len(uniform_R), -1), temperature=0.7, top_p=1.0, uniform_R=uniform_R)
        p_V = torch.softmax(logits_V / 0.7, -1)
        sigma_V = (p_V * (1 - p_V) / len(uniform_R)).sqrt()
        share_V = torch.bincount(drawn, minlength=4) / len(uniform_R)
        assert ((share_V - p_V).abs() < 4 * sigma_V).all()

    @pytest.mark.parametrize(
        ("top_p", "kept"),
        [
            pytest.param(0.5, {0}, id="the-likeliest-suffices"),
            pytest.param(0.7, {0, 1}, id="two"),
            pytest.param(1.0, {0, 1, 2}, id="all"),
        ],
    )
    def test_top_p_keeps_the_likeliest(self, top_p, kept):
        logits_R_V = torch.tensor([0.6, 0.3, 0.1]).log().expand(500, -1)
        drawn = draw(logits_R_V, temperature=1.0, top_p=top_p, uniform_R=torch.linspace(0.001, 0.999, 500))
        assert set(drawn.tolist()) == kept

    @pytest.mark.parametrize("uniform", [2.0**-53, 1.0 - 2.0**-53], ids=["lowest", "highest"])
    def test_a_token_without_any_chance_is_never_drawn(self, uniform):
        logits_R_V = torch.tensor([[-torch.inf, 0.3, 0.1, -torch.inf]])
        drawn = draw(logits_R_V, temperature=1.0, top_p=1.0, uniform_R=torch.tensor([uniform]))
        assert drawn.tolist() == [1 if uniform < 0.5 else 2]

    @pytest.mark.parametrize(
        "other", [{"seed": 1}, {"sample": 1}, {"query": Query("b", "?")}], ids=["seed", "sample", "query"]
    )
    def test_noise_depends_on_each_part_of_a_trace(self, other):
        request = Request(Query("a", "?"), 1)
        assert noise(request, 0) == noise(replace(request, budget=9, probe_budgets=(1,)), 0)
        assert noise(request, 0) != noise(replace(request, **other), 0)
        assert noise(request, 0) != noise(request, 1)


@pytest.mark.slow
def test_an_iterator_left_open_does_not_hold_the_engine(engine):
    async def interleaved():
        opened = engine.generate(requests())
        first = await anext(opened)
        others = await collect(engine, requests())
        rest = {(done.query_id, done.sample): done async for done in opened}
        return {(first.query_id, first.sample): first, **rest}, others

    interrupted, others = asyncio.run(interleaved())
    assert interrupted == others


def test_log_probabilities_are_the_models_own(tiny_model: Path) -> None:
    """Those of the tokens it wrote, before temperature and top-p, at the end of the thought and of each answer."""
    engine = engine_of(tiny_model, logprobs=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    found = run(engine, [Request(query, BUDGET, seed=3, probe_budgets=(8, 24)) for query in QUERIES])
    plain = run(engine_of(tiny_model), [Request(query, BUDGET, seed=3, probe_budgets=(8, 24)) for query in QUERIES])
    forcing = engine._forcing
    for query in QUERIES:
        done = found[query.id, 0]
        assert replace(done, logprobs=None, probes=()) == replace(plain[query.id, 0], probes=())
        assert plain[query.id, 0].logprobs is None
        thought = forcing.tokenizer.encode(done.reasoning, add_special_tokens=False)
        if len(thought) != done.reasoning_tokens:
            continue  # the text is that of other tokens too
        ids = torch.tensor([[*forcing.prompt_ids(query), *thought]])
        with torch.no_grad():
            levels_T = model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
        assert done.logprobs is not None
        if thought:
            assert done.logprobs.thought == pytest.approx(float(levels_T[-min(16, len(thought)) :].mean()), abs=2e-4)
        assert all(probe.logprobs is not None and probe.logprobs.answer <= 0 for probe in done.probes)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_sequences": -1}, "num_sequences must be at least 1, not -1"),  # it had decoded nothing, for ever
        ({"num_sequences": 0}, "num_sequences must be at least 1, not 0"),
        ({"prompt_cache_mib": -1, "num_threads": 0}, "prompt_cache_mib .* num_threads must be at least 1"),
    ],
)
def test_numbers_that_no_batch_has_are_refused_at_once(options, words):
    with pytest.raises(InvalidSettingsError, match=words):
        engine_of(Path("no such model"), **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is such a device")
def test_a_device_that_this_torch_was_not_made_for_is_an_error_in_words(tiny_model):
    with pytest.raises(EngineError, match="did not load"):
        engine_of(tiny_model, device="cuda")
