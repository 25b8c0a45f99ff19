"""Caps kept by two calls in one reply, where the server keeps none itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from forethought.core.prompts import load_template
from forethought.gateway.failing import UpstreamError
from forethought.gateway.hosts.upstream.two_calls import MOST_AT_ONCE, TwoCalls, _closing
from forethought.gateway.pipeline import TWO_CALLS
from forethought.gateway.scripted import ScriptedServer
from forethought.servers.kinds import KINDS
from forethought.servers.replies import Skipping
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
    assert await settled_tokens(found) == usage["total_tokens"]


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

    given = [{"type": "http.request", "body": json.dumps(chat("?", stream=stream)).encode(), "more_body": False}]

    async def receive() -> Any:
        return given.pop() if given else await asyncio.Event().wait()

    two = TwoCalls(app, KINDS["vllm"], load_template("think"), answer_room=9)
    with pytest.raises(Exception, match="refused to go on"):
        await two({"type": "http", "headers": [], TWO_CALLS: 4}, receive, send)
    assert sent[-1]["more_body"] if stream else not sent


async def asked(app: Any, **fields: Any) -> list[Any]:
    """What comes back of one chat by two calls to `app`, which gets each call's body."""
    sent: list[Any] = []
    given = [{"type": "http.request", "body": json.dumps(chat("?", **fields)).encode(), "more_body": False}]

    async def receive() -> Any:
        return given.pop() if given else await asyncio.Event().wait()

    async def send(message: Any) -> None:
        await asyncio.sleep(0)
        sent.append(message)

    async def called(scope: Any, receive: Any, send: Any) -> None:
        await app(json.loads((await receive())["body"]), send)

    two = TwoCalls(called, KINDS["vllm"], load_template("think"), answer_room=9)
    await two({"type": "http", "headers": [], TWO_CALLS: 4}, receive, send)
    return sent


async def say(send: Any, text: str, status: int = 200) -> None:
    event = {"id": "a", "choices": [{"index": 0, "message": {"content": text}, "finish_reason": "stop"}]}
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(event).encode(), "more_body": False})


def is_second(body: Any) -> bool:
    return body["messages"][-1]["role"] == "assistant" and "</think>" in body["messages"][-1]["content"]


async def test_answers_are_asked_for_together_and_not_too_many_at_once():
    running, most = 0, 0

    async def app(body: Any, send: Any) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1
        await say(send, str(body["seed"]))

    (_, body) = await asked(app, n=40, seed=100)
    choices = json.loads(body["body"])["choices"]
    assert most == MOST_AT_ONCE
    assert [choice["index"] for choice in choices] == list(range(40))
    assert [choice["message"]["content"] for choice in choices] == [str(100 + number) for number in range(40)]


async def test_an_error_is_the_reply_where_every_call_met_it():
    async def app(body: Any, send: Any) -> None:
        await asyncio.sleep(0.01 * (body["seed"] % 3))
        await say(send, str(body["seed"]), status=429)

    sent = await asked(app, n=3, seed=3)
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    assert sent[0]["status"] == 429

    async def away(body: Any, send: Any) -> None:
        raise UpstreamError("cannot be reached", was_sent=False)

    with pytest.raises(UpstreamError) as raised:
        await asked(away, n=3)
    assert not raised.value.was_sent


REFUSALS = {
    "the first thought": lambda body: not is_second(body) and body["seed"] == 7,
    "a later thought": lambda body: not is_second(body) and body["seed"] == 9,
    "every answer": is_second,
}


@pytest.mark.parametrize("is_away", [False, True], ids=["an error", "no connection"])
@pytest.mark.parametrize("refused", REFUSALS.values(), ids=REFUSALS.keys())
async def test_what_was_generated_before_a_refusal_is_not_taken_for_nothing(refused, is_away):
    async def app(body: Any, send: Any) -> None:
        if refused(body) and is_away:
            raise UpstreamError("cannot be reached", was_sent=False)
        await say(send, "so", status=503 if refused(body) else 200)

    with pytest.raises(UpstreamError, match="refused to go on") as raised:
        await asked(app, n=3, seed=7)
    assert raised.value.was_sent


async def test_streams_of_several_answers_come_side_by_side_and_settle_once(both):
    server, client, found = both
    server.tokens_per_second = 100.0
    before = await settled_tokens(found)
    _, _, came = await client.chat(question(102), n=4, seed=5, stream=True)
    choices = [each for event in came if event != "[DONE]" for each in event["choices"]]
    first_end = next(number for number, each in enumerate(choices) if each["finish_reason"])
    assert {each["index"] for each in choices[:first_end] if each["delta"].get("reasoning_content")} == set(range(4))
    for index in range(4):
        _, text, ends = put_together(came, index)
        assert "boxed" in text
        assert ends == ["stop"]
    first = [seen for seen in server.seen if json.loads(seen.content)["max_tokens"] != 30]
    used = sum(seen.tokens for seen in server.seen) + first[0].prompt_tokens
    assert await settled_tokens(found) - before == used


async def settled_tokens(found: Any) -> int:
    async with asyncio.timeout(30):
        while await found.opened.admission.ledger.num_open():
            await asyncio.sleep(0.02)
    counts = await found.opened.admission.ledger.counts(["tenant:one"])
    return next(each.settled for each in counts if each.window == "day")


def test_what_a_server_repeats_is_left_out_and_nothing_else():
    for pieces, expected in ((["<th", "ink>\nso"], "\nso"), (["<th", "at"], "<that"), (["so", "<think>"], "so<think>")):
        skip = Skipping("<think>")
        assert "".join(map(skip.feed, pieces)) + skip.rest() == expected
    skip = Skipping("<think>")
    assert skip.feed("<th") + skip.rest() == "<th"


def test_a_thought_without_tags_is_closed_by_words_that_the_client_sees():
    boxed = load_template("boxed")
    assert _closing(boxed, "so it is") == (boxed.answer_suffix, boxed.answer_suffix.lstrip("\n"))
    tagged = replace(load_template("think"))
    assert _closing(tagged, "so") == ("\n</think>\n\n", "")
    assert _closing(tagged, "so\n") == ("</think>\n\n", "")
