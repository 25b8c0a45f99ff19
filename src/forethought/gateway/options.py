"""What the plug-in is told by environment variables, checked as a whole when the server starts."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ..core.data import Cost
from ..core.registry import unknown_name_message
from ..core.terms import TOKEN_COSTS
from ..errors import InvalidSettingsError
from ..predictors.bundle import shipped_predictors
from .decision import AGED, PATIENCE, WAYS

VARIABLES = {
    "FORETHOUGHT_PREDICTOR": "a predictor folder, a run that holds one, or a shipped name",
    "FORETHOUGHT_PRICE": "success that a token must buy",
    "FORETHOUGHT_MEAN_TOKENS": "tokens a query, on average; sets the price",
    "FORETHOUGHT_PROFILE": "the measured questions on which FORETHOUGHT_MEAN_TOKENS sets the price",
    "FORETHOUGHT_COST": "what tokens are counted in: granted or spent",
    "FORETHOUGHT_ANSWER_ROOM": "tokens for the answer, the end of the thought included",
    "FORETHOUGHT_CAP_OFFSET": "tokens by which the server overshoots a cap; auto measures it",
    "FORETHOUGHT_PRIORITY": "aged: short requests first, waiting counted; length: by length alone; none: leave it",
    "FORETHOUGHT_PATIENCE": "seconds of waiting that outweigh one expected token, for aged priorities",
}
PREFIX = "FORETHOUGHT_"
ANSWER_ROOM = 512
NEAR = 0.8  # a variable of ours this much like one of these is taken for a slip of the pen


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingOptions:
    """One attribute a variable of VARIABLES, which say what it means; None, or "", where it is not set."""

    predictor: str
    price: float | None = None
    mean_tokens: float | None = None
    profile: str = ""
    cost: Cost = Cost.GRANTED
    answer_room: int = ANSWER_ROOM
    cap_offset: int | None = None
    priority: str = AGED
    patience: float = PATIENCE

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Reads the variables; one that is empty counts as not set.

        Raises:
            InvalidSettingsError: everything that is wrong with them, at once.
        """
        problems: list[str] = _misspelt(environment)
        given = {name: environment.get(name, "").strip() for name in VARIABLES}
        price = _number("FORETHOUGHT_PRICE", given, problems, least=0.0, most=1.0)
        mean_tokens = _number("FORETHOUGHT_MEAN_TOKENS", given, problems, least=1.0)
        room = _number("FORETHOUGHT_ANSWER_ROOM", given, problems, least=1.0, whole=True)
        is_auto = given["FORETHOUGHT_CAP_OFFSET"] in ("", "auto")
        offset = None if is_auto else _number("FORETHOUGHT_CAP_OFFSET", given, problems, least=-1024.0, whole=True)
        if not given["FORETHOUGHT_PREDICTOR"]:
            problems.append(
                "FORETHOUGHT_PREDICTOR is not set: a folder that `forethought train` made, or one of "
                f"{', '.join(shipped_predictors())}"
            )
        if bool(given["FORETHOUGHT_PRICE"]) == bool(given["FORETHOUGHT_MEAN_TOKENS"]):
            both = "both are" if given["FORETHOUGHT_PRICE"] else "neither is"
            problems.append(f"set FORETHOUGHT_PRICE or FORETHOUGHT_MEAN_TOKENS, one of the two; {both} set")
        profile = given["FORETHOUGHT_PROFILE"]
        if profile and not Path(profile).exists():
            problems.append(f"FORETHOUGHT_PROFILE: there is no {profile}")
        cost = _choice("FORETHOUGHT_COST", given, problems, [cost.value for cost in TOKEN_COSTS])
        priority = _choice("FORETHOUGHT_PRIORITY", given, problems, list(WAYS))
        patience = _number("FORETHOUGHT_PATIENCE", given, problems, least=0.0)
        if problems:
            raise InvalidSettingsError("the settings of the plug-in are wrong:\n  " + "\n  ".join(problems))
        return cls(
            predictor=given["FORETHOUGHT_PREDICTOR"],
            price=price,
            mean_tokens=mean_tokens,
            profile=profile,
            cost=Cost(cost),
            answer_room=ANSWER_ROOM if room is None else int(room),
            cap_offset=None if offset is None else int(offset),
            priority=priority,
            patience=PATIENCE if patience is None else patience,
        )


def _number(
    name: str,
    given: Mapping[str, str],
    problems: list[str],
    *,
    least: float,
    most: float = math.inf,
    whole: bool = False,
) -> float | None:
    text = given[name]
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < least or (whole and value != int(value)):
        problems.append(f"{name} must be a {'whole ' if whole else ''}number of at least {least:g}, not {text!r}")
        return None
    if value > most:
        problems.append(f"{name} must be at most {most:g}, not {text!r}")
        return None
    return value


def _choice(name: str, given: Mapping[str, str], problems: list[str], choices: list[str]) -> str:
    text = given[name] or choices[0]
    if text in choices:
        return text
    problems.append(f"{name}: {unknown_name_message('choice', text, choices)}")
    return choices[0]


def _misspelt(environment: Mapping[str, str]) -> list[str]:
    """Variables that were surely meant for us; others of our prefix belong to the command line."""
    known = [name.removeprefix(PREFIX) for name in VARIABLES]
    problems = []
    for name in sorted(environment):
        own = name.removeprefix(PREFIX)
        if own == name or own in known:
            continue
        near = [one for one in known if one.count("_") == own.count("_")]
        if close := difflib.get_close_matches(own, near, n=1, cutoff=NEAR):
            problems.append(f"there is no variable {name}. Did you mean {PREFIX}{close[0]}?")
    return problems
