"""A server for the plug-in's tests without vLLM: one token a character, caps that are off by as much as a test says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from forethought.gateway.host import Tags
from forethought.servers.kinds import KINDS, ServerKind

START, END = "<assistant>", "\n\nFinal answer: \\boxed{"


class Characters:
    """A tokenizer of one token a character, with a chat template."""

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        return [ord(character) for character in text]

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        return "".join(map(chr, ids))

    def apply_chat_template(self, messages: Any, *, add_generation_prompt: bool, tokenize: bool) -> str:
        return "".join(f"<{turn['role']}>{turn['content']}\n" for turn in messages) + START


def tags(*, is_parsed: bool = False) -> Tags:
    tokenizer = Characters()
    return Tags(START, END, tuple(tokenizer.encode(START)), tuple(tokenizer.encode(END)), is_parsed)


@dataclass
class FakeHost:
    """A host; `offset` is by how much its thoughts are longer than their caps, None where caps have no effect."""

    offset: int | None = 2
    width: int = 8
    kind: ServerKind = KINDS["vllm"]
    models: frozenset[str] = frozenset({"coder"})
    tags: Tags | None = field(default_factory=tags)
    has_priorities: bool = True
    context_tokens: int | None = None
    num_layers: int = 4
    why_no_states: str = ""
    is_hooked: bool = True
    tokenizer: Any = field(default_factory=Characters)
    prefills: list[str] = field(default_factory=list)

    @property
    def hidden_size(self) -> int:
        return self.width

    async def render(self, body: Mapping[str, Any]) -> list[int] | None:
        if body.get("refused"):
            return None
        text = self.tokenizer.apply_chat_template(body["messages"], add_generation_prompt=True, tokenize=False)
        return self.tokenizer.encode(text)

    async def generate(self, ids: Sequence[int], *, max_tokens: int, cap: int | None = None) -> list[int]:
        thought = max_tokens if cap is None or self.offset is None else cap + self.offset
        return self.tokenizer.encode("x" * thought + END + "7}")[:max_tokens]

    async def watch(self, layer: int) -> None:
        pass

    async def hidden_state(self, ids: Sequence[int], layer: int) -> Any:
        self.prefills.append(self.tokenizer.decode(ids))
        await asyncio.sleep(0.001 * (len(ids) % 7))  # those that came last are often done first
        return state_of(self.tokenizer.decode(ids), self.width) if self.is_hooked else None


def state_of(prompt: str, width: int) -> np.ndarray:
    """The state of a prompt: it says how many signs the question's last line has."""
    state_D = np.zeros(width, dtype=np.float32)
    state_D[0] = len(prompt.removesuffix(START).rstrip("\n").rpartition(">")[2])
    return state_D


@dataclass
class FakeApp:
    """What comes after the plug-in: keeps the bodies, answers with a thought of `thought` characters."""

    thought: int = 10
    is_stream: bool = False
    status: int = 200
    bodies: list[dict[str, Any]] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    priorities: list[bytes | None] = field(default_factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        content = (await receive())["body"]
        headers = dict(scope["headers"])
        self.lengths.append(int(headers.get(b"content-length", b"-1")))
        self.priorities.append(headers.get(b"x-vllm-priority"))
        try:
            self.bodies.append(json.loads(content))
        except ValueError:
            self.bodies.append({})
        assert (await receive())["type"] == "http.disconnect"
        said = "x" * self.thought + END + "7}"
        kind = b"text/event-stream" if self.is_stream else b"application/json"
        await send({"type": "http.response.start", "status": self.status, "headers": [(b"content-type", kind)]})
        if not self.is_stream:
            body = json.dumps({"choices": [{"index": 0, "message": {"content": said}}]}).encode()
            await send({"type": "http.response.body", "body": body})
            return
        for piece in (said[:5], said[5:]):
            event = json.dumps({"choices": [{"index": 0, "delta": {"content": piece}}]})
            await send({"type": "http.response.body", "body": f"data: {event}\n\n".encode(), "more_body": True})
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": False})


async def post(app: Any, body: Any, *, path: str = "/v1/chat/completions", headers: Any = ()) -> tuple[dict, bytes]:
    """Sends a request to an ASGI app; returns the response's headers and its body."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    half = len(content) // 2
    incoming = [
        {"type": "http.request", "body": content[:half], "more_body": True},
        {"type": "http.request", "body": content[half:], "more_body": False},
        {"type": "http.disconnect"},
    ]
    sent: list[Any] = []

    async def receive() -> Any:
        return incoming.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    length = (b"content-length", str(len(content)).encode())
    scope = {"type": "http", "method": "POST", "path": path, "root_path": "", "headers": [length, *headers]}
    await app(scope, receive, send)
    found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return found, b"".join(message.get("body", b"") for message in sent[1:])
