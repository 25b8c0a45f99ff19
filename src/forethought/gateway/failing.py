"""What keeps a gateway from answering a request, with the status that says so to the client."""

from __future__ import annotations

from collections.abc import Mapping


class GatewayError(Exception):
    """A request that gets no reply from the server behind the gateway, or not all of it.

    Attributes:
        status: for the client, where no reply has begun.
        code: the same for programs.
        was_sent: whether the server may have begun to work on the request.
        headers: of the reply that says so.
    """

    def __init__(
        self,
        reason: str,
        *,
        status: int = 502,
        code: str = "upstream_failed",
        was_sent: bool = True,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(reason)
        self.status = status
        self.code = code
        self.was_sent = was_sent
        self.headers = dict(headers or {})


class UpstreamError(GatewayError):
    """The server behind the gateway cannot be reached, broke off, or sent what is no answer."""


class RefusedError(GatewayError):
    """A request that the gateway itself does not pass on."""

    def __init__(
        self, status: int, reason: str, code: str = "invalid_request", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(reason, status=status, code=code, was_sent=False, headers=headers)
