"""Shapes of teacher and students: what a written shape means, and what each layer kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import groupby

from pruning import Architecture, Block
from pruning.families import Sizes

SHADES = 5
"""Of a cell of the layer map, from none to all of the teacher's size."""


@dataclass(frozen=True)
class Shaped:
    """A model in the layer map."""

    name: str
    """Such as "winner"."""
    architecture: Architecture
    """Its sizes."""
    kept: Sequence[int] | None = None
    """Layers of the teacher that it has, counted from 0; None where that is not known."""


@dataclass(frozen=True)
class Cell:
    """Size of one part of a layer."""

    text: str
    """The size; a dash where there is none."""
    shade: int
    """From 0, nothing, to SHADES, all of the teacher's."""


@dataclass(frozen=True)
class MapRow:
    """One part, such as attention, in all layers of a model."""

    model: str
    """The name of the model."""
    part: str
    """The name of the part."""
    cells: Sequence[Cell]
    """One for each layer of the teacher, or of the largest model where what was kept is not
    known."""


@dataclass(frozen=True)
class LayerMap:
    """Sizes per layer of several models, side by side."""

    layers: int
    """Columns."""
    of_teacher: bool
    """Whether the columns are the teacher's layers; else each model's own."""
    rows: Sequence[MapRow]
    """Of all models, the parts of one together."""
    hybrid: bool = False
    """Whether layers differ in kind, so that each has some of the parts only."""

    @property
    def models(self) -> list[tuple[str, list[MapRow]]]:
        """Name of each model with its rows."""
        return [(name, list(rows)) for name, rows in groupby(self.rows, lambda row: row.model)]


def legend(first: Architecture, shapes: Sequence[Architecture]) -> list[tuple[str, str]]:
    """Letters of written shapes and what they stand for, with the sizes of the `first`, as far as
    these shapes have them."""
    lines = [
        ("L", f"layers (here {first.layers})"),
        ("H", f"hidden size (here {first.hidden})"),
        ("A", f"attention heads / KV heads in each layer (here {first.heads} / {first.kv_heads})"),
    ]
    if first.ffn:
        text = f"neurons of the feed-forward network (FFN) in each layer (here {first.ffn})"
        lines.append(("F", text))
    if any(shape.experts for shape in shapes):
        lines.append(
            (
                "E",
                "experts x neurons of each / experts that a token is sent to + neurons of shared "
                "experts @ channels of the space that experts read",
            )
        )
    if any(shape.ssm_heads for shape in shapes):
        lines.append(("S", "recurrent heads x channels of each / groups x channels of the state"))
    if any(shape.contiguous for shape in shapes):
        lines.append(("-span", "the layers left out are one span; else the least important ones"))
    if any(shape.per_layer for shape in shapes):
        lines.append(("[ ]", "layers in order, where they differ: *3 is three alike, - is none"))
    return lines


def layer_map(models: Sequence[Shaped]) -> LayerMap:
    """Of the models; shades are shares of the largest, which is the teacher where it is there."""
    whole = _enclosing([model.architecture for model in models])
    of_teacher = all(model.kept is not None for model in models[1:])
    rows = []
    for model in models:
        shape = model.architecture
        kept = (
            list(range(shape.layers)) if not of_teacher else list(model.kept or range(shape.layers))
        )
        places = {layer: place for place, layer in enumerate(kept)}
        for part, sizes in _parts(shape, whole).items():
            cells = [
                sizes[places[layer]] if layer in places else Cell("–", 0)
                for layer in range(whole.layers)
            ]
            rows.append(MapRow(model.name, part, cells))
    return LayerMap(whole.layers, of_teacher, rows, hybrid=bool(whole.ssm_heads))


def _enclosing(shapes: Sequence[Architecture]) -> Architecture:
    """A shape that is nowhere smaller than any of these."""
    axes = (field.name for field in fields(Sizes))
    return Architecture(**{axis: max(getattr(s, axis) for s in shapes) for axis in axes})


def _parts(shape: Architecture, whole: Architecture) -> Mapping[str, list[Cell]]:
    """Name of a part -> its size in each layer of the model."""
    blocks = [shape.block(index) for index in range(shape.layers)]
    full = whole.block(0)
    parts = {"heads / KV heads": [_attention(block, full) for block in blocks]}
    if whole.ffn:
        parts["FFN"] = [_cell(f"{b.ffn:,}", b.ffn, whole.ffn) for b in blocks]
    if whole.experts:
        parts["experts x FFN"] = [
            _cell(
                f"{b.experts} x {b.expert_ffn:,}",
                b.experts * b.expert_ffn,
                full.experts * full.expert_ffn,
            )
            for b in blocks
        ]
    if whole.ssm_heads:
        text = f"{shape.ssm_heads} x {shape.ssm_head_dim}"
        size, most = shape.ssm_heads * shape.ssm_head_dim, whole.ssm_heads * whole.ssm_head_dim
        parts["recurrent heads"] = [_cell(text, size, most)] * shape.layers
    return parts


def _attention(block: Block, full: Block) -> Cell:
    text = f"{block.heads}/{block.kv_heads}{'w' if block.window else ''}"
    return _cell(text, block.heads, full.heads)


def _cell(text: str, size: int, most: int) -> Cell:
    if not size:
        return Cell("–", 0)
    return Cell(text, max(1, round(SHADES * size / most)))
