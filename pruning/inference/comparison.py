"""Written rows as tests of the inference: what it finds of each without knowing the row."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from transformers import PretrainedConfig

from common.errors import PruningError, reason_of
from pruning.families.architecture import AXES
from pruning.families.shapes import architecture_of, axis_rows
from pruning.families.spec import Family
from pruning.families.table import family_of
from pruning.families.words import Axes, AxisRows
from pruning.inference.rows.family import InferredFamily
from pruning.inference.rows.inferred import infer
from pruning.inference.tiny.growth import Growth


@dataclass(frozen=True)
class Comparison:
    """A written row, and what the inference makes of its type."""

    found: tuple[str, ...]
    """Axes of the row that are inferred and proven."""
    missed: tuple[str, ...]
    """Axes of the row that are not."""
    otherwise: tuple[str, ...]
    """Tensors that it reads otherwise than the row."""
    refused: str = ""
    """Why nothing is inferred; "" where something is."""

    @classmethod
    def of(cls, config: PretrainedConfig) -> "Comparison":
        """Of the row for the type of `config`."""
        row = family_of(config)
        axes = tuple(axis for axis in AXES if axis in row.fields)
        try:
            inferred = infer(config)
            tiny = Growth.of(config).tiny.config()
        except PruningError as problem:
            return cls((), axes, (), str(problem))
        except Exception as problem:  # models break in their own ways
            return cls((), axes, (), reason_of(problem))
        whole = architecture_of(tiny)
        proven = {axis for axis, finding in inferred.findings.items() if finding.proven}
        if whole.heads == whole.kv_heads and "heads" in proven:
            proven.add("kv_heads")
        present = [axis for axis in axes if getattr(whole, axis)]
        return cls(
            tuple(axis for axis in present if axis in proven),
            tuple(axis for axis in present if axis not in proven),
            tuple(_otherwise(row, inferred, tiny)),
        )

    def lines(self) -> Iterator[str]:
        """What is found and what is missed, for people."""
        if self.refused:
            yield f"inference, without the row: nothing ({self.refused})"
            return
        yield f"inference, without the row, proves: {', '.join(self.found) or 'nothing'}"
        if self.missed:
            yield f"and misses: {', '.join(self.missed)}"
        if self.otherwise:
            yield f"and reads otherwise: {', '.join(self.otherwise)}"


def _otherwise(row: Family, inferred: InferredFamily, config: PretrainedConfig) -> Iterator[str]:
    """Names of tensors whose dimensions count something else in the two, and of those that only one
    has."""
    both: list[dict[str, Sequence[object]]] = []
    for family, rows in ((row, axis_rows(config)), (inferred, _rows(inferred, config))):
        axes = dict(family.outer_axes(config))
        for layer in range(architecture_of(config).layers):
            axes |= family.layer_axes(config, layer)
        both.append({name: _meaning(dims, rows, config) for name, dims in axes.items()})
    written, found = both
    for name in dict.fromkeys([*written, *found]):
        if written.get(name) != found.get(name):
            yield name


def _rows(family: InferredFamily, config: PretrainedConfig) -> dict[str, AxisRows]:
    return {**axis_rows(config), **family.axis_rows(config)}


def _meaning(dims: Axes, rows: dict[str, AxisRows], config: PretrainedConfig) -> list[object]:
    """What each dimension counts, however its axes are called."""
    whole = architecture_of(config)
    alike = {"kv_heads": "heads"} if whole.heads == whole.kv_heads else {}
    result: list[object] = []
    for joined in dims:
        parts = []
        for part in joined.split("+"):
            axis = AxisRows(rows=int(part)) if part.isdecimal() else rows[part]
            size = alike.get(axis.size, axis.size)
            parts.append((size, axis.within or axis.rows))
        result.append(tuple(parts))
    return result
