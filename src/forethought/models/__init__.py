"""A model's name -> local files: a built-in alias, a Hugging Face folder, or a hub id."""

from .aliases import ALIASES
from .here import Here, look
from .locating import LocalModel, fetch_words, home, locate

__all__ = ["ALIASES", "Here", "LocalModel", "fetch_words", "home", "locate", "look"]
