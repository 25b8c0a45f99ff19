"""Which way to keep budgets at a server: the one asked for, or the best that it offers, and why."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...core.data import Sampling
from ...core.prompts import PromptTemplate
from ...errors import InvalidSettingsError
from ...servers.client import Client
from ...servers.counters import Counters
from ...servers.detecting import Server
from ...servers.replies import CLOSING
from .dialects import Dialect, TokenDialect
from .efforts import Efforts
from .one_call import OneCall
from .pieces import ChatDialect, TextDialect
from .two_call import TwoCalls

ENFORCE = ("auto", "native", "two-call", "max-tokens", "effort")
ROOM = 64  # tokens for closing tags and the suffix in the model's own words, beside the answer


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the user wants of a server.

    Attributes:
        enforce: one of `ENFORCE`.
        model: the model's name at the server.
        template, sampling, context_tokens: see `OpenAIEngine`.
        ids: whether token ids may be used.
        tokenizer: a local Hugging Face tokenizer of the model, or None.
        efforts: what effort levels cost, or None.
        answer_room: tokens for an answer that is not forced; None for what suits the template.
        cap_offset: tokens to take off every native cap.
        native_fields: more fields beside every native cap.
        priority: tell the server each request's priority.
    """

    enforce: str
    model: str
    template: PromptTemplate
    sampling: Sampling
    context_tokens: int | None = None
    ids: bool = True
    tokenizer: Any | None = None
    efforts: Efforts | None = None
    answer_room: int | None = None
    cap_offset: int = 0
    native_fields: Mapping[str, Any] = field(default_factory=dict)
    priority: bool = False

    @property
    def room(self) -> int:
        """Tokens for an answer that is not forced."""
        return ROOM + self.template.max_answer_tokens if self.answer_room is None else self.answer_room


@dataclass(frozen=True, slots=True)
class Chosen:
    """How budgets are kept.

    Attributes:
        enforce: one of `ENFORCE`, but not "auto".
        reason: why this one.
        identity: all that makes one record by it unlike another, for a run's identity.
        calls: does it.
    """

    enforce: str
    reason: str
    identity: str
    calls: TwoCalls | OneCall


async def choose(client: Client, server: Server, wanted: Wanted, counters: Counters) -> Chosen:
    """Settles how budgets are kept at `server`; raises InvalidSettingsError for a way that it cannot be asked for."""
    if wanted.priority and not server.kind.has_priority:
        raise InvalidSettingsError(f"priority=true: a server of kind {server.kind.name!r} has no such field")
    dialect = _dialect(server, wanted, counters)
    enforce, reason = _choice(server, wanted, dialect)
    if enforce == "two-call":
        assert dialect is not None
        await dialect.start(client)
        two_calls = TwoCalls(
            dialect,
            wanted.template,
            wanted.sampling,
            wanted.context_tokens,
            counters,
            sends_priority=wanted.priority,
            one_by_one=server.kind.caches_by_slot,
        )
        return Chosen(enforce, reason, enforce, two_calls)
    tokens, closing_tokens = None, 1
    if wanted.tokenizer is not None or server.tokenizes:
        tokens = TokenDialect(server, wanted.model, wanted.template, wanted.tokenizer, counters)
        await tokens.start(client)
        if server.kind.counts_closing:
            closing_tokens = await tokens.count(client, CLOSING)
    one_call = OneCall(
        enforce=enforce,
        server=server,
        model=wanted.model,
        template=wanted.template,
        sampling=wanted.sampling,
        counters=counters,
        answer_room=wanted.room,
        cap_offset=wanted.cap_offset,
        native_fields=wanted.native_fields,
        efforts=wanted.efforts,
        tokens=tokens,
        context_tokens=wanted.context_tokens,
        sends_priority=wanted.priority,
        closing_tokens=closing_tokens,
    )
    return Chosen(enforce, reason, _identity(enforce, wanted), one_call)


def _dialect(server: Server, wanted: Wanted, counters: Counters) -> Dialect | None:
    """The best way to have a text continued there; None where there is none."""
    common = (server, wanted.model, wanted.template)
    if wanted.ids and server.kind.ids and (server.tokenizes or wanted.tokenizer is not None):
        return TokenDialect(*common, wanted.tokenizer, counters)
    if wanted.tokenizer is not None:
        return TextDialect(*common, counters, wanted.tokenizer)
    return ChatDialect(*common, counters) if server.kind.continues is not None else None


def _choice(server: Server, wanted: Wanted, dialect: Dialect | None) -> tuple[str, str]:
    """`(enforcement, why)`."""
    kind = server.kind
    able = {
        "two-call": dialect is not None,
        "native": bool(kind.cap),
        "effort": bool(kind.effort) and wanted.efforts is not None,
        "max-tokens": True,
    }
    by = f"by {dialect.name}" if dialect is not None else ""
    if wanted.enforce != "auto":
        if not able[wanted.enforce]:
            raise InvalidSettingsError(f"--enforce {wanted.enforce}: a server of kind {kind.name!r} {_lack(wanted)}")
        return wanted.enforce, f"asked for, {by}" if by and wanted.enforce == "two-call" else "asked for"
    chosen = next(name for name, is_able in able.items() if is_able)
    if chosen == "two-call":
        return chosen, f"the same as in-process engines do, {by}"
    return chosen, f"the best that a server of kind {kind.name!r} offers"


def _lack(wanted: Wanted) -> str:
    """What a server lacks for the way that is wanted."""
    if wanted.enforce == "two-call":
        return (
            "neither takes token ids nor goes on with a begun answer; with --engine-option tokenizer=NAME it can "
            "continue plain text"
        )
    if wanted.enforce == "effort" and wanted.efforts is None:
        return (
            "needs to know what its effort levels cost: --engine-option effort_costs=FILE, a JSON object such as "
            '{"low": 180, "high": 4000}'
        )
    return f"has no field for {wanted.enforce} that is known"


def _identity(enforce: str, wanted: Wanted) -> str:
    if enforce == "max-tokens":
        return enforce
    parts = [enforce, f"room {wanted.room}"]
    if enforce == "native" and wanted.cap_offset:
        parts.append(f"cap_offset {wanted.cap_offset}")
    if enforce == "native":
        parts += [f"{name} {json.dumps(value)}" for name, value in sorted(wanted.native_fields.items())]
    if enforce == "effort" and wanted.efforts is not None:
        parts += [f"{level} {cost:g}" for level, cost in sorted(wanted.efforts.costs.items())]
    return ", ".join(parts)
