"""A real gateway on sockets, loaded by clients: its page, its counts and its journal say what they saw."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import shutil
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("uvicorn", reason="the extra `gateway` is not installed")

from forethought.control.sources import open_profile
from forethought.gateway.scripted import ScriptedServer
from gateway_upstream import KEY, OTHER_KEY, Client, question, saved_predictor, served, tenants_file

ADMIN = "admin-key-of-the-operator"
TENANTS = """
[gateway]
tokens_per_month = 1_000_000

[tenants.search]
key_sha256 = "KEY"
tokens_per_month = 500_000

[tenants.batch]
key_sha256 = "KEY2"
tokens = 1_500
"""


@pytest.fixture
async def chromium() -> AsyncIterator[Any]:
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("needs playwright")
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("needs chromium")
    from playwright.async_api import async_playwright

    async with async_playwright() as started:
        opened = await started.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield opened
        await opened.close()


async def cells(shown: Any, table: str) -> list[list[str]]:
    rows = shown.locator(f"#{table} tr")
    found: list[list[str]] = await rows.evaluate_all("rows => rows.map(row => [...row.cells].map(c => c.textContent))")
    return found


@pytest.mark.slow
async def test_the_page_the_counts_and_the_journal_say_what_clients_saw(
    chromium: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_ADMIN", ADMIN)
    settings = {
        "tenants": tenants_file(tmp_path / "tenants.toml", TENANTS),
        "ledger": f"sqlite:{tmp_path / 'ledger.db'}",
        "log": str(tmp_path / "journal"),
        "admin_key_env": "GATEWAY_ADMIN",
        "answer_room": 64,
    }
    as_json = {"content-type": "application/json"}
    predictor = saved_predictor(tmp_path / "predictor")
    async with (
        ScriptedServer() as server,
        served(server.url, predictor, **settings) as found,
        Client(found.url, KEY) as client,
    ):
        server.seen.clear()  # the gateway has tried what the server takes
        answers: list[tuple[str, int, dict[str, str]]] = []

        async def ask(number: int) -> None:
            name, key = ("batch", OTHER_KEY) if number % 3 == 0 else ("search", KEY)
            status, headers, _ = await client.chat(question(number), key=key, stream=bool(number % 2))
            answers.append((name, status, headers))

        for start in range(0, 120, 12):
            await asyncio.gather(*(ask(number) for number in range(start, start + 12)))
        status, _, _ = await client.chat("whose?", key="ft-nobody-s-key")
        assert status == 401
        done = [each for each in answers if each[1] == 200]
        refused = Counter(name for name, status, _ in answers if status == 429)
        assert set(refused) == {"batch"}
        told = [
            {"id": headers["x-forethought-id"], "right": place % 3 > 0} for place, (_, _, headers) in enumerate(done)
        ]
        for part, key in ((told[:40], KEY), (told[40:], ADMIN)):
            body = json.dumps(part).encode()
            status, _, said = await client.ask("/forethought/feedback", body, headers=as_json, key=key)
            assert (status, json.loads(said)) == (200, {"kept": len(part)})
        for path in ("/forethought/state", "/metrics"):
            assert (await client.ask(path))[0] == 401  # a tenant's key opens neither
        state = json.loads((await client.ask("/forethought/state", key=ADMIN))[2])
        counts = {(each.account, each.window): each for each in await found.opened.admission.counts()}
        used = {name: counts[f"tenant:{name}", "all"].settled for name in ("search", "batch")}
        assert sum(each.prompt_tokens + each.tokens for each in server.seen) == sum(used.values()) <= 1_000_000
        assert used["batch"] <= 1_500
        _, _, exposed = await client.ask("/metrics", key=ADMIN)
        for line in (
            f'forethought_settled_tokens_total{{tenant="batch"}} {float(used["batch"])}',
            f'forethought_refusals_total{{status="429"}} {float(refused["batch"])}',
            'forethought_refusals_total{status="401"} 1.0',
            f'forethought_endings_total{{ending="done"}} {float(len(done))}',
        ):
            assert line in exposed.decode()

        said: list[str] = []
        shown = await chromium.new_page()
        shown.on("console", lambda message: said.append(message.text))
        shown.on("pageerror", lambda error: said.append(str(error)))
        origin = found.url.removesuffix("/v1")
        await shown.goto(f"{origin}/forethought/")
        await shown.fill("#key", ADMIN)
        await shown.press("#key", "Enter")
        await shown.wait_for_selector("#status.live")
        batch = f"{used['batch']:,}"
        await shown.wait_for_function(
            "used => document.getElementById('tenants').textContent.includes(used)", arg=batch
        )
        rows = {
            name: (spent, quota, requests, no)
            for name, spent, quota, _, _, _, requests, no in await cells(shown, "tenants")
        }
        assert rows["batch"] == (batch, "1,500", "40", str(refused["batch"]))
        assert rows["search"] == (f"{used['search']:,}", "500,000", "80", "0")
        given = {row[0]: int(row[1]) for row in await cells(shown, "options")}
        assert given == Counter(headers["x-forethought-budget"] for _, _, headers in done)
        listed = await cells(shown, "recent")
        headers_of = {headers["x-forethought-id"]: headers for _, _, headers in answers}
        assert len(listed) == 50
        for row in listed:
            headers = headers_of[row[-1]]
            if not row[9].startswith("refused"):
                assert row[3] == headers["x-forethought-budget"]
                assert row[5] == f"{round(100 * float(headers['x-forethought-expected']))}%"
        assert await shown.locator("#simulated").is_visible()  # no model stands behind it
        note = await shown.locator("#scatter-note").inner_text()
        right = sum(each["right"] for each in told)
        assert f"Right as told: {right} of {len(told)} ({round(100 * right / len(told))}%)" in note
        content = await shown.content()
        assert not [text for text in said if "401" not in text]
        await found.opened.seen.journal.flush()
    kept = b"".join(file.read_bytes() for file in (tmp_path / "journal").iterdir())
    for secret in (KEY, OTHER_KEY, ADMIN, "ft-nobody-s-key", question(1), question(2)):
        for where in (kept.decode("latin-1"), json.dumps(state), content, exposed.decode()):
            assert secret not in where
    measured = open_profile(str(tmp_path / "journal"))
    assert len({question(number) for number in range(120)}) == 120
    assert measured.num_queries == measured.num_tried_Q.sum() == len(done)
    assert measured.menu.caps == (16, 32, 48, 64)
    assert measured.provenance.simulated
