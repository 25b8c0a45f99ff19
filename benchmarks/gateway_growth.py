"""What a gateway's state takes on disk per million requests: journal, outcomes, SQLite ledger.

Real requests of the scripted model through a real gateway on sockets, by several tenants; each with an outcome.

    python benchmarks/gateway_growth.py --requests 20000 --out docs/results/gateway/growth.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

import aiohttp

from forethought.control import sources
from forethought.core.serve_settings import ServeSettings
from forethought.gateway.hosts.upstream.serving import running
from forethought.gateway.scripted import ScriptedServer
from forethought.gateway.tenants import new_key
from forethought.predictors.training import train

CLIENTS = 8


def size(folder: Path, pattern: str) -> int:
    """Bytes of all files of this name."""
    return sum(file.stat().st_size for file in folder.glob(pattern))


async def measured(num_requests: int, num_tenants: int, folder: Path) -> dict[str, object]:
    """Runs the requests, and counts the bytes afterwards."""
    profile = sources.shipped_heldout("qwen2.5-coder-1.5b")
    predictor = train(profile, predictor="text").save(folder / "predictor")
    keys, lines = zip(*(new_key(f"team-{number}") for number in range(num_tenants)), strict=True)
    limits = "tokens_per_minute = 100_000_000\ntokens_per_day = 10_000_000_000\n"
    (folder / "tenants.toml").write_text("".join(f"{line}{limits}" for line in lines))
    settings = {"tenants": str(folder / "tenants.toml"), "ledger": f"sqlite:{folder / 'ledger.db'}"}
    settings |= {"log": str(folder / "journal"), "predictor": str(predictor)}
    async with ScriptedServer(keep=1) as server:
        given = ServeSettings(upstream=server.url, port=0, price=0.001, **settings)  # type: ignore[arg-type]
        async with running(given) as found, aiohttp.ClientSession() as session:
            await asyncio.gather(
                *(
                    client(session, found.url, profile.texts, keys, range(start, num_requests, CLIENTS))
                    for start in range(CLIENTS)
                )
            )
            assert found.opened.seen.journal is not None
            await found.opened.seen.journal.flush()
            peak = size(folder, "ledger.db*")
    sizes = {
        "requests": size(folder / "journal", "requests-*"),
        "outcomes": size(folder / "journal", "outcomes-*"),
    }
    return {
        "requests": num_requests,
        "tenants": num_tenants,
        "bytes_per_request": {name: round(total / num_requests, 1) for name, total in sizes.items()},
        "ledger_bytes": {"while it runs": peak, "closed": size(folder, "ledger.db*")},
    }


async def client(
    session: aiohttp.ClientSession, url: str, texts: tuple[str, ...], keys: tuple[str, ...], rows: range
) -> None:
    """Asks one question after the other, and tells what became of it."""
    for row in rows:
        headers = {"authorization": f"Bearer {keys[row % len(keys)]}"}
        body = {"model": "scripted", "messages": [{"role": "user", "content": texts[row % len(texts)]}]}
        async with session.post(f"{url}/chat/completions", json=body, headers=headers) as reply:
            assert reply.status == 200, await reply.text()
            await reply.read()
            outcome = {"id": reply.headers["x-forethought-id"], "right": row % 3 > 0}
        feedback = f"{url.removesuffix('/v1')}/forethought/feedback"
        async with session.post(feedback, json=outcome, headers=headers) as reply:
            assert reply.status == 200, await reply.text()


def main() -> None:
    """Runs it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--tenants", type=int, default=20)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measured(given.requests, given.tenants, Path(folder)))
    text = json.dumps(found, indent=2)
    sys.stdout.write(f"{text}\n")
    if given.out is not None:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(f"{text}\n")


if __name__ == "__main__":
    main()
