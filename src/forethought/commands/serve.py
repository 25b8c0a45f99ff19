"""`forethought serve`: a gateway in front of any OpenAI-compatible server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..core.serve_settings import ServeSettings
from .options import emit, filled, json_flag, takes, talk, verb

if TYPE_CHECKING:
    from ..gateway.hosts.upstream.serving import Running


@verb("serve", short_help="Run a gateway in front of a server: one price, hard quotas.")
@takes(ServeSettings)
@json_flag
def command(as_json: bool, **values: Any) -> int:
    """Predict each request's curve, choose its option at one price per token, set it, and count the tokens returned.

    The gateway serves the API of the server at --upstream, only on this machine unless --host is set. With --tenants
    FILE each tenant has quotas, which are never exceeded, and the price adapts to them. The headers of a reply state
    the chosen option. --dry-run checks everything without listening; --shadow decides and records, but leaves requests
    unchanged. After SIGTERM, running requests have --drain-seconds to finish.
    """
    import asyncio
    import logging

    settings = filled(ServeSettings, values)
    uvloop = _uvloop()
    # What the gateway logs goes by the plug-in's name, which vLLM shows; here it is shown as all else is.
    logging.getLogger("vllm.forethought").parent = logging.getLogger("forethought")
    from ..gateway.hosts.upstream import demo, opening, serving

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if settings.demo:
            runner.run(demo.serve_demo(settings, lambda running: _say(running, as_json=as_json)))
            return 0
        if settings.dry_run:
            found = runner.run(_looked_at(opening, settings))
            emit(as_json, found, "\n".join(f"{name:14} {_shown(value)}" for name, value in found.items()))
            return 0
        runner.run(serving.serve(settings, lambda running: _say(running, as_json=as_json)))
    return 0


async def _looked_at(opening: Any, settings: ServeSettings) -> dict[str, Any]:
    opened = await opening.open_gateway(settings)
    try:
        found: dict[str, Any] = opened.to_json()
    finally:
        await opened.close()
    return found


def _uvloop() -> Any:
    """The event loop's library; raises MissingExtraError where the gateway's packages are not installed."""
    from ..errors import MissingExtraError

    try:
        import aiohttp  # noqa: F401
        import httptools  # noqa: F401
        import uvicorn  # noqa: F401
        import uvloop
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"`forethought serve` needs the package {error.name!r}, which is not installed. Install it with: "
            "pip install 'forethought[gateway]'"
        ) from None
    return uvloop


def _say(running: Running, *, as_json: bool) -> None:
    found = running.opened.to_json()
    if as_json:
        emit(True, {"url": running.url, **found}, "")
        return
    talk(f"serving {running.url} in front of {found['upstream']}: {found['server']}")
    talk(f"options {found['options']}, {found['enforced']}; {found['price']:.3g} right answers a token")
    talk(f"page: {running.url.removesuffix('/v1')}/forethought/")
    if found["shadow"]:
        talk("in the shadow: nothing is changed")


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
