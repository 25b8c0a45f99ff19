"""`python -m forethought`."""

from .cli import main

main()
