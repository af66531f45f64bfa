"""Importance against a brute-force computation from everything recorded."""

from collections import defaultdict
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pruning import Importance, PruningError, measure_importance
from tests.pruning.models import build_teacher, token_ids

MODELS = ["llama-gqa-biases", "llama-mha", "mistral-gqa"]


@torch.no_grad()
def brute_force(model: Any, samples: Tensor) -> dict[str, Tensor]:
    """The scores by their definition, one sample at a time, everything stored, in fp64."""
    seen: dict[str, list[Tensor]] = defaultdict(list)
    handles = []

    def record(key: str, module: Any, use_input: bool) -> None:
        def hook(_: Any, inputs: Any, output: Any) -> None:
            seen[key].append((inputs[0] if use_input else output)[0].double())

        handles.append(module.register_forward_hook(hook))

    for i, layer in enumerate(model.model.layers):
        record(f"norm {i} a", layer.input_layernorm, False)
        record(f"norm {i} b", layer.post_attention_layernorm, False)
        record(f"heads {i}", layer.self_attn.o_proj, True)
        record(f"ffn {i}", layer.mlp.down_proj, True)
        record(f"output {i}", layer, False)
    record("input 0", model.model.layers[0].input_layernorm, True)
    for sample in samples:
        model(input_ids=sample[None], use_cache=False)
    for handle in handles:
        handle.remove()

    def score(activations: list[Tensor]) -> Tensor:
        return torch.stack([a.abs().mean(0) for a in activations]).square().sum(0).sqrt()

    head_dim, depth = model.config.head_dim, len(model.model.layers)
    streams = [seen["input 0"]] + [seen[f"output {i}"] for i in range(depth)]
    influence = []
    for before, after in zip(streams, streams[1:], strict=False):
        cosine = torch.cosine_similarity(torch.cat(before), torch.cat(after), dim=-1)
        influence.append(1 - cosine.mean())
    return {
        "hidden": torch.stack(
            [score(seen[f"norm {i} {n}"]) for i in range(depth) for n in "ab"]
        ).sum(0),
        "heads": torch.stack(
            [
                score([x.unflatten(-1, (-1, head_dim)).norm(dim=-1) for x in seen[f"heads {i}"]])
                for i in range(depth)
            ]
        ),
        "ffn": torch.stack([score(seen[f"ffn {i}"]) for i in range(depth)]),
        "layers": torch.stack(influence),
    }


@pytest.mark.parametrize("variant", MODELS)
def test_importance_is_the_brute_force_one(variant: str) -> None:
    model = build_teacher(variant)
    samples = token_ids(7, 13)
    importance = measure_importance(model, samples.split(3))
    for axis, expected in brute_force(model, samples).items():
        measured = getattr(importance, axis)
        assert measured.dtype == torch.float32
        torch.testing.assert_close(measured.double(), expected, rtol=1e-4, atol=1e-6)


def test_importance_does_not_depend_on_the_batches() -> None:
    model = build_teacher("llama-gqa-tied")
    samples = token_ids(8, 13)
    whole = measure_importance(model, [samples])
    for size in (1, 3, 4):
        split = measure_importance(model, samples.split(size))
        for axis in fields(Importance):
            torch.testing.assert_close(
                getattr(split, axis.name), getattr(whole, axis.name), rtol=1e-4, atol=1e-6
            )


@torch.no_grad()
def test_planted_dead_parts_rank_last() -> None:
    model: Any = build_teacher("mistral-gqa")
    dead_neuron, dead_head, dead_channel = 11, 5, 33
    for layer in model.model.layers:
        layer.mlp.up_proj.weight[dead_neuron] = 0
        layer.input_layernorm.weight[dead_channel] = 0
        layer.post_attention_layernorm.weight[dead_channel] = 0
    # A query head has no values of its own: silence those of its KV group, of three heads.
    group = dead_head // 3
    for layer in model.model.layers:
        layer.self_attn.v_proj.weight[group * 8 : (group + 1) * 8] = 0
    # A layer that adds nothing does not move the stream.
    model.model.layers[1].self_attn.o_proj.weight.zero_()
    model.model.layers[1].mlp.down_proj.weight.zero_()
    importance = measure_importance(model, [token_ids(4, 13)])
    assert int(importance.hidden.argmin()) == dead_channel
    assert importance.ffn.argmin(-1).tolist() == [dead_neuron] * 3
    last_three = importance.heads.argsort(-1, descending=True)[:, 6:]
    assert [sorted(row) for row in last_three.tolist()] == [[3, 4, 5]] * 3
    assert int(importance.layers.argmin()) == 1


def test_no_batches_is_an_error() -> None:
    with pytest.raises(PruningError, match="no calibration sequences"):
        measure_importance(build_teacher("llama-gqa-tied"), [])


@torch.no_grad()
def test_scores_that_are_not_finite_are_an_error() -> None:
    model: Any = build_teacher("llama-gqa-tied")
    model.model.layers[1].mlp.up_proj.weight[0, 0] = float("inf")
    with pytest.raises(PruningError, match="not finite"):
        measure_importance(model, [token_ids(2, 13)])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_the_model_is_left_as_found(training: bool, fails: bool) -> None:
    model: Any = build_teacher("llama-gqa-tied").train(training)
    model.model.layers[0].eval()
    modes = [module.training for module in model.modules()]
    weights = {name: p.clone() for name, p in model.named_parameters()}

    def batches() -> Any:
        yield token_ids(2, 13)
        if fails:
            raise KeyboardInterrupt

    if fails:
        with pytest.raises(KeyboardInterrupt):
            measure_importance(model, batches())
    else:
        measure_importance(model, batches())
    assert [module.training for module in model.modules()] == modes
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(torch.equal(p, weights[name]) for name, p in model.named_parameters())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_saved_scores_are_read_back(tmp_path: Path) -> None:
    importance = measure_importance(build_teacher("llama-gqa-tied"), [token_ids(2, 13)])
    importance.save(tmp_path / "importance.safetensors")
    read = Importance.load(tmp_path / "importance.safetensors")
    for axis in fields(Importance):
        assert torch.equal(getattr(read, axis.name), getattr(importance, axis.name))
