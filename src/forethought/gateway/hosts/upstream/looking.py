"""What the server behind a gateway is, what it calls the predictor's model, and how caps are kept there."""

from __future__ import annotations

from dataclasses import dataclass

from ....core.prompts import CHAT, PromptTemplate, load_template, shipped_templates
from ....core.serve_settings import ServeSettings
from ....engines.server.chat import ask_template
from ....errors import EngineError
from ....predictors.predictor import Predictor
from ....servers.address import KEY_HINT, Address, Key
from ....servers.client import Client
from ....servers.detecting import Server, detect
from ....servers.kinds import KINDS
from ....servers.retrying import Backoff
from ....servers.tokens import Counters
from ...host import logger
from .enforcing import enforcement, keeps_cap

KEY_FLAG = "The server's key is read from the variable that --upstream-key-env names"


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
        is_kept = True if template is not None and template.has_tags else None
        enforce, why = enforcement(settings, server.kind, card.menu, is_kept)
        return Found(server, frozenset(filter(None, [settings.served_model])), template, enforce, why)
    backoff = Backoff(max_attempts=1, base_seconds=0.1)
    async with Client(
        address, key, backoff=backoff, timeout_seconds=20.0, concurrency=4, counters=Counters()
    ) as client:
        try:
            server = await detect(client, "", settings.served_model)
        except EngineError as error:
            hint = "; if it starts later, name its kind: --server vllm"
            said = str(error).replace("--base-url", "--upstream").replace("doctor --upstream", "doctor --base-url")
            raise EngineError(said.replace(KEY_HINT, KEY_FLAG) + hint) from None
        if card.template == CHAT:
            template, _ = await ask_template(client, server, settings.served_model or (server.models or ("",))[0])
            if card.template_hash is not None and template.hash != card.template_hash:
                template = None
        is_asked = not card.menu.is_named and settings.enforce == "auto"
        is_kept = await keeps_cap(client, server) if is_asked and not settings.dry_run else None
    enforce, why = enforcement(settings, server.kind, card.menu, is_kept)
    if is_asked and settings.dry_run:
        why = f"{server.kind.name} is taken to need it; a question at the start shows whether it does"
    return Found(server, _models(settings, server, card.model), template, enforce, why)


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
