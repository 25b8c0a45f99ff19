"""How many parameters work on each token of a model: what its arithmetic is counted in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Parameters outside the embeddings, from the published configurations.
KNOWN = {"qwen2.5-coder-0.5b": 357_898_112, "qwen2.5-coder-1.5b": 1_310_340_608}


KNOWN_LAYERS = {"qwen2.5-coder-0.5b": 24, "qwen2.5-coder-1.5b": 28}


def known_layers(name: str) -> int | None:
    """Decoder layers of a built-in alias or of a folder with a config; None where that takes fetching."""
    try:
        config = json.loads((Path(name) / "config.json").read_text("utf-8"))
        return int(config.get("text_config", config)["num_hidden_layers"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return KNOWN_LAYERS.get(name)


def num_parameters(name: str | None) -> int | None:
    """Parameters outside the embeddings, of a built-in alias or of a folder with a config of a usual decoder.

    None where it is not known without fetching anything.
    """
    if name is None:
        return None
    if name in KNOWN:
        return KNOWN[name]
    try:
        config = json.loads((Path(name) / "config.json").read_text("utf-8"))
        return count(config)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def longest_context(folder: Path) -> int | None:
    """Tokens that the model in `folder` was made for, by its config.json; None where that does not say."""
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        found = config.get("text_config", config)["max_position_embeddings"]
        return found if isinstance(found, int) and found > 0 else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
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
