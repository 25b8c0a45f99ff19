"""`forethought layers`: which layer of the model predicts best."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..core.study_settings import LayersSettings
from .options import dry_run_flag, emit, emit_report, filled, json_flag, quiet_flag, takes, verb


@verb("layers", short_help="Compare the layers of the model.")
@takes(LayersSettings, is_asked=False)
@dry_run_flag
@quiet_flag
@json_flag
def command(as_json: bool, quiet: bool, dry_run: bool, **values: Any) -> int:
    """Evaluate each layer alone: cross-validated errors, correlations, and the accuracy of plans, with intervals.

    RUN is a profile run or the Parquet file of a profile. Its recorded layers are compared (last token). With --states
    all layers are compared, both by the last token and by the mean over the tokens of the question: the model reads
    each question once, and the folder stores the hidden states. The same command resumes an interrupted study.
    """
    from ..runs.folders import layers_folder
    from ..studies import layers
    from . import reports
    from .progress import step_bar

    settings = filled(LayersSettings, values)
    if dry_run:
        found, _ = reports.survey_layers(settings)
        bill = layers.bill(found, settings, layers_folder(settings))
        emit(as_json, bill, "\n".join(f"{key.replace('_', ' '):16} {value}" for key, value in bill.items()))
        return 0
    files: list[Path] = []
    with step_bar(quiet=quiet) as progress:
        result = reports.study_layers(settings, progress=progress, wrote=files.append)
    emit_report(as_json, layers.page(result), files)
    return 0
