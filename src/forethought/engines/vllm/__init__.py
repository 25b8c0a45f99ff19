"""vLLM inside this process."""

from .engine import VllmEngine

__all__ = ["VllmEngine"]
