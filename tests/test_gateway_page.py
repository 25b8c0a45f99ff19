"""The gateway's own pages: who may see them, what they answer, and what a browser shows of a scripted load."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import urllib.error
import urllib.request
from collections import Counter
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("prometheus_client", reason="needs the extra gateway")
pytest.importorskip("uvicorn", reason="needs the extra gateway")

from forethought.core.menu import Menu
from forethought.core.provenance import Provenance
from forethought.errors import FileError
from forethought.gateway import events, page
from forethought.gateway.guard import SECONDS, Guard
from forethought.gateway.journal import Journal
from forethought.gateway.page import Pages
from forethought.gateway.seen import Seen
from forethought.runs.journal import JournalHeader, read_outcomes
from page_load import NOON, Traffic, finish, play, served

KEY = "an-admin-key-that-is-long"
HOSTILE = (
    "<script>document.title='owned'</script>",
    '"><img src=x onerror="document.title=\'owned\'">',
    "{{ 7 * 191 }}",
)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)


async def ask(
    pages: Pages,
    path: str = "/forethought/",
    *,
    method: str = "GET",
    body: bytes = b"",
    client: Any = ("127.0.0.1", 5),
    scheme: str = "http",
    **headers: str,
) -> Answer:
    """One request without a socket; headers are named with `_`."""
    given = {"host": "127.0.0.1:4000", **{name.replace("_", "-"): value for name, value in headers.items()}}
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "root_path": "",
        "scheme": scheme,
        "client": client,
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
    }
    incoming, sent = [{"type": "http.request", "body": body, "more_body": False}], []

    async def receive() -> Any:
        return incoming.pop(0) if incoming else await asyncio.sleep(60)

    async def send(message: Any) -> None:
        sent.append(message)

    await pages(scope, receive, send)
    found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Answer(sent[0]["status"], found, b"".join(message.get("body", b"") for message in sent[1:]))


def journalled(tmp_path: Path) -> Seen:
    return Seen(journal=Journal(tmp_path / "journal", JournalHeader(Menu.of([64]), Provenance(model="toy"))))


PRIVATE = ("/forethought/", "/forethought/state", "/forethought/events", "/metrics")


@pytest.mark.parametrize("path", PRIVATE)
async def test_with_a_key_nobody_looks_without_it(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "LONGEST_SECONDS", 0.0)
    pages = Pages(Seen(), Guard(KEY))
    assert (await ask(pages, path)).status == 401
    assert (await ask(pages, path, authorization=f"Bearer {KEY}x")).status == 401
    assert (await ask(pages, path, authorization=f"Basic {KEY}")).status == 401
    assert (await ask(pages, path, cookie="forethought=99999999999.00")).status == 401
    assert (await ask(pages, path, authorization=f"Bearer {KEY}")).status == 200


STRANGERS = {
    "another machine": {"client": ("10.0.0.7", 5)},
    "no address": {"client": None},
    "a proxy": {"x_forwarded_for": "10.0.0.7"},
    "a name that points here": {"host": "evil.example:4000"},
    "no name": {"host": ""},
}


@pytest.mark.parametrize("stranger", STRANGERS.values(), ids=STRANGERS.keys())
async def test_without_a_key_only_this_machine_looks(stranger: dict[str, Any]) -> None:
    pages = Pages(Seen(), Guard())
    for host in ("127.0.0.1:4000", "localhost", "[::1]:4000"):
        assert (await ask(pages, host=host)).status == 200
    for path in PRIVATE:
        refused = await ask(pages, path, **stranger)
        assert refused.status == 403
        assert "admin key" in refused.json["error"]["message"]
    assert (await ask(pages, "/health", **stranger)).status == 200


async def test_a_login_sets_a_cookie_that_runs_out_and_dies_with_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "WRONG_KEY_SECONDS", 0.0)
    now = [NOON]
    pages, other = (
        Pages(Seen(), Guard(KEY, clock=lambda: now[0])),
        Pages(Seen(), Guard("another", clock=lambda: now[0])),
    )
    login = {"method": "POST", "path": "/forethought/login"}
    wrong = await ask(pages, **login, body=b"key=wrong")
    assert wrong.status == 401
    assert "set-cookie" not in wrong.headers
    assert b'role="alert">That is not the key' in wrong.content
    right = await ask(pages, **login, body=f"key={KEY}".encode(), scheme="https")
    assert (right.status, right.headers["location"]) == (303, "./")
    cookie = right.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Secure", "Path=/forethought/"} <= set(cookie.split("; "))
    assert KEY not in cookie
    assert hashlib.sha256(KEY.encode()).hexdigest() not in cookie
    given = cookie.partition(";")[0]
    assert (await ask(pages, cookie=f"a=b; {given}")).status == 200
    assert (await ask(pages, cookie=given[:-1])).status == 401
    later = given.replace(str(int(NOON) + SECONDS), str(int(NOON) + SECONDS + 1))
    assert (await ask(pages, cookie=later)).status == 401
    assert (await ask(other, cookie=given)).status == 401
    now[0] += SECONDS + 1
    assert (await ask(pages, cookie=given)).status == 401
    out = await ask(pages, "/forethought/logout", method="POST", authorization=f"Bearer {KEY}")
    assert "Max-Age=0" in out.headers["set-cookie"]
    assert not Guard().is_key("")


MALFORMED = {
    "no form": (b"\xff\xfe=", 401),
    "many fields": (b"&".join(b"a=%d" % n for n in range(99)), 401),
    "too long": (b"key=" + b"x" * 5_000, 413),
    "nothing": (b"", 401),
}


@pytest.mark.parametrize(("body", "status"), MALFORMED.values(), ids=MALFORMED.keys())
async def test_a_malformed_login_is_refused(body: bytes, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "WRONG_KEY_SECONDS", 0.0)
    assert (await ask(Pages(Seen(), Guard(KEY)), "/forethought/login", method="POST", body=body)).status == status


async def test_routes_and_methods() -> None:
    pages = Pages(Seen(), Guard())
    assert (await ask(pages, "/forethought")).headers["location"] == "/forethought/"
    assert (await ask(pages, "/forethought/other")).status == 404
    refused = await ask(pages, "/metrics", method="POST")
    assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD")
    head = await ask(pages, method="HEAD")
    assert head.content == b""
    assert int(head.headers["content-length"]) > 10_000
    assert b"forethought_open_requests 0.0" in (await ask(pages, "/metrics")).content
    taken = ("/forethought", "/forethought/x", "/metrics", "/health")
    assert all(Pages.takes(path) for path in taken)
    assert not any(Pages.takes(path) for path in ("/", "/v1/models", "/forethoughts", "/metrics/x"))


async def test_health_says_why_not() -> None:
    problem = [""]
    pages = Pages(Seen(), Guard(KEY), health=lambda: problem[0])
    assert (await ask(pages, "/health")).json == {"status": "ok"}
    problem[0] = "draining"
    sick = await ask(pages, "/health", client=("10.0.0.7", 5))
    assert (sick.status, sick.json) == (503, {"status": "unavailable", "reason": "draining"})


async def test_outcomes_are_told_and_told_again(tmp_path: Path) -> None:
    seen = journalled(tmp_path)
    pages, ids = Pages(seen, Guard(KEY)), [seen.begin() for _ in range(3)]

    async def tell(value: Any, **headers: str) -> Answer:
        given = {"authorization": f"Bearer {KEY}", "content_type": "application/json; charset=utf-8", **headers}
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        return await ask(pages, "/forethought/feedback", method="POST", body=body, **given)

    assert (await tell({"id": ids[0], "right": True})).json == {"kept": 1}
    assert (await tell([{"id": name, "right": False} for name in ids])).json == {"kept": 3}
    assert (await tell({"id": ids[0], "right": True})).status == 200
    assert read_outcomes(tmp_path / "journal") == {ids[0]: True, ids[1]: False, ids[2]: False}
    unknown = await tell([{"id": ids[1], "right": True}, {"id": "\x1b[2J" + "f" * 99, "right": True}])
    assert unknown.status == 404
    assert "\x1b" not in unknown.content.decode()
    assert "\\u001b" not in unknown.content.decode()
    assert read_outcomes(tmp_path / "journal")[ids[1]] is False  # nothing of that request was kept
    for wrong in (
        b"{",
        b"[" * 10_000,
        b"\xff",
        {},
        {"id": ids[0]},
        {"id": 7, "right": True},
        {"id": ids[0], "right": 1},
    ):
        assert (await tell(wrong)).status == 400
    assert (await tell({"id": ids[0], "right": True, "more": 1})).status == 400
    assert (await tell([{"id": ids[0], "right": True}] * 10_001)).status == 413
    assert (await tell(b" " * 2_000_001)).status == 413
    assert (await tell({"id": ids[0], "right": True}, content_type="text/plain")).status == 415
    assert (await tell({"id": ids[0], "right": True}, authorization="")).status == 401
    assert seen.journal is not None
    seen.journal.close()


async def test_a_tenant_may_tell_outcomes_and_see_nothing(tmp_path: Path) -> None:
    seen = journalled(tmp_path)
    pages = Pages(seen, Guard(KEY), is_tenant=lambda headers: headers.get("authorization") == "Bearer mine")
    body = json.dumps({"id": seen.begin(), "right": True}).encode()
    given = {"authorization": "Bearer mine", "content_type": "application/json"}
    assert (await ask(pages, "/forethought/feedback", method="POST", body=body, **given)).status == 200
    assert (await ask(pages, "/forethought/state", **given)).status == 401
    assert seen.journal is not None
    seen.journal.close()


async def test_a_disk_that_takes_nothing_is_said_without_its_path(tmp_path: Path, monkeypatch: Any) -> None:
    seen = journalled(tmp_path)
    pages = Pages(seen, Guard())

    async def feed(outcomes: Any) -> None:
        raise FileError(f"{tmp_path}: cannot be written")

    monkeypatch.setattr(seen, "feed", feed)
    body = json.dumps({"id": seen.begin(), "right": True}).encode()
    told = await ask(pages, "/forethought/feedback", method="POST", body=body, content_type="application/json")
    assert told.status == 503
    assert str(tmp_path) not in told.content.decode()
    assert seen.journal is not None
    seen.journal.close()


async def test_without_a_journal_no_outcome_is_kept() -> None:
    body = b'{"id": "x", "right": true}'
    told = await ask(
        Pages(Seen(), Guard()), "/forethought/feedback", method="POST", body=body, content_type="application/json"
    )
    assert told.status == 409


@pytest.mark.slow
async def test_no_body_and_no_header_makes_an_error_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "WRONG_KEY_SECONDS", 0.0)
    seen = journalled(tmp_path)
    pages, random = Pages(seen, Guard(KEY)), np.random.default_rng(3)
    pieces = [
        '{"id":',
        f'"{seen.begin()}"',
        ',"right":',
        "true",
        "null",
        "}",
        "[",
        "]",
        ",",
        "1e999",
        "NaN",
        "\\ud800",
        "\x00",
    ]
    for number in range(2_000):
        path = str(random.choice(list(page.ROUTES)))
        text = "".join(random.choice(pieces, int(random.integers(0, 9))))
        body = text.encode() if number % 3 else random.bytes(int(random.integers(0, 60)))
        given = {"authorization": f"Bearer {KEY}"} if number % 2 else {"cookie": f"forethought={text}"}
        if path.endswith("/events"):
            continue
        method = "POST" if page.ROUTES[path] == ("POST",) or number % 5 == 0 else "GET"
        kind = "application/json" if number % 7 else "text/plain"
        answer = await ask(pages, path, method=method, body=body, content_type=kind, **given)
        assert answer.status < 500, (path, body)
    assert seen.journal is not None
    seen.journal.close()


class Tags(HTMLParser):
    """Tags with their attributes, and what stands in script and style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.held: dict[str, str] = {}
        self._last = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.found.append((tag, dict(attrs)))
        self._last = tag

    def handle_data(self, data: str) -> None:
        if self._last in ("script", "style"):
            self.held[self._last] = self.held.get(self._last, "") + data

    def handle_endtag(self, tag: str) -> None:
        self._last = ""


async def test_a_page_may_load_and_run_nothing_but_its_own() -> None:
    answer = await ask(Pages(Seen(), Guard()))
    policy = dict(part.partition(" ")[::2] for part in answer.headers["content-security-policy"].split("; "))
    tags = Tags(answer.content.decode())
    for name in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256(tags.held[name].encode()).digest()).decode()
        assert policy[f"{name}-src"] == f"'sha256-{digest}'"
    assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert "unsafe" not in answer.headers["content-security-policy"]
    for tag, attributes in tags.found:
        assert not {name for name in attributes if name.startswith("on")} | ({"style", "src"} & set(attributes)), tag
    assert "://" not in answer.content.decode().replace("http://www.w3.org/2000/svg", "")
    assert "url(" not in tags.held["style"]
    assert (answer.headers["x-frame-options"], answer.headers["x-content-type-options"]) == ("DENY", "nosniff")


async def test_tables_and_pictures_have_names() -> None:
    tags = Tags((await ask(Pages(Seen(), Guard()))).content.decode()).found
    names = Counter(tag for tag, _ in tags)
    assert names["table"] == names["caption"] == 5
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in tags:
        for key in ("aria-labelledby", "for"):
            assert attributes.get(key) is None or attributes[key] in ids
    assert all(attributes.get("scope") for tag, attributes in tags if tag == "th")


async def test_events_come_once_a_second_and_only_what_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "SECOND", 0.02)
    monkeypatch.setattr(events, "BEAT_SECONDS", 0.1)
    seen, began = Seen(), asyncio.get_running_loop().time()
    stream, sent, gone = events.Events(seen.snapshot), [], asyncio.Event()

    async def receive() -> Any:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message.get("body", b""))

    def beats() -> int:
        return sum(each.startswith(b"event: beat") for each in sent)

    def shown() -> list[int]:
        return [json.loads(each[6:])["open"] for each in sent if each.startswith(b"data:")]

    looking = asyncio.create_task(stream.stream(receive, send))
    async with asyncio.timeout(30):
        while beats() < 2:
            await asyncio.sleep(0.01)
        assert stream.num_watching == 1
        seen.begin()
        while len(shown()) < 2:
            await asyncio.sleep(0.01)
    gone.set()
    await looking
    assert stream.num_watching == 0
    assert shown() == [0, 1]
    assert beats() <= (asyncio.get_running_loop().time() - began) / 0.1


async def test_who_does_not_take_events_and_who_is_too_many_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "SLOW_SECONDS", 0.05)
    monkeypatch.setattr(events, "MOST_WATCHING", 2)
    pages = Pages(Seen(), Guard())

    async def never(*_: Any) -> Any:
        await asyncio.sleep(60)

    looking = [asyncio.create_task(pages.events.stream(never, never)) for _ in range(2)]
    await asyncio.sleep(0)
    assert (await ask(pages, "/forethought/events")).status == 503
    await asyncio.wait_for(asyncio.gather(*looking), 2)
    assert pages.events.num_watching == 0


async def test_a_server_that_stops_ends_the_streams() -> None:
    pages, sent = Pages(Seen(), Guard()), []

    async def receive() -> Any:
        await asyncio.sleep(60)

    async def send(message: Any) -> None:
        sent.append(message)

    looking = asyncio.create_task(pages.events.stream(receive, send))
    await asyncio.sleep(0.01)
    pages.close()
    await asyncio.wait_for(looking, 2)
    assert sent[-1]["more_body"] is False


def scripted(**changes: Any) -> tuple[Traffic, Seen, list[Any]]:
    traffic = Traffic(**changes)
    about = {"model": traffic.models[0], "upstream": "http://127.0.0.1:8000/v1 (vllm)", "predictor": "text"}
    seen = Seen(about=about, balances=traffic.balances, price=lambda: traffic.price, clock=traffic.clock)
    return traffic, seen, play(traffic, seen)


def test_real_sockets_carry_state_counts_and_events() -> None:
    _, seen, entries = scripted()
    with served(Pages(seen, Guard(KEY))) as url:

        def get(path: str) -> bytes:
            request = urllib.request.Request(f"{url}{path}", headers={"Authorization": f"Bearer {KEY}"})
            with urllib.request.urlopen(request, timeout=5) as answer:
                return (
                    answer.read()
                    if path != "/forethought/events"
                    else answer.readline() + answer.readline() + answer.readline()
                )

        state = json.loads(get("/forethought/state"))
        assert state["requests"] == len(entries)
        assert "a text that no page may show" not in json.dumps(state)
        event = get("/forethought/events").splitlines()[-1]
        assert json.loads(event.removeprefix(b"data: "))["requests"] == len(entries)
        assert b'forethought_settled_tokens_total{tenant="search"}' in get("/metrics")
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{url}/forethought/state", timeout=5)


def opened(browser: Any, url: str, said: list[str], *, width: int = 1440, scheme: str = "light", **more: Any) -> Any:
    """A tab on the page; `said` gathers what is wrong: errors of the console, and requests to elsewhere."""
    shown = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme, timezone_id="UTC", **more)
    shown.on("console", lambda message: said.append(message.text))
    shown.on("pageerror", lambda error: said.append(str(error)))
    shown.on(
        "request", lambda request: said.append(request.url) if not request.url.startswith((url, "data:")) else None
    )
    shown.goto(f"{url}/forethought/")
    return shown


def cells(shown: Any, table: str) -> list[list[str]]:
    rows = shown.locator(f"#{table} tr")
    return rows.evaluate_all("rows => rows.map(row => [...row.cells].map(cell => cell.textContent))")


@pytest.mark.slow
def test_a_browser_shows_what_the_load_did(browser: Any) -> None:
    traffic, seen, entries = scripted()
    said: list[str] = []
    with served(Pages(seen, Guard())) as url:
        shown = opened(browser, url, said)
        shown.wait_for_selector("#status.live")
        used, reserved = sum(traffic.settled.values()), sum(traffic.open.values())
        share = round(100 * (used + reserved) / traffic.quota)
        decision = shown.locator("#decision").inner_text()
        assert decision.startswith(
            f"The gateway has used or reserved {share}% of its 110,000 tokens an hour, with 67% of"
        )
        refused = sum(each.ending == "refused" for each in entries)
        assert f"600 requests since 12:00:00, 0 open, {refused} refused" in shown.locator("#more").inner_text().replace(
            "since 12:00,", "since 12:00:00,"
        )
        facts = shown.locator("#quota-facts").inner_text()
        assert f"{used:,}" in facts
        assert f"{traffic.quota - used - reserved:,}" in facts
        assert f"{1000 * traffic.price:.3g}" in facts
        given = [each for each in entries if each.option is not None]
        for label, requests, budget, _, _, over in cells(shown, "options"):
            alike = [each for each in given if each.option == label]
            assert int(requests) == len(alike)
            assert budget == label
            assert int(over) == sum(
                each.ending == "done" and (each.reasoning_tokens or 0) > (each.budget or 0) for each in alike
            )
        for name, spent, quota, window, _, _, requests, refusals in cells(shown, "tenants"):
            assert spent == f"{traffic.settled[name]:,}"
            assert int(requests) == sum(each.tenant == name for each in entries)
            assert int(refusals) == sum(each.tenant == name and each.ending == "refused" for each in entries)
            assert (window, quota) == (("none", "–") if name == "support" else ("tokens an hour", quota))
        done = [each for each in entries if each.ending == "done"]
        predicted, measured = sum(each.predicted for each in done), sum(each.output_tokens for each in done)
        note = shown.locator("#scatter-note").inner_text()
        assert note.startswith(f"In all, {measured / predicted:.2f} times the predicted tokens were used: {measured:,}")
        recent = cells(shown, "recent")
        assert [row[-1] for row in recent] == [each.id for each in reversed(entries[-50:])]
        reasons = dict(cells(shown, "reasons"))
        assert int(reasons["the client's own cap"]) == sum(each.kind == "own" for each in entries)
        assert sum(map(int, reasons.values())) == len(entries) - refused
        assert shown.locator("#burn path.left").count() == shown.locator("#burn path.price").count() == 1
        traffic.now += 1
        last = traffic.request(seen, 8)  # what comes while somebody looks is shown by itself
        shown.wait_for_function("id => document.querySelector('#recent td.id').textContent === id", arg=last.id)
        assert "601 requests" in shown.locator("#more").inner_text()
        assert "a text that no page may show" not in shown.content()
        shown.close()
    assert said == []


@pytest.mark.slow
@pytest.mark.parametrize("width", [1440, 820, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_at_every_width_and_on_both_grounds(browser: Any, width: int, scheme: str) -> None:
    _, seen, _ = scripted()
    said: list[str] = []
    with served(Pages(seen, Guard())) as url:
        shown = opened(browser, url, said, width=width, scheme=scheme, reduced_motion="reduce")
        shown.wait_for_selector("#status.live")
        assert shown.evaluate("document.documentElement.scrollWidth") <= width
        ground = shown.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        assert ground == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(21, 24, 29)")
        box = shown.locator("#burn svg").bounding_box()
        assert 300 < box["width"] <= width
        sizes = shown.locator("#burn text").evaluate_all("all => all.map(text => text.getBoundingClientRect().height)")
        assert min(sizes) >= 10  # letters keep their size on a narrow picture
        shown.close()
    assert said == []


@pytest.mark.slow
def test_the_keyboard_is_enough(browser: Any) -> None:
    _, seen, _ = scripted()
    said: list[str] = []
    with served(Pages(seen, Guard())) as url:
        shown = opened(browser, url, said, width=820)
        shown.wait_for_selector("#status.live")

        def focused() -> str:
            return shown.evaluate(
                "['id', 'aria-labelledby', 'class'].map(name => document.activeElement.getAttribute(name))"
                ".find(Boolean)"
            )

        order = []
        for _ in range(8):
            shown.keyboard.press("Tab")
            order.append(focused())
            outline = shown.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline == "solid", order[-1]
        captions = [f"caption-{name}" for name in ("options", "tenants", "reasons", "endings", "recent")]
        assert order == ["skip", "pause", "quota", *captions]
        shown.locator(".skip").focus()
        assert shown.locator(".skip").bounding_box()["x"] >= 0
        shown.keyboard.press("Enter")
        assert focused() == "main"
        shown.locator("#quota").focus()
        shown.keyboard.press("ArrowDown")
        shown.wait_for_function("document.getElementById('quota-title').textContent.includes('in all')")
        assert "The gateway" in shown.locator("#decision").inner_text()
        shown.locator("#pause").focus()
        shown.keyboard.press("Enter")
        assert shown.locator("#pause").get_attribute("aria-pressed") == "true"
        assert shown.locator("#status").inner_text().startswith("paused at 12:40")
        shown.locator("#caption-recent").scroll_into_view_if_needed()
        shown.close()
    assert said == []


@pytest.mark.slow
def test_names_of_others_are_text(browser: Any) -> None:
    _, seen, _ = scripted(tenants=HOSTILE, models=HOSTILE)
    said: list[str] = []
    with served(Pages(seen, Guard())) as url:
        shown = opened(browser, url, said)
        shown.wait_for_selector("#status.live")
        assert {row[0] for row in cells(shown, "tenants")} == set(HOSTILE)
        assert {row[2] for row in cells(shown, "recent")} <= set(HOSTILE)
        assert shown.title() == "Forethought gateway"
        assert shown.locator("img").count() == 0
        assert shown.locator("script").count() == 1
        shown.close()
    assert said == []


@pytest.mark.slow
def test_a_browser_logs_in_and_out_and_says_when_the_gateway_is_gone(browser: Any) -> None:
    _, seen, _ = scripted()
    said: list[str] = []
    with served(Pages(seen, Guard(KEY))) as url:
        shown = opened(browser, url, said, width=390)
        context = shown.context
        assert [text for text in said if "401" not in text] == []
        shown.wait_for_function("document.activeElement.id === 'key'")
        shown.keyboard.type("not the key")
        shown.keyboard.press("Enter")
        shown.wait_for_selector("[role=alert]")
        shown.locator("#key").fill(KEY)
        shown.keyboard.press("Enter")
        shown.wait_for_selector("#status.live")
        assert context.cookies()[0]["httpOnly"]
        said.clear()
        shown.locator("#logout").click()
        shown.wait_for_selector("#key")
        assert context.cookies() == []
        shown.locator("#key").fill(KEY)
        shown.keyboard.press("Enter")
        shown.wait_for_selector("#status.live")
    shown.wait_for_selector("#status.lost")
    assert shown.locator("#status").inner_text().startswith("connection lost; shown is")
    context.close()


def test_a_gateway_without_quotas_or_requests_has_a_page_too() -> None:
    seen = Seen()
    finish(seen.sample())
    found = seen.snapshot(with_series=True)
    assert (found["quotas"], found["requests"], found["added_ms"]["median"]) == ([], 0, None)
    json.dumps(found, allow_nan=False)


@pytest.mark.slow
def test_a_browser_shows_an_empty_gateway(browser: Any) -> None:
    said: list[str] = []
    seen = Seen(about={"model": "toy", "simulated": True, "shadow": True})
    with served(Pages(seen, Guard())) as url:
        shown = opened(browser, url, said)
        shown.wait_for_selector("#status.live")
        assert shown.locator("#decision").inner_text().startswith("No quota is set: 0 tokens were used")
        assert shown.locator("#simulated").is_visible()
        assert shown.locator("#shadow").is_visible()
        assert shown.locator("#recent").inner_text() == "no request has come yet"
        shown.close()
    assert said == []


def test_texts_never_reach_a_row_of_the_page() -> None:
    _, seen, entries = scripted()
    seen.end(replace(entries[-1], text="another private text"))
    assert not re.search("private text|no page may show", json.dumps(seen.snapshot(with_series=True)))
