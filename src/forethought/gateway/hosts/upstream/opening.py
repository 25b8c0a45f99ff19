"""From the settings of `forethought serve` to a gateway that can be served; what does not fit is said at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ....control import sources
from ....core.features import DIFFICULTY, HIDDEN
from ....core.menu import Menu
from ....core.prompts import PromptTemplate
from ....core.provenance import Provenance
from ....core.registry import unknown_name_message
from ....core.serve_settings import ServeSettings, is_loopback
from ....errors import ForethoughtError, InvalidSettingsError
from ....predictors.predictor import Predictor
from ....runs.journal import JournalHeader
from ....servers.address import Address, Key, without_secrets
from ....servers.detecting import Server
from ....servers.kinds import KINDS
from ...admission import GATEWAY, Admission, account_of
from ...decision import NONE, Decider, Priorities
from ...host import logger
from ...journal import Journal
from ...law import PriceLaw, SharedPrice, steering_quotas
from ...ledger.opening import check_ledger, open_ledger
from ...metrics import Metrics, Watch
from ...pipeline import Pipeline
from ...policy import Policy
from ...price import FLAGS, Price, price_of
from ...request import PATHS, QUEUED
from ...seen import Balance, Seen
from ...tenants import Tenants
from ...tracing import open_tracing
from ...windows import window_at
from .host import UpstreamHost
from .looking import Found, look_at

KEY_FROM = "that --upstream-key-env names"
LEDGER = "sqlite:forethought-ledger.db"
SCRIPTED = (
    "scripted"  # a server that says so of itself, as `gateway.scripted` does, is no model: nothing of it is measured
)


@dataclass(frozen=True, slots=True)
class Opened:
    """A gateway before it listens.

    Attributes:
        settings: as they were given.
        address: of the server.
        server: what it is.
        key: the operator's, for the server; None to pass the client's on.
        policy: decides.
        price: of a token, and what it was set on.
        enforce: how options are carried out: "native", "two-call", or "fields" of options with names.
        why: this way, in words.
        tenants: whose requests there are.
        admission: keeps quotas; None where nothing is counted.
        seen: hears of requests.
        template: the predictor's; None where it is not known.
    """

    settings: ServeSettings
    address: Address
    server: Server
    key: Key | None
    policy: Policy
    price: Price
    enforce: str
    why: str
    tenants: Tenants
    admission: Admission | None
    seen: Seen
    template: PromptTemplate | None

    def to_json(self) -> dict[str, Any]:
        """What is served, JSON-able; no key is in it."""
        card, settings = self.policy.decider.predictor.card, self.settings
        counts = _counts(settings)
        return {
            "upstream": str(self.address),
            "server": f"{self.server.name} ({self.server.how})",
            "models": sorted(self.policy.host.models) or "any",
            "predictor": f"{card.predictor} {settings.predictor}",
            "options": str(card.menu),
            "enforced": f"{self.enforce}: {self.why}",
            "price": self.price.value,
            "price_from": self.price.source,
            "price_law": counts and bool(steering_quotas(self.tenants)),
            "tenants": [tenant.name for tenant in self.tenants.all],
            "ledger": without_secrets(settings.ledger or LEDGER) if counts else "none",
            "key": f"from {self.key.variable}"
            if self.key is not None
            else "none"
            if settings.tenants
            else "the client's",
            "journal": settings.log or "none",
            "shadow": settings.shadow,
        }

    def pipeline(self) -> Pipeline:
        """What requests go through."""
        return Pipeline(
            self.tenants,
            self.seen,
            admission=self.admission,
            is_shadow=self.settings.shadow,
            most_tokens=self.settings.most_tokens,
            has_key=self.key is not None,
        )

    async def close(self) -> None:
        """Lets go of ledger, journal and spans."""
        if self.admission is not None:
            await self.admission.close()
        await asyncio.to_thread(self.seen.close)


async def open_gateway(settings: ServeSettings) -> Opened:
    """Reads and asks all that a gateway stands on; call it on the event loop that serves.

    With `settings.dry_run` nothing is written or locked, and the server generates nothing.

    Raises:
        ForethoughtError: everything that is wrong, as far as it can be told apart.
    """
    problems: list[str] = []

    def tried(make: Callable[[], Any]) -> Any:
        try:
            return make()
        except ForethoughtError as error:
            problems.append(str(error))
            return None

    address = tried(lambda: Address.parse(settings.upstream, "--upstream", key_from=KEY_FROM))
    key = tried(lambda: Key.from_environment(settings.upstream_key_env)) if settings.upstream_key_env else None
    admin = tried(lambda: Key.from_environment(settings.admin_key_env)) if settings.admin_key_env else None
    predictor = tried(lambda: _predictor(settings))
    tenants = tried(lambda: Tenants.read(settings.tenants)) if settings.tenants else Tenants()
    if settings.server not in ("auto", *KINDS):
        problems.append(f"--server: {unknown_name_message('kind of server', settings.server, KINDS)}")
    if predictor is not None and tenants is not None:
        problems += _unfit_tenants(settings, tenants, predictor)
    del admin  # the page reads it again; here it is only looked whether it is there
    _raise(problems)
    found = await look_at(settings, address, key, predictor)
    if low := _low_ceilings(tenants, found, predictor):
        _raise(low)
    price = price_of(settings, predictor, FLAGS)
    admission = await _admission(settings, tenants, price)
    try:
        seen = _seen(settings, predictor, found.server, tenants, admission, price, address)
    except ForethoughtError:
        if admission is not None:
            await admission.close()
        raise
    policy = _policy(settings, predictor, found, price)
    if key is not None and address.is_in_clear:
        logger.warning("the key in %s goes to %s in clear", key.variable, address)
    return Opened(
        settings=settings,
        address=address,
        server=found.server,
        key=key,
        policy=policy,
        price=price,
        enforce=found.enforce,
        why=found.why,
        tenants=tenants,
        admission=admission,
        seen=seen,
        template=found.template,
    )


def _raise(problems: Sequence[str]) -> None:
    if problems:
        raise InvalidSettingsError(
            "\n  ".join(["the gateway cannot start:", *problems]) if problems[1:] else problems[0]
        )


def _predictor(settings: ServeSettings) -> Predictor:
    predictor = sources.open_predictor(settings.predictor)
    card = predictor.card
    if HIDDEN in card.features.reads:
        raise InvalidSettingsError(
            f"the predictor {card.predictor} reads hidden states, which no server gives over HTTP; train one that "
            "reads the text: forethought train RUN --predictor text"
        )
    if DIFFICULTY in card.features.reads or predictor.estimator.is_costly:
        raise InvalidSettingsError(
            f"the predictor {card.predictor} runs a model for every question, which a gateway does not wait for; "
            "train one that needs none: forethought train RUN --predictor text"
        )
    if not settings.menu:
        bare = [option.label for option in card.menu.options if not option.set and option.cap is None]
        if bare:
            raise InvalidSettingsError(
                f"the predictor's option {bare[0]!r} does not say what a request sets; name a menu file: --menu FILE"
            )
        return predictor
    menu = Menu.read(settings.menu)
    if not card.menu.is_named or set(menu.labels) != set(card.menu.labels):
        raise InvalidSettingsError(
            f"--menu {settings.menu} has the options {', '.join(menu.labels)}, and the predictor's are {card.menu}"
        )
    options = tuple(menu.options[menu.column_of(label)] for label in card.menu.labels)
    return replace(predictor, card=replace(card, menu=Menu(card.menu.caps, options)))


def _unfit_tenants(settings: ServeSettings, tenants: Tenants, predictor: Predictor) -> list[str]:
    labels = predictor.card.menu.labels if predictor.card.menu.is_named else ()
    problems = [
        f"tenant {tenant.name}: ceiling {tenant.ceiling!r} is none of the predictor's options, {predictor.card.menu}"
        for tenant in tenants.all
        if isinstance(tenant.ceiling, str) and tenant.ceiling not in labels
    ]
    if not is_loopback(settings.host) and tenants.header:
        problems.append(
            f"--host {settings.host} can be reached from elsewhere, and tenants are known by the header "
            f"{tenants.header}, which anybody can send: give them keys, or listen on 127.0.0.1 behind a proxy"
        )
    return problems


def _low_ceilings(tenants: Tenants, found: Found, predictor: Predictor) -> list[str]:
    """Ceilings that no request could be given as its cap."""
    kind = found.server.kind
    if predictor.card.menu.is_named or found.enforce != "native":
        return []
    return [
        f"tenant {tenant.name}: ceiling {tenant.ceiling} is below {kind.least:,}, the smallest cap of a server of kind "
        f"{kind.name}"
        for tenant in tenants.all
        if isinstance(tenant.ceiling, int) and tenant.ceiling < kind.least
    ]


def _counts(settings: ServeSettings) -> bool:
    """Whether tokens are counted in a ledger."""
    return bool(settings.tenants or settings.ledger)


async def _admission(settings: ServeSettings, tenants: Tenants, price: Price) -> Admission | None:
    if not _counts(settings):
        return None
    address = (settings.ledger or LEDGER).removeprefix("sqlite:")
    if settings.dry_run:
        await check_ledger(address)
        return None
    ledger = await open_ledger(address)
    steering, law = steering_quotas(tenants), None
    if steering and price.value > 0.0:
        law = SharedPrice(PriceLaw(price.value), steering)
    return Admission(tenants, ledger, price=law, image_tokens=settings.image_tokens, tool_tokens=settings.tool_tokens)


def _policy(settings: ServeSettings, predictor: Predictor, found: Found, price: Price) -> Policy:
    decider, server = Decider(predictor, price=price.value, cost=settings.cost), found.server
    context = server.context_tokens if server.kind.lists_all else None  # others list models of several lengths
    return Policy(
        decider,
        UpstreamHost(server.kind, found.models, context_tokens=context),
        start=_start(found.template),
        counter=None,
        template=found.template,
        answer_room=settings.answer_room,
        offset=settings.cap_offset,
        priorities=Priorities(NONE),
        metrics=Metrics(price.mean_budget),
        watch=Watch(decider, price),
        paths=(*PATHS, *QUEUED),
        has_caps=found.enforce != "two-call",
    )


def _start(template: PromptTemplate | None) -> str | None:
    """The tag that opens a thought, where the template says one."""
    text = "" if template is None else template.assistant_prefix.strip()
    return text or None


def _seen(
    settings: ServeSettings,
    predictor: Predictor,
    server: Server,
    tenants: Tenants,
    admission: Admission | None,
    price: Price,
    address: Address,
) -> Seen:
    card, simulated = predictor.card, SCRIPTED in server.models or server.name.endswith(f".{SCRIPTED}")
    provenance = Provenance(
        engine="gateway",
        model=card.model,
        template=card.template,
        template_hash=card.template_hash,
        server=server.kind.name,
        simulated=simulated,
    )
    header, journal = JournalHeader(card.menu, provenance), None
    if settings.log and settings.dry_run:
        header.check(Path(settings.log))
    elif settings.log:
        journal = Journal(Path(settings.log), header, keep_texts=settings.keep_texts, keep_days=settings.journal_days)
    law = None if admission is None else admission.shared_price
    place = urlsplit(address.origin)
    spans = None
    if settings.tracing and not settings.dry_run:
        spans = open_tracing(system=server.kind.name, address=place.hostname or "", port=place.port)
    return Seen(
        about={
            "server": server.name,
            "predictor": card.predictor,
            "model": card.model or "",
            "options": str(card.menu),
            "shadow": settings.shadow,
            "simulated": simulated,
        },
        journal=journal,
        spans=spans,
        balances=None if admission is None else _balances(admission, tenants),
        price=lambda: price.value if law is None else law.value,
    )


def _balances(admission: Admission, tenants: Tenants) -> Callable[[], Awaitable[Sequence[Balance]]]:
    """What `Seen` asks: the counts of all accounts, with their quotas."""
    known = {GATEWAY: ("gateway", tenants.quotas)}
    known |= {account_of(tenant): (tenant.name, tenant.quotas) for tenant in tenants.all}

    async def balances() -> list[Balance]:
        now, found = await admission.ledger.now(), []
        for count in await admission.counts():
            name, quotas = known[count.account]
            window = window_at(count.window, now)
            quota = quotas.get(count.window)
            found.append(
                Balance(
                    name,
                    count.window,
                    float(count.start),
                    float(window.end),
                    quota,
                    count.settled,
                    count.reserved,
                    count.bound,
                )
            )
        return found

    return balances
