"""The server behind the gateway as a `Host`."""

from __future__ import annotations

from dataclasses import dataclass

from ....servers.kinds import ServerKind


@dataclass(slots=True)
class UpstreamHost:
    """See `Host`."""

    kind: ServerKind
    models: frozenset[str] = frozenset()
    has_priorities: bool = False  # whether it was started to heed them cannot be seen from outside
    context_tokens: int | None = None
