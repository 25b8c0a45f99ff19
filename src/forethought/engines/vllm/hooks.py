"""Hidden states by forward hooks on the decoder layers: no cost while generating, but only where hooks are called.

A compiled graph calls none and raises nothing; vLLM's second model runner keeps its batch elsewhere. Both are told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import EngineError
from ...types import FloatArray

ELSEWHERE = (
    "start it with --engine-option feature_layers=[K] (states of layer K come from vLLM's own cache then), or read "
    "features with --engine transformers"
)


def install(worker: Any, layers: tuple[int, ...], caught: dict[str, dict[int, Any]]) -> Callable[[], None]:
    """Runs in vLLM's worker: catches each request's last prompt token at `layers`.

    Args:
        worker: vLLM's.
        layers: layer k is the residual stream after k decoder layers.
        caught: request id -> layer -> state, filled as prompts pass.

    Returns:
        What takes the hooks off.

    Raises:
        EngineError: this vLLM's model runner or model cannot be read.
    """
    runner = worker.model_runner
    if not hasattr(runner, "query_start_loc") or not hasattr(runner, "input_batch"):
        raise EngineError(
            f"this vLLM uses a model runner ({type(runner).__module__}) whose batch hooks cannot read, so they give no "
            f"hidden states; {ELSEWHERE}"
        )
    decoder: Any = getattr(runner.get_model(), "model", None)
    if not hasattr(decoder, "layers") or not hasattr(decoder, "embed_tokens"):
        raise EngineError(f"hooks find no decoder layers in {type(runner.get_model()).__name__}; {ELSEWHERE}")
    handles = []

    def catch(layer: int, output: Any) -> None:
        stream = output[0] + output[1] if isinstance(output, tuple) and output[1] is not None else output
        stream = stream[0] if isinstance(stream, tuple) else stream
        request_ids = runner.input_batch.req_ids
        ends = runner.query_start_loc.np[1 : len(request_ids) + 1] - 1
        for request_id, row in zip(request_ids, ends, strict=True):
            name = request_id.rpartition("-")[0] or request_id
            caught.setdefault(name, {})[layer] = stream[int(row)].float().cpu().numpy().copy()

    for layer in layers:
        module = decoder.embed_tokens if layer == 0 else decoder.layers[layer - 1]
        handles.append(module.register_forward_hook(lambda _module, _args, output, layer=layer: catch(layer, output)))

    def remove() -> None:
        for handle in handles:
            handle.remove()

    return remove


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
