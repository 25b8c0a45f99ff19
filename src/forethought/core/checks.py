"""What the files of a run must hold before anything relies on it: types and ranges of what was read from JSON.

Each function says in words what is wrong, or None. Keys that are not known here are left alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from types import NoneType
from typing import Any

from ..errors import InvalidMenuError
from .data import Grade, StopReason
from .menu import Menu, with_menu

MOST = 2**53  # counts up to here are exact as floats; no file of a run has a larger one

Kinds = Mapping[str, tuple[type, ...]]

TRACE: Kinds = {
    "query_id": (str,),
    "sample": (int,),
    "budget": (int,),
    "reasoning": (str,),
    "reasoning_tokens": (int, NoneType),
    "answer": (str,),
    "answer_tokens": (int, NoneType),
    "suffix_tokens": (int,),
    "prompt_tokens": (int,),
    "stop_reason": (str,),
    "probes": (list,),
    "error": (str, NoneType),
    "grade": (str, NoneType),
}
PROBE: Kinds = {"budget": (int,), "answer": (str,), "answer_tokens": (int, NoneType)}
ASKED: Kinds = {
    "query_id": (str,),
    "sample": (int,),
    "level": (str, NoneType),
    "text": (str,),
    "tokens": (int,),
    "error": (str, NoneType),
}
HEADER: Kinds = {"kind": (str,), "identity": (dict,), "settings": (dict,)}
INFO: Kinds = {  # what may be known of how something was measured; none of it must be
    "name": (str,),
    "engine": (str,),
    "model": (str, NoneType),
    "model_hash": (str, NoneType),
    "template": (str, NoneType),
    "template_hash": (str, NoneType),
    "server": (str, NoneType),
    "enforcement": (str, NoneType),
    "dtype": (str, NoneType),
    "device": (str, NoneType),
    "num_layers": (int, NoneType),
    "hidden_size": (int, NoneType),
    "context_tokens": (int, NoneType),
    "simulated": (bool,),
    "window": (int,),
    "maximum": (int,),
    "menu": (list,),
    "sampling": (dict, NoneType),
    "seed": (int, NoneType),
    "grader": (str, NoneType),
    "grader_options": (dict, NoneType),
    "spend_measured": (bool,),
    "asking": (dict, NoneType),
    "versions": (dict,),
}
WORDS = {
    str: "text",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "an object",
    bool: "true or false",
}
GRADES = (None, *(grade.value for grade in Grade))
STOP_REASONS = [reason.value for reason in StopReason]


def check_record(record: Any, *, is_asked: bool = False) -> str | None:
    """One line of records.jsonl: a trace with its grades, or what a model said of how hard a question is."""
    if problem := _object_problem(record, ASKED if is_asked else TRACE):
        return problem
    if is_asked:
        return None
    if record["stop_reason"] not in STOP_REASONS:
        return f"'stop_reason' is {_shown(record['stop_reason'])}, not one of {', '.join(STOP_REASONS)}"
    if record["stop_reason"] == StopReason.ERROR.value and not record["error"]:
        return "it failed, and 'error' does not say why"
    if record["grade"] not in GRADES:
        return f"'grade' is {_shown(record['grade'])}, not one of {', '.join(map(str, GRADES[1:]))}"
    for probe in record["probes"]:
        if problem := _object_problem(probe, PROBE):
            return f"a probe: {problem}"
        if probe.get("grade") not in GRADES:
            return f"a probe: 'grade' is {_shown(probe['grade'])}"
        if record["grade"] is not None and probe.get("grade") is None:
            return "a probe was not graded, although its trace was"
    return None


def check_object(value: Any) -> str | None:
    """A line of any other file of a run."""
    return None if isinstance(value, dict) else f"it must be an object, not {_shown(value)}"


def check_pool(line: Any) -> str | None:
    """One line of pool.jsonl: what is about to be generated at most, by query, or what was."""
    if problem := check_object(line):
        return problem
    found = line.get("begin", line.get("end"))
    counts = list(found.values()) if "begin" in line and isinstance(found, dict) else [found]
    if not all(type(count) is int and 0 <= count <= MOST for count in counts):
        return f"'begin' must be tokens by query, or 'end' tokens, not {_shown(found)}"
    return None


def check_header(header: Any) -> str | None:
    """run.json."""
    if not isinstance(header, dict):
        return f"it must be an object, not {_shown(header)}"
    if type(header.get("schema")) is not int:
        return f"'schema' must be a whole number, not {_shown(header.get('schema'))}"
    return _object_problem(header, HEADER) or check_info(header["identity"])


def check_info(info: Any) -> str | None:
    """How something was measured: the identity of a run, the info of a profile."""
    if not isinstance(info, dict):
        return f"it must be an object, not {_shown(info)}"
    if problem := _object_problem(info, {key: kinds for key, kinds in INFO.items() if key in info}):
        return problem
    sampling = info.get("sampling") or {}
    if unknown := sorted(set(sampling) - {"temperature", "top_p"}):
        return f"'sampling' holds {_shown(unknown[0])}"
    for key, value in sampling.items():
        if type(value) not in (int, float) or not 0 <= value <= MOST:
            return f"'{key}' must be a number of at least 0, not {_shown(value)}"
    try:
        known = with_menu(info)
        if "menu" in known:
            Menu.from_json(known["menu"])
    except InvalidMenuError as error:
        return str(error)
    return _asking_problem(info.get("asking") or {})


def check_plan(plan: Any, query_ids: Collection[str]) -> str | None:
    """plan.json, which must know each of the run's queries; its curves have a number for each budget."""
    if problem := _object_problem(plan, {"main": (str,), "plans": (dict,), "predicted": (dict,)}):
        return problem
    if plan["main"] not in plan["plans"]:
        return f"'main' is {_shown(plan['main'])}, which is not among its plans"
    num_budgets = 0
    for name, each in plan["plans"].items():
        if problem := _object_problem(each, {"menu": (list,), "budgets": (list,)}):
            return f"plan {_shown(name)}: {problem}"
        try:
            menu = Menu.from_json(each["menu"])
        except InvalidMenuError as error:
            return f"plan {_shown(name)}: {error}"
        num_budgets = menu.num_options if name == plan["main"] else num_budgets
        for row in each["budgets"]:
            if problem := _object_problem(row, {"id": (str,), "budget": (int,)}):
                return f"plan {_shown(name)}: a budget: {problem}"
            if row["budget"] and row["budget"] not in menu:
                return (
                    f"plan {_shown(name)}: {row['budget']}, of {_shown(row['id'])}, is not a budget of the menu {menu}"
                )
        ids = [row["id"] for row in each["budgets"]]
        if missing := sorted(set(query_ids).difference(ids)):
            return f"plan {_shown(name)} has no budget for {_shown(missing[0])}"
        if len(ids) > len(query_ids):
            known, twice = set(query_ids), sorted(query_id for query_id, count in Counter(ids).items() if count > 1)
            unknown = [query_id for query_id in ids if query_id not in known]
            what = f"a budget for {_shown(unknown[0])}, which is no question of it" if unknown else ""
            return f"plan {_shown(name)} has {what or f'two budgets for {_shown(twice[0])}'}"
    unseen = plan.get("unseen", [])
    if not isinstance(unseen, list) or not all(isinstance(query_id, str) for query_id in unseen):
        return f"'unseen' must be a list of ids, not {_shown(unseen)}"
    if missing := sorted(set(query_ids) - set(plan["predicted"])):
        return f"'predicted' lacks {_shown(missing[0])}"
    for query_id, curves in plan["predicted"].items():
        if problem := _curves_problem(curves, num_budgets):
            return f"'predicted' of {_shown(query_id)}: {problem}"
    return None


def check_answer(row: Any) -> str | None:
    """One line of answers.jsonl."""
    if problem := _object_problem(row, {"id": (str,), "budget": (int,), "answer": (str, NoneType)}):
        return problem
    for key, kinds in (("reasoning_tokens", (int, NoneType)), ("tokens", (int, NoneType)), ("error", (str, NoneType))):
        if type(row.get(key)) not in kinds:
            return f"'{key}' is {_shown(row[key])}"
    if row.get("grade") not in GRADES:
        return f"'grade' is {_shown(row['grade'])}, not one of {', '.join(map(str, GRADES[1:]))}"
    if row.get("stop_reason", StopReason.ERROR) not in STOP_REASONS:
        return f"'stop_reason' is {_shown(row['stop_reason'])}, not one of {', '.join(STOP_REASONS)}"
    return (
        None
        if (row["answer"] is None) == (row.get("error") is not None)
        else "it has neither answer nor error, or both"
    )


def check_usage(found: Any, menu: Menu, query_ids: Collection[str]) -> str | None:
    """usage.json: a stretch and new budgets, a decision."""
    if problem := _object_problem(found, {"decisions": (list,), "usage": (dict, NoneType)}):
        return problem
    for decision in found["decisions"]:
        if problem := _object_problem(decision, {"alarm": (bool,), "usage": (dict,), "budgets": (dict,)}):
            return f"a decision: {problem}"
        stretch = decision["usage"].get("stretch")
        if type(stretch) not in (int, float) or not 0.0 < stretch <= MOST:
            return f"a decision: 'stretch' must be a number above 0, not {_shown(stretch)}"
        for query_id, budget in decision["budgets"].items():
            if query_id not in query_ids or type(budget) is not int or budget not in menu:
                return f"a decision: {_shown(budget)} is no budget of a question of this run, {_shown(query_id)}"
    return None


def _curves_problem(curves: Any, num_budgets: int) -> str | None:
    if problem := _object_problem(curves, {"p": (list,), "tokens": (list, NoneType)}):
        return problem
    for key, most in (("p", 1), ("tokens", MOST)):
        values = curves[key]
        if values is None:
            continue
        if len(values) != num_budgets:
            return f"'{key}' has {len(values)} numbers for {num_budgets} budgets"
        if not all(type(value) in (int, float) and 0 <= value <= most for value in values):
            return f"'{key}' must hold numbers from 0 to {most:,}"
    return None


def check_counts(counts: Any) -> str | None:
    """What an engine counted: numbers, and objects of numbers."""
    if not isinstance(counts, dict):
        return f"it must be an object, not {_shown(counts)}"
    for key, value in counts.items():
        if isinstance(value, dict):
            if problem := check_counts(value):
                return problem
        elif type(value) not in (int, float) or not 0 <= value <= MOST:
            return f"{_shown(key)} must be a number of at least 0, not {_shown(value)}"
    return None


def _asking_problem(asking: Mapping[str, Any]) -> str | None:
    shots, tokens = asking.get("shots", []), asking.get("tokens")
    is_pairs = isinstance(shots, list) and all(
        isinstance(shot, list) and len(shot) == 2 and all(isinstance(text, str) for text in shot) for shot in shots
    )
    if not is_pairs:
        return "'asking' must have pairs of texts as 'shots'"
    if tokens is not None and (type(tokens) not in (int, float) or not 0 <= tokens <= MOST):
        return f"'tokens' of 'asking' must be a number, not {_shown(tokens)}"
    return None


def _object_problem(value: Any, kinds: Kinds) -> str | None:
    """The first key of `kinds` that is missing, of another type, or a count out of range."""
    if not isinstance(value, dict):
        return f"it must be an object, not {_shown(value)}"
    for key, allowed in kinds.items():
        if key not in value:
            return f"'{key}' is missing"
        found = value[key]
        if type(found) not in allowed:  # exactly: true is no number
            wanted = " or ".join(WORDS[kind] for kind in allowed if kind is not NoneType)
            return f"'{key}' must be {wanted}, not {_shown(found)}"
        if type(found) is int and not 0 <= found <= MOST and key != "seed":
            return f"'{key}' must be between 0 and {MOST:,}, not {_shown(found)}"
    return None


def _shown(value: Any) -> str:
    """A value in a message, not longer than a line; a long or deep one is only named."""
    if isinstance(value, dict | list):
        return f"{WORDS[type(value)]} of {len(value)}"
    if isinstance(value, int) and abs(value) > MOST:
        return "a huge number"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
