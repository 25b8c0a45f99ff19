"""`python -m forethought`."""

from .commands import main

main()
