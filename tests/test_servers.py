"""Real servers, started here on a free port of loopback: budgets kept and counted. `make test-servers`.

vLLM's own server runs on a CPU with qwen2.5-coder-0.5b. FORETHOUGHT_VLLM_PYTHON names a Python that has vLLM; without
it this one is tried. Each test says why it is skipped.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="needs aiohttp")

from engine_contract import run
from forethought import doctor, models
from forethought.engines.openai.engine import OpenAIEngine
from forethought.prompts import load_template
from forethought.settings import DoctorSettings
from forethought.types import Query, Request, Sampling, StopReason

MODEL = "qwen2.5-coder-0.5b"
SERVED = "coder"  # another name than the one on the predictor's card
START_SECONDS = 300
CAPS = (8, 16, 32)
QUERIES = (
    Query("apples", "Tom has 3 apples and buys 4 more. How many apples does he have?", "7"),
    Query("trees", "A farmer has 17 rows of 23 trees. He cuts 58 trees. How many trees are left?", "333"),
)
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "HF_HUB_OFFLINE": "1",
}
# Any chat model thinks between the start of its turn and the answer suffix of the `boxed` template.
REASONING = {
    "reasoning_start_str": "<|im_start|>assistant\n",
    "reasoning_end_str": load_template("boxed").answer_suffix,
}
FLAGS = (
    "--dtype=bfloat16",
    "--max-model-len=1024",
    "--max-num-batched-tokens=1024",
    "--max-num-seqs=8",
    "--block-size=32",
    "--enforce-eager",
    "--no-enable-chunked-prefill",  # seeded requests fail on a CPU where a prompt is split
    "--enable-prompt-tokens-details",
    f"--reasoning-config={json.dumps(REASONING)}",
)

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.model]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of vLLM's server, up and ready; stopped at the end with all that it started."""
    python = os.environ.get("FORETHOUGHT_VLLM_PYTHON", sys.executable)
    if subprocess.run([python, "-c", "import importlib.util as u, sys; sys.exit(not u.find_spec('vllm'))"]).returncode:
        pytest.skip(f"{python} has no vLLM; name one that has it: FORETHOUGHT_VLLM_PYTHON=/path/to/python")
    folder = models.home() / "models" / MODEL
    if not (folder / "config.json").is_file():
        pytest.skip(f"the files of {MODEL} are not here; a first run with the alias fetches them")
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    log = tmp_path_factory.mktemp("vllm") / "log"
    command = [python, "-m", "vllm.entrypoints.openai.api_server", f"--model={folder}", f"--served-model-name={SERVED}"]
    with log.open("w") as output:
        server = subprocess.Popen(
            [*command, "--host=127.0.0.1", f"--port={port}", *FLAGS],
            env={**os.environ, **ENVIRONMENT},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_until_ready(server, address, log)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def wait_until_ready(server: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            pytest.fail(f"vLLM ended with {server.returncode}:\n{log.read_text()[-3000:]}")
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=5):
                return
        except OSError:
            time.sleep(1)
    pytest.fail(f"vLLM was not ready within {START_SECONDS} s:\n{log.read_text()[-3000:]}")


def engine_at(url: str, **options: Any) -> OpenAIEngine:
    common = {"template": load_template("boxed"), "sampling": Sampling(0.6), "served_model": SERVED}
    return OpenAIEngine(MODEL, base_url=url, **{**common, **options})


def asked(*, probes: tuple[int, ...] = ()) -> list[Request]:
    return [Request(query, cap, cap, 11, probes) for query in QUERIES for cap in CAPS]


@pytest.mark.parametrize("options", [{}, {"ids": False}], ids=["token-ids", "chat"])
def test_two_calls_keep_the_cap_and_force_an_answer(url, options):
    engine = engine_at(url, enforce="two-call", **options)
    found = run(engine, asked())
    for done in found.values():
        assert done.error is None
        assert done.reasoning_tokens <= done.budget
        assert done.answer
    assert any(done.stop_reason is StopReason.BUDGET for done in found.values())
    assert engine.info.model == MODEL
    assert engine.info.server.startswith("vllm ")


def test_a_cut_is_the_prefix_of_the_trace_and_probes_are_served_by_the_cache(url):
    engine = engine_at(url, enforce="two-call", concurrency=1)
    whole = run(engine, [Request(QUERIES[1], 48, 0, 5, (16, 32))])[QUERIES[1].id, 0]
    small = run(engine, [Request(QUERIES[1], 16, 0, 5)])[QUERIES[1].id, 0]
    assert whole.reasoning.startswith(small.reasoning)
    assert [probe.budget for probe in whole.probes] == [16, 32]
    assert all(probe.answer for probe in whole.probes)
    assert engine.counters.cached_tokens >= 0.5 * engine.counters.prompt_tokens


def test_the_native_cap_overshoots_by_the_length_of_its_start_tag(url):
    """A trap of vLLM 0.32: the cap counts from the first token of a start tag of three. We count, and correct."""
    plain = engine_at(url, enforce="native")
    assert all("ignored the cap" in done.error for done in run(plain, asked()).values())
    assert plain.counters.largest_overshoot == 2
    corrected = run(engine_at(url, enforce="native", cap_offset=2), asked())
    for done in corrected.values():
        assert done.error is None
        assert done.reasoning_tokens <= done.budget
        assert done.answer


def test_max_tokens_alone_leaves_thoughts_unanswered(url):
    for done in run(engine_at(url, enforce="max-tokens"), asked()).values():
        assert done.error is None
        assert done.reasoning_tokens + done.answer_tokens <= done.budget


def test_the_doctor_tells_what_the_server_can_do(url):
    found = doctor.examine(DoctorSettings(base_url=url, enforce="native"))
    seen = {finding.name: finding for finding in found.findings}
    for name in (
        "reachable",
        "kind",
        "models",
        "token ids",
        "continuation",
        "logprobs",
        "usage details",
        "prefix caching",
    ):
        assert seen[name].is_fine, seen[name]
    assert found.is_kept
    assert f"--served-model {SERVED} --enforce native --engine-option cap_offset=2" in found.flags
