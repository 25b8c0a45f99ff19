"""Shared parts of the estimators: linear maps, lexical features, the shape of curves, folds, checks."""
