"""Faults that were found from outside, with curl and raw sockets: each test failed before its fault was mended."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from forethought.core.serve_settings import ServeSettings
from forethought.errors import EngineError, ForethoughtError
from forethought.gateway.admission import Admission, Grant
from forethought.gateway.beyond import IMAGE_TOKENS, beyond, runs_tools
from forethought.gateway.ledger.sqlite import SqliteLedger
from forethought.gateway.pipeline import Pipeline
from forethought.gateway.request import CHAT, TEXT, read
from forethought.gateway.scripted import ScriptedServer
from forethought.gateway.tenants import Tenant, Tenants
from forethought.gateway.used import Used
from forethought.gateway.windows import ALL, MINUTE
from forethought.runs.journal import read_entries
from forethought.servers.kinds import KINDS
from gateway_upstream import KEY, LEVELS, Client, chat, question, saved_predictor, served, tenants_file
from test_gateway_admission import Decided

pytest.importorskip("uvicorn", reason="the extra `gateway` is not installed")

QUOTA = '[tenants.one]\nkey_sha256 = "KEY"\ntokens_per_minute = 20_000\n'
USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
ANSWER = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "5"}, "finish_reason": "stop"}]}


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved_predictor(tmp_path_factory.mktemp("predictor") / "text")


@pytest.fixture(scope="module")
def levels(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved_predictor(tmp_path_factory.mktemp("levels") / "text", LEVELS)


def quotas(tmp_path: Path, text: str = QUOTA) -> dict[str, Any]:
    ledger = f"sqlite:{tmp_path / 'ledger.db'}"
    return {"tenants": tenants_file(tmp_path / "tenants.toml", text), "ledger": ledger, "answer_room": 20}


@contextlib.asynccontextmanager
async def answering(content: bytes, kind: str = "application/json") -> AsyncIterator[tuple[str, list[bytes]]]:
    """`(address of a server that answers everything so, the bodies that came)`."""
    bodies: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = [int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                bodies.append(await reader.readexactly(length[0] if length else 0))
                told = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {len(content)}\r\n\r\n"
                writer.write(told.encode() + content)
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1")
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", bodies


async def test_a_server_that_is_not_there_is_looked_into_with_a_command_that_exists(predictor: str) -> None:
    with pytest.raises(EngineError) as raised:
        async with served("http://127.0.0.1:9/v1", predictor):
            pass
    assert "forethought doctor --base-url http://127.0.0.1:9/v1" in str(raised.value)
    assert "--upstream" not in str(raised.value)


async def test_where_tenants_show_keys_none_is_said_to_go_on(predictor: str, tmp_path: Path) -> None:
    async with answering(b"{}") as (url, _):
        async with served(url, predictor, server="vllm", **quotas(tmp_path)) as found:
            assert found.opened.to_json()["key"] == "none"
        async with served(url, predictor, server="vllm") as found:
            assert found.opened.to_json()["key"] == "the client's"


async def test_one_odd_prompt_count_does_not_shut_out_every_later_request(tmp_path: Path) -> None:
    tenant = Tenant("one", quotas={MINUTE: 20_000})
    admission = Admission(Tenants([tenant]), SqliteLedger(tmp_path / "ledger.db"))
    try:
        for tokens in (60_000, 10**15):
            grant = await admission.admit(Tenant("big"), prompt_bytes=100, decision=Decided())
            assert isinstance(grant, Grant)
            await admission.settle(grant, Used(tokens, 0, 5, 200))
        assert isinstance(await admission.admit(tenant, prompt_bytes=100, decision=Decided()), Grant)
    finally:
        await admission.close()


IMAGE = {"type": "image_url", "image_url": {"url": "http://127.0.0.1/pear.png"}}
INLINE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 50_000}}


async def test_an_image_is_bounded_by_what_images_can_be_and_not_by_the_bytes_of_its_address(predictor, tmp_path):
    settings = quotas(tmp_path)
    async with ScriptedServer() as server, served(server.url, predictor, **settings) as found:
        async with Client(found.url, KEY) as client:
            for image, statuses in ((INLINE, [200]), (IMAGE, [200]), ([IMAGE, IMAGE], [429])):
                images = image if isinstance(image, list) else [image]
                content = [{"type": "text", "text": question(1)}, *images]
                status, _, _ = await client.ask("/v1/chat/completions", chat(content, max_tokens=30))
                assert [status] == statuses
        assert found.opened.admission.beyond(2, has_tools=False) == 2 * IMAGE_TOKENS


@pytest.mark.parametrize(
    ("body", "runs"),
    [
        ({"tools": [{"type": "function", "function": {}}, {"name": "client's, to Anthropic"}]}, False),
        ({"tools": [{"type": "web_search"}]}, True),
        ({"tools": [{"type": "function"}, {"type": "code_interpreter", "container": {}}]}, True),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, True),
        ({"web_search_options": {}}, True),
        ({"mcp_servers": [{"type": "url", "url": "https://a.example/mcp", "name": "a"}]}, True),
        ({"mcp_servers": []}, False),
        ({"plugins": [{"id": "web", "max_results": 5}]}, True),
        ({"model": "openai/o4:online"}, True),
        ({"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_data": "data:,"}}]}]}, True),
        ({"messages": [{"content": [{"type": "document", "source": {"type": "base64", "data": "AAAA"}}]}]}, True),
        ({"messages": [{"content": [{"type": "document", "source": {"type": "text", "data": "a"}}]}]}, False),
        ({"messages": [{"content": [{"type": "input_audio", "input_audio": {"data": "AAAA"}}]}]}, False),
        ({"input": [{"content": [{"video_url": {"url": "data:video/mp4;base64,AAAA"}}]}]}, True),
        ({"tools": "x"}, False),
        ({}, False),
    ],
)
def test_tools_that_the_server_runs_are_known(body, runs):
    assert runs_tools(body) == runs


async def test_bounds_of_images_and_tools_are_set_and_more_than_them_is_settled_and_seen(predictor, tmp_path):
    settings = quotas(tmp_path) | {"image_tokens": 500, "tool_tokens": 3_000}
    async with ScriptedServer() as server, served(server.url, predictor, **settings) as found:
        async with Client(found.url, KEY) as client:
            plain = found.opened.admission.prompt_bound(100)
            assert (
                found.opened.admission.prompt_bound(100, found.opened.admission.beyond(2, has_tools=True))
                == plain + 4_000
            )
            content = [{"type": "text", "text": question(1)}, IMAGE, IMAGE]
            assert (await client.ask("/v1/chat/completions", chat(content, max_tokens=30)))[0] == 200
            asked = {
                "model": "scripted",
                "input": question(1),
                "max_output_tokens": 30,
                "tools": [{"type": "web_search"}],
            }
            assert (await client.ask("/v1/responses", asked))[0] == 200
    usage = {"prompt_tokens": 9_000, "completion_tokens": 5, "total_tokens": 9_005}
    more = json.dumps(ANSWER | {"usage": usage}).encode()
    settings |= {"server": "vllm", "log": str(tmp_path / "journal")}
    async with answering(more) as (url, _), served(url, predictor, **settings) as found:
        async with Client(found.url, KEY) as client:
            content = [{"type": "text", "text": question(1)}, IMAGE]
            assert (await client.ask("/v1/chat/completions", chat(content, max_tokens=30)))[0] == 200
            async with asyncio.timeout(30):  # it is settled once the reply is out
                while b"forethought_over_bound_total 1.0" not in (await client.ask("/metrics"))[2]:
                    await asyncio.sleep(0.02)
        await found.opened.seen.journal.flush()
        counts = await found.opened.admission.ledger.counts(["tenant:one"])
        assert next(each.settled for each in counts if each.window == ALL) >= 9_005
    (entry,) = read_entries(tmp_path / "journal")
    assert (entry.settled, entry.bound < 9_005) == (9_005, True)


@pytest.mark.parametrize(
    "body",
    [
        {"input": "and then?", "previous_response_id": "resp_1"},
        {"input": "and then?", "conversation": {"id": "conv_1"}},
        {"input": [{"type": "item_reference", "id": "msg_1"}]},
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "file_1"}]}]},
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_url": "https://a.example/b.pdf"}]}]},
        {"prompt": {"id": "pmpt_1"}, "input": "go"},
    ],
)
async def test_what_only_the_server_can_count_is_refused_under_a_quota(predictor, tmp_path, body):
    async with ScriptedServer() as server, served(server.url, predictor, **quotas(tmp_path)) as found:
        async with Client(found.url, KEY) as client:
            before = server.num_requests
            status, _, said = await client.ask("/v1/responses", {"model": "scripted", "max_output_tokens": 9, **body})
        assert (status, json.loads(said)["error"]["code"]) == (403, "prompt_not_counted")
        assert server.num_requests == before


async def test_what_is_answered_later_counts_as_the_most_that_it_can_use(levels, tmp_path):
    queued = json.dumps({"id": "resp_1", "status": "queued", "output": [], "usage": None}).encode()
    asked = {"model": "scripted", "input": question(1), "max_output_tokens": 9_000, "background": True}
    async with answering(queued) as (url, _):
        async with served(url, levels, server="openai", **quotas(tmp_path)) as found, Client(found.url, KEY) as client:
            assert (await client.ask("/v1/responses", asked))[0] == 200
            while await found.opened.admission.ledger.num_open():
                await asyncio.sleep(0.02)
            counts = await found.opened.admission.ledger.counts(["tenant:one"])
    assert next(each.settled for each in counts if each.window == ALL) > 9_000


def test_texts_that_name_addresses_are_no_files() -> None:
    call = {"type": "tool_use", "id": "t", "name": "open", "input": {"url": "https://a.example", "file_id": "7"}}
    cited = {"type": "output_text", "text": "x", "annotations": [{"type": "url_citation", "url": "https://a.example"}]}
    inline = {"type": "document", "source": {"type": "base64", "data": "AAAA"}}
    turns = [{"role": "assistant", "content": [call, cited]}, {"role": "user", "content": [inline, "x", None, 7]}]
    assert beyond({"messages": turns, "input": [[{}]], "system": {}}) == (0, 0, "")
    deep: list[Any] = []
    for _ in range(5_000):
        deep = [deep]
    assert beyond({"messages": deep}) == (0, 0, "")


def test_parts_without_a_type_are_what_their_field_says() -> None:
    """vLLM reads them so."""
    image, film = {"image_url": "http://a.example/pear.png"}, {"video_url": {"url": "http://a.example/pears.mp4"}}
    assert beyond({"messages": [{"role": "user", "content": [image, image]}]})[0] == 2
    assert beyond({"messages": [{"role": "user", "content": [film]}]})[2] == "url"


def test_prompts_that_are_given_as_embeddings_are_answered_each() -> None:
    found = read(TEXT, {"prompt_embeds": ["AAAA"] * 5}, kind=KINDS["vllm"], template=None, models=(), start=None)
    assert found is not None
    assert found.num_thoughts >= 5


@pytest.mark.parametrize(
    "body",
    [
        json.dumps(chat("中" * 100, max_tokens=9), ensure_ascii=False).encode("utf-16"),  # more tokens than bytes
        json.dumps(chat(question(1), max_tokens=0)).encode(),  # no limit, to some
        json.dumps(chat(question(1), max_tokens=9, MAX_TOKENS=9_000)).encode(),  # the last counts, to servers in Go
        json.dumps(chat(question(1), **{"max_to\u212aens": 9_000})).encode(),
        json.dumps(chat(question(1), N=50)).encode(),
    ],
    ids=["UTF-16", "a limit of nothing", "capitals", "the sign of Kelvin", "a number in capitals"],
)
async def test_what_some_servers_read_otherwise_is_refused_under_a_quota(predictor, tmp_path, body):
    async with ScriptedServer() as server, served(server.url, predictor, **quotas(tmp_path)) as found:
        async with Client(found.url, KEY) as client:
            before = server.num_requests
            status, _, said = await client.ask("/v1/chat/completions", body)
            assert (status, json.loads(said)["error"]["code"]) == (400, "invalid_request")
            assert server.num_requests == before
            marked = b"\xef\xbb\xbf" + json.dumps(chat(question(1), topK=9)).encode()
            assert (await client.ask("/v1/chat/completions", marked))[0] == 200


@pytest.mark.parametrize(
    "fields",
    [
        *({"Model": "dear"}, {"preset": "dear"}, {"lora_path": "dear"}, {"MODELS": ["dear"]}),
        *({"input_file_id": "file-1"}, {"requests": [{"params": {"model": "dear"}}]}),
    ],
)
async def test_no_other_field_names_another_model(predictor, tmp_path, fields):
    text = '[tenants.one]\nkey_sha256 = "KEY"\nmodels = ["scripted"]\n'
    async with ScriptedServer() as server, served(server.url, predictor, **quotas(tmp_path, text)) as found:
        async with Client(found.url, KEY) as client:
            before = server.num_requests
            for path in ("/v1/chat/completions", "/v1/embeddings", "/v1/batches"):
                assert (await client.ask(path, chat(question(1), **fields)))[0] in (400, 403)
            assert server.num_requests == before


@pytest.mark.parametrize("fields", [{"n": 100_000}, {"n": 1 << 40}])
async def test_more_answers_than_are_reserved_are_not_asked_for(predictor, tmp_path, fields):
    text = '[tenants.one]\nkey_sha256 = "KEY"\ntokens_per_minute = 100_000_000\n'
    async with ScriptedServer() as server, served(server.url, predictor, **quotas(tmp_path, text)) as found:
        async with Client(found.url, KEY) as client:
            before = server.num_requests
            assert (await client.chat(question(1), max_tokens=1, **fields))[0] == 400
        assert server.num_requests == before


def test_llama_cpp_s_own_names_of_number_and_limit_are_known() -> None:
    kind, body = KINDS["llama.cpp"], {"messages": [{"role": "user", "content": "2 + 2?"}]}
    how: dict[str, Any] = {"kind": kind, "template": None, "models": (), "start": None}
    several = read(CHAT, body | {"n_cmpl": 8}, **how)
    assert several is not None
    assert several.num_thoughts == 8
    limited = read(CHAT, body | {"max_completion_tokens": 30}, **how)  # older ones know `max_tokens` alone
    assert limited is not None
    assert limited.own_room == 30
    assert set(limited.room_fields) == {"max_completion_tokens", "max_tokens"}


async def test_a_model_that_is_named_twice_is_the_allowed_one_for_the_server_too(predictor, tmp_path):
    text = '[tenants.one]\nkey_sha256 = "KEY"\nmodels = ["scripted"]\n'
    twice = b'{"model": "dear", "input": "x", "prompt": "x", "max_tokens": %b, "model": "scripted"}'
    async with answering(json.dumps(ANSWER).encode()) as (url, bodies):
        async with served(url, predictor, server="vllm", **quotas(tmp_path, text)) as found:
            async with Client(found.url, KEY) as client:
                # A limit as text is none to the gateway, and is one to some servers.
                for path, limit in (("/v1/completions", b"2"), ("/v1/completions", b'"2"'), ("/v1/embeddings", b"2")):
                    assert (await client.ask(path, twice % limit))[0] == 200
                    assert b"dear" not in bodies[-1]
                    assert json.loads(bodies[-1])["model"] == "scripted"


PAGE = {"origin": "https://page.example", "sec-fetch-site": "cross-site"}
TYPED, BEARING = {"content-type": "application/json"}, {"authorization": "Bearer sk-of-the-page"}
SITES = {  # headers, whether it is answered, and whether it is where requests go on with the operator's key
    "no browser": ({"content-type": "application/x-www-form-urlencoded"}, True, True),
    "a page of another site, without being asked": (PAGE | {"content-type": "text/plain;charset=UTF-8"}, False, False),
    "a page that says no kind": (PAGE, False, False),
    "a page in a frame without an origin": (PAGE | {"origin": "null"}, False, False),
    "a page in an old browser": ({"origin": "http://page.example"}, False, False),
    "a page that the server's CORS let in": (PAGE | TYPED, True, False),
    "a page that shows a key": (PAGE | BEARING, True, False),
    "a name that points here": ({"origin": "http://a.example:8100", "host": "a.example:8100", **TYPED}, True, False),
    "a page of this machine": ({"origin": "http://localhost:3000", "sec-fetch-site": "cross-site"}, True, True),
    "its own page": ({"origin": "http://[::1]:8100", "sec-fetch-site": "same-origin"}, True, True),
    "a page behind the same proxy": ({"origin": "https://a.example", "sec-fetch-site": "same-origin"}, True, True),
    "a page of the same site": ({"origin": "https://b.a.example", "sec-fetch-site": "same-site"}, True, True),
    "a program with a page": (PAGE | {"origin": "vscode-webview://1a"}, True, True),
    "no origin that there can be": (PAGE | {"origin": "http://[::1"}, False, False),
}


@pytest.mark.parametrize("has_key", [False, True], ids=["no key", "a key"])
async def test_a_page_of_another_site_asks_nothing_where_no_key_is_asked_for(predictor, monkeypatch, has_key):
    monkeypatch.setenv("UPSTREAM_KEY", "sk-upstream-secret")
    how = {"upstream_key_env": "UPSTREAM_KEY"} if has_key else {}
    async with ScriptedServer() as server, served(server.url, predictor, **how) as found, Client(found.url) as client:
        assert client._session is not None
        for name, (headers, *answered) in SITES.items():
            before = server.num_requests
            for path in ("/v1/chat/completions", "/v1/embeddings"):
                async with client._session.post(
                    client.url + path,
                    data=json.dumps(chat(question(1))),
                    headers=headers,
                    skip_auto_headers=["content-type"],
                ) as reply:
                    if not answered[has_key]:
                        assert (reply.status, (await reply.json())["error"]["code"]) == (403, "cross_site"), name
            assert server.num_requests - before == 2 * answered[has_key], name
            is_read = answered[True] or not has_key  # with the operator's key a page could read all that lies there
            assert (await client.ask("/v1/models", headers=headers))[0] == (200 if is_read else 403), name


async def test_tenants_change_nothing_that_is_everybodys(predictor, tmp_path):
    text = '[tenants.one]\nkey_sha256 = "KEY"\n'
    async with ScriptedServer() as server, served(server.url, predictor, **quotas(tmp_path, text)) as found:
        async with Client(found.url, KEY) as client:
            before = server.num_requests
            for method in ("DELETE", "PUT", "PATCH", "PURGE"):
                for path in ("/v1/models/ours", "/v1/files/file_1", "/v1/chat/completions"):
                    status, _, said = await client.ask(path, method=method)
                    assert (status, json.loads(said)["error"]["code"]) == (404, "route_not_offered")
            assert server.num_requests == before
            assert (await client.ask("/v1/models"))[0] == 200
    async with ScriptedServer() as server, served(server.url, predictor) as found, Client(found.url) as client:
        await client.ask("/v1/models/ours", method="DELETE")
        assert server.seen[-1].method == "DELETE"


def test_the_document_has_every_code_of_a_refusal() -> None:
    """A call that raises or sends an error ends in its code, or has the default one."""
    root = Path(__file__).parents[1]
    code = re.compile(r'"([a-z]+(?:_[a-z]+)*)"')
    raised = re.compile(r"(?:Refused|Gateway|Upstream)Error\(|send_error\(|self\._refuse\(b")
    found = {"invalid_request", "upstream_failed"}  # what is meant where none is said
    for file in (root / "src/forethought/gateway").rglob("*.py"):
        if file.name not in ("page.py", "failing.py", "asgi.py", "litellm.py"):
            for line in file.read_text().splitlines():
                if raised.search(line):
                    found |= {name for name in code.findall(line.replace('b"', '"')) if name != "retry"}
    documented = set(re.findall(r"^\| \d{3} \| `(\w+)` \|", (root / "docs/gateway.md").read_text(), re.MULTILINE))
    assert documented == found


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("content", "kind"),
    [(b"<html>log in</html>", "text/html"), (b"{}", "application/json"), (b"data: {}\n\n", "text/event-stream")],
)
async def test_two_calls_make_no_answer_of_what_is_none(predictor, stream, content, kind):
    async with answering(content, kind) as (url, _):
        async with served(url, predictor, server="llama.cpp", enforce="two-call") as found, Client(found.url) as client:
            try:
                status, _, body = await client.ask("/v1/chat/completions", chat(question(1), stream=stream))
            except aiohttp.ClientError:  # the head was out: the stream breaks off
                assert (stream, kind) == (True, "text/event-stream")
            else:
                assert status == 502
                assert b"no chat completion" in body


async def test_two_calls_read_events_of_several_lines(predictor):
    event = json.dumps({"choices": [{"index": 0, "delta": {"content": "17 times"}}], "usage": USAGE}, indent=1)
    content = f"\ufeff: hello\r\ndata: {event}\r\n\r\n".replace("\n ", "\ndata:  ").replace("\n}", "\ndata: }").encode()
    async with answering(content, "text/event-stream") as (url, _):
        async with served(url, predictor, server="llama.cpp", enforce="two-call") as found, Client(found.url) as client:
            status, _, body = await client.ask("/v1/chat/completions", chat(question(1), stream=True))
            assert (status, body.count(b"17 times")) == (200, 2)


async def test_two_calls_make_no_answer_of_a_stream_that_ends_with_an_error(predictor):
    begun = {"choices": [{"index": 0, "delta": {"content": "17 times"}, "finish_reason": None}]}
    content = b"".join(b"data: %b\n\n" % json.dumps(each).encode() for each in (begun, {"error": {"message": "died"}}))
    async with answering(content + b"data: [DONE]\n\n", "text/event-stream") as (url, bodies):
        async with served(url, predictor, server="llama.cpp", enforce="two-call") as found, Client(found.url) as client:
            with pytest.raises(aiohttp.ClientError):
                await client.chat(question(1), stream=True)
            assert len(bodies) == 1


async def test_two_calls_keep_the_cap_and_the_limit_whatever_the_client_names_beside_them(predictor):
    async with answering(json.dumps(ANSWER | {"usage": USAGE}).encode()) as (url, bodies):
        async with served(url, predictor, server="llama.cpp", enforce="two-call") as found, Client(found.url) as client:
            assert (await client.chat(question(1), n_predict=5_000, n_cmpl=1, stream=0))[0] == 200
            assert len(bodies) == 2
            for body in map(json.loads, bodies):
                assert not {"n_predict", "n_cmpl"} & set(body)
                assert body["stream"] is False
            status, _, said = await client.chat(question(1), max_tokens=0)
            assert (status, said["error"]["message"]) == (400, "max_tokens must be at least 1")
            assert len(bodies) == 2


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"upstream": "http://[::1/v1"}, "--upstream must look like"),
        ({"upstream": f"http://{'a' * 80}/v1"}, "--upstream must look like"),
        ({"ledger": "sqlite:"}, "the ledger needs a file"),
        ({"ledger": "sqlite:/"}, "the ledger needs a file"),
        ({"host": "a" * 80, "admin_key_env": "PATH"}, "is no name of a host"),
        ({"price": float("inf")}, "--price must be at least 0, not inf"),
        ({"price": 1e308}, "--price is in right answers per token, so at most 1, not 1e+308"),
        ({"timeout_seconds": float("inf")}, "--timeout must be at least 1, not inf"),
    ],
)
async def test_a_wrong_flag_is_one_sentence(predictor, tmp_path, settings, problem):
    given = {"upstream": "http://127.0.0.1:9/v1", "server": "vllm", **quotas(tmp_path), **settings}
    with pytest.raises(ForethoughtError, match=re.escape(problem)):
        async with served(given.pop("upstream"), predictor, **given):
            pass


async def test_a_name_of_the_upstream_may_have_letters_of_any_language(predictor):
    async with served("http://b\u00fccher.invalid/v1", predictor, server="vllm") as found, Client(found.url) as client:
        assert (await client.chat(question(1)))[0] == 502


@pytest.mark.parametrize("stream", ["true", 1, "false", []])
async def test_under_a_quota_it_is_known_whether_a_reply_is_a_stream(predictor, tmp_path, stream):
    async with (
        ScriptedServer() as server,
        served(server.url, predictor, server="vllm", **quotas(tmp_path)) as found,
        Client(found.url, KEY) as client,
    ):
        assert (await client.ask("/v1/chat/completions", chat(question(1), stream=stream)))[0] == 400
        assert server.num_requests == 0


@pytest.mark.parametrize("told", [{"include_usage": "false"}, {"include_usage": 1}, [1], "x"])
async def test_no_stream_gets_by_without_its_usage(predictor, tmp_path, told):
    """Some servers take "false" for false, which looks like something that is set."""
    async with (
        ScriptedServer() as server,
        served(server.url, predictor, server="vllm", **quotas(tmp_path)) as found,
        Client(found.url, KEY) as client,
    ):
        status, _, _ = await client.chat(question(1), stream=True, stream_options=told)
        assert status == 200
        assert server.seen[-1].body["stream_options"] == {"include_usage": True}


async def test_a_long_body_is_no_long_head_of_the_request_behind_it(predictor):
    body = json.dumps(chat("x " * 40_000, max_tokens=9)).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n" % len(body)
    async with ScriptedServer() as server, served(server.url, predictor, server="vllm") as found:
        port = int(found.url.rpartition(":")[2].partition("/")[0])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head + b"\r\n" + body + head)
        await asyncio.sleep(0.3)
        writer.write(b"connection: close\r\n\r\n" + body)
        came = await asyncio.wait_for(reader.read(), 10)
        writer.close()
    assert came.count(b"HTTP/1.1 200 OK") == 2


async def test_a_fault_of_the_gateway_leaves_nothing_reserved_and_nothing_open(predictor, tmp_path, monkeypatch):
    def broken(*_: Any) -> Any:
        raise RuntimeError("a mistake")

    async with (
        ScriptedServer() as server,
        served(server.url, predictor, server="vllm", **quotas(tmp_path)) as found,
        Client(found.url, KEY) as client,
    ):
        for name in ("_onward", "decide"):
            with monkeypatch.context() as patched:
                patched.setattr(Pipeline, name, broken)
                status, _, content = await client.chat(question(1))
                assert (status, content["error"]["code"]) == (500, "internal_error")
        counts = await found.opened.admission.counts()
        assert not any(count.settled or count.reserved or count.bound for count in counts)
        assert found.opened.seen.totals.num_open == 0
        assert (await client.chat(question(1)))[0] == 200


async def connected(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2].partition("/")[0]))


async def test_a_head_that_comes_in_one_read_is_bounded_too(predictor):
    async with ScriptedServer() as server, served(server.url, predictor, server="vllm") as found:
        reader, writer = await connected(found.url)
        writer.write(b"GET /v1/models HTTP/1.1\r\nhost: a\r\nx-a: " + b"a" * 100_000 + b"\r\n\r\n")
        assert b" 431 " in await asyncio.wait_for(reader.readline(), 10)
        writer.close()


@pytest.mark.parametrize("rest", [b"{}", b"x"], ids=["ends", "goes on"])
async def test_a_body_behind_its_refusal_does_not_hold_the_connection_for_ever(predictor, tmp_path, monkeypatch, rest):
    for name in ("HEADER_SECONDS", "KEPT_SECONDS"):
        monkeypatch.setattr(f"forethought.gateway.hosts.upstream.server.{name}", 0.3)
    async with (
        ScriptedServer() as server,
        served(server.url, predictor, server="vllm", **quotas(tmp_path)) as found,
        asyncio.timeout(10),
    ):
        reader, writer = await connected(found.url)
        length = 2 if rest == b"{}" else 10**9
        writer.write(b"POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % length)
        assert b" 401 " in await reader.readuntil(b"}}")
        writer.write(rest)
        with contextlib.suppress(OSError):
            while not reader.at_eof():
                await asyncio.wait([closed := asyncio.ensure_future(reader.read(1))], timeout=0.05)
                if closed.done():
                    break
                closed.cancel()
                if rest == b"x":
                    writer.write(rest)
        writer.close()


async def test_a_key_that_is_no_secret_may_stand_in_an_answer(predictor, monkeypatch):
    monkeypatch.setenv("UPSTREAM_KEY", "EMPTY")
    content = json.dumps({**ANSWER, "usage": USAGE, "note": "EMPTY"}).encode()
    async with (
        answering(content) as (url, _),
        served(url, predictor, server="vllm", upstream_key_env="UPSTREAM_KEY") as found,
        Client(found.url) as client,
    ):
        assert (await client.chat(question(1)))[0] == 200


async def test_no_number_of_a_client_breaks_the_page_or_takes_its_rows(predictor):
    async with (
        ScriptedServer() as server,
        served(server.url, predictor, server="vllm") as found,
        Client(found.url) as client,
    ):
        for cap in (10**400, *range(1_000, 1_110)):
            await client.chat(question(1), thinking_token_budget=cap, max_tokens=30)
        await client.chat(question(1))
        assert (await client.ask("/metrics"))[0] == 200
        status, _, content = await client.ask("/forethought/state")
        assert status == 200
        labels = {each["label"]: each["requests"] for each in json.loads(content)["options"]}
        assert labels.pop("other") == 10
        assert [label for label in labels if int(label) < 1_000] == ["32"]
        assert len(labels) == 101


@contextlib.asynccontextmanager
async def dropping(*, goes_away: bool) -> AsyncIterator[tuple[str, list[bytes]]]:
    """`(address, bodies)` of a server that answers after a while, and drops the connection of what holds "poison"."""
    bodies: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(line[15:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
                bodies.append(await reader.readexactly(int(length)))
                if b"poison" in bodies[-1]:
                    if goes_away:
                        server.close()
                    break
                await asyncio.sleep(0.2)
                content = json.dumps({**ANSWER, "usage": USAGE}).encode()
                told = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
                writer.write(told % len(content) + content)
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1")
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", bodies
    finally:
        server.close()


async def test_a_request_that_makes_the_server_fall_is_not_sent_again(predictor):
    """Every kept connection was tried, one after the other; what was generated before the fall would be paid again."""
    async with (
        dropping(goes_away=False) as (url, bodies),
        served(url, predictor, server="vllm") as found,
        Client(found.url) as client,
    ):
        await asyncio.gather(*(client.chat(question(1)) for _ in range(8)))
        assert (await client.chat("poison"))[0] == 502
    assert sum(b"poison" in body for body in bodies) == 1


async def test_a_request_that_was_lost_with_the_server_is_not_settled_to_nothing(predictor, tmp_path):
    settings = quotas(tmp_path) | {"log": str(tmp_path / "journal")}
    async with (
        dropping(goes_away=True) as (url, _),
        served(url, predictor, server="vllm", **settings) as found,
        Client(found.url, KEY) as client,
    ):
        assert (await client.chat(question(1)))[0] == 200
        assert (await client.chat("poison"))[0] == 502
        await found.opened.seen.journal.flush()
    *_, last = read_entries(tmp_path / "journal")
    assert last.settled == last.reserved


async def test_trailers_without_an_end_are_not_kept(predictor):
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n")
        with contextlib.suppress(OSError):
            while True:
                writer.write(b"x-a: " + b"a" * 1000 + b"\r\n")
                await writer.drain()
                await asyncio.sleep(0.001)
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1") as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        async with served(url, predictor, server="vllm") as found, Client(found.url) as client:
            with pytest.raises(aiohttp.ClientPayloadError):
                await asyncio.wait_for(client.ask("/other"), 10)


@pytest.fixture
def litellm(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The hook's module, with the two names of LiteLLM's that it stands on; test_gateway_litellm.py has all of it."""
    names = {"fastapi": {"HTTPException": Exception}, "litellm.integrations.custom_logger": {"CustomLogger": object}}
    for name in ("fastapi", "litellm", "litellm.integrations", "litellm.integrations.custom_logger"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(**names.get(name, {})))
    monkeypatch.delitem(sys.modules, "forethought.gateway.hosts.litellm", raising=False)
    yield importlib.import_module("forethought.gateway.hosts.litellm")
    del sys.modules["forethought.gateway.hosts.litellm"]


async def test_a_route_of_litellms_that_is_not_counted_is_refused_to_a_tenant_with_limits(litellm, predictor, tmp_path):
    text = '[gateway]\nheader = "x-team"\n[tenants.one]\nheader = "one"\ntokens_per_day = 100_000\n[tenants.two]\n'
    text += 'header = "two"\nceiling = 32\n[tenants.free]\nheader = "free"\n'
    text += '[tenants.named]\nheader = "named"\nmodels = ["m"]\n'
    settings = ServeSettings(
        upstream=litellm.UPSTREAM, predictor=predictor, price=0.001, server="vllm", **quotas(tmp_path, text)
    )
    hook = litellm.Hook(settings)

    async def asked(team: str, call_type: str) -> Any:
        came = {"model": "other", "proxy_server_request": {"headers": {"x-team": team}}}
        return await hook.async_pre_call_hook(SimpleNamespace(), None, {"input": "hi", **came}, call_type)

    for call_type in ("aresponses", "anthropic_messages", "pass_through_endpoint"):
        for team, words in (("one", "a quota"), ("two", "a ceiling"), ("named", "may not ask"), ("else", "no tenant")):
            with pytest.raises(Exception, match=words):
                await asked(team, call_type)
        assert await asked("free", call_type) is None
    assert await asked("one", "aembedding") is None
    await hook.close()


async def test_no_request_in_litellm_is_lost_or_settled_to_nothing(litellm, predictor, tmp_path, monkeypatch):
    """LiteLLM says that a client went away as an error with status 499; and clients may give two requests one name."""
    text = '[gateway]\nheader = "x-team"\n[tenants.one]\nheader = "one"\ntokens_per_day = 100_000\n'
    settings = ServeSettings(
        upstream=litellm.UPSTREAM, predictor=predictor, price=0.001, server="vllm", **quotas(tmp_path, text)
    )
    hook, user = litellm.Hook(settings), SimpleNamespace()
    opened, _ = await hook.opened()

    async def begun(name: str) -> dict[str, Any]:
        came = {"litellm_call_id": name, "proxy_server_request": {"headers": {"x-team": "one"}}}
        return await hook.async_pre_call_hook(user, None, chat(question(1)) | came, "acompletion")

    async def counted() -> tuple[int, int]:
        counts = [each for each in await opened.admission.counts() if (each.account, each.window) == ("gateway", ALL)]
        return counts[0].settled, counts[0].reserved

    left = Exception("Client disconnected")
    left.status_code = 499
    asked = await begun("a")
    _, reserved = await counted()
    await hook.async_post_call_failure_hook(asked, left, user)
    assert await counted() == (reserved, 0)
    for each in (await begun("b"), await begun("b")):
        await hook.async_post_call_success_hook(each, user, {**ANSWER, "usage": USAGE})
    assert await counted() == (2 * reserved + 15, 0)
    await begun("c")
    monkeypatch.setattr(litellm, "LOST_SECONDS", 0.0)
    await begun("d")
    assert await opened.admission.ledger.num_open() == 1
    assert (await counted())[0] > 2 * reserved + 15
    await hook.close()
