"""Loaded by vLLM, by name: writes the hidden states of the requested prompts only, also on a CPU."""

from __future__ import annotations

import os
from typing import Any

import torch
from vllm.distributed.kv_transfer.kv_connector.v1.example_hidden_states_connector import (
    ExampleHiddenStatesConnector,
    extract_from_kv_cache,
)


class _Done:
    """A copy that is over: what stands for a CUDA event on a CPU."""

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        return None


class PromptStates(ExampleHiddenStatesConnector):  # type: ignore[misc]
    """vLLM's example connector, which writes a file for every request and needs CUDA, without both."""

    def build_connector_meta(self, scheduler_output: Any) -> Any:
        """Prepares no file for requests that did not ask: a lock for each would stay to the end."""
        meta = super().build_connector_meta(scheduler_output)
        for request in scheduler_output.scheduled_new_reqs:
            extra = request.sampling_params.extra_args if request.sampling_params else None
            if not ((extra or {}).get("kv_transfer_params") or {}).get("hidden_states"):
                meta.new_req_filenames.pop(request.req_id, None)
        return meta

    def request_finished(self, request: Any, block_ids: list[int]) -> tuple[bool, dict[str, Any] | None]:
        """Writes nothing for requests that did not ask: their blocks are free at once."""
        if not (request.kv_transfer_params or {}).get("hidden_states"):
            self._request_filenames.pop(request.request_id, None)
            return False, None
        found: tuple[bool, dict[str, Any] | None] = super().request_finished(request, block_ids)
        return found

    def _submit_async_write(self, pending: Any) -> None:
        """On a CPU there is nothing to copy to the host: the file is written at once."""
        if self._kv_cache is None or self._kv_cache.device.type != "cpu":
            super()._submit_async_write(pending)
            return
        blocks = torch.tensor(pending.block_ids, dtype=torch.long)
        slots = (blocks[:, None] * self._block_size + torch.arange(self._block_size)).flatten()
        hidden_T_L_D = extract_from_kv_cache(self._kv_cache, slots, len(pending.token_ids)).contiguous()
        os.makedirs(os.path.dirname(pending.filename), exist_ok=True)
        tensors = {"hidden_states": hidden_T_L_D, "token_ids": pending.token_ids.clone()}
        self._write_tensors(tensors, _Done(), pending.filename, self._lock_fds.pop(pending.req_id, None))
        self._req_copy_events[pending.req_id] = _Done()
