"""A GGUF file -> a Hugging Face folder with bfloat16 weights. The only model file that needs torch."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from ..errors import MissingExtraError, ModelFileError

PACKAGES = ("accelerate", "gguf", "torch", "transformers")


def require_packages(label: str) -> None:
    """Raises MissingExtraError when `convert` could not run; imports nothing."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"model {label!r} has to be converted once, which needs {', '.join(missing)}; not installed. "
            "Install it with: pip install 'forethought[transformers]'"
        )


def convert(gguf: Path, folder: Path) -> None:
    """Writes config, weights and tokenizer of the model in `gguf` into `folder`.

    Raises:
        ModelFileError: transformers cannot read the file, or what came out has no chat template or end token.
    """
    import torch
    import transformers

    from .quiet import no_progress_bars

    read: dict[str, Any] = {"gguf_file": gguf.name}
    try:
        with no_progress_bars():  # one for each of hundreds of tensors
            model = transformers.AutoModelForCausalLM.from_pretrained(
                gguf.parent, dtype=torch.bfloat16, **read, **_dequantizing()
            )
            model.save_pretrained(folder)
            tokenizer = transformers.AutoTokenizer.from_pretrained(gguf.parent, **read)
            tokenizer.save_pretrained(folder)
    except (OSError, RuntimeError, ValueError, KeyError, ImportError) as error:
        raise ModelFileError(f"transformers {transformers.__version__} cannot convert {gguf}: {error}") from error
    # Without these two every prompt and every stop would silently differ from the published model's.
    if not tokenizer.chat_template or tokenizer.eos_token_id is None or model.generation_config.eos_token_id is None:
        raise ModelFileError(
            f"transformers {transformers.__version__} lost the chat template or the end token of {gguf}; "
            "try another version of it"
        )


def _dequantizing() -> dict[str, Any]:
    try:
        from transformers.utils.quantization_config import GgufConfig
    except ImportError:  # older versions always dequantize
        return {}
    return {"quantization_config": GgufConfig(dequantize=True)}
