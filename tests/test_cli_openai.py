"""The command line with a model behind a server: profile, plan and run, and the names a model goes by."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="needs aiohttp")

from command_line import Call, write_questions
from forethought.commands import _exit_code
from loopback import serving
from toy_server import ToyServer

TEMPLATE = {"name": "toy", "reasoning_end": "##", "answer_suffix": "\n##{", "answer_stop": "}", "max_answer_tokens": 6}
MENU = ("--window", "8", "--max-tokens", "32", "--template", "toy.json", "--grader", "exact", "--quiet", "--json")


@pytest.fixture
def server() -> ToyServer:
    return ToyServer(model="org/toy-instruct")


@pytest.fixture
def url(server: ToyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server, and a folder with questions and a template; no key, no address in the environment."""
    for name in ("FORETHOUGHT_API_KEY", "OPENAI_API_KEY", "FORETHOUGHT_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    Path("toy.json").write_text(json.dumps(TEMPLATE))
    rows = [{"id": f"q{n}", "question": f"{n}+{n}?", "answer": str(2 * n)} for n in range(12)]
    Path("q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with serving(server) as address:
        yield address


def call(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, Any, str]:
    capsys.readouterr()
    code = _exit_code([str(arg) for arg in args])
    out, err = capsys.readouterr()
    return code, json.loads(out) if out.startswith("{") else out, err


@pytest.mark.slow
def test_from_profile_to_answers_over_http(url, server, capsys, monkeypatch):
    at = ("--base-url", url, "--served-model", "org/toy-instruct")
    code, profiled, err = call(capsys, "profile", "toy", "q.jsonl", "--traces", 2, *MENU, *at)
    assert (code, profiled["failed"], profiled["traces"]) == (0, 0, 24)
    assert "engine openai" in err
    assert "budgets enforced by two-call: the same as in-process engines do, by token ids" in err
    assert "of forced answers" in err  # what the probes cost, beside the thoughts
    assert "of them cached there" in err
    assert call(capsys, "train", "runs/toy-q", "--predictor", "mean")[0] == 0

    monkeypatch.setenv("FORETHOUGHT_BASE_URL", url)
    planning = ("runs/toy-q", "q.jsonl", "--mean-tokens", 16, "--template", "toy.json", "--json")
    planning += ("--engine", "openai", "--served-model", "org/toy-instruct")
    code, planned, _ = call(capsys, "plan", *planning)
    assert (code, planned["queries"]) == (0, 12)
    num_asked = len(server.asked)
    code, ran, _ = call(capsys, "run", *planning, "--quiet", "--grader", "exact")
    assert (code, ran["answered"], ran["failed"]) == (0, 12, 0)
    assert ran["reasoning_tokens"] <= planned["granted"]
    num_after = len(server.asked)
    assert num_after > num_asked
    header = json.loads((Path(ran["run"]) / "run.json").read_text())
    assert header["provenance"]["model"] == "toy"
    assert (header["provenance"]["server"], header["provenance"]["enforcement"]) == ("vllm 0.toy", "two-call")
    assert header["settings"]["plan"]["engine"]["options"]["base_url"] == url

    # Enforced in another way, the same run would mix what does not belong together.
    code, _, err = call(capsys, "run", *planning, "--quiet", "--grader", "exact", "--enforce", "native")
    assert code == 1
    assert "enforcement: 'two-call' there, 'native, room 70' now" in err


@pytest.mark.slow
def test_a_run_keeps_what_the_engine_counted(url, server, capsys):
    at = ("--base-url", url, "--served-model", "org/toy-instruct")
    assert call(capsys, "profile", "toy", "q.jsonl", *MENU, *at)[0] == 0
    assert call(capsys, "train", "runs/toy-q", "--predictor", "mean")[0] == 0
    running = ("run", "runs/toy-q", "q.jsonl", "--mean-tokens", 16, "--template", "toy.json", *at)
    running += ("--quiet", "--grader", "exact")
    code, ran, _ = call(capsys, *running, "--json")
    assert code == 0
    counts = ran["engine"]
    assert counts["trace_tokens"] >= ran["reasoning_tokens"]
    assert counts["answer_tokens"] > 0
    assert 0 < counts["cached_tokens"] < counts["prompt_tokens"]
    assert (counts["num_overshoots"], counts["num_disagreements"], counts["retries"]) == (0, 0, {})

    # Nothing is left to do: what was counted before stays, and a person is told.
    code, text, _ = call(capsys, *running)
    assert code == 0
    assert f"answer tokens {counts['answer_tokens']:,}" in text
    assert "overshoots" not in text

    server.keeps_cap = False
    native = (*running, "--json", "--enforce", "native", "--out", "native")
    code, ran, _ = call(capsys, *native)
    assert code == 3
    assert ran["engine"]["num_overshoots"] == ran["failed"] > 0
    assert ran["engine"]["largest_overshoot"] > 0


def test_an_engine_that_counts_nothing_leaves_no_counts(url, capsys):
    assert call(capsys, "profile", "fake", "q.jsonl", "--template", "toy.json", "--quiet")[0] == 0
    assert call(capsys, "train", "runs/fake-q", "--predictor", "mean")[0] == 0
    running = ("run", "runs/fake-q", "q.jsonl", "--mean-tokens", 16, "--template", "toy.json", "--quiet", "--json")
    code, ran, _ = call(capsys, *running)
    assert code == 0
    assert "engine" not in ran


@pytest.mark.slow
def test_a_predictor_of_another_name_is_refused(url, capsys):
    at = ("--base-url", url, "--served-model", "org/toy-instruct")
    assert call(capsys, "profile", "toy", "q.jsonl", *MENU, *at)[0] == 0
    assert call(capsys, "train", "runs/toy-q", "--predictor", "mean")[0] == 0
    planning = ("runs/toy-q", "q.jsonl", "--mean-tokens", 16, "--template", "toy.json", *at)
    assert call(capsys, "plan", *planning)[0] == 0  # the name on the card
    code, _, err = call(capsys, "run", *planning, "--model", "other", "--quiet")
    assert code == 1
    assert "model: predictor 'toy', engine 'other'" in err


def test_a_predictor_that_reads_hidden_states_says_what_to_do(url, capsys):
    assert call(capsys, "profile", "fake", "q.jsonl", "--template", "toy.json", "--quiet")[0] == 0
    assert call(capsys, "train", "runs/fake-q", "--predictor", "ridge")[0] == 0
    at = ("--base-url", url, "--served-model", "org/toy-instruct")
    code, _, err = call(capsys, "plan", "runs/fake-q", "q.jsonl", "--mean-tokens", 16, "--template", "toy.json", *at)
    assert code == 1
    assert "--predictor text" in err


def test_a_dry_run_asks_nobody(url, server, capsys):
    code, bill, _ = call(capsys, "profile", "toy", "q.jsonl", *MENU, "--base-url", url, "--dry-run")
    assert (code, bill["num_total"]) == (0, 48)
    assert not server.asked


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        pytest.param(
            ("--engine", "fake", "--base-url", "http://127.0.0.1:1"),
            "--base-url: engine 'fake' uses no server",
            id="not-a-server",
        ),
        pytest.param(("--engine", "openai"), "--base-url http://", id="no-address"),
        pytest.param(("--base-url", "URL", "--enforce", "nativ"), "Did you mean 'native'", id="enforcement"),
        pytest.param(
            ("--base-url", "URL", "--engine-option", "api_key=sk-123"),
            "no option of engine 'openai' is called 'api_key'",
            id="key-as-option",
        ),
        pytest.param(("--base-url", "URL"), "--served-model", id="another-name"),
    ],
)
def test_what_cannot_be_is_said(url, capsys, flags, message):
    flags = [url if flag == "URL" else flag for flag in flags]
    code, _, err = call(capsys, "profile", "toy", "q.jsonl", *MENU, *flags)
    assert code == 1
    assert message in err
    assert "sk-123" not in err
    assert not Path("runs").exists()


def test_what_nobody_named_stays_as_the_run_was_begun(url, server, capsys):
    """An earlier version asked every model with worked-5, at 16, 32, … 256: its runs go on by the same command."""
    server.context_tokens = 8192
    command = ("profile", "org/toy-instruct", "q.jsonl", "--base-url", url, "--traces", 1, "--out", "r", "--quiet")
    as_before = ("--template", "worked-5", "--budgets", "4,8,20", "--grader", "exact", "--limit", 2)
    assert call(capsys, *command, *as_before)[0] == 0
    code, out, err = call(capsys, *command, "--grader", "exact", "--limit", 3)
    assert code == 0, err
    assert out.startswith("3 questions, 3 traces")
    assert "template worked-5: as r was begun" in err
    assert "budgets 4, 8, 20: as r was begun" in err
    code, _, err = call(capsys, *command, "--grader", "exact", "--limit", 3, "--template", "boxed")
    assert code == 1
    assert "template: 'worked-5' there, 'boxed' now" in err


@pytest.mark.parametrize("enforce", ["native", "max-tokens"])
def test_one_answer_a_thought_is_refused_for_several_caps_before_a_token_is_paid(
    call: Call, tmp_path: Path, enforce: str
) -> None:
    questions = write_questions(tmp_path / "q.jsonl", 4)
    server = ToyServer()
    with serving(server) as url:
        flags = ("--base-url", url, "--template", "boxed", "--enforce", enforce, "--budgets", "8,16")
        said = call("profile", "toy", questions, *flags, "--out", tmp_path / "p")
        rehearsed = call("profile", "toy", questions, *flags, "--dry-run")
    for each in (said, rehearsed):
        assert each.code == 1
        assert "one answer per thought" in each.err
        assert "--menu FILE" in each.err
    assert not (tmp_path / "p" / "records.jsonl").exists()
