"""Data on disk: run directories, records, profiles, imports."""
