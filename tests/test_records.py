"""Records and provenance: what lies on disk comes back as it was, and what cannot be is named by its place."""

import json
from dataclasses import replace

import pytest

from forethought.core.codec import UnfitError
from forethought.core.data import EngineInfo, Generation, Grade, Probe, Sampling, StopReason
from forethought.core.menu import Menu
from forethought.core.provenance import Provenance
from forethought.core.records import Record

GENERATION = Generation("q", 1, 64, "so\n\u2028 42", 40, "42", 2, 7, 90, StopReason.NATURAL, (Probe(16, "7", 1),))
RECORD = replace(Record.of(GENERATION), grade=Grade.RIGHT, probes=(Probe(16, "7", 1, Grade.WRONG),))
FAILED = replace(GENERATION, stop_reason=StopReason.ERROR, error="broke", is_final=True, probes=())
MADE = Provenance.of(
    EngineInfo("fake", "m", model_hash="abc", simulated=True, versions={"numpy": "2"}),
    menu=Menu.evenly(16, 64),
    sampling=Sampling(0.6, 0.9),
    seed=-3,
    grader="number",
    grader_version="2",
    more={"allocators": ["envelope", "uniform"], "hard_total": None},
)


def test_records_survive_the_file() -> None:
    for record in (RECORD, Record.of(GENERATION), Record.of(FAILED, setup="x")):
        assert Record.from_json(json.loads(json.dumps(record.to_json()))) == record
    assert Record.of(GENERATION, setup="x").setup == "", "only failed ones say under what"
    assert RECORD.generation == GENERATION


def test_a_failed_trace_comes_to_nothing() -> None:
    assert Record.of(FAILED).is_failed
    assert Record.of(FAILED).at(64) is None


def test_a_trace_that_was_not_counted_still_has_its_answers() -> None:
    record = replace(RECORD, reasoning_tokens=None)
    small, whole = record.at(16), record.at(64)
    assert small is not None
    assert whole is not None
    assert (small.answer, small.grade, small.tokens, small.stop_reason) == ("7", Grade.WRONG, None, StopReason.BUDGET)
    assert (whole.answer, whole.grade, whole.tokens, whole.stop_reason) == ("42", Grade.RIGHT, None, StopReason.NATURAL)


def line(**changed: object) -> dict[str, object]:
    return RECORD.to_json() | changed


BROKEN = {
    "a count as text": (line(reasoning_tokens="7"), "'reasoning_tokens' must be a whole number, not '7'"),
    "a huge count": (line(budget=10**400), "'budget' must be between 0 and 9,007,199,254,740,992, not a huge number"),
    "true": (line(sample=True), "'sample' must be a whole number, not True"),
    "a reason": (line(stop_reason="bored"), "'stop_reason' is 'bored', not one of natural, budget, error"),
    "a probe": (line(probes=[3]), r"'probes\[0\]' must be an object, not 3"),
    "a probe's budget": (line(probes=[{"budget": -1}]), r"'probes\[0\].budget' must be between 0 and"),
    "not judged": (line(probes=[{"budget": 1, "answer": "", "answer_tokens": 0}]), "a probe was not graded"),
    "no error": (line(stop_reason="error"), "'error' does not say why"),
    "missing": ({"query_id": "q"}, "'sample' is missing"),
    "a list": ([], "must be an object, not a list of 0"),
}


@pytest.mark.parametrize(("value", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_what_no_record_can_be_is_named_by_its_place(value: object, message: str) -> None:
    with pytest.raises(UnfitError, match=message):
        Record.from_json(value)


def test_unknown_keys_of_a_record_are_left_aside() -> None:
    assert Record.from_json(line(mood="good")) == RECORD


def test_provenance_survives_the_file() -> None:
    assert Provenance.from_json(json.loads(json.dumps(MADE.to_json()))) == MADE
    assert Provenance.from_json({}) == Provenance()


def test_provenance_of_schema_1_is_read() -> None:
    made = Provenance.from_json({"model": "m", "window": 16, "maximum": 64, "grader_options": None, "total": 12.5})
    assert made == Provenance(model="m", menu=Menu.evenly(16, 64), more={"total": 12.5})


def test_what_differs_is_named() -> None:
    other = replace(MADE, model="n", device="cuda", grader_options={}, more={**MADE.more, "allocators": ["exact"]})
    assert MADE.differing(MADE) == ()
    assert MADE.differing(other) == ("model", "allocators"), "the device determines nothing; no options are no options"
    assert MADE.differing(other, ("device", "engine")) == ("device",)


WRONG = {
    "sampling": ({"sampling": {"warmth": 1}}, "'sampling.warmth' is not known"),
    "menu": ({"menu": [0]}, "'menu' cannot be read: the largest budget"),
    "window": ({"window": 0, "maximum": 3}, "step of at least 1"),
    "layers": ({"num_layers": "x"}, "'num_layers' must be a whole number"),
    "text": ("x", "must be an object"),
}


@pytest.mark.parametrize(("value", "message"), WRONG.values(), ids=WRONG.keys())
def test_what_no_provenance_can_be_is_named_by_its_place(value: object, message: str) -> None:
    with pytest.raises(UnfitError, match=message):
        Provenance.from_json(value)
