"""A predictor's card: its data, how it was chosen, and its quality, in JSON and as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from ..core.codec import UnfitError, decode, fields_to_json
from ..core.data import Curves, Sampling
from ..core.features import DIFFICULTY, HIDDEN, ID, TEXT, Float64Array
from ..core.menu import Menu, with_menu
from ..core.terms import percent
from ..core.visible import code, markdown
from ..errors import InvalidSettingsError
from .card_parts import CrossValidation, FeatureSchema, HistoryCard, NoveltyCard, OutOfFold, TrainingData
from .difficulty import Asking
from .parts.shape import make_concave
from .shrinkage import Shrinkage


@dataclass(frozen=True, slots=True, repr=False)
class PredictorCard:
    """What a saved predictor belongs to and how good it is.

    Attributes:
        predictor: registered name.
        model, model_hash, template, template_hash: whose prompts and traces it learned from; None when unknown.
        menu: the budgets of its curves.
        sampling: how the traces were drawn, or None when unknown.
        features: what it reads.
        data: what it was trained on.
        seed: of the folds and, where it draws at random, of the predictor.
        cross_validation: how the layer was chosen, or None when there was nothing to choose from.
        calibration: out-of-fold quality, or None when there were too few queries for folds.
        mean_p_B, mean_tokens_B: the mean curve of the training queries.
        mean_input_B: mean tokens of their prompts as billed under each option; None where money does not count.
        asking: how the model is asked for the difficulty that the predictor reads; None where it reads none.
        novelty: the novelty score; None where there is none.
        shrinkage: how far predictions are shrunk to the mean curve; None where they are used as fitted.
        grader: what judged the traces, with version and options, in words; None where it is not known.
        history: what earlier draws it knows; None for a predictor that knows none.
        vote_weights: by what several samples weighed their votes, see `core.votes.Voting`; "" for one vote each.
        versions: of the packages that made it.
        created: ISO 8601 date.
    """

    predictor: str
    model: str | None
    model_hash: str | None
    template: str | None
    template_hash: str | None
    menu: Menu
    sampling: Sampling | None
    features: FeatureSchema
    data: TrainingData
    seed: int
    cross_validation: CrossValidation | None
    calibration: OutOfFold | None
    mean_p_B: tuple[float, ...]
    mean_tokens_B: tuple[float, ...] | None
    versions: Mapping[str, str]
    created: str
    asking: Asking | None = None
    novelty: NoveltyCard | None = None
    shrinkage: Shrinkage | None = None
    grader: str | None = None
    history: HistoryCard | None = None
    mean_input_B: tuple[float, ...] | None = None
    vote_weights: str = ""

    def __repr__(self) -> str:
        return f"PredictorCard({self.predictor} for {self.model}, budgets {self.menu}, made {self.created})"

    def _repr_markdown_(self) -> str:
        """The card in words, in a notebook."""
        return self.to_markdown()

    def mean_curves(self, query_ids: tuple[str, ...]) -> Curves:
        """The mean curve for every query: all that the blind allocation knows."""
        p_B, tokens_B = np.array(self.mean_p_B), self.mean_tokens_B
        shape = (len(query_ids), 1)
        tokens_Q_B = None if tokens_B is None else np.tile(np.array(tokens_B), shape)
        return Curves(query_ids, self.menu, np.tile(p_B, shape), tokens_Q_B, self.input_Q_B(len(query_ids)))

    def input_Q_B(self, num_queries: int) -> Float64Array | None:
        """Tokens of a prompt under each option: those of a mean training query, shape (Q, B), to be read only."""
        if self.mean_input_B is None:
            return None
        return np.broadcast_to(np.array(self.mean_input_B, dtype=np.float64), (num_queries, len(self.mean_input_B)))

    @property
    def concave_mean(self) -> tuple[Float64Array, Float64Array | None]:
        """Accuracy and usage for a query of which nothing is known, shape (B,) each: see `make_concave`."""
        tokens_B = None if self.mean_tokens_B is None else np.array(self.mean_tokens_B)
        return make_concave(self.menu, np.array(self.mean_p_B), tokens_B)

    def to_json(self) -> dict[str, Any]:
        """The card as a JSON object."""
        return fields_to_json(self)

    @classmethod
    def from_json(cls, value: object) -> Self:
        """The card that `to_json` described; raises InvalidSettingsError on what no card can hold, by its place."""
        try:
            card = decode(cls, _renamed(value) if isinstance(value, dict) else value, place="card")
        except UnfitError as error:
            raise InvalidSettingsError(str(error)) from error
        if problem := _problem(card):
            raise InvalidSettingsError(f"card{problem}")
        return card

    def to_markdown(self) -> str:
        """The card as Markdown."""
        sections = [_what, _data, _history, _quality, _shrinkage, _layers, _limits, _novelty, _made]
        texts = ["# Predictor card", *(section(self) for section in sections)]
        return "\n\n".join(text for text in texts if text) + "\n"


def _renamed(value: dict[str, Any]) -> dict[str, Any]:
    """A card under today's names: schema 1 had others."""
    value = with_menu(value)
    if "familiarity" in value:
        value["novelty"] = value.pop("familiarity")
    if isinstance(shares := value.get("shrinkage"), dict):
        today = {"success": "accuracy", "success_z": "accuracy_z", "spend": "usage", "spend_z": "usage_z"}
        value["shrinkage"] = {today.get(name, name): share for name, share in shares.items()}
    return value


def _problem(card: PredictorCard) -> str | None:
    """What no predictor can be: curves that do not fit the budgets, chances beyond 0 to 1."""
    num_budgets, features, judged = card.menu.num_options, card.features, card.novelty
    curves = {
        ".mean_p_B": card.mean_p_B,
        ".mean_tokens_B": card.mean_tokens_B,
        ".mean_input_B": card.mean_input_B,
    }
    if card.calibration is not None:
        curves[".calibration.correlation_B"] = card.calibration.correlation_B
    for place, values in curves.items():
        if values is not None and len(values) != num_budgets:
            return f"{place} has {len(values)} numbers for {num_budgets} budgets"
    least_tokens = min((*(card.mean_tokens_B or ()), *(card.mean_input_B or ())), default=0.0)
    if not all(0.0 <= p <= 1.0 for p in card.mean_p_B) or not least_tokens >= 0.0:
        return ".mean_p_B must hold chances from 0 to 1, .mean_tokens_B and .mean_input_B tokens of at least 0"
    if card.sampling is not None and (card.sampling.temperature < 0.0 or not 0.0 < card.sampling.top_p <= 1.0):
        return f".sampling is {card.sampling}"
    if features.width < 0 or (HIDDEN in features.reads and (features.layer is None or features.width < 1)):
        return f".features reads hidden states of layer {features.layer}, {features.width} wide"
    if DIFFICULTY in features.reads and card.asking is None:
        return ".asking does not say how the model is asked"
    if judged is not None and (judged.kind not in (HIDDEN, TEXT) or judged.num_queries < 1):
        return f".novelty is of kind {judged.kind!r}, learned on {judged.num_queries} queries"
    if judged is not None and not 0.0 <= judged.false_alarms <= 1.0:
        return f".novelty.false_alarms is {judged.false_alarms:g}, no share"
    return None


def _what(card: PredictorCard) -> str:
    schema = card.features
    parts = {
        HIDDEN: f"the residual stream of the {schema.pooling} prompt token after decoder layer {schema.layer} "
        f"({schema.width} numbers)",
        TEXT: "the text of the question",
        DIFFICULTY: "the difficulty of the question that the model states when queried",
        ID: "its id, which identifies earlier samples",
    }
    read = " and ".join(part for kind, part in parts.items() if kind in schema.reads)
    reads = f"It reads {read}." if read else "It reads no features: every query gets the mean curve."
    return (
        f"Predicts, before any reasoning, the chance of a right answer under every "
        f"{f'option of {markdown(str(card.menu))}' if card.menu.is_named else f'budget of {card.menu} tokens'}"
        f"{', and the number of tokens generated' if card.mean_tokens_B is not None else ''}. {_votes(card)}"
        f"Predictor {code(card.predictor)}. {reads}\n\n"
        f"Made for model {code(card.model or 'unknown')} (hash {code(card.model_hash or 'unknown')}) with prompt "
        f"template {code(card.template or 'unknown')} (hash {code(card.template_hash or 'unknown')}). "
        f"It rejects any other model or template, and a profile that has none of its budgets."
    )


def _votes(card: PredictorCard) -> str:
    """How the samples of an option vote."""
    if not (card.menu.samples_B > 1).any():
        return ""
    weights = f"weighed by the log-probability of the {card.vote_weights}" if card.vote_weights else "one each"
    return f"An option of several samples, as in `x4`, is answered by their vote ({weights}). "


def _data(card: PredictorCard) -> str:
    data, sampling = card.data, card.sampling
    drawn = f", sampled at temperature {sampling.temperature:g}, top-p {sampling.top_p:g}" if sampling else ""
    drawn += f", graded by {code(card.grader)}" if card.grader else ""
    left_out = (
        f" {data.num_left_out} queries were left out (no trace, or unusable features)." if data.num_left_out else ""
    )
    simulated = "\n\n**The traces are simulated: no model was measured.**" if data.simulated else ""
    return (
        f"## Data\n\nProfile {code(data.name)}: {data.num_queries:,} queries, {data.num_traces:,} traces{drawn}. "
        f"Hash {code(data.data_hash)}.{left_out}{simulated}"
    )


def _history(card: PredictorCard) -> str:
    found = card.history
    if found is None:
        return ""
    tokens = "" if found.token_strength is None else f", its usage as {found.token_strength:.2g}"
    forgets = "All samples have equal weight."
    if found.half_life is not None:
        forgets = f"The weight of a sample halves after {found.half_life:g} further updates."
    rows = [
        (markdown(each.date), code(each.name), f"{each.num_queries:,}", f"{each.num_draws:,}", code(each.id))
        for each in found.fed[-20:]
    ]
    table = _table(("added", "from", "questions", "samples", "id"), rows) if rows else "No samples were added yet."
    return (
        f"## History\n\nIt holds {found.num_draws:,.0f} earlier samples of {found.num_queries:,} questions. The curves "
        f"of {code(found.base)} are the prior of each question; their accuracy has the weight of {found.strength:.2g} "
        f"samples{tokens} (maximum likelihood on the training counts). {forgets} The quality below is that on "
        f"questions without earlier samples.\n\n{table}"
    )


def _quality(card: PredictorCard) -> str:
    quality = card.calibration
    if quality is None:
        return "## Quality\n\nNot known: there are too few queries for held-out ones."
    chosen = "; the layer was chosen on all of it" if card.features.layer is not None else ""
    judged_on = f"Out of fold ({quality.num_folds} folds of the training profile{chosen}):"
    if quality.num_folds == 1:
        judged_on = (
            f"On training queries that were held out to stop early ({sum(each.num_traces for each in quality.bins):,} "
            f"traces and budgets); the number of epochs was chosen on them, so these numbers are a little too good:"
        )
    losses = [
        ("this predictor", f"{quality.log_loss:.4f}", f"{quality.brier:.4f}"),
        ("mean curve", f"{quality.mean_log_loss:.4f}", f"{quality.mean_brier:.4f}"),
    ]
    bins = [
        (
            f"{each.lower:.1f} to {each.upper:.1f}",
            f"{each.predicted:.3f}",
            f"{each.observed:.3f}",
            f"{each.num_traces:,}",
        )
        for each in quality.bins
    ]
    correlations = ", ".join(f"{value:.2f}" for value in quality.correlation_B)
    return (
        f"## Quality\n\n{judged_on}\n\n{_table(('', 'log loss (nats)', 'Brier score'), losses)}\n\n"
        f"Calibration error {quality.calibration_error:.3f}. Correlation with measured accuracy by budget: "
        f"{correlations}.\n\n{_table(('predicted between', 'predicted', 'observed', 'traces'), bins)}"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines)


def _shrinkage(card: PredictorCard) -> str:
    found = card.shrinkage
    if found is None:
        return ""
    shares = f"{percent(found.accuracy, 0)} for accuracy"
    shares += "" if found.usage is None else f" and by {percent(found.usage, 0)} for usage"
    return (
        f"## Shrinkage\n\nThe predicted difference from the mean curve is multiplied by {shares}. These weights are "
        f"estimated on left-out queries ({found.evidence}). At 0%, every query gets the mean curve, and a plan is the "
        "same as blind."
    )


def _layers(card: PredictorCard) -> str:
    chosen = card.cross_validation
    if chosen is None:
        return "## Layer\n\nThere was only one choice."
    rows = [
        (
            f"{each.layer}{' (chosen)' if each.layer == card.features.layer else ''}",
            f"{each.log_loss:.4f}",
            f"{each.brier:.4f}",
        )
        for each in chosen.layers
    ]
    return (
        f"## Layer\n\nChosen by {markdown(chosen.method)}, on {chosen.num_queries:,} queries.\n\n"
        f"{_table(('layer', 'log loss (nats)', 'Brier score'), rows)}"
    )


def _limits(card: PredictorCard) -> str:
    return (
        "## Limits\n\nThe curves are valid for queries like the training queries, with the same prompt and sampling. "
        "On other queries they may be wrong: profile a few hundred of your own queries and train again."
    )


def _novelty(card: PredictorCard) -> str:
    found = card.novelty
    if found is None:
        return "## Novelty\n\nThis predictor has no novelty score."
    looked_at = {HIDDEN: "hidden state", TEXT: "text (rarity of its letters and words, its length, its symbols)"}
    quantiles = ", ".join(f"{distance:.3f} ({percent(share, 0)})" for share, distance in found.quantiles)
    return (
        f"## Novelty\n\nThe score is the distance of a query's {looked_at[found.kind]} from those of the training "
        f"queries, by probabilistic principal component analysis with {found.num_components} components. It is "
        f"calibrated on {found.num_queries:,} training queries that were left out of the fit; quantiles of their "
        f"distances: {quantiles}. A query is novel if at most {percent(found.level, 0)} of them are as far away. "
        f"By this rule, {percent(found.false_alarms)} of left-out training queries are novel; if that were clearly "
        f"above {percent(2 * found.level, 0)}, the score would not be used. A plan warns if more queries of a batch "
        f"are novel than expected by chance; predictions are used in any case."
    )


def _made(card: PredictorCard) -> str:
    versions = ", ".join(f"{markdown(name)} {markdown(version)}" for name, version in sorted(card.versions.items()))
    made = f"Created {markdown(card.created)}, seed {card.seed}, with {versions}."
    return f"{made} Generated from `predictor.json`; do not edit either file."
