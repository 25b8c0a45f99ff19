"""Hidden states by vLLM's own `extract_hidden_states`: kept in the cache beside keys and values, written to files.

It works with compiled graphs and with either model runner, as its documents say; here it was tried on a CPU alone. The
layers are fixed when vLLM starts, each costs memory for every cached token, and every decoding step also checks one
token that nobody wants: so it is for where hooks are not called.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...core.data import FloatArray

CONNECTOR = "PromptStates"
WANTED = {"kv_transfer_params": {"hidden_states": True}}  # extra arguments of a request whose states are to be written


def settings(layers: Sequence[int], folder: Path) -> dict[str, Any]:
    """What `vllm.LLM` is started with, so that states of `layers` can be had as files in `folder`."""
    return {
        "speculative_config": {
            "method": "extract_hidden_states",
            "num_speculative_tokens": 1,
            "draft_model_config": {"hf_config": {"eagle_aux_hidden_state_layer_ids": list(layers)}},
        },
        "kv_transfer_config": {
            "kv_connector": CONNECTOR,
            "kv_connector_module_path": "forethought.engines.vllm.connector",
            "kv_role": "kv_producer",
            "kv_connector_extra_config": {"shared_storage_path": str(folder), "use_synchronization_lock": True},
        },
    }


def is_written(output: Any) -> bool:
    """Whether vLLM has begun the file of a finished request; reading it waits for the rest."""
    return Path(output.kv_transfer_params["hidden_states_path"]).exists()


def states(output: Any, columns: Sequence[int]) -> FloatArray:
    """The last prompt token's states from the file that vLLM wrote for a finished request, shape (L, D); removes it.

    Args:
        output: vLLM's output of the request.
        columns: which of the layers that vLLM was started with.
    """
    from vllm.distributed.kv_transfer.kv_connector.v1.example_hidden_states_connector import (
        cleanup_hidden_states,
        load_hidden_states,
    )

    path = output.kv_transfer_params["hidden_states_path"]
    hidden_T_L_D = load_hidden_states(path)["hidden_states"]
    row = len(output.prompt_token_ids) - 1
    found: FloatArray = hidden_T_L_D[row, list(columns)].float().numpy().copy()
    cleanup_hidden_states(path)
    return found
