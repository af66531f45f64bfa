"""Figures as SVG of a page: its names, colours and labels."""

import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Annotation

from search.page.plots.drawing import (
    ACCENT,
    INK,
    LEADERS,
    VARIABLES,
    Plot,
    label_ends,
    new_figure,
)
from tests.driver import ROOT

TEXTS = ("ink", "soft", "accent", "second", "third", "fourth", "good", "bad")


def drawn(name: str) -> Plot:
    figure, axes = new_figure()
    axes.plot([1, 2], [1.594, 1.598], "o-", color=ACCENT)
    label_ends(axes, [(2, 1.598, "one", ACCENT), (2, 1.598, "other", INK)], gap=0.1)
    return Plot(name, "Title", "Sentence.", figure, pd.DataFrame({"x": [1]}))


def test_two_figures_share_no_name() -> None:
    first, second = drawn("first").svg, drawn("second").svg
    assert 'id="first-' in first
    assert "first-" not in second


def test_it_is_drawn_the_same_each_time() -> None:
    assert drawn("same").svg == drawn("same").svg


def test_numbers_on_the_axes_stay_as_they_are() -> None:
    assert re.search(r">1\.594\d*<", drawn("axis").svg)


def test_labels_do_not_touch() -> None:
    figure, axes = new_figure()
    axes.set_ylim(0, 1)
    points = [(0.5, height, str(height), INK) for height in (0.98, 0.99, 1.0, 0.2)]
    label_ends(axes, points, gap=0.1)
    heights = sorted(text.xyann[1] for text in axes.texts if isinstance(text, Annotation))
    assert len(heights) == len(points)
    assert np.diff(heights).min() >= 0.1 - 1e-9
    assert heights[-1] <= 1
    assert heights[0] == pytest.approx(0.2), "one that touches none stays"


def test_a_label_of_what_lies_outside_is_at_the_edge() -> None:
    _, axes = new_figure()
    axes.plot([1, 2], [0.5, 1.0])
    axes.set_yscale("log")
    label_ends(axes, [(1, 0.0, "none", INK)], gap=0.1)
    (text,) = axes.texts
    assert isinstance(text, Annotation)
    assert text.xyann[1] == 0


def palettes() -> list[dict[str, str]]:
    """The page's colours, light and dark."""
    style = (ROOT / "search/results/templates/page/style.css.jinja").read_text()
    colours = re.findall(r"--([\w-]+): (#[0-9a-f]{6})", style)
    start = [at for at, (name, _) in enumerate(colours) if name == "page"]
    assert len(start) == 2
    return [dict(colours[: start[1]]), dict(colours[start[1] :])]


def channels(colour: str) -> list[float]:
    return [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]


def luminance(colour: list[float]) -> float:
    """Relative luminance of WCAG 2.2."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return sum(part * c for part, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(colour: str, page: str, opacity: float = 1.0) -> float:
    below = channels(page)
    seen = [c * opacity + p * (1 - opacity) for c, p in zip(channels(colour), below, strict=True)]
    low, high = sorted((luminance(seen), luminance(below)))
    return (high + 0.05) / (low + 0.05)


def test_the_figures_have_the_colours_of_the_page() -> None:
    light, _ = palettes()
    for colour, shown in VARIABLES.items():
        assert light[shown.removeprefix("var(--").removesuffix(")")] == colour


@pytest.mark.parametrize("dark", [False, True])
def test_text_and_marks_stand_out_from_the_page(dark: bool) -> None:
    palette = palettes()[dark]
    for name in TEXTS:
        assert contrast(palette[name], palette["page"]) >= 4.5, name
        assert contrast(palette[name], palette["page"], LEADERS) >= 3, name
    assert contrast(palette["grey"], palette["page"]) >= 3
    assert contrast(palette["bad"], palette["bad-panel"]) >= 4.5
    assert contrast(palette["soft"], palette["panel"]) >= 4.5
