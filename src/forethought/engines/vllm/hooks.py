"""Hidden states by forward hooks on the decoder layers: no cost while generating, but only where hooks are called.

A compiled graph calls none and raises nothing; vLLM's second model runner keeps its batch elsewhere. Both are told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ...core.data import FloatArray
from ...errors import EngineError
from ..hooks import install_hooks

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
