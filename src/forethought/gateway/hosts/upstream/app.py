"""The whole gateway as one ASGI app: its own pages, an end that refuses, and the pipeline for all else."""

from __future__ import annotations

from ...asgi import App, Message, Receive, Send, headers_of, path_of, send_error
from ...cors import Cors
from ...page import Pages


class Gateway:
    """Plain ASGI.

    Args:
        app: answers all other requests, also with what goes wrong.
        pages: answers on paths of its own.
        cors: which pages may read that the gateway stops.
        drain_seconds: that clients are asked to stay away when the end has begun.

    Attributes:
        is_draining: the end has begun.
        num_running: requests that are answered now, those for the pages left out.
    """

    def __init__(self, app: App, pages: Pages, *, cors: Cors, drain_seconds: float) -> None:
        self._app = app
        self._pages, self._cors = pages, cors
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
        self._pages.close()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return
        if Pages.takes(path_of(scope)):
            await self._pages(scope, receive, send)
            return
        if self.is_draining:
            cors = self._cors.headers(headers_of(scope).get("origin"))
            headers = {"retry-after": self._wait, "connection": "close", **cors}
            await send_error(send, 503, "the gateway is stopping", "stopping", headers)
            return
        self.num_running += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self.num_running -= 1
