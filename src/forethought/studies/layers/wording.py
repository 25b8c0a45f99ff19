"""The wording of layers, poolings and the study's sample, the same on plots, on the terminal and in messages."""

from __future__ import annotations

from collections.abc import Sequence

from ...core.terms import percent
from ...report.wording import sample_words
from .results import LayerStudy

POOLING = {"last": "last token", "mean": "mean over the question's tokens"}


def study_words(result: LayerStudy) -> str:
    """The sample, the layers and the poolings of the study."""
    sample = sample_words(result.provenance, result.num_queries, result.num_traces)
    num_layers = len(result.rows) // len(result.verdicts)
    return f"{sample}; {num_layers} layers, {' and '.join(POOLING[pooling] for pooling in result.poolings)}"


def share_words(layer: int, depth: int | None) -> str:
    """A layer with its share of the depth: `layer 18 of 28 (64%)`."""
    return f"layer {layer}" if depth is None else f"layer {layer} of {depth} ({percent(layer / depth, 0)})"


def layers_words(layers: Sequence[int]) -> str:
    """Layers as text: `no layer`, `layer 4`, `layers 0-3, 7, 9-12`."""
    if not layers:
        return "no layer"
    runs: list[list[int]] = []
    for layer in sorted(layers):
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    parts = [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    return f"layer{'s' if len(layers) > 1 else ''} {', '.join(parts)}"
