"""A comparison of predictors as a page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core.data import Cost
from ..core.terms import percent
from ..evaluation.comparison import MEAN, Candidate, Comparison
from ..evaluation.policies import BLIND, FAIR_ORACLE, ORACLE, UNIFORM
from ..evaluation.results import COUNTED
from .findings import best_title, comparison_decision, costs_shown
from .pages import Page, Part, Picture, Said, Table, facts_of
from .wording import gain_words, gap_words, interval, level_words, policy_name, sample_words, share_right


def comparison_page(result: Comparison, *, facts: Mapping[str, Any] | None = None) -> Page:
    """The page of a comparison of predictors; `facts`: how it was made, in addition to its provenance."""

    def draw(folder: Path) -> dict[str, Path]:
        from .comparison_plots import draw_comparison

        return draw_comparison(result, folder)

    def inline() -> dict[str, str]:
        from .comparison_plots import inline_comparison

        return inline_comparison(result)

    costs = costs_shown(result)
    sample = sample_words(result.provenance, result.num_queries, result.num_traces)
    measured = sorted({each.own_cost.threads for each in result.candidates if each.own_cost is not None})
    return Page(
        name="comparison",
        title="Predictors compared",
        result=result,
        sample=f"{sample}, allocator {result.allocator}; log loss of the mean curve {_loss(result, MEAN)}",
        decision=tuple(comparison_decision(result)),
        parts=[
            *(
                Part(f"mean over {len(result.levels[cost])} levels of {COUNTED[cost]}", [_scores(result, cost)])
                for cost in costs
            ),
            Part(
                "gain and cost of the predictors",
                [Picture(f"gain-{cost.value}", best_title(result, cost)) for cost in costs],
                on="html",
            ),
            Part("cost of the predictions", [_costs(result)], on="page"),
            *([Part("", [Said(f"Times: {'; '.join(measured)}.")], on="page")] if measured else []),
            *(Part(f"accuracy at {COUNTED[c]}", [_levels(result, c)], on="page") for c in costs),
        ],
        num_resamples=result.num_resamples,
        simulated=result.simulated,
        notes=result.notes,
        facts=facts_of(result, facts),
        draw=draw,
        inline=inline,
    )


def _loss(result: Comparison, name: str) -> str:
    return interval(result.log_losses[name], ".4f")


def _scores(result: Comparison, cost: Cost) -> Table:
    has_net = any(each.net_gain is not None for each in result.scores if each.cost is cost)
    head = ["predictor", "points over uniform", "over blind", "gap closed", f"lead over {result.candidates[0].name}"]
    rows = []
    for each in result.candidates:
        found = result.score(each.name, cost)
        cells = [gain_words(found.gain), gain_words(found.gain_over_blind), gap_words(found.gap_closed)]
        cells += [gain_words(found.lead), *([gain_words(found.net_gain)] if has_net else [])]
        rows.append([Said(each.name), *cells, _loss(result, each.name)])
    net = ["net of own tokens"] if has_net else []
    return Table([*map(Said, head), *net, "log loss (nats)"], rows)


def _costs(result: Comparison) -> Table:
    def cells(each: Candidate) -> list[str]:
        if (own := each.own_cost) is None:
            return ["–", "–", "–"]
        tokens = "not known" if own.tokens is None else f"{own.tokens:.3g}"
        return [f"{own.parameters:,}", f"{1e3 * own.seconds:.3g} ms", tokens]

    rows = [[Said(each.name), Said(each.predictor), *cells(each)] for each in result.candidates]
    return Table(["predictor", "kind", "parameters", "time per query", "tokens per query"], rows)


def _levels(result: Comparison, cost: Cost) -> Table:
    names = [each.name for each in result.candidates]
    at = {(row.policy, row.budget): row.accuracy for row in result.rows if row.cost is cost}
    oracles = [name for name in (ORACLE, FAIR_ORACLE) if (name, result.levels[cost][0]) in at]
    rows = []
    for level in result.levels[cost]:
        baselines = [percent(at[name, level].value) for name in (UNIFORM, BLIND)]
        rows.append(
            [
                level_words(level, cost),
                *baselines,
                *(share_right(at[name, level]) for name in names),
                *(percent(at[name, level].value) for name in oracles),
            ]
        )
    return Table([COUNTED[cost], UNIFORM, BLIND, *map(Said, names), *map(policy_name, oracles)], rows)
