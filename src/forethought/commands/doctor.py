"""`forethought doctor`: what is installed, and whether a server enforces a budget."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..core.study_settings import DoctorSettings
from .options import emit, filled, json_flag, quiet_flag, server_flags, server_options, takes, verb


@verb("doctor", short_help="Check this machine, and whether a server enforces budgets.")
@server_flags
@takes(DoctorSettings)
@quiet_flag
@json_flag
def command(as_json: bool, quiet: bool, **values: Any) -> int:
    """Show what is installed and what a server supports.

    With --base-url: whether the server is reachable, its kind and how that was detected, its models, token ids,
    continuation, logprobs, usage, prefix caching and seeds. Then a few small questions are sent at several caps, and
    the tokens of the thoughts are counted. The output ends with the flags to use. --dry-run shows the largest possible
    cost and generates nothing. If a request is not answered within --timeout, the check stops. Exit code 1: budgets are
    not enforced in the way that --enforce names (auto: in no way).

    With --questions FILE, it measures instead the tokens of each effort level (--levels) on these questions, with
    --template, and writes a menu file for `forethought profile --menu`. The estimated cost is shown first.
    """
    from ..studies import doctor
    from .progress import step_bar

    _, options = server_options(values, "openai")
    named = {key: options.pop(key) for key in ("base_url", "served_model", "enforce") if key in options}
    settings = filled(DoctorSettings, values, **named)
    settings = replace(settings, options=options | settings.options)
    with step_bar(quiet=quiet) as progress:
        diagnosis = doctor.examine(settings, progress=progress)
    emit(as_json, diagnosis.to_json(), diagnosis.to_text())
    return 1 if diagnosis.is_kept is False else 0
