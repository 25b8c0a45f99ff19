"""Answers from a recorded run: the same questions at any measured budget, without a model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..core.data import EngineInfo, FloatArray, Generation, Probe, Query, Request, Sampling, StopReason
from ..core.options import Option
from ..core.prompts import PromptTemplate
from ..core.protocols import refuse_fields
from ..core.records import Record
from ..errors import InvalidFeaturesError, InvalidSettingsError, RunError
from ..runs.store import RunDirectory
from .flight import failed

RESULTS_PER_TURN = 256  # how many results come between two looks at the event loop


class ReplayEngine:
    """Serves recorded traces: a request is answered where its trace was probed, and refused with the reason elsewhere.

    A trace is found by query id, sample and the name of its option; seeds are not compared. The text of a thought that
    is cut short is left empty, because records do not say where in the text a token ends.

    Args:
        generations: recorded ones; records are taken without their verdicts.
        info: what made the recording.
        hidden: recorded hidden states as `(layers, query id -> hidden_L_D)`, as `RunDirectory.load_hidden` gives them.
    """

    def __init__(
        self,
        generations: Iterable[Generation],
        *,
        info: EngineInfo,
        hidden: tuple[Sequence[int], Mapping[str, FloatArray]] | None = None,
    ) -> None:
        self._recorded: dict[tuple[str, str], dict[int, list[Generation]]] = {}  # query id, option -> sample -> traces
        for each in generations:
            trace = each.generation if isinstance(each, Record) else each
            self._recorded.setdefault((trace.query_id, trace.option), {}).setdefault(trace.sample, []).append(trace)
        self._labels = {option for _, option in self._recorded}
        self._layers, self._hidden = hidden or ((), {})
        self.info = replace(info, engine="replay", simulated=True, versions={**info.versions, "recorded": info.engine})

    async def generate(self, requests: Iterable[Request]) -> AsyncIterator[Generation]:
        """See `Engine.generate`."""
        for number, request in enumerate(requests):
            if number % RESULTS_PER_TURN == 0:
                await asyncio.sleep(0)
            yield self._replay(request)

    def check_option(self, option: Option) -> None:
        """See `OptionEngine.check_option`: what was recorded under its name, or a cap alone."""
        if option.label not in self._labels:
            try:
                refuse_fields(option)
            except InvalidSettingsError as error:
                known = ", ".join(sorted(self._labels - {""})) or "none"
                raise InvalidSettingsError(f"{error}. Options of the recording: {known}") from error

    def _replay(self, request: Request) -> Generation:
        label = request.label if request.label in self._labels else ""
        try:
            if request.option is not None:
                self.check_option(request.option)
        except InvalidSettingsError as error:
            return failed(request, str(error), is_final=True)
        samples = self._recorded.get((request.query.id, label), {})
        if (recorded := samples.get(request.sample)) is None:
            names = ", ".join(map(str, sorted(samples)))
            known = f"its recorded samples: {names}" if samples else "the query is not recorded"
            return failed(request, f"no recorded trace of query {request.query.id!r}, sample {request.sample}; {known}")
        for trace in recorded:
            if not trace.is_failed and label and request.option is not None and request.option.cap is None:
                return trace  # as it was: there is no cap that could be another
            if not trace.is_failed and (replayed := _cut(trace, request)) is not None:
                return replace(replayed, option=request.label)
        if all(trace.is_failed for trace in recorded):
            return failed(request, f"recorded as failed: {recorded[-1].error}")
        return failed(request, _not_recorded(request, recorded))

    def hidden_states(self, queries: Sequence[Query], layers: Sequence[int]) -> FloatArray:
        """See `HiddenStateEngine.hidden_states`: the recorded ones; a row of NaN for a query that has none."""
        columns = {layer: column for column, layer in enumerate(self._layers)}
        if missing := [layer for layer in layers if layer not in columns]:
            known = (
                f"recorded layers: {', '.join(map(str, columns))}" if columns else "the recording has no hidden states"
            )
            raise InvalidFeaturesError(f"layer {missing[0]} was not recorded; {known}")
        width = next((states_L_D.shape[-1] for states_L_D in self._hidden.values()), self.info.hidden_size or 0)
        hidden_Q_L_D = np.full((len(queries), len(layers), width), np.nan, dtype=np.float32)
        for row, query in enumerate(queries):
            if query.id in self._hidden:
                hidden_Q_L_D[row] = self._hidden[query.id][[columns[layer] for layer in layers]]
        return hidden_Q_L_D

    def close(self) -> None:
        """Nothing to free."""


def replay(
    model: str, *, template: PromptTemplate, sampling: Sampling = Sampling(), context_tokens: int = 0, run: str = ""
) -> ReplayEngine:
    """Opens a recorded profile or run as an engine: what `--engine replay --engine-option run=RUN` does.

    Args:
        model: the model that was recorded.
        template: the prompt template that it was recorded with.
        sampling: how its traces were drawn.
        context_tokens: taken as every engine takes it; what did not fit then is recorded as failed.
        run: the recording's run directory.

    Raises:
        InvalidSettingsError: no recording is named, or it is of something else than is asked for, naming all of it.
        RunError: it is not the directory of a profile or a run.
    """
    if not run:
        raise InvalidSettingsError(
            "the replay engine needs a recording: --engine-option run=RUN, the folder of a profile or a run"
        )
    recording = RunDirectory.open(Path(run))
    header = recording.header
    if header.kind not in ("profile", "run"):
        raise RunError(f"{run} is a {header.kind!r} run: nothing was generated there; name a profile's or a run's")
    info, drawn = header.provenance.engine_info, header.provenance.sampling or Sampling()
    problems = []
    if info.model != model:
        problems.append(f"the model is {info.model!r}, not {model!r}")
    if info.template_hash != template.hash:
        problems.append(f"the template is {info.template!r}, not {template.name!r}: --template {info.template}")
    if drawn != sampling:
        problems.append(
            f"traces were sampled at temperature {drawn.temperature:g}, top-p {drawn.top_p:g}, not "
            f"{sampling.temperature:g}, {sampling.top_p:g}"
        )
    if problems:
        raise InvalidSettingsError(f"{run} is a recording of something else: {'; '.join(problems)}")
    info = replace(info, sampling=drawn)
    layers, hidden = recording.load_hidden()
    if layers and layers == tuple(range(len(layers))):  # all of the model's, as `profile --layers all` keeps them
        width = next(iter(hidden.values())).shape[-1]
        info = replace(info, num_layers=len(layers) - 1, hidden_size=width)
    return ReplayEngine(recording.records(), info=info, hidden=(layers, hidden))


def _cut(trace: Generation, request: Request) -> Generation | None:
    """`trace` as it would have come back for `request`, or None when it was not probed where that needs it."""
    budget, length = request.budget, trace.reasoning_tokens
    if length is None:  # it was not counted: where a smaller cap would have cut it is not known
        return None
    ended = trace.stop_reason is StopReason.NATURAL and length < budget
    whole = ended or budget == trace.budget or (trace.stop_reason is StopReason.NATURAL and length == budget)
    if not whole and budget > trace.budget:
        return None
    answers = {probe.budget: probe for probe in trace.probes}
    length = length if whole else min(budget, length)
    probes = [answers.get(cut) for cut in sorted(set(request.probe_budgets)) if cut < length]
    if not whole:
        final = answers.get(budget)
        if final is None:
            return None
    else:
        final = Probe(length, trace.answer, trace.answer_tokens)
    if any(probe is None for probe in probes):
        return None
    return replace(
        trace,
        budget=budget,
        reasoning=trace.reasoning if whole else "",
        reasoning_tokens=length,
        answer=final.answer,
        answer_tokens=final.answer_tokens,
        stop_reason=StopReason.NATURAL if ended else StopReason.BUDGET,
        probes=tuple(probe for probe in probes if probe is not None),
    )


def _not_recorded(request: Request, recorded: Sequence[Generation]) -> str:
    asked = sorted({*request.probe_budgets, request.budget})
    if not (known := sorted(set(_budgets(recorded)))):
        return f"query {request.query.id!r}, sample {request.sample}: its recorded thought's tokens were not counted"
    longer = any(trace.stop_reason is StopReason.NATURAL for trace in recorded)
    missing = [budget for budget in asked if budget not in known and not (longer and budget > known[-1])]
    return (
        f"query {request.query.id!r}, sample {request.sample}: budget {', '.join(map(str, missing or asked))} was not "
        f"recorded; recorded: {', '.join(map(str, known))}. Ask for one of these, or profile again with --budgets."
    )


def _budgets(recorded: Sequence[Generation]) -> Iterator[int]:
    for trace in recorded:
        yield from (probe.budget for probe in trace.probes)
        if not trace.is_failed and trace.reasoning_tokens is not None:
            yield trace.reasoning_tokens if trace.stop_reason is StopReason.NATURAL else trace.budget
