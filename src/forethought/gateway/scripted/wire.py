"""Requests of the four APIs as the scripted server reads them, and its replies as those APIs have them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...engines.latent import LEVELS
from ...servers.kinds import ServerKind
from .model import PLAIN, ThoughtModel
from .troubles import Trouble

CHAT, TEXT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"
PATHS = (CHAT, TEXT, RESPONSES, MESSAGES)
START, END = "<think>", "</think>"
SECOND_SAMPLE = 1_000_003  # between samples of one request
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Parsed:
    """One request, as far as the scripted server heeds it.

    Attributes:
        path: one of PATHS.
        model: as the request names it.
        question: the last user turn, or the text prompt before its thought.
        begun: words of a thought that the request goes on with; None: it begins one.
        is_closed: that thought has ended, and the answer is to come.
        cap: most tokens of the thought, those begun included.
        room: most tokens of it all.
        effort: one of the fake engine's LEVELS.
        sample: which trace, from the seed; 0 without one.
        num_choices: answers that it asks for.
        is_stream: as events.
        is_counted: usage is told.
    """

    path: str
    model: str
    question: str
    begun: int | None
    is_closed: bool
    cap: int | None
    room: int | None
    effort: str
    sample: int
    num_choices: int
    is_stream: bool
    is_counted: bool

    @classmethod
    def read(cls, path: str, body: Mapping[str, Any], kind: ServerKind) -> Parsed:
        """Reads a body; raises ValueError with what is wrong."""
        question, said = _question(path, body)
        thought, closing, _ = said.partition(END) if said is not None else ("", "", "")
        effort, cap = _effort(path, body, kind), _whole(_cap(path, body, kind), "the cap on thinking")
        if effort == "none":
            effort, cap = PLAIN, 0
        if effort not in LEVELS:
            raise ValueError(f"the effort must be one of none, {', '.join(LEVELS)}; not {effort!r}")
        rooms = ("max_output_tokens",) if path == RESPONSES else ("max_completion_tokens", "max_tokens")
        is_stream = bool(body.get("stream"))
        options = body.get("stream_options")
        asks_usage = path in (RESPONSES, MESSAGES) or (isinstance(options, dict) and options.get("include_usage"))
        return cls(
            path=path,
            model=str(body.get("model", "scripted")),
            question=question,
            begun=None if said is None else len(thought.replace(START, " ").split()),
            is_closed=bool(closing),
            cap=cap,
            room=next((found for name in rooms if (found := _whole(body.get(name), name)) is not None), None),
            effort=effort,
            sample=_whole(body.get("seed"), "seed") or 0,
            num_choices=_whole(body.get("n"), "n") or 1,
            is_stream=is_stream,
            is_counted=not is_stream or bool(asks_usage),
        )


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer: tokens of the thought and of the text after it, and whether it ran into its room."""

    thought: Sequence[str]
    text: Sequence[str]
    is_cut: bool

    @property
    def num_tokens(self) -> int:
        """Generated in all."""
        return len(self.thought) + len(self.text)


def answer(parsed: Parsed, model: ThoughtModel, trouble: Trouble) -> tuple[list[Choice], int]:
    """The choices, and the tokens of the prompt."""
    choices, prompt_tokens = [], 0
    cap = None if trouble.keeps_no_cap else parsed.cap
    for number in range(parsed.num_choices):
        sample = parsed.sample + number * SECOND_SAMPLE
        most = parsed.begun if parsed.is_closed else cap
        found = model.think(parsed.question, cap=most, effort=parsed.effort, sample=sample)
        prompt_tokens = found.prompt_tokens + (parsed.begun or 0)
        words = found.words if trouble.thought is None else ["so"] * trouble.thought
        thought = [] if parsed.is_closed else words[parsed.begun or 0 :]
        text = ["Final ", "answer: ", f"\\boxed{{{found.answer}}}"]
        room = len(thought) + len(text) if parsed.room is None else parsed.room
        is_cut = room < len(thought) + len(text)
        choices.append(Choice(thought[:room], text[: max(0, room - len(thought))], is_cut))
    return choices, prompt_tokens


def usage_of(parsed: Parsed, choices: Sequence[Choice], prompt_tokens: int) -> dict[str, Any]:
    """The object `usage`, in the words of the request's API."""
    generated, thought = sum(each.num_tokens for each in choices), sum(len(each.thought) for each in choices)
    if parsed.path == MESSAGES:
        return {"input_tokens": prompt_tokens, "output_tokens": generated}
    details, total = {"reasoning_tokens": thought}, prompt_tokens + generated
    if parsed.path == RESPONSES:
        counts = {"input_tokens": prompt_tokens, "output_tokens": generated, "output_tokens_details": details}
    else:
        counts = {"prompt_tokens": prompt_tokens, "completion_tokens": generated, "completion_tokens_details": details}
    return {**counts, "total_tokens": total}


class Writer:
    """Writes one reply.

    Args:
        parsed: what to.
        choices: its answers.
        usage: None where it is not told.
        number: of the request, for its id.
        field: the name of the thought; "" puts it into the text, between tags.
    """

    def __init__(
        self, parsed: Parsed, choices: Sequence[Choice], usage: dict[str, Any] | None, *, number: int, field: str
    ) -> None:
        self._parsed, self._choices, self._usage, self._field = parsed, choices, usage, field
        self._id = f"scripted-{number}"

    def whole(self) -> bytes:
        """The body of a reply in one piece."""
        said = {CHAT: self._chat, TEXT: self._text, RESPONSES: self._response, MESSAGES: self._message}
        body = said[self._parsed.path]()
        if self._usage is not None:
            body["usage"] = self._usage
        return json.dumps(body).encode()

    def events(self) -> tuple[bytes, list[bytes], bytes]:
        """`(before, one piece a token, after)` of a stream."""
        if self._parsed.path == RESPONSES:
            return self._response_events()
        if self._parsed.path == MESSAGES:
            return self._message_events()
        return self._chunks()

    def _joined(self, choice: Choice) -> tuple[str, str]:
        """`(thought, text)`, where a field of its own or tags hold the thought."""
        thought, text = "".join(f"{word} " for word in choice.thought), "".join(choice.text)
        if self._field and self._parsed.path != TEXT:
            return thought, text
        end = f"{END}\n\n" if choice.text and not self._parsed.is_closed else ""
        start = START if self._parsed.begun is None and self._parsed.path == CHAT else ""
        return "", f"{start}{thought}{end}{text}"

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": 1_700_000_000, "model": self._parsed.model}

    def _chat(self) -> dict[str, Any]:
        choices = []
        for index, choice in enumerate(self._choices):
            thought, text = self._joined(choice)
            message = {"role": "assistant", "content": text, **({self._field: thought} if self._field else {})}
            choices.append({"index": index, "message": message, "finish_reason": _finish(choice)})
        return {**self._head("chat.completion"), "choices": choices}

    def _text(self) -> dict[str, Any]:
        choices = [
            {"index": index, "text": self._joined(choice)[1], "finish_reason": _finish(choice)}
            for index, choice in enumerate(self._choices)
        ]
        return {**self._head("text_completion"), "choices": choices}

    def _response(self) -> dict[str, Any]:
        choice = self._choices[0]
        thought, text = "".join(f"{word} " for word in choice.thought), "".join(choice.text)
        output = [
            {
                "type": "reasoning",
                "id": "rs_1",
                "summary": [],
                "content": [{"type": "reasoning_text", "text": thought}],
            },
            {
                "type": "message",
                "id": "msg_1",
                "role": "assistant",
                "status": "completed",
                "content": [{"type": "output_text", "text": text, "annotations": []}],
            },
        ]
        reason = {"incomplete_details": {"reason": "max_output_tokens"}} if choice.is_cut else {}
        status = "incomplete" if choice.is_cut else "completed"
        return {**self._head("response"), "status": status, **reason, "output": output}

    def _message(self) -> dict[str, Any]:
        choice = self._choices[0]
        thought = "".join(f"{word} " for word in choice.thought)
        content = [
            {"type": "thinking", "thinking": thought, "signature": "c2NyaXB0ZWQ="},
            {"type": "text", "text": "".join(choice.text)},
        ]
        stop = "max_tokens" if choice.is_cut else "end_turn"
        head = {"id": self._id, "type": "message", "role": "assistant", "model": self._parsed.model}
        return {**head, "content": content, "stop_reason": stop, "stop_sequence": None}

    def _chunks(self) -> tuple[bytes, list[bytes], bytes]:
        is_chat = self._parsed.path == CHAT
        head = json.dumps(self._head("chat.completion.chunk" if is_chat else "text_completion"))[:-1]
        pieces, finishes, before = [], [], []
        for index, choice in enumerate(self._choices):
            start = f'data: {head}, "choices": [{{"index": {index}, '
            for place, (word, is_thought) in enumerate(_tokens(choice)):
                is_first = place == len(choice.thought) and not (is_chat and self._field)
                text = json.dumps(f"{END}\n\n{word}" if is_first and not self._parsed.is_closed else word)
                if not is_chat:
                    delta = f'"text": {text}'
                else:
                    delta = f'"delta": {{"{self._field if is_thought and self._field else "content"}": {text}}}'
                pieces.append(f'{start}{delta}, "finish_reason": null}}]}}\n\n'.encode())
            opened = START if is_chat and not self._field and self._parsed.begun is None else ""
            role = json.dumps({"delta": {"role": "assistant", "content": opened}})[1:-1]
            before += [f'{start}{role}, "finish_reason": null}}]}}\n\n'] if is_chat else []
            last = '"delta": {}' if is_chat else '"text": ""'
            finishes.append(f'{start}{last}, "finish_reason": "{_finish(choice)}"}}]}}\n\n')
        if self._usage is not None:
            finishes.append(f'data: {head}, "choices": [], "usage": {json.dumps(self._usage)}}}\n\n')
        return "".join(before).encode(), pieces, "".join(finishes).encode() + DONE

    def _response_events(self) -> tuple[bytes, list[bytes], bytes]:
        whole = self._response()
        started = {"type": "response.created", "response": {**whole, "status": "in_progress", "output": []}}
        pieces = [
            _event({"type": f"response.{'reasoning' if is_thought else 'output'}_text.delta", "delta": word})
            for word, is_thought in _tokens(self._choices[0])
        ]
        done = {**whole, **({} if self._usage is None else {"usage": self._usage})}
        return _event(started), pieces, _event({"type": f"response.{whole['status']}", "response": done})

    def _message_events(self) -> tuple[bytes, list[bytes], bytes]:
        whole, usage = self._message(), self._usage or {}
        told = {} if not usage else {"usage": {**usage, "output_tokens": 0}}
        started = _event({"type": "message_start", "message": {**whole, "content": [], "stop_reason": None, **told}})
        pieces = []
        for word, is_thought in _tokens(self._choices[0]):
            kind, name = ("thinking_delta", "thinking") if is_thought else ("text_delta", "text")
            delta = {"type": kind, name: word}
            pieces.append(_event({"type": "content_block_delta", "index": 0 if is_thought else 1, "delta": delta}))
        num_thought = len(self._choices[0].thought)
        begun = [
            _event({"type": "content_block_start", "index": index, "content_block": block})
            for index, block in enumerate(({"type": "thinking", "thinking": ""}, {"type": "text", "text": ""}))
        ]
        ended = [_event({"type": "content_block_stop", "index": index}) for index in (0, 1)]
        if num_thought < len(pieces):
            pieces[num_thought] = ended[0] + begun[1] + pieces[num_thought]
        last = {"type": "message_delta", "delta": {"stop_reason": whole["stop_reason"], "stop_sequence": None}}
        after = _event(last | ({"usage": usage} if usage else {})) + _event({"type": "message_stop"})
        return started + begun[0], pieces, ended[1 if num_thought < len(pieces) else 0] + after


def _tokens(choice: Choice) -> Iterator[tuple[str, bool]]:
    for word in choice.thought:
        yield f"{word} ", True
    for word in choice.text:
        yield word, False


def _event(value: dict[str, Any]) -> bytes:
    return f"event: {value['type']}\ndata: {json.dumps(value)}\n\n".encode()


def _finish(choice: Choice) -> str:
    return "length" if choice.is_cut else "stop"


def _question(path: str, body: Mapping[str, Any]) -> tuple[str, str | None]:
    """`(the question, what the assistant has said so far)`; None: nothing."""
    said: str | None
    if path == TEXT:
        prompt = body.get("prompt")
        if not isinstance(prompt, str):
            raise ValueError("prompt must be a text")
        question, opened, said = prompt.partition(START)
        return question.strip(), said if opened else None
    turns = body.get("input" if path == RESPONSES else "messages")
    if path == RESPONSES and isinstance(turns, str):
        return turns, None
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, dict) for turn in turns):
        raise ValueError("messages must be a list of turns")
    said = _plain(turns[-1].get("content")) if turns[-1].get("role") == "assistant" else None
    parsed = [turn for turn in turns if turn.get("role") == "user"]
    if not parsed:
        raise ValueError("there is no user turn")
    return _plain(parsed[-1].get("content")), said


def _plain(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = [part.get("text") for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    return "\n".join(part for part in parts if isinstance(part, str))


def _effort(path: str, body: Mapping[str, Any], kind: ServerKind) -> str:
    places = {RESPONSES: ("reasoning", "effort"), MESSAGES: ("output_config", "effort")}
    found: Any = body
    for name in places.get(path, (kind.effort,) if kind.effort else ()):
        found = found.get(name) if isinstance(found, dict) else None
    return PLAIN if found is None or found is body else str(found)


def _cap(path: str, body: Mapping[str, Any], kind: ServerKind) -> Any:
    """The cap on thinking, by the kind's own name for it; of `/v1/messages` by Anthropic's."""
    found: Any = body
    for name in ("thinking.budget_tokens" if path == MESSAGES else kind.cap).split("."):
        found = found.get(name) if isinstance(found, dict) else None
    aliases = [body[name] for name in kind.aliases if body.get(name) is not None]
    return aliases[0] if found is None and aliases else found


def _whole(value: Any, name: str) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{name} must be a whole number of at least 0")
    return value
