"""Reserves and settles from many tasks until it is killed; says on standard output what it was told.

    python ledger_worker.py ADDRESS PREFIX NUM_TASKS QUOTA LEASE [SECONDS]

A line each: `R id reserved` once a claim is durable, `T id tokens` before it is settled, `S id tokens` once it is,
`F left` where it is full, `E` where the ledger cannot be reached. Each claim is counted in `gateway`, with the quota in
all, and in an account of its own.
"""

import asyncio
import os
import random
import sys
import time

from forethought.errors import LedgerError
from forethought.gateway.ledger import Claim, Full
from forethought.gateway.ledger.opening import open_ledger


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


async def main(address: str, prefix: str, num_tasks: int, quota: int, lease: float, seconds: float) -> None:
    ledger = await open_ledger(address)
    ends = time.monotonic() + seconds

    async def client(number: int) -> None:
        chance, count = random.Random(f"{prefix}{number}"), 0
        while time.monotonic() < ends:
            count += 1
            name, reserved = f"{prefix}-{number}-{count}", chance.randint(1, 50)
            accounts: dict[str, dict[str, int]] = {"gateway": {"all": quota}, f"own:{name}": {}}
            try:
                full = await ledger.reserve(Claim(name, accounts, reserved, 60, lease))
                if isinstance(full, Full):
                    say(f"F {full.left}")
                    await asyncio.sleep(0.05)
                    continue
                await ledger.durable(name)
            except LedgerError:
                say("E")
                await asyncio.sleep(0.1)
                continue
            say(f"R {name} {reserved}")
            await asyncio.sleep(chance.choice([0.0, 0.002, 0.01]))
            if count % 50 == 49:  # nobody settles it
                continue
            tokens = chance.randint(0, 60)
            say(f"T {name} {tokens}")
            try:
                counted = await ledger.settle(name, tokens)
            except LedgerError:
                say("E")
                continue
            if counted == tokens:
                say(f"S {name} {tokens}")

    say("ready")
    await asyncio.gather(*(client(number) for number in range(num_tasks)))
    await ledger.close()


if __name__ == "__main__":
    address, prefix, *numbers = sys.argv[1:]
    num_tasks, quota, lease, seconds = (float(text) for text in [*numbers, "600"][:4])
    asyncio.run(main(address, prefix, int(num_tasks), int(quota), lease, seconds))
