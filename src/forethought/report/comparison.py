"""A comparison of predictors for the terminal and as a Markdown page."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from ..core.data import Cost
from ..core.files import make_folder
from ..core.visible import markdown, one_line
from ..evaluation.comparison import MEAN, Candidate, Comparison, Score
from ..evaluation.policies import BLIND, ORACLE, UNIFORM
from ..evaluation.results import Estimate
from .layout import aligned, table
from .wording import LEGEND, SIMULATED, gain_words, gap_words, percent, policy_name, share_right


def comparison_text(result: Comparison) -> str:
    """The result for a person, in one table a cost."""
    lines = [SIMULATED] if result.provenance.get("simulated") else []
    lines.append(_sample(result))
    for cost in result.levels:
        lines += [
            "",
            f"mean over {len(result.levels[cost])} levels of {cost.value} tokens",
            *aligned(_cells(result, cost)),
        ]
    return "\n".join([*lines, "", LEGEND])


def comparison_markdown(result: Comparison, pictures: dict[str, Path]) -> list[str]:
    """Lines of the page."""
    lines = ["# Predictors compared", "", markdown(_sample(result)), ""]
    if result.provenance.get("simulated"):
        lines += [f"**{SIMULATED}**", ""]
    for cost in result.levels:
        head, *rows = _cells(result, cost)
        head, rows = [markdown(cell) for cell in head], [[markdown(name), *cells] for name, *cells in rows]
        lines += [f"## Mean over all levels, equal {cost.value} tokens", "", *table(head, rows)]
    lines += ["## What predicting costs itself", "", *_costs(result)]
    for cost in result.levels:
        lines += [f"## Accuracy at {cost.value} tokens", "", *_levels(result, cost)]
    lines += [f"- {markdown(note)}" for note in result.notes]
    if pictures:
        lines += ["", *(f"![{name}]({file.name})" for name, file in pictures.items())]
    return [*lines, "", LEGEND]


def comparison_json(result: Comparison) -> dict[str, Any]:
    """One object of plain values."""
    from . import SCHEMA, plain

    found: dict[str, Any] = plain({"schema": SCHEMA, "kind": "comparison", **result.to_json()})
    return found


def write_comparison(folder: Path, result: Comparison, *, plots: bool = True) -> dict[str, Path]:
    """Writes JSON, Markdown and, where matplotlib is installed, a picture into `folder`."""
    make_folder(folder)
    files = {"json": folder / "comparison.json", "markdown": folder / "comparison.md"}
    from . import write_pages

    pictures: dict[str, Path] = {}
    if plots and importlib.util.find_spec("matplotlib") is not None:
        from .comparison_plots import draw_comparison

        pictures = draw_comparison(result, folder)
    write_pages(files, comparison_json(result), comparison_markdown(result, pictures))
    return files | pictures


def _sample(result: Comparison) -> str:
    fewest, most = result.num_traces
    traces = str(fewest) if fewest == most else f"{fewest} to {most}"
    model = one_line(result.provenance.get("model") or "an unknown model")
    return (
        f"{result.num_queries:,} questions × {traces} traces of {model}, allocator {result.allocator}; 95% paired "
        f"bootstrap intervals in brackets; log loss of the mean curve {_loss(result.log_losses[MEAN])}"
    )


def _cells(result: Comparison, cost: Cost) -> list[list[str]]:
    has_net = any(result.score(each.name, cost).net_gain is not None for each in result.candidates)
    head = ["predictor", "points over uniform", "over blind", "gap closed", f"lead over {result.candidates[0].name}"]
    head += ["net of own tokens"] * has_net + ["log loss (nats)"]
    return [head, *(_score_cells(result, each, cost, has_net=has_net) for each in result.candidates)]


def _score_cells(result: Comparison, candidate: Candidate, cost: Cost, *, has_net: bool) -> list[str]:
    found: Score = result.score(candidate.name, cost)
    cells = [candidate.name, gain_words(found.gain), gain_words(found.gain_over_blind), gap_words(found.gap_closed)]
    cells.append("–" if found.lead is None else gain_words(found.lead))
    if has_net:
        cells.append("–" if found.net_gain is None else gain_words(found.net_gain))
    return [*cells, _loss(result.log_losses[candidate.name])]


def _loss(loss: Estimate) -> str:
    return f"{loss.value:.4f} [{loss.low:.4f}, {loss.high:.4f}]"


def _costs(result: Comparison) -> list[str]:
    rows = []
    for each in result.candidates:
        own, names = each.cost, [markdown(each.name), markdown(each.predictor)]
        if own is None:
            rows.append([*names, "–", "–", "–"])
            continue
        tokens = "not known" if own.tokens is None else f"{own.tokens:.3g}"
        rows.append([*names, f"{own.parameters:,}", f"{1e3 * own.seconds:.3g} ms", tokens])
    lines = table(["predictor", "made by", "parameters", "time a query", "tokens a query"], rows)
    measured = {each.cost.threads for each in result.candidates if each.cost is not None}
    return [*lines, f"Times: {'; '.join(sorted(measured))}.", ""] if measured else lines


def _levels(result: Comparison, cost: Cost) -> list[str]:
    names = [UNIFORM, BLIND, *(each.name for each in result.candidates), ORACLE]
    levels = result.levels[cost]
    at = {(row.policy, row.budget): row for row in result.rows if row.cost is cost}
    head = [
        f"{cost.value} tokens",
        *(policy_name(name) if name in (UNIFORM, BLIND, ORACLE) else markdown(name) for name in names),
    ]
    rows = []
    for level in levels:
        cells = [share_right(at[name, level].accuracy) for name in names[2:-1]]
        baselines = [percent(at[name, level].accuracy.value) for name in (UNIFORM, BLIND)]
        rows.append([f"{level:g}", *baselines, *cells, percent(at[ORACLE, level].accuracy.value)])
    return table(head, rows)
