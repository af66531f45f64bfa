"""Drawing: matplotlib's figures as SVG that takes the colours of the page that it stands in.

A figure is drawn in the colours of a light page. Inlined, each of them becomes a CSS variable, so
that a dark page has its own, and text becomes text of the page's font.
"""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.typing import RcKeyType

from common.files import replacing, write_file_atomically

INK, GREY, GRID, ACCENT, SECOND, THIRD, FOURTH = (
    "#1f2328",
    "#767e88",
    "#d8dee4",
    "#0550ae",
    "#9a3c00",
    "#6a2fb5",
    "#116329",
)
"""Text, what is in the background, lines of the grid, the winner, and what it is held against."""
VARIABLES = {
    INK: "var(--ink)",
    GREY: "var(--grey)",
    GRID: "var(--rule)",
    ACCENT: "var(--accent)",
    SECOND: "var(--second)",
    THIRD: "var(--third)",
    FOURTH: "var(--fourth)",
}
"""Colour of the light page -> what the page calls it."""
SVG = "http://www.w3.org/2000/svg"
LEFT_OUT = {f"{{{SVG}}}metadata", f"{{{SVG}}}style"}
"""Elements that say who drew it, and how lines are joined, which the page's style does."""
LINK = "{http://www.w3.org/1999/xlink}href"
LEADERS = 0.8
"""Opacity of the lines from labels to what they are of, which leaves them a contrast of 3:1."""
DOTS = 144
"""Of a PNG, per inch."""
STYLE: dict[RcKeyType, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10.5,
    "text.color": INK,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "lines.linewidth": 1.6,
}
FRACTION = re.compile(r"\d+\.\d{2,}")
"""A coordinate of more digits than a screen shows."""
CUT_BY = re.compile(r"url\(#([^)]+)\)")
FONT = re.compile(r"font-family: [^;]*;? ?")


@dataclass(frozen=True)
class Plot:
    """A figure with everything that says what is in it."""

    name: str
    """Of its files, and of its part of the page."""
    title: str
    """A few words."""
    sentence: str
    """What it shows, for whoever does not see it too."""
    figure: Figure
    """Drawn."""
    data: pd.DataFrame
    """The values in it."""

    @property
    def svg(self) -> str:
        """For a page: colours are its variables, and no name in it is on the page twice."""
        root = ElementTree.fromstring(self._drawn)
        for parent in list(root.iter()):
            for child in list(parent):
                if child.tag in LEFT_OUT:
                    parent.remove(child)
        used = {name for element in root.iter() for name in _references(element)}
        for element in root.iter():
            _adopt(element, used, prefix=self.name)
        root.attrib.pop("width", None)
        root.attrib.pop("height", None)
        root.attrib |= {
            "role": "img",
            "aria-labelledby": f"{self.name}-title {self.name}-sentence",
        }
        ElementTree.register_namespace("", SVG)
        text = ElementTree.tostring(root, encoding="unicode")
        return re.sub(r">\s+<", "><", text)

    def write(self, folder: Path) -> None:
        """Write it as SVG and PNG, and its values as CSV."""
        write_file_atomically(folder / f"{self.name}.svg", self._drawn)
        write_file_atomically(folder / f"{self.name}.csv", self.data.to_csv(index=False))
        with replacing(folder / f"{self.name}.png") as aside:
            aside.write_bytes(self._saved("png"))

    @cached_property
    def _drawn(self) -> str:
        """As matplotlib writes it."""
        return self._saved("svg").decode()

    def _saved(self, form: str) -> bytes:
        buffer = io.BytesIO()
        with matplotlib.rc_context({**STYLE, "svg.hashsalt": self.name}):
            metadata = {"Date": None} if form == "svg" else {}
            self.figure.savefig(buffer, format=form, dpi=DOTS, metadata=metadata)
        return buffer.getvalue()


def new_figure(height: float = 4.1) -> tuple[Figure, Axes]:
    """An empty figure of the page's width and this height in inches, with its axes."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.4, height), layout="constrained")
        return figure, figure.add_subplot()


def label_ends(axes: Axes, labels: Sequence[tuple[float, float, str, str]], *, gap: float) -> None:
    """Write labels to the right of points, moved apart where they would touch.

    Args:
        axes: With its limits and scales as they will be.
        labels: x and y of a point in data, text, colour.
        gap: Least distance of two labels, as a share of the axes' height.
    """
    if not labels:
        return
    to_axes = axes.transData + axes.transAxes.inverted()
    with np.errstate(divide="ignore"):  # a KL of 0 on a logarithmic axis
        points = np.clip([to_axes.transform((x, y)) for x, y, _, _ in labels], 0.0, 1.0)
    heights = _apart([y for _, y in points], gap)
    for (_, _, text, colour), (x, y), height in zip(labels, points, heights, strict=True):
        axes.annotate(
            text,
            xy=(x, y),
            xytext=(1.02, height),
            xycoords="axes fraction",
            textcoords="axes fraction",
            color=colour,
            va="center",
            fontsize=9.5,
            annotation_clip=False,
            parse_math=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "alpha": LEADERS},
        )


def _apart(heights: Sequence[float], gap: float) -> list[float]:
    """The same in the same order, at least `gap` from one another and inside the axes if they
    fit."""
    order = np.argsort(heights, kind="stable")
    placed = np.array(heights, dtype=float)[order]
    for place in range(1, len(placed)):
        placed[place] = max(placed[place], placed[place - 1] + gap)
    if placed[-1] > 1:
        placed[-1] = max(1.0, gap * (len(placed) - 1))
        for place in range(len(placed) - 2, -1, -1):
            placed[place] = min(placed[place], placed[place + 1] - gap)
    found = np.empty_like(placed)
    found[order] = placed
    return [float(height) for height in found]


def _references(element: ElementTree.Element) -> list[str]:
    """Names of the parts that an element draws again or is cut by."""
    link = element.attrib.get(LINK, "").removeprefix("#")
    return [link, *(name for value in element.attrib.values() for name in CUT_BY.findall(value))]


def _adopt(element: ElementTree.Element, used: set[str], *, prefix: str) -> None:
    """Give an element of the SVG the page's names, colours and font."""
    attributes = element.attrib
    name = attributes.pop("id", "")
    if name and name in used:
        attributes["id"] = f"{prefix}-{name}"
    if LINK in attributes:
        attributes["href"] = attributes.pop(LINK).replace("#", f"#{prefix}-")
    for key, value in attributes.items():
        shorter = FRACTION.sub(lambda found: f"{float(found[0]):.4g}", value)
        attributes[key] = CUT_BY.sub(rf"url(#{prefix}-\1)", " ".join(shorter.split()))
    if attributes.get("transform", "").startswith("rotate(-0 "):
        del attributes["transform"]
    if "style" in attributes:
        attributes["style"] = _themed(attributes["style"], VARIABLES)


def _themed(style: str, variables: Mapping[str, str]) -> str:
    for colour, variable in variables.items():
        style = style.replace(colour, variable)
    style = style.replace("fill: #ffffff", "fill: var(--page)")
    return FONT.sub("", style)
