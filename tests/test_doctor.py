"""The doctor: what it sees here and at a server, and when it is not content."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="needs aiohttp")

from forethought.commands import _exit_code
from forethought.core.menu import Menu
from forethought.core.options import Option
from forethought.core.profile import Profile
from forethought.core.study_settings import DoctorSettings
from forethought.servers.kinds import KINDS
from forethought.studies import doctor
from forethought.studies.doctor.machine import EXTRAS
from loopback import Asked, Reply, serving
from test_engines_openai_faults import SECRET
from toy_server import ToyServer, encode


@pytest.fixture
def template(tmp_path) -> str:
    path = tmp_path / "toy.json"
    path.write_text(json.dumps({"name": "toy", "reasoning_end": "##", "answer_suffix": "\n##{", "answer_stop": "}"}))
    return str(path)


def examined(server: Any, template: str, **settings: Any) -> doctor.Diagnosis:
    with serving(server) as url:
        return doctor.examine(DoctorSettings(base_url=url, template=template, **settings))


def finding(diagnosis: doctor.Diagnosis, name: str) -> doctor.Finding:
    return next(each for each in diagnosis.findings if each.name == name)


def toy(kind: str = "vllm", **changes: Any) -> ToyServer:
    return ToyServer(kind, context_tokens=4096, **changes)


def test_the_machine_alone(capsys):
    assert _exit_code(["doctor"]) == 0
    out = capsys.readouterr().out
    for extra in EXTRAS:
        assert f"extra {extra}" in out
    found = doctor.examine(DoctorSettings())
    assert found.is_kept is None
    for each in found.findings:
        if each.is_fine is False:
            assert each.hint.startswith("pip install 'forethought[")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vllm", "sglang", "llama.cpp"])
def test_a_good_server_gets_its_flags(kind, template):
    found = examined(toy(kind), template)
    for name in (
        "reachable",
        "kind",
        "models",
        "token ids",
        "logprobs",
        "usage details",
        "seeds",
        "budget by two-call",
    ):
        assert finding(found, name).is_fine, finding(found, name)
    assert kind in finding(found, "kind").detail
    assert found.is_kept
    assert found.flags.startswith("--engine openai --base-url http://127.0.0.1:")
    assert found.flags.endswith("--served-model toy --enforce two-call")


def test_a_cap_that_is_dropped_is_seen_and_is_exit_code_1(template, capsys):
    with serving(toy(keeps_cap=False)) as url:
        arguments = ["doctor", "--base-url", url, "--template", template, "--json"]
        assert _exit_code([*arguments, "--enforce", "native"]) == 1
        native = json.loads(capsys.readouterr().out)
        assert _exit_code([*arguments, "--enforce", "two-call"]) == 0
        assert _exit_code(arguments) == 0
    assert native["is_kept"] is False
    seen = next(each for each in native["findings"] if each["name"] == "budget by native")
    assert "ignored the cap" in seen["detail"]
    assert "--reasoning-parser" in seen["hint"]
    assert native["flags"] == ""


def overshooting(by: int) -> Any:
    """A server whose native cap lets `by` tokens too many through, as vLLM's does after a start tag of several."""
    well = toy()

    def handle(asked: Asked) -> Reply:
        reply = well(asked)
        body = asked.json if asked.content else {}
        if "thinking_token_budget" in body:
            length = body["thinking_token_budget"] + by
            message = {"reasoning": "a" * length, "content": "##{1}"}
            usage = {"prompt_tokens": 3, "completion_tokens": length + 5}
            return Reply({"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage})
        return reply

    return handle


def test_a_constant_overshoot_is_measured_and_corrected(template):
    assert len(encode("a" * 9)) == 9
    found = examined(overshooting(2), template, enforce="native")
    assert found.is_kept
    assert found.flags.endswith("--enforce native --engine-option cap_offset=2")
    assert examined(overshooting(40), template, enforce="native").is_kept is False


def test_thoughts_shorter_than_their_caps_show_nothing(template):
    def handle(asked: Asked) -> Reply:
        if not asked.path.endswith("completions"):
            return toy("other")(asked)
        message = {"reasoning_content": "a", "content": "##{1}"}
        return Reply({"choices": [{"message": message, "finish_reason": "stop"}], "usage": {"completion_tokens": 6}})

    found = examined(handle, template, enforce="native", options={"server": "dynamo"})
    assert found.is_kept is False
    assert "none was long enough" in finding(found, "budget by native").detail


EFFORTS = {"minimal": 5, "low": 40, "medium": 300, "high": 900}


def reasoning(spread: int = 0) -> Any:
    """A server whose thoughts are as long as its effort level, and by up to `spread` longer the longer the question."""

    def handle(asked: Asked) -> Reply:
        if not asked.path.endswith("completions"):
            return toy("other")(asked)
        body = asked.json
        if body.get("reasoning_effort", "low") not in EFFORTS:
            return Reply({"error": {"message": "no such level"}}, status=400)
        tokens = EFFORTS[body.get("reasoning_effort", "low")] + min(spread, len(body["messages"][-1]["content"]) % 100)
        message = {"reasoning_content": "a", "content": "##{1}"}
        details = {"completion_tokens_details": {"reasoning_tokens": tokens}}
        usage = {"completion_tokens": tokens + 6, **details}
        return Reply({"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage})

    return handle


def measuring(tmp_path: Path, lengths: Any = range(100, 140), **settings: Any) -> dict[str, Any]:
    """Settings that measure levels on questions of these lengths, into menu.toml."""
    path = tmp_path / "q.jsonl"
    path.write_text("".join(json.dumps({"question": "a" * length, "answer": "1"}) + "\n" for length in lengths))
    return {"questions": str(path), "out": str(tmp_path / "menu.toml"), **settings}


def test_levels_are_measured_into_a_menu_that_profile_takes(template, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    measuring(tmp_path)
    with serving(reasoning(spread=100)) as url:
        assert _exit_code(["doctor", "--base-url", url, "--template", template, "--questions", "q.jsonl"]) == 0
        out = capsys.readouterr().out
        running = ["profile", "toy", "q.jsonl", "--base-url", url, "--template", template, "--quiet", "--limit", "2"]
        assert _exit_code([*running, "--menu", "menu.toml", "--traces", "1", "--out", "run"]) == 0
    assert "--menu menu.toml" in out
    options = {option.label: option for option in Menu.read("menu.toml").options}
    assert list(options) == list(EFFORTS)
    for level, base in EFFORTS.items():  # lengths 0 to 39, and 6 tokens of answer
        assert options[level] == Option(level, set={"reasoning_effort": level}, tokens=base + 19.5 + 6)
    assert Profile.load("run").menu.labels == tuple(EFFORTS)


def test_the_bill_of_levels_is_told_first(template, tmp_path, caplog):
    settings = measuring(tmp_path, levels=("low", "high"))
    server = toy()
    dry = examined(server, template, dry_run=True, **settings)
    item = next(item for item in dry.bill.items if item.name == "effort levels")
    assert (item.num_requests, item.num_tokens) == (80, 80 * 4096)  # thoughts are as long as the context
    assert not generating(server)
    with caplog.at_level("INFO", logger="forethought"):
        examined(reasoning(), template, **settings)
    lines = [record.message for record in caplog.records]
    assert next(i for i, line in enumerate(lines) if "effort levels: 80 requests" in line) < next(
        i for i, line in enumerate(lines) if line.startswith("option low")
    )


def test_a_number_among_the_levels_is_a_cap(template, tmp_path):
    settings = measuring(tmp_path, range(3, 33), levels=("8", "32"))
    found = examined(toy(), template, **settings)
    assert found.is_kept
    assert [(option.label, option.cap) for option in Menu.read(settings["out"]).options] == [
        ("cap 8", 8),
        ("cap 32", 32),
    ]


def test_levels_are_measured_with_thoughts_drawn_as_asked(template, tmp_path):
    drawn = []

    def handle(asked: Asked) -> Reply:
        if asked.path.endswith("completions") and "reasoning_effort" in asked.json:
            drawn.append((asked.json["temperature"], asked.json["top_p"]))
        return reasoning()(asked)

    examined(handle, template, temperature=0.8, top_p=0.9, **measuring(tmp_path, range(3, 6)))
    assert set(drawn) == {(0.8, 0.9)}


def test_few_questions_are_written_down_and_said_to_show_nothing(template, tmp_path):
    settings = measuring(tmp_path, (3, 4), levels=("low", "high"))
    found = examined(reasoning(), template, **settings)
    assert found.is_kept
    levels = finding(found, "effort levels")
    assert levels.is_fine is None
    assert "no visible difference (p = " in levels.detail
    assert "so few questions cannot show one" in levels.detail
    assert [option.tokens for option in Menu.read(settings["out"]).options] == [46.0, 906.0]


def test_levels_that_make_no_difference_are_said_to_make_none(template, tmp_path):
    """Thoughts of some 4,000 tokens whatever the level, no two alike: their order says nothing."""
    lengths = iter([3955, 4021, 3990, 4102, 4010, 3961, 4003, 3987, 4055, 3940, 3999, 4031, 3972, 4040])

    def handle(asked: Asked) -> Reply:
        if not asked.path.endswith("completions") or "reasoning_effort" not in asked.json:
            return toy("other")(asked)
        tokens = next(lengths)
        message = {"reasoning_content": "a", "content": "##{1}"}
        usage = {"completion_tokens": tokens + 6, "completion_tokens_details": {"reasoning_tokens": tokens}}
        return Reply({"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage})

    settings = measuring(tmp_path, (3, 4))
    found = examined(handle, template, **settings)
    assert finding(found, "effort levels").is_fine is False
    assert "they make no visible difference (p = " in finding(found, "effort levels").detail
    assert not Path(settings["out"]).exists()


def test_levels_are_not_measured_unless_asked_for(template):
    """At a server that keeps no cap at all; whole thoughts are a bill that nobody asked for."""
    bodies = []

    def handle(asked: Asked) -> Reply:
        if asked.path.endswith("completions"):
            bodies.append(asked.json)
        return reasoning()(asked)

    found = examined(handle, template)
    assert bodies
    assert not any("reasoning_effort" in body for body in bodies)
    levels = finding(found, "effort levels")
    assert levels.is_fine is None
    assert "--questions FILE" in levels.hint


@pytest.mark.slow
@pytest.mark.parametrize("enforce", ["auto", "two-call", "native", "max-tokens"])
def test_a_dry_run_tells_the_bill_and_generates_nothing(enforce, template, capsys):
    server = toy()
    with serving(server) as url:
        arguments = ["doctor", "--base-url", url, "--template", template, "--enforce", enforce, "--json"]
        assert _exit_code([*arguments, "--dry-run"]) == 0
        bill = json.loads(capsys.readouterr().out)["bill"]
        assert not generating(server)
        _exit_code(arguments)
        told = json.loads(capsys.readouterr().out)["bill"]
    assert told == bill
    lengths = generating(server)
    assert 0 < len(lengths) <= bill["num_requests"]
    assert sum(lengths) <= bill["num_tokens"]


def generating(server: ToyServer) -> list[int]:
    """Most tokens of each request that generates something."""
    found = [body.get("max_completion_tokens", body.get("max_tokens")) for body in server.bodies]
    return [length for length in found if length is not None]


def test_a_server_that_hangs_is_asked_once(template):
    """And not ten times more, each with its own wait."""
    num_asked = 0

    def handle(asked: Asked) -> Reply:
        nonlocal num_asked
        if not asked.path.endswith("completions"):
            return toy("other")(asked)
        num_asked += 1
        return Reply({}, delay=30.0)

    found = examined(handle, template, timeout_seconds=0.6)
    assert num_asked == 2  # tried twice
    assert found.is_kept is False
    assert "no answer within 0.6 s" in finding(found, "logprobs").detail
    for name in ("usage details", "seeds", "budget by max-tokens"):
        assert finding(found, name).detail == "not tried: the server did not answer in time before"


ODD = {
    "no choices": {"choices": []},
    "choices an object": {"choices": {}},
    "a message of text": {"choices": [{"message": "hello"}]},
    "a message of null": {"choices": [{"message": None}]},
    "logprobs a text": {"choices": [{"message": {"content": "6"}, "logprobs": "all"}]},
    "usage a list": {"choices": [{"message": {"content": "6"}}], "usage": [1]},
    "details a text": {"choices": [{"message": {"content": "6"}}], "usage": {"completion_tokens_details": "y"}},
    "content a number": {"choices": [{"message": {"content": 7}}], "timings": [3]},
}


@pytest.mark.slow
@pytest.mark.parametrize("answer", ODD.values(), ids=ODD)
def test_odd_answers_are_findings(answer, template):
    def handle(asked: Asked) -> Reply:
        return Reply(answer) if asked.path.endswith("completions") else toy("other")(asked)

    found = examined(handle, template)
    assert found.is_kept is False
    assert finding(found, "seeds")


@pytest.mark.slow
def test_max_tokens_alone_says_what_it_cannot_do(template):
    found = finding(examined(toy("other"), template, enforce="max-tokens"), "budget by max-tokens")
    assert found.is_fine
    assert "several caps as options (--menu FILE)" in found.hint
    assert "leaves no answer" in found.hint


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["--questions", "q.jsonl"], "add --base-url URL", id="no-server"),
        pytest.param(
            ["--base-url", "http://127.0.0.1:1", "--levels", "low"], "add --questions FILE", id="no-questions"
        ),
    ],
)
def test_levels_need_a_server_and_questions(arguments, message, capsys):
    assert _exit_code(["doctor", *arguments]) == 1
    assert message in capsys.readouterr().err


def test_nobody_there(template, capsys):
    with serving(toy()) as url:
        pass
    assert _exit_code(["doctor", "--base-url", url]) == 1
    assert "no server answers" in capsys.readouterr().out


def test_the_key_is_not_told(template, capsys, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)

    def handle(asked: Asked) -> Reply:
        return Reply({"error": {"message": f"wrong key {asked.headers['authorization']}"}}, status=401)

    with serving(handle) as url:
        assert _exit_code(["doctor", "--base-url", url]) == 1
    written = capsys.readouterr()
    assert "[api key]" in written.out
    assert SECRET not in written.out + written.err


def test_a_server_that_wants_a_key_is_not_asked_on(template, capsys):
    """vLLM under --api-key shows /version and /health to everybody, and refuses what lies under /v1."""
    paths = []

    def handle(asked: Asked) -> Reply:
        paths.append(asked.path)
        is_open = asked.path == "/version"
        return Reply({"version": "0.32.0"}) if is_open else Reply({"error": "Unauthorized"}, status=401)

    with serving(handle) as url:
        assert _exit_code(["doctor", "--base-url", url]) == 1
    written = capsys.readouterr().out
    assert "HTTP 401: Unauthorized. The server's key is read from FORETHOUGHT_API_KEY" in written
    assert "kind" not in written
    assert not [path for path in paths if path.endswith("completions")]


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_every_row_puts_its_cap_where_its_path_says(kind):
    if not kind.cap:
        pytest.skip("no native cap")
    found: Any = kind.native(77)
    *parents, last = kind.cap.split(".")
    for name in parents:
        found = found[name]
    assert found[last] == 77
    assert {**found, last: None} == {**kind.beside, **dict.fromkeys(kind.aliases, 77), last: None}


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORETHOUGHT_API_KEY", "OPENAI_API_KEY", "FORETHOUGHT_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def test_a_budget_is_not_called_kept_where_nothing_tells_the_tokens():
    from forethought.core.data import Generation, StopReason
    from forethought.studies.doctor.server import _verdict

    def done(tokens: int | None, budget: int) -> Generation:
        return Generation("q", 0, budget, "so", tokens, "5", tokens, 0, 3, StopReason.BUDGET)

    assert _verdict([done(8, 8), done(16, 16)])[1]
    words, is_kept = _verdict([done(8, 8), done(None, 16)])
    assert not is_kept
    assert "1 of 2 thoughts: their tokens cannot be counted reliably" in words
