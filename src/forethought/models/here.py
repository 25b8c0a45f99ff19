"""The files of a model that are already on this machine, found without downloading or loading anything."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from .aliases import ALIASES, FOLDER_PER_GGUF, MARKER
from .locating import home, in_hub_cache
from .weights import weight_files


@dataclass(frozen=True, slots=True)
class Here:
    """A model by its name.

    Attributes:
        folder: its folder on this machine; None where it would have to be fetched first.
        num_bytes: of its weights, in memory about as many; None where that is not known.
        fetch_bytes: to be fetched before it can be loaded; 0 where it is here, None where that is not known.
    """

    folder: Path | None
    num_bytes: int | None
    fetch_bytes: int | None

    def tokenizer(self) -> Any | None:
        """Its Hugging Face tokenizer; None where it or what reads it is not here."""
        if self.folder is None:
            return None
        files = [file for file in sorted(self.folder.glob("*.j*")) if file.is_file()]  # no link that leads nowhere
        return _tokenizer(self.folder, tuple(file.stat().st_mtime_ns for file in files))

    def to_text(self) -> str:
        """What has to be fetched and loaded, in words."""
        size = "of unknown size" if self.num_bytes is None else f"{self.num_bytes / 1e9:.1f} GB"
        if self.fetch_bytes == 0:
            return f"{size}, here already"
        fetched = "" if not self.fetch_bytes else f" after a download of {self.fetch_bytes / 1e9:.1f} GB"
        return f"{size}, not here yet: fetched first{fetched}"


@lru_cache(maxsize=2)
def _tokenizer(folder: Path, changed: tuple[int, ...]) -> Any | None:
    """The tokenizer in `folder`, kept until its files change: it takes seconds to load, and several look at it."""
    with contextlib.suppress(ImportError, OSError, ValueError, KeyError, TypeError):
        import transformers

        return transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    return None


def look(name: str) -> Here:
    """What is here of an alias, a folder or a hub id."""
    if name in ALIASES:
        folder, published = home() / "models" / name, ALIASES[name].num_bytes
        if (folder / MARKER).is_file():
            return Here(folder, _weight_bytes(folder), 0)
        return Here(None, round(published * FOLDER_PER_GGUF), published)
    own = Path(os.path.expanduser(name))
    found = own if os.path.isdir(own) else in_hub_cache(name)
    if found is None:
        return Here(None, None, None)
    weights = _weight_bytes(found)
    return Here(found, weights, 0 if weights or found == own else None)


def _weight_bytes(folder: Path) -> int | None:
    try:
        return sum(file.stat().st_size for file in weight_files(folder))
    except (OSError, ValueError):  # no weights that are read here; an error of the model's files is a ValueError
        return None
