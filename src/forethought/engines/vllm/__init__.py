"""vLLM in process."""

from .engine import VllmEngine

__all__ = ["VllmEngine"]
