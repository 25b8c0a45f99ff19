"""LiteLLM's hook: `litellm_settings: {callbacks: forethought.integrations.litellm.hook}`; see docs/gateway.md."""

from __future__ import annotations

from typing import Any

from ..gateway.hosts.litellm import Hook

__all__ = ["Hook", "hook"]

hook: Hook


def __getattr__(name: str) -> Any:
    """`hook`, made by the environment's variables when it is first asked for."""
    if name != "hook":
        raise AttributeError(name)
    made = globals()["hook"] = Hook()
    return made
