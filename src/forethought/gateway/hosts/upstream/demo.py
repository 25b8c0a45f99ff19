"""`forethought serve --demo`: a scripted server that answers as a measured model did, two tenants with quotas, load."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from itertools import count, cycle
from pathlib import Path

import numpy as np

from ....control.sources import shipped_heldout
from ....core.profile import Profile
from ....core.serve_settings import ServeSettings
from ....predictors.training import train
from ...scripted import Asked, MeasuredModel, ScriptedServer, ask_chat, run_load
from ...tenants import new_key
from .serving import Running, running

MODEL = "qwen2.5-coder-0.5b"
PRICE = 0.0005
QUOTAS = {
    "search": "tokens_per_minute = 24_000\nweight = 2.0\n",
    "batch": "tokens_per_minute = 12_000\nceiling = 128\n",
}
GATEWAY = "[gateway]\ntokens_per_minute = 32_000\ntokens_per_hour = 1_500_000\n"
RATES = (2.0, 4.0, 12.0, 3.0)  # requests a second, one after the other
PHASE_SECONDS = 20.0
ANSWER_ROOM = 64


async def serve_demo(settings: ServeSettings, say: Callable[[Running], None]) -> None:
    """Serves until a signal ends it; nothing is kept."""
    async with demo(settings) as found:
        say(found)
        await found.server.stopping.wait()


@contextlib.asynccontextmanager
async def demo(settings: ServeSettings, rates: tuple[float, ...] = RATES) -> AsyncIterator[Running]:
    """The demo meanwhile."""
    profile = shipped_heldout(MODEL)
    learned, asked = np.arange(0, profile.num_queries, 2), np.arange(1, profile.num_queries, 2)
    with tempfile.TemporaryDirectory(prefix="forethought-demo-") as scratch:
        folder = Path(scratch)
        predictor = train(profile.select(learned), predictor="text")
        predictor.save(folder / "predictor")
        keys, tables = [], [GATEWAY]
        for name, quotas in QUOTAS.items():
            key, table = new_key(name)
            keys.append(key)
            tables.append(table + quotas)
        (folder / "tenants.toml").write_text("\n".join(tables), encoding="utf-8")
        model = MeasuredModel(profile)
        async with ScriptedServer(model, name=MODEL, tokens_per_second=150.0, latency=0.05) as server:
            own = replace(
                settings,
                demo=False,
                upstream=server.url,
                predictor=str(folder / "predictor"),
                price=PRICE if settings.price is None and settings.mean_tokens is None else settings.price,
                tenants=str(folder / "tenants.toml"),
                ledger=f"sqlite:{folder / 'ledger.db'}",
                log=settings.log or str(folder / "journal"),
                answer_room=ANSWER_ROOM,
                drain_seconds=min(settings.drain_seconds, 2.0),
            )
            async with running(own) as found:
                loading = asyncio.ensure_future(_load(found.url, profile.select(asked), keys, rates))
                try:
                    yield found
                finally:
                    loading.cancel()
                    await asyncio.gather(loading, return_exceptions=True)


async def _load(url: str, profile: Profile, keys: list[str], rates: tuple[float, ...]) -> None:
    """Asks for ever, in phases of different rates; every third request is of the second tenant."""
    numbers = count()

    def ask(_: int) -> Asked:
        number = next(numbers)
        key = keys[1] if number % 3 == 2 else keys[0]
        question = profile.texts[number % len(profile.texts)]
        return ask_chat(question, key=key, stream=number % 2 == 0, model=MODEL)

    for rate in cycle(rates):
        await run_load(url, ask, rate=rate, seconds=PHASE_SECONDS)
