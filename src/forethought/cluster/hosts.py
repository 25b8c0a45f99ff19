"""What workers run on: a host begins them, and passes calls on; Ray is one (`ray_host.py`)."""

from __future__ import annotations

import os
import socket
from concurrent.futures import Future
from typing import Any, Protocol

from ..errors import EngineError, RunError


class WorkerLostError(EngineError):
    """A worker's process has died, its machine was lost, or its engine has died: what it had under way is open."""


class Remote(Protocol):
    """A worker, such as `EngineWorker`, in a process of its own."""

    def call(self, method: str, *arguments: Any) -> Future[Any]:
        """Calls a method of the worker; the future raises what it raises, or WorkerLostError."""
        ...

    def end(self) -> None:
        """Kills the process, if it still runs; returns at once."""
        ...


class Host(Protocol):
    """Begins workers."""

    def begin(self, number: int) -> Remote:
        """A new worker; returns at once, and its first call waits until there is a place for it."""
        ...

    def waiting_words(self) -> str:
        """What there is for workers, in words, for those that wait for a place."""
        ...

    def close(self) -> None:
        """Leaves the cluster; ends every worker that still runs."""
        ...


def enter(folder: str) -> None:
    """Lets this process's relative paths start from `folder`; raises RunError where it is not on this machine."""
    if not os.path.isdir(folder):
        raise RunError(f"{folder} is not there on {socket.gethostname()}; workers need it on shared storage")
    os.chdir(folder)
