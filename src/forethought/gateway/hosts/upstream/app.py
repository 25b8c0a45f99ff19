"""The whole gateway as one ASGI app: its own pages, an end that refuses, and the pipeline for all else."""

from __future__ import annotations

from ...asgi import App, Message, Receive, Send, path_of, send_error, send_json
from ...page import Pages


class Gateway:
    """Plain ASGI.

    Args:
        app: answers all other requests, also with what goes wrong.
        drain_seconds: that clients are asked to stay away when the end has begun.

    Attributes:
        pages: answers on paths of its own; None for `/health` alone.
        is_draining: the end has begun.
        num_running: requests that are answered now, those for the pages left out.
    """

    def __init__(self, app: App, *, drain_seconds: float) -> None:
        self._app = app
        self.pages: Pages | None = None
        self._wait = str(max(1, round(drain_seconds)))
        self.is_draining = False
        self.num_running = 0

    @property
    def health(self) -> str:
        """Why no requests are taken; "" where they are."""
        return "stopping" if self.is_draining else ""

    def drain(self) -> None:
        """From now on requests are refused."""
        self.is_draining = True
        if self.pages is not None:
            self.pages.close()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return
        path = path_of(scope)
        if Pages.takes(path):
            await self._own(path, scope, receive, send)
            return
        if self.is_draining:
            headers = {"retry-after": self._wait, "connection": "close"}
            await send_error(send, 503, "the gateway is stopping", "stopping", headers)
            return
        self.num_running += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self.num_running -= 1

    async def _own(self, path: str, scope: Message, receive: Receive, send: Send) -> None:
        if self.pages is not None:
            await self.pages(scope, receive, send)
        elif path == "/health":
            said = {"status": "unavailable", "reason": self.health} if self.health else {"status": "ok"}
            await send_json(send, 503 if self.health else 200, said)
        else:
            await send_error(send, 404, "there is no such page", "not_found")
