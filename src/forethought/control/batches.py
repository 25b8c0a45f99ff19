"""A job of requests in files: what was asked in each round, under which names, and what bounds it.

Beside REQUESTS.jsonl lie REQUESTS.plan.json, the plan, and REQUESTS.batch.json, what `collect` needs beside it. A later
round is REQUESTS.round2.jsonl with a REQUESTS.round2.batch.json of its own, and the same plan.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

from ..core.codec import UnfitError, decode, encode
from ..core.data import Cost, Query, Request
from ..core.files import read_json, replacing, write_atomically
from ..core.terms import HardCap
from ..core.visible import to_json
from ..engines.server.batches import BatchCalls, BatchServer
from ..errors import InvalidInputError, InvalidSettingsError, RunError
from ..questions.queries import query_to_json
from ..runs.store import fingerprint
from ..servers.batches import MOST_ID, read_result, result_lines
from .billing import UNPRICED, Prices
from .plan import Plan

OURS = re.compile(r"([0-9a-f]{12})-(\d{1,6})-([A-Za-z0-9_-]+)")  # a custom_id: fingerprint, sample, query
ONE = (0,)  # samples of a query that has one
SHORT = re.compile(r"x[0-9a-f]{32}")  # stands for an id of odd characters, or a long one


def short_id(query_id: str, sample: int = 0) -> str:
    """What stands for a query in a custom_id: itself, or a hash of it where a provider would refuse it."""
    room = MOST_ID - 12 - 1 - len(str(sample)) - 1
    if re.fullmatch(rf"[A-Za-z0-9_-]{{1,{room}}}", query_id) and not SHORT.fullmatch(query_id):
        return query_id
    return "x" + hashlib.blake2b(query_id.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round of a job: REQUESTS.batch.json, and a line of RUN/batches.jsonl.

    Attributes:
        fingerprint: of all that its requests say; it is in their custom_ids.
        job: fingerprint of the job's first round.
        number: from 1.
        plan: name of the file beside it that holds the job's plan.
        out: the run directory of the job.
        asked: query id -> the budget it was asked with.
        samples: query id -> the samples that were asked for, where that is not one answer by one sample.
        files: names of the files with its requests.
        kept_back: ids of queries that were not asked: nothing was left for them.
        ids: short form -> id, of the queries whose ids do not stand for themselves.
        server: that takes the requests, and how it is asked.
        most_lines: requests in one file; 0 for what the server's kind takes.
        hard_cap: what the job may never pass.
        price_in, price_out: USD per million tokens, of options without a price.
    """

    fingerprint: str
    job: str
    number: int
    plan: str
    out: str
    asked: Mapping[str, int]
    files: tuple[str, ...]
    server: BatchServer
    samples: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    kept_back: tuple[str, ...] = ()
    ids: Mapping[str, str] = field(default_factory=dict)
    most_lines: int = 0
    hard_cap: HardCap | None = None
    price_in: float | None = None
    price_out: float | None = None

    @property
    def prices(self) -> Prices:
        """Prices of tokens by options without a price of their own."""
        return Prices(self.price_in, self.price_out)

    def custom_id(self, query_id: str, sample: int = 0) -> str:
        """The name of the request for a query's sample."""
        return f"{self.fingerprint}-{sample}-{short_id(query_id, sample)}"

    def names(self) -> dict[str, tuple[str, int]]:
        """custom_id -> query id and sample, of all that was asked."""
        return {
            self.custom_id(query_id, sample): (query_id, sample)
            for query_id in self.asked
            for sample in self.samples.get(query_id, ONE)
        }

    def to_json(self) -> dict[str, Any]:
        """As one JSON object."""
        return {"kind": "batch", **{each.name: encode(getattr(self, each.name)) for each in fields(self)}}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """What `to_json` wrote; raises UnfitError."""
        if not isinstance(value, dict) or value.get("kind") != "batch":
            raise UnfitError("it is not the record of a file of requests")
        return decode(cls, {key: each for key, each in value.items() if key != "kind"}, lenient=(cls,))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads REQUESTS.batch.json; raises RunError."""
        try:
            return cls.from_json(read_json(path))
        except (UnfitError, InvalidSettingsError) as error:
            raise RunError(f"{path} does not say how requests were made: {error}. Make them again.") from error


@dataclass(frozen=True, slots=True)
class Bounds:
    """What requests may take at most, counted as a hard cap is.

    Attributes:
        calls: makes the requests.
        plan: of the job.
        cap: the hard cap; None where there is none.
        prices: of tokens by options without a price.
    """

    calls: BatchCalls
    plan: Plan
    cap: HardCap | None
    prices: Prices

    def most(self, request: Request) -> float:
        """What a request may take; raises InvalidSettingsError where nothing bounds it."""
        assert self.cap is not None
        tokens = self.calls.most_tokens(request)
        if tokens is None:
            raise InvalidSettingsError(
                f"--hard-cap needs to know what an answer takes at most, and nothing bounds one by option "
                f"{request.label!r}: add max_tokens to what it sets, or give --context-tokens N"
            )
        return (
            tokens if self.cap.cost is Cost.SPENT else self.usd(request, self.calls.most_prompt_tokens(request), tokens)
        )

    def usd(self, request: Request, prompt_tokens: int, tokens: int) -> float:
        """The bill of so many tokens, USD; raises InvalidSettingsError where there is no price."""
        price = request.option.price if request.option is not None else None
        if price is not None:
            return float(price.usd(prompt_tokens, tokens))
        found = self.prices.usd(prompt_tokens, tokens)
        if found is None:
            raise InvalidSettingsError(
                "--hard-cap in money needs prices: --price-in and --price-out, or a menu with them"
            )
        return found


def requests_of(
    plan: Plan, queries: Iterable[Query], budget_of: Mapping[str, int], context_tokens: int | None
) -> list[Request]:
    """The requests for all samples of queries under their budgets."""
    return [
        plan.request(query, budget_of[query.id], sample, context_tokens)
        for query in queries
        for sample in range(plan.menu.option(budget_of[query.id]).samples)
    ]


def samples_of(requests: Iterable[Request]) -> dict[str, tuple[int, ...]]:
    """Query id -> the samples that are asked for, in order."""
    found: dict[str, tuple[int, ...]] = {}
    for request in requests:
        found[request.query.id] = (*found.get(request.query.id, ()), request.sample)
    return found


def fitting(bounds: Bounds, requests: Iterable[Request], left: float) -> tuple[list[Request], list[str], float]:
    """`(requests that may be asked together, ids of the others' queries, what the former take at most)`.

    The order counts: a later, shorter one is asked where an earlier one no longer fits. Of several samples as many are
    asked as fit.
    """
    chosen, others, taken = list[Request](), list[str](), 0.0
    for request in requests:
        most = 0.0 if bounds.cap is None else bounds.most(request)
        if bounds.cap is not None and taken + most > left:
            others.append(request.query.id)
        else:
            taken += most
            chosen.append(request)
    return chosen, list(dict.fromkeys(others)), taken


def make_round(
    plan: Plan,
    asked: BatchServer,
    budgets: Mapping[str, int],
    *,
    requests: Path,
    out: str,
    first: Round | None = None,
    number: int = 1,
    most_lines: int = 0,
    hard_cap: HardCap | None = None,
    prices: Prices = UNPRICED,
    kept_back: Sequence[str] = (),
    samples: Mapping[str, tuple[int, ...]] | None = None,
) -> Round:
    """The round that asks queries with these budgets, for these samples; `write_round` writes its files."""
    texts = [query_to_json(query) for query in plan.queries]
    several = {query_id: numbers for query_id, numbers in (samples or {}).items() if numbers != ONE}
    said = [number, first.job if first else "", sorted(budgets.items()), asked.to_json(), plan.seed, texts]
    made = fingerprint([*said, sorted(several.items())] if several else said)[:12]
    return Round(
        fingerprint=made,
        job=first.job if first else made,
        number=number,
        plan=first.plan if first else f"{requests.stem}.plan.json",
        out=out,
        asked=dict(budgets),
        samples=several,
        files=(),
        server=asked,
        kept_back=tuple(kept_back),
        ids={
            short: query_id
            for query_id in budgets
            for sample in several.get(query_id, ONE)
            if (short := short_id(query_id, sample)) != query_id
        },
        most_lines=most_lines,
        hard_cap=hard_cap,
        price_in=prices.per_million_in,
        price_out=prices.per_million_out,
    )


def write_round(made: Round, plan: Plan, requests: Path) -> Round:
    """Writes the requests, numbered files where one would be too large, and what `collect` needs beside them.

    Raises:
        InvalidSettingsError: other requests have this name, or a record that cannot be read; without it nobody could
            collect their results.
    """
    record = requests.with_name(f"{requests.stem}.batch.json")
    try:
        before = Round.load(record) if record.exists() else None
    except RunError as error:  # it may be of a newer version
        raise InvalidSettingsError(f"{error}; give another --batch-out, or delete {record}") from error
    if before is not None and before.fingerprint != made.fingerprint:
        raise InvalidSettingsError(
            f"{record} is of other requests ({before.fingerprint}), and without it their results cannot be collected; "
            "give another --batch-out, or delete it"
        )
    calls, query_of = BatchCalls(made.server), {query.id: query for query in plan.queries}
    form, context = made.server.form, made.server.context_tokens
    most_lines = min(made.most_lines or form.most_lines, form.most_lines)

    def lines() -> Iterator[bytes]:
        for name, (query_id, sample) in made.names().items():
            yield calls.line(name, plan.request(query_of[query_id], made.asked[query_id], sample, context))

    sizes = _parts(lines(), most_lines, form.most_bytes)
    names = [requests.name] if len(sizes) <= 1 else [f"{requests.stem}-{n:04}.jsonl" for n in range(1, len(sizes) + 1)]
    made, written = replace(made, files=tuple(names)), lines()
    for name, size in zip(names, sizes or [0], strict=True):
        with replacing(requests.with_name(name)) as file:
            for _ in range(size):
                file.write(next(written))
    if made.number == 1:
        plan.save(requests.with_name(made.plan))
    write_atomically(record, f"{to_json(made.to_json(), indent=1)}\n".encode())
    for name in set(before.files if before else ()) - set(made.files):  # the same requests, in files of another size
        if Path(name).name == name:
            requests.with_name(name).unlink(missing_ok=True)
    return made


def _parts(lines: Iterable[bytes], most_lines: int, most_bytes: int) -> list[int]:
    """How many lines go into each file."""
    sizes, num_bytes = list[int](), 0
    for line in lines:
        if len(line) > most_bytes:
            raise InvalidSettingsError(
                f"a request of {len(line):,} bytes is larger than a file may be ({most_bytes:,})"
            )
        if not sizes or sizes[-1] == most_lines or num_bytes + len(line) > most_bytes:
            sizes.append(0)
            num_bytes = 0
        sizes[-1] += 1
        num_bytes += len(line)
    return sizes


def find_round(paths: Sequence[Path], named: str = "") -> tuple[Path, Round]:
    """The record of the requests whose results these files hold: the one named, or by its fingerprint.

    It is looked for beside the result files and in this folder.

    Raises:
        InvalidInputError: no file names a request of ours, or its record is not found.
        RunError: the record is damaged.
    """
    if named:
        path = Path(named)
        if not path.name.endswith(".batch.json"):
            path = path.parent / f"{path.stem}.batch.json"
        return path, Round.load(path)
    prints = Counter[str]()
    for path in paths:
        for line in result_lines(path):
            found = OURS.fullmatch(read_result(line).custom_id)
            if found:
                prints[found[1]] += 1
                break
    if not prints:
        raise InvalidInputError(
            f"{', '.join(map(str, paths))}: no line has a custom_id that `forethought plan --batch-out` made; name the "
            "requests: --batch REQUESTS.batch.json"
        )
    for folder in dict.fromkeys([*(path.parent for path in paths), Path()]):
        for candidate in sorted(folder.glob("*.batch.json")):
            try:
                made = Round.load(candidate)
            except RunError:
                continue
            if made.fingerprint in prints:
                return candidate, made
    wanted = next(iter(prints))
    raise InvalidInputError(
        f"the results are of the job {wanted}, and no REQUESTS.batch.json of it is in their folder or here; name it: "
        "--batch REQUESTS.batch.json"
    )
