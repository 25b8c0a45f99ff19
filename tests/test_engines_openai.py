"""The openai engine against a well-behaved toy server: every way to keep a budget, and what comes of it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="needs aiohttp")

from engine_contract import BUDGET, QUERIES, TEMPLATE, EngineContract, Subject, requests, run
from forethought.core.data import Generation, Message, Query, Request, Sampling, StopReason
from forethought.core.options import Option
from forethought.core.prompts import PromptTemplate
from forethought.core.protocols import check_option
from forethought.engines.flight import Flight
from forethought.engines.forcing import Forcing
from forethought.engines.server.chat import load_tokenizer
from forethought.engines.server.engine import OpenAIEngine
from forethought.errors import EngineError, InvalidSettingsError, MissingExtraError
from forethought.servers.kinds import KINDS
from forethought.servers.logprobs import logprobs_in
from forethought.servers.replies import Chunks
from forethought.servers.replies import Reply as ChatReply
from forethought.servers.tokens import count_tokens
from loopback import Asked, Reply, serving
from toy_server import END, IDS, TURN, ToyServer, decode, encode, next_token, render

SAMPLING = Sampling(temperature=1.0)
CONTEXT_TOKENS = 256


def engine_at(url: str, **options: Any) -> OpenAIEngine:
    options = {"template": TEMPLATE, "sampling": SAMPLING, "context_tokens": CONTEXT_TOKENS, **options}
    return OpenAIEngine("toy", base_url=url, backoff_seconds=0.001, **options)


class ToyTokenizer:
    """The toy's tokenizer as a local Hugging Face one looks."""

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        return encode(text)

    def decode(self, ids: list[int], *, skip_special_tokens: bool = True) -> str:
        return decode(list(ids), special=not skip_special_tokens)

    def __call__(self, text: str, **_: Any) -> dict[str, list[tuple[int, int]]]:
        ends = [len(decode(encode(text)[:number])) for number in range(len(encode(text)) + 1)]
        return {"offset_mapping": list(pairwise(ends))}

    def apply_chat_template(
        self, messages: list[dict[str, str]], *, add_generation_prompt: bool, tokenize: bool
    ) -> str:
        return render(messages)


def in_process(request: Request, template: PromptTemplate = TEMPLATE) -> Generation:
    """What an in-process engine with the toy model gives: a token at a time, judged by `Forcing` alone."""
    forcing = Forcing(ToyTokenizer(), template)
    flight = Flight(request, forcing.prompt_ids(request.query))
    thought: list[int] = []
    natural = False
    while len(thought) < request.budget:
        thought.append(next_token(flight.prompt_ids + thought, request.seed))
        if thought[-1] == IDS[END.encode()]:
            thought.pop()
            natural = True
            break
        length = forcing.reasoning_length(thought)
        if length is not None:
            thought, natural = thought[:length], True
            break
    flight.end_thought(thought, natural=natural)
    for cut in flight.cuts:
        ids: list[int] = []
        while len(ids) < template.max_answer_tokens and not forcing.has_answered(ids):
            ids.append(next_token(flight.prompt_ids + forcing.closed(thought[:cut]) + ids, None))
            if ids[-1] == IDS[END.encode()]:
                break
        flight.answers[cut] = (forcing.clean_answer(forcing.decode(ids)), len(ids))
    return flight.finished(forcing)


SUBJECTS = {
    "vllm": (ToyServer(), {}),
    "llama.cpp": (ToyServer("llama.cpp"), {}),
    "sglang": (ToyServer("sglang"), {}),
    "chat": (ToyServer(), {"ids": False}),
    "chat-sglang": (ToyServer("sglang"), {"ids": False}),
    "chat-llama.cpp": (ToyServer("llama.cpp"), {"ids": False}),
}


@pytest.mark.parametrize("name", SUBJECTS)
def test_log_probabilities_are_those_that_the_server_shows(name: str) -> None:
    """The mean over the answer's tokens, and over the last of the thought; nothing where they are not asked for."""
    toy, options = SUBJECTS[name]
    with serving(toy) as url:
        # One at a time: the first exact thought tells the suffix's tokens, which are an estimate before it.
        plain = run(engine_at(url, concurrency=1, **options), requests())
        shown = run(engine_at(url, logprobs=True, concurrency=1, **options), requests())
    assert {key: replace(done, logprobs=None, probes=()) for key, done in shown.items()} == {
        key: replace(done, probes=()) for key, done in plain.items()
    }
    forcing = Forcing(ToyTokenizer(), TEMPLATE)
    asked = {(each.query.id, each.sample): each for each in requests()}
    for key, done in shown.items():
        assert done.logprobs is not None
        prompt, thought = forcing.prompt_ids(asked[key].query), encode(done.reasoning)
        answer: list[int] = []
        while len(answer) < TEMPLATE.max_answer_tokens and not forcing.has_answered(answer):
            answer.append(next_token(prompt + forcing.closed(thought) + answer, None))
            if answer[-1] == IDS[END.encode()]:
                break
        if thought:
            assert done.logprobs.thought == pytest.approx(-sum(thought[-16:]) / 100 / len(thought[-16:]), abs=1e-4)
        assert done.logprobs.answer == pytest.approx(-sum(answer) / 100 / len(answer), abs=1e-4)
        assert all(probe.logprobs is not None for probe in done.probes)


@pytest.mark.parametrize(
    "found",
    [
        None,
        [],
        {"content": [{"logprob": None}] * 9},
        {"token_logprobs": [0.5] * 9},
        {"token_logprobs": [float("nan")] * 9},
        {"token_logprobs": ["-1"] * 9},
        {"token_logprobs": [-1.0]},
    ],
    ids=["none", "a list", "null", "above 0", "NaN", "text", "too few"],
)
def test_log_probabilities_that_are_none_are_left_out(found: Any) -> None:
    assert logprobs_in(found, 9) == ()


@pytest.mark.parametrize("subject", SUBJECTS, indirect=True, scope="module")
class TestTwoCalls(EngineContract):
    @pytest.fixture(scope="module")
    @classmethod
    def subject(cls, request: pytest.FixtureRequest) -> Iterator[Subject]:
        server, options = SUBJECTS[request.param]
        with serving(server) as url:
            yield Subject(engine_at(url, enforce="two-call", **options), "openai")

    def test_every_server_gives_what_an_in_process_engine_gives(self, subject, traces):
        for asked in requests():
            expected, found = in_process(asked), traces[asked.query.id, asked.sample]
            assert found.reasoning == expected.reasoning
            assert found.reasoning_tokens == expected.reasoning_tokens
            assert found.stop_reason == expected.stop_reason
            assert found.probes == expected.probes
            assert (found.answer, found.answer_tokens) == (expected.answer, expected.answer_tokens)

    def test_probes_hold_letters_cut_in_two(self, subject):
        """Guards the test above: some thoughts hold a letter of two tokens, and some cuts fall inside it."""
        if subject.engine._chosen.calls.dialect.name != "token ids":
            pytest.skip("half a letter cannot be sent as text")
        caps = tuple(range(BUDGET))
        many = [Request(query, BUDGET, sample, 50 + sample, caps) for query in QUERIES for sample in range(9)]
        found = run(subject.engine, many)
        assert any("é" in done.reasoning for done in found.values())
        for asked in many:
            assert found[asked.query.id, asked.sample].probes == in_process(asked).probes


THINKING = PromptTemplate(
    name="thinking",
    reasoning_end="##",
    answer_suffix="\n##{",
    answer_stop="}",
    max_answer_tokens=9,
    assistant_prefix="so:\n",
)


@pytest.mark.parametrize(
    "options", [{}, {"ids": False}, {"tokenizer": "toy"}, {"ids": False, "tokenizer": "toy"}], ids=str
)
@pytest.mark.parametrize("kind", ["vllm", "sglang", "llama.cpp"])
def test_an_opened_turn_is_continued(kind, options, monkeypatch):
    """A template that opens the thought itself, through every dialect that can say so."""
    monkeypatch.setattr("forethought.engines.server.engine.load_tokenizer", lambda _: ToyTokenizer())
    is_text = options == {"ids": False, "tokenizer": "toy"}  # shows no tokens that half a letter is in
    probes = () if is_text else (8, 16)
    asked = [Request(query, BUDGET, 0, 9 + number, probes) for number, query in enumerate(QUERIES)]
    with serving(ToyServer(kind)) as url:
        found = run(engine_at(url, enforce="two-call", template=THINKING, **options), asked)
    for request in asked:
        expected, done = in_process(request, THINKING), found[request.query.id, 0]
        assert (done.reasoning, done.answer) == (expected.reasoning, expected.answer)
        if is_text:
            assert expected.reasoning_tokens <= done.reasoning_tokens <= BUDGET
            continue
        assert (done.reasoning_tokens, done.suffix_tokens) == (expected.reasoning_tokens, expected.suffix_tokens)
        for probe, other in zip(done.probes, expected.probes, strict=True):
            if "\N{REPLACEMENT CHARACTER}" not in decode(encode(expected.reasoning)[: probe.budget]):
                assert probe == other  # half a letter cannot be sent as text


def test_prefixes_are_sent_as_the_ids_that_were_generated():
    server = ToyServer()
    with serving(server) as url:
        engine = engine_at(url)
        run(engine, [Request(QUERIES[0], BUDGET, 0, 3, (8, 16))])
    trace, *answers = [body for body in server.bodies if isinstance(body.get("prompt"), list)]
    assert trace["max_tokens"] == BUDGET
    for body in answers:
        assert body["prompt"][: len(trace["prompt"])] == trace["prompt"]
        assert body["max_tokens"] <= TEMPLATE.max_answer_tokens
        assert body["temperature"] == 0.0
    # A model's own defaults (top_k, repetition penalty) would make other traces than the in-process engines draw.
    assert {(body["top_k"], body["min_p"], body["repetition_penalty"]) for body in [trace, *answers]} == {
        (-1, 0.0, 1.0)
    }
    assert engine.counters.prompt_tokens >= engine.counters.cached_tokens > 0


def test_a_slot_is_asked_for_the_longest_answer_first():
    """llama.cpp's cache is a slot's last text: the other way round, the rest of the thought is read again each time."""
    server = ToyServer("llama.cpp")
    with serving(server) as url:
        run(engine_at(url), [Request(QUERIES[0], BUDGET, 0, 5, (4, 8))])
    _, *answers = [len(body["prompt"]) for body in server.bodies if "n_predict" in body]
    assert len(answers) == 3
    assert answers == sorted(answers, reverse=True)


def test_llama_cpp_is_told_to_draw_as_engines_in_process_do():
    server = ToyServer("llama.cpp")
    with serving(server) as url:
        run(engine_at(url), [Request(QUERIES[0], BUDGET, 0, 3, (8, 16))])
    drawn = [body for body in server.bodies if "n_predict" in body]
    assert drawn
    assert all(body["samplers"] == ["temperature", "top_p"] and body["mirostat"] == 0 for body in drawn)


def test_without_logprobs_a_thought_is_counted_by_usage_and_not_probed():
    with serving(ToyServer(shows_logprobs=False)) as url:
        engine = engine_at(url, enforce="two-call", ids=False)
        done = run(engine, [Request(QUERIES[0], BUDGET, 0, 3)])[QUERIES[0].id, 0]
        assert done.error is None
        assert 0 < done.reasoning_tokens <= BUDGET
        probed = run(engine, [Request(QUERIES[0], BUDGET, 0, 3, (8,))])[QUERIES[0].id, 0]
    assert "token boundaries" in probed.error


def test_without_logprobs_a_suffix_is_counted_by_the_prompt_behind_a_thought_that_was_cut():
    template = replace(TEMPLATE, answer_suffix=f"\n{TURN}##{{")
    with serving(ToyServer(shows_logprobs=False)) as url:
        engine = engine_at(url, enforce="two-call", ids=False, template=template)
        found = run(engine, [Request(query, 4, 0, 3) for query in QUERIES])
    cut = [done.suffix_tokens for done in found.values() if done.stop_reason is StopReason.BUDGET]
    assert set(cut) == {len(encode(template.answer_suffix))} == {5}


@pytest.mark.parametrize("times", [1, 2], ids=["as-many", "twice-as-many"])
def test_without_logprobs_a_text_is_cut_where_a_tokenizer_makes_as_many_tokens(times, monkeypatch):
    class Tokenizer(ToyTokenizer):
        def __call__(self, text: str, **_: Any) -> dict[str, list[tuple[int, int]]]:
            return {"offset_mapping": super().__call__(text)["offset_mapping"] * times}

    monkeypatch.setattr("forethought.engines.server.engine.load_tokenizer", lambda _: Tokenizer())
    asked, toy = Request(QUERIES[0], BUDGET, 0, 3, (2, 4)), ToyServer()

    def bare(request: Asked) -> Reply:
        reply = toy(request)
        for choice in reply.body.get("choices", []):
            choice.pop("logprobs", None)
        return reply

    with serving(bare) as url:
        done = run(engine_at(url, enforce="two-call", ids=False, tokenizer="toy"), [asked])[QUERIES[0].id, 0]
    if times > 1:
        assert "token boundaries" in done.error
        return
    expected = in_process(asked)
    assert (done.reasoning, done.answer, done.error) == (expected.reasoning, expected.answer, None)
    assert (done.reasoning_tokens, done.probes) == (expected.reasoning_tokens, expected.probes)
    assert len(done.probes) == 2


def test_without_a_package_for_tokenizers_it_is_said_which_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match="pip install transformers"):
        load_tokenizer("toy")


def test_a_chat_is_asked_for_as_one_text_or_refused_where_its_thought_is_taken_out():
    asked = Request(QUERIES[0], BUDGET, 0, 3, (8, 16))
    with serving(ToyServer("llama.cpp", parses=True)) as url:
        done = run(engine_at(url, enforce="two-call", ids=False), [asked])[QUERIES[0].id, 0]
    assert (done.reasoning, done.answer) == (in_process(asked).reasoning, in_process(asked).answer)
    with serving(ToyServer("vllm", parses=True)) as url:  # it cannot be asked for one text
        done = run(engine_at(url, enforce="two-call", ids=False), [asked])[QUERIES[0].id, 0]
    assert "removes the thought from the chat" in done.error


@pytest.mark.parametrize(("behind", "kind"), [("hosted_vllm", "vllm"), ("anthropic", "litellm")])
def test_what_is_behind_a_litellm_proxy_is_asked_by_its_own_fields(behind, kind):
    with serving(ToyServer(behind=behind)) as url:
        engine = engine_at(url)
        assert engine.server.kind.name == kind
        assert engine.server.how == f"a LiteLLM proxy in front of {behind}"
        assert (engine.server.kind.ids, engine.server.kind.has_priority) == ("", False)
        assert engine.enforce == ("two-call" if kind == "vllm" else "native")
        if kind == "vllm":
            asked = Request(QUERIES[0], BUDGET, 0, 3, (8, 16))
            done = run(engine, [asked])[QUERIES[0].id, 0]
            assert (done.reasoning, done.answer) == (in_process(asked).reasoning, in_process(asked).answer)


def test_reasoning_tokens_reported_as_0_tell_nothing_apart():
    """LiteLLM says so of every server that does not count: the whole text is thought, and all of it counts."""
    answer = {
        "choices": [{"message": {"content": "so it is so"}, "finish_reason": "length"}],
        "usage": {"completion_tokens": 4, "completion_tokens_details": {"reasoning_tokens": 0}},
    }
    reply = ChatReply.read(answer)
    thought, rest, is_closed = reply.split(THINKING)
    assert (thought, rest, is_closed) == ("so it is so", "", False)
    count = count_tokens(reply.usage, thought=thought, answer=rest)
    assert (count.reasoning, count.total, count.most) == (None, 4, 4)


def test_a_stream_that_counts_is_counted_up_to_the_answers_frame_where_nothing_is_told_apart():
    chunks = Chunks(8, THINKING)
    for number, text in enumerate(("so ", "it ", "is", "\n##", "{1", "2}"), 1):
        usage = {"completion_tokens": number}
        chunks.add({"id": "1", "choices": [{"delta": {"content": text}}], "usage": usage})
    chunks.add({"id": "1", "choices": [{"delta": {}, "finish_reason": "stop"}]})
    assert chunks.finish()["streamed"] == 3


class TestPriority:
    """The lower goes first: to vLLM's queue, and out of our own."""

    ASKED = tuple(
        Request(query, 8, 0, 7, priority=priority) for query, priority in zip(QUERIES, (30, 10), strict=False)
    )

    @pytest.mark.parametrize(
        "options",
        [{"enforce": "two-call"}, {"enforce": "two-call", "ids": False}, {"enforce": "native"}],
        ids=["ids", "chat", "native"],
    )
    def test_is_sent_with_every_call_where_asked_for(self, options):
        for told in (True, False):
            server = ToyServer("vllm")
            with serving(server) as url:
                found = run(engine_at(url, concurrency=1, priority=told, **options), list(self.ASKED))
            sent = [body["priority"] for body in server.bodies if "priority" in body]
            assert sent == (sorted(sent) if told else [])
            assert set(sent) == ({10, 30} if told else set())
            assert [done.error for done in found.values()] == [None, None]

    def test_is_refused_where_the_server_knows_none(self):
        with serving(ToyServer("llama.cpp")) as url, pytest.raises(InvalidSettingsError, match="priority=true"):
            engine_at(url, priority=True)


class TestNative:
    @pytest.mark.parametrize("kind", ["vllm", "sglang", "llama.cpp"])
    def test_a_kept_cap_is_counted(self, kind):
        server = ToyServer(kind)
        with serving(server) as url:
            engine = engine_at(url, enforce="native")
            found = run(engine, [Request(query, cap, cap, 7) for query in QUERIES for cap in (0, 4, 16)])
        assert engine.info.enforcement == f"native, room {64 + TEMPLATE.max_answer_tokens}"
        for done in found.values():
            assert done.error is None
            assert done.answer == "12"
            assert done.reasoning_tokens <= done.budget
            assert done.answer_tokens == len("the answer is ##{12}")
        assert engine.counters.num_disagreements == 0
        times = sum(body.get("prompt") == "</think>" for body in server.bodies)
        assert times == (kind == "sglang")  # once, and not for every thought
        field = {"vllm": "thinking_token_budget", "llama.cpp": "reasoning_budget_tokens"}.get(kind, "custom_params")
        for body in (body for body in server.bodies if "messages" in body and field in body):
            cap = body[field]["thinking_budget"] if kind == "sglang" else body[field]
            assert body["max_tokens"] == cap + 64 + TEMPLATE.max_answer_tokens

    def test_fields_beside_the_cap_are_sent_and_are_identity(self):
        server = ToyServer("llama.cpp")
        with serving(server) as url:
            engine = engine_at(url, enforce="native", native_fields={"reasoning_budget_start_tag": "<turn>a:"})
            run(engine, [Request(QUERIES[0], 8, 0, 7)])
            with pytest.raises(InvalidSettingsError, match="native_fields"):
                engine_at(url, enforce="native", native_fields=["a"])
        assert server.bodies[-1]["reasoning_budget_start_tag"] == "<turn>a:"
        assert engine.info.enforcement.endswith(', reasoning_budget_start_tag "<turn>a:"')

    def test_an_ignored_cap_is_an_error_and_counted(self):
        with serving(ToyServer(keeps_cap=False)) as url:
            engine = engine_at(url, enforce="native")
            found = run(engine, [Request(query, 4, 0, 7) for query in QUERIES])
        overshot = [done for done in found.values() if done.error]
        assert overshot
        for done in overshot:
            assert done.stop_reason is StopReason.ERROR
            assert "the server ignored the cap" in done.error
            assert "> 4" in done.error
        assert engine.counters.num_overshoots == len(overshot)
        assert all(done.reasoning_tokens <= 4 for done in found.values())

    def test_probes_need_two_calls(self):
        with serving(ToyServer()) as url:
            done = run(engine_at(url, enforce="native"), [Request(QUERIES[0], 16, 0, 1, (8,))])[QUERIES[0].id, 0]
        assert "two-call" in done.error

    @pytest.mark.parametrize("enforce", ["native", "max-tokens"])
    def test_a_budget_that_cannot_be_is_data(self, enforce):
        with serving(ToyServer("other")) as url:
            engine = engine_at(url, enforce=enforce, server="gemini")
            found = run(engine, [Request(QUERIES[0], budget, abs(budget)) for budget in (-1, 1 << 30)])
        assert all(done.stop_reason is StopReason.ERROR for done in found.values())


def chat_reply(
    content: str = "", reasoning: str = "", *, tokens: int, reported: int | None = None, **choice: Any
) -> Any:
    """A handler that answers every chat alike."""
    usage: dict[str, Any] = {"prompt_tokens": 5, "completion_tokens": tokens}
    if reported is not None:
        usage["completion_tokens_details"] = {"reasoning_tokens": reported}
    message = {"content": content, "reasoning": reasoning or None}
    body = {"choices": [{"message": message, "finish_reason": "stop", **choice}], "usage": usage}

    def handle(asked: Asked) -> Reply:
        return Reply(body) if asked.path.endswith("completions") else Reply({}, status=404)

    return handle


class CallsAnyServer:
    """Native caps against a server whose words are put into its mouth, counted by the toy's tokenizer."""

    @staticmethod
    def ask(
        handler: Any, budget: int, monkeypatch: pytest.MonkeyPatch, **options: Any
    ) -> tuple[OpenAIEngine, Generation]:
        monkeypatch.setattr("forethought.engines.server.engine.load_tokenizer", lambda _: ToyTokenizer())
        with serving(handler) as url:
            options = {"enforce": "native", "server": "tensorrt-llm", "tokenizer": "toy", **options}
            engine = engine_at(url, **options)
            return engine, run(engine, [Request(QUERIES[0], budget)])[QUERIES[0].id, 0]


class TestCounting(CallsAnyServer):
    @pytest.mark.parametrize(
        ("content", "reasoning", "tokens", "reported", "expected"),
        [
            pytest.param("12", "abcdefgh", 10, 8, (8, 2, "12", None), id="usage-and-tokenizer-agree"),
            pytest.param("12", "abcdefgh", 10, None, (8, 2, "12", None), id="the-tokenizer-counts"),
            pytest.param("12", "abcdefgh" * 3, 26, 8, None, id="usage-says-too-little"),
            pytest.param("12", "abcd", 26, 24, None, id="usage-says-more-than-there-is-text"),
            pytest.param("abcd</think>12", "", 14, None, (4, 10, "12", None), id="a-leak-that-fits"),
            pytest.param("abcd" * 9 + "</think>12", "", 46, 0, None, id="a-leak-that-usage-does-not-count"),
            pytest.param("abcd" * 2 + "##{12} so", "", 14, None, (8, 6, "12", None), id="no-parser"),
        ],
    )
    def test_the_larger_count_holds(self, monkeypatch, content, reasoning, tokens, reported, expected):
        _, done = self.ask(chat_reply(content, reasoning, tokens=tokens, reported=reported), 16, monkeypatch)
        if expected is None:
            assert "the server ignored the cap" in done.error
        else:
            assert (done.reasoning_tokens, done.answer_tokens, done.answer, done.error) == expected

    def test_a_disagreement_is_said_once_and_counted(self, monkeypatch, caplog):
        handler = chat_reply("12", "abcdefgh", tokens=30, reported=14)
        with caplog.at_level(logging.WARNING, logger="forethought"):
            engine, done = self.ask(handler, 16, monkeypatch)
            assert done.reasoning_tokens == 14
        assert engine.counters.num_disagreements == 1
        assert len(caplog.records) == 1
        engine.counters.disagree(1, 9, "the tokenizer")
        assert len(caplog.records) == 1

    @pytest.mark.parametrize("reason", ["content_filter", "tool_calls", "error"])
    def test_an_answer_that_did_not_end_well_is_an_error(self, monkeypatch, reason):
        _, done = self.ask(chat_reply("12", tokens=2, finish_reason=reason), 16, monkeypatch)
        assert repr(reason) in done.error


class TestStreams:
    """Chunks are no tokens: a stream is counted where it says so as it goes, and else not at all."""

    @staticmethod
    def ask(events: list[Any], budget: int) -> tuple[OpenAIEngine, Generation]:
        def handle(asked: Asked) -> Reply:
            return Reply(events=events) if asked.path.endswith("completions") else Reply({}, status=404)

        with serving(handle) as url:
            engine = engine_at(url, enforce="native", server="tensorrt-llm", max_attempts=2)
            return engine, run(engine, [Request(QUERIES[0], budget)])[QUERIES[0].id, 0]

    @staticmethod
    def chunk(number: int = 1, *, finish: str | None = None, told: int | None = None, **delta: str) -> dict[str, Any]:
        event = {"id": number, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
        return event if told is None else event | {"usage": {"prompt_tokens": 1, "completion_tokens": told}}

    def test_chunks_alone_are_no_count(self):
        thought = [self.chunk(reasoning="a ")] * 5
        engine, done = self.ask(
            [*thought, self.chunk(content="##{1"), self.chunk(content="2}"), self.chunk(finish="stop"), "[DONE]"], 8
        )
        assert (done.reasoning_tokens, done.answer_tokens, done.answer) == (None, None, "12")
        assert (done.reasoning, done.error, done.is_counted) == ("a " * 5, None, False)
        assert engine.counters.num_uncounted == 1

    def test_usage_along_the_stream_is_a_count(self):
        thought = [self.chunk(reasoning="a ", told=number) for number in (1, 2, 3, 4, 5)]
        ends = [self.chunk(content="##{1", told=6), self.chunk(content="2}", told=7), self.chunk(finish="stop")]
        done = self.ask([*thought, *ends, "[DONE]"], 8)[1]
        assert (done.reasoning_tokens, done.answer_tokens, done.answer) == (5, 2, "12")

    def test_a_thought_beyond_its_cap_is_not_listened_to(self):
        engine, done = self.ask([self.chunk(reasoning="a ")] * 500, 8)
        assert "the server ignored the cap: about 73 reasoning tokens > 8" in done.error
        assert engine.counters.num_overshoots == 1

    def test_a_leak_is_counted_up_to_its_closing_tag(self):
        events = [
            *[self.chunk(content="a ", told=number) for number in (1, 2, 3)],
            self.chunk(content="</think>", told=4),
            self.chunk(content="12", finish="stop", told=5),
        ]
        assert self.ask(events, 8)[1].reasoning_tokens == 4

    @pytest.mark.parametrize(
        ("events", "reason"),
        [
            pytest.param(["chunk-a"], "ends in the middle", id="cut"),
            pytest.param(["end", "chunk-a"], "after its end", id="text-after-the-end"),
            pytest.param(["content", "chunk-a"], "after its answer", id="thought-after-the-answer"),
            pytest.param(["chunk-a", "other"], "mixes two answers", id="two-answers"),
            pytest.param(["chunk-a", "{broken"], "Expecting", id="not-json"),
        ],
    )
    def test_an_order_that_makes_no_sense_is_tried_again(self, events, reason):
        known = {
            "chunk-a": self.chunk(reasoning="a"),
            "end": self.chunk(finish="stop"),
            "content": self.chunk(content="1"),
            "other": self.chunk(2, reasoning="b"),
        }
        engine, done = self.ask([known.get(event, event) for event in events], 8)
        assert reason in done.error
        assert engine.counters.retries == {"stream": 1}


LOW = Option("low", set={"reasoning_effort": "low"})


def chats(server: ToyServer) -> list[dict[str, Any]]:
    """Bodies of the chats so far, without what was only tokenised."""
    return [body for body in server.bodies if "messages" in body and "seed" in body]


class TestOptions:
    def sent(self, option: Option, at: ToyServer | None = None, budget: int = 256, **options: Any) -> Any:
        """`(generation, last body of a chat)` of one request by an option."""
        server = at or ToyServer("other")
        with serving(server) as url:
            done = run(engine_at(url, **options), [Request(QUERIES[0], budget, option=option)])[QUERIES[0].id, 0]
        return done, chats(server)[-1]

    @pytest.mark.parametrize("kind", sorted(KINDS))
    def test_what_it_sets_goes_into_the_body_of_every_kind(self, kind):
        done, body = self.sent(LOW, **{"server": kind, "enforce": "max-tokens"})
        assert done.option == "low"
        assert body["reasoning_effort"] == "low"
        assert not {"thinking", "nvext", "custom_params", "extra_body", "thinking_token_budget"} & body.keys()

    def test_it_replaces_and_tables_go_into_tables(self):
        template = replace(TEMPLATE, chat_options=(("enable_thinking", True),))
        fields = {"model": "large", "temperature": 1.0, "chat_template_kwargs": {"level": "high"}}
        _, body = self.sent(Option("high", set=fields), template=template)
        assert (body["model"], body["temperature"]) == ("large", 1.0)
        assert body["chat_template_kwargs"] == {"enable_thinking": True, "level": "high"}

    @pytest.mark.parametrize(
        ("context", "sent"),
        [pytest.param(256, None, id="the-server-ends-it"), pytest.param(200, 143, id="ours-is-less")],
    )
    def test_a_thought_without_a_cap_may_be_as_long_as_the_context_leaves_room(self, context, sent):
        done, body = self.sent(LOW, ToyServer(), context_tokens=context, budget=context)
        assert done.error is None
        assert done.reasoning_tokens + (done.answer_tokens or 0) <= context
        assert body.get("max_tokens") == (None if sent is None else body["max_tokens"])
        assert sent is None or 100 < body["max_tokens"] < context

    def test_a_server_that_tells_no_context_is_asked_for_no_more_than_the_request_allows(self):
        _, body = self.sent(LOW, context_tokens=None, budget=77)
        assert body["max_tokens"] == 77

    def test_an_option_that_is_a_cap_alone_is_that_cap(self):
        with serving(ToyServer()) as url:
            engine = engine_at(url)
            plain = run(engine, [Request(QUERIES[0], 16, 0, 5)])[QUERIES[0].id, 0]
            named = run(engine, [Request(QUERIES[0], 16, 0, 5, option=Option("short", cap=16))])[QUERIES[0].id, 0]
        assert named == replace(plain, option="short")

    @pytest.mark.parametrize("kind", ["vllm", "sglang", "llama.cpp"])
    def test_two_calls_keep_the_cap_of_an_option_that_sets_fields_in_a_chat(self, kind):
        server = ToyServer(kind)
        done, _ = self.sent(Option("low 9", cap=9, set=LOW.set), server, budget=9, enforce="two-call")
        asked = chats(server)
        assert (done.error, done.option, done.reasoning_tokens) == (None, "low 9", 9)
        assert len(asked) >= 2  # the thought, then its answer
        assert all(body["reasoning_effort"] == "low" for body in asked)

    def test_a_native_cap_stands_beside_what_is_set(self):
        option = Option("low 9", cap=9, set=LOW.set)
        done, body = self.sent(option, ToyServer(), budget=9, enforce="native")
        assert (body["thinking_token_budget"], body["reasoning_effort"]) == (9, "low")
        assert done.reasoning_tokens <= 9

    @pytest.mark.parametrize(
        ("option", "options", "message"),
        [
            pytest.param(
                Option("low 9", cap=9, set=LOW.set),
                {"enforce": "two-call", "tokenizer": "here"},
                "two calls can set fields only in a continued chat",
                id="text-cannot-set",
            ),
            pytest.param(Option("own", set={"messages": []}), {}, "every request sets by itself", id="messages"),
            pytest.param(Option("other", set={"model": "nano"}), {"kind": "vllm"}, "model of this server", id="model"),
        ],
    )
    def test_what_cannot_be_asked_is_refused_in_words(self, option, options, message, monkeypatch):
        monkeypatch.setattr("forethought.engines.server.engine.load_tokenizer", lambda name: ToyTokenizer())
        kind = options.pop("kind", "other")
        server = ToyServer(kind)
        with serving(server) as url:
            engine = engine_at(url, **options)
            num_asked = len(server.asked)
            with pytest.raises((InvalidSettingsError, EngineError), match=message):
                check_option(engine, option)
            if "model" not in option.set:
                done = run(engine, [Request(QUERIES[0], 9, option=option)])[QUERIES[0].id, 0]
                assert message in done.error
                assert done.is_final
        assert len(server.asked) == num_asked  # before a token is paid

    @pytest.mark.parametrize(
        ("kind", "sampling", "sent"),
        [
            pytest.param("openai", Sampling(1.0, 1.0), set(), id="openai-as-implied"),
            pytest.param("openai", Sampling(0.6, 1.0), {"temperature"}, id="openai-otherwise"),
            pytest.param("vllm", Sampling(1.0, 1.0), {"temperature", "top_p"}, id="vllm"),
        ],
    )
    def test_models_that_refuse_to_be_told_how_to_draw_are_not_told_what_they_do_anyway(self, kind, sampling, sent):
        _, body = self.sent(LOW, **{"server": kind, "enforce": "max-tokens", "sampling": sampling})
        assert {"temperature", "top_p"} & body.keys() == sent


class TestMaxTokens:
    def test_nothing_is_forced_and_nothing_exceeds_the_cap(self):
        with serving(ToyServer("other")) as url:
            engine = engine_at(url, enforce="max-tokens")
            found = run(engine, [Request(query, 16, sample, sample) for query in QUERIES for sample in range(6)])
        for done in found.values():
            assert done.error is None
            assert done.reasoning_tokens + done.answer_tokens <= 16
            assert done.suffix_tokens == 0
        assert any(done.answer == "" for done in found.values())
        assert any(done.answer for done in found.values())


class TestOpening:
    @pytest.mark.parametrize(
        ("kind", "options", "expected"),
        [
            pytest.param("vllm", {}, "two-call", id="token-ids"),
            pytest.param("sglang", {}, "two-call", id="sglang-ids"),
            pytest.param("llama.cpp", {}, "two-call", id="llama-ids"),
            pytest.param("vllm", {"ids": False}, "two-call", id="chat"),
            pytest.param("other", {"server": "dynamo"}, "native", id="native-alone"),
            pytest.param("other", {}, "max-tokens", id="nothing-known"),
        ],
    )
    def test_auto_takes_the_best_there_is_and_says_why(self, kind, options, expected, caplog):
        with caplog.at_level(logging.INFO, logger="forethought"), serving(ToyServer(kind)) as url:
            engine = engine_at(url, **options)
        assert engine.enforce == expected
        assert engine.reason in caplog.text

    def test_the_server_and_the_enforcement_are_identity_and_the_address_is_not(self):
        from forethought.core.provenance import Provenance

        ids = []
        for _ in range(2):  # two servers at two addresses
            with serving(ToyServer()) as url:
                info = engine_at(url).info
            ids.append(Provenance.of(info))
            assert info.versions["base_url"] == f"{url}/v1"
        assert ids[0].differing(ids[1]) == ()
        assert (ids[0].server, ids[0].enforcement) == ("vllm 0.toy", "two-call")

    def test_a_model_under_another_name_is_named(self):
        with serving(ToyServer(model="org/toy-instruct")) as url:
            with pytest.raises(EngineError, match=r"org/toy-instruct.*--served-model"):
                engine_at(url)
            engine = engine_at(url, served_model="org/toy-instruct")
        assert engine.info.model == "toy"
        assert engine.info.model_hash is None

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            pytest.param({"enforce": "nativ"}, "native", id="enforcement"),
            pytest.param({"concurrency": 0}, "--concurrency", id="concurrency"),
            pytest.param({"timeout_seconds": 0}, "timeout_seconds", id="timeout"),
            pytest.param({"server": "vlm"}, "vllm", id="kind"),
            pytest.param({"enforce": "effort"}, "enforcement is called 'effort'", id="effort-is-an-option-now"),
        ],
    )
    def test_what_cannot_be_is_refused(self, options, message):
        with serving(ToyServer()) as url, pytest.raises(InvalidSettingsError, match=message):
            engine_at(url, **options)

    def test_two_calls_need_a_server_that_goes_on(self):
        with serving(ToyServer("other")) as url, pytest.raises(InvalidSettingsError, match="tokenizer=NAME"):
            engine_at(url, enforce="two-call")

    def test_nobody_there(self):
        with serving(ToyServer()) as url:
            pass
        with pytest.raises(EngineError, match="no server answers"):
            engine_at(url, max_attempts=2)

    def test_no_address(self, monkeypatch):
        monkeypatch.delenv("FORETHOUGHT_BASE_URL", raising=False)
        with pytest.raises(InvalidSettingsError, match="FORETHOUGHT_BASE_URL"):
            engine_at("")

    def test_the_address_may_come_from_the_environment(self, monkeypatch):
        with serving(ToyServer()) as url:
            monkeypatch.setenv("FORETHOUGHT_BASE_URL", url)
            assert str(engine_at("").address) == f"{url}/v1"

    def test_a_closed_engine_says_so(self):
        with serving(ToyServer()) as url:
            engine = engine_at(url)
            engine.close()
            with pytest.raises(EngineError, match="closed"):
                run(engine, [Request(QUERIES[0], 4)])

    def test_a_chat_the_template_refuses_is_data(self):
        odd = Query("odd", (Message("tool", "1"),))
        with serving(ToyServer()) as url:
            found = run(engine_at(url), [Request(odd, BUDGET), requests()[0]])
        assert "no such role" in found["odd", 0].error
        assert found[QUERIES[0].id, 0].error is None
