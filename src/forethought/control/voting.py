"""The samples of each query of a run, gathered as they come: the answer is their vote."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..core.data import Grade, Outcome, Query, StopReason
from ..core.menu import Menu
from ..core.options import Option
from ..core.protocols import Grader
from ..core.provenance import Provenance
from ..core.records import Record
from ..core.votes import Voting, tally
from ..graders import group_answers
from .answers import Answer
from .billing import bill
from .judging import Judge

logger = logging.getLogger(__name__)

SHARE_DIGITS = 4  # of a share, as it is shown and held against the least agreement


def is_short(answer: Answer, menu: Menu) -> bool:
    """Whether an answer is the vote of fewer samples than its option has: the others failed."""
    return menu.is_named and answer.error is None and answer.samples < menu.option(answer.budget).samples


@dataclass(frozen=True, slots=True)
class _Sample:
    """What is kept of one sample until its query's others have come."""

    record: Record
    outcome: Outcome | None
    usd: float | None


class Gathering:
    """Takes the records of a run in any order, and gives the answer to a query with the last of its samples.

    Args:
        known: the queries whose answers are wanted, by id.
        budget_of: id -> budget, which may change meanwhile.
        made: how the run is measured: its menu says how many samples an option has.
        voting: how samples vote.
        grader: says which answers are the same; None for the run's own, opened where there is a vote.
        is_open: whether samples are drawn in waves: an option says only how many there are at most, and answers come by
            `settle` or `rest`.
    """

    def __init__(
        self,
        known: Mapping[str, Query],
        budget_of: Mapping[str, int],
        made: Provenance,
        voting: Voting,
        grader: Grader | None = None,
        *,
        is_open: bool = False,
    ) -> None:
        self._known, self._budget_of, self._made, self._voting = known, budget_of, made, voting
        self._grader, self._is_open, self._is_warned = grader, is_open, False
        self._held: dict[str, dict[int, _Sample]] = {}

    def add(self, record: Record) -> Answer | None:
        """The answer of the record's query, where it is complete now; None for another option's or an unknown query.

        A vote that counted a failed sample is given again when that sample comes after all.
        """
        query = self._known.get(record.query_id)
        if query is None:
            return None
        budget = self._budget_of[query.id]
        option = self._option(budget)
        if option is None or (option.samples == 1 and not self._is_open):
            is_own = record.sample == 0 and (option is None or record.option == option.single.label)
            return Answer.of(query, budget, record, bill(record, self._made)) if is_own else None
        if record.option != option.single.label or record.sample >= option.samples:
            return None
        samples = self._held.setdefault(query.id, {})
        samples[record.sample] = _Sample(record, record.at(record.budget), bill(record, self._made))
        if self._is_open or len(samples) < option.samples:
            return None
        answer = self._vote(query, budget, option, [samples[number] for number in sorted(samples)])
        if not any(sample.record.is_failed for sample in samples.values()):
            del self._held[query.id]
        return answer

    def forget(self, query_id: str, is_left: Callable[[Record], bool]) -> None:
        """Drops the samples of a query that are tried again: its vote is given once they have come."""
        held = self._held.get(query_id, {})
        for number in [number for number, sample in held.items() if is_left(sample.record)]:
            del held[number]

    def settle(self, query_id: str) -> Answer:
        """The answer to a query by the samples that came."""
        samples, budget = self._held.pop(query_id), self._budget_of[query_id]
        option = self._option(budget)
        assert option is not None
        return self._vote(self._known[query_id], budget, option, [samples[number] for number in sorted(samples)])

    def rest(self) -> list[Answer]:
        """Of waves: the answers to all queries by the samples that came so far."""
        return [self.settle(query_id) for query_id in list(self._held)] if self._is_open else []

    def warn_of(self, record: Record) -> None:
        """Says, once, that votes are not weighed although they should be: the engine shows nothing to weigh them by."""
        if not self._voting.weights or self._is_warned or record.is_failed or not self._is_vote(record):
            return
        if self._voting.weights_of([record.logprobs]) is None:
            self._is_warned = True
            logger.warning(
                "note: votes are to be weighed by the log-probability of the %s, which the engine did not show for %s "
                "(--engine-option logprobs=true): where it lacks, each sample of the question has one vote",
                self._voting.weights,
                record.query_id,
            )

    def _is_vote(self, record: Record) -> bool:
        option = self._option(self._budget_of[record.query_id]) if record.query_id in self._known else None
        return option is not None and option.samples > 1

    def _option(self, budget: int) -> Option | None:
        menu = self._made.menu
        return menu.option(budget) if menu is not None and menu.is_named and budget in menu else None

    def _vote(self, query: Query, budget: int, option: Option, samples: list[_Sample]) -> Answer:
        """The answer that most samples give; among as many that of the earliest. Failed samples abstain."""
        came = [sample.outcome for sample in samples if sample.outcome is not None]
        if not came:
            error = next(sample.record.error for sample in samples)
            return Answer(query.id, budget, None, reference=query.reference, error=error, option=option.label)
        self._grader = self._grader or Judge.of_provenance(self._made).grader
        groups = group_answers([outcome.answer for outcome in came], self._grader)
        weights = self._voting.weights_of([outcome.logprobs for outcome in came])
        vote = tally(groups, weights)
        first = groups.index(vote.winners[0]) if vote.winners else 0
        counted = [outcome.tokens for outcome in came if outcome.tokens is not None]
        thoughts = [outcome.reasoning_tokens for outcome in came if outcome.reasoning_tokens is not None]
        bills = [sample.usd for sample in samples if sample.usd is not None]
        is_natural = all(outcome.stop_reason is StopReason.NATURAL for outcome in came)
        share = vote.share * len(came) / len(samples)
        return Answer(
            query.id,
            budget,
            came[first].answer,
            reasoning_tokens=sum(thoughts) if len(thoughts) == len(came) else None,
            tokens=sum(counted) if len(counted) == len(came) else None,
            stop_reason=StopReason.NATURAL if is_natural else StopReason.BUDGET,
            reference=query.reference,
            grade=self._verdict(came[first], is_readable=bool(vote.winners), has_reference=query.reference is not None),
            option=option.label,
            usd=math.fsum(bills) if len(bills) == len(came) else None,
            samples=len(came),
            share=round(share, SHARE_DIGITS),
            is_abstained=round(share - self._voting.min_agreement, SHARE_DIGITS) < 0,
        )

    @staticmethod
    def _verdict(outcome: Outcome, *, is_readable: bool, has_reference: bool) -> Grade | None:
        if not has_reference:
            return None
        return outcome.grade if is_readable else Grade.UNREADABLE
