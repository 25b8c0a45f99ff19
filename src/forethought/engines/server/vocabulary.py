"""The server's tokenizer, learned token by token, so that thoughts are cut as in the in-process engines.

`Forcing` decodes ids many times and cannot wait for a server. So every id is decoded by the server once, when it is
first returned, and then cached here. This is exact for byte-level tokenizers, in which the text of two tokens is the
concatenation of their texts; consecutive tokens that hold parts of one character are cached together.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...core.data import Query
from ...core.prompts import PromptTemplate
from ...errors import InvalidInputError
from ...servers.kinds import ServerKind
from ...servers.replies import token_ids
from ...servers.retrying import RequestError

if TYPE_CHECKING:
    from ...servers.client import Client  # whose library may be missing where nothing is asked

PART = "\N{REPLACEMENT CHARACTER}"  # what a server shows of a token that holds part of a character
MOST_PARTS = 4  # tokens that one character can be spread over: it has at most four bytes
TAG = re.compile(r"<[^\s<>]+>")  # what end-of-turn and other special tokens look like


class ServerTokenizer:
    """A Hugging Face tokenizer's `encode` and `decode`, answered from what the server has said before.

    Args:
        kind: of the server; it must take token ids.
        model: its name there.
    """

    def __init__(self, kind: ServerKind, model: str) -> None:
        self._is_llama = kind.ids == "llama.cpp"
        self._names = kind.names
        self._model = model
        self._encoded: dict[str, list[int]] = {}
        self._texts: dict[tuple[int, ...], str] = {}  # single tokens, and runs of tokens that hold parts of characters
        self._special: set[int] = set()

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        """Ids of a text that `know` has asked about."""
        return self._encoded[text]

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Text of ids that `learn` has asked about."""
        texts, start = [], 0
        while start < len(ids):
            size = self._size(ids, start)
            if not (skip_special_tokens and ids[start] in self._special):
                texts.append(self._texts[tuple(ids[start : start + size])])
            start += size
        return "".join(texts)

    def _size(self, ids: Sequence[int], start: int) -> int:
        """How many tokens from `start` on make whole characters: one, unless it holds part of one."""
        if PART not in self._texts[ids[start],]:
            return 1
        end = start + 1
        for end in range(start + 2, min(len(ids), start + MOST_PARTS) + 1):
            text = self._texts.get(tuple(ids[start:end]))
            if text is None:  # a whole token follows: what came before it never becomes a character
                return end - 1 - start
            if PART not in text:
                return end - start
        return end - start if end == len(ids) else 1

    async def know(self, client: Client, text: str) -> list[int]:
        """Asks for the ids of `text`, once."""
        if text not in self._encoded:
            self._encoded[text] = await self.tokenize(client, text)
            await self.learn(client, self._encoded[text])
        return self._encoded[text]

    async def learn(self, client: Client, ids: Sequence[int], text: str | None = None) -> None:
        """Asks for the texts of ids not known yet. A tag that the server's own `text` leaves out is a special token."""
        await self._fetch(client, [(token,) for token in dict.fromkeys(ids) if (token,) not in self._texts])
        is_part = [PART in self._texts[token,] for token in ids]
        runs = {
            tuple(ids[start:end])
            for start in range(len(ids))
            for end in range(start + 2, min(len(ids), start + MOST_PARTS) + 1)
            if all(is_part[start:end])
        }
        await self._fetch(client, [run for run in runs if run not in self._texts])
        if text is not None and self.decode(ids) != text:
            for token in set(ids) - self._special:
                if TAG.fullmatch(shown := self._texts[token,]) and shown not in text:
                    self._special.add(token)

    async def _fetch(self, client: Client, runs: Sequence[tuple[int, ...]]) -> None:
        texts = await asyncio.gather(*(self._detokenize(client, run) for run in runs))
        self._texts.update(zip(runs, texts, strict=True))

    async def tokenize(self, client: Client, text: str) -> list[int]:
        """Ids of `text`, from the server."""
        body: dict[str, Any] = (
            {"content": text, "add_special": False, "parse_special": True}
            if self._is_llama
            else {"model": self._model, "prompt": text, "add_special_tokens": False}
        )
        return _ids((await client.post(client.address.root("tokenize"), body)).get("tokens"))

    async def _detokenize(self, client: Client, ids: Sequence[int]) -> str:
        body = {"model": self._model, "tokens": list(ids), **({} if self._is_llama else self._names.verbatim)}
        found = await client.post(client.address.root("detokenize"), body)
        return _text(found, "content" if self._is_llama else self._names.text)

    async def prompt_ids(self, client: Client, template: PromptTemplate, query: Query) -> list[int]:
        """Ids of the whole prompt by the model's own chat template, as `Forcing.prompt_ids` makes them.

        Raises:
            InvalidInputError: the chat template does not take these turns.
        """
        turns, options = template.turns(query), dict(template.chat_options)
        try:
            if not self._is_llama and not template.assistant_prefix:
                return await self._turn_ids(client, turns, options)
            text = await self.rendered(client, turns, options)
        except RequestError as error:
            if error.status in (400, 422):
                raise InvalidInputError(f"the model's chat template refuses these turns: {error}") from None
            raise
        return await self.tokenize(client, text + template.assistant_prefix)

    async def rendered(self, client: Client, turns: Sequence[Any], options: Mapping[str, Any]) -> str:
        """The prompt that the model's own chat template makes of some turns."""
        if self._is_llama:
            body = {"messages": turns, **_told(options)}
            return _text(await client.post(client.address.root("apply-template"), body), "prompt")
        return await self._detokenize(client, await self._turn_ids(client, turns, options))

    async def _turn_ids(self, client: Client, turns: Sequence[Any], options: Mapping[str, Any]) -> list[int]:
        body = {"model": self._model, "messages": turns, "add_generation_prompt": True, **_told(options)}
        return _ids((await client.post(client.address.root("tokenize"), body)).get("tokens"))


def _told(options: Mapping[str, Any]) -> dict[str, Any]:
    """What tells a server's chat template its options."""
    return {"chat_template_kwargs": dict(options)} if options else {}


def _ids(tokens: Any) -> list[int]:
    if (found := token_ids(tokens)) is None:
        raise RequestError(f"the server does not give token ids: {str(tokens)[:80]}")
    return list(found)


def _text(found: dict[str, Any], name: str) -> str:
    if not isinstance(found.get(name), str):
        raise RequestError(f"the server does not give a text back ({name}): {str(found)[:80]}")
    return str(found[name])
