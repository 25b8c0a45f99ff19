"""Requests through a gateway on a real socket: what is set, said, counted and refused, and how each ends."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from pathlib import Path
from typing import Any

import pytest

from forethought.gateway.scripted import ScriptedServer
from forethought.servers.kinds import KINDS
from gateway_upstream import KEY, LEVELS, OTHER_KEY, Client, chat, question, saved_predictor, served, tenants_file

pytest.importorskip("uvicorn", reason="the extra `gateway` is not installed")


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved_predictor(tmp_path_factory.mktemp("predictor") / "text")


@pytest.fixture(scope="module")
def levels(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved_predictor(tmp_path_factory.mktemp("levels") / "text", LEVELS)


def quotas(tmp_path: Path, text: str) -> dict[str, Any]:
    ledger = f"sqlite:{tmp_path / 'ledger.db'}"
    return {"tenants": tenants_file(tmp_path / "tenants.toml", text), "ledger": ledger, "answer_room": 20}


ROOMY = '[tenants.one]\nkey_sha256 = "KEY"\ntokens_per_day = 100_000\n'


async def counted(found: Any, account: str = "tenant:one") -> tuple[int, int]:
    """`(settled tokens, open reservations)` of an account."""
    counts = await found.opened.admission.ledger.counts([account])
    day = next(count for count in counts if count.window == "day")
    return day.settled, day.reserved


async def settled(found: Any, num: int = 0) -> int:
    """Settled tokens of the tenant once nothing is open."""
    for _ in range(1000):
        tokens, reserved = await counted(found)
        if not reserved:
            return tokens
        await asyncio.sleep(0.02)
    raise AssertionError("a claim stays open")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_budget_is_set_kept_and_said(predictor, stream):
    async with ScriptedServer() as server, served(server.url, predictor) as found, Client(found.url) as client:
        status, headers, body = await client.chat(question(102), stream=stream)
        sent = json.loads(server.seen[-1].content)
    assert status == 200
    budget = int(headers["x-forethought-budget"])
    assert sent["thinking_token_budget"] == budget
    assert sent["max_completion_tokens"] == budget + 512
    assert 0 < float(headers["x-forethought-expected"]) <= 1
    assert int(headers["x-forethought-predicted"]) > 0
    assert headers["x-forethought-reason"].startswith("predicted")
    assert len(headers["x-forethought-id"]) == 32
    if not stream:
        assert int(headers["x-forethought-used"]) == body["usage"]["completion_tokens"]


async def test_usage_that_was_asked_for_here_is_taken_out_again(predictor):
    async with ScriptedServer() as server, served(server.url, predictor) as found, Client(found.url) as client:
        _, _, ours = await client.chat(question(101), stream=True)
        _, _, own = await client.chat(question(101), stream=True, stream_options={"include_usage": True})
        sent = [json.loads(seen.content) for seen in list(server.seen)[-2:]]
    assert all(body["stream_options"] == {"include_usage": True} for body in sent)
    assert ours[-1] == own[-1] == "[DONE]"
    assert own[-2]["choices"] == []
    assert all(event == "[DONE]" or event["choices"] for event in ours)
    assert len(ours) == len(own) - 1


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_what_was_used_is_settled_once(predictor, tmp_path, stream):
    settings = quotas(tmp_path, ROOMY)
    async with ScriptedServer() as server, served(server.url, predictor, **settings) as found:
        async with Client(found.url, KEY) as client:
            assert (await client.chat(question(102), stream=stream))[0] == 200
            assert (await client.chat(question(102), stream=stream, n=3))[0] == 200
        seen = list(server.seen)[-2:]
        assert await settled(found) == sum(each.prompt_tokens + each.tokens for each in seen)
        assert await found.opened.admission.ledger.num_open() == 0


async def test_tenants_are_known_by_key_and_none_goes_on_or_is_kept(predictor, tmp_path, monkeypatch, caplog):
    caplog.set_level("DEBUG")
    monkeypatch.setattr(logging.getLogger("vllm.forethought"), "propagate", True)
    monkeypatch.setenv("UPSTREAM_KEY", "sk-upstream-secret")
    how = {"upstream_key_env": "UPSTREAM_KEY", "log": str(tmp_path / "journal"), "keep_texts": True}
    settings = quotas(tmp_path, ROOMY) | how
    async with ScriptedServer(key="sk-upstream-secret") as server, served(server.url, predictor, **settings) as found:
        async with Client(found.url) as client:
            for key in ("", "ft-wrong", "sk-upstream-secret"):
                status, headers, body = await client.chat(question(1), key=key)
                assert (status, body["error"]["code"]) == (401, "invalid_api_key")
                assert headers["www-authenticate"] == "Bearer"
            before = server.num_requests
            assert (await client.chat(question(1), key=KEY))[0] == 200
            assert (await client.ask("/v1/models", headers={"x-api-key": KEY}))[0] == 200
        assert server.num_requests == before + 2
        for seen in server.seen:
            assert KEY not in str(seen.headers)
            assert seen.headers.get("authorization") in ("Bearer sk-upstream-secret",)
    kept = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())  # all is written by now
    assert question(1).encode() in kept
    for secret in (KEY, "ft-wrong", "sk-upstream-secret"):  # in the ledger, its log, the journal, what is logged
        assert secret not in kept.decode("latin-1") + caplog.text


async def test_tenants_are_known_by_a_header_that_stays_here(predictor, tmp_path):
    text = '[gateway]\nheader = "X-Team"\n[tenants.one]\nheader = "one"\ntokens_per_day = 100_000\n'
    async with ScriptedServer() as server, served(server.url, predictor, **quotas(tmp_path, text)) as found:
        async with Client(found.url) as client:
            for name, status in (("one", 200), ("two", 401), ("", 401)):
                answered = await client.ask("/v1/chat/completions", chat(question(1)), headers={"x-team": name})
                assert answered[0] == status
        assert await settled(found) > 0
        assert "x-team" not in server.seen[-1].headers


async def test_a_full_quota_refuses_before_anything_is_sent_and_says_when_to_come_again(predictor, tmp_path):
    text = '[tenants.one]\nkey_sha256 = "KEY"\ntokens_per_day = 700\n[tenants.two]\nkey_sha256 = "KEY2"\n'
    async with ScriptedServer() as server, served(server.url, predictor, **quotas(tmp_path, text)) as found:
        async with Client(found.url) as client:
            statuses = []
            for _ in range(12):
                status, headers, body = await client.chat(question(101), key=KEY, max_tokens=60)
                statuses.append(status)
            num_sent = server.num_requests
            status, headers, body = await client.chat(question(101), key=KEY, max_tokens=60)
            assert status == 429
            assert server.num_requests == num_sent
            assert 1 <= int(headers["retry-after"]) <= 86_400
            assert body["error"]["code"] == "quota_exceeded"
            assert (await client.chat(question(101), key=OTHER_KEY, max_tokens=60))[0] == 200
        assert statuses[0] == 200
        assert statuses[-1] == 429
        assert (await counted(found))[0] <= 700


async def test_a_burst_raises_the_price_and_shuts_no_door(predictor, tmp_path):
    settings = quotas(tmp_path, f"[gateway]\ntokens_per_hour = 30_000\n{ROOMY}")
    async with ScriptedServer() as server, served(server.url, predictor, **settings) as found:
        price = found.opened.admission.shared_price
        async with Client(found.url, KEY) as client, asyncio.timeout(20):
            answers = await asyncio.gather(*(client.chat(question(102)) for _ in range(30)))
            assert {status for status, _, _ in answers} == {200}
            while price.value <= 1.001 * price.law.first:
                await asyncio.sleep(0.05)


async def test_what_never_fits_says_so_and_names_no_time(predictor, tmp_path):
    text = '[tenants.one]\nkey_sha256 = "KEY"\ntokens_per_minute = 100\n'
    async with (
        ScriptedServer() as server,
        served(server.url, predictor, **quotas(tmp_path, text)) as found,
        Client(found.url, KEY) as client,
    ):
        status, headers, body = await client.chat(question(102))
    assert status == 429
    assert "retry-after" not in headers
    assert headers["x-should-retry"] == "false"
    assert "never fits" in body["error"]["message"]


async def test_a_request_is_decided_once_more_under_what_is_left(predictor, tmp_path):
    settings = quotas(tmp_path, '[tenants.one]\nkey_sha256 = "KEY"\ntokens_per_day = 490\n')
    async with ScriptedServer() as server, served(server.url, predictor, **settings) as found:
        async with Client(found.url, KEY) as client:
            status, headers, _ = await client.chat(question(102))
    assert status == 200
    assert "lowered to what is left" in headers["x-forethought-reason"]
    assert 16 <= int(headers["x-forethought-budget"]) < 64


async def test_a_ceiling_lowers_what_a_client_asks_itself(predictor, tmp_path):
    settings = quotas(tmp_path, '[tenants.one]\nkey_sha256 = "KEY"\nceiling = 32\n')
    async with ScriptedServer() as server, served(server.url, predictor, **settings) as found:
        async with Client(found.url, KEY) as client:
            _, own, _ = await client.chat(question(102), thinking_token_budget=20)
            _, lowered, _ = await client.chat(question(102), thinking_token_budget=60)
            _, ours, _ = await client.chat(question(102))
    assert own["x-forethought-budget"] == "20"
    assert lowered["x-forethought-budget"] == "32"
    assert int(ours["x-forethought-budget"]) <= 32


async def test_what_nothing_limits_is_a_wrong_request_under_a_quota(levels, tmp_path):
    async with ScriptedServer(kind=KINDS["openai"]) as server:
        settings = quotas(tmp_path, ROOMY) | {"server": "openai"}
        async with served(server.url, levels, **settings) as found, Client(found.url, KEY) as client:
            status, headers, said = await client.chat(question(102), reasoning_effort="low")
            assert (status, said["error"]["code"]) == (400, "limit_missing")
            assert "retry-after" not in headers
            assert server.num_requests == 0
            assert (await client.chat(question(102), reasoning_effort="low", max_completion_tokens=300))[0] == 200
            assert (await client.chat(question(102), max_completion_tokens=300))[0] == 200


CEILING = '[tenants.one]\nkey_sha256 = "KEY"\nceiling = 32\n'


async def test_no_way_leads_past_a_ceiling(predictor, tmp_path):
    async with ScriptedServer() as server, served(server.url, predictor, **quotas(tmp_path, CEILING)) as found:
        async with Client(found.url, KEY) as client:
            num_sent = server.num_requests
            for path, body, status, code in (
                ("/v1/responses", {"input": question(102)}, 403, "ceiling_not_kept"),
                ("/v1/chat/completions/", chat(question(102)), 403, "route_not_counted"),
                ("/v1/chat/completions", chat(question(102), thinking_token_budget="9000"), 400, "invalid_request"),
            ):
                answered, _, said = await client.ask(path, body)
                assert (answered, json.loads(said)["error"]["code"]) == (status, code)
            assert server.num_requests == num_sent
            assert (await client.ask("/v1/responses", {"input": question(102), "max_output_tokens": 32}))[0] == 200
            twice = json.dumps(chat(question(102), thinking_token_budget=20)).encode()
            twice = b'{"thinking_token_budget": 9000, ' + twice[1:]
            assert (await client.ask("/v1/chat/completions", twice))[0] == 200
            assert server.seen[-1].content.count(b"thinking_token_budget") == 1
            assert (await client.ask("/v1/embeddings", {"input": "x"}))[0] == 404  # the server's


async def test_in_the_shadow_nothing_is_refused_for_a_ceiling(predictor, tmp_path):
    settings = quotas(tmp_path, CEILING) | {"shadow": True}
    async with ScriptedServer() as server, served(server.url, predictor, **settings) as found:
        async with Client(found.url, KEY) as client:
            assert (await client.ask("/v1/responses", {"input": question(102)}))[0] == 200
            body = chat(question(102), max_tokens="9")
            assert b"must be a whole number" in (await client.ask("/v1/chat/completions", body))[2]  # the server's


async def test_models_that_a_tenant_may_not_ask_are_refused(predictor, tmp_path):
    settings = quotas(tmp_path, '[tenants.one]\nkey_sha256 = "KEY"\nmodels = ["scripted"]\n')
    async with ScriptedServer() as server, served(server.url, predictor, **settings) as found:
        async with Client(found.url, KEY) as client:
            assert (await client.chat(question(1)))[0] == 200
            num_sent = server.num_requests
            for body in ({"model": "other"}, {"models": ["scripted", "other"]}, {"model": None}):
                status, _, said = await client.chat(question(1), **body)
                assert (status, said["error"]["code"]) == (403, "model_not_allowed")
            assert (await client.ask("/v1/embeddings", {"model": "other", "input": "x"}))[0] == 403
        assert server.num_requests == num_sent


async def test_under_a_quota_nothing_is_generated_by_a_way_that_is_not_counted(predictor, tmp_path):
    async with ScriptedServer() as server, served(server.url, predictor, **quotas(tmp_path, ROOMY)) as found:
        async with Client(found.url, KEY) as client:
            num_sent = server.num_requests
            for path in ("/completion", "/slots", "/v1/../slots", "/v1/load_lora_adapter", "/V1/chat/completions"):
                status, _, content = await client.ask(path, chat(question(1)))
                assert (status, json.loads(content)["error"]["code"]) == (404, "route_not_offered")
            assert (await client.ask("/slots"))[0] == 404
            for path in ("/v1//chat/completions", "/v1/chat/completions/"):
                status, _, content = await client.ask(path, chat(question(1)))
                assert (status, json.loads(content)["error"]["code"]) == (403, "route_not_counted")
            assert server.num_requests == num_sent
            encoded = await client.ask("/v1/chat%2Fcompletions", chat(question(1)))
            assert "x-forethought-budget" in encoded[1]
            num_sent = server.num_requests
            for path in ("/v1/embeddings", "/v1/messages/count_tokens", "/v1/responses/input_tokens"):
                assert (await client.ask(path, {"input": "x"}))[0] == 404  # the server's own
            assert server.num_requests == num_sent + 3
            assert (await client.ask("/v1/messages/count_tokens", {"input": "x"}, key="ft-nobody"))[0] == 401


async def test_levels_go_out_in_the_fields_of_each_route(levels):
    async with ScriptedServer(kind=KINDS["openai"]) as server:
        async with served(server.url, levels, server="openai", price=1e-5) as found, Client(found.url) as client:
            _, headers, _ = await client.chat(question(102))
            assert headers["x-forethought-option"] == "high"
            assert json.loads(server.seen[-1].content)["reasoning_effort"] == "high"
            _, headers, content = await client.ask("/v1/responses", {"model": "scripted", "input": question(102)})
            assert headers["x-forethought-option"] == "high"
            assert json.loads(server.seen[-1].content)["reasoning"] == {"effort": "high"}
            usage = json.loads(content)["usage"]
            assert int(headers["x-forethought-used"]) == usage["output_tokens"]


ROUTES = {
    "responses": ("/v1/responses", {"input": question(102), "max_output_tokens": 200}),
    "messages": (
        "/v1/messages",
        {"messages": [{"role": "user", "content": question(102)}], "max_tokens": 200},
    ),
    "completions": ("/v1/completions", {"prompt": question(102), "max_tokens": 200}),
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("path", "body"), ROUTES.values(), ids=ROUTES.keys())
async def test_every_route_is_counted(predictor, tmp_path, path, body, stream):
    async with ScriptedServer() as server, served(server.url, predictor, **quotas(tmp_path, ROOMY)) as found:
        async with Client(found.url, KEY) as client:
            status, _, content = await client.ask(path, {"model": "scripted", "stream": stream, **body})
            assert status == 200, content
        seen = server.seen[-1]
        assert await settled(found) == seen.prompt_tokens + seen.tokens


async def test_in_the_shadow_nothing_is_changed(predictor, tmp_path):
    text = '[tenants.one]\nkey_sha256 = "KEY"\ntokens_per_minute = 10\n'
    settings = quotas(tmp_path, text) | {"shadow": True, "log": str(tmp_path / "journal")}
    async with ScriptedServer() as server, served(server.url, predictor, **settings) as found:
        async with Client(found.url, KEY) as client:
            body = json.dumps(chat(question(102), stream=True)).encode() + b"  "
            status, headers, content = await client.ask("/v1/chat/completions", body)
            assert server.seen[-1].content == body
            async with Client(server.url) as direct:
                _, _, own = await direct.ask("/v1/chat/completions", body)
        assert status == 200
        assert len(content) == pytest.approx(len(own), abs=40)  # but for the id
        assert "x-forethought-budget" not in headers
    (line,) = next((tmp_path / "journal").glob("requests-*.jsonl")).read_text().splitlines()  # all is written by now
    entry = json.loads(line)
    assert entry["is_shadow"] is True
    assert entry["budget"] > 0
    assert "would be refused" in entry["reason"]


# ------------------------------------------------------------------------------------------- endings

TROUBLES = {
    "an error before any token": ("status=500", 500, 0),
    "a redirect": ("status=307", 307, 0),
    "too many requests": ("status=429 retry_after=7", 429, 0),
    "a stream that breaks off": ("dies_after=3", None, None),
    "no word on usage": ("is_uncounted", 200, None),
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(("trouble", "expected", "tokens"), TROUBLES.values(), ids=TROUBLES.keys())
async def test_every_ending_is_settled_once(predictor, tmp_path, trouble, expected, tokens, stream):
    async with ScriptedServer() as server, served(server.url, predictor, **quotas(tmp_path, ROOMY)) as found:
        async with Client(found.url, KEY) as client:
            try:
                status, headers, _ = await client.ask(
                    "/v1/chat/completions", chat(f"{question(102)} [[{trouble}]]", stream=stream)
                )
            except Exception:
                status, headers = None, {}
        if expected is not None:
            assert status == expected
            if "retry_after" in trouble:
                assert headers["retry-after"] == "7"
        else:
            assert status == (None if stream else 502)
        used = await settled(found)
        seen = server.seen[-1]
        assert used == tokens if tokens is not None else used >= seen.prompt_tokens + seen.tokens > seen.prompt_tokens
        assert await found.opened.admission.ledger.num_open() == 0


async def test_a_client_that_leaves_is_settled_and_the_server_hears_of_it(predictor, tmp_path):
    async with ScriptedServer(tokens_per_second=20.0) as server:
        async with served(server.url, predictor, **quotas(tmp_path, ROOMY)) as found:
            async with Client(found.url, KEY) as client:
                assert client._session is not None
                body = json.dumps(chat(question(102), stream=True))
                response = await client._session.post(
                    f"{client.url}/v1/chat/completions", data=body, headers=client.headers
                )
                await response.content.readany()
                response.close()
            assert await settled(found) > 0
            await asyncio.sleep(0.2)
            so_far = server.seen[-1].tokens
            await asyncio.sleep(0.3)  # six tokens' time
            assert server.seen[-1].tokens == so_far
            assert not server.seen[-1].is_done


async def test_a_server_that_is_away_costs_nothing(predictor, tmp_path):
    async with ScriptedServer() as server:
        url = server.url
    async with served(url, predictor, server="vllm", **quotas(tmp_path, ROOMY)) as found:
        async with Client(found.url, KEY) as client:
            status, headers, body = await client.chat(question(102))
            assert status == 502
            assert "cannot be reached" in body["error"]["message"]
            assert "x-forethought-id" in headers
            assert (await client.ask("/v1/models"))[0] == 502
        assert await settled(found) == 0


async def test_the_first_token_is_not_held_back(predictor):
    async with ScriptedServer(tokens_per_second=4.0) as server, served(server.url, predictor) as found:
        async with Client(found.url) as client:
            assert client._session is not None
            body = json.dumps(chat(question(102), stream=True))
            async with client._session.post(f"{client.url}/v1/chat/completions", data=body) as response:
                await response.content.readany()
                assert not server.seen[-1].is_done


async def test_no_byte_of_a_reply_goes_out_before_its_reservation_is_on_disk(predictor, tmp_path):
    settings, may_sync = quotas(tmp_path, ROOMY) | {"server": "vllm"}, threading.Event()
    async with ScriptedServer() as server, served(server.url, predictor, **settings) as found:
        file = found.opened.admission.ledger._file
        sync, file.sync = file.sync, lambda: may_sync.wait(20) and sync()
        async with Client(found.url, KEY) as client:
            asking = asyncio.ensure_future(client.chat(question(102), stream=True))
            while not server.tokens_generated:  # the server answers meanwhile
                await asyncio.sleep(0.01)
            await asyncio.wait((asking,), timeout=0.3)
            assert not asking.done()
            may_sync.set()
            assert (await asking)[0] == 200


async def test_the_journal_has_a_line_for_each_request(predictor, tmp_path):
    settings = quotas(tmp_path, ROOMY) | {"log": str(tmp_path / "journal")}
    async with ScriptedServer() as server, served(server.url, predictor, **settings) as found:
        async with Client(found.url, KEY) as client:
            _, headers, _ = await client.chat(question(102))
            await client.chat(question(101), max_tokens="9")
    lines = next((tmp_path / "journal").glob("requests-*.jsonl")).read_text().splitlines()
    first, second = sorted(map(json.loads, lines), key=lambda entry: entry["status"])
    assert first["id"] == headers["x-forethought-id"]
    assert (first["tenant"], first["ending"], first["status"]) == ("one", "done", 200)
    assert first["settled"] == first["prompt_tokens"] + first["output_tokens"]
    assert (second["status"], second["ending"]) == (400, "refused")
    assert question(102) not in "".join(lines)
