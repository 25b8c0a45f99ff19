"""Any OpenAI-compatible server as an engine: budgets are enforced and tokens counted, by the fields of each kind."""

from __future__ import annotations

import asyncio
import logging
import os
import traceback
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

from ...core.data import EngineInfo, Generation, Request, Sampling
from ...core.flags import at_least, check_all, positive
from ...core.options import Option
from ...core.prompts import PromptTemplate
from ...core.registry import unknown_name_message
from ...core.waiting import finish
from ...errors import EngineError, ForethoughtError, InvalidInputError, InvalidSettingsError
from ...models.thinking import STEPS
from ...servers.address import Address, Key
from ...servers.client import Client
from ...servers.detecting import Server, detect
from ...servers.reading import fit_text
from ...servers.retrying import AwayError, Backoff, Fitting, RequestError
from ...servers.tokens import Counters
from ..flight import failed, ordered
from .chat import ask_template, load_tokenizer
from .enforcing import Chosen, choose
from .wanted import ENFORCE, Wanted

logger = logging.getLogger(__name__)

ADDRESS_VARIABLE = "FORETHOUGHT_BASE_URL"


class OpenAIEngine:
    """Runs a model behind an OpenAI-compatible server, many requests at once, and never trusts it with a cap.

    Args:
        model: the model's name in records and on predictors' cards, such as an alias.
        template: the text around a query; the server's own chat template goes around that. None for what suits the
            model, as far as the server shows it.
        sampling: how thoughts are drawn.
        context_tokens: longest prompt + thought + answer; None for what the server takes, which is the most.
        base_url: where the server is; "" for what FORETHOUGHT_BASE_URL says.
        served_model: the model's name at the server; "" for the same as `model`.
        enforce: how budgets are kept: "two-call", "native", "max-tokens", or "auto".
        concurrency: most HTTP requests at once.
        server: what kind of server it is, to believe instead of asking; "" to ask.
        ids: whether token ids may be used where the server takes them.
        tokenizer: alias or folder whose tokenizer counts and cuts, for servers without one; "" for none.
        answer_room: tokens for an answer that is not forced; None for what suits the template.
        cap_offset: tokens taken off every native cap, for a server that overshoots by so many (doctor measures it).
        native_fields: more fields of the body beside every native cap, such as the tags that llama.cpp counts between.
        priority: send each request's priority (the lower goes first), and start them in that order; a vLLM server heeds
            it with --scheduling-policy priority, and without it says nothing.
        logprobs: show how likely the model found what it wrote (`Generation.logprobs`), to weigh votes by, as far as
            the server shows it. Where budgets are kept by one call, one token is asked for to find that out.
        key_variable: environment variable that holds the key; "" for FORETHOUGHT_API_KEY or OPENAI_API_KEY.
        timeout_seconds: longest wait for one whole answer.
        max_attempts: times that a request is tried in all.
        backoff_seconds: longest first wait between two attempts.
    """

    def __init__(
        self,
        model: str,
        *,
        template: PromptTemplate | None,
        sampling: Sampling = Sampling(),
        context_tokens: int | None = None,
        base_url: str = "",
        served_model: str = "",
        enforce: str = "auto",
        concurrency: int = 32,
        server: str = "",
        ids: bool = True,
        tokenizer: str = "",
        answer_room: int | None = None,
        cap_offset: int = 0,
        native_fields: Mapping[str, Any] | None = None,
        priority: bool = False,
        logprobs: bool = False,
        key_variable: str = "",
        timeout_seconds: float = 600.0,
        max_attempts: int = 6,
        backoff_seconds: float = 0.5,
    ) -> None:
        is_enforcement = enforce in ENFORCE
        check_all(
            (
                None if is_enforcement else f"--enforce: {unknown_name_message('enforcement', enforce, ENFORCE)}",
                at_least("--concurrency", concurrency, 1),
                at_least("max_attempts", max_attempts, 1),
                at_least("backoff_seconds", backoff_seconds, 0),
                at_least("answer_room", answer_room, 0),
                *positive("timeout_seconds", [timeout_seconds], "seconds"),
            )
        )
        self.sampling, self.concurrency, self.priority = sampling, concurrency, priority
        self.template_reason = "asked for"
        self.address = _address(base_url)
        self.counters = Counters()
        self._fitting = Fitting()
        self._has_stumbled = False
        self._key = Key.from_environment(key_variable)
        if self._key is not None and self.address.is_in_clear:
            logger.warning("the key in %s is sent to %s unencrypted", self._key.variable, self.address)
        self._backoff = Backoff(max_attempts=max_attempts, base_seconds=backoff_seconds)
        self._timeout = timeout_seconds
        self.served_model = served_model or model
        wanted = Wanted(
            enforce=enforce,
            model=self.served_model,
            template=template or STEPS,
            sampling=sampling,
            context_tokens=context_tokens,
            ids=ids,
            tokenizer=load_tokenizer(tokenizer) if tokenizer else None,
            answer_room=answer_room,
            cap_offset=cap_offset,
            native_fields=_object("native_fields", native_fields or {}),
            priority=priority,
            logprobs=logprobs,
        )
        self.server, wanted, chosen = finish(self._start(server, wanted, is_open=template is None))
        is_open, self.template = template is None, wanted.template
        self.enforce, self.reason = chosen.enforce, chosen.reason
        self.answer_room = wanted.room if chosen.enforce == "native" else 0
        self._chosen: Chosen | None = chosen
        kept = f"budgets enforced by {self.enforce}: {self.reason}"
        given = {"answer_room": answer_room is not None, "cap_offset": cap_offset, "native_fields": native_fields}
        for way, words, options in (("native", "native caps", given), ("two-call", "two calls", {"ids": not ids})):
            if self.enforce != way and (idle := [name for name, is_given in options.items() if is_given]):
                kept += f"; {', '.join(idle)} is for {words} alone, and does nothing here"
        self.said = f"{self.server.name} at {self.address} ({self.server.how}); {kept}"
        if not is_open:  # else whoever left the template open says it, once it is used
            logger.info("%s", self.said)
        self.info = EngineInfo(
            engine="openai",
            model=model,
            template=self.template.name,
            template_hash=self.template.hash,
            sampling=sampling,
            context_tokens=wanted.context_tokens,
            server=self.server.name,
            enforcement=chosen.identity,
            versions={"served_model": self.served_model, "base_url": str(self.address)},
        )

    async def _start(self, kind: str, wanted: Wanted, *, is_open: bool) -> tuple[Server, Wanted, Chosen]:
        """Asks the server what it is, and settles how budgets are kept there, and the template where that is open."""
        try:
            async with self.client() as client:
                server = await detect(client, kind, wanted.model)
                server.check_serves(self.served_model)
                if is_open:
                    template, self.template_reason = await ask_template(client, server, self.served_model)
                    wanted = replace(wanted, template=template)
                known = [tokens for tokens in (wanted.context_tokens, server.context_tokens) if tokens is not None]
                wanted = replace(wanted, context_tokens=min(known, default=None))
                return server, wanted, await choose(client, server, wanted, self.counters)
        except ForethoughtError:
            raise
        except Exception as error:
            logger.debug("%s", traceback.format_exc())
            raise EngineError(
                f"the server at {self.address} answers in a way that cannot be read: {_words(error)}"
            ) from None

    def client(self) -> Client:
        """A client for one event loop."""
        return Client(
            self.address,
            self._key,
            backoff=self._backoff,
            timeout_seconds=self._timeout,
            concurrency=self.concurrency,
            counters=self.counters,
            fitting=self._fitting,
        )

    async def generate(self, requests: Iterable[Request]) -> AsyncIterator[Generation]:
        """See `Engine.generate`."""
        chosen = self._running()
        waiting = ordered(requests, lambda request: request.priority) if self.priority else iter(requests)
        finished: asyncio.Queue[asyncio.Task[Generation]] = asyncio.Queue()
        open_tasks: set[asyncio.Task[Generation]] = set()  # under way, or not taken from the queue
        async with self.client() as client:
            try:
                while True:
                    for request in islice(waiting, self.concurrency - len(open_tasks)):
                        task = asyncio.create_task(self._answer(chosen, client, request))
                        task.add_done_callback(finished.put_nowait)
                        open_tasks.add(task)
                    if not open_tasks:
                        return
                    done = await finished.get()
                    open_tasks.discard(done)
                    yield done.result()
            finally:  # also when the caller stops listening
                for task in open_tasks:
                    task.cancel()
                await asyncio.gather(*open_tasks, return_exceptions=True)

    async def _answer(self, chosen: Chosen, client: Client, request: Request) -> Generation:
        """What comes of one request; what goes wrong with it is its generation, never the end of all."""
        try:
            return self._fit_to_keep(await chosen.calls_for(request.option).run(client, request))
        except AwayError as error:
            raise EngineError(f"{error}; start it again, and the same command goes on from what is saved") from None
        except (RequestError, InvalidInputError, InvalidSettingsError) as error:
            is_final = not isinstance(error, RequestError)  # what the request says, whatever the server does
            return failed(request, self._fit(str(error)), is_final=is_final)
        except Exception as error:  # an answer of a shape that nobody thought of, or a mistake of ours
            reason = self._fit(f"the server's answer could not be read: {_words(error)}")
            if not self._has_stumbled:
                logger.warning("%s: %s (shown once per run; --debug shows where)", request.query.id, reason)
                logger.debug("%s", self._fit(traceback.format_exc()))
            self._has_stumbled = True
            return failed(request, reason)

    def _fit(self, text: str) -> str:
        """A text that came from the server, without the key and without halves of characters."""
        return fit_text(text, self._key.hide) if self._key is not None else fit_text(text, str)

    def _fit_to_keep(self, done: Generation) -> Generation:
        """A generation whose texts, put together of many pieces as they are, hold no key."""
        probes = tuple(replace(probe, answer=self._fit(probe.answer)) for probe in done.probes)
        error = None if done.error is None else self._fit(done.error)
        return replace(
            done, reasoning=self._fit(done.reasoning), answer=self._fit(done.answer), probes=probes, error=error
        )

    def counted(self) -> dict[str, Any]:
        """See `CountingEngine.counted`."""
        return self.counters.to_json()

    def close(self) -> None:
        """Logs the counters."""
        if self._chosen is not None and (text := self.counters.to_text()):
            logger.info("%s", text)
        self._chosen = None

    def _running(self) -> Chosen:
        if self._chosen is None:
            raise EngineError(f"the engine at {self.address} is closed; make a new one")
        return self._chosen

    def check_option(self, option: Option) -> None:
        """See `OptionEngine.check_option`; a model that it sets must be one that the server lists."""
        self._running().calls_for(option)
        if (model := option.set.get("model")) is not None:
            self.server.check_serves(str(model))


def _words(error: Exception) -> str:
    """An unexpected exception in words: what kind it is, and what it says."""
    return f"{type(error).__name__}: {str(error)[:200]}"


def _address(base_url: str) -> Address:
    text = base_url or os.environ.get(ADDRESS_VARIABLE, "")
    if not text:
        raise InvalidSettingsError(
            f"the openai engine needs to know where the server is: --base-url http://127.0.0.1:8000/v1, or the "
            f"environment variable {ADDRESS_VARIABLE}"
        )
    return Address.parse(text)


def _object(name: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidSettingsError(f"{name} must be a JSON object of fields, not {value!r}")
    return value
