"""The layer study as a page: a row per layer, and the verdicts in sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ...core.terms import percent
from ...evaluation.results import Estimate
from ...report import Bullets, Page, Part, Picture, Table
from ...report.pages import facts_of
from ...report.wording import gain_words, interval, share_right
from .results import (
    FAILS,
    HOLDS,
    IN_PART,
    PAPER_RANGE,
    UNDECIDED,
    UNTESTED,
    Contrast,
    LayerRow,
    LayerStudy,
    Scores,
    Verdict,
)
from .wording import POOLING, layers_words, share_words, study_words

SOURCE = "arXiv 2602.01237"


def page(result: LayerStudy, *, facts: Mapping[str, Any] | None = None) -> Page:
    """The page of a layer study; `facts`: how it was made, in addition to its provenance."""

    def draw(folder: Path) -> dict[str, Path]:
        from .plots import draw

        return draw(result, folder)

    def inline() -> dict[str, str]:
        from .plots import inline

        return inline(result)

    first, *said = [line for verdict in result.verdicts for line in verdict_lines(result, verdict)]
    pictures = [Picture(name, title) for name, title in picture_titles(result).items()]
    parts = [Part("what was found", [Bullets([*said, *pooling_lines(result)]), *pictures])]
    for pooling in result.poolings:
        parts += [
            Part(POOLING[pooling], [_short_table(result, pooling)], on="terminal"),
            Part(POOLING[pooling], [_errors_table(result, pooling), _accuracy_table(result, pooling)], on="page"),
            Part("Correlation at every budget", [_correlation_table(result, pooling)], on="page", level=0),
        ]
    return Page(
        name="layers",
        title="Layers",
        result=result,
        sample=study_words(result),
        decision=tuple(first.split(". ", 1)),
        parts=parts,
        num_resamples=result.num_resamples,
        simulated=result.simulated,
        notes=result.notes,
        facts=facts_of(result, facts),
        draw=draw,
        inline=inline,
    )


def picture_titles(result: LayerStudy) -> dict[str, str]:
    """Name of each picture of the HTML page -> what it shows was found."""
    verdict, *_ = result.verdicts
    best = share_words(verdict.best, result.depth)
    found = {
        "loss": f"The lowest log loss ({POOLING[verdict.pooling]}) is that of {best}",
        "above": f"{len(verdict.may_be_best)} of {len(result.select(verdict.pooling))} layers may be the best (rings)",
        "correlation": f"Correlation with measured success, of {best}",
    }
    for place, level in enumerate(result.levels):
        gain = result.best(verdict).gain_over_blind[place]
        words = "is not clearly above" if gain.low <= 0 <= gain.high else "is above" if gain.low > 0 else "is below"
        found[f"gain-{place}"] = f"At {level:,.6g} granted tokens {best} {words} blind: {gain_words(gain)} points"
    return found


def verdict_lines(result: LayerStudy, verdict: Verdict) -> Iterator[str]:
    """One pooling: the best layer, its equals, thirds of the depth, and the paper's claim."""
    best = result.best(verdict)
    yield (
        f"{POOLING[verdict.pooling].capitalize()}: the best is {share_words(verdict.best, result.depth)}, log loss "
        f"{best.log_loss.value:.4f} (mean curve {result.mean_curve.log_loss.value:.4f}), the best in "
        f"{percent(best.wins)} of the resamples. Intervals of the difference to it include 0 for "
        f"{layers_words(verdict.equal)}; corrected for choosing the best, the best may be any of "
        f"{layers_words(verdict.may_be_best)}."
    )
    yield from (_contrast_words(each) for each in verdict.contrasts)
    yield _claim_words(verdict)


def pooling_lines(result: LayerStudy) -> Iterator[str]:
    """The two poolings compared; nothing where one was studied."""
    if (found := result.mean_less_last) is not None:
        words = _better_or_worse(found)
        yield f"The best layer of the mean {words} that of the last token: log loss {_difference(found)}."


def _contrast_words(each: Contrast) -> str:
    words = _better_or_worse(each.log_loss)
    ours, others = layers_words(each.layers), layers_words(each.other_layers)
    name = f"{each.name[0].upper()}{each.name[1:]}"
    return (
        f"{name} ({ours}) {words} {each.other} ({others}): log loss {_difference(each.log_loss)}, "
        f"accuracy {gain_words(each.accuracy)} points."
    )


def _claim_words(verdict: Verdict) -> str:
    """Whether this study confirms the paper's finding, and why."""
    first, last, whole = PAPER_RANGE
    claim = f"The paper's finding (middle layers, {first} to {last} of {whole}, are best; {SOURCE})"
    if verdict.verdict == UNTESTED or verdict.paper_behind is None:
        return f"{claim} was not tested: the layers studied do not cover that range and what comes after it."
    behind = f"log loss {_difference(verdict.paper_behind)}"
    reasons = {
        HOLDS: "the best layer is in that range, and that range is significantly better than the layers after it",
        IN_PART: (
            f"that range is significantly better than the layers after it, but the best layer is {verdict.best}; the "
            f"best of that range, layer {verdict.paper_best}, is not significantly worse ({behind}; corrected for "
            "choosing the best)"
        ),
        FAILS: (
            f"no layer of that range may be the best; the best is {verdict.best}, and the best of that range, layer "
            f"{verdict.paper_best}, is behind it ({behind})"
            if not set(verdict.may_be_best) & set(verdict.paper_layers)
            else "the layers after that range are significantly better than it"
        ),
        UNDECIDED: "there is no significant difference between that range and the layers after it",
    }
    said = "is not decided" if verdict.verdict == UNDECIDED else verdict.verdict
    return (
        f"{claim} {said} here, where that is {layers_words(verdict.paper_layers)}: {reasons[verdict.verdict]}; "
        f"the best layer of a resample lies in that range in {percent(verdict.paper_wins)}."
    )


def _better_or_worse(less: Estimate) -> str:
    """What a difference of log losses says of the first."""
    better = "better" if less.high < 0.0 else "worse" if less.low > 0.0 else "not clearly better or worse"
    return f"is {better} than"


def _difference(found: Estimate) -> str:
    """A difference of log losses with its interval, and a mark where it includes 0."""
    return f"{interval(found, '+.4f')}{' ~' if found.low <= 0.0 <= found.high else ''}"


def _above(row: LayerRow) -> str:
    return "best" if row.above_best.value == row.above_best.high == 0.0 else _difference(row.above_best)


def _short_table(result: LayerStudy, pooling: str) -> Table:
    def cells(name: str, scores: Scores, above: str) -> list[str]:
        errors = [f"{scores.log_loss.value:.4f}", above, f"{scores.squared_error.value:.4f}"]
        return [name, *errors, f"{scores.mean_pearson.value:.3f}", *map(share_right, scores.accuracy)]

    rows = [cells(str(row.layer), row, _above(row)) for row in result.select(pooling)]
    rows.append(cells("mean curve, blind", result.mean_curve, ""))
    for name, found in (("uniform", result.uniform), ("oracle", result.oracle)):
        rows.append([name, "", "", "", "", *map(share_right, found)])
    right = [f"right at {level:g}" for level in result.levels]
    return Table(["layer", "log loss", "less the best's", "squared error", "correlation", *right], rows)


def _errors_table(result: LayerStudy, pooling: str) -> Table:
    def cells(name: str, scores: Scores, above: str, wins: str) -> list[str]:
        errors = [interval(each, ".4f") for each in (scores.log_loss, scores.squared_error, scores.brier)]
        return [name, errors[0], above, wins, *errors[1:], interval(scores.mean_pearson, ".3f")]

    rows = [cells(str(row.layer), row, _above(row), percent(row.wins)) for row in result.select(pooling)]
    head = ["layer", "log loss", "less the best's", "best in", "squared error", "Brier", "mean correlation"]
    return Table(head, [*rows, cells("mean curve", result.mean_curve, "–", "–")])


def _accuracy_table(result: LayerStudy, pooling: str) -> Table:
    def cells(scores: Scores, gain: Callable[[Estimate], str]) -> Iterator[str]:
        for right, granted, over in zip(scores.accuracy, scores.granted, scores.gain_over_blind, strict=True):
            yield from (share_right(right), f"{granted:.1f}", gain(over))

    rows = [[str(row.layer), *cells(row, gain_words)] for row in result.select(pooling)]
    rows.append(["blind", *cells(result.mean_curve, lambda _: "–")])
    for name, found in (("uniform", result.uniform), ("oracle", result.oracle)):
        rows.append([name, *(cell for each in found for cell in (share_right(each), "", "–"))])
    head = [cell for level in result.levels for cell in (f"right at {level:g}", "granted", "points over blind")]
    return Table(["layer", *head], rows)


def _correlation_table(result: LayerStudy, pooling: str) -> Table:
    rows = [[str(row.layer), *(interval(each, ".2f") for each in row.pearson)] for row in result.select(pooling)]
    return Table(["layer", *(str(budget) for budget in result.menu.budgets_B)], rows)
