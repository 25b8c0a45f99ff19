"""Allocators: success curves and a token total in, one budget per query out. Found by name through the registry."""
