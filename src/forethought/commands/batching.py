"""A plan as files of requests, and what came back of them as a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..control.asking_again import Rest, keep_budgets, rest_of, write_again
from ..control.batches import Bounds, Round, find_round, fitting, make_round, requests_of, samples_of, write_round
from ..control.billing import Prices
from ..control.budgets import keep_plan
from ..control.collecting import SHOWN, Job, Settled
from ..control.feeding import check_history, feed_run
from ..control.judging import Judge
from ..control.plan import Plan
from ..control.planning import engine_for, model_of, weights_for
from ..control.results import write_results
from ..control.running import plan_provenance
from ..control.sources import refuse_without_texts
from ..core.data import EngineInfo
from ..core.settings import CollectSettings, EngineSettings, PlanSettings
from ..core.terms import WARNED_AT, HardCap, percent
from ..engines.opening import choose, prompting
from ..engines.server.batches import OPTIONS, BatchCalls, BatchServer, batch_server
from ..errors import InvalidSettingsError
from ..graders import check_references
from ..models import look
from ..predictors.card import PredictorCard
from ..predictors.predictor import refuse_other
from ..runs.folders import check_file, check_folder
from ..runs.store import RunDirectory
from .reports import made_by, run_report

NO_ROOM = "this sample was not asked for: nothing of the total, or of the hard cap, is left for it"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRequest:
    """What `plan --batch-out` was asked.

    Attributes:
        file: of the requests.
        server: kind of server that takes them.
        options: of the engine that names how it is asked; see `OPTIONS`.
        most_lines: requests in one file; 0 for what the kind takes.
        hard_cap: what the job may never pass; None for no cap.
        prices: of tokens.
    """

    file: Path
    server: str
    options: dict[str, Any]
    most_lines: int
    hard_cap: HardCap | None
    prices: Prices


def take_batch(
    values: dict[str, Any], settings: PlanSettings, prices: Prices
) -> tuple[BatchRequest | None, PlanSettings]:
    """Takes the flags of a batch out of `values`; what is said of its server is no option of the planning engine."""
    out, server, lines, cap = (values.pop(name) for name in ("batch_out", "server", "batch_lines", "hard_cap"))
    if not out:
        given = {"--server": server, "--batch-lines": lines, "--hard-cap": cap}
        if named := [flag for flag, value in given.items() if value]:
            raise InvalidSettingsError(f"{named[0]} goes with --batch-out FILE.jsonl, which it says something of")
        return None, settings
    if settings.waves:
        raise InvalidSettingsError(
            "--waves decides on a further sample when answers are there, and a file asks for all at once: leave it out"
        )
    if not server:
        raise InvalidSettingsError(
            "--batch-out needs to know who takes the requests: --server vllm, openai, anthropic, …"
        )
    if not out.lower().endswith(".jsonl"):
        raise InvalidSettingsError(f"--batch-out {out}: requests are JSON lines; name it FILE.jsonl")
    if lines is not None and lines < 1:
        raise InvalidSettingsError(f"--batch-lines must be at least 1, not {lines}")
    own = {name: value for name, value in settings.engine.options.items() if name in OPTIONS}
    engine = settings.engine
    if engine.engine != "openai":
        rest = {name: value for name, value in engine.options.items() if name not in OPTIONS}
        settings = replace(settings, engine=replace(engine, options=rest))
    check_file(Path(out), "--batch-out", read=[settings.questions])
    made = BatchRequest(
        file=Path(out),
        server=server,
        options=own,
        most_lines=lines or 0,
        hard_cap=HardCap.parse(cap) if cap else None,
        prices=prices,
    )
    return made, settings


def asked_server(batch: BatchRequest, settings: PlanSettings, card: PredictorCard) -> BatchServer:
    """The server that carries a plan out; raises InvalidSettingsError where it cannot."""
    model = model_of(card, settings.model)
    engine = engine_for(card, replace(settings.engine, engine="openai"), settings.template)
    template = prompting(model, _here(model, settings.engine, engine)).template
    refuse_other(card, EngineInfo("batch", model, template=template.name, template_hash=template.hash))
    return batch_server(
        batch.server,
        batch.options,
        model=model,
        template=template,
        sampling=engine.sampling,
        menu=card.menu,
        context_tokens=settings.engine.context_tokens,
        is_weighed=bool(weights_for(card, settings.vote_weights)) and bool((card.menu.samples_B > 1).any()),
    )


def _here(model: str, given: EngineSettings, asked: EngineSettings) -> EngineSettings:
    """Settings by which a template is found: those of the engine that a model of this machine would have."""
    name = choose(model, given.engine)[0]
    return replace(asked, engine=name) if name == "fake" else asked


def write_requests(batch: BatchRequest, settings: PlanSettings, plan: Plan) -> tuple[Round, dict[str, Any]]:
    """Writes a plan's requests, as many as fit under the hard cap; what was written, and in numbers.

    Raises:
        InvalidSettingsError: a request that the server cannot be asked, or that nothing bounds under a hard cap.
    """
    assert plan.card is not None
    refuse_without_texts(plan.queries, settings.questions)
    asked, cap = asked_server(batch, settings, plan.card), batch.hard_cap
    bounds = Bounds(BatchCalls(asked), plan, cap, batch.prices)
    budgets = plan.budgets
    requests = requests_of(plan, plan.queries, budgets, asked.context_tokens)
    chosen, kept_back, taken = fitting(bounds, requests, cap.amount if cap else 0.0)
    if not chosen:
        raise InvalidSettingsError(
            f"--hard-cap {cap} holds not one request: the smallest may take "
            f"{cap.cost.amount(min(map(bounds.most, requests))) if cap else ''}"
        )
    samples = samples_of(chosen)
    made = make_round(
        plan,
        asked,
        {query_id: budgets[query_id] for query_id in samples},
        requests=batch.file,
        out=f"runs/batch-{batch.file.stem}",
        most_lines=batch.most_lines,
        hard_cap=cap,
        prices=batch.prices,
        kept_back=kept_back,
        samples=samples,
    )
    made = write_round(made, plan, batch.file)
    found: dict[str, Any] = {
        "files": [str(batch.file.with_name(name)) for name in made.files],
        "requests": len(made.names()),
        "fingerprint": made.fingerprint,
        "server": batch.server,
        "enforce": asked.enforce,
        "questions": len(made.asked),
        "kept_back": list(kept_back),
    }
    if cap is not None:
        found |= {"hard_cap": cap.amount, "hard_cap_cost": cap.cost.value, "at_most": taken}
    return made, found


def written_words(batch: BatchRequest, made: Round, found: dict[str, Any]) -> list[str]:
    """What was written, a line each."""
    files = found["files"]
    where = files[0] if len(files) == 1 else f"{len(files)} files, {files[0]} to {files[-1]}"
    several = f" ({found['questions']} questions, some by several samples)" if made.samples else ""
    lines = [f"{found['requests']} requests for {batch.server} in {where}{several}; caps kept by {found['enforce']}"]
    cap = batch.hard_cap
    if cap is not None:
        lines.append(f"they take at most {cap.cost.amount(found['at_most'])} of the hard cap of {cap}")
        if found["at_most"] >= WARNED_AT * cap.amount:
            lines.append(f"warning: that is {percent(found['at_most'] / cap.amount, 0)} of the hard cap")
    if found["kept_back"]:
        shown = ", ".join(found["kept_back"][:5])
        lines.append(
            f"{len(found['kept_back'])} questions are not asked yet{_in_part(found['kept_back'], made.asked)}, since "
            f"the hard cap might not hold them ({shown}); "
            "they are asked next, with what the answers leave of it, once these are collected"
        )
    lines.append("when the results are there: forethought collect RESULTS.jsonl [ERRORS.jsonl]")
    return lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What `collect` did.

    Attributes:
        run: the run directory.
        report: its page.
        lines: of the result files, but for empty ones.
        known: results that were taken before.
        unreadable: lines that are of no request.
        examples: the first of them, with their reasons.
        failures: what came of the last request of each query without an answer, by the query's id.
        waiting: ids of queries, one for each request without a result, but for those that are asked now.
        short: ids of queries that have some samples of their vote, and what of them may be asked again.
        rest: what may be asked next.
        again: the round that asks it; None where there is none.
        place: the record of the requests.
        charged, flying: counted as the hard cap is: of what came back, and of what did not.
        hard_cap: of the job.
    """

    run: RunDirectory
    report: Path
    lines: int
    known: int
    unreadable: int
    examples: tuple[str, ...]
    failures: tuple[Settled, ...]
    waiting: tuple[str, ...]
    short: Mapping[str, tuple[int, ...]]
    rest: Rest
    again: Round | None
    place: Path
    charged: float
    flying: float
    hard_cap: HardCap | None

    def to_json(self) -> dict[str, Any]:
        """Beside the summary of the run."""
        by_state: dict[str, list[str]] = {}
        for each in self.failures:
            by_state.setdefault(each.state.value, []).append(each.id)
        found = {
            "lines": self.lines,
            "known_lines": self.known,
            "unreadable_lines": self.unreadable,
            "unreadable": list(self.examples),
            "without_answer": by_state,
            "reasons": {each.id: each.reason for each in self.failures[:SHOWN]},
            "waiting": len(self.waiting),
            **({"short": {query_id: len(samples) for query_id, samples in self.short.items()}} if self.short else {}),
            "kept_back": [*self.rest.kept_back, *self.rest.unpaid],
            "not_asked_again": list(self.rest.censored),
            "next_requests": [] if self.again is None else [str(file) for file in self.files],
            "num_next": 0 if self.again is None else len(self.again.names()),
            "hard_cap": None if self.hard_cap is None else self.hard_cap.amount,
            "charged": self.charged,
            "under_way": self.flying,
        }
        return {"collected": found, "report": str(self.report)}

    @property
    def files(self) -> list[Path]:
        """Of the next round."""
        return [] if self.again is None else [self.place.with_name(name) for name in self.again.files]


def collect(settings: CollectSettings) -> Collected:
    """Takes the results of a job of requests, writes its run, and asks again what has no answer.

    Raises:
        InvalidInputError: results of another job.
        RunError: the run directory holds another run.
    """
    paths = [Path(name) for name in settings.results]
    judge = Judge.of(settings.grader, settings.grader_options)
    place, given = find_round(paths, settings.batch)
    plan = Plan.load(place.with_name(given.plan))
    check_references(judge.grader, plan.queries, source=str(place.with_name(given.plan)))
    folder = Path(settings.out or given.out)
    check_folder(folder)
    check_history(settings.history)
    asked = given.server
    tokenizer = look(str(settings.tokenizer or asked.model)).tokenizer()
    if settings.tokenizer and tokenizer is None:
        raise InvalidSettingsError(
            f"--tokenizer {settings.tokenizer}: there is no tokenizer of that name on this machine, or nothing that "
            "reads it; leave it out, and thoughts are counted where the server says how long they are"
        )
    run = RunDirectory.create(
        folder, kind="run", provenance=plan_provenance(plan, judge, asked.info), settings={"batch": str(place)}
    )
    seen = Counter[str]()
    with run.locked():
        keep_plan(run, plan)
        job = Job.open(run, plan, [given], tokenizer)
        ended = job.check(paths) or {given.fingerprint}  # files without a result name no round
        for path in paths:
            job.collect(run, path, judge, seen)
        if settings.ended:
            job.end(run, ended)
        hard_cap = HardCap.parse(settings.hard_cap) if settings.hard_cap else job.rounds[-1].hard_cap
        rest, waiting, short = rest_of(job, hard_cap), job.waiting(), job.short()
        again = write_again(job, run, rest, place, hard_cap)
        job.give_up(run, NO_ROOM)
        keep_budgets(job, run)
        write_results(run, plan.queries)
        charged, flying = job.charged()
    report = run_report(run, facts=made_by("forethought collect", settings)).write_html(run.path)
    history = Path(settings.history) if settings.history else None
    if history is not None and not job.left() and not job.waiting():
        feed_run(history, run)
    return Collected(
        run=run,
        report=report,
        lines=seen["lines"],
        known=seen["known"],
        unreadable=seen["unreadable"],
        examples=tuple(key for key in seen if " line " in key)[:SHOWN],
        failures=tuple(job.reasons()),
        waiting=tuple(waiting),
        short=short,
        rest=rest,
        again=again,
        place=place,
        charged=charged,
        flying=flying,
        hard_cap=hard_cap,
    )


def collected_words(found: Collected) -> list[str]:
    """What was collected and what comes next, a line each."""
    lines = [f"{found.lines} lines read, {found.known} of them known before; wrote {found.report}"]
    if found.unreadable:
        lines.append(f"{found.unreadable} lines are of no request: {found.examples[0]}")
    by_reason: dict[str, list[str]] = {}
    for each in found.failures:
        by_reason.setdefault(f"{each.state}: {each.reason}", []).append(each.id)
    for reason, ids in list(by_reason.items())[:SHOWN]:
        lines.append(f"{len(ids)} {reason} ({', '.join(ids[:5])}{', …' if len(ids) > 5 else ''})")
    if found.waiting:
        lines.append(
            f"{len(found.waiting)} requests have no result yet; collect them when they are there, or, if their batch "
            "has ended without them, give the same command with --ended to ask them again"
        )
    if found.short:
        num_samples = sum(map(len, found.short.values()))
        lines.append(f"{len(found.short)} questions lack {num_samples} samples of their votes: they failed or expired")
    if found.rest.censored:
        lines.append(f"{len(found.rest.censored)} that were cut are not asked again: no larger budget is on the menu")
    if found.rest.unpaid:
        lines.append(
            f"{len(found.rest.unpaid)} are not asked again{_in_part(found.rest.unpaid, found.short)}: nothing of the "
            "total is left for them"
        )
    if found.rest.kept_back:
        lines.append(
            f"{len(found.rest.kept_back)} are not asked yet{_in_part(found.rest.kept_back, found.rest.samples)}: the "
            "hard cap might not hold them"
        )
    cap = found.hard_cap
    if cap is not None:
        used = found.charged + found.flying
        share = f"{cap.cost.amount(found.charged)} charged and {cap.cost.amount(found.flying)} under way at most"
        lines.append(f"{'warning: ' * (used >= WARNED_AT * cap.amount)}{share}, of the hard cap of {cap}")
    if found.again is not None:
        names = ", ".join(map(str, found.files))
        lines.append(f"next: round {found.again.number}, {len(found.again.names())} requests in {names}")
    return lines


def _in_part(ids: Collection[str], asked: Collection[str]) -> str:
    """A remark on those of the questions that are asked for some of their samples."""
    return ", or not for all their samples" if set(ids) & set(asked) else ""
