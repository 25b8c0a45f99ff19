"""A model's name -> local files: a built-in alias, a Hugging Face folder, or a hub id."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..core.registry import unknown_name_message
from ..errors import MissingExtraError, ModelFileError, UnknownNameError
from .aliases import ALIASES, prepare
from .weights import hash_weights, weight_files

# Top-level files only: no code, no pickles, no second copy of the weights in another format.
HUB_FILES = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"]
HUB_WORDS = ["*.json", "*.jinja", "*.model", "*.txt"]  # of these: all but the weights
HUB_LEFT_OUT = ["*/*", "consolidated*"]

_NO_CONFIG = "{name}: holds no config.json; name a folder that save_pretrained or the hub made"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model's files on this machine: the name asked for, its Hugging Face folder, and what identifies the weights.

    The hash is the SHA-256 of the published file that an alias was made from, else of the folder's safetensors.
    """

    name: str
    path: Path
    hash: str


def home() -> Path:
    """Where fetched models are kept: $FORETHOUGHT_HOME, else ~/.cache/forethought."""
    return Path(os.environ.get("FORETHOUGHT_HOME") or Path.home() / ".cache" / "forethought")


def locate(name: str, *, report: Callable[[str], None] | None = None) -> LocalModel:
    """The model's files, fetched and converted when they are not here yet.

    Args:
        name: an alias of `ALIASES`, a folder in Hugging Face format, or a hub id ("org/name"), tried in this order.
        report: called with a line of progress; the log has them too.

    Raises:
        UnknownNameError: `name` is none of the three.
        ModelFileError: files are missing, cut short or not what their hash says, or could not be fetched.
        MissingExtraError: fetching needs a package that is not installed.
    """

    def tell(line: str) -> None:
        logger.info(line)
        if report is not None:
            report(line)

    if name in ALIASES:
        return LocalModel(name, prepare(name, home(), tell=tell), ALIASES[name].sha256)
    folder = _folder(name, tell)
    try:
        if not (folder / "config.json").is_file():
            raise ModelFileError(_NO_CONFIG.format(name=name))
        return LocalModel(name, folder, hash_weights(weight_files(folder), cache=home() / "hashes", tell=tell))
    except ModelFileError:
        raise
    except OSError as error:
        raise ModelFileError(f"{name}: cannot be read: {error}") from error


def _folder(name: str, tell: Callable[[str], None]) -> Path:
    return _local_folder(name) or _download(name, tell)


def fetch_words(name: str) -> None:
    """Makes sure that tokenizer, chat template and config of a hub model are here; raises what `locate` does."""
    if name not in ALIASES and _local_folder(name) is None and in_hub_cache(name) is None:
        _download(name, logger.info, HUB_WORDS)


def check_name(name: str) -> None:
    """Refuses what cannot be a model, without fetching anything: `locate`'s errors, as far as they are known then."""
    folder = None if name in ALIASES else _local_folder(name)
    if folder is not None and not (folder / "config.json").is_file():
        raise ModelFileError(_NO_CONFIG.format(name=name))


def _local_folder(name: str) -> Path | None:
    """The folder that `name` is; None for a hub id."""
    # The functions of os.path, because pathlib's raise on odd names: too long, "~nobody".
    folder = os.path.expanduser(name)
    if os.path.isdir(folder):
        return Path(folder)
    if os.path.exists(folder):
        raise ModelFileError(f"{name}: is a file; name the folder with config.json that it stands in")
    if _HUB_ID.fullmatch(name):
        return None
    if os.sep in name:
        raise ModelFileError(f"{name}: no such folder")
    raise UnknownNameError(
        f"{unknown_name_message('model', name, ALIASES)} A model is also a folder with config.json, "
        "or a hub id such as 'Qwen/Qwen2.5-1.5B-Instruct'."
    )


def in_hub_cache(name: str) -> Path | None:
    """The folder of a hub id in the hub's own cache; None where it is not there, or the hub's client is not."""
    if not _HUB_ID.fullmatch(name):
        return None
    try:
        import huggingface_hub as hub

        return Path(hub.snapshot_download(name, allow_patterns=HUB_FILES, local_files_only=True))
    except Exception:  # OSError, ValueError and its own tree, each for "not here"
        return None


def _download(name: str, tell: Callable[[str], None], files: Sequence[str] = HUB_FILES) -> Path:
    """The hub's files of `name` in the hub's own cache; what is there already is not fetched again."""
    try:
        import huggingface_hub as hub
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
    except ImportError as error:
        raise MissingExtraError(
            f"the hub model {name!r} needs the package 'huggingface_hub', which is not installed. "
            "Install it with: pip install 'forethought[transformers]'"
        ) from error
    tell(f"looking for {name} on the hub")
    try:
        return Path(
            hub.snapshot_download(name, allow_patterns=list(files), ignore_patterns=HUB_LEFT_OUT, etag_timeout=5)
        )
    except GatedRepoError as error:  # a kind of RepositoryNotFoundError
        raise ModelFileError(f"{name}: accept the terms of the model on its page first, then: hf auth login") from error
    except RepositoryNotFoundError as error:
        raise UnknownNameError(
            f"{unknown_name_message('model', name, ALIASES)} There is no such folder, and the hub has no such model "
            "that you may read; if it is private: hf auth login"
        ) from error
    except Exception as error:  # the hub's client raises OSError, ValueError and its HTTP library's own tree
        reason = str(error).strip().partition("\n")[0]
        raise ModelFileError(
            f"{name}: there is no such folder, and the hub cannot give it ({type(error).__name__}: {reason}). "
            "Check the connection, or copy the model's files here and name their folder."
        ) from error
