"""The memory that an in-process engine needs, reported before it is used, and the free memory."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ModelFileError
from ..models.config import config_of
from ..models.weights import weight_files

logger = logging.getLogger(__name__)

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")


def token_bytes(config: Mapping[str, Any], dtype: str) -> int | None:
    """Bytes that the keys and values of one token take, by the model's config.json; None where that does not say."""
    config = config.get("text_config", config)
    try:
        heads = config["num_attention_heads"]
        width = config.get("head_dim") or config["hidden_size"] // heads
        key_values = config.get("num_key_value_heads") or heads
        return int(2 * config["num_hidden_layers"] * key_values * width * BYTES[dtype])
    except (KeyError, TypeError, ZeroDivisionError):
        return None


def loaded_bytes(folder: Path, dtype: str) -> int | None:
    """Bytes that the weights take once they are loaded as `dtype`; None where they cannot be read."""
    try:
        stored = sum(file.stat().st_size for file in weight_files(folder))
    except (OSError, ModelFileError):
        return None
    config = config_of(folder)
    kept = config.get("dtype") or config.get("torch_dtype") or "float32"
    return round(stored * BYTES.get(dtype, 2) / BYTES.get(str(kept), 4))


def free_bytes() -> int | None:
    """Free memory of this machine or container; None if it cannot be determined."""
    found = []
    try:
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines() if ":" in line)
        found.append(int(lines["MemAvailable"].split()[0]) * 1024)
    except (OSError, ValueError, KeyError, IndexError):
        pass
    try:
        limit, taken = (int((CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        found.append(max(0, limit - taken))
    except (OSError, ValueError):  # no such file, or "max": no limit of its own
        pass
    return min(found, default=None)


def announce(name: str, weights: int | None, cache: int | None, *, how: str, free: int | None) -> None:
    """Says what will be taken; warns where that is more than there is.

    Args:
        name: the model's.
        weights: their bytes, or None.
        cache: most bytes of keys and values, or None.
        how: the option that makes the cache smaller, in words.
        free: bytes that are free, or None.
    """
    if weights is None:
        return
    parts = f"{weights / 1e9:.1f} GB for weights"
    if cache is not None:
        parts += f" and up to {cache / 1e9:.1f} GB for keys and values ({how})"
    if free is None:
        logger.info("%s takes %s", name, parts)
    elif weights + (cache or 0) > free:
        logger.warning(
            "warning: %s takes %s, and %.1f GB are free: the system may kill this process. Results on "
            "disk are kept, and the same command resumes",
            name,
            parts,
            free / 1e9,
        )
    else:
        logger.info("%s takes %s; %.1f GB are free", name, parts, free / 1e9)
