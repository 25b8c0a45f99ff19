"""Outside measurements -> a profile: tables of counts or of traces, validated completely before anything is stored."""

from .counted import LeftOut
from .profile import Imported, check_target, read_profile

__all__ = ["Imported", "LeftOut", "check_target", "read_profile"]
