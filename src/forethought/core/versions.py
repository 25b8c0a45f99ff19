"""Versions of the software behind a result."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from .._version import __version__


def versions() -> dict[str, str]:
    """Of the package, numpy and Python: what goes into every record."""
    return {"forethought": __version__, "numpy": np.__version__, "python": platform.python_version()}


def version_of(*names: str) -> str:
    """Of the first of these packages that is installed; "" where none is."""
    for name in names:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return ""
