"""One colour and one order for each policy, in every plot and table, on light and on dark background."""

from __future__ import annotations

import colorsys
import re

from ..evaluation.draws import HISTORY
from ..evaluation.policies import BLIND, FAIR_ORACLE, FORETHOUGHT, GREEDY, GREEDY_ORACLE, ORACLE, UNIFORM

# Okabe and Ito's palette, darker: each is read as text on white (4.5 to 1, WCAG 2.2), and they differ in lightness, for
# readers who see fewer hues. The order is that of every table and legend.
COLOURS = {
    UNIFORM: "#5f5f5f",
    BLIND: "#a86400",
    FORETHOUGHT: "#0072b2",
    GREEDY: "#a8528a",
    GREEDY_ORACLE: "#a8528a",
    ORACLE: "#007d5b",
}
COLOURS |= {HISTORY: COLOURS[FORETHOUGHT], FAIR_ORACLE: COLOURS[ORACLE]}
LIGHT, DARK = "#ffffff", "#15181d"  # the ground
GREY = 0.12  # below this saturation a colour is a grey: light ones become dark, and the other way round

COLOUR = re.compile(r"#[0-9a-f]{6}\b")


def on_dark(colour: str) -> str:
    """The colour, `#rrggbb`, that takes its place on dark ground: greys turn round, hues become lighter."""
    red, green, blue = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    hue, light, saturation = colorsys.rgb_to_hls(red, green, blue)
    if colour == LIGHT:
        return DARK
    if saturation < GREY:
        ground = int(DARK[3:5], 16) / 255
        return _hex([0.92 - (0.92 - ground) * light] * 3)
    return _hex(list(colorsys.hls_to_rgb(hue, min(0.85, 0.62 + 0.25 * light), min(saturation, 0.75))))


def _hex(parts: list[float]) -> str:
    return "#" + "".join(f"{round(255 * min(max(part, 0.0), 1.0)):02x}" for part in parts)
