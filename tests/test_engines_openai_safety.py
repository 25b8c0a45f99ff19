"""The openai engine against a server that means harm, or is broken: bounded, hidden, and never the batch's end."""

from __future__ import annotations

import gzip
import json
import logging
import tracemalloc
import urllib.parse
import zlib
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

pytest.importorskip("aiohttp", reason="needs aiohttp")

from engine_contract import run
from forethought.commands import _exit_code
from forethought.core.data import Generation, Query, Request
from forethought.core.prompts import load_template
from forethought.core.records import Record
from forethought.engines.server.engine import OpenAIEngine
from forethought.engines.server.pieces import _ran_into
from forethought.errors import EngineError
from forethought.servers import reading
from forethought.servers.address import Key
from forethought.servers.logprobs import pieces_in
from forethought.servers.replies import Chunks, answer_in
from forethought.servers.replies import Reply as ChatReply
from forethought.servers.retrying import AttemptError, RequestError
from forethought.servers.tokens import count_tokens
from forethought.servers.troubles import error_in, may_pass
from loopback import Asked, Reply, serving

THINK = load_template("think")
SECRET = "sk-se/cret<123>&abc-5f9c1e7a"
CHAT = "/v1/chat/completions"
GOOD: dict[str, Any] = {
    "id": "x",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "reasoning_content": "2+3 is 5", "content": "so \\boxed{5}"},
            "finish_reason": "stop",
            "logprobs": {"content": [{"token": "so", "bytes": [115, 111]}]},
        }
    ],
    "usage": {
        "prompt_tokens": 9,
        "completion_tokens": 12,
        "total_tokens": 21,
        "completion_tokens_details": {"reasoning_tokens": 6},
    },
}


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORETHOUGHT_API_KEY", SECRET)


def ask(reply: Any, number: int = 1, **options: Any) -> tuple[OpenAIEngine, list[Generation]]:
    """What comes of `number` questions at a server where the first is answered by `reply` and all others well."""
    first: list[bytes] = []

    def handle(asked: Asked) -> Reply:
        if asked.path != CHAT:
            return Reply({}, status=404)
        text = asked.json["messages"][-1]["content"]
        if "question 0 " in text:
            first.append(asked.content)
            return reply(asked) if callable(reply) else reply
        return Reply(GOOD)

    options = {"server": "other", "backoff_seconds": 0.001, "timeout_seconds": 5.0, "max_attempts": 2, **options}
    with serving(handle) as url:
        engine = OpenAIEngine("m", template=THINK, base_url=url, **options)
        asked_for = [Request(Query(f"q{n}", f"question {n} ?"), budget=64, seed=n) for n in range(number)]
        found = run(engine, asked_for)
    return engine, [found[f"q{n}", 0] for n in range(number)]


def changed(**values: Any) -> dict[str, Any]:
    """A good answer, but for some of its fields, named by their path with "__" between."""
    found = json.loads(json.dumps(GOOD))
    for path, value in values.items():
        *parents, last = path.split("__")
        inner: Any = found
        for name in parents:
            inner = inner[int(name) if name.isdigit() else name]
        inner[last] = value
    return found


DEEP = "[" * 100_000 + "]" * 100_000
ODD = {
    "usage-a-list": Reply(changed(usage=[1])),
    "details-a-text": Reply(changed(usage__completion_tokens_details="y")),
    "negative": Reply(changed(usage__completion_tokens=-5, usage__prompt_tokens=-5)),
    "huge": Reply(changed(usage__completion_tokens=10**18)),
    "message-a-text": Reply(changed(choices__0__message="hello")),
    "message-a-list": Reply(changed(choices__0__message=[1])),
    "content-a-number": Reply(changed(choices__0__message__content=7)),
    "choices-an-object": Reply(changed(choices={})),
    "choices-of-null": Reply(changed(choices=[None])),
    "a-reason-of-a-list": Reply(changed(choices__0__finish_reason=[1])),
    "half-a-letter": Reply(b'{"choices":[{"message":{"content":"\\ud800 \\\\boxed{5}"},"finish_reason":"stop"}]}'),
    "nul": Reply(changed(choices__0__message__content="\x00\\boxed{5}")),
    "nan": Reply(changed(usage__completion_tokens=float("nan"))),
    "deep": Reply(b'{"choices": ' + DEEP.encode() + b"}"),
    "deep-but-readable": Reply(changed(choices__0__message__content=json.loads("[" * 80 + "]" * 80))),
    "digits": Reply(b'{"choices": ' + b"9" * 10_000 + b"}"),
    "not-an-object": Reply([1, 2]),
    "not-json": Reply(b"\xff\xfe{"),
    "empty": Reply(b""),
    "a-stream-of-numbers": Reply(events=[1, "[DONE]"]),
    "a-deep-event": Reply(events=[DEEP, "[DONE]"]),
    "an-event-without-end": Reply(events=["x" * (2 << 20)]),
    "an-event-of-odd-choices": Reply(events=[{"choices": {"0": 1}}, {"choices": "abc"}, "[DONE]"]),
    "a-delta-of-text": Reply(events=[{"choices": [{"delta": "hello", "finish_reason": "stop"}]}, "[DONE]"]),
    "ids-that-are-lists": Reply(events=[{"id": [1], "choices": [{"index": {}, "delta": {"content": "a"}}]}, "[DONE]"]),
}


@pytest.mark.parametrize("reply", ODD.values(), ids=ODD.keys())
def test_one_odd_answer_is_one_request_and_never_the_end_of_a_batch(reply):
    engine, (odd, *others) = ask(reply, 4)
    assert [done.answer for done in others] == ["5"] * 3
    assert odd.error or odd.answer is not None
    json.dumps(Record.of(odd).to_json(), ensure_ascii=False, allow_nan=False).encode()  # it can be kept
    for number in (odd.reasoning_tokens, odd.answer_tokens, engine.counters.trace_tokens):
        assert number is None or 0 <= number < 1000


class Stream(Reply):
    """A stream of raw bytes."""

    def encoded(self) -> bytes:
        return b"HTTP/1.1 200 .\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n" + self.body


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["lf", "crlf", "cr"])
def test_a_stream_may_have_any_form_that_the_standard_allows(end):
    events = [
        {"id": "x", "choices": [{"index": 0, "delta": {"reasoning_content": "2+3 is 5"}}]},
        {"id": "x", "choices": [{"index": 0, "delta": {"content": "\\boxed{5}"}, "finish_reason": "stop"}]},
        {"choices": [], "usage": GOOD["usage"]},
    ]
    lines = [
        [": a comment", "id: 7", *(f"data:{line}" for line in json.dumps(e, indent=1).split("\n"))] for e in events
    ]
    content = ("\ufeff" + "".join(line + end for event in lines for line in [*event, ""])).encode()
    _, (done,) = ask(Stream(content, cut=10**6), server="tensorrt-llm", enforce="native")
    assert (done.error, done.answer, done.reasoning_tokens) == (None, "5", 6)


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
def test_what_is_no_utf8_in_a_text_is_replaced_and_not_asked_for_again(is_stream):
    content = json.dumps(GOOD).encode()
    if is_stream:
        delta = {"index": 0, "delta": GOOD["choices"][0]["message"], "finish_reason": "stop"}
        content = b"data: %b\n\n" % json.dumps({"choices": [delta], "usage": GOOD["usage"]}).encode()
    content = content.replace(b"so ", b"so \xe6\x97 \xff ")
    engine, (done,) = ask(Reply(content), max_attempts=4)
    assert (done.error, done.answer, engine.counters.retries) == (None, "5", {})


def test_what_nobody_thought_of_is_one_failed_request_and_is_told_once(monkeypatch, caplog):
    def broken(*_: Any, **__: Any) -> Any:
        raise TypeError(f"no {SECRET} here")

    monkeypatch.setattr("forethought.engines.server.one_call.count_tokens", broken)
    with caplog.at_level(logging.DEBUG, logger="forethought"):
        _, found = ask(Reply(GOOD), 3)
    assert all("could not be read: TypeError: no [api key] here" in done.error for done in found)
    assert caplog.text.count("--debug shows where") == 1
    assert "in broken" in caplog.text  # where: told to those who ask
    assert SECRET not in caplog.text


class Endless(Reply):
    """Says that it is ten gigabytes long, sends two megabytes of them and keeps the line open."""

    def encoded(self) -> bytes:
        head = f"HTTP/1.1 {self.status} .\r\nContent-Type: application/json\r\nContent-Length: {10 << 30}\r\n\r\n"
        return head.encode() + b"[" * (2 << 20)


def test_of_an_endless_error_only_the_beginning_is_read():
    _, (done,) = ask(Endless(status=500), timeout_seconds=30.0)
    assert done.error.startswith("HTTP 500: [[[")
    assert len(done.error) < 400


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "deflate", "raw"])
def test_an_inflated_answer_is_bounded_by_what_was_read(encoding, monkeypatch):
    monkeypatch.setattr(reading, "MOST_BYTES", 1 << 20)
    zeros = b"0" * (16 << 20)
    packed = gzip.compress(zeros) if "gzip" in encoding else zlib.compress(zeros)
    if encoding == "raw":  # deflate as some servers mean it
        pack = zlib.compressobj(wbits=-15)
        packed, encoding = pack.compress(zeros) + pack.flush(), "deflate"
    del zeros
    tracemalloc.start()
    _, (done,) = ask(Reply(packed, headers={"Content-Encoding": encoding}))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "longer than 1 MiB" in done.error
    assert peak < 16 << 20


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "identity", ""])
def test_a_packed_answer_is_read_all_the_same(encoding):
    content = json.dumps(GOOD).encode()
    packed = {"gzip": gzip.compress, "deflate": zlib.compress}.get(encoding, bytes)(content)
    _, (done,) = ask(Reply(packed, headers={"Content-Encoding": encoding}))
    assert (done.answer, done.reasoning_tokens) == ("5", 6)


@pytest.mark.parametrize(
    ("headers", "body", "reason"),
    [
        ({"Content-Encoding": "br"}, b"x", "packed as 'br', which was not asked for"),
        ({"Content-Encoding": "gzip"}, b"\x1f\x8bnothing of the kind" * 9, "compression is broken"),
    ],
)
def test_packing_that_cannot_be_read_is_a_reason(headers, body, reason):
    _, (done,) = ask(Reply(body, headers=headers))
    assert reason in done.error


def test_several_members_of_gzip_are_one_answer():
    content = json.dumps(GOOD).encode()
    packed = gzip.compress(content[:40]) + gzip.compress(content[40:])
    _, (done,) = ask(Reply(packed, headers={"Content-Encoding": "gzip"}))
    assert done.answer == "5"


# ------------------------------------------------------------------------------------------- the key


def escaped(secret: str) -> str:
    return "".join(f"\\u{ord(letter):04x}" for letter in secret)


ECHOES = {
    "plain": SECRET,
    "slashes": SECRET.replace("/", "\\/"),
    "go": SECRET.replace("<", "\\u003c").replace(">", "\\u003E").replace("&", "\\u0026"),
    "unicode": escaped(SECRET),
    "twice-escaped": escaped(SECRET).replace("\\", "\\\\"),
    "broken-by-a-line": SECRET[:9] + "\\n" + SECRET[9:],
    "spaced": " ".join(SECRET),
    "broken-and-indented": SECRET[:9] + "\\r\\n      " + SECRET[9:],
    "url": urllib.parse.quote(SECRET, safe=""),
    "url-lower": urllib.parse.quote(SECRET, safe="").lower(),
    "url-twice": urllib.parse.quote(urllib.parse.quote(SECRET, safe=""), safe=""),
    "html": SECRET.replace("<", "&#60;").replace("/", "&#x2f;"),
}


def traces_of_the_key(text: str) -> bool:
    """Whether a person could read the key out of `text`."""
    for _ in range(3):
        text = urllib.parse.unquote(text)
    plain = "".join(text.replace("\\n", "").replace("\\r", "").replace("\\", "").split()).lower()
    return SECRET[-12:].lower() in plain or escaped(SECRET[-6:]) in text


@pytest.mark.slow
@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES.keys())
@pytest.mark.parametrize("place", ["error", "error-200", "answer", "thought", "event", "plain", "no-choices"])
def test_the_key_is_hidden_after_decoding(echo, place, caplog, capfd):
    error = ('{"error": {"message": "bad key ' + echo + '"}}').encode()
    message = (
        '{"choices": [{"message": {"content": "CONTENT", "reasoning_content": "THOUGHT"}, "finish_reason": "stop"}]}'
    )
    replies = {
        "error": Reply(error, status=401),
        "error-200": Reply(error),
        "answer": Reply(
            message.replace("CONTENT", f"it is {echo} \\\\boxed{{{echo}}}").replace("THOUGHT", "").encode()
        ),
        "thought": Reply(message.replace("CONTENT", "\\\\boxed{5}").replace("THOUGHT", f"I see {echo}").encode()),
        "event": Reply(events=['{"choices": [{"delta": {"content": "' + echo + '"}, "finish_reason": "stop"}]}']),
        "plain": Reply(f"<h1>{echo}</h1>".encode(), status=500),
        "no-choices": Reply(('{"choices": [], "echo": "' + echo + '"}').encode()),
    }
    with caplog.at_level(logging.DEBUG, logger="forethought"):
        engine, (done,) = ask(replies[place])
        engine.close()
    written = capfd.readouterr()
    everything = f"{done}{json.dumps(Record.of(done).to_json())}{caplog.text}{written.out}{written.err}"
    assert not traces_of_the_key(everything)
    assert "[api key]" in everything


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:geheim@a.example:1/v1?key=geheim#geheim", "https://a.example:1/v1"),
        ("redis://user:gehe@im@a.example:1/0", "redis://a.example:1/0"),
        ("redis://a.example/0?password=gehe@im", "redis://…"),
        ("http://user:gehe?im@a.example/", "http://…"),
        ("unix://:geheim@/a/b?db=1", "unix:///a/b"),
        ("//user:geheim@a.example/login?token=geheim", "//a.example/login"),
        ("/login?token=geheim", "/login"),
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1"),
    ],
)
def test_no_secret_of_a_url_is_shown(url, shown, capsys, caplog):
    _, (done,) = ask(Reply(b"", status=307, headers={"Location": url}))
    assert f"redirects to {shown}, which" in done.error
    if "://" in url:
        _, (done,) = ask(Reply({"error": {"message": f"see {url} for more"}}, status=400))
        assert f"see {shown} for more" in done.error
        if "geheim" in url:
            assert _exit_code(["run", "m", "--budget", "64", "q.jsonl", url]) == 2
            assert _exit_code(["doctor", "--base-url", url]) == 1
    written = capsys.readouterr()
    assert "geheim" not in written.out + written.err + caplog.text


def test_a_key_that_comes_in_pieces_is_hidden():
    events = [
        {"choices": [{"delta": {"content": piece}}]} for piece in ("it is ", SECRET[:7], SECRET[7:20], SECRET[20:])
    ]
    events.append({"choices": [{"delta": {"reasoning_content": ""}, "finish_reason": "stop"}]})
    _, (done,) = ask(Reply(events=events))
    assert not traces_of_the_key(str(done))
    assert "[api key]" in done.reasoning


def test_the_key_is_hidden_where_the_engine_starts():
    def handle(asked: Asked) -> Reply:
        return Reply(('{"error": {"message": "bad ' + escaped(SECRET) + '"}}').encode(), status=401)

    with serving(handle) as url, pytest.raises(EngineError) as refused:
        OpenAIEngine("m", template=THINK, base_url=url, max_attempts=1)
    assert "[api key]" in str(refused.value)
    assert not traces_of_the_key(str(refused.value))


def test_a_key_that_is_no_secret_does_not_spoil_answers(monkeypatch):
    monkeypatch.setenv("FORETHOUGHT_API_KEY", "5")
    _, (done,) = ask(Reply(GOOD))
    assert (done.answer, done.reasoning) == ("5", "2+3 is 5")


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(), st.text())
@example("%" * 50, "\\" * 200)
def test_hiding_takes_the_key_alone(before, after):
    secret = Key(SECRET, "K")
    assert secret.hide(f"{before}{SECRET}{after}").count("[api key]") >= 1
    assert secret.hide(before) == before or "%" in before or "\\" in before


def test_hiding_is_quick_on_text_made_to_be_slow():
    secret = Key(SECRET, "K")
    for text in (
        "s" * 300_000,
        "\\" * 300_000,
        "s\n" * 100_000,
        SECRET[:-1] * 10_000,
        "%7" * 100_000 + "s" + " " * 99_999,
    ):
        assert secret.hide(text) == text


# ------------------------------------------------------------------------------------------- fuzz

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


def paths(value: Any, so_far: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [so_far, *(path for name, each in inner for path in paths(each, (*so_far, name)))]


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """`value` with `new` at `path`."""
    if not path:
        return new
    name, *rest = path
    if isinstance(value, dict):
        return {**value, name: put(value.get(name), tuple(rest), new)}
    return [put(each, tuple(rest), new) if number == name else each for number, each in enumerate(value)]


CHUNKS: list[dict[str, Any]] = [
    {"id": "c", "choices": [{"index": 0, "delta": {"reasoning_content": "2+3 "}, "finish_reason": None}]},
    {"id": "c", "choices": [{"index": 0, "delta": {"content": "\\boxed{"}}], "usage": {"completion_tokens": 3}},
    {"id": "c", "choices": [{"index": 0, "delta": {"content": [{"type": "text", "text": "5}"}]}}]},
    {"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    {"id": "c", "choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21}},
]
OURS = (RequestError, AttemptError, ValueError)


def judged(answer: dict[str, Any]) -> None:
    """Reads an answer to its end; only a RequestError may come of it, and no count below 0."""
    try:
        reply = ChatReply.read(answer)
    except RequestError:
        return
    thought, rest, _ = reply.split(THINK)
    assert isinstance(answer_in(rest or thought, THINK), str)
    count = count_tokens(reply.usage, thought=thought, answer=rest, seen=reply.streamed, pieces=reply.pieces)
    for number in (count.reasoning, count.answer, count.total, count.least, count.most):
        assert number is None or number >= 0


@pytest.mark.slow
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.sampled_from(paths(GOOD)), VALUES)
def test_any_value_anywhere_in_an_answer_is_read_or_refused(path, value):
    found = put(GOOD, path, value)
    if not isinstance(found, dict):
        return
    error = error_in(found)
    assert may_pass(error) in (True, False, None)
    found = reading.cleaned(found, str)
    judged(found)
    choices = found.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        assert all(isinstance(piece, bytes) for piece in pieces_in(choices[0].get("logprobs")))
        assert _ran_into("}", choices[0], "{}") in (True, False)


@pytest.mark.slow
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.lists(
        st.sampled_from(CHUNKS)
        | st.tuples(st.sampled_from([(chunk, path) for chunk in CHUNKS for path in paths(chunk)]), VALUES).map(
            lambda drawn: put(drawn[0][0], drawn[0][1], drawn[1])
        ),
        max_size=9,
    ),
    st.booleans(),
)
def test_chunks_of_any_value_in_any_order_are_put_together_or_refused(events, is_done):
    chunks = Chunks(64, THINK)
    try:
        for event in events:
            if isinstance(event, dict) and not chunks.add(event):
                break
        answer = chunks.finish(is_done=is_done)
    except OURS:
        return
    judged(reading.cleaned(answer, str))
