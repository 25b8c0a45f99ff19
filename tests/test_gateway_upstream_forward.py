"""What passes through the gateway as it is, and what a server behind it may send: bytes, headers, endings, garbage."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import json
import selectors
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forethought.gateway import incoming
from forethought.gateway.hosts.upstream.client import Exchange, Upstream
from forethought.gateway.scripted import ScriptedServer
from gateway_upstream import KEY, Client, chat, events, question, saved_predictor, served, tenants_file

pytest.importorskip("uvicorn", reason="the extra `gateway` is not installed")

SECRET = "sk-upstream-secret-0123456789"
Answer = Callable[[bytes, bytes, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved_predictor(tmp_path_factory.mktemp("predictor") / "text")


@contextlib.asynccontextmanager
async def raw_server(answer: Answer) -> AsyncIterator[str]:
    """A server that reads a request, head and body, and writes whatever `answer` writes."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = await _body(head, reader)
                await answer(head, body, writer)
                await writer.drain()
                if writer.is_closing():
                    break
        with contextlib.suppress(OSError):
            writer.close()
            await writer.wait_closed()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()


async def _body(head: bytes, reader: asyncio.StreamReader) -> bytes:
    lines = [line.partition(b":") for line in head.lower().split(b"\r\n")[1:]]
    headers = {name.strip(): value.strip() for name, _, value in lines}
    if headers.get(b"transfer-encoding") == b"chunked":
        found = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            found += await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readexactly(2)
        return found
    return await reader.readexactly(int(headers.get(b"content-length", b"0")))


async def raw_ask(url: str, content: bytes, seconds: float = 30.0) -> bytes:
    """All bytes that come back on one connection."""
    host, port = url.removeprefix("http://").split("/")[0].split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(content)
    try:
        async with asyncio.timeout(seconds):
            return await reader.read(-1)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@pytest.fixture
async def echo(predictor: str) -> AsyncIterator[tuple[Client, list[tuple[bytes, bytes]], list[bytes]]]:
    """`(client of a gateway, requests as the server saw them, the reply that it gives next)`."""
    seen: list[tuple[bytes, bytes]] = []
    reply: list[bytes] = []

    async def answer(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        seen.append((head, body))
        for piece in reply:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)

    async with raw_server(answer) as url, served(url, predictor, server="vllm") as found, Client(found.url) as client:
        yield client, seen, reply


METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
TOKENS = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=12).map(lambda text: f"x-own-{text}")
VALUES = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=30)


@settings(max_examples=60)
@given(
    method=st.sampled_from(METHODS),
    path=st.from_regex(r"(/[a-zA-Z0-9._~%-]{0,3}[a-zA-Z0-9~-]){1,3}", fullmatch=True).filter(lambda p: "%" not in p),
    query=st.from_regex(r"[a-zA-Z0-9=&%+.,:;/?-]{0,20}", fullmatch=True),
    body=st.binary(max_size=300),
    answer=st.binary(max_size=300),
    headers=st.dictionaries(TOKENS, VALUES, max_size=4),
    status=st.sampled_from([200, 201, 202, 301, 400, 404, 418, 500, 599]),
    cuts=st.lists(st.integers(1, 40), max_size=4),
    is_chunked=st.booleans(),
)
async def test_every_byte_of_both_bodies_passes(
    echo, method, path, query, body, answer, headers, status, cuts, is_chunked
):
    client, seen, reply = echo
    head = [f"HTTP/1.1 {status} Whatever".encode(), *(f"{name}: {value}".encode() for name, value in headers.items())]
    pieces, rest = [], answer
    for cut in cuts:
        pieces.append(rest[:cut])
        rest = rest[cut:]
    pieces = [piece for piece in [*pieces, rest] if piece]
    if is_chunked:
        head.append(b"transfer-encoding: chunked")
        pieces = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces] + [b"0\r\n\r\n"]
    else:
        head.append(b"content-length: %d" % len(answer))
    reply[:] = [b"\r\n".join([*head, b"", b""]), *pieces]
    target = f"/other{path}" + (f"?{query}" if query else "")
    if ".." in target.split("?")[0].split("/"):
        return
    found = await _plain(client.url, method, target, body, headers)
    said, _, came = found.partition(b"\r\n\r\n")
    lines = said.lower().split(b"\r\n")
    assert int(lines[0].split()[1]) == status
    for name, value in headers.items():
        assert f"{name}: {value}".lower().encode() in lines
        assert f"{name}: {value}".lower().encode() in seen[-1][0].lower()
    assert (_unchunked(came) if b"transfer-encoding: chunked" in lines else came) == answer
    first = seen[-1][0].split(b"\r\n")[0]
    assert first == f"{method} {target} HTTP/1.1".encode()
    assert seen[-1][1] == body


async def _plain(url: str, method: str, target: str, body: bytes, headers: dict[str, str]) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "host: gateway", f"content-length: {len(body)}", "connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return await raw_ask(url, "\r\n".join([*lines, "", ""]).encode() + body)


def _unchunked(content: bytes) -> bytes:
    found = b""
    while content:
        size, _, rest = content.partition(b"\r\n")
        number = int(size, 16)
        if number == 0:
            assert rest == b"\r\n"
            return found
        found += rest[:number]
        content = rest[number + 2 :]
    raise AssertionError("no last chunk")


async def test_hop_by_hop_headers_stay_here_and_compressed_bytes_are_left_alone(echo):
    client, seen, reply = echo
    packed = gzip.compress(b"x" * 1000)
    reply[:] = [
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\nconnection: close, x-hop\r\nx-hop: 1\r\nkeep-alive: 5\r\n"
        b"set-cookie: a=1\r\nset-cookie: b=2\r\ncontent-length: %d\r\n\r\n" % len(packed) + packed
    ]
    headers = {
        "connection": "close, x-mine",
        "x-mine": "1",
        "te": "trailers",
        "upgrade": "h2c",
        "accept-encoding": "gzip",
        "X-HTTP-Method-Override": "DELETE",
        "X-Original-URL": "/slots",
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    found = await raw_ask(client.url, f"GET /other HTTP/1.1\r\nhost: a\r\n{lines}\r\n".encode())
    sent = seen[-1][0].lower()
    assert not any(name in sent for name in (b"x-mine", b"te:", b"upgrade", b"connection", b"override", b"x-original"))
    assert b"accept-encoding: gzip" in sent
    said, _, body = found.partition(b"\r\n\r\n")
    assert body == packed
    assert b"x-hop" not in said
    assert said.count(b"set-cookie") == 2


async def test_a_client_that_would_like_another_protocol_gets_this_one(echo):
    """However the network cuts what it sends."""
    client, seen, reply = echo
    reply[:] = [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"]
    wishes = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAA"
    head = b"POST /other HTTP/1.1\r\nhost: a\r\ncontent-length: 14\r\n" + wishes + b"\r\n\r\n"
    body = b"a\r\nupgrade: b\n"
    host, _, port = client.url.removeprefix("http://").removesuffix("/v1").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    for cut in range(len(head) + 1):  # the connection goes on
        for piece in filter(None, (head[:cut], head[cut:] + body)):
            writer.write(piece)
            await asyncio.sleep(0.002)
        said = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        assert said.startswith(b"HTTP/1.1 200 ")
        assert await reader.readexactly(2) == b"ok"
        assert seen[-1][1] == body
        assert b"http2-settings" not in seen[-1][0].lower()
    writer.close()


@pytest.mark.parametrize("is_chunked", [False, True], ids=["a length", "chunks"])
async def test_a_request_right_behind_another_may_like_another_protocol_too(echo, is_chunked):
    client, seen, reply = echo
    reply[:] = [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"]
    body = b"\r\n\r\nupgrade: b\r\n"
    first = b"POST /other HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    if is_chunked:
        first = b"POST /other HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    wishes = b"connection: upgrade\r\nUpgrade: h2c\r\n"
    both = first + b"POST /other HTTP/1.1\r\n%bcontent-length: %d\r\n\r\n%b" % (wishes, len(body), body)
    host, _, port = client.url.removeprefix("http://").removesuffix("/v1").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    for cut in range(len(first) - 8, len(both)):
        for piece in (both[:cut], both[cut:]):
            writer.write(piece)
            await asyncio.sleep(0.001)
        for _ in range(2):
            assert (await asyncio.wait_for(reader.readuntil(b"ok"), 5)).startswith(b"HTTP/1.1 200 ")
        assert [content for _, content in seen[-2:]] == [body, body]
        assert b"upgrade" not in seen[-1][0].lower()
    writer.close()


async def test_a_trailer_says_nothing_that_a_header_says(predictor, tmp_path):
    """A proxy in front may set the header that names a tenant, and pass on what stands behind a body."""
    text = "".join(f'[tenants.{name}]\nheader = "{name}"\ntokens_per_day = 100_000\n' for name in ("one", "two"))
    tenants = tenants_file(tmp_path / "t.toml", f'[gateway]\nheader = "x-team"\n{text}')
    how = {"tenants": tenants, "ledger": f"sqlite:{tmp_path / 'l.db'}", "answer_room": 20}
    body = json.dumps(chat(question(1))).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nx-team: one\r\nconnection: close\r\n"
    rest = b"transfer-encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\nx-team: two\r\nx-own: 1\r\n\r\n" % (len(body), body)
    async with ScriptedServer() as server, served(server.url, predictor, **how) as found:
        assert (await raw_ask(found.url, head + rest)).startswith(b"HTTP/1.1 200 ")
        assert "x-own" not in server.seen[-1].headers
        counts = await found.opened.admission.ledger.counts(["tenant:one", "tenant:two"])
        used = {count.account: count.settled for count in counts if count.window == "day"}
    assert used["tenant:one"] > 0
    assert used["tenant:two"] == 0


async def test_trailers_of_a_request_have_an_end(predictor):
    async with ScriptedServer() as server, served(server.url, predictor) as found:
        for path in (b"/v1/chat/completions", b"/v1/files"):
            head = b"POST %b HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nx: " % path
            started = asyncio.get_running_loop().time()
            await raw_ask(found.url, head + b"a" * 200_000, seconds=20.0)
            assert asyncio.get_running_loop().time() - started < 10.0  # the body may take a minute


async def test_a_reply_before_the_whole_body_leaves_no_connection_for_others(predictor):
    """What the next client asks would be taken for the rest of that body."""
    seen: list[list[bytes]] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        paths: list[bytes] = []
        seen.append(paths)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                paths.append(head.split(b" ")[1])
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        writer.close()

    async with await asyncio.start_server(connected, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        async with served(url, predictor, server="vllm") as found, Client(found.url) as client:
            host, _, port = client.url.removeprefix("http://").rpartition(":")
            for told in (b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n", b"content-length: 99\r\n\r\nhello"):
                reader, writer = await asyncio.open_connection(host, int(port))
                writer.write(b"POST /v1/files HTTP/1.1\r\nhost: a\r\n" + told)
                await asyncio.wait_for(reader.readuntil(b"ok"), 5)
                await asyncio.sleep(0.05)
                assert (await client.ask("/v1/models"))[2] == b"ok"
                writer.close()
    assert [paths for paths in seen if b"/v1/files" in paths] == [[b"/v1/files"]] * 2


async def test_a_browser_may_ask_what_the_server_allows_before_it_shows_a_key(predictor, tmp_path, monkeypatch):
    monkeypatch.setenv("UPSTREAM_KEY", SECRET)
    seen: list[tuple[bytes, bytes]] = []

    async def answer(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        seen.append((head, body))
        writer.write(b"HTTP/1.1 204 OK\r\naccess-control-allow-origin: https://page.example\r\n\r\n")

    tenants = tenants_file(tmp_path / "t.toml", '[tenants.one]\nkey_sha256 = "KEY"\ntokens_per_day = 10_000\n')
    how = {"tenants": tenants, "ledger": f"sqlite:{tmp_path / 'l.db'}", "answer_room": 20, "server": "vllm"}
    page = {"origin": "https://page.example", "access-control-request-method": "POST"}
    async with (
        raw_server(answer) as url,
        served(url, predictor, upstream_key_env="UPSTREAM_KEY", **how) as found,
        Client(found.url) as client,
    ):
        path = "/v1/chat/completions"
        status, headers, _ = await client.ask(path, b"x" * 100, method="OPTIONS", headers=page)
        assert (status, headers["access-control-allow-origin"]) == (204, "https://page.example")
        assert SECRET.encode() not in seen[0][0]
        assert seen[0][1] == b""
        assert (await client.ask("/slots", method="OPTIONS", headers=page))[0] == 404
        for other in ({}, {"origin": "https://page.example"}, {"access-control-request-method": "POST"}):
            assert (await client.ask(path, method="OPTIONS", headers=other))[0] == 401
        for origin, allowed in (("https://page.example", "https://page.example"), ("https://other.example", None)):
            status, headers, _ = await client.ask(path, chat(question(1)), headers={"origin": origin})
            assert (status, headers.get("access-control-allow-origin")) == (401, allowed)  # what the server allows
        assert (await client.ask(path, chat(question(1))))[1].get("access-control-allow-origin") is None
        assert len(seen) == 1
        assert await found.opened.admission.ledger.num_open() == 0


async def test_head_and_replies_without_a_body(echo):
    client, _, reply = echo
    reply[:] = [b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"]
    assert (await client.ask("/other", method="HEAD"))[:2][0] == 200
    for status in (204, 304):
        reply[:] = [b"HTTP/1.1 %d X\r\nx-own: 1\r\n\r\n" % status]
        assert (await client.ask("/other", method="GET"))[0] == status
    reply[:] = [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"]
    assert (await client.ask("/other", method="GET"))[2] == b"ok"


async def test_bodies_of_any_length_are_streamed_both_ways(echo):
    client, seen, reply = echo
    large = bytes(range(256)) * 20_000
    reply[:] = [b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(large), large]
    assert client._session is not None
    async with client._session.post(f"{client.url}/other", data=io.BytesIO(large)) as response:
        content = await response.read()
    assert content == large
    assert seen[-1][1] == large

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(large), 300_000):
            yield large[start : start + 300_000]

    async with client._session.put(f"{client.url}/other", data=pieces()) as response:
        assert await response.read() == large
    assert seen[-1][1] == large
    assert b"transfer-encoding: chunked" in seen[-1][0].lower()


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_clients_of_http_1_0_get_no_chunks(predictor, stream):
    body = json.dumps(chat(question(1), stream=stream)).encode()
    async with ScriptedServer() as server, served(server.url, predictor) as found:
        for host in ("", "host: a\r\nconnection: keep-alive\r\n"):
            head = f"POST /v1/chat/completions HTTP/1.0\r\n{host}content-length: {len(body)}\r\n\r\n"
            came = await raw_ask(found.url, head.encode() + body)
            headers, _, content = came.partition(b"\r\n\r\n")
            assert headers.startswith(b"HTTP/1.1 200")
            assert b"transfer-encoding" not in headers
            assert b"connection: close" in headers
            if stream:
                assert content.startswith(b"data: {")
                assert content.endswith(b"data: [DONE]\n\n")
                assert events(content)[-1] == "[DONE]"
            else:
                assert json.loads(content)["choices"]
        came = await raw_ask(found.url, b"HEAD /v1/models HTTP/1.0\r\n\r\n")
        assert came.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("sent", [b"", b"12345"], ids=["nothing of it", "half of it"])
async def test_a_body_that_does_not_come_is_not_waited_for(predictor, monkeypatch, sent):
    monkeypatch.setattr(incoming, "BODY_SECONDS", 0.2)
    async with ScriptedServer() as server, served(server.url, predictor) as found:
        for path in ("/v1/files", "/v1/chat/completions"):
            head = f"POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\nconnection: close\r\n\r\n"
            came = await raw_ask(found.url, head.encode() + sent)
            assert came.startswith(b"HTTP/1.1 408"), came
            assert b'"code": "timeout"' in came


async def test_a_body_that_comes_slowly_has_an_end(predictor, monkeypatch):
    monkeypatch.setattr(incoming, "MOST_BODY_SECONDS", 0.5)
    async with ScriptedServer() as server, served(server.url, predictor) as found:
        host, port = found.url.removeprefix("http://").split("/")[0].split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /v1/files HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\nconnection: close\r\n\r\n")
        started = asyncio.get_running_loop().time()
        with contextlib.suppress(OSError):
            while asyncio.get_running_loop().time() - started < 20.0 and not reader.at_eof():
                writer.write(b"x")
                await asyncio.sleep(0.05)
                if reader._buffer:
                    break
        came = bytes(reader._buffer)
        with contextlib.suppress(ConnectionResetError):  # a byte was sent after the end
            came = await reader.read(-1)
        assert came.startswith(b"HTTP/1.1 408")
        assert asyncio.get_running_loop().time() - started < 20.0  # each piece may take a minute
        writer.close()


async def test_a_body_that_is_too_long_is_refused(echo, monkeypatch):
    monkeypatch.setattr("forethought.gateway.hosts.upstream.forward.MOST_REQUEST_BYTES", 1000)
    client, seen, _ = echo
    status, _, content = await client.ask("/other", b"x" * 1001)
    assert (status, json.loads(content)["error"]["type"]) == (413, "request_too_large")
    assert seen == []


@pytest.mark.parametrize(
    "path", ["/../admin", "/v1/..;/..;/admin", "/v1/../../admin", "/a/%2e%2e/b", "/v1/%2E%2E%2fx", "/a\\..\\b"]
)
async def test_no_path_leaves_the_servers_base(echo, path):
    client, seen, _ = echo
    found = await raw_ask(client.url, f"GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".encode())
    assert b" 400 " in found.split(b"\r\n")[0]
    assert seen == []


async def test_v1_stands_for_the_path_of_the_base_url(predictor):
    seen: list[bytes] = []

    async def answer(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        seen.append(head.split(b" ")[1])
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    async with raw_server(answer) as url:
        base = url.removesuffix("/v1") + "/api/v1beta/openai"
        async with served(base, predictor, server="vllm") as found, Client(found.url) as client:
            await client.ask("/v1/models?a=b")
            await client.ask("/slots")
    assert seen == [b"/api/v1beta/openai/models?a=b", b"/slots"]


# ------------------------------------------------------------------------------------------- what a server may send

LENGTH = b"content-length: %d\r\n"
GARBAGE = {
    "nothing": b"",
    "half a status line": b"HTTP/1.1 20",
    "closed in the middle of a header": b"HTTP/1.1 200 OK\r\ncontent-ty",
    "no HTTP": b"\x00\x01\x02 hello\r\n\r\n",
    "a header without an end": b"HTTP/1.1 200 OK\r\n" + b"x-a: b\r\n" * 20_000,
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 5\r\n\r\nabc",
    "a length that is none": b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\nabc",
    "a status that is none": b"HTTP/1.1 999 Odd\r\ncontent-length: 0\r\n\r\n",
    "a status below all": b"HTTP/1.1 099 Odd\r\ncontent-length: 0\r\n\r\n",
    "another protocol": b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    "a coding beside chunks": b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
    "a whole reply cut short": b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{}",
    "the key in a header": b"HTTP/1.1 200 OK\r\nx-echo: Bearer " + SECRET.encode() + b"\r\ncontent-length: 0\r\n\r\n",
}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/other"])
@pytest.mark.parametrize("sent", GARBAGE.values(), ids=GARBAGE.keys())
async def test_what_is_no_reply_is_a_clean_error_without_a_key(predictor, monkeypatch, sent, path):
    monkeypatch.setenv("UPSTREAM_KEY", SECRET)

    async def answer(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        assert SECRET.encode() in head
        writer.write(sent)
        with contextlib.suppress(OSError):
            await writer.drain()
        writer.close()

    async with (
        raw_server(answer) as url,
        served(url, predictor, server="vllm", upstream_key_env="UPSTREAM_KEY") as found,
        Client(found.url) as client,
    ):
        body = json.dumps(chat(question(1))).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
        came = await raw_ask(client.url, head.encode() + body)
        assert SECRET.encode() not in came
        if path == "/other" and b"cut short" in sent + b"cut short" and sent.endswith(b"\r\n\r\n{}"):
            assert came.endswith(b"{}")  # it had begun: the client sees it end too early
        else:
            assert b" 502 " in came.split(b"\r\n")[0]
            assert json.loads(came.partition(b"\r\n\r\n")[2])["error"]["code"] == "upstream_failed"


ECHOES = {
    "as it is": SECRET,
    "escaped": SECRET.replace("-", "\\u002d"),
    "in two lines": SECRET[:10] + "\\n" + SECRET[10:],
}


@pytest.mark.parametrize("encoding", ["", "gzip"])
@pytest.mark.parametrize("shown", ECHOES.values(), ids=ECHOES.keys())
async def test_an_error_that_shows_the_key_goes_out_without_it(predictor, monkeypatch, shown, encoding):
    monkeypatch.setenv("UPSTREAM_KEY", SECRET)
    text = json.dumps({"error": {"message": "Incorrect API key provided: KEY."}}).replace("KEY", shown).encode()
    content = gzip.compress(text) if encoding else text

    async def answer(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        kind = f"content-encoding: {encoding}\r\n" if encoding else ""
        writer.write(f"HTTP/1.1 401 No\r\n{kind}content-length: {len(content)}\r\n\r\n".encode() + content)

    async with (
        raw_server(answer) as url,
        served(url, predictor, server="vllm", upstream_key_env="UPSTREAM_KEY") as found,
        Client(found.url) as client,
    ):
        status, headers, came = await client.ask("/v1/models")
    assert status == 401
    assert b"[api key]" in came
    assert SECRET.encode() not in came
    assert "content-encoding" not in headers


async def test_a_stream_that_shows_the_key_is_cut_before_it(predictor, monkeypatch):
    monkeypatch.setenv("UPSTREAM_KEY", SECRET)

    async def answer(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\nyour headers: ")
        for piece in (SECRET[:12].encode(), SECRET[12:].encode()):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.05)
        writer.close()

    async with (
        raw_server(answer) as url,
        served(url, predictor, server="vllm", upstream_key_env="UPSTREAM_KEY") as found,
        Client(found.url) as client,
    ):
        came = await raw_ask(client.url, b"GET /other HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
    assert b"your headers" in came
    assert SECRET.encode() not in came
    assert not came.endswith(b"0\r\n\r\n")


async def test_a_login_page_comes_back_as_it_is_and_counts_nothing(predictor, tmp_path):
    page = b"<html><title>Log in</title></html>"

    async def answer(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: %d\r\n\r\n" % len(page) + page)

    tenants = tenants_file(tmp_path / "t.toml", '[tenants.one]\nkey_sha256 = "KEY"\ntokens_per_day = 10_000\n')
    how = {"server": "vllm", "tenants": tenants, "ledger": f"sqlite:{tmp_path / 'l.db'}", "answer_room": 20}
    async with raw_server(answer) as url, served(url, predictor, **how) as found, Client(found.url, KEY) as client:
        status, _, came = await client.ask("/v1/chat/completions", chat(question(1)))
        assert (status, came) == (200, page)
        assert await found.opened.admission.ledger.num_open() == 0


async def test_a_server_that_is_silent_is_given_up(predictor, monkeypatch):
    async def answer(head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        if b"GET" in head:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc")
        await asyncio.sleep(10)

    async with raw_server(answer) as url:
        async with served(url, predictor, server="vllm", timeout_seconds=1.0) as found, Client(found.url) as client:
            status, _, content = await client.ask("/v1/chat/completions", chat(question(1)))
            assert (status, b"in time" in content) == (504, True)
            came = await raw_ask(client.url, b"GET /other HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            assert came.endswith(b"abc")


async def test_a_connection_that_was_closed_while_unused_is_no_error(predictor):
    num_connections = 0

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal num_connections
        num_connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await reader.readuntil(b"\r\n\r\n")  # the next request is read, and not answered
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    async with served(url, predictor, server="vllm") as found, Client(found.url) as client:
        for _ in range(3):
            assert (await client.ask("/other"))[2] == b"ok"
    server.close()
    assert num_connections == 3


@pytest.mark.parametrize(
    "extra", [b"x", b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nold", b""], ids=["byte", "reply", "end"]
)
async def test_what_nobody_asked_for_is_no_answer_to_the_next_request(extra):
    """The loop has not seen it yet when the connection is to be used again."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5.0)
        upstream = Upstream(f"http://127.0.0.1:{server.getsockname()[1]}")
        connections = []

        async def asked() -> bytes:
            connection = await upstream.open(Exchange(), b"POST", b"/v1/x", (), b"{}")
            try:
                return await connection.read(5.0)
            finally:
                connection.done()

        def answer(content: bytes) -> None:
            connections.append(server.accept()[0])
            while b"\r\n\r\n{}" not in connections[-1].recv(1000):
                pass
            connections[-1].sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n" + content)

        answering = asyncio.ensure_future(asyncio.to_thread(answer, b"one"))
        assert await asked() == b"one"
        await answering
        if extra:
            connections[0].sendall(extra)
        else:
            connections[0].shutdown(socket.SHUT_WR)
        with selectors.DefaultSelector() as waiting:  # until it has come: on this machine, at once
            waiting.register(upstream._idle[-1]._transport.get_extra_info("socket"), selectors.EVENT_READ)
            assert waiting.select(5.0)
        answering = asyncio.ensure_future(asyncio.to_thread(answer, b"two"))
        assert await asked() == b"two"
        await answering
        upstream.close()
        for connection in connections:
            connection.close()


# ------------------------------------------------------------------------------------------- what a client may send

JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ["model", "messages", "prompt", "input", "n", "max_tokens", "stream", "stream_options", "tools", "reasoning"]
BODIES = (
    st.binary(max_size=60)
    | JSONS.map(lambda value: json.dumps(value).encode())
    | st.dictionaries(st.sampled_from(FIELDS), JSONS, max_size=6).map(lambda value: json.dumps(value).encode())
)
ROUTES = ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"]


@settings(max_examples=150)
@given(path=st.sampled_from(ROUTES), body=BODIES)
async def test_no_body_breaks_the_gateway(quota_client, path, body):
    status, _, content = await quota_client.ask(path, body)
    assert status < 500 or b"scripted" in content, (status, content)
    if status != 200:
        assert json.loads(content)["error"]["message"]


@pytest.fixture
async def quota_client(predictor: str, tmp_path: Any) -> AsyncIterator[Client]:
    tenants = tenants_file(tmp_path / "t.toml", '[tenants.one]\nkey_sha256 = "KEY"\ntokens_per_day = 100_000_000\n')
    how = {"tenants": tenants, "ledger": f"sqlite:{tmp_path / 'l.db'}", "answer_room": 20, "most_tokens": 200}
    async with ScriptedServer() as server, served(server.url, predictor, **how) as found:
        async with Client(found.url, KEY) as client:
            yield client
        assert await found.opened.admission.ledger.num_open() == 0


ODD = {
    "no HTTP": b"hello\r\n\r\n",
    "a line without an end": b"GET /" + b"a" * 200_000,
    "headers without an end": b"GET / HTTP/1.1\r\n" + b"x-a: b\r\n" * 20_000,
    "two lengths": b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
    "a length and chunks": b"POST /a HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "a body without chunks": b"POST /v1/chat/completions HTTP/1.1\r\nauthorization: Bearer %b\r\n" % KEY.encode()
    + b"transfer-encoding: identity\r\n\r\n",
    "a tunnel": b"CONNECT example.org:443 HTTP/1.1\r\nhost: a\r\n\r\n",
    "another server": b"GET http://example.org/x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
    "a control character": b"GET /a\x01b HTTP/1.1\r\nhost: a\r\n\r\n",
}


@pytest.mark.parametrize("sent", ODD.values(), ids=ODD.keys())
async def test_no_request_breaks_the_gateway(quota_client, sent):
    came = await raw_ask(quota_client.url, sent)
    status = int(came.split(b" ")[1])
    assert 400 <= status < 500, came


async def test_a_client_that_sends_its_head_slowly_is_shown_out(predictor, monkeypatch):
    monkeypatch.setattr("forethought.gateway.hosts.upstream.server.HEADER_SECONDS", 0.2)
    async with ScriptedServer() as server, served(server.url, predictor) as found:
        came = await raw_ask(found.url, b"GET /v1/models HTTP/1.1\r\nhost: a\r\n")
        assert b" 408 " in came.split(b"\r\n")[0]
        monkeypatch.setattr("forethought.gateway.incoming.BODY_SECONDS", 0.2)
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 99\r\nconnection: close\r\n\r\n{"
        came = await raw_ask(found.url, head)
        assert b" 408 " in came.split(b"\r\n")[0]
