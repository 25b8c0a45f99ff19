"""What the estimators share: linear maps, lexical features, the shape of curves, folds, checks."""
