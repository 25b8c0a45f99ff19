"""The contract of every engine: budgets, counts, cuts of the same trace, errors as data, streams."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from unittest import SkipTest

from ..core.data import Generation, Message, Probe, Query, Request, Sampling, StopReason
from ..core.options import Option
from ..core.protocols import (
    CountingEngine,
    Engine,
    HiddenStateEngine,
    OptionEngine,
    RoomEngine,
    TemplateEngine,
    check_option,
)
from ..errors import InvalidSettingsError
from .checking import check, expect
from .states import StatesContract
from .subjects import (
    BUDGET,
    CONTEXT_TOKENS,
    MOST_AHEAD,
    NUM_SAMPLES,
    PROBES,
    QUERIES,
    TEMPLATE,
    TOO_LONG,
    Subject,
    Traces,
    collect,
    requests,
    run,
    same,
)

LARGEST_SEED = 2**31 - 1  # that a trace is ever given


class EngineContract(StatesContract):
    """Subclass it as `TestMyEngine(EngineContract)`, and give a fixture `subject`, best module-scoped."""

    def test_it_satisfies_the_protocol(self, subject: Subject) -> None:
        """It has what `Engine` asks for, and hidden states where it says so."""
        expect(isinstance(subject.engine, Engine), "it lacks info, generate or close")
        expect(isinstance(subject.engine, HiddenStateEngine) or not subject.layers, "it has no hidden_states")

    def test_info_needs_no_generation_and_goes_into_json(self, subject: Subject) -> None:
        """`info` names engine, model and template."""
        info = subject.engine.info
        same(info.engine, subject.name, "info.engine")
        expect(info.model, "info.model is empty")
        same((info.template, info.template_hash), (TEMPLATE.name, TEMPLATE.hash), "info's template and its hash")
        same(json.loads(json.dumps(asdict(info))), asdict(info), "info as JSON")
        if subject.layers:
            same(info.num_layers, max(subject.layers), "info.num_layers")
        if isinstance(subject.engine, CountingEngine):
            counted = subject.engine.counted()
            same(json.loads(json.dumps(counted)), counted, "counted() as JSON")

    def test_no_requests_give_nothing(self, subject: Subject) -> None:
        """An empty list is no error."""
        same(run(subject.engine, []), {}, "of no requests")

    def test_every_request_comes_back_once(self, subject: Subject) -> None:
        """By query and sample, with its budget."""
        wanted = sorted((query.id, sample) for query in QUERIES for sample in range(NUM_SAMPLES))
        same(sorted(subject.traces), wanted, "what came back")
        same({done.budget for done in subject.traces.values()}, {BUDGET}, "budgets")

    def test_reasoning_stays_within_the_budget_and_says_how_it_ended(self, subject: Subject) -> None:
        """At the budget, or by itself below it."""
        for done in subject.traces.values():
            expect(done.error is None, f"{done.query_id} failed: {done.error}")
            expect(not done.is_final, "is_final is of an error that comes again")
            expect(done.reasoning_tokens is not None, "reasoning_tokens are not counted")
            if done.stop_reason is StopReason.BUDGET:
                same(done.reasoning_tokens, BUDGET, "tokens of a thought that was cut")
            else:
                same(done.stop_reason, StopReason.NATURAL, "stop_reason")
                expect(0 <= (done.reasoning_tokens or 0) < BUDGET, "a thought that ended by itself is below the budget")

    def test_tokens_are_counted(self, subject: Subject) -> None:
        """Of thought, suffix, answer, probes and prompt."""
        traces = subject.traces
        for done in traces.values():
            counts = [done.answer_tokens, *(probe.answer_tokens for probe in done.probes)]
            expect(
                all(count is not None and 1 <= count <= TEMPLATE.max_answer_tokens for count in counts),
                f"answers take 1 to {TEMPLATE.max_answer_tokens} tokens, not {counts}",
            )
            outcome = done.at(BUDGET)
            total = (done.reasoning_tokens or 0) + done.suffix_tokens + (done.answer_tokens or 0)
            same(outcome and outcome.tokens, total, "tokens of a trace")
        suffixes = {done.suffix_tokens for done in traces.values()}
        expect(len(suffixes) == 1 and min(suffixes) >= 1, f"suffix_tokens are one number, at least 1, not {suffixes}")
        for query in QUERIES:
            prompts = {traces[query.id, sample].prompt_tokens for sample in range(NUM_SAMPLES)}
            expect(len(prompts) == 1 and min(prompts) >= 1, f"prompt_tokens of one query are one number, not {prompts}")

    def test_nothing_is_graded_and_log_probabilities_are_at_most_0(self, subject: Subject) -> None:
        """A grader judges; log-probabilities are shown or not, and those of a thought only where there is one."""
        for done in subject.traces.values():
            places: list[tuple[int | None, Generation | Probe]] = [
                (done.reasoning_tokens, done),
                *((probe.budget, probe) for probe in done.probes),
            ]
            for length, place in places:
                expect(place.grade is None, f"{done.query_id} is graded by the engine")
                if (shown := place.logprobs) is not None:
                    thought = [] if shown.thought is None else [shown.thought]
                    same(len(thought), int(bool(length)), f"log-probabilities of a thought of {length} tokens")
                    expect(all(each <= 0 for each in (shown.answer, *thought)), f"{shown} is above 0")

    def test_a_query_of_several_turns_is_answered(self, subject: Subject) -> None:
        """As one of a single text; an engine that draws nothing may know only what was recorded."""
        turns = (Message("user", "1+1?"), Message("assistant", "2"), Message("user", "½+½? 你好 🤷"))
        (done,) = run(subject.engine, [Request(Query("turns", turns), BUDGET, seed=LARGEST_SEED)]).values()
        same(done.query_id, "turns", "what came of several turns")
        expect(not (subject.draws and done.error), f"several turns failed: {done.error}")

    def test_probes_are_those_below_the_end_ascending(self, subject: Subject) -> None:
        """A trace that ended by itself has no probe beyond."""
        for done in subject.traces.values():
            wanted = [cut for cut in PROBES if cut < (done.reasoning_tokens or 0)]
            same([probe.budget for probe in done.probes], wanted, "probes")

    def test_answers_hold_no_stop_text(self, subject: Subject) -> None:
        """Nor space around them."""
        for done in subject.traces.values():
            for answer in (done.answer, *(probe.answer for probe in done.probes)):
                expect(TEMPLATE.answer_stop not in answer, f"the answer {answer!r} holds the stop text")
                same(answer, answer.strip(), "an answer without space around it")

    def test_a_smaller_cap_cuts_the_same_trace(self, subject: Subject) -> None:
        """A cap of n gives the first n tokens of the trace, and the answer that its probe gave."""
        for cap in (0, 8, 24):
            for key, small in run(subject.engine, requests(budget=cap, probes=PROBES)).items():
                large = subject.traces[key]
                outcome = large.at(cap)
                same(small.answer, outcome and outcome.answer, f"the answer under {cap}")
                same(small.suffix_tokens, large.suffix_tokens, "suffix_tokens under another cap")
                expect((small.reasoning_tokens or 0) <= cap, f"{small.reasoning_tokens} tokens of thought under {cap}")
                if (large.reasoning_tokens or 0) >= cap:  # else the cap may fall inside the end of thought, then text
                    same(small.reasoning_tokens, cap, "tokens of a thought that was cut")
                    expect(large.reasoning.startswith(small.reasoning), "a cut thought begins as the whole one")

    def test_an_answer_stays_within_its_room(self, subject: Subject) -> None:
        """Beside the cap it takes no more than the engine says, or than a forced answer may."""
        engine = subject.engine
        room = engine.answer_room if isinstance(engine, RoomEngine) else 0
        expect(type(room) is int and room >= 0, f"answer_room is {room!r}, not a whole number of tokens")
        for key, done in subject.traces.items():
            most = room or TEMPLATE.max_answer_tokens + (done.suffix_tokens or 0)
            outcome = done.at(done.budget)
            taken = outcome and outcome.tokens is not None and outcome.tokens - (done.reasoning_tokens or 0)
            expect((taken or 0) <= most, f"{key}: the answer took {taken} tokens, and its room is {most}")

    def test_a_budget_of_nothing_is_answered_at_once(self, subject: Subject) -> None:
        """No thought, no probes, an answer."""
        for key, done in run(subject.engine, requests(budget=0, probes=(0, 8))).items():
            same((done.reasoning, done.reasoning_tokens, done.probes), ("", 0, ()), "thought and probes")
            same(done.stop_reason, StopReason.BUDGET, "stop_reason")
            expect(1 <= (done.answer_tokens or 0) <= TEMPLATE.max_answer_tokens, "its answer takes tokens")
            expect(done.suffix_tokens >= 1, "its suffix takes tokens")
            outcome = subject.traces[key].at(0)
            same(done.answer, outcome and outcome.answer, "the answer under 0")

    def test_the_order_of_requests_does_not_matter(self, subject: Subject) -> None:
        """Each trace is its seed's."""
        same(run(subject.engine, requests()[::-1]), subject.traces, "in another order")

    def test_requests_are_taken_as_there_is_room_for_them(self, subject: Subject) -> None:
        """An endless stream is read only so far ahead of what came back, and what comes back is what a list gives."""
        taken = 0

        def endless() -> Iterator[Request]:
            nonlocal taken
            for request in itertools.cycle(requests()):
                taken += 1
                yield request

        async def several(number: int) -> list[tuple[int, Generation]]:
            found = []
            stream = subject.engine.generate(endless())
            async for generation in stream:
                found.append((taken, generation))
                if len(found) == number:
                    break
            if hasattr(stream, "aclose"):
                await stream.aclose()
            return found

        most_ahead = subject.num_engines * MOST_AHEAD
        for number, (read, generation) in enumerate(asyncio.run(several(40)), 1):
            expect(read <= number + most_ahead, f"{read} requests were read when {number} had come back")
            same(generation, subject.traces[generation.query_id, generation.sample], "from a stream")

    def test_a_stream_that_breaks_is_an_error(self, subject: Subject) -> None:
        """What the requests' iterator raises comes out."""

        def broken() -> Iterator[Request]:
            yield requests()[0]
            raise ValueError("no more")

        try:
            run(subject.engine, broken())
        except ValueError as error:
            same(str(error), "no more", "the error")
        else:
            raise AssertionError("an error of the requests' iterator was swallowed")

    def test_priorities_change_the_order_alone(self, subject: Subject) -> None:
        """Not what comes back."""
        asked = [replace(request, priority=-number) for number, request in enumerate(requests())]
        same(run(subject.engine, asked), subject.traces, "with priorities")

    def test_a_request_alone_gives_what_it_gives_in_a_batch(self, subject: Subject) -> None:
        """The batch has no say."""
        alone = requests()[-1]
        key = (alone.query.id, alone.sample)
        same(run(subject.engine, [alone]), {key: subject.traces[key]}, "alone")

    def test_another_seed_gives_another_trace(self, subject: Subject) -> None:
        """Where the engine draws."""
        if not subject.draws:
            raise SkipTest("this engine does not draw traces")
        other = run(subject.engine, requests(seed=77, probes=()))
        same = {key: done.reasoning for key, done in other.items()} == {
            key: done.reasoning for key, done in subject.traces.items()
        }
        expect(not same, "another seed gave the same thoughts")

    def test_samples_of_one_query_are_told_apart_in_one_stream(self, subject: Subject) -> None:
        """Each is its own seed's, whatever else of its query is under way: votes draw many at once."""
        several = range(3 * NUM_SAMPLES if subject.draws else NUM_SAMPLES)
        asked = requests(samples=several)
        mixed = run(subject.engine, [each for number in several for each in asked if each.sample == number])
        same(sorted(mixed), sorted((query.id, sample) for query in QUERIES for sample in several), "what came back")
        for key, done in subject.traces.items():
            same(mixed[key], done, f"{key} among more samples of its query")
        if subject.draws:
            thoughts = {(done.query_id, done.reasoning) for done in mixed.values()}
            expect(len(thoughts) > len(QUERIES), "samples with seeds of their own are all the same")

    def test_probes_in_any_order_and_beyond_the_budget_are_sorted_out(self, subject: Subject) -> None:
        """Twice is once, and none stands at the budget or above."""
        asked = [replace(request, probe_budgets=(16, 8, 8, BUDGET, 2 * BUDGET)) for request in requests()]
        for key, done in run(subject.engine, asked).items():
            wanted = tuple(probe for probe in subject.traces[key].probes if probe.budget in (8, 16))
            same(done.probes, wanted, "probes")

    def test_what_goes_wrong_with_one_is_data(self, subject: Subject) -> None:
        """A prompt too long, a negative budget, one beyond the context: an error of its own, and the rest goes on."""
        good = requests()[0]
        key = (good.query.id, good.sample)
        for bad in (
            Request(TOO_LONG, BUDGET, option=Option("short", cap=BUDGET)),
            Request(Query("bad-budget", "1?"), -1),
            Request(Query("huge", "1?"), 1 << 30),
        ):
            found = run(subject.engine, [bad, good])
            error = found.pop((bad.query.id, bad.sample))
            same(error.stop_reason, StopReason.ERROR, f"stop_reason of {bad.query.id}")
            expect(error.error, f"{bad.query.id} does not say what went wrong")
            same(error.option, bad.label, f"option of {bad.query.id}")
            empty = ("", "", (), bad.budget)
            same((error.reasoning, error.answer, error.probes, error.budget), empty, f"texts of {bad.query.id}")
            counts = (error.reasoning_tokens, error.answer_tokens, error.suffix_tokens)
            same(counts, (0, 0, 0), f"tokens of {bad.query.id}")
            same(found, {key: subject.traces[key]}, f"beside {bad.query.id}")

    def test_an_option_that_is_a_cap_alone_is_that_cap(self, subject: Subject) -> None:
        """By its name the same comes back."""
        asked = [replace(request, option=Option("short", cap=BUDGET)) for request in requests()]
        check_option(subject.engine, Option("short", cap=BUDGET))
        wanted = {key: replace(done, option="short") for key, done in subject.traces.items()}
        same(run(subject.engine, asked), wanted, "by an option with a cap")

    def test_an_option_that_it_cannot_be_asked_by_is_refused_in_words(self, subject: Subject) -> None:
        """By `check_option`, before anything is generated; an engine that knows options fails the request as well."""
        option = Option("odd", cap=BUDGET, set={"messages": []})
        try:
            check_option(subject.engine, option)
        except InvalidSettingsError as error:
            expect("'odd'" in str(error), f"the error does not name the option: {error}")
        else:
            raise AssertionError("an option that sets `messages` was not refused")
        if not isinstance(subject.engine, OptionEngine):
            return
        good = requests()[0]
        key = (good.query.id, good.sample)
        found = run(subject.engine, [replace(good, sample=NUM_SAMPLES, option=option), good])
        bad = found.pop((good.query.id, NUM_SAMPLES))
        same((bad.stop_reason, bad.option, bad.answer), (StopReason.ERROR, "odd", ""), "what was refused")
        expect(bad.error and "messages" in bad.error, f"it does not say what is wrong: {bad.error}")
        same(found, {key: subject.traces[key]}, "beside it")

    def test_a_caller_that_leaves_early_does_no_harm(self, subject: Subject) -> None:
        """The next batch is as it was."""

        async def first() -> Generation:
            async for generation in subject.engine.generate(requests()):
                return generation
            raise AssertionError("nothing came")

        done = asyncio.run(first())
        same(done, subject.traces[done.query_id, done.sample], "the first")
        good = requests()[0]
        key = (good.query.id, good.sample)
        same(run(subject.engine, [good]), {key: subject.traces[key]}, "after it")

    def test_another_template_is_another_engine(self, subject: Subject) -> None:
        """Where the engine can ask its model in another way: it says so, and the first one stays as it was."""
        if not isinstance(subject.engine, TemplateEngine):
            raise SkipTest("this engine has one template")
        template = replace(TEMPLATE, name="other", answer_suffix="\n##{{")
        info = subject.engine.with_template(template).info
        same((info.template, info.template_hash), ("other", template.hash), "info of another template")
        same(subject.engine.info.template_hash, TEMPLATE.hash, "info of the first engine afterwards")
        good = requests()[0]
        key = (good.query.id, good.sample)
        same(run(subject.engine, [good]), {key: subject.traces[key]}, "after another template")

    def test_two_batches_at_once_do_not_mix(self, subject: Subject) -> None:
        """Each caller gets its own."""

        async def both() -> list[Traces]:
            halves = requests()[::2], requests()[1::2]
            return await asyncio.gather(*(collect(subject.engine, half) for half in halves))

        first, second = asyncio.run(both())
        same({**first, **second}, subject.traces, "both batches")
        same(len(first) + len(second), len(subject.traces), "how many came back")


def check_engine(make_engine: Callable[..., Engine], *, layers: tuple[int, ...] = (), draws: bool = True) -> None:
    """Holds an engine to the contract.

    Args:
        make_engine: opens it with the keywords `template`, `sampling` and `context_tokens`, as forethought does.
        layers: whose hidden states it can give, the last one among them; empty for none.
        draws: whether another seed can give another trace.

    Raises:
        AssertionError: every promise that it breaks, a line each.
    """
    engine = make_engine(template=TEMPLATE, sampling=Sampling(temperature=1.0), context_tokens=CONTEXT_TOKENS)
    subject = Subject(engine, engine.info.engine, layers, draws)
    try:
        check(EngineContract(), subject)
    finally:
        engine.close()
    check(_Closed(), subject)


class _Closed:
    """What holds of an engine that was closed."""

    def test_closing_twice_does_no_harm(self, subject: Subject) -> None:
        subject.engine.close()
