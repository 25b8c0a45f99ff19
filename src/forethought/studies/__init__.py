"""Studies of layers, of the paper, of a server, of predictors. Nothing else imports them but their commands."""
