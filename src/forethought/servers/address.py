"""The address of a server, and its key: the address is recorded, the key is never shown."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from ..errors import InvalidSettingsError

KEY_VARIABLES = ("FORETHOUGHT_API_KEY", "OPENAI_API_KEY")
KEY_HINT = f"The server's key is read from {' or '.join(KEY_VARIABLES)}"
HIDDEN = "[api key]"
LEAST_KEY = 8  # characters; shorter ones ("EMPTY", "none") are no secrets, and stand in many an answer
ENDPOINTS = ("/chat/completions", "/completions", "/responses", "/messages", "/models", "/embeddings")


URL = re.compile(r"(?:\b[a-z][a-z0-9+.-]{0,20}:)?//[^\s\"'<>]+", re.IGNORECASE)  # in a text


def without_secrets(text: str) -> str:
    """A text whose URLs show no user, password, query or fragment."""
    return URL.sub(_plain, text) if "//" in text else text


def _plain(url: re.Match[str]) -> str:
    scheme, _, rest = url[0].partition("//")
    rest, _, query = rest.partition("?")
    if "@" in query:  # the question mark may be part of a password
        return f"{scheme}//…"
    return f"{scheme}//{rest.rpartition('@')[2].partition('#')[0]}"


@dataclass(frozen=True, slots=True)
class Address:
    """A server's base URL, split where its two kinds of routes part.

    Attributes:
        origin: scheme, host and port.
        path: what the OpenAI routes begin with, such as "/v1"; "" where a whole endpoint was given that has none.
    """

    origin: str
    path: str

    @classmethod
    def parse(cls, text: str, flag: str = "--base-url", *, key_from: str = KEY_VARIABLES[0]) -> Address:
        """Reads a base URL, or a whole endpoint such as …/v1/chat/completions, whose last part is taken off.

        What could hold a secret (user, password, query) is refused and not repeated; `flag` is where it was given, and
        `key_from` the environment variable in which the key belongs.
        """
        shown = repr(text) if "@" not in text and "?" not in text else "what was given"
        unlike = f"{flag} must look like http://127.0.0.1:8000/v1; {shown} does not"
        try:
            parts = urlsplit(text.strip())
            (parts.hostname or "").encode("idna")
        except ValueError:  # a bracket of an IPv6 address that has no other, or a name that no name service could hold
            raise InvalidSettingsError(unlike) from None
        try:
            host, port = parts.hostname, parts.port
        except ValueError:
            raise InvalidSettingsError(f"{flag} has a port that is not a number") from None
        if parts.scheme not in ("http", "https") or not host:
            raise InvalidSettingsError(unlike)
        if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
            raise InvalidSettingsError(
                f"{flag} for {host} holds a user, a password, a query or a fragment, which would end up in "
                f"records; give the plain address, and the key in the environment variable {key_from}"
            )
        name = f"[{host}]" if ":" in host else host
        path = re.sub("/+", "/", parts.path).rstrip("/")
        endpoint = next((end for end in ENDPOINTS if path.endswith(end)), "")
        path = path.removesuffix(endpoint) if endpoint else path or "/v1"
        return cls(f"{parts.scheme}://{name}{f':{port}' if port else ''}", path)

    def __str__(self) -> str:
        return self.origin + (self.path or ENDPOINTS[0])  # what `parse` reads as the same address

    @property
    def host(self) -> str:
        """The host alone."""
        return urlsplit(self.origin).hostname or ""

    @property
    def is_in_clear(self) -> bool:
        """Whether what is sent can be read on the way: plain HTTP to another machine."""
        return self.origin.startswith("http:") and self.host not in ("localhost", "127.0.0.1", "::1")

    def api(self, route: str) -> str:
        """URL of an OpenAI route, such as "chat/completions"."""
        return f"{self.origin}{self.path}/{route}"

    def root(self, route: str) -> str:
        """URL of a route of the server's own, such as "tokenize"."""
        return f"{self.origin}{self.path.removesuffix('/v1')}/{route}"


class Key:
    """A key that only the server sees: not in its repr, and removed from everything that a server echoes."""

    __slots__ = ("_letters", "_shapes", "_value", "variable")

    def __init__(self, value: str, variable: str) -> None:
        self._value = value
        self._letters = frozenset(value)
        self._shapes = _shapes(value) if len(value) >= LEAST_KEY else None
        self.variable = variable

    @classmethod
    def from_environment(cls, variable: str = "") -> Key | None:
        """The key in `variable`, else in the first of `KEY_VARIABLES` that is set; None where there is none.

        Raises:
            InvalidSettingsError: a variable asked for that is not set, or a value that cannot be sent.
        """
        names = (variable,) if variable else KEY_VARIABLES
        name = next((name for name in names if os.environ.get(name, "").strip()), None)
        if name is None:
            if variable:
                raise InvalidSettingsError(f"the environment variable {variable} does not hold a key")
            return None
        value = os.environ[name].strip()
        if not value.isascii() or not value.isprintable():
            raise InvalidSettingsError(f"the key in {name} holds characters that no HTTP header can carry")
        return cls(value, name)

    def __repr__(self) -> str:
        return f"Key(from {self.variable})"

    def headers(self) -> Mapping[str, str]:
        """What shows it to a server."""
        return {"Authorization": f"Bearer {self._value}"}

    def hide(self, text: str) -> str:
        """`text` without the key, also where it is escaped, URL-encoded or broken up by white space."""
        if self._shapes is None:
            return text
        is_coded = "%" in text or "\\" in text or "&#" in text
        if not is_coded and not all(letter in text for letter in self._letters):
            return text
        return self._shapes.sub(HIDDEN, text)


def _shapes(value: str) -> re.Pattern[str]:
    """Every way in which a server may write `value` in a text: each letter plain or coded, white space between.

    All repetitions are bounded, so that no text takes more than a constant time a character.
    """
    letters = []
    for letter in value:
        code = f"{ord(letter):02x}"
        coded = rf"(?i:\\{{1,4}}u00{code}|\\{{1,4}}x{code}|%(?:25)?{code}|&\#(?:{ord(letter)}|x0*{code});)"
        letters.append(rf"(?:\\{{0,4}}{re.escape(letter)}|{coded})")
    return re.compile(r"(?:\s|\u200b|\\{1,4}[nrt]){0,64}".join(letters))
