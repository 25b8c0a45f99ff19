"""Result files of a job of requests -> records of a run, each request settled once; and what is left to ask.

RUN/batches.jsonl has a line for each round, and RUN/settled.jsonl one for what came of each request: both are read
again at the next call, so that files may come in any order, in parts, and twice.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from ..core.codec import decode, encode
from ..core.data import Generation, Query, Request
from ..core.records import Record
from ..engines.flight import failed
from ..engines.server.batches import BatchCalls
from ..errors import InvalidInputError, RunError
from ..runs.lines import Appender, appending, read_lines
from ..runs.store import RunDirectory
from ..servers.batches import Result, read_result, result_lines
from ..servers.reading import MOST_BYTES
from .batches import OURS, Bounds, Round
from .judging import Judge
from .keeping import judged
from .plan import Plan

ROUNDS, SETTLED = "batches.jsonl", "settled.jsonl"
AT_ONCE = 256  # results that are put on disk together
AT_ONCE_BYTES = 16 << 20  # of their lines, at most
SHOWN = 20


class State(enum.StrEnum):
    """What came of a request."""

    DONE = "done"  # an answer
    CENSORED = "censored"  # cut with nothing to show
    FAILED = "failed"  # an error, or a line that cannot be read
    LOST = "lost"  # the batch has ended without a word on it


@dataclass(frozen=True, slots=True)
class Settled:
    """One line of settled.jsonl.

    Attributes:
        id: custom_id of the request.
        state: what came of it.
        tokens: generated for it; None where that is not known: then it is charged at its most.
        prompt_tokens: of it; None where that is not known.
        reason: why it failed.
    """

    id: str
    state: State
    tokens: int | None = None
    prompt_tokens: int | None = None
    reason: str = ""


@dataclass(slots=True)
class Job:
    """Rounds of a job, and what came of their requests.

    Attributes:
        plan: of the job.
        rounds: the first first.
        settled: custom_id -> what came of it; an answer stands before a failure.
        tokenizer: of the model, which counts thoughts; None where it is not here.
    """

    plan: Plan
    tokenizer: Any | None = None
    rounds: list[Round] = field(default_factory=list)
    settled: dict[str, Settled] = field(default_factory=dict)
    _calls: dict[str, BatchCalls] = field(default_factory=dict)
    _query_of: dict[str, Query] = field(default_factory=dict)

    @classmethod
    def open(cls, run: RunDirectory, plan: Plan, given: Iterable[Round], tokenizer: Any | None = None) -> Self:
        """The job of a run directory, with rounds that it does not hold yet; the run's lock must be held."""
        job = cls(plan, tokenizer, list(read_lines(run.path / ROUNDS, Round.from_json)))
        known = {each.fingerprint for each in job.rounds}
        new = [each for each in given if each.fingerprint not in known]
        job.add(run, new)
        for line in read_lines(run.path / SETTLED, lambda value: decode(Settled, value, lenient=(Settled,))):
            job._take(line)
        if unknown := job.settled.keys() - job.names().keys():
            raise RunError(
                f"{run.path / SETTLED} has a result of {min(unknown)!r}, which no round in {ROUNDS} asked for. Copy "
                "the folder again, or give another --out to collect all results anew."
            )
        job._query_of = {query.id: query for query in plan.queries}
        return job

    def add(self, run: RunDirectory, rounds: Sequence[Round]) -> None:
        """Keeps further rounds with the run."""
        planned = set(self.plan.allocation.query_ids)
        for each in rounds:
            if unknown := [name for name in each.asked if name not in planned]:
                raise InvalidInputError(f"round {each.number} asks {unknown[0]!r}, which its plan does not hold")
        if rounds:
            with appending(run.path / ROUNDS) as lines:
                lines.append([each.to_json() for each in rounds])
        self.rounds = sorted([*self.rounds, *rounds], key=lambda each: each.number)

    def _take(self, line: Settled) -> bool:
        """Takes in what came of a request; whether that is new."""
        before = self.settled.get(line.id)
        if before is not None and _WEIGHT[before.state] >= _WEIGHT[line.state]:
            return False
        self.settled.pop(line.id, None)  # what came first stands first
        self.settled[line.id] = line
        return True

    def names(self) -> dict[str, tuple[Round, str, int]]:
        """custom_id -> its round, query and sample, of all that was ever asked."""
        return {name: (each, *whose) for each in self.rounds for name, whose in each.names().items()}

    def request(self, each: Round, query_id: str, sample: int = 0) -> Request:
        """The request for a query's sample in a round."""
        context = self.calls(each).asked.context_tokens
        return self.plan.request(self._query_of[query_id], each.asked[query_id], sample, context)

    def calls(self, each: Round) -> BatchCalls:
        """What writes the requests of a round, and reads their answers."""
        if each.fingerprint not in self._calls:
            self._calls[each.fingerprint] = BatchCalls(each.server, self.tokenizer)
        return self._calls[each.fingerprint]

    def bounds(self, each: Round) -> Bounds:
        """What a round's requests may take at most."""
        return Bounds(self.calls(each), self.plan, each.hard_cap, each.prices)

    # --- results -----------------------------------------------------------------------------------------------------

    def check(self, paths: Sequence[Path]) -> set[str]:
        """Refuses files of another job before anything is kept of them; the fingerprints of the rounds they are of.

        Raises:
            InvalidInputError: results of another job, or of none.
        """
        known, found = self.names(), set[str]()
        for path in paths:
            num_lines, has_ours = 0, False
            for number, line in enumerate(result_lines(path), 1):
                num_lines += bool(line.strip())
                name = read_result(line).custom_id if len(line) < MOST_BYTES else ""
                if name in known:
                    found.add(known[name][0].fingerprint)
                    has_ours = True
                other = OURS.fullmatch(name)
                if name not in known and other and other[1] not in {each.fingerprint for each in self.rounds}:
                    raise InvalidInputError(
                        f"{path} line {number} is of another job: its requests have the fingerprint {other[1]}, and "
                        f"this job's have {', '.join(each.fingerprint for each in self.rounds)}; nothing of the file "
                        "was taken"
                    )
            if num_lines and not has_ours:
                raise InvalidInputError(
                    f"{path} holds no result of this job: none of {num_lines} lines has a custom_id that begins with "
                    f"{self.rounds[-1].fingerprint}"
                )
        return found

    def collect(self, run: RunDirectory, path: Path, judge: Judge, seen: Counter[str]) -> None:
        """Takes the results of a file that are new, as records and as settled requests, in that order.

        Args:
            run: its lock must be held.
            path: of the file.
            judge: of answers to queries with a reference.
            seen: counts lines, and those that are of no request.
        """
        known = self.names()
        with run.appender() as records, appending(run.path / SETTLED) as lines:
            held, num_bytes = list[tuple[Record, Settled]](), 0
            for number, line in enumerate(result_lines(path), 1):
                if not line.strip():
                    continue
                seen["lines"] += 1
                result = read_result(line)
                if result.custom_id not in known:
                    seen["unreadable"] += 1
                    seen[f"{path} line {number}: {result.reason or 'a custom_id of no request'}"] += 1
                    continue
                each, query_id, sample = known[result.custom_id]
                request = self.request(each, query_id, sample)
                generation, settled = self._settle(self.calls(each), request, result)
                if not self._take(settled):
                    seen["known"] += 1
                    continue
                query = self._query_of[query_id]
                record = judged(Record.of(generation, setup="batch"), query.reference, judge.grader)
                held.append((record, settled))
                num_bytes += len(line)
                if len(held) == AT_ONCE or num_bytes > AT_ONCE_BYTES:
                    _keep(records, lines, held)
                    held, num_bytes = [], 0
            _keep(records, lines, held)

    def _settle(self, calls: BatchCalls, request: Request, result: Result) -> tuple[Generation, Settled]:
        """What came back for a request, and what it is settled by."""
        name = result.custom_id
        if result.reply is None:
            settled = Settled(name, State.FAILED, result.tokens, result.prompt_tokens, result.reason)
            return failed(request, result.reason), settled
        try:
            done = calls.generation(request, result.reply)
        except (TypeError, ValueError, AttributeError, IndexError) as error:  # of a shape that nobody thought of
            reason = f"the answer could not be read: {type(error).__name__}: {str(error)[:120]}"
            return failed(request, reason), Settled(name, State.FAILED, None, None, reason)
        tokens, prompt = calls.used(result.reply), done.prompt_tokens or None
        if done.is_failed:
            return done, Settled(name, State.FAILED, tokens, prompt, done.error or "")
        if result.reply.is_cut and not done.answer.strip():
            reason = f"cut at {tokens if tokens is not None else 'its bound of'} tokens with nothing to show (censored)"
            return failed(request, reason, prompt_tokens=done.prompt_tokens), Settled(
                name, State.CENSORED, tokens, prompt, reason
            )
        outcome = done.at(done.budget)
        if outcome is not None and outcome.tokens is not None:
            tokens = outcome.tokens
        return done, Settled(name, State.DONE, tokens, prompt)

    def end(self, run: RunDirectory, ended: Collection[str]) -> None:
        """Notes what has no result as lost, of the rounds with these fingerprints: their batches have ended."""
        known, reason = self.names(), "its batch ended without a result of it"
        lost = [
            Settled(name, State.LOST, reason=reason)
            for name, (each, *_) in known.items()
            if name not in self.settled and each.fingerprint in ended
        ]
        with run.appender() as records, appending(run.path / SETTLED) as lines:
            held = []
            for each in lost:
                self._take(each)
                request = self.request(*known[each.id])
                held.append((Record.of(failed(request, each.reason), setup="batch"), each))
            _keep(records, lines, held)

    # --- what it comes to --------------------------------------------------------------------------------------------

    def budgets(self) -> dict[str, int]:
        """Query id -> the budget of its answer: the first that it has all samples by, else that it was asked with last.

        Of the latter, the one by which it has most samples.
        """
        found, known = dict(self.plan), self.names()
        came: dict[str, dict[int, set[int]]] = {}
        whole = dict[str, int]()
        for name, settled in self.settled.items():  # as its records lie: the first answer is the one that counts
            if settled.state is State.DONE:
                each, query_id, sample = known[name]
                budget = each.asked[query_id]
                samples = came.setdefault(query_id, {}).setdefault(budget, set())
                samples.add(sample)
                if len(samples) == self._num_samples(budget):
                    whole.setdefault(query_id, budget)
        for each in self.rounds:
            for query_id, budget in each.asked.items():
                has = came.get(query_id, {})
                if len(has.get(budget, ())) >= len(has.get(found[query_id], ())):
                    found[query_id] = budget
        return found | whole

    def _num_samples(self, budget: int) -> int:
        return self.plan.menu.option(budget).samples

    def waiting(self) -> list[str]:
        """Queries that have not all their samples, once for each of their requests without a result."""
        flying = self._flying()
        return [
            query_id
            for query_id, states in self._states().items()
            if any(state is not State.DONE for state in states)
            for _ in range(flying[query_id])
        ]

    def left(self) -> dict[str, State | None]:
        """Queries without an answer that may be asked again -> what came of them, None where they were not asked."""
        flying, found = self._flying(), dict[str, State | None]()
        for query_id, states in self._states().items():
            if not flying[query_id] and State.DONE not in states:
                known = [state for state in states if state is not None]
                found[query_id] = State.CENSORED if State.CENSORED in known else known[-1] if known else None
        return found

    def short(self) -> dict[str, tuple[int, ...]]:
        """Queries with some samples of their vote -> those that may be asked again. One that was cut abstains."""
        flying, again = self._flying(), (None, State.FAILED, State.LOST)
        found = {
            query_id: tuple(sample for sample, state in enumerate(states) if state in again)
            for query_id, states in self._states().items()
            if not flying[query_id] and State.DONE in states
        }
        return {query_id: samples for query_id, samples in found.items() if samples}

    def _states(self) -> dict[str, list[State | None]]:
        """Query id -> what came of each of its samples; None of one without a result."""
        budget_of = self.budgets()
        states_of: dict[str, list[State | None]] = {
            query_id: [None] * self._num_samples(budget) for query_id, budget in budget_of.items()
        }
        for name, (each, query_id, sample) in self.names().items():
            settled, states = self.settled.get(name), states_of[query_id]
            if settled is not None and each.asked[query_id] == budget_of[query_id]:
                before = states[sample]
                if before is None or _WEIGHT[settled.state] >= _WEIGHT[before]:
                    states[sample] = settled.state
        return states_of

    def _flying(self) -> Counter[str]:
        """Query id -> its requests without a result."""
        return Counter(query_id for name, (_, query_id, _) in self.names().items() if name not in self.settled)

    def give_up(self, run: RunDirectory, reason: str) -> None:
        """Notes samples that are not asked, of votes that have others, as failed: what came votes.

        Should such a sample be asked later after all, it votes too.
        """
        tries, context = run.tries(), self.rounds[0].server.context_tokens
        budget_of, held = self.budgets(), list[Record]()
        for query_id, samples in self.short().items():
            for sample in samples:
                asked = self.plan.request(self._query_of[query_id], budget_of[query_id], sample, context)
                if tries.is_left(query_id, sample, asked.label, retry_failed=False):
                    held.append(Record.of(failed(asked, reason), setup="batch"))
        if held:
            with run.appender() as records:
                records.append(record.to_json() for record in held)

    def charged(self) -> tuple[float, float]:
        """`(charged, under way)`, counted as the hard cap is: what came back as counted, all else at its most."""
        charged, flying = 0.0, 0.0
        for each in self.rounds:
            bounds = self.bounds(each)
            if bounds.cap is None:
                continue
            for name, whose in each.names().items():
                settled, request = self.settled.get(name), self.request(each, *whose)
                if settled is None:
                    flying += bounds.most(request)
                else:
                    charged += _charge(bounds, request, settled)
        return charged, flying

    def reasons(self) -> list[Settled]:
        """What failed or was censored or lost, of queries that have no answer; each query's last."""
        known, last = self.names(), dict[str, Settled]()
        answered = {known[name][1] for name, settled in self.settled.items() if settled.state is State.DONE}
        for name, (_, query_id, _) in known.items():
            if query_id not in answered and name in self.settled:
                last[query_id] = replace(self.settled[name], id=query_id)
        return list(last.values())


_WEIGHT = {State.LOST: 0, State.FAILED: 1, State.CENSORED: 2, State.DONE: 3}


def _charge(bounds: Bounds, request: Request, settled: Settled) -> float:
    """What a settled request is charged with under the hard cap."""
    assert bounds.cap is not None
    most = bounds.most(request)
    if settled.tokens is None:
        return most
    if bounds.cap.cost.value == "spent":
        return float(settled.tokens)
    if not settled.tokens and settled.state is State.FAILED:
        return 0.0  # nobody bills what was not run
    prompt = bounds.calls.most_prompt_tokens(request) if settled.prompt_tokens is None else settled.prompt_tokens
    return bounds.usd(request, prompt, settled.tokens)


def _keep(records: Appender, lines: Appender, held: Sequence[tuple[Record, Settled]]) -> None:
    """Puts records on disk, then what they settle: a kill between the two makes the records twice, and counts once."""
    if held:
        records.append(record.to_json() for record, _ in held)
        lines.append(encode(settled) for _, settled in held)
