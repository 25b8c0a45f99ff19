"""Which web pages may read the gateway's own errors: those that may read what the server behind it answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

ALLOW = b"access-control-allow-origin"
REPEATED = (ALLOW, b"access-control-allow-credentials", b"access-control-expose-headers")
MOST_SITES = 256


class Cors:
    """What the server last allowed pages of each site to read. Without a word of the server nothing is allowed."""

    def __init__(self) -> None:
        self._allowed: dict[str, dict[str, str]] = {}

    def see(self, origin: str, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Takes in a reply of the server to a page of `origin`."""
        found = {bytes(name).lower(): bytes(value).decode("latin-1") for name, value in headers}
        allowed = {name.decode(): found[name] for name in REPEATED if name in found}
        earlier = self._allowed.pop(origin, {})
        if found.get(ALLOW) == "*":
            allowed.pop("access-control-allow-credentials", None)
        elif found.get(ALLOW) == origin:
            allowed["vary"] = "Origin"
        else:  # errors often lack it
            allowed = earlier if ALLOW not in found and status >= 400 else {}
        if allowed:
            self._allowed[origin] = allowed
            if len(self._allowed) > MOST_SITES:
                del self._allowed[next(iter(self._allowed))]

    def headers(self, origin: str | None) -> Mapping[str, str]:
        """The headers of an error for a page of `origin`."""
        return {} if origin is None else self._allowed.get(origin, {})
