"""Every exception that Forethought raises itself.

    ForethoughtError
    ├── InvalidInputError(ValueError)       a question file, a row, a column
    ├── InvalidMenuError(ValueError)        budgets that are no menu, or one that is not on it
    ├── InvalidTotalError(ValueError)       a total that cannot pay for the minimums
    ├── InvalidSettingsError(ValueError)    an unknown key, two flags that exclude each other
    ├── InvalidFeaturesError(ValueError)    NaN, a wrong width, a missing layer
    ├── UnknownNameError(LookupError)       no such engine, predictor, allocator, grader, model, template
    ├── MismatchError(ValueError)           a predictor made for another model, template or menu
    ├── FileError(OSError)                  a file or folder that cannot be read, written or created
    ├── ModelFileError(OSError)             a model file missing, cut short or with another hash
    ├── RunError(OSError)                   a run directory missing, locked, broken or of other settings
    ├── MissingExtraError(ImportError)      an optional dependency that is not installed
    ├── LedgerError(OSError)                a ledger that cannot be opened, or cannot be reached for now
    └── EngineError(RuntimeError)           an engine that cannot start; one failed query is a record instead

A message states what happened, the invalid value, and the next command. All of them can be pickled.
"""

from __future__ import annotations


class ForethoughtError(Exception):
    """Base of every error raised on purpose; the command line prints it without a traceback, exit code 1."""


class InvalidInputError(ForethoughtError, ValueError):
    """The question file or one of its rows cannot be used."""


class InvalidMenuError(ForethoughtError, ValueError):
    """A budget menu, or a budget that does not lie on it."""


class InvalidTotalError(ForethoughtError, ValueError):
    """A token total that cannot pay for what it must.

    Attributes:
        least: the smallest total that would do, in tokens or USD; None where that is not what is wrong.
    """

    least: float | None = None


class InvalidSettingsError(ForethoughtError, ValueError):
    """A flag, a file entry or an environment variable that cannot be taken."""


class InvalidFeaturesError(ForethoughtError, ValueError):
    """Features a predictor cannot use."""


class UnknownNameError(ForethoughtError, LookupError):
    """A name that is not registered."""


class MismatchError(ForethoughtError, ValueError):
    """A predictor and a run that do not belong together."""


class FileError(ForethoughtError, OSError):
    """A file or a folder that the system does not let be read, written or created; `errno` says why."""


class ModelFileError(ForethoughtError, OSError):
    """A model's files are missing, cut short, or not what their hash says."""


class RunError(ForethoughtError, OSError):
    """A run directory that cannot be used."""


class MissingExtraError(ForethoughtError, ImportError):
    """A feature whose optional dependency is not installed."""


class LedgerError(ForethoughtError, OSError):
    """A ledger that cannot be opened or, while a gateway runs, cannot be reached.

    Attributes:
        retry_after: seconds after which it is worth to try again.
    """

    retry_after: float = 1.0


class EngineError(ForethoughtError, RuntimeError):
    """An engine that cannot start or has died as a whole."""
