"""Results of a job of requests: each counted once, in any order, in parts and twice; damage is one failed request."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_job import answered, expired, requests_in, write_lines
from command_line import Call
from forethought.commands.batching import Collected, collect
from forethought.control.answers import Answers
from forethought.core.settings import CollectSettings
from forethought.runs.lines import Appender
from forethought.runs.store import RunDirectory
from forethought.servers.batches import read_result

PLAN = ("plan", "text", "q.jsonl", "--mean-tokens", 64, "--batch-out", "r.jsonl", "--server", "vllm")


def summary(run: str = "runs/batch-r") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(run) / "summary.json").read_text())
    return found


def test_a_job_from_its_plan_to_its_answers(job: Call) -> None:
    assert job(*PLAN).code == 0
    lines = requests_in("r.jsonl")
    write_lines("out.jsonl", [answered(line) for line in lines])
    said = job("collect", "out.jsonl", "--json")
    assert said.code == 0
    found = said.json
    assert (found["queries"], found["answered"], found["right"], found["failed"]) == (24, 24, 24, 0)
    assert found["spent_tokens"] == 24 * 13
    assert found["collected"]["next_requests"] == []
    assert Path("runs/batch-r/report.html").is_file()
    answers = Answers.load("runs/batch-r")
    assert [each.id for each in answers] == [json.loads(line)["id"] for line in requests_in("q.jsonl")]
    assert {each.reasoning_tokens for each in answers} == {9}
    assert job("show", "runs/batch-r").code == 0
    assert job("show", "runs/batch-r", "q/5 ü").code == 0


@pytest.mark.parametrize("kept", [1, 2, 3])
def test_an_interrupted_collection_goes_on(job: Call, monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    assert job(*PLAN).code == 0
    results = [answered(line) for line in requests_in("r.jsonl")]
    files = [write_lines("first.jsonl", results[:10]), write_lines("second.jsonl", results[10:])]
    append, num_writes = Appender.append, 0

    def append_then_interrupt(self: Appender, records: Iterable[Any]) -> None:
        nonlocal num_writes
        append(self, records)
        num_writes += 1
        if num_writes == kept:
            raise KeyboardInterrupt

    monkeypatch.setattr(Appender, "append", append_then_interrupt)
    stopped = job("collect", *files)
    assert stopped.code == 130
    assert "finished work is saved, and the same command resumes" in stopped.err
    monkeypatch.setattr(Appender, "append", append)
    found = job("collect", *files, "--json").json
    assert (found["answered"], found["right"], found["spent_tokens"]) == (24, 24, 24 * 13)
    assert len(list(RunDirectory(Path("runs/batch-r")).latest())) == 24


def test_what_failed_expired_and_was_cut_is_named_and_asked_again(job: Call) -> None:
    assert job(*PLAN, "--cost", "spent", "--batch-lines", 10).code == 0
    lines = requests_in("r-0001.jsonl", "r-0002.jsonl", "r-0003.jsonl")
    refused = {"custom_id": json.loads(lines[2])["custom_id"], "response": {"status_code": 400, "body": None}}
    refused["error"] = {"error": {"code": 400, "type": "BadRequest", "message": "too long"}}
    write_lines("out.jsonl", [*(answered(line) for line in lines[3:20]), answered(lines[1], thought=60, cut=True)])
    write_lines("errors.jsonl", [expired(lines[0]), refused])
    said = job("collect", "errors.jsonl", "out.jsonl", "--json")
    assert said.code == 3
    found = said.json["collected"]
    assert found["without_answer"] == {"failed": ["q/0 ü", "q2"], "censored": ["q1"]}
    assert "batch_expired" in found["reasons"]["q/0 ü"]
    assert found["reasons"]["q2"] == "400: BadRequest: too long (status 400)"
    assert found["reasons"]["q1"] == "cut at 60 tokens with nothing to show (censored)"
    assert found["waiting"] == 4
    assert "4 requests have no result yet" in said.err
    assert said.json["engine"]["discarded_tokens"] == 60
    again = requests_in("r.round2.jsonl")
    assert len(again) == found["num_next"] == 3
    before = json.loads(Path("r.batch.json").read_text())["asked"]
    after = json.loads(Path("r.round2.batch.json").read_text())["asked"]
    assert set(after) == {"q/0 ü", "q1", "q2"}
    assert after["q1"] > before["q1"]
    spent = sum(each.tokens or 0 for each in Answers.load("runs/batch-r"))
    assert spent + 60 + sum(after.values()) < 24 * 64

    second = job("collect", "errors.jsonl", "out.jsonl", "--json").json  # the same again: nothing new to ask
    assert second["collected"]["known_lines"] == 20
    assert second["collected"]["next_requests"] == []
    ended = job("collect", "out.jsonl", "--ended", "--json").json["collected"]
    assert sorted(requests_in("r.round3.jsonl")) == sorted(requests_in(*ended["next_requests"]))
    assert ended["num_next"] == len(ended["without_answer"]["lost"]) == 4
    write_lines("out23.jsonl", [answered(each) for each in [*again, *requests_in("r.round3.jsonl")]])
    last = job("collect", "out23.jsonl", "--json")
    assert last.code == 0
    assert last.json["answered"] == last.json["right"] == 24
    late = write_lines("late.jsonl", [answered(line) for line in lines[20:]])  # what was lost comes after all
    assert job("collect", late, "--json").json["spent_tokens"] == last.json["spent_tokens"]
    long = write_lines("long.jsonl", [answered(lines[0], thought=64)])  # under a larger cap than its answer had
    assert job("collect", long, "--json").json["answered"] == 24
    assert job("collect", late, long, "--json").json["spent_tokens"] == last.json["spent_tokens"]


def test_a_batch_that_ended_without_any_result_is_asked_again(job: Call) -> None:
    assert job(*PLAN).code == 0
    asked = requests_in("r.jsonl")
    write_lines("none.jsonl", [])
    waiting = job("collect", "none.jsonl", "--batch", "r.batch.json")
    assert waiting.code == 0
    assert "24 requests have no result yet" in waiting.err
    found = job("collect", "none.jsonl", "--batch", "r.batch.json", "--ended", "--json")
    assert found.code == 3
    assert (found.json["collected"]["waiting"], found.json["collected"]["num_next"]) == (0, 24)
    assert len(requests_in("r.round2.jsonl")) == len(asked) == 24


def test_a_second_run_directory_does_not_write_over_the_next_round_of_the_first(job: Call) -> None:
    assert job(*PLAN).code == 0
    lines = requests_in("r.jsonl")
    write_lines("out.jsonl", [expired(line) for line in lines[:3]])
    assert job("collect", "out.jsonl", "--out", "first").code == 3
    handed_out = requests_in("r.round2.jsonl")
    write_lines("more.jsonl", [expired(line) for line in lines[:5]])
    assert job("collect", "more.jsonl", "--out", "second").code == 3
    assert requests_in("r.round2.jsonl") == handed_out
    assert len(requests_in("r.round3.jsonl")) == 5
    write_lines("again.jsonl", [answered(line) for line in handed_out])
    assert job("collect", "again.jsonl", "--out", "first").code == 0
    assert summary("first")["answered"] == 3


def test_results_of_another_job_are_refused(job: Call) -> None:
    job(*PLAN)
    mine = [answered(line) for line in requests_in("r.jsonl")]
    job("plan", "text", "q.jsonl", "--mean-tokens", 48, "--batch-out", "other.jsonl", "--server", "vllm")
    others = [answered(line) for line in requests_in("other.jsonl")]
    write_lines("mixed.jsonl", [*mine[:5], others[0]])
    said = job("collect", "mixed.jsonl", "--batch", "r.batch.json")
    assert said.code == 1
    assert "mixed.jsonl line 6 is of another job" in said.err
    assert others[0]["custom_id"][:12] in said.err
    assert not any(RunDirectory.open(Path("runs/batch-r")).records())
    write_lines("strange.jsonl", [{"custom_id": "request-1", "response": None}])
    assert "name the requests: --batch" in job("collect", "strange.jsonl").err
    assert "holds no result of this job" in job("collect", "strange.jsonl", "--batch", "r.jsonl").err
    Path("r.batch.json").rename("kept.json")
    write_lines("out.jsonl", mine)
    assert "no REQUESTS.batch.json of it is in their folder" in job("collect", "out.jsonl").err


def test_a_plan_and_its_record_are_all_that_is_needed(job: Call, tmp_path: Path) -> None:
    job(*PLAN)
    away = tmp_path / "away"
    away.mkdir()
    for name in ("r.plan.json", "r.batch.json"):
        shutil.move(name, away / name)
    write_lines(away / "out.jsonl", [answered(line) for line in requests_in("r.jsonl")])
    for name in ("text", "runs"):
        shutil.rmtree(name)
    Path("q.jsonl").unlink()
    assert job("collect", away / "out.jsonl", "--json").json["right"] == 24


def _choice(choice: str, more: str = "") -> bytes:
    body = f'{{"choices": [{choice}]{more}}}'
    return f'{{"custom_id": NAME, "response": {{"status_code": 200, "body": {body}}}, "error": null}}\n'.encode()


ODD = [
    b"",
    b"\n",
    b"null\n",
    b"[1, 2]\n",
    b'{"custom_id": 5}\n',
    b'{"custom_id": "nobody"}\n',
    b"\xff\xfe\x00{\n",
    _choice("{}"),
    _choice('{"message": {"content": {"text": {"text": 5}}}}'),
    _choice('{"message": {"content": "5"}, "finish_reason": "safety"}'),
    _choice('{"message": {"content": "\\ud800"}}', ', "usage": {"completion_tokens": -4}'),
    b'{"custom_id": NAME, "response": {"body": {"choices": "many"}}}\n',
    b'{"custom_id": NAME, "response": [], "error": [[[]]]}\n',
    b'{"custom_id": NAME, "result": {"type": "succeeded"}}\n',
    b'{"custom_id": NAME, "result": "gone"}\n',
    b'{"custom_id": NAME, ' + b'"a": {' * 3000 + b"\n",
    b'{"custom_id": NAME, "response": {"status_code": 200, "bo\n',
    b'{"custom_id": NAME, "response": {"status_code": 200, "body": {"choi',
]


@pytest.mark.parametrize("row", range(len(ODD)))
def test_a_line_that_is_odd_is_one_failed_request(job: Call, row: int) -> None:
    job(*PLAN)
    lines = requests_in("r.jsonl")
    name = json.dumps(json.loads(lines[0])["custom_id"]).encode()
    odd = ODD[row].replace(b"NAME", name)
    whole = [answered(line) for line in lines[1:]]
    write_lines("out.jsonl", [*whole, odd])
    said = job("collect", "out.jsonl", "--json")
    found = said.json
    assert found["answered"] >= 23
    assert found["right"] == 23
    if b"NAME" in ODD[row]:
        assert found["answered"] == 24 or found["collected"]["reasons"]["q/0 ü"]
        write_lines("again.jsonl", [answered(lines[0])])
        if found["answered"] == 23:  # its whole line comes later
            assert job("collect", "again.jsonl", "--json").json["right"] == 24
    elif odd.strip():
        assert found["collected"]["unreadable_lines"] == 1
        assert said.code == 3


def test_a_line_without_end_costs_no_memory(job: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forethought.control.collecting.MOST_BYTES", 1 << 16)
    job(*PLAN)
    lines = requests_in("r.jsonl")
    name = json.loads(lines[0])["custom_id"]
    endless = f'{{"custom_id": "{name}", "response": "'.encode() + b"x" * (1 << 18) + b'"}\n'
    write_lines("out.jsonl", [endless, *(answered(line) for line in lines[1:])])
    found = job("collect", "out.jsonl", "--json").json
    assert found["right"] == 23
    assert found["collected"]["without_answer"] == {"failed": ["q/0 ü"]}


def settled(folder: Path, files: list[Path], **more: Any) -> Collected:
    return collect(CollectSettings(results=tuple(map(str, files)), batch=str(folder / "r.batch.json"), **more))


@pytest.fixture(scope="module")
def made(job_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a job, planned in spent tokens under a hard cap."""
    from forethought.commands import _exit_code

    folder = tmp_path_factory.mktemp("planned") / "job"
    shutil.copytree(job_folder, folder)
    here = Path.cwd()
    os.chdir(folder)
    cap = ["--cost", "spent", "--hard-cap", "3000", "--quiet"]
    assert _exit_code([*map(str, PLAN), *cap]) == 0
    os.chdir(here)
    return folder


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_order_parts_and_repetition_change_nothing(
    made: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    lines = requests_in(made / "r.jsonl")
    kinds = data.draw(st.lists(st.sampled_from(["right", "cut", "expired"]), min_size=len(lines), max_size=len(lines)))
    ways = {"right": answered, "cut": lambda line: answered(line, cut=True), "expired": expired}
    results = [ways[kind](line) for kind, line in zip(kinds, lines, strict=True)]
    folder = tmp_path_factory.mktemp("mixed")
    for name in ("r.batch.json", "r.plan.json"):
        shutil.copy(made / name, folder / name)
    expected = settled(folder, [write_lines(folder / "all.jsonl", results)], out=str(folder / "in-order"))
    mixed = [*results, *data.draw(st.lists(st.sampled_from(results), max_size=20))]
    data.draw(st.randoms(use_true_random=False)).shuffle(mixed)
    torn = [b'{"id": "b", "custom\n'] * data.draw(st.integers(0, 2))
    cut = data.draw(st.integers(1, len(mixed)))
    first, second = mixed[:cut], mixed[cut:]
    (folder / "r.round2.batch.json").unlink(missing_ok=True)
    files = [write_lines(folder / "1.jsonl", [*torn, *first]), write_lines(folder / "2.jsonl", [*second, *torn])]
    files = [file for file in files if file.stat().st_size and b"-0-" in file.read_bytes()]
    found = settled(folder, files, out=str(folder / "mixed"))
    again = settled(folder, files[::-1], out=str(folder / "mixed"))
    for each in (found, again):
        assert summary(str(each.run.path)) == summary(str(expected.run.path))
        assert (each.charged, each.flying) == (again.charged, again.flying)
    assert found.charged == expected.charged
    assert found.rest == expected.rest
    assert again.again is None
    assert Answers.load(found.run.path).rows == Answers.load(expected.run.path).rows


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_a_kill_between_record_and_count_counts_once(made: Path, tmp_path: Path, kept: int) -> None:
    for name in ("r.batch.json", "r.plan.json"):
        shutil.copy(made / name, tmp_path / name)
    file = write_lines(tmp_path / "out.jsonl", [answered(line) for line in requests_in(made / "r.jsonl")])
    whole = settled(tmp_path, [file], out=str(tmp_path / "run"))
    expected, charged = summary(str(tmp_path / "run")), whole.charged
    journal = tmp_path / "run" / "settled.jsonl"
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:kept]) + b'{"id": "')
    again = settled(tmp_path, [file], out=str(tmp_path / "run"))
    assert summary(str(tmp_path / "run")) == expected
    assert again.charged == charged


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), cap=st.integers(700, 4000))
def test_neither_the_total_nor_the_hard_cap_is_ever_passed(
    made: Path, tmp_path_factory: pytest.TempPathFactory, seed: int, cap: int
) -> None:
    """Whatever comes back of what is asked, round after round: all that a server may have generated is counted."""
    draw, folder = random.Random(seed), tmp_path_factory.mktemp("capped")
    for name in ("r.batch.json", "r.plan.json", "r.jsonl"):
        shutil.copy(made / name, folder / name)
    record = json.loads((folder / "r.batch.json").read_text())
    record["hard_cap"]["amount"] = float(cap)
    lines = requests_in(folder / "r.jsonl")
    bound = {json.loads(line)["custom_id"]: json.loads(line)["body"]["max_tokens"] for line in lines}
    while sum(bound.values()) > cap:  # as many as the cap holds
        name, _ = bound.popitem()
        lines.pop()
        record["asked"].popitem()
    (folder / "r.batch.json").write_text(json.dumps(record))
    generated, number, files = 0, 1, list[Path]()
    while lines:
        results: list[Any] = []
        for line in lines:
            most, come = json.loads(line)["body"]["max_tokens"], draw.random()
            limit = json.loads(line)["body"]["thinking_token_budget"]
            if come < 0.6:
                thought = draw.randint(0, limit)
                results.append(answered(line, thought=thought))
                generated += thought + 4
            elif come < 0.75:
                results.append(answered(line, thought=limit, cut=True, tokens=most))
                generated += most
            elif come < 0.85:
                results.append(expired(line))
            else:
                generated += most  # it was run, and nothing is known of it
        if not results:
            results.append(expired(lines[0]))
            generated -= json.loads(lines[0])["body"]["max_tokens"]
        files.append(write_lines(folder / f"out{number}.jsonl", results))
        found = settled(folder, files[-1:], out=str(folder / "run"), ended=True)
        assert generated <= found.charged <= cap
        assert found.charged + found.flying <= cap
        counts = summary(str(folder / "run"))
        assert counts["spent_tokens"] <= 24 * 64
        lines, number = requests_in(*found.files), number + 1
        assert number < 40


def test_a_message_batch_is_read() -> None:
    """Anthropic's results: only what succeeded has an answer, and only that is billed."""
    content = [{"type": "thinking", "thinking": "so so so", "signature": "x"}, {"type": "text", "text": "\\boxed{4}"}]
    message = {"role": "assistant", "content": content, "stop_reason": "end_turn"}
    message["usage"] = {"input_tokens": 12, "output_tokens": 9}
    found = read_result(json.dumps({"custom_id": "a", "result": {"type": "succeeded", "message": message}}).encode())
    assert found.reply is not None
    assert (found.reply.reasoning, found.reply.content, found.reply.is_cut) == ("so so so", "\\boxed{4}", False)
    for kind, words in (("expired", "it expired"), ("canceled", "it was cancelled")):
        gone = read_result(json.dumps({"custom_id": "a", "result": {"type": kind}}).encode())
        assert gone.reply is None
        assert words in gone.reason
        assert gone.tokens == 0
    error = {"type": "error", "error": {"type": "invalid_request_error", "message": "max_tokens: too many"}}
    failed = read_result(json.dumps({"custom_id": "a", "result": {"type": "errored", "error": error}}).encode())
    assert failed.reason == "invalid_request_error: max_tokens: too many"


def results_text(job: Call) -> str:
    """The results of a new job, as text."""
    assert job(*PLAN).code == 0
    return "".join(json.dumps(answered(line)) + "\n" for line in requests_in("r.jsonl"))


@pytest.mark.parametrize(("encoding", "end"), [("utf-16", "\n"), ("utf-8-sig", "\r\n"), ("utf-8", "\r")])
def test_results_in_another_encoding_or_with_other_line_ends_are_all_read(job: Call, encoding: str, end: str) -> None:
    Path("out.jsonl").write_bytes(results_text(job).replace("\n", end).encode(encoding))
    found = job("collect", "out.jsonl", "--json").json
    assert found["collected"]["lines"] == found["answered"] == 24


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("compressed", "gunzip"),
        ("a pipe", "write the results to a file"),
        ("UTF-16 without its mark", "no result of this job"),
    ],
)
def test_results_that_cannot_be_read_are_refused_before_anything_is_taken(job: Call, kind: str, words: str) -> None:
    text = results_text(job)
    if kind == "a pipe":
        os.mkfifo("out.jsonl")
    else:
        Path("out.jsonl").write_bytes(
            gzip.compress(text.encode()) if kind == "compressed" else text.encode("utf-16-le")
        )
    said = job("collect", "out.jsonl", "--batch", "r.batch.json")
    assert said.code == 1
    assert words in said.err
    assert not list(Path("runs").glob("*/settled.jsonl"))


@pytest.mark.parametrize("change", [{"server": "x"}, {"template": None}, {"native_fields": 3}, {"answer_room": "x"}])
def test_a_damaged_record_of_requests_is_refused_in_a_line(job: Call, change: dict[str, Any]) -> None:
    Path("out.jsonl").write_text(results_text(job), "utf-8")
    record = json.loads(Path("r.batch.json").read_text("utf-8"))
    record["server"] |= change
    Path("r.batch.json").write_text(json.dumps(record), "utf-8")
    said = job("collect", "out.jsonl", "--batch", "r.batch.json")
    assert said.code == 1
    assert "r.batch.json does not say how requests were made: " in said.err


def test_a_result_of_a_round_that_is_not_there_is_refused_in_a_line(job: Call) -> None:
    Path("out.jsonl").write_text(results_text(job), "utf-8")
    assert job("collect", "out.jsonl").code == 0
    rounds = Path("runs/batch-r/batches.jsonl")
    found = json.loads(rounds.read_text("utf-8"))
    del found["asked"][min(found["asked"])]
    rounds.write_text(json.dumps(found) + "\n", "utf-8")
    said = job("collect", "out.jsonl")
    assert said.code == 1
    assert "settled.jsonl has a result of " in said.err


def test_a_tokenizer_that_is_not_there_is_no_silent_lack_of_counts(job: Call) -> None:
    Path("out.jsonl").write_text(results_text(job), "utf-8")
    said = job("collect", "out.jsonl", "--tokenizer", "./nowhere")
    assert said.code == 1
    assert "--tokenizer ./nowhere: there is no tokenizer of that name" in said.err
    assert not Path("runs/batch-r").exists()
