"""Which headers go on, in both directions, and which key goes with them."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from ....servers.address import Key

HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
OWN = frozenset((b"host", b"content-length", b"expect"))  # of a request: they are made anew
# By these some servers take another method or path than those of the first line, which are the ones that were checked.
OVERRIDES = frozenset(
    (b"x-http-method-override", b"x-http-method", b"x-method-override", b"x-original-url", b"x-rewrite-url")
)
STAYING = HOP_BY_HOP | OWN | OVERRIDES  # of a request's headers
CREDENTIALS = frozenset((b"authorization", b"x-api-key", b"api-key"))

Pairs = Iterable[tuple[bytes, bytes]]


def onward(headers: Pairs, dropped: Collection[bytes] = ()) -> list[tuple[bytes, bytes]]:
    """A request's headers for the server, names in lower case.

    Args:
        headers: as they came, names in lower case.
        dropped: further names that stay here, such as those of a tenant's credentials.
    """
    found = list(headers)
    named = _named(found)
    return [pair for pair in found if pair[0] not in STAYING and pair[0] not in named and pair[0] not in dropped]


def back(headers: Pairs) -> list[tuple[bytes, bytes]]:
    """A reply's headers for the client, names in lower case."""
    found = list(headers)
    named = _named(found)
    return [(name, value) for name, value in found if name not in HOP_BY_HOP and name not in named]


def _named(headers: list[tuple[bytes, bytes]]) -> frozenset[bytes]:
    """Headers that `Connection` names, which are for the next hop alone."""
    named = [value for name, value in headers if name == b"connection"]
    if not named or named in ([b"keep-alive"], [b"close"]):
        return frozenset()
    return frozenset(part.strip().lower() for value in named for part in value.split(b",")) - {b"content-length"}


def key_headers(key: Key, kind: str) -> list[tuple[bytes, bytes]]:
    """What shows the server the operator's key; `kind` is the server's."""
    found = [(name.lower().encode(), value.encode()) for name, value in key.headers().items()]
    if kind == "anthropic":
        found.append((b"x-api-key", found[0][1].removeprefix(b"Bearer ")))
    return found
