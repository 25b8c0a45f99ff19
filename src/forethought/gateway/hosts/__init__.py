"""Servers that the gateway runs inside of; what leans on their own names stands here alone."""
