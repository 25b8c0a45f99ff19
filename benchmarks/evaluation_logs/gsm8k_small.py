"""An Inspect task of a few GSM8K questions, with two scorers: what an evaluation team's own task looks like."""

import json
import os
from pathlib import Path

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.scorer import match, pattern
from inspect_ai.solver import generate


@task
def gsm8k_small() -> Task:
    """The questions of the JSONL file that QUESTIONS names."""
    lines = Path(os.environ["QUESTIONS"]).read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    samples = [Sample(id=row["id"], input=row["question"], target=row["target"]) for row in rows]
    return Task(
        dataset=MemoryDataset(samples, name="gsm8k-small"),
        solver=generate(),
        scorer=[pattern(r"\\boxed\{\$?([0-9.,]+)[^}]*\}"), match(location="end", numeric=True)],
    )
