"""Runs a gateway until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from functools import partial

from ....core.prompts import load_template
from ....core.serve_settings import ServeSettings
from ....errors import InvalidSettingsError
from ...asgi import App
from ...guard import Guard
from ...page import Pages
from .app import Gateway
from .client import Upstream
from .forward import Forward
from .headers import CREDENTIALS
from .opening import Opened, open_gateway
from .server import Server
from .two_calls import TwoCalls

GARBAGE = 10_000  # objects that are made before a collection looks for cycles among them; requests make none
TAGGED = "think"  # the template of thoughts between tags, where the predictor's is not known


@dataclass(frozen=True, slots=True)
class Running:
    """A gateway that listens.

    Attributes:
        url: of it, `/v1` included.
        opened: what it stands on.
        server: stops it.
    """

    url: str
    opened: Opened
    server: Server


async def serve(settings: ServeSettings, say: Callable[[Running], None]) -> None:
    """Serves until a signal ends it, in a process of its own.

    Args:
        settings: of the gateway.
        say: called once it listens.

    Raises:
        ForethoughtError: it cannot be started.
    """
    async with running(settings) as found:
        gc.collect()
        gc.freeze()  # what is loaded by now stays: collections, which stop all else, need not look at it again
        gc.set_threshold(GARBAGE)
        say(found)
        await found.server.stopped()


@contextlib.asynccontextmanager
async def running(settings: ServeSettings) -> AsyncIterator[Running]:
    """A gateway that listens meanwhile; it stops at the end, or earlier where a signal ends it."""
    listening = _listen(settings)
    try:
        opened = await open_gateway(settings)
    except BaseException:
        listening.close()
        raise
    upstream = Upstream(
        opened.address.origin, reply_seconds=settings.timeout_seconds, idle_seconds=settings.timeout_seconds
    )
    pipeline = opened.pipeline()
    app = partial(pipeline, _app(opened, upstream), opened.policy)
    pages = _pages(opened, lambda: gateway.health)
    gateway = Gateway(app, pages, cors=pipeline.cors, drain_seconds=settings.drain_seconds)
    server = Server(
        gateway,
        drain_seconds=settings.drain_seconds,
        num_running=lambda: gateway.num_running,
        drain=gateway.drain,
    )
    sampling = asyncio.ensure_future(pages.run())
    if opened.admission is not None:
        opened.admission.start()
    serving = asyncio.ensure_future(server.run_until_stopped(listening))
    try:
        await server.up(serving)
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        yield Running(f"http://{host}:{listening.getsockname()[1]}/v1", opened, server)
    finally:
        server.should_exit = True
        pages.close()
        await serving
        sampling.cancel()
        listening.close()
        upstream.close()
        await opened.close()


def _pages(opened: Opened, health: Callable[[], str]) -> Pages:
    """The gateway's own pages."""
    variable, tenants = opened.settings.admin_key_env, opened.tenants
    guard = Guard(os.environ.get(variable, "").strip() if variable else "")

    def is_tenant(headers: Mapping[str, str]) -> bool:
        return bool(opened.settings.tenants) and tenants.of(headers) is not None

    return Pages(opened.seen, guard, is_tenant=is_tenant, health=health)


def _app(opened: Opened, upstream: Upstream) -> App:
    """What passes requests on."""
    private = set()
    if opened.settings.tenants:  # tenants show their keys to the gateway, and not to the server
        private = {*CREDENTIALS, *([opened.tenants.header.encode()] if opened.tenants.header else [])}
    kind = opened.server.kind
    forward = Forward(upstream, opened.address, key=opened.key, kind=kind.name, private=private)
    if opened.policy.has_caps:
        return forward
    template = opened.template or load_template(TAGGED)
    return TwoCalls(forward, kind, template, answer_room=opened.settings.answer_room)


def _listen(settings: ServeSettings) -> socket.socket:
    """The socket to listen on; raises InvalidSettingsError."""
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listening = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:  # the latter: a name that no name service could hold
        said = error.strerror if isinstance(error, OSError) else "is no name of a host"
        raise InvalidSettingsError(f"--host {settings.host}: {said}") from None
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        listening.close()
        where = f"{settings.host}:{settings.port}"
        raise InvalidSettingsError(f"cannot listen on {where}: {error.strerror or error}; try --port 0") from None
    return listening
