"""Frozen samples for `votes.py`: groups of answers and tokens of each question, option and sample."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from forethought.control.sources import open_profile
from forethought.core.data import FloatArray, IntArray
from forethought.core.registry import make
from forethought.evaluation.votes import groups

LETTERS = "ABCDEFGHIJ"
PROBE_TOKENS = 2  # of a trial answer, as the data's description counts them


@dataclass(frozen=True, slots=True, eq=False)
class Frozen:
    """Samples of Q questions under O options, T of each.

    Attributes:
        name: of the data.
        labels: of the options.
        group_O_Q_T: 0 the right answer, above it wrong ones, -1 unreadable.
        tokens_O_Q_T: tokens of each sample.
        features_Q_F: what is known of a question before anything is drawn; None: nothing.
        simulated: whether a made-up model gave them.
    """

    name: str
    labels: tuple[str, ...]
    group_O_Q_T: IntArray
    tokens_O_Q_T: FloatArray
    features_Q_F: FloatArray | None = None
    simulated: bool = False


def from_profile(source: str, *, grader: str) -> Frozen:
    """Traces of a profile with answers, and its hidden states at the first layer that it holds.

    Of each question as many traces are taken as every question has. All right answers are one group.
    """
    profile = open_profile(source)
    num_traces, group_N_B = int(profile.num_tried_Q.min()), groups(profile, make("graders", grader, {}))
    assert profile.traces is not None
    index_Q_T = np.array([np.arange(where.start, where.start + num_traces) for where in profile.traces_of_Q])
    hidden = profile.hidden_Q_L_D
    return Frozen(
        profile.provenance.model or "unknown model",
        profile.menu.labels if profile.menu.is_named else tuple(map(str, profile.menu.caps)),
        np.moveaxis(group_N_B[index_Q_T], 2, 0),
        np.moveaxis(profile.traces.tokens_N_B[index_Q_T].astype(np.float64), 2, 0),
        None if hidden is None else hidden[:, 0],
        profile.provenance.simulated,
    )


def epoch(path: Path, model: str, *, task: str = "gpqa-diamond") -> Frozen:
    """Draws of one model at its effort levels, of the questions that have all of them; from Epoch AI (CC-BY-4.0)."""
    columns = ["model", "task", "effort", "question_id", "sample", "correct", "answer", "output_tokens"]
    rows = [
        row for row in pq.read_table(path, columns=columns).to_pylist() if row["task"] == task and model in row["model"]
    ]
    rows.sort(key=lambda row: (row["effort"], row["question_id"], row["sample"]))
    labels, ids = sorted({row["effort"] for row in rows}), sorted({row["question_id"] for row in rows})
    found: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for row in rows:
        letter = row["answer"] or ""
        group = 0 if row["correct"] else 1 + LETTERS.index(letter) if letter and letter in LETTERS else -1
        found.setdefault((row["effort"], row["question_id"]), []).append((group, row["output_tokens"]))
    most = max(map(len, found.values()))
    ids = [each for each in ids if all(len(found.get((label, each), ())) == most for label in labels)]
    every = np.array([[found[label, each] for each in ids] for label in labels], dtype=np.float64)
    order = every[..., 1].mean(axis=(1, 2)).argsort()
    every = every[order]
    return Frozen(
        f"{model}, GPQA Diamond",
        tuple(labels[column] for column in order),
        every[..., 0].astype(np.int64),
        every[..., 1],
    )


def thoughts(path: Path) -> Frozen:
    """Long thoughts cut at common caps: the trial answer at the last measured cut before each cap.

    A thought that has ended by itself costs its length; any other one the cap. A trial answer costs two tokens.
    """
    rows = pq.read_table(
        path, columns=["question_id", "seed", "decile", "prefix_tokens", "trace_tokens", "trial_answer", "correct"]
    ).to_pylist()
    found: dict[str, dict[int, list[tuple[int, int, int]]]] = {}
    for row in sorted(rows, key=lambda row: (row["question_id"], row["seed"], row["decile"])):
        letter = row["trial_answer"]
        group = 0 if row["correct"] else 1 + LETTERS.index(letter) if letter and letter in LETTERS else -1
        traces = found.setdefault(row["question_id"], {})
        traces.setdefault(row["seed"], []).append((row["prefix_tokens"], row["trace_tokens"], group))
    caps = [1 << power for power in range(9, 16)]
    most = max(map(len, found.values()))
    complete = [list(traces.values()) for traces in found.values() if len(traces) == most]
    answers = np.empty((len(caps), len(complete), most), dtype=np.int64)
    tokens = np.empty(answers.shape)
    for row, traces in enumerate(complete):
        for sample, cuts in enumerate(traces):
            for column, cap in enumerate(caps):
                within = [group for prefix, _, group in cuts if prefix <= cap]
                answers[column, row, sample] = within[-1]
                tokens[column, row, sample] = min(cap, cuts[0][1]) + PROBE_TOKENS
    return Frozen("long thoughts, controls", tuple(map(str, caps)), answers, tokens)


def simulated(num_queries: int, num_samples: int, *, seed: int) -> Frozen:
    """A made-up model under six caps; SIMULATED, it says nothing of a real one.

    A thought is found out at a place that differs by question and a little by sample, and then right with the
    question's plateau. Before that, and where it fails, the answer is one of five wrong ones, of which each question
    has its favourites. A tenth of the cut thoughts give no readable answer. What is known beforehand is half of what
    decides a question's place and plateau.
    """
    random, truth = np.random.default_rng([seed, 1]), np.random.default_rng([seed, 2])
    caps = np.array([32, 64, 96, 128, 192, 256])
    shape = (num_queries, num_samples)
    known_Q_F, hidden_Q_F = truth.normal(size=(num_queries, 2)), truth.normal(size=(num_queries, 2))
    place_Q, plateau_Q = (np.sqrt(0.5) * (known_Q_F + hidden_Q_F)).T
    found_Q_T = np.exp(4.1 + 0.45 * place_Q[:, None] + 0.2 * random.normal(size=shape))
    length_Q_T = np.round(found_Q_T * np.exp(0.25 + 0.2 * random.normal(size=shape)))
    plateau_Q = 1.0 / (1.0 + np.exp(-0.4 - 1.5 * plateau_Q))
    is_able_Q_T = random.random(shape) < plateau_Q[:, None]
    favourite_Q_W = truth.dirichlet([0.5] * 5, size=num_queries).cumsum(axis=1)
    wrong_Q_T = 1 + (random.random((*shape, 1)) > favourite_Q_W[:, None, :-1]).sum(axis=2)
    is_mute_Q_T = random.random(shape) < 0.1
    answers, tokens = [], []
    for cap in caps:
        group_Q_T = np.where(is_able_Q_T & (found_Q_T <= cap), 0, wrong_Q_T)
        answers.append(np.where(is_mute_Q_T & (length_Q_T > cap), -1, group_Q_T))
        tokens.append(np.minimum(length_Q_T, cap) + 10.0)
    squares = np.stack([known_Q_F[:, 0] * known_Q_F[:, 1], *(known_Q_F**2).T], axis=1)
    features_Q_F = np.concatenate([known_Q_F, squares], axis=1)
    return Frozen("a made-up model", tuple(map(str, caps)), np.stack(answers), np.stack(tokens), features_Q_F, True)
