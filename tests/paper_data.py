"""A made-up folder of the shape of the paper's published measurements; nothing in it was measured on anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

NUM_BUDGETS, NUM_TRACES = 16, 100


def made_up_split(name: str, num_queries: int, *, width: int = 12, seed: int = 0) -> dict[str, Any]:
    """Columns of one split: features whose first two say how likely a query is solved, and from which cap on."""
    random = np.random.default_rng(seed)
    hidden_Q_D = random.standard_normal((num_queries, width)).astype(np.float16)
    ease_Q_1, jump_Q_1 = hidden_Q_D[:, :1].astype(np.float64), 6.0 + 3.0 * hidden_Q_D[:, 1:2].astype(np.float64)
    level_Q_B = 1 / (1 + np.exp(-(np.arange(NUM_BUDGETS) - jump_Q_1) / 0.8))
    p_Q_B = level_Q_B / (1 + np.exp(-2.0 * ease_Q_1))
    right_Q_B = random.binomial(NUM_TRACES, p_Q_B).astype(np.int16)
    cuts = np.quantile(right_Q_B[:, -1], [0.2, 0.8])
    difficulty = np.array(["hard", "medium", "easy"])[np.searchsorted(cuts, right_Q_B[:, -1])]
    noisy = np.where(random.uniform(size=num_queries) < 0.3, "medium", difficulty)
    return {
        "question_id": [f"{name}_{row}" for row in range(num_queries)],
        "question": [f"<made-up question {row}>" for row in range(num_queries)],
        "num_correct": right_Q_B,
        "num_trials": np.full(num_queries, NUM_TRACES, dtype=np.int16),
        "difficulty": difficulty.tolist(),
        "lora_difficulty": noisy.tolist(),
        "zeroshot_difficulty": random.choice(["easy", "medium", "hard"], num_queries).tolist(),
        "hidden_state": hidden_Q_D,
    }


def write_split(path: Path, columns: dict[str, Any]) -> None:
    """The columns as Parquet; matrices become lists of fixed length."""

    def stored(value: Any) -> Any:
        if isinstance(value, np.ndarray) and value.ndim == 2:
            return pa.FixedSizeListArray.from_arrays(pa.array(value.ravel()), value.shape[1])
        return value if isinstance(value, pa.Array) else pa.array(value)

    pq.write_table(pa.table({name: stored(value) for name, value in columns.items()}), path)


def made_up_folder(folder: Path, *, num_train: int = 240, num_dev: int = 90) -> Path:
    """A folder with a train and a dev split."""
    folder.mkdir(parents=True, exist_ok=True)
    write_split(folder / "train.parquet", made_up_split("train", num_train, seed=1))
    write_split(folder / "dev.parquet", made_up_split("test", num_dev, seed=2))
    return folder
