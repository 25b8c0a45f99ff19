"""Starts vLLM as required, and reports its choices with the reasons."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ...core.prompts import PromptTemplate
from ...core.registry import unknown_name_message
from ...errors import EngineError, ForethoughtError, InvalidFeaturesError, InvalidSettingsError
from ...models.config import longest_context
from .. import memory
from ..forcing import Forcing
from .native import NativeCap
from .states import connector_settings

logger = logging.getLogger(__name__)

# One process: hooks are ordinary closures and no second process polls. Read when vLLM is imported.
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
}
ENFORCE = ("auto", "two-call", "native")
SCHEDULES = ("fcfs", "priority")
READERS = ("auto", "hooks", "connector")
KV_CACHE = "VLLM_CPU_KVCACHE_SPACE"  # GiB on a CPU; set while an engine starts, for the next may get another number
CPU_BLOCK = 32  # vLLM refuses smaller ones on a CPU, and takes 128 by itself


@dataclass(frozen=True, slots=True)
class Choices:
    """What the user chose; see `VllmEngine`."""

    enforce: str = "two-call"
    schedule: str = "fcfs"
    hidden: str = "auto"
    feature_layers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        known = {
            "--enforce": (self.enforce, ENFORCE),
            "schedule": (self.schedule, SCHEDULES),
            "hidden": (self.hidden, READERS),
        }
        problems = [
            f"{flag}: {unknown_name_message('way', value, names)}"
            for flag, (value, names) in known.items()
            if value not in names
        ]
        if self.hidden == "connector" and not self.feature_layers:
            problems.append("hidden=connector needs to know the layers: --engine-option feature_layers=[K]")
        if problems:
            raise InvalidSettingsError("vLLM in process: " + "; ".join(problems))

    def reader(self, *, is_cpu: bool) -> tuple[str, str]:
        """`("hooks" or "connector", why)`."""
        if self.hidden != "auto":
            return self.hidden, "asked for"
        if is_cpu:
            return "hooks", "on a CPU the model runs eagerly, where hooks are called and cost nothing while generating"
        if self.feature_layers:
            return "connector", "on an accelerator hooks may not be called; the layers are known"
        return "hooks", "on an accelerator they may not be called, which would be reported; no feature_layers are given"


@dataclass(slots=True)
class Started:
    """A running `vllm.LLM` (None once it is closed), how it caps thoughts (None: by two calls) and reads hidden states.

    That is by "hooks", or by a "connector" that was started for some layers and writes into a folder.
    """

    llm: Any
    native: NativeCap | None
    has_priorities: bool
    reads_by: str
    feature_layers: tuple[int, ...] = ()
    folder: TemporaryDirectory[str] | None = None

    def columns(self, layers: Sequence[int]) -> list[int]:
        """Where `layers` are among those the connector writes; raises InvalidFeaturesError for another."""
        if other := [layer for layer in layers if layer not in self.feature_layers]:
            raise InvalidFeaturesError(
                f"vLLM was started for hidden states of the layers {list(self.feature_layers)}, not {other[0]}; name "
                f"all of them: --engine-option feature_layers=[{','.join(map(str, layers))}]"
            )
        return [self.feature_layers.index(layer) for layer in layers]

    def close(self) -> None:
        """Lets go of the model, and ends the connector, which vLLM keeps for the whole process, with its files."""
        self.llm = None
        if self.folder is not None:
            from vllm.distributed.kv_transfer.kv_transfer_state import ensure_kv_transfer_shutdown

            ensure_kv_transfer_shutdown()
            self.folder.cleanup()


def fitting_length(path: Path, needed_tokens: int | None) -> int | None:
    """The context to reserve memory for: what is needed, at most what the model in `path` was made for."""
    own = longest_context(path)
    return own if needed_tokens is None else min(needed_tokens, own or needed_tokens)


def start(
    path: Path, template: PromptTemplate, choices: Choices, *, kv_cache_gib: int, options: Mapping[str, Any]
) -> Started:
    """Starts vLLM with the model in the folder `path`; `options` are `vllm.LLM`'s, and come before what is chosen here.

    Raises:
        EngineError: no engine came up.
        InvalidSettingsError: thoughts of this template cannot be capped natively.
    """
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    given = os.environ.get(KV_CACHE)
    from vllm import LLM
    from vllm.platforms import current_platform

    is_cpu = bool(current_platform.is_cpu())
    reads_by, reason = choices.reader(is_cpu=is_cpu)
    chosen: dict[str, Any] = {
        "dtype": "bfloat16",
        "enforce_eager": True,  # hooks for hidden states are skipped by compiled graphs
        # Seeded requests crash the CPU runner on a partial prefill, so prompts are never split.
        "enable_chunked_prefill": False,
        "trust_remote_code": False,
        "scheduling_policy": choices.schedule,
    }
    chosen |= {key: value for key, value in options.items() if (key, value) != ("block_size", None)}
    if is_cpu:
        chosen.setdefault("block_size", CPU_BLOCK)
        memory.announce(
            path.name,
            memory.loaded_bytes(path, str(chosen["dtype"])),
            (int(given) if given and given.isdigit() else kv_cache_gib) << 30,
            how="--engine-option kv_cache_gib=N",
            free=memory.free_bytes(),
        )
    native, folder = None, None
    os.environ[KV_CACHE] = given or str(kv_cache_gib)
    try:
        if choices.enforce == "native":
            from vllm.config import ReasoningConfig
            from vllm.tokenizers import get_tokenizer

            native = NativeCap.of(Forcing(get_tokenizer(str(path)), template))
            config = ReasoningConfig(reasoning_start_str=native.start, reasoning_end_str=native.end)
            chosen["reasoning_config"] = config
        if reads_by == "connector":
            folder = TemporaryDirectory(prefix="forethought-states-")
            chosen |= connector_settings(choices.feature_layers, Path(folder.name))
        llm = LLM(str(path), **chosen)
    except ForethoughtError:
        raise
    except Exception as error:  # vLLM raises many kinds here; each means that no engine came up
        if folder is not None:
            folder.cleanup()
        raise EngineError(f"vLLM did not start with {path}: {error}") from error
    finally:
        if not given:
            del os.environ[KV_CACHE]
    policy = llm.llm_engine.vllm_config.scheduler_config.policy
    kept = "two calls" if native is None else f"vLLM, between {native.start!r} and {native.end!r}"
    logger.info("budgets enforced by %s; schedule %s; hidden states by %s: %s", kept, policy, reads_by, reason)
    layers = choices.feature_layers if reads_by == "connector" else ()
    return Started(llm, native, policy == "priority", reads_by, layers, folder)
