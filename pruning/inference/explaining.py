"""Explanations of rows: what a model type is made of, what of it is proven, and how exactly."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import transformers
from transformers import CONFIG_MAPPING, PretrainedConfig

from common.errors import PruningError
from pruning.families.architecture import AXES
from pruning.families.block import PARTS
from pruning.families.checkpoint import Checkpoint
from pruning.families.kinds import Kind
from pruning.families.shapes import architecture_of, axis_rows, kinds_of
from pruning.families.spec import Family
from pruning.families.table import FAMILIES, family_of
from pruning.families.words import Axes, AxisRows
from pruning.inference.comparison import Comparison
from pruning.inference.proofs.block import TeacherBlock
from pruning.inference.proofs.search import Finding
from pruning.inference.rows.family import InferredFamily
from pruning.inference.verdicts import default_config, tiny_findings
from pruning.multimodal.configuration import is_multimodal, multimodal_class, text_config_of
from pruning.multimodal.part import TextPart

NAMED = frozenset({*AXES, "vocab", "positions", "head_dim", "qkv_heads"})
"""Axes whose names say what they are."""


def explanation(name: str) -> Iterator[str]:
    """Lines that explain the row of a model type, or of the model in a folder, with its proofs.

    Raises PruningError for what is neither, and with the reason for a type that is refused.
    """
    folder = Path(name)
    checkpoint = Checkpoint(folder) if folder.is_dir() else None
    config = _config_of(name) if checkpoint is None else checkpoint.config
    if is_multimodal(config):
        multimodal_class(config)
        yield f"{name}: a multimodal model, of which the text model is used"
        checkpoint = None if checkpoint is None else TextPart.of(folder).checkpoint
        config = text_config_of(config)
    family = family_of(config)
    yield from _row(family, config)
    yield from _proofs(family, config)
    if family.model_type in FAMILIES:
        yield from Comparison.of(config).lines()
    if checkpoint is not None:
        yield from _block_proofs(checkpoint)


def _config_of(model_type: str) -> PretrainedConfig:
    if model_type not in CONFIG_MAPPING:
        raise PruningError(
            f"--explain {model_type}: there is no such folder, and transformers "
            f"{transformers.__version__} has no model type of that name"
        )
    return default_config(model_type)


def _row(family: Family, config: PretrainedConfig) -> Iterator[str]:
    inferred = isinstance(family, InferredFamily)
    origin = "inferred, it has no row in the table" if inferred else "a row of the table"
    yield f"{family.model_type}: {origin} of families; {architecture_of(config)}"
    kinds = kinds_of(config)
    counted = [f"{kinds.count(kind)} of {_named(kind)}" for kind in dict.fromkeys(kinds)]
    yield f"layers: {', '.join(counted)}"
    yield "sizes: " + ", ".join(f"{axis} is {name}" for axis, name in family.fields.items())
    yield "tensors outside the layers:"
    yield from _tensors(family.outer_axes(config), config)
    for kind in dict.fromkeys(kinds):
        yield f"tensors of a layer of {_named(kind)}:"
        yield from _tensors(family.layer_axes(config, kinds.index(kind)), config)
    if family.constraints:
        yield "needs:"
        yield from (f"  {constraint.rule}" for constraint in family.constraints)


def _named(kind: Kind) -> str:
    parts = [word for word in kind if word in PARTS]
    traits = [word for word in kind if word not in PARTS]
    return ", ".join([" and ".join(parts) or "something else", *traits])


def _tensors(axes: Mapping[str, Axes], config: PretrainedConfig) -> Iterator[str]:
    width = max(map(len, axes), default=0)
    rows = axis_rows(config)

    def shown(joined: str) -> str:
        return " + ".join(_part(part, rows) for part in joined.split("+"))

    return (f"  {name:<{width}}  {' x '.join(map(shown, dims))}" for name, dims in axes.items())


def _part(part: str, rows: Mapping[str, AxisRows]) -> str:
    """An axis in a dimension; with the rows that each unit takes where its name does not tell."""
    if part in NAMED or part.isdecimal():
        return part
    axis = rows[part]
    if rows.get(axis.size) == axis:
        return axis.size
    if axis.joined:
        inner = " + ".join(_part(name, rows) for name in axis.joined.split("+"))
        return f"({inner}, {axis.size} by {axis.size})"
    if axis.within:
        return f"{axis.size} * {axis.within}"
    counted = "1 row" if axis.rows == 1 else f"{axis.rows} rows"
    return f"{axis.size} of {counted}" if axis.size else str(axis.rows)


def _proofs(family: Family, config: PretrainedConfig) -> Iterator[str]:
    yield "proofs on a tiny random model in float64 (differences, of the largest logit):"
    if isinstance(family, InferredFamily):
        yield from map(_line, family.findings.values())
        return
    findings = tiny_findings(config)
    yield from (_line(finding, "not proven here") for finding in findings)
    if not findings:
        yield "  none: no tiny model of it could be built"
    proven = {finding.axis for finding in findings if finding.proven}
    sizes = architecture_of(config)
    untried = [axis for axis in AXES if getattr(sizes, axis) and axis not in proven]
    if untried:
        shown = ", ".join(untried)
        yield f"by the row alone, which the tests of the table hold, are cut: {shown}"


def _line(finding: Finding, unproven: str = "kept whole") -> str:
    shown = [
        f"{what} {value:.1e}"
        for what, value in (("sorted", finding.sorted), ("silenced", finding.silenced))
        if value is not None and not (finding.axis == "layers" and what == "sorted")
    ]
    verdict = f"{unproven}: {finding.reason}" if finding.reason else "proven"
    return f"  {finding.axis:<11} {verdict}{' (' if shown else ''}{', '.join(shown)}" + (
        ")" if shown else ""
    )


def _block_proofs(checkpoint: Checkpoint) -> Iterator[str]:
    for block in TeacherBlock.of_each_kind(checkpoint):
        yield f"proofs on {block.name} of {checkpoint.directory}, in float64:"
        try:
            yield from map(_line, block.proof().findings())
        except PruningError as problem:
            yield f"  none: {problem}"
