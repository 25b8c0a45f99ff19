"""The plug-in inside vLLM's own server, on a CPU with qwen2.5-coder-0.5b. `make test-servers`.

FORETHOUGHT_VLLM_PYTHON names a Python that has vLLM; without it this one is tried. The entry point is laid beside it in
a folder of its own, so that forethought need not be installed there. Each test says why it is skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import forethought
import real_servers
from forethought.control.sources import shipped_heldout
from forethought.core.data import Query
from forethought.core.prompts import load_template
from forethought.predictors.training import train
from forethought.questions.queries import load_queries
from real_servers import DTYPE, ENVIRONMENT, MODEL, SERVED, free_port, stop, vllm_python

START_SECONDS = 400
SUFFIX = load_template("worked-5").answer_suffix
REASONING = {"reasoning_start_str": "<|im_start|>assistant\n", "reasoning_end_str": SUFFIX}
REASONING_FLAG = f"--reasoning-config={json.dumps(REASONING)}"
EXTENSION_FLAG = "--worker-extension-cls=forethought.gateway.HiddenStates"
FLAGS = (
    f"--dtype={DTYPE}",
    "--max-model-len=2048",
    "--max-num-batched-tokens=2048",
    "--max-num-seqs=8",
    "--block-size=32",
    "--enforce-eager",
    "--no-enable-chunked-prefill",
)
QUESTION = "A farmer has 17 rows of 23 trees. He cuts 58 trees. How many trees are left?"

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.model]


@dataclass
class Server:
    """A running server."""

    address: str
    process: subprocess.Popen[bytes]
    log: Path

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"{self.address}{path}", timeout=30) as response:
            return response.read().decode()

    def status(self) -> dict[str, Any]:
        return json.loads(self.get("/forethought/status"))

    def post(self, body: dict[str, Any], path: str = "/v1/chat/completions") -> tuple[int, dict[str, str], bytes]:
        request = urllib.request.Request(
            f"{self.address}{path}", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=300) as response:
                return response.status, ours(response.headers), response.read()
        except urllib.error.HTTPError as error:
            return error.code, ours(error.headers), error.read()

    def num_tokens(self, text: str) -> int:
        _, _, content = self.post({"model": SERVED, "prompt": text, "add_special_tokens": False}, "/tokenize")
        return int(json.loads(content)["count"])


def ours(headers: Any) -> dict[str, str]:
    prefix = "x-forethought-"
    lower = {name.lower(): value for name, value in headers.items()}
    return {name.removeprefix(prefix): value for name, value in lower.items() if name.startswith(prefix)}


@contextmanager
def started(folder: Path, *flags: str, **variables: str) -> Iterator[Server]:
    """vLLM's server with the entry point installed; whether it came up is for the test to see."""
    python, weights = vllm_python(), real_servers.folder()
    installed = folder / "forethought-0.1.0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: forethought\nVersion: 0.1.0\n")
    (installed / "entry_points.txt").write_text(
        "[vllm.endpoint_plugins]\nforethought = forethought.gateway.hosts.vllm.plugin:Plugin\n"
    )
    port = free_port()
    paths = f"{folder}{os.pathsep}{Path(forethought.__file__).parent.parent}"
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FORETHOUGHT_")}
    command = [
        python,
        "-m",
        "vllm.entrypoints.openai.api_server",
        f"--model={weights}",
        f"--served-model-name={SERVED}",
    ]
    log = folder / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, "--host=127.0.0.1", f"--port={port}", *FLAGS, *flags],
            env={**inherited, **ENVIRONMENT, "VLLM_LOGGING_LEVEL": "INFO", "PYTHONPATH": paths, **variables},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Server(f"http://127.0.0.1:{port}", process, log)
    finally:
        stop(process)


def wait_until_ready(server: Server) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            pytest.fail(f"vLLM ended with {server.process.returncode}:\n{server.log.read_text()[-3000:]}")
        try:
            server.get("/health")
            return
        except OSError:
            time.sleep(1)
    pytest.fail(f"vLLM was not ready within {START_SECONDS} s:\n{server.log.read_text()[-3000:]}")


@pytest.fixture(scope="module")
def with_states(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The shipped predictor, which reads hidden states."""
    variables = {"VLLM_PLUGINS": "forethought", "FORETHOUGHT_PREDICTOR": MODEL, "FORETHOUGHT_MEAN_TOKENS": "64"}
    folder = tmp_path_factory.mktemp("states")
    with started(folder, REASONING_FLAG, EXTENSION_FLAG, "--scheduling-policy=priority", **variables) as server:
        wait_until_ready(server)
        yield server


@pytest.fixture(scope="module")
def with_text(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A predictor that reads the question alone, in a server that knows nothing of hidden states."""
    folder = tmp_path_factory.mktemp("text")
    train(shipped_heldout(MODEL), predictor="text").save(folder / "predictor")
    variables = {"FORETHOUGHT_PREDICTOR": str(folder / "predictor"), "FORETHOUGHT_PRICE": "0.0012"}
    with started(folder / "server", REASONING_FLAG, VLLM_PLUGINS="forethought", **variables) as server:
        wait_until_ready(server)
        yield server


def chat(question: str, **fields: Any) -> dict[str, Any]:
    return {"model": SERVED, "temperature": 0, "messages": [{"role": "user", "content": question}], **fields}


def worked(question: str, **fields: Any) -> dict[str, Any]:
    turns = load_template("worked-5").messages(Query("", question))
    return {**chat(question, **fields), "messages": [{"role": turn.role, "content": turn.content} for turn in turns]}


def answered(server: Server, body: dict[str, Any]) -> tuple[dict[str, str], str]:
    """The plug-in's headers, and the text."""
    status, headers, content = server.post(body)
    assert status == 200, content
    if not body.get("stream"):
        return headers, json.loads(content)["choices"][0]["message"]["content"]
    events = [json.loads(line[6:]) for line in content.decode().split("\n") if line.startswith("data: {")]
    return headers, "".join(event["choices"][0]["delta"].get("content") or "" for event in events if event["choices"])


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
def test_a_budget_is_set_and_kept(with_text, is_stream):
    before = with_text.status()
    headers, text = answered(with_text, chat(QUESTION, stream=is_stream))
    budget = int(headers["budget"])
    assert 0 <= float(headers["expected"]) <= 1
    assert "not the prompt of template worked-5" in headers["reason"]
    thought, suffix, _ = text.partition(SUFFIX)
    assert suffix, "it was cut, and its answer forced"
    assert with_text.num_tokens(thought) == budget
    after = with_text.status()
    assert after["cap_offset"] == 2
    assert after["counted"] == before["counted"] + 1
    assert after["overshoots"] == 0
    assert 'forethought_requests_total{kind="' in with_text.get("/metrics")


def test_what_the_client_set_is_kept(with_text):
    headers, text = answered(with_text, chat(QUESTION, thinking_token_budget=5, max_tokens=40))
    assert headers == {"budget": "5", "reason": "the client's own cap"}
    assert with_text.num_tokens(text.partition(SUFFIX)[0]) == 7  # vLLM's own overshoot, which is not ours to correct
    _, _, content = with_text.post(chat(QUESTION, max_tokens=4))
    assert json.loads(content)["usage"]["completion_tokens"] == 4


def test_the_mean_curves_budget_and_its_reason(with_text):
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    headers, _ = answered(with_text, chat(QUESTION, tools=[tool], tool_choice="none", max_tokens=1))
    assert headers["reason"] == "mean curve: tools"
    odd, _ = answered(
        with_text, chat("Translate 'Der Herbst kennt keinen Zorn' §§ ¿¿ into Dutch, please!", max_tokens=1)
    )
    assert odd["reason"].startswith("predicted; novel to the predictor")


def test_a_text_prompt_with_a_thought(with_text):
    prompt = f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
    status, headers, _ = with_text.post({"model": SERVED, "prompt": prompt, "max_tokens": 1}, "/v1/completions")
    assert status == 200
    assert int(headers["budget"]) > 0
    _, headers, _ = with_text.post({"model": SERVED, "prompt": "Once", "max_tokens": 1}, "/v1/completions")
    assert headers == {"reason": "untouched: the prompt opens no thought"}


def test_a_request_that_vllm_refuses_is_refused_by_vllm(with_text):
    status, headers, content = with_text.post({"model": SERVED, "messages": "x"})
    assert status == 400
    assert not headers
    assert b"messages" in content


def test_concurrent_hidden_state_requests_do_not_mix(with_states):
    questions = [query.text for query in load_queries("gsm8k-demo", limit=6)]
    bodies = [worked(question, max_tokens=1) for question in questions]
    with ThreadPoolExecutor(len(bodies)) as pool:
        together = [headers for headers, _ in pool.map(lambda body: answered(with_states, body), bodies)]
    alone = [answered(with_states, body)[0] for body in bodies]
    assert together == alone
    assert {headers["reason"].partition(" ")[0] for headers in together} <= {"predicted", "predicted;"}
    assert len({headers["expected"] for headers in together}) > 1


def test_a_budget_by_hidden_states_is_kept_and_its_prompt_is_in_the_cache(with_states):
    headers, text = answered(with_states, worked(QUESTION))
    assert headers["reason"].startswith("predicted")
    thought, suffix, _ = text.partition(SUFFIX)
    assert with_states.num_tokens(thought) <= int(headers["budget"]), suffix
    metrics = dict(
        line.rsplit(" ", 1) for line in with_states.get("/metrics").split("\n") if line.startswith("vllm:prefix_cache")
    )
    hits, asked = (
        sum(float(value) for name, value in metrics.items() if f"prefix_cache_{kind}_total" in name)
        for kind in ("hits", "queries")
    )
    assert hits > asked / 3  # every prompt was read twice, once for its state


def test_a_prompt_that_is_not_the_templates_gets_the_mean_curves_budget(with_states):
    headers, _ = answered(with_states, chat(QUESTION, max_tokens=1))
    assert headers["reason"] == "mean curve: not the prompt of template worked-5"


def test_installed_but_not_named_nothing_changes(tmp_path):
    with started(tmp_path / "server", REASONING_FLAG) as server:
        wait_until_ready(server)
        headers, text = answered(server, chat(QUESTION, max_tokens=120))
        assert headers == {}
        assert server.num_tokens(text) > 100
        with pytest.raises(urllib.error.HTTPError, match="404"):
            server.get("/forethought/status")


REFUSED = {
    "bad settings": ((REASONING_FLAG,), {"FORETHOUGHT_PRICE": "low"}, "FORETHOUGHT_PREDICTOR is not set"),
    "no reasoning": (
        (),
        {"FORETHOUGHT_PREDICTOR": MODEL, "FORETHOUGHT_PRICE": "0.001"},
        "--worker-extension-cls forethought.gateway.HiddenStates",
    ),
    "no effect": (
        ('--reasoning-config={"reasoning_start_str":"<think>","reasoning_end_str":"</think>"}', EXTENSION_FLAG),
        {"FORETHOUGHT_PREDICTOR": MODEL, "FORETHOUGHT_PRICE": "0.001"},
        "thinking budgets have no effect on this server",
    ),
}


@pytest.mark.parametrize(("flags", "variables", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_a_server_that_cannot_keep_budgets_does_not_start(tmp_path, flags, variables, message):
    with started(tmp_path / "server", *flags, VLLM_PLUGINS="forethought", **variables) as server:
        assert server.process.wait(START_SECONDS) != 0
        assert message in server.log.read_text()


@pytest.mark.parametrize("server", ["with_states", "with_text"])  # with priorities and without
def test_other_apis_pass_with_a_place_in_the_queue_where_there_is_one(server, request):
    server = request.getfixturevalue(server)
    before = server.status()["requests"]
    bodies = {
        "/v1/responses": {"model": SERVED, "input": "Say hi.", "max_output_tokens": 8},
        "/v1/messages": {"model": SERVED, "messages": [{"role": "user", "content": "Say hi."}], "max_tokens": 8},
    }
    for path, body in bodies.items():
        status, headers, content = server.post(body, path)
        assert (status, headers) == (200, {}), content
    assert server.status()["requests"] == before
