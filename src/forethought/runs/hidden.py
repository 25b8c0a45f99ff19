"""Hidden states of a run: chunks of queries as safetensors, one file per chunk, written once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core.data import FloatArray
from ..core.files import make_folder, parse_json, reaching, write_atomically
from ..core.worker import ALONE, Worker
from ..errors import RunError


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one file holds, without its numbers: they are read by `read`."""

    file: Path
    layers: tuple[int, ...]
    query_ids: tuple[str, ...]
    width: int
    array: str

    def read(self) -> FloatArray:
        """The states, float16 or float32, shape (Q, L, D)."""
        from safetensors import safe_open

        with reaching(self.file, "read"), safe_open(self.file, framework="numpy") as content:
            states_Q_L_D: FloatArray = content.get_tensor(self.array)
        return states_Q_L_D


def save_chunk(
    folder: Path,
    query_ids: Sequence[str],
    layers: Sequence[int],
    hidden_Q_L_D: FloatArray,
    mean_Q_L_D: FloatArray | None = None,
    *,
    worker: Worker = ALONE,
) -> None:
    """Keeps the hidden states of some queries as float16 (values beyond its range are clipped).

    Args:
        folder: of all chunks.
        query_ids: length Q.
        layers: length L.
        hidden_Q_L_D: at the last prompt token.
        mean_Q_L_D: the mean over the query's own tokens, or None when it was not read.
        worker: who writes; the names of its files are its own.
    """
    from safetensors.numpy import save

    limit = float(np.finfo(np.float16).max)
    pooled = {"hidden_Q_L_D": hidden_Q_L_D} | ({} if mean_Q_L_D is None else {"mean_Q_L_D": mean_Q_L_D})
    arrays = {name: np.clip(array, -limit, limit).astype(np.float16) for name, array in pooled.items()}
    metadata = {"query_ids": json.dumps(list(query_ids)), "layers": json.dumps(list(layers))}
    prefix = "" if worker.is_alone else f"{worker.number}-"
    make_folder(folder)
    stems = (file.stem.removeprefix(prefix) for file in folder.glob(f"{prefix}*.safetensors"))
    number = 1 + max((int(stem) for stem in stems if stem.isdecimal()), default=-1)
    write_atomically(folder / f"{prefix}{number:05d}.safetensors", save(arrays, metadata=metadata))


def chunks(folder: Path, *, pooling: str = "last") -> tuple[tuple[int, ...], list[Chunk]]:
    """The layers that all chunks hold, and the chunks that hold them; no numbers are read.

    Where no layer is in all of them, those of the most queries.

    Args:
        folder: of all chunks.
        pooling: "last" for the last prompt token, "mean" for the mean over the query's own tokens, of which chunks
            without one are left aside.
    """
    found = list(_read_all(folder, "mean_Q_L_D" if pooling == "mean" else "hidden_Q_L_D"))
    if not found:
        return (), []
    for chunk in found:
        if chunk.width != found[0].width:
            raise RunError(
                f"{chunk.file} holds states {chunk.width} wide, the chunks before it {found[0].width} wide. Delete it, "
                "and give the same command again."
            )
    # Runs of before layers were checked first may hold chunks of several choices: what they share is of use.
    layers = tuple(layer for layer in found[0].layers if all(layer in other.layers for other in found))
    if not layers:
        count: Counter[tuple[int, ...]] = Counter()
        for chunk in found:
            count[chunk.layers] += len(chunk.query_ids)
        layers = count.most_common(1)[0][0]
    return layers, [chunk for chunk in found if set(layers) <= set(chunk.layers)]


def _read_all(folder: Path, array: str) -> Iterator[Chunk]:
    for file in sorted(folder.glob("*.safetensors")):
        if (chunk := _read(file, array)) is not None:
            yield chunk


def _read(file: Path, array: str) -> Chunk | None:
    """What a file says that it holds; None where it has no such array.

    Raises:
        RunError: it is no chunk, or what it says does not fit together.
    """
    from safetensors import SafetensorError, safe_open

    shape: Sequence[int] | None = None
    kind = ""
    try:
        with reaching(file, "read"), safe_open(file, framework="numpy") as content:
            metadata = content.metadata() or {}
            if array in content.keys():  # noqa: SIM118  (not a dict)
                part = content.get_slice(array)
                shape, kind = part.get_shape(), part.get_dtype()
        layers, query_ids = (parse_json(metadata.get(key, "null")) for key in ("layers", "query_ids"))
        problem = _problem(layers, query_ids, shape, kind)
    except (SafetensorError, ValueError, TypeError, KeyError, AttributeError) as error:
        problem = str(error) or type(error).__name__
    if problem:
        raise RunError(
            f"{file} is not a chunk of hidden states: {problem}. Delete it: the command that made it reads these "
            "questions again."
        )
    return None if shape is None else Chunk(file, tuple(layers), tuple(query_ids), shape[2], array)


def _problem(layers: Any, query_ids: Any, shape: Sequence[int] | None, kind: str) -> str | None:
    if not isinstance(layers, list) or not all(type(layer) is int and layer >= 0 for layer in layers):
        return "it does not name its layers"
    if not isinstance(query_ids, list) or not all(isinstance(query_id, str) for query_id in query_ids):
        return "it does not name its queries"
    if len(set(layers)) < len(layers) or len(set(query_ids)) < len(query_ids):
        return "it names a layer or a query twice"
    if shape is None:
        return None
    if len(shape) != 3 or list(shape[:2]) != [len(query_ids), len(layers)]:
        return f"{len(query_ids)} queries and {len(layers)} layers, but an array of shape {tuple(shape)}"
    return None if kind.startswith(("F", "BF")) else f"numbers of type {kind}"
