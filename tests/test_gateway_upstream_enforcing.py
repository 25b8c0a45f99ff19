"""How a gateway finds out whether the server keeps caps by itself."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="needs aiohttp")

from forethought.core.menu import Menu
from forethought.core.serve_settings import ServeSettings
from forethought.errors import InvalidSettingsError
from forethought.gateway.hosts.upstream.enforcing import TRIED_CAP, enforcement, keeps_cap
from forethought.servers.detecting import Server
from forethought.servers.kinds import KINDS
from forethought.servers.retrying import RequestError

CAPS = Menu.evenly(16, 64)


class Answers:
    """Stands for a client whose server answers so."""

    def __init__(self, reply: Any) -> None:
        self.address: Any = None
        self.reply, self.asked = reply, {}

    async def post(self, url: str, body: dict[str, Any]) -> Any:
        self.asked = body
        if isinstance(self.reply, Exception):
            raise self.reply
        return self.reply


def reply(thought: str, text: str, reasoning: int | None = None) -> dict[str, Any]:
    details = {} if reasoning is None else {"completion_tokens_details": {"reasoning_tokens": reasoning}}
    usage = {"prompt_tokens": 9, "completion_tokens": 60, **details}
    return {"choices": [{"message": {"reasoning_content": thought, "content": text}}], "usage": usage}


@pytest.mark.parametrize(
    ("answer", "is_kept"),
    [
        (reply("so I count them one by one", "so 7 trees, I say, and no more than 7", TRIED_CAP), True),
        (
            reply("so I count them one by one", "so 7 trees, I say, and no more than 7", TRIED_CAP + 2),
            True,
        ),  # its tags count
        (reply("so I count them one by one, and then once more " * 4, "", 60), False),
        (reply("", "a thought in the text", None), None),
        (reply("", "a thought in the text", 0), None),
        ({"choices": []}, None),
        (["what"], None),
        (RequestError("HTTP 400: thinking_token_budget is not allowed", status=400), False),
        (RequestError("HTTP 503: later", status=503), None),
    ],
)
def test_a_cap_counts_as_kept_only_where_a_thought_was_seen_to_end(answer, is_kept, monkeypatch):
    client = Answers(answer)
    client.address = type("Where", (), {"api": staticmethod(lambda route: route)})()
    server = Server(KINDS["llama.cpp"], "it says so")
    assert asyncio.run(keeps_cap(client, server)) is is_kept
    assert client.asked["reasoning_budget_tokens"] == TRIED_CAP
    assert client.asked["max_tokens"] > TRIED_CAP + 16


def settings(how: str) -> ServeSettings:
    return ServeSettings(upstream="http://127.0.0.1:1/v1", predictor="p", price=0.1, enforce=how)


@pytest.mark.parametrize(
    ("kind", "how", "is_kept", "way"),
    [
        ("vllm", "auto", True, "native"),
        ("vllm", "auto", None, "native"),  # it refuses a field that it does not keep
        ("vllm", "auto", False, "two-call"),
        ("llama.cpp", "auto", True, "native"),
        ("llama.cpp", "auto", None, "two-call"),  # it takes the field and may do nothing of it
        ("llama.cpp", "native", None, "native"),
        ("sglang", "auto", None, "two-call"),
        ("anthropic", "auto", None, "native"),
        ("vllm", "two-call", True, "two-call"),
    ],
)
def test_the_way_follows_what_was_seen(kind, how, is_kept, way):
    assert enforcement(settings(how), KINDS[kind], CAPS, is_kept)[0] == way


def test_a_server_without_any_way_is_refused():
    with pytest.raises(InvalidSettingsError, match="effort levels"):
        enforcement(settings("auto"), KINDS["openai"], CAPS, False)
