"""The contract of engines with pytest's fixtures; the tests are `forethought.testing`'s."""

from __future__ import annotations

import pytest

from forethought import testing
from forethought.testing.subjects import (
    BUDGET,
    PROBES,
    QUERIES,
    TEMPLATE,
    TOO_LONG,
    Subject,
    Traces,
    collect,
    requests,
    run,
)

__all__ = [
    "BUDGET",
    "PROBES",
    "QUERIES",
    "TEMPLATE",
    "TOO_LONG",
    "EngineContract",
    "Subject",
    "collect",
    "requests",
    "run",
]


class EngineContract(testing.EngineContract):
    """Subclass it as `TestMyEngine(EngineContract)`; `subject` is best module-scoped."""

    @pytest.fixture(scope="module")
    @classmethod
    def traces(cls, subject: Subject) -> Traces:
        """One plain run that most tests look at."""
        return subject.traces
