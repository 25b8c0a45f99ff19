"""Predictors: features of a query to its success and spend curves. Loaded by name through the registry."""
