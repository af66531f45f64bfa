"""Dropped experts that are merged into kept ones."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from pruning import (
    Checkpoint,
    PruneSettings,
    PruningError,
    Slice,
    architecture_of,
    load_slice,
    prune,
)
from pruning.importance import Routing, measure_routing
from pruning.slicing import expert_merge
from tests.pruning.models import build_teacher, difference, logits, random_ordering, token_ids

FUSED = ("gate_up_proj", "down_proj")


def routing(experts: int, like: int, tokens: list[int], layers: int = 3) -> Routing:
    """Every expert is most like expert `like`."""
    similarity = torch.eye(experts, dtype=torch.float64)
    similarity[:, like] = 0.9
    each = range(layers)
    return Routing({layer: torch.tensor(tokens) for layer in each}, dict.fromkeys(each, similarity))


def experts_of(model: Any, layer: int) -> Any:
    return model.get_submodule(f"model.layers.{layer}.mlp.experts")


def cut_of(model: Any, directory: Path, experts: int) -> tuple[Checkpoint, Slice]:
    model.save_pretrained(directory)
    teacher = Checkpoint(directory)
    whole = architecture_of(teacher.config)
    ordering = random_ordering(teacher.config)
    smaller = replace(whole, experts=experts, expert_ffn=24)
    cut = Slice.of(teacher.config, smaller, kept_layers=range(whole.layers), ordering=ordering)
    return teacher, cut


@pytest.mark.parametrize("variant", ["mixtral", "gpt-oss"])
def test_copies_with_their_neurons_in_another_order_merge_into_what_they_copy(
    variant: str, tmp_path: Path
) -> None:
    model = build_teacher(variant)
    ordering = random_ordering(model.config)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for layer in range(3):
            module, kept = experts_of(model, layer), int(ordering.experts[layer, 0])
            for expert in range(5):
                order = torch.randperm(40, generator=generator)
                for name, parameter in module.named_parameters():
                    parameter[expert] = _reordered(parameter[kept], name, order, model.config)
    teacher, cut = cut_of(model, tmp_path / "teacher", 2)
    everyone = routing(5, like=0, tokens=[7, 1, 4, 9, 2])
    plain = load_slice(teacher, cut)
    merged = load_slice(teacher, cut, edits=expert_merge(teacher, cut, routing=everyone))
    assert difference(logits(merged), logits(plain)) < 1e-5


def _reordered(tensor: Tensor, name: str, order: Tensor, config: Any) -> Tensor:
    """An expert's tensor with its neurons in another order."""
    if name == "down_proj_bias":
        return tensor.clone()
    dim = next(d for d, size in enumerate(tensor.shape) if size in (40, 80))
    if tensor.shape[dim] == 40:
        return tensor.index_select(dim, order)
    if config.model_type == "gpt_oss":  # gate and up by turns
        rows = torch.stack((2 * order, 2 * order + 1), 1).flatten()
    else:
        rows = torch.cat((order, 40 + order))
    return tensor.index_select(dim, rows)


def test_an_expert_counts_by_the_tokens_that_are_routed_to_it(tmp_path: Path) -> None:
    model = build_teacher("gpt-oss")
    teacher, cut = cut_of(model, tmp_path / "teacher", 4)
    kept, (dropped,) = cut.kept("experts", 0).tolist(), cut.ordering.experts[0, 4:].tolist()
    tokens = [99] * 5
    tokens[dropped] = 299
    edits = expert_merge(teacher, cut, routing=routing(5, like=kept[1], tokens=tokens))
    merged, plain = load_slice(teacher, cut, edits=edits), load_slice(teacher, cut)
    bias = experts_of(model, 0).down_proj_bias[:, cut.kept("hidden", None)]
    found = experts_of(merged, 0).down_proj_bias
    assert torch.allclose(found[1], 0.25 * bias[kept[1]] + 0.75 * bias[dropped])
    assert torch.equal(found[0], experts_of(plain, 0).down_proj_bias[0])


def test_routing_counts_choices_and_finds_routers_that_agree() -> None:
    for variant in ("mixtral", "llama4", "deepseek-v3"):
        model = build_teacher(variant)
        found = measure_routing(model, [token_ids(2, 10), token_ids(1, 10, seed=5)])
        for layer, tokens in found.tokens.items():
            assert int(tokens.sum()) == 2 * 30, variant  # two experts a token
            similarity = found.similarity[layer]
            assert torch.allclose(similarity.diagonal(), torch.ones(len(tokens)).double())
            assert similarity.abs().max() <= 1 + 1e-9
    with torch.no_grad():
        router: Any = model.get_submodule("model.layers.1.mlp.gate")
        router.weight[2] = 3 * router.weight[0]
    found = measure_routing(model, [token_ids(2, 10)])
    assert float(found.similarity[1][2, 0]) == pytest.approx(1)


@pytest.mark.parametrize("variant", ["nemotron-h-moe", "deepseek-v3"])
def test_a_cut_merges_experts(variant: str, tmp_path: Path) -> None:
    model = build_teacher(variant)
    model.save_pretrained(tmp_path / "teacher")
    architecture = replace(architecture_of(model.config), experts=4)
    for name, merge in (("merged", True), ("dropped", False)):
        settings = PruneSettings(layer_score="block-influence", merge_experts=merge)
        batches = [token_ids(2, 12)]
        prune(tmp_path / "teacher", architecture, batches, tmp_path / name, settings)
    files = [tmp_path / name / "model.safetensors" for name in ("merged", "dropped")]
    merged, dropped = map(load_file, files)
    changed = {name for name, tensor in merged.items() if not torch.equal(tensor, dropped[name])}
    assert changed
    assert all(".experts." in name for name in changed)


def test_without_experts_to_merge_it_is_refused(tmp_path: Path) -> None:
    settings = PruneSettings(merge_experts=True)
    for variant, message in (("llama-mha", "has no experts"), ("mixtral", "keeps all 5")):
        model = build_teacher(variant)
        model.save_pretrained(tmp_path / variant)
        whole = architecture_of(model.config)
        with pytest.raises(PruningError, match=message):
            prune(tmp_path / variant, whole, [token_ids(1, 8)], tmp_path / "student", settings)
