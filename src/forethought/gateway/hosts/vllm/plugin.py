"""The entry point `forethought` of vLLM's group `vllm.endpoint_plugins`; loaded only where VLLM_PLUGINS names it.

vLLM logs and leaves out a plug-in that fails while it is imported or made, and then serves without budgets. So neither
can fail here: everything that may be wrong is found in `attach_router` and `init_state`, which stop the server.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ...opening import Prepared
    from ...policy import Policy


class Plugin:
    """What vLLM asks of an endpoint plug-in.

    Attributes:
        name: as VLLM_PLUGINS names it.
        required_tasks: None, so that a server that does not generate is refused in words and not skipped.
    """

    name = "forethought"
    required_tasks = None

    def __init__(self) -> None:
        self._prepared: Prepared | None = None
        self._policy: Policy | None = None

    def attach_router(self, app: Any) -> None:
        """Reads the settings and the predictor, puts the budgets before vLLM's routes, adds `/forethought/status`."""
        from ...middleware import Budgets
        from ...opening import prepare

        self._prepared = prepare(os.environ)
        app.add_middleware(Budgets, policy=lambda: self._policy)
        app.add_api_route("/forethought/status", self.status, methods=["GET"])

    async def init_state(self, engine_client: Any, state: Any, args: Any) -> None:
        """Looks whether this server keeps budgets, and measures how; raises EngineError where it does not."""
        from ...opening import open_policy
        from .host import VllmHost

        assert self._prepared is not None
        self._policy = await open_policy(self._prepared, VllmHost(engine_client, state))

    async def status(self) -> dict[str, Any]:
        """What was set up and what was done since, of this server process."""
        assert self._policy is not None
        assert self._prepared is not None
        policy = self._policy
        counts = {**policy.metrics.to_json(), "usage": policy.watch.to_json()}
        return {**self._prepared.to_json(), "cap_offset": policy.offset, **counts}
