"""A published GGUF file with verified hash -> a Hugging Face folder with bfloat16 weights. Needs torch."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import shlex
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import MissingExtraError, ModelFileError
from .weights import sha256_of

PACKAGES = ("accelerate", "gguf", "torch", "transformers")
HUB_PATIENCE = 5.0  # seconds in which the hub must answer

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class GgufSource:
    """A published file, and how to know that it is the right one.

    Attributes:
        file: its name on the hub, and here.
        num_bytes: its size.
        sha256: its hash, the one its makers publish.
        hub_repo: "org/name" on the hub.
    """

    file: str
    num_bytes: int
    sha256: str
    hub_repo: str


def fetch_gguf(source: GgufSource, folder: Path, *, label: str, tell: Tell) -> Path:
    """The published file in `folder`, where it may lie already; else from the hub.

    Raises:
        ModelFileError: the hub does not give it, or it has another hash.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / source.file
    if not target.exists():
        tell(f"fetching {label}: {source.num_bytes / 1e9:.2f} GB from the hub")
        if refusal := from_hub(source, folder):
            raise ModelFileError(
                f"{label}: the hub does not give {source.file} ({refusal}). Check the connection, or put that file "
                f"into {folder}; in a checkout of forethought, `make model MODEL={label}` fetches it another way"
            )
    check_file(target, source, label)
    return target


def check_file(path: Path, source: GgufSource, label: str) -> None:
    """Removes a file that is not the published one, and raises ModelFileError."""
    num_bytes, found = path.stat().st_size, sha256_of(path)
    if (num_bytes, found) == (source.num_bytes, source.sha256):
        return
    path.unlink()
    raise ModelFileError(
        f"{label}: {path.name} came out with SHA-256 {found} ({num_bytes:,} bytes), not the published {source.sha256} "
        f"({source.num_bytes:,} bytes), and was removed. Delete what it was made from, then try again: "
        f"rm -r {shlex.quote(str(path.parent))}"
    )


def from_hub(source: GgufSource, folder: Path) -> str:
    """Fetches the whole file; "" when it is there, else why not. An unreachable hub is known within `HUB_PATIENCE`."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return "HF_HUB_OFFLINE is set"
    try:
        import huggingface_hub as hub
    except ImportError:
        return "huggingface_hub is not installed"

    refusal = [f"no answer within {HUB_PATIENCE:g} seconds"]

    def ask() -> None:
        try:
            url = hub.hf_hub_url(source.hub_repo, source.file)
            offered = hub.get_hf_file_metadata(url, timeout=HUB_PATIENCE).etag  # of a large file: its SHA-256
            refusal[0] = "" if offered == source.sha256 else f"its file now has the hash {offered}"
        except Exception as error:  # OSError, ValueError, the HTTP library's own tree: each means "not from there"
            refusal[0] = _first_line(error)

    # In a thread, because the time limit of a connection counts neither name look-ups nor further addresses.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(HUB_PATIENCE)
    if refusal[0]:
        return refusal[0]
    try:
        hub.hf_hub_download(source.hub_repo, source.file, local_dir=folder)
    except Exception as error:
        return _first_line(error)
    return ""


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


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


@contextlib.contextmanager
def no_progress_bars() -> Iterator[None]:
    """No bars of transformers inside, nor the one of its GGUF reader, which does not heed that."""
    import transformers

    bars = transformers.utils.logging
    were_on = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    reader: Any = importlib.import_module("transformers.modeling_gguf_pytorch_utils")
    own = getattr(reader, "tqdm", None)
    if own is not None:
        reader.tqdm = partial(own, disable=True)
    try:
        yield
    finally:
        if own is not None:
            reader.tqdm = own
        if were_on:
            bars.enable_progress_bar()
