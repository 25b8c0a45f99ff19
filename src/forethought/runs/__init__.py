"""What lasts on disk: run directories, records, profiles, imports."""
