"""Profiling, planning and running, and the decisions made during a run."""
