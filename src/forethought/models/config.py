"""Values of a model's config.json: context length, layers, and the number of parameters used per token."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Parameters outside the embeddings and decoder layers, from the published configurations.
KNOWN = {"qwen2.5-coder-0.5b": 357_898_112, "qwen2.5-coder-1.5b": 1_310_340_608}
KNOWN_LAYERS = {"qwen2.5-coder-0.5b": 24, "qwen2.5-coder-1.5b": 28}


def config_of(folder: str | Path) -> dict[str, Any]:
    """What config.json says, a text model's own part before the rest; empty where it cannot be read."""
    try:
        found = json.loads((Path(folder) / "config.json").read_text("utf-8"))
        return {**found, **(found.get("text_config") or {})}
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        return {}


def known_layers(name: str) -> int | None:
    """Decoder layers of a built-in alias or of a folder with a config; None where that takes fetching."""
    found = config_of(name).get("num_hidden_layers")
    return found if isinstance(found, int) else KNOWN_LAYERS.get(name)


def longest_context(folder: Path) -> int | None:
    """Tokens that the model in `folder` was made for; None where its config does not say."""
    found = config_of(folder).get("max_position_embeddings")
    return found if isinstance(found, int) and found > 0 else None


def num_parameters(name: str | None) -> int | None:
    """Parameters outside the embeddings, of a built-in alias or of a folder with a config of a usual decoder.

    None where it is not known without fetching anything.
    """
    if name is None or name in KNOWN:
        return None if name is None else KNOWN[name]
    try:
        return count(config_of(name))
    except (KeyError, TypeError, ValueError, ArithmeticError):
        return None


def count(config: Mapping[str, Any]) -> int:
    """Of a decoder with gated feed-forward layers and grouped key and value heads, biases and norms included.

    Args:
        config: the model's config.json, with Hugging Face's names.
    """
    width, layers = config["hidden_size"], config["num_hidden_layers"]
    heads = config["num_attention_heads"]
    head = config.get("head_dim") or width // heads
    key_value = config.get("num_key_value_heads", heads) * head
    attention = width * (heads * head) * 2 + 2 * width * key_value
    biases = heads * head + 2 * key_value if str(config.get("model_type", "")).startswith("qwen2") else 0
    return int(layers * (attention + biases + 3 * width * config["intermediate_size"] + 2 * width) + width)
