"""Figure of the benchmark, as SVG: KL of every student under every limit, on an axis of its own."""

import math
from collections.abc import Sequence
from html import escape

from common.intervals import Interval
from experiments.benchmarks.per_layer.arms import PER_LAYER, UNIFORM
from experiments.benchmarks.per_layer.report import WORDS, Line
from experiments.benchmarks.per_layer.setting import Limit

WIDTH, LEFT, TOP, ROW, HEAD, GAP = 330, 116, 64, 21, 34, 26
"""Of a panel: width, space for names, height of the title, of a row and of a head, and between."""
APART = 3
"""Of the two points of a student, from the middle of its row."""
COLOURS = {UNIFORM: "#35618e", PER_LAYER: "#4a7c59"}
OTHERS = "#999999"


def figure(limits: Sequence[Limit], lines: Sequence[Line]) -> str:
    """One panel for each limit: hollow after short runs, filled after full ones."""
    shares = list(dict.fromkeys(limit.share for limit in limits))
    body, height = [], float(TOP)
    width = WIDTH
    for share in shares:
        row = [limit for limit in limits if limit.share == share]
        panels = [[line for line in lines if line.limit == limit.name] for limit in row]
        for place, (limit, chosen) in enumerate(zip(row, panels, strict=True)):
            if chosen:
                body += _panel(limit, chosen, x=place * WIDTH, y=height)
        width = max(width, len(row) * WIDTH)
        height += HEAD + ROW * max(map(len, panels)) + 2 * GAP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:.0f}" '
        'font-family="DejaVu Sans, Arial, sans-serif" font-size="11">\n'
        f'<rect width="{width}" height="{height:.0f}" fill="#ffffff"/>\n'
        + "\n".join([*_legend(lines), *body])
        + "\n</svg>\n"
    )


def _legend(lines: Sequence[Line]) -> list[str]:
    _, short, full = lines[0].kl
    return [
        _text(10, 20, "KL to the teacher on test text, nats per token; lower is better", size=14),
        _dot(16, 40, OTHERS, filled=False),
        _text(26, 44, f"after {int(short):,} tokens"),
        _dot(176, 40, OTHERS, filled=True),
        _text(186, 44, f"after {int(full):,} tokens; lines: 95 % intervals"),
    ]


def _panel(limit: Limit, lines: Sequence[Line], *, x: float, y: float) -> list[str]:
    _, short, full = lines[0].kl
    values = [end for line in lines for t in (short, full) for end in _ends(line.kl[t])]
    low, high = math.log(min(values)) - 0.05, math.log(max(values)) + 0.05

    def across(kl: float) -> float:
        share = (math.log(kl) - low) / (high - low)
        return x + LEFT + share * (WIDTH - LEFT - 20)

    parts = [_text(x + 10, y + 16, f"At {limit.title}", size=12, bold=True)]
    bottom = y + HEAD + ROW * len(lines)
    for tick in _ticks(math.exp(low), math.exp(high)):
        parts.append(
            f'<line x1="{across(tick):.1f}" y1="{y + HEAD - 8:.1f}" x2="{across(tick):.1f}" '
            f'y2="{bottom:.1f}" stroke="#dddddd"/>'
        )
        parts.append(_text(across(tick), bottom + 14, f"{tick:g}", anchor="middle"))
    for place, line in enumerate(lines):
        middle = y + HEAD + ROW * place + 4
        colour = COLOURS.get(line.arm, OTHERS)
        name = WORDS.get(line.arm, line.arm)
        parts.append(_text(x + LEFT - 8, middle + 4, name, anchor="end", bold=line.arm in COLOURS))
        for tokens, offset in ((short, -APART), (full, APART)):
            ends = _ends(line.kl[tokens])
            parts.append(
                f'<line x1="{across(ends[0]):.1f}" y1="{middle + offset:.1f}" '
                f'x2="{across(ends[1]):.1f}" y2="{middle + offset:.1f}" stroke="{colour}" '
                'stroke-width="1.6"/>'
            )
            at = across(line.kl[tokens].mean)
            parts.append(_dot(at, middle + offset, colour, filled=tokens == full))
    return parts


def _ends(interval: Interval) -> tuple[float, float]:
    """Of an interval on a logarithmic axis, where none reaches 0."""
    least = interval.mean / 10
    return max(interval.low, least), max(interval.high, least)


def _ticks(low: float, high: float) -> list[float]:
    """Round values between two."""
    steps = (1, 1.5, 2, 3, 5, 7)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every = [round(step * 10.0**power, 10) for power in powers for step in steps]
    return [value for value in every if low <= value <= high]


def _dot(x: float, y: float, colour: str, *, filled: bool) -> str:
    inside = colour if filled else "#ffffff"
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{inside}" stroke="{colour}" '
        'stroke-width="1.6"/>'
    )


def _text(
    x: float, y: float, text: str, *, size: int = 11, bold: bool = False, anchor: str = "start"
) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}"{weight} text-anchor="{anchor}">'
        f"{escape(text)}</text>"
    )
