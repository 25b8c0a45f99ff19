"""Who may see the gateway's page, and which web pages may ask where no key is asked for."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from .tenants import digest_of

COOKIE = "forethought"
SECONDS = 12 * 3600  # that a login holds
BEARER = re.compile(r"bearer +(\S+)\s*", re.IGNORECASE)
FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip")  # a proxy on this machine speaks for somebody else
LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")
# Bodies that a page of any site may have a browser send without asking the server first (Fetch, "CORS-safelisted").
UNASKED = ("", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data")


class Guard:
    """Lets in by `Authorization: Bearer KEY`, or by the cookie that a login sets.

    Only a hash of the key is held, and it is compared in constant time. A cookie holds when it runs out and a keyed
    hash of that, so every process with the same key takes it, and none does once the key is another. Without a key
    whoever connects from this machine is let in, unless a proxy speaks for somebody else, or the page was asked for by
    another name than this machine's own (as by a site that points its name here).

    Args:
        key: of the operator; "" for none.
        clock: seconds since 1970.
    """

    def __init__(self, key: str = "", *, clock: Callable[[], float] = time.time) -> None:
        self._digest = digest_of(key) if key else b""
        self._clock = clock

    @property
    def has_key(self) -> bool:
        """Whether a key is asked for."""
        return bool(self._digest)

    def lets_in(self, scope: Mapping[str, Any], headers: Mapping[str, str]) -> bool:
        """Whether a request may go on.

        Args:
            scope: of ASGI.
            headers: by name in lower case.
        """
        if not self._digest:
            return _is_local(scope, headers)
        given = BEARER.fullmatch(headers.get("authorization", ""))
        if given is not None:
            return self.is_key(given[1])
        return any(self._holds(cookie) for cookie in _cookies(headers.get("cookie", "")))

    def is_key(self, given: str) -> bool:
        """Whether this is the key."""
        return bool(self._digest) and hmac.compare_digest(digest_of(given), self._digest)

    def cookie(self, *, path: str, is_secure: bool) -> str:
        """The header that logs in."""
        ends = str(int(self._clock()) + SECONDS)
        return self._header(f"{ends}.{self._tag(ends)}", SECONDS, path, is_secure=is_secure)

    def no_cookie(self, *, path: str, is_secure: bool) -> str:
        """The header that logs out."""
        return self._header("", 0, path, is_secure=is_secure)

    def _header(self, value: str, seconds: int, path: str, *, is_secure: bool) -> str:
        secure = "; Secure" if is_secure else ""
        return f"{COOKIE}={value}; Path={path}; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}"

    def _holds(self, cookie: str) -> bool:
        ends, _, tag = cookie.partition(".")
        if not (ends.isascii() and ends.isdecimal() and len(ends) <= 12):
            return False
        is_ours = hmac.compare_digest(self._tag(ends).encode(), tag.encode("utf-8", "surrogateescape"))
        return is_ours and self._clock() < int(ends)

    def _tag(self, ends: str) -> str:
        return hmac.new(self._digest, f"forethought page {ends}".encode(), hashlib.sha256).hexdigest()


def _cookies(header: str) -> list[str]:
    pairs = (part.strip().partition("=") for part in header.split(";")[:50])
    return [value for name, _, value in pairs if name == COOKIE]


def is_foreign(headers: Mapping[str, str], *, has_key: bool) -> bool:
    """Whether a page of another site had a browser send this, and the server's CORS does not allow it to.

    Browsers name the page's site in `Origin` and compare it with ours in `Sec-Fetch-Site`; other clients send neither.
    Before a body of JSON or an `Authorization` they ask the server. Its answer counts for nothing where requests go on
    with a key that is not the page's: a hosted API lets in every site that has one.

    Args:
        headers: by name in lower case.
        has_key: requests go on with the operator's key.
    """
    origin, site = headers.get("origin", ""), headers.get("sec-fetch-site", "cross-site" if "origin" in headers else "")
    if site != "cross-site" or _is_of_this_machine(origin):
        return False
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    return has_key or (kind in UNASKED and BEARER.fullmatch(headers.get("authorization", "")) is None)


def is_preflight(method: str, headers: Collection[str]) -> bool:
    """Whether a browser asks what pages of another site may do (Fetch, "CORS-preflight request").

    It shows no key with that, and nothing is done for it; the server's answer says which sites it allows.

    Args:
        method: of the request.
        headers: their names in lower case.
    """
    return method == "OPTIONS" and "origin" in headers and "access-control-request-method" in headers


def _is_of_this_machine(origin: str) -> bool:
    """Whether a page was served by this machine, or belongs to a program on it (`vscode-webview://…`)."""
    scheme, _, host = origin.partition("://")
    return _without_port(host) in LOCAL_NAMES if scheme in ("http", "https") else origin not in ("", "null")


def _without_port(host: str) -> str:
    return host if host.endswith("]") else re.sub(r":\d+$", "", host)


def _is_local(scope: Mapping[str, Any], headers: Mapping[str, str]) -> bool:
    if any(name in headers for name in FORWARDED):
        return False
    name = _without_port(headers.get("host", "").lower())
    client = scope.get("client")
    try:
        is_near = client is not None and ipaddress.ip_address(client[0]).is_loopback
    except ValueError:
        return False
    return is_near and name in LOCAL_NAMES
