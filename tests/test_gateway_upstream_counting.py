"""Replies counted as they pass: any cut into pieces gives the same bytes and the same numbers; texts are not kept."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forethought.gateway.counting import MOST_KEPT, MOST_LINE, MOST_TAIL, Tally
from forethought.gateway.reply import Reply
from forethought.gateway.used import CLIENT_LEFT, DONE, REFUSED_UPSTREAM
from forethought.servers.tokens import Shown, least_tokens

USAGE = {"prompt_tokens": 9, "completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 3}}


def stream(*events: Any, end: str = "\n\n") -> bytes:
    lines = [event if isinstance(event, str) else json.dumps(event) for event in events]
    return "".join(f"data: {line}{end}" for line in lines).encode()


def piece(**delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta}]}


CHAT = (piece(reasoning_content="so it "), piece(reasoning_content="is "), piece(content="42"))
LAST = {"choices": [], "usage": USAGE}


def fed(content: bytes, cuts: list[int], **how: Any) -> tuple[bytes, Tally]:
    tally, onward, start = Tally(is_stream=True, **how), b"", 0
    for cut in [*sorted({cut % (len(content) + 1) for cut in cuts}), len(content)]:
        onward += tally.feed(content[start:cut])
        start = cut
    return onward + tally.rest(), tally


LINE_ENDS = st.sampled_from(["\n", "\r\n", "\r"])


def written(*events: Any, end: str, begin: str, before: str, indent: int | None) -> bytes:
    """A stream as the standard allows it (WHATWG HTML, "server-sent events")."""
    found = begin
    for event in events:
        text = event if isinstance(event, str) else json.dumps(event, indent=indent, ensure_ascii=False)
        lines = [*before.splitlines(), *(f"data: {line}" for line in text.split("\n")), ""]
        found += "".join(line + end for line in lines)
    return found.encode()


@given(
    cuts=st.lists(st.integers(0, 10_000), max_size=12),
    end=LINE_ENDS,
    begin=st.sampled_from(["", "\ufeff"]),
    before=st.sampled_from(["", ": a comment", "event: chunk\nid: 7\nretry: 10", "data"]),
    indent=st.sampled_from([None, 1]),
    drops=st.booleans(),
)
def test_any_cut_of_any_form_gives_the_same_bytes_and_the_same_numbers(cuts, end, begin, before, indent, drops):
    events = (*CHAT, piece(content=" naïve 日本 😀"), LAST, "[DONE]")
    how = {"end": end, "begin": begin, "before": before, "indent": indent}
    onward, tally = fed(written(*events, **how), cuts, drops_usage=drops)
    assert onward == written(*(event for event in events if event is not LAST or not drops), **how)
    used = tally.used(200, DONE)
    assert (used.prompt_tokens, used.reasoning_tokens, used.output_tokens) == (9, 3, 5)


def test_what_the_standard_drops_is_counted_where_servers_send_it():
    for content in (
        stream(*CHAT, LAST, end="\n"),  # no empty lines
        stream(*CHAT, LAST).rstrip(b"\n"),  # no end
        stream("no JSON", *CHAT, LAST, end="\n"),
        stream(piece(content="42 word")).replace(b"word", b"w\xff\xfed") + stream(LAST),
    ):
        _, tally = fed(content, [7, 100])
        assert tally.used(200, DONE).output_tokens == 5


@given(content=st.binary(max_size=300), cuts=st.lists(st.integers(0, 400), max_size=6), drops=st.booleans())
def test_whatever_comes_goes_on(content, cuts, drops):
    onward, tally = fed(content, cuts, drops_usage=drops)
    assert onward == content
    tally.used(200, DONE)


@given(st.lists(st.text(max_size=40), max_size=8))
def test_a_text_in_pieces_is_as_long_as_the_whole(pieces):
    shown = Shown()
    for each in pieces:
        shown.add(each)
    text = "".join(pieces)
    assert shown.least_tokens == least_tokens(text)
    assert shown.num_bytes == len(text.encode("utf-8", "replace"))


ANTHROPIC = (
    {"type": "message_start", "message": {"usage": {"input_tokens": 4, "cache_read_input_tokens": 6}}},
    {"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": "so it is "}},
    {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "42"}},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}},
)
RESPONSES = (
    {"type": "response.reasoning_text.delta", "delta": "so it is "},
    {"type": "response.output_text.delta", "delta": "42"},
    {
        "type": "response.completed",
        "response": {
            "usage": {"input_tokens": 10, "output_tokens": 7, "output_tokens_details": {"reasoning_tokens": 4}}
        },
    },
)


@pytest.mark.parametrize("events", [ANTHROPIC, RESPONSES], ids=["messages", "responses"])
def test_events_of_other_routes_are_counted(events):
    _, tally = fed(stream(*events), [])
    used = tally.used(200, DONE)
    assert (used.prompt_tokens, used.output_tokens) == (10, 7)
    assert used.at_least == 7


WHOLE = {
    "a chat": {"choices": [{"message": {"reasoning_content": "so it is", "content": "42"}}], "usage": USAGE},
    "a text": {"choices": [{"text": "so it is 42"}], "usage": USAGE},
    "a response": {
        "output": [{"type": "message", "content": [{"type": "output_text", "text": "42"}]}],
        "usage": {"input_tokens": 9, "output_tokens": 5, "output_tokens_details": {"reasoning_tokens": 3}},
    },
    "a message": {"content": [{"type": "text", "text": "42"}], "usage": {"input_tokens": 9, "output_tokens": 5}},
}


@pytest.mark.parametrize("found", WHOLE.values(), ids=WHOLE.keys())
def test_whole_replies_are_counted(found):
    tally = Tally(is_stream=False)
    tally.feed(json.dumps(found).encode())
    tally.rest()
    used = tally.used(200, DONE)
    assert (used.prompt_tokens, used.output_tokens) == (9, 5)


@pytest.mark.parametrize("encoding", [b"identity", b"Identity", b""])
async def test_a_reply_that_is_not_packed_is_counted_whatever_that_is_called(encoding):
    async def send(message: Any) -> None:
        pass

    reply = Reply(send, {})
    headers = [(b"content-type", b"application/json"), (b"content-encoding", encoding)]
    await reply.send({"type": "http.response.start", "status": 200, "headers": headers})
    await reply.send({"type": "http.response.body", "body": json.dumps(WHOLE["a chat"]).encode()})
    assert reply.used(DONE).output_tokens == USAGE["completion_tokens"]


@given(cuts=st.lists(st.integers(0, 400), max_size=4), is_stream=st.booleans(), wbits=st.sampled_from([31, 15, -15]))
async def test_a_packed_reply_is_counted_and_passes_as_it_is(cuts, is_stream, wbits):
    came = b""

    async def send(message: Any) -> None:
        nonlocal came
        came += message.get("body", b"")

    pack = zlib.compressobj(wbits=wbits)
    content = stream(*CHAT, LAST, "[DONE]") if is_stream else json.dumps(WHOLE["a chat"]).encode()
    content = pack.compress(content) + pack.flush()
    reply = Reply(send, {}, drops_usage=True)
    kind, encoding = b"text/event-stream" if is_stream else b"application/json", b"gzip" if wbits == 31 else b"deflate"
    headers = [(b"content-type", kind), (b"content-encoding", encoding)]
    await reply.send({"type": "http.response.start", "status": 200, "headers": headers})
    ends = [*sorted({cut % len(content) for cut in cuts}), len(content)]
    for start, end in zip([0, *ends], ends, strict=False):
        body = {"type": "http.response.body", "body": content[start:end], "more_body": end < len(content)}
        await reply.send(body)
    assert came == content
    assert reply.used(DONE).output_tokens == USAGE["completion_tokens"]


@pytest.mark.parametrize("content", [b"no gzip", gzip.compress(b"x" * 40_000_000)], ids=["broken", "a bomb"])
async def test_what_cannot_be_unpacked_passes_uncounted(content):
    async def send(message: Any) -> None:
        came.append(message.get("body", b""))

    came: list[bytes] = []
    reply = Reply(send, {})
    headers = [(b"content-type", b"application/json"), (b"content-encoding", b"gzip")]
    await reply.send({"type": "http.response.start", "status": 200, "headers": headers})
    await reply.send({"type": "http.response.body", "body": content})
    assert b"".join(came) == content
    assert reply.used(DONE).output_tokens is None


def test_without_a_word_on_usage_only_a_least_number_is_known():
    _, tally = fed(stream(*CHAT), [])
    used = tally.used(200, CLIENT_LEFT)
    assert (used.output_tokens, used.at_least) == (None, 4)


def test_a_usage_that_its_text_belies_is_not_believed():
    _, tally = fed(stream(piece(content="word " * 100), {"choices": [], "usage": {"completion_tokens": 3}}), [])
    used = tally.used(200, DONE)
    assert (used.output_tokens, used.at_least) == (None, 100)


def test_what_a_message_says_of_itself_at_its_start_is_not_what_it_generated():
    """A client that leaves in a thought that is not shown would else pay for one token."""
    started = {"type": "message_start", "message": {"usage": {"input_tokens": 10, "output_tokens": 1}}}
    _, tally = fed(stream(started, {"type": "ping"}), [])
    used = tally.used(200, CLIENT_LEFT)
    assert (used.prompt_tokens, used.output_tokens) == (10, None)


def test_a_usage_of_nothing_is_no_count():
    tally = Tally(is_stream=False)
    call = {"message": {"role": "assistant", "tool_calls": [{"function": {"name": "look", "arguments": "{}"}}]}}
    tally.feed(json.dumps({"choices": [call], "usage": dict.fromkeys(USAGE, 0)}).encode())
    tally.rest()
    used = tally.used(200, DONE)
    assert (used.prompt_tokens, used.output_tokens) == (None, None)


def test_an_error_has_used_nothing():
    tally = Tally(is_stream=False)
    assert tally.used(500, DONE).ending == REFUSED_UPSTREAM
    assert tally.used(500, DONE).output_tokens == 0


@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n", "\r\r", "\n\r\n", "\r\n\n", "\n"])
def test_no_text_is_taken_out_with_the_usage_however_events_end(end):
    content = stream(piece(content="17 times"), piece(content="23 is"), LAST, "[DONE]", end=end)
    for size in (1, 7, 10_000):
        for drops in (False, True):
            came, tally = fed(content, list(range(0, len(content), size)), drops_usage=drops)
            assert all(came.count(text) == 1 for text in (b"17 times", b"23 is", b"[DONE]"))
            assert (b"prompt_tokens" in came) == (not drops or end == "\n")  # which ends no event
            assert tally.used(200, DONE).output_tokens == USAGE["completion_tokens"]


def test_a_last_event_without_an_end_is_the_usage_alone_too():
    came, tally = fed(stream(LAST, end=""), [], drops_usage=True)
    assert came == b""
    assert tally.used(200, DONE).output_tokens == USAGE["completion_tokens"]


def test_an_image_in_a_stream_does_not_end_its_counting():
    content = stream(piece(images=["x" * 2_500_000]), LAST)
    for drops in (False, True):
        came, tally = fed(content, [1_000_000, 2_400_000], drops_usage=drops)
        assert len(came) > 2_500_000
        assert tally.used(200, DONE).output_tokens == USAGE["completion_tokens"]


@pytest.mark.parametrize("space", [None, (",", ":")], ids=["spaces", "compact"])
def test_a_reply_that_is_too_long_to_be_read_is_counted_by_the_usage_at_its_end(space):
    """With the log-probabilities of twenty tokens for each it soon has so many bytes."""
    said = json.dumps({"usage": {"completion_tokens": 1}})
    choice = {"message": {"content": said}, "logprobs": "x" * MOST_KEPT}
    for last in ({}, {"kv_transfer_params": None, "timings": {"n": 3}}):
        content = json.dumps({"choices": [choice], "usage": USAGE, **last}, separators=space).encode()
        tally = Tally(is_stream=False)
        came = b"".join(tally.feed(content[start : start + 100_000]) for start in range(0, len(content), 100_000))
        tally.rest()
        assert came == content
        assert tally.used(200, DONE).output_tokens == USAGE["completion_tokens"]
    untold = Tally(is_stream=False)
    untold.feed(json.dumps({"choices": [choice, {"message": {"content": said}}]}).encode())
    untold.rest()
    assert untold.used(200, DONE).output_tokens is None


def test_nothing_grows_with_what_passes():
    tally = Tally(is_stream=True, drops_usage=True)
    for _ in range(50):
        tally.feed(stream(*CHAT * 50))
    assert len(tally._kept) == 0
    endless = Tally(is_stream=True, drops_usage=True)
    content = b"data: " + b"x" * (MOST_LINE + 10)
    assert endless.feed(content) == content
    assert len(endless._kept) == 0
    large = Tally(is_stream=False)
    large.feed(b"x" * (MOST_KEPT + 1))
    assert len(large._kept) <= MOST_TAIL
