"""Chooses how budgets are enforced at a server: as requested, or the best way that it supports, with the reason."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...core.options import Option
from ...errors import InvalidSettingsError
from ...servers.detecting import Server
from ...servers.kinds import ServerKind
from ...servers.replies import CLOSING
from ...servers.tokens import Counters
from .dialects import Dialect, TokenDialect
from .one_call import OneCall
from .pieces import ChatDialect, TextDialect
from .two_call import TwoCalls
from .wanted import Wanted

if TYPE_CHECKING:
    from ...servers.client import Client  # whose library may be missing where nothing is asked

OWN = ("messages", "prompt", "stream", "stream_options", "n", "seed", "return_token_ids")  # no option sets these


@dataclass(frozen=True, slots=True)
class Chosen:
    """How budgets are kept.

    Attributes:
        enforce: one of `ENFORCE`, but not "auto".
        reason: why this one.
        identity: all that makes one record by it unlike another, for a run's identity.
        calls: does it.
        whole: asks for a thought without a cap, by an option.
        setting: keeps the cap of an option that sets more; None where that is not possible here.
    """

    enforce: str
    reason: str
    identity: str
    calls: TwoCalls | OneCall
    whole: OneCall
    setting: TwoCalls | OneCall | None

    def calls_for(self, option: Option | None) -> TwoCalls | OneCall:
        """The calls for `option`; raises InvalidSettingsError if there are none."""
        if option is None:
            return self.calls
        refuse_own_fields(option)
        if option.cap is None:
            return self.whole
        if not option.set:
            return self.calls
        if self.setting is None:
            raise InvalidSettingsError(
                f"option {option.label!r} has a cap and sets {', '.join(option.set)}: two calls can set fields "
                "only in a continued chat, which this server does not support; give it no cap, or use --enforce native "
                "or max-tokens"
            )
        return self.setting


def refuse_own_fields(option: Option) -> None:
    """Refuses an option that sets what every request sets by itself; raises InvalidSettingsError."""
    if taken := [name for name in option.set if name in OWN]:
        raise InvalidSettingsError(f"option {option.label!r} sets {taken[0]!r}, which every request sets by itself")


def refuse_unshown(kind: ServerKind) -> None:
    """Refuses to ask for log-probabilities where none are shown; raises InvalidSettingsError."""
    if not kind.shows_logprobs:
        raise InvalidSettingsError(
            f"logprobs=true: a server of kind {kind.name!r} shows no log-probabilities; leave it out, and give each "
            "sample one vote (--vote-weights equal)"
        )


async def choose(client: Client, server: Server, wanted: Wanted, counters: Counters) -> Chosen:
    """Settles how budgets are kept at `server`; raises InvalidSettingsError for a way that it cannot be asked for."""
    if wanted.priority and not server.kind.has_priority:
        raise InvalidSettingsError(f"priority=true: a server of kind {server.kind.name!r} has no such field")
    if wanted.logprobs:
        refuse_unshown(server.kind)
    dialect = _dialect(server, wanted, counters)
    enforce, reason = _choice(server, wanted, dialect)
    whole = await _one_call(client, "max-tokens" if enforce == "two-call" else enforce, server, wanted, counters)
    if enforce != "two-call":
        if wanted.logprobs:
            await whole.look_for_logprobs(client)
        return Chosen(enforce, reason, identity_of(enforce, wanted), whole, whole, whole)
    assert dialect is not None
    await dialect.start(client)
    calls = TwoCalls(dialect, wanted, counters, one_by_one=server.kind.caches_by_slot)
    setting = calls if dialect.sets else None
    if setting is None and server.kind.continues is not None:
        chat = ChatDialect(server, wanted.model, wanted.template, counters)
        await chat.start(client)
        setting = TwoCalls(chat, wanted, counters, one_by_one=server.kind.caches_by_slot)
    return Chosen(enforce, reason, enforce, calls, whole, setting)


async def _one_call(client: Client, enforce: str, server: Server, wanted: Wanted, counters: Counters) -> OneCall:
    """Who asks once, and counts by a tokenizer where one is at hand."""
    tokens, closing_tokens = None, 1
    if wanted.tokenizer is not None or server.tokenizes:
        tokens = TokenDialect(server, wanted.model, wanted.template, wanted.tokenizer, counters)
        await tokens.start(client)
        if server.kind.counts_closing:
            closing_tokens = await tokens.count(client, CLOSING)
    return OneCall(enforce, server, wanted, counters, tokens, closing_tokens)


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
            "accepts neither token ids nor a started answer; with --engine-option tokenizer=NAME it can "
            "continue plain text"
        )
    return f"has no field for {wanted.enforce} that is known"


def identity_of(enforce: str, wanted: Wanted) -> str:
    """All of a way to keep budgets that makes one record by it unlike another, for a run's identity."""
    if enforce == "max-tokens":
        return enforce
    parts = [enforce, f"room {wanted.room}"]
    if enforce == "native":
        parts += [f"cap_offset {wanted.cap_offset}"] if wanted.cap_offset else []
        parts += [f"{name} {json.dumps(value)}" for name, value in sorted(wanted.native_fields.items())]
    return ", ".join(parts)
