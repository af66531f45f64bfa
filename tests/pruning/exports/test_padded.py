"""Padded copies: stock checkpoints that compute what the per-layer student does."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from pruning import (
    Architecture,
    Checkpoint,
    PruningError,
    architecture_of,
    block_of,
    is_legal,
    load_student,
    write_student,
)
from pruning.exports.padded import padded_layers, padded_shape, write_padded
from tests.pruning.models import TYPES, build_config, build_teacher, difference, logits

ONE_NUMBER_OF_HEADS = ("olmo2", "olmo3")
"""Norms over all heads of a layer: zeros would change the mean."""


def mixed_shape(variant: str) -> Architecture:
    """Smaller attention and no FFN, no attention and a smaller FFN, and all that the teacher has:
    as much of that as the family takes."""
    config = build_config(variant)
    whole = architecture_of(config)
    full = [block_of(config, layer) for layer in range(3)]
    small = full[0]
    for kv_heads in range(whole.kv_heads - 1, 0, -1):
        fewer = replace(full[0], heads=kv_heads * small.group_heads, kv_heads=kv_heads)
        sizes = replace(whole, heads=fewer.heads, kv_heads=fewer.kv_heads)
        if is_legal(config, sizes) and variant not in ONE_NUMBER_OF_HEADS:
            small = fewer
            break
    first = replace(small, ffn=0, experts=0, expert_ffn=0)
    second = replace(full[1], heads=0, kv_heads=0, ffn=full[1].ffn * 2 // 5)
    second = replace(second, expert_ffn=full[1].expert_ffn // 16 * 8)
    return Architecture.of_blocks(whole.hidden, [first, second, full[2]])


WINDOWS = Architecture.parse("L3 H48 A[9/3w 9/3w 6/2] F[40 17 -]")
"""A window that the teacher's layer 1 has not."""


@pytest.mark.parametrize(
    ("variant", "shape"),
    [*((name, None) for name in (*TYPES, "phi3-long")), ("qwen2-windows", WINDOWS)],
)
def test_the_compact_student_and_its_padded_copy_agree(
    variant: str, shape: Architecture | None, tmp_path: Path
) -> None:
    build_teacher(variant, dtype=torch.float64).save_pretrained(tmp_path / "teacher")
    shape = shape or mixed_shape(variant)
    write_student(Checkpoint(tmp_path / "teacher"), shape, range(3), tmp_path / "student")
    (tmp_path / "copy").mkdir()
    write_padded(Checkpoint(tmp_path / "student"), tmp_path / "copy")
    copy = Checkpoint(tmp_path / "copy")
    copy.check()
    assert not architecture_of(copy.config).per_layer
    values = json.loads((tmp_path / "copy" / "config.json").read_text())
    teacher = json.loads((tmp_path / "teacher" / "config.json").read_text())
    assert values["model_type"] == teacher["model_type"]
    assert values["architectures"] == teacher["architectures"]
    assert not {"block_configs", "base_model_type"} & values.keys()
    stock = AutoModelForCausalLM.from_pretrained(copy.directory, dtype=torch.float64)
    expected = logits(load_student(tmp_path / "student"))
    assert difference(logits(stock), expected) < 1e-12


def test_the_enclosing_shape_is_one_that_the_type_can_have() -> None:
    config = build_config("llama-gqa-tied", hidden_size=72)
    shape = Architecture.parse("L2 H72 A[4/2 3/3] F40")  # encloses 6 heads in 3 groups: 72 / 6
    assert (padded_shape(config, shape).heads, padded_shape(config, shape).kv_heads) == (6, 3)
    # 7 groups of 2, 3 or 4 and 8 of 2 are numbers of heads that do not divide 72; 8 of 3 do.
    assert padded_shape(config, Architecture.parse("L2 H72 A[7/7 2/1] F40")).heads == 24
    with pytest.raises(PruningError, match="no uniform shape"):
        padded_shape(config, Architecture.parse("L2 H72 A[37/37 2/1] F40"))


def test_a_norm_over_all_heads_would_see_the_zeros() -> None:
    config = build_config("olmo2")
    assert len(padded_layers(config, Architecture.parse("L2 H48 A9/3 F[40 -]"))) == 2
    with pytest.raises(PruningError, match="norms self_attn.q_norm over all heads"):
        padded_layers(config, Architecture.parse("L2 H48 A[9/3 6/2] F40"))
