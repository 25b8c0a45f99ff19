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
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import numpy as np

from .errors import RunError
from .types import FloatArray, Generation, Probe, StopReason

SCHEMA = 1
REGRADING = "regrading"  # key in run.json while grades are being replaced: the command that finishes it
GRADER_KEYS = ("grader", "grader_options", "grader_version")


def write_atomically(path: Path, content: bytes) -> None:
    """Replaces `path` by `content`: a reader or a kill sees the old file or the new one, never half."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_json(path: Path, value: object) -> None:
    """Writes `value` as indented JSON, atomically."""
    write_atomically(path, (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """Reads a JSON file of a run; raises RunError when it is missing or broken."""
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise RunError(f"{path} does not exist") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RunError(f"{path} is not readable JSON: {error}") from error


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
        is_regrading: read it also while its grades are being replaced: for who replaces them.
    """

    def __init__(self, path: Path, *, is_regrading: bool = False) -> None:
        self.path = path
        self.is_regrading = is_regrading

    @classmethod
    def create(cls, path: Path, *, kind: str, identity: Mapping[str, Any], settings: Mapping[str, Any]) -> RunDirectory:
        """Makes the folder, or opens it to resume when it already holds a run of the same `identity`.

        Args:
            path: the folder.
            kind: "profile" or "run".
            identity: what determines a record given its query and sample (model hash, template hash, grid,
                sampling, seed). A folder made under another identity is refused, naming what differs, unless it holds
                nothing finished yet: it then begins anew.
            settings: the effective settings of the command, kept for the reader.
        """
        run = cls(path)
        file = path / "run.json"
        header = {"schema": SCHEMA, "kind": kind, "identity": dict(identity), "settings": dict(settings)}
        if file.exists():
            if not run._check_same(kind, identity):
                with run.locked():  # nothing was finished under the old settings: the new ones begin anew
                    run.forget()
                    write_json(file, header)
            return run
        if path.exists() and any(entry.name != ".lock" for entry in path.iterdir()):
            raise RunError(f"{path} exists and is not a run of forethought; give another --out")
        (path / "hidden").mkdir(parents=True, exist_ok=True)
        write_json(file, header)
        return run

    @classmethod
    def check(cls, path: Path, *, kind: str, identity: Mapping[str, Any]) -> None:
        """Refuses what `create` would refuse, by the part of the identity that is known before; makes nothing."""
        run = cls(path)
        if (path / "run.json").exists():
            run._check_same(kind, identity)
        elif path.exists() and any(entry.name != ".lock" for entry in path.iterdir()):
            raise RunError(f"{path} exists and is not a run of forethought; give another --out")

    def _check_same(self, kind: str, identity: Mapping[str, Any]) -> bool:
        """Whether the run is of that kind and identity; raises RunError where it is not, and holds results."""
        old = self.header
        if old.get("kind") != kind:
            raise RunError(f"{self.path} holds a {old.get('kind')!r} run, not a {kind!r} run; give another --out")
        differing = [key for key in identity if old["identity"].get(key) != identity[key]]
        if differing and self.holds_results():
            raise RunError(_other_settings(self.path, old["identity"], identity, differing))
        return not differing

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """Opens an existing run; raises RunError when there is none."""
        run = cls(path)
        if not (path / "run.json").exists():
            raise RunError(f"{path} is not a run directory (no run.json). `forethought ls` lists the runs here.")
        if run.header.get("schema") != SCHEMA:
            raise RunError(f"{path} has schema {run.header.get('schema')!r}; this version reads schema {SCHEMA}")
        return run

    @property
    def header(self) -> dict[str, Any]:
        """run.json: schema, kind, identity, settings; raises RunError where the grades may be of two graders."""
        header = read_json(self.path / "run.json")
        if not isinstance(header, dict) or not isinstance(header.get("identity"), dict):
            raise RunError(f"{self.path / 'run.json'} is not a run header")
        if REGRADING in header and not self.is_regrading:
            raise RunError(f"{self.path} was being graded anew and was stopped; finish it: {header[REGRADING]}")
        return header

    def holds_results(self) -> bool:
        """Whether anything was finished here: a record without an error, or hidden states read for their own sake."""
        if any(record.get("error") is None for record in self.records()):
            return True
        return self.header["kind"] == "states" and any((self.path / "hidden").glob("*.safetensors"))

    def forget(self) -> None:
        """Removes records, questions, plan and hidden states, and keeps the header; the lock must be held."""
        for name in ("plan.json", "queries.jsonl", "summary.json", "answers.jsonl", "records.jsonl"):
            (self.path / name).unlink(missing_ok=True)
        for file in (self.path / "hidden").glob("*.safetensors"):
            file.unlink()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the run for writing; raises RunError when another process has it. A kill frees it."""
        with open(self.path / ".lock", "a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RunError(
                    f"{self.path} is being written by another process; wait for it, or give another --out"
                ) from error
            yield

    @contextmanager
    def appender(self) -> Iterator[Appender]:
        """Opens records.jsonl for appending, after dropping a line that a kill cut short."""
        with open(self.path / "records.jsonl", "ab+") as file:
            _drop_partial_line(file)
            yield Appender(file)

    def records(self) -> Iterator[dict[str, Any]]:
        """Every whole record, in the order written; a last line without its line end is not one yet."""
        path = self.path / "records.jsonl"
        if not path.exists():
            return
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    return
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise RunError(f"{path} line {number} is not a record: {error}") from error

    def replace_records(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Replaces all records at once: a reader or a kill sees the old ones or the new; the lock must be held."""
        path = self.path / "records.jsonl"
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with open(temporary, "wb") as file:
            for record in records:
                file.write(json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)

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
        number = 1 + max((int(file.stem) for file in folder.glob("*.safetensors")), default=-1)
        write_atomically(folder / f"{number:05d}.safetensors", save(arrays, metadata=metadata))

    def load_hidden(self, *, pooling: str = "last") -> tuple[tuple[int, ...], dict[str, FloatArray]]:
        """`(layers, query id -> hidden_L_D)` of every chunk; empty when there are none.

        Args:
            pooling: "last" for the last prompt token, "mean" for the mean over the query's own tokens, of which
                chunks without one are left aside.
        """
        from safetensors import safe_open

        layers: tuple[int, ...] = ()
        hidden: dict[str, FloatArray] = {}
        for file in sorted((self.path / "hidden").glob("*.safetensors")):
            with safe_open(file, framework="numpy") as chunk:
                metadata, name = chunk.metadata(), "mean_Q_L_D" if pooling == "mean" else "hidden_Q_L_D"
                if name not in chunk.keys():  # noqa: SIM118  (a file of safetensors, not a dict)
                    continue
                states_Q_L_D = chunk.get_tensor(name)
            found = tuple(json.loads(metadata["layers"]))
            if layers and found != layers:
                raise RunError(f"{file} holds layers {found}, the chunks before it {layers}")
            layers = found
            hidden.update(zip(json.loads(metadata["query_ids"]), states_Q_L_D, strict=True))
        return layers, hidden


class Appender:
    """Writes records so that each one is wholly on disk when `append` returns."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Appends `records` and waits until the disk has them."""
        lines = [json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n" for record in records]
        self._file.write(b"".join(lines))
        self._file.flush()
        os.fsync(self._file.fileno())


def _other_settings(path: Path, old: Mapping[str, Any], new: Mapping[str, Any], differing: Sequence[str]) -> str:
    """Why a folder of another identity is not resumed, and what to type instead."""
    if set(differing) <= set(GRADER_KEYS):
        return (
            f"{path} was graded by {grader_words(old)}, and this command grades by {grader_words(new)}; they are not "
            f"mixed. Judge what it holds anew first: forethought regrade {path}{_regrade_flags(new)}"
        )
    lines = "; ".join(f"{key}: {old.get(key)!r} there, {new[key]!r} now" for key in differing)
    return f"{path} was made with other settings ({lines}). Give another --out, or the old settings."


def grader_words(identity: Mapping[str, Any]) -> str:
    """Which grader judged, in words: its name, version and options."""
    options = ", ".join(f"{key}={value}" for key, value in (identity.get("grader_options") or {}).items())
    version = identity.get("grader_version")
    words = str(identity.get("grader") or "an unknown grader") + (f" {version}" if version else ", version unknown")
    return f"{words} ({options})" if options else words


def _regrade_flags(new: Mapping[str, Any]) -> str:
    options = (f" --grader-option {key}={json.dumps(value)}" for key, value in (new["grader_options"] or {}).items())
    return "".join([f" --grader {new['grader']}", *options])


def _drop_partial_line(file: IO[bytes]) -> None:
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
