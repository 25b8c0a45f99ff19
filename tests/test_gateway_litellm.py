"""The hook inside a real LiteLLM proxy, in front of the scripted server.

Set FORETHOUGHT_LITELLM_PYTHON to the Python of an environment that holds `litellm[proxy]` and forethought.
"""

import contextlib
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
from gateway_upstream import KEY as TENANT_KEY
from gateway_upstream import OTHER_KEY, question, saved_predictor, served_in_thread, tenants_file

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
[tenants.tight]
header = "tight"
tokens_per_day = 480
[tenants.low]
header = "low"
ceiling = 16
"""
CONFIG_BEFORE = """
model_list:
  - model_name: scripted
    litellm_params: {{model: hosted_vllm/scripted, api_base: {url}, api_key: {one}}}
  - model_name: poor
    litellm_params: {{model: hosted_vllm/scripted, api_base: {url}, api_key: {two}}}
litellm_settings: {{telemetry: false, num_retries: 0}}
router_settings: {{num_retries: 0, disable_cooldowns: true}}
general_settings: {{master_key: {key}}}
"""
BEHIND = """
[tenants.one]
key_sha256 = "KEY"
tokens_per_day = 100_000
[tenants.two]
key_sha256 = "KEY2"
tokens_per_day = 700
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


@contextlib.contextmanager
def litellm(folder: Path, config: str, settings: dict[str, str]) -> Iterator[str]:
    """The address of a LiteLLM proxy."""
    if not PYTHON:
        pytest.skip("FORETHOUGHT_LITELLM_PYTHON names no Python with litellm[proxy]")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "config.yaml").write_text(config)
    command = [PYTHON, "-m", "litellm.proxy.proxy_cli", "--config", str(folder / "config.yaml")]
    command += ["--port", str(port), "--host", "127.0.0.1", "--num_workers", "1"]
    with (folder / "log").open("wb") as log:
        environment = {**os.environ, "LITELLM_TELEMETRY": "False", **settings}
        environment["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it fetches no prices
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            until = time.monotonic() + 240
            while True:
                assert process.poll() is None, (folder / "log").read_text()[-3000:]
                assert time.monotonic() < until, (folder / "log").read_text()[-3000:]
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health/liveliness", timeout=1)
                    break
                except OSError:
                    time.sleep(0.2)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    folder = tmp_path_factory.mktemp("litellm")
    ft.train(sources.shipped_heldout("qwen2.5-coder-1.5b"), predictor="text").save(folder / "predictor")
    (folder / "tenants.toml").write_text(TENANTS)
    server = ScriptedServer()
    settings = {
        "FORETHOUGHT_PREDICTOR": str(folder / "predictor"),
        "FORETHOUGHT_PRICE": "0.001",
        "FORETHOUGHT_SERVER": "vllm",
        "FORETHOUGHT_TENANTS": str(folder / "tenants.toml"),
        "FORETHOUGHT_LEDGER": f"sqlite:{folder / 'ledger.db'}",
        "FORETHOUGHT_LOG": str(folder / "journal"),
        "FORETHOUGHT_ANSWER_ROOM": "32",
    }
    with in_thread(server) as upstream, litellm(folder, CONFIG.format(url=upstream, key=KEY), settings) as url:
        yield Proxy(server, url, folder / "journal")


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """LiteLLM without a hook, in front of a gateway."""
    folder = tmp_path_factory.mktemp("before")
    how = {"ledger": f"sqlite:{folder / 'ledger.db'}", "log": str(folder / "journal"), "answer_room": 32}
    how |= {"tenants": tenants_file(folder / "tenants.toml", BEHIND)}
    server = ScriptedServer()
    with served_in_thread(server, saved_predictor(folder / "predictor"), **how) as found:
        config = CONFIG_BEFORE.format(url=found.url, key=KEY, one=TENANT_KEY, two=OTHER_KEY)
        with litellm(folder, config, {}) as url:
            yield Proxy(server, url, folder / "journal")


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
    assert 0 < int(headers["retry-after"]) <= 86_400, (headers, content)
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


def test_a_cap_is_lowered_to_what_is_left_of_the_quota(proxy: Proxy) -> None:
    _, headers, _ = proxy.ask(QUESTION)
    chosen = int(headers["x-forethought-budget"])
    status, headers, content = proxy.ask(QUESTION, tenant="tight")
    assert status == 200, content
    assert "lowered to what is left" in headers["x-forethought-reason"]
    assert 16 <= int(headers["x-forethought-budget"]) < chosen
    assert proxy.last().body["thinking_token_budget"] == int(headers["x-forethought-budget"])


def test_a_ceiling_holds_for_a_clients_own_cap_too(proxy: Proxy) -> None:
    assert proxy.ask(QUESTION, tenant="low", thinking_token_budget=500)[0] == 200
    assert proxy.last().body["thinking_token_budget"] == 16
    num_sent = proxy.server.num_requests
    assert proxy.ask(QUESTION, tenant="low", use_beam_search=True)[0] == 403
    assert proxy.server.num_requests == num_sent


# ------------------------------------------------------------------ a gateway behind LiteLLM


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_behind_litellm_the_gateway_sets_counts_and_says(before: Proxy, stream: bool) -> None:
    status, headers, content = before.ask(question(102), stream=stream)
    assert status == 200, content
    prefix = "llm_provider-x-forethought-"
    budget = int(headers[f"{prefix}budget"])
    assert before.last().body["thinking_token_budget"] == budget
    entry = before.entry(headers[f"{prefix}id"])
    assert (entry["tenant"], entry["budget"], entry["ending"]) == ("one", budget, "done")
    assert entry["output_tokens"] == before.last().tokens


def test_behind_litellm_a_clients_own_cap_wins(before: Proxy) -> None:
    assert before.ask(question(102), thinking_token_budget=7)[0] == 200
    assert before.last().body["thinking_token_budget"] == 7


def test_behind_litellm_a_full_quota_is_a_429_with_the_time_to_wait(before: Proxy) -> None:
    for _ in range(20):
        status, headers, content = before.ask(question(102), model="poor")
        if status != 200:
            break
    assert status == 429
    assert b"tenant two has 700" in content
    assert OTHER_KEY.encode() not in content
    assert 0 < int(headers["llm_provider-retry-after"]) <= 86_400
