"""kill -9 of what writes a ledger, at any moment."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from forethought.gateway.ledger import Count, Ledger
from forethought.gateway.ledger.sqlite import SqliteLedger
from forethought.gateway.windows import ALL

WORKER = Path(__file__).with_name("ledger_worker.py")


@dataclass
class Told:
    """What workers were told: claims with their reservations, settlements with their tokens."""

    reserved: dict[str, int] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)
    settled: dict[str, int] = field(default_factory=dict)
    num_full: int = 0
    num_errors: int = 0

    def read(self, output: bytes) -> None:
        for line in output.decode().splitlines():
            kind, *rest = line.split(" ")
            if kind == "R":
                self.reserved[rest[0]] = int(rest[1])
            elif kind == "T":
                self.asked[rest[0]] = int(rest[1])
            elif kind == "S":
                assert rest[0] not in self.settled
                self.settled[rest[0]] = int(rest[1])
            self.num_full += kind == "F"
            self.num_errors += kind == "E"


class Worker:
    """A process that reserves and settles; what it says goes into a file, which never holds it up."""

    def __init__(self, *arguments: object) -> None:
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  (`end` closes it)
        self.process = subprocess.Popen([sys.executable, str(WORKER), *map(str, arguments)], stdout=self._output)
        self.wait_until(lambda lines: bool(lines))

    def wait_until(self, is_enough: Callable[[list[bytes]], bool]) -> None:
        """Waits until what it has said is enough, or it has ended."""
        ends = time.monotonic() + 60.0
        while self.process.poll() is None and not is_enough(os.pread(self._output.fileno(), 10**7, 0).splitlines()):
            assert time.monotonic() < ends
            time.sleep(0.01)

    def wait_until_full(self, num_tasks: int) -> None:
        """Waits until every task was refused twice in a row: none has anything left to settle."""

        def is_full(lines: list[bytes]) -> bool:
            last = lines[-2 * num_tasks :]
            return len(last) == 2 * num_tasks and all(line.startswith(b"F ") for line in last)

        self.wait_until(is_full)

    def kill(self) -> bytes:
        """What it had said, whole lines of it."""
        self.process.send_signal(signal.SIGKILL)
        return self.end()

    def end(self) -> bytes:
        """What it has said, once it has ended."""
        self.process.wait(30)
        with self._output as output:
            output.seek(0)
            said = output.read()
        return said[: said.rfind(b"\n") + 1]


async def check(ledger: Ledger, told: Told, quota: int, *, num_open: int | None = None) -> None:
    """All leases have run out: each claim was counted once, as what was told, or as its reservation."""
    await ledger.sweep()
    assert await ledger.num_open() == (num_open or 0)
    counts = await ledger.counts(["gateway", *(f"own:{name}" for name in told.reserved)])
    settled = {each.account: each.settled for each in counts if each.window == ALL}
    total = settled.pop("gateway")
    assert total <= quota
    for name, reserved in told.reserved.items():
        found = settled[f"own:{name}"]
        if name in told.settled:
            assert found == told.settled[name], name
        else:
            assert found in {reserved, told.asked.get(name)}, name  # settled as it was killed, or its lease ran out
    untold = total - sum(settled.values())
    assert untold >= 0  # claims that were taken as it was killed, and that nobody was told of


@pytest.mark.slow
def test_what_was_told_survives_a_kill_of_the_gateway(tmp_path: Path) -> None:
    path, told, quota, chance = tmp_path / "ledger.sqlite", Told(), 40_000, random.Random(0)
    for number in range(5):
        worker = Worker(path, f"run{number}", 32, quota, 0.5)
        worker.wait_until(lambda lines: any(line.startswith((b"S ", b"F ")) for line in lines))
        time.sleep(chance.uniform(0.02, 0.4))
        told.read(worker.kill())
    assert len(told.settled) >= 5
    asyncio.run(_judge(path, told, quota))


async def _judge(path: Path, told: Told, quota: int) -> None:
    ledger = SqliteLedger(path, clock=lambda: time.time() + 60.0)
    open_before = {name for name in told.reserved if name not in told.settled}
    assert open_before
    await check(ledger, told, quota)
    await ledger.close()


def test_a_full_ledger_is_full_after_a_kill(tmp_path: Path) -> None:
    path, told = tmp_path / "ledger.sqlite", Told()
    worker = Worker(path, "run", 16, 1_000, 30.0)
    worker.wait_until_full(16)
    told.read(worker.kill())
    assert told.num_full

    async def counted() -> Sequence[Count]:
        ledger = SqliteLedger(path)
        try:
            return await ledger.counts(["gateway"])
        finally:
            await ledger.close()

    [gateway] = [each for each in asyncio.run(counted()) if each.window == ALL]
    assert 1_000 - 60 < gateway.settled + gateway.bound <= 1_000
