"""Draw the picture of docs/architecture.md from the imports of the code.

    python docs/draw_architecture.py            # writes docs/architecture.svg
    python docs/draw_architecture.py --check    # exit status 1 where it is out of date

A box is a room (a folder of a package) or a module that lies in none, on a row above all that it
imports of its package; a line is an import between two boxes of one package, an arrow one between
packages.
"""

import sys
from collections import defaultdict
from dataclasses import dataclass
from html import escape
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parents[1]
PICTURE = Path(__file__).with_name("architecture.svg")
BANDS = (("experiments",), ("search",), ("workspace",), ("pruning", "distill"), ("common",))
"""Packages from the top floor down; those of one band know nothing of each other."""
COLOURS = {
    "experiments": "#e8d7f1",
    "search": "#d3e5ef",
    "workspace": "#dbeddb",
    "pruning": "#fdecc8",
    "distill": "#ffe2dd",
    "common": "#e9e5e3",
}
WIDTH, MARGIN, GAP, LINE, LETTER = 1500, 16, 14, 13, 6.1
"""In pixels; LETTER is the width of one."""
LEFT_OUT = "experiments.benchmarks"


@dataclass(frozen=True)
class Box:
    """A room or a module on the sheet, its corner at `x`, `y`, in pixels."""

    name: str
    modules: tuple[str, ...]
    x: float
    y: float
    width: float
    height: float


def boxes_of(package: str, graph: grimp.ImportGraph) -> dict[str, tuple[str, ...]]:
    """Name of each room or module right below the package -> its modules' names."""
    found = {}
    for child in sorted(graph.find_children(package)):
        if child != LEFT_OUT:
            below = sorted(graph.find_descendants(child))
            found[child] = tuple(name.removeprefix(f"{child}.") for name in below)
    return found


def floors_of(names: list[str], graph: grimp.ImportGraph) -> dict[str, int]:
    """Room or module -> its floor: 0, or one above the highest that it imports of `names`."""
    below = {
        name: {
            other
            for other in names
            if other != name
            and graph.direct_import_exists(importer=name, imported=other, as_packages=True)
        }
        for name in names
    }
    floors: dict[str, int] = {}
    while len(floors) < len(names):
        ready = [name for name in names if name not in floors and below[name] <= floors.keys()]
        if not ready:
            raise SystemExit(f"these import each other: {sorted(set(names) - floors.keys())}")
        floors |= {name: max((floors[b] + 1 for b in below[name]), default=0) for name in ready}
    return floors


def laid_out(
    package: str, graph: grimp.ImportGraph, *, x: float, y: float, width: float
) -> tuple[list[Box], float]:
    """The package's boxes in rows by floor, the highest first, and the height of all."""
    contents = boxes_of(package, graph)
    rows: dict[int, list[str]] = defaultdict(list)
    for name, floor in floors_of(list(contents), graph).items():
        rows[floor].append(name)
    boxes, top = [], y + 2 * LINE
    for floor in sorted(rows, reverse=True):
        names, left, height = rows[floor], x + MARGIN, 0.0
        share = (width - MARGIN) / len(names) - MARGIN
        for name in names:
            wide = min(share, 330.0)
            lines = len(wrapped(contents[name], wide))
            tall = LINE * (lines + 1) + 10
            boxes.append(Box(name, contents[name], left, top, wide, tall))
            left, height = left + wide + MARGIN, max(height, tall)
        top += height + GAP
    return boxes, top - y


def wrapped(modules: tuple[str, ...], width: float) -> list[str]:
    """The names of modules in lines that fit `width` pixels."""
    lines: list[str] = []
    for name in modules:
        if lines and len(f"{lines[-1]}, {name}") * LETTER < width - 12:
            lines[-1] += f", {name}"
        else:
            lines.append(name)
    return lines


def drawn(box: Box, package: str) -> list[str]:
    """The box with its name and its modules, as elements of an SVG."""
    name = escape(box.name.removeprefix(f"{package}."))
    parts = [
        f'<rect x="{box.x:.0f}" y="{box.y:.0f}" width="{box.width:.0f}" height="{box.height:.0f}" '
        'rx="4" fill="#ffffff" stroke="#777777"/>',
        f'<text x="{box.x + 6:.0f}" y="{box.y + 14:.0f}" font-weight="bold">{name}</text>',
    ]
    for row, line in enumerate(wrapped(box.modules, box.width)):
        height = box.y + 14 + LINE * (row + 1)
        parts.append(
            f'<text x="{box.x + 6:.0f}" y="{height:.0f}" fill="#555555">{escape(line)}</text>'
        )
    return parts


def lines_between(boxes: list[Box], graph: grimp.ImportGraph) -> list[str]:
    """A line from each box down to each that it imports."""
    parts = []
    for upper in boxes:
        for lower in boxes:
            if upper is lower or not graph.direct_import_exists(
                importer=upper.name, imported=lower.name, as_packages=True
            ):
                continue
            start = upper.x + upper.width / 2, upper.y + upper.height
            end = lower.x + lower.width / 2, lower.y
            parts.append(
                f'<line x1="{start[0]:.0f}" y1="{start[1]:.0f}" x2="{end[0]:.0f}" '
                f'y2="{end[1]:.0f}" stroke="#999999" stroke-width="0.7"/>'
            )
    return parts


def picture() -> str:
    """The whole sheet as the text of an SVG file."""
    packages = [package for band in BANDS for package in band]
    graph = grimp.build_graph(*packages, cache_dir=None)
    body: list[str] = []
    top = float(MARGIN)
    for band in BANDS:
        share = (WIDTH - MARGIN) / len(band) - MARGIN
        height = 0.0
        for place, package in enumerate(band):
            x = MARGIN + place * (share + MARGIN)
            boxes, tall = laid_out(package, graph, x=x, y=top, width=share)
            height = max(height, tall)
            body.append(
                f'<rect x="{x:.0f}" y="{top:.0f}" width="{share:.0f}" height="{tall:.0f}" rx="8" '
                f'fill="{COLOURS[package]}"/>'
                f'<text x="{x + 10:.0f}" y="{top + 18:.0f}" font-size="15" font-weight="bold">'
                f"{package}</text>"
            )
            body += lines_between(boxes, graph)
            for box in boxes:
                body += drawn(box, package)
        top += height + GAP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top:.0f}" '
        'font-family="DejaVu Sans, Arial, sans-serif" font-size="11">\n'
        f'<rect width="{WIDTH}" height="{top:.0f}" fill="#ffffff"/>\n'
        + "\n".join(body)
        + "\n</svg>\n"
    )


def main() -> int:
    """Write the picture, or with --check say whether it is as the code is."""
    sys.path.insert(0, str(ROOT))
    drawing = picture()
    if "--check" in sys.argv[1:]:
        if not PICTURE.exists() or PICTURE.read_text() != drawing:
            print(f"{PICTURE.name} is out of date; run python docs/draw_architecture.py")
            return 1
        return 0
    PICTURE.write_text(drawing)
    return 0


if __name__ == "__main__":
    sys.exit(main())
