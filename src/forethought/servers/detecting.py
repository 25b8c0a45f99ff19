"""Detects the kind of a server, and how that was determined."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..core.registry import unknown_name_message
from ..errors import EngineError, InvalidSettingsError
from .address import KEY_HINT, Address
from .kinds import KINDS, ServerKind
from .retrying import RequestError
from .tokens import whole

if TYPE_CHECKING:
    from .client import Client  # whose library may be missing where nothing is asked

logger = logging.getLogger(__name__)

MOST_SHOWN = 20  # names of models in a message
HOSTS = {
    "api.openai.com": "openai",
    "generativelanguage.googleapis.com": "gemini",
    "api.anthropic.com": "anthropic",
}
OWNERS = {
    "vllm": "vllm",
    "sglang": "sglang",
    "llamacpp": "llama.cpp",
    "tensorrt_llm": "tensorrt-llm",
    "nvidia": "dynamo",
}
BEHIND = {"hosted_vllm": "vllm"}  # what LiteLLM calls a server whose own fields it passes on


@dataclass(frozen=True, slots=True)
class Server:
    """A server that answered.

    Attributes:
        kind: its row in the table.
        how: by what its kind was told.
        version: its own word for it; None where it does not say.
        models: names it serves; empty where it does not say.
        context_tokens: the longest prompt + answer it takes; None where it does not say.
        tokenizes: whether it turns text into token ids and back.
    """

    kind: ServerKind
    how: str
    version: str | None = None
    models: tuple[str, ...] = ()
    context_tokens: int | None = None
    tokenizes: bool = False

    @property
    def name(self) -> str:
        """Kind and version, as records keep them."""
        return f"{self.kind.name} {self.version}" if self.version else self.kind.name

    def check_serves(self, model: str) -> None:
        """Holds `model` ("" for none) against the names that the server lists, where it lists any.

        Where a kind of server is known to list all that it takes, another name raises EngineError; else it is tried,
        which costs nothing where it is refused, and said.
        """
        if not model or not self.models or model in self.models:
            return
        shown = self.models if len(self.models) <= MOST_SHOWN else difflib.get_close_matches(model, self.models, 5, 0.5)
        unknown = unknown_name_message("model of this server", model, shown or self.models[:MOST_SHOWN])
        hint = "If one of them is that model under another name: --served-model NAME"
        if self.kind.lists_all:
            raise EngineError(f"{unknown} {hint}")
        logger.warning(
            "%s It is tried anyway, since such servers accept names that they do not list. %s", unknown, hint
        )


async def detect(client: Client, kind: str = "", model: str = "") -> Server:
    """Asks a server what it is.

    Args:
        client: talks to it.
        kind: a name of `KINDS` to believe instead of what the server shows; "" for none.
        model: the model's name there; "" for any.

    Raises:
        EngineError: nothing answers there.
        InvalidSettingsError: no such kind.
    """
    if kind and kind not in KINDS:
        raise InvalidSettingsError(f"--engine-option server: {unknown_name_message('kind of server', kind, KINDS)}")
    try:
        return await _detected(client, kind, model)
    except RequestError as error:
        raise _unusable(client, error) from None


async def _detected(client: Client, kind: str, model: str) -> Server:
    address = client.address
    models = await client.ask("GET", address.api("models"))
    version = await _beside(client, address.root("version"))
    props = await _beside(client, address.root("props")) if models is None or version is None else None
    is_known = version is not None or props is not None or address.host in HOSTS
    proxied = None if is_known else _proxied(await _beside(client, address.api("model/info")), model)
    if models is None and address.host not in HOSTS:
        is_open = version is not None or props is not None  # these routes, also to a client without a key
        await _reach(client, is_open=is_open)
        if not is_open:
            await _look_around(client)
    entries = _entries(models)
    if kind:
        name, how = kind, "asked for"
    elif proxied is not None:
        name, how = BEHIND.get(proxied, "litellm"), f"a LiteLLM proxy in front of {proxied}"
    else:
        name, how = _told(address.host, entries, version, props)
    if name == "sglang" and version is None:
        version = await _beside(client, address.root("server_info"))
    row = KINDS[name]
    if proxied is not None:  # it passes fields on, but takes no token ids and means something else by a priority
        row = replace(row, ids="", has_priority=False)
    return Server(
        kind=row,
        how=how,
        version=_version(version, props),
        models=tuple(str(entry["id"]) for entry in entries if entry.get("id")),
        context_tokens=_context([entry for entry in entries if entry.get("id") == model] or entries, props),
        tokenizes=bool(row.ids) and await _tokenizes(client, row, entries),
    )


async def _beside(client: Client, url: str, body: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """What a route says that not every server has; None where it is none, also where a proxy answers 5xx for those."""
    try:
        return await client.ask("GET" if body is None else "POST", url, body)
    except RequestError as error:
        if error.status is None:
            raise
        return None


async def _reach(client: Client, *, is_open: bool) -> None:
    """Raises EngineError when the list of models cannot be had for a reason other than that there is none.

    Where other routes of the server answer (`is_open`), only the lack of a key is such a reason.
    """
    try:
        await client.get(client.address.api("models"))
    except RequestError as error:
        if error.status == 401:
            raise EngineError(f"{client.address} refuses the list of its models: {error}. {KEY_HINT}") from None
        if not is_open and error.status != 404:
            raise _unusable(client, error) from None


async def _look_around(client: Client) -> None:
    """Raises EngineError where the routes lie beside the address that was given, such as with or without its /v1."""
    path = client.address.path
    beside = (f"{path}/v1", path.rpartition("/")[0], "/v1", "")
    for other in dict.fromkeys(other for other in beside if other != path and not other.endswith("/v1/v1")):
        try:
            found = await client.ask("GET", f"{client.address.origin}{other}/models")
        except RequestError:
            continue
        if _entries(found):
            right = Address(client.address.origin, other)
            raise EngineError(f"nothing answers at {client.address}, but at {right}: --base-url {right}")


def _unusable(client: Client, error: RequestError) -> EngineError:
    return EngineError(
        f"no server answers at {client.address}: {str(error).removesuffix('?')}. Is it running? Check with: "
        f"forethought doctor --base-url {client.address}"
    )


def _entries(models: dict[str, Any] | None) -> list[dict[str, Any]]:
    data = (models or {}).get("data")
    return [entry for entry in data if isinstance(entry, dict)] if isinstance(data, list) else []


def _proxied(info: dict[str, Any] | None, model: str) -> str | None:
    """What a LiteLLM proxy passes `model` on to, in its own words; None where this is no such proxy."""
    data = (info or {}).get("data")
    rows = [row for row in data if isinstance(row, dict) and "litellm_params" in row] if isinstance(data, list) else []
    rows = [row for row in rows if row.get("model_name") == model] or rows
    if not rows:
        return None
    params = [row["litellm_params"] for row in rows if isinstance(row["litellm_params"], dict)]
    providers = {str(each.get("model", "")).partition("/")[0] or "?" for each in params}
    return " and ".join(sorted(providers)) or "?"


def _told(
    host: str, entries: list[dict[str, Any]], version: dict[str, Any] | None, props: dict[str, Any] | None
) -> tuple[str, str]:
    """`(kind, by what)`."""
    if host in HOSTS:
        return HOSTS[host], f"the host is {host}"
    owners = {str(entry.get("owned_by"))[:100] for entry in entries}
    for owner, name in OWNERS.items():
        if owner in owners:
            return name, f"its models are owned by {owner!r}"
    if props is not None and "default_generation_settings" in props:
        return "llama.cpp", "it has /props with default_generation_settings"
    if version is not None and entries and "max_model_len" in entries[0]:
        return "vllm", "it has /version, and its models a max_model_len"
    return "other", "nothing about it is known"


def _version(version: dict[str, Any] | None, props: dict[str, Any] | None) -> str | None:
    found = (version or {}).get("version") or (props or {}).get("build_info")
    return str(found)[:100] if found else None


def _context(entries: list[dict[str, Any]], props: dict[str, Any] | None) -> int | None:
    settings = (props or {}).get("default_generation_settings")
    found = [entry.get("max_model_len", entry.get("max_input_tokens")) for entry in entries]
    found.append(settings.get("n_ctx") if isinstance(settings, dict) else None)
    lengths = [length for each in found if (length := whole(each))]
    return min(lengths) if lengths else None


async def _tokenizes(client: Client, kind: ServerKind, entries: list[dict[str, Any]]) -> bool:
    turns = [{"role": "user", "content": "a"}]  # older SGLang takes texts there, and no turns
    text = {"content": "a"} if kind.ids == "llama.cpp" else {"messages": turns, "add_generation_prompt": True}
    model = {"model": entries[0]["id"]} if entries and entries[0].get("id") else {}
    found = await _beside(client, client.address.root("tokenize"), {**text, **model})
    return found is not None and isinstance(found.get("tokens"), list)
