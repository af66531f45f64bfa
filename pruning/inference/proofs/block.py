"""One layer of a teacher, in float64, that a row is held against before the teacher is cut."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from common.errors import PruningError
from pruning.families.checkpoint import Checkpoint
from pruning.families.kinds import STAYS
from pruning.families.shapes import architecture_of, axis_rows, kinds_of
from pruning.families.table import FAMILIES, family_of
from pruning.inference.proofs.family_proof import FamilyProof
from pruning.slicing.configuration import student_config
from pruning.slicing.selection import rows_of

MOST_PARAMETERS = 250_000_000
"""Of a layer that is proven in float64, since a few copies of it are held."""
VOCABULARY = 256
"""Tokens that it is asked with; the others are left out of embedding and head."""
VOCABULARIES = ("vocab", "layer_vocab")
"""Axes of tensors with a row for each token."""
TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")


@dataclass(frozen=True)
class TeacherBlock:
    """One layer of a teacher with its embedding and head."""

    checkpoint: Checkpoint
    """The teacher."""
    layer: int
    """The layer."""

    @classmethod
    def of_each_kind(cls, checkpoint: Checkpoint) -> "list[TeacherBlock]":
        """The first layer of each kind; one of those that are only there together."""
        kinds = kinds_of(checkpoint.config)
        blocks = [cls(checkpoint, kinds.index(kind)) for kind in dict.fromkeys(kinds)]
        return list({block.name: block for block in blocks}.values())

    @property
    def name(self) -> str:
        """Which layers are proven, for people."""
        numbers = ", ".join(map(str, self._kept))
        return f"layers {numbers}" if len(self._kept) > 1 else f"layer {numbers}"

    def proof(self) -> FamilyProof:
        """Its row held against it. Raises PruningError where it is too large for float64."""
        config = self.checkpoint.config
        alone = replace(architecture_of(config), layers=len(self._kept))
        block = student_config(config, alone, self._kept)
        for vocabulary in ("vocab_size", "vocab_size_per_layer_input"):
            if getattr(block, vocabulary, None):
                setattr(block, vocabulary, min(getattr(block, vocabulary), VOCABULARY))
        for token in TOKENS:
            if getattr(block, token, None) is not None:
                setattr(block, token, 0)
        return FamilyProof(block, self._tensors())

    @cached_property
    def _kept(self) -> list[int]:
        """The layer, and those that no student is without."""
        kinds = kinds_of(self.checkpoint.config)
        always = (layer for layer, kind in enumerate(kinds) if STAYS in kind)
        return sorted({self.layer, *always})

    def _tensors(self) -> dict[str, Tensor]:
        config = self.checkpoint.config
        family, rows = family_of(config), axis_rows(config)
        tensors: dict[str, Tensor] = {}
        with self.checkpoint.reading() as reader:
            for spec in family.tensors(config):
                if spec.layer is not None and spec.layer not in self._kept:
                    continue
                name = spec.name
                if spec.layer is not None:
                    before = family.layer_tensor(spec.layer, "")
                    after = family.layer_tensor(self._kept.index(spec.layer), "")
                    name = name.replace(before, after, 1)
                part = tuple(slice(VOCABULARY if a in VOCABULARIES else None) for a in spec.axes)
                tensor = reader.view(spec.name)[part].to(torch.float64)
                for dim, axis in enumerate(spec.axes):
                    if axis in rows and rows[axis].size == "layers":
                        of_kept = rows_of(torch.tensor(self._kept), rows[axis].rows)
                        tensor = tensor.index_select(dim, of_kept)
                tensors[name] = tensor
                if sum(tensor.numel() for tensor in tensors.values()) > MOST_PARAMETERS:
                    raise PruningError(
                        f"one layer has more than the {MOST_PARAMETERS:,} parameters that are held "
                        "in float64"
                    )
        return tensors


def inferred_row_proofs(checkpoint: Checkpoint) -> Iterator[str]:
    """Hold the row of a teacher whose type is not in the table against a layer of each kind, and
    say so in a line each; nothing for a type with a written row.

    Raises PruningError, with the axis, where it does not fit the teacher.
    """
    if checkpoint.config.model_type in FAMILIES:
        return
    for block in TeacherBlock.of_each_kind(checkpoint):
        where = f"the inferred row {checkpoint.config.model_type} on {block.name}"
        try:
            findings = list(block.proof().findings())
        except PruningError as problem:
            yield f"note: {where} is not proven, but on a tiny model alone: {problem}"
            continue
        most = 0.0
        for finding in findings:
            if not finding.proven:
                raise PruningError(
                    f"{checkpoint.directory} cannot be cut: {where} is wrong of its "
                    f"{finding.axis}: {finding.reason}"
                )
            most = max(most, finding.sorted or 0.0, finding.silenced or 0.0)
        axes = ", ".join(finding.axis for finding in findings)
        yield f"proof: {where} is right of {axes} (within {most:.1e} of the largest logit)"
