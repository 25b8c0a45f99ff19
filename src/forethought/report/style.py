"""The style that every HTML page of ours has: one palette, on light and on dark ground."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources

from .colours import DARK, LIGHT, on_dark


def base_style(colours: Iterable[str]) -> str:
    """CSS: a variable for each colour, and what all pages share.

    Args:
        colours: `#rrggbb`, as on light ground; each has its place on dark ground too.
    """
    names = sorted(set(colours))
    light = "".join(f" {variable(each)}: {each};" for each in names)
    dark = "".join(f" {variable(each)}: {on_dark(each)};" for each in names)
    shared = (resources.files(__package__ or "") / "html_page" / "base.css").read_text("utf-8")
    return (
        f":root {{ --ground: {LIGHT};{light} }}\n"
        f"@media screen and (prefers-color-scheme: dark) {{ :root {{ --ground: {DARK};{dark} }} }}\n"
        f"{shared}"
    )


def variable(colour: str) -> str:
    """The variable of a colour."""
    return f"--c{colour[1:]}"
