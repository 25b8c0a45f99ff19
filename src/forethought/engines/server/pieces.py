"""Continues a text without token ids: in a chat or as plain text, cut at visible token boundaries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ...core.data import Query
from ...core.prompts import PromptTemplate
from ...errors import InvalidInputError
from ...servers.detecting import Server
from ...servers.kinds import merged
from ...servers.logprobs import logprobs_in, pieces_in
from ...servers.replies import first_choice, generated_in, is_cut, texts_in
from ...servers.retrying import RequestError
from ...servers.tokens import Counters, Usage, count_tokens
from ..forcing import Forcing
from .dialects import Completion, Drawing

if TYPE_CHECKING:
    from ...servers.client import Client  # whose library may be missing where nothing is asked


class Pieces:
    """Numbers for the pieces of text that a server's log-probabilities show: a tokenizer as far as cutting goes."""

    def __init__(self) -> None:
        self._number: dict[bytes, int] = {}
        self._pieces: list[bytes] = []

    def number(self, piece: bytes) -> int:
        """The number of `piece`; a new one where it was never seen."""
        if piece not in self._number:
            self._number[piece] = len(self._pieces)
            self._pieces.append(piece)
        return self._number[piece]

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        """`text` as one piece."""
        return [self.number(text.encode())]

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """The pieces put together."""
        return b"".join(self._pieces[number] for number in ids).decode("utf-8", "replace")


class ChatDialect:
    """A chat whose last assistant turn is continued.

    Where a server gives no log-probabilities, a thought is one piece, and cannot be probed.

    Args:
        server: must be able to go on with an assistant turn.
        model: the model's name there.
        template: the text around a query.
        counters: counts tokens.
    """

    name, sets = "chat, continued", True
    forcing: Forcing

    def __init__(self, server: Server, model: str, template: PromptTemplate, counters: Counters) -> None:
        self._kind, self._model, self._template, self._counters = server.kind, model, template, counters
        self._pieces = Pieces()

    async def start(self, client: Client) -> None:
        """See `Dialect.start`."""
        self.forcing = Forcing(self._pieces, self._template)

    async def prompt(self, client: Client, query: Query) -> Any:
        """The chat turns before the assistant's."""
        return self._template.turns(query)

    def prompt_tokens(self, prompt: Any) -> None:
        """Only the server knows."""
        return None

    async def complete(self, client: Client, prompt: Any, so_far: Sequence[int], drawing: Drawing) -> Completion:
        """See `Dialect.complete`."""
        fields = {
            "model": self._model,
            self._kind.length: drawing.max_tokens,
            **drawing.fields,
            **self._kind.sampling,
        }
        begun = self._template.assistant_prefix + self._pieces.decode(so_far)
        choice, usage, text, pieces = await self._ask(client, prompt, begun, fields, drawing.set)
        count = count_tokens(usage, thought=text, thought_tokens=len(pieces) or (None if text else 0))
        num_tokens = count.most if count.total is None else count.total
        least = count.least if num_tokens is None else num_tokens
        ended = is_cut(choice.get("finish_reason"), tokens=least)
        is_stopped = not ended and _ran_into(drawing.stop, choice, text)
        told = Usage.read(usage)
        self._counters.prompted(told.prompt, told.cached)
        ids, is_exact = self._numbers(text, pieces, drawing.stop if is_stopped else "")
        return Completion(
            ids=ids,
            num_tokens=num_tokens,
            least=least,
            is_cut=ended,
            is_stopped=is_stopped,
            prompt_tokens=told.prompt or 0,
            is_exact=is_exact,
            logprobs=logprobs_in(choice.get("logprobs"), len(pieces)) if drawing.logprobs and is_exact else (),
        )

    async def _ask(
        self, client: Client, prompt: Any, begun: str, fields: dict[str, Any], set_fields: Mapping[str, Any]
    ) -> tuple[dict[str, Any], Any, str, list[bytes]]:
        """`(choice, usage, text, pieces)` of what comes after `begun`."""
        turn = [{"role": "assistant", "content": begun}] if begun else []
        goes_on = (self._kind.continues or {}) if begun else {}
        options = dict(self._template.chat_options)
        told = {"chat_template_kwargs": options} if options else {}
        body = {"messages": [*prompt, *turn], "logprobs": True, **goes_on, **told, **self._kind.whole, **fields}
        answer = await client.post(client.address.api("chat/completions"), merged(body, set_fields))
        choice = first_choice(answer)
        thought, content = texts_in(choice.get("message"))
        if thought:
            raise RequestError(
                "the server removes the thought from the chat (a reasoning parser), which then cannot "
                "be continued: use token ids (not ids=false), text (--engine-option tokenizer=NAME), or --enforce "
                "native",
                generated_in(answer),
            )
        pieces = pieces_in(choice.get("logprobs"))
        return choice, answer.get("usage"), _new(content, begun, pieces), pieces

    def _numbers(self, text: str, pieces: list[bytes], stop: str) -> tuple[list[int], bool]:
        """Numbers for the pieces of `text` and the `stop` text after it, and whether they are the tokens."""
        ids = [self._pieces.number(piece) for piece in pieces]
        is_exact = bool(ids) and self._pieces.decode(ids).startswith(text)
        if not is_exact:
            ids = [self._pieces.number(text.encode())] if text else []
        # After the text there may be the stop text, or an end of turn, which is no text.
        while not stop and len(self._pieces.decode(ids)) > len(text):
            ids.pop()
        if stop and stop not in self._pieces.decode(ids)[max(0, len(text) - len(stop)) :]:
            ids.append(self._pieces.number(stop.encode()))
        return ids, is_exact


class TextDialect(ChatDialect):
    """Completions of plain text, which a local tokenizer renders by the model's chat template.

    Where a server gives no log-probabilities, the tokenizer says where tokens end, if it makes as many of the text as
    the server counts.

    Args:
        server, model, template, counters: see `ChatDialect`.
        tokenizer: a local Hugging Face tokenizer of the model.
    """

    name, sets = "text", False

    def __init__(
        self, server: Server, model: str, template: PromptTemplate, counters: Counters, tokenizer: Any
    ) -> None:
        super().__init__(server, model, template, counters)
        self._tokenizer = tokenizer

    async def prompt(self, client: Client, query: Query) -> Any:
        """The rendered prompt; raises InvalidInputError when the model's chat template does not take its turns."""
        messages = self._template.turns(query)
        try:
            options = dict(self._template.chat_options)
            return str(
                self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False, **options)
            )
        except Exception as error:  # a program by the model's maker, which may raise anything about the turns
            raise InvalidInputError(f"the model's chat template refuses these turns: {error}") from error

    async def _ask(
        self, client: Client, prompt: Any, begun: str, fields: dict[str, Any], set_fields: Mapping[str, Any]
    ) -> tuple[dict[str, Any], Any, str, list[bytes]]:
        answer = await client.post(
            client.address.api("completions"), {"prompt": prompt + begun, "logprobs": 1, **fields}
        )
        choice, usage = first_choice(answer), answer.get("usage")
        text = str(choice.get("text") or "")
        return (
            choice,
            usage,
            text,
            pieces_in(choice.get("logprobs")) or self._split(text, Usage.read(usage).generated, choice),
        )

    def _split(self, text: str, num_tokens: int | None, choice: dict[str, Any]) -> list[bytes]:
        """The tokenizer's tokens of `text`, of which the server counts `num_tokens`; none where it makes others."""
        if not text or num_tokens is None:
            return []
        found = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        # Behind a text that ended by itself, a stop text or an end of turn was generated as well.
        most = len(found) if is_cut(choice.get("finish_reason"), tokens=num_tokens) else num_tokens
        if not len(found) <= num_tokens <= most:
            return []
        starts = [0, *(start for start, _ in found[1:]), len(text)]
        return [text[start:end].encode("utf-8", "replace") for start, end in pairwise(starts)]


def _ran_into(stop: str, choice: dict[str, Any], text: str) -> bool:
    """Whether the stop text ended this choice, and not the end of turn; guessed where the server does not say."""
    if "stop_reason" in choice:
        return bool(choice["stop_reason"] == stop)
    return text.endswith(stop) or (stop == "}" and text.count("{") > text.count("}"))


def _new(text: str, begun: str, pieces: list[bytes]) -> str:
    """What came after `begun`: llama.cpp's server repeats the turn before it, as its chat template writes that."""
    generated = b"".join(pieces).decode("utf-8", "replace")
    if not begun or (generated and generated.startswith(text)):
        return text
    rests = text.split(begun)
    for number in range(1, len(rests) if generated else 1):
        if generated.startswith(rest := begun.join(rests[number:])):
            return rest
    return text.removeprefix(begun)
