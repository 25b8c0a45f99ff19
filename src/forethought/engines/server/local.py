"""A model's tokenizer from local files, for servers that have none to ask."""

from __future__ import annotations

from typing import Any

from ...errors import EngineError
from ...models import locate


def load_tokenizer(name: str) -> Any:
    """The Hugging Face tokenizer of an alias, a folder or a hub id."""
    import transformers

    path = locate(name).path
    try:
        return transformers.AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise EngineError(f"the tokenizer in {path} did not load: {error}") from error
