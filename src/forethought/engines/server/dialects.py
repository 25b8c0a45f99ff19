"""Continues a text over HTTP by token ids, the best way; `pieces.py` has the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from ...core.data import Query
from ...core.prompts import PromptTemplate
from ...servers.detecting import Server
from ...servers.logprobs import logprobs_in
from ...servers.replies import first_choice, generated_in, is_cut, token_ids
from ...servers.retrying import RequestError
from ...servers.tokens import Counters, Usage, whole
from ..forcing import Forcing
from .vocabulary import ServerTokenizer

if TYPE_CHECKING:
    from ...servers.client import Client  # whose library may be missing where nothing is asked


@dataclass(frozen=True, slots=True)
class Drawing:
    """How tokens are sampled in one call; `set` holds further fields of its body, if the dialect `sets`.

    With `logprobs` the server is asked how likely the model found each token, as far as it shows it.
    """

    max_tokens: int
    stop: str
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    priority: int | None = None
    set: Mapping[str, Any] = field(default_factory=dict)
    logprobs: bool = False

    @property
    def fields(self) -> dict[str, Any]:
        """What every body says of it but `max_tokens`; a priority of None says nothing, the lower goes first."""
        drawn = {"temperature": self.temperature, "top_p": self.top_p, "seed": self.seed, "stop": [self.stop]}
        return drawn if self.priority is None else {**drawn, "priority": self.priority}


@dataclass(frozen=True, slots=True)
class Completion:
    """What one call generated.

    Attributes:
        ids: the tokens, with the stop text it ran into and without the end of turn.
        num_tokens: tokens generated, as counted; None where nothing reliable told.
        least: tokens generated at the least: `num_tokens`, or by the text.
        is_cut: it ran into `max_tokens`.
        is_stopped: it ran into the stop text.
        prompt_tokens: of this call.
        is_exact: one of `ids` is one token; else they are as few pieces as the server shows.
        logprobs: the log-probability of each token, those behind the last of `ids` too; empty where not shown.
    """

    ids: list[int]
    num_tokens: int | None
    least: int
    is_cut: bool
    is_stopped: bool
    prompt_tokens: int
    is_exact: bool = True
    logprobs: tuple[float, ...] = ()


class Dialect(Protocol):
    """One way to have a prompt continued.

    Attributes:
        name: for messages.
        sets: whether a body can say how the prompt is made: it is a chat, which the server renders.
    """

    name: str
    sets: bool
    forcing: Forcing

    async def start(self, client: Client) -> None:
        """Makes `forcing`; once, before anything else."""
        ...

    async def prompt(self, client: Client, query: Query) -> Any:
        """The representation of the prompt of `query` in `complete`."""
        ...

    def prompt_tokens(self, prompt: Any) -> int | None:
        """Its length; None where only the server knows."""
        ...

    async def complete(self, client: Client, prompt: Any, so_far: Sequence[int], drawing: Drawing) -> Completion:
        """Continues the prompt and the tokens after it; raises RequestError."""
        ...


class TokenDialect:
    """Prompts as token ids, answers as token ids: nothing is tokenised twice, and prefix caches are hit.

    Args:
        server: vLLM, SGLang or llama.cpp.
        model: the model's name there.
        template: the text around a query.
        tokenizer: a local Hugging Face tokenizer of the model; None to learn the server's own.
        counters: counts tokens.
    """

    name, sets = "token ids", False
    forcing: Forcing

    def __init__(
        self, server: Server, model: str, template: PromptTemplate, tokenizer: Any | None, counters: Counters
    ) -> None:
        self._server, self._model, self._template, self._counters = server, model, template, counters
        self._learnt = ServerTokenizer(server.kind, model) if tokenizer is None else None
        self._local: Any = tokenizer

    async def start(self, client: Client) -> None:
        """See `Dialect.start`."""
        if self._learnt is None:
            self.forcing = Forcing(self._local, self._template)
            return
        for text in (self._template.answer_suffix, self._template.answer_suffix.lstrip()):
            await self._learnt.know(client, text)
        self.forcing = Forcing(self._learnt, self._template)

    async def prompt(self, client: Client, query: Query) -> list[int]:
        """Token ids of the prompt; raises InvalidInputError when the model's chat template does not take its turns."""
        if self._learnt is None:
            return self.forcing.prompt_ids(query)
        return await self._learnt.prompt_ids(client, self._template, query)

    def prompt_tokens(self, prompt: list[int]) -> int:
        """Its length."""
        return len(prompt)

    async def complete(self, client: Client, prompt: list[int], so_far: Sequence[int], drawing: Drawing) -> Completion:
        """See `Dialect.complete`."""
        ask = self._ask_llama if self._server.kind.ids == "llama.cpp" else self._ask_vllm
        text, done = await ask(client, [*prompt, *so_far], drawing)
        await self.learn(client, [*so_far, *done.ids])
        await self.learn(client, done.ids, text)
        if done.is_cut or done.is_stopped or self.forcing.tokenizer.decode(done.ids, skip_special_tokens=False) == text:
            return done
        return replace(done, ids=done.ids[:-1])  # the end of turn: given as a token, and not as text

    async def learn(self, client: Client, ids: Sequence[int], text: str | None = None) -> None:
        """Makes sure that `forcing` can decode `ids`."""
        if self._learnt is not None:
            await self._learnt.learn(client, ids, text)

    async def count(self, client: Client, text: str) -> int:
        """Tokens of a text."""
        if self._learnt is None:
            return len(self._local.encode(text, add_special_tokens=False))
        return len(await self._learnt.tokenize(client, text))

    async def num_covering(self, client: Client, ids: Sequence[int], length: int) -> int:
        """How many leading ids it takes to write the first `length` characters of their text."""
        await self.learn(client, ids)
        return self.forcing.num_covering(ids, length)

    async def _ask_vllm(self, client: Client, ids: list[int], drawing: Drawing) -> tuple[str, Completion]:
        body = {
            "model": self._model,
            "prompt": ids,
            "max_tokens": drawing.max_tokens,
            self._server.kind.names.keeps_stop: True,
            "return_token_ids": True,
            **({"logprobs": 1} if drawing.logprobs else {}),
            **drawing.fields,
            **self._server.kind.sampling,
        }
        answer = await client.post(client.address.api("completions"), body)
        choice, usage = first_choice(answer), Usage.read(answer.get("usage"))
        new = token_ids(choice.get("token_ids"))
        if new is None:
            reason = "the server gives no token ids back (return_token_ids); use --engine-option ids=false"
            raise RequestError(reason, generated_in(answer))
        ended = is_cut(choice.get("finish_reason"), tokens=len(new))
        is_stopped = choice.get(self._server.kind.names.stopped_by) == drawing.stop
        self._counters.prompted(len(ids), usage.cached)
        done = Completion(list(new), len(new), len(new), ended, is_stopped, len(ids))
        shown = logprobs_in(choice.get("logprobs"), len(new)) if drawing.logprobs else ()
        return str(choice.get("text") or ""), replace(done, logprobs=shown)

    async def _ask_llama(self, client: Client, ids: list[int], drawing: Drawing) -> tuple[str, Completion]:
        body = {
            "prompt": ids,
            "n_predict": drawing.max_tokens,
            "return_tokens": True,
            "cache_prompt": True,
            **({"n_probs": 1} if drawing.logprobs else {}),
            **drawing.fields,
            **self._server.kind.sampling,
        }
        answer = await client.post(client.address.root("completion"), body)
        new, reason = token_ids(answer.get("tokens")), answer.get("stop_type")
        if new is None or reason not in ("eos", "word", "limit"):
            raise RequestError(f"the server gives no tokens back (stop_type {reason!r})", len(new or ()))
        is_stopped = reason == "word"
        timings = answer.get("timings")
        self._counters.prompted(len(ids), whole(timings.get("cache_n")) if isinstance(timings, dict) else None)
        text = str(answer.get("content") or "") + (drawing.stop if is_stopped else "")
        done = Completion(list(new), len(new), len(new), reason == "limit", is_stopped, len(ids))
        found = {"content": answer.get("completion_probabilities")}
        return text, replace(done, logprobs=logprobs_in(found, len(new)) if drawing.logprobs else ())
