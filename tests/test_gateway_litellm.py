"""The hook inside a real LiteLLM proxy, in front of the scripted server.

Set FORETHOUGHT_LITELLM_PYTHON to the Python of an environment that holds `litellm[proxy]` and forethought.
"""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("httptools")

import urllib.error
import urllib.request

import forethought as ft
from forethought.control import sources
from forethought.gateway.scripted import ScriptedServer
from forethought.gateway.scripted.server import Seen, in_thread

PYTHON = os.environ.get("FORETHOUGHT_LITELLM_PYTHON", "")
KEY = "sk-" + "a" * 40
CONFIG = """
model_list:
  - model_name: scripted
    litellm_params: {{model: hosted_vllm/scripted, api_base: {url}, api_key: none}}
litellm_settings:
  callbacks: forethought.integrations.litellm.hook
  telemetry: false
  num_retries: 0
router_settings: {{num_retries: 0, disable_cooldowns: true}}
general_settings: {{master_key: {key}}}
"""
TENANTS = """
[gateway]
header = "x-tenant"
[tenants.rich]
header = "rich"
[tenants.poor]
header = "poor"
tokens_per_day = 40
[tenants.brief]
header = "brief"
tokens_per_day = 900
[tenants.some]
header = "some"
tokens_per_day = 100_000
"""


class Proxy:
    """LiteLLM in front of a scripted server, with the hook."""

    def __init__(self, server: ScriptedServer, url: str, journal: Path) -> None:
        self.server, self.url, self.journal = server, url, journal

    def ask(
        self, question: str, *, tenant: str = "rich", path: str = "/v1/chat/completions", **fields: object
    ) -> tuple[int, dict[str, str], bytes]:
        body: dict[str, object] = {"model": "scripted", "messages": [{"role": "user", "content": question}], **fields}
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), method="POST")
        for name, value in (
            ("authorization", f"Bearer {KEY}"),
            ("content-type", "application/json"),
            ("x-tenant", tenant),
        ):
            request.add_header(name, value)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, {name.lower(): value for name, value in answer.headers.items()}, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, {name.lower(): value for name, value in error.headers.items()}, error.read()

    def last(self) -> Seen:
        return [seen for seen in self.server.seen if seen.method == "POST"][-1]

    def entry(self, request_id: str) -> dict:
        """The journal's line of one request; it is written within a moment."""
        until = time.monotonic() + 5
        while True:
            for file in self.journal.rglob("*.jsonl"):
                for line in file.read_text().splitlines():
                    if json.loads(line).get("id") == request_id:
                        return json.loads(line)
            assert time.monotonic() < until, f"no line of {request_id}"
            time.sleep(0.05)


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    if not PYTHON:
        pytest.skip("FORETHOUGHT_LITELLM_PYTHON names no Python with litellm[proxy]")
    folder = tmp_path_factory.mktemp("litellm")
    ft.train(sources.shipped_heldout("qwen2.5-coder-1.5b"), predictor="text").save(folder / "predictor")
    (folder / "tenants.toml").write_text(TENANTS)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = ScriptedServer()
    with in_thread(server) as upstream:
        (folder / "config.yaml").write_text(CONFIG.format(url=upstream, key=KEY))
        settings = {
            "FORETHOUGHT_PREDICTOR": str(folder / "predictor"),
            "FORETHOUGHT_PRICE": "0.001",
            "FORETHOUGHT_SERVER": "vllm",
            "FORETHOUGHT_TENANTS": str(folder / "tenants.toml"),
            "FORETHOUGHT_LEDGER": f"sqlite:{folder / 'ledger.db'}",
            "FORETHOUGHT_LOG": str(folder / "journal"),
            "FORETHOUGHT_ANSWER_ROOM": "32",
            "LITELLM_TELEMETRY": "False",
        }
        command = [PYTHON, "-m", "litellm.proxy.proxy_cli", "--config", str(folder / "config.yaml")]
        command += ["--port", str(port), "--host", "127.0.0.1", "--num_workers", "1"]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, env={**os.environ, **settings}, stdout=log, stderr=log)
            try:
                until = time.monotonic() + 120
                while True:
                    assert process.poll() is None, (folder / "log").read_text()[-3000:]
                    assert time.monotonic() < until, (folder / "log").read_text()[-3000:]
                    try:
                        urllib.request.urlopen(f"http://127.0.0.1:{port}/health/liveliness", timeout=1)
                        break
                    except OSError:
                        time.sleep(0.2)
                yield Proxy(server, f"http://127.0.0.1:{port}", folder / "journal")
            finally:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()


pytestmark = [pytest.mark.server, pytest.mark.slow]
QUESTION = "Natalia sold 48 clips in April, and half as many in May. How many did she sell altogether?"


def test_fields_arrive_and_headers_say_what_was_decided(proxy: Proxy) -> None:
    status, headers, content = proxy.ask(QUESTION)
    assert status == 200
    budget = int(headers["x-forethought-budget"])
    body = proxy.last().body
    assert body["thinking_token_budget"] == budget
    assert budget < (body.get("max_completion_tokens") or body["max_tokens"]) <= budget + 32
    assert 0.0 <= float(headers["x-forethought-expected"]) <= 1.0
    usage = json.loads(content)["usage"]
    assert usage["completion_tokens_details"]["reasoning_tokens"] <= budget
    entry = proxy.entry(headers["x-forethought-id"])
    assert (entry["tenant"], entry["budget"], entry["ending"]) == ("rich", budget, "done")
    assert entry["output_tokens"] == usage["completion_tokens"] == proxy.last().tokens
    assert entry["settled"] == usage["total_tokens"]


@pytest.mark.parametrize("asks_usage", [False, True])
def test_a_stream_passes_and_is_settled(proxy: Proxy, asks_usage: bool) -> None:
    told = {"stream_options": {"include_usage": True}} if asks_usage else {}
    status, headers, content = proxy.ask(f"{QUESTION} Again?", stream=True, **told)
    assert status == 200
    lines = [line[6:] for line in content.decode().splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    events = [json.loads(line) for line in lines[:-1]]
    text = "".join(choice["delta"].get("content") or "" for event in events for choice in event["choices"])
    assert text.startswith("Final answer: ")
    assert any(event.get("usage") for event in events) == asks_usage
    assert proxy.last().body["stream_options"]["include_usage"] is True
    entry = proxy.entry(headers["x-forethought-id"])
    assert entry["output_tokens"] == proxy.last().tokens
    assert entry["ending"] == "done"


def test_a_quota_that_does_not_hold_it_refuses_before_anything_is_sent(proxy: Proxy) -> None:
    num_sent = proxy.server.num_requests
    status, _, content = proxy.ask(QUESTION, tenant="poor")
    assert status == 429
    assert b"tenant poor has 40" in content
    assert proxy.server.num_requests == num_sent
    assert proxy.ask(QUESTION, tenant="nobody")[0] == 401


def test_a_quota_that_is_used_up_says_how_long_to_wait(proxy: Proxy) -> None:
    for _ in range(30):
        status, headers, content = proxy.ask(QUESTION, tenant="brief")
        if status != 200:
            break
    assert status == 429
    assert 0 < int(headers["retry-after"]) <= 86_400
    assert b"900" in content


def test_a_stream_that_breaks_counts_as_what_was_reserved(proxy: Proxy) -> None:
    _, headers, _ = proxy.ask(f"{QUESTION} [[dies_after=3]]", tenant="some", stream=True)
    entry = proxy.entry(headers["x-forethought-id"])
    assert entry["ending"] == "upstream failed"
    assert entry["settled"] >= entry["reserved"] > 0


def test_a_servers_refusal_costs_nothing_and_a_cap_of_the_client_holds(proxy: Proxy) -> None:
    status, _, _ = proxy.ask(f"{QUESTION} [[status=500]]", tenant="some")
    assert status == 500
    status, headers, _ = proxy.ask(QUESTION, tenant="some", thinking_token_budget=7)
    assert status == 200
    assert proxy.last().body["thinking_token_budget"] == 7
    assert proxy.entry(headers["x-forethought-id"])["kind"] == "own"


def test_other_routes_pass(proxy: Proxy) -> None:
    request = urllib.request.Request(f"{proxy.url}/v1/models", headers={"authorization": f"Bearer {KEY}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert json.loads(answer.read())["data"][0]["id"] == "scripted"
