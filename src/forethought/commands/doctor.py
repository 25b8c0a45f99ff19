"""`forethought doctor`: what is installed, and whether a server keeps a budget."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..core.study_settings import DoctorSettings
from .options import emit, filled, json_flag, quiet_flag, server_flags, server_options, takes, verb


@verb("doctor", short_help="Look at this machine, and whether a server keeps budgets.")
@server_flags
@takes(DoctorSettings)
@quiet_flag
@json_flag
def command(as_json: bool, quiet: bool, **values: Any) -> int:
    """Say what is here and what a server can really do.

    With --base-url: reachable, which kind it is and how that is told, its models, token ids, continuation, logprobs,
    usage, prefix caching, seeds; then a few small questions at several caps, whose thoughts are counted. Ends with the
    flags to use. --dry-run says what that costs at most, and generates nothing. After a request that is not answered
    within --timeout, nothing more is tried. Exit code 1 when budgets are not kept in the way that --enforce asks for
    (auto: in none).

    With --questions FILE it measures instead what each effort level (--levels) takes on these questions, under
    --template, and writes a menu file for `forethought profile --menu`. The bill comes first.
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
