"""Allocators: from curves and a total to one option per query. docs/allocation.md states their guarantees."""

from .problem import Allocator, Problem, Solution, allocate, pose

__all__ = ["Allocator", "Problem", "Solution", "allocate", "pose"]
