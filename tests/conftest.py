"""Fixtures that several test files share."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from command_line import Call, Said, write_questions

# A busy machine says nothing about the code: no example fails for the time it took. The examples are the same in every
# run, so that a change is judged by what it does; `FORETHOUGHT_TEST_ALL=1` draws others.
settings.register_profile(
    "any-machine",
    deadline=None,
    derandomize=not os.environ.get("FORETHOUGHT_TEST_ALL"),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("any-machine")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random two-layer model with a tokenizer of one token a character; skips without transformers."""
    pytest.importorskip("transformers", reason="needs torch and transformers")
    from tiny_model import save_tiny_model

    return save_tiny_model(tmp_path_factory.mktemp("tiny-model"))


@pytest.fixture(scope="session")
def vllm_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of vLLM's own server; skips where it is not installed."""
    from real_servers import vllm_server

    with vllm_server(tmp_path_factory.mktemp("vllm")) as url:
        yield url


@pytest.fixture(scope="session")
def sglang_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of SGLang's own server; skips where it is not installed."""
    from real_servers import sglang_server

    with sglang_server(tmp_path_factory.mktemp("sglang")) as url:
        yield url


@pytest.fixture(scope="session")
def llama_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of llama.cpp's own server; skips where it is not installed."""
    from real_servers import llama_server

    with llama_server(tmp_path_factory.mktemp("llama")) as url:
        yield url


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs a command in an empty folder."""
    from forethought.commands import _exit_code

    monkeypatch.chdir(tmp_path)

    def run(*args: object) -> Said:
        capsys.readouterr()
        code = _exit_code([str(arg) for arg in args])
        out, err = capsys.readouterr()
        return Said(code, out, err)

    return run


@pytest.fixture
def trained(call: Call, tmp_path: Path) -> str:
    """A profiled and trained run on the fake model."""
    questions = write_questions(tmp_path / "train.jsonl", 60)
    assert call("profile", "fake", questions, "--quiet").code == 0
    assert call("train", "runs/fake-train", "--predictor", "ridge").code == 0
    return "runs/fake-train"


@pytest.fixture(scope="session")
def job_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with q.jsonl and a predictor `text`, from which requests can be made."""
    from batch_job import write_job

    return write_job(tmp_path_factory.mktemp("job") / "made")


@pytest.fixture
def job(call: Call, tmp_path: Path, job_folder: Path) -> Call:
    """Runs a command in a folder of its own like that."""
    shutil.copytree(job_folder, tmp_path, dirs_exist_ok=True)
    return call


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium; skips where it, or Playwright, is not installed."""
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("needs playwright")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        opened = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()
