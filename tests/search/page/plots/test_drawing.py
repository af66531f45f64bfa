"""Figures as SVG of a page: its names, colours and labels."""

import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Annotation

from search.page.plots.drawing import ACCENT, INK, Plot, label_ends, new_figure


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
