"""Real servers on a free port of loopback, started for the tests and stopped with all that they started.

FORETHOUGHT_VLLM_PYTHON and FORETHOUGHT_SGLANG_PYTHON name Pythons that have them (without, this one is tried);
FORETHOUGHT_LLAMA_SERVER names llama.cpp's `llama-server` (without it, the one on PATH). What is not there skips the
tests, with a reason that says what to name; one that is named and not there, or there and does not start, fails them.
`python tests/real_servers.py` prints which are there, and on stderr what is not and why.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from forethought import models
from forethought.core.data import Query, Request, Sampling
from forethought.core.prompts import load_template

MODEL = "qwen2.5-coder-0.5b"
SERVED = "coder"  # another name than the one on the predictor's card
VLLM, SGLANG, LLAMA = "FORETHOUGHT_VLLM_PYTHON", "FORETHOUGHT_SGLANG_PYTHON", "FORETHOUGHT_LLAMA_SERVER"
START_SECONDS = 300
CAPS = (8, 16, 32)
QUERIES = (
    Query("apples", "Tom has 3 apples and buys 4 more. How many apples does he have?", "7"),
    Query("trees", "A farmer has 17 rows of 23 trees. He cuts 58 trees. How many trees are left?", "333"),
)
# Any chat model thinks between the start of its turn and the answer suffix of the `boxed` template.
REASONING = {
    "reasoning_start_str": "<|im_start|>assistant\n",
    "reasoning_end_str": load_template("boxed").answer_suffix,
}
# How much to think, as a chat template may be told: in place of what follows the question. Not told, all stays.
EFFORTS = {
    "low": "Write one line and nothing else: Final answer: \\boxed{...}",
    "high": "Reason in many small numbered steps, check each, then end with one line: Final answer: \\boxed{...}",
}
HEEDING = """
{%- if reasoning_effort and efforts[reasoning_effort] -%}
{%- set asked = messages[-1].content.split("\\n")[0] + "\\n" + efforts[reasoning_effort] -%}
{%- set messages = messages[:-1] + [{"role": "user", "content": asked}] -%}
{%- endif -%}
"""
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "HF_HUB_OFFLINE": "1",
    "SGLANG_USE_CPU_ENGINE": "1",
}
# Processors without instructions for bfloat16 are far slower in it than in float32.
_CPU = Path("/proc/cpuinfo")
DTYPE = "float32" if _CPU.exists() and "bf16" not in _CPU.read_text("utf-8") else "bfloat16"
VLLM_FLAGS = (
    f"--dtype={DTYPE}",
    "--max-model-len=1024",
    "--max-num-batched-tokens=1024",
    "--max-num-seqs=8",
    "--block-size=32",
    "--enforce-eager",
    "--no-enable-chunked-prefill",  # seeded requests fail on a CPU where a prompt is split
    "--enable-prompt-tokens-details",
    f"--reasoning-config={json.dumps(REASONING)}",
)
SGLANG_FLAGS = (
    "--context-length=1024",
    "--max-total-tokens=8192",
    "--max-running-requests=8",
    "--enable-cache-report",
    "--device=cpu",
    "--attention-backend=torch_native",
    "--sampling-backend=pytorch",
    "--disable-overlap-schedule",
)
# Flag and value apart: in `--flag=value` this server takes an underscore for a hyphen, in the value too.
LLAMA_FLAGS = (
    *("--ctx-size", "4096"),
    *("--parallel", "4"),
    *("--threads", "1"),
    *("--threads-batch", "1"),
    *("--threads-http", "2"),
    "--no-ui",
)


def vllm_python() -> str:
    """The Python that has vLLM; skips where there is none."""
    return _python(VLLM, "vllm")


def sglang_python() -> str:
    """The Python that has SGLang; skips where there is none."""
    return _python(SGLANG, "sglang")


def _python(variable: str, module: str) -> str:
    python = os.environ.get(variable, sys.executable)
    found = f"import importlib.util as u, sys; sys.exit(not u.find_spec({module!r}))"
    if shutil.which(python) is None or subprocess.run([python, "-c", found]).returncode:
        absent(variable, f"{python} has no {module}; name a Python that has it: {variable}=/path/to/python")
    return python


def llama_program() -> str:
    """llama.cpp's server; skips where there is none."""
    program = os.environ.get(LLAMA, "llama-server")
    if shutil.which(program) is None:
        absent(LLAMA, f"no {program} here; name llama.cpp's server: {LLAMA}=/path/to/llama-server")
    return program


def absent(variable: str, reason: str) -> None:
    """Skips, but fails where the variable names something: whoever names a server wants it tested."""
    (pytest.fail if variable in os.environ else pytest.skip)(reason)


def folder() -> Path:
    """The model as a Hugging Face folder; skips where it is not there yet."""
    found = models.home() / "models" / MODEL
    if not (found / "config.json").is_file():
        pytest.skip(f"the files of {MODEL} are not here; a first run with the alias fetches them")
    return found


def gguf() -> Path:
    """The model as its makers' GGUF; fetched only where somebody has named the server, else it skips."""
    if LLAMA not in os.environ and not (models.home() / "gguf" / models.ALIASES[MODEL].file).is_file():
        pytest.skip(f"the GGUF of {MODEL} is not here; {LLAMA}=/path/to/llama-server fetches it (0.5 GB)")
    from fetch_model import published

    return published(MODEL, tell=lambda line: None)


@contextmanager
def vllm_server(scratch: Path) -> Iterator[str]:
    """Address of vLLM's own server."""
    command = [vllm_python(), "-m", "vllm.entrypoints.openai.api_server"]
    flags = (f"--model={folder()}", f"--served-model-name={SERVED}", f"--chat-template={chat_template(scratch)}")
    with started([*command, *flags, *VLLM_FLAGS], scratch) as url:
        yield url


@contextmanager
def sglang_server(scratch: Path, *flags: str) -> Iterator[str]:
    """Address of SGLang's own server, on a CPU."""
    command = [sglang_python(), "-m", "sglang.launch_server", f"--model-path={folder()}"]
    flags = (f"--served-model-name={SERVED}", f"--chat-template={chat_template(scratch)}", *flags)
    with started([*command, *flags, *SGLANG_FLAGS], scratch) as url:
        yield url


@contextmanager
def llama_server(scratch: Path, *flags: str) -> Iterator[str]:
    """Address of llama.cpp's own server."""
    command = [llama_program(), "--model", str(gguf()), "--alias", SERVED]
    if "--chat-template-file" not in flags:
        flags = ("--chat-template-file", str(chat_template(scratch)), *flags)
    with started([*command, *LLAMA_FLAGS, *flags], scratch) as url:
        yield url


def chat_template(scratch: Path) -> Path:
    """A file with the model's own chat template, made to heed effort levels."""
    own = (folder() / "chat_template.jinja").read_text("utf-8")
    file = scratch / "chat.jinja"
    file.write_text(f"{{%- set efforts = {json.dumps(EFFORTS)} -%}}{HEEDING}{own}", "utf-8")
    return file


@contextmanager
def started(command: Sequence[str], scratch: Path, environment: Mapping[str, str] = ENVIRONMENT) -> Iterator[str]:
    """Address of a server, ready; at the end it is stopped with its whole session."""
    port = free_port()
    log = scratch / "log"
    with log.open("w") as output:
        server = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            env={**os.environ, **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_until_ready(server, f"http://127.0.0.1:{port}", log)
        yield f"http://127.0.0.1:{port}"
    finally:
        stop(server)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_ready(server: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            pytest.fail(f"the server ended with {server.returncode}:\n{log.read_text()[-3000:]}")
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.5)
    pytest.fail(f"the server was not ready within {START_SECONDS} s:\n{log.read_text()[-3000:]}")


def stop(server: subprocess.Popen[bytes]) -> None:
    """Ends the server's process group, asked first, and waits for it."""
    for order in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, order)
            server.wait(30)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def engine_at(url: str, **options: Any) -> Any:
    """The openai engine at a server, with the template that REASONING fits."""
    from forethought.engines.server.engine import OpenAIEngine

    common = {"template": load_template("boxed"), "sampling": Sampling(0.6), "served_model": SERVED}
    return OpenAIEngine(MODEL, base_url=url, **{**common, **options})


def asked(*, probes: tuple[int, ...] = ()) -> list[Request]:
    """Every query at every cap."""
    return [Request(query, cap, cap, 11, probes) for query in QUERIES for cap in CAPS]


def main() -> None:
    """Prints the servers that are there, and on stderr one line on those that are not."""
    reasons = []
    for name, parts in {
        "vllm": (vllm_python, folder),
        "sglang": (sglang_python, folder),
        "llama.cpp": (llama_program, gguf),
    }.items():
        try:
            for part in parts:
                part()
            print(name)
        except pytest.skip.Exception as reason:
            reasons.append(f"{name} ({reason})")
    if reasons:
        print(f"server tests not run: {'; '.join(reasons)}", file=sys.stderr)


if __name__ == "__main__":
    main()
