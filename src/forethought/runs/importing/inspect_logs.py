"""Logs of Inspect (`.eval`, or JSON), read by Inspect's own reader."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile, is_zipfile

from ...core.import_settings import ImportSettings
from ...core.problems import excerpt
from ...errors import InvalidInputError, MissingExtraError
from .log import Log, choose_score, level_of, scalars

UNREAD = {"messages", "events", "store", "output", "timelines", "events_data"}  # of a sample, the large parts
LEAST_BOUND, MOST_TIMES = 1 << 30, 200  # unpacked bytes of an archive: so many, or so many times its size


def read(path: Path, settings: ImportSettings) -> Log:
    """One log; raises MissingExtraError without Inspect, InvalidInputError on what it does not read."""
    try:
        from inspect_ai.log import read_eval_log
    except ImportError as error:
        raise MissingExtraError(
            f"{path}: logs of Inspect are read by inspect_ai, which is not installed. "
            "Install it with: pip install 'forethought[inspect]'"
        ) from error
    try:
        _refuse_bomb(path)
        log = read_eval_log(str(path), resolve_attachments=True, exclude_fields=UNREAD)
    except InvalidInputError:
        raise
    except Exception as error:  # its reader raises whatever its parts raise
        raise InvalidInputError(
            f"{path}: inspect_ai cannot read it: {excerpt(str(error) or type(error).__name__, 200)}"
        ) from error
    samples = log.samples or []
    if not samples:
        raise InvalidInputError(f"{path}: holds no samples (Inspect's --no-log-samples?); it ended as {log.status!r}")
    config = {
        **scalars(log.plan.config.model_dump(exclude_none=True)),
        **scalars(log.eval.model_generate_config.model_dump(exclude_none=True)),
    }
    level = level_of(config) or level_of(scalars(log.eval.model_args)) or level_of(scalars(log.eval.task_args))
    names = list(dict.fromkeys(name for sample in samples for name, _, _ in _scores(sample)))
    score = choose_score(str(path), names, settings.score)
    settings_columns = {f"config.{name}": config.get(name) for name in type(log.plan.config).model_fields}
    settings_columns |= {f"config.{name}": value for name, value in config.items()}
    settings_columns |= {f"task_args.{name}": value for name, value in scalars(log.eval.task_args).items()}
    rows = [
        {
            "id": sample.id,
            "option": level or log.eval.model,
            "sample": sample.epoch,
            **_judged(sample, score),
            **_used(sample, log.eval.model),
            "question": _question(sample.input),
            "model": log.eval.model,
            "task": log.eval.task,
            "file": path.stem,
            **settings_columns,
        }
        for sample in samples
    ]
    notes = []
    if log.status != "success":
        notes.append(f"{path.name}: the run ended as {log.status!r}; its samples are imported.")
    return Log("Inspect", "sample", rows, config, log.eval.model, tuple(notes))


def _refuse_bomb(path: Path) -> None:
    """Raises InvalidInputError on an archive whose files are far larger than any log packs to its size."""
    if not is_zipfile(path):
        return
    with ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())
    if size > max(LEAST_BOUND, MOST_TIMES * path.stat().st_size):
        raise InvalidInputError(f"{path}: unpacks to {size:,} bytes, which no log of its size does; it was not read")


def _scores(sample: Any) -> Iterator[tuple[str, Any, str | None]]:
    """`(name, value, answer)` of each score; of one that holds several values, SCORER.KEY each."""
    for name, score in (sample.scores or {}).items():
        if isinstance(score.value, dict):
            yield from ((f"{name}.{key}", value, score.answer) for key, value in score.value.items())
        else:
            yield name, score.value, score.answer


def _judged(sample: Any, score: str) -> dict[str, Any]:
    """The verdict and the answer; neither where the sample failed before it was scored."""
    value, answer = next(((value, answer) for name, value, answer in _scores(sample) if name == score), (None, None))
    return {"correct": value, "predicted_answer": answer}


def _used(sample: Any, model: str) -> dict[str, Any]:
    """Tokens as billed by the model that was measured; a grader's own are not counted."""
    usage = sample.model_usage.get(model)
    if usage is None and len(sample.model_usage) == 1:
        (usage,) = sample.model_usage.values()
    if usage is None:
        return {"output_tokens": None, "reasoning_tokens": None, "input_tokens": None}
    cached = (usage.input_tokens_cache_read or 0) + (usage.input_tokens_cache_write or 0)
    return {
        "output_tokens": usage.output_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "input_tokens": usage.input_tokens + cached,
    }


def _question(found: Any) -> str:
    """The input as text; of a chat the last user turn."""
    if isinstance(found, str):
        return found
    turns = [message.text for message in found if message.role == "user"]
    return turns[-1] if turns else ""
