"""Outside measurements -> a profile: tables of counts or of traces, checked as a whole before anything is kept."""

from .counted import LeftOut
from .profile import Imported, check_target, read_profile

__all__ = ["Imported", "LeftOut", "check_target", "read_profile"]
