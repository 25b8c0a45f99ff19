"""`python -m forethought`, and the command `forethought`."""

from __future__ import annotations

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a traceback until `main` says so in words

from .commands import main

if __name__ == "__main__":
    main()
