"""Predictors: from features of a query to its accuracy curve and expected usage; loaded through the registry."""
