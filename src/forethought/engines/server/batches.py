"""Requests of a plan for a server that takes them in a file: bodies, what bounds each, and what came back of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from ...core.codec import UnfitError, decode, encode, fields_to_json, shown
from ...core.data import EngineInfo, Generation, Request, Sampling
from ...core.flags import at_least, check_all
from ...core.menu import Menu
from ...core.prompts import PromptTemplate, parse_template, template_to_json
from ...core.registry import check_options, unknown_name_message
from ...errors import InvalidSettingsError
from ...servers.batches import batch_line
from ...servers.detecting import Server
from ...servers.kinds import KINDS, BatchForm, ServerKind
from ...servers.replies import Reply
from ...servers.tokens import Counters, count_tokens
from ..forcing import Forcing
from ..lengths import upper_bound
from .enforcing import identity_of, refuse_own_fields, refuse_unshown
from .one_call import OneCall
from .wanted import Wanted

OPTIONS = ("served_model", "enforce", "answer_room", "cap_offset", "native_fields", "tokenizer", "logprobs")


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchServer:
    """A server that takes requests in a file, and how it is asked.

    Attributes:
        server: its kind, a name of `KINDS`.
        model: the model's name in records.
        served_model: its name there.
        enforce: how a cap is kept in the one call that a question gets: "native" or "max-tokens".
        template: the text around a query.
        sampling: how thoughts are drawn.
        context_tokens: longest prompt + thought + answer; None where no bound is sent by it.
        answer_room: tokens for an answer beside its thought; None for what suits the template.
        cap_offset: tokens taken off every native cap.
        native_fields: more fields beside every native cap.
        logprobs: whether it is to show how likely the model found its answers.
    """

    server: str
    model: str
    served_model: str
    enforce: str
    template: PromptTemplate
    sampling: Sampling
    context_tokens: int | None = None
    answer_room: int | None = None
    cap_offset: int = 0
    native_fields: Mapping[str, Any] = field(default_factory=dict)
    logprobs: bool = False

    def to_json(self) -> dict[str, Any]:
        """As one JSON object, the template as its file's content."""
        return {**fields_to_json(self, without=("template",)), "template": template_to_json(self.template)}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """What `to_json` wrote; raises UnfitError, and InvalidSettingsError of a template."""
        if not isinstance(value, dict):
            raise UnfitError(f"must be an object, not {shown(value)}")
        template = parse_template(json.dumps(value.get("template")).encode(), place="of the batch")
        found = decode(cls, {**value, "template": encode(template)}, lenient=(cls,))
        if found.server not in KINDS or found.kind.batch is None:
            raise UnfitError(f"takes no requests in a file: {shown(found.server)}", "server")
        return found

    @property
    def kind(self) -> ServerKind:
        """Its row in the table."""
        return KINDS[self.server]

    @property
    def form(self) -> BatchForm:
        """How it takes requests in a file."""
        form = self.kind.batch
        assert form is not None  # others were refused
        return form

    @property
    def wanted(self) -> Wanted:
        """What is wanted of it."""
        return Wanted(
            enforce=self.enforce,
            model=self.served_model,
            template=self.template,
            sampling=self.sampling,
            context_tokens=self.context_tokens,
            answer_room=self.answer_room,
            cap_offset=self.cap_offset,
            native_fields=self.native_fields,
            logprobs=self.logprobs,
        )

    @property
    def info(self) -> EngineInfo:
        """What made the answers, for a run's identity."""
        return EngineInfo(
            engine="batch",
            model=self.model,
            template=self.template.name,
            template_hash=self.template.hash,
            sampling=self.sampling,
            context_tokens=self.context_tokens,
            server=self.server,
            enforcement=identity_of(self.enforce, self.wanted),
            versions={"served_model": self.served_model},
        )


class BatchCalls:
    """Writes requests and reads their answers, one call each.

    Args:
        asked: the server, and how it is asked.
        tokenizer: a Hugging Face tokenizer of the model, which counts thoughts; None: only the server's word counts.
    """

    def __init__(self, asked: BatchServer, tokenizer: Any | None = None) -> None:
        self.asked = asked
        self._call = OneCall(asked.enforce, Server(asked.kind, "named"), asked.wanted, Counters(), None)
        self._forcing = None if tokenizer is None else Forcing(tokenizer, asked.template)

    def body(self, request: Request) -> dict[str, Any]:
        """What is sent for a request; raises InvalidSettingsError where it cannot be asked this way."""
        if request.option is not None:
            refuse_own_fields(request.option)
        body, reason = self._call.body(request)
        if reason is not None:
            raise InvalidSettingsError(reason)
        return body if self.asked.kind.ids != "vllm" else {**body, "return_token_ids": True}

    def line(self, custom_id: str, request: Request) -> bytes:
        """The request as a line of a file."""
        return batch_line(self.asked.form, custom_id, self.body(request))

    def most_tokens(self, request: Request) -> int | None:
        """Most tokens that a request may generate; None where nothing bounds them."""
        body = self.body(request)
        found = next((body[name] for name in (self.asked.kind.length, "max_tokens") if name in body), None)
        return found if isinstance(found, int) and not isinstance(found, bool) else None

    def most_prompt_tokens(self, request: Request) -> int:
        """Most tokens that its prompt has: no token is shorter than a byte."""
        return upper_bound(self.asked.template, [request.query], 0)

    def generation(self, request: Request, reply: Reply) -> Generation:
        """What came back, counted; a failure where it is more than the cap."""
        if self._forcing is None or dict(request.option.set if request.option else {}).get("model"):
            return self._call.judged(request, reply)
        thought, rest, _ = reply.split(self.asked.template)
        is_inline = reply.ids is not None and not reply.reasoning
        thought_tokens = 0
        if thought:
            ids = reply.ids if is_inline else None
            thought_tokens = self._count(thought) if ids is None else self._forcing.num_covering(ids, len(thought))
        return self._call.judged(request, reply, thought_tokens=thought_tokens, answer_tokens=self._count(rest))

    def used(self, reply: Reply) -> int | None:
        """Tokens generated for an answer in all; None where nothing reliable tells."""
        thought, rest, _ = reply.split(self.asked.template)
        total = count_tokens(reply.usage, thought=thought, answer=rest).total
        return total if total is not None or reply.ids is None else len(reply.ids)

    def _count(self, text: str) -> int:
        assert self._forcing is not None
        return len(self._forcing.tokenizer.encode(text, add_special_tokens=False))


def batch_server(
    server: str,
    options: Mapping[str, Any],
    *,
    model: str,
    template: PromptTemplate,
    sampling: Sampling,
    menu: Menu,
    context_tokens: int | None = None,
    is_weighed: bool = False,
) -> BatchServer:
    """The server of that kind, asked by these options of the openai engine (`OPTIONS`).

    Where votes are weighed it is asked for log-probabilities, but for options that say otherwise.

    Raises:
        InvalidSettingsError: an option is of a wrong type; or it takes no files of requests, cannot keep the menu's
            caps in one call, or shows no log-probabilities.
    """
    check_options("engines", "openai", options)
    check_all((at_least("answer_room", options.get("answer_room"), 0),))
    if server not in KINDS:
        raise InvalidSettingsError(f"--server: {unknown_name_message('kind of server', server, list(KINDS))}")
    kind, taking = KINDS[server], ", ".join(name for name, each in KINDS.items() if each.batch)
    if kind.batch is None:
        raise InvalidSettingsError(f"--server {server} takes no requests in a file; these do: {taking}")
    enforce = options.get("enforce", "auto")
    has_caps = not menu.is_named or any(option.cap is not None for option in menu.options)
    if enforce == "auto":
        if has_caps and not kind.cap:
            raise InvalidSettingsError(
                f"a server of kind {server!r} has no cap on thinking in one request, and a second request cannot "
                "continue the first in a file of requests. Plan on a menu of its own effort levels (--menu of "
                "`forethought profile`); or give --enforce max-tokens, where a thought that is cut leaves no answer"
            )
        enforce = "native" if kind.cap else "max-tokens"
    elif enforce == "two-call":
        raise InvalidSettingsError("--enforce two-call: a file of requests holds one call per question; leave it out")
    elif enforce == "native" and not kind.cap:
        raise InvalidSettingsError(f"--enforce native: a server of kind {server!r} has no field for a cap on thinking")
    elif enforce not in ("native", "max-tokens"):
        raise InvalidSettingsError(f"--enforce {enforce}: in a file of requests it is native or max-tokens")
    if logprobs := bool(options.get("logprobs", is_weighed)):
        refuse_unshown(kind)
    return BatchServer(
        server=server,
        model=model,
        served_model=str(options.get("served_model") or model),
        enforce=enforce,
        template=template,
        sampling=sampling,
        context_tokens=context_tokens,
        answer_room=options.get("answer_room"),
        cap_offset=int(options.get("cap_offset", 0)),
        native_fields=dict(options.get("native_fields") or {}),
        logprobs=logprobs,
    )
