"""How caps are enforced at a server: by its own field where that works, else by two calls."""

from __future__ import annotations

from collections.abc import Mapping

from ....core.menu import Menu
from ....core.serve_settings import ServeSettings
from ....errors import InvalidSettingsError
from ....servers.client import Client
from ....servers.detecting import Server
from ....servers.kinds import ServerKind, merged
from ....servers.replies import texts_in
from ....servers.retrying import RequestError
from ....servers.tokens import count_tokens
from ...opening import QUESTION

TRIED_CAP = 16  # tokens of a thought that shows whether caps are enforced, and
TRIED_ROOM = 48  # more that it could have
MOST_OFFSET = 8  # tokens by which tags move a cap that is enforced


async def keeps_cap(client: Client, server: Server) -> bool | None:
    """Whether the server keeps a cap, by one thought that would be longer; None where that cannot be seen."""
    kind = server.kind
    if not kind.cap:
        return False
    cap = max(TRIED_CAP, kind.least)
    body = {
        "model": (server.models or ("",))[0],
        "messages": [{"role": "user", "content": QUESTION}],
        "temperature": 0.0,
        kind.length: cap + TRIED_ROOM,
    }
    try:
        reply = await client.post(client.address.api("chat/completions"), merged(body, kind.native(cap)))
    except RequestError as error:
        return False if error.status in (400, 422) else None
    choices = reply.get("choices") if isinstance(reply, Mapping) else None
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], Mapping) else {}
    thought, answer = texts_in(choice.get("message"))
    tokens = count_tokens(reply.get("usage") if isinstance(reply, Mapping) else None, thought=thought, answer=answer)
    if tokens.reasoning is None or not (thought or tokens.reasoning):
        return None
    return tokens.reasoning <= cap + MOST_OFFSET


def enforcement(settings: ServeSettings, kind: ServerKind, menu: Menu, is_kept: bool | None) -> tuple[str, str]:
    """`(how options are carried out, why)`; raises InvalidSettingsError where they cannot be."""
    if menu.is_named and not any(option.cap is not None for option in menu.options):
        return "fields", "the options set fields of the request"
    can_go_on = kind.continues is not None and not menu.is_named
    # A server that ignores its field without a word is trusted with it only where a thought was seen to end there.
    is_trusted = is_kept if is_kept is not None else not (kind.ignores_cap and can_go_on)
    if settings.enforce == "native" and kind.cap:
        return "native", "asked for"
    if settings.enforce == "auto" and kind.cap and is_trusted:
        return "native", f"a server of kind {kind.name} has a field"
    if settings.enforce != "native" and can_go_on:
        if settings.enforce == "two-call":
            return "two-call", "asked for"
        return (
            "two-call",
            "the server does not keep its own field" if is_kept is False else "no thought was seen to end",
        )
    raise InvalidSettingsError(
        f"a server of kind {kind.name!r} neither keeps a cap nor goes on with a begun answer; name its kind with "
        "--server KIND, or train on effort levels: forethought profile --menu FILE"
    )
