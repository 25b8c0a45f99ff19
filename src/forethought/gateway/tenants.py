"""Whose request it is: tenants of a TOML file, known by a key, of which only a hash is kept, or by a header.

[gateway]                       # quotas of all tenants together
tokens_per_day = 5_000_000
header = "x-team"               # in which a proxy in front names the tenant; clients must not be able to set it

[tenants.search]
key_sha256 = "9f86…"            # or a list; `new_key` makes one
tokens_per_minute = 20_000
weight = 2.0                    # faces half of the price
ceiling = 512                   # most reasoning tokens, or the name of the largest option
models = ["qwen3-8b"]

[tenants.batch]
header = "batch"                # the value of that header
tokens = 1_000_000              # in all
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from ..core.files import parse_toml, reaching
from ..core.problems import Problems
from ..core.registry import unknown_name_message
from .windows import ALL, WINDOWS, Quotas

QUOTA_KEYS = {"tokens" if name == ALL else f"tokens_per_{name}": name for name in WINDOWS}
MOST_TOKENS = 10**15  # of a quota
KEY_PREFIX = "ft-"
DEFAULT = "all"  # the one tenant where there is no file

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HEADER = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")
_HASH = re.compile(r"[0-9a-fA-F]{64}")
_GATEWAY_KEYS = (*QUOTA_KEYS, "header", "tokens_per_byte")
_TENANT_KEYS = (*QUOTA_KEYS, "key_sha256", "header", "weight", "ceiling", "models")


@dataclass(frozen=True, slots=True)
class Tenant:
    """Somebody with quotas of their own.

    Attributes:
        name: letters, digits, `.`, `_` and `-`.
        weight: faces the price divided by this.
        quotas: window -> tokens.
        ceiling: most reasoning tokens of a thought, or the name of the largest option; None for no bound.
        models: that may be asked; empty for all.
    """

    name: str
    weight: float = 1.0
    quotas: Quotas = field(default_factory=dict)
    ceiling: int | str | None = None
    models: tuple[str, ...] = ()

    def may_ask(self, model: str | None) -> bool:
        """Whether this tenant may ask `model`; None, the server's own choice, only where all are allowed."""
        return not self.models or model in self.models


class Tenants:
    """All tenants of a gateway.

    Args:
        tenants: by name; without any there is one, DEFAULT, without a quota of its own, and no key is asked for.
        hashes: SHA-256 of a key, in hexadecimal digits -> name of its tenant.
        header: name of the header that names tenants, in lower case; "" where none does.
        values: value of that header -> name of its tenant.
        quotas: of the gateway as a whole.
        tokens_per_byte: the most tokens that a byte of a request's body can be, for the bound on its prompt. 1 holds
            for text whatever the tokenizer; less takes up less of a quota while a request is open.
    """

    def __init__(
        self,
        tenants: Collection[Tenant] = (),
        *,
        hashes: Mapping[str, str] | None = None,
        header: str = "",
        values: Mapping[str, str] | None = None,
        quotas: Quotas | None = None,
        tokens_per_byte: float = 1.0,
    ) -> None:
        self.all = tuple(tenants) or (Tenant(DEFAULT),)
        self.quotas: Quotas = dict(quotas or {})
        self.header = header
        self.tokens_per_byte = tokens_per_byte
        self.is_open = not tenants  # no key is asked for
        by_name = {tenant.name: tenant for tenant in self.all}
        self._by_value = {value: by_name[name] for value, name in (values or {}).items()}
        self._by_start: dict[bytes, list[tuple[bytes, Tenant]]] = {}
        for text, name in (hashes or {}).items():
            digest = bytes.fromhex(text)
            self._by_start.setdefault(digest[:2], []).append((digest, by_name[name]))

    @classmethod
    def read(cls, path: Path | str) -> Self:
        """Reads a TOML file.

        Raises:
            FileError: it cannot be read.
            InvalidInputError: everything that is wrong with it, at once. Keys and their hashes are not repeated.
        """
        path = Path(path)
        problems = Problems(str(path))
        with reaching(path, "read"):
            content = path.read_bytes()
        try:
            tables = parse_toml(content)
        except ValueError as error:
            problems.add("", f"is not TOML: {_without_hashes(str(error))}")
            problems.raise_any()
            raise AssertionError from None
        found = _Reader(problems).read(tables)
        problems.raise_any()
        return cls(**found)

    def of(self, headers: Mapping[str, str]) -> Tenant | None:
        """Whose request has these headers, names in lower case; None: nobody's (401).

        A key counts before the naming header: `Authorization: Bearer KEY`, then `x-api-key`.
        """
        if self.is_open:
            return self.all[0]
        scheme, _, given = headers.get("authorization", "").partition(" ")
        for key in (given.strip() if scheme.lower() == "bearer" else "", headers.get("x-api-key", "").strip()):
            if key and (tenant := self._of_key(key)):
                return tenant
        return self._by_value.get(headers.get(self.header, "")) if self.header else None

    def _of_key(self, key: str) -> Tenant | None:
        """Compares whole hashes in constant time; the two bytes they are found by say nothing of the key."""
        digest, found = digest_of(key), None
        for known, tenant in self._by_start.get(digest[:2], ()):
            if hmac.compare_digest(known, digest):
                found = tenant
        return found


def new_key(name: str) -> tuple[str, str]:
    """`(a new key, the lines for the file)` of the tenant `name`; the key is shown once and kept nowhere.

    A key has 256 random bits, so its plain hash cannot be searched.

    Raises:
        InvalidInputError: a name that the file could not hold.
    """
    problems = Problems("the name of a tenant")
    if not _NAME.fullmatch(name):
        problems.add("", _NAMES)
    problems.raise_any()
    key = KEY_PREFIX + secrets.token_urlsafe(32)
    table = f'"{name}"' if "." in name else name
    return key, f'[tenants.{table}]\nkey_sha256 = "{digest_of(key).hex()}"\n'


def digest_of(key: str) -> bytes:
    """What is kept of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


_NAMES = "must be of letters, digits, '.', '_' and '-', begin with a letter or digit, and be no longer than 64"


class _Reader:
    """Takes the tables of a file apart and notes all that is wrong."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._tenants: list[Tenant] = []
        self._hashes: dict[str, str] = {}
        self._values: dict[str, str] = {}

    def read(self, tables: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of `Tenants`."""
        self._keys("", tables, ("gateway", "tenants"), "table")
        gateway = self._table("gateway", tables.get("gateway", {}))
        self._keys("[gateway]", gateway, _GATEWAY_KEYS, "key")
        header = gateway.get("header", "")
        if "header" in gateway and not (isinstance(header, str) and _HEADER.fullmatch(header.lower())):
            self._problems.add("[gateway]", f"header must be the name of a header, not {header!r}")
            header = ""
        tenants = self._table("tenants", tables.get("tenants", {}))
        if not tenants and not len(self._problems):
            self._problems.add("", "has no tenants; add a table [tenants.NAME] for each")
        for name, table in tenants.items():
            self._tenant(name, table, has_header=bool(header))
        return {
            "tenants": self._tenants,
            "hashes": self._hashes,
            "header": header.lower(),
            "values": self._values,
            "quotas": self._quotas("[gateway]", gateway),
            "tokens_per_byte": self._number("[gateway]", gateway, "tokens_per_byte"),
        }

    def _tenant(self, name: str, table: Any, *, has_header: bool) -> None:
        place = f"[tenants.{name[:64]}]"
        if not _NAME.fullmatch(name):
            self._problems.add(place, f"its name {_NAMES}")
        table = self._table(place.strip("[]"), table)
        self._keys(place, table, _TENANT_KEYS, "key")
        self._known_by(place, name, table, has_header=has_header)
        ceiling = table.get("ceiling")
        if not (ceiling is None or (isinstance(ceiling, str) and ceiling) or _is_whole(ceiling, 0)):
            self._problems.add(place, f"ceiling must be a number of tokens or an option's name, not {ceiling!r}")
        models = table.get("models", [])
        if not isinstance(models, list) or not all(isinstance(model, str) and model for model in models):
            self._problems.add(place, f"models must be a list of names, not {models!r}")
            models = []
        elif "models" in table and not models:
            self._problems.add(place, "models is an empty list, so nothing could be asked; leave it out to allow all")
        weight = self._number(place, table, "weight")
        self._tenants.append(Tenant(name, weight, self._quotas(place, table), ceiling, tuple(models)))

    def _known_by(self, place: str, name: str, table: Mapping[str, Any], *, has_header: bool) -> None:
        if ("key_sha256" in table) == ("header" in table):
            both = "both are" if "header" in table else "neither is"
            self._problems.add(place, f"must be known by key_sha256 or by header, one of the two; {both} given")
        if "header" in table:
            value = table["header"]
            if not (isinstance(value, str) and value and value == value.strip() and value.isprintable()):
                self._problems.add(place, f"header must be a text, the value of the naming header, not {value!r}")
            elif not has_header:
                self._problems.add(place, "has a header, and [gateway] does not say which: header = 'x-team'")
            elif value in self._values:
                self._problems.add(place, f"header {value!r} is already that of [tenants.{self._values[value]}]")
            else:
                self._values[value] = name
        if "key_sha256" not in table:
            return
        hashes = table["key_sha256"]
        hashes = [hashes] if isinstance(hashes, str) else hashes
        if not isinstance(hashes, list) or not hashes:
            self._problems.add(place, "key_sha256 must be the SHA-256 of a key, or a list of them")
            return
        for number, text in enumerate(hashes, start=1):
            which = f"key_sha256 number {number}" if len(hashes) > 1 else "key_sha256"
            if not isinstance(text, str) or not _HASH.fullmatch(text):
                hint = "; that looks like the key itself" * (isinstance(text, str) and text.startswith(KEY_PREFIX))
                self._problems.add(place, f"{which} must be the 64 hexadecimal digits of a SHA-256{hint}")
            elif (owner := self._hashes.setdefault(text.lower(), name)) != name:
                self._problems.add(place, f"{which} is already that of [tenants.{owner}]")

    def _table(self, place: str, value: Any) -> Mapping[str, Any]:
        if isinstance(value, dict):
            return value
        self._problems.add(f"[{place}]", "must be a table")
        return {}

    def _keys(self, place: str, table: Mapping[str, Any], known: Collection[str], noun: str) -> None:
        for key in table:
            if key not in known:
                self._problems.add(place, unknown_name_message(noun, key[:64], known))

    def _quotas(self, place: str, table: Mapping[str, Any]) -> dict[str, int]:
        found = {}
        for key, window in QUOTA_KEYS.items():
            if key not in table:
                continue
            if _is_whole(table[key], 1) and table[key] <= MOST_TOKENS:
                found[window] = int(table[key])
            else:
                self._problems.add(place, f"{key} must be a whole number from 1 to 10^15, not {table[key]!r}")
        return found

    def _number(self, place: str, table: Mapping[str, Any], key: str) -> float:
        value = table.get(key, 1.0)
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if is_number and 0.001 <= value <= 1000.0:
            return float(value)
        self._problems.add(place, f"{key} must be a number from 0.001 to 1000, not {value!r}")
        return 1.0


def _is_whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _without_hashes(text: str) -> str:
    return re.sub(r"[0-9a-zA-Z_-]{24,}", "…", text)
