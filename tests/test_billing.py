"""The bill counts prompts and money, is arithmetic, and is settled in the same units."""

import json
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forethought.commands import _exit_code
from forethought.control.billing import Prices, Traffic
from forethought.core.data import Probe, StopReason
from forethought.core.records import Record
from forethought.engines import memory
from forethought.engines.lengths import Lengths
from forethought.models import look
from forethought.models.config import known_layers
from forethought.runs.store import RunDirectory
from loopback import serving
from toy_server import ToyServer

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FORETHOUGHT_HOME", str(tmp_path / "home"))
    rows = [{"id": f"q{i}", "question": f"What is {i} plus {i}?", "answer": str(2 * i)} for i in range(20)]
    Path("q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(*args: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = _exit_code([str(arg) for arg in (*args, "--quiet")])
        return (code, *capsys.readouterr())

    return run


LENGTHS = Lengths(np.array([100, 200]), 5, True, "counted")


@pytest.mark.parametrize(
    ("traces", "answers", "reread", "is_two_calls", "sent", "cached"),
    [
        ([1, 1], 4, 0, False, 300, 0),
        ([0, 3], 4, 0, False, 600, 0),
        ([1, 1], 1, 64, True, 300 + 300 + 64 + 2 * 5, 364),
        ([2, 0], 4, 1000, True, 200 + 800 + 1000 + 8 * 5, 1800),
    ],
    ids=["in process", "what is left", "two calls", "two calls and probes"],
)
def test_what_is_sent(traces: list[int], answers: int, reread: int, is_two_calls: bool, sent: int, cached: int) -> None:
    found = Traffic.of(LENGTHS, traces, answers=answers, reread=reread, is_two_calls=is_two_calls)
    assert (found.sent, found.cached) == (sent, cached)


@pytest.mark.parametrize(
    ("prices", "usd"),
    [(Prices(), None), (Prices(0.5, 2.0), 5.0), (Prices(None, 2.0), 4.0), (Prices(0.5, None), 1.0)],
    ids=["unknown", "both", "out", "in"],
)
def test_money(prices: Prices, usd: float | None) -> None:
    assert prices.usd(2_000_000, 2_000_000) == usd


def test_a_bill_of_a_million_traces_is_arithmetic(call: Call) -> None:
    started = time.process_time()
    tracemalloc.start()
    code, out, _ = call("profile", "fake", "q.jsonl", "--traces", 50_000_000, "--dry-run", "--json")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    bill = json.loads(out)
    assert code == 0
    assert bill["num_left"] == 1_000_000_000
    assert bill["reasoning_tokens"] == 256 * 1_000_000_000
    assert peak < 50e6
    assert time.process_time() - started < 20


def test_profile_and_run_bill_prompts_and_settle_in_the_same_units(call: Call) -> None:
    prices = ("--price-in", 1.0, "--price-out", 10.0, "--json")
    for command in (
        ("profile", "fake", "q.jsonl", "--traces", 3, "--out", "p"),
        ("run", "p", "q.jsonl", "--mean-tokens", 64, "--out", "r"),
    ):
        if command[0] == "run":
            assert call("train", "p", "--predictor", "mean")[0] == 0
        _, out, _ = call(*command, *prices, "--dry-run")
        bill = json.loads(out)
        _, out, _ = call(*command, *prices)
        done = json.loads(out)
        assert done["prompt_tokens"] == bill["prompt_tokens"]  # the fake model's prompts are counted exactly
        assert 0 < done["generated_tokens"] <= bill["reasoning_tokens"] + bill["answer_tokens"]
        assert done["usd"] == pytest.approx((done["prompt_tokens"] + 10 * done["generated_tokens"]) / 1e6)
        assert done["usd"] <= bill["usd"]
        records = RunDirectory.open(Path(command[-1] if command[0] == "run" else "p")).records()
        assert done["prompt_tokens"] == sum(record.prompt_tokens for record in records)
        assert "USD" in call(*command, "--price-out", 10.0, "--dry-run")[1]
        assert "USD" not in call(*command, "--dry-run")[1]


def test_a_profile_that_was_begun_says_what_is_to_be_expected_of_the_rest(call: Call) -> None:
    """The mean of what is done, times what is left: at the prices and at the speed given."""
    assert call("profile", "fake", "q.jsonl", "--limit", 5)[0] == 0
    asking = ("profile", "fake", "q.jsonl", "--dry-run", "--price-out", 2, "--tokens-per-second", 100)
    bill = json.loads(call(*asking, "--json")[1])
    done = json.loads(call("profile", "fake", "q.jsonl", "--limit", 5, "--json")[1])
    left = bill["num_left"] / done["traces"]
    assert (bill["num_left"], done["traces"]) == (60, 20)
    expected = bill["expected"]
    assert expected["num_measured"] == 20
    assert expected["generated_tokens"] == pytest.approx(left * done["generated_tokens"], abs=1)
    assert expected["prompt_tokens"] == pytest.approx(left * done["prompt_tokens"], abs=1)
    assert expected["usd"] == pytest.approx(expected["generated_tokens"] * 2e-6)
    assert expected["hours"] == pytest.approx(expected["generated_tokens"] / 360_000)
    assert bill["hours"] == pytest.approx((bill["reasoning_tokens"] + bill["answer_tokens"]) / 360_000)
    assert expected["hours"] < bill["hours"]
    text = call(*asking)[1]
    assert "by the mean of the 20 finished traces" in text
    assert f"time, at most    {60 * bill['hours']:.1f} minutes" in text
    _, out, _ = call("profile", "fake", "q.jsonl", "--out", "other", "--dry-run", "--json")
    assert json.loads(out)["expected"] is None


def test_two_calls_are_billed_with_every_prompt_that_a_server_is_sent(call: Call) -> None:
    Path("t.json").write_text(
        json.dumps({"name": "t", "reasoning_end": "##", "answer_suffix": "##{", "answer_stop": "}"})
    )
    toy, sent = ToyServer("vllm", context_tokens=4096), [0]
    usage = toy._usage

    def counting(prompt: list[int], new: list[int]) -> dict[str, Any]:
        sent[0] += len(prompt)
        return usage(prompt, new)

    toy._usage = counting  # type: ignore[method-assign]
    profile = ("profile", "toy", "q.jsonl", "--traces", 2, "--window", 16, "--max-tokens", 64, "--template", "t.json")
    with serving(toy) as url:
        bill = json.loads(call(*profile, "--base-url", url, "--dry-run", "--json")[1])
        done = json.loads(call(*profile, "--base-url", url, "--json")[1])
    assert "5 times per trace" in bill["prompts"]
    assert "estimated" in bill["prompts"]
    assert bill["cached_tokens"] > bill["prompt_tokens"] / 2
    # An answer that goes on behind a brace of its own is sent once more: a few, which the sum leaves out.
    assert done["prompt_tokens"] <= sent[0] <= 1.2 * done["prompt_tokens"]


def test_settling_leaves_out_what_failed_and_what_was_not_counted() -> None:
    good = Record("q", 0, 64, "", 20, "2", 4, 5, 100, StopReason.NATURAL, (Probe(16, "1", 3),))
    assert good.billed(is_two_calls=False) == (100, 20 + 3 + 4 + 2 * 5)
    assert good.billed(is_two_calls=True) == (100 + 2 * 105 + 16 + 20, 27)
    failed = replace(good, stop_reason=StopReason.ERROR, error="broke")
    for other in (failed, replace(good, answer_tokens=None), replace(good, reasoning_tokens=None)):
        assert other.billed(is_two_calls=True) == (0, 0)


def test_a_plan_says_what_must_be_loaded(call: Call) -> None:
    code, out, _ = call("plan", "qwen2.5-coder-1.5b", "q.jsonl", "--mean-tokens", 64, "--dry-run")
    assert code == 0
    assert "weights 3.7 GB, not here yet: fetched first after a download of 1.1 GB" in out
    assert "each prompt once per trace" in out
    bill = json.loads(call("plan", "qwen2.5-coder-1.5b", "q.jsonl", "--mean-tokens", 64, "--dry-run", "--json")[1])
    assert bill["prompt_tokens"] > 20 * 500


def test_what_is_here_of_a_model(tiny_model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FORETHOUGHT_HOME", str(tmp_path))
    here = look(str(tiny_model))
    assert here.folder == tiny_model
    assert here.num_bytes == sum(file.stat().st_size for file in tiny_model.glob("*.safetensors"))
    assert here.tokenizer() is not None
    gone = look("qwen2.5-coder-0.5b")
    assert (gone.folder, gone.fetch_bytes) == (None, 491_400_064)
    assert look("no such model").num_bytes is None
    assert not list(tmp_path.iterdir())


def test_a_folder_with_a_link_that_leads_nowhere_is_looked_at_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"num_hidden_layers": 3, "text_config": null}')
    (tmp_path / "tokenizer.json").symlink_to(tmp_path / "gone")
    assert look(str(tmp_path)).tokenizer() is None
    assert known_layers(str(tmp_path)) == 3


CONFIG = {"num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2, "hidden_size": 1536}


@pytest.mark.parametrize(
    ("config", "dtype", "expected"),
    [
        (CONFIG, "bfloat16", 28 * 2 * 2 * 128 * 2),
        ({"text_config": CONFIG}, "float32", 28 * 2 * 2 * 128 * 4),
        ({**CONFIG, "head_dim": 64}, "float16", 28 * 2 * 2 * 64 * 2),
        ({}, "float32", None),
    ],
    ids=["qwen", "nested", "its own head", "unknown"],
)
def test_memory_of_a_token(config: dict[str, Any], dtype: str, expected: int | None) -> None:
    assert memory.token_bytes(config, dtype) == expected


@pytest.mark.parametrize(
    ("free", "words"),
    [(8_000_000_000, "8.0 GB are free"), (5_000_000_000, "warning"), (None, "3.0 GB for weights")],
    ids=["enough", "too little", "unknown"],
)
def test_memory_is_told_before_it_is_taken(free: int | None, words: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="forethought")
    memory.announce("m", 3_000_000_000, 4_000_000_000, how="fewer: num_sequences=N", free=free)
    assert words in caplog.text
    assert "up to 4.0 GB for keys and values (fewer: num_sequences=N)" in caplog.text
    assert ("warning" in caplog.text) == (free == 5_000_000_000)


def test_free_memory_is_the_least_of_machine_and_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    5000 kB\n")
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    assert memory.free_bytes() == 5000 * 1024
    (tmp_path / "memory.current").write_text("1000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.free_bytes() == 5000 * 1024
    (tmp_path / "memory.max").write_text("3000\n")
    assert memory.free_bytes() == 2000
