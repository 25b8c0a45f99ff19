"""Log-probabilities of answers that a server gives by one call: whose tokens they are, and what comes of none."""

from __future__ import annotations

import codecs
import json
import logging
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("aiohttp", reason="needs aiohttp")

from batch_job import answered, requests_in, write_lines
from command_line import Call
from effort_server import EffortServer
from engine_contract import TEMPLATE, requests, run
from forethought.control.answers import Answers
from forethought.control.batches import Round
from forethought.core.data import Generation, Logprobs, Query, Request, Sampling
from forethought.core.prompts import load_template
from forethought.core.votes import Voting
from forethought.engines.server.batches import BatchCalls, BatchServer
from forethought.engines.server.engine import OpenAIEngine
from forethought.errors import InvalidSettingsError
from forethought.runs.store import RunDirectory
from forethought.servers.logprobs import logprobs_in
from forethought.servers.replies import Chunks
from forethought.servers.replies import Reply as ChatReply
from loopback import Asked, Reply, serving
from toy_server import ToyServer, encode

THINK = load_template("think")
CALLS = BatchCalls(
    BatchServer(
        server="vllm",
        model="m",
        served_model="m",
        enforce="max-tokens",
        template=THINK,
        sampling=Sampling(),
        logprobs=True,
    )
)
REQUEST = Request(Query("q", "1 + 1?"), budget=100_000)
FORMS = ("all", "message", "apart")  # vLLM, SGLang and llama.cpp; OpenAI; DeepSeek
Tokens = list[tuple[bytes, float]]


def entries(tokens: Tokens) -> list[dict[str, Any]]:
    return [
        {"token": piece.decode("utf-8", "replace"), "bytes": list(piece), "logprob": logprob, "top_logprobs": []}
        for piece, logprob in tokens
    ]


def shown(form: str, thought: Tokens, message: Tokens) -> dict[str, Any]:
    """The field `logprobs` of a choice with these tokens of its thought, and of its message."""
    if form == "apart":
        return {"content": entries(message), "reasoning_content": entries(thought)}
    tag, end = [(b"</think>", -0.5)], [(b"<|im_end|>", -0.25)]
    return {"content": entries(message if form == "message" else [*thought, *tag, *message, *end])}


@st.composite
def written(draw: st.DrawFn, text: st.SearchStrategy[str]) -> Tokens:
    """A text as tokens that end anywhere, also within a character."""
    whole = draw(text).encode()
    cuts = sorted(draw(st.sets(st.integers(1, len(whole) - 1), max_size=40))) if len(whole) > 1 else []
    ends = [0, *cuts, len(whole)]
    logprob = st.floats(-30, 0).map(lambda value: round(value, 3))
    return [(whole[start:end], draw(logprob)) for start, end in pairwise(ends) if end > start]


def joined(tokens: Tokens) -> str:
    return b"".join(piece for piece, _ in tokens).decode()


def of_bytes(tokens: Tokens, start: int, end: int) -> list[float]:
    """The log-probabilities of the tokens that write these bytes, counted one by one."""
    owner = [number for number, (piece, _) in enumerate(tokens) for _ in piece]
    return [tokens[number][1] for number in dict.fromkeys(owner[start:end])]


THOUGHTS = st.text("ab 1é\n☂", min_size=1, max_size=60)
MESSAGES = st.tuples(st.text("so 1é5\n", max_size=20), st.text("1é5", min_size=1, max_size=6)).map(
    lambda parts: f"{parts[0]}Final answer: \\boxed{{ {parts[1]} }}.\n"
)


def body_of(form: str, thought: Tokens, message: Tokens) -> dict[str, Any]:
    choice = {
        "message": {"content": joined(message), "reasoning_content": joined(thought)},
        "finish_reason": "stop",
        "logprobs": shown(form, thought, message),
    }
    return {"choices": [choice]}


def streamed(form: str, thought: Tokens, message: Tokens, size: int) -> dict[str, Any]:
    """The same answer in chunks of so many tokens, with the log-probabilities of each chunk's."""
    chunks = Chunks(REQUEST.budget, THINK)
    for name, tokens in (("reasoning_content", thought), ("content", message)):
        decoder = codecs.getincrementaldecoder("utf-8")()
        for start in range(0, len(tokens), size):
            part = tokens[start : start + size]
            of = "reasoning_content" if name == "reasoning_content" and form == "apart" else "content"
            logprobs = None if form == "message" and name == "reasoning_content" else {of: entries(part)}
            text = decoder.decode(b"".join(piece for piece, _ in part))
            chunks.add({"choices": [{"index": 0, "delta": {name: text}, "logprobs": logprobs}]})
    chunks.add({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "logprobs": None}]})
    return chunks.finish()


def expected(form: str, thought: Tokens, message: Tokens) -> Logprobs:
    text = joined(message)
    start = text.index("{") + 2
    end = start + len(text[start : text.index("}")].strip())
    answer = of_bytes(message, len(text[:start].encode()), len(text[:end].encode()))
    said = joined(thought)
    stripped = said.strip()
    begins = len(said[: len(said) - len(said.lstrip())].encode())
    last = of_bytes(thought, begins, begins + len(stripped.encode()))[-16:]
    has_thought = stripped and form != "message"
    return Logprobs(round(fmean(answer), 4), round(fmean(last), 4) if has_thought else None)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(FORMS), written(THOUGHTS), written(MESSAGES), st.integers(1, 9))
def test_they_are_of_the_tokens_that_write_the_answer_and_end_the_thought(
    form: str, thought: Tokens, message: Tokens, size: int
) -> None:
    """However a text is cut into tokens, in each form, whole and in any chunks."""
    for answer in (body_of(form, thought, message), streamed(form, thought, message, size)):
        done = CALLS.generation(REQUEST, ChatReply.read(answer))
        assert done.error is None
        assert done.logprobs == expected(form, thought, message)


@settings(max_examples=50, deadline=None)
@given(
    written(THOUGHTS),
    written(MESSAGES),
    st.sampled_from([None, "-1", True, 0.5, math.nan, [], {}, -math.inf, -(10**400)]),
    st.data(),
)
def test_what_is_no_log_probability_is_not_known(
    thought: Tokens, message: Tokens, value: Any, data: st.DataObject
) -> None:
    """A weight is known where all of its tokens are, whatever else is shown; a server's minus infinity is one."""
    body = body_of("all", thought, message)
    found = body["choices"][0]["logprobs"]["content"]
    at = data.draw(st.integers(0, len(found) - 1))
    found[at]["logprob"] = value
    usual, done = expected("all", thought, message), CALLS.generation(REQUEST, ChatReply.read(body)).logprobs
    if isinstance(value, float | int) and value < 0:
        assert done is not None
        assert -1e4 <= done.answer <= 0
    elif done is not None:
        assert done.answer == usual.answer
        assert done.thought in (usual.thought, None)


def test_a_certain_token_may_be_rounded_to_just_above_0() -> None:
    assert logprobs_in({"token_logprobs": [1.2e-7, -1.0]}, 2) == (0.0, -1.0)
    assert logprobs_in({"token_logprobs": [0.5, -1.0]}, 2) == ()


@pytest.mark.parametrize(
    "logprobs",
    [None, "all", [], {"content": None}, {"content": "all"}, {"content": [None, 7]}, {"content": [{"token": "2"}]}],
    ids=str,
)
def test_a_server_that_shows_something_else_shows_nothing(logprobs: Any) -> None:
    choice = {"message": {"content": "\\boxed{2}"}, "finish_reason": "stop", "logprobs": logprobs}
    done = CALLS.generation(REQUEST, ChatReply.read({"choices": [choice]}))
    assert (done.answer, done.logprobs) == ("2", None)


def test_long_thoughts_end_in_their_last_tokens() -> None:
    """A character that a server shows as broken, far before the end, hides nothing of the end."""
    thought = [(b"\xef\xbf\xbd", -9.0), *((f" w{number}".encode(), -number / 100) for number in range(500))]
    body = body_of("all", thought, [(b"\\boxed{", -1.0), (b"2", -0.5), (b"}", -1.0)])
    body["choices"][0]["message"]["reasoning_content"] = joined(thought).replace("�", "é")
    done = CALLS.generation(REQUEST, ChatReply.read(body))
    assert done.logprobs == Logprobs(-0.5, round(fmean(-number / 100 for number in range(484, 500)), 4))


# ------------------------------------------------------------------------------------------------------ from servers


def engine_at(url: str, **options: Any) -> OpenAIEngine:
    options = {"template": TEMPLATE, "sampling": Sampling(temperature=1.0), "context_tokens": 256, **options}
    return OpenAIEngine("toy", base_url=url, backoff_seconds=0.001, **options)


@pytest.mark.parametrize("kind", ["vllm", "sglang", "llama.cpp"])
def test_a_native_cap_shows_what_the_server_shows(kind: str) -> None:
    """The mean over the answer and over the last tokens of the thought; all else is as without."""
    toy = ToyServer(kind)
    with serving(toy) as url:
        plain = run(engine_at(url, enforce="native", answer_room=64), requests(probes=()))
        known = run(engine_at(url, enforce="native", answer_room=64, logprobs=True), requests(probes=()))
    assert {key: replace(done, logprobs=None) for key, done in known.items()} == plain
    likely = round(fmean(-token / 100 for token in encode("12")), 4)
    for done in known.values():
        assert done.logprobs is not None
        assert done.logprobs.answer == likely
        if done.reasoning and "�" not in done.reasoning and done.reasoning == done.reasoning.strip():
            last = encode(done.reasoning)[-16:]
            assert done.logprobs.thought == pytest.approx(-sum(last) / 100 / len(last), abs=1e-4)


class Refusing:
    """A chat that answers 2, and says this of requests that ask for log-probabilities; None to ignore them."""

    def __init__(self, words: str | None, status: int = 400) -> None:
        self.words, self.status = words, status
        self.bodies: list[dict[str, Any]] = []

    def __call__(self, asked: Asked) -> Reply:
        if not asked.path.endswith("/chat/completions"):
            return Reply({"error": {"message": "no such route"}}, status=404)
        self.bodies.append(asked.json)
        if self.words is not None and "logprobs" in asked.json:
            return Reply({"error": {"message": self.words, "type": "invalid_request_error"}}, status=self.status)
        choice = {"index": 0, "message": {"role": "assistant", "content": "\\boxed{2}"}, "finish_reason": "stop"}
        return Reply({"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 5}})


def asked_of(server: Refusing, caplog: pytest.LogCaptureFixture) -> tuple[list[str], list[Generation]]:
    """`(what was said before a question was sent, answers)`; nothing is said later."""
    with serving(server) as url, caplog.at_level(logging.WARNING, logger="forethought"):
        engine = engine_at(url, template=THINK, server="other", logprobs=True, context_tokens=None)
        said = [record.getMessage() for record in caplog.records]
        assert all(body["max_tokens"] == 1 for body in server.bodies)
        done = run(engine, [Request(Query(f"q{n}", "1 + 1?"), budget=64, seed=n) for n in range(5)])
        later = [record.getMessage() for record in caplog.records if "logprob" in record.getMessage()]
    assert len(later) == len([each for each in said if "logprob" in each])
    return said, list(done.values())


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ("Unsupported parameter: 'logprobs' is not supported with this model.", 400),
        ("You are not allowed to request logprobs from this model", 403),
        ("Logprobs is not enabled for models/gemini-2.5-pro", 400),
    ],
    ids=["gpt-5.5", "o4-mini", "gemini"],
)
def test_a_refusal_is_said_once_before_anything_is_paid(
    words: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    server = Refusing(words, status)
    said, found = asked_of(server, caplog)
    assert [each for each in said if "the server rejects logprobs" in each and "votes cannot be weighed" in each]
    assert [(done.answer, done.logprobs) for done in found] == [("2", None)] * 5
    assert sum("logprobs" in body for body in server.bodies) == 1


def test_a_server_that_ignores_it_is_said_once_before_anything_is_paid(caplog: pytest.LogCaptureFixture) -> None:
    said, found = asked_of(Refusing(None), caplog)
    assert [each for each in said if "did not show" in each and "votes cannot be weighed" in each]
    assert [(done.answer, done.logprobs) for done in found] == [("2", None)] * 5
    assert Voting(weights="answer").weights_of([done.logprobs for done in found]) is None


def test_a_kind_that_shows_none_is_refused() -> None:
    with serving(Refusing(None)) as url, pytest.raises(InvalidSettingsError, match="shows no log-probabilities"):
        engine_at(url, server="anthropic", logprobs=True)


def test_votes_of_effort_levels_are_weighed(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the profile to the answers, of a server that takes one call."""
    monkeypatch.chdir(tmp_path)
    server = EffortServer(shows_logprobs=True)
    chosen = sorted(server.answers.items(), key=lambda item: len(item[0]))[20:30]
    rows = [{"id": f"q{n}", "question": text, "answer": answer} for n, (text, answer) in enumerate(chosen)]
    Path("q.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    Path("menu.toml").write_text('[[option]]\nlabel = "low"\nset = { reasoning_effort = "low" }\ntokens = 60\n')
    with serving(server) as url:
        there = ("--base-url", url, "--engine-option", "logprobs=true")
        profile = ("profile", "toy", "q.jsonl", "--menu", "menu.toml", "--traces", 3, "--out", "p", "--quiet")
        assert call(*profile, *there).code == 0
        train = ("train", "p", "--predictor", "mean", "--samples", "1,3", "--vote-weights", "answer", "--out", "w")
        assert call(*train).code == 0
        run = ("run", "w", "q.jsonl", "--mean-tokens", 150, "--cost", "spent", "--quiet", "--seed", 3, "--out", "r")
        said = call(*run, *there)
    assert said.code == 0
    assert "did not show" not in said.err
    records: dict[str, list[Any]] = {}
    for record in RunDirectory.open(Path("r")).latest():
        records.setdefault(record.query_id, []).append(record)
    answers, several = Answers.load("r"), [name for name, samples in records.items() if len(samples) == 3]
    assert several
    for query_id in several:
        votes = dict[str, float]()
        for each in records[query_id]:
            assert each.logprobs is not None
            assert each.logprobs.thought is None
            votes[each.answer] = votes.get(each.answer, 0.0) + math.exp(each.logprobs.answer)
        assert votes[answers[query_id].answer] == pytest.approx(max(votes.values()))


# ----------------------------------------------------------------------------------------------------- batch files

PLAN = ("plan", "weighed", "q.jsonl", "--cost", "spent", "--mean-tokens", 80, "--batch-out", "r.jsonl", "--server")


@pytest.fixture
def weighed(job: Call) -> Call:
    """A job whose predictor weighs votes of 1 and 3 samples by the log-probability of the answer."""
    profile = ("profile", "fake", "q.jsonl", "--traces", 3, "--layers", "none", "--budgets", "16,64", "--out", "p")
    assert job(*profile, "--engine-option", "logprobs=true").code == 0
    train = ("train", "p", "--predictor", "text", "--samples", "1,3", "--vote-weights", "answer", "--out", "weighed")
    assert job(*train).code == 0
    return job


def says(line: str, number: int, logprob: float | None) -> dict[str, Any]:
    found = answered(line)
    choice = found["response"]["body"]["choices"][0]
    tokens = ["\n\nFinal answer: \\boxed{", str(number), "}"]
    choice["message"]["content"] = "".join(tokens)
    if logprob is not None:
        choice["logprobs"] = {"content": [{"token": each, "bytes": None, "logprob": logprob} for each in tokens]}
    return found


def test_a_file_of_requests_asks_for_them_and_collects_weighed_votes(weighed: Call) -> None:
    """Two unlikely samples lose against a likely one; where one sample shows nothing, each has one vote."""
    assert weighed(*PLAN, "vllm").code == 0
    lines, names = requests_in("r.jsonl"), Round.load(Path("r.batch.json")).names()
    assert all(json.loads(line)["body"]["logprobs"] is True for line in lines)
    voted = [
        query_id for query_id in dict.fromkeys(each for each, _ in names.values()) if (query_id, 2) in names.values()
    ]
    unshown, results = voted[0], []
    for line in lines:
        query_id, sample = names[json.loads(line)["custom_id"]]
        logprob = math.log(0.9 if sample == 2 else 0.1)
        is_hidden = query_id == unshown and sample == 2
        results.append(says(line, 8 if sample == 2 else 7, None if is_hidden else logprob))
    write_lines("out.jsonl", results)
    said = weighed("collect", "out.jsonl")
    assert said.code == 0
    assert said.err.count("did not show how likely the model found") == 1
    answers = Answers.load("runs/batch-r")
    assert len(voted) > 1
    for query_id in voted:
        answer, share = ("7", 2 / 3) if query_id == unshown else ("8", 0.9 / 1.1)
        assert (answers[query_id].answer, answers[query_id].share) == (answer, pytest.approx(share, abs=1e-3))


def test_one_vote_each_asks_for_none_and_a_kind_without_them_is_refused(weighed: Call) -> None:
    said = weighed(*PLAN, "anthropic", "--enforce", "max-tokens")
    assert said.code == 1
    assert "shows no log-probabilities" in said.err
    assert "--vote-weights equal" in said.err
    assert not Path("r.jsonl").exists()
    assert weighed(*PLAN, "vllm", "--vote-weights", "equal").code == 0
    assert not any("logprobs" in json.loads(line)["body"] for line in requests_in("r.jsonl"))
    assert weighed(*PLAN, "vllm", "--engine-option", "logprobs=false").code == 0
    assert not any("logprobs" in json.loads(line)["body"] for line in requests_in("r.jsonl"))


def test_a_refused_file_is_asked_again_without_them(weighed: Call) -> None:
    assert weighed(*PLAN, "openai", "--enforce", "max-tokens").code == 0
    error = {"error": {"code": "unsupported_parameter", "message": "'logprobs' is not supported with this model."}}
    lines = requests_in("r.jsonl")
    results = [
        {"custom_id": json.loads(line)["custom_id"], "response": {"status_code": 400, "body": error}, "error": None}
        for line in lines
    ]
    write_lines("errors.jsonl", results)
    said = weighed("collect", "errors.jsonl")
    assert said.err.count("the server rejects logprobs") == 1
    again = requests_in("r.round2.jsonl")
    assert len(again) == len(lines)
    assert not any("logprobs" in json.loads(line)["body"] for line in again)
    write_lines("out.jsonl", [says(line, 7, None) for line in again])
    found = weighed("collect", "out.jsonl", "--json").json
    assert found["answered"] == 24
