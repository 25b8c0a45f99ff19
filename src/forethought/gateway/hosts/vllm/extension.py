"""What vLLM's workers are taught, where the predictor reads hidden states: to keep those of our own prefills."""

from __future__ import annotations

from typing import Any

from ....engines.hooks import install_hooks

PREFIX = "forethought-"  # of the names of our prefills; no other request's states are copied
MAX_KEPT = 1024  # prefills whose states nobody has taken, as of clients that went away; the oldest go first


class HiddenStates:
    """vLLM mixes this into its worker: `--worker-extension-cls forethought.gateway.HiddenStates`.

    Hooks are skipped by compiled graphs, so it needs --enforce-eager; the plug-in checks at start that they are called.
    """

    _forethought_caught: dict[str, dict[int, Any]]
    _forethought_layer: int | None = None

    def forethought_watch(self, layer: int) -> str:
        """Installs the hook, once for all API servers of the engine; returns "" or why it cannot be."""
        if self._forethought_layer == layer:
            return ""
        self._forethought_caught = {}
        try:
            install_hooks(self, (layer,), self._forethought_place)
        except Exception as error:  # whatever model or runner this is: the server says so and does not start
            return f"{type(error).__name__}: {error}"
        self._forethought_layer = layer
        return ""

    def forethought_take(self, name: str, layer: int) -> bytes | None:
        """The float32 state of the prefill submitted as `name`, which is then forgotten; None if it was not caught."""
        caught = self._forethought_caught.pop(name, {}).get(layer)
        return None if caught is None else bytes(caught.tobytes())

    def _forethought_place(self, name: str) -> dict[int, Any] | None:
        if not name.startswith(PREFIX):
            return None
        if name not in self._forethought_caught and len(self._forethought_caught) >= MAX_KEPT:
            del self._forethought_caught[next(iter(self._forethought_caught))]
        return self._forethought_caught.setdefault(name, {})
