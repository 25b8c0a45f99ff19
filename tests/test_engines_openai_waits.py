"""How long a server asks to wait, in headers and in words, and what waiting it out comes to."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("aiohttp", reason="needs aiohttp")

from forethought.servers.address import Address
from forethought.servers.client import Client
from forethought.servers.retrying import Backoff, RequestError
from forethought.servers.tokens import Counters
from forethought.servers.troubles import asked_wait, reset_wait
from loopback import Asked, Reply, serving

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
LATER = NOW + timedelta(seconds=20)


def words(text: str) -> dict[str, Any]:
    return {"error": {"message": text, "type": "tokens", "code": "rate_limit_exceeded"}}


@pytest.mark.parametrize(
    ("headers", "body", "expected"),
    [
        ({"retry-after-ms": "6000"}, None, 6.0),
        ({"Retry-After": "3", "retry-after-ms": "3500"}, None, 3.5),
        ({"Retry-After": "1"}, words("Please try again in 20s."), 20.0),
        ({"Retry-After": "1m30s"}, None, 90.0),
        ({"Retry-After": str(int(LATER.timestamp()))}, None, 20.0),
        ({"Retry-After": format_datetime(LATER, usegmt=True)}, None, 20.0),
        ({"Retry-After": LATER.isoformat()}, None, 20.0),
        ({}, words("Rate limit reached for m on tokens per min. Please try again in 20s."), 20.0),
        ({}, words("Please try again in 1m30s. Visit https://example.com/limits"), 90.0),
        ({}, words("Please try again in 1m30.5s"), 90.5),
        ({}, words("Please try again in 850ms."), 0.85),
        ({}, words("Please retry in 20.5s."), 20.5),
        ({}, words("please retry after 20 seconds"), 20.0),
        ({}, words("Try again in 1 minute and 5 seconds"), 65.0),
        ({}, words("You must wait 3 minutes before the next request"), 180.0),
        ({}, "Too many requests, try again in 2 hours", 7200.0),
        (
            {},
            {"error": {"details": [{"@type": "google.rpc.RetryInfo", "retryDelay": "34s"}]}},
            34.0,
        ),
        ({}, {"error": {"details": [{"retryDelay": {"seconds": 34}}]}}, 34.0),
        ({}, {"error": {"message": "slow", "retry_after": 7}}, 7.0),
        ({}, {"retry_after_ms": 700}, 0.7),
        ({}, {"error": {"metadata": {"headers": {"X-RateLimit-Reset": str(int(LATER.timestamp() * 1000))}}}}, 20.0),
        ({}, {"detail": {"retryAfter": "1.5"}}, 1.5),
        ({}, words("Try again later"), None),
        ({}, words("Limit 30000, used 29000, requested 4000 tokens; try another model"), None),
        ({}, words("retry after 3 models"), None),
        ({"Retry-After": "soon"}, None, None),
        ({"Retry-After": "inf"}, {"retry_after": float("nan")}, None),
        ({}, [None, 1, {"retry_after": None}], None),
    ],
)
def test_a_wait_is_read(headers, body, expected):
    assert asked_wait(headers, body, NOW) == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"x-ratelimit-reset-requests": "6ms", "x-ratelimit-reset-tokens": "1m30s"}, 0.006),
        ({"x-ratelimit-reset-tokens": "1m30s", "x-ratelimit-remaining-tokens": "0"}, 90.0),
        (
            {
                "x-ratelimit-reset-requests": "6ms",
                "x-ratelimit-reset-tokens": "20s",
                "x-ratelimit-remaining-requests": "9",
                "x-ratelimit-remaining-tokens": "0",
            },
            20.0,
        ),
        ({"ratelimit-reset": "12"}, 12.0),
        ({"x-ratelimit-reset": str(int(LATER.timestamp()))}, 20.0),
        ({"x-ratelimit-reset": str(int(LATER.timestamp() * 1000))}, 20.0),
        ({"ratelimit": "limit=100, remaining=0, reset=15"}, 15.0),
        ({"ratelimit": '"default";r=0;t=15'}, 15.0),
        (
            {"anthropic-ratelimit-tokens-reset": "2026-11-24T12:00:20Z", "anthropic-ratelimit-tokens-remaining": "0"},
            20.0,
        ),
        ({"x-ratelimit-reset-tokens": "soon"}, None),
        ({}, None),
    ],
)
def test_the_end_of_a_limit_is_read(headers, expected):
    assert reset_wait(headers, NOW) == (None if expected is None else pytest.approx(expected))


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(), st.recursive(st.none() | st.floats() | st.integers() | st.text(), st.lists, max_leaves=4))
def test_no_header_and_no_body_brings_a_wait_below_0(text, value):
    named = dict.fromkeys(("Retry-After", "retry-after-ms", "x-ratelimit-reset-tokens", "ratelimit"), text)
    body = {"retry_after": value, "error": {"message": f"try again in {text}", "retryDelay": text}}
    for wait in (asked_wait(named, body, NOW), reset_wait(named, NOW)):
        assert wait is None or 0 <= wait < float("inf")


async def get(url: str, **backoff: Any) -> tuple[str, Counters]:
    """Why a request fails, or "", and what was counted."""
    counters = Counters()
    client = Client(
        Address.parse(url),
        None,
        backoff=Backoff(**{"base_seconds": 0.001, **backoff}),
        timeout_seconds=5.0,
        concurrency=4,
        counters=counters,
    )
    async with client:
        try:
            await client.get(client.address.api("models"))
        except RequestError as error:
            return str(error), counters
    return "", counters


@pytest.mark.slow
@pytest.mark.parametrize(
    ("headers", "body"),
    [
        pytest.param({}, words("Please try again in 200ms."), id="in-words"),
        pytest.param({"retry-after-ms": "200"}, {}, id="milliseconds"),
        pytest.param({}, {"error": {"details": [{"retryDelay": "0.2s"}]}}, id="retry-info"),
        pytest.param({"x-ratelimit-reset-tokens": "200ms"}, {}, id="end-of-the-limit"),
    ],
)
def test_a_wait_is_waited_out_also_with_few_attempts(headers, body):
    times: list[float] = []

    def handle(asked: Asked) -> Reply:
        times.append(asyncio.get_running_loop().time())
        is_over = times[-1] - times[0] >= 0.2
        return Reply({"data": []}) if is_over else Reply(body, status=429, headers=headers)

    with serving(handle) as url:
        reason, counters = asyncio.run(get(url, max_attempts=2))
    assert reason == ""
    assert counters.num_attempts == 2


def test_a_limit_without_a_hint_is_tried_for_longer_than_a_minute():
    backoff = Backoff()
    for uniform in (0.0, 0.5, 0.999):
        waits = [backoff.wait(attempt, None, uniform, is_limit=True) for attempt in range(1, backoff.max_attempts)]
        assert sum(waits) > 60
        assert max(waits) <= backoff.max_seconds
    assert backoff.wait(backoff.max_attempts, None, 0.5, is_limit=True) is None


def test_a_wait_that_was_too_short_grows():
    """Forty requests that are told the same second come back together, and are told it again."""
    backoff = Backoff()
    waits = [backoff.wait(attempt, 1.0, 0.0, is_limit=True) for attempt in range(1, 6)]
    assert waits[0] == 1.0
    assert waits == sorted(waits)
    assert sum(waits) > 30
    assert backoff.wait(5000, None, 0.5) is None
    assert Backoff(max_attempts=10**6).wait(5000, None, 0.5, is_limit=True) <= 30


def test_the_end_of_a_limit_far_away_is_not_a_failure():
    with serving(lambda _: Reply({}, status=429, headers={"x-ratelimit-reset-requests": "6h"})) as url:
        reason, _ = asyncio.run(get(url, max_attempts=1))
    assert "asks to wait 120 s" in reason
