"""Servers as they are: what each sends, and the answer, or the one reason, that comes of it. A table for each kind."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="needs aiohttp")

from engine_contract import run
from forethought.commands import _exit_code
from forethought.control import running
from forethought.core.data import Generation, Query, Request, StopReason
from forethought.core.prompts import load_template
from forethought.engines.server.engine import OpenAIEngine
from forethought.errors import EngineError
from forethought.servers.address import Address
from forethought.servers.retrying import Fitting
from forethought.servers.troubles import may_pass
from loopback import Asked, Reply, serving

CHAT = "/v1/chat/completions"
WORDS = ["I", "add", "2", "and", "3", "to", "get", "5."]
ANSWER = "Final answer: \\boxed{5}"


def chunk(name: Any = "c1", index: Any = 0, finish: Any = None, **delta: Any) -> dict[str, Any]:
    return {"id": name, "choices": [{"index": index, "delta": delta, "finish_reason": finish}]}


THOUGHT = [chunk(reasoning_content=f"{word} ") for word in WORDS]
SAID = chunk(content=ANSWER)
END = chunk(finish="stop")
USAGE = {"id": "c1", "choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 18, "total_tokens": 27}}


class Server:
    """Answers every chat alike, by `reply`, and counts them."""

    def __init__(self, reply: Any, models: list[str] | None = None) -> None:
        self.reply, self.models = reply, models
        self.bodies: list[dict[str, Any]] = []

    def __call__(self, asked: Asked) -> Reply:
        if asked.path == "/v1/models" and self.models:
            return Reply({"data": [{"id": name} for name in self.models]})
        if asked.path != CHAT:
            return Reply({"detail": "Not Found"}, status=404)
        self.bodies.append(asked.json)
        return self.reply(asked) if callable(self.reply) else self.reply


def ask(there: Server, budget: int = 64, /, *, base: str = "", **options: Any) -> tuple[OpenAIEngine, Generation]:
    options = {"server": "other", "backoff_seconds": 0.001, "timeout_seconds": 5.0, **options}
    with serving(there) as url:
        engine = OpenAIEngine("m", template=load_template("think"), base_url=url + base, **options)
        found = run(engine, [Request(Query("q0", "What is 2+3?"), budget=budget, seed=1)])
    return engine, found["q0", 0]


def streamed(*events: Any) -> Reply:
    return Reply(events=[*events, "[DONE]"])


def whole(content: Any, *, finish: Any = "stop", usage: Any = None, **message: Any) -> Reply:
    choice = {"index": 0, "message": {"role": "assistant", "content": content, **message}, "finish_reason": finish}
    return Reply({"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage})


STREAMS = {
    "azure-a-first-chunk-without-id-and-choices": [{"id": "", "choices": []}, *THOUGHT, SAID, END, USAGE],
    "an-id-for-each-chunk": [
        *[chunk(f"c{n}", reasoning_content=f"{word} ") for n, word in enumerate(WORDS)],
        chunk("c98", content=ANSWER),
        chunk("c99", finish="stop"),
    ],
    "a-first-chunk-with-an-id-of-its-own": [chunk("c0", reasoning_content="So "), *THOUGHT, SAID, END],
    "no-ids": [{**event, "id": None} for event in (*THOUGHT, SAID, END)],
    "a-usage-chunk-of-another-id": [*THOUGHT, SAID, END, {**USAGE, "id": "other"}],
    "a-running-index": [
        *[chunk("c", n, content=f"{word} ") for n, word in enumerate(WORDS)],
        chunk("c", 9, "stop", content="</think>\\boxed{5}"),
    ],
    "an-index-of-1": [chunk(index=1, reasoning_content="so "), chunk(index=1, content=ANSWER), END],
    "a-line-break-before-the-thought": [chunk(content="\n\n"), *THOUGHT, SAID, END],
    "words-before-the-thought": [chunk(content="Let me see."), *THOUGHT, SAID, END],
    "an-empty-role-chunk": [chunk(role="assistant", content=""), *THOUGHT, SAID, END],
    "a-line-break-after-the-end": [*THOUGHT, SAID, END, chunk(content="\n", finish="stop")],
    "an-end-that-is-repeated": [*THOUGHT, SAID, END, END, USAGE],
    "parts": [
        chunk(content=[{"type": "thinking", "thinking": [{"type": "text", "text": "2+3 is 5"}]}]),
        chunk(content=[{"type": "text", "text": ANSWER}]),
        END,
    ],
    "no-reason-but-done": [*THOUGHT, SAID],
    "empty-reasons-then-done": [
        *[chunk(finish="", reasoning_content=f"{word} ") for word in WORDS],
        chunk(finish="", content=ANSWER),
    ],
    "usage-of-null-on-the-way": [*[{**event, "usage": None} for event in THOUGHT], SAID, END, USAGE],
}


@pytest.mark.parametrize("events", STREAMS.values(), ids=STREAMS.keys())
def test_a_stream_is_answered_however_its_chunks_are_named_and_ordered(events):
    server = Server(streamed(*events))
    _, done = ask(server)
    assert (done.error, done.answer, len(server.bodies)) == (None, "5", 1)
    assert "5" in done.reasoning or done.reasoning == "so "
    assert done.reasoning_tokens is None or 1 <= done.reasoning_tokens <= 18


@pytest.mark.parametrize(
    "reason", ["eos", "end_turn", "STOP", "stop_sequence", "FINISH_REASON_STOP", "FinishReason.STOP"]
)
def test_other_words_for_stop(reason):
    for server in (Server(streamed(*THOUGHT, SAID, chunk(finish=reason))), Server(whole(ANSWER, finish=reason))):
        _, done = ask(server)
        assert (done.error, done.answer, len(server.bodies)) == (None, "5", 1)


@pytest.mark.parametrize("reason", ["MAX_TOKENS", "max_tokens", "length", "model_length", "max_output_tokens"])
def test_other_words_for_length(reason):
    _, done = ask(Server(streamed(*THOUGHT, SAID, chunk(finish=reason))))
    assert (done.error, done.answer) == (None, "5")
    _, done = ask(Server(whole("so I add", finish=reason, usage={"completion_tokens": 3})))
    assert (done.error, done.answer, done.stop_reason) == (None, "", StopReason.BUDGET)


@pytest.mark.parametrize("reason", [None, ""])
def test_a_whole_answer_without_a_reason_is_one(reason):
    _, done = ask(Server(whole(ANSWER, finish=reason)))
    assert (done.error, done.answer) == (None, "5")


@pytest.mark.parametrize("reason", ["content_filter", "SAFETY", "tool_calls", "something new"])
def test_an_end_that_is_none_is_one_reason_and_one_call(reason):
    usage = {"prompt_tokens": 9, "completion_tokens": 12}
    server = Server(whole(ANSWER, finish=reason, usage=usage))
    engine, done = ask(server)
    assert repr(reason) in done.error
    assert (len(server.bodies), engine.counters.discarded_tokens, engine.counters.trace_tokens) == (1, 12, 0)


MIXED = {
    "an-id-that-comes-back": (
        [chunk("a", content="1 "), chunk("b", content="2 "), chunk("a", content="3")],
        "mixes two",
    ),
    "an-id-that-comes-back-later": (
        [chunk("a", content="1 "), SAID, SAID, chunk("a", content="3")],
        "mixes two answers",
    ),
    "one-answer-after-another": ([*THOUGHT, SAID, chunk("c2", content=ANSWER)], "mixes two answers"),
    "two-choices-by-turns": ([chunk(content="1"), chunk(index=1, content="2"), chunk(content="3")], "another choice"),
    "two-choices-at-once": (
        [{"id": "c1", "choices": [{"index": n, "delta": {"content": "1"}} for n in (0, 1)]}],
        "another choice",
    ),
    "text-after-the-end": ([*THOUGHT, SAID, END, SAID], "after its end"),
    "thought-after-the-end": ([SAID, END, *THOUGHT], "after its end"),
    "a-thought-after-its-answer": ([*THOUGHT, SAID, *THOUGHT, SAID, END], "thought comes after its answer"),
    "nothing": ([], "nothing came"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("events", "reason"), MIXED.values(), ids=MIXED.keys())
def test_two_answers_in_one_stream_are_none_and_are_not_paid_for_six_times(events, reason):
    server = Server(streamed(*events))
    engine, done = ask(server)
    assert reason in done.error
    assert len(server.bodies) == 4
    assert done.reasoning_tokens == 0
    is_taken = len(events) > 1  # of two choices in one event, neither is
    assert engine.counters.discarded_tokens >= 4 * is_taken


def test_a_stream_that_is_cut_is_no_answer_though_its_text_holds_one():
    for events in ([*THOUGHT, SAID], [*STREAMS["an-id-for-each-chunk"][:-1]]):
        _, done = ask(Server(Reply(events=events)), max_attempts=2)
        assert "ends in the middle" in done.error


@pytest.mark.parametrize("kind", ["thinking", "reasoning", "thought"])
def test_parts_are_told_apart(kind):
    parts = [{"type": kind, "thinking" if kind == "thinking" else "text": "2+3 is 5"}, {"type": "text", "text": ANSWER}]
    _, done = ask(Server(whole(parts, usage={"prompt_tokens": 20, "completion_tokens": 9})))
    assert (done.reasoning, done.answer, done.error) == ("2+3 is 5", "5", None)
    assert done.reasoning_tokens + done.answer_tokens == 9


def test_reasoning_details_are_thought():
    details = [{"type": "reasoning.text", "text": "2+3 is 5"}]
    _, done = ask(Server(whole(ANSWER, reasoning_details=details)))
    assert (done.reasoning, done.answer) == ("2+3 is 5", "5")


# ------------------------------------------------------------------------------------------- counts


def many(num_chunks: int, completion: int) -> list[dict[str, Any]]:
    """A thought in chunks of twenty tokens each."""
    usage = {"prompt_tokens": 9, "completion_tokens": completion, "total_tokens": 9 + completion}
    thought = [chunk(reasoning_content="tok " * 20)] * num_chunks
    return [*thought, chunk(content="\\boxed{5}"), END, {"id": "c1", "choices": [], "usage": usage}]


@pytest.mark.parametrize(
    ("kind", "budget", "events", "about"),
    [
        pytest.param("gemini", 100, many(9, 186), "about 180 reasoning tokens > 100", id="gemini"),
        pytest.param("litellm", 1024, many(60, 1106), "about 1200 reasoning tokens > 1024", id="behind-a-proxy"),
    ],
)
def test_a_cap_that_chunks_of_many_tokens_hide_was_ignored(kind, budget, events, about):
    engine, done = ask(Server(streamed(*events)), budget, server=kind)
    assert f"the server ignored the cap: {about}" in done.error
    assert (done.reasoning_tokens, engine.counters.num_overshoots) == (0, 1)
    assert engine.counters.discarded_tokens >= 180
    assert engine.counters.trace_tokens == 0


def test_a_cap_that_is_kept_in_chunks_of_many_tokens_is_counted_as_at_most_all():
    _, done = ask(Server(streamed(*many(3, 66))), 100, server="gemini")
    assert done.error is None
    assert 60 <= done.reasoning_tokens <= 66
    assert done.reasoning_tokens + done.answer_tokens == 66


def test_thought_that_only_the_total_holds_is_counted():
    usage = {"prompt_tokens": 20, "completion_tokens": 12, "total_tokens": 553}
    _, done = ask(Server(whole(ANSWER, usage=usage)), 100, server="gemini")
    assert "the server ignored the cap: 521 reasoning tokens > 100" in done.error
    _, done = ask(Server(whole(ANSWER, usage=usage)), 600, server="gemini")
    assert (done.reasoning_tokens, done.answer_tokens, done.answer) == (521, 12, "5")


def test_thought_beside_the_completion_is_counted():
    details = {"completion_tokens_details": {"reasoning_tokens": 80}}
    usage = {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 110, **details}
    server = Server(whole(ANSWER, usage=usage, reasoning_content="t " * 80))
    _, done = ask(server, 100, server="openai", enforce="max-tokens")
    assert (done.reasoning_tokens, done.answer_tokens, done.error) == (80, 10, None)


@pytest.mark.parametrize("number", [10**18, -5, float("nan"), "many", True, [1]], ids=str)
def test_a_usage_that_cannot_be_is_summed_nowhere(number):
    usage = {"prompt_tokens": number, "completion_tokens": number, "total_tokens": number}
    engine, done = ask(Server(streamed(*THOUGHT, SAID, END, {**USAGE, "usage": usage})))
    assert (done.error, done.is_counted, done.prompt_tokens) == (None, False, 0)
    assert engine.counters.trace_tokens < 100
    assert engine.counters.num_uncounted == 1


def questions(path: Path, number: int) -> None:
    lines = [json.dumps({"id": f"q{n}", "question": f"What is {n}+3?", "answer": "5"}) for n in range(number)]
    path.write_text("\n".join(lines))


def run_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any, reply: Reply, file: str = "summary.json", *more: str
) -> tuple[int, Any, str]:
    """`forethought run` with a predictor that knows nothing, at a server that answers alike."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FORETHOUGHT_BASE_URL", raising=False)
    questions(tmp_path / "qs.jsonl", 4)
    made = ["profile", "fake", "gsm8k-demo", "--engine", "fake", "--limit", "20", "--out", "p", "--quiet"]
    made += ["--template", "think"]
    if not (tmp_path / "p").exists():
        assert _exit_code([*made, "--window", "128", "--max-tokens", "512", "--context-tokens", "4096"]) == 0
        assert _exit_code(["train", "p", "--predictor", "mean"]) == 0
    capfd.readouterr()
    with serving(Server(reply)) as url:
        options = ["--engine", "openai", "--base-url", url, "--engine-option", "server=gemini"]
        options += [each for option in more for each in ("--engine-option", option)]
        code = _exit_code(["run", "p", "qs.jsonl", "--mean-tokens", "128", "--out", "r", *options, "--quiet"])
    written = capfd.readouterr()
    return code, json.loads((tmp_path / "r" / file).read_text()), written.out


# ------------------------------------------------------------------------------------------- errors


def in_choice(code: Any, message: str) -> Reply:
    error = {"code": code, "message": message}
    choice = {"index": 0, "message": {"role": "assistant", "content": "part"}, "finish_reason": "error", "error": error}
    return Reply({"id": "x", "choices": [choice], "usage": None})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reply", "words", "num_calls"),
    [
        pytest.param(in_choice(502, "Provider disconnected"), "Provider disconnected", 6, id="502-in-the-choice"),
        pytest.param(in_choice(400, "Bad field"), "Bad field", 1, id="400-in-the-choice"),
        pytest.param(streamed(*THOUGHT, {"error": {"code": 503, "message": "busy"}}), "busy", 6, id="503-in-a-stream"),
        pytest.param(
            streamed(*THOUGHT, {"error": {"message": "Bad", "type": "invalid_request_error"}}),
            "Bad",
            1,
            id="in-a-stream",
        ),
        pytest.param(
            streamed({"object": "error", "message": "too many", "type": "BadRequestError", "code": 400}),
            "too many",
            1,
            id="an-event-that-is-an-error",
        ),
        pytest.param(Reply({"error": {"code": "429", "message": "slow down"}}), "slow down", 6, id="429-as-text"),
        pytest.param(Reply({"error": {"code": 400, "message": "no"}}), "no", 1, id="400"),
        pytest.param(Reply({"error": "something odd"}), "something odd", 3, id="not-known"),
        pytest.param(
            Reply({"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}, status=429),
            "quota",
            1,
            id="a-used-up-quota",
        ),
        pytest.param(Reply({"error": {"message": "insufficient_quota"}}), "quota", 1, id="a-used-up-quota-in-a-200"),
        pytest.param(
            Reply({"error": {"message": "maximum context length is 4096"}}, status=500),
            "context",
            1,
            id="overflow",
        ),
        pytest.param(Reply({"error": {"message": "prompt is too long: 9 > 8"}}), "too long", 1, id="overflow-in-a-200"),
        pytest.param(
            Reply({"error": {"status": "INVALID_ARGUMENT", "message": "bad budget"}}), "bad budget", 1, id="gemini"
        ),
        pytest.param(whole(ANSWER, finish="error"), "'error'", 6, id="no-words-at-all"),
    ],
)
def test_errors_in_an_answer_are_told_and_tried_again_where_that_may_help(reply, words, num_calls):
    server = Server(reply)
    _, done = ask(server)
    assert words in done.error
    assert len(server.bodies) == num_calls


def test_tokens_of_repeated_attempts_are_in_a_sum_of_their_own():
    replies = iter([in_choice(502, "gone"), streamed(*THOUGHT, "{broken"), streamed(*THOUGHT, SAID, END, USAGE)])
    engine, done = ask(Server(lambda _: next(replies)))
    assert (done.error, done.reasoning_tokens + done.answer_tokens) == (None, 18)
    assert (engine.counters.trace_tokens, engine.counters.discarded_tokens) == (18, 1 + 8)


@pytest.mark.parametrize(
    ("error", "status", "wait", "expected"),
    [
        ({"message": "You exceeded your current quota, check your plan and billing details"}, 429, None, False),
        ({"message": "You exceeded your current quota, check your plan and billing details"}, 429, 20.0, True),
        ({"message": "Rate limit reached"}, 429, None, True),
        ({"message": "Your credit balance is too low"}, 200, None, False),
        ({"type": "overloaded_error"}, 200, None, True),
        ({"status": "RESOURCE_EXHAUSTED"}, 200, None, True),
        ({"type": "BadRequestError"}, 200, None, False),
        ({"message": "hm"}, 200, None, None),
        ("hm", 200, None, None),
        ([1], 200, None, None),
    ],
)
def test_what_may_pass(error, status, wait, expected):
    assert may_pass(error, status=status, wait=wait) is expected


# ------------------------------------------------------------------------------------------- refused fields


def forbidding(*fields: str, style: str = "mistral") -> Any:
    """A server that takes no field of these names."""

    def reply(asked: Asked) -> Reply:
        found = [name for name in fields if name in asked.json]
        if not found:
            return whole(ANSWER, usage={"prompt_tokens": 9, "completion_tokens": 12})
        if style == "mistral":
            extra = {"type": "extra_forbidden", "msg": "Extra inputs are not permitted"}
            return Reply({"detail": [{**extra, "loc": ["body", name]} for name in found]}, status=422)
        if style == "openai":
            return Reply({"error": {"message": f"Unknown parameter: '{found[0]}'.", "param": found[0]}}, status=400)
        if style == "in-a-200":
            return Reply({"error": {"message": f"Unrecognized request argument supplied: {found[0]}", "code": 400}})
        return Reply({"error": {"message": "Extra inputs are not permitted"}}, status=400)

    return reply


@pytest.mark.parametrize("style", ["mistral", "openai", "in-a-200", "unnamed"])
def test_fields_that_can_be_missed_are_left_out_and_that_is_said_once(style, caplog):
    server = Server(forbidding("seed", "stream_options", style=style))
    with serving(server) as url, caplog.at_level(logging.WARNING, logger="forethought"):
        engine = OpenAIEngine("m", template=load_template("think"), base_url=url, server="other", concurrency=1)
        found = run(engine, [Request(Query(f"q{n}", "What is 2+3?"), budget=64, seed=n) for n in range(3)])
    assert [done.answer for done in found.values()] == ["5"] * 3
    assert len(server.bodies) <= 5  # learnt once, and kept
    assert all(body["max_tokens"] == 64 for body in server.bodies)
    said = [record.getMessage() for record in caplog.records if "rejects" in record.getMessage()]
    assert len(said) <= 2
    assert "seed" in " ".join(said)


def test_what_bounds_an_answer_is_never_left_out():
    server = Server(forbidding("thinking_token_budget"))
    _, done = ask(server, server="tensorrt-llm")
    assert "Extra inputs are not permitted" in done.error
    assert len(server.bodies) == 1


def test_the_bound_goes_under_the_name_that_is_taken():
    def reply(asked: Asked) -> Reply:
        if "max_completion_tokens" in asked.json:
            return whole(ANSWER, usage={"prompt_tokens": 9, "completion_tokens": 12})
        words = "'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        return Reply({"error": {"message": words, "param": "max_tokens", "code": "unsupported_parameter"}}, status=400)

    server = Server(reply)
    _, done = ask(server)
    assert done.answer == "5"
    assert server.bodies[-1]["max_completion_tokens"] == 64
    assert "max_tokens" not in server.bodies[-1]


@pytest.mark.parametrize(
    ("refusal", "learnt"),
    [
        ("Unsupported value: 'temperature' does not support 0.6 with this model.", False),
        ("maximum context length is 4096 tokens; seed 1", False),
        ("top_p is not supported", True),
        ("stream_options.continuous_usage_stats: Extra inputs are not permitted", True),
    ],
)
def test_what_is_learnt_from_a_refusal(refusal, learnt):
    fitting = Fitting()
    body = {"model": "m", "max_tokens": 9, "seed": 1, "temperature": 0.6, "top_p": 1.0}
    body["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
    assert fitting.learn(body, refusal) is learnt
    assert (fitting.fit(body) != body) is learnt
    assert fitting.fit(body)["max_tokens"] == 9
    assert "include_usage" in fitting.fit(body)["stream_options"]


# ------------------------------------------------------------------------------------------- names and addresses


@pytest.mark.parametrize(
    ("listed", "served"),
    [
        ("qwen3:latest", "qwen3"),
        ("deepseek/deepseek-r1", "deepseek/deepseek-r1:nitro"),
        ("models/gemini-2", "gemini-2"),
    ],
)
def test_a_name_that_is_not_listed_is_tried_and_said(listed, served, caplog):
    server = Server(whole(ANSWER), [listed])
    with caplog.at_level(logging.WARNING, logger="forethought"):
        _, done = ask(server, served_model=served, server="")
    assert done.answer == "5"
    assert server.bodies[0]["model"] == served
    assert f"Known: {listed}" in caplog.text
    assert "tried anyway" in caplog.text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://h/v1/chat/completions", "http://h/v1"),
        ("http://h/v1/chat/completions/", "http://h/v1"),
        ("http://h/v1/completions", "http://h/v1"),
        ("http://h/api/v1/models", "http://h/api/v1"),
        ("http://h//v1//", "http://h/v1"),
        ("http://h/", "http://h/v1"),
        ("http://h/v1", "http://h/v1"),
        ("http://h/openai", "http://h/openai"),
        ("http://h/chat/completions", "http://h/chat/completions"),
    ],
)
def test_what_a_base_url_means(text, expected):
    address = Address.parse(text)
    assert str(address) == expected
    assert Address.parse(str(address)) == address
    assert address.api("chat/completions") == expected.removesuffix("/chat/completions") + "/chat/completions"


@pytest.mark.parametrize("base", ["/v1/chat/completions", "/v1/completions", "/v1/", "", "/v1/models/"])
def test_a_whole_endpoint_is_an_address(base):
    _, done = ask(Server(whole(ANSWER)), base=base, server="")
    assert done.answer == "5"


@pytest.mark.parametrize(("given", "right"), [("/api", "/api/v1"), ("/v1", ""), ("/v1/v1", "/v1"), ("/v1/chat", "/v1")])
def test_an_address_beside_the_right_one_is_refused_with_the_right_one(given, right):
    def handle(asked: Asked) -> Reply:
        found = asked.path == f"{right}/models"
        return Reply({"data": [{"id": "m"}]}) if found else Reply({"detail": "Not Found"}, status=404)

    with serving(handle) as url, pytest.raises(EngineError) as refused:
        OpenAIEngine("m", template=load_template("think"), base_url=url + given)
    assert f"--base-url {Address.parse(url + (right or '/chat/completions'))}" in str(refused.value)


LOGIN = b"<!DOCTYPE html>\n<html><head><title>Sign in to ACME</title></head><body>x</body></html>"


@pytest.mark.parametrize("headers", [{}, {"Content-Type": "text/html; charset=utf-8"}], ids=["as-json", "as-html"])
def test_a_web_page_is_called_one(headers):
    class Page(Reply):
        def encoded(self) -> bytes:
            head = "\r\n".join(f"{name}: {value}" for name, value in headers.items())
            size = f"Content-Length: {len(LOGIN)}\r\n\r\n".encode()
            return b"HTTP/1.1 200 OK\r\n" + (head.encode() + b"\r\n" if head else b"") + size + LOGIN

    server = Server(Page())
    _, done = ask(server)
    assert "a web page came back, titled 'Sign in to ACME', not an answer" in done.error
    assert len(server.bodies) == 1
    with serving(lambda _: Page()) as url, pytest.raises(EngineError, match="a web page came back"):
        OpenAIEngine("m", template=load_template("think"), base_url=url)


def test_a_run_at_a_server_that_ignores_its_caps_says_so(tmp_path, monkeypatch, capfd):
    code, found, out = run_command(tmp_path, monkeypatch, capfd, streamed(*many(30, 606)))
    assert (code, found["failed"], found["reasoning_tokens"], found["engine"]["num_overshoots"]) == (3, 4, 0, 4)
    assert found["engine"]["discarded_tokens"] >= 4 * 256
    assert "4 failed" in out


def test_what_an_engine_counted_outlives_a_kill(tmp_path, monkeypatch, capfd):
    """The bill of a run that was stopped holds what was paid for before."""
    answers = whole(ANSWER, usage={"prompt_tokens": 9, "completion_tokens": 12}, reasoning_content="so it is")
    stop_at: list[int] = [2]

    class Stopping(Reply):
        def encoded(self) -> bytes:
            stop_at[0] -= 1
            return answers.encoded()

    def killed(*arguments: Any) -> Any:
        if stop_at[0] <= 0:
            raise KeyboardInterrupt
        return kept(*arguments)

    kept = running.line_of
    monkeypatch.setattr("forethought.control.running.line_of", killed)
    with monkeypatch.context() as patched:
        code, counts, _ = run_command(tmp_path, patched, capfd, Stopping(), "counts.json", "concurrency=1")
        assert code == 130
    before = counts["trace_tokens"]
    assert before in (12, 24, 36)  # the second reply may be on its way when the first is kept
    stop_at[0] = 99
    code, found, _ = run_command(tmp_path, monkeypatch, capfd, Stopping(), "summary.json", "concurrency=1")
    assert (code, found["answered"], found["spent_tokens"]) == (0, 4, 48)
    assert found["engine"]["trace_tokens"] >= 48


def test_a_run_at_a_server_that_tells_nothing_calls_nothing_kept(tmp_path, monkeypatch, capfd):
    code, found, out = run_command(tmp_path, monkeypatch, capfd, streamed(*THOUGHT, SAID, END))
    assert (code, found["answered"], found["not_counted"]) == (0, 4, 4)
    assert (found["reasoning_tokens"], found["spent_tokens"]) == (0, 0)
    assert "without 4 of the 4 answers" in out
    rows = [json.loads(line) for line in (tmp_path / "r" / "answers.jsonl").read_text().splitlines()]
    assert [(row["reasoning_tokens"], row["tokens"]) for row in rows] == [(None, None)] * 4
