"""The gateway's journal: what is kept of requests, by whom it can be read, and that it opens as a profile."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command_line import Call
from forethought.control.sources import open_profile
from forethought.core.menu import Menu
from forethought.core.options import Option
from forethought.core.provenance import Provenance
from forethought.errors import RunError
from forethought.gateway import journal as journals
from forethought.gateway.journal import Ids, Journal
from forethought.questions.queries import content_id
from forethought.runs.journal import CLIENT_LEFT, Entry, JournalHeader, read_entries, read_outcomes
from timing import least_seconds

MENU = Menu.of([64, 128, 256])
LEVELS = Menu.named([Option("low", set={"reasoning_effort": "low"}, tokens=100), Option("high", tokens=900)])
MADE = Provenance(engine="gateway", model="toy", simulated=True)


def header(menu: Menu = MENU, **made: Any) -> JournalHeader:
    return JournalHeader(menu, Provenance(**{"engine": "gateway", "model": "toy", "simulated": True, **made}))


def entry(name: str, question: str, budget: int = 128, used: int = 90, **more: Any) -> Entry:
    known = {"tenant": "team", "model": "toy", "kind": "predicted", "expected": 0.5, "predicted": 80}
    usage = {"prompt_tokens": 20, "reasoning_tokens": used, "output_tokens": used + 10}
    given = {"option": str(budget), "budget": budget, "question": content_id(question), "text": question}
    return Entry(name, 1_000.0, **{**known, **usage, **given, **more})


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(tmp_path / "journal", header())
    yield opened
    opened.close()


async def test_a_request_is_one_line_and_says_nothing_that_is_not_known(journal: Journal) -> None:
    noted = entry(journal.ids.new(), "What is 2 plus 2?", expected=None)
    journal.note(noted)
    await journal.flush()
    (file,) = journal.folder.glob("requests-*.jsonl")
    (line,) = file.read_text("utf-8").splitlines()
    assert "expected" not in json.loads(line)
    (read,) = read_entries(journal.folder)
    assert read == Entry(**{name: getattr(noted, name) for name in noted.__slots__ if name != "text"})


async def test_no_text_is_kept_unless_asked_for(tmp_path: Path) -> None:
    for keep in (False, True):
        kept = Journal(tmp_path / str(keep), header(), keep_texts=keep)
        kept.note(entry(kept.ids.new(), "a question of mine"))
        await kept.feed([(kept.ids.new(), True)])
        kept.close()
        written = b"".join(file.read_bytes() for file in kept.folder.iterdir())
        assert (b"a question of mine" in written) is keep
        assert content_id("a question of mine").encode() in written


def test_ids_cannot_be_guessed_and_are_known_to_every_process_of_the_folder(tmp_path: Path) -> None:
    first, second, stranger = Ids.of(tmp_path), Ids.of(tmp_path), Ids()
    names = {first.new() for _ in range(1000)}
    assert len(names) == 1000
    assert all(second.knows(name) for name in names)
    assert not any(stranger.knows(name) for name in names)
    name = names.pop()
    changed = f"{int(name[0], 16) ^ 1:x}{name[1:]}"
    assert not any(
        first.knows(each) for each in (changed, name[:-1], name + "0", "", "z" * 32, "é" * 32, name.upper()[:31])
    )
    assert not any(first.knows(name.upper()) for name in names)  # the journal would not find it
    assert stat.S_IMODE((tmp_path / "id.key").stat().st_mode) == 0o600


async def test_the_last_word_holds_and_the_same_word_twice_is_one(journal: Journal) -> None:
    first, second = journal.ids.new(), journal.ids.new()
    await journal.feed([(first, True), (second, True)])
    await journal.feed([(second, False)])
    await journal.feed([(second, False)])
    assert read_outcomes(journal.folder) == {first: True, second: False}


async def test_who_goes_away_does_not_stop_the_journal(journal: Journal) -> None:
    name = journal.ids.new()
    telling = asyncio.create_task(journal.feed([(name, True)]))
    await asyncio.sleep(0)
    telling.cancel()
    await journal.flush()
    assert read_outcomes(journal.folder) == {name: True}


async def test_old_files_are_deleted_where_that_is_asked_for_and_nothing_else(tmp_path: Path) -> None:
    now = [86_400.0 * 20_000]
    for keep_days in (None, 2):
        folder = tmp_path / str(keep_days)
        kept = Journal(folder, header(), keep_days=keep_days, clock=lambda: now[0])
        (folder / "requests-20010101.txt").write_text("mine")
        begun = now[0]
        for _ in range(5):
            kept.note(entry(kept.ids.new(), "2 + 2?"))
            await kept.feed([(kept.ids.new(), True)])
            now[0] += 86_400.0
        num_files = len(list(folder.glob("*.jsonl")))
        assert num_files == (2 * 5 if keep_days is None else 2 * (keep_days + 1))
        kept.close()
        now[0] += 30 * 86_400.0
        again = Journal(folder, header(), keep_days=keep_days, clock=lambda: now[0])
        await again.flush()
        again.close()
        assert len(list(folder.glob("*.jsonl"))) == (num_files if keep_days is None else 0)
        assert {"journal.json", "id.key", "requests-20010101.txt"} <= {file.name for file in folder.iterdir()}
        now[0] = begun


async def test_files_begin_anew_by_day_and_by_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [86_400.0 * 365]
    kept = Journal(tmp_path, header(), clock=lambda: now[0])
    for day in range(2):
        now[0] += 86_400.0 * day
        kept.note(entry(kept.ids.new(), "one"))
        await kept.flush()
    monkeypatch.setattr(journals, "MAX_BYTES", 100)
    kept.note(entry(kept.ids.new(), "two"))
    await kept.flush()
    kept.close()
    names = [file.name.split("-")[1::2] for file in sorted(tmp_path.glob("requests-*"))]
    assert names == [["19710101", "0001.jsonl"], ["19710102", "0001.jsonl"], ["19710102", "0002.jsonl"]]
    assert len(list(read_entries(tmp_path))) == 3


async def test_a_full_disk_loses_no_request_and_refuses_outcomes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kept, is_full = Journal(tmp_path, header()), [True]
    real = journals.Appender.append

    def append(self: Any, lines: Any) -> None:
        if is_full[0]:
            raise OSError(28, "No space left on device")
        real(self, lines)

    monkeypatch.setattr(journals.Appender, "append", append)
    kept.note(entry(kept.ids.new(), "one"))
    with pytest.raises(OSError, match="No space"):
        await kept.feed([(kept.ids.new(), True)])
    assert "cannot be written" in caplog.text
    is_full[0] = False
    await kept.flush()
    kept.close()
    assert len(list(read_entries(tmp_path))) == 1
    assert kept.num_lost == 0


def test_what_waits_is_written_at_the_end_and_what_is_too_much_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "MAX_HELD", 50)
    monkeypatch.setattr(journals, "PAUSE", 5.0)
    kept = Journal(tmp_path, header())
    for number in range(60):
        kept.note(entry(kept.ids.new(), f"question {number}"))
    kept.close()
    assert len(list(read_entries(tmp_path))) + kept.num_lost == 60
    assert 0 < kept.num_lost <= 10


def test_what_comes_while_the_last_lines_are_written_is_written_too(tmp_path: Path) -> None:
    is_writing, may_go_on, calls = threading.Event(), threading.Event(), itertools.count()

    def clock() -> float:
        if threading.current_thread().name == "forethought-journal" and next(calls) == 1:  # 0: it looks for old files
            is_writing.set()
            may_go_on.wait(10)
        return 1_000.0

    journal = Journal(tmp_path / "journal", header(), clock=clock)
    journal.note(entry(journal.ids.new(), "one"))
    assert is_writing.wait(10)
    journal.note(entry(journal.ids.new(), "two"))
    threading.Timer(0.2, may_go_on.set).start()
    journal.close()
    assert len(list(read_entries(journal.folder))) == 2


def test_of_a_huge_question_only_the_hash_is_kept(tmp_path: Path) -> None:
    kept = Journal(tmp_path, header(), keep_texts=True)
    kept.note(entry(kept.ids.new(), "x" * 65_537))
    kept.note(entry(kept.ids.new(), "x" * 65_536))
    kept.close()
    assert [each.text and len(each.text) for each in read_entries(tmp_path)] == [None, 65_536]


STARTED = """
from pathlib import Path
import sys
sys.path[:0] = {path!r}
from test_gateway_journal import entry, header
from forethought.gateway.journal import Journal
kept = Journal(Path({folder!r}), header())
kept.note(entry(kept.ids.new(), "a question"))
kept.close()
"""


@pytest.mark.slow
def test_gateways_that_start_at_once_share_a_journal(tmp_path: Path) -> None:
    code = STARTED.format(path=[str(Path(__file__).parent)], folder=str(tmp_path / "journal"))
    running = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(4)]
    assert [each.wait(120) for each in running] == [0] * 4
    ids = Ids.of(tmp_path / "journal")
    found = [each.id for each in read_entries(tmp_path / "journal")]
    assert len(found) == 4
    assert all(map(ids.knows, found))


KILLED = """
import asyncio, sys
sys.path[:0] = {path!r}
from pathlib import Path
from test_gateway_journal import entry, header
from forethought.gateway.journal import Journal
kept = Journal(Path({folder!r}), header())
async def work():
    number = 0
    while True:
        number += 1
        name = kept.ids.new()
        kept.note(entry(name, f"question {{number}}"))
        await kept.feed([(name, True)])
        print(name, flush=True)
asyncio.run(work())
"""


@pytest.mark.slow
def test_after_a_kill_all_that_was_said_to_be_kept_is_there(tmp_path: Path) -> None:
    code = KILLED.format(path=[str(Path(__file__).parent)], folder=str(tmp_path / "journal"))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        said = [running.stdout.readline().strip() for _ in range(20)]
        os.kill(running.pid, signal.SIGKILL)
        said += [line.strip() for line in running.stdout if line.endswith("\n")]
    folder = tmp_path / "journal"
    for file in folder.glob("*.jsonl"):  # as a kill in the middle of a write would leave it
        with file.open("ab") as torn:
            torn.write(b'{"id": "half')
    outcomes = read_outcomes(folder)
    assert set(said) <= set(outcomes)
    assert set(outcomes) <= {each.id for each in read_entries(folder)}
    assert open_profile(str(folder)).num_queries >= 20


async def test_a_journal_is_a_profile_of_what_is_known(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    kept, told = Journal(tmp_path, header()), []

    def note(question: str, right: bool | None = None, **more: Any) -> None:
        made = entry(kept.ids.new(), question, **more)
        kept.note(made)
        told.extend([] if right is None else [(made.id, right)])

    note("a", True, budget=64, used=64)  # cut: says nothing of larger caps
    note("a", False, budget=64, used=64)
    note("a", True, budget=128, used=100)  # ended by itself: the same under 256
    note("b", False, budget=256, used=300)
    note("b", True, budget=100, used=3, option="100")  # the client's own cap, none of the menu
    note("c", True, is_shadow=True)
    note("c", True, ending=CLIENT_LEFT)
    note("c", True, status=500)
    note("c", True, num_thoughts=2)
    note("c", True, output_tokens=None)
    note("c", True, model="other")
    note("d")
    told.append((kept.ids.new(), True))  # of a request that is not there
    await kept.feed(told)
    kept.close()
    measured = open_profile(str(tmp_path))
    assert measured.query_ids == (content_id("a"), content_id("b"))
    assert measured.menu == MENU
    assert measured.tries_Q_B.tolist() == [[2, 1, 1], [0, 0, 1]]
    assert measured.num_right_Q_B.tolist() == [[1, 1, 1], [0, 0, 0]]
    assert measured.tokens_Q_B.tolist() == [[74, 110, 110], [0, 0, 310]]
    assert measured.reasoning_Q_B.tolist() == [[64, 100, 100], [0, 0, 300]]
    assert measured.texts == ()
    assert (measured.provenance.grader, measured.provenance.model) == ("feedback", "toy")
    assert measured.provenance.simulated
    for why in ("only shadowed", "2 requests failed", "several thoughts", "not counted", "another model", "no outcome"):
        assert why in caplog.text


async def test_named_options_stand_in_the_order_of_what_they_took(tmp_path: Path) -> None:
    kept = Journal(tmp_path, header(LEVELS))
    told = []
    for option, used in (("low", 400), ("high", 100), ("high", 200)):
        made = entry(kept.ids.new(), "a", option=option, budget=None, used=used)
        kept.note(made)
        told.append((made.id, True))
    await kept.feed(told)
    kept.close()
    measured = open_profile(str(tmp_path))
    assert measured.menu.labels == ("high", "low")
    assert measured.tries_Q_B.tolist() == [[2, 1]]
    assert measured.tokens_Q_B.tolist() == [[160, 410]]


def test_a_journal_without_outcomes_says_how_to_tell_them(tmp_path: Path) -> None:
    kept = Journal(tmp_path, header())
    kept.note(entry(kept.ids.new(), "a"))
    kept.close()
    with pytest.raises(RunError, match=r"1 have no outcome.*POST /forethought/feedback"):
        open_profile(str(tmp_path))


def test_a_folder_of_another_gateway_is_refused(tmp_path: Path) -> None:
    Journal(tmp_path / "one", header()).close()
    Journal(tmp_path / "one", header()).close()  # the same again: a restart
    for other in (header(LEVELS), header(model="another")):
        with pytest.raises(RunError, match="another gateway"):
            Journal(tmp_path / "one", other)
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "mine.txt").write_text("mine")
    with pytest.raises(RunError, match="something else than a journal"):
        Journal(tmp_path / "two", header())


def traffic(folder: Path, *, keep_texts: bool, num_queries: int = 48, times: int = 3) -> None:
    """Some hundred requests: each question asked under every cap; what has more words is harder."""
    random = np.random.default_rng(7)
    kept, told = Journal(folder, header(), keep_texts=keep_texts), []
    for number in range(num_queries):
        is_hard = number % 2 == 0
        question = f"{'Prove the long theorem about' if is_hard else 'Add'} item {number}"
        for budget in MENU.caps * times:
            chance = (0.1 if budget < 256 else 0.8) if is_hard else 0.9
            used = budget if is_hard else int(random.integers(10, 60))
            made = entry(kept.ids.new(), question, budget=budget, used=used)
            kept.note(made)
            told.append((made.id, bool(random.random() < chance)))
    asyncio.run(kept.feed(told))
    kept.close()


@pytest.mark.slow
def test_from_traffic_to_predictors_on_the_command_line(call: Call, tmp_path: Path) -> None:
    traffic(tmp_path / "journal", keep_texts=True)
    said = call("train", "journal", "--predictor", "history", "--json")
    assert said.code == 0, said.err
    assert said.json["card"]["data"]["num_queries"] == 48
    assert said.json["card"]["grader"].startswith("feedback")
    assert said.json["card"]["data"]["simulated"] is True
    said = call("train", "journal", "--predictor", "text", "--out", "by-text", "--json")
    assert said.code == 0, said.err
    assert said.json["card"]["shrinkage"]["accuracy"] > 0.3
    said = call("evaluate", "journal", "--predictor", "text", "--no-plots", "--resamples", 100, "--json", "--quiet")
    assert said.code == 0, said.err
    assert said.json["simulated"] is True
    assert len(said.json["rows"]) > 0
    (row,) = [each for each in call("ls", ".", "--json").json if each["kind"] == "journal"]
    assert (row["traces"], row["questions"], row["trained"]) == (432, 48, True)
    shown = call("show", "journal", "--json").json
    assert (shown["requests"], shown["outcomes"]) == (432, 432)
    assert "requests     432" in call("show", "journal").out


def test_without_texts_a_text_predictor_is_refused_and_a_history_is_not(call: Call, tmp_path: Path) -> None:
    traffic(tmp_path / "journal", keep_texts=False, num_queries=12)
    assert call("train", "journal", "--predictor", "history").code == 0
    said = call("train", "journal", "--predictor", "text")
    assert said.code == 1
    assert "text" in said.err


def test_traffic_is_fed_to_a_history_of_a_measured_profile(call: Call, tmp_path: Path) -> None:
    traffic(tmp_path / "suite", keep_texts=False)
    measured = open_profile("suite")
    from dataclasses import replace

    made = replace(measured.provenance, grader="exact", template="boxed")
    replace(measured, provenance=made, query_ids=tuple(f"q{row}" for row in range(48))).save("suite.parquet")
    traffic(tmp_path / "journal", keep_texts=False, num_queries=6, times=1)
    said = call("train", "suite.parquet", "journal", "--predictor", "history", "--out", "fed", "--json")
    assert said.code == 0, said.err
    assert said.json["card"]["data"]["num_queries"] == 48
    assert [each["name"] for each in said.json["card"]["history"]["fed"]] == ["suite", "journal"]
    assert said.json["card"]["history"]["num_queries"] == 54


def test_noting_a_request_is_cheap(journal: Journal) -> None:
    noted = entry(journal.ids.new(), "What is 2 plus 2?")
    assert least_seconds(lambda: journal.note(noted), times=2000) < 100e-6
    assert least_seconds(journal.ids.new, times=2000) < 40e-6
