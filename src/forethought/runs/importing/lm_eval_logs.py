"""Sample files of lm-eval (`samples_TASK_DATE.jsonl`), with the settings in `results_DATE.json` of the same folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...core.import_settings import ImportSettings
from ...core.problems import Problems
from ...errors import InvalidInputError
from ...models.here import look
from ...questions.rows import parse_json
from ...questions.rows.lines import read_lines
from .log import Log, choose_score, level_of, scalars

NAME = re.compile(r"samples_(?P<task>.+)_(?P<date>\d{4}-\d\d-\d\dT[0-9T:.-]+)\.jsonl")
USUAL = ("exact_match", "acc", "pass@1")
KNOWN = {
    *("doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics"),
    *("doc_hash", "prompt_hash", "target_hash"),
}
STRIPPED = "think_end_token"  # lm-eval drops the thought before it


def read(path: Path, settings: ImportSettings) -> Log:
    """One sample file; raises InvalidInputError on what is none, or is not of generated text."""
    found = _lines(path)
    summary, task = _summary(path)
    run, task_config = _object(summary.get("config")), _object(_object(summary.get("configs")).get(task))
    own = {**scalars(task_config.get("generation_kwargs") or {}), **scalars(_pairs(run.get("gen_kwargs")))}
    model_args = scalars(_pairs(run.get("model_args")))
    models = (model_args.get("model"), model_args.get("pretrained"), summary.get("model_name"))
    model = next((name for name in models if name and isinstance(name, str)), None)
    level = level_of(own) or level_of(model_args) or model or path.stem
    names = list(dict.fromkeys(name for _, line in found for name in _metrics(line)))
    score = choose_score(str(path), names, settings.score, USUAL)
    count = _counter(path, settings.tokenizer, model_args)
    is_first = _takes_first(task_config)
    columns = {f"config.{name}": value for name, value in own.items()}
    columns |= {f"model_args.{name}": value for name, value in model_args.items() if name != "base_url"}
    rows = []
    for number, line in found:
        texts = _responses(line, f"{path} line {number}")
        filtered = line["filtered_resps"][0] if line["filtered_resps"] else None
        counted = {} if count is None else {"output_tokens": sum(map(count, texts[:1] if is_first else texts))}
        rows.append(
            {
                "id": line["doc_id"],
                "option": level,
                "sample": 1,
                "correct": line.get(score),
                "predicted_answer": filtered if isinstance(filtered, str) else None,
                **counted,
                "question": _question(line),
                "model": model,
                "task": task,
                "filter": line.get("filter"),
                "file": path.stem,
                **{f"doc.{name}": value for name, value in scalars(line["doc"]).items()},
                **columns,
            }
        )
    return Log("lm-eval", "line", rows, own, model, tuple(_notes(count is not None)))


def _notes(is_counted: bool) -> list[str]:
    if is_counted:
        return [
            "lm-eval keeps no token counts: those of the responses that it kept were counted with the tokenizer. A "
            "thought that the server gave apart from its answer is not among them."
        ]
    return [
        "lm-eval keeps no token counts: --tokenizer FOLDER counts those of the responses, or "
        "--budget-column config.max_gen_toks uses the cap as the cost."
    ]


def _lines(path: Path) -> list[tuple[int, dict[str, Any]]]:
    problems, found = Problems(str(path)), []
    with path.open("rb") as opened:
        for number, text in read_lines(opened, problems):
            if not text.strip():
                continue
            try:
                line = parse_json(text)
            except ValueError as error:
                problems.add(f"line {number}", str(error))
                continue
            if not isinstance(line, dict) or not {"doc_id", "doc", "resps", "filtered_resps"} <= set(line):
                problems.add(f"line {number}", "is no sample of lm-eval: it lacks 'doc_id', 'doc' or 'resps'")
                continue
            if not all(isinstance(line[name], list) for name in ("resps", "filtered_resps")):
                problems.add(f"line {number}", "is no sample of lm-eval: its 'resps' or 'filtered_resps' is no list")
                continue
            found.append((number, line))
    problems.raise_any()
    return found


def _summary(path: Path) -> tuple[Mapping[str, Any], str]:
    """`(the results file's content, the task)`; nothing where the name or the file beside it is not lm-eval's."""
    if (named := NAME.fullmatch(path.name)) is None:
        return {}, path.stem
    beside = path.with_name(f"results_{named['date']}.json")
    if not beside.is_file():
        return {}, named["task"]
    try:
        summary = parse_json(beside.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{beside}: cannot be read: {error}") from error
    if not isinstance(summary, dict):
        raise InvalidInputError(f"{beside}: is no results file of lm-eval")
    return summary, named["task"]


def _object(found: Any) -> dict[str, Any]:
    return found if isinstance(found, dict) else {}


def _items(found: Any) -> list[Any]:
    return found if isinstance(found, list) else []


def _pairs(found: Any) -> dict[str, Any]:
    """Settings as lm-eval keeps them: an object, or in older versions a text "key=value,key=value"."""
    if isinstance(found, dict):
        return found
    parts = [part.partition("=") for part in str(found or "").split(",")]
    return {name.strip(): value.strip() for name, is_pair, value in parts if is_pair}


def _metrics(line: Mapping[str, Any]) -> list[str]:
    """The names of the metrics: as the line lists them, else what is none of its usual keys."""
    listed = line.get("metrics")
    names = listed if isinstance(listed, list) else [name for name in line if name not in KNOWN]
    return [name for name in names if isinstance(name, str) and isinstance(line.get(name), int | float)]


def _responses(line: Mapping[str, Any], place: str) -> list[str]:
    """All texts that were generated for a question."""
    texts = [text for each in line["resps"] for text in (each if isinstance(each, list) else [each])]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise InvalidInputError(
            f"{place}: was scored by likelihoods, not by generated text: nothing is spent on thinking"
        )
    return texts


def _takes_first(task_config: Mapping[str, Any]) -> bool:
    """Whether of several responses the first alone was judged, and not a vote among all."""
    filters = [_object(each).get("filter") for each in _items(task_config.get("filter_list"))]
    steps = [_object(step).get("function") for each in filters for step in _items(each)]
    return "take_first" in steps and "majority_vote" not in steps


def _question(line: Mapping[str, Any]) -> str | None:
    """The text of the question, else of the prompt."""
    doc = _object(line["doc"])
    for name in ("question", "problem", "query", "prompt"):
        if isinstance(doc.get(name), str):
            return str(doc[name])
    prompts = [value for value in scalars(line.get("arguments") or {}).values() if isinstance(value, str)]
    return prompts[0] if prompts else None


def _counter(path: Path, folder: str, model_args: Mapping[str, Any]) -> Any:
    """Text -> its tokens; None without a tokenizer."""
    if not folder:
        return None
    if model_args.get(STRIPPED):
        raise InvalidInputError(
            f"{path}: the run dropped all text before {model_args[STRIPPED]!r}, so its thoughts cannot be counted; "
            f"leave out --tokenizer, or run lm-eval without {STRIPPED}"
        )
    if (tokenizer := look(folder).tokenizer()) is None:
        raise InvalidInputError(
            f"--tokenizer {folder}: no tokenizer can be loaded from there; it is read by transformers: "
            "pip install 'forethought[transformers]'"
        )
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])
