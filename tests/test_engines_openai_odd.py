"""The openai engine where servers and callers do what nobody expects: it neither hangs nor loses count."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="needs aiohttp")

from engine_contract import QUERIES, TEMPLATE, run
from forethought.core.data import Generation, Request
from forethought.engines.server.engine import OpenAIEngine
from forethought.errors import InvalidSettingsError
from loopback import Asked, Reply, serving
from test_engines_openai import engine_at
from toy_server import ToyServer

ASKED = Request(QUERIES[0], 16, 0, 1)


def is_answering(asked: Asked) -> bool:
    """Whether a request is for a forced answer."""
    return asked.path.endswith(("/completion", "/completions")) and asked.json.get("stop") == ["}"]


def altered(kind: str, alter: Callable[[Asked, Reply], Reply | None]) -> Callable[[Asked], Reply]:
    """A toy server whose replies are changed."""
    toy = ToyServer(kind)

    def handle(asked: Asked) -> Reply:
        reply = toy(asked)
        return alter(asked, reply) or reply

    return handle


def answered(
    handler: Callable[[Asked], Reply], request: Request = ASKED, **options: Any
) -> tuple[OpenAIEngine, Generation]:
    with serving(handler) as url:
        engine = engine_at(url, **{"enforce": "two-call", "max_attempts": 2, **options})
        return engine, run(engine, [request])[request.query.id, request.sample]


@pytest.mark.parametrize("kind", ["vllm", "sglang", "llama.cpp"])
def test_a_server_that_stops_without_a_token_is_not_asked_for_ever(kind):
    num_asked = 0

    def alter(asked: Asked, reply: Reply) -> None:
        nonlocal num_asked
        if is_answering(asked):
            num_asked += 1
            if kind == "llama.cpp":
                reply.body |= {"content": "", "tokens": [], "stop_type": "word"}
            else:
                empty = {"text": "", "token_ids": [], "stop_reason": "}", "matched_stop": "}"}
                reply.body["choices"][0] |= {**empty, "finish_reason": "stop"}

    _, done = answered(altered(kind, alter))
    assert (done.error, done.answer, done.answer_tokens, num_asked) == (None, "", 0, 1)


def test_what_each_of_several_answers_generated_and_lost_is_counted():
    def alter(asked: Asked, reply: Reply) -> None:
        if is_answering(asked):
            reply.body["choices"][0]["token_ids"] = None
            reply.body["usage"] = {"completion_tokens": 7}

    engine, done = answered(altered("vllm", alter), Request(QUERIES[0], 16, 0, 1, (2, 4)))
    assert "no token ids" in done.error
    thought, _ = answered(ToyServer("vllm"))
    assert engine.counters.discarded_tokens == thought.counters.trace_tokens + 3 * 7


@pytest.mark.parametrize("options", [{"ids": False}, {"enforce": "native"}], ids=["chat", "native"])
def test_cached_tokens_of_prompts_are_counted_however_budgets_are_kept(options):
    engine, _ = answered(ToyServer("vllm"), **options)
    assert 0 < engine.counters.cached_tokens <= engine.counters.prompt_tokens


def test_a_usage_that_is_missing_once_makes_no_suffix_of_one_token():
    usual = answered(ToyServer("vllm"), ids=False)[1]

    def alter(asked: Asked, reply: Reply) -> None:
        if is_answering(asked):
            del reply.body["usage"]

    found = answered(altered("vllm", alter), ids=False)[1]
    assert found.suffix_tokens >= usual.suffix_tokens > 1


def test_the_prompt_of_a_chat_without_a_thought_is_counted():
    asked = Request(QUERIES[0], 0, 0, 1)
    (_, by_ids), (_, by_chat) = answered(ToyServer("vllm"), asked), answered(ToyServer("vllm"), asked, ids=False)
    assert by_chat.prompt_tokens == pytest.approx(by_ids.prompt_tokens, abs=2)


@pytest.mark.parametrize(
    ("status", "is_final"), [(400, True), (422, True), (401, False), (408, False), (429, False), (503, False)]
)
def test_only_a_bad_request_is_a_chat_template_that_refuses(status, is_final):
    """A limit on requests passes: a question that met one is asked again."""
    is_open = False

    def alter(asked: Asked, reply: Reply) -> Reply | None:
        return Reply({"error": {"message": "no"}}, status=status) if is_open and asked.path == "/tokenize" else None

    with serving(altered("vllm", alter)) as url:
        engine = engine_at(url, enforce="two-call", max_attempts=2)
        is_open = True
        done = run(engine, [ASKED])[QUERIES[0].id, 0]
    assert f"HTTP {status}" in done.error
    assert (done.is_final, "chat template refuses" in done.error) == (is_final, is_final)


@pytest.mark.parametrize(
    ("path", "expected"), [("/version", ("vllm", "two-call")), ("/tokenize", ("vllm 0.toy", "two-call"))]
)
@pytest.mark.parametrize("status", [500, 502, 503])
def test_a_proxy_that_answers_5xx_for_routes_that_it_does_not_pass_on_is_a_server(path, status, expected):
    def alter(asked: Asked, reply: Reply) -> Reply | None:
        return Reply(b"no upstream", status=status) if asked.path == path else None

    engine, done = answered(altered("vllm", alter), enforce="auto")
    assert (engine.server.name, engine.enforce, done.error) == (*expected, None)


def test_text_that_is_null_is_none():
    def alter(asked: Asked, reply: Reply) -> None:
        if is_answering(asked):
            reply.body["choices"][0] |= {"text": None, "token_ids": [2, 3], "finish_reason": "length"}

    assert answered(altered("vllm", alter))[1].answer == "01"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"answer_room": -1}, "answer_room must be at least 0"),
        ({"backoff_seconds": -0.5}, "backoff_seconds must be at least 0"),
        ({"backoff_seconds": float("nan")}, "backoff_seconds must be at least 0"),
    ],
)
def test_numbers_that_no_server_could_be_asked_by_are_refused(options, words):
    with pytest.raises(InvalidSettingsError, match=words):
        OpenAIEngine("toy", template=TEMPLATE, base_url="http://127.0.0.1:9", **options)


@pytest.mark.parametrize("enforce", ["auto", "two-call", "max-tokens", "native"])
def test_options_of_one_way_are_said_to_do_nothing_elsewhere(enforce):
    with serving(ToyServer("vllm")) as url:
        plain = engine_at(url, enforce=enforce)
        given = engine_at(url, enforce=enforce, answer_room=9, cap_offset=2, ids=False)
    assert "does nothing" not in plain.said
    assert ("ids is for two calls alone" in given.said) == (given.enforce != "two-call")
    assert ("answer_room, cap_offset" in given.said) == (enforce != "native")
    assert given.answer_room == (9 if enforce == "native" else 0)


def test_max_tokens_need_no_room_beside_them():
    _, done = answered(ToyServer("vllm", context_tokens=256), Request(QUERIES[0], 200, 0, 1), enforce="max-tokens")
    assert done.error is None


def test_the_context_is_that_of_the_model_that_is_asked():
    def alter(asked: Asked, reply: Reply) -> None:
        if asked.path == "/v1/models":
            reply.body["data"].append({"id": "small", "owned_by": "vllm", "max_model_len": 64})

    engine, done = answered(altered("vllm", alter))
    assert (engine.info.context_tokens, done.error) == (256, None)


class TestStreams:
    @pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError, GeneratorExit])
    def test_whatever_the_requests_iterator_raises_comes_out(self, error):
        def broken() -> Iterator[Request]:
            yield ASKED
            raise error

        with serving(ToyServer("vllm")) as url, pytest.raises(error):
            asyncio.run(asyncio.wait_for(self.all_of(engine_at(url), broken()), 20))

    def test_only_as_many_requests_as_are_under_way_take_room(self):
        with serving(ToyServer("vllm")) as url:
            engine = engine_at(url, concurrency=10**9)
            found = asyncio.run(asyncio.wait_for(self.all_of(engine, iter([ASKED, ASKED])), 20))
        assert len(found) == 2
        assert found[0] == found[1]

    @pytest.mark.parametrize("how", ["aclose", "cancel"])
    def test_who_leaves_takes_all_calls_along(self, how):
        num_calls = 0

        def alter(asked: Asked, reply: Reply) -> None:
            nonlocal num_calls
            num_calls += 1
            reply.delay = 0.02

        async def leave(engine: OpenAIEngine) -> tuple[int, int]:
            stream = engine.generate(Request(QUERIES[0], 16, sample, sample) for sample in range(1000))
            if how == "cancel":
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(self.exhaust(stream), 0.2)
            else:
                await anext(stream)
                await stream.aclose()
            before = num_calls
            await asyncio.sleep(0.2)
            return len(asyncio.all_tasks()), num_calls - before

        with serving(altered("vllm", alter)) as url:
            engine = engine_at(url, concurrency=4)
            num_tasks, num_late = asyncio.run(leave(engine))
            assert run(engine, [ASKED])[QUERIES[0].id, 0].error is None  # in another event loop
        assert num_tasks == 1
        assert num_late <= 4  # on their way already

    @staticmethod
    async def exhaust(stream: Any) -> None:
        async for _ in stream:
            pass

    @staticmethod
    async def all_of(engine: OpenAIEngine, asked: Iterator[Request]) -> list[Generation]:
        return [done async for done in engine.generate(asked)]
