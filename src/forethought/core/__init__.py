"""Values that flow between stages, and what all packages use: protocols, registry, settings, files."""
