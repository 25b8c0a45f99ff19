"""`forethought bench paper`: Forethought against every policy of arXiv 2602.01237, on the paper's measurements."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...allocators import Allocator
from ...allocators.greedy import GreedyAllocator
from ...core import registry
from ...core.data import Cost, Curves
from ...core.showing import Progress, silent
from ...core.study_settings import PaperSettings
from ...errors import InvalidFeaturesError, InvalidSettingsError, MissingExtraError
from ...evaluation.bootstrap import estimate
from ...evaluation.checks import check_inputs
from ...evaluation.offline import data_hash, num_traces
from ...evaluation.policies import BLIND, FORETHOUGHT, GREEDY_ORACLE, UNIFORM, Policies, PolicyOutcome
from ...evaluation.resampled import Resampled
from ...predictors.training import cross_fit
from . import batches
from .classes import budgets_of, class_budgets
from .predictions import Prediction, predict, score
from .results import SOURCE, PaperBench, PaperRow, PolicyMean
from .split import Split, check_pair, read_split

PAPER_BATCH = 64  # queries the paper's evaluation plans together
PAPER_GREEDY = "paper-greedy"  # the registered greedy with lookahead, as the paper's text reads
CLASS_POLICIES = {"lora-difficulty": "lora", "zeroshot-difficulty": "zeroshot", "difficulty-oracle": "true"}
CLAIMED = (32.0, 128.0)  # the budgets over which the paper's gains are quoted, inclusive
NOTES = (
    "Tokens are granted: the sum of caps. What was really generated is not in the published data.",
    "Gains are measured at equal realised tokens: against the accuracy of uniform or blind at the mean cap of the "
    "policy. A policy with unused tokens (such as one budget per class) is not charged for them. A lead compares at "
    "the same level, including unused tokens.",
    "All training and search uses the train split only. Intervals resample the evaluated queries; training and plans "
    "are held fixed.",
    "The oracles choose and are evaluated on the same counts, so their results are too optimistic (selection bias). "
    "The LoRA labels are in-sample on train, and the epoch of that classifier was chosen by its authors on the whole "
    "test split.",
    "A stream plans query by query under one price per token, fixed in advance on out-of-fold predictions for the "
    "train queries. At equal tokens it makes the same plan as planning all queries together; a loss at a level is due "
    "to a different total of tokens.",
    f"Policies of the paper's greedy plan in batches of {PAPER_BATCH}, as its evaluation does; all others plan the "
    "whole split together.",
)


def study(settings: PaperSettings, *, progress: Progress = silent) -> PaperBench:
    """Trains every predictor on the train split, plays every policy on the other, and judges them side by side.

    Args:
        settings: what is compared, and on what.
        progress: called with what is being done, steps done and steps in all.
    """
    progress("read the measurements", 0, 1)
    train, test = read_split(Path(settings.folder), "train"), read_split(Path(settings.folder), settings.split)
    check_pair(train, test)
    allocator = registry.make("allocators", settings.allocator, settings.allocator_options)
    for name in (*settings.compare, *([settings.predictor] if settings.predictor else [])):
        registry.resolve("predictors", name)  # an unknown name is told before anything is trained
    levels = _levels(settings, test)
    progress(f"train {settings.predictor or 'forethought'}", 0, 1)
    ours = predict(train.profile, test.profile, settings.predictor or None, seed=settings.seed)
    policies = _policies(test, ours, settings, allocator)
    others, missing = _others(train, test, ours, settings, progress)
    progress("budgets of classes", 0, 1)
    classes = _class_budgets(train, test, levels)
    left_out = _out_of_fold(train, ours, settings.seed, progress)
    small = batches.play(policies, left_out, levels, progress=progress)
    outcomes: list[PolicyOutcome] = []
    for number, level in enumerate(levels):
        progress("plans", number, len(levels))
        outcomes += _play(policies, others, classes, test, level)
    resampled = Resampled.make(
        policies,
        [*outcomes, *small.outcomes],
        Cost.GRANTED,
        num_resamples=settings.num_resamples,
        seed=settings.seed,
        progress=progress,
    )
    progress("intervals", 0, 1)
    distinct = {each.predictor: each for each in (ours, *others)}
    return PaperBench(
        source=SOURCE,
        split=settings.split,
        num_queries=test.profile.num_queries,
        num_train=train.profile.num_queries,
        num_traces=num_traces(test.profile),
        menu=test.profile.menu,
        cost=Cost.GRANTED.value,
        levels=levels,
        predictor=ours.predictor,
        allocator=settings.allocator,
        rows=_rows(resampled, len(outcomes)),
        means=_means(resampled, tuple(dict.fromkeys(outcome.policy for outcome in outcomes)), levels),
        predictors=tuple(
            score(test.profile, each, num_resamples=settings.num_resamples, seed=settings.seed)
            for each in distinct.values()
        ),
        batches=small.rows(resampled),
        classes=classes,
        notes=(*NOTES, *policies.notes, *missing),
        num_resamples=settings.num_resamples,
        seed=settings.seed,
        data_hashes={"train": data_hash(train.profile), settings.split: data_hash(test.profile)},
    )


def _levels(settings: PaperSettings, test: Split) -> tuple[float, ...]:
    menu = test.profile.menu
    levels = settings.mean_tokens or tuple(float(budget) for budget in menu.budgets_B)
    outside = [level for level in levels if not menu.smallest <= level <= menu.largest]
    if outside:
        raise InvalidSettingsError(
            f"--mean-tokens must lie between {menu.smallest} and {menu.largest}, the paper's grid; got "
            f"{', '.join(f'{level:g}' for level in outside)}"
        )
    return tuple(sorted(set(levels)))


def _policies(test: Split, ours: Prediction, settings: PaperSettings, allocator: Allocator) -> Policies:
    mean_train = Curves(("mean",), test.profile.menu, ours.mean_B[None])
    check_inputs(test.profile, ours.curves, mean_train, (Cost.GRANTED,), None, settings.num_resamples)
    return Policies(test.profile, ours.curves, mean_train, allocator)


def _others(
    train: Split, test: Split, ours: Prediction, settings: PaperSettings, progress: Progress
) -> tuple[list[Prediction], tuple[str, ...]]:
    """The predictors to compare with, and a sentence for each that needs what is not installed."""
    found, missing = [], []
    for number, name in enumerate(names := tuple(dict.fromkeys(settings.compare))):
        progress(f"train {name}", number, len(names))
        try:
            found.append(
                ours if name == ours.predictor else predict(train.profile, test.profile, name, seed=settings.seed)
            )
        except (MissingExtraError, InvalidFeaturesError) as error:
            missing.append(f"Left out: {name}: {error}.")
    return found, tuple(missing)


def _class_budgets(train: Split, test: Split, levels: Sequence[float]) -> dict[str, dict[float, dict[str, int]]]:
    """Policy -> level -> class -> budget."""
    rate_Q_B = train.profile.curves.p_Q_B
    return {
        policy: {
            level: class_budgets(
                rate_Q_B, train.labels[key], test.labels[key], menu=train.profile.menu, mean_tokens=level
            )
            for level in levels
        }
        for policy, key in CLASS_POLICIES.items()
    }


def _out_of_fold(train: Split, ours: Prediction, seed: int, progress: Progress) -> Curves:
    """Predictions for the train queries, each by a fit that had not seen it, without tokens."""
    if ours.left_out is not None:
        return ours.left_out
    curves, _ = cross_fit(train.profile, predictor=ours.predictor, seed=seed, progress=progress)
    return Curves(curves.query_ids, curves.menu, curves.p_Q_B)


def _play(
    policies: Policies,
    others: Sequence[Prediction],
    classes: dict[str, dict[float, dict[str, int]]],
    test: Split,
    level: float,
) -> list[PolicyOutcome]:
    """Every policy at one level."""
    cost, paper_greedy = Cost.GRANTED, GreedyAllocator(lookahead=True)
    played = [
        policies.uniform(cost, level),
        policies.blind(cost, level),
        policies.planned(FORETHOUGHT, policies.predicted, policies.allocator, cost, level),
    ]
    for each in others:
        for allocator in ("envelope", "greedy"):
            played.append(policies.planned(f"{each.predictor}+{allocator}", each.curves, allocator, cost, level))
        name = f"{each.predictor}+{PAPER_GREEDY}"
        played.append(policies.planned(name, each.curves, paper_greedy, cost, level, batch_size=PAPER_BATCH))
    for policy, key in CLASS_POLICIES.items():
        played.append(policies.given(policy, budgets_of(test.labels[key], classes[policy][level]), level))
    measured = policies.known
    played.append(policies.planned(GREEDY_ORACLE, measured, paper_greedy, cost, level, batch_size=PAPER_BATCH))
    played.append(policies.oracle(cost, level))
    return played


def _rows(resampled: Resampled, num_outcomes: int) -> tuple[PaperRow, ...]:
    """A row for each of the first outcomes; the others are forethought in batches."""
    ours = {resampled.outcomes[column].level: column for column in resampled.columns(FORETHOUGHT)}
    accuracy_R_P, found = resampled.accuracy_R_P, []
    for column, row in enumerate(resampled.rows()[:num_outcomes]):
        lead_R = accuracy_R_P[:, ours[row.budget]] - accuracy_R_P[:, column]
        found.append(PaperRow.of(row, lead=None if row.policy == FORETHOUGHT else estimate(lead_R)))
    return tuple(found)


def _means(resampled: Resampled, names: Sequence[str], levels: Sequence[float]) -> tuple[PolicyMean, ...]:
    """Over all levels, and over those of the range in which the paper claims its gains."""
    claimed = tuple(level for level in levels if CLAIMED[0] <= level <= CLAIMED[1])
    found = []
    for chosen in dict.fromkeys((claimed, tuple(levels))):
        for policy in names if chosen else ():
            lead_R = resampled.mean_accuracy_R(FORETHOUGHT, levels=chosen)
            lead_R = lead_R - resampled.mean_accuracy_R(policy, levels=chosen)
            gains = [
                None if policy == baseline else estimate(resampled.mean_gain_R(policy, baseline, levels=chosen))
                for baseline in (UNIFORM, BLIND)
            ]
            lead = None if policy == FORETHOUGHT else estimate(lead_R)
            found.append(PolicyMean(policy, chosen, gains[0], gains[1], lead))
    return tuple(found)
