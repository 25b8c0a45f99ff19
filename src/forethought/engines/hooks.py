"""Forward hooks on the decoder layers of vLLM's first model runner: the last prompt token's residual stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import EngineError


def install_hooks(
    worker: Any, layers: tuple[int, ...], place_of: Callable[[str], dict[int, Any] | None]
) -> Callable[[], None]:
    """Runs in vLLM's worker: catches each request's newest token at `layers`; returns what takes the hooks off.

    A prompt computed in pieces is caught once a piece: what stands at the end is its last token.

    Args:
        worker: vLLM's.
        layers: layer k is the stream after k decoder layers, 0 the embeddings.
        place_of: where to keep what is caught of a request, by the name it was submitted under; None for nowhere.

    Raises:
        EngineError: this vLLM's model runner or model cannot be read.
    """
    runner = worker.model_runner
    if not hasattr(runner, "query_start_loc") or not hasattr(runner, "input_batch"):
        raise EngineError(
            f"this vLLM uses a model runner ({type(runner).__module__}) whose batch hooks cannot read, so they give no "
            f"hidden states"
        )
    decoder: Any = getattr(runner.get_model(), "model", None)
    if not hasattr(decoder, "layers") or not hasattr(decoder, "embed_tokens"):
        raise EngineError(f"hooks find no decoder layers in {type(runner.get_model()).__name__}")
    handles = []

    def catch(layer: int, output: Any) -> None:
        stream = None
        for row, request_id in enumerate(runner.input_batch.req_ids):
            place = place_of(request_id.rpartition("-")[0] or request_id)  # vLLM adds eight digits of its own
            if place is None:
                continue
            stream = _residual(output) if stream is None else stream
            last = int(runner.query_start_loc.np[row + 1]) - 1
            place[layer] = stream[last].float().cpu().numpy().copy()

    for layer in layers:
        module = decoder.embed_tokens if layer == 0 else decoder.layers[layer - 1]
        handles.append(module.register_forward_hook(lambda _module, _args, output, layer=layer: catch(layer, output)))

    def remove() -> None:
        for handle in handles:
            handle.remove()

    return remove


def _residual(output: Any) -> Any:
    """What a decoder layer hands on; some give the stream in two parts that are still to be added."""
    stream = output[0] + output[1] if isinstance(output, tuple) and output[1] is not None else output
    return stream[0] if isinstance(stream, tuple) else stream
