"""A local Ray: runs on it are those of one process, whoever is killed; its processes listen on the loopback alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import wait
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from command_line import Call
from forethought.cluster import crew as crews
from forethought.cluster.crew import Crew, Slot
from forethought.cluster.engine import engine_of
from forethought.cluster.ray_host import RayHost
from forethought.cluster.worker import Task
from forethought.commands.pipeline import profile, run
from forethought.core.settings import EngineSettings
from forethought.runs.store import RunDirectory
from measured_alone import measured_alone, profiling, running
from process_host import Killer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("ray") is None, reason="needs Ray: pip install 'forethought[ray]'"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"),
]

NUM_QUERIES = 60
NUM_KILLS = 2
NUM_KEPT = 15  # records after which the command is killed


class Kept(RayHost):
    """A Ray that outlives the engines on it."""

    @property
    def address(self) -> str:
        import ray  # which the host has started

        return str(ray.get_runtime_context().gcs_address)

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def host() -> Iterator[Kept]:
    host = Kept("local", num_workers=4)
    yield host
    RayHost.close(host)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with questions, a profile of them by one process, a predictor, and a run by one process."""
    return measured_alone(tmp_path_factory.mktemp("ray"), NUM_QUERIES)


def workers(host: Kept, folder: Path, num_workers: int, **options: Any) -> Crew:
    settings = EngineSettings(engine="fake", template="worked-5", options=options)
    return Crew(host, Task("fake", settings, None, str(folder)), num_workers)


def lines(run: RunDirectory) -> list[str]:
    return sorted(json.dumps(record.to_json(), sort_keys=True) for record in run.records())


def pids(crew: Crew) -> list[int]:
    """Processes of the workers that run."""
    return [slot.opened.pid for slot in crew.slots if slot.opened is not None]


def tree(root: int) -> set[int]:
    """A process and its descendants."""
    own, parent_of = {root}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parent_of[int(stat.parent.name)] = int(words[1])
    while more := {pid for pid, parent in parent_of.items() if parent in own} - own:
        own |= more
    return own


class Machine:
    """A further machine of a Ray, as far as one machine can be several: a raylet, and the workers that it starts."""

    def __init__(self, address: str, num_cpus: int) -> None:
        from ray._private.node import Node
        from ray._private.parameter import RayParams

        joining = RayParams(
            gcs_address=address,
            node_ip_address="127.0.0.1",
            num_cpus=num_cpus,
            object_store_memory=1 << 27,
            include_log_monitor=False,
            dashboard_agent_listen_port=None,
        )
        node = Node(joining, head=False, shutdown_at_exit=False, spawn_reaper=False)
        self._process = node.all_processes["raylet"][0].process

    def slots(self, crew: Crew) -> list[Slot]:
        """The workers on it."""
        there = tree(self._process.pid)
        return [slot for slot in crew.slots if slot.opened is not None and slot.opened.pid in there]

    def lose(self) -> None:
        """Kills all of it at once, if it still runs."""
        for pid in tree(self._process.pid) if self._process.poll() is None else ():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()


def test_nothing_listens_beyond_this_machine(host: Kept) -> None:
    sockets = set()
    for pid in tree(os.getpid()):
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                target = os.readlink(link)
            except OSError:
                continue
            if target.startswith("socket:["):
                sockets.add(target[8:-1])
    listening = [
        row.split()[1]
        for table in ("tcp", "tcp6")
        for row in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        if row.split()[3] == "0A" and row.split()[9] in sockets
    ]
    assert len(listening) > 3
    loopback = ("0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000")
    assert all(address.split(":")[0] in loopback for address in listening), listening


def test_workers_do_what_one_process_does_and_it_goes_on_alone_and_back(host: Kept, folder: Path) -> None:
    alone = RunDirectory(folder / "alone")
    engine = engine_of(workers(host, folder, 3))
    shared = profile(profiling(folder, "shared", limit=30), engine=engine)
    assert len(lines(shared)) == 60
    profile(profiling(folder, "shared", limit=40))
    profile(profiling(folder, "shared"), engine=engine)
    engine.close()
    assert lines(shared) == lines(alone)
    assert shared.header.provenance == alone.header.provenance
    held = [query_id for chunk in shared.hidden_chunks()[1] for query_id in chunk.query_ids]
    assert sorted(held) == sorted(f"q{number}" for number in range(NUM_QUERIES))


def test_workers_that_are_killed_lose_nothing_and_do_nothing_twice(
    host: Kept, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(crews, "FRUITLESS", 100)
    alone = RunDirectory(folder / "run-alone")
    crew = workers(host, folder, 3, tokens_per_second=400)
    engine = engine_of(crew)
    with Killer(partial(pids, crew), NUM_KILLS, every=1.0) as killer:
        done = run(running(folder, "killed"), engine=engine)
    engine.close()
    assert killer.num_kills
    assert "raylet" not in capfd.readouterr().out, "standard output is for data"
    records = list(done.records())
    assert max(Counter(each.query_id for each in records).values()) == 1
    assert len(records) == NUM_QUERIES
    assert all("was lost while it ran" in (each.error or "") for each in records if each.is_failed)
    run(running(folder, "killed"))
    assert (done.path / "answers.jsonl").read_bytes() == (alone.path / "answers.jsonl").read_bytes()
    found, wanted = (json.loads((each.path / "summary.json").read_bytes()) for each in (done, alone))
    assert {**found, "usage": None} == {**wanted, "usage": None}


def test_a_hard_cap_counts_what_is_lost_with_a_worker(
    host: Kept, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crews, "FRUITLESS", 100)
    crew = workers(host, folder, 2, tokens_per_second=600)
    engine = engine_of(crew)
    with Killer(partial(pids, crew), NUM_KILLS, every=1.0) as killer:
        done = run(running(folder, "capped", hard_cap="2500"), engine=engine)
    engine.close()
    assert killer.num_kills
    pool = [json.loads(line) for line in (done.path / "pool.jsonl").read_text().splitlines()]
    charged = sum(line.get("end", 0) for line in pool)
    kept = sum((each.reasoning_tokens or 0) + each.suffix_tokens + (each.answer_tokens or 0) for each in done.records())
    assert kept <= charged <= 2500
    assert not [each for each in run(running(folder, "capped")).latest() if each.is_failed]


def test_a_machine_that_joins_takes_work_and_when_it_is_lost_others_do_it(host: Kept, folder: Path) -> None:
    crew = workers(host, folder, 6, tokens_per_second=400)  # two more than there are places
    engine, machine, lost = engine_of(crew), Machine(host.address, 2), list[Slot]()

    def lose(_: object) -> None:
        """Loses the machine in the midst of its work."""
        there = machine.slots(crew)
        if not lost and any(slot.position and slot.hands.held for slot in there):
            lost.extend(there)
            machine.lose()

    try:
        assert not wait([slot.opening for slot in crew.slots if slot.opening], timeout=300).not_done
        done = run(running(folder, "machines"), engine=engine, report=lose)
    finally:
        machine.lose()
        engine.close()
    assert lost
    records = list(done.records())
    assert len(records) == len({each.query_id for each in records}) == NUM_QUERIES
    assert not [each for each in records if each.is_failed]
    alone = RunDirectory(folder / "run-alone")
    assert (done.path / "answers.jsonl").read_bytes() == (alone.path / "answers.jsonl").read_bytes()
    found, wanted = (json.loads((each.path / "summary.json").read_bytes()) for each in (done, alone))
    assert {**found, "usage": None} == {**wanted, "usage": None}


@pytest.mark.parametrize(("order", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143)], ids=["killed", "ended"])
def test_the_command_goes_on_after_it_is(host: Kept, folder: Path, order: int, code: int) -> None:
    run_there = RunDirectory(folder / f"driven-{code}")
    command = [sys.executable, "-m", "forethought", "run", "text", "q.jsonl", "--mean-tokens", "64"]
    command += ["--out", run_there.path.name, "--workers", "2", "--json"]
    slow = [*command, "--ray", host.address, "--engine-option", "tokens_per_second=300"]
    with subprocess.Popen(slow, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            if (run_there.path / "run.json").exists() and len(list(run_there.records())) >= NUM_KEPT:
                break
            time.sleep(0.02)
        process.send_signal(order)
        process.communicate()
    assert process.returncode == code
    records = [each.query_id for each in run_there.records()]
    assert len(records) == len(set(records)) >= NUM_KEPT
    here = {**os.environ, "RAY_ADDRESS": host.address}
    again = [*command, "--ray", "auto"]
    said = subprocess.run(again, cwd=folder, env=here, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    assert json.loads(said.stdout)["answered"] == NUM_QUERIES
    alone = folder / "run-alone"
    assert (run_there.path / "answers.jsonl").read_bytes() == (alone / "answers.jsonl").read_bytes()


REFUSED = {
    "no workers": (("--ray",), "--ray needs --workers N"),
    "no Ray": (("--workers", "2"), "--workers and --gpus-per-worker need --ray"),
    "no address": (("--ray", "fake", "--workers", "2"), "--ray fake: give local, auto or HOST:PORT"),
    "no port": (("--ray", "host:port", "--workers", "2"), "--ray host:port: give local, auto or HOST:PORT"),
    "nothing there": (("--ray", "127.0.0.1:9", "--workers", "2"), "there is no Ray to work with: nothing answers at "),
    "its own share": (("--ray", "auto", "--workers", "2", "--worker", "1/2"), "leave it out with --ray"),
    "a client": (("--ray", "ray://localhost:1", "--workers", "2"), "on a machine of the cluster"),
}


@pytest.mark.parametrize(("flags", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused(call: Call, folder: Path, flags: tuple[str, ...], words: str) -> None:
    said = call("profile", "fake", folder / "q.jsonl", "--out", "r", *flags)
    assert said.code in (1, 2)
    assert words in said.err
    assert not Path("r").exists()
