"""Layers of a loaded model at smaller sizes: what they compute, and what their gradients reach."""

from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from pruning import (
    Architecture,
    Block,
    Checkpoint,
    architecture_of,
    block_of,
    cut_student,
    is_legal,
)
from pruning.slicing import NestedLayers
from tests.exactness import EXACT
from tests.pruning.models import TYPES, build_teacher, difference, logits, token_ids

SEEDS = (4, 9)
"""Of blocks among which are those of every kind: smaller, windowed, without attention or FFN."""


def choices(config: Any, index: int) -> list[Block]:
    """Blocks that layer `index` may have in a student of the teacher's depth."""
    parents = [block_of(config, layer) for layer in range(config.num_hidden_layers)]
    parent = parents[index]
    served = parent.group_heads
    attentions = [(0, 0, 0), (parent.heads, parent.kv_heads, 1), (2 * served, 2, 0)]
    attentions += [(2 * (served - 1), 2, 0)] * (served > 1)
    ffns = [(0, 0, 0), (parent.ffn * 3 // 8, min(parent.experts, 3), parent.expert_ffn // 16 * 8)]
    ffns.append((parent.ffn, parent.experts, parent.expert_ffn))
    full = getattr(config, "layer_types", None) or []
    found = [
        Block(heads, kv_heads, *sizes, window)
        for heads, kv_heads, window in [*attentions, (parent.heads, parent.kv_heads, 0)]
        for sizes in ffns
        if not window or full[index : index + 1] == ["full_attention"]
    ]
    hidden = architecture_of(config).hidden

    def fits(block: Block) -> bool:
        blocks = [*parents[:index], block, *parents[index + 1 :]]
        return block != parent and is_legal(config, Architecture.of_blocks(hidden, blocks))

    return [block for block in found if fits(block)]


def random_blocks(config: Any, seed: int) -> tuple[Block, ...]:
    random, layers = Random(seed), range(config.num_hidden_layers)
    hidden = architecture_of(config).hidden
    while True:
        blocks = tuple(random.choice(choices(config, index)) for index in layers)
        if is_legal(config, Architecture.of_blocks(hidden, blocks)):
            return blocks


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("variant", [*TYPES, "phi3-long"])
def test_nested_layers_compute_what_a_cut_student_does(variant: str, tmp_path: Path) -> None:
    model: Any = build_teacher(variant)
    model.save_pretrained(tmp_path)
    whole, alone = logits(model), architecture_of(model.config)
    for seed in SEEDS:
        blocks = random_blocks(model.config, seed)
        shape = Architecture.of_blocks(alone.hidden, blocks)
        student = cut_student(Checkpoint(tmp_path), shape, range(alone.layers), dtype=model.dtype)
        with NestedLayers(model) as nested:
            for index, block in enumerate(blocks):
                nested.resize(index, block)
            found = logits(model)
        assert difference(found, logits(student)) < EXACT, shape
        assert difference(found, whole) > 1e-3
    assert torch.equal(logits(model), whole)  # and nothing is left of it


@pytest.mark.usefixtures("float64")
def test_a_layer_takes_the_parameters_that_it_is_given_and_passes_by_what_is_left_out() -> None:
    model, other = build_teacher("llama-gqa-tied"), build_teacher("llama-gqa-tied", seed=9)
    block = replace(block_of(model.config, 1), kv_heads=1, heads=3, ffn=16)
    with NestedLayers(model) as nested, NestedLayers(other) as theirs:
        mixed = dict(nested.layers[1].named_parameters())
        strange = dict(theirs.layers[1].named_parameters())
        mixed |= {name: strange[name] for name in mixed if name.startswith("mlp")}
        nested.resize(1, block, parameters=mixed)
        nested.skip(2)
        found = logits(model)
    with torch.no_grad():
        for name, parameter in model.get_submodule("model.layers.1").named_parameters():
            parameter.copy_(mixed[name])
    model.model.layers = model.model.layers[:2]
    model.config.num_hidden_layers = 2
    with NestedLayers(model) as nested:
        nested.resize(1, block)
        assert difference(found, logits(model)) < EXACT


@pytest.mark.parametrize("variant", ["llama-gqa-tied", "phi3", "qwen3-moe"])
def test_gradients_reach_the_prefixes_of_the_whole_parameters(variant: str) -> None:
    model: Any = build_teacher(variant)
    parent = block_of(model.config, 0)
    block = replace(
        parent, kv_heads=1, heads=2, ffn=parent.ffn // 2, experts=min(parent.experts, 2)
    )
    with NestedLayers(model) as nested:
        nested.resize(0, block)
        model(input_ids=token_ids(2, 9), use_cache=False).logits.sum().backward()
        for name, parameter in nested.layers[0].named_parameters():
            assert parameter.grad is not None, name
            read = parameter.grad.flatten(1) if parameter.ndim > 1 else parameter.grad[:, None]
            if name.endswith(("q_proj.weight", "gate_up_proj.weight", "gate.weight")):
                assert 0 < float((read.abs().sum(1) > 0).double().mean()) < 1, name
