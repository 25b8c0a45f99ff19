"""The study's findings in sentences: the same on the terminal and in Markdown."""

from __future__ import annotations

from ...core.visible import one_line
from ...evaluation import Estimate
from ...report.wording import gain_words, percent
from .results import FAILS, HOLDS, IN_PART, PAPER_RANGE, UNDECIDED, UNTESTED, Contrast, Finding, LayerStudy
from .states import layers_words

POOLING = {"last": "last token", "mean": "mean over the question's tokens"}
SOURCE = "arXiv 2602.01237"


def sample_words(result: LayerStudy) -> str:
    """What was studied, and on how much."""
    fewest, most = result.num_traces
    traces = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    model = one_line(result.provenance.get("model") or "unknown model")
    num_layers = len(result.rows) // len(result.findings)
    return (
        f"{model}: {result.num_queries:,} questions, {traces} trace{'' if traces == '1' else 's'} each; "
        f"{num_layers} layers, {' and '.join(POOLING[pooling] for pooling in result.poolings)}"
    )


def difference_words(found: Estimate) -> str:
    """A difference of log losses with its interval; a sign and a mark where it includes 0."""
    value, low, high = (f"{each:+.4f}".replace("-", "−") for each in (found.value, found.low, found.high))
    return f"{value} [{low}, {high}]{' ~' if found.low <= 0.0 <= found.high else ''}"


def share_words(layer: int, depth: int | None) -> str:
    """A layer with its share of the depth: `layer 18 of 28 (64%)`."""
    return f"layer {layer}" if depth is None else f"layer {layer} of {depth} ({layer / depth:.0%})"


def finding_lines(result: LayerStudy, finding: Finding) -> list[str]:
    """One pooling's finding: the best layer, its equals, thirds of the depth, and the paper's claim."""
    best = result.best(finding)
    loss, mean_loss = best.scores.log_loss.value, result.mean_curve.log_loss.value
    lines = [
        f"{POOLING[finding.pooling]}: the best is {share_words(finding.best, result.depth)}, log loss {loss:.4f} "
        f"(mean curve {mean_loss:.4f}), the best in {percent(best.wins)} of the resamples. Intervals of the difference "
        f"to it include 0 for {layers_words(finding.equal)}; with the luck of the pick taken into account, the best "
        f"may be any of {layers_words(finding.may_be_best)}."
    ]
    lines += [contrast_words(each) for each in finding.contrasts]
    return [*lines, verdict_words(result, finding)]


def contrast_words(each: Contrast) -> str:
    """Two groups of layers compared, as a sentence."""
    found = each.log_loss
    verdict = _verdict(found, better="is better than", worse="is worse than")
    ours, others = layers_words(each.layers), layers_words(each.other_layers)
    return (
        f"{each.name} ({ours}) {verdict} {each.other} ({others}): log loss "
        f"{difference_words(found)}, accuracy {gain_words(each.accuracy)} points"
    )


def _verdict(less: Estimate, *, better: str, worse: str) -> str:
    """What a difference of log losses says of the first."""
    return better if less.high < 0.0 else worse if less.low > 0.0 else "is not clearly better or worse than"


def verdict_words(result: LayerStudy, finding: Finding) -> str:
    """Whether the paper's finding holds here, and why."""
    first, last, whole = PAPER_RANGE
    claim = f"the paper's finding (middle layers, {first} to {last} of {whole}, are best; {SOURCE})"
    if finding.verdict == UNTESTED:
        return f"{claim} was not tested: the layers studied do not cover that range and what comes after it"
    assert finding.paper_best is not None
    assert finding.paper_behind is not None
    behind = f"log loss {difference_words(finding.paper_behind)}"
    reasons = {
        HOLDS: "the best layer lies there, and that range is surely better than the layers after it",
        IN_PART: (
            f"that range is surely better than the layers after it, but the best layer is {finding.best}; the best of "
            f"that range, layer {finding.paper_best}, is not surely worse ({behind}; the luck of the pick included)"
        ),
        FAILS: (
            f"no layer of that range may be the best; the best is {finding.best}, and the best of that range, layer "
            f"{finding.paper_best}, is behind it ({behind})"
            if not set(finding.may_be_best) & set(finding.paper_layers)
            else "the layers after that range are surely better than it"
        ),
        UNDECIDED: "between that range and the layers after it no difference is sure",
    }
    wins = f"the best layer of a resample lies in that range in {percent(finding.paper_wins)}"
    verdict = "is not decided" if finding.verdict == UNDECIDED else finding.verdict
    return (
        f"{claim} {verdict} here, where that is {layers_words(finding.paper_layers)}: "
        f"{reasons[finding.verdict]}; {wins}"
    )


def pooling_words(result: LayerStudy) -> str | None:
    """The two poolings compared; None where one was studied."""
    if result.mean_less_last is None:
        return None
    found = result.mean_less_last
    verdict = _verdict(found, better="beats", worse="falls behind")
    return f"the mean's best layer {verdict} the last token's: log loss {difference_words(found)}"
