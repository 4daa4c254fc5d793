"""How series look in figures and on the page: twelve colours and markers that stay distinct, also without colour."""

from __future__ import annotations

from matplotlib.path import Path

LIGHT = (
    "#0072b2", "#c2500a", "#00805d", "#a8457f", "#4b0096", "#692d00", "#a578ff", "#004b5a", "#969669", "#e169b4",
    "#a5001e", "#5a4b87",
)  # fmt: skip
"""On white. The first four are those of Okabe and Ito, darker; the others are as far from all before them as can be, in
OKLab, as seen by most people and by people without green cones. Each has a contrast of at least 3 to its ground."""
DARK = (
    "#58b4ee", "#ff9a55", "#3ccfa3", "#ec9bc7", "#696900", "#963cb4", "#f0f000", "#c3f0ff", "#e13c69", "#5a78ff",
    "#4b8796", "#96a500",
)  # fmt: skip
"""The same on the dark ground of the page."""
_BOWTIE = Path([(-1, -1), (-1, 1), (1, -1), (1, 1), (-1, -1)])
_HOURGLASS = Path([(-1, -1), (1, -1), (-1, 1), (1, 1), (-1, -1)])
MARKERS: dict[str, str | Path] = {
    "circle": "o", "square": "s", "diamond": "D", "triangle-up": "^", "cross": "P", "x": "X", "star": "*",
    "pentagon": "p", "triangle-left": "<", "triangle-right": ">", "bowtie": _BOWTIE, "hourglass": _HOURGLASS,
}  # fmt: skip
"""Plotly's name of each marker, and matplotlib's. A triangle that points down means pruned."""
SIZES = {"star": 1.7, "cross": 1.25, "x": 1.25, "pentagon": 1.15}
"""Factors by which matplotlib's markers are drawn larger, so that all look equally large."""
DASHES = {"solid": "-", "dash": (0, (5, 2)), "dot": (0, (1, 1.5)), "dashdot": (0, (5, 1.5, 1, 1.5)),
          "longdash": (0, (8, 2))}  # fmt: skip
"""Line styles, by Plotly's names. There are five, so that sixty series look different from each other."""


def style_sheet() -> str:
    """Return the colours as variables of CSS, for light and for dark."""
    light, dark = ("".join(f" --c{index}: {colour};" for index, colour in enumerate(each)) for each in (LIGHT, DARK))
    return f":root {{{light} }}\n@media screen and (prefers-color-scheme: dark) {{ :root {{{dark} }} }}"
