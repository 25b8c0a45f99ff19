"""`forethought serve` as a process: what it refuses at its start, its end by SIGTERM, and its death by kill -9."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from forethought.commands import _exit_code
from forethought.core.serve_settings import ServeSettings
from forethought.errors import InvalidSettingsError
from forethought.gateway.ledger.file import LedgerFile
from forethought.gateway.scripted import ScriptedServer
from forethought.gateway.scripted.server import in_thread
from gateway_upstream import KEY, LEVELS, Client, chat, question, saved_predictor, tenants_file

pytest.importorskip("uvicorn", reason="the extra `gateway` is not installed")

TENANT = '[tenants.one]\nkey_sha256 = "KEY"\ntokens_per_day = 100_000\n'


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved_predictor(tmp_path_factory.mktemp("predictor") / "text")


@contextlib.asynccontextmanager
async def process(*flags: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """`(the process, its address)`."""
    command = [sys.executable, "-m", "forethought", "serve", "--port", "0", "--json", *flags]
    running = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env={**os.environ}
    )
    assert running.stdout is not None
    try:
        content = b""
        async with asyncio.timeout(120):
            while not content.rstrip().endswith(b"}"):
                piece = await running.stdout.read(4096)
                if not piece:
                    assert running.stderr is not None
                    raise AssertionError((await running.stderr.read()).decode())
                content += piece
        yield running, json.loads(content)["url"]
    finally:
        if running.returncode is None:
            running.kill()
        await running.communicate()


def flags(server: ScriptedServer, predictor: str, tmp_path: Path, *more: str) -> list[str]:
    tenants = tenants_file(tmp_path / "tenants.toml", TENANT)
    own = ["--upstream", server.url, "--predictor", predictor, "--price", "0.001", "--answer-room", "20"]
    return [*own, "--tenants", tenants, "--ledger", f"sqlite:{tmp_path / 'ledger.db'}", *more]


async def begun(client: Client, **fields: Any) -> Any:
    """A stream of which the first piece has come."""
    assert client._session is not None
    body = json.dumps(chat(question(102), stream=True, **fields))
    response = await client._session.post(f"{client.url}/v1/chat/completions", data=body, headers=client.headers)
    await response.content.readany()
    return response


@pytest.mark.slow
async def test_running_streams_are_finished_and_new_requests_are_refused(predictor, tmp_path):
    async with ScriptedServer(tokens_per_second=20.0) as server:
        async with process(*flags(server, predictor, tmp_path, "--drain-seconds", "20")) as (gateway, url):
            async with Client(url, KEY) as client:
                response = await begun(client)
                gateway.send_signal(signal.SIGTERM)
                while (await client.ask("/health"))[0] == 200:
                    await asyncio.sleep(0.02)
                status, headers, body = await client.chat(question(1))
                assert (status, headers["retry-after"], body["error"]["code"]) == (503, "20", "stopping")
                assert (await client.ask("/health"))[0] == 503
                rest = await response.content.read()
                assert rest.rstrip().endswith(b"[DONE]")
                response.close()
            async with asyncio.timeout(60):
                assert await gateway.wait() == 0


@pytest.mark.slow
async def test_what_runs_longer_than_the_end_may_take_is_cut_and_settled(predictor, tmp_path):
    async with ScriptedServer(tokens_per_second=4.0) as server:
        given = flags(server, predictor, tmp_path, "--drain-seconds", "0.3", "--log", str(tmp_path / "journal"))
        async with process(*given) as (gateway, url):
            async with Client(url, KEY) as client:
                response = await begun(client)
                gateway.send_signal(signal.SIGTERM)
                async with asyncio.timeout(60):
                    assert await gateway.wait() == 0
                response.close()
    lines = next((tmp_path / "journal").glob("requests-*.jsonl")).read_text().splitlines()
    entry = json.loads(lines[0])
    assert entry["settled"] > 0
    assert entry["ending"] in ("upstream failed", "client left")


@pytest.mark.slow
async def test_after_a_kill_what_was_promised_still_counts(predictor, tmp_path):
    async with ScriptedServer(tokens_per_second=40.0) as server:
        given = flags(server, predictor, tmp_path)
        async with process(*given) as (gateway, url):
            async with Client(url, KEY) as client:
                whole = await client.chat(question(101), max_tokens=30)
                response = await begun(client)
                gateway.kill()
                await gateway.wait()
                response.close()
        async with process(*given) as (gateway, url):
            async with Client(url, KEY) as client:
                status, _, _ = await client.chat(question(101), max_tokens=30)
                assert status == 200
                state = json.loads((await client.ask("/forethought/state"))[2])
            gateway.send_signal(signal.SIGTERM)
            await gateway.wait()
    used = [each.prompt_tokens + each.tokens for each in server.seen if each.is_done and each.method == "POST"]
    assert whole[0] == 200
    quota = next(each for each in state["quotas"] if each["account"] == "one" and each["window"] == "day")
    assert quota["settled"] + quota["bound"] >= sum(used[:2]) + 1  # the killed one is still reserved


async def test_everything_that_is_wrong_with_the_flags_is_said_at_once():
    with pytest.raises(InvalidSettingsError) as caught:
        ServeSettings(
            host="0.0.0.0", port=99999, price=1.0, mean_tokens=3.0, keep_texts=True, ledger="file", enforce="x"
        )
    message = str(caught.value)
    for part in (
        "name the server: --upstream",
        "name a predictor",
        "either --price N or --mean-tokens N",
        "--ledger takes sqlite:PATH",
        "--port must be from 0 to 65535",
        "add --tenants FILE",
        "add --admin-key-env NAME",
        "--keep-texts needs a journal",
        "--enforce: auto, native, two-call",
    ):
        assert part in message


WRONG = {
    "a key instead of its variable": (["--upstream-key-env", "sk-abc"], "takes the name of a variable, not a key"),
    "a variable that is not set": (["--admin-key-env", "NOT_SET_HERE"], "does not hold a key"),
    "a password in the address": (["--upstream", "http://me:secret@host/v1"], "holds a user, a password"),
    "a kind that is not known": (["--server", "vlm"], "Did you mean 'vllm'"),
    "tenants that are none": (["--tenants", "BROKEN"], "has no tenants"),
    "a ceiling that is no option": (["--tenants", "CEILING"], "ceiling 'high' is none of the predictor's options"),
    "a server that is away": ([], "no server answers at"),
    "a journal's folder that holds something else": (["--server", "vllm", "--log", "FOLDER"], "something else"),
    "a ledger that is none": (["--server", "vllm", "--ledger", "sqlite:BROKEN"], "ledger"),
    "a ceiling below the smallest cap": (["--server", "anthropic", "--tenants", "LOW"], "is below 1,024"),
    "hidden states": (["--predictor", "qwen2.5-coder-0.5b"], "--predictor text"),
    "a server without caps": (["--server", "openai"], "neither keeps a cap nor goes on"),
}


@pytest.mark.parametrize(("given", "message"), WRONG.values(), ids=WRONG.keys())
def test_what_cannot_be_served_is_refused_in_words(predictor, tmp_path, capsys, given, message):
    broken, folder = tmp_path / "broken.toml", tmp_path / "folder"
    broken.write_text("[gateway]\ntokens_per_day = 3\n")
    folder.mkdir()
    (folder / "letter").write_text("x")
    ceiling = tenants_file(tmp_path / "c.toml", '[tenants.one]\nkey_sha256 = "KEY"\nceiling = "high"\n')
    low = tenants_file(tmp_path / "l.toml", '[tenants.one]\nkey_sha256 = "KEY"\nceiling = 32\n')
    names = {"LOW": low, "BROKEN": str(broken), "FOLDER": str(folder), "CEILING": ceiling}
    given = [next((each.replace(name, path) for name, path in names.items() if name in each), each) for each in given]
    own = ["--upstream", "http://127.0.0.1:9/v1", "--predictor", predictor, "--price", "0.001"]
    assert _exit_code(["serve", *own, "--port", "0", "--dry-run", *given]) == 1
    said = capsys.readouterr().err
    assert message in said
    assert "secret" not in said


def test_levels_need_to_say_what_they_set(tmp_path, capsys):
    predictor = saved_predictor(tmp_path / "text", LEVELS)
    menu = tmp_path / "menu.toml"
    menu.write_text('[[option]]\nlabel = "low"\n[[option]]\nlabel = "other"\n')
    own = ["serve", "--upstream", "http://127.0.0.1:9/v1", "--server", "openai", "--predictor", predictor, "--dry-run"]
    assert _exit_code([*own, "--price", "0.001", "--menu", str(menu)]) == 1
    assert "has the options low, other" in capsys.readouterr().err
    assert _exit_code([*own, "--price", "0.001"]) == 0
    said = capsys.readouterr().out
    assert "low, medium, high" in said
    assert "fields" in said


def test_a_dry_run_writes_locks_and_spends_nothing(predictor, tmp_path, capsys):
    tenants = tenants_file(tmp_path / "tenants.toml", '[tenants.one]\nkey_sha256 = "KEY"\ntokens = 500\n')
    ledger, journal = tmp_path / "ledger.db", tmp_path / "journal"
    given = ["serve", "--dry-run", "--json", "--predictor", predictor, "--price", "0.001", "--tenants", tenants]
    given += ["--ledger", f"sqlite:{ledger}", "--log", str(journal)]
    server = ScriptedServer()
    with in_thread(server) as url:
        before = sorted(tmp_path.rglob("*"))
        assert _exit_code([*given, "--upstream", url]) == 0
        shown = json.loads(capsys.readouterr().out)
        assert shown["ledger"] == f"sqlite:{ledger}"
        assert shown["enforced"].startswith("native")
        assert "a question at the start shows" in shown["enforced"]
        assert sorted(tmp_path.rglob("*")) == before
        assert server.tokens_generated == 0, [seen.path for seen in server.seen]
        with contextlib.closing(LedgerFile(ledger)):  # as a gateway that runs has it
            files = {path: path.read_bytes() for path in tmp_path.glob("ledger*")}
            assert _exit_code([*given, "--upstream", url]) == 0
            assert {path: path.read_bytes() for path in tmp_path.glob("ledger*")} == files


def test_a_key_in_the_address_is_told_where_it_belongs(predictor, capsys):
    upstream = "http://user:secret@127.0.0.1:9/v1"
    own = ["serve", "--upstream", upstream, "--predictor", predictor, "--price", "0.001", "--server", "vllm"]
    assert _exit_code([*own, "--dry-run"]) == 1
    said = capsys.readouterr().err
    assert "in the environment variable that --upstream-key-env names" in said
    assert "FORETHOUGHT_API_KEY" not in said
    assert "secret" not in said


def test_a_port_that_is_taken_is_said(predictor, tmp_path, capsys):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        own = ["--upstream", "http://127.0.0.1:9/v1", "--server", "vllm", "--predictor", predictor, "--price", "0.001"]
        assert _exit_code(["serve", *own, "--port", port]) == 1
    assert f"cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err


def resident(pid: int) -> int:
    """Kilobytes of memory that a process holds."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1])


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
async def test_a_long_stream_leaves_the_memory_as_it_is(predictor):
    event = {"id": "a", "choices": [{"index": 0, "delta": {"content": "so it is "}, "finish_reason": None}]}
    piece = f"data: {json.dumps(event)}\n\n".encode() * 500

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        for _ in range(150):
            writer.write(piece)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    given = ["--upstream", url, "--server", "vllm", "--predictor", predictor, "--price", "0.001"]
    async with process(*given) as (gateway, own), Client(own) as client:
        assert client._session is not None
        num_bytes, early = 0, 0
        body = json.dumps(chat(question(1), stream=True))
        async with client._session.post(f"{client.url}/v1/chat/completions", data=body) as response:
            async for part in response.content.iter_any():
                num_bytes += len(part)
                if not early and num_bytes > 2_000_000:
                    early = resident(gateway.pid)
        assert num_bytes == 150 * len(piece)
        assert resident(gateway.pid) < early + 2_500
    server.close()


@pytest.mark.slow
async def test_the_demo_serves_load_and_a_page():
    from forethought.gateway.hosts.upstream.demo import demo

    async with demo(ServeSettings(demo=True, port=0), rates=(30.0,)) as found, Client(found.url) as client:
        for _ in range(600):
            state = json.loads((await client.ask("/forethought/state"))[2])
            if state["requests"] >= 20:
                break
            await asyncio.sleep(0.1)
        assert state["requests"] >= 20
        assert set(state["endings"]) <= {"done", "refused"}
        assert state["quotas"]
        assert (await client.ask("/forethought/"))[0] == 200
        assert b"forethought_" in (await client.ask("/metrics"))[2]
        assert (await client.chat("2 + 2?"))[0] == 401
