"""Any OpenAI-compatible server as an engine: budgets kept, and counted, whatever the server calls them."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

from ...errors import EngineError, InvalidInputError, InvalidSettingsError
from ...prompts import PromptTemplate
from ...registry import unknown_name_message
from ...types import EngineInfo, Generation, Request, Sampling
from ..refusing import failed
from .address import Address, Key
from .client import Client, RequestError
from .counters import Counters
from .detecting import Server, detect
from .efforts import Efforts
from .enforcing import ENFORCE, Chosen, Wanted, choose
from .local import load_tokenizer
from .one_call import OneCall
from .retrying import Backoff
from .two_call import TwoCalls

logger = logging.getLogger(__name__)

ADDRESS_VARIABLE = "FORETHOUGHT_BASE_URL"
T = TypeVar("T")


class OpenAIEngine:
    """Runs a model behind an OpenAI-compatible server, many requests at once, and never trusts it with a cap.

    Args:
        model: the model's name in records and on predictors' cards, such as an alias.
        template: the text around a query; the server's own chat template goes around that.
        sampling: how thoughts are drawn.
        context_tokens: longest prompt + thought + answer; at most what the server takes.
        base_url: where the server is; "" for what FORETHOUGHT_BASE_URL says.
        served_model: the model's name at the server; "" for the same as `model`.
        enforce: how budgets are kept: "two-call", "native", "effort", "max-tokens", or "auto".
        concurrency: most HTTP requests at once.
        server: what kind of server it is, to believe instead of asking; "" to ask.
        ids: whether token ids may be used where the server takes them.
        tokenizer: alias or folder whose tokenizer counts and cuts, for servers without one; "" for none.
        effort_costs: effort level -> tokens it takes, as an object or a JSON file; for "effort".
        answer_room: tokens for an answer that is not forced; None for what suits the template.
        cap_offset: tokens taken off every native cap, for a server that overshoots by so many (doctor measures it).
        native_fields: more fields of the body beside every native cap, such as the tags that llama.cpp counts between.
        priority: send each request's priority (the lower goes first), and start them in that order; a vLLM server heeds
            it with --scheduling-policy priority, and without it says nothing.
        key_variable: environment variable that holds the key; "" for FORETHOUGHT_API_KEY or OPENAI_API_KEY.
        timeout_seconds: longest wait for one whole answer.
        max_attempts: times that a request is tried in all.
        backoff_seconds: longest first wait between two attempts.
    """

    def __init__(
        self,
        model: str,
        *,
        template: PromptTemplate,
        sampling: Sampling = Sampling(),
        context_tokens: int = 2048,
        base_url: str = "",
        served_model: str = "",
        enforce: str = "auto",
        concurrency: int = 32,
        server: str = "",
        ids: bool = True,
        tokenizer: str = "",
        effort_costs: Any = None,
        answer_room: int | None = None,
        cap_offset: int = 0,
        native_fields: Mapping[str, Any] | None = None,
        priority: bool = False,
        key_variable: str = "",
        timeout_seconds: float = 600.0,
        max_attempts: int = 6,
        backoff_seconds: float = 0.5,
    ) -> None:
        _check(enforce=enforce, concurrency=concurrency, timeout_seconds=timeout_seconds, max_attempts=max_attempts)
        self.template, self.sampling, self.concurrency, self.priority = template, sampling, concurrency, priority
        self.address = _address(base_url)
        self.counters = Counters()
        self._key = Key.from_environment(key_variable)
        if self._key is not None and self.address.is_in_clear:
            logger.warning("the key in %s goes to %s in clear", self._key.variable, self.address)
        self._backoff = Backoff(max_attempts=max_attempts, base_seconds=backoff_seconds)
        self._timeout = timeout_seconds
        self.served_model = served_model or model
        wanted = Wanted(
            enforce=enforce,
            model=self.served_model,
            template=template,
            sampling=sampling,
            context_tokens=context_tokens,
            ids=ids,
            tokenizer=load_tokenizer(tokenizer) if tokenizer else None,
            efforts=None if effort_costs is None else Efforts.read(effort_costs),
            answer_room=answer_room,
            cap_offset=cap_offset,
            native_fields=_object("native_fields", native_fields or {}),
            priority=priority,
        )
        self.server, wanted, chosen = _blocking(self._start(server, wanted))
        self.enforce, self.reason, self.answer_room = chosen.enforce, chosen.reason, wanted.room
        self._calls: TwoCalls | OneCall | None = chosen.calls
        logger.info(
            "%s at %s (%s); budgets kept by %s: %s",
            self.server.name,
            self.address,
            self.server.how,
            self.enforce,
            self.reason,
        )
        self.info = EngineInfo(
            engine="openai",
            model=model,
            template=template.name,
            template_hash=template.hash,
            context_tokens=wanted.context_tokens,
            server=self.server.name,
            enforcement=chosen.identity,
            versions={"served_model": self.served_model, "base_url": str(self.address)},
        )

    async def _start(self, kind: str, wanted: Wanted) -> tuple[Server, Wanted, Chosen]:
        """Asks the server what it is, and settles how budgets are kept there."""
        async with self.client() as client:
            server = await detect(client, kind, wanted.model)
            server.check_serves(self.served_model)
            least = min(wanted.context_tokens, server.context_tokens or wanted.context_tokens)
            wanted = replace(wanted, context_tokens=least)
            return server, wanted, await choose(client, server, wanted, self.counters)

    def client(self) -> Client:
        """A client for one event loop."""
        return Client(
            self.address,
            self._key,
            backoff=self._backoff,
            timeout_seconds=self._timeout,
            concurrency=self.concurrency,
            counters=self.counters,
        )

    async def generate(self, requests: Sequence[Request]) -> AsyncIterator[Generation]:
        """See `Engine.generate`."""
        calls = self._running()
        waiting = iter(sorted(requests, key=lambda request: request.priority) if self.priority else requests)
        finished: asyncio.Queue[Generation | Exception] = asyncio.Queue(maxsize=self.concurrency)
        async with self.client() as client:
            workers = [
                asyncio.create_task(_work(calls, client, waiting, finished))
                for _ in range(min(self.concurrency, len(requests)))
            ]
            try:
                for _ in requests:
                    done = await finished.get()
                    if isinstance(done, Exception):
                        raise done
                    yield done
            finally:  # also when the caller stops listening
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)

    def counted(self) -> dict[str, Any]:
        """See `CountingEngine.counted`."""
        return self.counters.to_json()

    def close(self) -> None:
        """Says what was met on the way."""
        if self._calls is not None and (text := self.counters.to_text()):
            logger.info("%s", text)
        self._calls = None

    def _running(self) -> TwoCalls | OneCall:
        if self._calls is None:
            raise EngineError(f"the engine at {self.address} is closed; make a new one")
        return self._calls


async def _work(
    calls: TwoCalls | OneCall,
    client: Client,
    waiting: Iterator[Request],
    finished: asyncio.Queue[Generation | Exception],
) -> None:
    """Takes requests until there are none; what goes wrong with one is its generation."""
    for request in waiting:
        try:
            await finished.put(await calls.run(client, request))
        except (RequestError, InvalidInputError) as error:
            await finished.put(failed(request, str(error)))
        except Exception as error:  # a mistake of ours: it ends the batch instead of leaving it waiting
            await finished.put(error)


def _blocking(work: Coroutine[Any, Any, T]) -> T:
    """Runs `work` to its end, also where an event loop is running already."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


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


def _check(*, enforce: str, concurrency: int, timeout_seconds: float, max_attempts: int) -> None:
    problems = []
    if enforce not in ENFORCE:
        problems.append(f"--enforce: {unknown_name_message('enforcement', enforce, ENFORCE)}")
    least = {"--concurrency": concurrency, "max_attempts": max_attempts}
    problems += [f"{name} must be at least 1, not {value}" for name, value in least.items() if value < 1]
    if not 0 < timeout_seconds < float("inf"):
        problems.append(f"timeout_seconds must be positive, not {timeout_seconds:g}")
    if problems:
        raise InvalidSettingsError("; ".join(problems))
