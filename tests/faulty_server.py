"""A server that misbehaves in every way that servers do, by a script: the same request meets the same trouble."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

from loopback import Asked, Reply

LASTING = ("redirect", "unauthorised", "ignored-budget", "no-choices")  # trying again does not help
HANG_SECONDS = 30.0


def _fault(name: str, asked: Asked, good: Reply) -> Reply:
    key = asked.headers.get("authorization", "")
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=0), usegmt=True)
    whole = good.encoded()
    body = good.body if isinstance(good.body, dict) else {}
    replies: dict[str, Callable[[], Reply]] = {
        "429": lambda: Reply({"error": {"message": "slow down"}}, status=429),
        "429-seconds": lambda: Reply({"error": "slow down"}, status=429, headers={"Retry-After": "0.01"}),
        "429-date": lambda: Reply(b"slow down", status=429, headers={"Retry-After": soon}),
        "500": lambda: Reply({"error": {"message": f"it broke on {key}"}}, status=500),
        "503": lambda: Reply(b"<html>busy</html>", status=503),
        "hang": lambda: Reply(good.body, events=good.events, delay=HANG_SECONDS),
        "cut": lambda: Reply(good.body, events=good.events, cut=len(whole) - 9),
        "no-answer": lambda: Reply(good.body, cut=0),
        "malformed": lambda: Reply(b'{"choices": [{"mess'),
        "error-200": lambda: Reply({"error": {"message": f"overloaded, {key}", "code": 503}}),
        "redirect": lambda: Reply(b"", status=307, headers={"Location": "http://elsewhere.invalid/v1?key=1"}),
        "unauthorised": lambda: Reply({"error": {"message": f"Incorrect API key provided: {key}"}}, status=401),
        "no-choices": lambda: Reply({"choices": [], "echo": key}),
        "wrong-usage": lambda: _with_usage(good, body),
        "ignored-budget": lambda: _overshot(good, body),
        "out-of-order": lambda: Reply(events=(good.events or [])[::-1]),
    }
    return replies[name]()


def _with_usage(good: Reply, body: dict[str, Any]) -> Reply:
    usage = {"prompt_tokens": -1, "completion_tokens": "many", "completion_tokens_details": None}
    return Reply(body | {"usage": usage}) if body else good


def _overshot(good: Reply, body: dict[str, Any]) -> Reply:
    """The same answer with a thought far beyond any cap."""
    if good.events is not None:
        chunk = {"id": 1, "choices": [{"index": 0, "delta": {"reasoning_content": "so "}}]}
        return Reply(events=[chunk] * 300)
    choice = body["choices"][0]
    if isinstance(choice.get("token_ids"), list):
        choice = choice | {"token_ids": [5] * 300, "finish_reason": "length", "text": "3" * 300}
    else:
        choice = choice | {"message": {"reasoning": "so " * 300, "content": "12"}}
    return Reply(body | {"choices": [choice]})


class FaultyServer:
    """Wraps a handler: `share` of the generating requests meet one of `faults`, at their first attempt or at all.

    Attributes:
        lasting: bodies of the requests for which trying again does not help.
        met: fault -> times that it was met.
        num_generating: generating requests that came in.
    """

    def __init__(
        self, good: Callable[[Asked], Reply], *, faults: tuple[str, ...], share: float = 0.3, seed: int = 0
    ) -> None:
        self.good, self.faults, self.share, self.seed = good, faults, share, seed
        self.lasting: dict[str, str] = {}
        self.met: Counter[str] = Counter()
        self.num_generating = 0
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __call__(self, asked: Asked) -> Reply:
        with self._lock:
            if not asked.path.endswith(("/completions", "/completion")):
                return self.good(asked)
            self.num_generating += 1
            name = hashlib.blake2b(asked.content, digest_size=16).hexdigest()
            number = int.from_bytes(hashlib.blake2b(f"{self.seed}{name}".encode(), digest_size=8).digest(), "big")
            self._seen[name] += 1
            reply = self.good(asked)
            if number % 1000 >= self.share * 1000:
                return reply
            fault = self.faults[number // 1000 % len(self.faults)]
            if fault in LASTING:
                self.lasting[asked.content.decode()] = fault
            elif self._seen[name] > 1 + number // 10**6 % 3:  # once, twice or three times
                return reply
            self.met[fault] += 1
            return _fault(fault, asked, reply)


def streaming(asked: Asked) -> Reply:
    """A good server that streams: a thought as long as the cap allows, at most 12 tokens, then an answer."""
    if not asked.path.endswith("/completions"):
        return Reply({"data": []})
    body = json.loads(asked.content)
    length = min(12, body["thinking_token_budget"])
    deltas = [{"reasoning_content": "so "}] * length + [{"content": "##{1"}, {"content": "2}"}]
    events: list[Any] = [{"id": 1, "choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    usage = {"prompt_tokens": 7, "completion_tokens": length + 2}
    events.append({"id": 1, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": usage})
    return Reply(events=[*events, "[DONE]"])
