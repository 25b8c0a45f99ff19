"""Caps kept by two calls in one reply, where the server keeps none itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from forethought.core.prompts import load_template
from forethought.gateway.hosts.upstream.two_calls import TwoCalls, _closing, _Skipping
from forethought.gateway.pipeline import TWO_CALLS
from forethought.gateway.scripted import ScriptedServer
from forethought.servers.kinds import KINDS
from gateway_upstream import KEY, Client, chat, question, saved_predictor, served, tenants_file

pytest.importorskip("uvicorn", reason="the extra `gateway` is not installed")


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved_predictor(tmp_path_factory.mktemp("predictor") / "text")


@pytest.fixture
async def both(predictor: str, tmp_path: Any) -> AsyncIterator[tuple[ScriptedServer, Client, Any]]:
    """A server that heeds no cap, and a client of the gateway before it."""
    tenants = tenants_file(tmp_path / "t.toml", '[tenants.one]\nkey_sha256 = "KEY"\ntokens_per_day = 100_000\n')
    how = {"tenants": tenants, "ledger": f"sqlite:{tmp_path / 'l.db'}", "answer_room": 30}
    async with ScriptedServer(kind=KINDS["other"], thought_field="") as server:
        async with served(server.url, predictor, server="llama.cpp", enforce="two-call", **how) as found:
            async with Client(found.url, KEY) as client:
                yield server, client, found


def put_together(events: list[Any], index: int = 0) -> tuple[str, str, list[str]]:
    """`(thought, text, reasons for the end)` of one choice."""
    choices = [each for event in events if event != "[DONE]" for each in event["choices"] if each["index"] == index]
    thought = "".join(each["delta"].get("reasoning_content") or "" for each in choices)
    text = "".join(each["delta"].get("content") or "" for each in choices)
    return thought, text, [each["finish_reason"] for each in choices if each["finish_reason"]]


async def test_a_stream_is_one_reply_with_the_thought_cut_at_its_cap(both):
    server, client, found = both
    status, headers, came = await client.chat(question(102), stream=True, stream_options={"include_usage": True})
    assert status == 200
    budget = int(headers["x-forethought-budget"])
    thought, text, ends = put_together(came)
    assert 0 < len(thought.split()) <= budget
    assert "think>" not in thought + text
    assert "boxed" in text
    assert ends == ["stop"]
    assert came[-1] == "[DONE]"
    assert len({event["id"] for event in came if event != "[DONE]"}) == 1
    first, second = (json.loads(seen.content) for seen in list(server.seen)[-2:])
    assert first["max_tokens"] == budget
    assert first["stop"] == ["</think>"]
    assert second["messages"][-1]["content"].endswith("</think>\n\n")
    assert second["messages"][-1]["content"].startswith("<think>\n")
    assert second["max_tokens"] <= 30
    usage = came[-2]["usage"]
    assert usage["completion_tokens"] == sum(seen.tokens for seen in list(server.seen)[-2:])
    assert usage["completion_tokens_details"]["reasoning_tokens"] == list(server.seen)[-2].tokens
    for _ in range(100):
        if not await found.opened.admission.ledger.num_open():
            break
        await asyncio.sleep(0.02)
    counts = await found.opened.admission.ledger.counts(["tenant:one"])
    assert next(each.settled for each in counts if each.window == "day") == usage["total_tokens"]


async def test_usage_that_was_not_asked_for_is_not_shown(both):
    _, client, _ = both
    _, _, came = await client.chat(question(102), stream=True)
    assert all(event == "[DONE]" or event["choices"] for event in came)


async def test_a_whole_reply_is_the_same(both):
    _, client, _ = both
    _, _, events = await client.chat(question(102), stream=True)
    status, headers, came = await client.chat(question(102))
    assert status == 200
    message = came["choices"][0]["message"]
    assert put_together(events)[:2] == (message["reasoning_content"], message["content"])
    assert len(message["reasoning_content"].split()) <= int(headers["x-forethought-budget"])
    assert came["choices"][0]["finish_reason"] == "stop"
    assert int(headers["x-forethought-used"]) == came["usage"]["completion_tokens"]


async def test_several_answers_each_have_a_thought_of_their_own(both):
    server, client, _ = both
    before = server.num_requests
    _, headers, came = await client.chat(question(102), n=2, seed=5)
    assert server.num_requests == before + 4
    assert [choice["index"] for choice in came["choices"]] == [0, 1]
    assert len({choice["message"]["reasoning_content"] for choice in came["choices"]}) == 2
    _, _, events = await client.chat(question(102), n=2, seed=5, stream=True)
    for index in (0, 1):
        thought, text, ends = put_together(events, index)
        message = came["choices"][index]["message"]
        assert (thought, text, ends) == (message["reasoning_content"], message["content"], ["stop"])
        assert len(thought.split()) <= int(headers["x-forethought-budget"])


async def test_a_clients_own_limits_hold(both):
    server, client, _ = both
    _, headers, came = await client.chat(question(102), reasoning_budget_tokens=5)
    assert headers["x-forethought-budget"] == "5"
    assert len(came["choices"][0]["message"]["reasoning_content"].split()) <= 5
    assert "reasoning_budget_tokens" not in json.loads(server.seen[-1].content)
    await client.chat(question(102), max_tokens=12)
    assert sum(json.loads(seen.content)["max_tokens"] for seen in list(server.seen)[-2:]) <= 12


async def test_what_is_no_plain_chat_is_left_alone(both):
    server, client, _ = both
    status, headers, _ = await client.chat(question(102), tools=[{"type": "function"}], max_tokens=50)
    assert status == 200
    assert headers["x-forethought-reason"].startswith("untouched")
    assert json.loads(server.seen[-1].content)["max_tokens"] == 50


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_an_error_of_the_first_call_is_the_reply(both, stream):
    _, client, found = both
    status, _, content = await client.ask(
        "/v1/chat/completions", chat(f"{question(102)} [[status=503]]", stream=stream)
    )
    assert status == 503
    assert json.loads(content)["error"]
    assert await found.opened.admission.ledger.num_open() == 0


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_second_call_that_fails_is_no_refusal_of_it_all(stream):
    calls: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        calls.append(json.loads((await receive())["body"]))
        if len(calls) == 2:
            await send({"type": "http.response.start", "status": 500, "headers": []})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        said = {"content": "so"}
        event = {"id": "a", "choices": [{"index": 0, "delta": said, "message": said, "finish_reason": "length"}]}
        body = f"data: {json.dumps(event)}\n\ndata: [DONE]\n\n".encode() if stream else json.dumps(event).encode()
        await send({"type": "http.response.body", "body": body, "more_body": False})

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": json.dumps(chat("?", stream=stream)).encode(), "more_body": False}

    two = TwoCalls(app, KINDS["vllm"], load_template("think"), answer_room=9)
    with pytest.raises(Exception, match="refused to go on"):
        await two({"type": "http", "headers": [], TWO_CALLS: 4}, receive, send)
    assert sent[-1]["more_body"] if stream else not sent


def test_what_a_server_repeats_is_left_out_and_nothing_else():
    for pieces, expected in ((["<th", "ink>\nso"], "\nso"), (["<th", "at"], "<that"), (["so", "<think>"], "so<think>")):
        skip = _Skipping("<think>")
        assert "".join(map(skip.feed, pieces)) + skip.rest() == expected
    skip = _Skipping("<think>")
    assert skip.feed("<th") + skip.rest() == "<th"


def test_a_thought_without_tags_is_closed_by_words_that_the_client_sees():
    boxed = load_template("boxed")
    assert _closing(boxed, "so it is") == (boxed.answer_suffix, boxed.answer_suffix.lstrip("\n"))
    tagged = replace(load_template("think"))
    assert _closing(tagged, "so") == ("\n</think>\n\n", "")
    assert _closing(tagged, "so\n") == ("</think>\n\n", "")
