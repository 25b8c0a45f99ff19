"""The check of the documents as a site: what a reader would miss, and what a browser would fetch, is found."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

import forethought

ROOT = Path(__file__).parent.parent


def test_broken_links_and_what_is_fetched_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "tools")
    check = importlib.import_module("docs_site")
    links = ["b.html", "b.html#here", "b.html#there", "c.html", "https://elsewhere.example/", "#top", "a%20b.txt"]
    body = "".join(f'<a href="{link}">x</a>' for link in links)
    (tmp_path / "a.html").write_text(f'<p id="top">{body}<script src="https://cdn.example/x.js"></script>')
    (tmp_path / "b.html").write_text('<h2 id="here"></h2><img src="data:image/png;base64,AA">')
    (tmp_path / "a b.txt").write_text("")
    (tmp_path / "a.css").write_text('@font-face { src: url("https://fonts.example/f.woff2") }')
    assert list(check.problems(tmp_path)) == [
        "a.html: b.html#there: there is no such place on that page",
        "a.html: c.html does not exist",
        "a.html loads https://cdn.example/x.js",
        "a.css loads something from elsewhere",
    ]


def test_the_reference_has_every_public_name() -> None:
    page = (ROOT / "docs" / "api.md").read_text("utf-8")
    assert [name for name in forethought.__all__ if f":: {name}\n" not in page] == []
