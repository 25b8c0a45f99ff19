"""Budgets of any size work without another flag, and what cannot fit is refused before anything is paid for."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forethought.commands import _exit_code
from forethought.core.data import EngineInfo, Query
from forethought.core.menu import Menu
from forethought.core.prompts import load_template
from forethought.engines.context import Room
from forethought.engines.lengths import BYTES_PER_TOKEN, prompt_lengths, upper_bound
from forethought.errors import InvalidSettingsError
from loopback import serving
from toy_server import ToyServer

MENU = Menu.evenly(1024, 8192)
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    monkeypatch.chdir(tmp_path)
    rows = [{"id": f"q{i}", "question": f"What is {i} plus {i}?", "answer": str(2 * i)} for i in range(24)]
    Path("q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def run(*args: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = _exit_code([str(arg) for arg in args])
        return (code, *capsys.readouterr())

    return run


@pytest.mark.slow
@pytest.mark.parametrize("largest", [2048, 8192, 32768])
def test_large_budgets_need_no_other_flag(call: Call, largest: int) -> None:
    menu = ("--window", largest // 4, "--max-tokens", largest, "--traces", 2, "--quiet", "--json")
    code, out, _ = call("profile", "fake", "q.jsonl", *menu)
    assert (code, json.loads(out)["failed"]) == (0, 0)
    assert call("train", "runs/fake-q", "--predictor", "ridge", "--quiet")[0] == 0
    code, out, _ = call("run", "runs/fake-q", "q.jsonl", "--mean-tokens", largest // 2, "--quiet", "--json")
    assert (code, json.loads(out)["failed"]) == (0, 0)


@pytest.mark.parametrize("more", [(), ("--dry-run",)], ids=["for real", "dry run"])
def test_a_context_that_is_too_small_is_refused_first(call: Call, more: tuple[str, ...]) -> None:
    menu = ("--window", 1024, "--max-tokens", 8192, "--quiet")
    code, _, err = call("profile", "fake", "q.jsonl", *menu, "--context-tokens", 2048, *more)
    assert code == 1
    assert "--context-tokens 2048 is too small for a cap of 8,192 tokens" in err
    assert "give at least" in err
    assert not Path("runs").exists()
    needed = int(err.strip().rpartition(" ")[2])
    assert call("profile", "fake", "q.jsonl", *menu, "--traces", 1, "--context-tokens", needed, *more)[0] == 0


@pytest.mark.parametrize("more", [(), ("--dry-run",)], ids=["for real", "dry run"])
def test_a_run_with_too_small_a_context_is_refused_first(call: Call, more: tuple[str, ...]) -> None:
    assert call("profile", "fake", "q.jsonl", "--window", 1024, "--max-tokens", 8192, "--quiet")[0] == 0
    assert call("train", "runs/fake-q", "--predictor", "mean", "--quiet")[0] == 0
    asked = ("run", "runs/fake-q", "q.jsonl", "--out", "r", "--mean-tokens", 4096, "--context-tokens", 2048, "--quiet")
    code, _, err = call(*asked, *more)
    assert code == 1
    assert "--context-tokens 2048 is too small for a cap of 8,192 tokens" in err
    assert not Path("r").exists()
    assert call(*asked, "--max-tokens", 1024, "--dry-run")[0] == 0


@pytest.mark.slow
def test_what_failed_counts_in_the_share_right(call: Call) -> None:
    assert call("profile", "fake", "q.jsonl", "--quiet")[0] == 0
    assert call("train", "runs/fake-q", "--predictor", "ridge", "--quiet")[0] == 0
    failing = ("--engine-option", "failure_rate=0.5", "--seed", 3)
    code, out, _ = call("run", "runs/fake-q", "q.jsonl", "--mean-tokens", 96, "--quiet", "--json", *failing)
    found = json.loads(out)
    assert code == 3
    assert 0 < found["failed"] == found["failed_with_reference"]
    assert found["with_reference"] == 24
    _, out, _ = call("run", "runs/fake-q", "q.jsonl", "--mean-tokens", 96, "--quiet", *failing, "--no-retry-failed")
    share = f"{found['right']} of 24 right ({found['right'] / 24:.1%}, {found['failed']} of them failed)"
    assert share in out


def toy_run(call: Call, context: int, *args: object) -> tuple[int, str, str, list[str]]:
    """A profile over a server that takes `context` tokens; with the paths that it was asked for."""
    Path("t.json").write_text(
        json.dumps({"name": "t", "reasoning_end": "##", "answer_suffix": "##{", "answer_stop": "}"})
    )
    asked: list[str] = []
    toy = ToyServer("vllm", context_tokens=context)

    def listening(request: Any) -> Any:
        asked.append(request.path)
        return toy(request)

    with serving(listening) as url:
        common = ("--base-url", url, "--template", "t.json", "--traces", 1, "--quiet")
        return (*call("profile", "toy", "q.jsonl", *common, *args), asked)


def test_the_length_of_the_server_is_heeded_before_it_is_asked_for_a_token(call: Call) -> None:
    code, _, err, asked = toy_run(call, 256, "--window", 64, "--max-tokens", 256)
    assert code == 1
    assert "takes 256 tokens" in err
    assert "Give --max-tokens" in err
    assert not any("completions" in path for path in asked)
    largest = int(err.strip().rpartition(" ")[2])
    code, _, _, asked = toy_run(call, 256, "--window", 64, "--max-tokens", largest)
    assert code == 0
    assert any("completions" in path for path in asked)


TEMPLATE = load_template("worked-5")


def room(tokens: int = 100, *, is_exact: bool = True) -> Room:
    lengths = prompt_lengths("fake", TEMPLATE, [Query("q", "How many?")] * 3, engine="fake")
    object.__setattr__(lengths, "tokens_Q", np.array([tokens, 2 * tokens, 3 * tokens]))
    object.__setattr__(lengths, "is_exact", is_exact)
    return Room(lengths, TEMPLATE, MENU)


ONE_SHORT = room().needed(8192) - 1


@pytest.mark.parametrize(
    ("context", "is_exact", "refused"),
    [
        (None, True, False),
        (20_000, True, False),
        (ONE_SHORT, True, True),
        (ONE_SHORT, False, False),
        (2048, False, True),
        (90, True, True),
    ],
    ids=["own", "ample", "one short", "short by a guess", "far short by a guess", "no prompt fits"],
)
def test_which_contexts_are_refused(context: int | None, is_exact: bool, refused: bool) -> None:
    asked = room(is_exact=is_exact)
    if not refused:
        asked.check_asked(context, 8192)
        return
    with pytest.raises(InvalidSettingsError, match=f"give at least {asked.needed(8192)}"):
        asked.check_asked(context, 8192)
    room().check_asked(room().needed(8192), 8192)


def test_caps_that_the_server_does_not_take() -> None:
    info = EngineInfo("openai", "m", context_tokens=4096)
    for cap_Q in ([8192] * 3, [8192, 1024, 1024]):
        with pytest.raises(InvalidSettingsError, match="Give --max-tokens 3072"):
            room().check_caps(info, np.array(cap_Q), tolerates=False)
    assert room().check_caps(info, np.array([3072] * 3), tolerates=False) is None
    note = room().check_caps(info, np.array([8192, 1024, 1024]), tolerates=True)
    assert note is not None
    assert "1 of 3 questions do not fit" in note
    with pytest.raises(InvalidSettingsError, match="3 of 3"):
        room().check_caps(info, np.array([8192] * 3), tolerates=True)


def test_lengths_without_a_tokenizer_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORETHOUGHT_HOME", str(tmp_path))
    queries = [Query("a", "Häuser zählen?"), Query("b", "x" * 350)]
    found = prompt_lengths("qwen2.5-coder-0.5b", TEMPLATE, queries)
    assert not found.is_exact
    assert found.how == f"estimated at {BYTES_PER_TOKEN:g} bytes per token"
    assert found.tokens_Q[1] - found.tokens_Q[0] == pytest.approx((350 - 16) / BYTES_PER_TOKEN, abs=1)


def test_lengths_by_a_local_tokenizer(tiny_model: Path) -> None:
    from forethought.engines.forcing import Forcing
    from forethought.engines.server.chat import load_tokenizer

    queries = [Query("a", "How many are 3 + 4?"), Query("b", "Why?")]
    found = prompt_lengths(str(tiny_model), TEMPLATE, queries)
    forcing = Forcing(load_tokenizer(str(tiny_model)), TEMPLATE)
    assert found.is_exact
    assert found.tokens_Q.tolist() == [len(forcing.prompt_ids(query)) for query in queries]
    most = upper_bound(TEMPLATE, queries, 64)
    assert most >= max(found.tokens_Q) + 64 + found.suffix_tokens + TEMPLATE.max_answer_tokens
