"""How contract tests are run without a test framework."""

from __future__ import annotations

from typing import Any
from unittest import SkipTest


def expect(is_so: object, reason: str) -> None:
    """Raises AssertionError with the reason unless it is so; unlike `assert`, under `python -O` too."""
    if not is_so:
        raise AssertionError(reason)


def check(contract: object, given: Any) -> None:
    """Runs every `test_` method of a contract; raises AssertionError with all that failed, a line each."""
    failures = []
    for name in sorted(name for name in dir(contract) if name.startswith("test_")):
        try:
            getattr(contract, name)(given)
        except SkipTest:
            continue
        except Exception as error:  # whatever a stranger's class raises is what the test found
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            what = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
            failures.append(f"{name.removeprefix('test_').replace('_', ' ')}: {what}{reason}")
    if failures:
        raise AssertionError("\n".join(failures))
