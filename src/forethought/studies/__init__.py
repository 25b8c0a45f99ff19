"""Studies of layers, of the paper, of a server, of predictors. Only their commands import them."""
