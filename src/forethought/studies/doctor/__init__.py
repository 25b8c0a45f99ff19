"""What is installed here, and what a server really supports, by tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ...core import registry
from ...core.prompts import load_template
from ...core.showing import Progress, silent
from ...core.study_settings import DoctorSettings
from ...questions.queries import load_queries
from ...runs.folders import check_file
from .findings import Diagnosis, Finding

__all__ = ["Diagnosis", "Finding", "examine"]


def examine(settings: DoctorSettings, *, progress: Progress = silent) -> Diagnosis:
    """Looks at this machine and, where an address is given, at the server there with a few small requests.

    A dry run asks the server only what costs nothing: what it is, and which models it has.

    Args:
        settings: which server, and what is asked of it.
        progress: called with what is being done, steps done and steps in all.
    """
    from .machine import machine_findings

    progress("look at this machine", 0, 1)
    here = machine_findings()
    if not settings.base_url:
        return Diagnosis(here)
    registry.check_options("engines", "openai", settings.options)  # also says how to install what it needs
    load_template(settings.template)
    if settings.questions:
        load_queries(settings.questions, limit=settings.limit, **settings.columns)
        check_file(Path(settings.out), read=[settings.questions])
    from .server import server_diagnosis

    there = server_diagnosis(settings, progress=progress)
    return replace(there, findings=(*here, *there.findings))
