"""A server without a model, and clients that load a server: for tests, benchmarks and `forethought serve --demo`."""

from .load import Asked, LoadResult, ask_chat, run_load
from .model import DrawnModel, MeasuredModel, Thought
from .server import ScriptedServer
from .troubles import Trouble

__all__ = [
    "Asked",
    "DrawnModel",
    "LoadResult",
    "MeasuredModel",
    "ScriptedServer",
    "Thought",
    "Trouble",
    "ask_chat",
    "run_load",
]
