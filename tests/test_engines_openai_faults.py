"""The openai engine against a server that misbehaves: every request ends once, counted, and no key is ever seen."""

from __future__ import annotations

import asyncio
import contextlib
import json
import pickle
import socket
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="needs aiohttp")

from engine_contract import BUDGET, TEMPLATE, run
from faulty_server import FaultyServer, streaming
from forethought.commands import _exit_code
from forethought.core.data import Query, Request, Sampling
from forethought.engines.server.engine import OpenAIEngine
from forethought.errors import EngineError, InvalidSettingsError
from forethought.runs.store import RunDirectory
from forethought.servers.address import Address, Key
from forethought.servers.client import Client
from forethought.servers.retrying import Backoff, RequestError
from forethought.servers.tokens import Counters
from forethought.servers.troubles import asked_wait
from loopback import Asked, Reply, serving
from test_engines_openai import in_process
from toy_server import ToyServer

SECRET = "sk-forethought-test-5f9c1e7a"
PASSING = ("429", "429-seconds", "429-date", "500", "503", "hang", "cut", "no-answer", "malformed", "error-200")
LASTING = ("redirect", "unauthorised", "ignored-budget", "no-choices")
NUM_REQUESTS = 2000


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORETHOUGHT_API_KEY", SECRET)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def engine_at(url: str, **options: Any) -> OpenAIEngine:
    defaults = {"concurrency": 64, "timeout_seconds": 2.0, "backoff_seconds": 0.01, "max_attempts": 6}
    common = {"template": TEMPLATE, "sampling": Sampling(temperature=1.0), "context_tokens": 256}
    return OpenAIEngine("toy", base_url=url, **{**common, **defaults, **options})


def toy_answers(asked: Asked) -> Reply:
    return ToyServer()(asked)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("good", "options", "faults"),
    [
        pytest.param(toy_answers, {"enforce": "two-call"}, (*PASSING, *LASTING, "wrong-usage"), id="two-calls"),
        pytest.param(
            streaming,
            {"enforce": "native", "server": "tensorrt-llm"},
            (*PASSING, *LASTING, "out-of-order"),
            id="streams",
        ),
    ],
)
def test_two_thousand_requests_with_faults_in_three_of_ten(good, options, faults, capfd, caplog):
    server = FaultyServer(good, faults=faults)
    asked = [Request(Query(f"q{n}", f"{n}+{n}?"), BUDGET, n % 3, n) for n in range(NUM_REQUESTS)]
    with serving(server) as url:
        engine = engine_at(url, **options)
        before = engine.counters.num_attempts
        found = run(engine, asked)  # fails where one comes twice
        attempts = engine.counters.num_attempts - before
        engine.close()
    assert sorted(found) == sorted((request.query.id, request.sample) for request in asked)
    failed = {query_id: done for (query_id, _), done in found.items() if done.error}
    assert all(done.answer is not None and done.reasoning_tokens <= BUDGET for done in found.values())
    assert set(server.met) == set(faults)
    assert attempts >= server.num_generating > NUM_REQUESTS
    # What failed is what trying again does not help, and says why; the rest is what a server without faults gives.
    reasons = " ".join(done.error for done in failed.values())
    for words in ("redirects to http://elsewhere.invalid/v1,", "HTTP 401", "ignored the cap", "no choices"):
        assert words in reasons
    assert engine.counters.num_overshoots == sum("ignored the cap" in done.error for done in failed.values())
    assert {"429", "500", "503", "timeout", "connection", "malformed", "error"} <= set(engine.counters.retries)
    healthy = [request for request in asked if request.query.id not in failed]
    assert len(healthy) > NUM_REQUESTS // 2
    if options["enforce"] == "native":
        unlucky = [done for done in failed.values() if "(tried 4 times" in done.error]  # a bad answer four times over
        assert len(unlucky) < NUM_REQUESTS // 100
        assert len(failed) - len(unlucky) == len(server.lasting)
    for request in healthy:
        done = found[request.query.id, request.sample]
        if options["enforce"] == "native":
            assert (done.reasoning_tokens, done.answer_tokens, done.answer) == (12, 2, "12")
        else:
            assert done == in_process(request)
    written = capfd.readouterr()
    everything = f"{written.out}{written.err}{caplog.text}{engine!r}{vars(engine)}{engine.info}{found}"
    assert SECRET not in everything
    assert "[api key]" in reasons


@pytest.mark.slow
def test_a_run_over_a_faulty_server_is_finished_by_trying_again(tmp_path, monkeypatch, capfd, caplog):
    """Through the command line: exit code 3 and the reasons on record, then 0; the key in no file and no output."""
    monkeypatch.chdir(tmp_path)
    Path("q.jsonl").write_text(
        "".join(json.dumps({"id": f"q{n}", "question": f"{n}?", "answer": "1"}) + "\n" for n in range(40))
    )
    Path("template.json").write_text(
        json.dumps({"name": "t", "reasoning_end": "##", "answer_suffix": "##{", "answer_stop": "}"})
    )
    arguments = [
        "profile",
        "toy",
        "q.jsonl",
        "--window",
        "8",
        "--max-tokens",
        "16",
        "--traces",
        "2",
        "--quiet",
        "--json",
    ]
    arguments += ["--template", "template.json", "--enforce", "two-call"]
    arguments += ["--engine-option", "backoff_seconds=0.01", "--engine-option", "timeout_seconds=2"]
    server = FaultyServer(toy_answers, faults=("429", "500", "cut", "unauthorised"), share=0.2)
    with serving(server) as url:
        monkeypatch.setenv("FORETHOUGHT_BASE_URL", url)
        assert _exit_code([*arguments, "--engine", "openai"]) == 3
    first = json.loads(capfd.readouterr().out)
    assert first["failed"] > 0
    with serving(toy_answers) as url:  # the server has moved, and is well again
        assert _exit_code([*arguments, "--base-url", url, "--retry-failed"]) == 0
    written = capfd.readouterr()
    assert json.loads(written.out)["failed"] == 0
    header = json.loads(Path("runs/toy-q/run.json").read_text())
    assert header["provenance"]["server"] == "vllm 0.toy"
    assert header["provenance"]["enforcement"] == "two-call"
    assert header["settings"]["engine"]["options"]["base_url"].startswith("http://127.0.0.1:")
    records = Path("runs/toy-q/records.jsonl").read_text()
    assert "HTTP 401: Incorrect API key provided: Bearer [api key]" in records
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or SECRET.encode() not in file.read_bytes()
    assert SECRET not in written.err + caplog.text


SERVER = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
from loopback import listen
from toy_server import ToyServer

def handle(asked):
    reply = ToyServer()(asked)
    if asked.path.endswith("completions"):
        reply.delay = 0.05
        with open(sys.argv[3], "a") as log:
            print("answer" if asked.json.get("stop") == ["}"] else "thought", file=log, flush=True)
    return reply

async def main():
    await (await listen(handle, int(sys.argv[2]))).serve_forever()

asyncio.run(main())
"""


class Killed:
    """A toy server in a process of its own, which is killed once it has begun on so many thoughts."""

    def __init__(self, folder: Path, number: int, port: int, thoughts: int | None) -> None:
        self.log = folder / f"asked-{number}"
        self.log.touch()
        command = [sys.executable, "-c", SERVER, str(Path(__file__).parent), str(port), str(self.log)]
        self._process = subprocess.Popen(command)
        self._thoughts = thoughts
        self._killing = threading.Thread(target=self._kill)
        self._is_over = threading.Event()
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.05)
        self._killing.start()

    @property
    def num_thoughts(self) -> int:
        return self.log.read_text().count("thought")

    def _kill(self) -> None:
        while not self._is_over.wait(0.01):
            if self._thoughts is not None and self.num_thoughts >= self._thoughts:
                break
        self._process.kill()
        self._process.wait()

    def dead(self) -> None:
        """Returns once it has been killed."""
        self._killing.join()

    def end(self) -> None:
        self._is_over.set()
        self.dead()


@pytest.mark.parametrize("is_back_soon", [True, False])
def test_a_server_that_is_killed_costs_no_finished_answer(tmp_path, monkeypatch, capfd, is_back_soon):
    """kill -9 half-way. Who waits for it loses nothing; who does not is told so in one sentence, and goes on later."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("forethought.servers.client.AWAY_SECONDS", 60.0 if is_back_soon else 0.2)
    rows = [{"id": f"q{n}", "question": f"{n}+{n}?", "answer": "1"} for n in range(30)]
    Path("q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    template = {"name": "t", "reasoning_end": "##", "answer_suffix": "##{", "answer_stop": "}"}
    Path("template.json").write_text(json.dumps(template))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    arguments = ["profile", "toy", "q.jsonl", "--window", "16", "--max-tokens", "16", "--traces", "1", "--quiet"]
    arguments += ["--template", "template.json", "--enforce", "two-call", "--concurrency", "4", "--out", "run"]
    arguments += ["--base-url", f"http://127.0.0.1:{port}", "--engine-option", "backoff_seconds=0.05"]
    first = Killed(tmp_path, 1, port, 15)
    if is_back_soon:
        again = []
        coming = threading.Thread(target=lambda: (first.dead(), again.append(Killed(tmp_path, 2, port, None))))
        coming.start()
        assert _exit_code(arguments) == 0
        coming.join()
        second = again[0]
        assert second.num_thoughts <= 30 - 15 + 4  # those that were under way are asked for again
    else:
        assert _exit_code(arguments) == 1
        said = capfd.readouterr().err.splitlines()[-1]
        assert said.startswith(f"error: the server at http://127.0.0.1:{port}/v1 is away: ")
        assert said.endswith("start it again, and the same command goes on from what is saved")
        finished = Path("run/records.jsonl").read_text().splitlines()
        second = Killed(tmp_path, 2, port, None)
        assert _exit_code(arguments) == 0
        assert Path("run/records.jsonl").read_text().splitlines()[: len(finished)] == finished
        assert second.num_thoughts == 30 - len(finished)
    second.end()
    records = RunDirectory(Path("run")).records()
    assert sorted(record.query_id for record in records) == sorted(row["id"] for row in rows)
    assert not [record for record in records if record.is_failed]


def test_a_server_that_stumbles_while_it_is_asked_what_it_is_is_known_all_the_same():
    """Else a resumed run would meet another identity."""
    seen = set()

    def handle(asked: Asked) -> Reply:
        if asked.path in seen:
            return toy_answers(asked)
        seen.add(asked.path)
        return Reply({}, status=503)

    with serving(handle) as url:
        assert engine_at(url).info.server == "vllm 0.toy"


@pytest.mark.parametrize("path", ["/v1/models", "/tokenize"])
def test_who_does_not_say_what_it_is_is_not_waited_for_as_for_an_answer(path, monkeypatch):
    monkeypatch.setattr("forethought.servers.client.ASK_SECONDS", 0.2)

    def handle(asked: Asked) -> Reply:
        return Reply({}, delay=3.0) if asked.path == path else toy_answers(asked)

    words = r"no server answers at .*: no answer within 0.2 s \(tried .* Is it running\?"
    with serving(handle) as url, pytest.raises(EngineError, match=words):
        engine_at(url)


def test_a_page_where_an_answer_should_be_is_no_answer():
    def handle(asked: Asked) -> Reply:
        known = asked.path in ("/v1/models", "/v1/chat/completions")
        return ToyServer("other")(asked) if known else Reply(b"<html>welcome</html>")

    with serving(handle) as url:
        assert engine_at(url).info.server == "other"


class TestAddress:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("http://127.0.0.1:8000", "http://127.0.0.1:8000/v1"),
            ("http://127.0.0.1:8000/v1/", "http://127.0.0.1:8000/v1"),
            ("https://host/some/path/v1", "https://host/some/path/v1"),
            ("http://[::1]:8000/v1", "http://[::1]:8000/v1"),
        ],
    )
    def test_what_is_meant(self, text, expected):
        assert str(Address.parse(text)) == expected

    def test_routes(self):
        address = Address.parse("http://host:1/proxy/v1")
        assert address.api("models") == "http://host:1/proxy/v1/models"
        assert address.root("tokenize") == "http://host:1/proxy/tokenize"

    @pytest.mark.parametrize(
        "text",
        [
            f"http://user:{SECRET}@host/v1",
            f"http://{SECRET}@host/v1",
            f"http://host/v1?key={SECRET}",
            f"http://host/v1#{SECRET}",
            f"ftp://user:{SECRET}@host",
            f"user:{SECRET}@host",
            f"http://user:{SECRET}@host:port/v1",
        ],
    )
    def test_what_could_hold_a_secret_is_refused_and_not_repeated(self, text, capfd):
        with pytest.raises(InvalidSettingsError) as refused:
            Address.parse(text)
        assert SECRET not in str(refused.value)
        assert _exit_code(["doctor", "--base-url", text]) == 1
        written = capfd.readouterr()
        assert SECRET not in written.out + written.err


class TestKey:
    def test_it_is_not_shown(self):
        found = Key.from_environment()
        assert SECRET not in repr(found) + str(found)
        assert found.variable == "FORETHOUGHT_API_KEY"
        assert found.hide(f"so {SECRET}!") == "so [api key]!"

    def test_the_variable_can_be_named(self, monkeypatch):
        monkeypatch.setenv("MY_KEY", "other")
        assert Key.from_environment("MY_KEY").headers() == {"Authorization": "Bearer other"}
        with pytest.raises(InvalidSettingsError, match="NO_KEY"):
            Key.from_environment("NO_KEY")

    @pytest.mark.parametrize("value", [f"{SECRET}\nX-Other: 1", f"{SECRET}é"])
    def test_what_no_header_can_carry_is_refused_and_not_repeated(self, monkeypatch, value):
        monkeypatch.setenv("FORETHOUGHT_API_KEY", value)
        with pytest.raises(InvalidSettingsError) as refused:
            Key.from_environment()
        assert SECRET not in str(refused.value)

    def test_a_redirect_does_not_take_it_along(self):
        seen = []

        def elsewhere(asked: Asked) -> Reply:
            seen.append(asked.headers)
            return Reply({"data": []})

        def away(_: Asked) -> Reply:
            return Reply(b"", status=302, headers={"Location": f"{other}/v1/models"})

        with serving(elsewhere) as other, serving(away) as url:
            found = asyncio.run(ask(url, "models"))
        assert "redirects to" in found
        assert not seen

    def test_it_is_sent_to_the_server_alone(self):
        seen = []

        def handle(asked: Asked) -> Reply:
            seen.append(asked.headers["authorization"])
            return Reply({"data": []})

        with serving(handle) as url:
            asyncio.run(ask(url, "models"))
        assert seen == [f"Bearer {SECRET}"]


async def ask(url: str, route: str, **backoff: Any) -> str:
    """The reason why a request to `route` fails, or ""."""
    backoff = {"max_attempts": 3, "base_seconds": 0.001, **backoff}
    async with Client(
        Address.parse(url),
        Key.from_environment(),
        backoff=Backoff(**backoff),
        timeout_seconds=5.0,
        concurrency=4,
        counters=Counters(),
    ) as client:
        try:
            await client.get(client.address.api(route))
        except RequestError as error:
            return str(pickle.loads(pickle.dumps(error)))
    return ""


class TestRetrying:
    NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("3", 3.0),
            ("0.5", 0.5),
            ("-1", 0.0),
            ("", None),
            ("soon", None),
            ("nan", None),
            ("inf", None),
            (format_datetime(datetime(2026, 11, 24, 12, 0, 7, tzinfo=UTC), usegmt=True), 7.0),
            (format_datetime(datetime(2026, 11, 24, 11, tzinfo=UTC) - timedelta(days=1), usegmt=True), 0.0),
        ],
    )
    def test_retry_after_is_read(self, value, expected):
        assert asked_wait({"Retry-After": value}, now=self.NOW) == expected

    def test_waits_grow_are_jittered_and_end(self):
        backoff = Backoff(max_attempts=5, base_seconds=1.0, max_seconds=3.0)
        assert [backoff.wait(attempt, None, 0.999) for attempt in (1, 2, 3, 4)] == pytest.approx([1, 2, 3, 3], rel=0.01)
        assert backoff.wait(3, None, 0.0) == 0.0
        assert backoff.wait(5, None, 0.5) is None
        assert backoff.wait(1, 7.0, 0.5) == 7.5
        assert backoff.wait(1, 1000.0, 0.5) is None

    @pytest.mark.parametrize(
        ("status", "num_asked"), [(429, 3), (503, 3), (408, 3), (400, 1), (401, 1), (404, 1), (422, 1), (501, 1)]
    )
    def test_what_may_pass_is_tried_again_a_bounded_number_of_times(self, status, num_asked):
        asked = []

        def handle(request: Asked) -> Reply:
            asked.append(request)
            return Reply({"message": "no"}, status=status)

        with serving(handle) as url:
            reason = asyncio.run(ask(url, "models"))
        assert f"HTTP {status}: no" in reason
        assert len(asked) == num_asked

    def test_a_used_up_quota_is_not_asked_again(self):
        asked = []

        def handle(request: Asked) -> Reply:
            asked.append(request)
            return Reply({"error": {"message": "quota", "code": "insufficient_quota"}}, status=429)

        with serving(handle) as url:
            asyncio.run(ask(url, "models"))
        assert len(asked) == 1

    def test_retry_after_is_waited_out(self):
        times = []

        def handle(request: Asked) -> Reply:
            times.append(asyncio.get_running_loop().time())
            return Reply({}, status=429, headers={"Retry-After": "0.3"}) if len(times) == 1 else Reply({"data": []})

        with serving(handle) as url:
            assert asyncio.run(ask(url, "models")) == ""
        assert times[1] - times[0] >= 0.3

    def test_a_wait_beyond_patience_is_a_failure(self):
        with serving(lambda _: Reply({}, status=429, headers={"Retry-After": "86400"})) as url:
            assert "asks to wait 86400 s" in asyncio.run(ask(url, "models"))
