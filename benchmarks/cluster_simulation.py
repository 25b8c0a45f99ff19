"""SIMULATED: how long a thousand workers take where some are slow and some are lost. No machine was used.

    python benchmarks/cluster_simulation.py --out docs/results/cluster

Rows (requests) are handed out by `forethought.cluster.rows.Rows`, the class that `run --ray` uses: each worker has some
rows lying ready (`--ahead`), none holds more than its equal share of what is unfinished, rows of a lost worker are
given to another, and what was lost twice runs alone. Everything else is made up. The tokens of a row are lognormal,
with the spread that the answers of a shipped profile have. A worker runs so many rows at a time, each at a fixed speed;
some workers are slower. Each is lost after an exponential time; this is noticed, and another runs, after fixed times.
The process that hands out rows takes a fixed time for each message. Nothing is known of networks, of engines that slow
down as they fill, or of losses that come together.

The finishing time is given as a multiple of the ideal: all tokens over the speed of all workers, without stragglers and
losses. Backups are no part of `run --ray`: an idle worker then also runs the rows that others have held longest, and
the first answer counts.
"""

from __future__ import annotations

import argparse
import gc
import heapq
import itertools
import json
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from forethought.cluster import rows as handing
from forethought.cluster.rows import Hands, Rows, key_of
from forethought.control.sources import open_profile
from forethought.core.data import Query, Request
from forethought.core.profile import Profile
from forethought.evaluation.policies import BLIND, FORETHOUGHT, GREEDY, ORACLE, UNIFORM
from forethought.report.colours import COLOURS
from forethought.report.figures import frame, save

INK = "#333333"
PROFILE = "src/forethought/data/profiles/qwen2.5-coder-1.5b-gsm8k-test.parquet"


@dataclass(frozen=True, slots=True)
class Cluster:
    """What is simulated; times in seconds.

    Attributes:
        num_workers: each with
        num_slots: rows that it runs at a time.
        rows_each: rows of the job for each worker.
        mean_seconds: of a row on a worker of ordinary speed, and
        sigma: the standard deviation of its logarithm.
        ahead: rows that lie ready at a worker.
        slow_share: of workers that are
        slow_factor: times slower than the others.
        losses_an_hour: of a worker, on average.
        noticed: after a loss, until its rows are handed out again, and
        replaced: until another runs in its place.
        message: that the process which hands out rows takes for each message, and
        way: that a message is under way.
        has_backups: whether idle workers run rows of others again.
        num_deadly: rows that end their worker half-way, such as a prompt that is too long for its memory.
    """

    num_workers: int = 1000
    num_slots: int = 4
    rows_each: int = 32
    mean_seconds: float = 30.0
    sigma: float = 0.5
    ahead: int = 16
    slow_share: float = 0.0
    slow_factor: float = 4.0
    losses_an_hour: float = 0.0
    noticed: float = 10.0
    replaced: float = 90.0
    message: float = 0.0005
    way: float = 0.005
    has_backups: bool = False
    num_deadly: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it: finishing time over the ideal, work in vain as a share of that needed, and losses."""

    times_ideal: float
    wasted: float
    num_lost: int
    num_given_up: int


@dataclass(slots=True, eq=False)
class SimulatedWorker:
    """One worker: what it holds, what is ready, what runs, and what of it others hold too; `life` counts losses."""

    speed: float
    hands: Hands = field(default_factory=Hands)
    ready: deque[int] = field(default_factory=deque)
    running: dict[int, float] = field(default_factory=dict)
    done: list[int] = field(default_factory=list)
    doubled: set[int] = field(default_factory=set)
    life: int = 0
    has_more: bool = False
    is_calling: bool = False
    is_up: bool = True


class Simulation:
    """One job, event by event."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self.random, self.cluster = np.random.default_rng(seed), cluster
        number = cluster.num_workers * cluster.rows_each
        shift = cluster.sigma**2 / 2
        self.seconds_N = cluster.mean_seconds * np.exp(self.random.normal(-shift, cluster.sigma, number))
        self.requests = [Request(Query(str(row), ""), 1, 0, 0) for row in range(number)]
        self.row_of = {key_of(request): row for row, request in enumerate(self.requests)}
        self.is_open_N = np.ones(number, dtype=bool)
        self.num_open = number
        is_slow_W = self.random.random(cluster.num_workers) < cluster.slow_share
        self.workers = [SimulatedWorker(cluster.slow_factor if slow else 1.0) for slow in is_slow_W.tolist()]
        self.deadly = set(self.random.choice(number, cluster.num_deadly, replace=False).tolist())
        self.rows = Rows(self.requests, cluster.num_workers)
        self.holder: dict[int, list[int]] = {}  # row -> who holds it, in the order in which they were given
        self.idle: set[int] = set()
        self.events: list[tuple[float, int, Any]] = []
        self.number = itertools.count()
        self.now = self.free_at = self.wasted = 0.0
        self.num_lost = self.num_given_up = 0

    def run(self) -> Outcome:
        """Until every row is done or given up."""
        for index in range(len(self.workers)):
            self.call(index)
            self.expect_loss(index)
        while self.num_open:
            self.now, _, event = heapq.heappop(self.events)
            event()
        ideal = float(self.seconds_N.sum()) / (self.cluster.num_workers * self.cluster.num_slots)
        return Outcome(self.now / ideal, self.wasted / float(self.seconds_N.sum()), self.num_lost, self.num_given_up)

    def after(self, seconds: float, event: Any) -> None:
        """Puts an event into the queue."""
        heapq.heappush(self.events, (self.now + seconds, next(self.number), event))

    def call(self, index: int) -> None:
        """A worker says what is done, and asks for more."""
        worker = self.workers[index]
        if worker.is_calling or not worker.is_up:
            return
        worker.is_calling = True
        self.idle.discard(index)
        self.free_at = max(self.free_at, self.now + self.cluster.way) + self.cluster.message
        self.after(self.free_at - self.now, partial(self.served, index, worker.life))

    def served(self, index: int, life: int) -> None:
        """The process that hands out rows takes that in, and answers."""
        worker = self.workers[index]
        if worker.life != life:
            return
        done, worker.done = worker.done, []
        self.rows.done(worker.hands, [self.requests[row] for row in done])
        worker.hands.num_waiting = len(worker.ready)
        given, worker.has_more = self.rows.take(worker.hands)
        found = [self.row_of[key_of(request)] for request in given]
        if not found and not worker.hands.held:
            found = self.backups()
            worker.doubled.update(found)
            if not found:
                self.idle.add(index)
        for row in found:
            self.holder.setdefault(row, []).append(index)
        self.after(self.cluster.way, partial(self.given, index, life, found))

    def backups(self) -> list[int]:
        """Rows that others have held longest, once the others are all handed out; one for each of a worker's slots."""
        if not self.cluster.has_backups:
            return []
        others = (row for row, holders in self.holder.items() if len(holders) == 1 and self.is_open_N[row])
        return list(itertools.islice(others, self.cluster.num_slots))

    def given(self, index: int, life: int, found: list[int]) -> None:
        """Rows arrive at a worker."""
        worker = self.workers[index]
        if worker.life != life:
            return
        worker.is_calling = False
        worker.ready.extend(found)
        self.start(index)
        if worker.done or (worker.has_more and len(worker.ready) <= self.cluster.ahead // 2):
            self.call(index)

    def start(self, index: int) -> None:
        """Runs what lies ready, as far as there are slots."""
        worker = self.workers[index]
        while worker.ready and len(worker.running) < self.cluster.num_slots:
            row = worker.ready.popleft()
            if not self.is_open_N[row]:
                worker.done.append(row)
                continue
            worker.running[row] = self.now
            seconds = self.seconds_N[row] * worker.speed
            if row in self.deadly:
                self.after(seconds / 2, partial(self.lose, index, worker.life))
            else:
                self.after(seconds, partial(self.finished, index, worker.life, row))

    def finished(self, index: int, life: int, row: int) -> None:
        """A worker has finished a row."""
        worker = self.workers[index]
        if worker.life != life or worker.running.pop(row, None) is None:
            return
        self.is_open_N[row] = False
        self.num_open -= 1
        worker.done.append(row)
        for other in self.holder.pop(row):
            if other != index:  # what it has of the row is stopped, and its own
                self.stop(other, row)
        self.start(index)
        self.call(index)

    def stop(self, index: int, row: int) -> None:
        """A row that another has finished."""
        worker = self.workers[index]
        if (begun := worker.running.pop(row, None)) is not None:
            self.wasted += (self.now - begun) / worker.speed
        elif row in worker.ready:
            worker.ready.remove(row)
        else:
            return
        worker.done.append(row)
        self.start(index)
        self.call(index)

    def expect_loss(self, index: int) -> None:
        """Draws when a worker is lost."""
        if self.cluster.losses_an_hour:
            after = float(self.random.exponential(3600 / self.cluster.losses_an_hour))
            self.after(after, partial(self.lose, index, self.workers[index].life))

    def lose(self, index: int, life: int) -> None:
        """A worker is lost with what it runs."""
        worker = self.workers[index]
        if worker.life != life:
            return
        self.num_lost += 1
        worker.life += 1
        worker.is_up = False
        self.idle.discard(index)
        self.wasted += sum(self.now - begun for begun in worker.running.values()) / worker.speed
        worker.running, worker.ready = {}, deque()
        self.after(self.cluster.noticed, partial(self.notice, index))
        self.after(self.cluster.replaced, partial(self.replace, index))

    def notice(self, index: int) -> None:
        """Its rows are handed out again."""
        worker = self.workers[index]
        done, worker.done = worker.done, []  # on disk before it was lost
        self.rows.done(worker.hands, [self.requests[row] for row in done])
        for [request] in list(worker.hands.held.values()):  # its rows are all different
            row = self.row_of[key_of(request)]
            if not self.is_open_N[row]:
                self.rows.done(worker.hands, [request])
        for row in worker.doubled | {self.row_of[key] for key in worker.hands.held}:
            if index in self.holder.get(row, ()):
                self.holder[row].remove(index)
        worker.doubled = set()
        for request in self.rows.lost(worker.hands, retries=True):
            self.num_given_up += 1
            self.num_open -= 1
            self.is_open_N[self.row_of[key_of(request)]] = False
        for other in sorted(self.idle):
            self.call(other)

    def replace(self, index: int) -> None:
        """Another has its place."""
        self.workers[index].is_up, self.workers[index].is_calling = True, False
        self.expect_loss(index)
        self.call(index)


def spread(profile: Profile) -> float:
    """Standard deviation of the logarithm of an answer's tokens at the largest cap, if they are lognormal."""
    assert profile.tokens_Q_B is not None
    mean_Q = profile.tokens_Q_B[:, -1]
    within = 0.0 if profile.token_variance_Q_B is None else float(np.nanmean(profile.token_variance_Q_B[:, -1]))
    return float(np.sqrt(np.log1p((mean_Q.var() + within) / mean_Q.mean() ** 2)))


def cases(sigma: float, ahead: list[int], rows_each: int) -> Iterator[tuple[str, Cluster]]:
    """What is compared: name and cluster."""
    calm = Cluster(sigma=sigma, rows_each=rows_each)
    for name, cluster in (
        ("all alike", calm),
        ("2% of workers 4 times slower", replace(calm, slow_share=0.02)),
        ("a loss in 2 hours of a worker", replace(calm, losses_an_hour=0.5)),
        ("both", replace(calm, slow_share=0.02, losses_an_hour=0.5)),
        ("both, long tails (sigma 1)", replace(calm, slow_share=0.02, losses_an_hour=0.5, sigma=1.0)),
        ("10 rows that end their worker", replace(calm, num_deadly=10)),
        ("all alike, rows of 2 s", replace(calm, mean_seconds=2.0)),
    ):
        both = (False, True) if cluster.slow_share or cluster.losses_an_hour else (False,)
        for number, has_backups in itertools.product(ahead, both):
            yield name, replace(cluster, ahead=number, has_backups=has_backups)


def simulate(cluster: Cluster, seed: int) -> Outcome:
    """One job."""
    handing.AHEAD = cluster.ahead
    simulation = Simulation(cluster, seed)
    gc.freeze()  # a job's many rows need no look at every collection
    return simulation.run()


def judged(name: str, cluster: Cluster, *, num_seeds: int) -> dict[str, Any]:
    """What came of some jobs of one case."""
    outcomes = [simulate(cluster, seed) for seed in range(num_seeds)]
    low, median, high = np.quantile([each.times_ideal for each in outcomes], [0.1, 0.5, 0.9]).tolist()
    return {
        "simulated": True,
        "case": name,
        "ahead": cluster.ahead,
        "backups": cluster.has_backups,
        "times_ideal": round(median, 3),
        "tenth_to_ninetieth": [round(low, 3), round(high, 3)],
        "work_in_vain": round(float(np.median([each.wasted for each in outcomes])), 4),
        "workers_lost": int(np.median([each.num_lost for each in outcomes])),
        "rows_given_up": int(np.median([each.num_given_up for each in outcomes])),
        "cluster": asdict(cluster),
    }


def main() -> None:
    """Simulates, prints, draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--ahead", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=32, help="for each worker")
    parser.add_argument("--cases", type=int, default=7, help="only the first so many")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", default="")
    asked = parser.parse_args()
    compared = [
        (name, replace(cluster, num_workers=asked.workers))
        for name, cluster in cases(spread(open_profile(PROFILE)), asked.ahead, asked.rows)
    ]
    some = order([{"case": name} for name, _ in compared])[: asked.cases]
    compared = [each for each in compared if each[0] in some]
    found = []
    with ProcessPoolExecutor(asked.processes) as pool:
        for row in pool.map(partial(judged, num_seeds=asked.seeds), *zip(*compared, strict=True)):
            print(json.dumps({key: value for key, value in row.items() if key != "cluster"}), flush=True)
            found.append(row)
    if asked.out:
        folder = Path(asked.out)
        folder.mkdir(parents=True, exist_ok=True)
        command = f"--cases {asked.cases} --seeds {asked.seeds} --workers {asked.workers} --rows {asked.rows}"
        about = {"simulated": True, "command": command}
        (folder / "simulation.json").write_text(json.dumps(about | {"found": found}, indent=1) + "\n")
        (folder / "simulation.md").write_text(table(found, asked.seeds))
        save({"simulation": lambda: picture(found, asked.seeds)}, folder)


def table(found: list[dict[str, Any]], num_seeds: int) -> str:
    """Markdown."""
    ahead = sorted({row["ahead"] for row in found})
    cluster = found[0]["cluster"]
    lines = [
        "# SIMULATED: finishing times of a cluster",
        "",
        f"{cluster['num_workers']:,} workers of {cluster['num_slots']} rows at a time, {cluster['rows_each']} rows for "
        f"each worker, {cluster['mean_seconds']:g} s a row on average where nothing else is said. Finishing time over "
        f"the ideal: median of {num_seeds} seeds (tenth to ninetieth percentile). No machine was used;",
        "`benchmarks/cluster_simulation.py` says what is simulated.",
        "",
        "| case | backups | " + " | ".join(f"{number} ready" for number in ahead) + " |",
        "| --- | --- | " + " | ".join("---" for _ in ahead) + " |",
    ]
    for (name, has_backups), rows in itertools.groupby(
        sorted(found, key=lambda row: (order(found).index(row["case"]), row["backups"], row["ahead"])),
        key=lambda row: (row["case"], row["backups"]),
    ):
        cells = [
            f"{row['times_ideal']:.2f} ({row['tenth_to_ninetieth'][0]:.2f} to {row['tenth_to_ninetieth'][1]:.2f})"
            for row in rows
        ]
        lines.append(f"| {name} | {'yes' if has_backups else 'no'} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def order(found: list[dict[str, Any]]) -> list[str]:
    """The cases, as they were simulated."""
    return list(dict.fromkeys(row["case"] for row in found))


def picture(found: list[dict[str, Any]], num_seeds: int) -> Figure:
    """A panel without backups and one with: finishing time over rows that lie ready, a line a case."""
    cluster = found[0]["cluster"]
    caption = [
        f"{cluster['num_workers']:,} workers",
        f"median of {num_seeds} seeds, bands: tenth to ninetieth percentile",
    ]
    figure = frame((10.4, 4.2), caption, simulated=True, ending="no machine was used")
    colours = [COLOURS[policy] for policy in (UNIFORM, BLIND, FORETHOUGHT, GREEDY, ORACLE)] + [INK, INK]
    panels = figure.subplots(1, 2, sharey=True)
    for panel, has_backups in zip(panels, (False, True), strict=True):
        for name, colour in zip(order(found), colours, strict=False):
            rows = [row for row in found if row["case"] == name and row["backups"] == has_backups]
            if not rows:
                continue
            ahead = [row["ahead"] for row in rows]
            line = {"color": colour, "linestyle": ":" if rows[0]["cluster"]["num_deadly"] else "-"}
            panel.plot(ahead, [row["times_ideal"] for row in rows], marker="o", markersize=3, label=name, **line)
            low, high = zip(*(row["tenth_to_ninetieth"] for row in rows), strict=True)
            panel.fill_between(ahead, low, high, color=colour, alpha=0.15, linewidth=0)
        panel.set_title("the last rows are run twice (backups)" if has_backups else "as run --ray hands out rows")
        panel.set_xscale("log", base=2)
        panel.set_xticks(ahead, [str(number) for number in ahead])
        panel.set_xlabel("rows that lie ready at a worker")
    panels[0].set_ylabel("finishing time over the ideal")
    panels[0].set_ylim(bottom=1.0)
    panels[0].legend(fontsize=8, frameon=False)
    return figure


if __name__ == "__main__":
    main()
