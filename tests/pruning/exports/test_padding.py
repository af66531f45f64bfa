"""Layers padded with zeros: the same function, whatever the family."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from pruning import Architecture, Checkpoint, PruningError, architecture_of, student_config
from pruning.exports.padding import PaddedLayer, write_padded_tensors
from pruning.families import write_config
from pruning.families.block import Block
from tests.pruning.models import build_teacher, difference, logits

GROUPED = ("llama-gqa-biases", "mistral-gqa", "nemotron", "qwen2", "qwen3", "gemma2", "phi3")
FUSED = ("gpt2-untied", "gpt-neox")
"""Their query heads follow from the hidden size."""


def padded(variant: str, shape: Architecture, folder: Path) -> float:
    """Largest difference between the logits of a model and those of its copy of this shape."""
    model = build_teacher(variant, dtype=torch.float64)
    model.save_pretrained(folder / "model")
    student, own = Checkpoint(folder / "model"), architecture_of(model.config)
    layers = [PaddedLayer(i, own.block(i), shape.block(i)) for i in range(shape.layers)]
    (folder / "copy").mkdir()
    write_padded_tensors(student, layers, folder / "copy")
    write_config(folder / "copy", {}, student_config(model.config, shape, range(shape.layers)))
    copy = AutoModelForCausalLM.from_pretrained(folder / "copy", dtype=torch.float64)
    return difference(logits(copy), logits(model))


@pytest.mark.parametrize("variant", [*GROUPED, *FUSED, "granite", "smollm3"])
def test_a_padded_copy_computes_the_same(variant: str, tmp_path: Path) -> None:
    own = architecture_of(build_teacher(variant).config)
    wider = replace(own, ffn=own.ffn + 24)
    if variant in GROUPED:  # more query heads in each group, and a group more
        wider = replace(wider, heads=18, kv_heads=6 if variant == "qwen3" else 3)
    assert padded(variant, wider, tmp_path) < 1e-12


def test_units_are_padded_inside_their_group() -> None:
    layer = PaddedLayer(0, Block(4, 2, 10), Block(9, 3, 16))
    assert layer.places("heads").tolist() == [0, 1, 3, 4]
    assert layer.places("kv_heads").tolist() == [0, 1]


def test_experts_of_zeros_would_be_asked() -> None:
    with pytest.raises(PruningError, match="experts of zeros"):
        PaddedLayer(2, Block(4, 2, 0, 3, 8), Block(4, 2, 0, 4, 8))
