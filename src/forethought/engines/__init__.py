"""Engines run a model. Each file imports only its own library and is loaded by name through the registry."""
