"""The weights of a Hugging Face folder, and the hash that identifies them."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from ..core.files import parse_json, write_json
from ..errors import ModelFileError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that a loader would read, by name: the index's shards, else the one file, else all.

    Raises:
        ModelFileError: there are none, or a shard that the index names is missing.
    """
    index = folder / INDEX
    if index.is_file():
        names = _shard_names(index)
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise ModelFileError(
                f"{folder}: {len(missing)} of {len(names)} weight files are missing, the first is {missing[0]}; "
                "copy or fetch the folder again"
            )
        return [folder / name for name in names]
    files = [folder / SINGLE] if (folder / SINGLE).is_file() else sorted(folder.glob("*.safetensors"))
    if not files:
        raise ModelFileError(f"{folder}: holds no .safetensors weights; other formats are not read")
    return files


def _shard_names(index: Path) -> list[str]:
    try:
        names = sorted(set(parse_json(index.read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelFileError(f"{index}: not a readable index of weights ({error!r})") from error
    if not names or any(not isinstance(name, str) or Path(name).name != name for name in names):
        raise ModelFileError(f"{index}: names weight files outside of its folder, or none")
    return names


def hash_weights(files: Sequence[Path], *, cache: Path, tell: Callable[[str], None]) -> str:
    """SHA-256 of the only file; of several, that of their list as `sha256sum *.safetensors` prints it.

    Args:
        files: the weights, at least one.
        cache: a folder of ours that remembers hashes by the files' path, size and time; the model's is left alone.
        tell: told before a long read.
    """
    sizes = [file.stat().st_size for file in files]
    seen = [[str(file.resolve()), size, file.stat().st_mtime_ns] for file, size in zip(files, sizes, strict=True)]
    note = cache / f"{hashlib.sha256(json.dumps(seen).encode()).hexdigest()[:32]}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return str(json.loads(note.read_text("utf-8"))["hash"])
    tell(f"hashing {sum(sizes) / 1e9:.1f} GB of weights in {files[0].parent}, once")
    digests = [(sha256_of(file), file.name) for file in files]
    listing = "".join(f"{digest}  {name}\n" for digest, name in digests)
    found = digests[0][0] if len(digests) == 1 else hashlib.sha256(listing.encode()).hexdigest()
    with contextlib.suppress(OSError):  # a home that cannot be written to only costs time
        cache.mkdir(parents=True, exist_ok=True)
        write_json(note, {"files": seen, "hash": found})
    return found


def sha256_of(path: Path) -> str:
    """SHA-256 of one file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
