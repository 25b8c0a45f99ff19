"""The menu: how it is written, what it is asked, and that nobody else does arithmetic on budgets."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import forethought
from forethought.core.menu import Menu, with_menu
from forethought.errors import InvalidMenuError

PACKAGE = Path(forethought.__file__).parent
menus = st.sets(st.integers(0, 40_000), min_size=1, max_size=30).filter(max).map(Menu.of)

WRITTEN = {
    "512,1024,4096": (512, 1024, 4096),
    " 512, 1024 ,4096 ": (512, 1024, 4096),
    "512,1_024": (512, 1024),
    "16:64:16": (16, 32, 48, 64),
    "0,16:48:16,1000": (0, 16, 32, 48, 1000),
    "geometric:256:2048": (256, 512, 1024, 2048),
    "geometric:256:1000": (256, 512, 1000),
    "geometric:100:10000:10": (100, 1000, 10000),
    "64": (64,),
}


@pytest.mark.parametrize(("text", "caps"), WRITTEN.items(), ids=WRITTEN)
def test_what_is_written(text: str, caps: tuple[int, ...]) -> None:
    assert Menu.parse(text).caps == caps


REFUSED = {
    "": "is no number",
    "a": "'a' is no number of tokens; try --budgets",
    "1e3": "is no number",
    "-5,6": "is no number",
    "16,16": "16 is named twice",
    "64,32": "caps must ascend, and 32 comes after 64",
    "16:64:16,32": "caps must ascend, and 32 comes after 64",
    "16:256": "FIRST:LAST:STEP",
    "16:256:0": "steps of 0",
    "256:16:16": "from 256 to 16",
    "16:250:16": "from 16 to 250",
    "0": "largest budget",
    "geometric:0:256": "geometric:FIRST:LAST",
    "geometric:256": "geometric:FIRST:LAST",
    "geometric:256:1024:1": "factor",
    "1:100000000:1": "at most 65,536 budgets",
    "٣": "is no number",
}


@pytest.mark.parametrize(("text", "reason"), REFUSED.items(), ids=REFUSED)
def test_what_is_refused(text: str, reason: str) -> None:
    with pytest.raises(InvalidMenuError, match=re.escape(reason)):
        Menu.parse(text)


@pytest.mark.parametrize("caps", [(), (16, 16), (32, 16), (-1, 16), (0,), (1 << 53,)])
def test_what_is_no_menu(caps: tuple[int, ...]) -> None:
    with pytest.raises(InvalidMenuError):
        Menu(caps)


@given(menus, st.lists(st.integers(-5, 50_000), min_size=1, max_size=20))
def test_columns_and_bounds(menu: Menu, tokens: list[int]) -> None:
    caps = menu.caps
    assert menu.at(menu.columns(caps)).tolist() == list(caps)
    assert [menu.index(cap) for cap in caps] == list(range(menu.num_options))
    for number, last, first in zip(tokens, menu.last_at_most(tokens), menu.first_at_least(tokens), strict=True):
        assert last == sum(cap <= number for cap in caps) - 1
        assert first == sum(cap < number for cap in caps)
        assert menu.floor(number) == (caps[last] if last >= 0 else None)
        assert (number in menu) == (number in caps)


@given(menus, menus)
def test_what_two_menus_share(one: Menu, other: Menu) -> None:
    shared = one.common(other)
    assert shared == other.common(one)
    both = set(one.caps) & set(other.caps)
    assert (shared is None) if max(both, default=0) == 0 else (shared is not None and set(shared.caps) == both)


@given(menus)
def test_units_widths_and_the_disk(menu: Menu) -> None:
    assert not (menu.budgets_B % menu.unit).any()
    assert menu.width_B.sum() == pytest.approx(1.0)
    assert (menu.width_B >= 0).all()
    assert Menu.from_json(menu.to_json()) == menu


def test_schema_1_named_a_step_and_the_largest() -> None:
    assert with_menu({"model": "m", "window": 16, "maximum": 48}) == {"model": "m", "menu": [16, 32, 48]}
    assert with_menu({"model": "m"}) == {"model": "m"}
    with pytest.raises(InvalidMenuError):
        with_menu({"window": 16, "maximum": 40})


def test_a_budget_that_is_no_option() -> None:
    menu = Menu.parse("16,64,512")
    with pytest.raises(InvalidMenuError, match=r"budget 100 is not one of 16, 64, 512; the nearest below is 64"):
        menu.index(100)
    with pytest.raises(InvalidMenuError, match="budget 17"):
        menu.columns(np.array([16, 17]))


def test_a_logarithmic_axis_suits_geometric_menus() -> None:
    assert Menu.parse("geometric:256:32768").is_geometric
    assert Menu.parse("0,geometric:16:512").is_geometric
    assert not Menu.evenly(16, 256).is_geometric
    assert not Menu.of((16, 256)).is_geometric


def test_nobody_else_does_arithmetic_on_budgets() -> None:
    for path in PACKAGE.rglob("*.py"):
        if path.name != "menu.py":
            text = path.read_text("utf-8")
            assert not re.search(r"//\s*(\w+\.)*(window|smallest|grid)\b|% (\w+\.)*(window|smallest)\b", text), path
