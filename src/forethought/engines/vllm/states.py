"""Hidden states of prompts from a running vLLM: by hooks on its decoder layers, or by its own connector.

Hooks cost nothing while generating, but a compiled graph calls none and raises nothing, and vLLM's second model runner
keeps its batch elsewhere; both are reported. The connector (`extract_hidden_states`) stores states in the cache next to
keys and values and writes them to files. By its documentation it works with compiled graphs and either model runner
(tried only on a CPU). Its layers are fixed when vLLM starts, each takes memory for every cached token, and every
decoding step also computes one unused token. It is therefore used only if hooks are not called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...core.data import FloatArray
from ...errors import EngineError
from ..hooks import install_hooks

ELSEWHERE = (
    "start it with --engine-option feature_layers=[K] (states of layer K come from vLLM's own cache then), or read "
    "features with --engine transformers"
)
CONNECTOR = "PromptStates"
ONE_TOKEN: dict[str, Any] = {"temperature": 0.0, "max_tokens": 1}
WRITTEN = {**ONE_TOKEN, "extra_args": {"kv_transfer_params": {"hidden_states": True}}}
MOST_STEPS = 1000  # to wait for a file

Whole = Callable[[Sequence[list[int]], Sequence[dict[str, Any]]], list[Any]]
"""Prompts and their parameters -> vLLM's outputs, all finished, in their order."""


def by_hooks(llm: Any, whole: Whole, prompts: Sequence[list[int]], layers: Sequence[int]) -> list[FloatArray]:
    """The states of each prompt's last token, shape (L, D).

    Raises:
        EngineError: this vLLM's model runner or model cannot be read, runs in other processes, or called no hook.
    """
    if (num_workers := llm.llm_engine.vllm_config.parallel_config.world_size) > 1:
        raise EngineError(
            f"the model runs in {num_workers} processes, whose hooks are not seen in this one; {ELSEWHERE}"
        )
    caught: dict[str, dict[int, Any]] = {}
    removers = llm.collective_rpc(install, args=(tuple(layers), caught))
    try:
        outputs = whole(prompts, [ONE_TOKEN] * len(prompts))
    finally:
        for remove in removers:
            remove()
    return [states(caught, output.request_id, layers) for output in outputs]


def install(worker: Any, layers: tuple[int, ...], caught: dict[str, dict[int, Any]]) -> Callable[[], None]:
    """Runs in vLLM's worker: fills `caught` (request id -> layer -> state); returns what takes the hooks off."""
    try:
        return install_hooks(worker, layers, lambda request_id: caught.setdefault(request_id, {}))
    except EngineError as error:
        raise EngineError(f"{error}; {ELSEWHERE}") from None


def states(caught: Mapping[str, Mapping[int, Any]], request_id: str, layers: Sequence[int]) -> FloatArray:
    """What was caught of one request, shape (L, D).

    Raises:
        EngineError: nothing was, although the prompt has passed: the model runs as a compiled graph.
    """
    found = caught.get(request_id, {})
    if missing := [layer for layer in layers if layer not in found]:
        raise EngineError(
            f"the prompt passed layer {missing[0]} and no hook was called: vLLM runs the model as a compiled graph; "
            f"leave enforce_eager on, or {ELSEWHERE}"
        )
    stacked: FloatArray = np.stack([found[layer] for layer in layers])
    return stacked


def connector_settings(layers: Sequence[int], folder: Path) -> dict[str, Any]:
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


def by_connector(
    step: Callable[[], None], whole: Whole, prompts: Sequence[list[int]], columns: Sequence[int]
) -> list[FloatArray]:
    """The same from files that vLLM writes; `columns` are those of the layers that it was started with.

    Raises:
        EngineError: they are not written.
    """
    outputs = whole(prompts, [WRITTEN] * len(prompts))
    paths = [Path(output.kv_transfer_params["hidden_states_path"]) for output in outputs]
    for _ in range(MOST_STEPS):  # a file is written in a later step than the one that finishes its request
        if all(path.exists() for path in paths):
            return [
                _read(path, len(output.prompt_token_ids) - 1, columns)
                for path, output in zip(paths, outputs, strict=True)
            ]
        step()
    raise EngineError("vLLM has not written the hidden states that it was started for; use hidden=hooks")


def _read(path: Path, row: int, columns: Sequence[int]) -> FloatArray:
    """The states of one token from a file, which is waited for and removed."""
    from vllm.distributed.kv_transfer.kv_connector.v1.example_hidden_states_connector import (
        cleanup_hidden_states,
        load_hidden_states,
    )

    hidden_T_L_D = load_hidden_states(str(path))["hidden_states"]
    found: FloatArray = hidden_T_L_D[row, list(columns)].float().numpy().copy()
    cleanup_hidden_states(str(path))
    return found
