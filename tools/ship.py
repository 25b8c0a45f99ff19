"""Makes what the package ships for one model, from profile runs: profiles, predictor, evaluation.

    python tools/ship.py qwen2.5-coder-1.5b --train runs/train --test runs/test

Writes profiles/NAME-gsm8k-train.parquet (counts and the chosen layer), the held-out profile and the predictor inside
the package, and docs/results/NAME. The layer and the regularisation are chosen on the training runs; the test run is
only evaluated on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click

from forethought.commands.pipeline import train
from forethought.commands.reports import evaluate
from forethought.control.sources import open_profile
from forethought.core.data import Sampling
from forethought.core.profile import Profile
from forethought.core.settings import TrainSettings
from forethought.core.study_settings import EvaluateSettings
from forethought.predictors.card import PredictorCard
from forethought.predictors.card_parts import CrossValidation
from forethought.predictors.predictor import Predictor
from forethought.report import page
from forethought.runs.profiles import joined, with_layers, write_parquet

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "src" / "forethought" / "data"


def card(name: str, measured: Profile, predictor: Predictor) -> str:
    """What stands beside the training profile."""
    made, sampling = measured.provenance, measured.provenance.sampling or Sampling()
    right = measured.num_right_Q_B.sum(axis=0) / measured.num_tried_Q.sum()
    tokens = (measured.num_tried_Q @ measured.tokens_Q_B) / measured.num_tried_Q.sum()
    fewest, most = int(measured.num_tried_Q.min()), int(measured.num_tried_Q.max())
    per_query = str(most) if fewest == most else f"{fewest} to {most}"
    rows = [
        f"| {budget} | {100 * accuracy:.1f} | {mean:.1f} |"
        for budget, accuracy, mean in zip(measured.menu.budgets_B, right, tokens, strict=True)
    ]
    return "\n".join(
        [
            f"# Profile {name}-gsm8k-train",
            "",
            f"{measured.num_queries} GSM8K train questions, {measured.num_tried_Q.sum():,} traces "
            f"({per_query} per question), "
            f"cut at {measured.menu} tokens.",
            "",
            f"- Model `{made.model}`, SHA-256 of its GGUF file `{made.model_hash}`, {made.dtype}.",
            f"- Prompt template `{made.template}` (hash `{made.template_hash}`); its worked examples are not "
            "among the questions.",
            f"- Engine {made.engine}; temperature {sampling.temperature}, top-p {sampling.top_p}; "
            f"run seed {made.seed}; grader `{made.grader}`.",
            f"- Hidden states (float16) of the last prompt token at layer {predictor.card.features.layer}, "
            "the one that the shipped predictor reads.",
            "- Questions: GSM8K (Cobbe et al., 2021), MIT licence, Copyright (c) 2021 OpenAI; a random sample.",
            "",
            "| cap | right (%) | mean tokens generated |",
            "| --- | --- | --- |",
            *rows,
            "",
        ]
    )


def read(name: str, runs: Sequence[str], layers: Sequence[int]) -> Profile:
    """The runs as one profile of that name, with the layers that are kept."""
    profile = with_layers(joined([open_profile(run) for run in runs]), layers)
    return replace(profile, provenance=replace(profile.provenance, name=name))


def earlier_choice(earlier: PredictorCard | None, card: PredictorCard) -> CrossValidation | None:
    """How the layer was chosen when all were at hand: the shipped training profile holds the chosen one alone."""
    if earlier is None or (earlier.data.data_hash, earlier.features) != (card.data.data_hash, card.features):
        return None
    return earlier.cross_validation


@click.command()
@click.argument("name")
@click.option("--train", "train_runs", multiple=True, required=True, help="Profile run or Parquet file (repeatable).")
@click.option("--test", "test_runs", multiple=True, required=True, help="Held-out profile run (repeatable).")
@click.option("--predictor", default="ridge", show_default=True)
def main(name: str, train_runs: tuple[str, ...], test_runs: tuple[str, ...], predictor: str) -> None:
    """Trains on the training runs, keeps the chosen layer, evaluates on the test runs."""
    folder = DATA / "predictors" / name
    first, *more = train_runs
    earlier = Predictor.load(folder).card if folder.exists() else None
    trained, _ = train(TrainSettings(run=first, more=tuple(more), predictor=predictor, out=str(folder)))
    layers = [] if trained.card.features.layer is None else [trained.card.features.layer]
    measured = read(f"{name}-gsm8k-train", train_runs, layers)
    data = replace(trained.card.data, name=str(measured.provenance.name))
    choice = trained.card.cross_validation or earlier_choice(earlier, trained.card)
    replace(trained, card=replace(trained.card, data=data, cross_validation=choice)).save(folder)
    profiles = ROOT / "profiles"
    for parent in (profiles, DATA / "profiles"):
        parent.mkdir(exist_ok=True)
    write_parquet(profiles / f"{name}-gsm8k-train.parquet", measured)
    (profiles / f"{name}-gsm8k-train.md").write_text(card(name, measured, trained), "utf-8")
    write_parquet(DATA / "profiles" / f"{name}-gsm8k-test.parquet", read(f"{name}-gsm8k-test", test_runs, layers))
    for file in page(evaluate(EvaluateSettings(run=name))).write(ROOT / "docs" / "results" / name).values():
        click.echo(file)


if __name__ == "__main__":
    main()
