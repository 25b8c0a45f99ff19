"""Plans of folders by workers of a cluster: the plan of one process, whoever dies."""

from __future__ import annotations

import json
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import forethought as ft
from command_line import write_questions
from evaluation_data import write_predictions
from forethought.cluster import planning
from forethought.cluster.hosts import WorkerLostError
from forethought.cluster.planning import FolderWorker, host_for, num_bytes, plan_on, predict_on
from forethought.control.large import plan_folder
from forethought.control.predictions import Predictions
from forethought.core.data import Cost, Curves
from forethought.core.menu import Menu
from forethought.core.prompts import load_template
from forethought.core.settings import PlanSettings
from forethought.engines.fake import FakeEngine
from forethought.errors import EngineError, InvalidInputError, InvalidSettingsError

MENU = Menu.evenly(16, 128)
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="needs Ray")  # not imported: see `RayHost`


class ThreadHost:
    """Workers in threads. The calls in `lost`, counted over all workers, lose theirs with all that it kept."""

    def __init__(self, lost=()):
        self.lost, self.num_calls, self.methods = set(lost), 0, []

    def begin(self, number):
        return ThreadWorker(self, FolderWorker())

    def close(self):
        pass


class ThreadWorker:
    def __init__(self, host, worker):
        self._host, self._worker, self._is_lost = host, worker, False
        self._turn = ThreadPoolExecutor(1)

    def call(self, method, *arguments):
        self._host.methods.append(method)
        self._is_lost |= self._host.num_calls in self._host.lost
        self._host.num_calls += 1
        if self._is_lost:
            failed: Future[None] = Future()
            failed.set_exception(WorkerLostError("the process ended"))
            return failed
        return self._turn.submit(getattr(self._worker, method), *arguments)

    def end(self):
        self._turn.shutdown(wait=False)


def curves(number, *, first=0):
    random = np.random.default_rng(first)
    p_Q_B = np.sort(np.round(random.random((number, MENU.num_options)), 2), axis=1).astype(np.float32)
    tokens_Q_B = np.minimum(MENU.budgets_B, random.exponential(60, (number, 1))).astype(np.float32)
    return Curves(tuple(f"q{row}" for row in range(first, first + number)), MENU, p_Q_B, tokens_Q_B)


@pytest.fixture
def folder(tmp_path):
    made, first = tmp_path / "predictions", 0
    made.mkdir()
    for name, number in (("a", 700), ("b", 50), ("c", 300), ("d", 400)):
        write_predictions(made / f"{name}.parquet", curves(number, first=first))
        first += number
    return made


def rows(out):
    return pq.read_table(out).to_pylist()


def alone(folder, tmp_path, **terms):
    made = plan_folder(Predictions.open(folder), tmp_path / "alone.parquet", **terms)
    return rows(tmp_path / "alone.parquet"), made


def assert_same(made, one):
    for name in ("total", "price", "granted", "expected_accuracy", "expected_spent", "notes"):
        assert getattr(made, name) == getattr(one, name), name
    assert made.number_B.tolist() == one.number_B.tolist()


@pytest.mark.parametrize("cost", [Cost.GRANTED, Cost.SPENT])
@pytest.mark.parametrize("num_workers", [1, 2, 3, 9])
def test_any_number_of_workers_makes_the_plan_of_one_process(folder, tmp_path, num_workers, cost):
    terms = {"total": 1450 * 50.0, "cost": cost}
    expected, one = alone(folder, tmp_path, **terms)
    out = tmp_path / "out"
    made, efforts = plan_on(ThreadHost(), Predictions.open(folder), out, num_workers=num_workers, **terms)
    assert rows(out) == expected
    assert_same(made, one)
    assert len(efforts) == min(num_workers, 4)
    assert sum(each.num_queries for each in efforts) == 1450
    assert json.loads((out / "_budgets.json").read_text())["granted"] == one.granted


def test_a_worker_may_be_lost_at_any_call(folder, tmp_path):
    terms = {"total": 1450 * 50.0 + 0.5, "cost": Cost.SPENT}
    expected, one = alone(folder, tmp_path, **terms)
    calm = ThreadHost()
    plan_on(calm, Predictions.open(folder), tmp_path / "calm", num_workers=2, **terms)
    for lost in range(calm.methods.index("close")):
        out = tmp_path / f"lost-{lost}"
        made, efforts = plan_on(ThreadHost({lost}), Predictions.open(folder), out, num_workers=2, **terms)
        assert rows(out) == expected
        assert_same(made, one)
        assert sum(each.num_lost for each in efforts) == 1


def test_a_worker_that_is_lost_again_and_again_ends_the_plan(folder, tmp_path):
    host = ThreadHost(range(100))
    with pytest.raises(EngineError, match="worker 1 was lost 4 times in a row: the process ended"):
        plan_on(host, Predictions.open(folder), tmp_path / "out", num_workers=1, total=1450 * 50.0, cost=Cost.GRANTED)
    assert not (tmp_path / "out" / "_budgets.json").exists()


def test_files_are_shared_out_whole_and_in_order(folder):
    runs = Predictions.open(folder).divided(2)
    assert [sorted({each.path.stem for each in run.groups}) for run in runs] == [["a"], ["b", "c", "d"]]
    assert [run.start for run in runs] == [0, 700]
    assert [part.start for run in runs for part in run.parts] == [0, 700, 750, 1050]


def test_what_is_no_prediction_is_refused_as_by_one_process(folder, tmp_path):
    wrong = curves(20)
    wrong.p_Q_B[7, 2] = np.nan
    write_predictions(folder / "b.parquet", wrong)
    with pytest.raises(InvalidInputError, match="q7"):
        plan_on(
            ThreadHost(), Predictions.open(folder), tmp_path / "o", num_workers=2, total=90_000.0, cost=Cost.GRANTED
        )


def test_a_folder_with_budgets_of_other_files_is_refused(folder, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    write_predictions(out / "z.parquet", curves(3))
    with pytest.raises(InvalidSettingsError, match=r"z\.parquet"):
        plan_on(ThreadHost(), Predictions.open(folder), out, num_workers=2, total=90_000.0, cost=Cost.GRANTED)


def test_a_message_is_its_numbers_and_texts():
    assert num_bytes([curves(10), ("abc", 1)]) == pytest.approx(10 * 8 * 4 * 2 + 3 + 8 + 20, abs=200)


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    engine = FakeEngine(template=load_template("worked-5"), menu=Menu.evenly(16, 64))
    questions = [{"question": f"What is {a} plus {a + 3}?", "answer": str(2 * a + 3)} for a in range(40)]
    measured = ft.profile(engine, questions, menu="16:64:16", num_traces=2)
    made = tmp_path_factory.mktemp("predictor") / "predictor"
    ft.train(measured, predictor="text").save(made)
    return made


@pytest.fixture
def texts(tmp_path):
    made = tmp_path / "texts"
    made.mkdir()
    for name, first in (("a", 0), ("b", 30), ("c", 60)):
        table = {"question": [f"What is {a} plus 5?" for a in range(first, first + 30)]}
        pq.write_table(pa.table(table), made / f"{name}.parquet")
    return made


def test_questions_are_predicted_a_file_at_a_time_by_whoever_lives(predictor, texts, tmp_path):
    settings = PlanSettings(run=str(predictor), questions=str(texts), mean_tokens=40)
    calm = predict_on(ThreadHost(), settings, tmp_path / "calm", num_workers=2)
    for lost in range(5):
        found = predict_on(ThreadHost({lost}), settings, tmp_path / f"{lost}", num_workers=2)
        assert found.num_queries == 90
        for one, other in zip(found.groups, calm.groups, strict=True):
            np.testing.assert_array_equal(one.load().p_Q_B, other.load().p_Q_B)


class Killing:
    """A host of Ray that kills a worker, as it is given some call."""

    def __init__(self, host, kills):
        self.host, self.kills, self.num_calls = host, set(kills), 0

    def begin(self, number):
        return KillingWorker(self, self.host.begin(number))


class KillingWorker:
    def __init__(self, host, remote):
        self._host, self._remote = host, remote

    def call(self, method, *arguments):
        if self._host.num_calls in self._host.kills:
            self.end()
        self._host.num_calls += 1
        return self._remote.call(method, *arguments)

    def end(self):
        self._remote.end()


@pytest.mark.slow
@needs_ray
def test_the_command_asks_the_model_and_plans_on_ray_whichever_worker_is_killed(call, texts, monkeypatch, tmp_path):
    """The predictor reads how hard the model finds a question, so each worker has an engine."""

    @contextmanager
    def killing(settings):
        with host_for(settings) as host:
            yield Killing(host, {1, 12, 18})

    assert call("profile", "fake", write_questions(tmp_path / "q.jsonl", 40), "--out", "run", "--quiet").code == 0
    assert call("train", "run", "--predictor", "prompted", "--engine", "fake", "--quiet").code == 0
    typed = ["plan", "run", str(texts), "--mean-tokens", "64", "--cost", "spent", "--engine", "fake", "--json"]
    assert call(*typed, "--out", "alone.parquet").code == 0
    monkeypatch.setattr(planning, "host_for", killing)
    said = call(*typed, "--ray", "--workers", "2", "--out", "budgets")
    assert said.code == 0
    expected = rows(tmp_path / "alone.parquet")
    assert rows(tmp_path / "budgets") == expected
    assert len({row["budget"] for row in expected}) > 1
    assert said.err.count("another does its part again") == 3
    assert [each["num_queries"] for each in said.json["workers"]] == [30, 60]
    assert all(0 < each["sent_bytes"] < 100_000 for each in said.json["workers"])
    assert sum(each["num_lost"] for each in said.json["workers"]) == 2


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--ray", "--workers", "2"], "--out FOLDER"),
        (["--ray", "--out", "out"], "--workers N"),
        (["--workers", "2", "--out", "out.parquet"], "need --ray"),
    ],
)
def test_flags_that_are_missing_are_named(call, folder, flags, words):
    said = call("plan", str(folder), "--mean-tokens", "50", *flags)
    assert said.code == 1
    assert words in said.err
