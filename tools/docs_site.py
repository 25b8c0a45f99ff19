"""Builds the documents as a site, or says what is wrong with them.

    python tools/docs_site.py FOLDER

Warnings are errors. Then every link of every page has to lead somewhere within the site, and no page may load anything
from elsewhere.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parent.parent
LOADED = {"img": "src", "script": "src", "link": "href", "iframe": "src", "source": "src", "video": "src"}


@dataclass
class Page(HTMLParser):
    """What one page links to, loads, and can be linked to by."""

    links: set[str] = field(default_factory=set)
    loads: set[str] = field(default_factory=set)
    anchors: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collects from one tag."""
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.add(given["href"])
        if tag in LOADED and LOADED[tag] in given:
            self.loads.add(given[LOADED[tag]])


def read(file: Path) -> Page:
    """The page in a file."""
    page = Page()
    page.feed(file.read_text("utf-8"))
    return page


def problems(site: Path) -> Iterator[str]:
    """Links that lead nowhere, and what would be fetched from elsewhere."""
    pages = {file.resolve(): read(file) for file in sorted(site.rglob("*.html"))}
    for file, page in pages.items():
        place = file.relative_to(site.resolve())
        for target in sorted(page.links | page.loads):
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                if target in page.loads and parts.scheme != "data":
                    yield f"{place} loads {target}"
                continue
            aim = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            if not aim.is_file():
                yield f"{place}: {target} does not exist"
            elif parts.fragment and aim in pages and unquote(parts.fragment) not in pages[aim].anchors:
                yield f"{place}: {target}: there is no such place on that page"
    for style in sorted(site.rglob("*.css")):
        if "url(http" in style.read_text("utf-8").replace('"', "").replace("'", ""):
            yield f"{style.relative_to(site)} loads something from elsewhere"


def main() -> int:
    """Builds and checks; exit code 1 when something is wrong."""
    site = Path(sys.argv[1])
    sphinx = [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q", "-j", "auto"]
    if built := subprocess.run([*sphinx, ROOT / "docs", site], check=False).returncode:
        return built
    found = list(problems(site))
    for problem in found:
        print(problem, file=sys.stderr)
    print(f"site: {site / 'index.html'}" if not found else f"site: {len(found)} problems")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
