"""The tokens of effort levels, measured on the user's questions, as a menu of options."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...core.data import Query, Request, StopReason
from ...core.options import Option, to_toml
from ...core.protocols import check_option
from ...core.showing import Progress, silent, told
from ...core.waiting import collect, finish
from ...engines.context import ceiling_of
from ...engines.server.engine import OpenAIEngine
from ...errors import InvalidSettingsError

LEVELS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
CEILING = 16_384  # longest thought that is waited for
NUM_SHUFFLES = 2_000
SIGNIFICANCE = 0.05

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Taken:
    """What answers by one option took.

    Attributes:
        option: with the mean of all tokens that were generated, thought and answer, as its `tokens`.
        most: tokens of any answer.
        num: answers that were counted.
        num_failed: requests that brought none.
        num_cut: counted answers whose thought was still going on at its cap, or at the longest that was waited for; an
            option without a cap takes more than it shows then.
    """

    option: Option
    most: int
    num: int
    num_failed: int
    num_cut: int

    def to_text(self) -> str:
        """In words."""
        faults = (("failed", self.num_failed), ("cut", self.num_cut))
        rest = "".join(f", {count} {what}" for what, count in faults if count)
        return f"{self.option.label} {self.option.tokens or 0.0:,.1f} tokens on average (longest {self.most:,}{rest})"


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured.

    Attributes:
        taken: of each option that brought an answer, ascending by tokens.
        tokens: option -> query id -> tokens of its answer.
    """

    taken: tuple[Taken, ...]
    tokens: Mapping[str, Mapping[str, int]]

    def to_toml(self, made: str) -> str:
        """A menu file; `made` says how it came about."""
        lines = [f"# {made}", *(f"# {each.to_text()}, n {each.num}" for each in self.taken)]
        return "\n".join([*lines, "", to_toml(each.option for each in self.taken)])

    @property
    def chance(self) -> float:
        """Chance of options that differ as much as these if all were the same; 1 where there are not two of them.

        A permutation test (Fisher 1935): each question's counts are shuffled among the options. The statistic is the
        variance over options of the mean logarithm, so that one long thought does not decide.
        """
        common = set.intersection(*map(set, self.tokens.values())) if len(self.tokens) > 1 else set()
        if not common:
            return 1.0
        logs_L_Q = np.log1p([[tokens[query_id] for query_id in sorted(common)] for tokens in self.tokens.values()])
        seen = logs_L_Q.mean(axis=1).var()
        random = np.random.default_rng(0)
        shuffled = (random.permuted(logs_L_Q, axis=0).mean(axis=1).var() for _ in range(NUM_SHUFFLES))
        num_as_large = sum(bool(variance >= seen - 1e-12) for variance in shuffled)
        return (1 + num_as_large) / (1 + NUM_SHUFFLES)

    @property
    def can_tell(self) -> bool:
        """Whether so few counts can show any difference at all: two options and five questions cannot."""
        num_common = len(set.intersection(*map(set, self.tokens.values()))) if self.tokens else 0
        return num_common * math.lgamma(len(self.tokens) + 1) >= math.log(2 / SIGNIFICANCE)


def options_of(levels: Sequence[str], field: str) -> list[Option]:
    """The options that `--levels` names: a number is a cap, anything else an effort level, which goes as `field`.

    Raises:
        InvalidSettingsError: a level for a server that takes none.
    """
    names = list(levels or LEVELS)
    if not field and (wrong := [name for name in names if not name.isdecimal()]):
        raise InvalidSettingsError(f"this kind of server takes no effort level ({wrong[0]}); name caps: --levels 1024")
    return [
        Option(f"cap {name}", cap=int(name)) if name.isdecimal() else Option(name, set={field: name}) for name in names
    ]


def longest(option: Option, context_tokens: int | None, room: int) -> int:
    """Most tokens that one answer by `option` may take while it is measured."""
    return min(CEILING, context_tokens or CEILING) if option.cap is None else option.cap + room


def measure(
    engine: OpenAIEngine, queries: Sequence[Query], options: Sequence[Option], *, progress: Progress = silent
) -> Measured:
    """What each option takes on `queries`; one that brings no counted answer at all is left out.

    Raises:
        InvalidSettingsError: an option that the server cannot be asked by.
    """
    for option in options:
        check_option(engine, option)
    ceiling = min(CEILING, ceiling_of(engine.info))
    requests = (
        Request(query, ceiling if option.cap is None else option.cap, option=option)
        for query in queries
        for option in options
    )
    total = len(queries) * len(options)
    done = finish(collect(told(engine.generate(requests), progress, "measure the options", total)))
    taken, tokens = [], {}
    for option in options:
        own = [each for each in done if each.option == option.label]
        errors = [each.error for each in own if each.error]
        if errors:
            logger.info("option %s: %d of %d requests failed: %s", option.label, len(errors), len(own), errors[0])
        outcomes = {each.query_id: each.at(each.budget) for each in own}
        counted = {name: each.tokens for name, each in outcomes.items() if each and each.tokens is not None}
        if counted:
            num_cut = sum(
                each is not None and each.tokens is not None and each.stop_reason is StopReason.BUDGET
                for each in outcomes.values()
            )
            mean = round(sum(counted.values()) / len(counted), 1)
            made = replace(option, tokens=mean)
            taken.append(Taken(made, max(counted.values()), len(counted), len(errors), num_cut))
            tokens[option.label] = counted
            logger.info("option %s", taken[-1].to_text())
    return Measured(tuple(sorted(taken, key=lambda each: each.option.tokens or 0.0)), tokens)
