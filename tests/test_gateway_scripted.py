"""The scripted server: what real servers' clients read of it, its curves, its troubles; and the load that it meets."""

import asyncio
import json

import numpy as np
import pytest

pytest.importorskip("httptools")

from forethought.core.menu import Menu
from forethought.gateway.scripted import (
    Asked,
    DrawnModel,
    MeasuredModel,
    ScriptedServer,
    Trouble,
    ask_chat,
    run_load,
)
from forethought.gateway.scripted.load import Answered, Clients
from forethought.servers.kinds import KINDS
from forethought.servers.replies import Reply
from forethought.servers.tokens import Usage

QUESTION = "How many apples are left?"


async def ask(server: ScriptedServer, asked: Asked) -> Answered:
    clients = Clients(server.url, is_read=True)
    try:
        return await clients.ask(asked)
    finally:
        clients.close()


def events(answered: Answered) -> list[dict]:
    lines = [line[6:] for line in answered.content.decode().split("\n") if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def parts_of(answered: Answered, stream: bool) -> list[dict]:
    return events(answered) if stream else [json.loads(answered.content)]


@pytest.mark.parametrize("kind", ["vllm", "sglang", "llama.cpp"])
async def test_a_cap_is_kept_under_each_servers_own_name(kind: str) -> None:
    async with ScriptedServer(kind=KINDS[kind]) as server:
        free = await ask(server, ask_chat(QUESTION))
        capped = await ask(server, ask_chat(QUESTION, **KINDS[kind].native(5)))
    long, short = (Reply.read(json.loads(each.content)) for each in (free, capped))
    assert len(short.reasoning.split()) == 5
    assert long.reasoning.startswith(short.reasoning.strip())
    assert Usage.read(short.usage).reasoning == 5
    assert [seen.tokens for seen in server.seen] == [Usage.read(each.usage).generated for each in (long, short)]
    assert server.tokens_generated == sum(seen.tokens for seen in server.seen)


async def test_efforts_lengthen_thoughts_and_unknown_ones_are_refused() -> None:
    async with ScriptedServer(kind=KINDS["openai"]) as server:
        lengths = []
        for effort in ("none", "low", "medium", "high"):
            body = json.loads((await ask(server, ask_chat(QUESTION, reasoning_effort=effort))).content)
            lengths.append(Usage.read(body["usage"]).reasoning or 0)
        refused = await ask(server, ask_chat(QUESTION, reasoning_effort="hgih"))
    assert lengths[0] == 0
    assert sorted(set(lengths)) == lengths
    assert refused.status == 400
    assert b"hgih" in refused.content


@pytest.mark.parametrize("room", [None, 3, 0])
async def test_a_stream_says_what_the_whole_reply_says(room: int | None) -> None:
    fields = {} if room is None else {"max_tokens": room}
    async with ScriptedServer() as server:
        whole = json.loads((await ask(server, ask_chat(QUESTION, seed=3, n=2, **fields))).content)
        parts = events(await ask(server, ask_chat(QUESTION, seed=3, n=2, stream=True, **fields)))
    for choice in whole["choices"]:
        own = [each for part in parts for each in part["choices"] if each["index"] == choice["index"]]
        for name in ("reasoning_content", "content"):
            assert "".join(each["delta"].get(name, "") for each in own) == choice["message"][name]
        assert own[-1]["finish_reason"] == choice["finish_reason"] == ("stop" if room is None else "length")
    assert parts[-1]["usage"] == whole["usage"]


@pytest.mark.parametrize("stream", [False, True])
async def test_two_calls_give_the_answer_of_one(stream: bool) -> None:
    """A thought of 6 tokens, closed by the client, is answered as one that the server itself cut at 6."""
    template = {"continue_final_message": True, "add_generation_prompt": False}
    async with ScriptedServer(thought_field="") as server:
        capped = json.loads((await ask(server, ask_chat(QUESTION, thinking_token_budget=6))).content)
        first = json.loads((await ask(server, ask_chat(QUESTION, max_tokens=6))).content)
        begun = first["choices"][0]["message"]["content"]
        turns = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": f"{begun}</think>\n\n"}]
        body = {"messages": turns, **template, "stream": stream}
        second = await ask(server, Asked(json.dumps(body).encode()))
        prompt = {"prompt": f"{QUESTION}\n{begun}", "thinking_token_budget": 6, "stream": stream}
        third = await ask(server, Asked(json.dumps(prompt).encode(), path="/completions"))
    answer = capped["choices"][0]["message"]["content"].rpartition("</think>")[2].strip()
    choices = [choice for part in parts_of(second, stream) for choice in part["choices"]]
    assert "".join(each.get("delta", each.get("message")).get("content", "") for each in choices).strip() == answer
    choices = [choice for part in parts_of(third, stream) for choice in part["choices"]]
    assert "".join(each["text"] for each in choices) == f"</think>\n\n{answer}"


@pytest.mark.parametrize("stream", [False, True])
async def test_responses_and_messages_have_their_own_fields(stream: bool) -> None:
    async with ScriptedServer() as server:
        body = {"input": QUESTION, "reasoning": {"effort": "low"}, "stream": stream}
        response = await ask(server, Asked(json.dumps(body).encode(), path="/responses"))
        turns = [{"role": "user", "content": [{"type": "text", "text": QUESTION}]}]
        body = {
            "messages": turns,
            "thinking": {"type": "enabled", "budget_tokens": 4},
            "max_tokens": 99,
            "stream": stream,
        }
        message = await ask(server, Asked(json.dumps(body).encode(), path="/messages"))
    done = events(response)[-1]["response"] if stream else json.loads(response.content)
    assert done["status"] == "completed"
    assert done["usage"]["output_tokens_details"]["reasoning_tokens"] == server.seen[0].tokens - 3
    if stream:
        parts = events(message)
        thought = "".join(part["delta"].get("thinking", "") for part in parts if part["type"] == "content_block_delta")
        assert parts[-2]["usage"]["output_tokens"] == 7
        assert [part["type"] for part in parts].count("content_block_stop") == 2
    else:
        thought = json.loads(message.content)["content"][0]["thinking"]
    assert len(thought.split()) == 4


async def test_drawn_answers_come_as_their_true_curve_says() -> None:
    model = DrawnModel(seed=2)
    menu = Menu.of([16, 64, 256])
    true = model.true_curves([QUESTION], menu)
    right = model.right_answer(QUESTION)
    for column, cap in enumerate(menu.caps):
        thoughts = [model.think(QUESTION, cap=cap, sample=sample) for sample in range(2000)]
        share = np.mean([thought.answer == right for thought in thoughts])
        assert share == pytest.approx(true.p_Q_B[0, column], abs=4 * 0.5 / 2000**0.5)


def test_a_measured_model_keeps_the_measured_curves() -> None:
    from forethought.control import sources

    profile = sources.shipped_heldout("qwen2.5-coder-1.5b")
    model = MeasuredModel(profile)
    rows = range(0, 400, 8)
    for column in (1, 5, 15):
        cap = profile.menu.caps[column]
        right, lengths = [], []
        for row in rows:
            question = profile.texts[row]
            thoughts = [model.think(question, cap=cap, sample=sample) for sample in range(40)]
            right += [thought.answer == model.right_answer(question) for thought in thoughts]
            lengths += [len(thought.words) for thought in thoughts]
        assert np.mean(right) == pytest.approx(np.mean([profile.curves.p_Q_B[row, column] for row in rows]), abs=0.05)
        expected = np.mean([profile.reasoning_Q_B[row, column] for row in rows])
        assert np.mean(lengths) == pytest.approx(expected, rel=0.06)


@pytest.mark.parametrize("by", ["header", "question"])
async def test_troubles_come_as_they_are_asked_for(by: str) -> None:
    async def met(server: ScriptedServer, trouble: str, **fields: object) -> Answered:
        question = QUESTION if by == "header" else f"{QUESTION} [[{trouble}]]"
        asked = ask_chat(question, **fields)
        return await ask(server, Asked(asked.body, headers={"x-scripted": trouble} if by == "header" else {}))

    async with ScriptedServer() as server:
        assert (await met(server, "status=500")).status == 500
        limited = await met(server, "status=429 retry_after=2")
        assert (limited.status, limited.headers["retry-after"]) == (429, "2")
        login = await met(server, "is_login")
        assert (login.status, login.headers["content-type"]) == (200, "text/html; charset=utf-8")
        slow = await met(server, "delay=0.05")
        assert slow.first_byte >= 0.05
        assert (await met(server, "dies_after=2")).status == 0
        cut = await met(server, "dies_after=2", stream=True)
        assert cut.status == 0
        assert len(events(cut)) == 3  # the role, and two tokens
        assert server.seen[-1].tokens == 2
        assert not server.seen[-1].is_done
        assert all("usage" not in part for part in events(await met(server, "is_uncounted", stream=True)))
        long = json.loads((await met(server, "thought=321", thinking_token_budget=8)).content)
        assert long["usage"]["completion_tokens_details"]["reasoning_tokens"] == 321
        assert (await met(server, "no-such=1")).status == 400
        assert (await met(server, "is_login=0")).status == 400


async def test_a_script_decides_for_a_test() -> None:
    statuses = iter([503, 200])
    async with ScriptedServer(script=lambda seen: Trouble(status=next(statuses))) as server:
        answers = [(await ask(server, ask_chat(QUESTION))).status for _ in range(2)]
    assert answers == [503, 200]


async def test_a_stream_keeps_its_pace_and_stops_with_its_client() -> None:
    async with ScriptedServer(tokens_per_second=100) as server:
        asked = Asked(ask_chat(QUESTION, stream=True).body, headers={"x-scripted": "thought=40"})
        answered = await ask(server, asked)
        assert 0.4 <= answered.last_byte < 10
        assert answered.first_byte < answered.last_byte / 2
        await ask(server, Asked(asked.body, headers={"x-scripted": "thought=4000"}, leave_after=0.3))
        await asyncio.sleep(0.1)
        count = server.tokens_generated
        await asyncio.sleep(0.1)
        assert server.tokens_generated == count
        assert 0 < server.seen[-1].tokens < 1000


async def test_other_routes_and_keys() -> None:
    async with ScriptedServer(name="toy", key="secret") as server:
        assert (await ask(server, ask_chat(QUESTION))).status == 401
        assert (await ask(server, ask_chat(QUESTION, key="secret"))).status == 200
        server.key = ""
        clients = Clients(server.url.removesuffix("/v1"))
        assert (await clients.ask(Asked(b'{"latency": 0.06}', path="/scripted/pace"))).status == 200
        clients.close()
        assert (await ask(server, ask_chat(QUESTION))).first_byte >= 0.06
        assert (await ask(server, Asked(b"[", path="/chat/completions"))).status == 400
        assert (await ask(server, Asked(b"{}", path="/elsewhere"))).status == 404


@pytest.mark.parametrize("rate", [None, 400.0])
async def test_load_counts_every_answer(rate: float | None) -> None:
    numbers: list[int] = []
    async with ScriptedServer() as server:
        result = await run_load(
            server.url,
            lambda number: ask_chat(f"{QUESTION} {number}", stream=number % 2 == 0),
            num_requests=100,
            rate=rate,
            num_clients=8,
            each=lambda number, answered: numbers.append(number),
        )
    assert sorted(numbers) == list(range(100))
    assert result.status == {200: 100}
    assert server.num_requests == 100
    assert len(result.last_byte_N) == 100
    assert (result.first_byte_N <= result.last_byte_N).all()
    if rate is not None:
        assert result.seconds > 0.5 * 100 / rate  # and not all at once


@pytest.mark.parametrize("rate", [None, 400.0])
async def test_what_a_load_finds_wrong_ends_it(rate: float | None) -> None:
    def each(number: int, answered: Answered) -> None:
        assert number < 5

    async with ScriptedServer() as server:
        with pytest.raises(ExceptionGroup) as raised:
            await run_load(server.url, lambda _: ask_chat(QUESTION), seconds=20.0, rate=rate, num_clients=2, each=each)
        assert raised.group_contains(AssertionError)
        await asyncio.sleep(0.1)  # for what is on its way already
        num = server.num_requests
        await asyncio.sleep(0.1)
        assert server.num_requests == num < 2000


async def test_load_of_nobody_there_counts_failures() -> None:
    result = await run_load("http://127.0.0.1:9/v1", lambda _: ask_chat(QUESTION), num_requests=3)
    assert result.status == {0: 3}
    assert result.to_json()["last_byte_ms"]["p99"] is None
