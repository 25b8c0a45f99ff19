"""Engines: what runs a model. Each file needs its own library only and is loaded by name through the registry."""
