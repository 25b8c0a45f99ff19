"""Values that flow between stages, and what every room stands on: protocols, registry, settings, files."""
