"""`evaluate`: policies compared on a measured profile, at equal realised costs, with paired intervals."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..allocators import Allocator
from ..core.data import Cost, Curves, FloatArray
from ..core.profile import Profile
from ..core.registry import name_of
from ..core.showing import Progress, silent
from ..core.terms import TOKEN_COSTS
from ..errors import MismatchError
from .bootstrap import estimate, resampled_means
from .calibration import calibrate
from .checks import check_inputs, comparable, known_costs, matched
from .levels import half_way, spread
from .policies import Policies, PolicyOutcome
from .resampled import Resampled
from .results import Evaluation, OptionRow


def evaluate(
    measured: Profile,
    predicted: Curves,
    mean_train: Curves,
    *,
    allocator: str | Allocator = "envelope",
    costs: Sequence[Cost] | None = None,
    mean_tokens: Sequence[float] | None = None,
    mean_usd: Sequence[float] | None = None,
    halves: tuple[Profile, Profile] | None = None,
    num_resamples: int = 2000,
    seed: int = 0,
    provenance: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
    progress: Progress = silent,
) -> Evaluation:
    """Compares forethought's plans with uniform, blind, greedy and the oracles, on measured curves.

    A policy's gain is its accuracy less what a baseline reaches *at the policy's own realised mean tokens*, or USD: a
    plan made from predicted spend misses its target, and comparing rows of one target would credit the policy that
    overspent. Uniform mixes neighbouring caps at random (named options that are neighbours in mean cost), blind
    neighbouring vertices of the concave envelope of the mean *train* curve (every plan that an optimal allocator makes
    of one curve for all), so that both can land anywhere.

    Intervals are 95% percentile intervals of a paired bootstrap over queries, the frontiers computed anew inside each
    resample. Plans and training are held fixed. Each level has its own interval; `Evaluation.summaries` has one for
    the mean over all levels.

    Args:
        measured: the profile of the split that is reported, with every query tried at least once. Queries that were
            not tried under every option are left out, with a note.
        predicted: predicted curves of the same queries, in the same order. Without tokens, spent cost is planned with
            the mean train usage curve; without the prompts' tokens, bills are planned with those measured. Named
            options may stand in another order than the profile's.
        mean_train: the mean curve of the train split: one row, or more whose mean is taken.
        allocator: makes forethought's plans: a registered name or an allocator.
        costs: the costs to compare under. By default granted and spent; of named options spent, and money where they
            have prices (`checks.known_costs`).
        mean_tokens: levels in mean tokens per query, for every cost in tokens. By default they are spread from what the
            cheapest option costs to what the dearest does, by the mean train curve under spent cost: see
            `levels.spread`.
        mean_usd: levels in mean USD per query; by default they are spread alike.
        halves: two parts of each query's samples, at the profile's options or some of them: with these there is a fair
            oracle, which chooses by one and is evaluated on the other. Not where a query lacks an option in one.
        num_resamples: bootstrap resamples.
        seed: of the bootstrap.
        provenance: what the profile's own `info` does not say, for the report: the command, the predictor, how the
            split was held out, the hardware. It wins where both say something.
        notes: what the reader must know of the curves, before what is to be known of any evaluation.
        progress: called with what is being done, steps done and steps in all.

    Raises:
        MismatchError: curves of other queries or another menu, no spend to measure or to plan spent cost with, or no
            prices to compare in money.
        InvalidInputError: a query without a trace, or numbers that are not finite.
        InvalidSettingsError: levels, resamples or a batch size that cannot be taken.
    """
    measured, (predicted,), mean_train, left_out = comparable(measured, [predicted], mean_train)
    if costs is None:
        costs = known_costs(measured, mean_train) if measured.menu.is_named else TOKEN_COSTS
    check_inputs(measured, predicted, mean_train, costs, mean_tokens, num_resamples, mean_usd=mean_usd)
    if not measured.is_spend_measured:  # then predicted spend has nothing to be held against
        predicted, mean_train = replace(predicted, tokens_Q_B=None), replace(mean_train, tokens_Q_B=None)
    if mean_train.tokens_Q_B is None and (Cost.SPENT in costs or Cost.USD in costs):
        raise MismatchError(
            "the mean train curve has no tokens, so nothing can be planned under spent cost; "
            "profile the train split again, or evaluate with --cost granted only"
        )
    halves = None if halves is None else matched(measured, *halves)
    policies = Policies(measured, predicted, mean_train, allocator, halves)
    levels = {cost: levels_of(cost, policies, mean_usd if cost is Cost.USD else mean_tokens) for cost in costs}
    how = {"num_resamples": num_resamples, "seed": seed}
    judged = []
    for cost in levels:
        outcomes: list[PolicyOutcome] = []
        for number, level in enumerate(levels[cost]):
            progress(f"plans, {cost} cost", number, len(levels[cost]))
            outcomes += policies.play(cost, level)
        is_measured = measured.is_spend_measured
        judged.append(Resampled.make(policies, outcomes, cost, is_spend_measured=is_measured, progress=progress, **how))
    progress("intervals", 0, 1)
    mean_tokens_B = None if mean_train.tokens_Q_B is None else policies.mean_tokens_B
    return Evaluation(
        simulated=measured.provenance.simulated,
        num_queries=measured.num_queries,
        num_traces=num_traces(measured),
        menu=measured.menu,
        allocator=name_of("allocators", allocator),
        levels=levels,
        headline={cost: half_way(at, policies.option_costs(cost), policies.mean_B) for cost, at in levels.items()},
        rows=tuple(row for each in judged for row in each.rows()),
        summaries=tuple(summary for each in judged for summary in each.summaries()),
        savings=tuple(saving for each in judged for saving in each.savings()),
        losses=tuple(loss for each in judged for loss in each.losses()),
        calibration=calibrate(measured, predicted, policies.mean_B, mean_tokens_B, **how),
        notes=(*notes, *left_out, *_notes(measured, predicted, costs, halves), *policies.notes),
        data_hash=data_hash(measured),
        measured=measured,
        predicted=predicted,
        provenance={**measured.provenance.to_json(), **(provenance or {})},
        options=_options(policies, mean_tokens_B, is_spend_measured=measured.is_spend_measured, **how),
        plans={
            (each.cost, outcome.policy, outcome.level): outcome.plans
            for each in judged
            for outcome in each.outcomes
            if outcome.plans
        },
        **how,
    )


def _options(
    policies: Policies, mean_tokens_B: FloatArray | None, *, is_spend_measured: bool, num_resamples: int, seed: int
) -> tuple[OptionRow, ...]:
    """Each named option for every query."""
    known, usd_Q_B = policies.measured, policies.usd_Q_B
    if not known.menu.is_named:
        return ()
    accuracy_R_B = resampled_means(known.p_Q_B, num_resamples=num_resamples, seed=seed)
    return tuple(
        OptionRow(
            label=label,
            accuracy=estimate(accuracy_R_B[:, column]),
            spent=float(policies.costs_Q_B(Cost.SPENT)[:, column].mean()) if is_spend_measured else None,
            usd=None if usd_Q_B is None else float(usd_Q_B[:, column].mean()),
            mean_p=float(policies.mean_B[column]),
            mean_tokens=None if mean_tokens_B is None else float(mean_tokens_B[column]),
        )
        for column, label in enumerate(known.menu.labels)
    )


def num_traces(measured: Profile) -> tuple[int, int]:
    """Fewest and most traces per query, under any option; of votes the samples that vote."""
    traces_Q_B = measured.tries_Q_B * measured.menu.samples_B
    return int(traces_Q_B.min()), int(traces_Q_B.max())


def data_hash(measured: Profile) -> str:
    """First 16 hex digits of the SHA-256 of what was measured: ids, counts, tokens rounded to float32."""
    digest = hashlib.sha256("\n".join(measured.query_ids).encode())
    tried = measured.num_tried_Q if measured.tried_Q_B is None else measured.tried_Q_B
    for counts in (measured.num_right_Q_B, tried):
        kind = "<i8" if np.issubdtype(counts.dtype, np.integer) else "<f8"  # of votes they are expected numbers
        digest.update(np.ascontiguousarray(counts, dtype=kind).tobytes())
    digest.update(np.ascontiguousarray(measured.tokens_Q_B, dtype="<f4").tobytes())
    return digest.hexdigest()[:16]


def levels_of(cost: Cost, policies: Policies, wanted: Sequence[float] | None = None) -> tuple[float, ...]:
    """The levels asked for, ascending; by default spread over the known costs of the options."""
    if wanted is not None:
        return tuple(sorted({float(level) for level in wanted}))
    return spread(policies.measured.menu, policies.option_costs(cost), in_usd=cost is Cost.USD)


CAPS = (
    "Granted cost counts the caps on reasoning. Spent cost counts the generated tokens: reasoning, forced suffix and "
    "answer. Neither counts the prompt, nor the prompt pass that a predictor on hidden states needs."
)
NAMED = (
    "Named options are ordered by their usual cost. A more expensive option may be less accurate than a cheaper one: "
    "the accuracy of uniform, which chooses by cost only, then falls; the relevant gain is that over blind, which "
    "leaves such options out."
)
NO_FAIR_ORACLE = (
    "There is no fair oracle: each query needs single samples, so many that half of them choose and the others judge."
)
FAIR_ORACLE_IS = (
    "The fair oracle chooses by one half of each query's samples and is evaluated on the other half, both ways. It "
    "knows fewer samples than the oracle, and votes of at most half as many, so it is not an upper bound."
)
COUNTS = {
    Cost.GRANTED: "Granted cost counts the budgets of the options: their usual number of tokens, which is not a cap.",
    Cost.SPENT: "Spent cost counts the generated tokens: thought and answer. Policies are not compared under granted "
    "cost: the budget of a named option is its usual number of tokens, which is not a cap.",
    Cost.USD: "USD counts prompt, thought and answer at the prices of the profile's menu; predicting is not charged.",
}
NEIGHBOURS = {False: "neighbouring caps", True: "options that are neighbours in mean cost"}


def named_notes(measured: Profile, costs: Sequence[Cost]) -> tuple[str, ...]:
    """Notes on named options and their costs; none for caps."""
    return (NAMED, *(COUNTS[cost] for cost in costs)) if measured.menu.is_named else ()


def _notes(
    measured: Profile, predicted: Curves, costs: Sequence[Cost], halves: tuple[Profile, Profile] | None
) -> tuple[str, ...]:
    fewest, is_named = int(measured.tries_Q_B.min()), measured.menu.is_named
    tried = "vote" if (measured.menu.samples_B > 1).any() else "trace"
    least = f"{fewest} {tried}{'' if fewest == 1 else 's'}"
    notes = [
        *(named_notes(measured, costs) or [CAPS]),
        f"Gains are measured at equal realised {'cost' if Cost.USD in costs else 'tokens'}: against the accuracy of "
        f"the baseline at the policy's realised cost, where the baseline may mix two {NEIGHBOURS[is_named]} at random. "
        "A plan made from predicted usage may miss its target; the tokens shown are the measured ones.",
        "A mean over levels weights each level by the range of tokens nearest to it.",
        "Intervals are pointwise and resample queries, with plans and training held fixed. With many levels, a few "
        "intervals exclude 0 by chance; the mean over all levels has its own interval.",
        f"The oracle chooses and is evaluated on the same counts (as few as {least} per query), so its result "
        "is too optimistic (selection bias), more so with fewer traces. The share of the gap closed is therefore too "
        "low rather than too high. greedy-oracle has the same bias.",
        NO_FAIR_ORACLE if halves is None else FAIR_ORACLE_IS,
    ]
    if not measured.is_spend_measured:
        notes.append(
            "The tokens of these measurements were not recorded, so there are no results under spent cost: a thought "
            "that ends by itself costs less than its cap, and a gain under granted cost need not hold under spent cost."
        )
    if predicted.tokens_Q_B is None and Cost.SPENT in costs:
        notes.append(
            "The predictor has no usage curve: under spent cost its plans use the mean train usage curve for all."
        )
    if predicted.tokens_Q_B is None and measured.is_spend_measured and Cost.SPENT not in costs:
        notes.append("The predictor has no usage curve, so there are no plans and comparisons under spent cost.")
    if fewest == 1:
        notes.append(f"Some queries have one {tried} only: their Brier score includes the noise of that {tried}.")
    return tuple(notes)
