"""Allocators: curves and a token total in, one option per query out. docs/allocation.md says what they guarantee."""

from .problem import Problem, Solution, allocate, pose

__all__ = ["Problem", "Solution", "allocate", "pose"]
