"""Predictors: features of a query to its accuracy curve and expected usage. Loaded by name through the registry."""
