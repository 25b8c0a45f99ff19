"""What the server behind a gateway is, what it calls the predictor's model, and how caps are kept there."""

from __future__ import annotations

from dataclasses import dataclass

from ....core.menu import Menu
from ....core.prompts import CHAT, PromptTemplate, load_template, shipped_templates
from ....core.serve_settings import ServeSettings
from ....engines.server.chat import ask_template
from ....errors import EngineError, InvalidSettingsError
from ....predictors.predictor import Predictor
from ....servers.address import Address, Key
from ....servers.client import Client
from ....servers.detecting import Server, detect
from ....servers.kinds import KINDS, ServerKind, merged
from ....servers.retrying import Backoff, RequestError
from ....servers.tokens import Counters
from ...host import logger

TRIED = "2 + 2?"
TAGS_ALONE = ("llama.cpp", "sglang")  # kinds that take a cap and heed it between the model's own thinking tags alone


@dataclass(frozen=True, slots=True)
class Found:
    """What was seen of the server."""

    server: Server
    models: frozenset[str]
    template: PromptTemplate | None
    enforce: str
    why: str


async def look_at(settings: ServeSettings, address: Address, key: Key | None, predictor: Predictor) -> Found:
    """Asks the server what it is; where its kind was given, it need not be there yet."""
    card = predictor.card
    template = load_template(card.template) if card.template in shipped_templates() else None
    if settings.server != "auto":
        server = Server(KINDS[settings.server], "as --server says")
        enforce, why = enforcement(settings, server.kind, card.menu, template, None)
        return Found(server, frozenset(filter(None, [settings.served_model])), template, enforce, why)
    backoff = Backoff(max_attempts=1, base_seconds=0.1)
    async with Client(
        address, key, backoff=backoff, timeout_seconds=20.0, concurrency=4, counters=Counters()
    ) as client:
        try:
            server = await detect(client, "", settings.served_model)
        except EngineError as error:
            hint = "; if it starts later, name its kind: --server vllm"
            raise EngineError(str(error).replace("--base-url", "--upstream") + hint) from None
        if card.template == CHAT:
            template, _ = await ask_template(client, server, settings.served_model or (server.models or ("",))[0])
            if card.template_hash is not None and template.hash != card.template_hash:
                template = None
        is_kept = await _takes_cap(client, server) if not card.menu.is_named and settings.enforce == "auto" else None
    enforce, why = enforcement(settings, server.kind, card.menu, template, is_kept)
    return Found(server, _models(settings, server, card.model), template, enforce, why)


async def _takes_cap(client: Client, server: Server) -> bool | None:
    """Whether the server takes a cap in a request for one token; None where that cannot be told."""
    if not server.kind.cap:
        return False
    body = {
        "model": (server.models or ("",))[0],
        "messages": [{"role": "user", "content": TRIED}],
        server.kind.length: 1 + server.kind.least,
    }
    try:
        await client.post(client.address.api("chat/completions"), merged(body, server.kind.native(server.kind.least)))
    except RequestError as error:
        return False if "HTTP 400" in str(error) or "HTTP 422" in str(error) else None
    return True


def enforcement(
    settings: ServeSettings, kind: ServerKind, menu: Menu, template: PromptTemplate | None, is_kept: bool | None
) -> tuple[str, str]:
    """`(how options are carried out, why)`; raises InvalidSettingsError where they cannot be."""
    if menu.is_named and not any(option.cap is not None for option in menu.options):
        return "fields", "the options set fields of the request"
    can_go_on = kind.continues is not None and not menu.is_named
    if settings.enforce == "auto" and can_go_on and kind.name in TAGS_ALONE and template and not template.has_tags:
        return "two-call", f"{kind.name} counts between thinking tags, and template {template.name} has none"
    if settings.enforce != "two-call" and kind.cap and is_kept is not False:
        return "native", "asked for" if settings.enforce == "native" else f"a server of kind {kind.name} has a field"
    if settings.enforce != "native" and can_go_on:
        return (
            "two-call",
            "asked for" if settings.enforce == "two-call" else "the server refuses its own field for caps",
        )
    raise InvalidSettingsError(
        f"a server of kind {kind.name!r} neither keeps a cap nor goes on with a begun answer; name its kind with "
        "--server KIND, or train on effort levels: forethought profile --menu FILE"
    )


def _models(settings: ServeSettings, server: Server, trained_on: str | None) -> frozenset[str]:
    """Names under which the predictor's model is served; empty for any."""
    if settings.served_model:
        server.check_serves(settings.served_model)
        return frozenset((settings.served_model,))
    if trained_on in server.models:
        return frozenset((str(trained_on),))
    shown = ", ".join(server.models[:5]) or "models that it does not list"
    logger.warning(
        "the predictor is for model %s, and the server has %s: they are taken to be the same; name one: --served-model",
        trained_on,
        shown,
    )
    return frozenset()
