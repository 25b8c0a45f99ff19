"""A run directory: settings, records, hidden states. Append-only and flushed, so that a kill loses nothing reported.

RUN/run.json           what was asked and with what (settings, engine, versions), written once
RUN/queries.jsonl      the queries, canonical
RUN/records.jsonl      one line a finished trace; the last line may be cut short by a kill and is then dropped
RUN/hidden/N.safetensors   hidden states of a chunk of queries
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .checks import check_header, check_record
from .errors import RunError
from .files import make_folder, open_bytes, parse_json, reaching, read_json, write_atomically, write_json
from .types import BudgetGrid, FloatArray, Generation, Probe, StopReason
from .visible import to_json

SCHEMA = 1


def fingerprint(value: object) -> str:
    """First 16 hex digits of the SHA-256 of `value` as canonical JSON."""
    content = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def generation_to_json(generation: Generation) -> dict[str, Any]:
    """One record's JSON object."""
    record = asdict(generation)
    record["stop_reason"] = generation.stop_reason.value
    return record


def generation_from_json(record: Mapping[str, Any]) -> Generation:
    """The generation of one record; further keys (grades) are left aside."""
    return Generation(
        query_id=record["query_id"],
        sample=record["sample"],
        budget=record["budget"],
        reasoning=record["reasoning"],
        reasoning_tokens=record["reasoning_tokens"],
        answer=record["answer"],
        answer_tokens=record["answer_tokens"],
        suffix_tokens=record["suffix_tokens"],
        prompt_tokens=record["prompt_tokens"],
        stop_reason=StopReason(record["stop_reason"]),
        probes=tuple(Probe(p["budget"], p["answer"], p["answer_tokens"]) for p in record["probes"]),
        error=record.get("error"),
    )


class RunDirectory:
    """One run on disk.

    Args:
        path: its folder; made by `create`, opened by `open`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path, *, kind: str, identity: Mapping[str, Any], settings: Mapping[str, Any]) -> RunDirectory:
        """Makes the folder, or opens it to resume when it already holds a run of the same `identity`.

        Args:
            path: the folder.
            kind: "profile" or "run".
            identity: what determines a record given its query and sample (model hash, template hash, grid,
                sampling, seed). A folder made under another identity is refused, naming what differs.
            settings: the effective settings of the command, kept for the reader.
        """
        run = cls(path)
        file = path / "run.json"
        with reaching(path, "created"):
            is_there, is_other = file.exists(), path.exists() and not path.is_dir()
            is_other = is_other or (path.exists() and any(not _is_left_over(entry) for entry in path.iterdir()))
        if is_there:
            old = run.header
            if old.get("kind") != kind:
                raise RunError(f"{path} holds a {old.get('kind')!r} run, not a {kind!r} run; give another --out")
            differing = [key for key in identity if old["identity"].get(key) != identity[key]]
            if differing:
                lines = "; ".join(
                    f"{key}: {old['identity'].get(key)!r} there, {identity[key]!r} now" for key in differing
                )
                raise RunError(
                    f"{path} was made with other settings ({lines}). Give another --out, or the old settings."
                )
            return run
        if is_other:
            raise RunError(f"{path} exists and is not a run of forethought; give another --out")
        make_folder(make_folder(path) / "hidden")
        write_json(file, {"schema": SCHEMA, "kind": kind, "identity": dict(identity), "settings": dict(settings)})
        return run

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """Opens an existing run; raises RunError when there is none."""
        run = cls(path)
        with reaching(path, "read"):
            is_there = (path / "run.json").exists()
        if not is_there:
            raise RunError(f"{path} is not a run directory (no run.json). `forethought ls` lists the runs here.")
        if run.header.get("schema") != SCHEMA:
            raise RunError(f"{path} has schema {run.header.get('schema')!r}; this version reads schema {SCHEMA}")
        return run

    @property
    def header(self) -> dict[str, Any]:
        """run.json: schema, kind, identity, settings; raises RunError where it is not the header of a run."""
        header = read_json(self.path / "run.json")
        if problem := check_header(header):
            raise RunError(
                f"{self.path / 'run.json'} is not a run header: {problem}. Copy it again, or give another --out."
            )
        found: dict[str, Any] = header
        return found

    @property
    def grid(self) -> BudgetGrid:
        """The budgets that its traces were probed at; raises RunError where the header names none."""
        identity = self.header["identity"]
        try:
            return BudgetGrid(identity["window"], identity["maximum"])
        except KeyError as error:
            raise RunError(f"{self.path / 'run.json'} does not say {error} of its budgets") from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the run for writing; raises RunError when another process has it. A kill frees it."""
        with open_bytes(self.path / ".lock", "ab+", "written") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RunError(
                    f"{self.path} is being written by another process; wait for it, or give another --out"
                ) from error
            for half in (*self.path.glob(".*.tmp"), *self.path.glob("hidden/.*.tmp")):  # left by a kill
                with suppress(OSError):
                    half.unlink()
            yield

    @contextmanager
    def appender(self) -> Iterator[Appender]:
        """Opens records.jsonl for appending, after dropping a line that a kill or a full disk cut short."""
        path = self.path / "records.jsonl"
        with open_bytes(path, "ab+", "written") as file:
            with reaching(path, "written"):
                _drop_partial_line(file)
            yield Appender(path, file)

    def records(self) -> Iterator[dict[str, Any]]:
        """Every whole record, in the order written; a last line without its line end is not one yet.

        Raises:
            RunError: a line that is no record, by its number.
        """
        path = self.path / "records.jsonl"
        if not path.exists():
            return
        with open_bytes(path, "rb", "read") as file:
            is_asked = self.header["kind"] == "asked"
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    return
                try:
                    record = parse_json(line)
                    problem = check_record(record, is_asked=is_asked)
                except ValueError as error:
                    problem = str(error)
                if problem:
                    raise RunError(
                        f"{path} line {number} is not a record: {problem}. Delete this line; what it held is made "
                        "again when the command that made it is given again."
                    )
                yield record

    def latest_records(self) -> dict[tuple[str, int], dict[str, Any]]:
        """(query id, sample) -> record; a trace that was tried again after a failure counts once, by its last try."""
        return {(record["query_id"], record["sample"]): record for record in self.records()}

    def save_hidden(
        self,
        query_ids: Sequence[str],
        layers: Sequence[int],
        hidden_Q_L_D: FloatArray,
        mean_Q_L_D: FloatArray | None = None,
    ) -> None:
        """Keeps the hidden states of a chunk of queries as float16 (values beyond its range are clipped).

        Args:
            query_ids: length Q.
            layers: length L.
            hidden_Q_L_D: at the last prompt token.
            mean_Q_L_D: the mean over the query's own tokens, or None when it was not read.
        """
        from safetensors.numpy import save

        limit = float(np.finfo(np.float16).max)
        pooled = {"hidden_Q_L_D": hidden_Q_L_D} | ({} if mean_Q_L_D is None else {"mean_Q_L_D": mean_Q_L_D})
        arrays = {name: np.clip(array, -limit, limit).astype(np.float16) for name, array in pooled.items()}
        metadata = {"query_ids": json.dumps(list(query_ids)), "layers": json.dumps(list(layers))}
        folder = self.path / "hidden"
        make_folder(folder)
        taken = [int(file.stem) for file in folder.glob("*.safetensors") if file.stem.isdecimal()]
        number = 1 + max(taken, default=-1)
        write_atomically(folder / f"{number:05d}.safetensors", save(arrays, metadata=metadata))

    def load_hidden(self, *, pooling: str = "last") -> tuple[tuple[int, ...], dict[str, FloatArray]]:
        """`(layers, query id -> hidden_L_D)` of every chunk; empty when there are none.

        Args:
            pooling: "last" for the last prompt token, "mean" for the mean over the query's own tokens, of which
                chunks without one are left aside.
        """
        layers: tuple[int, ...] = ()
        hidden: dict[str, FloatArray] = {}
        width: int | None = None
        for file in sorted((self.path / "hidden").glob("*.safetensors")):
            found, query_ids, states_Q_L_D = _read_hidden(file, "mean_Q_L_D" if pooling == "mean" else "hidden_Q_L_D")
            if states_Q_L_D is None:
                continue
            if layers and (found != layers or states_Q_L_D.shape[2] != width):
                raise RunError(
                    f"{file} holds layers {found}, {states_Q_L_D.shape[2]} wide, the chunks before it {layers}, "
                    f"{width} wide. Delete it, and give the same command with the first --layers again."
                )
            layers, width = found, states_Q_L_D.shape[2]
            hidden.update(zip(query_ids, states_Q_L_D, strict=True))
        return layers, hidden


def _is_left_over(entry: Path) -> bool:
    """Whether a run that never came to its header left this: nothing of anyone's is lost with it."""
    is_hollow = entry.name == "hidden" and entry.is_dir() and not any(entry.iterdir())
    return entry.name == ".lock" or entry.suffix == ".tmp" or is_hollow


def _read_hidden(file: Path, name: str) -> tuple[tuple[int, ...], list[str], FloatArray | None]:
    """Layers, query ids and the array `name` of one chunk; None where the chunk has no such array."""
    from safetensors import SafetensorError, safe_open

    try:
        with reaching(file, "read"), safe_open(file, framework="numpy") as chunk:
            metadata = chunk.metadata() or {}
            states_Q_L_D = chunk.get_tensor(name) if name in chunk.keys() else None  # noqa: SIM118  (not a dict)
        layers, query_ids = (parse_json(metadata.get(key, "null")) for key in ("layers", "query_ids"))
        problem = _hidden_problem(layers, query_ids, states_Q_L_D)
    except (SafetensorError, ValueError, TypeError, KeyError, AttributeError) as error:
        problem = str(error) or type(error).__name__
    if problem:
        raise RunError(
            f"{file} is not a chunk of hidden states: {problem}. Delete it: the command that made it reads these "
            "questions again."
        )
    return tuple(layers), query_ids, states_Q_L_D


def _hidden_problem(layers: Any, query_ids: Any, states_Q_L_D: FloatArray | None) -> str | None:
    if not isinstance(layers, list) or not all(type(layer) is int and layer >= 0 for layer in layers):
        return "it does not name its layers"
    if not isinstance(query_ids, list) or not all(isinstance(query_id, str) for query_id in query_ids):
        return "it does not name its queries"
    if len(set(layers)) < len(layers) or len(set(query_ids)) < len(query_ids):
        return "it names a layer or a query twice"
    if states_Q_L_D is None:
        return None
    if states_Q_L_D.ndim != 3 or states_Q_L_D.shape[:2] != (len(query_ids), len(layers)):
        return f"{len(query_ids)} queries and {len(layers)} layers, but an array of shape {states_Q_L_D.shape}"
    return None if states_Q_L_D.dtype.kind == "f" else f"numbers of type {states_Q_L_D.dtype}"


class Appender:
    """Writes records so that each one is wholly on disk when `append` returns."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Appends `records` and waits until the disk has them; where it cannot have all of them, it has none."""
        lines = memoryview(b"".join(f"{to_json(record)}\n".encode() for record in records))
        start = self._file.seek(0, os.SEEK_END)
        try:
            with reaching(self._path, "written"):
                while lines:
                    lines = lines[self._file.write(lines) :]
                os.fsync(self._file.fileno())
        except OSError:
            with suppress(OSError):
                self._file.truncate(start)
            raise


def _drop_partial_line(file: BinaryIO) -> None:
    size = file.seek(0, os.SEEK_END)
    step = 1 << 16
    position = size
    while position > 0:
        start = max(0, position - step)
        file.seek(start)
        newline = file.read(position - start).rfind(b"\n")
        if newline >= 0:
            file.truncate(start + newline + 1)
            return
        position = start
    file.truncate(0)
